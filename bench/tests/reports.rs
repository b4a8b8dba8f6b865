//! Whole runs, as short as they get, and their documents against the schema in the tree.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what failed by where it panics"
)]

mod common;

use common::faults;
use patronus_bench::{AeadOptions, EngineOptions, Outcome, PathsOptions, PolicyOptions, Report};
use serde_json::Value;

const SCHEMA: &str = include_str!("../schema/report-v1.json");

fn quick_aead() -> Report {
    patronus_bench::aead::aead(&AeadOptions {
        sizes: Vec::new(),
        core: None,
        trials: 5,
        seconds: 0.1,
        quick: true,
        command: "patronus bench aead --quick".to_owned(),
    })
    .unwrap()
}

fn quick_engine(workers: usize) -> Report {
    patronus_bench::engine::engine(&EngineOptions {
        shapes: Vec::new(),
        flows: Vec::new(),
        peers: Vec::new(),
        workers,
        batch: 8,
        core: None,
        trials: 5,
        seconds: 0.1,
        quick: true,
        command: "patronus bench engine --quick".to_owned(),
    })
    .unwrap()
}

fn quick_policy() -> Report {
    patronus_bench::policy::policy(&PolicyOptions {
        policies: 10_000,
        endpoints: 100_000,
        core: None,
        trials: 5,
        quick: true,
        command: "patronus bench policy --quick".to_owned(),
    })
    .unwrap()
}

fn quick_paths() -> Report {
    patronus_bench::paths::paths(&PathsOptions {
        peers: 500,
        active: 4,
        seconds: 60,
        core: None,
        quick: true,
        command: "patronus bench paths --quick".to_owned(),
    })
    .unwrap()
}

fn faults_of(document: &Value) -> Vec<String> {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    faults(&schema, &schema, document, "$")
}

#[test]
fn what_every_bench_writes_fits_the_schema() {
    let reports = [quick_aead(), quick_engine(1), quick_policy(), quick_paths()];
    for report in reports {
        let document: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(faults_of(&document), Vec::<String>::new());
        assert!(!document["rows"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_hub_probes_quickly_only_where_packets_go() {
    let report = quick_paths();
    let row = &report.rows[0];
    assert!(row.is(&[("peers", 8.into()), ("active", 4.into())]));
    // Two paths at 20 to 27 hellos a second of each active site, at one a second of the others, and a packet.
    let sent = row.figures["sent"].median;
    assert!((160.0..250.0).contains(&sent), "{sent} a second");
    assert!(row.figures["core_share"].median > 0.0);
    assert_eq!(row.figures["downs"].median, 0.0);
}

#[test]
fn the_schema_refuses_what_a_report_must_not_be() {
    let good: Value = serde_json::from_str(&quick_aead().to_json().unwrap()).unwrap();
    let spoil = |pointer: &str, value: Value| {
        let mut document = good.clone();
        *document.pointer_mut(pointer).unwrap() = value;
        faults_of(&document)
    };
    for (pointer, value, fault) in [
        ("/schema", "patronus-bench-report/2".into(), "$.schema"),
        ("/verdict/outcome", "good".into(), "$.verdict.outcome"),
        ("/env/cpus", 0.into(), "$.env.cpus"),
        (
            "/rows/0/figures/ns_per_packet/trials",
            Value::Array(Vec::new()),
            "fewer than 1",
        ),
        (
            "/rows/1/figures/ns_per_packet/median",
            Value::Null,
            "$.rows[1].figures.ns_per_packet",
        ),
        (
            "/rows/0/labels",
            serde_json::json!({ "bytes": [1] }),
            "$.rows[0].labels.bytes",
        ),
        ("/env", serde_json::json!({}), "`cpu_model` is missing"),
    ] {
        let found = spoil(pointer, value);
        assert!(
            found.iter().any(|found| found.contains(fault)),
            "{pointer}: {found:?}"
        );
    }
    let mut document = good.clone();
    document["extra"] = 1.into();
    assert_eq!(faults_of(&document), ["$.extra: not in the schema"]);
}

#[test]
fn a_quick_run_has_every_case_and_passes_no_target() {
    let report = quick_engine(1);
    assert!(!report.is_measurement);
    assert_eq!(report.verdict.outcome, Outcome::None);
    let names: Vec<&str> = report
        .verdict
        .checks
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "seal_1420_of_aead",
            "open_1420_of_aead",
            "seal_45x1380_of_aead",
            "open_45x1380_of_aead",
            "policy_seal_1420_ratio",
            "policy_open_1420_ratio",
            "policy_seal_45x1380_ratio",
            "policy_open_45x1380_ratio"
        ]
    );
    let (staged, rows): (Vec<_>, Vec<_>) = report
        .rows
        .iter()
        .filter(|row| !row.is(&[("part", "policy".into())]))
        .partition(|row| row.is(&[("part", "stages".into())]));
    // Two frames, both ways.
    assert_eq!(report.rows.len() - staged.len() - rows.len(), 4);
    // Three frames, both ways.
    assert_eq!(staged.len(), 6);
    for row in staged {
        let (cipher, other) = match row.is(&[("direction", "seal".into())]) {
            true => ("seal_ns", "open_ns"),
            false => ("open_ns", "seal_ns"),
        };
        assert!(row.figures.contains_key(cipher), "{row:?}");
        assert!(!row.figures.contains_key(other), "{row:?}");
    }
    // Three frames, each with three loads, both ways.
    assert_eq!(rows.len(), 18);
    for row in rows {
        assert!(row.figures["ns_per_packet"].min > 0.0);
        let share = row.figures["of_aead"].median;
        assert!(share.is_finite() && share > 0.0);
    }
    let text = report.to_text();
    let long = text
        .lines()
        .find(|line| !line.starts_with("RESULT") && line.chars().count() > 80);
    assert_eq!(long, None);
}

#[test]
fn as_many_workers_run_at_once_as_there_are_cores_and_no_more() {
    let cores = patronus_bench::pin::cores().unwrap().len();
    let report = quick_engine(cores);
    let of_workers = |workers: usize| {
        report
            .rows
            .iter()
            .filter(|row| {
                row.figures.contains_key("speedup") && row.is(&[("workers", workers.into())])
            })
            .count()
    };
    assert_eq!(of_workers(cores), if cores > 1 { 2 } else { 0 });
    let error = patronus_bench::engine::engine(&EngineOptions {
        shapes: vec!["64".parse().unwrap()],
        flows: vec![1],
        peers: Vec::new(),
        workers: cores + 1,
        batch: 8,
        core: None,
        trials: 1,
        seconds: 0.1,
        quick: true,
        command: String::new(),
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.contains(&format!("--workers {}", cores + 1)),
        "{error}"
    );
}
