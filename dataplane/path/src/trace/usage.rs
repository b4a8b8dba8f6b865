//! What the classes got out of the decisions.

use serde::{Deserialize, Serialize};

use crate::class::ClassConfig;
use crate::ids::{PATHS_MAX, PathIndex};
use crate::observation::{Direction, Observation};
use crate::record::{Cause, Decision};
use crate::selector::Selector;
use crate::time::Time;

/// Upper limits of a histogram's buckets, in milliseconds; what is longer has a bucket of its own.
pub const GAP_LIMITS_MS: [u64; 8] = [50, 100, 200, 300, 500, 1_000, 3_000, 10_000];

/// How often a class was cut off for how long: from the last sign of life of the path that died to the decision that
/// gave the class another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapHistogram {
    /// By [`GAP_LIMITS_MS`], then everything longer.
    pub counts: [u32; GAP_LIMITS_MS.len() + 1],
}

/// One class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassUsage {
    /// Its name.
    pub class: String,
    /// Changes from one path to another.
    pub switches: u32,
    /// Seconds that it had no working path, or one whose numbers were past half way between the bounds that were in
    /// force when the trace was recorded: those, so that replays with other bounds can be compared.
    pub sla_lost_s: f64,
    /// Cuts.
    pub gaps: GapHistogram,
}

impl GapHistogram {
    fn add(&mut self, gap_ms: u64) {
        let bucket = GAP_LIMITS_MS.iter().position(|limit| gap_ms <= *limit);
        let bucket = bucket.unwrap_or(GAP_LIMITS_MS.len());
        self.counts[bucket] += 1;
    }
}

/// Watches a replay.
pub(super) struct Judge {
    now: Time,
    /// As recorded.
    yardsticks: Vec<ClassConfig>,
    usage: Vec<ClassUsage>,
    /// By class: when the path died that left it without any.
    cut_at: Vec<Option<Time>>,
    /// By path: when it showed its last sign of life.
    alive_at: [Option<Time>; PATHS_MAX],
}

impl Judge {
    pub(super) fn new(classes: &[ClassConfig], now: Time) -> Self {
        let mut judge = Self {
            now,
            yardsticks: Vec::new(),
            usage: Vec::new(),
            cut_at: Vec::new(),
            alive_at: [None; PATHS_MAX],
        };
        judge.configure(classes);
        judge
    }

    /// Goes on after a time that nothing is known of.
    pub(super) fn resume(mut self, classes: &[ClassConfig], now: Time) -> Self {
        self.configure(classes);
        self.now = now;
        self.alive_at = [None; PATHS_MAX];
        self.cut_at.fill(None);
        self
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Classes keep their account by their name.
    pub(super) fn configure(&mut self, classes: &[ClassConfig]) {
        self.yardsticks = classes.to_vec();
        for class in classes {
            if !self.usage.iter().any(|usage| usage.class == class.name) {
                self.usage.push(ClassUsage {
                    class: class.name.clone(),
                    ..ClassUsage::default()
                });
                self.cut_at.push(None);
            }
        }
    }

    /// Time passed with things as they are.
    pub(super) fn pass(&mut self, selector: &Selector, now: Time) {
        let passed_s = now.since(self.now).as_secs_f64();
        self.now = self.now.max(now);
        if passed_s <= 0.0 {
            return;
        }
        for (number, yardstick) in self.yardsticks.iter().enumerate() {
            if !selector.is_unmet(number, yardstick) {
                continue;
            }
            let mut usage = self.usage.iter_mut();
            if let Some(usage) = usage.find(|usage| usage.class == yardstick.name) {
                usage.sla_lost_s += passed_s;
            }
        }
    }

    pub(super) fn see(&mut self, observation: &Observation, now: Time) {
        if let Observation::Rtt(path, _) | Observation::Probe(path, Direction::Rx, false) =
            observation
            && let Some(alive_at) = self.alive_at.get_mut(path.as_usize())
        {
            *alive_at = Some(now);
        }
    }

    pub(super) fn decide(&mut self, decision: &Decision) {
        let mut all = self.usage.iter();
        let Some(place) = all.position(|usage| usage.class == decision.class_name) else {
            return;
        };
        let died_at = |path: Option<PathIndex>| {
            let alive_at = path.and_then(|path| self.alive_at.get(path.as_usize()));
            alive_at.copied().flatten().unwrap_or(decision.at)
        };
        let usage = &mut self.usage[place];
        usage.switches += u32::from(decision.from.is_some() && decision.to.is_some());
        let was_cut_at = match decision.cause {
            Cause::NoPath => {
                self.cut_at[place] = Some(died_at(decision.from));
                None
            }
            Cause::First => self.cut_at[place].take(),
            Cause::Forced => {
                let was_usable = decision
                    .candidates
                    .iter()
                    .any(|candidate| Some(candidate.path) == decision.from && candidate.tier < 4);
                (!was_usable).then(|| died_at(decision.from))
            }
            Cause::Sla
            | Cause::Better
            | Cause::Failback
            | Cause::Drain
            | Cause::Pin
            | Cause::Peer => None,
        };
        if let Some(cut_at) = was_cut_at {
            let gap_ms = decision.at.since(cut_at).as_millis();
            usage.gaps.add(u64::try_from(gap_ms).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn into_usage(self) -> Vec<ClassUsage> {
        self.usage
    }
}
