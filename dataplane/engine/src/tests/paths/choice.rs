//! Which path a class takes, and how flows change over.

use patronus_path::Command;

use super::*;
use crate::PathOrder;

const TICK: Duration = Duration::from_millis(2);

fn command(net: &mut Net, at: SiteId, of: SiteId, command: Command) {
    let now = net.now();
    let order = PathOrder::Command(peer_id(of), command);
    net.site_mut(at)
        .engine_mut(0)
        .handle_path_order(&order, now);
}

/// Runs streams until a class of A is on another uplink than `from`; how long that took, at most `limit`.
fn moved_after(
    net: &mut Net,
    streams: &mut Streams,
    class: ClassId,
    from: u8,
    limit: Duration,
) -> Option<Duration> {
    let begin = net.elapsed();
    while net.elapsed() - begin < limit {
        streams.run(net, Duration::from_millis(20), TICK);
        if uplink_of(net, A, B, class) != from {
            return Some(net.elapsed() - begin);
        }
    }
    None
}

/// Realtime and bulk in both directions.
fn mixed() -> Streams {
    let mut streams = Streams::both_ways(EF);
    streams.0.append(&mut Streams::both_ways(CS1).0);
    streams
}

#[test]
fn loss_moves_realtime_but_not_bulk_where_the_alternative_is_slow() {
    let mut times = Vec::new();
    for seed in 0..10 {
        let mut net = TWO_BY_TWO.build(0xf600 + seed);
        let slow = Impairment {
            delay: Duration::from_millis(60),
            rate: patronus_impair::RateBps::new(2_000_000),
            ..good()
        };
        set_path(&mut net, 0, good());
        set_path(&mut net, 1, slow);
        let mut streams = mixed();
        streams.run(&mut net, Duration::from_secs(40), Duration::from_millis(10));
        assert_eq!(uplink_of(&net, A, B, REALTIME), 0);
        set_path(&mut net, 0, lossy(20.0));
        let limit = Duration::from_secs(6);
        times.push(moved_after(&mut net, &mut streams, REALTIME, 0, limit).expect("it moves"));
    }
    times.sort_unstable();
    assert!(
        times[times.len() * 19 / 20] <= Duration::from_millis(2500),
        "{times:?}"
    );
}

#[test]
fn a_step_of_latency_moves_realtime() {
    let mut times = Vec::new();
    for seed in 0..10 {
        let mut net = TWO_BY_TWO.warm(0xf700 + seed);
        let from = uplink_of(&net, A, B, REALTIME);
        let mut streams = Streams::both_ways(EF);
        streams.run(&mut net, Duration::from_secs(2), TICK);
        let slow = Impairment {
            delay: Duration::from_millis(301),
            ..good()
        };
        set_path(&mut net, from, slow);
        let limit = Duration::from_secs(5);
        times.push(moved_after(&mut net, &mut streams, REALTIME, from, limit).expect("it moves"));
    }
    times.sort_unstable();
    assert!(
        times[times.len() * 19 / 20] <= Duration::from_millis(1500),
        "{times:?}"
    );
}

#[test]
fn a_drained_path_loses_nothing_reorders_nothing_and_carries_nothing_afterwards() {
    let mut net = TWO_BY_TWO.warm(0xfc00);
    let from = uplink_of(&net, A, B, DEFAULT);
    let path = path_over(&net, A, B, from);
    // The other path is slower and shaky: a flow that moved too early would be overtaken by itself.
    let other = Impairment {
        delay: Duration::from_millis(3),
        ..good()
    };
    set_path(&mut net, 1 - from, other);
    net.run_for(Duration::from_secs(1));
    let mut streams = Streams(
        (0..20)
            .flat_map(|flow| {
                [
                    Stream::new(A, B, DEFAULT_DSCP, 10_000 + flow * 10),
                    Stream::new(B, A, DEFAULT_DSCP, 20_000 + flow * 10),
                ]
            })
            .collect(),
    );
    streams.run(&mut net, Duration::from_millis(200), TICK);
    command(&mut net, A, B, Command::Drain(path));
    streams.run(&mut net, Duration::from_secs(7), TICK);
    assert_eq!(uplink_of(&net, A, B, DEFAULT), 1 - from);
    let before = data_packets(&net, from);
    streams.run(&mut net, Duration::from_secs(1), TICK);
    assert_eq!(
        data_packets(&net, from),
        before,
        "the drained path carries data"
    );
    streams.rest(&mut net, Duration::from_millis(500));
    streams.assert_whole();
    assert!(
        board(&net, A, B)
            .iter()
            .any(|it| it.path == path && it.is_draining)
    );
}

/// Data packets that A has sent over an uplink.
fn data_packets(net: &Net, uplink: u8) -> u64 {
    let found = board(net, A, B)
        .into_iter()
        .find(|it| it.endpoint.uplink.0 == uplink);
    found.map_or(0, |it| it.tx_packets)
}

#[test]
fn a_flow_stays_on_the_path_that_its_class_leaves_until_it_pauses() {
    let mut net = TWO_BY_TWO.warm(0xfc01);
    let from = uplink_of(&net, A, B, DEFAULT);
    let mut busy = Streams(vec![Stream::new(A, B, DEFAULT_DSCP, 4000)]);
    busy.run(&mut net, Duration::from_secs(1), Duration::from_millis(1));
    let path = path_over(&net, A, B, from);
    command(&mut net, A, B, Command::Drain(path));
    let mut fresh = Streams(vec![Stream::new(A, B, DEFAULT_DSCP, 4100)]);
    let before = data_packets(&net, 1 - from);
    for stream in fresh.0.iter_mut().chain(&mut busy.0) {
        stream.send(&mut net);
    }
    net.run_for(Duration::from_millis(300));
    fresh.0.append(&mut busy.0);
    fresh.take(&mut net);
    let mut busy = Streams(vec![fresh.0.remove(1)]);
    assert!(
        data_packets(&net, 1 - from) > before,
        "a new flow takes the new path at once"
    );
    // The busy flow goes on where it was, until it pauses, and its turn has come: a quarter of the flows per second.
    let before = data_packets(&net, from);
    busy.run(
        &mut net,
        Duration::from_millis(500),
        Duration::from_millis(1),
    );
    net.run_for(Duration::from_millis(300));
    let stayed = data_packets(&net, from) - before;
    assert!(stayed >= 490, "{stayed} of 500 packets stayed");
    net.run_for(Duration::from_millis(3500));
    let before = data_packets(&net, from);
    busy.run(
        &mut net,
        Duration::from_millis(100),
        Duration::from_millis(1),
    );
    net.run_for(Duration::from_millis(300));
    assert_eq!(data_packets(&net, from), before);
}

#[test]
fn a_pin_holds_and_an_unpin_frees() {
    let mut net = TWO_BY_TWO.warm(0xfc02);
    let from = uplink_of(&net, A, B, DEFAULT);
    let other = path_over(&net, A, B, 1 - from);
    command(&mut net, A, B, Command::Pin(other, None));
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, Duration::from_secs(8), TICK);
    for class in [REALTIME, DEFAULT, BULK] {
        assert_eq!(uplink_of(&net, A, B, class), 1 - from);
    }
    streams.rest(&mut net, Duration::from_millis(100));
    streams.assert_whole();
}

#[test]
fn an_order_about_a_path_that_does_not_exist_changes_nothing() {
    let mut net = TWO_BY_TWO.warm(0xfc03);
    for path in [PathIndex(9), PathIndex(16), PathIndex(255)] {
        for it in [
            Command::Pin(path, Some(ClassId(7))),
            Command::Drain(path),
            Command::Undrain(path),
            Command::Clear(path),
            Command::Unpin(Some(ClassId(255))),
        ] {
            command(&mut net, A, B, it);
        }
        let now = net.now();
        for order in [
            PathOrder::Ping(peer_id(B), path),
            PathOrder::MeasureBandwidth(peer_id(B), path),
            PathOrder::Trace(PeerId(77), true),
            PathOrder::Uplink(200, Some(patronus_path::StateReason::CarrierLost)),
        ] {
            net.site_mut(A).engine_mut(0).handle_path_order(&order, now);
        }
    }
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, Duration::from_secs(1), TICK);
    streams.rest(&mut net, Duration::from_millis(100));
    streams.assert_whole();
}

#[test]
fn a_ping_is_answered_with_the_round_trip() {
    let mut net = TWO_BY_TWO.warm(0xfc04);
    net.site_mut(A).events.clear();
    let path = path_over(&net, A, B, 1);
    let now = net.now();
    let order = PathOrder::Ping(peer_id(B), path);
    net.site_mut(A).engine_mut(0).handle_path_order(&order, now);
    net.run_for(Duration::from_millis(100));
    let pong = net.site(A).events.iter().find_map(|event| match event {
        crate::Event::Path(_, PathEvent::Pong(of, ns)) if *of == path => Some(*ns),
        _ => None,
    });
    // Twice the default link's millisecond.
    let pong = pong.expect("a pong");
    assert!((1_900_000..2_100_000).contains(&pong), "{pong} ns");
}

#[test]
fn the_second_uplink_of_a_peer_is_learnt_by_a_site_that_knows_of_one_address() {
    let mut net = Net::new(0xfc05);
    let a = net.add_site(SiteOptions::default());
    let b = net.add_site(SiteOptions {
        uplinks: 2,
        ..SiteOptions::default()
    });
    net.set_paths(a, paths_config(0, false));
    net.set_paths(b, paths_config(2, false));
    let spec = net.spec_of(b);
    net.add_peer(a, spec);
    let remote = net.site(a).outer();
    let spec = PeerSpec {
        paths: (0..2).map(|number| path_spec(number, remote)).collect(),
        ..net.spec_of(a)
    };
    net.add_peer(b, spec);
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, WARM_UP, Duration::from_millis(20));
    assert_up(&net, A, B, 2);
    assert_up(&net, B, A, 2);
    let ends: Vec<SocketAddr> = board(&net, A, B)
        .iter()
        .map(|it| it.endpoint.remote)
        .collect();
    assert!(ends.contains(&net.site(B).outer_on(0)) && ends.contains(&net.site(B).outer_on(1)));
    // And it is used.
    net.set_path_both(Uplink(A, 0), Uplink(B, 0), dead());
    streams.run(&mut net, Duration::from_secs(2), TICK);
    let at = net.elapsed();
    streams.run(&mut net, Duration::from_secs(1), TICK);
    assert!(
        streams
            .0
            .iter()
            .all(|it| it.gap_since(at) < Duration::from_millis(50))
    );
}
