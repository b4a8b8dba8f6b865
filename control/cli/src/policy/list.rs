//! `patronus policy list`: policies, whom they select, and their rules in words.

use std::collections::BTreeMap;

use patronus_policy::cluster::Cluster;
use patronus_policy::model::{
    ClusterPolicy, ClusterRule, NetworkPolicy, Pod, Rule, Source, Text, Tier,
};
use patronus_policy::words::{self, RuleWords};
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
        let view = |it: &Rule| rule_view(words::rule(it, policy), &it.source);
        Some(rules.map(view).collect())
    };
    View {
        tier: "network",
        priority: None,
        name: policy.id.to_string(),
        mode: words::mode(policy.mode),
        selects: words::selects(policy),
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
        let view = |it: &ClusterRule| rule_view(words::cluster_rule(it), &it.source);
        (!rules.is_empty()).then(|| rules.iter().map(view).collect())
    };
    View {
        tier: match policy.tier {
            Tier::Admin => "admin",
            Tier::Baseline => "baseline",
        },
        priority: Some(policy.priority),
        name: policy.name.to_string(),
        mode: words::mode(policy.mode),
        selects: words::cluster_selects(policy),
        pods: selected.count(),
        ingress: rules(&policy.ingress),
        egress: rules(&policy.egress),
        file: policy.source.file.to_string(),
        line: policy.source.line,
    }
}

fn rule_view(said: RuleWords, source: &Source) -> RuleView {
    RuleView {
        action: said.action,
        name: said.name,
        peers: said.peers,
        ports: said.ports,
        file: source.file.to_string(),
        line: source.line,
    }
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
