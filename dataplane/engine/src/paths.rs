//! What control and workers say to each other about paths: classes and their matches down, standing and decisions up.

use std::net::IpAddr;
use std::sync::Arc;

use patronus_packet::{Endpoint, FlowKey, Prefix};
use patronus_path::prober::UplinkProfile;
use patronus_path::{
    CLASSES_MAX, ClassConfig, ClassId, Command, Decision, PathIndex, PathMetrics, PathState,
    StateReason, trace,
};

use crate::flow_table::OpenedBy;
use crate::snapshot::PeerId;

pub use crate::path_board::PathBoard;

/// The gateway's uplinks and classes.
#[derive(Clone, Debug, Default)]
pub struct PathsConfig {
    /// The uplinks, by number; empty where only the routes decide.
    pub uplinks: Vec<UplinkProfile>,
    /// The classes.
    pub classes: ClassTable,
}

/// The classes by number and what belongs to them.
#[derive(Clone, Debug, Default)]
pub struct ClassTable {
    /// What each class asks of a path, at most [`CLASSES_MAX`].
    pub configs: Vec<ClassConfig>,
    /// Asked in order; the first that fits names the class.
    pub rules: Vec<ClassRule>,
    /// The class of what fits no rule.
    pub default: ClassId,
}

/// One match. All conditions hold; an empty one always does.
#[derive(Clone, Debug, Default)]
pub struct ClassRule {
    /// The class of what fits.
    pub class: ClassId,
    /// DSCP values, by bit.
    pub dscp: u64,
    /// Ports that the connection was opened to.
    pub ports: Vec<PortRange>,
    /// Where the machine behind this gateway is.
    pub local: Vec<Prefix>,
    /// Where the machine behind the peer is.
    pub remote: Vec<Prefix>,
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// IP protocol number.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl ClassTable {
    /// The class of a flow: `key` from local to remote, `dscp` of the packet at hand.
    pub fn classify(&self, key: &FlowKey, opened_by: OpenedBy, dscp: u8) -> ClassId {
        let port = match opened_by {
            OpenedBy::Local => key.dst_port,
            OpenedBy::Remote => key.src_port,
        };
        let fits = |rule: &&ClassRule| {
            let has = |prefixes: &[Prefix], addr: IpAddr| {
                prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(addr))
            };
            let is_port = |range: &PortRange| {
                range.protocol == key.protocol && (range.first..=range.last).contains(&port)
            };
            (rule.dscp == 0 || rule.dscp >> (dscp & 63) & 1 == 1)
                && (rule.ports.is_empty() || rule.ports.iter().any(is_port))
                && has(&rule.local, key.src)
                && has(&rule.remote, key.dst)
        };
        let rule = self.rules.iter().find(fits);
        rule.map_or(self.default, |rule| rule.class)
    }
}

/// One path as anybody may read it.
#[derive(Clone, Debug, PartialEq)]
pub struct PathStatus {
    /// Its number.
    pub path: PathIndex,
    /// Where it goes.
    pub endpoint: Endpoint,
    /// Its state.
    pub state: PathState,
    /// Why.
    pub reason: StateReason,
    /// Seconds since the state changed.
    pub state_age_s: f64,
    /// Its numbers.
    pub metrics: PathMetrics,
    /// Tier and score, by class.
    pub standing: [(u8, f32); CLASSES_MAX],
    /// Whether an operator drains it.
    pub is_draining: bool,
    /// Data packets sent.
    pub tx_packets: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Data packets received.
    pub rx_packets: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
}

/// What control tells a worker about paths, beside configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathOrder {
    /// An uplink works, or does not and why. Every worker gets it.
    Uplink(u8, Option<StateReason>),
    /// An operator's word. The worker that owns the peer gets it, as all that follow.
    Command(PeerId, Command),
    /// Send a hello now and tell its round trip in [`PathEvent::Pong`].
    Ping(PeerId, PathIndex),
    /// Measure bandwidth now.
    MeasureBandwidth(PeerId, PathIndex),
    /// Tell every observation of this peer in [`PathEvent::Trace`], or stop.
    Trace(PeerId, bool),
}

/// What a worker tells control about paths.
#[derive(Clone, Debug, PartialEq)]
pub enum PathEvent {
    /// A class changed its path, or would have.
    Decided(Arc<Decision>),
    /// A path changed its state.
    State(PathIndex, PathState, StateReason),
    /// A path is new, or moved to another address.
    Moved(PathIndex, Endpoint),
    /// The round trip that was asked for, in nanoseconds.
    Pong(PathIndex, u64),
    /// One line of a trace.
    Trace(Arc<trace::Line>),
}
