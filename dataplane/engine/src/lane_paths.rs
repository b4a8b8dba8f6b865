//! Paths of lanes: a lane follows the routes on its peer's board, and has an end of its own on each path.
//!
//! The side that leads knows its ends: where lane 0 finds the peer on that path, reached from the worker's own port. The
//! other side learns them from hellos of kind `Lane`, which the leading lane sends on its own session on every usable
//! path: once a second, and a few quickly when the board changes or the lane begins. A lane that does not know its end
//! of a packet's path hands the packet to lane 0's owner.

use std::time::{Duration, Instant};

use patronus_packet::{Door, Endpoint};
use patronus_path::message::{HELLO_LEN, Kind};
use patronus_path::{Hello, PATHS_MAX, PathIndex};
use patronus_tunnel::message::DATA_OVERHEAD;
use patronus_tunnel::peer::CONTROL_ROOM;

use crate::engine::Engine;
use crate::lanes::{Lane, Role};
use crate::path_machine::HELLO_TOS;
use crate::path_setup;
use crate::peers::{OwnedPeer, Slot};
use crate::steering::Outlets;

/// Between hellos of a lane on one path.
const HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// Hellos in quick succession, one per timer, after a change.
const BURST: u8 = 3;

/// What a lane knows about telling its ends.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// Hellos of the burst that are still to be sent.
    burst: u8,
    last: Option<Instant>,
    sequence: u32,
}

/// Brings a lane's copy of the routes up to date, where the board has changed.
#[inline]
pub(crate) fn follow(engine: &mut Engine, slot: Slot) {
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let Role::Lane(lane) = &mut peer.role else {
        return;
    };
    let Some(outlets) = &mut peer.outlets else {
        return;
    };
    let epoch = peer.spec.board.epoch();
    if outlets.epoch != epoch {
        take_over(peer.spec.board.as_ref(), lane, outlets, epoch);
        let narrowest = outlets.ways.narrowest_mtu().unwrap_or(usize::MAX);
        engine.narrowest_mtu = engine.narrowest_mtu.min(narrowest);
    }
}

/// Gives a lane outlets where paths are measured, and takes them where they are not.
pub(crate) fn configure(engine: &mut Engine, slot: Slot) {
    let is_on = path_setup::is_on(&engine.snapshot);
    let worker = engine.config.worker;
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    match (is_on, &peer.outlets) {
        (true, None) => peer.outlets = Some(Outlets::following(&peer.spec.board, worker)),
        (false, Some(_)) => peer.outlets = None,
        (true, Some(_)) | (false, None) => {}
    }
    if let Some(outlets) = &mut peer.outlets {
        // A configuration may come with another board, whose epoch says nothing.
        outlets.epoch = u64::MAX;
    }
    follow(engine, slot);
}

/// Reads the board. What cannot be read whole is read with the next packet.
fn take_over(board: &crate::PathBoard, lane: &mut Lane, outlets: &mut Outlets, epoch: u64) {
    let Some(ways) = board.ways() else {
        return;
    };
    outlets.ways = ways;
    outlets.has_several = board.has_several();
    let standing = |at| board.standing(PathIndex(at as u8));
    let known: [_; PATHS_MAX] = std::array::from_fn(standing);
    let sole = known.iter().position(Option::is_some);
    outlets.sole = sole.map(|at| PathIndex(at as u8));
    let mut ends = outlets.ends;
    for (end, standing) in ends.iter_mut().zip(&known) {
        match standing {
            Some(standing) if lane.leads => {
                *end = Some(Endpoint {
                    door: Door::Lane,
                    ..standing.endpoint
                });
            }
            Some(_) => {}
            None => *end = None,
        }
    }
    if ends != outlets.ends {
        outlets.set_ends(ends);
    }
    outlets.epoch = epoch;
    lane.telling.burst = BURST;
}

/// The lane's end on some usable path, another one with each attempt: for handshakes.
pub(crate) fn end_for_attempt(peer: &OwnedPeer, attempt: u32) -> Option<Endpoint> {
    let outlets = peer.outlets.as_ref().filter(|it| it.has_several)?;
    let is_usable = |at: &usize| outlets.ways.is_usable(PathIndex(*at as u8));
    let usable = (0..PATHS_MAX).filter(is_usable);
    let ends: Vec<Endpoint> = usable.filter_map(|at| outlets.ends[at]).collect();
    let at = (attempt as usize).checked_rem(ends.len())?;
    ends.get(at).copied()
}

/// The lane's timer: tells the other side where this lane is, on every usable path.
pub(crate) fn on_timer(engine: &mut Engine, slot: Slot, now: Instant) {
    follow(engine, slot);
    let time = engine.clock(now).time;
    let Some(peer) = engine.peers.get_mut(slot) else {
        return;
    };
    let (Role::Lane(lane), Some(outlets)) = (&mut peer.role, &peer.outlets) else {
        return;
    };
    let is_due = lane.telling.burst > 0
        || lane
            .telling
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= HELLO_INTERVAL);
    if !is_due || !lane.leads || !outlets.has_several || !peer.spec.board.is_awake() {
        return;
    }
    if !peer.tunnel.can_seal(now) {
        return;
    }
    lane.telling.last = Some(now);
    lane.telling.burst = lane.telling.burst.saturating_sub(1);
    lane.telling.sequence = lane.telling.sequence.wrapping_add(1);
    let (mut hellos, mut sent) = (0, 0);
    for path in (0..PATHS_MAX).map(|at| PathIndex(at as u8)) {
        let Some(end) = outlets.end(path).filter(|_| outlets.ways.is_usable(path)) else {
            continue;
        };
        if !engine
            .udp_out
            .has_room(2, HELLO_LEN + DATA_OVERHEAD + CONTROL_ROOM)
        {
            break;
        }
        let peer_number = peer
            .spec
            .board
            .standing(path)
            .map_or(0, |it| it.peer_number);
        let hello = Hello {
            kind: Kind::Lane,
            multiplier: 1,
            path: u16::from(path.0) + 1,
            your_path: peer_number,
            sequence: lane.telling.sequence,
            sent_at_ns: time.0,
            ..Hello::default()
        };
        let mut plaintext = [0; HELLO_LEN];
        hello.write(&mut plaintext);
        if let Some(len) = peer.tunnel.seal(&plaintext, engine.udp_out.room(), now) {
            engine.udp_out.commit_own_classed(len, end, HELLO_TOS);
            engine.counters.hellos_sent += 1;
            hellos += 1;
            sent += len as u64;
        }
    }
    engine.peers.count_sent(slot, hellos, sent);
}

/// A hello came in on a lane: the other side says where the lane is on that path.
pub(crate) fn on_hello(peer: &mut OwnedPeer, endpoint: &Endpoint, hello: &Hello) {
    let (Role::Lane(lane), Some(outlets)) = (&peer.role, &mut peer.outlets) else {
        return;
    };
    if lane.leads || hello.kind != Kind::Lane {
        return;
    }
    let board = &peer.spec.board;
    let path = match hello.your_path.checked_sub(1) {
        Some(number) => u8::try_from(number).ok().map(PathIndex),
        None => (0..PATHS_MAX as u8).map(PathIndex).find(|path| {
            let number = board.standing(*path).map(|it| it.peer_number);
            number == Some(hello.path)
        }),
    };
    let Some(path) = path.filter(|path| path.as_usize() < PATHS_MAX) else {
        return;
    };
    if outlets.ends[path.as_usize()] != Some(*endpoint) && board.standing(path).is_some() {
        let mut ends = outlets.ends;
        ends[path.as_usize()] = Some(*endpoint);
        outlets.set_ends(ends);
    }
}

/// The path that a lane's datagram came on.
pub(crate) fn path_of(ends: &[Option<Endpoint>; PATHS_MAX], came: &Endpoint) -> Option<PathIndex> {
    let is_end = |end: &Option<Endpoint>| {
        end.is_some_and(|end| {
            end.remote == came.remote
                && (end.uplink == came.uplink || end.uplink == patronus_packet::UplinkId::ANY)
        })
    };
    let at = ends.iter().position(is_end)?;
    Some(PathIndex(at as u8))
}
