//! What the tests of this crate share: packets made by hand, and slow, allocating, independent versions of what
//! the crate does. Nothing here calls the crate's own checksums, cutter or joiner.

// Every test binary compiles this file and uses its own part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use patronus_packet::vnet::{GSO_ECN, NEEDS_CSUM};
use patronus_packet::{FrameBuf, GsoKind, Joining, TunBatch, TunFrame, VnetHeader, parse};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const CWR: u8 = 0x80;

/// A packet as a person would describe it.
#[derive(Clone, Debug)]
pub struct Spec {
    pub is_v6: bool,
    pub protocol: u8,
    /// The last byte of the source and of the destination address.
    pub hosts: (u8, u8),
    pub ports: (u16, u16),
    pub tos: u8,
    pub ttl: u8,
    pub id: u16,
    pub has_df: bool,
    /// IPv4 options; a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// IPv6: how many 8-byte destination options headers.
    pub extensions: usize,
    pub flow_label: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// TCP options; a multiple of 4 bytes.
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            is_v6: false,
            protocol: TCP,
            hosts: (1, 2),
            ports: (40_000, 443),
            tos: 0,
            ttl: 64,
            id: 7,
            has_df: true,
            ip_options: Vec::new(),
            extensions: 0,
            flow_label: 0,
            seq: 1000,
            ack: 2000,
            flags: ACK,
            window: 512,
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }
}

impl Spec {
    pub fn transport_offset(&self) -> usize {
        match self.is_v6 {
            true => 40 + 8 * self.extensions,
            false => 20 + self.ip_options.len(),
        }
    }

    pub fn header_len(&self) -> usize {
        self.transport_offset()
            + match self.protocol {
                TCP => 20 + self.tcp_options.len(),
                _ => 8,
            }
    }

    pub fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// The packet with all checksums finished.
    pub fn build(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.ports.0.to_be_bytes());
        transport.extend(self.ports.1.to_be_bytes());
        if self.protocol == TCP {
            transport.extend(self.seq.to_be_bytes());
            transport.extend(self.ack.to_be_bytes());
            transport.push(((20 + self.tcp_options.len()) / 4 * 16) as u8);
            transport.push(self.flags);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0; 4]);
            transport.extend(&self.tcp_options);
        } else {
            transport.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            transport.extend([0; 2]);
        }
        transport.extend(&self.payload);
        let mut packet = self.network_header(transport.len());
        packet.extend(transport);
        finish_checksums(&mut packet);
        packet
    }

    fn network_header(&self, transport_len: usize) -> Vec<u8> {
        let mut header = Vec::new();
        if self.is_v6 {
            header.extend([0x60 | self.tos >> 4, self.tos << 4]);
            header.extend(self.flow_label.to_be_bytes());
            header.extend(((8 * self.extensions + transport_len) as u16).to_be_bytes());
            header.extend([
                if self.extensions > 0 {
                    60
                } else {
                    self.protocol
                },
                self.ttl,
            ]);
            for host in [self.hosts.0, self.hosts.1] {
                header.extend([0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0xab, host]);
            }
            for left in (0..self.extensions).rev() {
                header.extend([
                    if left > 0 { 60 } else { self.protocol },
                    0,
                    1,
                    4,
                    0,
                    0,
                    0,
                    0,
                ]);
            }
        } else {
            let header_len = 20 + self.ip_options.len();
            header.extend([0x40 | (header_len / 4) as u8, self.tos]);
            header.extend(((header_len + transport_len) as u16).to_be_bytes());
            header.extend(self.id.to_be_bytes());
            header.extend([if self.has_df { 0x40 } else { 0 }, 0]);
            header.extend([self.ttl, self.protocol, 0, 0]);
            for host in [self.hosts.0, self.hosts.1] {
                header.extend([10, 20, 30, host]);
            }
            header.extend(&self.ip_options);
        }
        header
    }

    /// What the kernel hands over when this packet is a superpacket, or (`gso_size` 0) when its checksum is to
    /// be finished.
    pub fn frame(&self, gso_size: usize) -> TunFrame {
        let mut bytes = self.build();
        let (at, transport_len) = (
            self.transport_offset() + self.checksum_offset(),
            bytes.len() - self.transport_offset(),
        );
        let pseudo = pseudo_sum(&bytes, self.protocol, transport_len);
        bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        let kind = match (gso_size, self.protocol, self.is_v6) {
            (0, ..) => GsoKind::None,
            (_, TCP, false) => GsoKind::TcpV4,
            (_, TCP, true) => GsoKind::TcpV6,
            _ => GsoKind::UdpL4,
        };
        let has_ecn = kind != GsoKind::None && self.protocol == TCP && self.flags & CWR != 0;
        TunFrame {
            vnet: VnetHeader {
                flags: NEEDS_CSUM,
                gso_type: kind.to_wire() | if has_ecn { GSO_ECN } else { 0 },
                hdr_len: self.header_len() as u16,
                gso_size: gso_size as u16,
                csum_start: self.transport_offset() as u16,
                csum_offset: self.checksum_offset() as u16,
            },
            buf: FrameBuf::from_data(&bytes),
        }
    }

    /// The packets that the superpacket stands for, each described and built anew.
    pub fn segments(&self, gso_size: usize) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(gso_size).max(1);
        (0..count)
            .map(|index| {
                let start = index * gso_size;
                let end = (start + gso_size).min(self.payload.len());
                let mut flags = self.flags;
                if index + 1 < count {
                    flags &= !(FIN | PSH);
                }
                if index > 0 {
                    flags &= !CWR;
                }
                Self {
                    id: self.id.wrapping_add(index as u16),
                    seq: self.seq.wrapping_add(start as u32),
                    flags,
                    payload: self.payload[start..end].to_vec(),
                    ..self.clone()
                }
                .build()
            })
            .collect()
    }
}

/// The ones' complement sum, one 16-bit word after the other.
pub fn naive_sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn pseudo_sum(packet: &[u8], protocol: u8, transport_len: usize) -> u16 {
    let mut header = match packet[0] >> 4 {
        4 => packet[12..20].to_vec(),
        _ => packet[8..40].to_vec(),
    };
    header.extend((transport_len as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    naive_sum(&header)
}

/// Where the transport header starts and which it is; knows IPv4 options and destination options only.
pub fn transport_of(packet: &[u8]) -> (usize, u8) {
    if packet[0] >> 4 == 4 {
        return (usize::from(packet[0] & 15) * 4, packet[9]);
    }
    let (mut at, mut next) = (40, packet[6]);
    while next == 60 {
        next = packet[at];
        at += 8 + usize::from(packet[at + 1]) * 8;
    }
    (at, next)
}

/// Writes the IPv4 header checksum and the TCP or UDP checksum.
pub fn finish_checksums(packet: &mut [u8]) {
    let (at, protocol) = transport_of(packet);
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let checksum = !naive_sum(&packet[..at]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let field = at + if protocol == TCP { 16 } else { 6 };
    packet[field..field + 2].fill(0);
    let mut summed = pseudo_sum(packet, protocol, packet.len() - at)
        .to_be_bytes()
        .to_vec();
    summed.extend(&packet[at..]);
    let checksum = match (!naive_sum(&summed), protocol) {
        (0, UDP) => 0xffff,
        (checksum, _) => checksum,
    };
    packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether the IPv4 header checksum and the TCP or UDP checksum are right.
pub fn has_right_checksums(packet: &[u8]) -> bool {
    let (at, protocol) = transport_of(packet);
    let mut summed = pseudo_sum(packet, protocol, packet.len() - at)
        .to_be_bytes()
        .to_vec();
    summed.extend(&packet[at..]);
    let network_is_right = packet[0] >> 4 == 6 || naive_sum(&packet[..at]) == 0xffff;
    network_is_right && naive_sum(&summed) == 0xffff
}

/// Cuts the bytes of a superpacket as a receiver of our write would: by the vnet header.
pub fn naive_cut(bytes: &[u8], vnet: VnetHeader) -> Vec<Vec<u8>> {
    if vnet == VnetHeader::default() {
        return vec![bytes.to_vec()];
    }
    assert_eq!(vnet.flags, NEEDS_CSUM);
    let (at, protocol) = transport_of(bytes);
    assert_eq!(usize::from(vnet.csum_start), at);
    let (field, header_len) = match protocol {
        TCP => (16, at + usize::from(bytes[at + 12] >> 4) * 4),
        _ => (6, at + 8),
    };
    assert_eq!(usize::from(vnet.csum_offset), field);
    assert_eq!(usize::from(vnet.hdr_len), header_len);
    let stored = u16::from_be_bytes([bytes[at + field], bytes[at + field + 1]]);
    assert_eq!(stored, pseudo_sum(bytes, protocol, bytes.len() - at));
    let chunks: Vec<&[u8]> = bytes[header_len..]
        .chunks(usize::from(vnet.gso_size))
        .collect();
    let mut seq_ahead = 0u32;
    let mut packets = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut packet = [&bytes[..header_len], chunk].concat();
        let len = packet.len();
        if bytes[0] >> 4 == 4 {
            let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(index as u16);
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        }
        if protocol == TCP {
            let seq: [u8; 4] = bytes[at + 4..at + 8].try_into().expect("4 bytes");
            let seq = u32::from_be_bytes(seq).wrapping_add(seq_ahead);
            packet[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
            if index + 1 < chunks.len() {
                packet[at + 13] &= !(FIN | PSH);
            }
        } else {
            packet[at + 4..at + 6].copy_from_slice(&((len - at) as u16).to_be_bytes());
        }
        seq_ahead = seq_ahead.wrapping_add(chunk.len() as u32);
        finish_checksums(&mut packet);
        packets.push(packet);
    }
    packets
}

/// Puts packets through a [`TunBatch`], checks all that joining promises, and gives the number of packets in
/// each write. Packets that do not parse are left out, as the engine drops them.
pub fn check_join(inputs: &[Vec<u8>], joining: Joining) -> Vec<u32> {
    let mut batch = TunBatch::new(1 << 20, joining);
    let mut accepted = Vec::new();
    for bytes in inputs {
        let Ok(info) = parse(bytes) else { continue };
        let packet = &bytes[..usize::from(info.total_len)];
        if batch.free() < packet.len() {
            break;
        }
        batch.room()[..packet.len()].copy_from_slice(packet);
        batch.commit(packet.len(), &info);
        accepted.push(packet.to_vec());
    }
    batch.finish();
    assert_eq!(batch.packets(), accepted.len() as u64);

    let mut shape = Vec::new();
    let mut delivered = Vec::new();
    for write in batch.writes() {
        let bytes = write.fragments().collect::<Vec<_>>().concat();
        assert_eq!(bytes.len(), write.len);
        assert_eq!(write.fragments().count(), write.packets as usize);
        let packets = naive_cut(&bytes, write.vnet);
        assert_eq!(packets.len(), write.packets as usize);
        assert_eq!(write.packets == 1, write.vnet == VnetHeader::default());
        let info = parse(&bytes).expect("a write is a packet");
        assert_eq!(usize::from(info.total_len), bytes.len());
        shape.push(write.packets);
        delivered.extend(packets);
    }
    assert_eq!(delivered.len(), accepted.len());
    assert_eq!(
        by_flow(&delivered),
        by_flow(&accepted),
        "order within a flow"
    );
    assert_eq!(
        by_address_pair(&delivered),
        by_address_pair(&accepted),
        "order of fragments"
    );
    shape
}

/// The packets of each flow in their order. What RFC 6864 calls meaningless, the identification of packets with
/// DF, is taken out, and with it the header checksum.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in packets {
        let key = parse(packet).expect("parsed before").key;
        flows
            .entry(format!("{key:?}"))
            .or_default()
            .push(without_id(packet));
    }
    flows
}

fn without_id(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let header_is_right =
        packet[0] >> 4 == 4 && naive_sum(&packet[..usize::from(packet[0] & 15) * 4]) == 0xffff;
    if header_is_right && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Per address pair and protocol: the fragments in their order, and which packets lie between which.
fn by_address_pair(packets: &[Vec<u8>]) -> BTreeMap<String, Vec<Vec<Vec<u8>>>> {
    let mut pairs: BTreeMap<String, Vec<Vec<Vec<u8>>>> = BTreeMap::new();
    for packet in packets {
        let info = parse(packet).expect("parsed before");
        let key = format!("{} {} {}", info.key.src, info.key.dst, info.key.protocol);
        let groups = pairs.entry(key).or_insert_with(|| vec![Vec::new()]);
        if info.fragment == patronus_packet::Fragment::None {
            let group = groups.last_mut().expect("never empty");
            group.push(without_id(packet));
            group.sort();
        } else {
            groups.push(vec![packet.clone()]);
            groups.push(Vec::new());
        }
    }
    pairs
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough chance for tests, and the same on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit.max(1) as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }
}
