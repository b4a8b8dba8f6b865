//! Data messages: replays, forgeries, old sessions, and what an authenticated peer may put inside.

use patronus_tunnel::message::COUNTER_LIMIT;
use patronus_tunnel::session::WINDOW_LEN;

use super::*;
use crate::sim::peer_id;

/// A gateway and a stock peer with a session.
fn with_stock(seed: u64) -> (Net, Stock) {
    let mut net = Net::new(seed);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
    net.take_captured();
    (net, stock)
}

/// The peer seals that plaintext; it must end for that one reason, and the next packet must pass.
#[track_caller]
fn assert_inner_refused(plaintexts: &[Vec<u8>], reason: DropReason) {
    let (mut net, mut stock) = with_stock(0x61);
    let drops = drops_during(&mut net, A, |net| {
        for plaintext in plaintexts {
            stock.send(net, plaintext);
        }
    });
    assert_eq!(drops, [(reason, plaintexts.len() as u64)]);
    assert!(net.take_delivered(A).is_empty());
    stock.assert_works(&mut net);
}

fn set_counter(datagram: &mut [u8], counter: u64) {
    datagram[8..16].copy_from_slice(&counter.to_le_bytes());
}

#[test]
fn a_replayed_datagram_is_delivered_once() {
    let (mut net, mut stock) = with_stock(0x62);
    let datagram = stock.seal(&stock.packet(1));
    let drops = drops_during(&mut net, A, |net| {
        for _ in 0..4 {
            net.inject(stock.addr, A, &datagram);
        }
    });
    assert_eq!(drops, [(DropReason::DataReplayed, 3)]);
    assert_eq!(net.take_delivered(A).len(), 1);
    stock.assert_works(&mut net);
}

#[test]
fn the_window_holds_8128_datagrams_and_refuses_what_is_behind_it() {
    let (mut net, mut stock) = with_stock(0x63);
    let datagrams: Vec<_> = (0..WINDOW_LEN as u32 + 100)
        .map(|number| stock.seal(&stock.packet(number)))
        .collect();
    let newest = datagrams.len() - 1;
    net.inject(stock.addr, A, &datagrams[newest]);
    let drops = drops_during(&mut net, A, |net| {
        // The edge of the window.
        net.inject(stock.addr, A, &datagrams[newest + 1 - WINDOW_LEN as usize]);
        net.inject(stock.addr, A, &datagrams[newest - WINDOW_LEN as usize]);
        net.inject(stock.addr, A, &datagrams[0]);
    });
    assert_eq!(drops, [(DropReason::DataTooOld, 2)]);
    assert_eq!(net.take_delivered(A).len(), 2);
    stock.assert_works(&mut net);
}

#[test]
fn a_bad_tag_does_not_move_the_window() {
    let (mut net, mut stock) = with_stock(0x64);
    let genuine = stock.seal(&stock.packet(1));
    let drops = drops_during(&mut net, A, |net| {
        for ahead in [1, 8127, 8128, 50_000, 1 << 40, COUNTER_LIMIT - 1] {
            let mut forged = genuine.clone();
            set_counter(&mut forged, ahead);
            net.inject(stock.addr, A, &forged);
        }
        for bit in [16 * 8, 20 * 8 + 3, genuine.len() * 8 - 1] {
            let mut forged = genuine.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            net.inject(stock.addr, A, &forged);
        }
    });
    // Counter 1 was used by the session already.
    assert_eq!(
        drops,
        [(DropReason::DataReplayed, 1), (DropReason::DataBadTag, 8)]
    );
    net.inject(stock.addr, A, &genuine);
    assert_eq!(net.take_delivered(A).len(), 1);
    stock.assert_works(&mut net);
}

#[test]
fn counters_at_and_above_the_limit_are_refused_before_the_aead() {
    let (mut net, mut stock) = with_stock(0x65);
    let mut datagram = stock.seal(&stock.packet(1));
    let drops = drops_during(&mut net, A, |net| {
        for counter in [
            COUNTER_LIMIT,
            COUNTER_LIMIT + 1,
            u64::MAX - 1024,
            u64::MAX - 1,
            u64::MAX,
        ] {
            set_counter(&mut datagram, counter);
            net.inject(stock.addr, A, &datagram);
        }
    });
    assert_eq!(drops, [(DropReason::DataCounterLimit, 5)]);
    stock.assert_works(&mut net);
}

#[test]
fn the_session_before_the_current_one_still_opens() {
    let (mut net, mut stock) = with_stock(0x66);
    let late = stock.seal(&stock.packet(1));
    net.run_for(ROUND);
    stock.connect(&mut net);
    stock.assert_works(&mut net);
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &late));
    assert_eq!(drops, []);
    assert_eq!(net.take_delivered(A).len(), 1);
    stock.assert_works(&mut net);
}

#[test]
fn a_session_that_eight_others_followed_is_gone() {
    let (mut net, mut stock) = with_stock(0x67);
    let late = stock.seal(&stock.packet(1));
    for _ in 0..8 {
        net.run_for(ROUND);
        stock.connect(&mut net);
        stock.assert_works(&mut net);
    }
    let drops = drops_during(&mut net, A, |net| net.inject(stock.addr, A, &late));
    assert_eq!(drops, [(DropReason::DataNoSession, 1)]);
    stock.assert_works(&mut net);
}

#[test]
fn the_first_data_confirms_the_session_and_frees_what_waited() {
    let mut net = Net::new(0x68);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    // The response to the initiation is all that the site may send: the initiator has proven nothing yet.
    let initiation = stock.initiation();
    net.inject(stock.addr, A, &initiation);
    let packet = Packet::udp(A, SiteId(100), &payload(1, 10)).build();
    net.send(A, 0, &packet);
    assert_eq!(net.site(A).counters().staged, 1);
    assert_eq!(count_type(&net, 4), 0);
    stock.pump(&mut net);
    assert_eq!(stock.inbox, [packet]);
    assert_eq!(net.site(A).counters().staged, 0);
}

#[test]
fn an_empty_message_is_a_keepalive_and_no_packet() {
    let (mut net, mut stock) = with_stock(0x69);
    let before = net.site(A).counters();
    stock.send(&mut net, &[]);
    let after = net.site(A).counters();
    assert_eq!(
        (
            after.consumed - before.consumed,
            after.dropped() - before.dropped()
        ),
        (1, 0)
    );
    assert!(net.take_delivered(A).is_empty());
}

#[test]
fn an_inner_version_that_is_neither_4_nor_6_is_dropped() {
    let plaintexts: Vec<_> = (0..16u8)
        .filter(|version| ![4, 6].contains(version))
        .map(|version| vec![version << 4 | 5; 64])
        .collect();
    assert_inner_refused(&plaintexts, DropReason::InnerMalformed);
}

#[test]
fn an_inner_packet_shorter_than_its_header_is_dropped() {
    let v4: Vec<_> = (1..20).map(|len| vec![0x45; len]).collect();
    let v6: Vec<_> = (1..40).map(|len| vec![0x60; len]).collect();
    assert_inner_refused(&[v4, v6].concat(), DropReason::InnerMalformed);
}

#[test]
fn an_inner_length_beyond_the_message_or_below_the_header_is_dropped() {
    let packet = Packet::udp(SiteId(100), A, &[1; 20]);
    let mut plaintexts = Vec::new();
    for total in [0u16, 1, 19, 49, 1000, 0xffff] {
        let mut bytes = packet.build();
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        plaintexts.push(bytes);
    }
    for payload in [29u16, 1000, 0xffff] {
        let mut bytes = packet.clone().over_v6().build();
        bytes[4..6].copy_from_slice(&payload.to_be_bytes());
        plaintexts.push(bytes);
    }
    assert_inner_refused(&plaintexts, DropReason::InnerMalformed);
}

#[test]
fn an_inner_header_length_below_five_words_is_dropped() {
    let plaintexts: Vec<_> = (0..5u8)
        .map(|words| {
            let mut bytes = Packet::udp(SiteId(100), A, &[1; 20]).build();
            bytes[0] = 0x40 | words;
            bytes
        })
        .collect();
    assert_inner_refused(&plaintexts, DropReason::InnerMalformed);
}

#[test]
fn padding_that_is_not_zero_is_cut_off_all_the_same() {
    let (mut net, mut stock) = with_stock(0x6a);
    for packet in [
        Packet::udp(SiteId(100), A, &[1; 21]),
        Packet::udp(SiteId(100), A, &[1; 21]).over_v6(),
    ] {
        let packet = packet.build();
        let padded = [packet.clone(), vec![0xff; 11]].concat();
        stock.send(&mut net, &padded);
        assert_eq!(net.take_delivered(A), [packet]);
    }
}

#[test]
fn fragments_and_extension_headers_pass_as_they_are() {
    let (mut net, mut stock) = with_stock(0x6b);
    let mut first = Packet::udp(SiteId(100), A, &[1; 24]).build();
    first[6..8].copy_from_slice(&0x2000u16.to_be_bytes());
    let mut later = first.clone();
    later[6..8].copy_from_slice(&0x0003u16.to_be_bytes());
    for fragment in [&mut first, &mut later] {
        fragment[10..12].fill(0);
        let sum = checksum::sum(&fragment[..20]).finish();
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    // Destination options, then UDP.
    let plain = Packet::udp(SiteId(100), A, &[1; 16]).over_v6().build();
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let mut extended = [&plain[..40], &options, &plain[40..]].concat();
    extended[4..6].copy_from_slice(&(plain.len() as u16 - 40 + 8).to_be_bytes());
    extended[6] = 60;
    for packet in [first, later, extended] {
        stock.send(&mut net, &packet);
        assert_eq!(net.take_delivered(A), [packet]);
    }
}

#[test]
fn a_tcp_fragment_over_its_own_header_is_dropped() {
    let mut packet = Packet::tcp(SiteId(100), A, &[1; 24]).build();
    packet[6..8].copy_from_slice(&0x0001u16.to_be_bytes());
    assert_inner_refused(&[packet], DropReason::InnerMalformed);
}

#[test]
fn a_datagram_for_one_peer_is_no_datagram_for_another() {
    let mut net = Net::mesh(0x6c, 3, SiteOptions::default());
    net.run_for(ROUND);
    net.take_captured();
    net.link.loss = 1.0;
    net.send(B, 0, &Packet::udp(B, A, &payload(1, 10)).build());
    net.send(
        SiteId(2),
        0,
        &Packet::udp(SiteId(2), A, &payload(1, 10)).build(),
    );
    let [mut from_b, from_c] = [0, 1].map(|at| net.captured[at].clone());
    // B's ciphertext under C's index.
    from_b.bytes[4..8].copy_from_slice(&from_c.bytes[4..8]);
    let drops = drops_during(&mut net, A, |net| net.inject(from_b.from, A, &from_b.bytes));
    assert_eq!(drops, [(DropReason::DataBadTag, 1)]);
    assert_eq!(
        net.site(A)
            .spec(peer_id(SiteId(2)))
            .stats
            .endpoint()
            .unwrap()
            .remote,
        from_c.from
    );
}

#[test]
fn a_message_sent_back_to_its_sender_is_refused() {
    let mut net = pair(0x6d);
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 10)).build());
    net.settle();
    let sent = net.captured[0].clone();
    let drops = drops_during(&mut net, A, |net| {
        net.inject(net.site(B).outer(), A, &sent.bytes)
    });
    assert_eq!(drops.iter().map(|(_, packets)| packets).sum::<u64>(), 1);
    assert!(net.take_delivered(A).is_empty());
    assert_works(&mut net);
}
