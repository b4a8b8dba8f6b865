//! In which order a class would take the paths.
//!
//! Both ends of a path measure it, each with noise of its own, and both have to leave it when it dies. Between paths that
//! are equal but for the noise it is not their numbers that decide, then, but their *level*, which a path does not
//! leave for a little; and among those of one level, what is unlikely to die together with the path in use. A site that
//! follows takes the order that the peer tells it (decision 7).

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

/// What a path has in common with the one in use, which is likely to die with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kinship {
    /// It is the one in use.
    Same,
    /// Nothing is known to be.
    #[default]
    None,
    /// The local uplink or the peer's address.
    OneEnd,
    /// Both: another port of the same address, say.
    BothEnds,
}

/// By path: the level that it had.
pub(super) type Levels = [u8; PATHS_MAX];

/// A path as a class sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    pub(super) path: u8,
    pub(super) tier: u8,
    pub(super) is_draining: bool,
    /// Its place in the order that the peer told, where this site follows.
    pub(super) told: u8,
    pub(super) preference: Preference,
    /// Lower is better; equal for paths that are equal but for noise.
    pub(super) level: u8,
    /// What it has in common with the path in use.
    pub(super) kinship: Kinship,
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

    /// Whether two are compared by what was measured.
    fn is_peer_of(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.tier, it.is_draining, it.preference);
        key(self) == key(other)
    }

    /// Usable before unusable, kept before draining, then tier, the peer's word, preference, level, what has the least in
    /// common with the path in use, number.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let rank = |standing: &Self| {
            (
                !standing.is_usable(),
                standing.is_draining,
                standing.tier,
                standing.told,
                standing.preference,
                standing.level,
                standing.kinship,
                standing.path,
            )
        };
        rank(self).cmp(&rank(other))
    }

    /// Whether it is as good as the best in score and the quickest in round trip, but for so much noise.
    fn is_near(&self, score: f64, rtt_ms: f64, noise: Noise) -> bool {
        let own_ms = self.sample.rtt_ms.unwrap_or(0.0);
        let later_ms = (noise.rtt_share * rtt_ms).max(noise.rtt_ms);
        self.score.score >= score - noise.score && own_ms <= rtt_ms + later_ms
    }
}

/// What makes no difference.
#[derive(Clone, Copy)]
struct Noise {
    score: f64,
    rtt_share: f64,
    rtt_ms: f64,
}

/// Puts paths of the same tier and preference on levels: with the best one are those that are near it, the others begin
/// anew below. Who was on one level with the best stays there as long as it is not clearly worse; who was not, comes there
/// when it is clearly as good.
fn settle_levels(standings: &mut [Standing], before: &Levels) {
    let mut is_settled = [false; PATHS_MAX];
    let mut level = 0;
    while let Some(first) = is_settled[..standings.len()].iter().position(|it| !it) {
        let lead = standings[first];
        let open = |at: usize, is_settled: &[bool; PATHS_MAX], it: &Standing| {
            !is_settled[at] && it.is_peer_of(&lead)
        };
        let (mut best, mut rtt_ms) = (lead, f64::INFINITY);
        for (at, it) in standings.iter().enumerate() {
            if !open(at, &is_settled, it) {
                continue;
            }
            if it.score.score > best.score.score {
                best = *it;
            }
            rtt_ms = rtt_ms.min(it.sample.rtt_ms.unwrap_or(0.0));
        }
        let level_before = |path: u8| before.get(usize::from(path)).copied();
        let mut any = false;
        for at in 0..standings.len() {
            let it = standings[at];
            let was_beside = level_before(it.path) == level_before(best.path);
            let noise = if was_beside { STAYS } else { COMES };
            if open(at, &is_settled, &it) && it.is_near(best.score.score, rtt_ms, noise) {
                standings[at].level = level;
                is_settled[at] = true;
                any = true;
            }
        }
        if !any {
            // The best one is not quick, the quick one not good: the best one goes first.
            let at = standings.iter().position(|it| it.path == best.path);
            let at = at.unwrap_or(first);
            standings[at].level = level;
            is_settled[at] = true;
        }
        level = level.saturating_add(1);
    }
}

/// Every path as a class sees it, best first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    standings: [Standing; PATHS_MAX],
    len: usize,
}

impl Field {
    /// The field of standings whose levels were these.
    pub(super) fn new(standings: impl Iterator<Item = Standing>, before: &Levels) -> Self {
        let mut field = Self {
            standings: [Standing::default(); PATHS_MAX],
            len: 0,
        };
        for standing in standings.take(PATHS_MAX) {
            field.standings[field.len] = standing;
            field.len += 1;
        }
        let known = &mut field.standings[..field.len];
        settle_levels(known, before);
        known.sort_unstable_by(Standing::order);
        field
    }

    /// By path: its level; of those that are not there, what it was.
    pub(super) fn levels(&self, before: &Levels) -> Levels {
        let mut levels = *before;
        for standing in self.all() {
            if let Some(level) = levels.get_mut(usize::from(standing.path)) {
                *level = standing.level;
            }
        }
        levels
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

/// Two probes in a hundred are a score of three to four for voice.
const STAYS: Noise = Noise {
    score: 5.0,
    rtt_share: 0.2,
    rtt_ms: 10.0,
};
const COMES: Noise = Noise {
    score: 2.5,
    rtt_share: 0.1,
    rtt_ms: 5.0,
};
