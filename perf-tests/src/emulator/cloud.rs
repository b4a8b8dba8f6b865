//! What the emulator does with frames, without sockets and clock: ports around a cloud, a wire for each step of the way.
//!
//! ```text
//! port p ── access wire of p ──> pair wire p->q ──> access wire of q ── port q
//! ```
//!
//! The first and the last are the two directions of an uplink, the middle one is what lies between two uplinks. A frame
//! goes where its Ethernet destination was last seen, or to the port whose prefixes have the IP destination; of two
//! ports, to the other one. ARP and IPv6 neighbour discovery pass all wires at once and unharmed: on a real uplink they
//! end at the provider's first router.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use patronus_impair::{
    Delivery, Dice, Direction, Fate, Heading, Impairment, Schedule, Wire, WireCounters,
};
use patronus_packet::Prefix;

use super::frame::{self, Kind, Mac};

/// A port's number, in the order in which the ports were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub usize);

/// Something that has impairments in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// One uplink, whatever it talks to: a->b is outwards.
    Access(PortId),
    /// What lies between two uplinks.
    Pair(PortId, PortId),
}

/// What the emulator did with frames. Those on their way are in `received` already.
#[derive(Clone, Debug)]
pub struct FrameCounters {
    /// Frames that came in.
    pub received: u64,
    /// Frames that went out, copies included.
    pub sent: u64,
    /// Of those, ARP and neighbour discovery, which pass unharmed.
    pub neighbour: u64,
    /// Dropped: they go to no port, or back to their own.
    pub unroutable: u64,
    /// Dropped: [`FRAMES_MAX`] were on their way.
    pub overflow: u64,
    /// Dropped: the kernel did not take them, as for an interface that is down.
    pub refused: u64,
    /// How much later than due frames with a delay went out, in µs.
    pub late_us: Histogram<u64>,
}

/// Ports and wires.
pub(super) struct Cloud {
    ports: Vec<PortState>,
    /// From port p to port q at p·n + q.
    between: Vec<Wire>,
    stations: HashMap<Mac, usize>,
    due: BinaryHeap<Reverse<Due>>,
    followed: Option<Followed>,
    sequence: u64,
    pub counters: FrameCounters,
}

struct PortState {
    prefixes: Vec<Prefix>,
    outwards: Wire,
    inwards: Wire,
}

struct Followed {
    schedule: Schedule,
    begun: Duration,
    links: Vec<(String, Link, [Impairment; 2])>,
    next: Option<Duration>,
}

/// A frame that waits for the next step of its way.
#[derive(PartialEq, Eq)]
struct Due {
    at: Duration,
    sequence: u64,
    step: Step,
    from: usize,
    to: usize,
    len: usize,
    is_delayed: bool,
    frame: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Between,
    Inwards,
    Out,
}

impl Cloud {
    /// Ports with the prefixes that lie behind them; nothing is impaired.
    pub(super) fn new(ports: Vec<Vec<Prefix>>, seed: u64) -> Self {
        let count = ports.len() as u64;
        let wire = |number| {
            let seed = Dice::for_purpose(seed, number).next_u64();
            Wire::new(Impairment::default(), seed)
        };
        Self {
            between: (0..count * count).map(wire).collect(),
            ports: (0..)
                .zip(ports)
                .map(|(number, prefixes)| PortState {
                    prefixes,
                    outwards: wire(1 << 32 | number),
                    inwards: wire(1 << 33 | number),
                })
                .collect(),
            stations: HashMap::new(),
            due: BinaryHeap::new(),
            followed: None,
            sequence: 0,
            counters: FrameCounters::new(),
        }
    }

    /// All links there are: each port, and each pair of ports once.
    pub(super) fn links(&self) -> Vec<Link> {
        let count = self.ports.len();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        let pairs = pairs.map(|(a, b)| Link::Pair(PortId(a), PortId(b)));
        (0..count)
            .map(|port| Link::Access(PortId(port)))
            .chain(pairs)
            .collect()
    }

    pub(super) fn set(&mut self, link: Link, direction: Direction, impairment: Impairment) {
        for heading in Heading::BOTH {
            if direction.has(heading) {
                self.wire_mut(link, heading).set(impairment);
            }
        }
    }

    pub(super) fn impairment(&self, link: Link, heading: Heading) -> Impairment {
        *self.wire(link, heading).impairment()
    }

    pub(super) fn counters_of(&self, link: Link, heading: Heading) -> WireCounters {
        *self.wire(link, heading).counters()
    }

    /// Has a schedule change links from `now` on, its time 0.
    pub(super) fn follow(&mut self, schedule: Schedule, links: &[(String, Link)], now: Duration) {
        let links = links.iter().map(|(name, link)| {
            let bases = Heading::BOTH.map(|heading| self.impairment(*link, heading));
            (name.clone(), *link, bases)
        });
        self.followed = Some(Followed {
            links: links.collect(),
            schedule,
            begun: now,
            next: Some(Duration::ZERO),
        });
        self.apply_schedule(now);
    }

    fn apply_schedule(&mut self, now: Duration) {
        let Some(mut followed) = self.followed.take() else {
            return;
        };
        let time = now.saturating_sub(followed.begun);
        if followed.next.is_some_and(|next| next <= time) {
            for (name, link, bases) in &followed.links {
                for (heading, base) in Heading::BOTH.into_iter().zip(bases) {
                    let impairment = followed.schedule.impairment_at(time, name, heading, *base);
                    self.wire_mut(*link, heading).set(impairment);
                }
            }
            followed.next = followed.schedule.change_after(time);
        }
        self.followed = Some(followed);
    }

    /// A frame came in from a port; what is to go out at once goes to `out`.
    pub(super) fn receive(
        &mut self,
        port: usize,
        mut frame: Vec<u8>,
        now: Duration,
        out: &mut impl FnMut(usize, &[u8]) -> bool,
    ) {
        self.counters.received += 1;
        self.learn(port, &frame);
        let kind = frame::kind(&frame);
        let Some(to) = self.port_for(port, &frame, kind).filter(|to| *to != port) else {
            self.counters.unroutable += 1;
            return;
        };
        match kind {
            Kind::Neighbour(_) => {
                self.counters.neighbour += 1;
                self.send(to, &frame, out);
            }
            Kind::Other => self.counters.unroutable += 1,
            Kind::Ip { len, .. } => {
                if self.due.len() >= FRAMES_MAX {
                    self.counters.overflow += 1;
                    return;
                }
                frame::complete_checksum(&mut frame);
                let fate = self.ports[port].outwards.offer(len, now);
                let due = Due {
                    at: now,
                    sequence: 0,
                    step: Step::Between,
                    from: port,
                    to,
                    len,
                    is_delayed: false,
                    frame,
                };
                self.go_on(due, fate, Step::Between, now, out);
            }
        }
    }

    /// Does everything that is due at `now`.
    pub(super) fn advance(&mut self, now: Duration, out: &mut impl FnMut(usize, &[u8]) -> bool) {
        self.apply_schedule(now);
        while let Some(Reverse(first)) = self.due.peek()
            && first.at <= now
        {
            let Some(Reverse(due)) = self.due.pop() else {
                return;
            };
            self.step(due, now, out);
        }
    }

    /// When [`advance`](Self::advance) has something to do next.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let frame = self.due.peek().map(|Reverse(due)| due.at);
        let change = self.followed.as_ref().and_then(|followed| {
            let next = followed.next?;
            Some(followed.begun + next)
        });
        frame.into_iter().chain(change).min()
    }

    fn step(&mut self, due: Due, now: Duration, out: &mut impl FnMut(usize, &[u8]) -> bool) {
        let (from, to, len, at) = (due.from, due.to, due.len, due.at);
        match due.step {
            Step::Between => {
                let at_pair = from * self.ports.len() + to;
                let fate = self.between[at_pair].offer(len, at);
                self.go_on(due, fate, Step::Inwards, now, out);
            }
            Step::Inwards => {
                let fate = self.ports[to].inwards.offer(len, at);
                self.go_on(due, fate, Step::Out, now, out);
            }
            Step::Out => {
                if due.is_delayed {
                    let late = now.saturating_sub(at).as_micros();
                    self.counters.late_us.saturating_record(late as u64);
                }
                self.send(to, &due.frame, out);
            }
        }
    }

    /// A wire has decided; `next` comes after it.
    fn go_on(
        &mut self,
        due: Due,
        fate: Fate,
        next: Step,
        now: Duration,
        out: &mut impl FnMut(usize, &[u8]) -> bool,
    ) {
        match fate {
            Fate::Dropped(_) => {}
            Fate::Once(delivery) => self.arrive(due, delivery, next, now, out),
            Fate::Twice([first, copy]) => {
                let twin = Due {
                    frame: due.frame.clone(),
                    ..due
                };
                self.arrive(due, first, next, now, out);
                self.arrive(twin, copy, next, now, out);
            }
        }
    }

    fn arrive(
        &mut self,
        mut due: Due,
        delivery: Delivery,
        next: Step,
        now: Duration,
        out: &mut impl FnMut(usize, &[u8]) -> bool,
    ) {
        if delivery.mark_ce {
            frame::mark_ce(&mut due.frame);
        }
        due.is_delayed |= delivery.at > due.at;
        due.at = delivery.at;
        due.step = next;
        if due.at <= now {
            self.step(due, now, out);
            return;
        }
        self.sequence += 1;
        due.sequence = self.sequence;
        self.due.push(Reverse(due));
    }

    fn send(&mut self, to: usize, frame: &[u8], out: &mut impl FnMut(usize, &[u8]) -> bool) {
        match out(to, frame) {
            true => self.counters.sent += 1,
            false => self.counters.refused += 1,
        }
    }

    fn learn(&mut self, port: usize, frame: &[u8]) {
        let Some((_, source)) = frame::macs(frame) else {
            return;
        };
        if self.stations.len() < STATIONS_MAX || self.stations.contains_key(&source) {
            self.stations.insert(source, port);
        }
    }

    fn port_for(&self, port: usize, frame: &[u8], kind: Kind) -> Option<usize> {
        // Between two ports there is nothing to choose, for multicast neither.
        if self.ports.len() == 2 {
            return Some(1 - port);
        }
        let (destination, _) = frame::macs(frame)?;
        if frame::is_unicast(destination)
            && let Some(port) = self.stations.get(&destination)
        {
            return Some(*port);
        }
        match kind {
            Kind::Neighbour(addr)
            | Kind::Ip {
                destination: addr, ..
            } => self.port_of(addr),
            Kind::Other => None,
        }
    }

    fn port_of(&self, addr: IpAddr) -> Option<usize> {
        let has = |port: &PortState| port.prefixes.iter().any(|prefix| prefix.contains(addr));
        self.ports.iter().position(has)
    }

    fn wire(&self, link: Link, heading: Heading) -> &Wire {
        let count = self.ports.len();
        match (link, heading) {
            (Link::Access(PortId(port)), Heading::AToB) => &self.ports[port].outwards,
            (Link::Access(PortId(port)), Heading::BToA) => &self.ports[port].inwards,
            (Link::Pair(PortId(a), PortId(b)), Heading::AToB) => &self.between[a * count + b],
            (Link::Pair(PortId(a), PortId(b)), Heading::BToA) => &self.between[b * count + a],
        }
    }

    fn wire_mut(&mut self, link: Link, heading: Heading) -> &mut Wire {
        let count = self.ports.len();
        match (link, heading) {
            (Link::Access(PortId(port)), Heading::AToB) => &mut self.ports[port].outwards,
            (Link::Access(PortId(port)), Heading::BToA) => &mut self.ports[port].inwards,
            (Link::Pair(PortId(a), PortId(b)), Heading::AToB) => &mut self.between[a * count + b],
            (Link::Pair(PortId(a), PortId(b)), Heading::BToA) => &mut self.between[b * count + a],
        }
    }
}

impl FrameCounters {
    fn new() -> Self {
        Self {
            received: 0,
            sent: 0,
            neighbour: 0,
            unroutable: 0,
            overflow: 0,
            refused: 0,
            late_us: Histogram::new_with_bounds(1, LATE_US_MAX, 3).expect("the bounds are right"),
        }
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The most frames on their way at once: 100 Mbit/s for 8 s.
pub const FRAMES_MAX: usize = 65_536;
/// The most Ethernet addresses that are learnt.
const STATIONS_MAX: usize = 4096;
const LATE_US_MAX: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use patronus_impair::{DropReason, Loss, Probability};

    use super::super::frame::tests::udp;
    use super::*;

    const ADDRS: [&str; 3] = ["198.18.1.2", "198.18.2.2", "198.18.17.2"];

    fn mac(port: usize) -> Mac {
        [2, 0, 0, 0, 0, port as u8]
    }

    fn cloud() -> Cloud {
        seeded(7)
    }

    fn seeded(seed: u64) -> Cloud {
        let prefix = |addr: &str| vec![addr.parse::<Prefix>().expect("a prefix")];
        let ports = ["198.18.1.0/24", "198.18.2.0/24", "198.18.17.0/24"];
        Cloud::new(ports.map(prefix).to_vec(), seed)
    }

    fn frame(from: usize, to: usize) -> Vec<u8> {
        udp(
            ADDRS[from],
            ADDRS[to],
            (mac(from), mac(to)),
            &[from as u8; 100],
        )
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn delayed(milliseconds: u64) -> Impairment {
        Impairment {
            delay: ms(milliseconds),
            ..Impairment::default()
        }
    }

    /// Runs the cloud until nothing is on its way: who got what, and when.
    fn drain(cloud: &mut Cloud) -> Vec<(Duration, usize, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(at) = cloud.next_due() {
            cloud.advance(at, &mut |to, frame| {
                out.push((at, to, frame.to_vec()));
                true
            });
        }
        out
    }

    #[test]
    fn a_frame_goes_to_the_port_that_has_its_destination_and_unharmed() {
        let mut cloud = cloud();
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let mut got = Vec::new();
            cloud.receive(from, frame(from, to), ms(1), &mut |to, frame| {
                got.push((to, frame.to_vec()));
                true
            });
            assert_eq!(got, [(to, frame(from, to))]);
        }
        assert_eq!((cloud.counters.received, cloud.counters.sent), (3, 3));
    }

    #[test]
    fn a_station_that_spoke_is_found_by_its_ethernet_address() {
        let mut cloud = cloud();
        let mut nobody = |_: usize, _: &[u8]| true;
        cloud.receive(2, frame(2, 0), ms(0), &mut nobody);
        // An address behind no port, by way of the station at port 2.
        let routed = udp(ADDRS[0], "203.0.113.9", (mac(0), mac(2)), &[1; 10]);
        let mut got = Vec::new();
        cloud.receive(0, routed, ms(1), &mut |to, _| {
            got.push(to);
            true
        });
        assert_eq!(got, [2]);
    }

    #[test]
    fn between_two_ports_everything_goes_to_the_other_one() {
        let mut cloud = Cloud::new(vec![Vec::new(), Vec::new()], 1);
        let multicast = udp(ADDRS[0], "224.0.0.5", (mac(0), [1, 0, 0x5e, 0, 0, 5]), &[1]);
        let mut got = Vec::new();
        for (from, frame) in [(0, frame(0, 1)), (1, frame(1, 0)), (0, multicast)] {
            cloud.receive(from, frame, ms(0), &mut |to, _| {
                got.push(to);
                true
            });
        }
        assert_eq!(got, [1, 0, 1]);
    }

    #[test]
    fn what_goes_nowhere_or_back_is_counted() {
        let mut cloud = cloud();
        let mut nobody = |_: usize, _: &[u8]| panic!("nothing goes out");
        let stray = udp(ADDRS[0], "203.0.113.9", (mac(0), mac(9)), &[1; 10]);
        for stray in [stray, frame(0, 0), vec![0xff; 60], vec![1, 2], Vec::new()] {
            cloud.receive(0, stray, ms(0), &mut nobody);
        }
        assert_eq!(cloud.counters.received, 5);
        assert_eq!(cloud.counters.unroutable, 5);
    }

    #[test]
    fn the_delays_of_both_uplinks_and_of_what_lies_between_add_up_in_each_direction() {
        let mut cloud = cloud();
        let [a, b] = [PortId(0), PortId(1)];
        cloud.set(Link::Access(a), Direction::AToB, delayed(1));
        cloud.set(Link::Pair(a, b), Direction::AToB, delayed(10));
        cloud.set(Link::Access(b), Direction::BToA, delayed(100));
        cloud.set(Link::Access(b), Direction::AToB, delayed(1000));
        cloud.set(Link::Access(PortId(2)), Direction::Both, delayed(5000));
        let mut none = |_: usize, _: &[u8]| panic!("nothing goes out at once");
        cloud.receive(0, frame(0, 1), ms(0), &mut none);
        cloud.receive(1, frame(1, 0), ms(0), &mut none);
        let out = drain(&mut cloud);
        assert_eq!(out, [(ms(111), 1, frame(0, 1)), (ms(1000), 0, frame(1, 0))]);
        assert_eq!(cloud.counters.late_us.len(), 2);
        assert_eq!(cloud.counters.late_us.max(), 0);
    }

    #[test]
    fn a_pair_named_from_its_other_end_is_the_same_pair_turned_round() {
        let mut cloud = cloud();
        cloud.set(
            Link::Pair(PortId(1), PortId(0)),
            Direction::BToA,
            delayed(7),
        );
        let there = Link::Pair(PortId(0), PortId(1));
        assert_eq!(cloud.impairment(there, Heading::AToB), delayed(7));
        assert_eq!(
            cloud.impairment(there, Heading::BToA),
            Impairment::default()
        );
        assert_eq!(cloud.links().len(), 6);
    }

    #[test]
    fn a_dead_pair_leaves_the_other_pairs_alive() {
        let mut cloud = cloud();
        let hole = Impairment {
            blackhole: true,
            ..Impairment::default()
        };
        let pair = Link::Pair(PortId(0), PortId(1));
        cloud.set(pair, Direction::AToB, hole);
        let mut got = Vec::new();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            cloud.receive(from, frame(from, to), ms(0), &mut |to, _| {
                got.push(to);
                true
            });
        }
        assert_eq!(got, [0, 2, 1]);
        let counters = cloud.counters_of(pair, Heading::AToB);
        assert_eq!(counters.lost(DropReason::Blackhole), 1);
        assert_eq!(cloud.counters_of(pair, Heading::BToA).delivered, 1);
    }

    #[test]
    fn questions_for_neighbours_pass_a_dead_uplink() {
        let mut cloud = cloud();
        let hole = Impairment {
            blackhole: true,
            ..Impairment::default()
        };
        cloud.set(Link::Access(PortId(0)), Direction::Both, hole);
        let mut arp = [
            &[0xff; 6][..],
            &mac(0),
            &[0x08, 0x06],
            &[0, 1, 8, 0, 6, 4, 0, 1],
        ]
        .concat();
        arp.extend(mac(0));
        arp.extend([198, 18, 1, 2, 0, 0, 0, 0, 0, 0, 198, 18, 2, 2]);
        let mut got = Vec::new();
        cloud.receive(0, arp, ms(0), &mut |to, _| {
            got.push(to);
            true
        });
        assert_eq!(got, [1]);
        assert_eq!(cloud.counters.neighbour, 1);
    }

    #[test]
    fn a_copy_arrives_like_its_original() {
        let mut cloud = cloud();
        let twice = Impairment {
            duplicate: Probability::ALWAYS,
            ..delayed(3)
        };
        cloud.set(Link::Pair(PortId(0), PortId(1)), Direction::Both, twice);
        let mut none = |_: usize, _: &[u8]| panic!("nothing goes out at once");
        cloud.receive(0, frame(0, 1), ms(0), &mut none);
        let out = drain(&mut cloud);
        assert_eq!(out, [(ms(3), 1, frame(0, 1)), (ms(3), 1, frame(0, 1))]);
    }

    #[test]
    fn a_schedule_begins_when_it_is_followed_and_returns_to_what_was_before() {
        let mut cloud = cloud();
        let link = Link::Access(PortId(0));
        cloud.set(link, Direction::Both, delayed(5));
        let text = "[[step]]\nat_s = 1\nfor_s = 2\nlink = \"fiber\"\ndirection = \"a->b\"\n\
                    set = { loss_percent = 100 }\n";
        let schedule = Schedule::parse(text, &["fiber"]).expect("a schedule");
        cloud.follow(schedule, &[("fiber".to_owned(), link)], ms(10_000));
        let mut nobody = |_: usize, _: &[u8]| true;
        let lossy = Impairment {
            loss: Loss::Random(Probability::ALWAYS),
            ..delayed(5)
        };
        for (at, expected) in [(10_500, delayed(5)), (11_000, lossy), (13_000, delayed(5))] {
            if at > 10_500 {
                assert_eq!(cloud.next_due(), Some(ms(at)));
            }
            cloud.advance(ms(at), &mut nobody);
            assert_eq!(
                cloud.impairment(link, Heading::AToB),
                expected,
                "at {at} ms"
            );
            assert_eq!(cloud.impairment(link, Heading::BToA), delayed(5));
        }
        assert_eq!(cloud.next_due(), None);
    }

    #[test]
    fn too_many_frames_on_their_way_are_dropped_and_counted() {
        let mut cloud = cloud();
        cloud.set(Link::Access(PortId(0)), Direction::Both, delayed(50));
        let mut nobody = |_: usize, _: &[u8]| true;
        for _ in 0..FRAMES_MAX + 3 {
            cloud.receive(0, frame(0, 1), ms(0), &mut nobody);
        }
        assert_eq!(cloud.counters.overflow, 3);
        assert_eq!(drain(&mut cloud).len(), FRAMES_MAX);
    }

    #[test]
    fn the_seed_determines_who_is_lost() {
        let survivors = |seed| {
            let mut cloud = seeded(seed);
            let lossy = Impairment {
                loss: Loss::Random(Probability::new(0.5).expect("a chance")),
                ..Impairment::default()
            };
            cloud.set(Link::Pair(PortId(0), PortId(1)), Direction::Both, lossy);
            let mut got = Vec::new();
            for number in 0..200 {
                cloud.receive(0, frame(0, 1), ms(number), &mut |_, _| {
                    got.push(number);
                    true
                });
            }
            got
        };
        assert_eq!(survivors(1), survivors(1));
        assert_ne!(survivors(1), survivors(2));
    }
}
