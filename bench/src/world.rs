//! Sites in memory: the engine under test, the hub, and its peers, the far sites, which are engines too.
//!
//! Plays the kernel between them, on time that is not counted: it copies trains out of one engine and into the buffers
//! of the other, and writes the packets that the TUN would give. What is counted is what a worker of the daemon does
//! with a batch: one reading of the clock, one call of the engine, and reporting the output as sent.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use patronus_engine::stages::StageTimes;
use patronus_engine::{
    Engine, EngineConfig, Generation, PeerId, PeerSpec, PeerStats, Policy, Snapshot,
};
use patronus_packet::{Endpoint, Joining, Prefix, TrainLimits, TunFrame, UdpFrame};
use patronus_tunnel::{Identity, PrivateKey, PublicKey, WallClock, WorkerId};

use crate::traffic::{HUB_HOST, Toward, Traffic};

/// Inner MTU in bytes.
pub const MTU: usize = 1420;
/// Trains as every kernel with `UDP_SEGMENT` takes them: `UDP_MAX_SEGMENTS` before Linux 6.9, less one.
pub const TRAINS: TrainLimits = TrainLimits {
    segments: 63,
    bytes: 65_000,
};
/// Single packets that a far site seals at once: what fills a train.
const FAR_PACKETS: usize = 63;
/// Flow entries of a far site, whose speed does not count.
const FAR_FLOW_SLOTS: usize = 1024;
/// Far above what any bench needs, so that no handshake is answered with a cookie.
pub(crate) const HANDSHAKES_PER_S: u64 = 1 << 40;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Messages that sites exchange before they are called unable to agree.
const MESSAGES_PER_SITE_MAX: usize = 64;
pub(crate) const PORT: u16 = 51_820;

/// What the engine under test did in one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Time it took.
    pub elapsed: Duration,
    /// Packets that it sealed or opened.
    pub packets: u64,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.elapsed += other.elapsed;
        self.packets += other.packets;
    }
}

struct Site {
    engine: Engine,
    addr: SocketAddr,
}

/// A hub, its far sites with their sessions, and the traffic between them.
pub struct World {
    traffic: Traffic,
    hub: Site,
    far: Vec<Site>,
    /// Frames in one call of the engine.
    batch: usize,
    tun_frames: Vec<TunFrame>,
    far_frames: Vec<TunFrame>,
    udp_frames: Vec<UdpFrame>,
    /// Number of the next frame, in each direction.
    next_far: u64,
    next_hub: u64,
}

impl World {
    /// A hub with `sites` peers, sessions with all of them, and all of the traffic's flows in its table.
    /// `batch` is the number of frames that the engine gets in one call.
    ///
    /// # Errors
    /// The engines do not come to terms, or lose packets.
    pub fn new(traffic: Traffic, sites: usize, batch: usize) -> Result<Self> {
        assert!(
            0 < sites && sites <= 1 << 16 && 0 < batch,
            "{sites} sites, {batch} frames"
        );
        let epoch = Instant::now();
        let hub_key = PrivateKey::generate();
        let hub_public = hub_key.public_key();
        let hub_addr = SocketAddr::from(([192, 0, 2, 1], PORT));
        let mut hub_peers = Vec::with_capacity(sites);
        let mut far = Vec::with_capacity(sites);
        for at in 0..sites {
            let key = PrivateKey::generate();
            let network = prefix(Traffic::network_of(at), 24);
            // The far site begins; the hub learns where it is.
            hub_peers.push(peer(at, key.public_key(), None, network));
            let hub_network = prefix(HUB_HOST, 16);
            let to_hub = peer(0, hub_public, Some(hub_addr), hub_network);
            far.push(Site {
                engine: engine(key, vec![to_hub], FAR_FLOW_SLOTS, at as u64, epoch),
                addr: far_addr(at),
            });
        }
        // A quarter full, so that no bucket of eight overflows.
        let flow_slots = (traffic.flows().max(256) * 4).next_power_of_two() as usize;
        let hub = Site {
            engine: engine(hub_key, hub_peers, flow_slots, SEED, epoch),
            addr: hub_addr,
        };
        let far_batch = match traffic.shape().packets() {
            1 => FAR_PACKETS,
            _ => batch,
        };
        let mut world = Self {
            traffic,
            hub,
            far,
            batch,
            tun_frames: frames(batch),
            far_frames: frames(far_batch),
            udp_frames: frames(batch),
            next_far: 0,
            next_hub: 0,
        };
        world.pass_time()?;
        let established = world.hub.engine.counters().handshakes;
        ensure!(
            established == sites as u64,
            "{established} of {sites} far sites have a session"
        );
        world.open_flows()?;
        Ok(world)
    }

    /// The traffic.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Has the hub enforce a policy, or none; its flows are judged again at their next packets.
    pub fn enforce(&mut self, policy: Option<Policy>) {
        let old = self.hub.engine.snapshot();
        let snapshot = Snapshot::new(
            Generation(old.generation().0 + 1),
            old.identity().clone(),
            old.epoch(),
            old.mtu(),
            old.peers().cloned(),
        )
        .with_policy(policy);
        self.hub
            .engine
            .handle_snapshot(Arc::new(snapshot), Instant::now());
    }

    /// Has the hub book its time on stages, or stops that.
    pub fn meter_stages(&mut self, on: bool) {
        self.hub
            .engine
            .meter_stages(on.then_some(clock_ns as fn() -> u64));
    }

    /// Where the hub's time went since then.
    pub fn stage_times(&self) -> Option<StageTimes> {
        self.hub.engine.stage_times()
    }

    /// Flows that lost their place in the hub's table.
    pub fn flows_evicted(&self) -> u64 {
        self.hub.engine.counters().flows_evicted
    }

    /// Has the hub seal one batch of frames.
    ///
    /// # Errors
    /// A packet that was not sealed.
    pub fn seal(&mut self) -> Result<Work> {
        for frame in &mut self.tun_frames {
            self.traffic.fill(frame, self.next_far, Toward::Far);
            self.next_far += 1;
        }
        let mut work = Work::default();
        let mut rest = &mut self.tun_frames[..];
        while !rest.is_empty() {
            let (taken, sealed) = counted_seal(&mut self.hub.engine, rest);
            work += sealed;
            ensure!(
                taken > 0,
                "the hub takes no frame although its outputs are empty"
            );
            rest = &mut rest[taken..];
        }
        let expected = self.batch as u64 * self.traffic.shape().packets();
        ensure!(
            work.packets == expected,
            "the hub sealed {} of {expected} packets; drops: {:?}",
            work.packets,
            self.drops()
        );
        Ok(work)
    }

    /// Has the hub open what far sites sealed: as many datagrams as fill a batch of buffers, or come of a batch of
    /// superpackets.
    ///
    /// # Errors
    /// A packet that was not opened.
    pub fn open(&mut self) -> Result<Work> {
        let mut work = Work::default();
        let mut sealed = 0;
        let mut filled = 0;
        loop {
            let (at, run) = self.fill_far_run();
            let far = &mut self.far[at];
            let mut rest = &mut self.far_frames[..run];
            while !rest.is_empty() {
                let taken = far.engine.handle_tun(rest, Instant::now());
                rest = &mut rest[taken..];
                for train in far.engine.udp_out().trains() {
                    if filled == self.batch {
                        work += open_frames(&mut self.hub.engine, &mut self.udp_frames);
                        filled = 0;
                    }
                    let frame = &mut self.udp_frames[filled];
                    load(
                        frame,
                        far.engine.udp_out().bytes(train),
                        train.segment_len,
                        far.addr,
                    );
                    filled += 1;
                }
                sealed += report_sent(&mut far.engine);
            }
            if filled == self.batch || self.far.len() == 1 {
                break;
            }
        }
        work += open_frames(&mut self.hub.engine, &mut self.udp_frames[..filled]);
        ensure!(
            work.packets == sealed,
            "the hub opened {} of {sealed} packets; drops: {:?}",
            work.packets,
            self.drops()
        );
        Ok(work)
    }

    /// Runs the timers of all sites and lets them exchange what they have to say. To be called about once a second.
    ///
    /// # Errors
    /// They do not stop talking.
    pub fn pass_time(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut wire = VecDeque::new();
        let limit = (self.far.len() + 1) * MESSAGES_PER_SITE_MAX;
        for at in 0..=self.far.len() {
            let site = self.site_mut(at);
            site.engine.handle_timeout(now);
            collect(site, &mut wire);
        }
        let mut frame = UdpFrame::default();
        for _ in 0..limit {
            let Some(letter) = wire.pop_front() else {
                return Ok(());
            };
            load(&mut frame, &letter.bytes, 0, letter.from);
            let to = self.site_at(letter.to);
            to.engine.handle_udp(std::slice::from_mut(&mut frame), now);
            collect(to, &mut wire);
        }
        anyhow::bail!("{limit} messages between sites, and no end");
    }

    /// Every packet in and out of the hub is accounted for, and none was dropped.
    ///
    /// # Errors
    /// What is amiss.
    pub fn check_books(&self) -> Result<()> {
        let counters = self.hub.engine.counters();
        ensure!(
            counters.is_balanced(),
            "the hub's books do not balance: {counters:?}"
        );
        ensure!(
            counters.dropped() == 0,
            "the hub dropped packets: {:?}",
            self.drops()
        );
        Ok(())
    }

    /// One small packet of every flow, through the tunnel and out at the hub.
    fn open_flows(&mut self) -> Result<()> {
        let mut frame = TunFrame::default();
        let mut datagrams = UdpFrame::default();
        for n in 0..self.traffic.flows() {
            self.traffic.open_flow(&mut frame, n, Toward::Hub);
            let far = &mut self.far[self.traffic.site_of(n)];
            far.engine
                .handle_tun(std::slice::from_mut(&mut frame), Instant::now());
            for train in far.engine.udp_out().trains() {
                load(
                    &mut datagrams,
                    far.engine.udp_out().bytes(train),
                    0,
                    far.addr,
                );
            }
            let sealed = report_sent(&mut far.engine);
            let opened = open_frames(&mut self.hub.engine, std::slice::from_mut(&mut datagrams));
            ensure!(
                sealed == 1 && opened.packets == 1,
                "flow {n}: {sealed} sealed, {} opened; drops: {:?}",
                opened.packets,
                self.drops()
            );
        }
        self.check_delivery()
    }

    /// The hub's first frame arrives at its far site.
    fn check_delivery(&mut self) -> Result<()> {
        let now = Instant::now();
        self.traffic.fill(&mut self.tun_frames[0], 0, Toward::Far);
        self.hub.engine.handle_tun(&mut self.tun_frames[..1], now);
        let far = &mut self.far[self.traffic.site_of(0)];
        let mut opened = 0;
        for train in self.hub.engine.udp_out().trains() {
            let mut frame = UdpFrame::default();
            let bytes = self.hub.engine.udp_out().bytes(train);
            load(&mut frame, bytes, train.segment_len, self.hub.addr);
            opened += open_frames(&mut far.engine, std::slice::from_mut(&mut frame)).packets;
        }
        let sealed = report_sent(&mut self.hub.engine);
        ensure!(
            sealed == self.traffic.shape().packets() && opened == sealed,
            "of the hub's first frame {sealed} packets were sealed and {opened} arrived; drops: {:?}",
            self.drops()
        );
        Ok(())
    }

    /// Writes the frames that one far site is to seal next; returns which site, and how many frames.
    fn fill_far_run(&mut self) -> (usize, usize) {
        let at = self.traffic.site_of(self.next_hub);
        // With several far sites each has a turn of one frame: nothing of one train belongs to another.
        let run = match self.far.len() {
            1 => self.far_frames.len(),
            _ => 1,
        };
        for frame in &mut self.far_frames[..run] {
            self.traffic.fill(frame, self.next_hub, Toward::Hub);
            self.next_hub += 1;
        }
        (at, run)
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let drops = self.hub.engine.counters().drops_by_reason();
        drops
            .map(|(reason, packets)| (reason.name(), packets))
            .collect()
    }

    /// The far site with that number; one past the last is the hub.
    fn site_mut(&mut self, at: usize) -> &mut Site {
        match self.far.get_mut(at) {
            Some(site) => site,
            None => &mut self.hub,
        }
    }

    fn site_at(&mut self, addr: SocketAddr) -> &mut Site {
        let far = match addr.ip() {
            IpAddr::V4(v4) if addr != self.hub.addr => v4.to_bits() - FAR_FIRST.to_bits(),
            IpAddr::V4(_) | IpAddr::V6(_) => return &mut self.hub,
        };
        self.site_mut(far as usize)
    }
}

/// A message of a site's own on its way.
struct Letter {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// Takes a site's outputs: messages onto the wire, the rest is forgotten.
fn collect(site: &mut Site, wire: &mut VecDeque<Letter>) {
    let batch = site.engine.udp_out();
    for train in batch.trains() {
        for bytes in batch.bytes(train).chunks(train.segment_len) {
            wire.push_back(Letter {
                from: site.addr,
                to: train.endpoint.remote,
                bytes: bytes.to_vec(),
            });
        }
    }
    report_sent(&mut site.engine);
    let packets = site.engine.tun_out().packets();
    site.engine.tun_sent(packets, 0);
    while site.engine.poll_event().is_some() {}
}

/// Tells the engine that its datagrams are sent; returns how many carried packets.
fn report_sent(engine: &mut Engine) -> u64 {
    let batch = engine.udp_out();
    let own = batch.trains().iter().filter(|train| train.own).count() as u64;
    let packets = batch.packets() - own;
    engine.udp_sent(packets, own, 0, &[]);
    packets
}

/// What a worker does with frames from its TUN, and how many of them the engine took. Never inlined, so that
/// `patronus-icount` can count its instructions and no others.
#[inline(never)]
fn counted_seal(engine: &mut Engine, frames: &mut [TunFrame]) -> (usize, Work) {
    let started = Instant::now();
    let taken = engine.handle_tun(frames, started);
    let packets = report_sent(engine);
    let elapsed = started.elapsed();
    (taken, Work { elapsed, packets })
}

/// What a worker does with frames from its uplink; otherwise as [`counted_seal`].
#[inline(never)]
fn counted_open(engine: &mut Engine, frames: &mut [UdpFrame]) -> (usize, Work) {
    let started = Instant::now();
    let taken = engine.handle_udp(frames, started);
    let packets = engine.tun_out().packets();
    engine.tun_sent(packets, 0);
    let elapsed = started.elapsed();
    (taken, Work { elapsed, packets })
}

/// Has the engine under test open frames.
fn open_frames(engine: &mut Engine, frames: &mut [UdpFrame]) -> Work {
    let mut work = Work::default();
    let mut rest = frames;
    while !rest.is_empty() {
        let (taken, opened) = counted_open(engine, rest);
        work += opened;
        report_sent(engine);
        if taken == 0 {
            break;
        }
        rest = &mut rest[taken..];
    }
    work
}

fn load(frame: &mut UdpFrame, bytes: &[u8], segment_len: usize, from: SocketAddr) {
    frame.buf.storage_mut()[..bytes.len()].copy_from_slice(bytes);
    frame.buf.set_len(bytes.len());
    // As the kernel reports it: a datagram alone is no train.
    frame.segment_len = if segment_len < bytes.len() {
        segment_len
    } else {
        0
    };
    frame.endpoint = Endpoint::from(from);
}

fn engine(
    key: PrivateKey,
    peers: Vec<PeerSpec>,
    flow_slots: usize,
    seed: u64,
    epoch: Instant,
) -> Engine {
    let config = EngineConfig {
        worker: WorkerId(0),
        workers: 1,
        flow_slots,
        seed,
        joining: Joining {
            tcp: true,
            udp: true,
        },
        trains: TRAINS,
    };
    let identity = Arc::new(Identity::new(
        key,
        HANDSHAKES_PER_S,
        WallClock {
            at: epoch,
            unix: Duration::from_secs(1_700_000_000),
        },
    ));
    let specs = peers.into_iter().map(Arc::new);
    let snapshot = Snapshot::new(Generation(1), identity, epoch, MTU, specs);
    Engine::new(config, &Arc::new(snapshot), epoch)
}

fn peer(
    number: usize,
    public_key: PublicKey,
    endpoint: Option<SocketAddr>,
    network: Prefix,
) -> PeerSpec {
    PeerSpec {
        id: PeerId(number as u32),
        public_key,
        preshared_key: None,
        endpoint,
        endpoint_serial: 0,
        allowed_ips: vec![network],
        keepalive: None,
        worker: WorkerId(0),
        stats: Arc::new(PeerStats::default()),
        lanes: Vec::new(),
        paths: Vec::new(),
        board: Arc::default(),
    }
}

/// Nanoseconds since the first call.
pub fn clock_ns() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn prefix(addr: Ipv4Addr, len: u8) -> Prefix {
    Prefix::new(addr.into(), len).expect("an IPv4 prefix has at most 32 bits")
}

fn far_addr(at: usize) -> SocketAddr {
    let addr = Ipv4Addr::from_bits(FAR_FIRST.to_bits() + at as u32);
    SocketAddr::from((addr, PORT))
}

fn frames<T: Default>(count: usize) -> Vec<T> {
    std::iter::repeat_with(T::default).take(count).collect()
}

/// The outer address of the first far site (RFC 2544, appendix C.2.2: for benches).
const FAR_FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Shape;

    #[test]
    fn every_shape_travels_both_ways_and_the_books_balance() {
        for (shape, flows, sites) in [
            (Shape::Packet(64), 1, 1),
            (Shape::Packet(1420), 100, 3),
            (Shape::BULK, 1, 1),
            (Shape::BULK, 5, 5),
        ] {
            let traffic = Traffic::new(shape, flows, sites as u64);
            let mut world = World::new(traffic, sites, 8).unwrap();
            for _ in 0..3 {
                assert_eq!(world.seal().unwrap().packets, 8 * shape.packets());
                assert!(world.open().unwrap().packets >= 8);
            }
            world.pass_time().unwrap();
            world.check_books().unwrap();
            assert_eq!(world.flows_evicted(), 0);
        }
    }

    #[test]
    fn a_stream_is_joined_again_and_flows_that_alternate_are_not() {
        for (flows, writes_max) in [(1, 2), (63, 64)] {
            let traffic = Traffic::new(Shape::Packet(200), flows, 1);
            let mut world = World::new(traffic, 1, 8).unwrap();
            let (at, run) = world.fill_far_run();
            let far = &mut world.far[at];
            far.engine
                .handle_tun(&mut world.far_frames[..run], Instant::now());
            let train = far.engine.udp_out().trains()[0];
            let frame = &mut world.udp_frames[0];
            load(
                frame,
                far.engine.udp_out().bytes(&train),
                train.segment_len,
                far.addr,
            );
            world
                .hub
                .engine
                .handle_udp(&mut world.udp_frames[..1], Instant::now());
            let writes = world.hub.engine.tun_out().writes().count();
            assert!(writes <= writes_max && writes >= flows as usize, "{writes}");
        }
    }
}
