//! `patronus policy …` and `patronus explain`: every verb, every exit code, JSON that programs can read, and input
//! that means harm.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use common::patronus;
use serde_json::Value;

fn branch(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/examples/branch");
    root.join(file).to_str().unwrap().to_owned()
}

fn run(args: &[&str]) -> Output {
    patronus().args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs with `--json` and returns the exit code and the one document on standard output.
fn json(args: &[&str]) -> (i32, Value) {
    let output = patronus().args(args).arg("--json").output().unwrap();
    let document = serde_json::from_slice(&output.stdout);
    (
        code(&output),
        document.unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}")),
    )
}

fn assert_fits_80_columns(text: &str) {
    for line in text.lines() {
        // A path stays whole, to be copied.
        let is_long_word = line.split_whitespace().any(|word| word.len() > 60);
        assert!(line.chars().count() <= 80 || is_long_word, "{line}");
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Two pods of namespace `a`, of which `p0` is closed but for `q` on TCP/80.
const SMALL: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Pod
metadata: {name: p0, namespace: a, labels: {app: p}}
status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: q, namespace: a, labels: {app: q}}
status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-q, namespace: a}
spec:
  podSelector: {matchLabels: {app: p}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: q}}}]
    ports: [{port: 80}]
"#;

#[test]
fn test_passes_on_the_example_and_fails_with_one_line_per_verdict() {
    let output = run(&["policy", "test", &branch("tests.json")]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(text(&output.stdout).contains(" 0 failed"), "{output:?}");
    let (status, document) = json(&["policy", "test", &branch("tests.json")]);
    assert_eq!((status, &document["passed"]), (0, &true.into()));
    assert!(document["must"]["passed"].as_u64().unwrap() > 10);
    assert_eq!(document["failures"], Value::Array(vec![]));

    let original = std::fs::read_to_string(branch("tests.json")).unwrap();
    let mut spoilt: Value = serde_json::from_str(&original).unwrap();
    let table = &mut spoilt["cases"][0]["steps"][0]["tables"][0];
    let rows = table["rows"].as_object_mut().unwrap();
    let row = rows.values_mut().next().unwrap();
    let turned = row
        .as_str()
        .unwrap()
        .replace('.', "Q")
        .replace('X', ".")
        .replace('Q', "X");
    *row = turned.into();
    let folder = Folder::new(&[("spoilt.json", spoilt.to_string().as_bytes())]);
    let output = run(&["policy", "test", &folder.file("spoilt.json")]);
    assert_eq!(code(&output), 1);
    let lines = text(&output.stdout);
    let failing = lines
        .lines()
        .filter(|line| line.contains("must FAIL"))
        .count();
    assert!(failing > 0, "{lines}");
    let (status, document) = json(&["policy", "test", &folder.file("spoilt.json")]);
    assert_eq!((status, &document["passed"]), (1, &false.into()));
    assert_eq!(document["failures"].as_array().unwrap().len(), failing);
    assert_eq!(document["failures"][0]["level"], "must");
}

#[test]
fn test_refuses_what_is_no_document_and_does_not_call_nothing_a_success() {
    let empty = r#"{"format": 1, "cases": []}"#;
    let folder = Folder::new(&[
        ("x.json", b"{\"format\": 1, \"cases\": [1"),
        ("e.json", empty.as_bytes()),
    ]);
    for file in ["x.json", "e.json", "absent.json"] {
        let output = run(&["policy", "test", &folder.file(file)]);
        assert_eq!(code(&output), 1, "{file}: {output:?}");
    }
}

#[test]
fn check_counts_objects_and_names_file_line_field_and_remedy() {
    let output = run(&["policy", "check", &branch("")]);
    assert_eq!(code(&output), 0, "{output:?}");
    let told = text(&output.stdout);
    assert!(
        told.contains("4 files:") && told.contains("NetworkPolicy"),
        "{told}"
    );
    assert!(told.contains("test document"), "{told}");

    let bad = SMALL.replace("ports: [{port: 80}]", "ports: [{port: 80, endPort: 70}]");
    let folder = Folder::new(&[("bad.yaml", bad.as_bytes())]);
    let output = run(&["policy", "check", folder.path()]);
    assert_eq!(code(&output), 1);
    let told = text(&output.stdout).replace("\n    ", " ");
    assert!(
        told.contains("bad.yaml:23") && told.contains("endPort"),
        "{told}"
    );
    assert!(told.contains("1 error, 0 warnings"), "{told}");
    let (status, document) = json(&["policy", "check", folder.path()]);
    assert_eq!((status, &document["valid"]), (1, &false.into()));
    assert_eq!(document["diagnostics"][0]["line"], 23);
    assert_eq!(document["objects"]["Pod"], 2);
}

#[test]
fn list_tells_tiers_selection_and_rules() {
    let (status, document) = json(&["policy", "list", &branch("")]);
    assert_eq!(status, 0);
    let policies = document["policies"].as_array().unwrap();
    assert_eq!(policies[0]["tier"], "admin");
    assert!(policies.iter().any(|it| it["name"] == "shop/closed"));
    let output = run(&["policy", "list", &branch("")]);
    let told = text(&output.stdout);
    assert_fits_80_columns(&told);
    assert!(
        told.contains("admin guests-stay-out priority 100"),
        "{told}"
    );
    assert!(told.contains("allows nothing"), "{told}");

    let folder = Folder::new(&[("a.yaml", SMALL.as_bytes())]);
    let (_, document) = json(&["policy", "list", folder.path()]);
    let policy = &document["policies"][0];
    assert_eq!(
        (&policy["pods"], &policy["egress"]),
        (&1.into(), &Value::Null)
    );
    assert_eq!(policy["ingress"][0]["peers"], "pods with app=q of a");
    assert_eq!(policy["ingress"][0]["ports"], "TCP/80");
}

#[test]
fn lint_reports_and_fails_only_when_strict() {
    let more = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: nobody, namespace: a}\n\
                spec: {podSelector: {matchLabels: {app: absent}}}\n";
    let folder = Folder::new(&[("a.yaml", format!("{SMALL}{more}").as_bytes())]);
    let output = run(&["policy", "lint", folder.path()]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(
        text(&output.stdout).contains("selects no pod"),
        "{output:?}"
    );
    let (status, document) = json(&["policy", "lint", "--strict", folder.path()]);
    assert_eq!(status, 1);
    assert_eq!(document["findings"][0]["kind"], "selects-nothing");
    assert_eq!(document["findings"][0]["line"], 25);
    let clean = Folder::new(&[("a.yaml", SMALL.as_bytes())]);
    assert_eq!(code(&run(&["policy", "lint", "--strict", clean.path()])), 0);
}

#[test]
fn explain_exits_with_the_verdict_and_names_file_and_line() {
    let folder = Folder::new(&[("a.yaml", SMALL.as_bytes())]);
    let ask = |src: &str, dst: &str, port: &str| {
        run(&["explain", src, dst, port, "--config", folder.path()])
    };
    let output = ask("a/q", "a/p0", "tcp/80");
    assert_eq!(code(&output), 0, "{output:?}");
    let told = text(&output.stdout);
    assert!(told.starts_with("allowed: a/q (10.0.0.2) -> a/p0 (10.0.0.1), TCP/80"));
    assert!(
        told.replace("\n      ", " ").contains("a.yaml:22"),
        "{told}"
    );
    let output = ask("a/q@6", "a/p0", "udp/80");
    assert_eq!(code(&output), 4, "{output:?}");
    let told = text(&output.stdout).replace("\n      ", " ");
    assert!(told.starts_with("denied: a/q (fd00::2)"), "{told}");
    assert!(
        told.contains("isolated by a/only-q") && told.contains("another protocol"),
        "{told}"
    );
    assert_eq!(code(&ask("203.0.113.9", "10.0.0.1", "TCP/80")), 4);
    assert_eq!(code(&ask("10.0.0.1", "203.0.113.9", "icmp")), 0);
    for (src, dst, port) in [
        ("nonsense", "a/p0", "tcp/80"),
        ("a/q", "a/p0", "tcp"),
        ("a/q", "a/p0", "tcp/0"),
        ("a/q@5", "a/p0", "tcp/80"),
    ] {
        let output = ask(src, dst, port);
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(text(&output.stderr).contains("write"), "{output:?}");
    }
    let output = ask("a/absent", "a/p0", "tcp/80");
    assert_eq!(code(&output), 1);
    assert!(
        text(&output.stderr).contains("there is no pod"),
        "{output:?}"
    );
    let (status, document) = json(&[
        "explain",
        "a/q",
        "a/p0",
        "tcp/81",
        "--config",
        folder.path(),
    ]);
    assert_eq!((status, &document["allow"]), (4, &false.into()));
    assert_eq!(document["ingress"]["isolated_by"][0]["name"], "a/only-q");
    assert_eq!(document["ingress"]["nearest"]["missing"], "port");
    assert_eq!(document["ingress"]["nearest"]["rule"]["line"], 22);
}

#[test]
fn diff_names_objects_pairs_and_ports_and_the_flows_of_a_file() {
    let edited = SMALL.replace("ports: [{port: 80}]", "ports: [{port: 80, endPort: 89}]");
    let closed = SMALL.replace("ports: [{port: 80}]", "ports: [{port: 81}]");
    let flows = "{\"src\": \"a/q\", \"dst\": \"10.0.0.1\", \"protocol\": \"tcp\", \"port\": 80}\n\
                 {\"src\": \"10.0.0.9\", \"dst\": \"a/p0\", \"protocol\": 6, \"port\": 80, \"bytes\": 12}\n";
    let folder = Folder::new(&[
        ("old.yaml", SMALL.as_bytes()),
        ("open.yaml", edited.as_bytes()),
        ("closed.yaml", closed.as_bytes()),
        ("flows.json", flows.as_bytes()),
    ]);
    let (old, open, closed) = (
        folder.file("old.yaml"),
        folder.file("open.yaml"),
        folder.file("closed.yaml"),
    );
    let (status, document) = json(&["policy", "diff", &old, &open]);
    assert_eq!(status, 0);
    assert_eq!(document["objects"]["changed"][0], "NetworkPolicy a/only-q");
    assert_eq!(
        document["changes"].as_array().unwrap().len(),
        1,
        "{document:#}"
    );
    let change = &document["changes"][0];
    assert_eq!(
        (&change["src"], &change["dst"]),
        (&"a/q".into(), &"a/p0".into())
    );
    assert_eq!(
        (&change["allow"], &change["ports"][0]),
        (&true.into(), &"TCP/81-89".into())
    );
    let output = run(&["policy", "diff", &old, &open]);
    let told = text(&output.stdout);
    assert!(told.contains("opens a/q -> a/p0: TCP/81-89"), "{told}");
    assert_fits_80_columns(&told);

    let flows = folder.file("flows.json");
    let (_, document) = json(&["policy", "diff", &old, &closed, "--flows", &flows]);
    assert_eq!(
        (&document["cut"], &document["judged"]),
        (&1.into(), &2.into())
    );
    assert_eq!(document["changes"][0]["old"]["allow"], true);
    assert_eq!(
        document["changes"][0]["new"]["ingress"]["nearest"]["missing"],
        "port"
    );
    let output = run(&["policy", "diff", &old, &closed, "--flows", &flows]);
    assert!(
        text(&output.stdout).contains("1 would be cut"),
        "{output:?}"
    );
    // What stands elsewhere in the file is the same policy.
    let moved = format!("# a comment\n{SMALL}");
    std::fs::write(folder.0.path().join("moved.yaml"), moved).unwrap();
    let output = run(&["policy", "diff", &old, &folder.file("moved.yaml")]);
    assert!(
        text(&output.stdout).contains("no object changes"),
        "{output:?}"
    );
}

#[test]
fn flow_files_that_are_none_are_refused_with_their_place() {
    let folder = Folder::new(&[
        ("a.yaml", SMALL.as_bytes()),
        ("empty.json", b"\n"),
        ("half.json", b"{\"src\": \"a/q\""),
        (
            "end.json",
            b"[{\"src\": \"q\", \"dst\": \"a/q\", \"protocol\": 6, \"port\": 1}]",
        ),
        ("utf8.json", b"\xff\xfe"),
    ]);
    let old = folder.file("a.yaml");
    for file in ["empty.json", "half.json", "end.json", "utf8.json"] {
        let flows = folder.file(file);
        let output = run(&["policy", "diff", &old, &old, "--flows", &flows]);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(text(&output.stderr).contains(file), "{output:?}");
    }
}

#[test]
fn a_refused_object_stops_every_verb_that_would_answer_without_it() {
    let bad = SMALL.replace("port: 80", "port: 0");
    let folder = Folder::new(&[("bad.yaml", bad.as_bytes())]);
    let path = folder.path();
    for args in [
        &["policy", "list", path][..],
        &["policy", "lint", path],
        &["policy", "diff", path, path],
        &["explain", "a/q", "a/p0", "tcp/80", "--config", path],
    ] {
        let output = run(args);
        assert_eq!(code(&output), 1, "{output:?}");
        let told = text(&output.stderr);
        assert!(
            told.contains("bad.yaml:23") && told.contains("policy check"),
            "{told}"
        );
    }
}

#[test]
fn hostile_files_end_with_a_message_in_bounded_time() {
    let lol: String = (1..12)
        .map(|at| {
            format!(
                "l{at}: &l{at} [{}]\n",
                vec![format!("*l{}", at - 1); 10].join(", ")
            )
        })
        .collect();
    let lol = format!("l0: &l0 lol\n{lol}");
    let folder = Folder::new(&[
        ("huge.yaml", &vec![b'a'; 20 << 20]),
        ("deep.json", "[".repeat(200_000).as_bytes()),
        (
            "deep.yaml",
            format!("a: {}", "[".repeat(200_000)).as_bytes(),
        ),
        ("lol.yaml", lol.as_bytes()),
        ("utf8.yaml", b"kind: \xff\xfe\n"),
        ("twice.yaml", b"kind: Pod\nkind: Pod\n"),
        ("cut.json", b"{\"kind\": \"Pod\", \"metadata\": {\"na"),
        ("nul.yaml", b"\0\0\0\0"),
        (
            "wide.json",
            format!("[{}1]", "1,".repeat(3_000_000)).as_bytes(),
        ),
        ("empty.json", b""),
    ]);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let file: PathBuf = entry.unwrap().path();
        let file = file.to_str().unwrap();
        for verb in ["check", "test", "list", "lint"] {
            let is_empty = file.ends_with("empty.json");
            let start = Instant::now();
            let output = run(&["policy", verb, file]);
            assert!(start.elapsed() < Duration::from_secs(20), "{verb} {file}");
            if is_empty && verb != "test" {
                continue;
            }
            assert_eq!(code(&output), 1, "{verb} {file}: {output:?}");
            let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert!(!told.is_empty() && told.len() < 20_000, "{verb} {file}");
            assert!(!told.contains("panicked"), "{told}");
        }
    }
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = Folder::new(&[]);
    let fifo = folder.0.path().join("fifo.yaml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = fifo.to_str().unwrap();
    for path in [fifo, "/dev/zero", folder.path(), "/absent/file.yaml"] {
        let output = run(&["policy", "check", path]);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(text(&output.stderr).contains(path), "{output:?}");
    }
}

#[test]
fn every_verb_has_help_with_an_example_and_unknown_ones_are_usage_errors() {
    for verb in ["check", "test", "list", "lint", "diff"] {
        let output = run(&["policy", verb, "--help"]);
        assert_eq!(code(&output), 0);
        let told = text(&output.stdout);
        assert!(told.contains("Example") && told.contains(&format!("patronus policy {verb} ")));
    }
    assert!(text(&run(&["explain", "--help"]).stdout).contains("patronus explain guest/tablet"));
    for args in [
        &["policy", "chek", "x"][..],
        &["policy", "check"],
        &["policy", "list", "x", "--frob"],
        &["policy", "diff", "x", "y", "z"],
        &["explain", "a/b", "a/c", "tcp"],
    ] {
        assert_eq!(code(&run(args)), 2, "{args:?}");
    }
}

#[test]
fn without_files_the_running_gateway_is_asked_and_where_none_answers_that_is_code_5() {
    let folder = Folder::new(&[("small.yaml", SMALL.as_bytes())]);
    let socket = folder.file("patronus.sock");
    for args in [
        &["policy", "list"][..],
        &["policy", "diff", folder.path()],
        &["explain", "a/q", "a/p0", "tcp/80"],
    ] {
        let output = run(&[args, &["--socket", &socket]].concat());
        let told = text(&output.stderr);
        assert_eq!(code(&output), 5, "{args:?}: {told}");
        let wanted = format!("patronus: daemon unreachable at {socket}: ");
        assert!(told.starts_with(&wanted), "{told}");
        assert!(told.contains("start it with `patronus run`"), "{told}");
    }
    let output = run(&["policy", "diff", folder.path(), "--flows", &socket]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("write OLD before NEW"));
}

#[test]
fn bench_policy_runs_quickly_and_prints_one_document() {
    let (status, document) = json(&["bench", "policy", "--quick"]);
    assert_eq!(status, 0);
    assert_eq!(
        (&document["bench"], &document["is_measurement"]),
        (&"policy".into(), &false.into())
    );
    let names = document["verdict"]["checks"].as_array().unwrap();
    assert!(
        names
            .iter()
            .any(|it| it["name"] == "compile_ms" && it["at_most"] == 1000.0)
    );
}
