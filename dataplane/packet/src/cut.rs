//! Cutting: turns what the kernel handed over, a packet or a TSO/USO superpacket, into finished packets.
//!
//! The kernel leaves the division into segments and the transport checksum to the reader of a TUN with offloads
//! (`IFF_VNET_HDR`). Cutting is done at seal time and in place: no payload byte is copied. The headers of
//! segment k are written right in front of payload k, over the tail of segment k-1, which is sealed by then:
//!
//! ```text
//! frame      | headers | payload 0 | payload 1 | payload 2 |
//! segment 0  | headers | payload 0 |
//! segment 1            | headers | payload 1 |              (headers lie on the end of payload 0)
//! ```
//!
//! The rules of patching follow `tcp_gso_segment` (`net/ipv4/tcp_offload.c`), `__udp_gso_segment`
//! (`net/ipv4/udp_offload.c`) and `inet_gso_segment` (`net/ipv4/af_inet.c`) of Linux.

use crate::checksum::{self, Sum};
use crate::frame::TunFrame;
use crate::parse::{Fragment, IpVersion, PacketInfo, TCP, UDP};
use crate::vnet::{GSO_ECN, GsoKind};

/// Segments that a UDP superpacket may have: `UDP_MAX_SEGMENTS` of Linux 6.9 and later.
pub const UDP_SEGMENTS_MAX: usize = 128;
/// Segments that a TCP superpacket may have: enough for 64 KiB at an MSS of 32 bytes. Linux lets no MSS fall
/// below 48 before options (`TCP_MIN_SND_MSS`).
pub const TCP_SEGMENTS_MAX: usize = 2048;
/// What sealing adds to the padded plaintext: 16 bytes of header, 16 of tag (WireGuard whitepaper, 5.4.6).
pub const SEAL_OVERHEAD: usize = 32;
/// WireGuard pads its plaintext to a multiple of this, in bytes.
pub const PADDING_MULTIPLE: usize = 16;

/// How far segments are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// The MTU of the TUN in bytes: padding never makes a packet larger than this.
    pub mtu: usize,
}

impl Padding {
    /// Length of the plaintext of a packet of `len` bytes.
    pub fn padded_len(self, len: usize) -> usize {
        len.next_multiple_of(PADDING_MULTIPLE)
            .min(self.mtu.max(len))
    }
}

/// One finished packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Length of the IP packet in bytes.
    pub packet_len: usize,
    /// The IP packet and zeros behind it: the plaintext to seal.
    pub padded: &'a [u8],
}

/// Why a frame contradicts itself and cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// `gso_type` is a number that this gateway did not switch on.
    #[error("unknown kind of superpacket {0}")]
    GsoKind(u8),
    /// `gso_size` is zero in a superpacket.
    #[error("a superpacket with segments of 0 bytes")]
    GsoSize,
    /// The kind of superpacket contradicts the packet's IP version or protocol.
    #[error("a superpacket of kind {kind:?} holds a packet of protocol {protocol}")]
    Protocol {
        /// What the vnet header says.
        kind: GsoKind,
        /// What the IP header says.
        protocol: u8,
    },
    /// A superpacket, or a packet with an unfinished checksum, that is an IP fragment.
    #[error("an IP fragment with offloads")]
    Fragment,
    /// More segments than the kernel makes.
    #[error("{0} segments in one superpacket")]
    Segments(usize),
    /// The checksum position lies outside the packet, or within its headers where no checksum is.
    #[error("checksum start {start} and offset {offset} do not fit the packet")]
    ChecksumPosition {
        /// `csum_start`
        start: u16,
        /// `csum_offset`
        offset: u16,
    },
    /// The packet is not the one that was parsed: shorter, or its offsets out of order.
    #[error("the packet of {present} bytes is not the one of {len} that was parsed")]
    Mismatch {
        /// What the parser said.
        len: u16,
        /// What is there.
        present: usize,
    },
}

/// Hands out the segments of one frame. The frame's bytes are used up by it.
pub struct Cutter<'a> {
    bytes: &'a mut [u8],
    plan: Plan,
    next: usize,
    segments: usize,
    /// What lay where the last segment's padding is.
    covered: [u8; PADDING_MULTIPLE],
    covered_at: usize,
    covered_len: usize,
}

/// What is to be done with each segment.
#[derive(Clone, Copy)]
enum Plan {
    /// The packet is finished.
    Whole { len: usize },
    /// A single packet whose checksum field holds a partial sum.
    Finish {
        len: usize,
        start: usize,
        field: usize,
    },
    /// A superpacket.
    Cut(Superpacket),
}

#[derive(Clone, Copy)]
struct Superpacket {
    version: IpVersion,
    transport: Transport,
    transport_offset: usize,
    header_len: usize,
    total_len: usize,
    gso_size: usize,
    /// The pseudo header without its length.
    pseudo: Sum,
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp { flags: u8 },
    Udp,
}

impl<'a> Cutter<'a> {
    /// Checks the vnet header of `frame` against the packet, which [`parse`](crate::parse::parse) described in
    /// `info`. `hdr_len` is a hint that says nothing reliable and is not read; bytes beyond the IP length are
    /// left out.
    ///
    /// # Errors
    /// A frame that contradicts itself. It is unchanged.
    pub fn new(frame: &'a mut TunFrame, info: &PacketInfo) -> Result<Self, CutError> {
        let vnet = frame.vnet;
        let in_order = info.transport_offset <= info.payload_offset
            && info.payload_offset <= info.total_len
            && usize::from(info.total_len) <= frame.buf.len();
        if !in_order {
            return Err(CutError::Mismatch {
                len: info.total_len,
                present: frame.buf.len(),
            });
        }
        let Some(kind) = vnet.gso_kind() else {
            return Err(CutError::GsoKind(vnet.gso_type));
        };
        let offloads = vnet.needs_csum() || kind != GsoKind::None;
        if offloads && info.fragment != Fragment::None {
            return Err(CutError::Fragment);
        }
        let plan = match kind {
            GsoKind::None => plan_single(frame, info)?,
            GsoKind::TcpV4 | GsoKind::TcpV6 | GsoKind::UdpL4 => {
                Plan::Cut(plan_superpacket(frame, info, kind)?)
            }
        };
        let segments = match &plan {
            Plan::Whole { .. } | Plan::Finish { .. } => 1,
            Plan::Cut(superpacket) => superpacket.segments(),
        };
        Ok(Self {
            bytes: frame.buf.storage_mut(),
            plan,
            next: 0,
            segments,
            covered: [0; PADDING_MULTIPLE],
            covered_at: 0,
            covered_len: 0,
        })
    }

    /// How many segments there are in all.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// An upper bound of what all segments take when sealed, in bytes.
    pub fn sealed_len_max(&self) -> usize {
        let (len, header_len) = match &self.plan {
            Plan::Whole { len } | Plan::Finish { len, .. } => (*len, 0),
            Plan::Cut(superpacket) => (superpacket.total_len, superpacket.header_len),
        };
        len + (self.segments - 1) * header_len
            + self.segments * (PADDING_MULTIPLE - 1 + SEAL_OVERHEAD)
    }

    /// The next segment: a complete IP packet with finished checksums, and zeros behind it.
    #[inline]
    pub fn next_segment(&mut self, padding: Padding) -> Option<Segment<'_>> {
        if self.next == self.segments {
            return None;
        }
        let (start, packet_len) = match self.plan {
            Plan::Whole { len } => (0, len),
            Plan::Finish { len, start, field } => {
                finish_checksum(&mut self.bytes[..len], start, field);
                (0, len)
            }
            Plan::Cut(superpacket) => {
                let covered = &self.covered[..self.covered_len];
                self.bytes[self.covered_at..self.covered_at + covered.len()]
                    .copy_from_slice(covered);
                superpacket.write_segment(self.bytes, self.next)
            }
        };
        self.next += 1;

        let end = start + packet_len;
        let padded_end = start + padding.padded_len(packet_len);
        debug_assert!(padded_end <= self.bytes.len());
        debug_assert!(padded_end - end < PADDING_MULTIPLE);
        self.covered_at = end;
        self.covered_len = padded_end - end;
        self.covered[..self.covered_len].copy_from_slice(&self.bytes[end..padded_end]);
        self.bytes[end..padded_end].fill(0);
        Some(Segment {
            packet_len,
            padded: &self.bytes[start..padded_end],
        })
    }
}

fn plan_single(frame: &TunFrame, info: &PacketInfo) -> Result<Plan, CutError> {
    let len = usize::from(info.total_len);
    if !frame.vnet.needs_csum() {
        return Ok(Plan::Whole { len });
    }
    // Any protocol: the kernel may leave the checksum of an encapsulated packet to us (virtio 1.2, 5.1.6.2). But
    // it must not change what policy decided upon: addresses, ports, flags.
    let start = usize::from(frame.vnet.csum_start);
    let offset = usize::from(frame.vnet.csum_offset);
    let field = start + offset;
    let is_transport = start == usize::from(info.transport_offset)
        && match info.protocol() {
            TCP => offset == TCP_CHECKSUM,
            UDP => offset == UDP_CHECKSUM,
            _ => true,
        };
    let is_payload = start >= usize::from(info.payload_offset);
    if !(is_transport || is_payload) || field + 2 > len {
        return Err(CutError::ChecksumPosition {
            start: frame.vnet.csum_start,
            offset: frame.vnet.csum_offset,
        });
    }
    Ok(Plan::Finish { len, start, field })
}

fn plan_superpacket(
    frame: &TunFrame,
    info: &PacketInfo,
    kind: GsoKind,
) -> Result<Superpacket, CutError> {
    let vnet = frame.vnet;
    let (fits, checksum_offset, segments_max) = match kind {
        GsoKind::TcpV4 => (
            info.version == IpVersion::V4 && info.protocol() == TCP,
            TCP_CHECKSUM,
            TCP_SEGMENTS_MAX,
        ),
        GsoKind::TcpV6 => (
            info.version == IpVersion::V6 && info.protocol() == TCP,
            TCP_CHECKSUM,
            TCP_SEGMENTS_MAX,
        ),
        GsoKind::UdpL4 => (
            info.protocol() == UDP && vnet.gso_type & GSO_ECN == 0,
            UDP_CHECKSUM,
            UDP_SEGMENTS_MAX,
        ),
        GsoKind::None => (false, 0, 0),
    };
    if !fits {
        return Err(CutError::Protocol {
            kind,
            protocol: info.protocol(),
        });
    }
    if vnet.gso_size == 0 {
        return Err(CutError::GsoSize);
    }
    let right_place = vnet.csum_start == info.transport_offset
        && usize::from(vnet.csum_offset) == checksum_offset;
    if vnet.needs_csum() && !right_place {
        return Err(CutError::ChecksumPosition {
            start: vnet.csum_start,
            offset: vnet.csum_offset,
        });
    }
    let transport_offset = usize::from(info.transport_offset);
    let field = transport_offset + checksum_offset;
    let packet = &frame.buf.data()[..usize::from(info.total_len)];
    if field + 2 > usize::from(info.payload_offset) {
        return Err(CutError::Mismatch {
            len: info.total_len,
            present: packet.len(),
        });
    }
    let pseudo = if vnet.needs_csum() && !info.is_plain() && info.version == IpVersion::V6 {
        // The kernel sums the final destination, which a routing header may hide; so take its sum and
        // take the length out of it again.
        let transport_len = info.total_len - info.transport_offset;
        let sum = u16::from_be_bytes([packet[field], packet[field + 1]]);
        Sum::ZERO.plus_word(sum).plus_word(!transport_len)
    } else {
        checksum::pseudo_header(info.key.src, info.key.dst, info.protocol(), 0)
    };
    let superpacket = Superpacket {
        version: info.version,
        transport: match kind {
            GsoKind::UdpL4 => Transport::Udp,
            GsoKind::TcpV4 | GsoKind::TcpV6 | GsoKind::None => Transport::Tcp {
                flags: packet[transport_offset + TCP_FLAGS],
            },
        },
        transport_offset,
        header_len: usize::from(info.payload_offset),
        total_len: packet.len(),
        gso_size: usize::from(vnet.gso_size),
        pseudo,
    };
    if superpacket.segments() > segments_max {
        return Err(CutError::Segments(superpacket.segments()));
    }
    Ok(superpacket)
}

/// Sums from `start` to the end, the partial sum in the field included, and writes the checksum.
fn finish_checksum(packet: &mut [u8], start: usize, field: usize) {
    let checksum = checksum::sum(&packet[start..]).finish();
    // `skb_checksum_help`: zero means "no checksum" in UDP, and the same number as 0xffff elsewhere.
    put_u16(packet, field, if checksum == 0 { 0xffff } else { checksum });
}

impl Superpacket {
    fn segments(&self) -> usize {
        (self.total_len - self.header_len)
            .div_ceil(self.gso_size)
            .max(1)
    }

    /// Writes the headers of segment `index` in front of its payload; gives its start and length. Segments are
    /// written in order, so the headers of the one before are still in their place.
    #[inline]
    fn write_segment(&self, bytes: &mut [u8], index: usize) -> (usize, usize) {
        let start = index * self.gso_size;
        let end = (start + self.header_len + self.gso_size).min(self.total_len);
        let is_last = end == self.total_len;
        debug_assert!(start + self.header_len <= end);
        if index > 0 {
            let previous = start - self.gso_size;
            bytes.copy_within(previous..previous + self.header_len, start);
        }
        let packet = &mut bytes[start..end];
        self.patch_network(packet, index > 0);
        match self.transport {
            Transport::Tcp { flags } => self.patch_tcp(packet, flags, index > 0, is_last),
            Transport::Udp => self.patch_udp(packet),
        }
        (start, end - start)
    }

    fn patch_network(&self, packet: &mut [u8], follows: bool) {
        match self.version {
            IpVersion::V4 => {
                put_u16(packet, 2, packet.len() as u16);
                if follows {
                    let id = u16_at(packet, 4);
                    put_u16(packet, 4, id.wrapping_add(1));
                }
                put_u16(packet, 10, 0);
                let header_len = self.transport_offset;
                put_u16(packet, 10, checksum::sum(&packet[..header_len]).finish());
            }
            IpVersion::V6 => put_u16(packet, 4, (packet.len() - 40) as u16),
        }
    }

    fn patch_tcp(&self, packet: &mut [u8], flags: u8, follows: bool, is_last: bool) {
        let transport = &mut packet[self.transport_offset..];
        if follows {
            let seq = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            let seq = seq.wrapping_add(self.gso_size as u32);
            transport[4..8].copy_from_slice(&seq.to_be_bytes());
        }
        let not_before_last = if is_last { 0 } else { TCP_FIN | TCP_PSH };
        let not_after_first = if follows { TCP_CWR } else { 0 };
        transport[TCP_FLAGS] = flags & !not_before_last & !not_after_first;
        put_u16(transport, TCP_CHECKSUM, 0);
        put_u16(transport, TCP_CHECKSUM, self.checksum(transport));
    }

    fn patch_udp(&self, packet: &mut [u8]) {
        let transport = &mut packet[self.transport_offset..];
        put_u16(transport, 4, transport.len() as u16);
        put_u16(transport, UDP_CHECKSUM, 0);
        let checksum = self.checksum(transport);
        // Zero means "no checksum" (RFC 768).
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        put_u16(transport, UDP_CHECKSUM, checksum);
    }

    fn checksum(&self, transport: &[u8]) -> u16 {
        self.pseudo
            .plus_word(transport.len() as u16)
            .plus(checksum::sum(transport))
            .finish()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) const TCP_FLAGS: usize = 13;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_CHECKSUM: usize = 6;
pub(crate) const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_PSH: u8 = 0x08;
pub(crate) const TCP_ACK: u8 = 0x10;
pub(crate) const TCP_CWR: u8 = 0x80;
