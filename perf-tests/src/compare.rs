//! `patronus bench compare`: the same traffic through Patronus and through other programs, in alternating rounds,
//! each round in a lab of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::contestant::{Contestant, Field};
use crate::env::Env;
use crate::mesh::{Conduct, Direction, Mesh, Rtt, SMALL_PAYLOAD_BYTES, UDP_PAYLOAD_BYTES};
use crate::progress::Progress;
use crate::{Family, Lab, LabError, Stop, enter_lab};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Programs to compare with, by name (see [`Field::find`]), and where they are if not on PATH.
    pub peers: Vec<(String, Option<PathBuf>)>,
    /// Rounds per program; `quick` makes it one.
    pub rounds: usize,
    /// Seconds of each kind of traffic; `quick` makes it half a second.
    pub seconds: f64,
    /// One JSON document on standard output and nothing else there.
    pub json: bool,
    /// Only show that the tool works: the output says that it is no measurement.
    pub quick: bool,
    /// TCP congestion control of the hosts; `None` for the system's.
    pub congestion_control: Option<String>,
    /// Uplinks of each site. With more than one, Patronus takes part a second time and uses them all; everybody else uses
    /// the first.
    pub uplinks: u8,
    /// The `patronus` binary.
    pub binary: PathBuf,
}

/// What was measured; its JSON form is the document of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// "not a measurement" under `--quick`, otherwise how to read the figures.
    pub note: String,
    /// The machine and the programs.
    pub env: Env,
    /// Rounds per program.
    pub rounds: usize,
    /// Length of each measured window in seconds.
    pub seconds: f64,
    /// One row per program, Patronus first: medians over the rounds.
    pub rows: Vec<Row>,
    /// Patronus divided by the peer, per peer and metric: the median of the ratios round by round. A peer at
    /// equal socket buffers is set against Patronus at the same.
    pub ratios: BTreeMap<String, BTreeMap<Metric, f64>>,
    /// The ratios of each round.
    pub ratios_by_round: BTreeMap<String, BTreeMap<Metric, Vec<f64>>>,
    /// Peers that were asked for and not found, and how to get each.
    pub absent: BTreeMap<String, String>,
    /// Peers that a round failed with, and how; they have no row.
    pub failed: BTreeMap<String, String>,
}

/// One program's medians, and the spread of each metric as (min, max).
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The program, with `@4M` where it ran at equal socket buffers.
    pub name: String,
    /// Its socket buffers: "default", or the size asked for.
    pub socket_buffer: String,
    /// The row of Patronus that its ratios are taken from; `None` for Patronus itself.
    pub against: Option<String>,
    /// Medians over the rounds.
    #[serde(flatten)]
    pub medians: BTreeMap<Metric, f64>,
    /// Smallest and largest round.
    pub spread: BTreeMap<Metric, (f64, f64)>,
    /// Every round, in order.
    pub rounds: BTreeMap<Metric, Vec<f64>>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// One TCP flow, payload in Gbit/s.
    TcpGbps,
    /// Four TCP flows.
    Tcp4Gbps,
    /// One TCP flow the other way.
    ReverseGbps,
    /// 1372-byte UDP datagrams that arrived, payload in Gbit/s.
    UdpGbps,
    /// 16-byte UDP datagrams that arrived, thousands per second.
    SmallKpps,
    /// Median round trip, nothing else going on, in µs.
    RttIdleUs,
    /// Its 99th percentile.
    RttIdleUsP99,
    /// Median round trip beside one TCP flow, in µs.
    RttLoadedUs,
    /// Its mean.
    RttLoadedUsMean,
    /// Its 99th percentile.
    RttLoadedUsP99,
    /// Echo requests beside one TCP flow that got no reply.
    PingsLost,
    /// Share of TCP segments sent again, of one flow.
    TcpRetransmitted,
    /// CPU seconds of both gateways per Gbit of one TCP flow.
    CpuSPerGbit,
    /// Largest resident set of one gateway in MB (10^6 bytes).
    RssMb,
}

impl Metric {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 14] = [
        Self::TcpGbps,
        Self::Tcp4Gbps,
        Self::ReverseGbps,
        Self::UdpGbps,
        Self::SmallKpps,
        Self::RttIdleUs,
        Self::RttIdleUsP99,
        Self::RttLoadedUs,
        Self::RttLoadedUsMean,
        Self::RttLoadedUsP99,
        Self::PingsLost,
        Self::TcpRetransmitted,
        Self::CpuSPerGbit,
        Self::RssMb,
    ];

    /// What it is called in tables, with its unit.
    pub fn title(self) -> &'static str {
        match self {
            Self::TcpGbps => "TCP, 1 flow, Gbit/s",
            Self::Tcp4Gbps => "TCP, 4 flows, Gbit/s",
            Self::ReverseGbps => "TCP reverse, Gbit/s",
            Self::UdpGbps => "UDP 1372 B, Gbit/s",
            Self::SmallKpps => "UDP 16 B, kpps",
            Self::RttIdleUs => "RTT idle p50, µs",
            Self::RttIdleUsP99 => "RTT idle p99, µs",
            Self::RttLoadedUs => "RTT loaded p50, µs",
            Self::RttLoadedUsMean => "RTT loaded mean, µs",
            Self::RttLoadedUsP99 => "RTT loaded p99, µs",
            Self::PingsLost => "pings lost under load",
            Self::TcpRetransmitted => "TCP sent again, share",
            Self::CpuSPerGbit => "CPU s per Gbit",
            Self::RssMb => "RSS, MB",
        }
    }

    /// Its name in the document, and its unit; empty for a share or a count.
    pub fn name_and_unit(self) -> (&'static str, &'static str) {
        match self {
            Self::TcpGbps => ("tcp_gbps", "Gbit/s"),
            Self::Tcp4Gbps => ("tcp4_gbps", "Gbit/s"),
            Self::ReverseGbps => ("reverse_gbps", "Gbit/s"),
            Self::UdpGbps => ("udp_gbps", "Gbit/s"),
            Self::SmallKpps => ("small_kpps", "kpps"),
            Self::RttIdleUs => ("rtt_idle_us", "µs"),
            Self::RttIdleUsP99 => ("rtt_idle_us_p99", "µs"),
            Self::RttLoadedUs => ("rtt_loaded_us", "µs"),
            Self::RttLoadedUsMean => ("rtt_loaded_us_mean", "µs"),
            Self::RttLoadedUsP99 => ("rtt_loaded_us_p99", "µs"),
            Self::PingsLost => ("pings_lost", ""),
            Self::TcpRetransmitted => ("tcp_retransmitted", ""),
            Self::CpuSPerGbit => ("cpu_s_per_gbit", "s"),
            Self::RssMb => ("rss_mb", "MB"),
        }
    }

    /// Whether dividing makes sense: losses are zero at their best.
    fn has_ratio(self) -> bool {
        !matches!(self, Self::PingsLost | Self::TcpRetransmitted)
    }
}

/// Gateways with several paths may change their first choice for five seconds.
const PATHS_SETTLE: Duration = Duration::from_secs(7);

/// The figures of one round through one program.
pub type Round = BTreeMap<Metric, f64>;

/// Runs the comparison: progress on standard error, the tables or the JSON document on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`]; what [`Field::find`] refuses; a round of Patronus that failed. A peer that
/// fails is named in the report and left out. A comparison without any peer present runs Patronus alone.
pub fn compare(options: &CompareOptions) -> Result<CompareReport> {
    let mut field = Field::find(&options.binary, &options.peers)?;
    if options.uplinks > 1 {
        field.add_uplinks(options.uplinks);
    }
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    for (name, how) in &field.absent {
        progress.line(&format!("{name} is not here: {how}"));
    }
    let (rounds, seconds) = if options.quick {
        (1, 0.5)
    } else {
        (options.rounds, options.seconds)
    };
    ensure!(rounds > 0, "0 rounds: --rounds is at least 1");
    let window = Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("{seconds} is no length of time"))?;
    let conduct = Conduct {
        window,
        warm_up: Duration::from_millis(if options.quick { 100 } else { 500 }),
        progress: &progress,
        stop: &stop,
    };
    let congestion_control = options.congestion_control.as_deref();
    let outcome = match alternate(&field.contestants, rounds, options, conduct) {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => return Err(LabError::Interrupted.into()),
        result => result?,
    };
    let ratios_by_round = ratios_by_round(&outcome.results);
    let report = CompareReport {
        note: note(options.quick),
        env: Env::read(&field.contestants, congestion_control)?,
        rounds,
        seconds,
        rows: rows(&outcome.results),
        ratios: medians_of(&ratios_by_round),
        ratios_by_round,
        absent: field.absent,
        failed: outcome.failed,
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

/// The rounds of everybody who got through all of them.
#[derive(Debug, Default)]
struct Outcome {
    results: Vec<(Contestant, Vec<Round>)>,
    failed: BTreeMap<String, String>,
}

/// Measures all programs in the order A B C A B C ….
///
/// # Errors
/// Ctrl-C, or a round of Patronus that failed: a figure that could not be measured has no stand-in.
fn alternate(
    contestants: &[Contestant],
    rounds: usize,
    options: &CompareOptions,
    conduct: Conduct<'_>,
) -> Result<Outcome> {
    let begun = contestants
        .iter()
        .map(|contestant| (contestant.clone(), Vec::with_capacity(rounds)));
    let mut outcome = Outcome {
        results: begun.collect(),
        failed: BTreeMap::new(),
    };
    for number in 1..=rounds {
        for (contestant, results) in &mut outcome.results {
            let name = contestant.name();
            if outcome.failed.contains_key(&name) {
                continue;
            }
            let round = measure(contestant, options, conduct)
                .with_context(|| format!("round {number} of {rounds} through {name}"));
            conduct.stop.check()?;
            let round = match round {
                Err(error) if !contestant.program.is_patronus() => {
                    conduct.progress.line(&format!("{name} is out: {error:#}"));
                    outcome.failed.insert(name, format!("{error:#}"));
                    continue;
                }
                round => round?,
            };
            conduct.progress.line(&format!(
                "round {number} of {rounds}, {name}: TCP {:.2} Gbit/s, UDP {:.2} Gbit/s, {:.0} kpps small",
                round[&Metric::TcpGbps],
                round[&Metric::UdpGbps],
                round[&Metric::SmallKpps]
            ));
            results.push(round);
        }
    }
    outcome
        .results
        .retain(|(contestant, _)| !outcome.failed.contains_key(&contestant.name()));
    Ok(outcome)
}

/// One round: a fresh lab of two sites, all kinds of traffic, everything down.
fn measure(
    contestant: &Contestant,
    options: &CompareOptions,
    conduct: Conduct<'_>,
) -> Result<Round> {
    let adjust = |config: &mut _| contestant.adjust(config);
    let lab = Lab::routed(2, options.uplinks)?;
    let program = &contestant.program;
    let mesh = match contestant.uplinks {
        1 => Mesh::on(lab, program, Family::V4, conduct.stop, adjust)?,
        _ => {
            let mesh = Mesh::over_uplinks(lab, program, Family::V4, conduct.stop, adjust)?;
            // Every path is up, and the first choice made, before anything is measured.
            conduct.stop.sleep(PATHS_SETTLE)?;
            mesh
        }
    };
    if let Some(name) = &options.congestion_control {
        for site in &mesh.lab.sites {
            site.host
                .sysctl("net/ipv4/tcp_congestion_control", name)
                .context("the kernel has no such congestion control (see net.ipv4.tcp_available_congestion_control)")?;
        }
    }
    mesh.check_reach(conduct.stop)?;
    let idle = Rtt::of(&mesh.idle_rtt(conduct)?)?;
    let tcp = mesh.tcp(Direction::Forward, 1, conduct)?;
    let loaded = Rtt::of(&tcp.ping)?;
    let tcp4 = mesh.tcp(Direction::Forward, 4, conduct)?;
    let reverse = mesh.tcp(Direction::Reverse, 1, conduct)?;
    let udp = mesh.udp(UDP_PAYLOAD_BYTES, conduct)?;
    let small = mesh.udp(SMALL_PAYLOAD_BYTES, conduct)?;
    let rss_bytes = mesh.rss_max_bytes()?;
    mesh.down()?;
    Ok(BTreeMap::from([
        (Metric::TcpGbps, tcp.gbps()),
        (Metric::Tcp4Gbps, tcp4.gbps()),
        (Metric::ReverseGbps, reverse.gbps()),
        (Metric::UdpGbps, udp.gbps()),
        (Metric::SmallKpps, small.kpps()),
        (Metric::RttIdleUs, idle.p50 as f64),
        (Metric::RttIdleUsP99, idle.p99 as f64),
        (Metric::RttLoadedUs, loaded.p50 as f64),
        (Metric::RttLoadedUsMean, loaded.mean),
        (Metric::RttLoadedUsP99, loaded.p99 as f64),
        (Metric::PingsLost, tcp.ping.lost() as f64),
        (Metric::TcpRetransmitted, tcp.segments.retransmitted_share()),
        (Metric::CpuSPerGbit, tcp.cpu_s_per_gbit()),
        (Metric::RssMb, rss_bytes as f64 / 1e6),
    ]))
}

fn note(quick: bool) -> String {
    let text = match quick {
        true => "not a measurement: --quick only shows that the tool works",
        false => {
            "every program at MTU 1420; NAME+2up is a program that uses two uplinks and probes every path between them; NAME is a program at its defaults, NAME@4M the same with socket buffers of \
             4 MiB each, for those that take such a setting: compare equals with equals. Patronus pins its workers, as it \
             does by default, beginning at another core on each gateway, the others place their threads themselves. \
             Gateways, sender and receiver share one machine, so ratios count and not rates"
        }
    };
    text.to_owned()
}

fn rows(results: &[(Contestant, Vec<Round>)]) -> Vec<Row> {
    let row = |(contestant, rounds): &(Contestant, Vec<Round>)| {
        let column = |metric| {
            rounds
                .iter()
                .map(|round| round[&metric])
                .collect::<Vec<f64>>()
        };
        Row {
            name: contestant.name(),
            socket_buffer: contestant
                .socket_buffer_kib
                .map_or("default".to_owned(), |kib| format!("{kib} KiB")),
            against: ours_for(contestant, results).map(|(ours, _)| ours.name()),
            medians: Metric::ALL
                .map(|metric| (metric, median(column(metric))))
                .into(),
            spread: Metric::ALL
                .map(|metric| (metric, spread(&column(metric))))
                .into(),
            rounds: Metric::ALL.map(|metric| (metric, column(metric))).into(),
        }
    };
    results.iter().map(row).collect()
}

/// Patronus at the same socket buffers; `None` for Patronus itself.
fn ours_for<'a>(
    contestant: &Contestant,
    results: &'a [(Contestant, Vec<Round>)],
) -> Option<&'a (Contestant, Vec<Round>)> {
    if contestant.is_yardstick() {
        return None;
    }
    results.iter().find(|(ours, _)| {
        ours.is_yardstick() && ours.socket_buffer_kib == contestant.socket_buffer_kib
    })
}

/// Patronus divided by each peer, round by round: what disturbs one round disturbs both.
fn ratios_by_round(
    results: &[(Contestant, Vec<Round>)],
) -> BTreeMap<String, BTreeMap<Metric, Vec<f64>>> {
    let ratios = |(peer, theirs): &(Contestant, Vec<Round>)| {
        let (_, ours) = ours_for(peer, results)?;
        let metrics = Metric::ALL.into_iter().filter(|metric| metric.has_ratio());
        let ratios = metrics.map(|metric| {
            let pairs = ours.iter().zip(theirs);
            let ratios = pairs.map(|(our, their)| our[&metric] / their[&metric]);
            (metric, ratios.collect())
        });
        Some((peer.name(), ratios.collect()))
    };
    results.iter().filter_map(ratios).collect()
}

fn medians_of(
    by_round: &BTreeMap<String, BTreeMap<Metric, Vec<f64>>>,
) -> BTreeMap<String, BTreeMap<Metric, f64>> {
    let medians = |metrics: &BTreeMap<Metric, Vec<f64>>| {
        metrics
            .iter()
            .map(|(metric, ratios)| (*metric, median(ratios.clone())))
            .collect()
    };
    by_round
        .iter()
        .map(|(peer, metrics)| (peer.clone(), medians(metrics)))
        .collect()
}

/// The middle value, or the mean of the two in the middle; NaN for none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn spread(values: &[f64]) -> (f64, f64) {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (min, max)
}

/// One block per program: median, smallest and largest round, and the ratio of Patronus to the peer.
impl fmt::Display for CompareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env = &self.env;
        writeln!(
            f,
            "host     {} CPUs, {}, Linux {}",
            env.cpus, env.cpu_model, env.kernel
        )?;
        writeln!(
            f,
            "method   {} round(s) of {} s, alternating, TCP {}",
            self.rounds, self.seconds, env.congestion_control
        )?;
        for (name, version) in &env.versions {
            writeln!(f, "program  {name}: {version}")?;
        }
        writeln!(f, "note     {}", self.note)?;
        for row in &self.rows {
            let ratios = self.ratios.get(&row.name);
            let against = row.against.as_deref().unwrap_or("");
            let title = match against {
                "" => String::new(),
                ours => format!("{ours}/it"),
            };
            writeln!(
                f,
                "\n {:<22}     median         min         max   {title:>15}",
                row.name
            )?;
            for metric in Metric::ALL {
                let (min, max) = row.spread[&metric];
                let by_round = self.ratios_by_round.get(&row.name);
                let by_round = by_round.and_then(|ratios| ratios.get(&metric));
                let ratio = ratios
                    .and_then(|ratios| ratios.get(&metric))
                    .zip(by_round)
                    .map_or(String::new(), |(ratio, rounds)| {
                        let (min, max) = spread(rounds);
                        format!("{ratio:.2} {min:.2}-{max:.2}")
                    });
                let [median, min, max] = [row.medians[&metric], min, max].map(figure);
                writeln!(
                    f,
                    " {:<22} {median:>10}  {min:>10}  {max:>10}   {ratio:>15}",
                    metric.title()
                )?;
            }
        }
        for (name, how) in &self.absent {
            writeln!(f, "\nabsent   {name}: {how}")?;
        }
        for (name, how) in &self.failed {
            writeln!(f, "\nfailed   {name}: {how}")?;
        }
        Ok(())
    }
}

/// Three digits where there are any to show.
fn figure(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Program;
    use crate::nebula::Cipher;

    fn round(value: f64) -> Round {
        Metric::ALL.map(|metric| (metric, value)).into()
    }

    fn report() -> CompareReport {
        let patronus = Program::Patronus {
            binary: "/bin/patronus".into(),
        };
        let boringtun = Program::BoringtunCli {
            binary: "/bin/boringtun-cli".into(),
        };
        let nebula = Program::Nebula {
            binary: "/bin/nebula".into(),
            cipher: Cipher::Aes,
        };
        let at_4m = |program: &Program| Contestant {
            socket_buffer_kib: Some(4096),
            ..Contestant::at_defaults(program.clone())
        };
        let results = [
            (
                Contestant::at_defaults(patronus.clone()),
                vec![round(4.0), round(6.0), round(20.0)],
            ),
            (
                Contestant::at_defaults(boringtun),
                vec![round(1.0), round(3.0), round(4.0)],
            ),
            (at_4m(&patronus), vec![round(9.0), round(9.0), round(9.0)]),
            (at_4m(&nebula), vec![round(3.0), round(3.0), round(3.0)]),
        ];
        CompareReport {
            note: note(true),
            env: Env {
                kernel: "6.18".into(),
                cpus: 2,
                cpu_model: "x".into(),
                congestion_control: "cubic".into(),
                socket_buffer_default_bytes: Some(212_992),
                socket_buffer_max_bytes: None,
                versions: BTreeMap::new(),
            },
            rounds: 3,
            seconds: 0.5,
            rows: rows(&results),
            ratios: medians_of(&ratios_by_round(&results)),
            ratios_by_round: ratios_by_round(&results),
            absent: BTreeMap::from([("wireguard-go".into(), "apt".into())]),
            failed: BTreeMap::from([("gotatun".into(), "it broke".into())]),
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() {
        let report = report();
        assert_eq!(report.rows[0].medians[&Metric::TcpGbps], 6.0);
        assert_eq!(report.rows[1].spread[&Metric::TcpGbps], (1.0, 4.0));
        assert_eq!(
            report.ratios_by_round["boringtun"][&Metric::RssMb],
            [4.0, 2.0, 5.0]
        );
        assert_eq!(report.ratios["boringtun"][&Metric::TcpGbps], 4.0);
    }

    #[test]
    fn an_even_number_of_rounds_has_the_mean_of_the_middle_two_as_median() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn the_document_has_the_keys_that_were_promised_and_says_when_it_is_no_measurement() {
        let document = serde_json::to_value(report()).unwrap();
        for metric in Metric::ALL {
            let (name, _) = metric.name_and_unit();
            assert_eq!(serde_json::to_value(metric).unwrap(), name);
        }
        for key in [
            "name",
            "tcp_gbps",
            "tcp4_gbps",
            "reverse_gbps",
            "udp_gbps",
            "small_kpps",
            "rtt_idle_us",
            "rtt_loaded_us",
            "cpu_s_per_gbit",
            "rss_mb",
        ] {
            assert!(!document["rows"][0][key].is_null(), "{key}");
        }
        assert_eq!(document["ratios"]["boringtun"]["tcp_gbps"], 4.0);
        assert!(
            document["note"]
                .as_str()
                .unwrap()
                .starts_with("not a measurement")
        );
        assert!(report().to_string().contains("not a measurement"));
    }

    #[test]
    fn equals_are_compared_with_equals_and_every_row_says_with_which() {
        let report = report();
        assert_eq!(report.ratios["nebula-aes@4M"][&Metric::UdpGbps], 3.0);
        assert!(!report.ratios.contains_key("patronus@4M"));
        let document = serde_json::to_value(report).unwrap();
        assert_eq!(document["rows"][3]["against"], "patronus@4M");
        assert_eq!(document["rows"][3]["socket_buffer"], "4096 KiB");
        assert_eq!(document["rows"][1]["against"], "patronus");
    }

    #[test]
    fn two_uplinks_are_held_against_one() {
        let one = Contestant::at_defaults(Program::Patronus {
            binary: "/bin/patronus".into(),
        });
        let mut field = Field {
            contestants: vec![one],
            absent: BTreeMap::new(),
        };
        field.add_uplinks(2);
        let [one, two] = <[Contestant; 2]>::try_from(field.contestants).unwrap();
        assert_eq!(two.name(), "patronus+2up");
        let results = [(one, vec![round(4.0)]), (two, vec![round(2.0)])];
        assert_eq!(
            ratios_by_round(&results)["patronus+2up"][&Metric::TcpGbps],
            [2.0]
        );
        assert_eq!(rows(&results)[1].against.as_deref(), Some("patronus"));
    }

    #[test]
    fn losses_have_rows_and_no_ratio() {
        let report = report();
        assert_eq!(report.rows[0].medians[&Metric::PingsLost], 6.0);
        assert!(!report.ratios["boringtun"].contains_key(&Metric::PingsLost));
    }

    #[test]
    fn the_tables_fit_eighty_columns_and_name_who_is_missing() {
        let text = report().to_string();
        let figures = text.lines().filter(|line| line.starts_with(' '));
        for line in figures {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("absent   wireguard-go") && text.contains("failed   gotatun"));
    }
}
