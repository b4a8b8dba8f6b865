//! A cell of machine words with one writer and any number of readers, without locks and without `unsafe`.
//!
//! The writer never waits. A reader that meets a write in progress tries again a few times and then gives
//! up for this time. The ordering is the classic one for sequence locks over atomics (Boehm, "Can seqlocks
//! get along with programming language memory models?", MSPC 2012).

use std::sync::atomic::Ordering;

use crate::sync::{AtomicU64, fence};

const SEQUENCE: u64 = 0xffff_ffff;
/// All attempts are alike, so a model of every order of events gets by with two.
const READ_ATTEMPTS: usize = if cfg!(feature = "loom") { 2 } else { 64 };

/// `N` words that change together. The low 32 bits of word 0 are the sequence; the caller has the rest.
#[derive(Debug)]
pub struct SeqCell<const N: usize> {
    words: [AtomicU64; N],
}

impl<const N: usize> Default for SeqCell<N> {
    fn default() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const N: usize> SeqCell<N> {
    /// A consistent copy, low half of word 0 zero; `None` when a writer kept changing it.
    pub fn read(&self) -> Option<[u64; N]> {
        for _ in 0..READ_ATTEMPTS {
            let before = self.words[0].load(Ordering::Acquire);
            if before & 1 == 0 {
                let mut copy = self.load();
                fence(Ordering::Acquire);
                let after = self.words[0].load(Ordering::Relaxed);
                if after & SEQUENCE == before & SEQUENCE {
                    copy[0] &= !SEQUENCE;
                    return Some(copy);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The words as the only writer sees them, low half of word 0 zero.
    #[inline]
    pub fn read_own(&self) -> [u64; N] {
        let mut copy = self.load();
        copy[0] &= !SEQUENCE;
        copy
    }

    /// One word as the only writer sees it.
    #[inline]
    pub fn word_own(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Relaxed)
    }

    /// Replaces all words. Only one thread may write; the low half of `words[0]` is ignored.
    #[inline]
    pub fn write(&self, words: [u64; N]) {
        let sequence = self.words[0].load(Ordering::Relaxed) & SEQUENCE;
        debug_assert_eq!(sequence & 1, 0, "two writers met in one cell");
        let head = words[0] & !SEQUENCE;
        self.words[0].store(head | (sequence + 1) & SEQUENCE, Ordering::Relaxed);
        fence(Ordering::Release);
        for (cell, word) in self.words.iter().zip(words).skip(1) {
            cell.store(word, Ordering::Relaxed);
        }
        self.words[0].store(head | (sequence + 2) & SEQUENCE, Ordering::Release);
    }

    #[inline]
    fn load(&self) -> [u64; N] {
        std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn readers_never_see_half_a_write() {
        let cell = SeqCell::<8>::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut seen = 0u64;
                        while !done.load(Ordering::Relaxed) || seen == 0 {
                            let Some(words) = cell.read() else { continue };
                            assert!(words[1..].iter().all(|word| *word == words[1]), "{words:?}");
                            assert_eq!(words[0] >> 32, words[1] & 0xffff_ffff);
                            seen += 1;
                        }
                        seen
                    })
                })
                .collect();
            for value in 1..200_000u64 {
                let mut words = [value; 8];
                words[0] = value << 32;
                cell.write(words);
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > 0);
            }
        });
    }
}
