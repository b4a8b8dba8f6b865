//! Two whole sites over four paths, of which the one in use loses a fifth again and again: it is left as soon as the first
//! time, whatever the others lost before they were well again.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::{ClassId, Command, Observation, PathIndex, ProberConfig, Time};
use world::{Link, Site, World, addr, ms, spec, uplink};

const UPLINKS: u8 = 2;
const REALTIME: ClassId = ClassId(0);
const ROUNDS: usize = 16;
const LOSS: f64 = 0.2;
/// The mean difference between two packets whose delays lie anywhere within three times this.
const JITTER: Duration = ms(60);
const FAULT_MIN: Duration = Duration::from_millis(1500);
const SETTLE_MAX: Duration = Duration::from_secs(120);
const FAULT_MAX: Duration = Duration::from_secs(8);

fn config(site: usize) -> ProberConfig {
    let pairs = (0..UPLINKS).flat_map(|up| (0..UPLINKS).map(move |to| (up, to)));
    ProberConfig {
        paths: pairs.map(|(up, to)| spec(up, addr(1 - site, to))).collect(),
        uplinks: (0..UPLINKS).map(uplink).collect(),
        inner_mtu: 1420,
    }
}

fn path(world: &World, site: usize) -> PathIndex {
    let selector = world.sites[site].selector.as_ref().unwrap();
    selector.routes()[REALTIME.as_usize()].path.unwrap()
}

/// The uplinks, of both sites, of the path that a site uses.
fn pair(world: &World, site: usize) -> [u8; 2] {
    let path = path(world, site).0;
    let (own, other) = (path / UPLINKS, path % UPLINKS);
    if site == 0 {
        [own, other]
    } else {
        [other, own]
    }
}

/// A thousand packets a second each way, on the paths in use, and on no other nor at any other time: what was lost of them
/// is most of what they say.
fn run(world: &mut World, span: Duration) {
    let end = world.now + span;
    while world.now < end {
        for site in 0..2 {
            let used = path(world, site);
            let site = &mut world.sites[site];
            if site.traffic.is_none_or(|(path, ..)| path != used) {
                site.traffic = Some((used, ms(1), 100));
            }
        }
        world.run_for(ms(10));
    }
}

fn is_met(world: &World, site: usize) -> bool {
    let selector = world.sites[site].selector.as_ref().unwrap();
    let candidates = selector.candidates(REALTIME, world.now);
    let mut met = candidates.iter().filter(|it| it.tier == 0);
    let used = path(world, site).0;
    met.clone().count() >= 2 && met.any(|it| it.path.0 == used)
}

/// Makes a path, both ways, as it should be or not.
fn spoil(world: &mut World, [one, two]: [u8; 2], spoilt: impl Fn(&mut Link)) {
    for ((site, from, to), link) in &mut world.links {
        let uplinks = if *site == 0 {
            [*from, *to]
        } else {
            [*to, *from]
        };
        if uplinks == [one, two] {
            spoilt(link);
        }
    }
}

/// How long each site took to leave, in each round, in seconds.
fn delays(seed: u64, fault: impl Fn(&mut Link)) -> Vec<[f64; 2]> {
    let now = Time(1_000_000_000);
    let sites = [0, 1].map(|site| {
        let leads = site as u64 == seed % 2;
        Site::deciding(config(site), leads, 2 * seed + site as u64, now)
    });
    let link = Link {
        jitter: ms(1),
        ..Link::default()
    };
    let mut world = World::of(sites, UPLINKS, &link, seed, now);
    world.keeps_log = false;
    world.run_for(Duration::from_secs(2));
    run(&mut world, Duration::from_secs(14));
    let mut delays = Vec::new();
    for _ in 0..ROUNDS {
        let patience = world.now + SETTLE_MAX;
        while !(is_met(&world, 0) && is_met(&world, 1) && pair(&world, 0) == pair(&world, 1)) {
            assert!(world.now < patience, "seed {seed}: no two paths are well");
            world.run_for(ms(50));
        }
        let now = world.now;
        for site in 0..2 {
            let selector = world.sites[site].selector.as_mut().unwrap();
            for path in 0..UPLINKS * UPLINKS {
                let clear = Observation::Command(Command::Clear(PathIndex(path)));
                selector.observe(&clear, now);
            }
        }
        run(&mut world, ms(300 + seed));
        let bad = pair(&world, 0);
        let begun = world.now;
        spoil(&mut world, bad, &fault);
        while world.now.since(begun) < FAULT_MAX {
            run(&mut world, ms(100));
            let are_gone = (0..2).all(|site| pair(&world, site) != bad);
            if are_gone && world.now.since(begun) >= FAULT_MIN {
                break;
            }
        }
        spoil(&mut world, bad, |it| *it = link.clone());
        for site in &mut world.sites {
            site.traffic = None;
        }
        delays.push([0, 1].map(|site| {
            let decisions = world.sites[site].decisions.iter();
            let mut of_class = decisions.filter(|it| it.class == REALTIME && it.at >= begun);
            let left = of_class.find(|it| it.from.is_some() && it.to.is_some());
            left.map_or(f64::INFINITY, |it| it.at.since(begun).as_secs_f64())
        }));
    }
    delays
}

/// Gateways to try; `PATRONUS_TRIALS` asks for more.
fn seeds() -> u64 {
    let wanted = std::env::var("PATRONUS_TRIALS").ok();
    wanted.and_then(|it| it.parse().ok()).unwrap_or(4)
}

/// All delays of a few seeds, sorted, in seconds.
fn sorted(fault: impl Fn(&mut Link)) -> Vec<f64> {
    let rounds = (0..seeds()).flat_map(|seed| {
        let rounds = delays(seed, &fault);
        println!("seed {seed}: {rounds:.1?}");
        rounds
    });
    let mut sorted: Vec<f64> = rounds.flatten().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[test]
fn a_path_that_loses_a_fifth_is_left_as_soon_after_all_others_did() {
    let delays = sorted(|link| link.loss = LOSS);
    let longest_s = delays[delays.len() - 1];
    assert!(longest_s <= 2.5, "{longest_s} s");
}

#[test]
fn a_path_that_jitters_is_left_as_soon_after_all_others_did() {
    let delays = sorted(|link| link.jitter = JITTER * 3);
    let longest_s = delays[delays.len() - 1];
    assert!(longest_s <= 1.5, "{longest_s} s");
}

#[test]
fn a_path_that_swallows_data_is_left_as_soon_after_all_others_did() {
    let delays = sorted(|link| link.loses_data = true);
    let longest_s = delays[delays.len() - 1];
    assert!(longest_s <= 3.0, "{longest_s} s");
}
