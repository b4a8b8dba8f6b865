//! What a site remembers over a restart.

use patronus_discovery::machine::{Config, Event, Now};
use patronus_discovery::{Machine, SiteKey};

use crate::network::{START, lan};
use crate::pair::{Bench, LAN, Other};

fn config(bench: &Bench) -> Config {
    let mut config = bench.network.config(&bench.papers);
    config.lans = vec![lan(LAN.0)];
    config
}

fn reborn(bench: &mut Bench, cache: &[u8]) -> Machine {
    let (papers, config, now) = (bench.papers.clone(), config(bench), bench.now);
    bench.network.machine(&papers, config, Some(cache), now)
}

fn was_refused(machine: &mut Machine) -> bool {
    std::iter::from_fn(|| machine.poll_event()).any(|event| event == Event::CacheRefused)
}

#[test]
fn peers_approvals_and_revocations_survive_a_restart() {
    let mut bench = Bench::new(1);
    for host in 2..6 {
        Other::new(&mut bench, &format!("site-{host}"), host).introduce(&mut bench);
    }
    let revoked = SiteKey::generate(&mut bench.network.rng).id();
    for part in bench.network.revoke(1, &[revoked], START) {
        bench.machine.revoke(part, bench.now).unwrap();
    }
    bench.machine.approve(revoked, bench.now);
    let cache = bench.machine.encode_cache();
    let mut again = reborn(&mut bench, &cache);
    assert!(!was_refused(&mut again));
    assert_eq!(
        again.peers().collect::<Vec<_>>(),
        bench.machine.peers().collect::<Vec<_>>()
    );
    assert_eq!(
        again.revocations().state(),
        bench.machine.revocations().state()
    );
    assert_eq!(again.approved().count(), 1);
    assert_eq!(again.encode_cache().len(), cache.len());
}

#[test]
fn a_cache_that_was_changed_cut_or_is_of_another_site_is_refused_and_nothing_else_happens() {
    let mut bench = Bench::new(2);
    Other::new(&mut bench, "other", 2).introduce(&mut bench);
    let cache = bench.machine.encode_cache();
    for at in (0..cache.len()).step_by(17) {
        let mut bad = cache.clone();
        bad[at] ^= 1;
        let mut machine = reborn(&mut bench, &bad);
        assert!(was_refused(&mut machine), "byte {at}");
        assert_eq!(machine.peers().count(), 0);
    }
    for len in [0, 1, 64, cache.len() - 1] {
        assert!(was_refused(&mut reborn(&mut bench, &cache[..len])));
    }
    let theirs = Bench::new(3).machine.encode_cache();
    assert!(was_refused(&mut reborn(&mut bench, &theirs)));
}

#[test]
fn what_a_cached_site_said_before_is_a_replay_after_the_restart() {
    let mut bench = Bench::new(4);
    let mut other = Other::new(&mut bench, "other", 2);
    let old = other.announcement_at(bench.now);
    let later = Now {
        instant: bench.now.instant + std::time::Duration::from_secs(2),
        wall: bench.now.wall + std::time::Duration::from_secs(2),
    };
    bench.now = later;
    other.introduce(&mut bench);
    let cache = bench.machine.encode_cache();
    bench.machine = reborn(&mut bench, &cache);
    assert!(bench.receive(2, &old).is_empty());
    assert_eq!(bench.dropped(patronus_discovery::machine::Drop::Replay), 1);
}

#[test]
fn a_cached_peer_whose_certificate_ended_with_its_grace_is_no_peer() {
    let mut bench = Bench::new(5);
    Other::new(&mut bench, "other", 2).introduce(&mut bench);
    let cache = bench.machine.encode_cache();
    bench.pass(crate::network::DAY * 30);
    let machine = reborn(&mut bench, &cache);
    assert_eq!(machine.peers().count(), 0);
}
