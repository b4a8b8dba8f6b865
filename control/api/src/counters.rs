//! What a gateway has counted since its start, and how fast: totals of all workers, and the rates of the last second.
//!
//! "tun" is the side of the site, inside the tunnel; "udp" is the side of the uplinks. Packets are single packets: a
//! superpacket counts its segments, a train its datagrams.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::HistoryStatusView;
use crate::types::Counter;

/// `GET /v1/counters`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountersResponse {
    /// When this was read, in milliseconds since 1970 of the gateway's wall clock.
    pub unix_ms: u64,
    /// Seconds since the start, of the monotonic clock: what to divide differences by.
    pub uptime_s: f64,
    /// Which configuration the workers have.
    pub generation: GenerationView,
    /// All workers together.
    pub totals: CountsView,
    /// Over the last second; absent in the first one.
    pub rates: Option<RatesView>,
    /// The flow tables together.
    pub flows: FlowTableView,
    /// What policy refused; its packets are among the drops.
    pub denied: Counter,
    /// What the API itself did.
    pub api: ApiCountsView,
    /// The store of recent samples.
    pub history: HistoryStatusView,
}

/// Which configuration is in force, and how many workers have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationView {
    /// The configuration that control published last; from 1.
    pub published: u64,
    /// Workers that have it.
    pub applied: usize,
    /// Workers.
    pub workers: usize,
}

/// Totals since the start: monotonic, but for `staged`.
///
/// `rx_tun_packets + rx_udp_packets + handed_in + divided = tx_tun_packets + tx_udp_packets + consumed + dropped + staged
/// + handed_out`, whenever a worker is between two batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsView {
    /// Packets read from the tunnel interface: what the site sends.
    pub rx_tun_packets: u64,
    /// Their bytes of inner IP.
    pub rx_tun_bytes: u64,
    /// Reads that brought them: superpackets, or packets one by one.
    pub rx_tun_frames: u64,
    /// Packets written to the tunnel interface: what the site receives.
    pub tx_tun_packets: u64,
    /// Bytes of inner IP handed to the kernel with them, those included that it then refused.
    pub tx_tun_bytes: u64,
    /// Writes that brought them.
    pub tx_tun_writes: u64,
    /// Datagrams read from the uplinks.
    pub rx_udp_packets: u64,
    /// Their bytes of UDP payload.
    pub rx_udp_bytes: u64,
    /// Reads that brought them: trains, or datagrams one by one.
    pub rx_udp_frames: u64,
    /// Datagrams with a forwarded packet sent to the uplinks.
    pub tx_udp_packets: u64,
    /// Bytes of UDP payload handed to the kernel, messages of our own and refused ones included.
    pub tx_udp_bytes: u64,
    /// Trains that brought them, messages of our own included.
    pub tx_udp_trains: u64,
    /// Datagrams that ended here by design: handshakes, cookies, keepalives, hellos.
    pub consumed: u64,
    /// Messages of our own that were sent; beside the balance.
    pub own_sent: u64,
    /// Messages of our own that the kernel refused; beside the balance.
    pub own_failed: u64,
    /// Packets that came in addition when others were divided for a narrow path.
    pub divided: u64,
    /// Packets that wait for a handshake at the moment.
    pub staged: u64,
    /// Packets given to the worker that owns their peer.
    pub handed_out: u64,
    /// Packets taken from another worker.
    pub handed_in: u64,
    /// Packets dropped for any reason.
    pub dropped: u64,
    /// The same by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<String, u64>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Hellos sent; among `own_sent`.
    pub hellos_sent: u64,
    /// Hellos received; among `consumed`.
    pub hellos_received: u64,
    /// Copies of data sent on a second path; among `own_sent`.
    pub copies_sent: u64,
    /// Flows opened.
    pub flows_opened: u64,
    /// Flow entries in use that lost their place to a newer flow.
    pub flows_evicted: u64,
    /// Events that control was too slow to take.
    pub events_lost: u64,
    /// Denied connections of which no event told.
    pub denials_untold: u64,
    /// Times that a path went to another address, of which no event told: one a second and path is told.
    #[serde(default)]
    pub moves_untold: u64,
    /// Resets and ICMP errors that told a sender of a denied packet.
    pub refusals: u64,
    /// Senders of denied packets that were not told, because too many were just before.
    pub refusals_held_back: u64,
    /// ICMP errors that told a sender the MTU of a path.
    pub too_big_told: u64,
    /// TCP handshakes whose announced segment size was lowered.
    pub mss_clamped: u64,
    /// Packets marked inside because a router had marked them outside.
    pub congestion_marked: u64,
    /// Whether every packet was accounted for when this was read. Of a worker in the middle of a batch it may be false
    /// for a moment.
    pub is_balanced: bool,
}

/// How fast, over the time between the last two looks at the counters: about a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RatesView {
    /// That time.
    pub window_s: f64,
    /// Share of it that went into work, in percent; of all workers together the mean.
    pub busy_pct: f64,
    /// Share of it that was spent looking for work without sleeping, in percent.
    pub spinning_pct: f64,
    /// From the tunnel interface, packets per second.
    pub rx_tun_pps: f64,
    /// Bits of inner IP per second.
    pub rx_tun_bps: f64,
    /// To the tunnel interface, packets per second.
    pub tx_tun_pps: f64,
    /// Bits of inner IP per second.
    pub tx_tun_bps: f64,
    /// From the uplinks, datagrams per second.
    pub rx_udp_pps: f64,
    /// Bits of UDP payload per second.
    pub rx_udp_bps: f64,
    /// To the uplinks, datagrams with a forwarded packet per second.
    pub tx_udp_pps: f64,
    /// Bits of UDP payload per second.
    pub tx_udp_bps: f64,
    /// Dropped, packets per second.
    pub drops_pps: f64,
    /// Flows opened per second.
    pub flows_opened_per_s: f64,
}

/// How full flow tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTableView {
    /// Entries of flows that are not idle; counted at most once a second. A flow that two workers know counts twice.
    pub used: usize,
    /// Entries.
    pub capacity: usize,
}

/// What the API did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCountsView {
    /// Connections accepted.
    pub connections: u64,
    /// Connections that are served at the moment.
    pub connections_open: u64,
    /// Connections that were cut because their client took too long.
    pub connections_cut: u64,
    /// Requests that were refused because others were served.
    pub crowded: u64,
}
