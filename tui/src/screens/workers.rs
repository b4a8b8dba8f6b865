//! Screen 6: is a core the limit?
//!
//! ```text
//! ├─ Workers ──────────────────────────────── offload full ─┤
//! │▌0  core 1  ███████ 71%  142 kpps  161 kpps  93 %        │
//! ├─ Worker 0: where its time goes ─────────────────────────┤
//! ```

use patronus_api::WorkerView;
use ratatui::layout::Rect;

use super::pairs;
use crate::canvas::Canvas;
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row};
use crate::theme::{Mark, Slot};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("worker", 8),
    Column::figures("core", 4),
    Column::figures("busy", 5),
    Column::figures("spin", 5).spare(2),
    Column::figures("from site", 10),
    Column::figures("to site", 10),
    Column::figures("batch", 6).spare(1),
    Column::figures("flows", 11),
    Column::figures("mailbox", 8).spare(3),
    Column::figures("dropped", 8),
];

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let Some(snapshot) = &model.data().snapshot else {
        return Vec::new();
    };
    snapshot
        .workers
        .iter()
        .map(|worker| row(model, worker))
        .collect()
}

fn row(model: &Model, worker: &WorkerView) -> Row {
    let glyphs = model.look.glyphs;
    let absent = || glyphs.absent().to_owned();
    let mark = match worker {
        _ if !worker.is_running => Mark::Bad,
        _ if worker.panics > 0 || !worker.counts.is_balanced => Mark::Warning,
        _ => Mark::Good,
    };
    let rate =
        |value: Option<f64>| Cell::figure(value.map_or_else(absent, format::packet_rate), value);
    let share = |value: Option<f64>| {
        Cell::figure(value.map_or_else(absent, |pct| format!("{pct:.0}%")), value)
    };
    let rates = worker.rates;
    let batch = per(
        worker.counts.rx_tun_packets + worker.counts.rx_udp_packets,
        worker.turns,
    );
    let flows = worker.flows;
    let mailbox = worker.mailbox;
    Row {
        id: worker.worker.to_string(),
        cells: vec![
            Cell::text(format!("{} {}", glyphs.mark(mark), worker.worker)).marked(mark),
            Cell::figure(
                worker.core.map_or_else(absent, |core| core.to_string()),
                worker.core.map(|core| core as f64),
            ),
            share(rates.map(|it| it.busy_pct)),
            share(rates.map(|it| it.spinning_pct)),
            rate(rates.map(|it| it.rx_tun_pps)),
            rate(rates.map(|it| it.tx_tun_pps)),
            Cell::figure(batch.map_or_else(absent, |it| format!("{it:.1}")), batch),
            Cell::figure(
                format!(
                    "{}/{}",
                    format::short_count(flows.used as u64),
                    format::short_count(flows.capacity as u64)
                ),
                Some(flows.used as f64),
            ),
            Cell::figure(
                format!("{}/{}", mailbox.waiting, mailbox.capacity),
                Some(mailbox.waiting as f64),
            ),
            Cell::figure(
                format::short_count(worker.counts.dropped),
                Some(worker.counts.dropped as f64),
            ),
        ],
    }
}

fn per(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = &model.data().snapshot else {
        return;
    };
    let generation = snapshot.generation;
    let title = format!(
        "Workers, generation {} on {} of {}",
        generation.published, generation.applied, generation.workers
    );
    canvas.rule(area.y, &title, "");
    let height = (snapshot.workers.len() as u16 + 1).clamp(3, area.height / 2);
    let rows = model.rows();
    canvas.table(
        Rect::new(area.x, area.y + 1, area.width, height),
        COLUMNS,
        &rows,
        model.table(),
    );
    let pane_y = area.y + 1 + height;
    let id = model.table().place_in(&rows).map(|place| &rows[place].id);
    let worker = snapshot
        .workers
        .iter()
        .find(|worker| Some(&worker.worker.to_string()) == id);
    let Some(worker) = worker else {
        canvas.rule(pane_y, "", "");
        return;
    };
    canvas.rule(
        pane_y,
        &format!("Worker {}: where its time goes", worker.worker),
        "",
    );
    let used = stages(
        model,
        worker,
        Rect::new(
            area.x + 1,
            pane_y + 1,
            area.width - 2,
            area.bottom() - pane_y - 9,
        ),
        canvas,
    );
    let detail_y = pane_y + 1 + used;
    canvas.rule(detail_y, "How it works", "");
    detail(
        model.look.glyphs.absent(),
        &snapshot.offload,
        worker,
        Rect::new(
            area.x + 1,
            detail_y + 1,
            area.width - 2,
            area.bottom() - detail_y - 1,
        ),
        canvas,
    );
}

/// Says how many lines it took.
fn stages(model: &Model, worker: &WorkerView, area: Rect, canvas: &mut Canvas<'_>) -> u16 {
    let life_s = worker.busy_s + worker.spinning_s + worker.asleep_s;
    let share = |part: f64| {
        if life_s > 0.0 {
            100.0 * part / life_s
        } else {
            0.0
        }
    };
    let text = format!(
        "of its life: {:.1}% work, {:.1}% looking for work, {:.1}% asleep",
        share(worker.busy_s),
        share(worker.spinning_s),
        share(worker.asleep_s),
    );
    canvas.text(area.x, area.y, area.width, &text, Slot::Text);
    let Some(stages) = &worker.stages else {
        let hint = if model.look.can_write {
            "stages are not metered: T meters them for a minute"
        } else {
            "stages are not metered: T does, in a console with --write"
        };
        canvas.text(area.x, area.y + 1, area.width, hint, Slot::Dim);
        return 2;
    };
    let most = stages
        .stages
        .iter()
        .map(|stage| stage.spent_ns)
        .max()
        .unwrap_or(0);
    let columns = 2;
    let width = area.width / columns;
    let lines = (stages.stages.len() as u16)
        .div_ceil(columns)
        .min(area.height.saturating_sub(1));
    for (number, stage) in stages.stages.iter().enumerate() {
        let (line, column) = (number as u16 % lines.max(1), number as u16 / lines.max(1));
        if column >= columns {
            break;
        }
        let (x, y) = (area.x + column * width, area.y + 1 + line);
        canvas.text(x, y, 10, &stage.stage, Slot::Dim);
        let bar = width.saturating_sub(26);
        canvas.bar(x + 11, y, bar, stage.spent_ns as f64 / most.max(1) as f64);
        let each = stage.ns_per_packet.map_or_else(String::new, |ns| {
            format!("{} ns/pkt", format::millis(Some(ns), ""))
        });
        canvas.right(x + 11 + bar, y, 13, &each, Slot::Text);
    }
    lines + 1
}

fn detail(absent: &str, offload: &str, worker: &WorkerView, area: Rect, canvas: &mut Canvas<'_>) {
    let counts = &worker.counts;
    let figure =
        |value: Option<f64>| value.map_or_else(|| absent.to_owned(), |it| format!("{it:.1}"));
    let balance = if counts.is_balanced {
        "every packet accounted for"
    } else {
        "a batch is in the works"
    };
    let lines = [
        ("offload", offload.to_owned()),
        (
            "uplinks",
            format!(
                "{} datagrams per send, {} per receive",
                figure(per(counts.tx_udp_packets, counts.tx_udp_trains)),
                figure(per(counts.rx_udp_packets, counts.rx_udp_frames)),
            ),
        ),
        (
            "TUN",
            format!(
                "{} packets per read, {} per write",
                figure(per(counts.rx_tun_packets, counts.rx_tun_frames)),
                figure(per(counts.tx_tun_packets, counts.tx_tun_writes)),
            ),
        ),
        (
            "siblings",
            format!(
                "{} packets handed out, {} in",
                format::count(counts.handed_out),
                format::count(counts.handed_in)
            ),
        ),
        (
            "flows",
            format!(
                "{} opened, {} pushed out by newer ones",
                format::count(counts.flows_opened),
                format::count(counts.flows_evicted)
            ),
        ),
        (
            "balance",
            format!("{balance}; {} panics survived", worker.panics),
        ),
    ];
    pairs(canvas, area, 9, &lines);
}
