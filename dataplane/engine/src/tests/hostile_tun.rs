//! Frames from the TUN that contradict themselves.

use patronus_packet::vnet::GSO_ECN;

use super::*;

/// Sends a frame into a pair with a session; its packets must end for that one reason.
#[track_caller]
fn assert_refused(frame: TunFrame, expected: (DropReason, u64)) {
    let mut net = pair(0x91);
    let drops = drops_during(&mut net, A, |net| net.send_frame(A, 0, frame));
    assert_eq!(drops, [expected]);
    assert!(net.captured.is_empty());
    assert_works(&mut net);
}

fn tcp() -> Packet {
    Packet::tcp(A, B, &payload(1, 5000))
}

fn udp() -> Packet {
    Packet::udp(A, B, &payload(1, 5000))
}

fn with(packet: &Packet, size: u16, change: impl FnOnce(&mut TunFrame)) -> TunFrame {
    let mut frame = packet.superpacket(size);
    change(&mut frame);
    frame
}

#[test]
fn frames_that_are_no_ip_packet_are_dropped() {
    for bytes in [
        &[][..],
        &[0x45],
        &[0; 40],
        &[0x45; 19],
        &[0x60; 39],
        &[0x70; 100],
    ] {
        let frame = TunFrame {
            buf: FrameBuf::from_data(bytes),
            ..TunFrame::default()
        };
        assert_refused(frame, (DropReason::TunMalformed, 1));
    }
}

#[test]
fn a_superpacket_cut_short_is_dropped() {
    for len in [1000, 100, 20] {
        assert_refused(
            with(&tcp(), 1000, |frame| frame.buf.set_len(len)),
            (DropReason::TunMalformed, 1),
        );
    }
}

#[test]
fn a_superpacket_with_segments_of_no_bytes_is_dropped() {
    assert_refused(tcp().superpacket(0), (DropReason::TunSuperpacket, 1));
    assert_refused(udp().superpacket(0), (DropReason::TunSuperpacket, 1));
}

#[test]
fn segments_of_one_byte_are_cut_up_to_the_limits() {
    let mut net = pair(0x92);
    let packet = Packet::tcp(A, B, &[5; 2048]);
    net.send_frame(A, 0, packet.superpacket(1));
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == packet.segments(1));
    let packet = Packet::udp(A, B, &[5; 128]);
    net.send_frame(A, 0, packet.superpacket(1));
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == packet.segments(1));
}

#[test]
fn more_segments_than_the_kernel_makes_are_dropped_and_each_is_counted() {
    assert_refused(
        Packet::udp(A, B, &[5; 129]).superpacket(1),
        (DropReason::TunSuperpacket, 129),
    );
    assert_refused(
        Packet::tcp(A, B, &[5; 2049]).superpacket(1),
        (DropReason::TunSuperpacket, 2049),
    );
    assert_refused(
        Packet::tcp(A, B, &[5; 65_000]).superpacket(1),
        (DropReason::TunSuperpacket, 65_000),
    );
}

#[test]
fn a_checksum_position_outside_or_in_the_wrong_place_is_dropped() {
    let single = |start: u16, offset: u16| {
        let mut frame = udp().superpacket(1);
        frame.vnet.gso_type = 0;
        (frame.vnet.csum_start, frame.vnet.csum_offset) = (start, offset);
        frame
    };
    for (start, offset) in [
        (0, 0),
        (0, 10),
        (12, 0),
        (20, 0),
        (20, 0xffff),
        (0xffff, 0xffff),
        (6000, 6),
    ] {
        assert_refused(single(start, offset), (DropReason::TunSuperpacket, 1));
    }
    let frame = with(&tcp(), 1000, |frame| frame.vnet.csum_start = 24);
    assert_refused(frame, (DropReason::TunSuperpacket, 6));
}

#[test]
fn an_unknown_kind_of_superpacket_is_dropped() {
    for kind in [2, 3, 6, 0x40, 0x7f] {
        assert_refused(
            with(&tcp(), 1000, |frame| frame.vnet.gso_type = kind),
            (DropReason::TunSuperpacket, 1),
        );
    }
}

#[test]
fn a_kind_that_contradicts_the_packet_is_dropped() {
    let cases = [
        with(&tcp(), 1000, |frame| {
            frame.vnet.gso_type = GsoKind::TcpV6.to_wire()
        }),
        with(&tcp(), 1000, |frame| {
            frame.vnet.gso_type = GsoKind::UdpL4.to_wire()
        }),
        with(&udp(), 1000, |frame| {
            frame.vnet.gso_type = GsoKind::TcpV4.to_wire()
        }),
        with(&udp(), 1000, |frame| frame.vnet.gso_type |= GSO_ECN),
    ];
    for frame in cases {
        assert_refused(frame, (DropReason::TunSuperpacket, 6));
    }
}

#[test]
fn a_lying_header_length_and_the_ecn_bit_do_no_harm() {
    let mut net = pair(0x93);
    for hdr_len in [0, 1, 39, 41, 2000, 0xffff] {
        let frame = with(&tcp(), 1000, |frame| {
            frame.vnet.hdr_len = hdr_len;
            frame.vnet.gso_type |= GSO_ECN;
        });
        net.send_frame(A, 0, frame);
        net.run_for(ROUND);
        assert!(
            net.take_delivered(B) == tcp().segments(1000),
            "hdr_len {hdr_len}"
        );
    }
}

#[test]
fn the_largest_packet_passes_whole() {
    let mut net = pair(0x94);
    let packet = Packet::udp(A, B, &vec![3; 65_535 - 28]).build();
    net.send(A, 0, &packet);
    net.run_for(ROUND);
    // Sealed it is larger than a datagram can be: the kernel would refuse it with EMSGSIZE.
    assert_eq!(net.captured[0].bytes.len(), 65_535 + 32);
    assert_works(&mut net);
}

#[test]
fn a_superpacket_on_fragments_is_dropped() {
    let frame = with(&udp(), 1000, |frame| frame.buf.data_mut()[6] = 0x20);
    assert_refused(frame, (DropReason::TunSuperpacket, 6));
}

#[test]
fn frames_are_refused_the_same_way_when_they_wait_or_change_workers() {
    let mut net = Net::mesh(
        0x95,
        2,
        SiteOptions {
            workers: 2,
            ..SiteOptions::default()
        },
    );
    // No session yet, and the frame comes in on the worker that does not own the peer.
    let drops = drops_during(&mut net, A, |net| {
        net.send_frame(A, 1, tcp().superpacket(0));
        net.send_frame(A, 1, with(&tcp(), 1000, |frame| frame.vnet.gso_type = 0x33));
        net.send_frame(A, 1, Packet::udp(A, B, &[5; 300]).superpacket(2));
    });
    assert_eq!(drops, [(DropReason::TunSuperpacket, 152)]);
    net.run_for(ROUND);
    assert_works(&mut net);
}
