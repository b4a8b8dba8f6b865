//! What threads share without locks, in every order of loads and stores that the memory model allows a writer and a
//! reader: loom runs each model thousands of times, and hands a load each value that it may see, stale ones too.
//!
//! A build of its own, see the feature `loom`. Without any one of the cell's four orderings, its test of the sequence
//! or the table's comparison of keys, models here fail; whoever changes one of them tries that again.
//!
//! The writer is the thread that a model begins with. Loom remembers the last access to a word and no earlier
//! one, so it overlooks a reader's load that comes before the writer's own load and store of the same word. It first
//! runs a model with the least switching, the writer to its end, and finds all orders from there.

use std::net::Ipv4Addr;
use std::sync::Arc;

use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use patronus_engine::flow_table::FlowWriter;
use patronus_engine::seqlock::SeqCell;
use patronus_engine::{Flow, FlowTable, Generation, OpenedBy, PeerId};
use patronus_packet::FlowKey;

/// Switches from a thread that could go on. One finds every fault tried (see above), because stale values need none;
/// two take ten times as long: `LOOM_MAX_PREEMPTIONS=2`.
const PREEMPTIONS: usize = 1;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
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
        let read = Arc::clone(&cell);
        let reader = thread::spawn(move || {
            let first = read.read().map(value);
            let second = read.read().map(value);
            if let (Some(first), Some(second)) = (first, second) {
                assert!(first <= second, "{second} after {first}");
            }
        });
        cell.write(words(1));
        cell.write(words(2));
        reader.join().unwrap();
        assert_eq!(cell.read().map(value), Some(2));
    });
}

#[test]
fn a_reader_that_begins_after_a_write_sees_it_or_a_newer_one() {
    model(|| {
        let cell = Arc::new(SeqCell::<3>::default());
        let completed = Arc::new(AtomicU64::new(0));
        let (read, completes) = (Arc::clone(&cell), Arc::clone(&completed));
        let reader = thread::spawn(move || {
            let before = completes.load(Ordering::Acquire);
            match read.read().map(value) {
                Some(found) => assert!(found >= before, "{found} after {before}"),
                None => assert!(before < 2, "no reader gives up while nobody writes"),
            }
        });
        for number in 1..=2 {
            cell.write(words(number));
            completed.store(number, Ordering::Release);
        }
        reader.join().unwrap();
    });
}

const SEED: u64 = 0x5eed;
/// The writer's time, by which a flow of second 0 is idle, and the readers', a second behind: to them both the old
/// flow and the new one are in use, so that only the key tells them apart.
const WRITER_S: u32 = 181;
const READER_S: u32 = 180;

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
    let hosts = (2..=u16::MAX).flat_map(|port| {
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

/// A table of one bucket with one flow, last seen in second 0.
fn table_with(key: &FlowKey) -> (FlowWriter, Arc<FlowTable>) {
    let mut writer = FlowTable::create(8, SEED);
    insert(&mut writer, key, 0);
    let table = Arc::clone(writer.table());
    (writer, table)
}

fn insert(writer: &mut FlowWriter, key: &FlowKey, now_s: u32) {
    writer.insert(key, peer_of(key), OpenedBy::Local, Generation(1), now_s);
}

fn assert_whole(flow: Flow) {
    assert_eq!(flow.peer, peer_of(&flow.key), "a mixture of two flows");
}

/// An entry goes from an idle flow to another one, while a reader looks for one of them.
fn an_entry_changes_hands(flows: [FlowKey; 2], wanted: usize) {
    model(move || {
        let [old, new] = flows;
        let (mut writer, table) = table_with(&old);
        let completed = Arc::new(AtomicU64::new(0));
        let completes = Arc::clone(&completed);
        let reader = thread::spawn(move || {
            let is_complete = completes.load(Ordering::Acquire) == 1;
            let found = table.find(&flows[wanted], READER_S);
            if let Some(flow) = found {
                assert_eq!(flow.key, flows[wanted], "another flow than asked for");
                assert_whole(flow);
            }
            if is_complete {
                assert_eq!(found.is_some(), wanted == 1);
            }
        });
        insert(&mut writer, &new, WRITER_S);
        completed.store(1, Ordering::Release);
        reader.join().expect("the reader finds nothing wrong");
        let found = |key| writer.table().find(key, READER_S).map(|flow| flow.key);
        assert_eq!((found(&old), found(&new)), (None, Some(new)));
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
    let [old, new] = two_flows(false);
    model(move || {
        let (mut writer, table) = table_with(&old);
        let reader = thread::spawn(move || {
            let listed = table.flows(READER_S).map(assert_whole).count();
            assert!(listed <= 1, "one entry is listed twice");
        });
        insert(&mut writer, &new, WRITER_S);
        reader.join().unwrap();
        assert_eq!(writer.table().flows(READER_S).count(), 1);
    });
}
