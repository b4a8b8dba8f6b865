//! Faults of `bench failover` that are cheap to try, and its labs side by side. That traffic comes back whole is asserted,
//! not how fast: see `failover.rs`.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use patronus_lab::Stop;
use patronus_lab::failover::{Bench, Case, FailoverOptions, Fault};
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
    let case = Bench::new(&options, &progress, &stop).measure(fault);
    assert_eq!(case.trials.len(), trials, "{fault}: {:?}", case.failed);
    Some(case)
}

#[test]
fn traffic_leaves_an_uplink_without_an_address_and_two_labs_side_by_side_are_apart() {
    let Some(case) = measured(Fault::Address, 4, 2) else {
        return;
    };
    let lanes: Vec<usize> = case.trials.iter().map(|trial| trial.lane).collect();
    assert!(lanes.contains(&0) && lanes.contains(&1), "{lanes:?}");
    for trial in &case.trials {
        // The first uplink of a pair is site 1's.
        let uplink = |pair: &str| pair[..2].to_owned();
        let after = trial.pair_after.as_deref().map(uplink);
        assert_ne!(after, Some(uplink(&trial.pair_before)), "{trial:#?}");
        for way in &trial.ways {
            assert!(way.has_resumed && way.duplicated == 0, "{trial:#?}");
        }
        assert!(trial.strain.busy.is_some(), "{trial:#?}");
    }
}

#[test]
fn a_path_that_lets_only_probes_pass_is_left() {
    let Some(case) = measured(Fault::SizeDrop, 1, 1) else {
        return;
    };
    let trial = &case.trials[0];
    assert_ne!(
        trial.pair_after.as_ref(),
        Some(&trial.pair_before),
        "{trial:#?}"
    );
    for way in &trial.ways {
        assert!(way.has_resumed && way.lost > 0, "{trial:#?}");
    }
}
