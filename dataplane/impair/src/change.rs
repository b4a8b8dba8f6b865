//! Changes of an impairment as they are written in files: raw as read, then checked.

use std::time::Duration;

use serde::Deserialize;

use crate::impairment::TIME_MAX;
use crate::{
    GilbertElliott, ImpairError, Impairment, Jitter, JitterShape, Loss, Probability, RateBps,
    Reorder,
};

/// What a file says about an impairment; what it leaves out stays as it is. [`RawChange::check`] makes a [`Change`]
/// of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawChange {
    /// Milliseconds, 0 to 60000.
    pub delay_ms: Option<f64>,
    /// Milliseconds, 0 to 60000.
    pub jitter_ms: Option<f64>,
    /// `uniform`, `normal` or `exponential`, see [`JitterShape`].
    pub jitter_shape: Option<String>,
    /// See [`Impairment::keep_order`].
    pub keep_order: Option<bool>,
    /// Random loss; 0 ends loss of any kind.
    pub loss_percent: Option<f64>,
    /// Loss in bursts.
    pub burst_loss: Option<RawBurstLoss>,
    /// How many are held back; with `reorder_by_ms`.
    pub reorder_percent: Option<f64>,
    /// For how long they are held back.
    pub reorder_by_ms: Option<f64>,
    /// How many arrive twice.
    pub duplicate_percent: Option<f64>,
    /// Mbit/s of IP packets; 0 is unlimited.
    pub rate_mbps: Option<f64>,
    /// See [`Impairment::queue_bytes`].
    pub queue_bytes: Option<u64>,
    /// The longest IP packet in bytes, 68 (RFC 791) to 65535; 0 is unlimited.
    pub mtu: Option<u32>,
    /// Nothing passes.
    pub blackhole: Option<bool>,
    /// How many are marked "congestion experienced".
    pub mark_ce_percent: Option<f64>,
}

/// See [`GilbertElliott`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBurstLoss {
    /// Chance per packet that a burst begins.
    pub enter_percent: f64,
    /// Chance per packet that it ends: a burst lasts 100 / `leave_percent` packets on average.
    pub leave_percent: f64,
    /// Loss in a burst.
    #[serde(default = "all")]
    pub loss_percent: f64,
    /// Loss outside.
    #[serde(default)]
    pub loss_outside_percent: f64,
}

/// A checked change of an impairment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    delay: Option<Duration>,
    jitter: Option<Duration>,
    jitter_shape: Option<JitterShape>,
    keep_order: Option<bool>,
    loss: Option<Loss>,
    reorder: Option<Reorder>,
    duplicate: Option<Probability>,
    rate: Option<Option<RateBps>>,
    queue_bytes: Option<u64>,
    mtu: Option<Option<u16>>,
    blackhole: Option<bool>,
    mark_ce: Option<Probability>,
}

impl RawChange {
    /// Reads a change from TOML.
    ///
    /// # Errors
    /// [`ImpairError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, ImpairError> {
        toml::from_str(text).map_err(|error| ImpairError::Syntax(error.to_string()))
    }

    /// The change that it means.
    ///
    /// # Errors
    /// The first field with a value that it cannot have.
    pub fn check(&self) -> Result<Change, ImpairError> {
        let mark_ce = percent("mark_ce_percent", self.mark_ce_percent)?;
        Ok(Change {
            delay: milliseconds("delay_ms", self.delay_ms)?,
            jitter: milliseconds("jitter_ms", self.jitter_ms)?,
            jitter_shape: self.jitter_shape.as_deref().map(shape).transpose()?,
            keep_order: self.keep_order,
            loss: self.loss()?,
            reorder: self.reorder()?,
            duplicate: percent("duplicate_percent", self.duplicate_percent)?,
            rate: self.rate_mbps.map(rate).transpose()?,
            queue_bytes: self.queue_bytes,
            mtu: self.mtu.map(mtu).transpose()?,
            blackhole: self.blackhole,
            mark_ce,
        })
    }

    fn loss(&self) -> Result<Option<Loss>, ImpairError> {
        let random = percent("loss_percent", self.loss_percent)?;
        match (random, self.burst_loss) {
            (Some(_), Some(_)) => Err(ImpairError::fields(
                "burst_loss",
                "goes without loss_percent: leave one of them out; \
                 burst_loss.loss_outside_percent is loss between bursts",
            )),
            (Some(Probability::NEVER), None) => Ok(Some(Loss::None)),
            (Some(chance), None) => Ok(Some(Loss::Random(chance))),
            (None, Some(burst)) => {
                let chain = burst.check().map_err(|error| error.within("burst_loss"))?;
                Ok(Some(Loss::GilbertElliott(chain)))
            }
            (None, None) => Ok(None),
        }
    }

    fn reorder(&self) -> Result<Option<Reorder>, ImpairError> {
        let chance = percent("reorder_percent", self.reorder_percent)?;
        let extra = milliseconds("reorder_by_ms", self.reorder_by_ms)?;
        match (chance, extra) {
            (None, None) => Ok(None),
            (Some(Probability::NEVER), None) => Ok(Some(Reorder::default())),
            (Some(chance), Some(extra)) => Ok(Some(Reorder { chance, extra })),
            (Some(_), None) => Err(ImpairError::fields(
                "reorder_percent",
                "needs to know for how long packets are held back: add reorder_by_ms = 10",
            )),
            (None, Some(_)) => Err(ImpairError::fields(
                "reorder_by_ms",
                "needs to know how many packets are held back: add reorder_percent = 1",
            )),
        }
    }
}

impl RawBurstLoss {
    fn check(&self) -> Result<GilbertElliott, ImpairError> {
        let leave = chance("leave_percent", self.leave_percent)?;
        if leave == Probability::NEVER {
            return Err(ImpairError::value(
                "leave_percent",
                self.leave_percent,
                "a burst that never ends: more than 0, or blackhole = true",
            ));
        }
        Ok(GilbertElliott {
            enter: chance("enter_percent", self.enter_percent)?,
            leave,
            loss_good: chance("loss_outside_percent", self.loss_outside_percent)?,
            loss_bad: chance("loss_percent", self.loss_percent)?,
        })
    }
}

impl Change {
    /// The impairment `base` with this change made.
    #[must_use]
    pub fn applied_to(&self, base: Impairment) -> Impairment {
        Impairment {
            delay: self.delay.unwrap_or(base.delay),
            jitter: Jitter {
                amount: self.jitter.unwrap_or(base.jitter.amount),
                shape: self.jitter_shape.unwrap_or(base.jitter.shape),
            },
            keep_order: self.keep_order.unwrap_or(base.keep_order),
            loss: self.loss.unwrap_or(base.loss),
            reorder: self.reorder.unwrap_or(base.reorder),
            duplicate: self.duplicate.unwrap_or(base.duplicate),
            rate: self.rate.unwrap_or(base.rate),
            queue_bytes: self.queue_bytes.or(base.queue_bytes),
            mtu: self.mtu.unwrap_or(base.mtu),
            hole: base.hole,
            blackhole: self.blackhole.unwrap_or(base.blackhole),
            mark_ce: self.mark_ce.unwrap_or(base.mark_ce),
        }
    }
}

/// A length of time in seconds from a file, within `0..=max`.
pub(crate) fn seconds(field: &str, value: f64, max: Duration) -> Result<Duration, ImpairError> {
    match Duration::try_from_secs_f64(value) {
        Ok(time) if time <= max => Ok(time),
        Ok(_) | Err(_) => Err(ImpairError::value(
            field,
            value,
            format!("seconds, from 0 to {}", max.as_secs()),
        )),
    }
}

fn milliseconds(field: &str, value: Option<f64>) -> Result<Option<Duration>, ImpairError> {
    let Some(value) = value else { return Ok(None) };
    match Duration::try_from_secs_f64(value / 1000.0) {
        Ok(time) if time <= TIME_MAX => Ok(Some(time)),
        Ok(_) | Err(_) => Err(ImpairError::value(
            field,
            value,
            format!("milliseconds, from 0 to {}", TIME_MAX.as_millis()),
        )),
    }
}

fn percent(field: &str, value: Option<f64>) -> Result<Option<Probability>, ImpairError> {
    value.map(|value| chance(field, value)).transpose()
}

fn chance(field: &str, percent: f64) -> Result<Probability, ImpairError> {
    Probability::from_percent(percent)
        .ok_or_else(|| ImpairError::value(field, percent, "percent, from 0 to 100"))
}

fn shape(name: &str) -> Result<JitterShape, ImpairError> {
    match name {
        "uniform" => Ok(JitterShape::Uniform),
        "normal" => Ok(JitterShape::Normal),
        "exponential" => Ok(JitterShape::Exponential),
        other => Err(ImpairError::value(
            "jitter_shape",
            format!("{other:?}"),
            "\"uniform\", \"normal\" or \"exponential\"",
        )),
    }
}

fn rate(mbps: f64) -> Result<Option<RateBps>, ImpairError> {
    let is_rate = mbps == 0.0 || (RATE_MBPS_MIN..=RATE_MBPS_MAX).contains(&mbps);
    if !is_rate {
        return Err(ImpairError::value(
            "rate_mbps",
            mbps,
            format!("Mbit/s, from {RATE_MBPS_MIN} to {RATE_MBPS_MAX}, or 0 for no limit"),
        ));
    }
    Ok(RateBps::new((mbps * 1e6) as u64))
}

fn mtu(bytes: u32) -> Result<Option<u16>, ImpairError> {
    match u16::try_from(bytes) {
        Ok(0) => Ok(None),
        Ok(bytes) if bytes >= MTU_MIN => Ok(Some(bytes)),
        Ok(_) | Err(_) => Err(ImpairError::value(
            "mtu",
            bytes,
            format!("bytes of an IP packet, from {MTU_MIN} to 65535, or 0 for no limit"),
        )),
    }
}

fn all() -> f64 {
    100.0
}

/// What every IPv4 link carries (RFC 791).
const MTU_MIN: u16 = 68;
const RATE_MBPS_MIN: f64 = 0.001;
const RATE_MBPS_MAX: f64 = 100_000.0;
