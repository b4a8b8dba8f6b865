//! Which peer owns an inner address, on both ways.

use patronus_tunnel::WorkerId;

use super::*;
use crate::Unreachable;
use crate::sim::peer_id;

const C: SiteId = SiteId(2);

/// A hub A with two spokes. B owns 10.1.0.0/16; C owns 10.2.0.0/16 and, inside B's, 10.1.5.0/24.
fn hub(seed: u64, workers: usize) -> Net {
    let mut net = Net::mesh(
        seed,
        3,
        SiteOptions {
            workers,
            ..SiteOptions::default()
        },
    );
    net.edit_peer(A, peer_id(C), |spec| {
        spec.allowed_ips.push("10.1.5.0/24".parse().unwrap());
        spec.worker = WorkerId(workers as u8 - 1);
    });
    net.run_for(ROUND);
    net
}

fn from_host(site: SiteId, src: [u8; 4], number: u32) -> Vec<u8> {
    Packet {
        src: src.into(),
        ..Packet::udp(site, A, &payload(number, 10))
    }
    .build()
}

#[test]
fn only_the_most_specific_owner_may_send_from_an_address() {
    for workers in 1..=2 {
        let mut net = hub(0xd1, workers);
        let drops = drops_during(&mut net, A, |net| {
            net.send(C, 0, &from_host(C, [10, 1, 5, 1], 1));
            net.send(B, 0, &from_host(B, [10, 1, 4, 1], 2));
            net.run_for(ROUND);
            assert_eq!(net.take_delivered(A).len(), 2);
            net.send(B, 0, &from_host(B, [10, 1, 5, 1], 3));
            net.send(C, 0, &from_host(C, [10, 1, 4, 1], 4));
            net.run_for(ROUND);
        });
        assert_eq!(drops, [(DropReason::InnerSource, 2)]);
        assert!(net.take_delivered(A).is_empty());
    }
}

#[test]
fn the_most_specific_owner_gets_what_is_sent() {
    let mut net = hub(0xd2, 1);
    net.take_captured();
    for (dst, owner) in [([10, 1, 5, 9], C), ([10, 1, 6, 9], B), ([10, 2, 0, 1], C)] {
        net.send(
            A,
            0,
            &Packet {
                dst: dst.into(),
                ..Packet::udp(A, B, &payload(1, 1))
            }
            .build(),
        );
        let sent = net.take_captured();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].to, net.site(owner).outer(), "{dst:?}");
    }
}

#[test]
fn a_spoofed_source_is_dropped_and_opens_no_flow() {
    let mut net = hub(0xd3, 1);
    for (number, src) in [
        [10, 2, 0, 1],
        [10, 0, 0, 1],
        [8, 8, 8, 8],
        [0, 0, 0, 0],
        [255, 255, 255, 255],
    ]
    .iter()
    .enumerate()
    {
        let drops = drops_during(&mut net, A, |net| {
            net.send(B, 0, &from_host(B, *src, number as u32));
            net.run_for(ROUND);
        });
        assert_eq!(drops, [(DropReason::InnerSource, 1)], "{src:?}");
    }
    assert_eq!(net.site(A).counters().flows_opened, 0);
    assert!(net.take_delivered(A).is_empty());
}

#[test]
fn a_spoofer_cannot_ride_on_the_flow_of_another_peer() {
    let mut net = hub(0xd4, 1);
    let genuine = from_host(C, [10, 2, 0, 1], 1);
    net.send(C, 0, &genuine);
    net.run_for(ROUND);
    assert_eq!(net.take_delivered(A).len(), 1);
    // B sends the same five-tuple, in the same batch and in one of its own.
    let drops = drops_during(&mut net, A, |net| {
        net.send(B, 0, &genuine);
        net.send(C, 0, &genuine);
        net.send(B, 0, &genuine);
        net.run_for(ROUND);
    });
    assert_eq!(drops, [(DropReason::InnerSource, 2)]);
    assert_eq!(net.take_delivered(A).len(), 1);
    let flow = net.site(A).engine(0).flow_table().flows(0).next().unwrap();
    assert_eq!((flow.peer, flow.packets), (peer_id(C), 2));
}

#[test]
fn one_five_tuple_through_two_peers_is_two_flows_on_the_hub() {
    for workers in 1..=2 {
        let mut net = hub(0xd5, workers);
        let packet = Packet::udp(B, C, &payload(1, 30)).build();
        // B's packet for C goes to the hub, whose kernel routes it back into the TUN.
        net.edit(B, |specs| {
            let prefixes = specs.remove(&peer_id(C)).unwrap().allowed_ips;
            specs
                .get_mut(&peer_id(A))
                .unwrap()
                .allowed_ips
                .extend(prefixes);
        });
        net.edit(C, |specs| {
            let prefixes = specs.remove(&peer_id(B)).unwrap().allowed_ips;
            specs
                .get_mut(&peer_id(A))
                .unwrap()
                .allowed_ips
                .extend(prefixes);
        });
        for round in 1..=3 {
            net.send(B, 0, &packet);
            net.run_for(ROUND);
            let forwarded = net.take_delivered(A);
            assert_eq!(forwarded, std::slice::from_ref(&packet));
            net.send(A, 0, &forwarded[0]);
            net.run_for(ROUND);
            assert_eq!(
                net.take_delivered(C),
                std::slice::from_ref(&packet),
                "{workers} workers, round {round}"
            );
            let tables: Vec<_> = (0..workers)
                .map(|worker| net.site(A).engine(worker).flow_table())
                .collect();
            let flows: Vec<_> = tables.iter().flat_map(|table| table.flows(0)).collect();
            let by_peer = |id| {
                flows
                    .iter()
                    .filter(|flow| flow.peer == id)
                    .map(|flow| flow.packets)
                    .sum::<u32>()
            };
            assert_eq!((by_peer(peer_id(B)), by_peer(peer_id(C))), (round, round));
        }
    }
}

#[test]
fn a_destination_without_an_owner_is_dropped() {
    let mut net = pair(0xd6);
    let drops = drops_during(&mut net, A, |net| {
        net.send(
            A,
            0,
            &Packet {
                dst: [8, 8, 8, 8].into(),
                ..Packet::udp(A, B, &payload(1, 1))
            }
            .build(),
        );
        net.send(
            A,
            0,
            &Packet {
                dst: "2001:db8::1".parse().unwrap(),
                ..Packet::udp(A, B, b"x").over_v6()
            }
            .build(),
        );
        net.send_frame(
            A,
            0,
            Packet {
                dst: [9, 9, 9, 9].into(),
                ..Packet::tcp(A, B, &[0; 3000])
            }
            .superpacket(1000),
        );
    });
    assert_eq!(drops, [(DropReason::NoRoute, 5)]);
    assert_works(&mut net);
}

#[test]
fn a_default_route_takes_what_nobody_else_owns() {
    let mut net = pair(0xd7);
    net.edit_peer(A, peer_id(B), |spec| {
        spec.allowed_ips
            .extend(["0.0.0.0/0", "::/0"].map(|text| text.parse::<Prefix>().unwrap()))
    });
    net.take_captured();
    net.send(
        A,
        0,
        &Packet {
            dst: [8, 8, 8, 8].into(),
            ..Packet::udp(A, B, &payload(1, 1))
        }
        .build(),
    );
    net.send(
        A,
        0,
        &Packet {
            dst: "2001:db8::1".parse().unwrap(),
            ..Packet::udp(A, B, b"x").over_v6()
        }
        .build(),
    );
    assert_eq!(count_type(&net, 4), 2);
}

#[test]
fn traffic_of_both_directions_is_counted_in_one_flow() {
    let mut net = pair(0xd8);
    let before = net.site(A).counters().flows_opened;
    let there = Packet {
        ports: (1000, 2000),
        ..Packet::udp(A, B, &payload(1, 50))
    };
    let back = Packet {
        ports: (2000, 1000),
        ..Packet::udp(B, A, &payload(1, 70))
    };
    for _ in 0..3 {
        net.send(A, 0, &there.build());
        net.send(B, 0, &back.build());
        net.run_for(ROUND);
    }
    assert_eq!(net.site(A).counters().flows_opened, before + 1);
    let flows = net.site(A).engine(0).flow_table().flows(0);
    let flow = flows
        .into_iter()
        .find(|flow| flow.key.src_port == 1000)
        .unwrap();
    assert_eq!(flow.packets, 6);
    assert_eq!(
        flow.bytes,
        3 * (there.build().len() + back.build().len()) as u64
    );
    let stats = &net.site(A).spec(peer_id(B)).stats;
    assert!(stats.rx_bytes() > 0 && stats.tx_bytes() > 0);
}

/// A prefix of C at the hub A that does not answer; one host of it is asked for.
fn out_of_c(prefix: &str) -> Unreachable {
    Unreachable {
        peer: peer_id(C),
        prefix: prefix.parse().unwrap(),
        probes: vec![IpAddr::from([10, 1, 5, 10])],
    }
}

/// Sends a packet of the hub and tells which spoke has it.
#[track_caller]
fn spoke_of(net: &mut Net, packet: &Packet) -> SiteId {
    let packet = packet.build();
    net.take_delivered(B);
    net.take_delivered(C);
    net.send(A, 0, &packet);
    net.run_for(ROUND);
    let came = [B, C].map(|site| net.take_delivered(site).contains(&packet));
    match came {
        [true, false] => B,
        [false, true] => C,
        other => panic!("{other:?}"),
    }
}

fn to_host(dst: [u8; 4], protocol: u8) -> Packet {
    Packet {
        dst: dst.into(),
        protocol,
        ..Packet::udp(A, C, &payload(1, 20))
    }
}

#[test]
fn a_prefix_that_does_not_answer_goes_to_the_owner_of_the_next_larger_one_until_it_does() {
    for workers in 1..=2 {
        let mut net = hub(0xd7, workers);
        let flow = to_host([10, 1, 5, 9], UDP);
        let elsewhere = to_host([10, 2, 0, 9], UDP);
        assert_eq!(spoke_of(&mut net, &flow), C);
        net.set_unreachable(A, vec![out_of_c("10.1.5.0/24")]);
        // The flow that is there moves with its next packet, and nothing else does.
        assert_eq!(spoke_of(&mut net, &flow), B);
        assert_eq!(spoke_of(&mut net, &elsewhere), C);
        // The question whether it answers again has to go where the answer is, all else does not.
        assert_eq!(spoke_of(&mut net, &to_host([10, 1, 5, 10], UDP)), B);
        let ping = Packet {
            ports: (0x0800, 0),
            ..to_host([10, 1, 5, 10], patronus_packet::parse::ICMP)
        };
        assert_eq!(spoke_of(&mut net, &ping), C);
        // Answers are taken from both, and leave the flow where it is.
        let drops = drops_during(&mut net, A, |net| {
            net.take_delivered(A);
            for (site, number) in [(B, 1), (C, 2)] {
                let answer = Packet {
                    src: flow.dst,
                    dst: flow.src,
                    ports: (flow.ports.1, flow.ports.0),
                    ..Packet::udp(site, A, &payload(number, 10))
                };
                net.send(site, 0, &answer.build());
                net.run_for(ROUND);
            }
            assert_eq!(net.take_delivered(A).len(), 2);
        });
        assert_eq!(drops, []);
        assert_eq!(spoke_of(&mut net, &flow), B);
        // Still nobody may send from what is not theirs.
        let drops = drops_during(&mut net, A, |net| {
            net.send(B, 0, &from_host(B, [10, 2, 0, 1], 3));
            net.run_for(ROUND);
        });
        assert_eq!(drops, [(DropReason::InnerSource, 1)]);
        net.set_unreachable(A, Vec::new());
        assert_eq!(spoke_of(&mut net, &flow), C);
        let drops = drops_during(&mut net, A, |net| {
            net.send(B, 0, &from_host(B, [10, 1, 5, 1], 4));
            net.run_for(ROUND);
        });
        assert_eq!(drops, [(DropReason::InnerSource, 1)]);
    }
}

#[test]
fn what_has_no_other_way_is_sent_as_ever() {
    let mut net = hub(0xd8, 1);
    // No peer has more than this one, and one that does not answer itself is no way either.
    let b = Unreachable {
        peer: peer_id(B),
        prefix: "10.1.0.0/16".parse().unwrap(),
        probes: Vec::new(),
    };
    // A prefix that the peer does not own says nothing.
    let unowned = out_of_c("10.1.0.0/16");
    for unreachable in [
        vec![out_of_c("10.2.0.0/16")],
        vec![out_of_c("10.1.5.0/24"), b],
        vec![unowned],
    ] {
        net.set_unreachable(A, unreachable);
        assert_eq!(spoke_of(&mut net, &to_host([10, 1, 5, 9], UDP)), C);
        assert_eq!(spoke_of(&mut net, &to_host([10, 2, 0, 9], UDP)), C);
        assert_eq!(spoke_of(&mut net, &to_host([10, 1, 6, 9], UDP)), B);
    }
}
