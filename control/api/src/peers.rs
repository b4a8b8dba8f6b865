//! The peers: whether their tunnels are up, and what went through them. What paths they have is `GET /v1/paths`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `GET /v1/peers`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeersResponse {
    /// When this was read, in milliseconds since 1970 of the gateway's wall clock.
    pub unix_ms: u64,
    /// The peers, by name.
    pub peers: Vec<PeerView>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name, or the start of its key.
    pub peer: String,
    /// Its public key.
    pub public_key: String,
    /// Whether it answers hellos: it is a Patronus site.
    pub is_site: bool,
    /// Whether the tunnel is up.
    pub state: PeerStateView,
    /// Where it was heard last, or where configuration says it is.
    pub endpoint: Option<SocketAddr>,
    /// The inner prefixes that it owns; at most [`PREFIXES_MAX`](crate::PREFIXES_MAX).
    pub allowed_ips: Vec<String>,
    /// How many more there are.
    pub allowed_ips_left_out: usize,
    /// Seconds between persistent keepalives; absent where they are off.
    pub keepalive_s: Option<u64>,
    /// Seconds since the last handshake on the first session; absent where there was none.
    pub last_handshake_age_s: Option<f64>,
    /// Seconds until the first session is due to be replaced by this side, when it sends; 0 where that is overdue.
    /// Absent where there is no session, or where the other side began it and replaces it.
    pub rekey_in_s: Option<f64>,
    /// Seconds until the first session ends for good unless it is replaced (WireGuard's `REJECT_AFTER_TIME`).
    pub expires_in_s: Option<f64>,
    /// Bytes of UDP payload received from it and authenticated, on all sessions.
    pub rx_bytes: u64,
    /// The same in datagrams.
    pub rx_packets: u64,
    /// Bytes of UDP payload sent to it.
    pub tx_bytes: u64,
    /// The same in datagrams.
    pub tx_packets: u64,
    /// Bits of UDP payload per second, over the last second; absent in the first one.
    pub rx_bps: Option<f64>,
    /// Bits of UDP payload per second sent.
    pub tx_bps: Option<f64>,
    /// Messages that were seen before, or too old to tell. Copies that came by a second path do not count.
    pub replayed: u64,
    /// Messages in its sessions' names that did not authenticate.
    pub auth_failed: u64,
    /// Largest outer IP packet that passes on the path of most classes, in bytes; absent where it was not measured.
    pub mtu: Option<u16>,
    /// Paths that carry packets.
    pub paths_up: usize,
    /// Paths.
    pub paths: usize,
    /// Its sessions: the first, then one per lane.
    pub sessions: Vec<SessionView>,
}

/// Whether a peer's tunnel is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerStateView {
    /// A handshake completed in the last three minutes.
    Up,
    /// The last handshake is older, so its session has ended: idle, or out of reach.
    Expired,
    /// There was no handshake since the start.
    Never,
}

/// One WireGuard session with a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionView {
    /// The worker that has it.
    pub worker: usize,
    /// Whether it is a lane beside the first session.
    pub is_lane: bool,
    /// Where the peer was heard last on it.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since its last handshake.
    pub last_handshake_age_s: Option<f64>,
    /// Bytes of UDP payload received and authenticated.
    pub rx_bytes: u64,
    /// The same in datagrams.
    pub rx_packets: u64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// The same in datagrams.
    pub tx_packets: u64,
    /// Messages that were seen before, or too old to tell.
    pub replayed: u64,
    /// Messages that did not authenticate.
    pub auth_failed: u64,
}

impl PeerStateView {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Expired => "expired",
            Self::Never => "never up",
        }
    }
}
