//! The hub, its far sites and the wires between them, on virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use patronus_engine::{
    ClassTable, Engine, EngineConfig, Event, Generation, PathEvent, PathsConfig, PeerId, PeerSpec,
    PeerStats, Snapshot,
};
use patronus_packet::{Endpoint, Joining, Prefix, TunFrame, UdpFrame, UplinkId};
use patronus_path::observation::PathProfile;
use patronus_path::prober::UplinkProfile;
use patronus_path::{Cadence, ClassConfig, ClassId, PathSpec, PathState};
use patronus_tunnel::{Identity, PrivateKey, PublicKey, WallClock, WorkerId};

use crate::traffic::{Shape, Toward, Traffic};
use crate::world::{HANDSHAKES_PER_S, MTU, PORT, TRAINS};

/// Uplinks of every site; the first of one goes to the first of the other, and so on.
pub(super) const UPLINKS: u8 = 2;
/// What a wired uplink is probed at by default.
pub(super) const CADENCE: Cadence = Cadence {
    active: Duration::from_millis(50),
    idle: Duration::from_secs(1),
    multiplier: 5,
};
/// Every wire's delay.
pub(super) const ONE_WAY: Duration = Duration::from_millis(5);
/// From the first handshakes until bandwidths, MTU and roles are settled, and idle sites are idle.
const WARM_UP_S: usize = 70;
const FLOW_SLOTS: usize = 4096;
const SEED: u64 = 0x7061_7468;

/// What the hub did in a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    /// The time of its calls.
    pub(super) busy: Duration,
    /// The longest of them.
    pub(super) longest: Duration,
    /// Datagrams that it sent and received.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Paths that it found down.
    pub(super) downs: u64,
}

struct Site {
    engine: Engine,
    /// When its timers are due, as noted in the mesh.
    due: Option<Instant>,
}

/// A datagram on its way, by its arrival and the order of sending.
type Flight = (Instant, u64);

struct Letter {
    to: usize,
    uplink: u8,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// The hub is site 0, far sites follow.
pub(super) struct Mesh {
    sites: Vec<Site>,
    active: usize,
    traffic: Traffic,
    hub_peers: Vec<Arc<PeerSpec>>,
    now: Instant,
    dues: BTreeSet<(Instant, usize)>,
    flights: BinaryHeap<Reverse<(Flight, usize)>>,
    letters: Vec<Option<Letter>>,
    free: Vec<usize>,
    order: u64,
    frame: UdpFrame,
    packet: TunFrame,
    second: Second,
}

impl Mesh {
    /// Sites that do not know each other's sessions yet.
    pub(super) fn new(peers: usize, active: usize) -> Result<Self> {
        let epoch = Instant::now();
        let hub_key = PrivateKey::generate();
        let hub_public = hub_key.public_key();
        let mut hub_peers = Vec::with_capacity(peers);
        let mut sites = Vec::with_capacity(peers + 1);
        for at in 0..peers {
            let key = PrivateKey::generate();
            let network = prefix(Traffic::network_of(at), 24)?;
            hub_peers.push(Arc::new(peer(at, key.public_key(), at + 1, network)));
            let everything = prefix(crate::traffic::HUB_HOST, 16)?;
            let hub = Arc::new(peer(0, hub_public, 0, everything));
            sites.push(site(key, vec![hub], at as u64, epoch));
        }
        sites.insert(0, site(hub_key, hub_peers.clone(), SEED, epoch));
        let mut mesh = Self {
            sites,
            active,
            traffic: Traffic::new(
                Shape::Packet(128),
                active.max(1) as u64,
                active.max(1) as u64,
            ),
            hub_peers,
            now: epoch,
            dues: BTreeSet::new(),
            flights: BinaryHeap::new(),
            letters: Vec::new(),
            free: Vec::new(),
            order: 0,
            frame: UdpFrame::default(),
            packet: TunFrame::default(),
            second: Second::default(),
        };
        for at in 0..mesh.sites.len() {
            mesh.note_due(at);
        }
        Ok(mesh)
    }

    /// Lets everything come up and calm down.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        for _ in 0..WARM_UP_S {
            self.second()?;
        }
        self.check()
    }

    /// One second, with a packet each way to and from every active site.
    pub(super) fn second(&mut self) -> Result<Second> {
        self.second = Second::default();
        let end = self.now + Duration::from_secs(1);
        for number in 0..self.active {
            let at = self.traffic.site_of(number as u64);
            self.traffic
                .fill(&mut self.packet, number as u64, Toward::Far);
            self.send(0);
            self.traffic
                .fill(&mut self.packet, number as u64, Toward::Hub);
            self.send(at + 1);
        }
        loop {
            let due = self.dues.first().copied();
            let flight = self.flights.peek().map(|Reverse(((at, _), _))| *at);
            let next = due.map(|(at, _)| at).into_iter().chain(flight).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            match due.filter(|(at, _)| *at <= next) {
                Some((_, at)) => self.wake(at),
                None => self.deliver(),
            }
        }
        self.now = end;
        Ok(self.second)
    }

    /// All paths are up, and nothing was dropped or lost count of.
    pub(super) fn check(&self) -> Result<()> {
        for spec in &self.hub_peers {
            let paths = spec.board.paths();
            let up = paths.iter().filter(|path| path.state == PathState::Up);
            let up = up.count();
            ensure!(
                up == usize::from(UPLINKS),
                "{up} of {UPLINKS} paths to site {} are up",
                spec.id.0
            );
        }
        let counters = self.sites[0].engine.counters();
        ensure!(
            counters.is_balanced(),
            "the hub's books do not balance: {counters:?}"
        );
        Ok(())
    }

    /// Times that a prober of the hub was late by more than an interval.
    pub(super) fn starved(&self) -> u64 {
        self.hub_peers.iter().map(|spec| spec.board.starved()).sum()
    }

    fn send(&mut self, at: usize) {
        let (now, packet) = (self.now, &mut self.packet);
        let call = |engine: &mut Engine| {
            engine.handle_tun(std::slice::from_mut(packet), now);
        };
        self.sites[at].engine.timed(at, &mut self.second, call);
        self.collect(at);
    }

    fn wake(&mut self, at: usize) {
        let now = self.now;
        let call = |engine: &mut Engine| engine.handle_timeout(now);
        self.sites[at].engine.timed(at, &mut self.second, call);
        self.collect(at);
    }

    fn deliver(&mut self) {
        let Some(Reverse((_, place))) = self.flights.pop() else {
            return;
        };
        let Some(letter) = self.letters[place].take() else {
            return;
        };
        self.free.push(place);
        let frame = &mut self.frame;
        frame.buf.storage_mut()[..letter.bytes.len()].copy_from_slice(&letter.bytes);
        frame.buf.set_len(letter.bytes.len());
        frame.segment_len = 0;
        frame.endpoint = Endpoint {
            local: Some(addr(letter.to, letter.uplink).ip()),
            uplink: UplinkId(letter.uplink),
            ..Endpoint::from(letter.from)
        };
        let now = self.now;
        if letter.to == 0 {
            self.second.received += 1;
        }
        let call = |engine: &mut Engine| {
            engine.handle_udp(std::slice::from_mut(frame), now);
        };
        self.sites[letter.to]
            .engine
            .timed(letter.to, &mut self.second, call);
        self.collect(letter.to);
    }

    /// Puts on the wire what a site sends, and forgets what it delivers.
    fn collect(&mut self, at: usize) {
        let engine = &mut self.sites[at].engine;
        let (mut packets, mut own) = (0, 0);
        for train in engine.udp_out().trains() {
            *(if train.own { &mut own } else { &mut packets }) += u64::from(train.packets);
            let uplink = match train.endpoint.uplink {
                UplinkId::ANY => 0,
                UplinkId(uplink) => uplink,
            };
            let Some((to, to_uplink)) = site_at(train.endpoint.remote) else {
                continue;
            };
            for bytes in engine.udp_out().bytes(train).chunks(train.segment_len) {
                self.order += 1;
                let letter = Letter {
                    to,
                    uplink: to_uplink,
                    from: addr(at, uplink),
                    bytes: bytes.to_vec(),
                };
                let place = self.free.pop().unwrap_or(self.letters.len());
                if place == self.letters.len() {
                    self.letters.push(Some(letter));
                } else {
                    self.letters[place] = Some(letter);
                }
                let flight = (self.now + ONE_WAY, self.order);
                self.flights.push(Reverse((flight, place)));
            }
        }
        if at == 0 {
            self.second.sent += packets + own;
        }
        engine.udp_sent(packets, own, 0, &[]);
        engine.tun_sent(engine.tun_out().packets(), 0);
        while let Some(event) = engine.poll_event() {
            let is_down = matches!(
                event,
                Event::Path(_, PathEvent::State(_, PathState::Down, _))
            );
            self.second.downs += u64::from(at == 0 && is_down);
        }
        self.note_due(at);
    }

    fn note_due(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let due = site.engine.poll_timeout();
        if due == site.due {
            return;
        }
        if let Some(old) = site.due {
            self.dues.remove(&(old, at));
        }
        site.due = due;
        self.dues.extend(due.map(|due| (due, at)));
    }
}

/// A call that counts, where it is the hub's.
trait Timed {
    fn timed(&mut self, at: usize, second: &mut Second, call: impl FnOnce(&mut Self));
}

impl Timed for Engine {
    fn timed(&mut self, at: usize, second: &mut Second, call: impl FnOnce(&mut Self)) {
        let started = Instant::now();
        call(self);
        if at == 0 {
            let took = started.elapsed();
            second.busy += took;
            second.longest = second.longest.max(took);
        }
    }
}

fn site(key: PrivateKey, peers: Vec<Arc<PeerSpec>>, seed: u64, epoch: Instant) -> Site {
    let config = EngineConfig {
        worker: WorkerId(0),
        workers: 1,
        flow_slots: FLOW_SLOTS,
        seed,
        joining: Joining {
            tcp: true,
            udp: true,
        },
        trains: TRAINS,
    };
    let clock = WallClock {
        at: epoch,
        unix: Duration::from_secs(1_700_000_000),
    };
    let identity = Arc::new(Identity::new(key, HANDSHAKES_PER_S, clock));
    let snapshot =
        Snapshot::new(Generation(1), identity, epoch, MTU, peers).with_paths(paths_config());
    Site {
        engine: Engine::new(config, &Arc::new(snapshot), epoch),
        due: None,
    }
}

fn paths_config() -> PathsConfig {
    let uplink = |number: u8| UplinkProfile {
        uplink: number,
        name: format!("wan{number}"),
        cost: 0,
        up_bps: None,
        down_bps: None,
        is_metered: false,
        cadence: CADENCE,
    };
    let configs = ClassConfig::defaults();
    let default = configs.iter().position(|class| class.name == "default");
    PathsConfig {
        uplinks: (0..UPLINKS).map(uplink).collect(),
        classes: ClassTable {
            configs,
            default: ClassId(default.unwrap_or_default() as u8),
            ..ClassTable::default()
        },
    }
}

/// What a site has to know of another one.
fn peer(number: usize, public_key: PublicKey, site: usize, network: Prefix) -> PeerSpec {
    let path = |uplink: u8| PathSpec {
        uplink,
        remote: addr(site, uplink),
        profile: PathProfile {
            name: format!("wan{uplink}"),
            uplink,
            remote: None,
            cost: 0,
            capacity_bps: None,
            is_metered: false,
        },
        cadence: CADENCE,
    };
    PeerSpec {
        id: PeerId(number as u32),
        public_key,
        preshared_key: None,
        endpoint: Some(addr(site, 0)),
        endpoint_serial: 0,
        allowed_ips: vec![network],
        keepalive: None,
        worker: WorkerId(0),
        stats: Arc::new(PeerStats::default()),
        lanes: Vec::new(),
        paths: (0..UPLINKS).map(path).collect(),
        board: Arc::default(),
    }
}

/// The address of a site's uplink, within 198.18.0.0/15 (RFC 2544).
fn addr(site: usize, uplink: u8) -> SocketAddr {
    let bits = FIRST.to_bits() + (site as u32) * u32::from(UPLINKS) + u32::from(uplink);
    SocketAddr::from((Ipv4Addr::from_bits(bits), PORT))
}

fn site_at(addr: SocketAddr) -> Option<(usize, u8)> {
    let IpAddr::V4(v4) = addr.ip() else {
        return None;
    };
    let number = v4.to_bits().checked_sub(FIRST.to_bits())?;
    let site = (number / u32::from(UPLINKS)) as usize;
    Some((site, (number % u32::from(UPLINKS)) as u8))
}

fn prefix(addr: Ipv4Addr, len: u8) -> Result<Prefix> {
    let prefix = Prefix::new(addr.into(), len);
    prefix.ok_or_else(|| anyhow::anyhow!("{addr}/{len} is no prefix"))
}

const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
