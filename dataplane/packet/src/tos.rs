//! The traffic class over the tunnel: DSCP as RFC 2983 carries it, ECN as RFC 6040 does.
//!
//! On the way in the outer header shows the inner one's class, so that the networks between the sites treat a packet
//! as its sender asked. On the way out the inner DSCP stands as it was sent, and congestion that a router marked on the
//! outer header is told to the inner receiver.

use crate::parse::{IpVersion, PacketInfo};

/// ECN's two bits (RFC 3168 section 5).
const ECN: u8 = 0b11;
const CE: u8 = 0b11;

/// The outer traffic class of a packet with the inner class `inner`: the same, in the normal mode of RFC 6040
/// section 4.1.
#[inline]
pub fn encapsulated(inner: u8) -> u8 {
    inner
}

/// Whether the outer traffic class changes nothing of any inner one: its sender does not take part in ECN.
#[inline]
pub fn is_unmarked(outer: u8) -> bool {
    outer & ECN == 0
}

/// The inner traffic class when a packet leaves the tunnel (RFC 6040 section 4.2, figure 4); `None` where the packet is
/// to be dropped: a router met congestion, and the inner sender does not understand marks.
#[inline]
pub fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    const ECT_0: u8 = 0b10;
    const ECT_1: u8 = 0b01;
    match (inner & ECN, outer & ECN) {
        (0, CE) => None,
        (ECT_0, ECT_1) => Some(inner & !ECN | ECT_1),
        (ECT_0 | ECT_1, CE) => Some(inner | CE),
        (_, _) => Some(inner),
    }
}

/// Gives a packet another traffic class and mends its header's checksum. `info` is what was parsed of it.
pub fn set(packet: &mut [u8], info: &mut PacketInfo, tos: u8) {
    match (info.version, packet) {
        (IpVersion::V4, [first, field, _, _, _, _, _, _, _, _, c0, c1, ..]) => {
            let word = |low: u8| u16::from_be_bytes([*first, low]);
            let sum = u16::from_be_bytes([*c0, *c1]);
            let mended = crate::checksum::replaced(sum, word(*field), word(tos));
            [*c0, *c1] = mended.to_be_bytes();
            *field = tos;
        }
        (IpVersion::V6, [first, second, ..]) => {
            *first = *first & 0xf0 | tos >> 4;
            *second = tos << 4 | *second & 0x0f;
        }
        (IpVersion::V4, _) | (IpVersion::V6, _) => {
            debug_assert!(false, "a packet that was parsed has its header");
            return;
        }
    }
    info.tos = tos;
}
