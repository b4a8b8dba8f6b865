//! From the text of a document to its cases.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::diagnostic::{Diagnostic, Path, Report, quote};
use crate::document::ops::Op;
use crate::document::{
    Body, Case, Cell, Document, End, EndPlace, Expected, Family, Level, Probe, ProbeKind, Step,
    Table, Transport, Validation,
};
use crate::fields::{self, Fields, shared};
use crate::manifest::{Loader, cidr, inventory, meta};
use crate::model::{Change, Labels, Namespace, Node as ClusterNode, ObjectName, Pod};
use crate::node::{self, Limits, Node, TextError, Value};
use crate::suggest::nearest;

impl Document {
    /// Reads a document. Only a text that is none, or clusters that cannot be read, are errors; a faulty case
    /// fails when it is run, and the others still run.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let mut report = Report::new(file);
        let document = read(bytes, &mut report);
        match document {
            Some(document) if report.object_errors() == 0 => Ok(document),
            Some(_) | None => Err(report.finish().0),
        }
    }
}

fn read(bytes: &[u8], report: &mut Report) -> Option<Document> {
    let root = Path::Root;
    let documents = node::parse(bytes, Limits::TEST_DOCUMENT);
    let documents = documents.map_err(|TextError { line, message, .. }| {
        report.error(line, &root, message);
    });
    let documents = documents.ok()?;
    let [node] = &documents[..] else {
        let message = format!("holds {} documents where one belongs", documents.len());
        report.error(1, &root, message);
        return None;
    };
    let map = fields::map(node, &root, report)?;
    let known = ["format", "clusters", "cases", "validation"];
    refuse_slips(&map, &known, &root, report);
    match map.get("format") {
        Some(node) => drop(fields::number(node, 1..=1, &root.field("format"), report)?),
        None => {
            report.error(
                map.line,
                &root.field("format"),
                "is missing: write \"format\": 1",
            );
            return None;
        }
    }
    let mut clusters = BTreeMap::new();
    let clusters_path = root.field("clusters");
    let named = map
        .get("clusters")
        .and_then(|node| fields::map(node, &clusters_path, report));
    for entry in named.map_or(&[][..], |map| map.entries()) {
        let cluster = cluster(&entry.node, &clusters_path.field(&entry.key), report);
        clusters.extend(cluster.map(|cluster| (&*entry.key, Arc::new(cluster))));
    }
    let case_nodes = map.list("cases", &root, report);
    let validation_nodes = map.list("validation", &root, report);
    if report.object_errors() > 0 {
        return None;
    }
    let path = root.field("cases");
    let cases = case_nodes
        .iter()
        .enumerate()
        .map(|(at, node)| case(node, &clusters, &path.index(at), report.file()))
        .collect();
    let path = root.field("validation");
    let validation = validation_nodes
        .iter()
        .enumerate()
        .map(|(at, node)| validation(node, &path.index(at), report))
        .collect::<Option<_>>()?;
    Some(Document { cases, validation })
}

/// A field that is nearly a known one was meant to be it; others are the author's own notes.
fn refuse_slips(map: &Fields<'_>, known: &[&str], path: &Path<'_>, report: &mut Report) {
    for entry in map.entries().iter().take(SLIPS_MAX) {
        if !known.contains(&&*entry.key) && nearest(&entry.key, known).is_some() {
            fields::unknown(entry, known, path, report);
        }
    }
}

fn case(node: &Node, clusters: &BTreeMap<&str, Arc<Cluster>>, path: &Path<'_>, file: &str) -> Case {
    let title = |key: &str| match node.field(key).map(|node| &node.value) {
        Some(Value::Text(text)) => quote(text),
        _ => String::new(),
    };
    let id = match title("id") {
        id if id.is_empty() => path.to_string(),
        id => id,
    };
    let mut report = Report::new(file);
    report.begin_object(Some(format!("case {id}")));
    let body = case_body(node, clusters, path, &mut report);
    let is_optional = node
        .field("optional")
        .is_some_and(|node| node.value == Value::Bool(true));
    let body = match body {
        Some(body) if report.object_errors() == 0 => Ok(body),
        Some(_) | None => Err(report.finish().0),
    };
    Case {
        id,
        group: title("group"),
        title: title("title"),
        is_optional,
        body,
    }
}

fn case_body(
    node: &Node,
    clusters: &BTreeMap<&str, Arc<Cluster>>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Body> {
    let map = fields::map(node, path, report)?;
    let known = ["id", "group", "title", "optional", "cluster", "steps"];
    refuse_slips(&map, &known, path, report);
    let cluster_path = path.field("cluster");
    let cluster = match map.get("cluster") {
        Some(node) => match &node.value {
            Value::Text(name) => {
                let known = clusters.get(&**name).cloned();
                if known.is_none() {
                    let message = format!("there is no cluster `{}`", quote(name));
                    report.error(node.line, &cluster_path, message);
                }
                known
            }
            _ => cluster(node, &cluster_path, report).map(Arc::new),
        },
        None => {
            report.error(map.line, &cluster_path, "is missing: name one or write one");
            None
        }
    };
    let steps_path = path.field("steps");
    let steps = map.list("steps", path, report);
    if steps.len() > STEPS_MAX {
        let message = format!("has more than {STEPS_MAX} steps");
        report.error(map.line, &steps_path, message);
        return None;
    }
    let steps: Vec<Option<Step>> = steps
        .iter()
        .enumerate()
        .map(|(at, node)| step(node, &steps_path.index(at), report))
        .collect();
    Some(Body {
        cluster: cluster?,
        steps: steps.into_iter().collect::<Option<_>>()?,
    })
}

fn step(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Step> {
    let map = fields::map(node, path, report)?;
    let known = ["ops", "policies", "policies_yaml", "tables", "probes"];
    refuse_slips(&map, &known, path, report);
    let ops = each(&map, "ops", path, report, Op::read);
    let file = report.file().clone();
    let mut loader = Loader::new();
    for node in map.list("policies", path, report) {
        loader.add_node(&file, node);
    }
    let yaml_path = path.field("policies_yaml");
    let texts = match map.get("policies_yaml") {
        // One text alone is meant as a list of one.
        Some(
            node @ Node {
                value: Value::Text(_),
                ..
            },
        ) => std::slice::from_ref(node),
        _ => map.list("policies_yaml", path, report),
    };
    for (at, node) in texts.iter().enumerate() {
        let path = yaml_path.index(at);
        if let Some(text) = fields::text(node, &path, report) {
            loader.add(&path.to_string(), text.as_bytes());
        }
    }
    let tables = each(&map, "tables", path, report, table);
    let probes = each(&map, "probes", path, report, probe);
    Some(Step {
        ops: ops?,
        policies: loader.finish(),
        tables: tables?,
        probes: probes?,
    })
}

fn each<T>(
    map: &Fields<'_>,
    key: &str,
    path: &Path<'_>,
    report: &mut Report,
    read: impl Fn(&Node, &Path<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let list_path = path.field(key);
    let items: Vec<Option<T>> = map
        .list(key, path, report)
        .iter()
        .enumerate()
        .map(|(at, node)| read(node, &list_path.index(at), report))
        .collect();
    items.into_iter().collect()
}

fn validation(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Validation> {
    let map = fields::map(node, path, report)?;
    let id = required_text(&map, "id", path, report).map(quote);
    let words = [("valid", true), ("invalid", false)];
    let expects_valid = required_text(&map, "expect", path, report).and_then(|text| {
        let path = path.field("expect");
        fields::word(text, &words, map.line_of("expect"), &path, report)
    });
    let mut loader = Loader::new();
    match map.get("policy") {
        Some(node) => loader.add_node(report.file(), node),
        None => {
            report.error(map.line, &path.field("policy"), "is missing");
            return None;
        }
    }
    Some(Validation {
        id: id?,
        title: map
            .text("title", path, report)
            .map(quote)
            .unwrap_or_default(),
        expects_valid: expects_valid?,
        loaded: loader.finish(),
    })
}

fn cluster(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Cluster> {
    let map = fields::map(node, path, report)?;
    refuse_slips(&map, &["namespaces", "nodes", "pods"], path, report);
    let mut cluster = Cluster::default();
    let named = |key: &str, report: &mut Report| match map.get(key) {
        Some(node) => fields::map(node, &path.field(key), report).map(|map| map.entries()),
        None => Some(&[][..]),
    };
    let namespaces_path = path.field("namespaces");
    for entry in named("namespaces", report)? {
        let path = namespaces_path.field(&entry.key);
        let labels = match entry.node.is_null() {
            true => Labels::new(),
            false => labels(&fields::map(&entry.node, &path, report)?, &path, report)?,
        };
        let name = shared(&entry.key);
        cluster.apply(&Change::SetNamespace(Namespace { name, labels }));
    }
    let nodes_path = path.field("nodes");
    for entry in named("nodes", report)? {
        let path = nodes_path.field(&entry.key);
        let map = fields::map(&entry.node, &path, report)?;
        let ips = addresses(&map, &path, report)?;
        let name = shared(&entry.key);
        cluster.apply(&Change::SetNode(ClusterNode { name, ips }));
    }
    for pod in each(&map, "pods", path, report, pod)? {
        cluster.apply(&Change::SetPod(pod));
    }
    Some(cluster)
}

pub(super) fn pod(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Pod> {
    let map = fields::map(node, path, report)?;
    let id = object_name(&map, path, report);
    let labels = labels(&map, path, report);
    let ips = addresses(&map, path, report);
    let host_network = map.flag("hostNetwork", path, report);
    let ports = each(&map, "ports", path, report, inventory::container_port);
    let node = map.text("node", path, report).map(shared);
    Some(Pod {
        id: id?,
        labels: labels?,
        node,
        ips: ips?,
        host_network,
        ports: ports?,
    })
}

pub(super) fn required_text<'n>(
    map: &Fields<'n>,
    key: &str,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<&'n str> {
    if map.get(key).is_none() {
        report.error(map.line, &path.field(key), "is missing");
    }
    map.text(key, path, report)
}

/// A pod or policy; `default` where no namespace is named.
pub(super) fn object_name(
    map: &Fields<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<ObjectName> {
    let name = required_text(map, "name", path, report)?;
    let namespace = match map.get("namespace") {
        Some(node) => fields::text(node, &path.field("namespace"), report)?,
        None => "default",
    };
    Some(ObjectName {
        namespace: shared(namespace),
        name: shared(name),
    })
}

pub(super) fn labels(map: &Fields<'_>, path: &Path<'_>, report: &mut Report) -> Option<Labels> {
    match map.get("labels") {
        Some(node) => meta::read_labels(node, &path.field("labels"), report),
        None => Some(Labels::new()),
    }
}

pub(super) fn addresses(
    map: &Fields<'_>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<IpAddr>> {
    each(map, "ips", path, report, |node, path, report| {
        let text = fields::text(node, path, report)?;
        let address = cidr::address(text);
        address
            .map_err(|message| {
                report.error(node.line, path, format!("`{}`: {message}", quote(text)));
            })
            .ok()
    })
}

fn table(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Table> {
    let map = fields::map(node, path, report)?;
    let known = ["protocol", "port", "src", "dst", "rows"];
    refuse_slips(&map, &known, path, report);
    let transport = transport(&map, path, report);
    let src = each(&map, "src", path, report, end);
    let dst = each(&map, "dst", path, report, end);
    let rows_path = path.field("rows");
    let Some(rows) = map
        .get("rows")
        .and_then(|node| fields::map(node, &rows_path, report))
    else {
        report.error(map.line, &rows_path, "is missing or no mapping");
        return None;
    };
    let (transport, src, dst) = (transport?, src?, dst?);
    if src.len() > TABLE_ROWS_MAX || rows.entries().len() > TABLE_ROWS_MAX {
        let message = format!("has more than {TABLE_ROWS_MAX} rows: make several tables of it");
        report.error(map.line, path, message);
        return None;
    }
    for entry in rows.entries() {
        let is_named = map
            .list("src", path, report)
            .iter()
            .any(|node| node.value == Value::Text(entry.key.clone()));
        if !is_named {
            report.error(
                entry.line,
                &rows_path.field(&entry.key),
                "is no source of this table",
            );
        }
    }
    let mut cells = Vec::new();
    for node in map.list("src", path, report) {
        let Value::Text(name) = &node.value else {
            return None;
        };
        cells.push(row(&rows, name, dst.len(), &rows_path, report)?);
    }
    Some(Table {
        transport,
        src,
        dst,
        cells,
    })
}

fn row(
    rows: &Fields<'_>,
    name: &str,
    width: usize,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<Cell>> {
    let Some(text) = rows.text(name, path, report) else {
        report.error(
            rows.line,
            &path.field(name),
            "is missing: every source has a row",
        );
        return None;
    };
    let path = path.field(name);
    let mut cells: Vec<Cell> = Vec::new();
    for char in text.chars() {
        let expected = |allow, level| Some(Expected { allow, level });
        cells.push(match char {
            '.' => expected(true, Level::Must),
            'X' => expected(false, Level::Must),
            ',' => expected(true, Level::Should),
            'x' => expected(false, Level::Should),
            '?' => None,
            _ => {
                let message = format!("`{}` is none of . X , x ?", char.escape_debug());
                report.error(rows.line_of(name), &path, message);
                return None;
            }
        });
    }
    if cells.len() != width {
        let message = format!("has {} cells for {width} destinations", cells.len());
        report.error(rows.line_of(name), &path, message);
        return None;
    }
    Some(cells)
}

fn probe(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Probe> {
    let map = fields::map(node, path, report)?;
    let known = [
        "src", "dst", "protocol", "port", "sport", "kind", "expect", "level", "because",
    ];
    refuse_slips(&map, &known, path, report);
    let place = |key: &str, report: &mut Report| {
        required_text(&map, key, path, report)?;
        end(map.get(key)?, &path.field(key), report)
    };
    let (src, dst) = (place("src", report), place("dst", report));
    let transport = transport(&map, path, report);
    let sport = match map.get("sport") {
        Some(node) => Some(port(node, &path.field("sport"), report)?),
        None => None,
    };
    let kind = match map.text("kind", path, report) {
        None | Some("new") => Some(ProbeKind::New),
        Some("reply") => Some(ProbeKind::Reply),
        Some("unsolicited-reply") => match sport {
            Some(sport) => Some(ProbeKind::Unsolicited { sport }),
            None => {
                report.error(
                    map.line,
                    &path.field("sport"),
                    "is missing: the packet goes to it",
                );
                None
            }
        },
        Some(other) => {
            let message = format!("`{}` is neither reply nor unsolicited-reply", quote(other));
            report.error(map.line_of("kind"), &path.field("kind"), message);
            None
        }
    };
    let choose = |key: &str, words: &[(&str, bool)], report: &mut Report| {
        let text = required_text(&map, key, path, report)?;
        fields::word(text, words, map.line_of(key), &path.field(key), report)
    };
    let allow = choose("expect", &[("allow", true), ("deny", false)], report);
    let is_must = match map.get("level") {
        Some(_) => choose("level", &[("must", true), ("should", false)], report),
        None => Some(true),
    };
    let level = if is_must? { Level::Must } else { Level::Should };
    Some(Probe {
        src: src?,
        dst: dst?,
        transport: transport?,
        kind: kind?,
        expected: Expected {
            allow: allow?,
            level,
        },
        because: map
            .text("because", path, report)
            .map(quote)
            .unwrap_or_default(),
    })
}

fn port(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<u16> {
    let number = fields::number(node, 0..=65535, path, report)?;
    u16::try_from(number).ok()
}

fn transport(map: &Fields<'_>, path: &Path<'_>, report: &mut Report) -> Option<Transport> {
    let words = [
        ("TCP", Some(6)),
        ("UDP", Some(17)),
        ("SCTP", Some(132)),
        ("ICMP", None),
    ];
    let number = match map.get("protocol") {
        Some(Node {
            value: Value::Int(number @ 0..=255),
            ..
        }) => Some(*number as u8),
        Some(node) => {
            let path = path.field("protocol");
            let text = fields::text(node, &path, report)?;
            fields::word(text, &words, node.line, &path, report)?
        }
        None => {
            report.error(map.line, &path.field("protocol"), "is missing");
            return None;
        }
    };
    let has_ports = matches!(number, Some(6 | 17 | 132));
    let port = match map.get("port") {
        Some(node) => port(node, &path.field("port"), report)?,
        None if has_ports => {
            report.error(map.line, &path.field("port"), "is missing");
            return None;
        }
        None => 0,
    };
    Some(Transport { number, port })
}

/// `ns/pod`, `node:NAME` or `ip:ADDRESS`; the first two with `@4` or `@6` behind.
fn end(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<End> {
    let text = fields::text(node, path, report)?;
    let parsed = parse_end(text);
    if parsed.is_none() {
        let message = format!(
            "`{}` is no end: write ns/pod, ns/pod@4, ns/pod@6, node:NAME, node:NAME@6 or ip:ADDRESS",
            quote(text)
        );
        report.error(node.line, path, message);
    }
    parsed
}

pub(super) fn parse_end(text: &str) -> Option<End> {
    if let Some(address) = text.strip_prefix("ip:") {
        let place = EndPlace::Address(address.parse().ok()?);
        return Some(End {
            place,
            family: None,
        });
    }
    let (name, family) = match text.split_once('@') {
        None => (text, None),
        Some((name, "4")) => (name, Some(Family::V4)),
        Some((name, "6")) => (name, Some(Family::V6)),
        Some(_) => return None,
    };
    let place = match name.strip_prefix("node:") {
        Some(node) => EndPlace::Node(shared(node)),
        None => {
            let (namespace, pod) = name.split_once('/')?;
            EndPlace::Pod(ObjectName {
                namespace: shared(namespace),
                name: shared(pod),
            })
        }
    };
    Some(End { place, family })
}

/// Up to how many fields of one mapping are looked at for slips.
const SLIPS_MAX: usize = 64;
/// Sources, and rows, of a table.
const TABLE_ROWS_MAX: usize = 2000;
/// Steps of a case.
const STEPS_MAX: usize = 10_000;
