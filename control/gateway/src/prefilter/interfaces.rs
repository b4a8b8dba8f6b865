//! Which interfaces lead out of the site, and so have the uplinks' filter on them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use patronus_config::{Config, InterfaceName, Peer, PeerEndpoint};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

/// The interfaces to guard, by name: those that the configuration names, else those of the uplinks; for an uplink that
/// follows the routes, those that the routes lead to.
pub async fn wanted(handle: &Handle, config: &Config, peers: &[Peer]) -> Vec<String> {
    if !config.prefilter.interfaces.is_empty() {
        return names(config.prefilter.interfaces.iter());
    }
    let uplinks = config.uplinks.iter();
    let named: Vec<&InterfaceName> = uplinks.filter_map(|it| it.interface.as_ref()).collect();
    if named.len() == config.uplinks.count() {
        return names(named.into_iter());
    }
    let tunnel = config.site.interface.as_str();
    let mut found = BTreeSet::new();
    for target in targets(peers) {
        let Some(index) = interface_to(handle, target).await else {
            continue;
        };
        if let Some(name) = name_of(handle, index).await
            && name != tunnel
        {
            found.insert(name);
        }
    }
    found.into_iter().collect()
}

fn names<'a>(interfaces: impl Iterator<Item = &'a InterfaceName>) -> Vec<String> {
    interfaces.map(|name| name.as_str().to_owned()).collect()
}

/// Addresses whose routes are asked for: one that only a default route leads to in either family, for peers that call;
/// and the peers' own.
fn targets(peers: &[Peer]) -> Vec<IpAddr> {
    let endpoints = peers.iter().flat_map(Peer::endpoints);
    let addrs = endpoints.filter_map(|(endpoint, _)| match endpoint {
        PeerEndpoint::Addr(addr) => Some(addr.ip()),
        PeerEndpoint::Name { .. } => None,
    });
    let mut targets = vec![IpAddr::V4(NOWHERE_V4), IpAddr::V6(NOWHERE_V6)];
    targets.extend(addrs.take(ENDPOINTS_MAX));
    targets
}

/// The interface that the kernel would send by; `None` where it knows no way.
async fn interface_to(handle: &Handle, target: IpAddr) -> Option<u32> {
    let message: RouteMessage = match target {
        IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(addr, 32)
            .build(),
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(addr, 128)
            .build(),
    };
    // Whatever the kernel refuses, such as a family that it does not have, is no way.
    let route = handle.route().get(message).execute().try_next().await;
    let attributes = route.ok().flatten()?.attributes;
    attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(index),
            _ => None,
        })
}

/// The interface's name; `None` where it has gone meanwhile, or is the loopback.
async fn name_of(handle: &Handle, index: u32) -> Option<String> {
    let link = handle.link().get().match_index(index).execute();
    let link = { link }.try_next().await.ok().flatten()?;
    if link.header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let mut attributes = link.attributes.into_iter();
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })
}

/// Peers' addresses that are asked about at most; where there are more, configuration may name the interfaces.
const ENDPOINTS_MAX: usize = 32;
/// Nobody has these, and no route but a default one leads there (RFC 5737, RFC 3849).
const NOWHERE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
