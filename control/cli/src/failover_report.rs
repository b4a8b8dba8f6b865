//! What `bench failover` measured, in the report format of all benchmarks, and its targets.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use patronus_bench::Report;
use patronus_bench::report::{
    Check, Column, Distribution, Figure, Kind, Plot, Row, Series, Table, Verdict,
};
use patronus_lab::FailoverReport;
use patronus_lab::failover::{Case, Fault, Trial, Way};
use patronus_lab::machine::Strain;

use crate::lab_report::{empty, once, place};

/// The report of `bench failover`.
///
/// # Errors
/// `/proc` is not there.
pub fn failover(measured: &FailoverReport, quick: bool) -> Result<Report> {
    let mut report = empty("failover", NOTE, quick)?;
    for (name, value) in [
        ("trials", measured.trials as u64),
        ("wave_seconds", measured.wave_seconds),
        ("link_mbps", measured.link_mbps),
        ("parallel", measured.parallel as u64),
        ("packets_per_s", 1000),
        ("drain_packets_per_s", 10_000),
    ] {
        report.method.insert(name.to_owned(), value.into());
    }
    report.notes.extend(notes(measured, quick));
    let mut checks = Vec::new();
    for case in &measured.cases {
        let of_case = checks_of(case, measured);
        let missed = of_case.iter().filter(|check| !check.holds).count();
        checks.extend(of_case);
        if case.trials.is_empty() {
            continue;
        }
        for (at, way) in WAYS.iter().enumerate() {
            let target = if missed == 0 { "met" } else { "MISSED" };
            let row = row_of(case, at, way);
            report.rows.push(row.label("target", target));
            report.distributions.push(distribution(case, at)?);
        }
    }
    report.verdict = Verdict::of(checks, !quick);
    report.tables = tables(&report);
    report.plots = vec![gaps(&report), percentiles(measured)];
    Ok(report)
}

fn notes(measured: &FailoverReport, quick: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if measured.was_stopped {
        notes.push("stopped by a signal: trials that were not done are missing".to_owned());
    }
    if !quick && measured.trials < 100 {
        notes.push(format!(
            "{} trials: their 99th percentile is the longest of them",
            measured.trials
        ));
    }
    let has_long = measured.cases.iter().any(|case| case.fault.is_long());
    if has_long && measured.wave_seconds < WAVE_FULL_S {
        notes.push(format!(
            "square waves and busy of {} s: their bounds are those of {WAVE_FULL_S} s, so what is within them here need \
             not be there",
            measured.wave_seconds
        ));
    }
    if measured.parallel > 1 {
        notes.push(format!(
            "{} labs side by side shared the cores: `core wait` is the share of a trial in which some thread of the \
             machine was ready and had no core",
            measured.parallel
        ));
    }
    if measured.cases.iter().all(|case| {
        case.trials
            .iter()
            .all(|trial| trial.ways.iter().all(|way| way.starved.is_none()))
    }) {
        notes.push("the gateways do not say how often their probers were late".to_owned());
    }
    for case in &measured.cases {
        for why in &case.failed {
            notes.push(format!(
                "{}: a trial could not be measured: {why}",
                case.fault
            ));
        }
    }
    notes
}

fn row_of(case: &Case, at: usize, way: &str) -> Row {
    let of = |value: fn(&Way) -> f64| -> Vec<f64> {
        case.trials
            .iter()
            .map(|trial| value(&trial.ways[at]))
            .collect()
    };
    let gap = of(|way| way.gap_ns as f64);
    let sum = |value: fn(&Way) -> f64| once("", of(value).iter().sum());
    let mut row = Row::default()
        .label("fault", case.fault.to_string())
        .label("way", way)
        .label("trials", case.trials.len())
        .figure("gap_p50", once("ns", percentile(&gap, 0.5)))
        .figure("gap_p90", once("ns", percentile(&gap, 0.9)))
        .figure("gap_p95", once("ns", percentile(&gap, 0.95)))
        .figure("gap_p99", once("ns", percentile(&gap, 0.99)))
        .figure("gap_max", once("ns", percentile(&gap, 1.0)))
        .figure("gap", Figure::new("ns", gap))
        .figure(
            "gap_before",
            Figure::new("ns", of(|way| way.gap_before_ns as f64)),
        )
        .figure(
            "sender_pause",
            Figure::new("ns", of(|way| way.sender_pause_ns as f64)),
        )
        .figure(
            "bad_until",
            Figure::new("ns", of(|way| way.bad_until_ns as f64)),
        )
        .figure("sent", sum(|way| way.sent as f64))
        .figure("lost", sum(|way| way.lost as f64))
        .figure("lost_before", sum(|way| way.lost_before as f64))
        .figure("reordered", sum(|way| way.reordered as f64))
        .figure("reordered_after", sum(|way| way.reordered_after as f64))
        .figure("duplicated", sum(|way| way.duplicated as f64))
        .figure("switches", sum(|way| way.switches.into()))
        .figure("false_switches", sum(|way| way.false_switches.into()))
        .figure(
            "not_resumed",
            sum(|way| f64::from(u8::from(!way.has_resumed))),
        );
    if let Some(starved) = starved(case, at) {
        row = row.figure("starved", once("", starved));
    }
    let first: Vec<f64> = case
        .trials
        .iter()
        .filter_map(|trial| trial.ways[at].first_switch_ns)
        .map(|ns| ns as f64)
        .collect();
    if !first.is_empty() {
        row = row.figure("first_switch", Figure::new("ns", first));
    }
    // What concerns the whole trial stands with the way there.
    let whole = [
        ("bulk_stall", trials_of(case, |trial| trial.bulk_stall_ns)),
        ("after_ready", trials_of(case, |trial| trial.after_ready_ns)),
        (
            "size_noticed",
            trials_of(case, |trial| trial.size_noticed_ns),
        ),
        (
            "switches_between",
            trials_of(case, |trial| Some(trial.switches_between.into())),
        ),
    ];
    for (name, values) in whole {
        if at == 0 && !values.is_empty() {
            let unit = if name == "switches_between" { "" } else { "ns" };
            row = row.figure(name, Figure::new(unit, values));
        }
    }
    if at == 0 {
        for (name, unit, values) in whole_in_floats(case) {
            if !values.is_empty() {
                row = row.figure(name, Figure::new(unit, values));
            }
        }
    }
    // Of the machine, the same both ways: a table of one way is whole.
    type Reading = fn(&Strain) -> Option<f64>;
    let strains: [(&str, Reading); 3] = [
        ("cpu_busy", |strain| strain.busy),
        ("cpu_stolen", |strain| strain.stolen),
        ("cpu_wait", |strain| strain.waited),
    ];
    for (name, value) in strains {
        let trials = case.trials.iter();
        let values: Vec<f64> = trials.filter_map(|trial| value(&trial.strain)).collect();
        if !values.is_empty() {
            row = row.figure(name, Figure::new("", values));
        }
    }
    row
}

/// What concerns whole trials and is no count of nanoseconds: name, unit, values.
fn whole_in_floats(case: &Case) -> [(&'static str, &'static str, Vec<f64>); 3] {
    let rates = || case.trials.iter().filter_map(|trial| trial.throughput_bps);
    [
        ("free_bps", "bit/s", rates().map(|[free, _]| free).collect()),
        (
            "pinned_bps",
            "bit/s",
            rates().map(|[_, pinned]| pinned).collect(),
        ),
        ("free_of_pinned", "", shares_of_pinned(case)),
    ]
}

/// What the bulk flow carried where the gateways chose, as a share of what it carried on one path.
fn shares_of_pinned(case: &Case) -> Vec<f64> {
    let rates = case.trials.iter().filter_map(|trial| trial.throughput_bps);
    rates
        .filter(|[_, pinned]| *pinned > 0.0)
        .map(|[free, pinned]| free / pinned)
        .collect()
}

fn trials_of(case: &Case, value: fn(&Trial) -> Option<u64>) -> Vec<f64> {
    let values = case.trials.iter().filter_map(value);
    values.map(|value| value as f64).collect()
}

/// Of all trials, or `None` where a gateway did not say once.
fn starved(case: &Case, at: usize) -> Option<f64> {
    let counts = case.trials.iter().map(|trial| trial.ways[at].starved);
    counts.sum::<Option<u64>>().map(|sum| sum as f64)
}

fn checks_of(case: &Case, measured: &FailoverReport) -> Vec<Check> {
    let name = case.fault.to_string().replace([' ', '/'], "_");
    let mut checks = Vec::new();
    let wanted = if case.fault.is_long() {
        1
    } else {
        measured.trials
    };
    if case.trials.len() < wanted {
        let count = case.trials.len() as f64;
        checks.push(Check::at_least(
            format!("{name}_trials_measured"),
            count,
            wanted as f64,
        ));
    }
    if case.trials.is_empty() {
        return checks;
    }
    let ways = |ways: &[usize], value: fn(&Way) -> u64| -> Vec<f64> {
        let all = case.trials.iter();
        all.flat_map(|trial| ways.iter().map(|at| value(&trial.ways[*at]) as f64))
            .collect()
    };
    let both = |value| ways(&[0, 1], value);
    let sum = |value| both(value).iter().sum::<f64>();
    let ms = |values: Vec<f64>, quantile| percentile(&values, quantile) * 1e-6;
    let gap: fn(&Way) -> u64 = |way| way.gap_ns;
    let bad: fn(&Way) -> u64 = |way| way.bad_until_ns;
    let mut at_most = |what: &str, value: f64, target: f64| {
        checks.push(Check::at_most(format!("{name}_{what}"), value, target));
    };
    match case.fault {
        Fault::Blackhole => {
            at_most("gap_p50_ms", ms(both(gap), 0.5), 260.0);
            at_most("gap_p99_ms", ms(both(gap), 0.99), 300.0);
            at_most("gap_max_ms", ms(both(gap), 1.0), 400.0);
            at_most("reordered_after", sum(|way| way.reordered_after), 0.0);
        }
        Fault::BlackholeBusy => at_most("gap_max_ms", ms(both(gap), 1.0), 1000.0),
        Fault::Protect => at_most("gap_max_ms", ms(both(gap), 1.0), 150.0),
        Fault::OneWay => {
            at_most("gap_max_ms", ms(ways(&[0], gap), 1.0), 400.0);
            at_most(
                "switches_back_max",
                percentile(&ways(&[1], |way| way.switches.into()), 1.0),
                1.0,
            );
        }
        Fault::Carrier | Fault::Address => at_most("gap_max_ms", ms(both(gap), 1.0), 50.0),
        Fault::Brownout20 => at_most("left_p95_ms", ms(both(bad), 0.95), 2500.0),
        Fault::Brownout20Bulk | Fault::Busy => {
            at_most("switches", sum(|way| way.switches.into()), 0.0);
        }
        Fault::LatencyStep | Fault::Jitter60 => {
            at_most("left_p95_ms", ms(both(bad), 0.95), 1500.0);
        }
        Fault::SizeDrop => at_most("left_max_ms", ms(both(bad), 1.0), 3000.0),
        Fault::Bufferbloat => {
            let per_minute = case.trials.iter().flat_map(|trial| {
                let minutes = trial.lasted_ns as f64 / MINUTE_NS;
                let ways = trial.ways.iter();
                ways.map(move |way| f64::from(way.switches) / minutes.max(1.0))
            });
            let most = per_minute.fold(0.0, f64::max);
            at_most("switches_per_minute_max", most, 1.0);
        }
        Fault::SquareWave(..) => {
            let switches = percentile(&both(|way| way.switches.into()), 1.0);
            let bound = case.fault.switches_max().unwrap_or_default();
            at_most("switches", switches, bound.into());
        }
        Fault::Drain => {
            at_most("lost", sum(|way| way.lost + way.lost_before), 0.0);
            at_most("reordered", sum(|way| way.reordered), 0.0);
        }
        Fault::PeerRestart => {
            let after = trials_of(case, |trial| trial.after_ready_ns);
            at_most("after_ready_max_ms", ms(after, 1.0), 1000.0);
        }
        Fault::MtuHole => {
            let stalls = trials_of(case, |trial| trial.bulk_stall_ns);
            at_most("bulk_stall_max_ms", ms(stalls, 1.0), 1000.0);
            let unnoticed = case.trials.iter().filter(|trial| {
                trial
                    .size_noticed_ns
                    .is_none_or(|ns| ns > SIZE_NOTICED_MAX_NS)
            });
            at_most("not_noticed_in_10_s", unnoticed.count() as f64, 0.0);
        }
    }
    at_most("duplicated", sum(|way| way.duplicated), 0.0);
    at_most("false_switches", sum(|way| way.false_switches.into()), 0.0);
    // A bulk class stays where a fifth is lost: it has nothing to come back from.
    if case.fault != Fault::Brownout20Bulk {
        at_most("not_resumed", sum(|way| u64::from(!way.has_resumed)), 0.0);
    }
    match case.fault {
        // How many packets none came twice of.
        Fault::Protect => checks.push(Check::figure(
            format!("{name}_packets"),
            sum(|way| way.sent),
        )),
        Fault::Bufferbloat => {
            let share = percentile(&shares_of_pinned(case), 0.5);
            checks.push(Check::at_least(
                format!("{name}_free_of_pinned"),
                share,
                0.95,
            ));
        }
        _ => {}
    }
    checks
}

fn tables(report: &Report) -> Vec<Table> {
    let all = || (0..report.rows.len()).collect();
    let named = |mut columns: Vec<Column>| {
        columns.insert(0, Column::label("way", "way"));
        columns.insert(0, Column::label("fault", "fault"));
        columns
    };
    let ms = |title: &str, figure: &str| Column::median(title, figure, 1e-6, 0);
    let count = |title: &str, figure: &str| Column::median(title, figure, 1.0, 0);
    let share = |title: &str, figure: &str| Column::median(title, figure, 100.0, 0);
    vec![
        Table {
            title: "The longest pause between packets, in ms".to_owned(),
            columns: named(vec![
                Column::label("trials", "trials"),
                ms("before", "gap_before"),
                ms("p50", "gap_p50"),
                ms("p95", "gap_p95"),
                ms("p99", "gap_p99"),
                ms("max", "gap_max"),
                Column::label("targets", "target"),
            ]),
            rows: all(),
        },
        Table {
            title: "Packets and switches, over all trials; after: out of order on the new path"
                .to_owned(),
            columns: named(vec![
                count("lost", "lost"),
                count("reord.", "reordered"),
                count("after", "reordered_after"),
                count("twice", "duplicated"),
                count("switches", "switches"),
                count("false", "false_switches"),
                count("starved", "starved"),
            ]),
            rows: all(),
        },
        Table {
            title: "Until the class had left, and what it did to others; medians in ms".to_owned(),
            columns: named(vec![
                ms("first switch", "first_switch"),
                ms("last bad", "bad_until"),
                ms("bulk stall", "bulk_stall"),
                ms("after ready", "after_ready"),
            ]),
            rows: all(),
        },
        Table {
            title: "The machine during the trials; medians in %".to_owned(),
            columns: vec![
                Column::label("fault", "fault"),
                Column::label("trials", "trials"),
                share("busy", "cpu_busy"),
                share("stolen", "cpu_stolen"),
                share("core wait", "cpu_wait"),
                share("free/pinned", "free_of_pinned"),
            ],
            rows: (0..report.rows.len()).step_by(WAYS.len()).collect(),
        },
    ]
}

fn gaps(report: &Report) -> Plot {
    let series = WAYS.map(|way| Series {
        name: way.to_owned(),
        points: report
            .rows
            .iter()
            .filter(|row| row.is(&[("way", way.into())]))
            .filter_map(|row| {
                let fault = row.labels.get("fault")?.as_str()?.to_owned();
                let gap = row.figures.get("gap")?;
                let mut point = place(fault, gap);
                for value in [&mut point.y, &mut point.min, &mut point.max] {
                    *value *= 1e-6;
                }
                Some(point)
            })
            .collect(),
    });
    Plot {
        name: "gaps".to_owned(),
        title: "The longest pause between packets: median, least and longest trial".to_owned(),
        y_title: "ms".to_owned(),
        kind: Kind::Bars,
        series: series.to_vec(),
        mark: Some((300.0, "300 ms".to_owned())),
    }
}

/// Which share of all trials, both ways, had no longer pause.
fn percentiles(measured: &FailoverReport) -> Plot {
    let cases = measured.cases.iter().filter(|case| case.trials.len() > 1);
    let series = cases.map(|case| {
        let gaps: Vec<f64> = case
            .trials
            .iter()
            .flat_map(|trial| trial.ways.map(|way| way.gap_ns as f64 * 1e-6))
            .collect();
        let point = |(name, quantile): (&str, f64)| {
            place(name.to_owned(), &once("ms", percentile(&gaps, quantile)))
        };
        Series {
            name: case.fault.to_string(),
            points: QUANTILES.map(point).to_vec(),
        }
    });
    Plot {
        name: "percentiles".to_owned(),
        title: "The longest pause between packets, by percentile of the trials".to_owned(),
        y_title: "ms".to_owned(),
        kind: Kind::Lines,
        series: series.collect(),
        mark: Some((300.0, "300 ms".to_owned())),
    }
}

fn distribution(case: &Case, at: usize) -> Result<Distribution> {
    let mut histogram = Histogram::new(3).context("a histogram of three digits")?;
    for trial in &case.trials {
        histogram.saturating_record(trial.ways[at].gap_ns);
    }
    let fault = case.fault.to_string().replace([' ', '/'], "-");
    Ok(Distribution {
        name: format!("gap-{fault}-{}", ["there", "back"][at]),
        unit: "ns",
        scale: 1.0,
        histogram,
    })
}

/// The value that this share of all values does not exceed (nearest rank); 0 of none.
fn percentile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    let at = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

const WAYS: [&str; 2] = ["1->2", "2->1"];
const NOTE: &str = "a gap is the longest time without an arrival, by the receiving kernel's clock, with one packet sent \
                    per millisecond each way; where a bulk TCP flow fills the link, its queue of 20 ms is part of it";
const QUANTILES: [(&str, f64); 7] = [
    ("0", 0.0),
    ("50", 0.5),
    ("75", 0.75),
    ("90", 0.9),
    ("95", 0.95),
    ("99", 0.99),
    ("100", 1.0),
];
const WAVE_FULL_S: u64 = 600;
const MINUTE_NS: f64 = 60e9;
const SIZE_NOTICED_MAX_NS: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(gap_ms: u64) -> Trial {
        let way = Way {
            gap_ns: gap_ms * 1_000_000,
            sent: 4000,
            lost: gap_ms,
            switches: 1,
            has_resumed: true,
            starved: Some(2),
            ..Way::default()
        };
        Trial {
            ways: [way; 2],
            bulk_stall_ns: Some(900_000_000),
            after_ready_ns: None,
            size_noticed_ns: None,
            throughput_bps: None,
            lasted_ns: 1_000_000_000,
            strain: Strain {
                busy: Some(0.5),
                stolen: None,
                waited: Some(0.25),
            },
            lane: 0,
            switches_between: 0,
            timeline: Vec::new(),
            pair_before: "1a-2a".to_owned(),
            pair_after: Some("1b-2a".to_owned()),
        }
    }

    fn report(cases: Vec<Case>) -> Report {
        let measured = FailoverReport {
            trials: 2,
            wave_seconds: 60,
            link_mbps: 200,
            parallel: 4,
            was_stopped: false,
            cases,
        };
        failover(&measured, false).unwrap()
    }

    fn case(fault: Fault, gaps_ms: &[u64], failed: &[&str]) -> Case {
        Case {
            fault,
            trials: gaps_ms.iter().map(|gap_ms| trial(*gap_ms)).collect(),
            failed: failed.iter().map(|why| (*why).to_owned()).collect(),
            strain: Strain::default(),
        }
    }

    #[test]
    fn the_report_fits_a_terminal_and_names_each_fault_and_way() {
        let cases = Fault::ALL.map(|fault| case(fault, &[228, 231], &[]));
        let text = report(cases.to_vec()).to_text();
        for line in text.lines().filter(|line| !line.starts_with("RESULT")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for fault in Fault::ALL {
            assert!(
                text.matches(&fault.to_string()).count() >= 6,
                "{fault}: {text}"
            );
        }
        assert!(text.contains("blackhole_gap_p99_ms = 231"), "{text}");
    }

    #[test]
    fn a_target_that_is_missed_is_called_so() {
        let report = report(vec![case(Fault::Blackhole, &[228, 301], &[])]);
        let missed: Vec<_> = report
            .verdict
            .checks
            .iter()
            .filter(|check| !check.holds)
            .collect();
        assert_eq!(missed.len(), 1);
        assert_eq!(missed[0].name, "blackhole_gap_p99_ms");
    }

    #[test]
    fn what_could_not_be_measured_is_said_and_misses() {
        let report = report(vec![case(Fault::Drain, &[], &["no way out"])]);
        assert!(report.rows.is_empty());
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.contains("drain") && note.contains("no way out"))
        );
        let check = &report.verdict.checks[0];
        assert_eq!(
            (check.name.as_str(), check.holds),
            ("drain_trials_measured", false)
        );
    }

    #[test]
    fn short_waves_are_called_short() {
        let report = report(vec![case(Fault::SquareWave(5, 5), &[100], &[])]);
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.starts_with("square waves and busy of 60 s"))
        );
        let check = |name: &str| {
            report
                .verdict
                .checks
                .iter()
                .find(|check| check.name == name)
        };
        assert_eq!(
            check("square_wave_5_5_switches").unwrap().at_most,
            Some(1.0)
        );
    }

    #[test]
    fn a_run_that_was_stopped_says_so_and_misses_what_it_did_not_measure() {
        let measured = FailoverReport {
            trials: 2,
            wave_seconds: 600,
            link_mbps: 200,
            parallel: 1,
            was_stopped: true,
            cases: vec![case(Fault::Carrier, &[7], &[])],
        };
        let report = failover(&measured, false).unwrap();
        assert!(report.notes.iter().any(|note| note.starts_with("stopped")));
        assert!(!check_of(&report, "carrier_trials_measured").holds);
    }

    fn check_of<'a>(report: &'a Report, name: &str) -> &'a Check {
        let mut checks = report.verdict.checks.iter();
        checks.find(|check| check.name == name).unwrap()
    }

    #[test]
    fn what_the_machine_had_to_do_stands_beside_the_gaps() {
        let report = report(vec![case(Fault::Blackhole, &[228, 240], &[])]);
        let row = &report.rows[1];
        assert_eq!(row.figures["cpu_busy"].trials, [0.5, 0.5]);
        assert_eq!(row.figures["cpu_wait"].median, 0.25);
        // What the kernel does not say has no figure.
        assert!(!row.figures.contains_key("cpu_stolen"));
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.starts_with("4 labs side by side"))
        );
        assert_eq!(row.labels["target"], "met");
        let names = report.distributions.iter().map(|it| it.name.as_str());
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["gap-blackhole-there", "gap-blackhole-back"]
        );
        let plot = report.plots.iter().find(|plot| plot.name == "percentiles");
        assert_eq!(plot.unwrap().series[0].points.len(), 7);
    }

    #[test]
    fn a_busy_machine_may_take_a_second_and_an_idle_one_may_not() {
        let busy = case(Fault::BlackholeBusy, &[228, 900], &[]);
        let idle = case(Fault::Blackhole, &[228, 900], &[]);
        let report = report(vec![busy, idle]);
        assert!(check_of(&report, "blackhole_busy_gap_max_ms").holds);
        assert!(!check_of(&report, "blackhole_gap_max_ms").holds);
        assert_eq!(report.rows[0].labels["target"], "met");
        assert_eq!(report.rows[2].labels["target"], "MISSED");
    }

    #[test]
    fn a_class_that_fills_its_path_is_held_against_a_pinned_one() {
        let mut case = case(Fault::Bufferbloat, &[5, 5, 5], &[]);
        for (trial, rates) in case
            .trials
            .iter_mut()
            .zip([[9.0, 10.0], [10.0, 10.0], [9.4, 10.0]])
        {
            trial.throughput_bps = Some(rates);
            trial.lasted_ns = 120_000_000_000;
            trial.ways[1].switches = 3;
        }
        let report = report(vec![case]);
        let share = check_of(&report, "bufferbloat_free_of_pinned");
        assert!((share.value - 0.94).abs() < 1e-9 && !share.holds);
        // Three in two minutes.
        let switches = check_of(&report, "bufferbloat_switches_per_minute_max");
        assert_eq!((switches.value, switches.holds), (1.5, false));
    }

    #[test]
    fn a_bulk_class_has_to_stay_and_need_not_come_back() {
        let mut case = case(Fault::Brownout20Bulk, &[5, 5], &[]);
        for way in case.trials.iter_mut().flat_map(|trial| &mut trial.ways) {
            (way.has_resumed, way.switches) = (false, 0);
        }
        let stays = report(vec![case.clone()]);
        let missed = stays.verdict.checks.iter().filter(|check| !check.holds);
        assert_eq!(
            missed.map(|check| check.name.as_str()).collect::<Vec<_>>(),
            [""; 0]
        );
        case.trials[0].ways[0].switches = 1;
        let moves = report(vec![case]);
        assert!(!check_of(&moves, "brownout_20_bulk_switches").holds);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        let percentiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(|quantile| percentile(&values, quantile));
        assert_eq!(percentiles, [1.0, 2.0, 4.0, 4.0, 4.0]);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
