//! What a change of policy changes: objects, the verdicts of recorded flows, and the verdicts of everybody with
//! everybody.
//!
//! Everything here compares two clusters with their tables and knows nothing of where they came from: files, or a
//! running gateway.

mod ends;
mod matrix;
mod objects;
mod spans;

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::compiler::Compiler;
use crate::explain::Explanation;
use crate::model::Connection;
use crate::table::PolicyTable;

pub use ends::EndGroup;
pub use matrix::{Matrix, PROBES_MAX, PairChange};
pub use objects::{ObjectChange, changed_objects};
pub use spans::PortSpan;

/// One of the two sets of objects that are compared.
#[derive(Clone, Debug)]
pub struct Side {
    /// The objects.
    pub cluster: Cluster,
    /// Their tables.
    pub table: Arc<PolicyTable>,
}

impl Side {
    /// Compiles a cluster.
    pub fn new(cluster: Cluster) -> Self {
        // The tables live as long as one answer: nobody gains by choosing addresses that collide.
        let table = Compiler::fresh(0, cluster.changes()).table();
        Self { cluster, table }
    }
}

/// A connection whose verdict changes.
#[derive(Clone, Debug)]
pub struct FlowChange {
    /// Before.
    pub old: Explanation,
    /// After.
    pub new: Explanation,
}

/// Whether a connection gets another verdict, and why.
pub fn changed_flow(old: &Side, new: &Side, connection: &Connection) -> Option<FlowChange> {
    let before = old.table.judge(connection).allow;
    let after = new.table.judge(connection).allow;
    (before != after).then(|| FlowChange {
        old: old.table.explain(connection),
        new: new.table.explain(connection),
    })
}
