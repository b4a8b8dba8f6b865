//! What packets see of a fault: how long they are missing, and that none comes twice.

use super::*;

const TICK: Duration = Duration::from_millis(1);

/// Streams in both directions of some class meet a fault; what came of them.
fn through(net: &mut Net, dscp: u8, fault: impl FnOnce(&mut Net)) -> (Streams, Duration) {
    let mut streams = Streams::both_ways(dscp);
    streams.run(net, Duration::from_secs(1), TICK);
    let at = net.elapsed();
    fault(net);
    streams.run(net, Duration::from_secs(2), TICK);
    streams.rest(net, Duration::from_millis(500));
    (streams, at)
}

#[track_caller]
fn assert_gaps(streams: &Streams, since: Duration, limits_ms: [u64; 2]) {
    for (stream, limit_ms) in streams.0.iter().zip(limits_ms) {
        let gap = stream.gap_since(since);
        let limit = Duration::from_millis(limit_ms);
        assert!(gap <= limit, "{:?}: a gap of {gap:?}", stream.from);
        assert_eq!(stream.twice(), 0);
        assert!(stream.is_ordered());
    }
}

#[test]
fn a_path_that_dies_is_left_within_300_ms() {
    let mut gaps = Vec::new();
    for seed in 0..25 {
        let mut net = TWO_BY_TWO.warm(0xf100 + seed);
        let active = uplink_of(&net, A, B, DEFAULT);
        let (streams, at) = through(&mut net, DEFAULT_DSCP, |net| set_path(net, active, dead()));
        assert_gaps(&streams, at, [400, 400]);
        gaps.extend(streams.0.iter().map(|stream| stream.gap_since(at)));
        assert_eq!(uplink_of(&net, A, B, DEFAULT), 1 - active);
        assert_eq!(uplink_of(&net, B, A, DEFAULT), 1 - active);
    }
    gaps.sort_unstable();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!(
        "gaps of {} streams: median {median:?}, longest {longest:?}",
        gaps.len()
    );
    assert!(longest <= Duration::from_millis(300), "{gaps:?}");
}

#[test]
fn a_path_that_dies_in_one_direction_is_left_in_that_direction() {
    for seed in 0..10 {
        let mut net = TWO_BY_TWO.warm(0xf300 + seed);
        let active = uplink_of(&net, A, B, DEFAULT);
        assert_eq!(uplink_of(&net, B, A, DEFAULT), active, "both ends agree");
        let (streams, at) = through(&mut net, DEFAULT_DSCP, |net| {
            net.set_path(Uplink(A, active), Uplink(B, active), dead());
        });
        assert_gaps(&streams, at, [400, 50]);
        assert!(
            switches(&mut net, B, DEFAULT) <= 2,
            "the first choice, and one more"
        );
    }
}

#[test]
fn an_uplink_that_loses_its_carrier_is_left_at_once() {
    for seed in 0..10 {
        let mut net = TWO_BY_TWO.warm(0xf400 + seed);
        let active = uplink_of(&net, A, B, DEFAULT);
        let (streams, at) = through(&mut net, DEFAULT_DSCP, |net| {
            net.set_uplink(A, active, false);
        });
        assert_gaps(&streams, at, [50, 50]);
        net.set_uplink(A, active, true);
        net.run_for(Duration::from_secs(20));
        assert_up(&net, A, B, 2);
    }
}

#[test]
fn protected_packets_miss_less_and_never_come_twice() {
    let world = World {
        protect: true,
        ..TWO_BY_TWO
    };
    let mut copies = 0;
    for seed in 0..10 {
        let mut net = world.warm(0xf500 + seed);
        let active = uplink_of(&net, A, B, REALTIME);
        let (streams, at) = through(&mut net, EF, |net| set_path(net, active, dead()));
        assert_gaps(&streams, at, [150, 150]);
        copies += net.site(A).counters().copies_sent;
    }
    assert!(copies > 0, "nothing was protected");
}

#[test]
fn copies_of_a_suspect_path_that_lives_are_dropped_and_counted() {
    let world = World {
        protect: true,
        ..TWO_BY_TWO
    };
    let mut net = world.warm(0xf501);
    let active = uplink_of(&net, A, B, REALTIME);
    let mut streams = Streams::both_ways(EF);
    for _ in 0..200 {
        // Too short for Down, long enough for suspicion.
        set_path(&mut net, active, dead());
        streams.run(&mut net, Duration::from_millis(150), TICK);
        set_path(&mut net, active, good());
        streams.run(&mut net, Duration::from_millis(400), TICK);
        if net.site(B).counters().drops[DropReason::DataCopy as usize] > 0 {
            break;
        }
    }
    streams.rest(&mut net, Duration::from_secs(1));
    assert!(streams.0.iter().all(|stream| stream.twice() == 0));
    let counters = net.site(B).counters();
    assert!(
        counters.drops[DropReason::DataCopy as usize] > 0,
        "{counters:?}"
    );
    assert!(net.site(A).counters().copies_sent > 0);
}

#[test]
fn a_path_that_the_kernel_refuses_is_left_at_once() {
    let mut net = TWO_BY_TWO.warm(0xf502);
    let active = uplink_of(&net, A, B, DEFAULT);
    let path = path_over(&net, A, B, active);
    let known = board(&net, A, B).into_iter().find(|it| it.path == path);
    let endpoint = known.expect("the path").endpoint;
    let now = net.now();
    let engine = net.site_mut(A).engine_mut(0);
    engine.handle_send_failure(&endpoint, DropReason::SendNoBuffers, now);
    assert_eq!(
        uplink_of(&net, A, B, DEFAULT),
        active,
        "a full buffer says nothing of the path"
    );
    let engine = net.site_mut(A).engine_mut(0);
    engine.handle_send_failure(&endpoint, DropReason::SendUnreachable, now);
    assert_eq!(uplink_of(&net, A, B, DEFAULT), 1 - active);
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, Duration::from_secs(1), TICK);
    streams.rest(&mut net, Duration::from_millis(200));
    streams.assert_whole();
}

#[test]
fn a_path_that_goes_to_and_fro_says_so_once_a_second_and_counts_the_other_times() {
    let one = World {
        uplinks: 1,
        ..TWO_BY_TWO
    };
    let mut net = one.warm(0xf900);
    let homes = [
        SocketAddr::from(([198, 51, 100, 1], 4000)),
        SocketAddr::from(([198, 51, 100, 2], 4000)),
    ];
    std::mem::take(&mut net.site_mut(A).events);
    let before = net.site(A).counters().moves_untold;
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    for turn in 0..30 {
        net.move_site(B, homes[turn % 2]);
        streams.run(&mut net, Duration::from_millis(100), TICK);
    }
    let moves = |net: &mut Net| -> Vec<SocketAddr> {
        let events = std::mem::take(&mut net.site_mut(A).events);
        let told = events.iter().filter_map(|event| match event {
            crate::Event::Path(_, PathEvent::Moved(_, end)) => Some(end.remote),
            _ => None,
        });
        told.collect()
    };
    let told = moves(&mut net);
    assert!((2..=4).contains(&told.len()), "in three seconds: {told:?}");
    let untold = net.site(A).counters().moves_untold - before;
    assert!(untold >= 20, "{untold} of 30");
    // Where it stays is told in the end.
    net.move_site(B, homes[0]);
    streams.run(&mut net, Duration::from_secs(3), TICK);
    let last = moves(&mut net).last().copied();
    assert_eq!(last.unwrap_or(told[told.len() - 1]), homes[0]);
}
