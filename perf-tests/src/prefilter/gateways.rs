//! Real gateways with and without the filter: what they carry, and what is left of that under a flood.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use patronus_api::{Client, ClientError, PathView, SOCKET_PATH};
use serde::Serialize;

use super::PrefilterOptions;
use super::flooder::{Datagram, Flooder, initiation, junk, open_to_floods};
use crate::failover::trial::Trial;
use crate::failover::twin::{Internet, QUEUE, Twin, UPLINKS};
use crate::failover::{Bench, FailoverOptions, Fault, Stage};
use crate::mesh::{Conduct, Direction, Mesh};
use crate::topology::{WAN_INTERFACE, uplink_interface};
use crate::traffic::reach;
use crate::{Family, Gateway, Namespace, Program};

/// Bulk TCP between two sites with the filter at one hook.
#[derive(Clone, Debug, Serialize)]
pub struct Carried {
    /// Where the filter was; `off` for nowhere.
    pub hook: &'static str,
    /// Payload rate in Gbit/s, by round.
    pub gbps: Vec<f64>,
}

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FloodKind {
    /// Datagrams that are no message of WireGuard's.
    Junk,
    /// Handshake initiations from random addresses of a /16, right in form.
    Initiations,
}

/// An established peer while its gateway is flooded. All lists are by round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnderFlood {
    /// What the flood consists of.
    pub flood: &'static str,
    /// Whether the filter was on.
    pub filter: &'static str,
    /// Frames of the flood per second.
    pub flood_pps: Vec<f64>,
    /// Frames that the filter dropped per second.
    pub dropped_pps: Vec<f64>,
    /// Payload rate in Gbit/s before the flood.
    pub before_gbps: Vec<f64>,
    /// During it.
    pub during_gbps: Vec<f64>,
    /// Round trip that the path's own probes measured under load before the flood, in ms.
    pub rtt_before_ms: Vec<f64>,
    /// During it.
    pub rtt_during_ms: Vec<f64>,
    /// Loss that the path's probes measured over the last seconds of the flood, in percent, the worse direction.
    pub loss_during_pct: Vec<f64>,
    /// From the start of another known peer's gateway to its host's first answer through the tunnel, in ms, during the
    /// flood; rounds in which that took too long are left out.
    pub joined_ms: Vec<f64>,
    /// Rounds in which the other peer did not get in.
    pub not_joined: u64,
    /// CPU seconds of the flooded gateway during the flood's transfer.
    pub cpu_s: Vec<f64>,
}

/// Failover of an established peer while its gateway is flooded.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverRow {
    /// Whether the filter was on.
    pub filter: &'static str,
    /// The longest pause of packets when the path in use died, in ms, both directions, by trial.
    pub gap_ms: Vec<f64>,
    /// Changes of path with nothing wrong, over all trials.
    pub false_switches: u32,
    /// Why trials could not be measured.
    pub failed: Vec<String>,
}

/// What two gateways carry with the filter at each hook, in alternating rounds.
pub fn carried(
    program: &Program,
    options: &PrefilterOptions,
    rounds: usize,
    conduct: Conduct<'_>,
) -> Result<Vec<Carried>> {
    let hooks = if options.quick { &FILTERS[..] } else { &HOOKS };
    let rows = hooks.iter().map(|&hook| Carried {
        hook,
        gbps: Vec::new(),
    });
    let mut rows: Vec<Carried> = rows.collect();
    for _ in 0..rounds {
        for row in &mut rows {
            let tcp = repeated(conduct, || {
                let mesh = up(2, program, row.hook, conduct)?;
                let tcp = mesh.tcp(Direction::Forward, 1, conduct)?;
                mesh.down()?;
                Ok(tcp)
            })?;
            row.gbps.push(tcp.gbps());
            let line = format!("filter {}: {:.2} Gbit/s", row.hook, tcp.gbps());
            conduct.progress.line(&line);
        }
    }
    Ok(rows)
}

/// Both kinds of flood, without and with the filter, in alternating rounds.
pub fn floods(
    program: &Program,
    options: &PrefilterOptions,
    rounds: usize,
    conduct: Conduct<'_>,
) -> Result<Vec<UnderFlood>> {
    let mut rows = Vec::new();
    for kind in [FloodKind::Junk, FloodKind::Initiations] {
        let pair = filters(options).iter().map(|&filter| UnderFlood {
            flood: kind.name(),
            filter,
            ..UnderFlood::default()
        });
        let mut pair: Vec<UnderFlood> = pair.collect();
        for _ in 0..rounds {
            for row in &mut pair {
                let rate = kind.rate(options);
                repeated(conduct, || under_flood(program, kind, rate, row, conduct))
                    .with_context(|| format!("{} with the filter {}", kind.name(), row.filter))?;
                let last = |list: &[f64]| list.last().copied().unwrap_or(f64::NAN);
                conduct.progress.line(&format!(
                    "{} at {:.0} a second, filter {}: {:.2} Gbit/s before, {:.2} during; a peer got in after {:.0} ms",
                    row.flood,
                    last(&row.flood_pps),
                    row.filter,
                    last(&row.before_gbps),
                    last(&row.during_gbps),
                    last(&row.joined_ms)
                ));
            }
        }
        rows.extend(pair);
    }
    Ok(rows)
}

/// A round that failed is repeated twice: on a machine that is busy with other things a connection may stand still for a
/// whole window, and a filter that is broken fails every time.
fn repeated<T>(conduct: Conduct<'_>, mut round: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..2 {
        match round() {
            Ok(done) => return Ok(done),
            Err(error) => {
                conduct.stop.check()?;
                conduct.progress.line(&format!("repeated: {error:#}"));
            }
        }
    }
    round()
}

fn under_flood(
    program: &Program,
    kind: FloodKind,
    rate_pps: f64,
    row: &mut UnderFlood,
    conduct: Conduct<'_>,
) -> Result<()> {
    let mut mesh = up(3, program, row.filter, conduct)?;
    // The third site's gateway comes back during the flood.
    let third = mesh
        .gateways
        .pop()
        .context("a lab of three has three gateways")?;
    let third_config = third.config().clone();
    third.stop()?;
    let [one, two, three] = &mesh.lab.sites[..] else {
        bail!("a lab of three has three sites");
    };
    let IpAddr::V4(address) = two.wan_addr(Family::V4) else {
        bail!("the WAN has IPv4 addresses");
    };
    let datagram = Datagram {
        to_mac: open_to_floods(&two.gateway, WAN_INTERFACE)?,
        from: SPOOFED,
        to: address,
    };
    let path = || path_to(&one.gateway, &two.interface());
    let before = mesh.tcp(Direction::Forward, 1, conduct)?;
    let path_before = path()?;

    let frame = datagram.frame(&kind.payload());
    let flood = Flooder::start(&mesh.lab.wan, &two.interface(), &frame, rate_pps)?;
    let victim = mesh.gateways.get(1).context("the second gateway")?;
    let cpu = victim.cpu_seconds()?;
    let during = mesh.tcp(Direction::Forward, 1, conduct)?;
    let cpu = victim.cpu_seconds()? - cpu;
    let path_during = path()?;
    let third = Gateway::start(&three.gateway, program, &third_config)?;
    let joined = reach(&three.host, two.host_addr(Family::V4), JOIN_MAX);
    let flooded = flood.finish()?;
    let dropped = dropped(&two.gateway)?;
    third.stop()?;
    let reports = mesh.down()?;
    let balanced = reports
        .iter()
        .all(|it| it.balanced && it.packets.is_balanced());
    ensure!(
        balanced,
        "a gateway does not account for every packet: {reports:?}"
    );

    row.flood_pps.push(flooded.sent as f64 / flooded.seconds);
    row.dropped_pps.push(dropped as f64 / flooded.seconds);
    row.before_gbps.push(before.gbps());
    row.during_gbps.push(during.gbps());
    row.rtt_before_ms.extend(path_before.rtt_ms);
    row.rtt_during_ms.extend(path_during.rtt_ms);
    let losses = [&path_during.tx_loss, &path_during.rx_loss].map(|it| it.ten_s_pct);
    row.loss_during_pct
        .extend(losses.into_iter().flatten().reduce(f64::max));
    row.cpu_s.push(cpu);
    match joined {
        Ok(took) => row.joined_ms.push(took.as_secs_f64() * 1e3),
        Err(_) => row.not_joined += 1,
    }
    Ok(())
}

/// Sites with gateways that reach each other, the filter at a hook.
fn up(sites: usize, program: &Program, hook: &str, conduct: Conduct<'_>) -> Result<Mesh> {
    let appendix = appendix(hook);
    let mesh = Mesh::up_with(sites, program, Family::V4, conduct.stop, |config| {
        config.appendix.clone_from(&appendix);
    })?;
    mesh.check_reach(conduct.stop)?;
    for site in &mesh.lab.sites {
        ensure_hook(&site.gateway, hook)?;
    }
    Ok(mesh)
}

fn appendix(hook: &str) -> String {
    format!("[prefilter]\nwan = \"{hook}\"\n")
}

/// That the filter is where the row says that it is.
fn ensure_hook(gateway: &Namespace, hook: &str) -> Result<()> {
    let told = ask(gateway, |client| client.prefilter())?;
    let found: Vec<&str> = told
        .hooks
        .iter()
        .filter_map(|it| it.hook.as_deref())
        .collect();
    let is_right = match hook {
        "off" => found.is_empty(),
        hook => !found.is_empty() && found.iter().all(|found| *found == hook),
    };
    ensure!(
        is_right,
        "the filter of {} is at {found:?} and not at {hook}: {:?}",
        gateway.label(),
        told
    );
    Ok(())
}

fn dropped(gateway: &Namespace) -> Result<u64> {
    let told = ask(gateway, |client| client.prefilter())?;
    let drops = told.counts.iter().filter(|count| count.is_drop);
    Ok(drops.map(|count| count.packets).sum())
}

fn path_to(gateway: &Namespace, peer: &str) -> Result<PathView> {
    let told = ask(gateway, |client| client.paths(Some(peer)))?;
    let paths = told.peers.into_iter().flat_map(|peer| peer.paths);
    paths
        .into_iter()
        .next()
        .with_context(|| format!("no path to {peer}"))
}

fn ask<T: Send>(
    gateway: &Namespace,
    question: impl FnOnce(Client) -> Result<T, ClientError> + Send,
) -> Result<T> {
    gateway
        .run(|| question(Client::connect(Path::new(SOCKET_PATH))?))?
        .with_context(|| format!("asking {}", gateway.label()))
}

/// The path in use dies while both uplinks of site 2 are flooded with junk, without and with the filter.
pub fn failovers(
    program: &Program,
    options: &PrefilterOptions,
    trials: usize,
    conduct: Conduct<'_>,
) -> Result<Vec<FailoverRow>> {
    let bench_options = FailoverOptions {
        faults: vec![Fault::Blackhole],
        trials,
        wave_seconds: 0,
        link_mbps: LINK_BITS_PER_S / 1_000_000,
        parallel: 1,
        quick: options.quick,
        events: false,
        binary: options.binary.clone(),
    };
    let bench = Bench::new(&bench_options, conduct.progress, conduct.stop);
    let rows = filters(options).iter().map(|&filter| FailoverRow {
        filter,
        gap_ms: Vec::new(),
        false_switches: 0,
        failed: Vec::new(),
    });
    let mut rows: Vec<FailoverRow> = rows.collect();
    for _ in 0..trials {
        for row in &mut rows {
            match failover(&bench, program, row.filter, options.junk_pps, conduct) {
                Ok(trial) => {
                    let gaps = trial.ways.map(|way| way.gap_ns as f64 * 1e-6);
                    row.gap_ms.push(gaps[0].max(gaps[1]));
                    row.false_switches +=
                        trial.ways.map(|way| way.false_switches).iter().sum::<u32>();
                    let line = format!("failover under junk, filter {}: {gaps:.0?} ms", row.filter);
                    conduct.progress.line(&line);
                }
                Err(error) => {
                    conduct.stop.check()?;
                    conduct
                        .progress
                        .line(&format!("failover, filter {}: {error:#}", row.filter));
                    row.failed.push(format!("{error:#}"));
                }
            }
        }
    }
    Ok(rows)
}

fn failover(
    bench: &Bench<'_>,
    program: &Program,
    filter: &str,
    junk_pps: f64,
    conduct: Conduct<'_>,
) -> Result<Trial> {
    let twin = Twin::build(Internet::Kernel {
        link_bits_per_s: LINK_BITS_PER_S,
        queue: QUEUE,
    })?;
    let gateways = twin.start(program, &appendix(filter))?;
    let victim = &twin.sites[1];
    let mut floods = Vec::new();
    for uplink in UPLINKS {
        let datagram = Datagram {
            to_mac: open_to_floods(&victim.gateway, &uplink_interface(uplink))?,
            from: SPOOFED,
            to: victim.uplink_addr(uplink),
        };
        let frame = datagram.frame(&junk(JUNK_BYTES));
        let rate = junk_pps / UPLINKS.len() as f64;
        floods.push(Flooder::start(
            &twin.wan,
            &victim.on_wan(uplink),
            &frame,
            rate,
        )?);
    }
    let mut stage = Stage::new(twin, gateways, LINK_BITS_PER_S, conduct.stop);
    let trial = bench.trial(&mut stage, Fault::Blackhole);
    for flood in floods {
        flood.finish()?;
    }
    trial
}

impl FloodKind {
    fn name(self) -> &'static str {
        match self {
            Self::Junk => "junk",
            Self::Initiations => "initiations",
        }
    }

    fn rate(self, options: &PrefilterOptions) -> f64 {
        match self {
            Self::Junk => options.junk_pps,
            Self::Initiations => options.initiations_pps,
        }
    }

    fn payload(self) -> Vec<u8> {
        match self {
            Self::Junk => junk(JUNK_BYTES),
            Self::Initiations => initiation(),
        }
    }
}

/// A quick run shows the filter at work and compares nothing.
fn filters(options: &PrefilterOptions) -> &'static [&'static str] {
    if options.quick {
        &FILTERS[1..]
    } else {
        &FILTERS
    }
}

/// Without the filter, and with it where a veth has it best.
const FILTERS: [&str; 2] = ["off", "tcx"];
const HOOKS: [&str; 5] = ["off", "tcx", "clsact", "xdp", "xdp-generic"];
/// A /16 of spoofed sources, of RFC 2544's benchmarking range.
const SPOOFED: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
const JUNK_BYTES: usize = 64;
/// A lost handshake is repeated after five seconds.
const JOIN_MAX: Duration = Duration::from_secs(12);
/// More than the bulk flow of a trial needs: what is measured is not a full link.
const LINK_BITS_PER_S: u64 = 2_000_000_000;
