//! A peer's address follows authenticated messages and nothing else.

use patronus_tunnel::Message;

use super::*;
use crate::sim::{Captured, Link, peer_id};

fn elsewhere() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 6666))
}

fn endpoint(net: &Net) -> SocketAddr {
    net.site(A)
        .spec(peer_id(B))
        .stats
        .endpoint()
        .expect("an address")
        .remote
}

/// A datagram from B to A that did not arrive.
fn intercepted(net: &mut Net) -> Captured {
    net.take_captured();
    let loss = std::mem::replace(&mut net.link.loss, 1.0);
    net.send(B, 0, &Packet::udp(B, A, &payload(7, 20)).build());
    net.link.loss = loss;
    net.take_captured().remove(0)
}

#[test]
fn an_authenticated_packet_moves_the_endpoint_and_the_answer_follows() {
    let mut net = pair(0xc1);
    let moved = SocketAddr::from(([198, 51, 100, 77], 4000));
    net.move_site(B, moved);
    net.send(B, 0, &Packet::udp(B, A, &payload(1, 20)).build());
    net.run_for(ROUND);
    assert_eq!(endpoint(&net), moved);
    assert_works(&mut net);
    assert_eq!(count_type(&net, 1), 0, "roaming needs no handshake");
}

#[test]
fn a_replayed_datagram_from_another_address_does_not_move_the_endpoint() {
    let mut net = pair(0xc2);
    let datagram = intercepted(&mut net);
    net.inject(datagram.from, A, &datagram.bytes);
    let home = endpoint(&net);
    net.inject(elsewhere(), A, &datagram.bytes);
    assert_eq!(endpoint(&net), home);
    assert_works(&mut net);
}

#[test]
fn a_garbled_datagram_from_another_address_does_not_move_the_endpoint() {
    let mut net = pair(0xc3);
    let home = endpoint(&net);
    let genuine = intercepted(&mut net);
    for at in 0..genuine.bytes.len() {
        let mut forged = genuine.bytes.clone();
        forged[at] ^= 0x40;
        net.inject(elsewhere(), A, &forged);
        assert_eq!(endpoint(&net), home, "byte {at}");
    }
    assert!(net.take_delivered(A).is_empty());
    assert_works(&mut net);
}

#[test]
fn a_replayed_handshake_from_another_address_does_not_move_the_endpoint() {
    let mut net = Net::new(0xc4);
    for _ in [A, B] {
        net.add_site(SiteOptions::default());
    }
    net.connect_from(B, A);
    net.run_for(Duration::from_millis(50));
    let home = endpoint(&net);
    let to_a = net.site(A).outer();
    let handshakes: Vec<_> = net
        .captured
        .iter()
        .filter(|datagram| datagram.to == to_a)
        .cloned()
        .collect();
    assert!(
        handshakes
            .iter()
            .any(|datagram| datagram.message() == Some(Message::Initiation))
    );
    for datagram in handshakes {
        net.inject(elsewhere(), A, &datagram.bytes);
    }
    assert_eq!(endpoint(&net), home);
    assert_works(&mut net);
}

#[test]
fn an_initiation_from_another_address_moves_the_endpoint() {
    let mut net = Net::new(0xc5);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    stock.addr = elsewhere();
    net.run_for(Duration::from_millis(30));
    stock.connect(&mut net);
    assert_eq!(
        net.site(A)
            .spec(STOCK)
            .stats
            .endpoint()
            .map(|endpoint| endpoint.remote),
        Some(elsewhere())
    );
    stock.assert_works(&mut net);
}

#[test]
fn a_cookie_reply_does_not_move_the_endpoint() {
    let mut net = Net::new(0xc6);
    net.add_site(SiteOptions::default());
    net.add_site(SiteOptions {
        handshakes_per_s: 0,
        ..SiteOptions::default()
    });
    net.connect_from(A, B);
    let home = endpoint(&net);
    // The genuine answer of B, who is under load, is held back and comes from elsewhere.
    net.set_link(
        B,
        A,
        Link {
            loss: 1.0,
            ..Link::default()
        },
    );
    net.run_for(ROUND);
    let is_cookie =
        |datagram: &&Captured| matches!(datagram.message(), Some(Message::Cookie { .. }));
    let cookie = net
        .captured
        .iter()
        .find(is_cookie)
        .expect("a cookie")
        .clone();
    let before = net.site(A).counters();
    net.inject(elsewhere(), A, &cookie.bytes);
    assert_eq!(
        net.site(A).counters().consumed - before.consumed,
        1,
        "the cookie is genuine"
    );
    assert_eq!(endpoint(&net), home);
}

#[test]
fn an_authenticated_packet_from_a_wrong_inner_source_still_proves_the_address() {
    // As in Linux: the outer address is authenticated, whatever the packet says inside.
    let mut net = Net::new(0xc7);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    stock.addr = elsewhere();
    let spoofed = Packet::udp(SiteId(55), A, &payload(1, 1)).build();
    let drops = drops_during(&mut net, A, |net| stock.send(net, &spoofed));
    assert_eq!(drops, [(DropReason::InnerSource, 1)]);
    stock.assert_works(&mut net);
}

#[test]
fn a_nat_that_rebinds_at_every_packet_is_followed() {
    let mut net = pair(0xc8);
    for port in 2000..2050 {
        net.move_site(B, SocketAddr::from(([198, 51, 100, 77], port)));
        net.send(
            B,
            0,
            &Packet::udp(B, A, &payload(u32::from(port), 1)).build(),
        );
        net.run_for(ROUND);
        let reply = Packet::udp(A, B, &payload(u32::from(port), 2)).build();
        net.send(A, 0, &reply);
        net.run_for(ROUND);
        assert_eq!(net.take_delivered(B), [reply]);
    }
    assert_eq!(net.take_delivered(A).len(), 50);
}

#[test]
fn a_peer_without_an_address_gets_nothing_until_it_speaks() {
    let mut net = Net::new(0xc9);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    let drops = drops_during(&mut net, A, |net| {
        net.send(A, 0, &Packet::udp(A, SiteId(100), &payload(1, 1)).build());
        net.send_frame(
            A,
            0,
            Packet::udp(A, SiteId(100), &payload(1, 1000)).superpacket(100),
        );
    });
    assert_eq!(drops, [(DropReason::NoEndpoint, 12)]);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
}
