//! ChaCha20-Poly1305 with a 64-bit counter as nonce and no additional data, as transport messages use it.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// A key that seals or opens transport messages.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    #[inline]
    pub(crate) fn seal_to(&self, counter: u64, plain: &[u8], out: &mut [u8]) {
        let (text, rest) = out.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), text)
            .expect("a packet can be sealed");
        rest[..16].copy_from_slice(tag.as_ref());
    }

    #[inline]
    pub(crate) fn open_to(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Option<usize> {
        let out = &mut out[..sealed.len()];
        out.copy_from_slice(sealed);
        let plain = self.0.open_in_place(nonce(counter), Aad::empty(), out);
        plain.ok().map(|plain| plain.len())
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
