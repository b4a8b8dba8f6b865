//! Datagrams that wait to be sent.

use std::collections::VecDeque;

use crate::machine::arrival::Transmit;
use crate::machine::counters::Counters;

/// Most datagrams that wait to be collected.
pub const OUTBOX_MAX: usize = 2048;

pub(super) struct Outbox {
    waiting: VecDeque<Transmit>,
}

impl Outbox {
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }

    pub fn push(&mut self, transmit: Transmit, counters: &mut Counters) {
        if self.waiting.len() == OUTBOX_MAX {
            counters.unsent += 1;
            return;
        }
        counters.sent += 1;
        self.waiting.push_back(transmit);
    }

    pub fn pop(&mut self) -> Option<Transmit> {
        self.waiting.pop_front()
    }
}
