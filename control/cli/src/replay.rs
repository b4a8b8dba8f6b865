//! `patronus replay`: what a gateway decided about its paths, decided again from a recorded trace, and what other bounds
//! would have decided.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use patronus_path::trace::{
    ClassComparison, ClassUsage, Comparison, GAP_LIMITS_MS, GapHistogram, Line, Override, Pair,
    Replayed, compare, replay,
};
use serde::Serialize;

use crate::print;

/// Shown below the options.
pub const HELP: &str = "\
A trace has one JSON object per line; the first holds the state that recording
began with. The same trace gives the same decisions and the same log.

Keys of --set, all below class.NAME:
  latency_ms, jitter_ms, loss_pct   SOFT,HARD or none
  protect                           true or false
  prefer                            numbers of uplinks, best first, or none
  target_bps                        of a class that is scored by throughput

In the log, a path's columns are: state, tier (0 best to 4 unusable), score,
round trip, jitter, loss. A * marks the path that was chosen.

Examples:
  patronus replay branch.jsonl
  patronus replay branch.jsonl --set class.realtime.loss_pct=2,6
  patronus replay - --json < branch.jsonl";

/// What to replay.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The trace; - reads standard input
    trace: PathBuf,
    /// Replay with this value too, and say what would have changed; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_override)]
    set: Vec<(String, Override)>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// What `--json` prints with `--set`.
#[derive(Serialize)]
struct Answer<'a> {
    recorded: &'a Replayed,
    changed: &'a Replayed,
    comparison: &'a Comparison,
}

/// Replays.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let lines = read(&args.trace)?;
    let name = args.trace.display();
    let base = replay(&lines, &[]).with_context(|| format!("cannot replay {name}"))?;
    if args.set.is_empty() {
        match args.json {
            true => print::json(&base)?,
            false => print::text_out(&one(&base)),
        }
        return Ok(());
    }
    let overrides: Vec<Override> = args.set.iter().map(|(_, change)| change.clone()).collect();
    let other = replay(&lines, &overrides)
        .with_context(|| format!("cannot replay {name} with other values"))?;
    let comparison = compare(&base, &other);
    match args.json {
        true => print::json(&Answer {
            recorded: &base,
            changed: &other,
            comparison: &comparison,
        })?,
        false => {
            let set: Vec<&str> = args.set.iter().map(|(text, _)| text.as_str()).collect();
            print::text_out(&two(&base, &set, &comparison));
        }
    }
    Ok(())
}

fn parse_override(text: &str) -> Result<(String, Override), String> {
    let parsed = text.parse::<Override>();
    let change = parsed.map_err(|error| error.to_string())?;
    Ok((text.to_owned(), change))
}

fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    if path == Path::new("-") {
        return parse(std::io::stdin().lock(), "standard input");
    }
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    parse(BufReader::new(file), &name)
}

/// The lines of a trace. A last line that was cut short, as by a gateway that was killed, is left out.
fn parse(mut input: impl BufRead, name: &str) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut bytes = Vec::new();
    for number in 1_usize.. {
        bytes.clear();
        let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes);
        if read.with_context(|| format!("cannot read {name}"))? == 0 {
            break;
        }
        if bytes.len() as u64 == LINE_MAX {
            bail!("{name}: line {number} is longer than {LINE_MAX} bytes: is this a trace?");
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(&bytes) {
            Ok(line) => lines.push(line),
            Err(error) if error.is_eof() && !bytes.ends_with(b"\n") => {
                eprintln!("note: {name}: line {number} is cut short and left out");
            }
            Err(error) => bail!("{name}: line {number}: {}", explained(&bytes, &error)),
        }
    }
    Ok(lines)
}

/// An error with the field that it is about.
fn explained(line: &[u8], error: &serde_json::Error) -> String {
    let before = &line[..error.column().min(line.len())];
    let text = error.to_string();
    // The parser counts lines of what it got, which is one.
    let text = text.split(" at line ").next().unwrap_or(&text);
    let place = format!("column {}", error.column());
    match last_key(&String::from_utf8_lossy(before)) {
        Some(field) => format!("field `{field}`: {text} ({place})"),
        None => format!("{text} ({place}): a line is one JSON object, such as {{\"timeout\":0}}"),
    }
}

/// The last key of a JSON text that was cut somewhere.
fn last_key(text: &str) -> Option<&str> {
    let colon = text.match_indices("\":").last()?.0;
    let start = text[..colon].rfind('"')? + 1;
    Some(&text[start..colon])
}

fn one(replayed: &Replayed) -> String {
    let mut text = print::wrapped(&headline(replayed), 4);
    if !replayed.log.is_empty() {
        text += "\n";
        text += &replayed.log;
    }
    text += "\nclass                 switches  SLA seconds lost  cuts\n";
    for usage in &replayed.usage {
        let ClassUsage {
            class,
            switches,
            sla_lost_s,
            gaps,
        } = usage;
        let cuts: u32 = gaps.counts.iter().sum();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{class:<20} {switches:>9} {sla_lost_s:>17.1} {cuts:>5}"
        );
    }
    let cuts = replayed
        .usage
        .iter()
        .map(|usage| (&usage.class, usage.gaps));
    for (class, gaps) in cuts {
        for (limit, count) in limits().zip(gaps.counts).filter(|(_, count)| *count > 0) {
            let _ = writeln!(text, "cuts of {class}, {limit}: {count}");
        }
    }
    text
}

fn two(base: &Replayed, set: &[&str], comparison: &Comparison) -> String {
    let mut text = print::wrapped(&headline(base), 4);
    text += &print::wrapped(&format!("with {}", set.join(" ")), 4);
    if comparison.changes.is_empty() {
        text += "\nevery decision would have been the same\n";
    } else {
        text += "\ndecisions that would not have been made (-) or would have (+):\n";
    }
    for change in &comparison.changes {
        let mark = if change.is_added { '+' } else { '-' };
        let at_s = change.decision.at.0 as f64 / 1e9;
        let line = format!("{mark} {at_s:.6} {}", change.decision.summary);
        text += &print::wrapped(&line, 4);
    }
    text += "\nclass                        switches    SLA seconds lost            cuts\n";
    for class in &comparison.classes {
        let ClassComparison {
            class,
            switches,
            sla_lost_s,
            gaps,
        } = class;
        let sum = |gaps: &GapHistogram| gaps.counts.iter().sum::<u32>();
        let cuts = Pair {
            base: sum(&gaps.base),
            other: sum(&gaps.other),
        };
        let switches = format!("{} -> {}", switches.base, switches.other);
        let lost_s = format!("{:.1} -> {:.1}", sla_lost_s.base, sla_lost_s.other);
        let cuts = format!("{} -> {}", cuts.base, cuts.other);
        let _ = writeln!(text, "{class:<20} {switches:>16} {lost_s:>19} {cuts:>15}");
    }
    for class in &comparison.classes {
        let Pair { base, other } = &class.gaps;
        let counts = limits().zip(base.counts).zip(other.counts);
        for ((limit, before), after) in counts.filter(|((_, a), b)| *a > 0 || *b > 0) {
            let _ = writeln!(
                text,
                "cuts of {}, {limit}: {before} -> {after}",
                class.class
            );
        }
    }
    text
}

fn headline(replayed: &Replayed) -> String {
    let (begin, end) = replayed.span;
    let decisions = print::count(replayed.decisions.len(), "decision", "decisions");
    let span_s = end.since(begin).as_secs_f64();
    format!("peer {}: {decisions} in {span_s:.1} s", replayed.peer)
}

/// The buckets of a histogram in words.
fn limits() -> impl Iterator<Item = String> {
    let named = GAP_LIMITS_MS.map(|limit_ms| format!("<= {limit_ms} ms"));
    let longest = GAP_LIMITS_MS
        .last()
        .map(|limit_ms| format!("> {limit_ms} ms"));
    named.into_iter().chain(longest)
}

/// The first line holds a whole selector: 16 paths under 8 classes take a tenth of this.
const LINE_MAX: u64 = 1 << 20;
