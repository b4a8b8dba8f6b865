//! What keys and news do to the console, from a recording.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::{look, model, news, press};
use patronus_api::PathCommand;
use patronus_tui::{
    Action, BINDINGS, Effect, Key, Look, Message, Model, News, Order, PromptKind, Request, Screen,
    text,
};
use proptest::prelude::*;
use ratatui::crossterm::event::KeyCode;

const SIZE: (u16, u16) = (80, 24);

fn key(model: &mut Model, code: KeyCode) -> Vec<Effect> {
    model.update(Message::Key(Key::Named(code)))
}

fn writing() -> Look {
    Look {
        can_write: true,
        ..look()
    }
}

#[test]
fn numbers_and_tabs_switch_screens() {
    let mut model = model(look(), SIZE);
    for (number, screen) in ('1'..).zip(Screen::ALL) {
        press(&mut model, &number.to_string());
        assert_eq!(model.screen, screen);
    }
    key(&mut model, KeyCode::Tab);
    assert_eq!(model.screen, Screen::Overview);
    key(&mut model, KeyCode::BackTab);
    assert_eq!(model.screen, Screen::Events);
}

#[test]
fn escape_never_quits_and_q_and_ctrl_c_do() {
    let mut model = model(look(), SIZE);
    for _ in 0..5 {
        assert_eq!(key(&mut model, KeyCode::Esc), []);
    }
    assert_eq!(press(&mut model, "q"), [Effect::Quit]);
    // Whatever is open.
    press(&mut model, "/");
    assert_eq!(model.update(Message::Key(Key::Ctrl('c'))), [Effect::Quit]);
}

#[test]
fn a_filter_narrows_the_rows_until_escape() {
    let mut model = model(look(), SIZE);
    press(&mut model, "7");
    let all = model.rows().len();
    press(&mut model, "/handshake");
    assert_eq!(model.prompt.as_ref().unwrap().kind, PromptKind::Filter);
    key(&mut model, KeyCode::Enter);
    let some = model.rows();
    assert!(
        !some.is_empty() && some.len() < all,
        "{} of {all}",
        some.len()
    );
    assert!(text(&model).contains("filter: handshake"));
    key(&mut model, KeyCode::Esc);
    assert_eq!(model.rows().len(), all);
}

#[test]
fn typing_is_not_dispatched() {
    let mut model = model(look(), SIZE);
    press(&mut model, "/q2");
    assert_eq!(
        (model.screen, model.prompt.clone().unwrap().text),
        (Screen::Overview, "q2".to_owned())
    );
    key(&mut model, KeyCode::Backspace);
    assert_eq!(model.prompt.clone().unwrap().text, "q");
    key(&mut model, KeyCode::Esc);
    assert_eq!(model.prompt, None);
}

#[test]
fn a_held_picture_does_not_move_and_shows_the_latest_when_let_go() {
    let all = news();
    let snapshots = || {
        all.iter()
            .filter(|(_, news)| matches!(news, News::Snapshot(_)))
    };
    let mut model = Model::new(look());
    let mut told = snapshots();
    model.update(Message::News(told.next().unwrap().1.clone()));
    press(&mut model, "f");
    let held = text(&model);
    assert!(held.contains("frozen"));
    for (_, news) in told {
        model.update(Message::News(news.clone()));
    }
    assert_eq!(text(&model), held);
    press(&mut model, "f");
    let last = snapshots().next_back().unwrap().1.clone();
    let News::Snapshot(last) = last else {
        unreachable!()
    };
    assert_eq!(model.data().snapshot, Some(last));
}

#[test]
fn a_read_only_console_changes_nothing_and_says_how_to() {
    let mut model = model(look(), SIZE);
    press(&mut model, "2");
    for letter in ["P", "U", "D", "C"] {
        assert_eq!(press(&mut model, letter), []);
        assert!(text(&model).contains("--write"), "{letter}");
        assert_eq!(press(&mut model, "y"), []);
    }
}

#[test]
fn an_order_goes_out_after_y_and_after_nothing_else() {
    let mut model = model(writing(), SIZE);
    press(&mut model, "2");
    assert_eq!(press(&mut model, "D"), []);
    assert!(text(&model).contains("drain "), "{}", text(&model));
    assert_eq!(press(&mut model, "n"), []);
    assert_eq!(press(&mut model, "y"), []);
    press(&mut model, "P");
    let effects = press(&mut model, "y");
    let [Effect::Ask(Request::Order(Order::Path { peer, request, .. }))] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(Some(peer.as_str()), model.site_shown());
    let selected = model.selected().unwrap().id;
    let number = selected.rsplit('/').next().map(str::to_owned);
    assert_eq!(
        (request.command, &request.path),
        (PathCommand::Pin, &number)
    );
}

#[test]
fn flows_and_rules_are_asked_for_on_their_screens_only_and_one_at_a_time() {
    let mut model = Model::new(look());
    model.update(Message::News(news().swap_remove(0).1));
    assert_eq!(model.update(Message::Tick(1000)), []);
    let first = press(&mut model, "4");
    assert!(
        matches!(&first[..], [Effect::Ask(Request::Flows(_))]),
        "{first:?}"
    );
    assert_eq!(
        model.update(Message::Tick(3000)),
        [],
        "the answer is still to come"
    );
    press(&mut model, "/port=443");
    let filtered = key(&mut model, KeyCode::Enter);
    let [Effect::Ask(Request::Flows(query))] = &filtered[..] else {
        panic!("{filtered:?}")
    };
    assert_eq!(query.filter.as_deref(), Some("port=443"));
    model.update(Message::News(News::Refused(
        "filter: no such term".to_owned(),
    )));
    assert!(text(&model).contains("no such term"));
    let rules = press(&mut model, "5");
    assert_eq!(rules, [Effect::Ask(Request::Rules)]);
}

#[test]
fn a_connection_is_explained_and_a_malformed_one_is_asked_for_again() {
    let mut model = model(look(), SIZE);
    press(&mut model, "5x10.1.0.5 10.2.0.5");
    assert_eq!(key(&mut model, KeyCode::Enter), []);
    assert_eq!(model.prompt.as_ref().unwrap().text, "10.1.0.5 10.2.0.5");
    press(&mut model, " tcp/443");
    let effects = key(&mut model, KeyCode::Enter);
    let [Effect::Ask(Request::Explain(asked))] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((asked.protocol.as_str(), asked.port), ("tcp", Some(443)));
}

#[test]
fn a_screen_is_exported_by_the_ending_of_the_name() {
    let mut model = model(look(), SIZE);
    press(&mut model, "6");
    for (ending, part) in [
        ("txt", "Workers"),
        ("json", "\"workers\""),
        ("csv", "worker,core,busy"),
    ] {
        press(&mut model, "e");
        model.update(Message::Key(Key::Ctrl('u')));
        press(&mut model, &format!("out.{ending}"));
        let effects = key(&mut model, KeyCode::Enter);
        let [Effect::Export { path, text }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(*path, format!("out.{ending}"));
        assert!(text.contains(part), "{text}");
    }
    press(&mut model, "e");
    model.update(Message::Key(Key::Ctrl('u')));
    press(&mut model, "out.pdf");
    assert_eq!(key(&mut model, KeyCode::Enter), []);
    assert!(text(&model).contains(".txt, .json or .csv"));
}

#[test]
fn opening_a_site_shows_its_paths() {
    let mut model = model(look(), SIZE);
    press(&mut model, "3G");
    let peer = model.selected().unwrap().id;
    key(&mut model, KeyCode::Enter);
    assert_eq!(
        (model.screen, model.site_shown()),
        (Screen::Paths, Some(peer.as_str()))
    );
}

#[test]
fn a_lost_gateway_is_said_and_its_last_picture_stays() {
    let mut model = model(look(), SIZE);
    model.update(Message::News(News::Lost("connection refused".to_owned())));
    let shown = text(&model);
    assert!(
        shown.contains("lost for") && shown.contains("Throughput"),
        "{shown}"
    );
    let mut fresh = Model::new(look());
    fresh.update(Message::News(News::Lost("connection refused".to_owned())));
    assert!(text(&fresh).contains("cannot be reached: connection refused"));
}

#[test]
fn names_of_others_cannot_write_to_the_terminal() {
    let mut model = model(look(), SIZE);
    let mut snapshot = model.data().snapshot.clone().unwrap();
    snapshot.peers[0].peer = "\x1b[2Jevil\r\n\u{9b}31m".to_owned();
    snapshot.status.site = "\x1b]0;title\x07".to_owned();
    model.update(Message::News(News::Snapshot(snapshot)));
    for screen in Screen::ALL {
        model.screen = screen;
        let shown = text(&model);
        assert!(
            !shown.chars().any(|char| char.is_control() && char != '\n'),
            "{shown:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is pressed in whatever order at whatever size: the console draws, and only `q` and Ctrl-C end it.
    #[test]
    fn no_keys_break_it(
        steps in prop::collection::vec((0..BINDINGS.len() + 6, any::<u8>()), 1..60),
        columns in 1u16..200,
        rows in 1u16..60,
        can_write: bool,
    ) {
        let mut model = model(Look { can_write, ..look() }, (columns, rows));
        for (step, byte) in steps {
            let key = match BINDINGS.get(step) {
                Some(binding) => binding.keys[usize::from(byte) % binding.keys.len()],
                None => [
                    Key::Named(KeyCode::Enter),
                    Key::Named(KeyCode::Backspace),
                    Key::Char(char::from(byte)),
                    Key::Char('y'),
                    Key::Char('ß'),
                    Key::Named(KeyCode::F(1)),
                ][step - BINDINGS.len()],
            };
            let is_typing = model.prompt.is_some() || model.pending.is_some() || model.overlay.is_some();
            let effects = model.update(Message::Key(key));
            let may_quit = key == Key::Ctrl('c') || (!is_typing && key == Key::Char('q'));
            prop_assert_eq!(effects.contains(&Effect::Quit), may_quit, "{:?}", key);
            let drawn = text(&model);
            prop_assert_eq!(drawn.lines().count(), usize::from(rows));
        }
    }
}

#[test]
fn every_action_has_a_key() {
    for action in [
        Action::Freeze,
        Action::Explain,
        Action::Export,
        Action::Meter,
        Action::Quit,
    ] {
        assert!(
            BINDINGS.iter().any(|binding| binding.action == action),
            "{action:?}"
        );
    }
}
