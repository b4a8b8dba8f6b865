//! What a packet is: reads IP and transport headers once, into a type that the other stages trust.
//!
//! Knows RFC 791, RFC 8200 and the transport headers as far as ports. Every byte may be hostile: all is
//! checked, nothing panics, nothing is allocated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flow::FlowKey;

/// What [`parse`] found out. Offsets and lengths are bytes from the start of the IP header and are all within
/// the packet: `transport_offset <= payload_offset <= total_len <= bytes.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// Who talks to whom, as this packet says it.
    pub key: FlowKey,
    /// The IP version.
    pub version: IpVersion,
    /// Length of the whole IP packet; bytes beyond it are padding.
    pub total_len: u16,
    /// Where the transport header starts, behind IPv4 options or IPv6 extension headers.
    pub transport_offset: u16,
    /// Where the transport payload starts. Equals `transport_offset` for later fragments and for protocols
    /// whose header is not read.
    pub payload_offset: u16,
    /// Whether this is a fragment, and which.
    pub fragment: Fragment,
    /// IPv4 TOS or IPv6 traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
}

impl PacketInfo {
    /// The transport protocol's number, behind all extension headers.
    pub fn protocol(&self) -> u8 {
        self.key.protocol
    }

    /// Bytes behind the transport header.
    pub fn payload_len(&self) -> usize {
        usize::from(self.total_len - self.payload_offset)
    }

    /// Whether the IP header is as short as its version allows: no options, no extension headers.
    pub fn is_plain(&self) -> bool {
        usize::from(self.transport_offset) == self.version.header_len_min()
    }
}

/// The IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// RFC 791
    V4,
    /// RFC 8200
    V6,
}

impl IpVersion {
    /// Length of the fixed header in bytes.
    pub fn header_len_min(self) -> usize {
        match self {
            Self::V4 => IPV4_HEADER_LEN,
            Self::V6 => IPV6_HEADER_LEN,
        }
    }
}

/// Place of a packet in a fragmented one. An IPv6 "atomic" fragment (RFC 6946) is a whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    None,
    /// The first fragment: it has the transport header.
    First,
    /// A later fragment: no transport header, ports unknown.
    Later,
}

/// Why bytes are no packet that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There are no bytes.
    #[error("the packet is empty")]
    Empty,
    /// The first nibble is neither 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    Version(u8),
    /// The bytes end within the IP header or an extension header.
    #[error("the packet ends within its IP header")]
    HeaderTruncated,
    /// The IPv4 header says that it is shorter than 20 bytes.
    #[error("IPv4 header length {0} is below 20")]
    HeaderLength(u8),
    /// The IP header promises more bytes than there are, or than 65535.
    #[error("IP length {len} is beyond the {present} bytes present")]
    LengthBeyondPacket {
        /// What the header says, in bytes.
        len: u32,
        /// What there is, in bytes.
        present: usize,
    },
    /// The IPv4 total length does not even cover the header.
    #[error("IP length {0} is below its header's")]
    LengthBelowHeader(u16),
    /// More extension headers than anybody needs, or a fragment header within a fragment.
    #[error("the IPv6 extension header chain is too long or nested")]
    ExtensionChain,
    /// The packet ends within its transport header, or is a first fragment that does (RFC 7112).
    #[error("the packet ends within the header of protocol {0}")]
    TransportTruncated(u8),
    /// The TCP data offset is below 5 words.
    #[error("TCP header length {0} is below 20")]
    TransportHeaderLength(u8),
    /// A fragment that would overwrite the TCP header of the first one (RFC 1858, RFC 3128).
    #[error("a TCP fragment starts within the TCP header")]
    FragmentOverlap,
}

/// Reads the headers of the IP packet at the start of `bytes`. Bytes beyond its length are allowed: WireGuard
/// pads.
///
/// # Errors
/// Any packet that a next hop could read in another way than this gateway's policy does.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<PacketInfo, ParseError> {
    let Some(first) = bytes.first() else {
        return Err(ParseError::Empty);
    };
    match first >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        version => Err(ParseError::Version(version)),
    }
}

fn parse_v4(bytes: &[u8]) -> Result<PacketInfo, ParseError> {
    let Some(header) = bytes.first_chunk::<IPV4_HEADER_LEN>() else {
        return Err(ParseError::HeaderTruncated);
    };
    let header_len = (header[0] & 0x0f) * 4;
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    if usize::from(header_len) < IPV4_HEADER_LEN {
        return Err(ParseError::HeaderLength(header_len));
    }
    if u16::from(header_len) > total_len {
        return Err(ParseError::LengthBelowHeader(total_len));
    }
    let Some(packet) = bytes.get(..usize::from(total_len)) else {
        return Err(ParseError::LengthBeyondPacket {
            len: u32::from(total_len),
            present: bytes.len(),
        });
    };
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let fragment = Fragment::of(flags_and_offset & 0x1fff, flags_and_offset & 0x2000 != 0);
    let protocol = header[9];
    if protocol == TCP && flags_and_offset & 0x1fff == 1 {
        return Err(ParseError::FragmentOverlap);
    }
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ))
    };
    let network = Network {
        version: IpVersion::V4,
        src: address(12),
        dst: address(16),
        transport_offset: usize::from(header_len),
        fragment,
        tos: header[1],
    };
    network.with_transport(packet, protocol)
}

fn parse_v6(bytes: &[u8]) -> Result<PacketInfo, ParseError> {
    let Some(header) = bytes.first_chunk::<IPV6_HEADER_LEN>() else {
        return Err(ParseError::HeaderTruncated);
    };
    let total_len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = match bytes.get(..total_len) {
        Some(packet) if total_len <= usize::from(u16::MAX) => packet,
        _ => {
            return Err(ParseError::LengthBeyondPacket {
                len: total_len as u32,
                present: bytes.len(),
            });
        }
    };
    let chain = match header[6] {
        // Nearly all packets: no chain to walk.
        protocol @ (TCP | UDP) => Chain {
            protocol,
            offset: IPV6_HEADER_LEN,
            fragment: Fragment::None,
        },
        next => walk_extensions(packet, next)?,
    };
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("16 bytes of 40");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let network = Network {
        version: IpVersion::V6,
        src: address(8),
        dst: address(24),
        transport_offset: chain.offset,
        fragment: chain.fragment,
        tos: header[0] << 4 | header[1] >> 4,
    };
    network.with_transport(packet, chain.protocol)
}

/// Where a chain of IPv6 extension headers ends.
struct Chain {
    protocol: u8,
    offset: usize,
    fragment: Fragment,
}

/// Walks hop-by-hop, routing, destination options, authentication and fragment headers (RFC 8200 section 4,
/// RFC 4302). Behind the header of a later fragment there is payload, so the walk ends there.
fn walk_extensions(packet: &[u8], first: u8) -> Result<Chain, ParseError> {
    let mut chain = Chain {
        protocol: first,
        offset: IPV6_HEADER_LEN,
        fragment: Fragment::None,
    };
    let mut fragmented = false;
    for _ in 0..=EXTENSIONS_MAX {
        let words = match chain.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT => {
                let Some(header) = packet.get(chain.offset..chain.offset + 8) else {
                    return Err(ParseError::HeaderTruncated);
                };
                header
            }
            _ => return Ok(chain),
        };
        let len = match chain.protocol {
            AUTHENTICATION => (usize::from(words[1]) + 2) * 4,
            FRAGMENT if fragmented => return Err(ParseError::ExtensionChain),
            FRAGMENT => {
                fragmented = true;
                let offset_and_more = u16::from_be_bytes([words[2], words[3]]);
                chain.fragment = Fragment::of(offset_and_more >> 3, offset_and_more & 1 != 0);
                if words[0] == TCP && offset_and_more >> 3 == 1 {
                    return Err(ParseError::FragmentOverlap);
                }
                8
            }
            _ => (usize::from(words[1]) + 1) * 8,
        };
        chain.protocol = words[0];
        chain.offset += len;
        if chain.offset > packet.len() {
            return Err(ParseError::HeaderTruncated);
        }
        if chain.fragment == Fragment::Later {
            return Ok(chain);
        }
    }
    Err(ParseError::ExtensionChain)
}

impl Fragment {
    fn of(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::None,
            (0, true) => Self::First,
            _ => Self::Later,
        }
    }
}

/// The IP layer of a packet, before its transport header is read.
struct Network {
    version: IpVersion,
    src: IpAddr,
    dst: IpAddr,
    transport_offset: usize,
    fragment: Fragment,
    tos: u8,
}

impl Network {
    #[inline]
    fn with_transport(self, packet: &[u8], protocol: u8) -> Result<PacketInfo, ParseError> {
        debug_assert!(self.transport_offset <= packet.len());
        debug_assert!(packet.len() <= usize::from(u16::MAX));
        let transport = match self.fragment {
            Fragment::Later => Transport::default(),
            Fragment::None | Fragment::First => {
                read_transport(&packet[self.transport_offset..], protocol)?
            }
        };
        Ok(PacketInfo {
            key: FlowKey {
                src: self.src,
                dst: self.dst,
                src_port: transport.src_port,
                dst_port: transport.dst_port,
                protocol,
            },
            version: self.version,
            total_len: packet.len() as u16,
            transport_offset: self.transport_offset as u16,
            payload_offset: (self.transport_offset + transport.header_len) as u16,
            fragment: self.fragment,
            tos: self.tos,
        })
    }
}

#[derive(Default)]
struct Transport {
    src_port: u16,
    dst_port: u16,
    header_len: usize,
}

#[inline]
fn read_transport(bytes: &[u8], protocol: u8) -> Result<Transport, ParseError> {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let header_len = match protocol {
        TCP => {
            let Some(header) = bytes.first_chunk::<20>() else {
                return Err(ParseError::TransportTruncated(protocol));
            };
            let len = (header[12] >> 4) * 4;
            if len < 20 {
                return Err(ParseError::TransportHeaderLength(len));
            }
            usize::from(len)
        }
        UDP => 8,
        SCTP => 12,
        ICMP | ICMPV6 => match bytes.first() {
            // An echo has an identifier and a sequence number behind the common four bytes.
            Some(8 | 0) if protocol == ICMP => 8,
            Some(128 | 129) if protocol == ICMPV6 => 8,
            _ => 4,
        },
        _ => return Ok(Transport::default()),
    };
    if bytes.len() < header_len {
        return Err(ParseError::TransportTruncated(protocol));
    }
    let (src_port, dst_port) = match (protocol, header_len) {
        (TCP | UDP | SCTP, _) => (word(0), word(2)),
        // Request and reply of one echo carry the same identifier, and so have reversed keys.
        (_, 8) => (word(4), word(4)),
        _ => (0, 0),
    };
    Ok(Transport {
        src_port,
        dst_port,
        header_len,
    })
}

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Length of an IPv4 header without options, in bytes.
pub const IPV4_HEADER_LEN: usize = 20;
/// Length of an IPv6 header without extensions, in bytes.
pub const IPV6_HEADER_LEN: usize = 40;
/// Extension headers that a packet may have: RFC 8200 section 4.1 lists seven, none of them twice but one.
pub const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
