//! ChaCha20 keystream: sixteen blocks side by side for long packets, four blocks per register set for short ones.

use core::arch::x86_64::{
    __m512i, _mm_setr_epi32, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_rol_epi32,
    _mm512_set1_epi32, _mm512_setr_epi32, _mm512_shuffle_epi32, _mm512_shuffle_i32x4,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

use super::mem;

/// "expand 32-byte k".
const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Two rounds each.
const DOUBLE_ROUNDS: usize = 10;

/// The key's eight words.
pub(super) type Words = [u32; 8];

/// One step of a quarter round, on every set in turn, so that neighbouring instructions do not wait for each other.
macro_rules! step {
    ($by:literal: $([$a:expr, $b:expr, $d:expr])+) => {
        $($a = _mm512_add_epi32($a, $b);)+
        $($d = _mm512_xor_si512($d, $a);)+
        $($d = _mm512_rol_epi32::<$by>($d);)+
    };
}

/// Quarter rounds side by side.
macro_rules! quarters {
    ($([$a:expr, $b:expr, $c:expr, $d:expr])+) => {
        step!(16: $([$a, $b, $d])+);
        step!(12: $([$c, $d, $b])+);
        step!(8: $([$a, $b, $d])+);
        step!(7: $([$c, $d, $b])+);
    };
}

/// Which blocks of which packets a pass makes: a packet's counter and a block's number per lane.
#[derive(Clone, Copy, Default)]
pub(super) struct Places {
    blocks: [u32; 16],
    counters_low: [u32; 16],
    counters_high: [u32; 16],
}

impl Places {
    #[inline]
    pub(super) fn set(&mut self, lane: usize, counter: u64, block: u32) {
        self.blocks[lane] = block;
        self.counters_low[lane] = counter as u32;
        self.counters_high[lane] = (counter >> 32) as u32;
    }
}

/// Keystream blocks `block` to `block + 15` of a packet.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn sixteen(key: &Words, counter: u64, block: u32) -> [__m512i; 16] {
    let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let blocks = _mm512_add_epi32(_mm512_set1_epi32(block.cast_signed()), lane);
    let low = _mm512_set1_epi32(counter as i32);
    let high = _mm512_set1_epi32((counter >> 32) as i32);
    sixteen_of(key, [blocks, _mm512_set1_epi32(0), low, high])
}

/// Sixteen keystream blocks of several packets.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn sixteen_places(key: &Words, places: &Places) -> [__m512i; 16] {
    let blocks = mem::load_half_words(&places.blocks);
    let low = mem::load_half_words(&places.counters_low);
    let high = mem::load_half_words(&places.counters_high);
    sixteen_of(key, [blocks, _mm512_set1_epi32(0), low, high])
}

/// Sixteen keystream blocks, from the last four words of their states.
#[target_feature(enable = "avx512f")]
#[inline]
fn sixteen_of(key: &Words, places: [__m512i; 4]) -> [__m512i; 16] {
    let mut initial = [_mm512_set1_epi32(0); 16];
    for i in 0..4 {
        initial[i] = _mm512_set1_epi32(SIGMA[i].cast_signed());
        initial[12 + i] = places[i];
    }
    for i in 0..8 {
        initial[4 + i] = _mm512_set1_epi32(key[i].cast_signed());
    }
    let mut v = initial;
    for _ in 0..DOUBLE_ROUNDS {
        quarters!(
            [v[0], v[4], v[8], v[12]] [v[1], v[5], v[9], v[13]]
            [v[2], v[6], v[10], v[14]] [v[3], v[7], v[11], v[15]]
        );
        quarters!(
            [v[0], v[5], v[10], v[15]] [v[1], v[6], v[11], v[12]]
            [v[2], v[7], v[8], v[13]] [v[3], v[4], v[9], v[14]]
        );
    }
    for i in 0..16 {
        v[i] = _mm512_add_epi32(v[i], initial[i]);
    }
    transposed(&v)
}

/// Sixteen vectors of one word per block become sixteen blocks.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(v: &[__m512i; 16]) -> [__m512i; 16] {
    // `quads[q][i]`: words 4q..4q+4 of block i in the first 128 bits, of block 4 + i in the second, and so on.
    let mut quads = [[_mm512_set1_epi32(0); 4]; 4];
    for q in 0..4 {
        let low01 = _mm512_unpacklo_epi32(v[4 * q], v[4 * q + 1]);
        let high01 = _mm512_unpackhi_epi32(v[4 * q], v[4 * q + 1]);
        let low23 = _mm512_unpacklo_epi32(v[4 * q + 2], v[4 * q + 3]);
        let high23 = _mm512_unpackhi_epi32(v[4 * q + 2], v[4 * q + 3]);
        quads[q] = [
            _mm512_unpacklo_epi64(low01, low23),
            _mm512_unpackhi_epi64(low01, low23),
            _mm512_unpacklo_epi64(high01, high23),
            _mm512_unpackhi_epi64(high01, high23),
        ];
    }
    let mut blocks = [_mm512_set1_epi32(0); 16];
    for i in 0..4 {
        let four = gathered(quads[0][i], quads[1][i], quads[2][i], quads[3][i]);
        for j in 0..4 {
            blocks[4 * j + i] = four[j];
        }
    }
    blocks
}

/// Keystream blocks `block` to `block + 4 * N - 1` of a packet. A vector holds one row of the state of four blocks.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn fours<const N: usize>(key: &Words, counter: u64, block: u32) -> [[__m512i; 4]; N] {
    let zero = _mm512_set1_epi32(0);
    let row = [
        row_of([SIGMA[0], SIGMA[1], SIGMA[2], SIGMA[3]]),
        row_of([key[0], key[1], key[2], key[3]]),
        row_of([key[4], key[5], key[6], key[7]]),
        row_of([block, 0, counter as u32, (counter >> 32) as u32]),
    ];
    let mut last = [zero; N];
    for (i, last) in last.iter_mut().enumerate() {
        let i = 4 * i as i32;
        let lane = _mm512_setr_epi32(i, 0, 0, 0, i + 1, 0, 0, 0, i + 2, 0, 0, 0, i + 3, 0, 0, 0);
        *last = _mm512_add_epi32(row[3], lane);
    }
    let (mut a, mut b, mut c, mut d) = ([row[0]; N], [row[1]; N], [row[2]; N], last);
    for _ in 0..DOUBLE_ROUNDS {
        rows_rounded(&mut a, &mut b, &mut c, &mut d);
        // To the diagonals, and back. The row that is ready last is the one that stays.
        for i in 0..N {
            a[i] = _mm512_shuffle_epi32::<0b10_01_00_11>(a[i]);
            d[i] = _mm512_shuffle_epi32::<0b01_00_11_10>(d[i]);
            c[i] = _mm512_shuffle_epi32::<0b00_11_10_01>(c[i]);
        }
        rows_rounded(&mut a, &mut b, &mut c, &mut d);
        for i in 0..N {
            a[i] = _mm512_shuffle_epi32::<0b00_11_10_01>(a[i]);
            d[i] = _mm512_shuffle_epi32::<0b01_00_11_10>(d[i]);
            c[i] = _mm512_shuffle_epi32::<0b10_01_00_11>(c[i]);
        }
    }
    let mut out = [[zero; 4]; N];
    for i in 0..N {
        out[i] = gathered(
            _mm512_add_epi32(a[i], row[0]),
            _mm512_add_epi32(b[i], row[1]),
            _mm512_add_epi32(c[i], row[2]),
            _mm512_add_epi32(d[i], last[i]),
        );
    }
    out
}

/// A quarter round on every column of every block.
#[target_feature(enable = "avx512f")]
#[inline]
fn rows_rounded<const N: usize>(
    a: &mut [__m512i; N],
    b: &mut [__m512i; N],
    c: &mut [__m512i; N],
    d: &mut [__m512i; N],
) {
    for i in 0..N {
        step!(16: [a[i], b[i], d[i]]);
    }
    for i in 0..N {
        step!(12: [c[i], d[i], b[i]]);
    }
    for i in 0..N {
        step!(8: [a[i], b[i], d[i]]);
    }
    for i in 0..N {
        step!(7: [c[i], d[i], b[i]]);
    }
}

/// The same four words for each of four blocks.
#[target_feature(enable = "avx512f")]
#[inline]
fn row_of(words: [u32; 4]) -> __m512i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d))
}

/// The first 128 bits of each, then the second, and so on: rows of four blocks become four blocks.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn gathered(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let ab01 = _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b);
    let ab23 = _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b);
    let cd01 = _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d);
    let cd23 = _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d);
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab01, cd01),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab01, cd01),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab23, cd23),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab23, cd23),
    ]
}
