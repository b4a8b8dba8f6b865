//! Lanes in the pipeline: negotiation on lane 0, tunnels of lanes, and the choice between a lane and handing on.
//!
//! The worker that owns a peer's lane 0 negotiates (`patronus_tunnel::lanes`). What is agreed goes up to control as
//! an event and comes back in a snapshot, like all configuration; then each other worker has a tunnel of its own
//! with the peer. A worker whose lane does not carry hands packets to lane 0's owner as before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patronus_packet::{Door, Endpoint};
use patronus_path::message::{HELLO_LEN, Kind};
use patronus_path::{Hello, Order};
use patronus_tunnel::lanes::{Control, MESSAGE_LEN_MAX, Negotiation};
use patronus_tunnel::message::DATA_OVERHEAD;
use patronus_tunnel::{Identity, PublicKey, WorkerId};

use crate::counters::DropReason;
use crate::engine::{Engine, Event};
use crate::flow_table::Steer;
use crate::lane_paths::{self, Telling};
use crate::path_machine;
use crate::peers::Slot;
use crate::snapshot::{LaneSpec, PeerSpec};
use crate::steering;

/// A peer that sends nothing at all for this long, while we send, is not there any more: an idle receiver answers
/// within `KEEPALIVE_TIMEOUT`, 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// A session older than this carries nothing: `REJECT_AFTER_TIME`.
const SESSION_LIFE: Duration = Duration::from_secs(180);
/// A control message, padded.
const CONTROL_LEN_MAX: usize = MESSAGE_LEN_MAX.next_multiple_of(16);

/// What a tunnel is to its peer.
#[derive(Debug)]
pub(crate) enum Role {
    /// Lane 0: the session that every WireGuard peer has.
    Main(Negotiation),
    /// A lane beside it.
    Lane(Lane),
}

/// A lane of this worker.
#[derive(Debug)]
pub(crate) struct Lane {
    pub spec: LaneSpec,
    /// Whether it is ours to open it, from the worker's own port.
    pub leads: bool,
    /// Where this side says where its lane is.
    pub telling: Telling,
    /// Where lane 0 was when the lane was last known to work.
    lane_0: Option<SocketAddr>,
    /// Whether the peer was heard on it since lane 0 moved.
    is_heard: bool,
    /// Whether a handshake was asked for and has not been begun.
    pub is_connecting: bool,
}

impl Lane {
    pub fn new(spec: &LaneSpec, peer: &PeerSpec, ours: &PublicKey) -> Self {
        Self {
            spec: spec.clone(),
            leads: *ours < peer.public_key,
            telling: Telling::default(),
            lane_0: lane_0(peer),
            is_heard: false,
            is_connecting: false,
        }
    }

    /// Where the lane begins: the side that leads knows where the other one listens, the other one waits.
    pub fn first_endpoint(&self) -> Option<Endpoint> {
        let remote = self.lane_0.filter(|_| self.leads)?;
        Some(Endpoint {
            door: Door::Lane,
            ..Endpoint::from(remote)
        })
    }
}

fn lane_0(peer: &PeerSpec) -> Option<SocketAddr> {
    peer.stats.endpoint().map(|endpoint| endpoint.remote)
}

/// Gives this worker the lane that `spec` has for it, or keeps the one it has.
pub(crate) fn apply(engine: &mut Engine, spec: &Arc<PeerSpec>, lane: &LaneSpec, now: Instant) {
    let Some(identity) = engine.snapshot.lane_identity(engine.config.worker).cloned() else {
        return;
    };
    if let Some(slot) = engine.peers.slot_of(spec.id) {
        if let Some(peer) = engine.peers.get_mut(slot) {
            peer.spec = spec.clone();
        }
        lane_paths::configure(engine, slot);
        return;
    }
    let role = Role::Lane(Lane::new(
        lane,
        spec,
        &engine.snapshot.identity().public_key(),
    ));
    if let Some(slot) = engine.peers.insert(&identity, spec.clone(), role, now) {
        lane_paths::configure(engine, slot);
        connect(engine, slot);
    }
}

/// Whether this worker's lane to the peer carries packets of that path at the moment. Asks for a handshake where it has
/// no session.
#[inline]
pub(crate) fn carries(engine: &mut Engine, slot: Option<Slot>, steer: Steer, now: Instant) -> bool {
    let Some(slot) = slot else {
        return false;
    };
    let Some(peer) = engine.peers.get_mut(slot) else {
        return false;
    };
    let Role::Lane(lane) = &peer.role else {
        return true;
    };
    if !peer.tunnel.has_session() {
        connect(engine, slot);
        return false;
    }
    lane.is_heard
        && peer.tunnel.silent_for(now) < SILENCE_MAX
        && steering::way_of(peer, steer).is_some()
}

/// Asks for a handshake of a lane whose other end is known.
fn connect(engine: &mut Engine, slot: Slot) {
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let Role::Lane(lane) = &mut peer.role else {
        return;
    };
    if peer.endpoint.is_some() && !lane.is_connecting {
        lane.is_connecting = true;
        engine.connect.push_back(slot);
    }
}

/// An authenticated message came in on a tunnel.
#[inline]
pub(crate) fn heard(role: &mut Role) {
    if let Role::Lane(lane) = role {
        lane.is_heard = true;
    }
}

/// What the timer does beside the tunnel's own business: offers lanes, and follows lane 0 to a new address.
pub(crate) fn on_timer(engine: &mut Engine, slot: Slot, now: Instant) {
    let at = engine.since_epoch(now);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    match &mut peer.role {
        Role::Main(negotiation) => {
            let is_due = negotiation.next_offer().is_some_and(|at| at <= now);
            if is_due && peer.tunnel.has_session() {
                offer(engine, slot, now);
            }
        }
        Role::Lane(lane) => {
            lane.is_connecting = false;
            let remote = lane_0(&peer.spec);
            // Where there are several paths, the lane has an end on each, and lane 0 may be on any.
            let has_several = peer.outlets.as_ref().is_some_and(|it| it.has_several);
            if has_several {
                lane.lane_0 = remote;
                let default = engine.snapshot.paths().classes.default;
                let end = peer.outlets.as_ref().and_then(|it| it.route_end(default));
                if let Some((_, end)) = end {
                    peer.endpoint = Some(*end);
                }
            } else if remote != lane.lane_0 {
                lane.lane_0 = remote;
                lane.is_heard = false;
                if lane.leads {
                    peer.endpoint = lane.first_endpoint();
                }
            }
            // Nothing reaches a worker whose queue is detached, so the lane is kept up while lane 0 is.
            let last = peer.spec.stats.last_handshake();
            let is_lane_0_up = last.is_some_and(|last| at.saturating_sub(last) < SESSION_LIFE);
            let is_usable = peer.tunnel.has_session() && lane.is_heard;
            if lane.leads && is_lane_0_up && !is_usable {
                connect(engine, slot);
            }
            lane_paths::on_timer(engine, slot, now);
        }
    }
}

fn offer(engine: &mut Engine, slot: Slot, now: Instant) {
    let ours = own_lanes(engine);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    if let Role::Main(negotiation) = &mut peer.role
        && let Some(offer) = negotiation.offer(&ours, now)
    {
        engine.control_out.push_back((slot, offer));
    }
}

/// A handshake completed.
pub(crate) fn on_handshake(engine: &mut Engine, slot: Slot, now: Instant) {
    let offers = engine.snapshot.has_lanes();
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    match &mut peer.role {
        Role::Main(negotiation) if offers => negotiation.begin(!peer.spec.lanes.is_empty(), now),
        Role::Main(_) => {}
        Role::Lane(_) => engine.wants_tun = true,
    }
}

/// The `len` bytes at the start of the TUN batch's room, which are no IP packet: a control message, perhaps.
/// Every case ends the datagram they came in.
pub(crate) fn no_packet(
    engine: &mut Engine,
    slot: Slot,
    endpoint: &Endpoint,
    len: usize,
    now: Instant,
) {
    let plaintext = &engine.tun_out.room()[..len];
    if Hello::is_hello(plaintext) {
        let hello = Hello::parse(plaintext);
        let order = Order::parse(&plaintext[len.min(HELLO_LEN)..]);
        match hello {
            Ok(hello) => on_hello(engine, slot, endpoint, (&hello, order), len, now),
            Err(_) => engine.counters.drop(DropReason::ControlMalformed, 1),
        }
        return;
    }
    if !Control::is_control(plaintext) {
        engine.counters.drop(DropReason::InnerMalformed, 1);
        return;
    }
    let message = Control::parse(plaintext);
    let ours = own_lanes(engine);
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let (Ok(message), Role::Main(negotiation)) = (message, &mut peer.role) else {
        engine.counters.drop(DropReason::ControlMalformed, 1);
        return;
    };
    engine.counters.consumed += 1;
    let id = peer.spec.id;
    let outcome = negotiation.handle(&message, &ours, now);
    if let Some(reply) = outcome.reply {
        engine.control_out.push_back((slot, reply));
    }
    if let Some(lanes) = outcome.agreed {
        let workers = other_workers(engine);
        engine.event(Event::LanesAgreed(
            id,
            workers.into_iter().zip(lanes).collect(),
        ));
    }
}

/// A hello, which belongs to paths; on a lane, to the lane's ends.
fn on_hello(
    engine: &mut Engine,
    slot: Slot,
    endpoint: &Endpoint,
    (hello, order): (&Hello, Option<Order>),
    len: usize,
    now: Instant,
) {
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let is_main = matches!(peer.role, Role::Main(_));
    if is_main == (hello.kind == Kind::Lane) {
        engine.counters.drop(DropReason::ControlMalformed, 1);
        return;
    }
    engine.counters.consumed += 1;
    engine.counters.hellos_received += 1;
    match is_main {
        true => path_machine::on_hello(engine, slot, endpoint, (hello, order), len, now),
        false => lane_paths::on_hello(peer, endpoint, hello),
    }
}

/// Sends control messages, as far as there is room.
pub(crate) fn flush_control(engine: &mut Engine, now: Instant) {
    while engine.udp_out.has_room(1, CONTROL_LEN_MAX + DATA_OVERHEAD) {
        let Some((slot, message)) = engine.control_out.pop_front() else {
            return;
        };
        let Some(peer) = engine.peers.get_mut(slot) else {
            continue;
        };
        let Some(endpoint) = peer.endpoint else {
            continue;
        };
        let mut plaintext = [0; CONTROL_LEN_MAX];
        let len = message.write(&mut plaintext).next_multiple_of(16);
        if let Some(len) = peer
            .tunnel
            .seal(&plaintext[..len], engine.udp_out.room(), now)
        {
            engine.udp_out.commit_own(len, &endpoint);
            engine.peers.count(slot, 0, len as u64);
        }
    }
}

/// The identity that a message for a tunnel is addressed to.
pub(crate) fn identity_of<'a>(engine: &'a Engine, role: &Role) -> &'a Arc<Identity> {
    let site = engine.snapshot.identity();
    match role {
        Role::Main(_) => site,
        Role::Lane(_) => engine
            .snapshot
            .lane_identity(engine.config.worker)
            .unwrap_or(site),
    }
}

/// The workers that lanes are paired with, in order: all but the one that owns lane 0, which is this one.
fn other_workers(engine: &Engine) -> Vec<WorkerId> {
    let all = (0..engine.config.workers).map(|worker| WorkerId(worker as u8));
    all.filter(|worker| *worker != engine.config.worker)
        .collect()
}

/// The keys of this site's lanes as the owner of lane 0 offers them; none where lanes are off.
fn own_lanes(engine: &Engine) -> Vec<PublicKey> {
    if !engine.snapshot.has_lanes() {
        return Vec::new();
    }
    let keys = other_workers(engine)
        .into_iter()
        .filter_map(|worker| engine.snapshot.lane_identity(worker));
    keys.map(|identity| identity.public_key()).collect()
}
