//! A large cluster of a plausible shape, for benchmarks and scale tests: the same for the same arguments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use patronus_packet::Prefix;

use crate::model::{
    Change, ContainerPort, Labels, Mode, Namespace, NetworkPolicy, Node, ObjectName, Peer, Pod,
    PortMatch, Protocol, Requirement, Rule, Selector, Source, Text,
};

/// Policies per namespace; so 10,000 policies make 500 namespaces.
const POLICIES_PER_NAMESPACE: usize = 20;
const APPS: u64 = 8;
const SHARDS: u64 = 16;
const TEAMS: u64 = 20;
const NODES: u64 = 100;

/// The objects of a cluster with that many policies and pods.
///
/// Every pod has one IPv4 address, every tenth also an IPv6 one; of its labels `app` matters and `shard` does not.
/// Policies allow apps of their own namespace, whole teams' namespaces, blocks with exceptions, named ports and
/// ranges; in every namespace one denies by default.
pub fn cluster(policies: usize, endpoints: usize, seed: u64) -> Vec<Change> {
    let mut dice = Dice(seed);
    let namespaces = policies.div_ceil(POLICIES_PER_NAMESPACE).max(1);
    let mut changes = Vec::with_capacity(policies + endpoints + namespaces + NODES as usize);
    for node in 0..NODES as u32 {
        changes.push(Change::SetNode(Node {
            name: format!("node-{node}").into(),
            ips: vec![IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0000 | node))],
        }));
    }
    for number in 0..namespaces {
        let team = format!("team-{}", number as u64 % TEAMS);
        changes.push(Change::SetNamespace(Namespace {
            name: namespace(number),
            labels: labels(&[("team", &team)]),
        }));
    }
    for number in 0..endpoints {
        changes.push(Change::SetPod(pod(number, namespaces, &mut dice)));
    }
    for number in 0..policies {
        let policy = policy(number, namespaces, &mut dice);
        changes.push(Change::SetPolicy(Arc::new(policy)));
    }
    changes
}

/// The address of pod `number`.
pub fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number as u32))
}

/// Pod `number` of a cluster with that many namespaces.
fn pod(number: usize, namespaces: usize, dice: &mut Dice) -> Pod {
    let mut ips = vec![address(number)];
    if number.is_multiple_of(10) {
        let bits = 0xfd00_u128 << 112 | number as u128;
        ips.push(IpAddr::V6(Ipv6Addr::from_bits(bits)));
    }
    let (app, shard) = (app(dice.below(APPS)), format!("s{}", dice.below(SHARDS)));
    Pod {
        id: ObjectName {
            namespace: namespace(number % namespaces),
            name: format!("pod-{number}").into(),
        },
        labels: labels(&[("app", &app), ("shard", &shard)]),
        node: Some(format!("node-{}", dice.below(NODES)).into()),
        ips,
        host_network: false,
        ports: vec![ContainerPort {
            name: Some("http".into()),
            number: 8080,
            protocol: Protocol::Tcp,
        }],
    }
}

fn policy(number: usize, namespaces: usize, dice: &mut Dice) -> NetworkPolicy {
    let file: Text = format!("policies-{}.yaml", number % namespaces).into();
    let line = (number / namespaces) as u32 * 40 + 1;
    let source = Source { file, line };
    let id = ObjectName {
        namespace: namespace(number % namespaces),
        name: format!("policy-{}", number / namespaces).into(),
    };
    let (mut ingress, mut egress) = (None, None);
    let mut pods = equals("app", &app(dice.below(APPS)));
    match number / namespaces % 5 {
        0 => {
            if number < namespaces {
                pods = Selector::default();
            }
            ingress = Some(vec![]);
        }
        1 => {
            ingress = Some(vec![rule(
                &source,
                vec![own(dice)],
                Some(vec![tcp(80, 80), tcp(443, 443)]),
            )])
        }
        2 => {
            let team = format!("team-{}", dice.below(TEAMS));
            let namespaces = Some(equals("team", &team));
            let pods = Some(equals("app", &app(dice.below(APPS))));
            let peers = vec![Peer::Pods { namespaces, pods }, own(dice)];
            ingress = Some(vec![rule(&source, peers, Some(vec![tcp(8000, 8999)]))]);
        }
        3 => {
            let team = format!("team-{}", dice.below(TEAMS));
            let namespaces = Some(equals("team", &team));
            let peers = vec![Peer::Pods {
                namespaces,
                pods: None,
            }];
            let named = PortMatch::Named {
                protocol: Some(Protocol::Tcp),
                name: "http".into(),
            };
            egress = Some(vec![rule(&source, peers, Some(vec![named]))]);
        }
        _ => {
            let net = Ipv4Addr::from_bits(0xc633_0000 | (dice.below(256) as u32) << 8);
            let cidr = prefix(net, 24);
            let except = vec![prefix(net, 30)];
            let blocks = vec![Peer::Block { cidr, except }];
            egress = Some(vec![
                rule(&source, blocks, None),
                rule(
                    &source,
                    vec![own(dice)],
                    Some(vec![PortMatch::Any(Protocol::Udp)]),
                ),
            ]);
        }
    }
    NetworkPolicy {
        id,
        source,
        mode: Mode::Enforce,
        pods,
        ingress,
        egress,
    }
}

fn own(dice: &mut Dice) -> Peer {
    Peer::Pods {
        namespaces: None,
        pods: Some(equals("app", &app(dice.below(APPS)))),
    }
}

fn rule(source: &Source, peers: Vec<Peer>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        source: source.clone(),
        peers: Some(peers),
        ports,
    }
}

fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch::Range {
        protocol: Protocol::Tcp,
        first,
        last,
    }
}

fn prefix(net: Ipv4Addr, len: u8) -> Prefix {
    Prefix::new(IpAddr::V4(net), len).unwrap_or(Prefix::host(IpAddr::V4(net)))
}

fn namespace(number: usize) -> Text {
    format!("namespace-{number}").into()
}

fn app(number: u64) -> String {
    format!("app-{number}")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn equals(key: &str, value: &str) -> Selector {
    let requirement = Requirement::In(key.into(), [value.into()].into());
    Selector {
        requirements: [requirement].into(),
    }
}

/// A seeded generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
