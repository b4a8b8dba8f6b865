//! What a wire does, measured over many packets, against what it was configured to do. All chance comes from fixed
//! seeds: bounds are those of the statistics at five standard deviations, not of one lucky run.

use std::time::Duration;

use patronus_impair::{
    DropReason, Fate, GilbertElliott, Impairment, Jitter, JitterShape, Loss, Probability, RateBps,
    Reorder, Wire, WireCounters,
};
use proptest::prelude::*;

const SEEDS: [u64; 3] = [1, 0xdead_beef, 0x0123_4567_89ab_cdef];
const PACKETS: usize = 200_000;
const LEN: usize = 1000;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn chance(fraction: f64) -> Probability {
    Probability::new(fraction).expect("a chance")
}

/// Offers packets of [`LEN`] bytes at a constant pace.
fn run(impairment: Impairment, seed: u64, packets: usize, pace: Duration) -> (Wire, Vec<Fate>) {
    let mut wire = Wire::new(impairment, seed);
    let offers = (0..packets).map(|number| pace * number as u32);
    let fates = offers.map(|at| wire.offer(LEN, at)).collect();
    (wire, fates)
}

/// What the first copy of each delivered packet took, in seconds.
fn delays(fates: &[Fate], pace: Duration) -> Vec<f64> {
    let took = fates.iter().enumerate().filter_map(|(number, fate)| {
        let first = fate.deliveries().first()?;
        Some((first.at - pace * number as u32).as_secs_f64())
    });
    took.collect()
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>();
    (mean, (variance / values.len() as f64).sqrt())
}

fn assert_near(what: &str, measured: f64, expected: f64, tolerance: f64) {
    assert!(
        (measured - expected).abs() <= tolerance,
        "{what}: {measured} measured, {expected} ± {tolerance} expected"
    );
}

#[test]
fn an_unimpaired_wire_delivers_each_packet_once_at_once() {
    let (wire, fates) = run(Impairment::default(), 1, 1000, ms(1));
    for (number, fate) in fates.iter().enumerate() {
        let Fate::Once(delivery) = fate else {
            panic!("packet {number}: {fate:?}");
        };
        assert_eq!(delivery.at, ms(number as u64));
        assert!(!delivery.mark_ce);
    }
    let counters = wire.counters();
    assert_eq!((counters.offered, counters.delivered), (1000, 1000));
    assert_eq!(counters.delivered_bytes, 1000 * LEN as u64);
    assert_eq!(
        counters.reordered + counters.duplicated + counters.marked,
        0
    );
}

#[test]
fn a_delay_without_jitter_is_exact() {
    let impairment = Impairment {
        delay: ms(37),
        ..Impairment::default()
    };
    let (_, fates) = run(impairment, 1, 1000, ms(1));
    for (number, fate) in fates.iter().enumerate() {
        assert_eq!(fate.deliveries()[0].at, ms(number as u64 + 37));
    }
}

#[test]
fn jitter_has_the_mean_and_the_deviation_of_its_shape() {
    // Packets further apart than any jitter: keeping order changes nothing.
    let (delay, amount, pace) = (ms(100), ms(10), ms(300));
    // Moments in units of the amount; those of the cut distributions by integration.
    let shapes = [
        (JitterShape::Uniform, 0.5, 1.0 / 12f64.sqrt()),
        (JitterShape::Normal, 0.0, 0.9975),
        (JitterShape::Exponential, 0.99995, 0.9995),
    ];
    for (shape, mean_expected, deviation_expected) in shapes {
        for seed in SEEDS {
            let impairment = Impairment {
                delay,
                jitter: Jitter { amount, shape },
                ..Impairment::default()
            };
            let (wire, fates) = run(impairment, seed, PACKETS, pace);
            let (mean, deviation) = mean_and_deviation(&delays(&fates, pace));
            let a = amount.as_secs_f64();
            let error = 5.0 * a / (PACKETS as f64).sqrt();
            let what = format!("{shape:?}, seed {seed}");
            assert_near(&what, mean, 0.1 + mean_expected * a, error);
            // The fourth moment of the exponential is the largest: 9 σ⁴, so the deviation's error is √2 that of the mean.
            assert_near(
                &what,
                deviation,
                deviation_expected * a,
                1.5 * error + 0.001 * a,
            );
            assert_eq!(wire.counters().reordered, 0);
        }
    }
}

#[test]
fn random_loss_is_the_share_that_was_asked_for() {
    for seed in SEEDS {
        for loss in [0.001, 0.02, 0.2, 0.5] {
            let impairment = Impairment {
                loss: Loss::Random(chance(loss)),
                ..Impairment::default()
            };
            let (wire, _) = run(impairment, seed, PACKETS, ms(1));
            let lost = wire.counters().lost(DropReason::Random) as f64 / PACKETS as f64;
            let error = 5.0 * (loss * (1.0 - loss) / PACKETS as f64).sqrt();
            assert_near(&format!("seed {seed}"), lost, loss, error);
            assert_eq!(
                wire.counters().lost_total(),
                wire.counters().lost(DropReason::Random)
            );
        }
    }
}

#[test]
fn all_is_lost_at_a_chance_of_one_and_nothing_at_zero() {
    for (loss, delivered) in [(Probability::ALWAYS, 0), (Probability::NEVER, 1000)] {
        let impairment = Impairment {
            loss: Loss::Random(loss),
            ..Impairment::default()
        };
        let (wire, _) = run(impairment, 7, 1000, ms(1));
        assert_eq!(wire.counters().delivered, delivered);
    }
}

/// Runs of lost packets: how many, and how long they are on average.
fn bursts(fates: &[Fate]) -> (usize, f64) {
    let lost = |fate: &Fate| matches!(fate, Fate::Dropped(_));
    let runs: Vec<usize> = fates
        .chunk_by(|a, b| lost(a) == lost(b))
        .filter(|run| lost(&run[0]))
        .map(<[Fate]>::len)
        .collect();
    (
        runs.len(),
        runs.iter().sum::<usize>() as f64 / runs.len() as f64,
    )
}

#[test]
fn bursts_have_the_length_and_the_share_of_the_closed_form() {
    for seed in SEEDS {
        for (loss, burst) in [(0.02, 4.0), (0.1, 10.0), (0.3, 2.0)] {
            let chain = GilbertElliott::bursts(chance(loss), burst).expect("a chain");
            assert_near("mean loss", chain.mean_loss(), loss, 1e-12);
            assert_near("mean burst", chain.mean_burst_packets(), burst, 1e-12);
            let impairment = Impairment {
                loss: Loss::GilbertElliott(chain),
                ..Impairment::default()
            };
            let (wire, fates) = run(impairment, seed, PACKETS, ms(1));
            let (count, length) = bursts(&fates);
            let what = format!("{loss} in bursts of {burst}, seed {seed}");
            // Bursts are geometric: their deviation is √(1−r)/r, less than their mean.
            assert_near(&what, length, burst, 5.0 * burst / (count as f64).sqrt());
            // A chain with the memory λ = 1−p−r varies by (1+λ)/(1−λ) more than independent losses.
            let memory = 1.0 - chain.enter.as_fraction() - chain.leave.as_fraction();
            let inflation = (1.0 + memory) / (1.0 - memory);
            let error = 5.0 * (loss * (1.0 - loss) * inflation / PACKETS as f64).sqrt();
            let lost = wire.counters().lost(DropReason::Burst) as f64 / PACKETS as f64;
            assert_near(&what, lost, loss, error);
        }
    }
}

#[test]
fn a_chain_that_loses_in_both_states_loses_the_weighted_mean() {
    let chain = GilbertElliott {
        enter: chance(0.01),
        leave: chance(0.1),
        loss_good: chance(0.005),
        loss_bad: chance(0.4),
    };
    let expected = (0.1 * 0.005 + 0.01 * 0.4) / 0.11;
    assert_near("closed form", chain.mean_loss(), expected, 1e-12);
    for seed in SEEDS {
        let impairment = Impairment {
            loss: Loss::GilbertElliott(chain),
            ..Impairment::default()
        };
        let (wire, _) = run(impairment, seed, PACKETS, ms(1));
        let lost = wire.counters().lost(DropReason::Burst) as f64 / PACKETS as f64;
        let error = 5.0 * (expected * 18.0 / PACKETS as f64).sqrt();
        assert_near(&format!("seed {seed}"), lost, expected, error);
    }
}

#[test]
fn bursts_that_no_chain_makes_are_refused() {
    assert_eq!(GilbertElliott::bursts(chance(0.9), 1.0), None);
    assert_eq!(GilbertElliott::bursts(Probability::ALWAYS, 5.0), None);
    assert_eq!(GilbertElliott::bursts(chance(0.1), 0.5), None);
}

#[test]
fn a_rate_lets_exactly_so_much_pass_and_no_burst_through() {
    let rate = RateBps::new(10_000_000).expect("a rate");
    let impairment = Impairment {
        rate: Some(rate),
        queue_bytes: Some(20_000),
        ..Impairment::default()
    };
    // 1000 bytes every 0.2 ms are 40 Mbit/s.
    let (wire, fates) = run(impairment, 1, 50_000, Duration::from_micros(200));
    let mut arrivals = fates
        .iter()
        .flat_map(Fate::deliveries)
        .map(|delivery| delivery.at);
    let first = arrivals.next().expect("one arrives");
    assert_eq!(
        first,
        Duration::from_micros(800),
        "one packet takes 0.8 ms at 10 Mbit/s"
    );
    let mut before = first;
    for at in arrivals {
        assert_eq!(at - before, Duration::from_micros(800), "at {at:?}");
        before = at;
    }
    let bits = wire.counters().delivered_bytes as f64 * 8.0;
    assert_near("rate", bits / before.as_secs_f64(), 10e6, 1.0);
    assert_eq!(
        wire.counters().lost(DropReason::Queue),
        wire.counters().lost_total()
    );
}

#[test]
fn a_rate_that_is_not_reached_delays_by_the_length_alone() {
    let impairment = Impairment {
        rate: RateBps::new(8_000_000),
        ..Impairment::default()
    };
    let (wire, fates) = run(impairment, 1, 1000, ms(2));
    for took in delays(&fates, ms(2)) {
        assert_near("time on the line", took, 0.001, 1e-9);
    }
    assert_eq!(wire.counters().lost_total(), 0);
}

#[test]
fn the_queue_holds_what_it_was_given_and_drops_the_rest_at_its_tail() {
    let impairment = Impairment {
        rate: RateBps::new(8_000_000),
        queue_bytes: Some(5_500),
        ..Impairment::default()
    };
    let mut wire = Wire::new(impairment, 1);
    let fates: Vec<Fate> = (0..10).map(|_| wire.offer(LEN, ms(0))).collect();
    let arrivals: Vec<Duration> = fates
        .iter()
        .flat_map(Fate::deliveries)
        .map(|delivery| delivery.at)
        .collect();
    assert_eq!(arrivals, [ms(1), ms(2), ms(3), ms(4), ms(5)]);
    assert!(
        fates[5..]
            .iter()
            .all(|fate| *fate == Fate::Dropped(DropReason::Queue))
    );
    assert_eq!(wire.queued_bytes(), 5_000);
    // Two have left by then.
    wire.offer(LEN, ms(2));
    assert_eq!(wire.queued_bytes(), 4_000);
    // A packet of another length still fits.
    assert!(matches!(wire.offer(1_500, ms(2)), Fate::Once(_)));
    assert!(matches!(
        wire.offer(1, ms(2)),
        Fate::Dropped(DropReason::Queue)
    ));
}

#[test]
fn a_packet_longer_than_the_queue_passes_an_idle_line() {
    let impairment = Impairment {
        rate: RateBps::new(8_000_000),
        queue_bytes: Some(100),
        ..Impairment::default()
    };
    let mut wire = Wire::new(impairment, 1);
    assert!(matches!(wire.offer(LEN, ms(0)), Fate::Once(_)));
    assert_eq!(wire.offer(LEN, ms(0)), Fate::Dropped(DropReason::Queue));
    assert!(matches!(wire.offer(LEN, ms(1)), Fate::Once(_)));
}

#[test]
fn the_default_queue_is_a_tenth_of_a_second() {
    let at = |bits| Impairment::default().queue_bytes_at(RateBps::new(bits).expect("a rate"));
    assert_eq!(at(100_000_000), 1_250_000);
    assert_eq!(at(56_000), 30_000, "twenty packets at least");
}

#[test]
fn jitter_keeps_order_unless_told_otherwise() {
    for seed in SEEDS {
        for keep_order in [true, false] {
            let impairment = Impairment {
                delay: ms(20),
                jitter: Jitter {
                    amount: ms(10),
                    shape: JitterShape::Uniform,
                },
                keep_order,
                ..Impairment::default()
            };
            let (wire, fates) = run(impairment, seed, 10_000, ms(1));
            let arrivals: Vec<Duration> =
                fates.iter().map(|fate| fate.deliveries()[0].at).collect();
            assert_eq!(arrivals.is_sorted(), keep_order, "seed {seed}");
            assert_eq!(
                wire.counters().reordered,
                overtaken(&arrivals),
                "seed {seed}"
            );
            assert_eq!(wire.counters().reordered > 0, !keep_order, "seed {seed}");
        }
    }
}

/// How many have a later packet arrive before them: the slow way.
fn overtaken(arrivals: &[Duration]) -> u64 {
    let mut earliest_after = Duration::MAX;
    let mut count = 0;
    for at in arrivals.iter().rev() {
        count += u64::from(earliest_after < *at);
        earliest_after = earliest_after.min(*at);
    }
    count
}

#[test]
fn so_many_are_held_back_as_was_asked_for_and_no_others_change_places() {
    for seed in SEEDS {
        let impairment = Impairment {
            delay: ms(5),
            reorder: Reorder {
                chance: chance(0.05),
                extra: ms(3),
            },
            ..Impairment::default()
        };
        let (wire, fates) = run(impairment, seed, PACKETS, ms(1));
        let late = delays(&fates, ms(1))
            .iter()
            .filter(|took| **took > 0.0075)
            .count();
        let error = 5.0 * (0.05 * 0.95 / PACKETS as f64).sqrt();
        assert_near("held back", late as f64 / PACKETS as f64, 0.05, error);
        // A held packet is passed by the next two, unless those are held too.
        let expected = 0.05 * (1.0 - 0.05 * 0.05);
        let reordered = wire.counters().reordered as f64 / PACKETS as f64;
        assert_near("reordered", reordered, expected, error);
    }
}

#[test]
fn so_many_arrive_twice_as_was_asked_for() {
    for seed in SEEDS {
        let impairment = Impairment {
            duplicate: chance(0.03),
            ..Impairment::default()
        };
        let (wire, fates) = run(impairment, seed, PACKETS, ms(1));
        let twice = fates
            .iter()
            .filter(|fate| fate.deliveries().len() == 2)
            .count();
        let error = 5.0 * (0.03 * 0.97 / PACKETS as f64).sqrt();
        assert_near("twice", twice as f64 / PACKETS as f64, 0.03, error);
        assert_eq!(wire.counters().duplicated, twice as u64);
        assert_eq!(wire.counters().delivered, PACKETS as u64);
    }
}

#[test]
fn so_many_are_marked_as_was_asked_for() {
    let impairment = Impairment {
        mark_ce: chance(0.25),
        ..Impairment::default()
    };
    let (wire, fates) = run(impairment, 5, PACKETS, ms(1));
    let marked = fates
        .iter()
        .filter(|fate| fate.deliveries()[0].mark_ce)
        .count();
    let error = 5.0 * (0.25 * 0.75 / PACKETS as f64).sqrt();
    assert_near("marked", marked as f64 / PACKETS as f64, 0.25, error);
    assert_eq!(wire.counters().marked, marked as u64);
}

#[test]
fn an_mtu_hole_swallows_what_is_longer_and_nothing_else() {
    let impairment = Impairment {
        mtu: Some(1300),
        ..Impairment::default()
    };
    let mut wire = Wire::new(impairment, 1);
    assert!(matches!(wire.offer(1300, ms(0)), Fate::Once(_)));
    assert_eq!(wire.offer(1301, ms(0)), Fate::Dropped(DropReason::Mtu));
    assert_eq!(wire.counters().lost(DropReason::Mtu), 1);
}

#[test]
fn a_black_hole_swallows_everything_until_it_is_closed() {
    let hole = Impairment {
        blackhole: true,
        ..Impairment::default()
    };
    let mut wire = Wire::new(hole, 1);
    assert_eq!(wire.offer(64, ms(0)), Fate::Dropped(DropReason::Blackhole));
    wire.set(Impairment::default());
    assert!(matches!(wire.offer(64, ms(1)), Fate::Once(_)));
    assert_eq!(wire.impairment(), &Impairment::default());
}

#[test]
fn what_is_on_its_way_keeps_its_fate_and_its_place_when_the_delay_drops() {
    let slow = Impairment {
        delay: ms(300),
        ..Impairment::default()
    };
    let mut wire = Wire::new(slow, 1);
    wire.offer(64, ms(0));
    wire.set(Impairment::default());
    assert_eq!(wire.offer(64, ms(10)).deliveries()[0].at, ms(300));
    assert_eq!(wire.offer(64, ms(310)).deliveries()[0].at, ms(310));
}

#[test]
fn a_lower_rate_counts_what_waits_in_bytes_not_in_time() {
    let at = |bits| Impairment {
        rate: RateBps::new(bits),
        queue_bytes: Some(4_000),
        ..Impairment::default()
    };
    let mut wire = Wire::new(at(8_000), 1);
    for _ in 0..3 {
        wire.offer(LEN, ms(0));
    }
    wire.set(at(8_000_000));
    assert_eq!(wire.queued_bytes(), 3_000);
    assert_eq!(wire.offer(LEN, ms(1)).deliveries()[0].at, ms(3_001));
    assert_eq!(wire.offer(LEN, ms(1)), Fate::Dropped(DropReason::Queue));
}

#[test]
fn an_offer_from_the_past_counts_as_one_of_the_latest_time() {
    let mut wire = Wire::new(Impairment::default(), 1);
    wire.offer(64, ms(10));
    assert_eq!(wire.offer(64, ms(5)).deliveries()[0].at, ms(10));
}

fn everything_at_once() -> Impairment {
    Impairment {
        delay: ms(20),
        jitter: Jitter {
            amount: ms(15),
            shape: JitterShape::Exponential,
        },
        keep_order: false,
        loss: Loss::GilbertElliott(GilbertElliott::bursts(chance(0.05), 3.0).expect("a chain")),
        reorder: Reorder {
            chance: chance(0.1),
            extra: ms(7),
        },
        duplicate: chance(0.1),
        rate: RateBps::new(6_000_000),
        queue_bytes: Some(30_000),
        mtu: Some(1400),
        hole: None,
        blackhole: false,
        mark_ce: chance(0.1),
    }
}

#[test]
fn the_seed_determines_everything() {
    let outcome = |seed| run(everything_at_once(), seed, 10_000, ms(1));
    let (wire, fates) = outcome(42);
    let (again, fates_again) = outcome(42);
    assert_eq!(fates, fates_again);
    assert_eq!(wire.counters(), again.counters());
    let (_, other) = outcome(43);
    assert_ne!(fates, other);
}

#[test]
fn a_change_of_one_impairment_leaves_the_chances_of_the_others_alone() {
    let lossy = Impairment {
        loss: Loss::Random(chance(0.1)),
        ..Impairment::default()
    };
    let jittery = Impairment {
        jitter: Jitter {
            amount: ms(3),
            shape: JitterShape::Normal,
        },
        duplicate: chance(0.2),
        ..lossy
    };
    let lost = |impairment| {
        let (_, fates) = run(impairment, 9, 10_000, ms(1));
        fates
            .iter()
            .map(|fate| matches!(fate, Fate::Dropped(_)))
            .collect::<Vec<_>>()
    };
    assert_eq!(lost(lossy), lost(jittery));
}

proptest! {
    #[test]
    fn whatever_is_offered_the_books_balance_and_nothing_arrives_before_it_was_sent(
        seed: u64,
        offers in prop::collection::vec((0usize..70_000, 0u64..50), 1..300),
        keep_order: bool,
    ) {
        let impairment = Impairment { keep_order, ..everything_at_once() };
        let mut wire = Wire::new(impairment, seed);
        let (mut now, mut copies) = (Duration::ZERO, 0);
        for (len, wait) in offers {
            now += ms(wait);
            for delivery in wire.offer(len, now).deliveries() {
                prop_assert!(delivery.at >= now + ms(20));
                copies += 1;
            }
            prop_assert!(wire.queued_bytes() <= 70_000 + 30_000);
        }
        let counters: WireCounters = *wire.counters();
        prop_assert!(counters.is_balanced());
        prop_assert_eq!(copies, counters.delivered + counters.duplicated);
    }

    #[test]
    fn no_time_and_no_length_panics(
        seed: u64,
        offers in prop::collection::vec((any::<usize>(), any::<u64>()), 1..50),
        delay: u64,
        rate in 1u64..,
    ) {
        let impairment = Impairment {
            delay: Duration::from_secs(delay),
            rate: RateBps::new(rate),
            ..everything_at_once()
        };
        let mut wire = Wire::new(Impairment { mtu: None, ..impairment }, seed);
        for (len, at) in offers {
            wire.offer(len, Duration::from_secs(at));
        }
        prop_assert!(wire.counters().is_balanced());
    }
}

#[test]
fn a_hole_swallows_the_lengths_in_it_and_lets_shorter_and_longer_ones_pass() {
    let impairment = Impairment {
        hole: Some((900, 1100)),
        ..Impairment::default()
    };
    let mut wire = Wire::new(impairment, 1);
    for (len, passes) in [
        (172, true),
        (899, true),
        (900, false),
        (1100, false),
        (1101, true),
    ] {
        let fate = wire.offer(len, ms(0));
        assert_eq!(matches!(fate, Fate::Once(_)), passes, "{len}");
    }
    assert_eq!(wire.counters().lost(DropReason::Mtu), 2);
}
