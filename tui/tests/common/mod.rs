//! Recordings that the tests look at, and the model that shows them.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]
#![allow(dead_code, reason = "every test uses a part")]

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use patronus_tui::{
    Effect, Glyphs, Key, Look, Message, Model, News, Replay, Screen, Theme, ThemeName,
};

/// Three sites, one with a bad path and one out of reach, policy in force: recorded from `patronus demo`.
pub fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/three-sites.jsonl")
}

pub fn look() -> Look {
    Look {
        theme: Theme::new(ThemeName::Dark),
        glyphs: Glyphs::new(false),
        can_write: false,
        screen: Screen::Overview,
    }
}

/// What a recording says, with its times.
pub fn news() -> Vec<(u64, News)> {
    let mut replay = Replay::new(BufReader::new(File::open(recording()).unwrap())).unwrap();
    std::iter::from_fn(|| replay.next_news().unwrap()).collect()
}

/// A model that has seen the whole recording.
pub fn model(look: Look, size: (u16, u16)) -> Model {
    let mut model = Model::new(look);
    model.update(Message::Resize(size.0, size.1));
    for (at_ms, news) in news() {
        model.update(Message::Tick(at_ms));
        model.update(Message::News(news));
    }
    model
}

/// Presses keys: characters one by one.
pub fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let keys = keys.chars().map(Key::Char);
    keys.flat_map(|key| model.update(Message::Key(key)))
        .collect()
}
