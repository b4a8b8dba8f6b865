//! Paths as answers tell them: numbers in the units of people, and why a class does not use a path.

use std::time::Instant;

use patronus_api::{
    BandwidthView, BoundsView, ClassRouteView, ClassView, LossView, PathView, PathsResponse,
    PeerPathsView, StandingView, UtilitiesView, ViaStateView, ViaView,
};
use patronus_config::KeyText;
use patronus_engine::{PathStatus, PeerSpec, Snapshot};
use patronus_packet::UplinkId;
use patronus_path::prober::UplinkProfile;
use patronus_path::{
    Bandwidth, BandwidthSource, Bounds, CLASSES_MAX, ClassConfig, ClassId, LossWindows,
    PathMetrics, Route, Scoring,
};

use super::Live;
use crate::path_desk::{PathDesk, Pins, path_name, uplink_name};
use crate::path_events::{reason_name, rounded, state_view, words};
use crate::via::{Check, ViaState};

/// The paths to these peers.
pub fn paths(live: &Live, desk: &PathDesk, specs: &[&PeerSpec]) -> PathsResponse {
    let mut peers: Vec<PeerPathsView> = specs.iter().map(|it| peer(live, desk, it)).collect();
    peers.sort_by(|a, b| a.peer.cmp(&b.peer));
    let classes = class_configs(&live.snapshot).enumerate();
    PathsResponse {
        classes: classes.map(|(at, it)| class(live, at, it)).collect(),
        peers,
    }
}

fn peer(live: &Live, desk: &PathDesk, spec: &PeerSpec) -> PeerPathsView {
    let all = Standings::of(live, desk, spec);
    PeerPathsView {
        peer: live.name_of(spec),
        public_key: spec.public_key.to_base64(),
        is_site: desk.workers().is_answered(spec),
        prober_starved: Some(desk.workers().starved(spec)),
        paths: all.paths.iter().map(|it| path(live, &all, it)).collect(),
        routes: all.routes(),
        vias: desk.vias(spec).iter().map(|it| via(live, it)).collect(),
    }
}

fn via(live: &Live, check: &Check) -> ViaView {
    let now = Instant::now();
    let age = |at: Instant| rounded(Some(now.saturating_duration_since(at).as_secs_f64()));
    let prefix = check.via.prefix;
    let detour = live.snapshot.detour_of(&prefix);
    let detour = detour.map(|id| live.name_of_id(id));
    ViaView {
        prefix: prefix.to_string(),
        state: match check.state {
            ViaState::Unknown => ViaStateView::Unknown,
            ViaState::Reachable => ViaStateView::Reachable,
            ViaState::Unreachable => ViaStateView::Unreachable,
        },
        text: check.text(now),
        state_age_s: age(check.since).unwrap_or_default(),
        answer_age_s: check.answered_at.and_then(age),
        probes: check.via.probes.clone(),
        interval_ms: u64::try_from(check.via.interval.as_millis()).unwrap_or(u64::MAX),
        misses: check.via.misses,
        detour,
    }
}

/// One path among those of its peer.
pub fn path(live: &Live, all: &Standings, status: &PathStatus) -> PathView {
    let (snapshot, metrics) = (&live.snapshot, &status.metrics);
    let uplink = status.endpoint.uplink;
    let profile = profile_of(snapshot, uplink);
    let peer = live.name_of(all.spec);
    PathView {
        id: format!("{peer}/{}", status.path.0),
        peer,
        path: status.path.0,
        name: path_name(snapshot, all.spec, &status.endpoint),
        uplink: profile.map(|it| it.name.clone()),
        remote: status.endpoint.remote,
        local: status.endpoint.local,
        state: state_view(status.state),
        reason: reason_name(status.reason).to_owned(),
        text: format!(
            "{}: {}",
            state_view(status.state).words(),
            words(status.reason)
        ),
        state_age_s: rounded(Some(status.state_age_s)).unwrap_or_default(),
        is_draining: status.is_draining,
        is_metered: profile.is_some_and(|it| it.is_metered),
        cost: all.cost(status),
        rtt_ms: ms(metrics.rtt_fast_ns),
        rtt_slow_ms: ms(metrics.rtt_slow_ns),
        rtt_min_ms: ms(metrics.rtt_min_ns),
        rtt_p95_ms: ms(metrics.rtt_p95_ns),
        tx_jitter_ms: ms(metrics.tx_jitter_ns),
        rx_jitter_ms: ms(metrics.rx_jitter_ns),
        tx_loss: loss(&metrics.tx_loss, metrics.tx_data_loss),
        rx_loss: loss(&metrics.rx_loss, metrics.rx_data_loss),
        queueing_ms: ms(metrics.queueing_ns),
        rx_queueing_ms: ms(metrics.rx_queueing_ns),
        tx_bandwidth: bandwidth(metrics.tx_bandwidth),
        rx_bandwidth: bandwidth(metrics.rx_bandwidth),
        tx_bps: rounded(Some(metrics.tx_bps)).unwrap_or_default(),
        rx_bps: rounded(Some(metrics.rx_bps)).unwrap_or_default(),
        mtu: metrics.mtu,
        tx_packets: status.tx_packets,
        tx_bytes: status.tx_bytes,
        rx_packets: status.rx_packets,
        rx_bytes: status.rx_bytes,
        classes: all.by_class(status),
    }
}

/// All that says how the classes of a gateway see the paths of a peer.
pub struct Standings<'a> {
    spec: &'a PeerSpec,
    snapshot: &'a Snapshot,
    /// The paths, by number.
    pub paths: Vec<PathStatus>,
    routes: [Route; CLASSES_MAX],
    pins: Pins,
}

impl<'a> Standings<'a> {
    /// As they stand.
    pub fn of(live: &'a Live, desk: &PathDesk, spec: &'a PeerSpec) -> Self {
        let mut paths = desk.workers().paths(spec);
        paths.sort_by_key(|it| it.path);
        Self {
            spec,
            snapshot: &live.snapshot,
            paths,
            routes: desk.workers().routes(spec),
            pins: desk.pins(spec),
        }
    }

    fn routes(&self) -> Vec<ClassRouteView> {
        let classes = class_configs(self.snapshot).enumerate();
        let routes = classes.map(|(at, class)| {
            let route = self.routes[at];
            ClassRouteView {
                class: class.name.clone(),
                path: route.path.map(|it| it.0),
                leaving: route.leaving.map(|it| it.0),
                protect: route.protect.map(|it| it.0),
                pinned: self.pins[at].map(|it| it.0),
            }
        });
        routes.collect()
    }

    /// How each class sees a path.
    fn by_class(&self, status: &PathStatus) -> Vec<StandingView> {
        let classes = class_configs(self.snapshot).enumerate();
        let standings = classes.map(|(at, class)| {
            let (tier, score) = status.standing[at];
            let is_used = self.routes[at].path == Some(status.path);
            StandingView {
                class: class.name.clone(),
                tier,
                tier_text: tier_words(tier).to_owned(),
                score: rounded(Some(score.into())).unwrap_or_default(),
                is_used,
                is_pinned: self.pins[at] == Some(status.path),
                utilities: utilities(class, &status.metrics),
                why_not: (!is_used).then(|| self.why_not(at, class, status)),
            }
        });
        standings.collect()
    }

    fn cost(&self, status: &PathStatus) -> Option<u16> {
        let endpoint = &status.endpoint;
        let is_it = |it: &&patronus_path::PathSpec| {
            it.uplink == endpoint.uplink.0 && it.remote == endpoint.remote
        };
        let configured = self.spec.paths.iter().find(is_it);
        let learnt = || profile_of(self.snapshot, endpoint.uplink).map(|it| it.cost);
        configured.map(|it| it.profile.cost).or_else(learnt)
    }

    /// In the order in which paths are compared: state and bounds, the operator's word, preference, cost, score.
    fn why_not(&self, at: usize, class: &ClassConfig, status: &PathStatus) -> String {
        let (tier, score) = status.standing[at];
        if status.is_draining {
            return "an operator drains it".to_owned();
        }
        if tier >= TIER_DOWN || !state_view(status.state).is_usable() {
            return format!("it is {}", state_view(status.state).words());
        }
        let chosen = self.routes[at].path;
        let chosen = chosen.and_then(|path| self.paths.iter().find(|it| it.path == path));
        let Some(chosen) = chosen else {
            return "the class has no path yet".to_owned();
        };
        let (best_tier, best_score) = chosen.standing[at];
        let other = format!("path {}", chosen.path.0);
        if self.pins[at] == Some(chosen.path) {
            return format!("the class is pinned to {other}");
        }
        if tier > best_tier {
            return format!("{}, {other} is {}", tier_words(tier), tier_words(best_tier));
        }
        if tier < best_tier {
            return format!("better than {other}, but held down or not so for long enough");
        }
        let rank = |status: &PathStatus| {
            let uplink = status.endpoint.uplink.0;
            let place = class.prefer.iter().position(|it| *it == uplink);
            place.unwrap_or(usize::MAX)
        };
        if rank(status) > rank(chosen) {
            return format!("the class prefers the uplink of {other}");
        }
        match (self.cost(status), self.cost(chosen)) {
            (Some(own), Some(its)) if rank(status) == rank(chosen) && own > its => {
                format!("costs {own}, {other} costs {its}")
            }
            _ if score <= best_score => format!("scores {score:.1}, {other} {best_score:.1}"),
            _ => format!(
                "scores {score:.1}, {other} {best_score:.1}: not better by enough, or not for long enough"
            ),
        }
    }
}

/// The classes by number; no more than there can be.
pub fn class_configs(snapshot: &Snapshot) -> impl Iterator<Item = &ClassConfig> {
    snapshot.paths().classes.configs.iter().take(CLASSES_MAX)
}

fn class(live: &Live, at: usize, config: &ClassConfig) -> ClassView {
    let snapshot = &live.snapshot;
    let table = &snapshot.paths().classes;
    let id = ClassId(at as u8);
    let asks = table.rules.iter().any(|it| it.class == id && it.pods);
    let prefer = config.prefer.iter();
    ClassView {
        name: config.name.clone(),
        is_default: snapshot.paths().classes.default == ClassId(at as u8),
        scoring: match config.scoring {
            Scoring::Weighted { .. } => "weighted",
            Scoring::Voice => "voice",
            Scoring::Throughput { .. } => "throughput",
        }
        .to_owned(),
        latency_ms: config.latency_ms.map(bounds),
        jitter_ms: config.jitter_ms.map(bounds),
        loss_pct: config.loss_pct.map(bounds),
        protect: config.protect,
        prefer: prefer
            .map(|uplink| uplink_name(snapshot, UplinkId(*uplink)))
            .collect(),
        pod_addrs: asks.then(|| table.pods.count(id)),
    }
}

fn bounds(of: Bounds) -> BoundsView {
    BoundsView {
        soft: of.soft,
        hard: of.hard,
    }
}

fn profile_of(snapshot: &Snapshot, uplink: UplinkId) -> Option<&UplinkProfile> {
    let mut uplinks = snapshot.paths().uplinks.iter();
    uplinks.find(|it| it.uplink == uplink.0)
}

/// What the displayed numbers are worth to a class.
fn utilities(class: &ClassConfig, metrics: &PathMetrics) -> UtilitiesView {
    let worse = |values: &[Option<f64>]| values.iter().flatten().copied().reduce(f64::max);
    let jitter = worse(&[metrics.tx_jitter_ns, metrics.rx_jitter_ns]);
    let loss = worse(&[
        metrics.tx_loss.ten_s,
        metrics.rx_loss.ten_s,
        metrics.tx_data_loss,
        metrics.rx_data_loss,
    ]);
    let worth = |bounds: Option<Bounds>, value: Option<f64>| {
        let (bounds, value) = (bounds?, value?);
        let share = (bounds.hard - value) / (bounds.hard - bounds.soft);
        rounded(Some(share.clamp(0.0, 1.0)))
    };
    UtilitiesView {
        latency: worth(class.latency_ms, ms(metrics.rtt_fast_ns)),
        jitter: worth(class.jitter_ms, ms(jitter)),
        loss: worth(class.loss_pct, pct(loss)),
    }
}

fn loss(windows: &LossWindows, data: Option<f64>) -> LossView {
    LossView {
        one_s_pct: pct(windows.one_s),
        ten_s_pct: pct(windows.ten_s),
        sixty_s_pct: pct(windows.sixty_s),
        data_pct: pct(data),
    }
}

fn bandwidth(of: Option<Bandwidth>) -> Option<BandwidthView> {
    let of = of?;
    Some(BandwidthView {
        bps: rounded(Some(of.bps))?,
        source: match of.source {
            BandwidthSource::Configured => "configured",
            BandwidthSource::Passive => "passive",
            BandwidthSource::Train => "train",
        }
        .to_owned(),
        age_s: rounded(Some(of.age_s)).unwrap_or_default(),
    })
}

/// Nanoseconds as milliseconds.
pub fn ms(ns: Option<f64>) -> Option<f64> {
    rounded(ns.map(|it| it * 1e-6))
}

fn pct(share: Option<f64>) -> Option<f64> {
    rounded(share.map(|it| it * 100.0))
}

fn tier_words(tier: u8) -> &'static str {
    match tier {
        0 => "in bounds",
        1 => "out of bounds",
        2 => "suspect",
        3 => "suppressed",
        _ => "down",
    }
}

/// Whether an operator who takes this path away leaves the peer another one.
pub fn has_other(paths: &[PathStatus], status: &PathStatus) -> bool {
    let is_usable = |it: &PathStatus| !it.is_draining && state_view(it.state).is_usable();
    let mut others = paths.iter().filter(|it| it.path != status.path);
    others.any(is_usable)
}

const TIER_DOWN: u8 = 4;
