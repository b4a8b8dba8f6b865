//! Namespaces, nodes, pods and their claims on addresses, as changes bring them.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Claim, Compiler, NamespaceState, PodState, PolicyName};
use crate::ids::{NodeId, PodId};
use crate::model::{Labels, NAMESPACE_NAME_LABEL, Namespace, Node, ObjectName, Pod, Text};
use crate::row::AnyPolicy;

impl Compiler {
    /// The namespace, made if nobody spoke of it before.
    pub(super) fn namespace(&mut self, name: &Text) -> &mut NamespaceState {
        if !self.namespaces.contains_key(name) {
            let state = NamespaceState {
                labels: with_name(name, &Labels::new()),
                ..NamespaceState::default()
            };
            self.namespaces.insert(name.clone(), state);
            self.dirty.labels.insert(name.clone());
        }
        self.namespaces.entry(name.clone()).or_default()
    }

    pub(super) fn set_namespace(&mut self, manifest: Namespace) {
        let name = manifest.name.clone();
        let labels = with_name(&name, &manifest.labels);
        let namespace = self.namespace(&name);
        namespace.manifest = Some(manifest);
        if namespace.labels != labels {
            namespace.labels = labels;
            self.dirty.labels.insert(name);
        }
    }

    pub(super) fn delete_namespace(&mut self, name: &Text) {
        let Some(namespace) = self.namespaces.get_mut(name) else {
            return;
        };
        namespace.manifest = None;
        namespace.labels = with_name(name, &Labels::new());
        self.dirty.labels.insert(name.clone());
        self.dirty.emptied.insert(name.clone());
        let pods: Vec<PodId> = namespace.pods.iter().copied().collect();
        let policies: Vec<_> = namespace.policies.iter().copied().collect();
        for pod in pods {
            if let Some(state) = self.pods.get(pod.0) {
                let id = state.pod.id.clone();
                self.delete_pod(&id);
            }
        }
        for edition in policies {
            if let Some(AnyPolicy::Network(policy)) =
                self.policies.get(&edition).map(|it| &it.policy)
            {
                let id = policy.id.clone();
                self.delete_policy(PolicyName::Network(id));
            }
        }
    }

    pub(super) fn set_node(&mut self, node: Node) {
        let id = self.node_id(&node.name);
        let old = self.nodes.get(id.0).map(|it| it.ips.clone());
        self.unclaim(&old.unwrap_or_default(), Claim::Node(id));
        self.claim(&node.ips, Claim::Node(id));
        if let Some(slot) = self.nodes.get_mut(id.0) {
            *slot = node;
        }
    }

    pub(super) fn delete_node(&mut self, name: &Text) {
        let Some(&id) = self.node_ids.get(name) else {
            return;
        };
        // The number stays: pods may still name the node as their home.
        if let Some(node) = self.nodes.get_mut(id.0) {
            let ips = std::mem::take(&mut node.ips);
            self.unclaim(&ips, Claim::Node(id));
        }
    }

    /// A node's number: names are few, so none is ever given back.
    pub(super) fn node_id(&mut self, name: &Text) -> NodeId {
        if let Some(id) = self.node_ids.get(name) {
            return *id;
        }
        let id = NodeId(self.nodes.insert(Node {
            name: name.clone(),
            ips: Vec::new(),
        }));
        self.node_ids.insert(name.clone(), id);
        self.state.nodes.set(id.at(), Some(name.clone()));
        id
    }

    pub(super) fn set_pod(&mut self, pod: Pod) {
        let pod = Arc::new(pod);
        if let Some(node) = &pod.node {
            let node = node.clone();
            self.node_id(&node);
        }
        let known = self.pod_ids.get(&pod.id).copied();
        let Some(id) = known else {
            let id = PodId(self.pods.insert(PodState {
                pod: Arc::clone(&pod),
                class: None,
                dirty: true,
            }));
            self.pod_ids.insert(pod.id.clone(), id);
            let namespace = pod.id.namespace.clone();
            self.namespace(&namespace).pods.insert(id);
            self.index_pod(id, &pod, true);
            self.claim(&pod.ips, Claim::Pod(id));
            self.dirty.pods.push(id);
            self.state.pods.set(id.at(), Some(pod));
            return;
        };
        let Some(state) = self.pods.get_mut(id.0) else {
            return;
        };
        let old = std::mem::replace(&mut state.pod, Arc::clone(&pod));
        if !state.dirty {
            state.dirty = true;
            self.dirty.pods.push(id);
        }
        if old.labels != pod.labels || old.ports != pod.ports {
            self.index_pod(id, &old, false);
            self.index_pod(id, &pod, true);
        }
        self.unclaim(&old.ips, Claim::Pod(id));
        self.claim(&pod.ips, Claim::Pod(id));
        self.state.pods.set(id.at(), Some(pod));
    }

    pub(super) fn delete_pod(&mut self, name: &ObjectName) {
        let Some(id) = self.pod_ids.remove(name) else {
            return;
        };
        let Some(state) = self.pods.remove(id.0) else {
            return;
        };
        self.index_pod(id, &state.pod, false);
        self.unclaim(&state.pod.ips, Claim::Pod(id));
        if let Some(namespace) = self.namespaces.get_mut(&name.namespace) {
            namespace.pods.remove(&id);
            self.dirty.emptied.insert(name.namespace.clone());
        }
        if let Some(class) = state.class {
            self.leave_class(class);
        }
        self.state.pods.set(id.at(), None);
    }

    fn index_pod(&mut self, id: PodId, pod: &Pod, add: bool) {
        for (key, value) in &pod.labels {
            if add {
                let of_key = self.pods_by_label.entry(key.clone()).or_default();
                of_key.entry(value.clone()).or_default().insert(id);
                continue;
            }
            let Some(of_key) = self.pods_by_label.get_mut(key) else {
                continue;
            };
            if let Some(set) = of_key.get_mut(value) {
                set.remove(&id);
                if set.is_empty() {
                    of_key.remove(value);
                }
            }
            if of_key.is_empty() {
                self.pods_by_label.remove(key);
            }
        }
        for name in pod.ports.iter().filter_map(|it| it.name.as_ref()) {
            if add {
                let set = self.pods_by_port_name.entry(name.clone()).or_default();
                set.insert(id);
            } else if let Some(set) = self.pods_by_port_name.get_mut(name) {
                set.remove(&id);
                if set.is_empty() {
                    self.pods_by_port_name.remove(name);
                }
            }
        }
    }

    fn claim(&mut self, ips: &[IpAddr], claim: Claim) {
        for ip in ips {
            let list = self.claims.entry(*ip).or_default();
            if !list.contains(&claim) {
                list.push(claim);
            }
            self.dirty.addresses.insert(*ip);
        }
    }

    fn unclaim(&mut self, ips: &[IpAddr], claim: Claim) {
        for ip in ips {
            if let Some(list) = self.claims.get_mut(ip) {
                list.retain(|it| *it != claim);
                if list.is_empty() {
                    self.claims.remove(ip);
                }
            }
            self.dirty.addresses.insert(*ip);
        }
    }
}

fn with_name(name: &Text, labels: &Labels) -> Arc<Labels> {
    let mut labels = labels.clone();
    labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
    Arc::new(labels)
}
