//! What the tests that need the kernel share: a network namespace each, addresses in it, patience.
#![allow(dead_code)] // every test binary uses some of it

pub mod xsk;

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use patronus_io::{Poller, Token, TunQueue, UdpSocket};
use patronus_packet::{TunFrame, UdpFrame};

/// Runs `body` in a network namespace of its own, with `lo` up, on a thread of its own. Without privilege it
/// runs this one test again in a user namespace; where that is forbidden too it says so and passes, unless
/// `PATRONUS_REQUIRE_ROOT_TESTS=1`.
pub fn in_netns(test: &str, body: impl FnOnce() + Send + 'static) {
    let inside = std::thread::spawn(move || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return false;
        }
        ip("link set lo up");
        body();
        true
    });
    match inside.join() {
        Ok(true) => {}
        Ok(false) => again_in_user_namespace(test),
        Err(panic) => resume_unwind(panic),
    }
}

fn again_in_user_namespace(test: &str) {
    let enter = |args: &[&str]| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--"])
            .args(args)
            .env(INSIDE, "1")
            .status()
            .is_ok_and(|status| status.success())
    };
    assert!(
        std::env::var_os(INSIDE).is_none(),
        "no namespace in a namespace"
    );
    if enter(&["true"]) {
        let program = std::env::current_exe().expect("a test has a program");
        let program = program.to_str().expect("cargo's paths are UTF-8");
        assert!(
            enter(&[program, "--exact", test, "--nocapture"]),
            "{test} failed inside"
        );
    } else {
        skip(test, "neither root nor user namespaces");
    }
}

/// [`in_netns`], where the device of the TUN driver may be opened; skips like it does.
pub fn in_netns_with_tun(test: &str, body: impl FnOnce() + Send + 'static) {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match opened {
        Ok(_) => in_netns(test, body),
        Err(error) => skip(test, &format!("/dev/net/tun: {error}")),
    }
}

/// Says that a test cannot run here, and fails where that is forbidden.
pub fn skip(test: &str, why: &str) {
    let required =
        std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{test} cannot run ({why}), and PATRONUS_REQUIRE_ROOT_TESTS=1 forbids to skip it"
    );
    println!("skipped {test}: {why}");
}

/// `ip` of iproute2, in the namespace of the calling thread.
pub fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    let status = status.expect("these tests need iproute2");
    assert!(status.success(), "ip {args}");
}

/// Adds an IPv6 address to an interface that is up, and waits until the kernel takes packets for it: it makes
/// the local route in a work queue.
pub fn add_v6(address: &str, prefix_len: u8, device: &str) {
    ip(&format!(
        "-6 addr add {address}/{prefix_len} dev {device} nodad"
    ));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes = Command::new("ip")
            .args(["-6", "route", "show", "table", "local"])
            .output();
        let routes = routes.expect("these tests need iproute2").stdout;
        if String::from_utf8_lossy(&routes).contains(&format!("local {address} dev {device}")) {
            return;
        }
        assert!(Instant::now() < deadline, "{address} never came up");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads until a frame is there that `wanted` accepts; passes over the kernel's own chatter.
pub fn recv_tun(queue: &mut dyn TunQueue, wanted: impl Fn(&TunFrame) -> bool) -> TunFrame {
    let mut poller = Poller::new().expect("a poller");
    poller
        .register(queue.as_fd(), Token(0))
        .expect("registered");
    let mut frame = TunFrame::default();
    let deadline = Instant::now() + PATIENCE;
    loop {
        while queue.recv(&mut frame).expect("the interface is up") {
            if wanted(&frame) {
                return frame;
            }
        }
        assert!(Instant::now() < deadline, "no such frame came");
        poller
            .wait(Some(Duration::from_millis(100)))
            .expect("waited")
            .count();
    }
}

/// Reads frames until they hold `datagrams` datagrams, and gives them one by one with their frame's number.
pub fn recv_datagrams(socket: &mut UdpSocket, datagrams: usize) -> (Vec<UdpFrame>, Vec<Vec<u8>>) {
    let mut poller = Poller::new().expect("a poller");
    poller
        .register(socket.as_fd(), Token(0))
        .expect("registered");
    let mut kept = Vec::new();
    let mut payloads = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while payloads.len() < datagrams {
        let mut frames: Vec<UdpFrame> = (0..4).map(|_| UdpFrame::default()).collect();
        let filled = socket.recv(&mut frames).expect("received");
        frames.truncate(filled);
        for frame in &frames {
            match frame.buf.is_empty() {
                true => payloads.push(Vec::new()),
                false => payloads.extend(frame.datagrams().map(<[u8]>::to_vec)),
            }
        }
        kept.extend(frames);
        if filled == 0 {
            assert!(
                Instant::now() < deadline,
                "{} of {datagrams} came",
                payloads.len()
            );
            poller
                .wait(Some(Duration::from_millis(100)))
                .expect("waited")
                .count();
        }
    }
    (kept, payloads)
}

/// Whether nothing waits on `socket`, and nothing comes in a moment.
pub fn is_silent(socket: &mut UdpSocket) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    socket.recv(&mut [UdpFrame::default()]).expect("received") == 0
}

/// Long enough for a loaded machine; a test that passes never waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
const INSIDE: &str = "PATRONUS_TEST_INSIDE_USER_NAMESPACE";
