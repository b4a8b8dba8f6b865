//! Traffic classes: what each asks of a path, and how its paths are scored.
//!
//! A score is continuous, monotone in every metric, and can be computed by hand from the numbers that are shown beside
//! it. What is not known yet costs nothing: a new path is tried before it is judged.

use serde::{Deserialize, Serialize};

use crate::metrics::{Bandwidth, PathMetrics};

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

/// What is wrong with a class.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClassError {
    /// It has no name.
    #[error("class.name is empty: give every class a name")]
    Unnamed,
    /// There are more than a gateway can tell apart.
    #[error("class: there are {count}, at most 8 are possible: remove some")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// Two have one name.
    #[error("class.{class} is there twice: give each class a name of its own")]
    Twice {
        /// The name.
        class: String,
    },
    /// A pair of bounds is no range.
    #[error(
        "class.{class}.{field} = {soft},{hard}: write two numbers, 0 <= soft < hard{limit}, such as {example}"
    )]
    Bounds {
        /// The class.
        class: String,
        /// The pair.
        field: &'static str,
        /// What it says.
        soft: f64,
        /// What it says.
        hard: f64,
        /// A further limit, where there is one.
        limit: &'static str,
        /// A pair that would do.
        example: &'static str,
    },
    /// The weights are no weights.
    #[error(
        "class.{class}.weights add up to {sum}: write three numbers from 0 to 1 that add up to 1"
    )]
    Weights {
        /// The class.
        class: String,
        /// What they add up to.
        sum: f64,
    },
    /// The target is no rate.
    #[error("class.{class}.target_bps = {target}: write bits per second above 0, such as 100e6")]
    Target {
        /// The class.
        class: String,
        /// What it says.
        target: f64,
    },
}

/// What a score is computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Jitter of the worse direction, in milliseconds.
    pub jitter_ms: Option<f64>,
    /// Loss of the worse direction, in percent.
    pub loss_pct: Option<f64>,
    /// Capacity towards the peer that this class could have, in bits per second.
    pub free_bps: Option<f64>,
}

/// A score and what it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// 0 to 100.
    pub score: f64,
    /// Utilities of latency, jitter and loss, 0 to 1, by the class's bounds; 1 where the class has none.
    pub utilities: [f64; 3],
}

impl Bounds {
    /// 1 up to `soft`, 0 from `hard`, straight between.
    pub fn utility(&self, value: f64) -> f64 {
        if value <= self.soft {
            1.0
        } else if value >= self.hard {
            0.0
        } else {
            (self.hard - value) / (self.hard - self.soft)
        }
    }

    /// Half way between the two: what a lasting value must exceed to be a violation, and what recovery is measured by.
    pub fn threshold(&self) -> f64 {
        f64::midpoint(self.soft, self.hard)
    }
}

impl Sample {
    /// What the numbers of a path say. `own_bps` is what the class itself sends there already.
    pub fn of(metrics: &PathMetrics, capacity_bps: Option<f64>, own_bps: f64) -> Self {
        let worst = |values: &[Option<f64>]| {
            let known = values.iter().flatten().copied().filter(|v| v.is_finite());
            known.reduce(f64::max)
        };
        let measured = metrics.tx_bandwidth.as_ref().map(|b: &Bandwidth| b.bps);
        let capacity = measured.or(capacity_bps);
        let others_bps = (metrics.tx_bps - own_bps).max(0.0);
        Self {
            rtt_ms: worst(&[metrics.rtt_fast_ns]).map(|ns| ns / NS_PER_MS),
            jitter_ms: worst(&[metrics.tx_jitter_ns, metrics.rx_jitter_ns])
                .map(|ns| ns / NS_PER_MS),
            loss_pct: worst(&[
                metrics.tx_loss.ten_s,
                metrics.rx_loss.ten_s,
                metrics.tx_data_loss,
                metrics.rx_data_loss,
            ])
            .map(|share| share * 100.0),
            free_bps: capacity.map(|bps| (bps - others_bps).max(0.0)),
        }
    }
}

impl ClassConfig {
    /// The classes of a gateway whose configuration names none: realtime, interactive, default and bulk, in this order.
    pub fn defaults() -> Vec<Self> {
        let bounds = |soft, hard| Some(Bounds { soft, hard });
        let class = |name: &str, latency_ms, jitter_ms, loss_pct, scoring| Self {
            name: name.to_owned(),
            latency_ms,
            jitter_ms,
            loss_pct,
            scoring,
            protect: false,
            prefer: Vec::new(),
        };
        let weighted = |latency, jitter, loss| Scoring::Weighted {
            latency,
            jitter,
            loss,
        };
        vec![
            class(
                "realtime",
                bounds(150.0, 400.0),
                bounds(20.0, 60.0),
                bounds(1.0, 5.0),
                Scoring::Voice,
            ),
            class(
                "interactive",
                bounds(200.0, 600.0),
                bounds(40.0, 120.0),
                bounds(1.0, 8.0),
                weighted(0.5, 0.2, 0.3),
            ),
            class(
                "default",
                bounds(300.0, 1000.0),
                bounds(80.0, 200.0),
                bounds(2.0, 15.0),
                weighted(0.3, 0.2, 0.5),
            ),
            class(
                "bulk",
                None,
                None,
                bounds(3.0, 20.0),
                Scoring::Throughput {
                    target_bps: BULK_TARGET_BPS,
                },
            ),
        ]
    }

    /// Whether the class makes sense.
    ///
    /// # Errors
    ///
    /// Names the field and what to write.
    pub fn check(&self) -> Result<(), ClassError> {
        if self.name.is_empty() {
            return Err(ClassError::Unnamed);
        }
        let pairs = [
            ("latency_ms", self.latency_ms, f64::MAX, "", "150,400"),
            ("jitter_ms", self.jitter_ms, f64::MAX, "", "20,60"),
            ("loss_pct", self.loss_pct, 100.0, " <= 100", "1,5"),
        ];
        for (field, pair, most, limit, example) in pairs {
            let Some(Bounds { soft, hard }) = pair else {
                continue;
            };
            // Written so that NaN fails too.
            if !(soft >= 0.0 && soft < hard && hard <= most) {
                return Err(ClassError::Bounds {
                    class: self.name.clone(),
                    field,
                    soft,
                    hard,
                    limit,
                    example,
                });
            }
        }
        match self.scoring {
            Scoring::Weighted {
                latency,
                jitter,
                loss,
            } => {
                let weights = [latency, jitter, loss];
                let sum: f64 = weights.iter().sum();
                let are_shares = weights.iter().all(|weight| (0.0..=1.0).contains(weight));
                if !are_shares || (sum - 1.0).abs() > 1e-6 {
                    return Err(ClassError::Weights {
                        class: self.name.clone(),
                        sum,
                    });
                }
            }
            Scoring::Throughput { target_bps } => {
                if !(target_bps > 0.0 && target_bps.is_finite()) {
                    return Err(ClassError::Target {
                        class: self.name.clone(),
                        target: target_bps,
                    });
                }
            }
            Scoring::Voice => {}
        }
        Ok(())
    }

    /// What a path is worth to this class, if it is Up.
    pub fn score(&self, sample: &Sample) -> Score {
        let utility = |bounds: Option<Bounds>, value: Option<f64>| match (bounds, value) {
            (Some(bounds), Some(value)) => bounds.utility(value),
            _ => 1.0,
        };
        let utilities = [
            utility(self.latency_ms, sample.rtt_ms),
            utility(self.jitter_ms, sample.jitter_ms),
            utility(self.loss_pct, sample.loss_pct),
        ];
        let share = match self.scoring {
            Scoring::Weighted {
                latency,
                jitter,
                loss,
            } => {
                let weights = [latency, jitter, loss];
                let powers = utilities.iter().zip(weights).map(|(u, w)| u.powf(w));
                powers.product::<f64>()
            }
            Scoring::Voice => r_factor(sample) / R_MAX,
            Scoring::Throughput { target_bps } => tcp_bps(sample) / target_bps,
        };
        // A class that `check` would refuse can yield no number; that is worth nothing.
        let share = if share.is_nan() { 0.0 } else { share };
        Score {
            score: 100.0 * share.clamp(0.0, 1.0),
            utilities,
        }
    }
}

/// The E-model's transmission rating with all but delay and loss at its defaults (ITU-T G.107): 93.2 less the
/// impairments by delay and by loss.
///
/// The delay impairment is the piecewise linear fit to G.107's curve by Cole and Rosenbluth ("Voice over IP performance
/// monitoring", 2001). G.711 with concealment has, as commonly quoted from G.113 Appendix I, a loss robustness of 25.1 and
/// no impairment of its own.
pub fn r_factor(sample: &Sample) -> f64 {
    let rtt_ms = sample.rtt_ms.unwrap_or(0.0);
    let jitter_ms = sample.jitter_ms.unwrap_or(0.0);
    let loss_pct = sample.loss_pct.unwrap_or(0.0);
    let one_way_ms = rtt_ms / 2.0 + 2.0 * jitter_ms + PACKETIZATION_MS;
    let delay = 0.024 * one_way_ms + 0.11 * (one_way_ms - 177.3).max(0.0);
    let loss = 95.0 * loss_pct / (loss_pct + LOSS_ROBUSTNESS);
    R_MAX - delay - loss
}

/// What one TCP flow can carry: free capacity, or less where loss limits it (Mathis et al., 1997), in bits per second.
fn tcp_bps(sample: &Sample) -> f64 {
    let free_bps = sample.free_bps.unwrap_or(f64::INFINITY);
    let (Some(rtt_ms), Some(loss_pct)) = (sample.rtt_ms, sample.loss_pct) else {
        return free_bps;
    };
    let per_root = rtt_ms / 1000.0 * (loss_pct / 100.0).sqrt();
    if per_root <= 0.0 {
        return free_bps;
    }
    free_bps.min(1.22 * MSS_BITS / per_root)
}

const NS_PER_MS: f64 = 1e6;
/// G.107's rating of a perfect narrow-band connection with default values.
const R_MAX: f64 = 93.2;
/// G.711 with packet loss concealment, random loss.
const LOSS_ROBUSTNESS: f64 = 25.1;
/// A packet holds that much speech.
const PACKETIZATION_MS: f64 = 20.0;
/// A segment of 1400 bytes of payload: what fits a tunnel over Ethernet.
const MSS_BITS: f64 = 1400.0 * 8.0;
/// Enough for the bulk class, where nothing else is configured.
const BULK_TARGET_BPS: f64 = 100e6;
