//! ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.
//!
//! A peer of a kind that is not evaluated fails closed, as its definition asks for: its rule then accepts nothing,
//! or denies everything.

use crate::diagnostic::{Path, Report, quote};
use crate::fields::{self, Fields, Nulls, shared};
use crate::manifest::meta::Meta;
use crate::manifest::ports::{PORTS, port_number};
use crate::manifest::{cidr, selector};
use crate::model::{
    Action, ClusterPeer, ClusterPolicy, ClusterRule, ClusterSubject, PortMatch, Protocol, Selector,
    Source, Tier,
};
use crate::names;
use crate::node::{Entry, Node};

pub(super) fn read(
    object: &Fields<'_>,
    meta: Option<Meta>,
    source: Source,
    report: &mut Report,
) -> Option<ClusterPolicy> {
    let root = Path::Root;
    let path = root.field("spec");
    let Some(node) = object.get("spec") else {
        report.error(object.line_of("spec"), &path, "is missing");
        return None;
    };
    let known = ["tier", "priority", "subject", "ingress", "egress"];
    let spec = fields::fields(node, &known, Nulls::Refused, &path, report)?;
    let tier = required(&spec, "tier", &path, report).and_then(|node| {
        let path = path.field("tier");
        let words = [("Admin", Tier::Admin), ("Baseline", Tier::Baseline)];
        let text = fields::text(node, &path, report)?;
        fields::word(text, &words, node.line, &path, report)
    });
    let priority = required(&spec, "priority", &path, report)
        .and_then(|node| fields::number(node, PRIORITIES, &path.field("priority"), report));
    let subject = required(&spec, "subject", &path, report).and_then(|node| {
        let path = path.field("subject");
        let selected = Selected::read(node, &["namespaces", "pods"], &path, report)?;
        let (namespaces, pods) = selected.pods(&path, report)?;
        Some(ClusterSubject { namespaces, pods })
    });
    let ingress = rules(&spec, Direction::Ingress, &path, report);
    let egress = rules(&spec, Direction::Egress, &path, report);
    let meta = meta?;
    Some(ClusterPolicy {
        name: meta.name,
        source,
        mode: meta.mode,
        tier: tier?,
        priority: u16::try_from(priority?).ok()?,
        subject: subject?,
        ingress: ingress?,
        egress: egress?,
    })
}

fn required<'n>(
    map: &Fields<'n>,
    key: &str,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<&'n Node> {
    let found = map.get(key);
    // A null has its error already.
    if found.is_none() && !map.entries().iter().any(|entry| *entry.key == *key) {
        report.error(map.line, &path.field(key), "is missing");
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn list(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn peers(self) -> &'static str {
        match self {
            Self::Ingress => "from",
            Self::Egress => "to",
        }
    }
}

fn rules(
    spec: &Fields<'_>,
    direction: Direction,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<ClusterRule>> {
    let nodes = spec.list(direction.list(), path, report);
    let path = path.field(direction.list());
    check_count(
        nodes.len(),
        0,
        spec.line_of(direction.list()),
        &path,
        report,
    );
    let rules: Vec<Option<ClusterRule>> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| rule(node, direction, &path.index(at), report))
        .collect();
    rules.into_iter().collect()
}

/// Lists here hold at most 25 items, and some at least one.
fn check_count(count: usize, min: usize, line: u32, path: &Path<'_>, report: &mut Report) {
    if count < min {
        report.error(line, path, "needs at least one item");
    }
    if count > ITEMS_MAX {
        let message =
            format!("has {count} items and takes at most {ITEMS_MAX}: make several of it");
        report.error(line, path, message);
    }
}

fn rule(
    node: &Node,
    direction: Direction,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<ClusterRule> {
    let source = Source {
        file: report.file().clone(),
        line: node.line,
    };
    let peers_key = direction.peers();
    let known = ["name", "action", peers_key, "protocols"];
    let map = fields::fields(node, &known, Nulls::Refused, path, report)?;
    let name = map.text("name", path, report);
    if name.is_some_and(|name| name.chars().count() > RULE_NAME_LEN_MAX) {
        let message = format!("is longer than {RULE_NAME_LEN_MAX} characters");
        report.error(map.line_of("name"), &path.field("name"), message);
    }
    let action = required(&map, "action", path, report).and_then(|node| {
        let path = path.field("action");
        let words = [
            ("Accept", Action::Accept),
            ("Deny", Action::Deny),
            ("Pass", Action::Pass),
        ];
        let text = fields::text(node, &path, report)?;
        fields::word(text, &words, node.line, &path, report)
    });
    let peers = required(&map, peers_key, path, report)
        .and_then(|node| peers(node, direction, &path.field(peers_key), report));
    let ports = match map.get("protocols") {
        Some(node) => Some(protocols(node, &path.field("protocols"), report)?),
        None => None,
    };
    let (action, peers) = (action?, peers?);
    check_named_ports(&peers, ports.as_deref(), &map, path, report);
    let rule = ClusterRule {
        name: name.filter(|name| !name.is_empty()).map(shared),
        source,
        action,
        peers,
        ports,
    };
    Some(fail_closed(rule, path, report))
}

/// With a peer of an unknown kind an Accept matches nothing at all, and anything else denies everything.
fn fail_closed(rule: ClusterRule, path: &Path<'_>, report: &mut Report) -> ClusterRule {
    if !rule.peers.contains(&ClusterPeer::Unknown) {
        return rule;
    }
    let (action, effect) = match rule.action {
        Action::Accept => (Action::Accept, "accepts nothing"),
        Action::Deny | Action::Pass => (Action::Deny, "denies everything"),
    };
    let message = format!("has a peer of a kind that is not evaluated, and so {effect}");
    report.warn(rule.source.line, path, message);
    let ports = rule.ports.filter(|_| action == Action::Accept);
    ClusterRule {
        action,
        peers: vec![ClusterPeer::Unknown],
        ports,
        ..rule
    }
}

fn check_named_ports(
    peers: &[ClusterPeer],
    ports: Option<&[PortMatch]>,
    map: &Fields<'_>,
    path: &Path<'_>,
    report: &mut Report,
) {
    let has_named = ports
        .unwrap_or_default()
        .iter()
        .any(|port| matches!(port, PortMatch::Named { .. }));
    let has_networks = peers
        .iter()
        .any(|peer| matches!(peer, ClusterPeer::Networks(_)));
    if has_named && has_networks {
        let message =
            "has a destinationNamedPort beside networks, which name no ports: make two rules";
        report.error(map.line_of("protocols"), &path.field("protocols"), message);
    }
}

fn peers(
    node: &Node,
    direction: Direction,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<ClusterPeer>> {
    let items = fields::list(node, path, report)?;
    check_count(items.len(), 1, node.line, path, report);
    let peers: Vec<Option<ClusterPeer>> = items
        .iter()
        .enumerate()
        .map(|(at, node)| peer(node, direction, &path.index(at), report))
        .collect();
    peers.into_iter().collect()
}

fn peer(
    node: &Node,
    direction: Direction,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<ClusterPeer> {
    let selected = Selected::read(node, &[], path, report)?;
    let entry = selected.0;
    let is_egress_only = matches!(&*entry.key, "networks" | "nodes" | "domainNames");
    if is_egress_only && direction == Direction::Ingress {
        let message = "is for egress only: select what may come in by namespaces or pods";
        report.error(entry.line, &path.field(&entry.key), message);
        return None;
    }
    match &*entry.key {
        "namespaces" | "pods" => {
            let (namespaces, pods) = selected.pods(path, report)?;
            Some(ClusterPeer::Pods { namespaces, pods })
        }
        "networks" => networks(&entry.node, &path.field("networks"), report),
        key => {
            if let Some(near) = crate::suggest::nearest(key, &["namespaces", "pods", "networks"]) {
                let message = format!("is an unknown kind of peer: did you mean `{near}`?");
                report.error(entry.line, &path.field(key), message);
                return None;
            }
            let message = "is a kind of peer that is not evaluated: its rule fails closed";
            report.warn(entry.line, &path.field(key), message);
            Some(ClusterPeer::Unknown)
        }
    }
}

fn networks(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<ClusterPeer> {
    let items = fields::list(node, path, report)?;
    check_count(items.len(), 1, node.line, path, report);
    if items.len() > ITEMS_MAX {
        return None;
    }
    let mut texts: Vec<&str> = Vec::new();
    let mut blocks = Vec::new();
    for (at, node) in items.iter().enumerate() {
        let path = path.index(at);
        let Some(text) = fields::text(node, &path, report) else {
            continue;
        };
        if texts.contains(&text) {
            report.error(
                node.line,
                &path,
                format!("`{}` stands there twice", quote(text)),
            );
        }
        texts.push(text);
        blocks.extend(cidr::read(text, node.line, &path, report));
    }
    (blocks.len() == items.len()).then_some(ClusterPeer::Networks(blocks))
}

/// The one field of a mapping that may have only one.
struct Selected<'n>(&'n Entry);

impl<'n> Selected<'n> {
    /// `known` empty takes any field.
    fn read(node: &'n Node, known: &[&str], path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let map = match known {
            [] => fields::map(node, path, report)?,
            _ => fields::fields(node, known, Nulls::Refused, path, report)?,
        };
        match map.entries() {
            [entry] if known.is_empty() || known.contains(&&*entry.key) => {
                if known.is_empty() && entry.node.is_null() {
                    let path = path.field(&entry.key);
                    report.error(entry.line, &path, "is null: give a value or leave it out");
                    return None;
                }
                (!entry.node.is_null()).then_some(Self(entry))
            }
            // An unknown field has its error already.
            [_] => None,
            entries => {
                let count = entries.len();
                let message = format!("has {count} fields and takes exactly one kind");
                report.error(map.line, path, message);
                None
            }
        }
    }

    /// `namespaces` or `pods` as selectors for namespaces and pods.
    fn pods(&self, path: &Path<'_>, report: &mut Report) -> Option<(Selector, Selector)> {
        let Entry { key, node, .. } = self.0;
        let path = path.field(key);
        if **key == *"namespaces" {
            let namespaces = selector::read(node, Nulls::Refused, &path, report)?;
            return Some((namespaces, Selector::default()));
        }
        let known = ["namespaceSelector", "podSelector"];
        let map = fields::fields(node, &known, Nulls::Refused, &path, report)?;
        let namespaces = match map.get("namespaceSelector") {
            Some(node) => selector::read(
                node,
                Nulls::Refused,
                &path.field("namespaceSelector"),
                report,
            ),
            None => Some(Selector::default()),
        };
        let pods = required(&map, "podSelector", &path, report).and_then(|node| {
            selector::read(node, Nulls::Refused, &path.field("podSelector"), report)
        });
        Some((namespaces?, pods?))
    }
}

fn protocols(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Vec<PortMatch>> {
    let items = fields::list(node, path, report)?;
    check_count(items.len(), 1, node.line, path, report);
    let ports: Vec<Option<PortMatch>> = items
        .iter()
        .enumerate()
        .map(|(at, node)| protocol(node, &path.index(at), report))
        .collect();
    ports.into_iter().collect()
}

fn protocol(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<PortMatch> {
    let known = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let Entry { key, node, line } = Selected::read(node, &known, path, report)?.0;
    let path = path.field(key);
    let protocol = match &**key {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let name = fields::text(node, &path, report)?;
            if names::port_name(name).is_some() {
                let message = format!(
                    "`{}` is a name that no container port can have",
                    quote(name)
                );
                report.warn(*line, &path, message);
            }
            return Some(PortMatch::Named {
                protocol: None,
                name: shared(name),
            });
        }
    };
    let map = fields::fields(node, &["destinationPort"], Nulls::Refused, &path, report)?;
    let node = required(&map, "destinationPort", &path, report)?;
    let path = path.field("destinationPort");
    let Entry { key, node, .. } = Selected::read(node, &["number", "range"], &path, report)?.0;
    let path = path.field(key);
    let (first, last) = match &**key {
        "number" => {
            let number = port_number(node, &path, report)?;
            (number, number)
        }
        _ => range(node, &path, report)?,
    };
    Some(PortMatch::Range {
        protocol,
        first,
        last,
    })
}

fn range(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<(u16, u16)> {
    let map = fields::fields(node, &["start", "end"], Nulls::Refused, path, report)?;
    let end = |key: &str, report: &mut Report| {
        let node = required(&map, key, path, report)?;
        port_number(node, &path.field(key), report)
    };
    let (start, last) = (end("start", report), end("end", report));
    let (start, last) = (start?, last?);
    if start >= last {
        let message = format!("start {start} is not below end {last}: a single port is a number");
        report.error(map.line, path, message);
        return None;
    }
    debug_assert!(PORTS.contains(&i64::from(start)));
    Some((start, last))
}

const PRIORITIES: std::ops::RangeInclusive<i64> = 0..=1000;
const ITEMS_MAX: usize = 25;
const RULE_NAME_LEN_MAX: usize = 100;
