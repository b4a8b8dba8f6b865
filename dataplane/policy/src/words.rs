//! Policies and their rules in the words of people, for lists on a terminal and for the API.

use crate::model::{
    Action, ClusterPeer, ClusterPolicy, ClusterRule, Mode, NetworkPolicy, Peer, PortMatch,
    Protocol, Requirement, Rule, Selector,
};
use crate::row::AnyPolicy;
use crate::table::RuleEntry;
use crate::verdict::Direction;

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWords {
    /// `allow` for a NetworkPolicy; else `accept`, `deny` or `pass`.
    pub action: &'static str,
    /// Its own name, where it has one.
    pub name: Option<String>,
    /// The other ends.
    pub peers: String,
    /// The ports.
    pub ports: String,
}

/// Whom a NetworkPolicy selects.
pub fn selects(policy: &NetworkPolicy) -> String {
    format!("{} of {}", pods_in_words(&policy.pods), policy.id.namespace)
}

/// Whom a ClusterNetworkPolicy selects.
pub fn cluster_selects(policy: &ClusterPolicy) -> String {
    let subject = &policy.subject;
    format!(
        "{} of {}",
        pods_in_words(&subject.pods),
        namespaces_in_words(&subject.namespaces)
    )
}

impl AnyPolicy {
    /// Whom it selects, in words.
    pub fn selects(&self) -> String {
        match self {
            Self::Network(policy) => selects(policy),
            Self::Cluster(policy) => cluster_selects(policy),
        }
    }
}

impl RuleEntry {
    /// What it says; `None` where it is the isolation of a direction.
    pub fn words(&self) -> Option<RuleWords> {
        let at = self.rule? as usize;
        match &self.policy {
            AnyPolicy::Network(policy) => {
                let rules = match self.direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                Some(rule(rules.as_ref()?.get(at)?, policy))
            }
            AnyPolicy::Cluster(policy) => {
                let rules = match self.direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                Some(cluster_rule(rules.get(at)?))
            }
        }
    }
}

/// How a policy counts, as a word.
pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
        Mode::Off => "off",
    }
}

/// What a rule of a NetworkPolicy says.
pub fn rule(rule: &Rule, policy: &NetworkPolicy) -> RuleWords {
    let peer = |peer: &Peer| match peer {
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::Block { cidr, except } => format!("{cidr} except {}", joined(except, " and ")),
        Peer::Pods { namespaces, pods } => {
            let pods = pods.clone().unwrap_or_default();
            let place = match namespaces {
                None => policy.id.namespace.to_string(),
                Some(selector) => namespaces_in_words(selector),
            };
            format!("{} of {place}", pods_in_words(&pods))
        }
    };
    let peers = match &rule.peers {
        None => "everyone".to_owned(),
        Some(peers) => words(peers.iter().map(peer)),
    };
    rule_of("allow", None, peers, rule.ports.as_deref())
}

/// What a rule of a ClusterNetworkPolicy says.
pub fn cluster_rule(rule: &ClusterRule) -> RuleWords {
    let action = match rule.action {
        Action::Accept => "accept",
        Action::Deny => "deny",
        Action::Pass => "pass",
    };
    let peers = rule.peers.iter().map(|peer| match peer {
        ClusterPeer::Networks(blocks) => joined(blocks, ", "),
        ClusterPeer::Unknown => "a kind of peer that is not evaluated".to_owned(),
        ClusterPeer::Pods { namespaces, pods } => {
            let place = namespaces_in_words(namespaces);
            format!("{} of {place}", pods_in_words(pods))
        }
    });
    let name = rule.name.as_ref().map(ToString::to_string);
    rule_of(action, name, words(peers), rule.ports.as_deref())
}

fn rule_of(
    action: &'static str,
    name: Option<String>,
    peers: String,
    ports: Option<&[PortMatch]>,
) -> RuleWords {
    RuleWords {
        action,
        name,
        peers,
        ports: match ports {
            None => "every port".to_owned(),
            Some(ports) => words(ports.iter().map(port_in_words)),
        },
    }
}

fn port_in_words(port: &PortMatch) -> String {
    let name = |protocol: &Protocol| match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match port {
        PortMatch::Any(protocol) => format!("every {} port", name(protocol)),
        PortMatch::Range {
            protocol,
            first,
            last,
        } if first == last => format!("{}/{first}", name(protocol)),
        PortMatch::Range {
            protocol,
            first,
            last,
        } => format!("{}/{first}-{last}", name(protocol)),
        PortMatch::Named {
            protocol: Some(protocol),
            name: port,
        } => format!("{}/{port}", name(protocol)),
        PortMatch::Named {
            protocol: None,
            name: port,
        } => port.to_string(),
    }
}

fn pods_in_words(selector: &Selector) -> String {
    match selector.requirements.is_empty() {
        true => "all pods".to_owned(),
        false => format!("pods with {}", selector_in_words(selector)),
    }
}

fn namespaces_in_words(selector: &Selector) -> String {
    match selector.requirements.is_empty() {
        true => "all namespaces".to_owned(),
        false => format!("namespaces with {}", selector_in_words(selector)),
    }
}

fn selector_in_words(selector: &Selector) -> String {
    let requirements = selector.requirements.iter().map(|it| match it {
        Requirement::In(key, values) if values.len() == 1 => {
            format!("{key}={}", joined(values, ""))
        }
        Requirement::In(key, values) => format!("{key} in ({})", joined(values, ", ")),
        Requirement::NotIn(key, values) => format!("{key} not in ({})", joined(values, ", ")),
        Requirement::Exists(key) => format!("{key} set"),
        Requirement::DoesNotExist(key) => format!("{key} unset"),
    });
    words(requirements)
}

fn joined(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|it| it.to_string()).collect();
    items.join(between)
}

fn words(items: impl Iterator<Item = String>) -> String {
    joined(items, ", ")
}
