//! Paths between two running gateways, as an operator sees them.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::UdpSocket;
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
    reach(PATIENCE).unwrap();
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

/// The LAN behind a gateway that is alive dies, and comes back: the prefix is marked, and paths stay as they are.
#[test]
fn a_dead_lan_behind_a_live_gateway_marks_its_prefix_and_no_path() {
    if !can_run() {
        return;
    }
    let pair = Pair::up(|conf| {
        let peer = &mut conf.peers[0];
        peer.more = "name = \"branch\"\n".to_owned();
        if conf.interface == "site1" {
            // Twice as patient as the default, because the machine may be busy.
            peer.more += "via = [{ prefix = \"10.2.0.0/24\", probes = [\"10.2.0.2\"], interval_ms = 100, misses = 10 }]\n";
        }
    });
    let place = &pair.place_one;
    let (one, two) = pair.sites();
    let via = |told: &Value| told["peers"][0]["vias"][0].clone();
    let until_state = |state: &str| {
        until(&format!("the prefix is {state}"), || {
            let told = json(place, &["paths", "branch"]);
            (via(&told)["state"] == state).then_some(told)
        })
    };
    let told_as = |reason: &str, fragment: &str| {
        until(&format!("an event says {reason}, {fragment}"), || {
            let events = events(place, &["--kind", "via", "--peer", "branch"]);
            events.into_iter().rev().find(|it| {
                it["reason"] == reason && it["text"].as_str().unwrap().contains(fragment)
            })
        })
    };
    // Nobody else sends: the questions open the tunnel.
    let before = until_state("reachable");
    assert_eq!(via(&before)["prefix"], "10.2.0.0/24");
    assert_eq!(told_as("reachable", "10.2.0.0/24 answers")["grade"], "good");
    let path_is_up = || {
        until("the path is up and its class has it", || {
            let told = json(place, &["paths", "branch"]);
            let peer = &told["peers"][0];
            let is_up = peer["paths"][0]["state"] == "up";
            (is_up && peer["routes"][0]["path"] == 0).then_some(())
        });
    };
    path_is_up();

    patronus_lab::link::set_up(&two.gateway, patronus_lab::topology::LAN_INTERFACE, false).unwrap();
    let dead = until_state("unreachable");
    assert!(
        via(&dead)["text"]
            .as_str()
            .unwrap()
            .contains("asks 10.2.0.2"),
        "{dead}"
    );
    let event = told_as(
        "unreachable",
        "10.2.0.0/24 does not answer: 10.2.0.2 left 10 questions",
    );
    assert_eq!(event["grade"], "bad");
    // The gateway behind which it lies is as well as before.
    path_is_up();
    let shown = run(place, &["paths"]);
    assert!(
        out(&shown).contains("✖ 10.2.0.0/24 does not answer"),
        "{shown:?}"
    );
    assert!(out(&shown).contains("its packets are sent"), "{shown:?}");
    let status = run(place, &["status"]);
    assert!(
        out(&status).contains("1 prefix behind a peer does not answer"),
        "{status:?}"
    );

    patronus_lab::link::set_up(&two.gateway, patronus_lab::topology::LAN_INTERFACE, true).unwrap();
    until_state("reachable");
    told_as("reachable", "10.2.0.0/24 answers again after ");
    patronus_lab::traffic::reach(&one.host, two.host_addr(Family::V4), PATIENCE).unwrap();
    // What is not asked any more is not shown any more.
    let mut conf = pair.conf_one.clone();
    conf.peers[0].more = "name = \"branch\"\n".to_owned();
    place.configure(&conf);
    let mut gateway = pair.one;
    gateway.reload();
    until("the check is gone", || {
        let told = json(place, &["paths", "branch"]);
        told["peers"][0]["vias"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });
    gateway.stop();
}

/// A manifest with the label comes, changes and goes: the flow that is there changes its class with its next packet.
#[test]
fn a_reload_of_labels_moves_live_flows_between_classes() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::up(|conf| {
        conf.dataplane += "[class.voip]\nlabels = [\"app=voip\"]\n";
    });
    let (one, two) = (&pair.lab.sites[0], &pair.lab.sites[1]);
    let to = two.host_addr(Family::V4);
    let place = &pair.place_one;
    let no_manifests =
        "[class.voip] labels: nothing belongs to it by labels: there are no manifests";
    assert!(pair.one.log().contains(no_manifests), "{}", pair.one.log());
    let class_becomes = |expected: &str| {
        until(&format!("the flow is in class {expected}"), || {
            // Always the same flow; whether anybody listens there does not matter.
            let send = || {
                let socket = UdpSocket::bind("0.0.0.0:4000")?;
                socket.send_to(b"ring", (to, 4000))
            };
            one.host.run(send).unwrap().unwrap();
            let flows = json(place, &["flows", "proto=udp", "port=4000"]);
            let flows = flows["flows"].as_array().unwrap().clone();
            (!flows.is_empty() && flows.iter().all(|it| it["class"] == expected)).then_some(())
        });
    };
    class_becomes("default");
    let pod = |app: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: phone, namespace: lab, labels: {{app: {app}}}}}, spec: {{}}, \
             status: {{podIPs: [{{ip: {to}}}]}}}}\n"
        )
    };
    for (app, class, addrs) in [("voip", "voip", 1), ("fax", "default", 0)] {
        place.manifest("phone.yaml", &pod(app));
        pair.one.reload();
        class_becomes(class);
        let told = json(place, &["paths"]);
        let classes = told["classes"].as_array().unwrap();
        let voip = classes.iter().find(|it| it["name"] == "voip").unwrap();
        assert_eq!(voip["pod_addrs"], addrs, "{voip}");
    }
    pair.one.stop();
    pair.two.stop();
}
