//! Every screen as text, from a recording of three sites. Times are the recording's, so nothing has to be left out.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::{look, model, press};
use patronus_tui::{Action, BINDINGS, Glyphs, Look, Scope, Screen, Theme, ThemeName, draw, text};
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

/// The two columns of the help overlay, each as one text.
fn help_of(screen: Screen) -> (String, String) {
    let look = Look {
        screen,
        can_write: true,
        ..look()
    };
    let mut model = model(look, (80, 24));
    press(&mut model, "?");
    let shown = text(&model);
    let head = shown
        .lines()
        .find(|line| line.contains("On this screen"))
        .unwrap();
    let split = head.find("On this screen").unwrap();
    let split = head[..split].chars().count();
    let column = |from: usize, len: usize| {
        let lines = shown.lines().skip(2);
        let parts = lines.map(|line| line.chars().skip(from).take(len).collect::<String>());
        let words: Vec<String> = parts
            .flat_map(|part| {
                part.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        words.join(" ")
    };
    (column(2, split - 2), column(split, 78 - split))
}

#[test]
fn help_on_the_smallest_terminal_has_every_key_of_the_screen_with_all_its_words() {
    for screen in Screen::ALL {
        let (everywhere, here) = help_of(screen);
        for binding in BINDINGS.iter().filter(|it| it.holds_on(screen)) {
            if matches!(binding.action, Action::Show(_)) {
                continue;
            }
            let column = match binding.scope {
                Scope::Everywhere => &everywhere,
                Scope::On(_) => &here,
            };
            let entry = format!("{} {}", binding.label, binding.words);
            assert!(
                column.contains(&entry),
                "{}: {entry}\n{column}",
                screen.title()
            );
        }
        assert!(everywhere.contains("1 to 7 the screens"), "{everywhere}");
        assert!(here.contains("no data"), "{}: {here}", screen.title());
    }
}

#[test]
fn the_foot_has_every_hint_where_there_is_room_and_help_and_quit_always() {
    for screen in Screen::ALL {
        for can_write in [false, true] {
            let foot = |size| {
                let look = Look {
                    screen,
                    can_write,
                    ..look()
                };
                text(&model(look, size)).lines().last().unwrap().to_owned()
            };
            let (wide, narrow) = (foot((160, 24)), foot((80, 24)));
            for binding in BINDINGS.iter().filter(|it| it.holds_on(screen)) {
                let label = binding.label.split(' ').next().unwrap();
                let hint = format!(" {label} {} ", binding.hint);
                let is_meant = !binding.hint.is_empty() && (can_write || !binding.changes);
                if is_meant {
                    assert!(wide.contains(&hint), "{}: {hint}\n{wide}", screen.title());
                } else if !binding.hint.is_empty() {
                    assert!(!wide.contains(&hint), "{}: {hint}\n{wide}", screen.title());
                }
                if matches!(binding.action, Action::Help | Action::Quit) {
                    assert!(narrow.contains(&hint), "{}: {narrow}", screen.title());
                }
            }
        }
    }
}
