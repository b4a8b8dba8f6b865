//! The local API of a gateway: what its requests and answers hold, and the one client that speaks it.
//!
//! HTTP/1.1 with JSON over a unix socket, versioned by the path (`/v1/…`). `openapi.json` beside this crate is its
//! description for other languages. Knows nothing of gateways: the daemon fills these types in, and the command
//! line and the console read them. No tokio here, so that a verb that asks one question stays small.

mod client;
mod client_config;
mod client_reads;
mod config;
mod counters;
mod history;
mod paths;
mod peers;
mod prefilter;
mod rules;
mod stream;
mod transport;
mod types;
mod watch;
mod workers;

pub use client::{Client, ClientError};
pub use client_reads::Watch;
pub use config::{
    ConfigChangeView, ConfigCommand, ConfigCommandRequest, ConfigCommandResponse, ConfigEntryView,
    ConfigFate, ConfigFileState, ConfigOrigin, ConfigPendingView, ConfigResponse,
    ConfigTextResponse,
};
pub use counters::{
    ApiCountsView, CountersResponse, CountsView, FlowTableView, GenerationView, RatesView,
};
pub use history::{
    HistoryMetricView, HistoryPointView, HistoryQuery, HistoryResponse, HistorySeriesView,
    HistoryStateView, HistoryStatusView,
};
pub use paths::{
    BandwidthView, BoundsView, CandidateView, ClassRouteView, ClassView, DecisionView, EventKind,
    EventView, EventsQuery, EventsResponse, GradeView, LossView, OrderedResponse, PathCommand,
    PathCommandRequest, PathStateView, PathView, PathsQuery, PathsResponse, PeerPathsView,
    PingRequest, PingResponse, StandingView, TraceQuery, UtilitiesView, ViaStateView, ViaView,
};
pub use peers::{PeerStateView, PeerView, PeersResponse, SessionView};
pub use prefilter::{
    BlockListView, PrefilterCommand, PrefilterCommandRequest, PrefilterCountView,
    PrefilterHookView, PrefilterPolicyView, PrefilterResponse, PrefilterSideView,
    PrefilterStateView, PrefilterSummary,
};
pub use rules::{RuleHitsView, RulesResponse};
pub use transport::{Stream, TargetError, TlsTarget, Transport};
pub use types::{
    ApiError, CandidateFile, CauseView, ConnectionView, Counter, DiagnosticView, DiffRequest,
    DiffResponse, DirectionView, EndView, ExplainRequest, ExplainResponse, FlowDiff, FlowSort,
    FlowView, FlowsQuery, FlowsResponse, HealthView, MissView, ModeView, ObjectChanges, ObjectView,
    PolicyRefView, PolicyResponse, ProblemView, RefusalView, RuleRefView, RuleView, SeverityView,
    StatusResponse, VerdictView,
};
pub use watch::{Snapshot, WatchQuery};
pub use workers::{
    MailboxView, MeterStagesRequest, StageView, StagesView, WorkerView, WorkersResponse,
};

/// Where the socket is unless `--api-dir` says otherwise.
pub const SOCKET_PATH: &str = "/run/patronus/patronus.sock";
/// Its folder.
pub const SOCKET_DIR: &str = "/run/patronus";
/// Its name in that folder.
pub const SOCKET_NAME: &str = "patronus.sock";
/// The description of the API, as OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("../openapi.json");
/// The largest body of a request: candidate manifests.
pub const REQUEST_LEN_MAX: usize = 16 << 20;
/// The most flows that one answer lists.
pub const FLOWS_MAX: usize = 100_000;
/// How many flows an answer lists where the request does not say.
pub const FLOWS_DEFAULT: usize = 1_000;
/// The longest that a request for events may wait, in seconds.
pub const EVENTS_WAIT_MAX_S: u64 = 15;
/// The longest that one recording may take, in seconds.
pub const TRACE_MAX_S: u32 = 3600;
/// The longest that one request for pings may take, in milliseconds.
pub const PING_MAX_MS: u64 = 15_000;
/// The shortest time between two snapshots of a stream, in milliseconds.
pub const WATCH_INTERVAL_MIN_MS: u32 = 200;
/// The longest, in milliseconds.
pub const WATCH_INTERVAL_MAX_MS: u32 = 60_000;
/// The longest life of a stream of snapshots, in seconds; then it ends, and the client asks anew.
pub const WATCH_MAX_S: u32 = 3600;
/// The most peers of a snapshot.
pub const SNAPSHOT_PEERS_MAX: usize = 128;
/// The most events of a snapshot.
pub const SNAPSHOT_EVENTS_MAX: usize = 64;
/// The longest snapshot, in bytes: what a client has to be ready for.
pub const SNAPSHOT_LEN_MAX: usize = 16 << 20;
/// The most prefixes that are listed of a peer.
pub const PREFIXES_MAX: usize = 64;
/// The most rules that an answer lists.
pub const RULES_LISTED_MAX: usize = 10_000;
/// The longest that stages are metered by one request, in seconds.
pub const METER_MAX_S: u32 = 300;
/// The most points of one series of the history: a day of samples.
pub const HISTORY_POINTS_MAX: usize = 8640;
