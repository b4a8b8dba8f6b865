//! Address to endpoint: a seeded hash table in shards, so that a change copies one shard and not the table.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::{ClassId, NodeId, PodId};

/// Entries per shard above which the shards are split.
const SHARD_LEN_MEAN_MAX: usize = 192;

/// Who answers on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The class of the pod that has it, or nobody's.
    pub(crate) class: ClassId,
    /// The pod that has it; also a host-network pod, which has no class.
    pub(crate) pod: PodId,
    /// The node on which that pod lives.
    pub(crate) home: NodeId,
    /// The node whose own address this is.
    pub(crate) host_of: NodeId,
}

impl Endpoint {
    /// An address of which nothing is known.
    pub(crate) const OUTSIDE: Self = Self {
        class: ClassId::NONE,
        pod: PodId::NONE,
        home: NodeId::NONE,
        host_of: NodeId::NONE,
    };
    /// The class that marks an address with several claims, which stand in a list of their own.
    pub(crate) const CONTESTED: ClassId = ClassId(u32::MAX - 1);

    /// Whether it is a pod that policies know.
    pub(crate) fn is_pod(&self) -> bool {
        self.class != ClassId::NONE
    }
}

/// An address as a key.
trait Key: Copy + Eq + Default {
    fn hash(self, seed: u64) -> u64;
}

impl Key for u32 {
    fn hash(self, seed: u64) -> u64 {
        fold(u64::from(self) ^ seed, MULTIPLIER)
    }
}

impl Key for u128 {
    fn hash(self, seed: u64) -> u64 {
        let low = fold(self as u64 ^ seed, MULTIPLIER);
        fold(
            (self >> 64) as u64 ^ low,
            MULTIPLIER ^ seed.rotate_left(32) | 1,
        )
    }
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    let mixed = (wide as u64) ^ (wide >> 64) as u64;
    mixed ^ (mixed >> 29)
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    endpoint: Endpoint,
}

impl<K: Key> Slot<K> {
    fn empty() -> Self {
        Self {
            key: K::default(),
            endpoint: Endpoint::OUTSIDE,
        }
    }

    fn is_empty(&self) -> bool {
        self.endpoint == Endpoint::OUTSIDE
    }
}

#[derive(Clone, Debug)]
struct Shard<K> {
    slots: Arc<[Slot<K>]>,
    used: usize,
}

impl<K: Key> Shard<K> {
    /// A shard with room for `used` entries and always one empty slot, on which lookups end.
    fn with_room(used: usize) -> Self {
        let len = (used * 3 / 2 + 2).next_power_of_two();
        Self {
            slots: vec![Slot::empty(); len].into(),
            used: 0,
        }
    }

    fn find(&self, key: K, hash: u64) -> Endpoint {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.key == key || slot.is_empty() {
                return slot.endpoint;
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, key: K, hash: u64, endpoint: Endpoint, seed: u64) {
        if (self.used + 1) * 3 / 2 + 1 > self.slots.len() {
            *self = self.rebuilt(self.used * 2 + 2, None, seed);
        }
        let slots = Arc::make_mut(&mut self.slots);
        let mask = slots.len() - 1;
        let mut at = hash as usize & mask;
        while !slots[at].is_empty() && slots[at].key != key {
            at = (at + 1) & mask;
        }
        self.used += usize::from(slots[at].is_empty());
        slots[at] = Slot { key, endpoint };
    }

    /// The same entries without one of them, in a table for `room` entries.
    fn rebuilt(&self, room: usize, without: Option<K>, seed: u64) -> Self {
        let mut shard = Self::with_room(room);
        for slot in self.slots.iter() {
            if !slot.is_empty() && Some(slot.key) != without {
                shard.insert(slot.key, slot.key.hash(seed), slot.endpoint, seed);
            }
        }
        shard
    }
}

#[derive(Clone, Debug)]
struct AddressMap<K> {
    shards: Vec<Shard<K>>,
    len: usize,
    seed: u64,
}

impl<K: Key> AddressMap<K> {
    fn new(seed: u64) -> Self {
        Self {
            shards: vec![Shard::with_room(0)],
            len: 0,
            seed,
        }
    }

    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    fn find(&self, key: K) -> Endpoint {
        let hash = key.hash(self.seed);
        self.shards[self.shard_of(hash)].find(key, hash)
    }

    /// Sets or, with [`Endpoint::OUTSIDE`], removes; says whether that changed anything.
    fn set(&mut self, key: K, endpoint: Endpoint) -> bool {
        let hash = key.hash(self.seed);
        let at = self.shard_of(hash);
        let known = self.shards[at].find(key, hash);
        if known == endpoint {
            return false;
        }
        if endpoint == Endpoint::OUTSIDE {
            self.len -= 1;
            let room = self.shards[at].used - 1;
            self.shards[at] = self.shards[at].rebuilt(room, Some(key), self.seed);
            return true;
        }
        self.shards[at].insert(key, hash, endpoint, self.seed);
        if known == Endpoint::OUTSIDE {
            self.len += 1;
            if self.len > self.shards.len() * SHARD_LEN_MEAN_MAX {
                self.split();
            }
        }
        true
    }

    fn split(&mut self) {
        let more = self.shards.len() * 2;
        let old = std::mem::take(&mut self.shards);
        self.shards = (0..more)
            .map(|_| Shard::with_room(SHARD_LEN_MEAN_MAX / 2))
            .collect();
        for slot in old.iter().flat_map(|it| it.slots.iter()) {
            if !slot.is_empty() {
                let hash = slot.key.hash(self.seed);
                let at = self.shard_of(hash);
                self.shards[at].insert(slot.key, hash, slot.endpoint, self.seed);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (K, Endpoint)> {
        let slots = self.shards.iter().flat_map(|it| it.slots.iter());
        slots
            .filter(|it| !it.is_empty())
            .map(|it| (it.key, it.endpoint))
    }

    fn bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|it| it.slots.len()).sum();
        slots * size_of::<Slot<K>>() + self.shards.len() * (size_of::<Shard<K>>() + 16)
    }
}

/// All known addresses of both families.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    v4: AddressMap<u32>,
    v6: AddressMap<u128>,
}

impl Addresses {
    /// An empty map; `seed` keys its hash, for strangers choose the addresses that are looked up.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            v4: AddressMap::new(seed),
            v6: AddressMap::new(seed),
        }
    }

    /// Who answers on `addr`.
    #[inline]
    pub(crate) fn find(&self, addr: IpAddr) -> Endpoint {
        match addr {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        }
    }

    /// Sets or, with [`Endpoint::OUTSIDE`], removes; says whether that changed anything.
    pub(crate) fn set(&mut self, addr: IpAddr, endpoint: Endpoint) -> bool {
        match addr {
            IpAddr::V4(v4) => self.v4.set(v4.to_bits(), endpoint),
            IpAddr::V6(v6) => self.v6.set(v6.to_bits(), endpoint),
        }
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, Endpoint)> {
        let v4 = self.v4.iter();
        let v4 = v4.map(|(bits, it)| (IpAddr::V4(bits.into()), it));
        let v6 = self.v6.iter();
        v4.chain(v6.map(|(bits, it)| (IpAddr::V6(bits.into()), it)))
    }

    /// How many addresses are known.
    pub(crate) fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    /// Bytes used.
    pub(crate) fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}
