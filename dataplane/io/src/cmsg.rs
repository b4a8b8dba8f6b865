//! Socket addresses and control messages as bytes, the way the kernel lays them out (`struct sockaddr_in`,
//! `struct sockaddr_in6`, `struct cmsghdr`; `cmsg(3)`). Only bytes here; the calls are in `mmsg`.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for one address of either family.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Name {
    bytes: [u8; NAME_LEN],
}

impl Name {
    /// Writes `addr` and says how many bytes it takes.
    pub(crate) fn encode(&mut self, addr: SocketAddr) -> usize {
        let bytes = &mut self.bytes;
        bytes.fill(0);
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                NAME_V4_LEN
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                NAME_LEN
            }
        }
    }

    /// Reads the address in the first `len` bytes; `None` where they hold no IP address.
    pub(crate) fn decode(&self, len: usize) -> Option<SocketAddr> {
        let bytes = self.bytes.get(..len)?;
        let family = i32::from(u16::from_ne_bytes(array(bytes, 0)?));
        let port = u16::from_be_bytes(array(bytes, 2)?);
        match family {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(array::<4>(bytes, 4)?);
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let flowinfo = u32::from_ne_bytes(array(bytes, 4)?);
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                let scope_id = u32::from_ne_bytes(array(bytes, 24)?);
                Some(SocketAddrV6::new(ip, port, flowinfo, scope_id).into())
            }
            _ => None,
        }
    }
}

/// Room for the control messages of one datagram.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Control {
    bytes: [u8; CONTROL_LEN],
}

impl Default for Control {
    fn default() -> Self {
        Self {
            bytes: [0; CONTROL_LEN],
        }
    }
}

impl Control {
    /// Writes what a send needs and says how many bytes that takes; 0 where it needs nothing.
    pub(crate) fn encode(&mut self, ask: &Ask) -> usize {
        let mut at = 0;
        match ask.to {
            SocketAddr::V4(_) => {
                // A source of the other family cannot be meant; the kernel chooses.
                let from = match ask.from {
                    Some(IpAddr::V4(from)) => Some(from),
                    Some(IpAddr::V6(_)) | None => None,
                };
                if from.is_some() || ask.ifindex != 0 {
                    // struct in_pktinfo: interface (0: by route), source (0: by interface), unused on the way out
                    let mut info = [0; 12];
                    info[..4].copy_from_slice(&ask.ifindex.to_ne_bytes());
                    info[4..8].copy_from_slice(&from.map_or([0; 4], |from| from.octets()));
                    at = self.push(at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                }
                if ask.tos != 0 {
                    let tos = i32::from(ask.tos).to_ne_bytes();
                    at = self.push(at, libc::IPPROTO_IP, libc::IP_TOS, &tos);
                }
            }
            SocketAddr::V6(to) => {
                let from = match ask.from {
                    Some(IpAddr::V6(from)) => Some(from),
                    Some(IpAddr::V4(_)) | None => None,
                };
                let is_link_local = from.is_some_and(|from| from.is_unicast_link_local());
                let ifindex = match ask.ifindex {
                    // A link-local source must name its link.
                    0 if is_link_local => to.scope_id(),
                    ifindex => ifindex,
                };
                // The kernel takes the interface as an order only where it may choose the source itself; beside a source
                // it is a wish, and the route of least metric wins (`ip6_route_output_flags`). Link-local
                // destinations are bound to their link anyway.
                let is_wish = ask.ifindex != 0 && !to.ip().is_unicast_link_local();
                let from = from.filter(|_| !is_wish);
                if from.is_some() || ifindex != 0 {
                    // struct in6_pktinfo: source, interface
                    let mut info = [0; 20];
                    info[..16].copy_from_slice(&from.map_or([0; 16], |from| from.octets()));
                    info[16..].copy_from_slice(&ifindex.to_ne_bytes());
                    at = self.push(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                }
                if ask.tos != 0 {
                    let tos = i32::from(ask.tos).to_ne_bytes();
                    at = self.push(at, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos);
                }
            }
        }
        if let Some(segment_len) = ask.segment_len {
            at = self.push(
                at,
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                &segment_len.to_ne_bytes(),
            );
        }
        at
    }

    /// Reads what the kernel said about a datagram, in the first `len` bytes.
    pub(crate) fn decode(&self, len: usize) -> Arrival {
        let mut arrival = Arrival::default();
        let mut rest = self.bytes.get(..len).unwrap_or_default();
        while let Some((level, kind, data, behind)) = next_message(rest) {
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = array(data, 0).map_or(0, i32::from_ne_bytes);
                    arrival.segment_len = usize::try_from(size).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // `ipi_spec_dst` is the local address even of a broadcast; `ipi_addr` is not.
                    arrival.ifindex = array(data, 0).map_or(0, u32::from_ne_bytes);
                    let local = array::<4>(data, 4).map(Ipv4Addr::from);
                    arrival.local = local.filter(|ip| !ip.is_unspecified()).map(IpAddr::V4);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    arrival.ifindex = array(data, 16).map_or(0, u32::from_ne_bytes);
                    let local = array::<16>(data, 0).map(Ipv6Addr::from);
                    arrival.local = local.filter(|ip| !ip.is_multicast()).map(IpAddr::V6);
                }
                // One byte for IPv4, an int for IPv6.
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    arrival.tos = data.first().copied().unwrap_or(0);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = array(data, 0).map_or(0, i32::from_ne_bytes);
                    arrival.tos = u8::try_from(class).unwrap_or(0);
                }
                _ => {}
            }
            rest = behind;
        }
        arrival
    }

    fn push(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let data_at = at + HEADER_LEN;
        let end = data_at + data.len();
        self.bytes[at..at + LEN_LEN].copy_from_slice(&(end - at).to_ne_bytes());
        self.bytes[at + LEN_LEN..at + LEN_LEN + 4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + LEN_LEN + 4..at + LEN_LEN + 8].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[data_at..end].copy_from_slice(data);
        at + align(end - at)
    }
}

/// What a datagram on its way out asks of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// Source address; `None` lets the kernel choose.
    pub(crate) from: Option<IpAddr>,
    /// The interface to leave by, and by no other; 0 lets the routes choose.
    pub(crate) ifindex: u32,
    /// Traffic class of the IP header (RFC 2474, RFC 3168).
    pub(crate) tos: u8,
    /// Length of each datagram of a train; `None` for a single datagram.
    pub(crate) segment_len: Option<u16>,
}

/// What the control messages of a received datagram say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The local address it was sent to.
    pub(crate) local: Option<IpAddr>,
    /// The interface it came in on; 0 where the kernel did not say.
    pub(crate) ifindex: u32,
    /// Traffic class of its IP header.
    pub(crate) tos: u8,
    /// Length of each datagram of a GRO train; 0 where there is none.
    pub(crate) segment_len: usize,
}

type Message<'a> = (i32, i32, &'a [u8], &'a [u8]);

/// Level, type and data of the first message, and what lies behind it.
fn next_message(bytes: &[u8]) -> Option<Message<'_>> {
    let len = usize::from_ne_bytes(array(bytes, 0)?);
    let level = i32::from_ne_bytes(array(bytes, LEN_LEN)?);
    let kind = i32::from_ne_bytes(array(bytes, LEN_LEN + 4)?);
    let data = bytes.get(HEADER_LEN..len)?;
    // The kernel leaves out the padding behind the last message.
    let behind = bytes.get(align(len)..).unwrap_or_default();
    Some((level, kind, data, behind))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn align(len: usize) -> usize {
    len.next_multiple_of(mem::size_of::<libc::c_long>())
}

/// `struct sockaddr_in`
const NAME_V4_LEN: usize = 16;
/// `struct sockaddr_in6`
const NAME_LEN: usize = 28;
/// `cmsg_len`
const LEN_LEN: usize = mem::size_of::<usize>();
/// `struct cmsghdr`, which is aligned as its messages are
const HEADER_LEN: usize = LEN_LEN + 8;
/// IPv6 packet information, a traffic class and a GRO size take 88 bytes; the rest is for what nobody asked for.
const CONTROL_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        let v6 = SocketAddrV6::new("fe80::1".parse().unwrap(), 51820, 7, 3);
        for addr in ["192.0.2.1:1".parse().unwrap(), SocketAddr::V6(v6)] {
            let mut name = Name::default();
            let len = name.encode(addr);
            assert_eq!(name.decode(len), Some(addr));
            assert_eq!(name.decode(7), None);
        }
    }

    #[test]
    fn bytes_that_are_no_address_are_none() {
        let mut name = Name::default();
        assert_eq!(name.decode(NAME_LEN), None);
        assert_eq!(name.decode(0), None);
        assert_eq!(name.decode(1000), None);
        name.encode("[::1]:1".parse().unwrap());
        assert_eq!(name.decode(NAME_V4_LEN), None);
    }

    fn ask(to: &str, from: Option<&str>, ifindex: u32) -> Ask {
        Ask {
            to: to.parse().unwrap(),
            from: from.map(|from| from.parse().unwrap()),
            ifindex,
            tos: 0,
            segment_len: None,
        }
    }

    #[test]
    fn what_was_asked_for_is_read_back() {
        let mut control = Control::default();
        for (to, from) in [
            ("192.0.2.2:1", "192.0.2.1"),
            ("[2001:db8::2]:1", "2001:db8::1"),
            ("[fe80::2%7]:1", "fe80::1"),
        ] {
            let ask = Ask {
                tos: 0xb9,
                segment_len: Some(1400),
                ..ask(to, Some(from), 0)
            };
            let len = control.encode(&ask);
            let arrival = control.decode(len);
            assert_eq!(arrival.local, ask.from);
            let scope = if to.contains('%') { 7 } else { 0 };
            assert_eq!(arrival.ifindex, scope, "{to}");
            // IPv4 sends an int and receives a byte: the first of a little-endian int is that byte.
            if cfg!(target_endian = "little") {
                assert_eq!(arrival.tos, 0xb9, "{to}");
            }
        }
        assert_eq!(control.encode(&ask("[2001:db8::2]:1", None, 0)), 0);
        assert_eq!(
            control.encode(&ask("[2001:db8::2]:1", Some("192.0.2.1"), 0)),
            0
        );
    }

    #[test]
    fn an_interface_is_named_with_a_source_of_ipv4_and_without_one_of_ipv6() {
        let mut control = Control::default();
        for (to, from, kept) in [
            ("192.0.2.2:1", Some("192.0.2.1"), true),
            ("192.0.2.2:1", None, true),
            ("[2001:db8::2]:1", Some("2001:db8::1"), false),
            ("[fe80::2%9]:1", Some("fe80::1"), true),
        ] {
            let ask = ask(to, from, 9);
            let len = control.encode(&ask);
            let arrival = control.decode(len);
            assert_eq!(arrival.ifindex, 9, "{to}");
            let expected = match (kept, to.starts_with('[')) {
                (true, _) => ask.from,
                (false, _) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            };
            assert_eq!(arrival.local, expected, "{to}");
        }
    }

    #[test]
    fn a_train_size_is_found_behind_other_messages() {
        let mut control = Control::default();
        let at = control.push(0, libc::SOL_SOCKET, 29, &[1; 13]);
        let len = control.push(at, libc::SOL_UDP, libc::UDP_GRO, &1372i32.to_ne_bytes());
        assert_eq!(control.decode(len).segment_len, 1372);
        let negative = control.push(0, libc::SOL_UDP, libc::UDP_GRO, &(-1i32).to_ne_bytes());
        assert_eq!(control.decode(negative).segment_len, 0);
    }

    #[test]
    fn broken_control_bytes_end_quietly() {
        for fill in 0..=255 {
            let control = Control {
                bytes: [fill; CONTROL_LEN],
            };
            for len in 0..=CONTROL_LEN + 1 {
                assert_eq!(control.decode(len), Arrival::default());
            }
        }
    }
}
