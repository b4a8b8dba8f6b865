//! The envelope of every datagram: a header in clear, and a body that only the network's group can read or make.
//!
//! The group's key keeps strangers out before any signature is checked. It does not say which site sent a message: every
//! site has the key.

use std::fmt;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

use crate::armor::{self, ArmorError, Armored};
use crate::message::MessageKind;
use crate::signing::{Domain, hash};

/// Longest datagram: fits the least MTU of IPv6 (RFC 8200, section 5).
pub const DATAGRAM_LEN_MAX: usize = 1200;
/// Bytes before the body.
pub const HEADER_LEN: usize = 34;
/// Bytes behind the body.
pub const TAG_LEN: usize = 16;
/// Longest body.
pub const BODY_LEN_MAX: usize = DATAGRAM_LEN_MAX - HEADER_LEN - TAG_LEN;
/// Most keys that a site accepts at the same time.
pub const KEYS_MAX: usize = 4;

/// "PatD". What travels inside tunnels has another magic.
const MAGIC: [u8; 4] = *b"PatD";
const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// Names a discovery key: four bytes of its hash, in clear in every header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({:08x})", u32::from_be_bytes(self.0))
    }
}

/// The key that a network's sites share, wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct DiscoveryKey {
    bytes: [u8; KEY_LEN],
    id: KeyId,
}

impl DiscoveryKey {
    /// A new key.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self::from_bytes(&bytes)
    }

    /// Takes the bytes.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let hash = hash(Domain::KeyId, bytes);
        Self {
            bytes: *bytes,
            id: KeyId([hash[0], hash[1], hash[2], hash[3]]),
        }
    }

    /// The bytes: handle with care.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// What names it in headers.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// One line of text: what a key file holds.
    pub fn to_text(&self) -> Zeroizing<String> {
        armor::encode(Armored::DiscoveryKey, &self.bytes)
    }

    /// Reads what [`to_text`](Self::to_text) wrote; white space anywhere is ignored.
    ///
    /// # Errors
    /// Another kind of text, or a cut or mistyped one.
    pub fn from_text(text: &str) -> Result<Self, ArmorError> {
        let bytes = armor::decode_exact(Armored::DiscoveryKey, text)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// A datagram with this body.
    ///
    /// # Panics
    /// When the body is longer than [`BODY_LEN_MAX`]; no [`Message`](crate::Message) is.
    pub fn seal(
        &self,
        kind: MessageKind,
        body: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Vec<u8> {
        assert!(body.len() <= BODY_LEN_MAX, "a body of {} bytes", body.len());
        let mut datagram = vec![0; HEADER_LEN + body.len() + TAG_LEN];
        let (header, rest) = datagram.split_at_mut(HEADER_LEN);
        header[..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&[VERSION, kind.code()]);
        header[6..10].copy_from_slice(&self.id.0);
        rng.fill_bytes(&mut header[10..]);
        let (sealed, tag) = rest.split_at_mut(body.len());
        sealed.copy_from_slice(body);
        let nonce = *XNonce::from_slice(&header[10..]);
        let made = self
            .cipher()
            .encrypt_in_place_detached(&nonce, header, sealed);
        // The cipher refuses nothing but messages of 256 GiB.
        let Ok(made) = made else {
            unreachable!("{} bytes are too many to seal", body.len());
        };
        tag.copy_from_slice(&made);
        datagram
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(&self.bytes))
    }
}

impl Drop for DiscoveryKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiscoveryKey({:?}, hidden)", self.id)
    }
}

/// What stands in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: MessageKind,
    /// Which key it is sealed with.
    pub key_id: KeyId,
    nonce: [u8; NONCE_LEN],
}

/// Why a datagram is none of ours. Found without any cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too short or too long for any message, or for one of its kind.
    #[error("of a length that its kind does not have")]
    Length,
    /// Not ours.
    #[error("no magic")]
    Magic,
    /// From a version that this one does not know.
    #[error("version {0} is unknown")]
    Version(u8),
    /// Of a kind that this version does not know.
    #[error("kind {0} is unknown")]
    Kind(u8),
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The header says enough.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Sealed with a key that we do not have: another network's, or an old one.
    #[error("sealed with a key that is not ours")]
    UnknownKey(KeyId),
    /// Not sealed by who has the key, or changed on the way.
    #[error("not authentic")]
    NotAuthentic,
}

/// An authentic body: of somebody who has the group's key.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What the body is.
    pub kind: MessageKind,
    /// Which key it was sealed with.
    pub key_id: KeyId,
    /// The body.
    pub body: &'a [u8],
}

impl Header {
    /// Looks at what stands in clear.
    ///
    /// # Errors
    /// What is not a message of ours.
    pub fn peek(datagram: &[u8]) -> Result<Self, HeaderError> {
        if datagram.len() < HEADER_LEN + TAG_LEN || datagram.len() > DATAGRAM_LEN_MAX {
            return Err(HeaderError::Length);
        }
        if datagram[..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if datagram[4] != VERSION {
            return Err(HeaderError::Version(datagram[4]));
        }
        let kind = MessageKind::from_code(datagram[5]).ok_or(HeaderError::Kind(datagram[5]))?;
        if !kind
            .body_len()
            .contains(&(datagram.len() - HEADER_LEN - TAG_LEN))
        {
            return Err(HeaderError::Length);
        }
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&datagram[10..HEADER_LEN]);
        Ok(Self {
            kind,
            key_id: KeyId([datagram[6], datagram[7], datagram[8], datagram[9]]),
            nonce,
        })
    }
}

/// The keys that a site opens with; it seals with the first.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<DiscoveryKey>,
}

impl Keyring {
    /// Opens with one key.
    pub fn new(key: DiscoveryKey) -> Self {
        Self { keys: vec![key] }
    }

    /// Opens with this key too; it seals with what it sealed with before. The first of [`KEYS_MAX`] stay.
    #[must_use]
    pub fn with_other(mut self, key: DiscoveryKey) -> Self {
        let is_known = self.keys.iter().any(|known| known.id == key.id);
        if !is_known && self.keys.len() < KEYS_MAX {
            self.keys.push(key);
        }
        self
    }

    /// The key to seal with.
    pub fn sealing(&self) -> &DiscoveryKey {
        &self.keys[0]
    }

    /// Opens a datagram in place. Costs about a microsecond; no signature is looked at. A refused datagram is left as it
    /// was.
    ///
    /// # Errors
    /// What is not sealed with one of our keys.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let header = Header::peek(datagram)?;
        let Some(key) = self.keys.iter().find(|key| key.id == header.key_id) else {
            return Err(OpenError::UnknownKey(header.key_id));
        };
        let (clear, rest) = datagram.split_at_mut(HEADER_LEN);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        key.cipher()
            .decrypt_in_place_detached(
                &XNonce::from(header.nonce),
                clear,
                body,
                Tag::from_slice(tag),
            )
            .map_err(|_| OpenError::NotAuthentic)?;
        Ok(Opened {
            kind: header.kind,
            key_id: header.key_id,
            body,
        })
    }
}
