//! `patronus bench` as an operator runs it, with `--quick`: that its documents are whole and its packets add up.
//! No figure is judged here: these runs are no measurements.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use patronus_lab::Program;
use serde_json::Value;

/// The program, and the machine: two benchmarks at once would measure each other.
fn program() -> Option<(Program, MutexGuard<'static, ()>)> {
    static MACHINE: Mutex<()> = Mutex::new(());
    if !common::can_run() {
        return None;
    }
    let program = common::patronus()?;
    // Another test that failed is no reason to fail.
    let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    Some((program, machine))
}

/// The document of a benchmark that must succeed.
fn document(program: &Program, arguments: &[&str]) -> Value {
    let output = Command::new(program.binary())
        .arg("bench")
        .args(arguments)
        .args(["--quick", "--json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let note = document["note"].as_str().unwrap();
    assert!(note.starts_with("not a measurement"), "{note}");
    document
}

/// Whether the counters of a report add up, by our own arithmetic.
fn adds_up(packets: &Value) -> bool {
    let count = |name: &str| packets[name].as_u64().unwrap();
    let drops = packets["drops"].as_object().unwrap().values();
    let drops: u64 = drops.map(|drop| drop.as_u64().unwrap()).sum();
    let gone = count("tx") + count("consumed") + count("staged") + drops;
    count("rx") > 0 && count("rx") + count("divided") == gone
}

#[test]
fn a_quick_look_at_the_console_has_a_first_frame_and_a_cost_for_each_size_of_terminal() {
    let Some((program, _alone)) = program() else {
        return;
    };
    let output = Command::new(program.binary())
        .args(["bench", "console", "--sites", "2", "--quick", "--json"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "patronus-bench-report/1");
    assert_eq!(document["is_measurement"], false);
    let rows = document["rows"].as_array().unwrap();
    let sizes: Vec<&str> = rows
        .iter()
        .map(|row| row["labels"]["terminal"].as_str().unwrap())
        .collect();
    assert_eq!(sizes, ["80x24", "160x50"]);
    for row in rows {
        let figure = |name: &str| row["figures"][name]["median"].as_f64().unwrap();
        assert!(
            figure("first_frame") > 0.0 && figure("cpu") > 0.0,
            "{row:#}"
        );
    }
}

#[test]
fn a_quick_throughput_run_has_every_part_of_the_method_for_every_size_and_is_balanced() {
    let Some((program, _machine)) = program() else {
        return;
    };
    let document = document(&program, &["throughput"]);
    let sizes = ["64", "1420", "IMIX"];
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), sizes.len());
    for (size, (row, sender)) in sizes
        .iter()
        .zip(rows.iter().zip(document["sender"].as_array().unwrap()))
    {
        assert_eq!(
            (&row["size"], &sender["size"]),
            (&(*size).into(), &(*size).into())
        );
        let limit = sender["pps"].as_f64().unwrap();
        assert!(limit > 0.0, "{sender:#}");
        assert!(row["sent"].as_u64() >= row["lost"].as_u64(), "{row:#}");
        // A busy machine may lose something at every rate; then both are null, and so is the delay.
        if let Some(ndr) = row["ndr"]["pps"].as_f64() {
            assert!(ndr <= limit * 1.01, "{row:#}");
        }
        if row["pdr_pps"].is_number() {
            let delay = &row["delay"];
            let [p50, p99, max] = ["p50_ns", "p99_ns", "max_ns"].map(|name| delay[name].as_u64());
            assert!(p50 > Some(0) && p50 <= p99 && p99 <= max, "{delay:#}");
            assert!(!row["loss_curve"].as_array().unwrap().is_empty());
        }
    }
    let balance = &document["balance"]["patronus"];
    assert_eq!(balance["balanced"], true, "{balance:#}");
    assert!(adds_up(&balance["packets"]), "{balance:#}");
}

#[test]
fn a_quick_handshakes_run_is_confirmed_by_the_gateway_and_drops_the_floods_for_their_reasons() {
    let Some((program, _machine)) = program() else {
        return;
    };
    let arguments = ["handshakes", "--initiators", "40", "--flood-pps", "5000"];
    common::one_of_three(|| is_whole_run_of_handshakes(&document(&program, &arguments)));
}

/// Asserts what holds in every run; what a machine without time leaves out is an error: an initiator that it kept from
/// answering in every round, and floods so thin that nothing is above the limit.
fn is_whole_run_of_handshakes(document: &Value) -> Result<(), String> {
    let rate = &document["rate"];
    assert!(rate["handshakes_per_s"].as_f64().unwrap() > 0.0, "{rate:#}");
    assert!(rate["completed"].as_u64() <= rate["sent"].as_u64());
    assert!(
        rate["balanced"] == true && adds_up(&rate["packets"]),
        "{rate:#}"
    );
    let confirmed = rate["confirmed_by_gateway"].as_u64();
    assert!(confirmed <= Some(40), "{rate:#}");

    let floods = document["floods"].as_array().unwrap();
    let kinds: Vec<&str> = floods
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["closed_port", "bad_mac", "valid_mac"]);
    let drops = |at: usize, reason: &str| floods[at]["packets"]["drops"][reason].as_u64();
    for (at, row) in floods.iter().enumerate() {
        assert!(
            row["balanced"] == true && adds_up(&row["packets"]),
            "{row:#}"
        );
        assert!(row["goodput_during_gbps"].as_f64().unwrap() > 0.0);
        assert_eq!(drops(at, "handshake_bad_mac").is_some(), at == 1, "{row:#}");
    }
    assert!(drops(1, "handshake_bad_mac") <= floods[1]["flood_sent"].as_u64());
    // Strangers pass the first MAC, so they are unknown up to the limit of a second and asked for a cookie above.
    assert!(
        drops(2, "handshake_unknown_peer") > Some(0),
        "{:#}",
        floods[2]
    );
    let is_full = |row: &Value| row["flood_sent"].as_u64() > Some(100);
    let is_above = drops(2, "handshake_under_load") > Some(0);
    common::check(
        confirmed == Some(40) && is_above && floods.iter().all(is_full),
        document,
    )
}

#[test]
fn a_quick_comparison_has_a_row_for_each_program_and_says_how_to_get_the_others() {
    let Some((program, _machine)) = program() else {
        return;
    };
    let output = Command::new(program.binary())
        .args([
            "bench",
            "compare",
            "--quick",
            "--json",
            "--peers",
            "boringtun,gotatun,nebula",
        ])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["rows"].as_array().unwrap().len(), 1);
    let row = &document["rows"][0];
    assert_eq!(
        (&row["name"], &row["socket_buffer"]),
        (&"patronus".into(), &"default".into())
    );
    for metric in [
        "tcp_gbps",
        "udp_gbps",
        "small_kpps",
        "rtt_loaded_us_mean",
        "pings_lost",
        "tcp_retransmitted",
    ] {
        assert!(row[metric].is_number(), "{metric}: {row:#}");
    }
    for (peer, how) in [
        ("boringtun", "cargo install boringtun-cli"),
        ("gotatun", "cargo install gotatun-cli"),
        ("nebula", "nebula-cert"),
    ] {
        assert!(
            document["absent"][peer].as_str().unwrap().contains(how),
            "{document:#}"
        );
    }
}

#[test]
fn a_benchmark_that_is_interrupted_ends_with_code_130_and_no_document() {
    let Some((program, _machine)) = program() else {
        return;
    };
    for bench in ["throughput", "handshakes"] {
        let child = Command::new(program.binary())
            .args(["bench", bench, "--json"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        common::await_handler_of_ctrl_c(child.id());
        std::thread::sleep(std::time::Duration::from_secs(1));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();

        let output = child.wait_with_output().unwrap();

        assert_eq!(output.status.code(), Some(130), "{bench}");
        assert!(output.stdout.is_empty(), "{bench}");
    }
}

#[test]
fn a_quick_run_before_the_gateways_has_costs_drops_and_what_a_flooded_peer_keeps() {
    let Some((program, _machine)) = program() else {
        return;
    };
    let output = Command::new(program.binary())
        .args(["bench", "prefilter", "--quick", "--json"])
        .args(["--junk-pps", "50000", "--initiations-pps", "20000"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && errors.contains("no pre-filter here") {
        common::skip(&errors);
        return;
    }
    assert!(output.status.success(), "{errors}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["is_measurement"], false, "{document:#}");
    let rows = document["rows"].as_array().unwrap();
    let of = |part: &str| -> Vec<&Value> {
        let rows = rows.iter().filter(|row| row["labels"]["part"] == part);
        rows.collect()
    };
    // Seven classes through two programs, two floods at four hooks.
    assert_eq!(
        (of("cost").len(), of("drops").len()),
        (14, 8),
        "{document:#}"
    );
    for row in of("drops") {
        let dropped = row["figures"]["dropped_pps"]["median"].as_f64().unwrap();
        assert!(dropped > 0.0, "{row:#}");
    }
    assert_eq!(of("carried").len(), 2);
    for row in of("flood") {
        let figures = &row["figures"];
        assert!(
            figures["goodput_during"]["median"].as_f64() > Some(0.0),
            "{row:#}"
        );
        // So few initiations from a whole /16 stay below every /24's limit.
        let is_junk = row["labels"]["flood"] == "junk";
        assert!(
            !is_junk || figures["dropped_pps"]["median"].as_f64() > Some(0.0),
            "{row:#}"
        );
    }
    assert_eq!((of("flood").len(), of("failover").len()), (2, 1));
}
