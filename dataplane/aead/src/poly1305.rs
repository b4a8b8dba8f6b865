//! Poly1305 in plain 64-bit arithmetic: for messages of a few blocks, and the last steps of the vector code.
//!
//! No branch and no index depends on a key or on data.

/// Bytes of a Poly1305 block.
pub(crate) const BLOCK: usize = 16;
/// The bits of r that RFC 8439 lets stand.
pub(crate) const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;

/// An accumulator, and the r that it is multiplied by.
pub(crate) struct Poly1305 {
    r: [u64; 2],
    /// Below 2^131.
    sum: [u64; 3],
}

impl Poly1305 {
    /// `r` is clamped here.
    #[inline]
    pub(crate) fn new(r: u128) -> Poly1305 {
        let r = r & CLAMP;
        Poly1305 {
            r: [r as u64, (r >> 64) as u64],
            sum: [0; 3],
        }
    }

    /// Adds a block of sixteen bytes and multiplies.
    #[inline]
    pub(crate) fn block(&mut self, block: u128) {
        let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let [r0, r1] = self.r;
        // r1 is a multiple of four, and 2^130 = 5: 2^128 * r1 = 5 * r1 / 4.
        let wrapped = r1 + (r1 >> 2);
        let [h0, h1, h2] = self.sum;
        let (low, carry) = (u128::from(h0) | u128::from(h1) << 64).overflowing_add(block);
        let (h0, h1) = (low as u64, (low >> 64) as u64);
        let h2 = h2 + 1 + u64::from(carry);

        let d0 = wide(h0, r0) + wide(h1, wrapped);
        let d1 = wide(h0, r1) + wide(h1, r0) + u128::from(h2 * wrapped) + (d0 >> 64);
        let d2 = h2 * r0 + (d1 >> 64) as u64;

        let over = (d2 >> 2) + (d2 & !3);
        let low = u128::from(d0 as u64) | u128::from(d1 as u64) << 64;
        let (low, carry) = low.overflowing_add(u128::from(over));
        self.sum = [low as u64, (low >> 64) as u64, (d2 & 3) + u64::from(carry)];
    }

    /// Over `message`, zeros to the next sixteen bytes, and the block `last`. `pad` is what is added at the very end.
    #[inline]
    pub(crate) fn tag(mut self, message: &[u8], last: u128, pad: u128) -> u128 {
        let (blocks, rest) = message.as_chunks::<BLOCK>();
        for block in blocks {
            self.block(u128::from_le_bytes(*block));
        }
        if !rest.is_empty() {
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            self.block(u128::from_le_bytes(block));
        }
        self.block(last);
        self.finish(pad)
    }

    /// Adds `pad` to what the sum is modulo 2^130 - 5.
    #[inline]
    pub(crate) fn finish(self, pad: u128) -> u128 {
        let [h0, h1, h2] = self.sum;
        let mask = (1 << 44) - 1;
        let limbs = [h0 & mask, (h0 >> 44 | h1 << 20) & mask, h1 >> 24 | h2 << 40];
        finish(limbs, pad)
    }
}

/// The last block of the AEAD's construction: no additional data, and `len` bytes of ciphertext.
#[inline]
pub(crate) fn length_block(len: usize) -> u128 {
    (len as u128) << 64
}

/// Limbs of 44 bits, each with up to 60, become a tag: their value modulo 2^130 - 5, plus `pad`, modulo 2^128.
#[inline]
pub(crate) fn finish(limbs: [u64; 3], pad: u128) -> u128 {
    const LIMB: u64 = (1 << 44) - 1;
    const TOP_LIMB: u64 = (1 << 42) - 1;
    let [mut l0, mut l1, mut l2] = limbs;
    // The first time round brings the limbs below 2^44 + 2^19; the second leaves a value below 2^130.
    for _ in 0..2 {
        l1 += l0 >> 44;
        l0 &= LIMB;
        l2 += l1 >> 44;
        l1 &= LIMB;
        l0 += 5 * (l2 >> 42);
        l2 &= TOP_LIMB;
    }
    l1 += l0 >> 44;
    l0 &= LIMB;
    l2 += l1 >> 44;
    l1 &= LIMB;

    // Plus 5 passes 2^130 exactly when the value is not below the modulus.
    let c0 = l0 + 5;
    let c1 = l1 + (c0 >> 44);
    let c2 = l2 + (c1 >> 44);
    let passed = 0_u64.wrapping_sub(c2 >> 42);
    let choose = |kept: u64, reduced: u64| (kept & !passed) | (reduced & passed);
    let l0 = choose(l0, c0 & LIMB);
    let l1 = choose(l1, c1 & LIMB);
    let l2 = choose(l2, c2 & TOP_LIMB);
    let value = u128::from(l0) | u128::from(l1) << 44 | u128::from(l2) << 88;
    value.wrapping_add(pad)
}

#[cfg(test)]
#[path = "poly1305_tests.rs"]
pub(crate) mod tests;
