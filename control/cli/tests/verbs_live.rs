//! Verbs for the day on which something is wrong, beside gateways that run: doctor, bugreport, trace, monitor, version.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use common::{Conf, Keys, Pair, PeerConf, Place, can_run, output_of, patronus, until};
use patronus_config::KeyText;
use serde_json::Value;

fn run(place: &Place, args: &[&str]) -> Output {
    output_of(&place.namespace, patronus().args(args))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// How a kind of check came out, worst first.
fn states(report: &Value, check: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let of_kind = checks.filter(|it| it["check"] == check);
    of_kind
        .map(|it| it["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn doctor_judges_a_gateway_that_runs_and_a_machine_without_one() {
    if !can_run() {
        return;
    }
    let place = Place::new("doctor");
    let mut conf = Conf::new("doc0", "10.98.0.1/24");
    let far = PeerConf::new(&Keys::new().public, &["10.97.0.0/24"]).at("192.0.2.9:51820");
    conf = conf.peer(far);
    let daemon = place.start(&conf);
    let output = run(&place, &["doctor", "--json"]);
    let report = json(&output);
    assert_eq!(report["has_gateway"], true);
    for check in [
        "config",
        "gateway",
        "capabilities",
        "tun",
        "port",
        "applied",
        "routes",
    ] {
        assert_eq!(states(&report, check), ["ok"], "{check}: {report}");
    }
    // The peer cannot be reached, so something does not work.
    assert_eq!(states(&report, "peer"), ["fail"]);
    assert_eq!(output.status.code(), Some(1));
    let text = run(&place, &["doctor", "--all"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("FAIL peer") && text.contains("fix: "),
        "{text}"
    );
    let is_short = |line: &str| line.chars().count() <= 80 || line.split_whitespace().count() <= 2;
    assert!(text.lines().all(is_short), "{text}");

    // A route that takes what belongs to a peer, and a file that was edited.
    place.ip_do("link add dum0 type veth peer name dum1");
    place.ip_do("link set dum1 up");
    place.ip_do("link set dum0 up");
    place.ip_do("route add 10.97.0.128/25 dev dum0");
    conf.mtu = 1400;
    place.configure(&conf);
    let report = json(&run(&place, &["doctor", "--json"]));
    assert_eq!(states(&report, "routes"), ["warn"], "{report}");
    assert_eq!(states(&report, "applied"), ["warn"], "{report}");
    daemon.stop();

    let file = place.path("patronus.toml").display().to_string();
    let output = run(&place, &["doctor", "--json", "--config", &file]);
    assert_eq!(output.status.code(), Some(5));
    let report = json(&output);
    assert_eq!(states(&report, "gateway"), ["fail"]);
    assert_eq!(states(&report, "port"), ["ok"]);
    fs::write(place.path("patronus.toml"), "[site]\nname = 7\n").unwrap();
    let report = json(&run(&place, &["doctor", "--json", "--config", &file]));
    assert_eq!(states(&report, "config"), ["fail"]);
}

#[test]
fn a_bugreport_has_what_the_gateway_tells_and_no_key_of_any_kind() {
    if !can_run() {
        return;
    }
    let place = Place::new("bugreport");
    let psk = patronus_config::keys::genpsk().to_string();
    place.secret("peer.psk", &psk);
    let peer = Keys::new();
    let mut conf = Conf::new("bug0", "10.98.1.1/24");
    let mut far = PeerConf::new(&peer.public, &["10.97.1.0/24"]).at("192.0.2.9:51820");
    far.more = "preshared_key_file = \"peer.psk\"\n".to_owned();
    conf = conf.peer(far);
    let daemon = place.start(&conf);
    let dir = place.path("report");
    let target = dir.display().to_string();
    let output = run(&place, &["bugreport", "-o", &target, "--flows", "--json"]);
    let written = json(&output);
    assert_eq!(output.status.code(), Some(0), "{written}");
    for file in [
        "doctor.json",
        "status.json",
        "running.toml",
        "events.json",
        "metrics.txt",
        "flows.json",
    ] {
        assert!(dir.join(file).is_file(), "{file}: {written}");
    }
    let hex = |key: &str| patronus_config_hex(key);
    let keys = [
        place.keys.private.clone(),
        hex(&place.keys.private),
        psk.clone(),
        hex(&psk),
        peer.public.clone(),
        place.keys.public.clone(),
    ];
    for entry in fs::read_dir(&dir).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        for key in &keys {
            // Also without its end, and cut.
            assert!(
                !text.contains(&key[..24]),
                "{:?} in {:?}",
                key,
                entry.path()
            );
        }
    }
    let running = fs::read_to_string(dir.join("running.toml")).unwrap();
    assert!(running.contains("public_key = \"key-"), "{running}");
    // It does not write over another one.
    assert_eq!(
        run(&place, &["bugreport", "-o", &target]).status.code(),
        Some(1)
    );
    daemon.stop();
    let second = place.path("second").display().to_string();
    let file = place.path("patronus.toml").display().to_string();
    let output = run(&place, &["bugreport", "-o", &second, "--config", &file]);
    assert_eq!(output.status.code(), Some(5));
    assert!(Path::new(&second).join("doctor.json").is_file());
}

fn patronus_config_hex(key: &str) -> String {
    patronus_tunnel::PresharedKey::from_base64(key)
        .unwrap()
        .to_hex()
        .to_string()
}

#[test]
fn trace_says_whose_an_address_is_and_reaches_the_peer_below_and_inside_the_tunnel() {
    if !can_run() {
        return;
    }
    let pair = Pair::up(|conf| conf.peers[0].more = "name = \"branch\"\n".to_owned());
    pair.reach();
    let place = &pair.place_one;
    until("a path is up", || {
        let told = json(&run(place, &["paths", "--json"]));
        told["peers"][0]["paths"][0]["state"] == "up"
    });
    let behind = pair.lab.sites[1]
        .host_addr(patronus_lab::Family::V4)
        .to_string();
    let output = run(place, &["trace", &behind, "--json"]);
    let told = json(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(told["peer"], "branch");
    assert!(told["prefix"].is_string(), "{told}");
    assert!(told["classes"].as_array().unwrap().len() >= 4);
    let path = &told["paths"][0];
    assert!(path["rtts_ms"][0].is_f64(), "{told}");
    let wan = pair.lab.sites[1]
        .wan_addr(patronus_lab::Family::V4)
        .to_string();
    let hops = path["hops"].as_array().unwrap();
    let last = hops.last().unwrap();
    assert_eq!(
        (&last["addr"], &path["is_reached"]),
        (&wan.into(), &true.into()),
        "{told}"
    );
    let text = run(place, &["trace", "branch"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("tunnel") && text.contains("reached"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert_eq!(
        run(place, &["trace", "203.0.113.200"]).status.code(),
        Some(1)
    );
    assert_eq!(run(place, &["trace", "nobody"]).status.code(), Some(1));
    pair.one.stop();
    pair.two.stop();
}

/// A file of the gateway's tests.
fn testdata(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/testdata/tls");
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn a_gateway_is_asked_by_tcp_with_a_token_and_does_not_listen_without() {
    if !can_run() {
        return;
    }
    let place = Place::new("api-tls");
    place.secret("cert", &testdata("gateway.crt"));
    place.secret("api-key", &testdata("gateway.key"));
    place.secret("token", "0123456789abcdef0123456789abcdef");
    place.secret("other", "0123456789abcdef0123456789abcdeX");
    let mut conf = Conf::new("tls0", "10.98.3.1/24");
    let plain = conf.prefilter.clone();
    let listen =
        "\n[api]\nlisten = \"127.0.0.1:9587\"\ntls_cert = \"cert\"\ntls_key = \"api-key\"\n";
    conf.prefilter = format!("{plain}{listen}");
    let refused = place.failing_start(&conf);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("token_file is missing"), "{said}");
    conf.prefilter = format!("{plain}{listen}token_file = \"token\"\n");
    let mut daemon = place.start(&conf);
    daemon.wait_for("served by TCP with TLS");
    let path = |name: &str| place.path(name).display().to_string();
    let ask = |token: &str, url: &str| {
        let (token, ca) = (path(token), path("cert"));
        run(
            &place,
            &[
                "status",
                "--json",
                "--api",
                url,
                "--token-file",
                &token,
                "--ca",
                &ca,
            ],
        )
    };
    let url = "https://127.0.0.1:9587";
    let answer = ask("token", url);
    assert_eq!(json(&answer)["site"], "tls0", "{answer:?}");
    assert_eq!(ask("other", url).status.code(), Some(4));
    assert_eq!(
        ask("token", "https://127.0.0.1:9588").status.code(),
        Some(5)
    );
    assert_eq!(ask("token", "http://127.0.0.1:9587").status.code(), Some(1));
    let bare = run(&place, &["status", "--api", url]);
    assert_eq!(bare.status.code(), Some(2));
    daemon.stop();
}

/// Comments and lengths of the packets of a pcapng file, by the name of their interface.
fn packets_of(file: &Path) -> Vec<(String, String)> {
    let bytes = fs::read(file).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut names, mut packets) = (0, Vec::new(), Vec::new());
    while at < bytes.len() {
        let (kind, len) = (number(at), number(at + 4));
        let body = String::from_utf8_lossy(&bytes[at + 8..at + len - 4]).into_owned();
        match kind {
            1 => names.push(if bytes[at + 8] == 101 {
                "inner"
            } else {
                "outer"
            }),
            6 => packets.push((names[number(at + 8)].to_owned(), body)),
            _ => {}
        }
        at += len;
    }
    packets
}

#[test]
fn capture_writes_what_goes_through_the_tunnel_and_below_it_with_its_path() {
    if !can_run() {
        return;
    }
    let pair = Pair::up(|conf| conf.peers[0].more = "name = \"branch\"\n".to_owned());
    pair.reach();
    let place = &pair.place_one;
    until("a path is up", || {
        let told = json(&run(place, &["paths", "--json"]));
        told["peers"][0]["paths"][0]["state"] == "up"
    });
    let file = place.path("out.pcapng");
    let name = file.display().to_string();
    let mut command = patronus();
    command.args(["capture", "--peer", "branch", "--time", "60s", "-w", &name]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = place.namespace.spawn(&mut command).unwrap();
    until("it captures both sides", || {
        pair.reach();
        let packets = if file.exists() {
            packets_of(&file)
        } else {
            Vec::new()
        };
        let has = |side: &str, words: &str| {
            packets
                .iter()
                .any(|it| it.0 == side && it.1.contains(words))
        };
        has("inner", "peer branch") && has("outer", "path branch/0")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    // Killed in the middle, and every block is whole.
    assert!(!packets_of(&file).is_empty());
    assert_eq!(run(place, &["capture", "-w", &name]).status.code(), Some(1));
    let second = place.path("none.pcapng").display().to_string();
    let wrong = run(place, &["capture", "--path", "branch/9", "-w", &second]);
    assert_eq!(wrong.status.code(), Some(1));
    pair.one.stop();
    pair.two.stop();
}

#[test]
fn monitor_prints_what_happens_and_version_names_the_gateway() {
    if !can_run() {
        return;
    }
    let place = Place::new("monitor");
    let conf = Conf::new("mon0", "10.98.2.1/24");
    let daemon = place.start(&conf);
    let told = json(&run(&place, &["version", "--json"]));
    assert_eq!(
        (&told["gateway"], &told["program"]),
        (&told["program"], &env!("CARGO_PKG_VERSION").into())
    );
    let mut command = patronus();
    command.args(["monitor", "--since", "1", "--once"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = place.namespace.spawn(&mut command).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["monitor"], "connected");
    let output = run(&place, &["config", "apply"]);
    assert!(output.status.success(), "{output:?}");
    while next()["text"]
        .as_str()
        .is_none_or(|it| !it.contains("is in force by user"))
    {}
    daemon.stop();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
