//! Revocations and goodbyes: what everybody has to hear at once.

use std::time::{Duration, Instant};

use crate::certificate::CertificateError;
use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::arrival::{Destination, Door};
use crate::machine::clock::Now;
use crate::machine::counters::Drop;
use crate::machine::events::{Class, Event};
use crate::machine::sites::{Origin, Site};
use crate::message::{Goodbye, Message};
use crate::revocation::{Added, PARTS_MAX, RevocationPart, RevocationQuery, RevokedBy};
use crate::signed::Signed;

/// When a part is sent after it was learnt: again, as datagrams get lost. What all of them miss is asked for later.
const REPEATS_MS: [u64; 3] = [0, 400, 1200];
/// Most messages that are being repeated.
const FLOODING_MAX: usize = 4 * PARTS_MAX;
/// A site whose revocations differ from ours is asked for them once in this time.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What is being told to everybody.
#[derive(Default)]
pub(super) struct Flood {
    items: Vec<Item>,
}

struct Item {
    message: Message,
    /// Who knows it already.
    except: Option<SiteId>,
    times: usize,
    since: Option<Instant>,
    on_lans: bool,
}

impl Flood {
    pub fn next_at(&self) -> Option<Instant> {
        self.items.iter().filter_map(Item::next_at).min()
    }

    pub fn add_goodbye(&mut self, author: SiteId, message: Message, now: Instant) {
        self.add(message, Some(author), false, now);
    }

    fn add(&mut self, message: Message, except: Option<SiteId>, on_lans: bool, now: Instant) {
        if self.items.len() == FLOODING_MAX {
            // The oldest was sent at least once, or whoever misses it will ask.
            self.items.remove(0);
        }
        self.items.push(Item {
            message,
            except,
            times: 0,
            since: Some(now),
            on_lans,
        });
    }
}

impl Item {
    fn next_at(&self) -> Option<Instant> {
        let after = REPEATS_MS.get(self.times)?;
        Some(self.since? + Duration::from_millis(*after))
    }
}

impl Machine {
    /// Takes a part of a list that the operator's tools signed, and tells everybody. All parts of a list are to be handed
    /// in.
    ///
    /// # Errors
    /// A part that nobody of this network may sign.
    pub fn revoke(&mut self, part: RevocationPart, now: Now) -> Result<Added, CertificateError> {
        let verified = part.clone().verify(&mut self.trust)?;
        let list = part.list();
        let added = self.revocations.add(verified);
        match added {
            Added::New => self.revocations_changed(part, None, now),
            Added::Conflict => {
                let class = (Class::Contradiction, self.own.id);
                self.tell_hourly(class, Event::RevocationsContradict { list }, now);
            }
            Added::Known | Added::Old | Added::SignerRevoked | Added::TooManySigners => {}
        }
        Ok(added)
    }

    /// Whether somebody revoked us: then we say nothing and have no peers.
    pub fn is_self_revoked(&self) -> bool {
        self.self_revoked
    }

    pub(super) fn handle_revocation_part(
        &mut self,
        part: RevocationPart,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let is_same = |known: &RevocationPart| known.as_bytes() == part.as_bytes();
        let is_newer = |known: &RevocationPart| {
            known.list() == part.list() && known.version() > part.version()
        };
        if self
            .revocations
            .parts()
            .any(|it| is_same(it) || is_newer(it))
        {
            return Err(Drop::Replay);
        }
        self.spend_verification(now)?;
        let verified = part
            .clone()
            .verify(&mut self.trust)
            .map_err(|error| match error {
                CertificateError::OtherNetwork { .. } => Drop::OtherNetwork,
                CertificateError::BadSignature
                | CertificateError::BadDelegation
                | CertificateError::OutsideDelegation
                | CertificateError::NoPower
                | CertificateError::RoleNotGiven
                | CertificateError::OtherSigner => Drop::BadSignature,
            })?;
        let list = part.list();
        match self.revocations.add(verified) {
            Added::New => {}
            Added::Conflict => {
                let class = (Class::Contradiction, self.own.id);
                self.tell_hourly(class, Event::RevocationsContradict { list }, now);
                return Err(Drop::BadSignature);
            }
            Added::Known | Added::Old => return Err(Drop::Replay),
            Added::SignerRevoked => return Err(Drop::Revoked),
            Added::TooManySigners => return Err(Drop::TableFull),
        }
        let from = match origin.door {
            Door::Tunnel(from) => Some(from),
            Door::Lan(_) | Door::Wan => None,
        };
        self.revocations_changed(part, from, now);
        self.ask_for_more(origin, now);
        Ok(())
    }

    fn revocations_changed(&mut self, part: RevocationPart, from: Option<SiteId>, now: Now) {
        let message = Message::RevocationPart(part);
        // Whom it names is told too, before its tunnel goes.
        let named: Vec<SiteId> = self
            .sites
            .connected()
            .filter(|site| self.revocations.is_site_revoked(site.id))
            .map(|site| site.id)
            .collect();
        for id in named {
            self.send(&message, Destination::Site(id));
        }
        self.flood.add(message, from, true, now.instant);
        self.drop_revoked();
        self.tell_everybody(now);
    }

    /// Removes whom any list names, and all whom a revoked issuer made.
    pub(super) fn drop_revoked(&mut self) {
        let judged: Vec<(SiteId, RevokedBy, bool)> = self
            .sites
            .iter()
            .filter_map(|site| {
                let by = match &site.certificate {
                    Some(certificate) => self.revocations.judge(certificate)?,
                    None => {
                        let is_revoked = self.revocations.is_site_revoked(site.id);
                        is_revoked.then_some(RevokedBy::Site)?
                    }
                };
                Some((site.id, by, site.is_peer()))
            })
            .collect();
        for (site, by, was_peer) in judged {
            self.sites.remove(site);
            self.challenges.forget(site);
            self.gossip.forget(site);
            self.approved.sites.remove(&site);
            self.generation += 1;
            if was_peer {
                self.tell(Event::Revoked { site, by });
                self.expiry.conflicts_changed();
            }
        }
        let is_revoked = self.revocations.judge(&self.own.certificate).is_some();
        if is_revoked && !self.self_revoked {
            self.tell(Event::SelfRevoked);
            self.generation += 1;
        }
        self.self_revoked = is_revoked;
    }

    /// Sends what is being told to everybody, as often as it is repeated.
    pub(super) fn repeat_flood(&mut self, now: Now) {
        let mut due = Vec::new();
        for item in &mut self.flood.items {
            if item.next_at().is_some_and(|at| at <= now.instant) {
                item.times += 1;
                due.push((item.message.clone(), item.except, item.on_lans));
            }
        }
        self.flood.items.retain(|item| item.next_at().is_some());
        for (message, except, on_lans) in due {
            self.send_to_all(&message, except, on_lans);
        }
    }

    fn send_to_all(&mut self, message: &Message, except: Option<SiteId>, on_lans: bool) {
        let is_meant = |site: &&Site| Some(site.id) != except;
        let all: Vec<SiteId> = self
            .sites
            .connected()
            .filter(is_meant)
            .map(|it| it.id)
            .collect();
        // Only who passes something on says how far it may go.
        let is_passed_on =
            matches!(message, Message::Goodbye(signed) if signed.claims().site != self.own.id);
        let body = message.to_body();
        for id in all {
            if is_passed_on {
                self.pass_on(id, message.clone());
            } else {
                self.send_body(message.kind(), &body, Destination::Site(id));
            }
        }
        if on_lans {
            self.send_on_lans(message);
        }
    }

    /// A site that knows other revocations than we is asked what we miss. It asks us when it hears from us.
    pub(super) fn ask_for_revocations(
        &mut self,
        site: SiteId,
        their_state: u64,
        origin: Origin,
        now: Now,
    ) {
        if their_state == self.revocations.state() || their_state == 0 {
            return;
        }
        let Some(site) = self.sites.site_mut(site) else {
            return;
        };
        let is_early = site
            .revocations_asked_at
            .is_some_and(|at| now.instant.saturating_duration_since(at) < ASK_EVERY);
        if is_early {
            return;
        }
        site.revocations_asked_at = Some(now.instant);
        self.await_answer(origin, now);
        let query = Message::RevocationQuery(self.revocations.query());
        self.send(&query, origin.back);
    }

    /// A part came from somebody who was asked: there may be more.
    fn ask_for_more(&mut self, origin: Origin, now: Now) {
        let is_source = |site: &&mut Site| match origin.door {
            Door::Tunnel(from) => site.id == from,
            Door::Lan(_) | Door::Wan => site.contact == Some((origin.door, origin.source)),
        };
        let was_asked = self
            .sites
            .iter_mut()
            .find(is_source)
            .filter(|site| {
                let is_late = |at| now.instant.saturating_duration_since(at) < ASK_EVERY;
                site.revocations_asked_at.is_some_and(is_late)
            })
            .is_some();
        if was_asked {
            let query = Message::RevocationQuery(self.revocations.query());
            self.send(&query, origin.back);
        }
    }

    pub(super) fn handle_revocation_query(
        &mut self,
        query: &RevocationQuery,
        origin: Origin,
    ) -> Result<(), Drop> {
        if query.network != self.own.network {
            return Err(Drop::OtherNetwork);
        }
        let part = self.revocations.answer(query).ok_or(Drop::Unanswerable)?;
        let message = Message::RevocationPart(part.clone());
        self.send(&message, origin.back);
        Ok(())
    }

    /// Tells everybody who listens that we stop.
    pub(super) fn say_goodbye(&mut self, now: Now) {
        let goodbye = Goodbye {
            network: self.own.network,
            site: self.own.id,
            stamp: self.own.next_stamp(),
            issued_at: now.wall,
        };
        let message = Message::Goodbye(Signed::sign(goodbye, &self.own.key));
        self.send_to_all(&message, None, true);
    }
}
