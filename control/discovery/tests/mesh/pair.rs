//! Two machines on one LAN, and somebody between them who can keep, repeat, forge and look.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use patronus_discovery::machine::{
    Arrival, Config, Counters, Destination, Door, Drop, Event, InterfaceId, Now, PORT, Transmit,
};
use patronus_discovery::{Header, Machine, MessageKind, SiteId};

use crate::network::{Network, Papers, START, epoch, lan};

pub const LAN: InterfaceId = InterfaceId(7);

/// A machine under test, with the clock that it is given.
pub struct Bench {
    pub network: Network,
    pub papers: Papers,
    pub machine: Machine,
    pub begun: Instant,
    pub now: Now,
    pub events: Vec<Event>,
}

impl Bench {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    pub fn with(seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut network = Network::new(seed);
        let papers = network.named("under-test");
        let mut config = network.config(&papers);
        config.lans = vec![lan(LAN.0)];
        change(&mut config);
        let begun = epoch();
        let now = Now {
            instant: begun,
            wall: START,
        };
        let machine = network.machine(&papers, config, None, now);
        Self {
            network,
            papers,
            machine,
            begun,
            now,
            events: Vec::new(),
        }
    }

    pub fn pass(&mut self, span: Duration) {
        self.now.instant += span;
        self.now.wall = self.now.wall + span;
    }

    /// Time passes, and the machine does what is due. What it sends is lost.
    pub fn run(&mut self, span: Duration) {
        let until = self.now.instant + span;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            let step = at.saturating_duration_since(self.now.instant);
            self.pass(step);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.pass(until - self.now.instant);
    }

    pub fn drain(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.machine.poll_transmit() {
            sent.push(transmit);
        }
        while let Some(event) = self.machine.poll_event() {
            self.events.push(event);
        }
        sent
    }

    /// A datagram comes from this host of the LAN; what the machine sends because of it.
    pub fn receive(&mut self, from: u8, datagram: &[u8]) -> Vec<Transmit> {
        self.arrive(arrival(from), datagram)
    }

    pub fn arrive(&mut self, arrival: Arrival, datagram: &[u8]) -> Vec<Transmit> {
        self.drain();
        let mut datagram = datagram.to_vec();
        self.machine
            .handle_datagram(arrival, &mut datagram, self.now);
        self.drain()
    }

    pub fn counters(&self) -> Counters {
        *self.machine.counters()
    }

    pub fn dropped(&self, reason: Drop) -> u64 {
        self.machine.counters().dropped(reason)
    }

    pub fn is_peer(&self, site: SiteId) -> bool {
        self.machine.peers().any(|peer| peer.site == site)
    }

    pub fn told(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_it(event)).count()
    }
}

/// Another site of the network, as a machine of its own, on the same LAN.
pub struct Other {
    pub papers: Papers,
    pub machine: Machine,
    pub host: u8,
}

impl Other {
    pub fn new(bench: &mut Bench, name: &str, host: u8) -> Self {
        let papers = bench.network.named(name);
        Self::with(bench, papers, host)
    }

    pub fn with(bench: &mut Bench, papers: Papers, host: u8) -> Self {
        let mut config = bench.network.config(&papers);
        config.lans = vec![lan(LAN.0)];
        let machine = bench.network.machine(&papers, config, None, bench.now);
        Self {
            papers,
            machine,
            host,
        }
    }

    pub fn id(&self) -> SiteId {
        self.papers.id()
    }

    /// Its next announcement, after so much time of its own.
    pub fn announcement_at(&mut self, now: Now) -> Vec<u8> {
        loop {
            let at = self.machine.poll_timeout().unwrap();
            let step = at.saturating_duration_since(now.instant);
            let then = Now {
                instant: now.instant + step,
                wall: now.wall + step,
            };
            self.machine.handle_timeout(then);
            while let Some(transmit) = self.machine.poll_transmit() {
                if kind(&transmit.datagram) == MessageKind::Announce {
                    return transmit.datagram;
                }
            }
        }
    }

    /// What it answers to a datagram.
    pub fn answer(&mut self, datagram: &[u8], now: Now) -> Vec<Vec<u8>> {
        let mut datagram = datagram.to_vec();
        self.machine.handle_datagram(arrival(1), &mut datagram, now);
        let mut sent = Vec::new();
        while let Some(transmit) = self.machine.poll_transmit() {
            sent.push(transmit.datagram);
        }
        sent
    }

    /// Lets the two talk until both have nothing to say, beginning with this datagram of ours.
    pub fn talk(&mut self, bench: &mut Bench, first: &[u8]) {
        let mut to_bench = vec![first.to_vec()];
        for _ in 0..32 {
            let mut to_us = Vec::new();
            for datagram in to_bench.drain(..) {
                to_us.extend(bench.receive(self.host, &datagram));
            }
            for transmit in to_us {
                to_bench.extend(self.answer(&transmit.datagram, bench.now));
            }
            if to_bench.is_empty() {
                return;
            }
        }
        panic!("they talk for ever");
    }

    /// Becomes known to the machine under test.
    pub fn introduce(&mut self, bench: &mut Bench) {
        let announcement = self.announcement_at(bench.now);
        self.talk(bench, &announcement);
        assert!(bench.is_peer(self.id()), "{:?}", bench.events);
    }
}

pub fn address(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, host)), PORT)
}

pub fn arrival(host: u8) -> Arrival {
    Arrival {
        door: Door::Lan(LAN),
        source: address(host),
        local: IpAddr::V4(patronus_discovery::machine::GROUP_V4),
        is_on_link: true,
        hop_limit: Some(1),
    }
}

pub fn kind(datagram: &[u8]) -> MessageKind {
    Header::peek(datagram).unwrap().kind
}

pub fn kinds(sent: &[Transmit]) -> Vec<MessageKind> {
    sent.iter().map(|it| kind(&it.datagram)).collect()
}

pub fn is_to(transmit: &Transmit, host: u8) -> bool {
    matches!(transmit.to, Destination::Unicast { to, .. } if to == address(host))
}
