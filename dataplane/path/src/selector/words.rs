//! Decisions in words: candidates with the reasons against them, and one line for people.

use std::fmt::Write;

use super::Selector;
use super::entry::{TIER_SUPPRESSED, TIER_SUSPECT};
use super::ordering::{Field, Standing};
use super::rules::{FILL, HOLD, Plan, SCORE_MARGIN, Wish};
use super::watch::{JITTER, LATENCY, LOSS};
use crate::ids::PathIndex;
use crate::metrics::{PathState, StateReason};
use crate::record::{Candidate, Cause};
use crate::time::Time;

impl Selector {
    /// Every path, as it stands, with why it is not the chosen one.
    pub(super) fn describe(
        &self,
        class: usize,
        field: &Field,
        chosen: Option<PathIndex>,
        now: Time,
    ) -> Vec<Candidate> {
        let chosen = chosen.and_then(|path| field.find(path));
        let candidate = |standing: &Standing| {
            let entry = self.entry(standing.index())?;
            let is_chosen = chosen.is_some_and(|chosen| chosen.path == standing.path);
            let why_not = (!is_chosen).then(|| self.why_not(class, standing, chosen, now));
            Some(Candidate {
                path: standing.index(),
                name: entry.profile.name.clone(),
                state: entry.state,
                tier: standing.tier,
                score: standing.score.score,
                rtt_ms: standing.sample.rtt_ms,
                jitter_ms: standing.sample.jitter_ms,
                loss_pct: standing.sample.loss_pct,
                utilities: standing.score.utilities,
                why_not,
            })
        };
        field.all().iter().filter_map(candidate).collect()
    }

    fn why_not(
        &self,
        class: usize,
        standing: &Standing,
        chosen: Option<&Standing>,
        now: Time,
    ) -> String {
        let path = standing.index();
        let Some(entry) = self.entry(path) else {
            return "gone".to_owned();
        };
        let seconds_to = |at: Time| at.since(now).as_secs_f64().ceil();
        if !entry.is_usable() {
            return self.trouble(class, path);
        }
        if standing.is_draining {
            return "draining".to_owned();
        }
        if standing.tier == TIER_SUPPRESSED {
            let until = entry.damping.reuse_at().unwrap_or(now);
            let penalty = entry.damping.penalty(now);
            let left_s = seconds_to(until);
            return format!("suppressed {left_s:.0} s more, penalty {penalty:.0}");
        }
        let Some(chosen) = chosen else {
            return "not chosen".to_owned();
        };
        if standing.tier == TIER_SUSPECT || standing.tier > chosen.tier {
            return self.trouble(class, path);
        }
        let state = &self.classes[class];
        if state.pin.is_some_and(|pin| pin.path == chosen.index()) {
            return "pinned elsewhere".to_owned();
        }
        if !self.config.leads && state.peer == Some(chosen.index()) {
            return "the peer uses another".to_owned();
        }
        self.why_not_wanted(class, standing, chosen, now)
    }

    /// What keeps a class from a sound path that it could use.
    fn why_not_wanted(
        &self,
        class: usize,
        standing: &Standing,
        chosen: &Standing,
        now: Time,
    ) -> String {
        let path = standing.index();
        let held_until = self
            .entry(path)
            .map_or(now, |entry| entry.held_until(class, now));
        if held_until > now {
            let troubles = self
                .entry(path)
                .map_or(0, |entry| entry.troubles(class, now));
            let left_s = held_until.since(now).as_secs_f64().ceil();
            return format!("held down {left_s:.0} s more, {troubles} times bad in 10 min");
        }
        let Some(wish) = self.wish(class, chosen, standing) else {
            if standing.preference > chosen.preference {
                return "less preferred".to_owned();
            }
            let (score, least) = (standing.score.score, chosen.score.score + SCORE_MARGIN);
            return if score < least {
                format!("score {score:.1} is below {least:.1}")
            } else {
                "neither faster nor less lossy".to_owned()
            };
        };
        if !self.has_room(class, standing) {
            let load_mbps = self.classes[class].load_bps / 1e6;
            let free_mbps = standing.sample.free_bps.unwrap_or(0.0) * FILL / 1e6;
            return format!("no room: {load_mbps:.1} Mbit/s for {free_mbps:.1}");
        }
        let word = match wish {
            Wish::Preferred => "preferred",
            Wish::Better => "better",
        };
        let hold = self.classes[class].hold.filter(|hold| hold.path == path);
        match hold {
            Some(hold) if self.eligible_at(class, &hold) > now => {
                let left_s = self.eligible_at(class, &hold).since(now).as_secs_f64();
                format!("{word}, waits {:.0} s more", left_s.ceil())
            }
            Some(_) | None => format!("{word}, must last {} s", HOLD.as_secs()),
        }
    }

    /// What is wrong with a path, as a class sees it.
    fn trouble(&self, class: usize, path: PathIndex) -> String {
        let Some(entry) = self.entry(path) else {
            return "gone".to_owned();
        };
        let state = match entry.state {
            PathState::Down => "down",
            PathState::Init => "init",
            PathState::AdminDown => "admin down",
            PathState::Suspect => "suspect",
            PathState::Up => {
                let violated = entry.watches[class].violated();
                return if violated == 0 {
                    "well".to_owned()
                } else {
                    format!("violates {}", metric_names(violated))
                };
            }
        };
        format!("{state}: {}", reason_name(entry.reason))
    }

    /// One line for people.
    pub(super) fn summarize(&self, class: usize, plan: Plan, field: &Field) -> String {
        let name = |path: Option<PathIndex>| match path {
            Some(path) => self
                .path_name(path)
                .map_or_else(|| format!("path {}", path.0), str::to_owned),
            None => "no path".to_owned(),
        };
        let from = self.routes[class].path;
        let standing = |path: Option<PathIndex>| path.and_then(|path| field.find(path));
        let score = |path: Option<PathIndex>| standing(path).map_or(0.0, |s| s.score.score);
        let trouble = from.map_or_else(String::new, |from| self.trouble(class, from));
        let why = match plan.cause {
            Cause::First if from.is_none() => format!("first path, score {:.1}", score(plan.to)),
            Cause::First => format!("still settling, score {:.1}", score(plan.to)),
            Cause::Forced if standing(from).is_some_and(|s| s.tier == TIER_SUPPRESSED) => {
                format!("{} is suppressed", name(from))
            }
            Cause::Forced | Cause::Sla | Cause::NoPath => format!("{} {trouble}", name(from)),
            Cause::Better => format!("score {:.1} after {:.1}", score(plan.to), score(from)),
            Cause::Failback => format!("{} is preferred and well", name(plan.to)),
            Cause::Drain => format!("{} is draining", name(from)),
            Cause::Pin => match self.classes[class].pin {
                Some(_) => "pinned by command".to_owned(),
                None => "unpinned by command".to_owned(),
            },
            Cause::Peer => "the peer uses it".to_owned(),
        };
        let class = &self.config.classes[class].name;
        format!("{class}: {} -> {}: {why}", name(from), name(plan.to))
    }
}

fn metric_names(bits: u8) -> String {
    let mut names = String::new();
    let metrics = [
        (LATENCY, "latency"),
        (JITTER[0] | JITTER[1], "jitter"),
        (LOSS[0] | LOSS[1], "loss"),
    ];
    for (mask, name) in metrics {
        if bits & mask != 0 {
            let separator = if names.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(names, "{separator}{name}");
        }
    }
    names
}

fn reason_name(reason: StateReason) -> &'static str {
    match reason {
        StateReason::New => "new",
        StateReason::Heard => "heard",
        StateReason::HellosMissed => "hellos missed",
        StateReason::DetectionExpired => "nothing heard",
        StateReason::PeerDoesNotHear => "peer does not hear us",
        StateReason::PeerSignalled => "peer says so",
        StateReason::CarrierLost => "carrier lost",
        StateReason::UplinkDown => "uplink down",
        StateReason::Unreachable => "unreachable",
        StateReason::Drained => "drained",
        StateReason::Removed => "removed",
    }
}
