//! `patronus paths`, `path …`, `ping` and `events`: what the running gateway knows of its paths, and orders about them.
//!
//! Every verb asks the local API once or in turn; `--json` prints its answers as they are, in the shapes that
//! `openapi.json` beside `patronus-api` describes.

mod events;
mod list;
mod order;
mod ping;
mod record;
mod show;
pub mod words;

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::gateway::Gateway;

pub use events::events;
pub use list::list;
pub use ping::ping;

/// The command line of `paths`.
#[derive(Debug, Args)]
pub struct PathsArgs {
    /// Only this peer: its name or its public key
    peer: Option<String>,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    gateway: Gateway,
}

/// How to answer.
#[derive(Debug, Args)]
pub struct Look {
    /// Plain letters in the place of signs, for serial consoles
    #[arg(long)]
    ascii: bool,
    /// Print JSON and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// The verbs about one path.
#[derive(Debug, Subcommand)]
pub enum PathVerb {
    /// Tell everything about a path, and why each class uses it or does not
    Show(ShowArgs),
    /// Have traffic use a path while it is usable
    #[command(after_help = PIN_HELP)]
    Pin(PinArgs),
    /// Undo pins
    Unpin(UnpinArgs),
    /// Have all traffic leave a path gracefully, for work on a line
    #[command(after_help = DRAIN_HELP)]
    Drain(OrderArgs),
    /// Undo a drain
    Undrain(OrderArgs),
    /// Forget a path's penalties and hold-downs
    Clear(OrderArgs),
    /// Measure a path's bandwidth now, by a short train of packets
    Bandwidth(ShowArgs),
    /// Record all that path selection sees of a peer, to replay it elsewhere
    #[command(after_help = RECORD_HELP)]
    Record(RecordArgs),
}

/// The command line of `path show` and `path bandwidth`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The path: its peer, a slash, its number or name
    #[arg(value_name = "PEER/PATH")]
    path: PathRef,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `path pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Only this class; else every class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    #[command(flatten)]
    order: OrderArgs,
}

/// The command line of `path unpin`.
#[derive(Debug, Args)]
pub struct UnpinArgs {
    /// Whose pins: all of a peer, or those to one path
    #[arg(value_name = "PEER[/PATH]", value_parser = not_empty)]
    target: String,
    /// Only this class; else every class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of an order about one path.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// The path: its peer, a slash, its number or name
    #[arg(value_name = "PEER/PATH")]
    path: PathRef,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `path record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The peer: its name or its public key
    #[arg(value_parser = not_empty)]
    peer: String,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(patronus_api::TRACE_MAX_S)))]
    seconds: u32,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// The peer: its name or its public key; or PEER/PATH
    #[arg(value_parser = not_empty)]
    peer: String,
    /// The path, by number or name; else the one that ordinary traffic uses
    #[arg(long, value_name = "ID", value_parser = not_empty)]
    path: Option<String>,
    /// How many
    #[arg(long, short, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// From one to the next: seconds, or such as 200ms
    #[arg(long, short, value_name = "TIME", default_value = "1", value_parser = parse_span)]
    interval: Duration,
    /// How long to wait for each: seconds, or such as 200ms
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = parse_span)]
    timeout: Duration,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The command line of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on and tell what happens from here on
    #[arg(long, short)]
    follow: bool,
    /// Only the last of them: such as 90s, 10m, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    since: Option<Duration>,
    /// Only of this peer: its name or its public key
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only these kinds: decision, state, moved, uplink, command, handshake, endpoint, lanes,
    /// via, gateway
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<String>,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs a verb about one path and says with which code to exit.
pub fn run(verb: &PathVerb) -> anyhow::Result<u8> {
    match verb {
        PathVerb::Show(args) => show::show(args),
        PathVerb::Pin(args) => order::pin(args),
        PathVerb::Unpin(args) => order::unpin(args),
        PathVerb::Drain(args) => order::drain(args),
        PathVerb::Undrain(args) => order::undrain(args),
        PathVerb::Clear(args) => order::clear(args),
        PathVerb::Bandwidth(args) => order::bandwidth(args),
        PathVerb::Record(args) => record::record(args),
    }
}

/// A path as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRef {
    peer: String,
    path: String,
}

impl FromStr for PathRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A public key may hold a slash, a path's name holds none.
        match text.rsplit_once('/') {
            Some((peer, path)) if !peer.is_empty() && !path.is_empty() => Ok(Self {
                peer: peer.to_owned(),
                path: path.to_owned(),
            }),
            _ => Err(
                "write PEER/PATH, such as branch/0: `patronus paths` lists what there is"
                    .to_owned(),
            ),
        }
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err("it is empty: `patronus paths` lists the peers".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// `10`, `10s`, `200ms`, `10m`, `2h`, `1d`.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let end = text.find(|it: char| it != '.' && !it.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(SPAN_FIX.to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| SPAN_FIX.to_owned())?;
    let span = Duration::try_from_secs_f64(number * seconds);
    span.ok()
        .filter(|it| !it.is_zero())
        .ok_or_else(|| SPAN_FIX.to_owned())
}

const SPAN_FIX: &str = "write a time above zero, such as 200ms, 10s, 10m, 2h or 1d";

/// Done.
const DONE: u8 = 0;
/// What was asked for did not come about.
const FAILED: u8 = 1;

/// The end of `paths --help`.
pub const PATHS_HELP: &str = "\
Signs: ● as it should be, ▲ usable but not well, ✖ down, – nothing known or not
wanted; with --ascii * ! x -. Jitter and loss are those of the worse direction,
loss that of hellos over 10 s. `patronus path show` has both directions and all
windows.";

/// The end of `ping --help`.
pub const PING_HELP: &str = "\
Examples:
  patronus ping branch
  patronus ping branch --path lte --count 10 --interval 200ms

The gateway sends a message inside the tunnel on that very path and the peer's
gateway answers it. A stock WireGuard peer never answers. Exits with 1 if none
came back.";

/// The end of `events --help`.
pub const EVENTS_HELP: &str = "\
Examples:
  patronus events --since 10m --peer branch
  patronus events --follow --kind decision,state

Times are UTC by the gateway's clock. With --json every line is one event. The
gateway keeps the last 8192; what it forgot is told on standard error.";

const PIN_HELP: &str = "\
Examples:
  patronus path pin branch/fiber --class realtime
  patronus path pin branch/1

A pinned path is used while it is usable, whatever others score. The gateway
forgets pins when it is restarted.";

const DRAIN_HELP: &str = "\
Flows move to other paths when they pause, without loss or reordering. The last
usable path keeps its traffic until another one is up. The gateway forgets drains
when it is restarted.";

const RECORD_HELP: &str = "\
Example:
  patronus path record branch --seconds 60 > trace.jsonl

One JSON object a line: how selection stood, then everything it saw. The same
trace always makes the same decisions. Exits with 5 if the recording broke off:
then the file is not whole.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_by_what_stands_behind_the_last_slash() {
        let path = |text: &str| text.parse::<PathRef>().map(|it| (it.peer, it.path));
        let pair = |peer: &str, path: &str| Ok((peer.to_owned(), path.to_owned()));
        assert_eq!(path("branch/0"), pair("branch", "0"));
        assert_eq!(path("a/b=/lte>1.2.3.4"), pair("a/b=", "lte>1.2.3.4"));
        for wrong in ["", "branch", "/0", "branch/", "/"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        for (text, ms) in [
            ("1", 1000),
            ("0.2", 200),
            ("200ms", 200),
            ("10s", 10_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in [
            "",
            "0",
            "-1",
            "m",
            "1w",
            "1 m",
            "1e9",
            "1.2.3s",
            "9".repeat(400).as_str(),
        ] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
