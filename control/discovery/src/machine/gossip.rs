//! Passing on what sites signed, to those who may not have heard it: with a pace, with a limit of hops, each once.
//!
//! Sites with a role (hub, rendezvous, relay) pass news on to everybody that they have sessions with. Others tell the sites
//! with roles what they heard from its author; while there is nobody with a role, they tell everybody. A message that says
//! nothing new is passed on by nobody, so each ends by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ids::SiteId;
use crate::machine::Machine;
use crate::machine::arrival::{Destination, Door};
use crate::machine::buckets::{Bucket, Rate};
use crate::machine::clock::Now;
use crate::machine::counters::Drop;
use crate::machine::joins::JoinArrival;
use crate::machine::sites::{Origin, Site};
use crate::message::{Goodbye, HOPS_MAX, Message, Relayed};
use crate::signed::Verified;
use crate::subject::Roles;

/// One tick of the pace.
const TICK: Duration = Duration::from_millis(20);
/// Sites told of per tick.
const PER_TICK: usize = 20;
/// Most things that wait to be told.
const QUEUED_MAX: usize = 1 << 17;
/// Peers that are told while there is nobody with a role.
const FANOUT: usize = 32;
/// Sites of a LAN that tell sites with roles of a new site there, on average.
const WITNESSES: u64 = 8;
/// Messages for others that are passed on, per second.
const FORWARDING: Rate = Rate {
    per_s: 200,
    burst: 400,
};

/// What is to be told to whom.
#[derive(Default)]
pub(super) struct Gossip {
    /// Whom, of whom, and whether with the certificate.
    queue: BTreeMap<SiteId, BTreeMap<SiteId, bool>>,
    queued: usize,
    next_at: Option<Instant>,
    last_told: Option<SiteId>,
    forwarding: Option<Bucket>,
}

impl Gossip {
    pub fn next_at(&self) -> Option<Instant> {
        self.next_at.filter(|_| self.queued > 0)
    }

    pub fn forget(&mut self, site: SiteId) {
        if let Some(subjects) = self.queue.remove(&site) {
            self.queued -= subjects.len();
        }
    }

    fn add(&mut self, to: SiteId, subject: SiteId, with_certificate: bool, now: Instant) {
        if to == subject || self.queued >= QUEUED_MAX {
            return;
        }
        let subjects = self.queue.entry(to).or_default();
        let before = subjects.insert(subject, with_certificate);
        match before {
            Some(before) => {
                subjects.insert(subject, with_certificate || before);
            }
            None => self.queued += 1,
        }
        self.next_at.get_or_insert(now + TICK);
    }

    /// The next ones, each receiver in its turn.
    fn take(&mut self) -> Option<(SiteId, SiteId, bool)> {
        let after = |last: SiteId| {
            let range = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            self.queue.range(range).next().map(|(id, _)| *id)
        };
        let to = self
            .last_told
            .and_then(after)
            .or_else(|| self.queue.keys().next().copied())?;
        self.last_told = Some(to);
        let subjects = self.queue.get_mut(&to)?;
        let taken = subjects.pop_first();
        if subjects.is_empty() {
            self.queue.remove(&to);
        }
        let (subject, with_certificate) = taken?;
        self.queued -= 1;
        Some((to, subject, with_certificate))
    }
}

impl Machine {
    /// A site said something that others may not know.
    pub(super) fn note_gossip(&mut self, subject: SiteId, origin: Origin, now: Now) {
        if origin.relayed == Some(0) || self.is_self_revoked() {
            return;
        }
        let from = match origin.door {
            Door::Tunnel(from) => Some(from),
            Door::Lan(_) | Door::Wan => None,
        };
        for to in self.listeners(origin) {
            if Some(to) != from {
                self.gossip.add(to, subject, true, now.instant);
            }
        }
    }

    fn listeners(&mut self, origin: Origin) -> Vec<SiteId> {
        let has_role = |site: &&Site| is_spreader(site);
        let connected: Vec<SiteId> = self.sites.connected().map(|site| site.id).collect();
        if self.is_spreader() {
            return connected;
        }
        let spreaders: Vec<SiteId> = self
            .sites
            .connected()
            .filter(has_role)
            .map(|it| it.id)
            .collect();
        if spreaders.is_empty() {
            return self.pick(connected, FANOUT);
        }
        if origin.relayed.is_some() {
            return Vec::new();
        }
        if let Door::Lan(lan) = origin.door {
            let on_lan =
                |site: &&Site| matches!(site.contact, Some((Door::Lan(at), _)) if at == lan);
            let neighbours = self.sites.iter().filter(on_lan).count() as u64;
            if self.dice.below(neighbours.max(1)) >= WITNESSES {
                return Vec::new();
            }
        }
        spreaders
    }

    fn pick(&mut self, mut from: Vec<SiteId>, count: usize) -> Vec<SiteId> {
        let mut picked = Vec::with_capacity(count.min(from.len()));
        while picked.len() < count && !from.is_empty() {
            let at = self.dice.below(from.len() as u64) as usize;
            picked.push(from.swap_remove(at));
        }
        picked
    }

    /// Tells a site with which there is a new session of all that we know.
    pub(super) fn tell_all_we_know(&mut self, to: SiteId, now: Now) {
        let is_to_spreader = self.sites.site(to).is_some_and(is_spreader);
        let has_spreader = self.sites.connected().any(is_spreader);
        if !self.is_spreader() && has_spreader && !is_to_spreader {
            return;
        }
        let subjects: Vec<SiteId> = self
            .sites
            .iter()
            .filter(|site| site.is_peer() && !site.is_silent)
            .map(|site| site.id)
            .collect();
        for subject in subjects {
            self.gossip.add(to, subject, true, now.instant);
        }
    }

    pub(super) fn spread_gossip(&mut self, now: Now) {
        if self.gossip.next_at().is_none_or(|at| at > now.instant) {
            return;
        }
        for _ in 0..PER_TICK {
            let Some((to, subject, with_certificate)) = self.gossip.take() else {
                break;
            };
            self.tell_of(to, subject, with_certificate);
        }
        self.gossip.next_at = (self.gossip.queued > 0).then(|| now.instant + TICK);
    }

    fn tell_of(&mut self, to: SiteId, subject: SiteId, with_certificate: bool) {
        if !self.sites.site(to).is_some_and(Site::is_connected) {
            return;
        }
        let Some(site) = self.sites.site(subject).filter(|site| site.is_peer()) else {
            return;
        };
        let (Some(certificate), Some(announcement)) = (&site.certificate, &site.announcement)
        else {
            return;
        };
        let certificate = Message::CertificateAnswer(Box::new(certificate.certificate().clone()));
        let announcement = Message::Announce(announcement.signed().clone());
        if with_certificate {
            self.pass_on(to, certificate);
        }
        self.pass_on(to, announcement);
    }

    pub(super) fn pass_on(&mut self, to: SiteId, message: Message) {
        if let Some(relayed) = Relayed::new(SiteId::EVERYONE, HOPS_MAX, [0; 8], message) {
            self.send(&Message::Relayed(relayed), Destination::Site(to));
        }
    }

    pub(super) fn handle_relayed(
        &mut self,
        relayed: Relayed,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        // Who passes something on is a peer: nothing else would say that it is of now.
        let Door::Tunnel(from) = origin.door else {
            return Err(Drop::Door);
        };
        if relayed.to() != self.own.id && relayed.to() != SiteId::EVERYONE {
            return self.forward(&relayed, now);
        }
        let origin = Origin {
            relayed: Some(relayed.hops_left()),
            ..origin
        };
        let tag = relayed.tag();
        match relayed.into_message() {
            Message::JoinRequest(request) => {
                self.take_join(JoinArrival::relayed(request, from, tag))
            }
            Message::JoinAnswer(answer) => self.return_join(answer, tag),
            message => self.handle_message(message, origin, now),
        }
    }

    /// One hop further, to a site that we have a session with.
    fn forward(&mut self, relayed: &Relayed, now: Now) -> Result<(), Drop> {
        let is_there = self
            .sites
            .site(relayed.to())
            .is_some_and(Site::is_connected);
        let next = relayed.next_hop().filter(|_| is_there);
        let next = next.ok_or(Drop::Unforwardable)?;
        let forwarding = self
            .gossip
            .forwarding
            .get_or_insert_with(|| Bucket::full(FORWARDING, now.instant));
        if !forwarding.take(now.instant) {
            return Err(Drop::Busy);
        }
        self.send(&Message::Relayed(next), Destination::Site(relayed.to()));
        Ok(())
    }

    /// A goodbye is passed on like news; it is forgotten at once, so it is sent at once.
    pub(super) fn pass_goodbye_on(&mut self, goodbye: Verified<Goodbye>, origin: Origin, now: Now) {
        if origin.relayed == Some(0) || !self.is_spreader() {
            return;
        }
        let author = goodbye.content().site;
        self.flood.add_goodbye(
            author,
            Message::Goodbye(goodbye.signed().clone()),
            now.instant,
        );
    }

    fn is_spreader(&self) -> bool {
        has_spreading_role(self.own.certificate.content().subject.roles)
    }
}

fn is_spreader(site: &Site) -> bool {
    site.certificate
        .as_ref()
        .is_some_and(|it| has_spreading_role(it.content().subject.roles))
}

fn has_spreading_role(roles: Roles) -> bool {
    [Roles::HUB, Roles::RENDEZVOUS, Roles::RELAY]
        .into_iter()
        .any(|role| roles.contains(role))
}
