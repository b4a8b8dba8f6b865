//! Sites joined by an emulated WAN: `host i - gateway i - wan`, each a namespace, all by veth.
//!
//! ```text
//! host 1 ── gateway 1 ──┐       LAN  10.I.0.0/24       fd00:I::/64    host .2, gateway .1
//! host 2 ── gateway 2 ──┤ wan   WAN  198.18.W.0/24     fd18:W::/64    gateway .2, wan .1
//! host N ── gateway N ──┘       in the tunnel 10.255.0.I/32, fd00:255::I/128
//! ```
//!
//! W is I for a site's first uplink and 16·u + I for uplink u, counted from 0. The WAN is one of two: the kernel's
//! routing, with one uplink per site ([`Lab::build`]) or more ([`Lab::routed`]); or an [`Emulator`] that every uplink of every site is a port of
//! ([`Lab::emulated`]), where each uplink reaches each other one without a router between them and any of that can be
//! made bad. It carries 198.18.0.0/15 (RFC 2544's benchmarking range) and fd18::/16 and knows no LAN: what reaches
//! another site's host has been through the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use patronus_packet::Prefix;
use patronus_tunnel::PrivateKey;

use crate::Namespace;
use crate::emulator::{Emulator, PortId, PortSpec};
use crate::link::{self, End, Setup};
use crate::program::{GatewayConfig, PeerConfig, UplinkConfig};

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
    /// What joins the uplinks, where the kernel does not; first, so that it ends before its namespace goes.
    pub emulator: Option<Emulator>,
    /// The sites, in order of their numbers.
    pub sites: Vec<Site>,
    /// The namespace between the sites.
    pub wan: Namespace,
}

/// One site: a host behind a gateway.
#[derive(Debug)]
pub struct Site {
    /// Its number, 1 to 8.
    pub number: u8,
    /// How many uplinks it has.
    pub uplinks: u8,
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
        Self::routed(sites, 1)
    }

    /// As [`Lab::build`], with so many uplinks of each site; the kernel routes from each to each. What is bound to no
    /// uplink takes the first.
    ///
    /// # Errors
    /// As for [`Lab::build`], or a number of uplinks outside 1 to [`UPLINKS_MAX`].
    pub fn routed(sites: usize, uplinks: u8) -> Result<Self> {
        ensure!(
            (SITES_MIN..=SITES_MAX).contains(&sites),
            "{sites} sites: a lab has {SITES_MIN} to {SITES_MAX}"
        );
        ensure!(
            (1..=UPLINKS_MAX).contains(&uplinks),
            "{uplinks} uplinks of each site: a site has 1 to {UPLINKS_MAX}"
        );
        let wan = Namespace::new("wan")?;
        prepare(&wan, true)?;
        let sites = (1..=sites)
            .map(|number| {
                let site = Site::build(u8::try_from(number)?, uplinks)?;
                site.join_router(&wan)?;
                Ok(site)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            emulator: None,
            sites,
            wan,
        })
    }

    /// As [`Lab::build`], with an emulator for a WAN: `uplinks` has the number of uplinks of each site. Nothing is
    /// impaired at first; [`Lab::port`] names what can be.
    ///
    /// # Errors
    /// As for [`Lab::build`], or numbers of uplinks outside 1 to [`UPLINKS_MAX`].
    pub fn emulated(uplinks: &[u8], seed: u64) -> Result<Self> {
        ensure!(
            (SITES_MIN..=SITES_MAX).contains(&uplinks.len()),
            "{} sites: a lab has {SITES_MIN} to {SITES_MAX}",
            uplinks.len()
        );
        let wan = Namespace::new("wan")?;
        // Without addresses, and so without a voice of its own among the frames.
        for scope in ["all", "default"] {
            wan.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
        }
        let (mut sites, mut ports) = (Vec::new(), Vec::new());
        for (number, uplinks) in (1..).zip(uplinks) {
            ensure!(
                (1..=UPLINKS_MAX).contains(uplinks),
                "{uplinks} uplinks of site {number}: a site has 1 to {UPLINKS_MAX}"
            );
            let site = Site::build(number, *uplinks)?;
            ports.extend(site.join_emulator(&wan)?);
            sites.push(site);
        }
        Ok(Self {
            emulator: Some(Emulator::start(&wan, ports, seed)?),
            sites,
            wan,
        })
    }

    /// As [`Lab::gateway_config`], for a program that takes several uplinks and several addresses of a peer: all that the
    /// sites have.
    pub fn multipath_config(&self, site: &Site, outer: Family) -> GatewayConfig {
        let mut config = self.gateway_config(site, outer);
        let others = self.sites.iter();
        let others = others.filter(|other| other.number != site.number);
        for (peer, other) in config.peers.iter_mut().zip(others) {
            let addrs = (0..other.uplinks).map(|uplink| other.uplink_addr(uplink, outer));
            peer.endpoint = None;
            peer.endpoints = addrs
                .map(|addr| SocketAddr::new(addr, LISTEN_PORT))
                .collect();
        }
        let uplinks = (0..site.uplinks).map(uplink_interface);
        config.uplinks = uplinks
            .map(|interface| UplinkConfig {
                name: interface.clone(),
                interface,
            })
            .collect();
        config
    }

    /// The emulator's port of an uplink, counted from 0, of the site with that number; `None` where there is none.
    pub fn port(&self, site: u8, uplink: u8) -> Option<PortId> {
        let before = self.sites.iter().take_while(|other| other.number != site);
        let first: usize = before.map(|other| usize::from(other.uplinks)).sum();
        let site = self.sites.iter().find(|other| other.number == site)?;
        (uplink < site.uplinks).then_some(PortId(first + usize::from(uplink)))
    }

    /// Takes the carrier from an uplink, as a pulled cable does, or gives it back.
    ///
    /// # Errors
    /// No such uplink, or the kernel's refusal.
    pub fn set_carrier(&self, site: u8, uplink: u8, up: bool) -> Result<()> {
        let at = self.sites.iter().find(|other| other.number == site);
        let at = at.with_context(|| format!("no site {site}"))?;
        link::set_up(&self.wan, &at.port_name(uplink), up)
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
        host_addr(self.number, family)
    }

    /// The gateway's address on the WAN: that of its first uplink.
    pub fn wan_addr(&self, family: Family) -> IpAddr {
        self.uplink_addr(0, family)
    }

    /// The address of one of the gateway's uplinks, counted from 0.
    pub fn uplink_addr(&self, uplink: u8, family: Family) -> IpAddr {
        wan(on_wan(self.number, uplink), family, 2)
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

    /// Host and gateway with the LAN between them.
    fn build(number: u8, uplinks: u8) -> Result<Self> {
        let host = Namespace::new(&format!("host {number}"))?;
        let gateway = Namespace::with_private_run(&format!("gateway {number}"))?;
        prepare(&host, false)?;
        prepare(&gateway, true)?;
        let site = Self {
            number,
            uplinks,
            host,
            gateway,
            key: PrivateKey::generate(),
        };
        link::connect(end(&site.host, "eth0"), end(&site.gateway, LAN_INTERFACE))?;

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
        Ok(site)
    }

    /// Every uplink gets a veth to the router, and a route over it to all of the WAN: later ones with a greater metric, for
    /// who is bound to them.
    fn join_router(&self, router: &Namespace) -> Result<()> {
        for uplink in 0..self.uplinks {
            let inside = uplink_interface(uplink);
            let at_router = match uplink {
                0 => self.interface(),
                _ => self.port_name(uplink),
            };
            link::connect(end(&self.gateway, &inside), end(router, &at_router))?;
            let number = on_wan(self.number, uplink);
            configure(router, &at_router, None, &wan_addresses(number, 1), &[])?;
            let routes = gateway_routes(number);
            let at_once = if uplink == 0 { &routes[..] } else { &[] };
            configure(
                &self.gateway,
                &inside,
                None,
                &wan_addresses(number, 2),
                at_once,
            )?;
            let metric = METRIC_FIRST + u32::from(uplink);
            for (destination, via) in routes {
                if let Some(via) = via.filter(|_| uplink > 0) {
                    link::add_metric_route(&self.gateway, &inside, destination, via, metric)?;
                }
            }
        }
        Ok(())
    }

    /// Every uplink gets a veth to the emulator, with a route to all other uplinks on it. What has the source address of
    /// an uplink leaves over that; the rest over the first.
    fn join_emulator(&self, wan: &Namespace) -> Result<Vec<PortSpec>> {
        let mut ports = Vec::new();
        for uplink in 0..self.uplinks {
            let (name, interface) = (uplink_interface(uplink), self.port_name(uplink));
            link::connect(end(&self.gateway, &name), end(wan, &interface))?;
            link::without_segmentation(&self.gateway, &name)?;
            link::configure(wan, &interface, Setup::default())?;
            let number = on_wan(self.number, uplink);
            let setup = Setup {
                mtu: None,
                addresses: &wan_addresses(number, 2),
                routes: &[],
            };
            link::configure(&self.gateway, &name, setup)?;
            let metric = u32::from(uplink) + 1;
            link::add_on_link_routes(&self.gateway, &name, &wan_prefixes(), metric)?;
            for family in [Family::V4, Family::V6] {
                let source = self.uplink_addr(uplink, family);
                let table = SOURCE_TABLE_FIRST + u32::from(uplink);
                link::route_by_source(&self.gateway, &name, source, &wan_prefixes(), table)?;
            }
            ports.push(PortSpec {
                interface,
                prefixes: wan_addresses(number, 0).to_vec(),
            });
        }
        Ok(ports)
    }

    /// The other end of an uplink, in the emulator's namespace.
    fn port_name(&self, uplink: u8) -> String {
        format!("{}u{uplink}", self.interface())
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
    let [v4, v6] = wan_prefixes();
    vec![
        (v4, Some(wan(number, Family::V4, 1))),
        (v6, Some(wan(number, Family::V6, 1))),
    ]
}

/// All of the WAN.
fn wan_prefixes() -> [Prefix; 2] {
    let v6 = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 0);
    [
        prefix(Ipv4Addr::new(198, 18, 0, 0).into(), 15),
        prefix(v6.into(), 16),
    ]
}

/// The WAN's number of a site's uplink.
fn on_wan(site: u8, uplink: u8) -> u8 {
    16 * uplink + site
}

/// A gateway's interface towards the WAN, by the number of the uplink.
pub fn uplink_interface(uplink: u8) -> String {
    format!("wan{uplink}")
}

/// The address of the host of the site with that number.
pub(crate) fn host_addr(number: u8, family: Family) -> IpAddr {
    lan(number, family, 2)
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
/// The most uplinks of one site: as many as its numbers on the WAN allow for.
pub const UPLINKS_MAX: u8 = 8;
/// Added to an uplink's number. Routes over the first uplink have no metric, which is 1024 in IPv6.
const METRIC_FIRST: u32 = 2000;
/// The routing table of what leaves from the first uplink's address; the others' follow.
const SOURCE_TABLE_FIRST: u32 = 100;
/// Inner MTU of every program: 1500 less WireGuard's 80 bytes over IPv6.
pub const TUNNEL_MTU: u32 = 1420;
/// The UDP port of every gateway.
pub const LISTEN_PORT: u16 = 51820;
/// A gateway's interface towards its host.
pub const LAN_INTERFACE: &str = "lan0";
/// A gateway's interface towards the WAN: its first uplink.
pub const WAN_INTERFACE: &str = "wan0";
