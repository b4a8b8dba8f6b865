//! Standard output, for people in 80 columns and for programs as JSON.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the answer as JSON")?;
    text_out(&(text + "\n"));
    Ok(())
}

/// Prints text. A reader that went away is no fault.
pub fn text_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// One line broken between words into lines of 80 columns; those after the first are indented by `indent`. A word
/// that is longer, such as a path, stays whole so that it can be copied.
pub fn wrapped(line: &str, indent: usize) -> String {
    let lead = line.len() - line.trim_start().len();
    let mut text = line[..lead].to_owned();
    let (mut column, mut is_first) = (lead, true);
    for word in line.split_whitespace() {
        let width = word.chars().count();
        if !is_first && column + 1 + width > COLUMNS {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if !is_first {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += width;
        is_first = false;
    }
    text.push('\n');
    text
}

/// `1 policy`, `2 policies`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

const COLUMNS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_before_column_80_and_keep_long_words() {
        let line = format!("  {} {}", "word ".repeat(30), "x".repeat(100));
        let text = wrapped(&line, 4);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("  word"));
        assert!(
            lines[1..]
                .iter()
                .all(|it| it.starts_with("    ") && !it.starts_with("     "))
        );
        assert_eq!(lines.iter().filter(|it| it.len() > 80).count(), 1);
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            line.split_whitespace().collect::<Vec<_>>()
        );
    }
}
