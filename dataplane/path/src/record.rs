//! Why something was decided.

use serde::{Deserialize, Serialize};

use crate::ids::{ClassId, PathIndex};
use crate::metrics::PathState;
use crate::time::Time;

/// Why a class uses another path, or a path changed its standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The first path that came up, or a better one that came up in the seconds after it.
    First,
    /// The path in use is down, suppressed as last resort, or gone.
    Forced,
    /// The path in use violates the class's bounds and another one does not.
    Sla,
    /// Another path has been better by the margin for long enough.
    Better,
    /// A preferred path has recovered.
    Failback,
    /// An operator drains the path.
    Drain,
    /// An operator pinned or unpinned.
    Pin,
    /// The peer sends the class on another path.
    Peer,
    /// No path is usable.
    NoPath,
}

/// A candidate as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which path.
    pub path: PathIndex,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: PathState,
    /// 0 best to 4 unusable.
    pub tier: u8,
    /// 0 to 100.
    pub score: f64,
    /// Round trip, fast average, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The worse direction's jitter, in milliseconds.
    pub jitter_ms: Option<f64>,
    /// The worse direction's loss, in percent.
    pub loss_pct: Option<f64>,
    /// Utilities of latency, jitter and loss, 0 to 1.
    pub utilities: [f64; 3],
    /// Why it was not chosen; `None` for the chosen one.
    pub why_not: Option<String>,
}

/// One decision about one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at: Time,
    /// For which class.
    pub class: ClassId,
    /// The class's name.
    pub class_name: String,
    /// The path it left.
    pub from: Option<PathIndex>,
    /// The path it uses.
    pub to: Option<PathIndex>,
    /// Why.
    pub cause: Cause,
    /// One line for people.
    pub summary: String,
    /// Every path, as it stood.
    pub candidates: Vec<Candidate>,
}
