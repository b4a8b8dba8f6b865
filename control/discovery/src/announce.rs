//! The announcement: what a site says about itself, again and again.

use std::time::Duration;

use patronus_packet::Prefix;

use crate::endpoint::Endpoints;
use crate::ids::{Fingerprint, NetworkId, SiteId};
use crate::signed::{SiteSigned, sealed::Layout};
use crate::signing::{Domain, hash};
use crate::subject::{Prefixes, SubjectError};
use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader};
use crate::wireguard::WireGuardKeys;

/// Place of a message in all that a site signs: a later one has the larger stamp, over restarts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// Grows with every start of the site.
    pub boot_epoch: u64,
    /// Counts the signed messages of this run.
    pub sequence: u64,
}

/// Versions of this protocol that a site speaks, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProtocolRange {
    min: u16,
    max: u16,
}

/// What a site can do, as bits; bits that a version does not know are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(pub u64);

/// What a site says about itself. Never a source of routes: those are in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The network.
    pub network: NetworkId,
    /// The site.
    pub site: SiteId,
    /// Later ones replace earlier ones.
    pub stamp: Stamp,
    /// When it was signed, by the site's clock.
    pub issued_at: WallTime,
    /// Seconds for which it counts.
    pub ttl_s: u16,
    /// The certificate that the site uses.
    pub certificate: Fingerprint,
    /// The site's WireGuard keys.
    pub wireguard: WireGuardKeys,
    /// What the site can do.
    pub capabilities: Capabilities,
    /// Versions that it speaks.
    pub protocol: ProtocolRange,
    /// Digest of the prefixes that it serves: see [`prefixes_digest`].
    pub prefixes_digest: [u8; 32],
    /// Version of the policy in force there.
    pub policy_version: u64,
    /// State of the revocations known there: see [`Revocations::state`](crate::Revocations::state).
    pub revocation_state: u64,
    /// Where it can be reached.
    pub endpoints: Endpoints,
}

impl Announcement {
    /// Until when it counts, by the site's clock.
    pub fn expires_at(&self) -> WallTime {
        self.issued_at + Duration::from_secs(u64::from(self.ttl_s))
    }
}

impl ProtocolRange {
    /// This version's.
    pub const OURS: Self = Self { min: 1, max: 1 };

    /// `None` when the least is above the largest.
    pub fn new(min: u16, max: u16) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// The largest version that both speak.
    pub fn common(&self, other: &Self) -> Option<u16> {
        let max = self.max.min(other.max);
        (max >= self.min.max(other.min)).then_some(max)
    }
}

impl Capabilities {
    /// What both can do.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Digest of the prefixes that a site serves: another one means that there is something to ask for.
///
/// # Errors
/// More prefixes than a certificate has, or one with host bits.
pub fn prefixes_digest(prefixes: &[Prefix]) -> Result<[u8; 32], SubjectError> {
    let mut encoded = Vec::new();
    Prefixes::new(prefixes.iter().copied())?.encode(&mut encoded);
    Ok(hash(Domain::Prefixes, &encoded))
}

impl SiteSigned for Announcement {
    fn network(&self) -> NetworkId {
        self.network
    }

    fn site(&self) -> SiteId {
        self.site
    }

    fn certificate(&self) -> Option<Fingerprint> {
        Some(self.certificate)
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl Layout for Announcement {
    const DOMAIN: Domain = Domain::Announce;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.network.as_bytes());
        out.put(self.site.as_bytes());
        self.stamp.encode(out);
        out.put_u64(self.issued_at.0);
        out.put_u16(self.ttl_s);
        out.put(self.certificate.as_bytes());
        self.wireguard.encode(out);
        out.put_u64(self.capabilities.0);
        out.put_u16(self.protocol.min);
        out.put_u16(self.protocol.max);
        out.put(&self.prefixes_digest);
        out.put_u64(self.policy_version);
        out.put_u64(self.revocation_state);
        self.endpoints.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            site: SiteId::from_bytes(reader.array("site id")?),
            stamp: Stamp::decode(reader)?,
            issued_at: WallTime(reader.u64("issued at")?),
            ttl_s: reader.u16("ttl")?,
            certificate: Fingerprint::from_bytes(reader.array("certificate fingerprint")?),
            wireguard: WireGuardKeys::decode(reader)?,
            capabilities: Capabilities(reader.u64("capabilities")?),
            protocol: ProtocolRange::new(
                reader.u16("protocol range")?,
                reader.u16("protocol range")?,
            )
            .ok_or(Fault::Contradiction.at("protocol range"))?,
            prefixes_digest: reader.array("prefixes digest")?,
            policy_version: reader.u64("policy version")?,
            revocation_state: reader.u64("revocation state")?,
            endpoints: Endpoints::decode(reader)?,
        })
    }
}

impl Stamp {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.put_u64(self.boot_epoch);
        out.put_u64(self.sequence);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            boot_epoch: reader.u64("boot epoch")?,
            sequence: reader.u64("sequence")?,
        })
    }
}
