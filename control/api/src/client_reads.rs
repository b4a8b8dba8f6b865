//! The client's questions about what a gateway counts, and the stream of snapshots.

use std::io::BufReader;
use std::time::Duration;

use crate::client::{Client, ClientError, PATIENCE, percent_encoded};
use crate::counters::CountersResponse;
use crate::history::{HistoryQuery, HistoryResponse};
use crate::paths::OrderedResponse;
use crate::peers::PeersResponse;
use crate::rules::RulesResponse;
use crate::stream::ChunkedLines;
use crate::transport::Stream;
use crate::watch::{Snapshot, WatchQuery};
use crate::workers::{MeterStagesRequest, WorkersResponse};
use crate::{SNAPSHOT_LEN_MAX, WATCH_INTERVAL_MAX_MS};

impl Client {
    /// The packet workers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn workers(&self) -> Result<WorkersResponse, ClientError> {
        self.get("/v1/workers").map_err(|error| self.known(error))
    }

    /// Has the stages of every worker metered for a while.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn meter_stages(&self, seconds: u32) -> Result<OrderedResponse, ClientError> {
        self.post("/v1/workers/stages", &MeterStagesRequest { seconds })
            .map_err(|error| self.known(error))
    }

    /// The peers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn peers(&self) -> Result<PeersResponse, ClientError> {
        self.get("/v1/peers").map_err(|error| self.known(error))
    }

    /// Everything that is counted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn counters(&self) -> Result<CountersResponse, ClientError> {
        self.get("/v1/counters").map_err(|error| self.known(error))
    }

    /// The rules in force, and what each refused.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn rules(&self) -> Result<RulesResponse, ClientError> {
        self.get("/v1/policy/rules")
            .map_err(|error| self.known(error))
    }

    /// How things went.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn history(&self, query: &HistoryQuery) -> Result<HistoryResponse, ClientError> {
        let text = |name: &str, value: &Option<String>| {
            let value = value.as_ref()?;
            Some(format!("{name}={}", percent_encoded(value)))
        };
        let terms = [
            text("metric", &query.metric),
            query.since.map(|it| format!("since={it}")),
            text("label", &query.label),
            query.points.map(|it| format!("points={it}")),
        ];
        let terms: Vec<String> = terms.into_iter().flatten().collect();
        self.get(&format!("/v1/history?{}", terms.join("&")))
            .map_err(|error| self.known(error))
    }

    /// The metrics as text for Prometheus.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        self.text("/v1/metrics")
    }

    /// Follows the gateway: the first snapshot comes at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn watch(&self, query: &WatchQuery) -> Result<Watch, ClientError> {
        let terms = [
            query.interval_ms.map(|it| format!("interval_ms={it}")),
            query.count.map(|it| format!("count={it}")),
        ];
        let terms: Vec<String> = terms.into_iter().flatten().collect();
        let interval_ms = query.interval_ms.unwrap_or(1000).min(WATCH_INTERVAL_MAX_MS);
        let patience = PATIENCE + Duration::from_millis(interval_ms.into());
        let reader = self.stream(&format!("/v1/watch?{}", terms.join("&")), patience)?;
        Ok(Watch {
            client: self.clone(),
            lines: ChunkedLines::new(reader, SNAPSHOT_LEN_MAX),
        })
    }
}

/// A gateway's snapshots as they come; see [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    lines: ChunkedLines<BufReader<Stream>>,
}

impl Watch {
    /// Waits for the next line, as the gateway wrote it; `None` where the stream has come to its end.
    ///
    /// # Errors
    /// [`ClientError::Broken`] where the connection broke, or nothing came in time.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let line = self.lines.next_line();
        line.map_err(|reason| self.client.broken(reason))
    }

    /// Waits for the next snapshot; `None` where the stream has come to its end.
    ///
    /// # Errors
    /// [`ClientError::Broken`] where the connection broke or nothing came in time, [`ClientError::Foreign`] for what is no
    /// snapshot.
    pub fn next_snapshot(&mut self) -> Result<Option<Snapshot>, ClientError> {
        let Some(line) = self.next_line()? else {
            return Ok(None);
        };
        let snapshot = serde_json::from_slice(&line);
        let snapshot = snapshot.map_err(|error| self.client.foreign(error.to_string()))?;
        Ok(Some(snapshot))
    }
}
