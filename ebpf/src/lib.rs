//! The pre-filter: eBPF programs that throw away at an interface what the gateway would surely drop, the types they
//! share with user space, and their loader.
//!
//! The programs are C (`bpf/`) and lie here built (`objects/`), so that no build of the gateway needs a compiler for
//! them; a test builds them anew and compares. [`WanFilter`] is the WAN side: WireGuard's form at our ports, block
//! lists, a rate of initiations. [`WanTwin`] is the same in Rust, for tests and explanations.
//!
//! This crate knows packets and rows of data, never peers or policy. Namespaces: everything happens in the calling
//! thread's network namespace.

mod attach;
mod classify;
mod fill;
mod generator;
mod hook;
mod interface;
pub mod lan;
mod load;
mod netlink;
pub mod objects;
mod prefixes;
mod steer;
mod support;
pub mod wan_abi;

mod wan;
mod xsk;

pub use attach::{AttachError, Attachment};
pub use classify::{Frame, Verdict, WanTwin};
pub use fill::MapFill;
pub use generator::{Generator, GeneratorError};
pub use hook::{Choice, Hook, UnknownHook};
pub use interface::{Interface, InterfaceError, LinkLayer};
pub use load::LoadError;
pub use netlink::XdpFeatures;
pub use prefixes::{BOGONS, Bogon, ListError, Prefix, PrefixError, SourceVerdict, Sources};
pub use steer::Steering;
pub use support::{Capability, Support};
pub use wan::{
    Counter, Entry, InitiationLimit, Trial, WanConfig, WanError, WanFilter, WanReason, WanStats,
};
pub use xsk::{XskCounts, XskEnd, XskError, XskRedirect};
