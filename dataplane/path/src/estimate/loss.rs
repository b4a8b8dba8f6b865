//! Which hellos came and which are lost, in both directions, and the share of them in three windows.

use std::time::Duration;

use crate::metrics::LossWindows;
use crate::time::Time;

const FINE_NS: u64 = 100_000_000;
const FINE_SLOTS: usize = 10;
const COARSE_NS: u64 = 1_000_000_000;
const COARSE_SLOTS: usize = 60;
/// A window with fewer hellos says nothing.
const LEAST_SEEN: u32 = 5;
/// Hellos that may be missing and still come.
const PENDING_MAX: usize = 64;
/// Hellos of ours whose fate may be open.
const SENT_MAX: usize = 64;

/// Lost and seen, by slot of time.
#[derive(Clone, Debug)]
struct Slots<const N: usize> {
    slots: [(u32, u32); N],
    newest: u64,
    slot_ns: u64,
}

impl<const N: usize> Slots<N> {
    fn new(slot_ns: u64) -> Self {
        Self {
            slots: [(0, 0); N],
            newest: 0,
            slot_ns,
        }
    }

    fn add(&mut self, lost: u32, came: u32, now: Time) {
        let slot = now.0 / self.slot_ns;
        if slot > self.newest {
            for slot in (self.newest + 1..=slot).rev().take(N) {
                self.slots[(slot % N as u64) as usize] = (0, 0);
            }
            self.newest = slot;
        }
        let (all_lost, all) = &mut self.slots[(self.newest % N as u64) as usize];
        *all_lost = all_lost.saturating_add(lost);
        *all = all.saturating_add(lost.saturating_add(came));
    }

    /// Takes a loss back that was none.
    fn forgive(&mut self) {
        let slot = &mut self.slots[(self.newest % N as u64) as usize];
        slot.0 = slot.0.saturating_sub(1);
    }

    fn share(&self, slots: usize, now: Time) -> Option<f64> {
        let current = now.0 / self.slot_ns;
        let (mut lost, mut all) = (0_u32, 0_u32);
        for back in 0..slots as u64 {
            let Some(slot) = self.newest.checked_sub(back) else {
                break;
            };
            if slot + slots as u64 <= current {
                break;
            }
            let (slot_lost, slot_all) = self.slots[(slot % N as u64) as usize];
            (lost, all) = (lost.saturating_add(slot_lost), all.saturating_add(slot_all));
        }
        (all >= LEAST_SEEN).then(|| f64::from(lost) / f64::from(all))
    }
}

/// Lost share over 1, 10 and 60 s.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    fine: Slots<FINE_SLOTS>,
    coarse: Slots<COARSE_SLOTS>,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self {
            fine: Slots::new(FINE_NS),
            coarse: Slots::new(COARSE_NS),
        }
    }

    pub(crate) fn add(&mut self, lost: u32, came: u32, now: Time) {
        self.fine.add(lost, came, now);
        self.coarse.add(lost, came, now);
    }

    fn forgive(&mut self) {
        self.fine.forgive();
        self.coarse.forgive();
    }

    pub(crate) fn shares(&self, now: Time) -> LossWindows {
        LossWindows {
            one_s: self.fine.share(FINE_SLOTS, now),
            ten_s: self.coarse.share(10, now),
            sixty_s: self.coarse.share(COARSE_SLOTS, now),
        }
    }
}

/// What became of some hellos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) lost: u32,
    pub(crate) came: u32,
}

/// Hellos towards us, by their sequence.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    pub(crate) windows: Windows,
    newest: Option<u32>,
    came: u32,
    /// Missing ones and when they count as lost, oldest first.
    pending: [(u32, Time); PENDING_MAX],
    pending_len: usize,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self {
            windows: Windows::new(),
            newest: None,
            came: 0,
            pending: [(0, Time(0)); PENDING_MAX],
            pending_len: 0,
        }
    }

    /// The sender counts anew.
    pub(crate) fn restart(&mut self) {
        self.newest = None;
        self.came = 0;
        self.pending_len = 0;
    }

    /// Whether a hello of that sequence is the newest so far.
    pub(crate) fn is_newer(&self, sequence: u32) -> bool {
        self.newest
            .is_none_or(|newest| sequence.wrapping_sub(newest) as i32 > 0)
    }

    /// How far behind the newest one a sequence is.
    pub(crate) fn lag(&self, sequence: u32) -> u32 {
        match self.newest {
            Some(newest) if !self.is_newer(sequence) => newest.wrapping_sub(sequence),
            _ => 0,
        }
    }

    /// A hello came. Those between the newest one and this are missing and count as lost after `patience`, at most
    /// `most` of them: a path that was down lost no more than it took to see that.
    pub(crate) fn add(&mut self, sequence: u32, patience: Duration, most: u32, now: Time) -> Fates {
        self.came = self.came.wrapping_add(1);
        if !self.is_newer(sequence) {
            return self.add_late(sequence, now);
        }
        let gap = self
            .newest
            .map_or(0, |newest| sequence.wrapping_sub(newest) - 1)
            .min(most);
        self.newest = Some(sequence);
        self.windows.add(0, 1, now);
        // What the table cannot hold is lost at once.
        let waiting = gap.min(PENDING_MAX as u32);
        let mut fates = Fates {
            lost: gap - waiting,
            came: 1,
        };
        for back in (1..=waiting).rev() {
            if self.pending_len == PENDING_MAX {
                self.pending.copy_within(1.., 0);
                self.pending_len -= 1;
                fates.lost += 1;
            }
            self.pending[self.pending_len] = (sequence.wrapping_sub(back), now + patience);
            self.pending_len += 1;
        }
        self.windows.add(fates.lost, 0, now);
        fates
    }

    fn add_late(&mut self, sequence: u32, now: Time) -> Fates {
        let missing = &self.pending[..self.pending_len];
        let Some(at) = missing.iter().position(|(missing, _)| *missing == sequence) else {
            // Counted as lost, though it was only slow.
            self.windows.forgive();
            return Fates::default();
        };
        self.pending.copy_within(at + 1..self.pending_len, at);
        self.pending_len -= 1;
        self.windows.add(0, 1, now);
        Fates { lost: 0, came: 1 }
    }

    /// Time passed: which missing ones are lost.
    pub(crate) fn expire(&mut self, now: Time) -> Fates {
        let missing = &self.pending[..self.pending_len];
        let lost = missing.iter().take_while(|(_, at)| *at <= now).count();
        if lost > 0 {
            self.pending.copy_within(lost..self.pending_len, 0);
            self.pending_len -= lost;
            self.windows.add(lost as u32, 0, now);
        }
        Fates {
            lost: lost as u32,
            came: 0,
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Time> {
        self.pending[..self.pending_len].first().map(|(_, at)| *at)
    }

    /// Hellos that came, cumulative.
    pub(crate) fn came(&self) -> u32 {
        self.came
    }
}

/// One hello of ours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) sequence: u32,
    pub(crate) at: Time,
    /// Data packets sent before it.
    pub(crate) data_tx_packets: u32,
}

/// Hellos towards the peer: what became of them is known from the newest that the peer heard and how many it heard.
#[derive(Clone, Debug)]
pub(crate) struct Departures {
    pub(crate) windows: Windows,
    sequence: u32,
    sent: [Sent; SENT_MAX],
    /// Up to here it is known what became of them,
    known: u32,
    /// with as many heard by the peer; `None` until the peer said.
    heard: Option<u32>,
}

impl Departures {
    pub(crate) fn new() -> Self {
        Self {
            windows: Windows::new(),
            sequence: 0,
            sent: [Sent::default(); SENT_MAX],
            known: 0,
            heard: None,
        }
    }

    /// The peer counts anew: it begins with what is sent from here on.
    pub(crate) fn restart(&mut self) {
        self.heard = None;
        self.known = self.sequence;
    }

    /// A hello is sent; returns its sequence.
    pub(crate) fn send(&mut self, data_tx_packets: u32, now: Time) -> u32 {
        // Zero is for none.
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sent[self.sequence as usize % SENT_MAX] = Sent {
            sequence: self.sequence,
            at: now,
            data_tx_packets,
        };
        self.sequence
    }

    /// The newest sequence that was sent.
    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// What was noted when that hello was sent, while it is remembered.
    pub(crate) fn sent(&self, sequence: u32) -> Option<&Sent> {
        let sent = &self.sent[sequence as usize % SENT_MAX];
        (sequence != 0 && sent.sequence == sequence).then_some(sent)
    }

    /// Whether a hello of that sequence was sent then, as far as that is remembered.
    pub(crate) fn has_sent(&self, sequence: u32, sent_at_ns: u64) -> bool {
        let is_past = sequence != 0 && self.sequence.wrapping_sub(sequence) as i32 >= 0;
        let sent = self.sent(sequence);
        is_past && sent.is_none_or(|sent| sent.at.0 == sent_at_ns)
    }

    /// The peer says that `echo`, which [was sent](Self::has_sent), is the newest it heard, of `heard` in all. What it
    /// did not hear within `patience` is lost. At most `most` losses count.
    pub(crate) fn settle(
        &mut self,
        echo: u32,
        heard: u32,
        patience: Duration,
        most: u32,
        now: Time,
    ) -> Fates {
        let mut fates = Fates::default();
        let span = echo.wrapping_sub(self.known) as i32;
        match self.heard.replace(heard) {
            // What was lost before the first one it heard was sent before it listened.
            None => {
                if span > 0 {
                    self.known = echo;
                    fates.came = 1;
                }
            }
            Some(before) => {
                let came = heard.wrapping_sub(before);
                if span > 0 {
                    self.known = echo;
                    fates.came = came.min(span as u32);
                    fates.lost = (span as u32 - fates.came).min(most);
                }
                let late = came.saturating_sub(span.max(0) as u32);
                for _ in 0..late.min(PENDING_MAX as u32) {
                    self.windows.forgive();
                }
            }
        }
        while let Some(sent) = self.sent(self.known.wrapping_add(1)) {
            if sent.at + patience > now {
                break;
            }
            self.known = self.known.wrapping_add(1);
            fates.lost += 1;
        }
        self.windows.add(fates.lost, fates.came, now);
        fates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(150);

    fn at_ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_missing_hello_is_lost_after_patience_and_not_before() {
        let mut arrivals = Arrivals::new();
        arrivals.add(1, PATIENCE, 64, at_ms(0));
        let fates = arrivals.add(4, PATIENCE, 64, at_ms(150));
        assert_eq!(fates, Fates { lost: 0, came: 1 });
        assert_eq!(arrivals.add(2, PATIENCE, 64, at_ms(160)).came, 1, "late");
        assert_eq!(arrivals.expire(at_ms(299)).lost, 0);
        assert_eq!(arrivals.next_expiry(), Some(at_ms(300)));
        assert_eq!(arrivals.expire(at_ms(300)).lost, 1);
        assert_eq!(arrivals.next_expiry(), None);
        assert_eq!(arrivals.came(), 3);
    }

    #[test]
    fn sequences_wrap() {
        let mut arrivals = Arrivals::new();
        arrivals.add(u32::MAX, PATIENCE, 64, at_ms(0));
        assert!(arrivals.is_newer(1) && !arrivals.is_newer(u32::MAX));
        arrivals.add(2, PATIENCE, 64, at_ms(50));
        assert_eq!(arrivals.expire(at_ms(1000)).lost, 2);
    }

    #[test]
    fn a_gap_longer_than_the_table_is_lost_without_waiting() {
        let mut arrivals = Arrivals::new();
        arrivals.add(1, PATIENCE, u32::MAX, at_ms(0));
        let fates = arrivals.add(102, PATIENCE, u32::MAX, at_ms(50));
        assert_eq!(fates.lost, 100 - PENDING_MAX as u32);
        assert_eq!(arrivals.expire(at_ms(1000)).lost, PENDING_MAX as u32);
    }

    #[test]
    fn what_the_peer_did_not_hear_is_known_from_its_count() {
        let mut departures = Departures::new();
        for step in 0..10 {
            departures.send(0, at_ms(step * 50));
        }
        assert_eq!(departures.settle(1, 1, PATIENCE, 64, at_ms(60)).came, 1);
        let fates = departures.settle(9, 6, PATIENCE, 64, at_ms(460));
        assert_eq!(fates, Fates { lost: 3, came: 5 });
        // The tenth is not heard of, until it is late.
        assert_eq!(
            departures.settle(9, 6, PATIENCE, 64, at_ms(500)),
            Fates::default()
        );
        assert_eq!(departures.settle(9, 6, PATIENCE, 64, at_ms(601)).lost, 1);
        // It was only slow.
        assert_eq!(
            departures.settle(10, 7, PATIENCE, 64, at_ms(620)),
            Fates::default()
        );
        assert_eq!(departures.windows.shares(at_ms(620)).one_s, Some(0.3));
    }

    #[test]
    fn windows_forget() {
        let mut windows = Windows::new();
        windows.add(5, 5, at_ms(0));
        assert_eq!(windows.shares(at_ms(900)).one_s, Some(0.5));
        assert_eq!(windows.shares(at_ms(1000)).one_s, None);
        assert_eq!(windows.shares(at_ms(9_900)).ten_s, Some(0.5));
        windows.add(0, 90, at_ms(30_000));
        let shares = windows.shares(at_ms(30_000));
        assert_eq!((shares.ten_s, shares.sixty_s), (Some(0.0), Some(0.05)));
        assert_eq!(windows.shares(at_ms(100_000)), LossWindows::default());
    }
}
