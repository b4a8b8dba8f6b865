//! Decides which path each class uses.
//!
//! Four layers, each in its own file: what a path did (`history`, `entry`), whether it keeps what a class asks
//! (`watch`), in which order a class would take the paths (`ordering`), and the rules by which it changes (`rules`), with
//! the move itself (`motion`) and the words for it (`words`).
//!
//! A decision depends on the configuration, the observations and their times alone. State is plain data, so that a
//! recording can begin with it at any time.

mod entry;
mod history;
mod motion;
mod ordering;
mod rules;
mod watch;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::class::{Bounds, ClassConfig, ClassError};
use crate::ids::{CLASSES_MAX, ClassId, PATHS_MAX, PathIndex, Ranking};
use crate::metrics::{PathMetrics, PathState, StateReason};
use crate::observation::{Command, Direction, Observation, PathProfile};
use crate::record::{Candidate, Decision};
use crate::time::Time;
use entry::{Entry, PENALTY_VIOLATION, TIER_DOWN};
use motion::Motion;
use ordering::{Field, Kinship, Levels, Preference, Standing};
use rules::Hold;

/// What a selector is told when it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectorConfig {
    /// The classes, by number, at most [`CLASSES_MAX`].
    pub classes: Vec<ClassConfig>,
    /// Whether this site decides and the peer follows: true at exactly one of both ends, such as the one with the smaller
    /// public key. Two sites that both decided could each leave the path that the other has just chosen. A site that
    /// follows decides for itself while it does not know what the peer uses, while that is no usable path, and while its own
    /// way to the peer is violated there.
    #[serde(default = "leads_alone")]
    pub leads: bool,
}

/// Where a class's packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The path of new flows; `None` while there is no usable one.
    pub path: Option<PathIndex>,
    /// The path that the class is leaving gracefully: flows that use it stay until they pause.
    pub leaving: Option<PathIndex>,
    /// A flow that was silent this long may change to `path` without reordering.
    pub gap: Duration,
    /// From here on every flow uses `path`.
    pub deadline: Time,
    /// Which share of existing flows may move at all yet, of 256, by their hash.
    pub share: u16,
    /// A second path that carries copies of every packet, while the first is suspect.
    pub protect: Option<PathIndex>,
}

/// The selector of one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selector {
    config: SelectorConfig,
    /// The latest time that it was told.
    now: Time,
    paths: [Option<Box<Entry>>; PATHS_MAX],
    classes: [Class; CLASSES_MAX],
    routes: [Route; CLASSES_MAX],
    /// Records that the host did not take yet: of what was decided, not of what will be.
    #[serde(skip)]
    decisions: VecDeque<Decision>,
    /// Records that the host never took.
    #[serde(skip)]
    decisions_lost: u64,
}

/// What a class remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Class {
    /// Bits per second that it sends.
    load_bps: f64,
    pin: Option<Pin>,
    /// The path on which the peer sends it.
    peer: Option<PathIndex>,
    /// In which order the peer would take the paths, where it leads.
    #[serde(default)]
    told: Ranking,
    /// By path: which ones are equal but for noise.
    #[serde(default)]
    levels: Levels,
    /// When it followed the peer last.
    followed_at: Option<Time>,
    /// The path that it left then.
    #[serde(default)]
    followed_from: Option<PathIndex>,
    /// The path that has been better, since when.
    hold: Option<Hold>,
    /// When it changed of its own will last.
    voluntary_at: Option<Time>,
    /// When it got its first path, or one after it had none.
    first_at: Option<Time>,
    motion: Option<Motion>,
}

/// An operator's choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Pin {
    path: PathIndex,
    /// The class has not been there since the command: no hold-down counts.
    is_new: bool,
}

impl SelectorConfig {
    /// Whether the classes make sense.
    ///
    /// # Errors
    ///
    /// Names the field and what to write.
    pub fn check(&self) -> Result<(), ClassError> {
        if self.classes.len() > CLASSES_MAX {
            return Err(ClassError::TooMany {
                count: self.classes.len(),
            });
        }
        for (number, class) in self.classes.iter().enumerate() {
            class.check()?;
            let before = &self.classes[..number];
            if before.iter().any(|other| other.name == class.name) {
                return Err(ClassError::Twice {
                    class: class.name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Classes of a site that decides for itself.
    pub fn new(classes: Vec<ClassConfig>) -> Self {
        Self {
            classes,
            leads: true,
        }
    }
}

/// What the host calls.
///
/// One call in, then drain [`poll_decision`](Selector::poll_decision) and read [`routes`](Selector::routes). Nothing
/// allocates but a decision's record and a new path's entry. Numbers that name no path or class, and values that are no
/// numbers, are ignored.
impl Selector {
    /// A selector that knows no path.
    pub fn new(config: SelectorConfig, now: Time) -> Self {
        let mut selector = Self {
            config,
            now,
            paths: Default::default(),
            classes: Default::default(),
            routes: Default::default(),
            decisions: VecDeque::with_capacity(DECISIONS_MAX),
            decisions_lost: 0,
        };
        selector.config.classes.truncate(CLASSES_MAX);
        selector
    }

    /// Takes new classes; paths and their history stay. A class that keeps its name keeps its path, its pins and what is
    /// known about its paths.
    pub fn configure(&mut self, mut config: SelectorConfig, now: Time) {
        self.advance(now);
        config.classes.truncate(CLASSES_MAX);
        let old = &self.config.classes;
        let mut sources = [None; CLASSES_MAX];
        for (source, class) in sources.iter_mut().zip(&config.classes) {
            *source = old.iter().position(|known| known.name == class.name);
        }
        fn taken<T: Default + Clone>(
            old: &[T; CLASSES_MAX],
            sources: &[Option<usize>; CLASSES_MAX],
        ) -> [T; CLASSES_MAX] {
            sources.map(|source| source.map_or_else(T::default, |source| old[source].clone()))
        }
        self.classes = taken(&self.classes, &sources);
        self.routes = taken(&self.routes, &sources);
        for entry in self.paths.iter_mut().flatten() {
            entry.watches = taken(&entry.watches, &sources);
        }
        self.config = config;
        self.decide_all();
    }

    /// Something was seen.
    pub fn observe(&mut self, observation: &Observation, now: Time) {
        self.advance(now);
        let mut is_changed = self.pass_time();
        is_changed |= match observation {
            Observation::Path(path, profile) => self.see_path(*path, profile),
            Observation::Gone(path) => self.see_gone(*path),
            Observation::State(path, state, reason) => self.see_state(*path, *state, *reason),
            Observation::Rtt(path, ns) => self.see_rtt(*path, *ns),
            Observation::Probe(path, direction, lost) => self.see_probe(*path, *direction, *lost),
            Observation::Deviation(path, direction, ns) => {
                self.see_deviation(*path, *direction, *ns)
            }
            Observation::Data(path, direction, sent, lost) => {
                self.see_data(*path, *direction, *sent, *lost)
            }
            Observation::Metrics(path, metrics) => self.see_metrics(*path, metrics),
            Observation::PeerChoice(class, path) => self.see_peer(*class, *path),
            Observation::PeerOrder(class, order) => self.see_order(*class, *order),
            Observation::Load(class, bps) => self.see_load(*class, *bps),
            Observation::Command(command) => self.see_command(*command),
        };
        if is_changed {
            self.decide_all();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called: later than any time it was told.
    pub fn poll_timeout(&self) -> Option<Time> {
        let mut next = None;
        let mut due = |at: Time| {
            if at > self.now && next.is_none_or(|known| at < known) {
                next = Some(at);
            }
        };
        for number in 0..self.config.classes.len() {
            let motion = self.classes[number].motion.as_ref();
            if let Some(at) = motion.and_then(|motion| motion.next(&self.routes[number])) {
                due(at);
            }
            self.holds_end(number, &mut due);
        }
        for entry in self.paths.iter().flatten() {
            entry.damping.reuse_at().into_iter().for_each(&mut due);
            let watches = entry.watches.iter();
            watches
                .filter_map(|watch| watch.recovery_at())
                .for_each(&mut due);
        }
        next
    }

    /// Time passed: holds, hold-downs and penalties run out.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        self.pass_time();
        self.decide_all();
    }

    /// The next record.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// Records that were lost because the host took none: more than 64 waited.
    pub fn decisions_lost(&self) -> u64 {
        self.decisions_lost
    }

    /// Where each class's packets go.
    pub fn routes(&self) -> &[Route; CLASSES_MAX] {
        &self.routes
    }

    /// Paths that are probed as often as those in use because a class would take them next, by bit.
    pub fn standby(&self) -> u16 {
        let mut bits = 0;
        for number in 0..self.config.classes.len() {
            let field = self.field(number, self.now);
            let in_use = self.routes[number].path;
            let usable = field.all().iter().filter(|standing| standing.is_usable());
            let next = usable
                .map(Standing::index)
                .find(|path| Some(*path) != in_use);
            bits |= next.map_or(0, |path| 1 << path.0);
        }
        bits
    }

    /// In which order each class would take its usable paths, for a peer that follows; empty where this site does not
    /// lead, and where there is no choice: when one of two paths dies, both ends know where to go.
    pub fn orders(&self) -> [Ranking; CLASSES_MAX] {
        let mut orders = [Ranking::default(); CLASSES_MAX];
        let usable = self.paths.iter().flatten().filter(|it| it.is_usable());
        if !self.config.leads || usable.count() < ORDERED_MIN {
            return orders;
        }
        for (number, order) in orders.iter_mut().enumerate() {
            if number < self.config.classes.len() {
                let field = self.field(number, self.now);
                let usable = field.all().iter().filter(|standing| standing.is_usable());
                *order = Ranking::new(usable.map(Standing::index));
            }
        }
        orders
    }

    /// Every path as a class sees it, best first.
    pub fn candidates(&self, class: ClassId, now: Time) -> Vec<Candidate> {
        let number = class.as_usize();
        if number >= self.config.classes.len() {
            return Vec::new();
        }
        let now = now.max(self.now);
        let field = self.field(number, now);
        self.describe(number, &field, self.routes[number].path, now)
    }

    /// Tier and score of a path for a class, without allocating.
    pub fn standing(&self, class: ClassId, path: PathIndex, now: Time) -> Option<(u8, f64)> {
        let number = class.as_usize();
        if number >= self.config.classes.len() {
            return None;
        }
        let now = now.max(self.now);
        let standing = self.stand(number, path.as_usize(), now)?;
        Some((standing.tier, standing.score.score))
    }

    /// The classes in force.
    pub fn classes(&self) -> &[ClassConfig] {
        &self.config.classes
    }

    /// The configuration in force.
    pub fn config(&self) -> &SelectorConfig {
        &self.config
    }

    /// The name of a path.
    pub fn path_name(&self, path: PathIndex) -> Option<&str> {
        Some(self.entry(path)?.profile.name.as_str())
    }

    /// The dampening of a path: its penalty, and until when it is suppressed for it.
    pub fn penalty(&self, path: PathIndex, now: Time) -> Option<(f64, Option<Time>)> {
        let damping = &self.entry(path)?.damping;
        Some((damping.penalty(now), damping.reuse_at()))
    }

    /// The path on which the peer sends a class, as far as it said.
    pub fn peer_choice(&self, class: ClassId) -> Option<PathIndex> {
        self.classes.get(class.as_usize())?.peer
    }

    /// The path that a class is pinned to.
    pub fn pinned(&self, class: ClassId) -> Option<PathIndex> {
        Some(self.classes.get(class.as_usize())?.pin?.path)
    }

    /// Whether an operator of either side drains a path.
    pub fn is_draining(&self, path: PathIndex) -> bool {
        self.entry(path).is_some_and(Entry::is_draining)
    }
}

/// What observations change. Each returns whether a decision may follow.
impl Selector {
    fn see_path(&mut self, path: PathIndex, profile: &PathProfile) -> bool {
        let now = self.now;
        let Some(slot) = self.paths.get_mut(path.as_usize()) else {
            return false;
        };
        match slot {
            Some(entry) => entry.profile.clone_from(profile),
            None => *slot = Some(Box::new(Entry::new(profile.clone(), now))),
        }
        true
    }

    fn see_gone(&mut self, path: PathIndex) -> bool {
        let Some(slot) = self.paths.get_mut(path.as_usize()) else {
            return false;
        };
        for class in &mut self.classes {
            class.peer = class.peer.filter(|peer| *peer != path);
            class.pin = class.pin.filter(|pin| pin.path != path);
        }
        slot.take().is_some()
    }

    fn see_state(&mut self, path: PathIndex, state: PathState, reason: StateReason) -> bool {
        let now = self.now;
        let Some(entry) = self.entry_mut(path) else {
            return false;
        };
        entry.set_state(state, reason, now);
        let uplink = entry.profile.uplink;
        if matches!(reason, StateReason::CarrierLost | StateReason::UplinkDown) {
            // The paths beside it will be said to be down next: nobody moves there for that moment.
            for entry in self.paths.iter_mut().flatten() {
                if entry.profile.uplink == uplink && entry.is_usable() {
                    entry.set_state(state, reason, now);
                }
            }
        }
        true
    }

    fn see_rtt(&mut self, path: PathIndex, ns: f64) -> bool {
        let now = self.now;
        let rtt_ms = ns / NS_PER_MS;
        self.watch(path, rtt_ms, |entry, classes| {
            let average = &mut entry.averages.rtt_ms;
            *average = Some(average.map_or(rtt_ms, |known| known + (rtt_ms - known) / 8.0));
            let watches = entry.watches.iter_mut().zip(classes);
            watches.fold(false, |any, (watch, class)| {
                watch.rtt(class, rtt_ms, now) | any
            })
        })
    }

    fn see_deviation(&mut self, path: PathIndex, direction: Direction, ns: f64) -> bool {
        let now = self.now;
        let deviation_ms = ns.abs() / NS_PER_MS;
        self.watch(path, deviation_ms, |entry, classes| {
            let average = &mut entry.averages.jitter_ms[history::place(direction)];
            let known = average.unwrap_or(0.0);
            *average = Some(known + (deviation_ms - known) / 16.0);
            let watches = entry.watches.iter_mut().zip(classes);
            watches.fold(false, |any, (watch, class)| {
                watch.deviation(class, direction, deviation_ms, now) | any
            })
        })
    }

    fn see_probe(&mut self, path: PathIndex, direction: Direction, is_lost: bool) -> bool {
        let now = self.now;
        let shared = self.shared_loss(path, direction);
        self.watch(path, 0.0, |entry, classes| {
            entry.history.add_probe(direction, is_lost, now);
            let history = entry.history;
            let watches = entry.watches.iter_mut().zip(classes).zip(shared);
            watches.fold(false, |any, ((watch, class), shared)| {
                watch.probe(class, direction, is_lost, &history, shared, now) | any
            })
        })
    }

    fn see_data(&mut self, path: PathIndex, direction: Direction, sent: u32, lost: u32) -> bool {
        let now = self.now;
        let shared = self.shared_loss(path, direction);
        self.watch(path, 0.0, |entry, classes| {
            let at = &mut entry.data_at[history::place(direction)];
            let span = now.since(*at);
            *at = now;
            entry.history.add_data(direction, sent, lost, now);
            let watches = entry.watches.iter_mut().zip(classes).zip(shared);
            watches.fold(false, |any, ((watch, class), shared)| {
                watch.data(class, direction, (sent, lost), span, shared, now) | any
            })
        })
    }

    /// Lets every class look at a sample of a path, unless it is no sample or the path is not in use.
    fn watch(
        &mut self,
        path: PathIndex,
        value: f64,
        look: impl FnOnce(&mut Entry, &[ClassConfig]) -> bool,
    ) -> bool {
        let now = self.now;
        let Some(Some(entry)) = self.paths.get_mut(path.as_usize()) else {
            return false;
        };
        if !entry.is_usable() || !value.is_finite() {
            return false;
        }
        let was_calm = entry.watches.iter().all(|watch| watch.violated() == 0);
        let is_violated = look(entry, &self.config.classes);
        if is_violated && was_calm {
            entry.damping.punish(PENALTY_VIOLATION, now);
        }
        is_violated
    }

    fn see_metrics(&mut self, path: PathIndex, metrics: &PathMetrics) -> bool {
        let Some(entry) = self.entry_mut(path) else {
            return false;
        };
        entry.set_metrics(metrics);
        true
    }

    fn see_peer(&mut self, class: ClassId, path: PathIndex) -> bool {
        let is_known = self.entry(path).is_some();
        let Some(class) = self.classes.get_mut(class.as_usize()) else {
            return false;
        };
        class.peer = is_known.then_some(path);
        true
    }

    fn see_order(&mut self, class: ClassId, order: Ranking) -> bool {
        let Some(class) = self.classes.get_mut(class.as_usize()) else {
            return false;
        };
        class.told = order;
        true
    }

    fn see_load(&mut self, class: ClassId, bps: f64) -> bool {
        let Some(class) = self.classes.get_mut(class.as_usize()) else {
            return false;
        };
        if bps.is_finite() && bps >= 0.0 {
            class.load_bps = bps;
        }
        false
    }

    fn see_command(&mut self, command: Command) -> bool {
        match command {
            Command::Pin(path, class) => {
                if self.entry(path).is_none() {
                    return false;
                }
                let pin = Pin { path, is_new: true };
                self.with_pins(class, |slot| *slot = Some(pin));
            }
            Command::Unpin(class) => {
                for number in 0..self.config.classes.len() {
                    let is_meant = class.is_none_or(|class| class.as_usize() == number);
                    if is_meant && self.classes[number].pin.take().is_some() {
                        self.unpinned(number);
                    }
                }
            }
            Command::Drain(path) | Command::Undrain(path) => {
                let is_drained = matches!(command, Command::Drain(_));
                let Some(entry) = self.entry_mut(path) else {
                    return false;
                };
                entry.is_drained = is_drained;
            }
            Command::Clear(path) => {
                let Some(entry) = self.entry_mut(path) else {
                    return false;
                };
                entry.clear();
            }
        }
        true
    }

    fn with_pins(&mut self, class: Option<ClassId>, set: impl Fn(&mut Option<Pin>)) {
        for (number, state) in self.classes.iter_mut().enumerate() {
            if class.is_none_or(|class| class.as_usize() == number) {
                set(&mut state.pin);
            }
        }
    }

    /// Violations, suppressions and moves that are over end; true where one did.
    fn pass_time(&mut self) -> bool {
        let now = self.now;
        let mut is_changed = false;
        for entry in self.paths.iter_mut().flatten() {
            is_changed |= entry.damping.release(now);
            for (number, class) in self.config.classes.iter().enumerate() {
                is_changed |= entry.recover(number, class, now);
            }
        }
        for number in 0..self.config.classes.len() {
            self.continue_motion(number);
        }
        is_changed
    }

    /// Time never goes back here, whatever the host says.
    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }
}

/// How things stand.
impl Selector {
    fn entry(&self, path: PathIndex) -> Option<&Entry> {
        self.paths.get(path.as_usize())?.as_deref()
    }

    fn entry_mut(&mut self, path: PathIndex) -> Option<&mut Entry> {
        self.paths.get_mut(path.as_usize())?.as_deref_mut()
    }

    /// What the best other path that a class could go to loses in that direction, as a share, by class; 0 where there is
    /// none.
    ///
    /// A path that is out of the class's bounds itself is no measure, as long as another one is: what it lost a minute
    /// ago would hide what this one loses.
    fn shared_loss(&self, path: PathIndex, direction: Direction) -> [f64; CLASSES_MAX] {
        let others = self.paths.iter().enumerate();
        let others = others.filter(|(number, _)| *number != path.as_usize());
        let usable = others.filter_map(|(_, entry)| entry.as_deref());
        let usable = usable.filter(|entry| {
            entry.state == PathState::Up && !entry.is_draining() && !entry.damping.is_suppressed()
        });
        let mut least = [(true, f64::INFINITY); CLASSES_MAX];
        for entry in usable {
            let is_carrying = entry.is_carrying(direction, self.now);
            let loss = entry.history.shared(direction, is_carrying, self.now);
            for (least, watch) in least.iter_mut().zip(&entry.watches) {
                let this = (watch.violated() != 0, loss);
                if this < *least {
                    *least = this;
                }
            }
        }
        least.map(|(_, loss)| if loss.is_finite() { loss } else { 0.0 })
    }

    /// Whether a state that was read from outside can be one of a selector.
    pub(crate) fn is_whole(&self) -> bool {
        self.config.classes.len() <= CLASSES_MAX
    }

    /// Whether a class has no working path, or one whose numbers are past the thresholds of `yardstick`.
    pub(crate) fn is_unmet(&self, class: usize, yardstick: &ClassConfig) -> bool {
        let in_use = self.routes[class].path.and_then(|path| self.entry(path));
        let Some(entry) = in_use.filter(|entry| entry.is_usable()) else {
            return true;
        };
        let sample = entry.sample(0.0);
        let is_past = |value: Option<f64>, bounds: Option<Bounds>| {
            let both = value.zip(bounds);
            both.is_some_and(|(value, bounds)| value > bounds.threshold())
        };
        is_past(sample.rtt_ms, yardstick.latency_ms)
            || is_past(sample.jitter_ms, yardstick.jitter_ms)
            || is_past(sample.loss_pct, yardstick.loss_pct)
    }

    fn stand(&self, class: usize, path: usize, now: Time) -> Option<Standing> {
        let entry = self.paths.get(path)?.as_deref()?;
        let config = &self.config.classes[class];
        let number = PathIndex(path as u8);
        let is_own = self.routes[class].path == Some(number);
        let own_bps = if is_own {
            self.classes[class].load_bps
        } else {
            0.0
        };
        let sample = entry.sample(own_bps);
        let mut score = config.score(&sample);
        if entry.state != PathState::Up {
            score.score = 0.0;
        }
        let uplinks = config.prefer.iter();
        let place = uplinks
            .take(usize::from(u8::MAX))
            .position(|uplink| *uplink == entry.profile.uplink);
        debug_assert!(entry.tier(class) <= TIER_DOWN && now >= self.now);
        Some(Standing {
            path: number.0,
            tier: entry.tier(class),
            is_draining: entry.is_draining(),
            told: self.told_place(class, number),
            level: 0,
            kinship: self.kinship(class, number),
            preference: Preference {
                place: place.map_or(u8::MAX, |place| place as u8),
                cost: entry.profile.cost,
                is_metered: entry.profile.is_metered,
            },
            score,
            sample,
        })
    }

    fn field(&self, class: usize, now: Time) -> Field {
        let standings = (0..PATHS_MAX).filter_map(|path| self.stand(class, path, now));
        Field::new(standings, &self.classes[class].levels)
    }

    /// A path's place in the order that the peer told; the last for all where this site leads.
    fn told_place(&self, class: usize, path: PathIndex) -> u8 {
        let place = match self.config.leads {
            true => None,
            false => self.classes[class].told.place(path),
        };
        place.unwrap_or(u8::MAX)
    }

    /// What a path has in common with the one that the class uses.
    fn kinship(&self, class: usize, path: PathIndex) -> Kinship {
        let in_use = self.routes[class].path;
        if in_use == Some(path) {
            return Kinship::Same;
        }
        let ends = |path: PathIndex| Some(&self.entry(path)?.profile);
        let Some((used, other)) = in_use.and_then(ends).zip(ends(path)) else {
            return Kinship::None;
        };
        let is_one_remote = used.remote.is_some() && used.remote == other.remote;
        match (used.uplink == other.uplink, is_one_remote) {
            (false, false) => Kinship::None,
            (true, true) => Kinship::BothEnds,
            (true, false) | (false, true) => Kinship::OneEnd,
        }
    }
}

/// A configuration from before there was a choice is of a site that decides for itself.
fn leads_alone() -> bool {
    true
}

const NS_PER_MS: f64 = 1e6;
/// So many paths there must be for a choice between others than the one that dies.
const ORDERED_MIN: usize = 3;
/// The host drains after each call, which decides once per class: this is for one that forgets.
const DECISIONS_MAX: usize = 64;
