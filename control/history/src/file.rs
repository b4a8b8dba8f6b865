//! The SQLite file: tables, bounds, and what is done with one that is damaged or full.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use crate::store::{Point, Sample, Series, Settings};
use crate::{SCHEMA_VERSION, SERIES_MAX};

/// Marks a file of ours in SQLite's header (`PRAGMA application_id`): "Patr".
const APPLICATION_ID: i64 = 0x5061_7472;
const PAGE_BYTES: u64 = 4096;
/// Bytes of one value in a row: the number of its series, and the value.
const VALUE_LEN: usize = 8;
/// Where the file is full, this share of the samples makes room at once.
const ROOM_SHARE: u64 = 8;
/// Samples from the future by more than this were taken by a clock that was wrong.
const FUTURE_MAX_MS: i64 = 3_600_000;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no database, or a damaged one.
    #[error("damaged: {0}")]
    Damaged(rusqlite::Error),
    /// A newer program made it.
    #[error(
        "made by a newer version of this program (schema {0}): move it away or run that version"
    )]
    Newer(i64),
    /// Somebody else's database is in its place.
    #[error("a database of another program: move it away, or set [site] state_dir")]
    Foreign,
    /// Another gateway writes it.
    #[error("another gateway uses it: give each its own [site] state_dir")]
    InUse,
    /// The disk, or the bound on its size, leaves no room.
    #[error("no room: free some space")]
    Full,
    /// It cannot be written.
    #[error("{0}")]
    Refused(rusqlite::Error),
}

impl From<rusqlite::Error> for FileError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            _ => Self::Refused(error),
        }
    }
}

/// The open file.
#[derive(Debug)]
pub struct File {
    connection: Connection,
    settings: Settings,
    /// The numbers of series by metric and labels.
    ids: HashMap<(String, String), u32>,
    /// Samples that there are: counting them reads the whole file.
    samples: u64,
}

impl File {
    /// Opens the file, or makes it; checks that it is whole.
    pub fn open(settings: &Settings) -> Result<Self, FileError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&settings.path, flags)?;
        // Held as long as the file is open, so that a second gateway is told and does not mix its samples in.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |it| it.get(0))?;
        let marked: i64 = connection.pragma_query_value(None, "application_id", |it| it.get(0))?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |it| it.get(0))?;
        match (marked, version, tables) {
            (0, 0, 0) => {}
            (APPLICATION_ID, SCHEMA_VERSION, _) => {}
            (APPLICATION_ID, newer, _) => return Err(FileError::Newer(newer)),
            _ => return Err(FileError::Foreign),
        }
        let pages = (settings.bytes_max / PAGE_BYTES).max(16);
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES};
             PRAGMA journal_mode = TRUNCATE;
             PRAGMA synchronous = NORMAL;
             PRAGMA cell_size_check = ON;
             PRAGMA max_page_count = {pages};
             BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS series (
                 id INTEGER PRIMARY KEY, metric TEXT NOT NULL, labels TEXT NOT NULL, seen INTEGER NOT NULL,
                 UNIQUE (metric, labels));
             CREATE TABLE IF NOT EXISTS sample (at INTEGER PRIMARY KEY, packed BLOB NOT NULL);
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {SCHEMA_VERSION};
             COMMIT;"
        ))?;
        let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |it| it.get(0))?;
        if sound != "ok" {
            let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(FileError::Damaged(rusqlite::Error::SqliteFailure(
                damage,
                Some(sound),
            )));
        }
        let mut file = Self {
            connection,
            settings: settings.clone(),
            ids: HashMap::new(),
            samples: 0,
        };
        file.ids = file.known_series()?;
        let samples: i64 = file
            .connection
            .query_row("SELECT count(*) FROM sample", [], |it| it.get(0))?;
        file.samples = u64::try_from(samples).unwrap_or(0);
        Ok(file)
    }

    fn known_series(&self) -> Result<HashMap<(String, String), u32>, FileError> {
        let mut statement = self
            .connection
            .prepare("SELECT metric, labels, id FROM series")?;
        let rows = statement.query_map([], |it| Ok(((it.get(0)?, it.get(1)?), it.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes a sample and forgets what is too old. Returns how many series found no room in it.
    pub fn write(&mut self, sample: &Sample) -> Result<u64, FileError> {
        match self.try_write(sample) {
            Err(FileError::Full) => {
                self.make_room()?;
                self.try_write(sample)
            }
            other => other,
        }
    }

    fn try_write(&mut self, sample: &Sample) -> Result<u64, FileError> {
        let at = i64::try_from(sample.unix_ms).unwrap_or(i64::MAX);
        let kept_ms = i64::try_from(self.settings.samples_max * self.settings.interval_ms)
            .unwrap_or(i64::MAX);
        let oldest = at.saturating_sub(kept_ms);
        let transaction = self.connection.transaction()?;
        let mut packed = Vec::with_capacity(sample.values.len().min(SERIES_MAX) * VALUE_LEN);
        let mut new = Vec::new();
        for (metric, labels, value) in sample.values.iter().take(SERIES_MAX) {
            let key = ((*metric).to_owned(), labels.clone());
            let id = match self.ids.get(&key) {
                Some(id) => *id,
                None => {
                    transaction.execute(
                        "INSERT INTO series (metric, labels, seen) VALUES (?1, ?2, ?3)",
                        params![metric, labels, at],
                    )?;
                    let id = transaction.last_insert_rowid() as u32;
                    new.push((key, id));
                    id
                }
            };
            packed.extend(id.to_le_bytes());
            packed.extend((*value as f32).to_le_bytes());
        }
        let mut gone = transaction.execute("DELETE FROM sample WHERE at = ?1", params![at])?;
        transaction.execute(
            "INSERT INTO sample (at, packed) VALUES (?1, ?2)",
            params![at, packed],
        )?;
        gone += transaction.execute(
            "DELETE FROM sample WHERE at <= ?1 OR at > ?2",
            params![oldest, at.saturating_add(FUTURE_MAX_MS)],
        )?;
        let samples_max = self.settings.samples_max;
        if self.samples + 1 > samples_max + gone as u64 {
            // However often the clock is set, there are no more rows than this.
            gone += transaction.execute(
                "DELETE FROM sample WHERE at <= (SELECT at FROM sample ORDER BY at DESC LIMIT 1 OFFSET ?1)",
                params![i64::try_from(samples_max).unwrap_or(i64::MAX)],
            )?;
        }
        transaction.commit()?;
        self.samples = (self.samples + 1).saturating_sub(gone as u64);
        self.ids.extend(new);
        if self.ids.len() > 2 * SERIES_MAX {
            self.forget_series()?;
        }
        Ok(sample.values.len().saturating_sub(SERIES_MAX) as u64)
    }

    /// Forgets series that no sample has.
    fn forget_series(&mut self) -> Result<(), FileError> {
        let mut used = std::collections::HashSet::new();
        {
            let mut statement = self.connection.prepare("SELECT packed FROM sample")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let packed: Vec<u8> = row.get(0)?;
                used.extend(unpack(&packed).map(|(id, _)| id));
            }
        }
        let transaction = self.connection.transaction()?;
        for id in self.ids.values().filter(|id| !used.contains(id)) {
            transaction.execute("DELETE FROM series WHERE id = ?1", params![id])?;
        }
        transaction.commit()?;
        self.ids.retain(|_, id| used.contains(id));
        Ok(())
    }

    /// Forgets the oldest samples; their pages are used again.
    fn make_room(&mut self) -> Result<(), FileError> {
        let share = (self.samples / ROOM_SHARE).max(1);
        let gone = self.connection.execute(
            "DELETE FROM sample WHERE at IN (SELECT at FROM sample ORDER BY at LIMIT ?1)",
            params![i64::try_from(share).unwrap_or(i64::MAX)],
        )?;
        self.samples = self.samples.saturating_sub(gone as u64);
        Ok(())
    }

    /// Samples that there are.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.settings.path).map_or(0, |it| it.len())
    }

    /// The series of a metric since a time; a point is the mean over `step_ms`.
    pub fn read(
        &self,
        metric: &str,
        label: Option<&str>,
        since_ms: u64,
        step_ms: u64,
    ) -> Result<Vec<Series>, FileError> {
        let mut series: HashMap<u32, Gathered> = HashMap::new();
        let has_label =
            |labels: &str| label.is_none_or(|label| labels.split(',').any(|it| it == label));
        for ((name, labels), id) in &self.ids {
            if name == metric && has_label(labels) {
                series.insert(*id, Gathered::new(labels));
            }
        }
        let mut statement = self
            .connection
            .prepare("SELECT at, packed FROM sample WHERE at >= ?1 ORDER BY at")?;
        let since = i64::try_from(since_ms).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![since])?;
        while let Some(row) = rows.next()? {
            let (at, packed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let at = at.max(0) as u64;
            let span = at.saturating_sub(since_ms) / step_ms.max(1);
            for (id, value) in unpack(&packed) {
                if let Some(gathered) = series.get_mut(&id) {
                    gathered.add(span, at, value);
                }
            }
        }
        let mut told: Vec<Series> = series.into_values().map(Gathered::finish).collect();
        told.retain(|it| !it.points.is_empty());
        told.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(told)
    }
}

/// Points of one series in the making.
#[derive(Debug)]
struct Gathered {
    labels: String,
    points: Vec<Point>,
    /// The span of the last point, its samples, and their sum.
    open: Option<(u64, u32, f64)>,
}

impl Gathered {
    fn new(labels: &str) -> Self {
        Self {
            labels: labels.to_owned(),
            points: Vec::new(),
            open: None,
        }
    }

    fn add(&mut self, span: u64, at: u64, value: f32) {
        let value = f64::from(value);
        if let (Some((last, count, sum)), Some(point)) = (&mut self.open, self.points.last_mut())
            && *last == span
        {
            (*count, *sum) = (*count + 1, *sum + value);
            point.value = *sum / f64::from(*count);
            point.max = point.max.max(value);
            return;
        }
        self.open = Some((span, 1, value));
        self.points.push(Point {
            unix_ms: at,
            value,
            max: value,
        });
    }

    fn finish(self) -> Series {
        Series {
            labels: self.labels,
            points: self.points,
        }
    }
}

/// The values of a row. What is no whole value at its end is left out.
fn unpack(packed: &[u8]) -> impl Iterator<Item = (u32, f32)> {
    packed.chunks_exact(VALUE_LEN).map(|it| {
        let word = |at: usize| [it[at], it[at + 1], it[at + 2], it[at + 3]];
        (u32::from_le_bytes(word(0)), f32::from_le_bytes(word(4)))
    })
}

/// Moves a damaged file out of the way, over the one that was damaged before. Where it lies then.
pub fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    std::fs::rename(path, &aside)?;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    match std::fs::remove_file(journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(aside),
    }
}
