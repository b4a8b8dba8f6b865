//! The Internet checksum (RFC 1071) and the pseudo headers of TCP and UDP (RFC 793, RFC 8200 section 8.1).
//!
//! Owns the arithmetic only; which bytes are summed is the caller's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A one's complement sum that is not folded yet. Sums of pieces may be added in any order, as long as every
/// piece but the last has an even number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Both sums together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum with one 16-bit word more.
    #[must_use]
    pub fn plus_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The 16-bit one's complement sum: what a checksum field holds under `NEEDS_CSUM`.
    pub fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The checksum as the headers carry it: the complement of [`fold`](Self::fold).
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// The checksum field of a header one 16-bit word of which changes (RFC 1624, equation 3).
pub fn replaced(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::ZERO
        .plus_word(!checksum)
        .plus_word(!old)
        .plus_word(new)
        .finish()
}

/// Sums the big-endian 16-bit words of `bytes`; an odd last byte counts as the upper half of a word.
pub fn sum(bytes: &[u8]) -> Sum {
    // RFC 1071, section 2(B): the sum does not care for byte order, so machine words are summed as they lie in
    // memory and the result is turned once. Each step adds the 32-bit halves of four 64-bit words into four
    // independent accumulators, which LLVM turns into vector additions on baseline x86-64 and aarch64.
    const STEP: usize = 32;
    let mut lanes = [0u64; 4];
    let mut chunks = bytes.chunks_exact(STEP);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            let word = u64::from_ne_bytes(word.try_into().expect("chunks_exact gives 8 bytes"));
            *lane += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut pairs = chunks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        total += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    Sum(u64::from(u16::from_be(fold(total))))
}

/// The IPv4 pseudo header; `len` is the length of transport header and payload in bytes.
pub fn pseudo_header_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    let halves = |addr: Ipv4Addr| {
        let bits = u64::from(addr.to_bits());
        (bits >> 16) + (bits & 0xffff)
    };
    Sum(halves(src) + halves(dst) + u64::from(protocol) + u64::from(len))
}

/// The IPv6 pseudo header; `len` is the length of transport header and payload in bytes.
pub fn pseudo_header_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    let words = |addr: Ipv6Addr| addr.segments().into_iter().map(u64::from).sum::<u64>();
    let len = u64::from(len);
    Sum(words(src) + words(dst) + u64::from(protocol) + (len >> 16) + (len & 0xffff))
}

/// The pseudo header of whichever family `src` and `dst` have; a mixed pair is summed as IPv6.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u16) -> Sum {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => pseudo_header_v4(src, dst, protocol, len),
        (src, dst) => pseudo_header_v6(to_v6(src), to_v6(dst), protocol, u32::from(len)),
    }
}

fn to_v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for (at, byte) in bytes.iter().enumerate() {
            total += u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    /// Zero has two spellings in one's complement; the naive loop and the wide one may differ in it only for
    /// the empty sum, where both say 0.
    fn check(bytes: &[u8]) {
        assert_eq!(sum(bytes).fold(), naive(bytes), "{} bytes", bytes.len());
    }

    #[test]
    fn the_example_of_rfc_1071_holds() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes).fold(), 0xddf2);
        assert_eq!(sum(&bytes).finish(), !0xddf2);
    }

    #[test]
    fn every_short_length_at_every_alignment_agrees_with_the_naive_sum() {
        let bytes: Vec<u8> = (0..400u32).map(|at| (at * 167 + 13) as u8).collect();
        for start in 0..33 {
            for len in 0..300 {
                check(&bytes[start..start + len]);
            }
        }
    }

    #[test]
    fn the_largest_packet_of_ones_does_not_overflow() {
        check(&[0xff; 65_575]);
        check(&[0; 65_575]);
    }

    #[test]
    fn pseudo_headers_are_the_sums_of_their_bytes() {
        let (src, dst) = (
            Ipv4Addr::new(10, 1, 254, 255),
            Ipv4Addr::new(192, 168, 3, 4),
        );
        let mut bytes = [src.octets(), dst.octets()].concat();
        bytes.extend([0, 17, 0xfe, 0xdc]);
        let direct = pseudo_header(src.into(), dst.into(), 17, 0xfedc);
        assert_eq!(direct.fold(), naive(&bytes));

        let (src, dst) = ("fd00::ffff:1", "2001:db8::abcd:ef01");
        let (src, dst): (Ipv6Addr, Ipv6Addr) = (src.parse().unwrap(), dst.parse().unwrap());
        let mut bytes = [src.octets(), dst.octets()].concat();
        bytes.extend([0, 1, 0xfe, 0xdc, 0, 0, 0, 6]);
        assert_eq!(
            pseudo_header_v6(src, dst, 6, 0x1_fedc).fold(),
            naive(&bytes)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_agree_with_the_naive_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            start in 0usize..64,
        ) {
            let start = start.min(bytes.len());
            prop_assert_eq!(sum(&bytes[start..]).fold(), naive(&bytes[start..]));
        }

        #[test]
        fn pieces_add_up_to_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 2..500),
            cut in 0usize..250,
        ) {
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(sum(head).plus(sum(tail)).fold(), naive(&bytes));
        }
    }
}
