//! Screen 2: why is traffic on this link?
//!
//! ```text
//! ├─ Paths to fra-1 (2 of 12) ──────────────────────────────┤
//! │▌lte>198.51.100.9  ▲ up   38/61   6  0.4%  1380  ● ● – ● │
//! ├─ Round trip and loss, last 5 min ─┬─ Why lte ───────────┤
//! │  80┤ ▁▂▃▂▁                        │ voice  uses it      │
//! ```

use patronus_api::{PathView, PeerPathsView, StandingView};
use ratatui::layout::Rect;

use super::{path_mark, wrapped};
use crate::canvas::{Canvas, greatest};
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row};
use crate::theme::{Mark, Slot};
use crate::tracks::worse;

const FIXED: &[Column] = &[
    Column::text("path", 16).growing(),
    Column::text("state", 9),
    Column::figures("rtt/p95 ms", 10),
    Column::figures("jitter", 6).spare(2),
    Column::figures("loss", 5),
    Column::figures("outer MTU", 9).spare(3),
    Column::figures("TX", 11).spare(1),
];
/// Class names are their owner's: what columns are titled must be the program's own, so classes have numbers there and
/// their names beside the curve.
const CLASS_TITLES: [&str; 8] = ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"];
const CLASS_WIDTH: u16 = 2;

pub(super) fn columns(model: &Model) -> Vec<Column> {
    let classes = model
        .data()
        .snapshot
        .as_ref()
        .map_or(0, |snapshot| snapshot.paths.classes.len());
    let classes = CLASS_TITLES
        .iter()
        .take(classes)
        .map(|title| Column::text(title, CLASS_WIDTH));
    FIXED.iter().copied().chain(classes).collect()
}

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let Some(view) = shown(model) else {
        return Vec::new();
    };
    let classes = model
        .data()
        .snapshot
        .as_ref()
        .map_or(0, |snapshot| snapshot.paths.classes.len());
    view.paths
        .iter()
        .map(|path| row(model, path, classes))
        .collect()
}

fn shown(model: &Model) -> Option<&PeerPathsView> {
    model.data().paths_of(model.site_shown()?)
}

fn row(model: &Model, path: &PathView, classes: usize) -> Row {
    let glyphs = model.look.glyphs;
    let absent = glyphs.absent();
    let mark = path_mark(path);
    let state = if path.is_draining {
        "draining"
    } else {
        path.state.words()
    };
    let jitter = worse(path.tx_jitter_ms, path.rx_jitter_ms);
    let loss = worse(path.tx_loss.ten_s_pct, path.rx_loss.ten_s_pct);
    let rtt = format!(
        "{}/{}",
        format::millis(path.rtt_ms, absent),
        format::millis(path.rtt_p95_ms, absent)
    );
    let mut cells = vec![
        Cell::text(path.name.clone()),
        Cell::text(format!("{} {state}", glyphs.mark(mark))).marked(mark),
        Cell::figure(rtt, path.rtt_ms),
        Cell::figure(format::millis(jitter, absent), jitter),
        Cell::figure(format::percent(loss, absent), loss),
        Cell::figure(
            path.mtu
                .map_or_else(|| absent.to_owned(), |mtu| mtu.to_string()),
            path.mtu.map(f64::from),
        ),
        Cell::figure(format::bit_rate(path.tx_bps), Some(path.tx_bps)),
    ];
    for class in path.classes.iter().take(classes.min(CLASS_TITLES.len())) {
        let mark = class_mark(class);
        let used = if class.is_used { "*" } else { " " };
        let text = format!("{}{used}", glyphs.mark(mark));
        cells.push(Cell::figure(text.trim_end(), Some(class.score)).marked(mark));
    }
    Row {
        id: path.id.clone(),
        cells,
    }
}

fn class_mark(class: &StandingView) -> Mark {
    match class.tier {
        0 => Mark::Good,
        1 | 2 => Mark::Warning,
        _ => Mark::Bad,
    }
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = &model.data().snapshot else {
        return;
    };
    let Some(view) = shown(model) else {
        canvas.rule(area.y, "Paths", "");
        canvas.text(
            area.x + 1,
            area.y + 1,
            area.width - 2,
            "no peer has paths",
            Slot::Dim,
        );
        return;
    };
    let place = snapshot
        .paths
        .peers
        .iter()
        .position(|it| it.peer == view.peer)
        .unwrap_or(0)
        + 1;
    let title = format!(
        "Paths to {} ({place} of {})",
        view.peer,
        snapshot.paths.peers.len()
    );
    let filter = &model.table().filter;
    let right = match (filter.is_empty(), view.is_site) {
        (false, _) => format!("filter: {filter}"),
        (true, true) => String::new(),
        (true, false) => "stock WireGuard: not measured".to_owned(),
    };
    canvas.rule(area.y, &title, &right);
    let table_height = (view.paths.len() as u16 + 1).clamp(3, area.height / 2);
    let rows = model.rows();
    let table = Rect::new(area.x, area.y + 1, area.width, table_height);
    canvas.table(table, &columns(model), &rows, model.table());

    let lower_y = table.bottom();
    let split = area.x + area.width / 2;
    let selected = model
        .table()
        .place_in(&rows)
        .map(|place| rows[place].id.clone());
    let path = view
        .paths
        .iter()
        .find(|path| Some(&path.id) == selected.as_ref());
    let Some(path) = path else {
        canvas.rule(lower_y, "", "");
        return;
    };
    let span = format::span(model.span_ms() as f64 / 1000.0);
    canvas.rule(lower_y, &format!("Round trip and loss, last {span}"), "");
    canvas.rule_title(split + 2, lower_y, &format!("Why {}", path.name));
    let height = area.bottom() - lower_y - 1;
    canvas.divider(split, lower_y, area.bottom());
    chart(
        model,
        path,
        Rect::new(area.x + 1, lower_y + 1, split - area.x - 2, height),
        canvas,
    );
    why(
        view,
        path,
        Rect::new(split + 2, lower_y + 1, area.right() - split - 3, height),
        canvas,
    );
}

fn chart(model: &Model, path: &PathView, area: Rect, canvas: &mut Canvas<'_>) {
    let absent = model.look.glyphs.absent();
    let Some(tracks) = model.data().tracks.path(&path.id) else {
        return;
    };
    if area.height < 4 {
        return;
    }
    let label = 6;
    let width = area.width.saturating_sub(label);
    let now_ms = model.data().unix_ms();
    let rtt = tracks
        .rtt_ms
        .cells(now_ms, model.span_ms(), usize::from(width));
    let loss = tracks
        .loss_pct
        .cells(now_ms, model.span_ms(), usize::from(width));
    let top = greatest(&rtt);
    let curve = Rect::new(area.x + label, area.y, width, area.height - 3);
    canvas.right(
        area.x,
        area.y,
        label - 1,
        &format::millis((top > 0.0).then_some(top), absent),
        Slot::Dim,
    );
    canvas.right(area.x, curve.bottom() - 1, label - 1, "ms", Slot::Dim);
    canvas.curve(curve, &rtt, top);
    let loss_y = curve.bottom();
    canvas.text(area.x, loss_y, label, "loss", Slot::Dim);
    // Nothing lost is nothing drawn.
    let drawn: Vec<_> = loss.iter().map(|it| it.filter(|pct| *pct > 0.0)).collect();
    canvas.sparkline(area.x + label, loss_y, &drawn);
    let most = greatest(&loss);
    let of_loss = format!(
        "most {}, 10 s: {} out, {} in",
        format::percent(Some(most), absent),
        format::percent(path.tx_loss.ten_s_pct, absent),
        format::percent(path.rx_loss.ten_s_pct, absent),
    );
    canvas.text(area.x, loss_y + 1, area.width, &of_loss, Slot::Dim);
    let of_delay = format!(
        "min {} queue {} jitter {}/{}",
        format::millis(path.rtt_min_ms, absent),
        format::millis(path.queueing_ms, absent),
        format::millis(path.tx_jitter_ms, absent),
        format::millis(path.rx_jitter_ms, absent),
    );
    canvas.text(area.x, loss_y + 2, area.width, &of_delay, Slot::Dim);
}

fn why(view: &PeerPathsView, path: &PathView, area: Rect, canvas: &mut Canvas<'_>) {
    let mut y = area.y;
    let mut line = |canvas: &mut Canvas<'_>, x: u16, text: &str, slot: Slot| {
        if y < area.bottom() {
            canvas.text(area.x + x, y, area.width.saturating_sub(x), text, slot);
        }
        y += 1;
    };
    let since = format::span(path.state_age_s);
    let state = format!("{}, for {since}", path.text);
    for part in wrapped(&state, usize::from(area.width), 2) {
        line(canvas, 0, &part, Slot::Text);
    }
    let name_of = |number: u8| {
        let found = view.paths.iter().find(|path| path.path == number);
        found.map_or_else(|| number.to_string(), |path| path.name.clone())
    };
    for (number, class) in path.classes.iter().enumerate() {
        let route = view.routes.iter().find(|route| route.class == class.class);
        let pinned = if class.is_pinned { ", pinned here" } else { "" };
        let head = format!(
            "c{} {} {:.0}, {}{pinned}",
            number + 1,
            class.class,
            class.score,
            class.tier_text
        );
        line(
            canvas,
            0,
            &head,
            if class.is_used {
                Slot::Accent
            } else {
                Slot::Text
            },
        );
        if class.is_used {
            let copies = route.and_then(|route| route.protect).map(name_of);
            let text = copies.map_or_else(
                || "uses it".to_owned(),
                |copies| format!("uses it, with copies on {copies}"),
            );
            line(canvas, 3, &text, Slot::Dim);
            continue;
        }
        let used = route.and_then(|route| route.path).map(name_of);
        let used = used.map_or_else(|| "has no path".to_owned(), |used| format!("uses {used}"));
        let text = class
            .why_not
            .as_ref()
            .map_or_else(|| used.clone(), |why| format!("{used}: {why}"));
        for part in wrapped(&text, usize::from(area.width.saturating_sub(3)), 2) {
            line(canvas, 3, &part, Slot::Dim);
        }
    }
}
