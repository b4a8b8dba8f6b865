//! The seven screens: each knows its table and how to draw itself from the model.

pub mod flows;

mod events;
mod overview;
mod paths;
mod peers;
mod policy;
mod workers;

use patronus_api::{GradeView, PathView};
use ratatui::layout::Rect;

use crate::canvas::Canvas;
use crate::keymap::Screen;
use crate::model::Model;
use crate::table::{Column, Row};
use crate::theme::{Mark, Slot};

/// The columns of the screen's table.
pub fn columns(model: &Model) -> Vec<Column> {
    match model.screen {
        Screen::Overview => overview::COLUMNS.to_vec(),
        Screen::Paths => paths::columns(model),
        Screen::Peers => peers::COLUMNS.to_vec(),
        Screen::Flows => flows::COLUMNS.to_vec(),
        Screen::Policy => policy::COLUMNS.to_vec(),
        Screen::Workers => workers::COLUMNS.to_vec(),
        Screen::Events => events::COLUMNS.to_vec(),
    }
}

/// The rows of the screen's table, neither filtered nor sorted.
pub fn rows(model: &Model) -> Vec<Row> {
    match model.screen {
        Screen::Overview => overview::rows(model),
        Screen::Paths => paths::rows(model),
        Screen::Peers => peers::rows(model),
        Screen::Flows => flows::rows(model),
        Screen::Policy => policy::rows(model),
        Screen::Workers => workers::rows(model),
        Screen::Events => events::rows(model),
    }
}

/// Draws the screen between the tabs and the last line.
pub fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    match model.screen {
        Screen::Overview => overview::draw(model, area, canvas),
        Screen::Paths => paths::draw(model, area, canvas),
        Screen::Peers => peers::draw(model, area, canvas),
        Screen::Flows => flows::draw(model, area, canvas),
        Screen::Policy => policy::draw(model, area, canvas),
        Screen::Workers => workers::draw(model, area, canvas),
        Screen::Events => events::draw(model, area, canvas),
    }
}

/// A path's state as a mark.
fn path_mark(path: &PathView) -> Mark {
    path.grade().map_or(Mark::Absent, grade_mark)
}

fn grade_mark(grade: GradeView) -> Mark {
    match grade {
        GradeView::Good => Mark::Good,
        GradeView::Info => Mark::Absent,
        GradeView::Warning => Mark::Warning,
        GradeView::Bad => Mark::Bad,
    }
}

/// The title of a table: how many rows, and what is left out by a filter.
fn count_title(what: &str, shown: usize, model: &Model) -> (String, String) {
    let filter = &model.table().filter;
    let right = if filter.is_empty() {
        String::new()
    } else {
        format!("filter: {filter}")
    };
    (format!("{what} {shown}"), right)
}

/// Lines of a pane, each a label and what it says.
fn pairs(canvas: &mut Canvas<'_>, area: Rect, label_width: u16, lines: &[(&str, String)]) {
    for (line, (label, text)) in lines.iter().take(usize::from(area.height)).enumerate() {
        let y = area.y + line as u16;
        canvas.text(area.x, y, label_width, label, Slot::Dim);
        let room = area.width.saturating_sub(label_width + 1);
        canvas.text(area.x + label_width + 1, y, room, text, Slot::Text);
    }
}

/// A text broken at spaces into lines of a width, at most so many. What has no room makes the last one too long, so that
/// it is seen to be cut.
pub(crate) fn wrapped(text: &str, width: usize, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let needed = 1 + word.chars().count();
        let is_full = lines.len() == lines_max;
        match lines.last_mut() {
            Some(line) if is_full || line.chars().count() + needed <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
