//! Handshakes: forged, replayed, flooded, and under load.

use std::time::Duration;

use patronus_tunnel::{Message, PrivateKey};

use super::*;

const MAC1: usize = 116;

fn lone_site(seed: u64, handshakes_per_s: u64) -> Net {
    let mut net = Net::new(seed);
    net.add_site(SiteOptions {
        handshakes_per_s,
        ..SiteOptions::default()
    });
    net
}

#[test]
fn a_wrong_mac1_is_dropped_and_not_answered() {
    let mut net = lone_site(0x71, 100);
    let mut stock = Stock::join(&mut net, A);
    let mut forged = stock.initiation();
    let drops = drops_during(&mut net, A, |net| {
        for at in [4, 8, 40, 88, MAC1] {
            forged[at] ^= 1;
            net.inject(stock.addr, A, &forged);
            forged[at] ^= 1;
        }
    });
    assert_eq!(drops, [(DropReason::HandshakeBadMac, 5)]);
    assert!(net.captured.is_empty());
    net.inject(stock.addr, A, &forged);
    stock.pump(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn an_initiation_for_another_gateway_is_dropped() {
    let mut net = Net::mesh(0x72, 2, SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    let initiation = stock.initiation();
    let drops = drops_during(&mut net, B, |net| net.inject(stock.addr, B, &initiation));
    assert_eq!(drops, [(DropReason::HandshakeBadMac, 1)]);
}

#[test]
fn an_initiation_of_an_unknown_key_is_dropped_and_not_answered() {
    let mut net = lone_site(0x73, 100);
    let mut stranger = Stock::stranger(&net, A);
    let initiation = stranger.initiation();
    let drops = drops_during(&mut net, A, |net| net.inject(stranger.addr, A, &initiation));
    assert_eq!(drops, [(DropReason::HandshakeUnknownPeer, 1)]);
    assert!(net.captured.is_empty());
}

#[test]
fn low_order_ephemerals_are_dropped() {
    let mut net = lone_site(0x74, 100);
    let mut stock = Stock::join(&mut net, A);
    let genuine = stock.initiation();
    let zero = [0u8; 32];
    let mut one = zero;
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let drops = drops_during(&mut net, A, |net| {
        for point in [zero, one, minus_one] {
            let mut forged = genuine.clone();
            forged[8..40].copy_from_slice(&point);
            net.inject(stock.addr, A, &forged);
        }
    });
    assert_eq!(drops, [(DropReason::HandshakeLowOrder, 3)]);
    assert!(net.captured.is_empty());
    stock.connect(&mut net);
}

#[test]
fn a_replayed_initiation_is_refused_within_and_after_20_ms() {
    let mut net = lone_site(0x75, 100);
    let mut stock = Stock::join(&mut net, A);
    let initiation = stock.initiation();
    net.inject(stock.addr, A, &initiation);
    let drops = drops_during(&mut net, A, |net| {
        net.inject(stock.addr, A, &initiation);
        net.run_for(Duration::from_millis(19));
        net.inject(stock.addr, A, &initiation);
    });
    assert_eq!(drops, [(DropReason::HandshakeFlood, 2)]);
    net.run_for(Duration::from_millis(1));
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &initiation));
    assert_eq!(drops, [(DropReason::HandshakeReplayed, 1)]);
    assert_eq!(count_type(&net, 2), 1, "one response in all");
    stock.pump(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn an_initiation_older_than_the_last_one_is_refused() {
    let mut net = lone_site(0x76, 100);
    let mut stock = Stock::join(&mut net, A);
    let old = stock.initiation();
    net.run_for(ROUND);
    stock.connect(&mut net);
    net.run_for(Duration::from_millis(30));
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &old));
    assert_eq!(drops, [(DropReason::HandshakeReplayed, 1)]);
    stock.assert_works(&mut net);
}

#[test]
fn a_flood_of_initiations_from_one_peer_costs_one_handshake_every_20_ms() {
    let mut net = lone_site(0x77, u64::MAX);
    let mut stock = Stock::join(&mut net, A);
    let drops = drops_during(&mut net, A, |net| {
        for _ in 0..100 {
            let initiation = stock.initiation();
            net.inject(stock.addr, A, &initiation);
            net.run_for(Duration::from_millis(1));
        }
    });
    assert_eq!(drops, [(DropReason::HandshakeFlood, 95)]);
    assert_eq!(count_type(&net, 2), 5, "responses");
    assert_eq!(net.site(A).counters().handshakes, 0, "none was confirmed");
    net.run_for(ROUND);
    net.take_outside(stock.addr);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn a_response_to_an_unknown_index_is_dropped() {
    let mut net = pair(0x78);
    let mut response = vec![7; 92];
    response[..4].copy_from_slice(&2u32.to_le_bytes());
    let drops = drops_during(&mut net, A, |net| {
        net.inject(net.site(B).outer(), A, &response)
    });
    assert_eq!(drops, [(DropReason::UnknownIndex, 1)]);
    assert_works(&mut net);
}

#[test]
fn a_response_that_comes_twice_counts_once() {
    let mut net = Net::new(0x79);
    for _ in [A, B] {
        net.add_site(SiteOptions::default());
    }
    net.connect_from(A, B);
    net.run_for(ROUND);
    let is_response = |datagram: &&crate::sim::Captured| {
        matches!(datagram.message(), Some(Message::Response { .. }))
    };
    let response = net.captured.iter().find(is_response).cloned().unwrap();
    let drops = drops_during(&mut net, A, |net| {
        net.inject(response.from, A, &response.bytes)
    });
    assert_eq!(drops, [(DropReason::HandshakeInvalid, 1)]);
    assert_eq!(net.site(A).counters().handshakes, 1);
    assert_works(&mut net);
}

#[test]
fn a_garbled_response_is_refused_and_the_genuine_one_still_counts() {
    let mut net = lone_site(0x7a, 100);
    let mut stock = Stock::join(&mut net, A);
    net.edit_peer(A, STOCK, |spec| spec.endpoint = Some(stock.addr));
    net.run_for(ROUND);
    let initiation = net.take_outside(stock.addr).remove(0);
    let response = stock.open(&net, &initiation).remove(0);
    let mut forged = response.clone();
    forged[50] ^= 1;
    let mut elsewhere = response.clone();
    elsewhere[8] ^= 1;
    let drops = drops_during(&mut net, A, |net| {
        net.inject(stock.addr, A, &forged);
        // Its mac1 covers the index.
        net.inject(stock.addr, A, &elsewhere);
    });
    assert_eq!(drops, [(DropReason::HandshakeBadMac, 2)]);
    net.inject(stock.addr, A, &response);
    stock.pump(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn both_sides_may_initiate_at_once() {
    let mut net = Net::mesh(0x7b, 2, SiteOptions::default());
    net.run_for(Duration::from_micros(10));
    assert_eq!(
        count_type(&net, 1),
        2,
        "both sent an initiation before either arrived"
    );
    net.run_for(ROUND);
    assert_works(&mut net);
    assert_eq!(
        net.site(A).counters().dropped() + net.site(B).counters().dropped(),
        0
    );
}

#[test]
fn under_load_an_initiation_without_mac2_gets_a_cookie_and_with_it_a_session() {
    let mut net = lone_site(0x7c, 0);
    let mut stock = Stock::join(&mut net, A);
    let first = stock.initiation();
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &first));
    assert_eq!(drops, [(DropReason::HandshakeUnderLoad, 1)]);
    assert_eq!((count_type(&net, 3), count_type(&net, 2)), (1, 0));
    assert_eq!(net.site(A).counters().own_sent, 1);
    stock.pump(&mut net);
    // boringtun has the cookie and puts a mac2 on its next try.
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn a_cookie_is_good_for_the_address_it_was_sent_to_and_no_other() {
    let mut net = lone_site(0x7d, 0);
    let mut stock = Stock::join(&mut net, A);
    let first = stock.initiation();
    net.inject(stock.addr, A, &first);
    stock.pump(&mut net);
    let with_mac2 = stock.initiation();
    let elsewhere = SocketAddr::from(([198, 51, 100, 2], stock.addr.port()));
    let drops = drops_during(&mut net, A, |net| net.inject(elsewhere, A, &with_mac2));
    assert_eq!(drops, [(DropReason::HandshakeUnderLoad, 1)]);
    // boringtun's cookies name the address and not the port: known, and it costs an attacker nothing to have one
    // port more. What counts is that the session works where it was asked for.
    let other_port = SocketAddr::new(stock.addr.ip(), 1);
    net.inject(other_port, A, &with_mac2);
    assert_eq!(count_type(&net, 2), 1);
}

#[test]
fn a_flood_from_many_addresses_is_answered_with_cookies_and_a_peer_with_a_cookie_gets_in() {
    let mut net = lone_site(0x7e, 10);
    let mut stock = Stock::join(&mut net, A);
    let drops = drops_during(&mut net, A, |net| {
        for number in 0..200u8 {
            let mut stranger = Stock::stranger(net, A);
            stranger.addr = SocketAddr::from(([203, 0, 113, number], 1000));
            let initiation = stranger.initiation();
            net.inject(stranger.addr, A, &initiation);
        }
    });
    assert_eq!(
        drops,
        [
            (DropReason::HandshakeUnderLoad, 190),
            (DropReason::HandshakeUnknownPeer, 10)
        ]
    );
    assert_eq!(count_type(&net, 3), 190);
    let refused = stock.initiation();
    net.inject(stock.addr, A, &refused);
    stock.pump(&mut net);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn a_flood_of_wrong_macs_does_not_put_the_gate_under_load() {
    let mut net = lone_site(0x7f, 5);
    let mut stock = Stock::join(&mut net, A);
    let mut forged = stock.initiation();
    forged[MAC1] ^= 1;
    for _ in 0..1000 {
        net.inject(stock.addr, A, &forged);
    }
    assert!(net.captured.is_empty());
    stock.connect(&mut net);
    assert_eq!(count_type(&net, 3), 0);
}

/// A gateway whose peer answered its initiation with a cookie; both, and the datagrams of the two.
fn with_cookie(seed: u64) -> (Net, Stock, Vec<u8>) {
    let mut net = lone_site(seed, 100);
    let stock = Stock::join(&mut net, A);
    let other = net.add_site(SiteOptions {
        handshakes_per_s: 0,
        ..SiteOptions::default()
    });
    net.connect(A, other);
    net.run_for(ROUND);
    let is_cookie = |datagram: &&crate::sim::Captured| {
        matches!(datagram.message(), Some(Message::Cookie { .. }))
            && datagram.from != net.site(A).outer()
    };
    let cookie = net
        .captured
        .iter()
        .find(is_cookie)
        .expect("a cookie")
        .bytes
        .clone();
    (net, stock, cookie)
}

#[test]
fn a_cookie_that_was_not_asked_for_is_refused() {
    let mut net = pair(0x80);
    net.take_captured();
    net.send(B, 0, &Packet::udp(B, A, &payload(1, 1)).build());
    let mut cookie = vec![0x33; 64];
    cookie[..4].copy_from_slice(&3u32.to_le_bytes());
    // An index of ours, as an eavesdropper knows it.
    cookie[4..8].copy_from_slice(&net.captured[0].bytes[4..8]);
    net.settle();
    let drops = drops_during(&mut net, A, |net| {
        net.inject(net.site(B).outer(), A, &cookie)
    });
    assert_eq!(drops, [(DropReason::CookieInvalid, 1)]);
    let mut unknown = cookie;
    unknown[6..8].copy_from_slice(&[0xee, 0xee]);
    let drops = drops_during(&mut net, A, |net| {
        net.inject(net.site(B).outer(), A, &unknown)
    });
    assert_eq!(drops, [(DropReason::UnknownIndex, 1)]);
    assert_works(&mut net);
}

#[test]
fn a_flood_of_forged_cookies_is_counted_and_harmless() {
    let (mut net, _, cookie) = with_cookie(0x81);
    let drops = drops_during(&mut net, A, |net| {
        for number in 0..500usize {
            let mut forged = cookie.clone();
            forged[8 + number % 56] ^= 1 << (number % 8);
            net.inject(net.site(B).outer(), A, &forged);
        }
    });
    assert_eq!(drops, [(DropReason::CookieInvalid, 500)]);
}

#[test]
fn a_replayed_cookie_changes_nothing() {
    let (mut net, mut stock, cookie) = with_cookie(0x82);
    let before = net.site(A).counters();
    let sent_before = net.captured.len();
    for _ in 0..10 {
        net.inject(net.site(B).outer(), A, &cookie);
    }
    let after = net.site(A).counters();
    assert_eq!(
        after.consumed + after.dropped() - before.consumed - before.dropped(),
        10
    );
    assert_eq!(
        net.captured.len(),
        sent_before,
        "a cookie is never answered"
    );
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn an_initiation_sealed_with_another_static_key_cannot_claim_a_peer() {
    // The claimed name is decided by decryption, so a forger needs the peer's private key: flipping any bit of the
    // encrypted static key leaves no claim at all.
    let mut net = lone_site(0x83, 100);
    let mut stock = Stock::join(&mut net, A);
    let mut stranger = Stock::stranger(&net, A);
    let (ours, theirs) = (stock.initiation(), stranger.initiation());
    let mut grafted = theirs.clone();
    grafted[40..116].copy_from_slice(&ours[40..116]);
    let identity = net.site(A).identity().clone();
    let gate = patronus_tunnel::Identity::new(
        PrivateKey::from_bytes(*identity.private_key().as_bytes()),
        1,
        identity.clock(),
    );
    assert!(gate.claimed_initiator(&ours).is_some());
    assert!(gate.claimed_initiator(&grafted).is_none());
    let drops = drops_during(&mut net, A, |net| net.inject(stranger.addr, A, &grafted));
    assert_eq!(drops, [(DropReason::HandshakeBadMac, 1)]);
    stock.connect(&mut net);
}
