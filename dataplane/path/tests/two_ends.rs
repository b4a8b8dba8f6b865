//! Two sites that each measure the same links and tell each other what they use.

mod common;

use common::{Chance, DEFAULT, Link, REALTIME, Sim, at, profile};
use patronus_path::{ClassConfig, ClassId, Observation, PathIndex, SelectorConfig};

/// Sites that see the same links from both ends, with chance of their own.
struct Pair {
    sites: [Sim; 2],
    /// By site and class: what it told last.
    told: [[Option<u8>; 4]; 2],
}

impl Pair {
    fn new(leads: [bool; 2], seed: u64) -> Self {
        let site = |leads: bool, seed: u64| {
            let mut config = SelectorConfig::new(ClassConfig::defaults());
            config.leads = leads;
            let mut sim = Sim::bare(config, vec![Link::new(20.0), Link::new(20.0)], seed);
            for path in 0..2 {
                sim.see(Observation::Path(PathIndex(path), profile(path, 10)));
                sim.set_up(path.into(), true);
            }
            sim
        };
        Self {
            sites: [site(leads[0], 2 * seed), site(leads[1], 2 * seed + 1)],
            told: [[None; 4]; 2],
        }
    }

    /// Sets what a link loses from the first site to the second, and back.
    fn set_loss(&mut self, link: usize, loss: [f64; 2]) {
        self.sites[0].links[link].loss = loss;
        self.sites[1].links[link].loss = [loss[1], loss[0]];
    }

    /// Lets time pass; what one site uses, the other knows 50 ms later.
    fn run(&mut self, span_s: f64) {
        for _ in 0..(span_s / 0.05).round() as usize {
            for site in &mut self.sites {
                site.run(0.05);
            }
            let used =
                [0, 1].map(|site| [0, 1, 2, 3].map(|class| self.sites[site].path(ClassId(class))));
            for (site, paths) in used.into_iter().enumerate() {
                for (class, path) in paths.into_iter().enumerate() {
                    if path == self.told[site][class] {
                        continue;
                    }
                    self.told[site][class] = path;
                    if let Some(path) = path {
                        let choice = Observation::PeerChoice(ClassId(class as u8), PathIndex(path));
                        self.sites[1 - site].see(choice);
                    }
                }
            }
        }
    }

    fn paths(&self, class: ClassId) -> [Option<u8>; 2] {
        [self.sites[0].path(class), self.sites[1].path(class)]
    }
}

#[test]
fn a_site_that_follows_ends_where_the_leader_is_and_moves_no_more_often() {
    for seed in 0..10 {
        let mut pair = Pair::new([true, false], seed);
        let mut chance = Chance::new(seed);
        pair.run(10.0);
        for _ in 0..12 {
            let link = (chance.next() % 2) as usize;
            let loss = [0.0, 0.2, 0.3][(chance.next() % 3) as usize];
            let both = chance.share() < 0.5;
            pair.set_loss(link, if both { [loss, loss] } else { [0.0, loss] });
            pair.run(5.0 + 40.0 * chance.share());
        }
        pair.set_loss(0, [0.0, 0.0]);
        pair.set_loss(1, [0.0, 0.0]);
        pair.run(200.0);
        for class in [REALTIME, DEFAULT] {
            let [leader, follower] = pair.paths(class);
            assert_eq!(leader, follower, "seed {seed}");
            let [led, followed] =
                [0, 1].map(|site| pair.sites[site].switches(class, at(0.0)).len());
            // The follower leaves on its own when its own way is bad, and may be led back once.
            assert!(
                followed <= 2 * led + 2,
                "seed {seed}: {led} then {followed}"
            );
        }
    }
}

#[test]
fn a_loss_that_both_see_moves_both_within_seconds_and_once() {
    for seed in 0..10 {
        let mut pair = Pair::new([true, false], seed);
        pair.run(10.0);
        assert_eq!(pair.paths(REALTIME), [Some(0), Some(0)], "seed {seed}");
        pair.set_loss(0, [0.2, 0.2]);
        pair.run(8.0);
        assert_eq!(pair.paths(REALTIME), [Some(1), Some(1)], "seed {seed}");
        for site in &pair.sites {
            assert_eq!(site.switches(REALTIME, at(10.0)).len(), 1, "seed {seed}");
        }
    }
}

#[test]
fn two_sites_that_both_follow_by_mistake_do_not_chase_each_other() {
    let mut pair = Pair::new([false, false], 1);
    pair.run(20.0);
    // They start on different paths.
    let choice = |path| Observation::PeerChoice(DEFAULT, PathIndex(path));
    pair.sites[0].see(choice(1));
    pair.run(120.0);
    for site in &pair.sites {
        let switches = site.switches(DEFAULT, at(20.0));
        assert!(switches.len() <= 13, "{}", switches.len());
    }
}
