//! Revocations: ids of keys that are not to be believed, whatever certificate they have.
//!
//! Every signer, the root or an issuer, has a list of its own with versions of its own, so that a stolen issuer's key
//! cannot overrule the root's list. What is revoked is what any list names. An issuer revokes sites; only the root
//! revokes issuers, and with an issuer everything that it signed, its list too.
//!
//! A list travels in parts that are signed one by one, so nothing unverified is ever put together. A verified part counts
//! at once; an older version of the list counts until the newer one is whole.

mod store;

use crate::certificate::{CertificateError, Issuing, Powers, Signer, Trust, split_signature};
use crate::ids::{ID_LEN, IssuerId, NetworkId, SiteId};
use crate::message::QUESTION_LEN;
use crate::signing::{Domain, SIGNATURE_LEN};
use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader, is_ascending};

pub use store::{Added, Revocations, RevokedBy, SIGNERS_MAX};

/// Most ids of a list.
pub const REVOKED_MAX: usize = 1024;
/// Ids of a part that is not the last.
pub const PART_IDS: usize = 48;
/// Most parts of a list.
pub const PARTS_MAX: usize = REVOKED_MAX.div_ceil(PART_IDS);

/// The id of a revoked site or issuer: both are hashes of keys, so one cannot be taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevokedId([u8; ID_LEN]);

impl From<SiteId> for RevokedId {
    fn from(id: SiteId) -> Self {
        Self(*id.as_bytes())
    }
}

impl From<IssuerId> for RevokedId {
    fn from(id: IssuerId) -> Self {
        Self(*id.as_bytes())
    }
}

/// Whose list it is: the network's id for the root's, an issuer's id for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListId([u8; ID_LEN]);

impl ListId {
    fn of(network: NetworkId, signer: &Signer) -> Self {
        match signer {
            Signer::Root => Self(*network.as_bytes()),
            Signer::Issuer(delegation) => Self(*delegation.issuer_id().as_bytes()),
        }
    }
}

/// A list to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// The network.
    pub network: NetworkId,
    /// A list with a larger version replaces the signer's earlier one.
    pub version: u64,
    /// When it was signed.
    pub issued_at: WallTime,
    ids: Vec<RevokedId>,
}

/// A list does not fit, or nobody would believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Too many ids.
    #[error(
        "{0} revocations, {REVOKED_MAX} is the limit: drop those whose certificates have expired"
    )]
    TooMany(usize),
    /// Not what the signer may sign.
    #[error("nobody would accept this list: {0}")]
    Refused(#[from] CertificateError),
}

/// A part of a list as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationPart {
    network: NetworkId,
    version: u64,
    issued_at: WallTime,
    part: u8,
    parts: u8,
    signer: Signer,
    ids: Vec<RevokedId>,
    encoded: Vec<u8>,
}

/// A part that the root, or an issuer that may revoke, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPart(RevocationPart);

/// What a site has of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Have {
    /// Whose list.
    pub list: ListId,
    /// Which version.
    pub version: u64,
    /// Which parts of it, by bit.
    pub parts: u32,
}

/// Asks for what the sender does not have; the answer is one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationQuery {
    /// The network.
    pub network: NetworkId,
    have: Vec<Have>,
}

impl RevocationList {
    /// Sorts and deduplicates.
    ///
    /// # Errors
    /// Too many.
    pub fn new(
        network: NetworkId,
        version: u64,
        issued_at: WallTime,
        ids: impl IntoIterator<Item = RevokedId>,
    ) -> Result<Self, ListError> {
        let mut ids: Vec<RevokedId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > REVOKED_MAX {
            return Err(ListError::TooMany(ids.len()));
        }
        Ok(Self {
            network,
            version,
            issued_at,
            ids,
        })
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[RevokedId] {
        &self.ids
    }

    /// Signs it, part by part.
    ///
    /// # Errors
    /// A signer that nobody would believe.
    pub fn sign(&self, by: Issuing<'_>) -> Result<Vec<RevocationPart>, ListError> {
        let signer = by.signer();
        by.check(self.network)?;
        check_signer(&signer, self.issued_at)?;
        let mut chunks: Vec<&[RevokedId]> = self.ids.chunks(PART_IDS).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let parts = chunks.len() as u8;
        let sign_part = |(part, ids): (u8, &[RevokedId])| {
            let mut part = RevocationPart {
                network: self.network,
                version: self.version,
                issued_at: self.issued_at,
                part,
                parts,
                signer: signer.clone(),
                ids: ids.to_vec(),
                encoded: Vec::new(),
            };
            let mut encoded = part.encode();
            let signature = by.sign(Domain::Revocation, &encoded);
            encoded.put(&signature);
            part.encoded = encoded;
            part
        };
        Ok((0..parts).zip(chunks).map(sign_part).collect())
    }
}

impl RevocationPart {
    /// Checks who signed it: one signature.
    ///
    /// # Errors
    /// Nobody whom the network lets revoke.
    pub fn verify(self, trust: &mut Trust) -> Result<VerifiedPart, CertificateError> {
        let (theirs, ours) = (self.network, trust.network());
        if theirs != ours {
            return Err(CertificateError::OtherNetwork { theirs, ours });
        }
        check_signer(&self.signer, self.issued_at)?;
        let (content, signature) = split_signature(&self.encoded);
        trust.check_signature(
            &self.signer,
            Powers::REVOKE,
            Domain::Revocation,
            content,
            signature,
        )?;
        Ok(VerifiedPart(self))
    }

    /// Whose list it claims to belong to.
    pub fn list(&self) -> ListId {
        ListId::of(self.network, &self.signer)
    }

    /// Which version of it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Which part, from 0, and of how many.
    pub fn place(&self) -> (u8, u8) {
        (self.part, self.parts)
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[RevokedId] {
        &self.ids
    }

    /// The part as it travels.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Reads a part; checks no signature.
    ///
    /// # Errors
    /// What is not exactly one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let network = NetworkId::from_bytes(reader.array("network id")?);
        let version = reader.u64("list version")?;
        let issued_at = WallTime(reader.u64("issued at")?);
        let part = reader.u8("part")?;
        let parts = reader.u8("parts")?;
        if usize::from(parts) > PARTS_MAX || part >= parts {
            return Err(Fault::Contradiction.at("parts"));
        }
        let signer = Signer::decode(&mut reader)?;
        let count = reader.count(PART_IDS, "revoked ids")?;
        let is_last = part + 1 == parts;
        let is_empty_wrong = count == 0 && parts > 1;
        if !is_last && count != PART_IDS || is_empty_wrong {
            return Err(Fault::Contradiction.at("revoked ids"));
        }
        if usize::from(part) * PART_IDS + count > REVOKED_MAX {
            return Err(Fault::TooMany.at("revoked ids"));
        }
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(RevokedId(reader.array("revoked ids")?));
        }
        if !is_ascending(&ids) {
            return Err(Fault::Order.at("revoked ids"));
        }
        reader.array::<SIGNATURE_LEN>("signature")?;
        reader.finish("revocations")?;
        Ok(Self {
            network,
            version,
            issued_at,
            part,
            parts,
            signer,
            ids,
            encoded: bytes.to_vec(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUESTION_LEN);
        out.put(self.network.as_bytes());
        out.put_u64(self.version);
        out.put_u64(self.issued_at.0);
        out.put_u8(self.part);
        out.put_u8(self.parts);
        self.signer.encode(&mut out);
        out.put_count(self.ids.len());
        self.ids.iter().for_each(|id| out.put(&id.0));
        out
    }
}

impl VerifiedPart {
    /// The part.
    pub fn part(&self) -> &RevocationPart {
        &self.0
    }
}

impl RevocationQuery {
    /// Tells what the sender has: the first [`SIGNERS_MAX`] lists, sorted.
    pub fn new(network: NetworkId, have: impl IntoIterator<Item = Have>) -> Self {
        let mut have: Vec<Have> = have.into_iter().take(SIGNERS_MAX).collect();
        have.sort_unstable_by_key(|have| have.list);
        have.dedup_by_key(|have| have.list);
        Self { network, have }
    }

    /// What the sender has.
    pub fn have(&self) -> &[Have] {
        &self.have
    }

    pub(crate) fn to_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUESTION_LEN);
        out.put(self.network.as_bytes());
        out.put_count(self.have.len());
        for have in &self.have {
            out.put(&have.list.0);
            out.put_u64(have.version);
            out.put_u32(have.parts);
        }
        out.resize(QUESTION_LEN, 0);
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let network = NetworkId::from_bytes(reader.array("network id")?);
        let count = reader.count(SIGNERS_MAX, "lists")?;
        let mut have = Vec::with_capacity(count);
        for _ in 0..count {
            have.push(Have {
                list: ListId(reader.array("lists")?),
                version: reader.u64("lists")?,
                parts: reader.u32("lists")?,
            });
        }
        if !have.windows(2).all(|pair| pair[0].list < pair[1].list) {
            return Err(Fault::Order.at("lists"));
        }
        reader.finish_padded("padding")?;
        Ok(Self { network, have })
    }
}

/// What needs no signature to be checked.
fn check_signer(signer: &Signer, issued_at: WallTime) -> Result<(), CertificateError> {
    let Signer::Issuer(delegation) = signer else {
        return Ok(());
    };
    if !delegation.powers().contains(Powers::REVOKE) {
        return Err(CertificateError::NoPower);
    }
    let validity = delegation.validity();
    if issued_at < validity.not_before() || issued_at > validity.not_after() {
        return Err(CertificateError::OutsideDelegation);
    }
    Ok(())
}
