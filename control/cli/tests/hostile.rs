//! Two gateways at work while somebody on the WAN throws at them what he likes, and reads what he can.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Conf, Daemon, PATIENCE, Pair, PeerConf, Place, can_run, has, patronus};
use nix::sys::signal::Signal;
use patronus_lab::traffic::{Pinger, verified_transfer};
use patronus_lab::{Family, Namespace};
use pnet::datalink::{self, Channel};

const TRANSFER_MAX: Duration = Duration::from_secs(60);
/// Datagrams of each class.
const EACH: u64 = 20;

/// A datagram of `len` bytes that begins like a WireGuard message of that type.
fn message(kind: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// Classes of hostile datagrams with the reason under which each must be counted.
fn classes() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let low_order = {
        let mut initiation = message(1, 148);
        initiation[8..40].fill(0);
        initiation
    };
    vec![
        (
            "outer_type",
            vec![Vec::new(), vec![1], vec![1, 0], vec![4, 0, 0]],
        ),
        (
            "outer_type",
            [0, 5, 6, 127, 255].map(|kind| message(kind, 148)).to_vec(),
        ),
        (
            "outer_type",
            [0x100, 0x0001_0004, 0x0100_0001]
                .map(|kind| message(kind, 148))
                .to_vec(),
        ),
        ("outer_type", vec![message(0xffff_ffff, MAX)]),
        (
            "outer_length",
            [4, 8, 147, 149, 1400, MAX]
                .map(|len| message(1, len))
                .to_vec(),
        ),
        (
            "outer_length",
            [4, 91, 93, 148].map(|len| message(2, len)).to_vec(),
        ),
        (
            "outer_length",
            [4, 63, 65].map(|len| message(3, len)).to_vec(),
        ),
        (
            "outer_length",
            [4, 16, 31].map(|len| message(4, len)).to_vec(),
        ),
        (
            "unknown_index",
            [32, 33, 64, 1452, MAX].map(|len| message(4, len)).to_vec(),
        ),
        ("unknown_index", vec![message(3, 64)]),
        ("handshake_bad_mac", vec![message(1, 148)]),
        ("handshake_low_order", vec![low_order]),
    ]
}

/// The largest payload of a UDP datagram over IPv4.
const MAX: usize = 65_507;

/// SplitMix64, as good as any for making noise.
fn noise(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sends slowly enough that no socket buffer on the way overflows.
fn throw(from: &Namespace, to: SocketAddr, datagrams: impl Iterator<Item = Vec<u8>> + Send) -> u64 {
    let throwing = || {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => "0.0.0.0".parse().unwrap(),
            SocketAddr::V6(_) => "::".parse().unwrap(),
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        let mut sent = 0;
        for datagram in datagrams {
            sent += 1;
            assert_eq!(socket.send_to(&datagram, to).unwrap(), datagram.len());
            if sent % 16 == 0 || datagram.len() > 10_000 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        sent
    };
    from.run(throwing).unwrap()
}

#[test]
fn hostile_datagrams_of_every_class_are_counted_by_name_and_traffic_goes_on() {
    if !can_run() {
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

    let mut expected = std::collections::BTreeMap::<&str, u64>::new();
    let targets =
        [Family::V4, Family::V6].map(|family| SocketAddr::new(one.wan_addr(family), 51820));
    for (reason, samples) in classes() {
        let count = samples.len() as u64 * EACH;
        for to in targets {
            let datagrams = samples.iter().cycle().take(count as usize).cloned();
            *expected.entry(reason).or_default() += throw(&pair.lab.wan, to, datagrams);
        }
    }
    // At the other gateway: noise of all lengths, half of it with a message type in front.
    let target = SocketAddr::new(two.wan_addr(Family::V4), 51820);
    let mut state = 42;
    let random = std::iter::repeat_with(move || {
        let len = (noise(&mut state) % 1500) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| noise(&mut state) as u8).collect();
        if noise(&mut state).is_multiple_of(2) && len >= 4 {
            let kind = (noise(&mut state) % 5) as u32;
            bytes[..4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    });
    let thrown = throw(&pair.lab.wan, target, random.take(10_000));

    for (from, to) in [(one, two), (two, one)] {
        let addr = to.host_addr(Family::V6);
        verified_transfer(&from.host, &to.host, addr, 4 << 20, 3, TRANSFER_MAX).unwrap();
    }
    let pings = pinger.finish().unwrap();
    assert_eq!(pings.lost(), 0, "of {}", pings.sent);

    let drops = pair.one.stop().packets.drops;
    println!("{drops:?}");
    for (reason, count) in expected {
        assert_eq!(drops.get(reason), Some(&count), "{reason} in {drops:?}");
    }
    let drops = pair.two.stop().packets.drops;
    println!("{drops:?}");
    let counted: u64 = [
        "outer_type",
        "outer_length",
        "unknown_index",
        "handshake_bad_mac",
    ]
    .iter()
    .filter_map(|reason| drops.get(*reason))
    .sum();
    assert_eq!(counted, thrown, "{drops:?}");
}

/// A gateway on the WAN itself that calls one which does not know it.
fn stranger(pair: &Pair, place: &Place) -> Daemon {
    let (one, _) = pair.sites();
    let mut conf = Conf::new("stranger0", "10.254.0.1/32");
    let mut peer = PeerConf::new(&pair.place_one.keys.public, &["10.1.0.0/24"]);
    peer.more = "keepalive = 1\n".to_owned();
    conf.peers
        .push(peer.at(&format!("{}:51820", one.wan_addr(Family::V4))));
    place.configure(&conf);
    let mut command = patronus();
    command
        .arg("run")
        .arg("--config")
        .arg(place.path("patronus.toml"));
    // The WAN's namespace shares the machine's /run.
    command
        .arg("--uapi-dir")
        .arg(place.path("sockets"))
        .arg("--api-dir")
        .arg(place.path("sockets"))
        .arg("--report")
        .arg(place.path("report.json"));
    place.start_with("stranger0", &mut command)
}

#[test]
fn a_gateway_that_nobody_knows_gets_no_answer_and_is_counted() {
    if !can_run() {
        return;
    }
    let pair = Pair::up(|_| {});
    pair.reach();
    let place = Place::within(&pair.lab.wan);
    let daemon = stranger(&pair, &place);
    let (one, _) = pair.sites();
    let reached = patronus_lab::traffic::reach(
        &pair.lab.wan,
        one.host_addr(Family::V4),
        Duration::from_secs(2),
    );
    assert!(reached.is_err());
    let drops = pair.one.stop().packets.drops;
    assert!(
        drops
            .get("handshake_unknown_peer")
            .is_some_and(|&count| count > 0),
        "{drops:?}"
    );
    let report = daemon.stop();
    assert_eq!(report.packets.consumed, 0, "nobody answered: {report:?}");
}

/// Counts frames that hold a marker, on one interface, until it is stopped.
struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a sniffer saw.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    frames: u64,
    with_marker: u64,
}

impl Sniffer {
    fn start(namespace: &Namespace, interface: &str, marker: &'static [u8]) -> Self {
        let name = interface.to_owned();
        let mut receiver = namespace
            .run(move || {
                let interfaces = datalink::interfaces();
                let interface = interfaces.iter().find(|found| found.name == name).unwrap();
                let config = datalink::Config {
                    // A veth carries superpackets whole.
                    read_buffer_size: 1 << 17,
                    // Shorter than gateways are silent.
                    read_timeout: Some(Duration::from_millis(5)),
                    ..datalink::Config::default()
                };
                match datalink::channel(interface, config).unwrap() {
                    Channel::Ethernet(_, receiver) => receiver,
                    _ => panic!("a veth is an Ethernet"),
                }
            })
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                // A timeout is an error too: whatever came before it has been read.
                let Ok(frame) = receiver.next() else {
                    match stopping.load(Ordering::Relaxed) {
                        true => return seen,
                        false => continue,
                    }
                };
                seen.frames += 1;
                seen.with_marker +=
                    u64::from(frame.windows(marker.len()).any(|bytes| bytes == marker));
            }
        });
        Self { stop, thread }
    }

    /// What it saw, once everything has been read.
    fn finish(self) -> Seen {
        // What a gateway holds back may still come out.
        std::thread::sleep(Duration::from_millis(200));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

const MARKER: &[u8; 16] = b"In the clear!!\xf0\x0d";

/// Datagrams and a stream full of the marker from one host to another. Nobody need listen.
fn send_marked(pair: &Pair, family: Family) {
    let (one, two) = pair.sites();
    let addr = two.host_addr(family);
    let text = MARKER.repeat(64);
    let socket = one.host.run(|| {
        UdpSocket::bind(if addr.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        })
    });
    let socket = socket.unwrap().unwrap();
    for _ in 0..50 {
        let _ = socket.send_to(&text, (addr, 9));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stream_marked(pair: &Pair) {
    let (one, two) = pair.sites();
    let addr = two.host_addr(Family::V4);
    let listener = two
        .host
        .run(|| TcpListener::bind((addr, 7777)))
        .unwrap()
        .unwrap();
    let receiving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    let mut stream = one
        .host
        .run(|| TcpStream::connect((addr, 7777)))
        .unwrap()
        .unwrap();
    let chunk = MARKER.repeat(4096);
    for _ in 0..32 {
        stream.write_all(&chunk).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(stream);
    assert_eq!(receiving.join().unwrap(), chunk.len() * 32);
}

#[test]
fn no_plaintext_is_on_the_wan_with_a_session_or_without_one() {
    if !can_run() || !has("wg", "wireguard-tools") {
        return;
    }
    let mut pair = Pair::up(|_| {});
    let sniff = |pair: &Pair| {
        let (one, two) = pair.sites();
        let lan = Sniffer::start(&one.gateway, patronus_lab::topology::LAN_INTERFACE, MARKER);
        let wans = [one, two].map(|site| {
            Sniffer::start(&site.gateway, patronus_lab::topology::WAN_INTERFACE, MARKER)
        });
        (lan, wans)
    };
    let check = |(lan, wans): (Sniffer, [Sniffer; 2]), what: &str| {
        let (lan, wans) = (lan.finish(), wans.map(Sniffer::finish));
        println!("{what}: LAN {lan:?}, WAN {wans:?}");
        // The same eyes see it on the LAN, so they would see it on the WAN.
        assert!(lan.with_marker >= 25, "{what}: {lan:?}");
        for wan in wans {
            assert_eq!(wan.with_marker, 0, "{what}: {wan:?}");
        }
        wans
    };

    let eyes = sniff(&pair);
    pair.reach();
    send_marked(&pair, Family::V4);
    send_marked(&pair, Family::V6);
    stream_marked(&pair);
    let wans = check(eyes, "with a session");
    assert!(wans.iter().all(|wan| wan.frames > 50), "{wans:?}");

    // Nobody answers, and a new preshared key has ended the session: packets wait, and are not sent as they are.
    pair.two.signal(Signal::SIGKILL);
    pair.two.wait_end(PATIENCE);
    let psk = pair
        .place_one
        .secret("psk", &patronus_config::keys::genpsk());
    pair.one.wg_set(&[
        "peer",
        &pair.place_two.keys.public,
        "preshared-key",
        psk.to_str().unwrap(),
    ]);
    let eyes = sniff(&pair);
    send_marked(&pair, Family::V4);
    send_marked(&pair, Family::V6);
    check(eyes, "without a session");
    pair.one.stop();
}
