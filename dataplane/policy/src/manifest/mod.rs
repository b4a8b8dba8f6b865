//! Manifests as Kubernetes writes them, turned into checked objects: defaulted and validated as the API server does.
//!
//! An object with an error is refused whole, since half a policy opens holes; the others of its file are taken, and
//! whoever applies the outcome keeps the previous version of what was refused ([`Loaded::refused`]). Fields that
//! nobody knows are errors inside `spec`, as they are for `kubectl apply`.

pub(crate) mod cidr;
mod cluster_policy;
pub(crate) mod inventory;
pub(crate) mod meta;
mod network_policy;
pub(crate) mod ports;
mod selector;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::diagnostic::{Diagnostic, Path, Report, Severity, quote};
use crate::fields;
use crate::model::{
    Change, ClusterPolicy, Namespace, NetworkPolicy, Node, ObjectName, Pod, Source, Text,
};
use crate::node::{self, Limits};
use crate::suggest::nearest;
use meta::Meta;

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// `v1`
    Namespace,
    /// `v1`
    Node,
    /// `v1`
    Pod,
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`
    ClusterNetworkPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// Its spelling in `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// The one `apiVersion` that is read.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod => "v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        match self {
            Self::Pod | Self::NetworkPolicy => true,
            Self::Namespace | Self::Node | Self::ClusterNetworkPolicy => false,
        }
    }
}

/// The identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, where its kind has one.
    pub namespace: Option<Text>,
    /// Its name.
    pub name: Text,
}

impl ObjectRef {
    /// The identity of an object in a namespace.
    pub fn namespaced(kind: Kind, id: &ObjectName) -> Self {
        Self {
            kind,
            namespace: Some(id.namespace.clone()),
            name: id.name.clone(),
        }
    }

    /// The identity of an object of the whole cluster.
    pub fn cluster_wide(kind: Kind, name: &Text) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.clone(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match &self.namespace {
            Some(namespace) => write!(f, " {}/{}", quote(namespace), quote(&self.name)),
            None => write!(f, " {}", quote(&self.name)),
        }
    }
}

/// A checked object and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Source, Namespace),
    /// A node.
    Node(Source, Node),
    /// A pod.
    Pod(Source, Pod),
    /// A NetworkPolicy.
    NetworkPolicy(Arc<NetworkPolicy>),
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy(Arc<ClusterPolicy>),
}

impl Object {
    /// Where it begins.
    pub fn source(&self) -> &Source {
        match self {
            Self::Namespace(source, _) | Self::Node(source, _) | Self::Pod(source, _) => source,
            Self::NetworkPolicy(policy) => &policy.source,
            Self::ClusterNetworkPolicy(policy) => &policy.source,
        }
    }

    /// Its identity.
    pub fn reference(&self) -> ObjectRef {
        match self {
            Self::Namespace(_, it) => ObjectRef::cluster_wide(Kind::Namespace, &it.name),
            Self::Node(_, it) => ObjectRef::cluster_wide(Kind::Node, &it.name),
            Self::Pod(_, it) => ObjectRef::namespaced(Kind::Pod, &it.id),
            Self::NetworkPolicy(it) => ObjectRef::namespaced(Kind::NetworkPolicy, &it.id),
            Self::ClusterNetworkPolicy(it) => {
                ObjectRef::cluster_wide(Kind::ClusterNetworkPolicy, &it.name)
            }
        }
    }

    /// The change that puts it in force.
    pub fn into_change(self) -> Change {
        match self {
            Self::Namespace(_, it) => Change::SetNamespace(it),
            Self::Node(_, it) => Change::SetNode(it),
            Self::Pod(_, it) => Change::SetPod(it),
            Self::NetworkPolicy(it) => Change::SetPolicy(it),
            Self::ClusterNetworkPolicy(it) => Change::SetClusterPolicy(it),
        }
    }
}

/// What a set of files says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The objects that hold together, in the order of the files; none twice.
    pub objects: Vec<Object>,
    /// The identities of refused objects, as far as they have one: their previous versions stay in force.
    pub refused: BTreeSet<ObjectRef>,
    /// Files of which something was refused that has no identity, such as a whole unreadable file: everything that
    /// came from such a file stays in force.
    pub unreadable: BTreeSet<Text>,
    /// What is to be said about them.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more diagnostics there were.
    pub left_out: usize,
}

impl Loaded {
    /// Whether anything was refused.
    pub fn has_errors(&self) -> bool {
        !self.refused.is_empty()
            || !self.unreadable.is_empty()
            || self
                .diagnostics
                .iter()
                .any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Reads one text.
pub fn load(file: &str, bytes: &[u8]) -> Loaded {
    let mut loader = Loader::new();
    loader.add(file, bytes);
    loader.finish()
}

/// Reads files one after the other; an object that comes again replaces the one before.
#[derive(Debug)]
pub struct Loader {
    report: Report,
    objects: Vec<Option<Object>>,
    /// Where each object stands in `objects`.
    known: BTreeMap<ObjectRef, usize>,
    refused: BTreeSet<ObjectRef>,
    unreadable: BTreeSet<Text>,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self {
            report: Report::new(""),
            objects: Vec::new(),
            known: BTreeMap::new(),
            refused: BTreeSet::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// Reads a file: YAML or JSON, any number of documents.
    pub fn add(&mut self, file: &str, bytes: &[u8]) {
        match node::parse(bytes, Limits::MANIFEST) {
            Ok(documents) => documents.iter().for_each(|node| self.add_node(file, node)),
            Err(error) => {
                self.report.set_file(file);
                self.report.begin_object(None);
                self.report.error(error.line, &Path::Root, error.message);
                self.refuse(None);
            }
        }
    }

    /// Reads a manifest that is a tree already, as one inside another document.
    pub fn add_node(&mut self, file: &str, node: &node::Node) {
        self.report.set_file(file);
        self.manifest(node, &Typed::default());
    }

    /// What was read.
    pub fn finish(self) -> Loaded {
        let (diagnostics, left_out) = self.report.finish();
        Loaded {
            objects: self.objects.into_iter().flatten().collect(),
            refused: self.refused,
            unreadable: self.unreadable,
            diagnostics,
            left_out,
        }
    }

    /// Recursion, through lists, is bounded by the depth of the text.
    fn manifest(&mut self, node: &node::Node, typed: &Typed<'_>) {
        let (path, report) = (Path::Root, &mut self.report);
        report.begin_object(None);
        let header = fields::map(node, &path, report).and_then(|map| {
            let kind = map.text("kind", &path, report).or(typed.kind);
            let version = map.text("apiVersion", &path, report).or(typed.api_version);
            Some((map, kind?, version?))
        });
        let Some((map, kind, version)) = header else {
            if report.object_errors() == 0 && is_test_document(node) {
                let message = "ignored: a policy test document is no manifest; `patronus policy test` runs it";
                return report.warn(node.line, &path, message);
            }
            if report.object_errors() == 0 {
                let message = "kind or apiVersion is missing: every manifest says what it is";
                report.error(node.line, &path, message);
            }
            return self.refuse(None);
        };
        match kind.strip_suffix("List") {
            Some(item_kind) => self.list(&map, item_kind, version),
            None => self.object(node, kind, version),
        }
    }

    fn list(&mut self, map: &fields::Fields<'_>, item_kind: &str, version: &str) {
        let typed = match item_kind {
            "" => Typed::default(),
            _ if Kind::ALL.iter().any(|kind| kind.name() == item_kind) => Typed {
                kind: Some(item_kind),
                api_version: Some(version),
            },
            _ => return self.other_kind(map.line, &format!("{item_kind}List"), version),
        };
        let items = map.list("items", &Path::Root, &mut self.report);
        if self.report.object_errors() > 0 {
            return self.refuse(None);
        }
        for item in items {
            self.manifest(item, &typed);
        }
    }

    fn object(&mut self, node: &node::Node, kind_name: &str, version: &str) {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == kind_name) else {
            return self.other_kind(node.line, kind_name, version);
        };
        let known_name = meta::identity(node, kind);
        self.report
            .begin_object(known_name.as_ref().map(ToString::to_string));
        if version != kind.api_version() {
            let message = wrong_version(kind, version);
            let line = node.field("apiVersion").map_or(node.line, |it| it.line);
            let path = Path::Root;
            self.report.error(line, &path.field("apiVersion"), message);
            return self.refuse(known_name);
        }
        let object = read(node, kind, &mut self.report);
        match object {
            Some(object) if self.report.object_errors() == 0 => self.take(object),
            Some(_) => self.refuse(known_name),
            None => {
                debug_assert!(self.report.object_errors() > 0, "refused without a reason");
                self.refuse(known_name);
            }
        }
    }

    fn other_kind(&mut self, line: u32, kind: &str, version: &str) {
        let root = Path::Root;
        let path = root.field("kind");
        let names = Kind::ALL.map(Kind::name);
        match kind {
            "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => {
                let tier = if kind.starts_with('B') {
                    "Baseline"
                } else {
                    "Admin"
                };
                let message = format!(
                    "{kind} was replaced upstream: write apiVersion: {} and kind: ClusterNetworkPolicy with \
                     spec.tier: {tier}",
                    Kind::ClusterNetworkPolicy.api_version()
                );
                self.report.error(line, &path, message);
                self.refuse(None);
            }
            // A slip of the finger must not make a policy vanish.
            _ => match nearest(kind, &names) {
                Some(near) => {
                    let message = format!("`{}` is unknown: did you mean {near}?", quote(kind));
                    self.report.error(line, &path, message);
                    self.refuse(None);
                }
                None => {
                    let (kind, version) = (quote(kind), quote(version));
                    let message = format!("ignored: kind {kind} of {version} is not read");
                    self.report.warn(line, &root, message);
                }
            },
        }
    }

    fn take(&mut self, object: Object) {
        let reference = object.reference();
        let line = object.source().line;
        self.refused.remove(&reference);
        let at = self.objects.len();
        if let Some(before) = self.known.insert(reference, at)
            && let Some(replaced) = self.objects[before].take()
        {
            let message = format!("replaces the one of the same name at {}", replaced.source());
            self.report.warn(line, &Path::Root, message);
        }
        self.objects.push(Some(object));
    }

    fn refuse(&mut self, object: Option<ObjectRef>) {
        match object {
            // The earlier of two is the previous version of the later.
            Some(object) if self.known.contains_key(&object) => {}
            Some(object) => drop(self.refused.insert(object)),
            None => drop(self.unreadable.insert(self.report.file().clone())),
        }
    }
}

/// Operators keep test documents beside their manifests.
fn is_test_document(node: &node::Node) -> bool {
    let has = |key| node.field(key).is_some();
    has("format") && (has("cases") || has("validation")) && !has("kind") && !has("apiVersion")
}

/// What the items of a typed list are; they need not say it themselves.
#[derive(Default)]
struct Typed<'n> {
    kind: Option<&'n str>,
    api_version: Option<&'n str>,
}

fn wrong_version(kind: Kind, version: &str) -> String {
    let (name, wanted) = (kind.name(), kind.api_version());
    match (kind, version) {
        (Kind::NetworkPolicy, "extensions/v1beta1") => format!(
            "extensions/v1beta1 was removed from Kubernetes: write apiVersion: {wanted}, the spec stays as it is"
        ),
        _ => format!(
            "{name} of `{}` is not read: write apiVersion: {wanted}",
            quote(version)
        ),
    }
}

fn read(node: &node::Node, kind: Kind, report: &mut Report) -> Option<Object> {
    let root = Path::Root;
    let source = Source {
        file: report.file().clone(),
        line: node.line,
    };
    let meta = Meta::read(node, kind, report);
    let object = fields::map(node, &root, report)?;
    if matches!(kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy) {
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        fields::fields(node, &known, fields::Nulls::Absent, &root, report)?;
    }
    let object = match kind {
        Kind::Namespace => Object::Namespace(
            source,
            Namespace {
                name: meta.as_ref()?.name.clone(),
                labels: meta?.labels,
            },
        ),
        Kind::Node => Object::Node(source, inventory::node(&object, meta, report)?),
        Kind::Pod => Object::Pod(source, inventory::pod(&object, meta, report)?),
        Kind::NetworkPolicy => Object::NetworkPolicy(Arc::new(network_policy::read(
            &object, meta, source, report,
        )?)),
        Kind::ClusterNetworkPolicy => Object::ClusterNetworkPolicy(Arc::new(cluster_policy::read(
            &object, meta, source, report,
        )?)),
    };
    Some(object)
}
