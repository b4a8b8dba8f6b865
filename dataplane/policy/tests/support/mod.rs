//! A reference for the tables: slow, obvious, straight from the objects. And random clusters to compare with it.
#![allow(dead_code)]

pub mod dice;
pub mod plain;
pub mod reference;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use patronus_policy::model::*;
use patronus_policy::{Cause, Direction, PolicyTable, Stats};

/// The objects of a cluster, as a map of each kind.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub namespaces: BTreeMap<Text, Namespace>,
    pub nodes: BTreeMap<Text, Node>,
    pub pods: BTreeMap<ObjectName, Pod>,
    pub policies: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    pub cluster_policies: BTreeMap<Text, Arc<ClusterPolicy>>,
}

impl Cluster {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::SetNamespace(it) => drop(self.namespaces.insert(it.name.clone(), it)),
            Change::DeleteNamespace(name) => {
                self.namespaces.remove(&name);
                self.pods.retain(|id, _| id.namespace != name);
                self.policies.retain(|id, _| id.namespace != name);
            }
            Change::SetNode(it) => drop(self.nodes.insert(it.name.clone(), it)),
            Change::DeleteNode(name) => drop(self.nodes.remove(&name)),
            Change::SetPod(it) => drop(self.pods.insert(it.id.clone(), it)),
            Change::DeletePod(id) => drop(self.pods.remove(&id)),
            Change::SetPolicy(it) => drop(self.policies.insert(it.id.clone(), it)),
            Change::DeletePolicy(id) => drop(self.policies.remove(&id)),
            Change::SetClusterPolicy(it) => {
                drop(self.cluster_policies.insert(it.name.clone(), it));
            }
            Change::DeleteClusterPolicy(name) => drop(self.cluster_policies.remove(&name)),
        }
    }

    /// The changes that build it from nothing.
    pub fn changes(&self) -> Vec<Change> {
        let mut all: Vec<Change> = Vec::new();
        all.extend(self.namespaces.values().cloned().map(Change::SetNamespace));
        all.extend(self.nodes.values().cloned().map(Change::SetNode));
        all.extend(self.pods.values().cloned().map(Change::SetPod));
        all.extend(self.policies.values().cloned().map(Change::SetPolicy));
        let cluster = self.cluster_policies.values().cloned();
        all.extend(cluster.map(Change::SetClusterPolicy));
        all
    }
}

pub fn text(it: &str) -> Text {
    it.into()
}

pub fn ip(it: &str) -> IpAddr {
    it.parse().expect("an address")
}

pub fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName {
        namespace: text(namespace),
        name: text(name),
    }
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| (text(k), text(v))).collect()
}

pub fn selector(pairs: &[(&str, &str)]) -> Selector {
    let requirements = pairs.iter();
    let requirements = requirements.map(|(k, v)| Requirement::In(text(k), [text(v)].into()));
    Selector {
        requirements: requirements.collect(),
    }
}

pub fn source(line: u32) -> Source {
    Source {
        file: text("policies.yaml"),
        line,
    }
}

/// A verdict without the numbers that depend on a compiler's history.
pub type Told = (
    bool,
    Direction,
    Cause,
    Option<String>,
    Option<(Cause, Option<String>)>,
);

pub fn told(table: &PolicyTable, conn: &Connection) -> Told {
    let verdict = table.judge(conn);
    let rule = |id| {
        let entry = table.rule(id).expect("a verdict names a rule that exists");
        format!(
            "{} {:?} {:?}",
            entry.policy.name(),
            entry.direction,
            entry.rule
        )
    };
    let audit = verdict.audit.map(|it| (it.cause, it.rule.map(rule)));
    (
        verdict.allow,
        verdict.direction,
        verdict.cause,
        verdict.rule.map(rule),
        audit,
    )
}

/// What a table holds, without the bytes, which depend on a compiler's history.
pub fn sizes(table: &PolicyTable) -> Stats {
    Stats {
        bytes: 0,
        ..table.stats()
    }
}
