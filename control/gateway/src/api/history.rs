//! What goes into the history, and questions about it.

use patronus_api::{
    HISTORY_POINTS_MAX, HistoryMetricView, HistoryPointView, HistoryQuery, HistoryResponse,
    HistorySeriesView, HistoryStateView, HistoryStatusView,
};
use patronus_engine::{Counters, DropReason, PeerSpec};
use patronus_history::{
    Metric, Question, SAMPLE_INTERVAL_S, SAMPLES_MAX, Sample, Series, State, Status,
};

use super::answers::Refused;
use super::counting::{Moment, Readings};
use super::looks::Rates;
use super::views::SESSION_LIFE;
use super::{ApiState, path_views};

macro_rules! metrics {
    ($($constant:ident: $name:literal, $unit:literal, $help:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Everything that is kept.
        pub const METRICS: &[Metric] = &[$(Metric { name: $name, unit: $unit, help: $help },)*];
    };
}

metrics! {
    SITE_TX_BPS: "site_tx_bps", "bit/s", "Inner IP that the site sent";
    SITE_RX_BPS: "site_rx_bps", "bit/s", "Inner IP that the site received";
    SITE_TX_PPS: "site_tx_pps", "packets/s", "Packets that the site sent";
    SITE_RX_PPS: "site_rx_pps", "packets/s", "Packets that the site received";
    DROPS_PPS: "drops_pps", "packets/s", "Packets dropped";
    DROPS_BY_REASON: "drops", "packets", "Packets dropped in a sample's time, by reason";
    FLOWS: "flows", "flows", "Flows in the tables";
    PEERS_UP: "peers_up", "peers", "Peers with a handshake in the last three minutes";
    WORKER_BUSY_PCT: "worker_busy_pct", "%", "Share of a worker's time that went into work";
    PEER_TX_BPS: "peer_tx_bps", "bit/s", "UDP payload sent to a peer";
    PEER_RX_BPS: "peer_rx_bps", "bit/s", "UDP payload received from a peer";
    PATH_UP: "path_up", "1", "Whether packets could go there";
    PATH_RTT_MS: "path_rtt_ms", "ms", "Round trip";
    PATH_JITTER_MS: "path_jitter_ms", "ms", "Jitter, the worse direction";
    PATH_TX_LOSS_PCT: "path_tx_loss_pct", "%", "Hellos lost towards the peer over ten seconds";
    PATH_RX_LOSS_PCT: "path_rx_loss_pct", "%", "Hellos lost towards us over ten seconds";
    PATH_TX_BPS: "path_tx_bps", "bit/s", "Data sent";
    PATH_RX_BPS: "path_rx_bps", "bit/s", "Data received";
}

/// Peers whose paths are sampled: with two paths each, what a sample has room for.
const PEERS_MAX: usize = 48;

/// Values of one moment, in the making.
struct Values(Vec<(&'static str, String, f64)>);

impl Values {
    fn put(&mut self, metric: &'static str, labels: String, value: f64) {
        if value.is_finite() {
            self.0.push((metric, labels, value));
        }
    }

    fn maybe(&mut self, metric: &'static str, labels: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.put(metric, labels.to_owned(), value);
        }
    }
}

/// The gateway at this moment, and how fast it was since the last sample. `before` are the counters of that.
pub fn sample(
    state: &ApiState,
    rates: Option<&Rates>,
    before: Option<&Counters>,
    moment: Moment,
) -> (Sample, Counters) {
    let live = state.live();
    let readings = Readings::of(state, &live, moment);
    let mut values = Values(Vec::new());
    let none = String::new;
    if let Some(total) = rates.map(Rates::total) {
        values.put(SITE_TX_BPS, none(), total.rx_tun_bps);
        values.put(SITE_RX_BPS, none(), total.tx_tun_bps);
        values.put(SITE_TX_PPS, none(), total.rx_tun_pps);
        values.put(SITE_RX_PPS, none(), total.tx_tun_pps);
        values.put(DROPS_PPS, none(), total.drops_pps);
    }
    let sum = readings.sum();
    if let Some(before) = before {
        for reason in DropReason::ALL {
            let at = *reason as usize;
            let packets = sum.drops[at].saturating_sub(before.drops[at]);
            if packets > 0 {
                let labels = format!("reason={}", reason.name());
                values.put(DROPS_BY_REASON, labels, packets as f64);
            }
        }
    }
    values.put(FLOWS, none(), readings.flow_total().used as f64);
    let uptime = moment.uptime(&live);
    let handshakes = live.snapshot.peers();
    let handshakes = handshakes.filter_map(|spec| spec.stats.last_handshake());
    let up = handshakes.filter(|at| uptime.saturating_sub(*at) <= SESSION_LIFE);
    values.put(PEERS_UP, none(), up.count() as f64);
    for worker in 0..readings.workers.len() {
        let busy = rates.and_then(|it| it.of_worker(worker));
        let labels = format!("worker={worker}");
        values.maybe(WORKER_BUSY_PCT, &labels, busy.map(|it| it.busy_pct));
    }
    let mut specs: Vec<&PeerSpec> = live.snapshot.peers().map(AsRef::as_ref).collect();
    specs.truncate(PEERS_MAX);
    for spec in &specs {
        let labels = format!("peer={}", live.name_of(spec));
        let rates = rates.and_then(|it| it.of_peer(spec.id));
        values.maybe(PEER_RX_BPS, &labels, rates.map(|it| it.0));
        values.maybe(PEER_TX_BPS, &labels, rates.map(|it| it.1));
    }
    for peer in &path_views::paths(&live, state.desk(), &specs).peers {
        for path in &peer.paths {
            let labels = format!("peer={},path={}", peer.peer, path.name);
            let up = f64::from(u8::from(path.state.is_usable()));
            values.put(PATH_UP, labels.clone(), up);
            values.maybe(PATH_RTT_MS, &labels, path.rtt_ms);
            let jitter = path.tx_jitter_ms.into_iter().chain(path.rx_jitter_ms);
            values.maybe(PATH_JITTER_MS, &labels, jitter.reduce(f64::max));
            values.maybe(PATH_TX_LOSS_PCT, &labels, path.tx_loss.ten_s_pct);
            values.maybe(PATH_RX_LOSS_PCT, &labels, path.rx_loss.ten_s_pct);
            values.put(PATH_TX_BPS, labels.clone(), path.tx_bps);
            values.put(PATH_RX_BPS, labels, path.rx_bps);
        }
    }
    let sample = Sample {
        unix_ms: moment.unix_ms,
        values: values.0,
    };
    (sample, sum)
}

/// `GET /v1/history`
pub fn answer(state: &ApiState, query: &HistoryQuery) -> Result<HistoryResponse, Refused> {
    let day_s = SAMPLES_MAX * SAMPLE_INTERVAL_S;
    let since_s = query.since.unwrap_or(day_s);
    if !(1..=day_s).contains(&since_s) {
        let fix = format!("ask for 1 to {day_s} seconds back");
        let error = format!("{since_s} s is out of range");
        return Err(Refused::field("since", error, fix));
    }
    let points = query.points.unwrap_or(HISTORY_POINTS_MAX);
    if !(1..=HISTORY_POINTS_MAX).contains(&points) {
        let fix = format!("ask for 1 to {HISTORY_POINTS_MAX}");
        return Err(Refused::field("points", "out of range", fix));
    }
    if query.label.as_ref().is_some_and(|it| !it.contains('=')) {
        let fix = "write name=value, such as peer=branch";
        return Err(Refused::field("label", "no label", fix));
    }
    let step_s = since_s.div_ceil(points as u64).max(SAMPLE_INTERVAL_S);
    let mut response = HistoryResponse {
        metrics: Vec::new(),
        metric: None,
        step_s,
        series: Vec::new(),
        status: status(&state.history().status()),
    };
    let Some(name) = &query.metric else {
        response.metrics = METRICS.iter().map(metric_view).collect();
        return Ok(response);
    };
    let Some(metric) = METRICS.iter().find(|it| it.name == *name) else {
        let names: Vec<&str> = METRICS.iter().map(|it| it.name).collect();
        let fix = format!("write one of {}", names.join(", "));
        return Err(Refused::missing("metric", "no such metric", fix));
    };
    let question = Question {
        metric: name.clone(),
        label: query.label.clone(),
        since_ms: Moment::now().unix_ms.saturating_sub(since_s * 1000),
        step_ms: step_s * 1000,
    };
    let series = state.history().ask(question).map_err(Refused::no_history)?;
    response.metric = Some(metric_view(metric));
    response.series = series.into_iter().map(series_view).collect();
    Ok(response)
}

fn metric_view(of: &Metric) -> HistoryMetricView {
    HistoryMetricView {
        name: of.name.to_owned(),
        unit: of.unit.to_owned(),
        help: of.help.to_owned(),
    }
}

fn series_view(of: Series) -> HistorySeriesView {
    let points = of.points.iter().map(|it| HistoryPointView {
        unix_ms: it.unix_ms,
        value: super::looks::round(it.value),
        max: super::looks::round(it.max),
    });
    HistorySeriesView {
        points: points.collect(),
        labels: of.labels,
    }
}

/// How the store does.
pub fn status(of: &Status) -> HistoryStatusView {
    HistoryStatusView {
        state: match of.state {
            State::Off => HistoryStateView::Off,
            State::On => HistoryStateView::On,
            State::Failing => HistoryStateView::Failing,
        },
        path: of.path.as_ref().map(|it| it.display().to_string()),
        reason: of.reason.clone(),
        samples: of.samples,
        bytes: of.bytes,
        dropped: of.dropped,
        series_left_out: of.left_out,
    }
}
