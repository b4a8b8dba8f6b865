//! What policy wants to know of a packet beyond its flow: whether it opens a connection, which packet an ICMP error
//! is about, and which fragments belong together.
//!
//! Called for packets that [`parse`](crate::parse()) took; every byte may be hostile all the same. Nothing panics,
//! nothing is allocated, and every walk is bounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::FlowKey;
use crate::parse::{
    EXTENSIONS_MAX, Fragment, ICMP, ICMPV6, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpVersion,
    PacketInfo, SCTP, TCP, UDP,
};

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A packet like any other.
    Ordinary,
    /// Only who opens a connection sends it: a TCP SYN without ACK, an SCTP INIT, an echo request.
    Opening,
    /// An ICMP message about another packet, whose flow is told where it can be read. That flow is as its sender
    /// sees it, and the error goes back to him.
    Error(Option<FlowKey>),
}

/// What `packet`, of which `info` was parsed, is to its connection. A later fragment shows nothing of it.
#[inline]
pub fn role(packet: &[u8], info: &PacketInfo) -> Role {
    if info.fragment == Fragment::Later {
        return Role::Ordinary;
    }
    let transport = packet
        .get(usize::from(info.transport_offset)..usize::from(info.total_len))
        .unwrap_or(&[]);
    let byte = |at: usize| transport.get(at).copied().unwrap_or(0);
    let opening = match info.protocol() {
        TCP => byte(13) & (TCP_SYN | TCP_ACK) == TCP_SYN,
        // The first chunk; an INIT travels alone (RFC 9260 section 5.1).
        SCTP => transport.get(12) == Some(&SCTP_INIT),
        ICMP => match byte(0) {
            8 => true,
            3 | 11 | 12 => return Role::Error(quoted_v4(transport)),
            // Source quench and redirect: nobody should heed them from afar (RFC 6633, RFC 1812 section 5.2.7.2).
            4 | 5 => return Role::Error(None),
            _ => false,
        },
        ICMPV6 => match byte(0) {
            128 => true,
            1..=4 => return Role::Error(quoted_v6(transport)),
            // Errors to come (RFC 4443 section 2.1), and redirects.
            0 | 5..=127 | 137 => return Role::Error(None),
            _ => false,
        },
        _ => false,
    };
    match opening {
        true => Role::Opening,
        false => Role::Ordinary,
    }
}

/// The number that the fragments of one packet share; `None` for a whole packet.
pub fn fragment_id(packet: &[u8], info: &PacketInfo) -> Option<u32> {
    if info.fragment == Fragment::None {
        return None;
    }
    match info.version {
        IpVersion::V4 => {
            let id: [u8; 2] = packet.get(4..6)?.try_into().ok()?;
            Some(u32::from(u16::from_be_bytes(id)))
        }
        IpVersion::V6 => {
            let chain = walk(packet)?;
            let id: [u8; 4] = packet
                .get(chain.fragment? + 4..)?
                .get(..4)?
                .try_into()
                .ok()?;
            Some(u32::from_be_bytes(id))
        }
    }
}

/// The flow of the packet behind an ICMP error's eight bytes. It is cut off, so its lengths mean nothing.
fn quoted_v4(icmp: &[u8]) -> Option<FlowKey> {
    let quote = icmp.get(ERROR_HEADER_LEN..)?;
    let header = quote.first_chunk::<IPV4_HEADER_LEN>()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN || !is_first {
        return None;
    }
    let addr = |at: usize| {
        let octets = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    key_of(addr(12), addr(16), header[9], quote.get(header_len..)?)
}

fn quoted_v6(icmp: &[u8]) -> Option<FlowKey> {
    let quote = icmp.get(ERROR_HEADER_LEN..)?;
    let header = quote.first_chunk::<IPV6_HEADER_LEN>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let chain = walk(quote)?;
    if chain.is_later {
        return None;
    }
    let addr = |at: usize| {
        let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    key_of(
        addr(8)?,
        addr(24)?,
        chain.protocol,
        quote.get(chain.offset..)?,
    )
}

/// The same key as [`parse`](crate::parse) gives the whole packet.
fn key_of(src: IpAddr, dst: IpAddr, protocol: u8, transport: &[u8]) -> Option<FlowKey> {
    let word = |at: usize| {
        let bytes: [u8; 2] = transport.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let kind = transport.first().copied();
    let (src_port, dst_port) = match (protocol, kind) {
        (TCP | UDP | SCTP, _) => (word(0)?, word(2)?),
        (ICMP, Some(8 | 0)) | (ICMPV6, Some(128 | 129)) => (word(4)?, word(4)?),
        // An error is never answered with an error, so whoever quotes one lies.
        (ICMP, Some(3 | 4 | 5 | 11 | 12)) | (ICMPV6, Some(0..=127)) => return None,
        _ => (0, 0),
    };
    Some(FlowKey {
        src,
        dst,
        src_port,
        dst_port,
        protocol,
    })
}

/// Where the extension headers of an IPv6 packet end, that may be cut off.
struct Chain {
    protocol: u8,
    offset: usize,
    /// Where the fragment header is.
    fragment: Option<usize>,
    is_later: bool,
}

fn walk(packet: &[u8]) -> Option<Chain> {
    let mut chain = Chain {
        protocol: *packet.get(6)?,
        offset: IPV6_HEADER_LEN,
        fragment: None,
        is_later: false,
    };
    for _ in 0..=EXTENSIONS_MAX {
        if !matches!(chain.protocol, 0 | 43 | 44 | 51 | 60) || chain.is_later {
            return Some(chain);
        }
        let header = packet.get(chain.offset..)?.first_chunk::<8>()?;
        let len = match chain.protocol {
            44 => {
                chain.fragment = Some(chain.offset);
                chain.is_later = u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
                8
            }
            51 => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        chain.protocol = header[0];
        chain.offset += len;
    }
    None
}

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;
const SCTP_INIT: u8 = 1;
/// Type, code, checksum and four bytes that depend on the type, in ICMP and ICMPv6 alike.
const ERROR_HEADER_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse;

    fn v4(protocol: u8, flags_and_offset: u16, transport: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend(((20 + transport.len()) as u16).to_be_bytes());
        packet.extend([0xab, 0xcd]);
        packet.extend(flags_and_offset.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 1, 0, 2]);
        packet.extend(transport);
        packet
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((rest.len() as u16).to_be_bytes());
        packet.extend([next, 64]);
        packet.extend([0xfd; 16]);
        packet.extend([0xfe; 16]);
        packet.extend(rest);
        packet
    }

    fn role_of(packet: &[u8]) -> Role {
        role(packet, &parse(packet).expect("a sound packet"))
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut header = vec![0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags];
        header.extend([0; 6]);
        header
    }

    #[test]
    fn a_syn_without_ack_opens_and_nothing_else_of_tcp_does() {
        for flags in 0..=255 {
            let expected = match flags & 0x12 {
                0x02 => Role::Opening,
                _ => Role::Ordinary,
            };
            assert_eq!(role_of(&v4(TCP, 0, &tcp(flags))), expected, "{flags:#x}");
            assert_eq!(role_of(&v6(TCP, &tcp(flags))), expected, "{flags:#x}");
        }
    }

    #[test]
    fn an_init_and_an_echo_request_open() {
        let sctp = |chunk| [&[0; 12][..], &[chunk, 0, 0, 4]].concat();
        assert_eq!(role_of(&v4(SCTP, 0, &sctp(1))), Role::Opening);
        assert_eq!(role_of(&v4(SCTP, 0, &sctp(2))), Role::Ordinary);
        assert_eq!(
            role_of(&v4(ICMP, 0, &[8, 0, 0, 0, 0, 7, 0, 1])),
            Role::Opening
        );
        assert_eq!(
            role_of(&v4(ICMP, 0, &[0, 0, 0, 0, 0, 7, 0, 1])),
            Role::Ordinary
        );
        assert_eq!(
            role_of(&v6(ICMPV6, &[128, 0, 0, 0, 0, 7, 0, 1])),
            Role::Opening
        );
        assert_eq!(role_of(&v4(UDP, 0, &[0; 8])), Role::Ordinary);
        // The same bytes in a later fragment are payload.
        assert_eq!(role_of(&v4(TCP, 2, &tcp(2))), Role::Ordinary);
    }

    #[test]
    fn an_error_tells_the_flow_of_what_it_quotes_even_cut_off() {
        for packet in [
            v4(TCP, 0, &tcp(0x10)),
            v4(UDP, 0, &[1, 2, 3, 4, 0, 8, 0, 0]),
            v4(ICMP, 0, &[8, 0, 0, 0, 0, 7, 0, 1]),
        ] {
            let expected = parse(&packet).unwrap().key;
            let error = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &packet[..28]].concat();
            assert_eq!(role_of(&v4(ICMP, 0, &error)), Role::Error(Some(expected)));
        }
        let mut options = vec![UDP, 0];
        options.extend([0; 6]);
        options.extend([1, 2, 3, 4, 0, 8, 0, 0]);
        let packet = v6(60, &options);
        let expected = parse(&packet).unwrap().key;
        let error = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &packet].concat();
        assert_eq!(role_of(&v6(ICMPV6, &error)), Role::Error(Some(expected)));
    }

    #[test]
    fn an_error_whose_quote_says_nothing_is_still_an_error() {
        let inner_error = v4(ICMP, 0, &[3, 0, 0, 0, 0, 0, 0, 0]);
        let later = v4(UDP, 5, &[0; 8]);
        let other_family = v6(UDP, &[0; 8]);
        for quote in [&inner_error[..], &later, &other_family, &[], &[0x45; 19]] {
            let error = [&[11, 0, 0, 0, 0, 0, 0, 0][..], quote].concat();
            assert_eq!(role_of(&v4(ICMP, 0, &error)), Role::Error(None));
        }
        for kind in [4, 5] {
            let quote = v4(UDP, 0, &[0; 8]);
            let redirect = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quote].concat();
            assert_eq!(role_of(&v4(ICMP, 0, &redirect)), Role::Error(None));
        }
    }

    #[test]
    fn fragments_of_one_packet_share_their_number() {
        let id = |packet: &[u8]| fragment_id(packet, &parse(packet).unwrap());
        assert_eq!(id(&v4(UDP, 0x2000, &[0; 8])), Some(0xabcd));
        assert_eq!(id(&v4(UDP, 0x0005, &[0; 8])), Some(0xabcd));
        assert_eq!(id(&v4(UDP, 0, &[0; 8])), None);
        // Destination options stand behind the fragment header of the first fragment only.
        let first = [&[60, 0, 0, 1, 1, 2, 3, 4, UDP, 0][..], &[0; 14]].concat();
        let later = [&[60, 0, 0, 9, 1, 2, 3, 4][..], &[0; 8]].concat();
        assert_eq!(id(&v6(44, &first)), Some(0x0102_0304));
        assert_eq!(id(&v6(44, &later)), Some(0x0102_0304));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            shape in 0usize..4,
        ) {
            // Mostly ICMP errors, so that the quotes are read.
            if bytes.len() >= 60 {
                let len = (bytes.len() as u16).to_be_bytes();
                match shape {
                    0 => {
                        bytes[..10].copy_from_slice(&[0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, ICMP]);
                        bytes[20] = 3;
                        bytes[28] = 0x40 | bytes[28] & 0x0f;
                    }
                    1 => {
                        let len = (bytes.len() as u16 - 40).to_be_bytes();
                        bytes[..7].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], ICMPV6]);
                        bytes[40] = 1;
                        bytes[48] = 0x60;
                    }
                    _ => {}
                }
            }
            if let Ok(info) = parse(&bytes) {
                let id = fragment_id(&bytes, &info);
                prop_assert_eq!(id.is_some(), info.fragment != Fragment::None);
                role(&bytes, &info);
            }
            // What follows from a parsed packet must not be needed for safety.
            if let Ok(info) = parse(&v4(ICMP, 0, &[3; 40])) {
                role(&bytes, &info);
                fragment_id(&bytes, &info);
            }
        }
    }
}
