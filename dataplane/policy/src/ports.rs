//! Port sets: per protocol, disjoint intervals of ports with the first rule that matches there.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::model::{PortMatch, Protocol, Text};

/// The number of a rule inside its row: lower is asked first.
pub(crate) type Order = u32;
/// No rule matches.
pub(crate) const NO_RULE: Order = u32::MAX;
/// Intervals up to which a plain scan beats a binary search.
const SCAN_LEN_MAX: usize = 8;

/// A port that a pod names and some policy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamedPort {
    pub(crate) name: Text,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// What of a packet's protocol and port policies can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A protocol with ports.
    Ports(Protocol),
    /// Any other: follows rules for every port of every protocol.
    Other,
}

impl Lane {
    /// The lane of an IP protocol number.
    pub(crate) fn of(protocol: u8) -> Self {
        match protocol {
            6 => Self::Ports(Protocol::Tcp),
            17 => Self::Ports(Protocol::Udp),
            132 => Self::Ports(Protocol::Sctp),
            _ => Self::Other,
        }
    }
}

/// All protocols with ports, in the order in which port sets keep them.
pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Ports `first` to `last` meet this rule first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Interval {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) order: Order,
}

/// Where a port set's intervals lie in its row, protocol by protocol, and the rule for other protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PortSet {
    pub(crate) at: [u32; 4],
    pub(crate) other: Order,
}

impl PortSet {
    /// The intervals of a protocol.
    pub(crate) fn of<'a>(&self, protocol: Protocol, all: &'a [Interval]) -> &'a [Interval] {
        let lane = protocol as usize;
        &all[self.at[lane] as usize..self.at[lane + 1] as usize]
    }

    /// Where all of its intervals lie.
    pub(crate) fn span(&self) -> Range<usize> {
        self.at[0] as usize..self.at[3] as usize
    }

    /// The same set where its intervals begin elsewhere.
    pub(crate) fn moved_to(&self, begin: usize) -> Self {
        let shift = |at: u32| at - self.at[0] + begin as u32;
        Self {
            at: self.at.map(shift),
            other: self.other,
        }
    }

    /// Whether both hold the same rules on the same ports; each comes with its row's intervals.
    pub(crate) fn is_like(&self, all: &[Interval], other: &Self, others: &[Interval]) -> bool {
        self.moved_to(0) == other.moved_to(0) && all[self.span()] == others[other.span()]
    }

    /// The first rule that matches, or [`NO_RULE`].
    #[inline]
    pub(crate) fn find(&self, all: &[Interval], lane: Lane, port: u16) -> Order {
        let Lane::Ports(protocol) = lane else {
            return self.other;
        };
        let list = self.of(protocol, all);
        let at = if list.len() <= SCAN_LEN_MAX {
            list.iter().position(|it| port <= it.last)
        } else {
            Some(list.partition_point(|it| it.last < port))
        };
        match at.and_then(|at| list.get(at)) {
            Some(it) if it.first <= port => it.order,
            _ => NO_RULE,
        }
    }
}

/// Gathers the rules of one port set, in any order.
#[derive(Default)]
pub(crate) struct Painter {
    ranges: [Vec<Interval>; 3],
    other: Option<Order>,
}

impl Painter {
    /// Adds a rule with its ports; names are resolved on `named`, the ports of the destination.
    pub(crate) fn add(&mut self, order: Order, ports: Option<&[PortMatch]>, named: &[NamedPort]) {
        let Some(ports) = ports else {
            for protocol in PROTOCOLS {
                self.range(protocol, 0, u16::MAX, order);
            }
            self.other = Some(self.other.map_or(order, |it| it.min(order)));
            return;
        };
        for port in ports {
            match port {
                PortMatch::Any(protocol) => self.range(*protocol, 0, u16::MAX, order),
                PortMatch::Range {
                    protocol,
                    first,
                    last,
                } => self.range(*protocol, *first, *last, order),
                PortMatch::Named { protocol, name } => {
                    for it in resolve(*protocol, name, named) {
                        self.range(it.protocol, it.number, it.number, order);
                    }
                }
            }
        }
    }

    fn range(&mut self, protocol: Protocol, first: u16, last: u16, order: Order) {
        if first <= last {
            self.ranges[protocol as usize].push(Interval { first, last, order });
        }
    }

    /// Appends the disjoint intervals to `all` and says where they lie.
    pub(crate) fn finish(self, all: &mut Vec<Interval>) -> PortSet {
        let mut at = [all.len() as u32; 4];
        for (lane, ranges) in self.ranges.into_iter().enumerate() {
            flatten(ranges, all);
            at[lane + 1] = all.len() as u32;
        }
        PortSet {
            at,
            other: self.other.unwrap_or(NO_RULE),
        }
    }
}

/// The ports of a destination that a name means: all of them, where several containers share it.
pub(crate) fn resolve<'a>(
    protocol: Option<Protocol>,
    name: &'a str,
    named: &'a [NamedPort],
) -> impl Iterator<Item = &'a NamedPort> {
    named
        .iter()
        .filter(move |it| protocol.is_none_or(|p| p == it.protocol) && *it.name == *name)
}

/// Cuts overlapping ranges where they begin and end; each piece keeps its lowest order.
fn flatten(ranges: Vec<Interval>, out: &mut Vec<Interval>) {
    if ranges.len() <= 1 {
        out.extend(ranges);
        return;
    }
    let mut events: Vec<(u32, bool, Order)> = Vec::with_capacity(ranges.len() * 2);
    for it in ranges {
        events.push((u32::from(it.first), true, it.order));
        events.push((u32::from(it.last) + 1, false, it.order));
    }
    events.sort_unstable();
    let begin = out.len();
    let mut active: BTreeMap<Order, u32> = BTreeMap::new();
    let mut from = 0;
    for (at, starts, order) in events {
        if let Some((&first_rule, _)) = active.first_key_value().filter(|_| at > from) {
            push_piece(out, begin, from, at - 1, first_rule);
        }
        from = at;
        if starts {
            *active.entry(order).or_default() += 1;
        } else if let Some(count) = active.get_mut(&order) {
            *count -= 1;
            if *count == 0 {
                active.remove(&order);
            }
        }
    }
}

fn push_piece(out: &mut Vec<Interval>, begin: usize, first: u32, last: u32, order: Order) {
    let (first, last) = (first as u16, last as u16);
    if let Some(before) = out[begin..].last_mut()
        && before.order == order
        && before.last.checked_add(1) == Some(first)
    {
        before.last = last;
        return;
    }
    out.push(Interval { first, last, order });
}
