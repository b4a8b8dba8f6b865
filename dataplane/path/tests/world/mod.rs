//! Two probers and the links between them, in virtual time.

#![allow(dead_code, reason = "every test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use patronus_path::message::{HELLO_LEN, Kind};
use patronus_path::observation::PathProfile;
use patronus_path::prober::UplinkProfile;
use patronus_path::{
    Arrival, Cadence, ClassConfig, Decision, Direction, Hello, Observation, Order, PATHS_MAX,
    PathCounters, PathIndex, PathSpec, PathState, Prober, ProberConfig, Selector, SelectorConfig,
    StateReason, Time,
};

pub const ACTIVE: Duration = Duration::from_millis(50);
pub const PORT: u16 = 51820;
/// What may say something: a hello, and what may follow it.
const HEAD: usize = HELLO_LEN + 16;
/// WireGuard, UDP and IPv4 around a plaintext.
pub const OVERHEAD: usize = 60;

/// One direction between two uplinks.
#[derive(Clone, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Added evenly from nothing to this; packets stay in order where it is below their distance.
    pub jitter: Duration,
    /// Share of packets lost.
    pub loss: f64,
    pub is_cut: bool,
    /// Largest outer IP packet.
    pub mtu: usize,
    /// Bits per second and the longest queue.
    pub rate: Option<(f64, Duration)>,
    /// The port that the far end sees.
    pub nat_port: Option<u16>,
    /// Data is lost, hellos are not.
    pub loses_data: bool,
    pub busy_until: Time,
    pub hellos: u64,
    pub hellos_lost: u64,
    pub data: u64,
    pub data_lost: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            is_cut: false,
            mtu: 1500,
            rate: None,
            nat_port: None,
            loses_data: false,
            busy_until: Time(0),
            hellos: 0,
            hellos_lost: 0,
            data: 0,
            data_lost: 0,
        }
    }
}

#[derive(Clone, Debug)]
enum Parcel {
    Message([u8; HEAD], usize),
    Data(usize),
}

/// One gateway.
pub struct Site {
    pub prober: Prober,
    pub counters: BTreeMap<PathIndex, PathCounters>,
    pub log: Vec<(Time, Observation)>,
    /// Sends data: path, distance of packets, their outer size.
    pub traffic: Option<(PathIndex, Duration, usize)>,
    next_data: Time,
    /// Reads nothing until then.
    pub asleep_until: Time,
    /// What it sent, by kind.
    pub sent: BTreeMap<u8, u64>,
    pub sent_log: Vec<(Time, PathIndex, Kind, usize)>,
    pub calls: u64,
    /// Decides what it sends where, as the engine has it; without one the test says so.
    pub selector: Option<Selector>,
    pub decisions: Vec<Decision>,
    roles: ([u8; PATHS_MAX], u16),
}

pub struct World {
    pub now: Time,
    pub sites: [Site; 2],
    /// By sending site, its uplink, and the uplink of the other one.
    pub links: BTreeMap<(usize, u8, u8), Link>,
    flying: BinaryHeap<Reverse<(Time, u64)>>,
    parcels: BTreeMap<u64, (usize, Arrival, Parcel)>,
    number: u64,
    dice: u64,
    pub keeps_log: bool,
}

pub fn addr(site: usize, uplink: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(192, 0, 2 + site as u8, uplink).into(), PORT)
}

pub fn cadence() -> Cadence {
    Cadence {
        active: ACTIVE,
        idle: Duration::from_secs(1),
        multiplier: 5,
    }
}

pub fn uplink(uplink: u8) -> UplinkProfile {
    UplinkProfile {
        uplink,
        name: format!("wan{uplink}"),
        cost: 10,
        up_bps: None,
        down_bps: None,
        is_metered: false,
        cadence: cadence(),
    }
}

pub fn spec(uplink: u8, remote: SocketAddr) -> PathSpec {
    PathSpec {
        uplink,
        remote,
        profile: PathProfile {
            name: format!("wan{uplink}-{}", remote.ip()),
            uplink,
            remote: None,
            cost: 10,
            capacity_bps: Some(1e9),
            is_metered: false,
        },
        cadence: cadence(),
    }
}

/// A configuration of `site` with `uplinks` uplinks and a path from each to the other site's uplink of that number.
pub fn config(site: usize, uplinks: u8) -> ProberConfig {
    ProberConfig {
        paths: (0..uplinks)
            .map(|up| spec(up, addr(1 - site, up)))
            .collect(),
        uplinks: (0..uplinks).map(uplink).collect(),
        inner_mtu: 1420,
    }
}

impl Site {
    pub fn new(config: ProberConfig, seed: u64, now: Time) -> Self {
        Self {
            prober: Prober::new(config, seed, now),
            counters: BTreeMap::new(),
            log: Vec::new(),
            traffic: None,
            next_data: Time(0),
            asleep_until: Time(0),
            sent: BTreeMap::new(),
            sent_log: Vec::new(),
            calls: 0,
            selector: None,
            decisions: Vec::new(),
            roles: Default::default(),
        }
    }

    /// One that decides by itself.
    pub fn deciding(config: ProberConfig, leads: bool, seed: u64, now: Time) -> Self {
        let selector = SelectorConfig {
            leads,
            ..SelectorConfig::new(ClassConfig::defaults())
        };
        Self {
            selector: Some(Selector::new(selector, now)),
            ..Self::new(config, seed, now)
        }
    }

    pub fn state(&self, path: u8) -> PathState {
        self.prober.state(PathIndex(path)).unwrap().0
    }

    pub fn reason(&self, path: u8) -> StateReason {
        self.prober.state(PathIndex(path)).unwrap().1
    }

    /// When a path took that state, first after `since`.
    pub fn became(&self, path: u8, state: PathState, since: Time) -> Option<Time> {
        self.log.iter().find_map(|(at, seen)| match seen {
            Observation::State(index, became, _) if index.0 == path && *became == state => {
                (*at >= since).then_some(*at)
            }
            _ => None,
        })
    }

    /// Lost and all hellos that were told, in one direction of a path since then.
    pub fn probes(&self, path: u8, direction: Direction, since: Time) -> (u64, u64) {
        self.log
            .iter()
            .filter(|(at, _)| *at >= since)
            .fold((0, 0), |(lost, all), (_, seen)| match seen {
                Observation::Probe(index, way, is_lost) if index.0 == path && *way == direction => {
                    (lost + u64::from(*is_lost), all + 1)
                }
                _ => (lost, all),
            })
    }

    fn drain(&mut self, now: Time, keeps_log: bool) -> Vec<(Arrival, Vec<u8>)> {
        let mut out = Vec::new();
        while self.decide(now, keeps_log) {}
        while let Some(transmit) = self.prober.poll_transmit(now) {
            let ends = self.prober.ends(transmit.path).unwrap();
            assert!(transmit.len >= HELLO_LEN);
            let mut bytes = vec![0; transmit.len];
            transmit.hello.write(&mut bytes);
            if let Some(order) = transmit.order {
                order.write(&mut bytes[HELLO_LEN..]);
            }
            *self.sent.entry(transmit.hello.kind as u8).or_default() += 1;
            self.sent_log
                .push((now, transmit.path, transmit.hello.kind, transmit.len));
            out.push((ends, bytes));
            assert!(out.len() < 1000, "it never ends");
        }
        while self.decide(now, keeps_log) {}
        out
    }

    /// Takes what was seen, and tells the prober what follows; whether there was something.
    fn decide(&mut self, now: Time, keeps_log: bool) -> bool {
        let (mut saw, mut is_news) = (false, false);
        while let Some(seen) = self.prober.poll_observation() {
            saw = true;
            is_news |= !matches!(
                seen,
                Observation::Rtt(..)
                    | Observation::Probe(..)
                    | Observation::Deviation(..)
                    | Observation::Data(..)
            );
            if let Some(selector) = &mut self.selector {
                selector.observe(&seen, now);
            }
            if keeps_log {
                self.log.push((now, seen));
            }
        }
        let Some(selector) = &mut self.selector else {
            return false;
        };
        if selector.poll_timeout().is_some_and(|at| at <= now) {
            selector.handle_timeout(now);
            is_news = true;
        }
        while let Some(decision) = selector.poll_decision() {
            self.decisions.push(decision);
            is_news = true;
        }
        if !is_news {
            return saw;
        }
        let mut roles = ([0; PATHS_MAX], selector.standby());
        for (class, route) in selector.routes().iter().enumerate() {
            for path in [route.path, route.leaving].into_iter().flatten() {
                roles.0[path.as_usize()] |= 1 << class;
            }
        }
        if self.roles != roles {
            self.roles = roles;
            self.prober.set_roles(&roles.0, roles.1, now);
            saw = true;
        }
        self.prober.set_orders(&selector.orders());
        saw
    }

    fn count(&mut self, now: Time) {
        for (path, counters) in &self.counters {
            self.prober.set_counters(*path, *counters, now);
        }
    }
}

impl World {
    /// Two sites with as many uplinks each, the first to the first and so on; all links as `link`.
    pub fn new(uplinks: u8, link: &Link, seed: u64) -> Self {
        Self::with(config(0, uplinks), config(1, uplinks), uplinks, link, seed)
    }

    pub fn with(a: ProberConfig, b: ProberConfig, uplinks: u8, link: &Link, seed: u64) -> Self {
        let now = Time(1_000_000_000);
        let sites = [Site::new(a, seed, now), Site::new(b, seed ^ 0xb, now)];
        Self::of(sites, uplinks, link, seed, now)
    }

    pub fn of(sites: [Site; 2], uplinks: u8, link: &Link, seed: u64, now: Time) -> Self {
        let mut links = BTreeMap::new();
        for site in 0..2 {
            for from in 0..uplinks {
                for to in 0..uplinks {
                    links.insert((site, from, to), link.clone());
                }
            }
        }
        Self {
            now,
            sites,
            links,
            flying: BinaryHeap::new(),
            parcels: BTreeMap::new(),
            number: 0,
            dice: seed,
            keeps_log: true,
        }
    }

    /// Both probe the first path as active ones.
    pub fn activate(&mut self, classes: &[u8]) {
        let now = self.now;
        for site in 0..2 {
            self.sites[site].prober.set_roles(classes, 0, now);
            self.drain(site);
        }
    }

    /// A world whose first path is up and active on both sides.
    pub fn settled(uplinks: u8, link: &Link, seed: u64) -> Self {
        let mut world = Self::new(uplinks, link, seed);
        world.run_for(Duration::from_secs(1));
        world.activate(&[1]);
        world.run_for(Duration::from_secs(4));
        assert_eq!(world.sites[0].state(0), PathState::Up, "seed {seed}");
        assert_eq!(world.sites[1].state(0), PathState::Up, "seed {seed}");
        world
    }

    pub fn share(&mut self) -> f64 {
        self.dice = self
            .dice
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let word = (self.dice ^ (self.dice >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn link(&mut self, site: usize, uplink: u8) -> &mut Link {
        self.links.get_mut(&(site, uplink, uplink)).unwrap()
    }

    pub fn cut(&mut self, uplink: u8, is_cut: bool) {
        self.link(0, uplink).is_cut = is_cut;
        self.link(1, uplink).is_cut = is_cut;
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    pub fn run_until(&mut self, end: Time) {
        loop {
            for site in 0..2 {
                self.drain(site);
            }
            let Some(next) = self.next().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.step();
        }
    }

    /// Runs until something is so; how long it took, `None` where it was not in time.
    pub fn run_till(
        &mut self,
        limit: Duration,
        mut is_so: impl FnMut(&World) -> bool,
    ) -> Option<Duration> {
        let (begin, end) = (self.now, self.now + limit);
        while !is_so(self) {
            for site in 0..2 {
                self.drain(site);
            }
            let next = self.next().filter(|next| *next <= end)?;
            self.now = self.now.max(next);
            self.step();
        }
        Some(self.now.since(begin))
    }

    fn next(&self) -> Option<Time> {
        let mut times = Vec::new();
        if let Some(Reverse((at, number))) = self.flying.peek() {
            let to = self.parcels[number].0;
            times.push((*at).max(self.sites[to].asleep_until));
        }
        for site in &self.sites {
            times.extend(
                site.prober
                    .poll_timeout()
                    .map(|at| at.max(site.asleep_until)),
            );
            let selector = site.selector.as_ref();
            times.extend(selector.and_then(Selector::poll_timeout));
            times.extend(site.traffic.map(|_| site.next_data));
        }
        times.into_iter().min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(Reverse((at, number))) = self.flying.peek().copied() {
            let to = self.parcels[&number].0;
            if at.max(self.sites[to].asleep_until) > now {
                break;
            }
            self.flying.pop();
            let (to, arrival, parcel) = self.parcels.remove(&number).unwrap();
            self.deliver(to, &arrival, parcel);
        }
        for site in 0..2 {
            self.send_data(site);
            let this = &mut self.sites[site];
            let selector = this.selector.as_ref().and_then(Selector::poll_timeout);
            if selector.is_some_and(|at| at <= now) {
                self.drain(site);
            }
            let this = &mut self.sites[site];
            if this.prober.poll_timeout().is_some_and(|at| at <= now) && now >= this.asleep_until {
                this.count(now);
                this.prober.handle_timeout(now);
                this.calls += 1;
                self.drain(site);
            }
        }
    }

    fn deliver(&mut self, to: usize, arrival: &Arrival, parcel: Parcel) {
        let (now, site) = (self.now, &mut self.sites[to]);
        match parcel {
            Parcel::Message(bytes, len) => {
                let hello = Hello::parse(&bytes).unwrap();
                site.count(now);
                let path = site.prober.handle_hello(arrival, &hello, len, now);
                if let (Some(order), Some(_)) = (Order::parse(&bytes[HELLO_LEN..]), path) {
                    site.prober.handle_order(&hello, &order);
                }
                site.calls += 1;
                self.drain(to);
            }
            Parcel::Data(bytes) => {
                if let Some(path) = site.prober.path_of(arrival) {
                    let counters = site.counters.entry(path).or_default();
                    counters.rx_packets += 1;
                    counters.rx_bytes += bytes as u64;
                }
            }
        }
    }

    fn send_data(&mut self, site: usize) {
        while let Some((path, distance, bytes)) = self.sites[site].traffic {
            let this = &mut self.sites[site];
            this.next_data = this
                .next_data
                .max(Time(self.now.0.saturating_sub(1_000_000_000)));
            if this.next_data > self.now {
                return;
            }
            this.next_data = this.next_data + distance;
            let counters = this.counters.entry(path).or_default();
            counters.tx_packets += 1;
            counters.tx_bytes += bytes as u64;
            let Some(ends) = this.prober.ends(path) else {
                return;
            };
            self.carry(site, &ends, Parcel::Data(bytes), bytes);
        }
    }

    pub fn drain(&mut self, site: usize) {
        let (now, keeps_log) = (self.now, self.keeps_log);
        for (ends, bytes) in self.sites[site].drain(now, keeps_log) {
            let mut head = [0; HEAD];
            let known = bytes.len().min(HEAD);
            head[..known].copy_from_slice(&bytes[..known]);
            let parcel = Parcel::Message(head, bytes.len());
            self.carry(site, &ends, parcel, bytes.len() + OVERHEAD);
        }
    }

    fn carry(&mut self, site: usize, ends: &Arrival, parcel: Parcel, bytes: usize) {
        let IpAddr::V4(ip) = ends.remote.ip() else {
            return;
        };
        let to_uplink = ip.octets()[3];
        let chance = (self.share(), self.share());
        let now = self.now;
        let Some(link) = self.links.get_mut(&(site, ends.uplink, to_uplink)) else {
            return;
        };
        let is_hello = matches!(&parcel, Parcel::Message(bytes, _) if Hello::parse(bytes).unwrap().kind == Kind::Hello);
        let is_data = matches!(&parcel, Parcel::Data(_));
        let backlog = link.busy_until.since(now);
        let is_full = link.rate.is_some_and(|(_, longest)| backlog > longest);
        let is_lost = link.is_cut
            || chance.0 < link.loss
            || bytes > link.mtu
            || is_full
            || (link.loses_data && is_data);
        link.hellos += u64::from(is_hello);
        link.hellos_lost += u64::from(is_hello && is_lost);
        link.data += u64::from(is_data);
        link.data_lost += u64::from(is_data && is_lost);
        if is_lost {
            return;
        }
        let mut at = now + link.delay + link.jitter.mul_f64(chance.1);
        if let Some((bps, _)) = link.rate {
            let took = Duration::from_secs_f64(bytes as f64 * 8.0 / bps);
            link.busy_until = link.busy_until.max(now) + took;
            at = at + link.busy_until.since(now);
        }
        let mut remote = addr(site, ends.uplink);
        remote.set_port(link.nat_port.unwrap_or(PORT));
        let arrival = Arrival {
            uplink: to_uplink,
            remote,
            local: Some(addr(1 - site, to_uplink).ip()),
        };
        self.number += 1;
        self.flying.push(Reverse((at, self.number)));
        self.parcels
            .insert(self.number, (1 - site, arrival, parcel));
    }
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
