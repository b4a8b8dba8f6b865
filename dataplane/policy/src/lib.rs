//! Unmodified Kubernetes NetworkPolicy on a bare-metal gateway, with a reason for every verdict.
//!
//! A *pod* is any host or service behind a gateway that has a manifest with labels and addresses; what has no
//! manifest is an outside address. The semantics follow the Kubernetes API server (`networking.k8s.io/v1`) and,
//! for tiers with priorities, `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
//!
//! ```text
//! text -> manifest (parse, default, validate) -> model -> compiler (classes, rows, port sets) -> PolicyTable -> Verdict
//! ```
//!
//! Pure: no files, no clock, no sockets.

pub mod model;

pub mod rows;
pub mod scale;

mod addresses;
mod compiler;
mod explain;
mod ids;
mod ports;
mod row;
mod row_build;
mod table;
mod verdict;

pub use compiler::{Compiler, Fault, Finding};
pub use explain::{
    DirectionReport, EndReport, Explanation, Miss, MissKind, PolicyRef, RuleRef, Who,
};
pub use ids::RuleId;
pub use row::{AnyPolicy, Layer};
pub use table::{PolicyTable, RuleEntry, Stats};
pub use verdict::{Audit, Cause, Direction, Verdict};
