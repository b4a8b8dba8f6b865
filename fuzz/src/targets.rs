//! One function per parser: any bytes go in; a panic, or a promise that does not hold, is a finding.
//!
//! Built twice: as libFuzzer targets, and on stable by the test that replays the committed corpora.

#[path = "discovery_targets.rs"]
mod discovery;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use blake2::digest::Mac;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use patronus_config::load::SecretError;
use patronus_config::{Config, wg_quick as importer};
use patronus_engine::sim::{Net, SiteId, SiteOptions};
use patronus_engine::{PeerId, PeerSpec};
use patronus_gateway::UapiRequest;
use patronus_packet::vnet::VNET_HEADER_LEN;
use patronus_packet::{
    Cutter, Endpoint, FrameBuf, Joining, Padding, Prefix, TunBatch, TunFrame, UdpFrame, VnetHeader,
};
use patronus_path::message::HELLO_LEN;
use patronus_path::{Arrival, Hello, Prober, ProberConfig, Time};
use patronus_tunnel::{Message, PrivateKey};
use zeroize::Zeroizing;

pub use discovery::{discovery_certificate, discovery_datagram, discovery_message, discovery_text};

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// The name of each target, which is that of its corpus, and the target.
pub const TARGETS: &[(&str, Target)] = &[
    ("parse", parse),
    ("cut", cut),
    ("join", join),
    ("config", config),
    ("wg_quick", wg_quick),
    ("uapi", uapi),
    ("outer", outer),
    ("inner", inner),
    ("tun", tun),
    ("policy_manifest", policy_manifest),
    ("hello", hello),
    ("discovery_datagram", discovery_datagram),
    ("discovery_message", discovery_message),
    ("discovery_certificate", discovery_certificate),
    ("discovery_text", discovery_text),
];

/// An IP packet: what the parser says of it lies within it.
pub fn parse(data: &[u8]) {
    let Ok(info) = patronus_packet::parse(data) else {
        return;
    };
    assert!(info.transport_offset <= info.payload_offset && info.payload_offset <= info.total_len);
    assert!(usize::from(info.total_len) <= data.len());
    let again = patronus_packet::parse(&data[..usize::from(info.total_len)]);
    assert_eq!(
        again.as_ref(),
        Ok(&info),
        "bytes behind the packet change nothing"
    );
}

/// A vnet header and a packet behind it: as many segments as announced, each a packet within its padding.
pub fn cut(data: &[u8]) {
    let Some(mut frame) = tun_frame(data) else {
        return;
    };
    let Ok(info) = patronus_packet::parse(frame.buf.data()) else {
        return;
    };
    let Ok(mut cutter) = Cutter::new(&mut frame, &info) else {
        return;
    };
    let (segments, sealed_max) = (cutter.segments(), cutter.sealed_len_max());
    let (mut seen, mut sealed, mut payload) = (0, 0, 0);
    while let Some(segment) = cutter.next_segment(Padding { mtu: 1420 }) {
        seen += 1;
        sealed += segment.padded.len() + patronus_packet::cut::SEAL_OVERHEAD;
        payload += segment.packet_len - usize::from(info.payload_offset);
        assert!(
            segment.padded[segment.packet_len..]
                .iter()
                .all(|byte| *byte == 0)
        );
    }
    assert_eq!((seen, payload), (segments, info.payload_len()));
    assert!(sealed <= sealed_max);
}

/// Packets, each behind its length in two bytes, low one first: joined and cut again they are the same ones.
pub fn join(data: &[u8]) {
    let mut batch = TunBatch::new(
        1 << 20,
        Joining {
            tcp: true,
            udp: true,
        },
    );
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut rest = data;
    while let Some((len, more)) = rest.split_first_chunk::<2>() {
        let (packet, more) = more.split_at(usize::from(u16::from_le_bytes(*len)).min(more.len()));
        rest = more;
        let Ok(info) = patronus_packet::parse(packet) else {
            continue;
        };
        let packet = &packet[..usize::from(info.total_len)];
        if !batch.has_room(1, packet.len()) {
            break;
        }
        batch.room()[..packet.len()].copy_from_slice(packet);
        batch.commit(packet.len(), &info);
        packets.push(packet.to_vec());
    }
    batch.finish();
    let mut back: Vec<Vec<u8>> = Vec::new();
    for write in batch.writes() {
        let before = back.len();
        let whole: Vec<u8> = write.fragments().flatten().copied().collect();
        assert_eq!(whole.len(), write.len);
        if write.packets == 1 && !write.vnet.needs_csum() {
            back.push(whole);
            continue;
        }
        let mut frame = TunFrame {
            vnet: write.vnet,
            buf: FrameBuf::from_data(&whole),
        };
        let info = patronus_packet::parse(&whole).expect("joined packets are a packet");
        let mut cutter = Cutter::new(&mut frame, &info).expect("what was joined can be cut");
        while let Some(segment) = cutter.next_segment(Padding { mtu: 1420 }) {
            back.push(segment.padded[..segment.packet_len].to_vec());
        }
        assert_eq!(back.len() - before, write.packets as usize);
    }
    packets
        .iter_mut()
        .chain(&mut back)
        .for_each(|packet| forget_identification(packet));
    packets.sort();
    back.sort();
    assert!(
        packets == back,
        "{} packets came back as {}",
        packets.len(),
        back.len()
    );
}

/// A configuration file: accepted, or refused with a reason that is fit for a terminal.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key = || Ok(Zeroizing::new(PRIVATE_KEY.to_owned()));
    if let Err(errors) =
        Config::parse(&text, "fuzz.toml").and_then(|draft| draft.resolve(|_| key()))
    {
        assert_is_fit_to_print(&errors.to_string());
    }
}

/// A wg-quick file: what is imported passes our own check, and has no secret in it.
pub fn wg_quick(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let imported = match importer::import(&text, "fuzz.conf", "wg0") {
        Ok(imported) => imported,
        Err(errors) => return assert_is_fit_to_print(&errors.to_string()),
    };
    let secrets: BTreeMap<PathBuf, &Zeroizing<String>> = imported
        .secrets
        .iter()
        .map(|secret| (secret.file.clone(), &secret.contents))
        .collect();
    let read = |path: &std::path::Path| match secrets.get(path) {
        Some(text) => Ok((*text).clone()),
        None => Err(SecretError::Missing(path.to_owned())),
    };
    let checked = Config::parse(&imported.toml, "wg0.toml").and_then(|draft| draft.resolve(read));
    assert!(
        checked.is_ok(),
        "{}\n{}",
        checked.unwrap_err(),
        imported.toml
    );
    for secret in secrets.values() {
        assert!(
            !imported.toml.contains(secret.trim()),
            "a secret in the configuration"
        );
    }
    for note in &imported.notes {
        assert_is_fit_to_print(note);
    }
}

/// A request on the control socket.
pub fn uapi(data: &[u8]) {
    if let Err(error) = UapiRequest::parse(&String::from_utf8_lossy(data)) {
        assert_is_fit_to_print(&error.to_string());
    }
}

/// Datagrams from an uplink into a gateway with one peer and a session. The first byte says of what length the
/// datagrams of a train are, in units of 8; 0 is a single datagram. Where an index reads `ff ff ff ff`, the live one
/// is put in, and where `mac1` reads zero, the right one, so that more than the front door is tried.
pub fn outer(data: &[u8]) {
    let Some((unit, rest)) = data.split_first() else {
        return;
    };
    let mut net = Net::mesh(
        1,
        2,
        SiteOptions {
            workers: 2,
            ..SiteOptions::default()
        },
    );
    net.send(PEER, 0, &echo(10, 1));
    net.settle();
    assert_eq!(net.take_delivered(GATEWAY).len(), 1, "the session is there");
    let live = net
        .captured
        .iter()
        .rev()
        .find_map(|datagram| match datagram.message() {
            Some(Message::Data { receiver, .. }) => Some(receiver.to_le_bytes()),
            _ => None,
        });
    let live = live.expect("a packet went to the gateway");

    let mut bytes = rest[..rest.len().min(60_000)].to_vec();
    let step = match usize::from(*unit) * 8 {
        0 => bytes.len().max(1),
        len => len,
    };
    let public = *net.site(GATEWAY).identity().public_key().as_bytes();
    for datagram in bytes.chunks_mut(step) {
        make_plausible(datagram, live, &public);
    }
    let frame = |bytes: &[u8]| UdpFrame {
        buf: FrameBuf::from_data(bytes),
        segment_len: usize::from(*unit) * 8,
        endpoint: Endpoint::from(SocketAddr::from(([203, 0, 113, 5], 7))),
        tos: 0,
    };
    for worker in 0..2 {
        net.inject_frame(GATEWAY, worker, frame(&bytes));
        net.settle();
    }
    assert!(
        net.take_delivered(GATEWAY).is_empty(),
        "nothing forged is delivered"
    );
    net.send(PEER, 0, &echo(10, 2));
    net.settle();
    assert_eq!(net.take_delivered(GATEWAY).len(), 1, "the session survives");
}

/// What an authenticated peer puts inside: only whole packets from its own addresses are delivered.
pub fn inner(data: &[u8]) {
    let mut net = Net::new(2);
    let gateway = net.add_site(SiteOptions::default());
    let key = PrivateKey::generate();
    let mut peer = Tunn::new(
        x25519::StaticSecret::from(*key.as_bytes()),
        x25519::PublicKey::from(*net.site(gateway).identity().public_key().as_bytes()),
        None,
        None,
        7,
        None,
    );
    let own: Vec<Prefix> = ["10.100.0.0/16", "fd00:64::/32"]
        .iter()
        .map(|text| text.parse().expect("a prefix"))
        .collect();
    let spec = PeerSpec {
        id: PeerId(100),
        public_key: key.public_key(),
        endpoint: None,
        allowed_ips: own.clone(),
        ..net.spec_of(gateway)
    };
    net.add_peer(gateway, spec);
    let from = SocketAddr::from(([198, 51, 100, 1], 7));
    let mut out = vec![0; 70_000];
    let TunnResult::WriteToNetwork(initiation) = peer.format_handshake_initiation(&mut out, true)
    else {
        panic!("boringtun begins");
    };
    net.inject(from, gateway, initiation);
    net.run_for(Duration::from_millis(10));
    let response = net.take_outside(from).remove(0);
    let TunnResult::WriteToNetwork(keepalive) = peer.decapsulate(None, &response, &mut out) else {
        panic!("boringtun confirms");
    };
    net.inject(from, gateway, keepalive);

    let plaintext = &data[..data.len().min(60_000)];
    let TunnResult::WriteToNetwork(sealed) = peer.encapsulate(plaintext, &mut out) else {
        panic!("boringtun seals");
    };
    net.inject(from, gateway, sealed);
    net.run_for(Duration::from_millis(10));
    for packet in net.take_delivered(gateway) {
        let info = patronus_packet::parse(&packet).expect("only packets are delivered");
        assert!(
            own.iter().any(|prefix| prefix.contains(info.key.src)),
            "{}",
            info.key.src
        );
        assert_eq!(packet, plaintext[..packet.len()]);
    }
}

/// A vnet header and a packet from the TUN, into a gateway with one peer: what arrives there is for its addresses.
pub fn tun(data: &[u8]) {
    let Some(frame) = tun_frame(data) else {
        return;
    };
    let mut net = Net::mesh(3, 2, SiteOptions::default());
    net.send(GATEWAY, 0, &echo(11, 0));
    net.settle();
    assert_eq!(net.take_delivered(PEER).len(), 1, "the session is there");
    net.send_frame(GATEWAY, 0, frame);
    net.settle();
    let own = &net
        .site(GATEWAY)
        .spec(patronus_engine::sim::peer_id(PEER))
        .allowed_ips
        .clone();
    for packet in net.take_delivered(PEER) {
        let info = patronus_packet::parse(&packet).expect("only packets are sent");
        assert!(
            own.iter().any(|prefix| prefix.contains(info.key.dst)),
            "{}",
            info.key.dst
        );
    }
    net.send(GATEWAY, 0, &echo(11, 0));
    net.settle();
    assert_eq!(net.take_delivered(PEER).len(), 1, "the session survives");
}

/// A file of manifests, or a policy test document: what is refused is told line by line, and what is taken twice over
/// is the same.
pub fn policy_manifest(data: &[u8]) {
    let loaded = patronus_policy::manifest::load("fuzz.yaml", data);
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == patronus_policy::Severity::Error);
    assert_eq!(errors.count() > 0, loaded.has_errors());
    for diagnostic in &loaded.diagnostics {
        assert_is_fit_to_print(&diagnostic.to_string());
        assert!(diagnostic.line > 0, "{diagnostic}");
    }
    let mut references = std::collections::BTreeSet::new();
    for object in &loaded.objects {
        assert!(
            references.insert(object.reference()),
            "{} twice",
            object.reference()
        );
    }
    let again = patronus_policy::manifest::load("fuzz.yaml", data);
    assert_eq!(loaded, again);
    if let Err(errors) = patronus_policy::document::Document::parse("fuzz.json", data) {
        assert!(!errors.is_empty());
        for error in errors {
            assert_is_fit_to_print(&error.to_string());
        }
    }
}

const GATEWAY: SiteId = SiteId(0);
const PEER: SiteId = SiteId(1);
/// A key file's text.
const PRIVATE_KEY: &str = "QChaGcVWlpKPVYzHJCBkJLgBlvXtJ8mMJ6kwxKmYW3g=\n";

fn tun_frame(data: &[u8]) -> Option<TunFrame> {
    let (header, packet) = data.split_first_chunk::<VNET_HEADER_LEN>()?;
    let packet = &packet[..packet.len().min(patronus_packet::frame::FRAME_DATA_MAX)];
    Some(TunFrame {
        vnet: VnetHeader::from_bytes(header),
        buf: FrameBuf::from_data(packet),
    })
}

/// The identification of an IPv4 packet with DF means nothing (RFC 6864, section 4.1), so joining may lose it; with
/// it goes the header's checksum, where that is right.
fn forget_identification(packet: &mut [u8]) {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 && header_sum(&packet[..header_len]) == 0xffff {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
}

/// RFC 1071 over an even number of bytes, not inverted.
fn header_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Without control characters that would reach the operator's terminal, and not empty.
fn assert_is_fit_to_print(message: &str) {
    assert!(!message.is_empty());
    let odd = message
        .chars()
        .find(|char| char.is_control() && *char != '\n');
    assert_eq!(odd, None, "{message:?}");
}

fn make_plausible(datagram: &mut [u8], live: [u8; 4], public: &[u8; 32]) {
    let (index_at, mac_at) = match Message::parse(datagram) {
        Ok(Message::Initiation) => (None, Some(116)),
        Ok(Message::Response { .. }) => (Some(8), Some(60)),
        Ok(Message::Cookie { .. } | Message::Data { .. }) => (Some(4), None),
        Err(_) => (None, None),
    };
    if let Some(at) = index_at
        && datagram[at..at + 4] == [0xff; 4]
    {
        datagram[at..at + 4].copy_from_slice(&live);
    }
    if let Some(at) = mac_at
        && datagram[at..at + 16] == [0; 16]
    {
        let key = Blake2s256::new()
            .chain_update(b"mac1----")
            .chain_update(public)
            .finalize();
        let mac = Blake2sMac::<U16>::new_from_slice(&key).expect("32 bytes are a key");
        let mac = mac.chain_update(&datagram[..at]).finalize().into_bytes();
        datagram[at..at + 16].copy_from_slice(&mac);
    }
}

/// A UDP packet over IPv4 with the right header checksum, from 10.1.0.1 to the gateway's 10.0.0.1 (`10`) or from
/// there to 10.1.0.1 (`11`); without a UDP checksum.
fn echo(direction: u8, number: u8) -> Vec<u8> {
    let (src, dst) = match direction {
        10 => ([10, 1, 0, 1], [10, 0, 0, 1]),
        _ => ([10, 0, 0, 1], [10, 1, 0, 1]),
    };
    let mut packet = vec![0x45, 0, 0, 29, 0, number, 0x40, 0, 64, 17, 0, 0];
    packet.extend([src, dst].concat());
    packet.extend([0, 9, 0, 9, 0, 9, 0, 0, number]);
    let sum = header_sum(&packet[..20]);
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet
}

/// Hellos, each with a time behind it: what is read is written the same, and a prober bears whatever they say.
pub fn hello(data: &[u8]) {
    let config = ProberConfig {
        paths: Vec::new(),
        uplinks: Vec::new(),
        inner_mtu: 1420,
    };
    let mut now = Time(1_000_000_000);
    let mut prober = Prober::new(config, 1, now);
    for chunk in data.chunks(HELLO_LEN + 8).take(64) {
        let Ok(hello) = Hello::parse(chunk) else {
            continue;
        };
        let mut again = [0; HELLO_LEN];
        assert_eq!(hello.write(&mut again), HELLO_LEN);
        assert_eq!(
            again,
            chunk[..HELLO_LEN],
            "what is read is written the same"
        );
        let mut wait = [0; 4];
        let behind = &chunk[HELLO_LEN..];
        let known = behind.len().min(4);
        wait[..known].copy_from_slice(&behind[..known]);
        now = now + Duration::from_micros(u64::from(u32::from_le_bytes(wait)));
        let arrival = Arrival {
            uplink: 255,
            remote: SocketAddr::from(([192, 0, 2, 1], 1 + u16::from(behind.last().is_some()))),
            local: None,
        };
        let path = prober.handle_hello(&arrival, &hello, chunk.len(), now);
        drain_prober(&mut prober, now);
        if let Some(path) = path {
            let _ = prober.metrics(path, now);
        }
        prober.handle_timeout(now);
        drain_prober(&mut prober, now);
        assert!(prober.poll_timeout().is_none_or(|at| at > now));
    }
}

fn drain_prober(prober: &mut Prober, now: Time) {
    let sent = std::iter::from_fn(|| prober.poll_transmit(now))
        .take(1000)
        .count();
    assert!(sent < 1000, "it never ends");
    while prober.poll_observation().is_some() {}
}
