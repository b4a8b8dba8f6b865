//! The parts, held against vectors of RFC 8439 and slow arithmetic. Where there is no AVX-512 they have nothing to do.
#![allow(unsafe_code)]

use super::*;
use crate::PLAINTEXT_MAX;
use crate::poly1305::tests::{bytes, check_extremes, check_lengths, check_vectors};

/// r at the start of a vector.
fn key_block(r: u128) -> [u8; WIDTH] {
    let mut block = [0; WIDTH];
    block[..BLOCK].copy_from_slice(&r.to_le_bytes());
    block
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn vector_tag(r: u128, message: &[u8], last: u128, pad: u128, len_hint: usize) -> u128 {
    poly::Powers::new(mem::load(&key_block(r)), len_hint).tag(message, last, pad)
}

/// Poly1305 on vectors, with the power for long messages and without.
fn check(check: fn(&crate::poly1305::tests::Tag<'_>)) {
    if !available() {
        return;
    }
    for len_hint in [0, PLAINTEXT_MAX] {
        check(&|r, message, last, pad| {
            // SAFETY:
            // - `available` said yes to each of the features that `vector_tag` is compiled for.
            unsafe { vector_tag(r, message, last, pad, len_hint) }
        });
    }
}

#[test]
fn poly1305_vectors_of_rfc_8439_come_out_of_the_lanes() {
    check(check_vectors);
}

#[test]
fn extreme_numbers_make_no_difference_in_the_lanes() {
    check(check_extremes);
}

#[test]
fn every_length_comes_out_of_the_lanes() {
    check(check_lengths);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn keystream(key: &Key, counter: u64, block: u32, wanted: usize) -> Vec<u8> {
    let pass = Pass::new(&key.words, counter, block, wanted);
    let mut out = vec![0; pass.count * WIDTH];
    for (bytes, block) in out.as_chunks_mut().0.iter_mut().zip(pass.blocks) {
        mem::store(bytes, block);
    }
    out
}

/// The block function as RFC 8439 writes it.
fn slow_block(key: &Key, counter: u64, block: u32) -> [u8; WIDTH] {
    let mut initial = [0; 16];
    initial[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    initial[4..12].copy_from_slice(&key.words);
    initial[12..].copy_from_slice(&[block, 0, counter as u32, (counter >> 32) as u32]);
    let mut state = initial;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        let mut step = |x: usize, y: usize, z: usize, by: u32| {
            state[x] = u32::wrapping_add(state[x], state[y]);
            state[z] = (state[z] ^ state[x]).rotate_left(by);
        };
        step(a, b, d, 16);
        step(c, d, b, 12);
        step(a, b, d, 8);
        step(c, d, b, 7);
    };
    for _ in 0..10 {
        for i in 0..4 {
            quarter(i, i + 4, i + 8, i + 12);
        }
        for i in 0..4 {
            quarter(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12);
        }
    }
    let mut out = [0; WIDTH];
    for (i, bytes) in out.as_chunks_mut().0.iter_mut().enumerate() {
        *bytes = u32::wrapping_add(state[i], initial[i]).to_le_bytes();
    }
    out
}

#[test]
fn chacha20_vectors_of_rfc_8439_come_out_of_the_slow_one() {
    // Appendix A.1, vectors 1, 2 and 5: the others have nonces that WireGuard cannot have, or differ in the key alone.
    let Some(zero) = Key::new(&[0; 32]) else {
        return;
    };
    let first = bytes(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7
         da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    );
    let second = bytes(
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
         29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    );
    let with_nonce_2 = bytes(
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7
         8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    );

    assert_eq!(slow_block(&zero, 0, 0)[..], first);
    assert_eq!(slow_block(&zero, 0, 1)[..], second);
    assert_eq!(slow_block(&zero, 2 << 56, 0)[..], with_nonce_2);
}

#[test]
fn every_pass_makes_the_blocks_that_it_says() {
    let bytes: [u8; 32] = core::array::from_fn(|i| (i * 37 + 11) as u8);
    let Some(key) = Key::new(&bytes) else {
        return;
    };
    for counter in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        for block in [0, 1, 17, u32::MAX - 15] {
            for wanted in 1..=20 {
                // SAFETY:
                // - a `Key` exists only where `available` said yes to each of the features.
                let actual = unsafe { keystream(&key, counter, block, wanted) };
                assert!(actual.len() >= wanted.min(16) * WIDTH);
                for (i, actual) in actual.chunks(WIDTH).enumerate() {
                    let expected = slow_block(&key, counter, block + i as u32);
                    assert_eq!(
                        actual, expected,
                        "counter {counter}, block {block}, {i} of {wanted}"
                    );
                }
            }
        }
    }
}
