//! The wire: what a link does to datagrams, and their shape at both ends of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use patronus_packet::frame::FRAME_DATA_MAX;
use patronus_packet::{
    Cutter, Door, Endpoint, FrameBuf, Padding, TunFrame, TunWrite, UdpFrame, UplinkId, parse,
};
use patronus_tunnel::{Message, PeerIndex};

/// How a link treats datagrams. The default delivers each once, in order, after 1 ms.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Time every datagram takes.
    pub delay: Duration,
    /// Up to this much more, at random for each datagram: what overtakes is reordered.
    pub jitter: Duration,
    /// Chance of being lost, from 0 to 1.
    pub loss: f64,
    /// Chance of arriving twice, from 0 to 1.
    pub duplicate: f64,
    /// Says which datagrams may pass; what may not is lost.
    pub filter: fn(&[u8]) -> bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            filter: |_| true,
        }
    }
}

/// A datagram as an eavesdropper sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When it was sent.
    pub at: Instant,
    /// Where from.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// The outer header's traffic class.
    pub tos: u8,
    /// The UDP payload.
    pub bytes: Vec<u8>,
    /// How often the link delivers it: 0 is lost.
    pub copies: usize,
}

impl Captured {
    /// What it claims to be; `None` for no WireGuard message.
    pub fn message(&self) -> Option<Message> {
        Message::parse(&self.bytes).ok()
    }
}

/// A datagram on its way.
pub(super) struct Delivery {
    pub at: Instant,
    /// Keeps datagrams of one instant in order.
    pub sequence: u64,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub tos: u8,
    pub bytes: Vec<u8>,
}

impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Delivery {}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delivery {
    /// The earliest is the greatest, for `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// A frame as the kernel hands it over: one datagram, or a train of them.
pub fn udp_frame(from: SocketAddr, local: Option<IpAddr>, train: &[Vec<u8>]) -> UdpFrame {
    UdpFrame {
        buf: FrameBuf::from_data(&train.concat()),
        segment_len: if train.len() > 1 { train[0].len() } else { 0 },
        endpoint: Endpoint {
            remote: from,
            local,
            door: Door::Listen,
            uplink: UplinkId::ANY,
        },
        tos: 0,
    }
}

/// The worker that classic BPF chooses by the receiver index.
pub(super) fn steer(datagram: &[u8], workers: usize) -> usize {
    let receiver = match Message::parse(datagram) {
        Ok(
            Message::Data { receiver, .. }
            | Message::Response { receiver }
            | Message::Cookie { receiver },
        ) => receiver,
        Ok(Message::Initiation) | Err(_) => return 0,
    };
    let worker = PeerIndex::from_receiver(receiver).worker().as_usize();
    if worker < workers { worker } else { 0 }
}

/// The packets of one write to the TUN, as the kernel's stack cuts a superpacket.
pub(super) fn packets_of(write: &TunWrite<'_>) -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = write.fragments().flatten().copied().collect();
    assert_eq!(bytes.len(), write.len);
    let info = parse(&bytes).expect("the engine writes packets");
    assert_eq!(usize::from(info.total_len), bytes.len());
    let mut frame = TunFrame {
        vnet: write.vnet,
        buf: FrameBuf::from_data(&bytes),
    };
    let mut cutter =
        Cutter::new(&mut frame, &info).expect("the engine writes superpackets that can be cut");
    let mut packets = Vec::new();
    while let Some(segment) = cutter.next_segment(Padding {
        mtu: FRAME_DATA_MAX,
    }) {
        packets.push(segment.padded[..segment.packet_len].to_vec());
    }
    assert_eq!(packets.len(), write.packets as usize);
    packets
}
