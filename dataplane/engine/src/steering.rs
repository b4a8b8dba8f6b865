//! Which path a packet leaves on, and which one it came on: what the pipeline asks per packet.
//!
//! A tunnel that is measured has [`Outlets`]: its copy of the routes, where each path goes, and what it counts per path.
//! The worker that owns the peer's first session writes its copy itself (`path_machine.rs`); a lane's follows the board
//! (`lane_paths.rs`). Where a peer has one path only, routes do not matter: packets go where the peer was last heard.

use std::time::Instant;

use patronus_packet::{Endpoint, FlowKey};
use patronus_path::{CLASSES_MAX, ClassId, PATHS_MAX, PathCounters, PathIndex, Route, Time};
use patronus_tunnel::WorkerId;

use crate::engine::Engine;
use crate::flow_table::{FlowSlot, OpenedBy, Steer};
use crate::lane_paths;
use crate::path_board::{PathBoard, Ways};
use crate::path_setup;
use crate::peers::{OwnedPeer, Slot};
use crate::snapshot::{PeerId, Snapshot};

const NANOS_PER_MS: u64 = 1_000_000;

/// The time of a batch in the units that flows and routes count in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Seconds since the gateway's start.
    pub s: u32,
    /// Milliseconds.
    pub ms: u64,
    /// Nanoseconds.
    pub time: Time,
}

impl Clock {
    pub(crate) fn at(time: Time) -> Self {
        let ms = time.0 / NANOS_PER_MS;
        Self {
            s: (ms / 1000) as u32,
            ms,
            time,
        }
    }
}

/// What a tunnel knows and counts of its peer's paths.
#[derive(Debug, Default)]
pub(crate) struct Outlets {
    /// Routes decide. Otherwise packets go to the peer's one address.
    pub has_several: bool,
    /// The path, where there is one only.
    pub sole: Option<PathIndex>,
    pub ways: Ways,
    pub ends: [Option<Endpoint>; PATHS_MAX],
    pub counters: [PathCounters; PATHS_MAX],
    /// Bytes sent, by class.
    pub loads: [u64; CLASSES_MAX],
    /// Paths whose counters changed since they were published, by bit.
    dirty: u16,
    /// The path that the last datagram came on.
    last_arrival: Option<(Endpoint, Option<PathIndex>)>,
    /// The board's epoch that this follows, for a lane.
    pub epoch: u64,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub endpoint: Endpoint,
    /// On which path, where that is counted.
    pub path: Option<PathIndex>,
    /// The end of a second path that carries copies.
    pub copy: Option<Endpoint>,
    /// Inner MTU in bytes, where it is smaller than the tunnel's; of the narrower path where copies are sent.
    pub narrow_mtu: Option<usize>,
}

impl Outlets {
    /// Begins with what the worker counted before, so that sums never fall.
    pub(crate) fn following(board: &PathBoard, worker: WorkerId) -> Box<Self> {
        let counters = |at| board.stored_counters(PathIndex(at as u8), worker);
        Box::new(Self {
            counters: std::array::from_fn(counters),
            loads: board.stored_loads(worker),
            ..Self::default()
        })
    }

    #[inline]
    pub(crate) fn end(&self, path: PathIndex) -> Option<&Endpoint> {
        self.ends.get(path.as_usize())?.as_ref()
    }

    /// Where packets of a class go, whatever flow they are of.
    #[inline]
    pub(crate) fn route_end(&self, class: ClassId) -> Option<(PathIndex, &Endpoint)> {
        let path = self.ways.route(class).path?;
        Some((path, self.end(path)?))
    }

    /// Takes new ends; what was remembered of the last arrival is void.
    pub(crate) fn set_ends(&mut self, ends: [Option<Endpoint>; PATHS_MAX]) {
        self.ends = ends;
        self.last_arrival = None;
    }

    /// The path that a datagram came on; `find` answers where the last one came from elsewhere.
    #[inline]
    pub(crate) fn arrival(
        &mut self,
        endpoint: &Endpoint,
        find: impl FnOnce(&[Option<Endpoint>; PATHS_MAX]) -> Option<PathIndex>,
    ) -> Option<PathIndex> {
        if let Some((last, path)) = &self.last_arrival
            && last == endpoint
        {
            return *path;
        }
        let path = find(&self.ends);
        self.last_arrival = Some((*endpoint, path));
        path
    }

    /// Data was sent on a path.
    #[inline]
    pub(crate) fn count_sent(&mut self, path: PathIndex, class: ClassId, packets: u64, bytes: u64) {
        let at = path.as_usize() % PATHS_MAX;
        self.counters[at].tx_packets += packets;
        self.counters[at].tx_bytes += bytes;
        self.loads[class.as_usize() % CLASSES_MAX] += bytes;
        self.dirty |= 1 << at;
    }

    /// A data packet was received on a path.
    #[inline]
    pub(crate) fn count_received(&mut self, path: PathIndex, bytes: u64) {
        let at = path.as_usize() % PATHS_MAX;
        self.counters[at].rx_packets += 1;
        self.counters[at].rx_bytes += bytes;
        self.dirty |= 1 << at;
    }

    /// Makes visible what was counted.
    pub(crate) fn publish(&mut self, board: &PathBoard, worker: WorkerId) {
        if self.dirty == 0 {
            return;
        }
        for at in (0..PATHS_MAX).filter(|at| self.dirty >> at & 1 != 0) {
            board.store_counters(PathIndex(at as u8), worker, &self.counters[at]);
        }
        board.store_loads(worker, &self.loads);
        self.dirty = 0;
    }

    /// Packets sent and received on all paths.
    pub(crate) fn packets(&self) -> u64 {
        let of = |it: &PathCounters| it.tx_packets.wrapping_add(it.rx_packets);
        self.counters.iter().map(of).fold(0, u64::wrapping_add)
    }
}

impl Ways {
    #[inline]
    pub(crate) fn route(&self, class: ClassId) -> &Route {
        &self.routes[class.as_usize() % CLASSES_MAX]
    }

    #[inline]
    pub(crate) fn is_usable(&self, path: PathIndex) -> bool {
        self.usable >> (path.0 & 15) & 1 != 0
    }

    /// The inner MTU of a path, in bytes, where it is smaller than the tunnel's.
    #[inline]
    pub(crate) fn narrow_mtu(&self, path: PathIndex) -> Option<usize> {
        let mtu = self.narrow_mtus[path.as_usize() % PATHS_MAX];
        (mtu != 0).then_some(usize::from(mtu))
    }

    /// The least inner MTU of the paths that carry packets, where one is smaller than the tunnel's.
    pub(crate) fn narrowest_mtu(&self) -> Option<usize> {
        let usable = (0..PATHS_MAX).map(|at| PathIndex(at as u8));
        let usable = usable.filter(|path| self.is_usable(*path));
        usable.filter_map(|path| self.narrow_mtu(path)).min()
    }

    /// The least of [`narrow_mtu`](Self::narrow_mtu).
    #[inline]
    fn narrow_mtu_of(&self, paths: [Option<PathIndex>; 2]) -> Option<usize> {
        let known = paths.into_iter().flatten();
        known.filter_map(|path| self.narrow_mtu(path)).min()
    }

    /// The path of a flow's next packet. A flow on the path that its class is leaving stays there until its turn has
    /// come and it has paused for so long that nothing sent on the new path overtakes what it sent before.
    #[inline]
    pub(crate) fn path_of(
        &self,
        steer: Steer,
        share_of: impl FnOnce() -> u8,
        clock: &Clock,
    ) -> Option<PathIndex> {
        let route = self.route(steer.class());
        let to = route.path?;
        let from = steer.path();
        let stays = to != from
            && route.leaving == Some(from)
            && self.is_usable(from)
            && clock.time < route.deadline
            && !(u16::from(share_of()) < route.share && has_paused(steer, route, clock));
        Some(if stays { from } else { to })
    }
}

/// Both clocks are whole milliseconds, so the pause may be up to one shorter than it looks.
fn has_paused(steer: Steer, route: &Route, clock: &Clock) -> bool {
    let whole_ms = u128::from(steer.silent_ms(clock.ms).saturating_sub(1));
    whole_ms * u128::from(NANOS_PER_MS) >= route.gap.as_nanos()
}

/// The routes to a peer as this worker knows them; `None` where it has no tunnel with it, or routes do not decide.
pub(crate) fn ways_to(engine: &Engine, id: PeerId, slot: Option<Slot>) -> Option<Ways> {
    match slot.and_then(|slot| engine.peers.get(slot)) {
        Some(peer) => {
            let outlets = peer.outlets.as_ref().filter(|it| it.has_several)?;
            Some(outlets.ways)
        }
        None => {
            let board = &engine.snapshot.peer(id)?.board;
            if !board.has_several() {
                return None;
            }
            board.ways()
        }
    }
}

/// Steers the next packet of a flow; what it answers has to be written into the flow's entry. `None`: routes do not
/// decide, the entry stays as it is.
#[inline]
pub(crate) fn steer(
    engine: &mut Engine,
    id: PeerId,
    slot: Option<Slot>,
    key: &FlowKey,
    steer: Steer,
    clock: &Clock,
) -> Option<Steer> {
    if let Some(slot) = slot {
        lane_paths::follow(engine, slot);
    }
    let flows = &engine.flows;
    let share_of = || flows.share_of(key);
    let path = match slot.and_then(|slot| engine.peers.get(slot)) {
        Some(peer) => {
            let outlets = peer.outlets.as_ref().filter(|it| it.has_several)?;
            outlets.ways.path_of(steer, share_of, clock)
        }
        None => ways_to(engine, id, None)?.path_of(steer, share_of, clock),
    };
    Some(steer.sent(path?, clock.ms))
}

/// Steers a packet that belongs to no flow: an ICMP error, a later fragment.
pub(crate) fn steer_alone(
    engine: &Engine,
    id: PeerId,
    slot: Option<Slot>,
    key: &FlowKey,
    dscp: u8,
) -> Steer {
    let Some(ways) = ways_to(engine, id, slot) else {
        return Steer::default();
    };
    let classes = &engine.snapshot.paths().classes;
    let class = classes.classify(key, OpenedBy::Local, dscp);
    Steer::new(class, ways.route(class).path.unwrap_or(PathIndex(0)))
}

/// Steers a packet that another worker steered by what it knew, perhaps a moment ago.
pub(crate) fn resteer(
    engine: &mut Engine,
    slot: Option<Slot>,
    steer: Steer,
    now: Instant,
) -> Steer {
    let clock = engine.clock(now);
    let peer = slot.and_then(|slot| engine.peers.get(slot));
    let outlets = peer.and_then(|peer| peer.outlets.as_ref());
    // Whether the flow may move was decided where its entry is.
    let path = outlets.and_then(|it| it.ways.path_of(steer, || u8::MAX, &clock));
    path.map_or(steer, |path| steer.sent(path, clock.ms))
}

/// The path that a message came on, where that can be said.
#[inline]
pub(crate) fn arrival(
    peer: &mut OwnedPeer,
    snapshot: &Snapshot,
    endpoint: &Endpoint,
) -> Option<PathIndex> {
    let outlets = peer.outlets.as_mut()?;
    if !outlets.has_several {
        return outlets.sole;
    }
    outlets.arrival(endpoint, |ends| match &peer.paths {
        Some(paths) => paths.path_of(&path_setup::arrival(snapshot, endpoint)),
        None => lane_paths::path_of(ends, endpoint),
    })
}

/// Whether a message came on one of its peer's several paths.
#[cold]
pub(crate) fn is_on_known_path(
    peer: &mut OwnedPeer,
    snapshot: &Snapshot,
    endpoint: &Endpoint,
) -> bool {
    peer.has_several() && arrival(peer, snapshot, endpoint).is_some()
}

/// Class and path of a flow that begins, or is judged anew.
pub(crate) fn classify(engine: &mut Engine, slot: FlowSlot, is_new: bool, dscp: u8) -> Steer {
    let flow = engine.flows.flow(slot);
    let classes = &engine.snapshot.paths().classes;
    if classes.configs.is_empty() {
        return flow.steer;
    }
    let class = classes.classify(&flow.key, flow.opened_by, dscp);
    let ways = match is_new {
        true => ways_to(engine, flow.peer, engine.peers.slot_of(flow.peer)),
        false => None,
    };
    let path = ways.and_then(|ways| ways.route(class).path);
    let steer = match path {
        Some(path) => Steer::new(class, path),
        None => flow.steer.in_class(class),
    };
    if steer != flow.steer {
        engine.flows.steer(slot, steer);
    }
    steer
}

/// Where a steered packet goes through this tunnel; `None` where the tunnel does not know the path's end.
#[inline]
pub(crate) fn way_of(peer: &OwnedPeer, steer: Steer) -> Option<Way> {
    let Some(outlets) = &peer.outlets else {
        return Some(Way {
            endpoint: peer.endpoint?,
            path: None,
            copy: None,
            narrow_mtu: None,
        });
    };
    if !outlets.has_several {
        return Some(Way {
            endpoint: peer.endpoint?,
            path: outlets.sole,
            copy: None,
            narrow_mtu: outlets.sole.and_then(|path| outlets.ways.narrow_mtu(path)),
        });
    }
    let route = outlets.ways.route(steer.class());
    if route.path.is_none() {
        return Some(Way {
            endpoint: peer.endpoint?,
            path: None,
            copy: None,
            narrow_mtu: None,
        });
    }
    let path = steer.path();
    let copy = route.protect.filter(|copy| *copy != path);
    Some(Way {
        endpoint: *outlets.end(path)?,
        path: Some(path),
        copy: copy.and_then(|copy| outlets.end(copy).copied()),
        narrow_mtu: outlets.ways.narrow_mtu_of([Some(path), copy]),
    })
}
