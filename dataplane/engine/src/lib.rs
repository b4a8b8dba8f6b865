//! What happens to the packets of one worker, without I/O.
//!
//! [`Engine`] is a state machine in the style of `quinn-proto`: batches of packets, the time and
//! configurations go in through `handle_*`; datagrams, TUN writes, packets for other workers and events
//! come out. The contract of every host (daemon, simulator, fuzzer, bench) is: one input, then drain every
//! output, then the next input.
//!
//! ```text
//! handle_tun ──┐                       ┌─> udp_out   ── udp_sent
//! handle_udp ──┼─> pipeline (one file) ┼─> tun_out   ── tun_sent
//! handle_handoff                       ├─> take_handoffs
//! handle_timeout                       └─> poll_event, poll_timeout
//! handle_snapshot
//! ```

mod admission;
pub mod counters;
mod engine;
pub mod flow_table;
mod handing;
mod lane_paths;
mod lanes;
mod narrow;
mod path_board;
mod path_machine;
mod path_setup;
pub mod paths;
mod peers;
mod pipeline;
mod policing;
mod refusal;
pub mod rule_counts;
pub mod seqlock;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod snapshot;
pub mod stages;
mod steering;
mod sync;
#[cfg(test)]
mod tests;

pub use counters::{Counters, DropReason, PublishedCounters};
pub use engine::{Denial, Engine, EngineConfig, Event, Handoff};
pub use flow_table::{Flow, FlowTable, OpenedBy, Passage, RuleNumber, Steer};
pub use paths::{
    ClassRule, ClassTable, PathBoard, PathEvent, PathOrder, PathStatus, PathsConfig, PodSets,
    PortRange,
};
pub use rule_counts::{RuleCount, RuleCounts};
pub use snapshot::{
    Generation, LaneSpec, PeerId, PeerSpec, PeerStats, Policy, Refusal, Snapshot, Unreachable,
};
