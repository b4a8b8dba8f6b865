//! `patronus bench prefilter`: what the filter costs a packet, what it drops a second, what gateways carry with it at each
//! hook, and what an established peer keeps of its traffic, its measurements and its failover while strangers flood.
//!
//! Floods come from inside the kernel ([`Generator`](patronus_ebpf::Generator)), right into the gateway's interface: on
//! two cores no sender by system calls makes as many, and no router between would carry them. Sender, gateways and hosts
//! share these cores, so what a flood takes from a peer is the flood's own cost too; only the ratio of with and without
//! the filter, in alternating rounds, says something about the filter.

mod cost;
mod drops;
mod flooder;
mod gateways;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use patronus_ebpf::Support;
use serde::Serialize;

use crate::mesh::Conduct;
use crate::progress::Progress;
use crate::{LabError, Program, Stop, enter_lab};

pub use cost::Cost;
pub use drops::DropRate;
pub use gateways::{Carried, FailoverRow, FloodKind, UnderFlood};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct PrefilterOptions {
    /// Trials of each figure.
    pub trials: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Datagrams of junk per second.
    pub junk_pps: f64,
    /// Handshake initiations per second.
    pub initiations_pps: f64,
    /// Only show that the tool works.
    pub quick: bool,
    /// The `patronus` binary.
    pub binary: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct PrefilterReport {
    /// Trials of each figure.
    pub trials: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// By program and class of packets.
    pub costs: Vec<Cost>,
    /// By hook and kind of flood.
    pub drops: Vec<DropRate>,
    /// By hook; the first is without the filter.
    pub carried: Vec<Carried>,
    /// By kind of flood, without and with the filter.
    pub floods: Vec<UnderFlood>,
    /// Without and with the filter.
    pub failovers: Vec<FailoverRow>,
}

/// Runs the benchmark: progress on standard error, nothing on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace, and says then that it
/// needs more.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`], [`LabError::NoPrefilter`], or the part that failed.
pub fn prefilter(options: &PrefilterOptions) -> Result<PrefilterReport> {
    ensure!(options.trials > 0, "0 trials: --trials is at least 1");
    for rate in [options.junk_pps, options.initiations_pps] {
        ensure!(
            rate >= 1.0 && rate.is_finite(),
            "a flood of {rate} a second"
        );
    }
    enter_lab()?;
    if let Some(why) = Support::probe().refusal() {
        return Err(LabError::NoPrefilter(why).into());
    }
    let (trials, seconds) = match options.quick {
        true => (1, 1.0),
        false => (options.trials, options.seconds),
    };
    let window = Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("{seconds} is no length of time"))?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    let conduct = Conduct {
        window,
        warm_up: Duration::from_millis(if options.quick { 100 } else { 500 }),
        progress: &progress,
        stop: &stop,
    };
    let program = Program::Patronus {
        binary: options.binary.clone(),
    };
    let measure = || -> Result<PrefilterReport> {
        let repeat = if options.quick { 10_000 } else { 1_000_000 };
        Ok(PrefilterReport {
            trials,
            seconds,
            costs: cost::costs(trials, repeat, conduct)?,
            drops: drops::drops(trials, conduct)?,
            carried: gateways::carried(&program, options, trials, conduct)?,
            floods: gateways::floods(&program, options, trials, conduct)?,
            failovers: gateways::failovers(&program, options, trials, conduct)?,
        })
    };
    match measure() {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => Err(LabError::Interrupted.into()),
        result => result,
    }
}
