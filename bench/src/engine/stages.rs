//! Where an engine's time goes, stage by stage, in a run of its own: a clock at every stage would spoil the others.

use anyhow::{Context, Result};
use patronus_engine::stages::{Stage, StageTimes};

use super::cases::Case;
use super::{Bench, Conduct, Direction};
use crate::report::{Column, Figure, Row};
use crate::world::clock_ns;

/// Whether a case gets a row of stages: the plain ones do.
pub(super) fn is_metered(case: &Case) -> bool {
    case.flows == 1 && case.peers == 1
}

/// A row per direction: nanoseconds per packet of every stage, what reading the clock took subtracted.
pub(super) fn measure(case: &Case, conduct: Conduct) -> Result<Vec<Row>> {
    let mut bench = Bench::new(case, conduct.batch)?;
    let mut rows = Vec::new();
    for direction in Direction::ALL {
        let mut trials: Vec<PerStage> = Vec::new();
        for _ in 0..conduct.trials {
            bench.world.pass_time()?;
            let reading_ns = reading_ns();
            bench.world.meter_stages(true);
            let trial = bench.trial(direction, conduct.trial)?;
            let times = bench.world.stage_times().context("the meter is on")?;
            bench.world.meter_stages(false);
            // The first batch of a trial is worked and not counted; it has as many packets as any.
            let batches = trial.engine.histogram().len() as f64;
            let packets = trial.work.packets as f64 * (batches + 1.0) / batches.max(1.0);
            trials.push(per_packet(&times, reading_ns, packets));
        }
        rows.push(row(case, direction, &trials));
    }
    Ok(rows)
}

/// Nanoseconds per packet; `None` for a stage that the direction does not have.
type PerStage = [Option<f64>; Stage::ALL.len()];

fn per_packet(times: &StageTimes, reading_ns: f64, packets: f64) -> PerStage {
    std::array::from_fn(|at| {
        let own = times.spent[at] as f64 - times.laps[at] as f64 * reading_ns;
        (times.laps[at] > 0).then(|| own.max(0.0) / packets.max(1.0))
    })
}

/// What one reading of the clock takes: the least of several blocks, since one that was interrupted would be
/// subtracted from every stage.
fn reading_ns() -> f64 {
    let block = || {
        let began = clock_ns();
        let mut last = began;
        for _ in 0..READINGS {
            last = clock_ns();
        }
        (last - began) as f64 / READINGS as f64
    };
    (0..BLOCKS).map(|_| block()).fold(f64::INFINITY, f64::min)
}

fn row(case: &Case, direction: Direction, trials: &[PerStage]) -> Row {
    let mut row = Row::default()
        .label("frame", case.shape.to_string())
        .label("inner_bytes", case.shape.inner_len() as u64)
        .label("direction", direction.name())
        .label("part", "stages");
    for (at, stage) in Stage::ALL.into_iter().enumerate() {
        let values: Vec<f64> = trials.iter().filter_map(|trial| trial[at]).collect();
        if !values.is_empty() {
            row = row.figure(figure_name(stage), Figure::new("ns", values));
        }
    }
    row
}

pub(super) fn columns() -> Vec<Column> {
    let mut columns = vec![
        Column::label("frame", "frame"),
        Column::label("way", "direction"),
    ];
    columns
        .extend(Stage::ALL.map(|stage| Column::median(stage.name(), figure_name(stage), 1.0, 1)));
    columns
}

fn figure_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Parse => "parse_ns",
        Stage::Flow => "flow_ns",
        Stage::Cut => "cut_ns",
        Stage::Seal => "seal_ns",
        Stage::Session => "session_ns",
        Stage::Open => "open_ns",
        Stage::Join => "join_ns",
    }
}

const READINGS: u32 = 256;
const BLOCKS: u32 = 16;
