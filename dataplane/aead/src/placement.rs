//! Where a packet lies before and after: in one buffer, or in two.

/// Bytes to read, and room for what becomes of them, offset for offset. A source may end before the target does, and
/// counts as zeros from there on.
pub(crate) enum Placement<'a> {
    /// From one buffer into another.
    Apart {
        source: &'a [u8],
        target: &'a mut [u8],
    },
    /// Over itself. The source ends at `len`.
    InPlace { bytes: &'a mut [u8], len: usize },
}

impl Placement<'_> {
    /// What is read. Only from where nothing is written yet.
    #[inline]
    pub(crate) fn source(&self) -> &[u8] {
        match self {
            Placement::Apart { source, .. } => source,
            Placement::InPlace { bytes, len } => &bytes[..*len],
        }
    }

    /// Where it goes.
    #[inline]
    pub(crate) fn target(&mut self) -> &mut [u8] {
        match self {
            Placement::Apart { target, .. } => target,
            Placement::InPlace { bytes, .. } => bytes,
        }
    }
}
