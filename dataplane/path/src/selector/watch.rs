//! Whether one path keeps what one class asks of it: brownouts.
//!
//! A violation begins when a cumulative sum reaches its limit (fast, by evidence), or when loss was at the hard bound for
//! half a minute. It ends slowly, after half a minute without anything near the bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{LossHistory, Recent, hold_down, place};
use crate::class::ClassConfig;
use crate::cusum::{JITTER_MOST, LATENCY_MOST, LossTest, add_value, is_value_reached};
use crate::observation::Direction;
use crate::time::Time;

/// What a class's bounds are exceeded by, as bits.
pub(super) const LATENCY: u8 = 1;
/// Per direction, towards the peer first.
pub(super) const JITTER: [u8; 2] = [2, 4];
/// Per direction, towards the peer first.
pub(super) const LOSS: [u8; 2] = [8, 16];
/// What concerns the way to the peer. A round trip cannot be told apart, so it counts.
const FORWARD: u8 = LATENCY | JITTER[0] | LOSS[0];

/// A violation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Violation {
    metrics: u8,
    /// Since when nothing was near the bounds.
    calm_since: Time,
}

/// One path under the eyes of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    latency: f64,
    jitter: [f64; 2],
    loss: [f64; 2],
    violation: Option<Violation>,
    recovered_at: Option<Time>,
    recent: Recent,
}

/// Averages of the path that recovery is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Averages {
    /// Round trip, over 8 samples.
    pub(super) rtt_ms: Option<f64>,
    /// Jitter (RFC 3550), per direction.
    pub(super) jitter_ms: [Option<f64>; 2],
}

impl Watch {
    /// Takes a round trip; true where a violation begins.
    pub(super) fn rtt(&mut self, class: &ClassConfig, rtt_ms: f64, now: Time) -> bool {
        let Some(bounds) = class.latency_ms else {
            return false;
        };
        self.latency = add_value(self.latency, bounds, rtt_ms, LATENCY_MOST);
        is_value_reached(self.latency) && self.violate(LATENCY, now)
    }

    /// Takes a deviation; true where a violation begins.
    pub(super) fn deviation(
        &mut self,
        class: &ClassConfig,
        direction: Direction,
        deviation_ms: f64,
        now: Time,
    ) -> bool {
        let Some(bounds) = class.jitter_ms else {
            return false;
        };
        let way = place(direction);
        self.jitter[way] = add_value(self.jitter[way], bounds, deviation_ms, JITTER_MOST);
        is_value_reached(self.jitter[way]) && self.violate(JITTER[way], now)
    }

    /// Takes what became of a probe; true where a violation begins. `shared` as in [`LossTest::new`].
    pub(super) fn probe(
        &mut self,
        class: &ClassConfig,
        direction: Direction,
        is_lost: bool,
        history: &LossHistory,
        shared: f64,
        now: Time,
    ) -> bool {
        let Some(bounds) = class.loss_pct else {
            return false;
        };
        let way = place(direction);
        let test = LossTest::new(bounds, shared);
        self.loss[way] = test.add(self.loss[way], is_lost);
        let half_minute = history.half_minute(direction, now);
        let is_lasting = is_lost
            && half_minute.lost >= LASTING_MIN
            && f64::from(half_minute.lost) * 100.0 >= bounds.hard * f64::from(half_minute.of);
        (test.is_reached(self.loss[way]) || is_lasting) && self.violate(LOSS[way], now)
    }

    /// Takes what became of data; true where a violation begins.
    pub(super) fn data(
        &mut self,
        class: &ClassConfig,
        direction: Direction,
        (sent, lost): (u32, u32),
        span: Duration,
        shared: f64,
        now: Time,
    ) -> bool {
        let Some(bounds) = class.loss_pct else {
            return false;
        };
        let way = place(direction);
        let test = LossTest::new(bounds, shared);
        self.loss[way] = test.add_many(self.loss[way], sent, lost, span);
        test.is_reached(self.loss[way]) && self.violate(LOSS[way], now)
    }

    /// Ends a violation that is over; true where it did.
    pub(super) fn recover(
        &mut self,
        class: &ClassConfig,
        averages: &Averages,
        history: &LossHistory,
        now: Time,
    ) -> bool {
        let Some(violation) = &mut self.violation else {
            return false;
        };
        let is_near =
            |value: Option<f64>, bounds: Option<crate::class::Bounds>| match (value, bounds) {
                (Some(value), Some(bounds)) => value > RECOVERY_VALUE * bounds.threshold(),
                _ => false,
            };
        let [tx_ms, rx_ms] = averages.jitter_ms;
        if is_near(averages.rtt_ms, class.latency_ms)
            || is_near(tx_ms, class.jitter_ms)
            || is_near(rx_ms, class.jitter_ms)
        {
            violation.calm_since = now;
            return false;
        }
        if now.since(violation.calm_since) < RECOVERY {
            return false;
        }
        if let Some(bounds) = class.loss_pct {
            // Nothing measured is nothing recovered.
            let lost_pct = history.half_minute_pct(now).unwrap_or(100.0);
            if lost_pct > RECOVERY_LOSS * bounds.threshold() {
                return false;
            }
        }
        self.violation = None;
        self.recovered_at = Some(now);
        self.forget_sums();
        true
    }

    /// The path came up again: what was before says nothing, but a violation still has to prove its end.
    pub(super) fn path_up(&mut self, now: Time) {
        self.forget_sums();
        if let Some(violation) = &mut self.violation {
            violation.calm_since = now;
        }
    }

    /// Which metrics are violated, as bits; 0 for none.
    pub(super) fn violated(&self) -> u8 {
        self.violation.map_or(0, |violation| violation.metrics)
    }

    /// Whether the way to the peer is violated.
    pub(super) fn is_forward_violated(&self) -> bool {
        self.violated() & FORWARD != 0
    }

    /// When the violation can end at the earliest.
    pub(super) fn recovery_at(&self) -> Option<Time> {
        self.violation
            .map(|violation| violation.calm_since + RECOVERY)
    }

    /// Violations of the last 10 minutes.
    pub(super) fn troubles(&self, now: Time) -> u32 {
        self.recent.count(now)
    }

    /// When a violation of the last 10 minutes will not count.
    pub(super) fn next_expiry(&self, now: Time) -> Option<Time> {
        self.recent.next_expiry(now)
    }

    /// Until when a recovered path is not returned to because of its violations alone.
    pub(super) fn held_until(&self, now: Time) -> Time {
        let recovered_at = self.recovered_at.unwrap_or_default();
        match self.troubles(now) {
            0 => Time::default(),
            troubles => recovered_at + hold_down(troubles),
        }
    }

    pub(super) fn clear_history(&mut self) {
        self.recent.clear();
    }

    fn violate(&mut self, metric: u8, now: Time) -> bool {
        let is_new = self.violation.is_none();
        let before = self.violated();
        self.violation = Some(Violation {
            metrics: before | metric,
            calm_since: now,
        });
        if is_new {
            self.recent.push(now);
        }
        is_new || before & metric == 0
    }

    fn forget_sums(&mut self) {
        self.latency = 0.0;
        self.jitter = [0.0; 2];
        self.loss = [0.0; 2];
    }
}

/// So many probes must be lost in half a minute before its share is believed.
const LASTING_MIN: u32 = 10;
/// How long nothing may be near the bounds.
const RECOVERY: Duration = Duration::from_secs(30);
/// "Near" for latency and jitter, of the threshold.
const RECOVERY_VALUE: f64 = 0.9;
/// "Near" for loss.
const RECOVERY_LOSS: f64 = 0.5;
