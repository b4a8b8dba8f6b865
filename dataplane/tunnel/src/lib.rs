//! WireGuard: keys, handshakes, sessions, receiver indices, the front door for handshakes, one
//! peer's tunnel, and the table that says which peer owns which inner address.
//!
//! Owns the protocol (`wireguard.com/protocol`, the WireGuard whitepaper). Knows no sockets, no flows and no
//! configuration; the engine calls it with bytes and the time.

pub mod allowed_ips;
pub mod clock;
pub mod gate;
pub mod index;
pub mod keys;
pub mod lanes;
pub mod message;
mod noise;
pub mod peer;
pub mod session;

pub use allowed_ips::AllowedIps;
pub use clock::WallClock;
pub use gate::{Admission, Gate, Identity};
pub use index::{PeerIndex, WorkerId};
pub use keys::{PresharedKey, PrivateKey, PublicKey};
pub use message::{Message, MessageError};
pub use peer::{Opened, Peer, Refused, Staged, Timed};
