//! The LAN program in the kernel's test run against its twin, with random tables and packets, hostile ones included.
//! Needs privilege; without it, one line says so.

mod lan_support;

use std::time::Duration;

use lan_support::{Dice, options, privileged, tables};
use patronus_ebpf::lan::{LanFilter, LanLimits, LanOptions, LanReason, Twin};

fn filter(options: LanOptions) -> LanFilter {
    LanFilter::load_for_trials(options).expect("the program loads")
}

#[test]
fn the_kernel_and_the_twin_agree_on_every_packet() {
    if !privileged() {
        return;
    }
    let seed = lan_support::seed(1);
    let mut dice = Dice(seed);
    let mut filter = filter(options());
    let mut seen = [0u64; LanReason::ALL.len()];
    for policy in 0..120 {
        let tables = tables(&mut dice, policy);
        let overflow = filter.publish(&tables).expect("published");
        assert!(
            overflow.is_empty(),
            "seed {seed} policy {policy}: {overflow:?}"
        );
        let twin = Twin::new(&tables);
        for at in 0..400 {
            let packet = dice.packet();
            let (expected, _) = twin.fate(&packet);
            let found = filter.trial(&packet).expect("a trial");
            assert_eq!(
                found, expected,
                "seed {seed} policy {policy} packet {at}: {packet:02x?} by {tables:#?}"
            );
            seen[found as usize] += 1;
        }
    }
    println!("{seen:?}");
    for reason in [
        LanReason::Allowed,
        LanReason::Reply,
        LanReason::Ask,
        LanReason::Fragment,
        LanReason::Error,
        LanReason::Extension,
        LanReason::Malformed,
        LanReason::Told,
        LanReason::Denied,
    ] {
        assert!(seen[reason as usize] > 0, "{reason:?} never came");
    }
    let stats = filter.stats().expect("stats");
    for (reason, traffic) in &stats.reasons {
        assert_eq!(traffic.packets, seen[*reason as usize], "{reason:?}");
    }
    let by_rule: u64 = stats.rules.values().map(|it| it.packets).sum();
    assert_eq!(by_rule, seen[LanReason::Denied as usize]);
}

#[test]
fn every_denial_counts_under_its_rule_and_stays_counted_when_the_maps_grow() {
    if !privileged() {
        return;
    }
    let mut dice = Dice(lan_support::seed(2));
    let small = LanOptions {
        limits_max: LanLimits::MAX,
        ..options()
    };
    let mut filter = filter(small);
    let mut expected = std::collections::BTreeMap::<u32, (u64, u64)>::new();
    let mut grown = 0;
    for policy in 0..12 {
        let mut tables = tables(&mut dice, 1);
        if policy % 4 == 3 {
            lan_support::bloat(&mut tables, policy);
        }
        let before = filter.limits();
        filter.publish(&tables).expect("published");
        grown += u32::from(filter.limits() != before);
        let twin = Twin::new(&tables);
        for _ in 0..100 {
            let packet = dice.packet();
            filter.trial(&packet).expect("a trial");
            if let (LanReason::Denied, Some(rule)) = twin.fate(&packet) {
                let sum = expected.entry(rule).or_default();
                sum.0 += 1;
                sum.1 += packet.len() as u64;
            }
        }
    }
    assert!(grown >= 2, "the maps grew {grown} times");
    let stats = filter.stats().expect("stats");
    let found = stats.rules.iter();
    let found: std::collections::BTreeMap<_, _> = found
        .map(|(rule, it)| (*rule, (it.packets, it.bytes)))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn what_finds_no_place_is_named_and_passes_to_user_space() {
    if !privileged() {
        return;
    }
    let seed = lan_support::seed(3);
    let mut dice = Dice(seed);
    let mut judged = [0u64; 2];
    for policy in 0..30 {
        let tables = tables(&mut dice, policy);
        let tight = LanLimits {
            addr4: 8,
            addr6: 4,
            rows: 6,
            peers: 8,
            sets: 12,
            ports: 16,
            counters: 4,
            classes: 4,
            ..LanLimits::MIN
        };
        let mut filter = filter(LanOptions {
            limits_max: tight,
            ..options()
        });
        let overflow = filter.publish(&tables).expect("published");
        let twin = Twin::new(&tables);
        for _ in 0..60 {
            let packet = dice.packet();
            let expected = twin.fate(&packet).0;
            let found = filter.trial(&packet).expect("a trial");
            assert!(
                found == expected || found == LanReason::Ask,
                "seed {seed} policy {policy}: {found:?} for {expected:?}, {packet:02x?} by {tables:#?}"
            );
            assert!(
                found == expected || !overflow.is_empty(),
                "seed {seed} policy {policy}: nothing is said to have no place"
            );
            judged[usize::from(found == expected)] += 1;
        }
    }
    assert!(judged[0] > 0 && judged[1] > 0, "{judged:?}");
}

#[test]
fn a_denied_packet_of_each_rule_goes_to_user_space_now_and_then() {
    if !privileged() {
        return;
    }
    let mut filter = filter(LanOptions {
        tell_interval: Duration::from_secs(3600),
        ..options()
    });
    filter.publish(&lan_support::shut()).expect("published");
    let packet = lan_support::syn();
    let found: Vec<_> = (0..64)
        .map(|_| filter.trial(&packet).expect("a trial"))
        .collect();
    assert_eq!(found[0], LanReason::Told);
    // Another CPU tells once more: the test may be moved about.
    let told = found.iter().filter(|it| **it == LanReason::Told).count();
    assert!(told < found.len(), "{told} of {} were told", found.len());
    let stats = filter.stats().expect("stats");
    assert_eq!(stats.reasons[&LanReason::Told].packets, told as u64);
    let dropped: u64 = stats.rules.values().map(|it| it.packets).sum();
    assert_eq!(dropped, (found.len() - told) as u64);
}

#[test]
fn whoever_answers_denials_gets_them_all_and_a_suspended_program_passes_everything() {
    if !privileged() {
        return;
    }
    let mut filter = filter(options());
    let packet = lan_support::syn();
    assert_eq!(filter.trial(&packet).expect("a trial"), LanReason::Off);
    let mut tables = lan_support::shut();
    filter.publish(&tables).expect("published");
    assert_eq!(filter.trial(&packet).expect("a trial"), LanReason::Denied);
    tables.answers_denials = true;
    filter.publish(&tables).expect("published");
    assert_eq!(filter.trial(&packet).expect("a trial"), LanReason::Told);
    filter.suspend();
    assert_eq!(filter.trial(&packet).expect("a trial"), LanReason::Off);
    assert_eq!(filter.generation(), None);
}

/// One thread judges the same packets over and over while another puts two policies in force in turns. Each policy
/// denies what the other allows, in three look-ups that must come from one policy: a program that mixed them would
/// allow, or deny, both ways round.
#[test]
fn no_packet_is_judged_by_half_a_policy() {
    use std::sync::atomic::{AtomicBool, Ordering};

    if !privileged() {
        return;
    }
    // Both are allowed only where the class of the one policy met the row of the other.
    let (mut one, other) = (lan_support::mixed(false), lan_support::mixed(true));
    one.generation = 7;
    let mut filter = filter(options());
    filter.publish(&one).expect("published");
    let program = filter.trials().expect("a second descriptor");
    let done = AtomicBool::new(false);
    let (reached, wrong) = std::thread::scope(|scope| {
        let judge = scope.spawn(|| {
            let packet = lan_support::syn();
            let (mut reached, mut wrong) = (0u64, Vec::new());
            while !done.load(Ordering::Relaxed) {
                let reason = program.trial(&packet).expect("a trial");
                match reason {
                    LanReason::Denied => reached += 1,
                    LanReason::Changed | LanReason::Off => {}
                    _ => wrong.push(reason),
                }
            }
            (reached, wrong)
        });
        for turn in 0..200 {
            let tables = if turn % 2 == 0 { &other } else { &one };
            filter.publish(tables).expect("published");
        }
        done.store(true, Ordering::Relaxed);
        judge.join().expect("no panic")
    });
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(reached > 0, "no packet was judged");
}
