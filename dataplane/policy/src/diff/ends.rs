//! Everybody who may be an end of a connection, those that no policy tells apart taken together: pods, nodes, and
//! one outside address for each piece into which the policies' blocks cut each family.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use patronus_packet::Prefix;

use crate::cluster::Cluster;
use crate::model::{ClusterPeer, ContainerPort, Labels, ObjectName, Peer, Pod, Text};

/// Ends that get the same verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndGroup {
    /// One of them: `namespace/pod`, `node NAME`, or a range of outside addresses.
    pub name: String,
    /// How many more there are like it.
    pub others: usize,
    /// Its first address of each family.
    pub v4: Option<IpAddr>,
    /// Its first address of each family.
    pub v6: Option<IpAddr>,
    /// Whether policies can protect it.
    pub is_pod: bool,
}

impl fmt::Display for EndGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.others {
            0 => Ok(()),
            others => write!(f, " (+{others} alike)"),
        }
    }
}

/// What policies may see of a pod in one of the clusters.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Facts<'c> {
    namespace: &'c Text,
    labels: &'c Labels,
    ports: BTreeSet<(Option<&'c Text>, u16, u8)>,
    host_network: bool,
    /// The pieces in which its addresses lie.
    pieces: Vec<(bool, usize)>,
    node: Option<&'c Text>,
}

/// All groups. With `by_node`, pods of different nodes are told apart: their own node is always let through.
pub(super) fn groups(clusters: [&Cluster; 2], by_node: bool) -> Vec<EndGroup> {
    let pieces = Pieces::cut(clusters);
    let mut groups = pod_groups(clusters, &pieces, by_node);
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    for cluster in clusters {
        taken.extend(cluster.pods.values().flat_map(|pod| &pod.ips));
        taken.extend(cluster.nodes.values().flat_map(|node| &node.ips));
    }
    let names: BTreeSet<&Text> = clusters.iter().flat_map(|it| it.nodes.keys()).collect();
    for name in names {
        let node = clusters.iter().rev().find_map(|it| it.nodes.get(name));
        let ips = node.map_or(&[][..], |it| &it.ips);
        groups.push(EndGroup {
            name: format!("node {name}"),
            others: 0,
            v4: first(ips, true),
            v6: first(ips, false),
            is_pod: false,
        });
    }
    groups.extend(pieces.outside(&taken));
    groups
}

fn pod_groups(clusters: [&Cluster; 2], pieces: &Pieces, by_node: bool) -> Vec<EndGroup> {
    let ids: BTreeSet<&ObjectName> = clusters.iter().flat_map(|it| it.pods.keys()).collect();
    let mut groups: BTreeMap<[Option<Facts<'_>>; 2], EndGroup> = BTreeMap::new();
    for id in ids {
        let pods = clusters.map(|it| it.pods.get(id));
        let facts = pods.map(|pod| pod.map(|it| facts(it, pieces, by_node)));
        let Some(pod) = pods[1].or(pods[0]) else {
            continue;
        };
        groups
            .entry(facts)
            .and_modify(|group| group.others += 1)
            .or_insert_with(|| EndGroup {
                name: id.to_string(),
                others: 0,
                v4: first(&pod.ips, true),
                v6: first(&pod.ips, false),
                is_pod: !pod.host_network,
            });
    }
    let mut groups: Vec<EndGroup> = groups.into_values().collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    groups
}

fn facts<'c>(pod: &'c Pod, pieces: &Pieces, by_node: bool) -> Facts<'c> {
    let port = |it: &'c ContainerPort| (it.name.as_ref(), it.number, it.protocol as u8);
    Facts {
        namespace: &pod.id.namespace,
        labels: &pod.labels,
        ports: pod.ports.iter().map(port).collect(),
        host_network: pod.host_network,
        pieces: pod.ips.iter().map(|ip| pieces.of(*ip)).collect(),
        node: pod.node.as_ref().filter(|_| by_node),
    }
}

fn first(ips: &[IpAddr], v4: bool) -> Option<IpAddr> {
    ips.iter().copied().find(|ip| ip.is_ipv4() == v4)
}

/// Where the pieces of each family begin, IPv4 and IPv6.
struct Pieces([Vec<u128>; 2]);

impl Pieces {
    fn cut(clusters: [&Cluster; 2]) -> Self {
        let mut starts = [BTreeSet::from([0]), BTreeSet::from([0])];
        for prefix in clusters.into_iter().flat_map(blocks) {
            let (family, first, last) = bounds(prefix);
            starts[family].insert(first);
            starts[family].extend(last.checked_add(1).filter(|it| *it <= END[family]));
        }
        Self(starts.map(|it| it.into_iter().collect()))
    }

    fn of(&self, ip: IpAddr) -> (bool, usize) {
        let (family, bits) = bits(ip);
        (
            family == 0,
            self.0[family].partition_point(|it| *it <= bits),
        )
    }

    /// A group for each piece that has an address which nobody claims among its first.
    fn outside(&self, taken: &BTreeSet<IpAddr>) -> Vec<EndGroup> {
        let mut groups = Vec::new();
        for (family, starts) in self.0.iter().enumerate() {
            for (at, start) in starts.iter().enumerate() {
                let last = starts.get(at + 1).map_or(END[family], |next| next - 1);
                let tries = (*start..=last).take(TRIES_MAX);
                let free = tries
                    .map(|it| address(family, it))
                    .find(|it| !taken.contains(it));
                let Some(free) = free else { continue };
                groups.push(EndGroup {
                    name: range(family, *start, last),
                    others: 0,
                    v4: (family == 0).then_some(free),
                    v6: (family == 1).then_some(free),
                    is_pod: false,
                });
            }
        }
        groups
    }
}

fn range(family: usize, first: u128, last: u128) -> String {
    if first == 0 && last == END[family] {
        return format!("outside IPv{}", [4, 6][family]);
    }
    let width = (last - first).wrapping_add(1);
    let whole = [32, 128][family];
    let size = width.trailing_zeros();
    match width.is_power_of_two() && first.is_multiple_of(width) {
        true if size == 0 => format!("outside {}", address(family, first)),
        true => format!("outside {}/{}", address(family, first), whole - size),
        false => format!(
            "outside {}-{}",
            address(family, first),
            address(family, last)
        ),
    }
}

fn bits(ip: IpAddr) -> (usize, u128) {
    match ip {
        IpAddr::V4(ip) => (0, ip.to_bits().into()),
        IpAddr::V6(ip) => (1, ip.to_bits()),
    }
}

fn address(family: usize, bits: u128) -> IpAddr {
    match family {
        0 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

fn bounds(prefix: Prefix) -> (usize, u128, u128) {
    let (family, first) = bits(prefix.network().addr());
    let whole = [32, 128][family];
    let free = whole - u32::from(prefix.prefix_len());
    let size = 1_u128.checked_shl(free).map_or(u128::MAX, |it| it - 1);
    (family, first, first | size)
}

fn blocks(cluster: &Cluster) -> impl Iterator<Item = Prefix> + '_ {
    let of_network = cluster.policies.values().flat_map(|policy| {
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
        peers.flat_map(|peer| match peer {
            Peer::Block { cidr, except } => [&[*cidr][..], except].concat(),
            Peer::Pods { .. } => Vec::new(),
        })
    });
    let of_cluster = cluster.cluster_policies.values().flat_map(|policy| {
        let rules = policy.ingress.iter().chain(&policy.egress);
        let peers = rules.flat_map(|rule| &rule.peers);
        peers.flat_map(|peer| match peer {
            ClusterPeer::Networks(blocks) => blocks.clone(),
            ClusterPeer::Pods { .. } | ClusterPeer::Unknown => Vec::new(),
        })
    });
    of_network.chain(of_cluster)
}

/// The last address of each family.
const END: [u128; 2] = [u32::MAX as u128, u128::MAX];
/// Up to how many addresses of a piece are tried for one that nobody claims.
const TRIES_MAX: usize = 4096;
