//! A gateway's life as an operator sees it: it comes, is reloaded, and goes without a trace.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::{Conf, Keys, PATIENCE, Pair, PeerConf, Place, can_run, has, until};
use nix::sys::signal::Signal;
use patronus_lab::Family;
use patronus_lab::traffic::{Pinger, reach};

/// A site with a peer that nobody is.
fn lonely() -> (Conf, Keys) {
    let keys = Keys::new();
    let mut conf = Conf::new("patronus0", "10.255.0.1/24");
    conf.addresses.push("fd00:255::1/64".to_owned());
    let peer = PeerConf::new(&keys.public, &["10.2.0.0/16", "fd00:2::/64"]);
    (conf.peer(peer), keys)
}

#[test]
fn interface_addresses_mtu_and_routes_appear_and_go_with_either_signal() {
    if !can_run() {
        return;
    }
    for (signal, table) in [(Signal::SIGTERM, "main"), (Signal::SIGINT, "51820")] {
        let place = Place::new("one site");
        let (mut conf, _) = lonely();
        conf.mtu = 1380;
        if table != "main" {
            conf.site = format!("table = {table}\n");
        }
        let mut daemon = place.start(&conf);

        let link = &place.ip(&["address", "show", "dev", "patronus0"])[0];
        assert_eq!(link["mtu"], 1380);
        assert!(
            link["flags"].as_array().unwrap().contains(&"UP".into()),
            "{link}"
        );
        let addresses: Vec<String> = link["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]))
            .collect();
        assert_eq!(addresses, ["10.255.0.1/24", "fd00:255::1/64"]);
        assert_eq!(
            place.routes_into("patronus0"),
            ["10.2.0.0/16", "fd00:2::/64"]
        );
        let there = place.ip(&["route", "show", "table", table, "10.2.0.0/16"]);
        assert_eq!(there[0]["dev"], "patronus0", "table {table}: {there}");
        assert!(place.has_socket("patronus0"));

        daemon.signal(signal);
        let (status, took) = daemon.wait_end(Duration::from_secs(5));
        println!("{signal}: ended after {took:?}");

        assert!(status.success(), "{status}");
        daemon.read_report();
        assert!(!place.has_interface("patronus0") && !place.has_socket("patronus0"));
        for prefix in ["10.2.0.0", "fd00:2::"] {
            assert_eq!(place.routes_into_any(prefix), Vec::<String>::new());
        }
        let log = daemon.log();
        assert!(
            log.contains(&format!("{signal}: stopping")) && !log.contains("ERROR"),
            "{log}"
        );
    }
}

#[test]
fn after_kill_nine_nothing_but_the_socket_is_left_and_a_restart_replaces_it() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let place = Place::new("killed site");
    let (conf, _) = lonely();
    let mut first = place.start(&conf);
    first.signal(Signal::SIGKILL);
    first.wait_end(PATIENCE);
    until("the kernel has taken the interface away", || {
        !place.has_interface("patronus0")
    });
    assert!(place.routes_into_any("10.2.0.0").is_empty());
    assert!(
        place.has_socket("patronus0"),
        "kill -9 gives no time to remove it"
    );

    let second = place.start(&conf);

    assert_eq!(second.show().public, place.keys.public);
    assert_eq!(
        place.routes_into("patronus0"),
        ["10.2.0.0/16", "fd00:2::/64"]
    );
    second.stop();
    assert!(!place.has_socket("patronus0"));
}

#[test]
fn the_end_of_standard_input_ends_a_gateway_that_was_asked_to_heed_it() {
    if !can_run() {
        return;
    }
    let place = Place::new("leashed site");
    let (conf, _) = lonely();
    place.configure(&conf);
    let mut daemon = place.start_with("patronus0", place.run_command().arg("--exit-with-stdin"));
    daemon.end_stdin();
    let (status, _) = daemon.wait_end(PATIENCE);
    assert!(status.success());
    daemon.read_report();
    assert!(!place.has_interface("patronus0"));

    let mut daemon = place.start(&conf);
    daemon.end_stdin();
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        place.has_interface("patronus0"),
        "nobody asked this one to: {}",
        daemon.log()
    );
    daemon.stop();
}

#[test]
fn an_idle_gateway_uses_no_cpu() {
    if !can_run() {
        return;
    }
    let pair = Pair::up(|_| {});
    pair.reach();
    // Handshakes and the kernel's own chatter on a new link are over.
    std::thread::sleep(Duration::from_secs(1));
    let ticks = || (pair.one.cpu_ticks(), pair.two.cpu_ticks());
    let before = ticks();
    std::thread::sleep(Duration::from_secs(3));
    let after = ticks();
    let used = (after.0 - before.0, after.1 - before.1);
    println!("ticks in 3 s: {used:?}");
    assert!(used.0 < 5 && used.1 < 5, "{used:?}");
}

#[test]
fn a_gateway_whose_interface_is_deleted_says_so_and_ends() {
    if !can_run() {
        return;
    }
    let place = Place::new("site without interface");
    let (conf, _) = lonely();
    let mut daemon = place.start(&conf);
    place.ip_do("link delete patronus0");
    let (status, took) = daemon.wait_end(PATIENCE);
    println!("ended after {took:?}");
    assert_eq!(status.code(), Some(1));
    let last = daemon.log().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        "patronus: interface patronus0 was deleted while the gateway ran: start it again"
    );
    daemon.read_report();
    assert!(!place.has_socket("patronus0"));
}

#[test]
fn an_interface_that_is_down_for_a_while_costs_neither_cpu_nor_the_tunnel() {
    if !can_run() {
        return;
    }
    let pair = Pair::up(|_| {});
    pair.reach();
    pair.place_one.ip_do("link set site1 down");
    std::thread::sleep(Duration::from_millis(300));
    let before = pair.one.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = pair.one.cpu_ticks() - before;
    assert!(used < 5, "{used} ticks in 1 s: {}", pair.one.log());
    pair.place_one.ip_do("link set site1 up");
    // The kernel forgets the routes of an interface that goes down; whoever set it up again brings them back.
    for prefix in &pair.conf_one.peers[0].allowed_ips {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        pair.place_one
            .ip_do(&format!("{family} route replace {prefix} dev site1"));
    }
    pair.reach();
    pair.one.stop();
}

#[test]
fn a_reload_changes_peers_addresses_mtu_and_routes_and_leaves_the_others_session_alone() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let mut pair = Pair::up(|_| {});
    pair.reach();
    let (stranger, second) = (Keys::new(), Keys::new());
    let peer_key = pair.place_two.keys.public.clone();
    let before = pair.one.show();
    let handshake = before.peer(&peer_key).unwrap().latest_handshake;
    assert_ne!(handshake, 0);
    let pinger = {
        let (one, two) = pair.sites();
        Pinger::start(
            &one.host,
            two.host_addr(Family::V4),
            Duration::from_millis(5),
        )
        .unwrap()
    };
    let base = pair.place_one.routes_into("site1");
    // A second that the clock has passed shows in `latest_handshake` as another number.
    std::thread::sleep(Duration::from_millis(1100));

    // Added: a peer, an address. Changed: the MTU.
    let mut conf = pair.conf_one.clone();
    conf.peers.push(PeerConf::new(
        &stranger.public,
        &["10.77.0.0/16", "fd00:77::/32"],
    ));
    conf.peers
        .push(PeerConf::new(&second.public, &["10.78.0.0/16"]));
    conf.addresses.push("10.99.0.1/24".to_owned());
    conf.mtu = 1400;
    pair.place_one.configure(&conf);
    pair.one.reload();
    let mut wanted = base.clone();
    wanted.extend(["10.77.0.0/16", "10.78.0.0/16", "fd00:77::/32"].map(str::to_owned));
    wanted.sort();
    assert_eq!(pair.place_one.routes_into("site1"), wanted);
    assert_eq!(pair.one.show().peers.len(), 3);
    let link = pair.place_one.ip(&["address", "show", "dev", "site1"]);
    assert_eq!(link[0]["mtu"], 1400);
    assert!(link.to_string().contains("10.99.0.1"), "{link}");

    // Changed: allowed IPs move from one peer to another. Removed: an address.
    conf.peers[1].allowed_ips = vec!["10.79.0.0/16".to_owned()];
    conf.peers[2].allowed_ips = vec!["fd00:77::/32".to_owned()];
    conf.addresses.pop();
    pair.place_one.configure(&conf);
    pair.one.reload();
    let mut wanted = base.clone();
    wanted.extend(["10.79.0.0/16", "fd00:77::/32"].map(str::to_owned));
    wanted.sort();
    assert_eq!(pair.place_one.routes_into("site1"), wanted);
    let link = pair.place_one.ip(&["address", "show", "dev", "site1"]);
    assert!(!link.to_string().contains("10.99.0.1"), "{link}");

    // Removed: both peers.
    pair.place_one.configure(&pair.conf_one);
    pair.one.reload();
    assert_eq!(pair.place_one.routes_into("site1"), base);
    assert_eq!(pair.one.show().peers.len(), 1);

    let pings = pinger.finish().unwrap();
    assert!(
        pings.sent > 100 && pings.lost() == 0,
        "{} of {} lost",
        pings.lost(),
        pings.sent
    );
    for (daemon, key) in [
        (&pair.one, &peer_key),
        (&pair.two, &pair.place_one.keys.public),
    ] {
        let shown = daemon.show();
        assert_eq!(
            shown.peer(key).unwrap().latest_handshake,
            handshake,
            "{shown:?}"
        );
    }
    pair.one.stop();
    pair.two.stop();
}

#[test]
fn a_reload_that_removes_the_only_peer_stops_its_traffic_and_one_that_brings_it_back_resumes_it() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::up(|_| {});
    pair.reach();
    let mut conf = pair.conf_one.clone();
    conf.peers.clear();
    pair.place_one.configure(&conf);
    pair.one.reload();
    let (one, two) = pair.sites();
    let target = two.host_addr(Family::V4);
    assert!(reach(&one.host, target, Duration::from_millis(500)).is_err());
    assert_eq!(pair.place_one.routes_into("site1"), Vec::<String>::new());
    pair.place_one.configure(&pair.conf_one);
    pair.one.reload();
    pair.reach();
}

#[test]
fn a_reload_moves_to_another_port_and_frees_the_old_one() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let mut pair = Pair::up(|_| {});
    pair.reach();
    let handshake = pair.one.show().peers[0].latest_handshake;
    let mut conf = pair.conf_one.clone();
    conf.port = 40000;
    pair.place_one.configure(&conf);
    pair.one.reload();

    assert_eq!(pair.one.show().port, 40000);
    pair.reach();
    assert_eq!(
        pair.one.show().peers[0].latest_handshake,
        handshake,
        "the session moves along"
    );
    let endpoint = pair.two.show().peers[0].endpoint.clone();
    assert!(endpoint.ends_with(":40000"), "{endpoint}");
    let old = || {
        pair.place_one
            .namespace
            .run(|| UdpSocket::bind("0.0.0.0:51820"))
            .unwrap()
    };
    until("the old port is free", || old().is_ok());

    // The same file again is no change, and back is a move like the first one.
    pair.one.reload();
    assert_eq!(pair.one.show().port, 40000);
    pair.place_one.configure(&pair.conf_one);
    pair.one.reload();
    assert_eq!(pair.one.show().port, 51820);
    pair.reach();
    pair.one.stop();
}

#[test]
fn a_reload_binds_the_sockets_to_another_interface_on_the_same_port() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let mut pair = Pair::up(|_| {});
    pair.reach();
    let mut conf = pair.conf_one.clone();
    for interface in ["wan0", "lan0", "wan0"] {
        conf.uplink = format!("interface = \"{interface}\"\n");
        pair.place_one.configure(&conf);
        pair.one.reload();
        assert!(!pair.one.log().contains("ERROR"), "{}", pair.one.log());
        assert_eq!(pair.one.show().port, 51820);
    }
    pair.reach();
    pair.place_one.configure(&pair.conf_one);
    pair.one.reload();
    assert!(!pair.one.log().contains("ERROR"), "{}", pair.one.log());
    pair.reach();
    pair.one.stop();
}

#[test]
fn after_a_reload_the_file_counts_again_whatever_wg_set() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let place = Place::new("one site");
    let (conf, keys) = lonely();
    let mut daemon = place.start(&conf);
    let other = Keys::new();
    let private = place.secret("other", &other.private);
    daemon.wg_set(&[
        "listen-port",
        "40001",
        "fwmark",
        "7",
        "private-key",
        private.to_str().unwrap(),
    ]);
    daemon.wg_set(&["peer", &keys.public, "remove"]);
    daemon.wg_set(&["peer", &other.public, "allowed-ips", "10.9.0.0/16"]);
    let shown = daemon.show();
    assert_eq!(
        (shown.port, shown.fwmark.as_str(), &shown.public),
        (40001, "0x7", &other.public)
    );

    daemon.reload();

    let shown = daemon.show();
    assert_eq!((shown.port, shown.fwmark.as_str()), (51820, "off"));
    assert_eq!(shown.public, place.keys.public);
    assert_eq!(shown.peers.len(), 1);
    assert!(shown.peer(&keys.public).is_some());
    assert_eq!(
        place.routes_into("patronus0"),
        ["10.2.0.0/16", "fd00:2::/64"]
    );
    daemon.stop();
}

#[test]
fn a_faulty_file_changes_nothing_and_the_log_says_why() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let place = Place::new("one site");
    let (conf, _) = lonely();
    let mut daemon = place.start(&conf);
    let before = (daemon.show(), place.routes_into("patronus0"));
    let taken = place
        .namespace
        .run(|| UdpSocket::bind("0.0.0.0:40002"))
        .unwrap()
        .unwrap();

    let mut faults: Vec<(Conf, &str)> = Vec::new();
    let mut faulty = conf.clone();
    faulty.peers[0].more = "keepalife = 25\n".to_owned();
    faults.push((faulty, "did you mean `keepalive`"));
    let mut faulty = conf.clone();
    faulty.peers[0].public = "nonsense".to_owned();
    faults.push((faulty, "public_key"));
    let mut faulty = conf.clone();
    faulty.port = 40002;
    faulty.peers.clear();
    faults.push((faulty, "UDP port 40002 is in use"));
    let mut faulty = conf.clone();
    faulty.uplink = "interface = \"nowhere\"\n".to_owned();
    faulty.peers.clear();
    faults.push((faulty, "no interface `nowhere`"));
    for (faulty, why) in faults {
        place.configure(&faulty);
        daemon.reload();
        let log = daemon.log();
        assert!(log.contains(why), "{why} in {log}");
        assert_eq!(
            (daemon.show(), place.routes_into("patronus0")),
            before,
            "{why}"
        );
    }
    std::fs::remove_file(place.path("patronus.toml")).unwrap();
    daemon.reload();
    assert!(daemon.log().contains("cannot read"), "{}", daemon.log());
    assert_eq!(daemon.show(), before.0);

    // And then a good one.
    drop(taken);
    let mut good = conf.clone();
    good.port = 40002;
    place.configure(&good);
    daemon.reload();
    assert_eq!(daemon.show().port, 40002);
    daemon.stop();
}

#[test]
fn a_reload_that_the_kernel_refuses_half_way_can_be_repaired_by_the_next() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let place = Place::new("one site");
    place.ip_do("link add blocker type veth peer name blocked");
    place.ip_do("link set blocker up");
    place.ip_do("route add 10.66.0.0/16 dev blocker");
    let (conf, keys) = lonely();
    let mut daemon = place.start(&conf);
    let mut refused = conf.clone();
    refused.port = 40003;
    refused.mtu = 1400;
    refused.addresses.push("10.88.0.1/24".to_owned());
    refused.peers[0].allowed_ips.push("10.66.0.0/16".to_owned());
    place.configure(&refused);
    daemon.reload();
    assert!(daemon.log().contains("10.66.0.0/16"), "{}", daemon.log());

    refused.peers[0].allowed_ips.pop();
    place.configure(&refused);
    daemon.reload();

    let shown = daemon.show();
    assert_eq!(shown.port, 40003);
    assert_eq!(
        shown.peer(&keys.public).unwrap().allowed_ips,
        ["10.2.0.0/16", "fd00:2::/64"]
    );
    let link = place.ip(&["address", "show", "dev", "patronus0"]);
    assert_eq!(link[0]["mtu"], 1400);
    assert_eq!(
        place.routes_into("patronus0"),
        ["10.2.0.0/16", "fd00:2::/64"]
    );
    let last = daemon.log().lines().last().unwrap().to_owned();
    assert!(last.contains("reloaded"), "{last}");
    daemon.stop();
}

#[test]
fn a_hundred_reloads_cost_no_ping_and_thirty_moves_leak_no_descriptor() {
    if !can_run() {
        return;
    }
    let mut pair = Pair::up(|_| {});
    pair.reach();
    let (one, two) = pair.sites();
    let pinger = Pinger::start(
        &one.host,
        two.host_addr(Family::V4),
        Duration::from_millis(5),
    )
    .unwrap();
    let descriptors = |pid: u32| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    let before = descriptors(pair.one.pid());
    let mut conf = pair.conf_one.clone();
    let stranger = Keys::new();
    let begun = Instant::now();
    for round in 0..100 {
        conf.peers.truncate(1);
        if round % 2 == 0 {
            conf.peers
                .push(PeerConf::new(&stranger.public, &["10.77.0.0/16"]));
        }
        pair.place_one.configure(&conf);
        pair.one.reload();
    }
    println!("100 reloads in {:?}", begun.elapsed());
    let pings = pinger.finish().unwrap();
    assert!(
        pings.sent > 20 && pings.lost() == 0,
        "{} of {} lost",
        pings.lost(),
        pings.sent
    );

    // A datagram under way to a port that is given up is lost: no claim about pings here.
    for round in 0..30 {
        conf.port = 40000 + round % 3;
        pair.place_one.configure(&conf);
        pair.one.reload();
    }
    until("old sockets are closed", || {
        descriptors(pair.one.pid()) == before
    });
    pair.reach();
    pair.one.stop();
    pair.two.stop();
}
