//! `patronus demo --console`: sites with two uplinks each, real gateways, policy, traffic and faults, to look at while they
//! work. Knows nothing of consoles: it says where the gateways answer.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use patronus_api::Client;

use crate::demo::Totals;
use crate::enter::{self, IsRoot};
use crate::progress::Progress;
use crate::traffic::{Ambience, Ambient, ambient};
use crate::{Family, LabError, LabFile, Mesh, Packets, Stop, enter_lab, lab};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Number of sites, 2 to 8.
    pub sites: usize,
    /// The `patronus` binary that the gateways run.
    pub binary: PathBuf,
}

/// Sites at work, until they are taken down or dropped.
#[derive(Debug)]
pub struct LiveDemo {
    // The traffic ends before the gateways, and these before their namespaces.
    traffic: Ambient,
    mesh: Mesh,
    stop: Stop,
    is_root: IsRoot,
    binary: PathBuf,
    begun: Instant,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct LiveReport {
    /// Number of sites.
    pub sites: usize,
    /// How long traffic went on.
    pub lasted: Duration,
    /// Payload that arrived, and streams that broke.
    pub traffic: Ambience,
    /// Packet counters of all gateways.
    pub packets: Packets,
    /// Whether every gateway, and the sum, accounts for every packet.
    pub balanced: bool,
}

impl LiveDemo {
    /// Builds the sites, waits until their hosts reach each other, and begins with traffic and faults.
    ///
    /// Call it before the process has threads of its own: without root it enters a user namespace.
    ///
    /// # Errors
    /// [`LabError`] for a machine without namespaces or TUN (exit code 2) and for a signal (130), or what the kernel or a
    /// gateway refused. Everything is taken down then.
    pub fn up(options: &LiveOptions) -> Result<Self> {
        let is_root = IsRoot(Uid::effective().is_root());
        enter_lab()?;
        let stop = Stop::on_signals()?;
        match Self::build(options, &stop, is_root) {
            // What else went wrong after Ctrl-C went wrong because of it.
            Err(_) if stop.is_set() => Err(LabError::Interrupted.into()),
            result => result,
        }
    }

    fn build(options: &LiveOptions, stop: &Stop, is_root: IsRoot) -> Result<Self> {
        let progress = Progress::new();
        progress.live(&format!("starting {} sites", options.sites));
        let file = LabFile::parse(&lab_of(options.sites)).context("the demo's own lab")?;
        let manifests = manifests(options.sites);
        let mesh = lab::start(&file, SEED, &options.binary, stop, |config| {
            config
                .credentials
                .push(("policies.d/demo.yaml".to_owned(), manifests.clone()));
        })?;
        progress.line(&format!(
            "{} gateways are up, each in a namespace of its own, with two uplinks",
            options.sites
        ));
        let traffic = Ambient::start(&mesh.lab, stop)?;
        progress.line("every host talks to every other");
        lab::follow(&file, &mesh.lab)?;
        let demo = Self {
            traffic,
            mesh,
            stop: stop.clone(),
            is_root,
            binary: options.binary.clone(),
            begun: Instant::now(),
        };
        for line in demo.ways_in() {
            progress.line(&line);
        }
        Ok(demo)
    }

    /// Where the local API of a site's gateway answers this process, counted from 0.
    ///
    /// # Errors
    /// There is no such site.
    pub fn socket(&self, site: usize) -> Result<PathBuf> {
        let gateway = self.mesh.gateways.get(site);
        let gateway = gateway.with_context(|| format!("no site {}", site + 1))?;
        // The gateway's `/run` is its own.
        Ok(PathBuf::from(format!(
            "/proc/{}/root{}",
            gateway.pid(),
            patronus_api::SOCKET_PATH
        )))
    }

    /// Waits until a gateway has its tunnels up and has measured its paths for a moment, so that there is something to see.
    ///
    /// # Errors
    /// A signal, or a gateway that does not get there in a minute.
    pub fn settle(&self, site: usize) -> Result<()> {
        let socket = self.socket(site)?;
        let begun = Instant::now();
        loop {
            self.stop.check()?;
            let status = Client::connect(&socket)?.status()?;
            if status.peers_up == status.peers && self.begun.elapsed() >= SETTLE_MIN {
                return Ok(());
            }
            if begun.elapsed() > SETTLE_MAX {
                bail!("site {} has not all its tunnels up", site + 1);
            }
            self.stop.sleep(SETTLE_PAUSE)?;
        }
    }

    /// The operator's Ctrl-C.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// How another shell looks at the gateways, a line each.
    pub fn ways_in(&self) -> Vec<String> {
        let sites = self.mesh.lab.sites.iter().zip(&self.mesh.gateways);
        let status = format!("{} status", self.binary.display());
        let lines = sites.map(|(site, gateway)| {
            format!(
                "  {}    # gateway of site {}",
                enter::in_gateway(gateway, self.is_root, &status),
                site.number
            )
        });
        let head = "From another shell, while it is up:".to_owned();
        std::iter::once(head).chain(lines).collect()
    }

    /// Ends traffic, gateways and sites, in that order.
    ///
    /// # Errors
    /// A gateway that did not end well; everything is taken down either way.
    pub fn down(self) -> Result<LiveReport> {
        let lasted = self.begun.elapsed();
        let traffic = self.traffic.finish();
        let mut mesh = self.mesh;
        let sites = mesh.gateways.len();
        let emulator = mesh.lab.emulator.take();
        let reports = mesh.down();
        if let Some(emulator) = emulator {
            emulator.stop()?;
        }
        let totals = Totals::of(&reports?)?;
        Ok(LiveReport {
            sites,
            lasted,
            traffic,
            packets: totals.packets,
            balanced: totals.balanced,
        })
    }
}

impl std::fmt::Display for LiveReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let packets = &self.packets;
        write!(
            f,
            "down: {} sites were up for {} s, {:.1} MB arrived, {} streams broke\n\
             packets  in {} + divided {} = out {} + consumed {} + waiting {} + dropped {}, {}",
            self.sites,
            self.lasted.as_secs(),
            self.traffic.received_bytes as f64 / 1e6,
            self.traffic.broken,
            packets.rx,
            packets.divided,
            packets.tx,
            packets.consumed,
            packets.staged,
            packets.drops.values().sum::<u64>(),
            if self.balanced {
                "balanced"
            } else {
                "NOT BALANCED"
            }
        )
    }
}

/// Sites with two uplinks: a quick one, and a slow one of which no fault takes anything. Every minute the second site's
/// quick one loses packets in bursts for a while, and later the last site's carries nothing.
fn lab_of(sites: usize) -> String {
    let mut text = String::new();
    for site in 1..=sites {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[site]]\nname = \"site{site}\"\nuplinks = [\"wan0\", \"wan1\"]\n\
             [[impair]]\nlink = \"site{site}.wan0\"\nset = {{ delay_ms = 4, jitter_ms = 0.5 }}\n\
             [[impair]]\nlink = \"site{site}.wan1\"\nset = {{ delay_ms = 15, jitter_ms = 1 }}"
        );
    }
    let _ = writeln!(
        text,
        "[[step]]\nat_s = 10\nfor_s = 20\nevery_s = 60\nlink = \"site2.wan0\"\n\
         set = {{ burst_loss = {{ enter_percent = 3, leave_percent = 25 }} }}\n\
         [[step]]\nat_s = 45\nfor_s = 6\nevery_s = 60\nlink = \"site{sites}.wan0\"\nset = {{ blackhole = true }}"
    );
    text
}

/// Every site's host as a pod, closed but for the traffic of the demo; SSH is for the first site alone.
fn manifests(sites: usize) -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: demo}\n\
         spec:\n  podSelector: {}\n  policyTypes: [Ingress]\n",
    );
    let _ = write!(
        text,
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: office, namespace: demo}}\n\
         spec:\n  podSelector: {{}}\n  ingress:\n  - from: [{{podSelector: {{}}}}]\n    ports:\n\
         \x20   - {{port: {}}}\n    - {{protocol: UDP, port: {}}}\n",
        ambient::STREAM_PORT,
        ambient::VOICE_PORT
    );
    text += "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ssh, namespace: demo}\n\
             spec:\n  podSelector: {}\n  ingress:\n  - from: [{podSelector: {matchLabels: {site: \"1\"}}}]\n    \
             ports: [{port: 22}]\n";
    for site in 1..=sites {
        let number = u8::try_from(site).unwrap_or(u8::MAX);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: host{site}, namespace: demo, labels: {{site: \"{site}\"}}}}\n\
             status: {{podIPs: [{{ip: \"{}\"}}, {{ip: \"{}\"}}]}}\n",
            crate::topology::host_addr(number, Family::V4),
            crate::topology::host_addr(number, Family::V6)
        );
    }
    text
}

const SEED: u64 = 7;
/// For paths to be measured and rates to have two ends.
const SETTLE_MIN: Duration = Duration::from_secs(4);
/// Far longer than it takes, on a machine that is busy too.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_of_every_number_of_sites_is_a_lab() {
        for sites in 2..=8 {
            let file = LabFile::parse(&lab_of(sites)).unwrap();
            assert_eq!(file.uplinks(), vec![2; sites]);
        }
    }
}
