//! `patronus bench throughput`, `handshakes`, `failover` and `prefilter`: from the command line to the lab and back.

use std::path::{Path, PathBuf};

use clap::Args;
use patronus_bench::Report;
use patronus_lab::failover::FaultName;
use patronus_lab::throughput::SIZES;
use patronus_lab::{
    FailoverOptions, HandshakesOptions, LabError, PrefilterOptions, ThroughputOptions,
};

use crate::verbs::{peers, this_binary};
use crate::{bench, failover_report, lab_report, prefilter_report};

/// The command line of `bench throughput`.
#[derive(Debug, Args)]
pub struct ThroughputArgs {
    /// Inner packet sizes in bytes, or imix
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values = SIZES)]
    sizes: Vec<String>,
    /// Searches for the no-drop rate per size; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    trials: u16,
    /// Length of each trial in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Programs to measure beside Patronus, as for `bench compare`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peers: Vec<String>,
    /// Where a program is, if not on PATH
    #[arg(long, value_name = "NAME=PATH")]
    peer_path: Vec<String>,
    /// Trials as long as RFC 2544 asks: 60 s, and 120 s for the delay
    #[arg(long, conflicts_with_all = ["quick", "seconds"])]
    full: bool,
    /// Some seconds, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page with plots, percentiles and single trials into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The command line of `bench handshakes`.
#[derive(Debug, Args)]
pub struct HandshakesArgs {
    /// Initiators, each a peer of the gateway
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    initiators: u32,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Initiations a second in a flood
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    flood_pps: u32,
    /// Some seconds, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page with plots, percentiles and single trials into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The command line of `bench failover`.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// What breaks: blackhole, blackhole_busy, protect, one_way, carrier, address, brownout_20, brownout_20_bulk,
    /// latency_step, jitter_60, bufferbloat, square_wave, busy, drain, peer_restart, mtu_hole, size_drop, or all
    #[arg(
        long,
        value_name = "FAULT",
        value_delimiter = ',',
        default_value = "all"
    )]
    faults: Vec<FaultName>,
    /// Trials of each; square_wave and busy have one
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    trials: u16,
    /// Length in seconds of each square wave and of busy; their bounds are those of ten minutes
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=3600))]
    seconds: u64,
    /// Rate of each uplink, which the bulk flow fills
    #[arg(long, value_name = "MBPS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    link_mbps: u64,
    /// Labs side by side, each with two gateways and traffic of its own: take a lower --link-mbps then
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    parallel: u16,
    /// Tell on standard error what both gateways said during each trial
    #[arg(long)]
    events: bool,
    /// One trial of each and short waves, to prove that the tool works: not a measurement
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

/// The command line of `bench prefilter`.
#[derive(Debug, Args)]
pub struct PrefilterArgs {
    /// Trials of each figure, in alternating rounds; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    trials: u16,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Datagrams of junk a second in a flood; as many as a core makes if it makes less
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    junk_pps: u32,
    /// Handshake initiations a second in a flood
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    initiations_pps: u32,
    /// Some seconds, to prove that the tool works: not a measurement
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write JSON, Markdown, a page with plots and single trials into that directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures the pre-filter alone, before gateways, and before gateways that are flooded.
pub fn prefilter(args: PrefilterArgs) -> anyhow::Result<()> {
    let measured = patronus_lab::prefilter(&PrefilterOptions {
        trials: args.trials.into(),
        seconds: args.seconds,
        junk_pps: args.junk_pps.into(),
        initiations_pps: args.initiations_pps.into(),
        quick: args.quick,
        binary: this_binary()?,
    })?;
    let report = prefilter_report::prefilter(&measured, args.quick)?;
    bench::finish(&report, args.gate, args.json, args.out)
}

/// Breaks what joins two sites, and measures for how long their traffic does not get through.
pub fn failover(args: FailoverArgs) -> anyhow::Result<()> {
    let mut faults: Vec<_> = args.faults.iter().flat_map(FaultName::faults).collect();
    faults.sort_unstable();
    faults.dedup();
    let measured = patronus_lab::failover(&FailoverOptions {
        faults,
        trials: args.trials.into(),
        wave_seconds: args.seconds,
        link_mbps: args.link_mbps,
        parallel: args.parallel.into(),
        quick: args.quick,
        events: args.events,
        binary: this_binary()?,
    })?;
    let report = failover_report::failover(&measured, args.quick)?;
    bench::finish(&report, args.gate, args.json, args.out)?;
    // What was done is told; that it was not all, the exit code says.
    if measured.was_stopped {
        return Err(LabError::Interrupted.into());
    }
    Ok(())
}

/// Measures one gateway against a crowd, and two under a flood.
pub fn handshakes(args: &HandshakesArgs) -> anyhow::Result<()> {
    let report = patronus_lab::handshakes(&HandshakesOptions {
        initiators: args.initiators as usize,
        seconds: args.seconds as f64,
        flood_pps: f64::from(args.flood_pps),
        quick: args.quick,
        json: args.json,
        binary: this_binary()?,
    })?;
    write_out(args.out.as_deref(), || {
        lab_report::handshakes(&report, args.quick)
    })?;
    ensure_balanced(report.is_balanced())
}

/// Measures two gateways in namespaces.
pub fn throughput(args: ThroughputArgs) -> anyhow::Result<()> {
    let report = patronus_lab::throughput(&ThroughputOptions {
        peers: peers(args.peers, &args.peer_path)?,
        sizes: args.sizes,
        trials: args.trials.into(),
        seconds: args.seconds,
        full: args.full,
        quick: args.quick,
        json: args.json,
        binary: this_binary()?,
    })?;
    write_out(args.out.as_deref(), || {
        lab_report::throughput(&report, args.quick)
    })?;
    ensure_balanced(report.is_balanced())
}

/// Writes all forms of a report into the directory, if one is wanted.
pub fn write_out(
    out: Option<&Path>,
    report: impl FnOnce() -> anyhow::Result<Report>,
) -> anyhow::Result<()> {
    let Some(dir) = out else {
        return Ok(());
    };
    let files = report()?.write_all(dir)?;
    eprintln!("wrote    {} files into {}", files.len(), dir.display());
    Ok(())
}

fn ensure_balanced(is_balanced: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_balanced,
        "a gateway does not account for every packet; see `balance` above"
    );
    Ok(())
}
