//! What the lab measured, in the report format of all benchmarks: for `--out DIR`.

use anyhow::Result;
use patronus_bench::Report;
use patronus_bench::report::{
    Check, Column, Distribution, Env, Figure, Kind, Plot, Point, Row, SCHEMA, Series, Table,
    Verdict,
};
use patronus_lab::compare::Metric;
use patronus_lab::throughput::Delay;
use patronus_lab::{CompareReport, HandshakesReport, ThroughputReport};

/// The report of `bench throughput`.
///
/// # Errors
/// `/proc` is not there.
pub fn throughput(measured: &ThroughputReport, quick: bool) -> Result<Report> {
    let mut report = empty("throughput", &measured.note, quick)?;
    let method = &measured.method;
    for (name, value) in [
        ("trial_seconds", method.trial_seconds),
        ("delay_trial_seconds", method.delay_trial_seconds),
        ("precision", method.precision),
        ("pdr_loss_max", method.pdr_loss_max),
        ("delay_load", method.delay_load),
    ] {
        report.method.insert(name.to_owned(), value.into());
    }
    report
        .method
        .insert("searches".to_owned(), method.searches.into());
    for sender in &measured.sender {
        let row = Row::default()
            .label("program", "sender alone")
            .label("size", sender.size.clone())
            .figure("ndr_pps", once("1/s", sender.pps))
            .figure("ndr_gbps", once("Gbit/s", sender.gbps));
        report.rows.push(row);
    }
    let mut checks = Vec::new();
    for case in &measured.rows {
        let mut row = Row::default()
            .label("program", case.name.clone())
            .label("size", case.size.clone());
        if let Some(ndr) = &case.ndr {
            let to_gbps = ndr.gbps / ndr.pps;
            let gbps = ndr.searches_pps.iter().map(|pps| pps * to_gbps).collect();
            row = row
                .figure("ndr_pps", Figure::new("1/s", ndr.searches_pps.clone()))
                .figure("ndr_gbps", Figure::new("Gbit/s", gbps));
            if case.name == "patronus" {
                let name = format!("ndr_{}_gbps", case.size.to_ascii_lowercase());
                checks.push(Check::figure(name, ndr.gbps));
            }
        }
        if let Some(pps) = case.pdr_pps {
            row = row.figure("pdr_pps", once("1/s", pps));
        }
        if let Some(delay) = &case.delay {
            row = with_delay(row, delay);
            let name = format!("delay-{}-{}", case.name, case.size.to_ascii_lowercase());
            report.distributions.push(Distribution {
                name,
                unit: "ns",
                scale: 1.0,
                histogram: delay.histogram_ns.clone(),
            });
        }
        report.rows.push(row);
    }
    for case in &measured.rows {
        for point in &case.loss_curve {
            let row = Row::default()
                .label("program", case.name.clone())
                .label("size", case.size.clone())
                .label("offered_pps", point.offered_pps as u64)
                .figure("loss", once("", point.loss))
                .figure("received_pps", once("1/s", point.received_pps));
            report.rows.push(row);
        }
    }
    report.verdict = Verdict::of(checks, !quick);
    report.tables = throughput_tables(&report);
    report.plots = vec![
        bars(&report, "throughput", "No-drop rate", "ndr_gbps", "Gbit/s"),
        bars(
            &report,
            "delay",
            "99th percentile of the delay",
            "delay_p99",
            "ns",
        ),
        loss_lines(measured),
    ];
    Ok(report)
}

fn with_delay(row: Row, delay: &Delay) -> Row {
    row.figure("delay_load_pps", once("1/s", delay.load_pps))
        .figure("delay_p50", once("ns", delay.p50_ns as f64))
        .figure("delay_p99", once("ns", delay.p99_ns as f64))
        .figure("delay_p999", once("ns", delay.p999_ns as f64))
        .figure("delay_max", once("ns", delay.max_ns as f64))
        .figure("cpu_per_packet", once("ns", delay.cpu_ns_per_packet))
}

fn throughput_tables(report: &Report) -> Vec<Table> {
    let places = |wanted: fn(&Row) -> bool| {
        let rows = report.rows.iter().enumerate();
        rows.filter(|(_, row)| wanted(row))
            .map(|(at, _)| at)
            .collect()
    };
    vec![
        Table {
            title: "No-drop rate, rate at the loss allowed, delay under load".to_owned(),
            columns: vec![
                Column::label("program", "program"),
                Column::label("inner", "size"),
                Column::median("NDR Mpps", "ndr_pps", 1e-6, 4),
                Column::median("Gbit/s", "ndr_gbps", 1.0, 3),
                Column::spread("±", "ndr_pps"),
                Column::median("PDR Mpps", "pdr_pps", 1e-6, 4),
                Column::median("p50 µs", "delay_p50", 1e-3, 0),
                Column::median("p99 µs", "delay_p99", 1e-3, 0),
                Column::median("p99.9 µs", "delay_p999", 1e-3, 0),
                Column::median("CPU µs", "cpu_per_packet", 1e-3, 1),
            ],
            rows: places(|row| !row.figures.contains_key("loss")),
        },
        Table {
            title: "Loss at steps of the offered rate".to_owned(),
            columns: vec![
                Column::label("program", "program"),
                Column::label("inner", "size"),
                Column::label("offered pps", "offered_pps"),
                Column::median("received pps", "received_pps", 1.0, 0),
                Column::median("lost %", "loss", 100.0, 3),
            ],
            rows: places(|row| row.figures.contains_key("loss")),
        },
    ]
}

fn loss_lines(measured: &ThroughputReport) -> Plot {
    let series = measured.rows.iter().map(|case| Series {
        name: format!("{} {}", case.name, case.size),
        points: case
            .loss_curve
            .iter()
            .map(|point| {
                let x = format!("{:.0}", point.offered_pps / 1e3);
                place(x, &once("", point.loss * 100.0))
            })
            .collect(),
    });
    Plot {
        name: "loss".to_owned(),
        title: "Loss by offered rate in kpps".to_owned(),
        y_title: "%".to_owned(),
        kind: Kind::Lines,
        series: series.collect(),
        mark: None,
    }
}

/// The report of `bench handshakes`.
///
/// # Errors
/// `/proc` is not there.
pub fn handshakes(measured: &HandshakesReport, quick: bool) -> Result<Report> {
    let mut report = empty("handshakes", &measured.note, quick)?;
    let rate = &measured.rate;
    report
        .method
        .insert("seconds".to_owned(), measured.seconds.into());
    report
        .method
        .insert("initiators".to_owned(), rate.initiators.into());
    let handshakes = Figure::new("1/s", rate.rounds_per_s.clone());
    report.rows.push(
        Row::default()
            .label("case", "handshakes")
            .figure("handshakes_per_s", handshakes)
            .figure("cpu_per_handshake", once("µs", rate.cpu_us_per_handshake)),
    );
    let mut checks = vec![Check::figure("handshakes_per_s", rate.handshakes_per_s)];
    for flood in &measured.floods {
        let mut row = Row::default()
            .label("case", flood.kind.title())
            .figure("flood_pps", once("1/s", flood.flood_pps))
            .figure("goodput_before", once("Gbit/s", flood.goodput_before_gbps))
            .figure("goodput_during", once("Gbit/s", flood.goodput_during_gbps))
            .figure("kept", once("", flood.kept()))
            .figure("pings_lost", once("", flood.pings_lost_during as f64))
            .figure("attacked_cpu", once("s", flood.attacked_cpu_seconds));
        for (reason, count) in &flood.packets.drops {
            row = row.figure(&format!("drop_{reason}"), once("", *count as f64));
        }
        report.rows.push(row);
        checks.push(Check::figure(
            format!("kept_{:?}", flood.kind).to_ascii_lowercase(),
            flood.kept(),
        ));
    }
    report.verdict = Verdict::of(checks, !quick);
    report.tables = vec![
        Table {
            title: "Handshakes".to_owned(),
            columns: vec![
                Column::median("per second", "handshakes_per_s", 1.0, 0),
                Column::spread("±", "handshakes_per_s"),
                Column::median("CPU µs each", "cpu_per_handshake", 1.0, 0),
            ],
            rows: vec![0],
        },
        Table {
            title: "An established peer during a flood".to_owned(),
            columns: vec![
                Column::label("flood", "case"),
                Column::median("a second", "flood_pps", 1.0, 0),
                Column::median("before Gbit/s", "goodput_before", 1.0, 2),
                Column::median("during", "goodput_during", 1.0, 2),
                Column::median("kept %", "kept", 100.0, 1),
                Column::median("pings lost", "pings_lost", 1.0, 0),
                Column::median("CPU s", "attacked_cpu", 1.0, 2),
            ],
            rows: (1..report.rows.len()).collect(),
        },
    ];
    Ok(report)
}

/// The report of `bench compare`.
///
/// # Errors
/// `/proc` is not there.
pub fn compare(measured: &CompareReport, quick: bool) -> Result<Report> {
    let mut report = empty("compare", &measured.note, quick)?;
    let method = &mut report.method;
    method.insert("rounds".to_owned(), measured.rounds.into());
    method.insert("seconds".to_owned(), measured.seconds.into());
    let congestion_control = measured.env.congestion_control.clone();
    method.insert("congestion_control".to_owned(), congestion_control.into());
    for (name, version) in &measured.env.versions {
        report.notes.push(format!("{name}: {version}"));
    }
    for (name, how) in measured.absent.iter().chain(&measured.failed) {
        report.notes.push(format!("{name} has no row: {how}"));
    }
    for program in &measured.rows {
        let mut row = Row::default()
            .label("program", program.name.clone())
            .label("socket_buffer", program.socket_buffer.clone());
        for metric in Metric::ALL {
            let (name, unit) = metric.name_and_unit();
            row = row.figure(name, Figure::new(unit, program.rounds[&metric].clone()));
            let ratios = measured.ratios_by_round.get(&program.name);
            if let Some(ratios) = ratios.and_then(|ratios| ratios.get(&metric)) {
                let name = format!("ratio_{name}");
                row = row.figure(&name, Figure::new("", ratios.clone()));
            }
        }
        report.rows.push(row);
    }
    let all = || (0..report.rows.len()).collect();
    let columns = |prefix: &str, metrics: &[Metric]| {
        let mut columns = vec![Column::label("program", "program")];
        for metric in metrics {
            let (name, _) = metric.name_and_unit();
            let decimals = match name {
                _ if !prefix.is_empty() => 2,
                "pings_lost" | "small_kpps" => 0,
                rtt if rtt.starts_with("rtt") => 0,
                _ => 3,
            };
            let column = Column::median(name, &format!("{prefix}{name}"), 1.0, decimals);
            columns.push(column);
        }
        columns
    };
    let table = |title: &str, prefix, metrics| Table {
        title: title.to_owned(),
        columns: columns(prefix, metrics),
        rows: all(),
    };
    let tables = vec![
        table("Rates", "", &RATES),
        table("Round trips, losses, costs", "", &COSTS),
        table("Patronus divided by the program", "ratio_", &RATES),
    ];
    report.tables = tables;
    report.plots = vec![bars(&report, "tcp", "TCP, one flow", "tcp_gbps", "Gbit/s")];
    let checks = measured.ratios.iter().filter_map(|(peer, ratios)| {
        let ratio = *ratios.get(&Metric::TcpGbps)?;
        Some(Check::figure(format!("tcp_vs_{peer}"), ratio))
    });
    report.verdict = Verdict::of(checks.collect(), !quick);
    Ok(report)
}

/// A report without rows.
pub fn empty(bench: &str, note: &str, quick: bool) -> Result<Report> {
    // The format itself says of a quick run that it is no measurement.
    let notes = if quick {
        Vec::new()
    } else {
        vec![note.to_owned()]
    };
    Ok(Report {
        schema: SCHEMA,
        bench: bench.to_owned(),
        is_measurement: !quick,
        notes,
        env: Env::read(&crate::bench::command_line())?,
        method: Default::default(),
        rows: Vec::new(),
        verdict: Verdict::of(Vec::new(), !quick),
        tables: Vec::new(),
        plots: Vec::new(),
        distributions: Vec::new(),
    })
}

/// One series per program over the sizes, or one point per program where there are none.
fn bars(report: &Report, name: &str, title: &str, figure: &str, unit: &str) -> Plot {
    let mut series: Vec<Series> = Vec::new();
    for row in &report.rows {
        let Some(value) = row.figures.get(figure) else {
            continue;
        };
        let label = |name: &str| row.labels.get(name).and_then(|label| label.as_str());
        let program = label("program").unwrap_or_default();
        let point = place(label("size").unwrap_or(title).to_owned(), value);
        match series.iter_mut().find(|series| series.name == program) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                name: program.to_owned(),
                points: vec![point],
            }),
        }
    }
    Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        y_title: unit.to_owned(),
        kind: Kind::Bars,
        series,
        mark: None,
    }
}

/// A figure's place in a plot.
pub fn place(x: String, figure: &Figure) -> Point {
    Point {
        x,
        y: figure.median,
        min: figure.min,
        max: figure.max,
    }
}

/// A figure of one value.
pub fn once(unit: &'static str, value: f64) -> Figure {
    Figure::new(unit, vec![value])
}

const RATES: [Metric; 5] = [
    Metric::TcpGbps,
    Metric::Tcp4Gbps,
    Metric::ReverseGbps,
    Metric::UdpGbps,
    Metric::SmallKpps,
];
const COSTS: [Metric; 6] = [
    Metric::RttIdleUs,
    Metric::RttLoadedUsMean,
    Metric::RttLoadedUsP99,
    Metric::PingsLost,
    Metric::TcpRetransmitted,
    Metric::CpuSPerGbit,
];
