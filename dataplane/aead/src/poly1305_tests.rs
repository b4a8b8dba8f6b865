//! Poly1305 beside a slow one, and its vectors from RFC 8439.

use super::*;

/// 2^130 - 5 in words of 64 bits, low first.
const MODULUS: [u64; 3] = [u64::MAX - 4, u64::MAX, 3];

/// One way to compute Poly1305: unclamped r, whole blocks, the last block, and the pad.
pub(crate) type Tag<'a> = dyn Fn(u128, &[u8], u128, u128) -> u128 + 'a;

fn is_below(a: [u64; 3], b: [u64; 3]) -> bool {
    [a[2], a[1], a[0]] < [b[2], b[1], b[0]]
}

/// `a + b` modulo 2^130 - 5, for both below it.
fn plus(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    let mut sum = [0; 3];
    let mut carry = 0;
    for i in 0..3 {
        let word = u128::from(a[i]) + u128::from(b[i]) + carry;
        (sum[i], carry) = (word as u64, word >> 64);
    }
    if is_below(sum, MODULUS) {
        return sum;
    }
    let mut borrow = false;
    for i in 0..3 {
        let (word, first) = sum[i].overflowing_sub(MODULUS[i]);
        let (word, second) = word.overflowing_sub(u64::from(borrow));
        (sum[i], borrow) = (word, first || second);
    }
    sum
}

/// As the RFC defines it, multiplying by doubling and adding.
pub(crate) fn slow_tag(r: u128, message: &[u8], last: u128, pad: u128) -> u128 {
    let r = r & CLAMP;
    let mut blocks: Vec<u128> = message
        .chunks(BLOCK)
        .map(|chunk| {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            u128::from_le_bytes(block)
        })
        .collect();
    blocks.push(last);
    let mut sum = [0; 3];
    for block in blocks {
        let factor = plus(sum, [block as u64, (block >> 64) as u64, 1]);
        sum = [0; 3];
        for bit in (0..128).rev() {
            sum = plus(sum, sum);
            if r >> bit & 1 == 1 {
                sum = plus(sum, factor);
            }
        }
    }
    (u128::from(sum[0]) | u128::from(sum[1]) << 64).wrapping_add(pad)
}

fn scalar_tag(r: u128, message: &[u8], last: u128, pad: u128) -> u128 {
    Poly1305::new(r).tag(message, last, pad)
}

/// Hexadecimal digits, with spaces where they help the eye.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}

pub(crate) fn number(hex: &str) -> u128 {
    u128::from_le_bytes(bytes(hex).try_into().expect("16 bytes"))
}

/// r, pad, blocks, tag: RFC 8439 appendix A.3, the vectors of whole blocks, and the Poly1305 part of section 2.8.2.
const VECTORS: [(&str, &str, &str, &str); 9] = [
    // 1
    (
        "00000000000000000000000000000000",
        "00000000000000000000000000000000",
        "00000000000000000000000000000000 00000000000000000000000000000000
         00000000000000000000000000000000 00000000000000000000000000000000",
        "00000000000000000000000000000000",
    ),
    // 5: the sum passes 2^130 - 5
    (
        "02000000000000000000000000000000",
        "00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff",
        "03000000000000000000000000000000",
    ),
    // 6: adding the pad passes 2^128
    (
        "02000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff",
        "02000000000000000000000000000000",
        "03000000000000000000000000000000",
    ),
    // 7: a carry into every limb
    (
        "01000000000000000000000000000000",
        "00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff f0ffffffffffffffffffffffffffffff
         11000000000000000000000000000000",
        "05000000000000000000000000000000",
    ),
    // 8: the sum is the modulus
    (
        "01000000000000000000000000000000",
        "00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff fbfefefefefefefefefefefefefefefe
         01010101010101010101010101010101",
        "00000000000000000000000000000000",
    ),
    // 9: the sum is just below it
    (
        "02000000000000000000000000000000",
        "00000000000000000000000000000000",
        "fdffffffffffffffffffffffffffffff",
        "faffffffffffffffffffffffffffffff",
    ),
    // 10
    (
        "01000000000000000400000000000000",
        "00000000000000000000000000000000",
        "e33594d7505e43b90000000000000000 33 94d7505e4379cd01 00000000000000
         00000000000000000000000000000000 01000000000000000000000000000000",
        "14000000000000005500000000000000",
    ),
    // 11
    (
        "01000000000000000400000000000000",
        "00000000000000000000000000000000",
        "e33594d7505e43b90000000000000000 33 94d7505e4379cd01 00000000000000
         00000000000000000000000000000000",
        "13000000000000000000000000000000",
    ),
    // 2.8.2: additional data, ciphertext, and both lengths
    (
        "7bac2b252db447af09b67a55a4e95584",
        "0ae1d6731075d9eb2a9375783ed553ff",
        "50515253c0c1c2c3c4c5c6c700000000
         d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6
         3dbea45e8ca9671282fafb69da92728b 1a71de0a9e060b2905d6a5b67ecd3b36
         92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc
         3ff4def08e4b7a9de576d26586cec64b 61160000000000000000000000000000
         0c000000000000007200000000000000",
        "1ae10b594f09e26a7e902ecbd0600691",
    ),
];

/// Holds `tag` against the RFC.
pub(crate) fn check_vectors(tag: &Tag<'_>) {
    for (r, pad, message, expected) in VECTORS {
        let message = bytes(message);
        let (rest, last) = message.split_last_chunk().expect("there is a block");
        let last = u128::from_le_bytes(*last);
        let actual = tag(number(r), rest, last, number(pad));
        assert_eq!(actual, number(expected), "r {r}, pad {pad}");
    }
}

/// Holds `tag` against the slow one: every number of blocks, with numbers that are extreme in every way there is.
pub(crate) fn check_extremes(tag: &Tag<'_>) {
    let limb = (1_u128 << 44) - 1;
    let extremes = [
        0,
        1,
        5,
        u128::MAX,
        u128::MAX - 1,
        u128::MAX - 4,
        u128::MAX - 5,
        1 << 127,
        limb,
        limb << 44,
        u128::MAX << 88,
        CLAMP,
        !CLAMP,
        0x0123_4567_89ab_cdef_fedc_ba98_7654_3210,
    ];
    let of = |i: usize| extremes[i % extremes.len()];
    for blocks in 0..=70 {
        for r in 0..extremes.len() {
            let uniform = of(blocks + r).to_le_bytes().repeat(blocks);
            let mixed: Vec<u8> = (0..blocks)
                .flat_map(|i| of(i * i + r).to_le_bytes())
                .collect();
            for message in [uniform, mixed] {
                let (last, pad) = (of(r + 3), of(r / 2 + blocks));
                let expected = slow_tag(of(r), &message, last, pad);
                assert_eq!(
                    tag(of(r), &message, last, pad),
                    expected,
                    "{blocks} blocks, r {r}"
                );
            }
        }
    }
}

/// Holds `tag` against the slow one: every length, so that every number of blocks meets every rest.
pub(crate) fn check_lengths(tag: &Tag<'_>) {
    let message: Vec<u8> = (0..1100_usize).map(|i| (i * i / 3 + i) as u8).collect();
    let (r, last, pad) = (u128::MAX / 7, u128::MAX / 5, u128::MAX / 3);
    for len in 0..message.len() {
        let expected = slow_tag(r, &message[..len], last, pad);
        assert_eq!(tag(r, &message[..len], last, pad), expected, "{len} bytes");
    }
}

#[test]
fn the_slow_one_is_right() {
    check_vectors(&slow_tag);
}

#[test]
fn rfc_8439_vectors_come_out() {
    check_vectors(&scalar_tag);
}

#[test]
fn extreme_numbers_make_no_difference() {
    check_extremes(&scalar_tag);
}

#[test]
fn every_length_comes_out() {
    check_lengths(&scalar_tag);
}
