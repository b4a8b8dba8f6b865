//! The verbs about paths, against a socket that answers as a gateway would, as an old one, or not at all.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc;
use std::time::Duration;

use common::patronus;
use serde_json::{Value, json};

/// A gateway that answers from a list and remembers what it was asked; it goes on until this is dropped.
struct Gateway {
    dir: tempfile::TempDir,
    asked: mpsc::Receiver<String>,
}

impl Gateway {
    /// Answers requests whose first line begins so with that status and body; everything else as one that knows none.
    fn new(answers: &[(&str, u16, Value)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let (asked_in, asked) = mpsc::channel();
        let answers: Vec<(String, u16, Value)> = answers
            .iter()
            .map(|(target, status, body)| ((*target).to_owned(), *status, body.clone()))
            .collect();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                let request = read_request(&mut stream);
                if request.is_empty() {
                    continue;
                }
                let found = answers.iter().find(|(it, ..)| request.starts_with(it));
                let (status, body) = match found {
                    Some((_, status, body)) => (*status, body.clone()),
                    None => (404, unknown()),
                };
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
                if asked_in.send(request).is_err() {
                    return;
                }
            }
        });
        Self { dir, asked }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    fn run(&self, args: &[&str]) -> Output {
        run(args, &self.socket())
    }

    /// What was asked so far.
    fn requests(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

/// Head and body; nothing where the client only knocked.
fn read_request(stream: &mut impl Read) -> String {
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let len = stream.read(&mut chunk).unwrap_or(0);
        heard.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8_lossy(&heard).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if len == 0 {
                return text;
            }
            continue;
        };
        let wanted = head
            .lines()
            .find_map(|it| it.strip_prefix("Content-Length: "));
        if len == 0 || body.len() >= wanted.map_or(0, |it| it.parse().unwrap()) {
            return text;
        }
    }
}

/// What a gateway says that knows nothing of paths.
fn unknown() -> Value {
    let fix = "GET /v1/openapi.json lists the paths there are";
    json!({"error": "no such path", "field": null, "fix": fix})
}

fn run(args: &[&str], socket: &Path) -> Output {
    let mut command = patronus();
    command.args(args).arg("--socket").arg(socket);
    command.output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

const VERBS: [&[&str]; 12] = [
    &["paths"],
    &["paths", "branch"],
    &["path", "show", "branch/0"],
    &["path", "pin", "branch/0"],
    &["path", "unpin", "branch"],
    &["path", "drain", "branch/0"],
    &["path", "undrain", "branch/0"],
    &["path", "clear", "branch/0"],
    &["path", "bandwidth", "branch/0"],
    &["path", "record", "branch"],
    &["ping", "branch"],
    &["events"],
];

fn loss() -> Value {
    json!({"one_s_pct": null, "ten_s_pct": 0.5, "sixty_s_pct": null, "data_pct": null})
}

fn path() -> Value {
    json!({
        "id": "branch/0", "peer": "branch", "path": 0, "name": "fiber>198.51.100.2", "uplink": "fiber",
        "remote": "198.51.100.2:51820", "local": null, "state": "up", "reason": "heard",
        "text": "up: both ends hear each other", "state_age_s": 61.5, "is_draining": false, "is_metered": false,
        "cost": 10, "rtt_ms": 10.25, "rtt_slow_ms": null, "rtt_min_ms": null, "rtt_p95_ms": null,
        "tx_jitter_ms": 0.5, "rx_jitter_ms": null, "tx_loss": loss(), "rx_loss": loss(), "queueing_ms": null,
        "rx_queueing_ms": null, "tx_bandwidth": {"bps": 5e8, "source": "train", "age_s": 0.0}, "rx_bandwidth": null,
        "tx_bps": 0.0, "rx_bps": 0.0, "mtu": null, "tx_packets": 1, "tx_bytes": 2, "rx_packets": 3, "rx_bytes": 4,
        "classes": [], "a_field_of_a_later_version": 1
    })
}

fn paths() -> Value {
    json!({
        "classes": [{
            "name": "default", "is_default": true, "scoring": "weighted", "latency_ms": null, "jitter_ms": null,
            "loss_pct": null, "protect": false, "prefer": []
        }],
        "peers": [{
            "peer": "branch", "public_key": "k", "is_site": true, "prober_starved": 2, "paths": [path()],
            "routes": [{"class": "default", "path": 0, "leaving": null, "protect": null, "pinned": null}]
        }]
    })
}

#[test]
fn every_verb_says_that_no_gateway_answers_and_exits_with_five() {
    for verb in VERBS {
        let output = run(verb, Path::new("/nowhere/patronus.sock"));
        assert_eq!(output.status.code(), Some(5), "{verb:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{verb:?}");
        assert!(
            err(&output).contains("patronus run"),
            "{verb:?}: {output:?}"
        );
    }
}

#[test]
fn every_verb_says_that_a_gateway_is_too_old_for_it() {
    let old = Gateway::new(&[]);
    for verb in VERBS {
        let output = old.run(verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{verb:?}");
        let text = err(&output);
        assert!(
            text.contains("too old to know this request"),
            "{verb:?}: {text}"
        );
    }
}

#[test]
fn one_who_may_not_ask_is_told_who_may() {
    let gateway = Gateway::new(&[]);
    std::fs::set_permissions(gateway.socket(), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(gateway.dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let mut command = patronus();
    command.args(["paths", "--socket"]).arg(gateway.socket());
    match nix::unistd::geteuid().is_root() {
        true => command.uid(NOBODY).gid(NOBODY),
        false => {
            let closed = PermissionsExt::from_mode(0o000);
            std::fs::set_permissions(gateway.socket(), closed).unwrap();
            &mut command
        }
    };
    let Ok(output) = command.output() else {
        common::skip("another user cannot run the program where it was built");
        return;
    };
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(
        err(&output).contains("run as root, or join the group `patronus`"),
        "{output:?}"
    );
}

#[test]
fn what_the_gateway_refuses_is_told_with_its_remedy() {
    let refusal = json!({
        "error": "no peer `nobody`", "field": "peer", "fix": "its peers are branch, depot"
    });
    let gateway = Gateway::new(&[
        ("GET /v1/paths", 404, refusal.clone()),
        ("POST /v1/paths", 404, refusal),
    ]);
    for verb in [
        &["paths", "nobody"][..],
        &["path", "show", "nobody/0"],
        &["path", "drain", "nobody/0"],
        &["path", "record", "nobody"],
        &["ping", "nobody"],
        &["ping", "nobody", "--path", "0"],
    ] {
        let output = gateway.run(verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {output:?}");
        assert_eq!(
            err(&output),
            "patronus: no peer `nobody`: its peers are branch, depot\n",
            "{verb:?}"
        );
    }
}

#[test]
fn paths_are_told_to_people_and_as_they_are_to_programs() {
    let gateway = Gateway::new(&[
        ("GET /v1/paths/branch/0 ", 200, path()),
        ("GET /v1/paths?peer=branch ", 200, paths()),
        ("GET /v1/paths ", 200, paths()),
    ]);
    let text = gateway.run(&["paths", "branch"]);
    assert!(
        out(&text).starts_with("branch: 1 of 1 path up\n"),
        "{text:?}"
    );
    assert!(out(&text).contains("● up "), "{text:?}");
    let ascii = gateway.run(&["paths", "--ascii"]);
    assert!(
        out(&ascii).is_ascii() && out(&ascii).contains("* up "),
        "{ascii:?}"
    );
    let mut expected = paths();
    let told = gateway.run(&["paths", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let path = &mut expected["peers"][0]["paths"][0];
    path.as_object_mut()
        .unwrap()
        .remove("a_field_of_a_later_version");
    // What an older gateway does not tell is told as absent.
    expected["classes"][0]["pod_addrs"] = Value::Null;
    expected["peers"][0]["vias"] = Value::Array(Vec::new());
    assert_eq!(told, expected);
    let shown = gateway.run(&["path", "show", "branch/0"]);
    assert!(
        out(&shown).starts_with("branch/0 fiber>198.51.100.2\n"),
        "{shown:?}"
    );
    let measured = gateway.run(&["path", "show", "branch/0", "--json"]);
    let measured: Value = serde_json::from_slice(&measured.stdout).unwrap();
    assert_eq!(measured["rtt_ms"], 10.25);
}

#[test]
fn orders_say_what_they_order() {
    let ordered = json!({"done": true, "text": "x", "warnings": ["y"]});
    let gateway = Gateway::new(&[
        ("POST /v1/paths/branch/command ", 200, ordered),
        ("GET /v1/paths?peer=branch ", 200, paths()),
    ]);
    let order = |args: &[&str]| {
        let output = gateway.run(args);
        assert_eq!(out(&output), "ordered: x\nwarning: y\n", "{output:?}");
        let requests = gateway.requests();
        let body = requests.last().unwrap().split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str::<Value>(body).unwrap()
    };
    let body = |command: &str, path: Option<&str>, class: Option<&str>, dry_run: bool| json!({"command": command, "path": path, "class": class, "dry_run": dry_run});
    for (args, expected) in [
        (
            &["path", "pin", "branch/lte>1.2.3.4", "--class", "bulk"][..],
            body("pin", Some("lte>1.2.3.4"), Some("bulk"), false),
        ),
        (
            &["path", "unpin", "branch"],
            body("unpin", None, None, false),
        ),
        (
            &["path", "unpin", "branch/0"],
            body("unpin", Some("0"), None, false),
        ),
        (
            &["path", "drain", "branch/0", "--dry-run"],
            body("drain", Some("0"), None, true),
        ),
        (
            &["path", "undrain", "branch/0"],
            body("undrain", Some("0"), None, false),
        ),
        (
            &["path", "clear", "branch/0"],
            body("clear", Some("0"), None, false),
        ),
    ] {
        assert_eq!(order(args), expected, "{args:?}");
    }
    for wrong in [
        &["path", "drain", "branch"][..],
        &["path", "pin", "/0"],
        &["ping", ""],
    ] {
        let output = gateway.run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(err(&output).contains("patronus paths"), "{output:?}");
    }
}

fn pong(rtt_ms: Option<f64>) -> Value {
    json!({
        "id": "branch/0", "name": "fiber>198.51.100.2", "rtts_ms": [rtt_ms], "sent": 1, "received": 1,
        "loss_pct": 0.0, "rtt_min_ms": rtt_ms, "rtt_avg_ms": rtt_ms, "rtt_max_ms": rtt_ms
    })
}

#[test]
fn a_ping_takes_the_path_of_ordinary_traffic_and_tells_each_answer() {
    let gateway = Gateway::new(&[
        ("GET /v1/paths?peer=branch ", 200, paths()),
        ("POST /v1/paths/branch/0/ping ", 200, pong(Some(10.25))),
        ("POST /v1/paths/branch/9/ping ", 200, pong(None)),
    ]);
    let output = gateway.run(&["ping", "branch", "-c", "2", "-i", "10ms"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        out(&output),
        "branch/0 fiber>198.51.100.2, inside the tunnel\n1: 10.250 ms\n2: 10.250 ms\n\
         2 sent, 2 back, 0.0 % lost; least 10.250 ms, average 10.250 ms, longest 10.250\n    ms\n"
    );
    let told = gateway.run(&["ping", "branch/0", "-c", "3", "-i", "10ms", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["sent"], &told["received"]), (&json!(3), &json!(3)));
    let silent = gateway.run(&["ping", "branch", "--path", "9", "-c", "1"]);
    assert_eq!(silent.status.code(), Some(1), "{silent:?}");
    assert!(
        out(&silent).contains("1: no answer within 1000 ms"),
        "{silent:?}"
    );
    for wrong in [&["--interval", "1ms"][..], &["--timeout", "1h"]] {
        let output = gateway.run(&[&["ping", "branch"], wrong].concat());
        assert!(
            !output.status.success() && err(&output).contains(wrong[0]),
            "{output:?}"
        );
    }
}

#[test]
fn a_train_is_ordered_and_its_figure_awaited() {
    let ordered = json!({"done": true, "text": "x", "warnings": []});
    let gateway = Gateway::new(&[
        ("POST /v1/paths/branch/0/bandwidth ", 200, ordered),
        ("GET /v1/paths/branch/0 ", 200, path()),
    ]);
    let output = gateway.run(&["path", "bandwidth", "branch/0"]);
    assert_eq!(
        out(&output),
        "branch/0 fiber>198.51.100.2: out 500 Mbit/s measured, in not known\n"
    );
}

#[test]
fn events_are_lines_and_what_is_missing_is_said_apart() {
    let event = |number: u64, text: &str| {
        json!({
            "number": number, "at_ns": 1, "unix_ms": 1_796_007_845_123_u64, "kind": "state", "grade": "bad",
            "peer": "branch", "path": 0, "path_name": "x", "class": null, "text": text, "state": "down",
            "reason": "detection_expired", "decision": null
        })
    };
    let events = json!({
        "events": [event(8, "path 0 x is down"), event(9, "path 0 x is up")], "next": 9, "lost": 7, "dropped": 2
    });
    let gateway = Gateway::new(&[("GET /v1/events?", 200, events)]);
    let output = gateway.run(&["events", "--ascii"]);
    assert_eq!(
        out(&output),
        "2026-11-30T03:04:05Z x branch path 0 x is down\n2026-11-30T03:04:05Z x branch path 0 x is up\n"
    );
    assert!(
        err(&output).contains("7 older events are forgotten"),
        "{output:?}"
    );
    assert!(
        err(&output).contains("2 events since the start never came"),
        "{output:?}"
    );
    let json = gateway.run(&[
        "events",
        "--json",
        "--since",
        "10m",
        "--peer",
        "branch",
        "--kind",
        "state,decision",
    ]);
    let lines = out(&json)
        .lines()
        .map(|it| serde_json::from_str::<Value>(it).unwrap());
    let numbers: Vec<Value> = lines.map(|it| it["number"].clone()).collect();
    assert_eq!(numbers, [8, 9]);
    let asked = gateway.requests().pop().unwrap();
    assert!(
        asked.starts_with("GET /v1/events?peer=branch&kind=state%2Cdecision&max_age_s=600 "),
        "{asked}"
    );
}

/// The user and group that own nothing.
const NOBODY: u32 = 65_534;
