//! The uplinks that want AF_XDP: opening them, and telling workers what is behind them.
//!
//! Two crates meet here that do not know each other: `io` has the sockets, `ebpf` the program that fills them. Routes
//! and neighbours stay the kernel's: once a second the way to every peer's addresses is asked for by netlink, and
//! workers learn of a change. Whatever fails, at start or later, is said and costs nothing but speed: the UDP sockets
//! carry what AF_XDP does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use futures_util::TryStreamExt;
use patronus_config::{Config, UplinkIo};
use patronus_ebpf::{Attachment, Hook, Interface, XskRedirect};
use patronus_io::{Mac, Neighbourhood, NextHop, XdpDropMeter, XdpError, XdpOptions, XdpSocket};
use patronus_tunnel::WorkerId;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric};

use crate::af_xdp_metrics::XdpMetrics;
use crate::exchange::{Exchange, Order};
use crate::registry::Registry;
use crate::sockets::Sockets;
use crate::startup;

/// The uplinks that run by AF_XDP.
pub struct XdpUplinks {
    interfaces: Vec<XdpInterface>,
    told: XdpMetrics,
    /// The ports of all workers: of IPv4, and of IPv6.
    ports: [BTreeSet<u16>; 2],
    netlink: Option<Netlink>,
}

struct XdpInterface {
    uplink: String,
    index: u32,
    redirect: XskRedirect,
    /// Whether the routes may choose it for what names no uplink, as is so for a lone one.
    is_lone: bool,
    told: Arc<Neighbourhood>,
    _attachment: Attachment,
}

struct Netlink {
    handle: Handle,
    _connection: tokio::task::JoinHandle<()>,
}

impl XdpUplinks {
    /// Opens the queues of every uplink that asks for it, and gives queue n to worker n, modulo their number. What
    /// cannot be had is said. To be called inside a tokio runtime.
    pub fn open(config: &Config, uplinks: &mut startup::Uplinks) -> Self {
        let mut this = Self {
            interfaces: Vec::new(),
            told: XdpMetrics::default(),
            ports: Default::default(),
            netlink: None,
        };
        this.set_ports(&uplinks.sockets);
        let is_lone = config.uplinks.lone().is_some();
        for uplink in config.uplinks.iter() {
            let (UplinkIo::AfXdp, Some(interface)) = (uplink.io, &uplink.interface) else {
                continue;
            };
            let name = uplink.name.as_str();
            match open_interface(interface.as_str(), &mut uplinks.sockets) {
                Ok(opened) => {
                    this.told.add(name, opened.meters);
                    this.interfaces.push(XdpInterface {
                        uplink: name.to_owned(),
                        index: opened.index,
                        redirect: opened.redirect,
                        is_lone,
                        told: Arc::default(),
                        _attachment: opened.attachment,
                    });
                }
                Err(why) => tracing::warn!(
                    uplink = name,
                    interface = interface.as_str(),
                    "no AF_XDP, UDP sockets carry everything: {why}"
                ),
            }
        }
        if !this.interfaces.is_empty() {
            match Netlink::open() {
                Ok(netlink) => this.netlink = Some(netlink),
                Err(error) => tracing::warn!(%error, "no netlink: AF_XDP only receives"),
            }
        }
        this
    }

    /// What a scrape of metrics is told.
    pub fn told(&self) -> XdpMetrics {
        self.told.clone()
    }

    /// The UDP sockets that hold the ports are these from here on. What comes to new ports is redirected from the next
    /// look on.
    pub fn set_ports(&mut self, sockets: &[Sockets]) {
        self.ports = [false, true].map(|is_v6| {
            let addrs = sockets.iter().flat_map(Sockets::iter);
            let addrs = addrs.map(patronus_io::UdpSocket::local_addr);
            let addrs = addrs.filter(|addr| addr.is_ipv6() == is_v6);
            addrs.map(|addr| addr.port()).collect()
        });
    }

    /// Asks the kernel how the peers are reached, and tells workers what has changed.
    pub async fn look(&mut self, registry: &Registry, mark: Option<u32>, exchange: &Exchange) {
        for (at, interface) in self.interfaces.iter().enumerate() {
            if let Ok(counts) = interface.redirect.counts() {
                self.told.count(at, counts);
            }
        }
        let Some(netlink) = &self.netlink else { return };
        let remotes = remotes(registry);
        for interface in &mut self.interfaces {
            let seen = netlink
                .neighbourhood(interface.index, interface.is_lone, &remotes, mark)
                .await;
            let seen = seen.unwrap_or_else(|error| {
                tracing::debug!(uplink = interface.uplink, %error, "cannot ask for neighbours");
                Neighbourhood::default()
            });
            let ports = &self.ports;
            let ends = seen.addresses.iter().flat_map(|ip| {
                let ports = ports[usize::from(ip.is_ipv6())].iter();
                ports.map(|port| SocketAddr::new(*ip, *port))
            });
            if let Err(error) = interface.redirect.set_ends(ends) {
                tracing::warn!(uplink = interface.uplink, %error, "AF_XDP does not get all that is ours");
            }
            if *interface.told == seen {
                continue;
            }
            tracing::debug!(
                uplink = interface.uplink,
                addresses = seen.addresses.len(),
                next_hops = seen.next_hops.len(),
                "AF_XDP has a new neighbourhood"
            );
            interface.told = Arc::new(seen);
            for at in 0..exchange.mailboxes().len() {
                let order = Order::Neighbourhood(interface.index, interface.told.clone());
                exchange.order(WorkerId(at as u8), order);
            }
        }
    }

    /// Says what the programs did.
    pub fn log_counts(&self) {
        for interface in &self.interfaces {
            let counts = interface.redirect.counts().unwrap_or_default();
            tracing::info!(
                uplink = interface.uplink,
                redirected = counts.redirected,
                no_socket = counts.no_socket,
                passed = counts.passed,
                "AF_XDP program"
            );
        }
    }
}

/// An interface with the program and a socket per queue.
struct Opened {
    index: u32,
    redirect: XskRedirect,
    attachment: Attachment,
    meters: Vec<XdpDropMeter>,
}

/// Attaches the program and opens the queues.
fn open_interface(name: &str, sockets: &mut [Sockets]) -> Result<Opened, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let interface = Interface::find(name).map_err(|error| words(&error))?;
    let mut redirect = XskRedirect::load().map_err(|error| words(&error))?;
    // Behind the driver, frames come as trains that fit no chunk, and late.
    let attachment = redirect.attach(name, Hook::XdpNative);
    let attachment = attachment.map_err(|error| words(&error))?;
    let mut opened: Vec<(usize, XdpSocket)> = Vec::new();
    for queue in 0..QUEUES_MAX {
        let worker = queue as usize % sockets.len().max(1);
        let ports = sockets.get(worker).map(Sockets::ports).unwrap_or_default();
        let options = XdpOptions::new(interface.index, queue, interface.mtu as usize, ports);
        let socket = match XdpSocket::open(&options) {
            Ok(socket) => socket,
            // As many as there are.
            Err(XdpError::NoQueue { .. }) if queue > 0 => break,
            Err(error) => return Err(words(&error)),
        };
        let inserted = redirect.insert(queue, socket.as_fd());
        inserted.map_err(|error| words(&error))?;
        opened.push((worker, socket));
    }
    let (queues, copies) = (opened.len(), opened[0].1.note().map(str::to_owned));
    tracing::info!(
        interface = name,
        queues,
        mode = if copies.is_some() {
            "copy"
        } else {
            "zero copy"
        },
        why = copies.unwrap_or_default(),
        "AF_XDP runs"
    );
    let mut meters = Vec::with_capacity(queues);
    for (worker, socket) in opened {
        // Without a descriptor left, metrics have one series fewer.
        meters.extend(socket.drop_meter().ok());
        sockets[worker].push_xdp(socket);
    }
    Ok(Opened {
        index: interface.index,
        redirect,
        attachment,
        meters,
    })
}

/// Every address that something may be sent to.
fn remotes(registry: &Registry) -> BTreeSet<IpAddr> {
    let specs = registry.peers().iter();
    let specs = specs.filter_map(|peer| registry.spec(&peer.public_key));
    let mut remotes = BTreeSet::new();
    for spec in specs {
        remotes.extend(spec.stats.endpoint().map(|endpoint| endpoint.remote.ip()));
        remotes.extend(spec.endpoint.map(|remote| remote.ip()));
        remotes.extend(spec.paths.iter().map(|path| path.remote.ip()));
    }
    remotes
}

impl Netlink {
    fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            _connection: tokio::spawn(connection),
        })
    }

    /// What is behind an interface; nothing while it is down.
    async fn neighbourhood(
        &self,
        index: u32,
        is_lone: bool,
        remotes: &BTreeSet<IpAddr>,
        mark: Option<u32>,
    ) -> Result<Neighbourhood, rtnetlink::Error> {
        let mut links = self.handle.link().get().match_index(index).execute();
        let Some(link) = links.try_next().await? else {
            return Ok(Neighbourhood::default());
        };
        let works = LinkFlags::Up | LinkFlags::LowerUp;
        if !link.header.flags.contains(works) {
            return Ok(Neighbourhood::default());
        }
        let (mut own, mut link_mtu) = (None, usize::MAX);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) => own = mac(&bytes),
                LinkAttribute::Mtu(mtu) => link_mtu = mtu as usize,
                _ => {}
            }
        }
        let Some(own) = own else {
            return Ok(Neighbourhood::default());
        };
        let addresses = self.addresses(index).await?;
        let neighbours = self.neighbours(index).await?;
        let mut next_hops = BTreeMap::new();
        for remote in remotes {
            let Some(route) = self.route(index, *remote, mark).await else {
                continue;
            };
            let via = route.gateway.unwrap_or(*remote);
            let source = route.source.or_else(|| {
                let mut same = addresses.iter().copied();
                same.find(|ip| ip.is_ipv4() == remote.is_ipv4())
            });
            let (Some((mac, is_stale)), Some(source)) = (neighbours.get(&via), source) else {
                continue;
            };
            if *is_stale {
                self.revive(index, via).await;
            }
            let hop = NextHop {
                mac: *mac,
                source,
                mtu: route.mtu.map_or(link_mtu, |mtu| mtu.min(link_mtu)),
                by_routes: is_lone,
            };
            next_hops.insert(*remote, hop);
        }
        Ok(Neighbourhood {
            mac: own,
            addresses,
            next_hops,
        })
    }

    async fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, rtnetlink::Error> {
        let request = self.handle.address().get();
        let mut messages = request.set_link_index_filter(index).execute();
        let mut addresses = Vec::new();
        while let Some(message) = messages.try_next().await? {
            if message.header.scope != AddressScope::Universe {
                continue;
            }
            // Of a point-to-point link `Address` is the other end, where there is a `Local`.
            let (mut local, mut address) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Local(ip) => local = Some(ip),
                    AddressAttribute::Address(ip) => address = Some(ip),
                    _ => {}
                }
            }
            addresses.extend(local.or(address));
        }
        Ok(addresses)
    }

    /// Link-layer addresses of neighbours, and whether the kernel would ask again before it trusted one.
    async fn neighbours(
        &self,
        index: u32,
    ) -> Result<BTreeMap<IpAddr, (Mac, bool)>, rtnetlink::Error> {
        let mut messages = self.handle.neighbours().get().execute();
        let mut neighbours = BTreeMap::new();
        while let Some(message) = messages.try_next().await? {
            if message.header.ifindex != index {
                continue;
            }
            let is_stale = match message.header.state {
                NeighbourState::Reachable
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
                | NeighbourState::Noarp => false,
                NeighbourState::Stale => true,
                _ => continue,
            };
            let (mut ip, mut lladdr) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                        ip = Some(v4.into());
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                        ip = Some(v6.into());
                    }
                    NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(&bytes),
                    _ => {}
                }
            }
            neighbours.extend(ip.zip(lladdr.map(|lladdr| (lladdr, is_stale))));
        }
        Ok(neighbours)
    }

    /// As any sender would, this makes the kernel ask whether the neighbour is still there: what goes by AF_XDP does
    /// not pass where it would notice.
    async fn revive(&self, index: u32, neighbour: IpAddr) {
        let request = self.handle.neighbours().add(index, neighbour);
        let request = request
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use);
        if let Err(error) = request.replace().execute().await {
            tracing::debug!(%error, "cannot have a neighbour asked");
        }
    }

    /// The way that the kernel would take; `None` where there is none over this interface.
    async fn route(&self, index: u32, remote: IpAddr, mark: Option<u32>) -> Option<Route> {
        let mut message = RouteMessage::default();
        (
            message.header.address_family,
            message.header.destination_prefix_length,
        ) = match remote {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::from(remote)),
            RouteAttribute::Oif(index),
        ];
        message.attributes.extend(mark.map(RouteAttribute::Mark));
        let answer = self.handle.route().get(message).execute().try_next().await;
        let mut route = Route::default();
        let mut leaves_here = false;
        for attribute in answer.ok()??.attributes {
            match attribute {
                RouteAttribute::Oif(oif) => leaves_here = oif == index,
                RouteAttribute::Gateway(address) => route.gateway = Some(ip_of(address)?),
                RouteAttribute::PrefSource(address) => route.source = ip_of(address),
                // A next hop of the other family: the kernel knows how.
                RouteAttribute::Via(_) => return None,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.into_iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(mtu as usize),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        leaves_here.then_some(route)
    }
}

/// What of a route matters.
#[derive(Debug, Default)]
struct Route {
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    mtu: Option<usize>,
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn ip_of(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(v4.into()),
        RouteAddress::Inet6(v6) => Some(v6.into()),
        _ => None,
    }
}

/// As many as the program's map takes.
const QUEUES_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn ip(args: &str) {
        let status = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn next_hops_are_those_of_the_kernel() {
        let inside = std::thread::spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                let required = std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS");
                assert!(
                    required.is_none_or(|value| value != "1"),
                    "may not be skipped"
                );
                println!("skipped: no network namespace");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(kernel_and_table());
        });
        if let Err(panic) = inside.join() {
            std::panic::resume_unwind(panic);
        }
    }

    async fn kernel_and_table() {
        for command in [
            "link add wan0 address 02:00:00:00:00:01 type veth peer name far",
            "link set wan0 mtu 1400",
            "addr add 10.7.0.1/24 dev wan0",
            "-6 addr add 2001:db8:7::1/64 dev wan0 nodad",
            "link set far up",
        ] {
            ip(command);
        }
        let netlink = Netlink::open().unwrap();
        let index = nix::net::if_::if_nametoindex("wan0").unwrap();
        let remotes = [
            "10.7.0.9",
            "10.7.0.10",
            "203.0.113.7",
            "198.51.100.7",
            "2001:db8:7::9",
            "2001:db8:9::7",
        ];
        let remotes: BTreeSet<IpAddr> = remotes.map(addr).into();
        let look = async || {
            let seen = netlink.neighbourhood(index, true, &remotes, None).await;
            seen.unwrap()
        };
        assert_eq!(look().await, Neighbourhood::default(), "it is down");

        for command in [
            "link set wan0 up",
            "route add 203.0.113.0/24 via 10.7.0.2 dev wan0 mtu 1300",
            "-6 route add 2001:db8:9::/48 via 2001:db8:7::2 dev wan0",
            "neigh replace 10.7.0.2 lladdr 02:00:00:00:00:02 dev wan0 nud permanent",
            "neigh replace 10.7.0.9 lladdr 02:00:00:00:00:09 dev wan0 nud permanent",
            "-6 neigh replace 2001:db8:7::2 lladdr 02:00:00:00:00:02 dev wan0 nud permanent",
            "-6 neigh replace 2001:db8:7::9 lladdr 02:00:00:00:00:09 dev wan0 nud permanent",
        ] {
            ip(command);
        }
        let hop = |mac: u8, source: &str, mtu| NextHop {
            mac: Mac([2, 0, 0, 0, 0, mac]),
            source: addr(source),
            mtu,
            by_routes: true,
        };
        let wanted: BTreeMap<IpAddr, NextHop> = [
            ("10.7.0.9", hop(9, "10.7.0.1", 1400)),
            ("203.0.113.7", hop(2, "10.7.0.1", 1300)),
            ("2001:db8:7::9", hop(9, "2001:db8:7::1", 1400)),
            ("2001:db8:9::7", hop(2, "2001:db8:7::1", 1400)),
        ]
        .map(|(to, hop)| (addr(to), hop))
        .into();
        // The kernel takes addresses and carriers into service in its own time.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let seen = loop {
            let seen = look().await;
            if seen.next_hops == wanted {
                break seen;
            }
            assert!(std::time::Instant::now() < until, "{seen:?}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert_eq!(seen.mac, Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(
            BTreeSet::from_iter(seen.addresses),
            BTreeSet::from([addr("10.7.0.1"), addr("2001:db8:7::1")])
        );

        ip("neigh replace 10.7.0.9 lladdr 02:00:00:00:00:0a dev wan0 nud stale");
        let seen = look().await;
        let stale = seen.next_hops[&addr("10.7.0.9")];
        assert_eq!(stale.mac, Mac([2, 0, 0, 0, 0, 10]), "usable until it fails");
        let shown = Command::new("ip")
            .args(["neigh", "show", "10.7.0.9", "dev", "wan0"])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            !shown.contains("STALE"),
            "the kernel was not asked: {shown}"
        );
        ip("link set wan0 down");
        assert_eq!(look().await, Neighbourhood::default());
    }
}
