//! The LAN program against the policy engine: its tables, its flow table, and the kernel where it may be asked.

// The random clusters that policy's own tests are made of.
#[path = "../../../../dataplane/policy/tests/support/mod.rs"]
mod support;

#[path = "lan_flows_tests.rs"]
mod flows;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use patronus_ebpf::Support;
use patronus_ebpf::lan::{LanFilter, LanLimits, LanOptions, LanReason, Twin};
use patronus_engine::{Policy, Refusal};
use patronus_policy::model::Connection;
use patronus_policy::{Compiler, PolicyTable, scale};

use super::{lan_tables, overflow_names};
use support::Cluster;
use support::dice::Dice;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn policy_of(table: Arc<PolicyTable>) -> Policy {
    Policy {
        table,
        keep_established: false,
        refusal: Refusal::Drop,
    }
}

/// The program, where it may be loaded; says so where not, and fails where that is not allowed.
fn kernel() -> Option<LanFilter> {
    if let Some(why) = Support::probe().refusal() {
        let required = std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS").is_some_and(|it| it == "1");
        assert!(!required, "this test must not be skipped here: {why}");
        println!("skipped in the kernel: {why}");
        return None;
    }
    let options = LanOptions {
        tell_interval: Duration::ZERO,
        ..LanOptions::default()
    };
    Some(LanFilter::load_for_trials(options).expect("the program loads"))
}

/// A packet of a connection: the first one of it, or one in its middle. Of protocols without openers both are alike.
fn packet(conn: &Connection, src_port: u16, opens: bool) -> Vec<u8> {
    let ports = [src_port.to_be_bytes(), conn.dst_port.to_be_bytes()].concat();
    let transport = match (conn.protocol, conn.src) {
        (6, _) => [
            &ports[..],
            &[0; 8],
            &[0x50, if opens { SYN } else { ACK }],
            &[0; 6],
        ]
        .concat(),
        (17, _) => [&ports[..], &[0, 8, 0, 0]].concat(),
        (132, _) => [&ports[..], &[0; 8], &[if opens { 1 } else { 0 }, 0, 0, 4]].concat(),
        (_, IpAddr::V4(_)) => vec![if opens { 8 } else { 0 }, 0, 0, 0, 0, 7, 0, 1],
        (_, IpAddr::V6(_)) => vec![if opens { 128 } else { 129 }, 0, 0, 0, 0, 7, 0, 1],
    };
    ip(conn.src, conn.dst, conn.protocol, &transport)
}

fn ip(src: IpAddr, dst: IpAddr, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let len = transport.len() as u16;
    let mut packet = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + len).to_be_bytes());
            packet.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
            packet.extend([src.octets(), dst.octets()].concat());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(len.to_be_bytes());
            packet.extend([if protocol == 1 { 58 } else { protocol }, 64]);
            packet.extend([src.octets(), dst.octets()].concat());
        }
        _ => panic!("two families"),
    }
    packet.extend(transport);
    packet
}

fn reversed(conn: &Connection, src_port: u16) -> Connection {
    Connection {
        src: conn.dst,
        dst: conn.src,
        dst_port: src_port,
        ..*conn
    }
}

fn one_family(conn: &Connection) -> bool {
    conn.src.is_ipv4() == conn.dst.is_ipv4()
}

/// Counts of what the tables deny, and of what of it the program drops.
#[derive(Debug, Default)]
struct Caught {
    denied: u64,
    dropped: u64,
    asked: u64,
}

#[test]
fn a_hundred_thousand_packets_are_dropped_only_where_policy_denies_them() {
    let mut kernel = kernel();
    let seed = 5;
    let mut dice = Dice(seed);
    let (mut openers, mut others) = (Caught::default(), Caught::default());
    let mut by_rule = BTreeMap::<u32, u64>::new();
    let mut packets = 0;
    while packets < 100_000 {
        let mut cluster = Cluster::default();
        for _ in 0..40 {
            cluster.apply(dice.change());
        }
        let policy = policy_of(Compiler::fresh(seed, cluster.changes()).table());
        let tables = lan_tables(&policy);
        let twin = Twin::new(&tables);
        if let Some(kernel) = &mut kernel {
            let overflow = kernel.publish(&tables).expect("published");
            assert!(overflow.is_empty(), "{overflow:?}");
        }
        for _ in 0..700 {
            let conn = dice.connection();
            let (src_port, opens) = (dice.port(), !dice.one_in(3));
            if !one_family(&conn) {
                continue;
            }
            packets += 1;
            let packet = packet(&conn, src_port, opens);
            let (reason, rule) = twin.fate(&packet);
            if let Some(kernel) = &kernel {
                let found = kernel.trial(&packet).expect("a trial");
                assert_eq!(found, reason, "seed {seed}: {conn:?} in {cluster:#?}");
            }
            let asked = Connection {
                dst_port: if conn.protocol == 1 { 0 } else { conn.dst_port },
                ..conn
            };
            let verdict = policy.table.judge(&asked);
            let is_opener = opens && conn.protocol != 17;
            let back = reversed(&asked, if conn.protocol == 1 { 0 } else { src_port });
            let is_denied = !verdict.allow && (is_opener || !policy.table.judge(&back).allow);
            let context = || format!("seed {seed}: {conn:?} from {src_port} in {cluster:#?}");
            match reason {
                LanReason::Denied => {
                    assert!(is_denied, "{}", context());
                    let number = verdict.rule.map_or(0, |it| it.number());
                    assert_eq!(rule, Some(number), "{}", context());
                    *by_rule.entry(number).or_default() += 1;
                }
                LanReason::Allowed => assert!(verdict.allow, "{}", context()),
                LanReason::Reply => assert!(!verdict.allow && !is_opener, "{}", context()),
                LanReason::Ask => {}
                other => panic!("{other:?}: {}", context()),
            }
            let caught = if is_opener { &mut openers } else { &mut others };
            caught.denied += u64::from(is_denied);
            caught.dropped += u64::from(reason == LanReason::Denied);
            caught.asked += u64::from(is_denied && reason == LanReason::Ask);
        }
    }
    println!("{packets} packets; openers {openers:?}; others {others:?}");
    for caught in [&openers, &others] {
        assert_eq!(caught.denied, caught.dropped + caught.asked, "{caught:?}");
        assert!(caught.dropped > packets / 100, "{caught:?}");
    }
    if let Some(kernel) = &kernel {
        let stats = kernel.stats().expect("stats");
        let found: BTreeMap<u32, u64> =
            stats.rules.iter().map(|it| (*it.0, it.1.packets)).collect();
        assert_eq!(found, by_rule);
    }
}

#[test]
fn in_a_plausible_cluster_nearly_every_denied_opener_is_caught() {
    const PODS: usize = 2_000;
    let policy = policy_of(Compiler::fresh(1, scale::cluster(200, PODS, 7)).table());
    let tables = lan_tables(&policy);
    let twin = Twin::new(&tables);
    let mut kernel = kernel();
    if let Some(kernel) = &mut kernel {
        assert!(kernel.publish(&tables).expect("published").is_empty());
    }
    let mut dice = Dice(6);
    let mut caught = Caught::default();
    for _ in 0..20_000 {
        let conn = Connection {
            src: scale::address(dice.below(PODS as u64) as usize),
            dst: scale::address(dice.below(PODS as u64) as usize),
            protocol: 6,
            dst_port: dice.pick(&[80, 443, 8080, 22]),
        };
        let packet = packet(&conn, 40_000, true);
        let (reason, _) = twin.fate(&packet);
        if let Some(kernel) = &kernel {
            assert_eq!(kernel.trial(&packet).expect("a trial"), reason, "{conn:?}");
        }
        let is_denied = !policy.table.judge(&conn).allow;
        assert!(reason != LanReason::Denied || is_denied, "{conn:?}");
        caught.denied += u64::from(is_denied);
        caught.dropped += u64::from(reason == LanReason::Denied);
        caught.asked += u64::from(is_denied && reason == LanReason::Ask);
    }
    println!("{caught:?}");
    assert!(caught.denied > 5_000, "{caught:?}");
    assert!(caught.dropped * 100 >= caught.denied * 90, "{caught:?}");
}

#[test]
fn who_finds_no_place_is_named() {
    let table = Compiler::fresh(1, scale::cluster(100, 300, 7)).table();
    let tables = lan_tables(&policy_of(table.clone()));
    let Some(_) = kernel() else {
        return;
    };
    let mut filter = LanFilter::load(LanOptions {
        limits_max: LanLimits {
            rows: 20,
            addr6: 8,
            ..LanLimits::MIN
        },
        ..LanOptions::default()
    })
    .expect("the program loads");
    let overflow = filter.publish(&tables).expect("published");
    assert!(!overflow.classes.is_empty() && !overflow.addresses.is_empty());
    let names = overflow_names(&table, &tables, &overflow);
    assert!(
        !names.is_empty() && names.iter().all(|it| it.starts_with("pod ")),
        "{names:?}"
    );
}

#[test]
fn what_else_decides_goes_with_the_tables() {
    let table = Compiler::fresh(1, scale::cluster(20, 30, 7)).table();
    let plain = lan_tables(&policy_of(table.clone()));
    assert!(!plain.keep_established && !plain.answers_denials);
    assert_eq!(plain.generation, table.generation());
    let other = lan_tables(&Policy {
        keep_established: true,
        refusal: Refusal::Reject,
        ..policy_of(table)
    });
    assert!(other.keep_established && other.answers_denials);
}

#[test]
#[ignore = "prints what the largest policy that we speak of takes; run it in release mode"]
fn ten_thousand_policies_and_a_hundred_thousand_pods() {
    let table = Compiler::fresh(1, scale::cluster(10_000, 100_000, 7)).table();
    let start = std::time::Instant::now();
    let tables = lan_tables(&policy_of(table));
    println!("as plain data: {:?}", start.elapsed());
    let limits = LanLimits::for_tables(&tables);
    println!(
        "{limits:?}: {} MB and {} kB per CPU",
        limits.bytes() >> 20,
        limits.counter_bytes() >> 10
    );
    let Some(mut kernel) = kernel() else {
        return;
    };
    for _ in 0..4 {
        let start = std::time::Instant::now();
        let overflow = kernel.publish(&tables).expect("published");
        println!("published: {:?}, {}", start.elapsed(), overflow.is_empty());
    }
    let mut dice = Dice(6);
    let mut times = BTreeMap::<LanReason, Vec<Duration>>::new();
    for _ in 0..3_000 {
        let conn = Connection {
            src: scale::address(dice.below(100_000) as usize),
            dst: scale::address(dice.below(100_000) as usize),
            protocol: 6,
            dst_port: dice.pick(&[80, 443, 8080, 22]),
        };
        let opens = !dice.one_in(2);
        let (reason, time) = kernel
            .trial_times(&packet(&conn, 40_000, opens), 1_000)
            .expect("a trial");
        times.entry(reason).or_default().push(time);
    }
    for (reason, mut all) in times {
        all.sort();
        println!(
            "{reason:?}: {} packets, median {:?}",
            all.len(),
            all[all.len() / 2]
        );
    }
}
