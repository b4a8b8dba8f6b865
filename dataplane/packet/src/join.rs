//! Joining: neighbours of one flow become one superpacket, so that the kernel takes one write for many packets.
//!
//! Owned by [`TunBatch`](crate::batch::TunBatch), which owns the bytes. Knows headers only; payloads stay where
//! they are. The rules follow `tcp_gro_receive`, `udp_gro_receive_segment` and `inet_gro_receive` of Linux, and
//! are stricter where that costs nothing: what the kernel cuts from a superpacket is, byte for byte, what was
//! joined, but for the identification of IPv4 packets with DF, which means nothing there (RFC 6864).
//!
//! Order: a joined packet moves forward to the place of its flow's open superpacket. So every packet that is not
//! joined closes the open superpacket of its flow, and a fragment, which does not name its ports, closes all
//! between its addresses.

use std::ops::Range;

use crate::batch::{WRITE_PACKETS_MAX, Write};
use crate::checksum;
use crate::cut::{TCP_ACK, TCP_CHECKSUM, TCP_FLAGS, TCP_PSH, UDP_CHECKSUM};
use crate::flow::FlowKey;
use crate::parse::{Fragment, IpVersion, PacketInfo, TCP, UDP};
use crate::vnet::{GsoKind, NEEDS_CSUM, VnetHeader};

/// Superpackets that are open at once in a batch; the oldest is closed for a further one.
pub const OPEN_MAX: usize = 16;
/// Datagrams in one UDP superpacket: `UDP_MAX_SEGMENTS` of Linux before 6.9.
pub const UDP_PACKETS_MAX: u32 = 64;

/// Which protocols the TUN takes as superpackets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// TSO for both IP versions.
    pub tcp: bool,
    /// USO.
    pub udp: bool,
}

impl Joining {
    /// Every packet on its own: for a TUN without offloads.
    pub const NONE: Self = Self {
        tcp: false,
        udp: false,
    };
}

/// The open superpackets of one batch.
pub(crate) struct Joiner {
    joining: Joining,
    open: Vec<Open>,
}

/// A packet that more may be joined to.
struct Open {
    key: FlowKey,
    version: IpVersion,
    transport_offset: u16,
    payload_offset: u16,
    /// Payload bytes of every packet but the last.
    gso_size: u16,
    /// Where its headers lie in the slab.
    head: usize,
    /// Its place in the list of writes.
    write: usize,
    packets: u32,
    /// IP length of all packets joined.
    total_len: usize,
    /// TCP: the sequence number that the next packet must have.
    seq_next: u32,
    /// Whether the first packet's checksums were verified; that is put off until there is a second.
    is_verified: bool,
}

impl Joiner {
    pub(crate) fn new(joining: Joining) -> Self {
        Self {
            joining,
            open: Vec::with_capacity(OPEN_MAX),
        }
    }

    pub(crate) fn set_joining(&mut self, joining: Joining) {
        self.joining = joining;
    }

    /// Takes the packet at `packet` in the slab. `Some(write)`: its payload belongs at the end of that write.
    /// `None`: it is to be the next write, whole.
    pub(crate) fn offer(
        &mut self,
        packet: Range<usize>,
        info: &PacketInfo,
        slab: &mut [u8],
        writes: &mut [Write],
    ) -> Option<usize> {
        if info.fragment != Fragment::None {
            self.close_between(&info.key, slab, writes);
            return None;
        }
        let bytes = &slab[packet.clone()];
        let is_joinable = self.is_joinable(bytes, info);
        if let Some(at) = self.position(&info.key) {
            let open = &mut self.open[at];
            if is_joinable && open.accepts(slab, bytes, info) {
                let is_last = open.extend(bytes, info);
                let write = open.write;
                if is_last {
                    let has_psh = info.protocol() == TCP
                        && bytes[usize::from(info.transport_offset) + TCP_FLAGS] & TCP_PSH != 0;
                    self.close(at, has_psh, slab, writes);
                }
                return Some(write);
            }
            self.close(at, false, slab, writes);
        }
        let bytes = &slab[packet.clone()];
        if is_joinable && may_be_first(bytes, info) {
            let open = Open::new(packet.start, writes.len(), bytes, info);
            self.push(open, slab, writes);
        }
        None
    }

    /// Completes and forgets all open superpackets.
    pub(crate) fn close_all(&mut self, slab: &mut [u8], writes: &mut [Write]) {
        while !self.open.is_empty() {
            self.close(self.open.len() - 1, false, slab, writes);
        }
    }

    /// Forgets all, where the slab is forgotten too.
    pub(crate) fn forget_all(&mut self) {
        self.open.clear();
    }

    /// Whether nothing is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    fn position(&self, key: &FlowKey) -> Option<usize> {
        self.open.iter().position(|open| {
            // Ports first: they differ most often and are compared fastest.
            open.key.src_port == key.src_port
                && open.key.dst_port == key.dst_port
                && open.key == *key
        })
    }

    /// Whether a packet is of a form that can be part of a superpacket; says nothing about its checksums.
    fn is_joinable(&self, bytes: &[u8], info: &PacketInfo) -> bool {
        if !info.is_plain() || info.payload_len() == 0 {
            return false;
        }
        let transport = &bytes[usize::from(info.transport_offset)..];
        match info.protocol() {
            TCP => self.joining.tcp && transport[TCP_FLAGS] & !TCP_PSH == TCP_ACK,
            UDP => {
                // Without a checksum there is nothing to verify, and the kernel would add one.
                self.joining.udp
                    && transport[UDP_CHECKSUM..UDP_CHECKSUM + 2] != [0, 0]
                    && usize::from(u16_at(transport, 4)) == transport.len()
            }
            _ => false,
        }
    }

    fn push(&mut self, open: Open, slab: &mut [u8], writes: &mut [Write]) {
        if self.open.len() == OPEN_MAX {
            let oldest = (0..OPEN_MAX).min_by_key(|at| self.open[*at].write);
            self.close(oldest.unwrap_or(0), false, slab, writes);
        }
        self.open.push(open);
    }

    fn close_between(&mut self, key: &FlowKey, slab: &mut [u8], writes: &mut [Write]) {
        let is_between = |open: &Open| {
            open.key.src == key.src && open.key.dst == key.dst && open.key.protocol == key.protocol
        };
        while let Some(at) = self.open.iter().position(is_between) {
            self.close(at, false, slab, writes);
        }
    }

    fn close(&mut self, at: usize, has_psh: bool, slab: &mut [u8], writes: &mut [Write]) {
        let open = self.open.swap_remove(at);
        // A packet that stayed alone may lie beyond `writes` only while it is being offered, and then it is not
        // open; every open one has its write.
        if open.packets > 1 {
            writes[open.write].vnet = open.complete(slab, has_psh);
        }
    }
}

/// Whether others may follow this joinable packet: a push ends a superpacket, so it cannot begin one.
fn may_be_first(bytes: &[u8], info: &PacketInfo) -> bool {
    info.protocol() != TCP || bytes[usize::from(info.transport_offset) + TCP_FLAGS] & TCP_PSH == 0
}

impl Open {
    fn new(head: usize, write: usize, bytes: &[u8], info: &PacketInfo) -> Self {
        Self {
            key: info.key,
            version: info.version,
            transport_offset: info.transport_offset,
            payload_offset: info.payload_offset,
            gso_size: info.total_len - info.payload_offset,
            head,
            write,
            packets: 1,
            total_len: usize::from(info.total_len),
            seq_next: seq_behind(bytes, info),
            is_verified: false,
        }
    }

    /// Whether the joinable packet `bytes` of the same flow may follow.
    fn accepts(&mut self, slab: &[u8], bytes: &[u8], info: &PacketInfo) -> bool {
        let first = &slab[self.head..];
        self.has_room(info)
            // Also keeps the comparison of headers within both packets.
            && info.payload_offset == self.payload_offset
            && self.has_same_network_header(first, bytes)
            && (info.protocol() != TCP || self.continues_stream(first, bytes))
            && self.verify_first(first)
            && is_intact(&info.key, info.transport_offset, bytes)
    }

    fn has_room(&self, info: &PacketInfo) -> bool {
        let packets_max = match info.protocol() {
            UDP => UDP_PACKETS_MAX,
            _ => WRITE_PACKETS_MAX,
        };
        info.payload_len() <= usize::from(self.gso_size)
            && self.packets < packets_max
            && self.total_len + info.payload_len() <= usize::from(u16::MAX)
    }

    /// All of the IP header but addresses, which the key has, and what cutting computes.
    fn has_same_network_header(&self, first: &[u8], bytes: &[u8]) -> bool {
        match self.version {
            IpVersion::V4 => {
                // Without DF an identification must not come twice, so it must be the one that cutting gives.
                let id = u16_at(first, 4).wrapping_add(self.packets as u16);
                let has_df = first[6] & 0x40 != 0;
                first[..2] == bytes[..2]
                    && first[6..10] == bytes[6..10]
                    && (has_df || u16_at(bytes, 4) == id)
            }
            IpVersion::V6 => first[..4] == bytes[..4] && first[6..8] == bytes[6..8],
        }
    }

    /// All of the TCP header but ports, flags and checksum: flags were checked, the rest is computed.
    fn continues_stream(&self, first: &[u8], bytes: &[u8]) -> bool {
        let header = usize::from(self.transport_offset)..usize::from(self.payload_offset);
        let (first, bytes) = (&first[header.clone()], &bytes[header]);
        u32_at(bytes, 4) == self.seq_next
            && first[8..TCP_FLAGS] == bytes[8..TCP_FLAGS]
            && first[14..TCP_CHECKSUM] == bytes[14..TCP_CHECKSUM]
            && first[18..] == bytes[18..]
    }

    fn verify_first(&mut self, first: &[u8]) -> bool {
        if !self.is_verified {
            // With one packet joined so far, the length is still that packet's.
            debug_assert_eq!(self.packets, 1);
            self.is_verified =
                is_intact(&self.key, self.transport_offset, &first[..self.total_len]);
        }
        self.is_verified
    }

    /// Counts a packet that was accepted; whether it must be the last one.
    fn extend(&mut self, bytes: &[u8], info: &PacketInfo) -> bool {
        debug_assert!(self.is_verified);
        self.packets += 1;
        self.total_len += info.payload_len();
        self.seq_next = seq_behind(bytes, info);
        let is_shorter = info.payload_len() < usize::from(self.gso_size);
        is_shorter || !may_be_first(bytes, info)
    }

    /// Writes the headers of the superpacket, its checksum left to the kernel.
    fn complete(&self, slab: &mut [u8], has_psh: bool) -> VnetHeader {
        debug_assert!(self.total_len <= usize::from(u16::MAX));
        let transport_offset = usize::from(self.transport_offset);
        let packet = &mut slab[self.head..self.head + usize::from(self.payload_offset)];
        match self.version {
            IpVersion::V4 => {
                put_u16(packet, 2, self.total_len as u16);
                put_u16(packet, 10, 0);
                let checksum = checksum::sum(&packet[..transport_offset]).finish();
                put_u16(packet, 10, checksum);
            }
            IpVersion::V6 => put_u16(packet, 4, (self.total_len - transport_offset) as u16),
        }
        let transport_len = (self.total_len - transport_offset) as u16;
        let FlowKey {
            src, dst, protocol, ..
        } = self.key;
        let pseudo = checksum::pseudo_header(src, dst, protocol, transport_len).fold();
        let transport = &mut packet[transport_offset..];
        let (kind, csum_offset) = match (protocol, self.version) {
            (UDP, _) => {
                put_u16(transport, 4, transport_len);
                (GsoKind::UdpL4, UDP_CHECKSUM)
            }
            (_, version) => {
                if has_psh {
                    transport[TCP_FLAGS] |= TCP_PSH;
                }
                let kind = match version {
                    IpVersion::V4 => GsoKind::TcpV4,
                    IpVersion::V6 => GsoKind::TcpV6,
                };
                (kind, TCP_CHECKSUM)
            }
        };
        put_u16(transport, csum_offset, pseudo);
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: kind.to_wire(),
            hdr_len: self.payload_offset,
            gso_size: self.gso_size,
            csum_start: self.transport_offset,
            csum_offset: csum_offset as u16,
        }
    }
}

/// Whether all checksums are right. Joining discards them, so a damaged packet must not be joined: the receiver
/// would take it for sound.
fn is_intact(key: &FlowKey, transport_offset: u16, packet: &[u8]) -> bool {
    let (network, transport) = packet.split_at(usize::from(transport_offset));
    let pseudo = checksum::pseudo_header(key.src, key.dst, key.protocol, transport.len() as u16);
    (key.src.is_ipv6() || checksum::sum(network).fold() == 0xffff)
        && pseudo.plus(checksum::sum(transport)).fold() == 0xffff
}

/// The sequence number behind a TCP segment without SYN and FIN; 0 for UDP.
fn seq_behind(bytes: &[u8], info: &PacketInfo) -> u32 {
    match info.protocol() {
        TCP => u32_at(bytes, usize::from(info.transport_offset) + 4)
            .wrapping_add(info.payload_len() as u32),
        _ => 0,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
