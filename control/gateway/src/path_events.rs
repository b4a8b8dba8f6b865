//! What happened to paths, peers and uplinks: the last events, numbered, each with its time on both clocks.
//!
//! Control puts them in, the local API reads them. Knows neither sockets nor workers. The oldest ones make room; a
//! reader learns from the numbers how many it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use patronus_api::{
    CandidateView, DecisionView, EventKind, EventView, GradeView, PathStateView, UtilitiesView,
};
use patronus_packet::Endpoint;
use patronus_path::record::{Candidate, Cause};
use patronus_path::{Decision, PathIndex, PathState, StateReason, Time};

use crate::via::ViaState;

/// Events that are kept.
pub const EVENTS_KEPT_MAX: usize = 8192;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A class changed its path.
    Decided(Arc<Decision>),
    /// A path changed its state.
    State(PathState, StateReason),
    /// A path is new, or goes to another address; over the uplink of that name.
    Moved(Endpoint, String),
    /// An uplink works, or does not and why.
    Uplink(String, Option<StateReason>),
    /// An operator ordered something, in words; the user's number where the system tells it.
    Command(String, Option<u32>),
    /// A handshake completed.
    HandshakeCompleted,
    /// A handshake was given up.
    HandshakeGivenUp,
    /// A peer has a new address.
    Endpoint(Endpoint),
    /// That many lanes were agreed.
    Lanes(usize),
    /// A prefix behind the peer answers or does not; in words.
    Via(ViaState, String),
    /// Something about the gateway itself, in words.
    Gateway(GradeView, String),
}

/// Whom and what an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The peer's name.
    pub peer: Option<String>,
    /// The path and its name.
    pub path: Option<(PathIndex, String)>,
}

/// An event with its number and times.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// From 1, without gaps.
    pub number: u64,
    /// On the monotonic clock.
    pub at: Time,
    /// On the wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// About whom and what.
    pub about: About,
    /// What.
    pub what: What,
}

/// The last events.
#[derive(Debug, Default)]
pub struct EventLog {
    kept: VecDeque<Arc<Record>>,
    last: u64,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The oldest first.
    pub records: Vec<Arc<Record>>,
    /// The number of the last event there is.
    pub last: u64,
    /// How many after those that the reader knows are kept no more.
    pub lost: u64,
}

impl EventLog {
    /// Keeps an event and gives it the next number.
    pub fn put(&mut self, at: Time, unix_ms: u64, about: About, what: What) -> Arc<Record> {
        self.last += 1;
        let record = Arc::new(Record {
            number: self.last,
            at,
            unix_ms,
            about,
            what,
        });
        if self.kept.len() == EVENTS_KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(record.clone());
        record
    }

    /// The last `count` events.
    pub fn last(&self, count: usize) -> Page {
        self.after(self.last.saturating_sub(count as u64))
    }

    /// The events after number `since`. A number that was not given out yet comes from before a restart: then
    /// everything is news.
    pub fn after(&self, since: u64) -> Page {
        let since = if since > self.last { 0 } else { since };
        let forgotten = self.last - self.kept.len() as u64;
        let skip = since.saturating_sub(forgotten);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Page {
            records: self.kept.iter().skip(skip).cloned().collect(),
            last: self.last,
            lost: forgotten.saturating_sub(since),
        }
    }
}

impl Record {
    /// What it is about.
    pub fn kind(&self) -> EventKind {
        match &self.what {
            What::Decided(_) => EventKind::Decision,
            What::State(..) => EventKind::State,
            What::Moved(..) => EventKind::Moved,
            What::Uplink(..) => EventKind::Uplink,
            What::Command(..) => EventKind::Command,
            What::HandshakeCompleted | What::HandshakeGivenUp => EventKind::Handshake,
            What::Endpoint(_) => EventKind::Endpoint,
            What::Lanes(_) => EventKind::Lanes,
            What::Via(..) => EventKind::Via,
            What::Gateway(..) => EventKind::Gateway,
        }
    }

    /// How good or bad it is.
    pub fn grade(&self) -> GradeView {
        match &self.what {
            What::Decided(decision) => match decision.cause {
                Cause::NoPath => GradeView::Bad,
                Cause::Forced | Cause::Sla => GradeView::Warning,
                Cause::First | Cause::Failback => GradeView::Good,
                Cause::Better | Cause::Drain | Cause::Pin | Cause::Peer => GradeView::Info,
            },
            What::State(state, _) => match state {
                PathState::Up => GradeView::Good,
                PathState::Init | PathState::AdminDown => GradeView::Info,
                PathState::Suspect => GradeView::Warning,
                PathState::Down => GradeView::Bad,
            },
            What::Uplink(_, None) => GradeView::Good,
            What::Uplink(_, Some(_)) => GradeView::Bad,
            What::HandshakeCompleted => GradeView::Good,
            What::HandshakeGivenUp => GradeView::Bad,
            What::Via(ViaState::Reachable, _) => GradeView::Good,
            What::Via(ViaState::Unknown, _) => GradeView::Warning,
            What::Via(ViaState::Unreachable, _) => GradeView::Bad,
            What::Gateway(grade, _) => *grade,
            What::Moved(..) | What::Command(..) | What::Endpoint(_) | What::Lanes(_) => {
                GradeView::Info
            }
        }
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let path = match &self.about.path {
            Some((number, name)) => format!("path {} {name}", number.0),
            None => "a path".to_owned(),
        };
        match &self.what {
            What::Decided(decision) => decision.summary.clone(),
            What::State(state, reason) => {
                format!(
                    "{path} is {}: {}",
                    state_view(*state).words(),
                    words(*reason)
                )
            }
            What::Moved(endpoint, uplink) => {
                format!("{path} goes to {} over {uplink}", endpoint.remote)
            }
            What::Uplink(name, None) => format!("uplink {name} works"),
            What::Uplink(name, Some(reason)) => {
                format!("uplink {name} does not work: {}", words(*reason))
            }
            What::Command(text, Some(user)) => format!("user {user} ordered: {text}"),
            What::Command(text, None) => format!("ordered: {text}"),
            What::HandshakeCompleted => "handshake completed".to_owned(),
            What::HandshakeGivenUp => {
                "no answer to handshakes for 90 s: waiting packets dropped".to_owned()
            }
            What::Endpoint(endpoint) => format!("the peer calls from {}", endpoint.remote),
            What::Gateway(_, text) => text.clone(),
            What::Lanes(count) => format!("{count} lanes agreed beside the first session"),
            What::Via(_, text) => text.clone(),
        }
    }

    /// For the API.
    pub fn view(&self) -> EventView {
        let mut view = EventView {
            number: self.number,
            at_ns: self.at.0,
            unix_ms: self.unix_ms,
            kind: self.kind(),
            grade: self.grade(),
            peer: self.about.peer.clone(),
            path: self.about.path.as_ref().map(|(path, _)| path.0),
            path_name: self.about.path.as_ref().map(|(_, name)| name.clone()),
            class: None,
            text: self.text(),
            state: None,
            reason: None,
            decision: None,
        };
        match &self.what {
            What::Decided(decision) => {
                view.class = Some(decision.class_name.clone());
                view.reason = Some(cause_name(decision.cause).to_owned());
                view.decision = Some(decision_view(decision));
            }
            What::State(state, reason) => {
                view.state = Some(state_view(*state));
                view.reason = Some(reason_name(*reason).to_owned());
            }
            What::Uplink(_, reason) => {
                view.reason = reason.map(|reason| reason_name(reason).to_owned());
            }
            What::Via(state, _) => view.reason = Some(via_state_name(*state).to_owned()),
            What::Moved(..)
            | What::Command(..)
            | What::HandshakeCompleted
            | What::HandshakeGivenUp
            | What::Endpoint(_)
            | What::Lanes(_)
            | What::Gateway(..) => {}
        }
        view
    }
}

fn decision_view(decision: &Decision) -> DecisionView {
    let candidates = decision.candidates.iter().map(candidate_view);
    DecisionView {
        from: decision.from.map(|path| path.0),
        to: decision.to.map(|path| path.0),
        cause: cause_name(decision.cause).to_owned(),
        candidates: candidates.collect(),
    }
}

fn candidate_view(of: &Candidate) -> CandidateView {
    let [latency, jitter, loss] = of.utilities.map(|it| rounded(Some(it)));
    CandidateView {
        path: of.path.0,
        name: of.name.clone(),
        state: state_view(of.state),
        tier: of.tier,
        score: rounded(Some(of.score)).unwrap_or_default(),
        rtt_ms: rounded(of.rtt_ms),
        jitter_ms: rounded(of.jitter_ms),
        loss_pct: rounded(of.loss_pct),
        utilities: UtilitiesView {
            latency,
            jitter,
            loss,
        },
        why_not: of.why_not.clone(),
    }
}

/// To three digits behind the point; JSON has no word for what is no number.
pub fn rounded(value: Option<f64>) -> Option<f64> {
    let value = value.filter(|it| it.is_finite())?;
    Some((value * 1e3).round() / 1e3)
}

/// A state as the API tells it.
pub fn state_view(state: PathState) -> PathStateView {
    match state {
        PathState::Down => PathStateView::Down,
        PathState::Init => PathStateView::Init,
        PathState::Up => PathStateView::Up,
        PathState::Suspect => PathStateView::Suspect,
        PathState::AdminDown => PathStateView::AdminDown,
    }
}

/// The word that stays the same.
pub fn via_state_name(state: ViaState) -> &'static str {
    match state {
        ViaState::Unknown => "unknown",
        ViaState::Reachable => "reachable",
        ViaState::Unreachable => "unreachable",
    }
}

/// Why a path has its state, for people.
pub fn words(reason: StateReason) -> &'static str {
    match reason {
        StateReason::New => "it is new",
        StateReason::Heard => "both ends hear each other",
        StateReason::HellosMissed => "hellos are missing",
        StateReason::DetectionExpired => "nothing came for the detection time",
        StateReason::PeerDoesNotHear => "the peer says that it does not hear us",
        StateReason::PeerSignalled => "the peer says so",
        StateReason::CarrierLost => "the uplink lost its carrier",
        StateReason::UplinkDown => "the uplink is down or has no address",
        StateReason::Unreachable => "the kernel says that the peer is unreachable",
        StateReason::Drained => "an operator drains it",
        StateReason::Removed => "the configuration has it no more",
    }
}

/// The word that stays the same.
pub fn reason_name(reason: StateReason) -> &'static str {
    match reason {
        StateReason::New => "new",
        StateReason::Heard => "heard",
        StateReason::HellosMissed => "hellos_missed",
        StateReason::DetectionExpired => "detection_expired",
        StateReason::PeerDoesNotHear => "peer_does_not_hear",
        StateReason::PeerSignalled => "peer_signalled",
        StateReason::CarrierLost => "carrier_lost",
        StateReason::UplinkDown => "uplink_down",
        StateReason::Unreachable => "unreachable",
        StateReason::Drained => "drained",
        StateReason::Removed => "removed",
    }
}

/// The word that stays the same.
pub fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "first",
        Cause::Forced => "forced",
        Cause::Sla => "sla",
        Cause::Better => "better",
        Cause::Failback => "failback",
        Cause::Drain => "drain",
        Cause::Pin => "pin",
        Cause::Peer => "peer",
        Cause::NoPath => "no_path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(events: u64) -> EventLog {
        let mut log = EventLog::default();
        for at in 0..events {
            log.put(Time(at), at, About::default(), What::Lanes(at as usize));
        }
        log
    }

    fn numbers(page: &Page) -> (Option<u64>, Option<u64>, usize) {
        let ends = (page.records.first(), page.records.last());
        let number = |record: Option<&Arc<Record>>| record.map(|it| it.number);
        (number(ends.0), number(ends.1), page.records.len())
    }

    #[test]
    fn a_reader_gets_what_came_after_its_number_and_nothing_twice() {
        let log = log_of(10);
        assert_eq!(numbers(&log.after(0)), (Some(1), Some(10), 10));
        assert_eq!(numbers(&log.after(7)), (Some(8), Some(10), 3));
        assert_eq!(numbers(&log.after(10)), (None, None, 0));
        assert_eq!((log.after(7).last, log.after(7).lost), (10, 0));
    }

    #[test]
    fn what_made_room_is_counted_for_the_reader_that_missed_it() {
        let kept = EVENTS_KEPT_MAX as u64;
        let log = log_of(kept + 100);
        let page = log.after(40);
        assert_eq!(page.lost, 60);
        assert_eq!(
            numbers(&page),
            (Some(101), Some(kept + 100), EVENTS_KEPT_MAX)
        );
        assert_eq!(log.after(100).lost, 0);
        assert_eq!(numbers(&log.after(100)).2, EVENTS_KEPT_MAX);
    }

    #[test]
    fn a_number_from_before_a_restart_gets_everything() {
        let log = log_of(3);
        assert_eq!(numbers(&log.after(900)), (Some(1), Some(3), 3));
        assert_eq!(log.after(900).last, 3);
        assert_eq!(numbers(&EventLog::default().after(5)), (None, None, 0));
    }

    #[test]
    fn words_that_stay_the_same_are_those_of_the_trace() {
        for reason in [
            StateReason::New,
            StateReason::Heard,
            StateReason::HellosMissed,
            StateReason::DetectionExpired,
            StateReason::PeerDoesNotHear,
            StateReason::PeerSignalled,
            StateReason::CarrierLost,
            StateReason::UplinkDown,
            StateReason::Unreachable,
            StateReason::Drained,
            StateReason::Removed,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason_name(reason));
        }
        for cause in [
            Cause::First,
            Cause::Forced,
            Cause::Sla,
            Cause::Better,
            Cause::Failback,
            Cause::Drain,
            Cause::Pin,
            Cause::Peer,
            Cause::NoPath,
        ] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause_name(cause));
        }
    }

    #[test]
    fn lines_name_the_path_and_the_reason() {
        let mut log = EventLog::default();
        let about = About {
            peer: Some("branch".to_owned()),
            path: Some((PathIndex(1), "lte>198.51.100.2".to_owned())),
        };
        let what = What::State(PathState::Down, StateReason::DetectionExpired);
        let record = log.put(Time(5), 6, about, what);
        assert_eq!(
            record.text(),
            "path 1 lte>198.51.100.2 is down: nothing came for the detection time"
        );
        let view = record.view();
        assert_eq!((view.number, view.at_ns, view.unix_ms), (1, 5, 6));
        assert_eq!(
            (view.kind, view.grade, view.state, view.reason.as_deref()),
            (
                EventKind::State,
                GradeView::Bad,
                Some(PathStateView::Down),
                Some("detection_expired")
            )
        );
        let what = What::Uplink("lte".to_owned(), Some(StateReason::CarrierLost));
        let record = log.put(Time(7), 8, About::default(), what);
        assert_eq!(
            record.text(),
            "uplink lte does not work: the uplink lost its carrier"
        );
        assert_eq!((record.number, record.kind()), (2, EventKind::Uplink));
    }
}
