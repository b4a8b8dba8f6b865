//! What the tests that need root share: where programs are, and when a test is skipped.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use patronus_lab::{Namespace, Program};

/// Whether namespaces can be made here; says why not, and fails where a skip is not allowed.
pub fn can_run() -> bool {
    match Namespace::with_private_run("probe") {
        Ok(_) if Path::new("/dev/net/tun").exists() => true,
        Ok(_) => skip("there is no /dev/net/tun: modprobe tun"),
        Err(error) => skip(&error.to_string()),
    }
}

/// The program under test: `PATRONUS_BIN`, or `patronus` beside the test's profile directory.
pub fn patronus() -> Option<Program> {
    let binary = match std::env::var_os("PATRONUS_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()
            .unwrap()
            .parent()?
            .parent()?
            .join("patronus"),
    };
    if !binary.exists() {
        skip(&format!(
            "{} is missing: cargo build -p patronus-cli",
            binary.display()
        ));
        return None;
    }
    Some(Program::Patronus { binary })
}

/// `boringtun-cli` from PATH, or `BORINGTUN_CLI`.
pub fn boringtun() -> Option<Program> {
    let binary = find(
        "BORINGTUN_CLI",
        "boringtun-cli",
        "cargo install boringtun-cli",
    )?;
    Some(Program::BoringtunCli { binary })
}

/// `wireguard-go` from PATH, or `WIREGUARD_GO`.
pub fn wireguard_go() -> Option<Program> {
    let binary = find("WIREGUARD_GO", "wireguard-go", "apt install wireguard-go")?;
    Some(Program::WireguardGo { binary })
}

fn find(variable: &str, name: &str, how: &str) -> Option<PathBuf> {
    let by_hand = std::env::var_os(variable).map(PathBuf::from);
    let found = by_hand.or_else(|| patronus_lab::program::find_on_path(name));
    match found {
        Some(path) if path.exists() => Some(path),
        _ => {
            skip(&format!(
                "no {name} on PATH and none named by {variable}: {how}"
            ));
            None
        }
    }
}

/// Waits until a program has asked for Ctrl-C: before that, the signal ends it without a word.
pub fn await_handler_of_ctrl_c(pid: u32) {
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        // Bit 0 is signal 1 (proc(5)), SIGINT is 2.
        u64::from_str_radix(caught.trim(), 16).unwrap() & 0b10 != 0
    };
    let has_asked = (0..6000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        catches()
    });
    assert!(has_asked, "{pid} does not care for Ctrl-C");
}

/// What is not as it should be, in words.
///
/// # Errors
/// That, where it is not so.
pub fn check(is_so: bool, what: &dyn std::fmt::Debug) -> Result<(), String> {
    if is_so {
        Ok(())
    } else {
        Err(format!("{what:#?}"))
    }
}

/// A machine that takes the cores away loses packets, delays them between their time stamp and the wire, and makes hellos
/// late, all of it now and then; what is broken fails every time. What no lack of time can excuse, such as a packet that
/// is delivered twice, is asserted in every trial.
pub fn one_of_three(mut trial: impl FnMut() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..3 {
        match trial() {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("three of three trials failed: {}", failures.join("\n---\n"));
}

/// Prints the reason; panics where PATRONUS_REQUIRE_ROOT_TESTS says that nothing may be skipped.
pub fn skip(reason: &str) -> bool {
    assert!(
        std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS").is_none_or(|value| value != "1"),
        "may not be skipped: {reason}"
    );
    println!("skipped: {reason}");
    false
}
