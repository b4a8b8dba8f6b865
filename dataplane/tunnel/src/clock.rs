//! The time that goes into handshakes: TAI64N labels that never repeat and never go back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the world's clock said at one instant, so that pure code can tell the time from an [`Instant`].
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// When the clock was read.
    pub at: Instant,
    /// What it said: time since 1970-01-01 00:00 UTC.
    pub unix: Duration,
}

impl WallClock {
    /// The time since 1970 at `now`.
    pub fn unix_at(&self, now: Instant) -> Duration {
        self.unix + now.saturating_duration_since(self.at)
    }
}

/// A TAI64N label as it lies in an initiation: seconds, then nanoseconds, both big-endian, so that later labels
/// compare greater (`cr.yp.to/libtai/tai64.html`).
pub type Label = [u8; 12];

/// Hands out labels. A peer takes an initiation only when its label is greater than the last one's, across our
/// restarts too, hence the world's clock; and two within one nanosecond still differ.
#[derive(Debug)]
pub(crate) struct Labels {
    clock: WallClock,
    /// Nanoseconds since 1970 of the last label.
    last_ns: AtomicU64,
}

impl Labels {
    pub(crate) fn new(clock: WallClock) -> Self {
        Self {
            clock,
            last_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn clock(&self) -> WallClock {
        self.clock
    }

    pub(crate) fn next(&self, now: Instant) -> Label {
        let wanted = u64::try_from(self.clock.unix_at(now).as_nanos()).unwrap_or(u64::MAX >> 1);
        let after = |last: u64| Some(wanted.max(last + 1));
        let taken = self
            .last_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after)
            .unwrap_or_default();
        let ns = wanted.max(taken + 1);
        let mut label = [0; 12];
        label[..8].copy_from_slice(&(TAI64_BASE + ns / NS_PER_S).to_be_bytes());
        label[8..].copy_from_slice(&((ns % NS_PER_S) as u32).to_be_bytes());
        label
    }
}

/// 1970-01-01 00:00:10 TAI, as Linux's WireGuard writes it (`tai64n_now`).
const TAI64_BASE: u64 = 0x4000_0000_0000_000a;
const NS_PER_S: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn labels_grow_with_the_clock_and_within_one_instant() {
        let at = Instant::now();
        let unix = Duration::new(1_700_000_000, 999_999_999);
        let labels = Labels::new(WallClock { at, unix });
        let first = labels.next(at);
        assert_eq!(first[..8], (TAI64_BASE + 1_700_000_000).to_be_bytes());
        assert_eq!(first[8..], 999_999_999u32.to_be_bytes());
        let second = labels.next(at);
        assert_eq!(second[..8], (TAI64_BASE + 1_700_000_001).to_be_bytes());
        assert_eq!(second[8..], [0; 4]);
        let third = labels.next(at + Duration::from_secs(5));
        assert!(first < second && second < third);
    }
}
