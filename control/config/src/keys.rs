//! The text forms of WireGuard keys: base64 as `wg` writes it, hex as the UAPI socket writes it.
//!
//! Follows `src/encoding.c`, `src/genkey.c` and `src/pubkey.c` of wireguard-tools. No message carries
//! any part of the text, since it may be a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use patronus_tunnel::keys::KEY_LEN;
use patronus_tunnel::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// Characters of a key in base64: 43 and one `=`.
pub const BASE64_LEN: usize = 44;
/// Characters of a key in hex.
pub const HEX_LEN: usize = 2 * KEY_LEN;

/// Why a text is no key. Never carries the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Not [`BASE64_LEN`] bytes.
    #[error("{len} characters long, a key in base64 has {BASE64_LEN}")]
    Base64Length {
        /// Bytes of the text.
        len: usize,
    },
    /// A byte outside the base64 alphabet, or a `=` too early.
    #[error("character {at} is not base64: a key has 43 of A-Z a-z 0-9 + / and one = at its end")]
    Base64Alphabet {
        /// Position of the byte, counted from 1.
        at: usize,
    },
    /// The last character before `=` carries bits beyond 32 bytes: the text was cut or mistyped.
    #[error("its last characters cannot end a key of 32 bytes: copy it again as a whole")]
    Base64Tail,
    /// Not [`HEX_LEN`] bytes.
    #[error("{len} characters long, a key in hex has {HEX_LEN}")]
    HexLength {
        /// Bytes of the text.
        len: usize,
    },
    /// A byte that is no hex digit.
    #[error("character {at} is not a hex digit")]
    HexAlphabet {
        /// Position of the byte, counted from 1.
        at: usize,
    },
    /// All 32 bytes are zero, which `wg` reads as no key.
    #[error("all zero, which is no key: make one with `patronus genkey` or `patronus genpsk`")]
    Zero,
}

/// A key that has text forms. Secrets come as text that is wiped when dropped.
pub trait KeyText: Sized {
    /// `String`, or `Zeroizing<String>` for secrets.
    type Text: AsRef<str> + From<String>;

    /// Takes the bytes.
    fn from_key_bytes(bytes: [u8; KEY_LEN]) -> Self;
    /// Lends the bytes.
    fn key_bytes(&self) -> &[u8; KEY_LEN];

    /// Reads base64, strictly: 44 characters, nothing around them, no stray bits.
    fn from_base64(text: &str) -> Result<Self, KeyTextError> {
        Ok(Self::from_key_bytes(*decode_base64(text)?))
    }

    /// Reads base64 as [`from_base64`](Self::from_base64) and refuses the all-zero key.
    fn from_base64_nonzero(text: &str) -> Result<Self, KeyTextError> {
        let bytes = decode_base64(text)?;
        if *bytes == [0; KEY_LEN] {
            return Err(KeyTextError::Zero);
        }
        Ok(Self::from_key_bytes(*bytes))
    }

    /// 44 characters, no newline.
    fn to_base64(&self) -> Self::Text {
        STANDARD.encode(self.key_bytes()).into()
    }

    /// Reads 64 hex digits of either case (`wg(8)`, "cross-platform userspace implementation").
    fn from_hex(text: &str) -> Result<Self, KeyTextError> {
        Ok(Self::from_key_bytes(*decode_hex(text)?))
    }

    /// 64 lower-case hex digits.
    fn to_hex(&self) -> Self::Text {
        // Full capacity at once: growing would leave copies of a secret behind.
        let mut text = String::with_capacity(HEX_LEN);
        for byte in self.key_bytes() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(HEX_DIGITS[usize::from(nibble)]));
            }
        }
        text.into()
    }
}

impl KeyText for PublicKey {
    type Text = String;

    fn from_key_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self::from_bytes(bytes)
    }

    fn key_bytes(&self) -> &[u8; KEY_LEN] {
        self.as_bytes()
    }
}

impl KeyText for PrivateKey {
    type Text = Zeroizing<String>;

    fn from_key_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self::from_bytes(bytes)
    }

    fn key_bytes(&self) -> &[u8; KEY_LEN] {
        self.as_bytes()
    }
}

impl KeyText for PresharedKey {
    type Text = Zeroizing<String>;

    fn from_key_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self::from_bytes(bytes)
    }

    fn key_bytes(&self) -> &[u8; KEY_LEN] {
        self.as_bytes()
    }
}

/// `patronus genkey`: a new private key in base64, without a newline.
pub fn genkey() -> Zeroizing<String> {
    PrivateKey::generate().to_base64()
}

/// `patronus genpsk`: a new preshared key in base64, without a newline.
pub fn genpsk() -> Zeroizing<String> {
    PresharedKey::generate().to_base64()
}

/// Why `patronus pubkey` refuses its input; the first words are those of `wg pubkey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Key is not the correct length or format: {0}")]
pub struct PubkeyError(#[from] pub KeyTextError);

/// `patronus pubkey`: the public key of a private key in base64, with white space behind it or none.
pub fn pubkey(private_key: &str) -> Result<String, PubkeyError> {
    let private_key = PrivateKey::from_base64(private_key.trim_end())?;
    Ok(private_key.public_key().to_base64())
}

/// Whether `text` is a key in base64, to catch keys written where a path or name belongs.
pub(crate) fn looks_like_key(text: &str) -> bool {
    decode_base64(text.trim()).is_ok()
}

fn decode_base64(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyTextError> {
    let bytes = text.as_bytes();
    if bytes.len() != BASE64_LEN {
        return Err(KeyTextError::Base64Length { len: bytes.len() });
    }
    let (digits, padding) = bytes.split_at(BASE64_LEN - 1);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    if let Some(at) = digits.iter().position(|byte| !is_digit(byte)) {
        return Err(KeyTextError::Base64Alphabet { at: at + 1 });
    }
    if padding != b"=" {
        return Err(KeyTextError::Base64Alphabet { at: BASE64_LEN });
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    // Alphabet and length are right, so that only stray bits in the last digit are left to refuse.
    match STANDARD.decode_slice(bytes, key.as_mut_slice()) {
        Ok(KEY_LEN) => Ok(key),
        Ok(_) | Err(_) => Err(KeyTextError::Base64Tail),
    }
}

fn decode_hex(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyTextError> {
    let bytes = text.as_bytes();
    if bytes.len() != HEX_LEN {
        return Err(KeyTextError::HexLength { len: bytes.len() });
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (at, byte) in bytes.iter().enumerate() {
        let nibble = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return Err(KeyTextError::HexAlphabet { at: at + 1 }),
        };
        key[at / 2] = key[at / 2] << 4 | nibble;
    }
    Ok(key)
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7748, section 6.1: Alice's keys.
    const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    const ALICE_PUBLIC_HEX: &str =
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";

    #[test]
    fn the_public_key_of_rfc_7748_comes_out_with_or_without_a_newline() {
        assert_eq!(pubkey(ALICE_PRIVATE).as_deref(), Ok(ALICE_PUBLIC));
        assert_eq!(
            pubkey(&format!("{ALICE_PRIVATE}\n")).as_deref(),
            Ok(ALICE_PUBLIC)
        );
    }

    #[test]
    fn pubkey_refuses_in_the_words_of_wg_and_shows_nothing_of_the_key() {
        for text in [
            "",
            "x",
            &ALICE_PRIVATE[1..],
            &format!(" {ALICE_PRIVATE}"),
            "é",
        ] {
            let error = pubkey(text).unwrap_err().to_string();
            assert!(
                error.starts_with("Key is not the correct length or format"),
                "{error}"
            );
            assert!(!error.contains(&ALICE_PRIVATE[1..9]), "{error}");
        }
    }

    #[test]
    fn base64_and_hex_name_the_same_key() {
        let key = PublicKey::from_base64(ALICE_PUBLIC).unwrap();
        assert_eq!(key.to_base64(), ALICE_PUBLIC);
        assert_eq!(key.to_hex(), ALICE_PUBLIC_HEX);
        assert_eq!(PublicKey::from_hex(ALICE_PUBLIC_HEX).unwrap(), key);
        assert_eq!(
            PublicKey::from_hex(&ALICE_PUBLIC_HEX.to_uppercase()).unwrap(),
            key
        );
    }

    #[test]
    fn every_kind_of_bad_text_is_named() {
        let base64 = |text: &str| PublicKey::from_base64(text).unwrap_err();
        let hex = |text: &str| PublicKey::from_hex(text).unwrap_err();
        assert_eq!(base64("short="), KeyTextError::Base64Length { len: 6 });
        assert_eq!(
            base64(&ALICE_PUBLIC.replace('/', "_")),
            KeyTextError::Base64Alphabet { at: 24 }
        );
        assert_eq!(
            base64(&ALICE_PUBLIC.replace('=', "A")),
            KeyTextError::Base64Alphabet { at: 44 }
        );
        assert_eq!(
            base64(&ALICE_PUBLIC.replace("o=", "==")),
            KeyTextError::Base64Alphabet { at: 43 }
        );
        assert_eq!(
            base64(&ALICE_PUBLIC.replace("o=", "p=")),
            KeyTextError::Base64Tail
        );
        assert_eq!(hex("00"), KeyTextError::HexLength { len: 2 });
        assert_eq!(
            hex(&ALICE_PUBLIC_HEX.replace('c', "g")),
            KeyTextError::HexAlphabet { at: 24 }
        );
        assert_eq!(
            PublicKey::from_base64_nonzero(&PublicKey::from_bytes([0; 32]).to_base64()),
            Err(KeyTextError::Zero)
        );
    }

    #[test]
    fn generated_keys_read_back_and_differ() {
        let (one, two) = (genkey(), genkey());
        assert_ne!(*one, *two);
        assert_eq!(*PrivateKey::from_base64(&one).unwrap().to_base64(), *one);
        let psk = genpsk();
        assert_eq!(*PresharedKey::from_base64(&psk).unwrap().to_base64(), *psk);
    }
}
