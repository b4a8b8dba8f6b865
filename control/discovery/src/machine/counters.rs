//! Every datagram that came, by what became of it.

/// Why a datagram was dropped. A closed list: each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
    /// A length that no message, or none of its kind, has.
    Length,
    /// Not ours at all.
    Magic,
    /// A version of the envelope that is not known.
    Version,
    /// A kind that is not known.
    Kind,
    /// On a LAN, from a source that is not on the link.
    OffLink,
    /// On a LAN with IPv6, with another hop limit than 255.
    HopLimit,
    /// On an interface without the LAN role, or through the tunnel of a site that is no peer.
    Door,
    /// The source sent more than its share.
    SourceRate,
    /// All unknown sources together sent more than their share.
    GlobalRate,
    /// Sealed with a key that we do not have.
    UnknownKey,
    /// Not sealed by who has the key.
    NotAuthentic,
    /// A body that is none.
    Malformed,
    /// Of another network, inside our envelope.
    OtherNetwork,
    /// Our own message came back.
    Own,
    /// The certificate is not known; it was asked for, or was lately.
    UnknownCertificate,
    /// The certificate does not lead to the root.
    BadCertificate,
    /// A newer certificate of the site is known.
    SupersededCertificate,
    /// The certificate is known.
    KnownCertificate,
    /// The certificate is not in force yet.
    NotYetValid,
    /// The certificate's time is over.
    Expired,
    /// The site or its issuer is revoked.
    Revoked,
    /// No newer than what the site said before.
    Replay,
    /// Too old to count.
    Stale,
    /// The site must first prove that it is there, now.
    Challenged,
    /// Nobody was asked this.
    Unasked,
    /// The signature is not the site's.
    BadSignature,
    /// No version of the protocol in common.
    Unspoken,
    /// More sites than the table holds.
    TableFull,
    /// More signatures to check or make than there is time for.
    Busy,
    /// A question to which there is no answer here.
    Unanswerable,
    /// To be passed on to nobody that we reach, or too far.
    Unforwardable,
}

impl Drop {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 31] = [
        Self::Length,
        Self::Magic,
        Self::Version,
        Self::Kind,
        Self::OffLink,
        Self::HopLimit,
        Self::Door,
        Self::SourceRate,
        Self::GlobalRate,
        Self::UnknownKey,
        Self::NotAuthentic,
        Self::Malformed,
        Self::OtherNetwork,
        Self::Own,
        Self::UnknownCertificate,
        Self::BadCertificate,
        Self::SupersededCertificate,
        Self::KnownCertificate,
        Self::NotYetValid,
        Self::Expired,
        Self::Revoked,
        Self::Replay,
        Self::Stale,
        Self::Challenged,
        Self::Unasked,
        Self::BadSignature,
        Self::Unspoken,
        Self::TableFull,
        Self::Busy,
        Self::Unanswerable,
        Self::Unforwardable,
    ];

    /// The counter's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Magic => "magic",
            Self::Version => "version",
            Self::Kind => "kind",
            Self::OffLink => "off_link",
            Self::HopLimit => "hop_limit",
            Self::Door => "door",
            Self::SourceRate => "source_rate",
            Self::GlobalRate => "global_rate",
            Self::UnknownKey => "unknown_key",
            Self::NotAuthentic => "not_authentic",
            Self::Malformed => "malformed",
            Self::OtherNetwork => "other_network",
            Self::Own => "own",
            Self::UnknownCertificate => "unknown_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::SupersededCertificate => "superseded_certificate",
            Self::KnownCertificate => "known_certificate",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Replay => "replay",
            Self::Stale => "stale",
            Self::Challenged => "challenged",
            Self::Unasked => "unasked",
            Self::BadSignature => "bad_signature",
            Self::Unspoken => "unspoken",
            Self::TableFull => "table_full",
            Self::Busy => "busy",
            Self::Unanswerable => "unanswerable",
            Self::Unforwardable => "unforwardable",
        }
    }
}

/// Counts since the start. `received = accepted + Σ dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that came.
    pub received: u64,
    /// Datagrams that did what they were for.
    pub accepted: u64,
    dropped: [u64; Drop::ALL.len()],
    /// Endpoints in accepted announcements that were ignored.
    pub endpoints_ignored: u64,
    /// Unverified sites that made room for others.
    pub evicted: u64,
    /// Datagrams handed out to be sent.
    pub sent: u64,
    /// Datagrams that nobody collected in time.
    pub unsent: u64,
    /// Events that nobody collected in time, or that came too often.
    pub events_untold: u64,
}

impl Counters {
    /// Datagrams dropped for this reason.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.dropped[reason as usize]
    }

    /// Datagrams dropped, for all reasons.
    pub fn dropped_all(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(super) fn settle(&mut self, outcome: Result<(), Drop>) {
        self.received += 1;
        match outcome {
            Ok(()) => self.accepted += 1,
            Err(reason) => self.dropped[reason as usize] += 1,
        }
        debug_assert_eq!(self.received, self.accepted + self.dropped_all());
    }
}
