//! The arithmetic of an open-loop sender: what is due when, whatever became of the packets before.

use std::time::Duration;

/// A schedule of packets at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    rate_pps: f64,
    burst_max: u64,
    sent: u64,
}

impl Pace {
    /// `rate_pps` packets per second, looked after every `tick`. A sender that was kept from its core catches up
    /// at no more than [`CATCH_UP`] times the rate: a burst as long as the pause would overflow queues that the
    /// rate itself does not fill.
    ///
    /// # Panics
    /// On a rate that is no positive number: rates come from checked options and from the search.
    pub fn new(rate_pps: f64, tick: Duration) -> Self {
        assert!(
            rate_pps.is_finite() && rate_pps > 0.0,
            "a rate of {rate_pps}"
        );
        let burst_max = (rate_pps * tick.as_secs_f64() * CATCH_UP).ceil().max(1.0);
        Self {
            rate_pps,
            burst_max: burst_max as u64,
            sent: 0,
        }
    }

    /// Packets to send at `elapsed` since the start: the first is due at once.
    pub fn due(&self, elapsed: Duration) -> u64 {
        let scheduled = (self.rate_pps * elapsed.as_secs_f64()) as u64 + 1;
        scheduled.saturating_sub(self.sent).min(self.burst_max)
    }

    /// Counts packets as sent.
    pub fn count(&mut self, packets: u64) {
        self.sent += packets;
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How far the sender is behind its schedule at `elapsed`.
    pub fn behind(&self, elapsed: Duration) -> Duration {
        let ought = Duration::from_secs_f64(self.sent as f64 / self.rate_pps);
        elapsed.saturating_sub(ought)
    }
}

/// How much faster than its rate a sender may catch up.
pub const CATCH_UP: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_micros(100);

    #[test]
    fn the_first_packet_is_due_at_once_and_the_next_one_interval_later() {
        let mut pace = Pace::new(1000.0, TICK);
        assert_eq!(pace.due(Duration::ZERO), 1);
        pace.count(1);
        assert_eq!(pace.due(Duration::from_micros(999)), 0);
        assert_eq!(pace.due(Duration::from_micros(1001)), 1);
    }

    #[test]
    fn a_sender_that_overslept_catches_up_in_bounded_bursts() {
        let pace = Pace::new(100_000.0, TICK);
        // 1000 packets are due, four ticks' worth may go.
        assert_eq!(pace.due(Duration::from_millis(10)), 40);
        assert_eq!(
            pace.behind(Duration::from_millis(10)),
            Duration::from_millis(10)
        );
    }

    proptest! {
        #[test]
        fn a_sender_that_is_never_kept_waiting_sends_the_rate_to_the_packet(
            rate in 10.0..3e6_f64,
            ticks in 1_u32..5000,
        ) {
            let mut pace = Pace::new(rate, TICK);
            for tick in 0..=ticks {
                let due = pace.due(TICK * tick);
                pace.count(due);
            }
            let expected = (rate * (TICK * ticks).as_secs_f64()) as u64 + 1;
            prop_assert_eq!(pace.sent(), expected);
        }

        #[test]
        fn no_burst_is_longer_than_the_catch_up_allows(
            rate in 10.0..3e6_f64,
            pauses_us in prop::collection::vec(100_u64..50_000, 1..50),
        ) {
            let mut pace = Pace::new(rate, TICK);
            let mut elapsed = Duration::ZERO;
            for pause in pauses_us {
                elapsed += Duration::from_micros(pause);
                let due = pace.due(elapsed);
                prop_assert!(due as f64 <= (rate * TICK.as_secs_f64() * CATCH_UP).ceil().max(1.0));
                pace.count(due);
                prop_assert!(pace.sent() as f64 <= rate * elapsed.as_secs_f64() + 1.0);
            }
        }
    }
}
