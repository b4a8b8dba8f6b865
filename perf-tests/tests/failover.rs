//! Failover between two gateways with two uplinks each, every fault a few times, and the parts of the bench on their
//! own. How long a gap is depends on the machine and is the bench's business; that traffic comes back whole is asserted
//! here.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::Duration;

use patronus_lab::failover::twin::{Pair, Twin};
use patronus_lab::traffic::NumberedFlow;
use patronus_lab::traffic::numbered::{Shape, now_ns};
use patronus_lab::traffic::record::{Record, Span};

const SHAPE: Shape = Shape {
    rate_pps: 1000.0,
    payload_bytes: 72,
    dscp: 46,
};
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

/// Records of both flows over a fault that lasts 300 ms, and when it lasted.
fn over(twin: &Twin, break_it: impl Fn(), mend_it: impl Fn()) -> ([Record; 2], Span) {
    let flows = bare_flows(twin);
    pause(300);
    let before_ns = now_ns();
    break_it();
    let from_ns = now_ns();
    pause(300);
    let to_ns = now_ns();
    mend_it();
    pause(300);
    let after_ns = now_ns();
    let records = flows.map(|flow| flow.finish().unwrap());
    for record in &records {
        let before = record.account(Span {
            from_ns: 0,
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
    let twin = Twin::build(200_000_000).unwrap();
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
    let twin = Twin::build(200_000_000).unwrap();
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
    let twin = Twin::build(8_000_000).unwrap();
    let [one, two] = &twin.sites;
    // 1000 packets of 1250 bytes a second, twice what the link carries.
    let shape = Shape {
        rate_pps: 2000.0,
        payload_bytes: 1222,
        dscp: 0,
    };
    let addr = two.uplink_addr(1).into();
    let flow = NumberedFlow::start(&one.gateway, &two.gateway, addr, shape).unwrap();
    pause(1000);
    let record = flow.finish().unwrap();
    let account = record.account(Span {
        from_ns: 0,
        to_ns: u64::MAX,
    });
    let share = account.lost as f64 / account.sent as f64;
    assert!((0.3..0.8).contains(&share), "{account:?}");
    assert_eq!(account.reordered + account.duplicated, 0, "{account:?}");
}
