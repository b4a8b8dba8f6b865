//! What the tables say about a connection.

use crate::ids::RuleId;

/// A direction of a connection, as seen from the pod that is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Into the destination.
    Ingress,
    /// Out of the source.
    Egress,
}

/// Both directions, in the order in which tables keep them.
pub(crate) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Why a direction, or a connection, was decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Neither end is a pod: nothing to enforce.
    NoPod,
    /// A pod talks to itself.
    OwnAddress,
    /// The other end is the pod's own node.
    OwnNode,
    /// No policy isolates the pod in this direction and no tier decided.
    NotIsolated,
    /// A rule decided: it is named.
    Rule,
    /// Policies isolate the pod and none of their rules matches; the first of them is named.
    Isolated,
    /// More pods claim one of the addresses than can be judged.
    Contested,
}

/// A verdict on the first packet of a connection. Replies follow the flow and are not asked about.
///
/// Small, and made without allocation; [`PolicyTable::explain`](crate::PolicyTable::explain) tells the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether it may pass.
    pub allow: bool,
    /// The direction that decided; where both allow, the last one that had a reason.
    pub direction: Direction,
    /// Why.
    pub cause: Cause,
    /// Under what to count it.
    pub rule: Option<RuleId>,
    /// What policies in audit mode would have changed, where they would have.
    pub audit: Option<Audit>,
}

/// The verdict if policies in audit mode were enforced: the opposite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Audit {
    /// The direction that would have decided.
    pub direction: Direction,
    /// Why.
    pub cause: Cause,
    /// By which rule.
    pub rule: Option<RuleId>,
}
