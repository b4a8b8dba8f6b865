//! The messages: what a body can be.
//!
//! A question is padded so that its answer is never larger: nobody can make a site send more than was sent to it.

mod small;

use std::ops::RangeInclusive;

use rand_core::{CryptoRng, RngCore};

use crate::announce::Announcement;
use crate::certificate::{CERTIFICATE_LEN_MAX, Certificate};
use crate::envelope::{BODY_LEN_MAX, DiscoveryKey, Opened};
use crate::ids::SiteId;
use crate::join::{JoinAnswer, JoinRequest};
use crate::revocation::{RevocationPart, RevocationQuery};
use crate::signed::{SIGNED_LEN_MAX, Signed};
use crate::wire::{Fault, Malformed, Put, Reader};

pub use small::{
    CertificateQuery, Challenge, ChallengeResponse, Connect, ConnectStep, Goodbye, Observed, Probe,
};

/// Bytes of the body of a question whose answer can be large.
pub const QUESTION_LEN: usize = 1100;
/// Most hops that a relayed message can take.
pub const HOPS_MAX: u8 = 3;

const RELAY_LEN: usize = 26;
const _: () = assert!(RELAY_LEN + SIGNED_LEN_MAX <= BODY_LEN_MAX);
const _: () = assert!(RELAY_LEN + QUESTION_LEN <= BODY_LEN_MAX);
const _: () = assert!(RELAY_LEN + CERTIFICATE_LEN_MAX <= BODY_LEN_MAX);

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// What a site says about itself.
    Announce,
    /// Asks for a certificate.
    CertificateQuery,
    /// A certificate.
    CertificateAnswer,
    /// Asks a site to sign a number: it is there, and it is now.
    Challenge,
    /// The number, signed.
    ChallengeResponse,
    /// Asks from which address this comes.
    Probe,
    /// From that one.
    Observed,
    /// "Let us both send at once", through somebody who reaches both.
    Connect,
    /// Asks for revocations.
    RevocationQuery,
    /// A part of a list of revocations.
    RevocationPart,
    /// Another message, passed on.
    Relayed,
    /// A site stops.
    Goodbye,
    /// Asks for a certificate to be made.
    JoinRequest,
    /// The certificate, or why not.
    JoinAnswer,
}

/// A body, read. Signatures in it are not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`MessageKind::Announce`].
    Announce(Signed<Announcement>),
    /// See [`MessageKind::CertificateQuery`].
    CertificateQuery(CertificateQuery),
    /// See [`MessageKind::CertificateAnswer`].
    CertificateAnswer(Box<Certificate>),
    /// See [`MessageKind::Challenge`].
    Challenge(Challenge),
    /// See [`MessageKind::ChallengeResponse`].
    ChallengeResponse(Signed<ChallengeResponse>),
    /// See [`MessageKind::Probe`].
    Probe(Probe),
    /// See [`MessageKind::Observed`].
    Observed(Observed),
    /// See [`MessageKind::Connect`].
    Connect(Signed<Connect>),
    /// See [`MessageKind::RevocationQuery`].
    RevocationQuery(RevocationQuery),
    /// See [`MessageKind::RevocationPart`].
    RevocationPart(RevocationPart),
    /// See [`MessageKind::Relayed`].
    Relayed(Relayed),
    /// See [`MessageKind::Goodbye`].
    Goodbye(Signed<Goodbye>),
    /// See [`MessageKind::JoinRequest`].
    JoinRequest(JoinRequest),
    /// See [`MessageKind::JoinAnswer`].
    JoinAnswer(JoinAnswer),
}

/// Another message, passed on by who is not its author. It carries what proves its author itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    to: SiteId,
    hops_left: u8,
    tag: [u8; 8],
    message: Box<Message>,
}

impl MessageKind {
    /// All kinds, by code from 1.
    pub const ALL: [Self; 14] = [
        Self::Announce,
        Self::CertificateQuery,
        Self::CertificateAnswer,
        Self::Challenge,
        Self::ChallengeResponse,
        Self::Probe,
        Self::Observed,
        Self::Connect,
        Self::RevocationQuery,
        Self::RevocationPart,
        Self::Relayed,
        Self::Goodbye,
        Self::JoinRequest,
        Self::JoinAnswer,
    ];

    /// The code in headers.
    pub fn code(self) -> u8 {
        Self::ALL
            .iter()
            .position(|kind| *kind == self)
            .map_or(0, |at| at as u8 + 1)
    }

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).wrapping_sub(1)).copied()
    }

    /// Lengths that a body of this kind can have.
    pub fn body_len(self) -> RangeInclusive<usize> {
        match self {
            Self::Announce => 287..=SIGNED_LEN_MAX,
            Self::CertificateQuery | Self::RevocationQuery | Self::JoinRequest => {
                QUESTION_LEN..=QUESTION_LEN
            }
            Self::CertificateAnswer => 145..=CERTIFICATE_LEN_MAX,
            Self::Challenge | Self::ChallengeResponse => small::RESPONSE_LEN..=small::RESPONSE_LEN,
            Self::Probe | Self::Observed => small::OBSERVED_LEN..=small::OBSERVED_LEN,
            Self::Connect => 156..=SIGNED_LEN_MAX,
            Self::RevocationPart => 100..=QUESTION_LEN,
            Self::Relayed => RELAY_LEN + 100..=BODY_LEN_MAX,
            Self::Goodbye => small::GOODBYE_LEN..=small::GOODBYE_LEN,
            Self::JoinAnswer => 100..=QUESTION_LEN,
        }
    }

    /// Whether others may pass such a message on: what proves its author, and has to cross the network.
    pub fn can_be_relayed(self) -> bool {
        match self {
            Self::Announce
            | Self::CertificateAnswer
            | Self::Connect
            | Self::RevocationPart
            | Self::Goodbye
            | Self::JoinRequest
            | Self::JoinAnswer => true,
            Self::CertificateQuery
            | Self::Challenge
            | Self::ChallengeResponse
            | Self::Probe
            | Self::Observed
            | Self::RevocationQuery
            | Self::Relayed => false,
        }
    }
}

impl Message {
    /// Reads an authentic body.
    ///
    /// # Errors
    /// What is not exactly a message of its kind.
    pub fn decode(opened: &Opened<'_>) -> Result<Self, Malformed> {
        Self::decode_body(opened.kind, opened.body)
    }

    /// Reads a body of this kind.
    ///
    /// # Errors
    /// What is not exactly a message of its kind.
    pub fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Self, Malformed> {
        if !kind.body_len().contains(&body.len()) {
            return Err(Fault::Contradiction.at("length of the body"));
        }
        Ok(match kind {
            MessageKind::Announce => Self::Announce(Signed::decode(body)?),
            MessageKind::CertificateQuery => {
                Self::CertificateQuery(CertificateQuery::decode(body)?)
            }
            MessageKind::CertificateAnswer => {
                Self::CertificateAnswer(Box::new(Certificate::decode(body)?))
            }
            MessageKind::Challenge => Self::Challenge(Challenge::decode(body)?),
            MessageKind::ChallengeResponse => Self::ChallengeResponse(Signed::decode(body)?),
            MessageKind::Probe => Self::Probe(Probe::decode(body)?),
            MessageKind::Observed => Self::Observed(Observed::decode(body)?),
            MessageKind::Connect => Self::Connect(Signed::decode(body)?),
            MessageKind::RevocationQuery => Self::RevocationQuery(RevocationQuery::decode(body)?),
            MessageKind::RevocationPart => Self::RevocationPart(RevocationPart::decode(body)?),
            MessageKind::Relayed => Self::Relayed(Relayed::decode(body)?),
            MessageKind::Goodbye => Self::Goodbye(Signed::decode(body)?),
            MessageKind::JoinRequest => Self::JoinRequest(JoinRequest::decode(body)?),
            MessageKind::JoinAnswer => Self::JoinAnswer(JoinAnswer::decode(body)?),
        })
    }

    /// What it is.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Announce(_) => MessageKind::Announce,
            Self::CertificateQuery(_) => MessageKind::CertificateQuery,
            Self::CertificateAnswer(_) => MessageKind::CertificateAnswer,
            Self::Challenge(_) => MessageKind::Challenge,
            Self::ChallengeResponse(_) => MessageKind::ChallengeResponse,
            Self::Probe(_) => MessageKind::Probe,
            Self::Observed(_) => MessageKind::Observed,
            Self::Connect(_) => MessageKind::Connect,
            Self::RevocationQuery(_) => MessageKind::RevocationQuery,
            Self::RevocationPart(_) => MessageKind::RevocationPart,
            Self::Relayed(_) => MessageKind::Relayed,
            Self::Goodbye(_) => MessageKind::Goodbye,
            Self::JoinRequest(_) => MessageKind::JoinRequest,
            Self::JoinAnswer(_) => MessageKind::JoinAnswer,
        }
    }

    /// The body.
    pub fn to_body(&self) -> Vec<u8> {
        match self {
            Self::Announce(signed) => signed.as_bytes().to_vec(),
            Self::CertificateQuery(query) => query.to_body(),
            Self::CertificateAnswer(certificate) => certificate.as_bytes().to_vec(),
            Self::Challenge(challenge) => challenge.to_body(),
            Self::ChallengeResponse(signed) => signed.as_bytes().to_vec(),
            Self::Probe(probe) => probe.to_body(),
            Self::Observed(observed) => observed.to_body(),
            Self::Connect(signed) => signed.as_bytes().to_vec(),
            Self::RevocationQuery(query) => query.to_body(),
            Self::RevocationPart(part) => part.as_bytes().to_vec(),
            Self::Relayed(relayed) => relayed.to_body(),
            Self::Goodbye(signed) => signed.as_bytes().to_vec(),
            Self::JoinRequest(request) => request.to_body(),
            Self::JoinAnswer(answer) => answer.as_bytes().to_vec(),
        }
    }

    /// A datagram with this message.
    pub fn seal(&self, key: &DiscoveryKey, rng: &mut (impl CryptoRng + RngCore)) -> Vec<u8> {
        key.seal(self.kind(), &self.to_body(), rng)
    }
}

impl Relayed {
    /// Passes a message on: to a site or to [`SiteId::EVERYONE`], over so many more hops. `tag` is the relay's own mark,
    /// which an answer brings back. `None` for a message that nobody passes on, or more than [`HOPS_MAX`] hops.
    pub fn new(to: SiteId, hops_left: u8, tag: [u8; 8], message: Message) -> Option<Self> {
        let is_sound = message.kind().can_be_relayed() && hops_left <= HOPS_MAX;
        is_sound.then(|| Self {
            to,
            hops_left,
            tag,
            message: Box::new(message),
        })
    }

    /// For whom it is.
    pub fn to(&self) -> SiteId {
        self.to
    }

    /// How many more times it may be passed on.
    pub fn hops_left(&self) -> u8 {
        self.hops_left
    }

    /// The relay's mark.
    pub fn tag(&self) -> [u8; 8] {
        self.tag
    }

    /// What was passed on.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What was passed on, for keeps.
    pub fn into_message(self) -> Message {
        *self.message
    }

    /// One hop further; `None` when it has gone far enough.
    pub fn next_hop(&self) -> Option<Self> {
        let hops_left = self.hops_left.checked_sub(1)?;
        Some(Self {
            hops_left,
            ..self.clone()
        })
    }

    fn to_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BODY_LEN_MAX);
        out.put(self.to.as_bytes());
        out.put_u8(self.hops_left);
        out.put(&self.tag);
        out.put_u8(self.message.kind().code());
        out.put(&self.message.to_body());
        out
    }

    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let to = SiteId::from_bytes(reader.array("addressee")?);
        let hops_left = reader.u8("hops")?;
        let tag = reader.array("relay's tag")?;
        let kind = MessageKind::from_code(reader.u8("relayed kind")?)
            .filter(|kind| kind.can_be_relayed())
            .ok_or(Fault::Unknown.at("relayed kind"))?;
        let message = Message::decode_body(kind, reader.rest())?;
        Self::new(to, hops_left, tag, message).ok_or(Fault::TooMany.at("hops"))
    }
}
