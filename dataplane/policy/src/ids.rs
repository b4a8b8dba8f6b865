//! Identities inside one compiler and its tables, and the two small containers that hand them out.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Maps over what operators write. Addresses, which strangers choose, have their own seeded table.
pub(crate) type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
/// Sets over what operators write.
pub(crate) type Set<K> = HashSet<K, foldhash::fast::FixedState>;

macro_rules! index {
    ($(#[$doc:meta] $name:ident),*) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) struct $name(pub(crate) u32);

        impl $name {
            /// Stands for nobody; not every kind needs that.
            #[allow(dead_code)]
            pub(crate) const NONE: Self = Self(u32::MAX);

            /// As an index; not every kind is used as one.
            #[allow(dead_code)]
            pub(crate) fn at(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

index!(
    /// A class of pods that no policy can tell apart.
    ClassId,
    /// A pod.
    PodId,
    /// A node.
    NodeId,
    /// A selector of peers.
    PeerId,
    /// A compiled row.
    RowId
);

/// One edition of one policy: an edit makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Edition(pub(crate) u64);

/// A countable reason: rule number n of a policy in one direction, or a policy's isolation of a direction.
///
/// It stays the same while a policy of that name exists, edits included, and is never given to another, so a
/// counter under it never changes its meaning. [`PolicyTable::rule`](crate::PolicyTable::rule) says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub(crate) NonZeroU32);

impl RuleId {
    /// As a number, from 1; for counters and the eBPF twin.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

/// Values under small numbers; freed numbers are used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Stores `item` and says under which number.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.items[at as usize] = Some(item);
            return at;
        }
        self.items.push(Some(item));
        (self.items.len() - 1) as u32
    }

    /// Takes a value out; its number becomes free.
    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let item = self.items.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(item)
    }

    /// The value under a number.
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.items.get(at as usize)?.as_ref()
    }

    /// The value under a number, to change.
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.items.get_mut(at as usize)?.as_mut()
    }

    /// All values with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.items.iter().enumerate();
        numbered.filter_map(|(at, item)| Some((at as u32, item.as_ref()?)))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}

const CHUNK: usize = 128;

/// A vector whose clones share what neither changed: a change copies one chunk and, when cloned, the spine.
#[derive(Clone, Debug)]
pub(crate) struct Chunked<T> {
    chunks: Vec<Arc<Vec<T>>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Clone + Default> Chunked<T> {
    /// The value at an index, if it was ever set.
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    /// Sets a value; gaps are filled with defaults.
    pub(crate) fn set(&mut self, at: usize, value: T) {
        while self.chunks.len() <= at / CHUNK {
            self.chunks.push(Arc::new(vec![T::default(); CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[at / CHUNK])[at % CHUNK] = value;
    }

    /// All values, defaults in gaps included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Bytes of chunks and spine, without what the values point to.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * (CHUNK * size_of::<T>() + 40)
    }
}
