//! Paths between two running gateways, as an operator sees them.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::process::Output;
use std::time::{Duration, Instant};

use common::{PATIENCE, Pair, Place, can_run, output_of, patronus};
use patronus_lab::Family;
use serde_json::Value;

/// A verb in the namespace of a gateway.
fn run(place: &Place, args: &[&str]) -> Output {
    let mut command = patronus();
    output_of(&place.namespace, command.args(args))
}

fn out(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn json(place: &Place, args: &[&str]) -> Value {
    let output = run(place, &[args, &["--json"]].concat());
    serde_json::from_str(out(&output)).unwrap()
}

/// The events there are, oldest first.
fn events(place: &Place, args: &[&str]) -> Vec<Value> {
    let output = run(place, &[&["events", "--json"], args].concat());
    let lines = out(&output).lines();
    lines.map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// Asks until the answer is right, for as long as anything may take.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within patience: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn named() -> Pair {
    Pair::up(|conf| conf.peers[0].more = "name = \"branch\"\n".to_owned())
}

#[test]
fn a_running_gateway_tells_its_peers_and_what_happened_to_them() {
    if !can_run() {
        return;
    }
    let pair = named();
    let place = &pair.place_one;
    patronus_lab::traffic::reach(
        &pair.lab.sites[0].host,
        pair.lab.sites[1].host_addr(Family::V4),
        PATIENCE,
    )
    .unwrap();
    let told = json(place, &["paths"]);
    let peer = &told["peers"][0];
    assert_eq!(peer["peer"], "branch");
    assert_eq!(peer["public_key"], pair.place_two.keys.public);
    let by_key = json(place, &["paths", &pair.place_two.keys.public]);
    assert_eq!(by_key["peers"][0]["peer"], "branch");
    let unknown = run(place, &["paths", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&unknown.stderr),
        "patronus: no peer `nobody`: its peers are branch\n"
    );
    let status = run(place, &["status"]);
    assert!(out(&status).contains("\n1 of 1 peer up\n"), "{status:?}");
    let flows = run(place, &["flows", "proto=icmp", "peer=branch"]);
    assert!(out(&flows).starts_with("icmp "), "{flows:?}");
    assert!(out(&flows).contains("    branch"), "{flows:?}");
    let handshake = until("a handshake is told", || {
        let kind = ["--kind", "handshake", "--peer", "branch"];
        events(place, &kind).into_iter().next()
    });
    assert_eq!(
        (&handshake["text"], &handshake["grade"]),
        (&"handshake completed".into(), &"good".into())
    );
    let unix_ms = handshake["unix_ms"].as_u64().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let age = now.saturating_sub(Duration::from_millis(unix_ms));
    assert!(age < PATIENCE * 6, "{handshake}");
    let line = run(place, &["events", "--ascii", "--since", "1h"]);
    assert!(
        out(&line).contains("Z * branch handshake completed\n"),
        "{line:?}"
    );
    pair.one.stop();
}

#[test]
fn the_only_path_is_up_answers_pings_and_keeps_its_traffic_when_drained() {
    if !can_run() {
        return;
    }
    let pair = named();
    let place = &pair.place_one;
    let (from, to) = (&pair.lab.sites[0], &pair.lab.sites[1]);
    let reach = |max| patronus_lab::traffic::reach(&from.host, to.host_addr(Family::V4), max);
    reach(PATIENCE).unwrap();
    let path = until("a path that is up with a round trip", || {
        let told = json(place, &["paths", "branch"]);
        let path = told["peers"][0]["paths"][0].clone();
        (path["state"] == "up" && path["rtt_ms"].is_f64()).then_some(path)
    });
    assert_eq!(path["id"], "branch/0");
    let text = run(place, &["paths"]);
    assert!(
        out(&text).starts_with("branch: 1 of 1 path up\n"),
        "{text:?}"
    );
    assert!(out(&text).contains("● up"), "{text:?}");
    let shown = run(place, &["path", "show", "branch/0"]);
    assert!(out(&shown).contains("uses it"), "{shown:?}");

    let pinged = run(place, &["ping", "branch", "-c", "3", "-i", "50ms"]);
    assert!(
        out(&pinged).contains("3 sent, 3 back, 0.0 % lost"),
        "{pinged:?}"
    );
    let by_name = path["name"].as_str().unwrap();
    let pinged = json(place, &["ping", "branch", "--path", by_name, "-c", "1"]);
    assert!(pinged["rtt_min_ms"].as_f64().unwrap() > 0.0, "{pinged}");

    let up = until("the path's way up is told", || {
        let states = events(place, &["--kind", "state"]);
        states.into_iter().find(|it| it["state"] == "up")
    });
    assert_eq!((&up["peer"], &up["path"]), (&"branch".into(), &0.into()));
    let decided = events(place, &["--kind", "decision"]);
    assert!(
        decided.iter().any(|it| it["decision"]["cause"] == "first"),
        "{decided:?}"
    );

    let drained = run(place, &["path", "drain", "branch/0"]);
    assert!(
        out(&drained).contains("warning: it is the last usable path"),
        "{drained:?}"
    );
    until("the drain shows", || {
        let path = json(place, &["path", "show", "branch/0"]);
        (path["is_draining"] == true).then_some(())
    });
    // Traffic stays: there is nowhere else to go.
    reach(Duration::from_secs(2)).unwrap();
    out(&run(place, &["path", "undrain", "branch/0"]));
    let ordered = events(place, &["--kind", "command"]);
    assert_eq!(ordered.len(), 2, "{ordered:?}");

    let recorded = run(place, &["path", "record", "branch", "--seconds", "2"]);
    let mut lines = out(&recorded).lines();
    let first: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(first["begin"]["peer"], "branch", "{first}");
    assert!(
        lines.any(|it| it.contains("\"rtt\"")),
        "a second of hellos has round trips"
    );
    pair.one.stop();
    pair.two.stop();
}
