//! Rates of data, and the capacity that a full path shows.

use std::time::Duration;

use crate::time::Time;

const SLOTS: usize = 11;
const SLOT: Duration = Duration::from_millis(100);
/// Shorter spans say little: a packet more or less is too much of them.
const SPAN_LEAST: Duration = Duration::from_millis(400);
/// How long the highest rate counts.
const HOLD: Duration = Duration::from_secs(10);

/// Rate of a counter over the last second.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateMeter {
    slots: [(Time, u64); SLOTS],
    len: usize,
    newest: usize,
}

impl RateMeter {
    /// The counter stands at `bytes`.
    pub(crate) fn add(&mut self, bytes: u64, now: Time) {
        let (at, last) = self.slots[self.newest];
        if self.len > 0 && bytes < last {
            // It began anew.
            self.len = 0;
        }
        if self.len > 0 && now.since(at) < SLOT {
            return;
        }
        self.newest = (self.newest + 1) % SLOTS;
        self.slots[self.newest] = (now, bytes);
        self.len = (self.len + 1).min(SLOTS);
    }

    /// Bits per second.
    pub(crate) fn bps(&self, now: Time) -> f64 {
        let oldest = (0..self.len)
            .map(|back| self.slots[(self.newest + SLOTS - back) % SLOTS])
            .take_while(|(at, _)| now.since(*at) <= Duration::from_millis(1250))
            .last();
        let (newest_at, newest) = self.slots[self.newest];
        match oldest {
            Some((at, bytes)) if newest_at > at => {
                (newest - bytes) as f64 * 8.0 / newest_at.since(at).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

/// The highest delivered rate while the path was full.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passive {
    from: Option<(u64, u64)>,
    is_full: bool,
    best: Option<(f64, Time)>,
}

impl Passive {
    /// `bytes` had come in all by `at_ns`, on the clock of who counts them; `is_full` says whether there is a queue.
    pub(crate) fn add(&mut self, bytes: u64, at_ns: u64, is_full: bool, now: Time) {
        let Some((from_bytes, from_ns)) = self.from else {
            (self.from, self.is_full) = (Some((bytes, at_ns)), is_full);
            return;
        };
        self.is_full &= is_full;
        let Some(span_ns) = at_ns.checked_sub(from_ns).filter(|_| bytes >= from_bytes) else {
            (self.from, self.is_full) = (Some((bytes, at_ns)), is_full);
            return;
        };
        let span = Duration::from_nanos(span_ns);
        if span < SPAN_LEAST {
            return;
        }
        let was_full = self.is_full;
        (self.from, self.is_full) = (Some((bytes, at_ns)), is_full);
        // Over a long pause there was no queue all the time.
        if !was_full || span > 4 * SPAN_LEAST || bytes == from_bytes {
            return;
        }
        let bps = (bytes - from_bytes) as f64 * 8.0 / span.as_secs_f64();
        let is_higher = self
            .best
            .is_none_or(|(best, at)| bps >= best || now.since(at) > HOLD);
        if is_higher {
            self.best = Some((bps, now));
        }
    }

    /// Bits per second, and when that was.
    pub(crate) fn best(&self) -> Option<(f64, Time)> {
        self.best
    }
}
