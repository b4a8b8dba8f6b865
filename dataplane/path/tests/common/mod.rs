//! Two sites' links as a selector sees them: probes with chance from a seed, in virtual time.

#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use patronus_path::observation::PathProfile;
use patronus_path::record::Cause;
use patronus_path::trace::Line;
use patronus_path::{
    ClassConfig, ClassId, Decision, Direction, Observation, PathIndex, PathMetrics, PathState,
    Selector, SelectorConfig, StateReason, Time,
};

pub const REALTIME: ClassId = ClassId(0);
pub const INTERACTIVE: ClassId = ClassId(1);
pub const DEFAULT: ClassId = ClassId(2);
pub const BULK: ClassId = ClassId(3);
const BOTH: [Direction; 2] = [Direction::Tx, Direction::Rx];

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

pub fn at(s: f64) -> Time {
    Time::from(seconds(s))
}

/// What one link is like at the moment.
#[derive(Clone)]
pub struct Link {
    pub rtt_ms: f64,
    /// Mean of |D| per direction: each delay is uniform over three times this.
    pub jitter_ms: f64,
    /// Towards the peer and back.
    pub loss: [f64; 2],
    pub is_up: bool,
    next_probe: Time,
    delays_ms: [Option<f64>; 2],
    numbers: Numbers,
}

impl Link {
    pub fn new(rtt_ms: f64) -> Self {
        Self {
            rtt_ms,
            jitter_ms: 1.0,
            loss: [0.0; 2],
            is_up: false,
            next_probe: Time::default(),
            delays_ms: [None; 2],
            numbers: Numbers::default(),
        }
    }

    pub fn lossy(mut self, loss: f64) -> Self {
        self.loss = [loss; 2];
        self
    }
}

/// The prober's averages, as far as a selector needs them.
#[derive(Clone, Default)]
struct Numbers {
    rtt_ns: Option<f64>,
    least_ns: Option<f64>,
    jitter_ns: [f64; 2],
    probes: [VecDeque<(Time, bool)>; 2],
}

impl Numbers {
    fn take(&mut self, observation: &Observation, now: Time) {
        match observation {
            Observation::Rtt(_, ns) => {
                let known = self.rtt_ns.unwrap_or(*ns);
                self.rtt_ns = Some(known + (ns - known) * 0.08);
                self.least_ns = Some(self.least_ns.map_or(*ns, |least| least.min(*ns)));
            }
            Observation::Deviation(_, direction, ns) => {
                let jitter = &mut self.jitter_ns[*direction as usize];
                *jitter += (ns - *jitter) / 16.0;
            }
            Observation::Probe(_, direction, lost) => {
                let probes = &mut self.probes[*direction as usize];
                probes.push_back((now, *lost));
                while probes
                    .front()
                    .is_some_and(|(at, _)| now.since(*at) > seconds(10.0))
                {
                    probes.pop_front();
                }
            }
            _ => {}
        }
    }

    fn metrics(&self) -> PathMetrics {
        let loss = |way: usize| {
            let probes = &self.probes[way];
            let lost = probes.iter().filter(|(_, lost)| *lost).count();
            (probes.len() >= 20).then(|| lost as f64 / probes.len() as f64)
        };
        let mut metrics = PathMetrics {
            rtt_fast_ns: self.rtt_ns,
            rtt_min_ns: self.least_ns,
            tx_jitter_ns: Some(self.jitter_ns[0]),
            rx_jitter_ns: Some(self.jitter_ns[1]),
            queueing_ns: self
                .rtt_ns
                .zip(self.least_ns)
                .map(|(now, least)| now - least),
            ..PathMetrics::default()
        };
        metrics.tx_loss.ten_s = loss(0);
        metrics.rx_loss.ten_s = loss(1);
        metrics
    }
}

/// A selector with links, in virtual time.
pub struct Sim {
    pub selector: Selector,
    pub links: Vec<Link>,
    pub now: Time,
    pub decisions: Vec<Decision>,
    /// Everything that the selector was told, if it is recorded.
    pub trace: Option<Vec<Line>>,
    pub interval_ms: f64,
    chance: Chance,
    pending: BTreeMap<(Time, u64), Observation>,
    count: u64,
    next_metrics: Time,
}

impl Sim {
    pub fn new(classes: Vec<ClassConfig>, links: Vec<Link>, seed: u64) -> Self {
        Self::with_config(SelectorConfig::new(classes), links, seed)
    }

    /// Every link is a path of its own uplink, with the number as its cost, and comes up at once.
    pub fn with_config(config: SelectorConfig, links: Vec<Link>, seed: u64) -> Self {
        let costs: Vec<u16> = (0..links.len() as u16).collect();
        let mut sim = Self::bare(config, links, seed);
        for (index, cost) in costs.into_iter().enumerate() {
            sim.see(Observation::Path(
                PathIndex(index as u8),
                profile(index as u8, cost),
            ));
        }
        for index in 0..sim.links.len() {
            sim.set_up(index, true);
        }
        sim
    }

    /// Links that nobody prefers.
    pub fn equal(classes: Vec<ClassConfig>, links: Vec<Link>, seed: u64) -> Self {
        let mut sim = Self::bare(SelectorConfig::new(classes), links, seed);
        for index in 0..sim.links.len() {
            sim.see(Observation::Path(
                PathIndex(index as u8),
                profile(index as u8, 10),
            ));
            sim.set_up(index, true);
        }
        sim
    }

    /// Links without paths.
    pub fn bare(config: SelectorConfig, links: Vec<Link>, seed: u64) -> Self {
        let start = at(1.0);
        Self {
            selector: Selector::new(config, start),
            links,
            now: start,
            decisions: Vec::new(),
            trace: None,
            interval_ms: 50.0,
            chance: Chance::new(seed),
            pending: BTreeMap::new(),
            count: 0,
            next_metrics: start,
        }
    }

    /// The state as the prober tells it.
    pub fn set_up(&mut self, index: usize, is_up: bool) {
        self.links[index].is_up = is_up;
        self.links[index].delays_ms = [None; 2];
        let (state, reason) = if is_up {
            (PathState::Up, StateReason::Heard)
        } else {
            (PathState::Down, StateReason::DetectionExpired)
        };
        self.see(Observation::State(PathIndex(index as u8), state, reason));
    }

    pub fn see(&mut self, observation: Observation) {
        let index = match &observation {
            Observation::Rtt(path, _)
            | Observation::Deviation(path, _, _)
            | Observation::Probe(path, _, _) => Some(path.as_usize()),
            _ => None,
        };
        if let Some(index) = index {
            self.links[index].numbers.take(&observation, self.now);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(Line::Seen(self.now, observation.clone()));
        }
        self.selector.observe(&observation, self.now);
        self.drain();
    }

    pub fn timeout(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.push(Line::Timeout(self.now));
        }
        self.selector.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(decision) = self.selector.poll_decision() {
            self.decisions.push(decision);
        }
    }

    /// Starts a recording.
    pub fn record(&mut self) {
        self.trace = Some(vec![Line::Begin {
            version: patronus_path::trace::VERSION,
            peer: "peer".to_owned(),
            at: self.now,
            selector: Box::new(self.selector.clone()),
        }]);
    }

    /// Runs for some time.
    pub fn run(&mut self, span_s: f64) {
        let end = self.now + seconds(span_s);
        loop {
            let probe = (0..self.links.len())
                .filter(|index| self.links[*index].is_up)
                .min_by_key(|index| self.links[*index].next_probe);
            let probe_at = probe.map_or(Time(u64::MAX), |index| self.links[index].next_probe);
            let seen_at = self.pending.first_key_value().map(|((at, _), _)| *at);
            let seen_at = seen_at.unwrap_or(Time(u64::MAX));
            let timeout_at = self.selector.poll_timeout().unwrap_or(Time(u64::MAX));
            assert!(
                timeout_at > self.now,
                "poll_timeout is not ahead of {:?}",
                self.now
            );
            let next = probe_at.min(seen_at).min(timeout_at).min(self.next_metrics);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if timeout_at <= next {
                self.timeout();
            } else if seen_at <= next {
                let (_, observation) = self.pending.pop_first().expect("one is due");
                self.see(observation);
            } else if self.next_metrics <= next {
                self.next_metrics = self.now + seconds(1.0);
                for index in 0..self.links.len() {
                    let metrics = Box::new(self.links[index].numbers.metrics());
                    self.see(Observation::Metrics(PathIndex(index as u8), metrics));
                }
            } else if let Some(index) = probe {
                self.probe(index);
            }
        }
    }

    fn probe(&mut self, index: usize) {
        let now = self.now;
        let path = PathIndex(index as u8);
        let spread = 0.75 + 0.25 * self.chance.share();
        let link = &mut self.links[index];
        link.next_probe = now + Duration::from_secs_f64(self.interval_ms / 1e3 * spread);
        let mut delays_ms = [0.0; 2];
        let mut lost = [false; 2];
        for way in 0..2 {
            delays_ms[way] = link.rtt_ms / 2.0 + 3.0 * link.jitter_ms * self.chance.share();
            lost[way] = self.chance.share() < link.loss[way];
        }
        let rtt_ms = delays_ms[0] + delays_ms[1];
        // A verdict of loss waits for what may be late.
        let verdict = seconds(rtt_ms.max(3.0 * self.interval_ms) / 1e3);
        let arrival = seconds(rtt_ms / 1e3);
        let mut seen = Vec::new();
        for (way, direction) in BOTH.into_iter().enumerate() {
            let after = if lost[way] { verdict } else { arrival };
            seen.push((after, Observation::Probe(path, direction, lost[way])));
            if lost[way] {
                continue;
            }
            if let Some(before_ms) = link.delays_ms[way].replace(delays_ms[way]) {
                let deviation_ns = (delays_ms[way] - before_ms).abs() * 1e6;
                seen.push((after, Observation::Deviation(path, direction, deviation_ns)));
            }
        }
        if !lost[0] && !lost[1] {
            seen.push((arrival, Observation::Rtt(path, rtt_ms * 1e6)));
        }
        for (after, observation) in seen {
            self.count += 1;
            self.pending.insert((now + after, self.count), observation);
        }
    }

    pub fn path(&self, class: ClassId) -> Option<u8> {
        self.selector.routes()[class.as_usize()]
            .path
            .map(|path| path.0)
    }

    /// Changes from one path to another since `from`, of one class.
    pub fn switches(&self, class: ClassId, from: Time) -> Vec<&Decision> {
        let decisions = self.decisions.iter();
        decisions
            .filter(|d| d.class == class && d.at >= from)
            .filter(|d| d.from.is_some() && d.to.is_some())
            .collect()
    }

    /// Paths that a class's bounds are violated on.
    pub fn violated(&self, class: ClassId) -> Vec<u8> {
        let candidates = self.selector.candidates(class, self.now);
        let violated = candidates.iter().filter(|candidate| candidate.tier == 1);
        violated.map(|candidate| candidate.path.0).collect()
    }
}

pub fn profile(uplink: u8, cost: u16) -> PathProfile {
    PathProfile {
        name: format!("wan{uplink}"),
        uplink,
        remote: None,
        cost,
        capacity_bps: None,
        is_metered: false,
    }
}

pub fn is_voluntary(decision: &Decision) -> bool {
    matches!(decision.cause, Cause::Better | Cause::Failback)
}

/// The share of `values` that is at most this.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
