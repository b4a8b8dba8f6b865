//! `patronus demo`: measured once, or alive under the console.

use std::io::IsTerminal;

use anyhow::bail;
use clap::Args;
use patronus_lab::{DemoOptions, LiveDemo, LiveOptions};
use patronus_tui::{GatewayFeed, Glyphs, Look, OnceFormat, Options, Theme};

use crate::console::{self, ScreenArg};
use crate::{print, verbs};

pub const HELP: &str = "\
Examples:
  patronus demo                       two sites, measured, as a table
  patronus demo --console             three sites under load and faults, in the console of the first one
  patronus demo --console --once      one screen of it on standard output";

/// The command line of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Number of sites; 2, or 3 with --console
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=8))]
    sites: Option<u8>,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Stay up until Ctrl-C and say how to look inside
    #[arg(long)]
    keep: bool,
    /// Show the console of the first site, with traffic, policy and faults going on, until `q`
    #[arg(long, conflicts_with_all = ["json", "keep", "seconds"])]
    console: bool,
    /// With --console: write one screen to standard output and end
    #[arg(long, requires = "console")]
    once: bool,
    /// With --console: the first screen
    #[arg(long, value_enum, default_value_t = ScreenArg::Overview, requires = "console")]
    screen: ScreenArg,
    /// With --console: only ASCII characters
    #[arg(long, requires = "console")]
    ascii: bool,
    /// Columns and rows of --once
    #[arg(long, value_name = "COLSxROWS", value_parser = console::size, requires = "once")]
    size: Option<(u16, u16)>,
}

/// Runs the demo.
pub fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    if args.console {
        return live(args);
    }
    let options = DemoOptions {
        sites: usize::from(args.sites.unwrap_or(2)),
        seconds: args.seconds as f64,
        json: args.json,
        keep: args.keep,
        binary: verbs::this_binary()?,
    };
    patronus_lab::demo(&options).map(drop)
}

fn live(args: &DemoArgs) -> anyhow::Result<()> {
    // Said before a lab is built for nobody.
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !args.once && !has_terminal {
        bail!(
            "the console needs a terminal; without one, `patronus demo --console --once` writes a screen and \
             `patronus demo` a table"
        );
    }
    let demo = LiveDemo::up(&LiveOptions {
        sites: usize::from(args.sites.unwrap_or(3)),
        binary: verbs::this_binary()?,
    })?;
    let shown = show(args, &demo);
    // Whatever became of the console, gateways end in order and say what they counted.
    let report = demo.down()?;
    let text = shown?;
    if let Some(text) = text {
        print::text_out(&text);
    }
    eprintln!("{report}");
    Ok(())
}

/// The console until it is quit, or the text of one screen.
fn show(args: &DemoArgs, demo: &LiveDemo) -> anyhow::Result<Option<String>> {
    let look = Look {
        theme: Theme::new(console::theme_of_environment()),
        glyphs: Glyphs::new(args.ascii),
        // Nothing here is anybody's network: pin, drain and meter as you like.
        can_write: true,
        screen: args.screen.into(),
    };
    let socket = demo.socket(0)?;
    if args.once {
        demo.settle(0)?;
        let size = args.size.or_else(console::terminal_size);
        let size = size.unwrap_or(console::SIZE);
        let text = patronus_tui::once(look, size, &socket, OnceFormat::Text)?;
        return Ok(Some(text));
    }
    let feed = GatewayFeed {
        socket,
        interval_ms: INTERVAL_MS,
    };
    patronus_tui::run(&Options { look, record: None }, Box::new(feed))?;
    Ok(None)
}

const INTERVAL_MS: u32 = 1000;
