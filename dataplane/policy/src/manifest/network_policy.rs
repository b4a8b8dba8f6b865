//! NetworkPolicy of `networking.k8s.io/v1`.

use crate::diagnostic::{Path, Report};
use crate::fields::{self, Fields, Nulls};
use crate::manifest::meta::{Meta, priority_message};
use crate::manifest::{Kind, cidr, ports, selector};
use crate::model::{NetworkPolicy, Peer, Rule, Selector, Source};
use crate::node::{Node, Value};

/// Which directions a policy isolates.
#[derive(Clone, Copy, Debug, Default)]
struct Directions {
    ingress: bool,
    egress: bool,
}

pub(super) fn read(
    object: &Fields<'_>,
    meta: Option<Meta>,
    source: Source,
    report: &mut Report,
) -> Option<NetworkPolicy> {
    let root = Path::Root;
    let path = root.field("spec");
    let Some(node) = object.get("spec") else {
        let meta = meta?;
        return Some(NetworkPolicy {
            id: meta.id(),
            source,
            mode: meta.mode,
            pods: Selector::default(),
            ingress: Some(Vec::new()),
            egress: None,
        });
    };
    let spec = spec_fields(node, &path, report)?;
    let pods = match spec.get("podSelector") {
        Some(node) => selector::read(node, Nulls::Absent, &path.field("podSelector"), report),
        None => Some(Selector::default()),
    };
    let ingress = rules(&spec, &INGRESS, &path, report);
    let egress = rules(&spec, &EGRESS, &path, report);
    let directions = policy_types(&spec, !egress.is_empty(), &path, report);
    let inert = [
        (INGRESS.list, directions.ingress || ingress.is_empty()),
        (EGRESS.list, directions.egress || egress.is_empty()),
    ];
    for (list, counts) in inert {
        if !counts && report.object_errors() == 0 {
            let message = "means nothing, since policyTypes does not name this direction";
            report.warn(spec.line_of(list), &path.field(list), message);
        }
    }
    let meta = meta?;
    Some(NetworkPolicy {
        id: meta.id(),
        source,
        mode: meta.mode,
        pods: pods?,
        ingress: directions.ingress.then_some(ingress),
        egress: directions.egress.then_some(egress),
    })
}

fn spec_fields<'n>(node: &'n Node, path: &Path<'_>, report: &mut Report) -> Option<Fields<'n>> {
    let known = ["podSelector", "policyTypes", "ingress", "egress"];
    let map = fields::map(node, path, report)?;
    for entry in map.entries().iter().take(SPEC_FIELDS_MAX) {
        match &*entry.key {
            "priority" | "tier" | "order" => {
                let message = priority_message(Kind::NetworkPolicy);
                report.error(entry.line, &path.field(&entry.key), message);
            }
            key if known.contains(&key) => {}
            _ => fields::unknown(entry, &known, path, report),
        }
    }
    if map.entries().len() > SPEC_FIELDS_MAX {
        let message = format!("has more than {SPEC_FIELDS_MAX} fields");
        report.error(map.line, path, message);
        return None;
    }
    Some(map)
}

/// Absent or empty: Ingress, and Egress where there is an egress rule.
fn policy_types(
    spec: &Fields<'_>,
    has_egress_rules: bool,
    path: &Path<'_>,
    report: &mut Report,
) -> Directions {
    let types = spec.list("policyTypes", path, report);
    let path = path.field("policyTypes");
    let mut directions = Directions::default();
    if types.is_empty() {
        directions.ingress = true;
        directions.egress = has_egress_rules;
    }
    if types.len() > 2 {
        let message = "has more than two entries: name Ingress and Egress at most";
        report.error(spec.line_of("policyTypes"), &path, message);
        return directions;
    }
    for (at, node) in types.iter().enumerate() {
        let path = path.index(at);
        let words = [("Ingress", INGRESS.list), ("Egress", EGRESS.list)];
        let direction = fields::text(node, &path, report)
            .and_then(|text| fields::word(text, &words, node.line, &path, report));
        directions.ingress |= direction == Some(INGRESS.list);
        directions.egress |= direction == Some(EGRESS.list);
    }
    directions
}

/// The names that a direction has in the text.
struct Direction {
    list: &'static str,
    peers: &'static str,
}

const INGRESS: Direction = Direction {
    list: "ingress",
    peers: "from",
};
const EGRESS: Direction = Direction {
    list: "egress",
    peers: "to",
};

fn rules(
    spec: &Fields<'_>,
    direction: &Direction,
    path: &Path<'_>,
    report: &mut Report,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let list_path = path.field(direction.list);
    for (at, node) in spec.list(direction.list, path, report).iter().enumerate() {
        // A refused rule leaves an error behind, so the policy is refused with it.
        rules.extend(rule(node, direction, &list_path.index(at), report));
    }
    rules
}

fn rule(node: &Node, direction: &Direction, path: &Path<'_>, report: &mut Report) -> Option<Rule> {
    let source = Source {
        file: report.file().clone(),
        line: node.line,
    };
    if node.is_null() {
        report.warn(
            node.line,
            path,
            "is null, which allows everything: write {}",
        );
        return Some(Rule {
            source,
            peers: None,
            ports: None,
        });
    }
    let map = fields::fields(
        node,
        &[direction.peers, "ports"],
        Nulls::Absent,
        path,
        report,
    )?;
    let (peers_path, ports_path) = (path.field(direction.peers), path.field("ports"));
    let peers = map.list(direction.peers, path, report);
    let peers: Vec<Option<Peer>> = peers
        .iter()
        .enumerate()
        .map(|(at, node)| peer(node, &peers_path.index(at), report))
        .collect();
    let ports: Vec<_> = map
        .list("ports", path, report)
        .iter()
        .enumerate()
        .map(|(at, node)| match &node.value {
            Value::Null => {
                let path = ports_path.index(at);
                report.warn(
                    node.line,
                    &path,
                    "is null, which is every TCP port: write {}",
                );
                Some(crate::model::PortMatch::Any(crate::model::Protocol::Tcp))
            }
            _ => ports::read(node, &ports_path.index(at), report),
        })
        .collect();
    let peers: Vec<Peer> = peers.into_iter().collect::<Option<_>>()?;
    let ports: Vec<_> = ports.into_iter().collect::<Option<_>>()?;
    Some(Rule {
        source,
        peers: (!peers.is_empty()).then_some(peers),
        ports: (!ports.is_empty()).then_some(ports),
    })
}

fn peer(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Peer> {
    let known = ["podSelector", "namespaceSelector", "ipBlock"];
    let missing = "says no peer: name podSelector, namespaceSelector or ipBlock; {} selects everything of its kind";
    if node.is_null() {
        report.error(node.line, path, missing);
        return None;
    }
    let map = fields::fields(node, &known, Nulls::Absent, path, report)?;
    let selector = |key: &str, report: &mut Report| {
        let node = map.get(key)?;
        Some(selector::read(
            node,
            Nulls::Absent,
            &path.field(key),
            report,
        ))
    };
    let pods = selector("podSelector", report);
    let namespaces = selector("namespaceSelector", report);
    let block = map
        .get("ipBlock")
        .map(|node| ip_block(node, &path.field("ipBlock"), report));
    match (block, pods, namespaces) {
        (None, None, None) => {
            report.error(map.line, path, missing);
            None
        }
        (Some(block), None, None) => block,
        (Some(_), _, _) => {
            let message = "has ipBlock beside a selector: make them two items";
            report.error(map.line, path, message);
            None
        }
        (None, pods, namespaces) => Some(Peer::Pods {
            namespaces: namespaces.map_or(Some(None), |it| it.map(Some))?,
            pods: pods.map_or(Some(None), |it| it.map(Some))?,
        }),
    }
}

fn ip_block(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Peer> {
    let map = fields::fields(node, &["cidr", "except"], Nulls::Absent, path, report)?;
    let cidr_path = path.field("cidr");
    let block = match map.get("cidr") {
        Some(node) => fields::text(node, &cidr_path, report)
            .and_then(|text| cidr::read(text, node.line, &cidr_path, report)),
        None => {
            let message = "is missing: write an address block like 10.1.0.0/16";
            report.error(map.line, &cidr_path, message);
            None
        }
    };
    let except_path = path.field("except");
    let mut except = Vec::new();
    for (at, node) in map.list("except", path, report).iter().enumerate() {
        let path = except_path.index(at);
        let Some(cut) = fields::text(node, &path, report)
            .and_then(|text| cidr::read(text, node.line, &path, report))
        else {
            continue;
        };
        if let Some(block) = block
            && !(block.contains(cut.addr()) && block.prefix_len() < cut.prefix_len())
        {
            let message = format!(
                "{cut} is no part of {block}: an exception must lie inside its block, and be smaller"
            );
            report.error(node.line, &path, message);
        }
        except.push(cut);
    }
    Some(Peer::Block {
        cidr: block?,
        except,
    })
}

/// More fields than anybody takes for known ones.
const SPEC_FIELDS_MAX: usize = 64;
