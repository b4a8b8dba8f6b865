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
        let soft = within(bounds_pct.soft / 100.0, SHARE_MIN, 0.5);
        let hard = within(bounds_pct.hard / 100.0, 1.5 * soft, 0.99);
        let alike = SHARED_FACTOR * shared;
        let base = within(alike + SHARED_MARGIN, soft, 0.5);
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

/// A number between two others; what is no number is the lower one.
fn within(value: f64, least: f64, most: f64) -> f64 {
    if value.is_nan() {
        return least;
    }
    value.clamp(least, most)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64, as a share.
    struct Chance(u64);

    impl Chance {
        fn share(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Samples until the test sees that much loss, or `most`.
    fn run_length(test: &LossTest, loss: f64, seed: u64, most: u64) -> u64 {
        let mut chance = Chance(seed);
        let mut sum = 0.0;
        for count in 1..most {
            sum = test.add(sum, chance.share() < loss);
            if test.is_reached(sum) {
                return count;
            }
        }
        most
    }

    /// Median and 95th percentile of the delay over 2000 seeds at 20 samples per second, in seconds.
    fn delay_s(bounds: Bounds, loss: f64) -> (f64, f64) {
        let test = LossTest::new(bounds, 0.0);
        let runs = (0..2000).map(|seed| run_length(&test, loss, seed, 1_000_000));
        let mut runs: Vec<u64> = runs.collect();
        runs.sort_unstable();
        (runs[1000] as f64 / 20.0, runs[1900] as f64 / 20.0)
    }

    #[test]
    fn loss_is_seen_as_soon_as_the_design_says() {
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() <= 0.15;
        let (one_five, three_twelve) = (
            Bounds {
                soft: 1.0,
                hard: 5.0,
            },
            Bounds {
                soft: 3.0,
                hard: 12.0,
            },
        );
        for (bounds, loss, median_s, p95_s) in [
            (one_five, 0.05, 5.8, 16.1),
            (one_five, 0.10, 2.4, 5.2),
            (one_five, 0.20, 1.1, 2.3),
            (one_five, 0.50, 0.4, 0.7),
            (three_twelve, 0.05, 35.0, 138.0),
            (three_twelve, 0.10, 3.9, 12.2),
            (three_twelve, 0.20, 1.4, 3.2),
            (three_twelve, 0.50, 0.5, 0.8),
        ] {
            let (median, p95) = delay_s(bounds, loss);
            // The design rounds to a tenth of a second.
            let fits =
                |value: f64, wanted: f64| near(value, wanted) || (value - wanted).abs() <= 0.1;
            assert!(
                fits(median, median_s) && fits(p95, p95_s),
                "{bounds:?} at {loss}: median {median} s, p95 {p95} s, not {median_s} and {p95_s}"
            );
        }
    }

    #[test]
    fn half_of_the_soft_bound_alarms_nobody_for_hours() {
        for bounds in [
            Bounds {
                soft: 1.0,
                hard: 5.0,
            },
            Bounds {
                soft: 3.0,
                hard: 12.0,
            },
        ] {
            let test = LossTest::new(bounds, 0.0);
            let most = (5.5 * 3600.0 * 20.0) as u64;
            let runs = (0..101).map(|seed| run_length(&test, bounds.soft / 200.0, seed, most));
            let mut runs: Vec<u64> = runs.collect();
            runs.sort_unstable();
            assert_eq!(runs[50], most, "{bounds:?}: median {} samples", runs[50]);
        }
    }

    #[test]
    fn what_is_lost_everywhere_alarms_nobody_for_a_day() {
        for (soft, hard) in [(1.0, 5.0), (1.0, 8.0), (2.0, 15.0), (3.0, 20.0)] {
            let test = LossTest::new(Bounds { soft, hard }, 0.02);
            let day = 24 * 3600 * 20;
            let alarms = (0..8).filter(|seed| run_length(&test, 0.02, *seed, day) < day);
            assert_eq!(alarms.count(), 0, "{soft} to {hard}");
        }
    }

    #[test]
    fn what_is_lost_everywhere_hides_no_path_that_loses_much_more() {
        let test = LossTest::new(
            Bounds {
                soft: 1.0,
                hard: 5.0,
            },
            0.02,
        );
        let runs = (0..200).map(|seed| run_length(&test, 0.3, seed, 100_000));
        let slowest = runs.max().unwrap_or(0);
        assert!(slowest < 20 * 8, "{slowest} samples");
    }

    #[test]
    fn one_observation_of_data_does_not_decide_and_half_a_second_of_them_does() {
        let test = LossTest::new(
            Bounds {
                soft: 1.0,
                hard: 5.0,
            },
            0.0,
        );
        for span_ms in [0, 50, 1000, 60_000] {
            let span = Duration::from_millis(span_ms);
            assert!(!test.is_reached(test.add_many(0.0, 10_000, 10_000, span)));
        }
        let mut sum = 0.0;
        for _ in 0..10 {
            sum = test.add_many(sum, 100, 100, Duration::from_millis(50));
        }
        assert!(test.is_reached(sum), "{sum}");
        for _ in 0..10 {
            sum = test.add_many(sum, 100, 0, Duration::from_millis(50));
        }
        assert!(sum <= 1e-9, "{sum}");
    }

    #[test]
    fn a_value_well_past_its_bounds_takes_eight_samples_and_an_outlier_nothing() {
        let bounds = Bounds {
            soft: 150.0,
            hard: 400.0,
        };
        let mut sum = add_value(0.0, bounds, 10_000.0, LATENCY_MOST);
        assert!(!is_value_reached(sum));
        sum = add_value(sum, bounds, 100.0, LATENCY_MOST);
        assert!(sum <= 0.0, "{sum}");
        let mut count = 0;
        while !is_value_reached(sum) {
            sum = add_value(sum, bounds, 500.0, LATENCY_MOST);
            count += 1;
        }
        assert_eq!(count, 8);
    }

    #[test]
    fn bounds_that_make_no_sense_give_a_test_all_the_same() {
        for (soft, hard) in [
            (0.0, 0.0),
            (100.0, 100.0),
            (50.0, 1.0),
            (-3.0, 1e9),
            (f64::NAN, f64::NAN),
        ] {
            let test = LossTest::new(Bounds { soft, hard }, 0.9);
            let sum = test.add(test.add(0.0, true), false);
            assert!(sum.is_finite(), "{soft} {hard}");
        }
        assert!(
            add_value(
                0.0,
                Bounds {
                    soft: 1.0,
                    hard: 1.0
                },
                2.0,
                1.0
            )
            .is_finite()
        );
    }
}
