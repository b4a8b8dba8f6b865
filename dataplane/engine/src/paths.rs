//! What control and workers say to each other about paths: classes and their matches down, standing and decisions up.

use std::collections::HashMap;
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
    /// The pods that rules ask for.
    pub pods: PodSets,
}

/// Pods that classes name by their labels: their addresses, each with the classes it is named by. Control matches labels
/// when manifests or classes change; a worker looks up two addresses when it classifies a flow, and never per packet of
/// one. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSets {
    by_addr: Arc<HashMap<IpAddr, u8>>,
}

impl PodSets {
    /// The sets with these members; an address may come more than once.
    pub fn new(members: impl IntoIterator<Item = (IpAddr, ClassId)>) -> Self {
        let mut by_addr: HashMap<IpAddr, u8> = HashMap::new();
        for (addr, class) in members {
            debug_assert!(class.as_usize() < CLASSES_MAX);
            *by_addr.entry(addr).or_default() |= bit(class);
        }
        Self {
            by_addr: Arc::new(by_addr),
        }
    }

    /// Whether a class names the pod of that address.
    pub fn has(&self, class: ClassId, addr: IpAddr) -> bool {
        self.of(addr) & bit(class) != 0
    }

    /// Addresses that a class names.
    pub fn count(&self, class: ClassId) -> usize {
        let bits = self.by_addr.values();
        bits.filter(|bits| **bits & bit(class) != 0).count()
    }

    fn of(&self, addr: IpAddr) -> u8 {
        self.by_addr.get(&addr).copied().unwrap_or(0)
    }

    /// The classes that name either end, by bit.
    fn of_ends(&self, key: &FlowKey) -> u8 {
        match self.by_addr.is_empty() {
            true => 0,
            false => self.of(key.src) | self.of(key.dst),
        }
    }
}

fn bit(class: ClassId) -> u8 {
    1 << (class.as_usize() % CLASSES_MAX)
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
    /// Whether one of the ends is a pod that the class names by its labels, on whichever side.
    pub pods: bool,
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
        let rule = self.rule_of(key, opened_by, dscp);
        rule.map_or(self.default, |rule| rule.class)
    }

    /// The rule that names the class of a flow; `None` where none does.
    pub fn rule_of(&self, key: &FlowKey, opened_by: OpenedBy, dscp: u8) -> Option<&ClassRule> {
        let named_by = self.pods.of_ends(key);
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
                && (!rule.pods || named_by & bit(rule.class) != 0)
        };
        self.rules.iter().find(fits)
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

// A byte has a bit for every class.
const _: () = assert!(CLASSES_MAX <= 8);
