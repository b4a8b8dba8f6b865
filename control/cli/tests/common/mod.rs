//! What the tests of the daemon share: a place to run it in, the daemon as a child process, and `wg` and `ip`
//! beside it.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use patronus_api::{Client, ClientError};
use patronus_lab::{Family, GatewayReport, Lab, Namespace, Site};
use serde_json::Value;

/// How long anything may take that takes milliseconds on an idle machine. A handshake whose packets a busy machine loses is
/// tried again every five seconds, a SYN after one, three and seven.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where the control socket is, in the gateway's private `/run`.
pub const UAPI_DIR: &str = "/run/wireguard";

/// Whether namespaces can be made here; says why not, and fails where a skip is not allowed.
pub fn can_run() -> bool {
    match Namespace::with_private_run("probe") {
        Ok(_) if Path::new("/dev/net/tun").exists() => true,
        Ok(_) => skip("there is no /dev/net/tun: modprobe tun"),
        Err(error) => skip(&error.to_string()),
    }
}

/// Whether a program is there; fails where a skip is not allowed.
pub fn has(program: &str, package: &str) -> bool {
    patronus_lab::program::find_on_path(program).is_some()
        || skip(&format!("no {program} on PATH: apt install {package}"))
}

/// Prints the reason; panics where PATRONUS_REQUIRE_ROOT_TESTS says that nothing may be skipped.
pub fn skip(reason: &str) -> bool {
    assert!(
        std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS").is_none_or(|value| value != "1"),
        "may not be skipped: {reason}"
    );
    println!("skipped: {reason}");
    false
}

/// The program under test.
pub fn patronus() -> Command {
    Command::new(env!("CARGO_BIN_EXE_patronus"))
}

/// A key pair as text.
#[derive(Clone, Debug)]
pub struct Keys {
    pub private: String,
    pub public: String,
}

impl Keys {
    pub fn new() -> Self {
        let private = patronus_config::keys::genkey().to_string();
        let public = patronus_config::keys::pubkey(&private).unwrap();
        Self { private, public }
    }
}

/// A configuration file in the making.
#[derive(Clone, Debug)]
pub struct Conf {
    pub interface: String,
    pub addresses: Vec<String>,
    pub mtu: u16,
    pub port: u16,
    /// Lines for `[site]`, `[[uplink]]` and `[dataplane]`.
    pub site: String,
    pub uplink: String,
    pub dataplane: String,
    /// Lines for `[prefilter]`: off unless a test is about it, so that the others see what the gateway itself does.
    pub prefilter: String,
    pub peers: Vec<PeerConf>,
}

/// One `[[peer]]`.
#[derive(Clone, Debug)]
pub struct PeerConf {
    pub public: String,
    pub endpoint: Option<String>,
    pub allowed_ips: Vec<String>,
    /// Further lines.
    pub more: String,
}

impl Conf {
    /// A site without peers; two workers wherever the tests run.
    pub fn new(interface: &str, address: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            addresses: vec![address.to_owned()],
            mtu: 1420,
            port: 51820,
            site: String::new(),
            uplink: String::new(),
            dataplane: "workers = 2\npin = false\n".to_owned(),
            prefilter: "wan = \"off\"\n".to_owned(),
            peers: Vec::new(),
        }
    }

    pub fn peer(mut self, peer: PeerConf) -> Self {
        self.peers.push(peer);
        self
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "[site]\nname = \"{0}\"\nprivate_key_file = \"key\"\ninterface = \"{0}\"\nmtu = {1}\n\
             addresses = {2:?}\nstate_dir = \"state\"\n{3}\n[dataplane]\n{4}\n[prefilter]\n{7}\n[[uplink]]\nname = \"wan\"\nlisten_port = {5}\n{6}\n",
            self.interface,
            self.mtu,
            self.addresses,
            self.site,
            self.dataplane,
            self.port,
            self.uplink,
            self.prefilter,
        );
        for peer in &self.peers {
            text += &format!(
                "\n[[peer]]\npublic_key = \"{}\"\nallowed_ips = {:?}\n{}",
                peer.public, peer.allowed_ips, peer.more
            );
            if let Some(endpoint) = &peer.endpoint {
                text += &format!("endpoint = \"{endpoint}\"\n");
            }
        }
        text
    }
}

impl PeerConf {
    pub fn new(public: &str, allowed_ips: &[&str]) -> Self {
        Self {
            public: public.to_owned(),
            endpoint: None,
            allowed_ips: allowed_ips.iter().map(|&text| text.to_owned()).collect(),
            more: String::new(),
        }
    }

    pub fn at(mut self, endpoint: &str) -> Self {
        self.endpoint = Some(endpoint.to_owned());
        self
    }
}

/// Where a gateway runs: a namespace, and a folder with its configuration and keys.
#[derive(Debug)]
pub struct Place {
    pub namespace: Namespace,
    pub dir: tempfile::TempDir,
    pub keys: Keys,
}

impl Place {
    /// A namespace of its own with loopback up.
    pub fn new(label: &str) -> Self {
        let namespace = Namespace::with_private_run(label).unwrap();
        patronus_lab::link::configure(&namespace, "lo", Default::default()).unwrap();
        Self::within(&namespace)
    }

    /// A folder and a key for a gateway in a namespace that exists.
    pub fn within(namespace: &Namespace) -> Self {
        let place = Self {
            namespace: namespace.clone(),
            dir: tempfile::tempdir().unwrap(),
            keys: Keys::new(),
        };
        place.secret("key", &place.keys.private);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only its owner reads.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        path
    }

    pub fn configure(&self, conf: &Conf) {
        fs::write(self.path("patronus.toml"), conf.text()).unwrap();
    }

    /// `patronus run` as an operator types it, with a report.
    pub fn run_command(&self) -> Command {
        let mut command = patronus();
        command
            .arg("run")
            .arg("--config")
            .arg(self.path("patronus.toml"));
        command.args(["--uapi-dir", UAPI_DIR]);
        command.arg("--report").arg(self.path("report.json"));
        command
    }

    /// Starts a gateway and waits until it is there.
    pub fn start(&self, conf: &Conf) -> Daemon {
        self.configure(conf);
        self.start_with(&conf.interface, &mut self.run_command())
    }

    /// Starts `command` as the gateway of `interface` and waits until it is there.
    pub fn start_with(&self, interface: &str, command: &mut Command) -> Daemon {
        let log = self.path("log");
        let stderr = fs::File::create(&log).unwrap();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr);
        let mut child = self.namespace.spawn(command).unwrap();
        let mut daemon = Daemon {
            interface: interface.to_owned(),
            namespace: self.namespace.clone(),
            stdin: child.stdin.take(),
            child,
            log,
            report: self.path("report.json"),
        };
        daemon.wait_for("gateway runs");
        daemon
    }

    /// Runs a start that must fail; its output.
    pub fn failing_start(&self, conf: &Conf) -> Output {
        self.configure(conf);
        output_of(&self.namespace, &mut self.run_command())
    }

    /// What an `ip -j …` says inside the namespace.
    pub fn ip(&self, args: &[&str]) -> Value {
        let output = output_of(&self.namespace, Command::new("ip").arg("-j").args(args));
        assert!(output.status.success(), "ip {args:?}: {output:?}");
        match output.stdout.is_empty() {
            true => Value::Array(Vec::new()),
            false => serde_json::from_slice(&output.stdout).unwrap(),
        }
    }

    /// Runs an `ip …` that must succeed.
    pub fn ip_do(&self, args: &str) {
        let output = output_of(&self.namespace, Command::new("ip").args(args.split(' ')));
        assert!(output.status.success(), "ip {args}: {output:?}");
    }

    /// Destinations of all routes, of both families and all tables, that lead into `interface`; without
    /// those that the kernel makes for the interface's own addresses.
    pub fn routes_into(&self, interface: &str) -> Vec<String> {
        let mut found = Vec::new();
        for family in ["-4", "-6"] {
            let routes = self.ip(&[family, "route", "show", "table", "all", "dev", interface]);
            for route in routes.as_array().unwrap() {
                let is_kernels = route["protocol"] == "kernel" || route["type"] == "multicast";
                if !is_kernels {
                    found.push(route["dst"].as_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Routes of all tables whose text holds `fragment`.
    pub fn routes_into_any(&self, fragment: &str) -> Vec<String> {
        let mut found = Vec::new();
        for family in ["-4", "-6"] {
            let routes = self.ip(&[family, "route", "show", "table", "all"]);
            let texts = routes.as_array().unwrap().iter().map(Value::to_string);
            found.extend(texts.filter(|text| text.contains(fragment)));
        }
        found
    }

    pub fn has_interface(&self, interface: &str) -> bool {
        patronus_lab::link::exists(&self.namespace, interface).unwrap()
    }

    /// Writes a manifest into the folder of policies.
    pub fn manifest(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("policies.d")).unwrap();
        fs::write(self.path("policies.d").join(name), text).unwrap();
    }

    /// Asks the API of the gateway that runs here.
    pub fn ask<T: Send>(
        &self,
        question: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
    ) -> Result<T, ClientError> {
        let path = Path::new(patronus_api::SOCKET_PATH);
        let ask = || Client::connect(path).and_then(|client| question(&client));
        self.namespace.run(ask).unwrap()
    }

    /// Whether the API's socket is there.
    pub fn has_api(&self) -> bool {
        let path = Path::new(patronus_api::SOCKET_PATH);
        self.namespace.run(|| path.exists()).unwrap()
    }

    pub fn has_socket(&self, interface: &str) -> bool {
        let path = socket_path(interface);
        self.namespace.run(|| path.exists()).unwrap()
    }
}

/// A running `patronus run`. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    interface: String,
    namespace: Namespace,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
    report: PathBuf,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends its standard input.
    pub fn end_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log holds `fragment`.
    pub fn wait_for(&mut self, fragment: &str) {
        self.wait_for_nth(fragment, 1);
    }

    /// Waits until the log holds `fragment` that often.
    pub fn wait_for_nth(&mut self, fragment: &str, times: usize) {
        let begun = Instant::now();
        while self.log().matches(fragment).count() < times {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "ended ({ended:?}) before `{fragment}`: {}",
                self.log()
            );
            assert!(
                begun.elapsed() < PATIENCE,
                "no `{fragment}` in {}",
                self.log()
            );
            sleep(Duration::from_millis(2));
        }
    }

    /// Has it read its configuration again, and waits until it says how that went and its workers have what it published:
    /// until then a worker may go by what was before.
    pub fn reload(&mut self) {
        let outcomes = ["reloaded", "reload refused", "reload:"];
        let told = |log: &str| {
            outcomes
                .iter()
                .map(|told| log.matches(told).count())
                .sum::<usize>()
        };
        let before = told(&self.log());
        self.signal(Signal::SIGHUP);
        until("the reload is done", || told(&self.log()) > before);
        let path = Path::new(patronus_api::SOCKET_PATH);
        let ask = || Client::connect(path).and_then(|client| client.workers());
        until("the workers have what was published", || {
            // Who has no API, or one elsewhere, cannot be asked.
            let told = self.namespace.run(ask).unwrap();
            told.is_ok_and(|told| told.generation.applied == told.generation.workers)
                || !self.namespace.run(|| path.exists()).unwrap()
        });
    }

    /// Waits until it has ended; its status and how long that took.
    pub fn wait_end(&mut self, max: Duration) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(
                begun.elapsed() < max,
                "still there after {max:?}: {}",
                self.log()
            );
            sleep(Duration::from_millis(1));
        }
    }

    /// Ends it by SIGTERM and checks its books.
    pub fn stop(mut self) -> GatewayReport {
        self.signal(Signal::SIGTERM);
        let (status, _) = self.wait_end(PATIENCE);
        assert!(status.success(), "{status}: {}", self.log());
        self.read_report()
    }

    /// The report of one that has ended, balanced and without panics.
    pub fn read_report(&self) -> GatewayReport {
        let report: GatewayReport = serde_json::from_value(self.read_raw_report()).unwrap();
        assert!(
            report.balanced && report.packets.is_balanced(),
            "{report:?}"
        );
        assert_eq!(report.worker_panics, 0, "{}", self.log());
        report
    }

    /// The report of one that has ended, with everything in it.
    pub fn read_raw_report(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.report).unwrap()).unwrap()
    }

    /// User and system time of all its threads, in clock ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// `wg ARGS` beside it.
    pub fn wg(&self, args: &[&str]) -> Output {
        output_of(&self.namespace, Command::new("wg").args(args))
    }

    /// `wg set IF ARGS`, which must succeed.
    pub fn wg_set(&self, args: &[&str]) {
        let mut all = vec!["set", self.interface.as_str()];
        all.extend(args);
        let output = self.wg(&all);
        assert!(
            output.status.success(),
            "wg {all:?}: {output:?}; {}",
            self.log()
        );
    }

    /// What `wg show IF dump` says.
    pub fn show(&self) -> Shown {
        let output = self.wg(&["show", &self.interface, "dump"]);
        assert!(output.status.success(), "{output:?}");
        Shown::parse(&String::from_utf8(output.stdout).unwrap())
    }

    /// Writes bytes to the control socket and reads what comes back until the end or an empty line.
    pub fn uapi(&self, request: &[u8]) -> String {
        let mut stream = self.uapi_connect();
        // The daemon may answer and hang up in the middle of it.
        let _ = stream.write_all(request);
        uapi_answer(&mut stream)
    }

    pub fn uapi_connect(&self) -> UnixStream {
        let path = socket_path(&self.interface);
        let stream = self
            .namespace
            .run(|| UnixStream::connect(path))
            .unwrap()
            .unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads an answer of the control socket; what came until the other side hung up.
pub fn uapi_answer(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"\n\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(len) => answer.extend_from_slice(&chunk[..len]),
        }
    }
    String::from_utf8(answer).unwrap()
}

/// `wg show IF dump`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub public: String,
    pub port: u16,
    pub fwmark: String,
    pub peers: Vec<ShownPeer>,
}

/// A peer in `wg show IF dump`; what is not there reads `(none)`, `off` or 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownPeer {
    pub public: String,
    pub psk: String,
    pub endpoint: String,
    pub allowed_ips: Vec<String>,
    pub latest_handshake: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub keepalive: String,
}

impl Shown {
    fn parse(text: &str) -> Self {
        let mut lines = text
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let first = lines.next().unwrap();
        let [_, public, port, fwmark] = first[..] else {
            panic!("{first:?}")
        };
        let peers = lines.map(|fields| {
            let [public, psk, endpoint, allowed, handshake, rx, tx, keepalive] = fields[..] else {
                panic!("{fields:?}")
            };
            let mut allowed_ips: Vec<String> = match allowed {
                "(none)" => Vec::new(),
                list => list.split(',').map(str::to_owned).collect(),
            };
            allowed_ips.sort();
            ShownPeer {
                public: public.to_owned(),
                psk: psk.to_owned(),
                endpoint: endpoint.to_owned(),
                allowed_ips,
                latest_handshake: handshake.parse().unwrap(),
                rx_bytes: rx.parse().unwrap(),
                tx_bytes: tx.parse().unwrap(),
                keepalive: keepalive.to_owned(),
            }
        });
        Self {
            public: public.to_owned(),
            port: port.parse().unwrap(),
            fwmark: fwmark.to_owned(),
            peers: peers.collect(),
        }
    }

    pub fn peer(&self, public: &str) -> Option<&ShownPeer> {
        self.peers.iter().find(|peer| peer.public == public)
    }
}

/// Sites of a lab with a gateway of ours in each, all peers of each other.
pub struct Mesh {
    pub daemons: Vec<Daemon>,
    pub confs: Vec<Conf>,
    pub places: Vec<Place>,
    pub lab: Lab,
}

impl Mesh {
    /// `sites` sites over IPv4; `change` may edit each configuration before it runs.
    pub fn up(sites: usize, change: impl Fn(&mut Conf)) -> Self {
        Self::up_with(sites, |_| {}, change)
    }

    /// As [`Mesh::up`], after `furnish` has seen every gateway's folder.
    pub fn up_with(sites: usize, furnish: impl Fn(&Place), change: impl Fn(&mut Conf)) -> Self {
        let lab = Lab::build(sites).unwrap();
        let places: Vec<Place> = lab
            .sites
            .iter()
            .map(|site| Place::within(&site.gateway))
            .collect();
        places.iter().for_each(furnish);
        let conf_of = |own: &Site| {
            let mut conf = Conf::new(&own.interface(), &format!("10.255.0.{}/32", own.number));
            for (site, place) in lab.sites.iter().zip(&places) {
                if site.number != own.number {
                    let prefixes = site.prefixes();
                    conf.peers.push(PeerConf {
                        public: place.keys.public.clone(),
                        endpoint: Some(format!("{}:51820", site.wan_addr(Family::V4))),
                        allowed_ips: prefixes
                            .iter()
                            .map(|prefix| prefix.network().to_string())
                            .collect(),
                        more: String::new(),
                    });
                }
            }
            change(&mut conf);
            conf
        };
        let confs: Vec<Conf> = lab.sites.iter().map(conf_of).collect();
        let daemons = places
            .iter()
            .zip(&confs)
            .map(|(place, conf)| place.start(conf))
            .collect();
        Self {
            daemons,
            confs,
            places,
            lab,
        }
    }
}

/// Two sites of a [`Mesh`], by name.
pub struct Pair {
    pub one: Daemon,
    pub two: Daemon,
    pub conf_one: Conf,
    pub conf_two: Conf,
    pub place_one: Place,
    pub place_two: Place,
    pub lab: Lab,
}

impl Pair {
    /// Two sites over IPv4; `change` may edit each configuration before it runs.
    pub fn up(change: impl Fn(&mut Conf)) -> Self {
        let mesh = Mesh::up(2, change);
        let (mut daemons, mut confs) = (mesh.daemons.into_iter(), mesh.confs.into_iter());
        let mut places = mesh.places.into_iter();
        let mut next = || {
            (
                daemons.next().unwrap(),
                confs.next().unwrap(),
                places.next().unwrap(),
            )
        };
        let ((one, conf_one, place_one), (two, conf_two, place_two)) = (next(), next());
        Self {
            one,
            two,
            conf_one,
            conf_two,
            place_one,
            place_two,
            lab: mesh.lab,
        }
    }

    pub fn sites(&self) -> (&Site, &Site) {
        (&self.lab.sites[0], &self.lab.sites[1])
    }

    /// A ping both ways over both inner families, with patience.
    pub fn reach(&self) {
        let (one, two) = self.sites();
        for family in [Family::V4, Family::V6] {
            patronus_lab::traffic::reach(&one.host, two.host_addr(family), PATIENCE).unwrap();
            patronus_lab::traffic::reach(&two.host, one.host_addr(family), PATIENCE).unwrap();
        }
    }
}

pub fn socket_path(interface: &str) -> PathBuf {
    Path::new(UAPI_DIR).join(format!("{interface}.sock"))
}

/// Runs a program to its end inside a namespace; one that does not end in time is killed.
pub fn output_of(namespace: &Namespace, command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = namespace.spawn(command).unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Nobody reaps the child before `ended` is gone, so the number is still its own.
            if wait.recv_timeout(2 * PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        output
    })
}

/// Waits until `done` says so.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        sleep(Duration::from_millis(5));
    }
}

/// The permission bits of a file.
pub fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
