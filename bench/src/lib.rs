//! Benchmarks without a kernel, and the reports of all benchmarks.
//!
//! [`aead`] measures what the cipher alone costs on a core: the limit. [`engine`] measures the engine of one worker in
//! memory, in alternation with that limit, so that what disturbs one disturbs both. [`policy`] measures the policy
//! tables at scale, [`paths`] what measuring many paths costs. [`report`] is what any benchmark hands to a reader: JSON with a schema, Markdown, a self-contained page, percentiles. Knows engines and packets;
//! opens no socket and needs no privilege.

pub mod aead;
pub mod cipher;
pub mod engine;
pub mod paths;
pub mod pin;
pub mod policy;
pub mod report;
pub mod stats;
pub mod traffic;
pub mod world;

pub use aead::AeadOptions;
pub use engine::EngineOptions;
pub use paths::PathsOptions;
pub use policy::PolicyOptions;
pub use report::{Destination, Outcome, Report, publish};
