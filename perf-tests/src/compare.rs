//! `patronus bench compare`: the same traffic through Patronus and through other WireGuard programs, in
//! alternating rounds, each round in a lab of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::mesh::{Conduct, Direction, Mesh, Rtt, SMALL_PAYLOAD_BYTES, UDP_PAYLOAD_BYTES};
use crate::program::find_on_path;
use crate::progress::Progress;
use crate::{Family, LabError, Program, Stop, enter_lab};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Programs to compare with, by name, and where they are if not on PATH.
    pub peers: Vec<(String, Option<PathBuf>)>,
    /// Rounds per program; `quick` makes it one.
    pub rounds: usize,
    /// Seconds of each kind of traffic; `quick` makes it half a second.
    pub seconds: f64,
    /// One JSON document on standard output and nothing else there.
    pub json: bool,
    /// Only show that the tool works: the output says that it is no measurement.
    pub quick: bool,
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
    /// Patronus divided by the peer, per peer and metric: the median of the ratios round by round.
    pub ratios: BTreeMap<String, BTreeMap<Metric, f64>>,
    /// The ratios of each round.
    pub ratios_by_round: BTreeMap<String, BTreeMap<Metric, Vec<f64>>>,
    /// Peers that were asked for and not found, and how to get each.
    pub absent: BTreeMap<String, String>,
}

/// The machine a comparison ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Env {
    /// Kernel release.
    pub kernel: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// What `/proc/cpuinfo` calls them.
    pub cpu_model: String,
    /// TCP congestion control of the hosts.
    pub congestion_control: String,
    /// Each program's path and what it says its version is.
    pub versions: BTreeMap<String, String>,
}

/// One program's medians, and the spread of each metric as (min, max).
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The program.
    pub name: String,
    /// Medians over the rounds.
    #[serde(flatten)]
    pub medians: BTreeMap<Metric, f64>,
    /// Smallest and largest round.
    pub spread: BTreeMap<Metric, (f64, f64)>,
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
    /// Its 99th percentile.
    RttLoadedUsP99,
    /// CPU seconds of both gateways per Gbit of one TCP flow.
    CpuSPerGbit,
    /// Largest resident set of one gateway in MB (10^6 bytes).
    RssMb,
}

impl Metric {
    const ALL: [Self; 11] = [
        Self::TcpGbps,
        Self::Tcp4Gbps,
        Self::ReverseGbps,
        Self::UdpGbps,
        Self::SmallKpps,
        Self::RttIdleUs,
        Self::RttIdleUsP99,
        Self::RttLoadedUs,
        Self::RttLoadedUsP99,
        Self::CpuSPerGbit,
        Self::RssMb,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::TcpGbps => "TCP, 1 flow, Gbit/s",
            Self::Tcp4Gbps => "TCP, 4 flows, Gbit/s",
            Self::ReverseGbps => "TCP reverse, Gbit/s",
            Self::UdpGbps => "UDP 1372 B, Gbit/s",
            Self::SmallKpps => "UDP 16 B, kpps",
            Self::RttIdleUs => "RTT idle p50, µs",
            Self::RttIdleUsP99 => "RTT idle p99, µs",
            Self::RttLoadedUs => "RTT loaded p50, µs",
            Self::RttLoadedUsP99 => "RTT loaded p99, µs",
            Self::CpuSPerGbit => "CPU s per Gbit",
            Self::RssMb => "RSS, MB",
        }
    }
}

/// The figures of one round through one program.
pub type Round = BTreeMap<Metric, f64>;

/// Runs the comparison: progress on standard error, the tables or the JSON document on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`]; an unknown peer; a peer's explicit path that leads nowhere; otherwise the
/// round that failed. A comparison without any peer present runs Patronus alone.
pub fn compare(options: &CompareOptions) -> Result<CompareReport> {
    let mut programs = vec![Program::Patronus {
        binary: options.binary.clone(),
    }];
    let mut absent = BTreeMap::new();
    for (name, path) in &options.peers {
        match find_peer(name, path.clone())? {
            Ok(program) => programs.push(program),
            Err(how) => {
                absent.insert(name.clone(), how);
            }
        }
    }
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    for (name, how) in &absent {
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
    let results = match alternate(&programs, rounds, conduct) {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => return Err(LabError::Interrupted.into()),
        result => result?,
    };
    let report = CompareReport {
        note: note(options.quick),
        env: Env::read(&programs)?,
        rounds,
        seconds,
        rows: rows(&programs, &results),
        ratios_by_round: ratios_by_round(&programs, &results),
        ratios: medians_of(&ratios_by_round(&programs, &results)),
        absent,
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

/// Measures all programs in the order A B C A B C …; per program its rounds.
///
/// # Errors
/// The first program and round that failed: a figure that could not be measured has no stand-in.
pub fn alternate(
    programs: &[Program],
    rounds: usize,
    conduct: Conduct<'_>,
) -> Result<Vec<Vec<Round>>> {
    let mut results = vec![Vec::with_capacity(rounds); programs.len()];
    for number in 1..=rounds {
        for (program, results) in programs.iter().zip(&mut results) {
            let name = program.name();
            let round = measure(program, conduct)
                .with_context(|| format!("round {number} of {rounds} through {name}"))?;
            conduct.progress.line(&format!(
                "round {number} of {rounds}, {name}: TCP {:.2} Gbit/s, UDP {:.2} Gbit/s, {:.0} kpps small",
                round[&Metric::TcpGbps],
                round[&Metric::UdpGbps],
                round[&Metric::SmallKpps]
            ));
            results.push(round);
        }
    }
    Ok(results)
}

/// One round: a fresh lab of two sites, all kinds of traffic, everything down.
fn measure(program: &Program, conduct: Conduct<'_>) -> Result<Round> {
    let mesh = Mesh::up(2, program, Family::V4, conduct.stop)?;
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
        (Metric::RttLoadedUsP99, loaded.p99 as f64),
        (Metric::CpuSPerGbit, tcp.cpu_s_per_gbit()),
        (Metric::RssMb, rss_bytes as f64 / 1e6),
    ]))
}

/// The program behind a peer's name, or how to get it.
fn find_peer(name: &str, path: Option<PathBuf>) -> Result<Result<Program, String>> {
    let (file, how) = match name {
        "boringtun" => ("boringtun-cli", "`cargo install boringtun-cli`"),
        "wireguard-go" => (
            "wireguard-go",
            "`apt install wireguard-go` (old), or for one with offloads \
             `git clone https://git.zx2c4.com/wireguard-go && make -C wireguard-go`",
        ),
        _ => bail!(
            "no peer `{name}`: this lab can drive {}",
            PEERS.join(" and ")
        ),
    };
    if let Some(path) = &path {
        ensure!(
            path.exists(),
            "--peer-path {name}={}: no such file",
            path.display()
        );
    }
    let Some(binary) = path.or_else(|| find_on_path(file)) else {
        return Ok(Err(format!(
            "{how}; then put it on PATH or pass `--peer-path {name}=PATH`"
        )));
    };
    Ok(Ok(match name {
        "boringtun" => Program::BoringtunCli { binary },
        _ => Program::WireguardGo { binary },
    }))
}

impl Env {
    fn read(programs: &[Program]) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let versions = programs.iter().map(|program| {
            let version = program
                .version()
                .unwrap_or_else(|| "does not say".to_owned());
            let text = format!("{version} ({})", program.binary().display());
            (program.name().to_owned(), text)
        });
        Ok(Self {
            kernel: read_line("/proc/sys/kernel/osrelease")?,
            cpus: std::thread::available_parallelism()
                .context("counting CPUs")?
                .get(),
            cpu_model: model
                .map_or("not said", |rest| rest.trim_start_matches([' ', '\t', ':']))
                .to_owned(),
            congestion_control: read_line("/proc/sys/net/ipv4/tcp_congestion_control")?,
            versions: versions.collect(),
        })
    }
}

fn read_line(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

fn note(quick: bool) -> String {
    let text = match quick {
        true => "not a measurement: --quick only shows that the tool works",
        false => {
            "every program at its defaults with MTU 1420; Patronus pins its workers, as it does by default, beginning at \
             another core on each gateway, the others place their threads themselves; gateways, sender and \
             receiver share one machine, so ratios count and not rates"
        }
    };
    text.to_owned()
}

fn rows(programs: &[Program], results: &[Vec<Round>]) -> Vec<Row> {
    let row = |(program, rounds): (&Program, &Vec<Round>)| {
        let column = |metric| {
            rounds
                .iter()
                .map(|round| round[&metric])
                .collect::<Vec<f64>>()
        };
        Row {
            name: program.name().to_owned(),
            medians: Metric::ALL
                .map(|metric| (metric, median(column(metric))))
                .into(),
            spread: Metric::ALL
                .map(|metric| (metric, spread(&column(metric))))
                .into(),
        }
    };
    programs.iter().zip(results).map(row).collect()
}

/// Patronus, the first program, divided by each other, round by round: what disturbs one round disturbs both.
fn ratios_by_round(
    programs: &[Program],
    results: &[Vec<Round>],
) -> BTreeMap<String, BTreeMap<Metric, Vec<f64>>> {
    let Some((ours, others)) = results.split_first() else {
        return BTreeMap::new();
    };
    let ratios = |theirs: &Vec<Round>| {
        Metric::ALL.map(|metric| {
            let pairs = ours.iter().zip(theirs);
            (
                metric,
                pairs
                    .map(|(our, their)| our[&metric] / their[&metric])
                    .collect(),
            )
        })
    };
    let peers = programs.iter().skip(1).zip(others);
    peers
        .map(|(program, theirs)| (program.name().to_owned(), ratios(theirs).into()))
        .collect()
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
            writeln!(
                f,
                "\n {:<22}     median         min         max   patronus/peer",
                row.name
            )?;
            for metric in Metric::ALL {
                let (min, max) = row.spread[&metric];
                let ratio =
                    ratios.map_or("-".to_owned(), |ratios| format!("{:.2}", ratios[&metric]));
                let [median, min, max] = [row.medians[&metric], min, max].map(figure);
                writeln!(
                    f,
                    " {:<22} {median:>10}  {min:>10}  {max:>10}   {ratio:>13}",
                    metric.title()
                )?;
            }
        }
        for (name, how) in &self.absent {
            writeln!(f, "\nabsent   {name}: {how}")?;
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

/// The peers that this lab can drive.
pub const PEERS: [&str; 2] = ["boringtun", "wireguard-go"];

#[cfg(test)]
mod tests {
    use super::*;

    fn round(value: f64) -> Round {
        Metric::ALL.map(|metric| (metric, value)).into()
    }

    fn report() -> CompareReport {
        let programs = [
            Program::Patronus {
                binary: "/bin/patronus".into(),
            },
            Program::BoringtunCli {
                binary: "/bin/boringtun-cli".into(),
            },
        ];
        let results = [
            vec![round(4.0), round(6.0), round(20.0)],
            vec![round(1.0), round(3.0), round(4.0)],
        ];
        CompareReport {
            note: note(true),
            env: Env {
                kernel: "6.18".into(),
                cpus: 2,
                cpu_model: "x".into(),
                congestion_control: "cubic".into(),
                versions: BTreeMap::new(),
            },
            rounds: 3,
            seconds: 0.5,
            rows: rows(&programs, &results),
            ratios: medians_of(&ratios_by_round(&programs, &results)),
            ratios_by_round: ratios_by_round(&programs, &results),
            absent: BTreeMap::from([("wireguard-go".into(), "apt".into())]),
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
    fn an_absent_peer_comes_with_how_to_get_it_and_an_unknown_one_is_refused() {
        let error = find_peer("openvpn", None).unwrap_err().to_string();
        assert!(error.contains("boringtun and wireguard-go"), "{error}");
        let error = find_peer("boringtun", Some("/no/such".into()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--peer-path boringtun=/no/such"), "{error}");
        let found = find_peer("wireguard-go", Some("/bin/sh".into()))
            .unwrap()
            .unwrap();
        assert_eq!(
            found,
            Program::WireguardGo {
                binary: "/bin/sh".into()
            }
        );
    }
}
