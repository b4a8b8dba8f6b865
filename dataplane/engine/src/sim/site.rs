//! One site: the engines of its workers, its configuration, and what came out of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use patronus_packet::{Endpoint, Joining, TrainLimits, UplinkId};
use patronus_tunnel::lanes::lane_key;
use patronus_tunnel::{Identity, WorkerId};

use crate::{
    Counters, Engine, EngineConfig, Event, Generation, PathsConfig, PeerId, PeerSpec, Policy,
    Snapshot, Unreachable,
};

/// What a site is made of.
#[derive(Clone, Copy, Debug)]
pub struct SiteOptions {
    /// Workers, and so engines.
    pub workers: usize,
    /// Inner MTU in bytes.
    pub mtu: usize,
    /// What its TUN takes joined.
    pub joining: Joining,
    /// How long a train its sockets take.
    pub trains: TrainLimits,
    /// Handshake messages a second before the gate asks for cookies.
    pub handshakes_per_s: u64,
    /// Flow entries per worker.
    pub flow_slots: usize,
    /// Whether it opens lanes.
    pub lanes: bool,
    /// Ways out, 1 to [`UplinkId::COUNT_MAX`], each with an address of its own.
    pub uplinks: u8,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            mtu: 1420,
            joining: Joining {
                tcp: true,
                udp: true,
            },
            trains: TrainLimits {
                segments: 63,
                bytes: 65_000,
            },
            handshakes_per_s: 100,
            flow_slots: 1024,
            lanes: false,
            uplinks: 1,
        }
    }
}

/// Which worker of a site the kernel gives a datagram to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The one that the receiver index names; the first for everything else. What classic BPF does.
    ByIndex,
    /// Always the same one: the kernel without a steering program.
    Fixed(WorkerId),
}

/// One site: its engines and what came out of them.
pub struct Site {
    /// Which worker a datagram goes to.
    pub steering: Steering,
    /// Inner packets that were written to the TUN, superpackets taken apart again.
    pub delivered: Vec<Vec<u8>>,
    /// What control was told.
    pub events: Vec<Event>,
    /// A site that is down neither receives nor runs.
    pub is_up: bool,
    pub(super) engines: Vec<Engine>,
    pub(super) identity: Arc<Identity>,
    /// By uplink.
    pub(super) outers: Vec<SocketAddr>,
    /// By uplink.
    pub(super) carriers: Vec<bool>,
    pub(super) paths: PathsConfig,
    pub(super) specs: BTreeMap<PeerId, PeerSpec>,
    pub(super) policy: Option<Policy>,
    pub(super) unreachable: Vec<Unreachable>,
    pub(super) generation: u64,
    pub(super) options: SiteOptions,
    pub(super) own_captured: u64,
    pub(super) lane_identities: Vec<Arc<Identity>>,
}

/// The identities of a site's lanes.
pub(super) fn lane_identities(identity: &Identity, options: &SiteOptions) -> Vec<Arc<Identity>> {
    let keys = (0..options.workers).map(|worker| lane_key(identity.private_key(), worker as u8));
    let clock = identity.clock();
    keys.map(|key| Arc::new(Identity::new(key, options.handshakes_per_s, clock)))
        .collect()
}

impl Site {
    /// Our key pair.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The engine of a worker.
    pub fn engine(&self, worker: usize) -> &Engine {
        &self.engines[worker]
    }

    /// The engine of a worker, for what [`Net`](super::Net) has no verb for.
    pub fn engine_mut(&mut self, worker: usize) -> &mut Engine {
        &mut self.engines[worker]
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.engines.len()
    }

    /// Where the site is reached: its first uplink.
    pub fn outer(&self) -> SocketAddr {
        self.outers[0]
    }

    /// Where the site is reached over an uplink.
    pub fn outer_on(&self, uplink: u8) -> SocketAddr {
        self.outers[usize::from(uplink)]
    }

    /// The sum over all workers.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for engine in &self.engines {
            sum += engine.counters();
        }
        sum
    }

    /// A peer as configured.
    pub fn spec(&self, peer: PeerId) -> &PeerSpec {
        &self.specs[&peer]
    }

    /// Where a worker's lanes begin: on the first uplink.
    pub fn lane_addr(&self, worker: usize) -> SocketAddr {
        self.lane_addr_on(0, worker)
    }

    /// Where a worker's lanes begin over an uplink.
    pub fn lane_addr_on(&self, uplink: u8, worker: usize) -> SocketAddr {
        let outer = self.outer_on(uplink);
        SocketAddr::new(outer.ip(), outer.port() + 1 + worker as u16)
    }

    /// What `addr` is to this site: on which uplink, and the port it listens on or a worker's own.
    pub(super) fn door_at(&self, addr: SocketAddr) -> Option<(u8, Option<usize>)> {
        (0..self.options.uplinks).find_map(|uplink| {
            if addr == self.outer_on(uplink) {
                return Some((uplink, None));
            }
            let mut workers = 0..self.engines.len();
            let lane = workers.find(|worker| self.lane_addr_on(uplink, *worker) == addr)?;
            Some((uplink, Some(lane)))
        })
    }

    /// The uplink that a datagram leaves over: the one it names, or that of its source address, or the first, where the
    /// only route of most sites leads.
    pub(super) fn uplink_of(&self, endpoint: &Endpoint) -> u8 {
        if endpoint.uplink != UplinkId::ANY {
            let UplinkId(uplink) = endpoint.uplink;
            assert!(
                uplink < self.options.uplinks,
                "no uplink {uplink}: {endpoint:?}"
            );
            return uplink;
        }
        let is_source = |outer: &SocketAddr| Some(outer.ip()) == endpoint.local;
        let source = self.outers.iter().position(is_source);
        source.map_or(0, |uplink| uplink as u8)
    }

    /// Makes the engines anew.
    pub(super) fn start(&mut self, snapshot: &Arc<Snapshot>, seed: u64, now: Instant) {
        let options = self.options;
        let engine_of = |worker: usize| {
            let config = EngineConfig {
                worker: WorkerId(worker as u8),
                workers: options.workers,
                flow_slots: options.flow_slots,
                seed,
                joining: options.joining,
                trains: options.trains,
            };
            Engine::new(config, snapshot, now)
        };
        self.engines = (0..options.workers).map(engine_of).collect();
        let tables: Vec<_> = self
            .engines
            .iter()
            .map(|engine| engine.flow_table().clone())
            .collect();
        for (worker, engine) in self.engines.iter_mut().enumerate() {
            let others = tables
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != worker);
            engine.set_siblings(others.map(|(_, table)| table.clone()).collect());
        }
    }

    pub(super) fn snapshot(&self, epoch: Instant) -> Arc<Snapshot> {
        let specs = self.specs.values().cloned().map(Arc::new);
        let generation = Generation(self.generation);
        let snapshot = Snapshot::new(
            generation,
            self.identity.clone(),
            epoch,
            self.options.mtu,
            specs,
        )
        .with_policy(self.policy.clone())
        .with_unreachable(&self.unreachable)
        .with_paths(self.paths.clone());
        Arc::new(match self.options.lanes {
            true => snapshot.with_lanes(self.lane_identities.clone()),
            false => snapshot,
        })
    }
}

/// The address of a site's uplink: one of the prefixes for documentation (RFC 5737) for each of the first two, one of
/// the shared address space (RFC 6598) for each of the others.
pub(super) fn outer_addr(site: usize, uplink: u8, port: u16) -> SocketAddr {
    let last = site as u8 + 1;
    let addr = match uplink {
        0 => [192, 0, 2, last],
        1 => [198, 51, 100, last],
        _ => [100, 64, uplink, last],
    };
    SocketAddr::from((addr, port))
}
