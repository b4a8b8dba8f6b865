//! The order in which things happen to a packet, written once.
//!
//! ```text
//! outbound: parse -> flow, route, policy -> hand to the owner, or wait for a handshake, or cut and seal -> train
//! inbound:  message -> hand to the owner -> session -> open -> parse -> flow, allowed IP, policy -> join
//! ```
//!
//! A superpacket from the TUN passes every stage up to `seal` once, whatever the number of its segments; a
//! train from an uplink looks its flow up once as long as the flow stays the same ([`Flight`]).
//! Every function that takes a packet ends it: forwarded into an output, consumed, handed on, made to wait, or
//! dropped with a reason. One that answers `false` took nothing and wants the outputs drained.

use std::time::Instant;

use patronus_packet::cut::PADDING_MULTIPLE;
use patronus_packet::{
    Cutter, Endpoint, FlowKey, PacketInfo, Padding, TunFrame, UdpFrame, parse, tos,
};
use patronus_tunnel::clock::Label;
use patronus_tunnel::message::{DATA_OVERHEAD, INITIATION_LEN};
use patronus_tunnel::peer::CONTROL_ROOM;
use patronus_tunnel::{Message, MessageError, Opened, PeerIndex, Refused, Staged};

use crate::admission::{initiation, response};
use crate::counters::DropReason;
use crate::engine::{Engine, Event, Handoff};
use crate::flow_table::{FlowSlot, OpenedBy, Steer};
use crate::handing::{copy_of, foreign_owner, hand_out, tun_packets, udp_packets};
use crate::lanes::{self, Role};
use crate::narrow;
use crate::path_machine;
use crate::path_setup;
use crate::peers::{OwnedPeer, Slot};
use crate::policing::{self, Case, Look};
use crate::refusal;
use crate::snapshot::{PeerId, Snapshot};
use crate::stages::Stage;
use crate::steering;

/// Room for the largest waiting packet, sealed.
const STAGED_ROOM: usize = patronus_packet::frame::FRAME_DATA_MAX + 16 + DATA_OVERHEAD;

/// The flow of the datagram before, and its traffic since the table was last written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// From local to remote.
    key: FlowKey,
    peer: PeerId,
    slot: FlowSlot,
    packets: u32,
    bytes: u64,
    now_s: u32,
}

/// A packet or superpacket from the TUN.
pub(crate) fn outbound(engine: &mut Engine, frame: &mut TunFrame, now: Instant) -> bool {
    let info = match parse(frame.buf.data()) {
        Ok(info) => info,
        Err(_) => {
            count_tun(engine, 1, frame.buf.len());
            engine.counters.drop(DropReason::TunMalformed, 1);
            return true;
        }
    };
    let packets = tun_packets(frame, &info);
    if !has_room_to_seal(engine, frame, &info, packets) {
        if !engine.udp_out.is_empty() {
            return false;
        }
        // Thousands of segments of a few bytes each: more than a whole batch holds.
        count_tun(engine, packets, frame.buf.len());
        engine.counters.drop(DropReason::TunSuperpacket, packets);
        return true;
    }
    count_tun(engine, packets, frame.buf.len());
    engine.stages.lap(Stage::Parse);
    let look = Look::at(frame.buf.data(), &info, engine.snapshot.policy());
    let passed = match flow_outbound(engine, &info, &look, packets, frame.buf.data(), now) {
        Ok(passed) => {
            engine.stages.lap(Stage::Flow);
            passed
        }
        Err(reason) => {
            engine.counters.drop(reason, packets);
            if reason == DropReason::PolicyDeniedOut {
                refusal::to_local(engine, frame.buf.data(), &info, look.role, now);
            }
            return true;
        }
    };
    let Passed { peer, slot, steer } = passed;
    let owner = engine.snapshot.peer(peer).map(|spec| spec.worker);
    match owner {
        Some(owner)
            if owner != engine.config.worker && !lanes::carries(engine, slot, steer, now) =>
        {
            let frame = std::mem::replace(frame, engine.spare_tun());
            hand_out(engine, owner, Handoff::Tun(frame, peer, steer), packets);
        }
        Some(_) | None => seal(engine, frame, &info, slot, steer, packets, now),
    }
    true
}

/// A datagram or a train of them from an uplink.
pub(crate) fn inbound(engine: &mut Engine, frame: &mut UdpFrame, now: Instant) -> bool {
    let packets = udp_packets(frame);
    let fits = has_room_to_open(engine, frame);
    let is_drained = engine.tun_out.is_empty() && engine.udp_out.is_empty();
    if !fits && !is_drained {
        return false;
    }
    engine.counters.rx_udp += packets;
    engine.counters.rx_udp_bytes += frame.buf.len() as u64;
    if !fits {
        // Thousands of datagrams of a few bytes each: more than a whole batch holds, and none is a message.
        engine.counters.drop(DropReason::OuterLength, packets);
        return true;
    }
    if frame.endpoint.remote.port() == 0 {
        engine.counters.drop(DropReason::OuterSource, packets);
        return true;
    }
    if let Some(owner) = foreign_owner(engine, frame) {
        let frame = std::mem::replace(frame, engine.spare_udp());
        hand_out(engine, owner, Handoff::Udp(frame), packets);
        return true;
    }
    datagrams(engine, frame, now);
    true
}

/// A packet that another worker received.
pub(crate) fn handed(engine: &mut Engine, handoff: &mut Handoff, now: Instant) -> bool {
    match handoff {
        Handoff::Tun(frame, peer, steer) => {
            // The other worker parsed it already, or it would not be here.
            let Ok(info) = parse(frame.buf.data()) else {
                engine.counters.handed_in += 1;
                engine.counters.drop(DropReason::TunMalformed, 1);
                return true;
            };
            let packets = tun_packets(frame, &info);
            if !has_room_to_seal(engine, frame, &info, packets) {
                debug_assert!(
                    !engine.udp_out.is_empty(),
                    "the other worker refused what fits no batch"
                );
                return false;
            }
            engine.counters.handed_in += packets;
            let slot = engine.peers.slot_of(*peer);
            let steer = steering::resteer(engine, slot, *steer, now);
            seal(engine, frame, &info, slot, steer, packets, now);
        }
        Handoff::Udp(frame) => {
            if !has_room_to_open(engine, frame) {
                let is_drained = engine.tun_out.is_empty() && engine.udp_out.is_empty();
                debug_assert!(!is_drained, "the other worker drops what fits no batch");
                return false;
            }
            engine.counters.handed_in += udp_packets(frame);
            datagrams(engine, frame, now);
        }
        Handoff::Initiation(frame, peer) => {
            if !has_room_for_control(engine) {
                return false;
            }
            engine.counters.handed_in += 1;
            match engine.peers.slot_of(*peer) {
                Some(slot) => handshake(engine, slot, frame.buf.data(), &frame.endpoint, now),
                None => engine.counters.drop(DropReason::HandshakeUnknownPeer, 1),
            }
            flush_waiting(engine, now);
        }
    }
    true
}

/// Whether a handshake message or keepalive may be written.
pub(crate) fn has_room_for_control(engine: &Engine) -> bool {
    engine.udp_out.has_room(1, CONTROL_ROOM)
}

/// Begins a handshake with a peer whose address is known.
pub(crate) fn initiate(engine: &mut Engine, slot: Slot, now: Instant) {
    let label = label_for(engine, slot, now);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let Some(endpoint) = path_setup::initiation_end(peer, &engine.uplink_faults) else {
        return;
    };
    debug_assert!(engine.udp_out.free() >= CONTROL_ROOM);
    if let Some(len) = peer.tunnel.initiate(label, engine.udp_out.room(), now) {
        peer.attempts = peer.attempts.wrapping_add(1);
        engine.udp_out.commit_own(len, &endpoint);
        engine.peers.count(slot, 0, len as u64);
    }
}

/// One initiation to a peer that has fallen silent, on the next of its ends. Whether it was sent.
pub(crate) fn call(engine: &mut Engine, slot: Slot, now: Instant) -> bool {
    if !has_room_for_control(engine) {
        return false;
    }
    let label = label_for(engine, slot, now);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return false;
    };
    let Some(endpoint) = path_setup::initiation_end(peer, &engine.uplink_faults) else {
        return false;
    };
    let Some(len) = peer.tunnel.call(label, engine.udp_out.room(), now) else {
        return false;
    };
    peer.attempts = peer.attempts.wrapping_add(1);
    engine.udp_out.commit_own(len, &endpoint);
    engine.peers.count(slot, 0, len as u64);
    true
}

/// Runs one peer's timers.
pub(crate) fn peer_timer(engine: &mut Engine, slot: Slot, now: Instant) {
    let label = label_for(engine, slot, now);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let (id, mut endpoint) = (peer.spec.id, peer.endpoint);
    let timed = peer.tunnel.on_timer(label, engine.udp_out.room(), now);
    if timed.send == Some(INITIATION_LEN) {
        endpoint = path_setup::initiation_end(peer, &engine.uplink_faults);
        peer.attempts = peer.attempts.wrapping_add(1);
    }
    if let (Some(len), Some(endpoint)) = (timed.send, endpoint) {
        engine.udp_out.commit_own(len, &endpoint);
        engine.peers.count(slot, 0, len as u64);
    }
    if timed.staged_dropped > 0 {
        let packets = timed.staged_dropped as u64;
        engine.counters.staged -= packets;
        engine.counters.drop(DropReason::HandshakeTimeout, packets);
        engine.event(Event::HandshakeTimeout(id));
    }
    lanes::on_timer(engine, slot, now);
    path_machine::on_timer(engine, slot, now);
}

/// The date of the next initiation of one tunnel.
fn label_for(engine: &Engine, slot: Slot, now: Instant) -> Label {
    let role = engine.peers.get(slot).map(|peer| &peer.role);
    role.map_or(engine.snapshot.identity(), |role| {
        lanes::identity_of(engine, role)
    })
    .label(now)
}

/// Sends what waited for the handshakes that are done, as far as there is room.
pub(crate) fn flush_waiting(engine: &mut Engine, now: Instant) {
    while let Some(slot) = engine.unflushed.pop_front() {
        if !flush_staged(engine, slot, now) {
            return;
        }
    }
}

/// Sends what waited for one handshake; `false` when some of it found no room and waits on.
fn flush_staged(engine: &mut Engine, slot: Slot, now: Instant) -> bool {
    let Some(peer) = engine.peers.get_mut(slot) else {
        return true;
    };
    let Some(endpoint) = peer.endpoint else {
        return true;
    };
    let (mut sent, mut sent_bytes) = (0, 0);
    let mut complete = true;
    while peer.tunnel.can_seal(now) && peer.tunnel.staged_len() > 0 {
        if !engine.udp_out.has_room(1, STAGED_ROOM) {
            engine.unflushed.push_front(slot);
            complete = false;
            break;
        }
        let Some(packet) = peer.tunnel.unstage() else {
            break;
        };
        engine.counters.staged -= 1;
        match peer.tunnel.seal(&packet, engine.udp_out.room(), now) {
            Some(len) => {
                engine.udp_out.commit(len, &endpoint);
                sent += 1;
                sent_bytes += len as u64;
            }
            None => engine.counters.drop(DropReason::DataNoSession, 1),
        }
    }
    engine.peers.count_sent(slot, sent, sent_bytes);
    complete
}

/// Writes the traffic of the last inbound flow into its entry.
pub(crate) fn close_flight(engine: &mut Engine) {
    if let Some(flight) = engine.flight.take() {
        engine
            .flows
            .touch(flight.slot, flight.packets, flight.bytes, flight.now_s);
    }
}

// Outbound stages.

fn count_tun(engine: &mut Engine, packets: u64, bytes: usize) {
    engine.counters.rx_tun += packets;
    engine.counters.rx_tun_bytes += bytes as u64;
}

/// What an outbound packet needs to know of its flow.
struct Passed {
    /// The owner of the destination.
    peer: PeerId,
    /// This worker's tunnel with it.
    slot: Option<Slot>,
    steer: Steer,
}

/// The peer that owns the destination, and whether policy lets the packet go there: from the flow's entry, or from
/// routes and policy where the entry is missing or of another configuration. And the flow's class and path.
fn flow_outbound(
    engine: &mut Engine,
    info: &PacketInfo,
    look: &Look,
    packets: u64,
    packet: &[u8],
    now: Instant,
) -> Result<Passed, DropReason> {
    let (clock, generation) = (engine.clock(now), engine.snapshot.generation());
    let now_s = clock.s;
    let case_of = |peer| Case {
        key: &info.key,
        peer,
        side: OpenedBy::Local,
        look: *look,
        packets,
        now,
        now_s,
    };
    if !look.has_flow() {
        let peer = engine.snapshot.next_hop(&info.key);
        let peer = peer.ok_or(DropReason::NoRoute)?;
        if !policing::passes_alone(engine, &case_of(peer)) {
            return Err(DropReason::PolicyDeniedOut);
        }
        let slot = engine.peers.slot_of(peer);
        let steer = steering::steer_alone(engine, peer, slot, &info.key, dscp(packet));
        return Ok(Passed { peer, slot, steer });
    }
    let known = engine.flows.lookup(&info.key, now_s);
    let hit = known.and_then(|slot| Some((slot, engine.flows.verdict(slot, generation)?)));
    let (flow, peer, steer) = match hit {
        Some((flow, hit)) if hit.passes(OpenedBy::Local, look.is_opening()) => {
            (flow, hit.peer, hit.steer)
        }
        Some(_) | None => {
            let peer = engine.snapshot.next_hop(&info.key);
            let peer = peer.ok_or(DropReason::NoRoute)?;
            let entered = enter_flow(engine, known, &case_of(peer), dscp(packet));
            let (flow, steer) = entered.ok_or(DropReason::PolicyDeniedOut)?;
            (flow, peer, steer)
        }
    };
    if look.is_first_fragment() {
        policing::passed(engine, &case_of(peer));
    }
    let slot = engine.peers.slot_of(peer);
    let steered = steering::steer(engine, peer, slot, &info.key, steer, &clock);
    let (packets, bytes) = (packets as u32, packet.len() as u64);
    match steered {
        Some(steer) => engine.flows.touch_sent(flow, packets, bytes, now_s, steer),
        None => engine.flows.touch(flow, packets, bytes, now_s),
    }
    let steer = steered.unwrap_or(steer);
    Ok(Passed { peer, slot, steer })
}

/// Judges a flow anew, or opens it, and gives it its class; `None` where policy denies it.
fn enter_flow(
    engine: &mut Engine,
    known: Option<FlowSlot>,
    case: &Case<'_>,
    dscp: u8,
) -> Option<(FlowSlot, Steer)> {
    let before = known.map(|slot| engine.flows.flow(slot));
    let was_steered = before.is_some_and(|it| it.passage.is_allowed() && it.peer == case.peer);
    let slot = admit_flow(engine, known, case)?;
    Some((slot, steering::classify(engine, slot, !was_steered, dscp)))
}

/// Judges a flow anew, or opens it; `None` where policy denies it. A sibling that knows the flow knows who opened it.
fn admit_flow(engine: &mut Engine, known: Option<FlowSlot>, case: &Case<'_>) -> Option<FlowSlot> {
    if engine.snapshot.policy().is_some() {
        return policing::enter(engine, known, case);
    }
    let generation = engine.snapshot.generation();
    if let Some(slot) = known {
        engine.flows.renew(slot, case.peer, generation);
        return Some(slot);
    }
    let elsewhere = engine
        .siblings
        .iter()
        .find_map(|table| table.find(case.key, case.now_s));
    if elsewhere.is_none() {
        engine.counters.flows_opened += 1;
    }
    let opened_by = elsewhere.map_or(case.side, |flow| flow.opened_by);
    let flows = &mut engine.flows;
    Some(flows.insert(case.key, case.peer, opened_by, generation, case.now_s))
}

/// Cuts a packet into segments and seals each, or lets them wait for a handshake.
fn seal(
    engine: &mut Engine,
    frame: &mut TunFrame,
    info: &PacketInfo,
    slot: Option<Slot>,
    steer: Steer,
    packets: u64,
    now: Instant,
) {
    let Some((slot, peer)) = slot.and_then(|slot| Some((slot, engine.peers.get_mut(slot)?))) else {
        // Removed while the packet was on its way between two workers.
        engine.counters.drop(DropReason::PeerRemoved, packets);
        return;
    };
    let Some(way) = steering::way_of(peer, steer) else {
        engine.counters.drop(DropReason::NoEndpoint, packets);
        return;
    };
    let padding = Padding {
        mtu: way.narrow_mtu.unwrap_or(engine.snapshot.mtu()),
    };
    let packets = match narrow::fits(frame.buf.data(), info, way.narrow_mtu) {
        true => packets,
        false => match narrow::fit(engine, frame, info, way.narrow_mtu, packets, now) {
            Some(packets) => packets,
            None => return,
        },
    };
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let tos = tos::encapsulated(info.tos);
    let mut cutter = match Cutter::new(frame, info) {
        Ok(cutter) => cutter,
        Err(_) => {
            engine.counters.drop(DropReason::TunSuperpacket, packets);
            return;
        }
    };
    debug_assert_eq!(cutter.segments() as u64, packets);
    if !peer.tunnel.can_seal(now) {
        while let Some(segment) = cutter.next_segment(padding) {
            match peer.tunnel.stage(segment.padded) {
                Staged::Queued => engine.counters.staged += 1,
                Staged::OldestDropped => engine.counters.drop(DropReason::StagedOverflow, 1),
            }
        }
        initiate(engine, slot, now);
        return;
    }
    let mark = engine.udp_out.mark();
    let (mut sealed, mut sealed_bytes) = (0, 0);
    while let Some(segment) = cutter.next_segment(padding) {
        engine.stages.lap(Stage::Cut);
        if way.narrow_mtu.is_some_and(|mtu| segment.packet_len > mtu) {
            let packet = &segment.padded[..segment.packet_len];
            let (fragments, bytes) = narrow::seal_fragments(
                &mut peer.tunnel,
                &mut engine.udp_out,
                &mut engine.counters,
                packet,
                padding,
                (&way.endpoint, tos),
                now,
            );
            sealed += fragments;
            sealed_bytes += bytes;
            continue;
        }
        match peer.tunnel.seal(segment.padded, engine.udp_out.room(), now) {
            Some(len) => {
                engine.udp_out.commit_classed(len, &way.endpoint, tos);
                sealed += 1;
                sealed_bytes += len as u64;
            }
            None => engine.counters.drop(DropReason::DataNoSession, 1),
        }
        engine.stages.lap(Stage::Seal);
    }
    match way.copy {
        // Nobody can tell of a pair which one came, so pairs stay out of the loss of data.
        Some(copy) => {
            let copies = engine.udp_out.repeat_since(mark, &copy, CONTROL_ROOM);
            engine.counters.copies_sent += copies;
        }
        None => {
            if let (Some(path), Some(outlets)) = (way.path, &mut peer.outlets) {
                outlets.count_sent(path, steer.class(), sealed, sealed_bytes);
            }
        }
    }
    engine.peers.count_sent(slot, sealed, sealed_bytes);
}

/// Whether all segments of a frame fit, sealed, with an initiation on top.
fn has_room_to_seal(engine: &Engine, frame: &TunFrame, info: &PacketInfo, packets: u64) -> bool {
    let packets = narrow::packets_max(engine, frame, info, packets);
    let packets = usize::try_from(packets).unwrap_or(usize::MAX);
    let per_segment = usize::from(info.payload_offset) + PADDING_MULTIPLE + DATA_OVERHEAD;
    let bytes = frame.buf.len() + packets.saturating_mul(per_segment) + CONTROL_ROOM;
    engine.udp_out.has_room(packets + 1, bytes)
}

// Inbound stages.

/// All datagrams of a frame; whole trains of other workers were taken out before.
fn datagrams(engine: &mut Engine, frame: &UdpFrame, now: Instant) {
    if frame.buf.is_empty() {
        engine.counters.drop(DropReason::OuterType, 1);
        return;
    }
    for datagram in frame.datagrams() {
        match Message::parse(datagram) {
            Err(MessageError::Type) => engine.counters.drop(DropReason::OuterType, 1),
            Err(MessageError::Length) => engine.counters.drop(DropReason::OuterLength, 1),
            Ok(Message::Initiation) => initiation(engine, datagram, &frame.endpoint, now),
            Ok(Message::Data { receiver, counter }) => {
                if let Some(slot) = session(engine, receiver, datagram, &frame.endpoint) {
                    data(engine, slot, datagram, counter, frame, now);
                }
            }
            Ok(Message::Response { receiver }) => {
                if let Some(slot) = session(engine, receiver, datagram, &frame.endpoint) {
                    response(engine, slot, datagram, &frame.endpoint, now);
                }
            }
            Ok(Message::Cookie { receiver }) => {
                if let Some(slot) = session(engine, receiver, datagram, &frame.endpoint) {
                    handshake(engine, slot, datagram, &frame.endpoint, now);
                }
            }
        }
    }
    // Not before: the room for answers was reserved for this frame, and what waits may take all of it.
    flush_waiting(engine, now);
}

/// The tunnel that a receiver index names. A single datagram of another worker's tunnel, in the middle of a
/// train that is ours, is copied and handed on.
fn session(
    engine: &mut Engine,
    receiver: u32,
    datagram: &[u8],
    endpoint: &Endpoint,
) -> Option<Slot> {
    let index = PeerIndex::from_receiver(receiver);
    let owner = index.worker();
    if owner != engine.config.worker && owner.as_usize() < engine.config.workers {
        let frame = copy_of(engine, datagram, endpoint);
        hand_out(engine, owner, Handoff::Udp(frame), 1);
        return None;
    }
    let slot = engine.peers.slot_of_index(index);
    if slot.is_none() {
        engine.counters.drop(DropReason::UnknownIndex, 1);
    }
    slot
}

/// A handshake message or cookie that passed the gate, for a tunnel of ours.
pub(crate) fn handshake(
    engine: &mut Engine,
    slot: Slot,
    datagram: &[u8],
    endpoint: &Endpoint,
    now: Instant,
) {
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let room = engine.udp_out.room();
    let opened = peer.tunnel.open_handshake(datagram, room, now);
    match opened {
        Ok(Opened::Reply(len)) => {
            let id = peer.spec.id;
            lanes::heard(&mut peer.role);
            // Also on a known path: it works, which is more than is known of any other, and what waits goes there.
            let moved = roam(peer, endpoint);
            engine.udp_out.commit_own(len, endpoint);
            engine.counters.consumed += 1;
            engine.peers.count(slot, datagram.len() as u64, len as u64);
            note_handshake(engine, slot, now);
            tell_roaming(engine, id, moved);
            engine.unflushed.push_back(slot);
        }
        Ok(Opened::Handshake | Opened::Keepalive | Opened::Packet(_)) => {
            engine.counters.consumed += 1;
            engine.peers.count(slot, datagram.len() as u64, 0);
        }
        Err(refused) => {
            peer.stats.note_refused(refused);
            engine.counters.drop(reason_of(refused), 1);
        }
    }
}

/// A data message for a tunnel of ours.
fn data(
    engine: &mut Engine,
    slot: Slot,
    datagram: &[u8],
    counter: u64,
    frame: &UdpFrame,
    now: Instant,
) {
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let id = peer.spec.id;
    let had_session = peer.tunnel.has_session();
    engine.stages.lap(Stage::Session);
    let opened = peer
        .tunnel
        .open(datagram, counter, engine.tun_out.room(), now);
    engine.stages.lap(Stage::Open);
    match opened {
        Err(Refused::InnerMalformed) => lanes::no_packet(
            engine,
            slot,
            &frame.endpoint,
            datagram.len() - DATA_OVERHEAD,
            now,
        ),
        Err(Refused::Replayed)
            if steering::is_on_known_path(peer, &engine.snapshot, &frame.endpoint) =>
        {
            engine.counters.drop(DropReason::DataCopy, 1);
            return;
        }
        Err(refused) => {
            peer.stats.note_refused(refused);
            engine.counters.drop(reason_of(refused), 1);
            return;
        }
        Ok(Opened::Packet(len)) => deliver(engine, slot, id, len, frame.tos, now),
        Ok(Opened::Keepalive | Opened::Reply(_) | Opened::Handshake) => {
            engine.counters.consumed += 1
        }
    }
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    lanes::heard(&mut peer.role);
    let received = matches!(opened, Ok(Opened::Packet(_))).then_some(datagram.len());
    let moved = arrived(peer, &engine.snapshot, &frame.endpoint, received);
    let flush = !had_session && peer.tunnel.has_session();
    engine.peers.count(slot, datagram.len() as u64, 0);
    note_handshake(engine, slot, now);
    tell_roaming(engine, id, moved);
    if flush {
        engine.unflushed.push_back(slot);
    }
}

/// Tells the world of a handshake that the last message completed.
fn note_handshake(engine: &mut Engine, slot: Slot, now: Instant) {
    let at = engine.since_epoch(now);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    if !peer.tunnel.take_handshake_completed() {
        return;
    }
    let id = peer.spec.id;
    peer.stats
        .set_last_handshake(at, peer.tunnel.is_initiator());
    peer.attempts = 0;
    engine.counters.handshakes += 1;
    let is_main = matches!(peer.role, Role::Main(_));
    lanes::on_handshake(engine, slot, now);
    if is_main {
        engine.event(Event::HandshakeCompleted(id));
        path_machine::on_handshake(engine, slot, now);
    }
}

/// An inner packet of `len` bytes at the start of the TUN batch's room, sent by peer `id` through the tunnel in
/// `slot`.
fn deliver(engine: &mut Engine, slot: Slot, id: PeerId, len: usize, tos: u8, now: Instant) {
    let packet = &engine.tun_out.room()[..len];
    let mut info = match parse(packet) {
        Ok(info) => info,
        Err(_) => {
            engine.counters.drop(DropReason::InnerMalformed, 1);
            return;
        }
    };
    let look = Look::at(packet, &info, engine.snapshot.policy());
    engine.stages.lap(Stage::Parse);
    let passed = flow_inbound(engine, &info, &look, id, len, now);
    let is_plain = narrow::leaves_unchanged(&engine.tun_out.room()[..len], &info, tos);
    let passed = match is_plain {
        true => passed,
        false => passed.and_then(|()| narrow::leave_tunnel(engine, slot, len, &mut info, tos)),
    };
    match passed {
        Ok(()) => {
            engine.stages.lap(Stage::Flow);
            // The tunnel cut the padding off; a length that the two disagree on is the parser's to decide.
            engine.tun_out.commit(usize::from(info.total_len), &info);
            engine.stages.lap(Stage::Join);
        }
        Err(reason) => {
            engine.counters.drop(reason, 1);
            if reason == DropReason::PolicyDeniedIn {
                refusal::to_remote(engine, slot, len, &info, look.role, now);
            }
        }
    }
}

/// Whether the inner source belongs to the peer that sent the packet, the most specific owner counts; and whether
/// policy lets it in.
fn flow_inbound(
    engine: &mut Engine,
    info: &PacketInfo,
    look: &Look,
    id: PeerId,
    bytes: usize,
    now: Instant,
) -> Result<(), DropReason> {
    let key = info.key.reversed();
    if let Some(flight) = &mut engine.flight
        && flight.key == key
        && flight.peer == id
        && look.is_plain()
    {
        flight.packets += 1;
        flight.bytes += bytes as u64;
        return Ok(());
    }
    close_flight(engine);
    let (now_s, generation) = (engine.now_s(now), engine.snapshot.generation());
    let case = Case {
        key: &key,
        peer: id,
        side: OpenedBy::Remote,
        look: *look,
        packets: 1,
        now,
        now_s,
    };
    let is_owner = |engine: &Engine| engine.snapshot.may_send(id, key.dst);
    if !look.has_flow() {
        if !is_owner(engine) {
            return Err(DropReason::InnerSource);
        }
        let passes = policing::passes_alone(engine, &case);
        return passes.then_some(()).ok_or(DropReason::PolicyDeniedIn);
    }
    let known = engine.flows.lookup(&key, now_s);
    let hit = known.and_then(|slot| Some((slot, engine.flows.verdict(slot, generation)?)));
    let slot = match hit {
        // Answers may come from the owner while packets to it take a detour.
        Some((_, hit))
            if hit.peer != id && !(engine.snapshot.has_detours() && is_owner(engine)) =>
        {
            return Err(DropReason::InnerSource);
        }
        Some((slot, hit)) if hit.passes(OpenedBy::Remote, look.is_opening()) => slot,
        Some(_) | None => {
            if !is_owner(engine) {
                return Err(DropReason::InnerSource);
            }
            let dscp = dscp(engine.tun_out.room());
            let entered = enter_flow(engine, known, &case, dscp);
            entered.ok_or(DropReason::PolicyDeniedIn)?.0
        }
    };
    if look.is_first_fragment() {
        policing::passed(engine, &case);
    }
    engine.flight = Some(Flight {
        key,
        peer: id,
        slot,
        packets: 1,
        bytes: bytes as u64,
        now_s,
    });
    Ok(())
}

/// An authenticated message came from `endpoint`, with that many bytes where it carried a packet. Where the peer has
/// several paths, one that is known moves nothing.
#[inline]
fn arrived(
    peer: &mut OwnedPeer,
    snapshot: &Snapshot,
    endpoint: &Endpoint,
    received: Option<usize>,
) -> Option<Endpoint> {
    let path = steering::arrival(peer, snapshot, endpoint);
    if let (Some(path), Some(bytes), Some(outlets)) = (path, received, &mut peer.outlets) {
        outlets.count_received(path, bytes as u64);
    }
    let stays = path.is_some() && peer.has_several() && peer.endpoint.is_some();
    if stays { None } else { roam(peer, endpoint) }
}

/// Takes an authenticated message's source as the peer's address; answers whether the address is a new one.
fn roam(peer: &mut OwnedPeer, endpoint: &Endpoint) -> Option<Endpoint> {
    if peer.endpoint.as_ref() == Some(endpoint) {
        return None;
    }
    let is_new = peer
        .endpoint
        .is_none_or(|old| old.remote != endpoint.remote);
    peer.endpoint = Some(*endpoint);
    peer.publish_endpoint();
    let is_main = matches!(peer.role, Role::Main(_));
    (is_new && is_main).then_some(*endpoint)
}

fn tell_roaming(engine: &mut Engine, id: PeerId, moved: Option<Endpoint>) {
    if let Some(endpoint) = moved {
        engine.event(Event::EndpointChanged(id, endpoint));
    }
}

/// The codepoint of an IP packet (RFC 2474).
fn dscp(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => (first & 0xf) << 2 | second >> 6,
        [_, tos, ..] => tos >> 2,
        _ => 0,
    }
}

fn has_room_to_open(engine: &Engine, frame: &UdpFrame) -> bool {
    let datagrams = udp_packets(frame) as usize;
    engine
        .tun_out
        .has_room(datagrams, frame.buf.len() + DATA_OVERHEAD)
        && engine.udp_out.has_room(datagrams, datagrams * CONTROL_ROOM)
}

fn reason_of(refused: Refused) -> DropReason {
    match refused {
        Refused::NoSession => DropReason::DataNoSession,
        Refused::Replayed => DropReason::DataReplayed,
        Refused::TooOld => DropReason::DataTooOld,
        Refused::CounterLimit => DropReason::DataCounterLimit,
        Refused::BadTag => DropReason::DataBadTag,
        Refused::InnerMalformed => DropReason::InnerMalformed,
        Refused::HandshakeReplayed => DropReason::HandshakeReplayed,
        Refused::HandshakeFlood => DropReason::HandshakeFlood,
        Refused::HandshakeInvalid => DropReason::HandshakeInvalid,
        Refused::CookieInvalid => DropReason::CookieInvalid,
    }
}
