//! The console at work: joins the model to a terminal, a feed, a recorder and the clock.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use patronus_api::{Client, ClientError, FlowsQuery, WatchQuery};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;

use crate::data::News;
use crate::export;
use crate::feed::{self, Feed};
use crate::keymap::{Key, Screen};
use crate::model::{Effect, Look, Message, Model, Request};
use crate::recording::{Recorder, RecordingError, Replay};
use crate::terminal::Terminal;
use crate::theme::Mark;
use crate::view;

/// What a console is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How it looks and what it may do.
    pub look: Look,
    /// A file to record to; it must not exist.
    pub record: Option<PathBuf>,
}

/// How to show a gateway once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceFormat {
    /// The screen as it would be drawn.
    Text,
    /// What the gateway said.
    Json,
    /// The screen's table.
    Csv,
}

/// Why a console cannot go on.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// There is no terminal.
    #[error(
        "the console needs a terminal ({0}); `patronus console --once` writes a screen without one"
    )]
    Terminal(io::Error),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A recording cannot be read.
    #[error("{path}: {source}")]
    Recording {
        /// Which.
        path: PathBuf,
        /// Why.
        source: RecordingError,
    },
    /// The gateway did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing can be shown.
    #[error("{0}")]
    Nothing(String),
}

/// At most 20 pictures a second.
const DRAW_EVERY: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_secs(1);

/// Runs a console until it is quit. The terminal is as it was found on every way out.
///
/// # Errors
/// See [`ConsoleError`].
pub fn run(options: &Options, feed: Box<dyn Feed>) -> Result<(), ConsoleError> {
    let mut recorder = options.record.as_deref().map(record_to).transpose()?;
    // Before the terminal is taken, so that a signal that comes now finds somebody who gives it back.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(ConsoleError::Terminal)?;
    let mut terminal = Terminal::take().map_err(ConsoleError::Terminal)?;
    let (sender, messages) = channel();
    listen(signals, sender.clone());
    let ask = feed.start(sender);
    let mut model = Model::new(options.look);
    let (columns, rows) = terminal.size().map_err(ConsoleError::Terminal)?;
    model.update(Message::Resize(columns, rows));
    turn(
        &mut model,
        &mut terminal,
        &messages,
        &ask,
        recorder.as_mut(),
    )
}

/// Columns and rows of the terminal, where there is one.
pub fn terminal_size() -> Option<(u16, u16)> {
    ratatui::crossterm::terminal::size()
        .ok()
        .filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// Draws, waits, takes what came, until the end.
fn turn(
    model: &mut Model,
    terminal: &mut Terminal,
    messages: &Receiver<Message>,
    ask: &Sender<Request>,
    mut recorder: Option<&mut (PathBuf, Recorder<File>)>,
) -> Result<(), ConsoleError> {
    let begun = Instant::now();
    let now_ms = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut drawn: Option<Instant> = None;
    let mut next_tick = begun;
    let mut is_stale = true;
    loop {
        let now = Instant::now();
        if is_stale && drawn.is_none_or(|at| now >= at + DRAW_EVERY) {
            terminal.draw(model).map_err(ConsoleError::Terminal)?;
            (drawn, is_stale) = (Some(now), false);
        }
        let draw_at = drawn.filter(|_| is_stale).map(|at| at + DRAW_EVERY);
        let until = draw_at.map_or(next_tick, |at| at.min(next_tick));
        let message = match messages.recv_timeout(until.saturating_duration_since(now)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) if Instant::now() < next_tick => continue,
            Err(RecvTimeoutError::Timeout) => {
                next_tick = Instant::now() + TICK;
                Message::Tick(now_ms())
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        is_stale = true;
        if matches!(message, Message::News(News::Snapshot(_))) && model.data().snapshot.is_none() {
            // The first picture with something in it waits for nothing.
            drawn = None;
        }
        if let (Some((path, recorder)), Message::News(news)) = (recorder.as_deref_mut(), &message) {
            recorder
                .add(now_ms(), news)
                .map_err(|source| file_error(path, source))?;
        }
        // Everything that is said for a while needs to know what time it is.
        let mut effects = Vec::new();
        if !matches!(message, Message::Tick(_)) {
            effects.extend(model.update(Message::Tick(now_ms())));
        }
        effects.extend(model.update(message));
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(()),
                // A feed that has ended answers nothing; the console shows what it has.
                Effect::Ask(request) => drop(ask.send(request)),
                Effect::Copy(text) => terminal.copy(&text).map_err(ConsoleError::Terminal)?,
                Effect::Export { path, text } => match write_new(Path::new(&path), &text) {
                    Ok(()) => model.say(Mark::Good, format!("wrote {path}")),
                    Err(error) => model.say(Mark::Bad, format!("{path}: {error}")),
                },
            }
        }
    }
}

/// Keys, sizes and signals.
fn listen(mut signals: Signals, sender: Sender<Message>) {
    let signal_sender = sender.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            if signal_sender.send(Message::Key(Key::Ctrl('c'))).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    Message::Key(Key::of(key))
                }
                Ok(Event::Resize(columns, rows)) => Message::Resize(columns, rows),
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => Message::Key(Key::Ctrl('c')),
            };
            let is_end = message == Message::Key(Key::Ctrl('c'));
            if sender.send(message).is_err() || is_end {
                return;
            }
        }
    });
}

/// Shows a gateway once, as text or as what it said, without a terminal.
///
/// # Errors
/// See [`ConsoleError`].
pub fn once(
    look: Look,
    size: (u16, u16),
    socket: &Path,
    format: OnceFormat,
) -> Result<String, ConsoleError> {
    let client = Client::connect(socket)?;
    let mut model = Model::new(look);
    model.update(Message::Resize(size.0, size.1));
    let query = WatchQuery {
        interval_ms: None,
        count: Some(1),
    };
    let snapshot = client.watch(&query)?.next_snapshot()?;
    let snapshot =
        snapshot.ok_or_else(|| ConsoleError::Nothing("the gateway said nothing".to_owned()))?;
    model.update(Message::News(News::Snapshot(Box::new(snapshot))));
    let question = match look.screen {
        Screen::Flows => Some(Request::Flows(FlowsQuery::default())),
        Screen::Policy => Some(Request::Rules),
        Screen::Overview | Screen::Paths | Screen::Peers | Screen::Workers | Screen::Events => None,
    };
    if let Some(question) = question {
        let news = feed::ask(&client, &question)?;
        model.update(Message::News(news));
    }
    show(&model, format)
}

/// Shows the end of a recording once.
///
/// # Errors
/// See [`ConsoleError`].
pub fn once_replayed(
    look: Look,
    size: (u16, u16),
    path: &Path,
    format: OnceFormat,
) -> Result<String, ConsoleError> {
    let mut replay = open_recording(path)?;
    let mut model = Model::new(look);
    model.update(Message::Resize(size.0, size.1));
    let failed = |source| ConsoleError::Recording {
        path: path.to_owned(),
        source,
    };
    while let Some((at_ms, news)) = replay.next_news().map_err(failed)? {
        model.update(Message::Tick(at_ms));
        model.update(Message::News(news));
    }
    show(&model, format)
}

fn show(model: &Model, format: OnceFormat) -> Result<String, ConsoleError> {
    match format {
        OnceFormat::Text => Ok(view::text(model)),
        OnceFormat::Json => export::json(model).map_err(ConsoleError::Nothing),
        OnceFormat::Csv => Ok(export::csv(model)),
    }
}

/// A recording that is told as it was recorded.
#[derive(Debug)]
pub struct ReplayFeed {
    path: PathBuf,
    replay: Replay<BufReader<File>>,
}

impl ReplayFeed {
    /// Opens a recording.
    ///
    /// # Errors
    /// [`ConsoleError::Recording`].
    pub fn open(path: &Path) -> Result<Self, ConsoleError> {
        let replay = open_recording(path)?;
        Ok(Self {
            path: path.to_owned(),
            replay,
        })
    }
}

impl Feed for ReplayFeed {
    fn start(mut self: Box<Self>, news: Sender<Message>) -> Sender<Request> {
        let (ask, asked) = channel::<Request>();
        let answers = news.clone();
        thread::spawn(move || {
            let begun = Instant::now();
            loop {
                let next = match self.replay.next_news() {
                    Ok(Some((at_ms, next))) => {
                        thread::sleep(Duration::from_millis(at_ms).saturating_sub(begun.elapsed()));
                        next
                    }
                    Ok(None) => News::Lost("the recording has ended".to_owned()),
                    Err(error) => News::Lost(format!("{}: {error}", self.path.display())),
                };
                let is_last = matches!(next, News::Lost(_));
                if news.send(Message::News(next)).is_err() || is_last {
                    return;
                }
            }
        });
        thread::spawn(move || {
            while let Ok(request) = asked.recv() {
                // What screens ask by themselves is in the recording, or is not.
                if matches!(request, Request::Flows(_) | Request::Rules) {
                    continue;
                }
                let why = "a recording answers no questions and takes no orders".to_owned();
                if answers.send(Message::News(News::Refused(why))).is_err() {
                    return;
                }
            }
        });
        ask
    }
}

fn open_recording(path: &Path) -> Result<Replay<BufReader<File>>, ConsoleError> {
    let file = File::open(path).map_err(|source| file_error(path, source))?;
    let replay = Replay::new(BufReader::new(file));
    replay.map_err(|source| ConsoleError::Recording {
        path: path.to_owned(),
        source,
    })
}

fn record_to(path: &Path) -> Result<(PathBuf, Recorder<File>), ConsoleError> {
    let file = File::create_new(path).map_err(|source| file_error(path, source))?;
    let recorder = Recorder::new(file).map_err(|source| file_error(path, source))?;
    Ok((path.to_owned(), recorder))
}

/// Never over a file that is there.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())
}

fn file_error(path: &Path, source: io::Error) -> ConsoleError {
    ConsoleError::File {
        path: path.to_owned(),
        source,
    }
}
