//! Policy's rows as the LAN program is given them: plain data, and the numbers that policy gave out.
//!
//! Who makes them from a compiled policy has to keep their meaning, which is that of `patronus_policy::rows`: see
//! [`Twin`](super::Twin) for it in a few lines.

use std::net::IpAddr;

/// One policy, and what else the decision to drop depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanTables {
    /// The policy's edition, to show.
    pub generation: u64,
    /// Flows that were allowed once go on, whatever these rows say: only packets that open a connection are dropped.
    pub keep_established: bool,
    /// Whoever sent a denied packet is to be told, which only user space can: nothing is dropped.
    pub answers_denials: bool,
    /// What is known of addresses; each at most once.
    pub addresses: Vec<LanAddress>,
    /// Which rows protect which class.
    pub subjects: Vec<LanSubject>,
    /// The rows, by their number.
    pub rows: Vec<LanRow>,
    /// The port sets of peers.
    pub peers: Vec<LanPeer>,
    /// The port sets of addresses. Those of one row and family cover all addresses of the family, or there are none.
    pub blocks: Vec<LanBlock>,
    /// How many port sets there are.
    pub sets: u32,
    /// The content of the port sets.
    pub ports: Vec<LanPort>,
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanAddress {
    /// The address.
    pub addr: IpAddr,
    /// The class of the pod that has it; `None` is no pod that policies know.
    pub class: Option<u32>,
    /// That pod.
    pub pod: Option<u32>,
    /// The node on which it lives.
    pub home: Option<u32>,
    /// The node whose own address this is.
    pub host_of: Option<u32>,
    /// User space alone can tell whose it is.
    pub ask: bool,
}

/// A direction of a connection, as seen from the pod that is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LanDirection {
    /// Into the destination.
    Ingress,
    /// Out of the source.
    Egress,
}

/// Who decides: the layers in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LanLayer {
    /// Before all others.
    Admin,
    /// Final where there is a row: what none of its rules allows is denied.
    Network,
    /// After all others.
    Baseline,
}

/// The row that protects a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanSubject {
    /// The class.
    pub class: u32,
    /// The direction.
    pub direction: LanDirection,
    /// The layer.
    pub layer: LanLayer,
    /// The row.
    pub row: u32,
}

/// A row without its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanRow {
    /// The rule under which to count what no rule of the Network layer allows; 0 is none.
    pub isolation: u32,
    /// It names ports by name inside blocks: what it says of pods is known to user space only.
    pub ask: bool,
}

/// Whom a [`LanPeer`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LanPeerOf {
    /// A class of pods.
    Class(u32),
    /// Pods of classes that are not listed.
    AnyPod,
    /// What is no pod, where the row has no block of the address's family.
    Anyone,
}

/// The port set of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanPeer {
    /// The row.
    pub row: u32,
    /// The peer.
    pub peer: LanPeerOf,
    /// The set.
    pub set: u32,
}

/// The port set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanBlock {
    /// The row.
    pub row: u32,
    /// The first address.
    pub addr: IpAddr,
    /// How many leading bits all of them share.
    pub prefix_len: u8,
    /// The set.
    pub set: u32,
}

/// A protocol that rules can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LanProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Every other, without ports.
    Other,
}

impl LanProtocol {
    /// Of an IP protocol number.
    pub fn of(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            _ => Self::Other,
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanAction {
    /// The direction allows.
    Accept,
    /// The direction denies.
    Deny,
    /// The next layer is asked.
    Pass,
}

/// One interval of a port set. Those of one set and protocol do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanPort {
    /// The set.
    pub set: u32,
    /// The protocol.
    pub protocol: LanProtocol,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The place of the rule in its row: the lowest of several look-ups counts.
    pub order: u32,
    /// What to do.
    pub action: LanAction,
    /// Under which rule to count it; 0 is none.
    pub rule: u32,
}
