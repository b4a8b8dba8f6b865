//! The local API of a running gateway: its verbs, who may ask, and clients that behave badly while packets pass.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Conf, PATIENCE, Pair, Place, can_run, has, output_of, patronus, until};
use serde_json::Value;

/// A verb in the namespace of a gateway.
fn run(place: &Place, args: &[&str]) -> Output {
    let mut command = patronus();
    output_of(&place.namespace, command.args(args))
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(place: &Place, args: &[&str]) -> Value {
    let output = run(place, &[args, &["--json"]].concat());
    serde_json::from_str(&out(&output)).unwrap()
}

fn shell(place: &Place, script: &str) {
    let output = output_of(&place.namespace, Command::new("sh").args(["-ec", script]));
    assert!(output.status.success(), "{script}: {output:?}");
}

fn named() -> Pair {
    Pair::up(|conf| conf.peers[0].more = "name = \"branch\"\n".to_owned())
}

/// Connections to the gateway's API that each sent this.
fn connections(place: &Place, count: usize, request: &[u8]) -> Vec<UnixStream> {
    let open = || {
        let open = (0..count).map(|_| {
            let mut stream = UnixStream::connect(patronus_api::SOCKET_PATH).unwrap();
            stream.set_read_timeout(Some(6 * PATIENCE)).unwrap();
            // It may be answered and cut in the middle of it.
            let _ = stream.write_all(request);
            stream
        });
        open.collect()
    };
    place.namespace.run(open).unwrap()
}

#[test]
fn the_verbs_tell_what_the_api_tells_and_their_lines_fit() {
    if !can_run() {
        return;
    }
    let begun = Instant::now();
    let pair = named();
    let place = &pair.place_one;
    pair.reach();
    until("rates and a path that is up", || {
        let workers = json(place, &["workers"]);
        let peers = json(place, &["peers"]);
        workers["workers"][0]["rates"].is_object() && peers["peers"][0]["paths_up"] == 1
    });
    let peers = json(place, &["peers", "branch"]);
    let peer = &peers["peers"][0];
    assert_eq!(
        (&peer["peer"], &peer["state"]),
        (&"branch".into(), &"up".into())
    );
    assert_eq!(peer["public_key"], pair.place_two.keys.public);
    let shown = pair.one.show();
    let shown = shown.peer(&pair.place_two.keys.public).unwrap();
    // What `wg` tells came later, and only grows.
    assert!(peer["rx_bytes"].as_u64().unwrap() <= shown.rx_bytes);
    assert!(peer["rx_packets"].as_u64().unwrap() > 0 && peer["tx_packets"].as_u64().unwrap() > 0);

    let workers = json(place, &["workers"]);
    let generation = &workers["generation"];
    assert_eq!(generation["applied"], generation["workers"]);
    let all = workers["workers"].as_array().unwrap();
    assert_eq!(all.len(), 2);
    for worker in all {
        assert_eq!(worker["is_running"], true);
        let time = ["busy_s", "spinning_s", "asleep_s"].map(|it| worker[it].as_f64().unwrap());
        // A worker asleep books its sleep when it wakes, within a second. How long before the clock of `uptime` a worker
        // began, and was read after it, depends on the machine.
        let life = begun.elapsed().as_secs_f64();
        assert!(time.iter().sum::<f64>() <= life, "{time:?} of {life}");
    }
    let rx: u64 = all
        .iter()
        .map(|it| it["counts"]["rx_tun_packets"].as_u64().unwrap())
        .sum();
    let metrics = out(&run(place, &["metrics"]));
    let scraped: u64 = metrics
        .lines()
        .filter(|it| {
            it.starts_with("patronus_worker_packets_total{")
                && it.contains("side=\"tun\",direction=\"rx\"")
        })
        .map(|it| it.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert!(scraped >= rx && rx > 0, "{scraped} after {rx}");
    assert!(
        metrics.contains("patronus_peer_up{peer=\"branch\"} 1"),
        "{metrics}"
    );

    let staged = json(place, &["workers", "--stages", "1"]);
    assert!(staged["workers"][0]["stages"].is_object(), "{staged}");
    until("the metering has ended", || {
        json(place, &["workers"])["workers"][0]["stages"].is_null()
    });

    until("a sample is kept", || {
        json(place, &["history"])["status"]["samples"] != 0
    });
    let history = json(place, &["history", "peers_up"]);
    assert_eq!(history["metric"]["unit"], "peers");
    assert_eq!(history["series"].as_array().unwrap().len(), 1);
    assert!(place.path("state").read_dir().unwrap().count() >= 1);

    for check in ["live", "startup", "ready"] {
        let output = run(place, &["status", "--check", check]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    for verb in [
        &["status"][..],
        &["peers"],
        &["workers"],
        &["history"],
        &["history", "peers_up"],
    ] {
        for line in out(&run(place, verb)).lines() {
            assert!(line.chars().count() <= 80, "{verb:?}: {line}");
        }
    }
    pair.one.stop();
}

#[test]
fn a_gateway_whose_peer_is_out_of_reach_is_live_and_not_ready() {
    if !can_run() {
        return;
    }
    let place = Place::new("lonely");
    let other = common::Keys::new();
    let peer = common::PeerConf::new(&other.public, &["10.9.0.0/16"]).at("127.0.0.1:9");
    let daemon = place.start(&Conf::new("patronus0", "10.255.0.1/32").peer(peer));
    until("it is started", || {
        run(&place, &["status", "--check", "startup"]).status.code() == Some(0)
    });
    let ready = run(&place, &["status", "--check", "ready"]);
    assert_eq!(ready.status.code(), Some(3), "{ready:?}");
    let text = String::from_utf8_lossy(&ready.stdout);
    assert!(text.contains("problem: 0 of 1 peers up"), "{text}");
    daemon.stop();
    let gone = run(&place, &["status", "--check", "live"]);
    assert_eq!(gone.status.code(), Some(5), "{gone:?}");
}

#[test]
fn two_hundred_streams_and_clients_that_behave_badly_cost_no_packet() {
    if !can_run() {
        return;
    }
    let pair = named();
    let place = &pair.place_one;
    pair.reach();
    let watch = b"GET /v1/watch?interval_ms=200 HTTP/1.1\r\nHost: x\r\n\r\n";
    let streams = connections(place, 200, watch);
    // Neither reads: the kernel's buffers fill, and the gateway makes nothing more for them.
    let slow = connections(
        place,
        4,
        b"GET /v1/watch?interval_ms=200 HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let silent = connections(place, 20, b"GET /v1/status HTTP/1.1\r\nHos");
    let mut lines: Vec<_> = streams.into_iter().map(BufReader::new).collect();
    for stream in &mut lines {
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "a stream ended");
        }
        serde_json::from_str::<Value>(&line).unwrap();
    }
    for (garbage, status) in [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01".to_vec(),
            "HTTP/1.1 400 ",
        ),
        (
            b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            "HTTP/1.1 404 ",
        ),
        (
            b"GET /v1/watch?interval_ms=1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            "HTTP/1.1 400 ",
        ),
        (
            [b"GET /".as_slice(), &vec![b'a'; 1 << 20]].concat(),
            "HTTP/1.1 4",
        ),
    ] {
        for mut stream in connections(place, 3, &garbage) {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(status), "{answer}");
        }
    }
    // Who does not read is cut in time, and these are to stay.
    let mut read_all = || {
        for stream in &mut lines {
            stream.get_ref().set_nonblocking(true).unwrap();
            while stream
                .get_mut()
                .read(&mut [0; 4096])
                .is_ok_and(|len| len > 0)
            {}
        }
    };
    // Meanwhile packets pass, and questions are answered.
    for _ in 0..5 {
        read_all();
        pair.reach();
        let status = json(place, &["status"]);
        assert_eq!(status["health"]["is_ready"], true, "{status}");
    }
    let counters = place.ask(|client| client.counters()).unwrap();
    assert!(counters.api.connections_open >= 200, "{:?}", counters.api);
    drop((lines, slow, silent));
    until("they are gone", || {
        let counters = place.ask(|client| client.counters()).unwrap();
        counters.api.connections_open < 10
    });
    let report = pair.one.stop();
    let lost = [
        "handoff_full",
        "send_no_buffers",
        "tun_write",
        "worker_panic",
    ];
    for reason in lost {
        assert_eq!(report.packets.drops.get(reason), None, "{report:?}");
    }
}

#[test]
fn only_root_and_the_group_patronus_may_ask() {
    if !can_run() || !has("setpriv", "util-linux") {
        return;
    }
    let place = Place::new("guarded");
    std::fs::write(place.path("group"), "root:x:0:\npatronus:x:64999:\n").unwrap();
    let group = place.path("group");
    shell(
        &place,
        &format!("mount --bind {} /etc/group", group.display()),
    );
    let daemon = place.start(&Conf::new("patronus0", "10.255.0.1/32"));
    let as_user = |gid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "64998", "--regid", gid, "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_patronus")).arg("status");
        output_of(&place.namespace, &mut command)
    };
    let stranger = as_user("64998");
    // Where the program itself lies out of a stranger's reach, there is nothing to see here.
    if stranger.status.code() == Some(127) || stranger.status.code() == Some(126) {
        daemon.stop();
        return;
    }
    assert_eq!(stranger.status.code(), Some(5), "{stranger:?}");
    let words = String::from_utf8_lossy(&stranger.stderr);
    assert!(words.contains("join the group `patronus`"), "{words}");
    let member = as_user("64999");
    assert_eq!(member.status.code(), Some(0), "{member:?}");
    daemon.stop();
}

#[test]
fn metrics_are_served_on_loopback_where_the_configuration_says_so() {
    if !can_run() {
        return;
    }
    let place = Place::new("scraped");
    let mut conf = Conf::new("patronus0", "10.255.0.1/32");
    conf.dataplane += "[api]\nmetrics_listen = \"127.0.0.1:9586\"\n";
    let daemon = place.start(&conf);
    let scrape = || {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9586").unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = place.namespace.run(scrape).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        answer.contains("\npatronus_worker_up{worker=\"1\"} 1\n"),
        "{answer}"
    );
    daemon.stop();
    conf.dataplane = conf.dataplane.replace("127.0.0.1", "0.0.0.0");
    let refused = place.failing_start(&conf);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("neither TLS nor a token"), "{words}");
}

#[test]
fn a_full_disk_and_a_read_only_one_cost_samples_and_no_more_and_are_said() {
    if !can_run() {
        return;
    }
    let place = Place::new("full disk");
    let state = place.path("state");
    std::fs::create_dir(&state).unwrap();
    let dir = state.display();
    shell(&place, &format!("mount -t tmpfs -o size=256k tmpfs {dir}"));
    // As full as it gets.
    shell(
        &place,
        &format!("cat /dev/zero > {dir}/fill 2>/dev/null || true"),
    );
    let mut daemon = place.start(&Conf::new("patronus0", "10.255.0.1/32"));
    daemon.wait_for("takes no samples: no room");
    until("it is told", || {
        let status = json(&place, &["status"]);
        status
            .to_string()
            .contains("no history is kept at the moment")
    });
    let events = out(&run(&place, &["events", "--kind", "gateway", "--json"]));
    assert!(events.contains("takes no samples"), "{events}");
    shell(&place, &format!("rm {dir}/fill"));
    // The next sample comes within ten seconds.
    let begun = Instant::now();
    while json(&place, &["history"])["status"]["state"] != "on" {
        assert!(begun.elapsed() < 6 * PATIENCE, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon.wait_for("takes samples again");
    daemon.stop();

    shell(&place, &format!("mount -o remount,ro {dir}"));
    let mut daemon = place.start(&Conf::new("patronus0", "10.255.0.1/32"));
    daemon.wait_for("takes no samples: ");
    assert_eq!(json(&place, &["history"])["status"]["state"], "failing");
    daemon.stop();

    shell(
        &place,
        &format!("umount {dir} && rmdir {dir} && touch {dir}"),
    );
    let mut daemon = place.start(&Conf::new("patronus0", "10.255.0.1/32"));
    daemon.wait_for("no history is kept: cannot make");
    assert_eq!(json(&place, &["history"])["status"]["state"], "off");
    daemon.stop();
    assert!(Path::new(&state).is_file());
}
