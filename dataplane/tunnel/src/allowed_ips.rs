//! Cryptokey routing (whitepaper, section 2): which peer owns an inner address, the most specific
//! prefix first. Built once per configuration, then only read.

use std::net::IpAddr;

use patronus_packet::Prefix;

/// A path-compressed binary trie per family, in one array, without pointers.
#[derive(Clone, Debug)]
pub struct AllowedIps<T> {
    nodes: Vec<Node<T>>,
    v4: Option<u32>,
    v6: Option<u32>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Node<T> {
    /// The prefix's bits, left-aligned; bits behind `len` are zero.
    bits: u128,
    len: u8,
    value: Option<T>,
    children: [Option<u32>; 2],
}

impl<T: Copy> Default for AllowedIps<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> AllowedIps<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            v4: None,
            v6: None,
            len: 0,
        }
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no prefix was inserted.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives `prefix` to `value`, and returns the former owner of that very prefix: a prefix has one
    /// owner, the last one wins, as with `wg set`.
    pub fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        let (bits, len) = (left_aligned(prefix.addr()), prefix.prefix_len());
        let bits = bits & mask(len);
        let root = if prefix.addr().is_ipv4() {
            self.v4
        } else {
            self.v6
        };
        let (new_root, old) = self.insert_below(root, bits, len, value);
        if prefix.addr().is_ipv4() {
            self.v4 = Some(new_root);
        } else {
            self.v6 = Some(new_root);
        }
        self.len += usize::from(old.is_none());
        old
    }

    /// The owner of the most specific prefix that holds `addr`.
    #[inline]
    pub fn lookup(&self, addr: IpAddr) -> Option<T> {
        let bits = left_aligned(addr);
        let mut at = if addr.is_ipv4() { self.v4 } else { self.v6 };
        let mut best = None;
        while let Some(index) = at {
            let node = &self.nodes[index as usize];
            if bits & mask(node.len) != node.bits {
                break;
            }
            best = node.value.or(best);
            at = match node.len {
                128 => None,
                len => node.children[bit(bits, len)],
            };
        }
        best
    }

    fn insert_below(
        &mut self,
        root: Option<u32>,
        bits: u128,
        len: u8,
        value: T,
    ) -> (u32, Option<T>) {
        let Some(root) = root else {
            return (self.push(bits, len, Some(value)), None);
        };
        // Walk down to the deepest node that holds the prefix, remembering where we came from.
        let mut parent: Option<(u32, usize)> = None;
        let mut at = root;
        loop {
            let node = &self.nodes[at as usize];
            let common = common_len(node.bits, bits).min(node.len).min(len);
            if common == node.len && node.len == len {
                return (root, self.nodes[at as usize].value.replace(value));
            }
            if common == node.len {
                let side = bit(bits, node.len);
                match node.children[side] {
                    Some(child) => {
                        parent = Some((at, side));
                        at = child;
                    }
                    None => {
                        let leaf = self.push(bits, len, Some(value));
                        self.nodes[at as usize].children[side] = Some(leaf);
                        return (root, None);
                    }
                }
                continue;
            }
            let new = self.split(at, common, bits, len, value);
            return match parent {
                None => (new, None),
                Some((above, side)) => {
                    self.nodes[above as usize].children[side] = Some(new);
                    (root, None)
                }
            };
        }
    }

    /// Puts a node of length `common` above `at`: the new prefix itself, or a fork of both.
    fn split(&mut self, at: u32, common: u8, bits: u128, len: u8, value: T) -> u32 {
        let old_side = bit(self.nodes[at as usize].bits, common);
        if common == len {
            let above = self.push(bits, len, Some(value));
            self.nodes[above as usize].children[old_side] = Some(at);
            return above;
        }
        let leaf = self.push(bits, len, Some(value));
        let fork = self.push(bits & mask(common), common, None);
        self.nodes[fork as usize].children[old_side] = Some(at);
        self.nodes[fork as usize].children[1 - old_side] = Some(leaf);
        fork
    }

    fn push(&mut self, bits: u128, len: u8, value: Option<T>) -> u32 {
        let index =
            u32::try_from(self.nodes.len()).expect("fewer than 2^32 prefixes fit in memory");
        self.nodes.push(Node {
            bits,
            len,
            value,
            children: [None, None],
        });
        index
    }
}

fn left_aligned(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(len: u8) -> u128 {
    match len {
        0 => 0,
        len => u128::MAX << (128 - u32::from(len)),
    }
}

/// Bit number `at` from the left.
fn bit(bits: u128, at: u8) -> usize {
    usize::from(bits >> (127 - u32::from(at)) & 1 == 1)
}

fn common_len(a: u128, b: u128) -> u8 {
    (a ^ b).leading_zeros() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(entries: &[(&str, u32)]) -> AllowedIps<u32> {
        let mut table = AllowedIps::new();
        for (prefix, owner) in entries {
            table.insert(prefix.parse().unwrap(), *owner);
        }
        table
    }

    #[test]
    fn the_most_specific_prefix_wins_whatever_the_order() {
        let entries = [
            ("10.0.0.0/8", 1),
            ("10.1.0.0/16", 2),
            ("10.1.2.3/32", 3),
            ("0.0.0.0/0", 4),
            ("::/0", 5),
        ];
        for rotation in 0..entries.len() {
            let mut rotated = entries;
            rotated.rotate_left(rotation);
            let table = table(&rotated);
            let owner = |addr: &str| table.lookup(addr.parse().unwrap());
            assert_eq!(owner("10.9.9.9"), Some(1));
            assert_eq!(owner("10.1.9.9"), Some(2));
            assert_eq!(owner("10.1.2.3"), Some(3));
            assert_eq!(owner("192.0.2.1"), Some(4));
            assert_eq!(owner("2001:db8::1"), Some(5));
        }
    }

    #[test]
    fn a_prefix_moves_to_its_last_owner() {
        let mut table = table(&[("10.0.0.0/8", 1)]);
        assert_eq!(table.insert("10.77.0.0/8".parse().unwrap(), 2), Some(1));
        assert_eq!(table.lookup("10.0.0.1".parse().unwrap()), Some(2));
        assert_eq!(table.len(), 1);
    }

    /// Few distinct bits, so that prefixes nest, collide and share paths.
    fn addr() -> impl Strategy<Value = IpAddr> {
        let v4 = (0u32..16, 0u32..4)
            .prop_map(|(high, low)| IpAddr::from((high << 28 | low).to_be_bytes()));
        let v6 = (0u128..16, 0u128..4)
            .prop_map(|(high, low)| IpAddr::from((high << 124 | low).to_be_bytes()));
        prop_oneof![v4, v6]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (addr(), 0u8..=128).prop_map(|(addr, len)| {
            Prefix::new(addr, len % if addr.is_ipv4() { 33 } else { 129 }).unwrap()
        })
    }

    proptest! {
        #[test]
        fn lookup_equals_a_linear_scan(
            entries in proptest::collection::vec((prefix(), 0u32..1000), 0..40),
            addrs in proptest::collection::vec(addr(), 1..40),
        ) {
            let mut table = AllowedIps::new();
            let mut list: Vec<(Prefix, u32)> = Vec::new();
            for (prefix, owner) in entries {
                let old = list.iter().position(|(other, _)| *other == prefix.network());
                let expected = old.map(|at| list.remove(at).1);
                list.push((prefix.network(), owner));
                prop_assert_eq!(table.insert(prefix, owner), expected);
            }
            prop_assert_eq!(table.len(), list.len());
            for addr in addrs {
                let expected = list
                    .iter()
                    .filter(|(prefix, _)| prefix.contains(addr))
                    .max_by_key(|(prefix, _)| prefix.prefix_len())
                    .map(|(_, owner)| *owner);
                prop_assert_eq!(table.lookup(addr), expected);
            }
        }
    }
}
