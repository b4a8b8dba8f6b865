//! WireGuard sessions over boringtun, receiver indices, allowed IPs.

pub mod keys;

pub use keys::{PresharedKey, PrivateKey, PublicKey};
