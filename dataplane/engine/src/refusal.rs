//! Telling the sender of a denied packet: a TCP reset, or an ICMP error that says "administratively prohibited".
//!
//! At a limited rate, and only where there is room: forwarded packets come first. The answers belong to no packet that
//! came in, so the balance leaves them out.

use std::net::IpAddr;
use std::time::Instant;

use patronus_packet::cut::PADDING_MULTIPLE;
use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::parse::{ICMP, ICMPV6, TCP};
use patronus_packet::{Fragment, PacketInfo, Role, checksum, inspect, parse};
use patronus_tunnel::message::DATA_OVERHEAD;
use patronus_tunnel::peer::CONTROL_ROOM;

use crate::engine::Engine;
use crate::peers::Slot;
use crate::snapshot::Refusal;

/// Tells a sender behind this gateway that policy denies its packet.
pub(crate) fn to_local(
    engine: &mut Engine,
    packet: &[u8],
    info: &PacketInfo,
    role: Role,
    now: Instant,
) {
    if !rejects(engine) {
        return;
    }
    let mut bytes = [0; ANSWER_ROOM];
    let Some(len) = answer(packet, info, role, &mut bytes) else {
        return;
    };
    let Ok(info) = parse(&bytes[..len]) else {
        debug_assert!(false, "an answer of ours that is no packet");
        return;
    };
    if engine.tun_out.has_room(1, len) && may_answer(engine, now) {
        engine.tun_out.room()[..len].copy_from_slice(&bytes[..len]);
        engine.tun_out.commit(len, &info);
        engine.own_tun += 1;
        engine.counters.refusals += 1;
    }
}

/// Tells a sender behind a peer, through the tunnel that its packet came by. The packet is the one of `len` bytes at
/// the start of the TUN batch's room.
pub(crate) fn to_remote(
    engine: &mut Engine,
    slot: Slot,
    len: usize,
    info: &PacketInfo,
    role: Role,
    now: Instant,
) {
    if !rejects(engine) || !engine.udp_out.has_room(RESERVE_DATAGRAMS, RESERVE_BYTES) {
        return;
    }
    let mut bytes = [0; ANSWER_ROOM];
    let packet = &engine.tun_out.room()[..len];
    let Some(len) = answer(packet, info, role, &mut bytes) else {
        return;
    };
    if !may_answer(engine, now) {
        return;
    }
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let Some(endpoint) = peer.endpoint.filter(|_| peer.tunnel.can_seal(now)) else {
        return;
    };
    let most = engine.snapshot.mtu().clamp(len, ANSWER_ROOM);
    let padded = len.next_multiple_of(PADDING_MULTIPLE).min(most);
    let room = engine.udp_out.room();
    if let Some(sealed) = peer.tunnel.seal(&bytes[..padded], room, now) {
        engine.udp_out.commit_own(sealed, &endpoint);
        engine.peers.count(slot, 0, sealed as u64);
        engine.counters.refusals += 1;
    }
}

/// Tells a sender behind this gateway that its packet is too long for the path, whose packets take `mtu` bytes
/// (RFC 1191 section 4, RFC 4443 section 3.2), unless too many were told just before.
pub(crate) fn too_big(
    engine: &mut Engine,
    packet: &[u8],
    info: &PacketInfo,
    mtu: usize,
    now: Instant,
) {
    if !may_be_told(info, inspect::role(packet, info)) {
        return;
    }
    let mut bytes = [0; ANSWER_ROOM];
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let packet = packet.get(..usize::from(info.total_len)).unwrap_or(packet);
    let header_len = info.version.header_len_min();
    let (protocol, payload_len) = match info.key.src {
        IpAddr::V4(_) => {
            let room = &mut bytes[header_len..ANSWER_MAX_V4];
            (ICMP, error([3, 4], u32::from(mtu), packet, room))
        }
        IpAddr::V6(_) => {
            let room = &mut bytes[header_len..];
            (ICMPV6, error([2, 0], u32::from(mtu), packet, room))
        }
    };
    let len = finish(&mut bytes, info, protocol, payload_len);
    let Ok(answer) = parse(&bytes[..len]) else {
        debug_assert!(false, "an answer of ours that is no packet");
        return;
    };
    if engine.tun_out.has_room(1, len) && engine.policing.may_refuse(now) {
        engine.tun_out.room()[..len].copy_from_slice(&bytes[..len]);
        engine.tun_out.commit(len, &answer);
        engine.own_tun += 1;
        engine.counters.too_big_told += 1;
    }
}

fn rejects(engine: &Engine) -> bool {
    let policy = engine.snapshot.policy();
    policy.is_some_and(|policy| match policy.refusal {
        Refusal::Reject => true,
        Refusal::Drop => false,
    })
}

fn may_answer(engine: &mut Engine, now: Instant) -> bool {
    let may = engine.policing.may_refuse(now);
    if !may {
        engine.counters.refusals_held_back += 1;
    }
    may
}

/// What stays free for the rest of a train when the sender of one of its packets is answered: a message of our own per
/// datagram of the shortest kind.
const RESERVE_DATAGRAMS: usize = FRAME_DATA_MAX / DATA_OVERHEAD + 2;
const RESERVE_BYTES: usize = RESERVE_DATAGRAMS * CONTROL_ROOM + ANSWER_ROOM + DATA_OVERHEAD;
/// Room for the longest answer, padded for the tunnel: an IPv6 packet may be no longer than the smallest MTU
/// (RFC 4443 section 2.4).
const ANSWER_ROOM: usize = 1280;
/// What an IPv4 error quotes at most with it (RFC 1812 section 4.3.2.3).
const ANSWER_MAX_V4: usize = 576;
const HOP_LIMIT: u8 = 64;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const SYN_OR_FIN: u8 = 0x03;

/// Writes the answer to `packet` and says how long it is; `None` where nobody may be told (RFC 1122 section 3.2.2,
/// RFC 4443 section 2.4): of resets, ICMP errors, fragments, and packets that are not from one host to one host.
fn answer(
    packet: &[u8],
    info: &PacketInfo,
    role: Role,
    out: &mut [u8; ANSWER_ROOM],
) -> Option<usize> {
    if !may_be_told(info, role) {
        return None;
    }
    let packet = packet.get(..usize::from(info.total_len))?;
    let header_len = info.version.header_len_min();
    let (protocol, payload_len) = match (info.protocol(), info.key.src) {
        (TCP, _) => (TCP, reset(packet, info, &mut out[header_len..])?),
        (_, IpAddr::V4(_)) => {
            let room = &mut out[header_len..ANSWER_MAX_V4];
            // Destination unreachable, communication administratively prohibited.
            (ICMP, error([3, 13], 0, packet, room))
        }
        (_, IpAddr::V6(_)) => {
            // Destination unreachable, communication with destination administratively prohibited.
            (ICMPV6, error([1, 1], 0, packet, &mut out[header_len..]))
        }
    };
    Some(finish(out, info, protocol, payload_len))
}

/// Writes the IP header and the checksum of an answer that goes from whom the packet was for to its sender.
fn finish(
    out: &mut [u8; ANSWER_ROOM],
    info: &PacketInfo,
    protocol: u8,
    payload_len: usize,
) -> usize {
    let header_len = info.version.header_len_min();
    let len = header_len + payload_len;
    let (src, dst) = (info.key.dst, info.key.src);
    put_ip_header(out, src, dst, protocol, payload_len);
    let transport = &mut out[header_len..len];
    let at = if protocol == TCP { 16 } else { 2 };
    let pseudo = match protocol {
        ICMP => checksum::Sum::ZERO,
        _ => checksum::pseudo_header(src, dst, protocol, payload_len as u16),
    };
    let sum = pseudo.plus(checksum::sum(transport)).finish();
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    len
}

/// Whether an answer may be sent at all (RFC 1122 section 3.2.2, RFC 4443 section 2.4): not of ICMP errors, of fragments,
/// and of packets that are not from one host to one host.
fn may_be_told(info: &PacketInfo, role: Role) -> bool {
    let is_error = matches!(role, Role::Error(_));
    let one_to_one = is_one_host(info.key.src) && is_one_host(info.key.dst);
    !is_error && one_to_one && info.fragment == Fragment::None
}

/// A reset as a host without that connection sends it (RFC 9293 section 3.10.7.1); none in answer to a reset.
fn reset(packet: &[u8], info: &PacketInfo, out: &mut [u8]) -> Option<usize> {
    let header = packet
        .get(usize::from(info.transport_offset)..)?
        .first_chunk::<20>()?;
    let flags = header[13];
    if flags & RST != 0 {
        return None;
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (seq, ack, kind) = match flags & ACK {
        0 => {
            let len = info.payload_len() as u32 + (flags & SYN_OR_FIN).count_ones();
            (0, word(4).wrapping_add(len), RST | ACK)
        }
        _ => (word(8), 0u32, RST),
    };
    let out = out.get_mut(..20)?;
    out[..2].copy_from_slice(&header[2..4]);
    out[2..4].copy_from_slice(&header[..2]);
    out[4..8].copy_from_slice(&u32::to_be_bytes(seq));
    out[8..12].copy_from_slice(&ack.to_be_bytes());
    out[12..].copy_from_slice(&[0x50, kind, 0, 0, 0, 0, 0, 0]);
    Some(20)
}

/// An ICMP or ICMPv6 error of a type and code that quotes as much of `packet` as there is room for; `value` is its last
/// header word.
fn error([kind, code]: [u8; 2], value: u32, packet: &[u8], room: &mut [u8]) -> usize {
    let quoted = packet.len().min(room.len() - 8);
    room[..4].copy_from_slice(&[kind, code, 0, 0]);
    room[4..8].copy_from_slice(&value.to_be_bytes());
    room[8..8 + quoted].copy_from_slice(&packet[..quoted]);
    8 + quoted
}

fn put_ip_header(out: &mut [u8], src: IpAddr, dst: IpAddr, protocol: u8, payload_len: usize) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = ((20 + payload_len) as u16).to_be_bytes();
            out[..12].copy_from_slice(&[
                0x45, 0, len[0], len[1], 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0,
            ]);
            out[12..16].copy_from_slice(&src.octets());
            out[16..20].copy_from_slice(&dst.octets());
            let sum = checksum::sum(&out[..20]).finish();
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = (payload_len as u16).to_be_bytes();
            out[..8].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], protocol, HOP_LIMIT]);
            out[8..24].copy_from_slice(&src.octets());
            out[24..40].copy_from_slice(&dst.octets());
        }
        // One packet has one family.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
}

/// Whether an address is one host's: no group, no broadcast, no loopback, not "nobody".
fn is_one_host(addr: IpAddr) -> bool {
    let is_broadcast = match addr {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    !(addr.is_multicast() || addr.is_loopback() || addr.is_unspecified() || is_broadcast)
}
