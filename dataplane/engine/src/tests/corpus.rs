//! The committed inputs, and seeded mutations of them, through a whole engine: nothing panics, the books balance,
//! and the tunnel works afterwards. A crash that a fuzzer finds becomes one more file.

use std::path::{Path, PathBuf};

use patronus_packet::vnet::VNET_HEADER_LEN;
use patronus_packet::{Endpoint, UdpFrame};

use super::*;
use crate::sim::Dice;

/// Mutations of each file.
const MUTATIONS: usize = 300;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

fn files(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(name)).expect("the corpus is committed");
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{name} has {} files", files.len());
    files
}

fn mutated(dice: &mut Dice, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len().max(1));
        match dice.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
            2 => bytes.truncate(at),
            3 => {
                let len = dice.below(64);
                bytes.extend(dice.bytes(len));
            }
            4 if bytes.len() > 2 => {
                let value = [0u16, 1, 20, 40, 1500, 0xffff][dice.below(6)].to_be_bytes();
                let at = at.min(bytes.len() - 2);
                bytes[at..at + 2].copy_from_slice(&value);
            }
            _ => {
                let tail = bytes.split_off(at.min(bytes.len()));
                bytes.extend(dice.bytes(2));
                bytes.extend(tail);
            }
        }
    }
    bytes
}

/// A gateway of two workers whose second owns the peer, and an index of a live session of it.
fn world(seed: u64) -> (Net, [u8; 4]) {
    let mut net = pair_of(
        seed,
        SiteOptions {
            workers: 2,
            handshakes_per_s: 50,
            ..SiteOptions::default()
        },
    );
    net.send(B, 0, &Packet::udp(B, A, b"x").build());
    let index = net.captured[0].bytes[4..8].try_into().unwrap();
    net.settle();
    net.take_captured();
    net.take_delivered(A);
    (net, index)
}

fn feed_outer(net: &mut Net, bytes: &[u8], dice: &mut Dice) {
    let frame = UdpFrame {
        buf: FrameBuf::from_data(bytes),
        segment_len: [0, 0, 32, 64, 92, 148, 1, 0xffff][dice.below(8)],
        endpoint: Endpoint::from(SocketAddr::from(([203, 0, 113, 5], dice.below(3) as u16))),
        tos: 0,
    };
    net.inject_frame(A, dice.below(2), frame);
}

#[test]
fn outer_datagrams_of_the_corpus_and_their_mutations_are_harmless() {
    for (name, bytes) in files("outer") {
        let (mut net, index) = world(0xc0);
        let mut dice = Dice::new(name.len() as u64);
        net.inject(SocketAddr::from(([203, 0, 113, 5], 9)), A, &bytes);
        for round in 0..MUTATIONS {
            let mut bytes = mutated(&mut dice, &bytes);
            if round % 2 == 0 && bytes.len() >= 12 {
                // A live index, where this type has its own.
                let at = if bytes[0] == 2 { 8 } else { 4 };
                bytes[at..at + 4].copy_from_slice(&index);
            }
            feed_outer(&mut net, &bytes, &mut dice);
        }
        assert!(net.take_delivered(A).is_empty(), "{name}");
        net.run_for(ROUND);
        assert_works(&mut net);
    }
}

#[test]
fn inner_packets_of_the_corpus_and_their_mutations_are_harmless() {
    for (name, bytes) in files("tun") {
        let mut net = Net::new(0xc1);
        net.add_site(SiteOptions::default());
        let mut stock = Stock::join(&mut net, A);
        stock.connect(&mut net);
        let mut dice = Dice::new(name.len() as u64);
        let inner = bytes.get(VNET_HEADER_LEN..).unwrap_or_default();
        for _ in 0..MUTATIONS {
            let plaintext = mutated(&mut dice, inner);
            stock.send(&mut net, &plaintext[..plaintext.len().min(60_000)]);
        }
        net.run_for(ROUND);
        stock.assert_works(&mut net);
    }
}

#[test]
fn tun_frames_of_the_corpus_and_their_mutations_are_harmless() {
    for (name, bytes) in files("tun") {
        let (mut net, _) = world(0xc2);
        let mut dice = Dice::new(name.len() as u64);
        let feed = |net: &mut Net, bytes: &[u8], worker| {
            let Some((header, packet)) = bytes.split_first_chunk::<VNET_HEADER_LEN>() else {
                return;
            };
            let frame = TunFrame {
                vnet: VnetHeader::from_bytes(header),
                buf: FrameBuf::from_data(packet),
            };
            net.send_frame(A, worker, frame);
        };
        feed(&mut net, &bytes, 0);
        for _ in 0..MUTATIONS {
            let bytes = mutated(&mut dice, &bytes);
            feed(&mut net, &bytes, dice.below(2));
        }
        net.run_for(ROUND);
        assert_eq!(net.site(A).counters().staged, 0, "{name}");
        assert_works(&mut net);
    }
}

/// Writes the first generation of the corpus; files that were added by hand stay.
#[test]
#[ignore = "writes into tests/corpus"]
fn write_the_corpus() {
    let save = |kind: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(folder(kind)).unwrap();
        std::fs::write(folder(kind).join(name), bytes).unwrap();
    };
    let mut net = Net::mesh(
        0xc3,
        2,
        SiteOptions {
            handshakes_per_s: 2,
            ..SiteOptions::default()
        },
    );
    net.run_for(ROUND);
    let mut stranger = Stock::stranger(&net, A);
    let initiation = stranger.initiation();
    (0..3).for_each(|_| net.inject(stranger.addr, A, &initiation));
    net.send(A, 0, &Packet::udp(A, B, b"a short one").build());
    net.send(A, 0, &Packet::tcp(A, B, &[1; 1380]).build());
    for (kind, name) in [
        (1, "initiation"),
        (2, "response"),
        (3, "cookie"),
        (4, "keepalive"),
    ] {
        let datagram = net
            .captured
            .iter()
            .find(|datagram| datagram.bytes[0] == kind)
            .unwrap();
        save("outer", name, &datagram.bytes);
    }
    let newest = &net.captured[net.captured.len() - 2..];
    save("outer", "data-short", &newest[0].bytes);
    save("outer", "data-full", &newest[1].bytes);
    save("outer", "train", &newest[0].bytes.repeat(20));
    save("outer", "empty", &[]);
    save("outer", "type-only", &[4, 0, 0, 0]);
    save("outer", "unknown-type", &[9; 148]);
    save("outer", "zeros", &[0; 148]);
    save(
        "outer",
        "stun",
        &[&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat(),
    );

    let tun = |name: &str, frame: &TunFrame| {
        save(
            "tun",
            name,
            &[&frame.vnet.to_bytes()[..], frame.buf.data()].concat(),
        );
    };
    for (name, packet) in [
        ("udp", Packet::udp(A, B, &[2; 3000])),
        ("tcp", Packet::tcp(A, B, &[2; 3000])),
    ] {
        for (family, packet) in [("v4", packet.clone()), ("v6", packet.over_v6())] {
            let single = Packet {
                payload: vec![3; 64],
                ..packet.clone()
            };
            let whole = TunFrame {
                buf: FrameBuf::from_data(&single.build()),
                ..TunFrame::default()
            };
            tun(&format!("{name}-{family}"), &whole);
            let mut partial = single.superpacket(64);
            partial.vnet.gso_type = 0;
            tun(&format!("{name}-{family}-checksum"), &partial);
            tun(
                &format!("{name}-{family}-superpacket"),
                &packet.superpacket(1000),
            );
        }
    }
    let mut echo = ip_header(host(A, 1), host(B, 1), 1, 9, 16);
    echo.extend([8, 0, 0, 0, 1, 2, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]);
    tun(
        "icmp-echo",
        &TunFrame {
            buf: FrameBuf::from_data(&echo),
            ..TunFrame::default()
        },
    );
}
