//! How large a packet may be: path MTU discovery at the level of datagrams, in the spirit of RFC 8899.
//!
//! Sizes are lengths of plaintext until they are told to anybody. Probes are messages padded to the size that is tried;
//! the peer answers them with a small one.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Time;

/// WireGuard's header and tag, and UDP's header.
const OVERHEAD: u16 = 32 + 8;
/// Plaintext is padded to a multiple of that.
const STEP: u16 = 16;
/// What a path carries, almost certainly: 1280 bytes over IPv6, its least MTU, and 1260 over IPv4.
const BASE: u16 = 1200;
/// Below this no path is looked for.
const FLOOR: u16 = 512;
/// Between two probes of one size.
const SPACING: Duration = Duration::from_millis(100);
/// The same while data is being lost.
const SPACING_URGENT: Duration = Duration::from_millis(50);
/// After a path came up.
const SETTLING: Duration = Duration::from_millis(20);
/// Between two checks whether the size still passes.
const CONFIRM_ACTIVE: Duration = Duration::from_secs(5);
const CONFIRM_IDLE: Duration = Duration::from_secs(8);
const CONFIRM_METERED: Duration = Duration::from_secs(60);
/// Between two tries of the full size on a path that is smaller (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER).
const GROW: Duration = Duration::from_secs(600);
/// The same after the path came up.
const GROW_WOKEN: Duration = Duration::from_secs(2);
/// Between two suspicions from lost data.
const SUSPICION: Duration = Duration::from_millis(300);
const SUSPICION_METERED: Duration = Duration::from_secs(3);
/// A refusal this soon after a probe is the probe's.
const REFUSAL: Duration = Duration::from_millis(2);

/// Largest outer IP packet of a plaintext of `len` bytes.
pub(crate) fn outer_len(len: u16, remote: &SocketAddr) -> u16 {
    let ip = match remote.ip().to_canonical().is_ipv4() {
        true => 20,
        false => 40,
    };
    len.saturating_add(OVERHEAD + ip)
}

/// What the search needs to know about the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Up, not suspect: small messages pass.
    pub(crate) is_up: bool,
    pub(crate) is_active: bool,
    pub(crate) is_metered: bool,
    /// How long an answer takes at most.
    pub(crate) patience: Duration,
    /// How many probes in a row must be lost to mean something.
    pub(crate) tries: u8,
}

/// The search on one path.
#[derive(Clone, Debug)]
pub(crate) struct MtuSearch {
    full: u16,
    /// What passes; `None` until something was tried.
    known: Option<u16>,
    phase: Phase,
    grow_at: Option<Time>,
    last_suspicion: Option<Time>,
    holes: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The path is not up; what was under way goes on when it is.
    Asleep(Option<Try>),
    /// Until the next check.
    Waiting(Time),
    /// A size is being tried.
    Trying(Try),
}

#[derive(Clone, Copy, Debug)]
struct Try {
    len: u16,
    aim: Aim,
    sent: u8,
    next: Time,
    last: Time,
    is_urgent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Does the size in use still pass?
    Confirm,
    /// The largest one between one that passes and one that does not.
    Search { low: u16, high: u16 },
    /// Does the full size pass again?
    Grow,
}

impl MtuSearch {
    /// A search for a path that should carry plaintexts of `full` bytes.
    pub(crate) fn new(full: u16) -> Self {
        Self {
            full,
            known: None,
            phase: Phase::Asleep(None),
            grow_at: None,
            last_suspicion: None,
            holes: 0,
        }
    }

    /// Another size is wanted.
    pub(crate) fn set_full(&mut self, full: u16) {
        if full != self.full {
            *self = Self {
                holes: self.holes,
                ..Self::new(full)
            };
        }
    }

    /// The plaintext that passes.
    pub(crate) fn known(&self) -> Option<u16> {
        self.known
    }

    /// How often the size in use ceased to pass.
    pub(crate) fn holes(&self) -> u32 {
        self.holes
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Asleep(_) => None,
            Phase::Waiting(at) => Some(self.grow_at.map_or(at, |grow| grow.min(at))),
            Phase::Trying(attempt) => Some(attempt.next),
        }
    }

    /// Time passed: the size of a probe to send.
    pub(crate) fn poll(&mut self, conditions: &Conditions, now: Time) -> Option<u16> {
        if !conditions.is_up {
            // What is lost there says nothing about sizes.
            self.phase = Phase::Asleep(match self.phase {
                Phase::Asleep(attempt) => attempt,
                Phase::Trying(attempt) => Some(attempt),
                Phase::Waiting(_) => None,
            });
            return None;
        }
        match self.phase {
            Phase::Asleep(attempt) => {
                self.wake(attempt, now);
                None
            }
            Phase::Waiting(_) if self.grow_at.is_some_and(|at| at <= now) => {
                self.grow_at = Some(now + GROW);
                self.begin(self.full, Aim::Grow, false, now);
                self.send(conditions, now)
            }
            Phase::Waiting(at) if at <= now => {
                self.begin(self.known.unwrap_or(self.full), Aim::Confirm, false, now);
                self.send(conditions, now)
            }
            Phase::Waiting(_) => None,
            Phase::Trying(_) => self.send(conditions, now),
        }
    }

    fn wake(&mut self, attempt: Option<Try>, now: Time) {
        match attempt {
            Some(attempt) if matches!(attempt.aim, Aim::Search { .. }) => {
                self.begin(attempt.len, attempt.aim, false, now + SETTLING);
            }
            Some(_) | None => self.phase = Phase::Waiting(now + SETTLING),
        }
        // The path may lead elsewhere.
        self.grow_at = self.grow_at.map(|at| at.min(now + GROW_WOKEN));
    }

    fn begin(&mut self, len: u16, aim: Aim, is_urgent: bool, now: Time) {
        self.phase = Phase::Trying(Try {
            len,
            aim,
            sent: 0,
            next: now,
            last: now,
            is_urgent,
        });
    }

    fn send(&mut self, conditions: &Conditions, now: Time) -> Option<u16> {
        // At most one verdict and one probe of the next size.
        for _ in 0..2 {
            let Phase::Trying(attempt) = &mut self.phase else {
                return None;
            };
            if now < attempt.next {
                return None;
            }
            if attempt.sent < conditions.tries {
                let spacing = match attempt.is_urgent && conditions.patience < SPACING_URGENT {
                    true => SPACING_URGENT,
                    false => SPACING,
                };
                attempt.sent += 1;
                attempt.last = now;
                attempt.next = match attempt.sent == conditions.tries {
                    true => now + spacing.max(conditions.patience),
                    false => now + spacing,
                };
                return Some(attempt.len);
            }
            let attempt = *attempt;
            self.fail(attempt, conditions, now);
        }
        None
    }

    fn fail(&mut self, attempt: Try, conditions: &Conditions, now: Time) {
        match attempt.aim {
            Aim::Confirm => self.shrink(attempt.len, conditions, now),
            Aim::Grow => self.rest(conditions, now),
            Aim::Search { low, .. } => {
                if low < attempt.len && attempt.len <= BASE.min(self.full) {
                    self.known = Some(low);
                }
                self.narrow(low, attempt.len, conditions, now);
            }
        }
    }

    /// What was in use does not pass any more.
    fn shrink(&mut self, from: u16, conditions: &Conditions, now: Time) {
        self.holes += 1;
        self.grow_at = Some(now + GROW);
        if from <= FLOOR + STEP {
            self.known = Some(from.min(FLOOR));
            self.rest(conditions, now);
            return;
        }
        let first = match from > BASE {
            true => BASE,
            false => middle(FLOOR, from),
        };
        self.known = Some(first);
        let aim = Aim::Search {
            low: FLOOR,
            high: from,
        };
        self.begin(first, aim, true, now);
    }

    /// The size lies between `low`, which passes, and `high`, which does not.
    fn narrow(&mut self, low: u16, high: u16, conditions: &Conditions, now: Time) {
        if high.saturating_sub(low) > STEP {
            let aim = Aim::Search { low, high };
            self.begin(middle(low, high), aim, true, now);
        } else if high == self.full {
            // Everything below the full size passes: it may have been bad luck.
            self.begin(self.full, Aim::Grow, false, now);
        } else {
            self.rest(conditions, now);
        }
    }

    fn rest(&mut self, conditions: &Conditions, now: Time) {
        let pause = match (conditions.is_metered, conditions.is_active) {
            (true, _) => CONFIRM_METERED,
            (false, true) => CONFIRM_ACTIVE,
            (false, false) => CONFIRM_IDLE,
        };
        self.phase = Phase::Waiting(now + pause);
    }

    /// The peer says that `len` bytes came.
    pub(crate) fn pass(&mut self, len: u16, conditions: &Conditions, now: Time) {
        let Phase::Trying(attempt) = self.phase else {
            return;
        };
        if len < attempt.len || len > self.full {
            return;
        }
        self.known = Some(len);
        match attempt.aim {
            Aim::Confirm => self.rest(conditions, now),
            Aim::Grow => {
                self.grow_at = None;
                self.rest(conditions, now);
            }
            Aim::Search { high, .. } => self.narrow(len, high, conditions, now),
        }
        if self.known == Some(self.full) {
            self.grow_at = None;
        }
    }

    /// Data goes missing while hellos pass: perhaps only large packets do.
    pub(crate) fn suspect(&mut self, is_metered: bool, now: Time) {
        let pause = match is_metered {
            true => SUSPICION_METERED,
            false => SUSPICION,
        };
        let is_recent = |at: Time| now.since(at) < pause;
        if !matches!(self.phase, Phase::Waiting(_)) || self.last_suspicion.is_some_and(is_recent) {
            return;
        }
        self.last_suspicion = Some(now);
        self.begin(self.known.unwrap_or(self.full), Aim::Confirm, true, now);
    }

    /// The path changed its cadence: a check that is far off comes sooner.
    pub(crate) fn hasten(&mut self, conditions: &Conditions, now: Time) {
        if let Phase::Waiting(at) = self.phase {
            self.rest(conditions, now);
            if let Phase::Waiting(sooner) = &mut self.phase {
                *sooner = at.min(*sooner);
            }
        }
    }

    /// The kernel knows that a datagram is too big: a probe of ours, or data.
    pub(crate) fn refuse(&mut self, conditions: &Conditions, now: Time) {
        match self.phase {
            Phase::Trying(attempt) if attempt.sent > 0 && now.since(attempt.last) <= REFUSAL => {
                self.fail(attempt, conditions, now);
            }
            Phase::Trying(Try {
                aim: Aim::Search { .. } | Aim::Grow,
                ..
            }) => {}
            Phase::Trying(_) | Phase::Waiting(_) => {
                self.shrink(self.known.unwrap_or(self.full), conditions, now);
            }
            Phase::Asleep(_) => {}
        }
    }
}

/// A size between two, as plaintexts are: a multiple of the padding's step.
fn middle(low: u16, high: u16) -> u16 {
    let middle = (low + (high - low) / 2) / STEP * STEP;
    match middle > low {
        true => middle,
        false => (low / STEP + 1) * STEP,
    }
}
