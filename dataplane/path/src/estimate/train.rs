//! Trains: packets back to back, whose spread at the receiver shows the narrowest link.

use crate::time::Time;
use crate::train::Wagon;

/// Trains of which the median counts.
pub(crate) const TRAINS: usize = 3;

/// What the receiver of trains knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrainMeter {
    number: u8,
    first: Option<Time>,
    last: Time,
    came: u32,
    result: Option<(u8, u32)>,
}

impl TrainMeter {
    /// A wagon came, with `bytes` of outer IP.
    pub(crate) fn add(&mut self, wagon: Wagon, bytes: usize, now: Time) {
        let Wagon {
            train: number,
            count,
            place,
        } = wagon;
        if self.first.is_none() || number != self.number {
            *self = Self {
                number,
                first: Some(now),
                last: now,
                came: 0,
                result: self.result,
            };
        } else {
            self.came += 1;
            self.last = now;
        }
        let is_whole = u32::from(count) == self.came + 1;
        let is_end = place >= count.saturating_sub(1);
        let is_measurable = self.came >= 4 && self.came + 1 >= u32::from(count) * 3 / 4;
        let Some(first) = self.first.filter(|_| (is_whole || is_end) && is_measurable) else {
            return;
        };
        let span_s = self.last.since(first).as_secs_f64();
        if span_s <= 0.0 {
            // All read in one go: says nothing.
            return;
        }
        let kbps = f64::from(self.came) * bytes as f64 * 8.0 / span_s / 1e3;
        self.result = Some((number, kbps.clamp(1.0, f64::from(u32::MAX)) as u32));
    }

    /// The last whole train's number and rate in kilobit per second.
    pub(crate) fn result(&self) -> Option<(u8, u32)> {
        self.result
    }
}
