//! Which key does what: the one list from which dispatch, the hints at the foot, the help overlay and the manual page are
//! made, so that they cannot differ.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The seven screens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Screen {
    /// Is it well?
    #[default]
    Overview,
    /// Why this link?
    Paths,
    /// Is the tunnel up?
    Peers,
    /// What is this connection doing?
    Flows,
    /// Which rule?
    Policy,
    /// Is a core the limit?
    Workers,
    /// What happened?
    Events,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Shows a screen.
    Show(Screen),
    /// The next screen.
    NextScreen,
    /// The one before.
    LastScreen,
    /// Down by one row.
    Down,
    /// Up by one row.
    Up,
    /// Down by a page.
    PageDown,
    /// Up by a page.
    PageUp,
    /// The first row.
    First,
    /// The last row.
    Last,
    /// The next object of the kind that the screen is about.
    Next,
    /// The one before.
    Previous,
    /// Opens what is selected.
    Open,
    /// Back: closes what is open, forgets a filter. Never quits.
    Back,
    /// Asks for a filter.
    Filter,
    /// Sorts by the next column.
    Sort,
    /// Turns the order round.
    Reverse,
    /// Holds the picture.
    Freeze,
    /// Shows less time.
    ZoomIn,
    /// Shows more time.
    ZoomOut,
    /// Shows the usual time.
    ZoomReset,
    /// Explains what is selected.
    Explain,
    /// Copies the connection to the clipboard.
    Copy,
    /// Writes the screen to a file.
    Export,
    /// Shows what keys there are.
    Help,
    /// Ends the console.
    Quit,
    /// Pins a path.
    Pin,
    /// Undoes pins.
    Unpin,
    /// Drains a path, or undoes that.
    Drain,
    /// Forgets penalties of a path.
    Clear,
    /// Meters the stages of the workers.
    Meter,
}

/// A key of a keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A character, shifted where it is one that is shifted.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// Another key.
    Named(KeyCode),
}

/// Where a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On every screen.
    Everywhere,
    /// On these.
    On(&'static [Screen]),
}

/// One line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The keys, the one to show first.
    pub keys: &'static [Key],
    /// What they do.
    pub action: Action,
    /// Where.
    pub scope: Scope,
    /// How the keys are written.
    pub label: &'static str,
    /// What they do, in words.
    pub words: &'static str,
    /// A shorter word for the foot of the screen; empty where there is no room for it.
    pub hint: &'static str,
    /// Whether it changes the gateway: needs `--write`, and asks twice.
    pub changes: bool,
}

/// Every key.
pub const BINDINGS: &[Binding] = &[
    everywhere(
        &[Key::Char('1')],
        Action::Show(Screen::Overview),
        "1",
        "overview: is it well?",
        "",
    ),
    everywhere(
        &[Key::Char('2')],
        Action::Show(Screen::Paths),
        "2",
        "paths: why this link?",
        "",
    ),
    everywhere(
        &[Key::Char('3')],
        Action::Show(Screen::Peers),
        "3",
        "peers: is the tunnel up?",
        "",
    ),
    everywhere(
        &[Key::Char('4')],
        Action::Show(Screen::Flows),
        "4",
        "flows: what does this connection do?",
        "",
    ),
    everywhere(
        &[Key::Char('5')],
        Action::Show(Screen::Policy),
        "5",
        "policy: which rule?",
        "",
    ),
    everywhere(
        &[Key::Char('6')],
        Action::Show(Screen::Workers),
        "6",
        "workers: is a core the limit?",
        "",
    ),
    everywhere(
        &[Key::Char('7')],
        Action::Show(Screen::Events),
        "7",
        "events: what happened?",
        "",
    ),
    everywhere(
        &[Key::Named(KeyCode::Tab)],
        Action::NextScreen,
        "Tab",
        "next screen",
        "",
    ),
    everywhere(
        &[Key::Named(KeyCode::BackTab)],
        Action::LastScreen,
        "Shift-Tab",
        "screen before",
        "",
    ),
    everywhere(
        &[Key::Named(KeyCode::Down), Key::Char('j')],
        Action::Down,
        "↓ j",
        "down",
        "select",
    ),
    everywhere(
        &[Key::Named(KeyCode::Up), Key::Char('k')],
        Action::Up,
        "↑ k",
        "up",
        "",
    ),
    everywhere(
        &[Key::Named(KeyCode::PageDown), Key::Ctrl('d')],
        Action::PageDown,
        "PgDn Ctrl-D",
        "a page down",
        "",
    ),
    everywhere(
        &[Key::Named(KeyCode::PageUp), Key::Ctrl('u')],
        Action::PageUp,
        "PgUp Ctrl-U",
        "a page up",
        "",
    ),
    everywhere(
        &[Key::Char('g'), Key::Named(KeyCode::Home)],
        Action::First,
        "g Home",
        "first row",
        "",
    ),
    everywhere(
        &[Key::Char('G'), Key::Named(KeyCode::End)],
        Action::Last,
        "G End",
        "last row",
        "",
    ),
    on(
        PATHS,
        &[Key::Named(KeyCode::Right), Key::Char('l')],
        Action::Next,
        "→ l",
        "next site",
        "site",
    ),
    on(
        PATHS,
        &[Key::Named(KeyCode::Left), Key::Char('h')],
        Action::Previous,
        "← h",
        "site before",
        "",
    ),
    on(
        OPENING,
        &[Key::Named(KeyCode::Enter)],
        Action::Open,
        "Enter",
        "open what is selected",
        "open",
    ),
    everywhere(
        &[Key::Named(KeyCode::Esc)],
        Action::Back,
        "Esc",
        "back; forget the filter",
        "",
    ),
    everywhere(
        &[Key::Char('/')],
        Action::Filter,
        "/",
        "filter the rows",
        "filter",
    ),
    everywhere(
        &[Key::Char('s')],
        Action::Sort,
        "s",
        "sort by the next column",
        "sort",
    ),
    everywhere(
        &[Key::Char('S')],
        Action::Reverse,
        "S",
        "turn the order round",
        "",
    ),
    everywhere(
        &[Key::Char('f')],
        Action::Freeze,
        "f",
        "hold the picture, or go on",
        "freeze",
    ),
    on(
        CHARTED,
        &[Key::Char('+')],
        Action::ZoomIn,
        "+",
        "show less time",
        "",
    ),
    on(
        CHARTED,
        &[Key::Char('-')],
        Action::ZoomOut,
        "-",
        "show more time",
        "",
    ),
    on(
        CHARTED,
        &[Key::Char('=')],
        Action::ZoomReset,
        "=",
        "show five minutes",
        "",
    ),
    on(
        EXPLAINED,
        &[Key::Char('x')],
        Action::Explain,
        "x",
        "explain: which rule decides, and why",
        "explain",
    ),
    on(
        FLOWS,
        &[Key::Char('c')],
        Action::Copy,
        "c",
        "copy the connection",
        "",
    ),
    everywhere(
        &[Key::Char('e')],
        Action::Export,
        "e",
        "export .txt, .json or .csv",
        "export",
    ),
    changing(
        PATHS,
        &[Key::Char('P')],
        Action::Pin,
        "P",
        "pin every class to this path",
        "pin",
    ),
    changing(
        PATHS,
        &[Key::Char('U')],
        Action::Unpin,
        "U",
        "undo the pins of this site",
        "unpin",
    ),
    changing(
        PATHS,
        &[Key::Char('D')],
        Action::Drain,
        "D",
        "drain this path, or undo that",
        "drain",
    ),
    changing(
        PATHS,
        &[Key::Char('C')],
        Action::Clear,
        "C",
        "forget this path's penalties",
        "",
    ),
    changing(
        WORKERS,
        &[Key::Char('T')],
        Action::Meter,
        "T",
        "meter the stages for a minute",
        "stages",
    ),
    everywhere(&[Key::Char('?')], Action::Help, "?", "this help", "help"),
    everywhere(
        &[Key::Char('q'), Key::Ctrl('c')],
        Action::Quit,
        "q Ctrl-C",
        "quit",
        "quit",
    ),
];

const PATHS: &[Screen] = &[Screen::Paths];
const FLOWS: &[Screen] = &[Screen::Flows];
const WORKERS: &[Screen] = &[Screen::Workers];
const CHARTED: &[Screen] = &[Screen::Overview, Screen::Paths];
const OPENING: &[Screen] = &[Screen::Overview, Screen::Peers, Screen::Events];
const EXPLAINED: &[Screen] = &[Screen::Flows, Screen::Policy];

/// What a key does on a screen.
pub fn action(screen: Screen, key: Key) -> Option<Action> {
    let fits = |binding: &&Binding| binding.holds_on(screen) && binding.keys.contains(&key);
    BINDINGS.iter().find(fits).map(|binding| binding.action)
}

/// The binding of an action.
pub fn binding(action: Action) -> Option<&'static Binding> {
    BINDINGS.iter().find(|binding| binding.action == action)
}

/// The bindings of a screen, those that hold everywhere left out.
pub fn of_screen(screen: Screen) -> impl Iterator<Item = &'static Binding> {
    BINDINGS
        .iter()
        .filter(move |binding| binding.scope != Scope::Everywhere && binding.holds_on(screen))
}

/// The bindings that hold on every screen.
pub fn of_all() -> impl Iterator<Item = &'static Binding> {
    BINDINGS
        .iter()
        .filter(|binding| binding.scope == Scope::Everywhere)
}

/// The list as the manual page's section on keys, in roff.
pub fn manual() -> String {
    let mut out = String::from(".SH KEYS\n");
    let mut entry = |binding: &Binding, place: &str| {
        let changes = if binding.changes {
            " Needs \\fB\\-\\-write\\fR, and asks twice."
        } else {
            ""
        };
        let label = roff(binding.label);
        out.push_str(&format!(
            ".TP\n\\fB{label}\\fR{place}\n{}.{changes}\n",
            roff(binding.words)
        ));
    };
    for binding in of_all() {
        entry(binding, "");
    }
    for screen in Screen::ALL {
        for binding in of_screen(screen) {
            entry(binding, &format!(" on {}", screen.title()));
        }
    }
    out
}

fn roff(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-")
}

impl Binding {
    /// Whether it holds there.
    pub fn holds_on(&self, screen: Screen) -> bool {
        match self.scope {
            Scope::Everywhere => true,
            Scope::On(screens) => screens.contains(&screen),
        }
    }
}

impl Key {
    /// The key of a terminal's event.
    pub fn of(event: KeyEvent) -> Self {
        match event.code {
            KeyCode::Char(char) if event.modifiers.contains(KeyModifiers::CONTROL) => {
                Self::Ctrl(char.to_ascii_lowercase())
            }
            KeyCode::Char(char) => Self::Char(char),
            KeyCode::Tab if event.modifiers.contains(KeyModifiers::SHIFT) => {
                Self::Named(KeyCode::BackTab)
            }
            code => Self::Named(code),
        }
    }
}

impl Screen {
    /// Every screen, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Overview,
        Self::Paths,
        Self::Peers,
        Self::Flows,
        Self::Policy,
        Self::Workers,
        Self::Events,
    ];

    /// Its name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Paths => "Paths",
            Self::Peers => "Peers",
            Self::Flows => "Flows",
            Self::Policy => "Policy",
            Self::Workers => "Workers",
            Self::Events => "Events",
        }
    }

    /// The screen of a name, however it is capitalised.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|it| it.title().eq_ignore_ascii_case(name))
    }

    /// Its place, from 0.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|it| *it == self).unwrap_or(0)
    }

    /// The one so many places on, round the end.
    #[must_use]
    pub fn moved(self, by: isize) -> Self {
        let len = Self::ALL.len() as isize;
        Self::ALL[(self.index() as isize + by).rem_euclid(len) as usize]
    }
}

const fn everywhere(
    keys: &'static [Key],
    action: Action,
    label: &'static str,
    words: &'static str,
    hint: &'static str,
) -> Binding {
    let scope = Scope::Everywhere;
    Binding {
        keys,
        action,
        scope,
        label,
        words,
        hint,
        changes: false,
    }
}

const fn on(
    screens: &'static [Screen],
    keys: &'static [Key],
    action: Action,
    label: &'static str,
    words: &'static str,
    hint: &'static str,
) -> Binding {
    let scope = Scope::On(screens);
    Binding {
        keys,
        action,
        scope,
        label,
        words,
        hint,
        changes: false,
    }
}

const fn changing(
    screens: &'static [Screen],
    keys: &'static [Key],
    action: Action,
    label: &'static str,
    words: &'static str,
    hint: &'static str,
) -> Binding {
    let scope = Scope::On(screens);
    Binding {
        keys,
        action,
        scope,
        label,
        words,
        hint,
        changes: true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_does_two_things_on_a_screen() {
        for screen in Screen::ALL {
            let mut seen = HashSet::new();
            for binding in BINDINGS.iter().filter(|binding| binding.holds_on(screen)) {
                for key in binding.keys {
                    assert!(seen.insert(*key), "{key:?} twice on {}", screen.title());
                }
            }
        }
    }

    #[test]
    fn every_binding_says_what_it_does_and_is_found_by_each_of_its_keys() {
        for binding in BINDINGS {
            assert!(
                !binding.words.is_empty() && !binding.label.is_empty(),
                "{binding:?}"
            );
            for screen in Screen::ALL
                .into_iter()
                .filter(|screen| binding.holds_on(*screen))
            {
                for key in binding.keys {
                    assert_eq!(action(screen, *key), Some(binding.action));
                }
            }
        }
    }

    #[test]
    fn what_changes_the_gateway_has_a_capital_letter() {
        for binding in BINDINGS.iter().filter(|binding| binding.changes) {
            for key in binding.keys {
                assert!(
                    matches!(key, Key::Char(char) if char.is_ascii_uppercase()),
                    "{binding:?}"
                );
            }
        }
    }

    #[test]
    fn the_manual_has_every_binding() {
        let manual = manual();
        for binding in BINDINGS {
            assert!(manual.contains(&roff(binding.words)), "{binding:?}");
        }
    }

    #[test]
    fn screens_go_round() {
        assert_eq!(Screen::Events.moved(1), Screen::Overview);
        assert_eq!(Screen::Overview.moved(-1), Screen::Events);
        assert_eq!(Screen::named("paths"), Some(Screen::Paths));
    }
}
