//! The kernel's doors: TUN queues, UDP sockets with GSO and GRO, AF_XDP, steering, pinning, readiness.
//!
//! Owns file descriptors and the probing of what this kernel can do. Knows packets as bytes and batches
//! of [`patronus_packet`]; knows nothing of peers, sessions, policy or configuration. Called by the
//! gateway's workers and by the lab. Beside `patronus-aead` this is the only crate of the data plane with
//! `unsafe`, and inside it only `sys`, `mmsg` and `xdp_ring` have any.

pub mod kernel;
pub mod offload;
pub mod pin;
pub mod poller;
pub mod steer;
pub mod tun;
pub mod udp;
pub mod uplink;
pub mod wan;
pub mod xdp;

mod cmsg;
mod mmsg;
mod sys;
mod tun_native;
mod tun_tap;
mod udp_send;
mod xdp_frame;
mod xdp_ring;

pub use kernel::KernelVersion;
pub use offload::{OffloadReport, TunOffload, UdpOffload};
pub use pin::{Core, Pinning, allowed_cores, pin_current_thread};
pub use poller::{Next, Poller, Ready, SpinThenSleep, Token, Waker};
pub use tun::{Backend, TunDevice, TunError, TunFault, TunQueue};
pub use udp::{
    RecvCounters, Refusal, SendFailure, SendReport, UdpError, UdpOptions, UdpSocket, pick_port,
    port_is_free,
};
pub use uplink::{UplinkSet, Way};
pub use wan::{TrainSet, WanSocket};
pub use xdp::{
    DoorPorts, Mac, Neighbourhood, NextHop, XdpCounters, XdpDropMeter, XdpDrops, XdpError, XdpMode,
    XdpOptions, XdpSocket,
};
