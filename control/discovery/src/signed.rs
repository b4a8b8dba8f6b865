//! Messages that a site signs with its own key: announcements, answers to challenges, connects, goodbyes.

use crate::certificate::{TrustedCertificate, split_signature};
use crate::ids::{Fingerprint, NetworkId, SiteId};
use crate::keys::{SiteKey, SitePublicKey};
use crate::signing::{Domain, SIGNATURE_LEN, sign, verify};
use crate::wire::{Fault, Malformed, Put, Reader};

/// Longest signed message in bytes, signature included, so that each can be relayed.
pub const SIGNED_LEN_MAX: usize = 1124;

/// What a site can sign.
pub trait SiteSigned: Sized + sealed::Layout {
    /// The network that it says it belongs to.
    fn network(&self) -> NetworkId;
    /// The site that says it.
    fn site(&self) -> SiteId;
    /// The certificate that it names, where it names one.
    fn certificate(&self) -> Option<Fingerprint> {
        None
    }
}

/// Content with a signature that nobody has checked. The bytes are kept: they are what is signed and passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    content: T,
    encoded: Vec<u8>,
}

/// Content that the site of a trusted certificate signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(Signed<T>);

/// Why a signed message is not that of a certificate's site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It belongs to another network.
    #[error("of another network")]
    OtherNetwork,
    /// It belongs to another site than the certificate.
    #[error("of another site than the certificate")]
    OtherSite,
    /// It names another certificate of the site.
    #[error("it names another certificate of the site")]
    OtherCertificate,
    /// The signature is not the site's.
    #[error("the signature is not the site's")]
    BadSignature,
}

impl<T: SiteSigned> Signed<T> {
    /// Signs the content.
    pub fn sign(content: T, key: &SiteKey) -> Self {
        let mut encoded = Vec::new();
        content.encode(&mut encoded);
        let signature = sign(key, T::DOMAIN, &encoded);
        encoded.put(&signature);
        Self { content, encoded }
    }

    /// Reads content and signature; checks nothing that costs.
    ///
    /// # Errors
    /// What is not exactly such a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > SIGNED_LEN_MAX {
            return Err(Fault::TooMany.at("message"));
        }
        let mut reader = Reader::new(bytes);
        let content = T::decode(&mut reader)?;
        reader.array::<SIGNATURE_LEN>("signature")?;
        reader.finish("message")?;
        Ok(Self {
            content,
            encoded: bytes.to_vec(),
        })
    }

    /// What it claims: good for look-ups and for what can be refused without a signature.
    pub fn claims(&self) -> &T {
        &self.content
    }

    /// Content and signature as they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Checks that the certificate's site signed it: one signature, after everything that costs nothing.
    ///
    /// # Errors
    /// It is not that site's.
    pub fn verify(self, certificate: &TrustedCertificate) -> Result<Verified<T>, VerifyError> {
        let content = certificate.content();
        if self.content.network() != content.network {
            return Err(VerifyError::OtherNetwork);
        }
        if self.content.site() != certificate.site_id() {
            return Err(VerifyError::OtherSite);
        }
        let named = self.content.certificate();
        if named.is_some_and(|named| named != certificate.fingerprint()) {
            return Err(VerifyError::OtherCertificate);
        }
        self.check(&content.site_key)?;
        Ok(Verified(self))
    }

    fn check(&self, key: &SitePublicKey) -> Result<(), VerifyError> {
        let (content, signature) = split_signature(&self.encoded);
        verify(key, T::DOMAIN, content, signature).map_err(|_| VerifyError::BadSignature)
    }
}

impl<T> Verified<T> {
    /// What the site says.
    pub fn content(&self) -> &T {
        &self.0.content
    }

    /// The message as it travels: others can check it themselves.
    pub fn signed(&self) -> &Signed<T> {
        &self.0
    }
}

pub(crate) mod sealed {
    use super::{Domain, Malformed, Reader};

    /// How the content of a signed message is written.
    pub trait Layout: Sized {
        #[allow(private_interfaces, reason = "nobody else can implement or call it")]
        const DOMAIN: Domain;
        fn encode(&self, out: &mut Vec<u8>);
        #[allow(private_interfaces, reason = "nobody else can implement or call it")]
        fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed>;
    }
}
