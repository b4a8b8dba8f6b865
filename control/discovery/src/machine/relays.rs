//! Whom packets go through as the last resort.

use std::time::Duration;

use blake2::{Blake2s256, Digest};

use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::clock::Now;
use crate::machine::events::Event;
use crate::machine::peers::DRAINING;
use crate::machine::sites::Site;
use crate::subject::Roles;

/// A direct way has so long before somebody passes packets on.
const DIRECT_WITHIN: Duration = Duration::from_secs(15);
/// A relay has so long to bring a session up before the next one is tried.
const RELAYED_WITHIN: Duration = Duration::from_secs(20);

impl Machine {
    /// Chooses, keeps or drops the relay for a peer.
    pub(super) fn choose_relay(&mut self, id: SiteId, now: Now) {
        let Some(site) = self.sites.site(id).filter(|site| site.is_peer()) else {
            return;
        };
        let waits = site.session.wanted_since.map_or(Duration::ZERO, |since| {
            now.instant.saturating_duration_since(since)
        });
        let before = site.session.relay;
        let is_needed = !site.session.is_direct() && (before.is_some() || waits >= DIRECT_WITHIN);
        let has_path = site.session.is_up();
        let keeps = before
            .filter(|relay| self.can_relay(*relay, id))
            .filter(|_| {
                let since = site.session.relay_since.unwrap_or(now.instant);
                has_path || now.instant.saturating_duration_since(since) < RELAYED_WITHIN
            });
        let after = match (is_needed, keeps) {
            (false, _) => None,
            (true, Some(relay)) => Some(relay),
            (true, None) => self.best_relay(id, before),
        };
        let is_unreachable = is_needed && after.is_none() && !site.session.unreachable_told;
        if before == after && !is_unreachable {
            return;
        }
        let Some(site) = self.sites.site_mut(id) else {
            return;
        };
        site.session.relay = after;
        if before != after {
            site.session.relay_since = Some(now.instant);
            self.generation += 1;
        }
        if is_unreachable {
            site.session.unreachable_told = true;
            self.tell(Event::Unreachable { site: id });
        } else if let Some(relay) = after {
            self.tell(Event::Relaying { site: id, relay });
        }
    }

    /// Both ends take the same relay where they reach the same ones: the order is made of both ids and the relay's. The
    /// one that has just failed goes to the end.
    fn best_relay(&self, to: SiteId, failed: Option<SiteId>) -> Option<SiteId> {
        let order = |relay: &SiteId| (Some(*relay) == failed, rank(self.own.id, to, *relay));
        self.sites
            .connected()
            .map(|site| site.id)
            .filter(|relay| self.can_relay(*relay, to))
            .min_by_key(order)
    }

    fn can_relay(&self, relay: SiteId, to: SiteId) -> bool {
        self.sites.site(relay).is_some_and(|site| {
            let may = site.has_role(Roles::RELAY) || site.has_role(Roles::HUB);
            relay != to && may && site.is_connected() && site.session.is_direct() && !drains(site)
        })
    }

    /// Relays come and go: peers without a direct way are looked at again.
    pub(super) fn choose_relays(&mut self, now: Now) {
        let needs = |site: &&Site| site.is_peer() && !site.session.is_direct();
        let ids: Vec<SiteId> = self
            .sites
            .iter()
            .filter(needs)
            .map(|site| site.id)
            .collect();
        for id in ids {
            self.choose_relay(id, now);
        }
    }
}

fn drains(site: &Site) -> bool {
    let announced = site.announcement.as_ref().map(|it| it.content());
    announced.is_some_and(|it| it.capabilities.common(DRAINING) == DRAINING)
}

fn rank(one: SiteId, other: SiteId, relay: SiteId) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    hasher.update(one.min(other).as_bytes());
    hasher.update(one.max(other).as_bytes());
    hasher.update(relay.as_bytes());
    hasher.finalize().into()
}
