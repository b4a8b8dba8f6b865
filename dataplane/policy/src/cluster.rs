//! The state of a cluster as plain sets of objects by name: what an engine is built afresh from, and what slow,
//! obvious code works on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    Change, ClusterPolicy, Labels, NAMESPACE_NAME_LABEL, Namespace, NetworkPolicy, Node,
    ObjectName, Pod, Text,
};

/// All objects, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The namespaces.
    pub namespaces: BTreeMap<Text, Namespace>,
    /// The nodes.
    pub nodes: BTreeMap<Text, Node>,
    /// The pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// The NetworkPolicies.
    pub policies: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    /// The ClusterNetworkPolicies.
    pub cluster_policies: BTreeMap<Text, Arc<ClusterPolicy>>,
}

impl Cluster {
    /// Takes a change; deleting what is not there changes nothing.
    pub fn apply(&mut self, change: &Change) {
        match change.clone() {
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

    /// The changes that make this cluster of an empty one.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        let namespaces = self.namespaces.values().cloned().map(Change::SetNamespace);
        let nodes = self.nodes.values().cloned().map(Change::SetNode);
        let pods = self.pods.values().cloned().map(Change::SetPod);
        let policies = self.policies.values().cloned().map(Change::SetPolicy);
        let cluster_policies = self
            .cluster_policies
            .values()
            .cloned()
            .map(Change::SetClusterPolicy);
        namespaces
            .chain(nodes)
            .chain(pods)
            .chain(policies)
            .chain(cluster_policies)
    }

    /// The labels of a namespace, its name's own included; a namespace without a manifest has that one alone.
    pub fn namespace_labels(&self, name: &Text) -> Labels {
        let mut labels = self
            .namespaces
            .get(name)
            .map(|namespace| namespace.labels.clone())
            .unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
        labels
    }
}
