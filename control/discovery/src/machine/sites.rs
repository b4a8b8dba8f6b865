//! The table of sites: who was heard of, what is believed of them, and who has to go when it is full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::announce::{Announcement, Stamp};
use crate::certificate::TrustedCertificate;
use crate::endpoint::Endpoints;
use crate::ids::{Nonce, SiteId};
use crate::machine::arrival::{Destination, Door};
use crate::machine::reachability::Session;
use crate::signed::{Signed, Verified};
use crate::subject::Roles;
use crate::time::WallTime;

/// Most sites of which nothing is proven.
pub const UNVERIFIED_MAX: usize = 4096;
/// Most sites that proved themselves.
pub const VERIFIED_MAX: usize = 4096;

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub door: Door,
    pub source: SocketAddr,
    /// Where an answer goes.
    pub back: Destination,
    /// How many more hops it may go, where somebody passed it on.
    pub relayed: Option<u8>,
}

impl Origin {
    /// Whether a site that we believe stands for it having come just now.
    pub fn is_vouched_for(&self) -> bool {
        matches!(self.door, Door::Tunnel(_))
    }

    /// Whether it came from its author, in clear.
    pub fn is_direct_and_clear(&self) -> bool {
        self.relayed.is_none() && !self.is_vouched_for()
    }
}

/// What a site is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Not proven yet.
    Stranger,
    /// Proven; the operator has to approve.
    Pending,
    /// Proven; another site has what only one can have.
    Refused,
    /// A peer.
    Peer,
}

/// An announcement that waits for a certificate or for a challenge's answer.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub announcement: Signed<Announcement>,
    pub from: Origin,
}

/// A number that a site was asked to sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Challenged {
    pub nonce: Nonce,
    pub at: Instant,
    pub tries: u8,
    pub to: Destination,
}

/// What is believed of a site.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub id: SiteId,
    /// Place in the order in which sites were first heard of.
    pub order: u64,
    pub certificate: Option<TrustedCertificate>,
    pub waiting: Option<Waiting>,
    pub challenged: Option<Challenged>,
    /// The latest announcement that counts.
    pub announcement: Option<Verified<Announcement>>,
    /// What is not later is a replay.
    pub stamp: Option<Stamp>,
    /// It proved in this run that it is there; its clock is so many milliseconds before ours.
    pub fresh: Option<i64>,
    pub heard_at: Option<Instant>,
    pub admission: Admission,
    /// When it became a peer first, by the wall clock: who was first keeps what only one can have.
    pub peer_since: WallTime,
    pub has_left: bool,
    pub is_silent: bool,
    /// When its certificate was asked for.
    pub asked_at: Option<Instant>,
    /// When it was told of us in answer to something.
    pub told_at: Option<Instant>,
    /// When it was asked for revocations.
    pub revocations_asked_at: Option<Instant>,
    /// Where its discovery was heard in clear.
    pub contact: Option<(Door, SocketAddr)>,
    pub session: Session,
    /// Endpoints that it offered for the attempt that goes on.
    pub offered: Option<Endpoints>,
    /// The attempt that it was asked for.
    pub asked_attempt: Option<Nonce>,
    /// Stamp of its latest attempt.
    pub connect_stamp: Option<Stamp>,
    /// Its session was made with our current key.
    pub has_seen_key: bool,
    /// When it was read from the cache.
    pub cached_at: Option<Instant>,
    /// Fewest days for which the end of its certificate was told.
    pub ending_told: Option<u8>,
}

impl Site {
    fn new(id: SiteId, order: u64) -> Self {
        Self {
            id,
            order,
            certificate: None,
            waiting: None,
            challenged: None,
            announcement: None,
            stamp: None,
            fresh: None,
            heard_at: None,
            admission: Admission::Stranger,
            peer_since: WallTime(0),
            has_left: false,
            is_silent: false,
            asked_at: None,
            told_at: None,
            revocations_asked_at: None,
            contact: None,
            session: Session::default(),
            offered: None,
            asked_attempt: None,
            connect_stamp: None,
            has_seen_key: false,
            cached_at: None,
            ending_told: None,
        }
    }

    pub fn is_verified(&self) -> bool {
        self.announcement.is_some()
    }

    /// Whether there should be a tunnel.
    pub fn is_peer(&self) -> bool {
        self.admission == Admission::Peer && !self.has_left
    }

    /// Whether its certificate gives it all of these roles.
    pub fn has_role(&self, role: Roles) -> bool {
        self.certificate
            .as_ref()
            .is_some_and(|it| it.content().subject.roles.contains(role))
    }

    /// Whether it is a peer with a session.
    pub fn is_connected(&self) -> bool {
        self.is_peer() && self.session.is_up()
    }
}

/// The table.
pub(super) struct Sites {
    all: BTreeMap<SiteId, Site>,
    /// Unverified ones: those without a certificate first, then by age.
    unverified: BTreeSet<(bool, u64, SiteId)>,
    next_order: u64,
}

impl Sites {
    pub fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            unverified: BTreeSet::new(),
            next_order: 0,
        }
    }

    pub fn site(&self, id: SiteId) -> Option<&Site> {
        self.all.get(&id)
    }

    /// A site, for changes that do not concern what it proved: see [`Self::change`].
    pub fn site_mut(&mut self, id: SiteId) -> Option<&mut Site> {
        self.all.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Site> {
        self.all.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Site> {
        self.all.values_mut()
    }

    pub fn connected(&self) -> impl Iterator<Item = &Site> {
        self.iter().filter(|site| site.is_connected())
    }

    pub fn unverified_len(&self) -> usize {
        self.unverified.len()
    }

    pub fn verified_len(&self) -> usize {
        self.all.len() - self.unverified.len()
    }

    /// Whether another site can prove itself.
    pub fn has_room_for_verified(&self) -> bool {
        self.verified_len() < VERIFIED_MAX
    }

    /// Changes a site, which is added where it is new. An unverified one that is too many makes the oldest unverified
    /// one go; its id is returned.
    pub fn change<T>(
        &mut self,
        id: SiteId,
        change: impl FnOnce(&mut Site) -> T,
    ) -> (T, Option<SiteId>) {
        let next_order = &mut self.next_order;
        let site = self.all.entry(id).or_insert_with(|| {
            *next_order += 1;
            Site::new(id, *next_order)
        });
        self.unverified.remove(&key(site));
        let result = change(site);
        if !site.is_verified() {
            self.unverified.insert(key(site));
        }
        let evicted = (self.unverified.len() > UNVERIFIED_MAX)
            .then(|| self.unverified.pop_first())
            .flatten()
            .map(|(_, _, id)| id);
        if let Some(evicted) = evicted {
            self.all.remove(&evicted);
        }
        (result, evicted)
    }

    pub fn remove(&mut self, id: SiteId) -> Option<Site> {
        let site = self.all.remove(&id)?;
        self.unverified.remove(&key(&site));
        Some(site)
    }
}

fn key(site: &Site) -> (bool, u64, SiteId) {
    (site.certificate.is_some(), site.order, site.id)
}
