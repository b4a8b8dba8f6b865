//! Token buckets: how much of a thing is done at most, before it costs anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::machine::counters::Drop;

/// Most sources that are told apart.
pub const SOURCES_MAX: usize = 4096;

/// Refills at a rate, up to a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Thousandths of tokens.
    millis: u64,
    refilled_at: Instant,
    rate: Rate,
}

/// Tokens per second, and at most at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub per_s: u64,
    pub burst: u64,
}

impl Bucket {
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self {
            millis: rate.burst * 1000,
            refilled_at: now,
            rate,
        }
    }

    pub fn take(&mut self, now: Instant) -> bool {
        let millis = now.saturating_duration_since(self.refilled_at).as_millis() as u64;
        if millis > 0 {
            let refilled = self
                .millis
                .saturating_add(millis.saturating_mul(self.rate.per_s));
            self.millis = refilled.min(self.rate.burst * 1000);
            self.refilled_at = now;
        }
        let has_one = self.millis >= 1000;
        if has_one {
            self.millis -= 1000;
        }
        has_one
    }
}

/// Who sends how much, in clear: each source has a bucket, and all that nobody answered for have one together.
pub(super) struct Sources {
    known: BTreeMap<IpAddr, Source>,
    strangers: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    bucket: Bucket,
    seen_at: Instant,
    /// Until when it is no stranger: it said something fresh and signed, or was asked something.
    familiar_until: Option<Instant>,
}

impl Sources {
    pub fn new(now: Instant) -> Self {
        Self {
            known: BTreeMap::new(),
            strangers: Bucket::full(STRANGERS, now),
        }
    }

    /// Whether a datagram of this source may cost a cipher. A flood from addresses that nobody knows ends here, and does
    /// not take the share of those that are known.
    pub fn admit(&mut self, source: IpAddr, now: Instant) -> Result<(), Drop> {
        let is_familiar = |source: &Source| source.familiar_until.is_some_and(|until| now < until);
        let known = self.known.get_mut(&source);
        let familiar = known.as_deref().is_some_and(is_familiar);
        if let Some(source) = known {
            source.seen_at = now;
            if !source.bucket.take(now) {
                return Err(Drop::SourceRate);
            }
        }
        if familiar {
            return Ok(());
        }
        if !self.strangers.take(now) {
            return Err(Drop::GlobalRate);
        }
        if !self.known.contains_key(&source) {
            self.insert(source, now);
        }
        Ok(())
    }

    /// The source is no stranger for a while.
    pub fn befriend(&mut self, source: IpAddr, span: Duration, now: Instant) {
        let until = now + span;
        if !self.known.contains_key(&source) {
            self.insert(source, now);
        }
        if let Some(source) = self.known.get_mut(&source) {
            source.familiar_until = source.familiar_until.max(Some(until));
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    fn insert(&mut self, source: IpAddr, now: Instant) {
        if self.known.len() >= SOURCES_MAX {
            self.make_room(now);
        }
        let mut bucket = Bucket::full(SOURCE, now);
        bucket.take(now);
        let source_state = Source {
            bucket,
            seen_at: now,
            familiar_until: None,
        };
        self.known.insert(source, source_state);
    }

    /// Strangers whose buckets are full again lose nothing by being forgotten; else the oldest stranger goes, else the
    /// oldest of all. At most 200 strangers a second come here, so a walk is affordable.
    fn make_room(&mut self, now: Instant) {
        let refilled = Duration::from_millis(SOURCE.burst * 1000 / SOURCE.per_s);
        let is_familiar = |source: &Source| source.familiar_until.is_some_and(|until| now < until);
        self.known.retain(|_, source| {
            is_familiar(source) || now.saturating_duration_since(source.seen_at) < refilled
        });
        if self.known.len() < SOURCES_MAX {
            return;
        }
        let oldest = self
            .known
            .iter()
            .min_by_key(|(_, source)| (is_familiar(source), source.seen_at))
            .map(|(addr, _)| *addr);
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}

const SOURCE: Rate = Rate {
    per_s: 5,
    burst: 20,
};
const STRANGERS: Rate = Rate {
    per_s: 200,
    burst: 600,
};
