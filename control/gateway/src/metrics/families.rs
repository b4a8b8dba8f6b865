//! Which metrics there are, and where each comes from.

use std::time::Duration;

use patronus_api::{HistoryStateView, PathView, PeerPathsView, PeerStateView, PeerView};
use patronus_engine::stages::Stage;
use patronus_engine::{Counters, DropReason, PeerSpec};

use super::{Family, PEERS_MAX, RULES_MAX};
use crate::api::{ApiState, Moment, Readings, counting, path_views};
use crate::facts::WorkerReading;

/// Everything that a scrape tells, in the order of its names' rooms.
pub fn families(state: &ApiState) -> Vec<Family> {
    let (live, moment) = (state.live(), Moment::now());
    let readings = Readings::of(state, &live, moment);
    let mut specs: Vec<&PeerSpec> = live.snapshot.peers().map(AsRef::as_ref).collect();
    let all = specs.len();
    specs.truncate(PEERS_MAX);
    let peers: Vec<PeerView> = specs
        .iter()
        .map(|spec| counting::peer(&live, state.desk(), spec, None, moment))
        .collect();
    let paths = path_views::paths(&live, state.desk(), &specs);
    let mut told = gateway(state, &readings, moment);
    told.extend(workers(&readings.workers));
    told.extend(flows(&readings));
    told.extend(drops(&readings.sum()));
    told.extend(peer_families(&peers, all, moment));
    told.extend(path_families(&paths.peers));
    told.extend(policy(state));
    told.extend(own(state));
    told.extend(state.more_metrics());
    told
}

fn gateway(state: &ApiState, readings: &Readings, moment: Moment) -> Vec<Family> {
    let live = state.live();
    let mut info = Family::gauge("patronus_build_info", "The program's version; always 1.");
    let version = ("version", env!("CARGO_PKG_VERSION"));
    let cipher = ("cipher", state.cipher());
    info.count(&[version, ("site", &live.site), cipher], 1);
    let mut start = Family::gauge(
        "patronus_start_timestamp_seconds",
        "When the gateway was started, since 1970.",
    );
    let unix = Duration::from_millis(moment.unix_ms).saturating_sub(moment.uptime(&live));
    start.real(&[], unix.as_secs_f64());
    let generation = readings.generation(&live);
    let mut published = Family::gauge(
        "patronus_config_generation",
        "The configuration that control published last.",
    );
    published.count(&[], generation.published);
    let mut applied = Family::gauge(
        "patronus_config_applied_workers",
        "Workers that have the configuration published last.",
    );
    applied.count(&[], generation.applied as u64);
    vec![info, start, published, applied]
}

/// One family of which every worker has a series.
fn of_workers(
    mut family: Family,
    workers: &[WorkerReading],
    value: impl Fn(&WorkerReading) -> u64,
) -> Family {
    for (at, worker) in workers.iter().enumerate() {
        family.count(&[("worker", &at.to_string())], value(worker));
    }
    family
}

fn workers(workers: &[WorkerReading]) -> Vec<Family> {
    let mut time = Family::counter(
        "patronus_worker_time_seconds",
        "What a worker's time went into: work, looking for work without sleeping (spin), or sleep.",
    );
    let mut packets = Family::counter(
        "patronus_worker_packets",
        "Packets by side (tun, udp) and direction; a superpacket counts its segments.",
    );
    let mut bytes = Family::counter(
        "patronus_worker_bytes",
        "Bytes of inner IP at the tun side, of UDP payload at the udp side.",
    );
    let mut frames = Family::counter(
        "patronus_worker_frames",
        "System-call sized pieces that the packets came and went in: superpackets and trains.",
    );
    let mut stages = Family::counter(
        "patronus_worker_stage_seconds",
        "Time by stage of the pipeline, while stages are metered.",
    );
    for (at, worker) in workers.iter().enumerate() {
        let at = at.to_string();
        let of = |name, value| [("worker", at.as_str()), (name, value)];
        time.real(&of("state", "work"), worker.time.busy.as_secs_f64());
        time.real(&of("state", "spin"), worker.time.looking.as_secs_f64());
        time.real(&of("state", "sleep"), worker.time.asleep.as_secs_f64());
        let c = &worker.counters;
        for (side, direction, count, size, pieces) in [
            ("tun", "rx", c.rx_tun, c.rx_tun_bytes, c.rx_tun_frames),
            ("tun", "tx", c.tx_tun, c.tx_tun_bytes, c.tx_tun_writes),
            ("udp", "rx", c.rx_udp, c.rx_udp_bytes, c.rx_udp_frames),
            ("udp", "tx", c.tx_udp, c.tx_udp_bytes, c.tx_udp_trains),
        ] {
            let labels = [
                ("worker", at.as_str()),
                ("side", side),
                ("direction", direction),
            ];
            packets.count(&labels, count);
            bytes.count(&labels, size);
            frames.count(&labels, pieces);
        }
        let Some(spent) = &worker.stages else {
            continue;
        };
        for (number, stage) in Stage::ALL.iter().enumerate() {
            let seconds = Duration::from_nanos(spent.times.spent[number]).as_secs_f64();
            stages.real(&of("stage", stage.name()), seconds);
        }
    }
    let counter = |name, help, value: fn(&Counters) -> u64| {
        of_workers(Family::counter(name, help), workers, |it| {
            value(&it.counters)
        })
    };
    let gauge = |name, help, value: fn(&WorkerReading) -> u64| {
        of_workers(Family::gauge(name, help), workers, value)
    };
    vec![
        time,
        packets,
        bytes,
        frames,
        stages,
        gauge(
            "patronus_worker_up",
            "Whether the worker's thread runs.",
            |it| u64::from(!it.has_ended),
        ),
        of_workers(
            Family::counter("patronus_worker_panics", "Panics that the worker survived."),
            workers,
            |it| it.panics,
        ),
        counter(
            "patronus_worker_dropped_packets",
            "Packets dropped for any reason.",
            Counters::dropped,
        ),
        counter(
            "patronus_worker_consumed_packets",
            "Datagrams that ended here by design: handshakes, cookies, keepalives, hellos.",
            |it| it.consumed,
        ),
        counter(
            "patronus_worker_handed_out_packets",
            "Packets given to the worker that owns their peer.",
            |it| it.handed_out,
        ),
        counter(
            "patronus_worker_handed_in_packets",
            "Packets taken from another worker.",
            |it| it.handed_in,
        ),
        counter(
            "patronus_worker_handshakes",
            "Handshakes completed.",
            |it| it.handshakes,
        ),
        counter(
            "patronus_worker_lost_events",
            "Events that control was too slow to take.",
            |it| it.events_lost,
        ),
        gauge(
            "patronus_worker_staged_packets",
            "Packets that wait for a handshake.",
            |it| it.counters.staged,
        ),
        gauge(
            "patronus_worker_mailbox_packets",
            "Packets of other workers that wait in the letter box.",
            |it| it.mailbox.0 as u64,
        ),
        gauge(
            "patronus_worker_mailbox_capacity_packets",
            "How many may wait there.",
            |it| it.mailbox.1 as u64,
        ),
    ]
}

fn flows(readings: &Readings) -> Vec<Family> {
    let gauge = |name, help, value: fn(&patronus_api::FlowTableView) -> usize| {
        let mut family = Family::gauge(name, help);
        for (at, table) in readings.flows.iter().enumerate() {
            family.count(&[("worker", &at.to_string())], value(table) as u64);
        }
        family
    };
    let counter = |name, help, value: fn(&Counters) -> u64| {
        let family = Family::counter(name, help);
        of_workers(family, &readings.workers, |it| value(&it.counters))
    };
    vec![
        gauge(
            "patronus_flow_entries",
            "Flows in the table that are not idle.",
            |it| it.used,
        ),
        gauge(
            "patronus_flow_capacity_entries",
            "Entries of the flow table.",
            |it| it.capacity,
        ),
        counter("patronus_flow_opened", "Flows opened.", |it| {
            it.flows_opened
        }),
        counter(
            "patronus_flow_evicted",
            "Flows in use that lost their entry to a newer one.",
            |it| it.flows_evicted,
        ),
    ]
}

/// Every reason from the start, so that the first drop is an increase and no new series.
fn drops(sum: &Counters) -> Vec<Family> {
    let mut family = Family::counter(
        "patronus_dropped_packets",
        "Packets dropped by reason, all workers together.",
    );
    for reason in DropReason::ALL {
        let packets = sum.drops[*reason as usize];
        family.count(&[("reason", reason.name())], packets);
    }
    vec![family]
}

fn peer_families(peers: &[PeerView], all: usize, moment: Moment) -> Vec<Family> {
    let mut count = Family::gauge("patronus_peers", "Peers that are configured.");
    count.count(&[], all as u64);
    let mut left_out = Family::gauge(
        "patronus_peers_left_out",
        "Peers that this scrape does not tell of, because there are too many.",
    );
    left_out.count(&[], (all - peers.len()) as u64);
    let mut up = Family::gauge(
        "patronus_peer_up",
        "Whether a handshake completed in the last three minutes.",
    );
    let mut handshake = Family::gauge(
        "patronus_peer_last_handshake_timestamp_seconds",
        "When the last handshake completed, since 1970.",
    );
    let mut sessions = Family::gauge(
        "patronus_peer_sessions",
        "Sessions with the peer: the first, and one per lane.",
    );
    let mut packets = Family::counter(
        "patronus_peer_packets",
        "Datagrams by direction, those received only where they authenticated.",
    );
    let mut bytes = Family::counter(
        "patronus_peer_bytes",
        "Bytes of UDP payload by direction, those received only where they authenticated.",
    );
    let mut replayed = Family::counter(
        "patronus_peer_replayed_messages",
        "Messages that were seen before, or too old to tell.",
    );
    let mut auth_failed = Family::counter(
        "patronus_peer_unauthentic_messages",
        "Messages in its sessions' names that did not authenticate.",
    );
    for peer in peers {
        let name = [("peer", peer.peer.as_str())];
        let way = |direction| [("peer", peer.peer.as_str()), ("direction", direction)];
        up.count(&name, u64::from(peer.state == PeerStateView::Up));
        let age = peer.last_handshake_age_s;
        handshake.maybe(&name, age.map(|age| moment.unix_ms as f64 / 1e3 - age));
        sessions.count(&name, peer.sessions.len() as u64);
        packets.count(&way("rx"), peer.rx_packets);
        packets.count(&way("tx"), peer.tx_packets);
        bytes.count(&way("rx"), peer.rx_bytes);
        bytes.count(&way("tx"), peer.tx_bytes);
        replayed.count(&name, peer.replayed);
        auth_failed.count(&name, peer.auth_failed);
    }
    vec![
        count,
        left_out,
        up,
        handshake,
        sessions,
        packets,
        bytes,
        replayed,
        auth_failed,
    ]
}

fn path_families(peers: &[PeerPathsView]) -> Vec<Family> {
    let mut all = PathFamilies::new();
    for peer in peers {
        for path in &peer.paths {
            all.add(path);
        }
    }
    all.0
}

/// The families of paths, by their place in the list.
struct PathFamilies(Vec<Family>);

impl PathFamilies {
    fn new() -> Self {
        Self(vec![
            Family::gauge("patronus_path_up", "Whether packets can go there."),
            Family::gauge("patronus_path_draining", "Whether an operator drains it."),
            Family::gauge(
                "patronus_path_state_age_seconds",
                "Since when it has its state.",
            ),
            Family::gauge(
                "patronus_path_rtt_seconds",
                "Round trip, with a time constant of half a second.",
            ),
            Family::gauge(
                "patronus_path_rtt_min_seconds",
                "Least round trip of the last minute.",
            ),
            Family::gauge(
                "patronus_path_rtt_p95_seconds",
                "95th percentile of the last minute's round trips.",
            ),
            Family::gauge(
                "patronus_path_queueing_seconds",
                "Round trip less the least one: queues both ways.",
            ),
            Family::gauge(
                "patronus_path_mtu_bytes",
                "Largest outer IP packet that is known to pass.",
            ),
            Family::gauge(
                "patronus_path_jitter_seconds",
                "Interarrival jitter by direction (RFC 3550).",
            ),
            Family::gauge(
                "patronus_path_loss_ratio",
                "Share of hellos lost over ten seconds, by direction.",
            ),
            Family::gauge(
                "patronus_path_data_loss_ratio",
                "Share of data packets lost, by direction, where enough were sent.",
            ),
            Family::gauge(
                "patronus_path_capacity_bytes_per_second",
                "Capacity by direction, configured or measured.",
            ),
            Family::counter("patronus_path_packets", "Data packets by direction."),
            Family::counter(
                "patronus_path_bytes",
                "Bytes of UDP payload of data packets, by direction.",
            ),
            Family::gauge(
                "patronus_path_class_score",
                "How well the path suits the class: 0 unusable, 100 best.",
            ),
            Family::gauge(
                "patronus_path_class_tier",
                "0 in bounds, 1 out of bounds, 2 suspect, 3 suppressed, 4 down.",
            ),
            Family::gauge(
                "patronus_path_class_used",
                "Whether the class's new flows go there.",
            ),
        ])
    }

    fn add(&mut self, path: &PathView) {
        let name = [("peer", path.peer.as_str()), ("path", path.name.as_str())];
        let with = |label, value| [name[0], name[1], (label, value)];
        let seconds = |ms: Option<f64>| ms.map(|it| it / 1e3);
        let share = |pct: Option<f64>| pct.map(|it| it / 100.0);
        let [
            up,
            draining,
            age,
            rtt,
            rtt_min,
            rtt_p95,
            queueing,
            mtu,
            jitter,
            loss,
            data_loss,
            capacity,
            packets,
            bytes,
            score,
            tier,
            used,
        ] = self.0.as_mut_slice()
        else {
            return;
        };
        up.count(&name, u64::from(path.state.is_usable()));
        draining.count(&name, u64::from(path.is_draining));
        age.real(&name, path.state_age_s);
        rtt.maybe(&name, seconds(path.rtt_ms));
        rtt_min.maybe(&name, seconds(path.rtt_min_ms));
        rtt_p95.maybe(&name, seconds(path.rtt_p95_ms));
        queueing.maybe(&name, seconds(path.queueing_ms));
        mtu.maybe(&name, path.mtu.map(f64::from));
        for (direction, its_jitter, its_loss, bandwidth, count, size) in [
            (
                "tx",
                path.tx_jitter_ms,
                &path.tx_loss,
                &path.tx_bandwidth,
                path.tx_packets,
                path.tx_bytes,
            ),
            (
                "rx",
                path.rx_jitter_ms,
                &path.rx_loss,
                &path.rx_bandwidth,
                path.rx_packets,
                path.rx_bytes,
            ),
        ] {
            let way = with("direction", direction);
            jitter.maybe(&way, seconds(its_jitter));
            loss.maybe(&way, share(its_loss.ten_s_pct));
            data_loss.maybe(&way, share(its_loss.data_pct));
            capacity.maybe(&way, bandwidth.as_ref().map(|it| it.bps / 8.0));
            packets.count(&way, count);
            bytes.count(&way, size);
        }
        for standing in &path.classes {
            let class = with("class", &standing.class);
            score.real(&class, standing.score);
            tier.count(&class, standing.tier.into());
            used.count(&class, u64::from(standing.is_used));
        }
    }
}

fn policy(state: &ApiState) -> Vec<Family> {
    let live = state.live();
    let mut generation = Family::gauge(
        "patronus_policy_generation",
        "The generation of the policy in force; 0 where there is none.",
    );
    generation.count(&[], live.policy.table.generation());
    let mut connections = Family::counter(
        "patronus_policy_denied_connections",
        "Connections that policy denied.",
    );
    let mut packets = Family::counter(
        "patronus_policy_denied_packets",
        "Packets that policy dropped.",
    );
    let mut audited = Family::counter(
        "patronus_policy_audited_connections",
        "Connections whose verdict policies in audit mode would have turned.",
    );
    let all = counting::denied(state);
    connections.count(&[], all.connections);
    packets.count(&[], all.packets);
    audited.count(&[], all.audited);
    let mut by_rule = Family::counter(
        "patronus_policy_rule_denied_packets",
        "Packets dropped by rule; rule 0 is the policy's isolation of the direction.",
    );
    let mut rules = counting::rules(state).rules;
    rules.retain(|it| it.hits.is_some_and(|hits| hits.packets > 0));
    rules.sort_by_key(|it| std::cmp::Reverse(it.hits.map(|hits| hits.packets)));
    for rule in rules.iter().take(RULES_MAX) {
        let number = rule.rule.number.to_string();
        let labels = [
            ("layer", rule.rule.policy.layer.as_str()),
            ("policy", rule.rule.policy.name.as_str()),
            ("direction", rule.rule.direction.as_str()),
            ("rule", number.as_str()),
        ];
        by_rule.count(&labels, rule.hits.unwrap_or_default().packets);
    }
    vec![generation, connections, packets, audited, by_rule]
}

/// The API's and the store's own.
fn own(state: &ApiState) -> Vec<Family> {
    let (api, history) = (state.api_counts(), state.history_status());
    let one = |mut family: Family, value: u64| {
        family.count(&[], value);
        family
    };
    vec![
        one(
            Family::counter("patronus_api_connections", "Connections accepted."),
            api.connections,
        ),
        one(
            Family::gauge("patronus_api_open_connections", "Connections being served."),
            api.connections_open,
        ),
        one(
            Family::counter(
                "patronus_api_cut_connections",
                "Connections cut because their client took too long.",
            ),
            api.connections_cut,
        ),
        one(
            Family::counter(
                "patronus_api_crowded_requests",
                "Requests refused because others were served.",
            ),
            api.crowded,
        ),
        one(
            Family::gauge(
                "patronus_history_up",
                "Whether samples of the last day are kept.",
            ),
            u64::from(history.state == HistoryStateView::On),
        ),
        one(
            Family::gauge("patronus_history_samples", "Samples in the store."),
            history.samples,
        ),
        one(
            Family::gauge("patronus_history_size_bytes", "Bytes of the store's file."),
            history.bytes,
        ),
        one(
            Family::counter(
                "patronus_history_lost_samples",
                "Samples that were not written.",
            ),
            history.dropped,
        ),
    ]
}
