//! Tables: rows with names of their own, so that a selection stays on its row when the order changes.

use std::cmp::Ordering;

use crate::theme::Mark;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its title, with the unit.
    pub title: &'static str,
    /// Its width in characters.
    pub width: u16,
    /// Whether figures stand at its right edge.
    pub is_right: bool,
    /// Columns with greater numbers go first where there is not enough room; 0 stays.
    pub spare: u8,
    /// Whether it takes what room is left.
    pub grows: bool,
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// What it is sorted by.
    pub by: By,
    /// How good that is, where it says so.
    pub mark: Option<Mark>,
}

/// What cells are sorted by.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// Their text.
    Text,
    /// A figure; absent ones come last.
    Figure(Option<f64>),
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is called, on this screen.
    pub id: String,
    /// Its cells, one per column.
    pub cells: Vec<Cell>,
}

/// Which rows are shown, in which order, and which one is selected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableState {
    /// The selected row.
    pub selected: Option<String>,
    /// Where it stood last: where the selection goes when the row vanishes.
    pub place: usize,
    /// The column that it is sorted by; absent for the order in which rows come.
    pub sort: Option<usize>,
    /// Whether the order is turned round.
    pub is_reversed: bool,
    /// Only rows that have all these words, separated by spaces, in their cells.
    pub filter: String,
}

impl Column {
    /// A column of texts.
    pub const fn text(title: &'static str, width: u16) -> Self {
        Self {
            title,
            width,
            is_right: false,
            spare: 0,
            grows: false,
        }
    }

    /// A column of figures.
    pub const fn figures(title: &'static str, width: u16) -> Self {
        Self {
            title,
            width,
            is_right: true,
            spare: 0,
            grows: false,
        }
    }

    /// One that may go where there is no room; greater numbers first.
    #[must_use]
    pub const fn spare(self, spare: u8) -> Self {
        Self { spare, ..self }
    }

    /// One that takes what room is left.
    #[must_use]
    pub const fn growing(self) -> Self {
        Self {
            grows: true,
            ..self
        }
    }
}

impl Cell {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            by: By::Text,
            mark: None,
        }
    }

    /// A figure.
    pub fn figure(text: impl Into<String>, value: Option<f64>) -> Self {
        Self {
            text: text.into(),
            by: By::Figure(value),
            mark: None,
        }
    }

    /// The same with a grade.
    #[must_use]
    pub fn marked(self, mark: Mark) -> Self {
        Self {
            mark: Some(mark),
            ..self
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        match (&self.by, &other.by) {
            (By::Figure(Some(a)), By::Figure(Some(b))) => b.total_cmp(a),
            (By::Figure(Some(_)), By::Figure(None)) => Ordering::Less,
            (By::Figure(None), By::Figure(Some(_))) => Ordering::Greater,
            (By::Figure(None), By::Figure(None)) => Ordering::Equal,
            _ => self.text.to_lowercase().cmp(&other.text.to_lowercase()),
        }
    }
}

impl TableState {
    /// The rows to show, in order: figures with the greatest first, texts by the alphabet.
    pub fn arrange(&self, rows: Vec<Row>) -> Vec<Row> {
        let words: Vec<String> = self
            .filter
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        let has_word = |row: &Row, word: &str| {
            row.cells
                .iter()
                .any(|cell| cell.text.to_lowercase().contains(word))
        };
        let mut rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| words.iter().all(|word| has_word(row, word)))
            .collect();
        if let Some(column) = self.sort {
            rows.sort_by(|a, b| match (a.cells.get(column), b.cells.get(column)) {
                (Some(a), Some(b)) => a.order(b),
                _ => Ordering::Equal,
            });
        }
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    /// The place of the selected row; the first row where none is selected, its neighbour where it has vanished.
    pub fn place_in(&self, rows: &[Row]) -> Option<usize> {
        let last = rows.len().checked_sub(1)?;
        let Some(id) = &self.selected else {
            return Some(0);
        };
        let found = rows.iter().position(|row| row.id == *id);
        Some(found.unwrap_or(self.place.min(last)))
    }

    /// Moves the selection.
    pub fn move_by(&mut self, rows: &[Row], by: isize) {
        if let Some(place) = self.place_in(rows) {
            self.select(rows, place.saturating_add_signed(by));
        }
    }

    /// Selects a row by its place, or the last one.
    pub fn select(&mut self, rows: &[Row], place: usize) {
        let place = place.min(rows.len().saturating_sub(1));
        self.place = place;
        self.selected = rows.get(place).map(|row| row.id.clone());
    }

    /// Sorts by the next of so many columns, and by none after the last.
    pub fn sort_next(&mut self, columns: usize) {
        self.sort = match self.sort {
            None => Some(0),
            Some(column) if column + 1 < columns => Some(column + 1),
            Some(_) => None,
        };
        self.is_reversed = false;
    }
}

/// Which columns fit into a width, with their widths; one space between two.
pub fn fit(columns: &[Column], width: u16) -> Vec<(usize, u16)> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let cells: u16 = kept.iter().map(|at| columns[*at].width).sum();
        cells + kept.len().saturating_sub(1) as u16
    };
    while needed(&kept) > width {
        let spare = kept.iter().copied().filter(|at| columns[*at].spare > 0);
        let Some(goes) = spare.max_by_key(|at| columns[*at].spare) else {
            break;
        };
        kept.retain(|at| *at != goes);
    }
    let left = width.saturating_sub(needed(&kept));
    let growing = kept.iter().filter(|at| columns[**at].grows).count() as u16;
    let mut rest = left.checked_rem(growing).unwrap_or(0);
    kept.into_iter()
        .map(|at| {
            let mut width = columns[at].width;
            if columns[at].grows {
                width += left / growing + u16::from(rest > 0);
                rest = rest.saturating_sub(1);
            }
            (at, width)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[(&str, Option<f64>)]) -> Vec<Row> {
        values
            .iter()
            .map(|(id, value)| Row {
                id: (*id).to_owned(),
                cells: vec![Cell::text(*id), Cell::figure("", *value)],
            })
            .collect()
    }

    fn ids(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.id.as_str()).collect()
    }

    #[test]
    fn figures_sort_downwards_and_texts_by_the_alphabet() {
        let all = || rows(&[("b", Some(1.0)), ("C", None), ("a", Some(3.0))]);
        let mut state = TableState::default();
        assert_eq!(ids(&state.arrange(all())), ["b", "C", "a"]);
        state.sort_next(2);
        assert_eq!(ids(&state.arrange(all())), ["a", "b", "C"]);
        state.sort_next(2);
        assert_eq!(ids(&state.arrange(all())), ["a", "b", "C"]);
        state.is_reversed = true;
        assert_eq!(ids(&state.arrange(all())), ["C", "b", "a"]);
        state.sort_next(2);
        assert_eq!((state.sort, state.is_reversed), (None, false));
    }

    #[test]
    fn a_selection_stays_on_its_row_and_goes_to_the_neighbour_of_one_that_vanished() {
        let mut state = TableState::default();
        let three = rows(&[("a", None), ("b", None), ("c", None)]);
        state.move_by(&three, 1);
        assert_eq!(state.selected.as_deref(), Some("b"));
        let turned = rows(&[("c", None), ("b", None), ("a", None), ("d", None)]);
        assert_eq!(state.place_in(&turned), Some(1));
        let without = rows(&[("a", None), ("c", None)]);
        assert_eq!(state.place_in(&without), Some(1));
        assert_eq!(state.place_in(&[]), None);
        state.move_by(&without, 100);
        assert_eq!(state.selected.as_deref(), Some("c"));
    }

    #[test]
    fn a_filter_wants_every_word() {
        let mut state = TableState {
            filter: "AB c".to_owned(),
            ..TableState::default()
        };
        let all = rows(&[("abc", None), ("ab", None), ("c", None)]);
        assert_eq!(ids(&state.arrange(all.clone())), ["abc"]);
        state.filter.clear();
        assert_eq!(state.arrange(all).len(), 3);
    }

    #[test]
    fn spare_columns_go_and_growing_ones_take_the_rest() {
        let columns = [
            Column::text("a", 5).growing(),
            Column::figures("b", 4).spare(1),
            Column::figures("c", 4).spare(2),
        ];
        assert_eq!(fit(&columns, 20), [(0, 10), (1, 4), (2, 4)]);
        assert_eq!(fit(&columns, 15), [(0, 5), (1, 4), (2, 4)]);
        assert_eq!(fit(&columns, 14), [(0, 9), (1, 4)]);
        assert_eq!(fit(&columns, 8), [(0, 8)]);
        assert_eq!(fit(&columns, 3), [(0, 5)]);
    }
}
