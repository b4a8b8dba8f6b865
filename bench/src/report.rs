//! What a benchmark hands to its reader: where it ran, how it measured, rows of figures, a verdict.
//!
//! One [`Report`] is written in every form: a table for the terminal, one JSON document
//! (`bench/schema/report-v1.json`), Markdown, a self-contained page with plots, percentile listings for HdrHistogram's
//! plotters, and the single trials as CSV. Numbers in JSON are in base units: bytes, nanoseconds, per second. A run
//! with `--quick` says in every form that it is no measurement.

mod env;
mod hgrm;
mod html;
mod svg;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

pub use env::{Env, Git};
pub use hgrm::hgrm;
pub use svg::{Kind, Plot, Point, Series};
pub use table::{Cell, Column, Table};

use crate::stats;

/// The version of the JSON document: the `schema` member, and the file's name in `bench/schema/`.
pub const SCHEMA: &str = "patronus-bench-report/1";
/// What `--quick` has every form say.
pub const QUICK_NOTE: &str = "not a measurement: --quick only shows that the tool works";

/// One run of one benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Which benchmark this is, as on the command line.
    pub bench: String,
    /// `false` for `--quick`.
    pub is_measurement: bool,
    /// What a reader must know to doubt the figures.
    pub notes: Vec<String>,
    /// Where it ran.
    pub env: Env,
    /// How it measured.
    pub method: BTreeMap<String, Value>,
    /// What it measured.
    pub rows: Vec<Row>,
    /// Against which targets.
    pub verdict: Verdict,
    /// How rows become tables.
    #[serde(skip)]
    pub tables: Vec<Table>,
    /// What is drawn.
    #[serde(skip)]
    pub plots: Vec<Plot>,
    /// Distributions by name, each a `.hgrm` file.
    #[serde(skip)]
    pub distributions: Vec<Distribution>,
}

/// How values of one kind are spread.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Name of its file without the end.
    pub name: String,
    /// Unit of its listing.
    pub unit: &'static str,
    /// Recorded values per unit: 1000 where nanoseconds were recorded as picoseconds.
    pub scale: f64,
    /// The values.
    pub histogram: Histogram<u64>,
}

/// One case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What distinguishes the case from others: numbers or words.
    pub labels: BTreeMap<String, Value>,
    /// What was measured.
    pub figures: BTreeMap<String, Figure>,
}

/// One quantity over all trials.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Unit of all values; empty for a ratio.
    pub unit: &'static str,
    /// The middle trial.
    pub median: f64,
    /// The smallest trial.
    pub min: f64,
    /// The largest trial.
    pub max: f64,
    /// All trials, in the order they ran.
    pub trials: Vec<f64>,
}

/// Targets, and whether they were met.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The whole.
    pub outcome: Outcome,
    /// The parts.
    pub checks: Vec<Check>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every target was met.
    Pass,
    /// One was not.
    Miss,
    /// There was none, or this is no measurement.
    None,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was checked, as in the `RESULT` line.
    pub name: String,
    /// The median that was reached.
    pub value: f64,
    /// The least that is wanted, if anything is.
    pub at_least: Option<f64>,
    /// The most that is wanted, if anything is.
    pub at_most: Option<f64>,
    /// Whether it was reached; true where nothing is wanted.
    pub holds: bool,
}

/// Where a report goes.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// One JSON document on standard output, and nothing else.
    pub json: bool,
    /// A directory for all forms.
    pub out: Option<PathBuf>,
}

impl Figure {
    /// The figure of these trials, of which there is at least one.
    pub fn new(unit: &'static str, trials: Vec<f64>) -> Self {
        let (min, max) = stats::extremes(&trials);
        Self {
            unit,
            median: stats::median(&trials),
            min,
            max,
            trials,
        }
    }

    /// Half the distance between the extremes as a share of the median.
    pub fn half_spread(&self) -> f64 {
        stats::half_spread(&self.trials)
    }
}

impl Row {
    /// The row with one more label.
    #[must_use]
    pub fn label(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.labels.insert(name.to_owned(), value.into());
        self
    }

    /// The row with one more figure.
    #[must_use]
    pub fn figure(mut self, name: &str, figure: Figure) -> Self {
        self.figures.insert(name.to_owned(), figure);
        self
    }

    /// Whether the row has all these labels.
    pub fn is(&self, labels: &[(&str, Value)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.labels.get(*name) == Some(value))
    }
}

impl Check {
    /// A check of `value` against the least that is wanted.
    pub fn at_least(name: impl Into<String>, value: f64, target: f64) -> Self {
        Self {
            name: name.into(),
            value,
            at_least: Some(target),
            at_most: None,
            holds: value >= target,
        }
    }

    /// A check of `value` against the most that is wanted.
    pub fn at_most(name: impl Into<String>, value: f64, target: f64) -> Self {
        Self {
            name: name.into(),
            value,
            at_least: None,
            at_most: Some(target),
            holds: value <= target,
        }
    }

    /// What is wanted, in words; `None` where nothing is.
    pub fn wanted(&self) -> Option<String> {
        match (self.at_least, self.at_most) {
            (Some(target), _) => Some(format!("{} or more", table::significant(target))),
            (None, Some(target)) => Some(format!("{} or less", table::significant(target))),
            (None, None) => None,
        }
    }

    /// A figure for the `RESULT` line of which nothing is wanted.
    pub fn figure(name: impl Into<String>, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
            at_least: None,
            at_most: None,
            holds: true,
        }
    }
}

impl Verdict {
    /// What these checks come to. What is no measurement passes nothing and misses nothing.
    pub fn of(checks: Vec<Check>, is_measurement: bool) -> Self {
        let has_targets = checks.iter().any(|check| check.wanted().is_some());
        let outcome = match checks.iter().all(|check| check.holds) {
            _ if !is_measurement || !has_targets => Outcome::None,
            true => Outcome::Pass,
            false => Outcome::Miss,
        };
        Self { outcome, checks }
    }
}

impl Outcome {
    /// The word in the `RESULT` line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Miss => "miss",
            Self::None => "none",
        }
    }
}

impl Report {
    /// The notes, the one about `--quick` first.
    pub fn all_notes(&self) -> impl Iterator<Item = &str> {
        let quick = (!self.is_measurement).then_some(QUICK_NOTE);
        quick
            .into_iter()
            .chain(self.notes.iter().map(String::as_str))
    }

    /// The JSON document.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn to_json(&self) -> Result<String> {
        let mut document = serde_json::to_value(self).context("writing the report as JSON")?;
        document["notes"] = self.all_notes().collect();
        serde_json::to_string_pretty(&document).context("writing the report as JSON")
    }

    /// The last line of the human form: `RESULT name=value … verdict=word`.
    pub fn result_line(&self) -> String {
        let mut line = "RESULT".to_owned();
        for check in &self.verdict.checks {
            line += &format!(" {}={}", check.name, table::significant(check.value));
        }
        if !self.is_measurement {
            line += " quick=not-a-measurement";
        }
        line + " verdict=" + self.verdict.outcome.name()
    }

    /// The table for a terminal of 80 columns; its last line is [`result_line`](Self::result_line).
    pub fn to_text(&self) -> String {
        table::text(self)
    }

    /// The report as Markdown.
    pub fn to_markdown(&self) -> String {
        table::markdown(self)
    }

    /// The report as one page that needs nothing else.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// One line per trial of every figure.
    pub fn to_csv(&self) -> String {
        table::csv(self)
    }

    /// Writes all forms into a directory, which is made if it is missing; returns the files.
    ///
    /// # Errors
    /// The file that could not be written.
    pub fn write_all(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(dir)
            .with_context(|| format!("making the directory {}", dir.display()))?;
        let mut files = vec![
            ("summary.json".to_owned(), self.to_json()? + "\n"),
            ("report.md".to_owned(), self.to_markdown()),
            ("index.html".to_owned(), self.to_html()),
            ("raw.csv".to_owned(), self.to_csv()),
        ];
        for plot in &self.plots {
            files.push((format!("{}.svg", plot.name), self.stamped(plot)));
        }
        for distribution in &self.distributions {
            let name = format!("{}.hgrm", distribution.name);
            files.push((name, self.listing(distribution)));
        }
        let mut written = Vec::with_capacity(files.len());
        for (name, text) in files {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            written.push(path);
        }
        Ok(written)
    }

    /// A plot that may be shown without its page.
    fn stamped(&self, plot: &Plot) -> String {
        let svg = plot.to_svg();
        match self.is_measurement {
            true => svg,
            false => svg.replace(
                "</svg>",
                &format!("<text x=\"56\" y=\"14\">{QUICK_NOTE}</text>\n</svg>"),
            ),
        }
    }

    fn listing(&self, distribution: &Distribution) -> String {
        let mut text = hgrm(&distribution.histogram, distribution.scale);
        text += &format!("#[Unit    = {}]\n", distribution.unit);
        if !self.is_measurement {
            text += &format!("#[{QUICK_NOTE}]\n");
        }
        text
    }
}

/// Writes a report where it is wanted: files first, then standard output.
///
/// # Errors
/// A file that could not be written. A reader of standard output that went away is none.
pub fn publish(report: &Report, destination: &Destination) -> Result<()> {
    if let Some(dir) = &destination.out {
        let files = report.write_all(dir)?;
        eprintln!("wrote    {} files into {}", files.len(), dir.display());
    }
    let text = match destination.json {
        true => report.to_json()? + "\n",
        false => report.to_text(),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small report of every kind of part.
    pub(crate) fn sample(is_measurement: bool) -> Report {
        let row = |inner: u64, direction: &str, ns: f64| {
            Row::default()
                .label("inner_bytes", inner)
                .label("direction", direction)
                .figure(
                    "ns_per_packet",
                    Figure::new("ns", vec![ns, ns * 1.5, ns * 0.5]),
                )
        };
        let point = |x: &str, y| Point {
            x: x.to_owned(),
            y,
            min: y * 0.9,
            max: y * 1.1,
        };
        let mut histogram = Histogram::new(3).unwrap();
        for value in [100, 200, 300, 100_000] {
            histogram.record(value).unwrap();
        }
        Report {
            schema: SCHEMA,
            bench: "sample".to_owned(),
            is_measurement,
            notes: vec!["a <note> & more".to_owned()],
            env: Env::read("patronus bench sample").unwrap(),
            method: BTreeMap::from([("trials".to_owned(), 3.into())]),
            rows: vec![row(64, "seal", 150.0), row(1420, "open", 900.0)],
            verdict: Verdict::of(
                vec![
                    Check::at_least("seal_of_aead", 0.8, 0.75),
                    Check::figure("ns", 900.0),
                ],
                is_measurement,
            ),
            tables: vec![Table {
                title: "By size".to_owned(),
                columns: vec![
                    Column::label("inner", "inner_bytes"),
                    Column::label("dir", "direction"),
                    Column::median("ns/pkt", "ns_per_packet", 1.0, 1),
                    Column::spread("±", "ns_per_packet"),
                ],
                rows: vec![0, 1],
            }],
            plots: vec![Plot {
                name: "by-size".to_owned(),
                title: "Time per packet".to_owned(),
                y_title: "ns".to_owned(),
                kind: Kind::Bars,
                series: vec![Series {
                    name: "seal".to_owned(),
                    points: vec![point("64", 150.0), point("1420", 900.0)],
                }],
                mark: Some((500.0, "target".to_owned())),
            }],
            distributions: vec![Distribution {
                name: "seal-64".to_owned(),
                unit: "ns",
                scale: 1.0,
                histogram,
            }],
        }
    }

    #[test]
    fn the_human_form_fits_80_columns_and_ends_with_its_result() {
        let text = sample(true).to_text();
        for line in text.lines().filter(|line| !line.starts_with("RESULT")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert_eq!(
            text.lines().last(),
            Some("RESULT seal_of_aead=0.800 ns=900 verdict=pass")
        );
        assert!(text.contains("150.0"), "{text}");
    }

    #[test]
    fn every_form_of_a_quick_run_says_that_it_is_no_measurement() {
        let report = sample(false);
        let json = report.to_json().unwrap();
        assert!(json.contains(r#""is_measurement": false"#), "{json}");
        assert!(json.contains("not a measurement"));
        let svg = report.stamped(&report.plots[0]);
        assert!(svg.contains("not a measurement") && svg.ends_with("</svg>\n"));
        assert!(report.to_text().contains("not a measurement"));
        assert!(report.to_markdown().contains("not a measurement"));
        assert!(report.to_html().contains("not a measurement"));
        assert!(report.to_csv().contains("not a measurement"));
        assert!(
            report
                .listing(&report.distributions[0])
                .contains("not a measurement")
        );
        assert_eq!(report.verdict.outcome, Outcome::None);
    }

    #[test]
    fn a_missed_target_is_a_miss_and_a_figure_without_target_is_not() {
        let check = |value| Check::at_least("x", value, 0.75);
        assert_eq!(Verdict::of(vec![check(0.74)], true).outcome, Outcome::Miss);
        assert_eq!(Verdict::of(vec![check(0.75)], true).outcome, Outcome::Pass);
        let check = |value| Check::at_most("x", value, 10.0);
        assert_eq!(Verdict::of(vec![check(10.1)], true).outcome, Outcome::Miss);
        assert_eq!(Verdict::of(vec![check(9.9)], true).outcome, Outcome::Pass);
        let figure = Check::figure("x", 0.0);
        assert_eq!(Verdict::of(vec![figure], true).outcome, Outcome::None);
    }

    #[test]
    fn all_forms_are_written_into_a_directory_that_did_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let files = sample(true).write_all(&dir.path().join("new")).unwrap();
        let names: Vec<_> = files
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "summary.json",
                "report.md",
                "index.html",
                "raw.csv",
                "by-size.svg",
                "seal-64.hgrm"
            ]
        );
        assert!(files.iter().all(|path| path.metadata().unwrap().len() > 0));
    }
}
