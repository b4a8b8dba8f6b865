//! TUN queues against the kernel's own TCP, UDP and ICMP, in namespaces of their own.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{add_v6, in_netns_with_tun as in_netns, ip, recv_datagrams, recv_tun};
use patronus_io::tun::{open, open_with};
use patronus_io::{
    Backend, Poller, Token, TunDevice, TunError, TunFault, TunOffload, TunQueue, UdpOptions,
    UdpSocket,
};
use patronus_packet::{
    Cutter, Endpoint, GsoKind, IpVersion, Joining, Padding, TunBatch, TunFrame, UdpBatch, checksum,
    parse,
};

const MTU: usize = 1420;
/// Ours, and one behind the TUN.
const V4: (&str, &str) = ("10.9.0.1", "10.9.0.2");
const V6: (&str, &str) = ("fd09::1", "fd09::2");

/// Opens `tun0` when the one of before is gone: a process that another test is starting may hold its
/// descriptors for a moment, between fork and exec.
fn reopen(queues: usize, want: TunOffload, backend: Backend) -> TunDevice {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match open_with("tun0", queues, want, backend) {
            Err(TunError::NameTaken { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome.unwrap(),
        }
    }
}

/// Opens `tun0` and gives it addresses.
fn up(queues: usize, want: TunOffload, backend: Backend) -> TunDevice {
    let device = reopen(queues, want, backend);
    ip("addr add 10.9.0.1/24 dev tun0");
    ip(&format!("link set tun0 up mtu {MTU}"));
    add_v6("fd09::1", 64, "tun0");
    device
}

fn joining(offload: TunOffload) -> Joining {
    Joining {
        tcp: offload.vnet,
        udp: offload.uso,
    }
}

/// Sends packets back with source and destination address exchanged, so that the kernel talks to itself
/// through the TUN. The sums do not change by that.
struct Mirror {
    batch: TunBatch,
    /// Kinds of what was read, and the most packets joined into one write.
    seen: Vec<GsoKind>,
    longest_read: usize,
    joined_max: u32,
}

impl Mirror {
    fn new(offload: TunOffload) -> Self {
        Self {
            batch: TunBatch::new(1 << 20, joining(offload)),
            seen: Vec::new(),
            longest_read: 0,
            joined_max: 0,
        }
    }

    /// Turns one frame back, cut by us and joined by us as a gateway's two ends would do.
    fn reflect(&mut self, frame: &mut TunFrame) {
        let Ok(info) = parse(frame.buf.data()) else {
            return;
        };
        self.seen.push(frame.vnet.gso_kind().unwrap());
        self.longest_read = self.longest_read.max(frame.buf.len());
        let mut cutter = Cutter::new(frame, &info).unwrap();
        while let Some(segment) = cutter.next_segment(Padding { mtu: MTU }) {
            let len = segment.packet_len;
            let packet = &mut self.batch.room()[..len];
            packet.copy_from_slice(&segment.padded[..len]);
            exchange_addresses(packet);
            let info = parse(packet).unwrap();
            self.batch.commit(len, &info);
        }
    }

    /// Writes what was reflected.
    fn flush(&mut self, queue: &mut dyn TunQueue) {
        self.batch.finish();
        for write in self.batch.writes() {
            self.joined_max = self.joined_max.max(write.packets);
            queue.send(&write).unwrap();
        }
        self.batch.clear();
    }

    /// Reflects until `done` says so.
    fn run(&mut self, queue: &mut dyn TunQueue, mut done: impl FnMut() -> bool) {
        let mut poller = Poller::new().unwrap();
        poller.register(queue.as_fd(), Token(0)).unwrap();
        let mut frame = TunFrame::default();
        while !done() {
            while queue.recv(&mut frame).unwrap() {
                self.reflect(&mut frame);
                if self.batch.free() < 200_000 {
                    self.flush(queue);
                }
            }
            self.flush(queue);
            poller.wait(Some(Duration::from_millis(5))).unwrap().count();
        }
    }
}

fn exchange_addresses(packet: &mut [u8]) {
    let (start, len) = match packet[0] >> 4 {
        4 => (12, 4),
        _ => (8, 16),
    };
    let (src, dst) = packet[start..start + 2 * len].split_at_mut(len);
    src.swap_with_slice(dst);
}

/// The kernel sends itself `len` bytes by TCP through `queue`.
fn carry_tcp(queue: &mut dyn TunQueue, ends: (&str, &str), len: usize) -> Mirror {
    let mut mirror = Mirror::new(queue.offload());
    let listener = TcpListener::bind((ends.0, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = ends.1.to_owned();
    let sent: Vec<u8> = (0..len).map(|at| ((at * at) >> 7) as u8).collect();
    let expected = sent.clone();
    // Both threads are children of this one, and so in its namespace.
    let sender = std::thread::spawn(move || {
        TcpStream::connect((peer, port))
            .unwrap()
            .write_all(&sent)
            .unwrap();
    });
    let receiver = std::thread::spawn(move || {
        let mut received = Vec::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_end(&mut received)
            .unwrap();
        received
    });
    mirror.run(queue, || receiver.is_finished());
    sender.join().unwrap();
    assert!(receiver.join().unwrap() == expected, "the bytes differ");
    mirror
}

/// An ICMP echo request from beyond the TUN.
fn ping() -> Vec<u8> {
    let mut packet = vec![0; 28 + 40];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 68]);
    packet[8..12].copy_from_slice(&[64, 1, 0, 0]);
    packet[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
    packet[20] = 8;
    packet[24..28].copy_from_slice(&[0x12, 0x34, 0, 1]);
    packet[28..].fill(0xa5);
    let icmp_sum = checksum::sum(&packet[20..]).finish();
    packet[22..24].copy_from_slice(&icmp_sum.to_be_bytes());
    finish_ipv4(packet)
}

/// A UDP datagram from beyond the TUN, without a checksum, as IPv4 allows.
fn datagram(src_port: u16, dst_port: u16) -> Vec<u8> {
    let mut packet = vec![0; 28 + 4];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 32]);
    packet[8..12].copy_from_slice(&[64, 17, 0, 0]);
    packet[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
    packet[20..22].copy_from_slice(&src_port.to_be_bytes());
    packet[22..24].copy_from_slice(&dst_port.to_be_bytes());
    packet[25] = 12;
    finish_ipv4(packet)
}

fn finish_ipv4(mut packet: Vec<u8>) -> Vec<u8> {
    let sum = checksum::sum(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn write_packet(queue: &mut dyn TunQueue, packet: &[u8]) -> io::Result<()> {
    let none = Joining {
        tcp: false,
        udp: false,
    };
    let mut batch = TunBatch::new(1 << 16, none);
    batch.room()[..packet.len()].copy_from_slice(packet);
    batch.commit(packet.len(), &parse(packet).unwrap());
    batch.finish();
    batch.writes().try_for_each(|write| queue.send(&write))
}

/// Twelve TCP segments of one flow, joined into a single superpacket: what a queue without a header must
/// refuse.
fn write_superpacket(queue: &mut dyn TunQueue) -> io::Result<()> {
    let mut batch = TunBatch::new(
        1 << 16,
        Joining {
            tcp: true,
            udp: true,
        },
    );
    for number in 0..12u32 {
        let mut packet = vec![0; 40 + 100];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 140]);
        packet[6] = 0x40;
        packet[8..12].copy_from_slice(&[64, 6, 0, 0]);
        packet[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
        packet[20..24].copy_from_slice(&[0x30, 0x39, 0x30, 0x39]);
        packet[24..28].copy_from_slice(&(number * 100).to_be_bytes());
        packet[32..34].copy_from_slice(&[0x50, 0x10]);
        let src = "10.9.0.2".parse().unwrap();
        let dst = "10.9.0.1".parse().unwrap();
        let pseudo = checksum::pseudo_header_v4(src, dst, 6, 120);
        let sum = pseudo.plus(checksum::sum(&packet[20..])).finish();
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        let packet = finish_ipv4(packet);
        batch.room()[..packet.len()].copy_from_slice(&packet);
        batch.commit(packet.len(), &parse(&packet).unwrap());
    }
    batch.finish();
    assert_eq!(batch.writes().count(), 1, "or this tests nothing");
    batch.writes().try_for_each(|write| queue.send(&write))
}

fn is_echo_reply(frame: &TunFrame) -> bool {
    let data = frame.buf.data();
    data.len() == 68 && data[9] == 1 && data[20] == 0 && data[28..] == [0xa5; 40]
}

#[test]
fn tcp_passes_in_superpackets_both_ways() {
    in_netns("tcp_passes_in_superpackets_both_ways", || {
        let mut device = up(1, TunOffload::FULL, Backend::Native);
        assert!(device.offload.tso, "{:?}", device.notes);
        for (ends, kind) in [(V4, GsoKind::TcpV4), (V6, GsoKind::TcpV6)] {
            let mirror = carry_tcp(device.queues[0].as_mut(), ends, 8 << 20);
            assert!(mirror.seen.contains(&kind), "{kind:?} was never read");
            assert!(mirror.longest_read > 10 * MTU, "{}", mirror.longest_read);
            assert!(mirror.joined_max > 8, "{}", mirror.joined_max);
        }
    });
}

#[test]
fn udp_passes_in_superpackets_both_ways() {
    in_netns("udp_passes_in_superpackets_both_ways", || {
        let mut device = up(1, TunOffload::FULL, Backend::Native);
        if !device.offload.uso {
            println!("skipped: {:?}", device.notes);
            return;
        }
        for ends in [V4, V6] {
            let bind = |ip: &str| {
                let addr = std::net::SocketAddr::new(ip.parse().unwrap(), 0);
                UdpSocket::bind(addr, &UdpOptions::default()).unwrap()
            };
            let (mut sender, mut receiver) = (bind(ends.0), bind(ends.0));
            let mut to = receiver.local_addr();
            to.set_ip(ends.1.parse().unwrap());
            let mut batch = UdpBatch::new(1 << 16, sender.max_train());
            for len in [1200; 9].into_iter().chain([77]) {
                batch.room()[..len].fill(len as u8);
                batch.commit(len, &Endpoint::from(to));
            }

            assert_eq!(sender.send(&batch).sent_packets, 10);
            let queue = device.queues[0].as_mut();
            let mut frame = recv_tun(queue, |frame| frame.vnet.gso_kind() == Some(GsoKind::UdpL4));
            assert_eq!(frame.vnet.gso_size, 1200);
            assert!(frame.vnet.needs_csum());
            let mut mirror = Mirror::new(queue.offload());
            mirror.reflect(&mut frame);
            mirror.flush(queue);

            assert_eq!(mirror.joined_max, 10);
            let (frames, received) = recv_datagrams(&mut receiver, 10);
            assert_eq!(frames.len(), 1, "one superpacket becomes one train");
            assert_eq!(frames[0].segment_len, 1200);
            let lens: Vec<usize> = received.iter().map(Vec::len).collect();
            assert_eq!(
                lens,
                [1200, 1200, 1200, 1200, 1200, 1200, 1200, 1200, 1200, 77]
            );
            assert!(
                received
                    .iter()
                    .all(|datagram| datagram.iter().all(|byte| *byte == datagram.len() as u8))
            );
        }
    });
}

#[test]
fn each_rung_of_the_ladder_carries_tcp_and_hands_over_no_more_than_it_says() {
    in_netns(
        "each_rung_of_the_ladder_carries_tcp_and_hands_over_no_more_than_it_says",
        || {
            for (want, longest) in [
                (TunOffload::TCP, usize::MAX),
                (TunOffload::CHECKSUM, MTU),
                (TunOffload::NONE, MTU),
            ] {
                let mut device = up(1, want, Backend::Native);
                assert_eq!(device.offload, want, "{:?}", device.notes);
                assert_eq!(device.queues[0].offload(), want);
                let mirror = carry_tcp(device.queues[0].as_mut(), V4, 1 << 20);
                assert!(
                    mirror.longest_read <= longest,
                    "{want}: {}",
                    mirror.longest_read
                );
                assert_eq!(mirror.joined_max > 1, want.vnet, "{want}");
                assert_eq!(mirror.seen.contains(&GsoKind::TcpV4), want.tso, "{want}");
            }
        },
    );
}

#[test]
fn offloads_can_be_taken_away_and_given_back_while_traffic_flows() {
    in_netns(
        "offloads_can_be_taken_away_and_given_back_while_traffic_flows",
        || {
            let mut device = up(2, TunOffload::FULL, Backend::Native);
            let full = device.offload;
            assert_eq!(
                device.set_offload(TunOffload::CHECKSUM).unwrap(),
                TunOffload::CHECKSUM
            );
            // The first queue alone would do: the setting is the interface's.
            device.queues.truncate(1);
            let mirror = carry_tcp(device.queues[0].as_mut(), V4, 1 << 20);
            assert!(mirror.longest_read <= MTU, "{}", mirror.longest_read);
            assert_eq!(device.set_offload(full).unwrap(), full);
            let mirror = carry_tcp(device.queues[0].as_mut(), V4, 4 << 20);
            assert!(mirror.longest_read > MTU, "{}", mirror.longest_read);
        },
    );
}

#[test]
fn a_reply_comes_on_the_queue_its_flow_was_written_to() {
    in_netns("a_reply_comes_on_the_queue_its_flow_was_written_to", || {
        let mut device = up(2, TunOffload::FULL, Backend::Native);
        assert_eq!(device.queues.len(), 2);
        let echo = std::net::UdpSocket::bind("10.9.0.1:7").unwrap();
        for flow in 0..16u16 {
            let queue = usize::from(flow % 2);
            let port = 20_000 + flow;
            write_packet(device.queues[queue].as_mut(), &datagram(port, 7)).unwrap();
            let mut bytes = [0; 64];
            let (len, from) = echo.recv_from(&mut bytes).unwrap();
            assert_eq!(from.port(), port);
            echo.send_to(&bytes[..len], from).unwrap();
            let reply = recv_tun(device.queues[queue].as_mut(), |frame| {
                parse(frame.buf.data()).is_ok_and(|info| info.key.dst_port == port)
            });
            assert_eq!(parse(reply.buf.data()).unwrap().version, IpVersion::V4);
        }
    });
}

#[test]
fn every_backend_answers_a_ping() {
    in_netns("every_backend_answers_a_ping", || {
        for (backend, want, name) in [
            (Backend::Native, TunOffload::FULL, "native"),
            (Backend::Native, TunOffload::NONE, "native"),
            (Backend::Portable, TunOffload::FULL, "portable"),
        ] {
            let mut device = up(1, want, backend);
            assert_eq!(device.backend, name);
            let queue = device.queues[0].as_mut();
            write_packet(queue, &ping()).unwrap();
            let reply = recv_tun(queue, is_echo_reply);
            assert_eq!(reply.vnet.gso_kind(), Some(GsoKind::None));
        }
    });
}

#[test]
fn the_portable_backend_says_what_it_lacks_and_carries_tcp() {
    in_netns(
        "the_portable_backend_says_what_it_lacks_and_carries_tcp",
        || {
            let mut device = up(4, TunOffload::FULL, Backend::Portable);
            assert_eq!(device.offload, TunOffload::NONE);
            assert_eq!(device.queues.len(), 1);
            assert_eq!(
                device.notes,
                [
                    "tun offload off: the portable backend has none",
                    "1 tun queue, not 4: the portable backend has one"
                ]
            );
            for ends in [V4, V6] {
                let mirror = carry_tcp(device.queues[0].as_mut(), ends, 1 << 20);
                assert!(mirror.longest_read <= MTU);
                assert_eq!(mirror.joined_max, 1);
            }
        },
    );
}

#[test]
fn a_queue_without_a_header_refuses_superpackets() {
    in_netns("a_queue_without_a_header_refuses_superpackets", || {
        for backend in [Backend::Native, Backend::Portable] {
            let mut device = up(1, TunOffload::NONE, backend);
            let queue = device.queues[0].as_mut();
            let error = write_superpacket(queue).unwrap_err();
            assert_eq!(TunFault::of(&error), TunFault::Refused);
            write_packet(queue, &ping()).unwrap();
        }
        let mut device = up(1, TunOffload::TCP, Backend::Native);
        write_superpacket(device.queues[0].as_mut()).unwrap();
    });
}

#[test]
fn an_interface_that_is_down_or_gone_is_told_apart() {
    in_netns("an_interface_that_is_down_or_gone_is_told_apart", || {
        for backend in [Backend::Native, Backend::Portable] {
            let mut device = up(1, TunOffload::FULL, backend);
            let queue = device.queues[0].as_mut();
            ip("link set tun0 down");
            let error = write_packet(queue, &ping()).unwrap_err();
            assert_eq!(TunFault::of(&error), TunFault::Down);
            let mut frame = TunFrame::default();
            while queue.recv(&mut frame).unwrap() {}

            ip("link set tun0 up");
            write_packet(queue, &ping()).unwrap();
            recv_tun(queue, is_echo_reply);

            let mut poller = Poller::new().unwrap();
            poller.register(queue.as_fd(), Token(5)).unwrap();
            ip("link delete tun0");
            let error = write_packet(queue, &ping()).unwrap_err();
            assert_eq!(TunFault::of(&error), TunFault::Gone);
            let error = loop {
                match queue.recv(&mut frame) {
                    Ok(more) => assert!(more, "a dead queue is not an empty one"),
                    Err(error) => break error,
                }
            };
            assert_eq!(TunFault::of(&error), TunFault::Gone);
            let woken: Vec<_> = poller
                .wait(Some(Duration::from_secs(20)))
                .unwrap()
                .collect();
            assert!(
                woken
                    .iter()
                    .any(|ready| ready.token == Token(5) && ready.failed),
                "{woken:?}"
            );
        }
    });
}

#[test]
fn a_name_that_is_taken_is_refused_by_both_backends() {
    in_netns("a_name_that_is_taken_is_refused_by_both_backends", || {
        let holder = open("tun0", 1, TunOffload::FULL).unwrap();
        assert_eq!((holder.name.as_str(), holder.backend), ("tun0", "native"));
        for backend in [Backend::Auto, Backend::Native, Backend::Portable] {
            for name in ["tun0", "lo"] {
                let error = open_with(name, 1, TunOffload::FULL, backend).unwrap_err();
                assert!(matches!(error, TunError::NameTaken { .. }), "{error}");
                assert!(
                    error
                        .to_string()
                        .contains(&format!("`ip link delete {name}`"))
                );
            }
        }
        drop(holder);
        // It goes with its last queue.
        reopen(1, TunOffload::FULL, Backend::Native);
    });
}

#[test]
fn bad_names_and_counts_are_refused_before_the_kernel_is_asked() {
    for name in ["", "sixteen-bytes-xx", "a/b", "a b", "tun%d"] {
        let error = open(name, 1, TunOffload::FULL).unwrap_err();
        assert!(matches!(error, TunError::BadName { .. }), "{error}");
    }
    for queues in [0, 257] {
        let error = open("tun0", queues, TunOffload::FULL).unwrap_err();
        assert!(matches!(error, TunError::QueueCount { .. }), "{error}");
    }
}
