//! The two output batches: the engine fills them, `io` writes them out, then they are cleared.
//!
//! Each is one slab of memory taken at construction. A producer asks for [`room`](UdpBatch::room), writes a
//! packet at its start and commits it: no byte is copied afterwards. Nothing is allocated per packet: the lists
//! beside the slab have fixed limits, and a batch whose list is full has no room left.

use crate::frame::Endpoint;
use crate::join::Joiner;
use crate::parse::PacketInfo;
use crate::vnet::VnetHeader;

pub use crate::join::Joining;

/// Packets that one [`TunWrite`] holds at most, so that its fragments and the vnet header fit any `writev`
/// (`UIO_MAXIOV` is 1024).
pub const WRITE_PACKETS_MAX: u32 = 128;
/// One list entry, a train or a packet, is allowed per this many bytes of slab.
pub const BYTES_PER_ENTRY: usize = 64;

/// Datagrams of equal length to one endpoint, back to back: one `sendmsg` with `UDP_SEGMENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Where to, and from which local address.
    pub endpoint: Endpoint,
    /// Where it starts in the slab.
    pub start: usize,
    /// Length of all datagrams together, in bytes.
    pub len: usize,
    /// Length of every datagram but the last, which may be shorter.
    pub segment_len: usize,
    /// How many datagrams there are.
    pub packets: u32,
    /// Traffic class of the outer headers (RFC 2474, RFC 3168).
    pub tos: u8,
    /// Whether this is a message of the gateway's own (handshake, cookie, keepalive) and carries no packet
    /// that was forwarded: such a train has one datagram.
    pub own: bool,
}

impl Train {
    /// Whether the last datagram is as long as the others, so that another may follow.
    fn is_open(&self) -> bool {
        !self.own && self.len == self.segment_len * self.packets as usize
    }
}

/// How long a train may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainLimits {
    /// Datagrams; 1 switches trains off.
    pub segments: usize,
    /// Bytes of all datagrams together.
    pub bytes: usize,
}

impl TrainLimits {
    /// Every datagram on its own: for kernels without `UDP_SEGMENT`.
    pub const SINGLE: Self = Self {
        segments: 1,
        bytes: usize::MAX,
    };
}

/// Sealed datagrams on their way to the uplinks.
pub struct UdpBatch {
    slab: Box<[u8]>,
    used: usize,
    trains: Vec<Train>,
    trains_max: usize,
    packets: u64,
    limits: TrainLimits,
}

impl UdpBatch {
    /// A batch of `capacity` bytes and one train per [`BYTES_PER_ENTRY`] of them.
    pub fn new(capacity: usize, limits: TrainLimits) -> Self {
        let trains_max = entries_max(capacity);
        Self {
            slab: vec![0; capacity].into_boxed_slice(),
            used: 0,
            trains: Vec::with_capacity(trains_max),
            trains_max,
            packets: 0,
            limits,
        }
    }

    /// Sets the limits of trains that are committed from here on.
    pub fn set_limits(&mut self, limits: TrainLimits) {
        self.limits = limits;
    }

    /// Where the next datagram is to be written: all the free bytes.
    pub fn room(&mut self) -> &mut [u8] {
        let end = self.used + self.free();
        &mut self.slab[self.used..end]
    }

    /// Bytes of room; 0 where the list of trains is full.
    pub fn free(&self) -> usize {
        match self.trains.len() < self.trains_max {
            true => self.slab.len() - self.used,
            false => 0,
        }
    }

    /// Whether `datagrams` more of them, `bytes` long together, are sure to fit.
    pub fn has_room(&self, datagrams: usize, bytes: usize) -> bool {
        self.trains.len() + datagrams < self.trains_max && self.used + bytes <= self.slab.len()
    }

    /// Takes the datagram of `len` bytes at the start of [`room`](Self::room). It extends the last train where
    /// that goes to the same endpoint, has no shorter datagram at its end and stays within the limits;
    /// otherwise it begins a train. Nothing happens for a `len` of 0.
    pub fn commit(&mut self, len: usize, endpoint: &Endpoint) {
        self.commit_classed(len, endpoint, 0);
    }

    /// [`commit`](Self::commit) with the outer header's traffic class; a train has one.
    pub fn commit_classed(&mut self, len: usize, endpoint: &Endpoint, tos: u8) {
        assert!(len <= self.free(), "a datagram larger than the room");
        if len == 0 {
            return;
        }
        let start = self.used;
        self.used += len;
        self.packets += 1;
        let limits = self.limits;
        if let Some(train) = self.trains.last_mut()
            && train.is_open()
            && len <= train.segment_len
            && (train.packets as usize) < limits.segments
            && train.len + len <= limits.bytes
            && train.tos == tos
            && train.endpoint == *endpoint
        {
            debug_assert_eq!(train.start + train.len, start);
            train.len += len;
            train.packets += 1;
            return;
        }
        self.trains.push(Train {
            endpoint: *endpoint,
            start,
            len,
            segment_len: len,
            packets: 1,
            tos,
            own: false,
        });
    }

    /// Takes a message of the gateway's own from the start of [`room`](Self::room), as a train by itself.
    pub fn commit_own(&mut self, len: usize, endpoint: &Endpoint) {
        self.commit_own_classed(len, endpoint, 0);
    }

    /// [`commit_own`](Self::commit_own) with the outer header's traffic class.
    pub fn commit_own_classed(&mut self, len: usize, endpoint: &Endpoint, tos: u8) {
        assert!(
            0 < len && len <= self.free(),
            "no message of {len} bytes in the room"
        );
        self.trains.push(Train {
            endpoint: *endpoint,
            start: self.used,
            len,
            segment_len: len,
            packets: 1,
            tos,
            own: true,
        });
        self.used += len;
        self.packets += 1;
    }

    /// The place in the batch where the next datagram begins, for [`repeat_since`](Self::repeat_since).
    #[inline]
    pub fn mark(&self) -> usize {
        self.used
    }

    /// Sends what was committed since `mark` to `endpoint` too: each datagram as a message of the gateway's own, for it
    /// carries nothing that is not forwarded already. What would leave less than `reserve` bytes of room is left out.
    /// Returns how many datagrams were repeated.
    pub fn repeat_since(&mut self, mark: usize, endpoint: &Endpoint, reserve: usize) -> u64 {
        let end = self.used;
        let is_before = |train: &Train| train.start + train.len <= mark;
        let first = self.trains.partition_point(is_before);
        let mut repeated = 0;
        for at in first..self.trains.len() {
            let train = self.trains[at];
            for start in (train.start..train.start + train.len).step_by(train.segment_len) {
                let len = train.segment_len.min(train.start + train.len - start);
                if start < mark || start >= end {
                    continue;
                }
                if !self.has_room(2, len + reserve) {
                    return repeated;
                }
                let room = self.used;
                self.slab.copy_within(start..start + len, room);
                self.commit_own_classed(len, endpoint, train.tos);
                repeated += 1;
            }
        }
        repeated
    }

    /// The trains, in the order they were begun.
    pub fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// The datagrams of a train of this batch, back to back.
    pub fn bytes(&self, train: &Train) -> &[u8] {
        &self.slab[train.start..train.start + train.len]
    }

    /// Datagrams in the batch.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes of all datagrams in the batch.
    pub fn bytes_total(&self) -> usize {
        self.used
    }

    /// Whether there are no datagrams.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Forgets all datagrams; keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets = 0;
        self.trains.clear();
    }
}

/// Opened packets on their way to the TUN.
pub struct TunBatch {
    slab: Box<[u8]>,
    used: usize,
    writes: Vec<Write>,
    /// One per packet, linked into the lists of the writes.
    fragments: Vec<PacketRange>,
    packets_max: usize,
    joiner: Joiner,
}

/// One `writev`: the packets of one superpacket, or a single packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) vnet: VnetHeader,
    pub(crate) len: usize,
    packets: u32,
    first: u32,
    last: u32,
}

/// Bytes of the slab that one packet contributes: all of it, or its payload.
#[derive(Clone, Copy, Debug)]
struct PacketRange {
    start: usize,
    len: usize,
    next: u32,
}

impl TunBatch {
    /// A batch of `capacity` bytes and one packet per [`BYTES_PER_ENTRY`] of them.
    pub fn new(capacity: usize, joining: Joining) -> Self {
        let packets_max = entries_max(capacity);
        Self {
            slab: vec![0; capacity].into_boxed_slice(),
            used: 0,
            writes: Vec::with_capacity(packets_max),
            fragments: Vec::with_capacity(packets_max),
            packets_max,
            joiner: Joiner::new(joining),
        }
    }

    /// Says which protocols may be joined from here on. What is joined already stays so: an `io` that has to
    /// demote its TUN does so between batches.
    pub fn set_joining(&mut self, joining: Joining) {
        self.joiner.set_joining(joining);
    }

    /// Where the next packet is to be written: all the free bytes.
    pub fn room(&mut self) -> &mut [u8] {
        let end = self.used + self.free();
        &mut self.slab[self.used..end]
    }

    /// Bytes of room; 0 where the list of packets is full.
    pub fn free(&self) -> usize {
        match self.fragments.len() < self.packets_max {
            true => self.slab.len() - self.used,
            false => 0,
        }
    }

    /// Whether `packets` more of them, `bytes` long together, are sure to fit.
    pub fn has_room(&self, packets: usize, bytes: usize) -> bool {
        self.fragments.len() + packets < self.packets_max && self.used + bytes <= self.slab.len()
    }

    /// Takes the packet at the start of [`room`](Self::room), which `info` describes; `packet_len` is its
    /// `total_len`, without padding. It is joined to an open superpacket of its flow where that loses nothing,
    /// otherwise it is a write of its own. Packets of one flow keep their order.
    pub fn commit(&mut self, packet_len: usize, info: &PacketInfo) {
        assert!(packet_len <= self.free(), "a packet larger than the room");
        assert_eq!(
            packet_len,
            usize::from(info.total_len),
            "a packet is committed with the length that was parsed"
        );
        let start = self.used;
        self.used += packet_len;
        let fragment = self.fragments.len() as u32;
        let packet = start..self.used;
        let joined = self
            .joiner
            .offer(packet, info, &mut self.slab, &mut self.writes);
        match joined {
            Some(write) => {
                let payload_offset = usize::from(info.payload_offset);
                self.fragments.push(PacketRange {
                    start: start + payload_offset,
                    len: packet_len - payload_offset,
                    next: NO_FRAGMENT,
                });
                let write = &mut self.writes[write];
                self.fragments[write.last as usize].next = fragment;
                write.last = fragment;
                write.packets += 1;
                write.len += packet_len - payload_offset;
            }
            None => {
                self.fragments.push(PacketRange {
                    start,
                    len: packet_len,
                    next: NO_FRAGMENT,
                });
                self.writes.push(Write {
                    vnet: VnetHeader::default(),
                    len: packet_len,
                    packets: 1,
                    first: fragment,
                    last: fragment,
                });
            }
        }
    }

    /// Completes the headers of all superpackets. To be called before [`writes`](Self::writes).
    pub fn finish(&mut self) {
        self.joiner.close_all(&mut self.slab, &mut self.writes);
    }

    /// What is to be written to the TUN, in order.
    pub fn writes(&self) -> impl Iterator<Item = TunWrite<'_>> {
        debug_assert!(self.joiner.is_idle(), "finish() comes before writes()");
        self.writes.iter().map(|write| TunWrite {
            vnet: write.vnet,
            packets: write.packets,
            len: write.len,
            slab: &self.slab,
            all: &self.fragments,
            first: write.first,
        })
    }

    /// Packets in the batch, each joined one counted.
    pub fn packets(&self) -> u64 {
        self.fragments.len() as u64
    }

    /// Bytes of all packets in the batch, before they were joined.
    pub fn bytes_total(&self) -> usize {
        self.used
    }

    /// How many writes they make.
    pub fn writes_len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are no packets.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Forgets all packets; keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.writes.clear();
        self.fragments.clear();
        self.joiner.forget_all();
    }
}

/// One write to the TUN: the vnet header, then the fragments, in one `writev`.
#[derive(Clone, Copy)]
pub struct TunWrite<'a> {
    /// The header to put in front where the TUN has `IFF_VNET_HDR`.
    pub vnet: VnetHeader,
    /// How many packets were joined into this; at most [`WRITE_PACKETS_MAX`].
    pub packets: u32,
    /// Bytes of all fragments together, without the vnet header.
    pub len: usize,
    slab: &'a [u8],
    all: &'a [PacketRange],
    first: u32,
}

impl<'a> TunWrite<'a> {
    /// The pieces, in order, as many as there are packets: headers and payload of the first packet, then
    /// payloads.
    pub fn fragments(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (slab, all) = (self.slab, self.all);
        let mut next = self.first;
        std::iter::from_fn(move || {
            let range = all.get(next as usize)?;
            next = range.next;
            Some(&slab[range.start..range.start + range.len])
        })
    }
}

fn entries_max(capacity: usize) -> usize {
    (capacity / BYTES_PER_ENTRY).clamp(1, NO_FRAGMENT as usize)
}

const NO_FRAGMENT: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::frame::Door;

    const LIMITS: TrainLimits = TrainLimits {
        segments: 4,
        bytes: 1000,
    };

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::from(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    fn commit(batch: &mut UdpBatch, fill: u8, len: usize, port: u16) {
        batch.room()[..len].fill(fill);
        batch.commit(len, &endpoint(port));
    }

    fn shape(batch: &UdpBatch) -> Vec<(u16, u32, usize)> {
        batch
            .trains()
            .iter()
            .map(|train| (train.endpoint.remote.port(), train.packets, train.len))
            .collect()
    }

    #[test]
    fn equal_datagrams_to_one_endpoint_are_one_train_and_a_shorter_one_ends_it() {
        let mut batch = UdpBatch::new(4096, LIMITS);
        for len in [100, 100, 60, 60, 60] {
            commit(&mut batch, 0, len, 1);
        }
        assert_eq!(shape(&batch), [(1, 3, 260), (1, 2, 120)]);
        assert_eq!(batch.packets(), 5);
    }

    #[test]
    fn a_longer_datagram_another_port_and_another_source_begin_a_train() {
        let mut batch = UdpBatch::new(4096, LIMITS);
        commit(&mut batch, 0, 100, 1);
        commit(&mut batch, 0, 101, 1);
        commit(&mut batch, 0, 101, 2);
        let sticky = Endpoint {
            local: Some([192, 0, 2, 9].into()),
            door: Door::Listen,
            ..endpoint(2)
        };
        batch.commit(101, &sticky);
        assert_eq!(
            shape(&batch),
            [(1, 1, 100), (1, 1, 101), (2, 1, 101), (2, 1, 101)]
        );
    }

    #[test]
    fn what_is_repeated_is_what_was_committed_since_the_mark_as_far_as_there_is_room() {
        let mut batch = UdpBatch::new(4096, LIMITS);
        commit(&mut batch, 1, 100, 1);
        let mark = batch.mark();
        commit(&mut batch, 2, 100, 1);
        commit(&mut batch, 3, 60, 1);
        assert_eq!(batch.repeat_since(mark, &endpoint(2), 0), 2);
        let copies: Vec<_> = batch.trains()[1..].to_vec();
        assert!(
            copies
                .iter()
                .all(|train| train.own && train.endpoint == endpoint(2))
        );
        let bytes: Vec<&[u8]> = copies.iter().map(|train| batch.bytes(train)).collect();
        assert_eq!(bytes, [&[2; 100][..], &[3; 60][..]]);
        assert_eq!(batch.packets(), 5);
        let room = batch.free();
        assert_eq!(batch.repeat_since(mark, &endpoint(3), room - 120), 1);
    }

    #[test]
    fn trains_stop_at_their_limits() {
        let mut batch = UdpBatch::new(8192, LIMITS);
        for _ in 0..6 {
            commit(&mut batch, 0, 10, 1);
        }
        for _ in 0..5 {
            commit(&mut batch, 0, 400, 2);
        }
        batch.set_limits(TrainLimits::SINGLE);
        for _ in 0..2 {
            commit(&mut batch, 0, 400, 2);
        }
        assert_eq!(
            shape(&batch),
            [
                (1, 4, 40),
                (1, 2, 20),
                (2, 2, 800),
                (2, 2, 800),
                (2, 1, 400),
                (2, 1, 400),
                (2, 1, 400)
            ]
        );
    }

    #[test]
    fn a_batch_whose_list_is_full_has_no_room() {
        let mut batch = UdpBatch::new(2 * BYTES_PER_ENTRY, TrainLimits::SINGLE);
        commit(&mut batch, 0, 1, 1);
        assert_eq!(batch.free(), 2 * BYTES_PER_ENTRY - 1);
        commit(&mut batch, 0, 1, 1);
        assert_eq!((batch.free(), batch.room().len()), (0, 0));
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!((batch.free(), batch.packets()), (2 * BYTES_PER_ENTRY, 0));
    }

    #[test]
    fn a_message_of_our_own_is_a_train_by_itself_on_both_sides() {
        let mut batch = UdpBatch::new(4096, LIMITS);
        commit(&mut batch, 0, 100, 1);
        batch.commit_own(100, &endpoint(1));
        commit(&mut batch, 0, 100, 1);
        assert_eq!(shape(&batch), [(1, 1, 100), (1, 1, 100), (1, 1, 100)]);
        let own: Vec<bool> = batch.trains().iter().map(|train| train.own).collect();
        assert_eq!(own, [false, true, false]);
    }

    #[test]
    fn room_that_was_promised_is_there() {
        let mut batch = UdpBatch::new(8 * BYTES_PER_ENTRY, TrainLimits::SINGLE);
        assert!(batch.has_room(7, 8 * BYTES_PER_ENTRY));
        assert!(!batch.has_room(7, 8 * BYTES_PER_ENTRY + 1));
        assert!(!batch.has_room(9, 9));
        for left in (0..7).rev() {
            commit(&mut batch, 0, 10, 1);
            assert!(batch.has_room(left, 10 * left));
        }
    }

    #[test]
    fn an_empty_datagram_is_no_datagram() {
        let mut batch = UdpBatch::new(4096, LIMITS);
        batch.commit(0, &endpoint(1));
        assert!(batch.is_empty());
    }

    #[test]
    fn lists_do_not_grow_beyond_what_was_taken_at_construction() {
        let mut batch = UdpBatch::new(4096, TrainLimits::SINGLE);
        let before = batch.trains.capacity();
        while batch.free() > 0 {
            commit(&mut batch, 0, 1, 1);
        }
        assert_eq!(batch.trains.capacity(), before);
        assert_eq!(batch.trains().len(), 64);
    }

    proptest! {
        #[test]
        fn trains_hold_all_datagrams_in_order(
            datagrams in proptest::collection::vec((1usize..300, 0u16..3, any::<u8>()), 0..100),
            segments in 1usize..10,
            bytes in 300usize..2000,
        ) {
            let limits = TrainLimits { segments, bytes };
            let mut batch = UdpBatch::new(1 << 16, limits);
            for (len, port, fill) in &datagrams {
                commit(&mut batch, *fill, *len, *port);
            }
            let mut out = Vec::new();
            for train in batch.trains() {
                prop_assert!(train.packets as usize <= segments && train.len <= bytes);
                let chunks = batch.bytes(train).chunks(train.segment_len);
                prop_assert_eq!(chunks.len(), train.packets as usize);
                for chunk in chunks {
                    prop_assert!(chunk.iter().all(|byte| *byte == chunk[0]));
                    out.push((chunk.len(), train.endpoint.remote.port(), chunk[0]));
                }
            }
            prop_assert_eq!(out, datagrams);
        }
    }
}
