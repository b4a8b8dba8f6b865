//! What is known of a path, in numbers.

use serde::{Deserialize, Serialize};

/// A path's liveness (RFC 5880 names, and the suspicion between Up and Down).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// Nothing is heard.
    #[default]
    Down,
    /// The peer is heard, and does not say yet that it hears us.
    Init,
    /// Both directions work.
    Up,
    /// Up, but the last hellos did not come.
    Suspect,
    /// An operator or the configuration holds it down.
    AdminDown,
}

/// Why a path has its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    /// It is new.
    #[default]
    New,
    /// The peer says that it hears us, and we hear it.
    Heard,
    /// Hellos are missing, fewer than the limit.
    HellosMissed,
    /// Nothing authenticated came for the detection time.
    DetectionExpired,
    /// The peer says that it does not hear us.
    PeerDoesNotHear,
    /// The peer says that the path is down or draining.
    PeerSignalled,
    /// The uplink lost its carrier.
    CarrierLost,
    /// The uplink lost its address, or was taken down.
    UplinkDown,
    /// The kernel says that the peer is unreachable from there.
    Unreachable,
    /// An operator drains it.
    Drained,
    /// The configuration has it no more.
    Removed,
}

/// Lost share, 0 to 1, over three windows; `None` while a window has seen too little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossWindows {
    /// Over the last second.
    pub one_s: Option<f64>,
    /// Over the last 10 s: the one that is scored and shown.
    pub ten_s: Option<f64>,
    /// Over the last 60 s.
    pub sixty_s: Option<f64>,
}

/// Where a bandwidth figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BandwidthSource {
    /// The operator says so.
    Configured,
    /// The highest delivered rate while the path was full.
    Passive,
    /// A train of probes.
    Train,
}

/// A bandwidth figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bits of outer IP per second.
    pub bps: f64,
    /// Where it comes from.
    pub source: BandwidthSource,
    /// How old it is, in seconds.
    pub age_s: f64,
}

/// The numbers of one path at one time. Times in nanoseconds, rates in bits per second, loss as a share. "tx" is from
/// here to the peer, "rx" from there to here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathMetrics {
    /// Round trip, time constant 0.5 s. `None` until one was measured.
    pub rtt_fast_ns: Option<f64>,
    /// Round trip, time constant 10 s.
    pub rtt_slow_ns: Option<f64>,
    /// Least round trip of the last 60 s.
    pub rtt_min_ns: Option<f64>,
    /// 95th percentile of the last 60 s.
    pub rtt_p95_ns: Option<f64>,
    /// Interarrival jitter (RFC 3550 section 6.4.1) towards the peer, as the peer reports it.
    pub tx_jitter_ns: Option<f64>,
    /// Interarrival jitter towards us.
    pub rx_jitter_ns: Option<f64>,
    /// Hellos lost towards the peer.
    pub tx_loss: LossWindows,
    /// Hellos lost towards us.
    pub rx_loss: LossWindows,
    /// Data packets lost towards the peer (RFC 6374 direct mode), where enough were sent.
    pub tx_data_loss: Option<f64>,
    /// Data packets lost towards us.
    pub rx_data_loss: Option<f64>,
    /// One-way delay towards us less the least of the last 60 s: the queue on the way.
    pub rx_queueing_ns: Option<f64>,
    /// Round trip less the least one: queues both ways.
    pub queueing_ns: Option<f64>,
    /// Capacity towards the peer.
    pub tx_bandwidth: Option<Bandwidth>,
    /// Capacity towards us.
    pub rx_bandwidth: Option<Bandwidth>,
    /// Rate of data sent, over the last second.
    pub tx_bps: f64,
    /// Rate of data received, over the last second.
    pub rx_bps: f64,
    /// Largest outer IP packet that is known to pass, in bytes; `None` until one of a size that matters was tried.
    pub mtu: Option<u16>,
}
