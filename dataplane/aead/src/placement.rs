//! Where a packet lies before and after: in one buffer, or in two.

/// Bytes to read, and room to write what becomes of them. Offset for offset the two belong together, and each byte
/// is read before it is written.
pub(crate) trait Placement {
    /// What is read. Nothing that was written before is meant to be here.
    fn source(&self) -> &[u8];
    /// Where it goes.
    fn target(&mut self) -> &mut [u8];
    /// What lies there.
    fn written(&self) -> &[u8];
}

/// From one buffer into another.
pub(crate) struct Apart<'a> {
    pub(crate) source: &'a [u8],
    pub(crate) target: &'a mut [u8],
}

impl Placement for Apart<'_> {
    #[inline]
    fn source(&self) -> &[u8] {
        self.source
    }

    #[inline]
    fn target(&mut self) -> &mut [u8] {
        self.target
    }

    #[inline]
    fn written(&self) -> &[u8] {
        self.target
    }
}

/// Over itself. The source ends at `len`.
pub(crate) struct InPlace<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) len: usize,
}

impl Placement for InPlace<'_> {
    #[inline]
    fn source(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn target(&mut self) -> &mut [u8] {
        self.bytes
    }

    #[inline]
    fn written(&self) -> &[u8] {
        self.bytes
    }
}
