//! The percentile listing of HdrHistogram (`.hgrm`), which its plotters load: value, percentile, count, 1/(1-p).

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Lines per halving of the distance to 100 %, as HdrHistogram's own tools take it.
const TICKS_PER_HALF: u32 = 5;

/// The listing of a histogram, recorded values divided by `scale`.
pub fn hgrm(histogram: &Histogram<u64>, scale: f64) -> String {
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to(), step.quantile_iterated_to());
        // Writing to a string cannot fail.
        let _ = match quantile < 1.0 {
            true => writeln!(
                text,
                "{value:12.3} {quantile:2.12} {count:10} {:14.2}",
                1.0 / (1.0 - quantile),
                value = value as f64 / scale
            ),
            false => writeln!(
                text,
                "{:12.3} {quantile:2.12} {count:10}",
                value as f64 / scale
            ),
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / scale,
        histogram.stdev() / scale,
        histogram.max() as f64 / scale,
        histogram.len(),
        histogram.buckets(),
        1 << (64 - (2 * 10u64.pow(u32::from(histogram.sigfig()))).leading_zeros()),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_ends_with_all_values_at_the_largest() {
        let mut histogram = Histogram::new(3).unwrap();
        for value in 1..=1000 {
            histogram.record(value).unwrap();
        }
        let text = hgrm(&histogram, 1.0);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(last[..], ["1000.000", "1.000000000000", "1000"]);
        let median = lines.iter().find(|line| line[1] == "0.500000000000");
        assert_eq!(
            median.unwrap()[..],
            ["500.000", "0.500000000000", "500", "2.00"]
        );
        assert!(text.contains("Total count    =         1000"), "{text}");
        assert!(text.contains("SubBuckets     =         2048"), "{text}");
        let text = hgrm(&histogram, 1000.0);
        assert!(
            text.contains("       0.500 0.500000000000        500"),
            "{text}"
        );
    }
}
