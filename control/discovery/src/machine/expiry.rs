//! What changes by itself: certificates end, peers fall silent, and are forgotten.

use std::time::Duration;

use crate::certificate::{Standing, TrustedCertificate};
use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::clock::Now;
use crate::machine::events::Event;
use crate::machine::sites::{Admission, Site};

/// How often it is looked at.
pub(super) const CHORES: Duration = Duration::from_secs(5);
/// A site without a session that was not heard for so long is silent.
const SILENT_AFTER: Duration = Duration::from_secs(300);
/// A silent site is no peer after this time: its WireGuard keys live no longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(26 * 3600);
/// The end of a certificate is told so many days before.
const WARNINGS: [u8; 3] = [7, 3, 1];
/// Told as "it has ended".
const ENDED: u8 = 0;
const DAY: Duration = Duration::from_secs(86_400);

/// What was told of our own certificate, and whether conflicts may be over.
#[derive(Default)]
pub(super) struct Expiry {
    own_told: Option<u8>,
    conflicts_changed: bool,
}

impl Expiry {
    /// There is another certificate of ours.
    pub fn own_is_new(&mut self) {
        self.own_told = None;
        self.conflicts_changed = true;
    }

    /// Somebody is no peer whom others may have been refused for.
    pub fn conflicts_changed(&mut self) {
        self.conflicts_changed = true;
    }
}

impl Machine {
    pub(super) fn do_chores(&mut self, now: Now) {
        self.warn_of_own_end(now);
        self.look_at_sites(now);
        if std::mem::take(&mut self.expiry.conflicts_changed) {
            self.reconsider_all(now);
        }
        self.choose_relays(now);
        self.rotate_keys(now);
    }

    fn warn_of_own_end(&mut self, now: Now) {
        let certificate = self.own.certificate.clone();
        let told = self.expiry.own_told;
        if let Some((level, event)) = self.ending(&certificate, told, now) {
            self.expiry.own_told = Some(level);
            self.tell(event);
        }
    }

    fn look_at_sites(&mut self, now: Now) {
        let ids: Vec<SiteId> = self
            .sites
            .iter()
            .filter(|site| site.is_verified())
            .map(|site| site.id)
            .collect();
        for id in ids {
            self.warn_of_end(id, now);
            self.look_for_silence(id, now);
        }
    }

    fn warn_of_end(&mut self, id: SiteId, now: Now) {
        let Some(site) = self.sites.site(id) else {
            return;
        };
        let Some(certificate) = site.certificate.as_ref() else {
            return;
        };
        let is_peer = site.admission == Admission::Peer;
        let ending = self.ending(certificate, site.ending_told, now);
        let is_over = matches!(
            certificate.standing(now.wall, self.config.grace),
            Standing::Expired { .. }
        );
        if let Some((level, event)) = ending {
            if let Some(site) = self.sites.site_mut(id) {
                site.ending_told = Some(level);
            }
            if is_peer {
                self.tell(event);
            }
        }
        if is_over && is_peer {
            self.reconsider(id, now);
        }
    }

    /// What to tell of a certificate's end, where that was not told yet.
    fn ending(
        &self,
        certificate: &TrustedCertificate,
        told: Option<u8>,
        now: Now,
    ) -> Option<(u8, Event)> {
        let site = certificate.site_id();
        let is_own = site == self.own.id;
        let level = match certificate.standing(now.wall, self.config.grace) {
            Standing::NotYetValid { .. } => return None,
            Standing::Valid { left } => WARNINGS
                .into_iter()
                .rev()
                .find(|days| left <= DAY * u32::from(*days))?,
            Standing::Grace { .. } | Standing::Expired { .. } => ENDED,
        };
        if told.is_some_and(|told| told <= level) {
            return None;
        }
        let event = if level == ENDED {
            Event::CertificateEnded {
                site,
                is_own,
                grace_until: certificate.validity().not_after() + self.config.grace,
            }
        } else {
            Event::CertificateEnding {
                site,
                is_own,
                days: level,
            }
        };
        Some((level, event))
    }

    fn look_for_silence(&mut self, id: SiteId, now: Now) {
        let Some(site) = self.sites.site_mut(id) else {
            return;
        };
        let silence = site
            .heard_at
            .or(site.cached_at)
            .map_or(Duration::ZERO, |at| {
                now.instant.saturating_duration_since(at)
            });
        if site.session.is_up() || silence < SILENT_AFTER {
            return;
        }
        let is_peer = site.is_peer();
        if silence >= FORGOTTEN_AFTER {
            self.forget(id, is_peer);
            return;
        }
        if !site.is_silent && !site.has_left {
            site.is_silent = true;
            self.generation += 1;
            if is_peer {
                self.tell(Event::PeerSilent { site: id });
            }
        }
    }

    fn forget(&mut self, id: SiteId, was_peer: bool) {
        let had_name = self
            .sites
            .remove(id)
            .is_some_and(|site: Site| site.admission == Admission::Peer);
        self.challenges.forget(id);
        self.gossip.forget(id);
        self.generation += 1;
        if had_name {
            self.expiry.conflicts_changed();
        }
        if was_peer {
            self.tell(Event::PeerForgotten { site: id });
        }
    }
}
