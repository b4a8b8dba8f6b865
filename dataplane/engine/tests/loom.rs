//! What threads share without locks, in every order of loads and stores that the memory model allows a writer and a
//! reader: loom runs each model thousands of times, and hands a load each value that it may see, stale ones too.
//!
//! A build of its own, see the feature `loom`. Each ordering and each comparison has a model that fails without it;
//! whoever changes one tries that again.

use std::net::Ipv4Addr;
use std::sync::Arc;

use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use patronus_engine::seqlock::SeqCell;
use patronus_engine::{Flow, FlowTable, Generation, OpenedBy, PeerId};
use patronus_packet::FlowKey;

/// Switches from a thread that could go on. The known failures of sequence locks need two: into a write and out
/// of it; one more is margin.
const PREEMPTIONS: usize = 3;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(body);
}

/// Words that all follow from one value.
fn words(value: u64) -> [u64; 3] {
    [value << 32, value, !value]
}

/// The value that words were made from.
fn value(found: [u64; 3]) -> u64 {
    // A cell begins as zeros.
    assert!(
        found == [0; 3] || found == words(found[1]),
        "half a write: {found:x?}"
    );
    found[1]
}

#[test]
fn a_reader_sees_no_half_write_and_never_goes_back() {
    model(|| {
        let cell = Arc::new(SeqCell::<3>::default());
        let written = Arc::clone(&cell);
        let writer = thread::spawn(move || {
            written.write(words(1));
            written.write(words(2));
        });
        let first = cell.read().map(value);
        let second = cell.read().map(value);
        if let (Some(first), Some(second)) = (first, second) {
            assert!(first <= second, "{second} after {first}");
        }
        writer.join().unwrap();
        assert_eq!(cell.read().map(value), Some(2));
    });
}

#[test]
fn a_reader_that_begins_after_a_write_sees_it_or_a_newer_one() {
    model(|| {
        let cell = Arc::new(SeqCell::<3>::default());
        let completed = Arc::new(AtomicU64::new(0));
        let (written, completes) = (Arc::clone(&cell), Arc::clone(&completed));
        let writer = thread::spawn(move || {
            for number in 1..=2 {
                written.write(words(number));
                completes.store(number, Ordering::Release);
            }
        });
        let before = completed.load(Ordering::Acquire);
        match cell.read().map(value) {
            Some(found) => assert!(found >= before, "{found} after {before}"),
            None => assert!(before < 2, "no reader gives up while nobody writes"),
        }
        writer.join().unwrap();
    });
}

const SEED: u64 = 0x5eed;
const IDLE_S: u32 = 1_000;

fn key(port: u16) -> FlowKey {
    FlowKey {
        src: Ipv4Addr::new(10, 0, 0, 1).into(),
        dst: Ipv4Addr::new(10, 1, 0, 1).into(),
        src_port: port,
        dst_port: 53,
        protocol: 17,
    }
}

/// Two flows whose tags in the table, the upper 16 bits of their hashes, are equal or not.
fn two_flows(equal_tags: bool) -> [FlowKey; 2] {
    let tag = |key: &FlowKey| key.symmetric_hash(SEED) >> 48;
    let hosts = (1..=u16::MAX).flat_map(|port| {
        (0..16).map(move |host| FlowKey {
            dst: Ipv4Addr::new(10, 1, 1, host).into(),
            ..key(port)
        })
    });
    let first = key(1);
    let mut others = hosts.filter(|other| (tag(other) == tag(&first)) == equal_tags);
    [
        first,
        others.next().expect("16 times as many flows as tags"),
    ]
}

fn peer_of(key: &FlowKey) -> PeerId {
    PeerId(u32::from(key.src_port))
}

fn assert_whole(flow: Flow) {
    assert_eq!(flow.peer, peer_of(&flow.key), "a mixture of two flows");
}

/// An entry goes from an idle flow to another one, while a reader looks for one of them.
fn an_entry_changes_hands(flows: [FlowKey; 2], wanted: usize) {
    model(move || {
        let mut writer = FlowTable::create(8, SEED);
        let table = Arc::clone(writer.table());
        let [old, new] = flows;
        writer.insert(&old, peer_of(&old), OpenedBy::Local, Generation(1), 0);
        let completed = Arc::new(AtomicU64::new(0));
        let completes = Arc::clone(&completed);
        let worker = thread::spawn(move || {
            let slot = writer.insert(&new, peer_of(&new), OpenedBy::Remote, Generation(1), IDLE_S);
            completes.store(1, Ordering::Release);
            slot
        });
        let is_complete = completed.load(Ordering::Acquire) == 1;
        // The old flow's reader has not noticed yet how late it is.
        let now_s = [0, IDLE_S][wanted];
        let found = table.find(&flows[wanted], now_s);
        if let Some(flow) = found {
            assert_eq!(flow.key, flows[wanted], "another flow than asked for");
            assert_whole(flow);
        }
        if is_complete {
            assert_eq!(found.is_some(), wanted == 1);
        }
        worker.join().unwrap();
        assert_eq!(table.find(&new, IDLE_S).map(|flow| flow.key), Some(new));
        assert_eq!(table.find(&old, 0), None);
    });
}

#[test]
fn a_reader_never_finds_the_flow_that_took_the_place_of_its_own() {
    an_entry_changes_hands(two_flows(false), 0);
    an_entry_changes_hands(two_flows(true), 0);
}

#[test]
fn a_reader_finds_a_new_flow_whole_or_not_yet() {
    an_entry_changes_hands(two_flows(false), 1);
    an_entry_changes_hands(two_flows(true), 1);
}

#[test]
fn a_list_has_whole_flows_only() {
    model(|| {
        let mut writer = FlowTable::create(8, SEED);
        let table = Arc::clone(writer.table());
        let [old, new] = two_flows(false);
        writer.insert(&old, peer_of(&old), OpenedBy::Local, Generation(1), 0);
        let worker = thread::spawn(move || {
            writer.insert(&new, peer_of(&new), OpenedBy::Remote, Generation(1), IDLE_S);
        });
        table.flows(IDLE_S).for_each(assert_whole);
        worker.join().unwrap();
        assert_eq!(table.flows(IDLE_S).count(), 1);
    });
}
