//! Short packets together: their keystream blocks share passes, and Poly1305 takes a packet per lane, so that nobody
//! needs powers of r.

use core::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_mask_mov_epi64, _mm512_maskz_mov_epi8, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::chacha::{self, Places, Words, gathered};
use super::mem::{self, WIDTH};
use super::poly::{Factor, HIGH_BIT, Limbs, Sum};
use crate::poly1305::{self, BLOCK, CLAMP};
use crate::{Opening, Sealing, TAG_LEN};

/// Packets of a group: lanes of 64 bits.
pub(super) const GROUP: usize = 8;
/// Bytes of a packet that may be in a group.
pub(super) const SHORT: usize = CHUNKS * WIDTH;
const CHUNKS: usize = 3;
/// Poly1305 blocks of a packet in a group, with the one for the length.
const STEPS: usize = SHORT / BLOCK + 1;
/// Lanes of 32 bits in a pass, one per keystream block.
const LANES: usize = 16;
/// A group of the longest packets, with a block each for the Poly1305 key, fills these passes.
const PASSES: usize = GROUP * (1 + CHUNKS) / LANES;

/// The keystream of a group, and where each packet's begins.
struct Keystream {
    blocks: [[__m512i; LANES]; PASSES],
    starts: [usize; GROUP],
}

impl Keystream {
    /// For packets with these counters and lengths.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    #[inline]
    fn new(key: &Words, counters: &[u64; GROUP], lens: &[usize]) -> Keystream {
        let mut places = [Places::default(); PASSES];
        let mut starts = [0; GROUP];
        let mut used = 0;
        for (i, len) in lens.iter().enumerate() {
            starts[i] = used;
            for block in 0..=len.div_ceil(WIDTH) {
                places[used / LANES].set(used % LANES, counters[i], block as u32);
                used += 1;
            }
        }
        let mut blocks = [[_mm512_setzero_si512(); LANES]; PASSES];
        for pass in 0..used.div_ceil(LANES) {
            blocks[pass] = chacha::sixteen_places(key, &places[pass]);
        }
        Keystream { blocks, starts }
    }

    /// Block `number` of packet `packet`; number 0 is the Poly1305 key.
    #[inline(always)]
    fn block(&self, packet: usize, number: usize) -> &__m512i {
        &self.blocks.as_flattened()[self.starts[packet] + number]
    }
}

/// Ciphertexts: `0[chunk][packet]`, zeros after the end.
struct Ciphertexts([[__m512i; GROUP]; CHUNKS]);

/// Seals up to [`GROUP`] packets of up to [`SHORT`] bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn seal(key: &Words, packets: &mut [Sealing<'_>]) {
    let (mut counters, mut lens) = ([0; GROUP], [0; GROUP]);
    for (i, packet) in packets.iter().enumerate() {
        (counters[i], lens[i]) = (packet.counter, packet.padded_len);
    }
    let lens = &lens[..packets.len()];
    let keystream = Keystream::new(key, &counters, lens);
    let mut texts = Ciphertexts([[_mm512_setzero_si512(); GROUP]; CHUNKS]);
    for (i, packet) in packets.iter_mut().enumerate() {
        let room = &mut packet.dst[..packet.padded_len];
        for (chunk, room) in room.chunks_mut(WIDTH).enumerate() {
            let plain = packet.src.get(chunk * WIDTH..).unwrap_or_default();
            let text = _mm512_xor_si512(mem::load_up_to(plain), *keystream.block(i, 1 + chunk));
            texts.0[chunk][i] = _mm512_maskz_mov_epi8(mem::mask(room.len()), text);
            mem::store_up_to(room, text);
        }
    }
    let tags = tags(&keystream, &texts, lens);
    for (packet, tag) in packets.iter_mut().zip(tags) {
        packet.dst[packet.padded_len..][..TAG_LEN].copy_from_slice(&tag.to_le_bytes());
    }
}

/// Opens up to [`GROUP`] packets of up to [`SHORT`] bytes without their tags.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn open(key: &Words, packets: &mut [Opening<'_>]) {
    let (mut counters, mut lens) = ([0; GROUP], [0; GROUP]);
    for (i, packet) in packets.iter().enumerate() {
        (counters[i], lens[i]) = (packet.counter, packet.src_with_tag.len() - TAG_LEN);
    }
    let lens = &lens[..packets.len()];
    let keystream = Keystream::new(key, &counters, lens);
    let mut texts = Ciphertexts([[_mm512_setzero_si512(); GROUP]; CHUNKS]);
    for (i, packet) in packets.iter().enumerate() {
        for (chunk, text) in packet.src_with_tag[..lens[i]].chunks(WIDTH).enumerate() {
            texts.0[chunk][i] = mem::load_up_to(text);
        }
    }
    let tags = tags(&keystream, &texts, lens);
    for (i, packet) in packets.iter_mut().enumerate() {
        let len = lens[i];
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&packet.src_with_tag[len..]);
        // As numbers: slices are compared byte by byte, up to the first that differs.
        packet.is_authentic = u128::from_le_bytes(tag) == tags[i];
        if !packet.is_authentic {
            continue;
        }
        for (chunk, room) in packet.dst[..len].chunks_mut(WIDTH).enumerate() {
            let text = _mm512_xor_si512(texts.0[chunk][i], *keystream.block(i, 1 + chunk));
            mem::store_up_to(room, text);
        }
    }
}

/// Poly1305 of every packet.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
#[inline]
fn tags(keystream: &Keystream, texts: &Ciphertexts, lens: &[usize]) -> [u128; GROUP] {
    let zero = _mm512_setzero_si512();
    let mut keys = [zero; GROUP];
    for (i, key) in keys.iter_mut().enumerate().take(lens.len()) {
        *key = *keystream.block(i, 0);
    }
    let [r_low, r_high, pad_low, pad_high, ..] = transposed(&keys);
    let r_low = _mm512_and_si512(r_low, _mm512_set1_epi64(CLAMP as i64));
    let r_high = _mm512_and_si512(r_high, _mm512_set1_epi64((CLAMP >> 64) as i64));
    let r = Factor::new(Limbs::of_halves(r_low, r_high, zero));

    let schedule = Schedule::new(lens);
    let lengths = mem::load_words(&schedule.lens);
    let mut sum = Limbs::zero();
    let mut halves = [zero; GROUP];
    for step in 0..schedule.steps {
        if step % 4 == 0 {
            halves = texts
                .0
                .get(step / 4)
                .map_or([zero; GROUP], |chunk| transposed(chunk));
        }
        let (present, last) = (schedule.present[step], schedule.last[step]);
        let low = halves[step % 4 * 2];
        let high = _mm512_mask_mov_epi64(halves[step % 4 * 2 + 1], last, lengths);
        let block = Limbs::of_halves(low, high, _mm512_set1_epi64(HIGH_BIT));
        let next = Sum::of(Limbs::zero()).plus(sum.added(block), &r).carried();
        sum = sum.blended(present, next);
    }

    let [l0, l1, l2] = sum.words();
    let (pad_low, pad_high) = (mem::words(pad_low), mem::words(pad_high));
    core::array::from_fn(|i| {
        let pad = u128::from(pad_low[i]) | u128::from(pad_high[i]) << 64;
        poly1305::finish([l0[i], l1[i], l2[i]], pad)
    })
}

/// Which packets have a Poly1305 block at which step: a bit per lane.
struct Schedule {
    present: [u8; STEPS],
    /// It is the one with the length.
    last: [u8; STEPS],
    lens: [u64; GROUP],
    steps: usize,
}

impl Schedule {
    #[inline]
    fn new(lens: &[usize]) -> Schedule {
        let mut schedule = Schedule {
            present: [0; STEPS],
            last: [0; STEPS],
            lens: [0; GROUP],
            steps: 0,
        };
        for (i, len) in lens.iter().enumerate() {
            let last = len.div_ceil(BLOCK);
            for present in &mut schedule.present[..=last] {
                *present |= 1 << i;
            }
            schedule.last[last] |= 1 << i;
            schedule.lens[i] = *len as u64;
            schedule.steps = schedule.steps.max(last + 1);
        }
        schedule
    }
}

/// Eight vectors of eight words become vectors of their first words, of their second, and so on.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(v: &[__m512i; 8]) -> [__m512i; 8] {
    // `even[i]`: words 0, 2, 4 and 6 of vectors 2i and 2i + 1 side by side.
    let mut even = [_mm512_setzero_si512(); 4];
    let mut odd = even;
    for i in 0..4 {
        even[i] = _mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]);
        odd[i] = _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]);
    }
    let [w0, w2, w4, w6] = gathered(even[0], even[1], even[2], even[3]);
    let [w1, w3, w5, w7] = gathered(odd[0], odd[1], odd[2], odd[3]);
    [w0, w1, w2, w3, w4, w5, w6, w7]
}
