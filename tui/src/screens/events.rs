//! Screen 7: what happened?
//!
//! ```text
//! ├─ Events 213 ────────────────────────────────────────────┤
//! │▌12:03:58 ▲ decision  fra-1  voice: isp-a → lte: loss 3 %│
//! ├─ Selected event ────────────────────────────────────────┤
//! ```

use patronus_api::EventView;
use ratatui::layout::Rect;

use super::{count_title, grade_mark, wrapped};
use crate::canvas::Canvas;
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row};
use crate::theme::Slot;

pub(super) const COLUMNS: &[Column] = &[
    Column::text("time", 10),
    Column::text("kind", 9),
    Column::text("peer", 10),
    Column::text("what", 30).growing(),
];

pub(super) fn rows(model: &Model) -> Vec<Row> {
    model
        .data()
        .events
        .iter()
        .rev()
        .map(|event| row(model, event))
        .collect()
}

fn row(model: &Model, event: &EventView) -> Row {
    let mark = grade_mark(event.grade);
    let sign = model.look.glyphs.mark(mark);
    Row {
        id: event.number.to_string(),
        cells: vec![
            Cell::text(format!("{sign} {}", format::clock(event.unix_ms))).marked(mark),
            Cell::text(event.kind.name()),
            Cell::text(event.peer.clone().unwrap_or_default()),
            Cell::text(what(event)),
        ],
    }
}

/// An event in one sentence.
pub(super) fn sentence(event: &EventView) -> String {
    match &event.peer {
        Some(peer) => format!("{peer} {}", what(event)),
        None => what(event),
    }
}

fn what(event: &EventView) -> String {
    event.text.clone()
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let rows = model.rows();
    let (title, right) = count_title("Events", rows.len(), model);
    canvas.rule(area.y, &title, &right);
    let pane = 8.min(area.height / 2);
    let pane_y = area.bottom() - pane;
    let table = Rect::new(area.x, area.y + 1, area.width, pane_y - area.y - 1);
    canvas.table(table, COLUMNS, &rows, model.table());
    canvas.rule(pane_y, "Selected event", "");
    let id = model.table().place_in(&rows).map(|place| &rows[place].id);
    let event = model
        .data()
        .events
        .iter()
        .find(|event| Some(&event.number.to_string()) == id);
    let Some(event) = event else {
        canvas.text(
            area.x + 1,
            pane_y + 1,
            area.width - 2,
            "nothing happened yet",
            Slot::Dim,
        );
        return;
    };
    let width = usize::from(area.width - 2);
    let mut y = pane_y + 1;
    let head = format!(
        "{} UTC, number {}",
        format::clock(event.unix_ms),
        event.number
    );
    canvas.text(area.x + 1, y, area.width - 2, &head, Slot::Dim);
    for line in wrapped(&sentence(event), width, 2) {
        y += 1;
        canvas.text(area.x + 1, y, area.width - 2, &line, Slot::Text);
    }
    let Some(decision) = &event.decision else {
        return;
    };
    let absent = model.look.glyphs.absent();
    for candidate in &decision.candidates {
        y += 1;
        if y >= area.bottom() {
            break;
        }
        let chosen = if decision.to == Some(candidate.path) {
            model.look.glyphs.cursor()
        } else {
            " "
        };
        let text = format!(
            "{chosen}{:<18} {:<8}{:>3.0} {:>5} ms {:>5}  {}",
            candidate.name,
            candidate.state.words(),
            candidate.score,
            format::millis(candidate.rtt_ms, absent),
            format::percent(candidate.loss_pct, absent),
            candidate.why_not.as_deref().unwrap_or("chosen"),
        );
        canvas.text(area.x + 1, y, area.width - 2, &text, Slot::Text);
    }
}
