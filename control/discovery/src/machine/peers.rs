//! The tunnels that there should be.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use patronus_packet::Prefix;

use crate::announce::Capabilities;
use crate::certificate::TrustedCertificate;
use crate::endpoint::Endpoint;
use crate::ids::{Nonce, SiteId};
use crate::machine::Machine;
use crate::machine::connect::offered_beside;
use crate::machine::sites::{Admission, Site};
use crate::subject::{Labels, Name, Roles};
use crate::wireguard::WireGuardKeys;

/// The site moves its traffic elsewhere: take another of its group where there is one, and no new flows to it.
pub const DRAINING: Capabilities = Capabilities(1);

/// A wanted tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The site.
    pub site: SiteId,
    /// Its name.
    pub name: Name,
    /// Its WireGuard keys. Sessions with the next one may begin whenever the site begins one; from its time on we begin.
    pub keys: WireGuardKeys,
    /// Where it may be reached: all are to be tried.
    pub endpoints: Vec<Endpoint>,
    /// Its tunnel addresses, from its certificate.
    pub addresses: Vec<IpAddr>,
    /// What is routed to it and what it may send from, from its certificate.
    pub prefixes: Vec<Prefix>,
    /// Its group: several sites of one group may have the same prefixes.
    pub ha_group: Option<Name>,
    /// What it may do for others.
    pub roles: Roles,
    /// Labels that policy may select.
    pub labels: Labels,
    /// It is being drained.
    pub is_draining: bool,
    /// Nothing was heard of it for long.
    pub is_silent: bool,
    /// Whom to send through as long as no endpoint answers: a peer too.
    pub relay: Option<SiteId>,
    /// Both sides begin handshakes to all endpoints at this time.
    pub attempt: Option<Attempt>,
}

/// Both sides open their NATs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Another one means another attempt.
    pub id: Nonce,
    /// When to begin.
    pub at: Instant,
}

/// A site that waits for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingSite {
    /// The site.
    pub site: SiteId,
    /// Its certificate: all that is known of it for sure.
    pub certificate: TrustedCertificate,
    /// From where it was heard, where it was heard in clear.
    pub heard_from: Option<SocketAddr>,
}

impl Machine {
    /// The tunnels that there should be, by site.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        let is_silenced = self.is_self_revoked();
        let own = &self.config.own_addresses;
        self.sites
            .iter()
            .filter(move |site| !is_silenced && site.is_peer())
            .filter_map(move |site| to_peer(site, own))
    }

    /// Grows whenever [`Self::peers`] may differ from before.
    pub fn peers_generation(&self) -> u64 {
        self.generation
    }

    /// Sites that wait for the operator's approval.
    pub fn pending(&self) -> impl Iterator<Item = PendingSite> {
        self.sites
            .iter()
            .filter(|site| site.admission == Admission::Pending)
            .filter_map(|site| {
                Some(PendingSite {
                    site: site.id,
                    certificate: site.certificate.clone()?,
                    heard_from: site.contact.map(|(_, address)| address),
                })
            })
    }
}

fn to_peer(site: &Site, own: &BTreeSet<IpAddr>) -> Option<Peer> {
    let subject = &site.certificate.as_ref()?.content().subject;
    let announced = site.announcement.as_ref()?.content();
    let usable = announced.endpoints.without_own(|addr| own.contains(&addr));
    let offered = offered_beside(site.offered.as_ref(), &usable);
    let endpoints = usable.as_slice().iter().copied().chain(offered).collect();
    Some(Peer {
        site: site.id,
        name: subject.name.clone(),
        keys: announced.wireguard,
        endpoints,
        addresses: subject.addresses.as_slice().to_vec(),
        prefixes: subject.prefixes.as_slice().to_vec(),
        ha_group: subject.ha_group.clone(),
        roles: subject.roles,
        labels: subject.labels.clone(),
        is_draining: announced.capabilities.common(DRAINING) == DRAINING,
        is_silent: site.is_silent,
        relay: site.session.relay.filter(|_| !site.session.is_direct()),
        attempt: site.session.attempt.map(|(id, at)| Attempt { id, at }),
    })
}
