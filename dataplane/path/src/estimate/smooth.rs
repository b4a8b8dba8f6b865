//! Averages weighted by time, and the least value of the last minute.

use std::time::Duration;

use crate::time::Time;

/// An exponential average whose weights follow time, w = 1 - exp(-dt/tau), since samples come at varying intervals.
#[derive(Clone, Debug)]
pub(crate) struct Smooth {
    tau_s: f64,
    last: Option<(Time, f64)>,
}

impl Smooth {
    pub(crate) fn new(tau: Duration) -> Self {
        Self {
            tau_s: tau.as_secs_f64(),
            last: None,
        }
    }

    pub(crate) fn add(&mut self, sample: f64, now: Time) {
        let value = match self.last {
            None => sample,
            Some((at, value)) => {
                let weight = -(-now.since(at).as_secs_f64() / self.tau_s).exp_m1();
                value + weight * (sample - value)
            }
        };
        self.last = Some((now, value));
    }

    pub(crate) fn value(&self) -> Option<f64> {
        self.last.map(|(_, value)| value)
    }
}

/// Slots of [`LeastOfMinute`].
const SLOTS: usize = 60;
const SLOT_NS: u64 = 1_000_000_000;

/// The least sample of the last 60 s, forgotten by the second.
#[derive(Clone, Debug)]
pub(crate) struct LeastOfMinute {
    slots: [f64; SLOTS],
    /// Number of the newest slot, in seconds.
    newest: u64,
    least: f64,
}

impl LeastOfMinute {
    pub(crate) fn new() -> Self {
        Self {
            slots: [f64::INFINITY; SLOTS],
            newest: 0,
            least: f64::INFINITY,
        }
    }

    /// Takes a sample and returns the least one of the last minute, itself included.
    pub(crate) fn add(&mut self, sample: f64, now: Time) -> f64 {
        self.advance(now);
        let slot = &mut self.slots[(self.newest % SLOTS as u64) as usize];
        *slot = slot.min(sample);
        self.least = self.least.min(sample);
        self.least
    }

    /// `None` where the last minute had no sample.
    pub(crate) fn value(&self, now: Time) -> Option<f64> {
        let second = now.0 / SLOT_NS;
        if second <= self.newest {
            return Some(self.least).filter(|least| least.is_finite());
        }
        let age = second - self.newest;
        let alive = (SLOTS as u64).saturating_sub(age);
        (0..alive)
            .filter_map(|back| self.newest.checked_sub(back))
            .map(|slot| self.slots[(slot % SLOTS as u64) as usize])
            .min_by(f64::total_cmp)
            .filter(|least| least.is_finite())
    }

    fn advance(&mut self, now: Time) {
        let second = now.0 / SLOT_NS;
        if second <= self.newest {
            return;
        }
        for slot in (self.newest + 1..=second).rev().take(SLOTS) {
            self.slots[(slot % SLOTS as u64) as usize] = f64::INFINITY;
        }
        self.newest = second;
        self.least = self.slots.iter().copied().fold(f64::INFINITY, f64::min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Time {
        Time((seconds * 1e9) as u64)
    }

    #[test]
    fn the_average_follows_time_whatever_the_cadence() {
        for interval_s in [0.01, 0.05, 0.2] {
            let mut smooth = Smooth::new(Duration::from_secs(1));
            smooth.add(0.0, at(0.0));
            let steps = (1.0 / interval_s) as u32;
            for step in 1..=steps {
                smooth.add(1.0, at(f64::from(step) * interval_s));
            }
            // After one time constant 1 - 1/e of the step is there.
            assert!((smooth.value().unwrap() - 0.632).abs() < 0.001);
        }
    }

    #[test]
    fn the_least_value_is_forgotten_after_a_minute() {
        let mut least = LeastOfMinute::new();
        assert_eq!(least.value(at(5.0)), None);
        least.add(3.0, at(5.0));
        for second in 6..64 {
            assert_eq!(least.add(7.0, at(f64::from(second))), 3.0);
        }
        assert_eq!(least.value(at(64.9)), Some(3.0));
        assert_eq!(least.value(at(65.1)), Some(7.0));
        assert_eq!(least.add(8.0, at(65.2)), 7.0);
        assert_eq!(least.value(at(200.0)), None);
        assert_eq!(least.add(9.0, at(1e6)), 9.0);
    }
}
