//! Packets that wait for a handshake.

use patronus_tunnel::peer::STAGED_MAX;

use super::*;

fn numbered(count: u32) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            Packet {
                id: number as u16,
                ..Packet::udp(A, B, &payload(number, 50))
            }
            .build()
        })
        .collect()
}

#[test]
fn what_waits_is_sent_in_order_when_the_handshake_is_done() {
    let mut net = Net::mesh(0xe1, 2, SiteOptions::default());
    let packets = numbered(STAGED_MAX as u32);
    for packet in &packets {
        net.send(A, 0, packet);
    }
    let counters = net.site(A).counters();
    assert_eq!((counters.staged, counters.tx_udp), (STAGED_MAX as u64, 0));
    assert_eq!(
        count_type(&net, 1),
        1,
        "one initiation, however many packets"
    );
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == packets);
    let counters = net.site(A).counters();
    assert_eq!(
        (counters.staged, counters.tx_udp, counters.dropped()),
        (0, STAGED_MAX as u64, 0)
    );
}

#[test]
fn the_oldest_makes_room_when_128_wait() {
    let mut net = Net::mesh(0xe2, 2, SiteOptions::default());
    let packets = numbered(200);
    let drops = drops_during(&mut net, A, |net| {
        for packet in &packets {
            net.send(A, 0, packet);
        }
    });
    assert_eq!(drops, [(DropReason::StagedOverflow, 72)]);
    assert_eq!(net.site(A).counters().staged, 128);
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == packets[72..]);
}

#[test]
fn a_superpacket_waits_as_its_segments() {
    let mut net = Net::mesh(0xe3, 2, SiteOptions::default());
    let packet = Packet::tcp(A, B, &payload(1, 60_000));
    net.send_frame(A, 0, packet.superpacket(1380));
    let segments = packet.segments(1380);
    assert_eq!(net.site(A).counters().staged, segments.len() as u64);
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == segments);
}

#[test]
fn what_comes_in_on_another_worker_waits_at_the_owner() {
    let mut net = Net::mesh(
        0xe4,
        2,
        SiteOptions {
            workers: 2,
            ..SiteOptions::default()
        },
    );
    let packets = numbered(10);
    for packet in &packets {
        net.send(A, 1, packet);
    }
    assert_eq!(net.site(A).engine(0).counters().staged, 10);
    assert_eq!(net.site(A).engine(1).counters().staged, 0);
    net.run_for(ROUND);
    assert!(net.take_delivered(B) == packets);
}

#[test]
fn what_waits_for_many_peers_is_flushed_though_it_exceeds_one_batch() {
    // 24 peers, 128 packets of 1400 bytes each: four times the output's memory.
    let spokes = 24;
    let mut net = Net::new(0xe5);
    let hub = net.add_site(SiteOptions {
        handshakes_per_s: 10_000,
        ..SiteOptions::default()
    });
    for _ in 0..spokes {
        let spoke = net.add_site(SiteOptions::default());
        net.connect(hub, spoke);
    }
    for spoke in 1..=spokes {
        for number in 0..STAGED_MAX as u32 {
            let packet = Packet {
                id: number as u16,
                ..Packet::udp(hub, SiteId(spoke), &payload(number, 1300))
            };
            net.send(hub, 0, &packet.build());
        }
    }
    assert_eq!(
        net.site(hub).counters().staged,
        (spokes * STAGED_MAX) as u64
    );
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.site(hub).counters().staged, 0);
    for spoke in 1..=spokes {
        assert_eq!(
            net.take_delivered(SiteId(spoke)).len(),
            STAGED_MAX,
            "spoke {spoke}"
        );
    }
}

#[test]
fn answers_find_room_in_the_batch_that_a_flush_fills() {
    // One frame: the first datagram frees 128 packets of 61000 bytes, seven batches full; all others are
    // initiations that want an answer.
    let mut net = Net::new(0xe6);
    net.add_site(SiteOptions {
        handshakes_per_s: u64::MAX,
        ..SiteOptions::default()
    });
    let mut stock = Stock::join(&mut net, A);
    let initiation = stock.initiation();
    net.inject(stock.addr, A, &initiation);
    let big = Packet::udp(A, SiteId(100), &vec![1; 61_000 - 28]).build();
    (0..STAGED_MAX).for_each(|_| net.send(A, 0, &big));
    net.run_for(ROUND);
    let response = net.take_outside(stock.addr).remove(0);
    stock.open(&net, &response);
    let mut train = vec![stock.seal(&[0x45; 116])];
    for number in 0..200 {
        let mut stranger = Stock::stranger(&net, A);
        let spec = stranger.spec(&net);
        net.add_peer(
            A,
            PeerSpec {
                id: PeerId(200 + number),
                allowed_ips: Vec::new(),
                ..spec
            },
        );
        train.push(stranger.initiation());
    }
    assert!(
        train
            .iter()
            .all(|datagram| datagram.len() == train[0].len())
    );
    net.take_captured();
    net.inject_frame(A, 0, crate::sim::udp_frame(stock.addr, None, &train));
    net.run_for(ROUND);
    assert_eq!(count_type(&net, 2), 200);
    assert_eq!(count_type(&net, 4), STAGED_MAX);
    assert_eq!(net.site(A).counters().staged, 0);
}
