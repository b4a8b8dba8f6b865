//! Two whole sites, each with a prober and a selector, over paths that are equal: whatever dies, both go to the same
//! place, and go once.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::{ClassId, Decision, PathState, ProberConfig, StateReason, Time};
use world::{Link, Site, World, addr, ms, spec, uplink};

const UPLINKS: u8 = 2;
const CLASSES: u8 = 4;

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Both directions of the path that the class uses.
    Path,
    /// Everything over an uplink of the path, of that site, and nobody says so.
    Uplink(usize),
    /// As above, and the site notices at once.
    Carrier(usize),
    /// The direction from that site.
    OneWay(usize),
}

/// A path from every uplink to every address.
fn config(site: usize) -> ProberConfig {
    let pairs = (0..UPLINKS).flat_map(|up| (0..UPLINKS).map(move |to| (up, to)));
    ProberConfig {
        paths: pairs.map(|(up, to)| spec(up, addr(1 - site, to))).collect(),
        uplinks: (0..UPLINKS).map(uplink).collect(),
        inner_mtu: 1420,
    }
}

fn world(link: &Link, seed: u64) -> World {
    let now = Time(1_000_000_000);
    let leader = (seed % 2) as usize;
    let site = |site: usize| {
        let seed = seed.wrapping_mul(2) + site as u64;
        Site::deciding(config(site), site == leader, seed, now)
    };
    World::of([site(0), site(1)], UPLINKS, link, seed, now)
}

/// The uplinks, of both sites, of the path that a site uses for a class.
fn pair(world: &World, site: usize, class: u8) -> Option<[u8; 2]> {
    let route = world.sites[site].selector.as_ref()?.routes()[usize::from(class)];
    let path = route.path?.0;
    let (own, other) = (path / UPLINKS, path % UPLINKS);
    Some(if site == 0 {
        [own, other]
    } else {
        [other, own]
    })
}

fn strike(world: &mut World, fault: Fault, [one, two]: [u8; 2]) {
    let pair = [one, two];
    let now = world.now;
    for ((site, from, to), link) in &mut world.links {
        let uplinks = if *site == 0 {
            [*from, *to]
        } else {
            [*to, *from]
        };
        link.is_cut = match fault {
            Fault::Path => uplinks == pair,
            Fault::Uplink(at) | Fault::Carrier(at) => uplinks[at] == pair[at],
            Fault::OneWay(from) => uplinks == pair && *site == from,
        };
    }
    if let Fault::Carrier(at) = fault {
        let prober = &mut world.sites[at].prober;
        prober.set_uplink(pair[at], Some(StateReason::CarrierLost), now);
    }
}

/// What a trial shows of a class that used what died.
#[derive(Clone, Debug)]
struct Outcome {
    /// Switches of the two sites.
    switches: [Vec<Decision>; 2],
    pairs: [Option<[u8; 2]>; 2],
}

impl Outcome {
    fn is_once(&self) -> bool {
        self.switches.iter().all(|them| them.len() == 1) && self.pairs[0] == self.pairs[1]
    }
}

/// Breaks the path that `class` uses, at some time, and looks on for three seconds. `None` where the sites do not use one
/// path before: one that saw its own way violated may have left alone.
fn trial(link: &Link, fault: Fault, class: u8, seed: u64) -> Option<Outcome> {
    let mut world = world(link, seed);
    world.keeps_log = false;
    world.run_for(Duration::from_secs(16) + ms(seed * 37 % 1000));
    for site in &world.sites {
        for path in site.prober.paths() {
            let is_up = site.state(path.0) == PathState::Up;
            assert!(is_up || link.loss > 0.0, "seed {seed}");
        }
    }
    let [one, two] = [0, 1].map(|site| pair(&world, site, class));
    assert!(
        one == two || link.loss > 0.0,
        "seed {seed}: {one:?} and {two:?}"
    );
    if one != two {
        return None;
    }
    strike(&mut world, fault, one.unwrap());
    let struck = world.now;
    world.run_for(Duration::from_secs(3));
    let switches = [0, 1].map(|site| {
        let decisions = world.sites[site].decisions.iter();
        let switches = decisions
            .filter(|it| it.class == ClassId(class) && it.at >= struck && it.from.is_some());
        switches.cloned().collect()
    });
    Some(Outcome {
        switches,
        pairs: [0, 1].map(|site| pair(&world, site, class)),
    })
}

/// The trials in which the sites did not switch exactly once each and to one path.
fn disagreements(link: &Link, fault: Fault, seeds: u64) -> Vec<(u64, Outcome)> {
    let class = |seed: u64| (seed / 2) as u8 % CLASSES;
    (0..seeds)
        .filter_map(|seed| Some((seed, trial(link, fault, class(seed), seed)?)))
        .filter(|(_, outcome)| !outcome.is_once())
        .collect()
}

/// Trials of each kind; `PATRONUS_TRIALS` asks for more.
fn seeds() -> u64 {
    let wanted = std::env::var("PATRONUS_TRIALS").ok();
    wanted.and_then(|it| it.parse().ok()).unwrap_or(10)
}

fn noisy() -> Link {
    Link {
        jitter: ms(3),
        ..Link::default()
    }
}

fn lossy() -> Link {
    Link {
        loss: 0.005,
        ..noisy()
    }
}

const FAULTS: [Fault; 7] = [
    Fault::Path,
    Fault::Uplink(0),
    Fault::Uplink(1),
    Fault::Carrier(0),
    Fault::Carrier(1),
    Fault::OneWay(0),
    Fault::OneWay(1),
];

/// Says how many of the trials of each fault failed, and fails where they are more than `share` of all.
fn check(link: &Link, share: f64) {
    let seeds = seeds();
    let mut lines = Vec::new();
    let mut worst = 0;
    for fault in FAULTS {
        let failed = disagreements(link, fault, seeds);
        worst = worst.max(failed.len());
        let first = failed.first().map(|(seed, outcome)| {
            let told = |site: usize| {
                let switches = outcome.switches[site].iter();
                let lines = switches.map(|it| format!("{} {}", it.at.0 / 1000, it.summary));
                lines.collect::<Vec<_>>().join("; ")
            };
            format!("seed {seed}: [{}] [{}]", told(0), told(1))
        });
        let first = first.unwrap_or_default();
        lines.push(format!("{fault:?}: {} of {seeds} {first}", failed.len()));
    }
    println!("{}", lines.join("\n"));
    assert!(worst as f64 <= share * seeds as f64, "{}", lines.join("\n"));
}

#[test]
fn whatever_dies_of_equal_paths_both_ends_go_to_one_other_and_once() {
    check(&noisy(), 0.0);
}

#[test]
#[ignore = "open: with loss the two ends may stand on two paths for a while; PATRONUS_TRIALS says how many trials to count"]
fn with_a_little_loss_they_nearly_always_do() {
    check(&lossy(), 0.1);
}
