//! A site whose uplink runs by AF_XDP, with a site that runs by UDP sockets: everything passes, and both ways by AF_XDP.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::{Conf, Pair, can_run, skip};
use patronus_lab::Family;
use patronus_lab::traffic::verified_transfer;

const BYTES: u64 = 4 << 20;
const SEED: u64 = 9;

fn by_af_xdp(conf: &mut Conf) {
    if conf.addresses[0].starts_with("10.255.0.1/") {
        conf.uplink = "interface = \"wan0\"\nio = \"af-xdp\"\n".to_owned();
    }
}

/// The sum of a field over the lines of a log that hold `line`.
fn sum_of(log: &str, line: &str, field: &str) -> u64 {
    let field = format!("{field}=");
    let lines = log.lines().filter(|text| text.contains(line));
    let values = lines.filter_map(|text| {
        let value = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix(&field))?;
        value.parse::<u64>().ok()
    });
    values.sum()
}

#[test]
fn one_side_by_af_xdp_carries_pings_and_tcp_and_a_moved_port_follows() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::up(by_af_xdp);
    let log = pair.one.log();
    if log.contains("no AF_XDP") && log.contains("CAP_") {
        skip("no CAP_BPF, CAP_PERFMON or CAP_NET_RAW");
        return;
    }
    pair.one.wait_for("AF_XDP runs");
    pair.reach();
    let transfer = |pair: &Pair| {
        let (one, two) = pair.sites();
        for (from, to) in [(one, two), (two, one)] {
            for family in [Family::V4, Family::V6] {
                let addr = to.host_addr(family);
                let max = 3 * common::PATIENCE;
                verified_transfer(&from.host, &to.host, addr, BYTES, SEED, max).unwrap();
            }
        }
    };
    transfer(&pair);
    // Once a second control asks for the way to the peer; until it has it, the UDP socket sends.
    std::thread::sleep(std::time::Duration::from_secs(2));
    transfer(&pair);
    let told = || {
        let mut command = common::patronus();
        let told = common::output_of(&pair.place_one.namespace, command.arg("metrics"));
        String::from_utf8(told.stdout).unwrap()
    };
    common::until("metrics tell of the frames", || {
        let text = told();
        let mut lines = text.lines();
        let frames = lines.find(|line| {
            line.starts_with("patronus_af_xdp_frames_total{") && line.contains("way=\"redirected\"")
        });
        let count = frames.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        count.is_some_and(|count| count > 1000)
    });
    let text = told();
    for reason in ["ring_full", "no_chunk", "other"] {
        let series = format!("reason=\"{reason}\"");
        let mut lines = text.lines();
        let is_told = lines.any(|line| {
            line.starts_with("patronus_af_xdp_dropped_frames_total{") && line.contains(&series)
        });
        assert!(is_told, "{reason}: {text}");
    }
    pair.one.wg_set(&["listen-port", "51999"]);
    pair.one.wait_for("listening port=51999");
    pair.reach();
    transfer(&pair);

    pair.one.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, _) = pair.one.wait_end(common::PATIENCE);
    assert!(status.success());
    pair.one.read_report();
    let log = pair.one.log();
    let rings = |field| sum_of(&log, "AF_XDP worker=", field);
    assert!(rings("received") > 1000, "{log}");
    assert!(rings("sent") > 1000, "{log}");
    assert_eq!(rings("foreign") + rings("corrupt"), 0, "{log}");
    assert!(
        sum_of(&log, "AF_XDP program", "redirected") >= rings("received"),
        "{log}"
    );
    pair.two.stop();
}

#[test]
fn an_uplink_that_cannot_have_af_xdp_says_so_and_works() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::up(|conf| {
        if conf.addresses[0].starts_with("10.255.0.1/") {
            // A tunnel device has no Ethernet headers; nor does the loopback have a driver for XDP.
            conf.uplink =
                "interface = \"wan0\"\nio = \"af-xdp\"\n\n[[uplink]]\nname = \"lo\"\ninterface = \"lo\"\n\
                 io = \"af-xdp\"\ncost = 100\n"
                    .to_owned();
        }
    });
    pair.one
        .wait_for("no AF_XDP, UDP sockets carry everything: ");
    pair.reach();
    pair.one.stop();
}
