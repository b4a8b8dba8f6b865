//! Requests and answers. A field is added, never renamed or removed, within a version; readers ignore fields that
//! they do not know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::paths::GradeView;
use crate::prefilter::PrefilterSummary;

/// Every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What is wrong.
    pub error: String,
    /// The field of the request that is meant, where one is.
    pub field: Option<String>,
    /// What to do about it.
    pub fix: String,
}

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusResponse {
    /// The site's name.
    pub site: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Packet workers.
    pub workers: usize,
    /// Peers.
    pub peers: usize,
    /// Peers that completed a handshake in the last three minutes.
    pub peers_up: usize,
    /// Whether the site has a policy at all.
    pub has_policy: bool,
    /// The generation of the policy in force; 0 where there is none.
    pub policy_generation: u64,
    /// Objects of the policy in force, by kind.
    pub policy_objects: BTreeMap<String, usize>,
    /// Prefixes behind peers that do not answer.
    #[serde(default)]
    pub unreachable: usize,
    /// The pre-filter; absent where the daemon tells none.
    #[serde(default)]
    pub prefilter: Option<PrefilterSummary>,
    /// Whether it is well; absent where the daemon does not tell.
    #[serde(default)]
    pub health: Option<HealthView>,
}

/// Whether a gateway is well: what `patronus status --check` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// Every worker runs and has the configuration that is in force.
    pub is_started: bool,
    /// It is started, and a tunnel is up; or it has no peer that it could call.
    pub is_ready: bool,
    /// What is wrong, a sentence each, the worst first; also what hinders neither.
    pub problems: Vec<ProblemView>,
}

/// Something that is wrong with a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// How bad it is.
    pub grade: GradeView,
    /// What is wrong and what to do about it.
    pub text: String,
}

/// `GET /v1/policy`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyResponse {
    /// Whether the site has a policy at all.
    pub has_policy: bool,
    /// The generation in force; 0 where there is none.
    pub generation: u64,
    /// Whether established flows outlive a change that denies them.
    pub keep_established: bool,
    /// What becomes of denied packets.
    pub refusal: RefusalView,
    /// The objects in force, by kind, namespace and name.
    pub objects: Vec<ObjectView>,
    /// What the last load said, whether it was put in force or not.
    pub diagnostics: Vec<DiagnosticView>,
    /// How many more diagnostics there were.
    pub diagnostics_left_out: usize,
    /// Objects and files whose previous version is in force because the last load refused the new one.
    pub refused: Vec<String>,
    /// The rules of the policy in force with what they refused.
    pub rules: Vec<RuleView>,
    /// What was refused under no rule that is in force; absent where nobody counts.
    pub other_hits: Option<Counter>,
}

/// What becomes of a denied packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalView {
    /// It vanishes.
    Drop,
    /// Its sender is told.
    Reject,
}

/// One object in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectView {
    /// Its kind.
    pub kind: String,
    /// Its namespace, where its kind has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// `file:line`
    pub source: String,
    /// How it counts; `None` for what is no policy.
    pub mode: Option<ModeView>,
    /// `admin`, `network` or `baseline`; `None` for what is no policy.
    pub tier: Option<String>,
    /// Lower is asked first in a tier; only a ClusterNetworkPolicy has one.
    pub priority: Option<u16>,
}

/// How a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeView {
    /// Its verdicts count.
    Enforce,
    /// It is evaluated beside the others.
    Audit,
    /// As if it were not there.
    Off,
}

/// What is to be said about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticView {
    /// Whether the object is refused by it.
    pub severity: SeverityView,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// Kind, namespace and name, as far as known.
    pub object: Option<String>,
    /// The field; empty where the object as a whole is meant.
    pub field: String,
    /// What is wrong and the fix.
    pub message: String,
}

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeverityView {
    /// The object is refused.
    Error,
    /// The object is taken.
    Warning,
}

/// One rule and what it refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// The rule.
    pub rule: RuleRefView,
    /// What it refused; absent where nobody counts.
    pub hits: Option<Counter>,
}

/// What a rule, or a policy's isolation, refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Connections denied.
    pub connections: u64,
    /// Packets dropped.
    pub packets: u64,
    /// Connections whose verdict it would have turned, had it not been in audit mode.
    pub audited: u64,
}

/// `POST /v1/policy/explain`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Who opens the connection: an address, `namespace/pod`, `namespace/pod@4`, `namespace/pod@6` or `node:NAME`.
    pub src: String,
    /// To whom.
    pub dst: String,
    /// `TCP`, `UDP`, `SCTP`, `ICMP` (of the ends' family), `ICMPv6`, or an IP protocol number.
    pub protocol: String,
    /// The destination port; absent for protocols without ports.
    pub port: Option<u16>,
}

/// The answer to [`ExplainRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainResponse {
    /// The verdict.
    pub verdict: VerdictView,
    /// What was judged.
    pub connection: ConnectionView,
    /// Who opens it.
    pub src: EndView,
    /// To whom.
    pub dst: EndView,
    /// What the source's side says.
    pub egress: DirectionView,
    /// What the destination's side says; told also where the source's side denies already.
    pub ingress: DirectionView,
    /// The rule in audit mode that would turn the verdict.
    pub audit: Option<RuleRefView>,
    /// The generation that was asked.
    pub generation: u64,
    /// The same for people.
    pub text: String,
}

/// Whether a connection may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictView {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// A connection by its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Who opens it.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// Its address.
    pub addr: IpAddr,
    /// `pod`, `host-pod`, `node` or `outside`.
    pub kind: String,
    /// `namespace/pod`, or the node's name.
    pub name: Option<String>,
    /// The node that a pod lives on.
    pub node: Option<String>,
    /// The pods that claim the address, where there are several.
    pub claims: Vec<String>,
}

/// What one direction says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionView {
    /// The verdict of this direction.
    pub verdict: VerdictView,
    /// Why.
    pub cause: CauseView,
    /// The rule that decided.
    pub rule: Option<RuleRefView>,
    /// The policies that isolate the pod, where none of their rules allows.
    pub isolated_by: Vec<PolicyRefView>,
    /// The rule that came nearest to allowing.
    pub nearest: Option<MissView>,
    /// The same for people.
    pub text: String,
}

/// Why a direction was decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseView {
    /// The end is no pod: nothing to enforce.
    NotAPod,
    /// A pod talks to itself.
    OwnAddress,
    /// The other end is the pod's own node.
    OwnNode,
    /// No policy isolates the pod.
    NotIsolated,
    /// A rule decided.
    Rule,
    /// Policies isolate the pod and none allows.
    Isolated,
    /// Too many pods claim an address.
    Contested,
}

/// A policy that is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRefView {
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    pub name: String,
    /// `admin`, `network` or `baseline`.
    pub layer: String,
    /// `file:line`
    pub source: String,
}

/// A rule that is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRefView {
    /// Its policy.
    pub policy: PolicyRefView,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Its number in that direction, from 1; 0 is the policy's isolation of the direction.
    pub number: u32,
    /// Its own name, where it has one.
    pub name: Option<String>,
    /// `file:line`
    pub source: String,
}

/// A rule that nearly allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissView {
    /// Which.
    pub rule: RuleRefView,
    /// What it does not match: `protocol`, `port` or `peer`.
    pub missing: String,
}

/// `GET /v1/flows`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowsQuery {
    /// How many at most; see [`FLOWS_DEFAULT`](crate::FLOWS_DEFAULT), [`FLOWS_MAX`](crate::FLOWS_MAX).
    pub limit: Option<usize>,
    /// Terms `src=`, `dst=`, `addr=` (address or prefix), `port=`, `proto=`, `peer=`, all of which must hold.
    pub filter: Option<String>,
    /// Which come first; the busiest if absent.
    #[serde(default)]
    pub sort: Option<FlowSort>,
    /// How many to skip, for the next page.
    #[serde(default)]
    pub skip: Option<usize>,
}

/// Which flows come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowSort {
    /// Those with the most bytes.
    #[default]
    Bytes,
    /// Those with the most packets.
    Packets,
    /// Those that had a packet last.
    Recent,
    /// By the opener's address, then by the other end's.
    Src,
    /// By the other end's address, then by the opener's.
    Dst,
    /// By the peer's name.
    Peer,
}

impl FlowSort {
    /// Every order.
    pub const ALL: [Self; 6] = [
        Self::Bytes,
        Self::Packets,
        Self::Recent,
        Self::Src,
        Self::Dst,
        Self::Peer,
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Recent => "recent",
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Peer => "peer",
        }
    }
}

/// The answer to [`FlowsQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsResponse {
    /// The flows that the filter lets through, in the order asked for. One that two workers know is told once.
    pub flows: Vec<FlowView>,
    /// How many the filter let through.
    pub matched: usize,
    /// How many there are.
    pub total: usize,
}

/// One flow of the live table, from the end that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Who opened it.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The opener's port, 0 for protocols without ports.
    pub src_port: u16,
    /// The other end's port.
    pub dst_port: u16,
    /// `local` where the opener is behind this gateway, `remote` where it is behind the peer.
    pub opened_by: String,
    /// The peer at the remote end: its name, or the start of its key.
    pub peer: Option<String>,
    /// Its traffic class; absent where packets do not pass, or the daemon tells none.
    #[serde(default)]
    pub class: Option<String>,
    /// The number of the path that its last packet took to the peer.
    #[serde(default)]
    pub path: Option<u8>,
    /// The worker that had its last packet.
    pub worker: usize,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes of inner IP in both directions.
    pub bytes: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Whether its packets pass; absent where the daemon does not tell.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// The rule that denies it, where one does and it is still in force.
    #[serde(default)]
    pub rule: Option<RuleRefView>,
}

/// `POST /v1/policy/diff`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffRequest {
    /// All the manifests that are to replace those in force, as a folder holds them.
    pub files: Vec<CandidateFile>,
}

/// A manifest that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateFile {
    /// Its name, for reasons and diagnostics.
    pub name: String,
    /// What it holds: YAML or JSON.
    pub text: String,
}

/// The answer to [`DiffRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffResponse {
    /// Live flows whose verdict would change, those that would be cut first; at most 1000.
    pub flows: Vec<FlowDiff>,
    /// How many would be cut.
    pub denied: usize,
    /// How many would be let through.
    pub allowed: usize,
    /// How many live flows were judged.
    pub judged: usize,
    /// Objects that would be added, removed or changed. Where one stands in which file is no change.
    pub changes: usize,
    /// Which.
    pub objects: ObjectChanges,
    /// What the candidate's load says. What it refuses keeps its version in force here as in a reload.
    pub diagnostics: Vec<DiagnosticView>,
    /// How many more diagnostics there were.
    pub diagnostics_left_out: usize,
}

/// Objects by what would happen to them, each as kind, namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectChanges {
    /// Only the candidate has it.
    pub added: Vec<String>,
    /// Only what is in force has it.
    pub removed: Vec<String>,
    /// Both have it, and they differ.
    pub changed: Vec<String>,
}

/// A live flow whose verdict would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowDiff {
    /// The flow.
    pub flow: FlowView,
    /// The verdict in force.
    pub before: VerdictView,
    /// The verdict under the candidate.
    pub after: VerdictView,
    /// Why the one in force says so, for people.
    pub before_text: String,
    /// Why the candidate says so, for people.
    pub after_text: String,
}

impl VerdictView {
    /// The word for it.
    pub fn from_allow(allow: bool) -> Self {
        match allow {
            true => Self::Allow,
            false => Self::Deny,
        }
    }
}
