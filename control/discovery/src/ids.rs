//! Names made of bytes: of networks, sites, issuers, certificates, tokens; and numbers used once.

use std::fmt;

use blake2::{Blake2s256, Digest};
use rand_core::{CryptoRng, RngCore};

/// Bytes of an id.
pub const ID_LEN: usize = 16;
/// Bytes of a fingerprint.
pub const FINGERPRINT_LEN: usize = 32;

macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// All bytes in hex.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

bytes_newtype!(
    /// A network: the first 16 bytes of BLAKE2s-256 (RFC 7693) of its root's public key.
    NetworkId,
    ID_LEN
);
bytes_newtype!(
    /// A site: the first 16 bytes of BLAKE2s-256 of its public key. Nobody else can have it without that key.
    SiteId,
    ID_LEN
);
bytes_newtype!(
    /// Who signs certificates in the root's place: the first 16 bytes of BLAKE2s-256 of its public key.
    IssuerId,
    ID_LEN
);
bytes_newtype!(
    /// A join token, random.
    TokenId,
    ID_LEN
);
bytes_newtype!(
    /// A random number that is used once, so that an answer can belong to one question only.
    Nonce,
    ID_LEN
);
bytes_newtype!(
    /// BLAKE2s-256 of the whole encoding of a certificate, its signature included.
    Fingerprint,
    FINGERPRINT_LEN
);

impl SiteId {
    /// "Everyone", where a message names its addressee. No key hashes to it, as far as anybody will ever see.
    pub const EVERYONE: Self = Self([0; ID_LEN]);
}

impl Nonce {
    /// A new one.
    pub fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self(random(rng))
    }
}

impl TokenId {
    /// A new one.
    pub fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self(random(rng))
    }
}

impl Fingerprint {
    /// The fingerprint of an encoded certificate.
    pub fn of(encoded: &[u8]) -> Self {
        Self(Blake2s256::digest(encoded).into())
    }
}

/// Number that an issuer gives to a certificate or delegation; a site's newer one has the larger number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// The first 16 bytes of BLAKE2s-256 of a public key.
pub(crate) fn id_of_key(public: &[u8; 32]) -> [u8; ID_LEN] {
    let hash: [u8; 32] = Blake2s256::digest(public).into();
    let mut id = [0; ID_LEN];
    id.copy_from_slice(&hash[..ID_LEN]);
    id
}

fn random<const N: usize>(rng: &mut (impl CryptoRng + RngCore)) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
