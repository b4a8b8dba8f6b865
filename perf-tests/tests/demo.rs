//! `patronus demo` as an operator runs it: its document, and what is left after it is killed.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use patronus_lab::Program;
use patronus_lab::proc::is_alive;

fn program() -> Option<Program> {
    if !common::can_run() {
        return None;
    }
    common::patronus()
}

#[test]
fn the_document_of_a_short_demo_is_whole_and_balanced() {
    let Some(program) = program() else {
        return;
    };
    let output = Command::new(program.binary())
        .args(["demo", "--sites", "3", "--seconds", "1", "--json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["sites"], 3);
    assert_eq!(document["balanced"], true, "{document:#}");
    for key in [
        "tcp_gbps",
        "tcp_reverse_gbps",
        "udp_gbps",
        "udp_small_kpps",
        "cpu_s_per_gbit",
    ] {
        assert!(document[key].as_f64().unwrap() > 0.0, "{key}: {document:#}");
    }
    assert!(document["rtt_idle_us"]["p50"].as_u64().unwrap() > 0);
    assert!(document["packets"]["rx"].as_u64().unwrap() > 0);
}

/// Starts a demo that stays up; the child and the process ids of its gateways.
fn kept(program: &Program) -> (std::process::Child, Vec<u32>) {
    let mut child = Command::new(program.binary())
        .args(["demo", "--seconds", "1", "--keep"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut gateways = Vec::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    while gateways.len() < 2 {
        let Some(line) = lines.next() else {
            panic!("the demo ended before it was up: {told:#?}");
        };
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["nsenter", "-t", pid, .., "wg", "show", "#", _, _, _, _] = words[..] {
            gateways.push(pid.parse().unwrap());
        }
        told.push(line);
    }
    // Keep reading, so that the demo never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, gateways)
}

fn all_end(pids: &[u32]) -> bool {
    (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        pids.iter().all(|pid| !is_alive(*pid))
    })
}

#[test]
fn a_kept_demo_that_is_killed_takes_its_gateways_with_it() {
    let Some(program) = program() else {
        return;
    };
    let (mut child, gateways) = kept(&program);
    assert!(gateways.iter().all(|pid| is_alive(*pid)));

    child.kill().unwrap();
    child.wait().unwrap();

    assert!(
        all_end(&gateways),
        "gateways {gateways:?} outlive their demo"
    );
}

#[test]
fn ctrl_c_ends_a_kept_demo_with_its_table() {
    let Some(program) = program() else {
        return;
    };
    let (child, gateways) = kept(&program);

    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();

    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("TCP, 1 flow a pair") && table.contains("balanced"),
        "{table}"
    );
    assert!(all_end(&gateways));
}

#[test]
fn ctrl_c_during_the_measurement_ends_with_code_130_and_no_table() {
    let Some(program) = program() else {
        return;
    };
    let child = Command::new(program.binary())
        .args(["demo", "--seconds", "30"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    common::await_handler_of_ctrl_c(child.id());
    std::thread::sleep(Duration::from_secs(2));

    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();

    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.is_empty());
}
