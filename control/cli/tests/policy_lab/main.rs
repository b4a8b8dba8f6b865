//! Policy in a lab of real gateways: who reaches whom is what the tables say, before and after live changes; an
//! established connection fares as configured; and a gateway that starts lets nothing through ahead of its policy.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

#[path = "../common/mod.rs"]
mod common;
mod probes;
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use common::{Daemon, Mesh, PATIENCE, Pair, Place, can_run, patronus, until};
use patronus_api::{ExplainRequest, VerdictView};
use patronus_lab::{Family, Lab, Packets, Site};
use patronus_policy::cluster::Cluster;
use patronus_policy::diff::Side;
use patronus_policy::manifest::Loader;
use patronus_policy::model::Connection;
use probes::{ENDS, End, Probe, Servers, TCP, UDP, all_probes, observe};

const CLUSTER: &str = include_str!("cluster.yaml");
const BEFORE: &str = include_str!("before.yaml");
const AFTER: &str = include_str!("after.yaml");
const KEEP: &str = "[policy]\nkeep_established = true\n";

/// The probes that a set of policies allows, by tables compiled from the text alone.
fn allowed_offline(policies: &str, probes: &[Probe]) -> BTreeSet<Probe> {
    let mut loader = Loader::new();
    loader.add("cluster.yaml", CLUSTER.as_bytes());
    loader.add("policies.yaml", policies.as_bytes());
    let loaded = loader.finish();
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let mut cluster = Cluster::default();
    for object in loaded.objects {
        cluster.apply(&object.into_change());
    }
    let side = Side::new(cluster);
    let is_allowed = |probe: &&Probe| {
        let connection = Connection {
            src: probe.src,
            dst: probe.dst,
            protocol: probe.protocol,
            dst_port: probe.port,
        };
        side.table.judge(&connection).allow
    };
    probes.iter().filter(is_allowed).copied().collect()
}

/// What `patronus explain` says of a connection with the files of a gateway.
fn explained(place: &Place, probe: &Probe) -> bool {
    let mut command = patronus();
    let ends = [probe.src.to_string(), probe.dst.to_string(), probe.door()];
    command.arg("explain").args(ends).arg("--json");
    let output = command
        .arg("--config")
        .arg(place.path("policies.d"))
        .output();
    let output = output.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allow = answer["allow"].as_bool().unwrap();
    let code = if allow { 0 } else { 4 };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    allow
}

/// What a running gateway says of a connection.
fn explained_live(place: &Place, probe: &Probe) -> bool {
    let request = ExplainRequest {
        src: probe.src.to_string(),
        dst: probe.dst.to_string(),
        protocol: probe.door().split('/').next().unwrap().to_uppercase(),
        port: Some(probe.port),
    };
    let answer = place.ask(|client| client.explain(&request)).unwrap();
    answer.verdict == VerdictView::Allow
}

fn list(probes: &BTreeSet<Probe>) -> String {
    let lines: Vec<String> = probes.iter().take(20).map(Probe::to_string).collect();
    format!("{} ways:\n{}", probes.len(), lines.join("\n"))
}

/// Three sites under policy, and who asks whom in them.
struct Town {
    mesh: Mesh,
    servers: Servers,
    probes: Vec<Probe>,
    /// How often they have been judged.
    rounds: usize,
}

impl Town {
    /// The gateways start with `policies` in their folders.
    fn up(policies: &str) -> Self {
        let mesh = Mesh::up_with(3, |place| write_policies(place, policies), |_| {});
        probes::settle_in(&mesh.lab);
        let probes = all_probes();
        let servers = Servers::start(&mesh.lab, &probes);
        Self {
            mesh,
            servers,
            probes,
            rounds: 0,
        }
    }

    /// Puts other policies in force on all gateways; `settings` goes into their configuration.
    fn change(&mut self, policies: &str, settings: &str) {
        let gateways = self.mesh.places.iter().zip(&self.mesh.confs);
        for ((place, conf), daemon) in gateways.zip(&mut self.mesh.daemons) {
            let generation = || {
                place
                    .ask(|client| client.status())
                    .unwrap()
                    .policy_generation
            };
            let before = generation();
            let mut conf = conf.clone();
            conf.uplink += settings;
            place.configure(&conf);
            write_policies(place, policies);
            daemon.reload();
            assert!(generation() > before, "{}", daemon.log());
        }
    }

    /// Who reaches whom is what the tables, `patronus explain` and the gateways say; the ways that are open.
    fn judge(&mut self, policies: &str) -> BTreeSet<Probe> {
        self.rounds += 1;
        let allowed = allowed_offline(policies, &self.probes);
        for protocol in self.protocols() {
            let of = |probe: &&Probe| probe.protocol == protocol;
            let (all, open) = (self.probes.iter().filter(of), allowed.iter().filter(of));
            let (all, open) = (all.count(), open.count());
            assert!(open > 10 && all - open > 10, "{open} of {all} are no test");
        }
        // A prime apart, so that in time every end, family and door has its turn.
        for probe in self.probes.iter().skip(self.rounds).step_by(23) {
            let expected = allowed.contains(probe);
            let place = &self.mesh.places[self.rounds % 3];
            assert_eq!(explained(place, probe), expected, "{probe}");
            for place in &self.mesh.places {
                assert_eq!(explained_live(place, probe), expected, "{probe}");
            }
        }
        let (answered, arrived) = observe(&self.mesh.lab, &self.servers, &self.probes, &allowed);
        let leaks: BTreeSet<_> = &(&answered | &arrived) - &allowed;
        assert!(leaks.is_empty(), "forbidden, but open: {}", list(&leaks));
        let dead: BTreeSet<_> = &allowed - &answered;
        assert!(dead.is_empty(), "allowed, but closed: {}", list(&dead));
        println!(
            "round {}: {} of {} ways open, as the tables say",
            self.rounds,
            answered.len(),
            self.probes.len()
        );
        answered
    }

    fn protocols(&self) -> BTreeSet<u8> {
        self.probes.iter().map(|probe| probe.protocol).collect()
    }

    /// Ends the gateways: their books balance and nothing of them is left.
    fn down(self) {
        drop(self.servers);
        for (daemon, place) in self.mesh.daemons.into_iter().zip(&self.mesh.places) {
            let packets = leave(daemon, place);
            assert_ne!(denied(&packets), [0; 2], "{packets:?}");
        }
    }
}

/// Ends a gateway and finds nothing of it; its packets, all accounted for.
fn leave(daemon: Daemon, place: &Place) -> Packets {
    let packets = daemon.stop().packets;
    for number in 1..=3 {
        let interface = format!("site{number}");
        assert!(!place.has_interface(&interface) && !place.has_socket(&interface));
        assert!(place.routes_into_any(&interface).is_empty());
    }
    assert!(!place.has_api());
    packets
}

/// How many packets policy denied on the way out and on the way in.
fn denied(packets: &Packets) -> [u64; 2] {
    let reasons = ["policy_denied_out", "policy_denied_in"];
    reasons.map(|reason| packets.drops.get(reason).copied().unwrap_or(0))
}

fn write_policies(place: &Place, policies: &str) {
    place.manifest("cluster.yaml", CLUSTER);
    place.manifest("policies.yaml", policies);
}

fn end(name: &str) -> End {
    *ENDS.iter().find(|end| end.name == name).unwrap()
}

/// An established connection from the till to the API, on a port that nobody else uses.
struct Call {
    till: TcpStream,
    api: TcpStream,
}

impl Call {
    fn open(lab: &Lab) -> Self {
        let to = SocketAddr::new(end("shop/api").v4(), 7000);
        let from = SocketAddr::new(end("shop/till").v4(), 0);
        let listener = lab.sites[1].host.run(|| TcpListener::bind(to));
        let listener = listener.unwrap().unwrap();
        let attempt = || {
            let domain = socket2::Domain::IPV4;
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            let connected = socket.connect_timeout(&to.into(), PATIENCE);
            connected.map(|()| TcpStream::from(socket))
        };
        // On a busy machine an answer to ARP may take longer than the three seconds that the kernel waits for it.
        let is_late = |error: &std::io::Error| error.kind() == ErrorKind::HostUnreachable;
        let connect = || {
            let attempts = (0..3).map(|_| attempt());
            let mut told = attempts.skip_while(|it| it.as_ref().is_err_and(is_late));
            told.next().unwrap_or_else(attempt).unwrap()
        };
        let till = lab.sites[0].host.run(connect).unwrap();
        let (api, _) = listener.accept().unwrap();
        for stream in [&till, &api] {
            stream.set_read_timeout(Some(RESUME_MAX)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        Self { till, api }
    }

    /// Both say something, and both hear it.
    fn talks(&mut self) {
        self.say(b"well");
        self.hear(b"well");
    }

    fn say(&mut self, word: &[u8; 4]) {
        self.till.write_all(word).unwrap();
        self.api.write_all(word).unwrap();
    }

    fn hear(&mut self, word: &[u8; 4]) {
        for stream in [&mut self.api, &mut self.till] {
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, word);
        }
    }

    /// Both say `word`, have to send it again and again, and neither hears it.
    fn is_cut(&mut self, lab: &Lab, word: &[u8; 4]) {
        self.say(word);
        for (stream, site) in [(&self.till, &lab.sites[0]), (&self.api, &lab.sites[1])] {
            let ports = [stream.local_addr(), stream.peer_addr()].map(|it| it.unwrap().port());
            until("what was said is sent again", || resent(site, ports) >= 2);
        }
        for stream in [&mut self.till, &mut self.api] {
            stream.set_nonblocking(true).unwrap();
            let heard = stream.read(&mut [0; 4]).unwrap_err();
            assert_eq!(heard.kind(), ErrorKind::WouldBlock);
            stream.set_nonblocking(false).unwrap();
        }
    }
}

/// How often in a row the host of a site has sent a segment of a connection in vain (`/proc/net/tcp`).
fn resent(site: &Site, [local, remote]: [u16; 2]) -> u32 {
    let table = site
        .host
        .run(|| fs::read_to_string("/proc/thread-self/net/tcp"));
    let table = table.unwrap().unwrap();
    let is_it = |fields: &Vec<&str>| {
        let ends_in = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
        ends_in(fields[1], local) && ends_in(fields[2], remote)
    };
    let lines = table.lines().skip(1);
    let mut lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(is_it).expect("the connection is there");
    u32::from_str_radix(line[6], 16).unwrap()
}

#[test]
fn who_reaches_whom_is_what_the_tables_say_before_and_after_live_changes() {
    if !can_run() {
        return;
    }
    let mut town = Town::up(BEFORE);
    let mut call = Call::open(&town.mesh.lab);
    let before = town.judge(BEFORE);
    let is_open = |ways: &BTreeSet<Probe>, src, dst, protocol, port| {
        ways.iter()
            .filter(|probe| probe.is(src, dst, protocol, port))
            .count()
    };
    // A few known by reading the manifests: over both families, over one, over none.
    assert_eq!(is_open(&before, "shop/till", "shop/api", TCP, 8443), 2);
    assert_eq!(is_open(&before, "office/printer", "shop/api", UDP, 53), 1);
    assert_eq!(is_open(&before, "guest/tablet", "office/desk", UDP, 53), 0);

    call.talks();
    town.change(AFTER, "");
    call.is_cut(&town.mesh.lab, b"lost");
    let after = town.judge(AFTER);
    assert_eq!(is_open(&after, "shop/till", "shop/api", TCP, 8443), 0);
    assert_eq!(is_open(&after, "outside 1", "shop/db", TCP, 9000), 2);
    assert_eq!(is_open(&after, "guest/tablet", "office/desk", UDP, 53), 1);
    for protocol in town.protocols() {
        let of = |probe: &&Probe| probe.protocol == protocol;
        assert!((&after - &before).iter().any(|it| of(&it)), "none opened");
        assert!((&before - &after).iter().any(|it| of(&it)), "none closed");
    }

    // What TCP still sends again arrives as soon as the connection may go on.
    town.change(BEFORE, KEEP);
    call.hear(b"lost");
    assert_eq!(town.judge(BEFORE), before);
    call.talks();

    town.change(AFTER, KEEP);
    call.talks();
    assert_eq!(town.judge(AFTER), after, "new connections are judged anew");
    call.talks();
    drop(call);
    town.down();
}

const SHUT: &str = "\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: shut, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
";

/// Datagrams from one end to another without pause, counted where they arrive. Dropping it ends them.
struct Stream {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    fn start(lab: &Lab, from: End, to: End, family: Family) -> Self {
        let addr = |end: End| match family {
            Family::V4 => end.v4(),
            Family::V6 => end.v6(),
        };
        let socket = |end: End| {
            let site = &lab.sites[usize::from(end.site) - 1];
            let bind = || UdpSocket::bind(SocketAddr::new(addr(end), 0));
            site.host.run(bind).unwrap().unwrap()
        };
        let (sender, receiver) = (socket(from), socket(to));
        let target = receiver.local_addr().unwrap();
        receiver.set_read_timeout(Some(WAKE)).unwrap();
        let mut stream = Self {
            sent: Arc::default(),
            received: Arc::default(),
            ended: Arc::default(),
            threads: Vec::new(),
        };
        let (sent, ended) = (stream.sent.clone(), stream.ended.clone());
        stream.threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // While a gateway is away there is no route, and the kernel says so.
                if sender.send_to(&[0; 100], target).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                sleep(Duration::from_micros(200));
            }
        }));
        let (received, ended) = (stream.received.clone(), stream.ended.clone());
        stream.threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if receiver.recv(&mut [0; 100]).is_ok() {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
        stream
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of it has been printed, and what it no longer counts fails the test.
            let _ = thread.join();
        }
    }
}

/// Bytes that came to a gateway through the tunnel, handshakes included.
fn tunnel_bytes(daemon: &Daemon) -> u64 {
    let answer = daemon.uapi(b"get=1\n\n");
    let lines = answer
        .lines()
        .filter_map(|line| line.strip_prefix("rx_bytes="));
    lines.map(|bytes| bytes.parse::<u64>().unwrap()).sum()
}

/// Waits with the patience that a handshake needs whose first tries were lost.
fn wait_for(what: &str, daemon: &Daemon, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        let state = || (daemon.uapi(b"get=1\n\n"), daemon.log());
        assert!(begun.elapsed() < RESUME_MAX, "{what}: {:?}", state());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_packet_passes_a_starting_gateway_ahead_of_its_policy() {
    if !can_run() {
        return;
    }
    // A keepalive makes the gateway that starts call the other one, so that its packets come at once.
    let pair = Pair::up(|conf| conf.peers[0].more = "keepalive = 1\n".to_owned());
    probes::settle_in(&pair.lab);
    pair.reach();
    let (till, api) = (end("shop/till"), end("shop/api"));
    let (place, conf) = (&pair.place_two, &pair.conf_two);
    pair.two.stop();

    write_policies(place, SHUT);
    let families = [Family::V4, Family::V6];
    let inward = families.map(|family| Stream::start(&pair.lab, till, api, family));
    let outward = families.map(|family| Stream::start(&pair.lab, api, till, family));
    let streams = || inward.iter().chain(&outward);
    let received = || streams().map(Stream::received).collect::<Vec<_>>();
    for _ in 0..STARTS {
        let daemon = place.start(conf);
        let sent: Vec<u64> = streams().map(Stream::sent).collect();
        wait_for("packets come from both sides", &daemon, || {
            let mut more = streams().zip(&sent).map(|(it, sent)| it.sent() - sent);
            more.all(|more| more > 200) && tunnel_bytes(&daemon) > 50_000
        });
        let packets = daemon.stop().packets;
        assert!(denied(&packets).iter().all(|it| *it > 100), "{packets:?}");
        assert_eq!(received(), [0; 4]);
    }

    place.manifest("faulty.yaml", &SHUT.replace("Egress", "Outwards"));
    let refused = place.failing_start(conf);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("policies.d/faulty.yaml:6"), "{stderr}");
    assert!(!place.has_interface(&conf.interface) && !place.has_api());
    assert_eq!(received(), [0; 4]);

    // The same streams arrive once they may: it was policy that held them up.
    fs::remove_file(place.path("policies.d/faulty.yaml")).unwrap();
    let mut daemon = place.start(conf);
    place.manifest("policies.yaml", "");
    daemon.reload();
    wait_for("all streams arrive", &daemon, || {
        received().iter().all(|it| *it > 0)
    });
    drop((inward, outward));
    leave(daemon, place);
    pair.one.stop();
}

/// How often the closed gateway starts.
const STARTS: usize = 3;
/// How often a receiver looks whether it is to end.
const WAKE: Duration = Duration::from_millis(200);
/// How long TCP may take to send again what was cut off, whose timer has doubled meanwhile; and a gateway until
/// its handshake has come through, which is tried every 5 s.
const RESUME_MAX: Duration = Duration::from_secs(60);
