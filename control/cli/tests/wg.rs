//! The control socket as `wg` uses it, and as somebody uses it who does not mean well.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::{Conf, Daemon, Keys, Pair, Place, can_run, has, mode_of, uapi_answer, until};
use patronus_lab::Family;
use patronus_lab::traffic::{Pinger, reach};

fn ready() -> bool {
    can_run() && has("wg", "wireguard-tools")
}

fn bare(label: &str) -> (Place, Daemon) {
    let place = Place::new(label);
    let daemon = place.start(&Conf::new("patronus0", "10.255.0.1/24"));
    (place, daemon)
}

#[test]
fn wg_set_adds_changes_and_removes_a_peer_and_its_routes_follow() {
    if !ready() {
        return;
    }
    let (place, daemon) = bare("one site");
    let (peer, other) = (Keys::new(), Keys::new());
    let psk = patronus_config::keys::genpsk().to_string();
    let psk_file = place.secret("psk", &psk);
    let key = peer.public.as_str();

    let all = [
        "allowed-ips",
        "10.5.0.0/16,fd00:5::/64",
        "endpoint",
        "192.0.2.7:7000",
        "persistent-keepalive",
        "25",
    ];
    daemon.wg_set(
        &[
            &["peer", key, "preshared-key", psk_file.to_str().unwrap()][..],
            &all,
        ]
        .concat(),
    );
    let shown = daemon.show();
    let is = shown.peer(key).unwrap();
    assert_eq!(
        (is.psk.as_str(), is.endpoint.as_str(), is.keepalive.as_str()),
        (psk.as_str(), "192.0.2.7:7000", "25")
    );
    assert_eq!(is.allowed_ips, ["10.5.0.0/16", "fd00:5::/64"]);
    assert_eq!(
        place.routes_into("patronus0"),
        ["10.5.0.0/16", "fd00:5::/64"]
    );

    daemon.wg_set(&["peer", key, "allowed-ips", "10.6.0.0/16"]);
    assert_eq!(place.routes_into("patronus0"), ["10.6.0.0/16"]);
    daemon.wg_set(&["peer", key, "endpoint", "[2001:db8::9]:7001"]);
    assert_eq!(daemon.show().peers[0].endpoint, "[2001:db8::9]:7001");
    daemon.wg_set(&[
        "peer",
        key,
        "persistent-keepalive",
        "off",
        "preshared-key",
        "/dev/null",
    ]);
    let shown = daemon.show();
    assert_eq!(
        (
            shown.peers[0].keepalive.as_str(),
            shown.peers[0].psk.as_str()
        ),
        ("off", "(none)")
    );

    // An allowed IP belongs to whoever got it last.
    daemon.wg_set(&[
        "peer",
        &other.public,
        "allowed-ips",
        "10.6.0.0/16,10.7.0.0/16",
    ]);
    let shown = daemon.show();
    assert_eq!(shown.peer(key).unwrap().allowed_ips, Vec::<String>::new());
    assert_eq!(
        shown.peer(&other.public).unwrap().allowed_ips,
        ["10.6.0.0/16", "10.7.0.0/16"]
    );
    assert_eq!(
        place.routes_into("patronus0"),
        ["10.6.0.0/16", "10.7.0.0/16"]
    );

    daemon.wg_set(&["peer", &other.public, "remove"]);
    daemon.wg_set(&["peer", key, "remove"]);
    assert_eq!(daemon.show().peers, []);
    assert_eq!(place.routes_into("patronus0"), Vec::<String>::new());
    // Removing what is not there is no error, as with the kernel's WireGuard.
    daemon.wg_set(&["peer", key, "remove"]);
    daemon.stop();
}

#[test]
fn wg_set_changes_the_gateway_itself_key_port_and_mark() {
    if !ready() {
        return;
    }
    let (place, daemon) = bare("one site");
    let own = daemon.show();
    assert_eq!((own.port, own.fwmark.as_str()), (51820, "off"));
    let other = Keys::new();
    let file = place.secret("other", &other.private);

    daemon.wg_set(&["private-key", file.to_str().unwrap()]);
    assert_eq!(daemon.show().public, other.public);
    daemon.wg_set(&["listen-port", "40010"]);
    assert_eq!(daemon.show().port, 40010);
    daemon.wg_set(&["listen-port", "0"]);
    let picked = daemon.show().port;
    assert!(picked != 0 && picked != 40010, "{picked}");
    daemon.wg_set(&["fwmark", "0xca6c"]);
    assert_eq!(daemon.show().fwmark, "0xca6c");
    daemon.wg_set(&["fwmark", "0"]);
    assert_eq!(daemon.show().fwmark, "off");

    let _taken = place
        .namespace
        .run(|| std::net::UdpSocket::bind("0.0.0.0:40011"))
        .unwrap()
        .unwrap();
    let output = daemon.wg(&["set", "patronus0", "listen-port", "40011"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && stderr.contains("Address already in use"),
        "{stderr}"
    );
    assert_eq!(daemon.show().port, picked);

    // To be one's own peer is nonsense; the kernel's WireGuard ignores it too.
    daemon.wg_set(&["peer", &other.public, "allowed-ips", "10.3.0.0/16"]);
    assert_eq!(daemon.show().peers, []);
    daemon.stop();
}

#[test]
fn a_mark_set_at_run_time_is_on_the_datagrams_and_one_removed_is_not() {
    if !ready() {
        return;
    }
    let pair = Pair::up(|_| {});
    pair.reach();
    // Datagrams with the mark find no way.
    pair.place_one
        .ip_do("route add table 77 unreachable default");
    pair.place_one.ip_do("rule add fwmark 77 table 77");
    let (one, two) = pair.sites();
    let target = two.host_addr(Family::V4);
    pair.one.wg_set(&["fwmark", "77"]);
    until("marked datagrams go astray", || {
        reach(&one.host, target, Duration::from_millis(100)).is_err()
    });
    pair.one.wg_set(&["fwmark", "0"]);
    pair.reach();
    let drops = pair.one.stop().packets.drops;
    assert!(
        drops
            .get("send_unreachable")
            .is_some_and(|&count| count > 0),
        "{drops:?}"
    );
}

#[test]
fn new_keys_over_wg_set_carry_traffic_when_both_sides_have_them() {
    if !ready() {
        return;
    }
    let pair = Pair::up(|_| {});
    pair.reach();
    let (one, two) = pair.sites();
    let target = two.host_addr(Family::V4);
    let (key_one, key_two) = (
        pair.place_one.keys.public.clone(),
        pair.place_two.keys.public.clone(),
    );
    let psk = patronus_config::keys::genpsk().to_string();

    let file = pair.place_one.secret("psk", &psk);
    pair.one
        .wg_set(&["peer", &key_two, "preshared-key", file.to_str().unwrap()]);
    assert!(
        reach(&one.host, target, Duration::from_millis(700)).is_err(),
        "only one side has the key"
    );
    let file = pair.place_two.secret("psk", &psk);
    pair.two
        .wg_set(&["peer", &key_one, "preshared-key", file.to_str().unwrap()]);
    pair.reach();

    // A gateway with another private key is a stranger, until the other side knows it.
    let fresh = Keys::new();
    let file = pair.place_two.secret("fresh", &fresh.private);
    pair.two.wg_set(&["private-key", file.to_str().unwrap()]);
    assert!(reach(&one.host, target, Duration::from_millis(700)).is_err());
    pair.one.wg_set(&["peer", &key_two, "remove"]);
    let allowed = pair.conf_one.peers[0].allowed_ips.join(",");
    let endpoint = pair.conf_one.peers[0].endpoint.clone().unwrap();
    let file = pair.place_one.secret("psk", &psk);
    let psk_path = file.to_str().unwrap();
    pair.one.wg_set(&[
        "peer",
        &fresh.public,
        "allowed-ips",
        &allowed,
        "endpoint",
        &endpoint,
        "preshared-key",
        psk_path,
    ]);
    pair.reach();
    pair.one.stop();
    pair.two.stop();
}

#[test]
fn showconf_then_syncconf_or_setconf_is_no_change_and_costs_no_session() {
    if !ready() {
        return;
    }
    let pair = Pair::up(|conf| conf.peers[0].more = "keepalive = 21\n".to_owned());
    pair.reach();
    let before = pair.one.show();
    assert_ne!(before.peers[0].latest_handshake, 0);
    let (one, two) = pair.sites();
    let pinger = Pinger::start(
        &one.host,
        two.host_addr(Family::V4),
        Duration::from_millis(5),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let conf = pair.one.wg(&["showconf", "site1"]);
    assert!(conf.status.success(), "{conf:?}");
    let file = pair
        .place_one
        .secret("showconf", &String::from_utf8(conf.stdout).unwrap());
    let routes = pair.place_one.routes_into("site1");
    for verb in ["syncconf", "setconf", "addconf"] {
        let output = pair.one.wg(&[verb, "site1", file.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{verb}: {output:?}: {}",
            pair.one.log()
        );
        let mut after = pair.one.show();
        (after.peers[0].rx_bytes, after.peers[0].tx_bytes) =
            (before.peers[0].rx_bytes, before.peers[0].tx_bytes);
        assert_eq!(after, before, "{verb}");
        assert_eq!(pair.place_one.routes_into("site1"), routes, "{verb}");
    }
    let pings = pinger.finish().unwrap();
    assert!(
        pings.sent > 100 && pings.lost() == 0,
        "{} of {} lost",
        pings.lost(),
        pings.sent
    );
    pair.one.stop();
}

#[test]
fn setconf_removes_what_it_does_not_name() {
    if !ready() {
        return;
    }
    let (place, daemon) = bare("one site");
    let (kept, gone) = (Keys::new(), Keys::new());
    let psk = place.secret("psk", &patronus_config::keys::genpsk());
    for keys in [&kept, &gone] {
        let net = if keys.public == kept.public {
            "10.5.0.0/16"
        } else {
            "10.6.0.0/16"
        };
        let psk = psk.to_str().unwrap();
        daemon.wg_set(&[
            "peer",
            &keys.public,
            "allowed-ips",
            net,
            "preshared-key",
            psk,
            "persistent-keepalive",
            "9",
        ]);
    }
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 40020\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.7.0.0/16\n",
        place.keys.private, kept.public
    );
    let file = place.secret("setconf", &text);
    let output = daemon.wg(&["setconf", "patronus0", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let shown = daemon.show();
    assert_eq!((shown.port, shown.peers.len()), (40020, 1));
    let peer = shown.peer(&kept.public).unwrap();
    assert_eq!(
        (peer.psk.as_str(), peer.keepalive.as_str()),
        ("(none)", "off")
    );
    assert_eq!(peer.allowed_ips, ["10.7.0.0/16"]);
    assert_eq!(place.routes_into("patronus0"), ["10.7.0.0/16"]);
    daemon.stop();
}

#[test]
fn wg_sees_the_interface_in_its_list_and_only_root_may_ask() {
    if !ready() {
        return;
    }
    let (place, daemon) = bare("one site");
    let output = daemon.wg(&["show", "interfaces"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        "patronus0"
    );
    let mode = place
        .namespace
        .run(|| mode_of(&common::socket_path("patronus0")))
        .unwrap();
    assert_eq!(mode, 0o600);
}

#[test]
fn what_is_no_request_gets_an_errno_and_the_gateway_lives() {
    if !ready() {
        return;
    }
    let (place, daemon) = bare("one site");
    let key = "ab".repeat(32);
    let before = daemon.show();
    let requests: Vec<Vec<u8>> = vec![
        b"\n\n".to_vec(),
        b"hello\n\n".to_vec(),
        b"get=2\n\n".to_vec(),
        b"set=1\nlisten_port=99999\n\n".to_vec(),
        b"set=1\nfwmark=x\n\n".to_vec(),
        b"set=1\nprivate_key=zz\n\n".to_vec(),
        b"set=1\nallowed_ip=10.0.0.0/8\n\n".to_vec(),
        format!("set=1\nlisten_port=40030\npublic_key={key}\nallowed_ip=10.0.0.0/99\n\n")
            .into_bytes(),
        format!("set=1\npublic_key={key}\nendpoint=nowhere.example:1\n\n").into_bytes(),
        format!("set=1\npublic_key={key}\nendpoint=192.0.2.1:0\n\n").into_bytes(),
        b"\xff\xfe\x00\x01=\xff\n\n".to_vec(),
        [b"set=1\n".to_vec(), vec![b'a'; 1 << 20], b"\n\n".to_vec()].concat(),
        vec![b'a'; 5 << 20],
        [&b"set=1\n"[..], &b"x=y\n".repeat(2 << 20)].concat(),
    ];
    for request in &requests {
        let answer = daemon.uapi(request);
        let head = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert_eq!(
            answer,
            "errno=-22\n\n",
            "{head:?} of {} bytes",
            request.len()
        );
    }
    assert_eq!(daemon.show(), before, "no part of a faulty request is done");

    // Cut off in the middle.
    for request in [&b"get=1"[..], b"get=1\n", b"set=1\nlisten_port=40031\n"] {
        let mut stream = daemon.uapi_connect();
        stream.write_all(request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(uapi_answer(&mut stream), "errno=-22\n\n", "{request:?}");
    }
    // Nobody waits for the answer.
    for _ in 0..100 {
        daemon.uapi_connect().write_all(b"get=1\n\n").unwrap();
    }
    // Byte by byte, and two in one.
    let mut stream = daemon.uapi_connect();
    for byte in b"get=1\n\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(uapi_answer(&mut stream).ends_with("errno=0\n\n"));
    stream.write_all(b"set=1\n\nset=1\nx=y\n\n").unwrap();
    let mut answers = uapi_answer(&mut stream);
    while answers.matches("errno").count() < 2 {
        answers += &uapi_answer(&mut stream);
    }
    assert_eq!(answers, "errno=0\n\nerrno=-22\n\n");
    assert_eq!(daemon.show(), before);
    assert_eq!(place.routes_into("patronus0"), Vec::<String>::new());
    daemon.stop();
}

#[test]
fn clients_that_say_nothing_lock_nobody_out_for_long_and_forwarding_goes_on() {
    if !ready() {
        return;
    }
    let pair = Pair::up(|_| {});
    pair.reach();
    let (one, two) = pair.sites();
    let pinger = Pinger::start(
        &one.host,
        two.host_addr(Family::V4),
        Duration::from_millis(5),
    )
    .unwrap();
    let silent: Vec<_> = (0..20).map(|_| pair.one.uapi_connect()).collect();
    // They are served a few at a time and each is given up after a while.
    let begun = Instant::now();
    let mut stream = pair.one.uapi_connect();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(b"get=1\n\n").unwrap();
    assert!(
        uapi_answer(&mut stream).ends_with("errno=0\n\n"),
        "{}",
        pair.one.log()
    );
    println!(
        "answered behind 20 silent clients after {:?}",
        begun.elapsed()
    );
    drop(silent);
    let pings = pinger.finish().unwrap();
    assert_eq!(pings.lost(), 0, "of {}", pings.sent);
    pair.one.stop();
}

#[test]
fn a_thousand_peers_are_set_in_one_request_and_shown_again() {
    if !ready() {
        return;
    }
    let (place, daemon) = bare("hub");
    let mut text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\n",
        place.keys.private
    );
    for number in 0..1000 {
        let keys = Keys::new();
        text += &format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = 10.{}.{}.0/24\n",
            keys.public,
            1 + number / 250,
            number % 250
        );
    }
    let file = place.secret("peers", &text);
    let begun = Instant::now();
    let output = daemon.wg(&["setconf", "patronus0", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}: {}", daemon.log());
    println!("1000 peers set in {:?}", begun.elapsed());
    assert_eq!(daemon.show().peers.len(), 1000);
    assert_eq!(place.routes_into("patronus0").len(), 1000);
    daemon.stop();
}
