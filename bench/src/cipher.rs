//! The limit: ChaCha20-Poly1305 (RFC 8439) as WireGuard uses it, by the code that the gateway would take, and nothing
//! around it.
//!
//! A packet is sealed or opened in place, with its tag behind it and a fresh nonce. The packets of one length lie in
//! a pool that fits a first-level cache, so nothing but the cipher is measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use patronus_aead::{Backend, Key};

pub use patronus_aead::TAG_LEN;

/// Bytes of the whole pool: two thirds of the smallest first-level data cache in use.
const POOL_BYTES: usize = 20 << 10;

/// Packets of one length and a key.
pub struct Cipher {
    key: Key,
    packets: Vec<Vec<u8>>,
    plain_len: usize,
    counter: u64,
}

impl Cipher {
    /// Packets with `plain_len` bytes of plaintext, without header and tag, for the code that a gateway takes here.
    pub fn new(plain_len: usize) -> Self {
        Self::with_key(Key::new(&KEY), plain_len)
    }

    /// The same for code that is asked for; `None` where this processor cannot run it.
    pub fn with_backend(backend: Backend, plain_len: usize) -> Option<Self> {
        Some(Self::with_key(Key::with_backend(&KEY, backend)?, plain_len))
    }

    fn with_key(key: Key, plain_len: usize) -> Self {
        let packets = (POOL_BYTES / (plain_len + TAG_LEN)).max(1);
        Self {
            key,
            packets: vec![vec![0xa5; plain_len + TAG_LEN]; packets],
            plain_len,
            counter: 0,
        }
    }

    /// Seals that many packets; returns the time it took.
    pub fn seal(&mut self, packets: u64) -> Duration {
        let started = Instant::now();
        self.counted_seal(packets);
        started.elapsed()
    }

    /// Opens that many packets, sealed before on time that is not counted; returns the time it took.
    pub fn open(&mut self, packets: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        let mut left = packets;
        while left > 0 {
            let group = left.min(self.packets.len() as u64);
            let first = self.counter;
            for _ in 0..group {
                self.seal_next();
            }
            let started = Instant::now();
            self.counted_open(first, group);
            elapsed += started.elapsed();
            left -= group;
        }
        elapsed
    }

    /// Never inlined, so that `patronus-icount` can count its instructions and no others.
    #[inline(never)]
    fn counted_seal(&mut self, packets: u64) {
        for _ in 0..packets {
            self.seal_next();
        }
    }

    /// As [`counted_seal`](Self::counted_seal).
    #[inline(never)]
    fn counted_open(&mut self, first: u64, packets: u64) {
        for counter in first..first + packets {
            self.open_at(counter);
        }
    }

    #[inline]
    fn seal_next(&mut self) {
        let at = (self.counter % self.packets.len() as u64) as usize;
        let packet = &mut self.packets[at];
        self.key.seal_in_place(self.counter, packet, self.plain_len);
        black_box(packet);
        self.counter += 1;
    }

    #[inline]
    fn open_at(&mut self, counter: u64) {
        let at = (counter % self.packets.len() as u64) as usize;
        let plain = self
            .key
            .open_in_place(counter, &mut self.packets[at])
            .expect("what was sealed under this counter opens under it");
        black_box(plain);
    }
}

/// Any key is as fast as another.
const KEY: [u8; 32] = [0x5a; 32];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_packets_than_the_pool_holds_are_sealed_and_opened() {
        for plain_len in [0, 64, 1420, 2 * POOL_BYTES] {
            let mut cipher = Cipher::new(plain_len);
            let packets = 2 * cipher.packets.len() as u64 + 1;
            cipher.seal(packets);
            assert_eq!(cipher.counter, packets);
            // A tag that did not fit its counter would panic.
            cipher.open(packets);
            assert_eq!(cipher.counter, 2 * packets);
        }
    }
}
