//! Joining: identity with cutting, order, and everything that must not be joined.

mod common;

use common::{ACK, CWR, Dice, FIN, PSH, SYN, Spec, TCP, UDP, check_join, finish_checksums};
use patronus_packet::{Cutter, Joining, Padding, TunBatch, parse};
use proptest::prelude::*;

const BOTH: Joining = Joining {
    tcp: true,
    udp: true,
};

fn any_joinable_superpacket() -> impl Strategy<Value = (Spec, usize)> {
    let network = (
        any::<bool>(),
        any::<bool>(),
        any::<u8>(),
        any::<u8>(),
        any::<u16>(),
        any::<bool>(),
    );
    let transport = (any::<u32>(), any::<u32>(), any::<bool>(), 0usize..=10);
    let shape = (2usize..60, 1usize..1100, 0.01..1.0f64, any::<u64>());
    (network, transport, shape).prop_map(|(network, transport, shape)| {
        let (is_v6, is_tcp, tos, ttl, id, has_df) = network;
        let (seq, ack, has_psh, tcp_words) = transport;
        let (count, gso_size, last, seed) = shape;
        let mut dice = Dice(seed);
        let last_len = ((gso_size as f64 * last) as usize).max(1);
        let spec = Spec {
            is_v6,
            protocol: if is_tcp { TCP } else { UDP },
            tos,
            ttl,
            id,
            has_df,
            flow_label: id,
            seq,
            ack,
            flags: if has_psh { ACK | PSH } else { ACK },
            tcp_options: dice.bytes(tcp_words * 4),
            payload: dice.bytes((count - 1) * gso_size + last_len),
            ..Spec::default()
        };
        (spec, gso_size)
    })
}

/// One step of a flow: mostly the next full segment, sometimes anything else that can happen.
fn next_packet(spec: &mut Spec, dice: &mut Dice) -> Vec<u8> {
    let full = 100 + usize::from(spec.hosts.0) * 8;
    let event = dice.below(80);
    let len = match event {
        0 => 0,
        1 => dice.below(full) + 1,
        2 => full + 1 + dice.below(50),
        _ => full,
    };
    spec.payload = dice.bytes(len);
    spec.flags = match event {
        3 => ACK | PSH,
        4 => ACK | FIN,
        5 => SYN,
        6 => ACK | CWR,
        _ => ACK,
    };
    let jump = [0, 1, 0xffff_0000][dice.below(3)];
    match event {
        7 => spec.seq = spec.seq.wrapping_add(jump),
        8 => spec.ack = spec.ack.wrapping_add(1),
        9 => spec.window ^= 1,
        10 => spec.ttl ^= 1,
        11 => spec.tos ^= 3,
        12 => spec.has_df = !spec.has_df,
        13 => spec.id = spec.id.wrapping_add(5),
        14 => spec.flow_label ^= 1,
        15 => spec.tcp_options = dice.bytes(spec.tcp_options.len() ^ 4),
        16 => spec.extensions = 1,
        17 => spec.ip_options = dice.bytes(4),
        _ => {}
    }
    let mut packet = spec.build();
    let transport_at = spec.transport_offset();
    match event {
        18 => {
            let at = dice.below(packet.len() - transport_at) + transport_at;
            if spec.protocol == UDP || at < transport_at + 12 || at > transport_at + 13 {
                packet[at] ^= 1 << dice.below(8);
            }
        }
        19 if spec.protocol == UDP => packet[transport_at + 6..transport_at + 8].fill(0),
        20 if !spec.is_v6 => {
            packet[6] |= 0x20;
            finish_checksums(&mut packet);
        }
        21 if !spec.is_v6 => {
            packet[7] = 4;
            finish_checksums(&mut packet);
        }
        22 if !spec.is_v6 => packet[10] ^= 1,
        _ => {}
    }
    spec.seq = spec.seq.wrapping_add(len as u32);
    spec.id = spec.id.wrapping_add(1);
    spec.extensions = 0;
    spec.ip_options.clear();
    packet
}

fn mixed_flows(seed: u64, flows: usize, count: usize, run: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice(seed);
    let mut specs: Vec<Spec> = (0..flows)
        .map(|flow| Spec {
            is_v6: dice.below(3) == 0,
            protocol: if dice.below(3) == 0 { UDP } else { TCP },
            // Few addresses and ports: flows share the one or the other.
            hosts: (dice.below(3) as u8, dice.below(2) as u8 + 10),
            ports: (flow as u16 / 2, dice.below(2) as u16),
            seq: dice.roll() as u32,
            has_df: dice.below(2) == 0,
            ..Spec::default()
        })
        .collect();
    let mut packets = Vec::new();
    while packets.len() < count {
        let flow = dice.below(flows);
        for _ in 0..=dice.below(run) {
            packets.push(next_packet(&mut specs[flow], &mut dice));
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cut_then_join_is_identity((spec, gso_size) in any_joinable_superpacket()) {
        let original = spec.frame(gso_size);
        let mut frame = spec.frame(gso_size);
        let info = parse(frame.buf.data()).unwrap();
        let mut cutter = Cutter::new(&mut frame, &info).unwrap();
        let mut batch = TunBatch::new(1 << 18, BOTH);
        while let Some(segment) = cutter.next_segment(Padding { mtu: 1420 }) {
            batch.room()[..segment.padded.len()].copy_from_slice(segment.padded);
            let info = parse(segment.padded).unwrap();
            batch.commit(segment.packet_len, &info);
        }
        batch.finish();
        let writes: Vec<_> = batch.writes().collect();
        prop_assert_eq!(writes.len(), 1);
        prop_assert_eq!(writes[0].vnet, original.vnet);
        let bytes = writes[0].fragments().collect::<Vec<_>>().concat();
        prop_assert_eq!(&bytes[..], original.buf.data());
    }

    #[test]
    fn any_mix_of_flows_arrives_whole_and_in_order(
        seed in any::<u64>(),
        flows in 1usize..40,
        run in 1usize..40,
        tcp in any::<bool>(),
        udp in any::<bool>(),
    ) {
        let packets = mixed_flows(seed, flows, 250, run);
        let shape = check_join(&packets, Joining { tcp, udp });
        if !tcp && !udp {
            prop_assert!(shape.iter().all(|packets| *packets == 1));
        }
    }
}

#[test]
fn a_mix_of_flows_does_get_joined() {
    let packets = mixed_flows(42, 6, 1000, 20);
    let shape = check_join(&packets, BOTH);
    assert!(shape.len() * 2 < packets.len(), "{} writes", shape.len());
}

fn stream(spec: &Spec, lens: &[usize]) -> Vec<Spec> {
    let mut seq = spec.seq;
    lens.iter()
        .enumerate()
        .map(|(index, len)| {
            let packet = Spec {
                seq,
                id: spec.id + index as u16,
                payload: vec![index as u8; *len],
                ..spec.clone()
            };
            seq = seq.wrapping_add(*len as u32);
            packet
        })
        .collect()
}

fn shape_of(packets: &[Spec]) -> Vec<u32> {
    let built: Vec<_> = packets.iter().map(Spec::build).collect();
    check_join(&built, BOTH)
}

#[test]
fn a_shorter_packet_is_the_last_one() {
    for protocol in [TCP, UDP] {
        let spec = Spec {
            protocol,
            ..Spec::default()
        };
        assert_eq!(shape_of(&stream(&spec, &[100, 100, 40, 100, 100])), [3, 2]);
        assert_eq!(shape_of(&stream(&spec, &[100, 101, 101])), [1, 2]);
    }
}

#[test]
fn a_push_is_the_last_one_and_is_kept() {
    let mut packets = stream(&Spec::default(), &[100; 5]);
    packets[2].flags |= PSH;
    assert_eq!(shape_of(&packets), [3, 2]);
    packets[0].flags |= PSH;
    assert_eq!(shape_of(&packets), [1, 2, 2]);
}

#[test]
fn flows_that_take_turns_are_joined_each_for_itself() {
    let ours = stream(&Spec::default(), &[100; 4]);
    let other = Spec {
        ports: (40_001, 443),
        ..Spec::default()
    };
    let theirs = stream(&other, &[100; 4]);
    let mixed: Vec<Spec> = ours
        .into_iter()
        .zip(theirs)
        .flat_map(<[Spec; 2]>::from)
        .collect();
    assert_eq!(shape_of(&mixed), [4, 4]);
}

#[test]
fn each_difference_in_the_headers_separates() {
    let plain = stream(&Spec::default(), &[100; 4]);
    assert_eq!(shape_of(&plain), [4]);
    let changes: [fn(&mut Spec); 13] = [
        |spec| spec.seq += 1,
        |spec| spec.seq -= 100,
        |spec| spec.ack += 1,
        |spec| spec.window += 1,
        |spec| spec.ttl -= 1,
        |spec| spec.tos |= 3,
        |spec| spec.tos ^= 0x20,
        |spec| spec.has_df = false,
        |spec| spec.flags |= FIN,
        |spec| spec.flags |= CWR,
        |spec| spec.flags |= SYN,
        |spec| spec.tcp_options = vec![1; 4],
        |spec| spec.ip_options = vec![1; 4],
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut packets = plain.clone();
        change(&mut packets[2]);
        let shape = shape_of(&packets);
        assert!(shape.starts_with(&[2, 1]), "change {number}: {shape:?}");
    }
    let v6 = Spec {
        is_v6: true,
        ..Spec::default()
    };
    let changes: [fn(&mut Spec); 4] = [
        |spec| spec.flow_label += 1,
        |spec| spec.ttl -= 1,
        |spec| spec.tos |= 3,
        |spec| spec.extensions = 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut packets = stream(&v6, &[100; 4]);
        change(&mut packets[2]);
        assert_eq!(shape_of(&packets), [2, 1, 1], "change {number}");
    }
}

#[test]
fn identifications_must_count_on_only_without_df() {
    for (has_df, expected) in [(true, vec![3]), (false, vec![1, 1, 1])] {
        let spec = Spec {
            has_df,
            ..Spec::default()
        };
        let mut packets = stream(&spec, &[100; 3]);
        packets.iter_mut().for_each(|packet| packet.id = 0);
        assert_eq!(shape_of(&packets), expected);
    }
}

#[test]
fn damaged_packets_pass_untouched_and_alone() {
    for protocol in [TCP, UDP] {
        for damaged in 0..4 {
            let spec = Spec {
                protocol,
                ..Spec::default()
            };
            let mut packets: Vec<_> = stream(&spec, &[100; 4]).iter().map(Spec::build).collect();
            packets[damaged][90] ^= 1;
            let shape = check_join(&packets, BOTH);
            let expected = [vec![1, 3], vec![1, 1, 2], vec![2, 1, 1], vec![3, 1]];
            assert_eq!(shape, expected[damaged]);
        }
    }
}

#[test]
fn datagrams_without_checksum_or_payload_stay_alone() {
    let spec = Spec {
        protocol: UDP,
        ..Spec::default()
    };
    let mut packets: Vec<_> = stream(&spec, &[100; 3]).iter().map(Spec::build).collect();
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(check_join(&packets, BOTH), [1, 1, 1]);
    assert_eq!(shape_of(&stream(&spec, &[0, 0, 0])), [1, 1, 1]);
}

#[test]
fn a_datagram_without_checksum_stays_alone_even_where_zero_would_be_right() {
    let mut spec = Spec {
        protocol: UDP,
        payload: vec![0; 2],
        ..Spec::default()
    };
    spec.payload = spec.build()[26..28].to_vec();
    let mut packet = spec.build();
    assert_eq!(packet[26..28], [0xff, 0xff]);
    assert_eq!(check_join(&[packet.clone(), packet.clone()], BOTH), [2]);
    packet[26..28].fill(0);
    assert_eq!(check_join(&[packet.clone(), packet], BOTH), [1, 1]);
}

#[test]
fn a_packet_shorter_than_the_headers_of_the_first_stays_alone() {
    let mut packets = stream(
        &Spec {
            tcp_options: vec![1; 40],
            ..Spec::default()
        },
        &[100, 5],
    );
    packets[1].tcp_options.clear();
    assert_eq!(shape_of(&packets), [1, 1]);
}

#[test]
fn a_fragment_is_not_overtaken_by_its_neighbours() {
    let spec = Spec {
        protocol: UDP,
        has_df: false,
        ..Spec::default()
    };
    let mut packets: Vec<_> = stream(&spec, &[100; 4]).iter().map(Spec::build).collect();
    let mut fragment = packets[0].clone();
    fragment[7] = 50;
    finish_checksums(&mut fragment);
    packets.insert(2, fragment);
    assert_eq!(check_join(&packets, BOTH), [2, 1, 2]);
}

#[test]
fn superpackets_stop_at_their_limits() {
    let udp = Spec {
        protocol: UDP,
        ..Spec::default()
    };
    assert_eq!(shape_of(&stream(&udp, &[10; 130])), [64, 64, 2]);
    assert_eq!(shape_of(&stream(&Spec::default(), &[10; 130])), [128, 2]);
    // 40 + 5 * 13099 is 65535.
    let fits = stream(&Spec::default(), &[13_099; 5]);
    assert_eq!(shape_of(&fits), [5]);
    let too_large = stream(&Spec::default(), &[13_100; 5]);
    assert_eq!(shape_of(&too_large), [4, 1]);
}

#[test]
fn more_flows_than_can_be_open_close_the_oldest() {
    let mut packets = Vec::new();
    for round in 0..2 {
        for flow in 0..17 {
            let spec = Spec {
                ports: (flow, 80),
                ..Spec::default()
            };
            packets.push(stream(&spec, &[100; 2]).swap_remove(round));
        }
    }
    // Flow 0 was closed when flow 16 came, and then each one before its second packet.
    assert_eq!(shape_of(&packets), vec![1; 34]);
    packets.retain(|packet| packet.ports.0 < 16);
    assert_eq!(shape_of(&packets), vec![2; 16]);
}

#[test]
fn what_may_be_joined_can_change_within_a_batch() {
    let mut batch = TunBatch::new(1 << 16, BOTH);
    let packets = stream(&Spec::default(), &[100; 4]);
    for (index, packet) in packets.iter().enumerate() {
        if index == 2 {
            batch.set_joining(Joining::default());
        }
        let bytes = packet.build();
        batch.room()[..bytes.len()].copy_from_slice(&bytes);
        batch.commit(bytes.len(), &parse(&bytes).unwrap());
    }
    batch.finish();
    let shape: Vec<u32> = batch.writes().map(|write| write.packets).collect();
    assert_eq!(shape, [2, 1, 1]);
}

#[test]
fn a_cleared_batch_starts_afresh() {
    let mut batch = TunBatch::new(1 << 16, BOTH);
    for _ in 0..3 {
        for packet in stream(&Spec::default(), &[100; 2]) {
            let bytes = packet.build();
            batch.room()[..bytes.len()].copy_from_slice(&bytes);
            batch.commit(bytes.len(), &parse(&bytes).unwrap());
        }
        batch.finish();
        assert_eq!(batch.writes().map(|write| write.packets).sum::<u32>(), 2);
        assert_eq!(batch.writes().count(), 1);
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.free(), 1 << 16);
    }
}
