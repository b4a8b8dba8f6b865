//! Counting under valgrind, and comparing with the baseline in the tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use patronus_bench::stats;
use serde::{Deserialize, Serialize};

use crate::cases::CASES;

/// Growth that fails the gate.
const GROWTH_MAX: f64 = 0.03;
/// Runs of each case, whose spread shows that random keys do not matter.
const RUNS: usize = 3;

/// What `baseline.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Baseline {
    /// The compiler whose code was counted; another one's is not comparable.
    rustc: String,
    /// The ciphers' code by what valgrind shows of the processor: `avx2` or `sse`.
    cipher_code: String,
    /// Instructions per packet.
    cases: BTreeMap<String, f64>,
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Finding {
    Same,
    Grew,
    Shrank,
    New,
}

/// Counts all cases; compares them with the baseline, or makes them the baseline. `false` when something grew.
pub fn gate(bless: bool) -> Result<bool> {
    let path = baseline_path();
    let baseline = match (read(&path), bless) {
        (Ok(baseline), _) => Some(baseline),
        (Err(_), true) => None,
        (Err(error), false) => return Err(error),
    };
    check_valgrind()?;
    println!(
        " {:<29} {:>11} {:>9} {:>11} {:>8}",
        "case", "instr/pkt", "spread", "baseline", "change"
    );
    let mut counted = BTreeMap::new();
    let mut failed = Vec::new();
    for (name, rounds) in CASES {
        let runs: Vec<f64> = (0..RUNS)
            .map(|_| count(name, rounds))
            .collect::<Result<_>>()
            .with_context(|| format!("counting {name}"))?;
        let value = stats::median(&runs);
        let old = baseline
            .as_ref()
            .and_then(|baseline| baseline.cases.get(name));
        let finding = judge(value, old.copied());
        println!(
            "{}",
            line(
                name,
                value,
                stats::half_spread(&runs),
                old.copied(),
                finding
            )
        );
        if matches!(finding, Finding::Grew | Finding::New) {
            failed.push(name);
        }
        counted.insert(name.to_owned(), (value * 10.0).round() / 10.0);
    }
    let current = Baseline {
        rustc: env!("PATRONUS_RUSTC").to_owned(),
        cipher_code: cipher_code().to_owned(),
        cases: counted,
    };
    if bless {
        let text = serde_json::to_string_pretty(&current)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("RESULT blessed={} verdict=none", path.display());
        return Ok(true);
    }
    if let Some(why) = baseline.and_then(|baseline| incomparable(&baseline, &current)) {
        println!("RESULT verdict=none: {why}, so this only informs");
        return Ok(true);
    }
    match failed.as_slice() {
        [] => println!("RESULT verdict=pass"),
        failed => println!(
            "RESULT verdict=fail: {}. If it is worth it, run `bench/icount/run --bless` and commit the baseline",
            failed.join(", ")
        ),
    }
    Ok(failed.is_empty())
}

fn judge(value: f64, old: Option<f64>) -> Finding {
    match old {
        None => Finding::New,
        Some(old) if value > old * (1.0 + GROWTH_MAX) => Finding::Grew,
        Some(old) if value < old * (1.0 - GROWTH_MAX) => Finding::Shrank,
        Some(_) => Finding::Same,
    }
}

fn line(name: &str, value: f64, spread: f64, old: Option<f64>, finding: Finding) -> String {
    let word = match finding {
        Finding::Same => "",
        Finding::Grew => "  GREW",
        Finding::Shrank => "  shrank: bless it",
        Finding::New => "  not in the baseline",
    };
    let (before, change) = match old {
        Some(old) => (
            format!("{old:.1}"),
            format!("{:+.2}%", (value / old - 1.0) * 100.0),
        ),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let spread = format!("±{:.2}%", spread * 100.0);
    format!(" {name:<29} {value:>11.1} {spread:>9} {before:>11} {change:>8}{word}")
}

/// Why counts of two machines say nothing about the code.
fn incomparable(baseline: &Baseline, current: &Baseline) -> Option<String> {
    if baseline.rustc != current.rustc {
        return Some(format!(
            "the baseline is of {}, this is {}",
            baseline.rustc, current.rustc
        ));
    }
    (baseline.cipher_code != current.cipher_code).then(|| {
        format!(
            "the baseline counted {} ciphers, this machine has {}",
            baseline.cipher_code, current.cipher_code
        )
    })
}

/// Instructions per packet: what N rounds more cost, divided by what they treated.
fn count(name: &str, rounds: u64) -> Result<f64> {
    let short = callgrind(name, rounds)?;
    let long = callgrind(name, 2 * rounds)?;
    ensure!(
        long.packets > short.packets && long.instructions > short.instructions,
        "{} packets and {} instructions, then {} and {}: nothing was counted; were the `counted_` functions inlined?",
        short.packets,
        short.instructions,
        long.packets,
        long.instructions
    );
    let instructions = (long.instructions - short.instructions) as f64;
    Ok(instructions / (long.packets - short.packets) as f64)
}

struct Count {
    instructions: u64,
    packets: u64,
}

fn callgrind(name: &str, rounds: u64) -> Result<Count> {
    let this = std::env::current_exe().context("finding this program's file")?;
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*counted_*",
        ])
        .arg(this)
        .args(["case", name, &rounds.to_string()])
        .output()
        .context("starting valgrind")?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "valgrind ended with {}: {stderr}",
        output.status
    );
    let packets = stdout.trim().parse();
    Ok(Count {
        instructions: collected(&stderr)
            .with_context(|| format!("valgrind did not say what it collected: {stderr}"))?,
        packets: packets.with_context(|| format!("the case did not say its packets: {stdout}"))?,
    })
}

/// The number behind `Collected :` in callgrind's last lines.
fn collected(stderr: &str) -> Option<u64> {
    let line = stderr.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

fn check_valgrind() -> Result<()> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!("`valgrind --version` ended with {}", output.status),
        Err(error) => bail!("valgrind is missing ({error}): `apt-get install valgrind`"),
    }
}

fn read(path: &Path) -> Result<Baseline> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("no baseline {}: make one with --bless", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no baseline: make one with --bless", path.display()))
}

/// Which of ring's ChaCha20-Poly1305 a processor gets; valgrind shows no AVX-512.
fn cipher_code() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") {
            "avx2"
        } else {
            "sse"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("icount/baseline.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(rustc: &str) -> Baseline {
        Baseline {
            rustc: rustc.to_owned(),
            cipher_code: "avx2".to_owned(),
            cases: BTreeMap::from([("parse".to_owned(), 100.0)]),
        }
    }

    #[test]
    fn three_per_cent_more_is_tolerated_and_more_is_not() {
        assert_eq!(judge(103.0, Some(100.0)), Finding::Same);
        assert_eq!(judge(103.1, Some(100.0)), Finding::Grew);
        assert_eq!(judge(96.9, Some(100.0)), Finding::Shrank);
        assert_eq!(judge(1.0, None), Finding::New);
    }

    #[test]
    fn another_compiler_or_another_cipher_only_informs() {
        let here = baseline("rustc 1.95.0");
        assert_eq!(incomparable(&here, &here), None);
        let why = incomparable(&baseline("rustc 1.96.0"), &here).unwrap();
        assert!(why.contains("1.96.0") && why.contains("1.95.0"), "{why}");
        let sse = Baseline {
            cipher_code: "sse".to_owned(),
            ..here.clone()
        };
        assert!(incomparable(&sse, &here).unwrap().contains("sse"));
    }

    #[test]
    fn the_count_is_read_from_what_callgrind_says_last() {
        let text = "==1== Events    : Ir\n==1== Collected : 123456\n==1==\n";
        assert_eq!(collected(text), Some(123_456));
        assert_eq!(collected("==1== nothing"), None);
    }

    #[test]
    fn the_baseline_in_the_tree_has_every_case() {
        let baseline = read(&baseline_path()).unwrap();
        let cases: Vec<&str> = baseline.cases.keys().map(String::as_str).collect();
        let mut wanted: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        wanted.sort_unstable();
        assert_eq!(cases, wanted);
    }
}
