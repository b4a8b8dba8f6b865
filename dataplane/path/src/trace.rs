//! Recorded observations, and what the selector makes of them: one JSON object per line.
//!
//! The recorder writes a [`Line`] for every call of the selector, the first one with the selector's state, so a recording
//! can begin at any time. [`replay`] makes the same calls again: the same decisions follow, and the same log byte for
//! byte, by the same build on the same kind of machine (a score's powers are the machine's). With [`Override`]s it says
//! what other bounds would have decided, and [`compare`] what that would have cost or saved.
//!
//! Numbers must survive being written and read: a reader of JSON has to round to the nearest (serde_json's
//! `float_roundtrip`), and a value that is no number has no place in a trace.

mod difference;
mod log;
mod overrides;
mod usage;

use serde::{Deserialize, Serialize};

pub use difference::{Change, ClassComparison, Comparison, Pair, compare};
pub use overrides::{Override, OverrideError};
pub use usage::{ClassUsage, GAP_LIMITS_MS, GapHistogram};

use crate::observation::Observation;
use crate::record::Decision;
use crate::selector::{Selector, SelectorConfig};
use crate::time::Time;
use usage::Judge;

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line: how the selector stood when recording began.
    Begin {
        /// Format version.
        version: u32,
        /// The peer's name.
        peer: String,
        /// When, on the gateway's monotonic clock.
        at: Time,
        /// The selector's state.
        selector: Box<Selector>,
    },
    /// Something was seen.
    Seen(Time, Observation),
    /// Time passed.
    Timeout(Time),
    /// The classes changed.
    Configured(Time, SelectorConfig),
}

/// The format's version.
pub const VERSION: u32 = 1;

/// What came of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// The peer's name.
    pub peer: String,
    /// When recording began and ended.
    pub span: (Time, Time),
    /// Every decision.
    pub decisions: Vec<Decision>,
    /// The decisions in words, in lines of at most 80 columns.
    #[serde(skip)]
    pub log: String,
    /// What each class got.
    pub usage: Vec<ClassUsage>,
}

/// Why a trace cannot be replayed. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It has no lines.
    #[error("the trace is empty: record one first")]
    Empty,
    /// It does not begin with the selector's state.
    #[error("line 1: no `begin`: a trace is replayed from its first line")]
    NoBegin,
    /// It is of another version.
    #[error("line {line}: begin.version is {version}, this program reads version {VERSION}")]
    Version {
        /// Where.
        line: usize,
        /// Which.
        version: u32,
    },
    /// Its state is none of a selector.
    #[error("line {line}: begin.selector.config.classes has more than 8: this is no recording")]
    State {
        /// Where.
        line: usize,
    },
    /// An override names a class that there is not.
    #[error("{key}: there is no class `{class}` in the trace; it has: {known}")]
    UnknownClass {
        /// The override's key.
        key: String,
        /// The class it names.
        class: String,
        /// Those that there are.
        known: String,
    },
    /// An override makes a class senseless.
    #[error("{key}: {reason}")]
    Override {
        /// The override's key.
        key: String,
        /// What is wrong, and what to write.
        reason: String,
    },
}

/// Makes the calls of a trace again, with other classes where `overrides` say so.
///
/// # Errors
///
/// Where the trace does not begin with a state of a known version, or an override does not fit its classes.
pub fn replay(lines: &[Line], overrides: &[Override]) -> Result<Replayed, ReplayError> {
    let Some(Line::Begin { peer, at, .. }) = lines.first() else {
        return Err(match lines.is_empty() {
            true => ReplayError::Empty,
            false => ReplayError::NoBegin,
        });
    };
    let mut replayed = Replayed {
        peer: peer.clone(),
        span: (*at, *at),
        decisions: Vec::new(),
        log: String::new(),
        usage: Vec::new(),
    };
    let mut player: Option<(Selector, Judge)> = None;
    for (index, line) in lines.iter().enumerate() {
        match line {
            Line::Begin {
                version,
                at,
                selector,
                ..
            } => {
                if *version != VERSION {
                    return Err(ReplayError::Version {
                        line: index + 1,
                        version: *version,
                    });
                }
                if !selector.is_whole() {
                    return Err(ReplayError::State { line: index + 1 });
                }
                let mut selector = (**selector).clone();
                let judge = match player.take() {
                    // Recording was taken up again: what came before counts.
                    Some((_, judge)) => judge.resume(selector.classes(), *at),
                    None => Judge::new(selector.classes(), *at),
                };
                if !overrides.is_empty() {
                    let config = overrides::apply(selector.config(), overrides)?;
                    selector.configure(config, *at);
                }
                player = Some((selector, judge));
            }
            Line::Seen(at, observation) => {
                if let Some((selector, judge)) = &mut player {
                    judge.pass(selector, *at);
                    judge.see(observation, *at);
                    selector.observe(observation, *at);
                }
            }
            Line::Timeout(at) => {
                if let Some((selector, judge)) = &mut player {
                    judge.pass(selector, *at);
                    selector.handle_timeout(*at);
                }
            }
            Line::Configured(at, config) => {
                if let Some((selector, judge)) = &mut player {
                    judge.pass(selector, *at);
                    judge.configure(&config.classes);
                    selector.configure(overrides::apply(config, overrides)?, *at);
                }
            }
        }
        if let Some((selector, judge)) = &mut player {
            while let Some(decision) = selector.poll_decision() {
                judge.decide(&decision);
                log::write(&mut replayed.log, &decision);
                replayed.decisions.push(decision);
            }
            replayed.span.1 = judge.now();
        }
    }
    replayed.usage = player.map_or_else(Vec::new, |(_, judge)| judge.into_usage());
    Ok(replayed)
}
