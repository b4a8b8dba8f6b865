//! `patronus bench engine`: the engine of one worker in memory, without a kernel, as a fraction of the cipher alone.
//!
//! Every batch that the engine seals or opens is followed by the same number of packets of the same length through
//! the cipher alone, on the same core: what disturbs one disturbs the other, and their ratio stays. With `workers`,
//! as many threads with an engine each run at once.

mod cases;
mod policy;
mod scaling;
mod stages;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use patronus_packet::Padding;

use crate::aead::per_second;
use crate::cipher::Cipher;
use crate::pin;
use crate::report::{
    Check, Column, Distribution, Env, Figure, Kind, Plot, Point, Report, Row, SCHEMA, Series,
    Table, Verdict,
};
use crate::stats::Batches;
use crate::traffic::{Shape, Traffic};
use crate::world::{MTU, TRAINS, Work, World};

use cases::{Case, cases};

/// What to measure.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What one frame from the TUN holds; empty for [`SHAPES`].
    pub shapes: Vec<Shape>,
    /// Numbers of flows; empty for 1, and for some shapes 1000 and a million.
    pub flows: Vec<u64>,
    /// Numbers of peers; empty for 1, and for some shapes 1000.
    pub peers: Vec<usize>,
    /// Up to how many engines run at once; 1 leaves the part about scaling out.
    pub workers: usize,
    /// Frames that the engine gets in one call; the daemon gives up to 4 from a socket and 64 from the TUN.
    pub batch: usize,
    /// The core to run on; `None` for the last that this process may use.
    pub core: Option<usize>,
    /// Trials per case, at least one.
    pub trials: usize,
    /// Time that the engine works in one trial in one direction, in seconds.
    pub seconds: f64,
    /// A few milliseconds, to prove that the tool works.
    pub quick: bool,
    /// The command line, for the report.
    pub command: String,
}

/// RFC 2544's sizes up to the inner MTU, and the superpacket of a bulk transfer.
pub const SHAPES: [Shape; 8] = [
    Shape::Packet(64),
    Shape::Packet(128),
    Shape::Packet(256),
    Shape::Packet(512),
    Shape::Packet(1024),
    Shape::Packet(1280),
    Shape::Packet(1420),
    Shape::BULK,
];
/// The least share of the cipher's rate at 1420 bytes.
pub const SEAL_TARGET: f64 = 0.75;
/// The least share of the cipher's rate at 1420 bytes.
pub const OPEN_TARGET: f64 = 0.70;
/// The least rate of two workers, as a multiple of one's.
pub const TWO_WORKERS_TARGET: f64 = 1.9;

/// Which half of the engine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the TUN to the uplink.
    Seal,
    /// From the uplink to the TUN.
    Open,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Seal, Self::Open];

    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
        }
    }
}

/// Trials and their length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conduct {
    trials: usize,
    trial: Duration,
    batch: usize,
}

/// One direction of one case, a value per trial.
struct Measured {
    engine_ns: Vec<f64>,
    cipher_ns: Vec<f64>,
    batches: Batches,
    /// Flows that lost their place in the table to another.
    flows_evicted: u64,
}

/// Measures every case, and scaling if it is asked for.
///
/// # Errors
/// Options that make no sense, a core that cannot be had, or an engine that loses packets.
pub fn engine(options: &EngineOptions) -> Result<Report> {
    let conduct = conduct(options)?;
    let cases = cases(options)?;
    let cores = pin::cores()?.len();
    ensure!(
        options.workers <= cores,
        "--workers {}: this process may use {cores} cores, and every worker needs its own",
        options.workers
    );
    let env = Env::read(&options.command)?;
    let core = pin::choose(options.core)?;
    let mut report = empty_report(options, env, core, conduct);
    let mhz = report.env.cpu_mhz;
    let (mut staged, mut policed) = (Vec::new(), Vec::new());
    pin::on_core(core, || {
        for (at, case) in cases.iter().enumerate() {
            eprintln!("bench engine: case {} of {}: {case}", at + 1, cases.len());
            let both = measure(case, conduct).with_context(|| format!("measuring {case}"))?;
            for (direction, measured) in Direction::ALL.into_iter().zip(both) {
                if case.flows == 1 {
                    report.distributions.push(Distribution {
                        name: format!("{}-{}", direction.name(), case.shape),
                        unit: "ns per packet, batch by batch",
                        scale: 1e3,
                        histogram: measured.batches.histogram().clone(),
                    });
                }
                report.rows.push(row(case, direction, &measured, mhz));
            }
            if stages::is_metered(case) {
                staged.extend(stages::measure(case, conduct)?);
            }
            if policy::is_measured(case) {
                policed.extend(policy::measure(case, conduct)?);
            }
        }
        Ok(())
    })?;
    let mut checks = checks(&report.rows);
    report.tables.push(Table {
        title: "One worker: time per packet, and its share of the cipher's limit".to_owned(),
        columns: columns(),
        rows: (0..report.rows.len()).collect(),
    });
    report.plots = plots(&report.rows);
    let first = report.rows.len();
    report.rows.extend(staged);
    report.tables.push(Table {
        title: "Where the time goes: nanoseconds per packet, with a clock at every stage"
            .to_owned(),
        columns: stages::columns(),
        rows: (first..report.rows.len()).collect(),
    });
    checks.extend(policy::checks(&policed));
    let first = report.rows.len();
    report.rows.extend(policed);
    report.tables.push(Table {
        title: "Policy on: time per packet of a known flow, in turn with policy off".to_owned(),
        columns: policy::columns(),
        rows: (first..report.rows.len()).collect(),
    });
    if options.workers > 1 {
        let scaling = scaling::measure(options.workers, conduct)?;
        let first = report.rows.len();
        report.rows.extend(scaling.rows);
        report.tables.push(Table {
            title: "Workers at once, one engine and one core each".to_owned(),
            columns: scaling::columns(),
            rows: (first..report.rows.len()).collect(),
        });
        report.plots.push(scaling.plot);
        checks.extend(scaling.checks);
    }
    report.verdict = Verdict::of(checks, report.is_measurement);
    Ok(report)
}

fn conduct(options: &EngineOptions) -> Result<Conduct> {
    ensure!(options.trials > 0, "0 trials: --trials is at least 1");
    ensure!(
        (1..=256).contains(&options.batch),
        "--batch {}: an engine gets 1 to 256 frames in one call",
        options.batch
    );
    let (trials, seconds) = match options.quick {
        true => (2, 0.001),
        false => (options.trials, options.seconds),
    };
    ensure!(
        seconds > 0.0 && seconds <= 60.0,
        "--seconds {seconds}: a trial takes more than 0 and at most 60 seconds"
    );
    Ok(Conduct {
        trials,
        trial: Duration::from_secs_f64(seconds),
        batch: options.batch,
    })
}

fn empty_report(options: &EngineOptions, env: Env, core: usize, conduct: Conduct) -> Report {
    let notes = vec![
        "policy is off but where a table says so; `patronus bench policy` measures first packets".to_owned(),
        "cycles are nanoseconds times the clock of /proc/cpuinfo, not counted ones".to_owned(),
        "single packets are UDP with finished checksums, superpackets TCP as the kernel's TSO gives them; what is \
         opened is joined (TSO, USO); each packet belongs to the next flow in turn, which is the worst for caches"
            .to_owned(),
        "no batch allocates: `cargo test -p patronus-bench --test allocations` asserts it; counting here would cost"
            .to_owned(),
    ];
    let trains = format!("{} datagrams, {} bytes", TRAINS.segments, TRAINS.bytes);
    let method = BTreeMap::from([
        ("core".to_owned(), core.into()),
        ("trials".to_owned(), conduct.trials.into()),
        ("trial_s".to_owned(), conduct.trial.as_secs_f64().into()),
        ("frames_per_call".to_owned(), conduct.batch.into()),
        ("inner_mtu".to_owned(), MTU.into()),
        ("trains".to_owned(), trains.into()),
        (
            "order".to_owned(),
            "engine and cipher in turn, batch by batch".into(),
        ),
        ("value".to_owned(), "median batch of each trial".into()),
    ]);
    Report {
        schema: SCHEMA,
        bench: "engine".to_owned(),
        is_measurement: !options.quick,
        notes,
        env,
        method,
        rows: Vec::new(),
        verdict: Verdict::of(Vec::new(), false),
        tables: Vec::new(),
        plots: Vec::new(),
        distributions: Vec::new(),
    }
}

/// Both directions of a case, in the order of [`Direction::ALL`].
fn measure(case: &Case, conduct: Conduct) -> Result<[Measured; 2]> {
    let mut bench = Bench::new(case, conduct.batch)?;
    let mut both = [Measured::new(), Measured::new()];
    for _ in 0..conduct.trials {
        for (direction, measured) in Direction::ALL.into_iter().zip(&mut both) {
            bench.world.pass_time()?;
            measured.add(&bench.trial(direction, conduct.trial)?);
        }
    }
    bench.world.check_books()?;
    for measured in &mut both {
        measured.flows_evicted = bench.world.flows_evicted();
    }
    Ok(both)
}

/// A world and the cipher that it is compared with.
pub(crate) struct Bench {
    world: World,
    cipher: Cipher,
}

/// What one trial gave.
#[derive(Default)]
pub(crate) struct Trial {
    work: Work,
    engine: Batches,
    cipher: Batches,
}

impl Bench {
    fn new(case: &Case, batch: usize) -> Result<Self> {
        let traffic = Traffic::new(case.shape, case.flows, case.peers as u64);
        let plain_len = Padding { mtu: MTU }.padded_len(case.shape.inner_len());
        Ok(Self {
            world: World::new(traffic, case.peers, batch)?,
            cipher: Cipher::new(plain_len),
        })
    }

    /// Engine and cipher in turn, until the engine has worked for that long.
    fn trial(&mut self, direction: Direction, engine_time: Duration) -> Result<Trial> {
        let mut trial = Trial::default();
        // The first batch after the other direction finds its caches taken.
        self.batch(direction)?;
        let mut passed = Instant::now();
        while trial.work.elapsed < engine_time {
            let work = self.batch(direction)?;
            trial.work += work;
            trial.engine.record(work.elapsed, work.packets);
            let cipher = match direction {
                Direction::Seal => self.cipher.seal(work.packets),
                Direction::Open => self.cipher.open(work.packets),
            };
            trial.cipher.record(cipher, work.packets);
            if passed.elapsed() > Duration::from_secs(1) {
                self.world.pass_time()?;
                passed = Instant::now();
            }
        }
        Ok(trial)
    }

    fn batch(&mut self, direction: Direction) -> Result<Work> {
        match direction {
            Direction::Seal => self.world.seal(),
            Direction::Open => self.world.open(),
        }
    }
}

impl Trial {
    fn engine_ns(&self) -> f64 {
        self.engine.median_ns()
    }

    fn cipher_ns(&self) -> f64 {
        self.cipher.median_ns()
    }
}

impl Measured {
    fn new() -> Self {
        Self {
            engine_ns: Vec::new(),
            cipher_ns: Vec::new(),
            batches: Batches::new(),
            flows_evicted: 0,
        }
    }

    fn add(&mut self, trial: &Trial) {
        self.engine_ns.push(trial.engine_ns());
        self.cipher_ns.push(trial.cipher_ns());
        self.batches.add(&trial.engine);
    }
}

fn row(case: &Case, direction: Direction, measured: &Measured, mhz: Option<f64>) -> Row {
    let ns = &measured.engine_ns;
    let pairs = measured.cipher_ns.iter().zip(ns);
    let share: Vec<f64> = pairs.map(|(cipher, engine)| cipher / engine).collect();
    let bits = case.shape.inner_len() as f64 * 8.0;
    let mut row = Row::default()
        .label("frame", case.shape.to_string())
        .label("inner_bytes", case.shape.inner_len() as u64)
        .label("flows", case.flows)
        .label("peers", case.peers as u64)
        .label("direction", direction.name())
        .label("workers", 1)
        .figure("ns_per_packet", Figure::new("ns", ns.clone()))
        .figure("packets_per_s", per_second(ns, 1.0))
        .figure("bits_per_s", per_second(ns, bits))
        .figure(
            "aead_ns_per_packet",
            Figure::new("ns", measured.cipher_ns.clone()),
        )
        .figure("of_aead", Figure::new("", share))
        .figure(
            "flows_evicted",
            Figure::new("", vec![measured.flows_evicted as f64]),
        );
    if let Some(mhz) = mhz {
        let cycles = ns.iter().map(|ns| ns * mhz / 1e3).collect();
        row = row.figure("cycles_per_packet", Figure::new("cycles", cycles));
    }
    row
}

/// The shares at 1420 bytes, one flow and one peer, where they were measured.
fn checks(rows: &[Row]) -> Vec<Check> {
    let is_plain = |row: &&Row| {
        row.is(&[
            ("inner_bytes", 1420.into()),
            ("flows", 1.into()),
            ("peers", 1.into()),
        ])
    };
    let check = |row: &Row| {
        let frame = row.labels.get("frame")?.as_str()?;
        let direction = row.labels.get("direction")?.as_str()?;
        let target = match direction {
            "seal" => SEAL_TARGET,
            _ => OPEN_TARGET,
        };
        let share = row.figures.get("of_aead")?.median;
        let name = format!("{direction}_{frame}_of_aead");
        Some(Check::at_least(name, share, target))
    };
    rows.iter().filter(is_plain).filter_map(check).collect()
}

fn columns() -> Vec<Column> {
    vec![
        Column::label("frame", "frame"),
        Column::label("flows", "flows"),
        Column::label("peers", "peers"),
        Column::label("way", "direction"),
        Column::median("ns/pkt", "ns_per_packet", 1.0, 0),
        Column::spread("±", "ns_per_packet"),
        Column::median("cycles", "cycles_per_packet", 1.0, 0),
        Column::median("Gbit/s", "bits_per_s", 1e-9, 2),
        Column::median("AEAD", "aead_ns_per_packet", 1.0, 0),
        Column::median("of AEAD %", "of_aead", 100.0, 1),
    ]
}

fn plots(rows: &[Row]) -> Vec<Plot> {
    let series = |direction: Direction, figure: &str, select: &dyn Fn(&Row) -> Option<String>| {
        let of_direction = rows
            .iter()
            .filter(|row| row.is(&[("direction", direction.name().into())]));
        let points = of_direction.filter_map(|row| {
            let figure = row.figures.get(figure)?;
            Some(Point {
                x: select(row)?,
                y: figure.median,
                min: figure.min,
                max: figure.max,
            })
        });
        Series {
            name: direction.name().to_owned(),
            points: points.collect(),
        }
    };
    let by_frame = |row: &Row| {
        let single = row.is(&[("flows", 1.into()), ("peers", 1.into())]);
        let frame = row.labels.get("frame")?.as_str()?;
        single.then(|| frame.to_owned())
    };
    let by_load = |row: &Row| {
        let is_mtu = row.is(&[("frame", "1420".into())]);
        let label = |name: &str| row.labels.get(name)?.as_u64();
        let (flows, peers) = (label("flows")?, label("peers")?);
        is_mtu.then(|| format!("{} x {}", short(flows), short(peers)))
    };
    let plot = |name: &str, title: &str, y_title: &str, series: Vec<Series>, mark| Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        y_title: y_title.to_owned(),
        kind: Kind::Bars,
        series,
        mark,
    };
    let both = |figure: &str, select: &dyn Fn(&Row) -> Option<String>| {
        Direction::ALL
            .map(|direction| series(direction, figure, select))
            .to_vec()
    };
    vec![
        plot(
            "engine-of-aead",
            "Share of the cipher's limit: one worker, one flow, one peer",
            "share, by frame from the TUN",
            both("of_aead", &by_frame),
            Some((1.0, "cipher alone".to_owned())),
        ),
        plot(
            "engine-load",
            "Time per packet of 1420 bytes by load",
            "ns, by number of flows x peers",
            both("ns_per_packet", &by_load),
            None,
        ),
    ]
}

/// A count as axes have it.
fn short(count: u64) -> String {
    match count {
        millions if millions >= 1_000_000 && millions % 1_000_000 == 0 => {
            format!("{}M", millions / 1_000_000)
        }
        thousands if thousands >= 1000 && thousands % 1000 == 0 => format!("{}k", thousands / 1000),
        count => count.to_string(),
    }
}
