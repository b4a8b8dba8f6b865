use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};

use proptest::prelude::*;

use super::*;

const SEED: u64 = 0x5eed;

fn key(number: u32, protocol: u8) -> FlowKey {
    let addr = |host: u32| {
        if number.is_multiple_of(3) {
            IpAddr::from((0xfd00_u128 << 112 | u128::from(host)).to_be_bytes())
        } else {
            IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 | host))
        }
    };
    FlowKey {
        src: addr(number % 7),
        dst: addr(0x1_0000 + number % 5),
        src_port: (number % 1000) as u16,
        dst_port: 443,
        protocol,
    }
}

fn insert(table: &mut FlowWriter, key: &FlowKey, now_s: u32) -> FlowSlot {
    table.insert(key, PeerId(1), OpenedBy::Local, Generation(1), now_s)
}

/// Distinct keys that share one bucket of a table.
fn colliding_keys(table: &FlowWriter, count: usize) -> Vec<FlowKey> {
    let bucket = |key: &FlowKey| table.table.bucket(key.symmetric_hash(SEED));
    let keys = (0u16..).map(|port| FlowKey {
        src_port: port,
        ..key(1, 17)
    });
    keys.filter(|key| bucket(key) == 0).take(count).collect()
}

#[test]
fn an_entry_holds_all_that_was_put_in() {
    let mut table = FlowTable::create(64, SEED);
    for (number, protocol) in [(1, 6), (3, 17), (2, 1), (6, 58)] {
        let key = key(number, protocol);
        let peer = PeerId(PeerId::MAX - number);
        let slot = table.insert(&key, peer, OpenedBy::Remote, Generation(0x1_2345), 77);
        table.touch(slot, 3, 4000, 78);
        let expected = Flow {
            key,
            peer,
            opened_by: OpenedBy::Remote,
            passage: Passage::Allowed,
            steer: Steer::default(),
            generation: 0x2345,
            last_seen_s: 78,
            packets: 3,
            bytes: 4000,
        };
        assert_eq!(table.flow(slot), expected);
        assert_eq!(table.table().find(&key, 78), Some(expected));
        assert_eq!(table.lookup(&key, 78), Some(slot));
        assert_eq!(
            table.lookup(&key.reversed(), 78),
            None,
            "directions are told apart"
        );
    }
    assert_eq!(table.table().flows(78).count(), 4);
}

#[test]
fn traffic_saturates() {
    let mut table = FlowTable::create(8, SEED);
    let slot = insert(&mut table, &key(1, 6), 0);
    table.touch(slot, u32::MAX - 1, u64::MAX - 1, 0);
    table.touch(slot, 5, 5, 0);
    assert_eq!(
        (table.flow(slot).packets, table.flow(slot).bytes),
        (u32::MAX, u64::MAX)
    );
}

#[test]
fn a_full_bucket_gives_up_the_entry_that_was_idle_longest() {
    let mut table = FlowTable::create(64, SEED);
    let keys = colliding_keys(&table, WAYS + 2);
    for (at, key) in keys[..WAYS].iter().enumerate() {
        insert(&mut table, key, 100 + at as u32);
    }
    assert_eq!(table.evicted(), 0);
    // The first was used again, so the second is the oldest.
    let first = table.lookup(&keys[0], 110).unwrap();
    table.touch(first, 1, 1, 110);
    insert(&mut table, &keys[WAYS], 111);
    assert_eq!(table.evicted(), 1);
    assert_eq!(table.lookup(&keys[1], 111), None);
    for at in (0..=WAYS).filter(|at| *at != 1) {
        assert!(table.lookup(&keys[at], 111).is_some(), "key {at}");
    }
}

#[test]
fn an_idle_entry_gives_way_before_one_in_use_and_is_no_eviction() {
    let mut table = FlowTable::create(64, SEED);
    let keys = colliding_keys(&table, WAYS + 1);
    for key in &keys[..WAYS] {
        insert(&mut table, key, 0);
    }
    for key in &keys[1..WAYS] {
        let slot = table.lookup(key, 100).unwrap();
        table.touch(slot, 1, 1, 100);
    }
    let now_s = IDLE_OTHER_S + 1;
    insert(&mut table, &keys[WAYS], now_s);
    assert_eq!(table.evicted(), 0);
    assert!(
        keys[1..]
            .iter()
            .all(|key| table.lookup(key, now_s).is_some())
    );
}

#[test]
fn each_protocol_has_its_own_idle_time() {
    for (protocol, idle_s) in [
        (6, IDLE_TCP_S),
        (17, IDLE_OTHER_S),
        (1, IDLE_OTHER_S),
        (58, IDLE_OTHER_S),
    ] {
        let mut table = FlowTable::create(64, SEED);
        insert(&mut table, &key(1, protocol), 50);
        assert!(table.lookup(&key(1, protocol), 50 + idle_s).is_some());
        assert!(table.table().find(&key(1, protocol), 50 + idle_s).is_some());
        assert_eq!(table.lookup(&key(1, protocol), 51 + idle_s), None);
        assert_eq!(table.table().find(&key(1, protocol), 51 + idle_s), None);
        assert_eq!(table.table().flows(51 + idle_s).count(), 0);
    }
}

#[test]
fn time_wraps_at_24_bits() {
    let mut table = FlowTable::create(64, SEED);
    insert(&mut table, &key(1, 17), SECONDS_MASK);
    assert!(table.lookup(&key(1, 17), SECONDS_MASK + 100).is_some());
    assert_eq!(
        table.lookup(&key(1, 17), SECONDS_MASK + 1 + IDLE_OTHER_S),
        None
    );
}

#[test]
fn a_reader_whose_clock_is_a_second_behind_finds_the_flow() {
    let mut table = FlowTable::create(64, SEED);
    insert(&mut table, &key(1, 17), 100);
    assert!(table.table().find(&key(1, 17), 99).is_some());
}

#[test]
fn a_verdict_counts_for_its_generation_only_and_renewing_keeps_the_traffic() {
    let mut table = FlowTable::create(64, SEED);
    let slot = insert(&mut table, &key(1, 17), 0);
    table.touch(slot, 2, 200, 1);
    let peer_under = |table: &FlowWriter, generation| {
        let hit = table.verdict(slot, Generation(generation));
        hit.map(|hit| hit.peer)
    };
    assert_eq!(peer_under(&table, 1), Some(PeerId(1)));
    assert_eq!(peer_under(&table, 2), None);
    table.renew(slot, PeerId(9), Generation(2));
    assert_eq!(peer_under(&table, 2), Some(PeerId(9)));
    let flow = table.flow(slot);
    assert_eq!(
        (flow.packets, flow.bytes, flow.opened_by),
        (2, 200, OpenedBy::Local)
    );
}

#[test]
fn policy_s_answer_survives_the_entry_beside_every_key() {
    let mut table = FlowTable::create(64, SEED);
    let rules = [
        RuleNumber::NONE,
        RuleNumber(1),
        RuleNumber(RuleNumber::ENTRY_MAX),
    ];
    let denied = rules
        .into_iter()
        .flat_map(|rule| [Passage::Denied(rule), Passage::Cut(rule)]);
    for passage in denied.chain([Passage::Allowed, Passage::Kept]) {
        for opened_by in [OpenedBy::Local, OpenedBy::Remote] {
            let key = key(3, 17);
            let slot = table.insert_judged(&key, PeerId(7), opened_by, passage, Generation(5), 0);
            let flow = table.table().find(&key, 0).expect("it was put there");
            assert_eq!((flow.key, flow.peer), (key, PeerId(7)));
            assert_eq!((flow.opened_by, flow.passage), (opened_by, passage));
            for side in [OpenedBy::Local, OpenedBy::Remote] {
                let hit = table
                    .verdict(slot, Generation(5))
                    .expect("the generation fits");
                assert_eq!(hit.passes(side, false), passage.is_allowed());
                let judged = passage == Passage::Allowed && side == opened_by;
                assert_eq!(hit.passes(side, true), judged, "{passage:?} {side:?}");
            }
        }
    }
    let too_large = Passage::Denied(RuleNumber(RuleNumber::ENTRY_MAX + 1));
    let slot = table.insert_judged(
        &key(4, 6),
        PeerId(1),
        OpenedBy::Local,
        too_large,
        Generation(1),
        0,
    );
    assert_eq!(table.flow(slot).passage, Passage::Denied(RuleNumber::NONE));
}

#[test]
fn class_path_and_clock_live_where_a_denied_flow_has_its_rule() {
    let mut table = FlowTable::create(64, SEED);
    let key = key(1, 17);
    let slot = table.insert(&key, PeerId(7), OpenedBy::Local, Generation(5), 0);
    for (class, path) in [(7, 15), (0, 0), (5, 9)] {
        let steer = Steer::new(ClassId(class), PathIndex(path));
        table.steer(slot, steer);
        assert_eq!(table.flow(slot).steer, steer);
        let sent = steer.sent(PathIndex(path ^ 1), 8191 + 8192 * 3);
        table.touch_sent(slot, 2, 100, 1, sent);
        table.touch(slot, 1, 100, 1);
        let hit = table.verdict(slot, Generation(5)).expect("it is fresh");
        assert_eq!(hit.steer, sent);
        assert_eq!(
            (sent.class(), sent.path()),
            (ClassId(class), PathIndex(path ^ 1))
        );
        assert_eq!(
            sent.silent_ms(8191 + 8192 * 3 + 7),
            7,
            "round the end of the clock"
        );
        assert_eq!(sent.in_class(ClassId(3)).class(), ClassId(3));
        assert!(hit.passes(OpenedBy::Local, true));
    }
    let rule = RuleNumber(12);
    let denied = Passage::Cut(rule);
    table.judge(slot, PeerId(7), OpenedBy::Local, denied, Generation(6));
    assert_eq!(table.flow(slot).passage, denied, "the rule takes its place");
    assert_eq!(table.flow(slot).steer, Steer::default());
}

#[test]
fn a_denied_flow_gives_way_before_an_allowed_one_that_is_older() {
    let mut table = FlowTable::create(8, SEED);
    for number in 0..7 {
        insert(&mut table, &key(number, 6), number);
    }
    let denied = Passage::Denied(RuleNumber(1));
    let mut deny = |number, now_s| {
        table.insert_judged(
            &key(number, 6),
            PeerId(1),
            OpenedBy::Remote,
            denied,
            Generation(1),
            now_s,
        )
    };
    for number in 100..200 {
        deny(number, number);
    }
    for number in 0..7 {
        assert!(table.lookup(&key(number, 6), 200).is_some(), "{number}");
    }
    assert!(table.lookup(&key(199, 6), 200).is_some());
}

#[test]
#[should_panic(expected = "flow slots: 12")]
fn a_size_that_is_no_power_of_two_is_refused() {
    FlowTable::create(12, 0);
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32, u8, u32),
    Touch(u32, u8, u32),
    Renew(u32, u8, u64),
    Wait(u32),
}

fn any_op() -> impl Strategy<Value = Op> {
    let protocol = || prop_oneof![Just(6u8), Just(17)];
    prop_oneof![
        4 => (0u32..600, protocol(), 0u32..50).prop_map(|(n, p, peer)| Op::Insert(n, p, peer)),
        4 => (0u32..600, protocol(), 1u32..9).prop_map(|(n, p, packets)| Op::Touch(n, p, packets)),
        1 => (0u32..600, protocol(), 1u64..4).prop_map(|(n, p, generation)| Op::Renew(n, p, generation)),
        1 => (0u32..4000).prop_map(Op::Wait),
    ]
}

proptest! {
    /// The table is a map with forgetting: what it finds is what the map holds, and it forgets only idle entries
    /// and those it counted as evicted.
    #[test]
    fn the_table_equals_a_map_that_forgets(ops in proptest::collection::vec(any_op(), 1..400)) {
        let mut table = FlowTable::create(256, SEED);
        let mut oracle: HashMap<FlowKey, Flow> = HashMap::new();
        let mut now_s = 0;
        for op in ops {
            match op {
                Op::Insert(number, protocol, peer) => {
                    let key = key(number, protocol);
                    table.insert(&key, PeerId(peer), OpenedBy::Local, Generation(1), now_s);
                    let flow = Flow {
                        key,
                        peer: PeerId(peer),
                        opened_by: OpenedBy::Local,
                        passage: Passage::Allowed,
                        steer: Steer::default(),
                        generation: 1,
                        last_seen_s: now_s,
                        packets: 0,
                        bytes: 0,
                    };
                    oracle.insert(key, flow);
                }
                Op::Touch(number, protocol, packets) => {
                    let key = key(number, protocol);
                    if let Some(slot) = table.lookup(&key, now_s) {
                        table.touch(slot, packets, 100, now_s);
                        let flow = oracle.get_mut(&key).expect("the table invents nothing");
                        flow.packets += packets;
                        flow.bytes += 100;
                        flow.last_seen_s = now_s;
                    }
                }
                Op::Renew(number, protocol, generation) => {
                    let key = key(number, protocol);
                    if let Some(slot) = table.lookup(&key, now_s) {
                        table.renew(slot, PeerId(7), Generation(generation));
                        let flow = oracle.get_mut(&key).expect("the table invents nothing");
                        (flow.peer, flow.generation) = (PeerId(7), generation as u16);
                    }
                }
                Op::Wait(seconds) => now_s += seconds,
            }
        }
        oracle.retain(|_, flow| !is_idle(flow, now_s));
        let mut missing = 0;
        for (key, flow) in &oracle {
            match table.table().find(key, now_s) {
                Some(found) => prop_assert_eq!(&found, flow),
                None => missing += 1,
            }
        }
        prop_assert!(missing <= table.evicted(), "{} missing, {} evicted", missing, table.evicted());
        let listed = table.table().flows(now_s).count();
        prop_assert_eq!(listed as u64, oracle.len() as u64 - missing, "no flow is listed twice");
    }
}

#[test]
fn readers_see_whole_entries_of_the_flow_they_asked_for_while_the_writer_works() {
    // Each entry's fields follow from its key, so a mixture of two entries shows.
    let mut table = FlowTable::create(64, SEED);
    let shared = table.table().clone();
    let done = AtomicBool::new(false);
    let number_of = |key: &FlowKey| u32::from(key.src_port);
    let keys: Vec<_> = (0..500u16)
        .map(|port| FlowKey {
            src_port: port,
            ..key(1, 17)
        })
        .collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut found = 0u64;
                    while !done.load(Atomic::Relaxed) || found == 0 {
                        for key in &keys {
                            let Some(flow) = shared.find(key, 0) else {
                                continue;
                            };
                            assert_eq!(flow.key, *key);
                            assert_eq!(flow.peer.0, number_of(key));
                            assert_eq!(flow.bytes % (u64::from(flow.peer.0) + 1), 0);
                            assert_eq!(
                                flow.bytes / (u64::from(flow.peer.0) + 1),
                                u64::from(flow.packets)
                            );
                            found += 1;
                        }
                        for flow in shared.flows(0) {
                            assert_eq!(flow.peer.0, number_of(&flow.key));
                        }
                    }
                    found
                })
            })
            .collect();
        for _ in 0..200 {
            for key in &keys {
                let peer = PeerId(number_of(key));
                let slot = match table.lookup(key, 0) {
                    Some(slot) => slot,
                    None => table.insert(key, peer, OpenedBy::Local, Generation(1), 0),
                };
                table.touch(slot, 1, u64::from(peer.0) + 1, 0);
            }
        }
        done.store(true, Atomic::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert!(
        table.evicted() > 0,
        "the test is about entries that change hands"
    );
}
