//! Numbers that name paths and classes.

use serde::{Deserialize, Serialize};

/// Most paths to one peer.
pub const PATHS_MAX: usize = 16;
/// Most traffic classes of one gateway.
pub const CLASSES_MAX: usize = 8;

/// A path's place in its peer's table, below [`PATHS_MAX`]; also its id on the wire, plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PathIndex(pub u8);

/// A class's place in the configuration, below [`CLASSES_MAX`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClassId(pub u8);

/// Paths, best first, each at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<PathIndex>", into = "Vec<PathIndex>")]
pub struct Ranking {
    paths: [u8; PATHS_MAX],
    len: u8,
}

impl Ranking {
    /// These paths; what is no path, or was there before, is left out.
    pub fn new(paths: impl IntoIterator<Item = PathIndex>) -> Self {
        let mut ranking = Self::default();
        for path in paths {
            if path.as_usize() < PATHS_MAX && ranking.place(path).is_none() {
                ranking.paths[usize::from(ranking.len)] = path.0;
                ranking.len += 1;
            }
        }
        ranking
    }

    /// The paths, best first.
    pub fn iter(&self) -> impl Iterator<Item = PathIndex> + '_ {
        let known = &self.paths[..usize::from(self.len)];
        known.iter().copied().map(PathIndex)
    }

    /// The place of a path, from 0.
    pub fn place(&self, path: PathIndex) -> Option<u8> {
        let place = self.iter().position(|known| known == path)?;
        Some(place as u8)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether it names no path.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl From<Vec<PathIndex>> for Ranking {
    fn from(paths: Vec<PathIndex>) -> Self {
        Self::new(paths)
    }
}

impl From<Ranking> for Vec<PathIndex> {
    fn from(ranking: Ranking) -> Self {
        ranking.iter().collect()
    }
}

impl PathIndex {
    /// As an index into a table.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

impl ClassId {
    /// As an index into a table.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}
