//! ChaCha20-Poly1305 with AVX-512, for processors with its F, BW, VL, IFMA and VBMI2 parts (Ice Lake, Zen 4, and
//! later).
//!
//! One pass makes up to sixteen keystream blocks, the first of which is the Poly1305 key. Sealing writes the
//! ciphertext, then runs Poly1305 over it; opening runs Poly1305 first, and writes only what it has verified.
//!
//! Memory is touched in `mem` alone. No branch and no index depends on a key or on data, only on lengths.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_cvtsi128_si64, _mm_extract_epi64, _mm512_castsi512_si128,
    _mm512_extracti32x4_epi32, _mm512_setzero_si512, _mm512_xor_si512,
};

use zeroize::Zeroize;

use crate::placement::Placement;
use crate::poly1305::{BLOCK, Poly1305, length_block};
use crate::{BadTag, Opening, Sealing, TAG_LEN};
use mem::WIDTH;

mod batch;
mod chacha;
mod mem;
mod poly;

/// Poly1305 blocks up to which powers of r cost more than they save.
const FEW_BLOCKS: usize = 6;

/// Bytes of a packet whose keystream four blocks hold, with the one for the Poly1305 key.
const SHORT: usize = 3 * WIDTH;

/// A key, and the knowledge that this processor has what the kernels need.
pub(crate) struct Key {
    words: chacha::Words,
}

impl Drop for Key {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

/// Whether this processor has what the kernels need.
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("bmi2")
}

impl Key {
    /// `None` on a processor without AVX-512.
    pub(crate) fn new(bytes: &[u8; 32]) -> Option<Key> {
        if !available() {
            return None;
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Some(Key { words })
    }

    /// Encrypts the source, with zeros after it up to `len` bytes, into the target, and a tag behind.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn seal(&self, counter: u64, packet: &mut Placement<'_>, len: usize) {
        // SAFETY:
        // - a `Key` exists only where `available` said yes to each of the features that `seal` is compiled for.
        unsafe { seal(&self.words, counter, packet, len) }
    }

    /// Seals every packet of a batch.
    #[allow(unsafe_code)]
    pub(crate) fn seal_batch(&self, packets: &mut [Sealing<'_>]) {
        let mut rest = packets;
        while !rest.is_empty() {
            let run = short_run(rest, |packet| packet.padded_len);
            let (now, after) = rest.split_at_mut(run.max(1));
            rest = after;
            if run >= GROUP_MIN {
                // SAFETY:
                // - a `Key` exists only where `available` said yes to each of the features.
                unsafe { batch::seal(&self.words, now) }
                continue;
            }
            for packet in now {
                let len = packet.padded_len;
                let (source, target) = (packet.src, &mut *packet.dst);
                self.seal(
                    packet.counter,
                    &mut Placement::Apart { source, target },
                    len,
                );
            }
        }
    }

    /// Opens every packet of a batch that is authentic. All of them are long enough to have a tag.
    #[allow(unsafe_code)]
    pub(crate) fn open_batch(&self, packets: &mut [Opening<'_>]) {
        let mut rest = packets;
        while !rest.is_empty() {
            let run = short_run(rest, |packet| packet.src_with_tag.len() - TAG_LEN);
            let (now, after) = rest.split_at_mut(run.max(1));
            rest = after;
            if run >= GROUP_MIN {
                // SAFETY:
                // - a `Key` exists only where `available` said yes to each of the features.
                unsafe { batch::open(&self.words, now) }
                continue;
            }
            for packet in now {
                let Some((source, tag)) = packet.src_with_tag.split_last_chunk() else {
                    continue;
                };
                let (len, tag) = (source.len(), u128::from_le_bytes(*tag));
                let target = &mut *packet.dst;
                let opened = self.open(
                    packet.counter,
                    &mut Placement::Apart { source, target },
                    len,
                    tag,
                );
                packet.is_authentic = opened.is_ok();
            }
        }
    }

    /// Decrypts what is before the tag, if the tag is right.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn open(
        &self,
        counter: u64,
        packet: &mut Placement<'_>,
        len: usize,
        tag: u128,
    ) -> Result<(), BadTag> {
        // SAFETY:
        // - a `Key` exists only where `available` said yes to each of the features that `open` is compiled for.
        unsafe { open(&self.words, counter, packet, len, tag) }
    }
}

/// Fewer short packets one after the other are faster alone than as a group.
const GROUP_MIN: usize = 3;

/// The packets from the first on that make a group: short ones, as many as fit.
fn short_run<T>(packets: &[T], len: impl Fn(&T) -> usize) -> usize {
    let candidates = packets.iter().take(batch::GROUP);
    candidates
        .take_while(|packet| len(packet) <= batch::SHORT)
        .count()
}

/// Keystream blocks of one pass, and how many of them there are.
struct Pass {
    blocks: [__m512i; 16],
    count: usize,
}

impl Pass {
    /// Blocks from number `block` on: `wanted` of them, or as many as one pass makes. Some more may come out.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn new(key: &chacha::Words, counter: u64, block: u32, wanted: usize) -> Pass {
        let zero = _mm512_setzero_si512();
        let mut blocks = [zero; 16];
        let count = match wanted {
            0..=4 => {
                let [four] = chacha::fours(key, counter, block);
                blocks[..4].copy_from_slice(&four);
                4
            }
            5..=8 => {
                let eight = chacha::fours::<2>(key, counter, block);
                blocks[..8].copy_from_slice(eight.as_flattened());
                8
            }
            9..=12 => {
                let twelve = chacha::fours::<3>(key, counter, block);
                blocks[..12].copy_from_slice(twelve.as_flattened());
                12
            }
            _ => {
                blocks = chacha::sixteen(key, counter, block);
                16
            }
        };
        Pass { blocks, count }
    }

    /// Blocks for what lies from offset `at` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn at(key: &chacha::Words, counter: u64, at: usize, len: usize) -> Pass {
        let block = 1 + (at / WIDTH) as u32;
        Pass::new(key, counter, block, (len - at).div_ceil(WIDTH))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn seal(key: &chacha::Words, counter: u64, packet: &mut Placement<'_>, len: usize) {
    if len <= SHORT {
        let [first] = chacha::fours(key, counter, 0);
        let mac = Mac::new(first[0], len);
        add_keystream(&first[1..], packet, 0, len);
        return mac.seal(packet, len);
    }
    let first = Pass::new(key, counter, 0, 1 + len.div_ceil(WIDTH));
    let mac = Mac::new(first.blocks[0], len);
    let mut at = add_keystream(&first.blocks[1..first.count], packet, 0, len);
    while at < len {
        let next = Pass::at(key, counter, at, len);
        at = add_keystream(&next.blocks[..next.count], packet, at, len);
    }
    mac.seal(packet, len);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn open(
    key: &chacha::Words,
    counter: u64,
    packet: &mut Placement<'_>,
    len: usize,
    tag: u128,
) -> Result<(), BadTag> {
    if len <= SHORT {
        let [first] = chacha::fours(key, counter, 0);
        Mac::new(first[0], len).verify(packet, len, tag)?;
        add_keystream(&first[1..], packet, 0, len);
        return Ok(());
    }
    let first = Pass::new(key, counter, 0, 1 + len.div_ceil(WIDTH));
    let mac = Mac::new(first.blocks[0], len);
    let mut at = (first.count - 1) * WIDTH;
    if at >= len {
        mac.verify(packet, len, tag)?;
        add_keystream(&first.blocks[1..first.count], packet, 0, len);
        return Ok(());
    }
    // The second pass does not wait for the powers of r, which have just begun.
    let mut next = Pass::at(key, counter, at, len);
    mac.verify(packet, len, tag)?;
    add_keystream(&first.blocks[1..first.count], packet, 0, len);
    loop {
        at = add_keystream(&next.blocks[..next.count], packet, at, len);
        if at >= len {
            return Ok(());
        }
        next = Pass::at(key, counter, at, len);
    }
}

/// Adds keystream blocks from offset `at` on, a multiple of 64, and says where they end. `len` bytes are written at
/// most.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn add_keystream(
    keystream: &[__m512i],
    packet: &mut Placement<'_>,
    at: usize,
    len: usize,
) -> usize {
    let end = at + keystream.len() * WIDTH;
    let whole_end = packet.source().len().min(len).min(end) / WIDTH * WIDTH;
    // Empty where the source ends before `at`.
    let whole = at..whole_end.max(at);
    match packet {
        Placement::Apart { source, target } => {
            let source = source.get(whole.clone()).unwrap_or_default();
            let source = source.as_chunks::<WIDTH>().0;
            let target = target[whole.clone()].as_chunks_mut::<WIDTH>().0;
            for ((source, target), block) in source.iter().zip(target).zip(keystream) {
                mem::store(target, _mm512_xor_si512(mem::load(source), *block));
            }
        }
        Placement::InPlace { bytes, .. } => {
            let bytes = bytes[whole.clone()].as_chunks_mut::<WIDTH>().0;
            for (bytes, block) in bytes.iter_mut().zip(keystream) {
                mem::store(bytes, _mm512_xor_si512(mem::load(bytes), *block));
            }
        }
    }
    let mut tail = whole.end;
    while tail < len.min(end) {
        let text = mem::load_up_to(packet.source().get(tail..).unwrap_or_default());
        let text = _mm512_xor_si512(text, keystream[(tail - at) / WIDTH]);
        mem::store_up_to(&mut packet.target()[tail..len], text);
        tail += WIDTH;
    }
    end
}

/// Poly1305 with the key of one packet, in the way that suits its length.
struct Mac {
    key: __m128i,
    pad: u128,
    powers: Option<poly::Powers>,
}

impl Mac {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn new(key_block: __m512i, len: usize) -> Mac {
        Mac {
            key: _mm512_castsi512_si128(key_block),
            pad: number(_mm512_extracti32x4_epi32::<1>(key_block)),
            powers: (len > (FEW_BLOCKS - 1) * BLOCK).then(|| poly::Powers::new(key_block, len)),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn tag(&self, ciphertext: &[u8]) -> u128 {
        let last = length_block(ciphertext.len());
        match &self.powers {
            Some(powers) => powers.tag(ciphertext, last, self.pad),
            None => Poly1305::new(number(self.key)).tag(ciphertext, last, self.pad),
        }
    }

    /// Puts the tag behind a ciphertext that is in its place.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn seal(&self, packet: &mut Placement<'_>, len: usize) {
        let (text, room) = packet.target().split_at_mut(len);
        room[..TAG_LEN].copy_from_slice(&self.tag(text).to_le_bytes());
    }

    /// Says whether the tag belongs to the ciphertext. Numbers are compared without a look at where they differ.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn verify(&self, packet: &Placement<'_>, len: usize, tag: u128) -> Result<(), BadTag> {
        if self.tag(&packet.source()[..len]) == tag {
            Ok(())
        } else {
            Err(BadTag)
        }
    }
}

/// Sixteen bytes as a number, little end first.
#[target_feature(enable = "sse4.1")]
#[inline]
fn number(vector: __m128i) -> u128 {
    let low = _mm_cvtsi128_si64(vector).cast_unsigned();
    let high = _mm_extract_epi64::<1>(vector).cast_unsigned();
    u128::from(low) | u128::from(high) << 64
}

#[cfg(test)]
#[path = "avx512/tests.rs"]
mod tests;
