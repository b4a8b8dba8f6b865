//! `patronus policy list`: policies, whom they select, and their rules in words.

use std::collections::BTreeMap;

use patronus_policy::cluster::Cluster;
use patronus_policy::model::{
    Action, ClusterPeer, ClusterPolicy, ClusterRule, Mode, NetworkPolicy, Peer, Pod, PortMatch,
    Protocol, Requirement, Rule, Selector, Source, Text, Tier,
};
use serde::Serialize;

use super::input::Manifests;
use super::{DONE, ListArgs, live, print};

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    /// In the order in which tiers are asked.
    policies: Vec<View>,
}

/// A policy.
#[derive(Serialize)]
struct View {
    /// `admin`, `network` or `baseline`.
    tier: &'static str,
    /// Lower is asked first; a NetworkPolicy has none.
    priority: Option<u16>,
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    name: String,
    /// `enforce`, `audit` or `off`.
    mode: &'static str,
    /// Whom it selects, in words.
    selects: String,
    /// How many pods that are.
    pods: usize,
    /// `None` where it says nothing about the direction.
    ingress: Option<Vec<RuleView>>,
    /// `None` where it says nothing about the direction.
    egress: Option<Vec<RuleView>>,
    file: String,
    line: u32,
}

/// A rule.
#[derive(Serialize)]
struct RuleView {
    /// `allow` for a NetworkPolicy; else `accept`, `deny` or `pass`.
    action: &'static str,
    name: Option<String>,
    /// The other ends, in words.
    peers: String,
    /// The ports, in words.
    ports: String,
    file: String,
    line: u32,
}

/// Lists the policies in force.
pub fn list(args: &ListArgs) -> anyhow::Result<u8> {
    if args.paths.is_empty() {
        return live::list(args);
    }
    let cluster = Manifests::read(&args.paths)?.into_cluster()?;
    let policies = views(&cluster);
    match args.json {
        true => print::json(&Answer { policies })?,
        false => print::text_out(&for_people(&policies)),
    }
    Ok(DONE)
}

fn views(cluster: &Cluster) -> Vec<View> {
    let mut by_namespace: BTreeMap<&Text, Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.pods.values().filter(|it| !it.host_network) {
        by_namespace.entry(&pod.id.namespace).or_default().push(pod);
    }
    let tier = |wanted| {
        let of_tier = cluster.cluster_policies.values();
        let mut of_tier: Vec<_> = of_tier.filter(|it| it.tier == wanted).collect();
        of_tier.sort_by_key(|it| (it.priority, it.name.clone()));
        of_tier
    };
    let cluster_view = |policy| cluster_view(policy, cluster, &by_namespace);
    let mut views: Vec<View> = Vec::new();
    views.extend(tier(Tier::Admin).into_iter().map(|it| cluster_view(it)));
    let network = cluster.policies.values();
    views.extend(network.map(|it| network_view(it, &by_namespace)));
    views.extend(tier(Tier::Baseline).into_iter().map(|it| cluster_view(it)));
    views
}

fn network_view(policy: &NetworkPolicy, pods: &BTreeMap<&Text, Vec<&Pod>>) -> View {
    let own = pods.get(&policy.id.namespace).map_or(&[][..], |it| it);
    let selected = own.iter().filter(|pod| policy.pods.matches(&pod.labels));
    let rules = |rules: &Option<Vec<Rule>>| {
        let rules = rules.as_ref()?.iter();
        Some(rules.map(|it| rule_view(it, policy)).collect())
    };
    View {
        tier: "network",
        priority: None,
        name: policy.id.to_string(),
        mode: mode(policy.mode),
        selects: format!("{} of {}", pods_in_words(&policy.pods), policy.id.namespace),
        pods: selected.count(),
        ingress: rules(&policy.ingress),
        egress: rules(&policy.egress),
        file: policy.source.file.to_string(),
        line: policy.source.line,
    }
}

fn cluster_view(
    policy: &ClusterPolicy,
    cluster: &Cluster,
    pods: &BTreeMap<&Text, Vec<&Pod>>,
) -> View {
    let subject = &policy.subject;
    let namespaces = pods.iter().filter(|(name, _)| {
        let labels = cluster.namespace_labels(name);
        subject.namespaces.matches(&labels)
    });
    let selected = namespaces.flat_map(|(_, pods)| pods);
    let selected = selected.filter(|pod| subject.pods.matches(&pod.labels));
    let rules = |rules: &[ClusterRule]| {
        (!rules.is_empty()).then(|| rules.iter().map(cluster_rule_view).collect())
    };
    View {
        tier: match policy.tier {
            Tier::Admin => "admin",
            Tier::Baseline => "baseline",
        },
        priority: Some(policy.priority),
        name: policy.name.to_string(),
        mode: mode(policy.mode),
        selects: format!(
            "{} of {}",
            pods_in_words(&subject.pods),
            namespaces_in_words(&subject.namespaces)
        ),
        pods: selected.count(),
        ingress: rules(&policy.ingress),
        egress: rules(&policy.egress),
        file: policy.source.file.to_string(),
        line: policy.source.line,
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
        Mode::Off => "off",
    }
}

fn rule_view(rule: &Rule, policy: &NetworkPolicy) -> RuleView {
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
    rule_of("allow", None, peers, rule.ports.as_deref(), &rule.source)
}

fn cluster_rule_view(rule: &ClusterRule) -> RuleView {
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
    rule_of(
        action,
        name,
        words(peers),
        rule.ports.as_deref(),
        &rule.source,
    )
}

fn rule_of(
    action: &'static str,
    name: Option<String>,
    peers: String,
    ports: Option<&[PortMatch]>,
    source: &Source,
) -> RuleView {
    RuleView {
        action,
        name,
        peers,
        ports: match ports {
            None => "every port".to_owned(),
            Some(ports) => words(ports.iter().map(port_in_words)),
        },
        file: source.file.to_string(),
        line: source.line,
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

fn for_people(policies: &[View]) -> String {
    let mut text = String::new();
    for policy in policies {
        let mut head = format!("{} {}", policy.tier, policy.name);
        if let Some(priority) = policy.priority {
            head += &format!(" priority {priority}");
        }
        if policy.mode != "enforce" {
            head += &format!(" [{}]", policy.mode);
        }
        head += &format!("  {}:{}", policy.file, policy.line);
        text += &print::wrapped(&head, 4);
        let pods = print::count(policy.pods, "pod", "pods");
        text += &print::wrapped(&format!("  selects {pods}: {}", policy.selects), 6);
        for (name, rules, word) in [
            ("ingress", &policy.ingress, "from"),
            ("egress", &policy.egress, "to"),
        ] {
            let Some(rules) = rules else { continue };
            if rules.is_empty() {
                text += &format!("  {name}: allows nothing\n");
            }
            for (at, rule) in rules.iter().enumerate() {
                let line = format!(
                    "  {name} {}: {} {word} {} on {}",
                    at + 1,
                    rule.action,
                    rule.peers,
                    rule.ports
                );
                text += &print::wrapped(&line, 6);
            }
        }
    }
    let in_force = policies.iter().filter(|it| it.mode == "enforce").count();
    let all = print::count(policies.len(), "policy", "policies");
    text += &format!("{all}, {in_force} enforced\n");
    text
}
