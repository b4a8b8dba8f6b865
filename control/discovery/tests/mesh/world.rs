//! Many sites in virtual time: LANs, a WAN with NATs, gateways that try to open tunnels, and things that go wrong.
//!
//! A gateway here is WireGuard without its cipher: handshakes to every endpoint, sessions, keepalives, roaming, relaying.
//! Its packets and discovery's take the same ways through the same NATs.

mod gateway;

use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use patronus_discovery::machine::{
    Arrival, Config, Contact, Destination, Door, Event, InterfaceId, LanInterface, Now, PORT,
    Transmit,
};
use patronus_discovery::{
    EndpointKind, Machine, Nonce, RevocationPart, SiteId, Subject, WallTime, WireGuardKey,
};

use crate::nat::{Nat, NatKind};
use crate::network::{Network, Papers, START, TestRng, endpoint, epoch};

pub const WIREGUARD: u16 = 51820;
const HANDSHAKE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
const DEAD_AFTER: Duration = Duration::from_secs(35);
const GATEWAY_TICK: Duration = Duration::from_millis(500);

/// A LAN.
#[derive(Clone, Debug)]
pub struct Lan {
    pub loss: f64,
    pub passes_multicast: bool,
    pub is_v6_only: bool,
    pub latency: Duration,
}

impl Default for Lan {
    fn default() -> Self {
        Self {
            loss: 0.0,
            passes_multicast: true,
            is_v6_only: false,
            latency: Duration::from_micros(300),
        }
    }
}

/// A session between two gateways.
#[derive(Clone, Copy, Debug)]
struct Session {
    remote: Option<SocketAddr>,
    relay: Option<SiteId>,
    own_key: WireGuardKey,
    heard_at: Instant,
    said_at: Instant,
    reported: Option<(Option<SocketAddr>, Option<SiteId>)>,
}

/// What the gateway tries with a peer that has no direct session.
#[derive(Clone, Copy, Debug)]
struct Trying {
    next_at: Instant,
    attempt: Option<Nonce>,
}

/// A site.
pub struct Node {
    pub papers: Papers,
    pub config: Config,
    pub machine: Option<Machine>,
    pub events: Vec<(Duration, Event)>,
    pub skew_ms: i64,
    pub lans: Vec<usize>,
    /// Its address on the WAN: public, or behind a NAT.
    pub wan: Option<IpAddr>,
    pub nat: Option<usize>,
    pub cache: Option<Vec<u8>>,
    pub has_gateway: bool,
    pub sent: u64,
    host: u32,
    sessions: BTreeMap<SiteId, Session>,
    trying: BTreeMap<SiteId, Trying>,
    next_tick: Instant,
    /// When the machine has something to do.
    due: Option<Instant>,
}

/// What a datagram carries.
#[derive(Clone, Debug)]
enum Payload {
    Discovery(Vec<u8>),
    WireGuard(Tunnelled),
}

#[derive(Clone, Debug)]
enum Tunnelled {
    Initiation {
        from: SiteId,
        key: WireGuardKey,
        to_key: WireGuardKey,
    },
    Response {
        from: SiteId,
        own_key: WireGuardKey,
    },
    Keepalive {
        from: SiteId,
    },
    Discovery {
        from: SiteId,
        datagram: Vec<u8>,
    },
    Relayed {
        from: SiteId,
        author: SiteId,
        to: SiteId,
        inner: Box<Tunnelled>,
    },
}

#[derive(Clone, Debug)]
struct Delivery {
    at: Instant,
    order: u64,
    to: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Lan {
        lan: usize,
        source: SocketAddr,
        local: IpAddr,
        payload: Payload,
    },
    Wan {
        source: SocketAddr,
        payload: Payload,
    },
}

impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Delivery {}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Everything.
pub struct World {
    pub network: Network,
    pub nodes: Vec<Node>,
    pub lans: Vec<Lan>,
    pub nats: Vec<Nat>,
    pub wan_loss: f64,
    pub wan_latency: Duration,
    pub rng: TestRng,
    /// Pairs of sites between which the WAN carries nothing.
    pub cuts: Vec<(usize, usize)>,
    begun: Instant,
    now: Instant,
    queue: BinaryHeap<Delivery>,
    order: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let begun = epoch();
        Self {
            network: Network::new(seed),
            nodes: Vec::new(),
            lans: Vec::new(),
            nats: Vec::new(),
            wan_loss: 0.0,
            wan_latency: Duration::from_millis(20),
            rng: TestRng(seed ^ 0x5eed),
            cuts: Vec::new(),
            begun,
            now: begun,
            queue: BinaryHeap::new(),
            order: 0,
        }
    }

    pub fn lan(&mut self, lan: Lan) -> usize {
        self.lans.push(lan);
        self.lans.len() - 1
    }

    pub fn nat(&mut self, kind: NatKind) -> usize {
        let number = self.nats.len() as u8 + 1;
        let public = IpAddr::V4(Ipv4Addr::new(203, 0, 113, number));
        self.nats.push(Nat::new(public, kind));
        self.nats.len() - 1
    }

    /// A site that is off yet.
    pub fn site(&mut self, subject: Subject, lans: &[usize]) -> usize {
        let papers = self.network.site(subject);
        self.site_with(papers, lans)
    }

    pub fn site_with(&mut self, papers: Papers, lans: &[usize]) -> usize {
        let at = self.nodes.len();
        let mut config = self.network.config(&papers);
        let host = at as u32 + 1;
        for lan in lans {
            let is_v6_only = self.lans[*lan].is_v6_only;
            config.lans.push(LanInterface {
                id: InterfaceId(*lan as u32),
                has_v4: !is_v6_only,
                has_v6: is_v6_only,
            });
            let ip = lan_ip(*lan, host, is_v6_only);
            config.own_addresses.insert(ip);
            config
                .endpoints
                .push(endpoint(EndpointKind::Lan, ip, WIREGUARD));
        }
        self.nodes.push(Node {
            papers,
            config,
            machine: None,
            events: Vec::new(),
            skew_ms: 0,
            lans: lans.to_vec(),
            wan: None,
            nat: None,
            cache: None,
            has_gateway: true,
            sent: 0,
            host,
            sessions: BTreeMap::new(),
            trying: BTreeMap::new(),
            next_tick: self.now,
            due: None,
        });
        at
    }

    /// Gives a site a public address.
    pub fn publish(&mut self, at: usize) {
        let host = self.nodes[at].host;
        let ip = IpAddr::V4(Ipv4Addr::new(198, 51, (host >> 8) as u8 + 100, host as u8));
        self.attach(at, ip, None);
    }

    /// Puts a site behind a NAT.
    pub fn hide(&mut self, at: usize, nat: usize) {
        let host = self.nodes[at].host;
        let ip = IpAddr::V4(Ipv4Addr::new(
            10,
            200 + nat as u8,
            (host >> 8) as u8,
            host as u8,
        ));
        self.attach(at, ip, Some(nat));
    }

    fn attach(&mut self, at: usize, ip: IpAddr, nat: Option<usize>) {
        let node = &mut self.nodes[at];
        node.wan = Some(ip);
        node.nat = nat;
        node.config.own_addresses.insert(ip);
        node.config
            .endpoints
            .push(endpoint(EndpointKind::Uplink, ip, WIREGUARD));
    }

    /// Makes a site with a public address a seed of all others.
    pub fn seed_everybody_with(&mut self, seeds: &[usize]) {
        let contacts: Vec<Contact> = seeds
            .iter()
            .map(|at| Contact {
                site: Some(self.nodes[*at].papers.id()),
                address: SocketAddr::new(self.nodes[*at].wan.unwrap(), PORT),
            })
            .collect();
        for node in &mut self.nodes {
            let own = node.papers.id();
            node.config.seeds = contacts
                .iter()
                .copied()
                .filter(|it| it.site != Some(own))
                .collect();
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.begun
    }

    pub fn id(&self, at: usize) -> SiteId {
        self.nodes[at].papers.id()
    }

    fn now_of(&self, at: usize) -> Now {
        let wall = START + self.elapsed();
        let skewed = wall.0.saturating_add_signed(self.nodes[at].skew_ms);
        Now {
            instant: self.now,
            wall: WallTime(skewed),
        }
    }

    /// Switches a site on, with the cache of its last run if it kept one.
    pub fn start(&mut self, at: usize) {
        let now = self.now_of(at);
        let cache = self.nodes[at].cache.take();
        let node = &self.nodes[at];
        let (papers, config) = (node.papers.clone(), node.config.clone());
        let machine = self.network.machine(&papers, config, cache.as_deref(), now);
        let jitter = Duration::from_millis(self.rng.below(500));
        let node = &mut self.nodes[at];
        node.machine = Some(machine);
        node.papers.boot_epoch += 1;
        node.next_tick = self.now + jitter;
        self.collect(at);
    }

    pub fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.start(at));
    }

    /// Pulls the plug; `keeps_cache` says whether its disk survives.
    pub fn kill(&mut self, at: usize, keeps_cache: bool) {
        let node = &mut self.nodes[at];
        if let Some(machine) = node.machine.take() {
            node.papers.wireguard = machine.own_keys();
            node.cache = keeps_cache.then(|| machine.encode_cache());
        }
        node.sessions.clear();
        node.trying.clear();
    }

    pub fn revoke(&mut self, at: usize, part: RevocationPart) {
        let now = self.now_of(at);
        let machine = self.nodes[at].machine.as_mut().unwrap();
        machine.revoke(part, now).unwrap();
        self.collect(at);
    }

    pub fn with_machine<T>(&mut self, at: usize, act: impl FnOnce(&mut Machine, Now) -> T) -> T {
        let now = self.now_of(at);
        let result = act(self.nodes[at].machine.as_mut().unwrap(), now);
        self.collect(at);
        result
    }

    pub fn knows(&self, at: usize, other: usize) -> bool {
        let id = self.id(other);
        let machine = self.nodes[at].machine.as_ref();
        machine.is_some_and(|machine| machine.peers().any(|peer| peer.site == id))
    }

    /// How a site's tunnel to another one goes: `None` for none.
    pub fn path(&self, at: usize, other: usize) -> Option<Path> {
        let session = self.nodes[at].sessions.get(&self.id(other))?;
        Some(match session.relay {
            Some(relay) => Path::Relayed(relay),
            None => Path::Direct,
        })
    }

    pub fn is_up(&self, at: usize) -> bool {
        self.nodes[at].machine.is_some()
    }

    /// Whether every running site has every other running site as a peer.
    pub fn has_converged(&self) -> bool {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.is_up(*at)).collect();
        running.iter().all(|at| {
            let machine = self.nodes[*at].machine.as_ref().unwrap();
            let peers: std::collections::BTreeSet<SiteId> =
                machine.peers().map(|peer| peer.site).collect();
            running
                .iter()
                .all(|other| other == at || peers.contains(&self.id(*other)))
        })
    }

    /// Whether every running site has a tunnel to every other running site.
    pub fn is_meshed(&self) -> bool {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.is_up(*at)).collect();
        running.iter().all(|at| {
            running
                .iter()
                .all(|other| other == at || self.path(*at, *other).is_some())
        })
    }

    /// Runs until the condition holds; how long that took, or `None`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let begun = self.now;
        let step = Duration::from_millis(50);
        while self.now - begun < limit {
            if holds(self) {
                return Some(self.now - begun);
            }
            self.run(step);
        }
        holds(self).then(|| self.now - begun)
    }

    pub fn run(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let delivery = self.queue.peek().map(|it| it.at);
            let timeout = self.next_timeout();
            let next = match (delivery, timeout) {
                (Some(one), Some((other, _))) => one.min(other),
                (Some(one), None) => one,
                (None, Some((other, _))) => other,
                (None, None) => break,
            };
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if delivery == Some(next) {
                let delivery = self.queue.pop().unwrap();
                self.deliver(delivery);
            } else if let Some((_, at)) = timeout {
                self.wake(at);
            }
        }
        self.now = until;
    }

    fn next_timeout(&self) -> Option<(Instant, usize)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(at, node)| {
                let machine = node.due.filter(|_| node.machine.is_some());
                node.machine.as_ref()?;
                let tick = node.has_gateway.then_some(node.next_tick);
                let next = machine.into_iter().chain(tick).min()?;
                Some((next, at))
            })
            .min()
    }

    fn wake(&mut self, at: usize) {
        let now = self.now_of(at);
        let node = &mut self.nodes[at];
        let machine = node.machine.as_mut().unwrap();
        if machine.poll_timeout().is_some_and(|due| due <= now.instant) {
            machine.handle_timeout(now);
        }
        if node.has_gateway && node.next_tick <= now.instant {
            node.next_tick = now.instant + GATEWAY_TICK;
            self.tick_gateway(at);
        }
        self.collect(at);
    }

    fn deliver(&mut self, delivery: Delivery) {
        let at = delivery.to;
        if !self.is_up(at) {
            return;
        }
        match delivery.what {
            What::Lan {
                lan,
                source,
                local,
                payload: Payload::Discovery(datagram),
            } => {
                let arrival = Arrival {
                    door: Door::Lan(InterfaceId(lan as u32)),
                    source,
                    local,
                    is_on_link: true,
                    hop_limit: Some(255),
                };
                self.hand(at, arrival, datagram);
            }
            What::Wan {
                source,
                payload: Payload::Discovery(datagram),
            } => {
                let arrival = Arrival {
                    door: Door::Wan,
                    source,
                    local: self.nodes[at].wan.unwrap(),
                    is_on_link: false,
                    hop_limit: Some(57),
                };
                self.hand(at, arrival, datagram);
            }
            What::Lan {
                source,
                payload: Payload::WireGuard(packet),
                ..
            }
            | What::Wan {
                source,
                payload: Payload::WireGuard(packet),
            } => {
                self.handle_wireguard(at, Some(source), None, packet);
            }
        }
        self.collect(at);
    }

    fn hand(&mut self, at: usize, arrival: Arrival, mut datagram: Vec<u8>) {
        let now = self.now_of(at);
        let machine = self.nodes[at].machine.as_mut().unwrap();
        machine.handle_datagram(arrival, &mut datagram, now);
    }

    /// Takes all outputs of a machine.
    fn collect(&mut self, at: usize) {
        let elapsed = self.elapsed();
        let Node {
            machine: Some(machine),
            events,
            ..
        } = &mut self.nodes[at]
        else {
            return;
        };
        let mut transmits = Vec::new();
        while let Some(transmit) = machine.poll_transmit() {
            transmits.push(transmit);
        }
        let mut wants_key = false;
        while let Some(event) = machine.poll_event() {
            wants_key |= matches!(event, Event::KeyWanted { .. });
            events.push((elapsed, event));
        }
        self.nodes[at].due = self.nodes[at]
            .machine
            .as_ref()
            .and_then(Machine::poll_timeout);
        self.nodes[at].sent += transmits.len() as u64;
        for transmit in transmits {
            self.transmit(at, transmit);
        }
        if wants_key {
            let key = self.network.wireguard_key();
            let now = self.now_of(at);
            self.nodes[at]
                .machine
                .as_mut()
                .unwrap()
                .handle_next_key(key, now)
                .unwrap();
            self.collect(at);
        }
    }

    fn transmit(&mut self, from: usize, transmit: Transmit) {
        let payload = Payload::Discovery(transmit.datagram);
        match transmit.to {
            Destination::Multicast { lan, group } => {
                let lan = lan.0 as usize;
                if !self.lans[lan].passes_multicast {
                    return;
                }
                let members: Vec<usize> = (0..self.nodes.len())
                    .filter(|at| self.nodes[*at].lans.contains(&lan) && self.is_up(*at))
                    .collect();
                for to in members {
                    // A sender hears itself, as with IP_MULTICAST_LOOP.
                    self.send_on_lan(from, to, lan, PORT, group.ip(), payload.clone());
                }
            }
            Destination::Unicast { to, lan: Some(lan) } => {
                self.send_to_lan_address(from, lan.0 as usize, PORT, to, payload);
            }
            Destination::Unicast { to, lan: None } => self.send_on_wan(from, PORT, to, payload),
            Destination::Site(site) => {
                let Payload::Discovery(datagram) = payload else {
                    return;
                };
                let own = self.id(from);
                self.send_in_session(
                    from,
                    site,
                    Tunnelled::Discovery {
                        from: own,
                        datagram,
                    },
                );
            }
        }
    }

    fn send_to_lan_address(
        &mut self,
        from: usize,
        lan: usize,
        port: u16,
        to: SocketAddr,
        payload: Payload,
    ) {
        let is_v6 = self.lans[lan].is_v6_only;
        let owner = self
            .nodes
            .iter()
            .position(|node| node.lans.contains(&lan) && lan_ip(lan, node.host, is_v6) == to.ip());
        if let Some(owner) = owner {
            self.send_on_lan(from, owner, lan, port, to.ip(), payload);
        }
    }

    fn send_on_lan(
        &mut self,
        from: usize,
        to: usize,
        lan: usize,
        port: u16,
        local: IpAddr,
        payload: Payload,
    ) {
        let Lan {
            loss,
            latency,
            is_v6_only,
            ..
        } = self.lans[lan];
        if self.rng.chance(loss) {
            return;
        }
        let source = SocketAddr::new(lan_ip(lan, self.nodes[from].host, is_v6_only), port);
        let at = self.now + latency + Duration::from_micros(self.rng.below(500));
        self.push(
            at,
            to,
            What::Lan {
                lan,
                source,
                local,
                payload,
            },
        );
    }

    fn send_on_wan(&mut self, from: usize, port: u16, to: SocketAddr, payload: Payload) {
        let Some(ip) = self.nodes[from].wan else {
            return;
        };
        let mut source = SocketAddr::new(ip, port);
        let now = self.now;
        let own_nat = self.nodes[from].nat;
        if let Some(nat) = own_nat {
            source = self.nats[nat].outbound(source, to, now);
        }
        let behind = self.nats.iter().position(|nat| nat.public == to.ip());
        let target = match behind {
            Some(nat) => {
                if own_nat == Some(nat) && !self.nats[nat].kind.hairpins {
                    return;
                }
                let Some(inner) = self.nats[nat].inbound(to.port(), source, now) else {
                    return;
                };
                self.nodes
                    .iter()
                    .position(|node| node.nat == Some(nat) && node.wan == Some(inner.ip()))
            }
            // A private address is reached by neighbours behind the same NAT only.
            None => self.nodes.iter().position(|node| {
                node.wan == Some(to.ip()) && (node.nat.is_none() || node.nat == own_nat)
            }),
        };
        let Some(target) = target else { return };
        let is_cut = self.cuts.contains(&(from, target)) || self.cuts.contains(&(target, from));
        if is_cut || self.rng.chance(self.wan_loss) {
            return;
        }
        // Neighbours see each other's inner address.
        let is_neighbour =
            behind.is_none() && own_nat.is_some() && self.nodes[target].nat == own_nat;
        if is_neighbour {
            source = SocketAddr::new(ip, port);
        }
        let jitter = Duration::from_micros(self.rng.below(2000));
        let at = self.now + self.wan_latency + jitter;
        self.push(at, target, What::Wan { source, payload });
    }

    fn push(&mut self, at: Instant, to: usize, what: What) {
        self.order += 1;
        self.queue.push(Delivery {
            at,
            order: self.order,
            to,
            what,
        });
    }
}

/// How a tunnel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Direct,
    Relayed(SiteId),
}

fn lan_ip(lan: usize, host: u32, is_v6: bool) -> IpAddr {
    if is_v6 {
        return IpAddr::V6(Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            0,
            lan as u16 + 1,
            0,
            host as u16,
        ));
    }
    IpAddr::V4(Ipv4Addr::new(192, 168, lan as u8, host as u8))
}

/// The LAN that an address belongs to.
fn lan_net(ip: IpAddr) -> [u8; 14] {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let mut net = [0; 14];
            net[..3].copy_from_slice(&[a, b, c]);
            net
        }
        IpAddr::V6(v6) => {
            let mut net = [0; 14];
            net.copy_from_slice(&v6.octets()[..14]);
            net
        }
    }
}

/// A seed for a test, printed so that a failure can be repeated.
pub fn seed_from_environment(name: &str, default: u64) -> u64 {
    let seed = std::env::var(name).map_or(default, |it| it.parse().expect("a number"));
    println!("{name}={seed}");
    seed
}
