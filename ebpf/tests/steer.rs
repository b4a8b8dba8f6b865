//! Steering by receiver index: exact, also after a worker's socket was opened again; and what it costs beside the
//! classic program.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::frames::{message, message_for};
use common::{can_load, counted_cpu};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use patronus_ebpf::Steering;

/// A socket that shares `addr`'s port with others.
fn shared(addr: SocketAddr) -> UdpSocket {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
    setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr)).unwrap();
    UdpSocket::from(fd)
}

/// `count` sockets on one free port of the loopback.
fn group(count: usize) -> Vec<UdpSocket> {
    let first = shared(([127, 0, 0, 1], 0).into());
    let addr = first.local_addr().unwrap();
    std::iter::once(first)
        .chain((1..count).map(|_| shared(addr)))
        .collect()
}

/// The bytes that name the worker, of all datagrams that arrived at each socket, once there are `count` in all.
fn workers_at(sockets: &[UdpSocket], count: usize) -> Vec<Vec<u8>> {
    let mut workers = vec![Vec::new(); sockets.len()];
    let start = Instant::now();
    while workers.iter().map(Vec::len).sum::<usize>() < count {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "never: {workers:?}"
        );
        for (socket, workers) in sockets.iter().zip(&mut workers) {
            socket
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            let mut buffer = [0; 200];
            match socket.recv(&mut buffer) {
                Ok(_) => workers.push(buffer[if buffer[0] == 2 { 9 } else { 5 }]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    workers
}

fn send_all(to: SocketAddr) {
    // One sender: without steering, all of it would go to one socket.
    let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    for receiver in 0..10u32 {
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 96)] {
            sender
                .send_to(&message_for(kind, len, receiver), to)
                .unwrap();
        }
    }
}

#[test]
fn every_worker_gets_its_own() {
    if !can_load() {
        return;
    }
    let mut sockets = group(3);
    let addr = sockets[0].local_addr().unwrap();
    let mut steering = Steering::load(3).unwrap();
    for (worker, socket) in (0..).zip(&sockets) {
        steering.set_socket(worker, socket.as_fd()).unwrap();
    }
    steering.attach(sockets[0].as_fd()).unwrap();
    let check = |sockets: &[UdpSocket]| {
        send_all(addr);
        for (worker, got) in (0..).zip(workers_at(sockets, 40)) {
            assert_eq!(
                got.len(),
                if worker == 0 { 16 } else { 12 },
                "{worker}: {got:?}"
            );
            assert!(
                got.iter().all(|byte| byte % 3 == worker),
                "{worker}: {got:?}"
            );
        }
    };
    check(&sockets);
    // The classic program would give worker 1's datagrams to worker 2 now.
    sockets[1] = {
        let again = shared(addr);
        steering.set_socket(1, again.as_fd()).unwrap();
        again
    };
    check(&sockets);
    // What names no worker arrives somewhere.
    let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    for len in [0, 1, 4, 5] {
        sender.send_to(&message(4, len), addr).unwrap();
    }
    workers_at(&sockets, 4);
}

#[test]
fn what_cannot_be_steered_to_is_refused() {
    for workers in [0, 257] {
        let error = Steering::load(workers).unwrap_err().to_string();
        assert!(error.contains("1 to 256"), "{error}");
    }
    if !can_load() {
        return;
    }
    let mut steering = Steering::load(2).unwrap();
    let error = steering.set_socket(2, group(1)[0].as_fd()).unwrap_err();
    assert!(error.to_string().contains("no worker 2"), "{error}");
    let alone = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    assert!(steering.set_socket(0, alone.as_fd()).is_err());
}

/// The cost of one datagram over the loopback by CPU time of its sender, in whose call the program runs. A report, by
/// hand: `cargo test -p patronus-ebpf --release --test steer -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn the_cost_beside_the_classic_program() {
    assert!(can_load());
    let plain = group(2);
    let classic = group(2);
    patronus_io::steer::attach(classic[0].as_fd(), 2).unwrap();
    let steered = group(2);
    let mut steering = Steering::load(2).unwrap();
    for (worker, socket) in (0..).zip(&steered) {
        steering.set_socket(worker, socket.as_fd()).unwrap();
    }
    steering.attach(steered[0].as_fd()).unwrap();
    let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let data = message_for(4, 96, 1);
    for round in 0..5 {
        for (name, sockets) in [
            ("hash", &plain),
            ("classic", &classic),
            ("sk_reuseport", &steered),
        ] {
            let to = sockets[0].local_addr().unwrap();
            let ns = counted_cpu(200_000, || {
                sender.send_to(&data, to).unwrap();
            });
            println!("round {round}: {name} {ns} ns");
        }
    }
}
