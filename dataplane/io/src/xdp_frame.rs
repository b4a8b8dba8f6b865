//! Ethernet frames with one UDP datagram in them, as bytes: read and written, nothing else.
//!
//! What the kernel's stack does for a UDP socket is done here for frames that go past it: lengths, the checksums of
//! IPv4 (RFC 791) and UDP (RFC 768, RFC 8200 section 8.1), and nothing of fragments, options and extension headers,
//! which the redirecting program leaves to the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use patronus_packet::checksum::{Sum, pseudo_header_v4, pseudo_header_v6, sum};

/// A link-layer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// One datagram of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) remote: SocketAddr,
    pub(crate) local: IpAddr,
    /// The port that it was sent to.
    pub(crate) port: u16,
    /// Traffic class.
    pub(crate) tos: u8,
    pub(crate) payload: &'a [u8],
}

/// Why a frame holds no datagram for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not Ethernet with IPv4 or IPv6 with UDP right behind, or not all of it.
    Foreign,
    /// A checksum is wrong.
    Corrupt,
}

/// Reads a frame.
pub(crate) fn read(frame: &[u8]) -> Result<Datagram<'_>, Unfit> {
    let kind = array::<2>(frame, 12)?;
    let packet = frame.get(ETHERNET_LEN..).ok_or(Unfit::Foreign)?;
    match kind {
        ETHERTYPE_V4 => read_v4(packet),
        ETHERTYPE_V6 => read_v6(packet),
        _ => Err(Unfit::Foreign),
    }
}

fn read_v4(packet: &[u8]) -> Result<Datagram<'_>, Unfit> {
    let [version_ihl, tos] = array(packet, 0)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    let fragment = u16::from_be_bytes(array(packet, 6)?) & FRAGMENT_MASK;
    let [protocol] = array(packet, 9)?;
    let is_plain = version_ihl >> 4 == 4 && header_len >= V4_LEN;
    if !is_plain || fragment != 0 || protocol != UDP {
        return Err(Unfit::Foreign);
    }
    let total_len = usize::from(u16::from_be_bytes(array(packet, 2)?));
    let header = packet.get(..header_len).ok_or(Unfit::Foreign)?;
    if sum(header).fold() != u16::MAX {
        return Err(Unfit::Corrupt);
    }
    let segment = packet
        .get(header_len..total_len)
        .ok_or(Unfit::Foreign)
        .and_then(Segment::read)?;
    let source = Ipv4Addr::from(array::<4>(packet, 12)?);
    let local = Ipv4Addr::from(array::<4>(packet, 16)?);
    let len = segment.bytes.len() as u16;
    // RFC 768: no checksum is allowed, and is sent as zero.
    if segment.checksum != 0 {
        segment.verify(pseudo_header_v4(source, local, UDP, len))?;
    }
    Ok(segment.into_datagram(source.into(), local.into(), tos))
}

fn read_v6(packet: &[u8]) -> Result<Datagram<'_>, Unfit> {
    let [first, second] = array(packet, 0)?;
    let [next_header] = array(packet, 6)?;
    if first >> 4 != 6 || next_header != UDP {
        return Err(Unfit::Foreign);
    }
    let len = usize::from(u16::from_be_bytes(array(packet, 4)?));
    let segment = packet
        .get(V6_LEN..V6_LEN + len)
        .ok_or(Unfit::Foreign)
        .and_then(Segment::read)?;
    let source = Ipv6Addr::from(array::<16>(packet, 8)?);
    let local = Ipv6Addr::from(array::<16>(packet, 24)?);
    let udp_len = segment.bytes.len() as u32;
    segment.verify(pseudo_header_v6(source, local, UDP, udp_len))?;
    let tos = first << 4 | second >> 4;
    Ok(segment.into_datagram(source.into(), local.into(), tos))
}

/// A UDP header with its payload.
struct Segment<'a> {
    bytes: &'a [u8],
    ports: [u16; 2],
    checksum: u16,
}

impl<'a> Segment<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Unfit> {
        let word = |at| array(bytes, at).map(u16::from_be_bytes);
        let len = usize::from(word(4)?);
        if len < UDP_LEN {
            return Err(Unfit::Foreign);
        }
        Ok(Self {
            ports: [word(0)?, word(2)?],
            checksum: word(6)?,
            bytes: bytes.get(..len).ok_or(Unfit::Foreign)?,
        })
    }

    /// Within a machine, as between containers, a sender leaves the checksum to a device that there is none of, and the
    /// field holds the sum of the pseudo header alone (`CHECKSUM_PARTIAL`).
    fn verify(&self, pseudo: Sum) -> Result<(), Unfit> {
        let whole = pseudo.plus(sum(self.bytes)).fold() == u16::MAX;
        match whole || self.checksum == pseudo.fold() {
            true => Ok(()),
            false => Err(Unfit::Corrupt),
        }
    }

    fn into_datagram(self, source: IpAddr, local: IpAddr, tos: u8) -> Datagram<'a> {
        Datagram {
            remote: SocketAddr::new(source, self.ports[0]),
            local,
            port: self.ports[1],
            tos,
            payload: &self.bytes[UDP_LEN..],
        }
    }
}

/// The headers of all datagrams of a train, made once.
pub(crate) struct Header {
    bytes: [u8; HEADERS_V6_LEN],
    len: usize,
    is_v6: bool,
    /// Of the IPv4 header, without what differs between datagrams.
    ip_sum: Sum,
    /// Of pseudo header and ports, without lengths.
    udp_sum: Sum,
}

impl Header {
    /// Headers from `source` to `remote` with that traffic class; `None` where the two are of different families.
    pub(crate) fn new(
        macs: [Mac; 2],
        source: SocketAddr,
        remote: SocketAddr,
        tos: u8,
    ) -> Option<Self> {
        let [own, next] = macs;
        let mut bytes = [0; HEADERS_V6_LEN];
        bytes[..6].copy_from_slice(&next.0);
        bytes[6..12].copy_from_slice(&own.0);
        let ip = &mut bytes[ETHERNET_LEN..];
        let (ip_len, pseudo, kind) = match (source.ip(), remote.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ip[0] = 0x45;
                ip[1] = tos;
                ip[8] = HOP_LIMIT;
                ip[9] = UDP;
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..20].copy_from_slice(&to.octets());
                (V4_LEN, pseudo_header_v4(from, to, UDP, 0), ETHERTYPE_V4)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                // One label per flow, for routers that spread by it (RFC 6437).
                let label = (u32::from(source.port()) << 4 ^ u32::from(remote.port())) & 0xf_ffff;
                let word = 6 << 28 | u32::from(tos) << 20 | label;
                ip[..4].copy_from_slice(&word.to_be_bytes());
                ip[6] = UDP;
                ip[7] = HOP_LIMIT;
                ip[8..24].copy_from_slice(&from.octets());
                ip[24..40].copy_from_slice(&to.octets());
                (V6_LEN, pseudo_header_v6(from, to, UDP, 0), ETHERTYPE_V6)
            }
            _ => return None,
        };
        bytes[12..14].copy_from_slice(&kind);
        let udp_at = ETHERNET_LEN + ip_len;
        bytes[udp_at..udp_at + 2].copy_from_slice(&source.port().to_be_bytes());
        bytes[udp_at + 2..udp_at + 4].copy_from_slice(&remote.port().to_be_bytes());
        Some(Self {
            len: udp_at + UDP_LEN,
            is_v6: kind == ETHERTYPE_V6,
            ip_sum: sum(&bytes[ETHERNET_LEN..udp_at]),
            udp_sum: pseudo.plus_word(source.port()).plus_word(remote.port()),
            bytes,
        })
    }

    /// Writes a frame with `payload` at the start of `into` and returns its length. `id` tells the fragments of one
    /// IPv4 packet from those of another, should a router cut it.
    pub(crate) fn write(&self, into: &mut [u8], payload: &[u8], id: u16) -> usize {
        let frame_len = self.len + payload.len();
        let udp_at = self.len - UDP_LEN;
        let udp_len = (UDP_LEN + payload.len()) as u16;
        into[..self.len].copy_from_slice(&self.bytes[..self.len]);
        into[self.len..frame_len].copy_from_slice(payload);
        let ip = &mut into[ETHERNET_LEN..udp_at];
        if self.is_v6 {
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
        } else {
            let total_len = udp_len + V4_LEN as u16;
            let checksum = self.ip_sum.plus_word(total_len).plus_word(id).finish();
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        // The length stands in the pseudo header and in UDP's own.
        let checksum = self
            .udp_sum
            .plus_word(udp_len)
            .plus_word(udp_len)
            .plus(sum(payload))
            .finish();
        // Zero would say that there is none.
        let checksum = if checksum == 0 { u16::MAX } else { checksum };
        let udp = &mut into[udp_at..self.len];
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        frame_len
    }
}

/// IP and UDP headers in front of a datagram, in bytes.
pub(crate) fn ip_headers_len(remote: &SocketAddr) -> usize {
    UDP_LEN + if remote.is_ipv6() { V6_LEN } else { V4_LEN }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Unfit> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk().copied())
        .ok_or(Unfit::Foreign)
}

/// An Ethernet header without a VLAN tag.
pub(crate) const ETHERNET_LEN: usize = 14;
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];
const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const HEADERS_V6_LEN: usize = ETHERNET_LEN + V6_LEN + UDP_LEN;
/// More fragments, and the offset.
const FRAGMENT_MASK: u16 = 0x3fff;
/// IP protocol number of UDP.
const UDP: u8 = 17;
/// The kernel's default, too.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

    fn frame(source: &str, remote: &str, tos: u8, payload: &[u8]) -> Vec<u8> {
        let (source, remote) = (source.parse().unwrap(), remote.parse().unwrap());
        let header = Header::new(MACS, source, remote, tos).unwrap();
        let mut bytes = vec![0xee; 2048];
        let len = header.write(&mut bytes, payload, 0xbeef);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_whatever_its_length() {
        for (source, remote) in [
            ("192.0.2.1:51820", "198.51.100.7:4000"),
            ("[2001:db8::1]:51820", "[2001:db8:9::7]:4000"),
        ] {
            for len in [0, 1, 31, 32, 33, 148, 1399, 1400] {
                let payload: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
                let bytes = frame(source, remote, 0xb9, &payload);
                let datagram = read(&bytes).unwrap();
                // Read from the other side: its remote is our source.
                assert_eq!(datagram.remote, source.parse().unwrap());
                assert_eq!(datagram.local, remote.parse::<SocketAddr>().unwrap().ip());
                assert_eq!((datagram.port, datagram.tos), (4000, 0xb9));
                assert_eq!(datagram.payload, payload);
            }
        }
    }

    #[test]
    fn etherparse_finds_the_same_checksums() {
        use etherparse::{NetSlice, SlicedPacket, TransportSlice};
        for (source, remote) in [
            ("192.0.2.1:51820", "198.51.100.7:4000"),
            ("[2001:db8::1]:51820", "[2001:db8:9::7]:4000"),
        ] {
            for len in [1, 64, 333, 1400] {
                let payload: Vec<u8> = (0..len).map(|at| (at * 13 % 255) as u8).collect();
                let bytes = frame(source, remote, 0x03, &payload);
                let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
                let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
                    panic!("no UDP");
                };
                let header = udp.to_header();
                match sliced.net.as_ref().unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let ip = ip.header().to_header();
                        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                        assert_eq!(ip.identification, 0xbeef);
                        let sum = header.calc_checksum_ipv4(&ip, &payload).unwrap();
                        assert_eq!(header.checksum, sum);
                    }
                    NetSlice::Ipv6(ip) => {
                        let ip = ip.header().to_header();
                        let sum = header.calc_checksum_ipv6(&ip, &payload).unwrap();
                        assert_eq!(header.checksum, sum);
                    }
                    _ => panic!("no IP"),
                }
            }
        }
    }

    #[test]
    fn a_frame_with_any_byte_changed_gives_no_other_ends() {
        for (source, remote) in [
            ("192.0.2.1:51820", "198.51.100.7:4000"),
            ("[2001:db8::1]:51820", "[2001:db8:9::7]:4000"),
        ] {
            let good = frame(source, remote, 0, &[7; 100]);
            let ends = |bytes: &[u8]| {
                read(bytes).map(|datagram| (datagram.remote, datagram.local, datagram.port))
            };
            let expected = ends(&good).unwrap();
            for at in ETHERNET_LEN..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x11;
                if let Ok(got) = ends(&bad) {
                    // The traffic class, flow label and hop limit of IPv6 are under no checksum.
                    assert_eq!(got, expected, "byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_checksum_left_to_a_device_passes_and_a_missing_one_only_in_ipv4() {
        let v4 = frame("192.0.2.1:1", "192.0.2.2:2", 0, &[1; 40]);
        let v6 = frame("[2001:db8::1]:1", "[2001:db8::2]:2", 0, &[1; 40]);
        for (good, checksum_at, without) in [
            (v4, ETHERNET_LEN + V4_LEN + 6, Ok(())),
            (v6, ETHERNET_LEN + V6_LEN + 6, Err(Unfit::Corrupt)),
        ] {
            let verdict = |bytes: &[u8]| read(bytes).map(|_| ());
            let mut bytes = good.clone();
            bytes[checksum_at..checksum_at + 2].fill(0);
            assert_eq!(verdict(&bytes), without);
            let datagram = read(&good).unwrap();
            let pseudo = match (datagram.remote.ip(), datagram.local) {
                (IpAddr::V4(from), IpAddr::V4(to)) => pseudo_header_v4(from, to, UDP, 48),
                (IpAddr::V6(from), IpAddr::V6(to)) => pseudo_header_v6(from, to, UDP, 48),
                _ => unreachable!("one family"),
            };
            bytes[checksum_at..checksum_at + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
            assert_eq!(verdict(&bytes), Ok(()));
            bytes[checksum_at] ^= 1;
            assert_eq!(verdict(&bytes), Err(Unfit::Corrupt));
        }
    }

    #[test]
    fn cut_frames_fragments_and_other_protocols_are_foreign() {
        let good = frame("192.0.2.1:1", "192.0.2.2:2", 0, &[1; 40]);
        for len in 0..good.len() {
            assert_eq!(read(&good[..len]), Err(Unfit::Foreign), "{len} bytes");
        }
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            read(&bytes).map(|_| ())
        };
        assert_eq!(changed(ETHERNET_LEN + 6, 0x20), Err(Unfit::Foreign));
        assert_eq!(changed(ETHERNET_LEN + 9, 6), Err(Unfit::Foreign));
        assert_eq!(changed(13, 0x06), Err(Unfit::Foreign));
        assert_eq!(changed(ETHERNET_LEN, 0x44), Err(Unfit::Foreign));
        // Ethernet pads short frames; that is not payload.
        let mut padded = frame("192.0.2.1:1", "192.0.2.2:2", 0, &[1; 4]);
        padded.resize(60, 0);
        assert_eq!(read(&padded).unwrap().payload, [1; 4]);
    }
}
