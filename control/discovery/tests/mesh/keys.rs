//! Replacing WireGuard keys, hour by hour.

use std::time::Duration;

use patronus_discovery::machine::{Event, Reachability, RotationError, SessionPath};
use patronus_discovery::{SiteId, WireGuardKey};

use crate::pair::{Bench, Other};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn up(own_key: WireGuardKey) -> Reachability {
    Reachability::Up(SessionPath {
        uplink: None,
        remote: None,
        relay: None,
        own_key,
    })
}

/// A machine with two peers whose sessions use its first key, at the moment of the switch to the second one.
fn switched(seed: u64) -> (Bench, [SiteId; 2], [WireGuardKey; 2]) {
    let mut bench = Bench::new(seed);
    let first = bench.machine.own_keys().current;
    let mut ids = Vec::new();
    for (host, name) in (2..).zip(["left", "right"]) {
        let mut other = Other::new(&mut bench, name, host);
        other.introduce(&mut bench);
        bench
            .machine
            .handle_reachability(other.id(), up(first), bench.now);
        ids.push(other.id());
    }
    while bench.told(|it| matches!(it, Event::KeyWanted { .. })) == 0 {
        bench.run(MINUTE);
    }
    let second = bench.network.wireguard_key();
    bench.machine.handle_next_key(second, bench.now).unwrap();
    let (next, from) = bench.machine.own_keys().next.unwrap();
    assert_eq!(next, second);
    let ahead = from.since(bench.now.wall);
    assert!(
        (HOUR * 2 - MINUTE * 2..=HOUR * 2).contains(&ahead),
        "{ahead:?}"
    );
    bench.run(ahead + MINUTE);
    assert_eq!(bench.machine.own_keys().current, second);
    assert_eq!(bench.machine.own_keys().previous, Some(first));
    (bench, [ids[0], ids[1]], [first, second])
}

#[test]
fn the_old_key_goes_when_every_peer_was_seen_with_the_new_one() {
    let (mut bench, [left, right], [first, second]) = switched(1);
    bench
        .machine
        .handle_reachability(left, up(second), bench.now);
    bench.run(MINUTE);
    assert_eq!(
        bench.machine.own_keys().previous,
        Some(first),
        "one is missing"
    );
    bench
        .machine
        .handle_reachability(right, up(second), bench.now);
    bench.run(MINUTE);
    assert_eq!(bench.machine.own_keys().previous, None);
    let retired = Event::KeyRetired {
        key: first,
        missed: Vec::new(),
    };
    assert_eq!(bench.told(|it| *it == retired), 1);
    assert_eq!(bench.told(|it| matches!(it, Event::KeyMissed { .. })), 0);
}

#[test]
fn a_peer_that_does_not_move_is_told_of_after_two_hours_and_waited_for() {
    let (mut bench, [left, right], [first, second]) = switched(2);
    bench
        .machine
        .handle_reachability(left, up(second), bench.now);
    bench.run(HOUR * 2);
    let missed = Event::KeyMissed { sites: vec![right] };
    assert_eq!(bench.told(|it| *it == missed), 1);
    bench.run(HOUR * 19);
    assert_eq!(
        bench.machine.own_keys().previous,
        Some(first),
        "until the next switch"
    );
    assert_eq!(bench.told(|it| matches!(it, Event::KeyMissed { .. })), 1);
    while bench.told(|it| matches!(it, Event::KeyWanted { .. })) < 2 {
        bench.run(MINUTE);
    }
    let third = bench.network.wireguard_key();
    bench.machine.handle_next_key(third, bench.now).unwrap();
    bench.run(HOUR * 2 + MINUTE);
    assert_eq!(bench.machine.own_keys().previous, Some(second));
    let retired = |it: &Event| matches!(it, Event::KeyRetired { key, missed } if *key == first && missed == &[right]);
    assert_eq!(bench.told(retired), 1);
}

#[test]
fn a_key_that_was_not_asked_for_or_was_used_is_refused() {
    let mut bench = Bench::new(3);
    let key = bench.network.wireguard_key();
    let refused = bench.machine.handle_next_key(key, bench.now);
    assert_eq!(refused, Err(RotationError::NotWanted));
    bench.run(HOUR * 23);
    let current = bench.machine.own_keys().current;
    let refused = bench.machine.handle_next_key(current, bench.now);
    assert_eq!(refused, Err(RotationError::Used));
    bench.machine.handle_next_key(key, bench.now).unwrap();
}

#[test]
fn a_network_does_not_replace_all_keys_at_once() {
    let times: Vec<Duration> = (10..40)
        .map(|seed| {
            let mut bench = Bench::new(seed);
            while bench.told(|it| matches!(it, Event::KeyWanted { .. })) == 0 {
                bench.run(MINUTE);
            }
            bench.now.instant - bench.begun
        })
        .collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*first >= HOUR * 21 + MINUTE * 30 && *last <= HOUR * 22 + MINUTE * 32);
    assert!(
        *last - *first > MINUTE * 40,
        "spread over an hour: {first:?} {last:?}"
    );
}
