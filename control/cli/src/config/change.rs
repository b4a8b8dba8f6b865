//! What changes the running configuration, and what would.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use patronus_api::{ConfigChangeView, ConfigCommand, ConfigCommandRequest, ConfigCommandResponse};

use super::{ApplyArgs, DONE, DiffArgs, NOT_WELL, OrderArgs, RollbackArgs};
use crate::paths::words::age;
use crate::print;

/// Says what a file or an entry would change.
pub fn diff(args: &DiffArgs) -> anyhow::Result<u8> {
    let mut request = blank(ConfigCommand::Apply);
    request.dry_run = true;
    match &args.to {
        None => {}
        Some(number) if number.parse::<u64>().is_ok() => {
            request.command = ConfigCommand::Rollback;
            request.number = number.parse().ok();
        }
        Some(file) => (request.text, request.source) = read(Path::new(file))?,
    }
    let told = args.gateway.connect()?.config_command(&request)?;
    match args.json {
        true => print::json(&told)?,
        false if told.changes.is_empty() => print::text_out("nothing differs\n"),
        false => print::text_out(&changes(&told)),
    }
    Ok(DONE)
}

/// Puts a file in force.
pub fn apply(args: &ApplyArgs) -> anyhow::Result<u8> {
    let mut request = blank(ConfigCommand::Apply);
    if let Some(file) = &args.file {
        (request.text, request.source) = read(file)?;
    }
    request.confirm_s = seconds(args.promise.confirm)?;
    order(request, &args.order)
}

/// Keeps what waits.
pub fn confirm(args: &OrderArgs) -> anyhow::Result<u8> {
    order(blank(ConfigCommand::Confirm), args)
}

/// Goes back.
pub fn rollback(args: &RollbackArgs) -> anyhow::Result<u8> {
    let mut request = blank(ConfigCommand::Rollback);
    request.number = args.number;
    request.confirm_s = seconds(args.promise.confirm)?;
    order(request, &args.order)
}

/// What will change is said before anything does.
fn order(mut request: ConfigCommandRequest, args: &OrderArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    request.dry_run = true;
    let planned = client.config_command(&request)?;
    if !args.json {
        print::text_out(&changes(&planned));
    }
    if args.dry_run {
        match args.json {
            true => print::json(&planned)?,
            false => print::text_out(&ending(&planned)),
        }
        return Ok(DONE);
    }
    request.dry_run = false;
    let done = client.config_command(&request)?;
    match args.json {
        true => print::json(&done)?,
        false => print::text_out(&ending(&done)),
    }
    Ok(if done.warnings.is_empty() {
        DONE
    } else {
        NOT_WELL
    })
}

fn blank(command: ConfigCommand) -> ConfigCommandRequest {
    ConfigCommandRequest {
        command,
        text: None,
        source: None,
        number: None,
        confirm_s: None,
        dry_run: false,
    }
}

/// The text of a file, and what to call it.
fn read(file: &Path) -> anyhow::Result<(Option<String>, Option<String>)> {
    let source = file.display().to_string();
    let text = match source.as_str() {
        "-" => {
            let mut text = String::new();
            let mut stdin = std::io::stdin().take(patronus_config::load::TEXT_LEN_MAX + 1);
            stdin
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            text
        }
        _ => patronus_config::load::read_text(file, &source)?,
    };
    let source = std::path::absolute(file).map_or(source, |it| it.display().to_string());
    Ok((Some(text), Some(source)))
}

fn seconds(span: Option<Duration>) -> anyhow::Result<Option<u32>> {
    let Some(span) = span else { return Ok(None) };
    match u32::try_from(span.as_secs()) {
        Ok(seconds) if span.subsec_nanos() == 0 => Ok(Some(seconds)),
        Ok(_) | Err(_) => bail!("--confirm takes whole seconds, such as 90s or 5m"),
    }
}

/// A line for every key, and what waits for a start.
fn changes(told: &ConfigCommandResponse) -> String {
    let mut text = String::new();
    for change in &told.changes {
        let waits = told
            .at_next_start
            .iter()
            .any(|section| is_of(section, &change.key));
        text += &print::wrapped(&line(change, waits), 6);
    }
    if !told.at_next_start.is_empty() {
        let line = format!(
            "! takes effect at the next start only: {}",
            told.at_next_start.join(", ")
        );
        text += &print::wrapped(&line, 4);
    }
    text
}

fn line(change: &ConfigChangeView, waits: bool) -> String {
    let mark = if waits { '!' } else { ' ' };
    match (&change.old, &change.new) {
        (None, Some(new)) => format!("{mark} + {} = {new}", change.key),
        (Some(old), None) => format!("{mark} - {} = {old}", change.key),
        (old, new) => {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            format!("{mark} ~ {} = {}, was {}", change.key, text(new), text(old))
        }
    }
}

/// Whether a key belongs to what the gateway names `[site] interface` or `[api]`.
fn is_of(section: &str, key: &str) -> bool {
    let (title, names) = section.split_once(' ').unwrap_or((section, ""));
    let title = title.trim_matches(['[', ']']);
    let last = key.rsplit('.').next().unwrap_or(key);
    let is_named = names.is_empty() || names.split(' ').any(|name| name == last);
    key.starts_with(&format!("{title}.")) && is_named
}

/// What was or would be done.
fn ending(told: &ConfigCommandResponse) -> String {
    let mut lines = vec![told.text.clone()];
    lines.extend(told.warnings.iter().map(|it| format!("warning: {it}")));
    if let Some(pending) = &told.pending {
        lines.push(format!(
            "it goes back to {} in {} unless you run `patronus config confirm`",
            pending.previous,
            age(pending.left_s as f64)
        ));
    }
    lines.iter().map(|line| print::wrapped(line, 4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::ConfigPendingView;

    #[test]
    fn changes_are_a_line_each_and_what_waits_for_a_start_is_marked() {
        let change = |key: &str, old: Option<&str>, new: Option<&str>| ConfigChangeView {
            key: key.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let told = ConfigCommandResponse {
            changes: vec![
                change("dataplane.workers", None, Some("2")),
                change("peer.branch.keepalive", Some("25"), None),
                change("site.interface", Some("\"wg0\""), Some("\"wg1\"")),
                change("site.mtu", Some("1420"), Some("1380")),
                change("uplink.lte.io", Some("\"udp\""), Some("\"af-xdp\"")),
                change("uplink.lte.cost", Some("1"), Some("2")),
            ],
            at_next_start: ["[site] interface", "[dataplane]", "[[uplink]] io"]
                .map(str::to_owned)
                .to_vec(),
            ..ConfigCommandResponse::default()
        };
        assert_eq!(
            changes(&told),
            "\
! + dataplane.workers = 2
  - peer.branch.keepalive = 25
! ~ site.interface = \"wg1\", was \"wg0\"
  ~ site.mtu = 1380, was 1420
! ~ uplink.lte.io = \"af-xdp\", was \"udp\"
  ~ uplink.lte.cost = 2, was 1
! takes effect at the next start only: [site] interface, [dataplane], [[uplink]]
    io
"
        );
    }

    #[test]
    fn what_waits_says_how_long_and_what_keeps_it() {
        let told = ConfigCommandResponse {
            done: true,
            text: "configuration 7 from new.toml is in force".to_owned(),
            pending: Some(ConfigPendingView {
                number: 7,
                previous: 6,
                left_s: 300,
                deadline_unix_ms: 0,
            }),
            warnings: vec!["w".to_owned()],
            ..ConfigCommandResponse::default()
        };
        assert_eq!(
            ending(&told),
            "configuration 7 from new.toml is in force\nwarning: w\n\
             it goes back to 6 in 5 min unless you run `patronus config confirm`\n"
        );
    }
}
