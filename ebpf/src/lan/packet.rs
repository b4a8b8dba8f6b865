//! What the LAN program reads of a packet, in Rust: as much as is needed to drop it, and not a byte more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::layout::LanReason;

/// What the headers say of a packet that the rows can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Who sends.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// The source port; 0 where the protocol has none.
    pub src_port: u16,
    /// The destination port; 0 where the protocol has none.
    pub dst_port: u16,
    /// Only who opens a connection sends it.
    pub is_opening: bool,
}

/// Reads the headers, or says why the packet passes unjudged.
///
/// # Errors
/// The reason for which it is left to user space.
pub fn read(packet: &[u8]) -> Result<Heading, LanReason> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => read4(packet),
        Some(6) => read6(packet),
        Some(_) | None => Err(LanReason::Malformed),
    }
}

fn read4(packet: &[u8]) -> Result<Heading, LanReason> {
    let header = packet.first_chunk::<20>().ok_or(LanReason::Malformed)?;
    let header_len = usize::from(header[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < 20 || header_len > total_len || total_len > packet.len() {
        return Err(LanReason::Malformed);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Err(LanReason::Fragment);
    }
    let addr = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ))
    };
    let transport = &packet[header_len..total_len];
    with_transport(addr(12), addr(16), header[9], transport)
}

fn read6(packet: &[u8]) -> Result<Heading, LanReason> {
    let header = packet.first_chunk::<40>().ok_or(LanReason::Malformed)?;
    let total_len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if total_len > packet.len() || total_len > usize::from(u16::MAX) {
        return Err(LanReason::Malformed);
    }
    match header[6] {
        44 => return Err(LanReason::Fragment),
        0 | 43 | 51 | 60 => return Err(LanReason::Extension),
        _ => {}
    }
    let addr = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    with_transport(addr(8), addr(24), header[6], &packet[40..total_len])
}

fn with_transport(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    transport: &[u8],
) -> Result<Heading, LanReason> {
    let byte = |at: usize| transport.get(at).copied();
    let kind = byte(0);
    let is_icmp = protocol == 1 || protocol == 58;
    let len_min = match (protocol, kind) {
        (6, _) => 20,
        (17, _) => 8,
        (132, _) => 12,
        (1, Some(8 | 0)) | (58, Some(128 | 129)) => 8,
        (1 | 58, _) => 4,
        _ => 0,
    };
    if transport.len() < len_min {
        return Err(LanReason::Malformed);
    }
    let is_opening = match (protocol, kind) {
        (6, _) => {
            if byte(12).is_some_and(|it| it >> 4 < 5) {
                return Err(LanReason::Malformed);
            }
            byte(13).is_some_and(|flags| flags & 0x12 == 0x02)
        }
        (132, _) => byte(12) == Some(1),
        (1, Some(3 | 4 | 5 | 11 | 12)) | (58, Some(0..=127 | 137)) => {
            return Err(LanReason::Error);
        }
        (1, Some(8)) | (58, Some(128)) => true,
        _ => false,
    };
    let port = |at: usize| match (len_min, is_icmp) {
        (0, _) | (_, true) => 0,
        _ => u16::from_be_bytes([transport[at], transport[at + 1]]),
    };
    Ok(Heading {
        src,
        dst,
        protocol,
        src_port: port(0),
        dst_port: port(2),
        is_opening,
    })
}
