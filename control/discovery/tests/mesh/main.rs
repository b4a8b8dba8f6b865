//! The state machine of a site, alone and among many, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy takes helpers of tests for code"
)]

mod bad_messages;
mod cache;
mod forged;
mod keys;
mod lan;
mod model;
mod nat;
mod network;
mod pair;
mod wan;
mod world;
