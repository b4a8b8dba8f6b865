//! The daemon: one control thread on tokio beside the workers.
//!
//! It owns what the operator wants ([`Registry`]) and what the kernel has ([`Link`]), takes reloads, UAPI
//! requests and signals one after the other, and publishes a new snapshot after each change. Workers forward
//! whether it lives or not.

mod via;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

mod configuring;
mod guard;
mod requests;

use anyhow::Context;
use patronus_api::GradeView;
use patronus_config::Config;
use patronus_engine::{Counters, DropReason, Engine, EngineConfig, Event};
use patronus_io::{OffloadReport, Poller, UplinkSet};
use patronus_policy::Severity;
use patronus_tunnel::WorkerId;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::af_xdp::XdpUplinks;
use crate::api::{ApiServer, ApiState, Dataplane, TlsServer, WorkerCounts};
use crate::config_book::{self, Begun, ConfigBook, ConfigCall};
use crate::config_store::Now;
use crate::denials::DenialLog;
use crate::exchange::{self, EventSource, Exchange, Mailbox, Order};
use crate::facts::RunningWorkers;
use crate::in_force::{base_of, live, load_policy, pods_of, policy_of, wanted_routes};
use crate::link::Link;
use crate::metrics::MetricsServer;
use crate::names::{resolve, resolve_later};
use crate::path_desk::{PathDesk, Workers, uplink_name};
use crate::path_events::{About, What};
use crate::path_log::PathLog;
use crate::policy::{self, PolicyInForce, PolicyStore};
use crate::prefilter::{DeniedEverywhere, Prefilter, PrefilterMetrics};
use crate::recorder::{Recorder, history_of};
use crate::registry::Registry;
use crate::report::{Report, ReportFile, StatusLine};
use crate::startup::{self, StartError};
use crate::uapi_server::{Call, UapiSocket};
use crate::uplinks::{News, UplinkWatch};
use crate::worker::{self, WorkerSeed};
use via::ViaDoor;

const STATUS_INTERVAL: Duration = Duration::from_secs(30);
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// How often names are asked for that nobody answered yet.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);

/// How to run a gateway.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Where the UAPI socket goes.
    pub uapi_dir: PathBuf,
    /// Where the local API's socket goes.
    pub api_dir: PathBuf,
    /// End when standard input ends: for a parent that must not leave gateways behind.
    pub exit_with_stdin: bool,
    /// Write a [`Report`] as JSON there at the end.
    pub report: Option<PathBuf>,
}

/// Runs a gateway until SIGTERM or SIGINT.
///
/// # Errors
/// One line that says what is missing and what fixes it.
pub fn run(options: &RunOptions) -> anyhow::Result<()> {
    let begun = config_book::begin(&options.config, &Now::read())?;
    let report = options.report.as_deref().map(ReportFile::create);
    let report = report.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread's runtime")?;
    let outcome = runtime.block_on(async {
        let (mut daemon, doors) = Daemon::begin(begun, options).await?;
        let outcome = daemon.control(doors).await;
        daemon.stop(report).and(outcome)
    });
    // What an API client asked for last may still be computed; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

struct Daemon {
    config: Config,
    /// The configuration of the start: what takes effect then only is in force as it stands here.
    started: Config,
    config_path: PathBuf,
    book: Arc<ConfigBook>,
    registry: Registry,
    link: Link,
    exchange: Arc<Exchange>,
    workers: Vec<JoinHandle<Counters>>,
    published: Vec<Arc<patronus_engine::PublishedCounters>>,
    rule_counts: WorkerCounts,
    events: EventSource,
    uapi: Option<UapiSocket>,
    api: Option<ApiServer>,
    metrics: Option<MetricsServer>,
    tls: Option<TlsServer>,
    recorder: Recorder,
    api_state: Arc<ApiState>,
    desk: Arc<PathDesk>,
    /// `None` after a compilation that ended by a panic: then the policy in force stays as it is.
    policy: Option<PolicyStore>,
    in_force: Arc<PolicyInForce>,
    denials: DenialLog,
    uplinks: UplinkWatch,
    xdp: XdpUplinks,
    path_log: PathLog,
    via: ViaDoor,
    prefilter: Arc<Prefilter>,
    port: u16,
    /// All UDP ports, `port` among them.
    ports: Vec<u16>,
    /// When the workers got their last configuration.
    published_at: Instant,
    mark: Option<u32>,
    offload: OffloadReport,
    status: StatusLine,
}

/// Where control hears from.
struct Doors {
    calls: mpsc::Receiver<Call>,
    config_calls: mpsc::Receiver<ConfigCall>,
    signals: Signals,
    exit_with_stdin: bool,
}

/// The signals that a gateway answers to; without a listener each of them would kill it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

impl Daemon {
    /// Starts; what waits for its confirmation and cannot be started gives way to what was before.
    async fn begin(mut begun: Begun, options: &RunOptions) -> anyhow::Result<(Self, Doors)> {
        let started = match Self::start(&begun, options).await {
            Err(error) if begun.is_pending(&Now::read()) => {
                begun.go_back(&format!("{error:#}"), &Now::read())?;
                Self::start(&begun, options).await?
            }
            other => other?,
        };
        for (grade, text) in begun.notes {
            started.0.say(grade, text);
        }
        Ok(started)
    }

    async fn start(begun: &Begun, options: &RunOptions) -> anyhow::Result<(Self, Doors)> {
        let (config, book) = (begun.config.clone(), begun.book.clone());
        // Before any door opens: no packet passes without it.
        let seed = startup::random_seed();
        let store = load_policy(&config, &options.config, seed).await?;
        let in_force = store.in_force().clone();
        let wanted = startup::worker_count(&config);
        let mut tun = startup::open_tun(&config, wanted)?;
        let workers = tun.queues.len();
        let mark = startup::configured_mark(&config.uplinks);
        let port = config.uplinks.listen_port;
        let mut uplinks = startup::bind_uplinks(&config, port, mark, workers, None)?;
        let xdp = XdpUplinks::open(&config, &mut uplinks);
        let mut watch = UplinkWatch::new(&config.uplinks).context(NO_NETLINK)?;
        let uplink_news = watch.look().await;
        let offload = startup::offload_report(&tun, &uplinks);

        let epoch = Instant::now();
        let mtu = usize::from(config.site.mtu.bytes());
        let mut registry = Registry::new(
            config.site.private_key.clone(),
            mtu,
            workers,
            startup::cipher(config.dataplane.cipher),
            epoch,
        );
        if startup::has_lanes(&config, workers) {
            registry = registry.with_lanes();
        }
        registry.set_peers(config.peers.clone());
        registry.set_policy(policy_of(&config, &in_force));
        registry.set_plan(watch.plan(&config.classes));
        registry.set_pods(pods_of(&config, &in_force));
        let names = registry.names_to_resolve(epoch);
        resolve(&mut registry, names).await;
        let snapshot = registry.compile();

        let pollers = (0..workers)
            .map(|_| Poller::new())
            .collect::<Result<Vec<_>, _>>();
        let pollers = pollers.context("cannot make an epoll instance: raise `ulimit -n`")?;
        let mailboxes = pollers
            .iter()
            .map(|poller| Mailbox::new(poller.waker()))
            .collect();
        let exchange = Arc::new(Exchange::new(snapshot.clone(), mailboxes));
        uplink_news.tell(&exchange);
        let trains = worker::trains_of(uplinks.sockets.iter());
        let engines = engines(&config, workers, &snapshot, |worker| EngineConfig {
            worker,
            workers,
            flow_slots: config.dataplane.flow_slots.count(),
            seed: startup::random_seed(),
            joining: worker::joining_of(tun.offload),
            trains,
        });
        let published: Vec<_> = engines
            .iter()
            .map(|engine| engine.published().clone())
            .collect();
        let flow_tables = engines
            .iter()
            .map(|engine| engine.flow_table().clone())
            .collect();
        let rule_counts = engines.iter().map(|engine| engine.rule_counts().clone());
        let rule_counts = WorkerCounts(rule_counts.collect());

        let mut link = Link::new(&tun.name, tun.ifindex)?;
        link.bring_up(u32::from(config.site.mtu.bytes())).await?;
        link.set_addresses(config.site.addresses.iter().copied())
            .await?;
        link.set_routes(wanted_routes(&config, registry.peers()))
            .await?;
        let (calls_in, calls) = mpsc::channel(1);
        let uapi = UapiSocket::open(&options.uapi_dir, &tun.name, calls_in)?;
        let live = live(&config, &registry, snapshot, in_force.clone());
        let prefilter = Arc::new(Prefilter::new());
        let desk = PathDesk::new(Workers {
            exchange: exchange.clone(),
            published: Vec::clone(&published),
        });
        let cores = startup::cores(&config.dataplane.pinning, workers);
        let dataplane = Dataplane {
            flow_tables,
            counts: Box::new(DeniedEverywhere {
                workers: rule_counts.clone(),
                prefilter: prefilter.clone(),
            }),
            facts: Box::new(RunningWorkers {
                exchange: exchange.clone(),
                published: Vec::clone(&published),
                cores: cores.iter().map(|it| it.map(|core| core.0)).collect(),
            }),
            offload: offload.to_string(),
            cipher: registry.cipher().to_string(),
            metrics: vec![
                Box::new(PrefilterMetrics(prefilter.clone())),
                Box::new(xdp.told()),
            ],
        };
        let history = history_of(&config, &base_of(&options.config));
        let api_state = ApiState::new(live, dataplane, history, desk.clone(), seed)
            .with_prefilter(prefilter.clone())
            .with_config(book.clone());
        let ports = uplinks.ports();
        let api = ApiServer::open(&options.api_dir, api_state.clone())?;
        let metrics = match config.api.metrics_listen {
            Some(addr) => {
                let server = MetricsServer::open(addr.addr(), api_state.clone()).await?;
                tracing::info!(addr = %server.addr(), "metrics are served at /metrics");
                Some(server)
            }
            None => None,
        };
        let tls = match &config.api.listen {
            Some(listen) => {
                let base = base_of(&options.config);
                let server = TlsServer::open(listen, &base, api_state.clone()).await?;
                tracing::info!(addr = %server.addr(), "the API is served by TCP with TLS");
                Some(server)
            }
            None => None,
        };
        let via = ViaDoor::open(&api_state, &desk, &tun.name);

        // Whoever reads that the gateway runs may send a SIGHUP at once.
        let signals = Signals::listen()?;
        let (events_in, events) = exchange::events();
        let seeds = engines
            .into_iter()
            .zip(tun.queues.drain(..))
            .zip(uplinks.sockets)
            .zip(pollers);
        let mut threads = Vec::with_capacity(workers);
        for ((((engine, tun), sockets), poller), core) in seeds.zip(cores) {
            let seed = WorkerSeed {
                engine,
                tun,
                sockets,
                poller,
                core,
                spin: config.dataplane.spin.to_duration(),
                uplinks: watch.ways(),
                exchange: exchange.clone(),
                events: events_in.clone(),
            };
            threads.push(worker::spawn(seed).context("cannot start a worker thread")?);
        }

        let config_calls = book.take_calls().context("the start was begun twice")?;
        let mut daemon = Self {
            config_path: options.config.clone(),
            book,
            started: config.clone(),
            registry,
            link,
            exchange,
            workers: threads,
            published,
            rule_counts,
            events,
            uapi: Some(uapi),
            api: Some(api),
            metrics,
            tls,
            recorder: Recorder::new(epoch),
            api_state,
            desk,
            policy: Some(store),
            in_force,
            denials: DenialLog::new(epoch),
            uplinks: watch,
            xdp,
            path_log: PathLog::new(epoch),
            via,
            prefilter,
            port: uplinks.port,
            ports,
            published_at: Instant::now(),
            mark,
            offload,
            status: StatusLine::new(epoch),
            config,
        };
        daemon.remember_uplinks(&uplink_news);
        daemon.configure_prefilter().await;
        daemon.log_start(tun.backend);
        let doors = Doors {
            calls,
            config_calls,
            signals,
            exit_with_stdin: options.exit_with_stdin,
        };
        Ok((daemon, doors))
    }

    fn log_start(&self, backend: &str) {
        tracing::info!(
            site = self.config.site.name.as_str(),
            interface = self.config.site.interface.as_str(),
            port = self.port,
            workers = self.workers.len(),
            peers = self.registry.peers().len(),
            backend,
            offload = %self.offload,
            cipher = %self.registry.cipher(),
            "gateway runs"
        );
        self.log_policy();
        for why in &self.offload.why {
            tracing::info!("offload: {why}");
        }
        let is_off =
            |path: &str| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0");
        for family in startup::not_forwarded(&self.config, is_off) {
            tracing::warn!(
                "net.{family} is 0: this machine forwards nothing between its LAN and the tunnel; \
                 run `sysctl -w net.{family}=1`"
            );
        }
    }

    /// Takes one thing at a time until it is told to end.
    async fn control(&mut self, mut doors: Doors) -> anyhow::Result<()> {
        let mut status = tokio::time::interval_at(
            tokio::time::Instant::now() + STATUS_INTERVAL,
            STATUS_INTERVAL,
        );
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (resolved_in, mut resolved) = mpsc::channel(1);
        let mut next_resolve = Instant::now() + RESOLVE_INTERVAL;
        let stdin_ended = stdin_ended(doors.exit_with_stdin);
        tokio::pin!(stdin_ended);
        loop {
            tokio::select! {
                _ = doors.signals.terminate.recv() => { tracing::info!("SIGTERM: stopping"); return Ok(()); }
                _ = doors.signals.interrupt.recv() => { tracing::info!("SIGINT: stopping"); return Ok(()); }
                () = &mut stdin_ended => { tracing::info!("standard input ended: stopping"); return Ok(()); }
                _ = doors.signals.hangup.recv() => self.reload().await,
                Some((request, reply)) = doors.calls.recv() => {
                    // The client may have left; then nobody wants the answer.
                    let _ = reply.send(self.answer(request).await);
                }
                Some(call) = doors.config_calls.recv() => self.take_config_call(call).await,
                Some((name, addr)) = resolved.recv() => {
                    if self.registry.set_resolved(name, addr) {
                        self.publish();
                    }
                }
                () = self.events.arrived() => self.take_events(),
                told = self.via.news() => self.take_via(told),
                () = self.uplinks.changed() => self.look_at_uplinks().await,
                _ = status.tick() => self.log_status(),
                _ = housekeeping.tick() => {
                    self.check_interface()?;
                    self.check_deadline().await;
                    self.retry_uplinks();
                    self.prefilter.look(None);
                    self.learn_receivers();
                    self.xdp.look(&self.registry, self.mark, &self.exchange).await;
                    self.api_state.look(Instant::now());
                    self.recorder.tick(&self.api_state);
                    self.tell_notices();
                    if Instant::now() >= next_resolve {
                        next_resolve = Instant::now() + RESOLVE_INTERVAL;
                        // In case a message of netlink was lost.
                        self.look_at_uplinks().await;
                        for name in self.registry.names_to_resolve(Instant::now()) {
                            tokio::spawn(resolve_later(name, resolved_in.clone()));
                        }
                    }
                }
            }
        }
    }

    /// Without its interface a gateway carries nothing: it ends, so that whoever supervises it starts it anew.
    fn check_interface(&self) -> anyhow::Result<()> {
        let mut mailboxes = self.exchange.mailboxes().iter();
        let gone = mailboxes.any(|mailbox| mailbox.tun_gone.load(Ordering::Relaxed));
        anyhow::ensure!(
            !gone,
            "interface {} was deleted while the gateway ran: start it again",
            self.config.site.interface.as_str()
        );
        Ok(())
    }

    /// Something may have happened to an interface: workers learn of it, and of paths that came or went with it.
    async fn look_at_uplinks(&mut self) {
        let news = self.uplinks.look().await;
        self.tell_uplinks(&news);
        if news.plan_changed {
            self.registry
                .set_plan(self.uplinks.plan(&self.config.classes));
            self.publish();
        }
        self.look_at_prefilter().await;
    }

    /// Workers act on it, operators may ask for it.
    fn tell_uplinks(&self, news: &News) {
        news.tell(&self.exchange);
        self.remember_uplinks(news);
    }

    fn remember_uplinks(&self, news: &News) {
        let live = self.api_state.live();
        for (uplink, fault) in news.faults() {
            let what = What::Uplink(uplink_name(&live.snapshot, uplink), fault);
            let about = About::default();
            self.desk.put(&live.snapshot, about, what, Instant::now());
        }
    }

    /// What could not be sent by an uplink that looks well is tried again.
    fn retry_uplinks(&self) {
        let mailboxes = self.exchange.mailboxes().iter();
        let refused = mailboxes.map(Mailbox::take_refused);
        let refused = refused.fold(UplinkSet::default(), UplinkSet::union);
        if !refused.is_empty() {
            self.uplinks.retry(refused).tell(&self.exchange);
        }
    }

    /// What the store of samples has to say.
    fn tell_notices(&self) {
        for notice in self.api_state.history().take_notices() {
            let grade = match notice.is_bad {
                true => {
                    tracing::warn!("{}", notice.text);
                    GradeView::Warning
                }
                false => {
                    tracing::info!("{}", notice.text);
                    GradeView::Good
                }
            };
            self.tell(grade, notice.text);
        }
    }

    /// Something about the gateway itself that operators may ask for.
    fn tell(&self, grade: GradeView, text: String) {
        let live = self.api_state.live();
        let (about, what) = (About::default(), What::Gateway(grade, text));
        self.desk.put(&live.snapshot, about, what, Instant::now());
    }

    fn publish(&mut self) {
        let snapshot = self.registry.compile();
        self.forget_receivers();
        self.publish_to_kernel(&snapshot);
        self.exchange.publish(snapshot.clone());
        let in_force = self.in_force.clone();
        self.api_state
            .publish(live(&self.config, &self.registry, snapshot, in_force));
        self.via.published();
        self.readdress_prefilter();
    }

    /// Changes what differs between the running configuration and `new`, and nothing else.
    async fn apply(&mut self, mut new: Config) -> anyhow::Result<()> {
        let running = (&self.config.site.interface, &self.config.dataplane);
        if running != (&new.site.interface, &new.dataplane) {
            tracing::warn!("[site] interface and [dataplane] take effect at the next start");
            (new.site.interface, new.dataplane) = (running.0.clone(), running.1.clone());
        }
        if startup::io_of(&new.uplinks).ne(startup::io_of(&self.config.uplinks)) {
            tracing::warn!("[[uplink]] io takes effect at the next start");
        }
        let mark = startup::configured_mark(&new.uplinks);
        // `wg set` may have moved the port: what counts is where the sockets are. Who asks for any port keeps it.
        let port = match (new.uplinks.listen_port, self.config.uplinks.listen_port) {
            (0, 0) => self.port,
            (port, _) => port,
        };
        // The riskiest first: nothing has changed yet if the port is taken.
        let bound = startup::bound_interface(&self.config.uplinks);
        if port != self.port || startup::bound_interface(&new.uplinks) != bound {
            let uplinks = self.bind(&new, port, mark)?;
            self.move_sockets(uplinks);
            self.mark = mark;
        } else if mark != self.mark {
            self.set_mark(mark);
        }
        self.registry.set_private_key(new.site.private_key.clone());
        self.registry.set_mtu(usize::from(new.site.mtu.bytes()));
        self.registry.set_peers(new.peers.clone());
        let names = self.registry.names_to_resolve(Instant::now());
        resolve(&mut self.registry, names).await;
        self.uplinks.configure(&new.uplinks);
        let news = self.uplinks.look().await;
        self.tell_uplinks(&news);
        self.registry.set_plan(self.uplinks.plan(&new.classes));
        self.config = new;
        self.registry
            .set_pods(pods_of(&self.config, &self.in_force));
        self.publish();
        let (mtu, addresses) = (self.config.site.mtu, &self.config.site.addresses);
        self.link.bring_up(u32::from(mtu.bytes())).await?;
        self.link.set_addresses(addresses.iter().copied()).await?;
        self.update_routes().await
    }

    /// Takes what the folder of manifests says; what is refused keeps its previous version. Compiles beside this
    /// thread; workers go on with the old tables until the new ones are whole.
    async fn reload_policy(&mut self, new: &Config) {
        let Some(mut store) = self.policy.take() else {
            tracing::error!("policy cannot change any more: restart the gateway");
            return;
        };
        let was = self.in_force.has_policy;
        let base = base_of(&self.config_path);
        let folder = new.policy.directory.clone();
        let work = move || {
            let changes = match policy::read_folder(&base, &folder) {
                Ok(Some(loaded)) => store.apply(loaded),
                Ok(None) if !was => 0,
                // An operator who wants no policy says so by an empty folder; one that is gone is an accident.
                Ok(None) => {
                    let why = "the folder is gone and its policy stays in force: make it again, empty for no policy";
                    let place = folder.path.to_string_lossy();
                    store.keep(policy::file_fault(&place, why.to_owned()));
                    0
                }
                Err(error) => {
                    let place = folder.path.to_string_lossy();
                    store.keep(policy::file_fault(&place, error.to_string()));
                    0
                }
            };
            (store, changes)
        };
        let Ok((store, changes)) = tokio::task::spawn_blocking(work).await else {
            let why = "policy: the compilation ended by a panic; what is in force stays: restart the gateway";
            tracing::error!("{why}");
            self.tell(GradeView::Bad, why.to_owned());
            return;
        };
        self.in_force = store.in_force().clone();
        self.policy = Some(store);
        self.log_policy();
        if self.in_force.has_policy {
            let generation = self.in_force.table.generation();
            tracing::info!(changes, generation, "policy loaded");
        }
        self.tell_policy(changes, was);
        self.registry.set_policy(policy_of(new, &self.in_force));
    }

    /// The event of a load of policy: one that changed something, or of which a part was refused.
    fn tell_policy(&self, changes: usize, was: bool) {
        let refused = self.in_force.report.refused.len();
        let is_faulty = self.in_force.report.diagnostics.iter();
        let faults = is_faulty
            .filter(|it| it.severity == Severity::Error)
            .count();
        let generation = self.in_force.table.generation();
        let (grade, text) = match (faults, self.in_force.has_policy) {
            (0, _) if changes == 0 => return,
            (0, true) => (
                GradeView::Good,
                format!("policy generation {generation} is in force; objects changed: {changes}"),
            ),
            (0, false) if was => (
                GradeView::Warning,
                "no policy is in force any more".to_owned(),
            ),
            (0, false) => return,
            (faults, _) => (
                GradeView::Bad,
                format!(
                    "policy has faults: {faults}; objects changed: {changes}, kept as they were: {refused}; \
                     `patronus policy check` says which"
                ),
            ),
        };
        self.tell(grade, text);
    }

    /// What the last load of policy said.
    fn log_policy(&self) {
        let report = &self.in_force.report;
        for diagnostic in &report.diagnostics {
            let line = policy::line_of(diagnostic);
            match diagnostic.severity {
                Severity::Error => tracing::error!("policy: {line}"),
                Severity::Warning => tracing::warn!("policy: {line}"),
            }
        }
        if report.left_out > 0 {
            tracing::warn!("policy: and {} more of these", report.left_out);
        }
        for kept in &report.refused {
            tracing::warn!(
                "policy: the previous version of {kept} stays in force; a restart would refuse to run"
            );
        }
    }

    async fn update_routes(&mut self) -> anyhow::Result<()> {
        let routes = wanted_routes(&self.config, self.registry.peers());
        Ok(self.link.set_routes(routes).await?)
    }

    /// New sockets, while the old ones still receive.
    fn bind(
        &self,
        config: &Config,
        port: u16,
        mark: Option<u32>,
    ) -> Result<startup::Uplinks, StartError> {
        startup::bind_uplinks(config, port, mark, self.workers.len(), Some(self.port))
    }

    fn move_sockets(&mut self, uplinks: startup::Uplinks) {
        (self.port, self.ports) = (uplinks.port, uplinks.ports());
        self.xdp.set_ports(&uplinks.sockets);
        for (at, sockets) in uplinks.sockets.into_iter().enumerate() {
            self.exchange
                .order(WorkerId(at as u8), Order::Sockets(Box::new(sockets)));
        }
        tracing::info!(port = self.port, "listening");
    }

    fn set_mark(&mut self, mark: Option<u32>) {
        self.mark = mark;
        for at in 0..self.workers.len() {
            self.exchange.order(WorkerId(at as u8), Order::Mark(mark));
        }
    }

    fn log_status(&mut self) {
        let mut sum = Counters::default();
        for published in &self.published {
            sum += &published.load();
        }
        let now = Instant::now();
        let since_epoch = now.saturating_duration_since(self.registry.epoch());
        let specs = self
            .registry
            .peers()
            .iter()
            .filter_map(|peer| self.registry.spec(&peer.public_key));
        let line = self
            .status
            .next(sum, specs.map(AsRef::as_ref), since_epoch, now);
        let line = line + &self.status.prefilter(&self.prefilter.counts());
        tracing::info!("status: {line}");
        if let Some(dead) = self.workers.iter().position(JoinHandle::is_finished) {
            tracing::error!(
                worker = dead,
                "a worker has stopped: its peers are cut off; restart the gateway"
            );
        }
    }

    fn take_events(&mut self) {
        let mut lanes_changed = false;
        let live = self.api_state.live();
        for event in self.events.take() {
            let now = Instant::now();
            let (id, what) = match event {
                Event::HandshakeCompleted(id) => (id, What::HandshakeCompleted),
                Event::EndpointChanged(id, endpoint) => (id, What::Endpoint(endpoint)),
                Event::HandshakeTimeout(id) => (id, What::HandshakeGivenUp),
                Event::LanesAgreed(id, lanes) => {
                    let count = lanes.len();
                    if !self.registry.set_lanes(id, lanes) {
                        continue;
                    }
                    lanes_changed = true;
                    (id, What::Lanes(count))
                }
                Event::Denied(denial) => {
                    let line = self.denials.line(&self.in_force.table, &denial, now);
                    if let Some(line) = line {
                        tracing::info!("policy: {line}");
                        tracing::debug!(key = ?denial.key, "the denied connection");
                    }
                    continue;
                }
                Event::Path(id, event) => {
                    let name = live.name_of_id(id);
                    let told = self.desk.take(&live.snapshot, (id, &name), event, now);
                    if let Some(record) = told {
                        self.path_log.tell(&record, now);
                    }
                    continue;
                }
            };
            let peer = Some(live.name_of_id(id));
            let about = About { peer, path: None };
            let record = self.desk.put(&live.snapshot, about, what, now);
            self.path_log.tell(&record, now);
        }
        if lanes_changed {
            self.publish();
        }
    }

    /// Stops the workers, which closes the interface; then tells what happened to every packet.
    fn stop(&mut self, report: Option<ReportFile>) -> anyhow::Result<()> {
        drop(self.uapi.take());
        drop(self.api.take());
        drop(self.metrics.take());
        drop(self.tls.take());
        self.exchange.stop();
        self.xdp.log_counts();
        let mut counters: Vec<Counters> = Vec::new();
        for (at, worker) in self.workers.drain(..).enumerate() {
            match worker.join() {
                Ok(last) => counters.push(last),
                Err(_) => {
                    tracing::error!(worker = at, "the worker ended by a panic");
                    counters.push(self.published[at].load());
                }
            }
        }
        for (mailbox, counters) in self.exchange.mailboxes().iter().zip(&mut counters) {
            while let Some((_, handoff)) = mailbox.take() {
                counters.handed_in += handoff.packets();
                counters.drop(DropReason::Shutdown, handoff.packets());
            }
        }
        let panics = self
            .exchange
            .mailboxes()
            .iter()
            .map(|mailbox| mailbox.panics.load(Ordering::Relaxed))
            .sum();
        let mut denied = self.rule_counts.total();
        denied.packets += self.prefilter.denied().values().sum::<u64>();
        let end = Report::new(&counters, self.offload.to_string(), panics, denied)
            .with_prefilter(&self.prefilter.counts());
        self.prefilter.close();
        tracing::info!(
            rx = end.packets.rx,
            tx = end.packets.tx,
            consumed = end.packets.consumed,
            dropped = end.packets.drops.values().sum::<u64>(),
            denied_connections = end.denied.connections,
            balanced = end.balanced,
            "stopped"
        );
        report.map_or(Ok(()), |file| file.write(&end))
    }
}

fn engines(
    config: &Config,
    workers: usize,
    snapshot: &Arc<patronus_engine::Snapshot>,
    engine_config: impl Fn(WorkerId) -> EngineConfig,
) -> Vec<Engine> {
    debug_assert!(config.dataplane.flow_slots.count().is_power_of_two());
    let now = Instant::now();
    let ids = (0..workers).map(|worker| WorkerId(worker as u8));
    let mut engines: Vec<Engine> = ids
        .map(|id| Engine::new(engine_config(id), snapshot, now))
        .collect();
    let tables: Vec<_> = engines
        .iter()
        .map(|engine| engine.flow_table().clone())
        .collect();
    for (at, engine) in engines.iter_mut().enumerate() {
        let others = tables.iter().enumerate().filter(|(other, _)| *other != at);
        engine.set_siblings(others.map(|(_, table)| table.clone()).collect());
    }
    engines
}

/// Ends when standard input does; never where that was not asked for.
async fn stdin_ended(wanted: bool) {
    if !wanted {
        std::future::pending::<()>().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut sink = [0; 64];
    while !matches!(stdin.read(&mut sink).await, Ok(0) | Err(_)) {}
}

const NO_NETLINK: &str = "cannot watch the uplinks: no netlink socket";
