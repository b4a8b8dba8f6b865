//! Label selectors.

use std::collections::BTreeSet;

use crate::diagnostic::{Path, Report, quote};
use crate::fields::{self, Nulls, shared};
use crate::manifest::meta::read_labels;
use crate::model::{Requirement, Selector, Text};
use crate::names;
use crate::node::Node;

/// Reads a selector; one without requirements selects everything of its kind.
pub(super) fn read(
    node: &Node,
    nulls: Nulls,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Selector> {
    let known = ["matchLabels", "matchExpressions"];
    let map = fields::fields(node, &known, nulls, path, report)?;
    let mut requirements = BTreeSet::new();
    if let Some(node) = map.get("matchLabels") {
        let labels = read_labels(node, &path.field("matchLabels"), report)?;
        requirements.extend(
            labels
                .into_iter()
                .map(|(key, value)| Requirement::In(key, BTreeSet::from([value]))),
        );
    }
    let list_path = path.field("matchExpressions");
    for (at, node) in map
        .list("matchExpressions", path, report)
        .iter()
        .enumerate()
    {
        requirements.extend(expression(node, nulls, &list_path.index(at), report));
    }
    Some(Selector { requirements })
}

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

fn expression(
    node: &Node,
    nulls: Nulls,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Requirement> {
    let map = fields::fields(node, &["key", "operator", "values"], nulls, path, report)?;
    let key = match map.get("key") {
        Some(node) => fields::text(node, &path.field("key"), report),
        None => {
            report.error(map.line, &path.field("key"), "is missing: name a label");
            None
        }
    };
    if let Some(key) = key
        && let Some(fault) = names::qualified_name(key)
    {
        let message = format!("`{}` {fault}", quote(key));
        report.error(map.line_of("key"), &path.field("key"), message);
    }
    let operator_line = map.line_of("operator");
    let operator = match map.get("operator") {
        Some(node) => fields::text(node, &path.field("operator"), report),
        None => {
            let message = "is missing: write In, NotIn, Exists or DoesNotExist";
            report.error(map.line, &path.field("operator"), message);
            None
        }
    };
    let operator = fields::word(
        operator?,
        OPERATORS,
        operator_line,
        &path.field("operator"),
        report,
    );
    let mut values: BTreeSet<Text> = BTreeSet::new();
    let values_path = path.field("values");
    let nodes = map.list("values", path, report);
    for (at, node) in nodes.iter().enumerate() {
        let path = values_path.index(at);
        let Some(value) = value_text(node, &path, report) else {
            continue;
        };
        match names::label_value(value) {
            Some(fault) => report.error(node.line, &path, format!("`{}` {fault}", quote(value))),
            None => drop(values.insert(shared(value))),
        }
    }
    let (operator, key) = (operator?, shared(key?));
    let line = map.line_of("values");
    match (operator, nodes.is_empty()) {
        (Operator::In | Operator::NotIn, true) => {
            report.error(line, &values_path, "In and NotIn need at least one value");
            None
        }
        (Operator::Exists | Operator::DoesNotExist, false) => {
            let message = "Exists and DoesNotExist take no values: remove them";
            report.error(line, &values_path, message);
            None
        }
        (Operator::In, false) => Some(Requirement::In(key, values)),
        (Operator::NotIn, false) => Some(Requirement::NotIn(key, values)),
        (Operator::Exists, true) => Some(Requirement::Exists(key)),
        (Operator::DoesNotExist, true) => Some(Requirement::DoesNotExist(key)),
    }
}

/// Kubernetes reads a null in a list of texts as "".
fn value_text<'n>(node: &'n Node, path: &Path<'_>, report: &mut Report) -> Option<&'n str> {
    if node.is_null() {
        report.warn(
            node.line,
            path,
            "is null, which stands for \"\": write \"\"",
        );
        return Some("");
    }
    fields::text(node, path, report)
}
