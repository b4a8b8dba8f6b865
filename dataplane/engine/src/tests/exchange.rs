//! Packets between two sites, and between a site and a stock peer.

use patronus_packet::{Joining, TrainLimits, UdpFrame};
use patronus_tunnel::WorkerId;
use patronus_tunnel::message::DATA_OVERHEAD;

use super::*;
use crate::sim::{Steering, peer_id};
use crate::{Event, OpenedBy};

#[test]
fn two_sites_exchange_packets_of_both_families_and_protocols() {
    let mut net = Net::mesh(1, 2, SiteOptions::default());
    net.run_for(ROUND);
    for (from, to) in [(A, B), (B, A)] {
        let packets = [
            Packet::udp(from, to, &payload(1, 100)),
            Packet::tcp(from, to, &payload(2, 100)),
        ];
        for packet in packets
            .into_iter()
            .flat_map(|packet| [packet.clone(), packet.over_v6()])
        {
            let packet = packet.build();
            net.send(from, 0, &packet);
            net.run_for(ROUND);
            assert_eq!(net.take_delivered(to), [packet]);
        }
    }
    for site in [A, B] {
        let counters = net.site(site).counters();
        assert_eq!(
            (counters.rx_tun, counters.tx_tun, counters.tx_udp),
            (4, 4, 4)
        );
        assert_eq!(counters.dropped(), 0);
        assert!(
            net.site(site)
                .events
                .contains(&Event::HandshakeCompleted(peer_id(SiteId(1 - site.0))))
        );
    }
}

#[test]
fn every_pair_of_entry_workers_reaches_every_owner() {
    for workers in 1..=4 {
        let options = SiteOptions {
            workers,
            ..SiteOptions::default()
        };
        for owner in 0..workers {
            let mut net = Net::mesh(workers as u64, 2, options);
            for (site, peer) in [(A, peer_id(B)), (B, peer_id(A))] {
                net.edit_peer(site, peer, |spec| spec.worker = WorkerId(owner as u8));
            }
            net.run_for(ROUND);
            for tun in 0..workers {
                for udp in 0..workers {
                    net.site_mut(B).steering = Steering::Fixed(WorkerId(udp as u8));
                    let packet = Packet::udp(A, B, &payload((tun * 8 + udp) as u32, 64)).build();
                    net.send(A, tun, &packet);
                    net.run_for(ROUND);
                    assert_eq!(
                        net.take_delivered(B),
                        [packet],
                        "{workers} workers: {tun}, {udp}, {owner}"
                    );
                }
            }
            let handed: u64 = [A, B]
                .map(|site| net.site(site).counters().handed_out)
                .iter()
                .sum();
            assert_eq!(handed > 0, workers > 1);
        }
    }
}

#[test]
fn a_handshake_completes_whichever_workers_its_messages_reach() {
    for workers in 2..=3 {
        for entry in 0..workers {
            for owner in 0..workers {
                let mut net = Net::mesh(
                    9,
                    2,
                    SiteOptions {
                        workers,
                        ..SiteOptions::default()
                    },
                );
                for (site, peer) in [(A, peer_id(B)), (B, peer_id(A))] {
                    net.site_mut(site).steering = Steering::Fixed(WorkerId(entry as u8));
                    net.edit_peer(site, peer, |spec| spec.worker = WorkerId(owner as u8));
                }
                net.run_for(ROUND);
                assert_works(&mut net);
            }
        }
    }
}

#[test]
fn superpackets_arrive_byte_for_byte_as_their_segments() {
    for joining in [
        Joining {
            tcp: true,
            udp: true,
        },
        Joining::NONE,
    ] {
        for trains in [SiteOptions::default().trains, TrainLimits::SINGLE] {
            let mut net = pair_of(
                3,
                SiteOptions {
                    joining,
                    trains,
                    ..SiteOptions::default()
                },
            );
            for size in [1380u16, 1360, 536, 100, 17] {
                let segments = if size < 1000 { 60 } else { 45 };
                let bytes = payload(
                    u32::from(size),
                    usize::from(size) * segments - 7 - MARKER.len(),
                );
                let tcp = Packet {
                    flags: ACK | PSH,
                    ..Packet::tcp(A, B, &bytes)
                };
                let udp = Packet {
                    ports: (size, 53),
                    ..Packet::udp(A, B, &bytes)
                };
                for packet in [tcp.clone(), udp.clone(), tcp.over_v6(), udp.over_v6()] {
                    let expected = packet.segments(size);
                    net.send_frame(A, 0, packet.superpacket(size));
                    net.run_for(ROUND);
                    let delivered = net.take_delivered(B);
                    assert_eq!(
                        delivered.len(),
                        expected.len(),
                        "{size}: {:?}",
                        net.site(B).counters()
                    );
                    assert!(delivered == expected, "segments of {size} bytes differ");
                }
            }
            let (a, b) = (net.site(A).counters(), net.site(B).counters());
            assert_eq!((a.dropped(), b.dropped()), (0, 0));
            assert_eq!(a.rx_tun, b.tx_tun);
        }
    }
}

#[test]
fn superpackets_cross_workers_whole() {
    let mut net = Net::mesh(
        4,
        2,
        SiteOptions {
            workers: 3,
            ..SiteOptions::default()
        },
    );
    net.run_for(ROUND);
    net.site_mut(B).steering = Steering::Fixed(WorkerId(2));
    let packet = Packet::tcp(A, B, &payload(5, 60_000));
    net.send_frame(A, 1, packet.superpacket(1380));
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == packet.segments(1380));
    let segments = packet.segments(1380).len() as u64;
    assert_eq!(net.site(A).engine(1).counters().handed_out, segments);
    assert_eq!(net.site(B).engine(2).counters().handed_out, segments);
}

#[test]
fn plaintext_is_padded_to_sixteen_but_never_past_the_mtu() {
    let mut net = pair(5);
    for len in [
        28, 29, 31, 32, 33, 64, 1403, 1404, 1405, 1408, 1409, 1416, 1419, 1420,
    ] {
        net.take_captured();
        let packet = Packet::udp(A, B, &vec![0xaa; len - 28]).build();
        assert_eq!(packet.len(), len);
        net.send(A, 0, &packet);
        net.run_for(ROUND);
        let expected = len.next_multiple_of(16).min(1420) + DATA_OVERHEAD;
        assert_eq!(
            net.captured[0].bytes.len(),
            expected,
            "a packet of {len} bytes"
        );
        assert_eq!(net.take_delivered(B), [packet]);
    }
}

#[test]
fn a_new_mtu_caps_the_padding_of_the_next_packet() {
    let mut net = pair(5);
    let packet = Packet::udp(A, B, &vec![0xaa; 1297 - 28]).build();
    for (mtu, padded) in [(1420, 1312), (1300, 1300), (1296, 1297)] {
        net.set_mtu(A, mtu);
        net.take_captured();
        net.send(A, 0, &packet);
        net.run_for(ROUND);
        assert_eq!(
            net.captured[0].bytes.len(),
            padded + DATA_OVERHEAD,
            "MTU {mtu}"
        );
        assert!(net.take_delivered(B) == std::slice::from_ref(&packet));
    }
}

#[test]
fn no_plaintext_is_seen_on_the_wire() {
    let mut net = Net::mesh(6, 2, SiteOptions::default());
    for number in 0..50 {
        net.send(A, 0, &Packet::udp(A, B, &payload(number, 300)).build());
        net.send_frame(
            B,
            0,
            Packet::tcp(B, A, &payload(number, 3000)).superpacket(1000),
        );
    }
    net.run_for(ROUND);
    assert_eq!(net.take_delivered(B).len(), 50);
    assert_eq!(
        net.take_delivered(A).len(),
        128,
        "the newest of 200 segments that waited"
    );
    let leaks = |datagram: &crate::sim::Captured| {
        datagram
            .bytes
            .windows(MARKER.len())
            .any(|window| window == MARKER)
    };
    assert!(!net.captured.iter().any(leaks));
}

#[test]
fn a_stock_peer_that_initiates_exchanges_packets_both_ways() {
    let mut net = Net::new(7);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
    let counters = net.site(A).counters();
    assert_eq!((counters.handshakes, counters.dropped()), (1, 0));
    assert_eq!(
        net.site(A)
            .spec(STOCK)
            .stats
            .endpoint()
            .map(|endpoint| endpoint.remote),
        Some(stock.addr)
    );
}

#[test]
fn a_stock_peer_that_responds_gets_what_waited_and_answers() {
    let mut net = Net::new(8);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    net.edit_peer(A, STOCK, |spec| spec.endpoint = Some(stock.addr));
    let packets: Vec<_> = (0..5)
        .map(|n| Packet::udp(A, SiteId(100), &payload(n, 10)).build())
        .collect();
    for packet in &packets {
        net.send(A, 0, packet);
    }
    stock.pump(&mut net);
    assert_eq!(stock.inbox, packets);
    assert_eq!(count_type(&net, 1), 1);
    stock.assert_works(&mut net);
}

#[test]
fn what_a_stock_peer_opens_is_what_it_would_have_sealed() {
    let mut net = Net::new(9);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    let packet = Packet {
        flags: ACK | PSH,
        ..Packet::tcp(A, SiteId(100), &payload(1, 40_000))
    };
    net.send_frame(A, 0, packet.superpacket(1380));
    stock.pump(&mut net);
    assert!(stock.inbox == packet.segments(1380));

    // The other way: unpadded plaintext, which boringtun sends and Linux does not.
    let back = Packet {
        flags: ACK | PSH,
        ..Packet::tcp(SiteId(100), A, &payload(2, 40_000))
    };
    let segments = back.segments(1380);
    let train: Vec<_> = segments.iter().map(|segment| stock.seal(segment)).collect();
    net.inject_frame(A, 0, crate::sim::udp_frame(stock.addr, None, &train));
    assert!(net.take_delivered(A) == segments);
}

#[test]
fn a_reply_that_comes_in_elsewhere_keeps_the_opener_of_its_flow() {
    let mut net = Net::mesh(
        10,
        2,
        SiteOptions {
            workers: 2,
            ..SiteOptions::default()
        },
    );
    net.run_for(ROUND);
    // The request leaves through worker 1's queue, the reply comes in on the owner, worker 0.
    net.send(A, 1, &Packet::udp(A, B, &payload(1, 1)).build());
    let reply = Packet {
        ports: (443, 40_000),
        ..Packet::udp(B, A, &payload(2, 1))
    };
    net.run_for(ROUND);
    net.send(B, 0, &reply.build());
    net.run_for(ROUND);
    let flows: Vec<_> = net.site(A).engine(0).flow_table().flows(0).collect();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].opened_by, OpenedBy::Local);
    assert_eq!(net.site(A).counters().flows_opened, 1);
    assert_eq!(net.site(B).counters().flows_opened, 1);
}

#[test]
fn a_train_with_datagrams_of_three_owners_reaches_all_of_them() {
    let mut net = Net::mesh(
        11,
        4,
        SiteOptions {
            workers: 3,
            ..SiteOptions::default()
        },
    );
    for other in 1..4 {
        net.edit_peer(A, PeerId(other), |spec| {
            spec.worker = WorkerId(other as u8 - 1)
        });
    }
    net.run_for(ROUND);
    net.take_captured();
    let mut expected = Vec::new();
    for number in 0..12u32 {
        let from = SiteId(1 + number as usize % 3);
        let packet = Packet {
            id: number as u16 / 3,
            ..Packet::udp(from, A, &payload(number, 100))
        }
        .build();
        net.send(from, 0, &packet);
        expected.push(packet);
    }
    let mut train: Vec<_> = net
        .take_captured()
        .into_iter()
        .map(|datagram| datagram.bytes)
        .collect();
    // The last of a train may be shorter.
    let short = Packet::udp(SiteId(3), A, &payload(99, 2)).build();
    net.send(SiteId(3), 0, &short);
    train.extend(
        net.take_captured()
            .into_iter()
            .map(|datagram| datagram.bytes),
    );
    expected.push(short);
    net.settle();
    net.take_delivered(A);

    // All of them were delivered once: the same train again is nothing but replays.
    for entry in 0..3 {
        let frame: UdpFrame = crate::sim::udp_frame(net.site(B).outer(), None, &train);
        let drops = drops_during(&mut net, A, |net| net.inject_frame(A, entry, frame));
        assert_eq!(drops, [(DropReason::DataReplayed, 13)]);
    }

    // And a train that was not seen before.
    let mut train = Vec::new();
    net.link.loss = 1.0;
    for number in 0..12u32 {
        let from = SiteId(1 + number as usize % 3);
        net.take_captured();
        net.send(from, 0, &expected[number as usize]);
        train.push(net.take_captured().remove(0).bytes);
    }
    let frame = crate::sim::udp_frame(net.site(B).outer(), None, &train);
    net.inject_frame(A, 1, frame);
    let delivered = net.take_delivered(A);
    assert!(tally(&delivered) == tally(&expected[..12]));
}
