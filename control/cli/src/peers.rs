//! `patronus peers`: whether the tunnels are up, and what went through them.

use clap::Args;
use patronus_api::{GradeView, PeerStateView, PeerView, PeersResponse};

use crate::gateway::Gateway;
use crate::paths::words::{age, bytes, mbit, sign};
use crate::print;

/// The command line of `peers`.
#[derive(Debug, Args)]
pub struct PeersArgs {
    /// Only this peer: its name or its public key
    peer: Option<String>,
    /// Plain letters in the place of signs, for serial consoles
    #[arg(long)]
    ascii: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `peers --help`.
pub const HELP: &str = "\
Signs: ● up, – no handshake in the last three minutes, ✖ none since the start;
with --ascii * - x. TX and RX are datagrams on the uplinks: `patronus paths` says
which path carries them. MTU counts the outer packet. `wg show` tells the same of
stock WireGuard.";

/// Lists the peers.
pub fn list(args: &PeersArgs) -> anyhow::Result<u8> {
    let mut told = args.gateway.connect()?.peers()?;
    if let Some(name) = &args.peer {
        told.peers
            .retain(|it| it.peer == *name || it.public_key == *name);
        if told.peers.is_empty() {
            anyhow::bail!("no peer `{name}`: `patronus peers` lists those there are");
        }
    }
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told, args.ascii)),
    }
    Ok(0)
}

fn for_people(told: &PeersResponse, ascii: bool) -> String {
    if told.peers.is_empty() {
        return "this site has no peers\n".to_owned();
    }
    let mut text = HEADER.to_owned();
    for peer in &told.peers {
        text += &of_peer(peer, ascii);
    }
    let up = told.peers.iter();
    let up = up.filter(|it| it.state == PeerStateView::Up).count();
    let all = print::count(told.peers.len(), "peer", "peers");
    text + &format!("{up} of {all} up\n")
}

fn of_peer(peer: &PeerView, ascii: bool) -> String {
    let grade = match peer.state {
        PeerStateView::Up => Some(GradeView::Good),
        PeerStateView::Expired => None,
        PeerStateView::Never => Some(GradeView::Bad),
    };
    let none = || sign(None, ascii).to_string();
    let span = |seconds: Option<f64>| seconds.map_or_else(none, age);
    let rate = |bps: Option<f64>| bps.map_or_else(none, |it| format!("{:.1}", mbit(it)));
    let state = format!("{} {}", sign(grade, ascii), peer.state.words());
    let name = match peer.peer.chars().count() <= NAME_WIDTH {
        true => format!("{:<NAME_WIDTH$}", peer.peer),
        // Numbers keep their columns, and the name stays whole.
        false => format!("{}\n{:NAME_WIDTH$}", peer.peer, ""),
    };
    let row = format!(
        "{name} {state:<10} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>5}\n",
        span(peer.last_handshake_age_s),
        span(peer.rekey_in_s),
        rate(peer.tx_bps),
        rate(peer.rx_bps),
        bytes(peer.tx_bytes),
        bytes(peer.rx_bytes),
        peer.mtu.map_or_else(none, |it| it.to_string()),
    );
    row + &print::wrapped(&format!("    {}", details(peer)), 6)
}

/// What has no column.
fn details(peer: &PeerView) -> String {
    let mut parts = vec![match peer.endpoint {
        Some(endpoint) => format!("at {endpoint}"),
        None => "its address is not known: it has to call".to_owned(),
    }];
    if !peer.is_site {
        parts.push("no Patronus site, or not reached yet".to_owned());
    }
    if peer.paths > 0 {
        parts.push(format!("{} of {} paths up", peer.paths_up, peer.paths));
    }
    parts.push(print::count(peer.sessions.len(), "session", "sessions"));
    if peer.replayed > 0 {
        parts.push(format!("{} replayed", peer.replayed));
    }
    if peer.auth_failed > 0 {
        parts.push(format!("{} did not authenticate", peer.auth_failed));
    }
    parts.join(", ")
}

const NAME_WIDTH: usize = 11;
const HEADER: &str =
    "PEER        STATE        SHAKE   REKEY  TX Mb/s  RX Mb/s       TX       RX   MTU\n";

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::SessionView;

    fn peer(name: &str, state: PeerStateView) -> PeerView {
        let session = SessionView {
            worker: 0,
            is_lane: false,
            endpoint: None,
            last_handshake_age_s: Some(12.3),
            rx_bytes: 0,
            rx_packets: 0,
            tx_bytes: 0,
            tx_packets: 0,
            replayed: 0,
            auth_failed: 0,
        };
        PeerView {
            peer: name.to_owned(),
            public_key: "k".to_owned(),
            is_site: true,
            state,
            endpoint: Some("203.0.113.7:51820".parse().unwrap()),
            allowed_ips: vec!["10.2.0.0/16".to_owned()],
            allowed_ips_left_out: 0,
            keepalive_s: None,
            last_handshake_age_s: Some(12.3),
            rekey_in_s: Some(107.7),
            expires_in_s: Some(167.7),
            rx_bytes: 3_400_000_000,
            rx_packets: 9,
            tx_bytes: 1_200_000,
            tx_packets: 8,
            rx_bps: Some(1_234_567_890.0),
            tx_bps: Some(12_345_678.0),
            replayed: 0,
            auth_failed: 0,
            mtu: Some(1500),
            paths_up: 1,
            paths: 2,
            sessions: vec![session.clone(), session],
        }
    }

    #[test]
    fn peers_are_told_in_columns_that_fit_with_what_is_unusual_below() {
        let mut silent = peer("a-branch-with-a-long-name", PeerStateView::Never);
        (silent.last_handshake_age_s, silent.rekey_in_s) = (None, None);
        (silent.endpoint, silent.is_site, silent.mtu) = (None, false, None);
        (silent.rx_bps, silent.tx_bps) = (None, None);
        (silent.replayed, silent.auth_failed) = (17, 2);
        let told = PeersResponse {
            unix_ms: 0,
            peers: vec![peer("branch", PeerStateView::Up), silent],
        };
        let text = for_people(&told, true);
        assert_eq!(
            text,
            "\
PEER        STATE        SHAKE   REKEY  TX Mb/s  RX Mb/s       TX       RX   MTU
branch      * up          12 s   107 s     12.3   1234.6   1.2 MB   3.4 GB  1500
    at 203.0.113.7:51820, 1 of 2 paths up, 2 sessions
a-branch-with-a-long-name
            x never up       -       -        -        -   1.2 MB   3.4 GB     -
    its address is not known: it has to call, no Patronus site, or not reached
      yet, 1 of 2 paths up, 2 sessions, 17 replayed, 2 did not authenticate
1 of 2 peers up
"
        );
        assert!(text.lines().all(|it| it.chars().count() <= 80));
    }
}
