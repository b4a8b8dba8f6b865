//! Requests for events, and for those that are yet to come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use patronus_api::{EVENTS_WAIT_MAX_S, EventKind, EventsQuery, EventsResponse};
use patronus_path::Time;

use super::Live;
use super::answers::Refused;
use super::paths::find_peer;
use crate::path_desk::PathDesk;
use crate::path_events::Record;

/// What a request asks for, checked.
#[derive(Debug)]
pub struct Wanted {
    since: u64,
    peer: Option<String>,
    kinds: Vec<EventKind>,
    not_before: Time,
    wait: Duration,
}

/// What is to be told.
#[derive(Debug)]
pub struct Found {
    records: Vec<Arc<Record>>,
    next: u64,
    lost: u64,
    dropped: u64,
}

impl Wanted {
    /// Reads a query.
    ///
    /// # Errors
    /// Names the field that makes no sense.
    pub fn new(
        live: &Live,
        desk: &PathDesk,
        query: &EventsQuery,
        now: Instant,
    ) -> Result<Self, Refused> {
        let wait_s = query.wait_s.unwrap_or(0);
        if wait_s > EVENTS_WAIT_MAX_S {
            let fix = format!("wait for at most {EVENTS_WAIT_MAX_S} s and ask again");
            return Err(Refused::field(
                "wait_s",
                format!("{wait_s} s is too long"),
                fix,
            ));
        }
        let peer = match &query.peer {
            Some(peer) => Some(peer_of(live, desk, peer)?),
            None => None,
        };
        let kinds = query.kind.as_deref().unwrap_or_default().split(',');
        let kinds = kinds.filter(|it| !it.is_empty()).map(kind);
        let age = query.max_age_s.map(Duration::from_secs);
        let since_start = now.saturating_duration_since(live.snapshot.epoch());
        Ok(Self {
            since: query.since.unwrap_or(0),
            peer,
            kinds: kinds.collect::<Result<_, _>>()?,
            not_before: Time::from(
                age.map_or(Duration::ZERO, |age| since_start.saturating_sub(age)),
            ),
            wait: Duration::from_secs(wait_s),
        })
    }

    /// Whether the client is ready to wait.
    pub fn waits(&self) -> bool {
        !self.wait.is_zero()
    }

    /// The events there are; where there are none, waits for some as long as the client wants.
    pub async fn find(mut self, desk: &PathDesk) -> Found {
        let deadline = tokio::time::Instant::now() + self.wait;
        let mut news = desk.news();
        let mut lost = 0;
        loop {
            news.borrow_and_update();
            let page = desk.events_after(self.since);
            let is_restarted = page.last < self.since;
            lost += page.lost;
            let fits = |it: &Arc<Record>| self.fits(it);
            let records: Vec<_> = page.records.into_iter().filter(fits).collect();
            self.since = page.last;
            let is_over = tokio::time::Instant::now() >= deadline;
            if !records.is_empty() || is_restarted || is_over {
                return Found {
                    records,
                    next: page.last,
                    lost,
                    dropped: desk.workers().events_lost(),
                };
            }
            // Either way it is looked once more.
            let _ = tokio::time::timeout_at(deadline, news.changed()).await;
        }
    }

    fn fits(&self, record: &Record) -> bool {
        let is_peer = |peer: &String| record.about.peer.as_ref() == Some(peer);
        record.at >= self.not_before
            && self.peer.as_ref().is_none_or(is_peer)
            && (self.kinds.is_empty() || self.kinds.contains(&record.kind()))
    }
}

impl Found {
    /// For the API.
    pub fn answer(&self) -> EventsResponse {
        EventsResponse {
            events: self.records.iter().map(|it| it.view()).collect(),
            next: self.next,
            lost: self.lost,
            dropped: self.dropped,
        }
    }
}

/// The name under which events of a peer are kept; one that is gone may be named too.
fn peer_of(live: &Live, desk: &PathDesk, peer: &str) -> Result<String, Refused> {
    match find_peer(live, peer) {
        Ok(spec) => Ok(live.name_of(spec)),
        Err(refused) => {
            let records = desk.events_after(0).records;
            let mut peers = records.iter().filter_map(|it| it.about.peer.as_deref());
            match peers.any(|it| it == peer) {
                true => Ok(peer.to_owned()),
                false => Err(refused),
            }
        }
    }
}

fn kind(word: &str) -> Result<EventKind, Refused> {
    let found = EventKind::ALL.into_iter().find(|it| it.name() == word);
    found.ok_or_else(|| {
        let shown: String = word.chars().take(64).flat_map(char::escape_debug).collect();
        let names = EventKind::ALL.map(EventKind::name).join(", ");
        Refused::field(
            "kind",
            format!("`{shown}` is no kind of event"),
            format!("write {names}"),
        )
    })
}
