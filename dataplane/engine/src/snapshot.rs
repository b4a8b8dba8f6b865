//! The immutable configuration that control publishes and every worker picks up between two batches.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use patronus_packet::parse::{ICMP, ICMPV6};
use patronus_packet::{Door, Endpoint, FlowKey, Prefix, UplinkId};
use patronus_path::PathSpec;
use patronus_policy::PolicyTable;
use patronus_tunnel::lanes::Lane;
use patronus_tunnel::{AllowedIps, Identity, PresharedKey, PublicKey, Refused, WorkerId};

use crate::paths::{PathBoard, PathsConfig};
use crate::seqlock::SeqCell;

/// Counts configurations. A cached decision is good for one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// A peer's stable number on this gateway: it keeps it from one configuration to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The largest number that a flow entry can hold.
    pub const MAX: u32 = 0xff_ffff;
}

/// One peer as configured.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Its number.
    pub id: PeerId,
    /// Its name on the wire.
    pub public_key: PublicKey,
    /// The key mixed into its handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Where configuration says it is. Roaming overrides this until configuration changes it.
    pub endpoint: Option<SocketAddr>,
    /// Grows when configuration sets the endpoint anew, be it to the same address: then roaming is undone.
    pub endpoint_serial: u32,
    /// The inner addresses it owns.
    pub allowed_ips: Vec<Prefix>,
    /// Interval of persistent keepalive.
    pub keepalive: Option<Duration>,
    /// The worker that owns its session.
    pub worker: WorkerId,
    /// What its worker counts on lane 0.
    pub stats: Arc<PeerStats>,
    /// The lanes agreed with it, one per worker at most, none of them that worker.
    pub lanes: Vec<LaneSpec>,
    /// The paths to it as configured; empty where it has no address of its own.
    pub paths: Vec<PathSpec>,
    /// What its worker tells about its paths.
    pub board: Arc<PathBoard>,
}

/// One lane beside lane 0: a session of another worker with the same peer.
#[derive(Clone, Debug)]
pub struct LaneSpec {
    /// The worker that owns it here.
    pub worker: WorkerId,
    /// What was agreed.
    pub lane: Lane,
    /// What its worker counts.
    pub stats: Arc<PeerStats>,
}

impl PeerSpec {
    /// The lane of a worker.
    #[inline]
    pub fn lane_of(&self, worker: WorkerId) -> Option<&LaneSpec> {
        self.lanes.iter().find(|lane| lane.worker == worker)
    }

    /// Every session with the peer: its worker, whether it is a lane beside the first one, and what is counted on it.
    pub fn sessions(&self) -> impl Iterator<Item = (WorkerId, bool, &PeerStats)> {
        let lanes = self.lanes.iter();
        let lanes = lanes.map(|lane| (lane.worker, true, lane.stats.as_ref()));
        std::iter::once((self.worker, false, self.stats.as_ref())).chain(lanes)
    }

    /// Bytes of UDP payload received from the peer on all lanes.
    pub fn rx_bytes(&self) -> u64 {
        self.stats.rx_bytes()
            + self
                .lanes
                .iter()
                .map(|lane| lane.stats.rx_bytes())
                .sum::<u64>()
    }

    /// Bytes of UDP payload sent to the peer on all lanes.
    pub fn tx_bytes(&self) -> u64 {
        self.stats.tx_bytes()
            + self
                .lanes
                .iter()
                .map(|lane| lane.stats.tx_bytes())
                .sum::<u64>()
    }

    /// What names the peer's tunnels, on all lanes, in receiver indices; `None` while one of them is not made.
    pub fn indices(&self) -> Option<Vec<u32>> {
        let lanes = self.lanes.iter().map(|lane| &lane.stats);
        let all = std::iter::once(&self.stats).chain(lanes);
        all.map(|stats| stats.index()).collect()
    }
}

/// What went through one tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
}

/// What a worker tells about one peer; written by that worker, read by anybody.
#[derive(Debug, Default)]
pub struct PeerStats {
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    replayed: AtomicU64,
    auth_failed: AtomicU64,
    /// Whether we began the session of the last handshake.
    is_initiator: AtomicBool,
    /// Nanoseconds from the gateway's epoch, plus one; zero is never.
    last_handshake: AtomicU64,
    /// What names the tunnel in receiver indices, plus one; zero while there is no tunnel.
    index: AtomicU64,
    endpoint: SeqCell<ENDPOINT_WORDS>,
}

impl PeerStats {
    /// Bytes of UDP payload received from the peer and authenticated.
    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of UDP payload sent to the peer.
    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes.load(Ordering::Relaxed)
    }

    /// Datagrams received from the peer and authenticated.
    pub fn rx_packets(&self) -> u64 {
        self.rx_packets.load(Ordering::Relaxed)
    }

    /// Datagrams sent to the peer.
    pub fn tx_packets(&self) -> u64 {
        self.tx_packets.load(Ordering::Relaxed)
    }

    /// Messages that were seen before, or too old to tell; without copies that came by a second path.
    pub fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// Messages that name a session with the peer and did not authenticate.
    pub fn auth_failed(&self) -> u64 {
        self.auth_failed.load(Ordering::Relaxed)
    }

    /// Whether we began the session of the last handshake, so that it is ours to replace it.
    pub fn is_initiator(&self) -> bool {
        self.is_initiator.load(Ordering::Relaxed)
    }

    /// When the last handshake completed, after the gateway's epoch.
    pub fn last_handshake(&self) -> Option<Duration> {
        let nanos = self.last_handshake.load(Ordering::Relaxed);
        nanos.checked_sub(1).map(Duration::from_nanos)
    }

    /// The 24 bits that name the peer's tunnel in receiver indices, as [`PeerIndex::as_u32`](patronus_tunnel::PeerIndex)
    /// has them; `None` while no worker has made it. New keys bring a new tunnel.
    pub fn index(&self) -> Option<u32> {
        let index = self.index.load(Ordering::Relaxed).checked_sub(1)?;
        u32::try_from(index).ok()
    }

    /// Where the peer is.
    pub fn endpoint(&self) -> Option<Endpoint> {
        endpoint_of(&self.endpoint.read()?)
    }

    pub(crate) fn set_traffic(&self, traffic: &Traffic) {
        self.rx_bytes.store(traffic.rx_bytes, Ordering::Relaxed);
        self.tx_bytes.store(traffic.tx_bytes, Ordering::Relaxed);
        self.rx_packets.store(traffic.rx_packets, Ordering::Relaxed);
        self.tx_packets.store(traffic.tx_packets, Ordering::Relaxed);
    }

    pub(crate) fn set_index(&self, index: patronus_tunnel::PeerIndex) {
        self.index
            .store(u64::from(index.as_u32()) + 1, Ordering::Relaxed);
    }

    /// What was stored, for a worker that begins anew.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            rx_bytes: self.rx_bytes(),
            tx_bytes: self.tx_bytes(),
            rx_packets: self.rx_packets(),
            tx_packets: self.tx_packets(),
        }
    }

    /// A message in the peer's name was refused; rare, and counted at once.
    pub(crate) fn note_refused(&self, refused: Refused) {
        let counter = match refused {
            Refused::Replayed | Refused::TooOld | Refused::HandshakeReplayed => &self.replayed,
            Refused::BadTag | Refused::HandshakeInvalid | Refused::CookieInvalid => {
                &self.auth_failed
            }
            Refused::NoSession
            | Refused::CounterLimit
            | Refused::InnerMalformed
            | Refused::HandshakeFlood => return,
        };
        // A load and a store, not an addition: there is one writer.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn set_last_handshake(&self, at: Duration, is_initiator: bool) {
        self.is_initiator.store(is_initiator, Ordering::Relaxed);
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX - 1);
        self.last_handshake.store(nanos + 1, Ordering::Relaxed);
    }

    pub(crate) fn set_endpoint(&self, endpoint: Option<&Endpoint>) {
        self.endpoint.write(endpoint_words(endpoint));
    }
}

/// Words that hold an endpoint; the low half of the first is free.
pub(crate) const ENDPOINT_WORDS: usize = 6;

/// An endpoint as words, without its door; all zero for none.
pub(crate) fn endpoint_words(endpoint: Option<&Endpoint>) -> [u64; ENDPOINT_WORDS] {
    let mut words = [0; ENDPOINT_WORDS];
    if let Some(endpoint) = endpoint {
        let local = endpoint.local.map_or(0, |addr| put(&mut words, 3, addr));
        let remote = put(&mut words, 1, endpoint.remote.ip());
        words[0] = u64::from(endpoint.remote.port()) << 32
            | remote << 48
            | local << 52
            | u64::from(endpoint.uplink.0) << 56;
    }
    words
}

/// The endpoint that the words hold.
pub(crate) fn endpoint_of(words: &[u64; ENDPOINT_WORDS]) -> Option<Endpoint> {
    let (port, kind, local_kind) = (
        (words[0] >> 32) as u16,
        words[0] >> 48 & 0xf,
        words[0] >> 52 & 0xf,
    );
    let addr = |kind, at: usize| match kind {
        4 => Some(IpAddr::from((words[at] as u32).to_be_bytes())),
        6 => Some(IpAddr::from(
            (u128::from(words[at]) << 64 | u128::from(words[at + 1])).to_be_bytes(),
        )),
        _ => None,
    };
    Some(Endpoint {
        remote: SocketAddr::new(addr(kind, 1)?, port),
        local: addr(local_kind, 3),
        door: Door::Listen,
        uplink: UplinkId((words[0] >> 56) as u8),
    })
}

fn put(words: &mut [u64; ENDPOINT_WORDS], at: usize, addr: IpAddr) -> u64 {
    match addr {
        IpAddr::V4(v4) => {
            words[at] = u64::from(v4.to_bits());
            4
        }
        IpAddr::V6(v6) => {
            words[at] = (v6.to_bits() >> 64) as u64;
            words[at + 1] = v6.to_bits() as u64;
            6
        }
    }
}

/// Who may connect to whom, as workers ask it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The tables.
    pub table: Arc<PolicyTable>,
    /// Whether flows that were allowed when they began stay so when the tables change.
    pub keep_established: bool,
    /// What the sender of a denied packet is told.
    pub refusal: Refusal,
}

/// What becomes of a denied packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// It vanishes.
    #[default]
    Drop,
    /// Its sender gets a TCP reset, or an ICMP error that says "administratively prohibited" (RFC 1812 section
    /// 5.2.7.1, RFC 4443 section 3.1), at a limited rate.
    Reject,
}

/// A prefix behind a peer that does not answer, and whose packets are to go to another peer as long as it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Its owner.
    pub peer: PeerId,
    /// One of the owner's allowed IPs.
    pub prefix: Prefix,
    /// Who is asked whether it answers again: pings to these go to the owner.
    pub probes: Vec<IpAddr>,
}

/// Where packets go instead while prefixes do not answer.
#[derive(Debug)]
struct Detours {
    routes: AllowedIps<PeerId>,
    /// Prefixes that go elsewhere, and to whom.
    moved: Vec<(Prefix, PeerId)>,
    probes: Vec<IpAddr>,
}

/// One whole configuration of the dataplane.
#[derive(Debug)]
pub struct Snapshot {
    policy: Option<Policy>,
    paths: PathsConfig,
    generation: Generation,
    identity: Arc<Identity>,
    epoch: Instant,
    mtu: usize,
    peers: Vec<Option<Arc<PeerSpec>>>,
    by_key: HashMap<PublicKey, PeerId>,
    routes: AllowedIps<PeerId>,
    /// `None` where every packet goes to the owner of its destination.
    detours: Option<Detours>,
    /// One per worker; empty where lanes are off.
    lane_identities: Vec<Arc<Identity>>,
    by_lane_key: HashMap<PublicKey, PeerId>,
}

impl Snapshot {
    /// Compiles peers into routes. A prefix that two peers claim goes to the later one, as with `wg set`.
    ///
    /// `epoch` is the gateway's start, the same in all its snapshots; `mtu` is the inner MTU in bytes.
    pub fn new(
        generation: Generation,
        identity: Arc<Identity>,
        epoch: Instant,
        mtu: usize,
        specs: impl IntoIterator<Item = Arc<PeerSpec>>,
    ) -> Self {
        let mut peers: Vec<Option<Arc<PeerSpec>>> = Vec::new();
        let mut by_key = HashMap::new();
        let mut by_lane_key = HashMap::new();
        let mut routes = AllowedIps::new();
        for spec in specs {
            let at = spec.id.0 as usize;
            assert!(spec.id.0 <= PeerId::MAX, "peer number {at}");
            if peers.len() <= at {
                peers.resize(at + 1, None);
            }
            for prefix in &spec.allowed_ips {
                routes.insert(*prefix, spec.id);
            }
            by_key.insert(spec.public_key, spec.id);
            by_lane_key.extend(spec.lanes.iter().map(|lane| (lane.lane.remote, spec.id)));
            peers[at] = Some(spec);
        }
        Self {
            policy: None,
            paths: PathsConfig::default(),
            generation,
            identity,
            epoch,
            mtu,
            peers,
            by_key,
            routes,
            detours: None,
            lane_identities: Vec::new(),
            by_lane_key,
        }
    }

    /// Switches lanes on: `identities` are those of the workers' lanes, in order.
    #[must_use]
    pub fn with_lanes(mut self, identities: Vec<Arc<Identity>>) -> Self {
        self.lane_identities = identities;
        self
    }

    /// Leads packets for prefixes that do not answer to the peer whose allowed IP covers the prefix next, and which
    /// answers itself. Where there is none, they go to the owner as ever.
    #[must_use]
    pub fn with_unreachable(mut self, unreachable: &[Unreachable]) -> Self {
        let is_out = |id: PeerId, prefix: &Prefix| {
            unreachable
                .iter()
                .any(|it| (it.peer, it.prefix) == (id, *prefix))
        };
        let mut routes = self.routes.clone();
        let mut moved = Vec::new();
        for out in unreachable.iter().filter(|out| self.owns(out)) {
            let all = self.peers().flat_map(|spec| {
                let prefixes = spec.allowed_ips.iter();
                prefixes.map(|prefix| (spec.id, *prefix))
            });
            let others = all.filter(|(id, prefix)| {
                *id != out.peer && covers(prefix, &out.prefix) && !is_out(*id, prefix)
            });
            if let Some((next, _)) = others.max_by_key(|(_, prefix)| prefix.prefix_len()) {
                routes.insert(out.prefix, next);
                moved.push((out.prefix, next));
            }
        }
        let probes = unreachable.iter().flat_map(|it| &it.probes);
        self.detours = (!moved.is_empty()).then(|| Detours {
            routes,
            moved,
            probes: probes.copied().collect(),
        });
        self
    }

    fn owns(&self, out: &Unreachable) -> bool {
        let spec = self.peer(out.peer);
        spec.is_some_and(|spec| spec.allowed_ips.contains(&out.prefix))
    }

    /// Puts policy in force; without one every connection may pass.
    #[must_use]
    pub fn with_policy(mut self, policy: Option<Policy>) -> Self {
        self.policy = policy;
        self
    }

    /// Gives the gateway uplinks and classes.
    #[must_use]
    pub fn with_paths(mut self, paths: PathsConfig) -> Self {
        self.paths = paths;
        self
    }

    /// The uplinks and classes.
    pub fn paths(&self) -> &PathsConfig {
        &self.paths
    }

    /// The policy in force.
    #[inline]
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Whether this site opens lanes.
    pub fn has_lanes(&self) -> bool {
        self.lane_identities.len() > 1
    }

    /// The identity of a worker's lanes.
    pub fn lane_identity(&self, worker: WorkerId) -> Option<&Arc<Identity>> {
        self.lane_identities.get(worker.as_usize())
    }

    /// The identities of all workers' lanes, in order.
    pub fn lane_identities(&self) -> &[Arc<Identity>] {
        &self.lane_identities
    }

    /// The peer one of whose lanes has that key.
    pub fn peer_by_lane_key(&self, key: &PublicKey) -> Option<&Arc<PeerSpec>> {
        self.peer(*self.by_lane_key.get(key)?)
    }

    /// Which configuration this is.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Our key pair.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The gateway's start, from which handshake times count.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The inner MTU in bytes.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// The peer with that number.
    #[inline]
    pub fn peer(&self, id: PeerId) -> Option<&Arc<PeerSpec>> {
        self.peers.get(id.0 as usize)?.as_ref()
    }

    /// The peer with that key.
    pub fn peer_by_key(&self, key: &PublicKey) -> Option<&Arc<PeerSpec>> {
        self.peer(*self.by_key.get(key)?)
    }

    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<PeerSpec>> {
        self.peers.iter().flatten()
    }

    /// The peer that owns an inner address: most specific prefix first.
    #[inline]
    pub fn route(&self, addr: IpAddr) -> Option<PeerId> {
        self.routes.lookup(addr)
    }

    /// The peer to which packets of a flow go, `key` from local to remote: the owner of the destination, or another one
    /// while that prefix does not answer.
    #[inline]
    pub fn next_hop(&self, key: &FlowKey) -> Option<PeerId> {
        match &self.detours {
            None => self.route(key.dst),
            Some(detours) => {
                let is_probe =
                    matches!(key.protocol, ICMP | ICMPV6) && detours.probes.contains(&key.dst);
                match is_probe {
                    true => self.route(key.dst),
                    false => detours.routes.lookup(key.dst),
                }
            }
        }
    }

    /// Whether a peer may send from an inner address: it owns it, or packets to it go there at the moment.
    #[inline]
    pub fn may_send(&self, id: PeerId, addr: IpAddr) -> bool {
        self.route(addr) == Some(id)
            || self
                .detours
                .as_ref()
                .is_some_and(|detours| detours.routes.lookup(addr) == Some(id))
    }

    /// Whether packets go elsewhere than to the owner anywhere.
    #[inline]
    pub fn has_detours(&self) -> bool {
        self.detours.is_some()
    }

    /// The peer that has the packets for an allowed IP of another one at the moment.
    pub fn detour_of(&self, prefix: &Prefix) -> Option<PeerId> {
        let moved = self.detours.iter().flat_map(|detours| &detours.moved);
        let mut found = moved.filter(|(it, _)| it == prefix);
        found.next().map(|(_, next)| *next)
    }
}

/// Whether all of `inner` is in `outer`.
fn covers(outer: &Prefix, inner: &Prefix) -> bool {
    outer.prefix_len() <= inner.prefix_len() && outer.contains(inner.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_survives_the_cell_in_both_families() {
        let stats = PeerStats::default();
        assert_eq!(stats.endpoint(), None);
        for (remote, local) in [
            ("192.0.2.1:51820", Some("198.51.100.7")),
            ("[2001:db8::1]:1", Some("2001:db8::2")),
            ("[2001:db8::1]:65535", None),
        ] {
            let endpoint = Endpoint {
                remote: remote.parse().unwrap(),
                local: local.map(|addr| addr.parse().unwrap()),
                door: Door::Listen,
                uplink: UplinkId(3),
            };
            stats.set_endpoint(Some(&endpoint));
            assert_eq!(stats.endpoint(), Some(endpoint));
        }
        stats.set_endpoint(None);
        assert_eq!(stats.endpoint(), None);
    }
}
