//! Poly1305 on eight blocks at a time, with the 52-bit multipliers, in limbs of 44, 44 and 42 bits.
//!
//! Lane `i` takes block `i` of every group of eight, and multiplies by r^8 from group to group. At the end every lane
//! is multiplied by the power of r that its last block still lacks, and the lanes are added. The last group may be
//! short: then the lanes that it does not reach lack more.

use core::arch::x86_64::{
    __m512i, _mm_unpackhi_epi64, _mm512_add_epi64, _mm512_and_si512, _mm512_broadcastq_epi64,
    _mm512_castsi512_si128, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_blend_epi64,
    _mm512_mask_set1_epi64, _mm512_maskz_set1_epi64, _mm512_or_si512, _mm512_permutex_epi64,
    _mm512_permutex2var_epi64, _mm512_permutexvar_epi64, _mm512_reduce_add_epi64,
    _mm512_set1_epi64, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_shrdi_epi64,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
};

use super::mem::{self, WIDTH};
use crate::poly1305::{self, BLOCK, CLAMP};

const LIMB: i64 = (1 << 44) - 1;
const TOP_LIMB: i64 = (1 << 42) - 1;
/// 2^128 in the third limb: what a whole block has above its sixteen bytes.
pub(super) const HIGH_BIT: i64 = 1 << 40;
/// Bytes of a message that repays one power more.
const LONG: usize = 768;
/// Bytes of a group of eight blocks.
const GROUP: usize = 8 * BLOCK;

/// Eight numbers below 2^130 and a little, lane by lane.
#[derive(Clone, Copy)]
pub(super) struct Limbs([__m512i; 3]);

/// Eight factors, with the multiples by 20 that bring what passes 2^132 back down: 2^132 = 4 * 2^130 = 4 * 5.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    limbs: [__m512i; 3],
    wrapped: [__m512i; 2],
}

/// Products under way: the low 52 bits of each, and what is above them.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    low: [__m512i; 3],
    high: [__m512i; 3],
}

/// The powers of one packet's r.
pub(super) struct Powers {
    /// Lane `i` holds r^(i + 1).
    ladder: Limbs,
    eighth: Factor,
    /// For messages that are long enough to repay it.
    sixteenth: Option<Factor>,
}

impl Sum {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn of(addend: Limbs) -> Sum {
        Sum {
            low: addend.0,
            high: [_mm512_setzero_si512(); 3],
        }
    }

    /// Adds `limbs * factor`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn plus(self, limbs: Limbs, factor: &Factor) -> Sum {
        let Limbs([h0, h1, h2]) = limbs;
        let [r0, r1, r2] = factor.limbs;
        let [s1, s2] = factor.wrapped;
        let Sum { mut low, mut high } = self;
        macro_rules! add_product {
            ($limb:literal: $h:ident * $r:ident) => {
                low[$limb] = _mm512_madd52lo_epu64(low[$limb], $h, $r);
                high[$limb] = _mm512_madd52hi_epu64(high[$limb], $h, $r);
            };
        }
        add_product!(2: h1 * r1);
        add_product!(0: h1 * s2);
        add_product!(1: h1 * r0);
        add_product!(2: h2 * r0);
        add_product!(0: h2 * s1);
        add_product!(1: h2 * s2);
        add_product!(2: h0 * r2);
        add_product!(0: h0 * r0);
        add_product!(1: h0 * r1);
        Sum { low, high }
    }

    /// High halves weigh 2^52 = 2^44 * 2^8 as much as the low halves beside them; above the top limb, where 2^130 = 5,
    /// 2^52 = 2^42 * 2^10.
    ///
    /// With two products in a sum no step passes 64 bits, nor a small product 52: limbs have 45, 44 and 42 bits,
    /// wrapped factors 49, so that a low half is below 2^55, a high one below 2^41, and the top high one below 2^38.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn carried(self) -> Limbs {
        let limb = _mm512_set1_epi64(LIMB);
        let top_limb = _mm512_set1_epi64(TOP_LIMB);
        let Sum { low, high } = self;
        let d0 = small_product(low[0], high[2], 5 << 10);
        let d1 = _mm512_add_epi64(low[1], _mm512_slli_epi64::<8>(high[0]));
        let d2 = _mm512_add_epi64(low[2], _mm512_slli_epi64::<8>(high[1]));
        let d1 = _mm512_add_epi64(d1, _mm512_srli_epi64::<44>(d0));
        let d2 = _mm512_add_epi64(d2, _mm512_srli_epi64::<44>(d1));
        let over = _mm512_srli_epi64::<42>(d2);
        Limbs([
            small_product(_mm512_and_si512(d0, limb), over, 5),
            _mm512_and_si512(d1, limb),
            _mm512_and_si512(d2, top_limb),
        ])
    }
}

impl Factor {
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn new(limbs: Limbs) -> Factor {
        let Limbs([_, middle, top]) = limbs;
        let zero = _mm512_setzero_si512();
        Factor {
            limbs: limbs.0,
            wrapped: [
                small_product(zero, middle, 20),
                small_product(zero, top, 20),
            ],
        }
    }
}

/// `addend + x * factor`, for a product below 2^52. Spelled with shifts, it comes out as two 32-bit multiplications.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn small_product(addend: __m512i, x: __m512i, factor: i64) -> __m512i {
    _mm512_madd52lo_epu64(addend, x, _mm512_set1_epi64(factor))
}

impl Limbs {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn zero() -> Limbs {
        Limbs([_mm512_setzero_si512(); 3])
    }

    /// `self * factor + addend`. Limbs may have up to 46 bits, and come out with 45 at most.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn times_plus(self, factor: &Factor, addend: Limbs) -> Limbs {
        Sum::of(addend).plus(self, factor).carried()
    }

    /// `other` in the lanes of the mask.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn blended(self, mask: u8, other: Limbs) -> Limbs {
        let mut out = self;
        for i in 0..3 {
            out.0[i] = _mm512_mask_blend_epi64(mask, self.0[i], other.0[i]);
        }
        out
    }

    /// Lane by lane, without carrying.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn added(self, other: Limbs) -> Limbs {
        let mut out = self;
        for i in 0..3 {
            out.0[i] = _mm512_add_epi64(self.0[i], other.0[i]);
        }
        out
    }

    /// The limbs of all lanes.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn words(self) -> [[u64; 8]; 3] {
        let Limbs([l0, l1, l2]) = self;
        [mem::words(l0), mem::words(l1), mem::words(l2)]
    }

    /// Lane `index[i]` in lane `i`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn permuted(self, index: __m512i) -> Limbs {
        let mut out = self;
        for i in 0..3 {
            out.0[i] = _mm512_permutexvar_epi64(index, self.0[i]);
        }
        out
    }

    /// One lane of each half in all lanes of its half.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn spread<const LANES: i32>(self) -> Limbs {
        let mut out = self;
        for i in 0..3 {
            out.0[i] = _mm512_permutex_epi64::<LANES>(self.0[i]);
        }
        out
    }

    /// Blocks as numbers, from their low and high eight bytes. `high_bit` is [`HIGH_BIT`] where there is a block.
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    #[inline]
    pub(super) fn of_halves(low: __m512i, high: __m512i, high_bit: __m512i) -> Limbs {
        let limb = _mm512_set1_epi64(LIMB);
        Limbs([
            _mm512_and_si512(low, limb),
            _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), limb),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), high_bit),
        ])
    }
}

impl Powers {
    /// From the first keystream block of a packet, whose first sixteen bytes are r before clamping.
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    #[inline]
    pub(super) fn new(key_block: __m512i, len: usize) -> Powers {
        let key = _mm512_castsi512_si128(key_block);
        let low = _mm512_broadcastq_epi64(key);
        let high = _mm512_broadcastq_epi64(_mm_unpackhi_epi64(key, key));
        let low = _mm512_and_si512(low, _mm512_set1_epi64(CLAMP as i64));
        let high = _mm512_and_si512(high, _mm512_set1_epi64((CLAMP >> 64) as i64));
        let r = Limbs::of_halves(low, high, _mm512_setzero_si512());

        let zero = Limbs::zero();
        let squared = r.times_plus(&Factor::new(r), zero);
        let to_second = r.blended(0b1010_1010, squared);
        let third_and_fourth = to_second.times_plus(&Factor::new(squared), zero);
        let to_fourth = to_second.blended(0b1100_1100, third_and_fourth);
        let fourth = third_and_fourth.spread::<0b01_01_01_01>();
        let fifth_to_eighth = to_fourth.times_plus(&Factor::new(fourth), zero);
        let eighth = Factor::new(fifth_to_eighth.spread::<0b11_11_11_11>());
        let sixteenth =
            (len >= LONG).then(|| Factor::new(Limbs(eighth.limbs).times_plus(&eighth, zero)));
        Powers {
            ladder: to_fourth.blended(0b1111_0000, fifth_to_eighth),
            eighth,
            sixteenth,
        }
    }

    /// Poly1305 over `message`, zeros to the next sixteen bytes, and the block `last`. `pad` is what is added at the
    /// very end.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    pub(super) fn tag(&self, message: &[u8], last: u128, pad: u128) -> u128 {
        let high_bit = _mm512_set1_epi64(HIGH_BIT);
        let mut sum = Limbs::zero();
        let mut rest = message;
        if let Some(sixteenth) = &self.sixteenth {
            while let Some((two, after)) = rest.split_first_chunk::<{ 2 * GROUP }>() {
                let [a, b, c, d] = mem::load_four(two);
                let (low, high) = deinterleaved(c, d);
                let next = Sum::of(Limbs::of_halves(low, high, high_bit));
                let (low, high) = deinterleaved(a, b);
                let next = next.plus(Limbs::of_halves(low, high, high_bit), &self.eighth);
                sum = next.plus(sum, sixteenth).carried();
                rest = after;
            }
        }
        while let Some((group, after)) = rest.split_first_chunk::<GROUP>() {
            let [first, second] = mem::load_two(group);
            let (low, high) = deinterleaved(first, second);
            sum = sum.times_plus(&self.eighth, Limbs::of_halves(low, high, high_bit));
            rest = after;
        }
        if rest.len() > GROUP - BLOCK {
            // No room for the last block beside these.
            let (low, high) = load_short(rest);
            sum = sum.times_plus(&self.eighth, Limbs::of_halves(low, high, high_bit));
            rest = &[];
        }

        let blocks = rest.len().div_ceil(BLOCK) + 1;
        debug_assert!(
            (1..=8).contains(&blocks),
            "{blocks} blocks in the last group"
        );
        let (low, high) = load_short(rest);
        let (present, last_lane) = (0xFF_u8 >> (8 - blocks), 1_u8 << (blocks - 1));
        let low = _mm512_mask_set1_epi64(low, last_lane, last as i64);
        let high = _mm512_mask_set1_epi64(high, last_lane, (last >> 64) as i64);
        let high_bit = _mm512_maskz_set1_epi64(present, HIGH_BIT);
        let group = Limbs::of_halves(low, high, high_bit);
        sum = sum.blended(present, sum.times_plus(&self.eighth, group));

        let iota = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let index = _mm512_sub_epi64(_mm512_set1_epi64(blocks as i64 - 1), iota);
        let missing = self.ladder.permuted(index);
        let Limbs([a, b, c]) = sum.times_plus(&Factor::new(missing), Limbs::zero());
        let limbs = [a, b, c];
        let mut scalar = [0; 3];
        for i in 0..3 {
            scalar[i] = _mm512_reduce_add_epi64(limbs[i]).cast_unsigned();
        }
        poly1305::finish(scalar, pad)
    }
}

/// Up to eight blocks, zeros in place of what is missing.
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
#[inline]
fn load_short(bytes: &[u8]) -> (__m512i, __m512i) {
    let second = bytes.get(WIDTH..).unwrap_or_default();
    deinterleaved(mem::load_up_to(bytes), mem::load_up_to(second))
}

/// The low eight bytes of eight blocks, and the high ones.
#[target_feature(enable = "avx512f")]
#[inline]
fn deinterleaved(first: __m512i, second: __m512i) -> (__m512i, __m512i) {
    let even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    let odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    (
        _mm512_permutex2var_epi64(first, even, second),
        _mm512_permutex2var_epi64(first, odd, second),
    )
}
