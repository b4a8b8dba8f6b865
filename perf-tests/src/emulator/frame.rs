//! Ethernet frames as the emulator sees them: where one goes, how long its IP packet is, and the two things that are
//! changed in it, checksum and congestion mark.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use patronus_packet::checksum;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What a frame is to the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question for the neighbour at that address, or an answer: ARP (RFC 826), IPv6 neighbour solicitation and
    /// advertisement (RFC 4861).
    Neighbour(IpAddr),
    /// An IP packet.
    Ip {
        /// Where it goes.
        destination: IpAddr,
        /// Its length in bytes, without the Ethernet header.
        len: usize,
    },
    /// Anything else.
    Other,
}

/// The frame's destination and source; `None` for no frame.
pub fn macs(frame: &[u8]) -> Option<(Mac, Mac)> {
    Some((array(frame, 0)?, array(frame, 6)?))
}

/// Whether one station alone is meant.
pub fn is_unicast(mac: Mac) -> bool {
    mac[0] & 1 == 0
}

/// What the frame is.
pub fn kind(frame: &[u8]) -> Kind {
    let kind = match ether_type(frame) {
        Some(ETHER_ARP) => arp_target(frame).map(Kind::Neighbour),
        Some(ETHER_V4) => v4(frame),
        Some(ETHER_V6) => v6(frame),
        Some(_) | None => None,
    };
    kind.unwrap_or(Kind::Other)
}

/// Completes the checksum of a TCP or UDP packet that the kernel left to the device, as it does with what it sends to a
/// veth. A checksum that is right, or that is none (IPv4 UDP), stays.
pub fn complete_checksum(frame: &mut [u8]) {
    let Some(transport) = transport_of(frame) else {
        return;
    };
    let field = transport.start
        + match transport.protocol {
            TCP => 16,
            _ => 6,
        };
    let Some(segment) = frame.get(transport.start..transport.end) else {
        return;
    };
    if transport.end < field + 2 {
        return;
    }
    let is_absent = frame[field..field + 2] == [0, 0];
    if is_absent && transport.protocol == UDP && transport.src.is_ipv4() {
        return;
    }
    let Ok(len) = u16::try_from(segment.len()) else {
        return;
    };
    let pseudo = checksum::pseudo_header(transport.src, transport.dst, transport.protocol, len);
    if pseudo.plus(checksum::sum(segment)).fold() == 0xffff {
        return;
    }
    frame[field..field + 2].fill(0);
    let sum = pseudo.plus(checksum::sum(&frame[transport.start..transport.end]));
    // Zero would mean "no checksum" (RFC 768); the complement is the same number.
    let value = match sum.finish() {
        0 if transport.protocol == UDP => 0xffff,
        value => value,
    };
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
}

/// Marks an IP packet "congestion experienced" if its sender can make use of it (RFC 3168).
pub fn mark_ce(frame: &mut [u8]) {
    match ether_type(frame) {
        Some(ETHER_V4) if frame.len() >= ETHER_LEN + 20 => {
            let tos = frame[ETHER_LEN + 1];
            if tos & 0b11 == 0 {
                return;
            }
            frame[ETHER_LEN + 1] = tos | 0b11;
            let end = ETHER_LEN + usize::from(frame[ETHER_LEN] & 0xf) * 4;
            let field = ETHER_LEN + 10;
            frame[field..field + 2].fill(0);
            let Some(header) = frame.get(ETHER_LEN..end) else {
                return;
            };
            let value = checksum::sum(header).finish();
            frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
        }
        Some(ETHER_V6) if frame.len() >= ETHER_LEN + 40 => {
            // The traffic class lies across the first two bytes.
            if frame[ETHER_LEN + 1] & 0x30 != 0 {
                frame[ETHER_LEN + 1] |= 0x30;
            }
        }
        Some(_) | None => {}
    }
}

struct Transport {
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
    start: usize,
    end: usize,
}

/// TCP or UDP in a whole packet; a fragment has no checksum of its own, and IPv6 extension headers are left alone.
fn transport_of(frame: &[u8]) -> Option<Transport> {
    let (protocol, src, dst, start, len) = match ether_type(frame)? {
        ETHER_V4 => {
            let first = *frame.get(ETHER_LEN)?;
            let fragment = u16::from_be_bytes(array(frame, ETHER_LEN + 6)?);
            if fragment & 0x3fff != 0 {
                return None;
            }
            let header = usize::from(first & 0xf) * 4;
            let total = usize::from(u16::from_be_bytes(array(frame, ETHER_LEN + 2)?));
            let addr = |at| Some(IpAddr::from(array::<4>(frame, at)?));
            (
                *frame.get(ETHER_LEN + 9)?,
                addr(ETHER_LEN + 12)?,
                addr(ETHER_LEN + 16)?,
                ETHER_LEN + header,
                total.checked_sub(header)?,
            )
        }
        ETHER_V6 => {
            let addr = |at| Some(IpAddr::from(array::<16>(frame, at)?));
            (
                *frame.get(ETHER_LEN + 6)?,
                addr(ETHER_LEN + 8)?,
                addr(ETHER_LEN + 24)?,
                ETHER_LEN + 40,
                usize::from(u16::from_be_bytes(array(frame, ETHER_LEN + 4)?)),
            )
        }
        _ => return None,
    };
    let is_known = protocol == TCP || protocol == UDP;
    is_known.then_some(Transport {
        protocol,
        src,
        dst,
        start,
        end: start + len,
    })
}

fn v4(frame: &[u8]) -> Option<Kind> {
    let len = u16::from_be_bytes(array(frame, ETHER_LEN + 2)?);
    let destination = Ipv4Addr::from(array::<4>(frame, ETHER_LEN + 16)?);
    Some(Kind::Ip {
        destination: destination.into(),
        len: len.into(),
    })
}

fn v6(frame: &[u8]) -> Option<Kind> {
    let len = u16::from_be_bytes(array(frame, ETHER_LEN + 4)?);
    let destination = Ipv6Addr::from(array::<16>(frame, ETHER_LEN + 24)?);
    let is_icmp = *frame.get(ETHER_LEN + 6)? == ICMP_V6;
    if is_icmp && matches!(*frame.get(ETHER_LEN + 40)?, 135 | 136) {
        let target = Ipv6Addr::from(array::<16>(frame, ETHER_LEN + 48)?);
        return Some(Kind::Neighbour(target.into()));
    }
    Some(Kind::Ip {
        destination: destination.into(),
        len: usize::from(len) + 40,
    })
}

fn arp_target(frame: &[u8]) -> Option<IpAddr> {
    let target = Ipv4Addr::from(array::<4>(frame, ETHER_LEN + 24)?);
    Some(target.into())
}

fn ether_type(frame: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(array(frame, 12)?))
}

fn array<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

const ETHER_LEN: usize = 14;
const ETHER_V4: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;
const ETHER_V6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// UDP from `src` to `dst`, checksums complete.
    pub(crate) fn udp(src: &str, dst: &str, macs: (Mac, Mac), payload: &[u8]) -> Vec<u8> {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let mut frame = [macs.1, macs.0].concat();
        let udp_len = 8 + payload.len() as u16;
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend(ETHER_V4.to_be_bytes());
                let mut header = vec![0x45, 0b10];
                header.extend((20 + udp_len).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                let sum = checksum::sum(&header).finish();
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend(ETHER_V6.to_be_bytes());
                frame.extend([0x60, 0x20, 0, 0]);
                frame.extend(udp_len.to_be_bytes());
                frame.extend([UDP, 64]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            _ => panic!("both of one family"),
        }
        let mut segment = vec![0x12, 0x34, 0x56, 0x78];
        segment.extend(udp_len.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(payload);
        let pseudo = checksum::pseudo_header(src, dst, UDP, udp_len);
        let sum = pseudo.plus(checksum::sum(&segment)).finish();
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
        frame.extend(segment);
        frame
    }

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    const PAIRS: [(&str, &str); 2] = [("198.18.1.2", "198.18.2.2"), ("fd18:1::2", "fd18:2::2")];

    #[test]
    fn an_ip_packet_tells_its_destination_and_its_length() {
        for (src, dst) in PAIRS {
            let frame = udp(src, dst, MACS, &[7; 100]);
            let expected = Kind::Ip {
                destination: dst.parse().unwrap(),
                len: frame.len() - ETHER_LEN,
            };
            assert_eq!(kind(&frame), expected);
            assert_eq!(macs(&frame), Some((MACS.1, MACS.0)));
        }
    }

    #[test]
    fn a_checksum_that_was_left_to_the_device_is_completed_and_a_right_one_stays() {
        for (src, dst) in PAIRS {
            let right = udp(src, dst, MACS, &[7; 101]);
            let mut frame = right.clone();
            complete_checksum(&mut frame);
            assert_eq!(frame, right);

            let field = frame.len() - 101 - 2;
            let pseudo =
                checksum::pseudo_header(src.parse().unwrap(), dst.parse().unwrap(), UDP, 109);
            frame[field..field + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
            assert_ne!(frame, right);
            complete_checksum(&mut frame);
            assert_eq!(frame, right);
        }
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        let mut frame = udp(PAIRS[0].0, PAIRS[0].1, MACS, &[7; 10]);
        let field = frame.len() - 12;
        frame[field..field + 2].fill(0);
        let before = frame.clone();
        complete_checksum(&mut frame);
        assert_eq!(frame, before);
    }

    #[test]
    fn a_mark_keeps_the_header_checksum_right_and_spares_what_is_not_capable() {
        for (src, dst) in PAIRS {
            let mut frame = udp(src, dst, MACS, &[7; 10]);
            let unmarked = frame.clone();
            mark_ce(&mut frame);
            assert_ne!(frame, unmarked);
            if dst.contains('.') {
                assert_eq!(frame[ETHER_LEN + 1], 0b11);
                assert_eq!(
                    checksum::sum(&frame[ETHER_LEN..ETHER_LEN + 20]).fold(),
                    0xffff
                );
            } else {
                assert_eq!(frame[ETHER_LEN + 1] & 0x30, 0x30);
            }
            let mut incapable = unmarked;
            incapable[ETHER_LEN + 1] = 0;
            let before = incapable.clone();
            mark_ce(&mut incapable);
            assert_eq!(incapable, before);
        }
    }

    #[test]
    fn arp_and_neighbour_discovery_tell_their_target() {
        let mut arp = vec![0xff; 6];
        arp.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06]);
        arp.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend([2, 0, 0, 0, 0, 1, 198, 18, 1, 2]);
        arp.extend([0, 0, 0, 0, 0, 0, 198, 18, 2, 2]);
        assert_eq!(kind(&arp), Kind::Neighbour("198.18.2.2".parse().unwrap()));

        let mut solicitation = udp("fd18:1::2", "ff02::1:ff00:2", MACS, &[0; 16]);
        solicitation[ETHER_LEN + 6] = ICMP_V6;
        solicitation[ETHER_LEN + 40] = 135;
        let target: Ipv6Addr = "fd18:2::2".parse().unwrap();
        solicitation[ETHER_LEN + 48..].copy_from_slice(&target.octets());
        assert_eq!(kind(&solicitation), Kind::Neighbour(target.into()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            ether in prop::sample::select(vec![ETHER_V4, ETHER_V6, ETHER_ARP]),
        ) {
            let mut frame = bytes;
            if frame.len() >= ETHER_LEN {
                frame[12..14].copy_from_slice(&ether.to_be_bytes());
            }
            kind(&frame);
            macs(&frame);
            complete_checksum(&mut frame);
            mark_ce(&mut frame);
        }
    }
}
