//! Impairments that change with time: steps at times, once or again and again, from a file.
//!
//! ```toml
//! [[step]]                          # 20 s after the begin, for good
//! at_s = 20
//! link = "fiber"
//! direction = "a->b"                # or "b->a", or "both", which it is if left out
//! set = { delay_ms = 80, loss_percent = 1 }
//!
//! [[step]]                          # a square wave: 5 s up, 5 s down
//! at_s = 5
//! for_s = 5
//! every_s = 10
//! times = 60                        # without end if left out
//! link = "lte"
//! set = { blackhole = true }
//! ```
//!
//! What holds at a time is a function of that time alone: the link's own impairment, changed by every step that is in
//! force, in the order in which they came into force. A step with `for_s` is in force that long, one without for good.

use std::time::Duration;

use serde::Deserialize;

use crate::change::seconds;
use crate::{Change, ImpairError, Impairment, RawChange};

/// Steps in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    steps: Vec<Step>,
}

/// A change of one link at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    at: Duration,
    lasts: Option<Duration>,
    repeat: Option<Repeat>,
    link: String,
    direction: Direction,
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Repeat {
    every: Duration,
    times: Option<u32>,
}

/// Which directions of a link a step changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the end that the link names first.
    AToB,
    /// To that end.
    BToA,
    /// Both.
    #[default]
    Both,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Heading {
    /// From the end that the link names first.
    AToB,
    /// To that end.
    BToA,
}

/// A step as a file has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawStep {
    /// When, in seconds after the begin.
    pub at_s: f64,
    /// How long; for good if left out.
    pub for_s: Option<f64>,
    /// The period of its return; once if left out.
    pub every_s: Option<f64>,
    /// How often in all; without end if left out.
    pub times: Option<u32>,
    /// The link's name.
    pub link: String,
    /// `a->b`, `b->a` or `both`.
    pub direction: Option<String>,
    /// What changes.
    pub set: RawChange,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSchedule {
    #[serde(default)]
    step: Vec<RawStep>,
}

impl Schedule {
    /// Reads a file that has steps and nothing else.
    ///
    /// # Errors
    /// The first fault, with its field.
    pub fn parse(text: &str, links: &[&str]) -> Result<Self, ImpairError> {
        let raw: RawSchedule =
            toml::from_str(text).map_err(|error| ImpairError::Syntax(error.to_string()))?;
        Self::check(&raw.step, links)
    }

    /// Checks steps; `links` are the names that there are.
    ///
    /// # Errors
    /// The first fault, with the number of the step and its field.
    pub fn check(raw: &[RawStep], links: &[&str]) -> Result<Self, ImpairError> {
        if raw.len() > STEPS_MAX {
            let fix = format!("at most {STEPS_MAX} steps; one with every_s stands for many");
            return Err(ImpairError::value("step", raw.len(), fix));
        }
        let steps = raw.iter().enumerate().map(|(index, step)| {
            let place = format!("step {}", index + 1);
            step.check(links).map_err(|error| error.within(&place))
        });
        Ok(Self {
            steps: steps.collect::<Result<_, _>>()?,
        })
    }

    /// Whether nothing ever changes.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What is done to one direction of `link` at the time `now`, where `base` is its own impairment.
    pub fn impairment_at(
        &self,
        now: Duration,
        link: &str,
        heading: Heading,
        base: Impairment,
    ) -> Impairment {
        let steps = self
            .steps
            .iter()
            .filter(|step| step.link == link && step.direction.has(heading));
        let mut in_force: Vec<(Duration, &Step)> = steps
            .filter_map(|step| Some((step.in_force_since(now)?, step)))
            .collect();
        // Stable: of two that begin at once the later in the file has the last word.
        in_force.sort_by_key(|(since, _)| *since);
        in_force.iter().fold(base, |impairment, (_, step)| {
            step.change.applied_to(impairment)
        })
    }

    /// The first time after `now` at which a step comes into force or ends.
    pub fn change_after(&self, now: Duration) -> Option<Duration> {
        self.steps
            .iter()
            .filter_map(|step| step.change_after(now))
            .min()
    }
}

impl Step {
    /// When the step came into force, if it is at `now`.
    fn in_force_since(&self, now: Duration) -> Option<Duration> {
        let since = self.begin(self.latest(now)?);
        self.lasts
            .is_none_or(|lasts| now < since + lasts)
            .then_some(since)
    }

    fn change_after(&self, now: Duration) -> Option<Duration> {
        let Some(latest) = self.latest(now) else {
            return Some(self.at);
        };
        let end = self.lasts.map(|lasts| self.begin(latest) + lasts);
        if let Some(end) = end
            && now < end
        {
            return Some(end);
        }
        let repeat = self.repeat?;
        let is_last = repeat
            .times
            .is_some_and(|times| latest + 1 >= u64::from(times));
        (!is_last).then(|| self.begin(latest + 1))
    }

    /// The number, from 0, of its latest beginning.
    fn latest(&self, now: Duration) -> Option<u64> {
        let since = now.checked_sub(self.at)?;
        let Some(repeat) = self.repeat else {
            return Some(0);
        };
        let count = (since.as_nanos() / repeat.every.as_nanos()) as u64;
        let last = repeat.times.map_or(u64::MAX, |times| u64::from(times) - 1);
        Some(count.min(last))
    }

    fn begin(&self, number: u64) -> Duration {
        let every = self.repeat.map_or(Duration::ZERO, |repeat| repeat.every);
        let nanoseconds = every.as_nanos() * u128::from(number);
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX / 2);
        self.at + Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32)
    }
}

impl RawStep {
    fn check(&self, links: &[&str]) -> Result<Step, ImpairError> {
        if !links.contains(&self.link.as_str()) {
            let known = links.join(", ");
            return Err(ImpairError::value(
                "link",
                format!("{:?}", self.link),
                format!("no link has that name; there are {known}"),
            ));
        }
        let lasts = self
            .for_s
            .map(|value| positive("for_s", value))
            .transpose()?;
        let every = self
            .every_s
            .map(|value| positive("every_s", value))
            .transpose()?;
        if let (Some(lasts), Some(every)) = (lasts, every)
            && lasts >= every
        {
            return Err(ImpairError::value(
                "for_s",
                lasts.as_secs_f64(),
                format!(
                    "it would never end before it begins again: less than every_s = {}",
                    every.as_secs_f64()
                ),
            ));
        }
        let repeat = match (every, self.times) {
            (Some(every), times) => Some(Repeat { every, times }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(ImpairError::fields(
                    "times",
                    "needs the period: add every_s = 10",
                ));
            }
        };
        if self.times == Some(0) {
            return Err(ImpairError::value("times", 0, "1 or more"));
        }
        let set = self.set.check().map_err(|error| error.within("set"))?;
        Ok(Step {
            at: seconds("at_s", self.at_s, AT_MAX)?,
            lasts,
            repeat,
            link: self.link.clone(),
            direction: self
                .direction
                .as_deref()
                .map_or(Ok(Direction::default()), Direction::parse)?,
            change: set,
        })
    }
}

impl Direction {
    /// Reads `a->b`, `b->a` or `both`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, ImpairError> {
        match text {
            "a->b" => Ok(Self::AToB),
            "b->a" => Ok(Self::BToA),
            "both" => Ok(Self::Both),
            other => Err(ImpairError::value(
                "direction",
                format!("{other:?}"),
                "\"a->b\", \"b->a\" or \"both\"",
            )),
        }
    }

    /// As files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AToB => "a->b",
            Self::BToA => "b->a",
            Self::Both => "both",
        }
    }

    /// The same of a link that is named from its other end.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::AToB => Self::BToA,
            Self::BToA => Self::AToB,
            Self::Both => Self::Both,
        }
    }

    /// Whether it includes that heading.
    pub fn has(self, heading: Heading) -> bool {
        match self {
            Self::AToB => heading == Heading::AToB,
            Self::BToA => heading == Heading::BToA,
            Self::Both => true,
        }
    }
}

impl Heading {
    /// Both there are.
    pub const BOTH: [Self; 2] = [Self::AToB, Self::BToA];

    /// As files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AToB => "a->b",
            Self::BToA => "b->a",
        }
    }
}

impl From<Heading> for Direction {
    fn from(heading: Heading) -> Self {
        match heading {
            Heading::AToB => Self::AToB,
            Heading::BToA => Self::BToA,
        }
    }
}

/// A length of time that is long enough to tell beginnings apart.
fn positive(field: &str, value: f64) -> Result<Duration, ImpairError> {
    let time = seconds(field, value, AT_MAX)?;
    match time >= PERIOD_MIN {
        true => Ok(time),
        false => Err(ImpairError::value(field, value, "at least 0.001 s")),
    }
}

/// The most steps of a schedule.
pub const STEPS_MAX: usize = 1000;
/// A month: the latest time of a step.
const AT_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
const PERIOD_MIN: Duration = Duration::from_millis(1);
