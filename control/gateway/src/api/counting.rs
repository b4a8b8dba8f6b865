//! Counters, workers, peers and rules as answers tell them.

use std::time::{Duration, Instant};

use patronus_api::{
    Counter, CountersResponse, CountsView, FlowTableView, GenerationView, MailboxView,
    PREFIXES_MAX, PeerStateView, PeerView, PeersResponse, RULES_LISTED_MAX, RuleHitsView,
    RulesResponse, SessionView, StageView, StagesView, WorkerView, WorkersResponse,
};
use patronus_config::KeyText;
use patronus_engine::stages::Stage;
use patronus_engine::{Counters, PeerSpec, PeerStats};

use super::looks::{Rates, round};
use super::path_views::class_configs;
use super::views::{self, SESSION_LIFE, mode_view};
use super::{ApiState, Live};
use crate::facts::WorkerReading;
use crate::meter::StagesSpent;
use crate::path_desk::PathDesk;
use crate::path_events::state_view;

/// A session is replaced by its initiator after this time, when it sends (WireGuard's `REKEY_AFTER_TIME`).
const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The moment of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the monotonic clock.
    pub now: Instant,
    /// On the wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            now: Instant::now(),
            unix_ms: unix.unwrap_or_default().as_millis() as u64,
        }
    }

    /// Since the gateway's start.
    pub fn uptime(&self, live: &Live) -> Duration {
        self.now.saturating_duration_since(live.snapshot.epoch())
    }

    /// The same in seconds.
    pub fn uptime_s(&self, live: &Live) -> f64 {
        round(self.uptime(live).as_secs_f64())
    }
}

/// What the workers say at one moment.
#[derive(Debug)]
pub struct Readings {
    /// By worker.
    pub workers: Vec<WorkerReading>,
    /// By worker.
    pub flows: Vec<FlowTableView>,
    /// Over the last second.
    pub rates: Option<Rates>,
}

impl Readings {
    /// Reads them.
    pub fn of(state: &ApiState, live: &Live, moment: Moment) -> Self {
        let tables = &state.dataplane.flow_tables;
        Self {
            workers: state.dataplane.facts.read(),
            flows: state
                .flow_gauge
                .read(tables, live.snapshot.epoch(), moment.now),
            rates: state.looks.rates(),
        }
    }

    /// Who has the configuration in force.
    pub fn generation(&self, live: &Live) -> GenerationView {
        let published = live.snapshot.generation();
        let applied = self.workers.iter();
        GenerationView {
            published: published.0,
            applied: applied.filter(|it| it.generation == published).count(),
            workers: self.workers.len(),
        }
    }

    /// Everything that all workers counted.
    pub fn sum(&self) -> Counters {
        let mut sum = Counters::default();
        for reading in &self.workers {
            sum += &reading.counters;
        }
        sum
    }

    /// The same for an answer. It is balanced where every worker is: packets between two of them are counted by one.
    pub fn totals(&self) -> CountsView {
        let each = self.workers.iter().all(|it| it.counters.is_balanced());
        CountsView {
            is_balanced: each,
            ..counts(&self.sum())
        }
    }

    /// The flow tables together.
    pub fn flow_total(&self) -> FlowTableView {
        let sum = |of: fn(&FlowTableView) -> usize| self.flows.iter().map(of).sum();
        FlowTableView {
            used: sum(|it| it.used),
            capacity: sum(|it| it.capacity),
        }
    }

    /// The workers for an answer.
    pub fn worker_views(&self) -> Vec<WorkerView> {
        let numbered = self.workers.iter().enumerate();
        numbered.map(|(at, it)| self.worker(at, it)).collect()
    }

    fn worker(&self, at: usize, reading: &WorkerReading) -> WorkerView {
        let seconds = |span: Duration| round(span.as_secs_f64());
        WorkerView {
            worker: at,
            core: reading.core,
            is_running: !reading.has_ended,
            panics: reading.panics,
            generation: reading.generation.0,
            busy_s: seconds(reading.time.busy),
            spinning_s: seconds(reading.time.looking),
            asleep_s: seconds(reading.time.asleep),
            turns: reading.time.turns,
            rates: self.rates.as_ref().and_then(|it| it.of_worker(at)),
            counts: counts(&reading.counters),
            mailbox: MailboxView {
                waiting: reading.mailbox.0,
                capacity: reading.mailbox.1,
            },
            flows: self.flows.get(at).copied().unwrap_or_default(),
            stages: reading.stages.as_ref().map(stages),
        }
    }
}

/// `GET /v1/workers`
pub fn workers(state: &ApiState) -> WorkersResponse {
    let (live, moment) = (state.live(), Moment::now());
    let readings = Readings::of(state, &live, moment);
    WorkersResponse {
        unix_ms: moment.unix_ms,
        uptime_s: moment.uptime_s(&live),
        generation: readings.generation(&live),
        offload: state.dataplane.offload.clone(),
        cipher: state.dataplane.cipher.clone(),
        workers: readings.worker_views(),
    }
}

/// `GET /v1/counters`
pub fn counters(state: &ApiState) -> CountersResponse {
    let (live, moment) = (state.live(), Moment::now());
    let readings = Readings::of(state, &live, moment);
    CountersResponse {
        unix_ms: moment.unix_ms,
        uptime_s: moment.uptime_s(&live),
        generation: readings.generation(&live),
        totals: readings.totals(),
        rates: readings.rates.as_ref().map(Rates::total),
        flows: readings.flow_total(),
        denied: denied(state),
        api: state.traffic.view(),
        history: state.history_status(),
    }
}

/// What policy refused, under whatever rule.
pub fn denied(state: &ApiState) -> Counter {
    let counts = state.dataplane.counts.counts().unwrap_or_default();
    views::sum(counts.values().map(|it| &it.counter))
}

/// A worker's counters by the names of the API.
pub fn counts(of: &Counters) -> CountsView {
    let drops = of.drops_by_reason();
    CountsView {
        rx_tun_packets: of.rx_tun,
        rx_tun_bytes: of.rx_tun_bytes,
        rx_tun_frames: of.rx_tun_frames,
        tx_tun_packets: of.tx_tun,
        tx_tun_bytes: of.tx_tun_bytes,
        tx_tun_writes: of.tx_tun_writes,
        rx_udp_packets: of.rx_udp,
        rx_udp_bytes: of.rx_udp_bytes,
        rx_udp_frames: of.rx_udp_frames,
        tx_udp_packets: of.tx_udp,
        tx_udp_bytes: of.tx_udp_bytes,
        tx_udp_trains: of.tx_udp_trains,
        consumed: of.consumed,
        own_sent: of.own_sent,
        own_failed: of.own_failed,
        divided: of.divided,
        staged: of.staged,
        handed_out: of.handed_out,
        handed_in: of.handed_in,
        dropped: of.dropped(),
        drops: drops
            .map(|(reason, packets)| (reason.name().to_owned(), packets))
            .collect(),
        handshakes: of.handshakes,
        hellos_sent: of.hellos_sent,
        hellos_received: of.hellos_received,
        copies_sent: of.copies_sent,
        flows_opened: of.flows_opened,
        flows_evicted: of.flows_evicted,
        events_lost: of.events_lost,
        denials_untold: of.denials_untold,
        moves_untold: of.moves_untold,
        refusals: of.refusals,
        refusals_held_back: of.refusals_held_back,
        too_big_told: of.too_big_told,
        mss_clamped: of.mss_clamped,
        congestion_marked: of.congestion_marked,
        is_balanced: of.is_balanced(),
    }
}

fn stages(of: &StagesSpent) -> StagesView {
    let numbered = Stage::ALL.iter().enumerate();
    let stages = numbered.map(|(at, stage)| {
        let spent_ns = of.times.spent[at];
        let share = spent_ns as f64 / of.packets.max(1) as f64;
        StageView {
            stage: stage.name().to_owned(),
            spent_ns,
            laps: of.times.laps[at],
            ns_per_packet: (of.packets > 0).then(|| round(share)),
        }
    });
    StagesView {
        packets: of.packets,
        stages: stages.collect(),
    }
}

/// `GET /v1/peers`
pub fn peers(state: &ApiState) -> PeersResponse {
    let (live, moment) = (state.live(), Moment::now());
    let rates = state.looks.rates();
    let specs = live.snapshot.peers();
    let mut peers: Vec<PeerView> = specs
        .map(|spec| peer(&live, &state.desk, spec, rates.as_ref(), moment))
        .collect();
    peers.sort_by(|a, b| a.peer.cmp(&b.peer));
    PeersResponse {
        unix_ms: moment.unix_ms,
        peers,
    }
}

/// One peer.
pub fn peer(
    live: &Live,
    desk: &PathDesk,
    spec: &PeerSpec,
    rates: Option<&Rates>,
    moment: Moment,
) -> PeerView {
    let uptime = moment.uptime(live);
    let age = |stats: &PeerStats| Some(uptime.saturating_sub(stats.last_handshake()?));
    let sessions: Vec<SessionView> = spec
        .sessions()
        .map(|(worker, is_lane, stats)| SessionView {
            worker: worker.as_usize(),
            is_lane,
            endpoint: stats.endpoint().map(|it| it.remote),
            last_handshake_age_s: age(stats).map(|it| round(it.as_secs_f64())),
            rx_bytes: stats.rx_bytes(),
            rx_packets: stats.rx_packets(),
            tx_bytes: stats.tx_bytes(),
            tx_packets: stats.tx_packets(),
            replayed: stats.replayed(),
            auth_failed: stats.auth_failed(),
        })
        .collect();
    let sum = |of: fn(&SessionView) -> u64| sessions.iter().map(of).sum();
    let first = age(&spec.stats);
    let left = |life: Duration| {
        let age = first.filter(|age| *age <= SESSION_LIFE)?;
        Some(round(life.saturating_sub(age).as_secs_f64()))
    };
    let paths = desk.workers().paths(spec);
    let is_up = |it: &&patronus_engine::PathStatus| state_view(it.state).is_usable();
    let rates = rates.and_then(|it| it.of_peer(spec.id));
    let prefixes = spec.allowed_ips.iter().take(PREFIXES_MAX);
    PeerView {
        peer: live.name_of(spec),
        public_key: spec.public_key.to_base64(),
        is_site: desk.workers().is_answered(spec),
        state: match first {
            None => PeerStateView::Never,
            Some(age) if age <= SESSION_LIFE => PeerStateView::Up,
            Some(_) => PeerStateView::Expired,
        },
        endpoint: spec.stats.endpoint().map(|it| it.remote).or(spec.endpoint),
        allowed_ips: prefixes.map(ToString::to_string).collect(),
        allowed_ips_left_out: spec.allowed_ips.len().saturating_sub(PREFIXES_MAX),
        keepalive_s: spec.keepalive.map(|it| it.as_secs()),
        last_handshake_age_s: first.map(|it| round(it.as_secs_f64())),
        rekey_in_s: left(REKEY_AFTER).filter(|_| spec.stats.is_initiator()),
        expires_in_s: left(SESSION_LIFE),
        rx_bytes: sum(|it| it.rx_bytes),
        rx_packets: sum(|it| it.rx_packets),
        tx_bytes: sum(|it| it.tx_bytes),
        tx_packets: sum(|it| it.tx_packets),
        rx_bps: rates.map(|it| it.0),
        tx_bps: rates.map(|it| it.1),
        replayed: sum(|it| it.replayed),
        auth_failed: sum(|it| it.auth_failed),
        mtu: mtu(live, desk, spec, &paths),
        paths_up: paths.iter().filter(is_up).count(),
        paths: paths.len(),
        sessions,
    }
}

/// That of the path that most classes use; of the lone path where no routes decide.
fn mtu(
    live: &Live,
    desk: &PathDesk,
    spec: &PeerSpec,
    paths: &[patronus_engine::PathStatus],
) -> Option<u16> {
    let routes = desk.workers().routes(spec);
    let classes = class_configs(&live.snapshot).count();
    let uses = |path: &patronus_engine::PathStatus| {
        let routes = routes.iter().take(classes);
        routes.filter(|it| it.path == Some(path.path)).count()
    };
    let used = paths.iter().max_by_key(|it| uses(it))?;
    used.metrics.mtu
}

/// `GET /v1/policy/rules`
pub fn rules(state: &ApiState) -> RulesResponse {
    let (live, moment) = (state.live(), Moment::now());
    let (policy, uptime) = (&live.policy, moment.uptime(&live));
    let mut counts = state.dataplane.counts.counts();
    let all = policy.table.rules().count();
    let rules = policy.table.rules().take(RULES_LISTED_MAX);
    let rules: Vec<RuleHitsView> = rules
        .map(|(id, entry)| {
            let hits = counts
                .as_mut()
                .map(|all| all.remove(&id.number()).unwrap_or_default());
            let last_s = hits.and_then(|it| it.last_s);
            let age = |last_s: u32| round((uptime.as_secs_f64() - f64::from(last_s)).max(0.0));
            let said = entry.words();
            RuleHitsView {
                rule: views::rule_ref(&entry.to_ref()),
                mode: mode_view(entry.policy.mode()),
                action: match said.as_ref().map(|it| it.action) {
                    Some("accept") => "allow",
                    Some(action) => action,
                    None => "isolate",
                }
                .to_owned(),
                selects: entry.policy.selects(),
                matches: match &said {
                    Some(said) => format!("{} on {}", said.peers, said.ports),
                    None => "what no rule of the direction allows".to_owned(),
                },
                hits: hits.map(|it| it.counter),
                last_hit_age_s: last_s.map(age),
            }
        })
        .collect();
    RulesResponse {
        unix_ms: moment.unix_ms,
        has_policy: policy.has_policy,
        generation: policy.table.generation(),
        left_out: all - rules.len(),
        rules,
        other: counts.map(|rest| views::sum(rest.values().map(|it| &it.counter))),
    }
}
