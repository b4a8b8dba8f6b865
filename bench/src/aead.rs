//! `patronus bench aead`: what the cipher alone carries on one core, per packet size.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use patronus_aead::Backend;

use crate::cipher::Cipher;
use crate::pin;
use crate::report::{
    Check, Column, Env, Figure, Kind, Plot, Point, Report, Row, SCHEMA, Series, Table, Verdict,
};
use crate::stats::Batches;

/// What to measure.
#[derive(Clone, Debug)]
pub struct AeadOptions {
    /// Plaintext bytes of the packets; empty for [`SIZES`].
    pub sizes: Vec<usize>,
    /// The core to run on; `None` for the last that this process may use.
    pub core: Option<usize>,
    /// Trials per size, at least one.
    pub trials: usize,
    /// Time of one trial in one direction, in seconds.
    pub seconds: f64,
    /// A few milliseconds, to prove that the tool works.
    pub quick: bool,
    /// The command line, for the report.
    pub command: String,
}

/// RFC 2544's sizes, WireGuard's MTU, and one where the cost per packet hardly counts.
pub const SIZES: [usize; 8] = [64, 128, 256, 512, 1024, 1280, 1420, 8192];
/// The largest packet worth measuring, in bytes.
const SIZE_MAX: usize = 65_535;

/// Both directions of one size, a value per trial.
struct Case {
    backend: Backend,
    size: usize,
    cipher: Cipher,
    seal_ns: Vec<f64>,
    open_ns: Vec<f64>,
}

/// Measures all sizes in turn, trial after trial.
///
/// # Errors
/// Options that make no sense, or a core that cannot be had.
pub fn aead(options: &AeadOptions) -> Result<Report> {
    ensure!(options.trials > 0, "0 trials: --trials is at least 1");
    let sizes = match options.sizes.as_slice() {
        [] => &SIZES,
        sizes => sizes,
    };
    for size in sizes {
        ensure!(
            *size <= SIZE_MAX,
            "--sizes {size}: a packet has at most {SIZE_MAX} bytes"
        );
    }
    let (trials, seconds) = match options.quick {
        true => (2, 0.002),
        false => (options.trials, options.seconds),
    };
    ensure!(
        seconds > 0.0 && seconds <= 60.0,
        "--seconds {seconds}: a trial takes more than 0 and at most 60 seconds"
    );
    let env = Env::read(&options.command)?;
    let core = pin::choose(options.core)?;
    let cases = pin::on_core(core, || Ok(run(sizes, trials, seconds)))?;
    Ok(report(options, env, core, trials, seconds, cases))
}

fn run(sizes: &[usize], trials: usize, seconds: f64) -> Vec<Case> {
    let mut cases: Vec<Case> = Backend::available()
        .flat_map(|backend| sizes.iter().map(move |size| (backend, *size)))
        .filter_map(|(backend, size)| {
            Some(Case {
                backend,
                size,
                cipher: Cipher::with_backend(backend, size)?,
                seal_ns: Vec::with_capacity(trials),
                open_ns: Vec::with_capacity(trials),
            })
        })
        .collect();
    let time = Duration::from_secs_f64(seconds);
    for number in 1..=trials {
        for case in &mut cases {
            case.seal_ns
                .push(trial(&mut case.cipher, Cipher::seal, time));
            case.open_ns
                .push(trial(&mut case.cipher, Cipher::open, time));
        }
        eprintln!("bench aead: trial {number} of {trials}");
    }
    cases
}

/// Nanoseconds per packet of the batch in the middle, of batches that take `time` together.
fn trial(cipher: &mut Cipher, run: impl Fn(&mut Cipher, u64) -> Duration, time: Duration) -> f64 {
    // How many packets are a batch is asked first; that also warms everything up.
    let per_packet = run(cipher, WARM_PACKETS).as_secs_f64() / WARM_PACKETS as f64;
    let packets = (BATCH_S / per_packet.max(1e-9)).ceil().max(1.0) as u64;
    let mut batches = Batches::new();
    let mut spent = Duration::ZERO;
    while spent < time {
        let elapsed = run(cipher, packets);
        batches.record(elapsed, packets);
        spent += elapsed;
    }
    batches.median_ns()
}

fn report(
    options: &AeadOptions,
    env: Env,
    core: usize,
    trials: usize,
    seconds: f64,
    cases: Vec<Case>,
) -> Report {
    let mut rows = Vec::new();
    let mut checks = Vec::new();
    let mut series = Vec::new();
    let lines = Backend::available().flat_map(|it| ["seal", "open"].map(|way| (it, way)));
    for (backend, direction) in lines {
        let mut points = Vec::new();
        for case in cases.iter().filter(|case| case.backend == backend) {
            let ns = match direction {
                "seal" => &case.seal_ns,
                _ => &case.open_ns,
            };
            let bits_per_s = per_second(ns, case.size as f64 * 8.0);
            points.push(Point {
                x: case.size.to_string(),
                y: bits_per_s.median / 1e9,
                min: bits_per_s.min / 1e9,
                max: bits_per_s.max / 1e9,
            });
            if case.size == 1420 {
                let gbps = bits_per_s.median / 1e9;
                checks.push(Check::figure(
                    format!("{backend}_{direction}_1420_gbps"),
                    gbps,
                ));
            }
            let row = Row::default()
                .label("cipher", backend.to_string())
                .label("bytes", case.size as u64)
                .label("direction", direction)
                .figure("ns_per_packet", Figure::new("ns", ns.clone()))
                .figure("packets_per_s", per_second(ns, 1.0))
                .figure("bits_per_s", bits_per_s);
            rows.push(row);
        }
        series.push(Series {
            name: format!("{backend}, {direction}"),
            points,
        });
    }
    let method = BTreeMap::from([
        ("core".to_owned(), core.into()),
        ("trials".to_owned(), trials.into()),
        ("trial_s".to_owned(), seconds.into()),
        (
            "gateway_takes".to_owned(),
            Backend::best().to_string().into(),
        ),
        ("where".to_owned(), "in place, first-level cache".into()),
        ("value".to_owned(), "median batch of each trial".into()),
    ]);
    Report {
        schema: SCHEMA,
        bench: "aead".to_owned(),
        is_measurement: !options.quick,
        notes: vec![
            "the cipher alone, a fresh nonce and a tag per packet: the limit that `bench engine` is a fraction of; \
             Gbit/s are bits of plaintext"
                .to_owned(),
        ],
        env,
        method,
        tables: vec![Table {
            title: "Time and rate per packet, median of trials".to_owned(),
            columns: columns(),
            rows: (0..rows.len()).collect(),
        }],
        rows,
        verdict: Verdict::of(checks, !options.quick),
        plots: vec![Plot {
            name: "aead-rate".to_owned(),
            title: "ChaCha20-Poly1305 on one core".to_owned(),
            y_title: "Gbit/s by packet size in bytes".to_owned(),
            kind: Kind::Lines,
            series,
            mark: None,
        }],
        distributions: Vec::new(),
    }
}

/// Trials of nanoseconds each as trials of `amount` per second.
pub(crate) fn per_second(ns: &[f64], amount: f64) -> Figure {
    let unit = if amount == 1.0 { "1/s" } else { "bit/s" };
    Figure::new(unit, ns.iter().map(|ns| amount * 1e9 / ns).collect())
}

fn columns() -> Vec<Column> {
    vec![
        Column::label("cipher", "cipher"),
        Column::label("bytes", "bytes"),
        Column::label("direction", "direction"),
        Column::median("ns/packet", "ns_per_packet", 1.0, 1),
        Column::spread("spread", "ns_per_packet"),
        Column::median("Mpps", "packets_per_s", 1e-6, 3),
        Column::median("Gbit/s", "bits_per_s", 1e-9, 2),
    ]
}

const WARM_PACKETS: u64 = 256;
/// A batch is short beside the time that a scheduler gives a thread.
const BATCH_S: f64 = 200e-6;
