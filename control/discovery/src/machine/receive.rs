//! What becomes of a datagram, from the cheapest check to the dearest.

use std::time::Duration;

use crate::announce::Announcement;
use crate::certificate::{Certificate, Standing};
use crate::envelope::{Header, HeaderError, OpenError};
use crate::ids::{NetworkId, SiteId};
use crate::machine::Machine;
use crate::machine::admission::Admitted;
use crate::machine::arrival::{Arrival, Door};
use crate::machine::buckets::Rate;
use crate::machine::clock::Now;
use crate::machine::counters::Drop;
use crate::machine::events::{Class, Event};
use crate::machine::joins::JoinArrival;
use crate::machine::sites::{Admission, Origin, Waiting};
use crate::message::{CertificateQuery, Goodbye, Message, Observed, Probe};
use crate::signed::{Signed, Verified};

/// A certificate is asked for once in this time.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Further apart are no two clocks that agree.
pub(super) const SKEW_MAX: Duration = Duration::from_secs(300);
/// For so long a source that said something fresh is no stranger.
const FAMILIAR: Duration = Duration::from_secs(120);
/// For so long the answer of a source that was asked something is awaited.
const AWAITED: Duration = Duration::from_secs(5);
/// A site that greets again and again is answered once in this time.
const TELL_EVERY: Duration = Duration::from_secs(5);

pub(super) const VERIFYING: Rate = Rate {
    per_s: 400,
    burst: 1500,
};
pub(super) const SIGNING: Rate = Rate {
    per_s: 100,
    burst: 600,
};

impl Machine {
    pub(super) fn receive(
        &mut self,
        arrival: &Arrival,
        datagram: &mut [u8],
        now: Now,
    ) -> Result<(), Drop> {
        Header::peek(datagram).map_err(header_drop)?;
        self.check_door(arrival)?;
        if !matches!(arrival.door, Door::Tunnel(_)) {
            self.sources.admit(arrival.source.ip(), now.instant)?;
        }
        let message = self.open(datagram)?;
        let origin = Origin {
            door: arrival.door,
            source: arrival.source,
            back: arrival.back(),
            relayed: None,
        };
        self.handle_message(message, origin, now)
    }

    fn check_door(&self, arrival: &Arrival) -> Result<(), Drop> {
        match arrival.door {
            Door::Lan(lan) if !self.lans.contains(lan) => Err(Drop::Door),
            Door::Lan(_) if !arrival.is_on_link => Err(Drop::OffLink),
            Door::Lan(_) if arrival.source.is_ipv6() && arrival.hop_limit != Some(255) => {
                Err(Drop::HopLimit)
            }
            Door::Lan(_) | Door::Wan => Ok(()),
            Door::Tunnel(site) => {
                let is_peer = self.sites.site(site).is_some_and(|site| site.is_peer());
                if is_peer { Ok(()) } else { Err(Drop::Door) }
            }
        }
    }

    fn open(&self, datagram: &mut [u8]) -> Result<Message, Drop> {
        let opened = self
            .config
            .keyring
            .open(datagram)
            .map_err(|error| match error {
                OpenError::Header(error) => header_drop(error),
                OpenError::UnknownKey(_) => Drop::UnknownKey,
                OpenError::NotAuthentic => Drop::NotAuthentic,
            })?;
        Message::decode(&opened).map_err(|_| Drop::Malformed)
    }

    pub(super) fn handle_message(
        &mut self,
        message: Message,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        match message {
            Message::Announce(signed) => self.handle_announce(signed, origin, now),
            Message::CertificateQuery(query) => self.handle_certificate_query(&query, origin),
            Message::CertificateAnswer(certificate) => self.handle_certificate(*certificate, now),
            Message::Challenge(challenge) => self.handle_challenge(&challenge, origin, now),
            Message::ChallengeResponse(signed) => self.handle_response(signed, origin, now),
            Message::Probe(probe) => self.handle_probe(&probe, origin),
            Message::Observed(observed) => self.handle_observed(&observed, origin, now),
            Message::Connect(signed) => self.handle_connect(signed, origin, now),
            Message::RevocationQuery(query) => self.handle_revocation_query(&query, origin),
            Message::RevocationPart(part) => self.handle_revocation_part(part, origin, now),
            Message::Relayed(relayed) => self.handle_relayed(relayed, origin, now),
            Message::Goodbye(signed) => self.handle_goodbye(signed, origin, now),
            Message::JoinRequest(request) => {
                self.take_join(JoinArrival::direct(request, origin.back))
            }
            Message::JoinAnswer(answer) => self.take_join(JoinArrival::Answer(Box::new(answer))),
        }
    }

    /// What costs nothing: whose message it claims to be.
    pub(super) fn check_author(&self, network: NetworkId, site: SiteId) -> Result<(), Drop> {
        if network != self.own.network {
            return Err(Drop::OtherNetwork);
        }
        if site == self.own.id {
            return Err(Drop::Own);
        }
        Ok(())
    }

    pub(super) fn handle_announce(
        &mut self,
        signed: Signed<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let claims = signed.claims();
        if claims.network == self.own.network && claims.site == self.own.id {
            return self.handle_own_announce(signed, now);
        }
        self.check_author(claims.network, claims.site)?;
        let site = claims.site;
        self.check_not_revoked(site, now)?;
        if claims
            .protocol
            .common(&crate::announce::ProtocolRange::OURS)
            .is_none()
        {
            return Err(Drop::Unspoken);
        }
        self.check_newer(site, claims.stamp, origin, now)?;
        let fingerprint = claims.certificate;
        let known = self
            .sites
            .site(site)
            .and_then(|site| site.certificate.as_ref());
        let Some(certificate) = known.filter(|known| known.fingerprint() == fingerprint) else {
            return self.ask_for_certificate(signed, origin, now);
        };
        let certificate = certificate.clone();
        self.check_in_force(&certificate, now)?;
        self.check_age(&signed, now)?;
        self.spend_verification(now)?;
        let verified = signed
            .verify(&certificate)
            .map_err(|_| Drop::BadSignature)?;
        self.accept_or_challenge(verified, origin, now)
    }

    /// Our own announcement comes back from every group that we send to. One that we did not make comes from somebody
    /// else with our key.
    fn handle_own_announce(&mut self, signed: Signed<Announcement>, now: Now) -> Result<(), Drop> {
        if signed.claims().stamp <= self.own.stamp {
            return Err(Drop::Own);
        }
        self.spend_verification(now)?;
        if signed.verify(&self.own.certificate).is_ok() {
            let class = (Class::OwnKey, self.own.id);
            self.tell_hourly(class, Event::OwnKeyElsewhere, now);
        }
        Err(Drop::Own)
    }

    pub(super) fn check_not_revoked(&mut self, site: SiteId, now: Now) -> Result<(), Drop> {
        if !self.revocations.is_site_revoked(site) {
            return Ok(());
        }
        let by = crate::revocation::RevokedBy::Site;
        self.tell_hourly((Class::Revoked, site), Event::Revoked { site, by }, now);
        Err(Drop::Revoked)
    }

    /// In force, or in grace where the site is a peer already.
    fn check_in_force(
        &mut self,
        certificate: &crate::certificate::TrustedCertificate,
        now: Now,
    ) -> Result<(), Drop> {
        let site = certificate.site_id();
        let validity = certificate.validity();
        let is_peer = self
            .sites
            .site(site)
            .is_some_and(|site| site.admission == Admission::Peer);
        let (event, drop) = match certificate.standing(now.wall, self.config.grace) {
            Standing::Valid { .. } => return Ok(()),
            Standing::Grace { .. } if is_peer => return Ok(()),
            Standing::NotYetValid { .. } => {
                let from = validity.not_before();
                (
                    Event::CertificateNotYetValid { site, from },
                    Drop::NotYetValid,
                )
            }
            Standing::Grace { .. } | Standing::Expired { .. } => {
                let event = Event::CertificateEnded {
                    site,
                    is_own: false,
                    grace_until: validity.not_after() + self.config.grace,
                };
                (event, Drop::Expired)
            }
        };
        self.tell_hourly((Class::NotInForce, site), event, now);
        Err(drop)
    }

    pub(super) fn spend_verification(&mut self, now: Now) -> Result<(), Drop> {
        if self.verifying.take(now.instant) {
            Ok(())
        } else {
            Err(Drop::Busy)
        }
    }

    fn ask_for_certificate(
        &mut self,
        signed: Signed<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let claims = signed.claims();
        let query = CertificateQuery {
            network: claims.network,
            site: claims.site,
            fingerprint: Some(claims.certificate),
        };
        let (may_ask, evicted) = self.sites.change(query.site, |site| {
            site.waiting = Some(Waiting {
                announcement: signed,
                from: origin,
            });
            let is_early = site
                .asked_at
                .is_some_and(|at| now.instant.saturating_duration_since(at) < ASK_EVERY);
            if !is_early {
                site.asked_at = Some(now.instant);
            }
            !is_early
        });
        self.count_evicted(evicted);
        if may_ask {
            self.await_answer(origin, now);
            self.send(&Message::CertificateQuery(query), origin.back);
        }
        Err(Drop::UnknownCertificate)
    }

    /// Who is asked something is no stranger when it answers.
    pub(super) fn await_answer(&mut self, origin: Origin, now: Now) {
        if !origin.is_vouched_for() {
            self.sources
                .befriend(origin.source.ip(), AWAITED, now.instant);
        }
    }

    pub(super) fn count_evicted(&mut self, evicted: Option<SiteId>) {
        if let Some(evicted) = evicted {
            self.counters.evicted += 1;
            self.challenges.forget(evicted);
        }
    }

    fn handle_certificate_query(
        &mut self,
        query: &CertificateQuery,
        origin: Origin,
    ) -> Result<(), Drop> {
        if query.network != self.own.network {
            return Err(Drop::OtherNetwork);
        }
        let known = if query.site == self.own.id {
            Some(&self.own.certificate)
        } else {
            self.sites
                .site(query.site)
                .filter(|site| site.is_verified())
                .and_then(|site| site.certificate.as_ref())
        };
        let is_meant = |fingerprint| query.fingerprint.is_none_or(|named| named == fingerprint);
        let certificate = known
            .filter(|known| is_meant(known.fingerprint()))
            .ok_or(Drop::Unanswerable)?
            .certificate()
            .clone();
        self.send(
            &Message::CertificateAnswer(Box::new(certificate)),
            origin.back,
        );
        Ok(())
    }

    /// A certificate proves itself, so it need not be asked for: sites send theirs with their first announcements.
    fn handle_certificate(&mut self, certificate: Certificate, now: Now) -> Result<(), Drop> {
        let site = certificate.claims().site_id();
        self.check_author(certificate.claims().network, site)?;
        self.check_not_revoked(site, now)?;
        let known = self
            .sites
            .site(site)
            .and_then(|site| site.certificate.as_ref());
        if let Some(known) = known {
            if known.certificate() == &certificate {
                return Err(Drop::KnownCertificate);
            }
            if certificate.claims().serial <= known.content().serial {
                return Err(Drop::SupersededCertificate);
            }
        }
        if known.is_none() && !self.sites.has_room_for_verified() {
            return Err(Drop::TableFull);
        }
        self.spend_verification(now)?;
        let trusted = certificate
            .verify(&mut self.trust)
            .map_err(|_| Drop::BadCertificate)?;
        if let Some(by) = self.revocations.judge(&trusted) {
            self.tell_hourly((Class::Revoked, site), Event::Revoked { site, by }, now);
            return Err(Drop::Revoked);
        }
        self.check_in_force(&trusted, now)?;
        let fingerprint = trusted.fingerprint();
        let (waiting, evicted) = self.sites.change(site, |site| {
            site.certificate = Some(trusted);
            site.ending_told = None;
            let is_for_it =
                |waiting: &Waiting| waiting.announcement.claims().certificate == fingerprint;
            if site.waiting.as_ref().is_some_and(is_for_it) {
                site.waiting.take()
            } else {
                None
            }
        });
        self.count_evicted(evicted);
        self.generation += 1;
        match waiting {
            // Whatever becomes of it is the announcement's fate, and this datagram's only consequence.
            Some(waiting) => {
                let _ = self.handle_announce(waiting.announcement, waiting.from, now);
            }
            None => self.reconsider(site, now),
        }
        Ok(())
    }

    /// An announcement counts: everything about it is proven.
    pub(super) fn accept(
        &mut self,
        verified: Verified<Announcement>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let content = verified.content();
        let site = content.site;
        let state = content.revocation_state;
        let admitted = self.admit(verified, origin, now)?;
        if origin.is_direct_and_clear() {
            self.sources
                .befriend(origin.source.ip(), FAMILIAR, now.instant);
        }
        self.answer_announcement(site, &admitted, state, origin, now);
        if admitted.is_news {
            self.note_gossip(site, origin, now);
        }
        Ok(())
    }

    /// At most one datagram: ourselves, to who does not know us; else a question, to who knows other revocations.
    fn answer_announcement(
        &mut self,
        site: SiteId,
        admitted: &Admitted,
        revocation_state: u64,
        origin: Origin,
        now: Now,
    ) {
        if self.should_tell(site, admitted, origin, now) {
            if let Some(site) = self.sites.site_mut(site) {
                site.told_at = Some(now.instant);
            }
            let announcement = self.own_announcement(now);
            self.send(&Message::Announce(announcement), origin.back);
            return;
        }
        if origin.relayed.is_none() {
            self.ask_for_revocations(site, revocation_state, origin, now);
        }
    }

    fn should_tell(&self, site: SiteId, admitted: &Admitted, origin: Origin, now: Now) -> bool {
        if !origin.is_direct_and_clear() || self.is_self_revoked() {
            return false;
        }
        let Some(site) = self.sites.site(site) else {
            return false;
        };
        let is_early = site
            .told_at
            .is_some_and(|at| now.instant.saturating_duration_since(at) < TELL_EVERY);
        match origin.door {
            Door::Lan(lan) => {
                admitted.is_back && !is_early && !self.lans.is_fresh(lan, now.instant)
            }
            Door::Wan => !is_early && !site.session.is_up(),
            Door::Tunnel(_) => false,
        }
    }

    fn handle_probe(&mut self, probe: &Probe, origin: Origin) -> Result<(), Drop> {
        if probe.network != self.own.network {
            return Err(Drop::OtherNetwork);
        }
        let address = match origin.door {
            Door::Lan(_) | Door::Wan => origin.source,
            // What the site wants to know is where its tunnel comes from.
            Door::Tunnel(site) => self
                .sites
                .site(site)
                .and_then(|site| site.session.path?.remote)
                .ok_or(Drop::Unanswerable)?,
        };
        let observed = Observed {
            network: probe.network,
            nonce: probe.nonce,
            address,
        };
        self.send(&Message::Observed(observed), origin.back);
        Ok(())
    }

    fn handle_goodbye(
        &mut self,
        signed: Signed<Goodbye>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let (site, stamp) = (signed.claims().site, signed.claims().stamp);
        self.check_author(signed.claims().network, site)?;
        let known = self
            .sites
            .site(site)
            .filter(|site| site.is_verified())
            .ok_or(Drop::UnknownCertificate)?;
        if known.stamp.is_some_and(|last| stamp <= last) {
            return Err(Drop::Replay);
        }
        let certificate = known.certificate.clone().ok_or(Drop::UnknownCertificate)?;
        self.spend_verification(now)?;
        let verified = signed
            .verify(&certificate)
            .map_err(|_| Drop::BadSignature)?;
        self.take_leave(site, stamp);
        self.pass_goodbye_on(verified, origin, now);
        Ok(())
    }
}

fn header_drop(error: HeaderError) -> Drop {
    match error {
        HeaderError::Length => Drop::Length,
        HeaderError::Magic => Drop::Magic,
        HeaderError::Version(_) => Drop::Version,
        HeaderError::Kind(_) => Drop::Kind,
    }
}
