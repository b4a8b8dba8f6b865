//! `patronus config`: files are checked here; what runs is asked of the gateway, and changed by it.

mod change;
mod list;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::gateway::Gateway;
use crate::paths::parse_span;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Say whether a configuration file is right, and what it means
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The file
        file: PathBuf,
        /// Print one JSON document and nothing else on standard output
        #[arg(long)]
        json: bool,
    },
    /// Print every key with its default
    Defaults {
        /// Print one JSON document and nothing else on standard output
        #[arg(long)]
        json: bool,
    },
    /// Say what differs between the running configuration and a file or an entry of the history
    #[command(after_help = DIFF_HELP)]
    Diff(DiffArgs),
    /// Put a file in force; go back by itself unless confirmed
    #[command(after_help = APPLY_HELP)]
    Apply(ApplyArgs),
    /// Keep what waits for its confirmation
    #[command(after_help = EXIT_CODES)]
    Confirm(OrderArgs),
    /// Go back to an earlier configuration, or from one that waits for its confirmation
    #[command(after_help = ROLLBACK_HELP)]
    Rollback(RollbackArgs),
    /// List what was applied, when, how and by whom
    #[command(after_help = HISTORY_HELP)]
    History(HistoryArgs),
    /// Print the text of the running configuration, of the file or of an entry
    Show(ShowArgs),
}

/// The command line of `config diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A file, or the number of an entry; the gateway's own file if absent
    to: Option<String>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `config apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file; `-` reads standard input; the gateway's own file if absent
    file: Option<PathBuf>,
    #[command(flatten)]
    promise: Promise,
    #[command(flatten)]
    order: OrderArgs,
}

/// The command line of `config rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The entry; the one before the running one if absent
    number: Option<u64>,
    #[command(flatten)]
    promise: Promise,
    #[command(flatten)]
    order: OrderArgs,
}

/// A time after which the gateway goes back.
#[derive(Debug, Args)]
pub struct Promise {
    /// Go back by itself after that time, such as 5m, unless `patronus config confirm` comes
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    confirm: Option<Duration>,
}

/// What orders have in common.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `config history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `config show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The number of an entry, `running` or `file`
    #[arg(default_value = "running")]
    entry: String,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs a verb.
pub fn run(verb: &ConfigVerb) -> anyhow::Result<u8> {
    match verb {
        ConfigVerb::Check { file, json } => list::check(file, *json),
        ConfigVerb::Defaults { json } => list::defaults(*json),
        ConfigVerb::Diff(args) => change::diff(args),
        ConfigVerb::Apply(args) => change::apply(args),
        ConfigVerb::Confirm(args) => change::confirm(args),
        ConfigVerb::Rollback(args) => change::rollback(args),
        ConfigVerb::History(args) => list::history(args),
        ConfigVerb::Show(args) => list::show(args),
    }
}

const DONE: u8 = 0;
/// Done, and not all is as it should be.
const NOT_WELL: u8 = 3;

const CHECK_HELP: &str = "\
Example:
  patronus config check /etc/patronus/patronus.toml

Exit codes: 0 right, 1 faulty or not readable, 2 usage.";
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused, 2 usage, 3 done with warnings, 5 no gateway
answers.";
const DIFF_HELP: &str = "\
Examples:
  patronus config diff                what the file on disk would change
  patronus config diff new.toml
  patronus config diff 12             what going back to 12 would change

A ! before a key: its section takes effect at the next start only.

Exit codes: 0 told, 1 faulty, 2 usage, 5 no gateway answers.";
const APPLY_HELP: &str = "\
Examples:
  patronus config apply --dry-run
  patronus config apply new.toml --confirm 5m
  patronus config confirm

Without FILE, the gateway's own file is taken as it stands on disk. With FILE,
its text takes that file's place once it is in force for good; relative paths in
it start at the folder of the gateway's file. With --confirm the gateway goes
back by itself when the time is over, also when it was killed or restarted in
between; after a boot of the machine it goes back at once.

Exit codes: 0 done, 1 refused and nothing changed, 2 usage, 3 done with
warnings, 5 no gateway answers.";
const ROLLBACK_HELP: &str = "\
Examples:
  patronus config rollback            what was before the running configuration
  patronus config rollback 9 --confirm 2m

While a configuration waits for its confirmation, `rollback` takes it back.

Exit codes: 0 done, 1 refused and nothing changed, 2 usage, 3 done with
warnings, 5 no gateway answers.";
const HISTORY_HELP: &str = "\
Examples:
  patronus config history
  patronus config show 12

Exit codes: 0 told, 2 usage, 3 something waits for its confirmation, the file and
the running configuration differ, or nothing can be recorded, 5 no gateway
answers.";
