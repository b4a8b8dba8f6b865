//! Policy between two running gateways, as an operator sees it: who reaches whom, and what the verbs say of it.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

use common::{PATIENCE, Pair, Place, can_run, output_of, patronus};
use nix::sys::signal::Signal;
use patronus_lab::{Family, Site};
use serde_json::Value;

const CLOSED: &str = "\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: lab}
spec:
  podSelector: {matchLabels: {app: two}}
  policyTypes: [Ingress]
  ingress: [{ports: [{port: 443}]}]
";

fn pod(name: &str, addr: IpAddr) -> String {
    format!(
        "kind: Pod\napiVersion: v1\nmetadata: {{name: {name}, namespace: lab, labels: {{app: {name}}}}}\n\
         status: {{podIPs: [{{ip: {addr}}}]}}\n"
    )
}

/// A verb in the folder and the namespace of a gateway.
fn run(place: &Place, args: &[&str]) -> Output {
    let mut command = patronus();
    command.args(args).current_dir(place.dir.path());
    output_of(&place.namespace, &mut command)
}

fn json(place: &Place, args: &[&str]) -> Value {
    let output = run(place, &[args, &["--json"]].concat());
    assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn reaches(from: &Site, to: &Site, max: Duration) -> bool {
    patronus_lab::traffic::reach(&from.host, to.host_addr(Family::V4), max).is_ok()
}

/// The running gateway and its files give one answer.
fn assert_explains_like_files(place: &Place, asked: [&str; 3], code: i32) {
    let live = [&["explain"], &asked[..]].concat();
    let offline = [&live[..], &["--config", "policies.d"]].concat();
    let (told, expected) = (run(place, &live), run(place, &offline));
    assert_eq!(told.status.code(), Some(code), "{asked:?}: {told:?}");
    assert_eq!(told.status, expected.status, "{asked:?}");
    assert_eq!(text(&told.stdout), text(&expected.stdout), "{asked:?}");
    assert_eq!(json(place, &live), json(place, &offline), "{asked:?}");
}

#[test]
fn a_change_of_policy_is_foretold_takes_effect_and_is_counted() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::up(|_| ());
    let (one, two) = (&pair.lab.sites[0], &pair.lab.sites[1]);
    let pods = format!(
        "{}---\n{}",
        pod("one", one.host_addr(Family::V4)),
        pod("two", two.host_addr(Family::V4))
    );
    let places = [&pair.place_one, &pair.place_two];
    for place in places {
        place.manifest("pods.yaml", &pods);
        std::fs::create_dir(place.path("next.d")).unwrap();
        std::fs::write(place.path("next.d/pods.yaml"), &pods).unwrap();
        std::fs::write(place.path("next.d/closed.yaml"), CLOSED).unwrap();
    }
    pair.one.reload();
    pair.two.reload();
    assert!(reaches(one, two, PATIENCE));
    assert_explains_like_files(&pair.place_one, ["lab/one", "lab/two", "icmp"], 0);

    let diff = json(&pair.place_one, &["policy", "diff", "next.d"]);
    assert_eq!(
        diff["objects"]["added"],
        serde_json::json!(["NetworkPolicy lab/closed"])
    );
    assert_eq!(diff["objects"]["changed"], serde_json::json!([]));
    assert_eq!((&diff["cut"], &diff["opened"]), (&1.into(), &0.into()));
    let change = &diff["changes"][0];
    assert_eq!(change["src"], one.host_addr(Family::V4).to_string());
    assert_eq!(change["allow"], false);
    let told = run(&pair.place_one, &["policy", "diff", "next.d"]);
    let told = text(&told.stdout);
    assert!(told.contains("+ NetworkPolicy lab/closed\n"), "{told}");
    assert!(told.contains("isolated by lab/closed"), "{told}");
    assert!(told.contains("1 would be cut, 0 let in"), "{told}");

    for place in places {
        place.manifest("closed.yaml", CLOSED);
    }
    pair.one.reload();
    pair.two.reload();
    assert!(!reaches(one, two, Duration::from_secs(1)));
    assert!(reaches(two, one, PATIENCE));
    for (asked, code) in [
        (["lab/one", "lab/two", "icmp"], 4),
        (["lab/one", "lab/two@4", "tcp/80"], 4),
        (["lab/one", "lab/two", "tcp/443"], 0),
        (["lab/two", "lab/one", "udp/53"], 0),
        (["192.0.2.1", "lab/two", "47"], 4),
        (["192.0.2.1", "192.0.2.2", "sctp/1"], 0),
    ] {
        assert_explains_like_files(&pair.place_one, asked, code);
    }

    let list = json(&pair.place_one, &["policy", "list"]);
    let policy = &list["policies"][0];
    assert_eq!(policy["name"], "lab/closed");
    assert_eq!(policy["file"], "policies.d/closed.yaml");
    let rules = policy["rules"].as_array().unwrap();
    let isolation = rules.iter().find(|it| it["number"] == 0).unwrap();
    assert!(
        isolation["hits"]["connections"].as_u64() >= Some(1),
        "{list}"
    );
    let told = run(&pair.place_one, &["policy", "list"]);
    let told = text(&told.stdout);
    assert!(told.contains("  ingress isolation: "), "{told}");

    std::fs::remove_file(pair.place_one.path("policies.d/closed.yaml")).unwrap();
    std::fs::remove_file(pair.place_two.path("policies.d/closed.yaml")).unwrap();
    pair.one.reload();
    pair.two.reload();
    assert!(reaches(one, two, PATIENCE));
    let told = run(&pair.place_one, &["events", "--kind", "gateway"]);
    let told = text(&told.stdout);
    for event in [
        "configuration reloaded; peers: 1",
        "policy generation 1 is in force; objects changed: ",
        "is in force; objects changed: 1",
    ] {
        assert!(told.contains(event), "{event}\n{told}");
    }
    pair.place_one
        .manifest("faulty.yaml", "kind: NetworkPolicy\n");
    pair.one.reload();
    let told = run(&pair.place_one, &["events", "--kind", "gateway"]);
    let told = text(&told.stdout);
    assert!(told.contains("policy has faults: 1"), "{told}");
    pair.one.signal(Signal::SIGTERM);
    pair.one.wait_end(PATIENCE);
    let report = pair.one.read_raw_report();
    assert!(
        report["denied"]["connections"].as_u64() >= Some(1),
        "{report}"
    );
}
