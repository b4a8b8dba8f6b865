//! `metadata`: the identity of an object, its labels and our annotations.

use crate::diagnostic::{Path, Report, quote};
use crate::fields::{self, Fields, shared};
use crate::manifest::{Kind, ObjectRef};
use crate::model::{Labels, Mode, ObjectName, Text};
use crate::names;
use crate::node::{Node, Value};
use crate::suggest::nearest;

/// What `metadata` says, checked.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) namespace: Text,
    pub(super) name: Text,
    pub(super) labels: Labels,
    pub(super) mode: Mode,
}

impl Meta {
    pub(super) fn read(object: &Node, kind: Kind, report: &mut Report) -> Option<Self> {
        let root = Path::Root;
        let path = root.field("metadata");
        let Some(node) = object.field("metadata").filter(|node| !node.is_null()) else {
            report.error(object.line, &path, "is missing: give it a name");
            return None;
        };
        let map = fields::map(node, &path, report)?;
        if map.entries().len() > FIELDS_MAX {
            let message = format!("has more than {FIELDS_MAX} fields");
            report.error(map.line, &path, message);
            return None;
        }
        for entry in map.entries() {
            check_field(entry.line, &entry.key, &path, report);
        }
        let name = read_name(&map, kind, &path, report);
        let namespace = read_namespace(&map, kind, &path, report);
        let labels = match map.get("labels") {
            Some(node) => read_labels(node, &path.field("labels"), report)?,
            None => Labels::new(),
        };
        let mode = read_annotations(&map, kind, &path, report);
        Some(Self {
            namespace: namespace?,
            name: name?,
            labels,
            mode,
        })
    }

    pub(super) fn id(&self) -> ObjectName {
        ObjectName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// The identity of an object whose rest may be wrong.
pub(super) fn identity(object: &Node, kind: Kind) -> Option<ObjectRef> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) if !text.is_empty() => Some(shared(text)),
        _ => None,
    };
    let metadata = object.field("metadata")?;
    let name = text(metadata.field("name")?)?;
    let namespace = match metadata.field("namespace") {
        None => shared(DEFAULT_NAMESPACE),
        Some(node) if node.is_null() || node.value == Value::Text("".into()) => {
            shared(DEFAULT_NAMESPACE)
        }
        Some(node) => text(node)?,
    };
    Some(match kind.is_namespaced() {
        true => ObjectRef::namespaced(kind, &ObjectName { namespace, name }),
        false => ObjectRef::cluster_wide(kind, &name),
    })
}

/// `namespce: shop` would put a policy into `default` without a word.
fn check_field(line: u32, key: &str, path: &Path<'_>, report: &mut Report) {
    if READ_FIELDS.contains(&key) || IGNORED_FIELDS.contains(&key) {
        return;
    }
    match nearest(key, READ_FIELDS) {
        Some(near) => {
            let message = format!("is an unknown field: did you mean `{near}`?");
            report.error(line, &path.field(key), message);
        }
        None => report.warn(line, &path.field(key), "ignored: an unknown field"),
    }
}

fn read_name(map: &Fields<'_>, kind: Kind, path: &Path<'_>, report: &mut Report) -> Option<Text> {
    let path = path.field("name");
    let Some(node) = map.get("name") else {
        let message = match map.get("generateName") {
            Some(_) => {
                "is missing: a file must name its object, generateName is for the API server"
            }
            None => "is missing: give the object a name",
        };
        report.error(map.line, &path, message);
        return None;
    };
    let name = fields::text(node, &path, report)?;
    let fault = match kind {
        Kind::Namespace => names::dns_label(name),
        Kind::Node | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
            names::dns_subdomain(name)
        }
    };
    if let Some(fault) = fault {
        report.error(node.line, &path, format!("`{}` {fault}", quote(name)));
        return None;
    }
    Some(shared(name))
}

fn read_namespace(
    map: &Fields<'_>,
    kind: Kind,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Text> {
    let path = path.field("namespace");
    let Some(node) = map.get("namespace") else {
        return Some(shared(DEFAULT_NAMESPACE));
    };
    let name = fields::text(node, &path, report)?;
    if name.is_empty() {
        return Some(shared(DEFAULT_NAMESPACE));
    }
    if !kind.is_namespaced() {
        let message = format!("ignored: a {} belongs to no namespace", kind.name());
        report.warn(node.line, &path, message);
        return Some(shared(DEFAULT_NAMESPACE));
    }
    if let Some(fault) = names::dns_label(name) {
        report.error(node.line, &path, format!("`{}` {fault}", quote(name)));
        return None;
    }
    Some(shared(name))
}

/// A mapping of label keys to values, as objects carry and `matchLabels` names them.
pub(crate) fn read_labels(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Labels> {
    let map = fields::map(node, path, report)?;
    let mut labels = Labels::new();
    for entry in map.entries() {
        let path = path.field(&entry.key);
        if let Some(fault) = names::qualified_name(&entry.key) {
            report.error(
                entry.line,
                &path,
                format!("`{}` {fault}", quote(&entry.key)),
            );
            continue;
        }
        let value = match &entry.node.value {
            Value::Null => {
                report.warn(
                    entry.line,
                    &path,
                    "is null, which stands for \"\": write \"\"",
                );
                ""
            }
            _ => match fields::text(&entry.node, &path, report) {
                Some(value) => value,
                None => continue,
            },
        };
        match names::label_value(value) {
            Some(fault) => {
                report.error(
                    entry.node.line,
                    &path,
                    format!("`{}` {fault}", quote(value)),
                );
            }
            None => drop(labels.insert(shared(&entry.key), shared(value))),
        }
    }
    Some(labels)
}

fn read_annotations(map: &Fields<'_>, kind: Kind, path: &Path<'_>, report: &mut Report) -> Mode {
    let path = path.field("annotations");
    let mut mode = Mode::default();
    let annotations = map
        .get("annotations")
        .and_then(|node| fields::map(node, &path, report));
    for entry in annotations.map_or(&[][..], |map| map.entries()) {
        let path = path.field(&entry.key);
        // Kubernetes reads null as nothing here, too.
        if !entry.node.is_null() && fields::text(&entry.node, &path, report).is_none() {
            continue;
        }
        let Some(name) = entry.key.strip_prefix(OUR_PREFIX) else {
            continue;
        };
        let is_policy = matches!(kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy);
        let text = match &entry.node.value {
            Value::Text(text) => text,
            _ => "",
        };
        match name {
            "mode" if is_policy => {
                let words = [
                    ("enforce", Mode::Enforce),
                    ("audit", Mode::Audit),
                    ("off", Mode::Off),
                ];
                let found = fields::word(text, &words, entry.node.line, &path, report);
                mode = found.unwrap_or_default();
            }
            "mode" => {
                let message = format!("means nothing on a {}: remove it", kind.name());
                report.error(entry.line, &path, message);
            }
            "priority" => report.error(entry.line, &path, priority_message(kind)),
            _ => {
                let message = "is unknown: the only annotation that is read is patronus.io/mode";
                report.error(entry.line, &path, message);
            }
        }
    }
    mode
}

/// Why there is no priority here, and where there is one.
pub(super) fn priority_message(kind: Kind) -> &'static str {
    match kind {
        Kind::ClusterNetworkPolicy => {
            "is not read: a ClusterNetworkPolicy has spec.tier and spec.priority"
        }
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::NetworkPolicy => {
            "a NetworkPolicy has no priority, its rules only add up: write a ClusterNetworkPolicy \
             (policy.networking.k8s.io/v1alpha2) with spec.tier and spec.priority"
        }
    }
}

/// More fields than anybody takes for known ones.
const FIELDS_MAX: usize = 64;
const DEFAULT_NAMESPACE: &str = "default";
const OUR_PREFIX: &str = "patronus.io/";
const READ_FIELDS: &[&str] = &["name", "namespace", "labels", "annotations"];
/// What the API server keeps there for itself and for others.
const IGNORED_FIELDS: &[&str] = &[
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "clusterName",
    "initializers",
];
