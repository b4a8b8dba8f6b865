//! What waits for the selector, within a limit.

use std::collections::VecDeque;

use crate::estimate::loss::Fates;
use crate::ids::PathIndex;
use crate::observation::{Direction, Observation};

/// Room that is there from the beginning, so that nothing allocates later.
const ROOM: usize = 64;
/// Observations that wait at most; the host drains after every call.
const WAITING_MAX: usize = 4096;
/// Lost hellos that are told one by one, of those known at once.
const LOSSES_TOLD_MAX: u32 = 64;

/// Observations in the order in which they were made.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    waiting: VecDeque<Observation>,
    dropped: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::with_capacity(ROOM),
            dropped: 0,
        }
    }

    pub(crate) fn push(&mut self, observation: Observation) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(observation);
        } else {
            self.dropped += 1;
        }
    }

    /// What became of hellos, one by one.
    pub(crate) fn fates(&mut self, path: PathIndex, direction: Direction, fates: Fates) {
        for _ in 0..fates.lost.min(LOSSES_TOLD_MAX) {
            self.push(Observation::Probe(path, direction, true));
        }
        for _ in 0..fates.came.min(LOSSES_TOLD_MAX) {
            self.push(Observation::Probe(path, direction, false));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Observation> {
        self.waiting.pop_front()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}
