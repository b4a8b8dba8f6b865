//! Measures the paths to one peer: sends and hears hellos, keeps estimators and liveness, finds the MTU.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::ids::PathIndex;
use crate::message::Hello;
use crate::metrics::{PathMetrics, StateReason};
use crate::observation::{Observation, PathProfile};
use crate::time::Time;

/// How often a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Between hellos on a path that carries traffic, or its stand-by.
    pub active: Duration,
    /// Between hellos on a path that carries nothing.
    pub idle: Duration,
    /// How many missing hellos mean Down.
    pub multiplier: u8,
}

/// One path as configured: a local uplink and an address of the peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSpec {
    /// Number of the local uplink; 255 follows the routes.
    pub uplink: u8,
    /// The peer's address there.
    pub remote: SocketAddr,
    /// What the selector knows about it.
    pub profile: PathProfile,
    /// How often it is probed.
    pub cadence: Cadence,
}

/// The paths to one peer as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ProberConfig {
    /// The configured paths, at most [`PATHS_MAX`](crate::PATHS_MAX).
    pub paths: Vec<PathSpec>,
    /// By number: the uplinks, for paths that the peer opens.
    pub uplinks: Vec<UplinkProfile>,
    /// Largest inner packet, in bytes: what the MTU search wants to carry.
    pub inner_mtu: u16,
}

/// What a path takes from its uplink.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkProfile {
    /// Its number.
    pub uplink: u8,
    /// Its name.
    pub name: String,
    /// Cost of paths over it.
    pub cost: u16,
    /// Configured capacity outwards, in bits per second.
    pub up_bps: Option<f64>,
    /// Configured capacity inwards, in bits per second.
    pub down_bps: Option<f64>,
    /// Whether bytes cost money.
    pub is_metered: bool,
    /// How often paths over it are probed.
    pub cadence: Cadence,
}

/// How an authenticated message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// On which uplink; 255 for none that is known.
    pub uplink: u8,
    /// From where.
    pub remote: SocketAddr,
    /// To which address of ours.
    pub local: Option<IpAddr>,
}

/// Data on one path over all lanes, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Data packets sent.
    pub tx_packets: u64,
    /// Bytes of outer IP sent with them.
    pub tx_bytes: u64,
    /// Authenticated data packets received.
    pub rx_packets: u64,
    /// Bytes of outer IP received with them.
    pub rx_bytes: u64,
}

/// A hello to be sealed and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Transmit {
    /// On which path.
    pub path: PathIndex,
    /// What.
    pub hello: Hello,
    /// Length of the plaintext with padding, in bytes.
    pub len: usize,
}

/// The prober of one peer.
pub struct Prober {}

/// What the host calls.
///
/// One call in, then drain [`poll_transmit`](Prober::poll_transmit) and [`poll_observation`](Prober::poll_observation).
#[allow(unused_variables, clippy::unimplemented)]
impl Prober {
    /// A prober of the configured paths, all Down. `seed` spreads the hellos in time.
    pub fn new(config: ProberConfig, seed: u64, now: Time) -> Self {
        unimplemented!()
    }

    /// Takes a new configuration: paths that stay keep their measurements and numbers; learnt ones stay.
    pub fn configure(&mut self, config: ProberConfig, now: Time) {
        unimplemented!()
    }

    /// The path that a message came on, by its ends.
    pub fn path_of(&self, arrival: &Arrival) -> Option<PathIndex> {
        unimplemented!()
    }

    /// A hello came, in a plaintext of `len` bytes. Returns the path it belongs to: a known one, one that moved to a new
    /// address, or a new one; `None` where the table is full.
    pub fn handle_hello(
        &mut self,
        arrival: &Arrival,
        hello: &Hello,
        len: usize,
        now: Time,
    ) -> Option<PathIndex> {
        unimplemented!()
    }

    /// The data counters of a path; growth of what was received is a sign of life. To be called for every path before
    /// [`handle_timeout`](Self::handle_timeout).
    pub fn set_counters(&mut self, path: PathIndex, counters: PathCounters, now: Time) {
        unimplemented!()
    }

    /// An uplink works, or does not and why: acts at once.
    pub fn set_uplink(&mut self, uplink: u8, fault: Option<StateReason>, now: Time) {
        unimplemented!()
    }

    /// The kernel refused to send on a path as unreachable: acts at once.
    pub fn send_refused(&mut self, path: PathIndex, now: Time) {
        unimplemented!()
    }

    /// The kernel refused a datagram of that many bytes of UDP payload as too big for the path.
    pub fn send_too_big(&mut self, path: PathIndex, now: Time) {
        unimplemented!()
    }

    /// Which classes (by bit) use which path as first and which paths stand by: those are probed at the active cadence.
    pub fn set_roles(&mut self, classes_by_path: &[u8], standby: u16, now: Time) {
        unimplemented!()
    }

    /// Measures the bandwidth of a path by trains, once, now.
    pub fn measure_bandwidth(&mut self, path: PathIndex, now: Time) {
        unimplemented!()
    }

    /// Sends a hello on a path at once, for an operator who pings; its round trip is the next `Rtt` observation.
    pub fn ping(&mut self, path: PathIndex, now: Time) {
        unimplemented!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None` where nothing is due ever.
    pub fn poll_timeout(&self) -> Option<Time> {
        unimplemented!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        unimplemented!()
    }

    /// The next hello to send.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        unimplemented!()
    }

    /// The next thing to tell the selector.
    pub fn poll_observation(&mut self) -> Option<Observation> {
        unimplemented!()
    }

    /// Where packets on a path go: uplink, the peer's address, and our address that it uses.
    pub fn ends(&self, path: PathIndex) -> Option<Arrival> {
        unimplemented!()
    }

    /// The numbers of a path.
    pub fn metrics(&self, path: PathIndex, now: Time) -> Option<PathMetrics> {
        unimplemented!()
    }

    /// Whether the peer ever answered a hello: then it is a Patronus site.
    pub fn is_answered(&self) -> bool {
        unimplemented!()
    }

    /// Times that this side was late by more than an interval and gave the peer that much longer.
    pub fn starved(&self) -> u64 {
        unimplemented!()
    }
}
