//! When a certificate or delegation is in force.

use std::time::Duration;

use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader};

/// From when until when, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Validity {
    not_before: WallTime,
    not_after: WallTime,
}

/// Where a time lies in a validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It begins later.
    NotYetValid {
        /// So much later.
        starts_in: Duration,
    },
    /// In force.
    Valid {
        /// So long yet.
        left: Duration,
    },
    /// It ended, but not longer ago than the grace that the caller gives: known peers keep forwarding, nobody new is
    /// let in.
    Grace {
        /// So long ago.
        since: Duration,
    },
    /// It ended, and grace with it.
    Expired {
        /// So long ago.
        since: Duration,
    },
}

impl Validity {
    /// `None` when the end is not after the beginning.
    pub fn new(not_before: WallTime, not_after: WallTime) -> Option<Self> {
        (not_before < not_after).then_some(Self {
            not_before,
            not_after,
        })
    }

    /// When it begins.
    pub fn not_before(&self) -> WallTime {
        self.not_before
    }

    /// When it ends.
    pub fn not_after(&self) -> WallTime {
        self.not_after
    }

    /// How long it is.
    pub fn span(&self) -> Duration {
        self.not_after.since(self.not_before)
    }

    /// Where `now` lies, with so much grace behind the end.
    pub fn standing(&self, now: WallTime, grace: Duration) -> Standing {
        if now < self.not_before {
            return Standing::NotYetValid {
                starts_in: self.not_before.since(now),
            };
        }
        if now <= self.not_after {
            return Standing::Valid {
                left: self.not_after.since(now),
            };
        }
        let since = now.since(self.not_after);
        if since <= grace {
            Standing::Grace { since }
        } else {
            Standing::Expired { since }
        }
    }

    /// Whether all of `inner` lies in it.
    pub fn covers(&self, inner: &Self) -> bool {
        self.not_before <= inner.not_before && inner.not_after <= self.not_after
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.not_before.0);
        out.put_u64(self.not_after.0);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let not_before = WallTime(reader.u64("not before")?);
        let not_after = WallTime(reader.u64("not after")?);
        Self::new(not_before, not_after).ok_or(Fault::Contradiction.at("not after"))
    }
}
