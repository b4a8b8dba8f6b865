//! Every screen as text, from a recording of three sites. Times are the recording's, so nothing has to be left out.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::{look, model, press};
use patronus_tui::{Glyphs, Look, Screen, Theme, ThemeName, draw, text};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_screen_is_drawn_as_it_was() {
    for (columns, rows) in [(80, 24), (120, 36)] {
        for screen in Screen::ALL {
            let model = model(Look { screen, ..look() }, (columns, rows));
            let name = format!("{}-{columns}x{rows}", screen.title().to_lowercase());
            settings().bind(|| insta::assert_snapshot!(name, text(&model)));
        }
    }
}

#[test]
fn ascii_screens_are_ascii_but_for_names() {
    for screen in Screen::ALL {
        let look = Look {
            screen,
            glyphs: Glyphs::new(true),
            ..look()
        };
        let shown = text(&model(look, (80, 24)));
        assert!(shown.is_ascii(), "{}:\n{shown}", screen.title());
    }
}

#[test]
fn screens_without_colours_say_the_same() {
    for screen in Screen::ALL {
        let texts: Vec<String> = ThemeName::ALL
            .iter()
            .map(|name| {
                text(&model(
                    Look {
                        screen,
                        theme: Theme::new(*name),
                        ..look()
                    },
                    (100, 30),
                ))
            })
            .collect();
        assert!(
            texts.windows(2).all(|pair| pair[0] == pair[1]),
            "{}",
            screen.title()
        );
    }
    let plain = Look {
        theme: Theme::new(ThemeName::Plain),
        ..look()
    };
    let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
    draw(&model(plain, (80, 24)), &mut buffer);
    let is_plain = |color: ratatui::style::Color| color == ratatui::style::Color::Reset;
    assert!(
        buffer
            .content
            .iter()
            .all(|cell| is_plain(cell.fg) && is_plain(cell.bg))
    );
}

#[test]
fn lines_never_end_beyond_the_terminal() {
    for (columns, rows) in [(80, 24), (81, 25), (97, 31), (120, 36), (200, 60)] {
        for screen in Screen::ALL {
            let shown = text(&model(Look { screen, ..look() }, (columns, rows)));
            assert_eq!(shown.lines().count(), usize::from(rows));
            for line in shown.lines() {
                assert!(line.chars().count() <= usize::from(columns), "{line}");
            }
        }
    }
}

#[test]
fn a_small_terminal_is_told_what_is_needed() {
    let shown = text(&model(look(), (60, 10)));
    assert!(
        shown.starts_with("60x10: the console needs 80x24"),
        "{shown}"
    );
}

#[test]
fn a_script_of_keys_over_the_whole_console() {
    let mut model = model(
        Look {
            can_write: true,
            ..look()
        },
        (80, 24),
    );
    let mut film = String::new();
    for keys in [
        "?", "?", "2", "jD", "n", "l", "+", "3", "sS", "4", "j", "5", "x", "\u{8}", "6", "7", "f",
        "1",
    ] {
        if keys == "\u{8}" {
            model.update(patronus_tui::Message::Key(patronus_tui::Key::Named(
                ratatui::crossterm::event::KeyCode::Esc,
            )));
        } else {
            press(&mut model, keys);
        }
        film.push_str(&format!("== {}\n{}", keys.escape_default(), text(&model)));
    }
    settings().bind(|| insta::assert_snapshot!("script", film));
}
