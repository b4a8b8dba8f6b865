//! Sites joined by an emulated WAN: `host i - gateway i - wan`, each a namespace, all by veth.
//!
//! ```text
//! host 1 ── gateway 1 ──┐       LAN  10.I.0.0/24       fd00:I::/64    host .2, gateway .1
//! host 2 ── gateway 2 ──┤ wan   WAN  198.18.I.0/24     fd18:I::/64    gateway .2, wan .1
//! host N ── gateway N ──┘       in the tunnel 10.255.0.I/32, fd00:255::I/128
//! ```
//!
//! The WAN routes 198.18.0.0/15 (RFC 2544's benchmarking range) and fd18::/16 and knows no LAN: what reaches
//! another site's host has been through the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use patronus_packet::Prefix;
use patronus_tunnel::PrivateKey;

use crate::Namespace;
use crate::link::{self, End, Setup};
use crate::program::{GatewayConfig, PeerConfig};

/// The address family of a lab's inner or outer packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A WAN with sites around it. Everything vanishes with the value and the processes inside.
#[derive(Debug)]
pub struct Lab {
    /// The sites, in order of their numbers.
    pub sites: Vec<Site>,
    /// The namespace that routes between the sites.
    pub wan: Namespace,
}

/// One site: a host behind a gateway.
#[derive(Debug)]
pub struct Site {
    /// Its number, 1 to 8.
    pub number: u8,
    /// Where traffic starts and ends.
    pub host: Namespace,
    /// Where the gateway program runs.
    pub gateway: Namespace,
    /// The gateway's key.
    pub key: PrivateKey,
}

impl Lab {
    /// Builds the namespaces, links, addresses and routes for `sites` sites; no gateway runs yet.
    ///
    /// # Errors
    /// A number outside 2 to 8, [`crate::LabError::NoNamespaces`], or the step that the kernel refused.
    pub fn build(sites: usize) -> Result<Self> {
        ensure!(
            (SITES_MIN..=SITES_MAX).contains(&sites),
            "{sites} sites: a lab has {SITES_MIN} to {SITES_MAX}"
        );
        let wan = Namespace::new("wan")?;
        prepare(&wan, true)?;
        let sites = (1..=sites)
            .map(|number| Site::build(u8::try_from(number)?, &wan))
            .collect::<Result<_>>()?;
        Ok(Self { sites, wan })
    }

    /// The configuration of one site's gateway as a full mesh: every other site is a peer, reached over
    /// `outer`.
    pub fn gateway_config(&self, site: &Site, outer: Family) -> GatewayConfig {
        let others = self
            .sites
            .iter()
            .filter(|other| other.number != site.number);
        let peers = others.map(|other| PeerConfig {
            name: other.interface(),
            public_key: other.key.public_key(),
            endpoint: Some(SocketAddr::new(other.wan_addr(outer), LISTEN_PORT)),
            endpoints: Vec::new(),
            allowed_ips: other.prefixes(),
            preshared_key: None,
            keepalive_s: None,
        });
        GatewayConfig {
            interface: site.interface(),
            private_key: site.key.clone(),
            listen_port: LISTEN_PORT,
            addresses: site.tunnel_addresses().to_vec(),
            mtu: TUNNEL_MTU,
            peers: peers.collect(),
            uplinks: Vec::new(),
            cores: cores_from(usize::from(site.number) - 1),
            socket_buffer_kib: None,
            credentials: Vec::new(),
            appendix: String::new(),
        }
    }
}

/// The cores that this process may use, turned by `start`. All gateways of a lab share one machine: each begins
/// with another core, or the first workers of all would meet on the first one.
pub(crate) fn cores_from(start: usize) -> Vec<usize> {
    let Ok(allowed) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) else {
        return Vec::new();
    };
    let mut cores: Vec<usize> = (0..nix::sched::CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false))
        .collect();
    let turns = start % cores.len().max(1);
    cores.rotate_left(turns);
    cores
}

impl Site {
    /// Name of the site's tunnel interface, and of the site as a peer.
    pub fn interface(&self) -> String {
        format!("site{}", self.number)
    }

    /// The host's address.
    pub fn host_addr(&self, family: Family) -> IpAddr {
        lan(self.number, family, 2)
    }

    /// The gateway's address on the WAN.
    pub fn wan_addr(&self, family: Family) -> IpAddr {
        wan(self.number, family, 2)
    }

    /// What other sites route to this one.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let mut prefixes = vec![
            prefix(lan(self.number, Family::V4, 0), 24),
            prefix(lan(self.number, Family::V6, 0), 64),
        ];
        prefixes.extend(self.tunnel_addresses());
        prefixes
    }

    /// Moves the gateway to another address on the WAN (host part `last`, 3 to 254), as a provider's change of
    /// lease does.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub fn move_wan_addr(&self, family: Family, from_last: u8, to_last: u8) -> Result<()> {
        let len = if family == Family::V4 { 24 } else { 64 };
        let old = prefix(wan(self.number, family, from_last), len);
        let new = prefix(wan(self.number, family, to_last), len);
        link::readdress(
            &self.gateway,
            WAN_INTERFACE,
            old,
            new,
            &gateway_routes(self.number),
        )
    }

    fn build(number: u8, wan_namespace: &Namespace) -> Result<Self> {
        let host = Namespace::new(&format!("host {number}"))?;
        let gateway = Namespace::with_private_run(&format!("gateway {number}"))?;
        prepare(&host, false)?;
        prepare(&gateway, true)?;
        let site = Self {
            number,
            host,
            gateway,
            key: PrivateKey::generate(),
        };
        let on_wan = site.interface();
        link::connect(end(&site.host, "eth0"), end(&site.gateway, LAN_INTERFACE))?;
        link::connect(
            end(&site.gateway, WAN_INTERFACE),
            end(wan_namespace, &on_wan),
        )?;

        // The LAN has the tunnel's MTU, so that hosts need no path MTU discovery and all programs get
        // segments of one size.
        let lan_setup = |last, routes| (lan_addresses(number, last), routes);
        let (addresses, routes) = lan_setup(2, host_routes(number));
        configure(&site.host, "eth0", Some(TUNNEL_MTU), &addresses, &routes)?;
        let (addresses, routes) = lan_setup(1, Vec::new());
        configure(
            &site.gateway,
            LAN_INTERFACE,
            Some(TUNNEL_MTU),
            &addresses,
            &routes,
        )?;
        configure(wan_namespace, &on_wan, None, &wan_addresses(number, 1), &[])?;
        let routes = gateway_routes(number);
        configure(
            &site.gateway,
            WAN_INTERFACE,
            None,
            &wan_addresses(number, 2),
            &routes,
        )?;
        Ok(site)
    }

    fn tunnel_addresses(&self) -> [Prefix; 2] {
        let number = u16::from(self.number);
        [
            Prefix::host(Ipv4Addr::new(10, 255, 0, self.number).into()),
            Prefix::host(Ipv6Addr::new(0xfd00, 0x255, 0, 0, 0, 0, 0, number).into()),
        ]
    }
}

/// Loopback up, and the switches that a router or a host needs.
pub(crate) fn prepare(namespace: &Namespace, forwards: bool) -> Result<()> {
    // Addresses are usable at once: nobody else is on these links.
    for scope in ["all", "default"] {
        namespace.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0")?;
        namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        namespace.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
    }
    if forwards {
        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    link::configure(namespace, "lo", Setup::default())
}

fn configure(
    namespace: &Namespace,
    name: &str,
    mtu: Option<u32>,
    addresses: &[Prefix],
    routes: &[(Prefix, Option<IpAddr>)],
) -> Result<()> {
    link::configure(
        namespace,
        name,
        Setup {
            mtu,
            addresses,
            routes,
        },
    )
}

pub(crate) fn end<'a>(namespace: &'a Namespace, name: &'a str) -> End<'a> {
    End { namespace, name }
}

fn lan_addresses(number: u8, last: u8) -> [Prefix; 2] {
    [
        prefix(lan(number, Family::V4, last), 24),
        prefix(lan(number, Family::V6, last), 64),
    ]
}

fn wan_addresses(number: u8, last: u8) -> [Prefix; 2] {
    [
        prefix(wan(number, Family::V4, last), 24),
        prefix(wan(number, Family::V6, last), 64),
    ]
}

fn host_routes(number: u8) -> Vec<(Prefix, Option<IpAddr>)> {
    vec![
        (
            prefix(Ipv4Addr::UNSPECIFIED.into(), 0),
            Some(lan(number, Family::V4, 1)),
        ),
        (
            prefix(Ipv6Addr::UNSPECIFIED.into(), 0),
            Some(lan(number, Family::V6, 1)),
        ),
    ]
}

fn gateway_routes(number: u8) -> Vec<(Prefix, Option<IpAddr>)> {
    let v6 = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 0);
    vec![
        (
            prefix(Ipv4Addr::new(198, 18, 0, 0).into(), 15),
            Some(wan(number, Family::V4, 1)),
        ),
        (prefix(v6.into(), 16), Some(wan(number, Family::V6, 1))),
    ]
}

fn lan(number: u8, family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, number, 0, last).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, last.into()).into(),
    }
}

fn wan(number: u8, family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 18, number, last).into(),
        Family::V6 => Ipv6Addr::new(0xfd18, number.into(), 0, 0, 0, 0, 0, last.into()).into(),
    }
}

fn prefix(addr: IpAddr, len: u8) -> Prefix {
    Prefix::new(addr, len).expect("the plan's lengths fit their families")
}

/// The fewest sites that have anything to say to each other.
pub const SITES_MIN: usize = 2;
/// The most sites one machine is asked to carry.
pub const SITES_MAX: usize = 8;
/// Inner MTU of every program: 1500 less WireGuard's 80 bytes over IPv6.
pub const TUNNEL_MTU: u32 = 1420;
/// The UDP port of every gateway.
pub const LISTEN_PORT: u16 = 51820;
/// A gateway's interface towards its host.
pub const LAN_INTERFACE: &str = "lan0";
/// A gateway's interface towards the WAN.
pub const WAN_INTERFACE: &str = "wan0";
