//! What a step changes before its policies come.

use std::net::IpAddr;

use crate::cluster::Cluster;
use crate::diagnostic::{Path, Report, quote};
use crate::document::parse;
use crate::fields::{self, Fields, shared};
use crate::manifest::{Kind, ObjectRef};
use crate::model::{Change, Labels, Namespace, ObjectName, Pod, Text};
use crate::node::Node;

#[derive(Clone, Debug)]
pub(super) enum Op {
    AddNamespace(Namespace),
    SetNamespaceLabels(Text, Labels),
    DeleteNamespace(Text),
    AddPod(Pod),
    SetPodLabels(ObjectName, Labels),
    SetPodIps(ObjectName, Vec<IpAddr>),
    DeletePod(ObjectName),
    DeletePolicy(ObjectRef),
}

#[derive(Clone, Copy)]
enum Verb {
    AddNamespace,
    SetNamespaceLabels,
    DeleteNamespace,
    AddPod,
    SetPodLabels,
    SetPodIps,
    DeletePod,
    DeletePolicy,
}

const VERBS: &[(&str, Verb)] = &[
    ("add_namespace", Verb::AddNamespace),
    ("set_namespace_labels", Verb::SetNamespaceLabels),
    ("delete_namespace", Verb::DeleteNamespace),
    ("add_pod", Verb::AddPod),
    ("set_pod_labels", Verb::SetPodLabels),
    ("set_pod_ips", Verb::SetPodIps),
    ("delete_pod", Verb::DeletePod),
    ("delete_policy", Verb::DeletePolicy),
];

impl Op {
    pub(super) fn read(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let map = fields::map(node, path, report)?;
        let verb = parse::required_text(&map, "op", path, report)?;
        let verb = fields::word(verb, VERBS, map.line_of("op"), &path.field("op"), report)?;
        Some(match verb {
            Verb::AddNamespace => Self::AddNamespace(Namespace {
                name: namespace(&map, path, report)?,
                labels: parse::labels(&map, path, report)?,
            }),
            Verb::SetNamespaceLabels => Self::SetNamespaceLabels(
                namespace(&map, path, report)?,
                parse::labels(&map, path, report)?,
            ),
            Verb::DeleteNamespace => Self::DeleteNamespace(namespace(&map, path, report)?),
            Verb::AddPod => Self::AddPod(match map.get("pod") {
                Some(node) => parse::pod(node, &path.field("pod"), report)?,
                None => parse::pod(node, path, report)?,
            }),
            Verb::SetPodLabels => Self::SetPodLabels(
                parse::object_name(&map, path, report)?,
                parse::labels(&map, path, report)?,
            ),
            Verb::SetPodIps => Self::SetPodIps(
                parse::object_name(&map, path, report)?,
                parse::addresses(&map, path, report)?,
            ),
            Verb::DeletePod => Self::DeletePod(parse::object_name(&map, path, report)?),
            Verb::DeletePolicy => Self::DeletePolicy(policy(&map, path, report)?),
        })
    }

    /// The change that it makes of that cluster, or why it makes none.
    pub(super) fn to_change(&self, cluster: &Cluster) -> Result<Change, String> {
        let pod_with = |id: &ObjectName, edit: &dyn Fn(&mut Pod)| {
            let mut pod = cluster.pods.get(id).cloned().ok_or_else(|| no("pod", id))?;
            edit(&mut pod);
            Ok(Change::SetPod(pod))
        };
        match self {
            Self::AddNamespace(namespace) => Ok(Change::SetNamespace(namespace.clone())),
            Self::SetNamespaceLabels(name, labels) => match cluster.namespaces.contains_key(name) {
                true => Ok(Change::SetNamespace(Namespace {
                    name: name.clone(),
                    labels: labels.clone(),
                })),
                false => Err(no("namespace", name)),
            },
            Self::DeleteNamespace(name) => match cluster.namespaces.contains_key(name) {
                true => Ok(Change::DeleteNamespace(name.clone())),
                false => Err(no("namespace", name)),
            },
            Self::AddPod(pod) => Ok(Change::SetPod(pod.clone())),
            Self::SetPodLabels(id, labels) => pod_with(id, &|pod| pod.labels = labels.clone()),
            Self::SetPodIps(id, ips) => pod_with(id, &|pod| pod.ips = ips.clone()),
            Self::DeletePod(id) => match cluster.pods.contains_key(id) {
                true => Ok(Change::DeletePod(id.clone())),
                false => Err(no("pod", id)),
            },
            Self::DeletePolicy(policy) => delete_policy(policy, cluster),
        }
    }
}

fn delete_policy(policy: &ObjectRef, cluster: &Cluster) -> Result<Change, String> {
    let Some(namespace) = policy.namespace.clone() else {
        return match cluster.cluster_policies.contains_key(&policy.name) {
            true => Ok(Change::DeleteClusterPolicy(policy.name.clone())),
            false => Err(no("ClusterNetworkPolicy", &policy.name)),
        };
    };
    let id = ObjectName {
        namespace,
        name: policy.name.clone(),
    };
    match cluster.policies.contains_key(&id) {
        true => Ok(Change::DeletePolicy(id)),
        false => Err(no("NetworkPolicy", &id)),
    }
}

fn no(kind: &str, name: &dyn std::fmt::Display) -> String {
    format!("there is no {kind} {}", quote(&name.to_string()))
}

fn namespace(map: &Fields<'_>, path: &Path<'_>, report: &mut Report) -> Option<Text> {
    let key = match map.get("namespace") {
        Some(_) => "namespace",
        None => "name",
    };
    parse::required_text(map, key, path, report).map(shared)
}

/// Without a kind it is a NetworkPolicy, unless no namespace is named either.
fn policy(map: &Fields<'_>, path: &Path<'_>, report: &mut Report) -> Option<ObjectRef> {
    let kind = match map.get("kind") {
        Some(node) => {
            let path = path.field("kind");
            let words = [Kind::NetworkPolicy, Kind::ClusterNetworkPolicy].map(|it| (it.name(), it));
            let text = fields::text(node, &path, report)?;
            fields::word(text, &words, node.line, &path, report)?
        }
        None if map.get("namespace").is_none() => Kind::ClusterNetworkPolicy,
        None => Kind::NetworkPolicy,
    };
    Some(match kind.is_namespaced() {
        true => ObjectRef::namespaced(kind, &parse::object_name(map, path, report)?),
        false => {
            let name = parse::required_text(map, "name", path, report)?;
            ObjectRef::cluster_wide(kind, &shared(name))
        }
    })
}
