//! The peers that one worker owns: their tunnels, where they are, and how a datagram finds its tunnel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use patronus_packet::Endpoint;
use patronus_tunnel::{Identity, Peer, PeerIndex, WorkerId};

use crate::lanes::Role;
use crate::path_machine::PeerPaths;
use crate::snapshot::{PeerId, PeerSpec, PeerStats, Traffic};
use crate::steering::Outlets;

/// A peer's place in its worker's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot(pub usize);

/// A tunnel and what its worker knows about it.
#[derive(Debug)]
pub(crate) struct OwnedPeer {
    pub tunnel: Peer,
    pub spec: Arc<PeerSpec>,
    pub role: Role,
    /// What this tunnel counts.
    pub stats: Arc<PeerStats>,
    pub endpoint: Option<Endpoint>,
    /// Routes, ends and counters of paths; where paths are measured, and on lane 0 once there was a session.
    pub outlets: Option<Box<Outlets>>,
    /// What measures and chooses paths; on lane 0 alone.
    pub paths: Option<Box<PeerPaths>>,
    /// Initiations sent since the last handshake completed.
    pub attempts: u32,
    pub traffic: Traffic,
    /// Whether the traffic counters changed since they were published.
    pub dirty: bool,
}

impl OwnedPeer {
    /// Whether routes decide where its packets go.
    #[inline]
    pub fn has_several(&self) -> bool {
        self.outlets.as_ref().is_some_and(|it| it.has_several)
    }

    pub fn publish_endpoint(&self) {
        self.stats.set_endpoint(self.endpoint.as_ref());
    }
}

/// All peers of one worker.
#[derive(Debug)]
pub(crate) struct PeerSet {
    worker: WorkerId,
    slots: Vec<Option<OwnedPeer>>,
    by_id: HashMap<PeerId, Slot>,
    by_index: HashMap<PeerIndex, Slot>,
    /// The index looked up last: the datagrams of a train name the same one.
    last_index: Option<(PeerIndex, Slot)>,
    dirty: Vec<Slot>,
    random: u64,
}

impl PeerSet {
    pub fn new(worker: WorkerId, seed: u64) -> Self {
        Self {
            worker,
            slots: Vec::new(),
            by_id: HashMap::new(),
            by_index: HashMap::new(),
            last_index: None,
            dirty: Vec::new(),
            random: seed,
        }
    }

    /// Length of the list that [`Slot`]s point into, holes included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &OwnedPeer)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(at, peer)| Some((Slot(at), peer.as_ref()?)))
    }

    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&OwnedPeer> {
        self.slots.get(slot.0)?.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut OwnedPeer> {
        self.slots.get_mut(slot.0)?.as_mut()
    }

    #[inline]
    pub fn slot_of(&self, id: PeerId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    #[inline]
    pub fn slot_of_index(&mut self, index: PeerIndex) -> Option<Slot> {
        if let Some((last, slot)) = self.last_index
            && last == index
        {
            return Some(slot);
        }
        let slot = self.by_index.get(&index).copied()?;
        self.last_index = Some((index, slot));
        Some(slot)
    }

    /// Makes a tunnel for `spec`; `None` when all 65 536 indices of this worker are taken.
    pub fn insert(
        &mut self,
        identity: &Identity,
        spec: Arc<PeerSpec>,
        role: Role,
        now: Instant,
    ) -> Option<Slot> {
        let index = self.free_index()?;
        let tunnel = tunnel_of(identity, &spec, &role, index, now);
        let at = match self.slots.iter().position(Option::is_none) {
            Some(hole) => hole,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        let slot = Slot(at);
        self.by_id.insert(spec.id, slot);
        self.by_index.insert(index, slot);
        let (endpoint, stats) = match &role {
            Role::Main(_) => (spec.endpoint.map(Endpoint::from), spec.stats.clone()),
            Role::Lane(lane) => (lane.first_endpoint(), lane.spec.stats.clone()),
        };
        let peer = OwnedPeer {
            tunnel,
            endpoint,
            outlets: None,
            paths: None,
            attempts: 0,
            traffic: stats.traffic(),
            spec,
            role,
            stats,
            dirty: false,
        };
        peer.publish_endpoint();
        peer.stats.set_index(index);
        self.slots[at] = Some(peer);
        Some(slot)
    }

    pub fn remove(&mut self, slot: Slot) -> Option<OwnedPeer> {
        let peer = self.slots.get_mut(slot.0)?.take()?;
        self.by_id.remove(&peer.spec.id);
        self.by_index.remove(&peer.tunnel.index());
        self.last_index = None;
        self.dirty.retain(|dirty| *dirty != slot);
        Some(peer)
    }

    /// Gives a peer a new tunnel with the keys of its `spec`, under a new index: its sessions and a handshake under
    /// way end; its address and its traffic stay.
    pub fn rebuild(&mut self, identity: &Identity, slot: Slot, now: Instant) {
        let Some(peer) = self.slots.get(slot.0).and_then(Option::as_ref) else {
            return;
        };
        let old = peer.tunnel.index();
        // Where all indices are taken, the old one serves again: its old sessions cannot open anything.
        let index = self.free_index().unwrap_or(old);
        self.by_index.remove(&old);
        self.by_index.insert(index, slot);
        self.last_index = None;
        if let Some(peer) = self.get_mut(slot) {
            peer.tunnel = tunnel_of(identity, &peer.spec, &peer.role, index, now);
            peer.stats.set_index(index);
        }
    }

    /// Adds a datagram from a peer, a message of our own to it, or both, by their bytes; zero is none.
    /// [`publish`](Self::publish) makes it visible.
    #[inline]
    pub fn count(&mut self, slot: Slot, rx_bytes: u64, tx_bytes: u64) {
        self.add(
            slot,
            Traffic {
                rx_bytes,
                tx_bytes,
                rx_packets: u64::from(rx_bytes > 0),
                tx_packets: u64::from(tx_bytes > 0),
            },
        );
    }

    /// Adds datagrams to a peer.
    #[inline]
    pub fn count_sent(&mut self, slot: Slot, tx_packets: u64, tx_bytes: u64) {
        self.add(
            slot,
            Traffic {
                tx_bytes,
                tx_packets,
                ..Traffic::default()
            },
        );
    }

    #[inline]
    fn add(&mut self, slot: Slot, traffic: Traffic) {
        let Some(peer) = self.slots.get_mut(slot.0).and_then(Option::as_mut) else {
            return;
        };
        peer.traffic.rx_bytes += traffic.rx_bytes;
        peer.traffic.tx_bytes += traffic.tx_bytes;
        peer.traffic.rx_packets += traffic.rx_packets;
        peer.traffic.tx_packets += traffic.tx_packets;
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Publishes the traffic counted since the last call.
    pub fn publish(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            if let Some(peer) = self.slots.get_mut(slot.0).and_then(Option::as_mut) {
                peer.dirty = false;
                peer.stats.set_traffic(&peer.traffic);
                if let Some(outlets) = &mut peer.outlets {
                    outlets.publish(&peer.spec.board, self.worker);
                }
            }
        }
    }

    /// A random index that no peer of this worker has.
    fn free_index(&mut self) -> Option<PeerIndex> {
        if self.by_index.len() > usize::from(u16::MAX) {
            return None;
        }
        loop {
            let index = PeerIndex::new(self.worker, (self.next_random() >> 48) as u16);
            if !self.by_index.contains_key(&index) {
                return Some(index);
            }
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): guessing an index gains an attacker nothing but a counter.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn tunnel_of(
    identity: &Identity,
    spec: &PeerSpec,
    role: &Role,
    index: PeerIndex,
    now: Instant,
) -> Peer {
    match role {
        Role::Main(_) => Peer::new(
            identity,
            &spec.public_key,
            spec.preshared_key.as_ref(),
            spec.keepalive,
            index,
            now,
        ),
        Role::Lane(lane) => {
            let agreed = &lane.spec.lane;
            Peer::new(
                identity,
                &agreed.remote,
                Some(&agreed.preshared_key),
                None,
                index,
                now,
            )
        }
    }
}
