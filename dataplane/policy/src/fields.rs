//! Typed reading of a tree: each reader reports what does not fit, with its path, and returns `None`.

use crate::diagnostic::{Path, Report, quote};
use crate::model::Text;
use crate::node::{Entry, Node, Value};
use crate::suggest::nearest;

/// A mapping whose keys are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    /// Where the mapping begins.
    pub(crate) line: u32,
}

/// What `null` means for a field of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// As if the field were absent: what built-in kinds of Kubernetes do.
    Absent,
    /// An error: what kinds that are defined by a schema do.
    Refused,
}

impl<'n> Fields<'n> {
    /// The value of a field; `None` where it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        let found = self.entries.iter().find(|entry| *entry.key == *key)?;
        (!found.node.is_null()).then_some(&found.node)
    }

    /// Every entry in the order of the text, nulls included.
    pub(crate) fn entries(&self) -> &'n [Entry] {
        self.entries
    }

    /// The line of a field, or of the mapping where it has none.
    pub(crate) fn line_of(&self, key: &str) -> u32 {
        let found = self.entries.iter().find(|entry| *entry.key == *key);
        found.map_or(self.line, |entry| entry.line)
    }

    /// A text field.
    pub(crate) fn text(&self, key: &str, path: &Path<'_>, report: &mut Report) -> Option<&'n str> {
        text(self.get(key)?, &path.field(key), report)
    }

    /// A list field; empty where it is absent, null or no list.
    pub(crate) fn list(&self, key: &str, path: &Path<'_>, report: &mut Report) -> &'n [Node] {
        self.get(key)
            .and_then(|node| list(node, &path.field(key), report))
            .unwrap_or_default()
    }

    /// A truth value; false where it is absent.
    pub(crate) fn flag(&self, key: &str, path: &Path<'_>, report: &mut Report) -> bool {
        match self.get(key) {
            None => false,
            Some(node) => match node.value {
                Value::Bool(flag) => flag,
                _ => {
                    mismatch(node, &path.field(key), "true or false", report);
                    false
                }
            },
        }
    }
}

/// A mapping, whatever its keys are.
pub(crate) fn map<'n>(node: &'n Node, path: &Path<'_>, report: &mut Report) -> Option<Fields<'n>> {
    let Value::Map(entries) = &node.value else {
        mismatch(node, path, "a mapping", report);
        return None;
    };
    Some(Fields {
        entries,
        line: node.line,
    })
}

/// A mapping that has no other keys than those.
pub(crate) fn fields<'n>(
    node: &'n Node,
    known: &[&str],
    nulls: Nulls,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Fields<'n>> {
    let fields = map(node, path, report)?;
    let errors = report.object_errors();
    for entry in fields.entries {
        // Suggestions cost time, and a mapping of nothing but unknown fields could ask for a million.
        if report.object_errors() - errors > UNKNOWN_MAX {
            break;
        }
        if !known.contains(&&*entry.key) {
            unknown(entry, known, path, report);
        } else if nulls == Nulls::Refused && entry.node.is_null() {
            let path = path.field(&entry.key);
            report.error(entry.line, &path, "is null: give a value or leave it out");
        }
    }
    Some(fields)
}

/// A field that nobody knows: it would be read over, and a policy would say less than its author wrote.
pub(crate) fn unknown(entry: &Entry, known: &[&str], path: &Path<'_>, report: &mut Report) {
    let message = match nearest(&entry.key, known) {
        Some(near) => format!("is an unknown field: did you mean `{near}`?"),
        None => format!(
            "is an unknown field: remove it (known here: {})",
            known.join(", ")
        ),
    };
    report.error(entry.line, &path.field(&entry.key), message);
}

pub(crate) fn text<'n>(node: &'n Node, path: &Path<'_>, report: &mut Report) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(text),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            let kind = node.value.describe();
            let message = format!("is {kind} where a text belongs: put it in quotes");
            report.error(node.line, path, message);
            None
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            mismatch(node, path, "a text", report);
            None
        }
    }
}

pub(crate) fn list<'n>(node: &'n Node, path: &Path<'_>, report: &mut Report) -> Option<&'n [Node]> {
    let Value::List(items) = &node.value else {
        mismatch(node, path, "a list", report);
        return None;
    };
    Some(items)
}

/// A whole number within a range; `what` names it for the message.
pub(crate) fn number(
    node: &Node,
    range: std::ops::RangeInclusive<i64>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<i64> {
    let (first, last) = (range.start(), range.end());
    let message = match &node.value {
        Value::Int(number) if range.contains(number) => return Some(*number),
        Value::Int(number) => format!("{number} is not from {first} to {last}"),
        Value::Float(number) => format!("{number} is no whole number from {first} to {last}"),
        Value::Text(text) if text.parse::<i64>().is_ok() => {
            format!(
                "is the text \"{}\" where a number belongs: remove the quotes",
                quote(text)
            )
        }
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            let kind = node.value.describe();
            format!("is {kind} where a number from {first} to {last} belongs")
        }
    };
    report.error(node.line, path, message);
    None
}

/// One of some words, by its spelling.
pub(crate) fn word<T: Copy>(
    text: &str,
    words: &[(&str, T)],
    line: u32,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<T> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let fix = match nearest(text, &names) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("write one of {}", names.join(", ")),
    };
    report.error(line, path, format!("`{}` is unknown: {fix}", quote(text)));
    None
}

/// A value of another kind than the field takes.
pub(crate) fn mismatch(node: &Node, path: &Path<'_>, wanted: &str, report: &mut Report) {
    let found = node.value.describe();
    report.error(
        node.line,
        path,
        format!("is {found} where {wanted} belongs"),
    );
}

/// A text that is shared from here on.
pub(crate) fn shared(text: &str) -> Text {
    Text::from(text)
}

/// After how many faulty fields of one mapping the rest is not looked at.
const UNKNOWN_MAX: usize = 20;
