//! The state machine of one site: what it believes of the others, what it tells them, which tunnels there should be.
//!
//! Does no I/O and reads no clock. One input (`handle_*`, [`Machine::set_config`] or an operator's command), then all
//! outputs are drained: [`Machine::poll_transmit`] and [`Machine::poll_event`] until they give nothing, then
//! [`Machine::peers`] if [`Machine::peers_generation`] has grown, then [`Machine::poll_timeout`].
//!
//! Who calls it is the gateway's shell. It owns sockets, files, DNS and the secret halves of WireGuard keys.
//!
//! A datagram that nothing is proven of never causes more than one other, and that one goes back to where it came from.
//! What is passed on to many is what a certified site signed, once, by a queue with a pace.

mod admission;
mod arrival;
mod buckets;
mod cache;
mod challenges;
mod clock;
mod config;
mod conflicts;
mod connect;
mod counters;
mod dice;
mod events;
mod expiry;
mod gossip;
mod joins;
mod lan;
mod outbox;
mod own;
mod peers;
mod reachability;
mod receive;
mod relays;
mod revoke;
mod rotation;
mod sites;
mod wan;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::announce::Announcement;
use crate::certificate::Trust;
use crate::endpoint::Endpoint;
use crate::ids::SiteId;
use crate::message::{Message, MessageKind};
use crate::revocation::Revocations;
use crate::signed::Signed;

pub use arrival::{Arrival, Destination, Door, GROUP_V4, GROUP_V6, InterfaceId, PORT, Transmit};
pub use buckets::SOURCES_MAX;
pub use cache::{CACHE_LEN_MAX, CacheError};
pub use clock::Now;
pub use config::{
    Approval, CONTACTS_MAX, Config, ConfigError, Contact, GRACE, Identity, LANS_MAX, LanInterface,
    OwnKeys,
};
pub use counters::{Counters, Drop};
pub use events::{Clash, EVENTS_MAX, Event, Severity};
pub use joins::{JoinArrival, ReplyTo};
pub use outbox::OUTBOX_MAX;
pub use peers::{Attempt, DRAINING, Peer, PendingSite};
pub use reachability::{Reachability, SessionPath};
pub use rotation::RotationError;
pub use sites::{UNVERIFIED_MAX, VERIFIED_MAX};

/// The state machine. See the [module](self).
pub struct Machine {
    trust: Trust,
    own: own::Own,
    config: Config,
    dice: dice::Dice,
    sites: sites::Sites,
    approved: admission::Approved,
    sources: buckets::Sources,
    verifying: buckets::Bucket,
    signing: buckets::Bucket,
    revocations: Revocations,
    lans: lan::Lans,
    contacts: wan::Contacts,
    gossip: gossip::Gossip,
    flood: revoke::Flood,
    rotation: rotation::Rotation,
    expiry: expiry::Expiry,
    challenges: challenges::Challenges,
    outbox: outbox::Outbox,
    events: events::Events,
    joins: joins::Joins,
    counters: Counters,
    /// What each rendezvous saw.
    observed_by: BTreeMap<SiteId, Endpoint>,
    generation: u64,
    chores_at: Instant,
    self_revoked: bool,
    has_stopped: bool,
}

impl Machine {
    /// Starts. `cache` is what [`Self::encode_cache`] made in an earlier run: the sites in it are peers at once.
    /// `seed` is for the machine alone and secret: every nonce follows from it.
    ///
    /// # Errors
    /// A certificate that is not ours, or lists that are too long.
    pub fn new(
        identity: Identity,
        config: Config,
        cache: Option<&[u8]>,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, ConfigError> {
        config.check_limits()?;
        let mut trust = Trust::new(identity.root);
        let id = identity.site_key.id();
        let certificate = own::check_certificate(&config, id, &mut trust)?;
        let network = trust.network();
        let mut machine = Self {
            trust,
            own: own::Own::new(identity.site_key, certificate, identity.boot_epoch),
            dice: dice::Dice::new(seed),
            sites: sites::Sites::new(),
            approved: admission::Approved::default(),
            sources: buckets::Sources::new(now.instant),
            verifying: buckets::Bucket::full(receive::VERIFYING, now.instant),
            signing: buckets::Bucket::full(receive::SIGNING, now.instant),
            revocations: Revocations::new(network),
            lans: lan::Lans::default(),
            contacts: wan::Contacts::default(),
            gossip: gossip::Gossip::default(),
            flood: revoke::Flood::default(),
            rotation: rotation::Rotation::new(identity.wireguard),
            expiry: expiry::Expiry::default(),
            challenges: challenges::Challenges::default(),
            outbox: outbox::Outbox::new(),
            events: events::Events::new(),
            joins: joins::Joins::default(),
            counters: Counters::default(),
            observed_by: BTreeMap::new(),
            generation: 1,
            chores_at: now.instant,
            self_revoked: false,
            has_stopped: false,
            config,
        };
        if let Some(cache) = cache {
            machine.take_cache(cache, now);
        }
        machine.apply_config(now);
        Ok(machine)
    }

    /// Puts another configuration in force.
    ///
    /// # Errors
    /// A certificate that is not ours, or lists that are too long: then nothing changes.
    pub fn set_config(&mut self, config: Config, now: Now) -> Result<(), ConfigError> {
        config.check_limits()?;
        let certificate = own::check_certificate(&config, self.own.id, &mut self.trust)?;
        if certificate != self.own.certificate {
            self.own.certificate = certificate;
            self.own.forget_signed();
            self.expiry.own_is_new();
        }
        self.config = config;
        self.apply_config(now);
        self.tell_everybody(now);
        Ok(())
    }

    /// Takes a datagram. It is opened in place.
    pub fn handle_datagram(&mut self, arrival: Arrival, datagram: &mut [u8], now: Now) {
        let outcome = self.receive(&arrival, datagram, now);
        self.counters.settle(outcome);
        if let Err(reason) = outcome {
            self.events
                .note_drop(reason, now.instant, &mut self.counters);
        }
    }

    /// Does what is due. To be called when [`Self::poll_timeout`]'s time has come; earlier does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.has_stopped {
            return;
        }
        self.announce_on_lans(now);
        self.retry_challenges(now);
        self.greet_contacts(now);
        self.repeat_flood(now);
        self.talk_to_sessions(now);
        self.try_to_connect(now);
        self.spread_gossip(now);
        if self.chores_at <= now.instant {
            self.chores_at = now.instant + expiry::CHORES;
            self.do_chores(now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_stopped {
            return None;
        }
        [
            Some(self.chores_at),
            self.lans.next_at(),
            self.challenges.next_at(),
            self.contacts.next_at(),
            self.flood.next_at(),
            self.gossip.next_at(),
            self.next_session_talk_at(),
            self.next_attempt_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// What became of datagrams.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Our site.
    pub fn site_id(&self) -> SiteId {
        self.own.id
    }

    /// What is known of revocations.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Stops in order: says goodbye to everybody who listens. Then nothing is sent.
    pub fn shut_down(&mut self, now: Now) {
        if self.has_stopped {
            return;
        }
        self.say_goodbye(now);
        self.has_stopped = true;
    }

    /// Begins or ends to be drained: peers send new flows elsewhere, nobody relays through us.
    pub fn drain(&mut self, is_draining: bool, now: Now) {
        if self.own.is_draining != is_draining {
            self.own.is_draining = is_draining;
            self.tell_everybody(now);
        }
    }

    /// Sites of which nothing is proven, those that proved themselves, and sources that are told apart: how full the
    /// tables are.
    pub fn table_len(&self) -> (usize, usize, usize) {
        (
            self.sites.unverified_len(),
            self.sites.verified_len(),
            self.sources.len(),
        )
    }

    fn apply_config(&mut self, now: Now) {
        let lans = self.config.lans.clone();
        self.lans.set(&lans, &mut self.dice, now.instant);
        self.contacts.set(&self.config, &mut self.dice, now.instant);
        self.reconsider_all(now);
    }

    /// What we say is another thing than before: everybody who listens should hear it soon.
    fn tell_everybody(&mut self, now: Now) {
        self.lans.hurry(&mut self.dice, now.instant);
        self.talk_to_sessions_at(now.instant);
        self.contacts.hurry(now.instant);
    }

    fn own_announcement(&mut self, now: Now) -> Signed<Announcement> {
        let keys = self.rotation.announced();
        let state = self.revocations.state();
        self.own.announcement(&self.config, keys, state, now)
    }

    fn send(&mut self, message: &Message, to: Destination) {
        self.send_body(message.kind(), &message.to_body(), to);
    }

    fn send_body(&mut self, kind: MessageKind, body: &[u8], to: Destination) {
        let datagram = self
            .config
            .keyring
            .sealing()
            .seal(kind, body, &mut self.dice);
        self.outbox
            .push(Transmit { to, datagram }, &mut self.counters);
    }

    fn tell(&mut self, event: Event) {
        self.events.push(event, &mut self.counters);
    }

    fn tell_hourly(&mut self, class: (events::Class, SiteId), event: Event, now: Now) {
        self.events
            .push_hourly(class, event, now.instant, &mut self.counters);
    }
}
