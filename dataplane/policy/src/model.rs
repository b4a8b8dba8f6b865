//! The checked objects: what manifests become once they are parsed, defaulted and validated, and what the
//! compiler takes. None of them can hold what the API server would refuse, apart from what crosses objects.
//!
//! Everything is cheap to clone: texts are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use patronus_packet::Prefix;

/// A shared text: a name, a label key or value. Validity is the loader's business.
pub type Text = Arc<str>;

/// Where an object or a rule stands, for reasons and diagnostics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The file as the operator named it, or the name of the API or document that brought it.
    pub file: Text,
    /// The line, counted from 1; 0 where the object came without text, as from the API.
    pub line: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A label set, sorted by key.
pub type Labels = BTreeMap<Text, Text>;

/// The label that every namespace carries, with its name as the value.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A transport protocol that a policy can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132.
    Sctp,
}

/// A namespace with its labels; the engine adds [`NAMESPACE_NAME_LABEL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Text,
    /// Its labels.
    pub labels: Labels,
}

/// A node: a gateway, with the addresses it answers on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Text,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// The name of a namespaced object: a pod or a NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace; `default` where the manifest names none.
    pub namespace: Text,
    /// The name inside the namespace.
    pub name: Text,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod: a host or service with labels and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub id: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// The node that it lives on, where known.
    pub node: Option<Text>,
    /// All its addresses, of both families.
    pub ips: Vec<IpAddr>,
    /// Whether it uses its node's network: then it is an address like any other and no policy selects it.
    pub host_network: bool,
    /// The ports of all its containers.
    pub ports: Vec<ContainerPort>,
}

/// A port that a container names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPort {
    /// The name that policies may use.
    pub name: Option<Text>,
    /// The number.
    pub number: u16,
    /// The protocol; TCP where the manifest names none.
    pub protocol: Protocol,
}

/// A label selector: all requirements must hold; without any it selects everything of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// The requirements, `matchLabels` included as `In` with one value; sorted and without duplicates.
    pub requirements: BTreeSet<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Requirement {
    /// The key is present with one of the values.
    In(Text, BTreeSet<Text>),
    /// The key is absent, or has none of the values.
    NotIn(Text, BTreeSet<Text>),
    /// The key is present.
    Exists(Text),
    /// The key is absent.
    DoesNotExist(Text),
}

impl Selector {
    /// Whether an object with those labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|it| it.matches(labels))
    }
}

impl Requirement {
    /// Whether those labels meet it.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// What an object's annotation `patronus.io/mode` says about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Its verdicts count.
    #[default]
    Enforce,
    /// It is evaluated beside the others, and reported where it would have changed a verdict.
    Audit,
    /// As if it were not there.
    Off,
}

/// A NetworkPolicy, defaulted and validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub id: ObjectName,
    /// Where the object begins.
    pub source: Source,
    /// Whether it is enforced.
    pub mode: Mode,
    /// The pods of its namespace that it selects.
    pub pods: Selector,
    /// What may come in; `None` where it does not isolate for ingress. Rules that `policyTypes` makes inert
    /// are not here.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out; `None` where it does not isolate for egress.
    pub egress: Option<Vec<Rule>>,
}

/// One allow rule of a NetworkPolicy: peers and ports must both match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub source: Source,
    /// The other ends; `None` is every other end, outside addresses included.
    pub peers: Option<Vec<Peer>>,
    /// The destination ports; `None` is every port of every protocol.
    pub ports: Option<Vec<PortMatch>>,
}

/// One item of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Pods by labels. Never outside addresses, nodes or host-network pods.
    Pods {
        /// Which namespaces; `None` is the policy's own.
        namespaces: Option<Selector>,
        /// Which pods there; `None` is all.
        pods: Option<Selector>,
    },
    /// Addresses, pods' addresses included.
    Block {
        /// The block, host bits zero.
        cidr: Prefix,
        /// What is cut out of this block alone.
        except: Vec<Prefix>,
    },
}

/// One item of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortMatch {
    /// Every port of a protocol.
    Any(Protocol),
    /// Ports `first` to `last`, both included; a single port has both equal.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// A port that the destination pod names; each pod has its own number, and several containers may share a name.
    Named {
        /// The protocol; `None` only in a ClusterNetworkPolicy, where a name carries its own.
        protocol: Option<Protocol>,
        /// The name.
        name: Text,
    },
}

/// The tiers of ClusterNetworkPolicy, in the order in which they are asked; NetworkPolicy stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Before NetworkPolicy.
    Admin,
    /// After it, only for pods that no NetworkPolicy selects in that direction.
    Baseline,
}

/// What a ClusterNetworkPolicy rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Allow, and end this direction.
    Accept,
    /// Deny, and end this direction.
    Deny,
    /// Leave the tier.
    Pass,
}

/// A ClusterNetworkPolicy, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// Its name; there is one namespace of names for all tiers.
    pub name: Text,
    /// Where the object begins.
    pub source: Source,
    /// Whether it is enforced.
    pub mode: Mode,
    /// Its tier.
    pub tier: Tier,
    /// 0 to 1000; the lower number is asked first.
    pub priority: u16,
    /// Whom it protects.
    pub subject: ClusterSubject,
    /// Rules for what comes in, first match decides.
    pub ingress: Vec<ClusterRule>,
    /// Rules for what goes out, first match decides.
    pub egress: Vec<ClusterRule>,
}

/// The pods that a ClusterNetworkPolicy is about; never host-network pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterSubject {
    /// Which namespaces.
    pub namespaces: Selector,
    /// Which pods there; empty is all.
    pub pods: Selector,
}

/// One rule of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// Its own name, where it has one.
    pub name: Option<Text>,
    /// Where it stands.
    pub source: Source,
    /// What it does.
    pub action: Action,
    /// The other ends; never empty. [`ClusterPeer::Unknown`] fails closed.
    pub peers: Vec<ClusterPeer>,
    /// The destination ports; `None` is every port of every protocol.
    pub ports: Option<Vec<PortMatch>>,
}

/// One item of a ClusterNetworkPolicy rule's `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClusterPeer {
    /// All pods of matching namespaces, or those of them that match.
    Pods {
        /// Which namespaces.
        namespaces: Selector,
        /// Which pods there; empty is all.
        pods: Selector,
    },
    /// Addresses, egress only; pods' addresses included.
    Networks(Vec<Prefix>),
    /// Nodes by labels is experimental upstream and domain names cannot be judged by address: a kind that we do not
    /// evaluate. An Accept with one matches nothing; Deny and Pass become Deny of everything.
    Unknown,
}

/// One step of a changing cluster. A `Set` creates, or replaces the object of the same kind and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A namespace or its labels.
    SetNamespace(Namespace),
    /// Gone, with its pods and its policies.
    DeleteNamespace(Text),
    /// A node.
    SetNode(Node),
    /// Gone.
    DeleteNode(Text),
    /// A pod.
    SetPod(Pod),
    /// Gone; its addresses are outside addresses at once.
    DeletePod(ObjectName),
    /// A NetworkPolicy.
    SetPolicy(Arc<NetworkPolicy>),
    /// Gone.
    DeletePolicy(ObjectName),
    /// A ClusterNetworkPolicy.
    SetClusterPolicy(Arc<ClusterPolicy>),
    /// Gone.
    DeleteClusterPolicy(Text),
}

/// A connection to judge: its first packet's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Who opens it.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// IP protocol number; 6, 17 and 132 have ports, any other follows "any port" rules only.
    pub protocol: u8,
    /// Destination port; 0 for protocols without ports.
    pub dst_port: u16,
}
