//! Signatures with a domain: one made for one kind of message is never good for another.

use blake2::digest::Mac;
use blake2::digest::consts::U32;
use blake2::{Blake2sMac, Digest};
use ed25519_dalek::Signer as _;

use crate::keys::{KeyKind, PublicKey, SecretKey};

/// Bytes of an Ed25519 signature (RFC 8032).
pub(crate) const SIGNATURE_LEN: usize = 64;
/// Bytes of a keyed BLAKE2s-256.
pub(crate) const MAC_LEN: usize = 32;

/// What a signature or MAC is for. Its text and a zero byte stand before what is signed, and are not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    Certificate,
    Delegation,
    Announce,
    ChallengeResponse,
    Connect,
    Goodbye,
    Revocation,
    JoinRequest,
    JoinAnswer,
    TokenProof,
    KeyId,
    Prefixes,
    RevocationState,
    Checksum,
    UplinkLabel,
}

impl Domain {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "patronus/certificate/1",
            Self::Delegation => "patronus/delegation/1",
            Self::Announce => "patronus/announce/1",
            Self::ChallengeResponse => "patronus/challenge-response/1",
            Self::Connect => "patronus/connect/1",
            Self::Goodbye => "patronus/goodbye/1",
            Self::Revocation => "patronus/revocation/1",
            Self::JoinRequest => "patronus/join-request/1",
            Self::JoinAnswer => "patronus/join-answer/1",
            Self::TokenProof => "patronus/token-proof/1",
            Self::KeyId => "patronus/key-id/1",
            Self::Prefixes => "patronus/prefixes/1",
            Self::RevocationState => "patronus/revocation-state/1",
            Self::Checksum => "patronus/checksum/1",
            Self::UplinkLabel => "patronus/uplink-label/1",
        }
    }
}

/// The signature does not belong to these bytes and this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not that of the key")]
pub(crate) struct BadSignature;

pub(crate) fn sign<K: KeyKind>(
    key: &SecretKey<K>,
    domain: Domain,
    content: &[u8],
) -> [u8; SIGNATURE_LEN] {
    key.dalek().sign(&with_domain(domain, content)).to_bytes()
}

/// Checks strictly: canonical S, no key or R of small order (RFC 8032, 5.1.7, and what it leaves open).
pub(crate) fn verify<K: KeyKind>(
    key: &PublicKey<K>,
    domain: Domain,
    content: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), BadSignature> {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    key.dalek()
        .verify_strict(&with_domain(domain, content), &signature)
        .map_err(|_| BadSignature)
}

pub(crate) fn mac(secret: &[u8; 32], domain: Domain, content: &[u8]) -> [u8; MAC_LEN] {
    keyed(secret, domain, content)
        .finalize()
        .into_bytes()
        .into()
}

/// Compares in constant time.
pub(crate) fn is_mac(
    secret: &[u8; 32],
    domain: Domain,
    content: &[u8],
    claimed: &[u8; MAC_LEN],
) -> bool {
    keyed(secret, domain, content).verify_slice(claimed).is_ok()
}

pub(crate) fn hash(domain: Domain, content: &[u8]) -> [u8; 32] {
    let mut hasher = blake2::Blake2s256::new();
    Digest::update(&mut hasher, domain.as_str());
    Digest::update(&mut hasher, [0]);
    Digest::update(&mut hasher, content);
    hasher.finalize().into()
}

fn keyed(secret: &[u8; 32], domain: Domain, content: &[u8]) -> Blake2sMac<U32> {
    let mut mac = <Blake2sMac<U32> as blake2::digest::KeyInit>::new(secret.into());
    Mac::update(&mut mac, domain.as_str().as_bytes());
    Mac::update(&mut mac, &[0]);
    Mac::update(&mut mac, content);
    mac
}

fn with_domain(domain: Domain, content: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(domain.as_str().len() + 1 + content.len());
    message.extend_from_slice(domain.as_str().as_bytes());
    message.push(0);
    message.extend_from_slice(content);
    message
}
