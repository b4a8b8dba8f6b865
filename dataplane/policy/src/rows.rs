//! The tables as plain data, for a twin that judges elsewhere, as in eBPF maps.
//!
//! ```text
//! addresses   HASH addr -> class, pod, home node, whose node's address; or "ask user space"
//! subjects    HASH (class, direction, layer) -> row; absent = this layer does not speak for this class
//! rows        ARRAY row -> isolation counter, "ask user space"
//! peers       HASH (row, peer) -> set; peer is a class, any pod, or anyone
//! blocks      LPM (row, prefix) -> set; the row's number stands before the address in the key
//! ports       HASH (set, protocol) -> intervals with rule order, counter and action
//! ```
//!
//! To judge a direction: both ends one pod, or the subject's home equal to the peer's `host_of`: allowed. Else for each
//! layer in order with a row: take the lowest `order` of two lookups, that of the peer (its class, else any pod,
//! else, where it is no pod, anyone) and, where the row has blocks of the family, that of the longest prefix. A peer
//! that is no pod takes the block's set alone where there is one. Accept and Deny end the direction, Pass and
//! nothing go on to the next layer, except that nothing in the Network layer is a denial.
//!
//! Blocks belong to rows and not to one trie of all blocks' atoms: a row has at most two pieces per block that it
//! names itself, where shared atoms would multiply each wide block by all the narrow ones of the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use patronus_packet::Prefix;

use crate::addresses::Endpoint;
use crate::ids::{Map, NodeId, PodId, RuleId};
use crate::model::{Action, Protocol};
use crate::ports::{Lane, NO_RULE, PROTOCOLS, PortSet};
use crate::row::{Layer, Row};
use crate::table::{PolicyTable, Rows as ClassRows};
use crate::verdict::{DIRECTIONS, Direction};

/// See the module's text. Audited policies are left out.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// What is known of addresses.
    pub addresses: Vec<Address>,
    /// Which rows protect which class.
    pub subjects: Vec<Subject>,
    /// The rows, by their number.
    pub rows: Vec<RowHead>,
    /// The port sets of peers.
    pub peers: Vec<PeerSet>,
    /// The port sets of addresses.
    pub blocks: Vec<BlockSet>,
    /// How many port sets there are; one without entries matches nothing.
    pub sets: u32,
    /// The port sets' content.
    pub ports: Vec<PortEntry>,
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
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
    /// Several claim it: connections with it are judged in user space.
    pub ask: bool,
}

/// The row that protects a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The class.
    pub class: u32,
    /// The direction.
    pub direction: Direction,
    /// The layer.
    pub layer: Layer,
    /// The row.
    pub row: u32,
}

/// A row without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHead {
    /// Where to count what no rule of the Network layer allows.
    pub isolation: Option<RuleId>,
    /// It names ports by name inside blocks: pods that name ports are judged in user space.
    pub ask: bool,
}

/// Whom an entry of [`Rows::peers`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerOf {
    /// A class of pods.
    Class(u32),
    /// Pods of classes that are not listed.
    AnyPod,
    /// What is no pod.
    Anyone,
}

/// The port set of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSet {
    /// The row.
    pub row: u32,
    /// The peer.
    pub peer: PeerOf,
    /// The set.
    pub set: u32,
}

/// The port set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSet {
    /// The row.
    pub row: u32,
    /// The addresses.
    pub prefix: Prefix,
    /// The set.
    pub set: u32,
}

/// One interval of a port set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The set.
    pub set: u32,
    /// The protocol; `None` is every protocol without ports.
    pub protocol: Option<Protocol>,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The place of the rule in its row: the lowest of several lookups counts.
    pub order: u32,
    /// What to do.
    pub action: Action,
    /// Where to count it.
    pub rule: RuleId,
}

impl PolicyTable {
    /// The tables as plain data.
    pub fn rows(&self) -> Rows {
        let mut out = Rows::default();
        for (addr, endpoint) in self.addresses.iter() {
            out.addresses.push(address(addr, endpoint));
        }
        out.addresses.sort_by_key(|it| it.addr);
        let mut known: Map<*const Row, u32> = Map::default();
        for (class, entry) in self.classes.iter().enumerate() {
            if let Some(entry) = entry {
                out.add_class(class as u32, &entry.rows, &mut known);
            }
        }
        out
    }
}

impl Rows {
    fn add_class(&mut self, class: u32, rows: &ClassRows, known: &mut Map<*const Row, u32>) {
        for direction in DIRECTIONS {
            for row in rows[direction as usize].iter().flatten() {
                let number = *known
                    .entry(Arc::as_ptr(row))
                    .or_insert_with(|| self.add_row(row));
                self.subjects.push(Subject {
                    class,
                    direction,
                    layer: row.layer,
                    row: number,
                });
            }
        }
    }

    fn add_row(&mut self, row: &Row) -> u32 {
        let number = self.rows.len() as u32;
        self.rows.push(RowHead {
            isolation: row.isolation,
            ask: !row.named_blocks.is_empty(),
        });
        // Sets are numbered through the whole export.
        let base = self.sets;
        self.sets += row.sets.len() as u32;
        for (at, set) in row.sets.iter().enumerate() {
            self.add_set(base + at as u32, set, row);
        }
        let mut add = |peer, set| {
            let set = base + set;
            self.peers.push(PeerSet {
                row: number,
                peer,
                set,
            });
        };
        add(PeerOf::Anyone, row.any);
        add(PeerOf::AnyPod, row.any_pod);
        for (class, set) in row.listed() {
            add(PeerOf::Class(class.0), set);
        }
        for (at, (start, set)) in row.v4.iter().enumerate() {
            let next = row.v4.get(at + 1).map_or(u32::MAX, |it| it.0 - 1);
            self.add_blocks(number, base + set, (*start).into(), next.into(), 32);
        }
        for (at, (start, set)) in row.v6.iter().enumerate() {
            let next = row.v6.get(at + 1).map_or(u128::MAX, |it| it.0 - 1);
            self.add_blocks(number, base + set, *start, next, 128);
        }
        number
    }

    fn add_set(&mut self, number: u32, set: &PortSet, row: &Row) {
        let mut add = |protocol, first, last, order: u32| {
            let Some(rule) = row.rules.get(order as usize) else {
                return;
            };
            self.ports.push(PortEntry {
                set: number,
                protocol,
                first,
                last,
                order,
                action: rule.action,
                rule: rule.id,
            });
        };
        for protocol in PROTOCOLS {
            for it in set.of(protocol, &row.intervals) {
                add(Some(protocol), it.first, it.last, it.order);
            }
        }
        let other = set.find(&row.intervals, Lane::Other, 0);
        if other != NO_RULE {
            add(None, 0, u16::MAX, other);
        }
    }

    /// Cuts a range of addresses into prefixes.
    fn add_blocks(&mut self, row: u32, set: u32, first: u128, last: u128, bits: u32) {
        let mut at = Some(first);
        while let Some(start) = at.filter(|it| *it <= last) {
            let mut host = start.trailing_zeros().min(bits);
            while host > 0 && last_of(start, host) > last {
                host -= 1;
            }
            let addr = match bits {
                32 => IpAddr::V4((start as u32).into()),
                _ => IpAddr::V6(start.into()),
            };
            if let Some(prefix) = Prefix::new(addr, (bits - host) as u8) {
                self.blocks.push(BlockSet { row, prefix, set });
            }
            at = last_of(start, host).checked_add(1);
        }
    }
}

fn last_of(start: u128, host_bits: u32) -> u128 {
    let hosts = 1u128.checked_shl(host_bits);
    start | hosts.map_or(u128::MAX, |it| it - 1)
}

fn address(addr: IpAddr, endpoint: Endpoint) -> Address {
    let ask = endpoint.class == Endpoint::CONTESTED;
    let class = (endpoint.is_pod() && !ask).then_some(endpoint.class.0);
    Address {
        addr,
        class,
        pod: (endpoint.pod != PodId::NONE).then_some(endpoint.pod.0),
        home: (endpoint.home != NodeId::NONE).then_some(endpoint.home.0),
        host_of: (endpoint.host_of != NodeId::NONE).then_some(endpoint.host_of.0),
        ask,
    }
}
