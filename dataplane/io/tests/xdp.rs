//! AF_XDP against the kernel, by a copy over a veth pair: what our port gets comes in here and nothing else does, what
//! is sent arrives as a UDP socket's would, and what AF_XDP leaves out goes by the UDP socket.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::xsk::{
    BEHIND_V4, FAR_V4, FAR_V6, Hook, NEAR, NEAR_V4, NEAR_V6, Redirect, index_of, neighbourhood,
    with_far,
};
use common::{in_netns, is_silent, recv_datagrams, skip};
use patronus_io::{
    DoorPorts, Neighbourhood, Poller, Token, TrainSet, UdpOptions, UdpSocket, WanSocket, Way,
    XdpError, XdpMode, XdpOptions, XdpSocket,
};
use patronus_packet::{Door, Endpoint, TrainLimits, UdpBatch, UdpFrame, UplinkId};

const PORT: u16 = 51_820;
const LANE: u16 = 40_001;
const FAMILIES: [(&str, &str); 2] = [(FAR_V4, NEAR_V4), (FAR_V6, NEAR_V6)];
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `near` in a namespace whose interface has the redirecting program; `far` runs at the other end, from when `near`
/// says on its sender that it has what it needs to hear it.
fn world<T: Send + 'static>(
    test: &'static str,
    hook: Hook,
    queues: u32,
    near: impl FnOnce(&Redirect, &mpsc::Sender<()>) + Send + 'static,
    far: impl FnOnce() -> T + Send + 'static,
) {
    in_netns(test, move || {
        let (open_far, may_begin) = mpsc::channel();
        let far = with_far(queues, move || {
            may_begin.recv().ok().map(|()| {
                let result = far();
                // With the namespace its end of the pair would go.
                let _ = may_begin.recv();
                result
            })
        });
        let redirect = match Redirect::attach(NEAR, PORT, hook) {
            Ok(redirect) => redirect,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                drop(open_far);
                far.join().unwrap();
                return skip(test, "no CAP_BPF");
            }
            Err(error) => panic!("cannot attach: {error}"),
        };
        near(&redirect, &open_far);
        drop(open_far);
        far.join().unwrap();
    });
}

fn options(queue: u32) -> XdpOptions {
    let ports = DoorPorts {
        listen: PORT,
        lane_v4: Some(LANE),
        lane_v6: Some(LANE),
    };
    XdpOptions {
        mode: XdpMode::Copy,
        ..XdpOptions::new(index_of(NEAR), queue, 1500, ports)
    }
}

fn open(redirect: &Redirect, queue: u32) -> XdpSocket {
    let mut socket = XdpSocket::open(&options(queue)).unwrap();
    socket.set_neighbourhood(neighbourhood().into());
    redirect.insert(queue, socket.as_fd());
    socket
}

fn bind(ip: &str, port: u16) -> UdpSocket {
    let ip: IpAddr = ip.parse().unwrap();
    UdpSocket::bind(SocketAddr::new(ip, port), &UdpOptions::default()).unwrap()
}

fn to(ip: &str, port: u16) -> Endpoint {
    SocketAddr::new(ip.parse().unwrap(), port).into()
}

fn batch(datagrams: &[(Vec<u8>, Endpoint, u8)]) -> UdpBatch {
    let limits = TrainLimits {
        segments: 60,
        bytes: 65_000,
    };
    let mut batch = UdpBatch::new(1 << 17, limits);
    for (payload, endpoint, tos) in datagrams {
        batch.room()[..payload.len()].copy_from_slice(payload);
        batch.commit_classed(payload.len(), endpoint, *tos);
    }
    batch
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at + number * 31) as u8).collect()
}

/// Reads until there are `wanted` datagrams, on whichever of the sockets.
fn recv_xdp(sockets: &mut [XdpSocket], wanted: usize) -> Vec<(usize, Endpoint, u8, Vec<u8>)> {
    let mut poller = Poller::new().unwrap();
    for (at, socket) in sockets.iter().enumerate() {
        poller.register(socket.as_fd(), Token(at)).unwrap();
    }
    let mut frames: Vec<UdpFrame> = (0..4).map(|_| UdpFrame::default()).collect();
    let mut got = Vec::new();
    let until = Instant::now() + PATIENCE;
    loop {
        for (at, socket) in sockets.iter_mut().enumerate() {
            loop {
                let filled = socket.recv(&mut frames).unwrap();
                if filled == 0 {
                    break;
                }
                for frame in &frames[..filled] {
                    for datagram in frame.datagrams() {
                        got.push((at, frame.endpoint, frame.tos, datagram.to_vec()));
                    }
                }
            }
        }
        if got.len() >= wanted {
            return got;
        }
        assert!(Instant::now() < until, "{} of {wanted} came", got.len());
        poller
            .wait(Some(Duration::from_millis(100)))
            .unwrap()
            .count();
    }
}

/// What arrives has its ends, uplink, traffic class and bytes; what is sent back arrives at the sender.
fn echoes(test: &'static str, hook: Hook) {
    let (from_far, ports) = mpsc::channel();
    world(
        test,
        hook,
        1,
        move |redirect, begin| {
            let mut socket = open(redirect, 0);
            let uplinks = [(UplinkId(3), Way::Interface(index_of(NEAR)))];
            socket.set_uplinks(&uplinks);
            let [mut v4, mut v6] = FAMILIES.map(|(_, near)| bind(near, PORT));
            begin.send(()).unwrap();
            for (remote, local) in FAMILIES {
                let far_port: u16 = ports.recv_timeout(PATIENCE).unwrap();
                let got = recv_xdp(std::slice::from_mut(&mut socket), 5);
                let lens: Vec<usize> = got.iter().map(|got| got.3.len()).collect();
                assert_eq!(lens, [1400, 1400, 1400, 700, 33]);
                let mut answers = Vec::new();
                for (number, (_, endpoint, tos, bytes)) in got.into_iter().enumerate() {
                    let expected = Endpoint {
                        local: Some(local.parse().unwrap()),
                        door: Door::Listen,
                        uplink: UplinkId(3),
                        ..to(remote, far_port)
                    };
                    assert_eq!(endpoint, expected);
                    assert_eq!(tos, 0xb9, "EF and CE");
                    assert_eq!(bytes, payload(number, bytes.len()));
                    answers.push((bytes, endpoint, tos));
                }
                let mut done = TrainSet::default();
                let report = socket.send_rest(&batch(&answers), &mut done);
                assert_eq!((report.sent_packets, report.failed_total()), (5, 0));
                assert_eq!(report.sent_bytes, 1400 * 3 + 700 + 33);
                assert!(done.contains(0) && socket.counters().left == 0);
            }
            assert_eq!(socket.counters().foreign + socket.counters().corrupt, 0);
            assert!(is_silent(&mut v4) && is_silent(&mut v6), "came twice");
        },
        move || {
            for (far, near) in FAMILIES {
                let mut socket = bind(far, 0);
                let sent: Vec<Vec<u8>> = [1400, 1400, 1400, 700, 33]
                    .into_iter()
                    .enumerate()
                    .map(|(number, len)| payload(number, len))
                    .collect();
                let datagrams: Vec<_> = sent
                    .iter()
                    .map(|bytes| (bytes.clone(), to(near, PORT), 0xb9))
                    .collect();
                // One by one: generic XDP is given superframes whole, and no chunk holds them.
                for datagram in datagrams {
                    let report = socket.send(&batch(&[datagram]));
                    assert_eq!(report.sent_packets, 1);
                }
                from_far.send(socket.local_addr().port()).unwrap();
                let (frames, back) = recv_datagrams(&mut socket, 5);
                assert_eq!(back, sent);
                assert!(frames.iter().all(|frame| frame.tos == 0xb9));
                assert_eq!(frames[0].endpoint.remote, to(near, PORT).remote);
            }
        },
    );
}

#[test]
fn both_families_are_received_and_echoed_in_the_driver() {
    echoes(
        "both_families_are_received_and_echoed_in_the_driver",
        Hook::Native,
    );
}

#[test]
fn both_families_are_received_and_echoed_in_the_stack() {
    echoes(
        "both_families_are_received_and_echoed_in_the_stack",
        Hook::Generic,
    );
}

#[test]
fn what_has_no_next_hop_is_too_long_or_has_another_source_goes_by_the_udp_socket() {
    let (from_far, ports) = mpsc::channel();
    let (ask_far, near_asks) = mpsc::channel::<()>();
    world(
        "what_has_no_next_hop_is_too_long_or_has_another_source_goes_by_the_udp_socket",
        Hook::Native,
        1,
        move |redirect, begin| {
            let mut socket = open(redirect, 0);
            let mut udp = bind("0.0.0.0", PORT);
            begin.send(()).unwrap();
            let (on_link, behind): (u16, u16) = ports.recv_timeout(PATIENCE).unwrap();
            let elsewhere = Endpoint {
                local: Some("127.0.0.9".parse().unwrap()),
                ..to(FAR_V4, on_link)
            };
            let lane = Endpoint {
                door: Door::Lane,
                ..to(FAR_V4, on_link)
            };
            let batch = batch(&[
                (payload(1, 300), to(FAR_V4, on_link), 0),
                (payload(2, 300), to(BEHIND_V4, behind), 0),
                (payload(3, 1473), to(FAR_V4, on_link), 0),
                (payload(4, 300), elsewhere, 0),
                (payload(5, 1472), to(FAR_V4, on_link), 0),
                (payload(6, 300), lane, 0),
            ]);
            let mut done = TrainSet::default();
            let report = socket.send_rest(&batch, &mut done);
            let taken: Vec<usize> = (0..6).filter(|at| done.contains(*at)).collect();
            assert_eq!(taken, [0, 4, 5]);
            assert_eq!((report.sent_packets, report.failed_total()), (3, 0));
            assert_eq!(socket.counters().left, 3);
            let report = udp.send_rest(&batch, &mut done);
            // It has no such source either, and sends without.
            assert_eq!(report.sent_packets + report.failed_total(), 3);

            // Nothing known: all of it goes by the socket.
            drop(socket);
            let mut blank = open(redirect, 0);
            blank.set_neighbourhood(Neighbourhood::default().into());
            let mut done = TrainSet::default();
            assert_eq!(blank.send_rest(&batch, &mut done).sent_packets, 0);
            assert!(done.is_empty());
            ask_far.send(()).unwrap();
        },
        move || {
            let mut on_link = bind(FAR_V4, 0);
            let mut behind = bind(BEHIND_V4, 0);
            let ports = (on_link.local_addr().port(), behind.local_addr().port());
            from_far.send(ports).unwrap();
            let (_, mut got) = recv_datagrams(&mut on_link, 4);
            got.sort_by_key(Vec::len);
            let lens: Vec<usize> = got.iter().map(Vec::len).collect();
            assert_eq!(lens[lens.len() - 2..], [1472, 1473]);
            let (_, got) = recv_datagrams(&mut behind, 1);
            assert_eq!(got, [payload(2, 300)]);
            near_asks.recv_timeout(PATIENCE).unwrap();
            assert!(is_silent(&mut behind), "came twice");
        },
    );
}

#[test]
fn two_queues_share_the_flows_and_a_queue_without_a_socket_goes_to_the_kernel() {
    const FLOWS: usize = 32;
    let (ask_far, near_asks) = mpsc::channel();
    world(
        "two_queues_share_the_flows_and_a_queue_without_a_socket_goes_to_the_kernel",
        Hook::Native,
        2,
        move |redirect, begin| {
            let mut sockets = vec![open(redirect, 0), open(redirect, 1)];
            begin.send(()).unwrap();
            ask_far.send(()).unwrap();
            let got = recv_xdp(&mut sockets, FLOWS);
            let on = |socket: usize| got.iter().filter(|got| got.0 == socket).count();
            assert_eq!(got.len(), FLOWS);
            assert!(on(0) > 0 && on(1) > 0, "{} and {}", on(0), on(1));
            let on_first = on(0);

            // The second queue's goes: its share comes by the kernel's stack.
            let mut udp = bind("0.0.0.0", PORT);
            sockets.truncate(1);
            ask_far.send(()).unwrap();
            let got = recv_xdp(&mut sockets, on_first);
            assert_eq!(got.len(), on_first);
            let (_, passed) = recv_datagrams(&mut udp, FLOWS - on_first);
            assert_eq!(passed.len(), FLOWS - on_first);

            // A socket in the place of another queue's gets nothing of it, nor does anyone else.
            redirect.insert(1, sockets[0].as_fd());
            ask_far.send(()).unwrap();
            let got = recv_xdp(&mut sockets, on_first);
            assert_eq!(got.len(), on_first);
            assert!(is_silent(&mut udp));
        },
        move || {
            let mut flows: Vec<UdpSocket> = (0..FLOWS).map(|_| bind(FAR_V4, 0)).collect();
            for _ in 0..3 {
                near_asks.recv_timeout(PATIENCE).unwrap();
                for (number, flow) in flows.iter_mut().enumerate() {
                    let datagram = (payload(number, 100), to(NEAR_V4, PORT), 0);
                    assert_eq!(flow.send(&batch(&[datagram])).sent_packets, 1);
                }
            }
        },
    );
}

#[test]
fn what_a_full_ring_drops_is_counted() {
    const SENT: usize = 300;
    let (from_far, all_sent) = mpsc::channel();
    world(
        "what_a_full_ring_drops_is_counted",
        Hook::Native,
        1,
        move |redirect, begin| {
            let options = XdpOptions {
                ring_len: 64,
                ..options(0)
            };
            let mut socket = XdpSocket::open(&options).unwrap();
            redirect.insert(0, socket.as_fd());
            begin.send(()).unwrap();
            all_sent.recv_timeout(PATIENCE).unwrap();
            let until = Instant::now() + PATIENCE;
            let dropped = loop {
                let drops = socket.drops().unwrap();
                let dropped = drops.ring_full + drops.no_chunk + drops.other;
                if dropped as usize >= SENT - 64 {
                    break dropped as usize;
                }
                assert!(Instant::now() < until, "{drops:?}");
                std::thread::sleep(Duration::from_millis(2));
            };
            let got = recv_xdp(std::slice::from_mut(&mut socket), SENT - dropped);
            assert_eq!(got.len() + dropped, SENT);
        },
        move || {
            let mut socket = bind(FAR_V4, 0);
            for number in 0..SENT {
                let datagram = (payload(number, 100), to(NEAR_V4, PORT), 0);
                assert_eq!(socket.send(&batch(&[datagram])).sent_packets, 1);
            }
            from_far.send(()).unwrap();
        },
    );
}

#[test]
fn what_exceeds_the_rings_is_sent_in_rounds_and_none_twice() {
    const TRAINS: usize = 40;
    let (from_far, ports) = mpsc::channel();
    world(
        "what_exceeds_the_rings_is_sent_in_rounds_and_none_twice",
        Hook::Native,
        1,
        move |redirect, begin| {
            let options = XdpOptions {
                ring_len: 64,
                ..options(0)
            };
            let mut socket = XdpSocket::open(&options).unwrap();
            redirect.insert(0, socket.as_fd());
            socket.set_neighbourhood(neighbourhood().into());
            begin.send(()).unwrap();
            let port: u16 = ports.recv_timeout(PATIENCE).unwrap();
            for train in 0..TRAINS {
                let datagrams: Vec<_> = (0..60)
                    .map(|at| (payload(train * 60 + at, 200), to(FAR_V4, port), 0))
                    .collect();
                let batch = batch(&datagrams);
                let until = Instant::now() + PATIENCE;
                // On a busy machine the receiver may hold the chunks for longer than a call waits.
                while socket
                    .send_rest(&batch, &mut TrainSet::default())
                    .would_block_packets
                    > 0
                {
                    assert!(Instant::now() < until, "no room");
                }
            }
            assert_eq!(socket.counters().sent as usize, TRAINS * 60);
        },
        move || {
            let options = UdpOptions {
                recv_buffer: 16 << 20,
                ..UdpOptions::default()
            };
            let addr = SocketAddr::new(FAR_V4.parse().unwrap(), 0);
            let mut socket = UdpSocket::bind(addr, &options).unwrap();
            from_far.send(socket.local_addr().port()).unwrap();
            let (_, got) = recv_datagrams(&mut socket, TRAINS * 60);
            assert_eq!(got.len(), TRAINS * 60);
            for (number, bytes) in got.iter().enumerate() {
                assert_eq!(*bytes, payload(number, 200), "datagram {number}");
            }
            assert!(is_silent(&mut socket), "came twice");
        },
    );
}

#[test]
fn tcp_of_the_same_machine_goes_on_beside_it() {
    const LEN: usize = 300_000;
    world(
        "tcp_of_the_same_machine_goes_on_beside_it",
        Hook::Native,
        1,
        move |redirect, begin| {
            let mut socket = open(redirect, 0);
            let listener = TcpListener::bind((NEAR_V4, 2222)).unwrap();
            begin.send(()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; LEN];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            let got = recv_xdp(std::slice::from_mut(&mut socket), 30);
            assert_eq!(got.len(), 30);
            assert_eq!(socket.counters().foreign, 0);
        },
        move || {
            let mut udp = bind(FAR_V4, 0);
            let mut stream = TcpStream::connect((NEAR_V4, 2222)).unwrap();
            let sent = payload(9, LEN);
            for (number, part) in sent.chunks(LEN / 30).enumerate() {
                stream.write_all(part).unwrap();
                let datagram = (payload(number, 100), to(NEAR_V4, PORT), 0);
                assert_eq!(udp.send(&batch(&[datagram])).sent_packets, 1);
            }
            let mut back = vec![0; LEN];
            stream.read_exact(&mut back).unwrap();
            assert!(back == sent, "TCP came back changed");
        },
    );
}

#[test]
fn refusals_say_what_is_missing_and_a_closed_queue_opens_again() {
    world(
        "refusals_say_what_is_missing_and_a_closed_queue_opens_again",
        Hook::Native,
        1,
        |_, _| {
            let with = |mode, queue| {
                let options = XdpOptions {
                    mode,
                    ..options(queue)
                };
                XdpSocket::open(&options)
            };
            let error = with(XdpMode::ZeroCopy, 0).unwrap_err();
            assert!(matches!(error, XdpError::NoZeroCopy { .. }), "{error}");
            let error = with(XdpMode::Auto, 9).unwrap_err();
            assert!(
                matches!(error, XdpError::NoQueue { queue: 9, .. }),
                "{error}"
            );
            let lost = XdpOptions {
                ifindex: 9999,
                ..options(0)
            };
            let error = XdpSocket::open(&lost).unwrap_err();
            assert!(matches!(error, XdpError::NoInterface { .. }), "{error}");
            for _ in 0..3 {
                let socket = with(XdpMode::Auto, 0).unwrap();
                assert!(!socket.is_zero_copy());
                assert!(socket.note().unwrap().contains("no zero copy"));
            }
            let _holder = with(XdpMode::Copy, 0).unwrap();
            let error = with(XdpMode::Copy, 0).unwrap_err();
            assert!(matches!(error, XdpError::Busy { queue: 0, .. }), "{error}");
        },
        || (),
    );
}
