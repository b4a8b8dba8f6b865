//! Failover between two gateways with two uplinks each, every fault a few times, and the parts of the bench on their
//! own. How long a gap is depends on the machine and is the bench's business; that traffic comes back whole is asserted
//! here.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use common::{check, one_of_three};
use patronus_lab::Stop;
use patronus_lab::failover::fault::Lasts;
use patronus_lab::failover::trial::Broken;
use patronus_lab::failover::twin::{Internet, Pair, QUEUE, Twin};
use patronus_lab::failover::{Bench, FailoverOptions, Fault, Stage, Trial};
use patronus_lab::progress::Progress;
use patronus_lab::traffic::NumberedFlow;
use patronus_lab::traffic::numbered::{Shape, now_ns};
use patronus_lab::traffic::record::{Record, Span};

const SHAPE: Shape = Shape {
    rate_pps: 1000.0,
    payload_bytes: 72,
    dscp: 46,
};
fn kernel(link_bits_per_s: u64) -> Internet {
    Internet::Kernel {
        link_bits_per_s,
        queue: QUEUE,
    }
}

const PAIR: Pair = Pair { one: 0, two: 0 };

/// Flows between the first uplinks of both sites, with no gateway: there, and back.
fn bare_flows(twin: &Twin) -> [NumberedFlow; 2] {
    let [one, two] = &twin.sites;
    let flow = |from: &_, to: &_, addr: std::net::Ipv4Addr| {
        NumberedFlow::start(from, to, addr.into(), SHAPE).unwrap()
    };
    [
        flow(&one.gateway, &two.gateway, two.uplink_addr(0)),
        flow(&two.gateway, &one.gateway, one.uplink_addr(0)),
    ]
}

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The kernel may take a second until a link that is up carries packets.
fn await_more(flow: &NumberedFlow) -> Result<(), String> {
    let before = flow.received();
    let has_come = (0..500).any(|_| {
        pause(10);
        flow.received() > before
    });
    check(has_come, &"no packet came in five seconds")
}

/// Records of both flows over a fault that lasts 300 ms, and when it lasted.
fn over(
    twin: &Twin,
    break_it: impl Fn(),
    mend_it: impl Fn(),
) -> Result<([Record; 2], Span), String> {
    let flows = bare_flows(twin);
    flows.iter().try_for_each(await_more)?;
    let begun_ns = now_ns();
    pause(300);
    let before_ns = now_ns();
    break_it();
    let from_ns = now_ns();
    pause(300);
    let to_ns = now_ns();
    mend_it();
    flows.iter().try_for_each(await_more)?;
    pause(300);
    let after_ns = now_ns();
    let records = flows.map(|flow| flow.finish().unwrap());
    for record in &records {
        let before = record.account(Span {
            from_ns: begun_ns,
            to_ns: before_ns - 5_000_000,
        });
        check(before.sent > 100 && before.lost == 0, &before)?;
        let after = record.account(Span {
            from_ns: after_ns - 50_000_000,
            to_ns: after_ns,
        });
        check(after.sent > 10 && after.lost == 0, &after)?;
    }
    Ok((records, Span { from_ns, to_ns }))
}

#[test]
fn a_cut_path_loses_all_packets_of_the_directions_it_is_cut_in_and_no_others() {
    if !common::can_run() {
        return;
    }
    let _cores = beside_others();
    let twin = Twin::build(kernel(200_000_000)).unwrap();
    for both in [true, false] {
        one_of_three(|| {
            let ([there, back], span) = over(
                &twin,
                || twin.cut(PAIR, both).unwrap(),
                || twin.mend(PAIR, both).unwrap(),
            )?;
            let there = there.account(span);
            check(there.sent > 100 && there.lost == there.sent, &there)?;
            let lost_back = back.account(span);
            let expected = if both { lost_back.sent } else { 0 };
            check(lost_back.lost == expected, &lost_back)?;
            let gap = back.gap(span).unwrap();
            let least_ns = if both { 250_000_000 } else { 0 };
            check(gap.is_over && gap.length_ns >= least_ns, &gap)
        });
    }
}

#[test]
fn nothing_arrives_over_an_uplink_without_a_carrier() {
    if !common::can_run() {
        return;
    }
    let _cores = beside_others();
    let twin = Twin::build(kernel(200_000_000)).unwrap();
    // The way there is not looked at: these senders are bound to no uplink, and the routes know another one.
    one_of_three(|| {
        let ([_, back], span) = over(
            &twin,
            || twin.set_carrier(0, false).unwrap(),
            || twin.set_carrier(0, true).unwrap(),
        )?;
        let account = back.account(span);
        assert_eq!(account.duplicated, 0);
        check(account.lost == account.sent, &account)
    });
}

#[test]
fn a_bottleneck_carries_its_rate_and_not_more() {
    if !common::can_run() {
        return;
    }
    let _cores = beside_others();
    let twin = Twin::build(kernel(8_000_000)).unwrap();
    let [one, two] = &twin.sites;
    // 2000 packets of 1250 bytes a second: two and a half times what the link carries.
    let shape = Shape {
        rate_pps: 2000.0,
        payload_bytes: 1222,
        dscp: 0,
    };
    one_of_three(|| {
        let addr = two.uplink_addr(1).into();
        let flow = NumberedFlow::start(&one.gateway, &two.gateway, addr, shape).unwrap();
        await_more(&flow)?;
        let begun_ns = now_ns();
        pause(1000);
        let record = flow.finish().unwrap();
        let account = record.account(Span {
            from_ns: begun_ns,
            to_ns: u64::MAX,
        });
        let share = account.lost as f64 / account.sent as f64;
        assert_eq!(account.reordered + account.duplicated, 0, "{account:?}");
        check((0.3..0.8).contains(&share), &account)
    });
}

/// Whoever fills the cores, or judges delays and single packets, has them for himself: side by side these tests would spoil
/// each other's trials.
static CORES: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    // Another test that failed is no reason to fail.
    CORES.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside_others() -> RwLockReadGuard<'static, ()> {
    CORES.read().unwrap_or_else(PoisonError::into_inner)
}

/// The program under test; `None` where tests of this kind cannot run.
fn binary() -> Option<PathBuf> {
    if !common::can_run() {
        return None;
    }
    common::patronus().map(|program| program.binary().to_owned())
}

fn options(binary: PathBuf, fault: Fault) -> FailoverOptions {
    FailoverOptions {
        faults: vec![fault],
        trials: 1,
        wave_seconds: 12,
        link_mbps: 100,
        parallel: 1,
        quick: false,
        events: false,
        binary,
    }
}

/// One trial of a fault. Whatever the machine does, nothing is delivered twice.
fn measure(fault: Fault, binary: PathBuf) -> Result<Trial, String> {
    let options = options(binary, fault);
    let (progress, stop) = (Progress::new(), Stop::new());
    let case = Bench::new(&options, &progress, &stop).measure(fault);
    let [trial] = &case.trials[..] else {
        return Err(format!("{fault} could not be measured: {:?}", case.failed));
    };
    for way in &trial.ways {
        assert_eq!(way.duplicated, 0, "{fault}: {trial:#?}");
    }
    Ok(trial.clone())
}

/// Traffic must come back whole, on a path without a fault, and what else the test wants.
fn survive(fault: Fault, is_good: impl Fn(&Trial) -> bool) {
    let Some(binary) = binary() else {
        return;
    };
    let is_delicate = matches!(fault, Fault::Brownout20 | Fault::LatencyStep | Fault::Drain);
    let _cores = (is_delicate.then(alone), (!is_delicate).then(beside_others));
    one_of_three(|| {
        let trial = measure(fault, binary.clone())?;
        let ways = trial.ways.iter();
        let is_back = ways.clone().all(|way| way.has_resumed && way.sent > 1000);
        check(
            is_back && trial.pair_after.is_some() && is_good(&trial),
            &trial,
        )
    });
}

/// As [`survive`], of a fault that the class's packets must have left for another path.
fn leave(fault: Fault, is_good: impl Fn(&Trial) -> bool) {
    survive(fault, |trial| {
        let has_left = trial.pair_after.as_ref() != Some(&trial.pair_before);
        has_left && trial.ways[0].switches >= 1 && is_good(trial)
    });
}

/// Both ends have to leave it, and go to the same one: nobody is led on from there (decision 7).
#[test]
fn traffic_leaves_a_dead_path_for_one_other_and_once() {
    leave(Fault::Blackhole, |trial| {
        trial.ways.iter().all(|way| way.switches == 1)
    });
}

#[test]
fn a_protected_class_leaves_a_dead_path_and_its_copies_are_never_delivered() {
    leave(Fault::Protect, |_| true);
}

#[test]
fn traffic_leaves_a_path_that_is_dead_one_way() {
    leave(Fault::OneWay, |_| true);
}

#[test]
fn traffic_leaves_an_uplink_without_a_carrier() {
    // For the other uplink of site 1.
    let uplink = |pair: &str| pair[..2].to_owned();
    leave(Fault::Carrier, |trial| {
        let after = trial.pair_after.as_deref().map(uplink);
        after != Some(uplink(&trial.pair_before))
    });
}

#[test]
fn a_realtime_class_leaves_a_path_that_loses_a_fifth_of_its_packets() {
    leave(Fault::Brownout20, |_| true);
}

#[test]
fn a_realtime_class_leaves_a_path_that_has_become_slow() {
    leave(Fault::LatencyStep, |_| true);
}

#[test]
fn a_drain_at_10_000_packets_per_second_loses_nothing_and_keeps_their_order() {
    leave(Fault::Drain, |trial| {
        trial
            .ways
            .iter()
            .all(|way| (way.lost, way.lost_before, way.reordered) == (0, 0, 0) && way.sent > 30_000)
    });
}

#[test]
fn a_gateway_that_was_killed_and_started_again_is_found_by_its_peer() {
    survive(Fault::PeerRestart, |trial| trial.after_ready_ns.is_some());
}

#[test]
fn tcp_survives_a_path_that_has_become_narrow() {
    survive(Fault::MtuHole, |trial| trial.size_noticed_ns.is_some());
}

#[test]
fn a_path_that_dies_again_and_again_is_left_once() {
    let fault = Fault::SquareWave(5, 5);
    let most = fault.switches_max().unwrap();
    survive(fault, |trial| {
        trial.ways.iter().all(|way| way.switches <= most)
    });
}

#[test]
fn busy_cores_are_no_reason_to_change_the_path() {
    let Some(binary) = binary() else {
        return;
    };
    let _cores = alone();
    one_of_three(|| {
        let trial = beside_burners(binary.clone())?;
        assert!(
            trial.ways.iter().all(|way| way.duplicated == 0),
            "{trial:#?}"
        );
        check(trial.ways.iter().all(|way| way.switches == 0), &trial)
    });
}

/// Five seconds in which nothing breaks, beside as many threads that burn as there are cores.
fn beside_burners(binary: PathBuf) -> Result<Trial, String> {
    let fault = Fault::Blackhole;
    let (progress, stop) = (Progress::new(), Stop::new());
    let options = options(binary, fault);
    let bench = Bench::new(&options, &progress, &stop);
    let mut stage = bench
        .stage(fault, 0)
        .map_err(|error| format!("{error:#}"))?;
    let cores = std::thread::available_parallelism().unwrap().get();
    let burning = Arc::new(AtomicBool::new(true));
    let burners: Vec<_> = (0..cores)
        .map(|_| {
            let burning = Arc::clone(&burning);
            std::thread::spawn(move || while burning.load(Ordering::Relaxed) {})
        })
        .collect();
    // Nothing breaks: whatever switches, switches for nothing.
    let nothing = |_: &mut Stage<'_>, _| Ok(Broken::default());
    let five = Duration::from_secs(5);
    let lasts = Lasts {
        least: five,
        most: five,
    };
    let trial = stage.trial(fault, lasts, nothing, |_, _| Ok(()));
    burning.store(false, Ordering::Relaxed);
    for burner in burners {
        burner.join().unwrap();
    }
    trial.map_err(|error| format!("{error:#}"))
}
