//! `patronus console`: the gateway on a terminal, live, once, or from a recording.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use patronus_tui::{
    Feed, GatewayFeed, Glyphs, Look, OnceFormat, Options, ReplayFeed, Screen, Theme, ThemeName,
};

use crate::gateway::Gateway;
use crate::print;

pub const HELP: &str = "\
Screens: 1 Overview, 2 Paths, 3 Peers, 4 Flows, 5 Policy, 6 Workers, 7 Events.
? in the console lists the keys of a screen; `patronus man` has them all.

Examples:
  patronus console                             watch the gateway of this machine
  patronus console --write                     pin, drain and clear paths too
  patronus console --once --screen paths       one picture on standard output
  patronus console --record night.jsonl        keep what is shown
  patronus console --replay night.jsonl        look at it again, anywhere";

/// The command line of `console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Allow keys that change the gateway; each asks again
    #[arg(long, conflicts_with_all = ["replay", "once"])]
    write: bool,
    /// The first screen
    #[arg(long, value_enum, default_value_t = ScreenArg::Overview)]
    screen: ScreenArg,
    /// Colours; by NO_COLOR, TERM and COLORFGBG if absent
    #[arg(long, value_enum)]
    theme: Option<ThemeArg>,
    /// Only ASCII characters, for serial consoles
    #[arg(long)]
    ascii: bool,
    /// Milliseconds from one look at the gateway to the next
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32)
        .range(i64::from(patronus_api::WATCH_INTERVAL_MIN_MS)..=i64::from(patronus_api::WATCH_INTERVAL_MAX_MS)))]
    interval: u32,
    /// Write one screen to standard output and end
    #[arg(long)]
    once: bool,
    /// What --once writes
    #[arg(long, value_enum, default_value_t = FormatArg::Text, requires = "once")]
    format: FormatArg,
    /// Columns and rows of --once
    #[arg(long, value_name = "COLSxROWS", value_parser = size, requires = "once")]
    size: Option<(u16, u16)>,
    /// Record what the gateway says to a file that does not exist yet
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    record: Option<PathBuf>,
    /// Show a recording in place of a gateway
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    replay: Option<PathBuf>,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ScreenArg {
    Overview,
    Paths,
    Peers,
    Flows,
    Policy,
    Workers,
    Events,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ThemeArg {
    /// For a dark background
    Dark,
    /// For a light background
    Light,
    /// Without colours
    Plain,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// As it would be drawn
    Text,
    /// As the gateway said it
    Json,
    /// The table of the screen
    Csv,
}

/// Shows the console.
pub fn console(args: &ConsoleArgs) -> anyhow::Result<()> {
    let theme = args
        .theme
        .map_or_else(theme_of_environment, ThemeName::from);
    let look = Look {
        theme: Theme::new(theme),
        glyphs: Glyphs::new(args.ascii),
        can_write: args.write,
        screen: args.screen.into(),
    };
    if args.once {
        return once(args, look);
    }
    let feed: Box<dyn Feed> = match &args.replay {
        Some(path) => Box::new(ReplayFeed::open(path)?),
        None => {
            // A gateway that is not there is said at once; one that goes away later is waited for.
            args.gateway.connect()?.status()?;
            Box::new(GatewayFeed {
                socket: args.gateway.socket()?.to_owned(),
                interval_ms: args.interval,
            })
        }
    };
    let record = args.record.clone();
    Ok(patronus_tui::run(&Options { look, record }, feed)?)
}

fn once(args: &ConsoleArgs, look: Look) -> anyhow::Result<()> {
    // Without a terminal nobody sees colours, and nobody asks for them: the text has none anyway.
    let size = args.size.or_else(terminal_size).unwrap_or(SIZE);
    let format = args.format.into();
    let text = match &args.replay {
        Some(path) => patronus_tui::once_replayed(look, size, path, format)?,
        None => patronus_tui::once(look, size, args.gateway.socket()?, format)?,
    };
    print::text_out(&text);
    Ok(())
}

pub fn theme_of_environment() -> ThemeName {
    ThemeName::from_environment(|name| std::env::var(name).ok())
}

pub fn terminal_size() -> Option<(u16, u16)> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    patronus_tui::terminal_size()
}

pub fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(columns, rows)| {
        let columns = columns.parse::<u16>().ok()?;
        Some((columns, rows.parse::<u16>().ok()?))
    });
    let range = 1..=1000;
    parsed
        .filter(|(columns, rows)| range.contains(columns) && range.contains(rows))
        .ok_or_else(|| "write COLUMNSxROWS, such as 120x36, neither above 1000".to_owned())
}

impl From<ScreenArg> for Screen {
    fn from(screen: ScreenArg) -> Self {
        match screen {
            ScreenArg::Overview => Self::Overview,
            ScreenArg::Paths => Self::Paths,
            ScreenArg::Peers => Self::Peers,
            ScreenArg::Flows => Self::Flows,
            ScreenArg::Policy => Self::Policy,
            ScreenArg::Workers => Self::Workers,
            ScreenArg::Events => Self::Events,
        }
    }
}

impl From<ThemeArg> for ThemeName {
    fn from(theme: ThemeArg) -> Self {
        match theme {
            ThemeArg::Dark => Self::Dark,
            ThemeArg::Light => Self::Light,
            ThemeArg::Plain => Self::Plain,
        }
    }
}

impl From<FormatArg> for OnceFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Text => Self::Text,
            FormatArg::Json => Self::Json,
            FormatArg::Csv => Self::Csv,
        }
    }
}

pub const SIZE: (u16, u16) = (80, 24);

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn a_size_is_two_numbers() {
        assert_eq!(size("120x36"), Ok((120, 36)));
        for wrong in ["", "80", "80x", "x24", "0x24", "80x2000", "80x-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
