//! The daemon and its checks of prefixes behind peers: it starts them, and puts in force what they find.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc};

use super::Daemon;
use crate::api::ApiState;
use crate::path_desk::PathDesk;
use crate::path_events::{About, What};
use crate::startup::random_seed;
use crate::via_probe::{ViaTask, ViaTold};

/// Where the daemon meets its checks.
#[derive(Debug)]
pub(super) struct ViaDoor {
    told: mpsc::Receiver<ViaTold>,
    published: Arc<Notify>,
}

impl ViaDoor {
    /// Starts the checks of what `state` publishes.
    pub(super) fn open(state: &Arc<ApiState>, desk: &Arc<PathDesk>, interface: &str) -> Self {
        let (told_in, told) = mpsc::channel(1);
        let published = Arc::new(Notify::new());
        let task = ViaTask {
            state: state.clone(),
            desk: desk.clone(),
            interface: interface.to_owned(),
            published: published.clone(),
            told: told_in,
            cookie: random_seed(),
        };
        tokio::spawn(task.run());
        Self { told, published }
    }

    /// Something was published that checks may have to follow.
    pub(super) fn published(&self) {
        self.published.notify_one();
    }

    /// Waits for news.
    pub(super) async fn news(&mut self) -> ViaTold {
        match self.told.recv().await {
            Some(told) => told,
            // The task ended by a panic; what it found last stays in force.
            None => std::future::pending().await,
        }
    }
}

impl Daemon {
    /// Prefixes answer or do not: operators are told, and packets take a detour where that was asked for.
    pub(super) fn take_via(&mut self, told: ViaTold) {
        let live = self.api_state.live();
        let now = Instant::now();
        for news in told.news {
            let Some(spec) = live.snapshot.peer_by_key(&news.peer) else {
                continue;
            };
            let about = About {
                peer: Some(live.name_of(spec)),
                path: None,
            };
            let what = What::Via(news.state, news.text);
            let record = self.desk.put(&live.snapshot, about, what, now);
            self.path_log.tell(&record, now);
        }
        if self.registry.set_marked(told.marked) {
            self.publish();
        }
    }
}
