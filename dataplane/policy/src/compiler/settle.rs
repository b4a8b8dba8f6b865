//! Brings everything up to date after a burst, each thing once, in the order in which one depends on another:
//! labels that matter, scopes, classes, selectors, rows, tables.

use std::net::IpAddr;
use std::sync::Arc;

use super::selectors::CHANGED_CLASSES_MAX;
use super::{Claim, ClassRows, Compiler};
use crate::addresses::Endpoint;
use crate::ids::{ClassId, Map, NodeId, PodId, RowId};
use crate::model::Text;
use crate::row::Row;
use crate::table::{ClassEntry, Contested, Rows};
use crate::{row_build, row_patch};

/// Claims of one address that are judged one by one; an address with more is denied altogether.
const CLAIMS_MAX: usize = 8;

impl Compiler {
    pub(super) fn settle(&mut self) {
        self.drop_unused_peers();
        self.mark_mentioned_pods();
        self.settle_scopes();
        for pod in std::mem::take(&mut self.dirty.pods) {
            if self.pods.get(pod.0).is_some_and(|it| it.dirty) {
                self.classify(pod);
            }
        }
        self.drop_dead_classes();
        for peer in std::mem::take(&mut self.dirty.peers) {
            self.populate_peer(peer);
        }
        for class in std::mem::take(&mut self.dirty.unattached) {
            if self.classes.get(class.0).is_some_and(|it| !it.attached) {
                self.attach(class);
            }
        }
        self.mark_classes_of_policies();
        let classes = std::mem::take(&mut self.dirty.classes);
        self.assign_rows(classes);
        self.drop_unused_rows();
        self.mark_rows_of_peers();
        self.compile_rows();
        self.publish_classes();
        self.publish_addresses();
        self.drop_empty_namespaces();
        self.publish();
    }

    /// Pods with a label or a port name that began or ceased to matter.
    fn mark_mentioned_pods(&mut self) {
        let mentions = std::mem::take(&mut self.dirty.mentions);
        let port_names = std::mem::take(&mut self.dirty.port_names);
        // As in a first compilation.
        if self.dirty.pods.len() >= self.pods.len() {
            return;
        }
        let mut found: Vec<PodId> = Vec::new();
        for (namespace, mentions) in mentions {
            let mut by_key: Map<Text, Vec<Option<Text>>> = Map::default();
            for (key, value) in mentions {
                by_key.entry(key).or_default().push(value);
            }
            match namespace {
                Some(name) => self.find_in_namespace(&name, &by_key, &mut found),
                None => self.find_in_cluster(&by_key, &mut found),
            }
        }
        for name in port_names {
            found.extend(self.pods_by_port_name.get(&name).into_iter().flatten());
        }
        for id in found {
            if let Some(pod) = self.pods.get_mut(id.0)
                && !pod.dirty
            {
                pod.dirty = true;
                self.dirty.pods.push(id);
            }
        }
    }

    fn find_in_namespace(
        &self,
        name: &Text,
        by_key: &Map<Text, Vec<Option<Text>>>,
        found: &mut Vec<PodId>,
    ) {
        let Some(namespace) = self.namespaces.get(name) else {
            return;
        };
        for id in &namespace.pods {
            let Some(state) = self.pods.get(id.0).filter(|it| !it.dirty) else {
                continue;
            };
            let labels = &state.pod.labels;
            let concerned = by_key.iter().any(|(key, values)| {
                let label = labels.get(key);
                label.is_some_and(|label| {
                    values
                        .iter()
                        .any(|it| it.as_ref().is_none_or(|it| it == label))
                })
            });
            if concerned {
                found.push(*id);
            }
        }
    }

    fn find_in_cluster(&self, by_key: &Map<Text, Vec<Option<Text>>>, found: &mut Vec<PodId>) {
        for (key, values) in by_key {
            let Some(of_key) = self.pods_by_label.get(key) else {
                continue;
            };
            if values.contains(&None) {
                found.extend(of_key.values().flatten());
                continue;
            }
            let values = values.iter().flatten().filter_map(|it| of_key.get(it));
            found.extend(values.flatten());
        }
    }

    /// Which namespace selectors select which namespaces.
    fn settle_scopes(&mut self) {
        for selector in std::mem::take(&mut self.dirty.scopes) {
            let Some(scope) = self.scopes.get_mut(&selector) else {
                continue;
            };
            for (name, namespace) in &mut self.namespaces {
                // A namespace whose labels changed tries all selectors below.
                if self.dirty.labels.contains(name) || !selector.matches(&namespace.labels) {
                    continue;
                }
                if scope.namespaces.insert(name.clone()) {
                    namespace.scopes.push(selector.clone());
                }
            }
        }
        for name in std::mem::take(&mut self.dirty.labels) {
            let Some(namespace) = self.namespaces.get_mut(&name) else {
                continue;
            };
            namespace.scopes.clear();
            for (selector, scope) in &mut self.scopes {
                if selector.matches(&namespace.labels) {
                    scope.namespaces.insert(name.clone());
                    namespace.scopes.push(selector.clone());
                } else {
                    scope.namespaces.remove(&name);
                }
            }
            let classes: Vec<ClassId> = namespace.classes.iter().copied().collect();
            for class in classes {
                self.detach(class);
                self.dirty.unattached.push(class);
                self.dirty.classes.insert(class);
            }
        }
    }

    fn mark_classes_of_policies(&mut self) {
        for name in std::mem::take(&mut self.dirty.policies) {
            let namespace = self.namespaces.get(&name);
            let classes = namespace.iter().flat_map(|it| &it.classes);
            self.dirty.classes.extend(classes);
        }
        if std::mem::take(&mut self.dirty.cluster_policies) {
            let all = self.classes.iter().map(|(id, _)| ClassId(id));
            self.dirty.classes.extend(all);
        }
    }

    fn mark_rows_of_peers(&mut self) {
        for peer in std::mem::take(&mut self.dirty.changed_peers) {
            let Some(state) = self.peers.get_mut(peer.0) else {
                continue;
            };
            let classes = std::mem::take(&mut state.changed);
            if classes.len() > CHANGED_CLASSES_MAX {
                self.dirty.rows.extend(&state.rows);
                continue;
            }
            for row in &state.rows {
                self.dirty.columns.entry(*row).or_default().extend(&classes);
            }
        }
    }

    fn compile_rows(&mut self) {
        let mut columns = std::mem::take(&mut self.dirty.columns);
        for id in std::mem::take(&mut self.dirty.rows) {
            columns.remove(&id);
            self.replace_row(id, None);
        }
        for (id, mut classes) in columns {
            classes.sort_unstable();
            classes.dedup();
            let few = classes.len() <= CHANGED_CLASSES_MAX;
            self.replace_row(id, few.then_some(&classes));
        }
    }

    /// Compiles a row; where only those classes changed, from the one that it had.
    fn replace_row(&mut self, id: RowId, changed: Option<&[ClassId]>) {
        let Some(state) = self.rows.get(id.0) else {
            return;
        };
        let key = &state.key;
        let policies = key.policies.iter().filter_map(|it| self.policies.get(it));
        let policies: Vec<_> = policies.map(|it| &**it).collect();
        debug_assert_eq!(
            policies.len(),
            key.policies.len(),
            "a row outlived a policy"
        );
        let compile = || row_build::build(key.layer, key.direction, &policies, &key.ports, self);
        let replaced = match (state.row.as_deref(), changed) {
            (None, _) => Some(compile()),
            (Some(old), None) => Some(compile()).filter(|it| !old.judges_like(it)),
            (Some(old), Some(classes)) => {
                let columns =
                    row_build::columns(key.direction, &policies, &key.ports, classes, self);
                let patched = row_patch::patched(old, classes, &columns);
                debug_assert!(
                    patched.as_ref().unwrap_or(old).judges_like(&compile()),
                    "a patched row differs from a compiled one"
                );
                patched
            }
        };
        if let Some(row) = replaced
            && let Some(state) = self.rows.get_mut(id.0)
        {
            state.row = Some(Arc::new(row));
            self.dirty.stale_classes.extend(state.users.keys());
        }
    }

    fn publish_classes(&mut self) {
        for id in std::mem::take(&mut self.dirty.stale_classes) {
            let Some(class) = self.classes.get(id.0) else {
                continue;
            };
            let entry = ClassEntry {
                rows: self.rows_of(&class.rows),
                audit: class.audit.as_ref().map(|it| Box::new(self.rows_of(it))),
                facts: Arc::clone(&class.facts),
                namespace_labels: self
                    .namespaces
                    .get(&class.facts.namespace)
                    .map_or_else(Arc::default, |it| Arc::clone(&it.labels)),
            };
            // A class that is new has no flows, unless it took over the number of one that had.
            let known = self.published.classes.get(id.at()).and_then(Option::as_ref);
            self.dirty.observable =
                self.dirty.observable || known.is_some_and(|it| !entry.judges_like(it));
            self.state.classes.set(id.at(), Some(Arc::new(entry)));
        }
    }

    fn rows_of(&self, rows: &ClassRows) -> Rows {
        let row = |id: RowId| self.rows.get(id.0)?.row.clone();
        rows.map(|layers| layers.map(|it| it.and_then(row)))
    }

    fn publish_addresses(&mut self) {
        for addr in std::mem::take(&mut self.dirty.addresses) {
            let (endpoint, contested) = self.resolve(addr);
            if self.state.contested.get(&addr) != contested.as_ref() {
                let map = Arc::make_mut(&mut self.state.contested);
                match contested {
                    Some(it) => map.insert(addr, it),
                    None => map.remove(&addr),
                };
                self.dirty.observable = true;
            }
            self.dirty.observable |= self.state.addresses.set(addr, endpoint);
        }
    }

    /// Who answers on an address; several claims are kept apart.
    fn resolve(&self, addr: IpAddr) -> (Endpoint, Option<Contested>) {
        let claims = self.claims.get(&addr).map_or(&[][..], |it| it);
        let mut pods: Vec<(PodId, Endpoint)> = Vec::new();
        let mut plain = Endpoint::OUTSIDE;
        let mut hosts: Vec<NodeId> = Vec::new();
        let name = |id: PodId| self.pods.get(id.0).map(|it| &it.pod.id);
        for claim in claims {
            match claim {
                Claim::Node(node) => hosts.push(*node),
                Claim::Pod(id) => {
                    let Some(state) = self.pods.get(id.0) else {
                        continue;
                    };
                    let node = state.pod.node.as_ref().and_then(|it| self.node_ids.get(it));
                    let home = node.copied().unwrap_or(NodeId::NONE);
                    let Some(class) = state.class else {
                        // What uses its node's network has the node's address.
                        hosts.extend(node);
                        if plain.pod == PodId::NONE || name(*id) < name(plain.pod) {
                            plain.pod = *id;
                        }
                        continue;
                    };
                    pods.push((
                        *id,
                        Endpoint {
                            class,
                            pod: *id,
                            home,
                            ..Endpoint::OUTSIDE
                        },
                    ));
                }
            }
        }
        hosts.sort_unstable();
        hosts.dedup();
        pods.sort_by_key(|it| name(it.0));
        let mut endpoints: Vec<Endpoint> = pods.into_iter().map(|it| it.1).collect();
        if endpoints.is_empty() {
            endpoints.push(plain);
        }
        let host_of = if hosts.len() == 1 {
            hosts[0]
        } else {
            NodeId::NONE
        };
        for endpoint in &mut endpoints {
            endpoint.host_of = host_of;
        }
        if endpoints.len() == 1 && hosts.len() <= 1 {
            return (endpoints[0], None);
        }
        let overflow = endpoints.len() > CLAIMS_MAX;
        endpoints.truncate(CLAIMS_MAX);
        let marker = Endpoint {
            class: Endpoint::CONTESTED,
            ..Endpoint::OUTSIDE
        };
        let contested = Contested {
            endpoints,
            hosts,
            overflow,
        };
        (marker, Some(contested))
    }

    fn drop_empty_namespaces(&mut self) {
        for name in std::mem::take(&mut self.dirty.emptied) {
            let Some(namespace) = self.namespaces.get(&name) else {
                continue;
            };
            let empty = namespace.manifest.is_none()
                && namespace.pods.is_empty()
                && namespace.policies.is_empty()
                && namespace.peers.is_empty();
            if !empty {
                continue;
            }
            debug_assert!(namespace.classes.is_empty(), "a class outlived its pods");
            for scope in &namespace.scopes {
                if let Some(scope) = self.scopes.get_mut(scope) {
                    scope.namespaces.remove(&name);
                }
            }
            self.namespaces.remove(&name);
        }
    }

    fn publish(&mut self) {
        self.state.audits = self.audits > 0;
        self.state.generation += u64::from(std::mem::take(&mut self.dirty.observable));
        self.published = Arc::new(self.state.clone());
    }
}

impl ClassEntry {
    fn judges_like(&self, other: &Self) -> bool {
        let same_audit = match (&self.audit, &other.audit) {
            (Some(a), Some(b)) => same_rows(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_audit && same_rows(&self.rows, &other.rows) && self.facts.ports == other.facts.ports
    }
}

fn same_rows(a: &Rows, b: &Rows) -> bool {
    let same = |a: &Option<Arc<Row>>, b: &Option<Arc<Row>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.judges_like(b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    a.iter()
        .flatten()
        .zip(b.iter().flatten())
        .all(|(a, b)| same(a, b))
}
