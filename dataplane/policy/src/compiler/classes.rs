//! Pods to classes, classes to the selectors that select them, classes to rows.

use std::sync::Arc;

use super::{ClassRows, ClassState, Compiler, PeerKey, RowKey, RowState, selectors};
use crate::ids::{ClassId, Edition, Map, PeerId, PodId, RowId, Set};
use crate::model::{Mode, Pod, Text};
use crate::ports::{NamedPort, PROTOCOLS};
use crate::row::{AnyPolicy, Layer};
use crate::row_build::{CompiledPolicy, Peers, Target, rule_ports};
use crate::table::ClassFacts;
use crate::verdict::{DIRECTIONS, Direction};

const LAYERS: [Layer; 3] = [Layer::Admin, Layer::Network, Layer::Baseline];

impl Compiler {
    /// Puts a pod into the class that its facts say.
    pub(super) fn classify(&mut self, id: PodId) {
        let Some(state) = self.pods.get_mut(id.0) else {
            return;
        };
        state.dirty = false;
        let (pod, old) = (Arc::clone(&state.pod), state.class);
        let class = (!pod.host_network).then(|| self.class_of(&pod));
        if class != old
            && let Some(state) = self.pods.get_mut(id.0)
        {
            state.class = class;
            self.dirty.addresses.extend(&pod.ips);
        }
        if let Some(class) = class.and_then(|it| self.classes.get_mut(it.0)) {
            class.pods += 1;
        }
        if let Some(old) = old {
            self.leave_class(old);
        }
    }

    fn class_of(&mut self, pod: &Pod) -> ClassId {
        let Some(namespace) = self.namespaces.get(&pod.id.namespace) else {
            debug_assert!(false, "a pod without a namespace");
            return ClassId::NONE;
        };
        let dictionaries = [&self.dictionary, &namespace.dictionary];
        let named = pod.ports.iter().filter_map(|port| {
            let name = port.name.as_ref()?;
            self.port_names.contains_key(name).then(|| NamedPort {
                name: name.clone(),
                protocol: port.protocol,
                number: port.number,
            })
        });
        let mut ports: Vec<NamedPort> = named.collect();
        ports.sort_unstable();
        ports.dedup();
        let facts = ClassFacts {
            namespace: pod.id.namespace.clone(),
            labels: selectors::project(&pod.labels, dictionaries, &self.unnamed),
            ports,
        };
        if let Some(id) = self.class_ids.get(&facts) {
            return *id;
        }
        let facts = Arc::new(facts);
        let id = ClassId(self.classes.insert(ClassState {
            facts: Arc::clone(&facts),
            pods: 0,
            peers: Vec::new(),
            rows: ClassRows::default(),
            audit: None,
            attached: false,
        }));
        if let Some(namespace) = self.namespaces.get_mut(&facts.namespace) {
            namespace.classes.insert(id);
        }
        self.class_ids.insert(facts, id);
        self.dirty.unattached.push(id);
        self.dirty.classes.insert(id);
        id
    }

    pub(super) fn leave_class(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(id.0) {
            class.pods -= 1;
            if class.pods == 0 {
                self.dirty.dead_classes.push(id);
            }
        }
    }

    /// Removes classes without pods.
    pub(super) fn drop_dead_classes(&mut self) {
        for id in std::mem::take(&mut self.dirty.dead_classes) {
            if self.classes.get(id.0).is_none_or(|it| it.pods > 0) {
                continue;
            }
            self.detach(id);
            let Some(class) = self.classes.remove(id.0) else {
                continue;
            };
            for rows in [Some(&class.rows), class.audit.as_deref()]
                .into_iter()
                .flatten()
            {
                self.release_rows(id, rows);
            }
            self.class_ids.remove(&class.facts);
            if let Some(namespace) = self.namespaces.get_mut(&class.facts.namespace) {
                namespace.classes.remove(&id);
                self.dirty.emptied.insert(class.facts.namespace.clone());
            }
            self.dirty.classes.remove(&id);
            self.dirty.stale_classes.remove(&id);
            self.state.classes.set(id.at(), None);
        }
    }

    /// Takes a class out of all selectors.
    pub(super) fn detach(&mut self, id: ClassId) {
        let Some(class) = self.classes.get_mut(id.0) else {
            return;
        };
        class.attached = false;
        for peer in std::mem::take(&mut class.peers) {
            if self.peers.get_mut(peer.0).is_some_and(|it| it.take(id)) {
                self.peer_changed(peer, id);
            }
        }
    }

    /// Tries all selectors on a class.
    pub(super) fn attach(&mut self, id: ClassId) {
        let Some(class) = self.classes.get_mut(id.0) else {
            return;
        };
        class.attached = true;
        let facts = Arc::clone(&class.facts);
        let Some(namespace) = self.namespaces.get(&facts.namespace) else {
            return;
        };
        let mut found: Vec<PeerId> = namespace.peers.candidates(&facts.labels).collect();
        for scope in namespace.scopes.iter().filter_map(|it| self.scopes.get(it)) {
            found.extend(scope.peers.candidates(&facts.labels));
        }
        for port in &facts.ports {
            let key = PeerKey::PortName(port.name.clone());
            found.extend(self.peer_ids.get(&key));
        }
        for peer in found {
            self.join_peer(id, &facts, peer);
        }
    }

    fn join_peer(&mut self, id: ClassId, facts: &ClassFacts, peer: PeerId) {
        let Some(state) = self.peers.get_mut(peer.0) else {
            return;
        };
        let pods = state.key.pods();
        if pods.is_none_or(|it| it.matches(&facts.labels)) && state.add(id) {
            if let Some(class) = self.classes.get_mut(id.0) {
                class.peers.push(peer);
            }
            self.peer_changed(peer, id);
        }
    }

    /// Tries a new selector on all classes that were there before it.
    pub(super) fn populate_peer(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(peer.0) else {
            return;
        };
        let key = Arc::clone(&state.key);
        let mut classes: Vec<ClassId> = Vec::new();
        let mut of_namespace = |name: &Text| {
            let state = self.namespaces.get(name);
            classes.extend(state.iter().flat_map(|it| &it.classes));
        };
        match &*key {
            PeerKey::Within(name, _) => of_namespace(name),
            PeerKey::Across(namespaces, _) => {
                let scope = self.scopes.get(namespaces);
                scope
                    .iter()
                    .flat_map(|it| &it.namespaces)
                    .for_each(of_namespace);
            }
            PeerKey::PortName(name) => {
                let has = |facts: &ClassFacts| facts.ports.iter().any(|it| it.name == *name);
                let all = self.classes.iter().filter(|(_, it)| has(&it.facts));
                classes.extend(all.map(|(id, _)| ClassId(id)));
            }
        }
        for id in classes {
            if let Some(class) = self.classes.get(id.0).filter(|it| it.attached) {
                let facts = Arc::clone(&class.facts);
                self.join_peer(id, &facts, peer);
            }
        }
    }

    fn peer_changed(&mut self, peer: PeerId, class: ClassId) {
        let Some(state) = self.peers.get_mut(peer.0) else {
            return;
        };
        if state.changed.is_empty() {
            self.dirty.changed_peers.push(peer);
        }
        if state.changed.len() <= selectors::CHANGED_CLASSES_MAX {
            state.changed.push(class);
        }
    }

    /// Finds the rows of classes whose policies may have changed.
    pub(super) fn assign_rows(&mut self, dirty: Set<ClassId>) {
        let mut by_namespace: Map<Text, Vec<ClassId>> = Map::default();
        for id in dirty {
            if let Some(class) = self.classes.get(id.0) {
                let list = by_namespace.entry(class.facts.namespace.clone());
                list.or_default().push(id);
            }
        }
        for (name, classes) in by_namespace {
            let cluster = self.cluster_policies_of(&name);
            for id in classes {
                self.assign_rows_of(id, &cluster);
            }
        }
    }

    /// The cluster policies for pods of a namespace, in their order.
    fn cluster_policies_of(&self, name: &Text) -> Vec<(Edition, Arc<CompiledPolicy>)> {
        let Some(namespace) = self.namespaces.get(name) else {
            return Vec::new();
        };
        let all = self.cluster_policies.iter().filter_map(|edition| {
            let compiled = self.policies.get(edition)?;
            let AnyPolicy::Cluster(policy) = &compiled.policy else {
                return None;
            };
            let selected = policy.subject.namespaces.matches(&namespace.labels);
            selected.then(|| (*edition, Arc::clone(compiled)))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| cluster_order(&a.1.policy).cmp(&cluster_order(&b.1.policy)));
        all
    }

    fn assign_rows_of(&mut self, id: ClassId, cluster: &[(Edition, Arc<CompiledPolicy>)]) {
        let Some(class) = self.classes.get(id.0) else {
            return;
        };
        let facts = Arc::clone(&class.facts);
        let mut selecting = self.network_policies_of(&facts);
        let of_cluster = cluster
            .iter()
            .filter(|(_, compiled)| match &compiled.policy {
                AnyPolicy::Cluster(policy) => policy.subject.pods.matches(&facts.labels),
                AnyPolicy::Network(_) => false,
            });
        selecting.extend(of_cluster.cloned());
        let audited = selecting.iter().any(|it| it.1.policy.mode() == Mode::Audit);
        let rows = self.acquire_rows(id, &facts, &selecting, false);
        let audit = audited.then(|| Box::new(self.acquire_rows(id, &facts, &selecting, true)));
        let Some(class) = self.classes.get_mut(id.0) else {
            return;
        };
        let old_rows = std::mem::replace(&mut class.rows, rows);
        let old_audit = std::mem::replace(&mut class.audit, audit);
        self.release_rows(id, &old_rows);
        if let Some(old) = old_audit {
            self.release_rows(id, &old);
        }
        self.dirty.stale_classes.insert(id);
    }

    /// The NetworkPolicies that select a class, by name.
    fn network_policies_of(&self, facts: &ClassFacts) -> Vec<(Edition, Arc<CompiledPolicy>)> {
        let Some(namespace) = self.namespaces.get(&facts.namespace) else {
            return Vec::new();
        };
        let candidates = namespace.by_selector.candidates(&facts.labels);
        let mut found: Vec<(Text, Edition, Arc<CompiledPolicy>)> = candidates
            .filter_map(|edition| {
                let compiled = self.policies.get(&edition)?;
                let AnyPolicy::Network(policy) = &compiled.policy else {
                    return None;
                };
                let selected = policy.pods.matches(&facts.labels);
                selected.then(|| (policy.id.name.clone(), edition, Arc::clone(compiled)))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
            .into_iter()
            .map(|(_, edition, it)| (edition, it))
            .collect()
    }

    fn acquire_rows(
        &mut self,
        id: ClassId,
        facts: &ClassFacts,
        selecting: &[(Edition, Arc<CompiledPolicy>)],
        audited: bool,
    ) -> ClassRows {
        DIRECTIONS.map(|direction| {
            LAYERS.map(|layer| {
                let of_row = selecting.iter().filter(|(_, compiled)| {
                    compiled.policy.layer() == layer
                        && compiled.sides[direction as usize].is_some()
                        && (audited || compiled.policy.mode() == Mode::Enforce)
                });
                let of_row: Vec<_> = of_row.collect();
                if of_row.is_empty() {
                    return None;
                }
                let names = direction == Direction::Ingress
                    && of_row.iter().any(|it| names_ports(&it.1, direction));
                let key = RowKey {
                    layer,
                    direction,
                    policies: of_row.iter().map(|it| it.0).collect(),
                    ports: if names {
                        facts.ports.clone()
                    } else {
                        Vec::new()
                    },
                };
                Some(self.acquire_row(id, key))
            })
        })
    }

    fn acquire_row(&mut self, class: ClassId, key: RowKey) -> RowId {
        let known = self.row_ids.get(&key).copied();
        let id = known.unwrap_or_else(|| self.add_row(key));
        if let Some(row) = self.rows.get_mut(id.0) {
            *row.users.entry(class).or_default() += 1;
        }
        id
    }

    fn add_row(&mut self, key: RowKey) -> RowId {
        let compiled = key.policies.iter().filter_map(|it| self.policies.get(it));
        let sides = compiled.filter_map(|it| it.sides[key.direction as usize].as_ref());
        let targets = sides.flat_map(|it| it.rules.iter().flat_map(|rule| &rule.targets));
        let peers: Set<PeerId> = targets
            .filter_map(|it| match it {
                Target::Peer(peer) | Target::Named(peer) => Some(*peer),
                Target::Any | Target::AnyPod | Target::Block(..) => None,
            })
            .collect();
        let key = Arc::new(key);
        let id = RowId(self.rows.insert(RowState {
            key: Arc::clone(&key),
            users: Map::default(),
            peers: peers.iter().copied().collect(),
            row: None,
        }));
        for peer in peers {
            if let Some(state) = self.peers.get_mut(peer.0) {
                state.rows.insert(id);
            }
        }
        self.row_ids.insert(key, id);
        self.dirty.rows.insert(id);
        id
    }

    fn release_rows(&mut self, class: ClassId, rows: &ClassRows) {
        for id in rows.iter().flatten().flatten() {
            let Some(row) = self.rows.get_mut(id.0) else {
                continue;
            };
            if let Some(count) = row.users.get_mut(&class) {
                *count -= 1;
                if *count == 0 {
                    row.users.remove(&class);
                }
            }
            if row.users.is_empty() {
                self.dirty.unused_rows.push(*id);
            }
        }
    }

    /// Removes rows without classes.
    pub(super) fn drop_unused_rows(&mut self) {
        for id in std::mem::take(&mut self.dirty.unused_rows) {
            if self.rows.get(id.0).is_none_or(|it| !it.users.is_empty()) {
                continue;
            }
            let Some(row) = self.rows.remove(id.0) else {
                continue;
            };
            self.row_ids.remove(&row.key);
            self.dirty.rows.remove(&id);
            for peer in row.peers {
                if let Some(state) = self.peers.get_mut(peer.0) {
                    state.rows.remove(&id);
                }
            }
        }
    }
}

impl Peers for Compiler {
    fn members(&self, peer: PeerId) -> &[ClassId] {
        self.peers.get(peer.0).map_or(&[], |it| &it.members)
    }

    fn ports(&self, class: ClassId) -> &[NamedPort] {
        self.classes.get(class.0).map_or(&[], |it| &it.facts.ports)
    }
}

/// Lower priorities first; equal ones by name.
fn cluster_order(policy: &AnyPolicy) -> Option<(u16, &Text)> {
    match policy {
        AnyPolicy::Cluster(it) => Some((it.priority, &it.name)),
        AnyPolicy::Network(_) => None,
    }
}

fn names_ports(compiled: &CompiledPolicy, direction: Direction) -> bool {
    use crate::model::PortMatch;
    let side = compiled.sides[direction as usize].as_ref();
    let rules = 0..side.map_or(0, |it| it.rules.len());
    let ports = rules.filter_map(|rule| rule_ports(&compiled.policy, direction, rule));
    ports
        .flatten()
        .any(|it| matches!(it, PortMatch::Named { .. }))
}

// Port sets keep protocols in the order of their discriminants.
const _: () = assert!(PROTOCOLS[0] as usize == 0 && PROTOCOLS[2] as usize == 2);
