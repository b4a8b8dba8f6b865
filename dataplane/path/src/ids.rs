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
