//! Judges by reading the rules one by one.

use std::net::IpAddr;

use patronus_packet::Prefix;
use patronus_policy::model::*;

use super::Cluster;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
}

/// One direction of a connection: the pod that is protected and the other end.
#[derive(Clone, Copy)]
struct Question<'a> {
    subject: &'a Pod,
    subject_addr: IpAddr,
    peer: Option<&'a Pod>,
    peer_addr: IpAddr,
    way: Way,
    conn: &'a Connection,
    audit: bool,
}

impl Cluster {
    /// Whether a new connection may pass, with policies in audit mode enforced or not.
    pub fn allows(&self, conn: &Connection, audit: bool) -> bool {
        if conn.src == conn.dst {
            return true;
        }
        let (srcs, dsts) = (self.pods_at(conn.src), self.pods_at(conn.dst));
        if srcs.len() > 8 || dsts.len() > 8 {
            return false;
        }
        let pairs = srcs.iter().flat_map(|s| dsts.iter().map(move |d| (*s, *d)));
        pairs
            .into_iter()
            .all(|(src, dst)| self.allows_pair(conn, src, dst, audit))
    }

    fn allows_pair(
        &self,
        conn: &Connection,
        src: Option<&Pod>,
        dst: Option<&Pod>,
        audit: bool,
    ) -> bool {
        let out = src.is_none_or(|subject| {
            let (subject_addr, peer_addr) = (conn.src, conn.dst);
            let way = Way::Out;
            self.allows_way(Question {
                subject,
                subject_addr,
                peer: dst,
                peer_addr,
                way,
                conn,
                audit,
            })
        });
        let into = dst.is_none_or(|subject| {
            let (subject_addr, peer_addr) = (conn.dst, conn.src);
            let way = Way::In;
            self.allows_way(Question {
                subject,
                subject_addr,
                peer: src,
                peer_addr,
                way,
                conn,
                audit,
            })
        });
        out && into
    }

    /// The pods with that address, host-network pods left out; `None` alone where there is none.
    fn pods_at(&self, addr: IpAddr) -> Vec<Option<&Pod>> {
        let pods = self.pods.values();
        let found: Vec<_> = pods
            .filter(|it| !it.host_network && it.ips.contains(&addr))
            .collect();
        if found.is_empty() {
            return vec![None];
        }
        found.into_iter().map(Some).collect()
    }

    fn allows_way(&self, q: Question<'_>) -> bool {
        if q.peer.is_some_and(|it| it.id == q.subject.id) {
            return true;
        }
        if self.is_own_node(q.subject, q.peer_addr) {
            return true;
        }
        match self.tier(Tier::Admin, q) {
            Some(Action::Accept) => return true,
            Some(Action::Deny) => return false,
            Some(Action::Pass) | None => {}
        }
        let selecting = self.policies.values().filter(|it| {
            it.id.namespace == q.subject.id.namespace
                && counts(it.mode, q.audit)
                && it.pods.matches(&q.subject.labels)
        });
        let rules = selecting.filter_map(|it| match q.way {
            Way::In => it.ingress.as_ref(),
            Way::Out => it.egress.as_ref(),
        });
        let isolating: Vec<_> = rules.collect();
        if !isolating.is_empty() {
            let mut rules = isolating.into_iter().flatten();
            return rules.any(|rule| {
                let peers = rule.peers.as_ref();
                ports_match(rule.ports.as_deref(), q)
                    && peers.is_none_or(|it| it.iter().any(|peer| self.peer_matches(peer, q)))
            });
        }
        self.tier(Tier::Baseline, q) != Some(Action::Deny)
    }

    fn is_own_node(&self, pod: &Pod, addr: IpAddr) -> bool {
        let Some(node) = &pod.node else {
            return false;
        };
        let of_node = self
            .nodes
            .get(node)
            .is_some_and(|it| it.ips.contains(&addr));
        let mut pods = self.pods.values();
        of_node
            || pods.any(|it| {
                it.host_network && it.node.as_ref() == Some(node) && it.ips.contains(&addr)
            })
    }

    fn namespace_labels(&self, name: &Text) -> Labels {
        let manifest = self.namespaces.get(name);
        let mut labels = manifest.map(|it| it.labels.clone()).unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
        labels
    }

    fn peer_matches(&self, peer: &Peer, q: Question<'_>) -> bool {
        match peer {
            Peer::Block { cidr, except } => {
                cidr.contains(q.peer_addr) && !except.iter().any(|it| it.contains(q.peer_addr))
            }
            Peer::Pods { namespaces, pods } => q.peer.is_some_and(|peer| {
                let namespace = match namespaces {
                    None => peer.id.namespace == q.subject.id.namespace,
                    Some(it) => it.matches(&self.namespace_labels(&peer.id.namespace)),
                };
                namespace && pods.as_ref().is_none_or(|it| it.matches(&peer.labels))
            }),
        }
    }

    /// What the first matching rule of a tier says.
    fn tier(&self, tier: Tier, q: Question<'_>) -> Option<Action> {
        let namespace = self.namespace_labels(&q.subject.id.namespace);
        let mut policies: Vec<_> = self
            .cluster_policies
            .values()
            .filter(|it| {
                it.tier == tier
                    && counts(it.mode, q.audit)
                    && it.subject.namespaces.matches(&namespace)
                    && it.subject.pods.matches(&q.subject.labels)
            })
            .collect();
        policies.sort_by_key(|it| (it.priority, it.name.clone()));
        for policy in policies {
            let rules = if q.way == Way::In {
                &policy.ingress
            } else {
                &policy.egress
            };
            for rule in rules {
                if rule.peers.contains(&ClusterPeer::Unknown) {
                    if rule.action == Action::Accept {
                        continue;
                    }
                    return Some(Action::Deny);
                }
                let mut peers = rule.peers.iter();
                let peer = peers.any(|it| self.cluster_peer_matches(it, q));
                if peer && ports_match(rule.ports.as_deref(), q) {
                    return Some(rule.action);
                }
            }
        }
        None
    }

    fn cluster_peer_matches(&self, peer: &ClusterPeer, q: Question<'_>) -> bool {
        match peer {
            ClusterPeer::Pods { namespaces, pods } => q.peer.is_some_and(|peer| {
                namespaces.matches(&self.namespace_labels(&peer.id.namespace))
                    && pods.matches(&peer.labels)
            }),
            ClusterPeer::Networks(list) => list.iter().any(|it: &Prefix| it.contains(q.peer_addr)),
            ClusterPeer::Unknown => false,
        }
    }
}

fn counts(mode: Mode, audit: bool) -> bool {
    mode == Mode::Enforce || (audit && mode == Mode::Audit)
}

fn ports_match(ports: Option<&[PortMatch]>, q: Question<'_>) -> bool {
    let Some(ports) = ports else {
        return true;
    };
    let protocol = match q.conn.protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return false,
    };
    let port = q.conn.dst_port;
    let destination = if q.way == Way::In {
        Some(q.subject)
    } else {
        q.peer
    };
    ports.iter().any(|it| match it {
        PortMatch::Any(p) => *p == protocol,
        PortMatch::Range {
            protocol: p,
            first,
            last,
        } => *p == protocol && (*first..=*last).contains(&port),
        PortMatch::Named { protocol: p, name } => {
            let ports = destination.iter().flat_map(|it| &it.ports);
            p.is_none_or(|p| p == protocol)
                && ports.into_iter().any(|it| {
                    it.name.as_ref() == Some(name) && it.protocol == protocol && it.number == port
                })
        }
    })
}
