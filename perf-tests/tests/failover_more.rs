//! Faults of `bench failover` that are cheap to try, and its labs side by side. That traffic comes back whole is asserted,
//! not how fast: see `failover.rs`.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use patronus_lab::Stop;
use patronus_lab::failover::{Bench, Case, FailoverOptions, Fault, Trial};
use patronus_lab::progress::Progress;

/// Trials of a fault; `None` where tests of this kind cannot run.
fn measured(fault: Fault, trials: usize, parallel: usize) -> Option<Case> {
    if !common::can_run() {
        return None;
    }
    let program = common::patronus()?;
    let options = FailoverOptions {
        faults: vec![fault],
        trials,
        wave_seconds: 12,
        link_mbps: 20,
        parallel,
        quick: false,
        events: false,
        binary: program.binary().to_owned(),
    };
    let (progress, stop) = (Progress::new(), Stop::new());
    Some(Bench::new(&options, &progress, &stop).measure(fault))
}

/// A machine that takes the cores away spoils trials, and now and then; what is broken fails every time.
fn one_of_three(measure: impl Fn() -> Option<Case>, is_good: impl Fn(&Case) -> bool) {
    let mut last = None;
    for _ in 0..3 {
        let Some(case) = measure() else {
            return;
        };
        if is_good(&case) {
            return;
        }
        last = Some(case);
    }
    panic!("{last:#?}");
}

#[test]
fn traffic_leaves_an_uplink_without_an_address_and_two_labs_side_by_side_are_apart() {
    // The first uplink of a pair is site 1's.
    let has_left = |trial: &Trial| {
        let after = trial.pair_after.as_deref();
        after.is_some_and(|after| after[..2] != trial.pair_before[..2])
    };
    let is_good = |case: &Case| {
        let lanes: Vec<usize> = case.trials.iter().map(|trial| trial.lane).collect();
        let is_whole = |trial: &Trial| {
            let mut ways = trial.ways.iter();
            ways.all(|way| way.has_resumed && way.duplicated == 0) && trial.strain.busy.is_some()
        };
        case.trials.len() == 2
            && lanes.contains(&0)
            && lanes.contains(&1)
            && case
                .trials
                .iter()
                .all(|trial| has_left(trial) && is_whole(trial))
    };
    one_of_three(|| measured(Fault::Address, 2, 2), is_good);
}

#[test]
fn a_path_that_lets_only_probes_pass_is_left() {
    let is_good = |case: &Case| {
        let [trial] = &case.trials[..] else {
            return false;
        };
        let mut ways = trial.ways.iter();
        trial.pair_after.as_ref() != Some(&trial.pair_before)
            && ways.all(|way| way.has_resumed && way.lost > 0)
    };
    one_of_three(|| measured(Fault::SizeDrop, 1, 1), is_good);
}
