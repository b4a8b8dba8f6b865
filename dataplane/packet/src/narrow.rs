//! Packets and paths that are too narrow for them: what fits, what can be cut smaller, what its sender must be told
//! about, and the MSS that makes both ends of a TCP connection stay small from the start.

use crate::checksum;
use crate::cut::{TCP_CHECKSUM, TCP_FLAGS, TCP_SEGMENTS_MAX};
use crate::frame::TunFrame;
use crate::parse::{Fragment, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpVersion, PacketInfo, TCP, UDP};
use crate::vnet::GsoKind;

/// How a packet or superpacket fits a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Whole,
    /// Cut into smaller TCP segments, which the frame asks the cutter for from here on. It becomes that many packets.
    Resegmented(usize),
    /// Not at all: its sender is to be told the path's MTU.
    TooBig,
}

/// Whether every packet that `frame` becomes is `mtu` bytes long at most. TCP that is longer is cut smaller, as any
/// segmentation offload on its way might do; then `frame` says so. A frame that contradicts itself counts as whole: the
/// cutter refuses it.
pub fn fit(frame: &mut TunFrame, info: &PacketInfo, mtu: usize) -> Fit {
    let header_len = usize::from(info.payload_offset);
    let total_len = usize::from(info.total_len);
    let kind = frame.vnet.gso_kind();
    let longest = match (kind, usize::from(frame.vnet.gso_size)) {
        (Some(GsoKind::None), _) => total_len,
        (None, _) | (_, 0) => 0,
        (Some(GsoKind::TcpV4 | GsoKind::TcpV6 | GsoKind::UdpL4), size) => {
            total_len.min(header_len + size)
        }
    };
    if longest <= mtu || !is_consistent(frame, info) {
        return Fit::Whole;
    }
    let room = mtu.saturating_sub(header_len);
    let segments = info.payload_len().div_ceil(room.max(1));
    let is_tcp = info.protocol() == TCP && info.fragment == Fragment::None;
    if !is_tcp || room == 0 || segments > TCP_SEGMENTS_MAX || !is_stream(frame.buf.data(), info) {
        return Fit::TooBig;
    }
    let kind = match info.version {
        IpVersion::V4 => GsoKind::TcpV4,
        IpVersion::V6 => GsoKind::TcpV6,
    };
    frame.vnet.gso_type = kind.to_wire();
    frame.vnet.gso_size = room as u16;
    Fit::Resegmented(segments)
}

/// Whether the vnet header speaks of the packet that is there.
fn is_consistent(frame: &TunFrame, info: &PacketInfo) -> bool {
    let vnet = frame.vnet;
    let fits = match vnet.gso_kind() {
        None => false,
        Some(GsoKind::None) => true,
        Some(GsoKind::TcpV4) => info.version == IpVersion::V4 && info.protocol() == TCP,
        Some(GsoKind::TcpV6) => info.version == IpVersion::V6 && info.protocol() == TCP,
        Some(GsoKind::UdpL4) => info.protocol() == UDP,
    };
    let is_sum_in_place = vnet.csum_start == info.transport_offset
        && (info.protocol() != TCP || usize::from(vnet.csum_offset) == TCP_CHECKSUM);
    fits && (is_sum_in_place || !vnet.needs_csum())
}

/// Whether a TCP segment is nothing but a piece of the stream: one that opens or resets the connection, or points at
/// urgent data, may not become several.
fn is_stream(packet: &[u8], info: &PacketInfo) -> bool {
    let flags = packet.get(usize::from(info.transport_offset) + TCP_FLAGS);
    flags.is_some_and(|flags| flags & (SYN | RST | URG) == 0)
}

/// Whether an IPv4 packet that is too long may be fragmented on its way: its sender did not forbid it (RFC 791).
pub fn may_fragment(packet: &[u8]) -> bool {
    matches!(packet, [first, _, _, _, _, _, flags, ..] if first >> 4 == 4 && flags & DF == 0)
}

/// How many fragments of `mtu` bytes at most an IPv4 packet becomes; `None` where the MTU leaves no room for any.
pub fn fragments(packet_len: usize, header_len: usize, mtu: usize) -> Option<usize> {
    let step = mtu.checked_sub(header_len)? / FRAGMENT_UNIT * FRAGMENT_UNIT;
    (step > 0).then(|| (packet_len - header_len).div_ceil(step).max(1))
}

/// Writes one of the [`fragments`] of a finished IPv4 packet to the start of `out` and says how long it is (RFC 791
/// section 3.2). A packet that is a fragment itself is divided further. Options are copied to every fragment, also those
/// that only the first one needs.
pub fn write_fragment(packet: &[u8], mtu: usize, index: usize, out: &mut [u8]) -> Option<usize> {
    let header_len = usize::from(*packet.first()? & 0x0f) * 4;
    let (header, payload) = packet.split_at_checked(header_len)?;
    let step = mtu.checked_sub(header_len)? / FRAGMENT_UNIT * FRAGMENT_UNIT;
    let begin = index.checked_mul(step).filter(|_| step > 0)?;
    let piece = payload.get(begin..payload.len().min(begin + step))?;
    let len = header_len + piece.len();
    let out = out.get_mut(..len)?;
    out[..header_len].copy_from_slice(header);
    out[header_len..].copy_from_slice(piece);
    let place = u16::from_be_bytes([header[6], header[7]]);
    let is_last = begin + piece.len() == payload.len();
    let more = if is_last { place & MORE } else { MORE };
    let offset = (place & OFFSET) + u16::try_from(begin / FRAGMENT_UNIT).ok()?;
    out[2..4].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    out[6..8].copy_from_slice(&(more | offset & OFFSET).to_be_bytes());
    out[10..12].fill(0);
    let sum = checksum::sum(&out[..header_len]).finish();
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(len)
}

/// Whether a packet is a TCP SYN, which may announce an MSS.
#[inline]
pub fn announces_mss(packet: &[u8], info: &PacketInfo) -> bool {
    let at = usize::from(info.transport_offset) + TCP_FLAGS;
    info.protocol() == TCP
        && info.fragment != Fragment::Later
        && packet.get(at).is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the MSS that a TCP SYN announces to what a path with that MTU carries (RFC 9293 section 3.7.1), and mends the
/// checksum; `true` where it changed something. With `is_partial` the checksum field holds the pseudo header's sum
/// only, which does not change. A SYN that announces none is left alone: it means 536 bytes (1220 in IPv6).
pub fn clamp_mss(packet: &mut [u8], info: &PacketInfo, mtu: usize, is_partial: bool) -> bool {
    let at = usize::from(info.transport_offset);
    if info.protocol() != TCP || info.fragment != Fragment::None {
        return false;
    }
    let Some(header) = packet.get_mut(at..usize::from(info.payload_offset)) else {
        return false;
    };
    if header.len() < TCP_HEADER_LEN || header[TCP_FLAGS] & SYN == 0 {
        return false;
    }
    let headers = TCP_HEADER_LEN
        + match info.version {
            IpVersion::V4 => IPV4_HEADER_LEN,
            IpVersion::V6 => IPV6_HEADER_LEN,
        };
    let most = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    let Some(value_at) = mss_value(header) else {
        return false;
    };
    let announced = u16::from_be_bytes([header[value_at], header[value_at + 1]]);
    if announced <= most {
        return false;
    }
    // A value at an odd place lies across two words of the sum: each of them changes.
    let words = value_at & !1..(value_at + 2).next_multiple_of(2);
    let word = |header: &[u8], at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut sum = word(header, TCP_CHECKSUM);
    let before: [u16; 2] = [
        word(header, words.start),
        word(header, (words.end - 2).max(words.start)),
    ];
    header[value_at..value_at + 2].copy_from_slice(&most.to_be_bytes());
    for (old, at) in before.into_iter().zip(words.step_by(2)) {
        sum = checksum::replaced(sum, old, word(header, at));
    }
    if !is_partial {
        header[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// Where the value of the MSS option lies in a TCP header.
fn mss_value(header: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER_LEN;
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            OPTION_END => return None,
            OPTION_NOP => 1,
            _ => usize::from(*header.get(at + 1)?),
        };
        if kind == OPTION_MSS {
            return (len == 4 && at + 4 <= header.len()).then_some(at + 2);
        }
        // A length below 2 never gets past its option.
        if len < 2 && kind != OPTION_NOP {
            return None;
        }
        at += len;
    }
    None
}

const TCP_HEADER_LEN: usize = 20;
/// Fragments begin at multiples of this, in bytes.
const FRAGMENT_UNIT: usize = 8;
/// "Don't fragment", in byte 6 of the IPv4 header.
const DF: u8 = 0x40;
/// "More fragments", and the offset, in bytes 6 and 7.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const URG: u8 = 0x20;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
