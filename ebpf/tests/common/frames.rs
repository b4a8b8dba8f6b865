//! Frames, good and broken, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const PORT: u16 = 51820;
pub const V4: &str = "5.9.0.1";
pub const V6: &str = "2a01:4f8::1";

/// A frame to our port; `build` writes it with whatever was changed.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Tag protocols of VLAN headers, outermost first.
    pub tags: Vec<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub port: u16,
    pub payload: Vec<u8>,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Flags and offset of IPv4.
    pub fragment: u16,
    pub protocol: u8,
    /// Bytes of the IP payload behind the UDP datagram.
    pub behind: Vec<u8>,
    /// Bytes of the frame behind the IP packet.
    pub padding: usize,
    pub version_ihl: Option<u8>,
    pub ip_len: Option<u16>,
    pub udp_len: Option<u16>,
    pub mac: [u8; 12],
}

pub fn packet(source: &str, payload: Vec<u8>) -> Packet {
    let source: IpAddr = source.parse().unwrap();
    Packet {
        tags: Vec::new(),
        destination: match source {
            IpAddr::V4(_) => Ipv4Addr::new(10, 9, 0, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1).into(),
        },
        source,
        source_port: 1024,
        port: PORT,
        payload,
        options: Vec::new(),
        fragment: 0,
        protocol: 17,
        behind: Vec::new(),
        padding: 0,
        version_ihl: None,
        ip_len: None,
        udp_len: None,
        mac: [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
    }
}

impl Packet {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// With Ethernet and VLAN headers.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = self.mac.to_vec();
        for tag in &self.tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0, 5]);
        }
        let protocol: u16 = if self.source.is_ipv4() {
            0x0800
        } else {
            0x86dd
        };
        bytes.extend(protocol.to_be_bytes());
        bytes.extend(self.build_ip());
        bytes
    }

    /// From the IP header on.
    pub fn build_ip(&self) -> Vec<u8> {
        let mut udp = Vec::new();
        udp.extend(self.source_port.to_be_bytes());
        udp.extend(self.port.to_be_bytes());
        let len = self.udp_len.unwrap_or(8 + self.payload.len() as u16);
        udp.extend(len.to_be_bytes());
        // No checksum: IPv4 allows it, and for IPv6 nobody here looks.
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        udp.extend(&self.behind);
        let mut bytes = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + self.options.len();
                let mut header = vec![self.version_ihl.unwrap_or(0x40 | (header_len / 4) as u8), 0];
                let len = self.ip_len.unwrap_or((header_len + udp.len()) as u16);
                header.extend(len.to_be_bytes());
                header.extend([0, 0]);
                header.extend(self.fragment.to_be_bytes());
                header.extend([64, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![self.version_ihl.unwrap_or(0x60), 0, 0, 0];
                header.extend(self.ip_len.unwrap_or(udp.len() as u16).to_be_bytes());
                header.extend([self.protocol, 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("both addresses are of one family"),
        };
        bytes.extend(udp);
        bytes.extend(std::iter::repeat_n(0xee, self.padding));
        bytes
    }
}

/// The Internet checksum (RFC 1071) of bytes in which its own field is zero.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// A message of a type with a length; what follows the type is `0x5a`.
pub fn message(kind: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    let head = kind.to_le_bytes();
    let n = len.min(4);
    bytes[..n].copy_from_slice(&head[..n]);
    bytes
}

/// A message that names a receiver, without the low byte, where its type has it.
pub fn message_for(kind: u32, len: usize, receiver: u32) -> Vec<u8> {
    let mut bytes = message(kind, len);
    let at = if kind == 2 { 8 } else { 4 };
    bytes[at..at + 4].copy_from_slice(&(receiver << 8 | 0x42).to_le_bytes());
    bytes
}

pub fn initiation() -> Vec<u8> {
    message(1, 148)
}

pub fn data(len: usize) -> Vec<u8> {
    message(4, len)
}

pub fn junk(len: usize) -> Vec<u8> {
    message(9, len)
}
