//! What the gateway is meant to be at this moment, and its compilation into [`Snapshot`]s.
//!
//! The configuration file and the UAPI socket both change the same set of peers; whatever changed last
//! counts, until the next reload makes the file count again. A peer that did not change keeps its number,
//! its worker, its counters and thereby its session.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use patronus_aead::Backend;
use patronus_config::{HostName, Peer, PeerEndpoint, PeerSet};
use patronus_engine::{
    Generation, LaneSpec, PathBoard, PeerId, PeerSpec, PeerStats, PodSets, Policy, Snapshot,
    Unreachable,
};
use patronus_packet::Prefix;
use patronus_tunnel::lanes::{Lane, lane_key};
use patronus_tunnel::{Identity, PrivateKey, PublicKey, WallClock, WorkerId};

use crate::paths::PathPlan;

/// Handshake messages a second, over all peers, above which strangers have to prove their address with a
/// cookie. One costs about 0.2 ms, so a flood takes at most a twentieth of a core.
pub const HANDSHAKES_PER_S: u64 = 256;

/// A host name and port that stands for a peer's address.
pub type NamedEndpoint = (HostName, u16);

/// A prefix behind a peer that does not answer, and whose packets are to go to another peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedPrefix {
    /// The peer that owns it.
    pub peer: PublicKey,
    /// The prefix.
    pub prefix: Prefix,
    /// Who is asked whether it answers again.
    pub probes: Vec<IpAddr>,
}

/// The gateway's desired state.
#[derive(Debug)]
pub struct Registry {
    epoch: Instant,
    mtu: usize,
    workers: usize,
    generation: Generation,
    identity: Arc<Identity>,
    peers: PeerSet,
    specs: HashMap<PublicKey, Arc<PeerSpec>>,
    resolved: HashMap<NamedEndpoint, SocketAddr>,
    endpoint_serials: HashMap<PublicKey, u32>,
    /// The identities of the workers' lanes; none where lanes are off.
    lane_identities: Vec<Arc<Identity>>,
    lanes: HashMap<PublicKey, Vec<LaneSpec>>,
    policy: Option<Policy>,
    plan: PathPlan,
    pods: PodSets,
    marked: Vec<MarkedPrefix>,
}

impl Registry {
    /// A gateway without peers.
    pub fn new(
        private_key: PrivateKey,
        mtu: usize,
        workers: usize,
        backend: Backend,
        epoch: Instant,
    ) -> Self {
        assert!(
            (1..=WorkerId::COUNT_MAX).contains(&workers),
            "workers: {workers}"
        );
        Self {
            epoch,
            mtu,
            workers,
            generation: Generation::default(),
            identity: Arc::new(
                Identity::new(private_key, HANDSHAKES_PER_S, wall_clock()).with_backend(backend),
            ),
            peers: PeerSet::new(),
            specs: HashMap::new(),
            resolved: HashMap::new(),
            endpoint_serials: HashMap::new(),
            lane_identities: Vec::new(),
            lanes: HashMap::new(),
            policy: None,
            plan: PathPlan::default(),
            pods: PodSets::default(),
            marked: Vec::new(),
        }
    }

    /// The code that seals and opens packets.
    pub fn cipher(&self) -> Backend {
        self.identity.backend()
    }

    /// Switches lanes on: every worker gets an identity of its own.
    #[must_use]
    pub fn with_lanes(mut self) -> Self {
        self.lane_identities = lane_identities(&self.identity, self.workers);
        self
    }

    /// Lanes were agreed with a peer. `true` where that changes anything.
    pub fn set_lanes(&mut self, id: PeerId, lanes: Vec<(WorkerId, Lane)>) -> bool {
        let Some(spec) = self.specs.values().find(|spec| spec.id == id) else {
            return false;
        };
        let same = |(worker, lane): &(WorkerId, Lane)| {
            spec.lane_of(*worker).is_some_and(|old| old.lane == *lane)
        };
        if spec.lanes.len() == lanes.len() && lanes.iter().all(same) {
            return false;
        }
        let specs = lanes.into_iter().map(|(worker, lane)| LaneSpec {
            worker,
            lane,
            // What the worker counted on its lane before goes on.
            stats: spec
                .lane_of(worker)
                .map(|old| old.stats.clone())
                .unwrap_or_default(),
        });
        self.lanes.insert(spec.public_key, specs.collect());
        true
    }

    /// The gateway's start, from which peers' handshake times count.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Our key pair.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The peers as they are meant to be.
    pub fn peers(&self) -> &PeerSet {
        &self.peers
    }

    /// The peers as compiled last.
    pub fn spec(&self, key: &PublicKey) -> Option<&Arc<PeerSpec>> {
        self.specs.get(key)
    }

    /// Replaces all peers.
    pub fn set_peers(&mut self, peers: PeerSet) {
        self.peers = peers;
    }

    /// Adds or changes one peer.
    pub fn set_peer(&mut self, peer: Peer) {
        self.peers.set(peer);
    }

    /// Removes one peer.
    pub fn remove_peer(&mut self, key: &PublicKey) {
        self.peers.remove(key);
    }

    /// Undoes roaming: the configured endpoint of that peer counts again at the next compilation.
    pub fn reset_endpoint(&mut self, key: &PublicKey) {
        *self.endpoint_serials.entry(*key).or_default() += 1;
    }

    /// Changes our key pair; every session ends.
    pub fn set_private_key(&mut self, key: PrivateKey) {
        if key.public_key() != self.identity.public_key() {
            self.identity = Arc::new(identity_beside(&self.identity, key));
            // They were agreed between the old keys.
            self.lanes.clear();
            if !self.lane_identities.is_empty() {
                self.lane_identities = lane_identities(&self.identity, self.workers);
            }
        }
    }

    /// Changes the inner MTU in bytes.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// Changes who may talk to whom; `None` lets everything pass.
    pub fn set_policy(&mut self, policy: Option<Policy>) {
        self.policy = policy;
    }

    /// Changes which uplinks and classes there are.
    pub fn set_plan(&mut self, plan: PathPlan) {
        self.plan = plan;
    }

    /// Changes which pods belong to classes by their labels.
    pub fn set_pods(&mut self, pods: PodSets) {
        self.pods = pods;
    }

    /// Changes which prefixes do not answer. `true` where that is news.
    pub fn set_marked(&mut self, marked: Vec<MarkedPrefix>) -> bool {
        std::mem::replace(&mut self.marked, marked) != self.marked
    }

    /// Says what a name means. `true` where that is news.
    pub fn set_resolved(&mut self, name: NamedEndpoint, addr: SocketAddr) -> bool {
        self.resolved.insert(name, addr) != Some(addr)
    }

    /// Names that have to be asked for: never answered, or of a peer that was not heard of for three minutes.
    pub fn names_to_resolve(&self, now: Instant) -> Vec<NamedEndpoint> {
        let stale = |peer: &Peer| {
            let last = self
                .specs
                .get(&peer.public_key)
                .and_then(|spec| spec.stats.last_handshake());
            last.is_none_or(|at| now.saturating_duration_since(self.epoch + at) > REJECT_AFTER_TIME)
        };
        let stale = self.peers.iter().filter(|peer| stale(peer));
        let names = stale
            .flat_map(Peer::endpoints)
            .filter_map(|(endpoint, _)| match endpoint {
                PeerEndpoint::Name { host, port } => Some((host.clone(), *port)),
                PeerEndpoint::Addr(_) => None,
            });
        names.collect()
    }

    /// The next configuration for the workers.
    pub fn compile(&mut self) -> Arc<Snapshot> {
        self.generation.0 += 1;
        let wanted: HashMap<PublicKey, &Peer> = self
            .peers
            .iter()
            .map(|peer| (peer.public_key, peer))
            .collect();
        self.specs.retain(|key, _| wanted.contains_key(key));
        self.endpoint_serials
            .retain(|key, _| wanted.contains_key(key));
        // A new preshared key makes a new lane 0, on which lanes are agreed anew.
        let specs = &self.specs;
        self.lanes.retain(|key, _| {
            let pair = specs.get(key).zip(wanted.get(key));
            pair.is_some_and(|(spec, peer)| spec.preshared_key == peer.preshared_key)
        });
        let mut load = vec![0usize; self.workers];
        let mut taken: Vec<bool> = Vec::new();
        for spec in self.specs.values() {
            load[spec.worker.as_usize()] += 1;
            mark(&mut taken, spec.id);
        }
        for peer in self.peers.iter() {
            let spec = match self.specs.get(&peer.public_key) {
                Some(old) => self.renewed(old, peer),
                None => {
                    let worker = least_loaded(&load);
                    load[worker.as_usize()] += 1;
                    let id = first_free(&taken);
                    mark(&mut taken, id);
                    let told = (Arc::default(), Arc::default());
                    Arc::new(self.spec_of(peer, id, worker, told))
                }
            };
            self.specs.insert(peer.public_key, spec);
        }
        let snapshot = Snapshot::new(
            self.generation,
            self.identity.clone(),
            self.epoch,
            self.mtu,
            self.specs.values().cloned(),
        );
        let mut paths = self.plan.config();
        paths.classes.pods = self.pods.clone();
        let snapshot = snapshot
            .with_lanes(self.lane_identities.clone())
            .with_paths(paths)
            .with_unreachable(&self.unreachable());
        Arc::new(snapshot.with_policy(self.policy.clone()))
    }

    fn unreachable(&self) -> Vec<Unreachable> {
        let marked = self.marked.iter().filter_map(|it| {
            Some(Unreachable {
                peer: self.specs.get(&it.peer)?.id,
                prefix: it.prefix,
                probes: it.probes.clone(),
            })
        });
        marked.collect()
    }

    fn renewed(&self, old: &Arc<PeerSpec>, peer: &Peer) -> Arc<PeerSpec> {
        let told = (old.stats.clone(), old.board.clone());
        let new = self.spec_of(peer, old.id, old.worker, told);
        let same = new.preshared_key == old.preshared_key
            && new.endpoint == old.endpoint
            && new.endpoint_serial == old.endpoint_serial
            && new.allowed_ips == old.allowed_ips
            && new.keepalive == old.keepalive
            && new.paths == old.paths
            && same_lanes(&new.lanes, &old.lanes);
        if same { old.clone() } else { Arc::new(new) }
    }

    fn spec_of(
        &self,
        peer: &Peer,
        id: PeerId,
        worker: WorkerId,
        (stats, board): (Arc<PeerStats>, Arc<PathBoard>),
    ) -> PeerSpec {
        let remotes: Vec<(SocketAddr, u16)> = peer
            .endpoints()
            .filter_map(|(endpoint, cost)| Some((self.addr_of(endpoint)?, cost)))
            .collect();
        let endpoint = peer.endpoint.as_ref();
        PeerSpec {
            id,
            public_key: peer.public_key,
            preshared_key: peer.preshared_key.clone(),
            // Where only a further address is known, it has to do.
            endpoint: endpoint
                .and_then(|endpoint| self.addr_of(endpoint))
                .or(remotes.first().map(|(addr, _)| *addr)),
            endpoint_serial: self
                .endpoint_serials
                .get(&peer.public_key)
                .copied()
                .unwrap_or_default(),
            allowed_ips: peer.allowed_ips.clone(),
            keepalive: peer
                .keepalive
                .map(|keepalive| Duration::from_secs(keepalive.seconds().into())),
            worker,
            stats,
            lanes: self
                .lanes
                .get(&peer.public_key)
                .cloned()
                .unwrap_or_default(),
            paths: self.plan.specs(&remotes),
            board,
        }
    }

    /// The address that an endpoint stands for, as far as it is known.
    pub fn addr_of(&self, endpoint: &PeerEndpoint) -> Option<SocketAddr> {
        match endpoint {
            PeerEndpoint::Addr(addr) => Some(*addr),
            PeerEndpoint::Name { host, port } => self.resolved.get(&(host.clone(), *port)).copied(),
        }
    }
}

/// The system's clock. One that is before 1970 counts as 1970: peers that knew us later refuse us then, as they
/// must.
fn wall_clock() -> WallClock {
    WallClock {
        at: Instant::now(),
        unix: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    }
}

fn lane_identities(identity: &Identity, workers: usize) -> Vec<Arc<Identity>> {
    let keys = (0..workers).map(|worker| lane_key(identity.private_key(), worker as u8));
    keys.map(|key| Arc::new(identity_beside(identity, key)))
        .collect()
}

/// An identity with another key and all else as in `identity`.
fn identity_beside(identity: &Identity, key: PrivateKey) -> Identity {
    Identity::new(key, HANDSHAKES_PER_S, identity.clock()).with_backend(identity.backend())
}

fn same_lanes(new: &[LaneSpec], old: &[LaneSpec]) -> bool {
    let same =
        |(new, old): (&LaneSpec, &LaneSpec)| new.worker == old.worker && new.lane == old.lane;
    new.len() == old.len() && new.iter().zip(old).all(same)
}

fn mark(taken: &mut Vec<bool>, id: PeerId) {
    let at = id.0 as usize;
    if taken.len() <= at {
        taken.resize(at + 1, false);
    }
    taken[at] = true;
}

fn first_free(taken: &[bool]) -> PeerId {
    let at = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
    PeerId(u32::try_from(at).expect("peers fit in memory"))
}

fn least_loaded(load: &[usize]) -> WorkerId {
    let least = load.iter().enumerate().min_by_key(|(_, peers)| **peers);
    WorkerId(least.map_or(0, |(at, _)| at as u8))
}

/// A session is dead for good after this (whitepaper, section 6.1).
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_tunnel::PresharedKey;

    fn peer(byte: u8) -> Peer {
        let mut peer = Peer::new(PublicKey::from_bytes([byte; 32]));
        peer.allowed_ips = vec![format!("10.{byte}.0.0/16").parse().unwrap()];
        peer.endpoint = Some(PeerEndpoint::Addr(SocketAddr::from((
            [192, 0, 2, byte],
            51820,
        ))));
        peer
    }

    fn registry() -> Registry {
        let mut registry = Registry::new(
            PrivateKey::from_bytes([1; 32]),
            1420,
            2,
            Backend::best(),
            Instant::now(),
        );
        registry.set_peers(PeerSet::from_peers([peer(1), peer(2), peer(3)]));
        registry
    }

    #[test]
    fn an_unchanged_peer_is_the_very_same_object_in_the_next_snapshot() {
        let mut registry = registry();
        let first = registry.compile();
        let mut changed = peer(2);
        changed.keepalive = None;
        changed.allowed_ips = vec!["10.9.0.0/16".parse().unwrap()];
        registry.set_peer(changed);
        let second = registry.compile();
        assert!(second.generation() > first.generation());
        for byte in [1, 3] {
            let key = PublicKey::from_bytes([byte; 32]);
            let (old, new) = (
                first.peer_by_key(&key).unwrap(),
                second.peer_by_key(&key).unwrap(),
            );
            assert!(Arc::ptr_eq(old, new));
        }
        let key = PublicKey::from_bytes([2; 32]);
        let (old, new) = (
            first.peer_by_key(&key).unwrap(),
            second.peer_by_key(&key).unwrap(),
        );
        assert!(!Arc::ptr_eq(old, new));
        assert_eq!((old.id, old.worker), (new.id, new.worker));
        assert!(Arc::ptr_eq(&old.stats, &new.stats));
    }

    #[test]
    fn peers_are_spread_over_the_workers() {
        let snapshot = registry().compile();
        let on_first = snapshot
            .peers()
            .filter(|spec| spec.worker == WorkerId(0))
            .count();
        assert_eq!(on_first, 2);
    }

    #[test]
    fn a_removed_peers_number_is_free_again() {
        let mut registry = registry();
        registry.compile();
        registry.remove_peer(&PublicKey::from_bytes([2; 32]));
        registry.set_peer(peer(4));
        let snapshot = registry.compile();
        assert!(snapshot.peers().all(|spec| spec.id.0 < 3));
        assert!(
            snapshot
                .peer_by_key(&PublicKey::from_bytes([2; 32]))
                .is_none()
        );
    }

    #[test]
    fn a_marked_prefix_takes_a_detour_as_long_as_its_peer_has_it() {
        let mut registry = registry();
        let mut hub = peer(3);
        hub.allowed_ips.push("10.0.0.0/8".parse().unwrap());
        registry.set_peer(hub);
        let prefix: Prefix = "10.2.0.0/16".parse().unwrap();
        let marked = vec![MarkedPrefix {
            peer: PublicKey::from_bytes([2; 32]),
            prefix,
            probes: Vec::new(),
        }];
        assert!(registry.set_marked(marked.clone()));
        assert!(!registry.set_marked(marked), "the same marks are no news");
        let snapshot = registry.compile();
        let hub = snapshot.peer_by_key(&PublicKey::from_bytes([3; 32]));
        assert_eq!(snapshot.detour_of(&prefix), hub.map(|spec| spec.id));
        // `wg set` took it away.
        let mut changed = peer(2);
        changed.allowed_ips = vec!["10.9.0.0/16".parse().unwrap()];
        registry.set_peer(changed);
        assert!(!registry.compile().has_detours());
        registry.set_peer(peer(2));
        assert!(registry.compile().has_detours());
        assert!(registry.set_marked(Vec::new()));
        assert!(!registry.compile().has_detours());
    }

    #[test]
    fn setting_an_endpoint_anew_is_a_change_even_to_the_same_address() {
        let mut registry = registry();
        let key = PublicKey::from_bytes([1; 32]);
        let before = registry
            .compile()
            .peer_by_key(&key)
            .unwrap()
            .endpoint_serial;
        registry.reset_endpoint(&key);
        let after = registry
            .compile()
            .peer_by_key(&key)
            .unwrap()
            .endpoint_serial;
        assert_ne!(before, after);
    }

    #[test]
    fn lanes_last_as_long_as_the_keys_they_were_agreed_under() {
        let key = PublicKey::from_bytes([1; 32]);
        let lanes = || {
            let lane = Lane {
                remote: PublicKey::from_bytes([9; 32]),
                preshared_key: PresharedKey::from_bytes([8; 32]),
            };
            vec![(WorkerId(1), lane)]
        };
        let agreed = || {
            let mut registry = registry().with_lanes();
            let id = registry.compile().peer_by_key(&key).unwrap().id;
            assert!(registry.set_lanes(id, lanes()));
            assert_eq!(registry.compile().peer_by_key(&key).unwrap().lanes.len(), 1);
            assert!(
                !registry.set_lanes(id, lanes()),
                "the same lanes are no news"
            );
            registry
        };
        let lanes_left =
            |registry: &mut Registry| registry.compile().peer_by_key(&key).unwrap().lanes.len();

        let mut registry = agreed();
        registry.set_peer(Peer {
            keepalive: None,
            ..peer(1)
        });
        assert_eq!(lanes_left(&mut registry), 1);
        registry.set_peer(Peer {
            preshared_key: Some(PresharedKey::from_bytes([7; 32])),
            ..peer(1)
        });
        assert_eq!(lanes_left(&mut registry), 0);

        let mut registry = agreed();
        registry.set_private_key(PrivateKey::from_bytes([3; 32]));
        assert_eq!(lanes_left(&mut registry), 0);
    }
}
