//! Screen 1: the first five seconds. Is it well, how much goes through, what is dropped?
//!
//! ```text
//! ├─ Throughput, last 60 s ────────────┬─ Health ──────────┤
//! │ TX 3.74 Gbit/s  342 kpps ▂▃▅▅▆▆▇▇  │ ● tunnels  11/12  │
//! ├─ Sites by traffic ─────────────────┼─ Drops, last min ─┤
//! │▌lon-1  isp-a ●  14 ms 0.0% 1.9 G   │ no_route     412  │
//! ├─ Events ───────────────────────────┴───────────────────┤
//! ```

use patronus_api::{PeerStateView, PeerView, Snapshot};
use ratatui::layout::Rect;

use super::{grade_mark, path_mark};
use crate::canvas::{Canvas, text_width};
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row};
use crate::theme::{Mark, Slot};
use crate::tracks::worse;

pub(super) const COLUMNS: &[Column] = &[
    Column::text("site", 9).growing(),
    Column::text("path now", 10),
    Column::figures("rtt ms", 6),
    Column::figures("loss", 5),
    Column::figures("TX", 11),
    Column::figures("RX", 11).spare(1),
];

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let Some(snapshot) = &model.data().snapshot else {
        return Vec::new();
    };
    let mut peers: Vec<&PeerView> = snapshot.peers.iter().collect();
    let traffic = |peer: &PeerView| peer.tx_bps.unwrap_or(0.0) + peer.rx_bps.unwrap_or(0.0);
    peers.sort_by(|a, b| traffic(b).total_cmp(&traffic(a)).then(a.peer.cmp(&b.peer)));
    peers.into_iter().map(|peer| row(model, peer)).collect()
}

fn row(model: &Model, peer: &PeerView) -> Row {
    let absent = model.look.glyphs.absent();
    let view = model.data().paths_of(&peer.peer);
    // The path of the class that has what fits no other.
    let used = view.and_then(|view| {
        let route = view.routes.iter().find_map(|route| route.path)?;
        view.paths.iter().find(|path| path.path == route)
    });
    let path = match used {
        Some(path) => {
            let name = path.uplink.as_deref().unwrap_or("by route");
            Cell::text(format!(
                "{} {name}",
                model.look.glyphs.mark(path_mark(path))
            ))
            .marked(path_mark(path))
        }
        None if view.is_some_and(|view| !view.paths.is_empty()) => {
            Cell::text(format!("{} no path", model.look.glyphs.mark(Mark::Bad))).marked(Mark::Bad)
        }
        None => match peer.state {
            PeerStateView::Up => {
                Cell::text(format!("{} up", model.look.glyphs.mark(Mark::Good))).marked(Mark::Good)
            }
            PeerStateView::Expired | PeerStateView::Never => {
                let text = format!(
                    "{} {}",
                    model.look.glyphs.mark(Mark::Warning),
                    peer.state.words()
                );
                Cell::text(text).marked(Mark::Warning)
            }
        },
    };
    let rtt = used.and_then(|path| path.rtt_ms);
    let loss = used.and_then(|path| worse(path.tx_loss.ten_s_pct, path.rx_loss.ten_s_pct));
    let rate = |bps: Option<f64>| {
        Cell::figure(bps.map_or_else(|| absent.to_owned(), format::bit_rate), bps)
    };
    Row {
        id: peer.peer.clone(),
        cells: vec![
            Cell::text(peer.peer.clone()),
            path,
            Cell::figure(format::millis(rtt, absent), rtt),
            Cell::figure(format::percent(loss, absent), loss),
            rate(peer.tx_bps),
            rate(peer.rx_bps),
        ],
    }
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let Some(snapshot) = &model.data().snapshot else {
        return;
    };
    let split = area.x + area.width * 3 / 5;
    let events = (area.height / 5).max(3);
    let sites_y = area.y + 5;
    let events_y = area.bottom() - events - 1;
    let span_s = model.span_ms() / 1000;
    canvas.rule(
        area.y,
        &format!("Throughput, last {}", format::span(span_s as f64)),
        "",
    );
    canvas.rule_title(split + 2, area.y, "Health");
    let left = Rect::new(area.x, area.y + 1, split - area.x, 4);
    throughput(model, snapshot, left, canvas);
    let right_width = area.right() - split - 1;
    health(
        snapshot,
        Rect::new(split + 2, area.y + 1, right_width - 2, 4),
        canvas,
    );

    let more = if snapshot.peers_left_out > 0 {
        format!("{} more", snapshot.peers_left_out)
    } else {
        String::new()
    };
    canvas.rule(sites_y, "Sites by traffic", "");
    canvas.rule_title(split + 2, sites_y, "Drops, last minute");
    let table = Rect::new(area.x, sites_y + 1, split - area.x, events_y - sites_y - 1);
    canvas.table(table, COLUMNS, &model.rows(), model.table());
    let drops = Rect::new(
        split + 2,
        sites_y + 1,
        right_width - 2,
        events_y - sites_y - 1,
    );
    self::drops(model, drops, canvas);

    canvas.rule(events_y, "Events", &more);
    canvas.divider(split, area.y, events_y);
    canvas.crossing(split, sites_y);
    let shown = usize::from(events);
    for (line, event) in model.data().events.iter().rev().take(shown).enumerate() {
        let y = events_y + 1 + line as u16;
        canvas.text(area.x + 1, y, 8, &format::clock(event.unix_ms), Slot::Dim);
        canvas.marked(
            area.x + 10,
            y,
            area.width - 11,
            grade_mark(event.grade),
            &super::events::sentence(event),
        );
    }
}

fn throughput(model: &Model, snapshot: &Snapshot, area: Rect, canvas: &mut Canvas<'_>) {
    let rates = snapshot.rates.unwrap_or_default();
    let tracks = &model.data().tracks;
    let lines = [
        (
            "TX",
            format::bit_rate(rates.tx_udp_bps),
            format::packet_rate(rates.tx_udp_pps),
            &tracks.tx_bps,
        ),
        (
            "RX",
            format::bit_rate(rates.rx_udp_bps),
            format::packet_rate(rates.rx_udp_pps),
            &tracks.rx_bps,
        ),
        (
            "drops",
            drop_share(snapshot),
            format::packet_rate(rates.drops_pps),
            &tracks.drops_pps,
        ),
    ];
    let chart_x = area.x + 32;
    let chart = area.right().saturating_sub(chart_x + 1);
    for (line, (label, rate, packets, track)) in lines.into_iter().enumerate() {
        let y = area.y + line as u16;
        canvas.text(area.x + 1, y, 5, label, Slot::Dim);
        canvas.right(area.x + 7, y, 12, &rate, Slot::Text);
        canvas.right(area.x + 20, y, 10, &packets, Slot::Text);
        let cells = track.cells(model.data().unix_ms(), model.span_ms(), usize::from(chart));
        canvas.sparkline(chart_x, y, &cells);
    }
    let y = area.y + 3;
    canvas.text(area.x + 1, y, 12, "worker busy", Slot::Dim);
    let mut x = area.x + 14;
    for worker in &snapshot.workers {
        let busy = worker.rates.map_or(0.0, |rates| rates.busy_pct);
        if x + 14 > area.right() {
            break;
        }
        let end = canvas.text(x, y, 3, &worker.worker.to_string(), Slot::Dim);
        canvas.bar(end + 1, y, 5, busy / 100.0);
        canvas.right(end + 6, y, 5, &format!("{busy:.0}%"), Slot::Text);
        x = end + 13;
    }
}

/// Of what came in, in percent; over the last second.
fn drop_share(snapshot: &Snapshot) -> String {
    let Some(rates) = snapshot.rates else {
        return String::new();
    };
    let came = rates.rx_tun_pps + rates.rx_udp_pps;
    if came <= 0.0 {
        return "0 %".to_owned();
    }
    format!("{:.3} %", 100.0 * rates.drops_pps / came)
}

fn health(snapshot: &Snapshot, area: Rect, canvas: &mut Canvas<'_>) {
    let status = &snapshot.status;
    let tunnels = if status.peers_up == status.peers {
        Mark::Good
    } else {
        Mark::Warning
    };
    let used = || {
        let peers = snapshot.paths.peers.iter();
        peers
            .flat_map(|peer| &peer.paths)
            .flat_map(|path| &path.classes)
            .filter(|class| class.is_used)
    };
    let (within, routes) = (
        used().filter(|class| class.tier == 0).count(),
        used().count(),
    );
    let unrouted = snapshot
        .paths
        .peers
        .iter()
        .filter(|peer| !peer.paths.is_empty());
    let unrouted = unrouted
        .flat_map(|peer| &peer.routes)
        .filter(|route| route.path.is_none())
        .count();
    let paths = match (unrouted, within == routes) {
        (0, true) => Mark::Good,
        (0, false) => Mark::Warning,
        _ => Mark::Bad,
    };
    let flows = snapshot.flows;
    let is_full = flows.used * 10 >= flows.capacity * 9;
    let generation = snapshot.generation;
    let workers = if generation.applied == generation.workers {
        Mark::Good
    } else {
        Mark::Warning
    };
    let worst = status
        .health
        .as_ref()
        .and_then(|health| health.problems.first());
    let last = match worst {
        Some(problem) => (
            grade_mark(problem.grade),
            problem.text.clone(),
            String::new(),
        ),
        None => (
            workers,
            "workers in step".to_owned(),
            format!("{} / {}", generation.applied, generation.workers),
        ),
    };
    let lines = [
        (
            tunnels,
            "tunnels up".to_owned(),
            format!("{} / {}", status.peers_up, status.peers),
        ),
        (
            paths,
            "classes in SLA".to_owned(),
            format!("{within} / {}", routes + unrouted),
        ),
        (
            if is_full { Mark::Warning } else { Mark::Good },
            "flow table".to_owned(),
            format!(
                "{} / {}",
                format::short_count(flows.used as u64),
                format::short_count(flows.capacity as u64)
            ),
        ),
        last,
    ];
    for (line, (mark, label, value)) in lines.into_iter().enumerate() {
        let y = area.y + line as u16;
        let room = area.width.saturating_sub(text_width(&value) + 1);
        canvas.marked(area.x, y, room, mark, &label);
        canvas.right(area.x, y, area.width, &value, Slot::Text);
    }
}

fn drops(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let drops = model.data().drops_of_last_minute();
    if drops.is_empty() {
        canvas.marked(
            area.x,
            area.y,
            area.width,
            Mark::Good,
            "nothing was dropped",
        );
        return;
    }
    for (line, (reason, count)) in drops.into_iter().take(usize::from(area.height)).enumerate() {
        let y = area.y + line as u16;
        let slot = if count > 0 { Slot::Text } else { Slot::Dim };
        canvas.text(area.x, y, area.width - 8, reason, slot);
        canvas.right(area.x, y, area.width, &format::count(count), slot);
    }
}
