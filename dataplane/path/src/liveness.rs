//! Whether a path works: the states of BFD (RFC 5880), and suspicion between Up and Down.
//!
//! Owns what is known about both directions and derives the state from it. Knows no messages; the path tells it what it
//! heard and read.

use std::time::Duration;

use crate::metrics::{PathState, StateReason};
use crate::time::Time;

/// After that many missing hellos a path is suspect.
const SUSPECT_AFTER: u32 = 2;

/// How often one side sends, and how many missing hellos mean Down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rhythm {
    pub(crate) interval: Duration,
    pub(crate) multiplier: u8,
}

/// What a hello says about the way from us to the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) hears_us: bool,
    pub(crate) suspects: bool,
    /// The peer holds the path down.
    pub(crate) is_held: bool,
    /// The newest of our hellos that it heard.
    pub(crate) echo: u32,
    pub(crate) rhythm: Rhythm,
}

/// The liveness of one path.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    state: PathState,
    reason: StateReason,
    since: Time,
    /// Of the peer; ours until it said.
    rhythm: Rhythm,
    /// How much later than its rhythm a hello may come.
    slack: Duration,
    /// Last sign of life, while the peer is heard.
    life: Option<Time>,
    was_heard: bool,
    misses_hellos: bool,
    said: Option<Said>,
    /// The peer restarted and does not hear us yet: until then it counts as hearing us.
    grace_until: Option<Time>,
    fault: Option<StateReason>,
    is_held: bool,
    peer_is_broken: bool,
    /// Our end was broken: the peer must have heard one of our hellos from this one on.
    needs_echo_of: Option<u32>,
    downs: u32,
}

impl Liveness {
    pub(crate) fn new(rhythm: Rhythm, now: Time) -> Self {
        Self {
            state: PathState::Down,
            reason: StateReason::New,
            since: now,
            rhythm,
            slack: Duration::ZERO,
            life: None,
            was_heard: false,
            misses_hellos: false,
            said: None,
            grace_until: None,
            fault: None,
            is_held: false,
            peer_is_broken: false,
            needs_echo_of: None,
            downs: 0,
        }
    }

    pub(crate) fn state(&self) -> PathState {
        self.state
    }

    pub(crate) fn reason(&self) -> StateReason {
        self.reason
    }

    pub(crate) fn since(&self) -> Time {
        self.since
    }

    /// How often it went from Up or Suspect to Down.
    pub(crate) fn downs(&self) -> u32 {
        self.downs
    }

    pub(crate) fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    /// Whether the peer is heard.
    pub(crate) fn hears(&self) -> bool {
        self.life.is_some()
    }

    /// Whether hellos are missing, fewer than the limit.
    pub(crate) fn misses_hellos(&self) -> bool {
        self.misses_hellos
    }

    /// Whether our end is known to be broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.fault.is_some() || self.needs_echo_of.is_some()
    }

    pub(crate) fn has_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// Hellos may come that much later than their rhythm without being missed: the path's jitter.
    pub(crate) fn set_slack(&mut self, slack: Duration) {
        self.slack = slack.min(self.rhythm.interval / 2);
    }

    /// Something authenticated came.
    pub(crate) fn hear(&mut self, now: Time) {
        if self.fault.is_some() {
            return;
        }
        self.life = Some(now);
        self.was_heard = true;
        self.misses_hellos = false;
    }

    /// A hello said so.
    pub(crate) fn listen(&mut self, said: Said) {
        self.rhythm = said.rhythm;
        let is_echoed = |barrier: u32| said.echo.wrapping_sub(barrier) as i32 >= 0;
        if said.echo != 0 && self.needs_echo_of.is_some_and(is_echoed) {
            self.needs_echo_of = None;
        }
        if said.hears_us {
            self.grace_until = None;
        }
        self.said = Some(Said {
            hears_us: said.hears_us || self.grace_until.is_some(),
            ..said
        });
    }

    /// The peer began anew: it needs a round trip until it hears us.
    pub(crate) fn peer_restarted(&mut self, now: Time) {
        if matches!(self.state, PathState::Up | PathState::Suspect) {
            self.grace_until = Some(now + self.detection());
        }
        self.peer_is_broken = false;
    }

    /// The peer says on another path whether its end of this one is broken.
    pub(crate) fn set_peer_is_broken(&mut self, is_broken: bool) {
        self.peer_is_broken = is_broken;
    }

    /// Our uplink has that fault, or works again; `next` is the sequence of our next hello.
    pub(crate) fn set_fault(&mut self, fault: Option<StateReason>, next: u32) {
        if self.fault.is_some() && fault.is_none() {
            self.reason = StateReason::DetectionExpired;
        }
        if self.fault.is_some() || fault.is_some() {
            self.needs_echo_of = Some(next);
            self.forget();
        }
        self.fault = fault;
    }

    /// The kernel refused to send; `next` is the sequence of our next hello.
    pub(crate) fn refuse(&mut self, next: u32) {
        self.needs_echo_of = Some(next);
    }

    /// An operator holds the path down, or lets it go.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// This side slept: what came meanwhile is not read yet.
    pub(crate) fn extend(&mut self, overrun: Duration, now: Time) {
        self.life = self.life.map(|life| (life + overrun).min(now));
        self.grace_until = self.grace_until.map(|until| until + overrun);
    }

    /// Time passed; [`settle`](Self::settle) says what comes of it.
    pub(crate) fn expire(&mut self, now: Time) {
        if self.grace_until.is_some_and(|until| until <= now) {
            self.grace_until = None;
            if let Some(said) = &mut self.said {
                said.hears_us = false;
            }
        }
        let Some(life) = self.life else {
            return;
        };
        if life + self.detection() <= now {
            self.forget();
        } else if life + self.suspicion() <= now {
            self.misses_hellos = true;
        }
    }

    fn forget(&mut self) {
        self.life = None;
        self.misses_hellos = false;
        self.said = None;
        self.grace_until = None;
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let life = self.life.map(|life| match self.misses_hellos {
            true => life + self.detection(),
            false => life + self.suspicion().min(self.detection()),
        });
        [life, self.grace_until].into_iter().flatten().min()
    }

    /// Silence that means Down (RFC 5880 section 6.8.4): as many hellos as the multiplier says are sent in it even by a
    /// sender that always takes the whole interval. Such a one sends at 87.5 % of it on average, so a quarter of an
    /// interval is kept for the path's jitter, and given back where it has none: it is what a flow waits for.
    pub(crate) fn detection(&self) -> Duration {
        let interval = self.rhythm.interval;
        let reserve = interval / 4;
        interval * u32::from(self.rhythm.multiplier) - reserve + self.slack.min(reserve)
    }

    fn suspicion(&self) -> Duration {
        self.rhythm.interval * SUSPECT_AFTER + self.slack
    }

    /// Brings the state in line with what is known; the new one where it changed.
    pub(crate) fn settle(&mut self, now: Time) -> Option<(PathState, StateReason)> {
        let (state, reason) = self.judge();
        let before = self.state;
        (self.state, self.reason) = (state, reason);
        if state == before {
            return None;
        }
        self.since = now;
        let was_up = matches!(before, PathState::Up | PathState::Suspect);
        let is_up = matches!(state, PathState::Up | PathState::Suspect);
        self.downs += u32::from(was_up && !is_up);
        Some((state, reason))
    }

    fn judge(&self) -> (PathState, StateReason) {
        use PathState::{AdminDown, Down, Init, Suspect, Up};
        let because = |reason| match self.state {
            // The first cause stays until the path is heard again.
            Down => (Down, self.reason),
            AdminDown | Init | Up | Suspect => (Down, reason),
        };
        if self.is_held {
            return (AdminDown, StateReason::Drained);
        }
        if let Some(fault) = self.fault {
            return (Down, fault);
        }
        if self.needs_echo_of.is_some() {
            return because(StateReason::Unreachable);
        }
        if self.life.is_none() {
            return because(match self.was_heard {
                true => StateReason::DetectionExpired,
                false => StateReason::New,
            });
        }
        if self.peer_is_broken || self.said.is_some_and(|said| said.is_held) {
            return (Down, StateReason::PeerSignalled);
        }
        if !self.said.is_some_and(|said| said.hears_us) {
            let was_up = match self.state {
                Up | Suspect => true,
                Down => self.reason == StateReason::PeerDoesNotHear,
                Init | AdminDown => false,
            };
            return match was_up {
                true => (Down, StateReason::PeerDoesNotHear),
                false => (Init, StateReason::Heard),
            };
        }
        match self.misses_hellos || self.said.is_some_and(|said| said.suspects) {
            true => (Suspect, StateReason::HellosMissed),
            false => (Up, StateReason::Heard),
        }
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
