//! What an operator may want to know, typed, bounded, and not too often.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use patronus_packet::Prefix;

use crate::endpoint::UplinkLabel;
use crate::ids::SiteId;
use crate::machine::counters::{Counters, Drop};
use crate::revocation::ListId;
use crate::revocation::RevokedBy;
use crate::subject::Name;
use crate::time::WallTime;
use crate::wireguard::WireGuardKey;

/// Most events that wait to be collected.
pub const EVENTS_MAX: usize = 1024;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look, some time.
    Warning,
    /// Somebody should look.
    Critical,
}

/// What two sites cannot both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    /// The name.
    Name,
    /// A tunnel address.
    Address(IpAddr),
    /// A prefix that overlaps one of the other site's.
    Prefix(Prefix),
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A site became a peer.
    NewPeer {
        /// Which.
        site: SiteId,
        /// Its name.
        name: Name,
    },
    /// A peer that was silent or had left is there.
    PeerBack {
        /// Which.
        site: SiteId,
    },
    /// Nothing was heard of a peer for long, and there is no session with it.
    PeerSilent {
        /// Which.
        site: SiteId,
    },
    /// A peer said goodbye.
    PeerLeft {
        /// Which.
        site: SiteId,
    },
    /// A peer is no peer: silent for longer than its keys live.
    PeerForgotten {
        /// Which.
        site: SiteId,
    },
    /// A peer begins, or ends, to be drained.
    PeerDraining {
        /// Which.
        site: SiteId,
        /// Begins.
        is_draining: bool,
    },
    /// A site of the network waits for the operator's approval.
    Pending {
        /// Which.
        site: SiteId,
        /// Its name.
        name: Name,
    },
    /// The operator approved a site: to be kept by the shell too, in case the cache is lost.
    Approved {
        /// Which.
        site: SiteId,
    },
    /// Two sites have something that only one can have. The first keeps it; the other one is no peer.
    Conflict {
        /// Who was first.
        kept: SiteId,
        /// Who is no peer.
        refused: SiteId,
        /// What.
        clash: Clash,
    },
    /// A certificate ends soon.
    CertificateEnding {
        /// Whose.
        site: SiteId,
        /// Whether it is ours.
        is_own: bool,
        /// In so many days at most: 7, 3 or 1.
        days: u8,
    },
    /// A certificate's time is over.
    CertificateEnded {
        /// Whose.
        site: SiteId,
        /// Whether it is ours.
        is_own: bool,
        /// Until when the site is kept as a peer. The site is no peer where that is past.
        grace_until: WallTime,
    },
    /// A certificate is not in force yet: a clock may be wrong.
    CertificateNotYetValid {
        /// Whose.
        site: SiteId,
        /// From when it is.
        from: WallTime,
    },
    /// A revoked site announced itself, or a peer was revoked and is no peer.
    Revoked {
        /// Which.
        site: SiteId,
        /// Itself, or its issuer.
        by: RevokedBy,
    },
    /// We are revoked: nobody listens to us.
    SelfRevoked,
    /// A signer of revocations signed two different things under one version.
    RevocationsContradict {
        /// Whose list.
        list: ListId,
    },
    /// A site's clock and ours are further apart than 300 seconds. Its messages count after a challenge.
    ClockSkew {
        /// Which.
        site: SiteId,
        /// Its clock minus ours, in seconds.
        offset_s: i64,
    },
    /// Somebody else has our key and announces itself with it.
    OwnKeyElsewhere,
    /// The shell should make a WireGuard key and hand in its public half:
    /// [`Machine::handle_next_key`](crate::Machine::handle_next_key).
    KeyWanted {
        /// From when it will be used.
        from: WallTime,
    },
    /// The next WireGuard key is the current one.
    KeySwitched {
        /// The key.
        current: WireGuardKey,
    },
    /// Two hours after a switch some peers have not moved; the old key stays.
    KeyMissed {
        /// Who.
        sites: Vec<SiteId>,
    },
    /// The previous WireGuard key is accepted no longer.
    KeyRetired {
        /// The key.
        key: WireGuardKey,
        /// Who never moved.
        missed: Vec<SiteId>,
    },
    /// A rendezvous sees us at another address than before.
    Observed {
        /// Our uplink, where known.
        uplink: Option<UplinkLabel>,
        /// The address.
        address: SocketAddr,
    },
    /// No direct way to a peer was found: this site passes packets on.
    Relaying {
        /// The peer.
        site: SiteId,
        /// Who passes on.
        relay: SiteId,
    },
    /// No direct way to a peer was found, and nobody who could pass packets on.
    Unreachable {
        /// The peer.
        site: SiteId,
    },
    /// The cache of the last run was not read.
    CacheRefused,
    /// Datagrams were dropped: told once a minute per reason.
    Dropping {
        /// Why.
        reason: Drop,
        /// So many since the last time.
        count: u64,
    },
}

impl Event {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Conflict { .. }
            | Self::SelfRevoked
            | Self::OwnKeyElsewhere
            | Self::RevocationsContradict { .. } => Severity::Critical,
            Self::CertificateEnded { is_own: true, .. }
            | Self::CertificateEnding {
                is_own: true,
                days: 1,
                ..
            } => Severity::Critical,
            Self::CertificateEnded { .. }
            | Self::CertificateEnding { .. }
            | Self::CertificateNotYetValid { .. }
            | Self::Revoked { .. }
            | Self::ClockSkew { .. }
            | Self::KeyMissed { .. }
            | Self::PeerSilent { .. }
            | Self::PeerForgotten { .. }
            | Self::Pending { .. }
            | Self::Unreachable { .. }
            | Self::CacheRefused
            | Self::Dropping { .. } => Severity::Warning,
            Self::KeyRetired { missed, .. } => {
                if missed.is_empty() {
                    Severity::Info
                } else {
                    Severity::Warning
                }
            }
            Self::NewPeer { .. }
            | Self::PeerBack { .. }
            | Self::PeerLeft { .. }
            | Self::PeerDraining { .. }
            | Self::Approved { .. }
            | Self::KeyWanted { .. }
            | Self::KeySwitched { .. }
            | Self::Observed { .. }
            | Self::Relaying { .. } => Severity::Info,
        }
    }
}

/// What is told at most once per span, per site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    NotInForce,
    Revoked,
    Skew,
    Conflict,
    OwnKey,
    Contradiction,
}

/// Events that wait, and when what was told.
pub(super) struct Events {
    waiting: VecDeque<Event>,
    told: BTreeMap<(Class, SiteId), Instant>,
    drops: BTreeMap<Drop, (Instant, u64)>,
}

impl Events {
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            told: BTreeMap::new(),
            drops: BTreeMap::new(),
        }
    }

    pub fn push(&mut self, event: Event, counters: &mut Counters) {
        if self.waiting.len() == EVENTS_MAX {
            counters.events_untold += 1;
            return;
        }
        self.waiting.push_back(event);
    }

    /// Tells it, unless something of this class was told of this site within the last hour.
    pub fn push_hourly(
        &mut self,
        (class, site): (Class, SiteId),
        event: Event,
        now: Instant,
        counters: &mut Counters,
    ) {
        let key = (class, site);
        let is_early = |at: &Instant| now.saturating_duration_since(*at) < HOUR;
        if self.told.get(&key).is_some_and(is_early) {
            counters.events_untold += 1;
            return;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.retain(|_, at| is_early(at));
        }
        // A table that is full of the last hour tells nothing new: that many events say enough.
        if self.told.len() >= TOLD_MAX {
            counters.events_untold += 1;
            return;
        }
        self.told.insert(key, now);
        self.push(event, counters);
    }

    /// Tells of drops once a minute per reason. Reasons that are part of everyday traffic are left to the counters.
    pub fn note_drop(&mut self, reason: Drop, now: Instant, counters: &mut Counters) {
        if is_everyday(reason) {
            return;
        }
        let total = counters.dropped(reason);
        let (told_at, told) = match self.drops.get(&reason) {
            Some((at, told)) => (Some(*at), *told),
            None => (None, 0),
        };
        if told_at.is_some_and(|at| now.saturating_duration_since(at) < MINUTE) {
            return;
        }
        self.drops.insert(reason, (now, total));
        let count = total - told;
        self.push(Event::Dropping { reason, count }, counters);
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }
}

fn is_everyday(reason: Drop) -> bool {
    matches!(
        reason,
        Drop::Own
            | Drop::Replay
            | Drop::Challenged
            | Drop::KnownCertificate
            | Drop::UnknownCertificate
            | Drop::Unanswerable
            | Drop::Unforwardable
            | Drop::Unasked
    )
}

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const TOLD_MAX: usize = 8192;
