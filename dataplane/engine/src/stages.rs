//! Where a worker's time goes, stage by stage. Off, it costs a look at a pointer per stage; nothing reads a clock.
//!
//! The clock is the host's ([`Engine::meter_stages`](crate::Engine::meter_stages)): nanoseconds, or cycles. At the end of
//! every stage the time since the end of the one before is booked on it, so that the stages add up to the whole.

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Headers of an inner packet, once per superpacket on the way out.
    Parse,
    /// The flow's entry, and routes and policy where it does not answer.
    Flow,
    /// Cutting the next segment out of a superpacket, checksums and padding.
    Cut,
    /// Sealing a segment into the output.
    Seal,
    /// Type, length and receiver index of a datagram, the tunnel that it names, and the books afterwards.
    Session,
    /// Replay window and opening into the output.
    Open,
    /// Joining an opened packet to the ones before.
    Join,
}

impl Stage {
    /// Every stage, in the order of a packet's way.
    pub const ALL: [Self; 7] = [
        Self::Parse,
        Self::Flow,
        Self::Cut,
        Self::Seal,
        Self::Session,
        Self::Open,
        Self::Join,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Flow => "flow",
            Self::Cut => "cut",
            Self::Seal => "seal",
            Self::Session => "session",
            Self::Open => "open",
            Self::Join => "join",
        }
    }
}

/// Time and number of laps of every stage, by [`Stage::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// In the clock's unit.
    pub spent: [u64; Stage::ALL.len()],
    /// How often the clock was read for it.
    pub laps: [u64; Stage::ALL.len()],
}

/// The meter of one engine, off at first.
#[derive(Debug, Default)]
pub(crate) struct Stages(Option<Box<Meter>>);

#[derive(Debug)]
struct Meter {
    clock: fn() -> u64,
    last: u64,
    times: StageTimes,
}

impl Stages {
    pub(crate) fn set_clock(&mut self, clock: Option<fn() -> u64>) {
        self.0 = clock.map(|clock| {
            Box::new(Meter {
                clock,
                last: clock(),
                times: StageTimes::default(),
            })
        });
    }

    pub(crate) fn times(&self) -> Option<StageTimes> {
        Some(self.0.as_ref()?.times)
    }

    /// A batch begins: what was before is nobody's.
    #[inline]
    pub(crate) fn begin(&mut self) {
        if let Some(meter) = &mut self.0 {
            meter.last = (meter.clock)();
        }
    }

    /// A stage ends here.
    #[inline]
    pub(crate) fn lap(&mut self, stage: Stage) {
        if let Some(meter) = &mut self.0 {
            meter.lap(stage);
        }
    }
}

impl Meter {
    #[cold]
    fn lap(&mut self, stage: Stage) {
        let now = (self.clock)();
        self.times.spent[stage as usize] += now.wrapping_sub(self.last);
        self.times.laps[stage as usize] += 1;
        self.last = now;
    }
}
