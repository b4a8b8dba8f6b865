//! The daemon behind `patronus run`: interface, workers, UAPI socket, local API, policy, reload, shutdown.
//!
//! Owns threads and file descriptors and brings the pure crates to life. Control (tokio, one thread) and
//! workers (plain pinned threads) meet in [`exchange`]: snapshots go down, counters and events come up.

mod af_xdp;
mod af_xdp_metrics;
mod api;
mod config_book;
mod config_store;
mod daemon;
mod denials;
pub mod exchange;
mod facts;
mod in_force;
mod labels;
mod link;
pub mod meter;
mod metrics;
mod names;
mod path_desk;
mod path_events;
mod path_log;
mod paths;
mod policy;
pub mod prefilter;
mod recorder;
mod registry;
mod report;
mod socket_file;
mod sockets;
mod startup;
mod uapi;
mod uapi_server;
mod uplinks;
mod via;
mod via_probe;
mod worker;

pub use daemon::{RunOptions, run};
pub use report::{Packets, Report};
pub use startup::StartError;
pub use uapi::Request as UapiRequest;
