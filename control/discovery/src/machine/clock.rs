//! The two clocks that every input carries.

use std::time::Instant;

use crate::time::WallTime;

/// When an input happens, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The clock that only goes forward: everything that waits, waits by it.
    pub instant: Instant,
    /// The clock that may be wrong or jump: certificates and messages are dated by it.
    pub wall: WallTime,
}
