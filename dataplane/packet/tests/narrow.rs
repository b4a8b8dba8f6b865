//! Narrow paths and traffic classes, against packets built anew.

mod common;

use common::{ACK, Dice, SYN, Spec, TCP, UDP, has_right_checksums};
use patronus_packet::narrow::{Fit, clamp_mss, fit, fragments, may_fragment, write_fragment};
use patronus_packet::{Cutter, FrameBuf, Padding, TunFrame, parse, tos};
use proptest::prelude::*;

const RST: u8 = 0x04;
const URG: u8 = 0x20;

fn stream(is_v6: bool, len: usize, dice: &mut Dice) -> Spec {
    Spec {
        is_v6,
        payload: (0..len).map(|_| dice.below(256) as u8).collect(),
        tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        flags: ACK | 0x08,
        ..Spec::default()
    }
}

fn packets_of(frame: &mut TunFrame, mtu: usize) -> Vec<Vec<u8>> {
    let info = parse(frame.buf.data()).expect("a packet");
    let mut cutter = Cutter::new(frame, &info).expect("a frame that can be cut");
    let mut packets = Vec::new();
    while let Some(segment) = cutter.next_segment(Padding { mtu }) {
        packets.push(segment.padded[..segment.packet_len].to_vec());
    }
    packets
}

proptest! {
    /// Whatever the kernel handed over, the path gets the very packets of a sender with a smaller MSS.
    #[test]
    fn a_stream_is_cut_as_its_sender_would_have(
        is_v6 in any::<bool>(),
        len in 1usize..9000,
        gso_size in prop_oneof![Just(0usize), 500usize..1500],
        mtu in 576usize..1500,
        is_finished in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let spec = stream(is_v6, len, &mut Dice(seed));
        let mut frame = spec.frame(gso_size);
        if is_finished && gso_size == 0 {
            frame = TunFrame { buf: FrameBuf::from_data(&spec.build()), ..TunFrame::default() };
        }
        let info = parse(frame.buf.data()).unwrap();
        let header_len = spec.header_len();
        let longest = match gso_size {
            0 => header_len + len,
            size => header_len + size.min(len),
        };
        match fit(&mut frame, &info, mtu) {
            Fit::Whole => prop_assert!(longest <= mtu),
            Fit::Resegmented(count) => {
                prop_assert!(longest > mtu);
                let packets = packets_of(&mut frame, mtu);
                prop_assert_eq!(packets.len(), count);
                prop_assert!(packets.iter().all(|packet| packet.len() <= mtu));
                prop_assert_eq!(packets, spec.segments(mtu - header_len));
            }
            Fit::TooBig => prop_assert!(false, "a stream can always be cut"),
        }
    }

    #[test]
    fn a_clamped_syn_is_the_syn_with_that_mss(
        is_v6 in any::<bool>(),
        nops in 0usize..4,
        announced in any::<u16>(),
        mtu in 576usize..1500,
        is_partial in any::<bool>(),
        port in any::<u16>(),
    ) {
        let syn = |mss: u16| {
            let mut tcp_options = vec![1; nops];
            tcp_options.extend([2, 4]);
            tcp_options.extend(mss.to_be_bytes());
            tcp_options.resize(8, 0);
            Spec { is_v6, tcp_options, flags: SYN, ports: (port, 443), ..Spec::default() }
        };
        let build = |mss| if is_partial { syn(mss).frame(0).buf.data().to_vec() } else { syn(mss).build() };
        let most = (mtu - if is_v6 { 60 } else { 40 }) as u16;
        let mut packet = build(announced);
        let info = parse(&packet).unwrap();
        let changed = clamp_mss(&mut packet, &info, mtu, is_partial);
        prop_assert_eq!(changed, announced > most);
        prop_assert_eq!(packet, build(announced.min(most)));
    }

    #[test]
    fn fragments_are_the_packet_in_pieces(
        len in 0usize..9000,
        option_words in 0usize..=10,
        mtu in 68usize..1500,
        again in 68usize..1500,
        seed in any::<u64>(),
    ) {
        let mut dice = Dice(seed);
        let packet = Spec {
            protocol: UDP,
            has_df: false,
            ip_options: vec![1; option_words * 4],
            payload: (0..len).map(|_| dice.below(256) as u8).collect(),
            ..Spec::default()
        }
        .build();
        prop_assert!(may_fragment(&packet));
        let cut = |packet: &[u8], mtu| -> Vec<Vec<u8>> {
            let header_len = 20 + option_words * 4;
            let count = fragments(packet.len(), header_len, mtu).unwrap();
            let mut room = [0; 1500];
            let pieces: Vec<Vec<u8>> = (0..count)
                .map(|index| {
                    let len = write_fragment(packet, mtu, index, &mut room).unwrap();
                    room[..len].to_vec()
                })
                .collect();
            assert_eq!(write_fragment(packet, mtu, count, &mut room).filter(|len| *len > header_len), None);
            pieces
        };
        // Twice, as two narrow links in a row would.
        let pieces = cut(&packet, mtu).into_iter().flat_map(|piece| cut(&piece, again));
        let (mut payload, mut at_end) = (vec![0; packet.len() - 20 - option_words * 4], false);
        for piece in pieces {
            prop_assert!(piece.len() <= mtu.min(again));
            prop_assert_eq!(common::naive_sum(&piece[..20 + option_words * 4]), 0xffff);
            prop_assert_eq!(usize::from(u16::from_be_bytes([piece[2], piece[3]])), piece.len());
            let place = u16::from_be_bytes([piece[6], piece[7]]);
            let (at, bytes) = (usize::from(place & 0x1fff) * 8, &piece[20 + option_words * 4..]);
            payload[at..at + bytes.len()].copy_from_slice(bytes);
            if place & 0x2000 == 0 {
                prop_assert_eq!(at + bytes.len(), payload.len());
                at_end = true;
            }
        }
        prop_assert!(at_end);
        prop_assert_eq!(&payload[..], &packet[20 + option_words * 4..]);
    }

    #[test]
    fn clamping_takes_any_options(options in proptest::collection::vec(any::<u8>(), 0..10), mtu in 0usize..70_000) {
        let tcp_options = options.iter().flat_map(|byte| [*byte, byte.wrapping_mul(7), 2, 4]).collect();
        let mut packet = Spec { tcp_options, flags: SYN | ACK, ..Spec::default() }.build();
        let info = parse(&packet).unwrap();
        clamp_mss(&mut packet, &info, mtu, false);
        prop_assert!(has_right_checksums(&packet));
    }

    #[test]
    fn another_class_is_the_packet_with_that_class(is_v6 in any::<bool>(), old in any::<u8>(), new in any::<u8>()) {
        let spec = |tos| Spec { is_v6, tos, flow_label: 0xbeef, ..Spec::default() };
        let mut packet = spec(old).build();
        let mut info = parse(&packet).unwrap();
        tos::set(&mut packet, &mut info, new);
        prop_assert_eq!(info.tos, new);
        prop_assert!(has_right_checksums(&packet));
        prop_assert_eq!(packet, spec(new).build());
    }
}

#[test]
fn what_is_no_stream_is_too_big() {
    let mut dice = Dice(1);
    let fit_of = |spec: Spec, gso_size: usize| {
        let mut frame = spec.frame(gso_size);
        let before = frame.vnet;
        let info = parse(frame.buf.data()).unwrap();
        let answer = fit(&mut frame, &info, 1000);
        assert_eq!(frame.vnet, before);
        answer
    };
    let big = stream(false, 1400, &mut dice);
    for flags in [SYN, RST | ACK, URG | ACK] {
        let spec = Spec {
            flags,
            ..big.clone()
        };
        assert_eq!(fit_of(spec, 0), Fit::TooBig, "{flags:#x}");
    }
    let udp = Spec {
        protocol: UDP,
        ..big.clone()
    };
    assert_eq!(fit_of(udp.clone(), 0), Fit::TooBig);
    assert_eq!(fit_of(udp.clone(), 1200), Fit::TooBig);
    assert_eq!(fit_of(udp, 900), Fit::Whole);
    assert_eq!(big.protocol, TCP);
}

#[test]
fn congestion_marks_leave_the_tunnel_as_rfc_6040_says() {
    // Figure 4, rows by the inner header, columns by the outer one: Not-ECT, ECT(0), ECT(1), CE.
    let outer = [0b00, 0b10, 0b01, 0b11];
    let rows: [(u8, [Option<u8>; 4]); 4] = [
        (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
        (0b10, [Some(0b10), Some(0b10), Some(0b01), Some(0b11)]),
        (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
        (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
    ];
    for (inner, row) in rows {
        for (outer, expected) in outer.into_iter().zip(row) {
            // Neither DSCP has a say, and the inner one stands.
            let found = tos::decapsulated(0xb8 | inner, 0x20 | outer);
            assert_eq!(
                found,
                expected.map(|ecn| 0xb8 | ecn),
                "{inner:#b} {outer:#b}"
            );
        }
    }
    for inner in 0..=255 {
        assert_eq!(tos::encapsulated(inner), inner);
    }
}

#[test]
fn what_forbids_fragments_is_left_whole() {
    let with_df = |has_df| Spec {
        has_df,
        ..Spec::default()
    };
    assert!(may_fragment(&with_df(false).build()));
    assert!(!may_fragment(&with_df(true).build()));
    let v6 = Spec {
        is_v6: true,
        ..Spec::default()
    };
    assert!(!may_fragment(&v6.build()));
    assert!(!may_fragment(&[]));
    assert_eq!(fragments(1000, 20, 27), None);
    assert_eq!(fragments(1000, 20, 19), None);
    assert_eq!(write_fragment(&[], 100, 0, &mut [0; 100]), None);
    assert_eq!(write_fragment(&[0x4f; 30], 100, 0, &mut [0; 100]), None);
}
