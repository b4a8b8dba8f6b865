//! UDP sockets against the kernel: trains out and in, source addresses, refusals.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{add_v6, in_netns, ip, is_silent, recv_datagrams};
use patronus_io::{
    SendFailure, SendReport, UdpError, UdpOptions, UdpSocket, pick_port, port_is_free,
};
use patronus_packet::{Door, Endpoint, TrainLimits, UdpBatch, UplinkId};

const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn bind(addr: &str) -> UdpSocket {
    let options = UdpOptions {
        recv_buffer: 4 << 20,
        ..UdpOptions::default()
    };
    UdpSocket::bind(addr.parse().unwrap(), &options).unwrap()
}

/// Datagrams of `lens` to `endpoint`, each byte telling its place, in trains as long as `limits` allow.
fn batch(limits: TrainLimits, trains: &[(Endpoint, &[usize])]) -> (UdpBatch, Vec<Vec<u8>>) {
    let mut batch = UdpBatch::new(1 << 20, limits);
    let mut payloads = Vec::new();
    for (endpoint, lens) in trains {
        for (number, len) in lens.iter().enumerate() {
            let payload: Vec<u8> = (0..*len).map(|at| (at + number * 7) as u8).collect();
            batch.room()[..*len].copy_from_slice(&payload);
            batch.commit(*len, endpoint);
            payloads.push(payload);
        }
    }
    (batch, payloads)
}

fn assert_all_sent(report: &SendReport, batch: &UdpBatch) {
    assert_eq!(report.sent_packets, batch.packets(), "{report:?}");
    assert_eq!(report.failed_total(), 0, "{report:?}");
}

#[test]
fn a_train_arrives_as_a_train_with_both_addresses() {
    for loopback in LOOPBACKS {
        let (mut sender, mut receiver) = (bind(loopback), bind(loopback));
        if !(sender.offload().gso && receiver.offload().gro) {
            println!("skipped: {:?}", sender.notes());
            return;
        }
        let to = Endpoint::from(receiver.local_addr());
        let (batch, payloads) = batch(sender.max_train(), &[(to, &[1372, 1372, 1372, 1372, 500])]);
        assert_eq!(batch.trains().len(), 1);

        let report = sender.send(&batch);

        assert_all_sent(&report, &batch);
        assert_eq!(report.sent_bytes, 4 * 1372 + 500);
        let (frames, received) = recv_datagrams(&mut receiver, 5);
        assert_eq!(received, payloads);
        assert_eq!(frames.len(), 1, "the kernel keeps loopback trains whole");
        assert_eq!(frames[0].segment_len, 1372);
        assert_eq!(frames[0].endpoint.remote, sender.local_addr());
        assert_eq!(frames[0].endpoint.local, Some(receiver.local_addr().ip()));
        assert!(is_silent(&mut receiver));
    }
}

#[test]
fn single_datagrams_are_trains_of_one() {
    for loopback in LOOPBACKS {
        let (mut sender, mut receiver) = (bind(loopback), bind(loopback));
        let to = Endpoint::from(receiver.local_addr());
        let (batch, payloads) = batch(TrainLimits::SINGLE, &[(to, &[148, 92, 32, 1, 1400])]);
        assert_all_sent(&sender.send(&batch), &batch);
        let (frames, received) = recv_datagrams(&mut receiver, 5);
        assert_eq!(received, payloads);
        assert!(frames.iter().all(|frame| frame.segment_len == 0));
    }
}

#[test]
fn trains_beyond_the_kernels_limits_are_divided() {
    let (mut sender, mut receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = Endpoint::from(receiver.local_addr());
    let no_limits = TrainLimits {
        segments: usize::MAX,
        bytes: usize::MAX,
    };
    let many_small = [64; 300];
    let many_large = [1400; 120];
    let (batch, payloads) = batch(
        no_limits,
        &[(to, &many_small), (to, &many_large), (to, &[3])],
    );
    assert_eq!(batch.trains().len(), 2, "or this tests nothing");

    let report = sender.send(&batch);

    assert_all_sent(&report, &batch);
    assert!(!report.gso_demoted);
    assert_eq!(recv_datagrams(&mut receiver, 421).1, payloads);
}

#[test]
fn more_trains_than_one_call_takes_all_arrive() {
    let (mut sender, mut receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let to = Endpoint::from(receiver.local_addr());
    let (batch, payloads) = batch(TrainLimits::SINGLE, &[(to, &[100; 200])]);
    assert_all_sent(&sender.send(&batch), &batch);
    assert_eq!(recv_datagrams(&mut receiver, 200).1, payloads);
}

#[test]
fn an_empty_datagram_is_handed_over_and_hides_nothing() {
    let mut receiver = bind("127.0.0.1:0");
    let plain = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    plain.send_to(&[], receiver.local_addr()).unwrap();
    plain.send_to(b"behind", receiver.local_addr()).unwrap();
    assert_eq!(
        recv_datagrams(&mut receiver, 2).1,
        [b"".to_vec(), b"behind".to_vec()]
    );
}

#[test]
fn trains_of_the_other_family_are_left_to_the_other_socket() {
    let (mut v4, mut v6) = (bind("127.0.0.1:0"), bind("[::1]:0"));
    let (mut to_v4, mut to_v6) = (bind("127.0.0.1:0"), bind("[::1]:0"));
    let trains: [(Endpoint, &[usize]); 3] = [
        (to_v4.local_addr().into(), &[10, 10]),
        (to_v6.local_addr().into(), &[20]),
        (to_v4.local_addr().into(), &[30]),
    ];
    let (batch, payloads) = batch(v4.max_train(), &trains);
    assert_eq!(v4.send(&batch).sent_packets, 3);
    assert_eq!(v6.send(&batch).sent_packets, 1);
    let received_v4 = recv_datagrams(&mut to_v4, 3).1;
    assert_eq!(received_v4, [&payloads[..2], &payloads[3..]].concat());
    assert_eq!(recv_datagrams(&mut to_v6, 1).1, payloads[2..3]);
}

#[test]
fn a_packet_leaves_from_the_local_address_of_its_endpoint() {
    in_netns(
        "a_packet_leaves_from_the_local_address_of_its_endpoint",
        || {
            add_v6("fd00::7", 128, "lo");
            for (any, source, to) in [
                ("0.0.0.0:0", "127.0.0.7", "127.0.0.1:0"),
                ("[::]:0", "fd00::7", "[::1]:0"),
            ] {
                let (mut sender, mut receiver) = (bind(any), bind(to));
                let source: IpAddr = source.parse().unwrap();
                let endpoint = Endpoint {
                    remote: receiver.local_addr(),
                    local: Some(source),
                    door: Door::Listen,
                    uplink: UplinkId::ANY,
                };
                let (batch, _) = batch(sender.max_train(), &[(endpoint, &[700, 700, 7])]);
                let report = sender.send(&batch);
                assert_all_sent(&report, &batch);
                assert_eq!(report.resourced_packets, 0);
                let frames = recv_datagrams(&mut receiver, 3).0;
                assert_eq!(
                    frames[0].endpoint.remote,
                    SocketAddr::new(source, sender.local_addr().port())
                );
            }
        },
    );
}

#[test]
fn an_address_that_is_gone_does_not_stop_traffic_nor_gso() {
    in_netns(
        "an_address_that_is_gone_does_not_stop_traffic_nor_gso",
        || {
            for (any, gone, to) in [
                ("0.0.0.0:0", "192.0.2.77", "127.0.0.1:0"),
                ("[::]:0", "2001:db8::77", "[::1]:0"),
            ] {
                let (mut sender, mut receiver) = (bind(any), bind(to));
                let endpoint = Endpoint {
                    remote: receiver.local_addr(),
                    local: Some(gone.parse().unwrap()),
                    door: Door::Listen,
                    uplink: UplinkId::ANY,
                };
                let gso = sender.offload().gso;
                let (batch, payloads) = batch(sender.max_train(), &[(endpoint, &[700, 700, 7])]);
                let report = sender.send(&batch);
                assert_all_sent(&report, &batch);
                assert_eq!(report.resourced_packets, 3);
                assert_eq!(sender.offload().gso, gso);
                let (frames, received) = recv_datagrams(&mut receiver, 3);
                assert_eq!(received, payloads);
                assert_eq!(frames[0].endpoint.remote.ip(), receiver.local_addr().ip());
            }
        },
    );
}

#[test]
fn a_path_narrower_than_the_segments_gets_datagrams_and_keeps_gso() {
    in_netns(
        "a_path_narrower_than_the_segments_gets_datagrams_and_keeps_gso",
        || {
            ip("link set lo mtu 1300");
            for (any, to) in [("0.0.0.0:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0")] {
                let (mut sender, mut receiver) = (bind(any), bind(to));
                let endpoint = Endpoint::from(receiver.local_addr());
                let gso = sender.offload().gso;
                // Three times, since the second and third go by what the first has taught.
                for _ in 0..3 {
                    let (batch, payloads) =
                        batch(sender.max_train(), &[(endpoint, &[1400, 1400, 9])]);
                    let report = sender.send(&batch);
                    assert_all_sent(&report, &batch);
                    assert!(!report.gso_demoted);
                    assert_eq!(recv_datagrams(&mut receiver, 3).1, payloads);
                }
                assert_eq!(sender.offload().gso, gso);
                let (batch, payloads) = batch(sender.max_train(), &[(endpoint, &[900, 900, 9])]);
                assert_all_sent(&sender.send(&batch), &batch);
                let (frames, received) = recv_datagrams(&mut receiver, 3);
                assert_eq!(received, payloads);
                assert_eq!(frames.len() == 1, gso && receiver.offload().gro);
            }
        },
    );
}

#[test]
fn what_has_no_route_is_counted_and_the_rest_goes_on() {
    in_netns("what_has_no_route_is_counted_and_the_rest_goes_on", || {
        let (mut sender, mut receiver) = (bind("0.0.0.0:0"), bind("127.0.0.1:0"));
        let nowhere = Endpoint::from(SocketAddr::from(([192, 0, 2, 1], 9)));
        let here = Endpoint::from(receiver.local_addr());
        let (batch, _) = batch(
            sender.max_train(),
            &[(nowhere, &[50, 50]), (here, &[60]), (nowhere, &[70])],
        );
        let report = sender.send(&batch);
        assert_eq!(report.sent_packets, 1);
        assert_eq!(report.failed(SendFailure::Unreachable), 3, "{report:?}");
        assert_eq!(report.failed_total(), 3);
        assert_eq!(recv_datagrams(&mut receiver, 1).1[0].len(), 60);
    });
}

#[test]
fn a_remote_port_of_zero_is_counted_and_does_not_turn_gso_off() {
    let (mut sender, mut receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let gso = sender.offload().gso;
    let zero = Endpoint::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    let trains: [(Endpoint, &[usize]); 2] =
        [(zero, &[50, 50, 50]), (receiver.local_addr().into(), &[60])];
    let (batch, _) = batch(sender.max_train(), &trains);
    let report = sender.send(&batch);
    assert_eq!(
        (report.sent_packets, report.failed_total()),
        (1, 3),
        "{report:?}"
    );
    assert_eq!(sender.offload().gso, gso);
    assert_eq!(recv_datagrams(&mut receiver, 1).1[0].len(), 60);
}

#[test]
fn a_send_buffer_that_stays_full_drops_and_counts() {
    in_netns("a_send_buffer_that_stays_full_drops_and_counts", || {
        // Nobody answers for 10.5.0.2, so datagrams wait there for the address resolution and fill the buffer.
        ip("link add va type veth peer name vb");
        ip("addr add 10.5.0.1/24 dev va");
        ip("link set va up");
        ip("link set vb up");
        let options = UdpOptions {
            send_buffer: 4096,
            ..UdpOptions::default()
        };
        let mut sender = UdpSocket::bind("10.5.0.1:0".parse().unwrap(), &options).unwrap();
        let mute = Endpoint::from(SocketAddr::from(([10, 5, 0, 2], 9)));
        let (batch, _) = batch(TrainLimits::SINGLE, &[(mute, &[1000; 60])]);
        let report = sender.send(&batch);
        assert!(report.sent_packets > 0, "{report:?}");
        assert!(report.failed(SendFailure::NoBuffers) > 0, "{report:?}");
        assert_eq!(
            report.would_block_packets,
            report.failed(SendFailure::NoBuffers)
        );
        assert_eq!(report.sent_packets + report.failed_total(), 60);
    });
}

#[test]
fn the_gateways_own_messages_are_counted_apart() {
    in_netns("the_gateways_own_messages_are_counted_apart", || {
        let (mut sender, receiver) = (bind("0.0.0.0:0"), bind("127.0.0.1:0"));
        let mut batch = UdpBatch::new(4096, sender.max_train());
        batch.commit_own(148, &receiver.local_addr().into());
        batch.commit(100, &receiver.local_addr().into());
        batch.commit_own(148, &Endpoint::from(SocketAddr::from(([192, 0, 2, 1], 9))));
        let report = sender.send(&batch);
        assert_eq!((report.sent_packets, report.own_sent_packets), (2, 1));
        assert_eq!(
            (report.failed_total(), report.own_failed.iter().sum::<u64>()),
            (1, 1)
        );
    });
}

#[test]
fn a_port_in_use_is_named_with_the_command_that_finds_its_owner() {
    for loopback in LOOPBACKS {
        let holder = bind(loopback);
        let addr = holder.local_addr();
        let error = UdpSocket::bind(addr, &UdpOptions::default()).err().unwrap();
        assert!(matches!(error, UdpError::InUse { .. }));
        let port = addr.port();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("UDP port {port} is in use")),
            "{text}"
        );
        assert!(
            text.contains(&format!("`ss -ulpn 'sport = {port}'`")),
            "{text}"
        );
    }
}

#[test]
fn a_port_held_with_reuseport_is_joined_by_bind_but_not_free() {
    let options = UdpOptions {
        reuse_port: true,
        ..UdpOptions::default()
    };
    let holder = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let addr = holder.local_addr();
    assert!(UdpSocket::bind(addr, &options).is_ok());
    assert!(matches!(port_is_free(addr), Err(UdpError::InUse { .. })));
    drop(holder);
    assert!(port_is_free(addr).is_ok());
}

#[test]
fn a_picked_port_can_be_bound_in_both_families() {
    in_netns("a_picked_port_can_be_bound_in_both_families", || {
        let port = pick_port().unwrap();
        assert_ne!(port, 0);
        let _v4 = bind(&format!("0.0.0.0:{port}"));
        let _v6 = bind(&format!("[::]:{port}"));
    });
}

#[test]
fn wrong_addresses_and_interfaces_are_named() {
    let missing = UdpSocket::bind("192.0.2.1:0".parse().unwrap(), &UdpOptions::default());
    assert_eq!(
        missing.err().unwrap().to_string(),
        "no interface has the address 192.0.2.1: `ip address` shows which there are"
    );
    for device in ["nosuch0", "a name of more than 15 bytes"] {
        let options = UdpOptions {
            device: Some(device.to_owned()),
            ..UdpOptions::default()
        };
        let error = UdpSocket::bind("0.0.0.0:0".parse().unwrap(), &options)
            .err()
            .unwrap();
        assert!(matches!(error, UdpError::DeviceMissing { .. }), "{error}");
    }
}

#[test]
fn offloads_that_are_not_wanted_stay_off() {
    let options = UdpOptions {
        want_gso: false,
        want_gro: false,
        ..UdpOptions::default()
    };
    let mut receiver = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let mut sender = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    assert_eq!(sender.offload().to_string(), "none");
    assert_eq!(sender.max_train(), TrainLimits::SINGLE);
    assert!(sender.notes().is_empty());
    let to = Endpoint::from(receiver.local_addr());
    let trains = bind("127.0.0.1:0").max_train();
    let (batch, payloads) = batch(trains, &[(to, &[800, 800, 8])]);
    assert_all_sent(&sender.send(&batch), &batch);
    let (frames, received) = recv_datagrams(&mut receiver, 3);
    assert_eq!(frames.len(), 3);
    assert_eq!(received, payloads);
}
