//! Screen 5: which rule would this packet hit, and what did rules refuse?
//!
//! ```text
//! ├─ Rules 12, generation 42 ───────────────────────────────┤
//! │▌web/default-deny ingress  isolate  every pod  203  12 s │
//! ├─ Selected rule ─────────────────────────────────────────┤
//! ```

use patronus_api::{ModeView, RuleHitsView, RuleRefView};
use ratatui::layout::Rect;

use super::{pairs, wrapped};
use crate::canvas::Canvas;
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row};
use crate::theme::{Mark, Slot};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("rule", 24).growing(),
    Column::text("action", 7),
    Column::text("matches", 22).growing(),
    Column::figures("refused", 8),
    Column::figures("last", 9),
];

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let Some(rules) = &model.data().rules else {
        return Vec::new();
    };
    rules
        .rules
        .iter()
        .enumerate()
        .map(|(number, rule)| row(model, number, rule))
        .collect()
}

fn row(model: &Model, number: usize, rule: &RuleHitsView) -> Row {
    let absent = || model.look.glyphs.absent().to_owned();
    let hits = rule.hits.map(|hits| hits.packets);
    let mark = match rule.mode {
        ModeView::Enforce => None,
        ModeView::Audit => Some(Mark::Warning),
        ModeView::Off => Some(Mark::Absent),
    };
    let action = Cell::text(rule.action.clone());
    Row {
        id: number.to_string(),
        cells: vec![
            Cell::text(name(&rule.rule)),
            mark.map_or(action.clone(), |mark| action.marked(mark)),
            Cell::text(rule.matches.clone()),
            Cell::figure(
                hits.map_or_else(absent, format::short_count),
                hits.map(|it| it as f64),
            ),
            Cell::figure(
                rule.last_hit_age_s.map_or_else(absent, format::span),
                // The latest first.
                rule.last_hit_age_s.map(|age| -age),
            ),
        ],
    }
}

/// A rule and where it stands.
pub(super) fn place(rule: &RuleRefView) -> String {
    format!("{}, {}", name(rule), where_it_stands(rule))
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let Some(rules) = &model.data().rules else {
        canvas.rule(area.y, "Rules", "");
        canvas.text(
            area.x + 1,
            area.y + 1,
            area.width - 2,
            "asking for the rules",
            Slot::Dim,
        );
        return;
    };
    let rows = model.rows();
    let filter = &model.table().filter;
    let right = if filter.is_empty() {
        String::new()
    } else {
        format!("filter: {filter}")
    };
    let title = format!("Rules {}, generation {}", rows.len(), rules.generation);
    canvas.rule(area.y, &title, &right);
    if !rules.has_policy {
        let text = "no policy: allowed IPs alone decide who may send what";
        canvas.marked(area.x + 1, area.y + 2, area.width - 2, Mark::Absent, text);
        return;
    }
    let pane_y = area.bottom() - 7;
    let table = Rect::new(area.x, area.y + 1, area.width, pane_y - area.y - 1);
    canvas.table(table, COLUMNS, &rows, model.table());
    let other = rules.other.filter(|other| other.packets > 0);
    let other = other.map_or_else(String::new, |it| {
        format!("{} refused under no listed rule", format::count(it.packets))
    });
    canvas.rule(pane_y, "Selected rule", &other);
    let place = model.table().place_in(&rows);
    let number = place.and_then(|place| rows[place].id.parse::<usize>().ok());
    let Some(rule) = number.and_then(|number| rules.rules.get(number)) else {
        canvas.text(area.x + 1, pane_y + 1, area.width - 2, "none", Slot::Dim);
        return;
    };
    let pane = Rect::new(area.x + 1, pane_y + 1, area.width - 2, 6);
    detail(rule, pane, canvas);
}

fn detail(rule: &RuleHitsView, area: Rect, canvas: &mut Canvas<'_>) {
    let mode = match rule.mode {
        ModeView::Enforce => "enforced",
        ModeView::Audit => "audit: counts what it would refuse",
        ModeView::Off => "off",
    };
    let hits = match rule.hits {
        None => "not counted".to_owned(),
        Some(hits) => {
            let last = rule.last_hit_age_s.map_or_else(String::new, |age| {
                format!(", last {} ago", format::span(age))
            });
            let audited = if hits.audited > 0 {
                format!(", {} audited", format::count(hits.audited))
            } else {
                String::new()
            };
            let (connections, packets) =
                (format::count(hits.connections), format::count(hits.packets));
            format!("{connections} connections, {packets} packets{audited}{last}")
        }
    };
    let mut lines = vec![
        (
            "rule",
            format!("{}: {}, {mode}", name(&rule.rule), rule.action),
        ),
        ("stands", where_it_stands(&rule.rule)),
        ("selects", rule.selects.clone()),
    ];
    let width = usize::from(area.width.saturating_sub(9));
    for (number, part) in wrapped(&rule.matches, width, 2).into_iter().enumerate() {
        lines.push((if number == 0 { "matches" } else { "" }, part));
    }
    lines.push(("refused", hits));
    pairs(canvas, area, 8, &lines);
}

/// `namespace/name ingress 2`; a rule's own name, where it has one, instead of its number.
fn name(rule: &RuleRefView) -> String {
    let policy = &rule.policy;
    let own = match (&rule.name, rule.number) {
        (Some(name), _) => format!(" \"{name}\""),
        (None, 0) => " isolation".to_owned(),
        (None, number) => format!(" {number}"),
    };
    format!("{} {}{own}", policy.name, rule.direction)
}

fn where_it_stands(rule: &RuleRefView) -> String {
    format!("{}, {} layer", rule.source, rule.policy.layer)
}
