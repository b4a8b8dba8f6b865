//! `patronus bench throughput`: what two gateways carry, at what delay and with what loss, after RFC 2544.
//!
//! Per size of inner packet: the no-drop rate by search ([`crate::search`]), repeated for its spread; the rate at
//! 0.5 % loss; the delay at 90 % of the no-drop rate; the loss at steps of the offered rate. The sender is measured
//! alone first, so that nobody takes its limit for the gateway's.

mod report;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::contestant::{Contestant, Field};
use crate::demo::Totals;
use crate::env::Env;
use crate::link::{self, End, Setup};
use crate::mesh::{Conduct, Mesh};
use crate::progress::Progress;
use crate::search::{Answer, Goal, Point, Search, Step};
use crate::topology::TUNNEL_MTU;
use crate::traffic::{Generator, Mix, Trial, reach};
use crate::{Family, GatewayReport, LabError, Namespace, Stop, enter_lab};

pub use report::{Balance, CurvePoint, Delay, Method, Ndr, Row, SenderLimit, ThroughputReport};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct ThroughputOptions {
    /// Inner packet sizes in bytes, or `imix`; `quick` takes the smallest, the largest and IMIX of them.
    pub sizes: Vec<String>,
    /// Searches for the no-drop rate per size; their spread is reported.
    pub trials: usize,
    /// Seconds of each trial.
    pub seconds: f64,
    /// Programs to measure beside Patronus, by name (see [`Field::find`]), and where they are if not on PATH.
    pub peers: Vec<(String, Option<PathBuf>)>,
    /// RFC 2544's lengths: trials of 60 s, and 120 s for the delay.
    pub full: bool,
    /// Only show that the tool works: the output says that it is no measurement.
    pub quick: bool,
    /// One JSON document on standard output and nothing else there.
    pub json: bool,
    /// The `patronus` binary.
    pub binary: PathBuf,
}

/// How long and how often, as the options come to.
#[derive(Clone, Copy, Debug)]
struct Plan {
    trial: Duration,
    delay_trial: Duration,
    searches: usize,
    trials_max: usize,
    precision: f64,
    curve: &'static [f64],
}

impl Plan {
    fn of(options: &ThroughputOptions) -> Result<Self> {
        ensure!(options.trials > 0, "0 trials: --trials is at least 1");
        let seconds = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .with_context(|| format!("{seconds} is no length of time"))
        };
        let plan = Self {
            trial: seconds(options.seconds)?,
            delay_trial: seconds(options.seconds * 2.0)?,
            searches: options.trials,
            trials_max: 24,
            precision: 0.02,
            curve: &[0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0],
        };
        Ok(match (options.quick, options.full) {
            (true, _) => Self {
                trial: Duration::from_millis(100),
                delay_trial: Duration::from_millis(200),
                searches: 1,
                trials_max: 4,
                precision: 0.1,
                curve: &[0.5, 1.5],
            },
            (false, true) => Self {
                trial: Duration::from_secs(60),
                delay_trial: Duration::from_secs(120),
                ..plan
            },
            (false, false) => plan,
        })
    }
}

/// Runs the benchmark: progress on standard error, the table or the JSON document on standard output.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// [`LabError`] as for [`crate::demo()`]; a size that cannot be sent, an unknown peer; a trial that failed. That the
/// gateways account for every packet is for the caller to check, [`ThroughputReport::is_balanced`].
pub fn throughput(options: &ThroughputOptions) -> Result<ThroughputReport> {
    let plan = Plan::of(options)?;
    let mixes = mixes(options)?;
    let field = Field::find(&options.binary, &options.peers)?;
    enter_lab()?;
    let stop = Stop::on_signals()?;
    let progress = Progress::new();
    for (name, how) in &field.absent {
        progress.line(&format!("{name} is not here: {how}"));
    }
    let conduct = Conduct {
        window: plan.trial,
        warm_up: WARM_UP,
        progress: &progress,
        stop: &stop,
    };
    let measured = match measure_all(&field.contestants, &mixes, &plan, conduct) {
        // What else went wrong after Ctrl-C went wrong because of it.
        Err(_) if stop.is_set() => return Err(LabError::Interrupted.into()),
        result => result?,
    };
    let report = ThroughputReport {
        note: report::note(options.quick, options.full),
        env: Env::read(&field.contestants, None)?,
        method: Method {
            trial_seconds: plan.trial.as_secs_f64(),
            delay_trial_seconds: plan.delay_trial.as_secs_f64(),
            searches: plan.searches,
            precision: plan.precision,
            pdr_loss_max: PDR_LOSS_MAX,
            delay_load: DELAY_LOAD,
        },
        sender: measured.sender,
        rows: measured.rows,
        balance: measured.balance,
        absent: field.absent,
    };
    let text = if options.json {
        serde_json::to_string_pretty(&report).context("writing the report as JSON")?
    } else {
        report.to_string()
    };
    // A reader that went away needs no report.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    Ok(report)
}

fn mixes(options: &ThroughputOptions) -> Result<Vec<Mix>> {
    let mut mixes = Vec::new();
    for size in &options.sizes {
        let mix =
            match size.to_ascii_lowercase().as_str() {
                "imix" => Mix::imix(),
                digits => Mix::fixed(digits.parse().with_context(|| {
                    format!("--sizes {size}: write a number of bytes, or imix")
                })?)?,
            };
        if !mixes.contains(&mix) {
            mixes.push(mix);
        }
    }
    ensure!(!mixes.is_empty(), "no --sizes");
    if options.quick {
        let by_size = |a: &&Mix, b: &&Mix| a.mean_bytes().total_cmp(&b.mean_bytes());
        let ends = [mixes.iter().min_by(by_size), mixes.iter().max_by(by_size)];
        let kept: Vec<Mix> = mixes
            .iter()
            .filter(|mix| ends.contains(&Some(mix)) || **mix == Mix::imix())
            .cloned()
            .collect();
        mixes = kept;
    }
    Ok(mixes)
}

struct Measured {
    sender: Vec<SenderLimit>,
    rows: Vec<Row>,
    balance: BTreeMap<String, Balance>,
}

/// Size by size, and for each size all programs: what changes on the machine changes for all.
fn measure_all(
    contestants: &[Contestant],
    mixes: &[Mix],
    plan: &Plan,
    conduct: Conduct<'_>,
) -> Result<Measured> {
    let mut measured = Measured {
        sender: Vec::new(),
        rows: Vec::new(),
        balance: BTreeMap::new(),
    };
    let mut reports: BTreeMap<String, Vec<GatewayReport>> = BTreeMap::new();
    for mix in mixes {
        let limit = sender_limit(mix, plan, conduct)?;
        let ceiling_pps = limit.pps;
        conduct.progress.line(&format!(
            "{}: the sender alone makes {:.0} kpps, {:.2} Gbit/s",
            mix.title(),
            limit.pps / 1e3,
            limit.gbps
        ));
        measured.sender.push(limit);
        for contestant in contestants {
            let name = contestant.name();
            let adjust = |config: &mut _| contestant.adjust(config);
            let mesh = Mesh::up_with(2, &contestant.program, Family::V4, conduct.stop, adjust)?;
            let row = measure(&mesh, &name, mix, ceiling_pps, plan, conduct)
                .with_context(|| format!("{} through {name}", mix.title()))?;
            conduct
                .progress
                .line(&format!("{}, {name}: {}", mix.title(), row.in_words()));
            measured.rows.push(row);
            reports.entry(name).or_default().extend(mesh.down()?);
        }
    }
    for (name, reports) in reports {
        // Only Patronus leaves reports.
        if !reports.is_empty() {
            measured
                .balance
                .insert(name, Balance::of(Totals::of(&reports)?));
        }
    }
    Ok(measured)
}

/// What the generator makes and takes over a veth pair alone.
fn sender_limit(mix: &Mix, plan: &Plan, conduct: Conduct<'_>) -> Result<SenderLimit> {
    let (from, to) = (Namespace::new("sender")?, Namespace::new("receiver")?);
    let end = |namespace| End {
        namespace,
        name: "eth0",
    };
    link::connect(end(&from), end(&to))?;
    for (namespace, address) in [(&from, "198.18.0.1/24"), (&to, "198.18.0.2/24")] {
        let addresses = [address.parse().context("an address of ours")?];
        let setup = Setup {
            mtu: Some(TUNNEL_MTU),
            addresses: &addresses,
            routes: &[],
        };
        link::configure(namespace, "eth0", setup)?;
    }
    let target = "198.18.0.2".parse().context("an address of ours")?;
    reach(&from, target, REACH_MAX)?;
    let mut generator = Generator::open(&from, &to, target, mix.clone())?;
    let trial = generator.run(UNLIMITED_PPS, plan.trial.min(LIMIT_TRIAL_MAX), conduct.stop)?;
    ensure!(
        trial.received > 0,
        "no packet crossed a veth pair in {} s",
        trial.seconds
    );
    let pps = trial.received_pps();
    Ok(SenderLimit {
        size: mix.name.clone(),
        inner_bytes_mean: mix.mean_bytes(),
        pps,
        gbps: gbps(pps, mix),
        offered_pps: trial.offered_pps(),
    })
}

fn measure(
    mesh: &Mesh,
    name: &str,
    mix: &Mix,
    ceiling_pps: f64,
    plan: &Plan,
    conduct: Conduct<'_>,
) -> Result<Row> {
    mesh.check_reach(conduct.stop)?;
    let [one, two, ..] = &mesh.lab.sites[..] else {
        anyhow::bail!("a lab has two sites");
    };
    let target = two.host_addr(Family::V4);
    let generator = Generator::open(&one.host, &two.host, target, mix.clone())?;
    let mut bench = Bench {
        generator,
        plan,
        conduct,
        title: format!("{}, {name}", mix.title()),
        sent: 0,
        lost: 0,
        reordered: 0,
        overflowed: 0,
        trials: 0,
    };
    // Neighbours, routes, flow entries: what a first packet pays for is not what is measured.
    bench.trial(FLOOR_PPS, conduct.warm_up)?;
    let floor_pps = FLOOR_PPS.min(ceiling_pps);
    let goal = |loss_max| Goal {
        loss_max,
        precision: plan.precision,
        floor_pps,
        ceiling_pps,
        trials_max: plan.trials_max,
    };
    let mut answers = Vec::with_capacity(plan.searches);
    let mut first_pps = ceiling_pps;
    for _ in 0..plan.searches {
        let answer = bench.search(Search::new(goal(0.0), first_pps))?;
        first_pps = answer.rate_pps.unwrap_or(first_pps);
        answers.push(answer);
    }
    let ndr = Ndr::of(&answers, mix);
    let pdr = bench.search_pdr(goal(PDR_LOSS_MAX), ndr.as_ref())?;
    // Delay is given at a stated load; where nothing passes without loss, the other rate states it.
    let reference_pps = ndr.as_ref().map(|ndr| ndr.pps).or(pdr.rate_pps);
    let (mut delay, mut curve) = (None, Vec::new());
    if let Some(reference_pps) = reference_pps {
        delay = Some(bench.delay(mesh, reference_pps * DELAY_LOAD)?);
        curve = bench.curve(reference_pps, ceiling_pps)?;
    }
    Ok(Row {
        name: name.to_owned(),
        size: mix.name.clone(),
        inner_bytes_mean: mix.mean_bytes(),
        ndr,
        pdr_pps: pdr.rate_pps,
        pdr_gbps: pdr.rate_pps.map(|pps| gbps(pps, mix)),
        delay,
        loss_curve: curve,
        trials: bench.trials,
        sent: bench.sent,
        lost: bench.lost,
        reordered: bench.reordered,
        overflowed: bench.overflowed,
    })
}

/// One size through one program: the trials and their sums.
struct Bench<'a> {
    generator: Generator,
    plan: &'a Plan,
    conduct: Conduct<'a>,
    title: String,
    sent: u64,
    lost: u64,
    reordered: u64,
    overflowed: u64,
    trials: usize,
}

impl Bench<'_> {
    fn trial(&mut self, rate_pps: f64, length: Duration) -> Result<Trial> {
        let trial = self.generator.run(rate_pps, length, self.conduct.stop)?;
        self.trials += 1;
        self.sent += trial.sent;
        self.lost += trial.sent.saturating_sub(trial.received);
        self.reordered += trial.reordered;
        self.overflowed += trial.overflowed;
        self.conduct.progress.live(&format!(
            "{}  {:.0} kpps offered, {:.3} % lost",
            self.title,
            trial.offered_pps() / 1e3,
            trial.loss() * 100.0
        ));
        Ok(trial)
    }

    fn search(&mut self, mut search: Search) -> Result<Answer> {
        loop {
            let rate_pps = match search.step() {
                Step::Done(answer) => return Ok(answer),
                Step::Try(rate_pps) => rate_pps,
            };
            let trial = self.trial(rate_pps, self.plan.trial)?;
            let point = Point {
                offered_pps: trial.offered_pps(),
                loss: trial.loss(),
            };
            search.record(point, trial.fell_short());
        }
    }

    /// Begins where the no-drop rate is known to pass.
    fn search_pdr(&mut self, goal: Goal, ndr: Option<&Ndr>) -> Result<Answer> {
        let search = match ndr {
            None => Search::new(goal, goal.ceiling_pps),
            Some(ndr) => Search::new(goal, ndr.pps * (1.0 + 2.0 * goal.precision)).knowing(Point {
                offered_pps: ndr.pps,
                loss: 0.0,
            }),
        };
        self.search(search)
    }

    fn delay(&mut self, mesh: &Mesh, rate_pps: f64) -> Result<Delay> {
        let cpu = mesh.cpu_seconds()?;
        let trial = self.trial(rate_pps, self.plan.delay_trial)?;
        let cpu_seconds = mesh.cpu_seconds()? - cpu;
        ensure!(
            trial.received > 0,
            "no packet arrived at {rate_pps:.0} packets a second"
        );
        Ok(Delay::of(&trial, cpu_seconds))
    }

    fn curve(&mut self, reference_pps: f64, ceiling_pps: f64) -> Result<Vec<CurvePoint>> {
        let mut points = Vec::with_capacity(self.plan.curve.len());
        for share in self.plan.curve {
            let rate_pps = reference_pps * share;
            let is_last = rate_pps >= ceiling_pps;
            let trial = self.trial(rate_pps.min(ceiling_pps), self.plan.trial)?;
            points.push(CurvePoint::of(&trial));
            if is_last {
                break;
            }
        }
        Ok(points)
    }
}

/// Inner IP bytes per second as Gbit/s.
fn gbps(pps: f64, mix: &Mix) -> f64 {
    pps * mix.mean_bytes() * 8e-9
}

/// The sizes of RFC 2544 as far as they go through a tunnel, its MTU, and the Internet mix.
pub const SIZES: [&str; 8] = ["64", "128", "256", "512", "1024", "1280", "1420", "imix"];
/// The loss that PDR allows.
const PDR_LOSS_MAX: f64 = 0.005;
/// The load at which delay is measured, as a share of the no-drop rate.
const DELAY_LOAD: f64 = 0.9;
/// Nothing below is of interest.
const FLOOR_PPS: f64 = 500.0;
/// More than any sender on this kind of machine makes.
const UNLIMITED_PPS: f64 = 5e6;
const LIMIT_TRIAL_MAX: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(100);
const REACH_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn options(sizes: &[&str], quick: bool) -> ThroughputOptions {
        ThroughputOptions {
            sizes: sizes.iter().map(|size| size.to_string()).collect(),
            trials: 3,
            seconds: 2.0,
            peers: Vec::new(),
            full: false,
            quick,
            json: false,
            binary: "/bin/patronus".into(),
        }
    }

    fn names(options: &ThroughputOptions) -> Vec<String> {
        let mixes = mixes(options).unwrap();
        mixes.into_iter().map(|mix| mix.name).collect()
    }

    #[test]
    fn all_sizes_of_the_method_can_be_sent_and_a_quick_run_takes_the_ends_and_the_mix() {
        assert_eq!(names(&options(&SIZES, false)).len(), 8);
        assert_eq!(names(&options(&SIZES, true)), ["64", "1420", "IMIX"]);
        assert_eq!(names(&options(&["512", "512"], true)), ["512"]);
    }

    #[test]
    fn a_size_that_is_none_is_refused_with_what_to_write() {
        for (sizes, expected) in [
            (
                &["jumbo"][..],
                "--sizes jumbo: write a number of bytes, or imix",
            ),
            (&["9000"], "9000 bytes: from 64 to 1420"),
            (&[], "no --sizes"),
        ] {
            let error = format!("{:#}", mixes(&options(sizes, false)).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_full_run_has_the_lengths_of_the_rfc() {
        let mut full = options(&SIZES, false);
        full.full = true;
        let plan = Plan::of(&full).unwrap();
        assert_eq!(plan.trial, Duration::from_secs(60));
        assert_eq!(plan.delay_trial, Duration::from_secs(120));
        full.trials = 0;
        assert!(Plan::of(&full).is_err());
    }
}
