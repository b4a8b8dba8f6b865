//! When trains run: the sending half of the bandwidth measurement.
//!
//! A short scout goes first, so that a slow link is not filled for longer than a hello may be late; then three trains,
//! whose median counts. What they cost is paid from a hundredth of what the path carries anyway.

use std::time::Duration;

use crate::estimate::train::TRAINS;
use crate::time::Time;

/// Wagons of the scout and on slow links.
const SHORT: u8 = 8;
/// Wagons of a train.
const LONG: u8 = 32;
/// Links slower than this get short trains: 32 wagons would fill them for longer than 70 ms.
const SLOW_KBPS: u32 = 5_000;
/// Without a result after this the train is lost.
const PATIENCE: Duration = Duration::from_millis(2500);
const PAUSE: Duration = Duration::from_millis(200);
/// After a path came up.
const SETTLING: Duration = Duration::from_secs(2);
/// Share of the data's bytes that may go into trains.
const BUDGET_SHARE: f64 = 0.01;
/// What there is to begin with: one measurement.
const BUDGET_FIRST: f64 = 160_000.0;
const BUDGET_MAX: f64 = 1_000_000.0;

/// Trains of one path.
#[derive(Clone, Debug)]
pub(crate) struct Trains {
    number: u8,
    phase: Phase,
    results: [u32; TRAINS],
    results_len: usize,
    runs_left: u8,
    is_scouting: bool,
    wagons: u8,
    budget: f64,
    best: Option<(u32, Time)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// A measurement begins then, if there is budget.
    Scheduled(Time),
    /// The next train leaves then.
    Pausing(Time),
    /// That many wagons have left.
    Running(u8),
    /// Until the peer says or that time.
    Listening(Time),
}

/// One wagon to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wagon {
    pub(crate) train: u8,
    pub(crate) count: u8,
    pub(crate) place: u8,
}

impl Wagon {
    /// As the argument of a message.
    pub(crate) fn to_argument(self) -> u32 {
        u32::from_be_bytes([0, self.train, self.count, self.place])
    }

    pub(crate) fn from_argument(argument: u32) -> Self {
        let [_, train, count, place] = argument.to_be_bytes();
        Self {
            train,
            count,
            place,
        }
    }
}

impl Trains {
    pub(crate) fn new() -> Self {
        Self {
            number: 0,
            phase: Phase::Idle,
            results: [0; TRAINS],
            results_len: 0,
            runs_left: 0,
            is_scouting: false,
            wagons: SHORT,
            budget: BUDGET_FIRST,
            best: None,
        }
    }

    /// The path carried data.
    pub(crate) fn earn(&mut self, bytes: u64) {
        self.budget = (self.budget + bytes as f64 * BUDGET_SHARE).min(BUDGET_MAX);
    }

    /// The path came up: measure soon, if there is budget.
    pub(crate) fn schedule(&mut self, now: Time) {
        if self.phase == Phase::Idle && self.budget >= BUDGET_FIRST {
            self.phase = Phase::Scheduled(now + SETTLING);
        }
    }

    /// Measure now.
    pub(crate) fn begin(&mut self, now: Time) {
        if matches!(self.phase, Phase::Idle | Phase::Scheduled(_)) {
            self.results_len = 0;
            self.runs_left = TRAINS as u8 + 1;
            self.is_scouting = true;
            self.wagons = SHORT;
            self.phase = Phase::Pausing(now);
        }
    }

    /// The path is not up any more.
    pub(crate) fn stop(&mut self) {
        self.phase = Phase::Idle;
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match self.phase {
            // A running train leaves whole in one go.
            Phase::Idle | Phase::Running(_) => None,
            Phase::Scheduled(at) | Phase::Pausing(at) | Phase::Listening(at) => Some(at),
        }
    }

    /// The next wagon, each of `bytes` of outer IP.
    pub(crate) fn poll(&mut self, bytes: u16, now: Time) -> Option<Wagon> {
        match self.phase {
            Phase::Scheduled(at) if at <= now => self.begin(now),
            Phase::Listening(at) if at <= now => self.finish_train(None, now),
            Phase::Idle
            | Phase::Scheduled(_)
            | Phase::Listening(_)
            | Phase::Pausing(_)
            | Phase::Running(_) => {}
        }
        if let Phase::Pausing(at) = self.phase
            && at <= now
        {
            self.number = self.number.wrapping_add(1).max(1);
            self.phase = Phase::Running(0);
        }
        let Phase::Running(place) = self.phase else {
            return None;
        };
        self.budget -= f64::from(bytes);
        self.phase = match place + 1 == self.wagons {
            true => Phase::Listening(now + PATIENCE),
            false => Phase::Running(place + 1),
        };
        Some(Wagon {
            train: self.number,
            count: self.wagons,
            place,
        })
    }

    /// The peer says what it saw of a train.
    pub(crate) fn hear(&mut self, number: u8, kbps: u32, now: Time) {
        if matches!(self.phase, Phase::Listening(_)) && number == self.number && kbps > 0 {
            self.finish_train(Some(kbps), now);
        }
    }

    fn finish_train(&mut self, kbps: Option<u32>, now: Time) {
        self.runs_left = self.runs_left.saturating_sub(1);
        match kbps {
            Some(kbps) if self.is_scouting && kbps >= SLOW_KBPS => self.wagons = LONG,
            Some(kbps) if !self.is_scouting && self.results_len < TRAINS => {
                self.results[self.results_len] = kbps;
                self.results_len += 1;
            }
            Some(_) | None => {}
        }
        self.is_scouting = false;
        if self.runs_left > 0 {
            self.phase = Phase::Pausing(now + PAUSE);
            return;
        }
        self.phase = Phase::Idle;
        let results = &mut self.results[..self.results_len];
        results.sort_unstable();
        // Of two the lower one; of one, none: that was no measurement.
        if results.len() >= 2 {
            self.best = Some((results[(results.len() - 1) / 2], now));
        }
    }

    /// The median rate in kilobit per second, and when it was measured.
    pub(crate) fn best(&self) -> Option<(u32, Time)> {
        self.best
    }
}
