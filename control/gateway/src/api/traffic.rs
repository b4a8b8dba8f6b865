//! What the API itself does: connections that are served, that were, and that were cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use patronus_api::ApiCountsView;

/// The counters.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    connections: AtomicU64,
    open: AtomicU64,
    cut: AtomicU64,
    crowded: AtomicU64,
}

/// A connection that is served; its end is counted when this is dropped.
#[derive(Debug)]
pub struct Served(Arc<Cells>);

impl Traffic {
    /// A connection begins.
    pub fn begin(&self) -> Served {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Served(self.0.clone())
    }

    /// A request was refused because others were served.
    pub fn crowded(&self) {
        self.0.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// For an answer.
    pub fn view(&self) -> ApiCountsView {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        ApiCountsView {
            connections: load(&self.0.connections),
            connections_open: load(&self.0.open),
            connections_cut: load(&self.0.cut),
            crowded: load(&self.0.crowded),
        }
    }
}

impl Served {
    /// Its client took too long.
    pub fn cut(&self) {
        self.0.cut.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
