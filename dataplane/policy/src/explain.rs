//! The story behind a verdict, for people: both ends, both directions, the deciding rule or the nearest miss.
//!
//! Decisions come from the tables themselves, so an explanation cannot disagree with a verdict; only nearest misses
//! are found by reading rules.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::{NodeId, RuleId};
use crate::model::{
    Connection, NetworkPolicy, ObjectName, Peer, Pod, PortMatch, Protocol, Rule, Source, Text,
};
use crate::row::{AnyPolicy, Layer};
use crate::table::{Audits, Decision, End, PolicyTable, RuleEntry};
use crate::verdict::{Cause, Direction, Verdict};

/// Why a connection may pass or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked.
    pub connection: Connection,
    /// What [`PolicyTable::judge`] says.
    pub verdict: Verdict,
    /// Who opens it.
    pub src: EndReport,
    /// To whom.
    pub dst: EndReport,
    /// What the source's side says.
    pub egress: DirectionReport,
    /// What the destination's side says; told also where the source's side denies already.
    pub ingress: DirectionReport,
    /// The rule or isolation in audit mode that would turn the verdict.
    pub audit: Option<RuleRef>,
}

/// One end, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndReport {
    /// Its address.
    pub addr: IpAddr,
    /// Who answers there.
    pub who: Who,
    /// The pods that claim the address, where there are several; `who` is the one whose verdict counted.
    pub claims: Vec<ObjectName>,
}

/// Who answers on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A pod that policies know.
    Pod {
        /// Which.
        id: ObjectName,
        /// Where it lives.
        node: Option<Text>,
    },
    /// A pod on its node's network: to policies an address.
    HostPod {
        /// Which.
        id: ObjectName,
        /// Where it lives.
        node: Option<Text>,
    },
    /// A node.
    Node(Text),
    /// No manifest speaks of it.
    Outside,
}

/// A policy that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    pub name: String,
    /// Who decides there.
    pub layer: Layer,
    /// Where it stands.
    pub source: Source,
}

/// A rule that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Its policy.
    pub policy: PolicyRef,
    /// The direction whose rule it is.
    pub direction: Direction,
    /// Its number in that direction, from 1; 0 is the policy's isolation of the direction.
    pub number: u32,
    /// Its own name, where it has one.
    pub name: Option<Text>,
    /// Where it stands.
    pub source: Source,
}

/// What one direction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectionReport {
    /// The end is no pod: nothing to enforce.
    NotAPod,
    /// A pod talks to itself.
    OwnAddress,
    /// The other end is the pod's own node.
    OwnNode,
    /// No policy isolates the pod in this direction, no tier denies.
    NotIsolated,
    /// A rule allows.
    Allowed(RuleRef),
    /// A tier's rule denies.
    Denied(RuleRef),
    /// Policies isolate the pod and none allows.
    Isolated {
        /// Which policies.
        by: Vec<PolicyRef>,
        /// The rule that came nearest.
        nearest: Option<Miss>,
    },
    /// Too many pods claim an address.
    Contested,
}

impl DirectionReport {
    /// Whether this direction denies the connection.
    pub fn denies(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Isolated { .. } | Self::Contested => true,
            Self::NotAPod
            | Self::OwnAddress
            | Self::OwnNode
            | Self::NotIsolated
            | Self::Allowed(_) => false,
        }
    }
}

/// A rule that nearly allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Which.
    pub rule: RuleRef,
    /// What was missing.
    pub kind: MissKind,
}

/// What a rule that came near does not match, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissKind {
    /// The peer and the port number match, the protocol does not.
    Protocol,
    /// The peer matches, the port does not.
    Port,
    /// The port matches, the peer does not.
    Peer,
}

impl PolicyTable {
    /// Judges a connection and tells why. For people: it allocates, and takes its time.
    pub fn explain(&self, conn: &Connection) -> Explanation {
        let verdict = self.judge(conn);
        let (src, dst) = self.deciding_pair(conn, &verdict);
        let report = |direction, subject, peer| {
            if verdict.cause == Cause::Contested {
                return DirectionReport::Contested;
            }
            match self.decide(direction, subject, peer, conn, Audits::Ignored) {
                None => DirectionReport::NotAPod,
                Some(it) => self.direction_report(it, direction, subject, peer, conn),
            }
        };
        Explanation {
            connection: *conn,
            verdict,
            src: self.end_report(src),
            dst: self.end_report(dst),
            egress: report(Direction::Egress, src, dst),
            ingress: report(Direction::Ingress, dst, src),
            audit: verdict.audit.and_then(|it| self.rule_ref(it.rule?)),
        }
    }

    /// Of everything that contested ends may be, the pair that the verdict is about.
    fn deciding_pair(&self, conn: &Connection, verdict: &Verdict) -> (End<'_>, End<'_>) {
        let src = self.addresses.find(conn.src);
        let dst = self.addresses.find(conn.dst);
        let mut last = (self.end(conn.src, src), self.end(conn.dst, dst));
        for (src, dst) in self.pairs(conn, src, dst) {
            last = (self.end(conn.src, src), self.end(conn.dst, dst));
            let denies = |direction, subject, peer| {
                let decision = self.decide(direction, subject, peer, conn, Audits::Ignored);
                decision.is_some_and(|it| !it.allow)
            };
            let (src, dst) = last;
            if !verdict.allow
                && (denies(Direction::Egress, src, dst) || denies(Direction::Ingress, dst, src))
            {
                break;
            }
        }
        last
    }

    fn pod_of(&self, end: End<'_>) -> Option<&Arc<Pod>> {
        self.pods.get(end.endpoint.pod.at())?.as_ref()
    }

    fn end_report(&self, end: End<'_>) -> EndReport {
        let node = |id: NodeId| self.nodes.get(id.at()).and_then(Option::as_ref).cloned();
        let who = match self.pod_of(end) {
            Some(pod) if pod.host_network => Who::HostPod {
                id: pod.id.clone(),
                node: pod.node.clone(),
            },
            Some(pod) => Who::Pod {
                id: pod.id.clone(),
                node: pod.node.clone(),
            },
            None => node(end.endpoint.host_of).map_or(Who::Outside, Who::Node),
        };
        let contested = self.contested.get(&end.addr);
        let claims = contested.iter().flat_map(|it| &it.endpoints);
        let claims = claims.filter_map(|it| Some(self.pods.get(it.pod.at())?.as_ref()?.id.clone()));
        EndReport {
            addr: end.addr,
            who,
            claims: claims.collect(),
        }
    }

    fn direction_report(
        &self,
        decision: Decision,
        direction: Direction,
        subject: End<'_>,
        peer: End<'_>,
        conn: &Connection,
    ) -> DirectionReport {
        match decision.cause {
            Cause::NoPod => DirectionReport::NotAPod,
            Cause::OwnAddress => DirectionReport::OwnAddress,
            Cause::OwnNode => DirectionReport::OwnNode,
            Cause::NotIsolated => DirectionReport::NotIsolated,
            Cause::Contested => DirectionReport::Contested,
            Cause::Rule => match decision.rule.and_then(|it| self.rule_ref(it)) {
                Some(rule) if decision.allow => DirectionReport::Allowed(rule),
                Some(rule) => DirectionReport::Denied(rule),
                None => DirectionReport::NotIsolated,
            },
            Cause::Isolated => {
                let rows = subject.class.map(|it| &it.rows[direction as usize]);
                let row = rows.and_then(|it| it[Layer::Network as usize].as_ref());
                let policies = row.iter().flat_map(|it| &it.policies);
                DirectionReport::Isolated {
                    by: policies.clone().map(policy_ref).collect(),
                    nearest: policies
                        .filter_map(|it| self.nearest(it, direction, subject, peer, conn))
                        .min_by_key(|it| it.kind),
                }
            }
        }
    }

    /// The rule of a policy that came nearest to allowing.
    fn nearest(
        &self,
        policy: &AnyPolicy,
        direction: Direction,
        subject: End<'_>,
        peer: End<'_>,
        conn: &Connection,
    ) -> Option<Miss> {
        let AnyPolicy::Network(network) = policy else {
            return None;
        };
        let rules = rules_of(network, direction);
        let destination = match direction {
            Direction::Ingress => subject,
            Direction::Egress => peer,
        };
        let destination = destination.class.and(self.pod_of(destination));
        let misses = rules.iter().enumerate().filter_map(|(at, rule)| {
            let peers = rule.peers.as_ref();
            let of_peer =
                peers.is_none_or(|list| list.iter().any(|it| self.peer_matches(it, subject, peer)));
            let same = |protocol| port_matches(rule, protocol, conn.dst_port, destination);
            let kind = match (of_peer, same(protocol(conn.protocol))) {
                (true, true) | (false, false) => return None,
                (false, true) => MissKind::Peer,
                (true, false) if others(conn.protocol).any(|it| same(Some(it))) => {
                    MissKind::Protocol
                }
                (true, false) => MissKind::Port,
            };
            Some(Miss {
                rule: rule_ref(policy, direction, Some(at as u32)),
                kind,
            })
        });
        misses.min_by_key(|it| it.kind)
    }

    fn peer_matches(&self, item: &Peer, subject: End<'_>, peer: End<'_>) -> bool {
        match item {
            Peer::Block { cidr, except } => {
                cidr.contains(peer.addr) && !except.iter().any(|it| it.contains(peer.addr))
            }
            Peer::Pods { namespaces, pods } => {
                let (Some(class), Some(pod)) = (peer.class, self.pod_of(peer)) else {
                    return false;
                };
                let own = subject.class.map(|it| &it.facts.namespace);
                let in_namespace = match namespaces {
                    None => own == Some(&pod.id.namespace),
                    Some(it) => it.matches(&class.namespace_labels),
                };
                in_namespace && pods.as_ref().is_none_or(|it| it.matches(&pod.labels))
            }
        }
    }

    fn rule_ref(&self, id: RuleId) -> Option<RuleRef> {
        self.rule(id).map(RuleEntry::to_ref)
    }
}

impl RuleEntry {
    /// The rule as explanations name it.
    pub fn to_ref(&self) -> RuleRef {
        rule_ref(&self.policy, self.direction, self.rule)
    }
}

fn rules_of(policy: &NetworkPolicy, direction: Direction) -> &[Rule] {
    let rules = match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    };
    rules.as_deref().unwrap_or(&[])
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

fn others(number: u8) -> impl Iterator<Item = Protocol> {
    let own = protocol(number);
    let all = crate::ports::PROTOCOLS.into_iter();
    all.filter(move |it| own.is_some_and(|own| own != *it))
}

fn port_matches(rule: &Rule, of: Option<Protocol>, number: u16, dst: Option<&Arc<Pod>>) -> bool {
    let Some(ports) = &rule.ports else {
        return true;
    };
    ports.iter().any(|it| match it {
        PortMatch::Any(protocol) => of == Some(*protocol),
        PortMatch::Range {
            protocol,
            first,
            last,
        } => of == Some(*protocol) && (*first..=*last).contains(&number),
        PortMatch::Named { protocol, name } => dst.is_some_and(|pod| {
            protocol.is_none_or(|it| of == Some(it))
                && pod.ports.iter().any(|port| {
                    port.name.as_ref() == Some(name)
                        && of == Some(port.protocol)
                        && port.number == number
                })
        }),
    })
}

fn policy_ref(policy: &AnyPolicy) -> PolicyRef {
    PolicyRef {
        name: policy.name(),
        layer: policy.layer(),
        source: policy.source().clone(),
    }
}

fn rule_ref(policy: &AnyPolicy, direction: Direction, rule: Option<u32>) -> RuleRef {
    let at = rule.map_or(usize::MAX, |it| it as usize);
    let (name, source) = match policy {
        AnyPolicy::Network(it) => {
            let rule = rules_of(it, direction).get(at);
            (None, rule.map(|it| it.source.clone()))
        }
        AnyPolicy::Cluster(it) => {
            let rules = match direction {
                Direction::Ingress => &it.ingress,
                Direction::Egress => &it.egress,
            };
            let rule = rules.get(at);
            (
                rule.and_then(|it| it.name.clone()),
                rule.map(|it| it.source.clone()),
            )
        }
    };
    RuleRef {
        policy: policy_ref(policy),
        direction,
        number: rule.map_or(0, |it| it + 1),
        name,
        source: source.unwrap_or_else(|| policy.source().clone()),
    }
}

impl fmt::Display for EndReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Pod { id, .. } => write!(f, "{id} ({})", self.addr)?,
            Who::HostPod { id, .. } => write!(f, "{id} on its node's network ({})", self.addr)?,
            Who::Node(name) => write!(f, "node {name} ({})", self.addr)?,
            Who::Outside => write!(f, "{}, an outside address", self.addr)?,
        }
        if self.claims.len() > 1 {
            f.write_str(" [claimed by ")?;
            list(f, &self.claims)?;
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Layer::Admin => write!(f, "Admin policy {}", self.name),
            Layer::Network => write!(f, "{}", self.name),
            Layer::Baseline => write!(f, "Baseline policy {}", self.name),
        }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        match (self.number, &self.name) {
            (0, _) => write!(f, "{direction} isolation of {}", self.policy)?,
            (number, None) => write!(f, "{direction} rule {number} of {}", self.policy)?,
            (number, Some(name)) => {
                write!(f, "{direction} rule {number} \"{name}\" of {}", self.policy)?;
            }
        }
        write!(f, " at {}", self.source)
    }
}

impl fmt::Display for DirectionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("nothing to enforce, the end is no pod"),
            Self::OwnAddress => f.write_str("allowed, a pod may always reach itself"),
            Self::OwnNode => f.write_str("allowed, the other end is the pod's own node"),
            Self::NotIsolated => f.write_str("allowed, no policy isolates the pod"),
            Self::Allowed(rule) => write!(f, "allowed by {rule}"),
            Self::Denied(rule) => write!(f, "denied by {rule}"),
            Self::Contested => f.write_str("denied, too many pods claim an address"),
            Self::Isolated { by, nearest } => {
                f.write_str("denied, isolated by ")?;
                for (at, policy) in by.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{policy} at {}", policy.source)?;
                }
                match nearest {
                    None => f.write_str("; no rule comes near"),
                    Some(miss) => write!(f, "; nearest is {}, which {}", miss.rule, miss.kind),
                }
            }
        }
    }
}

impl fmt::Display for MissKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "allows this peer and port, but another protocol",
            Self::Port => "allows this peer, but other ports",
            Self::Peer => "allows this port, but other peers",
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.verdict.allow {
            "allowed"
        } else {
            "denied"
        };
        write!(f, "{verdict}: {} -> {}, ", self.src, self.dst)?;
        match protocol(self.connection.protocol) {
            Some(Protocol::Tcp) => write!(f, "TCP/{}", self.connection.dst_port)?,
            Some(Protocol::Udp) => write!(f, "UDP/{}", self.connection.dst_port)?,
            Some(Protocol::Sctp) => write!(f, "SCTP/{}", self.connection.dst_port)?,
            None => write!(f, "IP protocol {}", self.connection.protocol)?,
        }
        write!(
            f,
            "\n  egress: {}\n  ingress: {}",
            self.egress, self.ingress
        )?;
        if let Some(rule) = &self.audit {
            let verb = if self.verdict.allow { "deny" } else { "allow" };
            write!(f, "\n  audit: would {verb} by {rule}")?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: &[ObjectName]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}
