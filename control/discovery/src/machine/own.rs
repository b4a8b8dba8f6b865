//! Ourselves: key, certificate, and the announcement that says so.

use std::time::{Duration, Instant};

use crate::announce::{Announcement, Capabilities, ProtocolRange, Stamp, prefixes_digest};
use crate::certificate::{Trust, TrustedCertificate};
use crate::endpoint::{Endpoint, EndpointKind, Endpoints};
use crate::ids::{NetworkId, SiteId};
use crate::keys::SiteKey;
use crate::machine::clock::Now;
use crate::machine::config::{Config, ConfigError};
use crate::machine::peers::DRAINING;
use crate::signed::Signed;
use crate::wireguard::WireGuardKeys;

/// Seconds for which an announcement counts: one that somebody keeps back is worth nothing after that.
const TTL_S: u16 = 900;
/// An announcement that says nothing new is signed again after this time; until then the same bytes go to everybody.
const SIGNED_FOR: Duration = Duration::from_secs(1);

pub(super) struct Own {
    pub key: SiteKey,
    pub id: SiteId,
    pub network: NetworkId,
    pub certificate: TrustedCertificate,
    pub stamp: Stamp,
    pub is_draining: bool,
    /// Addresses that rendezvous saw.
    pub observed: Vec<Endpoint>,
    signed: Option<(Instant, Said, Signed<Announcement>)>,
}

/// What an announcement says beside who, when and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    wireguard: WireGuardKeys,
    capabilities: Capabilities,
    policy_version: u64,
    revocation_state: u64,
    endpoints: Endpoints,
}

impl Own {
    pub fn new(key: SiteKey, certificate: TrustedCertificate, boot_epoch: u64) -> Self {
        Self {
            id: key.id(),
            network: certificate.content().network,
            key,
            certificate,
            stamp: Stamp {
                boot_epoch,
                sequence: 0,
            },
            is_draining: false,
            observed: Vec::new(),
            signed: None,
        }
    }

    /// Our announcement, for all that are told about the same time.
    pub fn announcement(
        &mut self,
        config: &Config,
        wireguard: WireGuardKeys,
        revocation_state: u64,
        now: Now,
    ) -> Signed<Announcement> {
        let said = Said {
            wireguard,
            capabilities: if self.is_draining {
                DRAINING
            } else {
                Capabilities::default()
            },
            policy_version: config.policy_version,
            revocation_state,
            endpoints: self.endpoints(config),
        };
        if let Some((at, before, signed)) = &self.signed {
            let is_young = now.instant.saturating_duration_since(*at) < SIGNED_FOR;
            let is_of_now = signed.claims().issued_at.distance(now.wall) < SIGNED_FOR * 2;
            if is_young && is_of_now && *before == said {
                return signed.clone();
            }
        }
        let signed = self.sign(&said, now);
        self.signed = Some((now.instant, said, signed.clone()));
        signed
    }

    /// The next of our stamps.
    pub fn next_stamp(&mut self) -> Stamp {
        self.stamp.sequence += 1;
        self.stamp
    }

    /// What is announced is signed anew: the certificate is another one.
    pub fn forget_signed(&mut self) {
        self.signed = None;
    }

    /// Observed addresses first: what a provider's network gives an uplink is no good to anybody outside.
    fn endpoints(&self, config: &Config) -> Endpoints {
        let is_known = |observed: &Endpoint| {
            let same = |known: &Endpoint| known.address == observed.address;
            config.endpoints.iter().any(same)
        };
        let observed = self.observed.iter().filter(|it| !is_known(it));
        let configured = |endpoint: &&Endpoint| endpoint.kind == EndpointKind::Configured;
        let first = config.endpoints.iter().filter(configured);
        let rest = config.endpoints.iter().filter(|it| !configured(it));
        Endpoints::sift(first.chain(observed).chain(rest).copied())
    }

    fn sign(&mut self, said: &Said, now: Now) -> Signed<Announcement> {
        let stamp = self.next_stamp();
        let prefixes = self.certificate.content().subject.prefixes.as_slice();
        let announcement = Announcement {
            network: self.network,
            site: self.id,
            stamp,
            issued_at: now.wall,
            ttl_s: TTL_S,
            certificate: self.certificate.fingerprint(),
            wireguard: said.wireguard,
            capabilities: said.capabilities,
            protocol: ProtocolRange::OURS,
            // A certificate's prefixes are sound already.
            prefixes_digest: prefixes_digest(prefixes).unwrap_or_default(),
            policy_version: said.policy_version,
            revocation_state: said.revocation_state,
            endpoints: said.endpoints.clone(),
        };
        Signed::sign(announcement, &self.key)
    }
}

/// The configuration's certificate, if it is ours.
pub(super) fn check_certificate(
    config: &Config,
    id: SiteId,
    trust: &mut Trust,
) -> Result<TrustedCertificate, ConfigError> {
    if config.certificate.claims().site_id() != id {
        return Err(ConfigError::OtherKey);
    }
    Ok(config.certificate.clone().verify(trust)?)
}
