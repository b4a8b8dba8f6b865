//! Two uplinks to one remote address against the kernel: what names an uplink leaves by it or not at all, and what
//! comes in says by which it came.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;

use common::{add_v6, in_netns, ip, is_silent, recv_datagrams};
use nix::sched::{CloneFlags, unshare};
use patronus_io::{SendFailure, SendReport, UdpOptions, UdpSocket, Way};
use patronus_packet::{Door, Endpoint, TrainLimits, UdpBatch, UplinkId};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Where the other site is, over whichever uplink.
const REMOTES: [&str; 2] = ["203.0.113.7:9000", "[2001:db8:9::7]:9000"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// A gateway's namespace with two uplinks, each to a provider of its own that knows a way to the same remote address.
struct World {
    /// The other site's sockets behind each provider: IPv4, IPv6.
    far: [[UdpSocket; 2]; 2],
}

impl World {
    fn new() -> Self {
        Self {
            far: [provider(0), provider(1)],
        }
    }

    fn socket(&self, family: Family) -> UdpSocket {
        let any = match family {
            Family::V4 => "0.0.0.0:0",
            Family::V6 => "[::]:0",
        };
        let mut socket = bind(any);
        socket.set_uplinks(&[
            (UplinkId(0), Way::Interface(index_of("wan0"))),
            (UplinkId(1), Way::Interface(index_of("wan1"))),
        ]);
        socket
    }

    fn far(&mut self, uplink: usize, family: Family) -> &mut UdpSocket {
        &mut self.far[uplink][family as usize]
    }
}

/// Makes uplink `number` of the calling thread's namespace and the namespace behind it.
fn provider(number: usize) -> [UdpSocket; 2] {
    let (inside, outside) = (mpsc::channel(), mpsc::channel());
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        inside.0.send(nix::unistd::gettid()).unwrap();
        outside.1.recv().unwrap();
        ip("link set lo up");
        ip(&format!("link set far{number} up"));
        ip(&format!("addr add 10.0.{number}.2/24 dev far{number}"));
        ip("addr add 203.0.113.7/32 dev lo");
        add_v6("2001:db8:9::7", 128, "lo");
        add_v6(
            &format!("2001:db8:10{number}::2"),
            64,
            &format!("far{number}"),
        );
        REMOTES.map(bind)
    });
    let tid = inside.1.recv().unwrap();
    ip(&format!(
        "link add wan{number} type veth peer name far{number} netns {tid}"
    ));
    ip(&format!("link set wan{number} up"));
    outside.0.send(()).unwrap();
    let sockets = thread.join().unwrap();
    ip(&format!("addr add 10.0.{number}.1/24 dev wan{number}"));
    add_v6(
        &format!("2001:db8:10{number}::1"),
        64,
        &format!("wan{number}"),
    );
    // As DHCP clients and router advertisements leave them: by metric the first would take everything.
    let metric = 100 + number;
    ip(&format!(
        "route add default via 10.0.{number}.2 dev wan{number} metric {metric}"
    ));
    ip(&format!(
        "-6 route add default via 2001:db8:10{number}::2 dev wan{number} metric {metric}"
    ));
    sockets
}

fn bind(addr: &str) -> UdpSocket {
    UdpSocket::bind(addr.parse().unwrap(), &UdpOptions::default()).unwrap()
}

fn index_of(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

fn address(uplink: usize, family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => format!("10.0.{uplink}.1"),
        Family::V6 => format!("2001:db8:10{uplink}::1"),
    };
    text.parse().unwrap()
}

fn to(uplink: usize, family: Family, local: Option<IpAddr>) -> Endpoint {
    Endpoint {
        remote: REMOTES[family as usize].parse().unwrap(),
        local,
        door: Door::Listen,
        uplink: UplinkId(uplink as u8),
    }
}

/// Sends datagrams of these lengths, each filled with its endpoint's uplink number.
fn send(socket: &mut UdpSocket, trains: &[(Endpoint, u8, &[usize])]) -> SendReport {
    let mut batch = UdpBatch::new(1 << 20, socket.max_train());
    for (endpoint, tos, lens) in trains {
        for len in *lens {
            batch.room()[..*len].fill(endpoint.uplink.0);
            batch.commit_classed(*len, endpoint, *tos);
        }
    }
    let report = socket.send(&batch);
    assert_eq!(
        report.sent_packets + report.failed_total(),
        batch.packets(),
        "{report:?}"
    );
    report
}

#[test]
fn a_datagram_leaves_by_the_uplink_it_names_and_its_answer_says_where_it_came() {
    in_netns(
        "a_datagram_leaves_by_the_uplink_it_names_and_its_answer_says_where_it_came",
        || {
            let mut world = World::new();
            for family in FAMILIES {
                let mut gateway = world.socket(family);
                for uplink in [0, 1] {
                    // The source is known as soon as something came in; before that it is not.
                    for local in [None, Some(address(uplink, family))] {
                        let report = send(
                            &mut gateway,
                            &[(to(uplink, family, local), 0, &[100, 100, 7])],
                        );
                        assert_eq!(report.failed_total(), 0, "{family:?} {uplink} {report:?}");
                        assert_eq!(report.resourced_packets, 0);
                        let (frames, payloads) = recv_datagrams(world.far(uplink, family), 3);
                        assert!(payloads.iter().flatten().all(|byte| *byte == uplink as u8));
                        let from = frames[0].endpoint.remote;
                        assert_eq!(from.ip(), address(uplink, family), "{local:?}");
                        assert!(is_silent(world.far(1 - uplink, family)), "{family:?}");

                        let answer = Endpoint::from(from);
                        let far = world.far(uplink, family);
                        let mut batch = UdpBatch::new(1 << 16, far.max_train());
                        batch.commit_classed(90, &answer, 0xb8);
                        assert_eq!(far.send(&batch).sent_packets, 1);
                        let (frames, _) = recv_datagrams(&mut gateway, 1);
                        assert_eq!(frames[0].endpoint.uplink, UplinkId(uplink as u8));
                        assert_eq!(frames[0].endpoint.local, Some(address(uplink, family)));
                        assert_eq!(frames[0].tos, 0xb8);
                    }
                }
            }
        },
    );
}

#[test]
fn trains_keep_their_uplink_and_their_traffic_class() {
    in_netns("trains_keep_their_uplink_and_their_traffic_class", || {
        let mut world = World::new();
        for family in FAMILIES {
            let mut gateway = world.socket(family);
            let (zero, one) = (to(0, family, None), to(1, family, None));
            let lens = [1200, 1200, 1200, 300];
            let report = send(
                &mut gateway,
                &[
                    (zero, 0xb8, &lens),
                    (one, 0x2a, &lens),
                    (one, 0, &lens),
                    (zero, 0xff, &[50]),
                ],
            );
            assert_eq!((report.sent_packets, report.failed_total()), (13, 0));
            for (uplink, expected) in [
                (0, vec![(3900, 0xb8), (50, 0xff)]),
                (1, vec![(3900, 0x2a), (3900, 0)]),
            ] {
                let far = world.far(uplink, family);
                let whole = gateway.offload().gso && far.offload().gro;
                let count = if uplink == 0 { 5 } else { 8 };
                let (frames, _) = recv_datagrams(far, count);
                let seen: Vec<(usize, u8)> = frames
                    .iter()
                    .map(|frame| (frame.buf.len(), frame.tos))
                    .collect();
                if whole {
                    assert_eq!(seen, expected, "{family:?}");
                }
                assert!(is_silent(world.far(uplink, family)));
            }
        }
    });
}

#[test]
fn an_interface_that_is_down_or_gone_refuses_and_nothing_goes_another_way() {
    in_netns(
        "an_interface_that_is_down_or_gone_refuses_and_nothing_goes_another_way",
        || {
            let mut world = World::new();
            let mut sockets = FAMILIES.map(|family| (family, world.socket(family)));
            for step in ["link set wan1 down", "link del wan1"] {
                ip(step);
                for (family, gateway) in &mut sockets {
                    let family = *family;
                    for local in [None, Some(address(1, family))] {
                        let trains: [(Endpoint, u8, &[usize]); 3] = [
                            (to(1, family, local), 0, &[100, 100]),
                            (to(0, family, None), 0, &[60]),
                            (to(1, family, local), 0x10, &[100]),
                        ];
                        let report = send(gateway, &trains);
                        let why = format!("{step} {family:?} {local:?} {report:?}");
                        assert_eq!(report.failed(SendFailure::Unreachable), 3, "{why}");
                        let unreachable: Vec<UplinkId> = report.unreachable.iter().collect();
                        match (family, step) {
                            // Could as well be a lack of routes.
                            (Family::V6, "link set wan1 down") => assert_eq!(unreachable, []),
                            _ => assert_eq!(unreachable, [UplinkId(1)], "{why}"),
                        }
                        let (_, payloads) = recv_datagrams(world.far(0, family), 1);
                        assert_eq!(payloads, [vec![0; 60]], "{why}");
                        assert!(is_silent(world.far(0, family)), "{why}");
                    }
                }
            }
        },
    );
}

#[test]
fn a_family_without_a_route_does_not_speak_for_the_uplink() {
    in_netns(
        "a_family_without_a_route_does_not_speak_for_the_uplink",
        || {
            let mut world = World::new();
            ip("-6 route del default dev wan1");
            let (mut v4, mut v6) = (world.socket(Family::V4), world.socket(Family::V6));
            let lost = send(&mut v6, &[(to(1, Family::V6, None), 0, &[100])]);
            assert_eq!(lost.failed(SendFailure::Unreachable), 1, "{lost:?}");
            assert!(lost.unreachable.is_empty());
            let refusal = lost.refused[0].unwrap();
            assert_eq!(refusal.failure, SendFailure::Unreachable);
            assert_eq!(refusal.endpoint, to(1, Family::V6, None));
            let sent = send(&mut v4, &[(to(1, Family::V4, None), 0, &[100])]);
            assert_eq!(sent.sent_packets, 1);
            recv_datagrams(world.far(1, Family::V4), 1);
            assert!(is_silent(world.far(0, Family::V6)));
        },
    );
}

#[test]
fn an_uplink_without_an_interface_sends_nothing_until_it_has_one() {
    in_netns(
        "an_uplink_without_an_interface_sends_nothing_until_it_has_one",
        || {
            let mut world = World::new();
            for family in FAMILIES {
                let mut gateway = world.socket(family);
                let here = (UplinkId(0), Way::Interface(index_of("wan0")));
                gateway.set_uplinks(&[here, (UplinkId(1), Way::Missing)]);
                let trains: [(Endpoint, u8, &[usize]); 3] = [
                    (to(1, family, None), 0, &[100, 100]),
                    (to(0, family, None), 0, &[60]),
                    (to(9, family, None), 0, &[100]),
                ];
                let report = send(&mut gateway, &trains);
                assert_eq!(report.sent_packets, 1, "{report:?}");
                assert_eq!(report.failed(SendFailure::Unreachable), 3);
                let unreachable: Vec<UplinkId> = report.unreachable.iter().collect();
                assert_eq!(unreachable, [UplinkId(1), UplinkId(9)]);
                let (frames, _) = recv_datagrams(world.far(0, family), 1);
                assert!(is_silent(world.far(0, family)) && is_silent(world.far(1, family)));

                // An answer over the other provider is not taken for one over an uplink.
                let port = frames[0].endpoint.remote.port();
                let answer = Endpoint::from(SocketAddr::new(address(1, family), port));
                let far = world.far(1, family);
                let mut batch = UdpBatch::new(1 << 16, TrainLimits::SINGLE);
                batch.commit(90, &answer);
                assert_eq!(far.send(&batch).sent_packets, 1);
                let (frames, _) = recv_datagrams(&mut gateway, 1);
                assert_eq!(frames[0].endpoint.uplink, UplinkId::ANY);

                let there = (UplinkId(1), Way::Interface(index_of("wan1")));
                gateway.set_uplinks(&[here, there]);
                let report = send(&mut gateway, &trains[..1]);
                assert_eq!(report.sent_packets, 2, "{report:?}");
                recv_datagrams(world.far(1, family), 2);
            }
        },
    );
}

#[test]
fn a_source_that_is_lost_is_left_out_and_the_uplink_kept() {
    in_netns(
        "a_source_that_is_lost_is_left_out_and_the_uplink_kept",
        || {
            let mut world = World::new();
            let mut gateway = world.socket(Family::V4);
            ip("addr add 10.0.1.3/24 dev wan1");
            ip("addr del 10.0.1.1/24 dev wan1");
            ip("addr add 10.0.1.4/24 dev wan1");
            ip("route replace default via 10.0.1.2 dev wan1 metric 101");
            let gone = to(1, Family::V4, Some(address(1, Family::V4)));
            let report = send(&mut gateway, &[(gone, 0, &[100, 100])]);
            assert_eq!((report.sent_packets, report.resourced_packets), (2, 2));
            recv_datagrams(world.far(1, Family::V4), 2);
            assert!(is_silent(world.far(0, Family::V4)));
        },
    );
}

#[test]
fn what_is_too_big_is_told_with_its_uplink_and_a_narrow_uplink_leaves_the_other_its_trains() {
    in_netns(
        "what_is_too_big_is_told_with_its_uplink_and_a_narrow_uplink_leaves_the_other_its_trains",
        || {
            let mut world = World::new();
            ip("link set wan0 mtu 1300");
            for family in FAMILIES {
                let mut gateway = world.socket(family);
                let (zero, one) = (to(0, family, None), to(1, family, None));
                let report = send(&mut gateway, &[(one, 0, &[66_000]), (zero, 0, &[10])]);
                assert_eq!(report.failed(SendFailure::TooBig), 1, "{report:?}");
                let refusal = report.refused[0].unwrap();
                assert_eq!(refusal.failure, SendFailure::TooBig);
                assert_eq!((refusal.endpoint, refusal.payload_len), (one, 66_000));
                assert_eq!(report.refused[1], None);
                assert!(report.unreachable.is_empty());
                recv_datagrams(world.far(0, family), 1);

                let gso = gateway.offload().gso;
                // The second time goes by what the first has taught.
                for _ in 0..2 {
                    let lens: &[usize] = &[1400, 1400, 9];
                    let report = send(&mut gateway, &[(zero, 0, lens), (one, 0, lens)]);
                    assert_eq!((report.sent_packets, report.gso_demoted), (6, false));
                    recv_datagrams(world.far(0, family), 3);
                    let (frames, _) = recv_datagrams(world.far(1, family), 3);
                    let far = world.far(1, family);
                    assert_eq!(frames.len() == 1, gso && far.offload().gro, "{family:?}");
                }
                assert_eq!(gateway.offload().gso, gso);
            }
        },
    );
}
