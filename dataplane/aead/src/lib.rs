//! ChaCha20-Poly1305 as WireGuard uses it: [RFC 8439] with a counter for a nonce and no additional data.
//!
//! A [`Key`] seals and opens packets of one direction of a session, one by one or in batches, from one buffer into
//! another or in place. The nonce of a packet is four zero bytes and its 64-bit counter, little end first. Whoever
//! calls must never seal two packets under one counter.
//!
//! Two backends do the arithmetic; [`Backend::best`] says which of them this processor runs fastest:
//!
//! | backend | where | what it is |
//! | --- | --- | --- |
//! | [`Backend::Avx512`] | x86-64 with AVX-512 F, BW, VL, IFMA and VBMI2: Ice Lake, Zen 4, and later | the kernels of this crate |
//! | [`Backend::Ring`] | everywhere | the `ring` crate |
//!
//! Why there are kernels of our own, what they gain and how they are held in check is decision 4 in `docs/decisions`.
//! They are tested against the RFC's vectors, against slow arithmetic, and against ring for every length; `cargo run
//! --release -p patronus-aead --example measure` shows what they gain on the machine at hand.
//!
//! Opening verifies first: no plaintext of a packet with a wrong tag is left behind. Time depends on lengths, never on
//! keys or data. Our own backend wipes the key when it is dropped; registers and stack are not wiped, here as in ring.
//!
//! Pure: no clock, no randomness, no environment. `unsafe` is confined to the loads and stores in `avx512::mem` and to
//! the calls into code for AVX-512, which only a processor that has it can reach.
//!
//! [RFC 8439]: https://www.rfc-editor.org/rfc/rfc8439

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod placement;
#[cfg(target_arch = "x86_64")]
mod poly1305;
mod ring_backend;

use core::fmt;

#[cfg(target_arch = "x86_64")]
use placement::Placement;
use thiserror::Error;

/// Bytes of the tag behind every ciphertext.
pub const TAG_LEN: usize = 16;
/// Bytes of a plaintext at most. No packet comes near; block counters and sums stay far from their limits.
pub const PLAINTEXT_MAX: usize = 1 << 24;

/// Who does the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// ring, on every processor.
    Ring,
    /// The kernels of this crate, on processors with AVX-512 F, BW, VL, IFMA and VBMI2.
    Avx512,
}

impl Backend {
    /// Every backend, slowest first.
    pub const ALL: [Backend; 2] = [Backend::Ring, Backend::Avx512];

    /// The fastest that this processor can run.
    pub fn best() -> Backend {
        if Backend::Avx512.is_available() {
            Backend::Avx512
        } else {
            Backend::Ring
        }
    }

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Backend::Ring => true,
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Avx512 => false,
        }
    }

    /// Those that this processor can run, slowest first.
    pub fn available() -> impl Iterator<Item = Backend> {
        Backend::ALL
            .into_iter()
            .filter(|backend| backend.is_available())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Ring => "ring",
            Backend::Avx512 => "avx512",
        })
    }
}

/// The tag does not belong to this ciphertext, counter and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the packet's authentication tag is wrong")]
pub struct BadTag;

/// One direction of a session: a key that is used once per counter.
///
/// Our own backend wipes the key when it is dropped; what ring keeps, ring does not wipe.
pub struct Key(Inner);

enum Inner {
    Ring(Box<ring_backend::Key>),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Key),
}

impl Key {
    /// A key for the fastest backend of this processor.
    pub fn new(bytes: &[u8; 32]) -> Key {
        Key::with_backend(bytes, Backend::best()).unwrap_or_else(|| Key::of_ring(bytes))
    }

    /// A key for one backend; `None` where this processor lacks what it needs.
    pub fn with_backend(bytes: &[u8; 32], backend: Backend) -> Option<Key> {
        match backend {
            Backend::Ring => Some(Key::of_ring(bytes)),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::Key::new(bytes).map(|key| Key(Inner::Avx512(key))),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Avx512 => None,
        }
    }

    fn of_ring(bytes: &[u8; 32]) -> Key {
        Key(Inner::Ring(Box::new(ring_backend::Key::new(bytes))))
    }

    /// Which backend works with this key.
    pub fn backend(&self) -> Backend {
        match &self.0 {
            Inner::Ring(_) => Backend::Ring,
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(_) => Backend::Avx512,
        }
    }

    /// Seals `src` into the start of `dst`: ciphertext and tag. Returns their length.
    ///
    /// # Panics
    /// Before anything is written: `dst` has no room for [`TAG_LEN`] bytes more than `src`, or `src` is longer than
    /// [`PLAINTEXT_MAX`].
    #[inline]
    pub fn seal_to(&self, counter: u64, src: &[u8], dst: &mut [u8]) -> usize {
        self.seal_padded_to(counter, src, src.len(), dst)
    }

    /// Seals `src` and zeros after it, `padded_len` bytes together, into the start of `dst`: ciphertext and tag.
    /// Returns their length.
    ///
    /// # Panics
    /// Before anything is written: `padded_len` is less than `src` has or more than [`PLAINTEXT_MAX`], or `dst` has
    /// no room for [`TAG_LEN`] bytes more than that.
    #[inline]
    pub fn seal_padded_to(
        &self,
        counter: u64,
        src: &[u8],
        padded_len: usize,
        dst: &mut [u8],
    ) -> usize {
        let sealed_len = checked_sealed_len(src.len(), padded_len, dst.len());
        let dst = &mut dst[..sealed_len];
        match &self.0 {
            Inner::Ring(key) => {
                dst[..src.len()].copy_from_slice(src);
                dst[src.len()..padded_len].fill(0);
                key.seal(counter, dst, padded_len);
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(key) => {
                let (source, target) = (src, dst);
                key.seal(
                    counter,
                    &mut Placement::Apart { source, target },
                    padded_len,
                );
            }
        }
        sealed_len
    }

    /// Seals the first `len` bytes of `buf` where they lie, and puts the tag behind. Returns the length of both.
    ///
    /// # Panics
    /// Before anything is written: `buf` has no room for [`TAG_LEN`] bytes more than `len`, or `len` is more than
    /// [`PLAINTEXT_MAX`].
    #[inline]
    pub fn seal_in_place(&self, counter: u64, buf: &mut [u8], len: usize) -> usize {
        self.seal_padded_in_place(counter, buf, len, len)
    }

    /// Seals the first `len` bytes of `buf` and zeros after them, `padded_len` bytes together, where they lie, and
    /// puts the tag behind. Returns the length of both. What `buf` holds from `len` on does not matter.
    ///
    /// # Panics
    /// Before anything is written: `padded_len` is less than `len` or more than [`PLAINTEXT_MAX`], or `buf` has no
    /// room for [`TAG_LEN`] bytes more than that.
    #[inline]
    pub fn seal_padded_in_place(
        &self,
        counter: u64,
        buf: &mut [u8],
        len: usize,
        padded_len: usize,
    ) -> usize {
        let sealed_len = checked_sealed_len(len, padded_len, buf.len());
        let bytes = &mut buf[..sealed_len];
        match &self.0 {
            Inner::Ring(key) => {
                bytes[len..padded_len].fill(0);
                key.seal(counter, bytes, padded_len);
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(key) => {
                key.seal(counter, &mut Placement::InPlace { bytes, len }, padded_len)
            }
        }
        sealed_len
    }

    /// Opens `src`, ciphertext and tag, into the start of `dst`. Returns the length of the plaintext. Into `dst` goes
    /// only what is authentic: if the tag is wrong, it is left as it was or holds zeros.
    ///
    /// # Errors
    /// The tag is wrong, or `src` is too short to have one, or longer than any packet.
    ///
    /// # Panics
    /// Before anything is written: `dst` is shorter than the plaintext.
    #[inline]
    pub fn open_to(
        &self,
        counter: u64,
        src_with_tag: &[u8],
        dst: &mut [u8],
    ) -> Result<usize, BadTag> {
        let (src, tag) = split_tag(src_with_tag)?;
        let len = src.len();
        assert_room(len, dst.len());
        let dst = &mut dst[..len];
        match &self.0 {
            Inner::Ring(key) => {
                dst.copy_from_slice(src);
                key.open(counter, dst, tag)?;
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(key) => {
                let (source, target) = (src, dst);
                let tag = u128::from_le_bytes(tag);
                key.open(counter, &mut Placement::Apart { source, target }, len, tag)?;
            }
        }
        Ok(len)
    }

    /// Seals a batch of packets. Short ones that follow each other cost much less than one by one.
    pub fn seal_batch(&self, packets: &mut [Sealing<'_>]) {
        match &self.0 {
            Inner::Ring(_) => {
                for packet in packets {
                    self.seal_padded_to(packet.counter, packet.src, packet.padded_len, packet.dst);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(key) => key.seal_batch(packets),
        }
    }

    /// Opens a batch of packets; [`Opening::opened`] says for each whether its tag was right. Short ones that follow
    /// each other cost much less than one by one.
    pub fn open_batch(&self, packets: &mut [Opening<'_>]) {
        match &self.0 {
            Inner::Ring(_) => {
                for packet in packets {
                    let opened = self.open_to(packet.counter, packet.src_with_tag, packet.dst);
                    packet.is_authentic = opened.is_ok();
                }
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(key) => key.open_batch(packets),
        }
    }

    /// Opens `buf`, ciphertext and tag, where it lies. Returns the length of the plaintext. If the tag is wrong, the
    /// ciphertext is left as it was or zeros.
    ///
    /// # Errors
    /// The tag is wrong, or `buf` is too short to have one, or longer than any packet.
    #[inline]
    pub fn open_in_place(&self, counter: u64, buf: &mut [u8]) -> Result<usize, BadTag> {
        let (src, tag) = split_tag(buf)?;
        let len = src.len();
        let bytes = &mut buf[..len];
        match &self.0 {
            Inner::Ring(key) => key.open(counter, bytes, tag)?,
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(key) => {
                let tag = u128::from_le_bytes(tag);
                key.open(counter, &mut Placement::InPlace { bytes, len }, len, tag)?;
            }
        }
        Ok(len)
    }
}

/// A packet to seal in a batch, as in [`Key::seal_padded_to`].
#[derive(Debug)]
pub struct Sealing<'a> {
    counter: u64,
    src: &'a [u8],
    padded_len: usize,
    dst: &'a mut [u8],
}

impl<'a> Sealing<'a> {
    /// `src` and zeros after it, `padded_len` bytes together, into the start of `dst`.
    ///
    /// # Panics
    /// As [`Key::seal_padded_to`].
    #[inline]
    pub fn new(counter: u64, src: &'a [u8], padded_len: usize, dst: &'a mut [u8]) -> Self {
        checked_sealed_len(src.len(), padded_len, dst.len());
        Sealing {
            counter,
            src,
            padded_len,
            dst,
        }
    }
}

/// A packet to open in a batch, as in [`Key::open_to`].
#[derive(Debug)]
pub struct Opening<'a> {
    counter: u64,
    src_with_tag: &'a [u8],
    dst: &'a mut [u8],
    is_authentic: bool,
}

impl<'a> Opening<'a> {
    /// Ciphertext and tag, into the start of `dst`.
    ///
    /// # Errors
    /// `src_with_tag` is too short to have a tag, or longer than any packet.
    ///
    /// # Panics
    /// As [`Key::open_to`].
    #[inline]
    pub fn new(counter: u64, src_with_tag: &'a [u8], dst: &'a mut [u8]) -> Result<Self, BadTag> {
        let (src, _) = split_tag(src_with_tag)?;
        assert_room(src.len(), dst.len());
        Ok(Opening {
            counter,
            src_with_tag,
            dst,
            is_authentic: false,
        })
    }

    /// The length of the plaintext, once [`Key::open_batch`] has opened it.
    ///
    /// # Errors
    /// The tag is wrong, or nobody has opened the packet.
    #[inline]
    pub fn opened(&self) -> Result<usize, BadTag> {
        if self.is_authentic {
            Ok(self.src_with_tag.len() - TAG_LEN)
        } else {
            Err(BadTag)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

/// What a plaintext is sealed to, once there is room for it.
#[inline]
fn checked_sealed_len(len: usize, padded_len: usize, room: usize) -> usize {
    assert!(
        len <= padded_len && padded_len <= PLAINTEXT_MAX,
        "{len} bytes cannot be padded to {padded_len}"
    );
    let sealed_len = padded_len + TAG_LEN;
    assert!(
        room >= sealed_len,
        "no room: the sealed packet has {sealed_len} bytes, the buffer {room}"
    );
    sealed_len
}

#[inline]
fn assert_room(len: usize, room: usize) {
    assert!(
        room >= len,
        "no room: the plaintext has {len} bytes, the buffer {room}"
    );
}

/// Ciphertext and tag.
#[inline]
fn split_tag(sealed: &[u8]) -> Result<(&[u8], [u8; TAG_LEN]), BadTag> {
    let Some((text, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
        return Err(BadTag);
    };
    if text.len() > PLAINTEXT_MAX {
        return Err(BadTag);
    }
    Ok((text, *tag))
}
