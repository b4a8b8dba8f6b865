//! The thread that owns the file, and the handle of those who put samples in and ask.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::file::{File, FileError, move_aside};
use crate::{BYTES_MAX, SAMPLE_INTERVAL_S, SAMPLES_MAX};

/// Samples and questions that may wait for the thread: more than a minute of samples.
const QUEUE_MAX: usize = 16;
/// How long an answer is waited for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Notices that wait to be told.
const NOTICES_MAX: usize = 16;

/// Where samples go, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file; its folder exists.
    pub path: PathBuf,
    /// Bytes that it may have.
    pub bytes_max: u64,
    /// Samples that are kept.
    pub samples_max: u64,
    /// From one sample to the next: with `samples_max`, how long they are kept.
    pub interval_ms: u64,
}

impl Settings {
    /// A day of samples in `path`.
    pub fn day(path: PathBuf) -> Self {
        Self {
            path,
            bytes_max: BYTES_MAX,
            samples_max: SAMPLES_MAX,
            interval_ms: SAMPLE_INTERVAL_S * 1000,
        }
    }
}

/// What is kept under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it is.
    pub help: &'static str,
}

/// Values at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Metric, labels (`name=value,name=value`) and value.
    pub values: Vec<(&'static str, String, f64)>,
}

/// What somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of this metric.
    pub metric: String,
    /// Only series with this label, `name=value`.
    pub label: Option<String>,
    /// From this time on, in milliseconds since 1970.
    pub since_ms: u64,
    /// The time that one point stands for.
    pub step_ms: u64,
}

/// How one thing went.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is about.
    pub labels: String,
    /// The oldest first.
    pub points: Vec<Point>,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The mean of the samples behind it.
    pub value: f64,
    /// The greatest of them.
    pub max: f64,
}

/// What comes back: the series, or why there are none.
pub type Answer = Result<Vec<Series>, String>;

/// Whether samples are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is no store.
    #[default]
    Off,
    /// They are.
    On,
    /// Not at the moment.
    Failing,
}

/// How the store does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether samples are taken.
    pub state: State,
    /// The file.
    pub path: Option<PathBuf>,
    /// Why none are taken.
    pub reason: Option<String>,
    /// Samples in the file.
    pub samples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Samples that were lost since the start.
    pub dropped: u64,
    /// Values that found no room in their sample.
    pub left_out: u64,
}

/// Something that an operator should hear once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is bad news.
    pub is_bad: bool,
    /// What it is.
    pub text: String,
}

#[derive(Debug)]
enum Job {
    Write(Sample),
    Ask(Question, SyncSender<Answer>),
}

#[derive(Debug, Default)]
struct Shared {
    status: Mutex<Status>,
    notices: Mutex<Vec<Notice>>,
    dropped: AtomicU64,
    left_out: AtomicU64,
}

/// A handle of the store; the thread ends with the last one.
#[derive(Clone, Debug)]
pub struct History {
    jobs: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
}

impl History {
    /// No store, and why.
    pub fn off(reason: impl Into<String>) -> Self {
        let shared = Shared::default();
        lock(&shared.status).reason = Some(reason.into());
        Self {
            jobs: None,
            shared: Arc::new(shared),
        }
    }

    /// Starts the thread, which opens the file. Never waits for the disk: what is wrong with the file stands in
    /// [`status`](Self::status) a moment later.
    pub fn start(settings: Settings) -> Self {
        let shared = Arc::new(Shared::default());
        lock(&shared.status).path = Some(settings.path.clone());
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || Keeper::new(settings, of_thread).run(&queue));
        match thread {
            Ok(_) => Self {
                jobs: Some(jobs),
                shared,
            },
            Err(error) => Self::off(format!("cannot start its thread: {error}")),
        }
    }

    /// Keeps a sample. Where the thread is behind, the sample is lost and counted.
    pub fn put(&self, sample: Sample) {
        let Some(jobs) = &self.jobs else {
            return;
        };
        if jobs.try_send(Job::Write(sample)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks, and waits for the answer: not to be called where waiting is forbidden.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ask(&self, question: Question) -> Answer {
        let Some(jobs) = &self.jobs else {
            let reason = self.status().reason.unwrap_or_default();
            return Err(format!("no history is kept: {reason}"));
        };
        let (reply, answer) = sync_channel(1);
        match jobs.try_send(Job::Ask(question, reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err("the disk does not keep up".to_owned()),
            Err(TrySendError::Disconnected(_)) => return Err("its thread has ended".to_owned()),
        }
        let answer = answer.recv_timeout(ANSWER_PATIENCE);
        answer.unwrap_or_else(|_| Err("the disk does not answer".to_owned()))
    }

    /// How the store does.
    pub fn status(&self) -> Status {
        Status {
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            left_out: self.shared.left_out.load(Ordering::Relaxed),
            ..lock(&self.shared.status).clone()
        }
    }

    /// What is to be told since the last call.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut *lock(&self.shared.notices))
    }
}

/// What the thread has.
struct Keeper {
    settings: Settings,
    shared: Arc<Shared>,
    file: Option<File>,
    /// The reason that was told last.
    told: Option<String>,
}

impl Keeper {
    fn new(settings: Settings, shared: Arc<Shared>) -> Self {
        Self {
            settings,
            shared,
            file: None,
            told: None,
        }
    }

    fn run(mut self, queue: &Receiver<Job>) {
        // Before the first sample, so that last night can be asked for at once.
        let opened = self.file().map(drop);
        self.note(opened);
        while let Ok(job) = queue.recv() {
            match job {
                Job::Write(sample) => {
                    let written = self.write(&sample);
                    if written.is_err() {
                        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    self.note(written);
                }
                Job::Ask(question, reply) => {
                    let answer = self.answer(&question);
                    if matches!(answer, Err(FileError::Damaged(_))) {
                        self.note(answer.as_ref().map(drop).map_err(|_| damage()));
                    }
                    // Who does not wait any more needs no answer.
                    let _ = reply.try_send(answer.map_err(|error| error.to_string()));
                }
            }
        }
    }

    /// The open file; one that is damaged is replaced.
    fn file(&mut self) -> Result<&mut File, FileError> {
        if self.file.is_none() {
            self.file = Some(self.open()?);
        }
        self.file.as_mut().ok_or(FileError::Full)
    }

    fn open(&self) -> Result<File, FileError> {
        match File::open(&self.settings) {
            Err(FileError::Damaged(error)) => {
                self.replace(&error)?;
                File::open(&self.settings)
            }
            other => other,
        }
    }

    fn replace(&self, damage: &rusqlite::Error) -> Result<(), FileError> {
        let path = self.settings.path.display();
        match move_aside(&self.settings.path) {
            Ok(aside) => {
                let aside = aside.display();
                let text = format!(
                    "history {path} was damaged ({damage}): it was moved to {aside}, and a new one begun"
                );
                self.tell(true, text);
                Ok(())
            }
            Err(error) => {
                let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
                let text = format!("it is damaged and cannot be moved away: {error}");
                Err(FileError::Refused(rusqlite::Error::SqliteFailure(
                    damage,
                    Some(text),
                )))
            }
        }
    }

    fn write(&mut self, sample: &Sample) -> Result<(), FileError> {
        let written = self.file()?.write(sample);
        match written {
            Ok(left_out) => {
                self.shared.left_out.fetch_add(left_out, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                // Whatever the reason, the next sample begins with a file that is opened and checked anew.
                self.file = None;
                Err(error)
            }
        }
    }

    fn answer(&mut self, question: &Question) -> Result<Vec<Series>, FileError> {
        let label = question.label.as_deref();
        let answer =
            self.file()?
                .read(&question.metric, label, question.since_ms, question.step_ms);
        if matches!(answer, Err(FileError::Damaged(_))) {
            self.file = None;
        }
        answer
    }

    /// Says how it went, to those who look and, where it changed, to those who listen.
    fn note(&mut self, outcome: Result<(), FileError>) {
        let (samples, bytes) = match &self.file {
            Some(file) => (file.samples(), file.bytes()),
            None => (0, 0),
        };
        let reason = outcome.err().map(|error| error.to_string());
        {
            let mut status = lock(&self.shared.status);
            status.state = match reason {
                None => State::On,
                Some(_) => State::Failing,
            };
            status.reason.clone_from(&reason);
            (status.samples, status.bytes) = (samples, bytes);
        }
        if reason == self.told {
            return;
        }
        let path = self.settings.path.display();
        match &reason {
            Some(reason) => {
                let text = format!("history {path} takes no samples: {reason}");
                self.tell(true, text);
            }
            None => self.tell(false, format!("history {path} takes samples again")),
        }
        self.told = reason;
    }

    fn tell(&self, is_bad: bool, text: String) {
        let mut notices = lock(&self.shared.notices);
        if notices.len() < NOTICES_MAX {
            notices.push(Notice { is_bad, text });
        }
    }
}

fn damage() -> FileError {
    let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    FileError::Damaged(rusqlite::Error::SqliteFailure(damage, None))
}

/// What a panic left behind is as good as before: every change here is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
