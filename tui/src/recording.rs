//! Recordings: what a gateway said and when, a JSON document a line, to be looked at again.
//!
//! ```text
//! {"format":"patronus-console","version":1}
//! {"at_ms":0,"news":{"snapshot":{…}}}
//! {"at_ms":1003,"news":{"flows":{…}}}
//! ```

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data::News;

/// Writes what comes.
#[derive(Debug)]
pub struct Recorder<W> {
    out: W,
}

/// Reads what was recorded.
#[derive(Debug)]
pub struct Replay<R> {
    input: R,
    line: u64,
}

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("line {line}: {source}")]
    Read {
        /// Which line.
        line: u64,
        /// Why.
        source: std::io::Error,
    },
    /// It is no recording.
    #[error(
        "line 1: this is no recording of a console; `patronus console --record FILE` makes one"
    )]
    Foreign,
    /// It was made by a later version.
    #[error(
        "line 1: the recording has version {version}, and this program reads version 1: use a newer one"
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// A line is too long.
    #[error("line {line}: longer than {LINE_LEN_MAX} bytes")]
    TooLong {
        /// Which line.
        line: u64,
    },
    /// A line is not what it should be.
    #[error("line {line}: {reason}; cut the file before this line to see what comes first")]
    Malformed {
        /// Which line.
        line: u64,
        /// Why.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize)]
struct LineOut<'a> {
    at_ms: u64,
    news: &'a News,
}

#[derive(Deserialize)]
struct LineIn {
    at_ms: u64,
    news: News,
}

const FORMAT: &str = "patronus-console";
const VERSION: u32 = 1;
/// A snapshot, and what stands round it.
const LINE_LEN_MAX: usize = patronus_api::SNAPSHOT_LEN_MAX + 1024;

impl<W: Write> Recorder<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn new(mut out: W) -> std::io::Result<Self> {
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
        };
        serde_json::to_writer(&mut out, &head)?;
        out.write_all(b"\n")?;
        Ok(Self { out })
    }

    /// Adds what came.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn add(&mut self, at_ms: u64, news: &News) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.out, &LineOut { at_ms, news })?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

impl<R: BufRead> Replay<R> {
    /// Opens a recording.
    ///
    /// # Errors
    /// See [`RecordingError`].
    pub fn new(input: R) -> Result<Self, RecordingError> {
        let mut replay = Self { input, line: 0 };
        let head = replay.next_line()?.ok_or(RecordingError::Foreign)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| RecordingError::Foreign)?;
        match (head.format.as_str(), head.version) {
            (FORMAT, VERSION) => Ok(replay),
            (FORMAT, version) => Err(RecordingError::Version { version }),
            _ => Err(RecordingError::Foreign),
        }
    }

    /// What came next, and when, in milliseconds since the recording began; `None` at its end.
    ///
    /// # Errors
    /// See [`RecordingError`].
    pub fn next_news(&mut self) -> Result<Option<(u64, News)>, RecordingError> {
        let Some(line) = self.next_line()? else {
            return Ok(None);
        };
        let line: LineIn =
            serde_json::from_slice(&line).map_err(|error| RecordingError::Malformed {
                line: self.line,
                reason: error.to_string(),
            })?;
        Ok(Some((line.at_ms, line.news)))
    }

    /// The next line that is not empty.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, RecordingError> {
        loop {
            self.line += 1;
            let mut bytes = Vec::new();
            let mut limited = std::io::Read::take(&mut self.input, LINE_LEN_MAX as u64 + 1);
            let read = limited.read_until(b'\n', &mut bytes);
            let len = read.map_err(|source| RecordingError::Read {
                line: self.line,
                source,
            })?;
            if len == 0 {
                return Ok(None);
            }
            if len > LINE_LEN_MAX {
                return Err(RecordingError::TooLong { line: self.line });
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_again() {
        let mut bytes = Vec::new();
        let mut recorder = Recorder::new(&mut bytes).unwrap();
        let all = [
            (0, News::Lost("gone".to_owned())),
            (1500, News::Refused("no".to_owned())),
        ];
        for (at_ms, news) in &all {
            recorder.add(*at_ms, news).unwrap();
        }
        let mut replay = Replay::new(&bytes[..]).unwrap();
        for expected in all {
            assert_eq!(replay.next_news().unwrap(), Some(expected));
        }
        assert_eq!(replay.next_news().unwrap(), None);
    }

    #[test]
    fn what_is_no_recording_is_refused_with_its_line() {
        let open = |text: &'static str| Replay::new(text.as_bytes());
        assert!(matches!(open("").err(), Some(RecordingError::Foreign)));
        assert!(matches!(open("{}\n").err(), Some(RecordingError::Foreign)));
        let later = "{\"format\":\"patronus-console\",\"version\":2}\n";
        assert!(matches!(
            open(later).err(),
            Some(RecordingError::Version { version: 2 })
        ));
        let torn = "{\"format\":\"patronus-console\",\"version\":1}\n\n{\"at_ms\":3,\"ne";
        let error = open(torn).unwrap().next_news().unwrap_err();
        assert!(error.to_string().starts_with("line 3: "), "{error}");
    }
}
