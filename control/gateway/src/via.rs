//! Whether prefixes behind peers answer: what was asked and heard, and what follows from it.
//!
//! Pure: time, answers and reasons to wait are arguments; [`via_probe`](crate::via_probe) asks and listens. A check
//! judges a *prefix*. Of paths it knows one thing: a question that no path could carry says nothing about the prefix.
//!
//! ```text
//! unknown ──an answer──▶ reachable ──`misses` questions in a row unanswered──▶ unreachable
//!                            ▲──────────3 in a row answered────────────────────────┘
//! ```
//!
//! What never answered is never unreachable: then the check is wrong as likely as the prefix.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use patronus_config::Via;
use patronus_packet::Prefix;
use patronus_tunnel::PublicKey;

/// Answers in a row after which an unreachable prefix is reachable again.
const ANSWERS: u32 = 3;
/// Questions of this many checks are spread over one interval.
const SPREAD: u32 = 16;

/// What is to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViaPlan {
    /// The checks, each with its peer.
    pub checks: Vec<(PublicKey, Via)>,
    /// Our addresses inside the tunnel, to ask from.
    pub own_addrs: Vec<IpAddr>,
}

/// What is known of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViaState {
    /// Nothing: it never answered.
    Unknown,
    /// It answers.
    Reachable,
    /// It answered once and does not any more.
    Unreachable,
}

/// Why a question would say nothing about the prefix at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// No path to the peer is up. Questions go out all the same: they may wake it.
    NoPath,
    /// Policy denies the question, and nobody is asked.
    Policy,
    /// The system does not send it, in its words.
    CannotSend(String),
}

/// One prefix under check.
#[derive(Clone, Debug)]
pub struct Check {
    /// The peer that owns the prefix.
    pub peer: PublicKey,
    /// As configured.
    pub via: Via,
    /// What is known.
    pub state: ViaState,
    /// Since when.
    pub since: Instant,
    /// When the last answer came.
    pub answered_at: Option<Instant>,
    /// Why questions say nothing.
    pub hold: Option<Hold>,
    /// When the next question is due.
    pub due: Instant,
    /// Unanswered questions in a row.
    misses: u32,
    /// Answered ones in a row.
    answers: u32,
    /// Whether a question is on its way.
    is_asked: bool,
    /// Whether an answer came since.
    is_answered: bool,
    /// Whether it was told that nothing ever answered.
    is_silence_told: bool,
}

/// A prefix changed its state, or never answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViaNews {
    /// The peer that owns the prefix.
    pub peer: PublicKey,
    /// The prefix.
    pub prefix: Prefix,
    /// What is known of it.
    pub state: ViaState,
    /// For people.
    pub text: String,
}

/// All checks of a gateway.
#[derive(Debug, Default)]
pub struct Checks {
    list: Vec<Check>,
}

impl Checks {
    /// Takes a plan; what it has in common with the one before keeps what is known.
    pub fn configure(&mut self, plan: &ViaPlan, now: Instant) {
        let mut old = std::mem::take(&mut self.list);
        let planned = plan.checks.iter().zip((0..SPREAD).cycle());
        for ((peer, via), place) in planned {
            let known = old.iter().position(|it| it.peer == *peer && it.via == *via);
            self.list.push(match known {
                Some(at) => old.swap_remove(at),
                None => Check::new(*peer, via.clone(), now + via.interval * place / SPREAD, now),
            });
        }
    }

    /// The checks, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Check> {
        self.list.iter()
    }

    /// The one at a place.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Check> {
        self.list.get_mut(at)
    }

    /// When the next question is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.list.iter().map(|check| check.due).min()
    }

    /// The checks whose question is due, by place.
    pub fn due(&self, now: Instant) -> Vec<usize> {
        let due = (0..self.list.len()).filter(|at| self.list[*at].due <= now);
        due.collect()
    }

    /// An address answered.
    pub fn heard(&mut self, from: IpAddr, now: Instant) {
        let asked = self.list.iter_mut();
        for check in asked.filter(|check| check.via.probes.contains(&from)) {
            check.is_answered = true;
            check.answered_at = Some(now);
        }
    }
}

impl Check {
    fn new(peer: PublicKey, via: Via, due: Instant, now: Instant) -> Self {
        Self {
            peer,
            via,
            state: ViaState::Unknown,
            since: now,
            answered_at: None,
            hold: None,
            due,
            misses: 0,
            answers: 0,
            is_asked: false,
            is_answered: false,
            is_silence_told: false,
        }
    }

    /// Judges the last question, before the next one. `hold`: why questions say nothing at this moment; one that was open
    /// then counts only if it was answered.
    pub fn settle(&mut self, hold: Option<Hold>, now: Instant) -> Option<ViaNews> {
        let is_held = hold.is_some() || self.hold.is_some();
        let (is_asked, is_answered) = (self.is_asked, self.is_answered);
        (self.is_asked, self.is_answered) = (false, false);
        self.hold = hold;
        // From now on: the next question has its whole interval, however busy this thread was.
        self.due = now + self.via.interval;
        match (is_asked, is_answered) {
            (_, true) => {
                self.misses = 0;
                self.answers = self.answers.saturating_add(1);
                self.after_answer(now)
            }
            (true, false) if !is_held => {
                self.answers = 0;
                self.misses = self.misses.saturating_add(1);
                self.after_miss(now)
            }
            (true | false, false) => {
                (self.misses, self.answers) = (0, 0);
                None
            }
        }
    }

    /// A question went out, or could not.
    pub fn asked(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.is_asked = true,
            Err(why) => self.hold = Some(Hold::CannotSend(why)),
        }
    }

    fn after_answer(&mut self, now: Instant) -> Option<ViaNews> {
        let prefix = self.via.prefix;
        let silent = now.saturating_duration_since(self.since);
        let text = match self.state {
            ViaState::Reachable => return None,
            ViaState::Unreachable if self.answers < ANSWERS => return None,
            ViaState::Unknown => format!("{prefix} answers"),
            ViaState::Unreachable => {
                format!("{prefix} answers again after {} s", silent.as_secs())
            }
        };
        (self.state, self.since) = (ViaState::Reachable, now);
        Some(self.news(text))
    }

    fn after_miss(&mut self, now: Instant) -> Option<ViaNews> {
        if self.misses < self.via.misses {
            return None;
        }
        let (prefix, asked) = (self.via.prefix, self.asked_whom());
        let count = self.via.misses;
        match self.state {
            ViaState::Unreachable => None,
            ViaState::Reachable => {
                (self.state, self.since) = (ViaState::Unreachable, now);
                Some(self.news(format!(
                    "{prefix} does not answer: {asked} left {count} questions in a row unanswered while a path to \
                     the peer was up; paths stay as they are"
                )))
            }
            ViaState::Unknown if self.is_silence_told => None,
            ViaState::Unknown => {
                self.is_silence_told = true;
                Some(self.news(format!(
                    "{prefix} never answered since the check began: nothing follows from that; see whether {asked} \
                     answers pings from the tunnel's own address"
                )))
            }
        }
    }

    fn news(&self, text: String) -> ViaNews {
        ViaNews {
            peer: self.peer,
            prefix: self.via.prefix,
            state: self.state,
            text,
        }
    }

    fn asked_whom(&self) -> String {
        let addrs: Vec<String> = self.via.probes.iter().map(ToString::to_string).collect();
        addrs.join(" and ")
    }

    /// What stands about it, for people.
    pub fn text(&self, now: Instant) -> String {
        let age = |at: Instant| now.saturating_duration_since(at).as_secs();
        let known = match (self.state, self.answered_at) {
            (ViaState::Unknown, _) => format!("never answered: asks {}", self.asked_whom()),
            (ViaState::Reachable, _) => "answers".to_owned(),
            (ViaState::Unreachable, Some(at)) => {
                format!(
                    "does not answer for {} s: asks {}",
                    age(at),
                    self.asked_whom()
                )
            }
            (ViaState::Unreachable, None) => "does not answer".to_owned(),
        };
        match &self.hold {
            None => known,
            Some(Hold::NoPath) => format!("{known}; not counted: no path to the peer is up"),
            Some(Hold::Policy) => format!("{known}; not asked: policy denies the ping"),
            Some(Hold::CannotSend(why)) => format!("{known}; not asked: {why}"),
        }
    }
}

/// Whether a check counts handshakes where a peer answers no hellos: as long as WireGuard keeps a session.
pub const SESSION_LIFE: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use patronus_config::WhenUnreachable;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PROBE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 10));

    fn via(misses: u32) -> Via {
        Via {
            prefix: "10.2.0.0/16".parse().unwrap(),
            probes: vec![PROBE, "10.2.0.11".parse().unwrap()],
            interval: SECOND,
            misses,
            unreachable: WhenUnreachable::Send,
        }
    }

    fn checks(misses: u32, now: Instant) -> Checks {
        let mut checks = Checks::default();
        let plan = ViaPlan {
            checks: vec![(PublicKey::from_bytes([2; 32]), via(misses))],
            own_addrs: Vec::new(),
        };
        checks.configure(&plan, now);
        checks
    }

    /// One interval: a question, an answer or none, and what follows.
    fn round(
        checks: &mut Checks,
        now: &mut Instant,
        answer: bool,
        hold: Option<Hold>,
    ) -> Option<ViaNews> {
        checks.get_mut(0).unwrap().asked(Ok(()));
        *now += SECOND;
        if answer {
            checks.heard(PROBE, *now);
        }
        checks.get_mut(0).unwrap().settle(hold, *now)
    }

    #[test]
    fn a_prefix_that_answered_is_marked_after_so_many_misses_and_clears_after_three_answers() {
        let mut now = Instant::now();
        let mut checks = checks(5, now);
        let first = round(&mut checks, &mut now, true, None).unwrap();
        assert_eq!(
            (first.state, first.text.as_str()),
            (ViaState::Reachable, "10.2.0.0/16 answers")
        );
        for _ in 0..4 {
            assert_eq!(round(&mut checks, &mut now, false, None), None);
        }
        assert_eq!(
            round(&mut checks, &mut now, true, None),
            None,
            "one answer is enough"
        );
        for _ in 0..4 {
            assert_eq!(round(&mut checks, &mut now, false, None), None);
        }
        let marked = round(&mut checks, &mut now, false, None).unwrap();
        assert_eq!(marked.state, ViaState::Unreachable);
        assert!(
            marked
                .text
                .contains("10.2.0.10 and 10.2.0.11 left 5 questions"),
            "{marked:?}"
        );
        for answer in [false, true, true, false, true, true] {
            assert_eq!(round(&mut checks, &mut now, answer, None), None);
        }
        let clear = round(&mut checks, &mut now, true, None).unwrap();
        assert_eq!(clear.text, "10.2.0.0/16 answers again after 7 s");
    }

    #[test]
    fn what_never_answered_is_told_once_and_never_marked() {
        let mut now = Instant::now();
        let mut checks = checks(3, now);
        let told: Vec<ViaNews> = (0..50)
            .filter_map(|_| round(&mut checks, &mut now, false, None))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].state, ViaState::Unknown);
        assert!(
            told[0].text.contains("nothing follows from that"),
            "{told:?}"
        );
    }

    #[test]
    fn a_question_that_no_path_carries_says_nothing_about_the_prefix() {
        let mut now = Instant::now();
        let mut checks = checks(3, now);
        round(&mut checks, &mut now, true, None);
        for _ in 0..20 {
            // Two misses, and then the path is found to be down: they may be its fault.
            assert_eq!(round(&mut checks, &mut now, false, None), None);
            assert_eq!(round(&mut checks, &mut now, false, None), None);
            assert_eq!(
                round(&mut checks, &mut now, false, Some(Hold::NoPath)),
                None
            );
            let text = checks.iter().next().unwrap().text(now);
            assert_eq!(text, "answers; not counted: no path to the peer is up");
            assert_eq!(round(&mut checks, &mut now, false, None), None);
        }
    }

    #[test]
    fn a_new_plan_keeps_what_is_known_of_what_stays() {
        let mut now = Instant::now();
        let mut checks = checks(3, now);
        round(&mut checks, &mut now, true, None);
        let peer = PublicKey::from_bytes([2; 32]);
        let other = (PublicKey::from_bytes([3; 32]), via(3));
        let mut plan = ViaPlan {
            checks: vec![other, (peer, via(3))],
            own_addrs: Vec::new(),
        };
        checks.configure(&plan, now);
        let states: Vec<ViaState> = checks.iter().map(|it| it.state).collect();
        assert_eq!(states, [ViaState::Unknown, ViaState::Reachable]);
        plan.checks[1].1.misses = 4;
        checks.configure(&plan, now);
        assert!(checks.iter().all(|it| it.state == ViaState::Unknown));
    }

    proptest! {
        /// Against one who remembers every round.
        #[test]
        fn a_check_agrees_with_one_who_remembers_everything(
            rounds in vec((any::<bool>(), prop::bool::weighted(0.2)), 0..60),
            misses in 2u32..5,
        ) {
            let mut now = Instant::now();
            let mut checks = checks(misses, now);
            let mut state = ViaState::Unknown;
            // What every round was worth: an answer, a miss, or nothing.
            let mut worth: Vec<Option<bool>> = Vec::new();
            let mut was_held = false;
            for (answer, held) in rounds {
                let hold = held.then_some(Hold::NoPath);
                round(&mut checks, &mut now, answer, hold);
                worth.push(match (answer, held || was_held) {
                    (true, _) => Some(true),
                    (false, false) => Some(false),
                    (false, true) => None,
                });
                was_held = held;
                let last = |count: u32, of: bool| {
                    let tail = worth.iter().rev().take(count as usize);
                    worth.len() >= count as usize && tail.into_iter().all(|it| *it == Some(of))
                };
                state = match state {
                    ViaState::Unknown if last(1, true) => ViaState::Reachable,
                    ViaState::Reachable if last(misses, false) => ViaState::Unreachable,
                    ViaState::Unreachable if last(ANSWERS, true) => ViaState::Reachable,
                    stays => stays,
                };
                prop_assert_eq!(checks.iter().next().unwrap().state, state);
            }
        }
    }
}
