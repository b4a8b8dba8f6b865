//! One session: two keys, the sending counter, and the window that refuses what was seen before.
//!
//! Owned by a [`Peer`](crate::Peer). Transport messages are whitepaper section 5.4.6; limits in time are section
//! 6.1.

use std::time::{Duration, Instant};

use patronus_aead::{Backend, Key};

use crate::message::{COUNTER_LIMIT, DATA_HEADER_LEN, DATA_OVERHEAD};
use crate::noise::{Secret, TransportKeys};
use crate::peer::Refused;

/// A session is replaced after this time, by its initiator when it sends: `REKEY_AFTER_TIME`.
pub(crate) const REKEY_AFTER: Duration = Duration::from_secs(120);
/// A session is used no longer than this: `REJECT_AFTER_TIME`.
pub(crate) const REJECT_AFTER: Duration = Duration::from_secs(180);
/// And a new one is wanted after this many messages: `REKEY_AFTER_MESSAGES`.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// A session with its keys.
pub(crate) struct Session {
    send: Key,
    recv: Key,
    local_index: u32,
    remote_index: u32,
    next_counter: u64,
    window: Window,
    began: Instant,
    /// Whether we sent the initiation: then it is ours to replace the session.
    is_initiator: bool,
}

impl Session {
    pub(crate) fn new(
        keys: &TransportKeys,
        is_initiator: bool,
        backend: Backend,
        now: Instant,
    ) -> Self {
        let key = |secret: &Secret| {
            Key::with_backend(&secret.0, backend).unwrap_or_else(|| Key::new(&secret.0))
        };
        Self {
            send: key(&keys.send),
            recv: key(&keys.recv),
            local_index: keys.local_index,
            remote_index: keys.remote_index,
            next_counter: 0,
            window: Window::default(),
            began: now,
            is_initiator,
        }
    }

    #[inline]
    pub(crate) fn local_index(&self) -> u32 {
        self.local_index
    }

    pub(crate) fn is_initiator(&self) -> bool {
        self.is_initiator
    }

    #[inline]
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Whether it may still carry data.
    #[inline]
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        self.age(now) < REJECT_AFTER && self.next_counter < COUNTER_LIMIT
    }

    /// Whether its initiator should replace it, when it sends.
    #[inline]
    pub(crate) fn is_worn(&self, now: Instant) -> bool {
        (self.is_initiator && self.age(now) >= REKEY_AFTER)
            || self.next_counter >= REKEY_AFTER_MESSAGES
    }

    /// Seals into the start of `out`, which has room for [`DATA_OVERHEAD`] bytes more than `plain`; the caller has
    /// asked [`is_usable`](Self::is_usable).
    #[inline]
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> usize {
        debug_assert!(
            self.next_counter < COUNTER_LIMIT,
            "a counter may not come again"
        );
        let counter = self.next_counter;
        self.next_counter += 1;
        let (header, text) = out.split_at_mut(DATA_HEADER_LEN);
        header[..4].copy_from_slice(&4u32.to_le_bytes());
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        self.send.seal_to(counter, plain, text);
        plain.len() + DATA_OVERHEAD
    }

    /// Opens a data message of this session into the start of `out` and returns the length of what was inside. A
    /// message that does not authenticate moves nothing.
    #[inline]
    pub(crate) fn open(
        &mut self,
        datagram: &[u8],
        counter: u64,
        out: &mut [u8],
    ) -> Result<usize, Refused> {
        self.window.check(counter)?;
        let len = self
            .recv
            .open_to(counter, &datagram[DATA_HEADER_LEN..], out)
            .map_err(|_| Refused::BadTag)?;
        self.window.mark(counter);
        Ok(len)
    }
}

/// Which counters were seen: a ring of bits behind the greatest one (RFC 6479).
pub(crate) struct Window {
    /// The greatest counter seen, plus one.
    end: u64,
    bits: [u64; WINDOW_WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            end: 0,
            bits: [0; WINDOW_WORDS],
        }
    }
}

impl Window {
    #[inline]
    fn check(&self, counter: u64) -> Result<(), Refused> {
        if counter >= self.end {
            return Ok(());
        }
        if self.end - counter > WINDOW_LEN {
            return Err(Refused::TooOld);
        }
        let (word, bit) = place(counter);
        match self.bits[word] >> bit & 1 {
            0 => Ok(()),
            _ => Err(Refused::Replayed),
        }
    }

    /// Takes a counter that [`check`](Self::check) passed and that is below [`COUNTER_LIMIT`].
    #[inline]
    fn mark(&mut self, counter: u64) {
        debug_assert!(counter < COUNTER_LIMIT && self.check(counter).is_ok());
        if counter >= self.end {
            // Words that the window enters hold bits of a round ago.
            let newest = self.end.saturating_sub(1) / 64;
            let fresh = (counter / 64 - newest).min(WINDOW_WORDS as u64);
            for step in 1..=fresh {
                self.bits[(newest + step) as usize % WINDOW_WORDS] = 0;
            }
            self.end = counter + 1;
        }
        let (word, bit) = place(counter);
        self.bits[word] |= 1 << bit;
    }
}

#[inline]
fn place(counter: u64) -> (usize, u64) {
    ((counter / 64) as usize % WINDOW_WORDS, counter % 64)
}

const WINDOW_WORDS: usize = 128;
/// Messages that may arrive behind the newest one: a word less than the ring holds, as in the Linux kernel.
pub const WINDOW_LEN: u64 = (WINDOW_WORDS as u64 - 1) * 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_equals_a_set(
            steps in proptest::collection::vec(
                prop_oneof![
                    6 => 0i64..100,
                    3 => -200i64..0,
                    1 => -9000i64..9000,
                    1 => 8000i64..20_000,
                ],
                1..400,
            ),
            start in prop_oneof![Just(0u64), 0u64..70, Just(COUNTER_LIMIT - 2_000_000)],
        ) {
            let mut window = Window::default();
            let mut seen = HashSet::new();
            let (mut newest, mut any) = (0, false);
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step).min(COUNTER_LIMIT - 1);
                let expected = if any && at + WINDOW_LEN <= newest {
                    Err(Refused::TooOld)
                } else if seen.contains(&at) {
                    Err(Refused::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(at), expected, "counter {} of {}", at, newest);
                if expected.is_ok() {
                    window.mark(at);
                    seen.insert(at);
                    newest = newest.max(at);
                    any = true;
                }
                at = newest;
            }
        }
    }
}
