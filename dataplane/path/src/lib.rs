//! Paths between two sites: every pair of a local uplink and a remote address is measured, judged per traffic class,
//! and chosen or left.
//!
//! Two machines without clocks, sockets or threads: the [`Prober`] sends and hears hellos and turns them
//! into [`Observation`]s; the [`Selector`] takes observations and decides
//! which path each class uses, with a [`Decision`] record for every change. Time is an argument and
//! chance comes from a seed, so recorded observations replay to the same decisions byte for byte ([`trace`]).
//!
//! Knows no packets, no sessions, no sockets. The engine owns one pair per peer, on the worker that has the peer's first
//! session.

pub mod class;
mod cusum;
mod dice;
mod estimate;
pub mod ids;
mod liveness;
pub mod message;
pub mod metrics;
mod mtu;
pub mod observation;
mod outbox;
mod path;
pub mod prober;
pub mod record;
pub mod selector;
pub mod time;
pub mod trace;
mod train;

pub use class::{Bounds, ClassConfig, Scoring};
pub use ids::{CLASSES_MAX, ClassId, PATHS_MAX, PathIndex, Ranking};
pub use message::{Hello, Order};
pub use metrics::{Bandwidth, BandwidthSource, LossWindows, PathMetrics, PathState, StateReason};
pub use observation::{Command, Direction, Observation};
pub use prober::{
    Arrival, Cadence, PathCounters, PathEvents, PathSpec, Prober, ProberConfig, Transmit,
};
pub use record::Decision;
pub use selector::{Route, Selector, SelectorConfig};
pub use time::Time;
