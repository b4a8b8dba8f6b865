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
mod diagnostic;
pub mod document;
mod fields;
mod json;
pub mod manifest;
pub mod model;
mod names;
pub mod node;
mod suggest;
mod yaml;

pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Severity};
