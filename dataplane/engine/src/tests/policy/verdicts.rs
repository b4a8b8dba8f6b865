//! The whole engine says what the tables say.

use patronus_policy::model::{Change, Connection};
use patronus_policy::scale;

use super::*;
use crate::sim::Dice;

const CLUSTERS: u64 = 10;
const FLOWS: u32 = 10_000;
const PODS: usize = 60;
const POLICIES: usize = 60;

/// A random cluster whose pods live behind both sites: every second one moves to the other.
fn cluster(seed: u64) -> Arc<PolicyTable> {
    let mut changes = scale::cluster(POLICIES, PODS, seed);
    let mut number = 0;
    for change in &mut changes {
        let Change::SetPod(pod) = change else {
            continue;
        };
        for addr in &mut pod.ips {
            *addr = address(number, addr.is_ipv6());
        }
        number += 1;
    }
    Compiler::fresh(seed, changes).table()
}

/// Where pod `number` lives; beyond the last pod these are outside addresses.
fn address(number: usize, is_v6: bool) -> IpAddr {
    let (site, host) = ((number % 2) as u8, number as u8);
    match is_v6 {
        true => IpAddr::from([0xfd00, u16::from(site), 0, 0, 0, 0, 0, u16::from(host)]),
        false => IpAddr::from([10, site, 0, host]),
    }
}

fn random_flow(dice: &mut Dice, number: u32) -> (SiteId, Packet) {
    let is_v6 = dice.chance(0.2);
    let (mut from, mut to) = (
        dice.below(PODS / 2 + 5) * 2,
        dice.below(PODS / 2 + 5) * 2 + 1,
    );
    if is_v6 {
        // Only every tenth pod has an address of that family.
        (from, to) = (from / 10 * 10, to / 10 * 10 + 1);
    }
    let from_site = if dice.chance(0.5) {
        A
    } else {
        std::mem::swap(&mut from, &mut to);
        B
    };
    let ports = [80, 443, 8080, 8500, 8999, 53, 9999];
    let packet = Packet {
        src: address(from, is_v6),
        dst: address(to, is_v6),
        protocol: [TCP, UDP, SCTP, ICMP][dice.below(4)],
        // No two flows of one world have the same name.
        ports: (1 + number as u16, ports[dice.below(ports.len())]),
        flags: if dice.chance(0.5) { SYN } else { ACK },
        ..Packet::udp(A, B, b"x")
    };
    (from_site, packet)
}

fn build(packet: &Packet) -> Vec<u8> {
    match packet.protocol {
        TCP | UDP => packet.build(),
        SCTP => {
            let mut body = [packet.ports.0.to_be_bytes(), packet.ports.1.to_be_bytes()].concat();
            body.extend([0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 4]);
            let header = ip_header(packet.src, packet.dst, SCTP, 3, body.len());
            [header, body].concat()
        }
        _ => {
            let kind = if packet.src.is_ipv4() { 8 } else { 128 };
            let id = packet.ports.0.to_be_bytes();
            icmp(packet.src, packet.dst, &[kind, 0, 0, 0, id[0], id[1], 0, 1])
        }
    }
}

#[test]
fn a_hundred_thousand_random_flows_get_the_verdict_that_explain_gives() {
    let mut said = [0u32; 2];
    for seed in 0..CLUSTERS {
        let seed = 0x5eed_0000 + seed;
        let table = cluster(seed);
        // One gateway judges what goes out and what comes in; the other forwards everything.
        let options = SiteOptions {
            workers: 1 + seed as usize % 2,
            ..SiteOptions::default()
        };
        let mut net = pair_of(seed, options);
        let enforced = Policy {
            table: table.clone(),
            ..policy(&[])
        };
        net.set_policy(A, Some(enforced));
        let mut dice = Dice::new(seed);
        for number in 0..FLOWS {
            let (from, packet) = random_flow(&mut dice, number);
            let bytes = build(&packet);
            let info = patronus_packet::parse(&bytes).unwrap();
            let conn = Connection {
                src: packet.src,
                dst: packet.dst,
                protocol: info.protocol(),
                dst_port: if matches!(packet.protocol, TCP | UDP | SCTP) {
                    packet.ports.1
                } else {
                    0
                },
            };
            let worker = dice.below(options.workers);
            net.send(from, worker, &bytes);
            net.settle();
            let to = if from == A { B } else { A };
            let passed = !net.take_delivered(to).is_empty();
            let explained = table.explain(&conn);
            assert_eq!(
                passed, explained.verdict.allow,
                "seed {seed:#x}, flow {number}: {explained}"
            );
            said[usize::from(passed)] += 1;
        }
        net.take_captured();
    }
    assert!(
        said.iter().all(|count| *count > 10_000),
        "denied and allowed: {said:?}"
    );
}
