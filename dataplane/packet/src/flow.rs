//! The name of a flow: addresses, ports, protocol; and its hash.

use std::net::IpAddr;

/// Who talks to whom. Ports are 0 for later fragments and for protocols without ports; for ICMP echo both hold
/// the identifier, so that request and reply are the two directions of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Transport protocol number.
    pub protocol: u8,
}

impl FlowKey {
    /// The key of the packets that go the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            protocol: self.protocol,
        }
    }

    /// A 64-bit hash, the same for both directions. `seed` is secret and random, so that nobody outside can
    /// choose keys that collide.
    ///
    /// The mixing step is the folded multiplication of wyhash (Wang Yi, 2019): all 128 bits of a product of two
    /// 64-bit numbers, upper half xor lower half.
    #[inline]
    pub fn symmetric_hash(&self, seed: u64) -> u64 {
        let src = end_hash(self.src, self.src_port, seed);
        let dst = end_hash(self.dst, self.dst_port, seed);
        // A sum and a xor are each blind to the order of the ends; together they lose nothing else.
        let ends = fold_multiply(
            src.wrapping_add(dst) ^ seed ^ SECRET[2],
            (src ^ dst) ^ SECRET[3],
        );
        fold_multiply(ends ^ u64::from(self.protocol), seed ^ SECRET[1])
    }
}

#[inline]
fn end_hash(addr: IpAddr, port: u16, seed: u64) -> u64 {
    let (high, low) = match addr {
        IpAddr::V4(v4) => (0, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            ((bits >> 64) as u64, bits as u64)
        }
    };
    let mixed = fold_multiply(
        low ^ SECRET[0] ^ seed,
        high ^ SECRET[1] ^ seed.rotate_left(32),
    );
    fold_multiply(mixed ^ u64::from(port), SECRET[2] ^ seed.rotate_left(17))
}

#[inline]
fn fold_multiply(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}

/// The first fractional digits of pi: odd enough, and nobody chose them.
const SECRET: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = FlowKey> {
        let v4 = (any::<u32>(), any::<u32>()).prop_map(|(src, dst)| {
            (
                IpAddr::V4(Ipv4Addr::from_bits(src)),
                IpAddr::V4(Ipv4Addr::from_bits(dst)),
            )
        });
        let v6 = (any::<u128>(), any::<u128>()).prop_map(|(src, dst)| {
            (
                IpAddr::V6(Ipv6Addr::from_bits(src)),
                IpAddr::V6(Ipv6Addr::from_bits(dst)),
            )
        });
        (prop_oneof![v4, v6], any::<u16>(), any::<u16>(), any::<u8>()).prop_map(
            |((src, dst), src_port, dst_port, protocol)| FlowKey {
                src,
                dst,
                src_port,
                dst_port,
                protocol,
            },
        )
    }

    fn key(src: u32, dst: u32, src_port: u16, dst_port: u16) -> FlowKey {
        FlowKey {
            src: IpAddr::V4(Ipv4Addr::from_bits(src)),
            dst: IpAddr::V4(Ipv4Addr::from_bits(dst)),
            src_port,
            dst_port,
            protocol: 6,
        }
    }

    proptest! {
        #[test]
        fn both_directions_have_one_hash(key in any_key(), seed in any::<u64>()) {
            prop_assert_eq!(key.symmetric_hash(seed), key.reversed().symmetric_hash(seed));
            prop_assert_eq!(key.reversed().reversed(), key);
        }
    }

    #[test]
    fn neighbouring_keys_fill_the_buckets_of_a_table_evenly() {
        const BUCKETS: usize = 4096;
        for seed in [0, 1, 0xdead_beef_dead_beef] {
            let mut low = vec![0u32; BUCKETS];
            let mut high = vec![0u32; BUCKETS];
            let mut all = HashSet::new();
            for host in 0..64u32 {
                for port in 0..1024u16 {
                    let key = key(0x0a00_0000 + host, 0x0a01_0001, 32_768 + port, 443);
                    let hash = key.symmetric_hash(seed);
                    low[hash as usize % BUCKETS] += 1;
                    high[(hash >> 52) as usize % BUCKETS] += 1;
                    assert!(all.insert(hash), "65536 keys collide in 64 bits");
                }
            }
            // 16 per bucket on average; a Poisson tail beyond 45 has a chance of about 1e-8 per bucket.
            assert!(low.iter().chain(&high).all(|count| *count < 45));
        }
    }

    #[test]
    fn ports_do_not_change_places_across_addresses() {
        let straight = key(1, 2, 10, 20).symmetric_hash(7);
        assert_ne!(straight, key(1, 2, 20, 10).symmetric_hash(7));
        assert_ne!(straight, key(1, 2, 10, 21).symmetric_hash(7));
        assert_ne!(straight, key(1, 2, 10, 20).symmetric_hash(8));
        let icmp = FlowKey {
            protocol: 1,
            ..key(1, 2, 10, 20)
        };
        assert_ne!(straight, icmp.symmetric_hash(7));
    }
}
