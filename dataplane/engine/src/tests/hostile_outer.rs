//! Datagrams that are no WireGuard message for us: each class is counted under its own reason and changes nothing.

use std::net::{IpAddr, Ipv4Addr};

use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::{Endpoint, FrameBuf, UdpFrame};
use patronus_tunnel::WorkerId;

use super::*;
use crate::sim::{Dice, Steering, peer_id, udp_frame};

fn stranger() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], 999))
}

/// Injects datagrams one by one into a pair with a session; each must end for that one reason.
#[track_caller]
fn assert_refused(datagrams: &[Vec<u8>], reason: DropReason) {
    let mut net = pair(0x51);
    let drops = drops_during(&mut net, A, |net| {
        for datagram in datagrams {
            net.inject(stranger(), A, datagram);
        }
    });
    assert_eq!(drops, [(reason, datagrams.len() as u64)]);
    assert!(
        net.captured.is_empty(),
        "an answer gives the attacker an amplifier"
    );
    assert_works(&mut net);
}

fn message(kind: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes
}

#[test]
fn an_empty_datagram_is_dropped() {
    assert_refused(&[Vec::new()], DropReason::OuterType);
}

#[test]
fn datagrams_of_one_to_three_bytes_are_dropped() {
    assert_refused(&[vec![1], vec![4, 0], vec![1, 0, 0]], DropReason::OuterType);
}

#[test]
fn unknown_types_are_dropped() {
    let datagrams: Vec<_> = [0u32, 5, 6, 0x7f, 0xff]
        .map(|kind| message(kind, 148))
        .into();
    assert_refused(&datagrams, DropReason::OuterType);
}

#[test]
fn set_reserved_bytes_are_dropped() {
    let datagrams: Vec<_> = (1..=4u32)
        .flat_map(|kind| {
            (8..32)
                .step_by(8)
                .map(move |bit| message(kind | 1 << bit, 148))
        })
        .collect();
    assert_refused(&datagrams, DropReason::OuterType);
}

#[test]
fn handshake_messages_of_any_other_length_are_dropped() {
    let lens = [(1u32, 148usize), (2, 92), (3, 64)];
    let datagrams: Vec<_> = lens
        .into_iter()
        .flat_map(|(kind, right)| {
            (4..200)
                .filter(move |len| *len != right)
                .map(move |len| message(kind, len))
        })
        .collect();
    assert_refused(&datagrams, DropReason::OuterLength);
}

#[test]
fn data_messages_below_32_bytes_are_dropped() {
    let datagrams: Vec<_> = (4..32).map(|len| message(4, len)).collect();
    assert_refused(&datagrams, DropReason::OuterLength);
}

#[test]
fn trailing_bytes_behind_a_genuine_handshake_message_refuse_it() {
    let mut net = Net::new(0x52);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    let mut long = stock.initiation();
    long.push(0);
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &long));
    assert_eq!(drops, [(DropReason::OuterLength, 1)]);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn trailing_bytes_behind_genuine_data_break_its_tag() {
    let mut net = Net::new(0x53);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    let datagram = stock.seal(&stock.packet(1));
    let long = [datagram.clone(), vec![0]].concat();
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &long));
    assert_eq!(drops, [(DropReason::DataBadTag, 1)]);
    // The window did not move: the genuine one still opens.
    net.inject(stock.addr, A, &datagram);
    assert_eq!(net.take_delivered(A).len(), 1);
    stock.assert_works(&mut net);
}

#[test]
fn a_datagram_larger_than_the_buffer_is_counted_as_truncated() {
    let mut net = pair(0x54);
    let drops = drops_during(&mut net, A, |net| {
        net.site_mut(A).engine_mut(0).count_truncated(3)
    });
    assert_eq!(drops, [(DropReason::OuterTruncated, 3)]);
    assert!(net.site(A).counters().is_balanced());
    assert_works(&mut net);
}

#[test]
fn a_reassembled_datagram_of_64_kib_of_noise_is_dropped() {
    let mut noise = Dice::new(1).bytes(65_507);
    assert_refused(&[noise.clone()], DropReason::OuterType);
    noise[..8].copy_from_slice(&[4, 0, 0, 0, 0, 0, 0x77, 0x77]);
    assert_refused(&[noise], DropReason::UnknownIndex);
}

#[test]
fn an_authenticated_datagram_of_64_kib_is_delivered() {
    let mut net = Net::new(0x55);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    let packet = Packet::udp(SiteId(100), A, &vec![7; FRAME_DATA_MAX - 28 - 32]).build();
    stock.send(&mut net, &packet);
    assert!(net.take_delivered(A) == [packet]);
}

#[test]
fn source_port_0_is_dropped_because_nobody_can_answer_it() {
    let mut net = Net::new(0x56);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    let nobody = SocketAddr::new(stock.addr.ip(), 0);
    let initiation = stock.initiation();
    let drops = drops_during(&mut net, A, |net| {
        net.inject(nobody, A, &initiation);
        net.inject_frame(
            A,
            0,
            udp_frame(nobody, None, &[initiation.clone(), initiation.clone()]),
        );
    });
    assert_eq!(drops, [(DropReason::OuterSource, 3)]);
    assert!(net.captured.is_empty());
    stock.connect(&mut net);
}

#[test]
fn a_v4_mapped_source_is_answered_where_it_came_from() {
    let mut net = Net::new(0x57);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    let mapped = Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped();
    stock.addr = SocketAddr::new(IpAddr::V6(mapped), 1234);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
    assert!(
        net.captured
            .iter()
            .all(|datagram| datagram.to == stock.addr)
    );
}

#[test]
fn a_train_whose_length_its_step_does_not_divide_has_a_short_last_datagram() {
    let mut net = pair(0x58);
    for (len, step, reasons) in [
        (
            148 * 2 + 3,
            148,
            vec![(DropReason::OuterType, 1), (DropReason::HandshakeBadMac, 2)],
        ),
        (
            148 * 2 + 60,
            148,
            vec![
                (DropReason::OuterLength, 1),
                (DropReason::HandshakeBadMac, 2),
            ],
        ),
    ] {
        let mut bytes = message(1, 148).repeat(3);
        bytes.truncate(len);
        let frame = UdpFrame {
            buf: FrameBuf::from_data(&bytes),
            segment_len: step,
            endpoint: Endpoint::from(stranger()),
            tos: 0,
        };
        assert_eq!(
            drops_during(&mut net, A, |net| net.inject_frame(A, 0, frame)),
            reasons
        );
    }
    assert_works(&mut net);
}

#[test]
fn a_step_beyond_the_frame_means_one_datagram() {
    let mut net = pair(0x59);
    let frame = UdpFrame {
        buf: FrameBuf::from_data(&message(1, 148)),
        segment_len: 60_000,
        endpoint: Endpoint::from(stranger()),
        tos: 0,
    };
    let drops = drops_during(&mut net, A, |net| net.inject_frame(A, 0, frame));
    assert_eq!(drops, [(DropReason::HandshakeBadMac, 1)]);
    assert_works(&mut net);
}

#[test]
fn a_full_frame_in_steps_of_one_byte_ends_as_drops() {
    let mut net = pair(0x5a);
    let frame = || UdpFrame {
        buf: FrameBuf::from_data(&[4; FRAME_DATA_MAX]),
        segment_len: 1,
        endpoint: Endpoint::from(stranger()),
        tos: 0,
    };
    let before = net.site(A).counters();
    net.inject_frame(A, 0, frame());
    let after = net.site(A).counters();
    assert_eq!(after.rx_udp - before.rx_udp, FRAME_DATA_MAX as u64);
    assert_eq!(after.dropped() - before.dropped(), FRAME_DATA_MAX as u64);
    assert_works(&mut net);
}

#[test]
fn an_unknown_index_is_dropped() {
    let mut net = pair_of(
        0x5b,
        SiteOptions {
            workers: 2,
            ..SiteOptions::default()
        },
    );
    let mut data = message(4, 64);
    let indices: [u32; 4] = [0, 0x0000_0100, 0x1234_0042, 0x1234_0142];
    let drops = drops_during(&mut net, A, |net| {
        for index in indices {
            data[4..8].copy_from_slice(&index.to_le_bytes());
            net.inject(stranger(), A, &data);
        }
    });
    assert_eq!(drops, [(DropReason::UnknownIndex, 4)]);
    assert_works(&mut net);
}

#[test]
fn an_index_that_names_a_worker_that_does_not_exist_is_dropped_where_it_arrives() {
    let mut net = pair_of(
        0x5c,
        SiteOptions {
            workers: 3,
            ..SiteOptions::default()
        },
    );
    for worker in [3u8, 4, 127, 255] {
        for (kind, len, at) in [(4, 64, 4), (3, 64, 4), (2, 92, 8)] {
            let mut datagram = message(kind, len);
            datagram[at..at + 4].copy_from_slice(&[1, worker, 0x12, 0x34]);
            for entry in 0..3 {
                net.site_mut(A).steering = Steering::Fixed(WorkerId(entry));
                let before = net.site(A).counters();
                net.inject(stranger(), A, &datagram);
                let after = net.site(A).counters();
                assert_eq!(
                    drops_since(&before, &after),
                    [(DropReason::UnknownIndex, 1)]
                );
                assert_eq!(after.handed_out, before.handed_out);
            }
        }
    }
    assert_works(&mut net);
}

#[test]
fn a_removed_peer_s_index_is_unknown_from_then_on() {
    let mut net = pair(0x5d);
    net.edit(A, |specs| {
        specs.remove(&peer_id(B));
    });
    let drops = drops_during(&mut net, A, |net| {
        net.send(B, 0, &Packet::udp(B, A, b"x").build());
        net.run_for(ROUND);
    });
    assert_eq!(drops, [(DropReason::UnknownIndex, 1)]);
}

#[test]
fn noise_of_every_length_and_type_only_raises_counters() {
    let mut net = pair(0x5e);
    let mut dice = Dice::new(0x5e);
    let before = net.site(A).counters();
    for len in 0..600 {
        for kind in 0..6u32 {
            let mut datagram = dice.bytes(len);
            if len >= 4 {
                datagram[..4].copy_from_slice(&kind.to_le_bytes());
            }
            net.inject(stranger(), A, &datagram);
        }
    }
    let after = net.site(A).counters();
    assert_eq!(after.dropped() - before.dropped(), 3600);
    assert_eq!(after.tx_tun, before.tx_tun);
    assert_works(&mut net);
}
