//! `patronus bench failover`: what breaks between two sites with two uplinks each, and for how long their traffic does
//! not get through.
//!
//! Two real gateways in namespaces carry numbered packets both ways, one per millisecond, so a gap is known to the
//! millisecond; a fault is a change in the kernel's routing or links, or in the emulator where the kernel cannot do it.
//! Every figure was measured; what could not be measured is said, not filled in.

pub mod fault;
pub mod trial;
pub mod twin;
pub mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use patronus_api::PathCommand;
use patronus_impair::{Impairment, Loss, Probability, RateBps};
use serde::Serialize;

use crate::progress::Progress;
use crate::traffic::numbered::now_ns;
use crate::{Gateway, LabError, Program, Stop, enter_lab};

pub use fault::{Fault, FaultName};
use trial::Broken;
pub use trial::{Stage, Trial, Way};
use twin::{Internet, Pair, Twin, UPLINKS};
use watch::Watch;

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct FailoverOptions {
    /// The faults, in this order.
    pub faults: Vec<Fault>,
    /// Trials of each; a square wave has one.
    pub trials: usize,
    /// Length of each square wave in seconds.
    pub wave_seconds: u64,
    /// Rate of each uplink in Mbit/s, which the bulk flow fills.
    pub link_mbps: u64,
    /// Only show that the tool works: one trial of each, short waves.
    pub quick: bool,
    /// Tell what the gateways said during each trial.
    pub events: bool,
    /// The `patronus` binary.
    pub binary: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverReport {
    /// Trials asked for.
    pub trials: usize,
    /// Length of each square wave in seconds.
    pub wave_seconds: u64,
    /// Rate of each uplink in Mbit/s.
    pub link_mbps: u64,
    /// One per fault.
    pub cases: Vec<Case>,
}

/// All trials of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// The fault.
    pub fault: Fault,
    /// The trials that could be measured.
    pub trials: Vec<Trial>,
    /// Why others could not.
    pub failed: Vec<String>,
}

/// Runs the benchmark: progress on standard error, nothing on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`]. A fault that cannot be measured is no error: its case says why.
pub fn failover(options: &FailoverOptions) -> Result<FailoverReport> {
    ensure!(!options.faults.is_empty(), "no --faults");
    ensure!(options.trials > 0, "0 trials: --trials is at least 1");
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    let bench = Bench::new(options, &progress, &stop);
    let mut cases = Vec::with_capacity(options.faults.len());
    for fault in &options.faults {
        let case = bench.measure(*fault);
        // What else went wrong after Ctrl-C went wrong because of it.
        if stop.is_set() {
            return Err(LabError::Interrupted.into());
        }
        cases.push(case);
    }
    Ok(FailoverReport {
        trials: bench.trials,
        wave_seconds: bench.wave.as_secs(),
        link_mbps: options.link_mbps,
        cases,
    })
}

/// Measures faults, one at a time.
pub struct Bench<'a> {
    program: Program,
    trials: usize,
    wave: Duration,
    link_bits_per_s: u64,
    tells_events: bool,
    progress: &'a Progress,
    stop: &'a Stop,
}

impl<'a> Bench<'a> {
    /// A bench; nothing runs yet.
    pub fn new(options: &FailoverOptions, progress: &'a Progress, stop: &'a Stop) -> Self {
        Self {
            program: Program::Patronus {
                binary: options.binary.clone(),
            },
            trials: if options.quick { 1 } else { options.trials },
            wave: Duration::from_secs(match options.quick {
                true => options.wave_seconds.min(WAVE_QUICK_S),
                false => options.wave_seconds,
            }),
            link_bits_per_s: options.link_mbps * 1_000_000,
            tells_events: options.events,
            progress,
            stop,
        }
    }

    /// All trials of one fault. A trial that fails takes its gateways with it; the next one gets new ones.
    pub fn measure(&self, fault: Fault) -> Case {
        let mut case = Case {
            fault,
            trials: Vec::new(),
            failed: Vec::new(),
        };
        let mut stage = None;
        let wanted = if fault.switches_max().is_some() {
            1
        } else {
            self.trials
        };
        while case.trials.len() < wanted && case.failed.len() < FAILURES_MAX && !self.stop.is_set()
        {
            let done = match stage.take() {
                Some(stage) => Ok(stage),
                None => self.stage(fault),
            };
            let done = done.and_then(|mut fresh| {
                let trial = self.trial(&mut fresh, fault);
                trial
                    .map_err(|error| error.context(fresh.last_lines()))
                    .map(|trial| (fresh, trial))
            });
            match done {
                Ok((used, trial)) => {
                    self.progress.line(&format!(
                        "{fault} {}/{wanted}: {}",
                        case.trials.len() + 1,
                        in_words(&trial)
                    ));
                    for line in trial.timeline.iter().filter(|_| self.tells_events) {
                        self.progress.line(&format!("  {line}"));
                    }
                    case.trials.push(trial);
                    stage = (!fault.needs_new_gateways()).then_some(used);
                }
                Err(error) => {
                    self.progress
                        .line(&format!("{fault}: not measured: {error:#}"));
                    case.failed.push(format!("{error:#}"));
                }
            }
        }
        case
    }

    /// Sites, links and gateways for a fault.
    ///
    /// # Errors
    /// What the kernel or a gateway refused.
    pub fn stage(&self, fault: Fault) -> Result<Stage<'a>> {
        let twin = Twin::build(match fault.needs_emulator() {
            true => Internet::Emulator { seed: SEED },
            false => Internet::Kernel {
                link_bits_per_s: self.link_bits_per_s,
            },
        })?;
        if fault.needs_emulator() {
            for one in UPLINKS {
                for two in UPLINKS {
                    twin.impair(Pair { one, two }, self.healthy()?)?;
                }
            }
        }
        let gateways = twin.start(&self.program, classes(fault))?.map(Some);
        let watches = [Watch::of(&twin, 0), Watch::of(&twin, 1)];
        Ok(Stage {
            gateways,
            twin,
            watches,
            seen: [0; 2],
            trials: 0,
            stop: self.stop,
        })
    }

    /// One trial of a fault.
    ///
    /// # Errors
    /// See [`Stage::trial`].
    pub fn trial(&self, stage: &mut Stage<'_>, fault: Fault) -> Result<Trial> {
        let lasts = fault.lasts();
        let cut = |both| {
            move |stage: &mut Stage<'_>, pair| {
                stage.twin.cut(pair, both)?;
                Ok(Broken::pairs(vec![pair]))
            }
        };
        let mend = |both| move |stage: &mut Stage<'_>, pair| stage.twin.mend(pair, both);
        let impaired = |impairment: Impairment| {
            move |stage: &mut Stage<'_>, pair| {
                stage.twin.impair(pair, impairment)?;
                Ok(Broken::pairs(vec![pair]))
            }
        };
        let healthy = self.healthy()?;
        let heal = move |stage: &mut Stage<'_>, pair| stage.twin.impair(pair, healthy);
        match fault {
            Fault::Blackhole | Fault::Protect => stage.trial(fault, lasts, cut(true), mend(true)),
            Fault::OneWay => stage.trial(fault, lasts, cut(false), mend(false)),
            Fault::Carrier => stage.trial(fault, lasts, pull_cable, |stage, pair| {
                stage.twin.set_carrier(pair.one, true)
            }),
            Fault::Brownout20 => {
                let lossy = Impairment {
                    loss: Loss::Random(Probability::new(0.2).context("20 % is a chance")?),
                    ..healthy
                };
                stage.trial(fault, lasts, impaired(lossy), heal)
            }
            Fault::LatencyStep => {
                let slow = Impairment {
                    delay: healthy.delay + LATENCY_STEP,
                    ..healthy
                };
                stage.trial(fault, lasts, impaired(slow), heal)
            }
            Fault::MtuHole => {
                let narrow = Impairment {
                    mtu: Some(HOLE_MTU),
                    ..healthy
                };
                stage.trial(fault, lasts, impaired(narrow), heal)
            }
            Fault::SquareWave(up_s, down_s) => {
                let wave = move |stage: &mut Stage<'_>, pair| {
                    self.wave(
                        stage,
                        pair,
                        [up_s, down_s].map(|s| Duration::from_secs(s.into())),
                    )
                };
                stage.trial(fault, Duration::ZERO, wave, |_, _| Ok(()))
            }
            Fault::Drain => stage.trial(fault, lasts, drain, undrain),
            Fault::PeerRestart => {
                let restart = |stage: &mut Stage<'_>, _| self.restart(stage, fault);
                stage.trial(fault, lasts, restart, |_, _| Ok(()))
            }
        }
    }

    /// Cuts and mends the path over and over; every pair counts as bad, for the number of all switches is what is
    /// bounded.
    fn wave(&self, stage: &mut Stage<'_>, pair: Pair, up_down: [Duration; 2]) -> Result<Broken> {
        let end = Instant::now() + self.wave;
        loop {
            for (is_up, length) in [(false, up_down[1]), (true, up_down[0])] {
                match is_up {
                    false => stage.twin.cut(pair, true)?,
                    true => stage.twin.mend(pair, true)?,
                }
                let left = end.saturating_duration_since(Instant::now());
                stage.stop.sleep(length.min(left))?;
                if left <= length {
                    if !is_up {
                        stage.twin.mend(pair, true)?;
                    }
                    return Ok(Broken::pairs(all_pairs()));
                }
            }
        }
    }

    /// Kills the gateway of site 2 and starts it again at once.
    fn restart(&self, stage: &mut Stage<'_>, fault: Fault) -> Result<Broken> {
        let gateway = stage.gateways[1]
            .take()
            .context("the gateway of site 2 is not running")?;
        gateway.kill()?;
        let site = &stage.twin.sites[1];
        let config = stage.twin.config(site, classes(fault));
        stage.gateways[1] = Some(Gateway::start(&site.gateway, &self.program, &config)?);
        Ok(Broken {
            pairs: all_pairs(),
            ready_ns: Some(now_ns()),
        })
    }

    /// What an emulated path does while nothing is wrong.
    fn healthy(&self) -> Result<Impairment> {
        let rate = RateBps::new(self.link_bits_per_s).context("a link has a rate")?;
        Ok(Impairment {
            delay: PATH_DELAY,
            rate: Some(rate),
            queue_bytes: Some(self.link_bits_per_s / 8 * QUEUE_MS / 1000),
            ..Impairment::default()
        })
    }
}

impl Broken {
    fn pairs(pairs: Vec<Pair>) -> Self {
        Self {
            pairs,
            ready_ns: None,
        }
    }
}

impl Stage<'_> {
    /// The ends of both gateways' logs.
    fn last_lines(&self) -> String {
        let lines = self
            .gateways
            .iter()
            .flatten()
            .map(|gateway| format!("{gateway} {}", gateway.last_lines()));
        lines.collect::<Vec<_>>().join("; ")
    }
}

fn pull_cable(stage: &mut Stage<'_>, pair: Pair) -> Result<Broken> {
    stage.twin.set_carrier(pair.one, false)?;
    let dead = UPLINKS.map(|two| Pair { one: pair.one, two });
    Ok(Broken::pairs(dead.to_vec()))
}

fn drain(stage: &mut Stage<'_>, pair: Pair) -> Result<Broken> {
    let number = number_of(stage, pair)?;
    stage.watches[0].order(PathCommand::Drain, number)?;
    Ok(Broken::pairs(vec![pair]))
}

fn undrain(stage: &mut Stage<'_>, pair: Pair) -> Result<()> {
    let number = number_of(stage, pair)?;
    stage.watches[0].order(PathCommand::Undrain, number)
}

/// What the gateway of site 1 calls the path over a pair of uplinks.
fn number_of(stage: &Stage<'_>, pair: Pair) -> Result<u8> {
    match stage.numbers_of(0, &[pair])?[..] {
        [number] => Ok(number),
        ref other => bail!(
            "{} has {} paths over {pair}",
            stage.watches[0].label(),
            other.len()
        ),
    }
}

fn all_pairs() -> Vec<Pair> {
    let pairs = UPLINKS.map(|one| UPLINKS.map(|two| Pair { one, two }));
    pairs.concat()
}

/// What a fault adds to both gateways' configuration.
fn classes(fault: Fault) -> &'static str {
    match fault {
        Fault::Protect => "[class.realtime]\nprotect = true\n",
        Fault::Blackhole
        | Fault::OneWay
        | Fault::Carrier
        | Fault::Brownout20
        | Fault::LatencyStep
        | Fault::SquareWave(..)
        | Fault::Drain
        | Fault::PeerRestart
        | Fault::MtuHole => "",
    }
}

fn in_words(trial: &Trial) -> String {
    let ways = trial.ways.iter().zip(["there", "back"]).map(|(way, name)| {
        let mut text = format!(
            "{name} gap {:.0} ms, lost {}, reordered {}, twice {}, switches {}",
            way.gap_ns as f64 * 1e-6,
            way.lost,
            way.reordered,
            way.duplicated,
            way.switches
        );
        if way.false_switches > 0 {
            text += &format!(" ({} false)", way.false_switches);
        }
        if !way.has_resumed {
            text += " NOT RESUMED";
        }
        text
    });
    ways.collect::<Vec<_>>().join("; ")
}

/// Trials of one fault that may fail before it is given up.
const FAILURES_MAX: usize = 3;
/// The emulator's.
const SEED: u64 = 20_261_130;
/// One way.
const PATH_DELAY: Duration = Duration::from_millis(5);
const QUEUE_MS: u64 = 20;
/// One way.
const LATENCY_STEP: Duration = Duration::from_millis(300);
const HOLE_MTU: u16 = 1300;
const WAVE_QUICK_S: u64 = 12;
