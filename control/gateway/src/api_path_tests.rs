//! Paths and events over the API, with workers of our own making behind it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use patronus_api::{
    Client, ClientError, EventKind, EventsQuery, GradeView, PathCommand, PathCommandRequest,
    PathStateView, PingRequest,
};
use patronus_engine::{
    Generation, PathEvent, PathOrder, PathStatus, PathsConfig, PeerId, PeerSpec, Snapshot,
};
use patronus_packet::{Endpoint, UplinkId};
use patronus_path::prober::UplinkProfile;
use patronus_path::record::Cause;
use patronus_path::{
    Bandwidth, BandwidthSource, Bounds, CLASSES_MAX, Cadence, ClassConfig, ClassId, Command,
    Decision, PathIndex, PathMetrics, PathState, Route, Scoring, StateReason, Time, trace,
};
use patronus_tunnel::{Identity, PrivateKey, PublicKey, WallClock, WorkerId};

use super::tests::{FakeFacts, Site, dataplane, store};
use super::*;
use crate::path_desk::PathWorkers;

/// Workers that have these paths, and do nothing but remember orders.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) paths: Vec<PathStatus>,
    pub(super) routes: [Route; CLASSES_MAX],
    pub(super) orders: Mutex<Vec<(WorkerId, PathOrder)>>,
    pub(super) lost: AtomicU64,
}

impl PathWorkers for Fake {
    fn paths(&self, spec: &PeerSpec) -> Vec<PathStatus> {
        match spec.id {
            PeerId(0) => self.paths.clone(),
            _ => Vec::new(),
        }
    }

    fn routes(&self, _: &PeerSpec) -> [Route; CLASSES_MAX] {
        self.routes
    }

    fn is_answered(&self, spec: &PeerSpec) -> bool {
        spec.id == PeerId(0)
    }

    fn starved(&self, _: &PeerSpec) -> u64 {
        3
    }

    fn order(&self, worker: WorkerId, order: PathOrder) {
        self.orders.lock().unwrap().push((worker, order));
    }

    fn events_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl PathWorkers for Arc<Fake> {
    fn paths(&self, spec: &PeerSpec) -> Vec<PathStatus> {
        self.as_ref().paths(spec)
    }

    fn routes(&self, spec: &PeerSpec) -> [Route; CLASSES_MAX] {
        self.as_ref().routes(spec)
    }

    fn is_answered(&self, spec: &PeerSpec) -> bool {
        self.as_ref().is_answered(spec)
    }

    fn starved(&self, spec: &PeerSpec) -> u64 {
        self.as_ref().starved(spec)
    }

    fn order(&self, worker: WorkerId, order: PathOrder) {
        self.as_ref().order(worker, order);
    }

    fn events_lost(&self) -> u64 {
        self.as_ref().events_lost()
    }
}

/// `branch` with two paths and `depot` without any, on two workers.
struct Paths {
    site: Site,
    fake: Arc<Fake>,
    desk: Arc<PathDesk>,
    state: Arc<ApiState>,
}

impl Paths {
    fn new(change: impl FnOnce(&mut Fake)) -> Self {
        let mut fake = Fake {
            paths: vec![fiber(), lte()],
            ..Fake::default()
        };
        fake.routes[0].path = Some(PathIndex(0));
        fake.routes[1].path = Some(PathIndex(1));
        fake.routes[1].leaving = Some(PathIndex(0));
        change(&mut fake);
        let fake = Arc::new(fake);
        let desk = PathDesk::new(fake.clone());
        let dataplane = dataplane(Vec::new(), FakeFacts::default());
        let state = ApiState::new(
            live(),
            dataplane,
            History::off("in a test"),
            desk.clone(),
            5,
        );
        Self {
            site: Site::serve(state.clone()),
            fake,
            desk,
            state,
        }
    }

    fn client(&self) -> Client {
        self.site.client()
    }

    fn orders(&self) -> Vec<(WorkerId, PathOrder)> {
        self.fake.orders.lock().unwrap().clone()
    }

    /// Waits until a worker was given that many orders; the last of them.
    fn await_order(&self, number: usize) -> PathOrder {
        let begun = Instant::now();
        loop {
            if let Some((_, order)) = self.orders().get(number - 1) {
                return order.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.orders());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A worker tells control something about `branch`.
    fn told(&self, event: PathEvent) {
        let live = self.state.live();
        let peer = (PeerId(0), "branch");
        self.desk.take(&live.snapshot, peer, event, Instant::now());
    }

    fn command(&self, command: PathCommand, path: Option<&str>, class: Option<&str>) -> Answered {
        let request = PathCommandRequest {
            command,
            path: path.map(str::to_owned),
            class: class.map(str::to_owned),
            dry_run: false,
        };
        self.client().path_command("branch", &request)
    }
}

type Answered = Result<patronus_api::OrderedResponse, ClientError>;

pub(super) fn live() -> Live {
    live_with(&["realtime", "bulk"])
}

/// The same with these classes; the second has what fits no other.
pub(super) fn live_with(classes: &[&str]) -> Live {
    let key = PrivateKey::from_bytes([1; 32]);
    let clock = WallClock {
        at: Instant::now(),
        unix: Duration::ZERO,
    };
    let identity = Arc::new(Identity::new(key, 256, clock));
    let spec = |id: u32, worker: u8| {
        Arc::new(PeerSpec {
            id: PeerId(id),
            public_key: PublicKey::from_bytes([id as u8 + 2; 32]),
            preshared_key: None,
            endpoint: None,
            endpoint_serial: 0,
            allowed_ips: Vec::new(),
            keepalive: None,
            worker: WorkerId(worker),
            stats: Arc::default(),
            lanes: Vec::new(),
            paths: Vec::new(),
            board: Arc::default(),
        })
    };
    let specs = [spec(0, 1), spec(1, 0)];
    let snapshot = Snapshot::new(Generation(1), identity, Instant::now(), 1420, specs);
    let mut paths = PathsConfig {
        uplinks: vec![uplink(0, "fiber", 10, false), uplink(1, "lte", 100, true)],
        ..PathsConfig::default()
    };
    let configs = classes.iter().map(|name| class(name, Scoring::Voice));
    paths.classes.configs = configs.collect();
    paths.classes.default = ClassId(1);
    Live {
        site: "hq".to_owned(),
        snapshot: Arc::new(snapshot.with_paths(paths)),
        peer_names: HashMap::from([
            (PeerId(0), "branch".to_owned()),
            (PeerId(1), "depot".to_owned()),
        ]),
        policy: store().in_force().clone(),
        keep_established: true,
        refusal: Refusal::Reject,
        via: Default::default(),
    }
}

fn uplink(number: u8, name: &str, cost: u16, is_metered: bool) -> UplinkProfile {
    UplinkProfile {
        uplink: number,
        name: name.to_owned(),
        cost,
        up_bps: None,
        down_bps: None,
        is_metered,
        cadence: Cadence {
            active: Duration::from_millis(50),
            idle: Duration::from_secs(1),
            multiplier: 5,
        },
    }
}

fn class(name: &str, scoring: Scoring) -> ClassConfig {
    ClassConfig {
        name: name.to_owned(),
        latency_ms: Some(Bounds {
            soft: 100.0,
            hard: 300.0,
        }),
        jitter_ms: None,
        loss_pct: Some(Bounds {
            soft: 1.0,
            hard: 5.0,
        }),
        scoring,
        protect: false,
        prefer: vec![1],
    }
}

pub(super) fn fiber() -> PathStatus {
    let mut standing = [(4, 0.0); CLASSES_MAX];
    standing[..2].copy_from_slice(&[(0, 92.5), (0, 80.0)]);
    let mut metrics = PathMetrics {
        rtt_fast_ns: Some(200e6),
        rtt_min_ns: Some(10.25e6),
        tx_bps: 12.5e6,
        mtu: Some(1420),
        ..PathMetrics::default()
    };
    metrics.tx_loss.ten_s = Some(0.03);
    metrics.rx_loss.ten_s = Some(0.001);
    metrics.tx_bandwidth = Some(Bandwidth {
        bps: 500e6,
        source: BandwidthSource::Configured,
        age_s: 0.0,
    });
    // What is no number must not reach a reader.
    metrics.rtt_p95_ns = Some(f64::NAN);
    PathStatus {
        path: PathIndex(0),
        endpoint: endpoint("198.51.100.2:51820", 0),
        state: PathState::Up,
        reason: StateReason::Heard,
        state_age_s: 61.5,
        metrics,
        standing,
        is_draining: false,
        tx_packets: 7,
        tx_bytes: 700,
        rx_packets: 8,
        rx_bytes: 800,
    }
}

pub(super) fn lte() -> PathStatus {
    let mut standing = [(4, 0.0); CLASSES_MAX];
    standing[..2].copy_from_slice(&[(1, 40.0), (0, 85.0)]);
    PathStatus {
        path: PathIndex(1),
        endpoint: endpoint("203.0.113.9:51820", 1),
        standing,
        metrics: PathMetrics::default(),
        ..fiber()
    }
}

fn endpoint(remote: &str, uplink: u8) -> Endpoint {
    Endpoint {
        uplink: UplinkId(uplink),
        ..Endpoint::from(remote.parse::<std::net::SocketAddr>().unwrap())
    }
}

fn field_of<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (Option<String>, String) {
    match answer {
        Err(ClientError::Refused(error)) => {
            (error.field, format!("{}: {}", error.error, error.fix))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_are_told_in_the_units_of_people_with_what_each_class_thinks_of_them() {
    let site = Paths::new(|_| ());
    let told = site.client().paths(None).unwrap();
    let names: Vec<&str> = told.peers.iter().map(|it| it.peer.as_str()).collect();
    assert_eq!(names, ["branch", "depot"]);
    assert_eq!(
        (told.peers[1].is_site, told.peers[1].paths.len()),
        (false, 0)
    );
    assert_eq!(told.classes[1].name, "bulk");
    assert!(told.classes[1].is_default && !told.classes[0].is_default);
    assert_eq!(told.classes[0].prefer, ["lte"]);

    let branch = &told.peers[0];
    assert!(branch.is_site);
    assert_eq!(branch.prober_starved, Some(3));
    let bulk = &branch.routes[1];
    assert_eq!((bulk.path, bulk.leaving), (Some(1), Some(0)));
    let path = &branch.paths[0];
    assert_eq!(
        (path.id.as_str(), path.name.as_str()),
        ("branch/0", "fiber-198.51.100.2")
    );
    assert_eq!(
        (path.state, path.reason.as_str()),
        (PathStateView::Up, "heard")
    );
    assert_eq!(
        (path.rtt_ms, path.rtt_min_ms, path.rtt_p95_ms),
        (Some(200.0), Some(10.25), None)
    );
    assert_eq!(
        (path.tx_loss.ten_s_pct, path.tx_jitter_ms),
        (Some(3.0), None)
    );
    assert_eq!(
        (path.cost, path.is_metered, path.mtu),
        (Some(10), false, Some(1420))
    );
    let bandwidth = path.tx_bandwidth.as_ref().unwrap();
    assert_eq!(
        (bandwidth.bps, bandwidth.source.as_str()),
        (500e6, "configured")
    );

    // 200 ms between 100 and 300; 3 % of the worse direction between 1 and 5.
    let realtime = &path.classes[0];
    assert!(realtime.is_used && realtime.why_not.is_none());
    assert_eq!((realtime.tier, realtime.score), (0, 92.5));
    let worth = realtime.utilities;
    assert_eq!(
        (worth.latency, worth.jitter, worth.loss),
        (Some(0.5), None, Some(0.5))
    );
    let why_not = |path: usize, class: usize| branch.paths[path].classes[class].why_not.as_deref();
    assert_eq!(why_not(1, 0), Some("out of bounds, path 0 is in bounds"));
    assert_eq!(
        why_not(0, 1),
        Some("the class prefers the uplink of path 1")
    );
}

#[test]
fn a_path_goes_by_number_by_name_and_by_uplink_and_a_peer_by_name_and_key() {
    let site = Paths::new(|_| ());
    let client = site.client();
    let key = patronus_config::KeyText::to_base64(&PublicKey::from_bytes([2; 32]));
    for (peer, path) in [
        ("branch", "1"),
        ("branch", "lte-203.0.113.9"),
        ("branch", "lte"),
        (key.as_str(), "1"),
    ] {
        let told = client.path(peer, path).unwrap();
        assert_eq!(told.id, "branch/1", "{peer} {path}");
    }
    assert_eq!(client.paths(Some(&key)).unwrap().peers.len(), 1);
}

#[test]
fn what_does_not_exist_is_refused_with_what_does() {
    let site = Paths::new(|fake| {
        let mut second = fiber();
        second.path = PathIndex(2);
        second.endpoint = endpoint("198.51.100.7:51820", 0);
        fake.paths.push(second);
    });
    let client = site.client();
    let (field, text) = field_of(client.path("nobody", "0"));
    assert_eq!(field.as_deref(), Some("peer"));
    assert_eq!(text, "no peer `nobody`: its peers are branch, depot");
    let (field, text) = field_of(client.path("branch", "9"));
    assert_eq!(field.as_deref(), Some("path"));
    assert_eq!(
        text,
        "branch has no path `9`: its paths are 0 fiber-198.51.100.2, 1 lte-203.0.113.9, 2 fiber-198.51.100.7"
    );
    let (_, text) = field_of(client.path("branch", "fiber"));
    assert!(
        text.starts_with("`fiber` names several paths of branch: "),
        "{text}"
    );
    let (_, text) = field_of(client.path("depot", "0"));
    assert!(text.contains("it has none yet"), "{text}");
    let (field, text) = field_of(site.command(PathCommand::Pin, Some("0"), Some("voice")));
    assert_eq!(field.as_deref(), Some("class"));
    assert_eq!(text, "no class `voice`: its classes are bulk, realtime");
    let (field, _) = field_of(site.command(PathCommand::Drain, Some("0"), Some("bulk")));
    assert_eq!(field.as_deref(), Some("class"));
    let (field, _) = field_of(site.command(PathCommand::Drain, None, None));
    assert_eq!(field.as_deref(), Some("path"));
    let (field, _) = field_of(client.paths(Some("no\npeer")));
    assert_eq!(field.as_deref(), Some("peer"));
    assert!(site.orders().is_empty(), "what was refused was not ordered");
}

#[test]
fn orders_go_to_the_worker_that_owns_the_peer_and_are_remembered_with_their_user() {
    let site = Paths::new(|_| ());
    let told = site
        .command(PathCommand::Pin, Some("lte"), Some("realtime"))
        .unwrap();
    assert_eq!(told.text, "pin class realtime to branch/1 lte-203.0.113.9");
    assert!(told.done && told.warnings.is_empty());
    let told = site.command(PathCommand::Clear, Some("0"), None).unwrap();
    assert_eq!(told.text, "clear path branch/0 fiber-198.51.100.2");
    let ordered = |command| (WorkerId(1), PathOrder::Command(PeerId(0), command));
    let pin = Command::Pin(PathIndex(1), Some(ClassId(0)));
    assert_eq!(
        site.orders(),
        [ordered(pin), ordered(Command::Clear(PathIndex(0)))]
    );
    let branch = site.client().paths(Some("branch")).unwrap();
    assert_eq!(branch.peers[0].routes[0].pinned, Some(1));
    assert!(branch.peers[0].paths[1].classes[0].is_pinned);

    let events = site.client().events(&EventsQuery::default()).unwrap();
    assert_eq!(events.events.len(), 2);
    let event = &events.events[0];
    assert_eq!((event.kind, event.path), (EventKind::Command, Some(1)));
    let uid = nix::unistd::getuid().as_raw();
    assert_eq!(
        event.text,
        format!("user {uid} ordered: pin class realtime to branch/1 lte-203.0.113.9")
    );
}

#[test]
fn an_unpin_undoes_what_is_pinned_there_and_a_dry_run_nothing() {
    let site = Paths::new(|_| ());
    let (field, text) = field_of(site.command(PathCommand::Unpin, Some("1"), None));
    assert_eq!(field.as_deref(), Some("path"));
    assert!(text.contains("nothing"), "{text}");
    site.command(PathCommand::Pin, Some("1"), Some("bulk"))
        .unwrap();
    let dry = PathCommandRequest {
        command: PathCommand::Unpin,
        path: None,
        class: None,
        dry_run: true,
    };
    let told = site.client().path_command("branch", &dry).unwrap();
    assert_eq!(
        (told.done, told.text.as_str()),
        (false, "unpin every class of branch")
    );
    assert_eq!(site.orders().len(), 1);
    site.command(PathCommand::Unpin, Some("1"), None).unwrap();
    let unpin = PathOrder::Command(PeerId(0), Command::Unpin(Some(ClassId(1))));
    assert_eq!(site.orders()[1].1, unpin);
    let told = site.client().paths(Some("branch")).unwrap();
    assert_eq!(told.peers[0].routes[1].pinned, None);
    // Every class at once, and back at once.
    site.command(PathCommand::Pin, Some("1"), None).unwrap();
    site.command(PathCommand::Unpin, Some("1"), None).unwrap();
    let unpin = PathOrder::Command(PeerId(0), Command::Unpin(None));
    assert_eq!(site.orders()[3].1, unpin);
}

#[test]
fn a_drain_of_the_last_usable_path_is_taken_with_a_warning() {
    let site = Paths::new(|fake| fake.paths[1].state = PathState::Down);
    let told = site.command(PathCommand::Drain, Some("0"), None).unwrap();
    assert_eq!(
        told.warnings,
        ["it is the last usable path to branch: its traffic stays on it until another one is up"]
    );
    assert_eq!(site.orders().len(), 1);
    let told = site.command(PathCommand::Drain, Some("1"), None).unwrap();
    assert!(told.warnings.is_empty(), "{told:?}");
    let told = site.command(PathCommand::Pin, Some("1"), None).unwrap();
    assert_eq!(
        told.warnings,
        ["the path is down: the pin counts once it is up"]
    );
}

#[test]
fn a_ping_waits_for_its_pong_and_counts_those_that_did_not_come() {
    let site = Paths::new(|_| ());
    let client = site.client();
    let request = PingRequest {
        count: Some(3),
        interval_ms: Some(10),
        timeout_ms: Some(2000),
    };
    let pinged = std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.ping("branch", "0", &request));
        for (number, rtt_ns) in [(1, 10_000_000), (2, 12_500_000)] {
            let ping = PathOrder::Ping(PeerId(0), PathIndex(0));
            assert_eq!(site.await_order(number), ping);
            // Neither another path's nor another peer's.
            site.told(PathEvent::Pong(PathIndex(1), 1));
            site.told(PathEvent::Pong(PathIndex(0), rtt_ns));
        }
        site.await_order(3);
        asked.join().unwrap().unwrap()
    });
    assert_eq!(pinged.rtts_ms, [Some(10.0), Some(12.5), None]);
    assert_eq!(
        (pinged.sent, pinged.received, pinged.loss_pct),
        (3, 2, 33.333)
    );
    let rtts = (pinged.rtt_min_ms, pinged.rtt_avg_ms, pinged.rtt_max_ms);
    assert_eq!(rtts, (Some(10.0), Some(11.25), Some(12.5)));
    assert_eq!(
        (pinged.id.as_str(), pinged.name.as_str()),
        ("branch/0", "fiber-198.51.100.2")
    );
    // One that comes late is nobody's.
    site.told(PathEvent::Pong(PathIndex(0), 1));

    for (count, interval_ms, timeout_ms) in [(0, 10, 10), (100, 10, 200), (1, 1, 10), (1, 10, 0)] {
        let request = PingRequest {
            count: Some(count),
            interval_ms: Some(interval_ms),
            timeout_ms: Some(timeout_ms),
        };
        field_of(client.ping("branch", "0", &request));
    }
}

#[test]
fn bandwidth_is_measured_on_an_unmetered_path_that_is_up() {
    let site = Paths::new(|_| ());
    let client = site.client();
    assert!(client.measure_bandwidth("branch", "0").unwrap().done);
    let order = PathOrder::MeasureBandwidth(PeerId(0), PathIndex(0));
    assert_eq!(site.orders(), [(WorkerId(1), order)]);
    let (_, text) = field_of(client.measure_bandwidth("branch", "1"));
    assert!(text.contains("metered"), "{text}");
    let down = Paths::new(|fake| fake.paths[0].state = PathState::Down);
    let (_, text) = field_of(down.client().measure_bandwidth("branch", "0"));
    assert_eq!(text, "branch/0 is down: wait until it is up");
}

fn decision(to: u8) -> PathEvent {
    PathEvent::Decided(Arc::new(Decision {
        at: Time(7),
        class: ClassId(0),
        class_name: "realtime".to_owned(),
        from: Some(PathIndex(0)),
        to: Some(PathIndex(to)),
        cause: Cause::Sla,
        summary: "realtime moved to lte: loss 3.1 % over 1 %".to_owned(),
        candidates: Vec::new(),
    }))
}

#[test]
fn events_are_numbered_filtered_and_told_once_to_who_follows() {
    let site = Paths::new(|fake| fake.lost = AtomicU64::new(4));
    let client = site.client();
    site.told(PathEvent::Moved(PathIndex(5), endpoint("192.0.2.7:9", 1)));
    site.told(PathEvent::State(
        PathIndex(5),
        PathState::Down,
        StateReason::CarrierLost,
    ));
    site.told(decision(1));
    let all = client.events(&EventsQuery::default()).unwrap();
    assert_eq!(
        (all.events.len(), all.next, all.lost, all.dropped),
        (3, 3, 0, 4)
    );
    let texts: Vec<&str> = all.events.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "path 5 lte-192.0.2.7 goes to 192.0.2.7:9 over lte",
            // The board does not know that path yet: its name is that of the move.
            "path 5 lte-192.0.2.7 is down: the uplink lost its carrier",
            "realtime moved to lte: loss 3.1 % over 1 %",
        ]
    );
    let decision = &all.events[2];
    assert_eq!(
        (decision.class.as_deref(), decision.grade),
        (Some("realtime"), GradeView::Warning)
    );
    assert_eq!(decision.decision.as_ref().unwrap().cause, "sla");
    let count = |query: EventsQuery| client.events(&query).unwrap().events.len();
    let kind = |kind: &str| EventsQuery {
        kind: Some(kind.to_owned()),
        ..EventsQuery::default()
    };
    assert_eq!(
        (count(kind("state,decision")), count(kind("uplink"))),
        (2, 0)
    );
    let peer = |peer: &str| EventsQuery {
        peer: Some(peer.to_owned()),
        ..EventsQuery::default()
    };
    assert_eq!((count(peer("branch")), count(peer("depot"))), (3, 0));
    let since = |since| EventsQuery {
        since: Some(since),
        ..EventsQuery::default()
    };
    // A number from before a restart gets all there is.
    assert_eq!(
        (count(since(2)), count(since(3)), count(since(900))),
        (1, 0, 3)
    );
    for (query, field) in [
        (kind("colour"), "kind"),
        (peer("nobody"), "peer"),
        (
            EventsQuery {
                wait_s: Some(999),
                ..since(0)
            },
            "wait_s",
        ),
    ] {
        assert_eq!(field_of(client.events(&query)).0.as_deref(), Some(field));
    }
}

#[test]
fn who_follows_waits_until_something_happens_that_fits() {
    let site = Paths::new(|_| ());
    let client = site.client();
    let query = EventsQuery {
        since: Some(0),
        kind: Some("decision".to_owned()),
        wait_s: Some(10),
        ..EventsQuery::default()
    };
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.events(&query));
        let begun = Instant::now();
        while !site.desk.has_readers() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        let state = PathEvent::State(PathIndex(0), PathState::Up, StateReason::Heard);
        site.told(state);
        site.told(decision(1));
        asked.join().unwrap().unwrap()
    });
    assert_eq!((answer.events.len(), answer.next), (1, 2));
    assert_eq!(answer.events[0].kind, EventKind::Decision);
}

/// A first line, whatever a selector is made of.
fn begin() -> trace::Line {
    let empty = serde_json::from_str("{}");
    let selector = empty.unwrap_or_else(|_| {
        let config = serde_json::from_str("{\"classes\":[]}").unwrap();
        patronus_path::Selector::new(config, Time(0))
    });
    trace::Line::Begin {
        version: 1,
        peer: "branch".to_owned(),
        at: Time(1),
        selector: Box::new(selector),
    }
}

fn line(line: trace::Line) -> PathEvent {
    PathEvent::Trace(Arc::new(line))
}

#[test]
fn a_recording_has_every_line_from_the_first_on_and_ends_the_tracing() {
    let site = Paths::new(|_| ());
    let client = site.client();
    let (text, second) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut text = Vec::new();
            client.trace("branch", 1, &mut text).map(|_| text)
        });
        assert_eq!(site.await_order(1), PathOrder::Trace(PeerId(0), true));
        let second = client.trace("branch", 1, &mut Vec::new());
        // What belongs to an earlier recording is not part of this one.
        site.told(line(trace::Line::Timeout(Time(0))));
        let mut unnamed = begin();
        if let trace::Line::Begin { peer, .. } = &mut unnamed {
            // As a worker calls it.
            *peer = "0".to_owned();
        }
        site.told(line(unnamed));
        for at in 2..1000 {
            site.told(line(trace::Line::Timeout(Time(at))));
        }
        (asked.join().unwrap().unwrap(), second)
    });
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|it| !it.is_empty());
    let lines: Vec<trace::Line> = lines
        .map(|it| serde_json::from_slice(it).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[0]), (999, &begin()));
    assert_eq!(lines[998], trace::Line::Timeout(Time(999)));
    assert_eq!(site.await_order(2), PathOrder::Trace(PeerId(0), false));
    assert_eq!(field_of(second).0.as_deref(), Some("peer"));
    for seconds in [0, 3601] {
        let refused = client.trace("branch", seconds, &mut Vec::new());
        assert_eq!(field_of(refused).0.as_deref(), Some("seconds"));
    }
}

#[test]
fn a_recording_with_a_hole_does_not_pass_for_a_whole_one() {
    let site = Paths::new(|_| ());
    let client = site.client();
    let cut = std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.trace("branch", 1, &mut Vec::new()));
        site.await_order(1);
        site.told(line(begin()));
        site.fake.lost.store(1, Ordering::Relaxed);
        asked.join().unwrap()
    });
    assert!(matches!(cut, Err(ClientError::Broken { .. })), "{cut:?}");
}

#[test]
fn a_reader_that_is_too_slow_gets_what_fits_and_the_worker_begins_anew_for_the_next_one() {
    let site = Paths::new(|_| ());
    let live = site.state.live();
    let spec = live.snapshot.peer(PeerId(0)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let mut recording = site.desk.record(spec).unwrap();
    site.told(line(begin()));
    for at in 1..20_000 {
        site.told(line(trace::Line::Timeout(Time(at))));
    }
    let mut lines = Vec::new();
    loop {
        let next = runtime.block_on(recording.next());
        if next.is_empty() {
            break;
        }
        lines.extend(next);
    }
    assert_eq!(lines.len(), 8192);
    assert_eq!(*lines[8191], trace::Line::Timeout(Time(8191)));
    // The worker still tells this trace: another one could not begin with its first line.
    assert!(site.desk.record(spec).is_none());
    drop(recording);
    let next = site.desk.record(spec).unwrap();
    let traced = |wanted| (WorkerId(1), PathOrder::Trace(PeerId(0), wanted));
    assert_eq!(site.orders(), [traced(true), traced(false), traced(true)]);
    drop(next);
    assert_eq!(site.orders().last(), Some(&traced(false)));
}

#[test]
fn tracing_ends_when_the_client_goes() {
    let site = Paths::new(|_| ());
    let mut stream = std::os::unix::net::UnixStream::connect(site.site.path()).unwrap();
    let request = "GET /v1/paths/branch/trace?seconds=3600 HTTP/1.1\r\nHost: x\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    assert_eq!(site.await_order(1), PathOrder::Trace(PeerId(0), true));
    drop(stream);
    assert_eq!(site.await_order(2), PathOrder::Trace(PeerId(0), false));
    // Somebody else may record now.
    let mut text = Vec::new();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.client().trace("branch", 1, &mut text));
        assert_eq!(site.await_order(3), PathOrder::Trace(PeerId(0), true));
        asked.join().unwrap().unwrap();
    });
}

#[test]
fn answers_have_the_fields_that_the_description_has() {
    let site = Paths::new(|_| ());
    let client = site.client();
    site.told(decision(1));
    let via = patronus_config::Via {
        prefix: "10.2.0.0/16".parse().unwrap(),
        probes: vec!["10.2.0.10".parse().unwrap()],
        interval: Duration::from_secs(1),
        misses: 5,
        unreachable: patronus_config::WhenUnreachable::Send,
    };
    let plan = crate::via::ViaPlan {
        checks: vec![(PublicKey::from_bytes([2; 32]), via)],
        own_addrs: Vec::new(),
    };
    let mut checks = crate::via::Checks::default();
    checks.configure(&plan, Instant::now());
    site.desk.set_vias(checks.iter());
    let document: serde_json::Value = serde_json::from_str(patronus_api::OPENAPI).unwrap();
    let check = |name: &str, value: &serde_json::Value| {
        let schema = &document["components"]["schemas"][name];
        let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let told: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(described, told, "{name}");
    };
    let told = serde_json::to_value(client.paths(None).unwrap()).unwrap();
    check("Paths", &told);
    check("Class", &told["classes"][0]);
    let peer = &told["peers"][0];
    check("PeerPaths", peer);
    check("ClassRoute", &peer["routes"][0]);
    check("Via", &peer["vias"][0]);
    let text = "never answered: asks 10.2.0.10";
    assert_eq!(
        (&peer["vias"][0]["state"], &peer["vias"][0]["text"]),
        (&"unknown".into(), &text.into())
    );
    let path = &peer["paths"][0];
    check("Path", path);
    check("Loss", &path["tx_loss"]);
    check("Bandwidth", &path["tx_bandwidth"]);
    check("Standing", &path["classes"][0]);
    check("Utilities", &path["classes"][0]["utilities"]);
    let ordered = site.command(PathCommand::Clear, Some("0"), None).unwrap();
    check("Ordered", &serde_json::to_value(ordered).unwrap());
    let request = PingRequest {
        timeout_ms: Some(1),
        ..PingRequest::default()
    };
    let pinged = client.ping("branch", "0", &request).unwrap();
    check("Pinged", &serde_json::to_value(pinged).unwrap());
    let events = client.events(&EventsQuery::default()).unwrap();
    let events = serde_json::to_value(events).unwrap();
    check("Events", &events);
    check("Event", &events["events"][0]);
    check("Decision", &events["events"][0]["decision"]);
    check(
        "PathCommandRequest",
        &serde_json::json!({
            "command": "pin", "path": null, "class": null, "dry_run": false
        }),
    );
    check("PingRequest", &serde_json::to_value(request).unwrap());
}

/// How long anything may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
