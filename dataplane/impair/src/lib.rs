//! What a bad path does to packets: delay, jitter, loss, reordering, duplication, a rate with its queue, MTU holes,
//! black holes, and schedules of all that. One [`Wire`] is one direction of one link.
//!
//! Owns the decision what happens to a packet and when it arrives. Reads no clock and moves no bytes: the engine's
//! simulator asks it on virtual time, the emulator between network namespaces on real time. The seed, the
//! impairments and the times of the offers determine every outcome.

pub mod change;
pub mod dice;
pub mod error;
pub mod impairment;
pub mod schedule;
pub mod wire;

pub use change::{Change, RawChange};
pub use dice::Dice;
pub use error::ImpairError;
pub use impairment::{
    GilbertElliott, Impairment, Jitter, JitterShape, Loss, Probability, RateBps, Reorder,
};
pub use schedule::{Direction, Heading, RawStep, Schedule, Step};
pub use wire::{Delivery, DropReason, Fate, Wire, WireCounters};
