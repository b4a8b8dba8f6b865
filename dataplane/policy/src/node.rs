//! A text as a tree in which every node knows its line: what manifests and test documents are read from.
//!
//! YAML and JSON make the same tree. Whatever the bytes are, time and memory are bounded by [`Limits`]; what is
//! ambiguous (duplicate keys, aliases, tags of one's own, invisible characters) is refused rather than guessed.

use std::collections::HashSet;

use crate::{json, yaml};

/// A value of the text, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The line, counted from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text; a quoted number is one.
    Text(Box<str>),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the text; no key twice.
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key stands.
    pub line: u32,
    /// Its value.
    pub node: Node,
}

/// How much one text may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the text.
    pub bytes: usize,
    /// Values in all documents of the text together.
    pub nodes: usize,
    /// How deep values may nest.
    pub depth: usize,
}

impl Limits {
    /// For a file of manifests.
    pub const MANIFEST: Self = Self {
        bytes: 16 << 20,
        nodes: 2_000_000,
        depth: 64,
    };
    /// For a policy test document, which holds many small clusters.
    pub const TEST_DOCUMENT: Self = Self {
        bytes: 64 << 20,
        nodes: 8_000_000,
        depth: 64,
    };
}

/// Why a text is no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TextError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong and how to put it right; without control characters.
    pub message: String,
    /// Whether another reading of the text might succeed.
    pub(crate) is_syntax: bool,
}

impl TextError {
    /// The text is not of that grammar.
    pub(crate) fn syntax(line: u32, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            is_syntax: true,
        }
    }

    /// The text is of the grammar, and refused all the same.
    pub(crate) fn refused(line: u32, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            is_syntax: false,
        }
    }
}

/// Reads a text of any number of documents, YAML or JSON; empty documents are left out.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Vec<Node>, TextError> {
    if bytes.len() > limits.bytes {
        let message = format!(
            "the text has {} bytes and at most {} are read: split it into several files",
            bytes.len(),
            limits.bytes
        );
        return Err(TextError::refused(1, message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = lines_before(&bytes[..error.valid_up_to()]);
        TextError::refused(
            line,
            "the text is not valid UTF-8 here: save the file as UTF-8",
        )
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = text.trim_start();
    if !start.starts_with(['{', '[']) {
        return yaml::parse(text, limits);
    }
    // A text that begins like JSON may still be YAML in flow style.
    let json_error = match json::parse(text, limits) {
        Ok(documents) => return Ok(documents),
        Err(error) if !error.is_syntax => return Err(error),
        Err(error) => error,
    };
    yaml::parse(text, limits).map_err(|yaml_error| {
        let inside = start[1..].trim_start();
        match yaml_error.is_syntax && inside.starts_with(JSON_STARTS) {
            true => json_error,
            false => yaml_error,
        }
    })
}

fn lines_before(bytes: &[u8]) -> u32 {
    let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(newlines).map_or(u32::MAX, |newlines| newlines.saturating_add(1))
}

impl Node {
    /// The value under a key of a mapping.
    pub fn field(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| *entry.key == *key)?;
        Some(&entry.node)
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }
}

impl Value {
    /// What it is, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Counts the values of a text against its limit.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    limits: Limits,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            left: limits.nodes,
            limits,
        }
    }

    /// One value more, at that depth.
    pub(crate) fn take(&mut self, depth: usize, line: u32) -> Result<(), TextError> {
        if depth > self.limits.depth {
            let message = format!("values nest deeper than {} levels", self.limits.depth);
            return Err(TextError::refused(line, message));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            let max = self.limits.nodes;
            TextError::refused(
                line,
                format!("the text has more than {max} values: split it"),
            )
        })?;
        Ok(())
    }
}

/// A mapping while it is read: refuses a key that it has.
#[derive(Debug, Default)]
pub(crate) struct MapBuilder {
    entries: Vec<Entry>,
    /// Filled only once a linear search would take long.
    seen: HashSet<Box<str>>,
}

impl MapBuilder {
    /// Whether the key is new.
    pub(crate) fn check(&mut self, key: &str, line: u32) -> Result<(), TextError> {
        let is_known = match self.entries.len() < LINEAR_MAX {
            true => self.entries.iter().any(|entry| *entry.key == *key),
            false => self.seen.contains(key),
        };
        if !is_known {
            return Ok(());
        }
        let first = self.entries.iter().find(|entry| *entry.key == *key);
        let first = first.map_or(0, |entry| entry.line);
        let key = crate::diagnostic::quote(key);
        let message =
            format!("`{key}` stands there twice, first in line {first}: remove one of them");
        Err(TextError::refused(line, message))
    }

    /// Adds an entry whose key was checked.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.entries.len() + 1 == LINEAR_MAX {
            self.seen
                .extend(self.entries.iter().map(|entry| entry.key.clone()));
        }
        if self.entries.len() + 1 >= LINEAR_MAX {
            self.seen.insert(entry.key.clone());
        }
        self.entries.push(entry);
    }

    pub(crate) fn finish(self) -> Value {
        Value::Map(self.entries)
    }
}

/// Up to how many entries a key is searched one by one.
const LINEAR_MAX: usize = 16;
/// What follows the first bracket of JSON, and seldom of YAML.
const JSON_STARTS: &[char] = &[
    '"', '}', '{', '[', ']', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9',
];
