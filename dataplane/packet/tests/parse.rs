//! Parsing: every kind of packet, every way to be broken, and etherparse as a second opinion.

mod common;

use std::net::IpAddr;

use common::{Dice, Spec, TCP, UDP};
use patronus_packet::parse::{EXTENSIONS_MAX, ICMP, ICMPV6, SCTP};
use patronus_packet::{Fragment, IpVersion, PacketInfo, ParseError, parse};
use proptest::prelude::*;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An IPv4 packet of any protocol.
fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Spec::default().build();
    packet.truncate(20);
    packet[9] = protocol;
    packet.extend(payload);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet
}

/// An IPv6 packet: extension headers, each with its type and bytes without the "next" byte, then a payload.
fn v6(extensions: &[(u8, &[u8])], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let spec = Spec {
        is_v6: true,
        ..Spec::default()
    };
    let mut packet = spec.build();
    packet.truncate(40);
    let mut types: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
    types.push(protocol);
    packet[6] = types[0];
    for ((_, rest), next) in extensions.iter().zip(&types[1..]) {
        packet.push(*next);
        packet.extend(*rest);
    }
    packet.extend(payload);
    let len = packet.len() as u16 - 40;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}

fn fragment_header(offset: u16, more: bool) -> [u8; 7] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    [0, high, low, 0, 0, 0, 9]
}

const UDP_HEADER: [u8; 8] = [0, 10, 0, 20, 0, 8, 0, 0];

#[test]
fn a_tcp_packet_over_ipv4_is_read_whole() {
    let spec = Spec {
        tos: 0xb9,
        ip_options: vec![1; 8],
        tcp_options: vec![1; 12],
        payload: vec![0; 5],
        ..Spec::default()
    };
    let info = parse(&spec.build()).unwrap();
    assert_eq!(
        (info.key.src, info.key.dst),
        (ip("10.20.30.1"), ip("10.20.30.2"))
    );
    assert_eq!((info.key.src_port, info.key.dst_port), (40_000, 443));
    assert_eq!((info.version, info.protocol()), (IpVersion::V4, TCP));
    assert_eq!(
        (info.transport_offset, info.payload_offset, info.total_len),
        (28, 60, 65)
    );
    assert_eq!((info.fragment, info.tos), (Fragment::None, 0xb9));
    assert_eq!(info.payload_len(), 5);
    assert!(!info.is_plain());
}

#[test]
fn a_udp_packet_over_ipv6_is_read_whole() {
    let spec = Spec {
        is_v6: true,
        protocol: UDP,
        tos: 0xb9,
        extensions: 2,
        payload: vec![0; 5],
        ..Spec::default()
    };
    let info = parse(&spec.build()).unwrap();
    assert_eq!(info.key.src, ip("fd00:1:2:3:4:5:6:ab01"));
    assert_eq!(info.key.dst, ip("fd00:1:2:3:4:5:6:ab02"));
    assert_eq!((info.key.src_port, info.key.dst_port), (40_000, 443));
    assert_eq!((info.version, info.protocol()), (IpVersion::V6, UDP));
    assert_eq!(
        (info.transport_offset, info.payload_offset, info.total_len),
        (56, 64, 69)
    );
    assert_eq!(info.tos, 0xb9);
}

#[test]
fn bytes_beyond_the_ip_length_are_padding() {
    for is_v6 in [false, true] {
        let spec = Spec {
            is_v6,
            ..Spec::default()
        };
        let mut bytes = spec.build();
        let expected = parse(&bytes);
        bytes.extend([0xff; 15]);
        assert_eq!(parse(&bytes), expected);
        assert!(expected.is_ok());
    }
}

#[test]
fn an_echo_and_its_reply_are_one_flow() {
    for (protocol, request, reply, is_v6) in [(ICMP, 8, 0, false), (ICMPV6, 128, 129, true)] {
        let echo = |kind: u8| {
            let header = [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
            match is_v6 {
                true => v6(&[], protocol, &header),
                false => v4(protocol, &header),
            }
        };
        let request = parse(&echo(request)).unwrap().key;
        let reply = parse(&echo(reply)).unwrap().key;
        assert_eq!((request.src_port, request.dst_port), (0x1234, 0x1234));
        assert_eq!((reply.src_port, reply.dst_port), (0x1234, 0x1234));
    }
}

#[test]
fn other_protocols_have_no_ports() {
    let unreachable = [3, 1, 0, 0, 0xaa, 0xaa, 0xaa, 0xaa];
    for packet in [
        v4(ICMP, &unreachable),
        v4(47, &[0xff; 30]),
        v4(59, &[]),
        v6(&[], 59, &[]),
    ] {
        let key = parse(&packet).unwrap().key;
        assert_eq!((key.src_port, key.dst_port), (0, 0));
    }
    let sctp = parse(&v4(SCTP, &[0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!((sctp.key.src_port, sctp.key.dst_port), (7, 9));
}

#[test]
fn fragments_are_told_apart() {
    let with_offset = |high: u8, low: u8| {
        let mut packet = v4(UDP, &UDP_HEADER);
        packet[6..8].copy_from_slice(&[high, low]);
        let info = parse(&packet).unwrap();
        (info.fragment, info.key.dst_port)
    };
    assert_eq!(with_offset(0x40, 0), (Fragment::None, 20));
    assert_eq!(with_offset(0x20, 0), (Fragment::First, 20));
    assert_eq!(with_offset(0x20, 1), (Fragment::Later, 0));
    assert_eq!(with_offset(0x00, 1), (Fragment::Later, 0));

    let with_header = |offset, more| {
        let header = fragment_header(offset, more);
        let packet = v6(&[(FRAGMENT, &header)], UDP, &UDP_HEADER);
        let info = parse(&packet).unwrap();
        (info.fragment, info.key.dst_port, info.payload_offset)
    };
    assert_eq!(with_header(0, false), (Fragment::None, 20, 56));
    assert_eq!(with_header(0, true), (Fragment::First, 20, 56));
    assert_eq!(with_header(2, true), (Fragment::Later, 0, 48));
    assert_eq!(with_header(2, false), (Fragment::Later, 0, 48));
}

#[test]
fn a_later_fragment_may_hold_any_bytes() {
    let header = fragment_header(2, true);
    // The next header names an extension, but what follows is the middle of it.
    let packet = v6(&[(FRAGMENT, &header)], DESTINATION_OPTIONS, &[0xff; 3]);
    let info = parse(&packet).unwrap();
    assert_eq!(info.protocol(), DESTINATION_OPTIONS);
    assert_eq!(info.payload_offset, 48);
    let mut packet = v4(UDP, &[1, 2]);
    packet[7] = 9;
    assert_eq!(parse(&packet).unwrap().payload_offset, 20);
}

#[test]
fn every_extension_header_is_walked() {
    let packet = v6(
        &[
            (HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0]),
            (
                DESTINATION_OPTIONS,
                &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                ROUTING,
                &[
                    2, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8,
                ],
            ),
            // The authentication header counts in words of 4 bytes, less 2.
            (
                AUTHENTICATION,
                &[
                    4, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ],
        UDP,
        &UDP_HEADER,
    );
    let info = parse(&packet).unwrap();
    assert_eq!((info.protocol(), info.key.dst_port), (UDP, 20));
    assert_eq!(info.transport_offset, 40 + 8 + 16 + 24 + 24);
}

#[test]
fn chains_are_bounded_and_fragments_do_not_nest() {
    let header: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let chain = |count| {
        v6(
            &vec![(DESTINATION_OPTIONS, header); count],
            UDP,
            &UDP_HEADER,
        )
    };
    assert!(parse(&chain(EXTENSIONS_MAX)).is_ok());
    assert_eq!(
        parse(&chain(EXTENSIONS_MAX + 1)),
        Err(ParseError::ExtensionChain)
    );
    let fragment = fragment_header(0, true);
    let nested = v6(&[(FRAGMENT, &fragment as &[u8]); 2], UDP, &UDP_HEADER);
    assert_eq!(parse(&nested), Err(ParseError::ExtensionChain));
}

#[test]
fn every_broken_header_is_refused_by_name() {
    assert_eq!(parse(&[]), Err(ParseError::Empty));
    for version in [0, 1, 2, 3, 5, 7, 15] {
        let bytes = [version << 4 | 5; 60];
        assert_eq!(parse(&bytes), Err(ParseError::Version(version)));
    }
    let mut packet = v4(UDP, &UDP_HEADER);
    packet[0] = 0x44;
    assert_eq!(parse(&packet), Err(ParseError::HeaderLength(16)));
    packet[0] = 0x40;
    assert_eq!(parse(&packet), Err(ParseError::HeaderLength(0)));
    packet[0] = 0x4f;
    assert_eq!(parse(&packet), Err(ParseError::LengthBelowHeader(28)));
    packet[0] = 0x45;
    for len in [0, 1, 19] {
        packet[3] = len;
        let expected = ParseError::LengthBelowHeader(u16::from(len));
        assert_eq!(parse(&packet), Err(expected));
    }
    packet[3] = 29;
    let beyond = ParseError::LengthBeyondPacket {
        len: 29,
        present: 28,
    };
    assert_eq!(parse(&packet), Err(beyond));
    let mut packet = v6(&[], UDP, &UDP_HEADER);
    packet[5] = 9;
    let beyond = ParseError::LengthBeyondPacket {
        len: 49,
        present: 48,
    };
    assert_eq!(parse(&packet), Err(beyond));
    // An IPv6 packet can be longer than any frame.
    packet[4..6].fill(0xff);
    packet.resize(70_000, 0);
    let beyond = ParseError::LengthBeyondPacket {
        len: 65_575,
        present: 70_000,
    };
    assert_eq!(parse(&packet), Err(beyond));
}

#[test]
fn every_truncation_is_refused() {
    for spec in [
        Spec {
            tcp_options: vec![1; 8],
            ..Spec::default()
        },
        Spec {
            is_v6: true,
            extensions: 2,
            ..Spec::default()
        },
        Spec {
            protocol: UDP,
            ip_options: vec![1; 4],
            ..Spec::default()
        },
    ] {
        let packet = spec.build();
        for len in 0..packet.len() {
            assert!(parse(&packet[..len]).is_err(), "{len} bytes of {spec:?}");
            // The same cut, but honest in the IP length.
            let mut honest = packet[..len].to_vec();
            if spec.is_v6 && len >= 40 {
                honest[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
            } else if !spec.is_v6 && len >= 20 {
                honest[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            }
            let expected = match len {
                0 => ParseError::Empty,
                _ if len >= spec.transport_offset() => {
                    ParseError::TransportTruncated(spec.protocol)
                }
                20.. if !spec.is_v6 => ParseError::LengthBelowHeader(len as u16),
                _ => ParseError::HeaderTruncated,
            };
            assert_eq!(parse(&honest), Err(expected), "{len} bytes of {spec:?}");
        }
    }
}

#[test]
fn hostile_transport_headers_are_refused() {
    let mut tcp = Spec {
        payload: vec![0; 20],
        ..Spec::default()
    }
    .build();
    tcp[32] = 0x40;
    assert_eq!(parse(&tcp), Err(ParseError::TransportHeaderLength(16)));
    tcp[32] = 0xb0;
    assert_eq!(parse(&tcp), Err(ParseError::TransportTruncated(TCP)));
    tcp[32] = 0xa0;
    assert!(parse(&tcp).is_ok());
    assert_eq!(
        parse(&v4(ICMP, &[8, 0, 0, 0, 0, 0, 0])),
        Err(ParseError::TransportTruncated(ICMP))
    );
    assert_eq!(
        parse(&v4(SCTP, &[0; 11])),
        Err(ParseError::TransportTruncated(SCTP))
    );
}

#[test]
fn fragments_that_split_or_overwrite_the_transport_header_are_refused() {
    let mut first = v4(TCP, &[0; 16]);
    first[6] = 0x20;
    assert_eq!(parse(&first), Err(ParseError::TransportTruncated(TCP)));
    let mut second = v4(TCP, &[0; 16]);
    second[7] = 1;
    assert_eq!(parse(&second), Err(ParseError::FragmentOverlap));
    let header = fragment_header(1, false);
    let second = v6(&[(FRAGMENT, &header)], TCP, &[0; 16]);
    assert_eq!(parse(&second), Err(ParseError::FragmentOverlap));
}

#[test]
fn an_ipv6_length_of_zero_is_an_empty_packet_and_not_a_jumbogram() {
    let mut packet = v6(&[(HOP_BY_HOP, &[0, 0xc2, 4, 0, 1, 0, 0])], UDP, &UDP_HEADER);
    packet[4..6].fill(0);
    assert_eq!(parse(&packet), Err(ParseError::HeaderTruncated));
}

/// What must hold of anything that parses.
fn check_promises(bytes: &[u8], info: &PacketInfo) {
    assert!(info.transport_offset <= info.payload_offset);
    assert!(info.payload_offset <= info.total_len);
    assert!(usize::from(info.total_len) <= bytes.len());
    assert!(usize::from(info.transport_offset) >= info.version.header_len_min());
    assert_eq!(info.version == IpVersion::V4, info.key.src.is_ipv4());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 4u8..7) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 0x0f;
        }
        if let Ok(info) = parse(&bytes) {
            check_promises(&bytes, &info);
        }
    }

    #[test]
    fn etherparse_reads_the_same_from_damaged_packets(
        is_v6 in any::<bool>(),
        is_tcp in any::<bool>(),
        extensions in 0usize..4,
        seed in any::<u64>(),
        flips in 0usize..4,
    ) {
        let mut dice = Dice(seed);
        let spec = Spec {
            is_v6,
            protocol: if is_tcp { TCP } else { UDP },
            extensions,
            ip_options: vec![1; extensions * 4],
            payload: dice.bytes(40),
            ..Spec::default()
        };
        let mut bytes = spec.build();
        for _ in 0..flips {
            let at = dice.below(spec.header_len());
            bytes[at] ^= 1 << dice.below(8);
        }
        let Ok(info) = parse(&bytes) else { return Ok(()) };
        check_promises(&bytes, &info);
        let packet = &bytes[..usize::from(info.total_len)];
        let Ok(theirs) = etherparse::SlicedPacket::from_ip(packet) else { return Ok(()) };
        let ports = match theirs.transport {
            Some(etherparse::TransportSlice::Tcp(tcp)) => (TCP, tcp.source_port(), tcp.destination_port()),
            Some(etherparse::TransportSlice::Udp(udp)) => (UDP, udp.source_port(), udp.destination_port()),
            _ => return Ok(()),
        };
        // etherparse looks behind an IPv4 authentication header, as an IPsec host would.
        if info.version == IpVersion::V4 && info.protocol() == AUTHENTICATION {
            return Ok(());
        }
        prop_assert_eq!((info.protocol(), info.key.src_port, info.key.dst_port), ports);
    }
}
