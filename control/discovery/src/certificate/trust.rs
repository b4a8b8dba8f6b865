//! Trust: the root's public key, and what was found to be signed by it.

use blake2::{Blake2s256, Digest};

use crate::certificate::{Certificate, Content, Delegation, Powers, Signer, Standing, Validity};
use crate::ids::{Fingerprint, NetworkId, SiteId};
use crate::keys::RootPublicKey;
use crate::signing::{Domain, SIGNATURE_LEN, verify};
use crate::time::WallTime;
use std::time::Duration;

/// Delegations that are remembered as signed by the root, so that a certificate costs one signature and not two.
const KNOWN_MAX: usize = 8;

/// Why a certificate is worth nothing here, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It belongs to another network.
    #[error("it belongs to network {theirs}, ours is {ours}")]
    OtherNetwork {
        /// The certificate's network.
        theirs: NetworkId,
        /// Our network.
        ours: NetworkId,
    },
    /// The certificate's signature is not its signer's.
    #[error("its signature is not that of its signer")]
    BadSignature,
    /// The root did not sign the delegation.
    #[error("its issuer is not one of this network: the root did not sign the delegation")]
    BadDelegation,
    /// It is valid at times at which the issuer is not.
    #[error("it is valid at times at which its issuer is not")]
    OutsideDelegation,
    /// The issuer may not sign such things.
    #[error("its issuer may not sign such things")]
    NoPower,
    /// The issuer gave a role that it may not give.
    #[error("its issuer gave a role that it may not give")]
    RoleNotGiven,
    /// The key that signs is not the one that the network or the delegation names.
    #[error(
        "the signing key is not the network's root key, or not the one that the delegation names"
    )]
    OtherSigner,
}

/// The root that a site believes.
#[derive(Clone, Debug)]
pub struct Trust {
    root: RootPublicKey,
    network: NetworkId,
    /// Hashes of delegations that the root signed; the oldest makes room.
    known: Vec<[u8; 32]>,
}

/// A certificate whose signatures lead to the root. Not necessarily in force: see [`Self::standing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedCertificate {
    certificate: Certificate,
    fingerprint: Fingerprint,
    site_id: SiteId,
}

impl Trust {
    /// Believes this root, and nobody else.
    pub fn new(root: RootPublicKey) -> Self {
        Self {
            network: root.id(),
            root,
            known: Vec::with_capacity(KNOWN_MAX),
        }
    }

    /// The root's key.
    pub fn root(&self) -> &RootPublicKey {
        &self.root
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Checks that the root signed the delegation: one signature, or none where it is known.
    ///
    /// # Errors
    /// The root did not.
    pub fn check_delegation(&mut self, delegation: &Delegation) -> Result<(), CertificateError> {
        let hash: [u8; 32] = Blake2s256::digest(delegation.to_bytes()).into();
        if self.known.contains(&hash) {
            return Ok(());
        }
        if !delegation.is_signed_by(&self.root) {
            return Err(CertificateError::BadDelegation);
        }
        if self.known.len() == KNOWN_MAX {
            self.known.remove(0);
        }
        self.known.push(hash);
        Ok(())
    }

    /// Checks what a signer with these powers signed. Costs one signature, and one more where the delegation is new and
    /// really the root's.
    pub(crate) fn check_signature(
        &mut self,
        signer: &Signer,
        powers: Powers,
        domain: Domain,
        content: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), CertificateError> {
        let result = match signer {
            Signer::Root => verify(&self.root, domain, content, signature),
            Signer::Issuer(delegation) => {
                if !delegation.powers().contains(powers) {
                    return Err(CertificateError::NoPower);
                }
                self.check_delegation(delegation)?;
                verify(delegation.issuer_key(), domain, content, signature)
            }
        };
        result.map_err(|_| CertificateError::BadSignature)
    }
}

impl Certificate {
    /// Follows the signatures to the root.
    ///
    /// # Errors
    /// What is wrong at any time; never that it is not in force at some time.
    pub fn verify(self, trust: &mut Trust) -> Result<TrustedCertificate, CertificateError> {
        let (theirs, ours) = (self.claims().network, trust.network());
        if theirs != ours {
            return Err(CertificateError::OtherNetwork { theirs, ours });
        }
        check_powers(self.claims(), self.signer())?;
        let (content, signature) = self.signed();
        trust.check_signature(
            self.signer(),
            Powers::CERTIFY,
            Domain::Certificate,
            content,
            signature,
        )?;
        Ok(TrustedCertificate {
            fingerprint: self.fingerprint(),
            site_id: self.claims().site_id(),
            certificate: self,
        })
    }
}

impl TrustedCertificate {
    /// What is certified.
    pub fn content(&self) -> &Content {
        self.certificate.claims()
    }

    /// The certificate as it travels.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The site.
    pub fn site_id(&self) -> SiteId {
        self.site_id
    }

    /// What names exactly this certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// When it is in force.
    pub fn validity(&self) -> Validity {
        self.content().validity
    }

    /// Whether it is in force, with so much grace behind its end.
    pub fn standing(&self, now: WallTime, grace: Duration) -> Standing {
        self.validity().standing(now, grace)
    }
}

/// What needs no signature to be checked: a certificate must not say more than its issuer may.
pub(super) fn check_powers(content: &Content, signer: &Signer) -> Result<(), CertificateError> {
    let Signer::Issuer(delegation) = signer else {
        return Ok(());
    };
    if !delegation.powers().contains(Powers::CERTIFY) {
        return Err(CertificateError::NoPower);
    }
    if !delegation.validity().covers(&content.validity) {
        return Err(CertificateError::OutsideDelegation);
    }
    if !delegation.roles().contains(content.roles()) {
        return Err(CertificateError::RoleNotGiven);
    }
    Ok(())
}
