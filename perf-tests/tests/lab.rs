//! The lab itself: namespaces, links, pings, and foreign daemons brought up by it.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::Duration;

use patronus_lab::mesh::{Conduct, Direction, Rtt};
use patronus_lab::progress::Progress;
use patronus_lab::traffic::{BulkTcp, Pinger, UdpBlast, reach, verified_transfer};
use patronus_lab::{Family, Gateway, Lab, Mesh, Namespace, Stop, link};

const REACH_MAX: Duration = Duration::from_secs(60);

fn two_joined() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
    let end = |namespace| link::End {
        namespace,
        name: "eth0",
    };
    link::connect(end(&a), end(&b)).unwrap();
    for (namespace, last) in [(&a, 1), (&b, 2)] {
        let addresses = [
            format!("10.0.0.{last}/24").parse().unwrap(),
            format!("fd00::{last}/64").parse().unwrap(),
        ];
        let setup = link::Setup {
            addresses: &addresses,
            ..Default::default()
        };
        link::configure(namespace, "eth0", setup).unwrap();
    }
    (a, b)
}

#[test]
fn two_namespaces_ping_each_other_over_both_families_without_loss() {
    if !common::can_run() {
        return;
    }
    let (a, _b) = two_joined();
    for target in ["10.0.0.2", "fd00::2"] {
        let target = target.parse().unwrap();
        reach(&a, target, REACH_MAX).unwrap();

        common::one_of_three(|| {
            let pinger = Pinger::start(&a, target, Duration::from_millis(5)).unwrap();
            std::thread::sleep(Duration::from_millis(200));
            let result = pinger.finish().unwrap();
            assert_eq!(result.rtt_us.len(), result.received);
            let is_whole = result.sent > 10 && result.lost() == 0;
            common::check(is_whole, &(result.sent, result.lost()))
        });
    }
}

#[test]
fn an_address_that_nobody_has_is_reported_as_unreachable_in_time() {
    if !common::can_run() {
        return;
    }
    let (a, _b) = two_joined();
    let error = reach(&a, "10.0.0.9".parse().unwrap(), Duration::from_millis(300)).unwrap_err();
    assert!(
        error.to_string().contains("a does not reach 10.0.0.9"),
        "{error}"
    );
}

#[test]
fn a_verified_transfer_arrives_and_counts_as_segments_of_its_namespace() {
    if !common::can_run() {
        return;
    }
    let (a, b) = two_joined();
    let before = patronus_lab::proc::tcp_segments(&a).unwrap();
    let bytes = (4 << 20) + 3;
    verified_transfer(&a, &b, "10.0.0.2".parse().unwrap(), bytes, 1, REACH_MAX).unwrap();
    let segments = patronus_lab::proc::tcp_segments(&a).unwrap().since(before);
    assert!(segments.sent > 10, "{segments:?}");
}

#[test]
fn udp_sent_at_full_rate_is_counted_on_both_ends() {
    if !common::can_run() {
        return;
    }
    let (a, b) = two_joined();
    let target = "fd00::2".parse().unwrap();
    // Until the link-local addresses have passed duplicate detection, neighbours do not find each other.
    reach(&a, target, REACH_MAX).unwrap();
    // A sender that changes its core between two packets may overtake itself.
    common::one_of_three(|| {
        let blast = UdpBlast::start(&a, &b, target, 16).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let result = blast.finish().unwrap();
        assert!(result.received <= result.sent, "{result:?}");
        common::check(result.received > 100 && result.late == 0, &result)
    });
}

#[test]
fn namespaces_leave_no_interface_behind() {
    if !common::can_run() {
        return;
    }
    let (a, b) = two_joined();
    drop(b);
    // The kernel takes a namespace down after its last user is gone, not at once.
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !link::exists(&a, "eth0").unwrap()
    });
    assert!(gone, "the other end of a veth pair goes with its namespace");
}

#[test]
fn two_foreign_daemons_carry_traffic_between_sites() {
    if !common::can_run() {
        return;
    }
    let (Some(boringtun), Some(wireguard_go)) = (common::boringtun(), common::wireguard_go())
    else {
        return;
    };
    let lab = Lab::build(2).unwrap();
    let [one, two] = &lab.sites[..] else {
        panic!("a lab of two has two sites")
    };
    let config = |site| lab.gateway_config(site, Family::V4);
    let gateway_one = Gateway::start(&one.gateway, &boringtun, &config(one)).unwrap();
    let gateway_two = Gateway::start(&two.gateway, &wireguard_go, &config(two)).unwrap();

    for family in [Family::V4, Family::V6] {
        reach(&one.host, two.host_addr(family), REACH_MAX).unwrap();
        let addr = one.host_addr(family);
        verified_transfer(&two.host, &one.host, addr, 1 << 20, 7, REACH_MAX).unwrap();
    }
    let bulk = BulkTcp::start(&one.host, &two.host, two.host_addr(Family::V4), 2).unwrap();
    // The kernel counts a program's time by ticks.
    let is_seen = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        bulk.received_bytes() > 0 && gateway_one.cpu_seconds().unwrap() > 0.0
    });
    assert!(is_seen, "no byte came in a minute, or at no cost");
    bulk.finish().unwrap();

    let device = gateway_one.device().unwrap();
    let peer = &device.peers[0];
    assert_eq!(peer.public_key, two.key.public_key());
    assert!(
        peer.rx_bytes > 1 << 20 && peer.last_handshake.is_some(),
        "{peer:?}"
    );
    assert!(gateway_two.rss_max_bytes().unwrap() > 1 << 20);

    gateway_one.stop().unwrap();
    gateway_two.stop().unwrap();
    let left = reach(
        &one.host,
        two.host_addr(Family::V4),
        Duration::from_millis(300),
    );
    assert!(
        left.is_err(),
        "there is no way between the sites but the tunnel"
    );
}

#[test]
fn a_program_that_ends_at_once_is_reported_with_what_it_wrote() {
    if !common::can_run() {
        return;
    }
    let lab = Lab::build(2).unwrap();
    let site = &lab.sites[0];
    let program = patronus_lab::Program::Patronus {
        binary: "/bin/cat".into(),
    };
    let error = Gateway::start(
        &site.gateway,
        &program,
        &lab.gateway_config(site, Family::V4),
    );
    let text = format!("{:#}", error.unwrap_err());
    assert!(
        text.contains("ended at once") && text.contains("cat:"),
        "{text}"
    );
}

#[test]
fn every_measurement_gives_figures_with_a_foreign_program() {
    if !common::can_run() {
        return;
    }
    let Some(program) = common::boringtun() else {
        return;
    };
    let (stop, progress) = (Stop::new(), Progress::new());
    let conduct = Conduct {
        window: Duration::from_millis(400),
        warm_up: Duration::from_millis(100),
        progress: &progress,
        stop: &stop,
    };
    let mesh = Mesh::up(3, &program, Family::V6, &stop).unwrap();
    assert_eq!(mesh.check_reach(&stop).unwrap(), 12);
    common::one_of_three(|| {
        let idle = mesh.idle_rtt(conduct).unwrap();
        common::check(idle.lost() == 0, &idle.lost())
    });
    let tcp = mesh.tcp(Direction::Reverse, 2, conduct).unwrap();
    assert!(tcp.gbps() > 0.0 && tcp.cpu_s_per_gbit() > 0.0 && tcp.segments.sent > 0);
    assert!(Rtt::of(&tcp.ping).unwrap().p50 > 0);
    let udp = mesh.udp(16, conduct).unwrap();
    assert!(udp.kpps() > 0.0 && udp.total.loss() < 1.0);
    println!("{:.2} Gbit/s, {:.0} kpps", tcp.gbps(), udp.kpps());
    stop.set();
    let error = mesh.tcp(Direction::Forward, 1, conduct).unwrap_err();
    assert_eq!(patronus_lab::exit_code(&error), 130);
    assert!(mesh.down().unwrap().is_empty());
}
