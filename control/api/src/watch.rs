//! Everything that a console shows, in one document, again and again.

use serde::{Deserialize, Serialize};

use crate::counters::{CountsView, FlowTableView, GenerationView, RatesView};
use crate::history::HistoryStatusView;
use crate::paths::{EventView, PathsResponse};
use crate::peers::PeerView;
use crate::types::{Counter, StatusResponse};
use crate::workers::WorkerView;

/// `GET /v1/watch`: one [`Snapshot`] a line, for [`WATCH_MAX_S`](crate::WATCH_MAX_S) at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchQuery {
    /// From one to the next; 1000 if absent, [`WATCH_INTERVAL_MIN_MS`](crate::WATCH_INTERVAL_MIN_MS) to
    /// [`WATCH_INTERVAL_MAX_MS`](crate::WATCH_INTERVAL_MAX_MS).
    pub interval_ms: Option<u32>,
    /// End after so many; without it the stream goes on.
    pub count: Option<u32>,
}

/// A gateway at one moment. Flows are asked for by `GET /v1/flows`, rules by `GET /v1/policy/rules`.
///
/// Peers and their paths are bounded by [`SNAPSHOT_PEERS_MAX`](crate::SNAPSHOT_PEERS_MAX): of more, those are told that
/// have the most traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which one this is, from 1, of all that the gateway made since its start.
    pub number: u64,
    /// When it was made, in milliseconds since 1970 of the gateway's wall clock.
    pub unix_ms: u64,
    /// Seconds since the start, of the monotonic clock: what to divide differences by.
    pub uptime_s: f64,
    /// What the gateway is, and whether it is well.
    pub status: StatusResponse,
    /// Which configuration the workers have.
    pub generation: GenerationView,
    /// All workers together, since the start.
    pub totals: CountsView,
    /// All workers together, over the last second.
    pub rates: Option<RatesView>,
    /// The flow tables together.
    pub flows: FlowTableView,
    /// What policy refused.
    pub denied: Counter,
    /// The offload level.
    pub offload: String,
    /// The workers, by number.
    pub workers: Vec<WorkerView>,
    /// The peers, by name.
    pub peers: Vec<PeerView>,
    /// How many more there are.
    pub peers_left_out: usize,
    /// Their paths, and the classes.
    pub paths: PathsResponse,
    /// The last events, the oldest first; at most [`SNAPSHOT_EVENTS_MAX`](crate::SNAPSHOT_EVENTS_MAX).
    pub events: Vec<EventView>,
    /// The number of the last event: what to send to `GET /v1/events` as `since` for those that come after.
    pub events_next: u64,
    /// The store of recent samples.
    pub history: HistoryStatusView,
}
