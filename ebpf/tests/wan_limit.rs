//! The limit of initiations, long lists of sources, and settings that change.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use common::frames::*;
use common::{Dice, can_load, counted};
use patronus_ebpf::{
    Entry, Frame, InitiationLimit, LoadError, Prefix, SourceVerdict, Sources, WanConfig, WanFilter,
    WanReason, WanTwin,
};

use WanReason::*;

fn limited(limit: InitiationLimit) -> WanConfig {
    WanConfig {
        ports: vec![PORT],
        limit: Some(limit),
        ..WanConfig::default()
    }
}

/// One a second, five at once.
const SLOW: InitiationLimit = InitiationLimit {
    per_second: 1,
    burst: 5,
    v4_len: 24,
    v6_len: 64,
};

fn whole(bytes: &[u8]) -> Frame<'_> {
    Frame { bytes, gso_size: 0 }
}

/// How many of `count` initiations from `source` the program lets in, and how long it took to ask.
fn admitted(filter: &mut WanFilter, entry: Entry, source: &str, count: u32) -> (u64, Duration) {
    let frame = packet(source, initiation()).build();
    let before = filter.stats().unwrap().of(PassInitiation).packets;
    let start = Instant::now();
    filter.trial(entry, whole(&frame), count).unwrap();
    let stats = filter.stats().unwrap();
    assert!(stats.adds_up());
    (stats.of(PassInitiation).packets - before, start.elapsed())
}

#[test]
fn a_prefix_gets_its_burst_and_then_its_rate() {
    if !can_load() {
        return;
    }
    for entry in [Entry::XdpNative, Entry::Tc] {
        let mut filter = WanFilter::load(&limited(SLOW)).unwrap();
        let start = Instant::now();
        for source in ["5.9.0.1", "5.9.1.1", "2a01:4f8::1", "2a01:4f8:0:1::1"] {
            let (passed, took) = admitted(&mut filter, entry, source, 50);
            // A machine that stops us in the middle lets more in: that is the rate.
            let most = 5 + 1 + took.as_secs();
            assert!(
                (5..=most).contains(&passed),
                "{passed} from {source} in {took:?}"
            );
        }
        // The neighbours in the prefix share it.
        let (passed, took) = admitted(&mut filter, entry, "5.9.0.77", 1);
        let since = start.elapsed();
        assert!(
            passed == 0 || since > Duration::from_millis(900),
            "{passed} in {took:?}, {since:?}"
        );
        std::thread::sleep(Duration::from_millis(1100));
        let (passed, _) = admitted(&mut filter, entry, "2a01:4f8::ffff", 1);
        assert_eq!(passed, 1, "a second later there is room for one");
        // What is no initiation is not limited.
        let frame = packet("5.9.0.1", data(148)).build();
        filter.trial(entry, whole(&frame), 20).unwrap();
        assert_eq!(filter.stats().unwrap().of(PassData).packets, 20);
    }
}

#[test]
fn a_train_of_initiations_pays_for_each() {
    if !can_load() {
        return;
    }
    let limit = InitiationLimit {
        burst: 1000,
        ..SLOW
    };
    let mut filter = WanFilter::load(&limited(limit)).unwrap();
    // Nine initiations behind one junk datagram of the same length.
    let mut train = junk(148);
    train.extend(initiation().repeat(9));
    let frame = Frame {
        bytes: &packet(V4, train).build(),
        gso_size: 148,
    };
    filter.trial(Entry::Tc, frame, 1000).unwrap();
    let passed = filter.stats().unwrap().of(PassMixed).packets;
    // The one that reaches the limit is let in whole; more only if this takes nine seconds.
    assert!((111..=130).contains(&passed), "{passed} trains of 9");
    // An initiation that ends a train of longer data is found.
    let mut train = data(200);
    train.extend(initiation());
    let frame = Frame {
        bytes: &packet(V4, train).build(),
        gso_size: 200,
    };
    assert!(filter.trial(Entry::Tc, frame, 1).unwrap().dropped);
}

#[test]
fn the_twin_keeps_the_same_rate() {
    let mut twin = WanTwin::new(&limited(SLOW));
    let frame = packet(V4, initiation()).build();
    let mut judge = |now_ms: u64| {
        let now_ns = now_ms * 1_000_000;
        twin.judge(Entry::Tc, whole(&frame), now_ns).reason
    };
    for _ in 0..5 {
        assert_eq!(judge(10_000), PassInitiation);
    }
    assert_eq!(judge(10_000), DropLimited);
    assert_eq!(judge(10_999), DropLimited);
    assert_eq!(judge(11_000), PassInitiation);
    assert_eq!(judge(11_001), DropLimited);
    for _ in 0..5 {
        assert_eq!(judge(60_000), PassInitiation);
    }
    assert_eq!(judge(60_000), DropLimited);
}

#[test]
fn other_prefix_lengths_can_be_set() {
    if !can_load() {
        return;
    }
    let limit = InitiationLimit {
        v4_len: 32,
        v6_len: 48,
        burst: 1,
        ..SLOW
    };
    let mut filter = WanFilter::load(&limited(limit)).unwrap();
    let mut ask = |source| {
        let frame = packet(source, initiation()).build();
        filter.trial(Entry::Tc, whole(&frame), 1).unwrap().dropped
    };
    // Each address by itself, and no time but for the first.
    assert!(!ask("5.9.0.1"));
    assert!(!ask("5.9.0.2"));
    assert!(!ask("2a01:4f8:1:1::1"));
    assert!(!ask("2a01:4f8:2:1::1"));
    // All of it in one second, on a machine that lets us.
    let start = Instant::now();
    filter
        .set_limit(Some(InitiationLimit { v4_len: 0, ..limit }))
        .unwrap();
    let mut dropped = 0;
    for n in 0..100u8 {
        let frame = packet(&format!("{n}.9.0.9"), initiation()).build();
        dropped += u64::from(filter.trial(Entry::Tc, whole(&frame), 1).unwrap().dropped);
    }
    assert!(dropped + 2 + start.elapsed().as_secs() >= 100, "{dropped}");
    filter.set_limit(None).unwrap();
    let frame = packet("5.9.0.9", initiation()).build();
    assert!(!filter.trial(Entry::Tc, whole(&frame), 50).unwrap().dropped);
}

#[test]
fn limits_that_let_nobody_in_are_refused() {
    let refusal = |limit| match WanFilter::load(&limited(limit)) {
        Err(LoadError::Config(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    };
    if !can_load() {
        return;
    }
    let zero = InitiationLimit {
        per_second: 0,
        ..SLOW
    };
    assert!(refusal(zero).contains("at least 1"));
    let zero = InitiationLimit { burst: 0, ..SLOW };
    assert!(refusal(zero).contains("at least 1"));
    let long = InitiationLimit { v4_len: 33, ..SLOW };
    assert!(refusal(long).contains("32 bits"));
}

/// 50,000 prefixes of each family, some inside others, some allowed.
fn long_list(dice: &mut Dice) -> Sources {
    let mut sources = Sources::new();
    for _ in 0..50_000 {
        let v4 = Ipv4Addr::from_bits(dice.next() as u32);
        let v6 = Ipv6Addr::from_bits(0x2a << 120 | u128::from(dice.next()) << 64);
        let verdict = dice.pick(&[
            SourceVerdict::Blocked,
            SourceVerdict::Blocked,
            SourceVerdict::Allowed,
        ]);
        let v4 = Prefix::around(v4.into(), 8 + dice.below(25) as u8);
        let v6 = Prefix::around(v6.into(), 12 + dice.below(53) as u8);
        sources.extend([v4, v6], verdict);
    }
    sources
}

#[test]
fn lists_of_100_000_prefixes_match_like_the_twins() {
    if !can_load() {
        return;
    }
    let mut dice = Dice::new("long lists");
    let mut config = WanConfig {
        ports: vec![PORT],
        ..WanConfig::default()
    };
    config.sources = long_list(&mut dice);
    assert!(config.sources.len() >= 100_000);
    let mut filter = WanFilter::load(&config).unwrap();
    assert_eq!(filter.source_count(), config.sources.len());
    let mut twin = WanTwin::new(&config);
    let mut dropped = 0;
    for _ in 0..2000 {
        // Half near an entry, half anywhere.
        let source = match (dice.one_in(2), dice.one_in(2)) {
            (true, _) => dice.pick(config.sources.entries()).0.addr(),
            (false, true) => Ipv4Addr::from_bits(dice.next() as u32).into(),
            (false, false) => {
                Ipv6Addr::from_bits(0x2a << 120 | u128::from(dice.next()) << 60).into()
            }
        };
        let bytes = packet(&source.to_string(), data(32)).build();
        let said = twin.judge(Entry::Tc, whole(&bytes), 0).reason;
        let trial = filter.trial(Entry::Tc, whole(&bytes), 1).unwrap();
        assert_eq!(trial.dropped, said.is_drop(), "{source}: {said:?}");
        dropped += u32::from(trial.dropped);
    }
    assert!((200..1900).contains(&dropped), "{dropped} of 2000");
    let counted = counted(&filter);
    assert_eq!(
        counted.iter().map(|(_, packets)| packets).sum::<u64>(),
        2000
    );
}

#[test]
fn settings_can_be_changed_and_taken_back() {
    if !can_load() {
        return;
    }
    let mut filter = WanFilter::load(&WanConfig::default()).unwrap();
    let ask = |filter: &mut WanFilter, source: &str, payload: Vec<u8>| {
        let bytes = packet(source, payload).build();
        filter.trial(Entry::Tc, whole(&bytes), 1).unwrap().dropped
    };
    assert!(!ask(&mut filter, V4, junk(64)), "no port is ours");
    filter.set_ports(&[1, PORT]).unwrap();
    assert!(ask(&mut filter, V4, junk(64)));
    filter.set_ports(&[PORT + 1]).unwrap();
    assert!(!ask(&mut filter, V4, junk(64)));
    filter.set_ports(&[PORT]).unwrap();

    let mut sources = Sources::new();
    sources.extend(["5.0.0.0/8".parse().unwrap()], SourceVerdict::Blocked);
    filter.set_sources(&sources).unwrap();
    assert!(ask(&mut filter, V4, data(32)) && !ask(&mut filter, V6, data(32)));
    filter.set_sources(&Sources::new()).unwrap();
    assert!(!ask(&mut filter, V4, data(32)));

    filter.set_known_receivers(Some(&[1, 2])).unwrap();
    assert!(!ask(&mut filter, V4, message_for(4, 32, 2)));
    filter.set_known_receivers(Some(&[1])).unwrap();
    assert!(ask(&mut filter, V4, message_for(4, 32, 2)));
    filter.add_known_receiver(2).unwrap();
    assert!(!ask(&mut filter, V4, message_for(4, 32, 2)));
    filter.set_known_receivers(None).unwrap();
    assert!(!ask(&mut filter, V4, message_for(4, 32, 7)));
    filter.set_known_receivers(Some(&[])).unwrap();
    assert!(ask(&mut filter, V4, message_for(4, 32, 2)));
}
