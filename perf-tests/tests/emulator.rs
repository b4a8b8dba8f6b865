//! The emulator between real namespaces: what it does to real packets, and what it does by itself.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use patronus_impair::{
    Direction, DropReason, Heading, Impairment, Loss, Probability, RateBps, Schedule,
};
use patronus_lab::emulator::{Link, PortId, PortSpec};
use patronus_lab::traffic::{BulkTcp, PingResult, Pinger, reach, verified_transfer};
use patronus_lab::{Emulator, Family, Lab, Namespace};

const REACH_MAX: Duration = Duration::from_secs(60);
const SEED: u64 = 0x1ab;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn delayed(milliseconds: u64) -> Impairment {
    Impairment {
        delay: ms(milliseconds),
        ..Impairment::default()
    }
}

fn hole() -> Impairment {
    Impairment {
        blackhole: true,
        ..Impairment::default()
    }
}

/// Two sites of two uplinks each; gateways are bare namespaces.
fn lab() -> Lab {
    Lab::emulated(&[2, 2], SEED).unwrap()
}

fn emulator(lab: &Lab) -> &Emulator {
    lab.emulator.as_ref().unwrap()
}

fn pair(lab: &Lab, a: u8, b: u8) -> Link {
    Link::Pair(lab.port(1, a).unwrap(), lab.port(2, b).unwrap())
}

fn far(lab: &Lab, uplink: u8, family: Family) -> IpAddr {
    lab.sites[1].uplink_addr(uplink, family)
}

/// Whether something comes true in time.
fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > REACH_MAX {
            return false;
        }
        std::thread::sleep(ms(1));
    }
    true
}

/// Whether the emulator gets to have read every frame that came: a frame lies unread for a moment, and the kernel sends
/// some of its own accord.
fn becomes_read(lab: &Lab) -> bool {
    comes_true(|| emulator(lab).unread().unwrap() == 0)
}

fn ping(from: &Namespace, to: IpAddr, interval: Duration, length: Duration) -> PingResult {
    let pinger = Pinger::start(from, to, interval).unwrap();
    std::thread::sleep(length);
    pinger.finish().unwrap()
}

#[test]
fn every_uplink_reaches_every_other_over_both_families() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    for (from, to) in [(0, 1), (1, 0)] {
        for uplink in [0, 1] {
            for family in [Family::V4, Family::V6] {
                let target = lab.sites[to].uplink_addr(uplink, family);
                reach(&lab.sites[from].gateway, target, REACH_MAX).unwrap();
            }
        }
    }
    // From the second uplink too: the socket is bound to its address and its interface's route.
    for (at, other) in [(0, 1), (1, 0)] {
        let source = SocketAddr::new(lab.sites[at].uplink_addr(1, Family::V4), 7000);
        let target = SocketAddr::new(lab.sites[other].uplink_addr(0, Family::V4), 7000);
        let receiver = lab.sites[other].gateway.run(|| UdpSocket::bind(target));
        let receiver = receiver.unwrap().unwrap();
        receiver.set_read_timeout(Some(REACH_MAX)).unwrap();
        let sent = lab.sites[at].gateway.run(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
            socket.bind_device(Some(b"wan1"))?;
            socket.bind(&source.into())?;
            socket.send_to(b"over the second", &target.into())
        });
        sent.unwrap().unwrap();
        let (_, from) = receiver.recv_from(&mut [0; 100]).unwrap();
        assert_eq!(from, source);
    }
    let frames = emulator(&lab).frames();
    assert_eq!(frames.refused + frames.overflow, 0, "{frames:?}");
    for (a, b) in [(0, 0), (0, 1), (1, 0)] {
        let link = pair(&lab, a, b);
        let counters = emulator(&lab).counters_of(link, Heading::AToB);
        assert!(counters.delivered > 0, "{link:?}: {counters:?}");
    }
}

#[test]
fn a_delay_is_never_undercut_and_its_error_is_told() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let target = far(&lab, 0, Family::V4);
    reach(&lab.sites[0].gateway, target, REACH_MAX).unwrap();
    let idle = ping(&lab.sites[0].gateway, target, ms(2), ms(400));
    let link = pair(&lab, 0, 0);
    emulator(&lab).set(link, Direction::AToB, delayed(20));
    emulator(&lab).set(link, Direction::BToA, delayed(10));
    emulator(&lab).reset_lateness();
    let mut result = ping(&lab.sites[0].gateway, target, ms(2), ms(1000));
    // A machine without time sends less.
    common::one_of_three(|| {
        assert!(result.rtt_us.min() >= 30_000, "{} µs", result.rtt_us.min());
        let is_enough = result.received > 100 && emulator(&lab).frames().late_us.len() > 200;
        if !is_enough {
            result = ping(&lab.sites[0].gateway, target, ms(2), ms(1000));
        }
        common::check(is_enough, &result.received)
    });
    let late = emulator(&lab).frames().late_us;
    println!(
        "round trip without delay: p50 {} µs, p99 {} µs; with 30 ms added: p50 {} µs, p99 {} µs; \
         frames left later than due by p50 {} µs, p99 {} µs, max {} µs",
        idle.rtt_us.value_at_quantile(0.5),
        idle.rtt_us.value_at_quantile(0.99),
        result.rtt_us.value_at_quantile(0.5),
        result.rtt_us.value_at_quantile(0.99),
        late.value_at_quantile(0.5),
        late.value_at_quantile(0.99),
        late.max()
    );
}

#[test]
fn tcp_arrives_whole_in_real_packets_and_no_superpacket() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let (a, b) = (&lab.sites[0].gateway, &lab.sites[1].gateway);
    for family in [Family::V4, Family::V6] {
        let target = far(&lab, 0, family);
        reach(a, target, REACH_MAX).unwrap();
        verified_transfer(a, b, target, 20_000_000, SEED, Duration::from_secs(60)).unwrap();
    }
    let counters = emulator(&lab).counters_of(pair(&lab, 0, 0), Heading::AToB);
    assert!(counters.delivered_bytes > 40_000_000);
    assert!(
        counters.delivered > 40_000_000 / 1500,
        "packets of {} bytes on average",
        counters.delivered_bytes / counters.delivered
    );
}

#[test]
fn the_rate_of_tcp_is_told_and_a_rate_limit_holds() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let (a, b) = (&lab.sites[0].gateway, &lab.sites[1].gateway);
    let target = far(&lab, 0, Family::V4);
    reach(a, target, REACH_MAX).unwrap();
    let bulk = |length: Duration| {
        let before = emulator(&lab).counters_of(Link::Access(PortId(2)), Heading::BToA);
        let bulk = BulkTcp::start(a, b, target, 1).unwrap();
        let begun = Instant::now();
        std::thread::sleep(length);
        let bytes = bulk.received_bytes();
        let seconds = begun.elapsed().as_secs_f64();
        bulk.finish().unwrap();
        let after = emulator(&lab).counters_of(Link::Access(PortId(2)), Heading::BToA);
        (
            bytes as f64 * 8e-6 / seconds,
            after.delivered - before.delivered,
        )
    };
    let (unlimited, _) = bulk(ms(1500));
    println!("TCP through the emulator, unlimited: {unlimited:.0} Mbit/s");
    let limit = Impairment {
        rate: RateBps::new(20_000_000),
        delay: ms(5),
        ..Impairment::default()
    };
    emulator(&lab).set(Link::Access(PortId(2)), Direction::BToA, limit);
    common::one_of_three(|| {
        let (limited, packets) = bulk(ms(1500));
        println!(
            "TCP through the emulator, limited to 20 Mbit/s: {limited:.1} Mbit/s in {packets} packets"
        );
        // From above only: what a busy machine carries at least, nobody knows. What the far end had not read when it was
        // looked at may count for the next time.
        common::check(limited <= 20.0 && packets > 100, &(limited, packets))
    });
}

#[test]
fn loss_is_what_was_asked_for_and_every_packet_is_accounted_for() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let (a, b) = (&lab.sites[0].gateway, &lab.sites[1].gateway);
    let target = SocketAddr::new(far(&lab, 1, Family::V4), 9000);
    reach(a, target.ip(), REACH_MAX).unwrap();
    let link = pair(&lab, 0, 1);
    let lossy = Impairment {
        loss: Loss::Random(Probability::new(0.2).unwrap()),
        ..Impairment::default()
    };
    // An echo request that was repeated may be on its way still, and would be counted.
    assert!(becomes_read(&lab), "frames lie unread");
    let wire = || emulator(&lab).counters_of(link, Heading::AToB);
    let before = wire();
    emulator(&lab).set(link, Direction::AToB, lossy);
    let receiver = b.run(|| UdpSocket::bind(target)).unwrap().unwrap();
    receiver.set_read_timeout(Some(REACH_MAX)).unwrap();
    let sender = a.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let mut received = 0;
    let mut buffer = [0; 2000];
    for burst in 0..100 {
        for _ in 0..20 {
            sender.send_to(&[burst; 100], target).unwrap();
        }
        // Each burst is waited for: no buffer on the way holds all of them, however late somebody reads.
        let offered = before.offered + 20 * (u64::from(burst) + 1);
        assert!(comes_true(|| wire().offered >= offered), "{:?}", wire());
        while received < wire().delivered - before.delivered {
            receiver.recv_from(&mut buffer).unwrap();
            received += 1;
        }
    }
    // Whatever else may be on the way, such as a question for a neighbour, is read, and no link's.
    assert!(becomes_read(&lab), "frames lie unread");
    receiver.set_nonblocking(true).unwrap();
    assert!(receiver.recv_from(&mut buffer).is_err(), "more came");
    assert_eq!(wire().offered - before.offered, 2000);
    assert_eq!(wire().lost(DropReason::Random), 2000 - received);
    // Five standard deviations; the seed decides, so this holds always or never.
    assert!(
        (received as f64 / 2000.0 - 0.8).abs() < 0.045,
        "{received} of 2000, seed {SEED:#x}"
    );
}

#[test]
fn a_fault_of_one_pair_or_one_direction_leaves_the_others_alone() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let a = &lab.sites[0].gateway;
    let [first, second] = [0, 1].map(|uplink| far(&lab, uplink, Family::V4));
    for target in [first, second] {
        reach(a, target, REACH_MAX).unwrap();
    }
    emulator(&lab).set(pair(&lab, 0, 0), Direction::BToA, hole());
    let lost = || {
        Heading::BOTH.map(|heading| {
            let wire = emulator(&lab).counters_of(pair(&lab, 0, 0), heading);
            wire.lost(DropReason::Blackhole)
        })
    };
    // An answer may be late, or be counted after the question: only what was lost there and what came is certain.
    common::one_of_three(|| {
        let before = lost();
        let dead = ping(a, first, ms(5), ms(200));
        let alive = ping(a, second, ms(5), ms(200));
        let after = lost();
        assert_eq!(
            (dead.received, after[0]),
            (0, 0),
            "the answers alone are lost"
        );
        let counted = after[1] - before[1];
        let is_whole = alive.lost() == 0 && counted == dead.sent;
        common::check(is_whole, &(alive.lost(), counted, dead.sent))
    });

    emulator(&lab).set(pair(&lab, 0, 0), Direction::Both, Impairment::default());
    emulator(&lab).set(
        Link::Access(lab.port(1, 0).unwrap()),
        Direction::Both,
        hole(),
    );
    for target in [first, second] {
        assert_eq!(
            ping(a, target, ms(5), ms(100)).received,
            0,
            "both leave over one uplink"
        );
    }
}

#[test]
fn an_mtu_hole_swallows_long_packets_without_a_word() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let (a, b) = (&lab.sites[0].gateway, &lab.sites[1].gateway);
    let target = SocketAddr::new(far(&lab, 0, Family::V4), 9000);
    reach(a, target.ip(), REACH_MAX).unwrap();
    let narrow = Impairment {
        mtu: Some(1300),
        ..Impairment::default()
    };
    emulator(&lab).set(pair(&lab, 0, 0), Direction::AToB, narrow);
    let receiver = b.run(|| UdpSocket::bind(target)).unwrap().unwrap();
    receiver.set_read_timeout(Some(REACH_MAX)).unwrap();
    let sender = a.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    // 1300 and 1301 bytes with the IPv4 and UDP headers.
    for len in [1273, 1272] {
        sender.send_to(&vec![1; len], target).unwrap();
    }
    let (len, _) = receiver.recv_from(&mut [0; 2000]).unwrap();
    assert_eq!(len, 1272);
    let wire = emulator(&lab).counters_of(pair(&lab, 0, 0), Heading::AToB);
    assert_eq!(wire.lost(DropReason::Mtu), 1);
}

#[test]
fn a_pulled_cable_takes_the_carrier_and_plugging_it_in_gives_it_back() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let a = &lab.sites[0].gateway;
    let target = far(&lab, 0, Family::V4);
    reach(a, target, REACH_MAX).unwrap();
    assert!(has_carrier(a, true));
    lab.set_carrier(1, 0, false).unwrap();
    assert!(has_carrier(a, false));
    lab.set_carrier(1, 0, true).unwrap();
    assert!(has_carrier(a, true));
    reach(a, target, REACH_MAX).unwrap();
}

/// Whether the first uplink gets to have a carrier, or none, within ten seconds.
fn has_carrier(namespace: &Namespace, wanted: bool) -> bool {
    (0..1000).any(|_| {
        std::thread::sleep(ms(10));
        let flags = namespace.run(|| {
            let mut all = nix::ifaddrs::getifaddrs().unwrap();
            all.find(|entry| entry.interface_name == "wan0")
                .unwrap()
                .flags
        });
        let lower_up = nix::net::if_::InterfaceFlags::IFF_LOWER_UP;
        flags.unwrap().contains(lower_up) == wanted
    })
}

#[test]
fn a_schedule_opens_and_closes_a_hole_by_itself() {
    if !common::can_run() {
        return;
    }
    let lab = lab();
    let a = &lab.sites[0].gateway;
    let target = far(&lab, 0, Family::V4);
    reach(a, target, REACH_MAX).unwrap();
    let text = "[[step]]\nat_s = 0.2\nfor_s = 0.2\nlink = \"fiber\"\nset = { blackhole = true }\n";
    let schedule = Schedule::parse(text, &["fiber"]).unwrap();
    let links = [("fiber".to_owned(), pair(&lab, 0, 0))];
    let wire = || emulator(&lab).counters_of(pair(&lab, 0, 0), Heading::AToB);
    let is_open = || {
        let impairment = emulator(&lab).impairment(pair(&lab, 0, 0), Heading::AToB);
        impairment == Impairment::default()
    };
    let mut result = PingResult::new();
    // A machine without time sends nothing while the hole is there.
    common::one_of_three(|| {
        let pinger = Pinger::start(a, target, ms(1)).unwrap();
        emulator(&lab).follow(schedule.clone(), &links);
        std::thread::sleep(ms(400));
        assert!(comes_true(is_open), "the hole stays");
        result = pinger.finish().unwrap();
        common::check(wire().lost(DropReason::Blackhole) > 0, &wire())
    });
    assert!(wire().delivered > 0, "{:?}", wire());
    let lost = wire().lost(DropReason::Blackhole);
    reach(a, target, REACH_MAX).unwrap();
    assert_eq!(wire().lost(DropReason::Blackhole), lost);
    println!("lost {} of {}", result.lost(), result.sent);
}

#[test]
fn an_emulator_without_its_interface_says_so() {
    if !common::can_run() {
        return;
    }
    let namespace = Namespace::new("empty").unwrap();
    let port = |name: &str| PortSpec {
        interface: name.to_owned(),
        prefixes: Vec::new(),
    };
    let error = Emulator::start(&namespace, vec![port("lo"), port("nowhere")], 1).unwrap_err();
    assert!(
        format!("{error:#}").contains("no interface nowhere"),
        "{error:#}"
    );
    let error = Emulator::start(&namespace, vec![port("lo")], 1).unwrap_err();
    assert!(format!("{error:#}").contains("2 to"), "{error:#}");
}
