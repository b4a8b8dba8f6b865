//! Traffic classes: what each asks of a path, and how its paths are scored.

use serde::{Deserialize, Serialize};

/// The good and the unbearable value of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Up to here nothing is lost.
    pub soft: f64,
    /// From here on the path is worth nothing. Larger than `soft`.
    pub hard: f64,
}

/// How a class scores a path, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Product of the metrics' utilities, each to the power of its weight; the weights add up to 1.
    Weighted {
        /// Weight of the round trip.
        latency: f64,
        /// Weight of jitter.
        jitter: f64,
        /// Weight of loss.
        loss: f64,
    },
    /// The E-model's R factor (ITU-T G.107) for G.711 with concealment.
    Voice,
    /// What a TCP flow can carry, as a share of `target_bps`.
    Throughput {
        /// Bits per second that are enough.
        target_bps: f64,
    },
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassConfig {
    /// Its name.
    pub name: String,
    /// Bounds of the round trip, in milliseconds.
    pub latency_ms: Option<Bounds>,
    /// Bounds of jitter, the worse direction, in milliseconds.
    pub jitter_ms: Option<Bounds>,
    /// Bounds of loss, the worse direction, in percent.
    pub loss_pct: Option<Bounds>,
    /// How paths are scored.
    pub scoring: Scoring,
    /// Whether its packets go over a second path too while the first is suspect.
    pub protect: bool,
    /// Numbers of local uplinks that come before all others, best first.
    pub prefer: Vec<u8>,
}
