//! Steering of WireGuard messages to the socket of the worker that their index names.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::AsFd;

use common::{is_silent, recv_datagrams};
use patronus_io::{UdpOptions, UdpSocket, steer};

/// A group of sockets on one port, in the order of their workers.
fn group(addr: &str, workers: usize) -> Vec<UdpSocket> {
    let options = UdpOptions {
        reuse_port: true,
        ..UdpOptions::default()
    };
    let first = UdpSocket::bind(addr.parse().unwrap(), &options).unwrap();
    let addr = first.local_addr();
    let mut sockets = vec![first];
    sockets.resize_with(workers, || UdpSocket::bind(addr, &options).unwrap());
    sockets
}

/// A message as long as its type says, with the worker's number where its index has it.
fn message(kind: u8, worker_byte: u8) -> Vec<u8> {
    let (len, worker_at) = match kind {
        1 => (148, 5),
        2 => (92, 9),
        3 => (64, 5),
        _ => (96, 5),
    };
    let mut message = vec![0xee; len];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[worker_at] = worker_byte;
    message
}

#[test]
fn every_message_reaches_the_worker_its_index_names() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        for workers in 1..=4 {
            let mut sockets = group(addr, workers);
            steer::attach(sockets[0].as_fd(), workers).unwrap();
            let sender = std::net::UdpSocket::bind(addr).unwrap();
            for kind in 1..=4 {
                for worker_byte in [0, 1, 2, 3, 4, 5, 6, 7, 127, 128, 255] {
                    let message = message(kind, worker_byte);
                    sender.send_to(&message, sockets[0].local_addr()).unwrap();
                    let owner = usize::from(worker_byte) % workers;
                    let received = recv_datagrams(&mut sockets[owner], 1).1;
                    assert_eq!(
                        received,
                        [message],
                        "type {kind}, byte {worker_byte}, {workers} workers"
                    );
                }
            }
            for socket in &mut sockets {
                assert!(is_silent(socket), "each message arrived once");
            }
        }
    }
}

#[test]
fn messages_too_short_for_an_index_go_to_worker_zero() {
    let mut sockets = group("127.0.0.1:0", 3);
    // On any socket of the group, not the first alone.
    steer::attach(sockets[2].as_fd(), 3).unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for short in [
        &[][..],
        &[4],
        &[4, 0, 0, 0, 1],
        &[2, 0, 0, 0, 1, 1, 1, 1, 1],
    ] {
        sender.send_to(short, sockets[0].local_addr()).unwrap();
        assert_eq!(recv_datagrams(&mut sockets[0], 1).1, [short]);
    }
}

#[test]
fn a_socket_without_a_group_and_a_number_without_sense_are_refused() {
    let lone = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
    let einval = Some(nix::errno::Errno::EINVAL as i32);
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    assert_eq!(errno(steer::attach(lone.as_fd(), 2)), einval);
    let sockets = group("127.0.0.1:0", 1);
    assert_eq!(errno(steer::attach(sockets[0].as_fd(), 0)), einval);
    assert_eq!(errno(steer::attach(sockets[0].as_fd(), 257)), einval);
}
