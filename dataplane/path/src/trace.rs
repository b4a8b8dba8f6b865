//! Recorded observations, and what the selector makes of them: one JSON object per line.

use serde::{Deserialize, Serialize};

use crate::observation::Observation;
use crate::selector::{Selector, SelectorConfig};
use crate::time::Time;

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
