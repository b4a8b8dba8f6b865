//! The atomics of what threads share without locks: the standard library's, or loom's where every order of their
//! loads and stores is tried (`tests/loom.rs`).

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU64, fence};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU64, fence};
