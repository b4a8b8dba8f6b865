//! The LAN program on a real TUN in a network namespace that the test makes and that goes with its thread.
//! Needs privilege; without it, one line says so.
#![expect(unsafe_code, reason = "ioctl takes a union of C")]

mod lan_support;

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lan_support::{options, privileged};
use nix::sched::{CloneFlags, unshare};
use patronus_ebpf::lan::{
    LanDirection, LanError, LanFilter, LanLayer, LanReason, LanSubject, LanTables,
};
use patronus_ebpf::{Hook, Support};

const TUN: &str = "lan0";
/// Whom nobody may reach, and who may reach nobody.
const SHUT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OPEN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

/// Runs a test in a namespace of its own, with a TUN in it.
fn in_namespace(test: impl FnOnce(&mut File) + Send) {
    if !privileged() {
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            let mut tun = open_tun();
            ip(&["addr", "add", "10.0.0.1/24", "dev", TUN]);
            ip(&["link", "set", TUN, "up"]);
            test(&mut tun);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn open_tun() -> File {
    let tun = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("/dev/net/tun");
    // SAFETY: an `ifreq` is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = CString::new(TUN).expect("a name");
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes_with_nul()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and `TUNSETIFF` reads and writes one `ifreq`.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    assert_eq!(result, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    tun
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("ip runs");
    assert!(status.success(), "ip {words:?}");
}

/// The IPv4 destinations of what the kernel has sent into the TUN; what it sends for itself over IPv6 is left out.
fn sent(tun: &mut File) -> Vec<Ipv4Addr> {
    let (mut found, mut packet) = (Vec::new(), [0; 4096]);
    loop {
        match tun.read(&mut packet) {
            Ok(len) if len >= 20 && packet[0] >> 4 == 4 => {
                found.push(Ipv4Addr::new(
                    packet[16], packet[17], packet[18], packet[19],
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return found,
            Err(error) => panic!("reading the TUN: {error}"),
        }
    }
}

/// Its traffic is denied both ways, so that no packet of it can be a reply.
fn shut_both_ways() -> LanTables {
    let mut tables = lan_support::shut();
    tables.subjects.push(LanSubject {
        class: 0,
        direction: LanDirection::Egress,
        layer: LanLayer::Network,
        row: 0,
    });
    tables
}

fn socket() -> UdpSocket {
    UdpSocket::bind("10.0.0.1:0").expect("a socket")
}

fn send(socket: &UdpSocket, to: Ipv4Addr) {
    // A drop at the hook may be told to the sender, or not.
    let _ = socket.send_to(b"x", (to, 443));
}

fn hooks() -> Vec<Hook> {
    let support = Support::probe();
    let both = [Hook::Tcx, Hook::Clsact].into_iter();
    both.filter(|hook| support.has(*hook).is_ok()).collect()
}

#[test]
fn what_policy_denies_does_not_reach_the_tun_and_all_else_does() {
    in_namespace(|tun| {
        for hook in hooks() {
            let mut filter = LanFilter::load(options()).expect("the program loads");
            filter.attach(TUN, hook).expect("attached");
            assert_eq!(filter.attachment().map(|it| it.hook()), Some(hook));
            let socket = socket();
            send(&socket, SHUT);
            assert_eq!(
                sent(tun),
                [SHUT],
                "{hook}: without policy everything passes"
            );
            filter.publish(&shut_both_ways()).expect("published");
            for to in [SHUT, OPEN, SHUT] {
                send(&socket, to);
            }
            assert_eq!(sent(tun), [OPEN], "{hook}");
            let stats = filter.stats().expect("stats");
            assert_eq!(stats.reasons[&LanReason::Denied].packets, 2);
            // IP and UDP headers and one byte, twice; no Ethernet header.
            assert_eq!(stats.reasons[&LanReason::Denied].bytes, 2 * 29);
            assert_eq!(stats.rules[&5], stats.reasons[&LanReason::Denied]);
            filter.detach();
            send(&socket, SHUT);
            assert_eq!(sent(tun), [SHUT], "{hook}: detached");
            filter.attach(TUN, hook).expect("attached again");
            send(&socket, SHUT);
            assert_eq!(sent(tun), [] as [Ipv4Addr; 0], "{hook}");
            drop(filter);
            send(&socket, SHUT);
            assert_eq!(sent(tun), [SHUT], "{hook}: dropped");
        }
    });
}

#[test]
fn a_superpacket_counts_its_segments() {
    in_namespace(|tun| {
        let mut filter = LanFilter::load(options()).expect("the program loads");
        filter.publish(&shut_both_ways()).expect("published");
        filter
            .attach(TUN, LanFilter::choose_hook())
            .expect("attached");
        let socket = socket();
        let segment: libc::c_int = 1000;
        // SAFETY: the descriptor is open, and the option is one `int`.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const segment).cast(),
                size_of_val(&segment) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "UDP_SEGMENT");
        let outcome = socket.send_to(&[7; 2500], (SHUT, 443));
        if let Err(error) = outcome
            && error.raw_os_error() == Some(libc::EIO)
        {
            println!("this kernel makes no superpackets for a TUN without offloads: {error}");
            return;
        }
        assert_eq!(sent(tun), [] as [Ipv4Addr; 0]);
        let denied = filter.stats().expect("stats").reasons[&LanReason::Denied];
        assert_eq!(denied.packets, 3, "{denied:?}");
    });
}

/// Policies change under traffic, and maps grow; what both policies deny never gets through, not even for a moment.
#[test]
fn a_reload_leaves_no_gap() {
    in_namespace(|tun| {
        if Support::probe().has(Hook::Tcx).is_err() {
            println!("skipped: without tcx the new program comes after the old one is gone");
            return;
        }
        let mut filter = LanFilter::load(options()).expect("the program loads");
        let (one, mut other) = (shut_both_ways(), shut_both_ways());
        other.rows[0].isolation = 6;
        filter.publish(&one).expect("published");
        filter.attach(TUN, Hook::Tcx).expect("attached");
        let (done, attempts) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            // Threads have the namespace of who made them.
            scope.spawn(|| {
                let socket = socket();
                while !done.load(Ordering::Relaxed) {
                    send(&socket, SHUT);
                    attempts.fetch_add(1, Ordering::Relaxed);
                }
            });
            for turn in 0..60 {
                let mut tables = if turn % 2 == 0 {
                    other.clone()
                } else {
                    one.clone()
                };
                if turn % 20 == 19 {
                    lan_support::bloat(&mut tables, turn / 20 + 1);
                }
                filter.publish(&tables).expect("published");
                if sent(tun).contains(&SHUT) {
                    done.store(true, Ordering::Relaxed);
                    panic!("a packet got through at turn {turn}");
                }
            }
            // Both policies had their share.
            while attempts.load(Ordering::Relaxed) < 100 {
                std::thread::yield_now();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(!sent(tun).contains(&SHUT));
        let stats = filter.stats().expect("stats");
        let denied = stats.reasons[&LanReason::Denied].packets;
        // Two programs see a packet while the maps grow.
        assert!(denied + stats.reasons[&LanReason::Changed].packets >= attempts.into_inner());
        assert_eq!(
            stats.rules.values().map(|it| it.packets).sum::<u64>(),
            denied
        );
    });
}

#[test]
fn it_belongs_on_a_tun_and_on_the_way_out() {
    in_namespace(|_| {
        let mut filter = LanFilter::load(options()).expect("the program loads");
        let error = filter
            .attach("lo", Hook::Tcx)
            .expect_err("Ethernet headers");
        assert!(matches!(error, LanError::Ethernet { .. }), "{error}");
        let error = filter.attach(TUN, Hook::XdpNative).expect_err("no way out");
        assert!(error.to_string().contains("tcx or clsact"), "{error}");
        let error = filter
            .attach("nothing0", Hook::Tcx)
            .expect_err("no interface");
        assert!(error.to_string().contains("nothing0"), "{error}");
        assert!(filter.attachment().is_none());
    });
}
