//! What the console knows of a gateway: the last snapshot, what was asked beside it, and how it came to be.

use std::collections::VecDeque;

use patronus_api::{
    EventView, ExplainResponse, FlowsResponse, OrderedResponse, PeerPathsView, RulesResponse,
    Snapshot,
};
use serde::{Deserialize, Serialize};

use crate::tracks::Tracks;

/// The most events that are kept.
pub const EVENTS_MAX: usize = 2000;

/// What a gateway said: one line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// How it stands.
    Snapshot(Box<Snapshot>),
    /// Its flows, as far as they were asked for.
    Flows(FlowsResponse),
    /// Its rules.
    Rules(RulesResponse),
    /// Why a connection passes or not.
    Explained(Box<ExplainResponse>),
    /// What became of an order.
    Ordered(OrderedResponse),
    /// A question could not be answered, and why.
    Refused(String),
    /// It cannot be reached, and why.
    Lost(String),
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// The last snapshot.
    pub snapshot: Option<Box<Snapshot>>,
    /// The flows that were asked for last.
    pub flows: Option<FlowsResponse>,
    /// The rules.
    pub rules: Option<RulesResponse>,
    /// The events, the oldest first.
    pub events: VecDeque<EventView>,
    /// The figures of the last minutes.
    pub tracks: Tracks,
    /// Drops by reason at the start of the minute that is shown, and when that was: `(unix_ms, drops)`.
    drops: VecDeque<(u64, std::collections::BTreeMap<String, u64>)>,
}

impl Data {
    /// Takes a snapshot.
    pub fn take_snapshot(&mut self, snapshot: Box<Snapshot>) {
        let has_restarted = self
            .snapshot
            .as_ref()
            .is_some_and(|last| snapshot.uptime_s < last.uptime_s);
        if has_restarted {
            // It counts and numbers from the beginning again.
            self.events.clear();
            self.drops.clear();
        }
        let known = self.events.back().map_or(0, |event| event.number);
        for event in snapshot.events.iter().filter(|event| event.number > known) {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(event.clone());
        }
        self.tracks.add(&snapshot);
        self.remember_drops(&snapshot);
        self.snapshot = Some(snapshot);
    }

    /// Packets dropped in the last minute by reason, the most first.
    pub fn drops_of_last_minute(&self) -> Vec<(&str, u64)> {
        let Some(((_, then), (_, now))) = self.drops.front().zip(self.drops.back()) else {
            return Vec::new();
        };
        let mut out: Vec<_> = now
            .iter()
            .map(|(reason, count)| {
                let before = then.get(reason).copied().unwrap_or(0);
                (reason.as_str(), count.saturating_sub(before))
            })
            .collect();
        out.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        out
    }

    /// The wall clock of the gateway when the last snapshot was made.
    pub fn unix_ms(&self) -> u64 {
        self.snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.unix_ms)
    }

    /// The paths to a peer.
    pub fn paths_of(&self, peer: &str) -> Option<&PeerPathsView> {
        let snapshot = self.snapshot.as_ref()?;
        snapshot.paths.peers.iter().find(|it| it.peer == peer)
    }

    fn remember_drops(&mut self, snapshot: &Snapshot) {
        let now = snapshot.unix_ms;
        self.drops.push_back((now, snapshot.totals.drops.clone()));
        // One that is just a minute old is the one to compare with.
        while self.drops.len() > 2 && self.drops[1].0 + MINUTE_MS <= now {
            self.drops.pop_front();
        }
        while self.drops.len() > DROPS_MAX {
            self.drops.pop_front();
        }
    }
}

const MINUTE_MS: u64 = 60_000;
/// A minute at the shortest interval of snapshots.
const DROPS_MAX: usize = 320;
