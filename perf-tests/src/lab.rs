//! `patronus lab FILE`: the sites of a file with real gateways, joined by the emulator, until Ctrl-C.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Uid;
use patronus_impair::{DropReason, Heading, WireCounters};
use serde::Serialize;

use crate::demo::Totals;
use crate::emulator::{Emulator, FrameCounters, Link, PortId};
use crate::enter::{self, IsRoot};
use crate::lab_file::{LabFile, LinkRef, NamedLink, UplinkRef};
use crate::progress::Progress;
use crate::{Family, GatewayConfig, Lab, LabError, Mesh, Packets, Program, Stop, enter_lab};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// The lab's file.
    pub file: PathBuf,
    /// The seed, before the file's.
    pub seed: Option<u64>,
    /// How long the lab stays up; until a signal where absent.
    pub seconds: Option<f64>,
    /// One JSON document a line on standard output and nothing else there.
    pub json: bool,
    /// The `patronus` binary that the gateways run.
    pub binary: PathBuf,
}

/// A line of `--json`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LabLine {
    /// The lab is up; the schedule's time 0.
    Up {
        /// What gives the same chances again.
        seed: u64,
        /// The sites.
        sites: Vec<SiteUp>,
    },
    /// The counters since the begin, once a second.
    Links {
        /// Seconds since the lab was up.
        at_s: f64,
        /// Both directions of every link on which something was offered.
        links: Vec<LinkReport>,
        /// How late frames with a delay left.
        late_us: Lateness,
        /// Frames that the emulator has not read, see [`Emulator::unread`].
        unread: u64,
    },
    /// The lab is down.
    Down {
        /// Packet counters of all gateways.
        packets: Packets,
        /// Whether every gateway accounts for every packet.
        balanced: bool,
    },
}

/// One site of a lab that is up.
#[derive(Clone, Debug, Serialize)]
pub struct SiteUp {
    /// Its name.
    pub name: String,
    /// Its host's address.
    pub host: String,
    /// The addresses of its uplinks by name.
    pub uplinks: BTreeMap<String, String>,
    /// Process id of its gateway.
    pub gateway_pid: u32,
    /// How to run a command in its host.
    pub enter_host: String,
    /// How to run a command beside its gateway.
    pub enter_gateway: String,
}

/// One direction of a link.
#[derive(Clone, Debug, Serialize)]
pub struct LinkReport {
    /// Its name.
    pub link: String,
    /// `a->b` or `b->a`.
    pub direction: &'static str,
    /// IP packets that came.
    pub offered: u64,
    /// IP packets that arrive.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets that did not, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// Packets of which a copy arrives too.
    pub duplicated: u64,
    /// Packets that a later one overtook.
    pub reordered: u64,
}

/// Percentiles in µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lateness {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

/// Runs the lab until a signal or the end of its time.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// A faulty file, [`LabError`] for a machine without namespaces or TUN (exit code 2), a signal before the lab was up
/// (130), or what the kernel or a gateway refused. Everything is taken down either way.
pub fn lab(options: &LabOptions) -> Result<()> {
    let file = LabFile::read(&options.file)?;
    let is_root = IsRoot(Uid::effective().is_root());
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let output = Output::new(options.json);
    let seed = options.seed.or(file.seed).unwrap_or(SEED_DEFAULT);
    output.progress(&format!("starting {} sites, seed {seed}", file.sites.len()));
    let mut mesh = match start(&file, seed, &options.binary, &stop, |_| {}) {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => return Err(LabError::Interrupted.into()),
        result => result?,
    };
    let emulator = mesh.lab.emulator.as_ref();
    let emulator = emulator.context("the lab has no emulator")?;
    let links = numbered(&file, &mesh.lab)?;
    output.up(seed, sites_up(&file, &mesh, is_root));
    follow(&file, &mesh.lab)?;
    watch(options, emulator, &links, &output, &stop)?;
    if let Some(emulator) = mesh.lab.emulator.take() {
        emulator.stop()?;
    }
    let totals = Totals::of(&mesh.down()?)?;
    output.line(&LabLine::Down {
        packets: totals.packets,
        balanced: totals.balanced,
    });
    Ok(())
}

/// Starts the sites of a file, each with its own configuration after `adjust` has seen it.
pub(crate) fn start(
    file: &LabFile,
    seed: u64,
    binary: &Path,
    stop: &Stop,
    adjust: impl Fn(&mut GatewayConfig),
) -> Result<Mesh> {
    let lab = Lab::emulated(&file.uplinks(), seed)?;
    let emulator = lab.emulator.as_ref();
    let emulator = emulator.context("the lab has no emulator")?;
    for impair in &file.impairments {
        let link = link_of(&lab, impair.link)?;
        for heading in Heading::BOTH {
            if impair.direction.has(heading) {
                let changed = impair.change.applied_to(emulator.impairment(link, heading));
                emulator.set(link, heading.into(), changed);
            }
        }
    }
    let program = Program::Patronus {
        binary: binary.to_owned(),
    };
    let is_multipath = file.uplinks().iter().any(|count| *count > 1);
    let several = lab.sites.iter().filter(|_| is_multipath).map(|site| {
        let config = lab.multipath_config(site, Family::V4);
        (config.interface.clone(), config)
    });
    let several: BTreeMap<String, GatewayConfig> = several.collect();
    Mesh::on(lab, &program, Family::V4, stop, |config| {
        if let Some(other) = several.get(&config.interface) {
            config.clone_from(other);
        }
        adjust(config);
    })
}

/// Begins the file's schedule.
pub(crate) fn follow(file: &LabFile, lab: &Lab) -> Result<()> {
    let emulator = lab.emulator.as_ref();
    let emulator = emulator.context("the lab has no emulator")?;
    let scheduled = file.scheduled.iter().map(|named| {
        let link = link_of(lab, named.link)?;
        Ok((named.name.clone(), link))
    });
    let scheduled = scheduled.collect::<Result<Vec<_>>>()?;
    emulator.follow(file.schedule.clone(), &scheduled);
    Ok(())
}

/// Once a second, until a signal or the end of the time that was given.
fn watch(
    options: &LabOptions,
    emulator: &Emulator,
    links: &[(String, Link)],
    output: &Output,
    stop: &Stop,
) -> Result<()> {
    let length = options
        .seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let begun = Instant::now();
    let mut before = vec![[WireCounters::default(); 2]; links.len()];
    for second in 1.. {
        let next = Duration::from_secs(second);
        let end = length.map_or(next, |length| length.min(next));
        if stop.sleep(end.saturating_sub(begun.elapsed())).is_err() {
            return Ok(());
        }
        let now: Vec<[WireCounters; 2]> = links
            .iter()
            .map(|(_, link)| Heading::BOTH.map(|heading| emulator.counters_of(*link, heading)))
            .collect();
        let seen = (emulator.frames(), emulator.unread()?);
        output.links(begun.elapsed(), links, &now, &before, &seen);
        before = now;
        // By number, not by clock: who is kept from his work for a second owes two of them.
        if !emulator.is_running() || length == Some(end) {
            return Ok(());
        }
    }
    Ok(())
}

fn numbered(file: &LabFile, lab: &Lab) -> Result<Vec<(String, Link)>> {
    let links = file.links().into_iter();
    links
        .map(|NamedLink { name, link }| Ok((name, link_of(lab, link)?)))
        .collect()
}

/// The emulator's number of a file's link.
fn link_of(lab: &Lab, link: LinkRef) -> Result<Link> {
    let port = |UplinkRef { site, uplink }: UplinkRef| -> Result<PortId> {
        let (site, uplink) = (u8::try_from(site + 1)?, u8::try_from(uplink)?);
        lab.port(site, uplink)
            .with_context(|| format!("site {site} has no uplink {uplink}"))
    };
    Ok(match link {
        LinkRef::Uplink(at) => Link::Access(port(at)?),
        LinkRef::Between(a, b) => Link::Pair(port(a)?, port(b)?),
    })
}

fn sites_up(file: &LabFile, mesh: &Mesh, is_root: IsRoot) -> Vec<SiteUp> {
    let sites = file.sites.iter().zip(&mesh.lab.sites).zip(&mesh.gateways);
    sites
        .map(|((spec, site), gateway)| {
            let other = mesh
                .lab
                .sites
                .iter()
                .find(|other| other.number != site.number);
            let target = other.map_or_else(String::new, |other| {
                format!("ping {}", other.host_addr(Family::V4))
            });
            let uplinks = (0..).zip(&spec.uplinks).map(|(uplink, name)| {
                (
                    name.clone(),
                    site.uplink_addr(uplink, Family::V4).to_string(),
                )
            });
            SiteUp {
                name: spec.name.clone(),
                host: site.host_addr(Family::V4).to_string(),
                uplinks: uplinks.collect(),
                gateway_pid: gateway.pid(),
                enter_host: enter::in_host(site, is_root, &target),
                enter_gateway: enter::in_gateway(gateway, is_root, "wg show"),
            }
        })
        .collect()
}

/// Lines for a person, or documents for a program.
struct Output {
    json: bool,
    progress: Progress,
}

impl Output {
    fn new(json: bool) -> Self {
        Self {
            json,
            progress: Progress::new(),
        }
    }

    fn progress(&self, text: &str) {
        self.progress.live(text);
    }

    fn up(&self, seed: u64, sites: Vec<SiteUp>) {
        self.line(&LabLine::Up { seed, sites });
    }

    fn links(
        &self,
        at: Duration,
        links: &[(String, Link)],
        now: &[[WireCounters; 2]],
        before: &[[WireCounters; 2]],
        (frames, unread): &(FrameCounters, u64),
    ) {
        if self.json {
            let reports = links.iter().zip(now).flat_map(|((name, _), wires)| {
                let headings = Heading::BOTH.into_iter().zip(wires);
                headings.map(|(heading, wire)| LinkReport::of(name, heading, wire))
            });
            self.line(&LabLine::Links {
                at_s: at.as_secs_f64(),
                links: reports.filter(|report| report.offered > 0).collect(),
                late_us: Lateness::of(frames),
                unread: *unread,
            });
            return;
        }
        let mut text = format!("{:>5.0} s", at.as_secs_f64());
        for ((name, _), (now, before)) in links.iter().zip(now.iter().zip(before)) {
            for (heading, (now, before)) in Heading::BOTH.into_iter().zip(now.iter().zip(before)) {
                if now.offered > before.offered {
                    let _ = write!(text, "\n    {}", second(name, heading, now, before));
                }
            }
        }
        write_out(&text);
    }

    fn line(&self, line: &LabLine) {
        if self.json {
            // Numbers, strings and maps of both always serialize.
            write_out(&serde_json::to_string(line).unwrap_or_default());
            return;
        }
        match line {
            LabLine::Up { seed, sites } => write_out(&welcome(*seed, sites)),
            LabLine::Links { .. } => {}
            LabLine::Down { packets, balanced } => write_out(&format!(
                "down: gateways took in {} packets, {} dropped, {}",
                packets.rx,
                packets.drops.values().sum::<u64>(),
                if *balanced {
                    "balanced"
                } else {
                    "NOT BALANCED"
                }
            )),
        }
    }
}

/// What happened on one direction of a link in the last second.
fn second(name: &str, heading: Heading, now: &WireCounters, before: &WireCounters) -> String {
    let mut text = format!(
        "{name:<32} {}  {:>7} pkt  {:>8.3} Mbit",
        heading.name(),
        now.offered - before.offered,
        (now.delivered_bytes - before.delivered_bytes) as f64 * 8e-6
    );
    for reason in DropReason::ALL {
        let lost = now.lost(reason) - before.lost(reason);
        if lost > 0 {
            let _ = write!(text, "  lost {lost} {}", reason.name());
        }
    }
    for (what, count) in [
        ("twice", now.duplicated - before.duplicated),
        ("overtaken", now.reordered - before.reordered),
    ] {
        if count > 0 {
            let _ = write!(text, "  {count} {what}");
        }
    }
    text
}

fn welcome(seed: u64, sites: &[SiteUp]) -> String {
    let mut text = format!("the lab is up, seed {seed}, until Ctrl-C. From another shell:");
    for site in sites {
        let _ = write!(
            text,
            "\n  {}    # host of {}, {}\n  {}    # gateway of {}",
            site.enter_host, site.name, site.host, site.enter_gateway, site.name
        );
        for (uplink, addr) in &site.uplinks {
            let _ = write!(text, ", {uplink} {addr}");
        }
    }
    text
}

fn write_out(text: &str) {
    let mut out = std::io::stdout();
    // A reader that went away needs no lab report; the lab itself goes on.
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

impl LinkReport {
    fn of(name: &str, heading: Heading, wire: &WireCounters) -> Self {
        let lost = DropReason::ALL.map(|reason| (reason.name(), wire.lost(reason)));
        Self {
            link: name.to_owned(),
            direction: heading.name(),
            offered: wire.offered,
            delivered: wire.delivered,
            delivered_bytes: wire.delivered_bytes,
            lost: lost.into_iter().filter(|(_, count)| *count > 0).collect(),
            duplicated: wire.duplicated,
            reordered: wire.reordered,
        }
    }
}

impl Lateness {
    fn of(frames: &FrameCounters) -> Self {
        Self {
            p50: frames.late_us.value_at_quantile(0.5),
            p99: frames.late_us.value_at_quantile(0.99),
            max: frames.late_us.max(),
        }
    }
}

const SEED_DEFAULT: u64 = 1;
