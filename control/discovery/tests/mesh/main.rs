//! The state machine of a site, alone and among many, in virtual time.

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
