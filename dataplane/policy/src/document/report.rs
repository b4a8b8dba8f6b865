//! What a run found, for people and as data.

use std::fmt;

use serde::Serialize;

/// How binding an expectation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Has to hold.
    Must,
    /// Implementations differ.
    Should,
    /// Stands in a case that is optional as a whole.
    Optional,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Optional => "optional",
        })
    }
}

/// Passed and failed verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many hold.
    pub passed: usize,
    /// How many do not.
    pub failed: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// On which engine a verdict fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The one that took the changes one by one.
    Incremental,
    /// The one that was built for the step.
    Fresh,
    /// Both, or it has nothing to do with an engine.
    Both,
}

/// A verdict that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The document's file.
    pub file: String,
    /// The case or validation.
    pub case: String,
    /// The case's group; empty for a validation.
    pub group: String,
    /// The case's title.
    pub title: String,
    /// The step, counted from 0; `None` where the case as a whole is meant.
    pub step: Option<usize>,
    /// Which probe: `tables[0] shop/till -> shop/api TCP/8443`.
    pub probe: String,
    /// How binding it is.
    pub level: Level,
    /// On which engine.
    pub scope: Scope,
    /// What the document expects.
    pub expected: String,
    /// What came out.
    pub got: String,
    /// The deciding rule, or what is wrong.
    pub reason: String,
}

impl fmt::Display for Failure {
    /// One line without a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} FAIL {}", self.file, self.level, self.case)?;
        if let Some(step) = self.step {
            write!(f, " steps[{step}]")?;
        }
        if !self.probe.is_empty() {
            write!(f, " {}", self.probe)?;
        }
        write!(f, ": expected {}, got {}", self.expected, self.got)?;
        match self.scope {
            Scope::Incremental => f.write_str(" on the incrementally updated engine")?,
            Scope::Fresh => f.write_str(" on the freshly built engine")?,
            Scope::Both => {}
        }
        match self.reason.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.reason),
        }
    }
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// Verdicts that have to hold.
    pub must: Tally,
    /// Verdicts on which implementations differ.
    pub should: Tally,
    /// Verdicts of optional cases.
    pub optional: Tally,
    /// Those that do not hold, at most `FAILURES_MAX`.
    pub failures: Vec<Failure>,
    /// How many more failures there were.
    pub left_out: usize,
}

impl TestReport {
    /// Whether everything that has to hold does.
    pub fn has_passed(&self) -> bool {
        self.must.failed == 0
    }

    /// Adds what a run of another document found.
    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in [
            (&mut self.must, other.must),
            (&mut self.should, other.should),
            (&mut self.optional, other.optional),
        ] {
            mine.passed += theirs.passed;
            mine.failed += theirs.failed;
        }
        self.left_out += other.left_out;
        for failure in other.failures {
            self.push(failure);
        }
    }

    pub(super) fn pass(&mut self, level: Level) {
        self.tally(level).passed += 1;
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.tally(failure.level).failed += 1;
        self.push(failure);
    }

    /// Counts a failure that is not listed, if the list is full: to tell its reason would be wasted work.
    pub(super) fn fail_unlisted(&mut self, level: Level) -> bool {
        let is_full = self.failures.len() >= FAILURES_MAX;
        if is_full {
            self.tally(level).failed += 1;
            self.left_out += 1;
        }
        is_full
    }

    fn push(&mut self, failure: Failure) {
        match self.failures.len() < FAILURES_MAX {
            true => self.failures.push(failure),
            false => self.left_out += 1,
        }
    }

    fn tally(&mut self, level: Level) -> &mut Tally {
        match level {
            Level::Must => &mut self.must,
            Level::Should => &mut self.should,
            Level::Optional => &mut self.optional,
        }
    }
}

impl fmt::Display for TestReport {
    /// A line per failure, then one per level; without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        if self.left_out > 0 {
            writeln!(f, "and {} more failures", self.left_out)?;
        }
        write!(f, "must: {}\nshould: {}", self.must, self.should)?;
        match self.optional == Tally::default() {
            true => Ok(()),
            false => write!(f, "\noptional: {}", self.optional),
        }
    }
}

/// How many failures one run lists.
pub const FAILURES_MAX: usize = 10_000;
