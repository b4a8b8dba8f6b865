//! The local API: HTTP with JSON on a unix socket, for the command line, the console and scripts.
//!
//! It reads what control has published ([`Live`]) and what workers share anyway, and asks control nothing; so a client
//! can slow down other clients and nobody else. Orders about paths go to workers over the [`PathDesk`], and what comes
//! back does too; orders about configurations go to control, one after the other. Everything is bounded: connections, their life, headers, bodies, and the work that runs beside the
//! control thread.

mod answers;
mod config;
pub(crate) mod counting;
mod events;
mod filter;
mod flows;
mod health;
mod history;
mod looks;
pub(crate) mod path_views;
mod paths;
mod reads;
mod tls;
mod traffic;
mod views;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patronus_api::{
    ApiCountsView, Counter, EventsQuery, FlowsQuery, HistoryStatusView, PathsQuery,
    REQUEST_LEN_MAX, SOCKET_NAME, TraceQuery,
};
use patronus_engine::{FlowTable, PeerId, PeerSpec, Refusal, RuleCounts, Snapshot};
use patronus_history::History;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config_book::ConfigBook;
use crate::facts::WorkerFacts;
use crate::metrics::{Family, MetricSource};
use crate::path_desk::PathDesk;
use crate::policy::PolicyInForce;
use crate::prefilter::Prefilter;
use crate::socket_file::{Purpose, SocketFile, SocketFileError};
use crate::via::ViaPlan;
use looks::FlowGauge;
use traffic::{Served, Traffic};
use watch::Snapshots;

pub(crate) use answers::Refused;
pub(crate) use counting::{Moment, Readings};
pub(crate) use history::sample;
pub(crate) use looks::{Look, Looks};
pub(crate) use reads::metrics_response;
pub(crate) use tls::TlsServer;

/// Connections served at once.
const CLIENTS_MAX: usize = 256;
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
/// Clients that wait for events or record at once; others are told to come again.
const FOLLOWERS_MAX: usize = 24;
/// Clients that follow snapshots at once; the other places stay free for questions.
const WATCHERS_MAX: usize = 208;
/// Scrapers by TCP that are served at once.
const SCRAPERS_MAX: usize = 8;

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
    /// Which prefixes behind peers are asked whether they answer.
    pub via: ViaPlan,
}

impl Live {
    /// What a peer is called.
    pub fn name_of(&self, spec: &PeerSpec) -> String {
        self.name_of_id(spec.id)
    }

    /// What the peer of that number is called.
    pub fn name_of_id(&self, id: PeerId) -> String {
        let name = self.peer_names.get(&id).cloned();
        name.unwrap_or_else(|| "removed peer".to_owned())
    }
}

/// Who counts what rules refuse.
pub trait RuleHits: Send + Sync {
    /// What was refused since the start, by [`RuleId::number`](patronus_policy::RuleId::number), 0 for what has no
    /// rule; `None` where nobody counts.
    fn counts(&self) -> Option<BTreeMap<u32, Hits>>;
}

/// What a rule refused, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// How often.
    pub counter: Counter,
    /// When last, in seconds since the gateway's start.
    pub last_s: Option<u32>,
}

/// What the workers count, added up.
#[derive(Clone, Debug)]
pub struct WorkerCounts(pub Vec<Arc<RuleCounts>>);

impl WorkerCounts {
    /// Everything that was refused since the start.
    pub fn total(&self) -> Counter {
        let counts = self.counts().unwrap_or_default();
        views::sum(counts.values().map(|it| &it.counter))
    }
}

impl RuleHits for WorkerCounts {
    fn counts(&self) -> Option<BTreeMap<u32, Hits>> {
        let mut sums = BTreeMap::<u32, Hits>::new();
        for count in self.0.iter().flat_map(|counts| counts.iter()) {
            let hits = sums.entry(count.rule.0).or_default();
            hits.last_s = hits.last_s.max(Some(count.last_s));
            let sum = &mut hits.counter;
            sum.connections += count.connections;
            sum.packets += count.packets;
            sum.audited += count.audited;
        }
        Some(sums)
    }
}

/// What workers share with those who ask.
pub struct Dataplane {
    /// Their flow tables, in their order.
    pub flow_tables: Vec<Arc<FlowTable>>,
    /// What rules refused.
    pub counts: Box<dyn RuleHits>,
    /// What they tell about themselves.
    pub facts: Box<dyn WorkerFacts>,
    /// The offload level, in words.
    pub offload: String,
    /// The code that seals and opens packets, in words.
    pub cipher: String,
    /// Others that have metrics: the pre-filter, for one.
    pub metrics: Vec<Box<dyn MetricSource>>,
}

/// What answers are made of.
pub struct ApiState {
    live: ArcSwap<Live>,
    dataplane: Dataplane,
    desk: Arc<PathDesk>,
    prefilter: Arc<Prefilter>,
    config: Option<Arc<ConfigBook>>,
    looks: Looks,
    flow_gauge: FlowGauge,
    snapshots: Snapshots,
    traffic: Traffic,
    history: History,
    /// Keys the address hash of candidates.
    seed: u64,
    work: Arc<Semaphore>,
    candidates: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

impl ApiState {
    /// The state of a gateway with these workers.
    pub fn new(
        live: Live,
        dataplane: Dataplane,
        history: History,
        desk: Arc<PathDesk>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            live: ArcSwap::from_pointee(live),
            dataplane,
            desk,
            prefilter: Arc::default(),
            config: None,
            looks: Looks::default(),
            flow_gauge: FlowGauge::default(),
            snapshots: Snapshots::default(),
            traffic: Traffic::default(),
            history,
            seed,
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            candidates: Arc::new(Semaphore::new(CANDIDATES_MAX)),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
        })
    }

    /// The state with this pre-filter in the place of one that filters nothing; before anybody shares the state.
    pub fn with_prefilter(mut self: Arc<Self>, prefilter: Arc<Prefilter>) -> Arc<Self> {
        if let Some(own) = Arc::get_mut(&mut self) {
            own.prefilter = prefilter;
        }
        self
    }

    /// The state with these configurations; before anybody shares the state.
    pub fn with_config(mut self: Arc<Self>, config: Arc<ConfigBook>) -> Arc<Self> {
        if let Some(own) = Arc::get_mut(&mut self) {
            own.config = Some(config);
        }
        self
    }

    /// Answers speak of `live` from here on.
    pub fn publish(&self, live: Live) {
        self.desk.forget_absent(&live.snapshot);
        self.live.store(Arc::new(live));
    }

    /// How the store of samples does.
    pub fn history_status(&self) -> HistoryStatusView {
        history::status(&self.history.status())
    }

    /// The store of samples.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What the workers tell about themselves.
    pub fn facts(&self) -> &dyn WorkerFacts {
        self.dataplane.facts.as_ref()
    }

    /// Where paths are.
    pub fn desk(&self) -> &PathDesk {
        &self.desk
    }

    /// The code that seals and opens packets.
    pub fn cipher(&self) -> &str {
        &self.dataplane.cipher
    }

    /// What the API did.
    pub fn api_counts(&self) -> ApiCountsView {
        self.traffic.view()
    }

    /// What others have for a scrape.
    pub fn more_metrics(&self) -> Vec<Family> {
        let sources = self.dataplane.metrics.iter();
        sources.flat_map(|it| it.families()).collect()
    }

    fn crowded(&self) -> Refused {
        self.traffic.crowded();
        Refused::crowded()
    }

    /// Looks at the counters; what lies between two looks are rates. To be called about once a second.
    pub fn look(&self, now: Instant) {
        let facts = self.dataplane.facts.as_ref();
        let look = Look::new(facts, &self.live().snapshot, now);
        self.looks.keep(look);
    }

    /// What answers speak of.
    pub fn live(&self) -> Arc<Live> {
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
        Self::open_for(dir, state, CONNECTION_LIFE)
    }

    fn open_for(dir: &Path, state: Arc<ApiState>, life: Duration) -> Result<Self, SocketFileError> {
        let group = operators_group();
        let (file, listener) = SocketFile::bind(dir, SOCKET_NAME, 0o660, group, PURPOSE)?;
        let accept = tokio::spawn(serve(listener, state, life));
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
const ROUTES: [(&str, &str); 26] = [
    ("get", "/v1/status"),
    ("get", "/v1/policy"),
    ("post", "/v1/policy/explain"),
    ("post", "/v1/policy/diff"),
    ("get", "/v1/flows"),
    ("get", "/v1/openapi.json"),
    ("get", "/v1/paths"),
    ("get", "/v1/paths/{peer}/{path}"),
    ("post", "/v1/paths/{peer}/command"),
    ("post", "/v1/paths/{peer}/{path}/ping"),
    ("post", "/v1/paths/{peer}/{path}/bandwidth"),
    ("get", "/v1/paths/{peer}/trace"),
    ("get", "/v1/events"),
    ("get", "/v1/prefilter"),
    ("post", "/v1/prefilter/command"),
    ("get", "/v1/workers"),
    ("post", "/v1/workers/stages"),
    ("get", "/v1/peers"),
    ("get", "/v1/counters"),
    ("get", "/v1/policy/rules"),
    ("get", "/v1/watch"),
    ("get", "/v1/metrics"),
    ("get", "/v1/history"),
    ("get", "/v1/config"),
    ("get", "/v1/config/{entry}"),
    ("post", "/v1/config/command"),
];

fn router(state: Arc<ApiState>) -> Router {
    let [
        status,
        policy,
        explain,
        diff,
        flows,
        openapi,
        paths,
        path,
        command,
        ping,
        bandwidth,
        trace,
        events,
        prefilter,
        prefilter_command,
        workers,
        stages,
        peers,
        counters,
        rules,
        watch,
        metrics,
        history,
        config_list,
        config_text,
        config_command,
    ] = ROUTES.map(|(_, path)| path);
    Router::new()
        .route(status, get(get_status))
        .route(policy, get(get_policy))
        .route(explain, post(post_explain))
        .route(flows, get(get_flows))
        .route(openapi, get(get_openapi))
        .route(paths, get(get_paths))
        .route(path, get(get_path))
        .route(command, post(post_command))
        .route(ping, post(post_ping))
        .route(bandwidth, post(post_bandwidth))
        .route(trace, get(get_trace))
        .route(events, get(get_events))
        .route(prefilter, get(get_prefilter))
        .route(prefilter_command, post(post_prefilter))
        .route(workers, get(reads::get_workers))
        .route(stages, post(reads::post_stages))
        .route(peers, get(reads::get_peers))
        .route(counters, get(reads::get_counters))
        .route(rules, get(reads::get_rules))
        .route(watch, get(reads::get_watch))
        .route(metrics, get(reads::get_metrics))
        .route(history, get(reads::get_history))
        .route(config_list, get(config::get_config))
        .route(config_text, get(config::get_text))
        .layer(DefaultBodyLimit::max(SMALL_LEN_MAX))
        .route(
            diff,
            post(post_diff).layer(DefaultBodyLimit::max(REQUEST_LEN_MAX)),
        )
        .route(
            config_command,
            post(config::post_command).layer(DefaultBodyLimit::max(REQUEST_LEN_MAX)),
        )
        .fallback(async || Refused::unknown_path())
        .method_not_allowed_fallback(async || Refused::wrong_method())
        .layer(axum::middleware::from_fn(in_time))
        .with_state(state)
}

async fn in_time(request: Request, next: Next) -> Result<Response, Refused> {
    // Whoever announces too much need not send it first.
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|len| len > REQUEST_LEN_MAX as u64) {
        return Err(Refused::too_long());
    }
    let answer = tokio::time::timeout(REQUEST_PATIENCE, next.run(request)).await;
    answer.map_err(|_| Refused::too_slow())
}

async fn serve(listener: UnixListener, state: Arc<ApiState>, life: Duration) {
    let router = router(state.clone());
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let places = (place, state.traffic.begin());
                let uid = stream.peer_cred().ok().map(|it| it.uid());
                drop(tokio::spawn(converse(
                    stream,
                    (uid, life),
                    router.clone(),
                    places,
                )));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an API connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The same for clients that come by TCP, which ask for metrics only.
pub async fn serve_tcp(listener: TcpListener, router: Router, state: Arc<ApiState>) {
    let router = router.layer(axum::middleware::from_fn(in_time));
    let places = Arc::new(Semaphore::new(SCRAPERS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let places = (place, state.traffic.begin());
                drop(tokio::spawn(converse(
                    stream,
                    (None, CONNECTION_LIFE),
                    router.clone(),
                    places,
                )));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Who asks, and how long the connection may live.
#[derive(Clone, Debug)]
pub struct Asker {
    uid: Option<u32>,
    /// How long it lives where nothing else is said.
    span: Duration,
    life: Arc<tokio::sync::watch::Sender<tokio::time::Instant>>,
}

impl Asker {
    /// The user's number, where the system tells it.
    fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// The answer takes that much longer than others do.
    fn needs(&self, span: Duration) {
        let until = tokio::time::Instant::now() + span + self.span;
        self.life.send_replace(until);
    }
}

/// One request of one client. A connection of its own costs little on this machine, and no client keeps a place.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (uid, span): (Option<u32>, Duration),
    router: Router,
    (_place, served): (OwnedSemaphorePermit, Served),
) {
    let (life, end) = tokio::sync::watch::channel(tokio::time::Instant::now() + span);
    let asker = Asker {
        uid,
        span,
        life: Arc::new(life),
    };
    let router = router.layer(Extension(asker));
    let conversation = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(HEADERS_LEN_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(conversation);
    loop {
        let until = *end.borrow();
        match tokio::time::timeout_at(until, &mut conversation).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => return tracing::debug!(%error, "API connection ended"),
            // Its answer was given more time meanwhile.
            Err(_) if *end.borrow() > until => {}
            Err(_) => {
                served.cut();
                return tracing::debug!("API connection cut: its client takes too long");
            }
        }
    }
}

/// Work beside the control thread, whose answer is JSON.
async fn answer<T: serde::Serialize>(
    state: Arc<ApiState>,
    work: impl FnOnce(&ApiState) -> Result<T, Refused> + Send + 'static,
) -> Result<Response, Refused> {
    let work = |state: &ApiState| work(state).and_then(|answer| answers::to_json(&answer));
    let answer = beside(state, work).await?;
    Ok(answers::json_response(StatusCode::OK, answer))
}

/// Work beside the control thread, so that signals and other clients are not kept waiting.
async fn beside<T: Send + 'static>(
    state: Arc<ApiState>,
    work: impl FnOnce(&ApiState) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let permit = state.work.clone().acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        // Kept until the work is done, also when the client has left.
        let _permit = permit;
        work(&state)
    });
    let done = done.await;
    done.unwrap_or_else(|_| Err(Refused::failed("the request's work ended by a panic")))
}

type Shared = State<Arc<ApiState>>;

async fn get_status(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| {
        let (live, moment) = (state.live(), Moment::now());
        let readings = Readings::of(state, &live, moment);
        let mut status = views::status(state, &live, &readings, moment);
        status.prefilter = Some(state.prefilter.summary());
        Ok(status)
    })
    .await
}

async fn get_policy(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| {
        Ok(views::policy(&state.live(), &*state.dataplane.counts))
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
        let tables = &state.dataplane.flow_tables;
        flows::list(&state.live(), tables, &query, Instant::now())
    })
    .await
}

async fn post_diff(State(state): Shared, request: Request) -> Result<Response, Refused> {
    // Before the body: candidates are large, and a client may send one slowly.
    let place = state.candidates.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        state.traffic.crowded();
        Refused::busy()
    })?;
    let body: Result<Bytes, BytesRejection> = axum::RequestExt::extract(request).await;
    let request = answers::from_json(&body?)?;
    answer(state, move |state| {
        let _place = place;
        flows::diff(
            &state.live(),
            &state.dataplane.flow_tables,
            &request,
            state.seed,
            Instant::now(),
        )
    })
    .await
}

type Query1<T> = Result<Query<T>, QueryRejection>;
type PeerPart = Result<axum::extract::Path<String>, PathRejection>;
type PathParts = Result<axum::extract::Path<(String, String)>, PathRejection>;

async fn get_paths(State(state): Shared, query: Query1<PathsQuery>) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|it| Refused::query(&it, "?peer=branch"))?;
    answer(state, move |state| {
        paths::list(&state.live(), &state.desk, &query)
    })
    .await
}

async fn get_path(State(state): Shared, parts: PathParts) -> Result<Response, Refused> {
    let (peer, path) = parts?.0;
    answer(state, move |state| {
        paths::one(&state.live(), &state.desk, &peer, &path)
    })
    .await
}

async fn post_command(
    State(state): Shared,
    Extension(asker): Extension<Asker>,
    peer: PeerPart,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let (peer, request) = (peer?.0, answers::from_json(&body?)?);
    answer(state, move |state| {
        paths::command(&state.live(), &state.desk, &peer, &request, &asker)
    })
    .await
}

async fn post_ping(
    State(state): Shared,
    parts: PathParts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let ((peer, path), request) = (parts?.0, answers::from_json(&body?)?);
    let live = state.live();
    // It waits more than it works: no place among those that work.
    let answer = paths::ping(&live, &state.desk, &peer, &path, &request).await?;
    Ok(answers::json_response(
        StatusCode::OK,
        answers::to_json(&answer)?,
    ))
}

async fn post_bandwidth(State(state): Shared, parts: PathParts) -> Result<Response, Refused> {
    let (peer, path) = parts?.0;
    answer(state, move |state| {
        paths::bandwidth(&state.live(), &state.desk, &peer, &path)
    })
    .await
}

async fn get_trace(
    State(state): Shared,
    Extension(asker): Extension<Asker>,
    peer: PeerPart,
    query: Query1<TraceQuery>,
) -> Result<Response, Refused> {
    let peer = peer?.0;
    let Query(query) = query.map_err(|it| Refused::query(&it, "?seconds=60"))?;
    let place = state.followers.clone().try_acquire_owned();
    let place = place.map_err(|_| state.crowded())?;
    let recording = paths::record(&state.live(), &state.desk, &peer, query.seconds)?;
    let span = Duration::from_secs(query.seconds.into());
    asker.needs(span);
    Ok(paths::stream_of(recording, span, place))
}

async fn get_events(State(state): Shared, query: Query1<EventsQuery>) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|it| Refused::query(&it, "?since=0&kind=decision,state"))?;
    let wanted = events::Wanted::new(&state.live(), &state.desk, &query, Instant::now())?;
    let place = match wanted.waits() {
        true => {
            let place = state.followers.clone().try_acquire_owned();
            Some(place.map_err(|_| state.crowded())?)
        }
        false => None,
    };
    let found = wanted.find(&state.desk).await;
    drop(place);
    answer(state, move |_| Ok(found.answer())).await
}

async fn get_prefilter(State(state): Shared) -> Result<Response, Refused> {
    answer(state, |state| Ok(state.prefilter.view(Instant::now()))).await
}

async fn post_prefilter(
    State(state): Shared,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let request = answers::from_json(&body?)?;
    answer(state, move |state| {
        let done = state.prefilter.order(&request);
        done.map_err(|it| Refused::conflict(it.field, it.error, it.fix))
    })
    .await
}

async fn get_openapi() -> Response {
    answers::json_response(StatusCode::OK, patronus_api::OPENAPI.as_bytes().to_vec())
}

#[cfg(test)]
#[path = "../api_path_tests.rs"]
mod path_tests;
#[cfg(test)]
#[path = "../api_read_tests.rs"]
mod read_tests;
#[cfg(test)]
#[path = "../api_tests.rs"]
mod tests;
