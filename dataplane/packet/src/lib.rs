//! What travels through the gateway: IP headers, checksums, flow keys, superpackets.
//!
//! Owns the shape of packets and of the batches that `io` and the engine pass to each other. Knows
//! neither peers nor sockets nor time; every function works on bytes in memory.

pub mod batch;
pub mod checksum;
pub mod cut;
pub mod flow;
pub mod frame;
pub mod inspect;
pub mod join;
pub mod narrow;
pub mod parse;
pub mod prefix;
pub mod tos;
pub mod vnet;

pub use batch::{Joining, Train, TrainLimits, TunBatch, TunWrite, UdpBatch};
pub use cut::{CutError, Cutter, Padding, Segment};
pub use flow::FlowKey;
pub use frame::{Door, Endpoint, FrameBuf, TunFrame, UdpFrame, UplinkId};
pub use inspect::Role;
pub use parse::{Fragment, IpVersion, PacketInfo, ParseError, parse};
pub use prefix::Prefix;
pub use vnet::{GsoKind, VnetHeader};
