//! What is wrong with a file, where, and how to put it right.

use std::fmt;
use std::num::NonZeroUsize;

use crate::keys::looks_like_key;

/// One fault of one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file, as the operator named it.
    pub file: String,
    /// The line, counted from 1; `None` where the file as a whole is meant.
    pub line: Option<NonZeroUsize>,
    /// Section, key, what is wrong, and the fix.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Every fault that one run found, in the order of their lines; at most [`DIAGNOSTICS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    diagnostics: Vec<Diagnostic>,
    left_out: usize,
}

impl ConfigErrors {
    /// The faults.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many more there were beyond the limit.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// A single fault of a file as a whole.
    pub(crate) fn of_file(file: &str, message: String) -> Self {
        let mut report = Report::new(file);
        report.push(None, message);
        report.into_errors()
    }
}

impl fmt::Display for ConfigErrors {
    /// One line each, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.diagnostics.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more faults", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A line number, counted from 1.
pub(crate) type Line = NonZeroUsize;

/// Gathers the faults of one file while it is read.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    diagnostics: Vec<Diagnostic>,
    left_out: usize,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            diagnostics: Vec::new(),
            left_out: 0,
        }
    }

    /// Notes a fault; counts it only once the list is full.
    pub(crate) fn push(&mut self, line: Option<Line>, message: String) {
        if self.diagnostics.len() == DIAGNOSTICS_MAX {
            self.left_out += 1;
            return;
        }
        self.diagnostics.push(Diagnostic {
            file: self.file.clone(),
            line,
            message,
        });
    }

    /// Notes a fault of one line.
    pub(crate) fn at(&mut self, line: Line, message: impl Into<String>) {
        self.push(Some(line), message.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Faults so far.
    pub(crate) fn count(&self) -> usize {
        self.diagnostics.len() + self.left_out
    }

    pub(crate) fn into_errors(mut self) -> ConfigErrors {
        debug_assert!(!self.is_empty(), "a refusal without a reason");
        self.diagnostics.sort();
        ConfigErrors {
            diagnostics: self.diagnostics,
            left_out: self.left_out,
        }
    }
}

/// Finds the line of a byte offset.
#[derive(Debug)]
pub(crate) struct LineIndex {
    /// Offsets of the newlines, ascending.
    newlines: Vec<usize>,
}

impl LineIndex {
    pub(crate) fn new(text: &str) -> Self {
        let newlines = text
            .bytes()
            .enumerate()
            .filter_map(|(at, byte)| (byte == b'\n').then_some(at))
            .collect();
        Self { newlines }
    }

    pub(crate) fn line(&self, offset: usize) -> Line {
        let before = self.newlines.partition_point(|newline| *newline < offset);
        Line::MIN.saturating_add(before)
    }
}

/// Outside text made fit for a message: control characters escaped, at most 64 characters. What looks
/// like a WireGuard key may be a secret in the wrong place, and is not shown.
pub(crate) fn quote(text: &str) -> String {
    if looks_like_key(text) {
        return "(a key)".to_owned();
    }
    let mut quoted: String = text
        .chars()
        .take(QUOTE_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

/// How many faults one run lists.
pub const DIAGNOSTICS_MAX: usize = 100;
const QUOTE_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_belongs_to_the_line_that_it_ends() {
        let index = LineIndex::new("ab\ncd\n");
        let lines: Vec<usize> = (0..7).map(|at| index.line(at).get()).collect();
        assert_eq!(lines, [1, 1, 1, 2, 2, 2, 3]);
    }

    #[test]
    fn faults_come_in_the_order_of_their_lines_and_the_rest_is_counted() {
        let mut report = Report::new("f");
        for line in (1..=DIAGNOSTICS_MAX + 3).rev() {
            report.push(Line::new(line), "bad".to_owned());
        }
        let errors = report.into_errors();
        assert_eq!(errors.diagnostics().len(), DIAGNOSTICS_MAX);
        assert_eq!(errors.left_out(), 3);
        assert!(errors.to_string().starts_with("f:4: bad\nf:5: bad\n"));
        assert!(errors.to_string().ends_with("\nand 3 more faults"));
    }

    #[test]
    fn a_quote_is_short_and_has_no_control_characters() {
        assert_eq!(quote("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(quote(&"é".repeat(100)).chars().count(), QUOTE_CHARS_MAX + 1);
    }
}
