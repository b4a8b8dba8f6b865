//! The flow table of one worker: fixed size, one writer, any number of lock-free readers.
//!
//! A flow is keyed by its ends as this gateway sees them, (local, remote), so both directions meet in
//! one 64-byte entry. Buckets hold eight entries and eight 16-bit tags, so a lookup touches one line of
//! tags and, mostly, one entry. Nothing is ever swept: an entry that was idle too long counts as free when
//! its bucket needs room, and a full bucket gives up its longest idle entry, which is counted.
//! An entry carries the configuration's generation; the pipeline renews a stale one on its next packet.
//! It carries policy's answer too: a denied flow has an entry, so that its packets are dropped at the cost of a hit.
//! An allowed one has its class and its path in the place of a denied one's rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use patronus_packet::FlowKey;
use patronus_path::{ClassId, PathIndex};

use crate::seqlock::SeqCell;
use crate::snapshot::{Generation, PeerId};
use crate::sync::AtomicU64;

/// Entries in a bucket.
const WAYS: usize = 8;
const IDLE_TCP_S: u32 = 7_200;
const IDLE_OTHER_S: u32 = 180;
const SECONDS_MASK: u32 = 0xff_ffff;
/// How far a reader's clock may be behind the writer's: workers take the time once per batch.
const CLOCK_SKEW_S: u32 = 60;
const FLAG_V6: u64 = 1;
const FLAG_OPENED_BY_REMOTE: u64 = 2;
const FLAG_DENIED: u64 = 4;
/// The flow was allowed under an earlier configuration than the one that the rest of the entry speaks of.
const FLAG_EARLIER: u64 = 8;
/// Where the upper 20 bits of word 5 begin: the rule of a denied flow, the [`Steer`] of another; and the flags.
const RULE_SHIFT: u32 = 44;
const FLAGS_SHIFT: u32 = 40;
/// Where word 6 has the time of the last packet.
const LAST_SEEN_SHIFT: u32 = 16;
const PROTOCOL_TCP: u8 = 6;

/// Which side sent the first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenedBy {
    /// A machine behind this gateway.
    Local,
    /// A machine behind the peer.
    Remote,
}

/// What policy says about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Its opener may open it, and both directions pass. Also without policy.
    Allowed,
    /// It was allowed under an earlier configuration and stays so, whatever this one says: `keep-established`.
    Kept,
    /// Its opener may not open it, and never could.
    Denied(RuleNumber),
    /// It was allowed once and is denied by a later configuration: both directions are cut.
    Cut(RuleNumber),
}

impl Passage {
    /// Whether packets pass.
    pub fn is_allowed(self) -> bool {
        match self {
            Self::Allowed | Self::Kept => true,
            Self::Denied(_) | Self::Cut(_) => false,
        }
    }
}

/// A rule as entries and counters name it: [`RuleId::number`](patronus_policy::RuleId::number), or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleNumber(pub u32);

impl RuleNumber {
    /// No rule in particular.
    pub const NONE: Self = Self(0);
    /// The largest number that an entry can hold; a larger one is kept as none.
    const ENTRY_MAX: u32 = (1 << (u64::BITS - RULE_SHIFT)) - 1;
}

/// Which class an allowed flow has, on which path its packets leave, and when the last one left: 20 bits in word 5,
/// where a denied flow has its rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steer(u32);

impl Steer {
    const CLASS_SHIFT: u32 = 17;
    const PATH_SHIFT: u32 = 13;
    const CLOCK_MASK: u32 = (1 << Self::PATH_SHIFT) - 1;
    const MASK: u32 = (1 << (u64::BITS - RULE_SHIFT)) - 1;

    /// A flow that has not sent anything yet.
    pub fn new(class: ClassId, path: PathIndex) -> Self {
        let class = u32::from(class.0 & 7) << Self::CLASS_SHIFT;
        Self(class | u32::from(path.0 & 15) << Self::PATH_SHIFT)
    }

    /// The class.
    #[inline]
    pub fn class(self) -> ClassId {
        ClassId((self.0 >> Self::CLASS_SHIFT) as u8 & 7)
    }

    /// The path of the last packet that left. Means nothing while its peer has one path only.
    #[inline]
    pub fn path(self) -> PathIndex {
        PathIndex((self.0 >> Self::PATH_SHIFT) as u8 & 15)
    }

    /// The same flow in another class.
    #[must_use]
    pub fn in_class(self, class: ClassId) -> Self {
        let rest = self.0 & ((1 << Self::CLASS_SHIFT) - 1);
        Self(rest | u32::from(class.0 & 7) << Self::CLASS_SHIFT)
    }

    /// The same class on `path`, where a packet leaves at `now_ms`.
    #[inline]
    #[must_use]
    pub fn sent(self, path: PathIndex, now_ms: u64) -> Self {
        let class = self.0 & (7 << Self::CLASS_SHIFT);
        let path = u32::from(path.0 & 15) << Self::PATH_SHIFT;
        Self(class | path | now_ms as u32 & Self::CLOCK_MASK)
    }

    /// Milliseconds since the last packet left, modulo 8192: a flow that paused for about that long passes for one
    /// that did not pause, which keeps it on its path a little longer and harms nothing.
    #[inline]
    pub fn silent_ms(self, now_ms: u64) -> u32 {
        (now_ms as u32).wrapping_sub(self.0) & Self::CLOCK_MASK
    }
}

/// One flow as readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The ends, from local to remote.
    pub key: FlowKey,
    /// The peer behind which the remote end lives.
    pub peer: PeerId,
    /// Which side sent the first packet.
    pub opened_by: OpenedBy,
    /// What policy says.
    pub passage: Passage,
    /// Class and path, where packets pass.
    pub steer: Steer,
    /// The configuration under which the flow was last judged, modulo 2^16.
    pub generation: u16,
    /// Seconds between the table's epoch and the last packet, modulo 2^24.
    pub last_seen_s: u32,
    /// Packets in both directions, at most 2^32 - 1.
    pub packets: u32,
    /// Bytes of inner IP in both directions.
    pub bytes: u64,
}

/// What a hit says: good for the generation that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The peer behind which the remote end lives.
    pub peer: PeerId,
    /// Class and path, where packets pass.
    pub steer: Steer,
    flags: u8,
}

impl Hit {
    /// Whether a packet from `side` passes without any further question: no policy denies the flow, and the packet
    /// does not open a connection that nobody judged yet.
    #[inline]
    pub fn passes(self, side: OpenedBy, is_opening: bool) -> bool {
        let flags = u64::from(self.flags);
        let from_remote = matches!(side, OpenedBy::Remote);
        let is_reverse = (flags & FLAG_OPENED_BY_REMOTE != 0) != from_remote;
        flags & FLAG_DENIED == 0 && !(is_opening && (is_reverse || flags & FLAG_EARLIER != 0))
    }
}

/// Where an entry lies in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSlot(u32);

/// The shared half: read by siblings and the console.
#[derive(Debug)]
pub struct FlowTable {
    tags: Box<[[AtomicU64; 2]]>,
    entries: Box<[SeqCell<8>]>,
    seed: u64,
}

/// The writing half: exactly one exists per table, owned by the worker.
#[derive(Debug)]
pub struct FlowWriter {
    table: Arc<FlowTable>,
    evicted: u64,
}

impl FlowTable {
    /// A table of `slots` entries, a power of two of at least eight; `seed` keys its hash.
    pub fn create(slots: usize, seed: u64) -> FlowWriter {
        assert!(
            slots.is_power_of_two() && slots >= WAYS,
            "flow slots: {slots}"
        );
        let table = Self {
            tags: (0..slots / WAYS).map(|_| Default::default()).collect(),
            entries: (0..slots).map(|_| SeqCell::default()).collect(),
            seed,
        };
        FlowWriter {
            table: Arc::new(table),
            evicted: 0,
        }
    }

    /// Number of entries, used or not.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Looks a flow up from any thread; an entry that is idle too long is not found.
    pub fn find(&self, key: &FlowKey, now_s: u32) -> Option<Flow> {
        let hash = key.symmetric_hash(self.seed);
        self.candidates(hash).find_map(|slot| {
            let words = self.entries[slot].read()?;
            let found = words[1..5] == key_words(key) && words[5] & KEY_MASK == key_tail(key);
            let flow = decode(words);
            (found && !is_idle(&flow, now_s)).then_some(flow)
        })
    }

    /// Every flow that is not idle, as they stand one by one.
    pub fn flows(&self, now_s: u32) -> impl Iterator<Item = Flow> {
        (0..self.entries.len()).filter_map(move |slot| {
            if self.tag(slot) == 0 {
                return None;
            }
            let flow = decode(self.entries[slot].read()?);
            (!is_idle(&flow, now_s)).then_some(flow)
        })
    }

    fn bucket(&self, hash: u64) -> usize {
        // The tag takes the upper bits, the bucket the lower ones.
        hash as usize & (self.tags.len() - 1)
    }

    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let bucket = self.bucket(hash);
        let tag = tag_of(hash);
        let words = [
            self.tags[bucket][0].load(Ordering::Relaxed),
            self.tags[bucket][1].load(Ordering::Relaxed),
        ];
        (0..WAYS)
            .filter(move |way| (words[way / 4] >> (way % 4 * 16)) as u16 == tag)
            .map(move |way| bucket * WAYS + way)
    }

    fn tag(&self, slot: usize) -> u16 {
        let (bucket, way) = (slot / WAYS, slot % WAYS);
        (self.tags[bucket][way / 4].load(Ordering::Relaxed) >> (way % 4 * 16)) as u16
    }
}

impl FlowWriter {
    /// The half to share with readers.
    pub fn table(&self) -> &Arc<FlowTable> {
        &self.table
    }

    /// Entries that lost their place to a newer flow while still in use.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The slot of a flow that is not idle.
    #[inline]
    pub fn lookup(&self, key: &FlowKey, now_s: u32) -> Option<FlowSlot> {
        let hash = key.symmetric_hash(self.table.seed);
        let (head, tail) = (key_words(key), key_tail(key));
        self.table.candidates(hash).find_map(|slot| {
            let words = self.table.entries[slot].read_own();
            let found = words[1..5] == head && words[5] & KEY_MASK == tail;
            (found && !are_words_idle(&words, now_s)).then_some(FlowSlot(slot as u32))
        })
    }

    /// The entry in `slot`.
    #[inline]
    pub fn flow(&self, slot: FlowSlot) -> Flow {
        decode(self.table.entries[slot.0 as usize].read_own())
    }

    /// What the entry in `slot` says, where it was judged under `generation`.
    #[inline]
    pub fn verdict(&self, slot: FlowSlot, generation: Generation) -> Option<Hit> {
        let entry = &self.table.entries[slot.0 as usize];
        let (tail, word) = (entry.word_own(5), entry.word_own(6));
        (word as u16 == generation.0 as u16).then_some(Hit {
            peer: PeerId((word >> 40) as u32),
            steer: Steer((tail >> RULE_SHIFT) as u32),
            flags: (tail >> FLAGS_SHIFT) as u8,
        })
    }

    /// Puts an allowed flow without traffic into its bucket, and takes its place if it is there already.
    pub fn insert(
        &mut self,
        key: &FlowKey,
        peer: PeerId,
        opened_by: OpenedBy,
        generation: Generation,
        now_s: u32,
    ) -> FlowSlot {
        self.insert_judged(key, peer, opened_by, Passage::Allowed, generation, now_s)
    }

    /// Puts a flow without traffic into its bucket, and takes its place if it is there already.
    pub fn insert_judged(
        &mut self,
        key: &FlowKey,
        peer: PeerId,
        opened_by: OpenedBy,
        passage: Passage,
        generation: Generation,
        now_s: u32,
    ) -> FlowSlot {
        debug_assert!(peer.0 <= PeerId::MAX);
        let hash = key.symmetric_hash(self.table.seed);
        let flow = Flow {
            key: *key,
            peer,
            opened_by,
            passage,
            steer: Steer::default(),
            generation: generation.0 as u16,
            last_seen_s: now_s & SECONDS_MASK,
            packets: 0,
            bytes: 0,
        };
        let slot = match self.lookup(key, now_s) {
            Some(slot) => slot.0 as usize,
            None => self.make_room(hash, now_s),
        };
        self.set_tag(slot, tag_of(hash));
        self.table.entries[slot].write(encode(&flow));
        FlowSlot(slot as u32)
    }

    /// Renews the entry in `slot` as one that may pass, and keeps its opener and its traffic.
    pub fn renew(&mut self, slot: FlowSlot, peer: PeerId, generation: Generation) {
        let opened_by = self.flow(slot).opened_by;
        self.judge(slot, peer, opened_by, Passage::Allowed, generation);
    }

    /// Judges the entry in `slot` anew and keeps its traffic.
    pub fn judge(
        &mut self,
        slot: FlowSlot,
        peer: PeerId,
        opened_by: OpenedBy,
        passage: Passage,
        generation: Generation,
    ) {
        let flow = Flow {
            peer,
            opened_by,
            passage,
            generation: generation.0 as u16,
            ..self.flow(slot)
        };
        self.table.entries[slot.0 as usize].write(encode(&flow));
    }

    /// Gives the allowed flow in `slot` its class and path; a denied one keeps its rule.
    pub fn steer(&mut self, slot: FlowSlot, steer: Steer) {
        let flow = Flow {
            steer,
            ..self.flow(slot)
        };
        self.table.entries[slot.0 as usize].write(encode(&flow));
    }

    /// [`touch`](Self::touch) for a packet of an allowed flow that leaves as `steer` says.
    #[inline]
    pub fn touch_sent(
        &mut self,
        slot: FlowSlot,
        packets: u32,
        bytes: u64,
        now_s: u32,
        steer: Steer,
    ) {
        let entry = &self.table.entries[slot.0 as usize];
        let mut words = touched(entry.read_own(), packets, bytes, now_s);
        debug_assert_eq!(words[5] >> FLAGS_SHIFT & FLAG_DENIED, 0, "it has a rule");
        words[5] &= !(u64::from(Steer::MASK) << RULE_SHIFT);
        words[5] |= u64::from(steer.0) << RULE_SHIFT;
        entry.write(words);
    }

    /// Eight bits of a flow's hash that its place in the table does not depend on.
    pub fn share_of(&self, key: &FlowKey) -> u8 {
        (key.symmetric_hash(self.table.seed) >> 40) as u8
    }

    /// Adds traffic to the entry in `slot`.
    #[inline]
    pub fn touch(&mut self, slot: FlowSlot, packets: u32, bytes: u64, now_s: u32) {
        // On the words themselves: decoding and encoding an entry costs more than looking it up.
        let entry = &self.table.entries[slot.0 as usize];
        entry.write(touched(entry.read_own(), packets, bytes, now_s));
    }

    /// A free slot of the bucket: an empty one, an idle one, or the one that was idle longest. Denied flows give way
    /// before others, lest a scan that policy refuses push out the connections that it allows.
    fn make_room(&mut self, hash: u64, now_s: u32) -> usize {
        let first = self.table.bucket(hash) * WAYS;
        let mut oldest = (first, (false, 0));
        for slot in first..first + WAYS {
            if self.table.tag(slot) == 0 {
                return slot;
            }
            let flow = decode(self.table.entries[slot].read_own());
            if is_idle(&flow, now_s) {
                return slot;
            }
            let rank = (!flow.passage.is_allowed(), age_s(&flow, now_s));
            if rank >= oldest.1 {
                oldest = (slot, rank);
            }
        }
        self.evicted += 1;
        oldest.0
    }

    fn set_tag(&mut self, slot: usize, tag: u16) {
        let (bucket, way) = (slot / WAYS, slot % WAYS);
        let cell = &self.table.tags[bucket][way / 4];
        let shift = way % 4 * 16;
        let word = cell.load(Ordering::Relaxed) & !(0xffff << shift) | u64::from(tag) << shift;
        cell.store(word, Ordering::Relaxed);
    }
}

#[inline]
fn touched(mut words: [u64; 8], packets: u32, bytes: u64, now_s: u32) -> [u64; 8] {
    let counted = (words[0] >> 32) as u32;
    words[0] = u64::from(counted.saturating_add(packets)) << 32;
    words[6] &= !(u64::from(SECONDS_MASK) << LAST_SEEN_SHIFT);
    words[6] |= u64::from(now_s & SECONDS_MASK) << LAST_SEEN_SHIFT;
    words[7] = words[7].saturating_add(bytes);
    words
}

fn tag_of(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

fn age_s(flow: &Flow, now_s: u32) -> u32 {
    age_since(flow.last_seen_s, now_s)
}

#[inline]
fn age_since(last_seen_s: u32, now_s: u32) -> u32 {
    match now_s.wrapping_sub(last_seen_s) & SECONDS_MASK {
        // Touched in the future: a reader took its time a moment before the writer did.
        ahead if ahead > SECONDS_MASK - CLOCK_SKEW_S => 0,
        age => age,
    }
}

fn is_idle(flow: &Flow, now_s: u32) -> bool {
    age_s(flow, now_s) > idle_limit_s(flow.key.protocol)
}

/// [`is_idle`] of an entry that is not decoded.
#[inline]
fn are_words_idle(words: &[u64; 8], now_s: u32) -> bool {
    let last_seen_s = (words[6] >> LAST_SEEN_SHIFT) as u32 & SECONDS_MASK;
    age_since(last_seen_s, now_s) > idle_limit_s((words[5] >> 32) as u8)
}

#[inline]
fn idle_limit_s(protocol: u8) -> u32 {
    match protocol {
        PROTOCOL_TCP => IDLE_TCP_S,
        _ => IDLE_OTHER_S,
    }
}

/// The bits of word 5 that belong to the key: ports, protocol, family.
const KEY_MASK: u64 = 0xff_ffff_ffff | FLAG_V6 << FLAGS_SHIFT;

fn key_words(key: &FlowKey) -> [u64; 4] {
    let bits = |addr| match addr {
        IpAddr::V4(v4) => u128::from(Ipv4Addr::to_bits(v4)),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    };
    let (src, dst) = (bits(key.src), bits(key.dst));
    [
        (src >> 64) as u64,
        src as u64,
        (dst >> 64) as u64,
        dst as u64,
    ]
}

fn key_tail(key: &FlowKey) -> u64 {
    let v6 = if key.src.is_ipv6() { FLAG_V6 } else { 0 };
    u64::from(key.src_port)
        | u64::from(key.dst_port) << 16
        | u64::from(key.protocol) << 32
        | v6 << FLAGS_SHIFT
}

fn encode(flow: &Flow) -> [u64; 8] {
    let [a, b, c, d] = key_words(&flow.key);
    let opened = match flow.opened_by {
        OpenedBy::Local => 0,
        OpenedBy::Remote => FLAG_OPENED_BY_REMOTE,
    };
    let bits_of = |rule: RuleNumber| match rule.0 > RuleNumber::ENTRY_MAX {
        true => RuleNumber::NONE.0,
        false => rule.0,
    };
    let (passage, upper) = match flow.passage {
        Passage::Allowed => (0, flow.steer.0),
        Passage::Kept => (FLAG_EARLIER, flow.steer.0),
        Passage::Denied(rule) => (FLAG_DENIED, bits_of(rule)),
        Passage::Cut(rule) => (FLAG_DENIED | FLAG_EARLIER, bits_of(rule)),
    };
    let meta = u64::from(flow.generation)
        | u64::from(flow.last_seen_s) << LAST_SEEN_SHIFT
        | u64::from(flow.peer.0) << 40;
    let head = u64::from(flow.packets) << 32;
    [
        head,
        a,
        b,
        c,
        d,
        key_tail(&flow.key) | (opened | passage) << FLAGS_SHIFT | u64::from(upper) << RULE_SHIFT,
        meta,
        flow.bytes,
    ]
}

fn decode(words: [u64; 8]) -> Flow {
    let [head, a, b, c, d, tail, meta, bytes] = words;
    let flags = tail >> FLAGS_SHIFT;
    let upper = (tail >> RULE_SHIFT) as u32;
    let (rule, steer) = match flags & FLAG_DENIED {
        0 => (RuleNumber::NONE, Steer(upper)),
        _ => (RuleNumber(upper), Steer::default()),
    };
    let addr = |high: u64, low: u64| {
        if flags & FLAG_V6 == 0 {
            IpAddr::V4(Ipv4Addr::from_bits(low as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(
                u128::from(high) << 64 | u128::from(low),
            ))
        }
    };
    Flow {
        key: FlowKey {
            src: addr(a, b),
            dst: addr(c, d),
            src_port: tail as u16,
            dst_port: (tail >> 16) as u16,
            protocol: (tail >> 32) as u8,
        },
        peer: PeerId((meta >> 40) as u32),
        opened_by: if flags & FLAG_OPENED_BY_REMOTE == 0 {
            OpenedBy::Local
        } else {
            OpenedBy::Remote
        },
        passage: match (flags & FLAG_DENIED != 0, flags & FLAG_EARLIER != 0) {
            (false, false) => Passage::Allowed,
            (false, true) => Passage::Kept,
            (true, false) => Passage::Denied(rule),
            (true, true) => Passage::Cut(rule),
        },
        steer,
        generation: meta as u16,
        last_seen_s: (meta >> LAST_SEEN_SHIFT) as u32 & SECONDS_MASK,
        packets: (head >> 32) as u32,
        bytes,
    }
}

#[cfg(test)]
#[path = "flow_table_tests.rs"]
mod tests;
