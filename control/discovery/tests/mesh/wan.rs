//! Sites that have nothing but the internet between them: seeds, gossip, NATs, relays, revocations.

use std::time::Duration;

use patronus_discovery::machine::Event;
use patronus_discovery::{Roles, Subject};

use crate::nat::NatKind;
use crate::network::{START, TestRng, subject};
use crate::world::{Lan, Path, World, seed_from_environment};

const SECOND: Duration = Duration::from_secs(1);

fn with_roles(name: &str, roles: Roles) -> Subject {
    let mut subject = subject(name);
    subject.roles = roles;
    subject
}

/// Seeds first, each with a public address and every role; then sites with public addresses.
fn wan_of(seed: u64, seeds: usize, sites: usize) -> World {
    let mut world = World::new(seed);
    for at in 0..seeds {
        let at = world.site(with_roles(&format!("seed-{at}"), Roles::ALL), &[]);
        world.publish(at);
    }
    for at in 0..sites {
        let at = world.site(subject(&format!("site-{at}")), &[]);
        world.publish(at);
    }
    let all: Vec<usize> = (0..seeds).collect();
    world.seed_everybody_with(&all);
    world
}

#[test]
fn sites_that_know_a_seed_find_each_other() {
    let mut world = wan_of(1, 2, 10);
    world.start_all();
    let took = world.run_until(60 * SECOND, World::is_meshed);
    println!("2 seeds, 10 sites: tunnels between all after {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_wan_that_loses_a_tenth_meshes_all_the_same() {
    let mut world = wan_of(2, 2, 8);
    world.wan_loss = 0.1;
    world.start_all();
    let took = world.run_until(180 * SECOND, World::is_meshed);
    println!("a tenth lost: {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_lan_that_filters_multicast_falls_to_seeds() {
    let mut world = World::new(3);
    let lan = world.lan(Lan {
        passes_multicast: false,
        ..Lan::default()
    });
    let seed = world.site(with_roles("seed", Roles::ALL), &[]);
    world.publish(seed);
    let nat = world.nat(NatKind::RESTRICTED);
    for at in 0..4 {
        let at = world.site(subject(&format!("site-{at}")), &[lan]);
        world.hide(at, nat);
    }
    world.seed_everybody_with(&[seed]);
    world.start_all();
    let took = world.run_until(60 * SECOND, World::is_meshed);
    println!("multicast filtered: {took:?}");
    assert!(took.is_some());
    assert_eq!(
        world.path(1, 2),
        Some(Path::Direct),
        "over the LAN's addresses"
    );
}

#[test]
fn everything_heals_with_every_seed_down() {
    let mut world = wan_of(4, 2, 8);
    world.start_all();
    assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
    world.run(30 * SECOND);
    world.kill(0, false);
    world.kill(1, false);
    world.run(60 * SECOND);
    assert!(world.is_meshed(), "tunnels stay");
    // Some restart with their disk: they know where the others were.
    for at in [2, 3, 4] {
        world.kill(at, true);
    }
    world.run(40 * SECOND);
    for at in [2, 3, 4] {
        world.start(at);
    }
    let took = world.run_until(60 * SECOND, World::is_meshed);
    println!("three of eight restarted without any seed: {took:?}");
    assert!(took.is_some());
    // All others restart too.
    for at in 2..10 {
        world.kill(at, true);
    }
    world.run(10 * SECOND);
    for at in 2..10 {
        world.start(at);
    }
    let took = world.run_until(60 * SECOND, World::is_meshed);
    println!("all eight restarted without any seed: {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_newcomer_that_reaches_one_site_becomes_known_to_all_without_seeds() {
    let mut world = wan_of(5, 0, 8);
    let contact = patronus_discovery::machine::Contact {
        site: None,
        address: std::net::SocketAddr::new(world.nodes[0].wan.unwrap(), 51821),
    };
    for at in 1..8 {
        world.nodes[at].config.static_peers = vec![contact];
    }
    (0..7).for_each(|at| world.start(at));
    assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
    world.run(60 * SECOND);
    world.start(7);
    let took = world.run_until(30 * SECOND, World::is_meshed);
    println!("a newcomer by one static peer: {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_partition_of_the_wan_ends_and_the_halves_meet() {
    let mut world = wan_of(6, 2, 6);
    world.start_all();
    assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
    let left = [0, 2, 3, 4];
    let right = [1, 5, 6, 7];
    for one in left {
        for other in right {
            world.cuts.push((one, other));
        }
    }
    world.run(120 * SECOND);
    assert!(world.path(2, 5).is_none() && world.path(2, 3).is_some());
    assert!(world.has_converged(), "who is out of reach stays a peer");
    world.cuts.clear();
    let took = world.run_until(30 * SECOND, World::is_meshed);
    println!("partition of two minutes healed after {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_revocation_is_everywhere_within_two_seconds_and_after_a_partition_too() {
    for loss in [0.0, 0.1] {
        let mut world = wan_of(7, 2, 10);
        world.start_all();
        assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
        world.wan_loss = loss;
        for other in 0..12 {
            if other != 11 {
                world.cuts.push((11, other));
            }
        }
        let id = world.id(5);
        let at = START + world.elapsed();
        for part in world.network.revoke(1, &[id], at) {
            world.revoke(3, part);
        }
        let rest = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10];
        let took = world.run_until(2 * SECOND, |world| {
            rest.iter().all(|at| !world.knows(*at, 5))
        });
        println!("revocation among 12 sites, loss {loss}: {took:?}");
        assert!(took.is_some());
        assert!(
            world.nodes[5]
                .events
                .iter()
                .any(|(_, it)| *it == Event::SelfRevoked)
        );
        assert_eq!(world.nodes[5].machine.as_ref().unwrap().peers().count(), 0);
        assert!(world.knows(11, 5), "it is cut off");
        world.cuts.clear();
        let took = world.run_until(90 * SECOND, |world| !world.knows(11, 5));
        println!("and at the one that was cut off {took:?} after it is back");
        assert!(took.is_some());
        world.run(60 * SECOND);
        assert!((0..12).all(|at| !world.knows(at, 5)));
    }
}

#[test]
fn a_long_revocation_list_arrives_whole() {
    let mut world = wan_of(8, 1, 4);
    world.start_all();
    assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
    // Not the seed of the sites, whose keys would be drawn again and revoked.
    let mut rng = TestRng(0x1157);
    let ids: Vec<_> = (0..1000)
        .map(|_| patronus_discovery::SiteKey::generate(&mut rng).id())
        .collect();
    let at = START + world.elapsed();
    for part in world.network.revoke(1, &ids, at) {
        world.revoke(1, part);
    }
    world.kill(3, true);
    world.start(3);
    world.run(60 * SECOND);
    let state = |world: &World, at: usize| {
        world.nodes[at]
            .machine
            .as_ref()
            .unwrap()
            .revocations()
            .state()
    };
    assert!((0..5).all(|at| state(&world, at) == state(&world, 1)));
}

/// Who connects directly and who through a relay, for every pair of NATs: rows and columns are public, cone, restricted,
/// symmetric, and the same NAT twice.
#[test]
fn nats_that_can_be_opened_are_and_all_others_are_relayed() {
    let kinds = [
        ("public", None),
        ("cone", Some(NatKind::CONE)),
        ("restricted", Some(NatKind::RESTRICTED)),
        ("symmetric", Some(NatKind::SYMMETRIC)),
    ];
    let mut table = String::new();
    for (left, left_kind) in kinds {
        for (right, right_kind) in kinds {
            let mut world = World::new(9);
            for at in 0..2 {
                let at = world.site(with_roles(&format!("seed-{at}"), Roles::ALL), &[]);
                world.publish(at);
            }
            let mut pair = Vec::new();
            for (name, kind) in [("left", left_kind), ("right", right_kind)] {
                let at = world.site(subject(name), &[]);
                match kind {
                    Some(kind) => {
                        let nat = world.nat(kind);
                        world.hide(at, nat);
                    }
                    None => world.publish(at),
                }
                pair.push(at);
            }
            world.seed_everybody_with(&[0, 1]);
            world.start_all();
            let took = world.run_until(90 * SECOND, World::is_meshed);
            // A relayed pair keeps trying; what is direct in the end is direct.
            world.run(120 * SECOND);
            let path = world.path(pair[0], pair[1]);
            let is_direct = path == Some(Path::Direct);
            table += &format!("{left:>10} {right:>10} {path:?} {took:?}\n");
            let hard = |kind: Option<NatKind>| kind == Some(NatKind::SYMMETRIC);
            let filters = |kind: Option<NatKind>| hard(kind) || kind == Some(NatKind::RESTRICTED);
            let can_be_opened =
                !(hard(left_kind) && filters(right_kind) || hard(right_kind) && filters(left_kind));
            assert!(took.is_some(), "{table}");
            assert_eq!(is_direct, can_be_opened, "{table}");
            assert!(path.is_some(), "{table}");
        }
    }
    println!("{table}");
}

#[test]
fn neighbours_behind_one_nat_talk_directly_without_hairpinning() {
    for hairpins in [false, true] {
        let mut world = wan_of(10, 2, 0);
        let nat = world.nat(NatKind {
            hairpins,
            ..NatKind::RESTRICTED
        });
        for name in ["left", "right"] {
            let at = world.site(subject(name), &[]);
            world.hide(at, nat);
        }
        world.seed_everybody_with(&[0, 1]);
        world.start_all();
        assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
        assert_eq!(
            world.path(2, 3),
            Some(Path::Direct),
            "by their inner addresses"
        );
    }
}

#[test]
fn mappings_that_end_after_thirty_seconds_do_not_end_tunnels() {
    let mut world = wan_of(11, 2, 0);
    for name in ["left", "right"] {
        let nat = world.nat(NatKind::RESTRICTED);
        let at = world.site(subject(name), &[]);
        world.hide(at, nat);
    }
    world.seed_everybody_with(&[0, 1]);
    world.start_all();
    assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
    for _ in 0..60 {
        world.run(10 * SECOND);
        assert_eq!(world.path(2, 3), Some(Path::Direct));
    }
}

#[test]
fn when_a_relay_goes_another_one_takes_over() {
    let mut world = wan_of(12, 2, 0);
    for name in ["left", "right"] {
        let nat = world.nat(NatKind::SYMMETRIC);
        let at = world.site(subject(name), &[]);
        world.hide(at, nat);
    }
    world.seed_everybody_with(&[0, 1]);
    world.start_all();
    assert!(world.run_until(90 * SECOND, World::is_meshed).is_some());
    world.run(10 * SECOND);
    let Some(Path::Relayed(relay)) = world.path(2, 3) else {
        panic!("{:?}", world.path(2, 3));
    };
    let gone = (0..2).find(|at| world.id(*at) == relay).unwrap();
    world.kill(gone, false);
    let took = world.run_until(120 * SECOND, |world| {
        let other = world.id(1 - gone);
        world.path(2, 3) == Some(Path::Relayed(other))
            && world.path(3, 2) == Some(Path::Relayed(other))
    });
    println!("another relay took over after {took:?}");
    assert!(took.is_some());
}

#[test]
fn nobody_without_the_role_relays() {
    let mut world = World::new(13);
    let seed = world.site(with_roles("seed", Roles::RENDEZVOUS), &[]);
    world.publish(seed);
    for name in ["left", "right"] {
        let nat = world.nat(NatKind::SYMMETRIC);
        let at = world.site(subject(name), &[]);
        world.hide(at, nat);
    }
    world.seed_everybody_with(&[seed]);
    world.start_all();
    world.run(180 * SECOND);
    assert_eq!(world.path(1, 2), None);
    let told = |event: &(Duration, Event)| matches!(event.1, Event::Unreachable { .. });
    assert_eq!(
        world.nodes[1].events.iter().filter(|it| told(it)).count(),
        1
    );
}

#[test]
fn a_clock_that_is_an_hour_off_is_let_in_over_seeds_too() {
    let mut world = wan_of(14, 2, 5);
    world.nodes[4].skew_ms = 3_600_000;
    world.start_all();
    let took = world.run_until(60 * SECOND, World::is_meshed);
    println!("one clock an hour off: {took:?}");
    assert!(took.is_some());
}

#[test]
fn keys_are_replaced_every_day_and_peers_follow() {
    let mut world = wan_of(15, 1, 3);
    world.start_all();
    assert!(world.run_until(60 * SECOND, World::is_meshed).is_some());
    let before: Vec<_> = (0..4)
        .map(|at| world.nodes[at].machine.as_ref().unwrap().own_keys().current)
        .collect();
    world.run(Duration::from_secs(25 * 3600));
    for (at, before) in before.into_iter().enumerate() {
        let machine = world.nodes[at].machine.as_ref().unwrap();
        assert_ne!(machine.own_keys().current, before, "a day has passed");
        let current = machine.own_keys().current;
        let id = world.id(at);
        for other in (0..4).filter(|other| *other != at) {
            let others = world.nodes[other].machine.as_ref().unwrap();
            let peer = others.peers().find(|peer| peer.site == id).unwrap();
            assert_eq!(peer.keys.current(), current);
        }
        let wanted: Vec<Duration> = world.nodes[at]
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::KeyWanted { .. }))
            .map(|(when, _)| *when)
            .collect();
        assert_eq!(wanted.len(), 1, "asked once");
        let minutes = wanted[0].as_secs() / 60;
        assert!(
            (21 * 60 + 30..=22 * 60 + 31).contains(&minutes),
            "{minutes}"
        );
    }
    assert!(world.is_meshed());
}

#[test]
fn whatever_happens_the_mesh_heals_when_it_stops() {
    let seed = seed_from_environment("PATRONUS_MESH_SEED", 16);
    let rounds = std::env::var("PATRONUS_MESH_ROUNDS").map_or(3, |it| it.parse().unwrap());
    for round in 0..rounds {
        let mut rng = TestRng(seed.wrapping_add(round));
        let mut world = wan_of(seed.wrapping_add(round), 2, 4);
        let lan = world.lan(Lan::default());
        for at in 0..3 {
            let at = world.site(subject(&format!("lan-{at}")), &[lan]);
            let nat = world.nat([NatKind::CONE, NatKind::RESTRICTED][rng.below(2) as usize]);
            world.hide(at, nat);
        }
        world.seed_everybody_with(&[0, 1]);
        world.start_all();
        world.run(20 * SECOND);
        for _ in 0..20 {
            disturb(&mut world, &mut rng);
            world.run(Duration::from_millis(rng.below(40_000)));
        }
        world.cuts.clear();
        world.wan_loss = 0.0;
        world.lans[lan].loss = 0.0;
        world.lans[lan].passes_multicast = true;
        for at in 0..world.nodes.len() {
            if !world.is_up(at) {
                world.start(at);
            }
        }
        let took = world.run_until(400 * SECOND, World::is_meshed);
        println!("round {round}: healed after {took:?}");
        assert!(took.is_some(), "seed {seed}, round {round}");
    }
}

fn disturb(world: &mut World, rng: &mut TestRng) {
    let count = world.nodes.len() as u64;
    let at = rng.below(count) as usize;
    match rng.below(7) {
        0 if world.is_up(at) => world.kill(at, rng.chance(0.5)),
        1 if !world.is_up(at) => world.start(at),
        2 => {
            let other = rng.below(count) as usize;
            world.cuts.push((at, other));
        }
        3 => world.cuts.clear(),
        4 => world.wan_loss = [0.0, 0.1, 0.5][rng.below(3) as usize],
        5 => world.lans[0].passes_multicast = rng.chance(0.5),
        _ => world.lans[0].loss = [0.0, 0.2, 0.6][rng.below(3) as usize],
    }
}
