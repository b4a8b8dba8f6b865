//! Packets that are longer than their path takes, and traffic classes across the tunnel.
//!
//! TCP is cut into smaller segments, other IPv4 is fragmented where its sender allows it, and of the rest the sender is
//! told the MTU. New TCP connections learn a segment size that fits both ways.

use std::time::Instant;

use patronus_packet::narrow::{self, Fit};
use patronus_packet::{Endpoint, GsoKind, PacketInfo, Padding, TunFrame, UdpBatch, tos};

use crate::counters::{Counters, DropReason};
use crate::engine::Engine;
use crate::peers::Slot;
use crate::refusal;

/// Longest fragment that is made, in bytes: of jumbo paths too.
const FRAGMENT_MAX: usize = 9216;
/// What a fragment adds: the longest IPv4 header, padding, and what sealing adds.
const FRAGMENT_OVERHEAD_MAX: usize = 60 + 16 + 32;

/// The narrowest path that is served, in bytes of inner IP: what every IPv4 host must reassemble (RFC 791 section 3.1).
pub(crate) const INNER_MTU_MIN: usize = 576;

/// Whether a packet can be sealed as it is: its path is no narrower than the tunnel, and it announces no segment size.
#[inline]
pub(crate) fn fits(packet: &[u8], info: &PacketInfo, narrow_mtu: Option<usize>) -> bool {
    narrow_mtu.is_none() && !narrow::announces_mss(packet, info)
}

/// Whether a packet leaves the tunnel as it came: no router on the way had a word for it, and it announces no segment
/// size.
#[inline]
pub(crate) fn leaves_unchanged(packet: &[u8], info: &PacketInfo, outer: u8) -> bool {
    tos::is_unmarked(outer) && !narrow::announces_mss(packet, info)
}

/// Most packets that a frame of `packets` becomes on the narrowest path that any peer has.
#[inline]
pub(crate) fn packets_max(
    engine: &Engine,
    frame: &TunFrame,
    info: &PacketInfo,
    packets: u64,
) -> u64 {
    let narrowest = engine.narrowest_mtu;
    if narrowest >= engine.snapshot.mtu() || frame.buf.len() <= narrowest {
        return packets;
    }
    // A superpacket's segments may be divided each; eight bytes are the least that a fragment carries.
    let room = narrowest
        .saturating_sub(usize::from(info.payload_offset))
        .max(16)
        - 8;
    let divided = info.payload_len().div_ceil(room) as u64;
    packets.saturating_add(divided)
}

/// Makes a frame fit a path, whose inner MTU is given where it is smaller than the tunnel's: answers how many packets
/// it becomes. `None`: it cannot be, it has been dropped, and its sender was told.
#[cold]
pub(crate) fn fit(
    engine: &mut Engine,
    frame: &mut TunFrame,
    info: &PacketInfo,
    narrow_mtu: Option<usize>,
    packets: u64,
    now: Instant,
) -> Option<u64> {
    clamp_out(
        engine,
        frame,
        info,
        narrow_mtu.unwrap_or(engine.snapshot.mtu()),
    );
    let Some(mtu) = narrow_mtu else {
        return Some(packets);
    };
    match narrow::fit(frame, info, mtu) {
        Fit::Whole => Some(packets),
        Fit::Resegmented(segments) => {
            let segments = segments as u64;
            engine.counters.divided += segments.saturating_sub(packets);
            refusal::too_big(engine, frame.buf.data(), info, mtu, now);
            Some(segments.max(packets))
        }
        Fit::TooBig if narrow::may_fragment(frame.buf.data()) => Some(packets),
        Fit::TooBig => {
            refusal::too_big(engine, frame.buf.data(), info, mtu, now);
            engine.counters.drop(DropReason::PathMtu, packets);
            None
        }
    }
}

/// Seals an IPv4 packet that is too long as fragments of its own; answers how many there are, and the bytes of them.
pub(crate) fn seal_fragments(
    tunnel: &mut patronus_tunnel::Peer,
    out: &mut UdpBatch,
    counters: &mut Counters,
    packet: &[u8],
    padding: Padding,
    (endpoint, tos): (&Endpoint, u8),
    now: Instant,
) -> (u64, u64) {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let mtu = padding.mtu.min(FRAGMENT_MAX);
    let count = narrow::fragments(packet.len(), header_len, mtu);
    let bytes_max = packet.len() + count.unwrap_or(0) * FRAGMENT_OVERHEAD_MAX;
    let Some(count) = count.filter(|count| out.has_room(*count, bytes_max)) else {
        counters.drop(DropReason::PathMtu, 1);
        return (0, 0);
    };
    counters.divided += count as u64 - 1;
    let (mut sealed, mut sealed_bytes) = (0, 0);
    for index in 0..count {
        // On the stack: a path that is narrower than the tunnel is an exception.
        let mut room = [0; FRAGMENT_MAX];
        let len = narrow::write_fragment(packet, mtu, index, &mut room);
        let done = len.and_then(|len| {
            let padded = padding.padded_len(len).min(FRAGMENT_MAX);
            tunnel.seal(&room[..padded], out.room(), now)
        });
        match done {
            Some(len) => {
                out.commit_classed(len, endpoint, tos);
                sealed += 1;
                sealed_bytes += len as u64;
            }
            None => counters.drop(DropReason::DataNoSession, 1),
        }
    }
    (sealed, sealed_bytes)
}

fn clamp_out(engine: &mut Engine, frame: &mut TunFrame, info: &PacketInfo, mtu: usize) {
    if matches!(frame.vnet.gso_kind(), Some(GsoKind::None))
        && narrow::announces_mss(frame.buf.data(), info)
    {
        let is_partial = frame.vnet.needs_csum();
        let packet = frame.buf.data_mut();
        engine.counters.mss_clamped += u64::from(narrow::clamp_mss(packet, info, mtu, is_partial));
    }
}

/// A packet of `len` bytes at the start of the TUN batch's room is about to leave the tunnel, in which it travelled
/// under the outer traffic class `outer`: carries congestion over, and sees to it that connections learn a segment size
/// that fits.
#[cold]
pub(crate) fn leave_tunnel(
    engine: &mut Engine,
    slot: Slot,
    len: usize,
    info: &mut PacketInfo,
    outer: u8,
) -> Result<(), DropReason> {
    let inner = tos::decapsulated(info.tos, outer).ok_or(DropReason::CongestionUnmarkable)?;
    if inner != info.tos {
        tos::set(&mut engine.tun_out.room()[..len], info, inner);
        engine.counters.congestion_marked += 1;
    }
    if narrow::announces_mss(&engine.tun_out.room()[..len], info) {
        let outlets = engine
            .peers
            .get(slot)
            .and_then(|peer| peer.outlets.as_ref());
        let narrowest = outlets.and_then(|outlets| outlets.ways.narrowest_mtu());
        let mtu = narrowest.unwrap_or(engine.snapshot.mtu());
        let packet = &mut engine.tun_out.room()[..len];
        engine.counters.mss_clamped += u64::from(narrow::clamp_mss(packet, info, mtu, false));
    }
    Ok(())
}
