//! The document and the table of `patronus bench throughput`.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::gbps;
use crate::Packets;
use crate::demo::Totals;
use crate::env::Env;
use crate::search::Answer;
use crate::traffic::{Mix, Trial};

/// What was measured; its JSON form is the document of `--json`. Rates are of inner packets, Gbit/s of inner IP
/// bytes.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputReport {
    /// "not a measurement" under `--quick`, otherwise how to read the figures.
    pub note: String,
    /// The machine and the programs.
    pub env: Env,
    /// How it was measured.
    pub method: Method,
    /// What the generator makes without gateways, per size.
    pub sender: Vec<SenderLimit>,
    /// One row per size and program.
    pub rows: Vec<Row>,
    /// Packet counters per program that reports them.
    pub balance: BTreeMap<String, Balance>,
    /// Peers that were asked for and not found, and how to get each.
    pub absent: BTreeMap<String, String>,
}

/// Lengths, repetitions, limits.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Method {
    /// Seconds of a trial.
    pub trial_seconds: f64,
    /// Seconds of the trial that delay is taken from.
    pub delay_trial_seconds: f64,
    /// Searches for the no-drop rate per size.
    pub searches: usize,
    /// The gap that a search may leave, as a share of the rate.
    pub precision: f64,
    /// The share of packets that the PDR may lose.
    pub pdr_loss_max: f64,
    /// The load at which delay is measured, as a share of the no-drop rate.
    pub delay_load: f64,
}

/// The generator alone over a veth pair: no result above it can be told from it.
#[derive(Clone, Debug, Serialize)]
pub struct SenderLimit {
    /// The size, or `IMIX`.
    pub size: String,
    /// Mean inner packet in bytes.
    pub inner_bytes_mean: f64,
    /// Packets per second that arrived.
    pub pps: f64,
    /// The same in Gbit/s.
    pub gbps: f64,
    /// Packets per second that were sent.
    pub offered_pps: f64,
}

/// One size through one program.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The program.
    pub name: String,
    /// The size, or `IMIX`.
    pub size: String,
    /// Mean inner packet in bytes.
    pub inner_bytes_mean: f64,
    /// The no-drop rate; `None` where every rate lost something.
    pub ndr: Option<Ndr>,
    /// The highest rate that lost no more than the PDR allows.
    pub pdr_pps: Option<f64>,
    /// The same in Gbit/s.
    pub pdr_gbps: Option<f64>,
    /// Delay at a stated load; `None` where no rate passed.
    pub delay: Option<Delay>,
    /// Loss at steps of the offered rate.
    pub loss_curve: Vec<CurvePoint>,
    /// Trials made.
    pub trials: usize,
    /// Packets sent, all trials.
    pub sent: u64,
    /// Packets that did not arrive, all trials; most of them above the no-drop rate, by design.
    pub lost: u64,
    /// Packets that arrived behind a later one, all trials.
    pub reordered: u64,
    /// Packets among the lost that the receiving socket of the generator dropped, not the gateways.
    pub overflowed: u64,
}

/// The no-drop rate over several searches.
#[derive(Clone, Debug, Serialize)]
pub struct Ndr {
    /// Median, packets per second.
    pub pps: f64,
    /// The same in Gbit/s.
    pub gbps: f64,
    /// The lowest search.
    pub pps_min: f64,
    /// The highest search.
    pub pps_max: f64,
    /// What each search found that found a rate, ascending.
    pub searches_pps: Vec<f64>,
    /// The median search never saw a loss: the gateways may carry more than the sender made.
    pub at_sender_limit: bool,
    /// All searches ended within the precision.
    pub is_precise: bool,
}

/// One-way delay at a load.
#[derive(Clone, Debug, Serialize)]
pub struct Delay {
    /// The load, packets per second.
    pub load_pps: f64,
    /// Share lost during this trial.
    pub loss: f64,
    /// Median in ns.
    pub p50_ns: u64,
    /// 99th percentile in ns.
    pub p99_ns: u64,
    /// 99.9th percentile in ns.
    pub p999_ns: u64,
    /// Largest in ns.
    pub max_ns: u64,
    /// Mean in ns.
    pub mean_ns: f64,
    /// CPU of all gateways per packet that arrived, in ns.
    pub cpu_ns_per_packet: f64,
    /// The most that the sender was behind its schedule in this trial, in ns: delay of the measurement itself.
    pub sender_behind_max_ns: u64,
    /// All delays, for percentile files.
    #[serde(skip)]
    pub histogram_ns: Histogram<u64>,
}

/// One step of the loss curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CurvePoint {
    /// Packets per second sent.
    pub offered_pps: f64,
    /// Packets per second that arrived.
    pub received_pps: f64,
    /// Share lost.
    pub loss: f64,
}

/// What a program's gateways counted, all sizes together.
#[derive(Clone, Debug, Serialize)]
pub struct Balance {
    /// The counters.
    pub packets: Packets,
    /// Whether every gateway, and the sum, accounts for every packet.
    pub balanced: bool,
    /// The offload level.
    pub offloads: String,
    /// Workers per gateway.
    pub workers: u32,
}

impl ThroughputReport {
    /// Whether every gateway that reports accounts for every packet.
    pub fn is_balanced(&self) -> bool {
        self.balance.values().all(|balance| balance.balanced)
    }

    fn result_line(&self) -> String {
        let mut words = Vec::new();
        let ours = self.rows.iter().filter(|row| row.name == "patronus");
        for row in ours {
            let size = row.size.to_ascii_lowercase();
            match &row.ndr {
                Some(ndr) => words.push(format!(
                    "ndr_{size}_mpps={:.4} ndr_{size}_gbps={:.3}",
                    ndr.pps / 1e6,
                    ndr.gbps
                )),
                None => words.push(format!("ndr_{size}_mpps=none")),
            }
        }
        let verdict = if self.is_balanced() { "pass" } else { "fail" };
        words.push(format!("verdict={verdict}"));
        format!("RESULT    {}", words.join(" "))
    }
}

impl Row {
    pub(super) fn in_words(&self) -> String {
        match (&self.ndr, self.pdr_pps) {
            (Some(ndr), _) => format!(
                "no drop up to {:.0} kpps, {:.2} Gbit/s",
                ndr.pps / 1e3,
                ndr.gbps
            ),
            (None, Some(pps)) => {
                format!(
                    "some loss at every rate, at most 0.5 % up to {:.0} kpps",
                    pps / 1e3
                )
            }
            (None, None) => "more than 0.5 % lost at every rate".to_owned(),
        }
    }
}

impl Ndr {
    /// Of the searches that found a rate; `None` where none did.
    pub(super) fn of(answers: &[Answer], mix: &Mix) -> Option<Self> {
        let mut rates: Vec<f64> = answers
            .iter()
            .filter_map(|answer| answer.rate_pps)
            .collect();
        rates.sort_by(f64::total_cmp);
        // The lower of the two in the middle: a rate that was found, not one between two.
        let pps = *rates.get(rates.len().checked_sub(1)? / 2)?;
        Some(Self {
            pps,
            gbps: gbps(pps, mix),
            pps_min: *rates.first()?,
            pps_max: *rates.last()?,
            at_sender_limit: answers
                .iter()
                .any(|answer| answer.at_ceiling && answer.rate_pps == Some(pps)),
            is_precise: answers.iter().all(|answer| answer.is_precise),
            searches_pps: rates,
        })
    }

    /// Half the range of the searches as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.pps_max - self.pps_min) / 2.0 / self.pps
    }
}

impl Delay {
    pub(super) fn of(trial: &Trial, cpu_seconds: f64) -> Self {
        let delay = &trial.delay_ns;
        Self {
            load_pps: trial.offered_pps(),
            loss: trial.loss(),
            p50_ns: delay.value_at_quantile(0.5),
            p99_ns: delay.value_at_quantile(0.99),
            p999_ns: delay.value_at_quantile(0.999),
            max_ns: delay.max(),
            mean_ns: delay.mean(),
            cpu_ns_per_packet: cpu_seconds * 1e9 / trial.received as f64,
            sender_behind_max_ns: trial.behind_max.as_nanos() as u64,
            histogram_ns: delay.clone(),
        }
    }
}

impl CurvePoint {
    pub(super) fn of(trial: &Trial) -> Self {
        Self {
            offered_pps: trial.offered_pps(),
            received_pps: trial.received_pps(),
            loss: trial.loss(),
        }
    }
}

impl Balance {
    pub(super) fn of(totals: Totals) -> Self {
        Self {
            packets: totals.packets,
            balanced: totals.balanced,
            offloads: totals.offloads,
            workers: totals.workers,
        }
    }
}

pub(super) fn note(quick: bool, full: bool) -> String {
    let length = match (quick, full) {
        (true, _) => return "not a measurement: --quick only shows that the tool works".to_owned(),
        (false, true) => "trials as long as RFC 2544 asks, one for the delay where it asks twenty",
        (false, false) => {
            "RFC 2544 asks 60 s trials, and 20 of 120 s for latency; this is a short run (--full)"
        }
    };
    format!(
        "{length}. One host: generator, receiver and both gateways share its cores, veth instead of NICs, no \
         hardware offload. A rate marked > met the sender's own limit"
    )
}

/// The header, one table per program, at most 80 columns, and the line for scripts.
impl fmt::Display for ThroughputReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (env, method) = (&self.env, &self.method);
        writeln!(
            f,
            "patronus bench throughput\nhost      {} CPUs, {}, Linux {}",
            env.cpus, env.cpu_model, env.kernel
        )?;
        writeln!(
            f,
            "lab       host - veth - gateway = UDP over veth = gateway - veth - host, one way"
        )?;
        writeln!(
            f,
            "method    open loop · {} search(es) in trials of {} s · NDR loss 0 · PDR loss {} % · step {} %",
            method.searches,
            method.trial_seconds,
            method.pdr_loss_max * 100.0,
            method.precision * 100.0
        )?;
        for (name, balance) in &self.balance {
            writeln!(
                f,
                "config    {name}: {} worker(s) a gateway, offloads {}",
                balance.workers, balance.offloads
            )?;
        }
        for (name, version) in &env.versions {
            writeln!(f, "program   {name}: {version}")?;
        }
        for sender in &self.sender {
            writeln!(
                f,
                "sender    {:>4}: {:.3} Mpps, {:.3} Gbit/s without gateways",
                sender.size,
                sender.pps / 1e6,
                sender.gbps
            )?;
        }
        writeln!(f, "note      {}", self.note)?;
        let mut names: Vec<&str> = self.rows.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.table(f, name)?;
        }
        for (name, how) in &self.absent {
            writeln!(f, "\nabsent    {name}: {how}")?;
        }
        writeln!(f, "\n{}", self.result_line())
    }
}

impl ThroughputReport {
    fn table(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let rows = || self.rows.iter().filter(|row| row.name == name);
        let load = format!(
            "delay at {:.0} % of NDR, µs",
            self.method.delay_load * 100.0
        );
        writeln!(
            f,
            "\n {name}\n {:>5} │ {:<23} │ {:>6} │ {load:<29} │ {:>4}",
            "inner", "NDR, no loss", "PDR", "CPU"
        )?;
        writeln!(
            f,
            " {:>5} │ {:>7} {:>7} {:>7} │ {:>6} │ {:>6} {:>7} {:>7} {:>6} │ {:>4}",
            "bytes", "Mpps", "Gbit/s", "spread", "Mpps", "p50", "p99", "p99.9", "max", "µs/p"
        )?;
        for row in rows() {
            let ndr = match &row.ndr {
                None => format!("{:>7} {:>7} {:>7}", "none", "", ""),
                Some(ndr) => {
                    let mark = if ndr.at_sender_limit { ">" } else { "" };
                    let mpps = format!("{mark}{:.4}", ndr.pps / 1e6);
                    let spread = format!("±{:.1}%", ndr.spread() * 100.0);
                    format!("{mpps:>7} {:>7.3} {spread:>7}", ndr.gbps)
                }
            };
            let pdr = row
                .pdr_pps
                .map_or("none".to_owned(), |pps| format!("{:.4}", pps / 1e6));
            let delay = row.delay.as_ref().map_or("none".to_owned(), |delay| {
                format!(
                    "{:>6} {:>7} {:>7} {:>6} │ {:>4.1}",
                    us(delay.p50_ns),
                    us(delay.p99_ns),
                    us(delay.p999_ns),
                    us(delay.max_ns),
                    delay.cpu_ns_per_packet / 1e3
                )
            });
            writeln!(f, " {:>5} │ {ndr} │ {pdr:>6} │ {delay}", row.size)?;
        }
        writeln!(f, "\n loss at steps of the offered rate, Mpps: % lost")?;
        for row in rows() {
            let points: Vec<String> = row
                .loss_curve
                .iter()
                .map(|point| format!("{:.3}: {:.2}", point.offered_pps / 1e6, point.loss * 100.0))
                .collect();
            for (number, line) in points.chunks(5).enumerate() {
                let size = if number == 0 { row.size.as_str() } else { "" };
                writeln!(f, " {size:>5} │ {}", line.join("  "))?;
            }
        }
        let overflowed: u64 = rows().map(|row| row.overflowed).sum();
        let reordered: u64 = rows().map(|row| row.reordered).sum();
        writeln!(
            f,
            "\n reordered {reordered}; dropped by the generator's own receiver {overflowed}"
        )?;
        if let Some(Balance {
            packets, balanced, ..
        }) = self.balance.get(name)
        {
            let drops: u64 = packets.drops.values().sum();
            let verdict = if *balanced { "✓" } else { "NOT BALANCED" };
            writeln!(
                f,
                " balance   rx {} = tx {} + consumed {}\n           + waiting {} + drops {drops}  {verdict}",
                packets.origins(),
                packets.tx,
                packets.consumed,
                packets.staged
            )?;
            for (reason, count) in &packets.drops {
                writeln!(f, " dropped   {count:>12}  {reason}")?;
            }
        }
        Ok(())
    }
}

/// Nanoseconds as whole microseconds.
fn us(ns: u64) -> u64 {
    (ns + 500) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::generator::new_histogram;

    fn answer(rate_pps: Option<f64>, at_ceiling: bool) -> Answer {
        Answer {
            rate_pps,
            at_ceiling,
            is_precise: true,
            trials: 5,
        }
    }

    fn row(name: &str, mix: &Mix, answers: &[Answer]) -> Row {
        let ndr = Ndr::of(answers, mix);
        let mut delay_ns = new_histogram();
        for delay in [50_000, 60_000, 99_999_999] {
            delay_ns.record(delay).unwrap();
        }
        let trial = Trial {
            target_pps: 1e6,
            seconds: 1.0,
            sent: 1_000_000,
            received: 999_000,
            reordered: 0,
            behind_max: std::time::Duration::from_micros(300),
            overflowed: 0,
            delay_ns,
        };
        Row {
            name: name.to_owned(),
            size: mix.name.clone(),
            inner_bytes_mean: mix.mean_bytes(),
            pdr_pps: ndr.as_ref().map(|ndr| ndr.pps),
            pdr_gbps: ndr.as_ref().map(|ndr| ndr.gbps),
            delay: ndr.as_ref().map(|_| Delay::of(&trial, 12.5)),
            ndr,
            loss_curve: vec![CurvePoint::of(&trial); 8],
            trials: 20,
            sent: 3,
            lost: 1,
            reordered: 0,
            overflowed: 0,
        }
    }

    fn report(balanced: bool) -> ThroughputReport {
        let (small, imix) = (Mix::fixed(64).unwrap(), Mix::imix());
        let three = [1.1e6, 1.0e6, 1.3e6].map(|rate| answer(Some(rate), true));
        let balance = Balance {
            packets: Packets {
                rx: 123_456_789_012,
                divided: 0,
                tx: 123_456_789_000,
                consumed: 5,
                drops: [("no_route".to_owned(), 7)].into(),
                ..Packets::default()
            },
            balanced,
            offloads: "full".to_owned(),
            workers: 2,
        };
        ThroughputReport {
            note: note(true, false),
            env: Env {
                kernel: "6.18".into(),
                cpus: 2,
                cpu_model: "x".into(),
                congestion_control: "cubic".into(),
                socket_buffer_default_bytes: None,
                socket_buffer_max_bytes: None,
                versions: BTreeMap::new(),
            },
            method: Method {
                trial_seconds: 0.1,
                delay_trial_seconds: 0.2,
                searches: 3,
                precision: 0.02,
                pdr_loss_max: 0.005,
                delay_load: 0.9,
            },
            sender: Vec::new(),
            rows: vec![
                row("patronus", &small, &three),
                row("patronus", &imix, &[answer(None, false)]),
                row("nebula-chacha@4M", &small, &three),
            ],
            balance: BTreeMap::from([("patronus".to_owned(), balance)]),
            absent: BTreeMap::from([("gotatun".into(), "cargo".into())]),
        }
    }

    #[test]
    fn the_rate_is_the_median_of_the_searches_with_their_spread() {
        let ndr = report(true).rows[0].ndr.clone().unwrap();
        assert_eq!((ndr.pps, ndr.pps_min, ndr.pps_max), (1.1e6, 1.0e6, 1.3e6));
        assert!((ndr.spread() - 0.136_363).abs() < 1e-5);
        assert!((ndr.gbps - 1.1e6 * 64.0 * 8e-9).abs() < 1e-9);
        let mix = Mix::fixed(64).unwrap();
        let two = [answer(Some(2.0), false), answer(Some(1.0), false)];
        assert_eq!(Ndr::of(&two, &mix).unwrap().pps, 1.0);
        assert!(Ndr::of(&[], &mix).is_none());
    }

    #[test]
    fn the_tables_fit_eighty_columns_and_mark_the_senders_limit() {
        let text = report(true).to_string();
        let tables = text
            .lines()
            .skip_while(|line| !line.starts_with(" patronus"));
        for line in tables.take_while(|line| !line.starts_with("RESULT")) {
            assert!(
                line.chars().count() <= 80,
                "{}: {line}",
                line.chars().count()
            );
        }
        assert!(
            text.contains(">1.1000") && text.contains(" IMIX │    none"),
            "{text}"
        );
        assert!(text.contains(" dropped              7  no_route"), "{text}");
        assert!(text.contains("not a measurement"));
        assert!(text.contains("absent    gotatun"));
    }

    #[test]
    fn the_last_line_is_for_scripts_and_says_whether_the_packets_add_up() {
        let last = |report: ThroughputReport| report.to_string().lines().last().unwrap().to_owned();
        assert_eq!(
            last(report(true)),
            "RESULT    ndr_64_mpps=1.1000 ndr_64_gbps=0.563 ndr_imix_mpps=none verdict=pass"
        );
        assert!(last(report(false)).ends_with("verdict=fail"));
    }

    #[test]
    fn the_document_has_null_for_what_was_not_found_and_no_histogram() {
        let document = serde_json::to_value(report(true)).unwrap();
        assert!(document["rows"][1]["ndr"].is_null() && document["rows"][1]["delay"].is_null());
        assert_eq!(document["rows"][0]["ndr"]["searches_pps"][2], 1.3e6);
        assert!(document["rows"][0]["delay"]["p999_ns"].is_u64());
        assert!(document["rows"][0]["delay"]["histogram_ns"].is_null());
        assert_eq!(
            document["balance"]["patronus"]["packets"]["drops"]["no_route"],
            7
        );
    }
}
