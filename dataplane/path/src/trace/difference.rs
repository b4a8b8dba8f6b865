//! Two replays of one trace side by side.

use serde::Serialize;

use super::Replayed;
use super::usage::{ClassUsage, GapHistogram};
use crate::record::Decision;

/// A value of both replays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pair<T> {
    /// As recorded.
    pub base: T,
    /// With the overrides.
    pub other: T,
}

/// One class in both replays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassComparison {
    /// Its name.
    pub class: String,
    /// Changes from one path to another.
    pub switches: Pair<u32>,
    /// Seconds outside the bounds, as in [`ClassUsage`].
    pub sla_lost_s: Pair<f64>,
    /// Cuts.
    pub gaps: Pair<GapHistogram>,
}

/// A decision of one replay that the other has not at that time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// It is one of the replay with overrides.
    pub is_added: bool,
    /// The decision.
    pub decision: Decision,
}

/// What is different.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// By class.
    pub classes: Vec<ClassComparison>,
    /// By time.
    pub changes: Vec<Change>,
}

/// Sets two replays of one trace side by side.
pub fn compare(base: &Replayed, other: &Replayed) -> Comparison {
    let classes = base.usage.iter().map(|before| {
        let mut others = other.usage.iter();
        let nothing = ClassUsage::default();
        let after = others.find(|after| after.class == before.class);
        let after = after.unwrap_or(&nothing);
        ClassComparison {
            class: before.class.clone(),
            switches: Pair {
                base: before.switches,
                other: after.switches,
            },
            sla_lost_s: Pair {
                base: before.sla_lost_s,
                other: after.sla_lost_s,
            },
            gaps: Pair {
                base: before.gaps,
                other: after.gaps,
            },
        }
    });
    Comparison {
        classes: classes.collect(),
        changes: changes(&base.decisions, &other.decisions),
    }
}

/// Decisions that only one of two lists, both by time, has.
fn changes(base: &[Decision], other: &[Decision]) -> Vec<Change> {
    let key = |decision: &Decision| (decision.at, decision.class);
    let mut changes = Vec::new();
    let mut add = |is_added: bool, decision: &Decision| {
        changes.push(Change {
            is_added,
            decision: decision.clone(),
        });
    };
    let (mut before, mut after) = (base.iter().peekable(), other.iter().peekable());
    loop {
        match (before.peek(), after.peek()) {
            (Some(left), Some(right)) if key(left) == key(right) => {
                let is_same =
                    (left.from, left.to, left.cause) == (right.from, right.to, right.cause);
                if !is_same {
                    add(false, left);
                    add(true, right);
                }
                before.next();
                after.next();
            }
            (Some(left), Some(right)) if key(left) > key(right) => {
                add(true, right);
                after.next();
            }
            (Some(left), _) => {
                add(false, left);
                before.next();
            }
            (None, Some(right)) => {
                add(true, right);
                after.next();
            }
            (None, None) => return changes,
        }
    }
}
