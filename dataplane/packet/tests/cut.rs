//! Cutting against a segmenter that builds every packet anew, and against every way a frame can lie.

mod common;

use common::{ACK, CWR, Dice, FIN, PSH, Spec, TCP, UDP, has_right_checksums, naive_cut};
use patronus_packet::cut::{SEAL_OVERHEAD, TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX};
use patronus_packet::vnet::{GSO_ECN, NEEDS_CSUM};
use patronus_packet::{CutError, Cutter, FrameBuf, GsoKind, Padding, TunFrame, VnetHeader, parse};
use proptest::prelude::*;

const PADDING: Padding = Padding { mtu: 1420 };

/// All segments of a frame; checks lengths, padding and the bound on the way.
fn cut(frame: &mut TunFrame, padding: Padding) -> Result<Vec<Vec<u8>>, CutError> {
    let info = parse(frame.buf.data()).expect("the test's packet parses");
    let mut cutter = Cutter::new(frame, &info)?;
    let (count, sealed_max) = (cutter.segments(), cutter.sealed_len_max());
    let mut packets = Vec::new();
    let mut sealed = 0;
    while let Some(segment) = cutter.next_segment(padding) {
        let (packet, zeros) = segment.padded.split_at(segment.packet_len);
        assert!(zeros.iter().all(|byte| *byte == 0));
        assert_eq!(segment.padded.len(), padding.padded_len(packet.len()));
        sealed += segment.padded.len() + SEAL_OVERHEAD;
        packets.push(packet.to_vec());
    }
    assert_eq!(packets.len(), count);
    assert!(sealed <= sealed_max, "{sealed} > {sealed_max}");
    Ok(packets)
}

fn error_of(vnet: VnetHeader, packet: &[u8]) -> Option<CutError> {
    let mut frame = TunFrame {
        vnet,
        buf: FrameBuf::from_data(packet),
    };
    cut(&mut frame, PADDING).err()
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let network = (
        any::<bool>(),
        prop_oneof![Just(TCP), Just(UDP)],
        any::<u8>(),
        1u8..,
        any::<u16>(),
        any::<bool>(),
        0usize..=10,
        0usize..=3,
    );
    let transport = (
        any::<(u16, u16)>(),
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        any::<u16>(),
        0usize..=10,
    );
    (network, transport, any::<u64>()).prop_map(|(network, transport, seed)| {
        let (is_v6, protocol, tos, ttl, id, has_df, ip_words, extensions) = network;
        let (ports, seq, ack, flags, window, tcp_words) = transport;
        let mut dice = Dice(seed);
        Spec {
            is_v6,
            protocol,
            hosts: (3, 9),
            ports,
            tos,
            ttl,
            id,
            has_df,
            ip_options: dice.bytes(ip_words * 4),
            extensions,
            flow_label: id,
            seq,
            ack,
            flags,
            window,
            tcp_options: dice.bytes(tcp_words * 4),
            payload: Vec::new(),
        }
    })
}

/// A superpacket, its segment size and an MTU: sizes from one byte up, many segments or one.
fn any_superpacket() -> impl Strategy<Value = (Spec, usize, Padding)> {
    let size = prop_oneof![1usize..40, 500usize..1500, Just(1380), Just(9000)];
    (
        any_spec(),
        size,
        1usize..100,
        0.0..1.0f64,
        60usize..1600,
        any::<u64>(),
    )
        .prop_map(|(mut spec, gso_size, count, last, mtu, seed)| {
            let room = 65_535 - spec.header_len();
            let last_len = ((gso_size as f64 * last) as usize).max(1);
            let len = ((count - 1) * gso_size + last_len).min(room);
            spec.payload = Dice(seed).bytes(len);
            (spec, gso_size, Padding { mtu })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn segments_are_those_of_the_naive_segmenter((spec, gso_size, padding) in any_superpacket()) {
        let mut frame = spec.frame(gso_size);
        let segments = cut(&mut frame, padding).unwrap();
        prop_assert_eq!(&segments, &spec.segments(gso_size));
        prop_assert!(segments.iter().all(|packet| has_right_checksums(packet)));
    }

    #[test]
    fn a_single_packet_is_finished_like_a_built_one(
        (spec, _, padding) in any_superpacket(),
    ) {
        let mut frame = spec.frame(0);
        let packets = cut(&mut frame, padding).unwrap();
        prop_assert_eq!(packets.len(), 1);
        prop_assert!(has_right_checksums(&packets[0]));
        let built = spec.build();
        let field = spec.transport_offset() + spec.checksum_offset();
        prop_assert_eq!(&packets[0][..field], &built[..field]);
        prop_assert_eq!(&packets[0][field + 2..], &built[field + 2..]);
    }

    #[test]
    fn a_finished_packet_is_left_alone(
        (spec, _, padding) in any_superpacket(),
        trailing in 0usize..40,
    ) {
        let packet = spec.build();
        let mut bytes = packet.clone();
        bytes.extend(vec![0xee; trailing.min(65_535 - packet.len())]);
        let mut frame = TunFrame { vnet: VnetHeader::default(), buf: FrameBuf::from_data(&bytes) };
        prop_assert_eq!(cut(&mut frame, padding).unwrap(), vec![packet]);
    }
}

#[test]
fn etherparse_agrees_with_the_checksums_of_the_builder() {
    for is_v6 in [false, true] {
        let spec = Spec {
            is_v6,
            tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: b"odd".to_vec(),
            ..Spec::default()
        };
        let bytes = spec.build();
        let sliced = etherparse::SlicedPacket::from_ip(&bytes).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("no TCP");
        };
        let expected = match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                    .unwrap()
            }
            etherparse::NetSlice::Ipv6(ip) => tcp
                .calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                .unwrap(),
            etherparse::NetSlice::Arp(_) => panic!("no ARP"),
        };
        assert_eq!(tcp.checksum(), expected);
    }
}

#[test]
fn the_two_naive_segmenters_agree() {
    let spec = Spec {
        flags: ACK | PSH,
        payload: Dice(1).bytes(5000),
        ..Spec::default()
    };
    let frame = spec.frame(1000);
    assert_eq!(naive_cut(frame.buf.data(), frame.vnet), spec.segments(1000));
}

#[test]
fn flags_that_belong_to_one_end_stay_there() {
    let spec = Spec {
        flags: ACK | PSH | FIN | CWR,
        payload: vec![1; 300],
        ..Spec::default()
    };
    let mut frame = spec.frame(100);
    assert_eq!(frame.vnet.gso_type & GSO_ECN, GSO_ECN);
    let flags: Vec<u8> = cut(&mut frame, PADDING)
        .unwrap()
        .iter()
        .map(|packet| packet[33])
        .collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | PSH | FIN]);
}

#[test]
fn sequence_numbers_and_identifications_wrap() {
    let spec = Spec {
        id: 0xffff,
        seq: 0xffff_ff00,
        payload: vec![1; 1024],
        ..Spec::default()
    };
    let last = cut(&mut spec.frame(512), PADDING).unwrap().pop().unwrap();
    assert_eq!(last[4..6], [0, 0]);
    assert_eq!(last[24..28], 0x100u32.to_be_bytes());
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_ones() {
    // The payload is the complement of all else, so that the sum comes to 0xffff and the checksum to 0.
    let mut spec = Spec {
        protocol: UDP,
        payload: vec![0; 2],
        ..Spec::default()
    };
    let built = spec.build();
    spec.payload = built[26..28].to_vec();
    for gso_size in [0, 2] {
        let packet = cut(&mut spec.frame(gso_size), PADDING)
            .unwrap()
            .pop()
            .unwrap();
        assert_eq!(packet[26..28], [0xff, 0xff]);
        assert!(has_right_checksums(&packet));
    }
}

#[test]
fn padding_stops_at_the_mtu_but_never_shortens_a_packet() {
    let padding = Padding { mtu: 1420 };
    assert_eq!(padding.padded_len(0), 0);
    assert_eq!(padding.padded_len(1), 16);
    assert_eq!(padding.padded_len(1408), 1408);
    assert_eq!(padding.padded_len(1409), 1420);
    assert_eq!(padding.padded_len(1420), 1420);
    assert_eq!(padding.padded_len(1421), 1421);
}

#[test]
fn the_largest_frame_is_padded_within_its_buffer() {
    let spec = Spec {
        payload: vec![0xaa; 65_535 - 40],
        ..Spec::default()
    };
    let padding = Padding { mtu: 1 << 20 };
    let mut frame = spec.frame(1448);
    assert_eq!(cut(&mut frame, padding).unwrap(), spec.segments(1448));
    assert_eq!(cut(&mut spec.frame(0), padding).unwrap().len(), 1);
}

#[test]
fn the_final_destination_behind_a_routing_header_keeps_its_checksum() {
    let mut spec = Spec {
        is_v6: true,
        extensions: 1,
        payload: vec![5; 250],
        ..Spec::default()
    };
    spec.hosts.1 = 77;
    let expected = spec.segments(100);
    let mut frame = spec.frame(100);
    // The header shows a waypoint; the checksum was computed for host 77.
    frame.buf.data_mut()[39] = 9;
    let info = parse(frame.buf.data()).unwrap();
    let mut cutter = Cutter::new(&mut frame, &info).unwrap();
    for packet in expected {
        let segment = cutter.next_segment(PADDING).unwrap();
        assert_eq!(segment.padded[40..packet.len()], packet[40..]);
    }
}

#[test]
fn a_lying_header_length_is_only_a_hint() {
    let spec = Spec {
        payload: vec![1; 3000],
        ..Spec::default()
    };
    for hdr_len in [0, 1, 39, 41, u16::MAX] {
        let mut frame = spec.frame(1000);
        frame.vnet.hdr_len = hdr_len;
        assert_eq!(cut(&mut frame, PADDING).unwrap(), spec.segments(1000));
    }
}

#[test]
fn every_contradiction_is_refused_by_name() {
    let tcp = Spec {
        payload: vec![1; 3000],
        ..Spec::default()
    };
    let udp = Spec {
        protocol: UDP,
        ..tcp.clone()
    };
    let tcp6 = Spec {
        is_v6: true,
        ..tcp.clone()
    };
    let good = tcp.frame(1000).vnet;
    let good_udp = udp.frame(1000).vnet;
    let packet = tcp.build();

    for gso_type in [2, 3, 6, 0x7f, 0xff, 0x83] {
        let vnet = VnetHeader { gso_type, ..good };
        assert_eq!(error_of(vnet, &packet), Some(CutError::GsoKind(gso_type)));
    }
    let no_size = VnetHeader {
        gso_size: 0,
        ..good
    };
    assert_eq!(error_of(no_size, &packet), Some(CutError::GsoSize));

    for (vnet, packet, kind, protocol) in [
        (good, udp.build(), GsoKind::TcpV4, UDP),
        (good, tcp6.build(), GsoKind::TcpV4, TCP),
        (tcp6.frame(1000).vnet, packet.clone(), GsoKind::TcpV6, TCP),
        (good_udp, packet.clone(), GsoKind::UdpL4, TCP),
    ] {
        let expected = CutError::Protocol { kind, protocol };
        assert_eq!(error_of(vnet, &packet), Some(expected));
    }
    let ecn_udp = VnetHeader {
        gso_type: good_udp.gso_type | GSO_ECN,
        ..good_udp
    };
    assert!(matches!(
        error_of(ecn_udp, &udp.build()),
        Some(CutError::Protocol { .. })
    ));

    for (start, offset) in [
        (19, 16),
        (21, 16),
        (20, 15),
        (0, 36),
        (40, 16),
        (65_535, 65_535),
    ] {
        let vnet = VnetHeader {
            csum_start: start,
            csum_offset: offset,
            ..good
        };
        let expected = CutError::ChecksumPosition { start, offset };
        assert_eq!(error_of(vnet, &packet), Some(expected));
    }
}

#[test]
fn a_single_packet_with_its_checksum_outside_is_refused() {
    let packet = Spec {
        payload: vec![1; 60],
        ..Spec::default()
    }
    .build();
    assert_eq!(packet.len(), 100);
    for (start, offset, is_fine) in [
        (20, 16, true),
        (20, 15, false),
        (20, 78, false),
        (24, 12, false),
        (40, 58, true),
        (40, 59, false),
        (98, 0, true),
        (99, 0, false),
        (100, 0, false),
        (0, 16, false),
        (19, 17, false),
        (65_535, 65_535, false),
    ] {
        let vnet = VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: start,
            csum_offset: offset,
            ..VnetHeader::default()
        };
        let expected = CutError::ChecksumPosition { start, offset };
        let expected = (!is_fine).then_some(expected);
        assert_eq!(error_of(vnet, &packet), expected, "{start}+{offset}");
    }
}

#[test]
fn fragments_with_offloads_are_refused_and_without_pass() {
    let mut packet = Spec {
        payload: vec![1; 3000],
        ..Spec::default()
    }
    .build();
    packet[6] = 0x20;
    let vnet = Spec::default().frame(1000).vnet;
    assert_eq!(error_of(vnet, &packet), Some(CutError::Fragment));
    let unfinished = Spec::default().frame(0).vnet;
    assert_eq!(error_of(unfinished, &packet), Some(CutError::Fragment));
    assert_eq!(error_of(VnetHeader::default(), &packet), None);
}

#[test]
fn more_segments_than_the_kernel_makes_are_refused() {
    let udp = |segments| {
        let spec = Spec {
            protocol: UDP,
            payload: vec![1; segments],
            ..Spec::default()
        };
        error_of(spec.frame(1).vnet, spec.frame(1).buf.data())
    };
    assert_eq!(udp(UDP_SEGMENTS_MAX), None);
    assert_eq!(
        udp(UDP_SEGMENTS_MAX + 1),
        Some(CutError::Segments(UDP_SEGMENTS_MAX + 1))
    );
    let tcp = Spec {
        payload: vec![1; TCP_SEGMENTS_MAX + 1],
        ..Spec::default()
    };
    assert_eq!(
        cut(&mut tcp.frame(1), PADDING),
        Err(CutError::Segments(TCP_SEGMENTS_MAX + 1))
    );
}

#[test]
fn a_frame_other_than_the_parsed_one_is_refused() {
    let spec = Spec {
        payload: vec![1; 3000],
        ..Spec::default()
    };
    let info = parse(&spec.build()).unwrap();
    let mut truncated = spec.frame(1000);
    truncated.buf.set_len(3039);
    assert_eq!(
        Cutter::new(&mut truncated, &info).err(),
        Some(CutError::Mismatch {
            len: 3040,
            present: 3039
        })
    );
}

#[test]
fn superpackets_without_payload_or_of_one_segment_are_cut_too() {
    for len in [0, 1, 999, 1000] {
        let spec = Spec {
            flags: ACK | PSH,
            payload: vec![1; len],
            ..Spec::default()
        };
        assert_eq!(
            cut(&mut spec.frame(1000), PADDING).unwrap(),
            spec.segments(1000)
        );
    }
}

#[test]
fn superpackets_whose_checksum_is_finished_are_cut_too() {
    let spec = Spec {
        payload: vec![1; 2500],
        ..Spec::default()
    };
    let mut frame = TunFrame {
        vnet: VnetHeader {
            flags: 0,
            csum_start: 0,
            csum_offset: 0,
            ..spec.frame(1000).vnet
        },
        buf: FrameBuf::from_data(&spec.build()),
    };
    assert_eq!(cut(&mut frame, PADDING).unwrap(), spec.segments(1000));
}
