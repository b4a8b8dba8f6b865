//! What `bench failover` measured, in the report format of all benchmarks, and its targets.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use patronus_bench::Report;
use patronus_bench::report::{
    Check, Column, Distribution, Figure, Kind, Plot, Row, Series, Table, Verdict,
};
use patronus_lab::FailoverReport;
use patronus_lab::failover::{Case, Fault, Trial, Way};

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
        ("packets_per_s", 1000),
        ("drain_packets_per_s", 10_000),
    ] {
        report.method.insert(name.to_owned(), value.into());
    }
    report.notes.extend(notes(measured, quick));
    let mut checks = Vec::new();
    for case in &measured.cases {
        checks.extend(checks_of(case, measured));
        if case.trials.is_empty() {
            continue;
        }
        for (at, way) in WAYS.iter().enumerate() {
            report.rows.push(row_of(case, at, way));
        }
        report.distributions.push(distribution(case)?);
    }
    report.verdict = Verdict::of(checks, !quick);
    report.tables = tables(&report);
    report.plots = vec![gaps(&report)];
    Ok(report)
}

fn notes(measured: &FailoverReport, quick: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !quick && measured.trials < 100 {
        notes.push(format!(
            "{} trials: their 99th percentile is the longest of them",
            measured.trials
        ));
    }
    let has_waves = measured
        .cases
        .iter()
        .any(|case| case.fault.switches_max().is_some());
    if has_waves && measured.wave_seconds < WAVE_FULL_S {
        notes.push(format!(
            "square waves of {} s: their bounds are those of {WAVE_FULL_S} s, so what is within them here need not be \
             there",
            measured.wave_seconds
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
    row
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
    let wanted = if case.fault.switches_max().is_some() {
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
        Fault::Blackhole => at_most("gap_p99_ms", ms(both(gap), 0.99), 300.0),
        Fault::Protect => at_most("gap_max_ms", ms(both(gap), 1.0), 150.0),
        Fault::OneWay => {
            at_most("gap_max_ms", ms(ways(&[0], gap), 1.0), 400.0);
            at_most(
                "switches_back_max",
                percentile(&ways(&[1], |way| way.switches.into()), 1.0),
                1.0,
            );
        }
        Fault::Carrier => at_most("gap_max_ms", ms(both(gap), 1.0), 50.0),
        Fault::Brownout20 => at_most("left_p95_ms", ms(both(bad), 0.95), 2500.0),
        Fault::LatencyStep => at_most("left_p95_ms", ms(both(bad), 0.95), 1500.0),
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
    at_most("not_resumed", sum(|way| u64::from(!way.has_resumed)), 0.0);
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
    vec![
        Table {
            title: "The longest pause between packets, in ms".to_owned(),
            columns: named(vec![
                Column::label("trials", "trials"),
                ms("before", "gap_before"),
                ms("p50", "gap_p50"),
                ms("p90", "gap_p90"),
                ms("p99", "gap_p99"),
                ms("max", "gap_max"),
            ]),
            rows: all(),
        },
        Table {
            title: "Packets and switches, over all trials".to_owned(),
            columns: named(vec![
                count("lost", "lost"),
                count("reord.", "reordered"),
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
                ms("last bad packet", "bad_until"),
                ms("bulk stall", "bulk_stall"),
                ms("after ready", "after_ready"),
            ]),
            rows: all(),
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

fn distribution(case: &Case) -> Result<Distribution> {
    let mut histogram = Histogram::new(3).context("a histogram of three digits")?;
    for way in case.trials.iter().flat_map(|trial| &trial.ways) {
        histogram.saturating_record(way.gap_ns);
    }
    Ok(Distribution {
        name: format!("gap-{}", case.fault.to_string().replace([' ', '/'], "-")),
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
const WAVE_FULL_S: u64 = 600;
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
            cases,
        };
        failover(&measured, false).unwrap()
    }

    fn case(fault: Fault, gaps_ms: &[u64], failed: &[&str]) -> Case {
        Case {
            fault,
            trials: gaps_ms.iter().map(|gap_ms| trial(*gap_ms)).collect(),
            failed: failed.iter().map(|why| (*why).to_owned()).collect(),
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
                .any(|note| note.starts_with("square waves of 60 s"))
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
    fn percentiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        let percentiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(|quantile| percentile(&values, quantile));
        assert_eq!(percentiles, [1.0, 2.0, 4.0, 4.0, 4.0]);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
