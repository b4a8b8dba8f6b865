//! Hours of virtual time: rekeys, expiry, keepalives and giving up. What needs boringtun's clock to move too, in the
//! gate or in a stock peer, runs only with feature `mock-clock`.

use std::time::Instant;

use super::*;
use crate::Event;
use crate::sim::{Captured, Link, peer_id};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const KEEPALIVE_LEN: usize = 32;

fn numbered(from: SiteId, to: SiteId, number: u32) -> Vec<u8> {
    Packet {
        id: number as u16,
        ..Packet::udp(from, to, &payload(number, 20))
    }
    .build()
}

fn is_initiation(datagram: &Captured) -> bool {
    datagram.bytes[0] == 1
}

fn times(net: &Net, from: SiteId, wanted: impl Fn(&Captured) -> bool) -> Vec<Instant> {
    let from = net.site(from).outer();
    let sent = net
        .captured
        .iter()
        .filter(|datagram| datagram.from == from && wanted(datagram));
    sent.map(|datagram| datagram.at).collect()
}

/// The longest time between two neighbours.
fn gap_max(times: &[Instant]) -> Duration {
    times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .expect("two times")
}

#[test]
fn three_hours_at_ten_packets_a_second_lose_only_what_the_link_loses() {
    let mut net = Net::new(0x101);
    for _ in [A, B] {
        net.add_site(SiteOptions::default());
    }
    // One initiator: two that begin at the same instant go on crossing each other at every rekey.
    net.connect_from(A, B);
    net.run_for(ROUND);
    assert_works(&mut net);
    net.link = Link {
        loss: 0.01,
        delay: Duration::from_millis(20),
        ..Link::default()
    };
    let before = [A, B].map(|site| net.site(site).counters());
    let mut lost = [0; 2];
    let mut initiations = Vec::new();
    for number in 0..3 * 36_000 {
        net.send(A, 0, &numbered(A, B, number));
        net.send(B, 0, &numbered(B, A, number));
        net.run_for(Duration::from_millis(100));
        for datagram in net.take_captured() {
            if is_initiation(&datagram) {
                initiations.push(datagram.at);
            }
            if datagram.bytes[0] == 4
                && datagram.bytes.len() > KEEPALIVE_LEN
                && datagram.copies == 0
            {
                lost[usize::from(datagram.to == net.site(B).outer())] += 1;
            }
        }
        for site in [A, B] {
            net.take_delivered(site);
        }
    }
    net.settle();
    for (at, site) in [A, B].into_iter().enumerate() {
        let (was, is) = (&before[at], net.site(site).counters());
        assert_eq!(
            is.tx_udp - was.tx_udp,
            108_000,
            "nothing waits longer than a handshake"
        );
        assert_eq!(
            is.tx_tun - was.tx_tun,
            108_000 - lost[at],
            "{:?}",
            drops_since(was, &is)
        );
        assert!((500..1700).contains(&lost[at]), "{lost:?}");
    }
    let handshakes = net.site(A).counters().handshakes;
    assert!(
        (85..=91).contains(&handshakes),
        "{handshakes} handshakes in three hours"
    );
    assert!(
        gap_max(&initiations) < Duration::from_secs(130),
        "{:?}",
        gap_max(&initiations)
    );
}

#[test]
fn a_lossy_reordering_duplicating_link_delivers_nothing_twice_for_an_hour() {
    let mut net = pair(0x102);
    net.link = Link {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(60),
        loss: 0.2,
        duplicate: 0.2,
        ..Link::default()
    };
    let mut delivered = Vec::new();
    for number in 0..18_000 {
        net.send(A, 0, &numbered(A, B, number));
        net.run_for(Duration::from_millis(200));
        delivered.extend(net.take_delivered(B));
    }
    assert!(tally(&delivered).values().all(|count| *count == 1));
    assert!(
        delivered.len() > 13_500,
        "{} of 18000 at 20 % loss",
        delivered.len()
    );
}

#[test]
fn after_an_idle_hour_the_first_packet_arrives_after_one_handshake() {
    for initiator in [A, B] {
        let mut net = pair(0x103);
        net.run_for(HOUR);
        net.take_captured();
        let to = SiteId(1 - initiator.0);
        let packet = numbered(initiator, to, 1);
        net.send(initiator, 0, &packet);
        net.run_for(ROUND);
        assert_eq!(net.take_delivered(to), [packet]);
        assert_eq!(count_type(&net, 1), 1);
        assert_works(&mut net);
    }
}

#[test]
fn an_idle_pair_falls_silent() {
    let mut net = pair(0x104);
    net.run_for(Duration::from_secs(30));
    net.take_captured();
    net.run_for(HOUR);
    assert_eq!(net.captured.len(), 0);
}

#[test]
fn a_silent_receiver_answers_with_one_keepalive_within_ten_seconds() {
    let mut net = pair(0x105);
    net.run_for(30 * SECOND);
    net.take_captured();
    let began = net.now();
    net.send(A, 0, &numbered(A, B, 1));
    net.run_for(60 * SECOND);
    let keepalives = times(&net, B, |datagram| datagram.bytes.len() == KEEPALIVE_LEN);
    assert_eq!(keepalives.len(), 1);
    let after = keepalives[0] - began;
    let expected = Duration::from_secs(10)..=Duration::from_millis(10_600);
    assert!(expected.contains(&after), "{after:?}");
}

#[test]
fn a_persistent_keepalive_is_on_the_wire_at_its_interval_for_hours() {
    for interval in [5, 25, 110] {
        let mut net = pair(0x106);
        let interval = interval * SECOND;
        net.edit_peer(A, peer_id(B), |spec| spec.keepalive = Some(interval));
        net.run_for(interval);
        net.take_captured();
        net.run_for(2 * HOUR);
        let sent = times(&net, A, |_| true);
        // A timer tick of 250 ms on top, and one more where a handshake stands in for the keepalive.
        let gap = gap_max(&sent);
        assert!(
            gap <= interval + Duration::from_millis(500),
            "{interval:?}: {gap:?}"
        );
        let keepalives =
            times(&net, A, |datagram| datagram.bytes.len() == KEEPALIVE_LEN).len() as u32;
        let most = (2 * HOUR).as_secs() as u32 / interval.as_secs() as u32;
        assert!(
            (most * 8 / 10..=most * 12 / 10).contains(&keepalives),
            "{keepalives} in {most} intervals"
        );
        assert_works(&mut net);
    }
}

#[test]
fn keepalives_pause_while_there_is_traffic() {
    let mut net = pair(0x107);
    net.edit_peer(A, peer_id(B), |spec| spec.keepalive = Some(25 * SECOND));
    for number in 0..300 {
        net.send(A, 0, &numbered(A, B, number));
        net.send(B, 0, &numbered(B, A, number));
        net.run_for(SECOND);
    }
    let keepalives = times(&net, A, |datagram| datagram.bytes.len() == KEEPALIVE_LEN);
    let handshakes = times(&net, A, is_initiation).len();
    assert!(
        keepalives.len() <= handshakes,
        "only to confirm a session: {keepalives:?}"
    );
}

#[test]
fn a_peer_dead_for_an_hour_is_back_within_a_keepalive_and_five_seconds() {
    let mut net = pair(0x108);
    net.edit_peer(A, peer_id(B), |spec| spec.keepalive = Some(25 * SECOND));
    // Its address is known to nobody else: only A's keepalives bring it back.
    net.edit_peer(B, peer_id(A), |spec| spec.endpoint = None);
    net.site_mut(B).is_up = false;
    net.run_for(HOUR);
    let attempts = times(&net, A, is_initiation);
    assert!(
        gap_max(&attempts) <= 26 * SECOND,
        "{:?}",
        gap_max(&attempts)
    );
    net.site_mut(B).is_up = true;
    net.run_for(30 * SECOND);
    net.take_captured();
    assert_works(&mut net);
    assert_eq!(count_type(&net, 1), 0, "the session was there already");
}

#[test]
fn a_link_dead_for_an_hour_costs_one_handshake_at_the_next_packet() {
    let mut net = pair(0x109);
    net.link.loss = 1.0;
    for number in 0..3600 {
        net.send(A, 0, &numbered(A, B, number));
        net.run_for(SECOND);
    }
    net.link.loss = 0.0;
    net.take_delivered(B);
    for number in 4000..4006 {
        net.send(A, 0, &numbered(A, B, number));
        net.run_for(SECOND);
    }
    // A try every 5 s: by then there is a session, and what waited has arrived.
    let delivered = net.take_delivered(B);
    assert!(delivered.contains(&numbered(A, B, 4005)));
    assert!(delivered.len() > 6, "{}", delivered.len());
    assert_works(&mut net);
}

#[test]
fn a_handshake_without_an_answer_is_tried_every_5_s_and_given_up_after_90() {
    let mut net = Net::new(0x10a);
    for _ in [A, B] {
        net.add_site(SiteOptions::default());
    }
    net.connect_from(A, B);
    net.site_mut(B).is_up = false;
    for number in 0..3 {
        net.send(A, 0, &numbered(A, B, number));
    }
    let drops = drops_during(&mut net, A, |net| net.run_for(89 * SECOND));
    assert_eq!(drops, []);
    let attempts = times(&net, A, is_initiation);
    assert!((16..=18).contains(&attempts.len()), "{}", attempts.len());
    assert!(gap_max(&attempts) <= Duration::from_millis(5_500));
    let drops = drops_during(&mut net, A, |net| net.run_for(3 * SECOND));
    assert_eq!(drops, [(DropReason::HandshakeTimeout, 3)]);
    assert_eq!(net.site(A).events, [Event::HandshakeTimeout(peer_id(B))]);
    assert_eq!(net.site(A).counters().staged, 0);

    // Silence until there is something to send again.
    net.take_captured();
    net.run_for(HOUR);
    assert_eq!(net.captured.len(), 0);
    net.site_mut(B).is_up = true;
    let packet = numbered(A, B, 9);
    net.send(A, 0, &packet);
    net.run_for(ROUND);
    assert_eq!(net.take_delivered(B), [packet]);
}

#[test]
fn a_packet_shortly_before_old_keys_are_wiped_is_not_lost_with_them() {
    // Linux wipes all state 540 s after the last handshake unless a new one is under way.
    for before in [1, 20, 100, 500, 1500, 20_000] {
        let mut net = Net::new(0x10b);
        for _ in [A, B] {
            net.add_site(SiteOptions::default());
        }
        net.connect_from(A, B);
        net.run_for(ROUND);
        net.link.delay = Duration::from_millis(200);
        net.run_for(540 * SECOND - ROUND - Duration::from_millis(before));
        let dead = before > 10_000;
        net.site_mut(B).is_up = !dead;
        let packet = numbered(A, B, 1);
        net.send(A, 0, &packet);
        net.run_for(25 * SECOND);
        if dead {
            assert_eq!(net.site(A).counters().staged, 1, "90 s have not passed");
            net.site_mut(B).is_up = true;
            net.run_for(6 * SECOND);
        }
        assert!(net.take_delivered(B) == [packet], "{before} ms before");
    }
}

#[test]
fn a_session_is_refused_180_s_after_its_handshake() {
    let mut net = pair(0x10c);
    net.link.loss = 1.0;
    net.send(A, 0, &numbered(A, B, 1));
    let late = net.take_captured().remove(0);
    net.run_for(170 * SECOND);
    net.inject(late.from, B, &late.bytes);
    assert_eq!(net.take_delivered(B).len(), 1);
    net.run_for(12 * SECOND);
    let mut later = late.bytes.clone();
    later[8] += 1;
    let drops = drops_during(&mut net, B, |net| {
        net.inject(late.from, B, &late.bytes);
        net.inject(late.from, B, &later);
    });
    assert_eq!(drops, [(DropReason::DataNoSession, 2)]);
}

#[test]
fn nothing_is_sealed_with_a_session_older_than_180_s() {
    let mut net = pair(0x10d);
    // Data passes both ways, so neither side gives up; handshakes do not.
    net.link.filter = |datagram| datagram[0] == 4;
    let mut sealed = 0;
    for number in 0..240 {
        net.take_captured();
        net.send(B, 0, &numbered(B, A, number));
        net.send(A, 0, &numbered(A, B, number));
        sealed += times(&net, A, |datagram| datagram.bytes[0] == 4).len();
        net.run_for(SECOND);
    }
    assert!((178..=181).contains(&sealed), "{sealed} s of data");
}

#[test]
#[cfg(feature = "mock-clock")]
fn a_gate_under_load_opens_again_with_the_next_second() {
    let mut net = Net::new(0x10e);
    net.add_site(SiteOptions {
        handshakes_per_s: 3,
        ..SiteOptions::default()
    });
    let mut stock = Stock::join(&mut net, A);
    for _ in 0..3 {
        for _ in 0..5 {
            let mut stranger = Stock::stranger(&net, A);
            let initiation = stranger.initiation();
            net.inject(stranger.addr, A, &initiation);
        }
        let initiation = stock.initiation();
        let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &initiation));
        assert_eq!(drops, [(DropReason::HandshakeUnderLoad, 1)]);
        net.run_for(1500 * Duration::from_millis(1));
        net.take_outside(stock.addr);
    }
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn a_gateway_that_slept_for_ten_hours_wakes_up_and_works() {
    let mut net = pair(0x10f);
    for site in [A, B] {
        net.site_mut(site).is_up = false;
    }
    net.run_for(10 * HOUR);
    for site in [A, B] {
        net.site_mut(site).is_up = true;
    }
    net.run_for(ROUND);
    assert_works(&mut net);
}

#[test]
fn flows_age_out_by_their_protocol() {
    let mut net = pair(0x110);
    net.send(A, 0, &Packet::tcp(A, B, b"x").build());
    net.send(
        A,
        0,
        &Packet {
            ports: (1, 2),
            ..Packet::udp(A, B, b"x")
        }
        .build(),
    );
    let live = |net: &Net| {
        let now_s = net.elapsed().as_secs() as u32;
        let mut protocols: Vec<_> = net
            .site(A)
            .engine(0)
            .flow_table()
            .flows(now_s)
            .map(|flow| flow.key.protocol)
            .collect();
        protocols.sort_unstable();
        protocols.dedup();
        protocols
    };
    assert_eq!(live(&net), [TCP, UDP]);
    net.run_for(182 * SECOND);
    assert_eq!(live(&net), [TCP]);
    net.run_for(2 * HOUR);
    assert_eq!(live(&net), [] as [u8; 0]);
}

#[test]
#[cfg(feature = "mock-clock")]
fn a_stock_peer_stays_connected_through_rekeys() {
    let mut net = Net::new(0x111);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    let mut out = vec![0; 2048];
    for second in 0..1200u32 {
        net.run_for(SECOND - 3 * ROUND);
        if let TunnResult::WriteToNetwork(datagram) = stock.tunn.update_timers(&mut out) {
            let datagram = datagram.to_vec();
            net.inject(stock.addr, A, &datagram);
            stock.pump(&mut net);
        }
        let packet = stock.packet(second);
        stock.send(&mut net, &packet);
        let back = Packet {
            id: second as u16,
            ..Packet::udp(A, SiteId(100), &payload(second, 9))
        }
        .build();
        net.send(A, 0, &back);
        stock.pump(&mut net);
        assert!(net.take_delivered(A) == [packet], "second {second}");
        assert!(
            std::mem::take(&mut stock.inbox) == [back],
            "second {second}"
        );
    }
    assert!((9..=12).contains(&net.site(A).counters().handshakes));
}
