//! The page that leads through two sites, followed to the letter: every command of it runs, and what it says is printed is
//! printed.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use patronus_lab::program::find_on_path;

/// In seconds; the script has limits of its own, so only what hangs gets here.
const PATIENCE: &str = "900";

#[test]
fn the_page_about_two_sites_does_what_it_says() {
    if !common::can_run() {
        return;
    }
    // The page is for root of a machine: it writes to /etc and sets sysctls.
    if !nix::unistd::geteuid().is_root() {
        common::skip("needs root");
        return;
    }
    for tool in [
        "bash", "ip", "nsenter", "pgrep", "script", "sysctl", "timeout", "unshare", "wg", "ping",
    ] {
        if find_on_path(tool).is_none() {
            common::skip(&format!("there is no {tool}"));
            return;
        }
    }
    let Some(program) = common::patronus() else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/examples/two-sites.sh");
    let output = Command::new("timeout")
        .args(["--kill-after=30", PATIENCE])
        .arg(script)
        .arg(program.binary())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{}: {said}\n{errors}",
        output.status
    );
    assert!(said.contains("the page holds"), "{said}\n{errors}");
}
