//! Where a worker's time goes: work, looking for work, sleep; and, while somebody asks, the stages of its pipeline.
//!
//! Booked once per turn with the time that the turn takes anyway: a packet costs nothing, a sleep one more look at the
//! clock. One writer per meter, readers without locks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use patronus_engine::stages::{Stage, StageTimes};
use patronus_engine::{Engine, Generation};

/// What a worker tells about itself, beside its counters.
#[derive(Debug, Default)]
pub struct WorkerMeter {
    busy_ns: AtomicU64,
    looking_ns: AtomicU64,
    asleep_ns: AtomicU64,
    turns: AtomicU64,
    generation: AtomicU64,
    has_ended: AtomicBool,
    is_metered: AtomicBool,
    metered_packets: AtomicU64,
    spent: [AtomicU64; Stage::ALL.len()],
    laps: [AtomicU64; Stage::ALL.len()],
}

/// A worker's time at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpent {
    /// In turns that found work.
    pub busy: Duration,
    /// In turns that found none, and did not sleep.
    pub looking: Duration,
    /// In sleep.
    pub asleep: Duration,
    /// Turns that found work.
    pub turns: u64,
}

/// The stages of a worker at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagesSpent {
    /// Nanoseconds and laps.
    pub times: StageTimes,
    /// Packets that were read since the metering began.
    pub packets: u64,
}

impl WorkerMeter {
    /// Where its time went.
    pub fn time(&self) -> TimeSpent {
        let span = |cell: &AtomicU64| Duration::from_nanos(cell.load(Ordering::Relaxed));
        TimeSpent {
            busy: span(&self.busy_ns),
            looking: span(&self.looking_ns),
            asleep: span(&self.asleep_ns),
            turns: self.turns.load(Ordering::Relaxed),
        }
    }

    /// The stages, while they are metered.
    pub fn stages(&self) -> Option<StagesSpent> {
        if !self.is_metered.load(Ordering::Acquire) {
            return None;
        }
        let load =
            |cells: &[AtomicU64]| std::array::from_fn(|at| cells[at].load(Ordering::Relaxed));
        Some(StagesSpent {
            times: StageTimes {
                spent: load(&self.spent),
                laps: load(&self.laps),
            },
            packets: self.metered_packets.load(Ordering::Relaxed),
        })
    }

    /// The configuration that the worker has.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Relaxed))
    }

    /// Whether the worker's thread has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// The worker says that it has this configuration.
    pub fn set_generation(&self, generation: Generation) {
        self.generation.store(generation.0, Ordering::Relaxed);
    }

    /// The worker says that it ends.
    pub fn set_ended(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

/// What a turn went into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Into {
    Work,
    Looking,
    Sleep,
}

/// The worker's own half: books every stretch of time once, so that the three add up to its life.
#[derive(Debug)]
pub struct TurnClock {
    since: Instant,
    into: Into,
    metered: Option<Metered>,
}

#[derive(Debug)]
struct Metered {
    until: Instant,
    packets_before: u64,
}

impl TurnClock {
    /// Begins to book at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            into: Into::Looking,
            metered: None,
        }
    }

    /// A turn begins.
    #[inline]
    pub fn turn(&mut self, meter: &WorkerMeter, now: Instant) {
        let ns = now.saturating_duration_since(self.since).as_nanos() as u64;
        let cell = match self.into {
            Into::Work => &meter.busy_ns,
            Into::Looking => &meter.looking_ns,
            Into::Sleep => &meter.asleep_ns,
        };
        add(cell, ns);
        if self.into == Into::Work {
            add(&meter.turns, 1);
        }
        (self.since, self.into) = (now, Into::Looking);
    }

    /// This turn found work.
    #[inline]
    pub fn worked(&mut self) {
        self.into = Into::Work;
    }

    /// Sleep begins; what the turn did before is booked.
    pub fn sleep(&mut self, meter: &WorkerMeter, now: Instant) {
        self.turn(meter, now);
        self.into = Into::Sleep;
    }

    /// Meters the stages until then; `None` ends it.
    pub fn meter_stages(
        &mut self,
        meter: &WorkerMeter,
        engine: &mut Engine,
        until: Option<Instant>,
    ) {
        meter.is_metered.store(false, Ordering::Release);
        engine.meter_stages(until.map(|_| clock_ns as fn() -> u64));
        self.metered = until.map(|until| Metered {
            until,
            packets_before: engine.counters().rx(),
        });
        self.publish_stages(meter, engine);
    }

    /// Tells what the stages took, and ends the metering when its time is over.
    #[inline]
    pub fn tell_stages(&mut self, meter: &WorkerMeter, engine: &mut Engine, now: Instant) {
        let Some(metered) = &self.metered else {
            return;
        };
        match now < metered.until {
            true => self.publish_stages(meter, engine),
            false => self.meter_stages(meter, engine, None),
        }
    }

    fn publish_stages(&self, meter: &WorkerMeter, engine: &Engine) {
        let (Some(metered), Some(times)) = (&self.metered, engine.stage_times()) else {
            return;
        };
        for at in 0..Stage::ALL.len() {
            meter.spent[at].store(times.spent[at], Ordering::Relaxed);
            meter.laps[at].store(times.laps[at], Ordering::Relaxed);
        }
        let packets = engine.counters().rx() - metered.packets_before;
        meter.metered_packets.store(packets, Ordering::Relaxed);
        meter.is_metered.store(true, Ordering::Release);
    }
}

/// A load and a store, not an addition: there is one writer.
#[inline]
fn add(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Ordering::Relaxed) + value, Ordering::Relaxed);
}

/// Nanoseconds since its first call.
fn clock_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_is_booked_once_and_on_what_it_went_into() {
        let meter = WorkerMeter::default();
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let mut clock = TurnClock::new(start);
        clock.turn(&meter, at(1));
        clock.worked();
        clock.turn(&meter, at(11));
        clock.turn(&meter, at(13));
        clock.sleep(&meter, at(16));
        clock.turn(&meter, at(1016));
        // Timers are work too, before a sleep.
        clock.worked();
        clock.sleep(&meter, at(1020));
        clock.turn(&meter, at(2020));
        let us = Duration::from_micros;
        let told = meter.time();
        assert_eq!(
            (told.busy, told.looking, told.asleep),
            (us(14), us(6), us(2000))
        );
        assert_eq!(told.turns, 2);
        assert_eq!(told.busy + told.looking + told.asleep, us(2020));
    }
}
