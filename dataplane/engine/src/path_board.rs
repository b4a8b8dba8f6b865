//! The board: what the worker that owns a peer's first session tells everybody about the peer's paths.
//!
//! One writer, readers without locks. Routes and the standing of each path are cells of words that change together
//! ([`SeqCell`]); counters are plain atomics, one row per worker, so that each has one writer. Memory is taken as paths
//! appear and kept: a peer that is never measured costs the empty board, some 200 bytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use patronus_packet::Endpoint;
use patronus_path::{
    Bandwidth, BandwidthSource, CLASSES_MAX, ClassId, LossWindows, PATHS_MAX, PathCounters,
    PathIndex, PathMetrics, PathState, Route, StateReason, Time,
};
use patronus_tunnel::WorkerId;

use crate::paths::PathStatus;
use crate::seqlock::SeqCell;
use crate::snapshot::{ENDPOINT_WORDS, endpoint_of, endpoint_words};

const FLAG_ANSWERED: u64 = 1;
const FLAG_AWAKE: u64 = 2;
const FLAG_SEVERAL: u64 = 4;
/// One word of its own, one of usable paths, three per class.
const ROUTE_WORDS: usize = NARROW_AT + PATHS_MAX / 4;
const NARROW_AT: usize = 2 + 3 * CLASSES_MAX;
const METRIC_WORDS: usize = 25;
const METRICS_AT: usize = ENDPOINT_WORDS + 2;
const STANDING_AT: usize = METRICS_AT + METRIC_WORDS;
const STATUS_WORDS: usize = STANDING_AT + CLASSES_MAX;
/// Stands for no path in a word.
const NO_PATH: u8 = u8::MAX;

/// What the worker that owns a peer's first session tells everybody about its paths. Written by that worker, read
/// without locks by the workers of the peer's lanes and by control.
#[derive(Debug, Default)]
pub struct PathBoard {
    /// Grows with every change that lanes have to follow.
    epoch: AtomicU64,
    flags: AtomicU64,
    starved: AtomicU64,
    routes: OnceLock<Box<SeqCell<ROUTE_WORDS>>>,
    paths: [OnceLock<Box<PathCell>>; PATHS_MAX],
    loads: OnceLock<Box<[ClassRow]>>,
}

#[derive(Debug)]
struct PathCell {
    status: SeqCell<STATUS_WORDS>,
    /// By worker.
    counters: Box<[CounterRow]>,
}

/// What one worker counted on one path.
#[derive(Debug, Default)]
struct CounterRow([AtomicU64; 4]);

/// Bytes that one worker sent, by class.
#[derive(Debug, Default)]
struct ClassRow([AtomicU64; CLASSES_MAX]);

/// What lanes follow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ways {
    pub routes: [Route; CLASSES_MAX],
    /// Paths that carry packets at the moment, by bit.
    pub usable: u16,
    /// Inner MTUs of paths that are narrower than the tunnel, in bytes; zero for the others.
    pub narrow_mtus: [u16; PATHS_MAX],
}

/// What stands about one path beside its counters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub endpoint: Endpoint,
    pub state: PathState,
    pub reason: StateReason,
    pub state_age_s: f64,
    pub metrics: PathMetrics,
    pub standing: [(u8, f32); CLASSES_MAX],
    pub is_draining: bool,
    /// The peer's number of the path, plus one; zero until it is known.
    pub peer_number: u16,
}

impl PathBoard {
    /// The paths there are; four times a second anew.
    pub fn paths(&self) -> Vec<PathStatus> {
        let known = (0..PATHS_MAX).filter_map(|at| self.status(PathIndex(at as u8)));
        known.collect()
    }

    /// Where each class's packets go.
    pub fn routes(&self) -> [Route; CLASSES_MAX] {
        self.ways().unwrap_or_default().routes
    }

    /// Whether the peer answers hellos: it is a Patronus site.
    pub fn is_answered(&self) -> bool {
        self.has(FLAG_ANSWERED)
    }

    /// Whether hellos are sent: not to peers that are idle, nor to those that do not answer.
    pub fn is_awake(&self) -> bool {
        self.has(FLAG_AWAKE)
    }

    /// Whether routes decide: the peer answers hellos and there are two paths or more.
    pub fn has_several(&self) -> bool {
        self.has(FLAG_SEVERAL)
    }

    /// Times that the owner was late by more than an interval with its hellos, and gave the peer that much longer.
    pub fn starved(&self) -> u64 {
        self.starved.load(Ordering::Relaxed)
    }

    fn status(&self, path: PathIndex) -> Option<PathStatus> {
        let found = self.standing(path)?;
        let sum = self.counters(path);
        Some(PathStatus {
            path,
            endpoint: found.endpoint,
            state: found.state,
            reason: found.reason,
            state_age_s: found.state_age_s,
            metrics: found.metrics,
            standing: found.standing,
            is_draining: found.is_draining,
            tx_packets: sum.tx_packets,
            tx_bytes: sum.tx_bytes,
            rx_packets: sum.rx_packets,
            rx_bytes: sum.rx_bytes,
        })
    }

    fn has(&self, flag: u64) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    // What lanes read.

    /// Read before the rest: what is read afterwards is at least as new.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn ways(&self) -> Option<Ways> {
        let Some(cell) = self.routes.get() else {
            return Some(Ways::default());
        };
        cell.read().map(|words| decode_ways(&words))
    }

    pub(crate) fn standing(&self, path: PathIndex) -> Option<Standing> {
        let cell = self.paths.get(path.as_usize())?.get()?;
        decode_standing(&cell.status.read()?)
    }

    // What each worker writes and the owner sums.

    /// Stores what a worker counted on a path. Nothing is stored while the owner has not entered the path.
    pub(crate) fn store_counters(
        &self,
        path: PathIndex,
        worker: WorkerId,
        counters: &PathCounters,
    ) {
        let Some(row) = self.row(path, worker) else {
            return;
        };
        let values = [
            counters.tx_packets,
            counters.tx_bytes,
            counters.rx_packets,
            counters.rx_bytes,
        ];
        for (cell, value) in row.0.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// What a worker stored, for one that begins anew.
    pub(crate) fn stored_counters(&self, path: PathIndex, worker: WorkerId) -> PathCounters {
        self.row(path, worker)
            .map_or_else(PathCounters::default, CounterRow::load)
    }

    /// The sum over all workers.
    pub(crate) fn counters(&self, path: PathIndex) -> PathCounters {
        let cell = self.paths.get(path.as_usize()).and_then(OnceLock::get);
        let rows = cell.map_or(&[][..], |cell| &cell.counters);
        let mut sum = PathCounters::default();
        for row in rows.iter().map(CounterRow::load) {
            sum.tx_packets += row.tx_packets;
            sum.tx_bytes += row.tx_bytes;
            sum.rx_packets += row.rx_packets;
            sum.rx_bytes += row.rx_bytes;
        }
        sum
    }

    pub(crate) fn store_loads(&self, worker: WorkerId, bytes: &[u64; CLASSES_MAX]) {
        let row = self
            .loads
            .get()
            .and_then(|rows| rows.get(worker.as_usize()));
        let Some(row) = row else { return };
        for (cell, bytes) in row.0.iter().zip(bytes) {
            cell.store(*bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn stored_loads(&self, worker: WorkerId) -> [u64; CLASSES_MAX] {
        let rows = self.loads.get();
        let row = rows.and_then(|rows| rows.get(worker.as_usize()));
        row.map_or([0; CLASSES_MAX], |row| {
            std::array::from_fn(|at| row.0[at].load(Ordering::Relaxed))
        })
    }

    pub(crate) fn load(&self, class: ClassId) -> u64 {
        let rows = self.loads.get().map_or(&[][..], |rows| rows);
        let of = |row: &ClassRow| row.0[class.as_usize() % CLASSES_MAX].load(Ordering::Relaxed);
        rows.iter().map(of).sum()
    }

    // What the owner writes.

    /// The owner begins anew: nothing is known.
    pub(crate) fn reset(&self) {
        self.flags.store(0, Ordering::Release);
        if let Some(cell) = self.routes.get() {
            cell.write([0; ROUTE_WORDS]);
        }
        for cell in self.paths.iter().filter_map(OnceLock::get) {
            cell.status.write([0; STATUS_WORDS]);
        }
        self.changed();
    }

    /// Tells the lanes to look. After the writes that it tells of.
    pub(crate) fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn set_flags(&self, is_answered: bool, is_awake: bool, has_several: bool) {
        let of = |is: bool, flag: u64| if is { flag } else { 0 };
        let flags = of(is_answered, FLAG_ANSWERED)
            | of(is_awake, FLAG_AWAKE)
            | of(has_several, FLAG_SEVERAL);
        self.flags.store(flags, Ordering::Release);
    }

    pub(crate) fn set_starved(&self, times: u64) {
        self.starved.store(times, Ordering::Relaxed);
    }

    pub(crate) fn set_ways(&self, ways: &Ways) {
        let cell = self.routes.get_or_init(Box::default);
        cell.write(encode_ways(ways));
    }

    /// Enters a path, or what stands about it anew; `workers` may count on it.
    pub(crate) fn set_standing(&self, path: PathIndex, standing: &Standing, workers: usize) {
        let Some(place) = self.paths.get(path.as_usize()) else {
            return;
        };
        self.loads
            .get_or_init(|| (0..workers).map(|_| ClassRow::default()).collect());
        let cell = place.get_or_init(|| {
            Box::new(PathCell {
                status: SeqCell::default(),
                counters: (0..workers).map(|_| CounterRow::default()).collect(),
            })
        });
        cell.status.write(encode_standing(standing));
    }

    /// The path is gone.
    pub(crate) fn clear_path(&self, path: PathIndex) {
        if let Some(cell) = self.paths.get(path.as_usize()).and_then(OnceLock::get) {
            cell.status.write([0; STATUS_WORDS]);
        }
    }

    fn row(&self, path: PathIndex, worker: WorkerId) -> Option<&CounterRow> {
        let cell = self.paths.get(path.as_usize())?.get()?;
        cell.counters.get(worker.as_usize())
    }
}

impl CounterRow {
    fn load(&self) -> PathCounters {
        let [tx_packets, tx_bytes, rx_packets, rx_bytes] =
            std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed));
        PathCounters {
            tx_packets,
            tx_bytes,
            rx_packets,
            rx_bytes,
        }
    }
}

// Words. All zero is nothing: a path's first word says whether there is one.

fn encode_ways(ways: &Ways) -> [u64; ROUTE_WORDS] {
    let mut words = [0; ROUTE_WORDS];
    words[1] = u64::from(ways.usable);
    for (at, mtu) in ways.narrow_mtus.into_iter().enumerate() {
        words[NARROW_AT + at / 4] |= u64::from(mtu) << (at % 4 * 16);
    }
    for (route, words) in ways.routes.iter().zip(words[2..].chunks_exact_mut(3)) {
        // Plus one, so that zero is none.
        let number = |path: Option<PathIndex>| {
            u64::from(path.map_or(NO_PATH, |path| path.0).wrapping_add(1))
        };
        words[0] = number(route.path)
            | number(route.leaving) << 8
            | number(route.protect) << 16
            | u64::from(route.share) << 24;
        words[1] = u64::try_from(route.gap.as_nanos()).unwrap_or(u64::MAX);
        words[2] = route.deadline.0;
    }
    words
}

fn decode_ways(words: &[u64; ROUTE_WORDS]) -> Ways {
    let mut ways = Ways {
        usable: words[1] as u16,
        narrow_mtus: std::array::from_fn(|at| (words[NARROW_AT + at / 4] >> (at % 4 * 16)) as u16),
        ..Ways::default()
    };
    for (route, words) in ways.routes.iter_mut().zip(words[2..].chunks_exact(3)) {
        let path = |shift: u32| ((words[0] >> shift) as u8).checked_sub(1).map(PathIndex);
        *route = Route {
            path: path(0),
            leaving: path(8),
            protect: path(16),
            share: (words[0] >> 24) as u16,
            gap: Duration::from_nanos(words[1]),
            deadline: Time(words[2]),
        };
    }
    ways
}

const STATES: [PathState; 5] = [
    PathState::Down,
    PathState::Init,
    PathState::Up,
    PathState::Suspect,
    PathState::AdminDown,
];
const REASONS: [StateReason; 11] = [
    StateReason::New,
    StateReason::Heard,
    StateReason::HellosMissed,
    StateReason::DetectionExpired,
    StateReason::PeerDoesNotHear,
    StateReason::PeerSignalled,
    StateReason::CarrierLost,
    StateReason::UplinkDown,
    StateReason::Unreachable,
    StateReason::Drained,
    StateReason::Removed,
];

fn place<T: PartialEq>(all: &[T], wanted: &T) -> u64 {
    all.iter().position(|it| it == wanted).unwrap_or(0) as u64
}

fn encode_standing(standing: &Standing) -> [u64; STATUS_WORDS] {
    let mut words = [0; STATUS_WORDS];
    words[..ENDPOINT_WORDS].copy_from_slice(&endpoint_words(Some(&standing.endpoint)));
    words[ENDPOINT_WORDS] = 1
        | place(&STATES, &standing.state) << 8
        | place(&REASONS, &standing.reason) << 16
        | u64::from(standing.is_draining) << 24
        | u64::from(standing.peer_number) << 32;
    words[ENDPOINT_WORDS + 1] = standing.state_age_s.to_bits();
    words[METRICS_AT..STANDING_AT].copy_from_slice(&encode_metrics(&standing.metrics));
    for (word, (tier, score)) in words[STANDING_AT..].iter_mut().zip(standing.standing) {
        *word = u64::from(tier) << 32 | u64::from(score.to_bits());
    }
    words
}

fn decode_standing(words: &[u64; STATUS_WORDS]) -> Option<Standing> {
    let bits = words[ENDPOINT_WORDS];
    let endpoint = endpoint_of(words.first_chunk()?)?;
    let mut standing = [(0, 0.0); CLASSES_MAX];
    for (to, word) in standing.iter_mut().zip(&words[STANDING_AT..]) {
        *to = ((word >> 32) as u8, f32::from_bits(*word as u32));
    }
    Some(Standing {
        endpoint,
        state: *STATES.get(usize::from((bits >> 8) as u8))?,
        reason: *REASONS.get(usize::from((bits >> 16) as u8))?,
        state_age_s: f64::from_bits(words[ENDPOINT_WORDS + 1]),
        metrics: decode_metrics(words[METRICS_AT..].first_chunk()?),
        standing,
        is_draining: bits >> 24 & 1 != 0,
        peer_number: (bits >> 32) as u16,
    })
}

/// A number that is not there is stored as no number.
fn encode_metrics(it: &PathMetrics) -> [u64; METRIC_WORDS] {
    let word = |value: Option<f64>| value.unwrap_or(f64::NAN).to_bits();
    let [tx, rx] = [it.tx_bandwidth, it.rx_bandwidth].map(|bandwidth| {
        bandwidth.map_or([word(None), 0, 0], |it| {
            let source = place(&SOURCES, &it.source);
            [it.bps.to_bits(), source, it.age_s.to_bits()]
        })
    });
    [
        word(it.rtt_fast_ns),
        word(it.rtt_slow_ns),
        word(it.rtt_min_ns),
        word(it.rtt_p95_ns),
        word(it.tx_jitter_ns),
        word(it.rx_jitter_ns),
        word(it.tx_loss.one_s),
        word(it.tx_loss.ten_s),
        word(it.tx_loss.sixty_s),
        word(it.rx_loss.one_s),
        word(it.rx_loss.ten_s),
        word(it.rx_loss.sixty_s),
        word(it.tx_data_loss),
        word(it.rx_data_loss),
        word(it.rx_queueing_ns),
        word(it.queueing_ns),
        tx[0],
        tx[1],
        tx[2],
        rx[0],
        rx[1],
        rx[2],
        it.tx_bps.to_bits(),
        it.rx_bps.to_bits(),
        u64::from(it.mtu.unwrap_or(0)),
    ]
}

const SOURCES: [BandwidthSource; 3] = [
    BandwidthSource::Configured,
    BandwidthSource::Passive,
    BandwidthSource::Train,
];

fn decode_metrics(words: &[u64; METRIC_WORDS]) -> PathMetrics {
    let plain = |at: usize| f64::from_bits(words[at]);
    let number = |at: usize| Some(plain(at)).filter(|value| !value.is_nan());
    let loss = |at: usize| LossWindows {
        one_s: number(at),
        ten_s: number(at + 1),
        sixty_s: number(at + 2),
    };
    let bandwidth = |at: usize| {
        Some(Bandwidth {
            bps: number(at)?,
            source: *SOURCES.get(words[at + 1] as usize)?,
            age_s: plain(at + 2),
        })
    };
    PathMetrics {
        rtt_fast_ns: number(0),
        rtt_slow_ns: number(1),
        rtt_min_ns: number(2),
        rtt_p95_ns: number(3),
        tx_jitter_ns: number(4),
        rx_jitter_ns: number(5),
        tx_loss: loss(6),
        rx_loss: loss(9),
        tx_data_loss: number(12),
        rx_data_loss: number(13),
        rx_queueing_ns: number(14),
        queueing_ns: number(15),
        tx_bandwidth: bandwidth(16),
        rx_bandwidth: bandwidth(19),
        tx_bps: plain(22),
        rx_bps: plain(23),
        mtu: Some(words[24] as u16).filter(|mtu| *mtu > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_packet::UplinkId;

    fn standing() -> Standing {
        Standing {
            endpoint: Endpoint {
                local: Some([192, 0, 2, 9].into()),
                uplink: UplinkId(3),
                ..Endpoint::from(
                    "[2001:db8::1]:51820"
                        .parse::<std::net::SocketAddr>()
                        .unwrap(),
                )
            },
            state: PathState::Suspect,
            reason: StateReason::HellosMissed,
            state_age_s: 1.5,
            metrics: PathMetrics {
                rtt_fast_ns: Some(1e6),
                rx_loss: LossWindows {
                    ten_s: Some(0.25),
                    ..LossWindows::default()
                },
                rx_bandwidth: Some(Bandwidth {
                    bps: 1e9,
                    source: BandwidthSource::Train,
                    age_s: 7.0,
                }),
                tx_bps: 5.0,
                mtu: Some(1500),
                ..PathMetrics::default()
            },
            standing: [(2, 55.5); CLASSES_MAX],
            is_draining: true,
            peer_number: 12,
        }
    }

    #[test]
    fn what_stands_about_a_path_survives_the_cell() {
        let board = PathBoard::default();
        let path = PathIndex(5);
        assert_eq!(board.paths(), []);
        board.set_standing(path, &standing(), 2);
        assert_eq!(board.standing(path), Some(standing()));
        board.clear_path(path);
        assert_eq!(board.standing(path), None);
    }

    #[test]
    fn routes_survive_the_cell_and_a_reset_forgets_them() {
        let board = PathBoard::default();
        assert_eq!(board.ways(), Some(Ways::default()));
        let mut ways = Ways {
            usable: 0x8001,
            ..Ways::default()
        };
        ways.narrow_mtus[9] = 1280;
        ways.narrow_mtus[15] = u16::MAX;
        ways.routes[7] = Route {
            path: Some(PathIndex(0)),
            leaving: Some(PathIndex(15)),
            gap: Duration::from_millis(7),
            deadline: Time(u64::MAX),
            share: 256,
            protect: Some(PathIndex(3)),
        };
        board.set_ways(&ways);
        assert_eq!(board.ways(), Some(ways));
        let before = board.epoch();
        board.reset();
        assert_eq!(board.ways(), Some(Ways::default()));
        assert!(board.epoch() > before);
    }

    #[test]
    fn every_worker_has_a_row_of_counters_of_its_own() {
        let board = PathBoard::default();
        let path = PathIndex(1);
        let counters = PathCounters {
            tx_packets: 1,
            tx_bytes: 2,
            rx_packets: 3,
            rx_bytes: 4,
        };
        board.store_counters(path, WorkerId(0), &counters);
        assert_eq!(board.counters(path), PathCounters::default(), "no path yet");
        board.set_standing(path, &standing(), 2);
        board.store_counters(path, WorkerId(0), &counters);
        board.store_counters(path, WorkerId(1), &counters);
        board.store_counters(path, WorkerId(2), &counters);
        assert_eq!(board.counters(path).rx_bytes, 8, "there are two workers");
        assert_eq!(board.stored_counters(path, WorkerId(1)), counters);
    }
}
