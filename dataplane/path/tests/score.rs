//! Scores: the design's examples, and what holds of every score.

use patronus_path::class::{Bounds, Sample, r_factor};
use patronus_path::{ClassConfig, PathMetrics, Scoring};
use proptest::prelude::*;

fn sample(rtt_ms: f64, jitter_ms: f64, loss_pct: f64) -> Sample {
    Sample {
        rtt_ms: Some(rtt_ms),
        jitter_ms: Some(jitter_ms),
        loss_pct: Some(loss_pct),
        free_bps: None,
    }
}

#[test]
fn voice_is_rated_as_the_design_says() {
    for (rtt_ms, jitter_ms, loss_pct, rating) in [
        (20.0, 2.0, 0.0, 92.0),
        (150.0, 20.0, 1.0, 86.0),
        (300.0, 30.0, 2.0, 75.0),
        (50.0, 5.0, 5.0, 76.0),
        (50.0, 5.0, 20.0, 50.0),
    ] {
        let sample = sample(rtt_ms, jitter_ms, loss_pct);
        assert_eq!(r_factor(&sample).round(), rating, "{sample:?}");
        let score = ClassConfig::defaults()[0].score(&sample).score;
        assert!((score - r_factor(&sample) / 0.932).abs() < 1e-9, "{score}");
    }
}

#[test]
fn weighted_utilities_multiply_to_the_score() {
    let interactive = &ClassConfig::defaults()[1];
    // Half way between the bounds of each metric.
    let middle = interactive.score(&sample(400.0, 80.0, 4.5));
    assert_eq!(middle.utilities, [0.5, 0.5, 0.5]);
    assert!((middle.score - 50.0).abs() < 1e-9, "{middle:?}");
    // 100 · 0.5^0.5
    let slow = interactive.score(&sample(400.0, 1.0, 0.0));
    assert!(
        (slow.score - 70.710_678_118_654_76).abs() < 1e-9,
        "{slow:?}"
    );
    // 100 · 0.25^0.3
    let lossy = interactive.score(&sample(1.0, 1.0, 6.25));
    assert_eq!(lossy.utilities, [1.0, 1.0, 0.25]);
    assert!(
        (lossy.score - 65.975_395_538_644_7).abs() < 1e-9,
        "{lossy:?}"
    );
    assert_eq!(interactive.score(&sample(600.0, 1.0, 0.0)).score, 0.0);
    assert_eq!(interactive.score(&Sample::default()).score, 100.0);
}

#[test]
fn bulk_is_scored_by_what_a_flow_can_carry() {
    let bulk = ClassConfig::defaults().remove(3);
    let with = |free_bps, loss_pct| {
        let sample = Sample {
            free_bps,
            ..sample(20.0, 1.0, loss_pct)
        };
        bulk.score(&sample).score
    };
    assert_eq!(with(None, 0.0), 100.0);
    assert_eq!(with(Some(25e6), 0.0), 25.0);
    // 1.22 · 11 200 bit / (20 ms · 0.1) = 6.832 Mbit/s of 100.
    assert!((with(Some(25e6), 1.0) - 6.832).abs() < 1e-9);
}

#[test]
fn the_default_classes_are_those_of_the_design() {
    let classes = ClassConfig::defaults();
    let pair = |bounds: Option<Bounds>| bounds.map(|bounds| (bounds.soft, bounds.hard));
    let table: Vec<_> = classes
        .iter()
        .map(|class| {
            let pairs = [class.latency_ms, class.jitter_ms, class.loss_pct];
            (class.name.as_str(), pairs.map(pair))
        })
        .collect();
    let some = |soft, hard| Some((soft, hard));
    assert_eq!(
        table,
        [
            (
                "realtime",
                [some(150.0, 400.0), some(20.0, 60.0), some(1.0, 5.0)]
            ),
            (
                "interactive",
                [some(200.0, 600.0), some(40.0, 120.0), some(1.0, 8.0)]
            ),
            (
                "default",
                [some(300.0, 1000.0), some(80.0, 200.0), some(2.0, 15.0)]
            ),
            ("bulk", [None, None, some(3.0, 20.0)]),
        ]
    );
    for class in &classes {
        assert_eq!(class.check(), Ok(()));
    }
}

#[test]
fn a_class_that_makes_no_sense_is_refused_by_name() {
    let refused = |change: fn(&mut ClassConfig)| {
        let mut class = ClassConfig::defaults().remove(1);
        change(&mut class);
        class.check().expect_err("it makes no sense").to_string()
    };
    let told = refused(|class| class.name.clear());
    assert!(told.contains("class.name is empty"), "{told}");
    let told = refused(|class| {
        class.loss_pct = Some(Bounds {
            soft: 5.0,
            hard: 1.0,
        })
    });
    assert!(told.contains("class.interactive.loss_pct = 5,1"), "{told}");
    let told = refused(|class| {
        class.scoring = Scoring::Weighted {
            latency: 0.5,
            jitter: 0.5,
            loss: 0.5,
        };
    });
    assert!(
        told.contains("class.interactive.weights add up to 1.5"),
        "{told}"
    );
    let told = refused(|class| {
        class.scoring = Scoring::Throughput {
            target_bps: f64::NAN,
        }
    });
    assert!(told.contains("target_bps"), "{told}");
}

#[test]
fn the_worse_direction_counts() {
    let mut metrics = PathMetrics {
        rtt_fast_ns: Some(20e6),
        tx_jitter_ns: Some(1e6),
        rx_jitter_ns: Some(3e6),
        rx_data_loss: Some(0.04),
        tx_bps: 30e6,
        ..PathMetrics::default()
    };
    metrics.tx_loss.ten_s = Some(0.02);
    let sample = Sample::of(&metrics, Some(100e6), 10e6);
    assert_eq!(sample.rtt_ms, Some(20.0));
    assert_eq!(sample.jitter_ms, Some(3.0));
    assert_eq!(sample.loss_pct, Some(4.0));
    assert_eq!(sample.free_bps, Some(80e6));
}

proptest! {
    #[test]
    fn a_score_is_from_0_to_100_and_never_rises_with_what_is_bad(
        rtt_ms in 0.0..2000.0f64,
        jitter_ms in 0.0..500.0f64,
        loss_pct in 0.0..100.0f64,
        more in 0.0..100.0f64,
    ) {
        for class in ClassConfig::defaults() {
            let good = class.score(&sample(rtt_ms, jitter_ms, loss_pct)).score;
            prop_assert!((0.0..=100.0).contains(&good));
            for worse in [
                sample(rtt_ms + more, jitter_ms, loss_pct),
                sample(rtt_ms, jitter_ms + more, loss_pct),
                sample(rtt_ms, jitter_ms, (loss_pct + more).min(100.0)),
            ] {
                let bad = class.score(&worse).score;
                prop_assert!(bad <= good + 1e-9, "{}: {good} then {bad}", class.name);
            }
        }
    }
}
