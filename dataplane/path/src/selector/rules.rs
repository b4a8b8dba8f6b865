//! The rules by which a class changes its path, in the order in which they are asked.
//!
//! 1. Without a usable path: to the best one there is, at once.
//! 2. Commands: a draining path is left, a pinned one is taken.
//! 3. A path that was suppressed while in use is left for a sound one.
//! 4. A site that follows takes the path that the peer uses, unless its own way there is violated.
//! 5. A path that violates the class's bounds is left for one that does not.
//! 6. Voluntarily, for a preferred path or a clearly better one, when that has lasted, at most once a minute, and where
//!    there is room.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Selector;
use super::entry::{TIER_MET, TIER_SUPPRESSED, TIER_VIOLATED};
use super::ordering::{Field, Standing};
use crate::class::Scoring;
use crate::ids::PathIndex;
use crate::record::Cause;
use crate::time::Time;

/// Why a class would rather be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wish {
    /// The operator prefers it.
    Preferred,
    /// It is better by the margin.
    Better,
}

/// A wish and its age.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) path: PathIndex,
    pub(super) wish: Wish,
    pub(super) since: Time,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) to: Option<PathIndex>,
    pub(super) cause: Cause,
}

impl Plan {
    fn to(standing: &Standing, cause: Cause) -> Self {
        Self {
            to: Some(standing.index()),
            cause,
        }
    }
}

impl Selector {
    pub(super) fn decide_all(&mut self) {
        for class in 0..self.config.classes.len() {
            self.decide(class);
        }
    }

    fn decide(&mut self, class: usize) {
        let field = self.field(class, self.now);
        self.classes[class].levels = field.levels(&self.classes[class].levels);
        let hold = self.hold(class, &field);
        self.classes[class].hold = hold;
        if let Some(plan) = self.plan(class, &field) {
            self.carry_out(class, plan, &field);
        }
        // The path that is being left may have died.
        self.continue_motion(class);
        let in_use = self.routes[class].path;
        if let Some(pin) = &mut self.classes[class].pin {
            pin.is_new &= Some(pin.path) != in_use;
        }
        self.routes[class].protect = self.protector(class, &field);
    }

    fn plan(&self, class: usize, field: &Field) -> Option<Plan> {
        let in_use = self.routes[class].path;
        let current = in_use.and_then(|path| field.find(path));
        let Some(current) = current.filter(|standing| standing.is_usable()) else {
            return self.plan_without_path(class, field, in_use);
        };
        if current.is_draining {
            let target = self.target(class, field)?;
            return (!target.is_draining).then(|| Plan::to(target, Cause::Drain));
        }
        if let Some(pinned) = self.pinned_standing(class, field) {
            let is_new = self.classes[class].pin.is_some_and(|pin| pin.is_new);
            let may_move = is_new || self.is_free(class, pinned);
            let moves = pinned.path != current.path && may_move;
            if moves || pinned.path == current.path {
                return moves.then(|| Plan::to(pinned, Cause::Pin));
            }
        }
        if current.tier == TIER_SUPPRESSED {
            let target = self.target(class, field).filter(|target| target.is_sound());
            return target.map(|target| Plan::to(target, Cause::Forced));
        }
        let leader = self.leader(class, field);
        if let Some(leader) = leader {
            if leader.path == current.path {
                return None;
            }
            if self.may_follow(class, leader) {
                return Some(Plan::to(leader, Cause::Peer));
            }
        }
        if let Some(sound) = self.sound_instead(class, field, current) {
            return Some(Plan::to(sound, Cause::Sla));
        }
        // Where the peer leads, nothing is done voluntarily.
        let hold = self.classes[class].hold.filter(|_| leader.is_none())?;
        let wanted = field.find(hold.path)?;
        let is_due = current.tier <= TIER_VIOLATED
            && self.eligible_at(class, &hold) <= self.now
            && self.has_room(class, wanted);
        let cause = match hold.wish {
            _ if self.is_settling(class) => Cause::First,
            Wish::Preferred => Cause::Failback,
            Wish::Better => Cause::Better,
        };
        is_due.then(|| Plan::to(wanted, cause))
    }

    fn plan_without_path(
        &self,
        class: usize,
        field: &Field,
        in_use: Option<PathIndex>,
    ) -> Option<Plan> {
        match (self.target(class, field), in_use) {
            (Some(target), None) => Some(Plan::to(target, Cause::First)),
            (Some(target), Some(_)) => Some(Plan::to(target, Cause::Forced)),
            (None, Some(_)) => Some(Plan {
                to: None,
                cause: Cause::NoPath,
            }),
            (None, None) => None,
        }
    }

    /// Where to go when one has to go: the pinned path, the peer's, or the best.
    fn target<'a>(&self, class: usize, field: &'a Field) -> Option<&'a Standing> {
        let pinned = self.pinned_standing(class, field);
        let led = pinned.or_else(|| self.leader(class, field));
        led.or_else(|| field.best())
    }

    fn pinned_standing<'a>(&self, class: usize, field: &'a Field) -> Option<&'a Standing> {
        let pinned = field.find(self.classes[class].pin?.path)?;
        (pinned.is_usable() && !pinned.is_draining).then_some(pinned)
    }

    /// The path that the peer uses, if this site follows and nothing speaks against it.
    fn leader<'a>(&self, class: usize, field: &'a Field) -> Option<&'a Standing> {
        if self.config.leads {
            return None;
        }
        let path = self.classes[class].peer?;
        let leader = field.find(path)?;
        let watch = &self.entry(path)?.watches[class];
        (leader.is_sound() && !watch.is_forward_violated()).then_some(leader)
    }

    /// What a path was left for because of this side's measurements, the peer cannot undo at once; and two sites that
    /// both follow, by mistake, do not chase each other to and fro.
    fn may_follow(&self, class: usize, leader: &Standing) -> bool {
        let state = &self.classes[class];
        let was_left = self
            .entry(leader.index())
            .is_none_or(|entry| entry.watches[class].held_until(self.now) > self.now);
        let followed = state.followed_at;
        let is_back = state.followed_from == Some(leader.index());
        !was_left && (!is_back || followed.is_none_or(|at| at + FOLLOW_SPACING <= self.now))
    }

    /// The best path that keeps the class's bounds, where the current one does not.
    fn sound_instead<'a>(
        &self,
        class: usize,
        field: &'a Field,
        current: &Standing,
    ) -> Option<&'a Standing> {
        let watch = &self.entry(current.index())?.watches[class];
        if watch.violated() == 0 {
            return None;
        }
        let scoring = self.config.classes[class].scoring;
        let is_faster = |other: &Standing| match scoring {
            // Loss costs bulk nothing but speed, so a slower path is no remedy.
            Scoring::Throughput { .. } => other.score.score >= current.score.score,
            Scoring::Weighted { .. } | Scoring::Voice => true,
        };
        let met = field.all().iter().filter(|other| other.tier == TIER_MET);
        let mut sound = met.filter(|other| other.is_sound() && self.is_free(class, other));
        sound.find(|other| is_faster(other))
    }

    /// The path that the class would rather use, and since when.
    fn hold(&self, class: usize, field: &Field) -> Option<Hold> {
        let held = self.classes[class].hold;
        let current = field.find(self.routes[class].path?)?;
        if current.tier > TIER_VIOLATED {
            // In doubt whether the current path lives, no wish begins or ends.
            return held;
        }
        let wish = |path: PathIndex| {
            let other = field.find(path)?;
            self.wish(class, current, other)
        };
        if let Some(held) = held
            && let Some(wish) = wish(held.path)
        {
            return Some(Hold { wish, ..held });
        }
        field.all().iter().find_map(|other| {
            Some(Hold {
                path: other.index(),
                wish: self.wish(class, current, other)?,
                since: self.now,
            })
        })
    }

    /// Why a class would rather use another path.
    pub(super) fn wish(&self, class: usize, current: &Standing, other: &Standing) -> Option<Wish> {
        if other.path == current.path || !other.is_sound() || other.tier > current.tier {
            return None;
        }
        let is_better = self.is_better(class, current, other);
        let is_sounder = other.tier < current.tier;
        match other.preference.cmp(&current.preference) {
            // Among paths that are all bad the least bad one counts, not the preferred one.
            Ordering::Less => {
                let counts = current.tier == TIER_MET
                    || is_sounder
                    || other.score.score >= current.score.score;
                counts.then_some(Wish::Preferred)
            }
            Ordering::Equal => is_better.then_some(Wish::Better),
            Ordering::Greater => (is_better && current.tier != TIER_MET).then_some(Wish::Better),
        }
    }

    /// Better by the margin, and in something that can be felt.
    fn is_better(&self, class: usize, current: &Standing, other: &Standing) -> bool {
        if other.score.score < current.score.score + SCORE_MARGIN {
            return false;
        }
        let (now, then) = (&current.sample, &other.sample);
        let rtt = now.rtt_ms.zip(then.rtt_ms);
        let is_faster = rtt.is_some_and(|(now_ms, then_ms)| {
            now_ms - then_ms >= (RTT_GAIN * now_ms).max(RTT_GAIN_MS)
        });
        let lost_less = now.loss_pct.unwrap_or(0.0) - then.loss_pct.unwrap_or(0.0);
        let is_wider = match self.config.classes[class].scoring {
            Scoring::Throughput { .. } => {
                let free = now.free_bps.zip(then.free_bps);
                free.is_some_and(|(now_bps, then_bps)| then_bps >= CAPACITY_GAIN * now_bps)
            }
            Scoring::Weighted { .. } | Scoring::Voice => false,
        };
        is_faster || lost_less >= LOSS_GAIN_PCT || is_wider
    }

    /// When a wish may come true.
    pub(super) fn eligible_at(&self, class: usize, hold: &Hold) -> Time {
        let Some(entry) = self.entry(hold.path) else {
            return Time(u64::MAX);
        };
        let held_until = entry.held_until(class, self.now);
        if self.is_settling(class) {
            return held_until;
        }
        // A preferred path that was in trouble has its hold-down; that it is preferred is nothing new.
        let has_recovered = entry.troubles(class, self.now) > 0;
        let lasts = match hold.wish {
            Wish::Preferred if has_recovered => Time::default(),
            Wish::Preferred | Wish::Better => hold.since + HOLD,
        };
        let last = self.classes[class].voluntary_at;
        let spaced = last.map_or_else(Time::default, |at| at + VOLUNTARY_SPACING);
        held_until.max(lasts).max(spaced)
    }

    /// Whether no hold-down keeps a class from a path.
    pub(super) fn is_free(&self, class: usize, standing: &Standing) -> bool {
        let entry = self.entry(standing.index());
        entry.is_some_and(|entry| entry.held_until(class, self.now) <= self.now)
    }

    /// Whether a path can carry what the class sends, beside what it carries.
    pub(super) fn has_room(&self, class: usize, standing: &Standing) -> bool {
        let load_bps = self.classes[class].load_bps;
        let free_bps = standing.sample.free_bps;
        free_bps.is_none_or(|free_bps| load_bps <= FILL * free_bps)
    }

    /// Right after the first path came up the others are on their way: the best of them is taken as it comes.
    pub(super) fn is_settling(&self, class: usize) -> bool {
        let first_at = self.classes[class].first_at;
        first_at.is_some_and(|at| self.now.since(at) < SETTLING)
    }

    /// The path that carries copies.
    fn protector(&self, class: usize, field: &Field) -> Option<PathIndex> {
        let in_use = self.routes[class].path?;
        let state = self.entry(in_use)?.state;
        if !self.config.classes[class].protect || state != crate::metrics::PathState::Suspect {
            return None;
        }
        let mut others = field.all().iter().filter(|other| other.path != in_use.0);
        let best = others.find(|other| other.is_usable() && !other.is_draining);
        best.map(Standing::index)
    }

    /// The pin is gone: back to where the class would be without it.
    pub(super) fn unpinned(&mut self, class: usize) {
        let field = self.field(class, self.now);
        let current = self.routes[class].path.and_then(|path| field.find(path));
        let Some(current) = current else {
            return;
        };
        let mut others = field.all().iter();
        let wanted = others.find(|other| {
            let is_wanted = self.wish(class, current, other).is_some();
            is_wanted && self.is_free(class, other)
        });
        if let Some(wanted) = wanted.copied() {
            self.carry_out(class, Plan::to(&wanted, Cause::Pin), &field);
        }
    }

    /// Tells when something that a class waits for may be over.
    pub(super) fn holds_end(&self, class: usize, due: &mut impl FnMut(Time)) {
        let state = &self.classes[class];
        if let Some(hold) = &state.hold {
            due(self.eligible_at(class, hold));
        }
        if let Some(at) = state.followed_at {
            due(at + FOLLOW_SPACING);
        }
        for entry in self
            .paths
            .iter()
            .flatten()
            .filter(|entry| entry.is_usable())
        {
            due(entry.held_until(class, self.now));
            let watch = &entry.watches[class];
            watch.next_expiry(self.now).into_iter().for_each(&mut *due);
            let expiry = entry.downs.next_expiry(self.now);
            expiry.into_iter().for_each(&mut *due);
        }
    }
}

/// How long another path must have been better.
pub(super) const HOLD: Duration = Duration::from_secs(30);
/// Between two voluntary moves of a class.
pub(super) const VOLUNTARY_SPACING: Duration = Duration::from_secs(60);
const FOLLOW_SPACING: Duration = Duration::from_secs(10);
const SETTLING: Duration = Duration::from_secs(5);
/// How much better a score must be.
pub(super) const SCORE_MARGIN: f64 = 10.0;
const CAPACITY_GAIN: f64 = 1.2;
const RTT_GAIN: f64 = 0.2;
const RTT_GAIN_MS: f64 = 10.0;
const LOSS_GAIN_PCT: f64 = 0.5;
/// A path is full before its capacity is reached.
pub(super) const FILL: f64 = 0.9;
