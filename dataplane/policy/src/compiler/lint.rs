//! What in a cluster is probably not meant: found from the compiled tables, so with the pods that there are.

use std::fmt;
use std::sync::Arc;

use super::{Compiler, PolicyName};
use crate::ids::{ClassId, Edition, Map, RuleId, Set};
use crate::model::PortMatch;
use crate::model::{ClusterPolicy, Protocol, Source, Text};
use crate::ports::NO_RULE;
use crate::row::{AnyPolicy, Row};
use crate::row_build::{CompiledPolicy, Target, rule_ports};
use crate::verdict::{DIRECTIONS, Direction};

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where, if a policy is at fault.
    pub source: Option<Source>,
    /// The object: a policy, a namespace, or an address.
    pub object: String,
    /// What.
    pub fault: Fault,
}

/// What is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The policy selects no pod.
    SelectsNothing,
    /// Other policies cover all that it does: without it every verdict would be the same.
    Shadowed,
    /// The rule allows every port from or to everyone.
    AllowsEverything(Direction, u32),
    /// The rule never decides: its peers select nobody, or what it matches is decided before it.
    Unreachable(Direction, u32),
    /// No pod to which the rule may lead has a port of that name and protocol.
    NoSuchPort(Direction, u32, Text),
    /// Another policy of the same tier and priority selects the same pods: their names decide.
    EqualPriority(Text),
    /// Pods or policies name a namespace without a manifest: it has no labels but its name.
    NamespaceWithoutManifest,
    /// Several pods claim the address: it is judged as each of them, and one denial denies.
    ClaimedTwice(Vec<String>),
}

impl Compiler {
    /// Everything that is probably not meant, sorted.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let live = self.live_rules();
        let users = self.classes_by_policy();
        for (name, edition) in &self.editions {
            let Some(compiled) = self.policies.get(edition) else {
                continue;
            };
            let mut add = |fault| {
                findings.push(Finding {
                    source: Some(compiled.policy.source().clone()),
                    object: match name {
                        PolicyName::Network(id) => id.to_string(),
                        PolicyName::Cluster(name) => name.to_string(),
                    },
                    fault,
                });
            };
            let Some(classes) = users.get(edition) else {
                add(Fault::SelectsNothing);
                continue;
            };
            if self.is_shadowed(*edition, compiled, &live) {
                add(Fault::Shadowed);
            }
            self.lint_rules(compiled, classes, &live, &mut add);
        }
        self.lint_priorities(&mut findings);
        self.lint_names(&mut findings);
        findings.sort();
        findings.dedup();
        findings
    }

    /// The namespaces that pods or policies name and no manifest describes.
    pub fn namespaces_without_manifest(&self) -> impl Iterator<Item = &Text> {
        let without = self.namespaces.iter().filter(|(_, it)| {
            it.manifest.is_none() && !(it.pods.is_empty() && it.policies.is_empty())
        });
        without.map(|(name, _)| name)
    }

    fn compiled_rows(&self) -> impl Iterator<Item = (&super::RowState, &Arc<Row>)> {
        self.rows
            .iter()
            .filter_map(|(_, state)| Some((state, state.row.as_ref()?)))
    }

    /// The rules that decide something in some row.
    fn live_rules(&self) -> Set<RuleId> {
        let mut live = Set::default();
        for (_, row) in self.compiled_rows() {
            let orders = row.intervals.iter().map(|it| it.order);
            let others = row
                .sets
                .iter()
                .map(|it| it.other)
                .filter(|it| *it != NO_RULE);
            let named = row.named_blocks.iter().map(|it| it.order);
            let orders = orders.chain(others).chain(named);
            live.extend(orders.filter_map(|it| Some(row.rules.get(it as usize)?.id)));
        }
        live
    }

    fn classes_by_policy(&self) -> Map<Edition, Set<ClassId>> {
        let mut users: Map<Edition, Set<ClassId>> = Map::default();
        for (state, _) in self.compiled_rows() {
            for edition in &state.key.policies {
                users
                    .entry(*edition)
                    .or_default()
                    .extend(state.users.keys());
            }
        }
        users
    }

    /// None of its rules decides anything, and others isolate whatever it isolates.
    fn is_shadowed(&self, edition: Edition, of: &CompiledPolicy, live: &Set<RuleId>) -> bool {
        let rules = of.sides.iter().flatten().flat_map(|it| &it.rules);
        let decides = rules.into_iter().any(|it| live.contains(&it.id));
        let mut rows = self
            .compiled_rows()
            .filter(|it| it.0.key.policies.contains(&edition));
        let isolates = |row: &Row| row.isolation.is_some() && row.policies.len() == 1;
        !decides && !rows.any(|(_, row)| isolates(row))
    }

    fn lint_rules(
        &self,
        compiled: &CompiledPolicy,
        classes: &Set<ClassId>,
        live: &Set<RuleId>,
        add: &mut impl FnMut(Fault),
    ) {
        for (direction, side) in DIRECTIONS.into_iter().zip(&compiled.sides) {
            for (at, rule) in side.iter().flat_map(|it| it.rules.iter().enumerate()) {
                let number = at as u32 + 1;
                let ports = rule_ports(&compiled.policy, direction, at);
                let network = matches!(compiled.policy, AnyPolicy::Network(_));
                if network && ports.is_none() && rule.targets.contains(&Target::Any) {
                    add(Fault::AllowsEverything(direction, number));
                }
                if !live.contains(&rule.id) {
                    add(Fault::Unreachable(direction, number));
                }
                for port in ports.unwrap_or(&[]) {
                    let PortMatch::Named { protocol, name } = port else {
                        continue;
                    };
                    if !self.has_port(direction, classes, name, *protocol) {
                        add(Fault::NoSuchPort(direction, number, name.clone()));
                    }
                }
            }
        }
    }

    /// Whether a pod to which a rule may lead has such a port: a subject, or for egress any pod.
    fn has_port(
        &self,
        direction: Direction,
        subjects: &Set<ClassId>,
        name: &Text,
        protocol: Option<Protocol>,
    ) -> bool {
        let mut classes = self
            .classes
            .iter()
            .filter(|(id, _)| direction == Direction::Egress || subjects.contains(&ClassId(*id)));
        classes.any(|(_, class)| {
            let found = crate::ports::resolve(protocol, name, &class.facts.ports);
            found.count() > 0
        })
    }

    fn lint_priorities(&self, findings: &mut Vec<Finding>) {
        for (state, _) in self.compiled_rows() {
            let policies =
                state
                    .key
                    .policies
                    .iter()
                    .filter_map(|it| match &self.policies.get(it)?.policy {
                        AnyPolicy::Cluster(policy) => Some(policy),
                        AnyPolicy::Network(_) => None::<&Arc<ClusterPolicy>>,
                    });
            let policies: Vec<_> = policies.collect();
            for pair in policies.windows(2) {
                if pair[0].priority == pair[1].priority {
                    findings.push(Finding {
                        source: Some(pair[1].source.clone()),
                        object: pair[1].name.to_string(),
                        fault: Fault::EqualPriority(pair[0].name.clone()),
                    });
                }
            }
        }
    }

    fn lint_names(&self, findings: &mut Vec<Finding>) {
        findings.extend(self.namespaces_without_manifest().map(|name| Finding {
            source: None,
            object: name.to_string(),
            fault: Fault::NamespaceWithoutManifest,
        }));
        for (addr, contested) in self.state.contested.iter() {
            let pods = contested.endpoints.iter();
            let pods = pods.filter_map(|it| Some(self.pods.get(it.pod.0)?.pod.id.to_string()));
            let pods: Vec<String> = pods.collect();
            if pods.len() > 1 {
                findings.push(Finding {
                    source: None,
                    object: addr.to_string(),
                    fault: Fault::ClaimedTwice(pods),
                });
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        write!(f, "{}: {}", self.object, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |direction: &Direction| match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        match self {
            Self::SelectsNothing => f.write_str("selects no pod"),
            Self::Shadowed => f.write_str("changes no verdict: other policies cover all of it"),
            Self::AllowsEverything(d, n) => {
                write!(
                    f,
                    "{} rule {n} allows everything to and from everyone",
                    word(d)
                )
            }
            Self::Unreachable(d, n) => write!(
                f,
                "{} rule {n} never decides: nobody matches it, or earlier rules cover it",
                word(d)
            ),
            Self::NoSuchPort(d, n, name) => {
                write!(
                    f,
                    "{} rule {n}: no destination has a port \"{name}\"",
                    word(d)
                )
            }
            Self::EqualPriority(other) => {
                write!(
                    f,
                    "has the priority of {other} and selects the same pods: names decide"
                )
            }
            Self::NamespaceWithoutManifest => {
                f.write_str("has no manifest: selectors see no label but its name")
            }
            Self::ClaimedTwice(pods) => write!(
                f,
                "is claimed by {}: judged as each of them, and one denial denies",
                pods.join(" and ")
            ),
        }
    }
}
