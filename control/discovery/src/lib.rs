//! Who a site is, and how sites find each other.
//!
//! Owns identities (a network's root key, its issuers, its sites, their certificates), and the bytes of every message
//! that sites exchange to find each other: announcements, questions and answers, revocations, join tokens. Knows no
//! sockets, no files, no clock and no source of chance: `now` and `rng` are arguments.
//!
//! A datagram becomes trusted in steps, each a type of its own, so that the caller decides what each may cost:
//!
//! 1. [`Header::peek`] looks at the first 34 bytes: ours at all, and sealed with a key that we have?
//! 2. [`Keyring::open`] authenticates it with the group's key: no signature is looked at.
//! 3. [`Message::decode`] reads the body: fixed layout, bounded, no trust in it yet.
//! 4. [`Certificate::verify`] and [`Signed::verify`] check signatures: a [`TrustedCertificate`], a [`Verified`] message.
//!
//! The layouts are in `docs/protocol/discovery.md`, byte by byte.

pub mod announce;
pub mod armor;
pub mod certificate;
pub mod endpoint;
pub mod envelope;
pub mod ids;
pub mod join;
pub mod keys;
pub mod message;
pub mod revocation;
pub mod signed;
mod signing;
pub mod subject;
pub mod time;
pub mod token;
pub mod wire;
pub mod wireguard;

pub use announce::{Announcement, ProtocolRange, Stamp};
pub use armor::ArmorError;
pub use certificate::{
    Certificate, CertificateError, Delegation, Issuing, Powers, Signer, Standing, Trust,
    TrustedCertificate, Validity,
};
pub use endpoint::{Endpoint, EndpointFault, EndpointKind, Endpoints, UplinkLabel};
pub use envelope::{DiscoveryKey, Header, HeaderError, KeyId, Keyring, OpenError, Opened};
pub use ids::{Fingerprint, IssuerId, NetworkId, Nonce, Serial, SiteId, TokenId};
pub use join::{JoinAnswer, JoinRequest, Outcome, Refusal};
pub use keys::{
    IssuerKey, IssuerPublicKey, RootKey, RootPublicKey, SiteKey, SitePublicKey, WeakKey,
};
pub use message::{Message, MessageKind};
pub use revocation::{RevocationList, RevocationPart, Revocations};
pub use signed::{Signed, Verified, VerifyError};
pub use subject::{Addresses, Labels, Name, Prefixes, Roles, Subject};
pub use time::WallTime;
pub use token::{Allowance, JoinToken, Seed, SeedHost, TokenError};
pub use wire::{Fault, Malformed};
pub use wireguard::{WireGuardKey, WireGuardKeys};
