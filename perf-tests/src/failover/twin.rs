//! Two sites with two uplinks each, on an internet that routes from every uplink to every other.
//!
//! ```text
//!                 ┌ wan0 ── site1a ┐     ┌ site2a ── wan0 ┐
//! host ── gateway ┤                ├ wan ┤                ├ gateway ── host
//!                 └ wan1 ── site1b ┘     └ site2b ── wan1 ┘
//!
//! LAN 10.I.0.0/24: host .2, gateway .1      uplink U of site I 198.18.(10 I + U).0/24: gateway .2, wan .1
//! ```
//!
//! A link's bottleneck is where the internet sends to the site. IPv4 only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use patronus_impair::{Direction, Impairment};
use patronus_packet::Prefix;
use patronus_tunnel::PrivateKey;

use crate::emulator::{Emulator, Link, PortId, PortSpec};
use crate::link::{self, Setup};
use crate::obstacle::{self, Way};
use crate::program::{GatewayConfig, PeerConfig, UplinkConfig};
use crate::topology::{
    LAN_INTERFACE, LISTEN_PORT, TUNNEL_MTU, cores_from, end, prepare, uplink_interface,
};
use crate::{Gateway, Namespace, Program};

/// Two sites with two uplinks each.
#[derive(Debug)]
pub struct Twin {
    /// What forwards between the uplinks, where the kernel does not; first, so that it ends before its namespace goes.
    pub emulator: Option<Emulator>,
    /// The sites.
    pub sites: [TwinSite; 2],
    /// Where the internet's ends of all uplinks are.
    pub wan: Namespace,
}

/// What joins the uplinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internet {
    /// The kernel routes between them, and each receives at most so many bits per second: nothing of ours stands in
    /// the way of a packet.
    Kernel {
        /// Bits per second of IP packets that the internet sends to each uplink.
        link_bits_per_s: u64,
        /// What may wait for that, as the time it takes.
        queue: Duration,
    },
    /// A user-space emulator, for what the kernel cannot do: loss, delay, an MTU without ICMP.
    Emulator {
        /// Of its chances.
        seed: u64,
    },
}

/// One of the two.
#[derive(Debug)]
pub struct TwinSite {
    /// 1 or 2.
    pub number: u8,
    /// Where traffic starts and ends.
    pub host: Namespace,
    /// Where the gateway runs.
    pub gateway: Namespace,
    /// The gateway's key.
    pub key: PrivateKey,
}

/// A pair of uplinks: of site 1 and of site 2, each 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The uplink of site 1.
    pub one: u8,
    /// The uplink of site 2.
    pub two: u8,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |uplink| if uplink == 0 { 'a' } else { 'b' };
        write!(f, "1{}-2{}", letter(self.one), letter(self.two))
    }
}

impl Twin {
    /// Builds the namespaces, links, addresses and routes; no gateway runs yet.
    ///
    /// # Errors
    /// [`crate::LabError::NoNamespaces`], or the step that the kernel refused.
    pub fn build(internet: Internet) -> Result<Self> {
        let wan = Namespace::new("wan")?;
        prepare(&wan, matches!(internet, Internet::Kernel { .. }))?;
        let sites = [TwinSite::build(1)?, TwinSite::build(2)?];
        for site in &sites {
            for uplink in UPLINKS {
                site.join(&wan, uplink, internet)?;
            }
        }
        let emulator = match internet {
            Internet::Kernel { .. } => None,
            Internet::Emulator { seed } => {
                let ports = sites.iter().flat_map(TwinSite::ports).collect();
                Some(Emulator::start(&wan, ports, seed)?)
            }
        };
        Ok(Self {
            emulator,
            sites,
            wan,
        })
    }

    /// The configuration of one site's gateway; `classes` is TOML that is added as it is.
    pub fn config(&self, site: &TwinSite, classes: &str) -> GatewayConfig {
        let other = &self.sites[usize::from(site.number == 1)];
        let endpoint = |uplink| SocketAddr::new(other.uplink_addr(uplink).into(), LISTEN_PORT);
        let peer = PeerConfig {
            name: other.name(),
            public_key: other.key.public_key(),
            endpoint: None,
            endpoints: UPLINKS.map(endpoint).to_vec(),
            allowed_ips: vec![other.lan(0, 24), other.tunnel_address()],
            preshared_key: None,
            keepalive_s: None,
        };
        let uplink = |uplink| UplinkConfig {
            name: uplink_name(uplink).to_owned(),
            interface: uplink_interface(uplink),
        };
        GatewayConfig {
            interface: site.name(),
            private_key: site.key.clone(),
            listen_port: LISTEN_PORT,
            addresses: vec![site.tunnel_address()],
            mtu: TUNNEL_MTU,
            peers: vec![peer],
            uplinks: UPLINKS.map(uplink).to_vec(),
            cores: cores_from(usize::from(site.number) - 1),
            socket_buffer_kib: None,
            credentials: Vec::new(),
            appendix: classes.to_owned(),
        }
    }

    /// Starts both gateways.
    ///
    /// # Errors
    /// What a gateway refused.
    pub fn start(&self, program: &Program, classes: &str) -> Result<[Gateway; 2]> {
        let start =
            |site: &TwinSite| Gateway::start(&site.gateway, program, &self.config(site, classes));
        Ok([start(&self.sites[0])?, start(&self.sites[1])?])
    }

    /// Drops what goes over a pair of uplinks, from site 1 to site 2 and, where `both`, back.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn cut(&self, pair: Pair, both: bool) -> Result<()> {
        obstacle::drop_ways(&self.wan, &self.ways(pair, both))
    }

    /// Undoes [`Twin::cut`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn mend(&self, pair: Pair, both: bool) -> Result<()> {
        obstacle::pass_ways(&self.wan, &self.ways(pair, both))
    }

    /// Gives or takes the carrier of an uplink of site 1: by its far end, as when a modem dies.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_carrier(&self, uplink: u8, is_on: bool) -> Result<()> {
        link::set_up(&self.wan, &self.sites[0].on_wan(uplink), is_on)
    }

    /// Takes the address of an uplink of site 1, as when a lease ends, or gives it back. The kernel drops the uplink's
    /// routes with it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_address(&self, uplink: u8, is_there: bool) -> Result<()> {
        let site = &self.sites[0];
        let addr = site.uplink_addr(uplink);
        if is_there {
            return site.give_address(uplink, Some(with_last(addr, 1).into()));
        }
        link::remove_address(&site.gateway, &uplink_interface(uplink), prefix(addr, 24))
    }

    /// Changes what is done to the packets between a pair of uplinks, both ways.
    ///
    /// # Errors
    /// An internet that is no emulator.
    pub fn impair(&self, pair: Pair, impairment: Impairment) -> Result<()> {
        let emulator = self.emulator.as_ref();
        let emulator = emulator.context("only an emulator impairs packets")?;
        let port = |place: usize, uplink| PortId(place * UPLINKS.len() + usize::from(uplink));
        let link = Link::Pair(port(0, pair.one), port(1, pair.two));
        emulator.set(link, Direction::Both, impairment);
        Ok(())
    }

    fn ways(&self, pair: Pair, both: bool) -> Vec<Way> {
        let [one, two] = &self.sites;
        let way = Way {
            from: one.uplink_addr(pair.one),
            to: two.uplink_addr(pair.two),
        };
        if both {
            vec![way, way.back()]
        } else {
            vec![way]
        }
    }
}

impl TwinSite {
    /// Host and gateway with the LAN between them.
    fn build(number: u8) -> Result<Self> {
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
        link::connect(end(&site.host, "eth0"), end(&site.gateway, LAN_INTERFACE))?;
        let default = [(
            prefix(Ipv4Addr::UNSPECIFIED, 0),
            Some(site.lan_addr(1).into()),
        )];
        for (namespace, name, last, routes) in [
            (&site.host, "eth0", 2, &default[..]),
            (&site.gateway, LAN_INTERFACE, 1, &[]),
        ] {
            let setup = Setup {
                mtu: Some(TUNNEL_MTU),
                addresses: &[site.lan(last, 24)],
                routes,
            };
            link::configure(namespace, name, setup)?;
        }
        Ok(site)
    }

    /// Joins an uplink to the internet.
    fn join(&self, wan: &Namespace, uplink: u8, internet: Internet) -> Result<()> {
        let (inside, outside) = (uplink_interface(uplink), self.on_wan(uplink));
        let addr = self.uplink_addr(uplink);
        link::connect(end(&self.gateway, &inside), end(wan, &outside))?;
        let router = match internet {
            Internet::Kernel {
                link_bits_per_s,
                queue,
            } => {
                let setup = Setup {
                    addresses: &[prefix(with_last(addr, 1), 24)],
                    ..Setup::default()
                };
                link::configure(wan, &outside, setup)?;
                obstacle::limit_rate(wan, &outside, link_bits_per_s, queue)?;
                Some(with_last(addr, 1).into())
            }
            Internet::Emulator { .. } => {
                // The emulator is to see packets as they would be on a wire.
                link::without_segmentation(&self.gateway, &inside)?;
                link::configure(wan, &outside, Setup::default())?;
                None
            }
        };
        self.give_address(uplink, router)
    }

    /// Gives an uplink its address and the routes that go with it.
    fn give_address(&self, uplink: u8, router: Option<IpAddr>) -> Result<()> {
        let inside = uplink_interface(uplink);
        let everywhere = prefix(Ipv4Addr::new(198, 18, 0, 0), 15);
        let setup = Setup {
            addresses: &[prefix(self.uplink_addr(uplink), 24)],
            ..Setup::default()
        };
        link::configure(&self.gateway, &inside, setup)?;
        // Both uplinks lead everywhere; who is bound to none takes the first.
        let (gateway, metric) = (&self.gateway, 100 + u32::from(uplink));
        match router {
            Some(router) => link::add_metric_route(gateway, &inside, everywhere, router, metric),
            None => link::add_on_link_routes(gateway, &inside, &[everywhere], metric),
        }
    }

    fn ports(&self) -> Vec<PortSpec> {
        let port = |uplink| PortSpec {
            interface: self.on_wan(uplink),
            prefixes: vec![prefix(with_last(self.uplink_addr(uplink), 0), 24)],
        };
        UPLINKS.map(port).to_vec()
    }

    /// Name of the site's tunnel interface, and of the site as a peer.
    pub fn name(&self) -> String {
        format!("site{}", self.number)
    }

    /// The host's address.
    pub fn host_addr(&self) -> IpAddr {
        self.lan_addr(2).into()
    }

    /// The gateway's address on an uplink.
    pub fn uplink_addr(&self, uplink: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number * 10 + uplink, 2)
    }

    /// The uplink that has an address; `None` where none has.
    pub fn uplink_of(&self, addr: IpAddr) -> Option<u8> {
        let has = |uplink: &u8| IpAddr::from(self.uplink_addr(*uplink)) == addr;
        UPLINKS.into_iter().find(has)
    }

    /// The internet's end of an uplink.
    pub fn on_wan(&self, uplink: u8) -> String {
        format!("{}{}", self.name(), if uplink == 0 { 'a' } else { 'b' })
    }

    fn lan_addr(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 0, last)
    }

    fn lan(&self, last: u8, len: u8) -> Prefix {
        prefix(self.lan_addr(last), len)
    }

    fn tunnel_address(&self) -> Prefix {
        prefix(Ipv4Addr::new(10, 255, 0, self.number), 32)
    }
}

/// The name of an uplink in a gateway's configuration.
pub fn uplink_name(uplink: u8) -> &'static str {
    if uplink == 0 { "first" } else { "second" }
}

fn with_last(addr: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = addr.octets();
    Ipv4Addr::new(a, b, c, last)
}

fn prefix(addr: Ipv4Addr, len: u8) -> Prefix {
    Prefix::new(addr.into(), len).expect("the plan's lengths fit IPv4")
}

/// The uplinks of each site.
pub const UPLINKS: [u8; 2] = [0, 1];
/// What a bottleneck holds: as deep as an access router's buffer for voice and bulk may be.
pub const QUEUE: Duration = Duration::from_millis(20);
