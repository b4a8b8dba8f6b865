//! Sizes that pass and sizes that do not.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::message::Kind;
use patronus_path::{PathIndex, PathState};
use world::{Link, World, ms};

const PATH: PathIndex = PathIndex(0);

#[test]
fn a_path_that_carries_everything_is_known_to_within_a_second() {
    let mut world = World::new(1, &Link::default(), 1);
    world.run_for(ms(1000));
    for site in &world.sites {
        assert_eq!(site.prober.mtu(PATH), Some(1420 + 60));
    }
}

#[test]
fn the_largest_size_is_found_within_the_paddings_step() {
    for mtu in [600, 900, 1200, 1259, 1280, 1300, 1400, 1460, 1479] {
        let link = Link {
            mtu,
            ..Link::default()
        };
        let mut world = World::new(1, &link, mtu as u64);
        world.run_for(Duration::from_secs(5));
        for site in &world.sites {
            let known = usize::from(site.prober.mtu(PATH).unwrap());
            assert!(known <= mtu && mtu < known + 32, "{known} of {mtu}");
            assert_eq!(site.state(0), PathState::Up);
        }
    }
}

#[test]
fn a_hole_is_found_within_ten_seconds_on_an_idle_path() {
    for seed in 0..50 {
        let mut world = World::new(1, &Link::default(), seed);
        let wait = 12.0 + 20.0 * world.share();
        world.run_for(Duration::from_secs_f64(wait));
        world.link(0, 0).mtu = 1300;
        let took = world.run_till(Duration::from_secs(20), |world| {
            world.sites[0].prober.mtu(PATH) < Some(1480)
        });
        assert!(
            took.unwrap() <= Duration::from_secs(10),
            "{took:?}, seed {seed}"
        );
        world.run_for(Duration::from_secs(3));
        assert_eq!(world.sites[0].prober.mtu(PATH), Some(1216 + 16 + 60));
        assert_eq!(
            world.sites[1].prober.mtu(PATH),
            Some(1480),
            "the other way is as it was"
        );
        assert_eq!(world.sites[0].prober.events(PATH).unwrap().mtu_holes, 1);
    }
}

#[test]
fn a_hole_is_found_within_half_a_second_while_data_flows() {
    let mut latest = Duration::ZERO;
    for seed in 0..100 {
        let mut world = World::settled(1, &Link::default(), seed);
        world.sites[0].traffic = Some((PATH, ms(2), 1480));
        let wait = 6.0 + 6.0 * world.share();
        world.run_for(Duration::from_secs_f64(wait));
        world.link(0, 0).mtu = 1300;
        let took = world.run_till(Duration::from_secs(20), |world| {
            world.sites[0].prober.mtu(PATH) < Some(1480)
        });
        latest = latest.max(took.unwrap());
        assert!(took.unwrap() <= ms(500), "{took:?}, seed {seed}");
        assert_eq!(world.sites[0].state(0), PathState::Up);
    }
    println!("at most {latest:?}");
}

#[test]
fn a_path_grows_again_but_slowly() {
    let link = Link {
        mtu: 1300,
        ..Link::default()
    };
    let mut world = World::settled(1, &link, 2);
    world.link(0, 0).mtu = 1500;
    world.keeps_log = false;
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.sites[0].prober.mtu(PATH), Some(1292));
    world.run_for(Duration::from_secs(310));
    assert_eq!(world.sites[0].prober.mtu(PATH), Some(1480));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.sites[0].prober.mtu(PATH), Some(1480));
}

#[test]
fn loss_and_outages_are_no_holes() {
    let link = Link {
        loss: 0.1,
        ..Link::default()
    };
    let mut world = World::settled(1, &link, 3);
    world.keeps_log = false;
    for _ in 0..100 {
        world.run_for(Duration::from_secs(35));
        world.cut(0, true);
        world.run_for(ms(700));
        world.cut(0, false);
    }
    world.run_for(Duration::from_secs(5));
    for site in &world.sites {
        assert_eq!(site.prober.events(PATH).unwrap().mtu_holes, 0);
        assert_eq!(site.prober.mtu(PATH), Some(1480));
    }
}

#[test]
fn what_the_kernel_refuses_shrinks_at_once() {
    let mut world = World::settled(1, &Link::default(), 4);
    world.link(0, 0).mtu = 1400;
    let now = world.now;
    world.sites[0].prober.send_too_big(PATH, now);
    assert!(world.sites[0].prober.mtu(PATH) <= Some(1400));
    world.run_for(Duration::from_secs(3));
    let known = world.sites[0].prober.mtu(PATH).unwrap();
    assert!(known > 1368 && known <= 1400, "{known}");
}

#[test]
fn checks_cost_one_full_packet_every_few_seconds() {
    let mut world = World::settled(1, &Link::default(), 5);
    let before = world.sites[0].sent_log.len();
    world.run_for(Duration::from_secs(60));
    let probes = world.sites[0].sent_log[before..]
        .iter()
        .filter(|(_, _, kind, _)| *kind == Kind::MtuProbe);
    let probes = probes.count();
    assert!((11..=13).contains(&probes), "{probes}");
}
