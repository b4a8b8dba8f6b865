//! `patronus bench handshakes`: handshakes per second that a gateway completes, and what an established peer keeps
//! of its goodput while strangers flood the gateway with initiations.
//!
//! The flood shares the machine with what it disturbs, so the same flood against a closed port of the gateway's
//! machine is measured beside: what that costs is the kernel's and the sender's part, the rest is the gateway's.

mod report;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use patronus_packet::Prefix;
use patronus_tunnel::{PrivateKey, PublicKey};

use crate::contestant::Contestant;
use crate::env::Env;
use crate::link::{self, End, Setup};
use crate::mesh::{Conduct, Direction, Mesh};
use crate::progress::Progress;
use crate::topology::LISTEN_PORT;
use crate::traffic::initiators::strangers;
use crate::traffic::{Crowd, Flood, flood};
use crate::{
    Family, Gateway, GatewayReport, Lab, LabError, Namespace, PeerConfig, Program, Stop, enter_lab,
};

pub use report::{FloodKind, FloodRow, HandshakesReport, Rate};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct HandshakesOptions {
    /// Initiators, each a peer of the gateway.
    pub initiators: usize,
    /// Seconds of handshakes, and of TCP before and during each flood.
    pub seconds: f64,
    /// Initiations per second in a flood.
    pub flood_pps: f64,
    /// Only show that the tool works: the output says that it is no measurement.
    pub quick: bool,
    /// One JSON document on standard output and nothing else there.
    pub json: bool,
    /// The `patronus` binary.
    pub binary: PathBuf,
}

/// Runs the benchmark: progress on standard error, the table or the JSON document on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`]; otherwise the part that failed. That the gateways account for every packet
/// is for the caller to check, [`HandshakesReport::is_balanced`].
pub fn handshakes(options: &HandshakesOptions) -> Result<HandshakesReport> {
    let seconds = if options.quick { 0.5 } else { options.seconds };
    let initiators = match options.quick {
        true => options.initiators.min(INITIATORS_QUICK),
        false => options.initiators,
    };
    ensure!(
        (1..=INITIATORS_MAX).contains(&initiators),
        "{initiators} initiators: from 1 to {INITIATORS_MAX}"
    );
    ensure!(
        options.flood_pps >= 1.0 && options.flood_pps.is_finite(),
        "a flood of {} a second",
        options.flood_pps
    );
    let window = Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("{seconds} is no length of time"))?;
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    let conduct = Conduct {
        window,
        warm_up: Duration::from_millis(if options.quick { 100 } else { 500 }),
        progress: &progress,
        stop: &stop,
    };
    let program = Program::Patronus {
        binary: options.binary.clone(),
    };
    let measure = || -> Result<(Rate, Vec<FloodRow>)> {
        let rate = rate(&program, initiators, conduct)?;
        progress.line(&format!(
            "{:.0} handshakes a second, {:.0} µs of the gateway's CPU each",
            rate.handshakes_per_s, rate.cpu_us_per_handshake
        ));
        let floods = FloodKind::ALL.map(|kind| -> Result<FloodRow> {
            let row = under_flood(&program, kind, options.flood_pps, conduct)
                .with_context(|| format!("flood: {}", kind.title()))?;
            progress.line(&format!(
                "{}: {:.2} Gbit/s before, {:.2} during {:.0} a second",
                kind.title(),
                row.goodput_before_gbps,
                row.goodput_during_gbps,
                row.flood_pps
            ));
            Ok(row)
        });
        Ok((rate, floods.into_iter().collect::<Result<_>>()?))
    };
    let (rate, floods) = match measure() {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => return Err(LabError::Interrupted.into()),
        result => result?,
    };
    let report = HandshakesReport {
        note: report::note(options.quick),
        env: Env::read(&[Contestant::at_defaults(program.clone())], None)?,
        seconds,
        rate,
        floods,
    };
    let text = if options.json {
        serde_json::to_string_pretty(&report).context("writing the report as JSON")?
    } else {
        report.to_string()
    };
    // A reader that went away needs no report.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    Ok(report)
}

/// Rounds of handshakes from a crowd at site 2 against the gateway of site 1, until they add up to the window.
fn rate(program: &Program, initiators: usize, conduct: Conduct<'_>) -> Result<Rate> {
    let lab = Lab::build(2)?;
    let [site, crowd_site] = &lab.sites[..] else {
        bail!("a lab of two has two sites");
    };
    let keys: Vec<PrivateKey> = (0..initiators).map(|_| PrivateKey::generate()).collect();
    let mut config = lab.gateway_config(site, Family::V4);
    config.peers = keys
        .iter()
        .zip(0..)
        .map(|(key, number)| initiator(key, number))
        .collect::<Result<_>>()?;
    config.appendix = BARE.to_owned();
    let gateway = Gateway::start(&site.gateway, program, &config)?;
    let address = SocketAddr::new(site.wan_addr(Family::V4), LISTEN_PORT);
    let own_key = site.key.public_key();
    let mut crowd = Crowd::gather(&crowd_site.gateway, address, &own_key, &keys)?;

    // Under load the gateway asks everybody for a cookie once; a round of such questions completes nothing.
    let mut cookies = 0;
    for _ in 0..WARM_UP_ROUNDS_MAX {
        cookies += crowd.round(WAITING_MAX, conduct.stop, |_| Ok(()))?.cookies;
        std::thread::sleep(ROUND_PAUSE);
        if cookies >= initiators as u64 {
            break;
        }
    }
    let (mut cpu, mut rounds) = (0.0, Vec::new());
    let mut seconds = 0.0;
    while seconds < conduct.window.as_secs_f64() && rounds.len() < ROUNDS_MAX {
        let round = crowd.round(WAITING_MAX, conduct.stop, |begins| {
            let used = gateway.cpu_seconds()?;
            cpu += if begins { -used } else { used };
            Ok(())
        })?;
        seconds += round.seconds;
        std::thread::sleep(ROUND_PAUSE);
        rounds.push(round);
        let completed: u64 = rounds.iter().map(|round| round.completed).sum();
        conduct.progress.live(&format!(
            "handshakes: {completed} in {} rounds",
            rounds.len()
        ));
    }
    let known = gateway.device()?;
    let confirmed = known
        .peers
        .iter()
        .filter(|peer| peer.last_handshake.is_some())
        .count();
    let report = report_of(gateway)?;
    Rate::of(initiators, confirmed, cookies, &rounds, cpu, report)
}

/// A peer of the gateway with a key and an inner address of its own.
fn initiator(key: &PrivateKey, number: u32) -> Result<PeerConfig> {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number);
    Ok(PeerConfig {
        name: format!("initiator{number}"),
        public_key: key.public_key(),
        endpoint: None,
        endpoints: Vec::new(),
        allowed_ips: vec![Prefix::host(address.into())],
        preshared_key: None,
        keepalive_s: None,
    })
}

/// TCP from site 1 to site 2 before and during a flood of site 2's gateway.
fn under_flood(
    program: &Program,
    kind: FloodKind,
    flood_pps: f64,
    conduct: Conduct<'_>,
) -> Result<FloodRow> {
    let mesh = Mesh::up_with(2, program, Family::V4, conduct.stop, |config| {
        config.appendix = BARE.to_owned();
    })?;
    mesh.check_reach(conduct.stop)?;
    let attacker = attacker(&mesh.lab)?;
    let (Some(victim), Some(gateway)) = (mesh.lab.sites.get(1), mesh.gateways.get(1)) else {
        bail!("a lab of two has two sites");
    };
    let IpAddr::V4(address) = victim.wan_addr(Family::V4) else {
        bail!("the WAN has IPv4 addresses");
    };
    let before = mesh.tcp(Direction::Forward, 1, conduct)?;

    let target = SocketAddrV4::new(address, kind.port());
    let payloads = kind.payloads(&victim.key.public_key())?;
    let flood = Flood::start(&attacker, SPOOFED, target, payloads, flood_pps)?;
    let cpu = gateway.cpu_seconds()?;
    let during = mesh.tcp(Direction::Forward, 1, conduct);
    let flooded = flood.finish()?;
    let cpu_seconds = gateway.cpu_seconds()? - cpu;
    let during = during?;

    let mut reports = mesh.down()?;
    ensure!(
        reports.len() == 2,
        "{} of 2 gateways left a report",
        reports.len()
    );
    let balanced = reports
        .iter()
        .all(|report| report.balanced && report.packets.is_balanced());
    let attacked = reports.remove(1);
    Ok(FloodRow {
        kind,
        flood_pps: flooded.sent as f64 / flooded.seconds,
        flood_sent: flooded.sent,
        flood_seconds: flooded.seconds,
        goodput_before_gbps: before.gbps(),
        goodput_during_gbps: during.gbps(),
        pings_lost_before: before.ping.lost(),
        pings_lost_during: during.ping.lost(),
        pings_during: during.ping.sent,
        retransmitted_before: before.segments.retransmitted_share(),
        retransmitted_during: during.segments.retransmitted_share(),
        attacked_cpu_seconds: cpu_seconds,
        packets: attacked.packets,
        balanced,
    })
}

/// A namespace on the WAN whose net of spoofed addresses is routed to it, so that answers find a way and an end.
fn attacker(lab: &Lab) -> Result<Namespace> {
    let attacker = Namespace::new("attacker")?;
    let (here, there) = ("eth0", "attacker");
    link::connect(
        End {
            namespace: &attacker,
            name: here,
        },
        End {
            namespace: &lab.wan,
            name: there,
        },
    )?;
    let (own, wan) = (
        Ipv4Addr::new(198, 18, 255, 2),
        Ipv4Addr::new(198, 18, 255, 1),
    );
    let net = |address: Ipv4Addr, len| {
        Prefix::new(address.into(), len).context("the plan's lengths fit IPv4")
    };
    let everybody = net(Ipv4Addr::new(198, 18, 0, 0), 15)?;
    let sides = [
        (&attacker, here, own, (everybody, Some(wan.into()))),
        (&lab.wan, there, wan, (net(SPOOFED, 16)?, Some(own.into()))),
    ];
    for (namespace, name, address, route) in sides {
        let setup = Setup {
            mtu: None,
            addresses: &[net(address, 30)?],
            routes: &[route],
        };
        link::configure(namespace, name, setup)?;
    }
    Ok(attacker)
}

fn report_of(gateway: Gateway) -> Result<GatewayReport> {
    gateway
        .stop()?
        .context("the gateway left no report: is it patronus?")
}

impl FloodKind {
    fn port(self) -> u16 {
        match self {
            Self::ClosedPort => CLOSED_PORT,
            Self::BadMac | Self::ValidMac => LISTEN_PORT,
        }
    }

    fn payloads(self, gateway_key: &PublicKey) -> Result<Vec<Vec<u8>>> {
        match self {
            Self::ClosedPort | Self::ValidMac => strangers(gateway_key, STRANGERS),
            Self::BadMac => Ok(flood::bad_macs(STRANGERS)),
        }
    }
}

/// What is measured here is the gateway itself; `bench prefilter` measures what stands before it. A crowd behind one
/// address is also what the pre-filter holds back.
const BARE: &str = "[prefilter]\nwan = \"off\"\n";
/// Initiations under way at a time.
const WAITING_MAX: usize = 64;
/// Rounds before the measurement, unless all initiators have a cookie earlier.
const WARM_UP_ROUNDS_MAX: usize = 8;
/// A gateway refuses an initiation less than 20 ms behind the last of the same peer (whitepaper, section 5.1).
const ROUND_PAUSE: Duration = Duration::from_millis(25);
/// An end, however short the rounds are.
const ROUNDS_MAX: usize = 10_000;
/// Inner addresses of initiators come from 10.128.0.0/9.
const INITIATORS_MAX: usize = 100_000;
const INITIATORS_QUICK: usize = 128;
/// Different initiations in a flood, sent in turn.
const STRANGERS: usize = 512;
/// Spoofed sources are 198.19.0.0/16, of RFC 2544's benchmarking range.
const SPOOFED: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// Nobody listens there (discard, RFC 863).
const CLOSED_PORT: u16 = 9;
