//! `genkey`, `pubkey`, `genpsk`: as `wg` has them.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;

use anyhow::Context;
use zeroize::Zeroizing;

/// Prints a new private key.
pub fn genkey() -> anyhow::Result<()> {
    print_secret(&patronus_config::keys::genkey())
}

/// Prints a new preshared key.
pub fn genpsk() -> anyhow::Result<()> {
    print_secret(&patronus_config::keys::genpsk())
}

/// Reads a private key and prints its public key.
pub fn pubkey() -> anyhow::Result<()> {
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin()
        .take(KEY_TEXT_MAX)
        .read_to_string(&mut text);
    read.context("cannot read a private key from standard input")?;
    println!("{}", patronus_config::keys::pubkey(&text)?);
    Ok(())
}

fn print_secret(key: &str) -> anyhow::Result<()> {
    let stdout = std::io::stdout();
    warn_if_readable_by_all(&stdout);
    writeln!(stdout.lock(), "{key}").context("cannot write the key")
}

/// As `wg genkey` warns: a secret goes into a file that everybody may read.
fn warn_if_readable_by_all(stdout: &std::io::Stdout) {
    if stdout.is_terminal() {
        return;
    }
    let Ok(stat) = nix::sys::stat::fstat(stdout.as_fd()) else {
        return;
    };
    let kind =
        nix::sys::stat::SFlag::from_bits_truncate(stat.st_mode) & nix::sys::stat::SFlag::S_IFMT;
    if kind == nix::sys::stat::SFlag::S_IFREG && stat.st_mode & 0o007 != 0 {
        eprintln!(
            "warning: writing a secret to a file that everybody may read: use `umask 077` first"
        );
    }
}

/// A key is 44 characters; more than this is no key.
const KEY_TEXT_MAX: u64 = 4096;
