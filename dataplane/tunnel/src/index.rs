//! Receiver indices: how a datagram names the session it belongs to, and with it the worker.
//!
//! A cycling session number takes the low byte of the 32-bit index on the wire; 24 bits name the peer. The lowest of those three bytes is the worker, so that classic BPF
//! steers a datagram by its second index byte; the other two are a random slot of that worker.

/// A packet worker, from 0. At most [`WorkerId::COUNT_MAX`] exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

impl WorkerId {
    /// As many workers as one byte of the index can name.
    pub const COUNT_MAX: usize = 256;

    /// The worker's place in an array of workers.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

/// The 24 bits that name one peer's tunnel in every receiver index we hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The index of `slot` on `worker`.
    pub fn new(worker: WorkerId, slot: u16) -> Self {
        Self(u32::from(slot) << 8 | u32::from(worker.0))
    }

    /// The peer's part of a receiver index as it came from the wire.
    pub fn from_receiver(receiver: u32) -> Self {
        Self(receiver >> 8)
    }

    /// The worker that owns the peer. From the wire it may name a worker that does not exist.
    pub fn worker(self) -> WorkerId {
        WorkerId(self.0 as u8)
    }

    /// The 24 bits as a number.
    pub fn as_u32(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_is_the_second_byte_on_the_wire() {
        let index = PeerIndex::new(WorkerId(7), 0xabcd);
        let receiver = index.as_u32() << 8 | 0x42;
        assert_eq!(receiver.to_le_bytes(), [0x42, 7, 0xcd, 0xab]);
        assert_eq!(PeerIndex::from_receiver(receiver), index);
        assert_eq!(index.worker(), WorkerId(7));
    }
}
