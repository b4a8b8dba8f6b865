//! Who becomes a peer, who has to wait, and who cannot have what another site has.

use std::collections::BTreeSet;

use crate::announce::{Announcement, Stamp};
use crate::certificate::Standing;
use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::clock::Now;
use crate::machine::config::Approval;
use crate::machine::conflicts::clash;
use crate::machine::counters::Drop;
use crate::machine::events::{Class, Event};
use crate::machine::peers::DRAINING;
use crate::machine::sites::{Admission, Origin, Site, VERIFIED_MAX};
use crate::signed::Verified;
use crate::subject::Subject;
use crate::time::WallTime;

/// Whom the operator approved.
#[derive(Default)]
pub(super) struct Approved {
    pub sites: BTreeSet<SiteId>,
}

/// What an announcement that counts changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    /// It says something that others may not know.
    pub is_news: bool,
    /// The site was not there before: it is the first one of this run, or after a silence.
    pub is_back: bool,
}

impl Machine {
    /// Lets a site be a peer. `false` where it was approved before, or 4096 sites were.
    pub fn approve(&mut self, site: SiteId, now: Now) -> bool {
        if self.approved.sites.len() >= VERIFIED_MAX || !self.approved.sites.insert(site) {
            return false;
        }
        self.tell(Event::Approved { site });
        self.reconsider(site, now);
        true
    }

    /// Takes an approval back: the site is no peer until it is approved again.
    pub fn disapprove(&mut self, site: SiteId, now: Now) -> bool {
        let was_approved = self.approved.sites.remove(&site);
        self.reconsider(site, now);
        was_approved
    }

    /// Whom the operator approved, by site.
    pub fn approved(&self) -> impl Iterator<Item = SiteId> {
        self.approved.sites.iter().copied()
    }

    /// Takes an announcement that counts into the table.
    pub(super) fn admit(
        &mut self,
        verified: Verified<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Result<Admitted, Drop> {
        let id = verified.content().site;
        let before = self.sites.site(id);
        let is_known = before.is_some_and(Site::is_verified);
        if !is_known && !self.sites.has_room_for_verified() {
            return Err(Drop::TableFull);
        }
        let certificate = before.and_then(|site| site.certificate.as_ref());
        let by = certificate.and_then(|known| self.revocations.judge(known));
        if let Some(by) = by {
            let event = Event::Revoked { site: id, by };
            self.tell_hourly((Class::Revoked, id), event, now);
            return Err(Drop::Revoked);
        }
        let admitted = self.take_announcement(verified, origin, now);
        self.reconsider(id, now);
        Ok(admitted)
    }

    fn take_announcement(
        &mut self,
        verified: Verified<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Admitted {
        let content = verified.content().clone();
        let own = &self.config.own_addresses;
        let sifted = content.endpoints.without_own(|addr| own.contains(&addr));
        self.counters.endpoints_ignored += u64::from(sifted.ignored());
        let ((admitted, was_peer_gone, drains), evicted) =
            self.sites.change(content.site, |site| {
                let drained = site
                    .announcement
                    .as_ref()
                    .map(|it| is_draining(it.content()));
                let is_same = site
                    .announcement
                    .as_ref()
                    .is_some_and(|before| says_the_same(before.content(), &content));
                let is_back = site.heard_at.is_none() || site.is_silent || site.has_left;
                let was_gone = site.is_verified() && (site.is_silent || site.has_left);
                site.stamp = Some(content.stamp);
                site.announcement = Some(verified);
                site.waiting = None;
                site.heard_at = Some(now.instant);
                site.is_silent = false;
                site.has_left = false;
                if origin.is_direct_and_clear() {
                    site.contact = Some((origin.door, origin.source));
                }
                let admitted = Admitted {
                    is_news: !is_same || was_gone,
                    is_back,
                };
                let drains = is_draining(&content);
                let changed = (drained.unwrap_or(false) != drains).then_some(drains);
                (admitted, was_gone, changed)
            });
        self.count_evicted(evicted);
        if admitted.is_news {
            self.generation += 1;
        }
        let site = content.site;
        let is_peer = self.sites.site(site).is_some_and(Site::is_peer);
        if was_peer_gone && is_peer {
            self.tell(Event::PeerBack { site });
        }
        if let Some(is_draining) = drains.filter(|_| is_peer) {
            self.tell(Event::PeerDraining { site, is_draining });
        }
        admitted
    }

    pub(super) fn reconsider_all(&mut self, now: Now) {
        let mut ids: Vec<_> = self
            .sites
            .iter()
            .filter(|site| site.is_verified())
            .map(|site| {
                let is_peer = site.admission == Admission::Peer;
                let since = if is_peer {
                    site.peer_since
                } else {
                    WallTime(0)
                };
                (!is_peer, since, site.order, site.id)
            })
            .collect();
        // Who was first keeps what only one can have.
        ids.sort_unstable();
        for (_, _, _, id) in ids {
            self.reconsider(id, now);
        }
    }

    /// Decides anew what a site is to us.
    pub(super) fn reconsider(&mut self, id: SiteId, now: Now) {
        let Some(site) = self.sites.site(id) else {
            return;
        };
        let before = site.admission;
        let after = self.judge_admission(site, now);
        if before == after {
            return;
        }
        let subject = site
            .certificate
            .as_ref()
            .map(|certificate| certificate.content().subject.clone());
        self.sites.change(id, |site| {
            site.admission = after;
            if after == Admission::Peer {
                site.peer_since = now.wall;
                site.session.wanted_since = Some(now.instant);
            }
        });
        self.generation += 1;
        let Some(subject) = subject else { return };
        match after {
            Admission::Peer => self.tell(Event::NewPeer {
                site: id,
                name: subject.name,
            }),
            Admission::Pending => self.tell(Event::Pending {
                site: id,
                name: subject.name,
            }),
            Admission::Refused => self.tell_conflict(id, &subject, now),
            Admission::Stranger => {}
        }
        if before == Admission::Peer {
            // Somebody else may have what this one had.
            self.expiry.conflicts_changed();
        }
    }

    fn judge_admission(&self, site: &Site, now: Now) -> Admission {
        let Some(certificate) = site.certificate.as_ref().filter(|_| site.is_verified()) else {
            return Admission::Stranger;
        };
        let is_peer = site.admission == Admission::Peer;
        match certificate.standing(now.wall, self.config.grace) {
            Standing::Valid { .. } => {}
            // A clock that jumped back is no reason to lose those that are known.
            Standing::Grace { .. } | Standing::NotYetValid { .. } if is_peer => {}
            Standing::Grace { .. } | Standing::NotYetValid { .. } | Standing::Expired { .. } => {
                return Admission::Stranger;
            }
        }
        let subject = &certificate.content().subject;
        if !self.is_approved(site.id, subject) {
            return Admission::Pending;
        }
        if self.find_conflict(site.id, subject).is_some() {
            return Admission::Refused;
        }
        Admission::Peer
    }

    fn is_approved(&self, site: SiteId, subject: &Subject) -> bool {
        match &self.config.approval {
            Approval::Everybody => true,
            Approval::Operator { auto_groups } => {
                let group = subject.ha_group.as_ref();
                self.approved.sites.contains(&site)
                    || group.is_some_and(|group| auto_groups.contains(group))
            }
        }
    }

    fn tell_conflict(&mut self, refused: SiteId, subject: &Subject, now: Now) {
        let Some((kept, clash)) = self.find_conflict(refused, subject) else {
            return;
        };
        let event = Event::Conflict {
            kept,
            refused,
            clash,
        };
        self.tell_hourly((Class::Conflict, refused), event, now);
    }

    /// Whom a site cannot be a peer beside: ourselves, or a peer that was there before.
    fn find_conflict(
        &self,
        id: SiteId,
        subject: &Subject,
    ) -> Option<(SiteId, crate::machine::Clash)> {
        let own = &self.own.certificate.content().subject;
        if let Some(found) = clash(own, subject) {
            return Some((self.own.id, found));
        }
        let since = self
            .sites
            .site(id)
            .filter(|site| site.admission == Admission::Peer)
            .map(|site| (site.peer_since, site.order));
        self.sites
            .iter()
            .filter(|other| other.id != id && other.admission == Admission::Peer)
            .filter(|other| since.is_none_or(|since| (other.peer_since, other.order) < since))
            .find_map(|other| {
                let theirs = &other.certificate.as_ref()?.content().subject;
                Some((other.id, clash(theirs, subject)?))
            })
    }

    /// A site stops in order.
    pub(super) fn take_leave(&mut self, id: SiteId, stamp: Stamp) {
        let was_peer = self.sites.site(id).is_some_and(Site::is_peer);
        self.sites.change(id, |site| {
            site.stamp = Some(stamp);
            site.has_left = true;
            site.session = crate::machine::reachability::Session::default();
        });
        self.generation += 1;
        if was_peer {
            self.tell(Event::PeerLeft { site: id });
        }
    }
}

fn is_draining(content: &Announcement) -> bool {
    content.capabilities.common(DRAINING) == DRAINING
}

/// Whether two announcements differ in nothing that others have to hear soon.
fn says_the_same(before: &Announcement, after: &Announcement) -> bool {
    before.certificate == after.certificate
        && before.wireguard == after.wireguard
        && before.capabilities == after.capabilities
        && before.endpoints.as_slice() == after.endpoints.as_slice()
}
