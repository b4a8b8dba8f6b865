//! Brownouts: how soon loss, latency and jitter move a class, and what does not.

mod common;

use common::{BULK, DEFAULT, INTERACTIVE, Link, REALTIME, Sim, percentile};
use patronus_path::record::Cause;
use patronus_path::{ClassConfig, ClassId};

const SEEDS: u64 = 200;

/// Times from a fault on the path in use until the class has left it, in seconds, sorted by seed.
fn delays(class: ClassId, fault: impl Fn(&mut Link)) -> Vec<f64> {
    let delays = (0..SEEDS).map(|seed| {
        let links = vec![Link::new(20.0), Link::new(30.0)];
        let mut sim = Sim::new(ClassConfig::defaults(), links, seed);
        sim.run(30.0 + seed as f64 / SEEDS as f64);
        assert_eq!(sim.path(class), Some(0), "seed {seed}");
        let start = sim.now;
        fault(&mut sim.links[0]);
        sim.run(30.0);
        let switches = sim.switches(class, start);
        let first = switches
            .first()
            .unwrap_or_else(|| panic!("seed {seed}: no move"));
        assert_eq!(first.cause, Cause::Sla, "seed {seed}");
        assert_eq!(switches.len(), 1, "seed {seed}: {switches:?}");
        first.at.since(start).as_secs_f64()
    });
    delays.collect()
}

#[test]
fn twenty_percent_of_loss_moves_realtime_within_two_and_a_half_seconds() {
    let mut delays = delays(REALTIME, |link| link.loss = [0.2, 0.2]);
    let p95_s = percentile(&mut delays, 0.95);
    assert!(p95_s <= 2.5, "p95 {p95_s} s");
}

#[test]
fn three_hundred_milliseconds_more_move_realtime_within_one_and_a_half_seconds() {
    let mut delays = delays(REALTIME, |link| link.rtt_ms += 300.0);
    let p95_s = percentile(&mut delays, 0.95);
    assert!(p95_s <= 1.5, "p95 {p95_s} s");
}

#[test]
fn sixty_milliseconds_of_jitter_move_realtime_within_one_and_a_half_seconds() {
    let mut delays = delays(REALTIME, |link| link.jitter_ms += 60.0);
    let p95_s = percentile(&mut delays, 0.95);
    assert!(p95_s <= 1.5, "p95 {p95_s} s");
}

/// An hour of the same random loss on two links.
fn an_hour_of_loss(make: fn(Vec<ClassConfig>, Vec<Link>, u64) -> Sim, loss: f64, seed: u64) {
    let links = vec![Link::new(20.0).lossy(loss), Link::new(20.0).lossy(loss)];
    let mut sim = make(ClassConfig::defaults(), links, seed);
    sim.run(10.0);
    let start = sim.now;
    for _ in 0..3600 {
        sim.run(1.0);
        for class in [REALTIME, DEFAULT] {
            let violated = sim.violated(class);
            assert!(
                violated.is_empty(),
                "seed {seed}, {loss}, {:?}: {class:?}",
                sim.now
            );
        }
    }
    for class in [REALTIME, INTERACTIVE, DEFAULT, BULK] {
        let switches = sim.switches(class, start);
        assert!(switches.is_empty(), "seed {seed}, {loss}: {switches:?}");
    }
}

#[test]
fn two_percent_of_loss_on_both_paths_for_an_hour_moves_nobody() {
    for seed in 0..2 {
        an_hour_of_loss(Sim::new, 0.02, seed);
        an_hour_of_loss(Sim::equal, 0.02, seed);
    }
}

#[test]
fn little_loss_on_two_equal_paths_for_an_hour_moves_nobody() {
    for seed in 0..2 {
        an_hour_of_loss(Sim::equal, 0.002, seed);
    }
}
