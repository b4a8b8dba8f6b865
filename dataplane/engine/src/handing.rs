//! Packets on their way between two workers, and how many there are in a frame.

use patronus_packet::{Endpoint, GsoKind, PacketInfo, TunFrame, UdpFrame, parse};
use patronus_tunnel::{Message, PeerIndex, WorkerId};

use crate::engine::{Engine, Handoff};

/// Packets inside a handoff.
pub(crate) fn packets_of(handoff: &Handoff) -> u64 {
    match handoff {
        Handoff::Tun(frame, ..) => {
            parse(frame.buf.data()).map_or(1, |info| tun_packets(frame, &info))
        }
        Handoff::Udp(frame) => udp_packets(frame),
        Handoff::Initiation(..) => 1,
    }
}

/// The other worker that every datagram of a frame belongs to. The kernel steers a whole train by its first
/// datagram, so a train of ours may hold foreign datagrams, but hardly ever only those.
pub(crate) fn foreign_owner(engine: &Engine, frame: &UdpFrame) -> Option<WorkerId> {
    let owner_of = |datagram| match Message::parse(datagram) {
        Ok(
            Message::Data { receiver, .. }
            | Message::Response { receiver }
            | Message::Cookie { receiver },
        ) => {
            let owner = PeerIndex::from_receiver(receiver).worker();
            (owner != engine.config.worker && owner.as_usize() < engine.config.workers)
                .then_some(owner)
        }
        Ok(Message::Initiation) | Err(_) => None,
    };
    let mut datagrams = frame.datagrams();
    let owner = owner_of(datagrams.next()?)?;
    datagrams
        .all(|datagram| owner_of(datagram) == Some(owner))
        .then_some(owner)
}

pub(crate) fn copy_of(engine: &mut Engine, datagram: &[u8], endpoint: &Endpoint) -> UdpFrame {
    let mut frame = engine.spare_udp();
    frame.buf.storage_mut()[..datagram.len()].copy_from_slice(datagram);
    frame.buf.set_len(datagram.len());
    frame.segment_len = 0;
    frame.endpoint = *endpoint;
    frame
}

pub(crate) fn hand_out(engine: &mut Engine, to: WorkerId, handoff: Handoff, packets: u64) {
    debug_assert_ne!(to, engine.config.worker);
    engine.counters.handed_out += packets;
    engine.handoffs.push((to, handoff));
}

/// Packets that a frame becomes: its segments.
pub(crate) fn tun_packets(frame: &TunFrame, info: &PacketInfo) -> u64 {
    match (frame.vnet.gso_kind(), frame.vnet.gso_size) {
        (Some(GsoKind::None) | None, _) | (_, 0) => 1,
        (Some(GsoKind::TcpV4 | GsoKind::TcpV6 | GsoKind::UdpL4), size) => {
            info.payload_len().div_ceil(usize::from(size)).max(1) as u64
        }
    }
}

pub(crate) fn udp_packets(frame: &UdpFrame) -> u64 {
    match frame.segment_len {
        0 => 1,
        step => frame.buf.len().div_ceil(step).max(1) as u64,
    }
}
