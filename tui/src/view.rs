//! The frame round every screen, what lies over it, and the last line.
//!
//! ```text
//! ┌─ patronus · ams-1 ───────────── gen 42 on 4/4 workers · ● live 1 s ─┐
//! │ [1 Overview]   2 Paths    3 Peers    4 Flows    5 Policy   …        │
//! ├─ the screen's own parts ────────────────────────────────────────────┤
//! └─ keys, or what was asked, or what is said ──────────────────────────┘
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::canvas::{Canvas, text_width};
use crate::format;
use crate::keymap::{self, Action, Binding, Screen};
use crate::model::{Link, Model, Overlay, PromptKind, SIZE_MIN};
use crate::screens::{self, wrapped};
use crate::theme::{Mark, Slot};

/// Draws the console.
pub fn draw(model: &Model, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut canvas = Canvas::new(buffer, model.look);
    canvas.clear(area);
    let (columns, rows) = SIZE_MIN;
    if area.width < columns || area.height < rows {
        let text = format!(
            "{}x{}: the console needs {columns}x{rows}",
            area.width, area.height
        );
        canvas.text(area.x, area.y, area.width, &text, Slot::Warning);
        return;
    }
    canvas.border();
    header(model, &mut canvas);
    tabs(model, &mut canvas);
    let body = Rect::new(1, 2, area.width - 2, area.height - 3);
    screens::draw(model, body, &mut canvas);
    if model.data().snapshot.is_none() {
        waiting(model, body, &mut canvas);
    }
    footer(model, &mut canvas);
    match &model.overlay {
        Some(Overlay::Help) => help(model, &mut canvas),
        Some(Overlay::Text {
            title,
            lines,
            first,
        }) => text_box(title, lines, *first, &mut canvas),
        None => {}
    }
}

/// The screen as lines of text.
pub fn text(model: &Model) -> String {
    let (columns, rows) = model.size;
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    draw(model, &mut buffer);
    lines(&buffer)
}

/// A buffer's text, without spaces at the ends of lines.
pub fn lines(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut out = String::new();
    for y in area.top()..area.bottom() {
        let mut line = String::new();
        let mut skip = 0;
        for x in area.left()..area.right() {
            let symbol = buffer.cell((x, y)).map_or(" ", |cell| cell.symbol());
            // What takes two columns is followed by a cell that is not seen.
            if skip == 0 {
                line.push_str(symbol);
                skip = text_width(symbol).saturating_sub(1);
            } else {
                skip -= 1;
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn header(model: &Model, canvas: &mut Canvas<'_>) {
    let area = canvas.area();
    let glyphs = model.look.glyphs;
    let dot = glyphs.dot();
    let site = model
        .data()
        .snapshot
        .as_ref()
        .map_or("", |snapshot| snapshot.status.site.as_str());
    let title = if site.is_empty() {
        " patronus ".to_owned()
    } else {
        format!(" patronus {dot} {site} ")
    };
    let (mark, state) = link(model);
    let generation = model
        .data()
        .snapshot
        .as_ref()
        .map_or_else(String::new, |snapshot| {
            let it = snapshot.generation;
            format!(
                "gen {} on {}/{} workers {dot} ",
                it.published, it.applied, it.workers
            )
        });
    let text = format!(" {generation}{} {state} ", glyphs.mark(mark));
    let len = text_width(&text);
    let x = area.right().saturating_sub(len + 2);
    canvas.text(
        area.x + 2,
        0,
        x.saturating_sub(area.x + 3),
        &title,
        Slot::Title,
    );
    canvas.text(x, 0, len, &text, Slot::Dim);
    let mark_x = x + 1 + text_width(&generation);
    canvas.mark(mark_x, 0, mark);
}

/// How it stands with the gateway, in a few words.
fn link(model: &Model) -> (Mark, String) {
    if model.is_frozen() {
        return (Mark::Warning, "frozen: f lets it go".to_owned());
    }
    match &model.link {
        Link::Waiting => (Mark::Absent, "waiting".to_owned()),
        Link::Live { at_ms } => {
            let age_s = model.now_ms.saturating_sub(*at_ms) as f64 / 1000.0;
            if age_s > STALE_S {
                return (
                    Mark::Warning,
                    format!("nothing for {}", format::span(age_s)),
                );
            }
            (Mark::Good, "live".to_owned())
        }
        Link::Lost { since_ms, .. } => {
            let age_s = model.now_ms.saturating_sub(*since_ms) as f64 / 1000.0;
            (Mark::Bad, format!("lost for {}", format::span(age_s)))
        }
    }
}

fn tabs(model: &Model, canvas: &mut Canvas<'_>) {
    let mut x = 2;
    for screen in Screen::ALL {
        let number = screen.index() + 1;
        let is_shown = screen == model.screen;
        let (open, close) = if is_shown { ("[", "]") } else { (" ", " ") };
        let text = format!("{open}{number} {}{close}", screen.title());
        let slot = if is_shown { Slot::Accent } else { Slot::Dim };
        let room = canvas.area().right().saturating_sub(x + 1);
        x = canvas.text(x, 1, room, &text, slot) + 1;
    }
}

fn waiting(model: &Model, body: Rect, canvas: &mut Canvas<'_>) {
    let text = match &model.link {
        Link::Lost { why, .. } => format!("the gateway cannot be reached: {why}"),
        Link::Waiting | Link::Live { .. } => "waiting for the gateway".to_owned(),
    };
    let y = body.y + body.height / 2;
    canvas.clear(Rect::new(body.x, y, body.width, 1));
    canvas.text(body.x + 2, y, body.width - 4, &text, Slot::Warning);
}

fn footer(model: &Model, canvas: &mut Canvas<'_>) {
    let area = canvas.area();
    let y = area.bottom() - 1;
    let (x, width) = (area.x + 2, area.width - 4);
    if let Some(prompt) = &model.prompt {
        let label = match prompt.kind {
            PromptKind::Filter if model.screen == Screen::Flows => {
                "filter (src= dst= addr= port= proto= peer=)"
            }
            PromptKind::Filter => "filter (words)",
            PromptKind::Export => "export to (.txt .json .csv)",
            PromptKind::Explain => "explain SRC DST PROTO/PORT",
        };
        let end = canvas.text(x, y, width, &format!(" {label}: "), Slot::Accent);
        let room = (x + width).saturating_sub(end);
        // Of a long text the end is what is being typed.
        let len = text_width(&prompt.text) + 2;
        let text: String = match len > room {
            true => prompt.text.chars().skip(usize::from(len - room)).collect(),
            false => prompt.text.clone(),
        };
        canvas.text(end, y, room, &format!("{text}_ "), Slot::Text);
        return;
    }
    if let Some(order) = &model.pending {
        let text = format!(" {}? y does it, any other key does not ", order.words());
        canvas.text(x, y, width, &text, Slot::Warning);
        return;
    }
    if let Some(note) = model.note() {
        let slot = match note.mark {
            Mark::Bad => Slot::Bad,
            Mark::Warning => Slot::Warning,
            Mark::Good | Mark::Absent => Slot::Text,
        };
        canvas.text(x, y, width, &format!(" {} ", note.text), slot);
        return;
    }
    hints(model, x, y, width, canvas);
}

/// The keys of the screen, then those that hold everywhere, as far as there is room.
fn hints(model: &Model, x: u16, y: u16, width: u16, canvas: &mut Canvas<'_>) {
    let has_hint =
        |binding: &&Binding| !binding.hint.is_empty() && (!binding.changes || model.look.can_write);
    // How to get help and out is always said.
    let is_last = |binding: &&Binding| matches!(binding.action, Action::Help | Action::Quit);
    let own = keymap::of_screen(model.screen).filter(has_hint);
    let shared = keymap::of_all().filter(has_hint).filter(|it| !is_last(it));
    let last: Vec<_> = keymap::of_all().filter(has_hint).filter(is_last).collect();
    let label = |binding: &Binding| {
        let label = binding.label.split(' ').next().unwrap_or(binding.label);
        let label = if label.is_ascii() || !is_ascii(model) {
            label
        } else {
            binding.label.split(' ').nth(1).unwrap_or(label)
        };
        (format!(" {label} "), binding.hint)
    };
    let len = |binding: &&Binding| {
        let (label, hint) = label(binding);
        text_width(&label) + text_width(hint) + 1
    };
    let reserved: u16 = last.iter().map(len).sum();
    let mut room = width.saturating_sub(reserved);
    let mut shown = Vec::new();
    for binding in own.chain(shared) {
        let needed = len(&binding);
        if needed <= room {
            room -= needed;
            shown.push(binding);
        }
    }
    let mut at = x;
    for binding in shown.into_iter().chain(last) {
        let (label, hint) = label(binding);
        at = canvas.text(at, y, width, &label, Slot::Accent);
        at = canvas.text(at, y, width, &format!("{hint} "), Slot::Dim);
    }
}

fn is_ascii(model: &Model) -> bool {
    model.look.glyphs.cursor().is_ascii()
}

/// Two columns: what holds everywhere, what holds here.
fn help(model: &Model, canvas: &mut Canvas<'_>) {
    let area = canvas.area();
    // The seven screens take one line: their numbers stand over every screen.
    let is_screen = |binding: &&Binding| matches!(binding.action, Action::Show(_));
    let all: Vec<_> = keymap::of_all().filter(|it| !is_screen(it)).collect();
    let own: Vec<_> = keymap::of_screen(model.screen).collect();
    let rows = all.len().max(own.len() + 8);
    let height = (rows as u16 + 4).max(HELP_HEIGHT).min(area.height - 2);
    let place = Rect::new(1, 1, area.width - 2, height);
    let title = format!("Help {} {}", model.look.glyphs.dot(), model.screen.title());
    canvas.boxed(place, &title, "Esc closes");
    let left = Rect::new(place.x + 2, place.y + 1, HELP_LEFT, place.height - 2);
    let (right_x, half) = (left.right() + 1, place.right() - left.right() - 2);
    let right = Rect::new(right_x, place.y + 1, half, place.height - 2);
    canvas.text(left.x, left.y, left.width, "Everywhere", Slot::Title);
    canvas.text(right.x, right.y, half, "On this screen", Slot::Title);
    canvas.text(left.x, left.y + 1, HELP_LABEL, "1 to 7", Slot::Accent);
    let words_x = left.x + HELP_LABEL + 1;
    canvas.text(words_x, left.y + 1, left.width, "the screens", Slot::Text);
    // Says at which line it ended.
    let entry = |binding: &Binding, column: Rect, y: u16, canvas: &mut Canvas<'_>| {
        let slot = if binding.changes && !model.look.can_write {
            Slot::Dim
        } else {
            Slot::Text
        };
        let words = if binding.changes {
            format!("{} (--write)", binding.words)
        } else {
            binding.words.to_owned()
        };
        let room = column.width - HELP_LABEL - 1;
        let mut at = y;
        for line in wrapped(&words, usize::from(room), 3) {
            if at < column.bottom() {
                canvas.text(column.x + HELP_LABEL + 1, at, room, &line, slot);
            }
            at += 1;
        }
        if y < column.bottom() {
            canvas.text(column.x, y, HELP_LABEL, binding.label, Slot::Accent);
        }
        at
    };
    let mut y = left.y + 2;
    for binding in all {
        y = entry(binding, left, y, canvas);
    }
    let mut y = right.y + 1;
    for binding in own {
        y = entry(binding, right, y, canvas);
    }
    let marks = [
        (Mark::Good, "good"),
        (Mark::Warning, "worse than it should be"),
        (Mark::Bad, "does not work"),
        (Mark::Absent, "no data"),
    ];
    if y < right.bottom() {
        canvas.text(right.x, y, half, "Signs", Slot::Title);
    }
    for (mark, words) in marks {
        y += 1;
        if y < right.bottom() {
            canvas.marked(right.x, y, half, mark, words);
        }
    }
}

fn text_box(title: &str, lines: &[String], first: usize, canvas: &mut Canvas<'_>) {
    let area = canvas.area();
    let height = (lines.len() as u16).saturating_add(2).min(area.height - 4);
    let place = Rect::new(2, 2, area.width - 4, height.max(3));
    canvas.boxed(place, title, "Esc closes");
    let shown = usize::from(place.height - 2);
    for (line, text) in lines.iter().skip(first).take(shown).enumerate() {
        canvas.text(
            place.x + 2,
            place.y + 1 + line as u16,
            place.width - 4,
            text,
            Slot::Text,
        );
    }
}

/// Columns of the keys that hold everywhere, and of the label of each: what they do fits beside it.
const HELP_LEFT: u16 = 39;
const HELP_LABEL: u16 = 12;
/// As many rows as the smallest screen has room for.
const HELP_HEIGHT: u16 = 22;
/// After this long without a snapshot the gateway counts as silent.
const STALE_S: f64 = 5.0;
