//! Dependencies point down only: an edge between two of our crates that `docs/ARCHITECTURE.md` does not draw
//! fails this test.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom, below itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("patronus-aead", &[]),
    ("patronus-impair", &[]),
    ("patronus-packet", &[]),
    ("patronus-path", &[]),
    ("patronus-policy", &["patronus-packet"]),
    ("patronus-tunnel", &["patronus-aead", "patronus-packet"]),
    (
        "patronus-engine",
        &[
            "patronus-impair",
            "patronus-packet",
            "patronus-path",
            "patronus-policy",
            "patronus-tunnel",
        ],
    ),
    ("patronus-io", &["patronus-packet"]),
    ("patronus-api", &[]),
    (
        "patronus-config",
        &[
            "patronus-packet",
            "patronus-path",
            "patronus-policy",
            "patronus-tunnel",
        ],
    ),
    ("patronus-discovery", &["patronus-packet"]),
    ("patronus-history", &[]),
    ("patronus-ebpf", &[]),
    ("patronus-tui", &["patronus-api"]),
    (
        "patronus-gateway",
        &[
            "patronus-aead",
            "patronus-api",
            "patronus-config",
            "patronus-ebpf",
            "patronus-engine",
            "patronus-history",
            "patronus-io",
            "patronus-packet",
            "patronus-path",
            "patronus-policy",
            "patronus-tunnel",
        ],
    ),
    (
        "patronus-lab",
        &[
            "patronus-api",
            "patronus-ebpf",
            "patronus-impair",
            "patronus-packet",
            "patronus-tunnel",
        ],
    ),
    (
        "patronus-bench",
        &[
            "patronus-aead",
            "patronus-engine",
            "patronus-packet",
            "patronus-path",
            "patronus-policy",
            "patronus-tunnel",
        ],
    ),
    (
        "patronus-cli",
        &[
            "patronus-api",
            "patronus-bench",
            "patronus-config",
            "patronus-gateway",
            "patronus-lab",
            "patronus-path",
            "patronus-policy",
            "patronus-tui",
        ],
    ),
];

/// Crates that belong to control and never to a worker.
const CONTROL_ONLY: &[&str] = &["tokio", "axum", "hyper", "rtnetlink", "clap", "serde_json"];
const DATAPLANE: &[&str] = &[
    "patronus-aead",
    "patronus-impair",
    "patronus-packet",
    "patronus-path",
    "patronus-policy",
    "patronus-tunnel",
    "patronus-engine",
    "patronus-io",
];

/// Normal dependencies of every crate of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("a list");
            let normal = all.iter().filter(|dependency| dependency["kind"].is_null());
            (name(package), normal.map(name).collect())
        })
        .collect()
}

#[test]
fn every_edge_between_our_crates_is_drawn() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let actual = dependencies();
    let ours: BTreeSet<&str> = actual.keys().map(String::as_str).collect();
    assert_eq!(
        ours,
        allowed.keys().copied().collect(),
        "the list of crates and the workspace differ"
    );
    for (from, to) in &actual {
        for edge in to.iter().filter(|to| ours.contains(to.as_str())) {
            assert!(
                allowed[from.as_str()].contains(&edge.as_str()),
                "{from} -> {edge} is not an arrow of ours"
            );
        }
    }
}

#[test]
fn the_dataplane_knows_nothing_of_control() {
    let actual = dependencies();
    for room in DATAPLANE {
        for banned in CONTROL_ONLY {
            assert!(
                !actual[*room].contains(*banned),
                "{room} depends on {banned}"
            );
        }
    }
}
