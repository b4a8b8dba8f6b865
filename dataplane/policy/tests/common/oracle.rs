//! A slow, obvious evaluator, straight from the semantics: what the compiled tables are compared with. It shares
//! nothing with them but the model.

use std::net::IpAddr;
use std::sync::Arc;

use patronus_policy::cluster::Cluster;
use patronus_policy::document::Judge;
use patronus_policy::model::*;

/// A cluster, judged by reading all of it each time.
#[derive(Clone, Debug, Default)]
pub struct Oracle(pub Cluster);

impl Judge for Oracle {
    fn fresh(cluster: &Cluster) -> Self {
        Self(cluster.clone())
    }

    fn apply(&mut self, change: &Change) {
        self.0.apply(change);
    }

    fn judge(&self, connection: &Connection) -> bool {
        self.decide(connection).0
    }

    fn reason(&self, connection: &Connection) -> String {
        self.decide(connection).1
    }
}

/// A verdict and why.
pub type Decision = (bool, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// One direction of a connection, from the point of view of the pod that is protected.
#[derive(Clone, Copy)]
struct View<'c> {
    direction: Direction,
    subject: &'c Pod,
    peer_addr: IpAddr,
    peer: Option<&'c Pod>,
    connection: &'c Connection,
}

impl Oracle {
    /// A connection passes if the source may send it and the destination may receive it.
    pub fn decide(&self, connection: &Connection) -> Decision {
        let (src, dst) = (self.pod_at(connection.src), self.pod_at(connection.dst));
        // A pod is never kept from itself.
        if let (Some(src), Some(dst)) = (src, dst)
            && src.id == dst.id
        {
            return (true, "its own address".to_owned());
        }
        if let Some(subject) = src {
            let out = self.direction(View {
                direction: Direction::Egress,
                subject,
                peer_addr: connection.dst,
                peer: dst,
                connection,
            });
            if !out.0 {
                return out;
            }
        }
        match dst {
            None => (true, "the destination is no pod".to_owned()),
            Some(subject) => self.direction(View {
                direction: Direction::Ingress,
                subject,
                peer_addr: connection.src,
                peer: src,
                connection,
            }),
        }
    }

    /// The pod at an address; one in its node's network is an address like any other.
    fn pod_at(&self, addr: IpAddr) -> Option<&Pod> {
        let mut pods = self.0.pods.values();
        pods.find(|pod| !pod.host_network && pod.ips.contains(&addr))
    }

    fn direction(&self, view: View<'_>) -> Decision {
        // To and from the own node is always allowed.
        if self.is_own_node(view.subject, view.peer_addr) {
            return (true, "own node".to_owned());
        }
        if let Some(decision) = self.tier(Tier::Admin, view) {
            return decision;
        }
        let isolating: Vec<_> = self.isolating(view).collect();
        if !isolating.is_empty() {
            return self.network_policies(&isolating, view);
        }
        let baseline = self.tier(Tier::Baseline, view);
        baseline.unwrap_or((true, format!("{:?}: not isolated", view.direction)))
    }

    fn is_own_node(&self, pod: &Pod, addr: IpAddr) -> bool {
        let Some(name) = &pod.node else { return false };
        let node = self.0.nodes.get(name);
        // A pod in its node's network is its node, which needs no manifest for that.
        let mut guests = self.0.pods.values().filter(|it| it.host_network);
        node.is_some_and(|node| node.ips.contains(&addr))
            || guests.any(|it| it.node.as_ref() == Some(name) && it.ips.contains(&addr))
    }

    /// The NetworkPolicies of the pod's own namespace that select it and isolate this direction.
    fn isolating<'a>(
        &'a self,
        view: View<'a>,
    ) -> impl Iterator<Item = (&'a NetworkPolicy, &'a [Rule])> {
        let policies = self.0.policies.values().map(Arc::as_ref);
        policies.filter_map(move |policy| {
            let rules = match view.direction {
                Direction::Ingress => policy.ingress.as_deref()?,
                Direction::Egress => policy.egress.as_deref()?,
            };
            let selects = policy.mode == Mode::Enforce
                && policy.id.namespace == view.subject.id.namespace
                && policy.pods.matches(&view.subject.labels);
            selects.then_some((policy, rules))
        })
    }

    /// Any rule of any policy allows; none denies.
    fn network_policies(&self, policies: &[(&NetworkPolicy, &[Rule])], view: View<'_>) -> Decision {
        for (policy, rules) in policies {
            for rule in *rules {
                let namespace = &policy.id.namespace;
                let peers = rule.peers.as_ref();
                let is_peer = peers.is_none_or(|peers| {
                    peers.iter().any(|peer| self.is_peer(peer, namespace, view))
                });
                if is_peer && is_port(rule.ports.as_deref(), view) {
                    return (true, format!("allowed by {} at {}", policy.id, rule.source));
                }
            }
        }
        let names: Vec<String> = policies.iter().map(|it| it.0.id.to_string()).collect();
        let names = names.join(", ");
        (false, format!("{:?} isolated by {names}", view.direction))
    }

    fn is_peer(&self, peer: &Peer, own: &Text, view: View<'_>) -> bool {
        match peer {
            Peer::Block { cidr, except } => {
                cidr.contains(view.peer_addr)
                    && !except.iter().any(|cut| cut.contains(view.peer_addr))
            }
            Peer::Pods { namespaces, pods } => view.peer.is_some_and(|pod| {
                let labels = self.0.namespace_labels(&pod.id.namespace);
                let in_namespace = match namespaces {
                    None => pod.id.namespace == *own,
                    Some(selector) => selector.matches(&labels),
                };
                let by_labels = |it: &Selector| it.matches(&pod.labels);
                in_namespace && pods.as_ref().is_none_or(by_labels)
            }),
        }
    }

    /// What a tier says; `None` where it says nothing or passes.
    fn tier(&self, tier: Tier, view: View<'_>) -> Option<Decision> {
        let policies = self.0.cluster_policies.values();
        let mut policies: Vec<_> = policies
            .filter(|policy| policy.tier == tier && policy.mode == Mode::Enforce)
            .filter(|policy| self.is_selected(&policy.subject, view.subject))
            .collect();
        policies.sort_by_key(|policy| (policy.priority, policy.name.clone()));
        for policy in policies {
            let rules = match view.direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            for rule in rules {
                let Some(action) = self.action(rule, view) else {
                    continue;
                };
                let reason = format!("{action:?} by {} at {}", policy.name, rule.source);
                return match action {
                    Action::Accept => Some((true, reason)),
                    Action::Deny => Some((false, reason)),
                    Action::Pass => None,
                };
            }
        }
        None
    }

    fn is_selected(&self, subject: &ClusterSubject, pod: &Pod) -> bool {
        let labels = self.0.namespace_labels(&pod.id.namespace);
        subject.namespaces.matches(&labels) && subject.pods.matches(&pod.labels)
    }

    /// What a rule does; `None` where it does not match. A peer of an unknown kind makes an Accept match nothing,
    /// and anything else deny everything.
    fn action(&self, rule: &ClusterRule, view: View<'_>) -> Option<Action> {
        if rule.peers.contains(&ClusterPeer::Unknown) {
            return (rule.action != Action::Accept).then_some(Action::Deny);
        }
        let is_peer = rule.peers.iter().any(|peer| match peer {
            ClusterPeer::Unknown => false,
            ClusterPeer::Networks(blocks) => {
                blocks.iter().any(|block| block.contains(view.peer_addr))
            }
            ClusterPeer::Pods { namespaces, pods } => view.peer.is_some_and(|pod| {
                let labels = self.0.namespace_labels(&pod.id.namespace);
                namespaces.matches(&labels) && pods.matches(&pod.labels)
            }),
        });
        (is_peer && is_port(rule.ports.as_deref(), view)).then_some(rule.action)
    }
}

/// Whether the connection's port is one of them. Names are those of the destination pod, with their protocol.
fn is_port(ports: Option<&[PortMatch]>, view: View<'_>) -> bool {
    let Some(ports) = ports else { return true };
    let Connection {
        protocol, dst_port, ..
    } = *view.connection;
    let number = |protocol: Protocol| match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let target = match view.direction {
        Direction::Ingress => Some(view.subject),
        Direction::Egress => view.peer,
    };
    ports.iter().any(|port| match port {
        PortMatch::Any(wanted) => number(*wanted) == protocol,
        PortMatch::Range {
            protocol: wanted,
            first,
            last,
        } => number(*wanted) == protocol && (*first..=*last).contains(&dst_port),
        PortMatch::Named {
            protocol: wanted,
            name,
        } => target.is_some_and(|pod| {
            pod.ports.iter().any(|port| {
                port.name.as_ref() == Some(name)
                    && wanted.is_none_or(|wanted| wanted == port.protocol)
                    && number(port.protocol) == protocol
                    && port.number == dst_port
            })
        }),
    })
}
