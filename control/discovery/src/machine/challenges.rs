//! Replays and challenges: what came before, and who is there now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::announce::{Announcement, Stamp};
use crate::ids::{Nonce, SiteId};
use crate::machine::Machine;
use crate::machine::clock::Now;
use crate::machine::counters::Drop;
use crate::machine::events::{Class, Event};
use crate::machine::receive::SKEW_MAX;
use crate::machine::sites::{Challenged, Origin, Waiting};
use crate::message::{Challenge, ChallengeResponse, Message};
use crate::signed::{Signed, Verified};
use crate::time::WallTime;

/// The answer has to come within this time.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A challenge is sent so many times before the site has to announce itself again.
const TRIES: u8 = 3;
/// What a site signs between an announcement and the answer to its challenge. What is further behind is a replay.
const STAMPS_BETWEEN: u64 = 64;
/// A peer of which nothing fresh is heard, and that seems to repeat itself, is asked once in this time whether it lost
/// count.
const LOST_COUNT_EVERY: Duration = Duration::from_secs(30);

/// When which challenge is over.
#[derive(Default)]
pub(super) struct Challenges {
    due: BTreeMap<SiteId, Instant>,
}

impl Challenges {
    pub fn next_at(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    pub fn forget(&mut self, site: SiteId) {
        self.due.remove(&site);
    }
}

impl Machine {
    /// A stamp that is not later than the last one is a replay. A site that is silent otherwise may have lost its count:
    /// it is asked, now and then.
    pub(super) fn check_newer(
        &mut self,
        site: SiteId,
        stamp: Stamp,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let Some(known) = self.sites.site(site) else {
            return Ok(());
        };
        let waiting = known.waiting.as_ref().map(|it| it.announcement.claims());
        if waiting.is_some_and(|waiting| stamp <= waiting.stamp) && known.challenged.is_some() {
            return Err(Drop::Replay);
        }
        let Some(last) = known.stamp.filter(|last| stamp <= *last) else {
            return Ok(());
        };
        let heard = known.heard_at;
        let is_silent = heard
            .is_none_or(|at| now.instant.saturating_duration_since(at) >= LOST_COUNT_EVERY * 2);
        let may_have_lost_count = stamp.boot_epoch < last.boot_epoch
            && is_silent
            && !known.session.is_up()
            && origin.is_direct_and_clear()
            && known
                .challenged
                .is_none_or(|it| now.instant.saturating_duration_since(it.at) >= LOST_COUNT_EVERY);
        if may_have_lost_count && self.verifying.take(now.instant) {
            self.challenge(site, origin, now);
        }
        Err(Drop::Replay)
    }

    /// Too old by the site's own clock, as far as that is known.
    pub(super) fn check_age(&self, signed: &Signed<Announcement>, now: Now) -> Result<(), Drop> {
        let claims = signed.claims();
        let Some(offset) = self.sites.site(claims.site).and_then(|site| site.fresh) else {
            return Ok(());
        };
        let age = offset_of(now.wall, claims.issued_at).saturating_add(offset);
        let limit = i64::from(claims.ttl_s) * 1000;
        // A clock that jumped is found by the challenge.
        let is_known_clock = age.unsigned_abs() <= SKEW_MAX.as_millis() as u64 + limit as u64;
        if age > limit && is_known_clock {
            return Err(Drop::Stale);
        }
        Ok(())
    }

    /// An announcement is signed as it should be. Whether it is of now, the clock says, or the site itself.
    pub(super) fn accept_or_challenge(
        &mut self,
        verified: Verified<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let content = verified.content();
        let site = content.site;
        let offset = offset_of(content.issued_at, now.wall);
        let known = self.sites.site(site).and_then(|site| site.fresh);
        let skew_ms = SKEW_MAX.as_millis() as u64;
        let is_fresh = known.is_some_and(|known| known.abs_diff(offset) <= skew_ms);
        if is_fresh || origin.is_vouched_for() {
            // What was passed on may be minutes old: it says nothing of the clock.
            if !is_fresh && origin.relayed.is_none() {
                self.set_fresh(site, offset, now);
            }
            return self.accept(verified, origin, now);
        }
        self.wait_for_proof(verified, origin, now)
    }

    fn wait_for_proof(
        &mut self,
        verified: Verified<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let site = verified.content().site;
        let (is_challenged, evicted) = self.sites.change(site, |site| {
            site.waiting = Some(Waiting {
                announcement: verified.signed().clone(),
                from: origin,
            });
            site.challenged.is_some_and(|challenged| {
                now.instant.saturating_duration_since(challenged.at) < ANSWER_WITHIN
            })
        });
        self.count_evicted(evicted);
        if !is_challenged {
            self.challenge(site, origin, now);
        }
        Err(Drop::Challenged)
    }

    fn challenge(&mut self, site: SiteId, origin: Origin, now: Now) {
        let nonce = Nonce::random(&mut self.dice);
        let Some(known) = self.sites.site_mut(site) else {
            return;
        };
        known.challenged = Some(Challenged {
            nonce,
            at: now.instant,
            tries: 1,
            to: origin.back,
        });
        self.challenges
            .due
            .insert(site, now.instant + ANSWER_WITHIN);
        self.await_answer(origin, now);
        self.send_challenge(site, nonce, origin.back);
    }

    fn send_challenge(&mut self, site: SiteId, nonce: Nonce, to: crate::machine::Destination) {
        let challenge = Challenge {
            network: self.own.network,
            site,
            nonce,
        };
        self.send(&Message::Challenge(challenge), to);
    }

    /// Asks again who did not answer, as it may have been lost; gives up in the end.
    pub(super) fn retry_challenges(&mut self, now: Now) {
        let is_due = |(_, at): &(&SiteId, &Instant)| **at <= now.instant;
        let due: Vec<SiteId> = self
            .challenges
            .due
            .iter()
            .filter(is_due)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.challenges.due.remove(&id);
            let nonce = Nonce::random(&mut self.dice);
            let Some(site) = self.sites.site_mut(id) else {
                continue;
            };
            let Some(challenged) = site.challenged.as_mut() else {
                continue;
            };
            if challenged.tries >= TRIES || site.waiting.is_none() {
                site.challenged = None;
                continue;
            }
            challenged.tries += 1;
            challenged.nonce = nonce;
            challenged.at = now.instant;
            let to = challenged.to;
            self.challenges.due.insert(id, now.instant + ANSWER_WITHIN);
            self.send_challenge(id, nonce, to);
        }
    }

    pub(super) fn handle_challenge(
        &mut self,
        challenge: &Challenge,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        if challenge.network != self.own.network {
            return Err(Drop::OtherNetwork);
        }
        if challenge.site != self.own.id {
            return Err(Drop::Unanswerable);
        }
        if !self.signing.take(now.instant) {
            return Err(Drop::Busy);
        }
        let response = ChallengeResponse {
            network: self.own.network,
            site: self.own.id,
            nonce: challenge.nonce,
            stamp: self.own.stamp,
            issued_at: now.wall,
        };
        let signed = Signed::sign(response, &self.own.key);
        self.await_answer(origin, now);
        self.send(&Message::ChallengeResponse(signed), origin.back);
        Ok(())
    }

    pub(super) fn handle_response(
        &mut self,
        signed: Signed<ChallengeResponse>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let claims = *signed.claims();
        self.check_author(claims.network, claims.site)?;
        self.check_not_revoked(claims.site, now)?;
        let known = self.sites.site(claims.site).ok_or(Drop::Unasked)?;
        let challenged = known.challenged.ok_or(Drop::Unasked)?;
        let is_in_time = now.instant.saturating_duration_since(challenged.at) <= ANSWER_WITHIN;
        if challenged.nonce != claims.nonce || !is_in_time {
            return Err(Drop::Unasked);
        }
        let certificate = known.certificate.clone().ok_or(Drop::UnknownCertificate)?;
        self.spend_verification(now)?;
        signed
            .verify(&certificate)
            .map_err(|_| Drop::BadSignature)?;
        self.prove(claims, &certificate, origin, now)
    }

    fn prove(
        &mut self,
        response: ChallengeResponse,
        certificate: &crate::certificate::TrustedCertificate,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let id = response.site;
        let offset = offset_of(response.issued_at, now.wall);
        self.set_fresh(id, offset, now);
        self.challenges.forget(id);
        let Some(site) = self.sites.site_mut(id) else {
            return Err(Drop::Unasked);
        };
        site.challenged = None;
        let lost_count = site.stamp.is_some_and(|last| response.stamp < last);
        if lost_count {
            // It is there and says so itself: it counts anew.
            site.stamp = Some(response.stamp);
        }
        let Some(waiting) = site.waiting.take() else {
            return Ok(());
        };
        let claims = waiting.announcement.claims();
        let is_of_now = is_close(claims.stamp, response.stamp)
            && claims.certificate == certificate.fingerprint();
        if !is_of_now {
            site.stamp = site.stamp.max(Some(response.stamp));
            return Err(Drop::Replay);
        }
        // It was verified before it had to wait, with this certificate; a newer one may have come since.
        let verified = waiting
            .announcement
            .verify(certificate)
            .map_err(|_| Drop::BadSignature)?;
        let from = Origin {
            back: origin.back,
            ..waiting.from
        };
        self.accept(verified, from, now)
    }

    fn set_fresh(&mut self, id: SiteId, offset: i64, now: Now) {
        if let Some(site) = self.sites.site_mut(id) {
            site.fresh = Some(offset);
        }
        if offset.unsigned_abs() > SKEW_MAX.as_millis() as u64 {
            let event = Event::ClockSkew {
                site: id,
                offset_s: offset / 1000,
            };
            self.tell_hourly((Class::Skew, id), event, now);
        }
    }
}

/// Milliseconds from `there` back to `here`: positive where `there` is later.
fn offset_of(there: WallTime, here: WallTime) -> i64 {
    let span = there.0.abs_diff(here.0).min(i64::MAX as u64) as i64;
    if there >= here { span } else { -span }
}

/// Whether an announcement was signed shortly before the answer.
fn is_close(announced: Stamp, answered: Stamp) -> bool {
    announced.boot_epoch == answered.boot_epoch
        && announced.sequence.saturating_add(STAMPS_BETWEEN) >= answered.sequence
}
