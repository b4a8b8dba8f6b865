//! Paths between whole gateways in the simulator: measured, chosen, left, and what packets see of it.

mod choice;
mod faults;
mod idle;
mod lanes;
mod narrow;
mod random;
mod restart;

use patronus_impair::{Impairment, Loss, Probability};
use patronus_path::observation::PathProfile;
use patronus_path::prober::UplinkProfile;
use patronus_path::{
    Bounds, Cadence, ClassConfig, ClassId, PathIndex, PathSpec, PathState, Scoring,
};

use super::*;
use crate::sim::{Uplink, peer_id};
use crate::{ClassRule, ClassTable, PathEvent, PathStatus, PathsConfig};

const REALTIME: ClassId = ClassId(0);
const DEFAULT: ClassId = ClassId(1);
const BULK: ClassId = ClassId(2);
/// Codepoints (RFC 2474): expedited forwarding, and what may wait.
const EF: u8 = 46;
const CS1: u8 = 8;
/// How long paths take to come up and be measured.
const WARM_UP: Duration = Duration::from_secs(5);

const CADENCE: Cadence = Cadence {
    active: Duration::from_millis(50),
    idle: Duration::from_secs(1),
    multiplier: 5,
};

fn class(
    name: &str,
    scoring: Scoring,
    bounds: Option<[(f64, f64); 3]>,
    protect: bool,
) -> ClassConfig {
    let bound = |at: usize| {
        let (soft, hard) = bounds?[at];
        Some(Bounds { soft, hard })
    };
    ClassConfig {
        name: name.to_owned(),
        latency_ms: bound(0),
        jitter_ms: bound(1),
        loss_pct: bound(2),
        scoring,
        protect,
        prefer: Vec::new(),
    }
}

/// Three classes as in the guide, the first protected or not.
fn classes(protect: bool) -> ClassTable {
    let weighted = Scoring::Weighted {
        latency: 0.3,
        jitter: 0.2,
        loss: 0.5,
    };
    let throughput = Scoring::Throughput { target_bps: 1e7 };
    let by_dscp = |class, dscp: u8| ClassRule {
        class,
        dscp: 1 << dscp,
        ..ClassRule::default()
    };
    ClassTable {
        configs: vec![
            class(
                "realtime",
                Scoring::Voice,
                Some([(150.0, 400.0), (20.0, 60.0), (1.0, 5.0)]),
                protect,
            ),
            class(
                "default",
                weighted,
                Some([(300.0, 1000.0), (80.0, 200.0), (2.0, 15.0)]),
                false,
            ),
            ClassConfig {
                loss_pct: Some(Bounds {
                    soft: 3.0,
                    hard: 20.0,
                }),
                ..class("bulk", throughput, None, false)
            },
        ],
        rules: vec![by_dscp(REALTIME, EF), by_dscp(BULK, CS1)],
        default: DEFAULT,
    }
}

fn uplink(number: u8) -> UplinkProfile {
    UplinkProfile {
        uplink: number,
        name: format!("wan{number}"),
        cost: 0,
        up_bps: None,
        down_bps: None,
        is_metered: false,
        cadence: CADENCE,
    }
}

fn paths_config(uplinks: u8, protect: bool) -> PathsConfig {
    PathsConfig {
        uplinks: (0..uplinks).map(uplink).collect(),
        classes: classes(protect),
    }
}

fn path_spec(number: u8, remote: SocketAddr) -> PathSpec {
    PathSpec {
        uplink: number,
        remote,
        profile: PathProfile {
            name: format!("wan{number}-{remote}"),
            uplink: number,
            remote: None,
            cost: 0,
            capacity_bps: None,
            is_metered: false,
        },
        cadence: CADENCE,
    }
}

/// How a world of paths is made.
#[derive(Clone, Copy)]
struct World {
    sites: usize,
    uplinks: u8,
    workers: usize,
    lanes: bool,
    protect: bool,
}

const TWO_BY_TWO: World = World {
    sites: 2,
    uplinks: 2,
    workers: 1,
    lanes: false,
    protect: false,
};

impl World {
    /// Every site with each other, uplink by uplink: as many paths as uplinks.
    fn build(self, seed: u64) -> Net {
        let options = SiteOptions {
            uplinks: self.uplinks,
            workers: self.workers,
            lanes: self.lanes,
            ..SiteOptions::default()
        };
        let mut net = Net::new(seed);
        let ids: Vec<SiteId> = (0..self.sites).map(|_| net.add_site(options)).collect();
        for id in &ids {
            net.set_paths(*id, paths_config(self.uplinks, self.protect));
        }
        for (at, of) in ids
            .iter()
            .flat_map(|at| ids.iter().map(move |of| (*at, *of)))
        {
            if at != of {
                let remotes = (0..self.uplinks).map(|it| (it, net.site(of).outer_on(it)));
                let paths = remotes.map(|(it, remote)| path_spec(it, remote)).collect();
                let spec = PeerSpec {
                    paths,
                    ..net.spec_of(of)
                };
                net.add_peer(at, spec);
            }
        }
        net
    }

    /// The same, measured for a while under a little traffic.
    fn warm(self, seed: u64) -> Net {
        let mut net = self.build(seed);
        net.run_for(ROUND);
        let mut streams = Streams::both_ways(DEFAULT_DSCP);
        streams.run(&mut net, WARM_UP, Duration::from_millis(20));
        streams.assert_whole();
        net
    }
}

const DEFAULT_DSCP: u8 = 0;

/// A packet with a codepoint.
fn marked(packet: &Packet, dscp: u8) -> Vec<u8> {
    let mut bytes = packet.build();
    bytes[1] = dscp << 2;
    bytes[10..12].fill(0);
    let sum = checksum::sum(&bytes[..20]).finish();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Numbered packets of one flow, one per tick.
struct Stream {
    from: SiteId,
    to: SiteId,
    dscp: u8,
    port: u16,
    sent: u32,
    /// Number and time since the begin of the world of what came.
    came: Vec<(u32, Duration)>,
}

impl Stream {
    fn new(from: SiteId, to: SiteId, dscp: u8, port: u16) -> Self {
        Self {
            from,
            to,
            dscp,
            port,
            sent: 0,
            came: Vec::new(),
        }
    }

    fn packet(&self, number: u32) -> Vec<u8> {
        let packet = Packet {
            ports: (self.port, self.port + 1),
            ..Packet::udp(self.from, self.to, &payload(number, 80))
        };
        marked(&packet, self.dscp)
    }

    fn send(&mut self, net: &mut Net) {
        let packet = self.packet(self.sent);
        net.send(self.from, 0, &packet);
        self.sent += 1;
    }

    /// The longest time without a packet from `since` on, and the packets that came twice or out of order.
    fn gap_since(&self, since: Duration) -> Duration {
        let after = self.came.iter().filter(|(_, at)| *at >= since);
        let times: Vec<Duration> = after.map(|(_, at)| *at).collect();
        let begin = std::iter::once(since).chain(times.iter().copied());
        begin
            .zip(times.iter().copied())
            .map(|(before, after)| after - before)
            .max()
            .expect("nothing came at all")
    }

    fn twice(&self) -> usize {
        let mut numbers: Vec<u32> = self.came.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        let all = numbers.len();
        numbers.dedup();
        all - numbers.len()
    }

    fn is_ordered(&self) -> bool {
        self.came.is_sorted_by_key(|(number, _)| *number)
    }

    fn lost(&self) -> usize {
        self.sent as usize - (self.came.len() - self.twice())
    }
}

/// Several streams at once.
struct Streams(Vec<Stream>);

impl Streams {
    /// A flow has the class of its first packet, so each codepoint has flows of its own.
    fn both_ways(dscp: u8) -> Self {
        let port = u16::from(dscp) * 10;
        Self(vec![
            Stream::new(A, B, dscp, 4000 + port),
            Stream::new(B, A, dscp, 5000 + port),
        ])
    }

    /// Sends a packet of every stream per tick, and takes what comes.
    fn run(&mut self, net: &mut Net, time: Duration, tick: Duration) {
        let end = net.elapsed() + time;
        while net.elapsed() < end {
            for stream in &mut self.0 {
                stream.send(net);
            }
            net.run_for(tick);
            self.take(net);
        }
    }

    fn take(&mut self, net: &mut Net) {
        let mut sites: Vec<SiteId> = self.0.iter().map(|stream| stream.to).collect();
        sites.sort_unstable();
        sites.dedup();
        for site in sites {
            for packet in net.take_delivered(site) {
                let port = u16::from_be_bytes([packet[20], packet[21]]);
                let number = u32::from_be_bytes(
                    packet[28 + MARKER.len()..][..4]
                        .try_into()
                        .expect("four bytes"),
                );
                let from = packet[12 + 1];
                let stream = self.0.iter_mut().find(|stream| {
                    stream.port == port && stream.to == site && stream.from.0 == usize::from(from)
                });
                let stream = stream.expect("a packet of a stream");
                // What the kernel cuts a train of datagrams into has identifiers of its own.
                let sent = stream.packet(number);
                assert_eq!(packet[20..], sent[20..], "a packet changed on its way");
                stream.came.push((number, net.elapsed()));
            }
        }
    }

    /// Lets time pass without sending.
    fn rest(&mut self, net: &mut Net, time: Duration) {
        net.run_for(time);
        self.take(net);
    }

    #[track_caller]
    fn assert_whole(&self) {
        for stream in &self.0 {
            assert_eq!(stream.lost(), 0, "{:?} to {:?}", stream.from, stream.to);
            assert_eq!(stream.twice(), 0);
            assert!(stream.is_ordered());
        }
    }
}

fn board(net: &Net, at: SiteId, of: SiteId) -> Vec<PathStatus> {
    net.site(at).spec(peer_id(of)).board.paths()
}

/// The local uplink that a class uses.
#[track_caller]
fn uplink_of(net: &Net, at: SiteId, of: SiteId, class: ClassId) -> u8 {
    let path = path_of(net, at, of, class).expect("a path");
    let status = board(net, at, of).into_iter().find(|it| it.path == path);
    status.expect("the path is on the board").endpoint.uplink.0
}

fn path_of(net: &Net, at: SiteId, of: SiteId, class: ClassId) -> Option<PathIndex> {
    let routes = net.site(at).spec(peer_id(of)).board.routes();
    routes[class.as_usize()].path
}

fn path_over(net: &Net, at: SiteId, of: SiteId, uplink: u8) -> PathIndex {
    let found = board(net, at, of)
        .into_iter()
        .find(|it| it.endpoint.uplink.0 == uplink);
    found.expect("a path over the uplink").path
}

/// What is done to both directions of the path between the uplinks of one number.
fn set_path(net: &mut Net, uplink: u8, impairment: Impairment) {
    net.set_path_both(Uplink(A, uplink), Uplink(B, uplink), impairment);
}

fn good() -> Impairment {
    Impairment {
        delay: Duration::from_millis(1),
        ..Impairment::default()
    }
}

fn dead() -> Impairment {
    Impairment {
        blackhole: true,
        ..good()
    }
}

fn lossy(percent: f64) -> Impairment {
    let loss = Probability::from_percent(percent).expect("a percentage");
    Impairment {
        loss: Loss::Random(loss),
        ..good()
    }
}

/// Decisions of a site about a class, from events, which are taken.
fn switches(net: &mut Net, at: SiteId, class: ClassId) -> usize {
    let events = std::mem::take(&mut net.site_mut(at).events);
    let decided = events.iter().filter(|event| match event {
        crate::Event::Path(_, PathEvent::Decided(it)) => it.class == class && it.from != it.to,
        _ => false,
    });
    decided.count()
}

#[track_caller]
fn assert_up(net: &Net, at: SiteId, of: SiteId, count: usize) {
    let paths = board(net, at, of);
    let up = paths.iter().filter(|it| it.state == PathState::Up).count();
    assert_eq!(up, count, "{at:?} to {of:?}: {paths:#?}");
}
