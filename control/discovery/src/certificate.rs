//! Certificates: what the network's root, or an issuer in its place, says about a site.
//!
//! [`Certificate`] is what was read and claims things; [`Certificate::verify`] makes it a [`TrustedCertificate`], whose
//! signatures lead to the root. Whether it is in force at a given time is a question of its own ([`Standing`]), and so
//! is revocation ([`Revocations`](crate::Revocations)).

mod delegation;
mod trust;
mod validity;

use crate::armor::{self, ArmorError, Armored};
use crate::ids::{Fingerprint, NetworkId, Serial, SiteId};
use crate::keys::{IssuerKey, KEY_LEN, RootKey, SitePublicKey};
use crate::signing::{Domain, SIGNATURE_LEN, sign};
use crate::subject::{Roles, Subject};
use crate::wire::{Fault, Malformed, Put, Reader};

pub use delegation::{Delegation, Powers};
pub use trust::{CertificateError, Trust, TrustedCertificate};
pub use validity::{Standing, Validity};

/// Longest certificate in bytes, so that an answer that carries one is never larger than its question.
pub const CERTIFICATE_LEN_MAX: usize = 1024;

const VERSION: u8 = 1;
const SIGNED_BY_ROOT: u8 = 0;
const SIGNED_BY_ISSUER: u8 = 1;

/// Who signed: the root itself, or an issuer, with what makes it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The network's root.
    Root,
    /// An issuer.
    Issuer(Box<Delegation>),
}

/// Who signs: the root's key, or an issuer's key with the root's word for it.
#[derive(Clone, Copy, Debug)]
pub enum Issuing<'a> {
    /// The network's root.
    Root(&'a RootKey),
    /// An issuer.
    Issuer(&'a IssuerKey, &'a Delegation),
}

/// A certificate as it was read. Nothing in it is true before [`verify`](Self::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    content: Content,
    signer: Signer,
    encoded: Vec<u8>,
}

/// What is certified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The network that it belongs to.
    pub network: NetworkId,
    /// The key that the site signs with, and is named after.
    pub site_key: SitePublicKey,
    /// The issuer's number for it; a newer certificate of the site has a larger one.
    pub serial: Serial,
    /// When it is in force.
    pub validity: Validity,
    /// Name, addresses, prefixes, labels, roles.
    pub subject: Subject,
}

/// Why no certificate could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// More names, prefixes and labels than fit.
    #[error(
        "the certificate would have {len} bytes, {CERTIFICATE_LEN_MAX} is the limit: \
         give it fewer or shorter labels, prefixes and names"
    )]
    TooLong {
        /// Bytes that it would have.
        len: usize,
    },
    /// Not what the signer may sign: nobody would accept it.
    #[error("nobody would accept this certificate: {0}")]
    Refused(#[from] CertificateError),
}

impl Certificate {
    /// Makes a certificate.
    ///
    /// # Errors
    /// One that is too long, or that nobody would accept: another network than the signer's, a time outside the issuer's
    /// own, a role that the issuer may not give, a delegation that is not for this key.
    pub fn issue(content: Content, by: Issuing<'_>) -> Result<Self, IssueError> {
        let signer = by.signer();
        trust::check_powers(&content, &signer)?;
        by.check(content.network)?;
        let mut encoded = content.encode();
        signer.encode(&mut encoded);
        let signature = by.sign(Domain::Certificate, &encoded);
        encoded.put(&signature);
        if encoded.len() > CERTIFICATE_LEN_MAX {
            return Err(IssueError::TooLong { len: encoded.len() });
        }
        Ok(Self {
            content,
            signer,
            encoded,
        })
    }

    /// Reads the one encoding that a certificate has; checks no signature.
    ///
    /// # Errors
    /// Every other sequence of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > CERTIFICATE_LEN_MAX {
            return Err(Fault::TooMany.at("certificate"));
        }
        let mut reader = Reader::new(bytes);
        let content = Content::decode(&mut reader)?;
        let signer = Signer::decode(&mut reader)?;
        reader.array::<SIGNATURE_LEN>("certificate signature")?;
        reader.finish("certificate")?;
        Ok(Self {
            content,
            signer,
            encoded: bytes.to_vec(),
        })
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// What names exactly this certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.encoded)
    }

    /// What it claims.
    pub fn claims(&self) -> &Content {
        &self.content
    }

    /// Who is said to have signed it.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// One line of text: what a certificate file holds.
    pub fn to_text(&self) -> String {
        armor::encode(Armored::Certificate, &self.encoded).to_string()
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// Another kind of text, a cut or mistyped one, or bytes that are no certificate.
    pub fn from_text(text: &str) -> Result<Self, ArmorError> {
        let bytes = armor::decode(Armored::Certificate, text)?;
        Self::decode(&bytes).map_err(|_| ArmorError::Content {
            expected: Armored::Certificate.what(),
        })
    }

    /// What is signed, and the signature.
    fn signed(&self) -> (&[u8], &[u8; SIGNATURE_LEN]) {
        split_signature(&self.encoded)
    }
}

impl Content {
    /// The site's id: made of its key, so that it is nowhere written down.
    pub fn site_id(&self) -> SiteId {
        self.site_key.id()
    }

    /// Roles, which an issuer's delegation limits.
    fn roles(&self) -> Roles {
        self.subject.roles
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CERTIFICATE_LEN_MAX);
        out.put_u8(VERSION);
        out.put(self.network.as_bytes());
        out.put(self.site_key.as_bytes());
        out.put_u64(self.serial.0);
        self.validity.encode(&mut out);
        self.subject.encode(&mut out);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u8("certificate version")? != VERSION {
            return Err(Fault::Unknown.at("certificate version"));
        }
        let network = NetworkId::from_bytes(reader.array("network id")?);
        let site_key: [u8; KEY_LEN] = reader.array("site key")?;
        Ok(Self {
            network,
            site_key: SitePublicKey::from_bytes(&site_key)
                .map_err(|_| Fault::Key.at("site key"))?,
            serial: Serial(reader.u64("serial")?),
            validity: Validity::decode(reader)?,
            subject: Subject::decode(reader)?,
        })
    }
}

impl Signer {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Root => out.put_u8(SIGNED_BY_ROOT),
            Self::Issuer(delegation) => {
                out.put_u8(SIGNED_BY_ISSUER);
                out.put(&delegation.to_bytes());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8("signer")? {
            SIGNED_BY_ROOT => Ok(Self::Root),
            SIGNED_BY_ISSUER => Ok(Self::Issuer(Box::new(Delegation::read(reader)?))),
            _ => Err(Fault::Unknown.at("signer")),
        }
    }
}

impl Issuing<'_> {
    /// The public side.
    pub fn signer(&self) -> Signer {
        match self {
            Self::Root(_) => Signer::Root,
            Self::Issuer(_, delegation) => Signer::Issuer(Box::new((*delegation).clone())),
        }
    }

    pub(crate) fn sign(&self, domain: Domain, content: &[u8]) -> [u8; SIGNATURE_LEN] {
        match self {
            Self::Root(key) => sign(key, domain, content),
            Self::Issuer(key, _) => sign(key, domain, content),
        }
    }

    /// Whether what is signed for this network with this key will verify.
    pub(crate) fn check(&self, network: NetworkId) -> Result<(), CertificateError> {
        let is_own = match self {
            Self::Root(key) => key.id() == network,
            Self::Issuer(key, delegation) => key.public_key() == *delegation.issuer_key(),
        };
        if is_own {
            Ok(())
        } else {
            Err(CertificateError::OtherSigner)
        }
    }
}

/// What is signed, and the signature behind it.
///
/// # Panics
/// On less than a signature: callers hold checked encodings.
pub(crate) fn split_signature(encoded: &[u8]) -> (&[u8], &[u8; SIGNATURE_LEN]) {
    let Some(parts) = encoded.split_last_chunk::<SIGNATURE_LEN>() else {
        panic!("{} bytes hold no signature", encoded.len());
    };
    parts
}
