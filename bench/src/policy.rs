//! `patronus bench policy`: the policy tables at scale. What it takes to compile a cluster from nothing, to take one
//! change and publish it, to judge the first packet of a flow, and how much memory that keeps.
//!
//! What a packet of a known flow costs is `bench engine`'s question: a flow's verdict lies in its flow entry.

mod changes;
mod probes;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use hdrhistogram::Histogram;
use patronus_policy::model::Connection;
use patronus_policy::{Compiler, PolicyTable, scale};

use crate::pin;
use crate::report::{
    Check, Column, Distribution, Env, Figure, Report, Row, SCHEMA, Table, Verdict,
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct PolicyOptions {
    /// NetworkPolicies of the cluster.
    pub policies: usize,
    /// Pods of the cluster.
    pub endpoints: usize,
    /// The core to run on; `None` for the last that this process may use.
    pub core: Option<usize>,
    /// Compilations, at least one; the median counts.
    pub trials: usize,
    /// A small cluster and few trials, to prove that the tool works.
    pub quick: bool,
    /// The command line, for the report.
    pub command: String,
}

/// The longest time from objects to tables, in milliseconds.
pub const COMPILE_TARGET_MS: f64 = 1000.0;
/// The longest time from one change to tables that every worker reads, in milliseconds.
pub const CHANGE_TARGET_MS: f64 = 10.0;
/// The longest time of a first packet's verdict in the median, in nanoseconds.
pub const VERDICT_TARGET_NS: f64 = 1000.0;

/// How long and how often.
#[derive(Clone, Copy)]
struct Conduct {
    policies: usize,
    endpoints: usize,
    trials: usize,
    changes: usize,
    probes: usize,
}

/// What was measured.
struct Measured {
    compile_ns: Vec<f64>,
    rss_bytes: Option<u64>,
    table: Arc<PolicyTable>,
    changes: Vec<(changes::Kind, Histogram<u64>)>,
    verdicts: Vec<Verdicts>,
    clock_ns: f64,
}

/// The verdicts on one set of connections.
struct Verdicts {
    name: &'static str,
    allowed: usize,
    probes: usize,
    /// Each with two clock reads around it.
    single: Histogram<u64>,
    /// Nanoseconds of each in runs of [`RUN_LEN`], without clock reads between them.
    in_runs: Vec<f64>,
}

/// Measures everything on one core.
///
/// # Errors
/// Options that make no sense, or a core that cannot be had.
pub fn policy(options: &PolicyOptions) -> Result<Report> {
    let conduct = conduct(options)?;
    let env = Env::read(&options.command)?;
    let core = pin::choose(options.core)?;
    let measured = pin::on_core(core, || measure(conduct))?;
    report(options, conduct, env, core, measured)
}

fn conduct(options: &PolicyOptions) -> Result<Conduct> {
    ensure!(options.trials > 0, "0 trials: --trials is at least 1");
    ensure!(
        (1..=POLICIES_MAX).contains(&options.policies),
        "--policies {}: 1 to {POLICIES_MAX}",
        options.policies
    );
    ensure!(
        (100..=ENDPOINTS_MAX).contains(&options.endpoints),
        "--endpoints {}: 100 to {ENDPOINTS_MAX}",
        options.endpoints
    );
    Ok(match options.quick {
        true => Conduct {
            policies: options.policies.min(200),
            endpoints: options.endpoints.min(2000),
            trials: 1,
            changes: 20,
            probes: 10_000,
        },
        false => Conduct {
            policies: options.policies,
            endpoints: options.endpoints,
            trials: options.trials,
            changes: 400,
            probes: 1_000_000,
        },
    })
}

fn measure(conduct: Conduct) -> Result<Measured> {
    let objects = scale::cluster(conduct.policies, conduct.endpoints, SEED);
    let mut compile_ns = Vec::with_capacity(conduct.trials);
    let mut rss_bytes = None;
    let mut kept = None;
    for trial in 1..=conduct.trials {
        eprintln!("bench policy: compiling, {trial} of {}", conduct.trials);
        drop(kept.take());
        let (given, before) = (objects.clone(), resident_bytes());
        let start = Instant::now();
        let compiler = Compiler::fresh(SEED, given);
        compile_ns.push(start.elapsed().as_nanos() as f64);
        // Later compilations use again what earlier ones freed.
        if trial == 1 {
            let after = resident_bytes();
            rss_bytes = before.zip(after).map(|(from, to)| to.saturating_sub(from));
        }
        kept = Some(compiler);
    }
    let mut compiler = kept.context("no compilation")?;
    let table = compiler.table();
    eprintln!("bench policy: judging");
    let clock_ns = clock_ns();
    let verdicts = probes::sets(&table, conduct.endpoints, conduct.probes)
        .into_iter()
        .map(|set| judge(&table, set.name, &set.connections))
        .collect();
    let mut changes = Vec::new();
    let published = ArcSwap::new(compiler.table());
    for kind in changes::Kind::ALL {
        eprintln!("bench policy: changes, {}", kind.name());
        let bursts = changes::bursts(kind, &objects, conduct.changes);
        ensure!(!bursts.is_empty(), "no object to change: {}", kind.name());
        changes.push((kind, apply(&mut compiler, &published, bursts)));
    }
    Ok(Measured {
        compile_ns,
        rss_bytes,
        table,
        changes,
        verdicts,
        clock_ns,
    })
}

/// Takes bursts one by one; a burst counts from its objects to tables that every worker loads, the old ones freed.
fn apply(
    compiler: &mut Compiler,
    published: &ArcSwap<PolicyTable>,
    bursts: Vec<changes::Burst>,
) -> Histogram<u64> {
    let mut times = histogram();
    for changes::Burst { prepare, timed } in bursts {
        compiler.apply(prepare);
        published.store(compiler.table());
        let start = Instant::now();
        compiler.apply(timed);
        published.store(compiler.table());
        times.saturating_record(nanos(start.elapsed()));
    }
    times
}

fn judge(table: &PolicyTable, name: &'static str, connections: &[Connection]) -> Verdicts {
    let mut allowed = 0;
    let mut single = histogram();
    for connection in connections {
        let start = Instant::now();
        let verdict = black_box(table.judge(black_box(connection)));
        single.saturating_record(nanos(start.elapsed()));
        allowed += usize::from(verdict.allow);
    }
    let runs = connections.chunks_exact(RUN_LEN);
    let in_runs = runs.map(|run| {
        let start = Instant::now();
        for connection in run {
            black_box(table.judge(black_box(connection)));
        }
        start.elapsed().as_nanos() as f64 / run.len() as f64
    });
    Verdicts {
        name,
        allowed,
        probes: connections.len(),
        in_runs: in_runs.collect(),
        single,
    }
}

/// What two clock reads cost by themselves.
fn clock_ns() -> f64 {
    let mut all: Vec<f64> = Vec::with_capacity(CLOCK_READS);
    for _ in 0..CLOCK_READS {
        let start = Instant::now();
        all.push(start.elapsed().as_nanos() as f64);
    }
    crate::stats::median(&all)
}

/// Memory of this process that is in RAM; `None` where `/proc` does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("three digits up to a minute are a histogram")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn report(
    options: &PolicyOptions,
    conduct: Conduct,
    env: Env,
    core: usize,
    measured: Measured,
) -> Result<Report> {
    let stats = measured.table.stats();
    let mut rows = vec![
        Row::default()
            .label("what", "compile")
            .figure("compile_ns", Figure::new("ns", measured.compile_ns.clone())),
    ];
    let mut checks = vec![Check::at_most(
        "compile_ms",
        rows[0].figures["compile_ns"].median / 1e6,
        COMPILE_TARGET_MS,
    )];
    let mut distributions = Vec::new();
    for (kind, times) in &measured.changes {
        rows.push(timed_row(Row::default().label("what", kind.name()), times));
        let p99_ms = times.value_at_quantile(0.99) as f64 / 1e6;
        let name = format!("{}_p99_ms", kind.name().replace(' ', "_"));
        checks.push(Check::at_most(name, p99_ms, CHANGE_TARGET_MS));
        distributions.push(distribution(kind.name(), times));
    }
    let changes = 1..rows.len();
    for set in &measured.verdicts {
        let share = set.allowed as f64 / set.probes.max(1) as f64;
        let row = Row::default().label("what", format!("verdict, {}", set.name));
        let row = timed_row(row, &set.single)
            .figure(
                "run_ns",
                Figure::new("ns", vec![crate::stats::median(&set.in_runs)]),
            )
            .figure("allowed", Figure::new("", vec![share]));
        rows.push(row);
        let median = set.single.value_at_quantile(0.5) as f64;
        let name = format!("verdict_{}_ns", set.name);
        checks.push(Check::at_most(name, median, VERDICT_TARGET_NS));
        distributions.push(distribution(&format!("verdict {}", set.name), &set.single));
    }
    let verdicts = changes.end..rows.len();
    rows.push(memory_row(stats, measured.rss_bytes));
    let memory = rows.len() - 1;
    checks.push(Check::figure("tables_mib", stats.bytes as f64 / MIB));
    let is_measurement = !options.quick;
    Ok(Report {
        schema: SCHEMA,
        bench: "policy".to_owned(),
        is_measurement,
        notes: notes(measured.clock_ns),
        env,
        method: method(conduct, core),
        verdict: Verdict::of(checks, is_measurement),
        tables: tables(changes, verdicts, memory),
        rows,
        plots: Vec::new(),
        distributions,
    })
}

fn timed_row(row: Row, times: &Histogram<u64>) -> Row {
    let at = |quantile| Figure::new("ns", vec![times.value_at_quantile(quantile) as f64]);
    row.figure("p50_ns", at(0.5))
        .figure("p99_ns", at(0.99))
        .figure("max_ns", Figure::new("ns", vec![times.max() as f64]))
        .figure("samples", Figure::new("", vec![times.len() as f64]))
}

fn memory_row(stats: patronus_policy::Stats, rss_bytes: Option<u64>) -> Row {
    let figure = |unit, value: f64| Figure::new(unit, vec![value]);
    let row = Row::default()
        .label("what", "memory")
        .figure("tables_bytes", figure("B", stats.bytes as f64))
        .figure("classes", figure("", stats.classes as f64))
        .figure("rows", figure("", stats.rows as f64))
        .figure("port_sets", figure("", stats.port_sets as f64))
        .figure("addresses", figure("", stats.addresses as f64));
    match rss_bytes {
        Some(bytes) => row.figure("rss_delta_bytes", figure("B", bytes as f64)),
        None => row,
    }
}

fn distribution(name: &str, times: &Histogram<u64>) -> Distribution {
    Distribution {
        name: name.replace(' ', "-"),
        unit: "ns",
        scale: 1.0,
        histogram: times.clone(),
    }
}

fn notes(clock_ns: f64) -> Vec<String> {
    vec![
        format!(
            "a single verdict is timed with two clock reads, which cost {clock_ns:.0} ns by themselves and are in the \
             figure; ns in runs is the median of runs of {RUN_LEN} verdicts without reads between them"
        ),
        "a change counts from its objects to tables that every worker loads (one atomic pointer), old tables freed"
            .to_owned(),
        "the RSS delta is that of the first compilation: tables, indices of the compiler and the objects that moved \
         into it; tables alone are what verdicts read"
            .to_owned(),
        "a packet of a known flow reads its verdict from the flow entry: see `patronus bench engine`".to_owned(),
    ]
}

fn method(conduct: Conduct, core: usize) -> BTreeMap<String, serde_json::Value> {
    BTreeMap::from([
        ("core".to_owned(), core.into()),
        ("policies".to_owned(), conduct.policies.into()),
        ("endpoints".to_owned(), conduct.endpoints.into()),
        ("compilations".to_owned(), conduct.trials.into()),
        ("changes_of_each_kind".to_owned(), conduct.changes.into()),
        ("seed".to_owned(), SEED.into()),
    ])
}

fn tables(
    changes: std::ops::Range<usize>,
    verdicts: std::ops::Range<usize>,
    memory: usize,
) -> Vec<Table> {
    let ms = |title: &str, name: &str| Column::median(title, name, 1e-6, 3);
    let ns = |title: &str, name: &str| Column::median(title, name, 1.0, 0);
    vec![
        Table {
            title: "From objects to tables".to_owned(),
            columns: vec![
                Column::label("what", "what"),
                ms("ms", "compile_ns"),
                Column::spread("spread", "compile_ns"),
            ],
            rows: vec![0],
        },
        Table {
            title: "One change, to all workers".to_owned(),
            columns: vec![
                Column::label("what", "what"),
                ms("p50 ms", "p50_ns"),
                ms("p99 ms", "p99_ns"),
                ms("max ms", "max_ns"),
                ns("samples", "samples"),
            ],
            rows: changes.collect(),
        },
        Table {
            title: "The first packet of a flow".to_owned(),
            columns: vec![
                Column::label("what", "what"),
                ns("p50 ns", "p50_ns"),
                ns("p99 ns", "p99_ns"),
                ns("ns in runs", "run_ns"),
                Column::median("allowed %", "allowed", 100.0, 1),
            ],
            rows: verdicts.collect(),
        },
        Table {
            title: "Memory".to_owned(),
            columns: vec![
                Column::median("tables MiB", "tables_bytes", 1.0 / MIB, 1),
                Column::median("RSS delta MiB", "rss_delta_bytes", 1.0 / MIB, 1),
                ns("classes", "classes"),
                ns("rows", "rows"),
                ns("port sets", "port_sets"),
                ns("addresses", "addresses"),
            ],
            rows: vec![memory],
        },
    ]
}

/// The cluster and everything that is drawn from it is the same in every run.
const SEED: u64 = 7;
const RUN_LEN: usize = 32;
const CLOCK_READS: usize = 10_001;
const MIB: f64 = 1024.0 * 1024.0;
const POLICIES_MAX: usize = 1_000_000;
/// As many as the scale cluster has addresses for.
const ENDPOINTS_MAX: usize = 1_000_000;
