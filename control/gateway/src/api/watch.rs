//! Snapshots for consoles: made at most a few times a second however many look, and sent line by line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use patronus_api::{
    PeerView, SNAPSHOT_EVENTS_MAX, SNAPSHOT_PEERS_MAX, Snapshot, WATCH_INTERVAL_MAX_MS,
    WATCH_INTERVAL_MIN_MS, WATCH_MAX_S, WatchQuery,
};
use patronus_engine::PeerSpec;
use tokio::sync::OwnedSemaphorePermit;

use super::answers::Refused;
use super::counting::{self, Moment, Readings};
use super::looks::{Rates, lock};
use super::{ApiState, Asker, path_views, views};

/// A snapshot as bytes of a line, and when it was made.
#[derive(Debug)]
struct Made {
    at: Instant,
    line: Bytes,
}

/// The snapshot that was made last.
#[derive(Debug, Default)]
pub struct Snapshots {
    last: ArcSwapOption<Made>,
    making: Mutex<()>,
    number: AtomicU64,
}

impl Snapshots {
    /// The last one, where it is fresh.
    fn fresh(&self, now: Instant) -> Option<Bytes> {
        let made = self.last.load();
        let made = made.as_ref()?;
        (now.saturating_duration_since(made.at) < FRESH).then(|| made.line.clone())
    }

    /// A fresh one; who comes while another makes it waits for that.
    fn line(&self, state: &ApiState) -> Result<Bytes, Refused> {
        let _making = lock(&self.making);
        let now = Instant::now();
        if let Some(line) = self.fresh(now) {
            return Ok(line);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let mut line = super::answers::to_json(&snapshot(state, number))?;
        line.push(b'\n');
        let line = Bytes::from(line);
        let made = Made {
            at: now,
            line: line.clone(),
        };
        self.last.store(Some(Arc::new(made)));
        Ok(line)
    }
}

/// The gateway at this moment.
pub fn snapshot(state: &ApiState, number: u64) -> Snapshot {
    let (live, moment) = (state.live(), Moment::now());
    let readings = Readings::of(state, &live, moment);
    let rates = readings.rates.as_ref();
    let mut specs: Vec<&PeerSpec> = live.snapshot.peers().map(AsRef::as_ref).collect();
    let left_out = specs.len().saturating_sub(SNAPSHOT_PEERS_MAX);
    if left_out > 0 {
        let bytes = |spec: &PeerSpec| spec.rx_bytes() + spec.tx_bytes();
        specs.sort_by_cached_key(|spec| std::cmp::Reverse(bytes(spec)));
        specs.truncate(SNAPSHOT_PEERS_MAX);
    }
    let peers = specs.iter();
    let mut peers: Vec<PeerView> = peers
        .map(|spec| counting::peer(&live, &state.desk, spec, rates, moment))
        .collect();
    peers.sort_by(|a, b| a.peer.cmp(&b.peer));
    let page = state.desk.events_last(SNAPSHOT_EVENTS_MAX);
    Snapshot {
        number,
        unix_ms: moment.unix_ms,
        uptime_s: moment.uptime_s(&live),
        status: views::status(state, &live, &readings, moment),
        generation: readings.generation(&live),
        totals: readings.totals(),
        rates: rates.map(Rates::total),
        flows: readings.flow_total(),
        denied: counting::denied(state),
        offload: state.dataplane.offload.clone(),
        workers: readings.worker_views(),
        peers,
        peers_left_out: left_out,
        paths: path_views::paths(&live, &state.desk, &specs),
        events: page.records.iter().map(|it| it.view()).collect(),
        events_next: page.last,
        history: state.history_status(),
    }
}

/// A checked query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    interval: Duration,
    count: Option<u32>,
}

impl Rhythm {
    /// Reads a query.
    ///
    /// # Errors
    /// Names the field that makes no sense.
    pub fn new(query: &WatchQuery) -> Result<Self, Refused> {
        let interval_ms = query.interval_ms.unwrap_or(INTERVAL_DEFAULT_MS);
        if !(WATCH_INTERVAL_MIN_MS..=WATCH_INTERVAL_MAX_MS).contains(&interval_ms) {
            let fix =
                format!("ask for {WATCH_INTERVAL_MIN_MS} to {WATCH_INTERVAL_MAX_MS} milliseconds");
            let error = format!("{interval_ms} ms is out of range");
            return Err(Refused::field("interval_ms", error, fix));
        }
        if query.count == Some(0) {
            let fix = "ask for at least one, or leave it out";
            return Err(Refused::field("count", "no snapshot at all", fix));
        }
        Ok(Self {
            interval: Duration::from_millis(interval_ms.into()),
            count: query.count,
        })
    }
}

/// What a stream has to remember.
struct Watching {
    state: Arc<ApiState>,
    asker: Asker,
    rhythm: Rhythm,
    sent: u32,
    next: tokio::time::Instant,
    until: tokio::time::Instant,
    _place: OwnedSemaphorePermit,
}

/// Snapshots as lines. The next one is made when the one before has gone out, so that a client that does not read gets
/// none, and is cut when it has not read for long.
pub fn stream_of(
    state: Arc<ApiState>,
    asker: Asker,
    rhythm: Rhythm,
    place: OwnedSemaphorePermit,
) -> Response {
    let now = tokio::time::Instant::now();
    let watching = Watching {
        state,
        asker,
        rhythm,
        sent: 0,
        next: now,
        until: now + Duration::from_secs(WATCH_MAX_S.into()),
        _place: place,
    };
    let lines = stream::unfold(Some(watching), |watching| async {
        let mut it = watching?;
        if it.rhythm.count == Some(it.sent) || it.next > it.until {
            return None;
        }
        it.asker.needs(it.rhythm.interval);
        tokio::time::sleep_until(it.next).await;
        // A reader that was late does not get what it missed.
        it.next = (it.next + it.rhythm.interval).max(tokio::time::Instant::now());
        it.sent += 1;
        match line_of(&it.state).await {
            Ok(line) => Some((Ok(line), Some(it))),
            Err(refused) => {
                let error = std::io::Error::other(refused.error.error);
                Some((Err(error), None))
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    (StatusCode::OK, kind, Body::from_stream(lines)).into_response()
}

async fn line_of(state: &Arc<ApiState>) -> Result<Bytes, Refused> {
    if let Some(line) = state.snapshots.fresh(Instant::now()) {
        return Ok(line);
    }
    super::beside(state.clone(), |state| state.snapshots.line(state)).await
}

/// Within that time all clients get the same one.
const FRESH: Duration = Duration::from_millis(WATCH_INTERVAL_MIN_MS as u64 / 2);
const INTERVAL_DEFAULT_MS: u32 = 1000;
