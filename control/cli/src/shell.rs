//! What is made from the command line's own definition: completions for shells, and manual pages.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{Cli, print};

/// The command line of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// The command line of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder; it is made if it is missing
    dir: PathBuf,
}

/// The end of `completions --help`.
pub const COMPLETIONS_HELP: &str = "\
Examples:
  patronus completions bash > /usr/share/bash-completion/completions/patronus
  patronus completions zsh > /usr/share/zsh/vendor-completions/_patronus";

/// Prints completions.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    print::text_out(&String::from_utf8_lossy(&script));
    Ok(0)
}

/// Writes a manual page for the program and one for every verb.
pub fn man(args: &ManArgs) -> anyhow::Result<u8> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut command = Cli::command();
    // Gives every verb its full name, `patronus-path-pin`.
    command.build();
    page(&command, dir)?;
    Ok(0)
}

fn page(command: &clap::Command, dir: &Path) -> anyhow::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    let path = dir.join(man.get_filename());
    let mut text = Vec::new();
    man.render(&mut text)?;
    if command.get_display_name() == Some(CONSOLE) {
        text.extend_from_slice(patronus_tui::manual().as_bytes());
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    print::text_out(&format!("{}\n", path.display()));
    let verbs = command.get_subcommands();
    for verb in verbs.filter(|it| it.get_name() != "help" && !it.is_hide_set()) {
        page(verb, dir)?;
    }
    Ok(())
}

const NAME: &str = "patronus";
/// The verb whose page lists keys.
const CONSOLE: &str = "patronus-console";
