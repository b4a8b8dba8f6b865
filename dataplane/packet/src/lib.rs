//! What travels through the gateway: IP headers, checksums, flow keys, superpackets.
//!
//! Owns the shape of packets and of the batches that `io` and the engine pass to each other. Knows
//! neither peers nor sockets nor time; every function works on bytes in memory.

pub mod frame;
pub mod prefix;
pub mod vnet;

pub use frame::{Endpoint, FrameBuf, TunFrame, UdpFrame};
pub use prefix::Prefix;
pub use vnet::{GsoKind, VnetHeader};
