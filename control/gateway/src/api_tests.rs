//! The API on a socket of its own, asked by its client and by clients that behave badly.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;

use super::*;
use crate::facts::WorkerReading;
use crate::policy::{PolicyStore, load};
use crate::registry::Registry;
use patronus_api::{
    CandidateFile, CauseView, Client, ClientError, DiffRequest, ExplainRequest, PrefilterCommand,
    PrefilterCommandRequest, PrefilterHookView, PrefilterSideView, PrefilterStateView, VerdictView,
};
use patronus_config::manifests::ManifestFile;
use patronus_config::{Peer, PeerSet};
use patronus_engine::OpenedBy;
use patronus_engine::flow_table::FlowWriter;
use patronus_packet::FlowKey;
use patronus_tunnel::{PrivateKey, PublicKey};

const MANIFESTS: &str = "\
kind: Pod
apiVersion: v1
metadata: {name: api, namespace: shop, labels: {app: api}}
status: {podIPs: [{ip: 10.1.0.9}, {ip: 'fd00:1::9'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: till, namespace: shop}
status: {podIPs: [{ip: 'fd00:1::7'}, {ip: 10.1.0.7}]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - ports: [{port: 443}]
";

/// Nobody counts.
pub(super) struct NoCounts;

impl RuleHits for NoCounts {
    fn counts(&self) -> Option<BTreeMap<u32, Hits>> {
        None
    }
}

/// Workers that say these things of themselves, and remember for how long their stages were to be metered.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeFacts {
    pub readings: Vec<WorkerReading>,
    pub metered: Arc<std::sync::Mutex<Vec<Duration>>>,
}

impl WorkerFacts for FakeFacts {
    fn read(&self) -> Vec<WorkerReading> {
        self.readings.clone()
    }

    fn meter_stages(&self, span: Duration) {
        self.metered.lock().unwrap().push(span);
    }
}

pub(super) fn dataplane(flow_tables: Vec<Arc<FlowTable>>, facts: FakeFacts) -> Dataplane {
    Dataplane {
        flow_tables,
        counts: Box::new(NoCounts),
        facts: Box::new(facts),
        offload: "full".to_owned(),
        cipher: "own".to_owned(),
        metrics: Vec::new(),
    }
}

/// A gateway's API without a gateway; it ends when this is dropped.
pub(super) struct Site {
    dir: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Site {
    /// One peer, one worker that knows these flows.
    fn new(flows: &[(FlowKey, OpenedBy)]) -> Self {
        Self::serve(state(flows))
    }

    /// A site that answers from this state.
    pub(super) fn serve(state: Arc<ApiState>) -> Self {
        Self::serve_for(state, CONNECTION_LIFE)
    }

    /// The same, whose connections live that long.
    pub(super) fn serve_for(state: Arc<ApiState>, life: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = ApiServer::open_for(&folder, state, life).unwrap();
                ready.send(()).unwrap();
                let _ = stopped.await;
                drop(server);
            });
            runtime.shutdown_background();
        });
        is_ready.recv().unwrap();
        Self {
            dir,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("run").join(SOCKET_NAME)
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(&self.path()).unwrap()
    }

    /// Sends bytes and reads to the end: the first line, and the error that the body holds.
    pub(super) fn raw(&self, request: &[u8]) -> (String, Option<patronus_api::ApiError>) {
        let mut stream = StdStream::connect(self.path()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        // The server may answer and hang up in the middle of it.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let first = head.lines().next().unwrap_or_default().to_owned();
        (first, serde_json::from_str(body).ok())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.path().exists(), "the socket was left behind");
    }
}

/// What answers are made of, with one peer and a worker that knows these flows.
pub(super) fn state(flows: &[(FlowKey, OpenedBy)]) -> Arc<ApiState> {
    let mut writer = FlowTable::create(1024, 3);
    let mut registry = Registry::new(
        PrivateKey::from_bytes([1; 32]),
        1420,
        1,
        patronus_aead::Backend::best(),
        Instant::now(),
    );
    let mut peer = Peer::new(PublicKey::from_bytes([2; 32]));
    peer.name = Some("branch".parse().unwrap());
    registry.set_peers(PeerSet::from_peers([peer]));
    let live = live(&mut registry);
    let id = live.snapshot.peers().next().unwrap().id;
    let generation = live.snapshot.generation();
    for (key, opened_by) in flows {
        let slot = FlowWriter::insert(&mut writer, key, id, *opened_by, generation, 0);
        writer.touch(slot, 3, 300 + u64::from(key.dst_port), 0);
    }
    let tables = vec![writer.table().clone()];
    let desk = PathDesk::new(super::path_tests::Fake::default());
    let dataplane = dataplane(tables, FakeFacts::default());
    let history = History::off("in a test");
    let state = ApiState::new(live, dataplane, history, desk, 5);
    state.with_config(book())
}

/// Configurations that were read once, with nobody to carry out orders.
fn book() -> Arc<ConfigBook> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patronus.toml");
    let text = "[site]\nname = \"hq\"\nprivate_key_file = \"key\"\nstate_dir = \"state\"\n";
    std::fs::write(&file, text).unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, patronus_config::keys::genkey().as_bytes()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let now = crate::config_store::Now::read();
    crate::config_book::begin(&file, &now).unwrap().book
}

/// What control would publish of these peers and the policy of these tests.
fn live(registry: &mut Registry) -> Live {
    let snapshot = registry.compile();
    let peers = snapshot.peers();
    Live {
        site: "hq".to_owned(),
        peer_names: peers.map(|spec| (spec.id, "branch".to_owned())).collect(),
        snapshot,
        policy: store().in_force().clone(),
        keep_established: true,
        refusal: Refusal::Reject,
        via: Default::default(),
    }
}

pub(super) fn store() -> PolicyStore {
    let mut store = PolicyStore::new(5);
    store.apply(load(vec![ManifestFile {
        name: "policies.d/shop.yaml".to_owned(),
        contents: Ok(MANIFESTS.as_bytes().to_vec()),
    }]));
    store
}

fn key(src: &str, dst: &str, dst_port: u16) -> FlowKey {
    FlowKey {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        src_port: 40000,
        dst_port,
        protocol: 6,
    }
}

fn ask(src: &str, dst: &str, protocol: &str, port: Option<u16>) -> ExplainRequest {
    ExplainRequest {
        src: src.to_owned(),
        dst: dst.to_owned(),
        protocol: protocol.to_owned(),
        port,
    }
}

#[test]
fn status_and_policy_say_what_is_in_force_and_where_it_stands() {
    let site = Site::new(&[]);
    let status = site.client().status().unwrap();
    assert_eq!(
        (status.site.as_str(), status.workers, status.peers),
        ("hq", 0, 1)
    );
    assert_eq!(status.peers_up, 0);
    assert_eq!(status.policy_objects["Pod"], 2);

    let policy = site.client().policy().unwrap();
    assert_eq!(policy.generation, status.policy_generation);
    assert!(policy.has_policy && policy.keep_established);
    assert_eq!(policy.refusal, patronus_api::RefusalView::Reject);
    let network: Vec<_> = policy
        .objects
        .iter()
        .filter(|it| it.mode.is_some())
        .collect();
    assert_eq!(network.len(), 1);
    assert_eq!(network[0].source, "policies.d/shop.yaml:11");
    assert!(
        policy
            .rules
            .iter()
            .any(|it| it.rule.number == 1 && it.hits.is_none())
    );
}

/// Counts ten packets more per rule number, and some under no rule that is in force.
struct TenEach;

impl RuleHits for TenEach {
    fn counts(&self) -> Option<BTreeMap<u32, Hits>> {
        let of = |number: u32| Hits {
            counter: Counter {
                packets: u64::from(number) * 10,
                ..Counter::default()
            },
            last_s: Some(0),
        };
        Some([1, 2, 9000].map(|number| (number, of(number))).into())
    }
}

#[test]
fn hits_stand_at_their_rule_and_those_of_rules_that_are_gone_apart() {
    let site = live(&mut Registry::new(
        PrivateKey::from_bytes([1; 32]),
        1420,
        1,
        patronus_aead::Backend::best(),
        Instant::now(),
    ));
    let told = views::policy(&site, &TenEach);
    let ids: Vec<u64> = site
        .policy
        .table
        .rules()
        .map(|(id, _)| id.number().into())
        .collect();
    let packets: Vec<u64> = told
        .rules
        .iter()
        .map(|it| it.hits.unwrap().packets)
        .collect();
    let expected: Vec<u64> = ids
        .iter()
        .map(|id| if *id < 3 { id * 10 } else { 0 })
        .collect();
    assert!(!ids.is_empty());
    assert_eq!(packets, expected);
    let listed: u64 = packets.iter().sum();
    assert_eq!(told.other_hits.unwrap().packets, 10 + 20 + 90_000 - listed);
}

#[test]
fn an_explanation_resolves_pods_by_name_to_a_common_family() {
    let site = Site::new(&[]);
    let client = site.client();
    let denied = client
        .explain(&ask("shop/till", "shop/api", "tcp", Some(8443)))
        .unwrap();
    assert_eq!(denied.verdict, VerdictView::Deny);
    assert_eq!(denied.ingress.cause, CauseView::Isolated);
    assert_eq!(denied.ingress.isolated_by[0].name, "shop/api");
    assert_eq!(denied.ingress.nearest.unwrap().missing, "port");
    assert_eq!(denied.src.name.as_deref(), Some("shop/till"));
    assert!(
        denied.text.starts_with("denied: shop/till"),
        "{}",
        denied.text
    );
    let allowed = client
        .explain(&ask("192.0.2.1", "shop/api", "6", Some(443)))
        .unwrap();
    assert_eq!(allowed.verdict, VerdictView::Allow);
    assert_eq!(allowed.connection.dst.to_string(), "10.1.0.9");
    assert_eq!(allowed.ingress.rule.unwrap().number, 1);
}

#[test]
fn a_question_that_makes_no_sense_names_its_field_and_the_remedy() {
    let site = Site::new(&[]);
    let client = site.client();
    for (request, field) in [
        (ask("nonsense", "10.1.0.9", "TCP", Some(1)), "src"),
        (ask("10.1.0.9", "shop/absent", "TCP", Some(1)), "dst"),
        (ask("192.0.2.1", "fd00::1", "TCP", Some(1)), "dst"),
        (ask("192.0.2.1", "10.1.0.9", "QUIC", Some(1)), "protocol"),
        (ask("192.0.2.1", "10.1.0.9", "TCP", None), "port"),
        (ask("192.0.2.1", "10.1.0.9", "ICMP", Some(7)), "port"),
    ] {
        match client.explain(&request) {
            Err(ClientError::Refused(error)) => {
                assert_eq!(error.field.as_deref(), Some(field), "{error:?}");
                assert!(!error.fix.is_empty());
            }
            other => panic!("{request:?}: {other:?}"),
        }
    }
}

#[test]
fn flows_come_from_the_end_that_opened_them_and_a_filter_picks() {
    let site = Site::new(&[
        (key("10.1.0.7", "10.2.0.1", 443), OpenedBy::Local),
        (key("10.1.0.9", "10.2.0.2", 5000), OpenedBy::Remote),
    ]);
    let list = |filter: &str, limit| {
        let filter = Some(filter.to_owned());
        site.client().flows(&FlowsQuery {
            limit,
            filter,
            ..FlowsQuery::default()
        })
    };
    let all = list("", None).unwrap();
    assert_eq!((all.matched, all.total, all.flows.len()), (2, 2, 2));
    let remote = &all.flows[0];
    assert_eq!(
        (remote.src.to_string(), remote.src_port),
        ("10.2.0.2".to_owned(), 5000)
    );
    assert_eq!(
        (remote.dst_port, remote.opened_by.as_str()),
        (40000, "remote")
    );
    assert_eq!(remote.peer.as_deref(), Some("branch"));
    assert_eq!((remote.packets, remote.bytes), (3, 5300));
    for (filter, matched) in [
        ("src=10.1.0.0/16", 1),
        ("dst=10.1.0.9", 1),
        ("addr=10.2.0.0/16 proto=tcp peer=branch", 2),
        ("port=443 proto=udp", 0),
        ("peer=other", 0),
    ] {
        assert_eq!(list(filter, None).unwrap().matched, matched, "{filter}");
    }
    let one = list("", Some(1)).unwrap();
    assert_eq!((one.flows.len(), one.matched), (1, 2));
    for (filter, limit, field) in [
        ("dst", None, "filter"),
        ("dst=10.0.0.0/99", None, "filter"),
        ("colour=red", None, "filter"),
        ("", Some(1_000_000), "limit"),
    ] {
        match list(filter, limit) {
            Err(ClientError::Refused(error)) => assert_eq!(error.field.as_deref(), Some(field)),
            other => panic!("{filter}: {other:?}"),
        }
    }
}

#[test]
fn a_diff_names_the_live_flows_that_a_candidate_would_cut_and_why() {
    let site = Site::new(&[
        (key("10.1.0.9", "10.2.0.1", 443), OpenedBy::Local),
        // Opened from the far side to port 443 of shop/api.
        (
            FlowKey {
                src_port: 443,
                ..key("10.1.0.9", "10.2.0.2", 50000)
            },
            OpenedBy::Remote,
        ),
        (
            FlowKey {
                src_port: 80,
                ..key("10.1.0.9", "10.2.0.3", 50000)
            },
            OpenedBy::Remote,
        ),
    ]);
    let candidate = |text: String| {
        let name = "policies.d/shop.yaml".to_owned();
        let files = vec![CandidateFile { name, text }];
        site.client().diff(&DiffRequest { files }).unwrap()
    };
    let same = candidate(MANIFESTS.to_owned());
    assert_eq!((same.judged, same.changes, same.flows.len()), (3, 0, 0));
    let moved = candidate(MANIFESTS.replace("port: 443", "port: 80"));
    assert_eq!((moved.denied, moved.allowed, moved.changes), (1, 1, 1));
    let cut = &moved.flows[0];
    assert_eq!(
        (cut.before, cut.after),
        (VerdictView::Allow, VerdictView::Deny)
    );
    assert_eq!(cut.flow.src.to_string(), "10.2.0.2");
    assert!(
        cut.after_text.contains("isolated by shop/api"),
        "{}",
        cut.after_text
    );
    // What a reload would refuse and keep, a diff refuses and keeps.
    let broken = candidate(MANIFESTS.replace("port: 443", "port: 443000"));
    assert_eq!((broken.changes, broken.flows.len()), (0, 0));
    assert_eq!(broken.diagnostics[0].line, 17);
}

#[test]
fn wrong_paths_methods_and_bodies_get_an_error_with_its_remedy() {
    let site = Site::new(&[]);
    let post = |path: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        format!("{head}{body}")
    };
    for (request, status) in [
        ("GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        (
            "DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            405,
        ),
        (post("/v1/status", ""), 405),
        (post("/v1/policy/explain", "{"), 400),
        (post("/v1/policy/explain", "{\"src\":1}"), 400),
        (post("/v1/policy/diff", "{\"files\":[],\"more\":1}"), 400),
        (
            "GET /v1/flows?limit=many HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET /v1/flows?colour=red HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            400,
        ),
    ] {
        let (first, error) = site.raw(request.as_bytes());
        assert!(
            first.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {first}"
        );
        assert!(error.is_some_and(|it| !it.fix.is_empty()), "{request}");
    }
    for (request, status) in [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01".to_vec(),
            "HTTP/1.1 400 ",
        ),
        (
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
            "HTTP/1.1 400 ",
        ),
        (
            [b"GET /".as_slice(), &vec![b'a'; 1 << 20]].concat(),
            "HTTP/1.1 4",
        ),
    ] {
        let (first, _) = site.raw(&request);
        assert!(first.starts_with(status), "{first}");
    }
    assert!(site.client().status().is_ok());
}

#[test]
fn a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not() {
    let site = Site::new(&[]);
    let long = REQUEST_LEN_MAX + 1;
    let head =
        format!("POST /v1/policy/diff HTTP/1.1\r\nHost: x\r\nContent-Length: {long}\r\n\r\n");
    let (first, _) = site.raw(&[head.as_bytes(), &vec![b' '; long]].concat());
    assert!(first.starts_with("HTTP/1.1 413 "), "{first}");
    let mut chunks =
        b"POST /v1/policy/explain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..20 {
        chunks.extend_from_slice(b"2000\r\n");
        chunks.extend_from_slice(&[b' '; 0x2000]);
        chunks.extend_from_slice(b"\r\n");
    }
    let (first, _) = site.raw(&chunks);
    assert!(first.starts_with("HTTP/1.1 413 "), "{first}");
    let files = vec![CandidateFile {
        name: "a.yaml".to_owned(),
        text: " ".repeat(REQUEST_LEN_MAX),
    }];
    match site.client().diff(&DiffRequest { files }) {
        Err(ClientError::Refused(error)) => assert_eq!(error.error, "the body is too long"),
        // The rest of the body may still lie in the socket when the server hangs up.
        Err(ClientError::Broken { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn clients_that_say_nothing_are_cut_and_keep_no_place_for_long() {
    let site = Site::new(&[]);
    let begun = Instant::now();
    let idle: Vec<StdStream> = (0..CLIENTS_MAX)
        .map(|at| {
            let mut stream = StdStream::connect(site.path()).unwrap();
            if at % 2 == 0 {
                stream.write_all(b"GET /v1/status HTTP/1.1\r\nHos").unwrap();
            }
            stream
        })
        .collect();
    // Every place is taken: this one waits until the patience with the first ones is over.
    assert!(site.client().status().is_ok());
    let took = begun.elapsed();
    assert!(
        took >= HEADERS_PATIENCE - Duration::from_secs(1),
        "{took:?}"
    );
    assert!(took < HEADERS_PATIENCE * 3, "{took:?}");
    drop(idle);
}

#[test]
fn a_slow_body_is_answered_with_a_timeout_and_hinders_nobody() {
    let site = Site::new(&[]);
    let path = site.path();
    let slow = std::thread::spawn(move || {
        let mut stream = StdStream::connect(path).unwrap();
        stream
            .write_all(b"POST /v1/policy/diff HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    let begun = Instant::now();
    assert!(site.client().status().is_ok());
    assert!(begun.elapsed() < Duration::from_secs(5));
    let answer = slow.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(begun.elapsed() < CONNECTION_LIFE);
}

#[test]
fn the_socket_is_closed_to_others_and_replaces_that_of_a_dead_gateway_only() {
    let site = Site::new(&[]);
    let found = std::fs::metadata(site.path()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o660);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bind = || SocketFile::bind(dir.path(), SOCKET_NAME, 0o660, None, PURPOSE);
        let (file, listener) = bind().unwrap();
        let taken = bind().unwrap_err().to_string();
        assert!(taken.contains("served by a running program"), "{taken}");
        drop((file, listener));
        assert!(!path.exists());
        std::fs::write(&path, "notes").unwrap();
        let other = bind().unwrap_err().to_string();
        assert!(
            other.contains("is not a socket") && other.contains("--api-dir"),
            "{other}"
        );
    });
}

#[test]
fn the_committed_description_has_the_routes_there_are() {
    let site = Site::new(&[]);
    let document: serde_json::Value = serde_json::from_str(patronus_api::OPENAPI).unwrap();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.push((method.clone(), path.clone()));
        }
    }
    let mut routes: Vec<(String, String)> = ROUTES
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
    for (method, path) in routes {
        let method = method.to_uppercase();
        // A path that does not exist: what exists is asked for beside this.
        let target = path.replace("{peer}", "branch").replace("{path}", "9");
        let target = match path.as_str() {
            // Without a count it would go on.
            "/v1/watch" => "/v1/watch?count=1".to_owned(),
            _ => target,
        };
        let (first, error) =
            site.raw(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let is_known = match path.contains('{') {
            true => error.is_some_and(|it| it.error != "no such path"),
            false => first.contains(" 200 ") || (method == "POST" && first.contains(" 400 ")),
        };
        assert!(is_known, "{method} {target}: {first}");
    }
    let fields = |name: &str| -> Vec<String> {
        let schema = &document["components"]["schemas"][name]["properties"];
        schema.as_object().unwrap().keys().cloned().collect()
    };
    let keys = |value: serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let client = site.client();
    let status = serde_json::to_value(client.status().unwrap()).unwrap();
    assert_eq!(fields("Status"), keys(status));
    let policy = serde_json::to_value(client.policy().unwrap()).unwrap();
    assert_eq!(fields("Policy"), keys(policy));
    let explained = client.explain(&ask("shop/till", "shop/api", "TCP", Some(1)));
    let explained = serde_json::to_value(explained.unwrap()).unwrap();
    assert_eq!(fields("Explanation"), keys(explained));

    let told = client.config().unwrap();
    assert_eq!((told.running, told.entries.len()), (Some(1), 1));
    let value = serde_json::to_value(told).unwrap();
    assert_eq!(fields("ConfigEntry"), keys(value["entries"][0].clone()));
    assert_eq!(fields("Config"), keys(value));
    let ordered = serde_json::to_value(patronus_api::ConfigCommandResponse::default()).unwrap();
    assert_eq!(fields("ConfigOrdered"), keys(ordered));
    let text = client.config_text("running").unwrap();
    assert!(text.text.starts_with("[site]"));
    assert_eq!(
        fields("ConfigText"),
        keys(serde_json::to_value(text).unwrap())
    );
    let refused = client.config_text("7").unwrap_err().to_string();
    assert!(
        refused.starts_with("no entry 7 in the history"),
        "{refused}"
    );

    let told = client.prefilter().unwrap();
    assert_eq!((told.wan.as_str(), told.counts.len()), ("auto", 0));
    let summary = serde_json::to_value(client.status().unwrap().prefilter).unwrap();
    assert_eq!(fields("PrefilterSummary"), keys(summary));
    assert_eq!(
        fields("Prefilter"),
        keys(serde_json::to_value(told).unwrap())
    );
    let hook = PrefilterHookView {
        interface: "eth0".to_owned(),
        side: PrefilterSideView::Wan,
        state: PrefilterStateView::Absent,
        hook: None,
        why: None,
        attached_s: None,
    };
    assert_eq!(
        fields("PrefilterHook"),
        keys(serde_json::to_value(hook).unwrap())
    );
    let request = PrefilterCommandRequest {
        command: PrefilterCommand::Attach,
        interface: Some("nowhere".to_owned()),
        hook: None,
        dry_run: true,
    };
    let refused = client.prefilter_command(&request).unwrap_err().to_string();
    assert_eq!(
        refused,
        "no interface `nowhere`: `ip link` shows which there are"
    );
    let value = serde_json::to_value(request).unwrap();
    assert_eq!(fields("PrefilterCommandRequest"), keys(value));
}
