//! What only looks: a file, the defaults, the history, a text.

use std::path::Path;

use patronus_api::{ConfigEntryView, ConfigFileState, ConfigResponse};
use serde::Serialize;

use super::{DONE, HistoryArgs, NOT_WELL, ShowArgs};
use crate::paths::words::{age, utc};
use crate::print;

/// What `config check --json` prints.
#[derive(Serialize)]
struct Checked {
    file: String,
    ok: bool,
    /// What it sets up, in one line; `None` where it is faulty.
    summary: Option<String>,
    /// What is wrong, a line each.
    faults: Vec<String>,
}

/// What `config defaults --json` prints, for each key.
#[derive(Serialize)]
struct DefaultView {
    section: &'static str,
    key: &'static str,
    /// As TOML; `None` where it has no default.
    default: Option<&'static str>,
    /// As TOML, where it has no default.
    example: Option<&'static str>,
}

/// Says whether a file is right.
pub fn check(file: &Path, json: bool) -> anyhow::Result<u8> {
    let checked = patronus_config::check(file);
    if !json {
        println!("{}", checked?);
        return Ok(DONE);
    }
    let is_ok = checked.is_ok();
    let (summary, faults) = match checked {
        Ok(summary) => (Some(summary.to_string()), Vec::new()),
        Err(errors) => {
            let lines = errors.to_string();
            (None, lines.lines().map(str::to_owned).collect())
        }
    };
    print::json(&Checked {
        file: file.display().to_string(),
        ok: is_ok,
        summary,
        faults,
    })?;
    Ok(if is_ok { DONE } else { 1 })
}

/// Prints the defaults.
pub fn defaults(json: bool) -> anyhow::Result<u8> {
    if !json {
        print::text_out(patronus_config::defaults::DEFAULTS);
        return Ok(DONE);
    }
    let keys = patronus_config::defaults::default_keys().into_iter();
    let views = keys.map(|it| DefaultView {
        section: it.section,
        key: it.key,
        default: it.is_default.then_some(it.value),
        example: (!it.is_default).then_some(it.value),
    });
    print::json(&views.collect::<Vec<_>>())?;
    Ok(DONE)
}

/// Prints a text.
pub fn show(args: &ShowArgs) -> anyhow::Result<u8> {
    let told = args.gateway.connect()?.config_text(&args.entry)?;
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&told.text),
    }
    Ok(DONE)
}

/// Lists what was applied.
pub fn history(args: &HistoryArgs) -> anyhow::Result<u8> {
    let told = args.gateway.connect()?.config()?;
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told)),
    }
    let is_well = told.pending.is_none()
        && told.problem.is_none()
        && told.file_state == ConfigFileState::Same;
    Ok(if is_well { DONE } else { NOT_WELL })
}

fn for_people(told: &ConfigResponse) -> String {
    let mut text = String::new();
    if !told.entries.is_empty() {
        text += "     #  when                  how       state     from\n";
    }
    for entry in &told.entries {
        text += &row(entry, told.running == Some(entry.number));
    }
    let file = &told.file;
    let mut lines = vec![match told.file_state {
        ConfigFileState::Same => format!("{file} is what runs"),
        ConfigFileState::Superseded => format!(
            "{file} is another text than what runs, and was there before it: the next start goes on with what runs; \
             `patronus config apply` takes the file"
        ),
        ConfigFileState::Edited => format!(
            "{file} was edited since: `patronus config diff` says what it changes, `patronus config apply` or the next \
             start takes it"
        ),
        ConfigFileState::Unreadable => format!("{file} cannot be read by the gateway"),
    }];
    if !told.at_next_start.is_empty() {
        let what = told.at_next_start.join(", ");
        lines.push(format!("takes effect at the next start only: {what}"));
    }
    if let Some(pending) = &told.pending {
        lines.push(format!(
            "{} waits {} for `patronus config confirm`, else {} comes back",
            pending.number,
            age(pending.left_s as f64),
            pending.previous
        ));
    }
    if let Some(problem) = &told.problem {
        lines.push(format!("warning: not recorded: {problem}"));
    }
    text + &lines
        .iter()
        .map(|line| print::wrapped(line, 4))
        .collect::<String>()
}

fn row(entry: &ConfigEntryView, runs: bool) -> String {
    let mark = if runs { '>' } else { ' ' };
    // A path's end tells more than its beginning.
    let source: Vec<char> = entry.source.chars().collect();
    let source: String = match source.len() > SOURCE_MAX {
        true => std::iter::once('…')
            .chain(source[source.len() - SOURCE_MAX + 1..].iter().copied())
            .collect(),
        false => entry.source.clone(),
    };
    format!(
        "{mark} {:>4}  {}  {:<8}  {:<8}  {source}\n",
        entry.number,
        utc(entry.unix_ms),
        entry.origin.word(),
        entry.fate.word(),
    )
}

const SOURCE_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::{ConfigFate, ConfigOrigin, ConfigPendingView};

    #[test]
    fn a_history_fits_80_columns_and_says_how_the_file_stands_to_what_runs() {
        let entry = |number, fate, source: &str| ConfigEntryView {
            number,
            unix_ms: 1_796_007_845_123,
            origin: ConfigOrigin::Apply,
            uid: Some(0),
            source: source.to_owned(),
            previous: None,
            bytes: 100,
            sha256: "00".to_owned(),
            fate,
        };
        let long = "/home/operator/a/long/way/to/a/candidate.toml";
        let mut told = ConfigResponse {
            file: "/etc/patronus/patronus.toml".to_owned(),
            file_state: ConfigFileState::Same,
            running: Some(12),
            at_next_start: vec!["[dataplane]".to_owned()],
            pending: Some(ConfigPendingView {
                number: 12,
                previous: 9,
                left_s: 240,
                deadline_unix_ms: 0,
            }),
            dir: "/var/lib/patronus/config-patronus0".to_owned(),
            problem: Some("the disk is full".to_owned()),
            entries: vec![
                entry(12, ConfigFate::Pending, long),
                entry(9, ConfigFate::Kept, "entry 7"),
            ],
        };
        let text = for_people(&told);
        assert_eq!(
            text,
            "     #  when                  how       state     from
>   12  2026-11-30T03:04:05Z  apply     pending   …/long/way/to/a/candidate.toml
     9  2026-11-30T03:04:05Z  apply     kept      entry 7
/etc/patronus/patronus.toml is what runs
takes effect at the next start only: [dataplane]
12 waits 4 min for `patronus config confirm`, else 9 comes back
warning: not recorded: the disk is full
"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        told.file_state = ConfigFileState::Superseded;
        assert!(for_people(&told).contains("the next start goes on"));
    }
}
