//! Messages that begin or answer a handshake, before their tunnel sees them: which identity they are addressed to, what
//! its gate says, and whose they are.

use std::sync::Arc;
use std::time::Instant;

use patronus_packet::Endpoint;
use patronus_tunnel::{Admission, Identity, WorkerId};

use crate::counters::DropReason;
use crate::engine::{Engine, Handoff};
use crate::handing::{copy_of, hand_out};
use crate::lanes;
use crate::peers::Slot;
use crate::pipeline::handshake;

/// Asks the gate of `identity` about a handshake message; where it says no, the message has ended.
fn admitted(
    engine: &mut Engine,
    identity: &Identity,
    datagram: &[u8],
    endpoint: &Endpoint,
) -> bool {
    let source = endpoint.remote.ip();
    match identity
        .gate()
        .admit(source, datagram, engine.udp_out.room())
    {
        Admission::Pass => return true,
        Admission::BadMac => engine.counters.drop(DropReason::HandshakeBadMac, 1),
        Admission::LowOrder => engine.counters.drop(DropReason::HandshakeLowOrder, 1),
        Admission::Cookie(len) => {
            engine.udp_out.commit_own(len, endpoint);
            engine.counters.drop(DropReason::HandshakeUnderLoad, 1);
        }
    }
    false
}

/// The lane that an initiation is addressed to, by its first MAC: the site's own unless another one fits. The kernel
/// steers by the sender's index, so the lane may be any worker's.
fn addressed_lane(engine: &Engine, datagram: &[u8]) -> Option<WorkerId> {
    if !engine.snapshot.has_lanes() || engine.snapshot.identity().gate().is_addressed(datagram) {
        return None;
    }
    let lanes = engine.snapshot.lane_identities();
    let fits = |identity: &Arc<Identity>| identity.gate().is_addressed(datagram);
    lanes
        .iter()
        .position(fits)
        .map(|worker| WorkerId(worker as u8))
}

/// An initiation: the only message that names its peer by key. Whichever worker gets it finds the owner.
pub(crate) fn initiation(engine: &mut Engine, datagram: &[u8], endpoint: &Endpoint, now: Instant) {
    let lane = addressed_lane(engine, datagram);
    let identity = lane
        .and_then(|worker| engine.snapshot.lane_identity(worker))
        .unwrap_or(engine.snapshot.identity())
        .clone();
    if !admitted(engine, &identity, datagram, endpoint) {
        return;
    }
    let claimed = identity.claimed_initiator(datagram);
    let owner = claimed.and_then(|key| match lane {
        None => engine
            .snapshot
            .peer_by_key(&key)
            .map(|spec| (spec.id, spec.worker)),
        Some(worker) => {
            let spec = engine.snapshot.peer_by_lane_key(&key)?;
            let is_paired = spec.lane_of(worker)?.lane.remote == key;
            is_paired.then_some((spec.id, worker))
        }
    });
    let Some((id, worker)) = owner else {
        let reason = match claimed {
            Some(_) => DropReason::HandshakeUnknownPeer,
            None => DropReason::HandshakeInvalid,
        };
        engine.counters.drop(reason, 1);
        return;
    };
    if worker != engine.config.worker {
        let frame = copy_of(engine, datagram, endpoint);
        hand_out(engine, worker, Handoff::Initiation(frame, id), 1);
        return;
    }
    match engine.peers.slot_of(id) {
        Some(slot) => handshake(engine, slot, datagram, endpoint, now),
        None => engine.counters.drop(DropReason::HandshakeUnknownPeer, 1),
    }
}

/// An answer to an initiation of ours, for the tunnel that its index names.
pub(crate) fn response(
    engine: &mut Engine,
    slot: Slot,
    datagram: &[u8],
    endpoint: &Endpoint,
    now: Instant,
) {
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    let identity = lanes::identity_of(engine, &peer.role).clone();
    if admitted(engine, &identity, datagram, endpoint) {
        handshake(engine, slot, datagram, endpoint, now);
    }
}
