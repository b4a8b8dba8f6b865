//! Joining and renewing: a site asks for a certificate for the key that it made itself, and gets it or hears why not.

use crate::certificate::{
    Certificate, CertificateError, Issuing, Powers, Signer, Trust, TrustedCertificate,
    split_signature,
};
use crate::ids::{Fingerprint, NetworkId, Nonce, SiteId, TokenId};
use crate::keys::{KEY_LEN, SiteKey, SitePublicKey};
use crate::message::QUESTION_LEN;
use crate::signing::{Domain, MAC_LEN, SIGNATURE_LEN, is_mac, mac, sign, verify};
use crate::subject::Subject;
use crate::time::WallTime;
use crate::token::TokenSecret;
use crate::wire::{Fault, Malformed, Put, Reader};

/// Longest request in bytes, without its padding.
pub const REQUEST_LEN_MAX: usize = QUESTION_LEN - 2;

const VERSION: u8 = 1;
const BY_TOKEN: u8 = 1;
const BY_CERTIFICATE: u8 = 2;

/// A request for a certificate, signed with the key that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    content: RequestContent,
    encoded: Vec<u8>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContent {
    /// The network.
    pub network: NetworkId,
    /// The key to certify.
    pub site_key: SitePublicKey,
    /// The answer has the same.
    pub nonce: Nonce,
    /// The site's clock.
    pub issued_at: WallTime,
    /// What the certificate should say.
    pub subject: Subject,
    /// Why the issuer should.
    pub credential: Credential,
}

/// Why an issuer should sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A join token.
    Token {
        /// Which one.
        id: TokenId,
        /// That the site knows its secret: keyed BLAKE2s-256 of what stands before it.
        proof: [u8; MAC_LEN],
    },
    /// A certificate that the site has for this key: it wants a newer one.
    Certificate(Fingerprint),
}

/// A request does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request would have {len} bytes, {REQUEST_LEN_MAX} is the limit: ask for fewer or shorter labels and prefixes"
)]
pub struct RequestTooLong {
    /// Bytes that it would have.
    pub len: usize,
}

/// A request is not its key's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The proof is not made with the token's secret.
    #[error("the proof is not that of the token")]
    BadProof,
    /// It does not carry a token.
    #[error("it carries no token")]
    NoToken,
    /// The signature is not that of the key to certify.
    #[error("the signature is not that of the key to certify")]
    BadSignature,
}

/// An answer to a [`JoinRequest`], as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    network: NetworkId,
    nonce: Nonce,
    verdict: Verdict,
    encoded: Vec<u8>,
}

/// What the issuer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Here it is. It proves itself.
    Granted(Box<Certificate>),
    /// No, or not yet. Signed by the issuer, so that nobody else can turn a site away.
    Refused {
        /// Why.
        reason: Refusal,
        /// Ask again after so many seconds; 0 means never.
        retry_after_s: u16,
        /// Who says so.
        signer: Signer,
    },
}

/// What a verified answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The certificate.
    Granted(Box<TrustedCertificate>),
    /// No, or not yet.
    Refused {
        /// Why.
        reason: Refusal,
        /// Ask again after so many seconds; 0 means never.
        retry_after_s: u16,
    },
}

/// Why there is no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// An operator has to approve it.
    #[error("an operator has to approve it")]
    Pending,
    /// No such token, or a wrong proof.
    #[error("the issuer does not know this token")]
    UnknownToken,
    /// Somebody has used it.
    #[error("the token was used before")]
    TokenUsed,
    /// Too late.
    #[error("the token has expired")]
    TokenExpired,
    /// More than the token, or the present certificate, allows.
    #[error("it asks for more than the token allows")]
    NotAllowed,
    /// Another site has the name, an address or a prefix.
    #[error("another site has this name, address or prefix")]
    Conflict,
    /// The key is revoked.
    #[error("the site's key is revoked")]
    Revoked,
    /// The certificate that it wants renewed is unknown, or out of force for too long.
    #[error("there is no certificate to renew")]
    NothingToRenew,
    /// The site's clock is wrong.
    #[error("the site's clock and the issuer's are too far apart")]
    Clock,
    /// Later.
    #[error("the issuer cannot sign at the moment")]
    Busy,
}

const REFUSALS: [Refusal; 10] = [
    Refusal::Pending,
    Refusal::UnknownToken,
    Refusal::TokenUsed,
    Refusal::TokenExpired,
    Refusal::NotAllowed,
    Refusal::Conflict,
    Refusal::Revoked,
    Refusal::NothingToRenew,
    Refusal::Clock,
    Refusal::Busy,
];

impl JoinRequest {
    /// Asks with a token.
    ///
    /// # Errors
    /// A request that does not fit.
    pub fn with_token(
        key: &SiteKey,
        network: NetworkId,
        (id, secret): (TokenId, &TokenSecret),
        subject: Subject,
        nonce: Nonce,
        now: WallTime,
    ) -> Result<Self, RequestTooLong> {
        let mut content = RequestContent {
            network,
            site_key: key.public_key(),
            nonce,
            issued_at: now,
            subject,
            credential: Credential::Token {
                id,
                proof: [0; MAC_LEN],
            },
        };
        let mut encoded = content.encode();
        encoded.truncate(encoded.len() - MAC_LEN);
        let proof = mac(secret.as_bytes(), Domain::TokenProof, &encoded);
        encoded.put(&proof);
        content.credential = Credential::Token { id, proof };
        Self::sign(key, content, encoded)
    }

    /// Asks for a newer certificate than this one.
    ///
    /// # Errors
    /// A request that does not fit.
    pub fn renewal(
        key: &SiteKey,
        present: &TrustedCertificate,
        subject: Subject,
        nonce: Nonce,
        now: WallTime,
    ) -> Result<Self, RequestTooLong> {
        let content = RequestContent {
            network: present.content().network,
            site_key: key.public_key(),
            nonce,
            issued_at: now,
            subject,
            credential: Credential::Certificate(present.fingerprint()),
        };
        let encoded = content.encode();
        Self::sign(key, content, encoded)
    }

    /// What it asks for: good for look-ups.
    pub fn claims(&self) -> &RequestContent {
        &self.content
    }

    /// Checks that the site knows the token's secret: to be done before [`check_signature`](Self::check_signature),
    /// which costs fifty times as much.
    ///
    /// # Errors
    /// It does not.
    pub fn check_proof(&self, secret: &TokenSecret) -> Result<(), RequestError> {
        let Credential::Token { proof, .. } = &self.content.credential else {
            return Err(RequestError::NoToken);
        };
        let proven = &self.encoded[..self.encoded.len() - SIGNATURE_LEN - MAC_LEN];
        if is_mac(secret.as_bytes(), Domain::TokenProof, proven, proof) {
            Ok(())
        } else {
            Err(RequestError::BadProof)
        }
    }

    /// Checks that the request is signed with the key that it is for: one signature.
    ///
    /// # Errors
    /// It is not.
    pub fn check_signature(&self) -> Result<(), RequestError> {
        let (content, signature) = split_signature(&self.encoded);
        verify(
            &self.content.site_key,
            Domain::JoinRequest,
            content,
            signature,
        )
        .map_err(|_| RequestError::BadSignature)
    }

    pub(crate) fn to_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUESTION_LEN);
        out.put_u16(self.encoded.len() as u16);
        out.put(&self.encoded);
        out.resize(QUESTION_LEN, 0);
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut padded = Reader::new(body);
        let len = usize::from(padded.u16("length of the request")?);
        let encoded = padded.take(len, "request")?;
        padded.finish_padded("padding")?;
        let mut reader = Reader::new(encoded);
        let content = RequestContent::decode(&mut reader)?;
        reader.array::<SIGNATURE_LEN>("signature")?;
        reader.finish("request")?;
        Ok(Self {
            content,
            encoded: encoded.to_vec(),
        })
    }

    fn sign(
        key: &SiteKey,
        content: RequestContent,
        mut encoded: Vec<u8>,
    ) -> Result<Self, RequestTooLong> {
        let signature = sign(key, Domain::JoinRequest, &encoded);
        encoded.put(&signature);
        if encoded.len() > REQUEST_LEN_MAX {
            return Err(RequestTooLong { len: encoded.len() });
        }
        Ok(Self { content, encoded })
    }
}

impl RequestContent {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUESTION_LEN);
        out.put_u8(VERSION);
        out.put(self.network.as_bytes());
        out.put(self.site_key.as_bytes());
        out.put(self.nonce.as_bytes());
        out.put_u64(self.issued_at.0);
        self.subject.encode(&mut out);
        match &self.credential {
            Credential::Token { id, proof } => {
                out.put_u8(BY_TOKEN);
                out.put(id.as_bytes());
                out.put(proof);
            }
            Credential::Certificate(fingerprint) => {
                out.put_u8(BY_CERTIFICATE);
                out.put(fingerprint.as_bytes());
            }
        }
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u8("request version")? != VERSION {
            return Err(Fault::Unknown.at("request version"));
        }
        let network = NetworkId::from_bytes(reader.array("network id")?);
        let site_key: [u8; KEY_LEN] = reader.array("site key")?;
        Ok(Self {
            network,
            site_key: SitePublicKey::from_bytes(&site_key)
                .map_err(|_| Fault::Key.at("site key"))?,
            nonce: Nonce::from_bytes(reader.array("nonce")?),
            issued_at: WallTime(reader.u64("issued at")?),
            subject: Subject::decode(reader)?,
            credential: match reader.u8("credential")? {
                BY_TOKEN => Credential::Token {
                    id: TokenId::from_bytes(reader.array("token id")?),
                    proof: reader.array("proof")?,
                },
                BY_CERTIFICATE => {
                    Credential::Certificate(Fingerprint::from_bytes(reader.array("fingerprint")?))
                }
                _ => return Err(Fault::Unknown.at("credential")),
            },
        })
    }
}

const GRANTED: u8 = 0;

impl JoinAnswer {
    /// The certificate that was asked for.
    pub fn grant(request: &JoinRequest, certificate: Certificate) -> Self {
        let (network, nonce) = (request.content.network, request.content.nonce);
        let mut encoded = start(network, nonce);
        encoded.put_u8(GRANTED);
        encoded.put(certificate.as_bytes());
        Self {
            network,
            nonce,
            verdict: Verdict::Granted(Box::new(certificate)),
            encoded,
        }
    }

    /// No certificate, or not yet; 0 seconds mean never.
    pub fn refuse(
        request: &JoinRequest,
        reason: Refusal,
        retry_after_s: u16,
        by: Issuing<'_>,
    ) -> Self {
        let (network, nonce) = (request.content.network, request.content.nonce);
        let signer = by.signer();
        let mut encoded = start(network, nonce);
        encoded.put_u8(reason.code());
        encoded.put_u16(retry_after_s);
        signer.encode(&mut encoded);
        let signature = by.sign(Domain::JoinAnswer, &encoded);
        encoded.put(&signature);
        Self {
            network,
            nonce,
            verdict: Verdict::Refused {
                reason,
                retry_after_s,
                signer,
            },
            encoded,
        }
    }

    /// The number of the request.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// What it claims.
    pub fn claims(&self) -> &Verdict {
        &self.verdict
    }

    /// The certificate, or why there is none, if this answers a request with this number for this site and comes from
    /// who may say so.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(
        self,
        trust: &mut Trust,
        site: SiteId,
        nonce: Nonce,
    ) -> Result<Outcome, AnswerError> {
        if self.network != trust.network() || self.nonce != nonce {
            return Err(AnswerError::OtherRequest);
        }
        match self.verdict {
            Verdict::Granted(certificate) => {
                if certificate.claims().site_id() != site {
                    return Err(AnswerError::OtherSite);
                }
                Ok(Outcome::Granted(Box::new(certificate.verify(trust)?)))
            }
            Verdict::Refused {
                reason,
                retry_after_s,
                signer,
            } => {
                let (content, signature) = split_signature(&self.encoded);
                trust.check_signature(
                    &signer,
                    Powers::CERTIFY,
                    Domain::JoinAnswer,
                    content,
                    signature,
                )?;
                Ok(Outcome::Refused {
                    reason,
                    retry_after_s,
                })
            }
        }
    }

    /// The body.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let network = NetworkId::from_bytes(reader.array("network id")?);
        let nonce = Nonce::from_bytes(reader.array("nonce")?);
        let verdict = match reader.u8("verdict")? {
            GRANTED => Verdict::Granted(Box::new(Certificate::decode(reader.rest())?)),
            code => {
                let refused = Verdict::Refused {
                    reason: Refusal::from_code(code).ok_or(Fault::Unknown.at("verdict"))?,
                    retry_after_s: reader.u16("retry after")?,
                    signer: Signer::decode(&mut reader)?,
                };
                reader.array::<SIGNATURE_LEN>("signature")?;
                reader.finish("answer")?;
                refused
            }
        };
        Ok(Self {
            network,
            nonce,
            verdict,
            encoded: body.to_vec(),
        })
    }
}

/// An answer that is not good for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It answers another request, or belongs to another network.
    #[error("it answers another request")]
    OtherRequest,
    /// The certificate is for another site.
    #[error("the certificate is for another site")]
    OtherSite,
    /// Not from who may say so.
    #[error("the answer is not the issuer's: {0}")]
    Certificate(#[from] CertificateError),
}

impl Refusal {
    fn code(self) -> u8 {
        REFUSALS
            .iter()
            .position(|known| *known == self)
            .map_or(0, |at| at as u8 + 1)
    }

    fn from_code(code: u8) -> Option<Self> {
        REFUSALS.get(usize::from(code).wrapping_sub(1)).copied()
    }
}

fn start(network: NetworkId, nonce: Nonce) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(QUESTION_LEN);
    encoded.put(network.as_bytes());
    encoded.put(nonce.as_bytes());
    encoded
}
