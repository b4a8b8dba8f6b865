//! Random lives of random paths, against a small slow model and against what must always hold.

mod common;

use std::cmp::Ordering;
use std::time::Duration;

use common::{is_voluntary, profile, seconds};
use patronus_path::record::Candidate;
use patronus_path::trace::{Line, VERSION, replay};
use patronus_path::{
    ClassConfig, ClassId, Command, Decision, Direction, LossWindows, Observation, PathIndex,
    PathMetrics, PathState, Ranking, Selector, SelectorConfig, StateReason, Time,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PATHS: u8 = 4;
const CLASSES: u8 = 4;

/// One step of a life.
#[derive(Clone, Debug)]
enum Step {
    See(Observation),
    Pass(Duration),
    /// Many equal samples, so that bounds are left and kept.
    Weather(PathIndex, f64, f64, f64),
}

fn path() -> impl Strategy<Value = PathIndex> {
    (0..PATHS).prop_map(PathIndex)
}

fn state() -> impl Strategy<Value = (PathState, StateReason)> {
    prop_oneof![
        6 => Just((PathState::Up, StateReason::Heard)),
        2 => Just((PathState::Suspect, StateReason::HellosMissed)),
        2 => Just((PathState::Down, StateReason::DetectionExpired)),
        1 => Just((PathState::Init, StateReason::Heard)),
        1 => Just((PathState::AdminDown, StateReason::Drained)),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let class = proptest::option::of((0..CLASSES).prop_map(ClassId));
    prop_oneof![
        (path(), class.clone()).prop_map(|(path, class)| Command::Pin(path, class)),
        class.prop_map(Command::Unpin),
        path().prop_map(Command::Drain),
        path().prop_map(Command::Undrain),
        path().prop_map(Command::Clear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let see = prop_oneof![
        6 => (path(), state()).prop_map(|(path, (state, reason))| Observation::State(path, state, reason)),
        2 => command().prop_map(Observation::Command),
        2 => (path(), 0..3u8, 0..3u16).prop_map(|(path, uplink, cost)| {
            Observation::Path(path, profile(uplink, cost))
        }),
        1 => path().prop_map(Observation::Gone),
        2 => ((0..CLASSES), path()).prop_map(|(class, path)| Observation::PeerChoice(ClassId(class), path)),
        2 => ((0..CLASSES), vec(path(), 0..5)).prop_map(|(class, paths)| {
            Observation::PeerOrder(ClassId(class), Ranking::new(paths))
        }),
        1 => ((0..CLASSES), 0.0..1e8).prop_map(|(class, bps)| Observation::Load(ClassId(class), bps)),
    ];
    prop_oneof![
        4 => see.prop_map(Step::See),
        3 => (0.0..40.0f64).prop_map(|s| Step::Pass(seconds(s))),
        3 => (path(), 1.0..900.0f64, 0.0..100.0f64, prop_oneof![Just(0.0), 0.0..0.5f64])
            .prop_map(|(path, rtt_ms, jitter_ms, loss)| Step::Weather(path, rtt_ms, jitter_ms, loss)),
    ]
}

/// A selector under test, with everything that it was told and that it decided.
struct Life {
    selector: Selector,
    now: Time,
    lines: Vec<Line>,
    decisions: Vec<Decision>,
}

impl Life {
    fn new(leads: bool) -> Self {
        let mut config = SelectorConfig::new(ClassConfig::defaults());
        config.leads = leads;
        config.classes[1].protect = true;
        config.classes[3].prefer = vec![2];
        let now = common::at(5.0);
        let selector = Selector::new(config, now);
        let begin = Line::Begin {
            version: VERSION,
            peer: "peer".to_owned(),
            at: now,
            selector: Box::new(selector.clone()),
        };
        let mut life = Self {
            selector,
            now,
            lines: vec![begin],
            decisions: Vec::new(),
        };
        for path in 0..PATHS {
            life.see(Observation::Path(
                PathIndex(path),
                profile(path, u16::from(path / 2)),
            ));
        }
        life
    }

    fn see(&mut self, observation: Observation) {
        self.selector.observe(&observation, self.now);
        self.lines.push(Line::Seen(self.now, observation));
        self.check();
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.selector.poll_timeout().filter(|at| *at <= end) {
            assert!(at > self.now, "poll_timeout does not advance");
            self.now = at;
            self.selector.handle_timeout(at);
            self.lines.push(Line::Timeout(at));
            self.check();
        }
        self.now = end;
    }

    fn live(&mut self, step: &Step) {
        match step {
            Step::See(observation) => self.see(observation.clone()),
            Step::Pass(span) => self.pass(*span),
            Step::Weather(path, rtt_ms, jitter_ms, loss) => {
                let windows = LossWindows {
                    ten_s: Some(*loss),
                    ..LossWindows::default()
                };
                let metrics = PathMetrics {
                    rtt_fast_ns: Some(rtt_ms * 1e6),
                    tx_jitter_ns: Some(jitter_ms * 1e6),
                    tx_loss: windows,
                    ..PathMetrics::default()
                };
                self.see(Observation::Metrics(*path, Box::new(metrics)));
                let mut lost = 0.0;
                for _ in 0..20 {
                    self.pass(seconds(0.05));
                    lost += loss;
                    let is_lost = lost >= 1.0;
                    lost -= f64::from(u8::from(is_lost));
                    self.see(Observation::Probe(*path, Direction::Tx, is_lost));
                    self.see(Observation::Rtt(*path, rtt_ms * 1e6));
                    self.see(Observation::Deviation(
                        *path,
                        Direction::Tx,
                        jitter_ms * 1e6,
                    ));
                }
            }
        }
    }

    /// What must hold after every call.
    fn check(&mut self) {
        while let Some(decision) = self.selector.poll_decision() {
            assert_ne!(decision.from, decision.to);
            self.decisions.push(decision);
        }
        for class in (0..CLASSES).map(ClassId) {
            let candidates = self.selector.candidates(class, self.now);
            let route = self.selector.routes()[class.as_usize()];
            let find = |path: PathIndex| candidates.iter().find(|it| it.path == path);
            let is_draining = |it: &Candidate| self.selector.is_draining(it.path);
            let any_usable = candidates.iter().any(|it| it.tier < 4);
            let any_kept = candidates.iter().any(|it| it.tier < 4 && !is_draining(it));
            match route.path {
                None => assert!(!any_usable, "{class:?} has no path: {candidates:#?}"),
                Some(path) => {
                    let in_use = find(path).expect("the path in use is known");
                    assert!(
                        in_use.tier < 4,
                        "{class:?} uses a dead path: {candidates:#?}"
                    );
                    assert!(
                        !is_draining(in_use) || !any_kept,
                        "{class:?} uses a draining path"
                    );
                }
            }
            for second in [route.leaving, route.protect].into_iter().flatten() {
                assert_ne!(Some(second), route.path);
                assert!(find(second).is_some_and(|it| it.tier < 4), "{second:?}");
            }
            assert_eq!(
                route.leaving.is_some(),
                route.deadline > self.now,
                "{route:?}"
            );
            assert!(
                route.share == 256 || route.leaving.is_some() || route.path.is_none(),
                "{route:?}"
            );
            let model = Model {
                profiles: self.profiles(class),
                told: self.told(class),
            };
            for (at, left) in candidates.iter().enumerate() {
                for right in &candidates[at + 1..] {
                    assert!(
                        model.may_precede(left, right, is_draining),
                        "{left:#?} is before {right:#?}: {model:?}"
                    );
                }
            }
        }
    }

    /// The order that the peer told last, where this site follows.
    fn told(&self, class: ClassId) -> Ranking {
        if self.selector.config().leads {
            return Ranking::default();
        }
        let lines = self.lines.iter().rev();
        let told = lines.filter_map(|line| match line {
            Line::Seen(_, Observation::PeerOrder(about, order)) if *about == class => Some(*order),
            _ => None,
        });
        told.into_iter().next().unwrap_or_default()
    }

    /// Place among the preferred uplinks and cost of every path, as told.
    fn profiles(&self, class: ClassId) -> Vec<(PathIndex, (usize, u16))> {
        let prefer = &self.selector.classes()[class.as_usize()].prefer;
        let mut profiles: Vec<(PathIndex, (usize, u16))> = Vec::new();
        for line in &self.lines {
            match line {
                Line::Seen(_, Observation::Path(path, profile)) => {
                    let place = prefer.iter().position(|uplink| *uplink == profile.uplink);
                    profiles.retain(|(known, _)| known != path);
                    profiles.push((*path, (place.unwrap_or(usize::MAX), profile.cost)));
                }
                Line::Seen(_, Observation::Gone(path)) => {
                    profiles.retain(|(known, _)| known != path);
                }
                _ => {}
            }
        }
        profiles
    }
}

/// The order by its definition.
#[derive(Debug)]
struct Model {
    /// Place among the preferred uplinks and cost of every path.
    profiles: Vec<(PathIndex, (usize, u16))>,
    /// What the peer said, where it leads.
    told: Ranking,
}

impl Model {
    /// Whether one path may be before another one: where what was told and configured leaves it open, none is before one
    /// that is clearly better and no slower.
    fn may_precede(
        &self,
        left: &Candidate,
        right: &Candidate,
        is_draining: impl Fn(&Candidate) -> bool,
    ) -> bool {
        let preference = |path: PathIndex| {
            let found = self.profiles.iter().find(|(known, _)| *known == path);
            found.expect("every candidate was told").1
        };
        let key = |it: &Candidate| {
            (
                it.tier >= 4,
                is_draining(it),
                it.tier,
                self.told.place(it.path).unwrap_or(u8::MAX),
                preference(it.path),
            )
        };
        match key(left).cmp(&key(right)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                let rtt_ms = |it: &Candidate| it.rtt_ms.unwrap_or(0.0);
                right.score <= left.score + 5.0 || rtt_ms(right) > rtt_ms(left)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_replay_alike(
        leads in any::<bool>(),
        steps in vec(step(), 1..80),
    ) {
        let mut life = Life::new(leads);
        for step in &steps {
            life.live(step);
        }
        for class in (0..CLASSES).map(ClassId) {
            let mut last: Option<Time> = None;
            let decisions = life.decisions.iter().filter(|d| d.class == class);
            for decision in decisions.filter(|d| is_voluntary(d)) {
                if let Some(last) = last {
                    let apart = decision.at.since(last);
                    prop_assert!(apart >= seconds(60.0), "{class:?}: {apart:?} apart");
                }
                last = Some(decision.at);
            }
        }
        let text: Vec<String> = life
            .lines
            .iter()
            .map(|line| serde_json::to_string(line).expect("it can be written"))
            .collect();
        let read: Vec<Line> = text
            .iter()
            .map(|line| serde_json::from_str(line).expect("it can be read"))
            .collect();
        let replayed = replay(&read, &[]).expect("it can be replayed");
        prop_assert_eq!(replayed.decisions, life.decisions);
    }

    #[test]
    fn a_periodic_path_switches_no_more_often_than_its_hold_downs_allow(
        up_s in 10.0..200.0f64,
        down_s in 0.5..20.0f64,
        offset_s in 0.0..10.0f64,
    ) {
        let links = vec![common::Link::new(20.0), common::Link::new(20.0)];
        let mut sim = common::Sim::new(ClassConfig::defaults(), links, 1);
        sim.interval_ms = 1000.0;
        sim.run(60.0 + offset_s);
        let start = sim.now;
        while sim.now.since(start) < seconds(600.0) {
            sim.set_up(0, false);
            sim.run(down_s);
            sim.set_up(0, true);
            sim.run(up_s.min(600.0 - sim.now.since(start).as_secs_f64().min(599.9)));
        }
        let end = start + seconds(600.0);
        let switches = sim.switches(common::DEFAULT, start);
        let switches: Vec<_> = switches.iter().filter(|d| d.at < end).collect();
        let most = 2 * ((up_s / 10.0).log2().floor() as usize + 1) + 1;
        prop_assert!(switches.len() <= most, "at most {most}: {switches:#?}");
    }
}
