//! Ed25519 keys of a network's root, its issuers and its sites, and the one-line texts that key files hold.
//!
//! A key's type says what it may sign. Files and their modes are the shell's matter.

use std::fmt;
use std::marker::PhantomData;

use ed25519_dalek::{SigningKey, VerifyingKey};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::armor::{self, ArmorError, Armored};
use crate::ids::{IssuerId, NetworkId, SiteId, id_of_key};

/// Bytes of an Ed25519 key (RFC 8032), public or secret.
pub const KEY_LEN: usize = 32;

/// The key that a network is named after. It can stay offline once it has delegated to an issuer.
pub type RootKey = SecretKey<Root>;
/// The public half of a [`RootKey`]: what every site pins.
pub type RootPublicKey = PublicKey<Root>;
/// A key that signs certificates in the root's place.
pub type IssuerKey = SecretKey<Issuer>;
/// The public half of an [`IssuerKey`].
pub type IssuerPublicKey = PublicKey<Issuer>;
/// The key that a site is named after. Never a WireGuard key.
pub type SiteKey = SecretKey<Site>;
/// The public half of a [`SiteKey`].
pub type SitePublicKey = PublicKey<Site>;

/// Whose key it is.
pub trait KeyKind: sealed::Sealed {
    /// What the holder is called by: made of the key's hash.
    type Id;
    /// Kind of text for the secret half.
    const SECRET: Armored;
    /// Kind of text for the public half.
    const PUBLIC: Armored;

    /// The id made of these bytes.
    fn id(bytes: [u8; 16]) -> Self::Id;
}

/// Marks keys of a network's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root;
/// Marks keys of issuers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issuer;
/// Marks keys of sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site;

/// A public key of nobody: its point has a small order, is none, or is not in its canonical encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an Ed25519 public key that anybody can have: no point, of small order, or not canonical"
)]
pub struct WeakKey;

/// An Ed25519 public key that is a canonical point of large order.
pub struct PublicKey<K> {
    key: VerifyingKey,
    kind: PhantomData<K>,
}

impl<K: KeyKind> PublicKey<K> {
    /// Checks the bytes.
    ///
    /// # Errors
    /// Bytes that are no point, of a small order, or not the canonical encoding of their point.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Result<Self, WeakKey> {
        if !is_canonical(bytes) {
            return Err(WeakKey);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| WeakKey)?;
        if key.is_weak() {
            return Err(WeakKey);
        }
        Ok(Self {
            key,
            kind: PhantomData,
        })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.key.as_bytes()
    }

    /// What the holder is called by.
    pub fn id(&self) -> K::Id {
        K::id(id_of_key(self.as_bytes()))
    }

    /// One line of text.
    pub fn to_text(&self) -> String {
        armor::encode(K::PUBLIC, self.as_bytes()).to_string()
    }

    /// Reads what [`to_text`](Self::to_text) wrote; white space anywhere is ignored.
    ///
    /// # Errors
    /// Another kind of text, a cut or mistyped one, or a weak key.
    pub fn from_text(text: &str) -> Result<Self, ArmorError> {
        let bytes = armor::decode_exact(K::PUBLIC, text)?;
        Self::from_bytes(&bytes).map_err(|WeakKey| ArmorError::Content {
            expected: K::PUBLIC.what(),
        })
    }

    pub(crate) fn dalek(&self) -> &VerifyingKey {
        &self.key
    }
}

impl<K> Clone for PublicKey<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for PublicKey<K> {}

impl<K> PartialEq for PublicKey<K> {
    fn eq(&self, other: &Self) -> bool {
        self.key.as_bytes() == other.key.as_bytes()
    }
}

impl<K> Eq for PublicKey<K> {}

impl<K> fmt::Debug for PublicKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.key.as_bytes();
        write!(f, "PublicKey({:02x}{:02x}…)", bytes[0], bytes[1])
    }
}

/// An Ed25519 secret key, wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct SecretKey<K> {
    key: SigningKey,
    kind: PhantomData<K>,
}

impl<K: KeyKind> SecretKey<K> {
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut seed = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_bytes(&seed)
    }

    /// Takes the 32 bytes of RFC 8032, 5.1.5.
    pub fn from_bytes(seed: &[u8; KEY_LEN]) -> Self {
        Self {
            key: SigningKey::from_bytes(seed),
            kind: PhantomData,
        }
    }

    /// The bytes: handle with care.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.key.as_bytes()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey<K> {
        PublicKey {
            key: self.key.verifying_key(),
            kind: PhantomData,
        }
    }

    /// What the holder is called by.
    pub fn id(&self) -> K::Id {
        self.public_key().id()
    }

    /// One line of text: what a key file holds.
    pub fn to_text(&self) -> Zeroizing<String> {
        armor::encode(K::SECRET, self.as_bytes())
    }

    /// Reads what [`to_text`](Self::to_text) wrote; white space anywhere is ignored.
    ///
    /// # Errors
    /// Another kind of text, or a cut or mistyped one. No error carries any of the text.
    pub fn from_text(text: &str) -> Result<Self, ArmorError> {
        let seed = armor::decode_exact(K::SECRET, text)?;
        Ok(Self::from_bytes(&seed))
    }

    pub(crate) fn dalek(&self) -> &SigningKey {
        &self.key
    }
}

impl<K> fmt::Debug for SecretKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(hidden)")
    }
}

impl KeyKind for Root {
    type Id = NetworkId;
    const SECRET: Armored = Armored::RootKey;
    const PUBLIC: Armored = Armored::RootPublicKey;

    fn id(bytes: [u8; 16]) -> NetworkId {
        NetworkId::from_bytes(bytes)
    }
}

impl KeyKind for Issuer {
    type Id = IssuerId;
    const SECRET: Armored = Armored::IssuerKey;
    const PUBLIC: Armored = Armored::IssuerPublicKey;

    fn id(bytes: [u8; 16]) -> IssuerId {
        IssuerId::from_bytes(bytes)
    }
}

impl KeyKind for Site {
    type Id = SiteId;
    const SECRET: Armored = Armored::SiteKey;
    const PUBLIC: Armored = Armored::SitePublicKey;

    fn id(bytes: [u8; 16]) -> SiteId {
        SiteId::from_bytes(bytes)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Root {}
    impl Sealed for super::Issuer {}
    impl Sealed for super::Site {}
}

/// Whether y < p = 2²⁵⁵ − 19. Points with x = 0 and the sign bit set have a small order.
fn is_canonical(bytes: &[u8; KEY_LEN]) -> bool {
    let is_high = bytes[31] & 0x7f == 0x7f && bytes[1..31].iter().all(|byte| *byte == 0xff);
    !(is_high && bytes[0] >= 0xed)
}
