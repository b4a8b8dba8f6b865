//! The packet workers one by one: how busy, what they counted, where their time goes.

use serde::{Deserialize, Serialize};

use crate::counters::{CountsView, FlowTableView, GenerationView, RatesView};

/// `GET /v1/workers`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkersResponse {
    /// When this was read, in milliseconds since 1970 of the gateway's wall clock.
    pub unix_ms: u64,
    /// Seconds since the start, of the monotonic clock.
    pub uptime_s: f64,
    /// Which configuration they have.
    pub generation: GenerationView,
    /// What packets may pass the kernel as one, and why not more: the offload level.
    pub offload: String,
    /// The code that seals and opens packets.
    pub cipher: String,
    /// The workers, by number.
    pub workers: Vec<WorkerView>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number, from 0.
    pub worker: usize,
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// Whether its thread runs; one that does not has cut its peers off.
    pub is_running: bool,
    /// Panics that it survived.
    pub panics: u64,
    /// The configuration that it has.
    pub generation: u64,
    /// Seconds of its life that went into work.
    pub busy_s: f64,
    /// Seconds in which it looked for work without sleeping.
    pub spinning_s: f64,
    /// Seconds in which it slept.
    pub asleep_s: f64,
    /// Rounds through all its doors that found work.
    pub turns: u64,
    /// Over the last second; absent in the first one.
    pub rates: Option<RatesView>,
    /// Since the start.
    pub counts: CountsView,
    /// Packets of siblings that wait for it.
    pub mailbox: MailboxView,
    /// Its flow table.
    pub flows: FlowTableView,
    /// Where its time goes; absent while nobody asks for it by `POST /v1/workers/stages`.
    pub stages: Option<StagesView>,
}

/// How full a worker's letter box is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxView {
    /// Packets, or superpackets, that wait.
    pub waiting: usize,
    /// How many may; one more is dropped as `handoff_full`.
    pub capacity: usize,
}

/// Time by stage of the pipeline since the metering began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StagesView {
    /// Packets that went through in that time: those read from either side.
    pub packets: u64,
    /// The stages in the order of a packet's way.
    pub stages: Vec<StageView>,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageView {
    /// Its name.
    pub stage: String,
    /// Nanoseconds spent in it, the meter's own among them.
    pub spent_ns: u64,
    /// How often it ended.
    pub laps: u64,
    /// Nanoseconds per packet that went through the worker.
    pub ns_per_packet: Option<f64>,
}

/// `POST /v1/workers/stages`: meter the stages of every worker from here on. Costs some throughput, and ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterStagesRequest {
    /// For how long; 0 ends it, [`METER_MAX_S`](crate::METER_MAX_S) is the most.
    pub seconds: u32,
}
