//! The console: a gateway's state on a terminal, live or from a recording.
//!
//! ```text
//! gateway -> feed -> News -> Model::update -> view::draw -> terminal
//!                    keys -/             \\-> Effect -> feed, files, clipboard
//! ```
//!
//! [`Model`] and what draws it are pure: no terminal, no socket, no clock. [`run`] joins them to a terminal and to a
//! source of news. Knows the API's types, and nothing of gateways.

mod canvas;
mod data;
mod export;
mod feed;
mod format;
mod keymap;
mod model;
mod recording;
mod run;
mod screens;
mod table;
mod terminal;
mod theme;
mod tracks;
mod view;

pub use data::{Data, News};
pub use feed::{Feed, GatewayFeed};
pub use keymap::{Action, BINDINGS, Binding, Key, Scope, Screen, manual};
pub use model::{
    Effect, Link, Look, Message, Model, Note, Order, Overlay, Prompt, PromptKind, Request,
};
pub use recording::{Recorder, RecordingError, Replay};
pub use run::{
    ConsoleError, OnceFormat, Options, ReplayFeed, once, once_replayed, run, terminal_size,
};
pub use table::{By, Cell, Column, Row, TableState};
pub use theme::{Glyphs, Mark, Theme, ThemeName};
pub use view::{draw, lines, text};
