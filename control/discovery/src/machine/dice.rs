//! Chance from a seed: keyed BLAKE2s-256 of a counter.

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use rand_core::{CryptoRng, Error, RngCore};
use std::time::Duration;
use zeroize::Zeroize;

const BLOCK_LEN: usize = 32;

/// The machine's only source of chance. Who knows its seed can foretell every nonce, so a real seed comes from the
/// system's own source.
pub(super) struct Dice {
    seed: [u8; 32],
    counter: u64,
    block: [u8; BLOCK_LEN],
    used: usize,
}

impl Dice {
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            counter: 0,
            block: [0; BLOCK_LEN],
            used: BLOCK_LEN,
        }
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias is below 2⁻³² for all limits here, which are milliseconds and places in tables.
        self.next_u64().checked_rem(limit).unwrap_or(0)
    }

    /// `span`, a quarter more or less.
    pub fn about(&mut self, span: Duration) -> Duration {
        let millis = span.as_millis() as u64;
        let jitter = self.below(millis / 2 + 1);
        Duration::from_millis(millis - millis / 4 + jitter)
    }

    fn refill(&mut self) {
        let mut mac = <Blake2sMac256 as KeyInit>::new(&self.seed.into());
        mac.update(&self.counter.to_le_bytes());
        self.block = mac.finalize().into_bytes().into();
        self.counter += 1;
        self.used = 0;
    }
}

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        let mut at = 0;
        while at < out.len() {
            if self.used == BLOCK_LEN {
                self.refill();
            }
            let len = (out.len() - at).min(BLOCK_LEN - self.used);
            let from = &mut self.block[self.used..self.used + len];
            out[at..at + len].copy_from_slice(from);
            from.zeroize();
            self.used += len;
            at += len;
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Dice {}

impl Drop for Dice {
    fn drop(&mut self) {
        self.seed.zeroize();
        self.block.zeroize();
    }
}
