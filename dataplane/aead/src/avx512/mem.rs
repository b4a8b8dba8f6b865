//! Vectors in and out of slices: with the doors in [`super`], all the `unsafe` there is.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_storeu_si512,
};

/// Bytes of a vector, and of a ChaCha20 block.
pub(super) const WIDTH: usize = 64;

/// 64 bytes as a vector.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load(bytes: &[u8; WIDTH]) -> __m512i {
    // SAFETY:
    // - `bytes` is valid for reading 64 bytes;
    // - the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 128 bytes as two vectors.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_two(bytes: &[u8; 2 * WIDTH]) -> [__m512i; 2] {
    // SAFETY:
    // - `bytes` is valid for reading 128 bytes, so both halves are for 64;
    // - the instruction asks for no alignment.
    unsafe {
        let at = bytes.as_ptr();
        [
            _mm512_loadu_si512(at.cast()),
            _mm512_loadu_si512(at.add(WIDTH).cast()),
        ]
    }
}

/// 256 bytes as four vectors.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_four(bytes: &[u8; 4 * WIDTH]) -> [__m512i; 4] {
    // SAFETY:
    // - `bytes` is valid for reading 256 bytes, so all quarters are for 64;
    // - the instruction asks for no alignment.
    unsafe {
        let at = bytes.as_ptr();
        [
            _mm512_loadu_si512(at.cast()),
            _mm512_loadu_si512(at.add(WIDTH).cast()),
            _mm512_loadu_si512(at.add(2 * WIDTH).cast()),
            _mm512_loadu_si512(at.add(3 * WIDTH).cast()),
        ]
    }
}

/// The first 64 bytes at most, and zeros in place of what is missing.
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
#[inline]
pub(super) fn load_up_to(bytes: &[u8]) -> __m512i {
    // SAFETY:
    // - the mask has one bit for each byte that is read and none beyond `bytes`;
    // - bytes without a bit are not accessed, so they may lie anywhere;
    // - the instruction asks for no alignment.
    unsafe { _mm512_maskz_loadu_epi8(mask(bytes.len()), bytes.as_ptr().cast()) }
}

/// Writes a vector over 64 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store(bytes: &mut [u8; WIDTH], vector: __m512i) {
    // SAFETY:
    // - `bytes` is valid for writing 64 bytes;
    // - the instruction asks for no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// Writes as much of a vector as there is room for.
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
#[inline]
pub(super) fn store_up_to(bytes: &mut [u8], vector: __m512i) {
    // SAFETY:
    // - the mask has one bit for each byte that is written and none beyond `bytes`;
    // - bytes without a bit are not accessed, so they may lie anywhere;
    // - the instruction asks for no alignment.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask(bytes.len()), vector) }
}

/// A bit for each of the first `len` bytes of a vector.
#[inline]
pub(super) fn mask(len: usize) -> u64 {
    if len >= WIDTH {
        u64::MAX
    } else {
        (1 << len) - 1
    }
}

/// Eight words as a vector.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_words(words: &[u64; 8]) -> __m512i {
    // SAFETY:
    // - `words` is valid for reading 64 bytes;
    // - the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Sixteen words of 32 bits as a vector.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_half_words(words: &[u32; 16]) -> __m512i {
    // SAFETY:
    // - `words` is valid for reading 64 bytes;
    // - the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// A vector as eight words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn words(vector: __m512i) -> [u64; 8] {
    let mut words = [0; 8];
    // SAFETY:
    // - `words` is valid for writing 64 bytes;
    // - the instruction asks for no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
    words
}
