//! Keys and tokens as one line of printable text: a prefix that says what it is, then base64url of the length, the
//! content and a checksum.
//!
//! A text that was cut off, mistyped or is something else is told apart, since people copy it by hand. No error carries
//! any of the text.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

use crate::signing::{Domain, hash};

/// Longest content in bytes.
pub const ARMORED_LEN_MAX: usize = 1024;

const LENGTH_LEN: usize = 2;
const CHECKSUM_LEN: usize = 4;
/// Takes what a cut text ends with, so that it can be called cut off.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// What a text can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armored {
    /// Secret key of a network's root.
    RootKey,
    /// Public key of a network's root.
    RootPublicKey,
    /// Secret key of an issuer.
    IssuerKey,
    /// Public key of an issuer.
    IssuerPublicKey,
    /// A delegation of the root to an issuer.
    Delegation,
    /// Secret key of a site.
    SiteKey,
    /// Public key of a site.
    SitePublicKey,
    /// A site's certificate.
    Certificate,
    /// A network's discovery key.
    DiscoveryKey,
    /// A join token.
    JoinToken,
}

/// Why a text does not hold what it should. Never carries the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmorError {
    /// The prefix is another one, or none.
    #[error("not {expected}: it does not begin with `{prefix}`{}", match found {
        Some(found) => format!(", this is {found}"),
        None => String::new(),
    })]
    OtherKind {
        /// What was expected.
        expected: &'static str,
        /// How that begins.
        prefix: &'static str,
        /// What it is, where that is known.
        found: Option<&'static str>,
    },
    /// The right kind, of a version that this program does not know.
    #[error("{expected} of another version: this program knows `{prefix}`")]
    OtherVersion {
        /// What was expected.
        expected: &'static str,
        /// The version that is known.
        prefix: &'static str,
    },
    /// A character that base64url does not have.
    #[error("mistyped: character {at} of {expected} is none of A-Z a-z 0-9 - _")]
    Alphabet {
        /// What was expected.
        expected: &'static str,
        /// Its position without white space, counted from 1.
        at: usize,
    },
    /// The text ends early.
    #[error("cut off: {have} of {want} bytes of {expected} are there, copy it as a whole")]
    CutOff {
        /// What was expected.
        expected: &'static str,
        /// Bytes that are there.
        have: usize,
        /// Bytes that should be there.
        want: usize,
    },
    /// Something lies behind the end.
    #[error("{more} bytes too many behind the end of {expected}")]
    TooLong {
        /// What was expected.
        expected: &'static str,
        /// Bytes behind the end.
        more: usize,
    },
    /// All characters are there, but not the right ones.
    #[error("mistyped: the checksum of {expected} does not match, copy it again")]
    Checksum {
        /// What was expected.
        expected: &'static str,
    },
    /// Copied well, but the content makes no sense.
    #[error("{expected} was copied well, but what it holds is not valid")]
    Content {
        /// What was expected.
        expected: &'static str,
    },
}

const ALL: [Armored; 10] = [
    Armored::RootKey,
    Armored::RootPublicKey,
    Armored::IssuerKey,
    Armored::IssuerPublicKey,
    Armored::Delegation,
    Armored::SiteKey,
    Armored::SitePublicKey,
    Armored::Certificate,
    Armored::DiscoveryKey,
    Armored::JoinToken,
];

impl Armored {
    /// How the text begins.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::RootKey => "patronus-root-key-1:",
            Self::RootPublicKey => "patronus-root-public-1:",
            Self::IssuerKey => "patronus-issuer-key-1:",
            Self::IssuerPublicKey => "patronus-issuer-public-1:",
            Self::Delegation => "patronus-delegation-1:",
            Self::SiteKey => "patronus-site-key-1:",
            Self::SitePublicKey => "patronus-site-public-1:",
            Self::Certificate => "patronus-certificate-1:",
            Self::DiscoveryKey => "patronus-discovery-key-1:",
            Self::JoinToken => "patronus-join-1:",
        }
    }

    /// What it is, with its article.
    pub const fn what(self) -> &'static str {
        match self {
            Self::RootKey => "a root key",
            Self::RootPublicKey => "a public root key",
            Self::IssuerKey => "an issuer's key",
            Self::IssuerPublicKey => "an issuer's public key",
            Self::Delegation => "a delegation",
            Self::SiteKey => "a site's key",
            Self::SitePublicKey => "a site's public key",
            Self::Certificate => "a certificate",
            Self::DiscoveryKey => "a discovery key",
            Self::JoinToken => "a join token",
        }
    }

    /// The prefix up to its version.
    fn stem(self) -> &'static str {
        self.prefix().trim_end_matches("1:")
    }
}

/// One line, no newline.
///
/// # Panics
/// When the content is longer than [`ARMORED_LEN_MAX`].
pub(crate) fn encode(kind: Armored, content: &[u8]) -> Zeroizing<String> {
    assert!(content.len() <= ARMORED_LEN_MAX, "{} bytes", content.len());
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        LENGTH_LEN + content.len() + CHECKSUM_LEN,
    ));
    bytes.extend_from_slice(&(content.len() as u16).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&checksum(kind, content));
    // Full capacity at once: growing would leave copies of a secret behind.
    let len = kind.prefix().len() + bytes.len().div_ceil(3) * 4;
    let mut text = Zeroizing::new(String::with_capacity(len));
    text.push_str(kind.prefix());
    BASE64.encode_string(bytes.as_slice(), &mut text);
    text
}

/// Reads what [`encode`] wrote. White space anywhere is ignored: mail programs wrap lines.
pub(crate) fn decode(kind: Armored, text: &str) -> Result<Zeroizing<Vec<u8>>, ArmorError> {
    let expected = kind.what();
    let mut compact = Zeroizing::new(Vec::with_capacity(text.len()));
    compact.extend(text.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let Some(digits) = compact.strip_prefix(kind.prefix().as_bytes()) else {
        return Err(other_kind(kind, &compact));
    };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    if let Some(at) = digits.iter().position(|byte| !is_digit(byte)) {
        return Err(ArmorError::Alphabet {
            expected,
            at: kind.prefix().len() + at + 1,
        });
    }
    // A single digit behind the last group is less than a byte.
    let whole = digits.len() / 4 * 4 + [0, 0, 2, 3][digits.len() % 4];
    let mut bytes = Zeroizing::new(vec![0; whole / 4 * 3 + 3]);
    let decoded = BASE64.decode_slice(&digits[..whole], bytes.as_mut_slice());
    let Ok(len) = decoded else {
        return Err(ArmorError::Checksum { expected });
    };
    bytes.truncate(len);
    let Some((length, _)) = bytes.split_first_chunk::<LENGTH_LEN>() else {
        return Err(ArmorError::CutOff {
            expected,
            have: len,
            want: LENGTH_LEN,
        });
    };
    let content_len = usize::from(u16::from_le_bytes(*length));
    if content_len > ARMORED_LEN_MAX {
        return Err(ArmorError::Checksum { expected });
    }
    let want = LENGTH_LEN + content_len + CHECKSUM_LEN;
    if len < want {
        return Err(ArmorError::CutOff {
            expected,
            have: len,
            want,
        });
    }
    if len > want || whole != digits.len() {
        return Err(ArmorError::TooLong {
            expected,
            more: (len - want).max(1),
        });
    }
    let content = Zeroizing::new(bytes[LENGTH_LEN..LENGTH_LEN + content_len].to_vec());
    let is_whole = bytes[LENGTH_LEN + content_len..] == checksum(kind, &content);
    // Stray bits in the last digit would be a second text for the same content.
    if !is_whole || encode(kind, &content).as_bytes() != compact.as_slice() {
        return Err(ArmorError::Checksum { expected });
    }
    Ok(content)
}

/// Content of a fixed length.
pub(crate) fn decode_exact<const N: usize>(
    kind: Armored,
    text: &str,
) -> Result<Zeroizing<[u8; N]>, ArmorError> {
    let content = decode(kind, text)?;
    let Some(exact) = content.first_chunk::<N>().filter(|_| content.len() == N) else {
        return Err(ArmorError::Content {
            expected: kind.what(),
        });
    };
    Ok(Zeroizing::new(*exact))
}

fn other_kind(kind: Armored, compact: &[u8]) -> ArmorError {
    if is_versioned(kind, compact) {
        return ArmorError::OtherVersion {
            expected: kind.what(),
            prefix: kind.prefix(),
        };
    }
    let known = ALL
        .iter()
        .find(|known| **known != kind && compact.starts_with(known.stem().as_bytes()));
    ArmorError::OtherKind {
        expected: kind.what(),
        prefix: kind.prefix(),
        found: known.map(|known| known.what()),
    }
}

/// Whether the text begins as one of any version does.
fn is_versioned(kind: Armored, compact: &[u8]) -> bool {
    let Some(rest) = compact.strip_prefix(kind.stem().as_bytes()) else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest.get(digits) == Some(&b':')
}

/// Four bytes find a slip of the hand; who wants to change a text on purpose is stopped by signatures.
fn checksum(kind: Armored, content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut input = Zeroizing::new(Vec::with_capacity(kind.prefix().len() + content.len()));
    input.extend_from_slice(kind.prefix().as_bytes());
    input.extend_from_slice(content);
    let hash = hash(Domain::Checksum, &input);
    [hash[0], hash[1], hash[2], hash[3]]
}
