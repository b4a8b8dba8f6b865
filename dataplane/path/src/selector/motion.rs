//! The move from one path to another: gracefully, a quarter of the flows at a time, and no faster than the new path bears.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::ordering::Field;
use super::rules::Plan;
use super::{DECISIONS_MAX, Route, Selector};
use crate::class::Scoring;
use crate::ids::{ClassId, PathIndex};
use crate::record::{Cause, Decision};
use crate::time::Time;

/// A graceful move that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Motion {
    started: Time,
    next_step: Time,
    /// The new path's queueing when it began.
    queueing_ns: f64,
}

impl Motion {
    /// When something is to be done about it.
    pub(super) fn next(&self, route: &Route) -> Option<Time> {
        route.leaving?;
        let is_stepping = route.share < SHARE_ALL;
        Some(if is_stepping {
            self.next_step.min(route.deadline)
        } else {
            route.deadline
        })
    }
}

impl Selector {
    /// Does what was decided, and records it.
    pub(super) fn carry_out(&mut self, class: usize, plan: Plan, field: &Field) {
        let now = self.now;
        let from = self.routes[class].path;
        let decision = Decision {
            at: now,
            class: ClassId(class as u8),
            class_name: self.config.classes[class].name.clone(),
            from,
            to: plan.to,
            cause: plan.cause,
            summary: self.summarize(class, plan, field),
            candidates: self.describe(class, field, plan.to, now),
        };
        debug_assert_ne!(from, plan.to);
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.pop_front();
            self.decisions_lost += 1;
        }
        self.decisions.push_back(decision);

        let leaving = from.filter(|from| self.entry(*from).is_some_and(Entry::is_usable));
        let graceful = leaving.zip(plan.to);
        let queueing_ns = plan.to.map_or(0.0, |to| self.queueing_ns(to));
        let grace = self.grace(class, plan.cause);
        let state = &mut self.classes[class];
        state.hold = None;
        state.motion = graceful.map(|_| Motion {
            started: now,
            next_step: now + STEP,
            queueing_ns,
        });
        match plan.cause {
            Cause::Better | Cause::Failback => state.voluntary_at = Some(now),
            Cause::Peer => (state.followed_at, state.followed_from) = (Some(now), from),
            Cause::First if from.is_none() => state.first_at = Some(now),
            Cause::First
            | Cause::Forced
            | Cause::Sla
            | Cause::Drain
            | Cause::Pin
            | Cause::NoPath => {}
        }
        self.routes[class] = Route {
            path: plan.to,
            leaving: graceful.map(|(leaving, _)| leaving),
            gap: graceful.map_or(Duration::ZERO, |(from, to)| self.gap(from, to)),
            deadline: if graceful.is_some() { now + grace } else { now },
            share: if graceful.is_some() {
                SHARE_STEP
            } else {
                SHARE_ALL
            },
            protect: None,
        };
    }

    /// Lets the next quarter go, or ends the move.
    pub(super) fn continue_motion(&mut self, class: usize) {
        let now = self.now;
        let Some(mut motion) = self.classes[class].motion.take() else {
            return;
        };
        let mut route = self.routes[class];
        let left = route.leaving.and_then(|path| self.entry(path));
        let is_left_usable = left.is_some_and(Entry::is_usable);
        let rise_ns = route.path.map_or(0.0, |to| self.queueing_ns(to)) - motion.queueing_ns;
        for _ in 0..STEPS_MAX {
            let is_due = motion.next_step <= now && motion.next_step < route.deadline;
            if !is_due || route.share >= SHARE_ALL {
                break;
            }
            if rise_ns <= QUEUEING_RISE_NS {
                route.share = (route.share + SHARE_STEP).min(SHARE_ALL);
            } else {
                // The new path has enough for the moment: everything waits, though not for ever, since a class has one
                // path, and one that cannot bear it will be left for a better one.
                route.deadline = (route.deadline + STEP).min(motion.started + GRACE_MAX);
            }
            motion.next_step = motion.next_step + STEP;
        }
        if !is_left_usable || route.deadline <= now {
            route.leaving = None;
            route.deadline = route.deadline.min(now);
            route.share = SHARE_ALL;
        } else {
            self.classes[class].motion = Some(motion);
        }
        self.routes[class] = route;
    }

    /// How long flows that never pause may stay. A voice that goes on losing or lagging on a path that violates its bounds
    /// is worse off than one of which some packets change their order once, and it takes little of the new path.
    fn grace(&self, class: usize, cause: Cause) -> Duration {
        match (self.config.classes[class].scoring, cause) {
            (Scoring::Voice, Cause::Sla | Cause::Peer) => GRACE_VOICE,
            _ => GRACE,
        }
    }

    /// How long a flow must have been silent for its next packet, on `to`, to come after its last one, on `from`.
    ///
    /// One-way delays are not known apart, so the old path's queue is taken to lie on the way to the peer, and what
    /// remains of the round trips to be split in half.
    fn gap(&self, from: PathIndex, to: PathIndex) -> Duration {
        let (Some(from), Some(to)) = (self.entry(from), self.entry(to)) else {
            return GAP_MIN;
        };
        let known = |value: Option<f64>| value.filter(|ns| ns.is_finite()).unwrap_or(0.0);
        let least_ns = |entry: &Entry| {
            let metrics = &entry.metrics;
            known(metrics.rtt_min_ns.or(metrics.rtt_fast_ns))
        };
        let jitter_ns = |entry: &Entry| known(entry.metrics.tx_jitter_ns);
        let longer_ns = (least_ns(from) - least_ns(to)) / 2.0 + known(from.metrics.queueing_ns);
        let gap_ns = longer_ns + 2.0 * (jitter_ns(from) + jitter_ns(to));
        let gap = Duration::from_nanos(gap_ns.max(0.0) as u64);
        gap.clamp(GAP_MIN, GRACE)
    }

    fn queueing_ns(&self, path: PathIndex) -> f64 {
        let entry = self.entry(path);
        let queueing = entry.and_then(|entry| entry.metrics.queueing_ns);
        queueing.filter(|ns| ns.is_finite()).unwrap_or(0.0)
    }
}

const SHARE_ALL: u16 = 256;
/// A quarter of the flows, by their hash, for want of their bytes.
const SHARE_STEP: u16 = 64;
const STEP: Duration = Duration::from_secs(1);
/// More than there can be until the move must end.
const STEPS_MAX: usize = 40;
const GAP_MIN: Duration = Duration::from_millis(5);
/// After that, flows that never pause move too.
const GRACE: Duration = Duration::from_secs(5);
const GRACE_VOICE: Duration = Duration::from_millis(500);
/// However long the new path's queue stops the move.
const GRACE_MAX: Duration = Duration::from_secs(30);
const QUEUEING_RISE_NS: f64 = 10e6;
