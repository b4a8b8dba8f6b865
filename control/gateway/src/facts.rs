//! What workers tell about themselves, read for those who ask: counters, time, stages, letter boxes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use patronus_engine::{Counters, Generation, PublishedCounters};
use patronus_tunnel::WorkerId;

use crate::exchange::{Exchange, Order};
use crate::meter::{StagesSpent, TimeSpent};

/// One worker at one moment.
#[derive(Clone, Debug, Default)]
pub struct WorkerReading {
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// Whether its thread has ended.
    pub has_ended: bool,
    /// Panics that it survived.
    pub panics: u64,
    /// The configuration that it has.
    pub generation: Generation,
    /// Where its time went.
    pub time: TimeSpent,
    /// What it counted.
    pub counters: Counters,
    /// Packets that wait in its letter box, and how many may.
    pub mailbox: (usize, usize),
    /// The stages, while they are metered.
    pub stages: Option<StagesSpent>,
}

/// Where workers can be read.
pub trait WorkerFacts: Send + Sync {
    /// Every worker, in order.
    fn read(&self) -> Vec<WorkerReading>;
    /// Meters stages for so long; zero ends it.
    fn meter_stages(&self, span: Duration);
}

/// The workers of a running gateway.
#[derive(Debug)]
pub struct RunningWorkers {
    /// What they share.
    pub exchange: Arc<Exchange>,
    /// Their counters.
    pub published: Vec<Arc<PublishedCounters>>,
    /// Their cores.
    pub cores: Vec<Option<usize>>,
}

impl WorkerFacts for RunningWorkers {
    fn read(&self) -> Vec<WorkerReading> {
        let all = self.published.iter().zip(self.exchange.mailboxes());
        let readings = all.enumerate().map(|(at, (published, mailbox))| {
            let meter = &mailbox.meter;
            WorkerReading {
                core: self.cores.get(at).copied().flatten(),
                has_ended: meter.has_ended(),
                panics: mailbox.panics.load(Ordering::Relaxed),
                generation: meter.generation(),
                time: meter.time(),
                counters: settled(published),
                mailbox: mailbox.fill(),
                stages: meter.stages(),
            }
        });
        readings.collect()
    }

    fn meter_stages(&self, span: Duration) {
        for at in 0..self.published.len() {
            let order = Order::MeterStages(span);
            self.exchange.order(WorkerId(at as u8), order);
        }
    }
}

/// The counters of a worker between two batches, where it is caught there in a few looks.
fn settled(published: &PublishedCounters) -> Counters {
    let mut counters = published.load();
    for _ in 0..LOOKS_MAX {
        if counters.is_balanced() {
            break;
        }
        counters = published.load();
    }
    counters
}

/// A worker is between two batches most of the time.
const LOOKS_MAX: usize = 8;
