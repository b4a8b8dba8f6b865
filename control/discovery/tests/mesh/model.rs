//! The machine beside a model that says in few words who should be a peer: both take the same random steps.

use std::collections::BTreeSet;
use std::time::Duration;

use patronus_discovery::machine::{Approval, GRACE};
use patronus_discovery::{SiteId, WallTime};

use crate::network::{DAY, TestRng, lan, subject, validity};
use crate::pair::{Bench, LAN, Other};
use crate::world::seed_from_environment;

const HOUR: Duration = Duration::from_secs(3600);
const SITES: usize = 6;

/// What the model knows of a site.
#[derive(Clone, Debug)]
struct Expected {
    name: String,
    not_after: WallTime,
    /// The end of the certificate that the machine knows.
    known_until: Option<WallTime>,
    is_approved: bool,
    is_revoked: bool,
    has_left: bool,
    is_peer: bool,
    heard_at: WallTime,
}

struct Model {
    sites: Vec<Expected>,
    /// Who was heard of first.
    order: Vec<usize>,
}

impl Model {
    /// What holds by itself at this time.
    fn settle(&mut self, now: WallTime) {
        for at in 0..self.sites.len() {
            let site = &mut self.sites[at];
            let Some(until) = site.known_until else {
                continue;
            };
            if site.is_revoked || now.since(site.heard_at) >= HOUR * 26 {
                site.known_until = None;
                site.is_peer = false;
                site.has_left = false;
                self.order.retain(|known| *known != at);
                continue;
            }
            if now > until + GRACE || !site.is_approved {
                site.is_peer = false;
            }
        }
        for at in self.order.clone() {
            let site = &self.sites[at];
            let has_rival = (0..self.sites.len()).any(|other| {
                other != at && self.sites[other].is_peer && self.sites[other].name == site.name
            });
            let is_in_force = site.known_until.is_some_and(|until| now <= until);
            if site.is_approved && is_in_force && !has_rival && !site.is_revoked {
                self.sites[at].is_peer = true;
            }
        }
    }

    /// A site announces itself and everything arrives.
    fn hear(&mut self, at: usize, now: WallTime) {
        let site = &mut self.sites[at];
        let is_in_force = now <= site.not_after;
        let is_in_grace = site.is_peer && now <= site.not_after + GRACE;
        if site.is_revoked || !is_in_force && !is_in_grace {
            return;
        }
        site.known_until = Some(site.not_after);
        site.heard_at = now;
        site.has_left = false;
        if !self.order.contains(&at) {
            self.order.push(at);
        }
    }

    /// The machine starts with its cache: who was neither a peer nor could have been one is forgotten.
    fn restart(&mut self, now: WallTime) {
        for at in 0..self.sites.len() {
            let site = &mut self.sites[at];
            let is_over = site.known_until.is_some_and(|until| now > until);
            site.heard_at = now;
            if !site.is_peer && is_over {
                site.known_until = None;
                self.order.retain(|known| *known != at);
            }
        }
    }

    fn peers(&self, others: &[Other]) -> BTreeSet<SiteId> {
        let is_one = |site: &&Expected| site.is_peer && !site.has_left;
        self.sites
            .iter()
            .zip(others)
            .filter(|(site, _)| is_one(site))
            .map(|(_, other)| other.id())
            .collect()
    }
}

fn bench(seed: u64) -> Bench {
    Bench::with(seed, |config| {
        config.rotates_keys = false;
        config.approval = Approval::Operator {
            auto_groups: BTreeSet::new(),
        };
    })
}

fn restart(bench: &mut Bench, keeps_cache: bool) {
    let cache = keeps_cache.then(|| bench.machine.encode_cache());
    let papers = bench.papers.clone();
    let mut config = bench.network.config(&papers);
    config.lans = vec![lan(LAN.0)];
    config.rotates_keys = false;
    config.approval = Approval::Operator {
        auto_groups: BTreeSet::new(),
    };
    bench.machine = bench
        .network
        .machine(&papers, config, cache.as_deref(), bench.now);
}

/// One random step of both.
fn step(bench: &mut Bench, others: &mut [Other], model: &mut Model, rng: &mut TestRng) -> String {
    let at = rng.below(SITES as u64) as usize;
    let now = bench.now.wall;
    match rng.below(12) {
        0..=4 => {
            let said = others[at].announcement_at(bench.now);
            others[at].talk(bench, &said);
            model.hear(at, now);
            format!("announces {at}")
        }
        5 | 6 => {
            bench.machine.approve(others[at].id(), bench.now);
            model.sites[at].is_approved = true;
            format!("approve {at}")
        }
        7 => {
            bench.machine.disapprove(others[at].id(), bench.now);
            model.sites[at].is_approved = false;
            format!("disapprove {at}")
        }
        8 if rng.chance(0.1) => {
            model.sites[at].is_revoked = true;
            let revoked: Vec<SiteId> = (0..SITES)
                .filter(|at| model.sites[*at].is_revoked)
                .map(|at| others[at].id())
                .collect();
            let parts = bench.network.revoke(now.0, &revoked, now);
            for part in parts {
                bench.machine.revoke(part, bench.now).unwrap();
            }
            // A revoked site's approval is forgotten with it.
            model.sites[at].is_approved = false;
            format!("revoke {at}")
        }
        9 => {
            let span = [HOUR, DAY * 2, DAY * 7][rng.below(3) as usize];
            let ends = now + span;
            // Everybody that is there keeps announcing itself, so that only certificates end.
            while bench.now.wall < ends {
                bench.run(HOUR * 12);
                for (other, site) in others.iter_mut().enumerate() {
                    if model.sites[other].known_until.is_some() && !model.sites[other].has_left {
                        let said = site.announcement_at(bench.now);
                        site.talk(bench, &said);
                        model.hear(other, bench.now.wall);
                        model.settle(bench.now.wall);
                    }
                }
            }
            format!("{span:?} pass")
        }
        10 => {
            let papers = others[at].papers.clone();
            let subject = papers.certificate.claims().subject.clone();
            let certificate = bench
                .network
                .certify(&papers.key, subject, validity(now, 14));
            model.sites[at].not_after = certificate.claims().validity.not_after();
            others[at].papers.certificate = certificate.clone();
            let mut config = bench.network.config(&others[at].papers.clone());
            config.lans = vec![lan(LAN.0)];
            config.rotates_keys = false;
            others[at].machine.set_config(config, bench.now).unwrap();
            format!("renew {at}")
        }
        _ => {
            // Revocations come back from those who heard of them: the model is too simple for that.
            let is_any_revoked = model.sites.iter().any(|site| site.is_revoked);
            let keeps_cache = rng.chance(0.7) || is_any_revoked;
            restart(bench, keeps_cache);
            model.restart(now);
            if !keeps_cache {
                model.order.clear();
                for site in &mut model.sites {
                    (site.known_until, site.is_peer, site.has_left) = (None, false, false);
                    site.is_approved = false;
                    site.is_revoked = false;
                }
            }
            format!("restart, cache: {keeps_cache}")
        }
    }
}

#[test]
fn the_machine_believes_what_a_simple_model_believes() {
    let seed = seed_from_environment("PATRONUS_MESH_SEED", 1);
    let walks: u64 =
        std::env::var("PATRONUS_MESH_WALKS").map_or(6, |it| it.parse().expect("a number"));
    for walk in 0..walks {
        let seed = seed.wrapping_add(walk);
        let mut rng = TestRng(seed);
        let mut bench = bench(seed);
        let names = ["one", "two", "three", "four"];
        let mut others = Vec::new();
        let mut sites = Vec::new();
        for host in 0..SITES {
            let name = names[host % names.len()];
            let papers = bench.network.site(subject(name));
            sites.push(Expected {
                name: name.to_owned(),
                not_after: papers.certificate.claims().validity.not_after(),
                known_until: None,
                is_approved: false,
                is_revoked: false,
                has_left: false,
                is_peer: false,
                heard_at: WallTime(0),
            });
            others.push(Other::with(&mut bench, papers, host as u8 + 2));
        }
        let mut model = Model {
            sites,
            order: Vec::new(),
        };
        let mut trail = Vec::new();
        for _ in 0..120 {
            trail.push(step(&mut bench, &mut others, &mut model, &mut rng));
            model.settle(bench.now.wall);
            // Certificates are asked for every thirty seconds, chores done every five.
            bench.run(Duration::from_secs(40));
            model.settle(bench.now.wall);
            let peers: BTreeSet<SiteId> = bench.machine.peers().map(|peer| peer.site).collect();
            let expected = model.peers(&others);
            let number = |id: &SiteId| others.iter().position(|other| other.id() == *id);
            assert_eq!(
                peers.iter().map(number).collect::<Vec<_>>(),
                expected.iter().map(number).collect::<Vec<_>>(),
                "seed {seed}: {trail:#?}"
            );
        }
    }
}
