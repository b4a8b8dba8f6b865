//! How datagrams come and go: through which door, from where, to where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::ids::SiteId;

/// UDP port of discovery.
pub const PORT: u16 = 51821;
/// Group of announcements on a LAN, IPv4: sent with TTL 1 (RFC 2365, site-local scope).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 42, 1);
/// Group of announcements on a LAN, IPv6: link-local and not permanently assigned (RFC 4291, 2.7), sent with hop limit
/// 255, which nothing that crossed a router can have.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x5061, 0x7444);

/// The kernel's number of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u32);

/// Through what a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// An interface with the LAN role.
    Lan(InterfaceId),
    /// Any uplink.
    Wan,
    /// The tunnel of this site: WireGuard says that it sent the datagram.
    Tunnel(SiteId),
}

/// What is known of a datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Through what.
    pub door: Door,
    /// From where. Inside a tunnel it is not looked at.
    pub source: SocketAddr,
    /// To which of our addresses or groups.
    pub local: IpAddr,
    /// Whether the source has an address of a network that the interface is on. Matters on a LAN only.
    pub is_on_link: bool,
    /// TTL or hop limit that it came with. Matters with IPv6 on a LAN, where only 255 is accepted.
    pub hop_limit: Option<u8>,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A group on an interface: TTL 1 with IPv4, hop limit 255 with IPv6.
    Multicast {
        /// Which interface.
        lan: InterfaceId,
        /// The group and port.
        group: SocketAddr,
    },
    /// One address, from the discovery port; hop limit 255 on a LAN.
    Unicast {
        /// Which address and port.
        to: SocketAddr,
        /// On this interface; `None` for whatever the routes say.
        lan: Option<InterfaceId>,
    },
    /// A site, through its tunnel: the discovery port at its first tunnel address.
    Site(SiteId),
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where.
    pub to: Destination,
    /// What.
    pub datagram: Vec<u8>,
}

impl Arrival {
    /// Where an answer goes.
    pub(super) fn back(&self) -> Destination {
        match self.door {
            Door::Lan(lan) => Destination::Unicast {
                to: self.source,
                lan: Some(lan),
            },
            Door::Wan => Destination::Unicast {
                to: self.source,
                lan: None,
            },
            Door::Tunnel(site) => Destination::Site(site),
        }
    }
}
