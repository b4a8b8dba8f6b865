//! Which objects were added, removed or changed. Where an object stands in which file is no change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::manifest::{Kind, ObjectRef};
use crate::model::{ClusterPolicy, NetworkPolicy, Source};

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectChange {
    /// Only the new cluster has it.
    Added(ObjectRef),
    /// Only the old one had it.
    Removed(ObjectRef),
    /// Both have it, and they differ.
    Changed(ObjectRef),
}

impl fmt::Display for ObjectChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(object) => write!(f, "+ {object}"),
            Self::Removed(object) => write!(f, "- {object}"),
            Self::Changed(object) => write!(f, "~ {object}"),
        }
    }
}

/// All changed objects, by kind and name.
pub fn changed_objects(old: &Cluster, new: &Cluster) -> Vec<ObjectChange> {
    let mut changes = Vec::new();
    let wide = |kind| move |name: &_| ObjectRef::cluster_wide(kind, name);
    let within = |kind| move |id: &_| ObjectRef::namespaced(kind, id);
    compare(
        &old.namespaces,
        &new.namespaces,
        wide(Kind::Namespace),
        |a, b| a == b,
        &mut changes,
    );
    compare(
        &old.nodes,
        &new.nodes,
        wide(Kind::Node),
        |a, b| a == b,
        &mut changes,
    );
    compare(
        &old.pods,
        &new.pods,
        within(Kind::Pod),
        |a, b| a == b,
        &mut changes,
    );
    compare(
        &old.policies,
        &new.policies,
        within(Kind::NetworkPolicy),
        |a, b| Arc::ptr_eq(a, b) || placeless(a) == placeless(b),
        &mut changes,
    );
    compare(
        &old.cluster_policies,
        &new.cluster_policies,
        wide(Kind::ClusterNetworkPolicy),
        |a, b| Arc::ptr_eq(a, b) || placeless_cluster(a) == placeless_cluster(b),
        &mut changes,
    );
    changes
}

fn compare<K: Ord, V>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    reference: impl Fn(&K) -> ObjectRef,
    same: impl Fn(&V, &V) -> bool,
    changes: &mut Vec<ObjectChange>,
) {
    for (key, before) in old {
        match new.get(key) {
            None => changes.push(ObjectChange::Removed(reference(key))),
            Some(after) if !same(before, after) => {
                changes.push(ObjectChange::Changed(reference(key)));
            }
            Some(_) => {}
        }
    }
    let added = new.keys().filter(|key| !old.contains_key(key));
    changes.extend(added.map(|key| ObjectChange::Added(reference(key))));
}

fn nowhere() -> Source {
    Source {
        file: "".into(),
        line: 0,
    }
}

fn placeless(policy: &NetworkPolicy) -> NetworkPolicy {
    let mut policy = policy.clone();
    policy.source = nowhere();
    for rule in policy
        .ingress
        .iter_mut()
        .chain(&mut policy.egress)
        .flatten()
    {
        rule.source = nowhere();
    }
    policy
}

fn placeless_cluster(policy: &ClusterPolicy) -> ClusterPolicy {
    let mut policy = policy.clone();
    policy.source = nowhere();
    for rule in policy.ingress.iter_mut().chain(&mut policy.egress) {
        rule.source = nowhere();
    }
    policy
}
