//! Round trip, one-way queueing and jitter.

use std::time::Duration;

use super::histogram::Histogram;
use super::smooth::{LeastOfMinute, Smooth};
use crate::time::Time;

const FAST: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(10);

/// The round trip: averages, spread, least and 95th percentile of the last minute.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrip {
    fast: Smooth,
    slow: Smooth,
    spread: Smooth,
    least: LeastOfMinute,
    histogram: Histogram,
}

impl RoundTrip {
    pub(crate) fn new() -> Self {
        Self {
            fast: Smooth::new(FAST),
            slow: Smooth::new(SLOW),
            spread: Smooth::new(FAST),
            least: LeastOfMinute::new(),
            histogram: Histogram::new(),
        }
    }

    pub(crate) fn add(&mut self, ns: f64, now: Time) {
        let deviation = self.fast.value().map_or(ns / 2.0, |fast| (ns - fast).abs());
        self.spread.add(deviation, now);
        self.fast.add(ns, now);
        self.slow.add(ns, now);
        self.least.add(ns, now);
        self.histogram.add(ns, now);
    }

    pub(crate) fn fast_ns(&self) -> Option<f64> {
        self.fast.value()
    }

    pub(crate) fn slow_ns(&self) -> Option<f64> {
        self.slow.value()
    }

    pub(crate) fn least_ns(&self, now: Time) -> Option<f64> {
        self.least.value(now)
    }

    pub(crate) fn p95_ns(&self, now: Time) -> Option<f64> {
        self.histogram.quantile(0.95, now)
    }

    /// Round trip above the least one: the queues both ways.
    pub(crate) fn queueing_ns(&self, now: Time) -> Option<f64> {
        Some((self.fast_ns()? - self.least_ns(now)?).max(0.0))
    }

    /// What an answer takes at most, as for retransmission (RFC 6298): srtt + 4 rttvar.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let ns = self.fast_ns()? + 4.0 * self.spread.value()?;
        Some(Duration::from_nanos(ns as u64))
    }
}

/// One-way delay towards us, of which only changes are known since the clocks differ: what is above the least one of
/// the last minute is the queue. Clocks that drift by 50 ppm feign 3 ms at most.
#[derive(Clone, Debug)]
pub(crate) struct OneWay {
    /// The first difference of the clocks: the others are small relative to it.
    base: Option<i64>,
    least: LeastOfMinute,
    queueing: Smooth,
}

impl OneWay {
    pub(crate) fn new() -> Self {
        Self {
            base: None,
            least: LeastOfMinute::new(),
            queueing: Smooth::new(FAST),
        }
    }

    /// `sent_at_ns` is the sender's clock.
    pub(crate) fn add(&mut self, sent_at_ns: u64, now: Time) {
        let delay = now.0.wrapping_sub(sent_at_ns) as i64;
        let base = *self.base.get_or_insert(delay);
        let relative = delay.wrapping_sub(base) as f64;
        let least = self.least.add(relative, now);
        self.queueing.add((relative - least).max(0.0), now);
    }

    pub(crate) fn queueing_ns(&self) -> Option<f64> {
        self.queueing.value()
    }
}

/// Interarrival jitter (RFC 3550 section 6.4.1): needs no common clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jitter {
    last: Option<(u64, Time)>,
    jitter_ns: Option<f64>,
    deviation_ns: f64,
}

impl Jitter {
    /// A message that was sent at `sent_at_ns` came; returns |D|, in nanoseconds.
    pub(crate) fn add(&mut self, sent_at_ns: u64, now: Time) -> Option<f64> {
        let (sent_before, came_before) = self.last.replace((sent_at_ns, now))?;
        let came = now.0.wrapping_sub(came_before.0) as i64;
        let sent = sent_at_ns.wrapping_sub(sent_before) as i64;
        let deviation = came.wrapping_sub(sent).unsigned_abs() as f64;
        let jitter = self.jitter_ns.unwrap_or(0.0);
        self.jitter_ns = Some(jitter + (deviation - jitter) / 16.0);
        self.deviation_ns = deviation;
        Some(deviation)
    }

    pub(crate) fn jitter_ns(&self) -> Option<f64> {
        self.jitter_ns
    }

    /// The last |D|.
    pub(crate) fn deviation_ns(&self) -> f64 {
        self.deviation_ns
    }

    /// The next message is no successor of the last one.
    pub(crate) fn pause(&mut self) {
        self.last = None;
    }
}
