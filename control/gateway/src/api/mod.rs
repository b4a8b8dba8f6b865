//! The local API: HTTP with JSON on a unix socket, for the command line, the console and scripts.
//!
//! It reads what control has published ([`Live`]) and what workers share anyway, and asks neither control nor a
//! worker anything; so a client can slow down other clients and nobody else. Everything is bounded: connections,
//! their life, headers, bodies, and the work that runs beside the control thread.

mod answers;
mod filter;
mod flows;
mod views;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patronus_api::{Counter, FlowsQuery, REQUEST_LEN_MAX, SOCKET_NAME};
use patronus_engine::{FlowTable, PeerId, Refusal, RuleCounts, Snapshot};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::policy::PolicyInForce;
use crate::socket_file::{Purpose, SocketFile, SocketFileError};
use answers::Refused;

/// Connections served at once.
const CLIENTS_MAX: usize = 64;
/// How long a client may take for its headers.
const HEADERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take from its headers to the answer, its body included.
const REQUEST_PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may live, whatever its client reads or writes.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// The largest headers, with the buffer that they stand in.
const HEADERS_LEN_MAX: usize = 64 << 10;
/// The largest body of a request that carries no manifests.
const SMALL_LEN_MAX: usize = 64 << 10;
/// Requests at work at once; others wait.
const WORK_MAX: usize = 2;
/// Candidates that are received or judged at once; others are told to come again.
const CANDIDATES_MAX: usize = 2;

/// What a gateway is at this moment, as control publishes it.
#[derive(Debug)]
pub struct Live {
    /// The site's name.
    pub site: String,
    /// The configuration that workers have.
    pub snapshot: Arc<Snapshot>,
    /// What configuration calls the peers.
    pub peer_names: HashMap<PeerId, String>,
    /// The policy.
    pub policy: Arc<PolicyInForce>,
    /// Whether established flows outlive a change of policy.
    pub keep_established: bool,
    /// What becomes of denied packets.
    pub refusal: Refusal,
}

/// Who counts what rules refuse.
pub trait RuleHits: Send + Sync {
    /// What was refused since the start, by [`RuleId::number`](patronus_policy::RuleId::number), 0 for what has no
    /// rule; `None` where nobody counts.
    fn counts(&self) -> Option<BTreeMap<u32, Counter>>;
}

/// What the workers count, added up.
#[derive(Clone, Debug)]
pub struct WorkerCounts(pub Vec<Arc<RuleCounts>>);

impl WorkerCounts {
    /// Everything that was refused since the start.
    pub fn total(&self) -> Counter {
        views::sum(self.counts().unwrap_or_default().values())
    }
}

impl RuleHits for WorkerCounts {
    fn counts(&self) -> Option<BTreeMap<u32, Counter>> {
        let mut sums = BTreeMap::<u32, Counter>::new();
        for count in self.0.iter().flat_map(|counts| counts.iter()) {
            let sum = sums.entry(count.rule.0).or_default();
            sum.connections += count.connections;
            sum.packets += count.packets;
            sum.audited += count.audited;
        }
        Some(sums)
    }
}

/// What answers are made of.
pub struct ApiState {
    live: ArcSwap<Live>,
    flow_tables: Vec<Arc<FlowTable>>,
    counts: Box<dyn RuleHits>,
    /// Keys the address hash of candidates.
    seed: u64,
    work: Arc<Semaphore>,
    candidates: Arc<Semaphore>,
}

impl ApiState {
    /// The state of a gateway with these workers' flow tables, in their order.
    pub fn new(
        live: Live,
        flow_tables: Vec<Arc<FlowTable>>,
        counts: Box<dyn RuleHits>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            live: ArcSwap::from_pointee(live),
            flow_tables,
            counts,
            seed,
            work: Arc::new(Semaphore::new(WORK_MAX)),
            candidates: Arc::new(Semaphore::new(CANDIDATES_MAX)),
        })
    }

    /// Answers speak of `live` from here on.
    pub fn publish(&self, live: Live) {
        self.live.store(Arc::new(live));
    }

    fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState").finish_non_exhaustive()
    }
}

/// The API on its socket; gone when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    _file: SocketFile,
    accept: tokio::task::JoinHandle<()>,
}

impl ApiServer {
    /// Listens in `dir`: for root, and for the group `patronus` where the system has one.
    ///
    /// # Errors
    /// See [`SocketFileError`].
    pub fn open(dir: &Path, state: Arc<ApiState>) -> Result<Self, SocketFileError> {
        let group = operators_group();
        let (file, listener) = SocketFile::bind(dir, SOCKET_NAME, 0o660, group, PURPOSE)?;
        let accept = tokio::spawn(serve(listener, router(state)));
        Ok(Self {
            _file: file,
            accept,
        })
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

const PURPOSE: Purpose = Purpose {
    what: "the local API's socket",
    option: "--api-dir",
    taken: "choose another folder with --api-dir",
};

/// The group whose members may ask, where this process may give the socket to it.
fn operators_group() -> Option<u32> {
    let group = nix::unistd::Group::from_name("patronus").ok()??;
    let own = nix::unistd::getgroups().unwrap_or_default();
    let may = nix::unistd::geteuid().is_root()
        || nix::unistd::getegid() == group.gid
        || own.contains(&group.gid);
    if !may {
        tracing::warn!("the API's socket stays this user's own: it is not in the group `patronus`");
    }
    may.then_some(group.gid.as_raw())
}

/// Every route: what `openapi.json` describes.
const ROUTES: [(&str, &str); 6] = [
    ("get", "/v1/status"),
    ("get", "/v1/policy"),
    ("post", "/v1/policy/explain"),
    ("post", "/v1/policy/diff"),
    ("get", "/v1/flows"),
    ("get", "/v1/openapi.json"),
];

fn router(state: Arc<ApiState>) -> Router {
    let [status, policy, explain, diff, flows, openapi] = ROUTES.map(|(_, path)| path);
    Router::new()
        .route(status, get(get_status))
        .route(policy, get(get_policy))
        .route(explain, post(post_explain))
        .route(flows, get(get_flows))
        .route(openapi, get(get_openapi))
        .layer(DefaultBodyLimit::max(SMALL_LEN_MAX))
        .route(
            diff,
            post(post_diff).layer(DefaultBodyLimit::max(REQUEST_LEN_MAX)),
        )
        .fallback(async || Refused::unknown_path())
        .method_not_allowed_fallback(async || Refused::wrong_method())
        .layer(axum::middleware::from_fn(in_time))
        .with_state(state)
}

async fn in_time(request: Request, next: Next) -> Result<Response, Refused> {
    let answer = tokio::time::timeout(REQUEST_PATIENCE, next.run(request)).await;
    answer.map_err(|_| Refused::too_slow())
}

async fn serve(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, router.clone(), place))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an API connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request of one client. A connection of its own costs little on this machine, and no client keeps a place.
async fn converse(stream: UnixStream, router: Router, _place: OwnedSemaphorePermit) {
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(HEADERS_LEN_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_LIFE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "API connection ended"),
        Err(_) => tracing::debug!("API connection cut: its client takes too long"),
    }
}

/// Work beside the control thread, so that signals and other clients are not kept waiting.
async fn answer<T: serde::Serialize>(
    state: Arc<ApiState>,
    work: impl FnOnce(&ApiState) -> Result<T, Refused> + Send + 'static,
) -> Result<Response, Refused> {
    let permit = state.work.clone().acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        // Kept until the work is done, also when the client has left.
        let _permit = permit;
        work(&state).and_then(|answer| answers::to_json(&answer))
    });
    match done.await {
        Ok(answer) => Ok(answers::json_response(StatusCode::OK, answer?)),
        Err(_) => Err(Refused::failed("the request's work ended by a panic")),
    }
}

type Shared = State<Arc<ApiState>>;

async fn get_status(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| {
        let now = Instant::now();
        Ok(views::status(&state.live(), state.flow_tables.len(), now))
    })
    .await
}

async fn get_policy(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| {
        Ok(views::policy(&state.live(), &*state.counts))
    })
    .await
}

async fn post_explain(
    State(state): Shared,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let request = answers::from_json(&body?)?;
    answer(state, move |state| {
        views::explain(&state.live().policy, &request)
    })
    .await
}

async fn get_flows(
    State(state): Shared,
    query: Result<Query<FlowsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query?;
    answer(state, move |state| {
        flows::list(&state.live(), &state.flow_tables, &query, Instant::now())
    })
    .await
}

async fn post_diff(State(state): Shared, request: Request) -> Result<Response, Refused> {
    // Before the body: candidates are large, and a client may send one slowly.
    let place = state.candidates.clone().try_acquire_owned();
    let place = place.map_err(|_| Refused::busy())?;
    let body: Result<Bytes, BytesRejection> = axum::RequestExt::extract(request).await;
    let request = answers::from_json(&body?)?;
    answer(state, move |state| {
        let _place = place;
        flows::diff(
            &state.live(),
            &state.flow_tables,
            &request,
            state.seed,
            Instant::now(),
        )
    })
    .await
}

async fn get_openapi() -> Response {
    answers::json_response(StatusCode::OK, patronus_api::OPENAPI.as_bytes().to_vec())
}

#[cfg(test)]
#[path = "../api_tests.rs"]
mod tests;
