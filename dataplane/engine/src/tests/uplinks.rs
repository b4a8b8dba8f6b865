//! Sites with several uplinks, and what the ways between those do.

use patronus_impair::{DropReason as LinkDrop, Impairment, Loss, Probability, RateBps, Schedule};
use patronus_packet::UplinkId;

use super::*;
use crate::sim::{Captured, Uplink, peer_id};

const OPTIONS: SiteOptions = SiteOptions {
    workers: 1,
    mtu: 1420,
    joining: patronus_packet::Joining {
        tcp: true,
        udp: true,
    },
    trains: patronus_packet::TrainLimits {
        segments: 63,
        bytes: 65_000,
    },
    handshakes_per_s: 100,
    flow_slots: 1024,
    lanes: false,
    uplinks: 2,
};

/// Two sites of two uplinks each; A calls B on the uplink `to`, B waits.
fn called_on(seed: u64, to: u8) -> Net {
    let mut net = Net::new(seed);
    for _ in [A, B] {
        net.add_site(OPTIONS);
    }
    let waiting = PeerSpec {
        endpoint: None,
        ..net.spec_of(A)
    };
    net.add_peer(B, waiting);
    let calling = PeerSpec {
        endpoint: Some(net.site(B).outer_on(to)),
        ..net.spec_of(B)
    };
    net.add_peer(A, calling);
    net.run_for(ROUND);
    net.take_captured();
    net
}

/// Sends `count` packets, one a millisecond; how many came.
fn send(net: &mut Net, from: SiteId, to: SiteId, count: u32) -> usize {
    for number in 0..count {
        net.send(
            from,
            0,
            &Packet::udp(from, to, &payload(number, 100)).build(),
        );
        net.run_for(Duration::from_millis(1));
    }
    net.run_for(Duration::from_millis(500));
    net.take_delivered(to).len()
}

#[test]
fn an_answer_leaves_from_the_uplink_that_the_question_came_to() {
    for uplink in [0, 1] {
        let mut net = called_on(0xd0 + u64::from(uplink), uplink);
        assert_eq!(send(&mut net, B, A, 1), 1);
        let sent: Vec<Captured> = net.take_captured();
        assert!(!sent.is_empty());
        for datagram in sent {
            assert_eq!(datagram.from, net.site(B).outer_on(uplink));
            assert_eq!(datagram.to, net.site(A).outer_on(0));
        }
        let endpoint = net.site(B).spec(peer_id(A)).stats.endpoint().unwrap();
        assert_eq!(endpoint.uplink, UplinkId(uplink));
        assert_eq!(endpoint.local, Some(net.site(B).outer_on(uplink).ip()));
    }
}

#[test]
fn every_uplink_of_every_site_has_an_address_of_its_own() {
    let options = SiteOptions {
        uplinks: 16,
        workers: 2,
        ..OPTIONS
    };
    let net = Net::mesh(0xd2, 8, options);
    let mut addrs = Vec::new();
    for site in (0..8).map(SiteId) {
        for uplink in 0..16 {
            addrs.push(net.site(site).outer_on(uplink).ip());
        }
    }
    addrs.sort();
    addrs.dedup();
    assert_eq!(addrs.len(), 8 * 16);
}

#[test]
fn an_uplink_without_carrier_neither_sends_nor_receives() {
    let mut net = called_on(0xd3, 1);
    net.set_uplink(B, 1, false);
    assert_eq!(send(&mut net, A, B, 20), 0);
    assert_eq!(send(&mut net, B, A, 20), 0);
    let left = net
        .take_captured()
        .iter()
        .filter(|datagram| datagram.from == net.site(B).outer_on(1) && datagram.copies > 0)
        .count();
    assert_eq!(left, 0);
    net.set_uplink(B, 1, true);
    assert_eq!(send(&mut net, A, B, 20), 20);
}

#[test]
fn an_impairment_holds_for_its_way_and_its_direction_alone() {
    let mut net = called_on(0xd4, 1);
    let [a, b0, b1] = [Uplink(A, 0), Uplink(B, 0), Uplink(B, 1)];
    let hole = Impairment {
        blackhole: true,
        ..Impairment::default()
    };
    net.set_path(a, b0, hole);
    assert_eq!(
        send(&mut net, A, B, 20),
        20,
        "another uplink of the same site"
    );
    net.set_path(b1, a, hole);
    assert_eq!(send(&mut net, A, B, 20), 20, "the other direction");
    net.set_path(a, b1, hole);
    assert_eq!(send(&mut net, A, B, 20), 0);
    let counters = net.path_counters(a, b1);
    assert!(counters.is_balanced());
    assert!(counters.lost(LinkDrop::Blackhole) >= 20, "{counters:?}");
}

#[test]
fn a_way_delays_and_loses_and_carries_what_it_was_told_to() {
    let mut net = called_on(0xd5, 0);
    let way = (Uplink(A, 0), Uplink(B, 0));
    net.set_path(
        way.0,
        way.1,
        Impairment {
            delay: Duration::from_millis(70),
            loss: Loss::Random(Probability::new(0.2).unwrap()),
            ..Impairment::default()
        },
    );
    let came = send(&mut net, A, B, 2000) as f64 / 2000.0;
    // Five standard deviations of 2000 throws.
    assert!((came - 0.8).abs() < 0.045, "{came} came, 0.8 expected");
    net.set_path(
        way.0,
        way.1,
        Impairment {
            delay: Duration::from_millis(70),
            rate: RateBps::new(800_000),
            queue_bytes: Some(2_000),
            ..Impairment::default()
        },
    );
    let before = net.path_counters(way.0, way.1);
    send(&mut net, A, B, 2000);
    let after = net.path_counters(way.0, way.1);
    let kbit = (after.delivered_bytes - before.delivered_bytes) as f64 * 8e-3;
    // Two seconds, and what the queue holds at their end.
    assert!(
        (kbit - 1600.0).abs() < 25.0,
        "{kbit} kbit came, 1600 expected"
    );
    assert!(after.lost(LinkDrop::Queue) > 500, "{after:?}");
    let begun = net.now();
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 100)).build());
    while net.take_delivered(B).is_empty() {
        net.run_for(Duration::from_millis(1));
    }
    let took = (net.now() - begun).as_millis();
    assert!((70..=73).contains(&took), "{took} ms");
}

#[test]
fn a_schedule_is_followed_on_virtual_time() {
    let mut net = called_on(0xd6, 0);
    net.run_for(Duration::from_secs(10) - net.elapsed());
    let text = "[[step]]\nat_s = 15\nfor_s = 5\nevery_s = 10\ntimes = 2\nlink = \"fiber\"\n\
                direction = \"a->b\"\nset = { blackhole = true }\n";
    let schedule = Schedule::parse(text, &["fiber"]).unwrap();
    net.follow(schedule, &[("fiber", Uplink(A, 0), Uplink(B, 0))]);
    let mut came = Vec::new();
    for second in 10..40 {
        net.send(A, 0, &Packet::udp(A, B, &payload(second, 100)).build());
        net.run_for(Duration::from_secs(1));
        came.push((second, net.take_delivered(B).len()));
    }
    for (second, count) in came {
        let is_down = (15..20).contains(&second) || (25..30).contains(&second);
        assert_eq!(count, usize::from(!is_down), "second {second}");
    }
    let counters = net.path_counters(Uplink(A, 0), Uplink(B, 0));
    assert!(counters.lost(LinkDrop::Blackhole) >= 10);
}

#[test]
fn the_same_seed_gives_the_same_world_whatever_happens_on_other_ways() {
    let lost = |disturbed: bool| {
        let mut net = called_on(0xd7, 0);
        let lossy = Impairment {
            loss: Loss::Random(Probability::new(0.3).unwrap()),
            ..Impairment::default()
        };
        net.set_path(Uplink(A, 0), Uplink(B, 0), lossy);
        if disturbed {
            net.set_path(Uplink(B, 0), Uplink(A, 0), lossy);
        }
        for number in 0..200 {
            net.send(A, 0, &Packet::udp(A, B, &payload(number, 100)).build());
        }
        net.captured
            .iter()
            .filter(|datagram| datagram.bytes.len() > 100)
            .map(|datagram| datagram.copies)
            .collect::<Vec<_>>()
    };
    assert_eq!(lost(false).len(), 200);
    assert_eq!(lost(false), lost(true));
    assert!(lost(false).contains(&0));
}
