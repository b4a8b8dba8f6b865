//! `patronus bench console`: from the command line to the lab, and from its figures to a report.

use std::path::PathBuf;

use clap::Args;
use patronus_bench::report::{Check, Column, Figure, Row, Table, Verdict};
use patronus_bench::{Outcome, Report};
use patronus_lab::{ConsoleFigures, ConsoleOptions};

use crate::{bench, lab_report, verbs};

/// The command line of `bench console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Sites of the demo beneath it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    sites: u8,
    /// Starts for each size of terminal; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    trials: u16,
    /// How long each console is open, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Two short starts, to prove that the tool works: not a measurement
    #[arg(long, conflicts_with = "gate")]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page and single trials into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures the console.
pub fn console(args: ConsoleArgs) -> anyhow::Result<()> {
    let figures = patronus_lab::console(&ConsoleOptions {
        sites: args.sites.into(),
        trials: if args.quick { 1 } else { args.trials.into() },
        seconds: if args.quick { 1.0 } else { args.seconds },
        binary: verbs::this_binary()?,
    })?;
    let report = report(&figures, args.quick)?;
    bench::finish(&report, args.gate, args.json, args.out)
}

fn report(figures: &ConsoleFigures, quick: bool) -> anyhow::Result<Report> {
    let note = "gateways, emulator, traffic and console share the machine's cores";
    let mut report = lab_report::empty("console", note, quick)?;
    let method = &mut report.method;
    method.insert("sites".to_owned(), figures.sites.into());
    method.insert("seconds".to_owned(), figures.seconds.into());
    method.insert("load_1m_begin".to_owned(), figures.load.0.into());
    method.insert("load_1m_end".to_owned(), figures.load.1.into());
    method.insert("core_wait_pct".to_owned(), figures.core_wait_pct.into());
    let wait = figures.core_wait_pct.map_or_else(
        || "not told".to_owned(),
        |percent| format!("{percent:.0} % of the time"),
    );
    report.notes.push(format!(
        "load {:.1} before and {:.1} after; some task waited for a core: {wait}",
        figures.load.0, figures.load.1
    ));
    let mut checks = Vec::new();
    for measured in &figures.rows {
        let size = format!("{}x{}", measured.size.0, measured.size.1);
        let first = Figure::new("ns", measured.first_frame_ns.clone());
        let cpu = Figure::new("", measured.cpu_share.clone());
        let name = |what: &str| format!("{what}_{size}");
        checks.push(Check::at_most(
            name("first_frame_ms"),
            first.median * 1e-6,
            FIRST_FRAME_MS,
        ));
        checks.push(Check::at_most(name("cpu_pct"), cpu.median * 100.0, CPU_PCT));
        let row = Row::default().label("terminal", size);
        report
            .rows
            .push(row.figure("first_frame", first).figure("cpu", cpu));
    }
    report.tables = vec![Table {
        title: "Console".to_owned(),
        columns: vec![
            Column::label("terminal", "terminal"),
            Column::median("first frame ms", "first_frame", 1e-6, 1),
            Column::median("CPU %", "cpu", 100.0, 2),
        ],
        rows: (0..report.rows.len()).collect(),
    }];
    report.verdict = Verdict::of(checks, !quick);
    debug_assert!(!quick || report.verdict.outcome == Outcome::None);
    Ok(report)
}

/// What the first picture may take, in milliseconds: so that nobody sees it come.
const FIRST_FRAME_MS: f64 = 100.0;
/// What an open console may cost, in percent of a core.
const CPU_PCT: f64 = 2.0;
