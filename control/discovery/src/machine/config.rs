//! What the shell tells the machine: who it is, where it is, and what the operator wants.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::certificate::{Certificate, CertificateError};
use crate::endpoint::Endpoint;
use crate::envelope::Keyring;
use crate::ids::SiteId;
use crate::keys::{RootPublicKey, SiteKey};
use crate::machine::arrival::InterfaceId;
use crate::subject::Name;
use crate::time::WallTime;
use crate::wireguard::WireGuardKey;

/// Most LAN interfaces.
pub const LANS_MAX: usize = 32;
/// Most seeds and static peers together.
pub const CONTACTS_MAX: usize = 64;

/// What stays for a run.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The network's root.
    pub root: RootPublicKey,
    /// Our key.
    pub site_key: SiteKey,
    /// Larger than that of every earlier run: the shell counts starts on disk. A site that lost the count is let in
    /// again by those that do not hear it any more: it proves by a challenge that it is there.
    pub boot_epoch: u64,
    /// Our WireGuard keys, as the last run left them.
    pub wireguard: OwnKeys,
}

/// Our WireGuard keys. The shell has their secret halves, and keeps this on disk: see
/// [`Machine::own_keys`](crate::Machine::own_keys).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnKeys {
    /// The key in use.
    pub current: WireGuardKey,
    /// Since when.
    pub since: WallTime,
    /// The key to come, and from when it is used. Peers may begin with it as soon as they know it.
    pub next: Option<(WireGuardKey, WallTime)>,
    /// The key before, which is accepted until every peer has moved, or for 26 hours.
    pub previous: Option<WireGuardKey>,
}

/// What can change while a site runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The group's keys.
    pub keyring: Keyring,
    /// Our certificate.
    pub certificate: Certificate,
    /// Interfaces with the LAN role.
    pub lans: Vec<LanInterface>,
    /// Sites to begin with, their names resolved. A control plane is one more of them.
    pub seeds: Vec<Contact>,
    /// Sites that the operator wrote down.
    pub static_peers: Vec<Contact>,
    /// Where our WireGuard can be reached, as far as we know ourselves. Observed addresses are added by the machine.
    pub endpoints: Vec<Endpoint>,
    /// Addresses of our interfaces: no other site is reached there.
    pub own_addresses: BTreeSet<IpAddr>,
    /// Who may be a peer.
    pub approval: Approval,
    /// How long known peers are kept when their certificate, or ours, has ended.
    pub grace: Duration,
    /// Version of the policy in force, to be announced.
    pub policy_version: u64,
    /// Whether WireGuard keys are replaced every 24 hours.
    pub rotates_keys: bool,
}

/// An interface with the LAN role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanInterface {
    /// Which.
    pub id: InterfaceId,
    /// Whether it has an IPv4 address.
    pub has_v4: bool,
    /// Whether it has an IPv6 link-local address.
    pub has_v6: bool,
}

/// Where a site's discovery can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// The site; `None` where only the address is known.
    pub site: Option<SiteId>,
    /// Address and port of its discovery.
    pub address: SocketAddr,
}

/// Who may be a peer, of those that the network's root vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// Everybody.
    #[default]
    Everybody,
    /// Whom the operator approved, and sites of these groups.
    Operator {
        /// Groups whose sites need no approval: those of join tokens that say so.
        auto_groups: BTreeSet<Name>,
    },
}

/// A configuration that the machine cannot work with. The one before stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The certificate is not of this network, or not signed as it should be.
    #[error("this site's certificate is worth nothing: {0}")]
    Certificate(#[from] CertificateError),
    /// The certificate is for another key.
    #[error("this site's certificate is for another site's key")]
    OtherKey,
    /// Too many interfaces.
    #[error("{0} LAN interfaces, {LANS_MAX} is the limit")]
    Lans(usize),
    /// Too many seeds and static peers.
    #[error("{0} seeds and static peers, {CONTACTS_MAX} is the limit")]
    Contacts(usize),
}

impl Config {
    /// Nothing but what nobody can do without.
    pub fn new(keyring: Keyring, certificate: Certificate) -> Self {
        Self {
            keyring,
            certificate,
            lans: Vec::new(),
            seeds: Vec::new(),
            static_peers: Vec::new(),
            endpoints: Vec::new(),
            own_addresses: BTreeSet::new(),
            approval: Approval::default(),
            grace: GRACE,
            policy_version: 0,
            rotates_keys: true,
        }
    }

    pub(super) fn check_limits(&self) -> Result<(), ConfigError> {
        if self.lans.len() > LANS_MAX {
            return Err(ConfigError::Lans(self.lans.len()));
        }
        let contacts = self.seeds.len() + self.static_peers.len();
        if contacts > CONTACTS_MAX {
            return Err(ConfigError::Contacts(contacts));
        }
        Ok(())
    }
}

/// Default of [`Config::grace`].
pub const GRACE: Duration = Duration::from_secs(7 * 86_400);
