//! Many sites on LANs.

use std::time::Duration;

use patronus_discovery::machine::{DRAINING, Event};

use crate::network::{DAY, START, TestRng, subject, validity};
use crate::world::{Lan, World, seed_from_environment};

const SECOND: Duration = Duration::from_secs(1);

fn lan_of(seed: u64, count: usize, lan: Lan) -> World {
    let mut world = World::new(seed);
    let lan = world.lan(lan);
    for at in 0..count {
        let at = world.site(subject(&format!("site-{at}")), &[lan]);
        world.nodes[at].has_gateway = false;
    }
    world
}

/// How many sites the large tests have: `PATRONUS_MESH_SITES`, 200 where time allows.
fn many() -> usize {
    std::env::var("PATRONUS_MESH_SITES").map_or(40, |it| it.parse().expect("a number"))
}

#[test]
fn two_sites_find_each_other_within_a_second() {
    let mut world = lan_of(1, 2, Lan::default());
    world.start_all();
    let took = world
        .run_until(10 * SECOND, World::has_converged)
        .expect("they find each other");
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn many_sites_that_start_together_know_each_other_in_ten_seconds() {
    let mut world = lan_of(2, many(), Lan::default());
    world.start_all();
    let took = world.run_until(10 * SECOND, World::has_converged);
    let sent: u64 = world.nodes.iter().map(|node| node.sent).sum();
    println!("{} sites on one LAN: {took:?}, {sent} datagrams", many());
    println!("{:?}", world.nodes[0].machine.as_ref().unwrap().counters());
    assert!(took.is_some());
}

#[test]
fn a_newcomer_knows_everybody_in_ten_seconds() {
    let mut world = lan_of(3, many(), Lan::default());
    let last = world.nodes.len() - 1;
    (0..last).for_each(|at| world.start(at));
    world.run(120 * SECOND);
    world.start(last);
    let took = world.run_until(10 * SECOND, World::has_converged);
    println!("a newcomer among {}: {took:?}", many());
    assert!(took.is_some());
}

#[test]
fn a_lan_that_loses_a_fifth_converges_all_the_same() {
    let lan = Lan {
        loss: 0.2,
        ..Lan::default()
    };
    let mut world = lan_of(4, 20, lan);
    world.start_all();
    let took = world.run_until(400 * SECOND, World::has_converged);
    println!("20 sites, a fifth lost: {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_lan_without_ipv4_converges() {
    let lan = Lan {
        is_v6_only: true,
        ..Lan::default()
    };
    let mut world = lan_of(5, 10, lan);
    world.start_all();
    assert!(world.run_until(10 * SECOND, World::has_converged).is_some());
}

#[test]
fn clocks_that_are_an_hour_off_do_not_matter() {
    let mut world = lan_of(6, 10, Lan::default());
    world.nodes[3].skew_ms = 3_600_000;
    world.nodes[4].skew_ms = -3_600_000;
    world.start_all();
    assert!(world.run_until(10 * SECOND, World::has_converged).is_some());
    world.run(300 * SECOND);
    assert!(world.has_converged(), "and it stays so");
    let told = |event: &(Duration, Event)| matches!(event.1, Event::ClockSkew { .. });
    assert_eq!(
        world.nodes[0].events.iter().filter(|it| told(it)).count(),
        2
    );
}

#[test]
fn a_clock_that_is_a_year_off_costs_its_own_site_only_until_it_is_set() {
    for years in [-1, 1] {
        let mut world = lan_of(7, 6, Lan::default());
        world.nodes[2].skew_ms = years * 365 * 86_400_000;
        world.start_all();
        world.run(20 * SECOND);
        for at in [0, 1, 3, 4, 5] {
            for other in [0, 1, 3, 4, 5].into_iter().filter(|other| *other != at) {
                assert!(world.knows(at, other));
            }
        }
        assert_eq!(world.nodes[2].machine.as_ref().unwrap().peers().count(), 0);
        let says_why = |event: &(Duration, Event)| {
            matches!(
                event.1,
                Event::CertificateEnded { .. } | Event::CertificateNotYetValid { .. }
            )
        };
        assert!(world.nodes[2].events.iter().any(says_why));
        world.nodes[2].skew_ms = 0;
        let took = world.run_until(120 * SECOND, World::has_converged);
        println!("clock set again after {years} years: {took:?}");
        assert!(took.is_some());
    }
}

#[test]
fn any_sites_may_restart_with_or_without_their_disk() {
    let seed = seed_from_environment("PATRONUS_MESH_SEED", 8);
    let mut world = lan_of(seed, 12, Lan::default());
    let mut rng = TestRng(seed);
    world.start_all();
    assert!(world.run_until(10 * SECOND, World::has_converged).is_some());
    for round in 0..8 {
        let chosen: Vec<usize> = (0..12).filter(|_| rng.chance(0.5)).collect();
        for at in &chosen {
            world.kill(*at, rng.chance(0.5));
        }
        world.run(Duration::from_millis(rng.below(60_000)));
        for at in &chosen {
            world.start(*at);
        }
        let took = world.run_until(60 * SECOND, World::has_converged);
        assert!(took.is_some(), "round {round}: {chosen:?}");
    }
}

#[test]
fn sites_on_both_sides_of_a_split_lan_meet_again() {
    let mut world = lan_of(9, 10, Lan::default());
    let other = world.lan(Lan::default());
    for at in 5..10 {
        world.nodes[at].lans = vec![other];
        world.nodes[at].config.lans[0].id.0 = other as u32;
    }
    world.start_all();
    world.run(60 * SECOND);
    assert!(world.knows(0, 4) && !world.knows(0, 5));
    for at in 5..10 {
        world.nodes[at].lans = vec![0];
        world.nodes[at].config.lans[0].id.0 = 0;
        let config = world.nodes[at].config.clone();
        world
            .with_machine(at, |machine, now| machine.set_config(config, now))
            .unwrap();
    }
    let took = world.run_until(60 * SECOND, World::has_converged);
    println!("halves of a LAN joined: {took:?}");
    assert!(took.is_some());
}

#[test]
fn of_two_sites_with_one_name_the_first_stays_and_the_other_follows_when_it_is_gone() {
    let mut world = lan_of(10, 3, Lan::default());
    let twin = world.site(subject("site-1"), &[0]);
    world.nodes[twin].has_gateway = false;
    (0..3).for_each(|at| world.start(at));
    world.run(5 * SECOND);
    world.start(twin);
    world.run(60 * SECOND);
    assert!(world.knows(0, 1) && !world.knows(0, twin));
    let critical = |event: &(Duration, Event)| matches!(event.1, Event::Conflict { .. });
    assert_eq!(
        world.nodes[0]
            .events
            .iter()
            .filter(|it| critical(it))
            .count(),
        1
    );
    let first = world.id(1);
    for part in world.network.revoke(1, &[first], START) {
        world.revoke(0, part);
    }
    world.run(10 * SECOND);
    assert!(!world.knows(0, 1) && world.knows(0, twin));
}

#[test]
fn a_site_that_stops_in_order_is_no_peer_at_once_and_is_back_when_it_starts() {
    let mut world = lan_of(11, 5, Lan::default());
    world.start_all();
    world.run(10 * SECOND);
    world.with_machine(3, |machine, now| machine.shut_down(now));
    world.run(SECOND);
    assert!((0..5).filter(|at| *at != 3).all(|at| !world.knows(at, 3)));
    world.kill(3, true);
    world.run(30 * SECOND);
    world.start(3);
    assert!(world.run_until(60 * SECOND, World::has_converged).is_some());
    let is_back = |event: &(Duration, Event)| matches!(event.1, Event::PeerBack { .. });
    assert!(world.nodes[0].events.iter().any(is_back));
}

#[test]
fn draining_is_known_everywhere_within_two_seconds() {
    let mut world = lan_of(12, 5, Lan::default());
    world.start_all();
    world.run(60 * SECOND);
    world.with_machine(2, |machine, now| machine.drain(true, now));
    world.run(2 * SECOND);
    let id = world.id(2);
    for at in [0, 1, 3, 4] {
        let machine = world.nodes[at].machine.as_ref().unwrap();
        let peer = machine.peers().find(|peer| peer.site == id).unwrap();
        assert!(peer.is_draining);
    }
    assert_eq!(DRAINING.0, 1);
}

#[test]
fn the_end_of_a_certificate_is_told_seven_three_and_one_days_before_and_grace_holds_peers() {
    let mut world = lan_of(13, 2, Lan::default());
    for at in 0..2 {
        let mut papers = world.nodes[at].papers.clone();
        let subject = papers.certificate.claims().subject.clone();
        let days = if at == 0 { 60 } else { 14 };
        // The second one's ends in eight days.
        let validity = validity(START - 6 * DAY, days);
        papers.certificate = world.network.certify(&papers.key, subject, validity);
        world.nodes[at].config.grace = DAY;
        world.nodes[at].config.certificate = papers.certificate.clone();
        world.nodes[at].config.rotates_keys = false;
        world.nodes[at].papers = papers;
    }
    world.start_all();
    world.run(8 * DAY + 60 * SECOND);
    let id = world.id(1);
    let told: Vec<u8> = world.nodes[0]
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::CertificateEnding {
                site,
                days,
                is_own: false,
            } if *site == id => Some(*days),
            Event::CertificateEnded {
                site,
                is_own: false,
                ..
            } if *site == id => Some(0),
            _ => None,
        })
        .collect();
    assert_eq!(told, [7, 3, 1, 0]);
    let own = |event: &&(Duration, Event)| {
        matches!(
            event.1,
            Event::CertificateEnding { is_own: true, .. }
                | Event::CertificateEnded { is_own: true, .. }
        )
    };
    assert_eq!(world.nodes[1].events.iter().filter(own).count(), 4);
    assert!(world.knows(0, 1), "grace");
    world.run(DAY);
    assert!(!world.knows(0, 1), "grace is over");

    let mut config = world.nodes[1].config.clone();
    let key = world.nodes[1].papers.key.clone();
    let subject = config.certificate.claims().subject.clone();
    let from = START + 9 * DAY;
    config.certificate = world.network.certify(&key, subject, validity(from, 14));
    world
        .with_machine(1, |machine, now| machine.set_config(config, now))
        .unwrap();
    assert!(
        world.run_until(60 * SECOND, World::has_converged).is_some(),
        "renewed"
    );
}

#[test]
fn a_renewed_certificate_replaces_the_one_before_everywhere() {
    let mut world = lan_of(14, 4, Lan::default());
    world.start_all();
    world.run(30 * SECOND);
    let mut subject = world.nodes[1].papers.certificate.claims().subject.clone();
    subject.prefixes =
        patronus_discovery::Prefixes::new(["10.77.0.0/16".parse().unwrap()]).unwrap();
    let mut config = world.nodes[1].config.clone();
    let key = world.nodes[1].papers.key.clone();
    config.certificate = world.network.certify(&key, subject, validity(START, 14));
    world
        .with_machine(1, |machine, now| machine.set_config(config, now))
        .unwrap();
    world.run(3 * SECOND);
    let id = world.id(1);
    for at in [0, 2, 3] {
        let machine = world.nodes[at].machine.as_ref().unwrap();
        let peer = machine.peers().find(|peer| peer.site == id).unwrap();
        assert_eq!(peer.prefixes, ["10.77.0.0/16".parse().unwrap()]);
    }
}
