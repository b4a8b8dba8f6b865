//! `patronus replay`: a recorded trace decided again, with other values, as JSON, and traces that are none.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use common::patronus;
use serde_json::Value;

/// 24 s of two paths: the first one loses a quarter from 8 s to 15 s, the second one is dead from 23.0 s to 25 s.
/// Written by `write_a_small_trace` in `dataplane/path/tests/traces.rs`.
fn trace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/brownout.jsonl")
}

fn replay(trace: &Path, args: &[&str]) -> Output {
    let output = patronus().arg("replay").arg(trace).args(args).output();
    output.unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn assert_fits_80_columns(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// Replays lines that are not on disk.
fn replay_text(text: &str) -> Output {
    let mut child = patronus()
        .args(["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses the first line does not read the others.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_trace_is_decided_again_with_the_same_log() {
    let first = stdout(&replay(&trace(), &[]));
    let second = stdout(&replay(&trace(), &[]));
    assert_eq!(first, second);
    assert_fits_80_columns(&first);
    assert!(first.starts_with("peer branch: "), "{first}");
    assert!(
        first.contains("realtime: wan0 -> wan1: wan0 violates loss"),
        "{first}"
    );
    assert!(
        first.contains("bulk: wan0 -> wan1") || first.contains("bulk: wan1 -> wan0"),
        "{first}"
    );
    assert!(first.contains("cuts of realtime, <= 500 ms: 1"), "{first}");
}

#[test]
fn other_bounds_say_what_would_have_changed() {
    let set = ["--set", "class.realtime.loss_pct=40,80"];
    let told = stdout(&replay(&trace(), &set));
    assert_fits_80_columns(&told);
    assert!(
        told.contains("with class.realtime.loss_pct=40,80"),
        "{told}"
    );
    assert!(
        told.contains("realtime: wan0 -> wan1: wan0 violates loss"),
        "{told}"
    );
    let row = told
        .lines()
        .find(|line| line.starts_with("realtime "))
        .unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((words[1], words[3]), ("2", "0"), "{row}");
    let (before, after): (f64, f64) = (words[4].parse().unwrap(), words[6].parse().unwrap());
    assert!(before < after, "{row}");

    let same = stdout(&replay(&trace(), &["--set", "class.bulk.protect=true"]));
    assert!(
        same.contains("every decision would have been the same"),
        "{same}"
    );
}

#[test]
fn json_holds_decisions_usage_and_the_comparison() {
    let plain: Value = serde_json::from_slice(&replay(&trace(), &["--json"]).stdout).unwrap();
    assert_eq!(plain["peer"], "branch");
    let decisions = plain["decisions"].as_array().unwrap();
    assert!(decisions.iter().any(|it| it["cause"] == "sla"));
    assert_eq!(plain["usage"][0]["class"], "realtime");
    let set = ["--json", "--set", "class.realtime.loss_pct=40,80"];
    let both: Value = serde_json::from_slice(&replay(&trace(), &set).stdout).unwrap();
    assert_eq!(both["recorded"], plain);
    let realtime = &both["comparison"]["classes"][0];
    assert_eq!(realtime["switches"]["base"], 2);
    assert_eq!(realtime["switches"]["other"], 0);
}

#[test]
fn a_bad_line_is_named_with_its_field() {
    let good = std::fs::read_to_string(trace()).unwrap();
    let begin = good.lines().next().unwrap();
    for (line, told) in [
        (
            r#"{"seen":[1,{"rtt":[0,"fast"]}]}"#,
            "line 2: field `rtt`: invalid type: string \"fast\"",
        ),
        (
            r#"{"seen":[1,{"smell":[0,1]}]}"#,
            "line 2: field `seen`: unknown variant `smell`",
        ),
        (
            r#"{"seen":[1,{"path":[0,{"name":"a"}]}]}"#,
            "missing field `uplink`",
        ),
        (
            r#"{"seen":[-1,{"gone":0}]}"#,
            "line 2: field `seen`: invalid value",
        ),
        ("nonsense", "line 2: "),
        ("[]", "a line is one JSON object"),
    ] {
        let output = replay_text(&format!("{begin}\n{line}\n"));
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        let error = stderr(&output);
        assert!(error.contains("standard input: line 2"), "{line}: {error}");
        assert!(error.contains(told), "{line}: {error}");
    }
    let output = replay_text("");
    assert!(stderr(&output).contains("the trace is empty"), "{output:?}");
    let output = replay_text("{\"timeout\":1}\n");
    assert!(stderr(&output).contains("line 1: no `begin`"), "{output:?}");
    let output = replay(Path::new("/nowhere/trace.jsonl"), &[]);
    assert!(
        stderr(&output).contains("cannot open /nowhere/trace.jsonl"),
        "{output:?}"
    );
}

#[test]
fn a_last_line_that_was_cut_short_is_left_out() {
    let good = std::fs::read_to_string(trace()).unwrap();
    let output = replay_text(&good[..good.len() - 20]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        stderr(&output).contains("is cut short and left out"),
        "{output:?}"
    );
}

#[test]
fn a_bad_value_names_its_key_and_the_fix() {
    for (set, told) in [
        ("class.realtime.loss_pct=2", "SOFT,HARD in percent"),
        ("class.realtime.colour=2", "no such key"),
        ("class.voice.protect=true", "there is no class `voice`"),
        ("class.realtime.loss_pct=6,2", "0 <= soft < hard"),
    ] {
        let output = replay(&trace(), &["--set", set]);
        assert!(!output.status.success(), "{set}");
        let error = stderr(&output);
        assert!(error.contains(told), "{set}: {error}");
        assert!(
            error.contains(set.split('=').next().unwrap()),
            "{set}: {error}"
        );
    }
}
