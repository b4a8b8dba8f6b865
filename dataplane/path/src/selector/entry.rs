//! One path as the selector knows it: state, standing with dampening, numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{LossHistory, Recent, hold_down, place};
use super::watch::{Averages, Watch};
use crate::class::{ClassConfig, Sample};
use crate::ids::CLASSES_MAX;
use crate::metrics::{Bandwidth, LossWindows, PathMetrics, PathState, StateReason};
use crate::observation::{Direction, PathProfile};
use crate::time::Time;

/// One path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) profile: PathProfile,
    pub(super) state: PathState,
    pub(super) reason: StateReason,
    /// Since when it is Up or Suspect without a break.
    pub(super) up_since: Option<Time>,
    pub(super) downs: Recent,
    pub(super) damping: Damping,
    /// An operator of this side drains it.
    pub(super) is_drained: bool,
    pub(super) metrics: PathMetrics,
    pub(super) averages: Averages,
    pub(super) history: LossHistory,
    /// When data was reported last, per direction.
    pub(super) data_at: [Time; 2],
    /// By class.
    pub(super) watches: [Watch; CLASSES_MAX],
}

impl Entry {
    pub(super) fn new(profile: PathProfile, now: Time) -> Self {
        Self {
            profile,
            state: PathState::Down,
            reason: StateReason::New,
            up_since: None,
            downs: Recent::default(),
            damping: Damping::default(),
            is_drained: false,
            metrics: PathMetrics::default(),
            averages: Averages::default(),
            history: LossHistory::default(),
            data_at: [now; 2],
            watches: Default::default(),
        }
    }

    /// Up, or not known to be Down yet.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.state, PathState::Up | PathState::Suspect)
    }

    /// Whether an operator of either side wants it empty.
    pub(super) fn is_draining(&self) -> bool {
        let told = [StateReason::PeerSignalled, StateReason::Drained];
        self.is_drained || self.is_usable() && told.contains(&self.reason)
    }

    /// Whether data is reported on it at the moment.
    pub(super) fn is_carrying(&self, direction: Direction, now: Time) -> bool {
        now.since(self.data_at[place(direction)]) <= DATA_NEWS
    }

    /// Takes the numbers. What is no number is not known: a trace could not carry it.
    pub(super) fn set_metrics(&mut self, metrics: &PathMetrics) {
        let known = |value: Option<f64>| value.filter(|value| value.is_finite());
        let windows = |loss: LossWindows| LossWindows {
            one_s: known(loss.one_s),
            ten_s: known(loss.ten_s),
            sixty_s: known(loss.sixty_s),
        };
        let bandwidth = |bandwidth: Option<Bandwidth>| {
            bandwidth.filter(|it| it.bps.is_finite() && it.age_s.is_finite())
        };
        self.metrics = PathMetrics {
            rtt_fast_ns: known(metrics.rtt_fast_ns),
            rtt_slow_ns: known(metrics.rtt_slow_ns),
            rtt_min_ns: known(metrics.rtt_min_ns),
            rtt_p95_ns: known(metrics.rtt_p95_ns),
            tx_jitter_ns: known(metrics.tx_jitter_ns),
            rx_jitter_ns: known(metrics.rx_jitter_ns),
            tx_loss: windows(metrics.tx_loss),
            rx_loss: windows(metrics.rx_loss),
            tx_data_loss: known(metrics.tx_data_loss),
            rx_data_loss: known(metrics.rx_data_loss),
            rx_queueing_ns: known(metrics.rx_queueing_ns),
            queueing_ns: known(metrics.queueing_ns),
            tx_bandwidth: bandwidth(metrics.tx_bandwidth),
            rx_bandwidth: bandwidth(metrics.rx_bandwidth),
            tx_bps: known(Some(metrics.tx_bps)).unwrap_or(0.0),
            rx_bps: known(Some(metrics.rx_bps)).unwrap_or(0.0),
            ..*metrics
        };
    }

    /// Takes a state; a Down counts unless somebody wanted it.
    pub(super) fn set_state(&mut self, state: PathState, reason: StateReason, now: Time) {
        let was_usable = self.is_usable();
        self.state = state;
        self.reason = reason;
        let is_usable = self.is_usable();
        if is_usable && !was_usable {
            self.up_since = Some(now);
            for watch in &mut self.watches {
                watch.path_up(now);
            }
        } else if !is_usable && was_usable {
            self.up_since = None;
            let is_wanted = self.is_drained
                || state == PathState::AdminDown
                || matches!(reason, StateReason::Drained | StateReason::Removed);
            if !is_wanted {
                self.downs.push(now);
                self.damping.punish(PENALTY_DOWN, now);
            }
        }
    }

    /// 0 best to 4 unusable.
    pub(super) fn tier(&self, class: usize) -> u8 {
        match self.state {
            PathState::Down | PathState::Init | PathState::AdminDown => TIER_DOWN,
            _ if self.damping.is_suppressed() => TIER_SUPPRESSED,
            PathState::Suspect => TIER_SUSPECT,
            PathState::Up if self.watches[class].violated() != 0 => TIER_VIOLATED,
            PathState::Up => TIER_MET,
        }
    }

    /// What a class's score is computed from. Without the prober's numbers, what was seen here serves.
    pub(super) fn sample(&self, own_bps: f64) -> Sample {
        let mut sample = Sample::of(&self.metrics, self.profile.capacity_bps, own_bps);
        sample.rtt_ms = sample.rtt_ms.or(self.averages.rtt_ms);
        let [tx, rx] = self.averages.jitter_ms;
        let worse = [tx, rx].into_iter().flatten().reduce(f64::max);
        sample.jitter_ms = sample.jitter_ms.or(worse);
        sample
    }

    /// Until when a class does not return to it of its own will, for what happened to it in the last 10 minutes.
    pub(super) fn held_until(&self, class: usize, now: Time) -> Time {
        let watch = &self.watches[class];
        let downs = self.downs.count(now);
        let by_downs = match (downs, self.up_since) {
            (0, _) => Time::default(),
            (downs, Some(up_since)) => up_since + hold_down(downs),
            (_, None) => Time(u64::MAX),
        };
        by_downs.max(watch.held_until(now))
    }

    /// How often it was in trouble in the last 10 minutes, as a class sees it.
    pub(super) fn troubles(&self, class: usize, now: Time) -> u32 {
        self.downs.count(now) + self.watches[class].troubles(now)
    }

    /// Ends the class's violation if it is over; true where it did.
    pub(super) fn recover(&mut self, number: usize, class: &ClassConfig, now: Time) -> bool {
        let is_over = self.is_usable()
            && self.watches[number].recover(class, &self.averages, &self.history, now);
        if is_over {
            self.history.forget_trouble(now);
        }
        is_over
    }

    /// Forgets penalties and hold-downs.
    pub(super) fn clear(&mut self) {
        self.downs.clear();
        self.damping = Damping::default();
        for watch in &mut self.watches {
            watch.clear_history();
        }
    }
}

/// The penalty of a path, after RFC 2439: what flaps is left alone until it has been quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Damping {
    penalty: f64,
    at: Time,
    /// Since when and until when it is suppressed.
    suppressed: Option<(Time, Time)>,
}

impl Damping {
    /// Adds to the penalty.
    pub(super) fn punish(&mut self, penalty: f64, now: Time) {
        self.penalty = (self.penalty(now) + penalty).min(PENALTY_MAX);
        self.at = now;
        let since = match self.suppressed {
            Some((since, _)) => since,
            None if self.penalty > SUPPRESS => now,
            None => return,
        };
        let half_lives = (self.penalty / REUSE).log2().max(0.0);
        let quiet = Duration::from_secs_f64(half_lives * HALF_LIFE_S);
        self.suppressed = Some((since, (now + quiet).min(since + SUPPRESS_SPAN)));
    }

    /// What is left of the penalty.
    pub(super) fn penalty(&self, now: Time) -> f64 {
        self.penalty * (-now.since(self.at).as_secs_f64() / HALF_LIFE_S).exp2()
    }

    /// Ends the suppression if it is over; true where it did.
    pub(super) fn release(&mut self, now: Time) -> bool {
        let is_over = self.suppressed.is_some_and(|(_, until)| until <= now);
        if is_over {
            self.penalty = self.penalty(now).min(REUSE);
            self.at = now;
            self.suppressed = None;
        }
        is_over
    }

    pub(super) fn is_suppressed(&self) -> bool {
        self.suppressed.is_some()
    }

    /// When the suppression ends, unless more is added.
    pub(super) fn reuse_at(&self) -> Option<Time> {
        self.suppressed.map(|(_, until)| until)
    }
}

pub(super) const TIER_MET: u8 = 0;
pub(super) const TIER_VIOLATED: u8 = 1;
pub(super) const TIER_SUSPECT: u8 = 2;
pub(super) const TIER_SUPPRESSED: u8 = 3;
pub(super) const TIER_DOWN: u8 = 4;

/// Data is reported twice a second where it flows.
const DATA_NEWS: Duration = Duration::from_millis(1500);
const PENALTY_DOWN: f64 = 1000.0;
/// For the first class whose bounds a path leaves.
pub(super) const PENALTY_VIOLATION: f64 = 500.0;
const HALF_LIFE_S: f64 = 60.0;
const SUPPRESS: f64 = 3000.0;
const REUSE: f64 = 750.0;
const SUPPRESS_SPAN: Duration = Duration::from_secs(600);
/// RFC 2439's ceiling: what decays to `REUSE` in the longest suppression.
const PENALTY_MAX: f64 = REUSE * 1024.0;
