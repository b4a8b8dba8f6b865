//! Random changes of a cluster so small that everything collides with everything.

use std::net::IpAddr;
use std::sync::Arc;

use patronus_packet::Prefix;
use patronus_policy::model::*;

use super::{name, source, text};

/// A seeded generator (splitmix64).
pub struct Dice(pub u64);

const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
const NODES: [&str; 2] = ["n1", "n2"];
const PODS: [&str; 4] = ["p0", "p1", "p2", "p3"];
const POLICIES: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 3] = ["app", "tier", "zone"];
const VALUES: [&str; 3] = ["x", "y", "z"];
const PORT_NAMES: [&str; 2] = ["web", "dns"];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn list<T>(&mut self, max: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }

    fn some<T>(&mut self, one_in_none: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.one_in(one_in_none)).then(|| make(self))
    }

    pub fn addr(&mut self) -> IpAddr {
        match self.below(3) {
            0 => IpAddr::V6((0xfd00_u128 << 112 | u128::from(self.below(6))).into()),
            _ => IpAddr::V4((0x0a00_0000 | self.below(12) as u32).into()),
        }
    }

    fn prefix(&mut self) -> Prefix {
        let addr = self.addr();
        let len = match (addr, self.below(5)) {
            (_, 0) => 0,
            (IpAddr::V4(_), _) => 28 + self.below(5) as u8,
            (IpAddr::V6(_), _) => 124 + self.below(5) as u8,
        };
        Prefix::new(addr, len)
            .expect("a length of the family")
            .network()
    }

    pub fn port(&mut self) -> u16 {
        self.pick(&[0, 1, 2, 3, 4, 5, 65_535])
    }

    pub fn connection(&mut self) -> Connection {
        Connection {
            src: self.addr(),
            dst: self.addr(),
            protocol: self.pick(&[6, 6, 6, 17, 132, 1]),
            dst_port: self.port(),
        }
    }

    fn labels(&mut self) -> Labels {
        let pairs = self.list(3, |d| (text(d.pick(&KEYS)), text(d.pick(&VALUES))));
        pairs.into_iter().collect()
    }

    fn selector(&mut self) -> Selector {
        let requirements = self.list(2, |d| {
            let key = text(d.pick(&KEYS));
            let mut values = [text(d.pick(&VALUES))]
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>();
            if d.one_in(3) {
                values.insert(text(d.pick(&VALUES)));
            }
            match d.below(6) {
                0 => Requirement::NotIn(key, values),
                1 => Requirement::Exists(key),
                2 => Requirement::DoesNotExist(key),
                _ => Requirement::In(key, values),
            }
        });
        Selector {
            requirements: requirements.into_iter().collect(),
        }
    }

    fn namespaces(&mut self) -> Selector {
        if self.one_in(3) {
            let names = [text(self.pick(&NAMESPACES))].into();
            let requirement = Requirement::In(NAMESPACE_NAME_LABEL.into(), names);
            return Selector {
                requirements: [requirement].into(),
            };
        }
        self.selector()
    }

    fn ports(&mut self, cluster: bool) -> Option<Vec<PortMatch>> {
        self.some(3, |d| {
            let mut ports = d.list(2, |d| d.port_match(cluster));
            ports.push(d.port_match(cluster));
            ports
        })
    }

    fn port_match(&mut self, cluster: bool) -> PortMatch {
        let protocol = self.pick(&PROTOCOLS[..1 + self.0 as usize % 3]);
        match self.below(6) {
            0 => PortMatch::Any(protocol),
            1 | 2 => PortMatch::Named {
                protocol: (!cluster).then_some(protocol),
                name: text(self.pick(&PORT_NAMES)),
            },
            _ => {
                let (a, b) = (self.port(), self.port());
                let last = if self.one_in(2) { a } else { a.max(b) };
                PortMatch::Range {
                    protocol,
                    first: a.min(last),
                    last,
                }
            }
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            source: source(1),
            peers: self.some(4, |d| {
                d.list(3, |d| match d.below(5) {
                    0 | 1 => Peer::Block {
                        cidr: d.prefix(),
                        except: d.list(2, Self::prefix),
                    },
                    2 => Peer::Pods {
                        namespaces: None,
                        pods: Some(d.selector()),
                    },
                    3 => Peer::Pods {
                        namespaces: Some(d.namespaces()),
                        pods: None,
                    },
                    _ => Peer::Pods {
                        namespaces: Some(d.namespaces()),
                        pods: Some(d.selector()),
                    },
                })
            }),
            ports: self.ports(false),
        }
    }

    fn cluster_rule(&mut self) -> ClusterRule {
        let peer = |d: &mut Self| match d.below(12) {
            0 => ClusterPeer::Unknown,
            1..5 => ClusterPeer::Networks(d.list(2, Self::prefix)),
            _ => ClusterPeer::Pods {
                namespaces: d.namespaces(),
                pods: d.selector(),
            },
        };
        let mut peers = self.list(1, peer);
        peers.push(peer(self));
        ClusterRule {
            name: self.some(2, |_| text("named")),
            source: source(2),
            action: self.pick(&[Action::Accept, Action::Deny, Action::Pass]),
            peers,
            ports: self.ports(true),
        }
    }

    fn mode(&mut self) -> Mode {
        self.pick(&[
            Mode::Enforce,
            Mode::Enforce,
            Mode::Enforce,
            Mode::Enforce,
            Mode::Audit,
            Mode::Off,
        ])
    }

    fn pod(&mut self) -> Pod {
        Pod {
            id: name(self.pick(&NAMESPACES), self.pick(&PODS)),
            labels: self.labels(),
            node: self.some(4, |d| text(d.pick(&NODES))),
            ips: self.list(3, Self::addr),
            host_network: self.one_in(8),
            ports: self.list(3, |d| ContainerPort {
                name: d.some(4, |d| text(d.pick(&PORT_NAMES))),
                number: d.port(),
                protocol: d.pick(&PROTOCOLS),
            }),
        }
    }

    pub fn policy(&mut self) -> NetworkPolicy {
        NetworkPolicy {
            id: name(self.pick(&NAMESPACES), self.pick(&POLICIES)),
            source: source(3),
            mode: self.mode(),
            pods: self.selector(),
            ingress: self.some(3, |d| d.list(3, Self::rule)),
            egress: self.some(2, |d| d.list(3, Self::rule)),
        }
    }

    fn cluster_policy(&mut self) -> ClusterPolicy {
        ClusterPolicy {
            name: text(self.pick(&POLICIES)),
            source: source(4),
            mode: self.mode(),
            tier: self.pick(&[Tier::Admin, Tier::Baseline]),
            priority: self.below(3) as u16,
            subject: ClusterSubject {
                namespaces: self.namespaces(),
                pods: self.selector(),
            },
            ingress: self.list(3, Self::cluster_rule),
            egress: self.list(3, Self::cluster_rule),
        }
    }

    pub fn change(&mut self) -> Change {
        match self.below(100) {
            0..8 => Change::SetNamespace(Namespace {
                name: text(self.pick(&NAMESPACES)),
                labels: self.labels(),
            }),
            8..10 => Change::DeleteNamespace(text(self.pick(&NAMESPACES))),
            10..14 => Change::SetNode(Node {
                name: text(self.pick(&NODES)),
                ips: self.list(2, Self::addr),
            }),
            14..16 => Change::DeleteNode(text(self.pick(&NODES))),
            16..48 => Change::SetPod(self.pod()),
            48..54 => Change::DeletePod(name(self.pick(&NAMESPACES), self.pick(&PODS))),
            54..76 => Change::SetPolicy(Arc::new(self.policy())),
            76..84 => Change::DeletePolicy(name(self.pick(&NAMESPACES), self.pick(&POLICIES))),
            84..94 => Change::SetClusterPolicy(Arc::new(self.cluster_policy())),
            _ => Change::DeleteClusterPolicy(text(self.pick(&POLICIES))),
        }
    }
}
