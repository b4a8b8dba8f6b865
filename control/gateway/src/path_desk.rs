//! Where control and the local API meet about paths: orders go out to the workers that own the peers, and what
//! workers tell goes to whoever waits for it.
//!
//! Pongs go to those who ping, lines of a trace to the one who records, everything else into the [`EventLog`]. Called by
//! the daemon for every event of a worker and by API handlers; every queue in it is bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use patronus_engine::{
    PathEvent, PathOrder, PathStatus, PeerId, PeerSpec, PublishedCounters, Snapshot,
};
use patronus_packet::{Endpoint, UplinkId};
use patronus_path::{CLASSES_MAX, Command, PathIndex, PathSpec, Route, Time, trace};
use patronus_tunnel::{PublicKey, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::exchange::{Exchange, Order};
use crate::path_events::{About, EventLog, Page, Record, What};
use crate::via::{Check, ViaState};

/// Lines of a trace that wait for their reader.
const TRACE_LINES_MAX: usize = 8192;

/// What workers tell of paths and take as orders.
pub trait PathWorkers: Send + Sync {
    /// The paths of a peer.
    fn paths(&self, spec: &PeerSpec) -> Vec<PathStatus>;
    /// Where its classes go.
    fn routes(&self, spec: &PeerSpec) -> [Route; CLASSES_MAX];
    /// Whether it answers hellos.
    fn is_answered(&self, spec: &PeerSpec) -> bool;
    /// Times that the worker that probes it was late.
    fn starved(&self, spec: &PeerSpec) -> u64;
    /// Gives an order to a worker.
    fn order(&self, worker: WorkerId, order: PathOrder);
    /// Events that never reached control.
    fn events_lost(&self) -> u64;
}

/// The workers of a running gateway.
#[derive(Debug)]
pub struct Workers {
    /// Their mailboxes.
    pub exchange: Arc<Exchange>,
    /// Their counters.
    pub published: Vec<Arc<PublishedCounters>>,
}

impl PathWorkers for Workers {
    fn paths(&self, spec: &PeerSpec) -> Vec<PathStatus> {
        spec.board.paths()
    }

    fn routes(&self, spec: &PeerSpec) -> [Route; CLASSES_MAX] {
        spec.board.routes()
    }

    fn is_answered(&self, spec: &PeerSpec) -> bool {
        spec.board.is_answered()
    }

    fn starved(&self, spec: &PeerSpec) -> u64 {
        spec.board.starved()
    }

    fn order(&self, worker: WorkerId, order: PathOrder) {
        self.exchange.order(worker, Order::Path(order));
    }

    fn events_lost(&self) -> u64 {
        let lost = self.published.iter().map(|it| it.load().events_lost);
        lost.sum()
    }
}

/// Which class is pinned to which path, by class.
pub type Pins = [Option<PathIndex>; CLASSES_MAX];

/// Those who wait for a round trip, in nanoseconds.
type Waiting = Vec<oneshot::Sender<u64>>;

/// One who records.
struct Traced {
    /// Tells this recording from a later one of a peer that got the same number.
    serial: u64,
    /// `None` once a line did not fit: a trace has no holes.
    lines: Option<mpsc::Sender<Arc<trace::Line>>>,
    /// Whether its first line came; until then lines may be those of an earlier recording.
    has_begun: bool,
}

/// The desk of one gateway.
pub struct PathDesk {
    workers: Box<dyn PathWorkers>,
    log: Mutex<EventLog>,
    /// The number of the last event.
    news: watch::Sender<u64>,
    pings: Mutex<HashMap<(PeerId, PathIndex), Waiting>>,
    traces: Mutex<HashMap<PeerId, Traced>>,
    /// Recordings so far.
    recordings: AtomicU64,
    /// What operators ordered since the start; workers keep the same and tell nobody.
    pins: Mutex<HashMap<PublicKey, Pins>>,
    names: Mutex<HashMap<(PeerId, PathIndex), String>>,
    /// How prefixes behind peers answer.
    vias: Mutex<Vec<Check>>,
}

impl PathDesk {
    /// A desk where nothing happened yet.
    pub fn new(workers: impl PathWorkers + 'static) -> Arc<Self> {
        Arc::new(Self {
            workers: Box::new(workers),
            log: Mutex::default(),
            news: watch::Sender::new(0),
            pings: Mutex::default(),
            traces: Mutex::default(),
            recordings: AtomicU64::new(0),
            pins: Mutex::default(),
            names: Mutex::default(),
            vias: Mutex::default(),
        })
    }

    /// The workers.
    pub fn workers(&self) -> &dyn PathWorkers {
        self.workers.as_ref()
    }

    /// A worker told something about a path. What is to be remembered comes back as it was.
    pub fn take(
        &self,
        snapshot: &Snapshot,
        peer: (PeerId, &str),
        event: PathEvent,
        now: Instant,
    ) -> Option<Arc<Record>> {
        let (id, name) = peer;
        let (path, what) = match event {
            PathEvent::Pong(path, rtt_ns) => {
                self.pong(id, path, rtt_ns);
                return None;
            }
            PathEvent::Trace(line) => {
                self.trace_line(id, named(line, name));
                return None;
            }
            PathEvent::Moved(path, endpoint) => {
                let uplink = uplink_name(snapshot, endpoint.uplink);
                let name = match snapshot.peer(id) {
                    Some(spec) => path_name(snapshot, spec, &endpoint),
                    None => uplink.clone(),
                };
                lock(&self.names).insert((id, path), name);
                (Some(path), What::Moved(endpoint, uplink))
            }
            PathEvent::State(path, state, reason) => (Some(path), What::State(state, reason)),
            PathEvent::Decided(decision) => (decision.to, What::Decided(decision)),
        };
        let path = path.map(|path| (path, self.name_of(snapshot, id, path)));
        let about = About {
            peer: Some(name.to_owned()),
            path,
        };
        Some(self.put(snapshot, about, what, now))
    }

    /// Remembers that something happened.
    pub fn put(&self, snapshot: &Snapshot, about: About, what: What, now: Instant) -> Arc<Record> {
        let at = Time::from(now.saturating_duration_since(snapshot.epoch()));
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = unix.unwrap_or_default().as_millis();
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let record = lock(&self.log).put(at, unix_ms, about, what);
        self.news.send_replace(record.number);
        record
    }

    /// The events after a number.
    pub fn events_after(&self, since: u64) -> Page {
        lock(&self.log).after(since)
    }

    /// The last events.
    pub fn events_last(&self, count: usize) -> Page {
        lock(&self.log).last(count)
    }

    /// Wakes with every event.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Whether somebody waits for events.
    #[cfg(test)]
    pub fn has_readers(&self) -> bool {
        self.news.receiver_count() > 0
    }

    /// Sends a hello on a path; the round trip in nanoseconds comes to the receiver, if it comes back.
    pub fn ping(&self, spec: &PeerSpec, path: PathIndex) -> oneshot::Receiver<u64> {
        let (sender, receiver) = oneshot::channel();
        let mut pings = lock(&self.pings);
        let waiting = pings.entry((spec.id, path)).or_default();
        // Those who do not wait any more make room.
        waiting.retain(|it| !it.is_closed());
        waiting.push(sender);
        drop(pings);
        self.workers
            .order(spec.worker, PathOrder::Ping(spec.id, path));
        receiver
    }

    /// Has a path's bandwidth measured.
    pub fn measure_bandwidth(&self, spec: &PeerSpec, path: PathIndex) {
        let order = PathOrder::MeasureBandwidth(spec.id, path);
        self.workers.order(spec.worker, order);
    }

    /// Begins to record a peer's paths; `None` while somebody else does.
    pub fn record(self: &Arc<Self>, spec: &PeerSpec) -> Option<Recording> {
        let (sender, lines) = mpsc::channel(TRACE_LINES_MAX);
        let mut traces = lock(&self.traces);
        if traces.contains_key(&spec.id) {
            return None;
        }
        let serial = self.recordings.fetch_add(1, Ordering::Relaxed);
        let traced = Traced {
            serial,
            lines: Some(sender),
            has_begun: false,
        };
        traces.insert(spec.id, traced);
        drop(traces);
        let recording = Recording {
            desk: self.clone(),
            peer: spec.id,
            worker: spec.worker,
            serial,
            lines,
            lost_before: self.workers.events_lost(),
        };
        let order = PathOrder::Trace(spec.id, true);
        self.workers.order(spec.worker, order);
        Some(recording)
    }

    /// Gives an operator's command to the worker that owns the peer, and remembers pins.
    pub fn command(&self, spec: &PeerSpec, command: Command) {
        let mut all = lock(&self.pins);
        let pins = all.entry(spec.public_key).or_default();
        let (class, pin) = match command {
            Command::Pin(path, class) => (class, Some(path)),
            Command::Unpin(class) => (class, None),
            Command::Drain(_) | Command::Undrain(_) | Command::Clear(_) => {
                drop(all);
                let order = PathOrder::Command(spec.id, command);
                return self.workers.order(spec.worker, order);
            }
        };
        match class {
            None => pins.fill(pin),
            Some(class) => {
                if let Some(place) = pins.get_mut(class.as_usize()) {
                    *place = pin;
                }
            }
        }
        drop(all);
        let order = PathOrder::Command(spec.id, command);
        self.workers.order(spec.worker, order);
    }

    /// The pins of a peer.
    pub fn pins(&self, spec: &PeerSpec) -> Pins {
        let pins = lock(&self.pins).get(&spec.public_key).copied();
        pins.unwrap_or_default()
    }

    /// How the prefixes behind all peers answer; replaces what was known.
    pub fn set_vias<'a>(&self, checks: impl Iterator<Item = &'a Check>) {
        *lock(&self.vias) = checks.cloned().collect();
    }

    /// How the prefixes behind a peer answer.
    pub fn vias(&self, spec: &PeerSpec) -> Vec<Check> {
        let vias = lock(&self.vias);
        let own = vias.iter().filter(|check| check.peer == spec.public_key);
        own.cloned().collect()
    }

    /// Prefixes that do not answer, of all peers.
    pub fn unreachable(&self) -> usize {
        let vias = lock(&self.vias);
        let out = vias.iter().filter(|it| it.state == ViaState::Unreachable);
        out.count()
    }

    /// Forgets what was known of peers that are gone: their numbers may name others.
    pub fn forget_absent(&self, snapshot: &Snapshot) {
        lock(&self.pins).retain(|key, _| snapshot.peer_by_key(key).is_some());
        let is_there = |id: PeerId| snapshot.peer(id).is_some();
        lock(&self.names).retain(|(id, _), _| is_there(*id));
        lock(&self.pings).retain(|(id, _), _| is_there(*id));
        // Its channel closes, and with it the recording.
        lock(&self.traces).retain(|id, _| is_there(*id));
    }

    fn pong(&self, peer: PeerId, path: PathIndex, rtt_ns: u64) {
        let waiting = lock(&self.pings).remove(&(peer, path));
        for sender in waiting.into_iter().flatten() {
            // Who does not wait any more needs no answer.
            let _ = sender.send(rtt_ns);
        }
    }

    fn trace_line(&self, peer: PeerId, line: Arc<trace::Line>) {
        let mut traces = lock(&self.traces);
        let Some(traced) = traces.get_mut(&peer) else {
            return;
        };
        traced.has_begun |= matches!(*line, trace::Line::Begin { .. });
        let Some(lines) = traced.lines.as_ref().filter(|_| traced.has_begun) else {
            return;
        };
        if lines.try_send(line).is_err() {
            // The reader is too slow, and its recording ends here. The worker goes on until the reader has left, so that
            // nobody begins another one in the middle of this.
            traced.lines = None;
        }
    }

    fn name_of(&self, snapshot: &Snapshot, id: PeerId, path: PathIndex) -> String {
        if let Some(name) = lock(&self.names).get(&(id, path)) {
            return name.clone();
        }
        let Some(spec) = snapshot.peer(id) else {
            return String::new();
        };
        let mut paths = self.workers.paths(spec).into_iter();
        let endpoint = paths.find(|it| it.path == path).map(|it| it.endpoint);
        endpoint.map_or(String::new(), |it| path_name(snapshot, spec, &it))
    }
}

impl std::fmt::Debug for PathDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PathDesk").finish_non_exhaustive()
    }
}

/// Lines of a peer's trace as they come; dropping it ends the tracing.
pub struct Recording {
    desk: Arc<PathDesk>,
    peer: PeerId,
    worker: WorkerId,
    serial: u64,
    lines: mpsc::Receiver<Arc<trace::Line>>,
    lost_before: u64,
}

impl Recording {
    /// Waits for the next lines, at least one; none where the recording has broken off.
    pub async fn next(&mut self) -> Vec<Arc<trace::Line>> {
        let mut lines = Vec::new();
        self.lines.recv_many(&mut lines, LINES_PER_CHUNK).await;
        lines
    }

    /// Whether a line may be missing because workers could not tell it.
    pub fn has_hole(&self) -> bool {
        self.desk.workers.events_lost() != self.lost_before
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut traces = lock(&self.desk.traces);
        let is_own = |traced: &Traced| traced.serial == self.serial;
        if !traces.get(&self.peer).is_some_and(is_own) {
            return;
        }
        // While nobody else can begin: the worker begins anew only after an end.
        let order = PathOrder::Trace(self.peer, false);
        self.desk.workers.order(self.worker, order);
        traces.remove(&self.peer);
    }
}

/// The line with the peer's name where it has one: workers know numbers only.
fn named(line: Arc<trace::Line>, name: &str) -> Arc<trace::Line> {
    if !matches!(*line, trace::Line::Begin { .. }) {
        return line;
    }
    let mut line = Arc::unwrap_or_clone(line);
    if let trace::Line::Begin { peer, .. } = &mut line {
        *peer = name.to_owned();
    }
    Arc::new(line)
}

/// What operators call a path: as configured, or, for one that the peer opened, as the prober names it: the uplink and
/// the peer's address.
pub fn path_name(snapshot: &Snapshot, spec: &PeerSpec, endpoint: &Endpoint) -> String {
    let is_it =
        |path: &&PathSpec| path.uplink == endpoint.uplink.0 && path.remote == endpoint.remote;
    match spec.paths.iter().find(is_it) {
        Some(path) => path.profile.name.clone(),
        None => {
            let uplink = uplink_name(snapshot, endpoint.uplink);
            format!("{uplink}-{}", endpoint.remote.ip().to_canonical())
        }
    }
}

/// What operators call an uplink.
pub fn uplink_name(snapshot: &Snapshot, uplink: UplinkId) -> String {
    let mut uplinks = snapshot.paths().uplinks.iter();
    match uplinks.find(|it| it.uplink == uplink.0) {
        Some(profile) => profile.name.clone(),
        None if uplink == UplinkId::ANY => "any".to_owned(),
        None => format!("uplink-{}", uplink.0),
    }
}

/// What a panic left behind is as good as before: every change here is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines that go out at once.
const LINES_PER_CHUNK: usize = 256;
