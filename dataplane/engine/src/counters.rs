//! What a worker counts, and the closed list of reasons for which a packet ends without being forwarded.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why a packet was dropped. One counter each, the same names in status, API and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's name in status, API and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// From the TUN: no IP packet.
    TunMalformed => "tun_malformed",
    /// From the TUN: a superpacket whose header contradicts it.
    TunSuperpacket => "tun_superpacket",
    /// From the TUN: no peer owns the destination.
    NoRoute => "no_route",
    /// From the TUN: the peer's address is not known yet.
    NoEndpoint => "no_endpoint",
    /// Waited for a handshake and had to make room for a newer packet.
    StagedOverflow => "staged_overflow",
    /// Waited for a handshake that was given up after 90 s.
    HandshakeTimeout => "handshake_timeout",
    /// Waited for a handshake when its peer was removed or given new keys.
    PeerRemoved => "peer_removed",
    /// The queue to the worker that owns the peer was full.
    HandoffFull => "handoff_full",
    /// Still waiting when the gateway stopped.
    Shutdown => "shutdown",
    /// From an uplink: no WireGuard message by type or reserved bytes.
    OuterType => "outer_type",
    /// From an uplink: a WireGuard type with a wrong length.
    OuterLength => "outer_length",
    /// From an uplink: larger than the receive buffer.
    OuterTruncated => "outer_truncated",
    /// From an uplink: source port 0, to which nobody can answer.
    OuterSource => "outer_source",
    /// The receiver index names no session of ours.
    UnknownIndex => "unknown_index",
    /// A handshake message that does not know our public key.
    HandshakeBadMac => "handshake_bad_mac",
    /// A handshake message with a low-order ephemeral key.
    HandshakeLowOrder => "handshake_low_order",
    /// A handshake message answered with a cookie, because we are under load.
    HandshakeUnderLoad => "handshake_under_load",
    /// An initiation from a key that is no peer.
    HandshakeUnknownPeer => "handshake_unknown_peer",
    /// An initiation no newer than the last one.
    HandshakeReplayed => "handshake_replayed",
    /// An initiation less than 20 ms behind the last one of its peer.
    HandshakeFlood => "handshake_flood",
    /// A handshake message for no handshake of ours, or with wrong keys.
    HandshakeInvalid => "handshake_invalid",
    /// A cookie we did not ask for, or that does not decrypt.
    CookieInvalid => "cookie_invalid",
    /// A data message for a session that has ended.
    DataNoSession => "data_no_session",
    /// A data message seen before.
    DataReplayed => "data_replayed",
    /// A data message seen before that came on one of its peer's several paths: a copy, sent in case the first is lost.
    DataCopy => "data_copy",
    /// A data message behind the replay window.
    DataTooOld => "data_too_old",
    /// A data message with a counter past the protocol's limit.
    DataCounterLimit => "data_counter_limit",
    /// A data message whose tag does not fit.
    DataBadTag => "data_bad_tag",
    /// Authenticated, but no IP packet inside.
    InnerMalformed => "inner_malformed",
    /// Authenticated, but a control message of lanes that makes no sense.
    ControlMalformed => "control_malformed",
    /// Authenticated, but the inner source belongs to another peer or to nobody.
    InnerSource => "inner_source",
    /// From the TUN: longer than its path takes, and its sender forbids to divide it; the sender is told.
    PathMtu => "path_mtu",
    /// From a peer: a router on the way marked congestion, and the inner sender does not understand marks (RFC 6040).
    CongestionUnmarkable => "congestion_unmarkable",
    /// From the TUN: policy denies the connection.
    PolicyDeniedOut => "policy_denied_out",
    /// From a peer: policy denies the connection.
    PolicyDeniedIn => "policy_denied_in",
    /// The kernel had no buffer for the datagram, or the socket stayed full.
    SendNoBuffers => "send_no_buffers",
    /// The kernel has no route to the endpoint.
    SendUnreachable => "send_unreachable",
    /// The datagram is larger than the path takes.
    SendTooBig => "send_too_big",
    /// A firewall rule refused the datagram.
    SendDenied => "send_denied",
    /// Any other refusal of a send.
    SendOther => "send_other",
    /// The kernel refused a packet written to the TUN.
    TunWrite => "tun_write",
    /// Was in the worker's hands when it panicked.
    WorkerPanic => "worker_panic",
}

/// Number of drop reasons.
pub const DROP_REASONS: usize = DropReason::ALL.len();

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the worker started. Packets are single packets: a superpacket counts its segments.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Packets dropped, by [`DropReason`].
            pub drops: [u64; DROP_REASONS],
        }

        impl Default for Counters {
            fn default() -> Self {
                Self { $($name: 0,)* drops: [0; DROP_REASONS] }
            }
        }

        /// [`Counters`] where other threads can read them: stored once per batch by their worker.
        #[derive(Debug)]
        pub struct PublishedCounters {
            $($name: AtomicU64,)*
            drops: [AtomicU64; DROP_REASONS],
        }

        impl Default for PublishedCounters {
            fn default() -> Self {
                Self { $($name: AtomicU64::new(0),)* drops: [const { AtomicU64::new(0) }; DROP_REASONS] }
            }
        }

        impl PublishedCounters {
            pub(crate) fn store(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
                for (cell, value) in self.drops.iter().zip(counters.drops) {
                    cell.store(value, Ordering::Relaxed);
                }
            }

            /// The totals as last stored. Each is right by itself; between two batches they also add up.
            pub fn load(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    drops: std::array::from_fn(|at| self.drops[at].load(Ordering::Relaxed)),
                }
            }
        }

        impl std::ops::AddAssign<&Counters> for Counters {
            fn add_assign(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
                for (sum, value) in self.drops.iter_mut().zip(other.drops) {
                    *sum += value;
                }
            }
        }
    };
}

counters! {
    /// Packets read from the TUN.
    rx_tun,
    /// Bytes of inner IP read from the TUN.
    rx_tun_bytes,
    /// Frames that the packets from the TUN came in: superpackets, or packets one by one.
    rx_tun_frames,
    /// Datagrams read from the uplinks.
    rx_udp,
    /// Bytes of UDP payload read from the uplinks.
    rx_udp_bytes,
    /// Frames that the datagrams from the uplinks came in: trains, or datagrams one by one.
    rx_udp_frames,
    /// Packets written to the TUN.
    tx_tun,
    /// Bytes of inner IP handed to the TUN, those included that the kernel then refused.
    tx_tun_bytes,
    /// Writes that brought them: superpackets, or packets one by one.
    tx_tun_writes,
    /// Datagrams with a forwarded packet sent to the uplinks.
    tx_udp,
    /// Bytes of UDP payload handed to the uplinks' sockets, messages of our own and refused ones included.
    tx_udp_bytes,
    /// Trains that brought them, messages of our own included.
    tx_udp_trains,
    /// Datagrams that ended here by design: handshakes, cookies, keepalives.
    consumed,
    /// Handshakes, cookies, keepalives and refusals to far senders of our own that were sent. Not part of the balance.
    own_sent,
    /// Hellos sent, beside the balance like all messages of our own, among which they are counted too.
    hellos_sent,
    /// Hellos received; they are among `consumed`.
    hellos_received,
    /// Copies of data sent on a second path while the first is suspect; among `own_sent`.
    copies_sent,
    /// Messages of our own that the kernel refused. Not part of the balance.
    own_failed,
    /// Packets that came in addition when others were divided for a narrow path.
    divided,
    /// Packets that wait for a handshake: a gauge.
    staged,
    /// Packets given to the worker that owns their peer.
    handed_out,
    /// Packets taken from another worker.
    handed_in,
    /// Flows that were opened.
    flows_opened,
    /// Flow entries in use that lost their place to a newer flow.
    flows_evicted,
    /// Events that control was too slow to take.
    events_lost,
    /// Handshakes completed.
    handshakes,
    /// Resets and ICMP errors that tell a sender of a denied packet. Not part of the balance.
    refusals,
    /// Denied packets whose sender was not told, because too many were just before.
    refusals_held_back,
    /// ICMP errors that tell a sender the MTU of a path. Not part of the balance.
    too_big_told,
    /// TCP handshakes whose announced segment size was lowered.
    mss_clamped,
    /// Packets that were marked inside because a router had marked them outside.
    congestion_marked,
    /// Denied connections, and such that policies in audit mode would deny, that no event told of.
    denials_untold,
    /// Times that a path went to another address, of which no event told.
    moves_untold,
}

impl Counters {
    /// Packets that came in from the kernel.
    pub fn rx(&self) -> u64 {
        self.rx_tun + self.rx_udp
    }

    /// Packets that left towards the kernel and were taken by it.
    pub fn tx(&self) -> u64 {
        self.tx_tun + self.tx_udp
    }

    /// Packets dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Counts `packets` dropped for `reason`.
    #[inline]
    pub fn drop(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason as usize] += packets;
    }

    /// The reasons that occurred.
    pub fn drops_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let all = DropReason::ALL.iter().copied().zip(self.drops);
        all.filter(|(_, packets)| *packets > 0)
    }

    /// Whether every packet is accounted for: what came in went out, was consumed, was dropped, or waits.
    ///
    /// Holds for a worker whenever its batches are drained, and for the sum of all workers when no packet is on
    /// its way between two of them.
    pub fn is_balanced(&self) -> bool {
        self.rx() + self.handed_in + self.divided
            == self.tx() + self.consumed + self.dropped() + self.staged + self.handed_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_prometheus() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DROP_REASONS);
    }

    #[test]
    fn published_counters_come_back_as_they_were() {
        let mut counters = Counters {
            rx_tun: 3,
            consumed: 1,
            ..Counters::default()
        };
        counters.drop(DropReason::DataBadTag, 2);
        let published = PublishedCounters::default();
        published.store(&counters);
        assert_eq!(published.load(), counters);
        assert!(counters.is_balanced());
        counters.tx_udp += 1;
        assert!(!counters.is_balanced());
    }
}
