//! A bulk TCP flow from site 1 to site 2, watched for stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::twin::Twin;
use crate::traffic::numbered::now_ns;
use crate::traffic::{BulkTcp, joined};

/// The flow.
#[derive(Debug)]
pub struct Bulk {
    flow: Arc<BulkTcp>,
    must_end: Arc<AtomicBool>,
    /// (when, bytes so far), a line for each look that saw more.
    watcher: JoinHandle<Result<Vec<(u64, u64)>>>,
}

impl Bulk {
    /// Starts it.
    ///
    /// # Errors
    /// A connection that does not come about.
    pub fn start(twin: &Twin) -> Result<Self> {
        let [one, two] = &twin.sites;
        let flow = Arc::new(BulkTcp::start(&one.host, &two.host, two.host_addr(), 1)?);
        let must_end = Arc::new(AtomicBool::new(false));
        let (seen, end) = (Arc::clone(&flow), Arc::clone(&must_end));
        let watcher = std::thread::Builder::new()
            .name("bulk watcher".to_owned())
            .spawn(move || {
                let mut looks = vec![(now_ns(), 0)];
                while !end.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK);
                    let bytes = seen.received_bytes();
                    if looks.last().is_none_or(|(_, before)| *before < bytes) {
                        looks.push((now_ns(), bytes));
                    }
                }
                Ok(looks)
            })
            .context("starting the bulk flow's watcher")?;
        Ok(Self {
            flow,
            must_end,
            watcher,
        })
    }

    /// Payload bytes that have arrived so far.
    pub fn received_bytes(&self) -> u64 {
        self.flow.received_bytes()
    }

    /// Ends it; the longest stall that touches the span.
    ///
    /// # Errors
    /// A flow that broke before.
    pub fn finish(self, from_ns: u64, to_ns: u64) -> Result<u64> {
        self.must_end.store(true, Ordering::Relaxed);
        let mut looks = joined(self.watcher)?;
        looks.push((to_ns.max(looks.last().map_or(0, |(at_ns, _)| *at_ns)), 0));
        let flow = Arc::into_inner(self.flow).context("the watcher still holds the flow")?;
        flow.finish().context("the bulk flow did not survive")?;
        let stalls = looks
            .windows(2)
            .filter(|pair| pair[1].0 > from_ns && pair[0].0 < to_ns);
        Ok(stalls.map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0))
    }
}

/// How often the watcher looks.
const LOOK: Duration = Duration::from_millis(5);
