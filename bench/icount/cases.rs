//! What is counted: fixed work with fixed seeds. Keys are random; they change nothing per packet.

use std::hint::black_box;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use patronus_bench::cipher::Cipher;
use patronus_bench::traffic::{Shape, Toward, Traffic};
use patronus_bench::world::{MTU, World};
use patronus_engine::flow_table::FlowWriter;
use patronus_engine::{FlowTable, Generation, OpenedBy, PeerId};
use patronus_packet::batch::BYTES_PER_ENTRY;
use patronus_packet::{Cutter, FlowKey, Joining, PacketInfo, Padding, TunBatch, TunFrame, parse};

/// All cases, and how many rounds the shorter of their two runs has.
pub const CASES: [(&str, u64); 13] = [
    ("cipher-seal-1420", 500),
    ("cipher-open-1420", 500),
    ("parse", 20_000),
    ("flow-hit", 20_000),
    ("cut-45x1380", 40),
    ("join-45x1380", 40),
    ("seal-64", 100),
    ("seal-1420", 60),
    ("seal-45x1380", 4),
    ("open-64", 20),
    ("open-1420", 20),
    ("open-45x1380", 4),
    ("open-64-1000-flows-100-peers", 100),
];
const FLOWS: u64 = 1000;
const SEED: u64 = 7;
const BATCH: usize = 8;

/// Runs a case; returns how many packets it treated in functions that count.
pub fn run(name: &str, rounds: &str) -> Result<u64> {
    let rounds: u64 = rounds
        .parse()
        .with_context(|| format!("`{rounds}` rounds: a number is wanted"))?;
    let single = |len| Traffic::new(Shape::Packet(len), 1, 1);
    let bulk = || Traffic::new(Shape::BULK, 1, 1);
    match name {
        "cipher-seal-1420" => {
            Cipher::new(1420).seal(rounds);
            Ok(rounds)
        }
        "cipher-open-1420" => {
            Cipher::new(1420).open(rounds);
            Ok(rounds)
        }
        "parse" => Ok(parse_packets(rounds)),
        "flow-hit" => Ok(flow_hits(rounds)),
        "cut-45x1380" => Ok(cut(rounds)),
        "join-45x1380" => Ok(join(rounds)),
        "seal-64" => seal(single(64), rounds),
        "seal-1420" => seal(single(1420), rounds),
        "seal-45x1380" => seal(bulk(), rounds),
        "open-64" => open(single(64), 1, rounds),
        "open-1420" => open(single(1420), 1, rounds),
        "open-45x1380" => open(bulk(), 1, rounds),
        "open-64-1000-flows-100-peers" => {
            let traffic = Traffic::new(Shape::Packet(64), FLOWS, 100);
            open(traffic, 100, rounds)
        }
        unknown => bail!("no case `{unknown}`"),
    }
}

fn seal(traffic: Traffic, rounds: u64) -> Result<u64> {
    let mut world = World::new(traffic, 1, BATCH)?;
    let mut packets = 0;
    for _ in 0..rounds {
        packets += world.seal()?.packets;
    }
    Ok(packets)
}

fn open(traffic: Traffic, sites: usize, rounds: u64) -> Result<u64> {
    let mut world = World::new(traffic, sites, BATCH)?;
    let mut packets = 0;
    for _ in 0..rounds {
        packets += world.open()?.packets;
    }
    Ok(packets)
}

fn parse_packets(rounds: u64) -> u64 {
    let traffic = Traffic::new(Shape::Packet(1420), FLOWS, 1);
    let mut frame = TunFrame::default();
    traffic.fill(&mut frame, 0, Toward::Far);
    counted_parse(frame.buf.data(), rounds);
    rounds
}

#[inline(never)]
fn counted_parse(packet: &[u8], rounds: u64) {
    for _ in 0..rounds {
        let _ = black_box(parse(black_box(packet)));
    }
}

fn flow_hits(rounds: u64) -> u64 {
    let mut table = FlowTable::create(4 * FLOWS.next_power_of_two() as usize, SEED);
    let keys: Vec<FlowKey> = (0..FLOWS).map(flow_key).collect();
    for key in &keys {
        table.insert(key, PeerId(1), OpenedBy::Local, Generation(1), 0);
    }
    counted_flow_hits(&mut table, &keys, rounds);
    rounds
}

fn flow_key(number: u64) -> FlowKey {
    let port = 1024 + number as u16;
    let end = |last, port| SocketAddr::from(([10, 0, 0, last], port));
    let (src, dst) = (end(1, port), end(2, 443));
    FlowKey {
        src: src.ip(),
        dst: dst.ip(),
        src_port: src.port(),
        dst_port: dst.port(),
        protocol: 6,
    }
}

#[inline(never)]
fn counted_flow_hits(table: &mut FlowWriter, keys: &[FlowKey], rounds: u64) {
    for key in keys.iter().cycle().take(rounds as usize) {
        let Some(slot) = table.lookup(key, 0) else {
            continue;
        };
        black_box(table.verdict(slot, Generation(1)));
        table.touch(slot, 1, 1420, 0);
    }
}

fn cut(rounds: u64) -> u64 {
    let traffic = Traffic::new(Shape::BULK, 1, 1);
    let mut frame = TunFrame::default();
    let mut packets = 0;
    for n in 0..rounds {
        traffic.fill(&mut frame, n, Toward::Far);
        packets += counted_cut(&mut frame);
    }
    packets
}

#[inline(never)]
fn counted_cut(frame: &mut TunFrame) -> u64 {
    let mut packets = 0;
    if let Ok(info) = parse(frame.buf.data())
        && let Ok(mut cutter) = Cutter::new(frame, &info)
    {
        while let Some(segment) = cutter.next_segment(Padding { mtu: MTU }) {
            black_box(segment);
            packets += 1;
        }
    }
    packets
}

fn join(rounds: u64) -> u64 {
    let traffic = Traffic::new(Shape::BULK, 1, 1);
    let mut frame = TunFrame::default();
    let mut segments = Vec::new();
    let joining = Joining {
        tcp: true,
        udp: true,
    };
    let mut batch = TunBatch::new((64 << 10) + BYTES_PER_ENTRY * 64, joining);
    let mut packets = 0;
    for n in 0..rounds {
        traffic.fill(&mut frame, n, Toward::Hub);
        segments.clear();
        if let Ok(info) = parse(frame.buf.data())
            && let Ok(mut cutter) = Cutter::new(&mut frame, &info)
        {
            while let Some(segment) = cutter.next_segment(Padding { mtu: MTU }) {
                segments.push(segment.padded[..segment.packet_len].to_vec());
            }
        }
        for segment in &segments {
            let Ok(info) = parse(segment) else { continue };
            batch.room()[..segment.len()].copy_from_slice(segment);
            counted_join(&mut batch, &info);
            packets += 1;
        }
        batch.finish();
        batch.clear();
    }
    packets
}

#[inline(never)]
fn counted_join(batch: &mut TunBatch, info: &PacketInfo) {
    batch.commit(usize::from(info.total_len), info);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_treats_twice_as_many_packets_in_twice_as_many_rounds() {
        for (name, _) in CASES {
            let packets = run(name, "2").unwrap();
            assert!(packets >= 2, "{name}");
            assert_eq!(run(name, "4").unwrap(), 2 * packets, "{name}");
        }
    }

    #[test]
    fn an_unknown_case_and_no_number_are_refused() {
        assert!(run("brew-coffee", "1").is_err());
        assert!(run("parse", "many").is_err());
    }
}
