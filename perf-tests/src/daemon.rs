//! A running gateway: started in a namespace, configured, measured from outside, stopped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::program::{self, Control, GatewayConfig, Program};
use crate::uapi::{self, SetRequest};
use crate::{Namespace, link, proc};

/// A gateway program at work. Dropping it kills the program.
#[derive(Debug)]
pub struct Gateway {
    namespace: Namespace,
    program: Program,
    config: GatewayConfig,
    /// The program itself, or the shell that holds its leash.
    child: Child,
    stdin: Option<ChildStdin>,
    /// Process id of the program proper.
    pid: u32,
}

/// What Patronus reports about itself when it ends cleanly (`patronus run --report FILE`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Packet counters of all workers.
    pub packets: Packets,
    /// Whether every packet that came in is accounted for.
    pub balanced: bool,
    /// The offload level it ran at.
    pub offloads: String,
    /// Its number of workers.
    pub workers: u32,
    /// Panics that workers survived.
    #[serde(default)]
    pub worker_panics: u64,
}

/// Packet counters of one or more gateways: `rx + divided = tx + consumed + staged + Σ drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Packets that came in from TUN or UDP.
    pub rx: u64,
    /// Packets that came in addition when others were divided for a narrow path.
    #[serde(default)]
    pub divided: u64,
    /// Packets that went out.
    pub tx: u64,
    /// Packets that ended in the gateway by design: handshakes, keepalives.
    pub consumed: u64,
    /// Packets that were waiting for a handshake at the end.
    #[serde(default)]
    pub staged: u64,
    /// Handshakes and keepalives the gateway made itself; outside the balance.
    #[serde(default)]
    pub own_sent: u64,
    /// Packets dropped, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

impl Packets {
    /// Adds another gateway's counters.
    pub fn add(&mut self, other: &Self) {
        self.rx += other.rx;
        self.divided += other.divided;
        self.tx += other.tx;
        self.consumed += other.consumed;
        self.staged += other.staged;
        self.own_sent += other.own_sent;
        for (reason, count) in &other.drops {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
    }

    /// Whether every packet that came in is accounted for.
    pub fn is_balanced(&self) -> bool {
        let gone = self.tx + self.consumed + self.staged + self.drops.values().sum::<u64>();
        self.rx + self.divided == gone
    }

    /// Where the packets of the balance come from, in a table.
    pub(crate) fn origins(&self) -> String {
        match self.divided {
            0 => self.rx.to_string(),
            divided => format!("{} + divided {divided}", self.rx),
        }
    }
}

impl Gateway {
    /// Starts `program` in `namespace` (one with a `/run` of its own), configures it and waits until its
    /// interface is there and it answers on its UAPI socket, if it has one.
    ///
    /// # Errors
    /// A program that cannot be started or ends at once (with its last lines), or does not answer in time.
    pub fn start(namespace: &Namespace, program: &Program, config: &GatewayConfig) -> Result<Self> {
        let name = program.name();
        let label = namespace.label();
        let log = namespace
            .run(|| prepare_files(program, config))?
            .with_context(|| format!("writing the files of {name} for {label}"))?;
        let mut command = program.command(&config.interface);
        // Out of the terminal's process group: Ctrl-C is ours, and we end the gateways in order.
        command.stdin(Stdio::piped()).stderr(log).process_group(0);
        command.stdout(if program.is_patronus() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        let mut child = namespace.spawn(&mut command).with_context(|| {
            format!(
                "starting {name} in {label}: is {} there?",
                program.binary().display()
            )
        })?;
        let stdin = child.stdin.take();
        let pid = match child.stdout.take() {
            None => child.id(),
            Some(leash) => {
                let mut line = String::new();
                BufReader::new(leash)
                    .read_line(&mut line)
                    .context("reading the program's pid")?;
                line.trim()
                    .parse()
                    .with_context(|| format!("sh could not start {name}"))?
            }
        };
        let mut gateway = Self {
            namespace: namespace.clone(),
            program: program.clone(),
            config: config.clone(),
            child,
            stdin,
            pid,
        };
        gateway.wait_ready()?;
        match program.control() {
            Control::Uapi => gateway.configure_from_outside()?,
            Control::File | Control::FileAndUapi => {}
        }
        Ok(gateway)
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What it was configured with.
    pub fn config(&self) -> &GatewayConfig {
        &self.config
    }

    /// CPU seconds it has used.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        proc::cpu_seconds(self.pid)
            .with_context(|| format!("{self} is gone: {}", self.last_lines()))
    }

    /// Its largest resident set in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn rss_max_bytes(&self) -> Result<u64> {
        proc::rss_max_bytes(self.pid)
            .with_context(|| format!("{self} is gone: {}", self.last_lines()))
    }

    /// What its UAPI socket says.
    ///
    /// # Errors
    /// See [`uapi::get`].
    pub fn device(&self) -> Result<uapi::Device> {
        uapi::get(&self.namespace, &self.config.interface)
    }

    /// Changes it over its UAPI socket.
    ///
    /// # Errors
    /// See [`uapi::set`].
    pub fn set(&self, request: SetRequest) -> Result<()> {
        uapi::set(&self.namespace, &self.config.interface, request)
    }

    /// Asks it to end, waits, and reads its report where the program writes one.
    ///
    /// # Errors
    /// A program that had ended before, or has to be killed, or writes no readable report.
    pub fn stop(mut self) -> Result<Option<GatewayReport>> {
        if !proc::is_alive(self.pid) {
            bail!("{self} ended before it was asked to: {}", self.last_lines());
        }
        if self.program.is_patronus() {
            drop(self.stdin.take());
        } else {
            kill(raw_pid(self.pid), Signal::SIGTERM).with_context(|| format!("ending {self}"))?;
        }
        if !self.wait_gone(STOP_MAX) {
            bail!(
                "{self} did not end within {STOP_MAX:?}: {}",
                self.last_lines()
            );
        }
        self.reap();
        if !self.program.is_patronus() {
            return Ok(None);
        }
        let path = program::report_path(&self.config.interface);
        let text = self
            .namespace
            .run(|| fs::read(&path))?
            .with_context(|| format!("{self} left no {}: {}", path.display(), self.last_lines()))?;
        let report = serde_json::from_slice(&text)
            .with_context(|| format!("{self} wrote {} off the format", path.display()))?;
        Ok(Some(report))
    }

    /// `kill -9`, with nothing cleaned up by the program.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(mut self) -> Result<()> {
        kill(raw_pid(self.pid), Signal::SIGKILL).with_context(|| format!("killing {self}"))?;
        self.wait_gone(STOP_MAX);
        self.reap();
        Ok(())
    }

    /// The end of what it wrote on standard error.
    pub fn last_lines(&self) -> String {
        let path = program::log_path(&self.config.interface);
        let text = match self.namespace.run(|| fs::read(&path)) {
            Ok(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Err(error)) | Err(error) => return format!("no log: {error}"),
        };
        let lines: Vec<&str> = text.lines().collect();
        match lines.len() {
            0 => "it wrote nothing".to_owned(),
            n => format!(
                "it wrote: {}",
                lines[n.saturating_sub(LOG_LINES_MAX)..].join(" / ")
            ),
        }
    }

    fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if !proc::is_alive(self.pid) {
                bail!("{self} ended at once: {}", self.last_lines());
            }
            let answer = match self.program.control() {
                Control::File => Ok(()),
                Control::FileAndUapi | Control::Uapi => self.device().map(drop),
            };
            if answer.is_ok() && link::exists(&self.namespace, &self.config.interface)? {
                return Ok(());
            }
            if begun.elapsed() > READY_MAX {
                let why = answer
                    .err()
                    .map_or("no interface".to_owned(), |error| format!("{error:#}"));
                bail!(
                    "{self} is not ready after {READY_MAX:?}: {why}; {}",
                    self.last_lines()
                );
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Gives a plain WireGuard daemon what `wg-quick` would: keys and peers, addresses, MTU, routes.
    fn configure_from_outside(&self) -> Result<()> {
        let config = &self.config;
        let mut request = SetRequest::new()
            .private_key(&config.private_key)
            .listen_port(config.listen_port)
            .replace_peers();
        for peer in &config.peers {
            request = request.peer(&peer.public_key);
            if let Some(key) = &peer.preshared_key {
                request = request.preshared_key(key);
            }
            if let Some(endpoint) = peer.endpoint {
                request = request.endpoint(endpoint);
            }
            if let Some(interval_s) = peer.keepalive_s {
                request = request.keepalive(interval_s);
            }
            for prefix in &peer.allowed_ips {
                request = request.allowed_ip(*prefix);
            }
        }
        self.set(request)?;
        let routes: Vec<_> = config
            .peers
            .iter()
            .flat_map(|peer| peer.allowed_ips.iter().map(|prefix| (*prefix, None)))
            .collect();
        let setup = link::Setup {
            mtu: Some(config.mtu),
            addresses: &config.addresses,
            routes: &routes,
        };
        link::configure(&self.namespace, &config.interface, setup)
    }

    fn wait_gone(&self, max: Duration) -> bool {
        let begun = Instant::now();
        while proc::is_alive(self.pid) {
            if begun.elapsed() > max {
                return false;
            }
            sleep(Duration::from_millis(5));
        }
        true
    }

    /// Ends the leash, if any, and takes the child's exit status off the process table.
    fn reap(&mut self) {
        drop(self.stdin.take());
        // The child is dead or about to be: the shell kills its program when standard input ends.
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // ESRCH only says that it is gone already.
        let _ = kill(raw_pid(self.pid), Signal::SIGKILL);
        self.reap();
    }
}

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, label) = (self.program.name(), self.namespace.label());
        write!(f, "{name} (pid {}) in {label}", self.pid)
    }
}

/// Runs inside the namespace: the files of the program, secrets readable by nobody else, and its open log.
fn prepare_files(program: &Program, config: &GatewayConfig) -> std::io::Result<File> {
    fs::create_dir_all(program::STATE_DIR)?;
    fs::create_dir_all("/run/wireguard")?;
    for (path, text) in program.files(config) {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        private_file(&path)?.write_all(text.as_bytes())?;
    }
    private_file(&program::log_path(&config.interface))
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn raw_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("the kernel's process ids fit an i32"))
}

/// How long a program may take until it answers: longer than a busy machine keeps it from its work.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a program may take to end, likewise.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How much of a log goes into an error.
const LOG_LINES_MAX: usize = 6;
