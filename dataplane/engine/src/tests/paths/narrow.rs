//! Paths that take less than the tunnel's MTU, and traffic classes across the tunnel.

use patronus_impair::Probability;
use patronus_packet::{IpVersion, parse};

use super::*;

const DF: u8 = 0x40;
/// Bytes of outer IP that the hole lets pass, and of inner IP that are left (RFC 791, WireGuard: 20 + 8 + 32).
const HOLE: u16 = 1300;
const INNER: usize = HOLE as usize - 60;
const CE: u8 = 0b11;
const ECT_0: u8 = 0b10;

/// Two sites with one way between them, which drops what is longer than [`HOLE`], after it was found out.
fn narrow_world(seed: u64) -> Net {
    let world = World {
        uplinks: 1,
        ..TWO_BY_TWO
    };
    let mut net = world.build(seed);
    set_path(&mut net, 0, hole());
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, Duration::from_secs(10), Duration::from_millis(20));
    let [path] = &board(&net, A, B)[..] else {
        panic!("one path");
    };
    // Not wider than the hole, and near it.
    let mtu = path.metrics.mtu.expect("the MTU was looked for");
    assert!((HOLE - 32..=HOLE).contains(&mtu), "{mtu}");
    net.take_delivered(A);
    net.take_delivered(B);
    net
}

fn hole() -> Impairment {
    Impairment {
        mtu: Some(u32::from(HOLE).try_into().expect("an MTU")),
        ..good()
    }
}

/// The packet with "don't fragment" or without, and a traffic class.
fn with_header(packet: &Packet, df: u8, tos: u8) -> Vec<u8> {
    let mut bytes = packet.build();
    (bytes[1], bytes[6]) = (tos, df);
    bytes[10..12].fill(0);
    let sum = checksum::sum(&bytes[..20]).finish();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn delivered(net: &mut Net, at: SiteId) -> Vec<Vec<u8>> {
    net.run_for(ROUND);
    net.take_delivered(at)
}

#[test]
fn a_sender_that_forbids_fragments_is_told_the_mtu() {
    let mut net = narrow_world(0x301);
    let v4 = Packet::udp(A, B, &payload(1, 1300));
    let packets = [with_header(&v4, DF, 0), v4.clone().over_v6().build()];
    for (packet, [kind, code], mtu_at) in
        [(&packets[0], [3, 4], 20 + 6), (&packets[1], [2, 0], 40 + 6)]
    {
        let drops = drops_during(&mut net, A, |net| net.send(A, 0, packet));
        assert_eq!(drops, [(DropReason::PathMtu, 1)]);
        assert_eq!(delivered(&mut net, B), Vec::<Vec<u8>>::new());
        let told = delivered(&mut net, A);
        let [told] = &told[..] else {
            panic!("one answer: {told:?}")
        };
        let info = parse(told).expect("a packet");
        let header_len = info.version.header_len_min();
        assert_eq!(told[header_len..][..2], [kind, code]);
        let mtu = usize::from(u16::from_be_bytes([told[mtu_at], told[mtu_at + 1]]));
        assert!((INNER - 32..=INNER).contains(&mtu), "{mtu}");
        // It quotes the packet, for its sender to know which connection is meant.
        assert!(packet.starts_with(&told[header_len + 8..]));
        // What the sender makes of it passes.
        let fitting = Packet {
            payload: payload(2, mtu - header_len - 8 - MARKER.len() - 4),
            ..match info.version {
                IpVersion::V4 => v4.clone(),
                IpVersion::V6 => v4.clone().over_v6(),
            }
        };
        let fitting = fitting.build();
        assert_eq!(fitting.len(), mtu);
        net.send(A, 0, &fitting);
        assert_eq!(delivered(&mut net, B), [fitting]);
    }
}

#[test]
fn a_packet_that_may_be_fragmented_arrives_in_pieces() {
    let mut net = narrow_world(0x302);
    let bytes = payload(3, 1300);
    let packet = with_header(&Packet::udp(A, B, &bytes), 0, 0);
    let before = net.site(A).counters();
    net.send(A, 0, &packet);
    let pieces = delivered(&mut net, B);
    assert_eq!(pieces.len(), 2);
    let mut joined = vec![0; packet.len() - 20];
    for piece in &pieces {
        let at = usize::from(u16::from_be_bytes([piece[6] & 0x1f, piece[7]])) * 8;
        joined[at..at + piece.len() - 20].copy_from_slice(&piece[20..]);
    }
    assert_eq!(joined, packet[20..]);
    let after = net.site(A).counters();
    assert_eq!(after.divided - before.divided, 1);
    assert_eq!(after.dropped(), before.dropped());
    // A superpacket of datagrams likewise: each of them in pieces.
    let packet = Packet {
        ports: (7, 53),
        ..Packet::udp(A, B, &payload(4, 1350 * 9))
    };
    let mut frame = packet.superpacket(1360);
    frame.buf.data_mut()[6] = 0;
    net.send_frame(A, 0, frame);
    let count = packet.segments(1360).len();
    assert_eq!(delivered(&mut net, B).len(), 2 * count);
}

#[test]
fn a_stream_is_cut_smaller_and_nothing_of_it_is_lost() {
    let mut net = narrow_world(0x303);
    for packet in [
        Packet::tcp(A, B, &payload(5, 40_000)),
        Packet::tcp(A, B, &payload(6, 40_000)).over_v6(),
    ] {
        let at = packet.header_len();
        net.send_frame(A, 0, packet.superpacket(1360));
        let segments = delivered(&mut net, B);
        assert!(segments.iter().all(|it| it.len() <= INNER));
        let joined: Vec<u8> = segments.iter().flat_map(|it| it[at..].to_vec()).collect();
        assert_eq!(joined, packet.payload);
        // One packet that is too long, too.
        let single = Packet {
            payload: payload(7, 1300),
            ..packet
        };
        net.send(A, 0, &single.build());
        let segments = delivered(&mut net, B);
        assert_eq!(segments.len(), 2);
        let joined: Vec<u8> = segments.iter().flat_map(|it| it[at..].to_vec()).collect();
        assert_eq!(joined, single.payload);
    }
    assert_eq!(net.site(A).counters().drops_by_reason().count(), 0);
    // Meanwhile its sender learns to make smaller ones.
    assert!(net.site(A).counters().too_big_told > 0);
}

/// A SYN that announces an MSS.
fn syn(from: SiteId, to: SiteId, mss: u16) -> Vec<u8> {
    let mut packet = Packet {
        flags: 0x02,
        ..Packet::tcp(from, to, &[])
    }
    .build();
    packet[32] = 0x60;
    packet.extend([2, 4]);
    packet.extend(mss.to_be_bytes());
    packet[2..4].copy_from_slice(&44u16.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::sum(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[36..38].fill(0);
    let pseudo = checksum::pseudo_header(host(from, 1), host(to, 1), TCP, 24);
    let sum = pseudo.plus(checksum::sum(&packet[20..])).finish();
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn new_connections_learn_a_segment_size_that_fits() {
    let mut net = narrow_world(0x304);
    for (from, to) in [(A, B), (B, A)] {
        net.send(from, 0, &syn(from, to, 1460));
        let arrived = delivered(&mut net, to);
        let [arrived] = &arrived[..] else {
            panic!("one packet")
        };
        let mss = u16::from_be_bytes([arrived[42], arrived[43]]);
        assert!((INNER - 40 - 32..=INNER - 40).contains(&usize::from(mss)));
        assert_eq!(*arrived, syn(from, to, mss), "its checksum is right");
        net.send(from, 0, &syn(from, to, 536));
        assert_eq!(delivered(&mut net, to), [syn(from, to, 536)]);
    }
    // Without any narrow path it is the tunnel's MTU that counts.
    let mut net = pair(0x305);
    net.send(A, 0, &syn(A, B, 1460));
    let mtu = SiteOptions::default().mtu as u16;
    assert_eq!(delivered(&mut net, B), [syn(A, B, mtu - 40)]);
}

#[test]
fn a_path_that_widens_is_used_in_full_again() {
    let mut net = narrow_world(0x306);
    set_path(&mut net, 0, good());
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(
        &mut net,
        Duration::from_secs(900),
        Duration::from_millis(100),
    );
    let packet = with_header(&Packet::udp(A, B, &payload(8, 1300)), DF, 0);
    net.take_delivered(B);
    net.send(A, 0, &packet);
    assert_eq!(delivered(&mut net, B), [packet]);
}

#[test]
fn networks_between_the_sites_see_the_class_and_their_marks_arrive() {
    let mut net = pair(0x307);
    let tos_of = |net: &mut Net, tos: u8| {
        net.take_captured();
        let packet = with_header(&Packet::udp(A, B, &payload(9, 100)), DF, tos);
        net.send(A, 0, &packet);
        let outer = net.captured.last().expect("it was sent").tos;
        let arrived = delivered(net, B);
        (outer, arrived.first().map(|packet| packet[1]))
    };
    for tos in [0, EF << 2, EF << 2 | ECT_0, 0b01, CE] {
        assert_eq!(tos_of(&mut net, tos), (tos, Some(tos)));
    }
    let marking = Impairment {
        mark_ce: Probability::from_percent(100.0).expect("a percentage"),
        ..good()
    };
    net.set_path_both(Uplink(A, 0), Uplink(B, 0), marking);
    let tos = EF << 2 | ECT_0;
    assert_eq!(tos_of(&mut net, tos), (tos, Some(EF << 2 | CE)));
    assert_eq!(net.site(B).counters().congestion_marked, 1);
    assert_eq!(tos_of(&mut net, 0b01), (0b01, Some(CE)));
    // The marks of who does not understand them: whether routers may set them is the emulator's business.
    let frame_tos = CE;
    net.set_path_both(Uplink(A, 0), Uplink(B, 0), good());
    net.take_captured();
    net.send(
        A,
        0,
        &with_header(&Packet::udp(A, B, &payload(10, 100)), DF, 0),
    );
    let sent = net.captured.last().expect("it was sent");
    let mut frame = crate::sim::udp_frame(sent.from, None, std::slice::from_ref(&sent.bytes));
    frame.tos = frame_tos;
    let drops = drops_during(&mut net, B, |net| net.inject_frame(B, 0, frame));
    assert_eq!(drops, [(DropReason::CongestionUnmarkable, 1)]);
}
