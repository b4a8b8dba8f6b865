//! What happened last night: samples that the gateway keeps, one every ten seconds for a day.

use serde::{Deserialize, Serialize};

/// `GET /v1/history`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// The metric; without one the answer lists what there is.
    pub metric: Option<String>,
    /// How far back, in seconds; a day if absent.
    pub since: Option<u64>,
    /// Only series that have this label, `name=value`, such as `peer=branch`.
    pub label: Option<String>,
    /// How many points per series at most, by taking means; [`HISTORY_POINTS_MAX`](crate::HISTORY_POINTS_MAX) if absent.
    pub points: Option<usize>,
}

/// The answer to [`HistoryQuery`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryResponse {
    /// The metrics there are; told where the request names none.
    pub metrics: Vec<HistoryMetricView>,
    /// The metric asked for.
    pub metric: Option<HistoryMetricView>,
    /// Seconds that one point stands for.
    pub step_s: u64,
    /// The series, by their labels.
    pub series: Vec<HistorySeriesView>,
    /// The store.
    pub status: HistoryStatusView,
}

/// A metric of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryMetricView {
    /// Its name, such as `path_rtt_ms`.
    pub name: String,
    /// Its unit, such as `ms`.
    pub unit: String,
    /// What it is.
    pub help: String,
}

/// How one thing went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistorySeriesView {
    /// What it is about, such as `peer=branch,path=fiber`; empty for the gateway as a whole.
    pub labels: String,
    /// The oldest first. Where the gateway did not run, or measured nothing, there is no point.
    pub points: Vec<HistoryPointView>,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryPointView {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The mean.
    pub value: f64,
    /// The greatest of the samples behind it.
    pub max: f64,
}

/// How the store of samples does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStatusView {
    /// Whether it takes samples.
    pub state: HistoryStateView,
    /// Its file; absent where it is off.
    pub path: Option<String>,
    /// Why it is off or takes none.
    pub reason: Option<String>,
    /// Samples that it holds.
    pub samples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Samples that were dropped since the start: the disk was too slow, full, or read-only.
    pub dropped: u64,
    /// Series that found no room in a sample.
    pub series_left_out: u64,
}

/// Whether the store of samples works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryStateView {
    /// There is none.
    #[default]
    Off,
    /// It takes samples.
    On,
    /// It takes none at the moment, and is tried again.
    Failing,
}
