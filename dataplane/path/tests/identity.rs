//! Which path a hello belongs to.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::message::Kind;
use patronus_path::{
    Arrival, Hello, Observation, PATHS_MAX, PathIndex, PathState, Prober, ProberConfig, Time,
};
use world::{Link, PORT, World, addr, config, ms};

const PATH: PathIndex = PathIndex(0);

/// The first site knows the second one's address, not the other way round.
fn behind_nat(seed: u64) -> World {
    let mut b = config(1, 1);
    b.paths.clear();
    let mut world = World::with(config(0, 1), b, 1, &Link::default(), seed);
    world.link(0, 0).nat_port = Some(40_000);
    world.run_for(ms(500));
    world.activate(&[1]);
    world.run_for(ms(2000));
    world
}

#[test]
fn a_peer_that_is_not_configured_opens_a_path_of_its_own() {
    let world = behind_nat(1);
    let site = &world.sites[1];
    assert_eq!(site.state(0), PathState::Up);
    let ends = site.prober.ends(PATH).unwrap();
    assert_eq!((ends.uplink, ends.remote.port()), (0, 40_000));
    assert_eq!(ends.local, Some(addr(1, 0).ip()));
    assert_eq!(site.prober.profile(PATH).unwrap().name, "wan0-192.0.2.0");
    let (_, first) = &site.log[0];
    assert!(matches!(first, Observation::Path(PATH, profile) if profile.cost == 10));
}

#[test]
fn a_path_follows_its_peer_through_a_nat_that_forgot() {
    let mut world = behind_nat(2);
    let at = world.now;
    world.link(0, 0).nat_port = Some(41_000);
    world.run_for(ms(100));
    let site = &world.sites[1];
    assert_eq!(site.prober.ends(PATH).unwrap().remote.port(), 41_000);
    assert_eq!(site.prober.events(PATH).unwrap().moves, 1);
    assert_eq!(site.prober.paths().count(), 1);
    assert_eq!(site.became(0, PathState::Down, at), None);
    let is_event = |(seen_at, seen): &(Time, Observation)| {
        *seen_at >= at && matches!(seen, Observation::Path(PATH, _))
    };
    assert!(site.log.iter().any(is_event));
    world.run_for(ms(3000));
    assert_eq!(world.sites[0].state(0), PathState::Up);
}

#[test]
fn an_old_hello_from_elsewhere_moves_nothing() {
    let mut world = behind_nat(3);
    let now = world.now;
    let site = &mut world.sites[1];
    let from = |port| Arrival {
        uplink: 0,
        remote: (addr(0, 0).ip(), port).into(),
        local: None,
    };
    let old = Hello {
        path: 1,
        your_path: 1,
        sequence: 1,
        multiplier: 5,
        instance: 7,
        ..Hello::default()
    };
    // It is of no run that this path knows: a path of its own.
    assert_eq!(
        site.prober.handle_hello(&from(9), &old, 96, now),
        Some(PathIndex(1))
    );
    assert_eq!(site.prober.ends(PATH).unwrap().remote.port(), 40_000);
    assert_eq!(
        site.prober.profile(PathIndex(1)).unwrap().name,
        "wan0-192.0.2.0:9"
    );
    for kind in [Kind::Train, Kind::MtuProbe, Kind::MtuReply] {
        let other = Hello { kind, ..old };
        assert_eq!(site.prober.handle_hello(&from(10), &other, 96, now), None);
    }
    let lane = Hello {
        kind: Kind::Lane,
        ..old
    };
    assert_eq!(
        site.prober.handle_hello(&from(10), &lane, 96, now),
        Some(PATH)
    );
    assert_eq!(site.prober.ends(PATH).unwrap().remote.port(), 40_000);
}

#[test]
fn unknown_uplinks_are_refused_unless_there_are_no_uplinks() {
    let hello = Hello {
        path: 1,
        sequence: 1,
        multiplier: 5,
        ..Hello::default()
    };
    let arrival = Arrival {
        uplink: 255,
        remote: addr(0, 0),
        local: None,
    };
    let mut prober = Prober::new(config(1, 1), 1, Time(0));
    assert_eq!(prober.handle_hello(&arrival, &hello, 96, Time(5)), None);
    let bare = ProberConfig {
        paths: Vec::new(),
        uplinks: Vec::new(),
        inner_mtu: 1420,
    };
    let mut prober = Prober::new(bare, 1, Time(0));
    assert_eq!(prober.poll_timeout(), None);
    assert_eq!(
        prober.handle_hello(&arrival, &hello, 96, Time(5)),
        Some(PATH)
    );
    assert_eq!(prober.profile(PATH).unwrap().name, "any-192.0.2.0");
    assert_eq!(prober.path_of(&arrival), Some(PATH));
}

#[test]
fn a_full_table_refuses_and_makes_room_for_the_configured() {
    let mut b = config(1, 1);
    b.paths.clear();
    let mut prober = Prober::new(b, 1, Time(0));
    let hello = |number: u16| Hello {
        instance: number.into(),
        path: number,
        sequence: 1,
        multiplier: 5,
        interval_ms: 50,
        ..Hello::default()
    };
    let from = |port| Arrival {
        uplink: 0,
        remote: (addr(0, 0).ip(), port).into(),
        local: None,
    };
    for port in 0..PATHS_MAX as u16 {
        assert!(
            prober
                .handle_hello(&from(port + 1), &hello(port + 1), 96, Time(5))
                .is_some()
        );
    }
    assert_eq!(
        prober.handle_hello(&from(99), &hello(99), 96, Time(5)),
        None
    );
    let later = Time(1_000_000_000);
    while let Some(at) = prober.poll_timeout().filter(|at| *at < later) {
        prober.handle_timeout(at);
        while prober.poll_transmit(at).is_some() {}
    }
    prober.configure(config(1, 1), later);
    assert!(prober.path_of(&from(PORT)).is_some());
    assert_eq!(prober.paths().count(), PATHS_MAX);
}

#[test]
fn a_learnt_path_that_is_down_for_ten_minutes_goes_away() {
    let mut world = behind_nat(4);
    world.cut(0, true);
    world.run_for(Duration::from_secs(599));
    assert_eq!(world.sites[1].prober.paths().count(), 1);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.sites[1].prober.paths().count(), 0);
    let (_, last) = world.sites[1].log.last().unwrap();
    assert_eq!(*last, Observation::Gone(PATH));
    assert_eq!(world.sites[0].prober.paths().count(), 1, "configured");
    world.cut(0, false);
    world.run_for(ms(1500));
    assert_eq!(world.sites[1].state(0), PathState::Up);
}

#[test]
fn a_new_configuration_keeps_what_stays() {
    let mut world = World::new(3, &Link::default(), 5);
    world.run_for(Duration::from_secs(5));
    let before = world.sites[0].prober.metrics(PathIndex(1), world.now);
    let mut next = config(0, 3);
    next.paths.remove(0);
    next.paths[0].profile.cost = 99;
    let now = world.now;
    world.sites[0].prober.configure(next, now);
    let prober = &mut world.sites[0].prober;
    assert_eq!(prober.state(PATH), None);
    assert_eq!(prober.metrics(PathIndex(1), now), before);
    let told: Vec<_> = std::iter::from_fn(|| prober.poll_observation()).collect();
    assert_eq!(told[0], Observation::Gone(PATH));
    assert!(matches!(&told[1], Observation::Path(PathIndex(1), profile) if profile.cost == 99));
    assert_eq!(told.len(), 2);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.sites[0].state(1), PathState::Up);
    assert_eq!(world.sites[0].state(2), PathState::Up);
}

#[test]
fn drains_and_choices_reach_the_peer() {
    use patronus_path::{ClassId, Command};
    let mut world = World::settled(1, &Link::default(), 6);
    let told = |world: &World, since: Time, wanted: &Observation| {
        world.sites[1]
            .log
            .iter()
            .any(|(at, seen)| *at >= since && seen == wanted)
    };
    assert!(told(
        &world,
        Time(0),
        &Observation::PeerChoice(ClassId(0), PATH)
    ));
    let at = world.now;
    world.sites[0].prober.set_roles(&[0b101], 0, at);
    world.sites[0].prober.set_draining(PATH, true, at);
    world.run_for(ms(6));
    assert!(told(&world, at, &Observation::PeerChoice(ClassId(2), PATH)));
    assert!(!told(
        &world,
        at,
        &Observation::PeerChoice(ClassId(0), PATH)
    ));
    assert!(told(
        &world,
        at,
        &Observation::Command(Command::Drain(PATH))
    ));
    let at = world.now;
    world.sites[0].prober.set_draining(PATH, false, at);
    world.run_for(ms(6));
    assert!(told(
        &world,
        at,
        &Observation::Command(Command::Undrain(PATH))
    ));
}

#[test]
fn a_peer_that_sends_from_another_port_than_it_listens_on_has_one_path() {
    for seed in 0..20 {
        let mut world = World::new(1, &Link::default(), seed);
        world.link(0, 0).nat_port = Some(40_000);
        world.run_for(Duration::from_secs(5));
        world.activate(&[1]);
        // It restarts, so that it does not know at first which path of the other side it is.
        let now = world.now;
        world.sites[0] = world::Site::new(config(0, 1), seed + 99, now);
        world.run_for(Duration::from_secs(5));
        let now = world.now;
        world.run_for(Duration::from_secs(5));
        let ups = |site: usize| {
            let paths = world.sites[site].prober.paths();
            paths
                .filter(|path| world.sites[site].state(path.0) == PathState::Up)
                .count()
        };
        assert_eq!((ups(0), ups(1)), (1, 1), "seed {seed}");
        for site in &world.sites {
            assert_eq!(site.became(0, PathState::Down, now), None, "seed {seed}");
            assert!(
                site.prober.events(PATH).unwrap().peer_restarts <= 2,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn a_configured_path_that_moved_comes_home_when_its_peer_does() {
    let mut world = World::settled(1, &Link::default(), 7);
    world.link(0, 0).nat_port = Some(40_000);
    world.run_for(ms(200));
    assert_eq!(
        world.sites[1].prober.ends(PATH).unwrap().remote.port(),
        40_000
    );
    // The peer restarts without the NAT.
    world.link(0, 0).nat_port = None;
    let now = world.now;
    world.sites[0] = world::Site::new(config(0, 1), 70, now);
    world.run_for(ms(50));
    let prober = &world.sites[1].prober;
    assert_eq!(prober.ends(PATH).unwrap().remote, addr(0, 0));
    assert_eq!(prober.paths().count(), 1);
    assert_eq!(world.sites[1].state(0), PathState::Up);
    // Or it is silent: then it is looked for where it was configured.
    world.link(0, 0).nat_port = Some(40_000);
    world.run_for(ms(2000));
    assert_eq!(
        world.sites[1].prober.ends(PATH).unwrap().remote.port(),
        40_000
    );
    world.cut(0, true);
    world.run_for(ms(6000));
    assert_eq!(world.sites[1].prober.ends(PATH).unwrap().remote, addr(0, 0));
}
