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

pub mod cluster;
pub mod diff;
pub mod document;
pub mod manifest;
pub mod model;
pub mod node;
pub mod rows;
pub mod scale;
pub mod view;
pub mod words;

mod addresses;
mod compiler;
mod diagnostic;
mod explain;
mod fields;
mod ids;
mod json;
mod names;
mod ports;
mod row;
mod row_build;
mod row_patch;
mod selector_text;
mod suggest;
mod table;
mod verdict;
mod yaml;

pub use compiler::{Compiler, Fault, Finding};
pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Severity};
pub use explain::{
    DirectionReport, EndReport, Explanation, Miss, MissKind, PolicyRef, RuleRef, Who,
};
pub use ids::RuleId;
pub use row::{AnyPolicy, Layer};
pub use selector_text::SelectorError;
pub use table::{PolicyTable, RuleEntry, Stats};
pub use verdict::{Audit, Cause, Direction, Verdict};
