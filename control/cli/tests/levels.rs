//! Every offload level carries everything, whatever runs on the other side; and many peers on two workers do.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::{Conf, Mesh, PATIENCE, Pair, can_run, until};
use nix::sys::signal::Signal;
use patronus_lab::Family;
use patronus_lab::traffic::{BulkTcp, UdpBlast, reach, verified_transfer};

const TRANSFER_BYTES: u64 = 4 << 20;
const TRANSFER_MAX: Duration = Duration::from_secs(60);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn with_level(conf: &mut Conf, level: &str) {
    conf.dataplane += &format!("offload = \"{level}\"\n");
}

/// A pair at two levels; both reports name their level, and everything arrives.
fn carries(level_one: &str, level_two: &str) {
    let first = Cell::new(true);
    let mut pair = Pair::up(|conf| {
        with_level(
            conf,
            if first.replace(false) {
                level_one
            } else {
                level_two
            },
        )
    });
    pair.reach();
    let (one, two) = pair.sites();
    for (from, to) in [(one, two), (two, one)] {
        for family in FAMILIES {
            let addr = to.host_addr(family);
            verified_transfer(&from.host, &to.host, addr, TRANSFER_BYTES, 5, TRANSFER_MAX).unwrap();
            let blast = UdpBlast::start(&from.host, &to.host, addr, 1300).unwrap();
            until("a hundred datagrams have come", || blast.received() > 100);
            blast.finish().unwrap();
        }
    }
    for (daemon, level) in [(&mut pair.one, level_one), (&mut pair.two, level_two)] {
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_end(PATIENCE).0.success());
        let report = daemon.read_report();
        let (name, backend, workers) = match level {
            "portable" => ("none", "portable", 1),
            "auto" => ("", "native", 2),
            other => (other, "native", 2),
        };
        assert!(
            report.offloads.contains(name),
            "{level}: {}",
            report.offloads
        );
        assert_eq!(report.workers, workers, "{level}");
        assert!(
            daemon.log().contains(&format!("backend=\"{backend}\"")),
            "{}",
            daemon.log()
        );
        assert!(
            !daemon.log().contains("refused"),
            "no demotion: {}",
            daemon.log()
        );
        println!("{level}: {}", report.offloads);
    }
}

#[test]
fn equal_levels_carry_pings_transfers_and_datagrams_intact() {
    if !can_run() {
        return;
    }
    for level in ["auto", "no-uso", "no-udp-gso", "none", "portable"] {
        carries(level, level);
    }
}

#[test]
fn unequal_levels_carry_pings_transfers_and_datagrams_intact() {
    if !can_run() {
        return;
    }
    for level in ["no-uso", "no-udp-gso", "none", "portable"] {
        carries("auto", level);
    }
}

#[test]
fn four_sites_on_two_workers_each_hand_packets_on_and_lose_no_account_of_them() {
    if !can_run() {
        return;
    }
    let mut mesh = Mesh::up(4, |_| {});
    let sites = &mesh.lab.sites;
    let pairs = || {
        sites
            .iter()
            .flat_map(|from| sites.iter().map(move |to| (from, to)))
    };
    let pairs: Vec<_> = pairs()
        .filter(|(from, to)| from.number != to.number)
        .collect();
    for (from, to) in &pairs {
        for family in FAMILIES {
            reach(&from.host, to.host_addr(family), PATIENCE).unwrap();
        }
    }
    let bulks: Vec<BulkTcp> = pairs
        .iter()
        .map(|(from, to)| {
            BulkTcp::start(&from.host, &to.host, to.host_addr(Family::V4), 4).unwrap()
        })
        .collect();
    // While all of them press, one transfer of each pair is looked at closely.
    for (from, to) in pairs.iter().filter(|(from, to)| from.number < to.number) {
        let addr = to.host_addr(Family::V6);
        verified_transfer(&from.host, &to.host, addr, TRANSFER_BYTES, 9, TRANSFER_MAX).unwrap();
    }
    for bulk in bulks {
        assert!(bulk.received_bytes() > 0);
        bulk.finish().unwrap();
    }
    let mut handed = 0;
    for daemon in &mut mesh.daemons {
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_end(PATIENCE).0.success());
        let report = daemon.read_report();
        assert_eq!(report.workers, 2);
        handed += daemon.read_raw_report()["packets"]["handed"]
            .as_u64()
            .unwrap();
        println!("{:?}", report.packets);
    }
    println!("handed on between workers: {handed}");
    assert!(handed > 0);
}
