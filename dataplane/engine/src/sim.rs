//! Sites and links in memory, on virtual time: the same [`Engine`] as in the daemon, with nothing real around it.
//!
//! [`Net`] owns the clock, the sites and the wire between them. It does what a host must do: one input into an
//! engine, then every output out of it, then the next input; packets for a sibling are carried there. After every
//! step it checks the engine's books. All chance comes from one seed, which a failing test prints.
//!
//! boringtun, which counts handshakes at the gate and plays the stock peer in tests, reads the real clock, which hardly
//! moves meanwhile. With feature `mock-clock` it moves in step.

mod dice;
mod paths;
mod site;
mod wire;

use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use patronus_impair::{Impairment, Wire};
use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::{Door, FrameBuf, Prefix, TunFrame, UdpFrame, UplinkId};
use patronus_tunnel::{Identity, PrivateKey, WallClock, WorkerId};

use crate::snapshot::PeerStats;
use crate::{Engine, Event, Handoff, LaneSpec, PathsConfig, PeerId, PeerSpec, Policy, Unreachable};

pub use dice::Dice;
pub use paths::Uplink;
use paths::{Followed, Way};
pub use site::{Site, SiteOptions, Steering};
pub use wire::{Captured, Link, udp_frame};
use wire::{Delivery, packets_of, steer};

/// Datagrams that a receiver joins into one frame: `UDP_GRO_CNT_MAX` of Linux.
const GRO_DATAGRAMS_MAX: usize = 64;
/// Calls of `handle_timeout` at one instant before the simulator calls it a livelock.
const STEPS_PER_INSTANT_MAX: usize = 10_000;
/// The port that every site listens on.
pub const OUTER_PORT: u16 = 51_820;

/// A site's place in its [`Net`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub usize);

/// Sites, the wire between them, and the time.
pub struct Net {
    /// The link between two sites, or from a site to itself, where none was set by [`set_link`](Self::set_link).
    pub link: Link,
    /// Every datagram that was sent, lost ones too.
    pub captured: Vec<Captured>,
    links: HashMap<(SiteId, SiteId), Link>,
    /// What goes before `links`.
    paths: HashMap<Way, Impairment>,
    /// Each way has a wire as soon as something was sent on it.
    wires: HashMap<Way, Wire>,
    followed: Option<Followed>,
    sites: Vec<Site>,
    wire: BinaryHeap<Delivery>,
    /// Datagrams to addresses where no site is.
    outside: HashMap<SocketAddr, VecDeque<Vec<u8>>>,
    dice: Dice,
    seed: u64,
    sequence: u64,
    epoch: Instant,
    now: Instant,
}

impl Net {
    /// An empty world. The same seed gives the same losses; keys are random.
    pub fn new(seed: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "virtual time has to begin somewhere"
        )]
        let epoch = Instant::now();
        let net = Self {
            link: Link::default(),
            captured: Vec::new(),
            links: HashMap::new(),
            paths: HashMap::new(),
            wires: HashMap::new(),
            followed: None,
            sites: Vec::new(),
            wire: BinaryHeap::new(),
            outside: HashMap::new(),
            dice: Dice::new(seed),
            seed,
            sequence: 0,
            epoch,
            now: epoch,
        };
        net.move_mocked_clock();
        net
    }

    /// A world of `sites` sites, each connected with each: site `i` owns 10.i.0.0/16 and `fd00:i::/32`.
    pub fn mesh(seed: u64, sites: usize, options: SiteOptions) -> Self {
        let mut net = Self::new(seed);
        let ids: Vec<SiteId> = (0..sites).map(|_| net.add_site(options)).collect();
        for (at, a) in ids.iter().enumerate() {
            for b in &ids[at + 1..] {
                net.connect(*a, *b);
            }
        }
        net
    }

    /// A site without peers, at 192.0.2.(i+1), its second uplink at 198.51.100.(i+1), the others at 100.64.u.(i+1).
    pub fn add_site(&mut self, options: SiteOptions) -> SiteId {
        let id = SiteId(self.sites.len());
        let uplinks = 0..options.uplinks;
        assert!(
            (1..=UplinkId::COUNT_MAX).contains(&uplinks.len()),
            "{} uplinks",
            options.uplinks
        );
        let identity = Arc::new(Identity::new(
            PrivateKey::generate(),
            options.handshakes_per_s,
            self.clock(),
        ));
        let mut site = Site {
            steering: Steering::ByIndex,
            delivered: Vec::new(),
            events: Vec::new(),
            is_up: true,
            engines: Vec::new(),
            lane_identities: site::lane_identities(&identity, &options),
            identity,
            carriers: uplinks.clone().map(|_| true).collect(),
            outers: uplinks
                .map(|uplink| site::outer_addr(id.0, uplink, OUTER_PORT))
                .collect(),
            paths: PathsConfig::default(),
            specs: BTreeMap::new(),
            policy: None,
            unreachable: Vec::new(),
            generation: 1,
            options,
            own_captured: 0,
        };
        let snapshot = site.snapshot(self.epoch);
        site.start(&snapshot, self.seed ^ id.0 as u64, self.now);
        self.sites.push(site);
        id
    }

    /// The daemon of a site dies and starts again with the same configuration: sessions, flows, counters and what
    /// waited are gone.
    pub fn restart(&mut self, site: SiteId) {
        let seed = self.dice.next_u64();
        let site = &mut self.sites[site.0];
        let snapshot = site.snapshot(self.epoch);
        site.own_captured = 0;
        site.start(&snapshot, seed, self.now);
    }

    /// What site `at` has to know to have site `of` as a peer: number `of`, first worker, all its prefixes.
    pub fn spec_of(&self, of: SiteId) -> PeerSpec {
        PeerSpec {
            id: peer_id(of),
            public_key: self.sites[of.0].identity.public_key(),
            preshared_key: None,
            endpoint: Some(self.sites[of.0].outer()),
            endpoint_serial: 0,
            allowed_ips: prefixes_of(of),
            keepalive: None,
            worker: WorkerId(0),
            stats: Arc::new(PeerStats::default()),
            lanes: Vec::new(),
            paths: Vec::new(),
            board: Arc::default(),
        }
    }

    /// Makes two sites peers of each other. Both know the other's address, so both begin a handshake as soon as
    /// time passes.
    pub fn connect(&mut self, a: SiteId, b: SiteId) {
        for (at, of) in [(a, b), (b, a)] {
            let spec = self.spec_of(of);
            self.add_peer(at, spec);
        }
    }

    /// Makes two sites peers of each other; only the first knows the other's address, and initiates.
    pub fn connect_from(&mut self, initiator: SiteId, responder: SiteId) {
        let spec = PeerSpec {
            endpoint: None,
            ..self.spec_of(initiator)
        };
        self.add_peer(responder, spec);
        let spec = self.spec_of(responder);
        self.add_peer(initiator, spec);
    }

    /// Configures a peer.
    pub fn add_peer(&mut self, at: SiteId, spec: PeerSpec) {
        self.edit(at, |specs| {
            specs.insert(spec.id, spec);
        });
    }

    /// Changes the configuration of a site and has all its workers take it.
    pub fn edit(&mut self, site: SiteId, change: impl FnOnce(&mut BTreeMap<PeerId, PeerSpec>)) {
        change(&mut self.sites[site.0].specs);
        self.reload(site);
    }

    /// Changes one peer of a site.
    pub fn edit_peer(&mut self, site: SiteId, peer: PeerId, change: impl FnOnce(&mut PeerSpec)) {
        self.edit(site, |specs| {
            change(specs.get_mut(&peer).expect("the peer is configured"))
        });
    }

    /// Gives a site another key pair.
    pub fn set_identity(&mut self, site: SiteId, key: PrivateKey) {
        let handshakes_per_s = self.sites[site.0].options.handshakes_per_s;
        let clock = self.clock();
        let changed = &mut self.sites[site.0];
        changed.identity = Arc::new(Identity::new(key, handshakes_per_s, clock));
        changed.lane_identities = site::lane_identities(&changed.identity, &changed.options);
        self.reload(site);
    }

    /// Gives a site another inner MTU.
    pub fn set_mtu(&mut self, site: SiteId, mtu: usize) {
        self.sites[site.0].options.mtu = mtu;
        self.reload(site);
    }

    /// Puts policy in force at a site, or none.
    pub fn set_policy(&mut self, site: SiteId, policy: Option<Policy>) {
        self.sites[site.0].policy = policy;
        self.reload(site);
    }

    /// Says which prefixes behind a site's peers do not answer and are to take a detour.
    pub fn set_unreachable(&mut self, site: SiteId, unreachable: Vec<Unreachable>) {
        self.sites[site.0].unreachable = unreachable;
        self.reload(site);
    }

    /// Gives a site uplinks and classes to choose by.
    pub fn set_paths(&mut self, site: SiteId, paths: PathsConfig) {
        self.sites[site.0].paths = paths;
        self.reload(site);
    }

    fn reload(&mut self, id: SiteId) {
        let site = &mut self.sites[id.0];
        site.generation += 1;
        let snapshot = site.snapshot(self.epoch);
        for worker in 0..site.engines.len() {
            self.sites[id.0].engines[worker].handle_snapshot(snapshot.clone(), self.now);
            self.drain(id, worker);
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.epoch
    }

    /// The chances of this world, for tests that want more of them.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// A site.
    pub fn site(&self, id: SiteId) -> &Site {
        &self.sites[id.0]
    }

    /// A site, to change.
    pub fn site_mut(&mut self, id: SiteId) -> &mut Site {
        &mut self.sites[id.0]
    }

    /// Sets the link in one direction.
    pub fn set_link(&mut self, from: SiteId, to: SiteId, link: Link) {
        self.links.insert((from, to), link);
    }

    /// Gives a site another outer address on its first uplink, as a NAT does that forgot its mapping. What is on its way
    /// to the old one is lost.
    pub fn move_site(&mut self, site: SiteId, outer: SocketAddr) {
        self.move_uplink(site, 0, outer);
    }

    /// Takes what the site delivered since the last call.
    pub fn take_delivered(&mut self, site: SiteId) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sites[site.0].delivered)
    }

    /// Takes what was captured since the last call.
    pub fn take_captured(&mut self) -> Vec<Captured> {
        std::mem::take(&mut self.captured)
    }

    /// Takes the datagrams that were sent to an address where no site is.
    pub fn take_outside(&mut self, addr: SocketAddr) -> Vec<Vec<u8>> {
        self.outside.remove(&addr).unwrap_or_default().into()
    }

    /// A finished packet comes from the TUN queue of a worker.
    pub fn send(&mut self, site: SiteId, worker: usize, packet: &[u8]) {
        self.send_frame(
            site,
            worker,
            TunFrame {
                buf: FrameBuf::from_data(packet),
                ..TunFrame::default()
            },
        );
    }

    /// A frame comes from the TUN queue of a worker.
    pub fn send_frame(&mut self, site: SiteId, worker: usize, frame: TunFrame) {
        let mut frames = [frame];
        let taken = self.sites[site.0].engines[worker].handle_tun(&mut frames, self.now);
        assert_eq!(taken, 1, "a drained engine takes a frame");
        self.drain(site, worker);
    }

    /// A datagram reaches a site at once, from anywhere; steering chooses the worker.
    pub fn inject(&mut self, from: SocketAddr, site: SiteId, datagram: &[u8]) {
        let to = self.sites[site.0].outer();
        self.receive(site, from, to, 0, &[datagram.to_vec()]);
    }

    /// A frame comes from the uplink socket of a worker.
    pub fn inject_frame(&mut self, site: SiteId, worker: usize, frame: UdpFrame) {
        let mut frames = [frame];
        let taken = self.sites[site.0].engines[worker].handle_udp(&mut frames, self.now);
        assert_eq!(taken, 1, "a drained engine takes a frame");
        self.drain(site, worker);
    }

    /// Lets time pass: whatever falls due on the way happens, in order.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(due) = self.next_due()
            && due <= end
        {
            let next = due.max(self.now);
            steps = if next > self.now { 0 } else { steps + 1 };
            assert!(steps < STEPS_PER_INSTANT_MAX, "time stands still: {next:?}");
            self.set_now(next);
            let worked = self.step();
            assert!(worked, "something is due and nothing is done");
        }
        self.set_now(end);
        self.assert_books();
    }

    /// Lets time pass until nothing is on the wire.
    pub fn settle(&mut self) {
        while let Some(next) = self.wire.peek().map(|delivery| delivery.at) {
            let wait = next.saturating_duration_since(self.now);
            self.run_for(wait);
        }
        self.assert_books();
    }

    fn next_due(&self) -> Option<Instant> {
        let wire = self.wire.peek().map(|delivery| delivery.at);
        let up = self.sites.iter().filter(|site| site.is_up);
        let timers = up.flat_map(|site| site.engines.iter().filter_map(Engine::poll_timeout));
        timers.chain(wire).chain(self.schedule_due()).min()
    }

    /// Does what is due; `false` when nothing was.
    fn step(&mut self) -> bool {
        let mut worked = false;
        // Before all else: what is sent at the instant of a change meets the change.
        if self.schedule_due().is_some_and(|at| at <= self.now) {
            self.apply_schedule();
            worked = true;
        }
        if self
            .wire
            .peek()
            .is_some_and(|delivery| delivery.at <= self.now)
        {
            self.deliver_train();
            worked = true;
        }
        for id in (0..self.sites.len()).map(SiteId) {
            for worker in 0..self.sites[id.0].engines.len() {
                let site = &mut self.sites[id.0];
                let due = site.engines[worker]
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now);
                if due && site.is_up {
                    site.engines[worker].handle_timeout(self.now);
                    self.drain(id, worker);
                    worked = true;
                }
            }
            self.take_lanes(id);
        }
        worked
    }

    /// What control does with lanes that were agreed.
    fn take_lanes(&mut self, id: SiteId) {
        let events = std::mem::take(&mut self.sites[id.0].events);
        let (agreed, others) = events
            .into_iter()
            .partition(|event| matches!(event, Event::LanesAgreed(..)));
        self.sites[id.0].events = others;
        let agreed: Vec<Event> = agreed;
        for event in agreed {
            let Event::LanesAgreed(peer, lanes) = event else {
                continue;
            };
            let lanes = lanes.into_iter().map(|(worker, lane)| LaneSpec {
                worker,
                lane,
                stats: Arc::default(),
            });
            let lanes = lanes.collect();
            self.edit_peer(id, peer, |spec| spec.lanes = lanes);
        }
    }

    /// Takes the first datagram off the wire, and with it those that follow at the same instant and that GRO
    /// would join: same ends, same length, the last may be shorter.
    fn deliver_train(&mut self) {
        let Some(first) = self.wire.pop() else { return };
        let step = first.bytes.len();
        let (from, to, tos) = (first.from, first.to, first.tos);
        let mut train = vec![first.bytes];
        while let Some(next) = self.wire.peek()
            && next.at <= self.now
            && (next.from, next.to, next.tos) == (from, to, tos)
            && train.len() < GRO_DATAGRAMS_MAX
            && train.last().is_some_and(|last| last.len() == step)
            && next.bytes.len() <= step
            && !next.bytes.is_empty()
            && (train.len() + 1) * step <= FRAME_DATA_MAX
        {
            train.extend(self.wire.pop().map(|delivery| delivery.bytes));
        }
        let Some(Uplink(id, uplink)) = self.uplink_at(to) else {
            self.outside.entry(to).or_default().extend(train);
            return;
        };
        let site = &self.sites[id.0];
        if site.is_up && site.carriers[usize::from(uplink)] {
            self.receive(id, from, to, tos, &train);
        }
    }

    fn receive(
        &mut self,
        id: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        tos: u8,
        train: &[Vec<u8>],
    ) {
        let site = &self.sites[id.0];
        let (uplink, door) = site.door_at(to).expect("the address is the site's");
        let mut frame = udp_frame(from, Some(to.ip()), train);
        frame.tos = tos;
        frame.endpoint.uplink = UplinkId(uplink);
        let worker = match (door, site.steering) {
            (Some(lane), _) => {
                frame.endpoint.door = Door::Lane;
                lane
            }
            (None, Steering::Fixed(worker)) => worker.as_usize(),
            (None, Steering::ByIndex) => steer(&train[0], site.engines.len()),
        };
        self.inject_frame(id, worker, frame);
    }

    /// Takes everything out of an engine, carries what is for siblings to them, and so on.
    fn drain(&mut self, id: SiteId, worker: usize) {
        let mut queue = VecDeque::new();
        self.drain_engine(id, worker, &mut queue);
        while let Some((origin, to, mut handoff)) = queue.pop_front() {
            let to = WorkerId::as_usize(to);
            let taken = self.sites[id.0].engines[to].handle_handoff(&mut handoff, self.now);
            assert!(taken, "a drained engine takes a handoff");
            self.sites[id.0].engines[origin].recycle(handoff);
            self.drain_engine(id, to, &mut queue);
        }
    }

    fn drain_engine(
        &mut self,
        id: SiteId,
        worker: usize,
        queue: &mut VecDeque<(usize, WorkerId, Handoff)>,
    ) {
        let site = &mut self.sites[id.0];
        let engine = &mut site.engines[worker];
        queue.extend(
            engine
                .take_handoffs()
                .map(|(to, handoff)| (worker, to, handoff)),
        );
        while let Some(event) = engine.poll_event() {
            site.events.push(event);
        }
        for write in engine.tun_out().writes() {
            site.delivered.extend(packets_of(&write));
        }
        engine.tun_sent(engine.tun_out().packets(), 0);

        let mut datagrams = Vec::new();
        let (mut sent, mut own) = (0, 0);
        for train in engine.udp_out().trains() {
            let packets = u64::from(train.packets);
            *(if train.own { &mut own } else { &mut sent }) += packets;
            let bytes = engine.udp_out().bytes(train);
            assert_eq!(
                bytes.chunks(train.segment_len).count() as u64,
                packets,
                "{train:?}"
            );
            datagrams.extend(
                bytes
                    .chunks(train.segment_len)
                    .map(|bytes| (train.endpoint, train.tos, bytes.to_vec())),
            );
        }
        engine.udp_sent(sent, own, 0, &[]);
        site.own_captured += own;
        assert!(
            engine.counters().is_balanced(),
            "site {} worker {worker}: {:?}",
            id.0,
            engine.counters()
        );
        for (endpoint, tos, bytes) in datagrams {
            self.transmit(id, worker, endpoint, tos, bytes);
        }
    }

    /// Every engine's balance, every site's, and that what was sent is what was counted.
    fn assert_books(&self) {
        for (at, site) in self.sites.iter().enumerate() {
            let sum = site.counters();
            assert!(sum.is_balanced(), "site {at}: {sum:?}");
            assert_eq!(
                sum.handed_out, sum.handed_in,
                "site {at} lost packets between its workers"
            );
            assert_eq!(
                sum.own_sent, site.own_captured,
                "site {at} miscounts its own messages"
            );
            for engine in &site.engines {
                assert_eq!(
                    engine.published().load(),
                    *engine.counters(),
                    "site {at} publishes late"
                );
            }
        }
    }

    /// The world's clock: it is 2023 when it begins.
    fn clock(&self) -> WallClock {
        WallClock {
            at: self.epoch,
            unix: Duration::from_secs(1_700_000_000),
        }
    }

    fn set_now(&mut self, now: Instant) {
        debug_assert!(now >= self.now, "time flies one way");
        self.now = now;
        self.move_mocked_clock();
    }

    #[cfg(feature = "mock-clock")]
    fn move_mocked_clock(&self) {
        mock_instant::MockClock::set_time(self.now - self.epoch);
    }

    #[cfg(not(feature = "mock-clock"))]
    fn move_mocked_clock(&self) {}
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulated world: seed {:#x}, {:?} after its begin",
                self.seed,
                self.now - self.epoch
            );
        }
    }
}

/// The number under which every site knows another.
pub fn peer_id(site: SiteId) -> PeerId {
    PeerId(site.0 as u32)
}

/// The inner prefixes of a site.
pub fn prefixes_of(site: SiteId) -> Vec<Prefix> {
    let third = site.0 as u16;
    let v6 = [0xfd00, third, 0, 0, 0, 0, 0, 0];
    [
        (IpAddr::from([10, site.0 as u8, 0, 0]), 16),
        (IpAddr::from(v6), 32),
    ]
    .into_iter()
    .filter_map(|(addr, len)| Prefix::new(addr, len))
    .collect()
}
