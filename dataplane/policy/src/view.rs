//! Explanations as data that outlives the tables: what `--json` prints and what a gateway answers with.
//!
//! Field names are a promise: fields may be added, none changes its meaning.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::explain::{
    DirectionReport, EndReport, Explanation, Miss, MissKind, PolicyRef, RuleRef, Who,
};
use crate::row::Layer;
use crate::verdict::Direction;

/// An [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// Whether the connection may pass.
    pub allow: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// Who opens it.
    pub src: EndView,
    /// To whom.
    pub dst: EndView,
    /// What the source's side says.
    pub egress: DirectionView,
    /// What the destination's side says.
    pub ingress: DirectionView,
    /// The rule in audit mode that would turn the verdict.
    pub audit: Option<RuleView>,
    /// The same for people, a line each for the verdict and both directions.
    pub text: String,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// Its address.
    pub address: IpAddr,
    /// `pod`, `host-network-pod`, `node` or `outside`.
    pub kind: String,
    /// `namespace/name` of the pod, or the node's name.
    pub name: Option<String>,
    /// Where the pod lives.
    pub node: Option<String>,
    /// The pods that claim the address, where there are several.
    pub claims: Vec<String>,
}

/// What one direction says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionView {
    /// Whether it allows.
    pub allow: bool,
    /// `not-a-pod`, `own-address`, `own-node`, `not-isolated`, `rule`, `isolated` or `contested`.
    pub cause: String,
    /// The deciding rule.
    pub rule: Option<RuleView>,
    /// The policies that isolate the pod, where none allows.
    pub isolated_by: Vec<PolicyView>,
    /// The rule that came nearest to allowing.
    pub nearest: Option<MissView>,
}

/// A policy and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    pub name: String,
    /// `admin`, `network` or `baseline`.
    pub tier: String,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where it came without text.
    pub line: u32,
}

/// A rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its policy.
    pub policy: PolicyView,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Its number in that direction, from 1; 0 is the policy's isolation.
    pub number: u32,
    /// Its own name.
    pub name: Option<String>,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
}

/// A rule that nearly allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissView {
    /// Which.
    pub rule: RuleView,
    /// What was missing: `protocol`, `port` or `peer`.
    pub missing: String,
}

impl From<&Explanation> for ExplanationView {
    fn from(of: &Explanation) -> Self {
        Self {
            allow: of.verdict.allow,
            protocol: of.connection.protocol,
            port: of.connection.dst_port,
            src: (&of.src).into(),
            dst: (&of.dst).into(),
            egress: (&of.egress).into(),
            ingress: (&of.ingress).into(),
            audit: of.audit.as_ref().map(RuleView::from),
            text: of.to_string(),
        }
    }
}

impl From<&EndReport> for EndView {
    fn from(of: &EndReport) -> Self {
        let (kind, name, node) = match &of.who {
            Who::Pod { id, node } => ("pod", Some(id.to_string()), node.as_ref()),
            Who::HostPod { id, node } => ("host-network-pod", Some(id.to_string()), node.as_ref()),
            Who::Node(name) => ("node", Some(name.to_string()), None),
            Who::Outside => ("outside", None, None),
        };
        Self {
            address: of.addr,
            kind: kind.to_owned(),
            name,
            node: node.map(ToString::to_string),
            claims: of.claims.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&DirectionReport> for DirectionView {
    fn from(of: &DirectionReport) -> Self {
        let mut view = Self {
            allow: !of.denies(),
            cause: String::new(),
            rule: None,
            isolated_by: Vec::new(),
            nearest: None,
        };
        let cause = match of {
            DirectionReport::NotAPod => "not-a-pod",
            DirectionReport::OwnAddress => "own-address",
            DirectionReport::OwnNode => "own-node",
            DirectionReport::NotIsolated => "not-isolated",
            DirectionReport::Contested => "contested",
            DirectionReport::Allowed(rule) | DirectionReport::Denied(rule) => {
                view.rule = Some(rule.into());
                "rule"
            }
            DirectionReport::Isolated { by, nearest } => {
                view.isolated_by = by.iter().map(PolicyView::from).collect();
                view.nearest = nearest.as_ref().map(MissView::from);
                "isolated"
            }
        };
        view.cause = cause.to_owned();
        view
    }
}

impl From<&PolicyRef> for PolicyView {
    fn from(of: &PolicyRef) -> Self {
        Self {
            name: of.name.clone(),
            tier: match of.layer {
                Layer::Admin => "admin",
                Layer::Network => "network",
                Layer::Baseline => "baseline",
            }
            .to_owned(),
            file: of.source.file.to_string(),
            line: of.source.line,
        }
    }
}

impl From<&RuleRef> for RuleView {
    fn from(of: &RuleRef) -> Self {
        Self {
            policy: (&of.policy).into(),
            direction: match of.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            }
            .to_owned(),
            number: of.number,
            name: of.name.as_ref().map(ToString::to_string),
            file: of.source.file.to_string(),
            line: of.source.line,
        }
    }
}

impl From<&Miss> for MissView {
    fn from(of: &Miss) -> Self {
        Self {
            rule: (&of.rule).into(),
            missing: match of.kind {
                MissKind::Protocol => "protocol",
                MissKind::Port => "port",
                MissKind::Peer => "peer",
            }
            .to_owned(),
        }
    }
}
