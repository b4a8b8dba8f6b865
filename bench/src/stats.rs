//! Medians of batches and of trials, and how far the trials lie apart.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time per packet that is told from longer ones: 10 ms, in picoseconds.
const PS_MAX: u64 = 10_000_000_000;

/// Time per packet of many batches. Their median is what counts: a neighbour that takes the core away in the middle of
/// a batch spoils that batch, not the trial.
#[derive(Clone, Debug)]
pub struct Batches {
    /// Picoseconds per packet.
    histogram: Histogram<u64>,
}

impl Batches {
    /// No batch yet.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_max(PS_MAX, 3);
        Self {
            histogram: histogram.expect("three digits up to ten milliseconds are a histogram"),
        }
    }

    /// Adds a batch of at least one packet.
    pub fn record(&mut self, elapsed: Duration, packets: u64) {
        assert!(
            packets > 0,
            "a batch without packets has no time per packet"
        );
        let ps = elapsed.as_nanos() * 1000 / u128::from(packets);
        let ps = u64::try_from(ps).unwrap_or(u64::MAX);
        self.histogram.saturating_record(ps);
    }

    /// The batches of `other` too.
    pub fn add(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("both histograms have the same bounds");
    }

    /// Nanoseconds per packet of the batch in the middle; 0 without batches.
    pub fn median_ns(&self) -> f64 {
        self.histogram.value_at_quantile(0.5) as f64 / 1e3
    }

    /// Picoseconds per packet.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

impl Default for Batches {
    fn default() -> Self {
        Self::new()
    }
}

/// The middle value, or the mean of the two in the middle.
///
/// # Panics
/// Without values: whoever asks has run at least one trial.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "no trial, no median");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest and the largest value.
pub fn extremes(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
            (min.min(*value), max.max(*value))
        })
}

/// Half the distance between the extremes as a share of the median: the `±` beside it.
pub fn half_spread(values: &[f64]) -> f64 {
    let (min, max) = extremes(values);
    let middle = median(values);
    if middle == 0.0 {
        return 0.0;
    }
    (max - min) / 2.0 / middle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn one_batch_that_was_disturbed_does_not_move_the_median() {
        let mut batches = Batches::new();
        for _ in 0..9 {
            batches.record(Duration::from_nanos(8000), 8);
        }
        batches.record(Duration::from_millis(4), 8);
        let mut sum = Batches::default();
        sum.add(&batches);
        assert!(
            (sum.median_ns() - 1000.0).abs() < 1.0,
            "{}",
            sum.median_ns()
        );
        assert_eq!(sum.histogram().len(), 10);
    }

    #[test]
    fn the_spread_is_half_the_distance_between_the_extremes() {
        assert_eq!(extremes(&[9.0, 10.0, 11.0]), (9.0, 11.0));
        assert_eq!(half_spread(&[9.0, 10.0, 11.0]), 0.1);
        assert_eq!(half_spread(&[0.0, 0.0]), 0.0);
    }
}
