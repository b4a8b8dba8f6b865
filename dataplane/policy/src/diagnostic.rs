//! What is wrong with an object, where, and how to put it right.

use std::fmt;

use serde::Serialize;

use crate::model::Text;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is refused; its previous version stays in force.
    Error,
    /// The object is taken, and may not do what its author meant.
    Warning,
}

/// One finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the object is refused by it.
    pub severity: Severity,
    /// The file, as the operator named it.
    pub file: Text,
    /// The line, counted from 1.
    pub line: u32,
    /// Kind, namespace and name, as far as known: `NetworkPolicy shop/api`.
    pub object: Option<String>,
    /// The field: `spec.ingress[0].ports[1].endPort`; empty where the object as a whole is meant.
    pub field: String,
    /// What is wrong and the fix; one line.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    /// One line without a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Where in an object a value stands; costs nothing until it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(crate) fn field(&'p self, name: &'p str) -> Self {
        Path::Field(self, name)
    }

    pub(crate) fn index(&'p self, index: usize) -> Self {
        Path::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    /// Recursion is bounded by the depth of the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            // A label key has dots of its own.
            Self::Field(parent, name) if name.contains(['.', '/']) || name.len() > NAME_LEN_MAX => {
                write!(f, "{parent}[{}]", quote(name))
            }
            Self::Field(Path::Root, name) => f.write_str(&quote(name)),
            Self::Field(parent, name) => write!(f, "{parent}.{}", quote(name)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Gathers diagnostics, and knows whether the object that is being read has an error.
#[derive(Debug)]
pub(crate) struct Report {
    file: Text,
    object: Option<String>,
    object_errors: usize,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    left_out: usize,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: quote_path(file).into(),
            object: None,
            object_errors: 0,
            diagnostics: Vec::new(),
            errors: 0,
            warnings: 0,
            left_out: 0,
        }
    }

    pub(crate) fn file(&self) -> &Text {
        &self.file
    }

    pub(crate) fn set_file(&mut self, file: &str) {
        self.file = quote_path(file).into();
    }

    /// What follows is about that object.
    pub(crate) fn begin_object(&mut self, object: Option<String>) {
        self.object = object;
        self.object_errors = 0;
    }

    /// How many errors the object has.
    pub(crate) fn object_errors(&self) -> usize {
        self.object_errors
    }

    pub(crate) fn error(&mut self, line: u32, path: &Path<'_>, message: impl Into<String>) {
        self.object_errors += 1;
        self.push(Severity::Error, line, path, message.into());
    }

    pub(crate) fn warn(&mut self, line: u32, path: &Path<'_>, message: impl Into<String>) {
        self.push(Severity::Warning, line, path, message.into());
    }

    fn push(&mut self, severity: Severity, line: u32, path: &Path<'_>, message: String) {
        let listed = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if *listed == DIAGNOSTICS_MAX {
            self.left_out += 1;
            return;
        }
        *listed += 1;
        self.diagnostics.push(Diagnostic {
            severity,
            file: self.file.clone(),
            line,
            object: self.object.clone(),
            field: path.to_string(),
            message,
        });
    }

    /// The diagnostics, and how many more there were.
    pub(crate) fn finish(self) -> (Vec<Diagnostic>, usize) {
        (self.diagnostics, self.left_out)
    }
}

/// Outside text made fit for a message: control characters escaped, at most 80 characters.
pub(crate) fn quote(text: &str) -> String {
    quote_up_to(text, QUOTE_CHARS_MAX)
}

/// The name of a file, whose end tells more than its beginning.
fn quote_path(path: &str) -> String {
    quote_up_to(path, PATH_CHARS_MAX)
}

fn quote_up_to(text: &str, chars_max: usize) -> String {
    let mut quoted = String::new();
    for char in text.chars().take(chars_max) {
        match char {
            '"' | '\'' | '\\' => quoted.push(char),
            _ => quoted.extend(char.escape_debug()),
        }
    }
    if text.chars().nth(chars_max).is_some() {
        quoted.push('…');
    }
    quoted
}

/// How many errors, and how many warnings, one run lists.
pub const DIAGNOSTICS_MAX: usize = 1000;
const QUOTE_CHARS_MAX: usize = 80;
/// As long as Linux takes paths.
const PATH_CHARS_MAX: usize = 4096;
const NAME_LEN_MAX: usize = 63;
