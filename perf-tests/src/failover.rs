//! `patronus bench failover`: what breaks between two sites with two uplinks each, and for how long their traffic does
//! not get through.
//!
//! Two real gateways in namespaces carry numbered packets both ways, one per millisecond, so a gap is known to the
//! millisecond; a fault is a change in the kernel's routing or links, or in the emulator where the kernel cannot do it.
//! Every figure was measured; what could not be measured is said, not filled in.

mod breaking;
mod bulk;
mod burners;
pub mod fault;
mod settle;
pub mod trial;
pub mod twin;
pub mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use patronus_impair::{Impairment, RateBps};
use serde::Serialize;

use crate::machine::{Machine, Strain};
use crate::progress::Progress;
use crate::{LabError, Program, Stop, enter_lab};

use burners::Burners;
pub use fault::{Fault, FaultName};
pub use trial::{Stage, Trial, Way};
use twin::{Internet, Pair, QUEUE, Twin, UPLINKS};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct FailoverOptions {
    /// The faults, in this order.
    pub faults: Vec<Fault>,
    /// Trials of each; what [is long](Fault::is_long) has one.
    pub trials: usize,
    /// Length in seconds of what is long.
    pub wave_seconds: u64,
    /// Rate of each uplink in Mbit/s, which the bulk flow fills.
    pub link_mbps: u64,
    /// Labs side by side, each with two gateways and traffic of its own.
    pub parallel: usize,
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
    /// Length in seconds of what is long.
    pub wave_seconds: u64,
    /// Rate of each uplink in Mbit/s.
    pub link_mbps: u64,
    /// Labs side by side.
    pub parallel: usize,
    /// Whether Ctrl-C ended it before all trials were done.
    pub was_stopped: bool,
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
    /// What the machine had to do from the first trial to the last.
    pub strain: Strain,
}

/// Runs the benchmark: progress on standard error, nothing on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`]; Ctrl-C before the first trial was done, after that it ends the report. A fault that cannot be measured is no error: its case says why.
pub fn failover(options: &FailoverOptions) -> Result<FailoverReport> {
    ensure!(!options.faults.is_empty(), "no --faults");
    ensure!(options.trials > 0, "0 trials: --trials is at least 1");
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    let bench = Bench::new(options, &progress, &stop);
    let cases = bench.measure_all(&options.faults);
    let was_stopped = stop.is_set();
    if was_stopped && cases.iter().all(|case| case.trials.is_empty()) {
        return Err(LabError::Interrupted.into());
    }
    Ok(FailoverReport {
        was_stopped,
        trials: bench.trials,
        wave_seconds: bench.wave.as_secs(),
        link_mbps: options.link_mbps,
        parallel: bench.parallel,
        cases,
    })
}

/// Measures faults.
pub struct Bench<'a> {
    program: Program,
    trials: usize,
    wave: Duration,
    link_bits_per_s: u64,
    parallel: usize,
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
            parallel: options.parallel.max(1),
            tells_events: options.events,
            progress,
            stop,
        }
    }

    /// Fault by fault, each in as many labs as are wanted; square waves, which have one trial each, side by side.
    fn measure_all(&self, faults: &[Fault]) -> Vec<Case> {
        let mut cases = Vec::with_capacity(faults.len());
        let are_waves = |a: &Fault, b: &Fault| [a, b].iter().all(|it| it.switches_max().is_some());
        for alike in faults.chunk_by(are_waves) {
            for group in alike.chunks(self.parallel) {
                cases.extend(std::thread::scope(|scope| {
                    let measure = |fault| scope.spawn(move || self.measure(fault));
                    let threads: Vec<_> = group.iter().copied().map(measure).collect();
                    let joined = threads.into_iter().map(|thread| {
                        let panic = |panic| std::panic::resume_unwind(panic);
                        thread.join().unwrap_or_else(panic)
                    });
                    joined.collect::<Vec<_>>()
                }));
            }
        }
        cases
    }

    /// All trials of one fault. A trial that fails takes its gateways with it; the next one gets new ones.
    pub fn measure(&self, fault: Fault) -> Case {
        let wanted = if fault.is_long() { 1 } else { self.trials };
        let machine = Machine::now();
        let shared = Mutex::new(Case {
            fault,
            trials: Vec::new(),
            failed: Vec::new(),
            strain: Strain::default(),
        });
        let burners = fault.burns().then(Burners::start).transpose();
        if let Err(error) = burners {
            lock(&shared).failed.push(format!("{error:#}"));
        } else {
            let begun = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for lane in 0..self.parallel.min(wanted) {
                    let (begun, shared) = (&begun, &shared);
                    scope.spawn(move || self.run_lane(fault, lane, wanted, begun, shared));
                }
            });
        }
        let mut case = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        case.strain = machine.strain();
        case
    }

    /// Trials in one lab after the other, until as many have begun as are wanted.
    fn run_lane(
        &self,
        fault: Fault,
        lane: usize,
        wanted: usize,
        begun: &AtomicUsize,
        shared: &Mutex<Case>,
    ) {
        let failures_max = FAILURES_MAX.max(wanted / FAILURES_SHARE);
        let mut stage = None;
        while begun.fetch_add(1, Ordering::Relaxed) < wanted {
            // Until it is measured, or too many could not be.
            while !self.stop.is_set() && lock(shared).failed.len() < failures_max {
                let done = match stage.take() {
                    Some(stage) => Ok(stage),
                    None => self.stage(fault, lane),
                };
                let done = done.and_then(|mut fresh| {
                    let trial = self.trial(&mut fresh, fault);
                    trial
                        .map_err(|error| error.context(fresh.last_lines()))
                        .map(|trial| (fresh, trial))
                });
                match done {
                    Ok((used, trial)) => {
                        let mut case = lock(shared);
                        self.tell(fault, case.trials.len() + 1, wanted, &trial);
                        case.trials.push(trial);
                        stage = (!fault.needs_new_gateways()).then_some(used);
                        break;
                    }
                    // What went wrong after Ctrl-C went wrong because of it.
                    Err(_) if self.stop.is_set() => return,
                    Err(error) => {
                        self.progress
                            .line(&format!("{fault}: not measured: {error:#}"));
                        lock(shared).failed.push(format!("{error:#}"));
                    }
                }
            }
        }
    }

    fn tell(&self, fault: Fault, number: usize, wanted: usize, trial: &Trial) {
        self.progress
            .line(&format!("{fault} {number}/{wanted}: {}", in_words(trial)));
        for line in trial.timeline.iter().filter(|_| self.tells_events) {
            self.progress.line(&format!("  {line}"));
        }
    }

    /// Sites, links and gateways for a fault.
    ///
    /// # Errors
    /// What the kernel or a gateway refused.
    pub fn stage(&self, fault: Fault, lane: usize) -> Result<Stage<'a>> {
        let (link_bits_per_s, queue) = match fault {
            Fault::Bufferbloat => (BLOATED_BITS_PER_S.min(self.link_bits_per_s), BLOATED_QUEUE),
            _ => (self.link_bits_per_s, QUEUE),
        };
        let twin = Twin::build(match fault.needs_emulator() {
            true => Internet::Emulator {
                seed: SEED + lane as u64,
            },
            false => Internet::Kernel {
                link_bits_per_s,
                queue,
            },
        })?;
        if fault.needs_emulator() {
            for pair in all_pairs() {
                twin.impair(pair, self.healthy(fault, pair)?)?;
            }
        }
        let gateways = twin.start(&self.program, classes(fault))?;
        let mut stage = Stage::new(twin, gateways, link_bits_per_s, self.stop);
        stage.lane = lane;
        Ok(stage)
    }

    /// What an emulated path does while nothing is wrong.
    fn healthy(&self, fault: Fault, pair: Pair) -> Result<Impairment> {
        let is_slow = fault == Fault::Brownout20Bulk && pair != settle::FAST;
        let bits_per_s = match is_slow {
            true => SLOW_BITS_PER_S,
            false => self.link_bits_per_s,
        };
        let rate = RateBps::new(bits_per_s).context("a link has a rate")?;
        let queue_bytes = bits_per_s / 8 * QUEUE.as_millis() as u64 / 1000;
        Ok(Impairment {
            delay: PATH_DELAY,
            rate: Some(rate),
            // A train of probes must fit.
            queue_bytes: Some(queue_bytes.max(TRAIN_BYTES)),
            ..Impairment::default()
        })
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

fn all_pairs() -> Vec<Pair> {
    let pairs = UPLINKS.map(|one| UPLINKS.map(|two| Pair { one, two }));
    pairs.concat()
}

/// What a fault adds to both gateways' configuration.
fn classes(fault: Fault) -> &'static str {
    match fault {
        Fault::Protect => "[class.realtime]\nprotect = true\n",
        _ => "",
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

fn lock(case: &Mutex<Case>) -> MutexGuard<'_, Case> {
    // A lane that panicked has its panic passed on when the lanes are joined.
    case.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Trials of one fault that may fail before it is given up: so many, or one in so many of those wanted.
const FAILURES_MAX: usize = 3;
const FAILURES_SHARE: usize = 10;
/// The emulator's, of the first lane.
const SEED: u64 = 20_261_130;
/// One way.
const PATH_DELAY: Duration = Duration::from_millis(5);
/// The slower paths of a bulk class: slower than TCP is over a path of 10 ms that loses a fifth.
const SLOW_BITS_PER_S: u64 = 1_500_000;
/// 32 packets of 1500 bytes.
const TRAIN_BYTES: u64 = 48_000;
/// A DSL line, with the queue of one that nobody looked after.
const BLOATED_BITS_PER_S: u64 = 20_000_000;
const BLOATED_QUEUE: Duration = Duration::from_millis(500);
const WAVE_QUICK_S: u64 = 12;
