//! A screen as a file: as text, as the gateway's own JSON, or its table as CSV.

use std::fmt::Write as _;

use crate::keymap::Screen;
use crate::model::Model;
use crate::{screens, view};

/// The content for a file of that name.
///
/// # Errors
/// Where the name ends in nothing that is known, or there is nothing to write yet.
pub fn export(model: &Model, path: &str) -> Result<String, String> {
    let ending = path
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("txt") => Ok(view::text(model)),
        Some("json") => json(model),
        Some("csv") => Ok(csv(model)),
        Some(_) | None => Err(format!("\"{path}\": end the name in .txt, .json or .csv")),
    }
}

/// What the gateway said that the screen shows.
///
/// # Errors
/// Where nothing came yet.
pub fn json(model: &Model) -> Result<String, String> {
    let data = model.data();
    let text = match model.screen {
        Screen::Flows => data.flows.as_ref().map(serde_json::to_string_pretty),
        Screen::Policy => data.rules.as_ref().map(serde_json::to_string_pretty),
        Screen::Events => Some(serde_json::to_string_pretty(&data.events)),
        Screen::Overview | Screen::Paths | Screen::Peers | Screen::Workers => {
            data.snapshot.as_ref().map(serde_json::to_string_pretty)
        }
    };
    let text = text.ok_or("nothing came from the gateway yet")?;
    let mut text = text.map_err(|error| error.to_string())?;
    text.push('\n');
    Ok(text)
}

/// The rows of the screen's table, filtered and sorted as they are shown (RFC 4180).
pub fn csv(model: &Model) -> String {
    let mut out = String::new();
    let mut line = |fields: &mut dyn Iterator<Item = &str>| {
        for (place, field) in fields.enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let _ = write!(out, "{comma}{}", quoted(field));
        }
        out.push_str("\r\n");
    };
    line(&mut screens::columns(model).iter().map(|column| column.title));
    for row in model.rows() {
        line(&mut row.cells.iter().map(|cell| cell.text.as_str()));
    }
    out
}

fn quoted(field: &str) -> String {
    // A spreadsheet takes what begins with these for a formula.
    let is_formula = field.starts_with(['=', '+', '@']);
    if is_formula || field.contains([',', '"', '\r', '\n']) {
        let guard = if is_formula { "'" } else { "" };
        return format!("\"{guard}{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for (field, text) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("", ""),
        ] {
            assert_eq!(quoted(field), text);
        }
    }
}
