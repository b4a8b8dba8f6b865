//! The packets that a bench sends: as the kernel hands them to a TUN, one flow after the other.

use std::fmt;
use std::net::Ipv4Addr;

use patronus_packet::TunFrame;
use patronus_packet::checksum::{Sum, pseudo_header_v4, sum};
use patronus_packet::vnet::{GsoKind, NEEDS_CSUM, VnetHeader};

/// The inner address of the host behind the hub.
pub const HUB_HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Hosts behind each far site; the last octet of its /24.
const HOSTS_PER_SITE: u64 = 250;
const PORTS: u64 = 60_000;
const PORT_FIRST: u64 = 1024;
const PORT_SERVICE: u16 = 5201;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const TCP_LEN: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// What one frame from the TUN holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// A single UDP packet of that many bytes with a finished checksum, as a gateway forwards it.
    Packet(usize),
    /// A TSO superpacket of TCP: how many segments, and the payload bytes of each.
    Superpacket(usize, usize),
}

impl Shape {
    /// The superpacket that Linux makes of a bulk transfer at an inner MTU of 1420: 64 KiB less headers.
    pub const BULK: Self = Self::Superpacket(45, 1380);

    /// Packets that travel through the tunnel per frame.
    pub fn packets(self) -> u64 {
        match self {
            Self::Packet(_) => 1,
            Self::Superpacket(segments, _) => segments as u64,
        }
    }

    /// Bytes of each inner packet that travels.
    pub fn inner_len(self) -> usize {
        match self {
            Self::Packet(len) => len,
            Self::Superpacket(_, payload) => IP_LEN + TCP_LEN + payload,
        }
    }

    /// Bytes of the frame.
    fn frame_len(self) -> usize {
        match self {
            Self::Packet(len) => len,
            Self::Superpacket(segments, payload) => IP_LEN + TCP_LEN + segments * payload,
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Self::Packet(_) => PROTOCOL_UDP,
            Self::Superpacket(..) => PROTOCOL_TCP,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(len) => write!(f, "{len}"),
            Self::Superpacket(segments, payload) => write!(f, "{segments}x{payload}"),
        }
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    /// A size such as `1420`, or a superpacket such as `45x1380`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no packet: write its size in bytes (28 to 9000), or SEGMENTSxPAYLOAD such as 45x1380 \
                 (at most 65535 bytes together)"
            )
        };
        let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let shape = match text.split_once('x') {
            Some((segments, payload)) => Self::Superpacket(number(segments)?, number(payload)?),
            None => Self::Packet(number(text)?),
        };
        let fits = match shape {
            Self::Packet(len) => (IP_LEN + UDP_LEN..=9000).contains(&len),
            Self::Superpacket(segments, payload) => {
                (2..=1024).contains(&segments)
                    && (1..=9000).contains(&payload)
                    && shape.frame_len() <= usize::from(u16::MAX)
            }
        };
        fits.then_some(shape).ok_or_else(wrong)
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From the host behind the hub to one behind a far site.
    Far,
    /// The way back.
    Hub,
}

/// Frames of one shape over a number of flows, which are spread evenly over the far sites.
pub struct Traffic {
    shape: Shape,
    flows: u64,
    sites: u64,
    template: Vec<u8>,
    /// The checksum of the payload, which all frames share.
    payload: Sum,
}

impl Traffic {
    /// `flows` is at least `sites`, and both are at least one.
    pub fn new(shape: Shape, flows: u64, sites: u64) -> Self {
        assert!(
            0 < sites && sites <= flows,
            "{flows} flows over {sites} sites"
        );
        let header_len = match shape {
            Shape::Packet(_) => IP_LEN + UDP_LEN,
            Shape::Superpacket(..) => IP_LEN + TCP_LEN,
        };
        let mut template = vec![0; shape.frame_len()];
        for (at, byte) in template.iter_mut().enumerate().skip(header_len) {
            *byte = (at * 31) as u8;
        }
        let payload = sum(&template[header_len..]);
        write_headers(&mut template, shape.protocol());
        Self {
            shape,
            flows,
            sites,
            template,
            payload,
        }
    }

    /// What each frame holds.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many flows there are.
    pub fn flows(&self) -> u64 {
        self.flows
    }

    /// The far site that frame number `n` goes to or comes from.
    pub fn site_of(&self, n: u64) -> usize {
        (n % self.flows % self.sites) as usize
    }

    /// The prefix of 24 bits behind a far site.
    pub fn network_of(site: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, (site >> 8) as u8, site as u8, 0)
    }

    /// Writes frame number `n`: a frame of flow `n` modulo the number of flows, that continues its stream.
    pub fn fill(&self, frame: &mut TunFrame, n: u64, toward: Toward) {
        let bytes = &mut frame.buf.storage_mut()[..self.template.len()];
        bytes.copy_from_slice(&self.template);
        let stream_at = n / self.flows * self.stream_len();
        let ends = self.ends(n, toward);
        address(bytes, ends);
        frame.vnet = match self.shape {
            Shape::Packet(_) => {
                let checksum = transport_sum(bytes, PROTOCOL_UDP, ends, IP_LEN + UDP_LEN)
                    .plus(self.payload)
                    .finish();
                put(bytes, IP_LEN + 6, checksum);
                VnetHeader::default()
            }
            Shape::Superpacket(_, payload) => {
                bytes[IP_LEN + 4..IP_LEN + 8].copy_from_slice(&(stream_at as u32).to_be_bytes());
                // The kernel leaves the pseudo header's sum in the field.
                let len = (bytes.len() - IP_LEN) as u16;
                let partial = pseudo_header_v4(ends.src, ends.dst, PROTOCOL_TCP, len).fold();
                put(bytes, IP_LEN + 16, partial);
                tso_header(payload)
            }
        };
        let len = bytes.len();
        frame.buf.set_len(len);
    }

    /// Writes the smallest packet of the flow of frame number `n`: enough to enter it into a flow table.
    pub fn open_flow(&self, frame: &mut TunFrame, n: u64, toward: Toward) {
        let ends = self.ends(n, toward);
        let protocol = self.shape.protocol();
        let len = match self.shape {
            Shape::Packet(_) => IP_LEN + UDP_LEN,
            Shape::Superpacket(..) => IP_LEN + TCP_LEN,
        };
        let bytes = &mut frame.buf.storage_mut()[..len];
        bytes.fill(0);
        write_headers(bytes, protocol);
        address(bytes, ends);
        let at = if protocol == PROTOCOL_TCP { 16 } else { 6 };
        let checksum = transport_sum(bytes, protocol, ends, len).finish();
        put(bytes, IP_LEN + at, checksum);
        frame.vnet = VnetHeader::default();
        frame.buf.set_len(len);
    }

    fn stream_len(&self) -> u64 {
        match self.shape {
            Shape::Packet(_) => 0,
            Shape::Superpacket(segments, payload) => (segments * payload) as u64,
        }
    }

    fn ends(&self, n: u64, toward: Toward) -> Ends {
        let flow = n % self.flows;
        let of_site = flow / self.sites;
        let network = Self::network_of(self.site_of(n)).octets();
        let host = 1 + (of_site % HOSTS_PER_SITE) as u8;
        let port = (PORT_FIRST + of_site / HOSTS_PER_SITE % PORTS) as u16;
        let far = Ipv4Addr::new(network[0], network[1], network[2], host);
        match toward {
            Toward::Far => Ends {
                src: HUB_HOST,
                dst: far,
                src_port: port,
                dst_port: PORT_SERVICE,
            },
            Toward::Hub => Ends {
                src: far,
                dst: HUB_HOST,
                src_port: PORT_SERVICE,
                dst_port: port,
            },
        }
    }
}

#[derive(Clone, Copy)]
struct Ends {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
}

/// Everything that does not depend on the flow.
fn write_headers(bytes: &mut [u8], protocol: u8) {
    let len = bytes.len() as u16;
    bytes[0] = 0x45;
    put(bytes, 2, len);
    // Don't fragment, as the kernel sets it for TCP and for UDP with path MTU discovery.
    put(bytes, 6, 0x4000);
    bytes[8] = 63;
    bytes[9] = protocol;
    if protocol == PROTOCOL_TCP {
        bytes[IP_LEN + 12] = (TCP_LEN as u8 / 4) << 4;
        bytes[IP_LEN + 13] = 0x10;
        put(bytes, IP_LEN + 14, 0xffff);
    } else {
        put(bytes, IP_LEN + 4, len - IP_LEN as u16);
    }
}

fn address(bytes: &mut [u8], ends: Ends) {
    bytes[12..16].copy_from_slice(&ends.src.octets());
    bytes[16..20].copy_from_slice(&ends.dst.octets());
    put(bytes, 10, 0);
    let checksum = sum(&bytes[..IP_LEN]).finish();
    put(bytes, 10, checksum);
    put(bytes, IP_LEN, ends.src_port);
    put(bytes, IP_LEN + 2, ends.dst_port);
}

/// The sum over pseudo header and transport header, whose checksum field counts as zero.
fn transport_sum(bytes: &mut [u8], protocol: u8, ends: Ends, header_end: usize) -> Sum {
    let field = IP_LEN + if protocol == PROTOCOL_TCP { 16 } else { 6 };
    put(bytes, field, 0);
    let len = (bytes.len() - IP_LEN) as u16;
    pseudo_header_v4(ends.src, ends.dst, protocol, len).plus(sum(&bytes[IP_LEN..header_end]))
}

fn tso_header(payload: usize) -> VnetHeader {
    VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GsoKind::TcpV4.to_wire(),
        hdr_len: (IP_LEN + TCP_LEN) as u16,
        gso_size: payload as u16,
        csum_start: IP_LEN as u16,
        csum_offset: 16,
    }
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use patronus_packet::{Cutter, Padding, parse};

    use super::*;

    fn checksums_fit(packet: &[u8]) -> bool {
        let info = parse(packet).unwrap();
        let protocol = info.protocol();
        let transport = &packet[IP_LEN..usize::from(info.total_len)];
        let pseudo = patronus_packet::checksum::pseudo_header(
            info.key.src,
            info.key.dst,
            protocol,
            transport.len() as u16,
        );
        sum(&packet[..IP_LEN]).finish() == 0 && pseudo.plus(sum(transport)).finish() == 0
    }

    #[test]
    fn every_packet_that_travels_has_right_checksums_and_its_length() {
        for shape in [
            Shape::Packet(28),
            Shape::Packet(65),
            Shape::Packet(1420),
            Shape::BULK,
        ] {
            let traffic = Traffic::new(shape, 7, 3);
            let mut frame = TunFrame::default();
            for (n, toward) in [(0, Toward::Far), (1, Toward::Hub), (40, Toward::Far)] {
                traffic.fill(&mut frame, n, toward);
                let info = parse(frame.buf.data()).unwrap();
                let mut cutter = Cutter::new(&mut frame, &info).unwrap();
                let mut packets = 0;
                while let Some(segment) = cutter.next_segment(Padding { mtu: 1420 }) {
                    assert_eq!(segment.packet_len, shape.inner_len());
                    assert!(checksums_fit(&segment.padded[..segment.packet_len]));
                    packets += 1;
                }
                assert_eq!(packets, shape.packets());
                traffic.open_flow(&mut frame, n, toward);
                assert!(checksums_fit(frame.buf.data()));
            }
        }
    }

    #[test]
    fn flows_are_as_many_as_asked_for_and_both_ways_are_one_flow() {
        let traffic = Traffic::new(Shape::Packet(64), 100_000, 1000);
        let mut frame = TunFrame::default();
        let mut key = |n, toward| {
            traffic.fill(&mut frame, n, toward);
            parse(frame.buf.data()).unwrap().key
        };
        let keys: HashSet<_> = (0..100_000).map(|n| key(n, Toward::Far)).collect();
        assert_eq!(keys.len(), 100_000);
        assert_eq!(key(777, Toward::Hub).reversed(), key(777, Toward::Far));
        assert_eq!(key(100_777, Toward::Far), key(777, Toward::Far));
    }

    #[test]
    fn a_stream_continues_where_its_last_frame_ended() {
        let traffic = Traffic::new(Shape::BULK, 2, 1);
        let mut frame = TunFrame::default();
        let mut sequence = |n| {
            traffic.fill(&mut frame, n, Toward::Far);
            u32::from_be_bytes(frame.buf.data()[24..28].try_into().unwrap())
        };
        assert_eq!([0, 1, 2, 4].map(&mut sequence), [0, 0, 62_100, 124_200]);
    }

    #[test]
    fn shapes_read_as_they_are_written_and_nonsense_is_refused() {
        for text in ["64", "1420", "45x1380"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        for text in [
            "", "x", "27", "9001", "1x1380", "50x1380", "45x0", "64B", "-1",
        ] {
            let error = text.parse::<Shape>().unwrap_err();
            assert!(error.contains("45x1380"), "{text}: {error}");
        }
    }
}
