//! The history of configurations on a disk that is well, full, read-only or damaged.

use super::*;

fn at(boot: &str, boot_ms: u64) -> Now {
    Now {
        boot: boot.to_owned(),
        boot_ms,
        unix_ms: 1_796_000_000_000 + boot_ms,
    }
}

fn order(text: &str) -> Order<'_> {
    Order {
        text,
        origin: ConfigOrigin::Apply,
        uid: Some(0),
        source: "test.toml".to_owned(),
    }
}

fn opened() -> (tempfile::TempDir, ConfigStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ConfigStore::open(&dir.path().join("config"));
    (dir, store)
}

/// A copy of the folder, as the next process finds it.
struct Again {
    store: ConfigStore,
    _dir: tempfile::TempDir,
}

impl std::ops::Deref for Again {
    type Target = ConfigStore;

    fn deref(&self) -> &ConfigStore {
        &self.store
    }
}

impl std::ops::DerefMut for Again {
    fn deref_mut(&mut self) -> &mut ConfigStore {
        &mut self.store
    }
}

fn again(store: &ConfigStore) -> Again {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(store.dir()).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    Again {
        store: ConfigStore::open(copy.path()),
        _dir: copy,
    }
}

#[test]
fn a_second_gateway_on_the_same_folder_records_nothing() {
    let (_dir, store) = opened();
    let mut second = ConfigStore::open(store.dir());
    assert!(second.problem().unwrap().contains("another gateway"));
    assert!(second.record(&order("one"), None, &at("b", 0)).is_err());
    drop(store);
    drop(second);
}

#[test]
fn what_was_applied_is_there_after_a_restart_with_its_text_and_closed_to_others() {
    let (_dir, mut store) = opened();
    assert_eq!(store.choose("one", &at("b", 0)), Choice::File);
    assert_eq!(
        store
            .record(&order("one"), Some("one"), &at("b", 1))
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .record(&order("two"), Some("two"), &at("b", 2))
            .unwrap(),
        2
    );
    // The same again is no new entry.
    assert_eq!(
        store
            .record(&order("two"), Some("two"), &at("b", 3))
            .unwrap(),
        2
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(store.dir().to_owned()), 0o700);
    assert_eq!(mode(store.path(1)), 0o600);
    assert_eq!(mode(store.dir().join(INDEX)), 0o600);
    let store = again(&store);
    assert_eq!(
        (store.running(), store.before_running()),
        (Some(2), Some(1))
    );
    assert_eq!(store.text(1).unwrap(), "one");
    assert!(matches!(store.text(3), Err(StoreError::NoEntry(3))));
}

#[test]
fn a_start_takes_the_file_where_it_was_edited_since_and_the_running_entry_where_not() {
    let (_dir, mut store) = opened();
    let now = at("b", 0);
    store.record(&order("file"), Some("file"), &now).unwrap();
    // A candidate that could not be written over the file.
    store
        .record(&order("candidate"), Some("file"), &now)
        .unwrap();
    assert_eq!(again(&store).choose("file", &now), Choice::Entry(2));
    assert_eq!(again(&store).choose("candidate", &now), Choice::File);
    assert_eq!(again(&store).choose("edited", &now), Choice::File);
}

#[test]
fn a_start_before_the_deadline_goes_on_with_the_candidate_and_one_behind_it_does_not() {
    let (_dir, mut store) = opened();
    store
        .record(&order("old"), Some("old"), &at("b", 0))
        .unwrap();
    let number = store.begin(&order("new"), Some("old"), 5000, &at("b", 1000));
    assert_eq!(number.unwrap(), 2);
    let mut store = again(&store);
    let pending = store.pending(&at("b", 2000)).unwrap();
    assert_eq!(
        (pending.number, pending.previous, pending.left_s),
        (2, 1, 4)
    );
    assert_eq!(store.choose("old", &at("b", 5999)), Choice::Pending(2));
    assert!(!store.is_overdue(&at("b", 5999)));
    assert!(store.is_overdue(&at("b", 6000)));
    assert_eq!(store.choose("old", &at("b", 6000)), Choice::File);
    // Another boot, or one that cannot be told from another.
    assert_eq!(store.choose("old", &at("c", 1500)), Choice::File);
    assert_eq!(store.choose("old", &at("", 1500)), Choice::File);
    assert_eq!(store.revert(ConfigFate::Reverted).unwrap(), Some(1));
    let store = again(&store);
    assert_eq!(
        (store.running(), store.pending(&at("b", 0))),
        (Some(1), None)
    );
    assert_eq!(store.entries()[0].fate, ConfigFate::Reverted);
}

#[test]
fn a_file_that_was_edited_in_place_and_reverted_is_not_started_by_the_next_boot() {
    let (_dir, mut store) = opened();
    store
        .record(&order("old"), Some("old"), &at("b", 0))
        .unwrap();
    store
        .begin(&order("bad"), Some("bad"), 1000, &at("b", 0))
        .unwrap();
    assert_eq!(again(&store).choose("bad", &at("c", 1)), Choice::Entry(1));
    store.revert(ConfigFate::Reverted).unwrap();
    assert_eq!(again(&store).choose("bad", &at("c", 1)), Choice::Entry(1));
    assert_eq!(again(&store).choose("better", &at("c", 1)), Choice::File);
}

#[test]
fn what_is_confirmed_stays() {
    let (_dir, mut store) = opened();
    store
        .record(&order("old"), Some("old"), &at("b", 0))
        .unwrap();
    store
        .begin(&order("new"), Some("new"), 1000, &at("b", 0))
        .unwrap();
    store.confirm().unwrap();
    let store = again(&store);
    assert!(!store.is_overdue(&at("c", 9999)));
    assert_eq!(store.choose("new", &at("c", 9999)), Choice::File);
    assert_eq!(store.entries()[0].fate, ConfigFate::Kept);
}

#[test]
fn the_oldest_make_room_and_what_runs_or_comes_back_does_not() {
    let (_dir, mut store) = opened();
    store.record(&order("first"), None, &at("b", 0)).unwrap();
    store
        .begin(&order("second"), None, 9000, &at("b", 0))
        .unwrap();
    store.revert(ConfigFate::Reverted).unwrap();
    for at_ms in 0..2 * ENTRIES_MAX as u64 {
        let text = format!("text {at_ms}");
        store.record(&order(&text), None, &at("b", at_ms)).unwrap();
    }
    assert_eq!(store.entries().len(), ENTRIES_MAX);
    let texts = fs::read_dir(store.dir()).unwrap().count();
    assert_eq!(texts, ENTRIES_MAX + 2, "texts, the index and the lock");
    assert!(store.text(1).is_err());
    assert!(store.text(store.running().unwrap()).is_ok());
}

#[test]
fn a_disk_that_refuses_keeps_nobody_from_applying_but_from_promising() {
    let (_dir, mut store) = opened();
    store
        .record(&order("old"), Some("old"), &at("b", 0))
        .unwrap();
    // In the way of what is written, also for root.
    for name in [format!(".{INDEX}.new"), ".000002.toml.new".to_owned()] {
        fs::create_dir(store.dir().join(name)).unwrap();
    }
    let promised = store.begin(&order("new"), Some("new"), 1000, &at("b", 0));
    assert!(matches!(promised, Err(StoreError::Disk { .. })));
    assert_eq!(
        (store.running(), store.pending(&at("b", 0))),
        (Some(1), None)
    );
    assert!(
        store
            .record(&order("new"), Some("new"), &at("b", 0))
            .is_err()
    );
    assert!(store.problem().is_some());
    let disk = again(&store);
    assert_eq!((disk.running(), disk.entries().len()), (Some(1), 1));
}

#[test]
fn a_deadline_that_cannot_be_taken_away_goes_on_running() {
    let (_dir, mut store) = opened();
    store
        .record(&order("old"), Some("old"), &at("b", 0))
        .unwrap();
    store
        .begin(&order("new"), Some("new"), 1000, &at("b", 0))
        .unwrap();
    let in_the_way = store.dir().join(format!(".{INDEX}.new"));
    fs::create_dir(&in_the_way).unwrap();
    assert!(store.confirm().is_err());
    assert!(store.is_overdue(&at("b", 1000)));
    fs::remove_dir(&in_the_way).unwrap();
    store.confirm().unwrap();
    assert!(!store.is_overdue(&at("b", 1000)));
    assert_eq!(store.problem(), None);
}

#[test]
fn a_damaged_index_is_moved_aside_and_no_number_is_given_twice() {
    let (_dir, mut store) = opened();
    store.record(&order("one"), None, &at("b", 0)).unwrap();
    store.record(&order("two"), None, &at("b", 0)).unwrap();
    fs::write(store.dir().join(INDEX), "{\"version\":1,").unwrap();
    let mut store = again(&store);
    assert!(store.problem().unwrap().contains("damaged"));
    assert!(store.dir().join("index.json.damaged").exists());
    assert_eq!(store.record(&order("one"), None, &at("b", 0)).unwrap(), 3);
    fs::write(store.path(3), "changed").unwrap();
    assert!(matches!(store.text(3), Err(StoreError::Changed(3))));
}

#[test]
fn a_folder_that_cannot_be_made_is_said_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut store = ConfigStore::open(&dir.path().join("file/config"));
    assert!(store.problem().is_some());
    assert!(matches!(
        store.record(&order("one"), None, &at("b", 0)),
        Err(StoreError::Off(_))
    ));
    assert_eq!(store.choose("one", &at("b", 0)), Choice::File);
}
