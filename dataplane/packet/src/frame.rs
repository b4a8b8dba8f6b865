//! Buffers that carry what the kernel handed over, from `io` to the engine and between workers.

use std::net::{IpAddr, SocketAddr};

use crate::vnet::VnetHeader;

/// The largest IP packet and the largest GRO buffer the kernel hands over, in bytes.
pub const FRAME_DATA_MAX: usize = 65_535;
/// Spare bytes before the data, for a virtio-net header that the kernel hands over with it.
pub const FRAME_HEAD: usize = 16;
/// Spare bytes behind the data, so that a segment can be padded to 16 in place.
pub const FRAME_TAIL: usize = 64;

/// One heap buffer of fixed size and how much of it is data. Made at start, recycled for ever.
#[derive(Debug)]
pub struct FrameBuf {
    bytes: Box<[u8]>,
    len: usize,
}

impl FrameBuf {
    /// An empty buffer of full capacity.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; FRAME_HEAD + FRAME_DATA_MAX + FRAME_TAIL].into_boxed_slice(),
            len: 0,
        }
    }

    /// A buffer filled with `data`; the rest is cut off beyond [`FRAME_DATA_MAX`] bytes.
    pub fn from_data(data: &[u8]) -> Self {
        let mut frame = Self::new();
        let len = data.len().min(FRAME_DATA_MAX);
        frame.bytes[FRAME_HEAD..FRAME_HEAD + len].copy_from_slice(&data[..len]);
        frame.len = len;
        frame
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The data.
    pub fn data(&self) -> &[u8] {
        &self.bytes[FRAME_HEAD..FRAME_HEAD + self.len]
    }

    /// The data, to change in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[FRAME_HEAD..FRAME_HEAD + self.len]
    }

    /// Data and tail room together: [`FRAME_DATA_MAX`]` + `[`FRAME_TAIL`] bytes.
    pub fn storage_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[FRAME_HEAD..]
    }

    /// [`storage_mut`](Self::storage_mut) with the last `head` bytes before it, at most [`FRAME_HEAD`].
    pub fn headed_storage_mut(&mut self, head: usize) -> &mut [u8] {
        assert!(head <= FRAME_HEAD, "no room for a header of {head} bytes");
        &mut self.bytes[FRAME_HEAD - head..]
    }

    /// Says how many bytes at the start of [`storage_mut`](Self::storage_mut) are data.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= FRAME_DATA_MAX,
            "a frame of {len} bytes does not exist"
        );
        self.len = len;
    }
}

impl Default for FrameBuf {
    fn default() -> Self {
        Self::new()
    }
}

/// A packet, or a TSO/USO superpacket, that came from the TUN.
#[derive(Debug, Default)]
pub struct TunFrame {
    /// What the kernel says about it; all zero where the TUN has no vnet header.
    pub vnet: VnetHeader,
    /// The IP packet.
    pub buf: FrameBuf,
}

/// A datagram, or a `UDP_GRO` train of equal datagrams, that came from an uplink socket.
#[derive(Debug)]
pub struct UdpFrame {
    /// The payloads, back to back.
    pub buf: FrameBuf,
    /// Length of each datagram of the train but the last, in bytes; 0 for a single datagram.
    pub segment_len: usize,
    /// Where it came from and which local address it was sent to.
    pub endpoint: Endpoint,
    /// The outer header's traffic class: DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168); one
    /// for a whole train, since GRO joins none that differ in it.
    pub tos: u8,
}

impl Default for UdpFrame {
    fn default() -> Self {
        Self {
            buf: FrameBuf::new(),
            segment_len: 0,
            endpoint: Endpoint::from(SocketAddr::from(([0, 0, 0, 0], 0))),
            tos: 0,
        }
    }
}

impl UdpFrame {
    /// The datagrams of the train, in the order they arrived.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let step = match self.segment_len {
            0 => self.buf.len().max(1),
            len => len,
        };
        self.buf.data().chunks(step)
    }
}

/// Which of a worker's ports an outer UDP flow uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Door {
    /// The port that the site listens on, shared by all workers.
    #[default]
    Listen,
    /// The worker's own port, from which it opens lanes, so that each lane is an outer flow of its own and
    /// receive-side scaling spreads them.
    Lane,
}

/// One of the gateway's ways out, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UplinkId(pub u8);

impl UplinkId {
    /// No uplink in particular: the kernel's routes choose. Also what arrives on an interface that is no uplink's.
    pub const ANY: Self = Self(u8::MAX);
    /// Most uplinks of one gateway.
    pub const COUNT_MAX: usize = 16;
}

impl Default for UplinkId {
    /// [`ANY`](Self::ANY)
    fn default() -> Self {
        Self::ANY
    }
}

/// The two ends of an outer UDP flow, seen from this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our address that the peer used; `None` lets the kernel choose by its routes.
    pub local: Option<IpAddr>,
    /// Our port that the flow uses.
    pub door: Door,
    /// The uplink that the flow goes over.
    pub uplink: UplinkId,
}

impl From<SocketAddr> for Endpoint {
    fn from(remote: SocketAddr) -> Self {
        Self {
            remote,
            local: None,
            door: Door::Listen,
            uplink: UplinkId::ANY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_falls_into_its_datagrams_with_a_short_last_one() {
        let frame = UdpFrame {
            buf: FrameBuf::from_data(&[7; 250]),
            segment_len: 100,
            ..UdpFrame::default()
        };
        let lens: Vec<usize> = frame.datagrams().map(<[u8]>::len).collect();
        assert_eq!(lens, [100, 100, 50]);
    }

    #[test]
    fn a_single_datagram_is_a_train_of_one() {
        let frame = UdpFrame {
            buf: FrameBuf::from_data(&[7; 250]),
            ..UdpFrame::default()
        };
        assert_eq!(frame.datagrams().count(), 1);
    }
}
