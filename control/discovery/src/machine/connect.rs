//! Direct ways to peers: what the gateway says of sessions, and both sides beginning at once where NATs are between.

use std::time::{Duration, Instant};

use crate::endpoint::Endpoints;
use crate::ids::{Nonce, SiteId};
use crate::machine::Machine;
use crate::machine::arrival::Destination;
use crate::machine::clock::Now;
use crate::machine::counters::Drop;
use crate::machine::reachability::{Reachability, SessionPath};
use crate::machine::receive::SKEW_MAX;
use crate::machine::sites::{Origin, Site};
use crate::message::{Connect, ConnectStep, HOPS_MAX, Message, Relayed};
use crate::signed::Signed;
use crate::subject::Roles;

/// A plain handshake has this long before both sides are asked to begin at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// The site with the larger id leaves the first attempts to the other one.
const COURTESY: Duration = Duration::from_secs(10);
/// Pauses between attempts, then the last one again and again.
const PAUSES_S: [u64; 5] = [10, 10, 20, 60, 300];
/// Who is asked begins so much after the question, so that the asker has the answer by then.
const DELAY: Duration = Duration::from_millis(50);

impl Machine {
    /// Takes what the gateway says of a site's tunnel: whenever it comes up, goes down, or its path, relay or key changes.
    pub fn handle_reachability(&mut self, site: SiteId, reachability: Reachability, now: Now) {
        let Some(known) = self.sites.site_mut(site) else {
            return;
        };
        match reachability {
            Reachability::Up(path) => {
                let was_up = known.session.is_up();
                known.session.path = Some(path);
                self.session_is_up(site, path, was_up, now);
            }
            Reachability::Down => {
                if known.session.path.take().is_some() {
                    known.session.wanted_since = Some(now.instant);
                    known.session.attempts = 0;
                    known.session.next_attempt_at = None;
                    known.session.next_announcement_at = None;
                    known.session.probe = None;
                    known.session.next_probe_at = None;
                    self.gossip.forget(site);
                    self.renew_observed();
                }
            }
        }
        self.choose_relay(site, now);
        self.note_seen_key(site);
    }

    fn session_is_up(&mut self, id: SiteId, path: SessionPath, was_up: bool, now: Now) {
        let Some(site) = self.sites.site_mut(id) else {
            return;
        };
        if path.relay.is_none() {
            let is_change = site.session.attempt.is_some() || site.session.relay.is_some();
            site.session.wanted_since = None;
            site.session.attempts = 0;
            site.session.next_attempt_at = None;
            site.session.attempt = None;
            site.session.relay = None;
            site.session.unreachable_told = false;
            site.offered = None;
            if is_change {
                self.generation += 1;
            }
        } else if site.session.wanted_since.is_none() {
            site.session.wanted_since = Some(now.instant);
        }
        if !was_up {
            site.session.next_announcement_at = Some(now.instant);
            site.session.next_probe_at = Some(now.instant);
            self.tell_all_we_know(id, now);
        }
    }

    /// Asks peers that plain handshakes do not reach to begin at the same time as we.
    pub(super) fn try_to_connect(&mut self, now: Now) {
        let own_id = self.own.id;
        let mut due = Vec::new();
        for site in self.sites.iter_mut() {
            if next_attempt_at(site, own_id).is_some_and(|at| at <= now.instant) {
                let pause = PAUSES_S[(site.session.attempts as usize).min(PAUSES_S.len() - 1)];
                site.session.attempts = site.session.attempts.saturating_add(1);
                let pause = self.dice.about(Duration::from_secs(pause));
                site.session.next_attempt_at = Some(now.instant + pause);
                due.push(site.id);
            }
        }
        for id in due {
            self.ask_to_connect(id, now);
            self.choose_relay(id, now);
        }
    }

    pub(super) fn next_attempt_at(&self) -> Option<Instant> {
        let next = |site: &Site| next_attempt_at(site, self.own.id);
        self.sites.iter().filter_map(next).min()
    }

    fn ask_to_connect(&mut self, to: SiteId, now: Now) {
        let Some(via) = self.go_between(to) else {
            return;
        };
        let attempt = Nonce::random(&mut self.dice);
        if let Some(site) = self.sites.site_mut(to) {
            site.asked_attempt = Some(attempt);
        }
        self.send_connect(to, via, attempt, ConnectStep::Ask, now);
    }

    /// A rendezvous that we have a session with; else whoever has a role.
    fn go_between(&self, to: SiteId) -> Option<SiteId> {
        let others = || self.sites.connected().filter(|site| site.id != to);
        let with = |role| others().find(|site| site.has_role(role)).map(|it| it.id);
        with(Roles::RENDEZVOUS)
            .or_else(|| with(Roles::HUB))
            .or_else(|| with(Roles::RELAY))
    }

    fn send_connect(
        &mut self,
        to: SiteId,
        via: SiteId,
        attempt: Nonce,
        step: ConnectStep,
        now: Now,
    ) {
        let endpoints = self.own_announcement(now).claims().endpoints.clone();
        let connect = Connect {
            network: self.own.network,
            site: self.own.id,
            to,
            stamp: self.own.next_stamp(),
            issued_at: now.wall,
            attempt,
            step,
            delay_ms: DELAY.as_millis() as u16,
            endpoints,
        };
        let message = Message::Connect(Signed::sign(connect, &self.own.key));
        if let Some(relayed) = Relayed::new(to, HOPS_MAX, [0; 8], message) {
            self.send(&Message::Relayed(relayed), Destination::Site(via));
        }
    }

    pub(super) fn handle_connect(
        &mut self,
        signed: Signed<Connect>,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        let claims = signed.claims();
        self.check_author(claims.network, claims.site)?;
        if claims.to != self.own.id {
            return Err(Drop::Unanswerable);
        }
        let id = claims.site;
        let site = self.sites.site(id).filter(|site| site.is_peer());
        let site = site.ok_or(Drop::UnknownCertificate)?;
        if site.connect_stamp.is_some_and(|last| claims.stamp <= last) {
            return Err(Drop::Replay);
        }
        let certificate = site.certificate.clone().ok_or(Drop::UnknownCertificate)?;
        if claims.step == ConnectStep::Answer && site.asked_attempt != Some(claims.attempt) {
            return Err(Drop::Unasked);
        }
        let offset = site.fresh.unwrap_or(0);
        let age = i128::from(now.wall.0) + i128::from(offset) - i128::from(claims.issued_at.0);
        if age.unsigned_abs() > SKEW_MAX.as_millis() {
            return Err(Drop::Stale);
        }
        self.spend_verification(now)?;
        let verified = signed
            .verify(&certificate)
            .map_err(|_| Drop::BadSignature)?;
        self.begin(verified.content(), origin, now);
        Ok(())
    }

    fn begin(&mut self, connect: &Connect, origin: Origin, now: Now) {
        let own = &self.config.own_addresses;
        let offered = connect.endpoints.without_own(|addr| own.contains(&addr));
        let delay = match connect.step {
            ConnectStep::Ask => Duration::from_millis(u64::from(connect.delay_ms)).min(DELAY * 20),
            ConnectStep::Answer => Duration::ZERO,
        };
        let Some(site) = self.sites.site_mut(connect.site) else {
            return;
        };
        site.connect_stamp = Some(connect.stamp);
        site.asked_attempt = None;
        if site.session.is_direct() {
            return;
        }
        site.session.attempt = Some((connect.attempt, now.instant + delay));
        site.offered = Some(offered);
        self.generation += 1;
        if let (ConnectStep::Ask, Destination::Site(via)) = (connect.step, origin.back) {
            self.send_connect(connect.site, via, connect.attempt, ConnectStep::Answer, now);
        }
    }
}

/// When the next attempt at a direct way is due, where there is none.
fn next_attempt_at(site: &Site, own_id: SiteId) -> Option<Instant> {
    if !site.is_peer() || site.session.is_direct() {
        return None;
    }
    let since = site.session.wanted_since?;
    let first = if own_id < site.id {
        since + PATIENCE
    } else {
        since + COURTESY
    };
    Some(site.session.next_attempt_at.unwrap_or(first))
}

/// Endpoints that a site offered, without those in its announcement.
pub(super) fn offered_beside<'a>(
    offered: Option<&'a Endpoints>,
    announced: &'a Endpoints,
) -> impl Iterator<Item = crate::endpoint::Endpoint> + 'a {
    let is_new = |it: &&crate::endpoint::Endpoint| {
        let same = |known: &crate::endpoint::Endpoint| known.address == it.address;
        !announced.as_slice().iter().any(same)
    };
    offered
        .map_or(&[][..], Endpoints::as_slice)
        .iter()
        .filter(is_new)
        .copied()
}
