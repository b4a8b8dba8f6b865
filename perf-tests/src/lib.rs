//! A laboratory on one machine: sites in network namespaces joined by an emulated WAN, gateway programs as
//! child processes, traffic with measured results. `patronus demo` and `patronus bench` run on it,
//! and so do the interoperability tests.
//!
//! Knows nothing of what happens inside a gateway: a gateway is a program with an interface name, a UAPI socket
//! or a configuration file, and counters in `/proc`.

pub mod compare;
pub mod console;
pub mod contestant;
pub mod daemon;
pub mod demo;
pub mod emulator;
pub mod enter;
pub mod env;
pub mod error;
pub mod failover;
pub mod handshakes;
pub mod lab;
pub mod lab_file;
pub mod link;
pub mod live;
pub mod machine;
pub mod mesh;
pub mod nebula;
pub mod netns;
pub mod obstacle;
pub mod prefilter;
pub mod privilege;
pub mod proc;
pub mod program;
pub mod progress;
pub mod search;
pub mod stop;
pub mod terminal;
pub mod throughput;
pub mod topology;
pub mod traffic;
pub mod uapi;

pub use compare::{CompareOptions, CompareReport, compare};
pub use console::{ConsoleFigures, ConsoleOptions, ConsoleRow, console};
pub use contestant::{Contestant, Field};
pub use daemon::{Gateway, GatewayReport, Packets};
pub use demo::{DemoOptions, DemoReport, demo};
pub use emulator::Emulator;
pub use error::{LabError, exit_code};
pub use failover::{FailoverOptions, FailoverReport, failover};
pub use handshakes::{HandshakesOptions, HandshakesReport, handshakes};
pub use lab::{LabOptions, lab};
pub use lab_file::LabFile;
pub use live::{LiveDemo, LiveOptions, LiveReport};
pub use mesh::Mesh;
pub use netns::Namespace;
pub use prefilter::{PrefilterOptions, PrefilterReport, prefilter};
pub use privilege::enter_lab;
pub use program::{GatewayConfig, PeerConfig, Program};
pub use stop::Stop;
pub use throughput::{ThroughputOptions, ThroughputReport, throughput};
pub use topology::{Family, Lab, Site};
