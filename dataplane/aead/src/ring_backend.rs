//! ring's ChaCha20-Poly1305, for every processor.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroize;

use crate::{BadTag, TAG_LEN};

/// A key as ring keeps it.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(bytes: &[u8; 32]) -> Key {
        let Ok(key) = UnboundKey::new(&CHACHA20_POLY1305, bytes) else {
            unreachable!("ring refuses keys for their length only")
        };
        Key(LessSafeKey::new(key))
    }

    /// Encrypts `len` bytes, and puts a tag behind.
    pub(crate) fn seal(&self, counter: u64, bytes: &mut [u8], len: usize) {
        let (text, room) = bytes.split_at_mut(len);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), text);
        let Ok(tag) = tag else {
            unreachable!("ring refuses to seal for the length only, and that is checked")
        };
        room[..TAG_LEN].copy_from_slice(tag.as_ref());
    }

    /// Decrypts if the tag is right, and leaves zeros if it is not.
    pub(crate) fn open(
        &self,
        counter: u64,
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), BadTag> {
        let opened = self.0.open_in_place_separate_tag(
            nonce(counter),
            Aad::empty(),
            Tag::from(tag),
            text,
            0..,
        );
        if opened.is_ok() {
            return Ok(());
        }
        text.zeroize();
        Err(BadTag)
    }
}

/// WireGuard's nonce: four zero bytes, and the counter with its little end first.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
