//! `patronus lab` as an operator runs it: the example files, its documents, and what is left when it is told to end.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use patronus_lab::proc::is_alive;
use patronus_lab::{LabFile, Program};
use serde_json::Value;

fn program() -> Option<Program> {
    if !common::can_run() {
        return None;
    }
    common::patronus()
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/examples/lab");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    files
}

fn documents(output: &[u8]) -> Vec<Value> {
    let lines = output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn the_examples_are_right() {
    for path in examples() {
        let file = LabFile::read(&path).unwrap();
        assert!(
            !file.impairments.is_empty() && !file.schedule.is_empty(),
            "{path:?}"
        );
    }
}

#[test]
fn every_example_runs_and_ends_by_itself_with_its_books_balanced() {
    let Some(program) = program() else {
        return;
    };
    for path in examples() {
        let output = Command::new(program.binary())
            .arg("lab")
            .arg(&path)
            .args(["--seconds", "2", "--seed", "99", "--json"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path:?}: {errors}");
        let documents = documents(&output.stdout);
        let (up, down) = (&documents[0], documents.last().unwrap());
        assert_eq!(up["type"], "up");
        assert_eq!(up["seed"], 99);
        assert_eq!(up["sites"].as_array().unwrap().len(), 2);
        assert_eq!(down["type"], "down");
        assert_eq!(down["balanced"], true, "{down}");
        let seconds: Vec<&Value> = documents
            .iter()
            .filter(|line| line["type"] == "links")
            .collect();
        assert_eq!(seconds.len(), 2, "{documents:?}");
        // Gateways shake hands at once, so something was offered on some link.
        let links = seconds[1]["links"].as_array().unwrap();
        assert!(!links.is_empty(), "{path:?}");
        for link in links {
            let lost = link["lost"].as_object().unwrap().values();
            let lost: u64 = lost.map(|count| count.as_u64().unwrap()).sum();
            let sum = link["delivered"].as_u64().unwrap() + lost;
            assert_eq!(link["offered"].as_u64().unwrap(), sum, "{link}");
        }
    }
}

#[test]
fn a_lab_that_is_told_to_end_ends_its_gateways_and_says_so() {
    let Some(program) = program() else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = Command::new(program.binary())
            .arg("lab")
            .arg(&examples()[0])
            .arg("--json")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let up: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let sites = up["sites"].as_array().unwrap();
        let pids = sites
            .iter()
            .map(|site| site["gateway_pid"].as_u64().unwrap() as u32);
        let pids: Vec<u32> = pids.collect();
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        // The way in that it printed is one.
        for site in sites {
            let way = site["enter_gateway"]
                .as_str()
                .unwrap()
                .replace("wg show", "ip route");
            let output = Command::new("sh").args(["-c", &way]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("198.18.0.0/15 dev wan0"), "{way}: {text}");
        }
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let last = lines.map(Result::unwrap).last().unwrap();
        let down: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(down["type"], "down", "{last}");
        assert!(child.wait().unwrap().success());
        assert!(pids.iter().all(|pid| !is_alive(*pid)), "{signal}: {pids:?}");
    }
}

#[test]
fn a_killed_lab_leaves_no_gateway_behind() {
    let Some(program) = program() else {
        return;
    };
    let mut child = Command::new(program.binary())
        .arg("lab")
        .arg(&examples()[0])
        .arg("--json")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let up: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let sites = up["sites"].as_array().unwrap().iter();
    let pids: Vec<u32> = sites
        .map(|site| site["gateway_pid"].as_u64().unwrap() as u32)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let all_ended = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        pids.iter().all(|pid| !is_alive(*pid))
    });
    assert!(all_ended, "{pids:?}");
}

#[test]
fn a_faulty_file_is_refused_with_its_name_the_field_and_the_fix() {
    let Some(program) = program() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    let text = "[[site]]\nname = \"a\"\nuplinks = [\"x\"]\n[[site]]\nname = \"b\"\nuplinks = [\"y\"]\n\
                [[impair]]\nlink = \"a.x\"\nset = { loss_percent = 200 }\n";
    std::fs::write(&path, text).unwrap();
    let output = Command::new(program.binary())
        .arg("lab")
        .arg(&path)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    for part in ["bad.toml", "impair 1", "set.loss_percent = 200", "0 to 100"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}
