//! How several engines on several cores compare with one: nothing is shared, so what is lost is the machine's.

use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result};

use super::cases::Case;
use super::{Bench, Conduct, Direction, TWO_WORKERS_TARGET};
use crate::pin;
use crate::report::{Check, Column, Figure, Kind, Plot, Point, Row, Series};
use crate::traffic::Shape;

/// What scaling adds to the report.
pub(super) struct Scaling {
    pub rows: Vec<Row>,
    pub plot: Plot,
    pub checks: Vec<Check>,
}

/// Packets per second of all threads together, in one trial.
#[derive(Clone, Copy, Default)]
struct Rates {
    engine: f64,
    cipher: f64,
}

/// 1 to `workers_max` engines in turn, trial after trial; there are at least as many cores.
pub(super) fn measure(workers_max: usize, conduct: Conduct) -> Result<Scaling> {
    let cores = pin::cores()?;
    assert!(workers_max <= cores.len(), "the caller counts the cores");
    let case = Case {
        shape: Shape::BULK,
        flows: 1,
        peers: 1,
    };
    let mut rows = Vec::new();
    let mut checks = Vec::new();
    let mut series = Vec::new();
    for direction in Direction::ALL {
        let mut rates = vec![Vec::with_capacity(conduct.trials); workers_max];
        for trial in 1..=conduct.trials {
            for workers in 1..=workers_max {
                let sum = at_once(&case, direction, &cores[..workers], conduct)
                    .with_context(|| format!("{workers} workers at once"))?;
                rates[workers - 1].push(sum);
            }
            eprintln!(
                "bench engine: 1 to {workers_max} workers, {}: trial {trial} of {}",
                direction.name(),
                conduct.trials
            );
        }
        let mut points = Vec::new();
        for (at, of_workers) in rates.iter().enumerate() {
            let workers = at + 1;
            let speedup = ratio(of_workers, &rates[0], |rates| rates.engine);
            let cipher_speedup = ratio(of_workers, &rates[0], |rates| rates.cipher);
            points.push(Point {
                x: workers.to_string(),
                y: speedup.median,
                min: speedup.min,
                max: speedup.max,
            });
            if workers == 2 {
                let name = format!("{}_2_workers_speedup", direction.name());
                checks.push(Check::at_least(name, speedup.median, TWO_WORKERS_TARGET));
            }
            rows.push(row(
                &case,
                direction,
                workers,
                of_workers,
                speedup,
                cipher_speedup,
            ));
        }
        series.push(Series {
            name: direction.name().to_owned(),
            points,
        });
    }
    let plot = Plot {
        name: "engine-scaling".to_owned(),
        title: "Workers at once: rate as a multiple of one worker's".to_owned(),
        y_title: "multiple, by number of workers".to_owned(),
        kind: Kind::Lines,
        series,
        mark: None,
    };
    Ok(Scaling { rows, plot, checks })
}

/// One trial of an engine on each of these cores, begun together.
fn at_once(case: &Case, direction: Direction, cores: &[usize], conduct: Conduct) -> Result<Rates> {
    let ready = Barrier::new(cores.len());
    let trial = |core: usize| {
        pin::on_core(core, || {
            let bench = Bench::new(case, conduct.batch);
            // Before any error is returned, or the others would wait for ever.
            ready.wait();
            bench?.trial(direction, conduct.trial)
        })
    };
    let trials: Vec<Result<_>> = thread::scope(|scope| {
        let spawn = |core: &usize| {
            let (trial, core) = (&trial, *core);
            scope.spawn(move || trial(core))
        };
        let threads: Vec<_> = cores.iter().map(spawn).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    });
    let mut sum = Rates::default();
    for trial in trials {
        let trial = trial?;
        sum.engine += 1e9 / trial.engine_ns();
        sum.cipher += 1e9 / trial.cipher_ns();
    }
    Ok(sum)
}

/// Trial by trial, what `of` is as a multiple of `one`.
fn ratio(of: &[Rates], one: &[Rates], rate: impl Fn(&Rates) -> f64) -> Figure {
    let pairs = of.iter().zip(one);
    Figure::new("", pairs.map(|(of, one)| rate(of) / rate(one)).collect())
}

fn row(
    case: &Case,
    direction: Direction,
    workers: usize,
    rates: &[Rates],
    speedup: Figure,
    cipher_speedup: Figure,
) -> Row {
    let bits = case.shape.inner_len() as f64 * 8.0;
    let packets_per_s: Vec<f64> = rates.iter().map(|rates| rates.engine).collect();
    let bits_per_s = packets_per_s.iter().map(|rate| rate * bits).collect();
    let of_aead = rates.iter().map(|rates| rates.engine / rates.cipher);
    Row::default()
        .label("frame", case.shape.to_string())
        .label("inner_bytes", case.shape.inner_len() as u64)
        .label("flows", case.flows)
        .label("peers", case.peers as u64)
        .label("direction", direction.name())
        .label("workers", workers as u64)
        .figure("packets_per_s", Figure::new("1/s", packets_per_s))
        .figure("bits_per_s", Figure::new("bit/s", bits_per_s))
        .figure("of_aead", Figure::new("", of_aead.collect()))
        .figure("speedup", speedup)
        .figure("aead_speedup", cipher_speedup)
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::label("frame", "frame"),
        Column::label("way", "direction"),
        Column::label("workers", "workers"),
        Column::median("Gbit/s", "bits_per_s", 1e-9, 2),
        Column::median("speedup", "speedup", 1.0, 2),
        Column::spread("±", "speedup"),
        Column::median("AEAD's", "aead_speedup", 1.0, 2),
        Column::median("of AEAD %", "of_aead", 100.0, 1),
    ]
}
