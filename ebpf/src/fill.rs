//! How full a table of the kernel's is.

/// A map and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name.
    pub map: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// The most that there may be.
    pub entries_max: u64,
}
