//! The configurations that were applied, numbered, on disk; and which of them a start takes.
//!
//! A folder of texts and an index, both written beside and renamed, so that a power cut leaves the old or the new one. Knows
//! no gateway: the daemon applies, this remembers. A disk that refuses is a reason in [`ConfigStore::problem`] and stops
//! nobody but those who ask for a promise that would not outlive the process.
//!
//! **Whoever ordered last counts.** The index holds the digest of the configuration file at the last order. At a start, a
//! file with another digest was edited since: it is taken. A file that was not touched gives way to the entry in force, which
//! may be another text: an applied candidate that could not be written over the file, or what came back when nobody
//! confirmed. So a text that was reverted is not started by the next boot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use patronus_api::{ConfigEntryView, ConfigFate, ConfigOrigin, ConfigPendingView};
use serde::{Deserialize, Serialize};

/// Entries that are kept.
pub const ENTRIES_MAX: usize = 50;
/// Bytes of all texts that are kept; the newest stays in any case.
pub const BYTES_MAX: u64 = 64 << 20;
/// The index is some 300 bytes an entry.
const INDEX_LEN_MAX: u64 = 1 << 20;
const INDEX: &str = "index.json";
const VERSION: u32 = 1;

/// A moment, on the clock that neither steps nor stands still in suspend, and on the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Which boot of the machine this is; empty where the system does not tell.
    pub boot: String,
    /// Milliseconds since that boot.
    pub boot_ms: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        let clock = |id: nix::time::ClockId| {
            let time = id.now().unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
            std::time::Duration::from(time).as_millis() as u64
        };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            boot: boot.trim().to_owned(),
            boot_ms: clock(nix::time::ClockId::CLOCK_BOOTTIME),
            unix_ms: clock(nix::time::ClockId::CLOCK_REALTIME),
        }
    }
}

/// Why something cannot be recorded or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refuses.
    #[error("{}: {source}", .path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No such entry.
    #[error("no entry {0} in the history")]
    NoEntry(u64),
    /// The text of an entry is not what it was.
    #[error("the text of entry {0} was changed on disk")]
    Changed(u64),
    /// Nothing is recorded.
    #[error("no history is kept: {0}")]
    Off(String),
}

/// What is on disk beside the texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    version: u32,
    /// The last number that was given away.
    last: u64,
    /// The entry in force. While one waits for its confirmation, it is that one.
    running: Option<u64>,
    /// Digest of the configuration file at the last order.
    seen: Option<String>,
    pending: Option<Pending>,
    /// The oldest first.
    entries: Vec<ConfigEntryView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    number: u64,
    previous: u64,
    boot: String,
    deadline_boot_ms: u64,
    deadline_unix_ms: u64,
}

/// Which text a start takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The file.
    File,
    /// This entry, which the file gave way to.
    Entry(u64),
    /// This entry, which waits for its confirmation.
    Pending(u64),
}

/// A text that was ordered.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The text.
    pub text: &'a str,
    /// How it came.
    pub origin: ConfigOrigin,
    /// Who ordered it.
    pub uid: Option<u32>,
    /// What it is called.
    pub source: String,
}

/// The history of one gateway.
#[derive(Debug)]
pub struct ConfigStore {
    dir: PathBuf,
    index: Index,
    problem: Option<String>,
    /// Held as long as this lives; without it nothing is recorded.
    lock: Option<Flock<File>>,
    /// Texts to delete once the index has forgotten them.
    forgotten: Vec<u64>,
}

impl ConfigStore {
    /// The history in `dir`, which is made if it is missing. What cannot be read is moved aside, never deleted.
    pub fn open(dir: &Path) -> Self {
        let mut store = Self {
            dir: dir.to_owned(),
            index: Index::default(),
            problem: None,
            lock: None,
            forgotten: Vec::new(),
        };
        let mut builder = fs::DirBuilder::new();
        if let Err(error) = builder.recursive(true).mode(0o700).create(dir) {
            store.problem = Some(format!("cannot make {}: {error}", dir.display()));
            return store;
        }
        match lock(dir) {
            Ok(lock) => store.lock = Some(lock),
            Err(why) => {
                store.problem = Some(format!("cannot use {}: {why}", dir.display()));
                return store;
            }
        }
        match read_index(&dir.join(INDEX)) {
            Ok(index) => store.index = index,
            Err(why) => {
                let aside = dir.join(format!("{INDEX}.damaged"));
                let moved = fs::rename(dir.join(INDEX), &aside);
                let what = match moved {
                    Ok(()) => format!("it is {} now", aside.display()),
                    Err(error) => error.to_string(),
                };
                store.problem = Some(format!("the index was damaged ({why}): {what}"));
                // Numbers are never used twice, also where nobody knows what they were.
                store.index.last = last_number(dir);
            }
        }
        store
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why nothing can be recorded, where that is so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether anything can be recorded, as far as is known.
    pub fn is_open(&self) -> bool {
        self.lock.is_some()
    }

    /// The entry in force.
    pub fn running(&self) -> Option<u64> {
        self.index.running
    }

    /// The entry that was in force before that one.
    pub fn before_running(&self) -> Option<u64> {
        let entry = self.entry(self.index.running?)?;
        entry.previous.filter(|it| self.entry(*it).is_some())
    }

    /// The entries, the newest first.
    pub fn entries(&self) -> Vec<ConfigEntryView> {
        self.index.entries.iter().rev().cloned().collect()
    }

    /// What waits for its confirmation.
    pub fn pending(&self, now: &Now) -> Option<ConfigPendingView> {
        let pending = self.index.pending.as_ref()?;
        Some(ConfigPendingView {
            number: pending.number,
            previous: pending.previous,
            left_s: pending.left_ms(now).div_ceil(1000),
            deadline_unix_ms: pending.deadline_unix_ms,
        })
    }

    /// Whether something waits for its confirmation.
    pub fn has_pending(&self) -> bool {
        self.index.pending.is_some()
    }

    /// Whether what waits for its confirmation has waited long enough. After a boot of the machine it has: whoever turned it
    /// off and on wanted the old configuration back.
    pub fn is_overdue(&self, now: &Now) -> bool {
        let pending = self.index.pending.as_ref();
        pending.is_some_and(|it| it.left_ms(now) == 0)
    }

    /// The text of an entry.
    ///
    /// # Errors
    /// [`StoreError::NoEntry`], [`StoreError::Changed`], [`StoreError::Disk`].
    pub fn text(&self, number: u64) -> Result<String, StoreError> {
        let entry = self.entry(number).ok_or(StoreError::NoEntry(number))?;
        let path = self.path(number);
        let disk = |source| StoreError::Disk {
            path: path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(disk)?;
        file.take(patronus_config::load::TEXT_LEN_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(disk)?;
        match String::from_utf8(bytes) {
            Ok(text) if digest(&text) == entry.sha256 => Ok(text),
            Ok(_) | Err(_) => Err(StoreError::Changed(number)),
        }
    }

    /// Whether a text like this can be had again from the history.
    pub fn holds(&self, sha256: &str) -> bool {
        let mut entries = self.index.entries.iter();
        entries.any(|it| it.sha256 == sha256 && self.text(it.number).is_ok())
    }

    /// Whether the file was left alone since the last order.
    pub fn is_seen(&self, file: &str) -> bool {
        self.index.seen.as_deref() == Some(digest(file).as_str())
    }

    /// Which text a start takes, with `file` on disk.
    pub fn choose(&self, file: &str, now: &Now) -> Choice {
        if let Some(pending) = &self.index.pending {
            return match pending.left_ms(now) {
                0 => self.choose_kept(file, Some(pending.previous)),
                _ => Choice::Pending(pending.number),
            };
        }
        self.choose_kept(file, self.index.running)
    }

    fn choose_kept(&self, file: &str, running: Option<u64>) -> Choice {
        let Some(entry) = running.and_then(|it| self.entry(it)) else {
            return Choice::File;
        };
        match self.is_seen(file) && entry.sha256 != digest(file) {
            true => Choice::Entry(entry.number),
            false => Choice::File,
        }
    }

    /// A text is in force, for good; its number. `file` is what is on disk, where an order concerns it. The same text again
    /// is the same entry.
    ///
    /// # Errors
    /// [`StoreError::Disk`], [`StoreError::Off`]: it is in force all the same, and remembered in memory.
    pub fn record(
        &mut self,
        order: &Order<'_>,
        file: Option<&str>,
        now: &Now,
    ) -> Result<u64, StoreError> {
        let number = self.add(order, ConfigFate::Kept, now)?;
        self.index.running = Some(number);
        self.index.pending = None;
        self.see(file);
        self.save().map(|()| number)
    }

    /// A text is about to be in force until `deadline_ms` from here; nothing is to be applied where this fails.
    ///
    /// # Errors
    /// [`StoreError::Disk`], [`StoreError::Off`]: nothing changed then.
    pub fn begin(
        &mut self,
        order: &Order<'_>,
        file: Option<&str>,
        patience_ms: u64,
        now: &Now,
    ) -> Result<u64, StoreError> {
        let previous = self.index.running;
        let previous = previous.ok_or_else(|| self.off("what runs is not recorded"))?;
        let before = self.index.clone();
        let number = self.add(order, ConfigFate::Pending, now)?;
        self.index.running = Some(number);
        self.index.pending = Some(Pending {
            number,
            previous,
            boot: now.boot.clone(),
            deadline_boot_ms: now.boot_ms.saturating_add(patience_ms),
            deadline_unix_ms: now.unix_ms.saturating_add(patience_ms),
        });
        self.see(file);
        let saved = self.save();
        if saved.is_err() {
            let _ = fs::remove_file(self.path(number));
            self.index = before;
            self.forgotten.clear();
        }
        saved.map(|()| number)
    }

    /// What waits is kept.
    ///
    /// # Errors
    /// [`StoreError::Disk`]: it goes on waiting.
    pub fn confirm(&mut self) -> Result<(), StoreError> {
        let before = self.index.clone();
        if let Some(pending) = self.index.pending.take() {
            self.set_fate(pending.number, ConfigFate::Kept);
        }
        let saved = self.save();
        if saved.is_err() {
            self.index = before;
        }
        saved
    }

    /// What waits is not in force any more; the entry that is.
    ///
    /// # Errors
    /// [`StoreError::Disk`]: it is remembered in memory, and a start comes to the same end by the deadline.
    pub fn revert(&mut self, fate: ConfigFate) -> Result<Option<u64>, StoreError> {
        if let Some(pending) = self.index.pending.take() {
            self.set_fate(pending.number, fate);
            self.index.running = Some(pending.previous);
        }
        self.save().map(|()| self.index.running)
    }

    /// The file on disk is this from here on, by our own hand.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn saw(&mut self, file: &str) -> Result<(), StoreError> {
        self.see(Some(file));
        self.save()
    }

    fn see(&mut self, file: Option<&str>) {
        if let Some(file) = file {
            self.index.seen = Some(digest(file));
        }
    }

    fn set_fate(&mut self, number: u64, fate: ConfigFate) {
        let mut entries = self.index.entries.iter_mut();
        if let Some(entry) = entries.find(|it| it.number == number) {
            entry.fate = fate;
        }
    }

    fn add(&mut self, order: &Order<'_>, fate: ConfigFate, now: &Now) -> Result<u64, StoreError> {
        if self.lock.is_none() {
            return Err(self.off("there is no folder for it"));
        }
        let sha256 = digest(order.text);
        let running = self.index.running.and_then(|it| self.entry(it));
        if let Some(entry) = running
            && entry.sha256 == sha256
            && fate == ConfigFate::Kept
        {
            return Ok(entry.number);
        }
        let number = self.index.last + 1;
        let written = write_whole(&self.path(number), order.text.as_bytes());
        written.map_err(|error| self.failed(error))?;
        self.index.last = number;
        self.index.entries.push(ConfigEntryView {
            number,
            unix_ms: now.unix_ms,
            origin: order.origin,
            uid: order.uid,
            source: order.source.clone(),
            previous: self.index.running,
            bytes: order.text.len() as u64,
            sha256,
            fate,
        });
        self.make_room(number);
        Ok(number)
    }

    /// The oldest make room; not what is in force, nor what comes back.
    fn make_room(&mut self, newest: u64) {
        let held = [
            Some(newest),
            self.index.running,
            self.index.pending.as_ref().map(|it| it.previous),
        ];
        loop {
            let bytes: u64 = self.index.entries.iter().map(|it| it.bytes).sum();
            if self.index.entries.len() <= ENTRIES_MAX && bytes <= BYTES_MAX {
                return;
            }
            let mut entries = self.index.entries.iter();
            let Some(at) = entries.position(|it| !held.contains(&Some(it.number))) else {
                return;
            };
            let entry = self.index.entries.remove(at);
            self.forgotten.push(entry.number);
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        if self.lock.is_none() {
            return Err(self.off("there is no folder for it"));
        }
        self.index.version = VERSION;
        let bytes = serde_json::to_vec_pretty(&self.index).unwrap_or_default();
        let saved = write_whole(&self.dir.join(INDEX), &bytes);
        saved.map_err(|error| self.failed(error))?;
        self.problem = None;
        for number in std::mem::take(&mut self.forgotten) {
            let _ = fs::remove_file(self.path(number));
        }
        Ok(())
    }

    fn failed(&mut self, error: StoreError) -> StoreError {
        self.problem = Some(error.to_string());
        error
    }

    fn off(&self, why: &str) -> StoreError {
        StoreError::Off(self.problem.clone().unwrap_or_else(|| why.to_owned()))
    }

    fn entry(&self, number: u64) -> Option<&ConfigEntryView> {
        let mut entries = self.index.entries.iter();
        entries.find(|it| it.number == number)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:06}.toml"))
    }
}

impl Pending {
    /// By the clock since boot, which nobody sets.
    fn left_ms(&self, now: &Now) -> u64 {
        match self.boot == now.boot && !now.boot.is_empty() {
            true => self.deadline_boot_ms.saturating_sub(now.boot_ms),
            false => 0,
        }
    }
}

/// SHA-256 in hex.
pub fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect()
}

/// Writes a file beside its place and moves it there, so that a power cut leaves the old or the new one.
///
/// # Errors
/// [`StoreError::Disk`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_whole_as(path, bytes, None)
}

/// The same with these permission bits, user and group; 0600 and this process's if absent.
///
/// # Errors
/// [`StoreError::Disk`].
pub fn write_whole_as(
    path: &Path,
    bytes: &[u8],
    like: Option<(u32, u32, u32)>,
) -> Result<(), StoreError> {
    let disk = |source| StoreError::Disk {
        path: path.to_owned(),
        source,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    let written = (|| {
        // What an earlier try left behind.
        let _ = fs::remove_file(&beside);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        if let Some((mode, uid, gid)) = like {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            let bits = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o777);
            file.set_permissions(bits)?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(disk)
}

fn read_index(path: &Path) -> Result<Index, String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let read = file.take(INDEX_LEN_MAX).read_to_end(&mut bytes);
            read.map_err(|error| error.to_string())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
        Err(error) => return Err(error.to_string()),
    }
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match index.version {
        VERSION => Ok(index),
        other => Err(format!("made by another version of this program: {other}")),
    }
}

/// So that two gateways do not write one history.
fn lock(dir: &Path) -> Result<Flock<File>, String> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(dir.join("lock"));
    let file = file.map_err(|error| error.to_string())?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => {
            "another gateway uses it: give each its own [site] state_dir".to_owned()
        }
        other => other.to_string(),
    })
}

/// The highest number of a text in the folder.
fn last_number(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|it| {
        let name = it.file_name();
        name.to_str()?.strip_suffix(".toml")?.parse::<u64>().ok()
    });
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
#[path = "config_store_tests.rs"]
mod tests;
