//! `patronus bench aead`, `bench engine`, `bench policy` and `bench paths`: from the command line to the bench room and back.

use std::path::PathBuf;

use clap::Args;
use patronus_bench::report::Check;
use patronus_bench::traffic::Shape;
use patronus_bench::{
    AeadOptions, Destination, EngineOptions, Outcome, PathsOptions, PolicyOptions, Report, publish,
};

/// What all benches have in common.
#[derive(Debug, Args)]
struct Common {
    /// The core to measure on; the last one this process may use if absent
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Trials of each case; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    trials: u16,
    /// Working time of one trial in seconds
    #[arg(long, default_value_t = 0.1)]
    seconds: f64,
    /// A few seconds at most, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page with plots, percentiles and single trials into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The command line of `bench aead`.
#[derive(Debug, Args)]
pub struct AeadArgs {
    /// Packet sizes in bytes; RFC 2544's, 1420 and 8192 if absent
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    sizes: Vec<usize>,
    #[command(flatten)]
    common: Common,
}

/// The command line of `bench engine`.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// What the TUN gives: packets by size in bytes, or superpackets such as 45x1380
    #[arg(long, value_name = "FRAME", value_delimiter = ',')]
    frames: Vec<Shape>,
    /// Numbers of flows; 1, and for some frames 1000 and a million, if absent
    #[arg(long, value_name = "N", value_delimiter = ',')]
    flows: Vec<u64>,
    /// Numbers of peers; 1, and for some frames 1000, if absent
    #[arg(long, value_name = "N", value_delimiter = ',')]
    peers: Vec<usize>,
    /// Also measure 1 to N engines at once, each on a core of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
    /// Frames that the engine gets in one call; the daemon gives 8
    #[arg(long, value_name = "FRAMES", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    #[command(flatten)]
    common: Common,
}

/// The command line of `bench policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// NetworkPolicies of the cluster
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    policies: usize,
    /// Pods of the cluster
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    endpoints: usize,
    /// The core to measure on; the last one this process may use if absent
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Compilations; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    trials: u16,
    /// A small cluster for a second, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page and percentiles into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The command line of `bench paths`.
#[derive(Debug, Args)]
pub struct PathsArgs {
    /// Far sites, each with two paths
    #[arg(long, value_name = "N", default_value_t = 500)]
    peers: usize,
    /// How many of them exchange packets
    #[arg(long, value_name = "N", default_value_t = 50)]
    active: usize,
    /// Seconds of virtual time to measure
    #[arg(long, default_value_t = 60)]
    seconds: usize,
    /// The core to measure on; the last one this process may use if absent
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// A few sites for two seconds, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page and every second into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures what measuring paths costs.
pub fn paths(args: PathsArgs) -> anyhow::Result<()> {
    let report = patronus_bench::paths::paths(&PathsOptions {
        peers: args.peers,
        active: args.active,
        seconds: args.seconds,
        core: args.core,
        quick: args.quick,
        command: command_line(),
    })?;
    finish(&report, args.gate, args.json, args.out)
}

/// Measures the cipher alone.
pub fn aead(args: AeadArgs) -> anyhow::Result<()> {
    let common = args.common;
    let report = patronus_bench::aead::aead(&AeadOptions {
        sizes: args.sizes,
        core: common.core,
        trials: common.trials.into(),
        seconds: common.seconds,
        quick: common.quick,
        command: command_line(),
    })?;
    finish(&report, common.gate, common.json, common.out)
}

/// Measures the policy tables.
pub fn policy(args: PolicyArgs) -> anyhow::Result<()> {
    let report = patronus_bench::policy::policy(&PolicyOptions {
        policies: args.policies,
        endpoints: args.endpoints,
        core: args.core,
        trials: args.trials.into(),
        quick: args.quick,
        command: command_line(),
    })?;
    finish(&report, args.gate, args.json, args.out)
}

/// Measures the engine in memory.
pub fn engine(args: EngineArgs) -> anyhow::Result<()> {
    let common = args.common;
    let report = patronus_bench::engine::engine(&EngineOptions {
        shapes: args.frames,
        flows: args.flows,
        peers: args.peers,
        workers: args.workers.into(),
        batch: args.batch.into(),
        core: common.core,
        trials: common.trials.into(),
        seconds: common.seconds,
        quick: common.quick,
        command: command_line(),
    })?;
    finish(&report, common.gate, common.json, common.out)
}

/// Publishes a report; with `gate` a missed target is a failure.
pub fn finish(report: &Report, gate: bool, json: bool, out: Option<PathBuf>) -> anyhow::Result<()> {
    publish(report, &Destination { json, out })?;
    if gate && report.verdict.outcome == Outcome::Miss {
        let missed: Vec<String> = report
            .verdict
            .checks
            .iter()
            .filter(|check| !check.holds)
            .map(describe)
            .collect();
        anyhow::bail!("targets missed: {}", missed.join(", "));
    }
    Ok(())
}

fn describe(check: &Check) -> String {
    let wanted = check.wanted().unwrap_or_default();
    format!("{} = {:.3}, wanted {wanted}", check.name, check.value)
}

/// The command as it was typed.
pub fn command_line() -> String {
    let args = std::env::args().skip(1);
    std::iter::once("patronus".to_owned())
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}
