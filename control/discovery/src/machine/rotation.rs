//! When WireGuard keys are replaced, and how long the one before is accepted.
//!
//! At t − 2 h (half an hour more or less, so that a network does not do it all at once) the next key is made and announced;
//! peers may begin with it from then on. At t it is the current one. The key before is accepted until every peer was seen
//! with the new one; who was not seen is told of at t + 2 h, and has until t + 26 h or until the next switch.

use std::time::Duration;

use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::clock::Now;
use crate::machine::config::OwnKeys;
use crate::machine::events::Event;
use crate::machine::sites::Site;
use crate::wireguard::{WireGuardKey, WireGuardKeys};

/// Life of a key.
const PERIOD: Duration = Duration::from_secs(24 * 3600);
/// So long before its time the next key is announced.
const AHEAD: Duration = Duration::from_secs(2 * 3600);
/// Half an hour more or less.
const JITTER: Duration = Duration::from_secs(1800);
/// After a switch peers have this long to move before it is told.
const MISSED_AFTER: Duration = Duration::from_secs(2 * 3600);
/// After a switch the key before is accepted for so long at most.
const KEPT_FOR: Duration = Duration::from_secs(26 * 3600);
/// A key that was asked for is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// A key was handed in that cannot be the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// None was asked for.
    #[error("no next WireGuard key was asked for")]
    NotWanted,
    /// It is the current key, or the one before.
    #[error("the next WireGuard key was used before: make a new one")]
    Used,
}

pub(super) struct Rotation {
    keys: OwnKeys,
    /// From when the key that the shell was asked for is to be used, and when it was asked.
    wanted: Option<(crate::WallTime, crate::WallTime)>,
    /// When the next key is announced, drawn once per key.
    announce_at: Option<crate::WallTime>,
    is_missed_told: bool,
}

impl Rotation {
    pub fn new(keys: OwnKeys) -> Self {
        Self {
            keys,
            wanted: None,
            announce_at: None,
            is_missed_told: false,
        }
    }

    /// The keys as announcements carry them.
    pub fn announced(&self) -> WireGuardKeys {
        // The next key is another one, and later: checked when it was handed in.
        let alone = || WireGuardKeys::alone(self.keys.current);
        WireGuardKeys::new(self.keys.current, self.keys.next).unwrap_or_else(alone)
    }
}

impl Machine {
    /// Our WireGuard keys: what the gateway accepts and begins with, and what the shell keeps on disk. Changes when
    /// [`Self::peers_generation`] does.
    pub fn own_keys(&self) -> OwnKeys {
        self.rotation.keys
    }

    /// Takes the public half of a key that [`Event::KeyWanted`] asked for. Its secret half is on disk by then.
    ///
    /// # Errors
    /// None was asked for, or it is an old one.
    pub fn handle_next_key(&mut self, key: WireGuardKey, now: Now) -> Result<(), RotationError> {
        let (from, _) = self.rotation.wanted.ok_or(RotationError::NotWanted)?;
        let keys = &mut self.rotation.keys;
        if key == keys.current || keys.previous == Some(key) {
            return Err(RotationError::Used);
        }
        keys.next = Some((key, from));
        self.rotation.wanted = None;
        self.generation += 1;
        self.tell_everybody(now);
        Ok(())
    }

    /// One of the chores.
    pub(super) fn rotate_keys(&mut self, now: Now) {
        self.retire_key(now);
        match self.rotation.keys.next {
            Some((key, from)) if from <= now.wall => self.switch_to(key, now),
            Some(_) => {}
            None if self.config.rotates_keys => self.want_key(now),
            None => {}
        }
    }

    fn want_key(&mut self, now: Now) {
        let since = self.rotation.keys.since;
        let announce_at = match self.rotation.announce_at {
            Some(at) => at,
            None => {
                let jitter = self.dice.below(2 * JITTER.as_millis() as u64 + 1);
                let earliest = since + (PERIOD - AHEAD - JITTER);
                let at = earliest + Duration::from_millis(jitter);
                self.rotation.announce_at = Some(at);
                at
            }
        };
        // A clock that was set back by more than a period makes nobody wait for years.
        let is_clock_back = now.wall + PERIOD < since;
        if now.wall < announce_at && !is_clock_back {
            return;
        }
        let is_asked =
            |(_, at): (crate::WallTime, crate::WallTime)| now.wall.distance(at) < ASK_AGAIN;
        if self.rotation.wanted.is_some_and(is_asked) {
            return;
        }
        let from = now.wall + AHEAD;
        self.rotation.wanted = Some((from, now.wall));
        self.tell(Event::KeyWanted { from });
    }

    fn switch_to(&mut self, key: WireGuardKey, now: Now) {
        self.give_up_previous();
        let keys = &mut self.rotation.keys;
        keys.previous = Some(keys.current);
        keys.current = key;
        keys.next = None;
        keys.since = now.wall;
        self.rotation.announce_at = None;
        self.rotation.is_missed_told = false;
        let ids: Vec<SiteId> = self.sites.iter().map(|site| site.id).collect();
        for id in ids {
            self.note_seen_key(id);
        }
        self.generation += 1;
        self.tell(Event::KeySwitched { current: key });
        self.tell_everybody(now);
    }

    /// Whether the site's session was made with our current key.
    pub(super) fn note_seen_key(&mut self, id: SiteId) {
        let current = self.rotation.keys.current;
        if let Some(site) = self.sites.site_mut(id) {
            let key = site.session.path.map(|path| path.own_key);
            site.has_seen_key = key == Some(current);
        }
    }

    fn retire_key(&mut self, now: Now) {
        if self.rotation.keys.previous.is_none() {
            return;
        }
        let missing: Vec<SiteId> = self.missing();
        let age = now.wall.since(self.rotation.keys.since);
        // A peer that was never seen at all may have nothing but an old announcement.
        if missing.is_empty() && age >= Duration::from_secs(1) || age >= KEPT_FOR {
            self.give_up_previous();
            return;
        }
        if age >= MISSED_AFTER && !self.rotation.is_missed_told {
            self.rotation.is_missed_told = true;
            self.tell(Event::KeyMissed { sites: missing });
        }
    }

    fn missing(&self) -> Vec<SiteId> {
        let is_missing = |site: &&Site| site.is_peer() && !site.has_seen_key;
        self.sites
            .iter()
            .filter(is_missing)
            .map(|site| site.id)
            .collect()
    }

    fn give_up_previous(&mut self) {
        let Some(key) = self.rotation.keys.previous.take() else {
            return;
        };
        let missed = self.missing();
        self.generation += 1;
        self.tell(Event::KeyRetired { key, missed });
    }
}
