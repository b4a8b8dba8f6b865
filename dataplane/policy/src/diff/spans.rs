//! Ports cut where any rule of either side begins or ends: inside a span every port has the same verdict.

use std::collections::BTreeSet;
use std::fmt;

use crate::cluster::Cluster;
use crate::model::{PortMatch, Protocol};
use crate::ports::PROTOCOLS;

/// Ports of one protocol that no policy tells apart, or every protocol without ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSpan {
    /// `None` stands for all protocols but TCP, UDP and SCTP.
    pub protocol: Option<Protocol>,
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl PortSpan {
    /// Whether `next` follows without a gap.
    pub(super) fn meets(&self, next: &Self) -> bool {
        self.protocol == next.protocol && self.last.checked_add(1) == Some(next.first)
    }
}

impl fmt::Display for PortSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            None => return f.write_str("other protocols"),
            Some(Protocol::Tcp) => "TCP",
            Some(Protocol::Udp) => "UDP",
            Some(Protocol::Sctp) => "SCTP",
        };
        match (self.first, self.last) {
            (1, u16::MAX) => write!(f, "{name}"),
            (first, last) if first == last => write!(f, "{name}/{first}"),
            (first, last) => write!(f, "{name}/{first}-{last}"),
        }
    }
}

/// All spans, in order.
pub(super) fn cut(clusters: [&Cluster; 2]) -> Vec<PortSpan> {
    let mut starts: [BTreeSet<u32>; 3] = Default::default();
    let mut add = |protocol: Protocol, first: u16, last: u16| {
        let starts = &mut starts[protocol as usize];
        starts.insert(u32::from(first.max(1)));
        starts.insert(u32::from(last) + 1);
    };
    for protocol in PROTOCOLS {
        add(protocol, 1, u16::MAX);
    }
    let mut names = BTreeSet::new();
    for port in clusters.into_iter().flat_map(port_matches) {
        match port {
            PortMatch::Any(_) => {}
            PortMatch::Range {
                protocol,
                first,
                last,
            } => add(*protocol, *first, *last),
            PortMatch::Named { name, .. } => drop(names.insert(name)),
        }
    }
    let pods = clusters.into_iter().flat_map(|it| it.pods.values());
    for port in pods.flat_map(|pod| &pod.ports) {
        if port.name.as_ref().is_some_and(|it| names.contains(it)) {
            add(port.protocol, port.number, port.number);
        }
    }
    let mut spans = Vec::new();
    for protocol in PROTOCOLS {
        let starts: Vec<u32> = starts[protocol as usize].iter().copied().collect();
        spans.extend(starts.windows(2).map(|pair| PortSpan {
            protocol: Some(protocol),
            first: pair[0] as u16,
            last: (pair[1] - 1) as u16,
        }));
    }
    spans.push(PortSpan {
        protocol: None,
        first: 0,
        last: 0,
    });
    spans
}

fn port_matches(cluster: &Cluster) -> impl Iterator<Item = &PortMatch> {
    let of_network = cluster.policies.values().flat_map(|policy| {
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        rules.filter_map(|rule| rule.ports.as_ref())
    });
    let of_cluster = cluster.cluster_policies.values().flat_map(|policy| {
        let rules = policy.ingress.iter().chain(&policy.egress);
        rules.filter_map(|rule| rule.ports.as_ref())
    });
    of_network.chain(of_cluster).flatten()
}
