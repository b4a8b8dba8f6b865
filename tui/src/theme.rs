//! Colours by what they mean, and the characters that pictures are made of.
//!
//! State has shape as well as colour, so that it can be read without any ([`Glyphs`]).

use std::fmt;

use patronus_api::GradeView;
use ratatui::style::{Color, Modifier, Style};

/// Which colours to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThemeName {
    /// For a dark background.
    Dark,
    /// For a light one.
    Light,
    /// None at all: bold, reverse and underline only.
    Plain,
}

/// What a piece of the screen means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Text.
    Text,
    /// Text that matters less: units, hints, what is not selected.
    Dim,
    /// Borders and rules.
    Border,
    /// Titles of parts.
    Title,
    /// The screen that is shown, and keys in hints.
    Accent,
    /// The selected row.
    Selected,
    /// As it should be.
    Good,
    /// Worse than it should be.
    Warning,
    /// Something does not work.
    Bad,
    /// Bars and curves.
    Chart,
}

/// Colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    name: ThemeName,
}

/// How good something is, as its mark shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// No data.
    Absent,
    /// Good.
    Good,
    /// A warning.
    Warning,
    /// Bad.
    Bad,
}

/// The characters for marks, borders and bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glyphs {
    is_ascii: bool,
}

impl Theme {
    /// The theme of a name.
    pub fn new(name: ThemeName) -> Self {
        Self { name }
    }

    /// Which one it is.
    pub fn name(self) -> ThemeName {
        self.name
    }

    /// How to write what a slot means.
    pub fn style(self, slot: Slot) -> Style {
        match self.name {
            ThemeName::Plain => Self::plain(slot),
            ThemeName::Dark | ThemeName::Light => {
                let style = Style::new().fg(self.color(slot));
                match slot {
                    Slot::Selected => style.bg(self.selection()),
                    Slot::Title | Slot::Accent => style.add_modifier(Modifier::BOLD),
                    _ => style,
                }
            }
        }
    }

    /// The colour of a mark.
    pub fn mark(self, mark: Mark) -> Style {
        self.style(match mark {
            Mark::Absent => Slot::Dim,
            Mark::Good => Slot::Good,
            Mark::Warning => Slot::Warning,
            Mark::Bad => Slot::Bad,
        })
    }

    /// The background that the colours are chosen for.
    pub fn background(self) -> Color {
        match self.name {
            ThemeName::Light => Color::Rgb(0xff, 0xff, 0xff),
            ThemeName::Dark | ThemeName::Plain => Color::Rgb(0x10, 0x14, 0x18),
        }
    }

    fn selection(self) -> Color {
        match self.name {
            ThemeName::Light => Color::Rgb(0xd6, 0xe4, 0xf5),
            ThemeName::Dark | ThemeName::Plain => Color::Rgb(0x1f, 0x35, 0x4a),
        }
    }

    /// Each has a contrast above 4.5 to 1 with its background, as WCAG 2.2 asks for text.
    fn color(self, slot: Slot) -> Color {
        let is_light = self.name == ThemeName::Light;
        let (dark, light) = match slot {
            Slot::Text => (0xe4e8ec, 0x1c2126),
            Slot::Selected => (0xffffff, 0x0b1a2b),
            Slot::Dim => (0x9aa5b1, 0x596470),
            Slot::Border => (0x7d8894, 0x66717c),
            Slot::Title => (0xd7dee6, 0x22303d),
            Slot::Accent => (0x6cb6ff, 0x0550ae),
            Slot::Good => (0x57d38c, 0x116329),
            Slot::Warning => (0xf0b429, 0x7d4e00),
            Slot::Bad => (0xff8080, 0xb3131b),
            Slot::Chart => (0x56b6c2, 0x0a6570),
        };
        let rgb: u32 = if is_light { light } else { dark };
        let [_, red, green, blue] = rgb.to_be_bytes();
        Color::Rgb(red, green, blue)
    }

    fn plain(slot: Slot) -> Style {
        let style = Style::new();
        match slot {
            Slot::Selected => style.add_modifier(Modifier::REVERSED),
            Slot::Title | Slot::Accent | Slot::Bad => style.add_modifier(Modifier::BOLD),
            Slot::Warning => style.add_modifier(Modifier::UNDERLINED),
            Slot::Text | Slot::Dim | Slot::Border | Slot::Good | Slot::Chart => style,
        }
    }
}

impl Slot {
    /// Every slot.
    pub const ALL: [Self; 10] = [
        Self::Text,
        Self::Dim,
        Self::Border,
        Self::Title,
        Self::Accent,
        Self::Selected,
        Self::Good,
        Self::Warning,
        Self::Bad,
        Self::Chart,
    ];
}

impl ThemeName {
    /// Every theme.
    pub const ALL: [Self; 3] = [Self::Dark, Self::Light, Self::Plain];

    /// What the environment asks for: no colours with `NO_COLOR` (no-color.org) or a `TERM` of `dumb`, a light
    /// background where `COLORFGBG` tells of one.
    pub fn from_environment(var: impl Fn(&str) -> Option<String>) -> Self {
        let is_set = |name| var(name).is_some_and(|value| !value.is_empty());
        if is_set("NO_COLOR") || var("TERM").is_some_and(|term| term == "dumb") {
            return Self::Plain;
        }
        let background = var("COLORFGBG").and_then(|it| {
            it.rsplit(';')
                .next()
                .and_then(|last| last.parse::<u8>().ok())
        });
        match background {
            Some(7 | 9..=15) => Self::Light,
            _ => Self::Dark,
        }
    }
}

impl fmt::Display for ThemeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Plain => "plain",
        })
    }
}

impl Glyphs {
    /// Characters that a terminal with a UTF-8 font has, or ASCII for serial consoles.
    pub fn new(is_ascii: bool) -> Self {
        Self { is_ascii }
    }

    /// The character of a mark.
    pub fn mark(self, mark: Mark) -> &'static str {
        let grade = match mark {
            Mark::Absent => None,
            Mark::Good => Some(GradeView::Good),
            Mark::Warning => Some(GradeView::Warning),
            Mark::Bad => Some(GradeView::Bad),
        };
        GradeView::sign(grade, self.is_ascii)
    }

    /// What stands where nothing was measured.
    pub fn absent(self) -> &'static str {
        self.either("–", "-")
    }

    /// What stands at the end of a text that was cut.
    pub fn cut(self) -> &'static str {
        self.either("…", "~")
    }

    /// Bars from empty to full.
    pub fn levels(self) -> &'static [&'static str; 9] {
        if self.is_ascii {
            &[" ", ".", ".", ":", ":", "=", "=", "#", "#"]
        } else {
            &[" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        }
    }

    /// Horizontal, vertical, the four corners (from the upper left, clockwise), and joints: left, right, down, up.
    pub fn frame(self) -> FrameGlyphs {
        if self.is_ascii {
            FrameGlyphs {
                across: "-",
                down: "|",
                corners: ["+"; 4],
                joints: ["+"; 4],
                crossing: "+",
            }
        } else {
            FrameGlyphs {
                across: "─",
                down: "│",
                corners: ["┌", "┐", "┘", "└"],
                joints: ["├", "┤", "┬", "┴"],
                crossing: "┼",
            }
        }
    }

    /// In front of the selected row, where colours may be missing.
    pub fn cursor(self) -> &'static str {
        self.either("▌", ">")
    }

    /// From one to another.
    pub fn arrow(self) -> &'static str {
        self.either("→", ">")
    }

    /// Between parts of a line.
    pub fn dot(self) -> &'static str {
        self.either("·", "|")
    }

    /// Descending and ascending order.
    pub fn order(self, is_descending: bool) -> &'static str {
        match is_descending {
            true => self.either("▼", "v"),
            false => self.either("▲", "^"),
        }
    }

    fn either(self, fine: &'static str, ascii: &'static str) -> &'static str {
        if self.is_ascii { ascii } else { fine }
    }
}

/// See [`Glyphs::frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameGlyphs {
    /// A horizontal line.
    pub across: &'static str,
    /// A vertical line.
    pub down: &'static str,
    /// Upper left, upper right, lower right, lower left.
    pub corners: [&'static str; 4],
    /// A line that begins at the left border, ends at the right one, goes down, comes from above.
    pub joints: [&'static str; 4],
    /// Two lines that cross.
    pub crossing: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(color: Color) -> f64 {
        let Color::Rgb(red, green, blue) = color else {
            panic!("{color:?} is no RGB colour");
        };
        // WCAG 2.2, "relative luminance".
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    #[test]
    fn every_colour_can_be_read_on_its_background() {
        for name in [ThemeName::Dark, ThemeName::Light] {
            let theme = Theme::new(name);
            for slot in Slot::ALL {
                let style = theme.style(slot);
                let back = style.bg.unwrap_or(theme.background());
                let (a, b) = (luminance(style.fg.unwrap()), luminance(back));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast > 4.5, "{name} {slot:?}: {contrast:.2}");
                // A row may be selected whatever it says.
                let selected = luminance(theme.selection());
                let contrast = (a.max(selected) + 0.05) / (a.min(selected) + 0.05);
                assert!(
                    slot == Slot::Border || contrast > 4.0,
                    "{name} {slot:?} selected: {contrast:.2}"
                );
            }
        }
    }

    #[test]
    fn a_plain_theme_has_no_colours_and_a_selection_that_is_seen() {
        let theme = Theme::new(ThemeName::Plain);
        for slot in Slot::ALL {
            assert_eq!(
                (theme.style(slot).fg, theme.style(slot).bg),
                (None, None),
                "{slot:?}"
            );
        }
        assert_ne!(theme.style(Slot::Selected), theme.style(Slot::Text));
    }

    #[test]
    fn the_environment_chooses() {
        let with = |pairs: &'static [(&str, &str)]| {
            ThemeName::from_environment(|name| {
                pairs
                    .iter()
                    .find(|(it, _)| *it == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[]), ThemeName::Dark);
        assert_eq!(with(&[("NO_COLOR", "1")]), ThemeName::Plain);
        assert_eq!(with(&[("NO_COLOR", "")]), ThemeName::Dark);
        assert_eq!(with(&[("TERM", "dumb")]), ThemeName::Plain);
        assert_eq!(with(&[("COLORFGBG", "0;15")]), ThemeName::Light);
        assert_eq!(with(&[("COLORFGBG", "15;0")]), ThemeName::Dark);
        assert_eq!(with(&[("COLORFGBG", "0;default;7")]), ThemeName::Light);
    }

    #[test]
    fn marks_differ_without_colours_and_ascii_is_ascii() {
        let marks = [Mark::Absent, Mark::Good, Mark::Warning, Mark::Bad];
        for glyphs in [Glyphs::new(false), Glyphs::new(true)] {
            let mut seen: Vec<_> = marks.iter().map(|mark| glyphs.mark(*mark)).collect();
            seen.dedup();
            assert_eq!(seen.len(), 4);
        }
        let ascii = Glyphs::new(true);
        let frame = ascii.frame();
        let all = marks
            .iter()
            .map(|mark| ascii.mark(*mark))
            .chain(*ascii.levels());
        let all = all.chain([
            ascii.cursor(),
            ascii.arrow(),
            ascii.dot(),
            ascii.order(true),
            frame.across,
            frame.down,
        ]);
        assert!(
            all.chain(frame.corners)
                .chain(frame.joints)
                .all(str::is_ascii)
        );
    }
}
