//! The incremental compiler: objects in, tables out. The result depends on the objects alone, never on the order
//! in which they came.
//!
//! It owns every index between pods, classes, selectors, policies and rows. A burst of changes first updates the
//! objects and notes what it touched; [`settle`] then brings classes, selectors and rows up to date once, and
//! publishes a new table that shares with the old one all that stayed.

mod classes;
mod lint;
mod objects;
mod policies;
mod selectors;
mod settle;

use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::{ClassId, Edition, Map, NodeId, PeerId, PodId, RowId, RuleId, Set, Slab};
use crate::model::{Change, Labels, Namespace, Node, ObjectName, Pod, Selector, Text};
use crate::row::{Layer, Row};
use crate::row_build::CompiledPolicy;
use crate::table::{ClassFacts, PolicyTable, UNNAMED_VALUE};
use crate::verdict::Direction;

pub use lint::{Fault, Finding};
use selectors::{Dictionary, Mention, PeerKey, PeerState, Scope, SelectorIndex};

/// Keeps the objects of a cluster and compiles them, change by change.
#[derive(Debug)]
pub struct Compiler {
    namespaces: Map<Text, NamespaceState>,
    pods: Slab<PodState>,
    pod_ids: Map<ObjectName, PodId>,
    nodes: Slab<Node>,
    node_ids: Map<Text, NodeId>,
    /// Who claims which address: the seed is that of the tables, for outsiders may own addresses in manifests.
    claims: Map<IpAddr, Vec<Claim>>,
    /// All pods by label, to find those that a new mention concerns.
    pods_by_label: Map<Text, Map<Text, Set<PodId>>>,
    pods_by_port_name: Map<Text, Set<PodId>>,
    /// What selectors across namespaces mention.
    dictionary: Dictionary,
    /// Port names that rules mention, counted.
    port_names: Map<Text, u32>,
    classes: Slab<ClassState>,
    class_ids: Map<Arc<ClassFacts>, ClassId>,
    scopes: Map<Selector, Scope>,
    peers: Slab<PeerState>,
    peer_ids: Map<Arc<PeerKey>, PeerId>,
    editions: Map<PolicyName, Edition>,
    policies: Map<Edition, Arc<CompiledPolicy>>,
    rule_ids: Map<PolicyName, PolicyRuleIds>,
    cluster_policies: Set<Edition>,
    rows: Slab<RowState>,
    row_ids: Map<Arc<RowKey>, RowId>,
    next_edition: u64,
    next_rule: u32,
    audits: usize,
    dirty: Dirty,
    unnamed: Text,
    state: PolicyTable,
    published: Arc<PolicyTable>,
}

/// The name of a policy of either kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum PolicyName {
    Network(ObjectName),
    Cluster(Text),
}

/// The counters' numbers of a policy, kept over edits.
#[derive(Debug, Default)]
struct PolicyRuleIds {
    isolation: [Option<RuleId>; 2],
    rules: [Vec<RuleId>; 2],
}

#[derive(Debug, Default)]
struct NamespaceState {
    /// `None` while only pods or policies speak of it.
    manifest: Option<Namespace>,
    /// The manifest's labels and the one with its name.
    labels: Arc<Labels>,
    pods: Set<PodId>,
    policies: Set<Edition>,
    by_selector: SelectorIndex<Edition>,
    /// What selectors inside this namespace mention.
    dictionary: Dictionary,
    classes: Set<ClassId>,
    /// Selectors of this namespace's pods alone.
    peers: SelectorIndex<PeerId>,
    /// The namespace selectors that select it.
    scopes: Vec<Selector>,
}

#[derive(Debug)]
struct PodState {
    pod: Arc<Pod>,
    class: Option<ClassId>,
    dirty: bool,
}

/// Who says that an address is his.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Pod(PodId),
    Node(NodeId),
}

#[derive(Debug)]
struct ClassState {
    facts: Arc<ClassFacts>,
    /// Pods in it.
    pods: u32,
    /// The selectors of peers that select it.
    peers: Vec<PeerId>,
    rows: ClassRows,
    audit: Option<Box<ClassRows>>,
    /// Whether selectors know it.
    attached: bool,
}

type ClassRows = [[Option<RowId>; 3]; 2];

/// What a row is compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RowKey {
    layer: Layer,
    direction: Direction,
    policies: Vec<Edition>,
    /// The subject's named ports, where a rule asks for one.
    ports: Vec<crate::ports::NamedPort>,
}

#[derive(Debug)]
struct RowState {
    key: Arc<RowKey>,
    /// How often each class uses it: enforced, audited, or both.
    users: Map<ClassId, u32>,
    peers: Vec<PeerId>,
    row: Option<Arc<Row>>,
}

/// What a burst touched and has not settled.
#[derive(Debug, Default)]
struct Dirty {
    pods: Vec<PodId>,
    addresses: Set<IpAddr>,
    /// Namespaces whose labels may have changed.
    labels: Set<Text>,
    /// Namespaces of which nothing may be left.
    emptied: Set<Text>,
    /// Namespaces whose policies changed.
    policies: Set<Text>,
    cluster_policies: bool,
    /// Mentions that began or ceased, by namespace; `None` is across namespaces.
    mentions: Map<Option<Text>, Set<Mention>>,
    port_names: Set<Text>,
    /// Selectors of peers that no class was tried on.
    peers: Vec<PeerId>,
    scopes: Vec<Selector>,
    /// Selectors of peers that may have lost their last use.
    unused_peers: Vec<PeerId>,
    /// Selectors of peers that gained or lost classes.
    changed_peers: Vec<PeerId>,
    /// Classes that may have lost their last pod.
    dead_classes: Vec<ClassId>,
    /// Classes that selectors do not know yet.
    unattached: Vec<ClassId>,
    /// Classes whose policies may have changed.
    classes: Set<ClassId>,
    /// Classes whose rows changed.
    stale_classes: Set<ClassId>,
    /// Rows to compile.
    rows: Set<RowId>,
    /// Classes to bring up to date in rows that stay otherwise.
    columns: Map<RowId, Vec<ClassId>>,
    /// Rows that may have lost their last class.
    unused_rows: Vec<RowId>,
    /// Something that a verdict reads has changed.
    observable: bool,
}

impl Compiler {
    /// A compiler of an empty cluster. `seed` keys the address hash; any number that strangers do not know.
    pub fn new(seed: u64) -> Self {
        let state = PolicyTable::empty(seed);
        Self {
            namespaces: Map::default(),
            pods: Slab::default(),
            pod_ids: Map::default(),
            nodes: Slab::default(),
            node_ids: Map::default(),
            claims: Map::with_hasher(foldhash::fast::FixedState::with_seed(seed)),
            pods_by_label: Map::default(),
            pods_by_port_name: Map::default(),
            dictionary: Dictionary::default(),
            port_names: Map::default(),
            classes: Slab::default(),
            class_ids: Map::default(),
            scopes: Map::default(),
            peers: Slab::default(),
            peer_ids: Map::default(),
            editions: Map::default(),
            policies: Map::default(),
            rule_ids: Map::default(),
            cluster_policies: Set::default(),
            rows: Slab::default(),
            row_ids: Map::default(),
            next_edition: 0,
            next_rule: 1,
            audits: 0,
            dirty: Dirty::default(),
            unnamed: UNNAMED_VALUE.into(),
            published: Arc::new(state.clone()),
            state,
        }
    }

    /// Compiles a cluster from nothing.
    pub fn fresh(seed: u64, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut compiler = Self::new(seed);
        compiler.apply(changes);
        compiler
    }

    /// Applies a burst of changes and publishes one table for all of them.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.note(change);
        }
        self.settle();
    }

    /// The tables of the cluster as it stands.
    pub fn table(&self) -> Arc<PolicyTable> {
        Arc::clone(&self.published)
    }

    /// The tables of the cluster as it stands, borrowed.
    pub(crate) fn current(&self) -> &PolicyTable {
        &self.published
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::SetNamespace(it) => self.set_namespace(it),
            Change::DeleteNamespace(name) => self.delete_namespace(&name),
            Change::SetNode(it) => self.set_node(it),
            Change::DeleteNode(name) => self.delete_node(&name),
            Change::SetPod(it) => self.set_pod(it),
            Change::DeletePod(id) => self.delete_pod(&id),
            Change::SetPolicy(it) => self.set_policy(it),
            Change::DeletePolicy(id) => self.delete_policy(PolicyName::Network(id)),
            Change::SetClusterPolicy(it) => self.set_cluster_policy(it),
            Change::DeleteClusterPolicy(name) => self.delete_policy(PolicyName::Cluster(name)),
        }
    }
}
