//! Which packets are wanted: inside the tunnel by the prefixes of peers, outside by their addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use patronus_api::{PeerPathsView, PeerView};
use patronus_config::Outline;

use super::pcapng::Interface;

/// What is wanted of a gateway.
#[derive(Clone, Debug)]
pub struct Filter {
    tunnel: String,
    /// Interfaces of uplinks; empty for all but the tunnel's.
    uplinks: Vec<String>,
    no_inner: bool,
    no_outer: bool,
    /// Prefixes inside, and whose they are.
    inner: Vec<(IpAddr, u8, String)>,
    /// Ends outside, and what to say of them.
    outer: Vec<(SocketAddr, String)>,
}

impl Filter {
    /// Nothing of nobody yet.
    pub fn new(outline: &Outline, no_inner: bool, no_outer: bool) -> Self {
        let uplinks = outline.uplinks.iter();
        let uplinks = uplinks.filter_map(|it| it.interface.as_ref());
        Self {
            tunnel: outline.interface.as_str().to_owned(),
            uplinks: uplinks.map(|it| it.as_str().to_owned()).collect(),
            no_inner,
            no_outer,
            inner: Vec::new(),
            outer: Vec::new(),
        }
    }

    /// That peer too, by these paths.
    pub fn add(&mut self, peer: &PeerView, paths: &PeerPathsView) {
        for prefix in &peer.allowed_ips {
            if let Some((addr, length)) = prefix.split_once('/')
                && let (Ok(addr), Ok(length)) = (addr.parse(), length.parse())
            {
                self.inner.push((addr, length, peer.peer.clone()));
            }
        }
        for path in &paths.paths {
            self.outer
                .push((path.remote, format!("path {} {}", path.id, path.name)));
        }
        if let Some(endpoint) = peer.endpoint {
            self.outer.push((endpoint, format!("peer {}", peer.peer)));
        }
    }

    /// Name of the tunnel's interface.
    pub fn tunnel(&self) -> &str {
        &self.tunnel
    }

    /// In a few words.
    pub fn words(&self) -> String {
        format!(
            "{} prefixes inside and {} ends outside",
            self.inner.len(),
            self.outer.len()
        )
    }

    /// Whether an interface is the tunnel's (true) or an uplink (false); `None` for others.
    pub fn side_of(&self, interface: &str) -> Option<bool> {
        if interface == self.tunnel {
            return (!self.no_inner).then_some(true);
        }
        let is_uplink = match self.uplinks.is_empty() {
            true => interface != "lo",
            false => self.uplinks.iter().any(|it| it == interface),
        };
        (is_uplink && !self.no_outer).then_some(false)
    }

    /// What to say of a packet; `None` where it is not wanted.
    pub fn comment(&self, interface: &Interface, bytes: &[u8]) -> Option<String> {
        let packet = match interface.has_ethernet {
            true => behind_ethernet(bytes)?,
            false => bytes,
        };
        let ends = Ends::of(packet)?;
        match interface.is_tunnel {
            true => {
                let mut inner = self.inner.iter();
                let of_peer = inner.find(|(network, length, _)| {
                    is_within(*network, *length, ends.src) || is_within(*network, *length, ends.dst)
                });
                of_peer.map(|(_, _, name)| format!("peer {name}"))
            }
            false => {
                let ports = ends.udp_ports?;
                let [from, to] = [(ends.src, ports.0), (ends.dst, ports.1)].map(SocketAddr::from);
                let mut outer = self.outer.iter();
                let of_path = outer.find(|(remote, _)| *remote == from || *remote == to);
                of_path.map(|(_, words)| words.clone())
            }
        }
    }
}

/// What an IP packet says of its ends.
struct Ends {
    src: IpAddr,
    dst: IpAddr,
    udp_ports: Option<(u16, u16)>,
}

impl Ends {
    fn of(packet: &[u8]) -> Option<Self> {
        let (src, dst, protocol, header) = match packet.first()? >> 4 {
            4 => {
                let addr = |at: usize| -> Option<IpAddr> {
                    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                    Some(Ipv4Addr::from(bytes).into())
                };
                let header = usize::from(packet[0] & 15) * 4;
                let is_first = packet.get(6)? & 0x1f == 0 && *packet.get(7)? == 0;
                // Of later fragments nobody knows the ports.
                let protocol = if is_first { *packet.get(9)? } else { 0 };
                (addr(12)?, addr(16)?, protocol, header)
            }
            6 => {
                let addr = |at: usize| -> Option<IpAddr> {
                    let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                    Some(Ipv6Addr::from(bytes).into())
                };
                (addr(8)?, addr(24)?, *packet.get(6)?, 40)
            }
            _ => return None,
        };
        let port = |at: usize| -> Option<u16> {
            let bytes: [u8; 2] = packet.get(header + at..header + at + 2)?.try_into().ok()?;
            Some(u16::from_be_bytes(bytes))
        };
        let udp_ports = match protocol {
            UDP => Some((port(0)?, port(2)?)),
            _ => None,
        };
        Some(Self {
            src,
            dst,
            udp_ports,
        })
    }
}

/// The IP packet in a frame, behind up to two VLAN tags.
fn behind_ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    for _ in 0..3 {
        let kind: [u8; 2] = frame.get(at..at + 2)?.try_into().ok()?;
        at += 2;
        match u16::from_be_bytes(kind) {
            0x0800 | 0x86dd => return frame.get(at..),
            0x8100 | 0x88a8 => at += 2,
            _ => return None,
        }
    }
    None
}

fn is_within(network: IpAddr, length: u8, addr: IpAddr) -> bool {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let differ = bits(network) ^ bits(addr);
    network.is_ipv4() == addr.is_ipv4() && differ.leading_zeros() >= u32::from(length)
}

const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_config::Config;

    fn filter() -> Filter {
        let text = "[site]\nname = \"hq\"\nprivate_key_file = \"k\"\n";
        let outline = Outline::new(&Config::parse(text, "t").unwrap());
        let mut filter = Filter::new(&outline, false, false);
        filter
            .inner
            .push(("10.2.0.0".parse().unwrap(), 16, "branch".to_owned()));
        let remote = "203.0.113.7:51820".parse().unwrap();
        filter.outer.push((remote, "path branch/0 wan".to_owned()));
        filter
    }

    fn udp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(src);
        packet.extend(dst);
        packet.extend(ports.0.to_be_bytes());
        packet.extend(ports.1.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    fn interface(is_tunnel: bool, has_ethernet: bool) -> Interface {
        Interface {
            name: "x".to_owned(),
            index: 1,
            has_ethernet,
            is_tunnel,
        }
    }

    #[test]
    fn packets_of_the_peer_are_wanted_on_both_sides_and_others_are_not() {
        let filter = filter();
        let inner = interface(true, false);
        let mine = udp([10, 1, 0, 1], [10, 2, 3, 4], (1, 2));
        assert_eq!(
            filter.comment(&inner, &mine).as_deref(),
            Some("peer branch")
        );
        assert_eq!(
            filter.comment(&inner, &udp([10, 1, 0, 1], [10, 3, 3, 4], (1, 2))),
            None
        );
        let outer = interface(false, true);
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 7, 8, 0]);
        frame.extend(udp([192, 0, 2, 1], [203, 0, 113, 7], (51820, 51820)));
        assert_eq!(
            filter.comment(&outer, &frame).as_deref(),
            Some("path branch/0 wan")
        );
        let other_port = udp([192, 0, 2, 1], [203, 0, 113, 7], (51820, 53));
        assert_eq!(filter.comment(&interface(false, false), &other_port), None);
    }

    #[test]
    fn what_is_cut_short_is_not_wanted_and_harms_nobody() {
        let filter = filter();
        let whole = udp([192, 0, 2, 1], [203, 0, 113, 7], (51820, 51820));
        for len in 0..whole.len() - 4 {
            for is_tunnel in [true, false] {
                for has_ethernet in [true, false] {
                    let _ = filter.comment(&interface(is_tunnel, has_ethernet), &whole[..len]);
                }
            }
        }
    }
}
