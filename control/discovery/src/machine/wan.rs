//! The first way to others over networks that carry no multicast: seeds, static peers, and where sites were last heard.
//! And what a rendezvous is asked for: from where it sees us.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::endpoint::{CostClass, Endpoint, EndpointKind, UplinkLabel};
use crate::ids::{Nonce, SiteId};
use crate::machine::Machine;
use crate::machine::arrival::{Destination, Door};
use crate::machine::clock::Now;
use crate::machine::config::{Config, Contact};
use crate::machine::counters::Drop;
use crate::machine::dice::Dice;
use crate::machine::events::Event;
use crate::machine::sites::{Origin, Site};
use crate::message::{Message, MessageKind, Observed, Probe};
use crate::subject::Roles;

/// First pauses between greetings of a contact that does not answer, then the last one again and again.
const PAUSES_S: [u64; 6] = [1, 2, 4, 8, 16, 30];
/// A contact that we have a session with is looked at again after this time.
const SETTLED: Duration = Duration::from_secs(15);
/// Sites that are greeted where they were last heard.
const REMEMBERED_MAX: usize = 16;
/// We announce ourselves through sessions in this time, a quarter more or less.
const TALK_EVERY: Duration = Duration::from_secs(60);
/// A rendezvous is asked for our address in this time.
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// Observed addresses that are announced.
const OBSERVED_MAX: usize = 4;

/// Whom we greet in clear.
#[derive(Default)]
pub(super) struct Contacts {
    all: BTreeMap<SocketAddr, Greeting>,
}

struct Greeting {
    site: Option<SiteId>,
    is_configured: bool,
    tries: usize,
    next_at: Instant,
}

impl Contacts {
    pub fn set(&mut self, config: &Config, dice: &mut Dice, now: Instant) {
        let configured: Vec<Contact> = config
            .seeds
            .iter()
            .chain(&config.static_peers)
            .copied()
            .collect();
        self.all.retain(|address, greeting| {
            !greeting.is_configured || configured.iter().any(|it| it.address == *address)
        });
        for contact in configured {
            let first = now + Duration::from_millis(dice.below(100));
            let greeting = self.all.entry(contact.address).or_insert(Greeting {
                site: contact.site,
                is_configured: true,
                tries: 0,
                next_at: first,
            });
            greeting.is_configured = true;
            greeting.site = contact.site.or(greeting.site);
        }
    }

    /// Greets a site where it was heard before.
    pub fn remember(&mut self, site: SiteId, address: SocketAddr, now: Instant) {
        let remembered = self.all.values().filter(|it| !it.is_configured).count();
        if remembered < REMEMBERED_MAX {
            self.all.entry(address).or_insert(Greeting {
                site: Some(site),
                is_configured: false,
                tries: 0,
                next_at: now + Duration::from_secs(2),
            });
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.all.values().map(|it| it.next_at).min()
    }

    /// Begins anew with all that do not answer.
    pub fn hurry(&mut self, now: Instant) {
        for greeting in self.all.values_mut() {
            greeting.next_at = greeting.next_at.min(now + Duration::from_secs(1));
        }
    }
}

impl Machine {
    /// Sends our certificate and announcement to contacts that we have no session with.
    pub(super) fn greet_contacts(&mut self, now: Now) {
        let mut due = Vec::new();
        for (address, greeting) in &mut self.contacts.all {
            if greeting.next_at > now.instant {
                continue;
            }
            let is_this = |site: &&Site| match greeting.site {
                Some(id) => site.id == id,
                None => site.contact == Some((Door::Wan, *address)),
            };
            let is_settled = self
                .sites
                .iter()
                .find(is_this)
                .is_some_and(Site::is_connected);
            if is_settled {
                greeting.tries = 0;
                greeting.next_at = now.instant + SETTLED;
                continue;
            }
            let pause = PAUSES_S[greeting.tries.min(PAUSES_S.len() - 1)];
            greeting.tries += 1;
            greeting.next_at = now.instant + self.dice.about(Duration::from_secs(pause));
            due.push(*address);
        }
        if due.is_empty() || self.is_self_revoked() {
            return;
        }
        let announcement = Message::Announce(self.own_announcement(now)).to_body();
        let certificate = self.own.certificate.certificate().as_bytes().to_vec();
        for address in due {
            let to = Destination::Unicast {
                to: address,
                lan: None,
            };
            self.sources
                .befriend(address.ip(), Duration::from_secs(5), now.instant);
            self.send_body(MessageKind::CertificateAnswer, &certificate, to);
            self.send_body(MessageKind::Announce, &announcement, to);
        }
    }

    /// Announces us through sessions, and asks rendezvous where they see us.
    pub(super) fn talk_to_sessions(&mut self, now: Now) {
        if self.is_self_revoked() {
            return;
        }
        let (mut told, mut probed) = (Vec::new(), Vec::new());
        for site in self.sites.iter_mut().filter(|site| site.is_connected()) {
            let is_due = |at: Option<Instant>| at.is_none_or(|at| at <= now.instant);
            if is_due(site.session.next_announcement_at) {
                site.session.next_announcement_at = Some(now.instant + self.dice.about(TALK_EVERY));
                told.push(site.id);
            }
            if is_rendezvous(site) && is_due(site.session.next_probe_at) {
                site.session.next_probe_at = Some(now.instant + self.dice.about(PROBE_EVERY));
                let nonce = Nonce::random(&mut self.dice);
                site.session.probe = Some((nonce, now.instant));
                probed.push((site.id, nonce));
            }
        }
        if !told.is_empty() {
            let announcement = Message::Announce(self.own_announcement(now)).to_body();
            for id in told {
                self.send_body(MessageKind::Announce, &announcement, Destination::Site(id));
            }
        }
        for (id, nonce) in probed {
            let network = self.own.network;
            let probe = Message::Probe(Probe { network, nonce });
            self.send(&probe, Destination::Site(id));
        }
    }

    pub(super) fn next_session_talk_at(&self) -> Option<Instant> {
        // Who is revoked talks to nobody, and must not wake for it.
        if self.is_self_revoked() {
            return None;
        }
        let times = |site: &Site| {
            let probe = site.session.next_probe_at.filter(|_| is_rendezvous(site));
            [site.session.next_announcement_at, probe]
        };
        self.sites.connected().flat_map(times).flatten().min()
    }

    /// Our next announcements through sessions are due at this time.
    pub(super) fn talk_to_sessions_at(&mut self, at: Instant) {
        for site in self.sites.iter_mut().filter(|site| site.is_connected()) {
            site.session.next_announcement_at = Some(at);
        }
    }

    pub(super) fn handle_observed(
        &mut self,
        observed: &Observed,
        origin: Origin,
        now: Now,
    ) -> Result<(), Drop> {
        if observed.network != self.own.network {
            return Err(Drop::OtherNetwork);
        }
        let Door::Tunnel(id) = origin.door else {
            return Err(Drop::Unasked);
        };
        let site = self.sites.site_mut(id).ok_or(Drop::Unasked)?;
        let is_asked = |(nonce, _): &(Nonce, Instant)| *nonce == observed.nonce;
        site.session
            .probe
            .take_if(|probe| is_asked(probe))
            .ok_or(Drop::Unasked)?;
        let uplink = site.session.path.and_then(|path| path.uplink);
        self.set_observed(id, uplink, observed.address, now);
        Ok(())
    }

    /// Latest first; one address per rendezvous, as some NATs give another address for each.
    fn set_observed(
        &mut self,
        by: SiteId,
        uplink: Option<UplinkLabel>,
        address: SocketAddr,
        now: Now,
    ) {
        let Some(label) = uplink.or_else(|| UplinkLabel::of("wan")) else {
            return;
        };
        let endpoint = Endpoint {
            kind: EndpointKind::Observed,
            uplink: label,
            address,
            mtu: None,
            cost: CostClass::Flat,
        };
        // What a rendezvous on our own LAN sees is known already, and an address of nobody is no news.
        let is_own = self.config.own_addresses.contains(&address.ip());
        if endpoint.fault().is_some() || is_own {
            return;
        }
        let before = self.observed_by.insert(by, endpoint);
        if before == Some(endpoint) {
            return;
        }
        self.renew_observed();
        self.tell(Event::Observed { uplink, address });
        self.tell_everybody(now);
    }

    /// What sites that we have sessions with see; what others saw, while there is nobody.
    pub(super) fn renew_observed(&mut self) {
        let sites = &self.sites;
        let is_there = |id: &SiteId| sites.site(*id).is_some_and(Site::is_connected);
        if self.observed_by.keys().any(is_there) {
            self.observed_by.retain(|id, _| is_there(id));
        }
        let mut observed: Vec<Endpoint> = Vec::new();
        for endpoint in self.observed_by.values() {
            let is_new = observed.iter().all(|it| it.address != endpoint.address);
            if is_new && observed.len() < OBSERVED_MAX {
                observed.push(*endpoint);
            }
        }
        self.own.observed = observed;
    }
}

fn is_rendezvous(site: &Site) -> bool {
    site.has_role(Roles::RENDEZVOUS)
}
