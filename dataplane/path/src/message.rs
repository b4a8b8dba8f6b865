//! The hello: the message that measures a path and keeps it alive, modelled on STAMP (RFC 8762) and BFD (RFC 5880).
//!
//! It is the plaintext of a WireGuard data message on the path that it measures; its first nibble is neither 4 nor 6, so
//! a stock peer drops it as no IP packet.

use crate::metrics::{PathState, StateReason};

/// Bytes of a hello without padding.
pub const HELLO_LEN: usize = 96;

/// What a hello is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Measures and keeps alive.
    Hello,
    /// One of a train that measures bandwidth.
    Train,
    /// Padded to the size that is tried; answered at once.
    MtuProbe,
    /// "That size came": echoes the length of an MTU probe.
    MtuReply,
    /// A lane tells the other end its address on this path; measures nothing.
    Lane,
}

/// One hello, read or to be written. Times are the sender's monotonic nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hello {
    /// What it is for.
    pub kind: Kind,
    /// The sender hears the receiver on this path.
    pub hears_you: bool,
    /// The sender suspects the path.
    pub is_suspect: bool,
    /// The sender drains the path.
    pub is_draining: bool,
    /// Bytes cost money at the sender's end.
    pub is_metered: bool,
    /// The sender's state of the path.
    pub state: PathState,
    /// Why.
    pub reason: StateReason,
    /// The sender's number of the path, plus one.
    pub path: u16,
    /// The receiver's number of the path, plus one; zero until learnt.
    pub your_path: u16,
    /// Counts the sender's hellos on this path.
    pub sequence: u32,
    /// Interval at which the sender wants to send, in milliseconds.
    pub desired_interval_ms: u16,
    /// Least interval at which the sender can receive, in milliseconds.
    pub required_interval_ms: u16,
    /// How many missing hellos mean Down.
    pub multiplier: u8,
    /// Of which classes (by bit) the sender sends packets on this path.
    pub classes: u8,
    /// When it was sent, t1.
    pub sent_at_ns: u64,
    /// Of the last hello heard from the receiver: its sequence,
    pub echo_sequence: u32,
    /// when the receiver sent it,
    pub echo_sent_at_ns: u64,
    /// and how long it lay here, in microseconds.
    pub echo_hold_us: u32,
    /// Interarrival jitter of the receiver's hellos as the sender sees it, in microseconds.
    pub jitter_us: u32,
    /// Hellos of the receiver that came, cumulative.
    pub hellos_received: u32,
    /// Data packets that the sender sent on this path, low 32 bits.
    pub data_tx_packets: u32,
    /// Data packets that the sender received on this path, low 32 bits.
    pub data_rx_packets: u32,
    /// For MTU messages: length of the plaintext that is tried or came. For trains: its place and length.
    pub argument: u32,
}
