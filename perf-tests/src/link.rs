//! Interfaces inside a lab, all by rtnetlink: veth pairs across namespaces, addresses, routes, MTU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use nix::net::if_::if_nametoindex;
use patronus_packet::Prefix;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::Namespace;

/// One end of a veth pair: where it lives and what it is called there.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace.
    pub namespace: &'a Namespace,
    /// The interface's name inside it, at most 15 bytes.
    pub name: &'a str,
}

/// What an existing interface is to be given, in this order: MTU, addresses, up, routes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// MTU in bytes; the kernel's default where absent.
    pub mtu: Option<u32>,
    /// Addresses with their prefix lengths; IPv6 ones skip duplicate address detection.
    pub addresses: &'a [Prefix],
    /// Destinations and the next hop to each; without a next hop the route is on-link.
    pub routes: &'a [(Prefix, Option<IpAddr>)],
}

/// Joins two namespaces with a veth pair; both ends are left down.
///
/// # Errors
/// The kernel's refusal (name taken, no veth in this kernel) with both names.
pub fn connect(a: End<'_>, b: End<'_>) -> Result<()> {
    let mut message = LinkVeth::new(a.name, b.name).build();
    // The peer is created in its own namespace, so its name may be in use in ours.
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(b.name)
        .setns_by_fd(b.namespace.net_fd().as_raw_fd())
        .build();
    set_veth_peer(&mut message, peer);
    netlink(a.namespace, async move |handle| {
        handle.link().add(message).execute().await
    })
    .with_context(|| {
        format!(
            "joining {} ({}) and {} ({}) by a veth pair",
            a.namespace.label(),
            a.name,
            b.namespace.label(),
            b.name
        )
    })
}

/// Gives an interface its MTU, addresses and routes and sets it up.
///
/// # Errors
/// The first step the kernel refuses, with the interface and the object of the step.
pub fn configure(namespace: &Namespace, name: &str, setup: Setup<'_>) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        let mut message = LinkUnspec::new_with_index(index);
        if let Some(mtu) = setup.mtu {
            message = message.mtu(mtu);
        }
        handle.link().change(message.build()).execute().await?;
        for prefix in setup.addresses {
            add_address(&handle, index, *prefix).await?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().change(up).execute().await?;
        for (destination, via) in setup.routes {
            add_route(&handle, index, *destination, *via, None).await?;
        }
        Ok(())
    })
    .with_context(|| format!("configuring {name} in {} with {setup:?}", namespace.label()))
}

/// Has an interface send real packets instead of superpackets: the kernel cuts what segmentation offload would leave to
/// the device, TCP's and UDP's, since the device says that it takes one segment. Other than by ethtool's switches, this
/// needs no ioctl.
///
/// # Errors
/// The kernel's refusal.
pub fn without_segmentation(namespace: &Namespace, name: &str) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
            .build();
        handle.link().change(message).execute().await
    })
    .with_context(|| format!("taking segmentation off {name} in {}", namespace.label()))
}

/// Sets an interface up or down; down, the other end of a veth pair loses its carrier.
///
/// # Errors
/// The kernel's refusal.
pub fn set_up(namespace: &Namespace, name: &str, up: bool) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        let message = LinkUnspec::new_with_index(index);
        let message = if up { message.up() } else { message.down() };
        handle.link().change(message.build()).execute().await
    })
    .with_context(|| {
        format!(
            "setting {name} in {} {}",
            namespace.label(),
            if up { "up" } else { "down" }
        )
    })
}

/// Has what leaves with the source `source` take `interface`, to the given destinations on-link: as a machine with
/// several uplinks needs it. `table` holds these routes and is nobody else's.
///
/// # Errors
/// The kernel's refusal.
pub fn route_by_source(
    namespace: &Namespace,
    interface: &str,
    source: IpAddr,
    destinations: &[Prefix],
    table: u32,
) -> Result<()> {
    let index = index_of(namespace, interface)?;
    netlink(namespace, async |handle| {
        for destination in destinations {
            if destination.addr().is_ipv4() != source.is_ipv4() {
                continue;
            }
            let route = on_link(index, *destination).table_id(table).build();
            handle.route().add(route).execute().await?;
        }
        match source {
            IpAddr::V4(source) => {
                let rule = handle.rule().add().v4().source_prefix(source, 32);
                rule.table_id(table)
                    .action(RuleAction::ToTable)
                    .execute()
                    .await
            }
            IpAddr::V6(source) => {
                let rule = handle.rule().add().v6().source_prefix(source, 128);
                rule.table_id(table)
                    .action(RuleAction::ToTable)
                    .execute()
                    .await
            }
        }
    })
    .with_context(|| {
        format!(
            "routing what {} sends from {source} over {interface}",
            namespace.label()
        )
    })
}

/// As [`add_metric_route`] without a next hop: the destinations are on the link itself.
///
/// # Errors
/// The kernel's refusal.
pub fn add_on_link_routes(
    namespace: &Namespace,
    name: &str,
    destinations: &[Prefix],
    metric: u32,
) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        for destination in destinations {
            add_route(&handle, index, *destination, None, Some(metric)).await?;
        }
        Ok(())
    })
    .with_context(|| {
        format!(
            "routing {destinations:?} over {name} in {} with metric {metric}",
            namespace.label()
        )
    })
}

/// Adds a route through an interface that stands beside others to the same destination: the lowest metric counts for
/// whoever is not bound to an interface.
///
/// # Errors
/// The kernel's refusal.
pub fn add_metric_route(
    namespace: &Namespace,
    name: &str,
    destination: Prefix,
    via: IpAddr,
    metric: u32,
) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        add_route(&handle, index, destination, Some(via), Some(metric)).await
    })
    .with_context(|| {
        format!(
            "routing {destination} over {name} in {} with metric {metric}",
            namespace.label()
        )
    })
}

/// Takes an address from an interface; IPv4 routes that need it go with it.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_address(namespace: &Namespace, name: &str, prefix: Prefix) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        remove_addresses(&handle, index, prefix).await
    })
    .with_context(|| format!("taking {prefix} from {name} in {}", namespace.label()))
}

/// Replaces one address of an interface by another and renews the routes that went with it.
///
/// # Errors
/// The step the kernel refuses.
pub fn readdress(
    namespace: &Namespace,
    name: &str,
    old: Prefix,
    new: Prefix,
    routes: &[(Prefix, Option<IpAddr>)],
) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        remove_addresses(&handle, index, old).await?;
        // After the old one: an address of the same subnet would be its secondary and go with it.
        add_address(&handle, index, new).await?;
        // Linux drops IPv4 routes whose source address goes; those that stayed may be refused as present.
        for (destination, via) in routes {
            match add_route(&handle, index, *destination, *via, None).await {
                Err(rtnetlink::Error::NetlinkError(refusal))
                    if refusal.raw_code() == -(nix::errno::Errno::EEXIST as i32) => {}
                other => other?,
            }
        }
        Ok(())
    })
    .with_context(|| format!("moving {name} in {} from {old} to {new}", namespace.label()))
}

/// Deletes an interface.
///
/// # Errors
/// The kernel's refusal.
pub fn delete(namespace: &Namespace, name: &str) -> Result<()> {
    let index = index_of(namespace, name)?;
    netlink(namespace, async |handle| {
        handle.link().del(index).execute().await
    })
    .with_context(|| format!("deleting {name} in {}", namespace.label()))
}

/// Whether the namespace has an interface of that name.
///
/// # Errors
/// Only where the namespace cannot be entered.
pub fn exists(namespace: &Namespace, name: &str) -> Result<bool> {
    Ok(namespace.run(|| if_nametoindex(name).is_ok())?)
}

/// All routes of a namespace, every table and both families, as sorted lines: for finding out what a daemon
/// left behind.
///
/// # Errors
/// The kernel's refusal.
pub fn routes(namespace: &Namespace) -> Result<Vec<String>> {
    let mut lines = netlink(namespace, async |handle| {
        let mut lines = Vec::new();
        for query in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let mut routes = handle.route().get(query).execute();
            while let Some(route) = routes.try_next().await? {
                lines.push(route_line(&route));
            }
        }
        Ok(lines)
    })
    .with_context(|| format!("listing the routes of {}", namespace.label()))?;
    lines.sort();
    Ok(lines)
}

/// What identifies a route; ages and use counts stay out.
fn route_line(route: &RouteMessage) -> String {
    let header = &route.header;
    let mut line = format!("{:?} /{}", header.kind, header.destination_prefix_length);
    for attribute in &route.attributes {
        if let RouteAttribute::Destination(_)
        | RouteAttribute::Gateway(_)
        | RouteAttribute::Oif(_)
        | RouteAttribute::Table(_) = attribute
        {
            line.push_str(&format!(" {attribute:?}"));
        }
    }
    line
}

pub(crate) fn index_of(namespace: &Namespace, name: &str) -> Result<u32> {
    namespace
        .run(|| if_nametoindex(name))?
        .with_context(|| format!("no interface {name} in {}", namespace.label()))
}

/// The hardware address of an interface.
///
/// # Errors
/// No such interface, or one without such an address.
pub fn mac_of(namespace: &Namespace, name: &str) -> Result<[u8; 6]> {
    let index = index_of(namespace, name)?;
    let link = netlink(namespace, async |handle| {
        handle
            .link()
            .get()
            .match_index(index)
            .execute()
            .try_next()
            .await
    })?;
    let attributes = link.into_iter().flat_map(|link| link.attributes);
    let found = attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => bytes.try_into().ok(),
            _ => None,
        });
    found.with_context(|| format!("{name} in {} has no hardware address", namespace.label()))
}

/// Runs netlink requests inside a namespace; a netlink socket belongs to the namespace it was opened in.
pub(crate) fn netlink<T, W>(namespace: &Namespace, work: W) -> Result<T>
where
    T: Send,
    W: AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
{
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("starting a runtime for netlink")?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("opening netlink")?;
            tokio::spawn(connection);
            Ok(work(handle).await?)
        })
    })?
}

async fn remove_addresses(
    handle: &Handle,
    index: u32,
    prefix: Prefix,
) -> Result<(), rtnetlink::Error> {
    let mut stale = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .set_address_filter(prefix.addr())
        .execute();
    while let Some(message) = stale.try_next().await? {
        handle.address().del(message).execute().await?;
    }
    Ok(())
}

async fn add_address(handle: &Handle, index: u32, prefix: Prefix) -> Result<(), rtnetlink::Error> {
    let mut request = handle
        .address()
        .add(index, prefix.addr(), prefix.prefix_len());
    if prefix.addr().is_ipv6() {
        // A tentative address cannot be bound for a second; nobody else is on the link.
        let flags = AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent);
        request.message_mut().attributes.push(flags);
    }
    request.execute().await
}

async fn add_route(
    handle: &Handle,
    index: u32,
    destination: Prefix,
    via: Option<IpAddr>,
    metric: Option<u32>,
) -> Result<(), rtnetlink::Error> {
    let mut route = on_link(index, destination);
    if let Some(via) = via {
        // IPv4 over an IPv6 hop is a route too; the reverse is what the builder refuses.
        route = route.gateway(via).map_err(|_| {
            rtnetlink::Error::InvalidNla(format!("{via} cannot be the next hop to {destination}"))
        })?;
    }
    if let Some(metric) = metric {
        route = route.priority(metric);
    }
    handle.route().add(route.build()).execute().await
}

fn on_link(index: u32, destination: Prefix) -> RouteMessageBuilder<IpAddr> {
    let network = destination.network();
    RouteMessageBuilder::<IpAddr>::new()
        .output_interface(index)
        .destination_prefix(network.addr(), network.prefix_len())
        .expect("a prefix is never longer than its family allows")
}

/// Puts `peer` in place of the peer that the veth builder made of a bare name.
fn set_veth_peer(message: &mut LinkMessage, peer: LinkMessage) {
    for attribute in &mut message.attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            continue;
        };
        for info in infos {
            if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(slot))) = info {
                slot.clone_from(&peer);
            }
        }
    }
}
