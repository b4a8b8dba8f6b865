//! The program at work on a veth pair: every hook, frames of the wire, changes meanwhile, and what is left when it
//! ends, however it ends. Root and a namespace for each test.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::Read;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use common::frames::*;
use common::net::{Wire, in_pair, ip, mac, run, with_capabilities};
use common::{can_load, skip};
use nix::sys::socket::{setsockopt, sockopt};
use patronus_ebpf::{
    AttachError, Attachment, Hook, InitiationLimit, Interface, LoadError, SourceVerdict, Sources,
    Support, WanConfig, WanFilter, WanReason,
};

use WanReason::*;

fn config() -> WanConfig {
    WanConfig {
        ports: vec![PORT],
        ..WanConfig::default()
    }
}

/// A frame from the other end, for `wb`.
fn to_wb(source: &str, payload: Vec<u8>) -> Vec<u8> {
    let mut addresses = mac("wb").to_vec();
    addresses.extend(mac("wa"));
    packet(source, payload)
        .with(|packet| packet.mac.copy_from_slice(&addresses))
        .build()
}

/// Whether anything is attached to `wb` at a hook, as the kernel tells.
fn is_attached(hook: Hook) -> bool {
    match hook {
        Hook::XdpNative | Hook::XdpGeneric => ip("-d link show wb").contains("prog/xdp"),
        Hook::Tcx => {
            let (_, programs) = SchedClassifier::query_tcx("wb", TcAttachType::Ingress).unwrap();
            !programs.is_empty()
        }
        Hook::Clsact => run("tc", "filter show dev wb ingress").contains("wan_tc"),
    }
}

/// Waits for what the kernel does soon: links end a moment after their descriptor.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Junk is dropped before the socket, a good message arrives.
fn assert_filters(filter: &WanFilter) {
    let socket = UdpSocket::bind(("10.9.0.1", PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let before = filter.stats().unwrap();
    let wire = Wire::new("wa");
    let bad = to_wb("10.9.0.2", junk(64));
    let good = to_wb("10.9.0.2", data(96));
    for _ in 0..20 {
        wire.send(&bad);
    }
    wire.send(&good);
    let mut buffer = [0; 2000];
    let (len, _) = socket
        .recv_from(&mut buffer)
        .expect("the good message arrives");
    assert_eq!(buffer[..len], data(96), "and first of all");
    wait_until("all are counted", || {
        let now = filter.stats().unwrap();
        let more = |reason| now.of(reason).packets - before.of(reason).packets;
        (more(DropType), more(PassData)) == (20, 1) && now.adds_up()
    });
}

/// Junk passes: nothing filters any more.
fn assert_open() {
    let socket = UdpSocket::bind(("10.9.0.1", PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let wire = Wire::new("wa");
    let bad = to_wb("10.9.0.2", junk(64));
    wait_until("junk arrives", || {
        wire.send(&bad);
        socket.recv_from(&mut [0; 100]).is_ok()
    });
}

#[test]
fn every_hook_filters_until_it_is_detached() {
    in_pair(|| {
        for hook in Hook::ALL {
            let mut filter = WanFilter::load(&config()).unwrap();
            let attachment = filter.attach("wb", hook).unwrap();
            assert_eq!((attachment.interface(), attachment.hook()), ("wb", hook));
            assert_eq!(
                attachment.dies_with_the_process(),
                hook.dies_with_the_process()
            );
            assert!(is_attached(hook), "{hook}");
            assert_filters(&filter);
            attachment.detach();
            wait_until("it is gone", || !is_attached(hook));
            assert_open();
            // Again, and dropped with all else.
            let attachment = filter.attach("wb", hook).unwrap();
            assert_filters(&filter);
            drop((filter, attachment));
            wait_until("it is gone", || !is_attached(hook));
        }
    });
}

#[test]
fn the_filter_may_end_before_its_attachment() {
    in_pair(|| {
        let attachment: Attachment = {
            let mut filter = WanFilter::load(&config()).unwrap();
            filter.attach("wb", Hook::Tcx).unwrap()
        };
        assert!(is_attached(Hook::Tcx));
        drop(attachment);
        wait_until("it is gone", || !is_attached(Hook::Tcx));
    });
}

#[test]
fn a_second_xdp_program_is_refused_and_tcx_takes_any_number() {
    in_pair(|| {
        let mut one = WanFilter::load(&config()).unwrap();
        let mut two = WanFilter::load(&config()).unwrap();
        let xdp = one.attach("wb", Hook::XdpNative).unwrap();
        for hook in [Hook::XdpNative, Hook::XdpGeneric] {
            let error = two.attach("wb", hook).unwrap_err();
            assert!(matches!(error, AttachError::Busy { .. }), "{error}");
            assert!(error.to_string().contains("ip link show wb"), "{error}");
        }
        // A program at two hooks of one interface would count each frame twice.
        xdp.detach();
        let _first = one.attach("wb", Hook::Tcx).unwrap();
        let _second = two.attach("wb", Hook::Tcx).unwrap();
        // The newest is asked first.
        assert_filters(&two);
    });
}

#[test]
fn errors_name_the_interface_and_the_fix() {
    in_pair(|| {
        let mut filter = WanFilter::load(&config()).unwrap();
        let error = filter.attach("nope", Hook::Tcx).unwrap_err().to_string();
        assert!(error.contains("no interface `nope`"), "{error}");
        if !std::path::Path::new("/dev/net/tun").exists() {
            skip("there is no /dev/net/tun: modprobe tun");
            return;
        }
        ip("tuntap add dev t0 mode tun");
        let t0 = Interface::find("t0").unwrap();
        assert_eq!(t0.layer, patronus_ebpf::LinkLayer::Ip);
        let error = filter
            .attach("t0", Hook::XdpNative)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Ethernet") && error.contains("tcx"),
            "{error}"
        );
        // Traffic control begins at the IP header there.
        let attachment = filter.attach("t0", Hook::Tcx).unwrap();
        assert_eq!(attachment.index(), t0.index);
    });
}

#[test]
fn a_veth_gets_tcx_and_says_why() {
    in_pair(|| {
        let choice = Hook::choose("wb").unwrap();
        let wanted = match Support::probe().has(Hook::Tcx) {
            Ok(()) => Hook::Tcx,
            Err(_) => Hook::Clsact,
        };
        assert_eq!(choice.hook, wanted);
        assert!(choice.why.contains("GSO"), "{}", choice.why);
        let wb = Interface::find("wb").unwrap();
        assert_eq!(wb.driver.as_deref(), Some("veth"));
        if let Some(xdp) = wb.xdp {
            assert!(xdp.native, "veth has native XDP");
        }
    });
}

#[test]
fn native_xdp_takes_large_frames() {
    in_pair(|| {
        for end in ["wa", "wb"] {
            ip(&format!("link set {end} mtu 9000"));
        }
        let mut filter = WanFilter::load(&config()).unwrap();
        let _attachment = filter.attach("wb", Hook::XdpNative).unwrap();
        let wire = Wire::new("wa");
        wire.send(&to_wb("10.9.0.2", junk(8800)));
        wire.send(&to_wb("10.9.0.2", data(8800)));
        wait_until("both are counted", || {
            let stats = filter.stats().unwrap();
            stats.of(DropType).packets == 1 && stats.of(PassData).packets == 1
        });
        assert!(filter.stats().unwrap().of(PassData).bytes >= 8800);
    });
}

#[test]
fn a_list_is_replaced_without_a_gap() {
    in_pair(|| {
        let blocked = |more: u32| {
            let mut sources = Sources::new();
            sources.extend(["10.9.0.0/24".parse().unwrap()], SourceVerdict::Blocked);
            let others = (0..more).map(|n| {
                format!("{}.{}.0.0/16", 20 + n / 256, n % 256)
                    .parse()
                    .unwrap()
            });
            sources.extend(others, SourceVerdict::Blocked);
            sources
        };
        let mut start = config();
        start.sources = blocked(0);
        let mut filter = WanFilter::load(&start).unwrap();
        let _attachment = filter.attach("wb", Hook::Tcx).unwrap();
        let good = to_wb("10.9.0.2", data(64));
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let wire = Wire::new("wa");
            scope.spawn(move || {
                let end = std::sync::mpsc::TryRecvError::Disconnected;
                while stopped.try_recv() != Err(end) {
                    wire.send(&good);
                }
            });
            for round in 0..40 {
                filter.set_sources(&blocked(round % 2 * 2000)).unwrap();
            }
            drop(stop);
        });
        let stats = filter.stats().unwrap();
        // IPv6's own chatter may pass.
        assert_eq!(stats.of(PassData).packets, 0, "{stats:?}");
        assert!(stats.of(DropBlocked).packets > 0, "{stats:?}");
        println!(
            "{} dropped over 40 replacements",
            stats.of(DropBlocked).packets
        );
    });
}

/// The kernel's own trains (`UDP_SEGMENT`): marked, and their payload not in the frame's first piece.
#[test]
fn trains_are_judged_whole() {
    in_pair(|| {
        let mut limited = config();
        limited.limit = Some(InitiationLimit {
            per_second: 1,
            burst: 100,
            v4_len: 24,
            v6_len: 64,
        });
        let mut filter = WanFilter::load(&limited).unwrap();
        let _attachment = filter.attach("lo", Hook::Tcx).unwrap();
        let receiver = UdpSocket::bind(("127.0.0.1", PORT)).unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let mut last = filter.stats().unwrap();
        let mut send = |segment: i32, datagrams: &[Vec<u8>], want: WanReason| {
            setsockopt(&sender, sockopt::UdpGsoSegment, &segment).unwrap();
            sender
                .send_to(&datagrams.concat(), ("127.0.0.1", PORT))
                .unwrap();
            let mut buffer = [0; 2000];
            if !want.is_drop() {
                for datagram in datagrams {
                    let (len, _) = receiver.recv_from(&mut buffer).unwrap();
                    assert_eq!(&buffer[..len], datagram);
                }
            }
            let now = filter.stats().unwrap();
            assert_eq!(
                now.of(want).packets,
                last.of(want).packets + 1,
                "{want:?} {now:?}"
            );
            assert_eq!(
                now.seen.packets,
                last.seen.packets + 1,
                "a train is one frame"
            );
            last = now;
        };
        let many = |datagram: Vec<u8>, n: usize| vec![datagram; n];
        send(1400, &many(data(1400), 20), PassData);
        send(1400, &many(junk(1400), 20), DropType);
        send(1400, &many(message(1, 1400), 20), DropLength);
        send(200, &[junk(200), junk(200), data(96)], PassMixed);
        send(200, &[data(200), junk(200), junk(96)], PassData);
        send(92, &many(message(2, 92), 30), PassResponse);
        send(148, &many(initiation(), 60), PassInitiation);
        send(148, &many(initiation(), 60), PassInitiation);
        send(148, &many(initiation(), 60), DropLimited);
        send(200, &[data(200), initiation()], DropLimited);
        send(200, &[data(200), data(200)], PassData);
    });
}

/// The other half of the next test: holds the program until it is killed.
#[test]
fn holder() {
    let Ok(hook) = std::env::var(HOLD) else {
        return;
    };
    let mut filter = WanFilter::load(&config()).unwrap();
    let _attachment = filter.attach("wb", hook.parse().unwrap()).unwrap();
    // Until the other half kills it, or has failed.
    let _ = std::io::stdin().read(&mut [0]);
}

const HOLD: &str = "PATRONUS_TEST_HOLD";

#[test]
fn a_killed_process_leaves_nothing_attached() {
    in_pair(|| {
        for hook in Hook::ALL {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "holder"])
                .env(HOLD, hook.as_str())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            wait_until("it is attached", || {
                assert_eq!(
                    child.try_wait().unwrap(),
                    None,
                    "the holder at {hook} ended"
                );
                is_attached(hook)
            });
            child.kill().unwrap();
            child.wait().unwrap();
            if hook.dies_with_the_process() {
                wait_until("it is gone", || !is_attached(hook));
                assert_open();
                continue;
            }
            // A filter stays; the next one takes its place and takes itself away.
            assert!(is_attached(hook));
            let mut filter = WanFilter::load(&config()).unwrap();
            let attachment = filter.attach("wb", hook).unwrap();
            let filters = run("tc", "filter show dev wb ingress");
            assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
            attachment.detach();
            wait_until("it is gone", || !is_attached(hook));
        }
    });
}

#[test]
fn what_is_not_permitted_is_said_with_the_capability() {
    if !can_load() {
        return;
    }
    const NET_ADMIN: u64 = 1 << 12;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let refusal = |keep| {
        with_capabilities(keep, || match WanFilter::load(&config()) {
            Err(LoadError::NotPermitted { why }) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("loaded with capabilities {keep:x}"),
        })
    };
    let why = refusal(0);
    assert!(
        why.contains("CAP_NET_ADMIN and CAP_PERFMON and CAP_BPF missing"),
        "{why}"
    );
    assert!(why.contains("AmbientCapabilities="), "{why}");
    let why = refusal(NET_ADMIN | BPF);
    assert!(why.starts_with("CAP_PERFMON missing"), "{why}");
    let why = refusal(NET_ADMIN | PERFMON);
    assert!(why.starts_with("CAP_BPF missing"), "{why}");
    // These three are enough.
    with_capabilities(NET_ADMIN | PERFMON | BPF, || {
        WanFilter::load(&config()).map(drop).unwrap();
    });
}

#[test]
fn attaching_without_the_right_is_said_too() {
    in_pair(|| {
        let mut filter = WanFilter::load(&config()).unwrap();
        let refused = with_capabilities(1 << 38 | 1 << 39, || filter.attach("wb", Hook::Tcx));
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    });
}

#[test]
fn skipping_is_forbidden_where_ci_says_so() {
    if std::env::var("PATRONUS_REQUIRE_ROOT_TESTS").as_deref() == Ok("1") {
        let refused = std::panic::catch_unwind(|| skip("a trial"));
        assert!(refused.is_err());
    }
}
