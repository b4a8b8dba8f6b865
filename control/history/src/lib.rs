//! What happened last night: samples of a gateway, one every ten seconds for a day, on disk and bounded.
//!
//! One thread owns the file. Who has a sample puts it into a short queue and never waits: a disk that is slow, full or
//! read-only costs samples, which are counted, and nothing else. Questions go the same way and their answers come back
//! over a channel. Knows nothing of gateways: a sample is a time and values under names.
//!
//! The file is SQLite. A sample is one row of packed numbers, so that a day of a thousand series stays under 64 MiB;
//! its size is bounded by SQLite itself, and where the bound is reached the oldest samples make room. A file that is
//! damaged is moved aside, once, and a new one begun.

mod file;
mod store;

pub use store::{
    Answer, History, Metric, Notice, Point, Question, Sample, Series, Settings, State, Status,
};

/// Seconds from one sample to the next.
pub const SAMPLE_INTERVAL_S: u64 = 10;
/// Samples that are kept: a day.
pub const SAMPLES_MAX: u64 = 8640;
/// Series in a sample; more are left out and counted.
pub const SERIES_MAX: usize = 1024;
/// Bytes of the file.
pub const BYTES_MAX: u64 = 64 << 20;
/// The version of the tables that this program writes.
pub const SCHEMA_VERSION: i64 = 1;
