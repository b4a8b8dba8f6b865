//! A delegation: the root's word that an issuer may sign in its place, for a time, and what.

use crate::armor::{self, ArmorError, Armored};
use crate::certificate::Validity;
use crate::ids::{IssuerId, Serial};
use crate::keys::{IssuerPublicKey, KEY_LEN, RootKey, RootPublicKey};
use crate::signing::{Domain, SIGNATURE_LEN, sign, verify};
use crate::subject::Roles;
use crate::wire::{Fault, Malformed, Put, Reader};

/// Bytes of a delegation.
pub const DELEGATION_LEN: usize = 123;

const VERSION: u8 = 1;
const CONTENT_LEN: usize = DELEGATION_LEN - SIGNATURE_LEN;

/// What an issuer may sign, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Powers(u8);

impl Powers {
    /// Certificates of sites.
    pub const CERTIFY: Self = Self(1);
    /// Revocations of sites. Only the root revokes issuers.
    pub const REVOKE: Self = Self(2);
    /// Both.
    pub const ALL: Self = Self(3);

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A delegation as it was read, or made. True once [`Trust`](crate::Trust) has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    issuer_key: IssuerPublicKey,
    serial: Serial,
    validity: Validity,
    powers: Powers,
    roles: Roles,
    signature: [u8; SIGNATURE_LEN],
}

impl Delegation {
    /// The root lets `issuer_key` sign what `powers` say, and give sites no more than `roles`.
    pub fn new(
        root: &RootKey,
        issuer_key: IssuerPublicKey,
        serial: Serial,
        validity: Validity,
        powers: Powers,
        roles: Roles,
    ) -> Self {
        let mut delegation = Self {
            issuer_key,
            serial,
            validity,
            powers,
            roles,
            signature: [0; SIGNATURE_LEN],
        };
        delegation.signature = sign(root, Domain::Delegation, &delegation.content());
        delegation
    }

    /// The issuer's key.
    pub fn issuer_key(&self) -> &IssuerPublicKey {
        &self.issuer_key
    }

    /// The issuer's id: made of its key.
    pub fn issuer_id(&self) -> IssuerId {
        self.issuer_key.id()
    }

    /// The root's number for it.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// What the issuer signs must lie within.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What the issuer may sign.
    pub fn powers(&self) -> Powers {
        self.powers
    }

    /// Roles that the issuer may give.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// The encoding.
    pub fn to_bytes(&self) -> [u8; DELEGATION_LEN] {
        let mut bytes = [0; DELEGATION_LEN];
        bytes[..CONTENT_LEN].copy_from_slice(&self.content());
        bytes[CONTENT_LEN..].copy_from_slice(&self.signature);
        bytes
    }

    /// Reads the one encoding that a delegation has; checks no signature.
    ///
    /// # Errors
    /// Every other sequence of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let delegation = Self::read(&mut reader)?;
        reader.finish("delegation")?;
        Ok(delegation)
    }

    /// One line of text.
    pub fn to_text(&self) -> String {
        armor::encode(Armored::Delegation, &self.to_bytes()).to_string()
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// Another kind of text, a cut or mistyped one, or bytes that are no delegation.
    pub fn from_text(text: &str) -> Result<Self, ArmorError> {
        let bytes = armor::decode(Armored::Delegation, text)?;
        Self::decode(&bytes).map_err(|_| ArmorError::Content {
            expected: Armored::Delegation.what(),
        })
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u8("delegation version")? != VERSION {
            return Err(Fault::Unknown.at("delegation version"));
        }
        let issuer_key: [u8; KEY_LEN] = reader.array("issuer key")?;
        let issuer_key =
            IssuerPublicKey::from_bytes(&issuer_key).map_err(|_| Fault::Key.at("issuer key"))?;
        let serial = Serial(reader.u64("delegation serial")?);
        let validity = Validity::decode(reader)?;
        let powers = reader.u8("powers")?;
        if powers & !Powers::ALL.0 != 0 {
            return Err(Fault::NotZero.at("powers"));
        }
        Ok(Self {
            issuer_key,
            serial,
            validity,
            powers: Powers(powers),
            roles: Roles::from_bits(reader.u8("roles to give")?, "roles to give")?,
            signature: reader.array("delegation signature")?,
        })
    }

    /// Whether the root signed it.
    pub(crate) fn is_signed_by(&self, root: &RootPublicKey) -> bool {
        verify(root, Domain::Delegation, &self.content(), &self.signature).is_ok()
    }

    fn content(&self) -> [u8; CONTENT_LEN] {
        let mut out = Vec::with_capacity(CONTENT_LEN);
        out.put_u8(VERSION);
        out.put(self.issuer_key.as_bytes());
        out.put_u64(self.serial.0);
        self.validity.encode(&mut out);
        out.put_u8(self.powers.0);
        out.put_u8(self.roles.bits());
        let mut content = [0; CONTENT_LEN];
        content.copy_from_slice(&out);
        content
    }
}
