//! Messages of a few fields.

use std::net::SocketAddr;

use crate::announce::Stamp;
use crate::endpoint::Endpoints;
use crate::ids::{Fingerprint, NetworkId, Nonce, SiteId};
use crate::message::QUESTION_LEN;
use crate::signed::{SiteSigned, sealed::Layout};
use crate::signing::Domain;
use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader, mapped, unmapped};

/// Bytes of a challenge's response, and so of the challenge.
pub(super) const RESPONSE_LEN: usize = 136;
/// Bytes of what was observed, and so of the probe.
pub(super) const OBSERVED_LEN: usize = 50;
/// Bytes of a goodbye.
pub(super) const GOODBYE_LEN: usize = 120;

/// Asks for a site's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateQuery {
    /// The network.
    pub network: NetworkId,
    /// The site.
    pub site: SiteId,
    /// Exactly this certificate; `None` for the newest one.
    pub fingerprint: Option<Fingerprint>,
}

/// Asks a site to sign a number. Who answers has the site's key and is there: no clock is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The network.
    pub network: NetworkId,
    /// The site that should answer.
    pub site: SiteId,
    /// The number.
    pub nonce: Nonce,
}

/// The answer to a [`Challenge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChallengeResponse {
    /// The network.
    pub network: NetworkId,
    /// The site that answers.
    pub site: SiteId,
    /// The number of the challenge.
    pub nonce: Nonce,
    /// The last stamp that the site signed: what is older is a replay.
    pub stamp: Stamp,
    /// The site's clock.
    pub issued_at: WallTime,
}

/// Asks from which address this datagram comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The network.
    pub network: NetworkId,
    /// A number that the answer must bring back: who did not get the probe cannot answer it.
    pub nonce: Nonce,
}

/// The answer to a [`Probe`]. Not signed: who is on the way could change the probe's source as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The network.
    pub network: NetworkId,
    /// The number of the probe.
    pub nonce: Nonce,
    /// Where the probe came from.
    pub address: SocketAddr,
}

/// Which of two connects it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectStep {
    /// "I begin."
    Ask,
    /// "So do I."
    Answer,
}

/// Two sites behind NAT begin to send to each other at once, so that each opens its own NAT for the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The network.
    pub network: NetworkId,
    /// The site that says it.
    pub site: SiteId,
    /// The site that it is said to.
    pub to: SiteId,
    /// Later ones replace earlier ones.
    pub stamp: Stamp,
    /// When it was signed, by the site's clock.
    pub issued_at: WallTime,
    /// Names the attempt; the answer has the asker's.
    pub attempt: Nonce,
    /// Which of the two it is.
    pub step: ConnectStep,
    /// Begin so many milliseconds after receipt.
    pub delay_ms: u16,
    /// Where to send.
    pub endpoints: Endpoints,
}

/// A site stops in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The network.
    pub network: NetworkId,
    /// The site.
    pub site: SiteId,
    /// What the site signed before is older.
    pub stamp: Stamp,
    /// When it was signed, by the site's clock.
    pub issued_at: WallTime,
}

impl CertificateQuery {
    pub(super) fn to_body(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUESTION_LEN);
        out.put(self.network.as_bytes());
        out.put(self.site.as_bytes());
        let fingerprint = self.fingerprint.map_or([0; 32], |named| *named.as_bytes());
        out.put(&fingerprint);
        out.resize(QUESTION_LEN, 0);
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let query = Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            site: SiteId::from_bytes(reader.array("site id")?),
            fingerprint: Some(reader.array("fingerprint")?)
                .filter(|bytes| *bytes != [0; 32])
                .map(Fingerprint::from_bytes),
        };
        reader.finish_padded("padding")?;
        Ok(query)
    }
}

impl Challenge {
    pub(super) fn to_body(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RESPONSE_LEN);
        out.put(self.network.as_bytes());
        out.put(self.site.as_bytes());
        out.put(self.nonce.as_bytes());
        out.resize(RESPONSE_LEN, 0);
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let challenge = Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            site: SiteId::from_bytes(reader.array("site id")?),
            nonce: Nonce::from_bytes(reader.array("nonce")?),
        };
        reader.finish_padded("padding")?;
        Ok(challenge)
    }
}

impl Probe {
    pub(super) fn to_body(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OBSERVED_LEN);
        out.put(self.network.as_bytes());
        out.put(self.nonce.as_bytes());
        out.resize(OBSERVED_LEN, 0);
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let probe = Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            nonce: Nonce::from_bytes(reader.array("nonce")?),
        };
        reader.finish_padded("padding")?;
        Ok(probe)
    }
}

impl Observed {
    pub(super) fn to_body(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OBSERVED_LEN);
        out.put(self.network.as_bytes());
        out.put(self.nonce.as_bytes());
        out.put(&mapped(self.address.ip()));
        out.put_u16(self.address.port());
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let observed = Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            nonce: Nonce::from_bytes(reader.array("nonce")?),
            address: SocketAddr::new(unmapped(reader.array("address")?), reader.u16("port")?),
        };
        reader.finish("observed")?;
        Ok(observed)
    }
}

impl SiteSigned for ChallengeResponse {
    fn network(&self) -> NetworkId {
        self.network
    }

    fn site(&self) -> SiteId {
        self.site
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl Layout for ChallengeResponse {
    const DOMAIN: Domain = Domain::ChallengeResponse;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.network.as_bytes());
        out.put(self.site.as_bytes());
        out.put(self.nonce.as_bytes());
        self.stamp.encode(out);
        out.put_u64(self.issued_at.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            site: SiteId::from_bytes(reader.array("site id")?),
            nonce: Nonce::from_bytes(reader.array("nonce")?),
            stamp: Stamp::decode(reader)?,
            issued_at: WallTime(reader.u64("issued at")?),
        })
    }
}

impl SiteSigned for Connect {
    fn network(&self) -> NetworkId {
        self.network
    }

    fn site(&self) -> SiteId {
        self.site
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl Layout for Connect {
    const DOMAIN: Domain = Domain::Connect;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.network.as_bytes());
        out.put(self.site.as_bytes());
        out.put(self.to.as_bytes());
        self.stamp.encode(out);
        out.put_u64(self.issued_at.0);
        out.put(self.attempt.as_bytes());
        out.put_u8(match self.step {
            ConnectStep::Ask => 1,
            ConnectStep::Answer => 2,
        });
        out.put_u16(self.delay_ms);
        self.endpoints.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            site: SiteId::from_bytes(reader.array("site id")?),
            to: SiteId::from_bytes(reader.array("addressee")?),
            stamp: Stamp::decode(reader)?,
            issued_at: WallTime(reader.u64("issued at")?),
            attempt: Nonce::from_bytes(reader.array("attempt")?),
            step: match reader.u8("step")? {
                1 => ConnectStep::Ask,
                2 => ConnectStep::Answer,
                _ => return Err(Fault::Unknown.at("step")),
            },
            delay_ms: reader.u16("delay")?,
            endpoints: Endpoints::decode(reader)?,
        })
    }
}

impl SiteSigned for Goodbye {
    fn network(&self) -> NetworkId {
        self.network
    }

    fn site(&self) -> SiteId {
        self.site
    }
}

#[allow(private_interfaces, reason = "sealed")]
impl Layout for Goodbye {
    const DOMAIN: Domain = Domain::Goodbye;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.network.as_bytes());
        out.put(self.site.as_bytes());
        self.stamp.encode(out);
        out.put_u64(self.issued_at.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            network: NetworkId::from_bytes(reader.array("network id")?),
            site: SiteId::from_bytes(reader.array("site id")?),
            stamp: Stamp::decode(reader)?,
            issued_at: WallTime(reader.u64("issued at")?),
        })
    }
}
