//! What is counted, over the API: workers, peers, rules, snapshots, metrics and history.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, Ordering};

use patronus_api::{
    Client, ClientError, CountsView, FlowSort, FlowsQuery, GradeView, HistoryQuery,
    HistoryStateView, PeerStateView, WatchQuery,
};
use patronus_engine::flow_table::FlowWriter;
use patronus_engine::stages::Stage;
use patronus_engine::{Counters, DropReason, Generation, OpenedBy};
use patronus_history::Settings;
use patronus_packet::FlowKey;
use patronus_path::{Bandwidth, BandwidthSource, CLASSES_MAX, PathIndex};
use serde_json::Value;

use super::path_tests::{Fake, fiber, live, live_with, lte};
use super::tests::{FakeFacts, Site, dataplane};
use super::*;
use crate::facts::WorkerReading;
use crate::meter::{StagesSpent, TimeSpent};
use crate::metrics::{self, MetricsServer, lint};
use crate::recorder::Recorder;

/// How long anything may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(dst_port: u16) -> FlowKey {
    FlowKey {
        src: "10.1.0.7".parse().unwrap(),
        dst: "10.2.0.1".parse().unwrap(),
        src_port: 40000,
        dst_port,
        protocol: 6,
    }
}

/// One worker that is well, and one that has not the newest configuration and meters its stages.
fn readings() -> Vec<WorkerReading> {
    let mut counters = Counters {
        rx_tun: 100,
        rx_tun_bytes: 100_000,
        rx_tun_frames: 10,
        tx_udp: 97,
        tx_udp_bytes: 106_000,
        tx_udp_trains: 5,
        ..Counters::default()
    };
    counters.drop(DropReason::NoRoute, 3);
    let well = WorkerReading {
        core: Some(4),
        generation: Generation(1),
        time: TimeSpent {
            busy: Duration::from_millis(1500),
            looking: Duration::from_millis(500),
            asleep: Duration::from_secs(8),
            turns: 42,
        },
        counters,
        mailbox: (2, 256),
        ..WorkerReading::default()
    };
    let mut stages = StagesSpent {
        packets: 10,
        ..StagesSpent::default()
    };
    stages.times.spent[Stage::Seal as usize] = 4321;
    let behind = WorkerReading {
        panics: 1,
        stages: Some(stages),
        ..WorkerReading::default()
    };
    vec![well, behind]
}

/// A gateway whose two workers both know one flow, and each one of its own.
fn state_with(history: History) -> (Arc<ApiState>, FakeFacts) {
    let live = live();
    let id = live.snapshot.peers().next().unwrap().id;
    let generation = live.snapshot.generation();
    let table = |ports: &[u16], seed| {
        let mut writer = FlowTable::create(64, seed);
        for port in ports {
            let slot =
                FlowWriter::insert(&mut writer, &key(*port), id, OpenedBy::Local, generation, 0);
            writer.touch(slot, 3, u64::from(*port), 0);
        }
        writer.table().clone()
    };
    let tables = vec![table(&[80, 443], 1), table(&[443, 22], 2)];
    let facts = FakeFacts {
        readings: readings(),
        ..FakeFacts::default()
    };
    let mut fake = Fake {
        paths: vec![fiber(), lte()],
        ..Fake::default()
    };
    fake.routes[0].path = Some(PathIndex(0));
    let desk = PathDesk::new(fake);
    let dataplane = dataplane(tables, facts.clone());
    (ApiState::new(live, dataplane, history, desk, 5), facts)
}

fn state() -> Arc<ApiState> {
    state_with(History::off("in a test")).0
}

fn field_of(error: ClientError) -> Option<String> {
    match error {
        ClientError::Refused(error) => {
            assert!(!error.fix.is_empty(), "{error:?}");
            error.field
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn workers_are_told_as_they_tell_themselves_with_rates_between_two_looks() {
    let state = state();
    let site = Site::serve(state.clone());
    let told = site.client().workers().unwrap();
    assert_eq!(
        (told.offload.as_str(), told.cipher.as_str()),
        ("full", "own")
    );
    let generation = told.generation;
    assert_eq!(
        (generation.published, generation.applied, generation.workers),
        (1, 1, 2)
    );
    let worker = &told.workers[0];
    assert_eq!((worker.worker, worker.core), (0, Some(4)));
    assert_eq!(
        (worker.busy_s, worker.spinning_s, worker.asleep_s),
        (1.5, 0.5, 8.0)
    );
    assert_eq!((worker.turns, worker.mailbox.waiting), (42, 2));
    assert_eq!((worker.flows.used, worker.flows.capacity), (2, 64));
    assert!(worker.rates.is_none() && worker.stages.is_none());
    let counts = &worker.counts;
    assert!(counts.is_balanced);
    assert_eq!((counts.dropped, counts.drops["no_route"]), (3, 3));
    assert_eq!((counts.tx_udp_trains, counts.rx_tun_frames), (5, 10));
    let metered = told.workers[1].stages.as_ref().unwrap();
    let seal = metered.stages.iter().find(|it| it.stage == "seal").unwrap();
    assert_eq!((seal.spent_ns, seal.ns_per_packet), (4321, Some(432.1)));

    let start = Instant::now();
    state.look(start);
    state.look(start + Duration::from_secs(1));
    let rates = site.client().workers().unwrap().workers[0].rates.unwrap();
    assert_eq!((rates.window_s, rates.rx_tun_pps), (1.0, 0.0));
}

#[test]
fn counters_add_the_workers_up_and_say_what_the_api_did() {
    let site = Site::serve(state());
    let told = site.client().counters().unwrap();
    assert_eq!((told.totals.rx_tun_packets, told.totals.dropped), (100, 3));
    assert!(told.totals.is_balanced);
    assert_eq!((told.flows.used, told.flows.capacity), (4, 128));
    assert_eq!(told.api.connections_open, 1);
    assert!(told.api.connections >= 2, "{:?}", told.api);
    assert_eq!(told.history.state, HistoryStateView::Off);
    assert_eq!(told.history.reason.as_deref(), Some("in a test"));
}

#[test]
fn peers_are_told_by_name_with_their_sessions_and_paths() {
    let site = Site::serve(state());
    let told = site.client().peers().unwrap();
    let names: Vec<&str> = told.peers.iter().map(|it| it.peer.as_str()).collect();
    assert_eq!(names, ["branch", "depot"]);
    let branch = &told.peers[0];
    assert!(branch.is_site);
    assert_eq!(branch.state, PeerStateView::Never);
    assert_eq!((branch.paths, branch.mtu), (2, Some(1420)));
    assert_eq!((branch.sessions.len(), branch.sessions[0].worker), (1, 1));
    assert_eq!(
        (branch.last_handshake_age_s, branch.rekey_in_s),
        (None, None)
    );
}

#[test]
fn a_gateway_whose_workers_are_behind_is_not_started_and_says_why() {
    let site = Site::serve(state());
    let health = site.client().status().unwrap().health.unwrap();
    assert!(!health.is_started && !health.is_ready);
    let texts: Vec<&str> = health.problems.iter().map(|it| it.text.as_str()).collect();
    assert!(texts[0].contains("1 of 2 workers"), "{texts:?}");
    assert!(texts.iter().any(|it| it.contains("survived 1 panics")));

    let (state, _) = {
        let (_, mut facts) = state_with(History::off("in a test"));
        facts.readings.truncate(1);
        facts.readings[0].has_ended = true;
        let desk = PathDesk::new(Fake::default());
        let dataplane = dataplane(Vec::new(), facts.clone());
        let history = History::off("in a test");
        (ApiState::new(live(), dataplane, history, desk, 5), facts)
    };
    let site = Site::serve(state);
    let health = site.client().status().unwrap().health.unwrap();
    assert!(!health.is_started);
    assert_eq!(health.problems[0].grade, GradeView::Bad);
    assert!(health.problems[0].text.contains("worker 0 has stopped"));
}

#[test]
fn rules_stand_with_what_they_say_and_what_they_did() {
    let site = Site::serve(state());
    let told = site.client().rules().unwrap();
    assert!(told.has_policy && told.left_out == 0 && told.other.is_none());
    let rule = told.rules.iter().find(|it| it.rule.number == 1).unwrap();
    assert_eq!((rule.action.as_str(), rule.hits), ("allow", None));
    assert_eq!(rule.selects, "pods with app=api of shop");
    assert_eq!(rule.matches, "everyone on TCP/443");
    assert_eq!(rule.last_hit_age_s, None);
    let isolation = told.rules.iter().find(|it| it.rule.number == 0).unwrap();
    assert_eq!(isolation.action, "isolate");
}

#[test]
fn stages_are_metered_for_a_bounded_time_and_the_order_is_remembered() {
    let (state, facts) = state_with(History::off("in a test"));
    let site = Site::serve(state);
    let client = site.client();
    assert!(client.meter_stages(10).unwrap().done);
    client.meter_stages(0).unwrap();
    let spans: Vec<u64> = facts
        .metered
        .lock()
        .unwrap()
        .iter()
        .map(Duration::as_secs)
        .collect();
    assert_eq!(spans, [10, 0]);
    let refused = client.meter_stages(301).unwrap_err();
    assert_eq!(field_of(refused).as_deref(), Some("seconds"));
    let events = client.events(&Default::default()).unwrap().events;
    assert!(events[0].text.contains("meter the stages"), "{events:?}");
}

#[test]
fn a_flow_that_two_workers_know_is_told_once_with_the_traffic_of_both() {
    let site = Site::serve(state());
    let list = |query: &FlowsQuery| site.client().flows(query).unwrap();
    let all = list(&FlowsQuery::default());
    assert_eq!((all.total, all.matched, all.flows.len()), (3, 3, 3));
    let shared = &all.flows[0];
    assert_eq!(
        (shared.dst_port, shared.packets, shared.bytes),
        (443, 6, 886)
    );
    assert_eq!(shared.verdict, Some(patronus_api::VerdictView::Allow));
    let ports = |sort, skip| {
        let query = FlowsQuery {
            sort: Some(sort),
            skip,
            ..FlowsQuery::default()
        };
        let flows = list(&query).flows;
        flows.iter().map(|it| it.dst_port).collect::<Vec<u16>>()
    };
    assert_eq!(ports(FlowSort::Bytes, None), [443, 80, 22]);
    assert_eq!(ports(FlowSort::Dst, None), [22, 80, 443]);
    assert_eq!(ports(FlowSort::Packets, Some(1)), [22, 80]);
    assert_eq!(ports(FlowSort::Recent, Some(9)), Vec::<u16>::new());
}

#[test]
fn snapshots_come_line_by_line_and_a_count_ends_them() {
    let site = Site::serve(state());
    let client = site.client();
    let query = WatchQuery {
        interval_ms: Some(200),
        count: Some(3),
    };
    let mut watch = client.watch(&query).unwrap();
    let mut numbers = Vec::new();
    while let Some(snapshot) = watch.next_snapshot().unwrap() {
        assert_eq!((snapshot.workers.len(), snapshot.peers.len()), (2, 2));
        assert_eq!(snapshot.paths.peers[0].paths.len(), 2);
        assert_eq!(snapshot.totals, site.client().counters().unwrap().totals);
        numbers.push(snapshot.number);
    }
    assert_eq!(numbers.len(), 3);
    assert!(numbers.is_sorted(), "{numbers:?}");
    for (interval_ms, count, field) in [
        (Some(199), None, "interval_ms"),
        (Some(60_001), None, "interval_ms"),
        (None, Some(0), "count"),
    ] {
        let refused = client.watch(&WatchQuery { interval_ms, count });
        assert_eq!(field_of(refused.unwrap_err()).as_deref(), Some(field));
    }
}

#[test]
fn two_hundred_streams_share_snapshots_and_leave_room_for_questions() {
    let state = state();
    let site = Site::serve(state.clone());
    let path = site.path();
    let begun = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let streams: Vec<_> = (0..200)
        .map(|_| {
            let (path, done) = (path.clone(), done.clone());
            let follow = move || {
                let query = WatchQuery {
                    interval_ms: Some(200),
                    count: None,
                };
                let mut watch = Client::connect(&path).unwrap().watch(&query).unwrap();
                let mut lines = 0;
                while !done.load(Ordering::Relaxed) || lines < 2 {
                    assert!(watch.next_line().unwrap().is_some());
                    lines += 1;
                }
                lines
            };
            // Two hundred of them: small stacks.
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            thread.spawn(follow).unwrap()
        })
        .collect();
    // Every stream is open, and others are answered all the same.
    while state.api_counts().connections_open < 200 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", state.api_counts());
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..20 {
        site.client().status().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let lines: u64 = streams.into_iter().map(|it| it.join().unwrap()).sum();
    let last = site.client().watch(&WatchQuery {
        interval_ms: None,
        count: Some(1),
    });
    let made = last.unwrap().next_snapshot().unwrap().unwrap().number;
    // At most one in a tenth of a second, however many look.
    let windows = begun.elapsed().as_millis() as u64 / 100 + 2;
    assert!(
        made <= windows && lines >= 400,
        "{made} of {windows}, {lines}"
    );
}

#[test]
fn more_streams_than_there_are_places_for_are_told_to_come_again() {
    let state = state();
    let site = Site::serve(state.clone());
    let places: Vec<_> = (0..WATCHERS_MAX)
        .map(|_| state.watchers.clone().try_acquire_owned().unwrap())
        .collect();
    let (first, error) = site.raw(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(first.starts_with("HTTP/1.1 503 "), "{first}");
    assert!(error.is_some_and(|it| !it.fix.is_empty()));
    assert_eq!(state.api_counts().crowded, 1);
    drop(places);
    assert!(site.client().status().is_ok());
}

#[test]
fn a_stream_that_is_not_read_is_cut_and_gives_its_place_back() {
    let state = state();
    let site = Site::serve_for(state.clone(), Duration::from_secs(1));
    let mut idle = StdStream::connect(site.path()).unwrap();
    let request = b"GET /v1/watch?interval_ms=200 HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(request).unwrap();
    // The kernel takes the first lines for it; then nothing goes out, and a second later it is cut.
    let begun = Instant::now();
    while state.api_counts().connections_cut == 0 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", state.api_counts());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(state.watchers.available_permits(), WATCHERS_MAX);
    // What it finds ends without the last chunk, so that it cannot pass for a whole answer.
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

#[test]
fn metrics_keep_to_the_conventions_and_a_path_has_at_most_fifty_series() {
    let names: Vec<String> = (0..CLASSES_MAX).map(|at| format!("class-{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut path = fiber();
    let of = |ns: f64| Some(ns);
    path.metrics.rtt_min_ns = of(1e6);
    path.metrics.rtt_p95_ns = of(3e6);
    path.metrics.queueing_ns = of(1e6);
    (path.metrics.tx_jitter_ns, path.metrics.rx_jitter_ns) = (of(1e5), of(2e5));
    (path.metrics.tx_data_loss, path.metrics.rx_data_loss) = (of(0.01), of(0.02));
    path.metrics.rx_bandwidth = Some(Bandwidth {
        bps: 8e6,
        source: BandwidthSource::Train,
        age_s: 1.0,
    });
    let desk = PathDesk::new(Fake {
        paths: vec![path],
        ..Fake::default()
    });
    let facts = FakeFacts {
        readings: readings(),
        ..FakeFacts::default()
    };
    let dataplane = dataplane(Vec::new(), facts);
    let state = ApiState::new(
        live_with(&names),
        dataplane,
        History::off("in a test"),
        desk,
        5,
    );
    let text = metrics::to_text(metrics::families(&state)).unwrap();
    assert_eq!(lint::faults(&text), Vec::<String>::new());
    let of_path = text.lines().filter(|it| it.contains("path=\""));
    let series: Vec<&str> = of_path.collect();
    assert!(series.len() > 30, "every kind is there: {}", series.len());
    assert!(series.len() <= 50, "{}: {series:#?}", series.len());
    for line in [
        "patronus_dropped_packets_total{reason=\"no_route\"} 3",
        "patronus_dropped_packets_total{reason=\"data_replayed\"} 0",
        "patronus_worker_time_seconds_total{worker=\"0\",state=\"work\"} 1.5",
        "patronus_path_capacity_bytes_per_second{peer=\"branch\",path=\"fiber-198.51.100.2\",direction=\"rx\"} 1000000.0",
    ] {
        let is_there = text.lines().any(|it| it == line);
        assert!(is_there, "{line} is not in\n{text}");
    }
    let seal = "patronus_worker_stage_seconds_total{worker=\"1\",stage=\"seal\"} ";
    let seal = text.lines().find_map(|line| line.strip_prefix(seal));
    // How small numbers are written is the library's.
    assert_eq!(seal.map(|it| it.parse::<f64>().unwrap()), Some(4.321e-6));
}

#[test]
fn metrics_come_by_the_socket_and_by_tcp_and_nothing_else_does_by_tcp() {
    let state = state();
    let site = Site::serve(state.clone());
    let by_socket = site.client().metrics().unwrap();
    assert!(by_socket.ends_with("# EOF\n"));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let server = runtime
        .block_on(MetricsServer::open(any_port, state))
        .unwrap();
    let addr = server.addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        // Taken by us: a second one is told what to do.
        let taken = runtime.block_on(MetricsServer::open(addr, self::state()));
        let _ = runtime.block_on(stopped);
        drop(server);
        taken.map(drop)
    });
    let ask = |target: &str| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(&format!("content-type: {}", metrics::CONTENT_TYPE)));
    assert!(answer.contains("patronus_peers 2"));
    assert!(ask("/v1/status").starts_with("HTTP/1.1 404 "));
    drop(stop);
    let taken = serving.join().unwrap();
    assert!(taken.unwrap_err().to_string().contains("metrics_listen"));
}

/// Names of metrics in the queries of the dashboard.
fn names_in(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Value::String(text)) = (name == "expr" || name == "query", value) {
                    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
                    let words = text.split(|it| !is_name(it));
                    let words = words.filter(|it| it.starts_with("patronus_"));
                    names.extend(words.map(str::to_owned));
                }
                names_in(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|it| names_in(it, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_query_of_the_dashboard_names_a_metric_that_there_is() {
    let dashboard = include_str!("../../../docs/grafana/patronus.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut names = Vec::new();
    names_in(&dashboard, &mut names);
    assert!(names.len() >= 20, "{names:?}");
    let mut families = metrics::families(&state());
    families.extend(crate::prefilter::metrics::sample());
    families.extend(crate::af_xdp_metrics::sample());
    let exported: Vec<String> = families
        .iter()
        .map(|it| match it.kind {
            metrics::Kind::Counter => format!("{}_total", it.name),
            metrics::Kind::Gauge => it.name.to_owned(),
        })
        .collect();
    for name in names {
        assert!(exported.contains(&name), "{name} is not exported");
    }
}

#[test]
fn the_history_has_what_was_sampled_and_a_gateway_without_one_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::start(Settings::day(dir.path().join("h.sqlite3")));
    let (state, _) = state_with(history.clone());
    let mut recorder = Recorder::new(Instant::now());
    recorder.tick(&state);
    // Not due yet.
    recorder.tick(&state);
    let begun = Instant::now();
    while history.status().samples == 0 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", history.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    let site = Site::serve(state);
    let client = site.client();
    let ask = |metric: &str, label: Option<&str>| {
        client.history(&HistoryQuery {
            metric: Some(metric.to_owned()),
            label: label.map(str::to_owned),
            ..HistoryQuery::default()
        })
    };
    let told = ask("path_rtt_ms", None).unwrap();
    assert_eq!(told.metric.unwrap().unit, "ms");
    assert_eq!((told.series.len(), told.status.samples), (1, 1));
    let rtt = told.series.iter().find(|it| it.labels.contains("fiber"));
    assert_eq!(rtt.unwrap().points[0].value, 200.0);
    let flows = ask("flows", None).unwrap();
    assert_eq!(flows.series[0].points[0].value, 4.0);
    assert!(
        ask("path_rtt_ms", Some("peer=depot"))
            .unwrap()
            .series
            .is_empty()
    );
    assert_eq!(
        field_of(ask("nonsense", None).unwrap_err()).as_deref(),
        Some("metric")
    );
    assert_eq!(
        field_of(ask("flows", Some("peer")).unwrap_err()).as_deref(),
        Some("label")
    );
    let all = client.history(&HistoryQuery::default()).unwrap();
    assert_eq!(all.metrics.len(), history::METRICS.len());
    let wrong = client.history(&HistoryQuery {
        since: Some(86_401),
        ..HistoryQuery::default()
    });
    assert_eq!(field_of(wrong.unwrap_err()).as_deref(), Some("since"));

    let site = Site::serve(self::state());
    let off = site.client().history(&HistoryQuery {
        metric: Some("flows".to_owned()),
        ..HistoryQuery::default()
    });
    assert!(off.unwrap_err().to_string().contains("in a test"));
}

/// Whether a value is what its schema says: the same fields everywhere, of the right types.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        let schema = &document["components"]["schemas"][name];
        assert!(schema.is_object(), "{place}: no schema {name}");
        return check(document, schema, value, place);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        if value.is_null() {
            assert!(any.iter().any(|it| it["type"] == "null"), "{place} is null");
        } else if let Some(schema) = any.iter().find(|it| it["type"] != "null") {
            check(document, schema, value, place);
        }
        return;
    }
    if let Some(types) = schema["type"].as_array() {
        let null = serde_json::json!("null");
        if !(value.is_null() && types.contains(&null)) {
            let mut schema = schema.clone();
            let other = types.iter().find(|it| **it != null);
            schema["type"] = other.unwrap().clone();
            check(document, &schema, value, place);
        }
        return;
    }
    let is_right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        // Words only.
        None if schema["enum"].is_array() => value.is_string(),
        other => panic!("{place}: type {other:?}"),
    };
    assert!(is_right, "{place}: {value} against {schema}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{place}: {value}");
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for value in values {
            check(document, items, value, &format!("{place}[]"));
        }
    }
    let Some(fields) = value.as_object() else {
        return;
    };
    if let Some(each) = schema
        .get("additionalProperties")
        .filter(|it| it.is_object())
    {
        return fields.iter().for_each(|(name, value)| {
            check(document, each, value, &format!("{place}.{name}"));
        });
    }
    let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    let told: Vec<&String> = fields.keys().collect();
    assert_eq!(described, told, "{place}");
    for (name, value) in fields {
        let schema = &schema["properties"][name];
        check(document, schema, value, &format!("{place}.{name}"));
    }
}

#[test]
fn answers_are_what_the_description_says_down_to_the_last_field() {
    let (state, _) = state_with(History::off("in a test"));
    let start = Instant::now();
    state.look(start);
    state.look(start + Duration::from_secs(1));
    let about = crate::path_events::About::default();
    let what = crate::path_events::What::Gateway(GradeView::Info, "x".to_owned());
    state.desk.put(&state.live().snapshot, about, what, start);
    let site = Site::serve(state);
    let client = site.client();
    let document: Value = serde_json::from_str(patronus_api::OPENAPI).unwrap();
    let mut snapshots = client
        .watch(&WatchQuery {
            interval_ms: None,
            count: Some(1),
        })
        .unwrap();
    let json = |value: &dyn erased::Json| value.json();
    for (name, value) in [
        ("Status", json(&client.status().unwrap())),
        ("Workers", json(&client.workers().unwrap())),
        ("Peers", json(&client.peers().unwrap())),
        ("Counters", json(&client.counters().unwrap())),
        ("Rules", json(&client.rules().unwrap())),
        (
            "Flows",
            json(&client.flows(&FlowsQuery::default()).unwrap()),
        ),
        (
            "History",
            json(&client.history(&HistoryQuery::default()).unwrap()),
        ),
        ("Ordered", json(&client.meter_stages(0).unwrap())),
        (
            "Snapshot",
            json(&snapshots.next_snapshot().unwrap().unwrap()),
        ),
        ("Counts", json(&CountsView::default())),
    ] {
        let schema = &document["components"]["schemas"][name];
        check(&document, schema, &value, name);
    }
}

/// Values of several types in one list.
mod erased {
    pub trait Json {
        fn json(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}
