//! What screens are drawn with: texts in slots, rules that join the border, tables, bars and curves.
//!
//! Texts come from names that others chose: control characters never reach the terminal (the buffer drops them).

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::model::Look;
use crate::table::{Column, Row, TableState, fit};
use crate::theme::{Mark, Slot};

/// A frame that is being drawn.
#[derive(Debug)]
pub struct Canvas<'a> {
    buffer: &'a mut Buffer,
    look: Look,
}

impl<'a> Canvas<'a> {
    /// Over a buffer.
    pub fn new(buffer: &'a mut Buffer, look: Look) -> Self {
        Self { buffer, look }
    }

    /// Everything there is to draw on.
    pub fn area(&self) -> Rect {
        self.buffer.area
    }

    /// A text from a column on, cut at a width, where a sign says that there is more; says where it ended.
    pub fn text(&mut self, x: u16, y: u16, width: u16, text: &str, slot: Slot) -> u16 {
        self.cut(x, y, width, text, self.look.theme.style(slot))
    }

    /// A text that ends at the right edge of a width.
    pub fn right(&mut self, x: u16, y: u16, width: u16, text: &str, slot: Slot) {
        let len = text_width(text);
        let text_x = x + width.saturating_sub(len);
        self.text(text_x, y, width.min(len), text, slot);
    }

    /// The sign of a mark.
    pub fn mark(&mut self, x: u16, y: u16, mark: Mark) {
        let style = self.look.theme.mark(mark);
        self.styled(x, y, 1, self.look.glyphs.mark(mark), style);
    }

    /// A sign, a space, and a text.
    pub fn marked(&mut self, x: u16, y: u16, width: u16, mark: Mark, text: &str) {
        self.mark(x, y, mark);
        self.text(x + 2, y, width.saturating_sub(2), text, Slot::Text);
    }

    /// The border round everything.
    pub fn border(&mut self) {
        let area = self.area();
        let frame = self.look.glyphs.frame();
        let (right, bottom) = (area.right() - 1, area.bottom() - 1);
        for x in area.left()..area.right() {
            self.symbol(x, area.top(), frame.across);
            self.symbol(x, bottom, frame.across);
        }
        for y in area.top()..area.bottom() {
            self.symbol(area.left(), y, frame.down);
            self.symbol(right, y, frame.down);
        }
        let corners = [
            (area.left(), area.top()),
            (right, area.top()),
            (right, bottom),
            (area.left(), bottom),
        ];
        for ((x, y), symbol) in corners.into_iter().zip(frame.corners) {
            self.symbol(x, y, symbol);
        }
    }

    /// A rule from border to border, with a title at its left and another at its right.
    pub fn rule(&mut self, y: u16, title: &str, right_title: &str) {
        let area = self.area();
        let frame = self.look.glyphs.frame();
        for x in area.left() + 1..area.right() - 1 {
            self.symbol(x, y, frame.across);
        }
        self.symbol(area.left(), y, frame.joints[0]);
        self.symbol(area.right() - 1, y, frame.joints[1]);
        self.rule_title(area.left() + 2, y, title);
        if !right_title.is_empty() {
            let len = text_width(right_title) + 2;
            let x = (area.right() - 2).saturating_sub(len);
            self.text(x, y, len, &format!(" {right_title} "), Slot::Dim);
        }
    }

    /// A title on a rule.
    pub fn rule_title(&mut self, x: u16, y: u16, title: &str) {
        if !title.is_empty() {
            let room = self.area().right().saturating_sub(x + 1);
            self.text(x, y, room, &format!(" {title} "), Slot::Title);
        }
    }

    /// A line down between two rules.
    pub fn divider(&mut self, x: u16, from: u16, to: u16) {
        let frame = self.look.glyphs.frame();
        self.symbol(x, from, frame.joints[2]);
        for y in from + 1..to {
            self.symbol(x, y, frame.down);
        }
        self.symbol(x, to, frame.joints[3]);
    }

    /// Where a line down and a rule cross.
    pub fn crossing(&mut self, x: u16, y: u16) {
        let crossing = self.look.glyphs.frame().crossing;
        self.symbol(x, y, crossing);
    }

    /// A table with its head, the selected row in view.
    pub fn table(&mut self, area: Rect, columns: &[Column], rows: &[Row], state: &TableState) {
        if area.height == 0 || area.width < 4 {
            return;
        }
        let cells = fit(columns, area.width - 1);
        let head_y = area.y;
        let mut x = area.x + 1;
        for (at, width) in &cells {
            let width = &(*width).min(area.right().saturating_sub(x));
            let column = &columns[*at];
            let mut title = column.title.to_owned();
            let title_width = text_width(&title);
            if state.sort == Some(*at) && title_width < *width {
                title.push_str(self.look.glyphs.order(!state.is_reversed));
            }
            match column.is_right {
                true => self.right(x, head_y, *width, &title, Slot::Dim),
                false => {
                    self.text(x, head_y, *width, &title, Slot::Dim);
                }
            }
            x += width + 1;
        }
        let place = state.place_in(rows);
        let shown = usize::from(area.height - 1);
        let first = first_row(rows.len(), shown, place);
        for (line, (at, row)) in rows.iter().enumerate().skip(first).take(shown).enumerate() {
            let y = head_y + 1 + line as u16;
            self.row(area, y, columns, &cells, row, place == Some(at));
        }
    }

    fn row(
        &mut self,
        area: Rect,
        y: u16,
        columns: &[Column],
        cells: &[(usize, u16)],
        row: &Row,
        is_selected: bool,
    ) {
        if is_selected {
            let style = self.look.theme.style(Slot::Selected);
            self.buffer.set_style(
                Rect {
                    y,
                    height: 1,
                    ..area
                },
                style,
            );
            self.text(area.x, y, 1, self.look.glyphs.cursor(), Slot::Selected);
        }
        let mut x = area.x + 1;
        for (at, width) in cells {
            let Some(cell) = row.cells.get(*at) else {
                continue;
            };
            // A table that is wider than its area ends there.
            let width = &(*width).min(area.right().saturating_sub(x));
            let theme = self.look.theme;
            let mut style = match cell.mark {
                Some(mark) => theme.mark(mark),
                None if is_selected => theme.style(Slot::Selected),
                None => theme.style(Slot::Text),
            };
            if is_selected {
                style = theme.style(Slot::Selected).patch(style);
                style.bg = theme.style(Slot::Selected).bg;
            }
            let len = text_width(&cell.text).min(*width);
            let start = if columns[*at].is_right {
                x + width - len
            } else {
                x
            };
            self.cut(start, y, *width, &cell.text, style);
            x += width + 1;
        }
    }

    /// A bar of a share between 0 and 1.
    pub fn bar(&mut self, x: u16, y: u16, width: u16, share: f64) {
        let levels = self.look.glyphs.levels();
        let full = levels.len() - 1;
        let share = if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let filled = (share * f64::from(width) * 8.0).round() as usize;
        for cell in 0..width {
            let part = filled.saturating_sub(usize::from(cell) * 8).min(8);
            // A cell is full or empty: the levels grow upwards, not to the right.
            let symbol = if part >= 4 { levels[full] } else { levels[0] };
            self.chart_symbol(x + cell, y, symbol);
        }
    }

    /// A curve one line high; the greatest value fills its cell.
    pub fn sparkline(&mut self, x: u16, y: u16, cells: &[Option<f64>]) {
        self.curve(
            Rect::new(x, y, cells.len() as u16, 1),
            cells,
            greatest(cells),
        );
    }

    /// A curve as high as the area, up to a value.
    pub fn curve(&mut self, area: Rect, cells: &[Option<f64>], top: f64) {
        let levels = self.look.glyphs.levels();
        let steps = (levels.len() - 1) * usize::from(area.height);
        for (place, value) in cells.iter().take(usize::from(area.width)).enumerate() {
            let x = area.x + place as u16;
            let Some(value) = value.filter(|value| value.is_finite()) else {
                continue;
            };
            let share = if top > 0.0 {
                (value / top).clamp(0.0, 1.0)
            } else {
                0.0
            };
            // What was measured is seen, also where it is nearly nothing.
            let filled = ((share * steps as f64).round() as usize).max(1);
            for line in 0..usize::from(area.height) {
                let part = filled.saturating_sub(line * 8).min(8);
                let y = area.bottom() - 1 - line as u16;
                if part > 0 {
                    self.chart_symbol(x, y, levels[part]);
                }
            }
        }
    }

    /// Empties an area, for what lies over a screen.
    pub fn clear(&mut self, area: Rect) {
        let style = self.look.theme.style(Slot::Text);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.reset();
                    cell.set_style(style);
                }
            }
        }
    }

    /// A box with a title.
    pub fn boxed(&mut self, area: Rect, title: &str, right_title: &str) {
        self.clear(area);
        let frame = self.look.glyphs.frame();
        let (right, bottom) = (area.right() - 1, area.bottom() - 1);
        for x in area.left()..=right {
            self.symbol(x, area.top(), frame.across);
            self.symbol(x, bottom, frame.across);
        }
        for y in area.top()..=bottom {
            self.symbol(area.left(), y, frame.down);
            self.symbol(right, y, frame.down);
        }
        let corners = [
            (area.left(), area.top()),
            (right, area.top()),
            (right, bottom),
            (area.left(), bottom),
        ];
        for ((x, y), symbol) in corners.into_iter().zip(frame.corners) {
            self.symbol(x, y, symbol);
        }
        self.text(
            area.x + 2,
            area.y,
            area.width - 4,
            &format!(" {title} "),
            Slot::Title,
        );
        let len = text_width(right_title) + 2;
        if !right_title.is_empty() && len + 4 < area.width {
            self.text(
                right - 1 - len,
                area.y,
                len,
                &format!(" {right_title} "),
                Slot::Dim,
            );
        }
    }

    /// As much of a text as there is room for, and a sign where that is not all.
    fn cut(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        // Bytes are never fewer than columns: most texts need no closer look.
        let is_whole = text.len() <= usize::from(width) || text_width(text) <= width;
        if is_whole || width < CUT_WIDTH_MIN {
            return self.styled(x, y, width, text, style);
        }
        let end = self.styled(x, y, width - 1, text, style);
        self.styled(end, y, 1, self.look.glyphs.cut(), style)
    }

    fn styled(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if y >= area.bottom() || x >= area.right() || width == 0 {
            return x;
        }
        let width = width.min(area.right() - x);
        let (end, _) = self
            .buffer
            .set_stringn(x, y, text, usize::from(width), style);
        end
    }

    fn symbol(&mut self, x: u16, y: u16, symbol: &str) {
        let style = self.look.theme.style(Slot::Border);
        self.styled(x, y, 1, symbol, style);
    }

    fn chart_symbol(&mut self, x: u16, y: u16, symbol: &str) {
        let style = self.look.theme.style(Slot::Chart);
        self.styled(x, y, 1, symbol, style);
    }
}

/// Narrower than this, a sign that there is more would be all there is.
const CUT_WIDTH_MIN: u16 = 3;

/// How many columns a text takes.
pub fn text_width(text: &str) -> u16 {
    u16::try_from(ratatui::text::Line::raw(text).width()).unwrap_or(u16::MAX)
}

/// The greatest of some values.
pub fn greatest(cells: &[Option<f64>]) -> f64 {
    cells.iter().flatten().copied().fold(0.0, f64::max)
}

/// The first row to show, so that the selected one is in view, and in the middle where there is more on both sides.
fn first_row(rows: usize, shown: usize, place: Option<usize>) -> usize {
    let place = place.unwrap_or(0);
    place
        .saturating_sub(shown / 2)
        .min(rows.saturating_sub(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_in_view() {
        for rows in 0..30 {
            for shown in 1..12 {
                for place in 0..rows {
                    let first = first_row(rows, shown, Some(place));
                    assert!(
                        (first..first + shown).contains(&place),
                        "{rows} {shown} {place}"
                    );
                    assert!(first + shown <= rows.max(shown));
                }
            }
        }
    }
}
