//! Decisions as text of at most 80 columns.

use std::fmt::Write;

use crate::metrics::PathState;
use crate::record::Decision;

/// Adds one decision: when and what, then every path as it stood.
///
/// ```text
///    73.104512  realtime: wan0 -> wan1: wan0 violates loss
///   * wan1                 up       0  92.4   30.1 ms   1.0 ms   0.00 %
///     wan0                 up       1  84.0   20.2 ms   1.1 ms   2.63 %
///         violates loss
/// ```
pub(super) fn write(log: &mut String, decision: &Decision) {
    let at_s = decision.at.0 as f64 / 1e9;
    wrapped(log, &format!("{at_s:12.6}  {}", decision.summary));
    for candidate in &decision.candidates {
        let mark = if candidate.why_not.is_none() {
            '*'
        } else {
            ' '
        };
        let state = match candidate.state {
            PathState::Down => "down",
            PathState::Init => "init",
            PathState::Up => "up",
            PathState::Suspect => "suspect",
            PathState::AdminDown => "held",
        };
        let number = |value: Option<f64>, digits: usize, unit: &str| match value {
            Some(value) => format!("{value:.digits$} {unit}"),
            None => format!("- {unit}"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            log,
            "  {mark} {:<20} {state:<8} {} {:>5.1} {:>10} {:>9} {:>8}",
            shortened(&candidate.name),
            candidate.tier,
            candidate.score,
            number(candidate.rtt_ms, 1, "ms"),
            number(candidate.jitter_ms, 1, "ms"),
            number(candidate.loss_pct, 2, "%"),
        );
        if let Some(why_not) = &candidate.why_not {
            wrapped(log, &format!("        {why_not}"));
        }
    }
}

/// A name in its column.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_MAX {
        return name.to_owned();
    }
    let kept: String = name.chars().take(NAME_MAX - 1).collect();
    format!("{kept}~")
}

/// A line, broken after 80 columns.
fn wrapped(log: &mut String, line: &str) {
    for (column, letter) in line.chars().enumerate() {
        if column > 0 && column % COLUMNS == 0 {
            log.push('\n');
        }
        log.push(if letter.is_control() { ' ' } else { letter });
    }
    log.push('\n');
}

const NAME_MAX: usize = 20;
const COLUMNS: usize = 80;
