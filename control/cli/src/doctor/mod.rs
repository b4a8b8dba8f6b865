//! `patronus doctor`: what is wrong with this machine and its gateway, and what to do about it.
//!
//! Reads the machine ([`facts`]), judges it ([`machine`]) and what the gateway tells ([`tunnel`]). Changes nothing, and works
//! without a gateway.

mod facts;
mod machine;
mod tunnel;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use patronus_api::Client;
use patronus_config::{Config, Outline};
use serde::Serialize;

use crate::gateway::Gateway;
use crate::print;
use facts::Facts;

/// The command line of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration file, where no gateway says which one it is
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/patronus/patronus.toml"
    )]
    config: PathBuf,
    /// Also list what is as it should be
    #[arg(long)]
    all: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `doctor --help`.
pub const HELP: &str = "\
Examples:
  patronus doctor
  patronus doctor --config new.toml --all
  patronus doctor --json | jq '.checks[] | select(.state != \"ok\")'

It changes nothing. Run it as root, or as the gateway's user: what it may not see
it says.

Exit codes: 0 all is well, 1 something does not work, 2 usage, 3 something may
not work or not as well as it could, 5 no gateway answers (the machine is judged
all the same).";

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It cannot be told from here.
    Unknown,
    /// It may not work, or not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What kind of thing, as a word that stays the same.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub text: String,
    /// What to do; `None` where there is nothing to do.
    pub fix: Option<String>,
}

impl Check {
    /// It is as it should be.
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, State::Ok, text.into(), None)
    }

    /// It cannot be told.
    pub fn unknown(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, State::Unknown, text.into(), None)
    }

    /// It may not work.
    pub fn warn(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, State::Warn, text.into(), Some(fix.into()))
    }

    /// It does not work.
    pub fn fail(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, State::Fail, text.into(), Some(fix.into()))
    }

    fn new(check: &'static str, state: State, text: String, fix: Option<String>) -> Self {
        Self {
            check,
            state,
            text,
            fix,
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether a gateway answered.
    pub has_gateway: bool,
    /// The configuration file that was looked at.
    pub config: String,
    /// How many are ok, unknown, warn, fail.
    pub counts: Counts,
    /// The worst first.
    pub checks: Vec<Check>,
}

/// How many checks came to what.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    ok: usize,
    unknown: usize,
    warn: usize,
    fail: usize,
}

/// Looks, and tells.
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<u8> {
    // It judges this machine.
    args.gateway.socket()?;
    let report = examine(&args.gateway, &args.config);
    match args.json {
        true => print::json(&report)?,
        false => print::text_out(&for_people(&report, args.all)),
    }
    Ok(match &report.counts {
        _ if !report.has_gateway => 5,
        counts if counts.fail > 0 => 1,
        counts if counts.warn > 0 => 3,
        _ => 0,
    })
}

/// Everything that can be found out.
pub fn examine(gateway: &Gateway, config: &Path) -> Report {
    let begun = Instant::now();
    let client = gateway.connect();
    let told = client.as_ref().ok().and_then(|client| client.config().ok());
    let took = begun.elapsed();
    let config = told
        .as_ref()
        .map_or_else(|| config.to_owned(), |it| PathBuf::from(&it.file));
    let (outline, mut checks) = file(&config, client.as_ref().ok());
    checks.push(answers(&client, took));
    let facts = Facts::read(outline.as_ref(), client.as_ref().ok(), &config);
    checks.extend(machine::checks(&facts, outline.as_ref()));
    if let Ok(client) = &client {
        checks.extend(tunnel::checks(client, told.as_ref(), outline.as_ref()));
    }
    checks.sort_by_key(|it| std::cmp::Reverse(it.state));
    let mut counts = Counts::default();
    for check in &checks {
        match check.state {
            State::Ok => counts.ok += 1,
            State::Unknown => counts.unknown += 1,
            State::Warn => counts.warn += 1,
            State::Fail => counts.fail += 1,
        }
    }
    Report {
        has_gateway: client.is_ok(),
        config: config.display().to_string(),
        counts,
        checks,
    }
}

/// The configuration that runs, else that of the file; and how the file is.
fn file(path: &Path, client: Option<&Client>) -> (Option<Outline>, Vec<Check>) {
    let origin = path.display().to_string();
    let running = client.and_then(|client| client.config_text("running").ok());
    let text = running.map(|it| it.text);
    let text = text.or_else(|| patronus_config::load::read_text(path, &origin).ok());
    let draft = text.and_then(|text| Config::parse(&text, &origin).ok());
    let outline = draft.map(|draft| Outline::new(&draft));
    let check = match patronus_config::check(path) {
        Ok(_) => Check::ok("config", format!("{origin} is right")),
        Err(errors) if client.is_some() && errors.to_string().contains("ermission denied") => {
            Check::unknown(
                "config",
                format!("this user may not read {origin} or its keys"),
            )
        }
        Err(errors) => {
            let errors = errors.to_string();
            let mut lines = errors.lines();
            let first = lines.next().unwrap_or_default().to_owned();
            let more = match lines.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let fix = format!("`patronus config check {origin}` lists every fault");
            Check::fail("config", first + &more, fix)
        }
    };
    (outline, vec![check])
}

fn answers(client: &anyhow::Result<Client>, took: Duration) -> Check {
    match client {
        Ok(_) if took > SLOW => Check::warn(
            "gateway",
            format!("the gateway took {} ms to answer", took.as_millis()),
            "is the machine overloaded? See `patronus workers` and the load",
        ),
        Ok(_) => Check::ok("gateway", format!("answers within {} ms", took.as_millis())),
        Err(error) => Check::fail(
            "gateway",
            format!("{error:#}"),
            "see why it does not run: `systemctl status patronus`, `journalctl -u patronus`",
        ),
    }
}

fn for_people(report: &Report, all: bool) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let word = match check.state {
            State::Ok if !all => continue,
            State::Ok => "ok",
            State::Unknown => "?",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        text += &print::wrapped(&format!("{word} {}: {}", check.check, check.text), 5);
        if let Some(fix) = &check.fix {
            text += &print::wrapped(&format!("     fix: {fix}"), 10);
        }
    }
    let counts = &report.counts;
    let line = format!(
        "ok {}, unknown {}, warnings {}, failures {}",
        counts.ok, counts.unknown, counts.warn, counts.fail
    );
    text + &line + "\n"
}

/// A gateway answers in a millisecond.
const SLOW: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_first_with_its_fix_and_what_is_well_is_counted() {
        let checks = vec![
            Check::fail("tun", "there is no /dev/net/tun", "modprobe tun"),
            Check::warn("mtu", "x ".repeat(60), "y ".repeat(60)),
            Check::unknown("clock", "nobody says"),
            Check::ok("port", "bound"),
        ];
        let report = Report {
            has_gateway: false,
            config: "f".to_owned(),
            counts: Counts {
                ok: 1,
                unknown: 1,
                warn: 1,
                fail: 1,
            },
            checks,
        };
        let text = for_people(&report, false);
        assert!(text.starts_with("FAIL tun: there is no /dev/net/tun\n     fix: modprobe tun\n"));
        assert!(!text.contains("bound"));
        assert!(text.ends_with("ok 1, unknown 1, warnings 1, failures 1\n"));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(for_people(&report, true).contains("ok port: bound"));
    }
}
