//! Measures the paths to one peer: sends and hears hellos, keeps estimators and liveness, finds the MTU.

mod table;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dice::Dice;
use crate::ids::{CLASSES_MAX, ClassId, PATHS_MAX, PathIndex, Ranking};
use crate::message::{HELLO_LEN, Hello, Kind, ORDER_LEN, Order};
use crate::metrics::{PathMetrics, PathState, StateReason};
use crate::observation::{Observation, PathProfile};
use crate::outbox::Outbox;
use crate::path::{Path, Shared, is_same_end};
use crate::time::Time;

/// The uplink of what came on no known one.
pub(crate) const UPLINK_ANY: u8 = 255;
/// How paths over no known uplink are probed.
const CADENCE_ANY: Cadence = Cadence {
    active: Duration::from_millis(50),
    idle: Duration::from_secs(1),
    multiplier: 5,
};
/// Sessions without an answer to hellos before a peer counts as stock WireGuard and is asked less.
const SILENT_SESSIONS: u32 = 2;

/// How often a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Between hellos on a path that carries traffic, or its stand-by.
    pub active: Duration,
    /// Between hellos on a path that carries nothing.
    pub idle: Duration,
    /// How many missing hellos mean Down.
    pub multiplier: u8,
}

/// One path as configured: a local uplink and an address of the peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSpec {
    /// Number of the local uplink; 255 follows the routes.
    pub uplink: u8,
    /// The peer's address there.
    pub remote: SocketAddr,
    /// What the selector knows about it.
    pub profile: PathProfile,
    /// How often it is probed.
    pub cadence: Cadence,
}

/// The paths to one peer as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ProberConfig {
    /// The configured paths, at most [`PATHS_MAX`].
    pub paths: Vec<PathSpec>,
    /// By number: the uplinks, for paths that the peer opens.
    pub uplinks: Vec<UplinkProfile>,
    /// Largest inner packet, in bytes: what the MTU search wants to carry.
    pub inner_mtu: u16,
}

/// What a path takes from its uplink.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkProfile {
    /// Its number.
    pub uplink: u8,
    /// Its name.
    pub name: String,
    /// Cost of paths over it.
    pub cost: u16,
    /// Configured capacity outwards, in bits per second.
    pub up_bps: Option<f64>,
    /// Configured capacity inwards, in bits per second.
    pub down_bps: Option<f64>,
    /// Whether bytes cost money.
    pub is_metered: bool,
    /// How often paths over it are probed.
    pub cadence: Cadence,
}

/// How an authenticated message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// On which uplink; 255 for none that is known.
    pub uplink: u8,
    /// From where.
    pub remote: SocketAddr,
    /// To which address of ours.
    pub local: Option<IpAddr>,
}

/// Data on one path over all lanes, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Data packets sent.
    pub tx_packets: u64,
    /// Bytes of outer IP sent with them.
    pub tx_bytes: u64,
    /// Authenticated data packets received.
    pub rx_packets: u64,
    /// Bytes of outer IP received with them.
    pub rx_bytes: u64,
}

/// A hello to be sealed and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Transmit {
    /// On which path.
    pub path: PathIndex,
    /// What.
    pub hello: Hello,
    /// What follows the hello.
    pub order: Option<Order>,
    /// Length of the plaintext with padding, in bytes.
    pub len: usize,
}

/// The prober of one peer.
#[derive(Debug)]
pub struct Prober {
    config: ProberConfig,
    paths: [Option<Box<Path>>; PATHS_MAX],
    shared: Shared,
    is_quiet: bool,
    dice: Dice,
    /// Names this run.
    run: u16,
    /// Paths made so far.
    made: u16,
    outbox: Outbox,
    /// Uplinks that do not work, and why.
    faults: Vec<(u8, StateReason)>,
    /// Of the newest hello: the peer's run, when it was sent, and which of our paths are broken at its end.
    peer_faults: Option<(u16, u64, u16)>,
    /// By class: in which order this site would take the paths, for the peer to know.
    orders: [Ranking; CLASSES_MAX],
    /// The class whose order is told next.
    turn: usize,
    /// By class: in which order the peer would take them, in our numbers.
    peer_orders: [Ranking; CLASSES_MAX],
    /// The peer's run and the time of the newest hello that had one.
    ordered: Option<(u16, u64)>,
    sessions_unanswered: u32,
    starved: u64,
    /// Up to then lateness is forgiven.
    forgiven: Time,
}

/// What the host calls.
///
/// One call in, then drain [`poll_transmit`](Prober::poll_transmit) and [`poll_observation`](Prober::poll_observation).
impl Prober {
    /// A prober of the configured paths, all Down. `seed` spreads the hellos in time and names this run: another one
    /// after a restart tells the peer at once.
    pub fn new(config: ProberConfig, seed: u64, now: Time) -> Self {
        let mut dice = Dice::new(seed);
        let mut prober = Self {
            shared: Shared {
                is_answered: false,
                faults: 0,
                inner_mtu: config.inner_mtu,
            },
            is_quiet: false,
            config,
            paths: [const { None }; PATHS_MAX],
            run: dice.next_u64() as u16,
            made: 0,
            dice,
            outbox: Outbox::new(),
            faults: Vec::new(),
            peer_faults: None,
            orders: Default::default(),
            turn: 0,
            peer_orders: Default::default(),
            ordered: None,
            sessions_unanswered: 0,
            starved: 0,
            forgiven: now,
        };
        prober.add_configured(now);
        prober
    }

    /// Takes a new configuration: paths that stay keep their measurements and numbers; learnt ones stay.
    pub fn configure(&mut self, config: ProberConfig, now: Time) {
        self.shared.inner_mtu = config.inner_mtu;
        self.config = config;
        for at in 0..PATHS_MAX {
            let Some(path) = &self.paths[at] else {
                continue;
            };
            let origin = match self.spec_of(path) {
                Some(spec) => Some(self.configured_origin(spec)),
                None if path.configured.is_some() => None,
                None => self.learnt_origin(path.uplink, path.remote, at),
            };
            match (origin, &mut self.paths[at]) {
                (Some(origin), Some(path)) => {
                    if path.reconfigure(origin, now) {
                        let profile = path.profile.clone();
                        self.outbox.push(Observation::Path(index(at), profile));
                    }
                }
                _ => self.remove(at),
            }
        }
        self.add_configured(now);
    }

    /// The path that a message came on, by its ends.
    pub fn path_of(&self, arrival: &Arrival) -> Option<PathIndex> {
        let fits = |path: &Path, uplink: u8| {
            path.uplink == uplink && is_same_end(&path.remote, &arrival.remote)
        };
        let find = |uplink: u8| {
            self.paths
                .iter()
                .position(|path| path.as_deref().is_some_and(|path| fits(path, uplink)))
        };
        // A path that follows the routes gets its answers on whatever uplink they come.
        find(arrival.uplink).or_else(|| find(UPLINK_ANY)).map(index)
    }

    /// A hello came, in a plaintext of `len` bytes. Returns the path it belongs to: a known one, one that moved to a new
    /// address, or a new one; `None` where the table is full, or the uplink unknown.
    ///
    /// [`set_counters`](Self::set_counters) for this path just before makes data loss exact.
    pub fn handle_hello(
        &mut self,
        arrival: &Arrival,
        hello: &Hello,
        len: usize,
        now: Time,
    ) -> Option<PathIndex> {
        self.forgive_lateness(now);
        let at = self.locate(arrival, hello, now)?;
        if !self.shared.is_answered && hello.kind != Kind::Lane {
            self.shared.is_answered = true;
            self.hurry_all(now);
        }
        // It is bound to a path of ours that is gone: it looks for another one.
        let named = usize::from(hello.your_path).checked_sub(1);
        let is_orphan = named.is_some_and(|at| self.paths.get(at).is_none_or(Option::is_none));
        let outbox = &mut self.outbox;
        let path = self.paths[at.as_usize()].as_mut()?;
        if !is_orphan && path.is_another_path(hello, now) {
            return Some(at);
        }
        let is_newest = path.receive(arrival, hello, len, now, outbox);
        if is_newest {
            self.hear_faults(hello, now);
        }
        self.tell_faults(now);
        Some(at)
    }

    /// The data counters of a path; growth of what was received is a sign of life at the time of the call. To be called
    /// for every path before [`handle_timeout`](Self::handle_timeout).
    pub fn set_counters(&mut self, path: PathIndex, counters: PathCounters, now: Time) {
        if let Some((path, outbox)) = self.path_mut(path) {
            path.set_counters(counters, now, outbox);
        }
    }

    /// An uplink works, or does not and why: acts at once.
    pub fn set_uplink(&mut self, uplink: u8, fault: Option<StateReason>, now: Time) {
        let before = self.fault_of(uplink);
        self.faults.retain(|(faulty, _)| *faulty != uplink);
        self.faults.extend(fault.map(|fault| (uplink, fault)));
        if before == fault {
            return;
        }
        for path in self.paths.iter_mut().flatten() {
            if path.uplink == uplink {
                path.set_fault(fault, now, &mut self.outbox);
            }
        }
        self.tell_faults(now);
    }

    /// The kernel refused to send on a path as unreachable: acts at once.
    pub fn send_refused(&mut self, path: PathIndex, now: Time) {
        if let Some((path, outbox)) = self.path_mut(path) {
            path.refuse(now, outbox);
        }
        self.tell_faults(now);
    }

    /// The kernel refused a datagram on a path as too big for it.
    pub fn send_too_big(&mut self, path: PathIndex, now: Time) {
        if let Some((path, _)) = self.path_mut(path) {
            path.refuse_as_too_big(now);
        }
    }

    /// Which classes (by bit) use which path as first and which paths stand by: those are probed at the active cadence.
    pub fn set_roles(&mut self, classes_by_path: &[u8], standby: u16, now: Time) {
        for (at, path) in self.paths.iter_mut().enumerate() {
            if let Some(path) = path {
                let classes = classes_by_path.get(at).copied().unwrap_or(0);
                path.set_quiet(self.is_quiet, now);
                path.set_roles(classes, standby >> at & 1 == 1, now);
            }
        }
    }

    /// Whether the peer has had no traffic for a while: all its paths are probed at the idle cadence then, whatever they
    /// are chosen for.
    pub fn set_quiet(&mut self, is_quiet: bool, now: Time) {
        if std::mem::replace(&mut self.is_quiet, is_quiet) != is_quiet {
            for path in self.paths.iter_mut().flatten() {
                path.set_quiet(is_quiet, now);
            }
        }
    }

    /// In which order each class would take the paths, where the peer should know: a site that leads tells it behind its
    /// hellos, class by class, those that differ first.
    pub fn set_orders(&mut self, orders: &[Ranking; CLASSES_MAX]) {
        let pairs = self.orders.iter().zip(orders);
        if let Some(changed) = pairs.into_iter().position(|(old, new)| old != new) {
            self.orders = *orders;
            self.turn = changed;
        }
    }

    /// What followed a hello that [`handle_hello`](Self::handle_hello) took for one of a path.
    pub fn handle_order(&mut self, hello: &Hello, order: &Order) {
        let run = (hello.instance >> 16) as u16;
        let is_same_run = self.ordered.is_some_and(|(known, _)| known == run);
        let is_late = |(_, sent_at_ns)| sent_at_ns > hello.sent_at_ns;
        if is_same_run && self.ordered.is_some_and(is_late) {
            return;
        }
        self.ordered = Some((run, hello.sent_at_ns));
        // In our numbers, as far as they are known.
        let paths = order.paths.iter().flat_map(|theirs| {
            let number = u16::from(theirs.0) + 1;
            let ours = self.paths.iter().enumerate();
            ours.filter(move |(_, path)| path.as_ref().is_some_and(|it| it.peer_path() == number))
        });
        let paths = Ranking::new(paths.map(|(at, _)| index(at)));
        for class in 0..CLASSES_MAX {
            let told = match order.classes >> class & 1 == 1 {
                true => paths,
                false if is_same_run => continue,
                // What another run said is over.
                false => Ranking::default(),
            };
            if self.peer_orders[class] != told {
                self.peer_orders[class] = told;
                let class = ClassId(class as u8);
                self.outbox.push(Observation::PeerOrder(class, told));
            }
        }
    }

    /// An operator drains a path, or does not any more: the peer is told, and leaves it too.
    ///
    /// Not to be called for a drain that the peer asked for, which comes as [`Observation::Command`]: both would keep
    /// each other draining.
    pub fn set_draining(&mut self, path: PathIndex, is_draining: bool, now: Time) {
        if let Some((path, _)) = self.path_mut(path) {
            path.set_draining(is_draining, now);
        }
    }

    /// Holds a path down, or lets it go. The peer takes it for down too.
    pub fn hold_down(&mut self, path: PathIndex, is_held: bool, now: Time) {
        if let Some((path, outbox)) = self.path_mut(path) {
            path.hold(is_held, now, outbox);
        }
    }

    /// A handshake with the peer completed: on paths that are silent it is asked at once.
    pub fn session_began(&mut self, now: Time) {
        if self.shared.is_answered {
            let paths = self.paths.iter_mut().flatten();
            for path in paths.filter(|path| !path.liveness().hears()) {
                path.hurry(now);
            }
            return;
        }
        let is_silent = self.sessions_unanswered >= SILENT_SESSIONS;
        self.sessions_unanswered = self.sessions_unanswered.saturating_add(1);
        for path in self.paths.iter_mut().flatten() {
            path.session_began(is_silent, now);
        }
    }

    /// Measures the bandwidth of a path by trains, once, now; never on a metered one.
    pub fn measure_bandwidth(&mut self, path: PathIndex, now: Time) {
        if let Some((path, _)) = self.path_mut(path) {
            path.measure_bandwidth(now);
        }
    }

    /// Sends a hello on a path at once, for an operator who pings; its round trip is the next `Rtt` observation.
    pub fn ping(&mut self, path: PathIndex, now: Time) {
        if let Some((path, _)) = self.path_mut(path) {
            path.ping(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None` where nothing is due ever.
    pub fn poll_timeout(&self) -> Option<Time> {
        let paths = self.paths.iter().flatten();
        paths.filter_map(|path| path.deadline()).min()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.forgive_lateness(now);
        for at in 0..PATHS_MAX {
            let Some(path) = &mut self.paths[at] else {
                continue;
            };
            path.handle_timeout(now, &mut self.outbox);
            if path.is_stale(now) {
                self.remove(at);
            } else if let Some(home) = path.lost_home()
                && self.path_of(&home).is_none()
            {
                self.follow(index(at), &home);
            }
        }
        self.tell_faults(now);
    }

    /// The next hello to send.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        let (shared, dice, outbox) = (&self.shared, &mut self.dice, &mut self.outbox);
        let mut paths = self.paths.iter_mut().flatten();
        let mut transmit = paths.find_map(|path| path.poll_transmit(shared, dice, now, outbox))?;
        if transmit.hello.kind == Kind::Hello && self.shared.is_answered {
            transmit.order = self.next_order();
            if transmit.order.is_some() {
                transmit.len = HELLO_LEN + ORDER_LEN;
            }
        }
        Some(transmit)
    }

    /// The order whose turn it is, with all classes that have it.
    fn next_order(&mut self) -> Option<Order> {
        let turns = (0..CLASSES_MAX).map(|ahead| (self.turn + ahead) % CLASSES_MAX);
        let at = turns
            .into_iter()
            .find(|class| !self.orders[*class].is_empty())?;
        let paths = self.orders[at];
        let has_it = |class: &usize| self.orders[*class] == paths;
        let classes = (0..CLASSES_MAX).filter(has_it);
        let classes = classes.fold(0, |all, class| all | 1 << class);
        self.turn = (at + 1) % CLASSES_MAX;
        Some(Order { classes, paths })
    }

    /// The next thing to tell the selector.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.outbox.pop()
    }

    /// The paths there are.
    pub fn paths(&self) -> impl Iterator<Item = PathIndex> + '_ {
        (0..PATHS_MAX)
            .filter(|at| self.paths[*at].is_some())
            .map(index)
    }

    /// Where packets on a path go: uplink, the peer's address, and our address that it uses.
    pub fn ends(&self, path: PathIndex) -> Option<Arrival> {
        self.path(path).map(|path| Arrival {
            uplink: path.uplink,
            remote: path.remote,
            local: path.local,
        })
    }

    /// The peer's number of a path, plus one, as in [`Hello::your_path`]; zero until learnt.
    pub fn peer_path(&self, path: PathIndex) -> Option<u16> {
        self.path(path).map(Path::peer_path)
    }

    /// What the selector knows about a path.
    pub fn profile(&self, path: PathIndex) -> Option<&PathProfile> {
        self.path(path).map(|path| &path.profile)
    }

    /// A path's state, why, and since when.
    pub fn state(&self, path: PathIndex) -> Option<(PathState, StateReason, Time)> {
        let liveness = self.path(path)?.liveness();
        Some((liveness.state(), liveness.reason(), liveness.since()))
    }

    /// Largest outer IP packet that passes on a path, in bytes; `None` until one of a size that matters was tried.
    pub fn mtu(&self, path: PathIndex) -> Option<u16> {
        self.path(path)?.mtu()
    }

    /// The numbers of a path.
    pub fn metrics(&self, path: PathIndex, now: Time) -> Option<PathMetrics> {
        self.path(path).map(|path| path.metrics(now))
    }

    /// What happened on a path so far.
    pub fn events(&self, path: PathIndex) -> Option<PathEvents> {
        let path = self.path(path)?;
        Some(PathEvents {
            downs: path.liveness().downs(),
            moves: path.moves(),
            peer_restarts: path.restarts(),
            mtu_holes: path.mtu_holes(),
        })
    }

    /// Whether the peer ever answered a hello: then it is a Patronus site.
    pub fn is_answered(&self) -> bool {
        self.shared.is_answered
    }

    /// Times that this side was late by more than an interval and gave the peer that much longer.
    pub fn starved(&self) -> u64 {
        self.starved
    }

    /// Observations that were lost because the host did not take them.
    pub fn observations_dropped(&self) -> u64 {
        self.outbox.dropped()
    }
}

/// What happened on one path, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathEvents {
    /// From Up or Suspect to Down.
    pub downs: u32,
    /// The peer's end moved to another address.
    pub moves: u32,
    /// The peer began anew.
    pub peer_restarts: u32,
    /// A size of packets that passed did not pass any more.
    pub mtu_holes: u32,
}

/// What concerns all paths.
impl Prober {
    fn hurry_all(&mut self, now: Time) {
        for path in self.paths.iter_mut().flatten() {
            path.hurry(now);
        }
    }

    /// Where this side slept, what came meanwhile is not read yet: nobody is to blame.
    fn forgive_lateness(&mut self, now: Time) {
        let paths = self.paths.iter().flatten();
        let Some(due) = paths.filter_map(|path| path.vital_deadline()).min() else {
            return;
        };
        let overrun = now.since(due.max(self.forgiven));
        self.forgiven = now;
        let mut is_starved = false;
        for path in self.paths.iter_mut().flatten() {
            is_starved |= path.extend(overrun, now);
        }
        self.starved += u64::from(is_starved);
    }

    /// Tells the peer on the paths that work which ones are broken at our end: it would take a detection time to see.
    fn tell_faults(&mut self, now: Time) {
        let (mut broken, mut working) = (0, 0);
        for path in self.paths.iter().flatten() {
            if path.liveness().is_broken() {
                broken |= path.peer_bit();
            } else if path.liveness().hears() {
                working |= path.peer_bit();
            }
        }
        // Where a NAT makes two paths of ours of one of the peer's, one that works is enough.
        let faults = broken & !working;
        if faults != self.shared.faults {
            self.shared.faults = faults;
            self.hurry_all(now);
        }
    }

    /// The peer says which of our paths are broken at its end.
    fn hear_faults(&mut self, hello: &Hello, now: Time) {
        let run = (hello.instance >> 16) as u16;
        let is_newer = |&(known, sent_at_ns, _): &(u16, u64, u16)| {
            known != run || sent_at_ns <= hello.sent_at_ns
        };
        if !self.peer_faults.as_ref().is_none_or(is_newer) {
            return;
        }
        let before = self.peer_faults.map_or(0, |(_, _, faults)| faults);
        self.peer_faults = Some((run, hello.sent_at_ns, hello.faults));
        if before == hello.faults {
            return;
        }
        for (at, path) in self.paths.iter_mut().enumerate() {
            if let Some(path) = path {
                path.set_peer_is_broken(hello.faults >> at & 1 == 1, now, &mut self.outbox);
            }
        }
    }
}

fn index(at: usize) -> PathIndex {
    PathIndex(at as u8)
}
