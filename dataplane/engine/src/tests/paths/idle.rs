//! What is not measured: peers that are idle, and peers that do not answer.

use super::*;

#[test]
fn a_peer_without_traffic_is_sent_nothing_after_15_minutes_and_woken_by_a_packet() {
    let mut net = TWO_BY_TWO.warm(0x1d00);
    net.run_for(Duration::from_secs(16 * 60));
    net.take_captured();
    net.run_for(Duration::from_secs(3600));
    assert_eq!(net.take_captured().len(), 0, "an idle peer costs datagrams");
    let handshakes = net.site(A).counters().handshakes;
    assert!(
        handshakes < 20,
        "hellos alone keep sessions alive: {handshakes}"
    );
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, Duration::from_secs(3), Duration::from_millis(20));
    streams.rest(&mut net, Duration::from_millis(100));
    assert!(
        streams.0.iter().all(|it| it.lost() == 0),
        "the first packets wait for a handshake"
    );
    assert!(net.site(A).counters().hellos_sent > 0);
    assert_up(&net, A, B, 2);
    assert_up(&net, B, A, 2);
}

#[test]
fn a_peer_without_traffic_for_a_minute_is_probed_once_a_second_until_there_is_some() {
    let mut net = TWO_BY_TWO.build(0x1d1f);
    net.run_for(Duration::from_secs(20));
    assert_up(&net, A, B, 2);
    let hellos_per_s = |net: &mut Net| {
        net.take_captured();
        net.run_for(Duration::from_secs(10));
        net.take_captured().len() as f64 / 10.0
    };
    // Two paths, both ends, 75 to 100 % of 50 ms.
    let busy = hellos_per_s(&mut net);
    assert!(busy > 75.0, "{busy}");
    net.run_for(Duration::from_secs(50));
    let quiet = hellos_per_s(&mut net);
    assert!(quiet < 8.0, "{quiet}");
    assert_up(&net, A, B, 2);
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 20)).build());
    net.run_for(Duration::from_millis(500));
    let again = hellos_per_s(&mut net);
    assert!(again > 75.0, "{again}");
}

#[test]
fn a_stock_peer_is_asked_a_few_times_per_handshake_and_left_alone() {
    let mut net = Net::new(0x1d01);
    net.add_site(SiteOptions::default());
    net.set_paths(A, paths_config(0, false));
    let mut stock = Stock::join(&mut net, A);
    stock.connect(&mut net);
    for _ in 0..100 {
        net.run_for(Duration::from_millis(100));
        stock.pump(&mut net);
    }
    let asked = net.site(A).counters().hellos_sent;
    assert!((1..=40).contains(&asked), "{asked} hellos");
    for _ in 0..100 {
        net.run_for(Duration::from_millis(100));
        stock.pump(&mut net);
    }
    assert_eq!(net.site(A).counters().hellos_sent, asked);
    stock.assert_works(&mut net);
    assert!(!net.site(A).spec(STOCK).board.is_answered());
}

#[test]
fn a_stock_peer_with_two_addresses_is_found_at_the_second_when_the_first_is_dead() {
    let mut net = Net::new(0x1d02);
    net.add_site(SiteOptions::default());
    net.set_paths(A, paths_config(0, false));
    let mut stock = Stock::stranger(&net, A);
    stock.addr = SocketAddr::from(([203, 0, 113, 2], OUTER_PORT));
    let dead = SocketAddr::from(([203, 0, 113, 1], OUTER_PORT));
    let mut paths = vec![path_spec(255, dead), path_spec(255, stock.addr)];
    for path in &mut paths {
        path.profile.uplink = 255;
    }
    let spec = PeerSpec {
        endpoint: Some(dead),
        paths,
        ..stock.spec(&net)
    };
    net.add_peer(A, spec);
    let packet = Packet::udp(A, SiteId(100), &payload(1, 20)).build();
    net.send(A, 0, &packet);
    for _ in 0..100 {
        net.run_for(Duration::from_millis(60));
        stock.pump(&mut net);
    }
    assert_eq!(stock.inbox, [packet]);
    stock.assert_works(&mut net);
}

#[test]
fn a_site_that_measures_nothing_takes_hellos_and_keeps_one_path() {
    let mut net = TWO_BY_TWO.build(0x1d03);
    net.set_paths(B, PathsConfig::default());
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, Duration::from_secs(5), Duration::from_millis(20));
    streams.rest(&mut net, Duration::from_millis(100));
    assert!(streams.0.iter().all(|it| it.lost() == 0));
    assert_eq!(net.site(B).counters().hellos_sent, 0);
    assert!(net.site(B).counters().hellos_received > 0);
    assert_eq!(board(&net, B, A), []);
}
