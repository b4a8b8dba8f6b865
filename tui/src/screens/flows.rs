//! Screen 4: what is this connection doing? One row, one truth: class, path, rule, worker.
//!
//! ```text
//! ├─ Flows 61 204 ───────────────────────── filter: port=443 ┤
//! │▌tcp 10.1.4.22:50312 → 10.8.3.9:443  lon-1  allow  1.2 GB │
//! ├─ Selected flow ──────────────────────────────────────────┤
//! ```

use std::net::IpAddr;

use patronus_api::{FlowSort, FlowView, VerdictView};
use ratatui::layout::Rect;

use super::pairs;
use crate::canvas::Canvas;
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row, TableState};
use crate::theme::{Mark, Slot};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("proto", 5),
    Column::text("source", 21).growing(),
    Column::text("destination", 21).growing(),
    Column::text("peer", 9),
    Column::text("class", 9).spare(1),
    Column::text("verdict", 7),
    Column::figures("bytes", 8),
    Column::figures("packets", 7).spare(2),
    Column::figures("idle", 6).spare(3),
];

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let Some(flows) = &model.data().flows else {
        return Vec::new();
    };
    flows.flows.iter().map(|flow| row(model, flow)).collect()
}

fn row(model: &Model, flow: &FlowView) -> Row {
    let absent = || model.look.glyphs.absent().to_owned();
    let (verdict, mark) = match flow.verdict {
        Some(VerdictView::Allow) => ("allow".to_owned(), Mark::Good),
        Some(VerdictView::Deny) => ("deny".to_owned(), Mark::Bad),
        None => (absent(), Mark::Absent),
    };
    Row {
        id: connection(flow),
        cells: vec![
            Cell::text(format::protocol(flow.protocol)),
            Cell::text(end(flow.src, flow.src_port, flow.protocol)),
            Cell::text(end(flow.dst, flow.dst_port, flow.protocol)),
            Cell::text(flow.peer.clone().unwrap_or_else(absent)),
            Cell::text(flow.class.clone().unwrap_or_else(absent)),
            Cell::text(verdict).marked(mark),
            Cell::figure(format::bytes(flow.bytes), Some(flow.bytes as f64)),
            Cell::figure(format::short_count(flow.packets), Some(flow.packets as f64)),
            Cell::figure(format!("{} s", flow.idle_s), Some(flow.idle_s as f64)),
        ],
    }
}

/// The flow whose row is selected.
pub fn selected(model: &Model) -> Option<&FlowView> {
    let id = model.selected()?.id;
    let flows = &model.data().flows.as_ref()?.flows;
    flows.iter().find(|flow| connection(flow) == id)
}

/// `tcp 10.1.4.22:50312 > 10.8.3.9:443`, which also names the row.
pub fn connection(flow: &FlowView) -> String {
    let protocol = format::protocol(flow.protocol);
    let src = end(flow.src, flow.src_port, flow.protocol);
    let dst = end(flow.dst, flow.dst_port, flow.protocol);
    format!("{protocol} {src} > {dst}")
}

/// Whether a protocol has ports.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

/// A protocol as requests for explanations name it.
pub fn protocol_word(protocol: u8) -> String {
    match protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => other.to_string(),
    }
}

fn end(addr: IpAddr, port: u16, protocol: u8) -> String {
    match addr {
        _ if !has_ports(protocol) => addr.to_string(),
        IpAddr::V4(addr) => format!("{addr}:{port}"),
        IpAddr::V6(addr) => format!("[{addr}]:{port}"),
    }
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let filter = &model.table().filter;
    let right = match (&model.refused, filter.is_empty()) {
        (Some(_), _) => format!("refused: {filter}"),
        (None, true) => format!("by {}", model.flow_sort().name()),
        (None, false) => format!("filter: {filter}   by {}", model.flow_sort().name()),
    };
    let rows = model.rows();
    let title = match &model.data().flows {
        Some(flows) if flows.matched > rows.len() => {
            format!(
                "Flows: {} of {}",
                format::count(rows.len() as u64),
                format::count(flows.matched as u64)
            )
        }
        Some(_) => format!("Flows {}", format::count(rows.len() as u64)),
        None => "Flows".to_owned(),
    };
    canvas.rule(area.y, &title, &right);
    let pane_y = area.bottom() - 6;
    let table = Rect::new(area.x, area.y + 1, area.width, pane_y - area.y - 1);
    if let Some(why) = &model.refused {
        canvas.text(table.x + 1, table.y + 1, table.width - 2, why, Slot::Bad);
    } else {
        let sort = Some(sorted_column(model.flow_sort()));
        let state = TableState {
            sort,
            ..model.table().clone()
        };
        canvas.table(table, COLUMNS, &rows, &state);
    }
    canvas.rule(pane_y, "Selected flow", "");
    let id = model.table().place_in(&rows).map(|place| &rows[place].id);
    let flows = model
        .data()
        .flows
        .as_ref()
        .map_or(&[][..], |flows| &flows.flows);
    let Some(flow) = flows.iter().find(|flow| Some(&connection(flow)) == id) else {
        canvas.text(area.x + 1, pane_y + 1, area.width - 2, "none", Slot::Dim);
        return;
    };
    detail(
        model,
        flow,
        Rect::new(area.x + 1, pane_y + 1, area.width - 2, 5),
        canvas,
    );
}

fn detail(model: &Model, flow: &FlowView, area: Rect, canvas: &mut Canvas<'_>) {
    let absent = model.look.glyphs.absent();
    let peer = flow.peer.as_deref();
    let path = peer.zip(flow.path).and_then(|(peer, number)| {
        let paths = &model.data().paths_of(peer)?.paths;
        paths.iter().find(|path| path.path == number)
    });
    let path_text = match (path, flow.path) {
        (Some(path), _) => format!(
            "{} ({}), rtt {} ms",
            path.name,
            path.state.words(),
            format::millis(path.rtt_ms, absent)
        ),
        (None, Some(number)) => format!("path {number}"),
        (None, None) => absent.to_owned(),
    };
    let rule = match (&flow.rule, flow.verdict) {
        (Some(rule), _) => super::policy::place(rule),
        (None, Some(VerdictView::Deny)) => "a rule that is no longer in force".to_owned(),
        (None, Some(VerdictView::Allow)) => "x says which rule allows it".to_owned(),
        (None, None) => absent.to_owned(),
    };
    let lines = [
        (
            "opened",
            format!(
                "by {}, worker {}, last packet {} s ago",
                side(&flow.opened_by),
                flow.worker,
                flow.idle_s
            ),
        ),
        ("rule", rule),
        (
            "class",
            flow.class.clone().unwrap_or_else(|| absent.to_owned()),
        ),
        (
            "path",
            format!("to {}: {path_text}", peer.unwrap_or(absent)),
        ),
        (
            "both ways",
            format!(
                "{} in {} packets",
                format::bytes(flow.bytes),
                format::count(flow.packets)
            ),
        ),
    ];
    pairs(canvas, area, 9, &lines);
}

/// The column that shows what the gateway sorted by.
fn sorted_column(sort: FlowSort) -> usize {
    match sort {
        FlowSort::Src => 1,
        FlowSort::Dst => 2,
        FlowSort::Peer => 3,
        FlowSort::Bytes => 6,
        FlowSort::Packets => 7,
        FlowSort::Recent => 8,
    }
}

fn side(opened_by: &str) -> &str {
    match opened_by {
        "local" => "this site",
        "remote" => "the peer",
        other => other,
    }
}
