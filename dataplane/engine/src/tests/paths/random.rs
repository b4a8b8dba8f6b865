//! A random world against a simple reference.
//!
//! Faults, restarts, drains and changes of the configuration come at random, while packets are sent all the time.
//! The reference knows of each path whether it works in both directions at the moment, and since when. Promised is:
//! where some path has worked both ways for [`SETTLED`], packets pass; none is delivered twice; a drained path carries
//! nothing while another one works; and the number of switches is bounded. Size by `PATRONUS_PATHS_WALK_S`, the simulated
//! seconds, and `PATRONUS_PATHS_WALK_SEEDS`.

use std::env;

use patronus_path::Command;

use super::*;
use crate::PathOrder;
use crate::sim::Dice;

/// A path that has worked both ways this long is in use where no other works: the idle detection and a round trip, or
/// the way back from a restart.
const SETTLED: Duration = Duration::from_secs(2);
/// A fault is noticed and acted on in this time.
const NOTICED: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(10);
const UPLINKS: u8 = 2;
/// Voluntary and forced switches of one class per change of the world: away, back, and one in between.
const SWITCHES_PER_STEP_MAX: usize = 4;

/// What the reference knows.
struct Reference {
    /// By uplink: since when the path works both ways.
    works_since: [Option<Duration>; UPLINKS as usize],
    is_up: [bool; 2],
    up_since: [Duration; 2],
    drained: Option<(SiteId, u8, Duration)>,
    /// The last change: until it is noticed packets are missing.
    changed_at: Duration,
}

impl Reference {
    fn set(&mut self, uplink: u8, works: bool, now: Duration) {
        let known = &mut self.works_since[usize::from(uplink)];
        *known = works.then(|| known.unwrap_or(now));
    }

    fn is_settled(&self, now: Duration, after: Duration) -> bool {
        let settled = |since: &Option<Duration>| since.is_some_and(|since| now - since > after);
        let up = self.is_up.iter().all(|up| *up);
        up && self.up_since.iter().all(|since| now - *since > after)
            && self.works_since.iter().any(settled)
    }
}

fn number(name: &str, default: u64) -> u64 {
    let text = env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn a_random_world_keeps_all_promises() {
    let seconds = number("PATRONUS_PATHS_WALK_S", 120);
    let seeds = number("PATRONUS_PATHS_WALK_SEEDS", 6);
    let first = number("PATRONUS_PATHS_WALK_SEED", 0x5eed);
    for seed in first..first + seeds {
        println!("seed {seed:#x}, {seconds} s");
        walk(seed, Duration::from_secs(seconds));
    }
}

fn walk(seed: u64, time: Duration) {
    let mut net = TWO_BY_TWO.warm(seed);
    let mut dice = Dice::new(seed);
    let begin = net.elapsed();
    let mut reference = Reference {
        works_since: [Some(Duration::ZERO); UPLINKS as usize],
        is_up: [true; 2],
        up_since: [Duration::ZERO; 2],
        drained: None,
        changed_at: Duration::ZERO,
    };
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    for site in [A, B] {
        net.site_mut(site).events.clear();
    }
    while net.elapsed() - begin < time {
        change(&mut net, &mut dice, &mut reference);
        let rest = Duration::from_millis(200 + dice.below(6000) as u64);
        run(&mut net, &mut streams, &reference, rest);
        for site in [A, B] {
            if env::var("PATRONUS_PATHS_WALK_SAY").is_ok() {
                println!("{site:?} {:#?}", summaries(&net, site));
            }
            let switched = switches(&mut net, site, DEFAULT);
            assert!(
                switched <= SWITCHES_PER_STEP_MAX,
                "{switched} switches of {site:?}"
            );
        }
    }
    for stream in &streams.0 {
        assert_eq!(stream.twice(), 0, "delivered twice");
    }
}

/// Something happens.
fn change(net: &mut Net, dice: &mut Dice, reference: &mut Reference) {
    let now = net.elapsed();
    reference.changed_at = now;
    let uplink = dice.below(usize::from(UPLINKS)) as u8;
    let [a, b] = [Uplink(A, uplink), Uplink(B, uplink)];
    match dice.below(10) {
        0 | 1 => {
            set_path(net, uplink, dead());
            reference.set(uplink, false, now);
        }
        2 => {
            let (from, to) = if dice.chance(0.5) { (a, b) } else { (b, a) };
            net.set_path(from, to, dead());
            reference.set(uplink, false, now);
        }
        3..=5 => {
            for uplink in 0..UPLINKS {
                set_path(net, uplink, good());
                reference.set(uplink, true, now);
            }
        }
        6 => {
            let slow = Impairment {
                delay: Duration::from_millis(1 + dice.below(80) as u64),
                ..good()
            };
            set_path(net, uplink, slow);
            reference.set(uplink, true, now);
        }
        7 => {
            net.restart(B);
            reference.up_since[1] = now;
            reference.drained = reference.drained.filter(|(site, ..)| *site != B);
        }
        8 => {
            let mtu = 1380 + dice.below(40);
            net.set_mtu(A, mtu);
        }
        _ => drain(net, uplink, reference),
    }
}

/// Drains a path at A, or undrains the one that is.
fn drain(net: &mut Net, uplink: u8, reference: &mut Reference) {
    let now = (net.elapsed(), net.now());
    let (uplink, drains) = match reference.drained.take() {
        Some((_, drained, _)) => (drained, false),
        None => (uplink, true),
    };
    let known = board(net, A, B);
    let Some(path) = known.iter().find(|it| it.endpoint.uplink.0 == uplink) else {
        return;
    };
    let command = match drains {
        true => Command::Drain(path.path),
        false => Command::Undrain(path.path),
    };
    if drains {
        reference.drained = Some((A, uplink, now.0));
    }
    let order = PathOrder::Command(peer_id(B), command);
    net.site_mut(A)
        .engine_mut(0)
        .handle_path_order(&order, now.1);
}

/// Sends for a while, and holds the promises against the reference.
fn run(net: &mut Net, streams: &mut Streams, reference: &Reference, time: Duration) {
    let end = net.elapsed() + time;
    while net.elapsed() < end {
        let now = net.elapsed();
        // A restart takes a handshake, which may go to a dead path first: one more retry.
        let settled = reference.is_settled(now, SETTLED + Duration::from_secs(3))
            && now - reference.changed_at >= NOTICED;
        let before: Vec<usize> = streams.0.iter().map(|stream| stream.came.len()).collect();
        let drained = drained_data(net, reference);
        let window = Duration::from_millis(300);
        streams.run(net, window, TICK);
        for (stream, before) in streams.0.iter().zip(before) {
            assert!(
                !settled || stream.came.len() > before,
                "nothing from {:?} in {window:?} at {now:?}: {:?} {:#?}",
                stream.from,
                reference.works_since,
                board(net, stream.from, stream.to),
            );
        }
        if let (Some(before), Some(after)) = (drained, drained_data(net, reference)) {
            let said = (summaries(net, A), board(net, A, B));
            assert_eq!(
                after, before,
                "a drained path carries data at {now:?}: {said:#?}"
            );
        }
    }
}

/// What a site decided since its events were taken.
fn summaries(net: &Net, at: SiteId) -> Vec<String> {
    let events = net.site(at).events.iter();
    let said = events.filter_map(|event| match event {
        crate::Event::Path(_, PathEvent::Decided(it)) => {
            Some(format!("{:?} {}: {}", it.at, it.class_name, it.summary))
        }
        crate::Event::Path(_, PathEvent::State(path, state, reason)) => {
            Some(format!("{path:?} {state:?} {reason:?}"))
        }
        _ => None,
    });
    said.collect()
}

/// Data packets that A sent on the path that it drained some time ago, where another one is settled.
fn drained_data(net: &Net, reference: &Reference) -> Option<u64> {
    let (_, uplink, since) = reference.drained?;
    let now = net.elapsed();
    let other = reference.works_since[usize::from(1 - uplink)]?;
    // A move takes 5 s, and up to 30 s while it fills the new path.
    let limit = Duration::from_secs(33);
    if now - since < limit || now - other < limit || now - reference.up_since[1] < limit {
        return None;
    }
    let known = board(net, A, B);
    let path = known.iter().find(|it| it.endpoint.uplink.0 == uplink)?;
    path.is_draining.then_some(path.tx_packets)
}
