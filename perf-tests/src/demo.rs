//! `patronus demo`: sites in namespaces, real gateways, real traffic, one table.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Uid;
use serde::Serialize;

use crate::enter::{self, IsRoot};
use crate::mesh::{Conduct, Direction, Mesh, Rtt, SMALL_PAYLOAD_BYTES, UDP_PAYLOAD_BYTES};
use crate::progress::Progress;
use crate::{Family, GatewayReport, LabError, Packets, Program, Stop, enter_lab};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Number of sites, 2 to 8.
    pub sites: usize,
    /// Seconds of each kind of traffic, more than 0.
    pub seconds: f64,
    /// One JSON document on standard output and nothing else there.
    pub json: bool,
    /// Stay up until Ctrl-C and say how to look inside.
    pub keep: bool,
    /// The `patronus` binary that the gateways run.
    pub binary: PathBuf,
}

/// What was measured; its JSON form is the document of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// Number of sites.
    pub sites: usize,
    /// TCP payload rate, one flow per pair of sites, all pairs together.
    pub tcp_gbps: f64,
    /// The same in the other direction.
    pub tcp_reverse_gbps: f64,
    /// UDP payload rate at 1372 bytes.
    pub udp_gbps: f64,
    /// Thousands of 16-byte UDP datagrams per second.
    pub udp_small_kpps: f64,
    /// Round trips with nothing else going on.
    pub rtt_idle_us: Rtt,
    /// Round trips beside one TCP flow.
    pub rtt_loaded_us: Rtt,
    /// CPU seconds of all gateways per Gbit of TCP payload, both directions.
    pub cpu_s_per_gbit: f64,
    /// Packet counters of all gateways, from start to end.
    pub packets: Packets,
    /// Whether every gateway, and the sum, accounts for every packet.
    pub balanced: bool,
    /// The offload level of the gateways.
    pub offloads: String,
    /// Workers of each gateway.
    pub workers: u32,
    /// Share of the large datagrams that did not arrive.
    pub udp_loss: f64,
    /// Share of the small datagrams that did not arrive.
    pub udp_small_loss: f64,
    /// Share of TCP segments sent again, both directions.
    pub tcp_retransmitted: f64,
    /// Echo requests beside TCP, and those without a reply.
    pub ping_loaded: PingCount,
    /// Pairs of sites that exchanged traffic at the same time.
    pub pairs: usize,
    /// Length of each measured window in seconds.
    pub seconds: f64,
}

/// A count of echo requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PingCount {
    /// Requests sent.
    pub sent: u64,
    /// Requests without a reply.
    pub lost: u64,
}

/// Runs the demo: prints progress on standard error and the table, or the JSON document, on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] for a machine without namespaces or TUN (exit code 2) and for Ctrl-C (130), see
/// [`crate::exit_code`]; otherwise the phase that failed. Everything is taken down either way.
pub fn demo(options: &DemoOptions) -> Result<DemoReport> {
    let is_root = IsRoot(Uid::effective().is_root());
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let report = match measured(options, &stop, is_root) {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => return Err(LabError::Interrupted.into()),
        result => result?,
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

fn measured(options: &DemoOptions, stop: &Stop, is_root: IsRoot) -> Result<DemoReport> {
    let progress = &Progress::new();
    let window = Duration::try_from_secs_f64(options.seconds)
        .with_context(|| format!("{} is no length of time", options.seconds))?;
    let conduct = Conduct {
        window,
        warm_up: WARM_UP,
        progress,
        stop,
    };
    let program = Program::Patronus {
        binary: options.binary.clone(),
    };
    progress.live(&format!("starting {} sites", options.sites));
    let mesh = Mesh::up(options.sites, &program, Family::V4, stop)?;
    progress.line(&format!(
        "{} gateways are up, each in a namespace of its own",
        options.sites
    ));
    let ways = mesh.check_reach(stop)?;
    progress.line(&format!(
        "every host reaches every other: {ways} ways, IPv4 and IPv6"
    ));

    let idle = mesh.idle_rtt(conduct)?;
    let rtt_idle_us = Rtt::of(&idle)?;
    progress.line(&format!("round trip, idle: {rtt_idle_us}"));
    let forward = mesh.tcp(Direction::Forward, 1, conduct)?;
    let rtt_loaded_us = Rtt::of(&forward.ping)?;
    progress.line(&format!(
        "TCP: {:.2} Gbit/s, round trip beside it: {rtt_loaded_us}",
        forward.gbps()
    ));
    let reverse = mesh.tcp(Direction::Reverse, 1, conduct)?;
    progress.line(&format!(
        "TCP, other direction: {:.2} Gbit/s",
        reverse.gbps()
    ));
    let udp = mesh.udp(UDP_PAYLOAD_BYTES, conduct)?;
    progress.line(&format!(
        "UDP, {UDP_PAYLOAD_BYTES} B: {:.2} Gbit/s",
        udp.gbps()
    ));
    let small = mesh.udp(SMALL_PAYLOAD_BYTES, conduct)?;
    progress.line(&format!(
        "UDP, {SMALL_PAYLOAD_BYTES} B: {:.0} thousand a second",
        small.kpps()
    ));

    let pairs = mesh.pairs(Direction::Forward).count();
    if options.keep {
        keep(&mesh, progress, stop, is_root);
    }
    let totals = Totals::of(&mesh.down()?)?;
    let gbit = (forward.bytes + reverse.bytes) as f64 * 8e-9;
    let segments = forward.segments.plus(reverse.segments);
    Ok(DemoReport {
        sites: options.sites,
        tcp_gbps: forward.gbps(),
        tcp_reverse_gbps: reverse.gbps(),
        udp_gbps: udp.gbps(),
        udp_small_kpps: small.kpps(),
        rtt_idle_us,
        rtt_loaded_us,
        cpu_s_per_gbit: (forward.cpu_seconds + reverse.cpu_seconds) / gbit,
        packets: totals.packets,
        balanced: totals.balanced,
        offloads: totals.offloads,
        workers: totals.workers,
        udp_loss: udp.total.loss(),
        udp_small_loss: small.total.loss(),
        tcp_retransmitted: segments.retransmitted_share(),
        ping_loaded: PingCount {
            sent: forward.ping.sent,
            lost: forward.ping.lost(),
        },
        pairs,
        seconds: window.as_secs_f64(),
    })
}

/// Says how to look inside and waits for Ctrl-C, which is the way to end a kept demo, not a failure.
fn keep(mesh: &Mesh, progress: &Progress, stop: &Stop, is_root: IsRoot) {
    progress.line("");
    progress.line("The lab stays up until Ctrl-C. From another shell:");
    for (site, gateway) in mesh.lab.sites.iter().zip(&mesh.gateways) {
        let other = mesh
            .lab
            .sites
            .iter()
            .find(|other| other.number != site.number);
        let Some(other) = other else { continue };
        let ping = format!("ping {}", other.host_addr(Family::V4));
        progress.line(&format!(
            "  {}    # host of site {}",
            enter::in_host(site, is_root, &ping),
            site.number
        ));
        progress.line(&format!(
            "  {}    # gateway of site {}",
            enter::in_gateway(gateway, is_root, "wg show"),
            site.number
        ));
    }
    while stop.sleep(Duration::from_secs(3600)).is_ok() {}
}

/// What the gateways said at their end, taken together.
pub(crate) struct Totals {
    pub(crate) packets: Packets,
    pub(crate) balanced: bool,
    pub(crate) offloads: String,
    pub(crate) workers: u32,
}

impl Totals {
    pub(crate) fn of(reports: &[GatewayReport]) -> Result<Self> {
        let first = reports.first().context("no gateway left a report")?;
        let mut packets = Packets::default();
        for report in reports {
            packets.add(&report.packets);
        }
        let mut offloads: Vec<&str> = reports
            .iter()
            .map(|report| report.offloads.as_str())
            .collect();
        offloads.dedup();
        Ok(Self {
            balanced: reports.iter().all(|report| report.balanced) && packets.is_balanced(),
            packets,
            offloads: offloads.join(" / "),
            workers: first.workers,
        })
    }
}

impl fmt::Display for Rtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {} µs, p99 {} µs", self.p50, self.p99)
    }
}

/// The table, at most 80 columns wide:
///
/// ```text
///  TCP, 1 flow a pair      3.97 Gbit/s    reverse 3.90 Gbit/s    sent again 0.1 %
///  UDP, 1372 B             1.33 Gbit/s                           lost 12.0 %
///  UDP, 16 B                153 kpps                             lost 40.0 %
///  round trip, idle      p50     180 µs   p99      420 µs   max      900 µs
/// ```
impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n {} sites, {} pair(s) with traffic, {} s each; rates are payload that arrived,\n \
             UDP is sent faster than any gateway takes it\n",
            self.sites, self.pairs, self.seconds
        )?;
        writeln!(
            f,
            " TCP, 1 flow a pair   {:>7.2} Gbit/s  reverse {:>6.2} Gbit/s  sent again {:>5.2} %",
            self.tcp_gbps,
            self.tcp_reverse_gbps,
            self.tcp_retransmitted * 100.0
        )?;
        let lost = "";
        writeln!(
            f,
            " UDP, {UDP_PAYLOAD_BYTES:>4} B          {:>7.2} Gbit/s  {lost:<21}  lost {:>11.2} %",
            self.udp_gbps,
            self.udp_loss * 100.0
        )?;
        writeln!(
            f,
            " UDP, {SMALL_PAYLOAD_BYTES:>4} B          {:>7.1} kpps    {lost:<21}  lost {:>11.2} %",
            self.udp_small_kpps,
            self.udp_small_loss * 100.0
        )?;
        for (name, rtt) in [
            ("idle", self.rtt_idle_us),
            ("beside TCP", self.rtt_loaded_us),
        ] {
            writeln!(
                f,
                " round trip, {name:<10} p50 {:>6} µs   p99 {:>6} µs   max {:>6} µs",
                rtt.p50, rtt.p99, rtt.max
            )?;
        }
        writeln!(
            f,
            " pings beside TCP     {:>7} sent     {:>7} lost",
            self.ping_loaded.sent, self.ping_loaded.lost
        )?;
        writeln!(
            f,
            " CPU, all gateways    {:>7.3} s per Gbit\n",
            self.cpu_s_per_gbit
        )?;
        let packets = &self.packets;
        writeln!(
            f,
            " packets  in {} = out {} + consumed {}",
            packets.origins(),
            packets.tx,
            packets.consumed
        )?;
        write!(
            f,
            "          + waiting {} + dropped {}",
            packets.staged,
            packets.drops.values().sum::<u64>()
        )?;
        writeln!(
            f,
            "   {}",
            if self.balanced {
                "balanced"
            } else {
                "NOT BALANCED"
            }
        )?;
        for (reason, count) in &packets.drops {
            writeln!(f, " dropped  {count:>12}  {reason}")?;
        }
        writeln!(
            f,
            " offloads {}; {} worker(s) a gateway",
            self.offloads, self.workers
        )
    }
}

/// Before each measured window.
const WARM_UP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DemoReport {
        let rtt = Rtt {
            p50: 180,
            p99: 999_999,
            max: 999_999,
            mean: 200.5,
        };
        DemoReport {
            sites: 8,
            tcp_gbps: 123.456,
            tcp_reverse_gbps: 123.456,
            udp_gbps: 12.3,
            udp_small_kpps: 1234.5,
            rtt_idle_us: rtt,
            rtt_loaded_us: rtt,
            cpu_s_per_gbit: 0.3,
            packets: Packets {
                rx: 123_456_789_012,
                divided: 0,
                tx: 123_456_789_000,
                consumed: 5,
                staged: 0,
                own_sent: 9,
                drops: [("no_route".to_owned(), 7)].into(),
            },
            balanced: true,
            offloads: "full".to_owned(),
            workers: 2,
            udp_loss: 0.5,
            udp_small_loss: 1.0,
            tcp_retransmitted: 0.001,
            ping_loaded: PingCount { sent: 400, lost: 0 },
            pairs: 4,
            seconds: 2.0,
        }
    }

    #[test]
    fn the_table_fits_eighty_columns_and_names_every_drop() {
        let text = report().to_string();
        for line in text.lines() {
            assert!(
                line.chars().count() <= 80,
                "{} columns: {line}",
                line.chars().count()
            );
        }
        assert!(text.contains("           7  no_route"), "{text}");
        assert!(text.contains("balanced") && !text.contains("NOT BALANCED"));
    }

    #[test]
    fn the_document_has_every_key_that_was_promised() {
        let document = serde_json::to_value(report()).unwrap();
        for key in [
            "sites",
            "tcp_gbps",
            "tcp_reverse_gbps",
            "udp_gbps",
            "udp_small_kpps",
            "cpu_s_per_gbit",
            "balanced",
            "offloads",
            "workers",
        ] {
            assert!(!document[key].is_null(), "{key}");
        }
        for rtt in ["rtt_idle_us", "rtt_loaded_us"] {
            assert!(document[rtt]["p50"].is_u64() && document[rtt]["p99"].is_u64());
        }
        for key in ["rx", "tx", "consumed"] {
            assert!(document["packets"][key].is_u64(), "{key}");
        }
        assert_eq!(document["packets"]["drops"]["no_route"], 7);
    }

    #[test]
    fn one_unbalanced_gateway_makes_the_whole_unbalanced_even_if_the_sum_is_right() {
        let one = |rx, tx, balanced| GatewayReport {
            packets: Packets {
                rx,
                tx,
                ..Packets::default()
            },
            balanced,
            offloads: "full".to_owned(),
            workers: 2,
            worker_panics: 0,
        };
        assert!(
            Totals::of(&[one(3, 3, true), one(1, 1, true)])
                .unwrap()
                .balanced
        );
        let divided = GatewayReport {
            packets: Packets {
                rx: 2,
                divided: 2,
                tx: 4,
                ..Packets::default()
            },
            ..one(0, 0, true)
        };
        assert!(Totals::of(&[divided]).unwrap().balanced);
        assert!(
            !Totals::of(&[one(3, 2, false), one(1, 2, false)])
                .unwrap()
                .balanced
        );
        assert!(!Totals::of(&[one(3, 2, true)]).unwrap().balanced);
        assert!(Totals::of(&[]).is_err());
    }
}
