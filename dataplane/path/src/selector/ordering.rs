//! In which order a class would take the paths.

use std::cmp::Ordering;

use super::entry::{TIER_DOWN, TIER_VIOLATED};
use crate::class::{Sample, Score};
use crate::ids::{PATHS_MAX, PathIndex};

/// What the operator thinks of a path: lower is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Preference {
    /// Place of its uplink among those that the class prefers.
    pub(super) place: u8,
    /// The path's cost.
    pub(super) cost: u16,
    /// Bytes that cost money come after bytes that do not.
    pub(super) is_metered: bool,
}

/// A path as a class sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    pub(super) path: u8,
    pub(super) tier: u8,
    pub(super) is_draining: bool,
    pub(super) preference: Preference,
    pub(super) score: Score,
    pub(super) sample: Sample,
}

impl Standing {
    pub(super) fn index(&self) -> PathIndex {
        PathIndex(self.path)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.tier < TIER_DOWN
    }

    /// Neither suspect nor suppressed nor down nor to be left.
    pub(super) fn is_sound(&self) -> bool {
        self.tier <= TIER_VIOLATED && !self.is_draining
    }

    /// Usable before unusable, kept before draining, then tier, preference, score, number.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let rank = |standing: &Self| {
            let is_down = !standing.is_usable();
            (
                is_down,
                standing.is_draining,
                standing.tier,
                standing.preference,
            )
        };
        rank(self)
            .cmp(&rank(other))
            .then_with(|| other.score.score.total_cmp(&self.score.score))
            .then_with(|| self.path.cmp(&other.path))
    }
}

/// Every path as a class sees it, best first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    standings: [Standing; PATHS_MAX],
    len: usize,
}

impl Field {
    pub(super) fn new(standings: impl Iterator<Item = Standing>) -> Self {
        let mut field = Self {
            standings: [Standing::default(); PATHS_MAX],
            len: 0,
        };
        for standing in standings.take(PATHS_MAX) {
            field.standings[field.len] = standing;
            field.len += 1;
        }
        field.standings[..field.len].sort_unstable_by(Standing::order);
        field
    }

    pub(super) fn all(&self) -> &[Standing] {
        &self.standings[..self.len]
    }

    /// The first one, if it is usable.
    pub(super) fn best(&self) -> Option<&Standing> {
        self.all().first().filter(|standing| standing.is_usable())
    }

    /// One of them.
    pub(super) fn find(&self, path: PathIndex) -> Option<&Standing> {
        self.all().iter().find(|standing| standing.path == path.0)
    }
}
