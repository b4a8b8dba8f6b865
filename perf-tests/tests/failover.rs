//! Failover between two gateways with two uplinks each, every fault a few times, and the parts of the bench on their
//! own. How long a gap is depends on the machine and is the bench's business; that traffic comes back whole is asserted
//! here.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
fn await_more(flow: &NumberedFlow) {
    let before = flow.received();
    let has_come = (0..500).any(|_| {
        pause(10);
        flow.received() > before
    });
    assert!(has_come, "no packet came in five seconds");
}

/// Records of both flows over a fault that lasts 300 ms, and when it lasted.
fn over(twin: &Twin, break_it: impl Fn(), mend_it: impl Fn()) -> ([Record; 2], Span) {
    let flows = bare_flows(twin);
    flows.iter().for_each(await_more);
    let begun_ns = now_ns();
    pause(300);
    let before_ns = now_ns();
    break_it();
    let from_ns = now_ns();
    pause(300);
    let to_ns = now_ns();
    mend_it();
    flows.iter().for_each(await_more);
    pause(300);
    let after_ns = now_ns();
    let records = flows.map(|flow| flow.finish().unwrap());
    for record in &records {
        let before = record.account(Span {
            from_ns: begun_ns,
            to_ns: before_ns - 5_000_000,
        });
        assert!(before.sent > 100 && before.lost == 0, "{before:?}");
        let after = record.account(Span {
            from_ns: after_ns - 50_000_000,
            to_ns: after_ns,
        });
        assert!(after.sent > 10 && after.lost == 0, "{after:?}");
    }
    (records, Span { from_ns, to_ns })
}

#[test]
fn a_cut_path_loses_all_packets_of_the_directions_it_is_cut_in_and_no_others() {
    if !common::can_run() {
        return;
    }
    let twin = Twin::build(kernel(200_000_000)).unwrap();
    for both in [true, false] {
        let ([there, back], span) = over(
            &twin,
            || twin.cut(PAIR, both).unwrap(),
            || twin.mend(PAIR, both).unwrap(),
        );
        let there = there.account(span);
        assert!(there.sent > 100 && there.lost == there.sent, "{there:?}");
        let lost_back = back.account(span);
        let expected = if both { lost_back.sent } else { 0 };
        assert_eq!(lost_back.lost, expected, "{lost_back:?}");
        let gap = back.gap(span).unwrap();
        assert!(
            gap.is_over && gap.length_ns >= if both { 250_000_000 } else { 0 },
            "{gap:?}"
        );
    }
}

#[test]
fn nothing_arrives_over_an_uplink_without_a_carrier() {
    if !common::can_run() {
        return;
    }
    let twin = Twin::build(kernel(200_000_000)).unwrap();
    // The way there is not looked at: these senders are bound to no uplink, and the routes know another one.
    let ([_, back], span) = over(
        &twin,
        || twin.set_carrier(0, false).unwrap(),
        || twin.set_carrier(0, true).unwrap(),
    );
    let account = back.account(span);
    assert_eq!(account.lost, account.sent, "{account:?}");
    assert_eq!(account.duplicated, 0);
}

#[test]
fn a_bottleneck_carries_its_rate_and_not_more() {
    if !common::can_run() {
        return;
    }
    let twin = Twin::build(kernel(8_000_000)).unwrap();
    let [one, two] = &twin.sites;
    // 2000 packets of 1250 bytes a second: two and a half times what the link carries.
    let shape = Shape {
        rate_pps: 2000.0,
        payload_bytes: 1222,
        dscp: 0,
    };
    let addr = two.uplink_addr(1).into();
    let flow = NumberedFlow::start(&one.gateway, &two.gateway, addr, shape).unwrap();
    await_more(&flow);
    let begun_ns = now_ns();
    pause(1000);
    let record = flow.finish().unwrap();
    let account = record.account(Span {
        from_ns: begun_ns,
        to_ns: u64::MAX,
    });
    let share = account.lost as f64 / account.sent as f64;
    assert!((0.3..0.8).contains(&share), "{account:?}");
    assert_eq!(account.reordered + account.duplicated, 0, "{account:?}");
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

/// One trial of a fault in which traffic must come back whole: nothing twice, and on a path without a fault.
fn survive(fault: Fault) -> Option<Trial> {
    let options = options(binary()?, fault);
    let (progress, stop) = (Progress::new(), Stop::new());
    let case = Bench::new(&options, &progress, &stop).measure(fault);
    let [trial] = &case.trials[..] else {
        panic!("{fault} could not be measured: {:?}", case.failed);
    };
    for way in &trial.ways {
        assert!(way.has_resumed, "{fault}: {trial:#?}");
        assert_eq!(way.duplicated, 0, "{fault}: {trial:#?}");
        assert!(way.sent > 1000, "{fault}: {trial:#?}");
    }
    assert!(trial.pair_after.is_some(), "{fault}: {trial:#?}");
    Some(trial.clone())
}

/// As [`survive`], of a fault that the class's packets must have left for another path.
fn leave(fault: Fault) -> Option<Trial> {
    let trial = survive(fault)?;
    assert_ne!(
        trial.pair_after.as_ref(),
        Some(&trial.pair_before),
        "{fault}: {trial:#?}"
    );
    assert!(trial.ways[0].switches >= 1, "{fault}: {trial:#?}");
    Some(trial)
}

#[test]
fn traffic_leaves_a_dead_path() {
    leave(Fault::Blackhole);
}

#[test]
fn a_protected_class_leaves_a_dead_path_and_its_copies_are_never_delivered() {
    leave(Fault::Protect);
}

#[test]
fn traffic_leaves_a_path_that_is_dead_one_way() {
    leave(Fault::OneWay);
}

#[test]
fn traffic_leaves_an_uplink_without_a_carrier() {
    let Some(trial) = leave(Fault::Carrier) else {
        return;
    };
    // The other uplink of site 1.
    let uplink = |pair: &str| pair[..2].to_owned();
    let after = trial.pair_after.as_deref().map(uplink);
    assert_ne!(after, Some(uplink(&trial.pair_before)), "{trial:#?}");
}

#[test]
fn a_realtime_class_leaves_a_path_that_loses_a_fifth_of_its_packets() {
    leave(Fault::Brownout20);
}

#[test]
fn a_realtime_class_leaves_a_path_that_has_become_slow() {
    leave(Fault::LatencyStep);
}

#[test]
fn a_drain_at_10_000_packets_per_second_loses_nothing_and_keeps_their_order() {
    let is_clean = |trial: &Trial| {
        trial
            .ways
            .iter()
            .all(|way| (way.lost, way.lost_before, way.reordered) == (0, 0, 0) && way.sent > 30_000)
    };
    one_of_three(|| leave(Fault::Drain), is_clean);
}

/// A machine that takes the cores away loses packets too, and now and then; what is broken fails every time.
fn one_of_three(trial: impl Fn() -> Option<Trial>, is_good: impl Fn(&Trial) -> bool) {
    let mut last = None;
    for _ in 0..3 {
        let Some(trial) = trial() else {
            return;
        };
        if is_good(&trial) {
            return;
        }
        last = Some(trial);
    }
    panic!("{last:#?}");
}

#[test]
fn a_gateway_that_was_killed_and_started_again_is_found_by_its_peer() {
    let Some(trial) = survive(Fault::PeerRestart) else {
        return;
    };
    assert!(trial.after_ready_ns.is_some(), "{trial:#?}");
}

#[test]
fn tcp_survives_a_path_that_has_become_narrow() {
    let Some(trial) = survive(Fault::MtuHole) else {
        return;
    };
    assert!(trial.size_noticed_ns.is_some(), "{trial:#?}");
}

#[test]
fn a_path_that_dies_again_and_again_is_left_once() {
    let fault = Fault::SquareWave(5, 5);
    let Some(trial) = survive(fault) else {
        return;
    };
    for way in &trial.ways {
        assert!(way.switches <= fault.switches_max().unwrap(), "{trial:#?}");
    }
}

#[test]
fn busy_cores_are_no_reason_to_change_the_path() {
    one_of_three(beside_burners, |trial| {
        trial
            .ways
            .iter()
            .all(|way| way.switches == 0 && way.duplicated == 0)
    });
}

/// Five seconds in which nothing breaks, beside as many threads that burn as there are cores.
fn beside_burners() -> Option<Trial> {
    let binary = binary()?;
    let fault = Fault::Blackhole;
    let (progress, stop) = (Progress::new(), Stop::new());
    let options = options(binary, fault);
    let bench = Bench::new(&options, &progress, &stop);
    let mut stage = bench.stage(fault, 0).unwrap();
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
    Some(trial.unwrap())
}
