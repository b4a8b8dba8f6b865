//! A row: what one set of policies of one layer says about one direction of the pods that it selects.
//!
//! Subjects with the same policies share a row. It knows the peers by class and the addresses by the blocks that
//! its own rules name, each with a port set in which rules stand in their order. Folding happens at compile time.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::{ClassId, RuleId};
use crate::model::{Action, ClusterPolicy, Mode, NetworkPolicy, Protocol, Source, Text, Tier};
use crate::ports::{Interval, Lane, NO_RULE, Order, PortSet};
use crate::table::ClassFacts;

/// Who decides: the layers in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// ClusterNetworkPolicy of the Admin tier.
    Admin,
    /// NetworkPolicy: final for the pods that it selects.
    Network,
    /// ClusterNetworkPolicy of the Baseline tier.
    Baseline,
}

/// A policy of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyPolicy {
    /// A NetworkPolicy.
    Network(Arc<NetworkPolicy>),
    /// A ClusterNetworkPolicy.
    Cluster(Arc<ClusterPolicy>),
}

impl AnyPolicy {
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    pub fn name(&self) -> String {
        match self {
            Self::Network(it) => it.id.to_string(),
            Self::Cluster(it) => it.name.to_string(),
        }
    }

    /// How it counts.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Network(it) => it.mode,
            Self::Cluster(it) => it.mode,
        }
    }

    /// Who decides there.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Network(_) => Layer::Network,
            Self::Cluster(it) => match it.tier {
                Tier::Admin => Layer::Admin,
                Tier::Baseline => Layer::Baseline,
            },
        }
    }

    /// Where it stands.
    pub fn source(&self) -> &Source {
        match self {
            Self::Network(it) => &it.source,
            Self::Cluster(it) => &it.source,
        }
    }
}

/// A rule of a row, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRule {
    pub(crate) id: RuleId,
    pub(crate) action: Action,
    /// Index into [`Row::policies`].
    pub(crate) policy: u32,
    /// Index into that policy's rules of the row's direction.
    pub(crate) rule: u32,
}

/// A rule with a named port and a block: it meets the pods inside the block that name the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedBlock {
    pub(crate) first: u128,
    pub(crate) last: u128,
    pub(crate) is_v4: bool,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) name: Text,
    pub(crate) order: Order,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) layer: Layer,
    /// The port set of what matches no selector and no block.
    pub(crate) any: u32,
    /// The port set of pods whose class is not among the peers.
    pub(crate) any_pod: u32,
    /// Peer classes to port sets, open-addressed; [`ClassId::NONE`] is empty.
    pub(crate) peers: Box<[(ClassId, u32)]>,
    /// From each address on, a port set; empty where no rule names a block of that family.
    pub(crate) v4: Box<[(u32, u32)]>,
    /// The same for IPv6.
    pub(crate) v6: Box<[(u128, u32)]>,
    pub(crate) named_blocks: Box<[NamedBlock]>,
    pub(crate) sets: Box<[PortSet]>,
    pub(crate) intervals: Box<[Interval]>,
    pub(crate) rules: Box<[RowRule]>,
    /// Counts what no rule allows; in [`Layer::Network`] only.
    pub(crate) isolation: Option<RuleId>,
    /// The policies in their order; for explanations, and no part of what is judged.
    pub(crate) policies: Box<[AnyPolicy]>,
}

/// Where a class starts to look in a row's peers.
pub(crate) fn peer_slot(class: ClassId, len: usize) -> usize {
    let hash = class.0.wrapping_mul(0x9e37_79b1);
    ((u64::from(hash) * len as u64) >> 32) as usize
}

impl Row {
    /// The first rule that matches, if any. `peer` is its class, or [`ClassId::NONE`] where it is no pod, and
    /// `peer_facts` are looked at only where a block with a named port
    /// needs the ports that the pod names.
    #[inline]
    pub(crate) fn find(
        &self,
        peer: ClassId,
        peer_facts: Option<&ClassFacts>,
        addr: IpAddr,
        lane: Lane,
        port: u16,
    ) -> Option<&RowRule> {
        let block = self.block_set(addr);
        let order = if peer == ClassId::NONE {
            self.order(block.unwrap_or(self.any), lane, port)
        } else {
            let by_class = self.order(self.peer_set(peer), lane, port);
            let by_block = block.map_or(NO_RULE, |set| self.order(set, lane, port));
            let by_name = self.named_block_order(peer_facts, addr, lane, port);
            by_class.min(by_block).min(by_name)
        };
        self.rules.get(order as usize)
    }

    #[inline]
    fn order(&self, set: u32, lane: Lane, port: u16) -> Order {
        self.sets[set as usize].find(&self.intervals, lane, port)
    }

    /// The port set of a pod's class, blocks left out.
    #[inline]
    pub(crate) fn peer_set(&self, class: ClassId) -> u32 {
        if self.peers.is_empty() {
            return self.any_pod;
        }
        let mut at = peer_slot(class, self.peers.len());
        loop {
            match self.peers[at] {
                (it, set) if it == class => return set,
                (ClassId::NONE, _) => return self.any_pod,
                _ => {
                    at = if at + 1 == self.peers.len() {
                        0
                    } else {
                        at + 1
                    }
                }
            }
        }
    }

    /// The classes among the peers with their port sets, in no order.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (ClassId, u32)> {
        let slots = self.peers.iter().copied();
        slots.filter(|it| it.0 != ClassId::NONE)
    }

    /// The port set of an address by blocks; `None` where no rule names a block of its family.
    #[inline]
    pub(crate) fn block_set(&self, addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(v4) => locate(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => locate(&self.v6, v6.to_bits()),
        }
    }

    #[inline]
    fn named_block_order(
        &self,
        facts: Option<&ClassFacts>,
        addr: IpAddr,
        lane: Lane,
        port: u16,
    ) -> Order {
        let (false, Lane::Ports(protocol)) = (self.named_blocks.is_empty(), lane) else {
            return NO_RULE;
        };
        let ports = facts.map_or(&[][..], |it| &it.ports);
        let (is_v4, bits) = bits_of(addr);
        let matching = self.named_blocks.iter().filter(|it| {
            it.is_v4 == is_v4
                && (it.first..=it.last).contains(&bits)
                && it.protocol.is_none_or(|named| named == protocol)
                && ports.iter().any(|named| {
                    named.protocol == protocol && named.number == port && named.name == it.name
                })
        });
        matching.map(|it| it.order).min().unwrap_or(NO_RULE)
    }

    /// Whether both judge alike, whatever numbers their port sets have.
    pub(crate) fn judges_like(&self, other: &Self) -> bool {
        self.rules == other.rules
            && self.isolation == other.isolation
            && self.named_blocks == other.named_blocks
            && self.sets.len() == other.sets.len()
            && self.peers.len() == other.peers.len()
            && starts(&self.v4).eq(starts(&other.v4))
            && starts(&self.v6).eq(starts(&other.v6))
            && self.sets_are_like(other)
    }

    /// Whether every peer and every block has the same ports in both; no row holds a port set twice.
    fn sets_are_like(&self, other: &Self) -> bool {
        let pairs = self
            .listed()
            .map(|(class, set)| (set, other.peer_set(class)));
        let pairs = pairs.chain([(self.any, other.any), (self.any_pod, other.any_pod)]);
        let pairs = pairs.chain(sets(&self.v4).zip(sets(&other.v4)));
        let mut pairs = pairs.chain(sets(&self.v6).zip(sets(&other.v6)));
        let mut twins: Vec<Option<u32>> = vec![None; self.sets.len()];
        pairs.all(|(set, twin)| match twins[set as usize] {
            Some(known) => known == twin,
            None => {
                twins[set as usize] = Some(twin);
                let (a, b) = (self.sets[set as usize], other.sets[twin as usize]);
                a.is_like(&self.intervals, &b, &other.intervals)
            }
        })
    }

    /// Bytes used.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.peers)
            + size_of_val(&*self.v4)
            + size_of_val(&*self.v6)
            + size_of_val(&*self.named_blocks)
            + size_of_val(&*self.sets)
            + size_of_val(&*self.intervals)
            + size_of_val(&*self.rules)
            + size_of_val(&*self.policies)
    }
}

/// Family and bits of an address.
pub(crate) fn bits_of(addr: IpAddr) -> (bool, u128) {
    match addr {
        IpAddr::V4(v4) => (true, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    }
}

fn starts<K: Copy>(blocks: &[(K, u32)]) -> impl Iterator<Item = K> {
    blocks.iter().map(|it| it.0)
}

fn sets<K>(blocks: &[(K, u32)]) -> impl Iterator<Item = u32> {
    blocks.iter().map(|it| it.1)
}

#[inline]
fn locate<K: Ord + Copy>(starts: &[(K, u32)], addr: K) -> Option<u32> {
    // The first start is the family's lowest address.
    let after = starts.partition_point(|it| it.0 <= addr);
    Some(starts.get(after.checked_sub(1)?)?.1)
}
