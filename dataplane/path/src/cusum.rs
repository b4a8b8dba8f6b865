//! Cumulative sums (Page, 1954): how a lasting change is told from chance, one sample at a time.
//!
//! Loss is tested as one share against another, by the logarithm of the likelihood ratio; latency and jitter by how far
//! they lie between a class's bounds.

use std::time::Duration;

use crate::class::Bounds;

/// A test of loss against a class's bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossTest {
    lost: f64,
    kept: f64,
    limit: f64,
}

impl LossTest {
    /// Tests `soft` against `hard`, in percent.
    ///
    /// `shared` is the share that the best other path loses. What all paths lose alike is no reason to leave one of them,
    /// so where it comes near `soft` both hypotheses and the limit rise: with 2 % of loss everywhere, a limit of 6 would be
    /// reached by chance every few minutes.
    pub fn new(bounds_pct: Bounds, shared: f64) -> Self {
        let soft = (bounds_pct.soft / 100.0).clamp(SHARE_MIN, 0.5);
        let hard = (bounds_pct.hard / 100.0).clamp(1.5 * soft, 0.99);
        let alike = SHARED_FACTOR * shared;
        let base = (alike + SHARED_MARGIN).clamp(soft, 0.5);
        let excess = ((alike - SHARED_MARGIN) / SHARED_FULL).clamp(0.0, 1.0);
        let worse = hard.max(SHARED_RATIO * base).min(0.99);
        Self {
            lost: (worse / base).ln(),
            kept: ((1.0 - worse) / (1.0 - base)).ln(),
            limit: LOSS_LIMIT + excess * SHARED_LIMIT,
        }
    }

    /// Adds one sample.
    pub fn add(&self, sum: f64, is_lost: bool) -> f64 {
        let step = if is_lost { self.lost } else { self.kept };
        (sum + step).clamp(0.0, self.limit)
    }

    /// Adds many samples of `span` at once.
    ///
    /// Data comes by the thousand, and is lost in bursts: what one observation can add is limited by the time that it
    /// speaks for: it takes half a second of loss to decide, and more than one observation.
    pub fn add_many(&self, sum: f64, sent: u32, lost: u32, span: Duration) -> f64 {
        let lost = lost.min(sent);
        let step = f64::from(lost) * self.lost + f64::from(sent - lost) * self.kept;
        let share = (span.as_secs_f64() / DATA_SPAN_S).clamp(DATA_SHARE_MIN, DATA_SHARE_MAX);
        let most = self.limit * share;
        (sum + step.clamp(-most, most)).clamp(0.0, self.limit)
    }

    /// Whether the sum says that loss is at `hard` rather than at `soft`.
    pub fn is_reached(&self, sum: f64) -> bool {
        sum >= self.limit
    }
}

/// Adds one value of latency or jitter, where 0 is `soft` and 1 is `hard`; more than `most` counts as `most`, so that one
/// outlier does not decide.
pub fn add_value(sum: f64, bounds: Bounds, value: f64, most: f64) -> f64 {
    let width = (bounds.hard - bounds.soft).max(f64::MIN_POSITIVE);
    let place = ((value - bounds.soft) / width).min(most);
    (sum + place - DRIFT).clamp(0.0, VALUE_LIMIT)
}

/// Whether the sum of [`add_value`] says that the value has left the class's bounds.
pub fn is_value_reached(sum: f64) -> bool {
    sum >= VALUE_LIMIT
}

/// Round trips count no further than `hard`: a step well past it takes 8 samples.
pub const LATENCY_MOST: f64 = 1.0;
/// Single deviations spread far around the jitter that is their mean, so more of them counts: 3 samples at least.
pub const JITTER_MOST: f64 = 2.0;

/// A class that tolerates no loss tolerates this much: a test against zero would be decided by the first lost packet.
const SHARE_MIN: f64 = 0.001;
const LOSS_LIMIT: f64 = 6.0;
/// The other path's loss is an estimate from 60 s: this much above it is still "alike".
const SHARED_FACTOR: f64 = 1.5;
const SHARED_MARGIN: f64 = 0.005;
/// How many times the shared loss a path must lose to be worse.
const SHARED_RATIO: f64 = 4.0;
/// How much the limit rises, in full where that much is lost alike.
const SHARED_LIMIT: f64 = 4.0;
const SHARED_FULL: f64 = 0.02;
const DATA_SPAN_S: f64 = 0.5;
const DATA_SHARE_MIN: f64 = 0.05;
const DATA_SHARE_MAX: f64 = 0.5;
const DRIFT: f64 = 0.5;
const VALUE_LIMIT: f64 = 4.0;
