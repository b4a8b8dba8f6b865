//! Two probers find out whether their paths work, and tell each other.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::{Direction, PathState, StateReason, Time};
use world::{Link, World, ms};

#[test]
fn a_path_comes_up_within_one_round_trip_and_a_half() {
    let link = Link {
        delay: ms(40),
        ..Link::default()
    };
    let mut world = World::new(1, &link, 1);
    let is_up = |world: &World| (0..2).all(|site| world.sites[site].state(0) == PathState::Up);
    let took = world.run_till(ms(1000), is_up).unwrap();
    assert!(took <= ms(120), "{took:?}");
    assert!(world.sites[0].prober.is_answered());
}

#[test]
fn a_cut_is_detected_within_the_detection_time_and_not_before() {
    let (mut latest, mut soonest) = (Duration::ZERO, Duration::MAX);
    for seed in 0..1000 {
        let link = Link {
            delay: ms(1),
            ..Link::default()
        };
        let mut world = World::new(1, &link, seed);
        world.run_for(ms(200));
        world.activate(&[1]);
        let phase = 300.0 + 100.0 * world.share();
        world.run_for(Duration::from_secs_f64(phase / 1e3));
        world.cut(0, true);
        let cut = world.now;
        world.run_for(ms(400));
        for site in &world.sites {
            let down = site.became(0, PathState::Down, cut);
            let took = down
                .unwrap_or_else(|| panic!("never, seed {seed}"))
                .since(cut);
            (latest, soonest) = (latest.max(took), soonest.min(took));
            // The last hello that was under way counts from its arrival.
            assert!(took <= ms(251), "{took:?}, seed {seed}");
            assert!(took >= ms(187), "{took:?}, seed {seed}");
        }
    }
    println!("from {soonest:?} to {latest:?}");
}

#[test]
fn a_fault_in_one_direction_is_known_at_both_ends_in_time_and_blamed_on_that_direction() {
    for seed in 0..100 {
        let link = Link {
            delay: ms(20),
            ..Link::default()
        };
        let mut world = World::settled(1, &link, seed);
        let phase = 100.0 * world.share();
        world.run_for(Duration::from_secs_f64(phase / 1e3));
        world.link(0, 0).is_cut = true;
        let cut = world.now;
        world.run_for(ms(500));
        let known = world.sites[0].became(0, PathState::Down, cut).unwrap();
        assert!(known.since(cut) <= ms(400), "seed {seed}");
        assert_eq!(world.sites[0].reason(0), StateReason::PeerDoesNotHear);
        assert_eq!(world.sites[1].reason(0), StateReason::DetectionExpired);
        // What went the other way came.
        let (tx_lost, _) = world.sites[0].probes(0, Direction::Tx, cut);
        let (rx_lost, _) = world.sites[0].probes(0, Direction::Rx, cut);
        assert!(
            tx_lost >= 3 && rx_lost == 0,
            "{tx_lost} {rx_lost}, seed {seed}"
        );

        world.link(0, 0).is_cut = false;
        let mended = world.now;
        world.run_for(ms(300));
        for site in &world.sites {
            let up = site.became(0, PathState::Up, mended).unwrap();
            assert!(up.since(mended) <= ms(250), "seed {seed}");
        }
    }
}

#[test]
fn a_short_gap_makes_a_path_suspect_and_a_burst_clears_it() {
    let mut world = World::settled(1, &Link::default(), 3);
    world.cut(0, true);
    let cut = world.now;
    let suspected = world.run_till(ms(200), |world| {
        world.sites[0].state(0) == PathState::Suspect
    });
    assert!(suspected.unwrap() <= ms(110));
    world.cut(0, false);
    let sent = world.sites[0].sent[&0];
    let cleared = world.run_till(ms(200), |world| world.sites[0].state(0) == PathState::Up);
    assert!(cleared.unwrap() <= ms(21), "{cleared:?}");
    world.run_for(ms(30));
    assert_eq!(world.sites[0].became(0, PathState::Down, cut), None);
    assert!(world.sites[0].sent[&0] - sent <= 6);
}

#[test]
fn a_side_that_slept_does_not_blame_the_path() {
    for (slept, is_counted) in [(ms(40), false), (ms(2000), true)] {
        let mut ours = world::config(0, 1);
        // So that the peer does not blame the path either.
        ours.paths[0].cadence.multiplier = 100;
        let theirs = world::config(1, 1);
        let mut world = World::with(ours, theirs, 1, &Link::default(), 4);
        world.run_for(ms(200));
        world.activate(&[1]);
        world.run_for(ms(2000));
        let begin = world.now;
        world.sites[0].asleep_until = world.now + slept;
        world.run_for(slept + ms(500));
        assert_eq!(world.sites[0].became(0, PathState::Down, begin), None);
        assert_eq!(world.sites[0].prober.starved() > 0, is_counted);
        assert_eq!(world.sites[0].state(0), PathState::Up);
    }
}

#[test]
fn a_dead_peer_is_detected_though_this_side_slept() {
    let mut world = World::settled(1, &Link::default(), 5);
    world.cut(0, true);
    world.sites[0].asleep_until = world.now + ms(1000);
    let took = world.run_till(ms(2000), |world| world.sites[0].state(0) == PathState::Down);
    assert!(took.unwrap() <= ms(1250), "{took:?}");
}

#[test]
fn data_alone_keeps_a_path_alive_but_does_not_bring_it_up() {
    let mut world = World::settled(1, &Link::default(), 6);
    world.sites[1].traffic = Some((patronus_path::PathIndex(0), ms(10), 500));
    world.run_for(ms(500));
    let begin = world.now;
    world.sites[1].prober.set_uplink(9, None, begin);
    world.run_for(ms(500));
    assert_eq!(world.sites[0].state(0), PathState::Up);
}

#[test]
fn a_broken_uplink_is_down_at_once_and_the_peer_is_told_on_another_path() {
    let mut world = World::new(2, &Link::default(), 7);
    world.run_for(Duration::from_secs(3));
    world.activate(&[1]);
    world.run_for(Duration::from_secs(2));
    let at = world.now;
    world.sites[0]
        .prober
        .set_uplink(0, Some(StateReason::CarrierLost), at);
    world.cut(0, true);
    world.run_for(ms(20));
    for site in 0..2 {
        let down = world.sites[site].became(0, PathState::Down, at).unwrap();
        assert!(down.since(at) <= ms(6), "site {site}");
        assert_eq!(world.sites[site].state(1), PathState::Up);
    }
    assert_eq!(world.sites[0].reason(0), StateReason::CarrierLost);
    assert_eq!(world.sites[1].reason(0), StateReason::PeerSignalled);

    world.run_for(Duration::from_secs(2));
    let at = world.now;
    world.cut(0, false);
    world.sites[0].prober.set_uplink(0, None, at);
    world.run_for(ms(100));
    for site in 0..2 {
        let up = world.sites[site].became(0, PathState::Up, at).unwrap();
        assert!(up.since(at) <= ms(30), "site {site}");
        let again = world.sites[site].became(0, PathState::Down, up);
        assert_eq!(again, None, "site {site} is not sure");
    }
}

#[test]
fn a_refused_path_is_down_until_the_peer_heard_something_newer() {
    let mut world = World::settled(1, &Link::default(), 8);
    let at = world.now;
    world.link(0, 0).is_cut = true;
    world.sites[0]
        .prober
        .send_refused(patronus_path::PathIndex(0), at);
    assert_eq!(world.sites[0].state(0), PathState::Down);
    assert_eq!(world.sites[0].reason(0), StateReason::Unreachable);
    // The peer says for a while that it hears us.
    world.run_for(ms(150));
    assert_eq!(world.sites[0].state(0), PathState::Down);
    world.link(0, 0).is_cut = false;
    let took = world.run_till(ms(500), |world| world.sites[0].state(0) == PathState::Up);
    assert!(took.unwrap() <= ms(70), "{took:?}");
}

#[test]
fn idle_paths_cost_one_hello_a_second_and_are_detected_at_their_pace() {
    let mut world = World::new(1, &Link::default(), 9);
    world.run_for(Duration::from_secs(20));
    let before = world.sites[0].sent[&0];
    world.run_for(Duration::from_secs(100));
    let hellos = world.sites[0].sent[&0] - before;
    assert!((100..=134).contains(&hellos), "{hellos}");
    world.cut(0, true);
    let took = world.run_till(Duration::from_secs(6), |world| {
        world.sites[0].state(0) == PathState::Down
    });
    let took = took.unwrap();
    assert!(took > ms(4000) && took <= ms(5010), "{took:?}");
}

#[test]
fn a_path_that_one_side_uses_is_fast_both_ways_and_slows_down_without_a_false_alarm() {
    for seed in 0..30 {
        let link = Link {
            loss: 0.05,
            ..Link::default()
        };
        let mut world = World::new(1, &link, seed);
        world.run_for(Duration::from_secs(3));
        let at = world.now;
        world.sites[0].prober.set_roles(&[1], 0, at);
        world.run_for(Duration::from_secs(2));
        let before = world.sites[1].sent[&0];
        world.run_for(Duration::from_secs(2));
        let hellos = world.sites[1].sent[&0] - before;
        assert!((38..=60).contains(&hellos), "{hellos}, seed {seed}");
        let at = world.now;
        world.sites[0].prober.set_roles(&[0], 0, at);
        world.run_for(Duration::from_secs(3));
        let before = world.sites[1].sent[&0];
        world.run_for(Duration::from_secs(4));
        let hellos = world.sites[1].sent[&0] - before;
        assert!(hellos <= 10, "{hellos}, seed {seed}");
        for site in &world.sites {
            assert_eq!(site.became(0, PathState::Down, at), None, "seed {seed}");
        }
    }
}

#[test]
fn a_stock_peer_is_hardly_bothered_and_stays_down() {
    let mut world = World::new(1, &Link::default(), 10);
    // Nobody answers.
    world.cut(0, true);
    world.run_for(Duration::from_secs(3600));
    let (site, hour) = (&world.sites[0], world.now);
    assert!(site.sent[&0] <= 170, "{:?}", site.sent);
    assert!(!site.prober.is_answered());
    assert_eq!(site.became(0, PathState::Init, Time(0)), None);
    // Its data is no answer.
    let counters = patronus_path::PathCounters {
        rx_packets: 5,
        ..Default::default()
    };
    let path = patronus_path::PathIndex(0);
    world.sites[0].prober.set_counters(path, counters, hour);
    assert_eq!(world.sites[0].state(0), PathState::Down);
    // After a handshake it is asked again, soon.
    world.cut(0, false);
    world.sites[0].prober.session_began(hour);
    let took = world.run_till(ms(1000), |world| world.sites[0].state(0) == PathState::Up);
    assert!(took.unwrap() <= ms(30));
}

#[test]
fn a_new_session_wakes_silent_paths() {
    let mut world = World::settled(1, &Link::default(), 16);
    let at = world.now;
    world.sites[0].prober.set_roles(&[0], 0, at);
    world.sites[1].prober.set_roles(&[0], 0, at);
    world.run_for(Duration::from_secs(10));
    world.cut(0, true);
    world.run_for(Duration::from_secs(60));
    world.cut(0, false);
    let now = world.now;
    world.sites[0].prober.session_began(now);
    let took = world.run_till(ms(1000), |world| {
        (0..2).all(|site| world.sites[site].state(0) == PathState::Up)
    });
    assert!(took.unwrap() <= ms(16), "{took:?}");
}

#[test]
fn a_restarted_peer_is_up_again_at_once() {
    for (seed, outage) in [(11, ms(0)), (12, ms(100)), (13, ms(3000))] {
        let mut world = World::settled(1, &Link::default(), seed);
        world.run_for(Duration::from_secs(30));
        world.cut(0, true);
        world.run_for(outage);
        world.cut(0, false);
        let at = world.now;
        world.sites[1] = world::Site::new(world::config(1, 1), seed + 1000, at);
        world.run_for(ms(60));
        let events = world.sites[0]
            .prober
            .events(patronus_path::PathIndex(0))
            .unwrap();
        assert_eq!(events.peer_restarts, 1);
        assert_eq!(events.downs, u32::from(outage > ms(300)));
        for site in &world.sites {
            assert_eq!(site.state(0), PathState::Up, "after {outage:?}");
        }
        world.run_for(Duration::from_secs(2));
        let (lost, all) = world.sites[0].probes(0, Direction::Tx, at);
        assert!(lost <= 10 && all > 1, "{lost} of {all}");
        let metrics = world.sites[0]
            .prober
            .metrics(patronus_path::PathIndex(0), world.now);
        assert!((metrics.unwrap().rtt_fast_ns.unwrap() - 10e6).abs() < 0.2e6);
    }
}

#[test]
fn held_paths_are_down_at_both_ends() {
    let mut world = World::settled(1, &Link::default(), 14);
    let at = world.now;
    world.sites[0]
        .prober
        .hold_down(patronus_path::PathIndex(0), true, at);
    world.run_for(ms(20));
    assert_eq!(world.sites[0].state(0), PathState::AdminDown);
    assert_eq!(world.sites[1].state(0), PathState::Down);
    assert_eq!(world.sites[1].reason(0), StateReason::PeerSignalled);
    let at = world.now;
    world.sites[0]
        .prober
        .hold_down(patronus_path::PathIndex(0), false, at);
    world.run_for(ms(20));
    assert_eq!(world.sites[0].state(0), PathState::Up);
    assert_eq!(world.sites[1].state(0), PathState::Up);
}

#[test]
fn no_state_changes_without_a_fault_in_an_hour_of_jitter_and_loss() {
    let link = Link {
        delay: ms(20),
        jitter: ms(30),
        loss: 0.02,
        ..Link::default()
    };
    let mut world = World::settled(1, &link, 15);
    world.keeps_log = false;
    world.run_for(Duration::from_secs(3600));
    for site in &world.sites {
        let events = site.prober.events(patronus_path::PathIndex(0)).unwrap();
        assert_eq!((events.downs, events.mtu_holes), (0, 0));
        assert_eq!(site.prober.starved(), 0);
    }
}
