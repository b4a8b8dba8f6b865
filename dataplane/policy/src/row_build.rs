//! Compiles a row from its policies, its subject's ports, and who matches which selector.

use std::collections::BTreeMap;

use patronus_packet::Prefix;

use crate::ids::{ClassId, Map, PeerId, RuleId};
use crate::model::{Action, PortMatch};
use crate::ports::{Interval, NamedPort, Order, Painter, PortSet};
use crate::row::{AnyPolicy, Layer, NamedBlock, Row, RowRule, bits_of, peer_slot};
use crate::verdict::Direction;

/// Whom an item of a rule's peers names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Every other end.
    Any,
    /// Every pod of the cluster.
    AnyPod,
    /// The pods that a selector selects.
    Peer(PeerId),
    /// Nobody by itself: the pods that have a port of a name which a rule for any end or any pod asks for, and
    /// which therefore cannot share the port set of pods in general.
    Named(PeerId),
    /// Addresses inside a block and in none of its exceptions.
    Block(Prefix, Vec<Prefix>),
}

/// A rule, its selectors resolved.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    pub(crate) id: RuleId,
    pub(crate) action: Action,
    pub(crate) targets: Vec<Target>,
    /// A rule that fails closed: every port, whatever it says.
    pub(crate) every_port: bool,
}

/// One direction of a policy.
#[derive(Clone, Debug)]
pub(crate) struct CompiledSide {
    pub(crate) isolation: RuleId,
    pub(crate) rules: Vec<CompiledRule>,
}

/// A policy, its selectors resolved.
#[derive(Clone, Debug)]
pub(crate) struct CompiledPolicy {
    pub(crate) policy: AnyPolicy,
    /// By direction; `None` where it says nothing there.
    pub(crate) sides: [Option<CompiledSide>; 2],
}

impl CompiledPolicy {
    fn side(&self, direction: Direction) -> Option<&CompiledSide> {
        self.sides[direction as usize].as_ref()
    }
}

/// What a row depends on apart from its policies.
pub(crate) trait Peers {
    /// The classes that a selector selects, sorted.
    fn members(&self, peer: PeerId) -> &[ClassId];
    /// The named ports of a class.
    fn ports(&self, class: ClassId) -> &[NamedPort];
}

/// The ports that a rule names; `None` is every port.
pub(crate) fn rule_ports(
    policy: &AnyPolicy,
    direction: Direction,
    rule: usize,
) -> Option<&[PortMatch]> {
    let ports = match (policy, direction) {
        (AnyPolicy::Network(it), Direction::Ingress) => &it.ingress.as_ref()?.get(rule)?.ports,
        (AnyPolicy::Network(it), Direction::Egress) => &it.egress.as_ref()?.get(rule)?.ports,
        (AnyPolicy::Cluster(it), Direction::Ingress) => &it.ingress.get(rule)?.ports,
        (AnyPolicy::Cluster(it), Direction::Egress) => &it.egress.get(rule)?.ports,
    };
    ports.as_deref()
}

/// Compiles the row of `policies`, which stand in their order and all have that direction.
pub(crate) fn build(
    layer: Layer,
    direction: Direction,
    policies: &[&CompiledPolicy],
    subject_ports: &[NamedPort],
    peers: &impl Peers,
) -> Row {
    let mut builder = Builder::with_rules(direction, policies, subject_ports);
    let mut sides = policies.iter().filter_map(|it| it.side(direction));
    let isolation = sides.next().map(|it| it.isolation);
    let any = builder.set_of(vec![], false, &[]);
    let any_pod = builder.set_of(vec![], true, &[]);
    let listed = builder.peer_sets(any_pod, None, peers);
    let (v4, v6) = (builder.block_sets(true), builder.block_sets(false));
    Row {
        layer,
        any,
        any_pod,
        peers: hashed(listed.len(), listed.iter().copied()),
        v4: v4.into_iter().map(|(at, set)| (at as u32, set)).collect(),
        v6: v6.into_boxed_slice(),
        named_blocks: builder.named_blocks(),
        sets: builder.sets.into(),
        intervals: builder.intervals.into(),
        rules: builder.rules.iter().map(|it| it.rule).collect(),
        isolation: isolation.filter(|_| layer == Layer::Network),
        policies: policies.iter().map(|it| it.policy.clone()).collect(),
    }
}

/// The port sets of a few classes in a row.
pub(crate) struct Columns {
    pub(crate) sets: Vec<PortSet>,
    pub(crate) intervals: Vec<Interval>,
    /// The classes whose port set is not that of pods in general, sorted.
    pub(crate) listed: Vec<(ClassId, u32)>,
}

/// What [`build`] says of `classes` alone, which are sorted, without a look at the others.
pub(crate) fn columns(
    direction: Direction,
    policies: &[&CompiledPolicy],
    subject_ports: &[NamedPort],
    classes: &[ClassId],
    peers: &impl Peers,
) -> Columns {
    let mut builder = Builder::with_rules(direction, policies, subject_ports);
    let any_pod = builder.set_of(vec![], true, &[]);
    let listed = builder.peer_sets(any_pod, Some(classes), peers);
    Columns {
        sets: builder.sets,
        intervals: builder.intervals,
        listed,
    }
}

struct Ordered<'a> {
    rule: RowRule,
    ports: Option<&'a [PortMatch]>,
}

struct BlockRange<'a> {
    cidr: Prefix,
    except: &'a [Prefix],
    order: Order,
}

struct Builder<'a> {
    direction: Direction,
    subject_ports: &'a [NamedPort],
    rules: Vec<Ordered<'a>>,
    any: Vec<Order>,
    any_pod: Vec<Order>,
    groups: BTreeMap<PeerId, Vec<Order>>,
    blocks: Vec<BlockRange<'a>>,
    /// Whether a rule's verdict depends on the ports that the peer names.
    names_peer_ports: bool,
    memo: Map<(Vec<Order>, Vec<NamedPort>), u32>,
    /// Sets as if each began at the first interval: other rules and ports may come to the same.
    contents: Map<(PortSet, Vec<Interval>), u32>,
    sets: Vec<PortSet>,
    intervals: Vec<Interval>,
}

impl<'a> Builder<'a> {
    fn with_rules(
        direction: Direction,
        policies: &[&'a CompiledPolicy],
        subject_ports: &'a [NamedPort],
    ) -> Self {
        let mut builder = Self {
            direction,
            subject_ports,
            rules: Vec::new(),
            any: Vec::new(),
            any_pod: Vec::new(),
            groups: BTreeMap::new(),
            blocks: Vec::new(),
            names_peer_ports: false,
            memo: Map::default(),
            contents: Map::default(),
            sets: Vec::new(),
            intervals: Vec::new(),
        };
        for (at, compiled) in policies.iter().enumerate() {
            let rules = compiled.side(direction).map_or(&[][..], |it| &it.rules);
            for (number, rule) in rules.iter().enumerate() {
                builder.add_rule(at, number, rule, &compiled.policy);
            }
        }
        builder
    }

    fn add_rule(
        &mut self,
        policy: usize,
        number: usize,
        rule: &'a CompiledRule,
        of: &'a AnyPolicy,
    ) {
        let order = self.rules.len() as Order;
        let ports = rule_ports(of, self.direction, number).filter(|_| !rule.every_port);
        self.rules.push(Ordered {
            rule: RowRule {
                id: rule.id,
                action: rule.action,
                policy: policy as u32,
                rule: number as u32,
            },
            ports,
        });
        self.names_peer_ports |= self.direction == Direction::Egress && has_name(ports);
        for target in &rule.targets {
            match target {
                Target::Any => self.any.push(order),
                Target::AnyPod => self.any_pod.push(order),
                Target::Peer(peer) => self.groups.entry(*peer).or_default().push(order),
                Target::Named(peer) => {
                    self.groups.entry(*peer).or_default();
                }
                Target::Block(cidr, except) => self.blocks.push(BlockRange {
                    cidr: *cidr,
                    except,
                    order,
                }),
            }
        }
    }

    /// The port set of those rules and the ones for any end; `pod` adds the ones for any pod.
    fn set_of(&mut self, mut orders: Vec<Order>, pod: bool, peer_ports: &[NamedPort]) -> u32 {
        orders.extend(&self.any);
        if pod {
            orders.extend(&self.any_pod);
        }
        orders.sort_unstable();
        orders.dedup();
        let named = match self.direction {
            Direction::Ingress => self.subject_ports,
            Direction::Egress if self.names_peer_ports => peer_ports,
            Direction::Egress => &[],
        };
        let key = match self.direction {
            Direction::Ingress => (orders, Vec::new()),
            Direction::Egress => (orders, named.to_vec()),
        };
        if let Some(set) = self.memo.get(&key) {
            return *set;
        }
        let mut painter = Painter::default();
        for order in &key.0 {
            painter.add(*order, self.rules[*order as usize].ports, named);
        }
        let painted = painter.finish(&mut self.intervals);
        let content = (painted.moved_to(0), self.intervals[painted.span()].to_vec());
        let set = match self.contents.get(&content) {
            Some(set) => {
                self.intervals.truncate(painted.span().start);
                *set
            }
            None => {
                let set = self.sets.len() as u32;
                self.sets.push(painted);
                self.contents.insert(content, set);
                set
            }
        };
        self.memo.insert(key, set);
        set
    }

    /// The classes whose port set is not that of any pod, sorted; of all classes, or of `only` those.
    fn peer_sets(
        &mut self,
        any_pod: u32,
        only: Option<&[ClassId]>,
        peers: &impl Peers,
    ) -> Vec<(ClassId, u32)> {
        let groups: Vec<(PeerId, Vec<Order>)> =
            std::mem::take(&mut self.groups).into_iter().collect();
        let mut pairs: Vec<(ClassId, u32)> = Vec::new();
        for (at, (peer, _)) in groups.iter().enumerate() {
            let members = peers.members(*peer);
            match only {
                None => pairs.extend(members.iter().map(|class| (*class, at as u32))),
                Some(classes) => {
                    let selected = classes
                        .iter()
                        .filter(|it| members.binary_search(it).is_ok());
                    pairs.extend(selected.map(|class| (*class, at as u32)));
                }
            }
        }
        if groups.len() > 1 {
            pairs.sort_unstable();
        }
        let mut listed = Vec::new();
        // Classes of one namespace mostly match the same selectors, and come one after the other.
        let mut last: Option<Last<'_>> = None;
        for run in pairs.chunk_by(|a, b| a.0 == b.0) {
            let class = run[0].0;
            let ports = if self.names_peer_ports {
                peers.ports(class)
            } else {
                &[]
            };
            let set = match last {
                Some((before, with, set)) if with == ports && same_groups(before, run) => set,
                _ => {
                    let orders = run.iter().flat_map(|it| &groups[it.1 as usize].1);
                    let orders = orders.copied().collect();
                    self.set_of(orders, true, ports)
                }
            };
            last = Some((run, ports, set));
            if set != any_pod {
                listed.push((class, set));
            }
        }
        listed
    }

    /// From each address on, the port set of the blocks that hold it.
    fn block_sets(&mut self, v4: bool) -> Vec<(u128, u32)> {
        let mut events: Vec<(u128, bool, Order)> = Vec::new();
        let last_addr = if v4 { u128::from(u32::MAX) } else { u128::MAX };
        for block in self
            .blocks
            .iter()
            .filter(|it| it.cidr.addr().is_ipv4() == v4)
        {
            for (first, last) in block.ranges() {
                events.push((first, true, block.order));
                if last < last_addr {
                    events.push((last + 1, false, block.order));
                }
            }
        }
        if events.is_empty() {
            return Vec::new();
        }
        events.sort_unstable();
        let mut starts: Vec<(u128, u32)> = vec![(0, self.set_of(Vec::new(), false, &[]))];
        let mut active: BTreeMap<Order, u32> = BTreeMap::new();
        for run in events.chunk_by(|a, b| a.0 == b.0) {
            for (_, starts, order) in run {
                let count = active.entry(*order).or_default();
                // Within a run the ends come first, so a count may be negative for a moment.
                *count = if *starts {
                    count.wrapping_add(1)
                } else {
                    count.wrapping_sub(1)
                };
            }
            active.retain(|_, count| *count != 0);
            let set = self.set_of(active.keys().copied().collect(), false, &[]);
            match starts.last_mut() {
                Some((at, last)) if *at == run[0].0 => *last = set,
                Some((_, last)) if *last == set => {}
                _ => starts.push((run[0].0, set)),
            }
        }
        starts
    }

    fn named_blocks(&self) -> Box<[NamedBlock]> {
        let mut out = Vec::new();
        if self.direction == Direction::Ingress {
            return out.into();
        }
        for block in &self.blocks {
            let ports = self.rules[block.order as usize].ports.unwrap_or(&[]);
            for port in ports {
                let PortMatch::Named { protocol, name } = port else {
                    continue;
                };
                out.extend(block.ranges().into_iter().map(|(first, last)| NamedBlock {
                    first,
                    last,
                    is_v4: block.cidr.addr().is_ipv4(),
                    protocol: *protocol,
                    name: name.clone(),
                    order: block.order,
                }));
            }
        }
        out.into()
    }
}

impl BlockRange<'_> {
    /// The block without its exceptions, as ranges in order.
    fn ranges(&self) -> Vec<(u128, u128)> {
        let (first, last) = range(&self.cidr);
        let family = self.cidr.addr().is_ipv4();
        let same = self
            .except
            .iter()
            .filter(|it| it.addr().is_ipv4() == family);
        let mut holes: Vec<(u128, u128)> = same.map(range).collect();
        holes.sort_unstable();
        let mut out = Vec::new();
        let mut from = Some(first);
        for (hole_first, hole_last) in holes {
            let Some(at) = from.filter(|at| *at <= last) else {
                break;
            };
            if hole_last < at {
                continue;
            }
            if hole_first > at {
                out.push((at, last.min(hole_first - 1)));
            }
            from = hole_last.checked_add(1);
        }
        out.extend(from.filter(|at| *at <= last).map(|at| (at, last)));
        out
    }
}

/// The first and the last address of a prefix.
pub(crate) fn range(prefix: &Prefix) -> (u128, u128) {
    let (v4, first) = bits_of(prefix.network().addr());
    let host_bits = if v4 { 32 } else { 128 } - u32::from(prefix.prefix_len());
    let hosts = 1u128.checked_shl(host_bits).map_or(u128::MAX, |it| it - 1);
    (first, first | hosts)
}

fn has_name(ports: Option<&[PortMatch]>) -> bool {
    let mut ports = ports.unwrap_or(&[]).iter();
    ports.any(|it| matches!(it, PortMatch::Named { .. }))
}

/// The groups and ports of the class before, and the port set that they made.
type Last<'a> = (&'a [(ClassId, u32)], &'a [NamedPort], u32);

fn same_groups(a: &[(ClassId, u32)], b: &[(ClassId, u32)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.1 == b.1)
}

/// An open-addressed table at two thirds, so that a class that is not there is found missing soon.
pub(crate) fn hashed(
    count: usize,
    listed: impl Iterator<Item = (ClassId, u32)>,
) -> Box<[(ClassId, u32)]> {
    if count == 0 {
        return Box::default();
    }
    let len = count * 3 / 2 + 1;
    let mut table = vec![(ClassId::NONE, 0); len];
    for entry in listed {
        let mut at = peer_slot(entry.0, len);
        while table[at].0 != ClassId::NONE {
            at = if at + 1 == len { 0 } else { at + 1 };
        }
        table[at] = entry;
    }
    table.into()
}
