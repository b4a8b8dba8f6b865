//! A percentile of the last minute in fixed memory.

use crate::time::Time;

/// Slots of the minute.
const SLOTS: usize = 6;
const SLOT_NS: u64 = 10_000_000_000;
/// Below 2^14 ns, 16 us, all are one.
const OCTAVE_FIRST: u32 = 14;
/// Up to 2^36 ns, 69 s.
const OCTAVES: u32 = 22;
/// Parts of an octave: 6 % of a value.
const PARTS: u32 = 16;
const BUCKETS: usize = (OCTAVES * PARTS) as usize + 1;

/// Counts of the last 60 s by size, forgotten by ten seconds. Values within 6 %, and better where they are even.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    slots: Box<[[u16; BUCKETS]; SLOTS]>,
    newest: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            slots: Box::new([[0; BUCKETS]; SLOTS]),
            newest: 0,
        }
    }

    pub(crate) fn add(&mut self, ns: f64, now: Time) {
        let slot = now.0 / SLOT_NS;
        if slot > self.newest {
            for slot in (self.newest + 1..=slot).rev().take(SLOTS) {
                self.slots[(slot % SLOTS as u64) as usize].fill(0);
            }
            self.newest = slot;
        }
        let count = &mut self.slots[(self.newest % SLOTS as u64) as usize][bucket(ns)];
        *count = count.saturating_add(1);
    }

    /// The value that a share of `quantile` of the samples do not exceed.
    pub(crate) fn quantile(&self, quantile: f64, now: Time) -> Option<f64> {
        let current = now.0 / SLOT_NS;
        let is_young = |slot: u64| slot + SLOTS as u64 > current;
        let alive = (0..SLOTS as u64)
            .filter_map(|back| self.newest.checked_sub(back))
            .filter(|slot| is_young(*slot))
            .map(|slot| &self.slots[(slot % SLOTS as u64) as usize]);
        let mut sums = [0_u32; BUCKETS];
        for slot in alive {
            for (sum, count) in sums.iter_mut().zip(slot) {
                *sum += u32::from(*count);
            }
        }
        let total: u32 = sums.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = quantile * f64::from(total);
        let mut below = 0.0;
        for (bucket, count) in sums.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(*count);
            if below + count >= rank {
                let (low, high) = (lower_ns(bucket), lower_ns(bucket + 1));
                return Some(low + (high - low) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }
}

fn bucket(ns: f64) -> usize {
    // As the float's exponent and the first bits of its fraction: the logarithm, near enough.
    let ns = (ns.max(0.0) as u64).clamp(1 << OCTAVE_FIRST, (1 << (OCTAVE_FIRST + OCTAVES)) - 1);
    let octave = 63 - ns.leading_zeros();
    let part = (ns >> (octave - PARTS.trailing_zeros())) & u64::from(PARTS - 1);
    ((octave - OCTAVE_FIRST) * PARTS) as usize + part as usize
}

fn lower_ns(bucket: usize) -> f64 {
    let octave = bucket as u32 / PARTS + OCTAVE_FIRST;
    let part = bucket as u32 % PARTS;
    (1_u64 << octave) as f64 * (1.0 + f64::from(part) / f64::from(PARTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_percentile_of_even_values_is_right_within_two_percent() {
        let mut histogram = Histogram::new();
        for sample in 0..1000_u64 {
            histogram.add(20e6 + sample as f64 * 20e3, Time(sample * 50_000_000));
        }
        let p95 = histogram.quantile(0.95, Time(50_000_000_000)).unwrap();
        assert!((p95 / 39e6 - 1.0).abs() < 0.02, "{p95}");
        assert_eq!(histogram.quantile(0.95, Time(200_000_000_000)), None);
    }

    #[test]
    fn any_value_has_a_bucket_that_holds_it() {
        for ns in [
            -1.0,
            0.0,
            1.0,
            16384.0,
            1e6,
            33e6,
            1e9,
            68e9,
            1e30,
            f64::NAN,
        ] {
            assert!(bucket(ns) < BUCKETS, "{ns}");
        }
        for ns in [16384.0, 1e6, 33e6, 1e9, 6e10] {
            let at = bucket(ns);
            assert!(lower_ns(at) <= ns && ns < lower_ns(at + 1), "{ns}");
        }
    }
}
