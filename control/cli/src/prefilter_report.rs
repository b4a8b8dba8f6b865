//! What `bench prefilter` measured, in the report format of all benchmarks, and its targets.

use anyhow::Result;
use patronus_bench::Report;
use patronus_bench::report::{Check, Column, Figure, Kind, Plot, Row, Series, Table, Verdict};
use patronus_lab::PrefilterReport;
use patronus_lab::prefilter::{Carried, UnderFlood};

use crate::lab_report::{empty, once, place};

/// The report of `bench prefilter`.
///
/// # Errors
/// `/proc` is not there.
pub fn prefilter(measured: &PrefilterReport, quick: bool) -> Result<Report> {
    let mut report = empty("prefilter", NOTE, quick)?;
    report
        .method
        .insert("trials".to_owned(), measured.trials.into());
    report
        .method
        .insert("seconds".to_owned(), measured.seconds.into());
    report.method.insert("sender".to_owned(), SENDER.into());
    let mut checks = Vec::new();
    for cost in &measured.costs {
        let row = Row::default()
            .label("part", "cost")
            .label("program", cost.program)
            .label("class", cost.class)
            .label("verdict", if cost.is_dropped { "drop" } else { "pass" })
            .figure("ns_per_packet", Figure::new("ns", cost.ns.clone()));
        if cost.program == "tc" && cost.class == "data, 1400 B" {
            checks.push(Check::figure(
                "data_ns",
                row.figures["ns_per_packet"].median,
            ));
        }
        report.rows.push(row);
    }
    for drops in &measured.drops {
        let row = Row::default()
            .label("part", "drops")
            .label("flood", drops.flood)
            .label("hook", drops.hook)
            .figure("sent_pps", Figure::new("1/s", drops.sent_pps.clone()))
            .figure("dropped_pps", Figure::new("1/s", drops.dropped_pps.clone()));
        report.rows.push(row);
    }
    let without = measured.carried.first();
    for carried in &measured.carried {
        let ratio = without.map_or_else(Vec::new, |off| ratios(carried, off));
        let row = Row::default()
            .label("part", "carried")
            .label("hook", carried.hook)
            .figure("tcp_gbps", Figure::new("Gbit/s", carried.gbps.clone()));
        let row = with(row, "of_unfiltered", "", &ratio);
        if carried.hook == "tcx" {
            let of_unfiltered = row.figures.get("of_unfiltered");
            checks.extend(of_unfiltered.map(|it| Check::figure("tcx_of_unfiltered", it.median)));
        }
        report.rows.push(row);
    }
    for flood in &measured.floods {
        let row = row_of_flood(flood);
        if let Some(kept) = row.figures.get("kept") {
            let name = format!("kept_{}_{}", flood.flood, flood.filter);
            checks.push(Check::figure(name, kept.median));
        }
        if flood.filter != "off" {
            let name = format!("not_joined_{}", flood.flood);
            checks.push(Check::at_most(name, flood.not_joined as f64, 0.0));
        }
        report.rows.push(row);
    }
    for failover in &measured.failovers {
        let row = Row::default()
            .label("part", "failover")
            .label("filter", failover.filter)
            .figure("false_switches", once("", failover.false_switches.into()))
            .figure("failed", once("", failover.failed.len() as f64));
        let row = with(row, "gap", "ms", &failover.gap_ms);
        if let Some(gap) = row.figures.get("gap") {
            let name = format!("failover_ms_{}", failover.filter);
            checks.push(match failover.filter {
                "off" => Check::figure(name, gap.median),
                _ => Check::at_most(name, gap.median, GAP_MAX_MS),
            });
        }
        report.rows.push(row);
        let failed = failover.failed.iter();
        report.notes.extend(failed.map(|why| {
            format!(
                "a failover with the filter {} was not measured: {why}",
                failover.filter
            )
        }));
    }
    report.verdict = Verdict::of(checks, !quick);
    report.tables = tables(&report);
    report.plots = vec![plot(&report)];
    Ok(report)
}

/// Round by round, for what the machine did meanwhile hit both.
fn ratios(one: &Carried, other: &Carried) -> Vec<f64> {
    let rounds = one.gbps.iter().zip(&other.gbps);
    rounds.map(|(one, other)| one / other).collect()
}

fn row_of_flood(flood: &UnderFlood) -> Row {
    let kept: Vec<f64> = flood
        .during_gbps
        .iter()
        .zip(&flood.before_gbps)
        .map(|(during, before)| during / before)
        .collect();
    let mut row = Row::default()
        .label("part", "flood")
        .label("flood", flood.flood)
        .label("filter", flood.filter)
        .figure("not_joined", once("", flood.not_joined as f64));
    for (name, unit, values) in [
        ("flood_pps", "1/s", &flood.flood_pps),
        ("dropped_pps", "1/s", &flood.dropped_pps),
        ("goodput_before", "Gbit/s", &flood.before_gbps),
        ("goodput_during", "Gbit/s", &flood.during_gbps),
        ("kept", "", &kept),
        ("path_rtt_before", "ms", &flood.rtt_before_ms),
        ("path_rtt_during", "ms", &flood.rtt_during_ms),
        ("path_loss_during", "%", &flood.loss_during_pct),
        ("joined", "ms", &flood.joined_ms),
        ("gateway_cpu", "s", &flood.cpu_s),
    ] {
        row = with(row, name, unit, values);
    }
    row
}

/// The row with a figure, where there is any value.
fn with(row: Row, name: &str, unit: &'static str, values: &[f64]) -> Row {
    match values.is_empty() {
        true => row,
        false => row.figure(name, Figure::new(unit, values.to_vec())),
    }
}

fn tables(report: &Report) -> Vec<Table> {
    let table = |title: &str, part: &str, columns: Vec<Column>| {
        let rows = report.rows.iter().enumerate();
        let rows = rows.filter(|(_, row)| row.is(&[("part", part.into())]));
        Table {
            title: title.to_owned(),
            columns,
            rows: rows.map(|(at, _)| at).collect(),
        }
    };
    vec![
        table(
            "Time of the program per packet",
            "cost",
            vec![
                Column::label("program", "program"),
                Column::label("packets", "class"),
                Column::label("verdict", "verdict"),
                Column::median("ns", "ns_per_packet", 1.0, 0),
                Column::spread("±", "ns_per_packet"),
            ],
        ),
        table(
            "Dropped on one core, which also sends",
            "drops",
            vec![
                Column::label("flood", "flood"),
                Column::label("hook", "hook"),
                Column::median("sent Mpps", "sent_pps", 1e-6, 2),
                Column::median("dropped Mpps", "dropped_pps", 1e-6, 2),
                Column::spread("±", "dropped_pps"),
            ],
        ),
        table(
            "TCP through two gateways, no flood",
            "carried",
            vec![
                Column::label("hook", "hook"),
                Column::median("Gbit/s", "tcp_gbps", 1.0, 2),
                Column::spread("±", "tcp_gbps"),
                Column::median("of unfiltered", "of_unfiltered", 1.0, 2),
                Column::spread("±", "of_unfiltered"),
            ],
        ),
        table(
            "An established peer during a flood",
            "flood",
            vec![
                Column::label("flood", "flood"),
                Column::label("filter", "filter"),
                Column::median("kpps", "flood_pps", 1e-3, 0),
                Column::median("before Gbit/s", "goodput_before", 1.0, 2),
                Column::median("during", "goodput_during", 1.0, 2),
                Column::median("kept %", "kept", 100.0, 0),
                Column::median("CPU s", "gateway_cpu", 1.0, 2),
            ],
        ),
        table(
            "Its path as the gateways measure it, and another peer that comes",
            "flood",
            vec![
                Column::label("flood", "flood"),
                Column::label("filter", "filter"),
                Column::median("RTT ms", "path_rtt_before", 1.0, 1),
                Column::median("during", "path_rtt_during", 1.0, 1),
                Column::median("loss %", "path_loss_during", 1.0, 1),
                Column::median("joined ms", "joined", 1.0, 0),
                Column::median("not joined", "not_joined", 1.0, 0),
            ],
        ),
        table(
            "Failover under junk: the longest pause",
            "failover",
            vec![
                Column::label("filter", "filter"),
                Column::median("ms", "gap", 1.0, 0),
                Column::spread("±", "gap"),
                Column::median("false switches", "false_switches", 1.0, 0),
                Column::median("not measured", "failed", 1.0, 0),
            ],
        ),
    ]
}

/// What is kept under each flood.
fn plot(report: &Report) -> Plot {
    let series = ["off", "tcx"].map(|filter| {
        let rows = report.rows.iter();
        let rows =
            rows.filter(|row| row.is(&[("part", "flood".into()), ("filter", filter.into())]));
        let points = rows.filter_map(|row| {
            let flood = row.labels.get("flood")?.as_str()?.to_owned();
            Some(place(flood, row.figures.get("goodput_during")?))
        });
        Series {
            name: format!("filter {filter}"),
            points: points.collect(),
        }
    });
    Plot {
        name: "goodput".to_owned(),
        title: "Goodput of an established peer during a flood".to_owned(),
        y_title: "Gbit/s".to_owned(),
        kind: Kind::Bars,
        series: series.to_vec(),
        mark: None,
    }
}

const NOTE: &str = "sender, gateways and hosts share the cores: a flood costs a peer what its sending costs too; compare \
                    the rows with and without the filter, which ran in alternating rounds";
const SENDER: &str = "BPF_PROG_TEST_RUN with live frames, straight into the gateway's veth";
/// What a dead path may cost (`bench failover`).
const GAP_MAX_MS: f64 = 300.0;
