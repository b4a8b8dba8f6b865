//! Tables: which labels and figures of which rows stand in which columns, as text, as Markdown and as CSV.

use std::fmt::Write;

use serde_json::Value;

use super::{QUICK_NOTE, Report, Row};

/// A selection of a report's rows and columns.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// From left to right.
    pub columns: Vec<Column>,
    /// Places of the rows in the report, from top to bottom.
    pub rows: Vec<usize>,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its head.
    pub title: String,
    /// Its cells.
    pub cell: Cell,
}

/// What stands in the cells of a column.
#[derive(Clone, Debug)]
pub enum Cell {
    /// The label of that name.
    Label(String),
    /// The median of the figure of that name, multiplied, with so many decimals.
    Median(String, f64, usize),
    /// Half the spread of that figure in percent.
    Spread(String),
}

impl Column {
    /// A column of labels.
    pub fn label(title: &str, name: &str) -> Self {
        Self {
            title: title.to_owned(),
            cell: Cell::Label(name.to_owned()),
        }
    }

    /// A column of medians times `scale`.
    pub fn median(title: &str, name: &str, scale: f64, decimals: usize) -> Self {
        Self {
            title: title.to_owned(),
            cell: Cell::Median(name.to_owned(), scale, decimals),
        }
    }

    /// A column of half spreads.
    pub fn spread(title: &str, name: &str) -> Self {
        Self {
            title: title.to_owned(),
            cell: Cell::Spread(name.to_owned()),
        }
    }

    fn of(&self, row: &Row) -> String {
        match &self.cell {
            Cell::Label(name) => match row.labels.get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => "-".to_owned(),
            },
            Cell::Median(name, scale, decimals) => {
                row.figures.get(name).map_or("-".to_owned(), |figure| {
                    format!("{:.decimals$}", figure.median * scale)
                })
            }
            Cell::Spread(name) => row.figures.get(name).map_or("-".to_owned(), |figure| {
                format!("±{:.1}%", figure.half_spread() * 100.0)
            }),
        }
    }
}

impl Table {
    /// The cells, row by row.
    pub fn cells(&self, report: &Report) -> Vec<Vec<String>> {
        let rows = self.rows.iter().filter_map(|at| report.rows.get(*at));
        rows.map(|row| self.columns.iter().map(|column| column.of(row)).collect())
            .collect()
    }
}

/// The form for terminals.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for (name, line) in head(report) {
        wrap(&mut text, name, &line);
    }
    for table in &report.tables {
        let cells = table.cells(report);
        let widths: Vec<usize> = (0..table.columns.len())
            .map(|at| {
                let title = table.columns[at].title.chars().count();
                cells
                    .iter()
                    .map(|row| row[at].chars().count())
                    .fold(title, usize::max)
            })
            .collect();
        text += &format!("\n{}\n", table.title);
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            cells
                .zip(&widths)
                .fold(String::new(), |line, (cell, width)| {
                    format!("{line} {cell:>width$} ")
                })
        };
        let heads = line(&mut table.columns.iter().map(|column| column.title.as_str()));
        text += &format!("{}\n", heads.trim_end());
        for row in &cells {
            let row = line(&mut row.iter().map(String::as_str));
            text += &format!("{}\n", row.trim_end());
        }
    }
    text += "\n";
    for check in &report.verdict.checks {
        if let Some(wanted) = check.wanted() {
            let word = if check.holds { "met" } else { "MISSED" };
            let line = format!(
                "{} = {}, wanted {wanted}: {word}",
                check.name,
                significant(check.value),
            );
            wrap(&mut text, "target", &line);
        }
    }
    text + &report.result_line() + "\n"
}

/// The form for pull requests and `docs/results/`.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!("# patronus bench {}\n\n", report.bench);
    for (name, line) in head(report) {
        let _ = writeln!(text, "- **{name}** {}", line.replace('<', "\\<"));
    }
    for table in &report.tables {
        let titles: Vec<&str> = table
            .columns
            .iter()
            .map(|column| column.title.as_str())
            .collect();
        let rule: Vec<&str> = titles.iter().map(|_| "---:").collect();
        let _ = writeln!(
            text,
            "\n## {}\n\n| {} |\n| {} |",
            table.title,
            titles.join(" | "),
            rule.join(" | ")
        );
        for row in table.cells(report) {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
    }
    for plot in &report.plots {
        let _ = writeln!(text, "\n![{}]({}.svg)", plot.title, plot.name);
    }
    let _ = writeln!(text, "\n`{}`", report.result_line());
    text
}

/// One line per trial of every figure of every row.
pub(super) fn csv(report: &Report) -> String {
    let mut text = String::new();
    if !report.is_measurement {
        let _ = writeln!(text, "# {QUICK_NOTE}");
    }
    let mut labels: Vec<&str> = report
        .rows
        .iter()
        .flat_map(|row| row.labels.keys().map(String::as_str))
        .collect();
    labels.sort_unstable();
    labels.dedup();
    let _ = writeln!(text, "{},figure,unit,trial,value", labels.join(","));
    for row in &report.rows {
        let cells = labels.iter().map(|name| match row.labels.get(*name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        });
        let cells = cells.collect::<Vec<_>>().join(",");
        for (name, figure) in &row.figures {
            for (trial, value) in figure.trials.iter().enumerate() {
                let _ = writeln!(text, "{cells},{name},{},{trial},{value}", figure.unit);
            }
        }
    }
    text
}

/// What stands above the tables.
pub(super) fn head(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines = report.env.lines();
    let method: Vec<String> = report
        .method
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            value => format!("{name} {value}"),
        })
        .collect();
    lines.push(("method", method.join("; ")));
    lines.extend(report.all_notes().map(|note| ("note", note.to_owned())));
    lines
}

/// Three digits where there are any to show.
pub(super) fn significant(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A paragraph of 80 columns beside its name.
fn wrap(text: &mut String, name: &str, paragraph: &str) {
    const NAME: usize = 9;
    const WIDTH: usize = 80;
    let mut line = format!("{name:<NAME$}");
    let mut is_fresh = true;
    for word in paragraph.split_whitespace() {
        if !is_fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            *text += &format!("{line}\n");
            line = " ".repeat(NAME);
            is_fresh = true;
        }
        if !is_fresh {
            line.push(' ');
        }
        line += word;
        is_fresh = false;
    }
    *text += &format!("{}\n", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn markdown_has_a_table_row_per_case() {
        let text = sample(true).to_markdown();
        assert!(text.contains("| inner | dir | ns/pkt | ± |\n| ---: | ---: | ---: | ---: |\n"));
        assert!(
            text.contains("| 64 | seal | 150.0 | ±50.0% |\n| 1420 | open | 900.0 | ±50.0% |\n")
        );
        assert!(text.contains("![Time per packet](by-size.svg)"));
        assert!(text.contains("a \\<note> & more"));
    }

    #[test]
    fn csv_has_a_line_per_trial() {
        let text = sample(true).to_csv();
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some("direction,inner_bytes,figure,unit,trial,value")
        );
        assert_eq!(lines.next(), Some("seal,64,ns_per_packet,ns,0,150"));
        assert_eq!(lines.count(), 5);
    }

    #[test]
    fn long_paragraphs_are_wrapped_beside_their_name() {
        let mut text = String::new();
        wrap(&mut text, "note", &"word ".repeat(40));
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.len() <= 80));
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("         word"))
        );
    }
}
