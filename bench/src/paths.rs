//! `patronus bench paths`: what it costs a hub to measure the paths to many sites.
//!
//! A hub and its far sites are engines in memory, as in [`crate::world`], with two uplinks each; hellos travel between
//! them on virtual time, so that a minute of 500 sites takes a few seconds. What is counted is the time of the hub's
//! calls: timers, sealing, opening, estimators and selection. System calls and wake-ups are the daemon's and not in it.

mod mesh;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::pin;
use crate::report::{Check, Column, Env, Figure, Report, Row, SCHEMA, Table, Verdict};
use crate::stats::median;

use mesh::{Mesh, Second};

/// What to measure.
#[derive(Clone, Debug)]
pub struct PathsOptions {
    /// Far sites, with two paths each.
    pub peers: usize,
    /// Those of them that exchange a packet every second.
    pub active: usize,
    /// Seconds of virtual time that are measured.
    pub seconds: usize,
    /// The core to run on; `None` for the last that this process may use.
    pub core: Option<usize>,
    /// A few sites and seconds, to prove that the tool works.
    pub quick: bool,
    /// The command line, for the report.
    pub command: String,
}

/// The largest share of a core that measuring paths may take.
pub const CORE_TARGET: f64 = 0.10;

/// Lets a hub measure its paths for a while.
///
/// # Errors
/// Options that make no sense, a core that cannot be had, or paths that do not come up.
pub fn paths(options: &PathsOptions) -> Result<Report> {
    let (peers, seconds) = match options.quick {
        true => (options.peers.min(QUICK_PEERS), options.seconds.min(2)),
        false => (options.peers, options.seconds),
    };
    let active = options.active.min(peers);
    ensure!(
        (1..=PEERS_MAX).contains(&peers),
        "--peers {peers}: 1 to {PEERS_MAX}"
    );
    ensure!(
        (1..=SECONDS_MAX).contains(&seconds),
        "--seconds {seconds}: 1 to {SECONDS_MAX}"
    );
    let env = Env::read(&options.command)?;
    let core = pin::choose(options.core)?;
    let (measured, starved) = pin::on_core(core, || {
        eprintln!("bench paths: {peers} sites meet");
        let mut mesh = Mesh::new(peers, active)?;
        mesh.warm_up()?;
        let mut measured = Vec::with_capacity(seconds);
        for second in 1..=seconds {
            if second % 10 == 0 {
                eprintln!("bench paths: second {second} of {seconds}");
            }
            measured.push(mesh.second()?);
        }
        mesh.check()?;
        Ok((measured, mesh.starved()))
    })?;
    Ok(report(
        options,
        env,
        core,
        (peers, active),
        &measured,
        starved,
    ))
}

fn report(
    options: &PathsOptions,
    env: Env,
    core: usize,
    (peers, active): (usize, usize),
    measured: &[Second],
    starved: u64,
) -> Report {
    let values = |of: fn(&Second) -> f64| measured.iter().map(of).collect::<Vec<f64>>();
    let busy = values(|second| second.busy.as_secs_f64());
    let longest = measured.iter().map(|second| second.longest).max();
    let longest = longest.unwrap_or_default();
    let downs: u64 = measured.iter().map(|second| second.downs).sum();
    let once = |unit, value: f64| Figure::new(unit, vec![value]);
    let row = Row::default()
        .label("peers", peers)
        .label("active", active)
        .figure("core_share", Figure::new("", busy.clone()))
        .figure("sent", Figure::new("1/s", values(|it| it.sent as f64)))
        .figure(
            "received",
            Figure::new("1/s", values(|it| it.received as f64)),
        )
        .figure("longest_call_ns", once("ns", longest.as_nanos() as f64))
        .figure("downs", once("", downs as f64))
        .figure("starved", once("", starved as f64));
    let is_measurement = !options.quick;
    let checks = vec![
        Check::at_most("core_share", median(&busy), CORE_TARGET),
        Check::at_most("downs", downs as f64, 0.0),
        Check::at_most("starved", starved as f64, 0.0),
    ];
    Report {
        schema: SCHEMA,
        bench: "paths".to_owned(),
        is_measurement,
        notes: vec![
            "the time of the hub's engine in each second of virtual time; the daemon's system calls and wake-ups come \
             on top: one sendmsg and one receive for each message, or one for several that wait"
                .to_owned(),
            "active sites exchange a packet each way every second, so that both of their paths are probed at the fast \
             cadence of wired uplinks; the others are probed once a second"
                .to_owned(),
            "a path that went down or a prober that was late would show: virtual time stands still during a call, so \
             the longest call is what a hello may be late by"
                .to_owned(),
        ],
        env,
        method: BTreeMap::from([
            ("core".to_owned(), core.into()),
            ("seconds".to_owned(), measured.len().into()),
            ("paths_per_peer".to_owned(), mesh::UPLINKS.into()),
            ("active_interval_ms".to_owned(), ms(mesh::CADENCE.active)),
            ("idle_interval_ms".to_owned(), ms(mesh::CADENCE.idle)),
            ("one_way_ms".to_owned(), ms(mesh::ONE_WAY)),
        ]),
        rows: vec![row],
        verdict: Verdict::of(checks, is_measurement),
        tables: vec![Table {
            title: "Measuring paths".to_owned(),
            columns: vec![
                Column::label("peers", "peers"),
                Column::label("active", "active"),
                Column::median("% of a core", "core_share", 100.0, 2),
                Column::spread("spread", "core_share"),
                Column::median("sent/s", "sent", 1.0, 0),
                Column::median("received/s", "received", 1.0, 0),
                Column::median("longest call us", "longest_call_ns", 1e-3, 0),
                Column::median("downs", "downs", 1.0, 0),
                Column::median("starved", "starved", 1.0, 0),
            ],
            rows: vec![0],
        }],
        plots: Vec::new(),
        distributions: Vec::new(),
    }
}

fn ms(time: Duration) -> serde_json::Value {
    (time.as_secs_f64() * 1e3).into()
}

const QUICK_PEERS: usize = 8;
/// As many as have addresses in the mesh.
const PEERS_MAX: usize = 16_384;
const SECONDS_MAX: usize = 3600;
