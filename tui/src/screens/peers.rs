//! Screen 3: is the tunnel up?
//!
//! ```text
//! ├─ Peers 12 ──────────────────────────────────────────────┤
//! │▌lon-1  ● up   203.0.113.7:51820   8 s  1.9 Gbit/s  …    │
//! ├─ Sessions of lon-1 ─────────────────────────────────────┤
//! │ worker 0  first  8 s  rx 2.1 GB  tx 31 MB  replayed 0   │
//! ```

use patronus_api::{PeerStateView, PeerView};
use ratatui::layout::Rect;

use super::{count_title, pairs};
use crate::canvas::Canvas;
use crate::format;
use crate::model::Model;
use crate::table::{Cell, Column, Row};
use crate::theme::{Mark, Slot};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("peer", 10).growing(),
    Column::text("state", 10),
    Column::text("endpoint", 21),
    Column::figures("handshake", 9),
    Column::figures("RX", 11),
    Column::figures("TX", 11),
    Column::figures("paths", 5).spare(1),
    Column::figures("replayed", 8).spare(3),
    Column::figures("no auth", 7).spare(2),
    Column::figures("outer MTU", 9).spare(4),
];

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let Some(snapshot) = &model.data().snapshot else {
        return Vec::new();
    };
    snapshot.peers.iter().map(|peer| row(model, peer)).collect()
}

fn mark(peer: &PeerView) -> Mark {
    match peer.state {
        PeerStateView::Up if peer.paths > 0 && peer.paths_up < peer.paths => Mark::Warning,
        PeerStateView::Up => Mark::Good,
        PeerStateView::Expired => Mark::Warning,
        PeerStateView::Never => Mark::Bad,
    }
}

fn row(model: &Model, peer: &PeerView) -> Row {
    let glyphs = model.look.glyphs;
    let absent = || glyphs.absent().to_owned();
    let mark = mark(peer);
    let rate = |bps: Option<f64>| Cell::figure(bps.map_or_else(absent, format::bit_rate), bps);
    let age = peer.last_handshake_age_s;
    let paths = if peer.paths > 0 {
        format!("{}/{}", peer.paths_up, peer.paths)
    } else {
        absent()
    };
    Row {
        id: peer.peer.clone(),
        cells: vec![
            Cell::text(peer.peer.clone()),
            Cell::text(format!("{} {}", glyphs.mark(mark), peer.state.words())).marked(mark),
            Cell::text(peer.endpoint.map_or_else(absent, |it| it.to_string())),
            // The freshest first.
            Cell::figure(age.map_or_else(absent, format::span), age.map(|age| -age)),
            rate(peer.rx_bps),
            rate(peer.tx_bps),
            Cell::figure(paths, Some(peer.paths_up as f64)),
            Cell::figure(
                format::short_count(peer.replayed),
                Some(peer.replayed as f64),
            ),
            Cell::figure(
                format::short_count(peer.auth_failed),
                Some(peer.auth_failed as f64),
            ),
            Cell::figure(
                peer.mtu.map_or_else(absent, |it| it.to_string()),
                peer.mtu.map(f64::from),
            ),
        ],
    }
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let rows = model.rows();
    let (title, right) = count_title("Peers", rows.len(), model);
    canvas.rule(area.y, &title, &right);
    let selected = model
        .table()
        .place_in(&rows)
        .map(|place| rows[place].id.clone());
    let peers = model
        .data()
        .snapshot
        .as_ref()
        .map_or(&[][..], |snapshot| &snapshot.peers);
    let peer = peers
        .iter()
        .find(|peer| Some(&peer.peer) == selected.as_ref());
    let Some(peer) = peer else {
        canvas.text(
            area.x + 1,
            area.y + 1,
            area.width - 2,
            "no peers",
            Slot::Dim,
        );
        return;
    };
    let pane = (peer.sessions.len() as u16 + 5).clamp(7, area.height / 2);
    let pane_y = area.bottom() - pane;
    canvas.table(
        Rect::new(area.x, area.y + 1, area.width, pane_y - area.y - 1),
        COLUMNS,
        &rows,
        model.table(),
    );
    let kind = if peer.is_site {
        "Patronus site"
    } else {
        "stock WireGuard"
    };
    canvas.rule(pane_y, &format!("Peer {}", peer.peer), kind);
    let absent = model.look.glyphs.absent();
    let span = |seconds: Option<f64>| seconds.map_or_else(|| absent.to_owned(), format::span);
    let more = if peer.allowed_ips_left_out > 0 {
        format!(" and {} more", peer.allowed_ips_left_out)
    } else {
        String::new()
    };
    let keepalive = peer
        .keepalive_s
        .map_or_else(|| "off".to_owned(), |it| format!("every {it} s"));
    let lines = [
        ("key", peer.public_key.clone()),
        ("prefixes", format!("{}{more}", peer.allowed_ips.join(" "))),
        (
            "session",
            format!(
                "rekey in {}, ends in {}; keepalive {keepalive}",
                span(peer.rekey_in_s),
                span(peer.expires_in_s)
            ),
        ),
    ];
    pairs(
        canvas,
        Rect::new(area.x + 1, pane_y + 1, area.width - 2, 3),
        8,
        &lines,
    );
    let sessions = peer
        .sessions
        .iter()
        .take(usize::from(pane.saturating_sub(4)));
    for (line, session) in sessions.enumerate() {
        let kind = if session.is_lane { "lane " } else { "first" };
        let text = format!(
            "worker {:<2} {kind} {:>9}  rx {:>7} tx {:>7}  replayed {}  no auth {}",
            session.worker,
            span(session.last_handshake_age_s),
            format::bytes(session.rx_bytes),
            format::bytes(session.tx_bytes),
            session.replayed,
            session.auth_failed,
        );
        canvas.text(
            area.x + 1,
            pane_y + 4 + line as u16,
            area.width - 2,
            &text,
            Slot::Text,
        );
    }
}
