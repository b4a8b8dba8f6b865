//! Other bounds for a replay, as an operator writes them: `class.realtime.loss_pct=2,6`.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::ReplayError;
use crate::class::{Bounds, ClassConfig, Scoring};
use crate::selector::SelectorConfig;

/// One changed value of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    class: String,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Latency(Option<Bounds>),
    Jitter(Option<Bounds>),
    Loss(Option<Bounds>),
    Protect(bool),
    Prefer(Vec<u8>),
    Target(f64),
}

/// What is wrong with an override.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// It is no assignment.
    #[error("`{0}`: write KEY=VALUE, such as class.realtime.loss_pct=2,6")]
    NoValue(String),
    /// Its key names no value of a class.
    #[error(
        "`{0}`: there is no such key; write class.NAME.KEY with KEY one of latency_ms, jitter_ms, loss_pct, protect, \
         prefer, target_bps"
    )]
    UnknownKey(String),
    /// Its value does not fit the key.
    #[error("{key}: `{value}` does not fit: write {fix}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What would fit.
        fix: &'static str,
    },
}

impl FromStr for Override {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| OverrideError::NoValue(text.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        let unknown = || OverrideError::UnknownKey(key.to_owned());
        let path = key.strip_prefix("class.").ok_or_else(unknown)?;
        // A class's name may hold dots; a field's does not.
        let (class, field) = path.rsplit_once('.').ok_or_else(unknown)?;
        let unfit = |fix| OverrideError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            fix,
        };
        let change = match field {
            "latency_ms" => Change::Latency(bounds(value).ok_or_else(|| unfit(FIX_MS))?),
            "jitter_ms" => Change::Jitter(bounds(value).ok_or_else(|| unfit(FIX_MS))?),
            "loss_pct" => Change::Loss(bounds(value).ok_or_else(|| unfit(FIX_PCT))?),
            "protect" => Change::Protect(value.parse().map_err(|_| unfit("true or false"))?),
            "prefer" => Change::Prefer(uplinks(value).ok_or_else(|| unfit(FIX_UPLINKS))?),
            "target_bps" => Change::Target(value.parse().map_err(|_| unfit(FIX_BPS))?),
            _ => return Err(unknown()),
        };
        Ok(Self {
            class: class.to_owned(),
            change,
        })
    }
}

impl Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match &self.change {
            Change::Latency(_) => "latency_ms",
            Change::Jitter(_) => "jitter_ms",
            Change::Loss(_) => "loss_pct",
            Change::Protect(_) => "protect",
            Change::Prefer(_) => "prefer",
            Change::Target(_) => "target_bps",
        };
        write!(f, "class.{}.{field}", self.class)
    }
}

/// A configuration with the overrides.
pub(super) fn apply(
    config: &SelectorConfig,
    overrides: &[Override],
) -> Result<SelectorConfig, ReplayError> {
    let mut changed = config.clone();
    for change in overrides {
        let mut classes = changed.classes.iter_mut();
        let Some(class) = classes.find(|class| class.name == change.class) else {
            let known = config.classes.iter().map(|class| class.name.as_str());
            return Err(ReplayError::UnknownClass {
                key: change.to_string(),
                class: change.class.clone(),
                known: known.collect::<Vec<_>>().join(", "),
            });
        };
        change.apply_to(class)?;
    }
    Ok(changed)
}

impl Override {
    fn apply_to(&self, class: &mut ClassConfig) -> Result<(), ReplayError> {
        let refused = |reason: String| ReplayError::Override {
            key: self.to_string(),
            reason,
        };
        match &self.change {
            Change::Latency(bounds) => class.latency_ms = *bounds,
            Change::Jitter(bounds) => class.jitter_ms = *bounds,
            Change::Loss(bounds) => class.loss_pct = *bounds,
            Change::Protect(protect) => class.protect = *protect,
            Change::Prefer(uplinks) => class.prefer.clone_from(uplinks),
            Change::Target(bps) => match &mut class.scoring {
                Scoring::Throughput { target_bps } => *target_bps = *bps,
                Scoring::Weighted { .. } | Scoring::Voice => {
                    let name = &class.name;
                    return Err(refused(format!(
                        "`{name}` is not scored by throughput; leave this out"
                    )));
                }
            },
        }
        class.check().map_err(|error| refused(error.to_string()))
    }
}

/// `SOFT,HARD` or `none`.
fn bounds(value: &str) -> Option<Option<Bounds>> {
    if value == "none" {
        return Some(None);
    }
    let (soft, hard) = value.split_once(',')?;
    let soft: f64 = soft.trim().parse().ok()?;
    let hard: f64 = hard.trim().parse().ok()?;
    Some(Some(Bounds { soft, hard }))
}

/// `0,2` or `none`.
fn uplinks(value: &str) -> Option<Vec<u8>> {
    if value == "none" {
        return Some(Vec::new());
    }
    let numbers = value.split(',').map(|number| number.trim().parse().ok());
    numbers.collect()
}

const FIX_MS: &str = "SOFT,HARD in milliseconds, such as 150,400, or none";
const FIX_PCT: &str = "SOFT,HARD in percent, such as 1,5, or none";
const FIX_UPLINKS: &str = "numbers of uplinks, best first, such as 0,2, or none";
const FIX_BPS: &str = "bits per second, such as 100e6";
