//! What the selector is told: the only way in, so that recording it is recording everything.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{ClassId, PathIndex, Ranking};
use crate::metrics::{PathMetrics, PathState, StateReason};

/// Which way, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the peer.
    Tx,
    /// From the peer.
    Rx,
}

/// What decides about a path beside its measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathProfile {
    /// The path's name as operators see it: local uplink, then the remote end.
    pub name: String,
    /// Number of the local uplink, for the classes' preference.
    pub uplink: u8,
    /// The peer's address, as the prober has it: paths to one address are likely to die together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The operator's cost: lower is better.
    pub cost: u16,
    /// Configured capacity towards the peer, in bits per second.
    pub capacity_bps: Option<f64>,
    /// Whether bytes cost money.
    pub is_metered: bool,
}

/// An operator's word about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Classes (or one class) use this path while it is usable.
    Pin(PathIndex, Option<ClassId>),
    /// Undoes every pin, or that of one class.
    Unpin(Option<ClassId>),
    /// Everybody leaves this path gracefully; it carries nothing until it is undrained.
    Drain(PathIndex),
    /// Undoes a drain.
    Undrain(PathIndex),
    /// Forgets penalties and hold-downs of this path.
    Clear(PathIndex),
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// A path exists from here on, Down; or its profile changed.
    Path(PathIndex, PathProfile),
    /// A path is gone.
    Gone(PathIndex),
    /// A path changed its state.
    State(PathIndex, PathState, StateReason),
    /// A round trip, in nanoseconds.
    Rtt(PathIndex, f64),
    /// What became of one hello: lost or not.
    Probe(PathIndex, Direction, bool),
    /// One step of interarrival deviation |D| (RFC 3550 section 6.4.1), in nanoseconds.
    Deviation(PathIndex, Direction, f64),
    /// Data packets sent and lost since the last such observation.
    Data(PathIndex, Direction, u32, u32),
    /// The numbers as they stand.
    Metrics(PathIndex, Box<PathMetrics>),
    /// The path on which the peer sends that class.
    PeerChoice(ClassId, PathIndex),
    /// In which order a peer that leads would take the paths for that class; empty where it does not say.
    PeerOrder(ClassId, Ranking),
    /// Bits per second that a class sends.
    Load(ClassId, f64),
    /// The operator says.
    Command(Command),
}
