//! The pre-filter through the real daemon: where it is attached, that nothing gets by while it is reconfigured, that it
//! is gone with its process, and that a gateway without it works and says why.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;

use common::{Conf, PATIENCE, Pair, Place, can_run, has, output_of, patronus, skip, until};
use nix::sys::signal::Signal;
use patronus_api::{
    PrefilterCommand, PrefilterCommandRequest, PrefilterResponse, PrefilterSideView,
    PrefilterStateView,
};
use patronus_lab::link::{self, End, Setup};
use patronus_lab::{Family, Namespace};
use serde_json::Value;

const PORT: u16 = 51820;

/// Whether programs can be loaded here; fails where a skip is not allowed.
fn can_filter() -> bool {
    if !can_run() {
        return false;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("CapEff:"));
    let caps = u64::from_str_radix(line.unwrap()[7..].trim(), 16).unwrap();
    // CAP_SYS_ADMIN, or CAP_PERFMON and CAP_BPF (capabilities(7)).
    let has = |bit: u32| caps >> bit & 1 == 1;
    has(21) || (has(38) && has(39)) || skip("no CAP_BPF")
}

fn filtering(wan: &str) -> String {
    format!("wan = \"{wan}\"\n")
}

fn show(place: &Place) -> PrefilterResponse {
    place.ask(|client| client.prefilter()).unwrap()
}

/// The hook of an interface; `None` where the filter is not on it.
fn hook(place: &Place, interface: &str) -> Option<String> {
    let hooks = show(place).hooks;
    hooks
        .into_iter()
        .find(|hook| hook.interface == interface)?
        .hook
}

fn count(place: &Place, reason: &str) -> u64 {
    let counts = show(place).counts;
    let found = counts.into_iter().find(|count| count.reason == reason);
    found.map_or(0, |count| count.packets)
}

/// A socket of a namespace that speaks with `target` only.
fn socket(from: &Namespace, target: SocketAddr) -> UdpSocket {
    let open = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(target).unwrap();
        socket
    };
    from.run(open).unwrap()
}

/// Sends junk, slowly enough for every queue.
fn junk(socket: &UdpSocket, packets: usize) {
    for at in 0..packets {
        // Who answers "port unreachable" between two gateways is no fault.
        let _ = socket.send(&[9; 40]);
        if at % 16 == 15 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A `patronus prefilter …` beside the gateway.
fn prefilter(place: &Place, args: &str) -> Output {
    let mut command = patronus();
    command.arg("prefilter").args(args.split(' '));
    output_of(&place.namespace, &mut command)
}

/// The value of a series of `patronus metrics`.
fn metric(place: &Place, series: &str) -> u64 {
    let mut command = patronus();
    let told = output_of(&place.namespace, command.arg("metrics"));
    let text = String::from_utf8(told.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    value.trim().parse().unwrap()
}

/// Frames of no WireGuard message that were dropped on an uplink.
fn dropped_on(place: &Place, interface: &str) -> u64 {
    let labels =
        format!("interface=\"{interface}\",side=\"wan\",verdict=\"drop\",reason=\"drop_type\"");
    metric(
        place,
        &format!("patronus_prefilter_packets_total{{{labels}}}"),
    )
}

fn wan_of_one(pair: &Pair) -> SocketAddr {
    SocketAddr::new(pair.sites().0.wan_addr(Family::V4), PORT)
}

/// What the kernel says of XDP on an interface.
fn has_xdp(place: &Place, interface: &str) -> bool {
    let links = place.ip(&["link", "show", "dev", interface]);
    links[0].get("xdp").is_some_and(|xdp| xdp["mode"] != 0)
}

#[test]
fn junk_is_dropped_before_the_gateway_and_reloads_leave_no_gap() {
    if !can_filter() {
        return;
    }
    let mut pair = Pair::up(|conf| conf.prefilter = filtering("tcx"));
    pair.reach();
    assert_eq!(hook(&pair.place_one, "wan0").as_deref(), Some("tcx"));
    let attacker = socket(&pair.lab.wan, wan_of_one(&pair));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                junk(&attacker, 64);
            }
        });
        // Every setting that lives in maps, and the hook itself.
        for (at, lines) in [
            "wan = \"tcx\"\nbogons = true\n",
            "wan = \"tcx\"\ninitiations_per_second = 7\nblock_lists = [\"list.txt\"]\n",
            "wan = \"auto\"\n",
            "wan = \"clsact\"\n",
            "wan = \"tcx\"\n",
            "wan = \"tcx\"\nknown_receivers = true\n",
        ]
        .into_iter()
        .enumerate()
        {
            std::fs::write(pair.place_one.path("list.txt"), "203.0.113.0/24\n").unwrap();
            let mut conf = pair.conf_one.clone();
            conf.prefilter = lines.to_owned();
            pair.place_one.configure(&conf);
            pair.one.reload();
            let before = count(&pair.place_one, "drop_type");
            until("more junk is dropped", || {
                count(&pair.place_one, "drop_type") > before
            });
            let wanted = if at == 3 { "clsact" } else { "tcx" };
            assert_eq!(hook(&pair.place_one, "wan0").as_deref(), Some(wanted));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        flood.join().unwrap();
    });
    let dropped = dropped_on(&pair.place_one, "wan0");
    assert!(dropped > 300, "{dropped}");
    assert_eq!(dropped, count(&pair.place_one, "drop_type"));
    let attached = "patronus_prefilter_attached{interface=\"wan0\",side=\"wan\",hook=\"tcx\"}";
    assert_eq!(metric(&pair.place_one, attached), 1);
    let known = "patronus_prefilter_map_entries{map=\"wan_receivers\"}";
    until("the receivers are in their table", || {
        metric(&pair.place_one, known) > 0
    });
    // The last of these checks receivers, as soon as the workers have had time for the configuration.
    let mut stray = [0x5a; 64];
    stray[..4].copy_from_slice(&[4, 0, 0, 0]);
    until("a receiver that is nobody's is dropped", || {
        attacker.send(&stray).unwrap();
        count(&pair.place_one, "drop_receiver") > 0
    });
    pair.reach();
    assert!(!pair.one.log().contains("ERROR"), "{}", pair.one.log());
    let raw = {
        pair.one.signal(Signal::SIGTERM);
        pair.one.wait_end(PATIENCE);
        pair.one.read_raw_report()
    };
    assert_eq!(raw["balanced"], true, "{raw:#}");
    assert_eq!(raw["packets"]["drops"].get("outer_type"), None, "{raw:#}");
    assert!(
        raw["prefilter"]["wan_drop_type"].as_u64() > Some(300),
        "{raw:#}"
    );
    pair.two.stop();
}

#[test]
fn a_block_list_is_read_again_and_a_refused_one_keeps_its_previous_version() {
    if !can_filter() {
        return;
    }
    let mut pair = Pair::up(|conf| conf.prefilter = filtering("off"));
    let attacker = socket(&pair.lab.wan, wan_of_one(&pair));
    let own: IpAddr = attacker.local_addr().unwrap().ip();
    let mut conf = pair.conf_one.clone();
    conf.prefilter = "wan = \"tcx\"\nblock_lists = [\"list.txt\"]\n".to_owned();
    pair.place_one.configure(&conf);
    // The peer is on the list too; whom the operator made a peer passes.
    let peer = pair.sites().1.wan_addr(Family::V4);
    std::fs::write(
        pair.place_one.path("list.txt"),
        format!("# who\n{own}\n{peer}/32\n"),
    )
    .unwrap();
    pair.one.reload();
    // Right in form, so that only its source speaks against it.
    let mut keepalive = [0; 32];
    keepalive[0] = 4;
    until("the blocked source is dropped", || {
        attacker.send(&keepalive).unwrap();
        count(&pair.place_one, "drop_blocked") > 0
    });
    pair.reach();

    std::fs::write(
        pair.place_one.path("list.txt"),
        "203.0.113.0/24\nnonsense\n",
    )
    .unwrap();
    pair.one.reload();
    pair.one.wait_for("list.txt:2: ");
    assert!(
        pair.one
            .log()
            .contains("its previous 2 entries stay in force")
    );
    let before = count(&pair.place_one, "drop_blocked");
    until("the previous version drops", || {
        attacker.send(&keepalive).unwrap();
        count(&pair.place_one, "drop_blocked") > before
    });
    let shown = prefilter(&pair.place_one, "show");
    assert_eq!(shown.status.code(), Some(3), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("the last load was refused"), "{text}");

    std::fs::write(pair.place_one.path("list.txt"), "203.0.113.0/24\n").unwrap();
    pair.one.reload();
    let shown = prefilter(&pair.place_one, "show");
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let passed = count(&pair.place_one, "pass_data");
    until("the source passes", || {
        attacker.send(&keepalive).unwrap();
        count(&pair.place_one, "pass_data") > passed
    });
    pair.one.stop();
    pair.two.stop();
}

/// A namespace with a veth whose other end is in another one.
fn place_with_wan(label: &str) -> (Place, Namespace) {
    let place = Place::new(label);
    let outside = Namespace::new("outside").unwrap();
    join(&place, &outside);
    (place, outside)
}

fn join(place: &Place, outside: &Namespace) {
    let end = |namespace, name| End { namespace, name };
    link::connect(end(&place.namespace, "wan0"), end(outside, "eth0")).unwrap();
    for (namespace, name, address) in [
        (&place.namespace, "wan0", "198.18.1.2/24"),
        (outside, "eth0", "198.18.1.1/24"),
    ] {
        let setup = Setup {
            mtu: None,
            addresses: &[address.parse().unwrap()],
            routes: &[],
        };
        link::configure(namespace, name, setup).unwrap();
    }
}

fn lone_site(wan: &str) -> Conf {
    let mut conf = Conf::new("patronus0", "10.255.0.1/24");
    conf.prefilter = format!("wan = \"{wan}\"\ninterfaces = [\"wan0\"]\n");
    conf
}

/// Whether a datagram of junk reaches a socket on the gateway's port, once there is no gateway.
fn junk_arrives(place: &Place, outside: &Namespace) -> bool {
    let open = || UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let listener = place.namespace.run(open).unwrap();
    let wake = Some(Duration::from_millis(100));
    listener.set_read_timeout(wake).unwrap();
    let sender = socket(outside, SocketAddr::new([198, 18, 1, 2].into(), PORT));
    (0..50).any(|_| {
        let _ = sender.send(&[9; 40]);
        listener.recv(&mut [0; 64]).is_ok()
    })
}

#[test]
fn the_filter_is_gone_with_its_process_however_that_ends() {
    if !can_filter() {
        return;
    }
    for hook_word in ["tcx", "xdp"] {
        let (place, outside) = place_with_wan("killed");
        let mut daemon = place.start(&lone_site(hook_word));
        assert_eq!(hook(&place, "wan0").as_deref(), Some(hook_word));
        assert_eq!(has_xdp(&place, "wan0"), hook_word == "xdp");
        daemon.signal(Signal::SIGKILL);
        daemon.wait_end(PATIENCE);
        assert!(junk_arrives(&place, &outside), "{hook_word}");
        assert!(!has_xdp(&place, "wan0"));
    }
    // And in order; of clsact, which outlives a killed process, too.
    for hook_word in ["tcx", "xdp-generic", "clsact"] {
        let (place, outside) = place_with_wan("ended");
        let daemon = place.start(&lone_site(hook_word));
        assert_eq!(hook(&place, "wan0").as_deref(), Some(hook_word));
        daemon.stop();
        assert!(junk_arrives(&place, &outside), "{hook_word}");
        assert!(!has_xdp(&place, "wan0"));
    }
}

#[test]
fn an_interface_that_comes_back_is_guarded_again() {
    if !can_filter() {
        return;
    }
    let place = Place::new("without a wan");
    let outside = Namespace::new("outside").unwrap();
    let mut daemon = place.start(&lone_site("auto"));
    daemon.wait_for("pre-filter waits for its interface");
    let shown = prefilter(&place, "show");
    assert_eq!(shown.status.code(), Some(3), "{shown:?}");
    for times in 1..=2 {
        join(&place, &outside);
        daemon.wait_for_nth("pre-filter attached", times);
        let attacker = socket(&outside, SocketAddr::new([198, 18, 1, 2].into(), PORT));
        let before = count(&place, "drop_type");
        until("junk is dropped", || {
            junk(&attacker, 1);
            count(&place, "drop_type") > before
        });
        assert_eq!(prefilter(&place, "show").status.code(), Some(0));
        // What was counted on the interface that was there before is its, too.
        assert_eq!(dropped_on(&place, "wan0"), count(&place, "drop_type"));
        place.ip_do("link del wan0");
        daemon.wait_for_nth("pre-filter gone with its interface", times);
    }
    daemon.stop();
}

#[test]
fn operators_attach_move_and_detach_it() {
    if !can_filter() {
        return;
    }
    let (place, _outside) = place_with_wan("ordered");
    let mut conf = lone_site("off");
    let mut daemon = place.start(&conf);
    assert_eq!(hook(&place, "wan0"), None);
    let run = |args: &str| {
        let output = prefilter(&place, args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text + &error)
    };
    let (code, text) = run("attach wan0 --hook xdp --dry-run");
    assert_eq!((code, hook(&place, "wan0")), (Some(0), None), "{text}");
    for word in ["xdp", "tcx", "xdp-generic", "xdp", "clsact"] {
        let (code, text) = run(&format!("attach wan0 --hook {word}"));
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.starts_with(&format!("done: attached to wan0 at {word}\n")),
            "{text}"
        );
        assert!(text.contains("a reload takes it off again"), "{text}");
        assert_eq!(hook(&place, "wan0").as_deref(), Some(word));
        assert_eq!(has_xdp(&place, "wan0"), word.starts_with("xdp"), "{word}");
    }
    let (code, text) = run("stats --json");
    assert_eq!(code, Some(0), "{text}");
    assert!(serde_json::from_str::<Value>(&text).unwrap().is_array());
    let (code, text) = run("detach");
    assert_eq!((code, hook(&place, "wan0")), (Some(0), None), "{text}");
    for (args, part) in [
        ("attach nowhere", "no interface `nowhere`"),
        (
            "detach nowhere",
            "the pre-filter knows no interface `nowhere`",
        ),
    ] {
        let (code, text) = run(args);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(run("attach wan0 --hook nftables").0, Some(2));

    // Configured, it comes back by a reload.
    conf.prefilter = lone_site("tcx").prefilter;
    place.configure(&conf);
    daemon.reload();
    assert_eq!(hook(&place, "wan0").as_deref(), Some("tcx"));
    run("detach wan0");
    assert_eq!(hook(&place, "wan0"), None);
    daemon.reload();
    assert_eq!(hook(&place, "wan0").as_deref(), Some("tcx"));
    daemon.stop();
}

#[test]
fn two_gateways_on_one_interface_leave_each_other_alone() {
    if !can_filter() {
        return;
    }
    let (place, outside) = place_with_wan("shared");
    let mut one = place.start(&lone_site("xdp"));
    let other = Place::within(&place.namespace);
    let mut conf = lone_site("xdp");
    conf.interface = "patronus1".to_owned();
    conf.addresses = vec!["10.254.0.1/24".to_owned()];
    conf.port = PORT + 1;
    other.configure(&conf);
    let mut command = other.run_command();
    command.args(["--api-dir", "/run/other"]);
    let mut two = other.start_with("patronus1", &mut command);
    two.wait_for("another program is attached to `wan0` at xdp");

    // The other gateway's orders go to its own socket.
    let ask = |request: PrefilterCommandRequest| {
        let path = std::path::Path::new("/run/other/patronus.sock");
        let ask = || patronus_api::Client::connect(path)?.prefilter_command(&request);
        place.namespace.run(ask).unwrap()
    };
    let order = |hook: &str| PrefilterCommandRequest {
        command: PrefilterCommand::Attach,
        interface: Some("wan0".to_owned()),
        hook: Some(hook.to_owned()),
        dry_run: false,
    };
    let refused = ask(order("xdp")).unwrap_err().to_string();
    assert!(refused.contains("another program is attached"), "{refused}");
    ask(order("tcx")).unwrap();
    assert_eq!(
        hook(&place, "wan0").as_deref(),
        Some("xdp"),
        "the first one has it still"
    );

    // Each judges its own port.
    let dropped = |api: &str| {
        let path = std::path::Path::new(api);
        let ask = || patronus_api::Client::connect(path)?.prefilter();
        let counts = place.namespace.run(ask).unwrap().unwrap().counts;
        let found = counts.iter().find(|count| count.reason == "drop_type");
        found.is_some_and(|count| count.packets > 0)
    };
    let gateways = [
        (&mut one, PORT, patronus_api::SOCKET_PATH),
        (&mut two, PORT + 1, "/run/other/patronus.sock"),
    ];
    let reports = gateways.map(|(daemon, port, api)| {
        let attacker = socket(&outside, SocketAddr::new([198, 18, 1, 2].into(), port));
        junk(&attacker, 32);
        until("its junk is dropped", || dropped(api));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_end(PATIENCE);
        daemon.read_raw_report()
    });
    for report in &reports {
        assert_eq!(
            report["packets"]["drops"].get("outer_type"),
            None,
            "{report:#}"
        );
        assert!(
            report["prefilter"]["wan_drop_type"].as_u64() > Some(0),
            "{report:#}"
        );
    }
}

#[test]
fn a_gateway_without_privilege_works_and_says_once_what_is_missing() {
    if !can_filter() || !has("setpriv", "util-linux") {
        return;
    }
    let mut pair = Pair::up(|conf| conf.prefilter = String::new());
    pair.one.signal(Signal::SIGTERM);
    pair.one.wait_end(PATIENCE);
    let run = pair.place_one.run_command();
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-sys_admin,-bpf,-perfmon")
        .arg("--inh-caps=-sys_admin,-bpf,-perfmon");
    command.arg(run.get_program()).args(run.get_args());
    pair.one = pair
        .place_one
        .start_with(&pair.conf_one.interface, &mut command);
    let log = pair.one.log();
    assert_eq!(
        log.matches("no pre-filter; the gateway works").count(),
        1,
        "{log}"
    );
    assert!(log.contains("CAP_PERFMON and CAP_BPF missing"), "{log}");
    pair.reach();
    let shown = prefilter(&pair.place_one, "show");
    assert_eq!(shown.status.code(), Some(3), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("not available: CAP_PERFMON and CAP_BPF missing"),
        "{text}"
    );
    let told = pair.place_one.ask(|client| client.status()).unwrap();
    let summary = told.prefilter.unwrap();
    assert!(
        !summary.is_complete && summary.text.starts_with("not available: "),
        "{summary:?}"
    );
    // Asked for by name, it is a warning; ordered, a refusal.
    let mut conf = pair.conf_one.clone();
    conf.prefilter = filtering("tcx");
    pair.place_one.configure(&conf);
    let refused = prefilter(&pair.place_one, "attach");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    pair.one.reload();
    pair.reach();
    pair.one.stop();
    pair.two.stop();
}

/// A policy that lets site 1's host open nothing but port 443.
const CLOSED: &str = "\
kind: Pod
apiVersion: v1
metadata: {name: one, namespace: lab, labels: {app: one}}
status: {podIPs: [{ip: 10.1.0.2}]}
---
kind: Pod
apiVersion: v1
metadata: {name: two, namespace: lab, labels: {app: two}}
status: {podIPs: [{ip: 10.2.0.2}]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: lab}
spec:
  podSelector: {matchLabels: {app: one}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 443}]}]
";

#[test]
fn policy_in_the_kernel_drops_what_the_workers_would_and_is_counted_by_rule() {
    if !can_filter() {
        return;
    }
    let lan = |on: &str| format!("wan = \"off\"\nlan = \"{on}\"\n");
    let mut pair = Pair::up(|conf| conf.prefilter = lan("auto"));
    pair.reach();
    assert_eq!(hook(&pair.place_one, "site1"), None, "no policy yet");
    pair.place_one.manifest("closed.yaml", CLOSED);
    pair.one.reload();
    let hooks = show(&pair.place_one).hooks;
    let own = hooks.iter().find(|hook| hook.interface == "site1").unwrap();
    assert_eq!(own.side, PrefilterSideView::Lan);
    assert_eq!(own.state, PrefilterStateView::Attached, "{hooks:?}");
    let shown = prefilter(&pair.place_one, "show");
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let denied = |pair: &Pair| {
        let (one, two) = pair.sites();
        let max = Duration::from_secs(1);
        patronus_lab::traffic::reach(&one.host, two.host_addr(Family::V4), max).is_err()
    };
    assert!(denied(&pair));
    let in_kernel = |pair: &Pair| {
        let counts = show(&pair.place_one).counts.into_iter();
        let of_lan = counts.filter(|count| count.side == PrefilterSideView::Lan && count.is_drop);
        of_lan.map(|count| count.packets).sum::<u64>()
    };
    let dropped = in_kernel(&pair);
    assert!(dropped > 0);
    let told = pair.place_one.ask(|client| client.policy()).unwrap();
    let hits = told.rules.iter().filter_map(|rule| rule.hits);
    let packets: u64 = hits.map(|hits| hits.packets).sum();
    assert!(
        packets >= dropped,
        "{packets} by rule, {dropped} in the kernel"
    );
    // The other direction opens connections as ever, and its answers come back.
    let (one, two) = pair.sites();
    patronus_lab::traffic::reach(&two.host, one.host_addr(Family::V4), PATIENCE).unwrap();

    // Without it, and without the policy.
    let mut conf = pair.conf_one.clone();
    conf.prefilter = lan("off");
    pair.place_one.configure(&conf);
    pair.one.reload();
    assert_eq!(hook(&pair.place_one, "site1"), None);
    assert!(denied(&pair));
    pair.place_one.configure(&pair.conf_one);
    pair.place_one.manifest("closed.yaml", "# nothing\n");
    pair.one.reload();
    pair.reach();
    pair.one.stop();
    pair.two.stop();
}
