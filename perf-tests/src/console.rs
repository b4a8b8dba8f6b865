//! `patronus bench console`: how long the console takes to its first picture, and what it costs while it is open.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::terminal::Terminal;
use crate::{LiveDemo, LiveOptions, Stop, proc};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// Number of sites, 2 to 8.
    pub sites: usize,
    /// Starts for each size of terminal.
    pub trials: usize,
    /// How long each of them is open for its CPU.
    pub seconds: f64,
    /// The `patronus` binary: gateways and consoles.
    pub binary: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct ConsoleFigures {
    /// Number of sites.
    pub sites: usize,
    /// Length of each window in seconds.
    pub seconds: f64,
    /// By size of terminal.
    pub rows: Vec<ConsoleRow>,
    /// Tasks that could run over the last minute, as the kernel averages them: before and after.
    pub load: (f64, f64),
    /// Share of the time in which some task was ready and had no core, in percent, where the kernel tells.
    pub core_wait_pct: Option<f64>,
}

/// One size of terminal.
#[derive(Clone, Debug)]
pub struct ConsoleRow {
    /// Columns and rows.
    pub size: (u16, u16),
    /// From the start of the program to the end of the first frame with the gateway's data, in ns.
    pub first_frame_ns: Vec<f64>,
    /// CPU time of the open console per second, all its threads.
    pub cpu_share: Vec<f64>,
}

/// Sizes of terminals: the smallest one, and a large one.
const SIZES: [(u16, u16); 2] = [(80, 24), (160, 50)];
/// Far longer than it takes.
const FRAME_MAX: Duration = Duration::from_secs(30);
/// Nothing written for this long ends a frame.
const QUIET: Duration = Duration::from_millis(15);

/// Measures: consoles of the first of some sites under the traffic of `patronus demo --console`, one after the other.
///
/// Call it before the process has threads of its own: without root it enters a user namespace.
///
/// # Errors
/// As [`LiveDemo::up`]; a console that shows nothing or does not end.
pub fn console(options: &ConsoleOptions) -> Result<ConsoleFigures> {
    ensure!(options.trials > 0, "no trials");
    let window = Duration::try_from_secs_f64(options.seconds)
        .with_context(|| format!("{} is no length of time", options.seconds))?;
    let demo = LiveDemo::up(&LiveOptions {
        sites: options.sites,
        binary: options.binary.clone(),
    })?;
    demo.settle(0)?;
    let (load, wait, begun) = (load()?, core_wait(), Instant::now());
    let mut rows = Vec::new();
    for size in SIZES {
        let mut row = ConsoleRow {
            size,
            first_frame_ns: Vec::new(),
            cpu_share: Vec::new(),
        };
        for _ in 0..options.trials {
            let socket = demo.socket(0)?;
            let (first, share) = trial(&options.binary, &socket, size, window, demo.stop())?;
            row.first_frame_ns.push(first.as_nanos() as f64);
            row.cpu_share.push(share);
        }
        rows.push(row);
    }
    let waited = wait.zip(core_wait()).map(|(before, after)| after - before);
    let core_wait_pct = waited.map(|it| it / begun.elapsed().as_secs_f64() * 100.0);
    let report = demo.down()?;
    ensure!(
        report.balanced,
        "a gateway does not account for every packet: {report}"
    );
    Ok(ConsoleFigures {
        sites: options.sites,
        seconds: options.seconds,
        rows,
        load: (load, self::load()?),
        core_wait_pct,
    })
}

/// Starts a console, waits for its picture, lets it be open for a while, and ends it.
fn trial(
    binary: &Path,
    socket: &Path,
    (columns, rows): (u16, u16),
    window: Duration,
    stop: &Stop,
) -> Result<(Duration, f64)> {
    let mut command = Command::new(binary);
    command.arg("console").arg("--socket").arg(socket);
    let begun = Instant::now();
    let (mut terminal, child) = Terminal::start(&mut command, columns, rows)?;
    let mut child = Ended(child);
    let first = first_frame(&terminal, begun, stop)?;
    let pid = child.0.id();
    let (cpu, from) = (proc::thread_seconds(pid)?, Instant::now());
    stop.sleep(window)?;
    let share = (proc::thread_seconds(pid)? - cpu) / from.elapsed().as_secs_f64();
    terminal.press("q")?;
    let asked = Instant::now();
    while child
        .0
        .try_wait()
        .context("waiting for the console")?
        .is_none()
    {
        ensure!(asked.elapsed() < FRAME_MAX, "the console does not end by q");
        stop.sleep(Duration::from_millis(5))?;
    }
    Ok((first, share))
}

/// When the last byte of the first whole frame came.
fn first_frame(terminal: &Terminal, begun: Instant, stop: &Stop) -> Result<Duration> {
    let mut whole_at = None;
    loop {
        stop.check()?;
        let (is_whole, changed) = {
            let display = terminal.display();
            (is_whole(&display.picture()), display.changed())
        };
        // Pieces of one frame come one after the other; the time that counts is that of the last of them.
        if is_whole && whole_at.is_none() {
            whole_at = changed;
        }
        if let (Some(whole), Some(changed)) = (whole_at, changed)
            && changed.elapsed() >= QUIET
        {
            return Ok(whole.saturating_duration_since(begun));
        }
        if begun.elapsed() > FRAME_MAX {
            bail!(
                "the console shows nothing: {}",
                terminal.display().picture()
            );
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Whether all parts of the overview are there, with data in them.
fn is_whole(picture: &str) -> bool {
    let parts = [
        "[1 Overview]",
        "TX ",
        "tunnels up",
        "Sites by traffic",
        "site2",
        "Events",
        "q quit",
    ];
    parts.iter().all(|part| picture.contains(part))
}

/// A program that does not outlive its measurement.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // One that has ended needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load() -> Result<f64> {
    let path = "/proc/loadavg";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().with_context(|| format!("{path}: {text}"))
}

/// Seconds in which some task had no core, since the machine was started.
fn core_wait() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().next()?.rsplit_once("total=")?.1;
    Some(total.trim().parse::<f64>().ok()? * 1e-6)
}
