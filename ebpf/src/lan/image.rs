//! Policy's rows packed for one slot of the maps: what finds a place, and what becomes of what finds none.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::layout::{
    ASK, Addr4, Addr6, Block4, Block6, Class, END_ASK, END_USED, End, NONE, PROBES, Peer, Port,
    Row, SLOT_ANSWER, SLOT_KEEP, SLOT_PARTIAL4, SLOT_PARTIAL6, Set, Slot, action_number, hash4,
    hash6, lane, row_place,
};
use super::limits::LanLimits;
use super::tables::{LanAddress, LanBlock, LanPeer, LanPeerOf, LanPort, LanTables};
use super::twin::bits_of;

/// Seeds tried until every address is found within [`PROBES`] cells.
const SEEDS: u32 = 8;

/// What found no place. Nothing of it is dropped in the kernel: user space judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanOverflow {
    /// Classes of pods of which a row found no place: all that these pods send and receive is judged in user space.
    pub classes: Vec<u32>,
    /// Addresses that found no place: what has an end that is not in the maps is judged in user space.
    pub addresses: Vec<IpAddr>,
    /// Rules without a counter of their own: what is dropped under them is counted under none.
    pub rules: Vec<u32>,
}

impl LanOverflow {
    /// Whether all found a place.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.addresses.is_empty() && self.rules.is_empty()
    }
}

/// Which counter a rule has: it keeps it for as long as the program lives, as policy never gives its number to another.
#[derive(Debug, Default)]
pub(super) struct Counters {
    places: HashMap<u32, u32>,
}

impl Counters {
    /// The counter of a rule; 0 is that of no rule.
    fn place_of(&mut self, rule: u32, limits: &LanLimits, full: &mut BTreeSet<u32>) -> u32 {
        if rule == 0 {
            return 0;
        }
        if let Some(place) = self.places.get(&rule) {
            return *place;
        }
        let place = self.places.len() as u32 + 1;
        if place >= limits.counters {
            full.insert(rule);
            return 0;
        }
        self.places.insert(rule, place);
        place
    }

    /// The rules with their counters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.places.iter().map(|(rule, place)| (*rule, *place))
    }

    /// Whether a policy has rules that find no counter here, but would find one in a new copy of the program with room
    /// for `max`: counters of rules that are gone take room for good.
    pub(super) fn lacks(&self, tables: &LanTables, limit: u32, max: u32) -> bool {
        let rules: BTreeSet<u32> = rules_of(tables).collect();
        let new = rules
            .iter()
            .filter(|it| !self.places.contains_key(it))
            .count();
        let used = self.places.len() + 1;
        new > 0 && used + new > limit as usize && rules.len() < max as usize
    }
}

/// Every rule that may be counted, some of them several times.
pub(super) fn rules_of(tables: &LanTables) -> impl Iterator<Item = u32> {
    let isolations = tables.rows.iter().map(|it| it.isolation);
    let rules = tables.ports.iter().map(|it| it.rule).chain(isolations);
    rules.filter(|it| *it != 0)
}

/// The content of one slot. Indices in it are absolute.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) slot: Slot,
    pub(super) addr4: Vec<Addr4>,
    pub(super) addr6: Vec<Addr6>,
    pub(super) classes: Vec<Class>,
    pub(super) rows: Vec<Row>,
    pub(super) peers: Vec<Peer>,
    pub(super) blocks4: Vec<Block4>,
    pub(super) blocks6: Vec<Block6>,
    pub(super) sets: Vec<Set>,
    pub(super) ports: Vec<Port>,
}

/// Packs tables into slot `number` of maps that hold `limits` in each slot; the slot's sequence is left open.
pub(super) fn pack(
    tables: &LanTables,
    limits: &LanLimits,
    number: u32,
    counters: &mut Counters,
) -> (Image, LanOverflow) {
    let mut packer = Packer {
        tables,
        limits,
        base: Bases::of(limits, number),
        by: Groups::of(tables),
        counters,
        image: Image::default(),
        sets: vec![NONE; tables.sets as usize],
        full_rules: BTreeSet::new(),
    };
    let places: Vec<u32> = (0..tables.rows.len() as u32)
        .map(|row| packer.row(row).unwrap_or(NONE))
        .collect();
    let mut overflow = LanOverflow {
        classes: packer.classes(&places),
        ..LanOverflow::default()
    };
    packer.addresses(&mut overflow);
    let Packer {
        base,
        mut image,
        full_rules,
        ..
    } = packer;
    overflow.rules = full_rules.into_iter().collect();
    for (is_set, flag) in [
        (tables.keep_established, SLOT_KEEP),
        (tables.answers_denials, SLOT_ANSWER),
    ] {
        if is_set {
            image.slot.flags |= flag;
        }
    }
    image.slot.classes = base.classes;
    image.slot.classes_len = image.classes.len() as u32;
    (image, overflow)
}

/// Where a slot's halves of the arrays begin.
struct Bases {
    addr4: u32,
    addr6: u32,
    classes: u32,
    rows: u32,
    peers: u32,
    blocks4: u32,
    blocks6: u32,
    sets: u32,
    ports: u32,
}

impl Bases {
    fn of(limits: &LanLimits, number: u32) -> Self {
        Self {
            addr4: number * limits.addr4,
            addr6: number * limits.addr6,
            classes: number * limits.classes,
            rows: number * limits.rows,
            peers: number * limits.peers,
            blocks4: number * limits.blocks4,
            blocks6: number * limits.blocks6,
            sets: number * limits.sets,
            ports: number * limits.ports,
        }
    }
}

/// The tables by what they belong to.
struct Groups<'a> {
    peers: Vec<Vec<&'a LanPeer>>,
    blocks: Vec<Vec<&'a LanBlock>>,
    ports: Vec<Vec<&'a LanPort>>,
}

impl<'a> Groups<'a> {
    fn of(tables: &'a LanTables) -> Self {
        let mut groups = Self {
            peers: vec![Vec::new(); tables.rows.len()],
            blocks: vec![Vec::new(); tables.rows.len()],
            ports: vec![Vec::new(); tables.sets as usize],
        };
        for it in &tables.peers {
            if let Some(of_row) = groups.peers.get_mut(it.row as usize) {
                of_row.push(it);
            }
        }
        for it in &tables.blocks {
            if let Some(of_row) = groups.blocks.get_mut(it.row as usize) {
                of_row.push(it);
            }
        }
        for it in &tables.ports {
            if let Some(of_set) = groups.ports.get_mut(it.set as usize) {
                of_set.push(it);
            }
        }
        groups
    }
}

struct Packer<'a> {
    tables: &'a LanTables,
    limits: &'a LanLimits,
    base: Bases,
    by: Groups<'a>,
    counters: &'a mut Counters,
    image: Image,
    /// Where each port set is, if it has a place.
    sets: Vec<u32>,
    full_rules: BTreeSet<u32>,
}

impl Packer<'_> {
    /// Packs a row and says where; `None`: there is no room for all of it, or it makes no sense.
    fn row(&mut self, number: u32) -> Option<u32> {
        let at = number as usize;
        let v4 = starts(&self.by.blocks[at], true)?;
        let v6 = starts(&self.by.blocks[at], false)?;
        let (mut any, mut any_pod) = (NONE, NONE);
        let mut listed = Vec::new();
        for it in &self.by.peers[at] {
            match it.peer {
                LanPeerOf::Anyone => any = it.set,
                LanPeerOf::AnyPod => any_pod = it.set,
                LanPeerOf::Class(class) => listed.push((class, it.set)),
            }
        }
        listed.sort_unstable();
        let needed = [any, any_pod].into_iter().filter(|it| *it != NONE);
        let needed = needed.chain(listed.iter().map(|it| it.1));
        let needed = needed.chain(v4.iter().chain(&v6).map(|it| it.1));
        let missing: BTreeSet<u32> = needed
            .filter(|set| self.sets.get(*set as usize).is_none_or(|it| *it == NONE))
            .collect();
        let mut ports = 0;
        for set in &missing {
            ports += self.by.ports.get(*set as usize)?.len();
        }
        let image = &self.image;
        let fits = |used: usize, more: usize, limit: u32| used + more <= limit as usize;
        let has_room = fits(image.rows.len(), 1, self.limits.rows)
            && fits(image.peers.len(), listed.len(), self.limits.peers)
            && fits(image.blocks4.len(), v4.len(), self.limits.blocks4)
            && fits(image.blocks6.len(), v6.len(), self.limits.blocks6)
            && fits(image.sets.len(), missing.len(), self.limits.sets)
            && fits(image.ports.len(), ports, self.limits.ports);
        if !has_room {
            return None;
        }
        for set in missing {
            self.set(set);
        }
        let head = self.tables.rows[at];
        let row = Row {
            flags: if head.ask { ASK } else { 0 },
            isolation: self
                .counters
                .place_of(head.isolation, self.limits, &mut self.full_rules),
            any: self.set_place(any),
            any_pod: self.set_place(any_pod),
            peers: self.base.peers + self.image.peers.len() as u32,
            peers_len: listed.len() as u32,
            blocks4: self.base.blocks4 + self.image.blocks4.len() as u32,
            blocks4_len: v4.len() as u32,
            blocks6: self.base.blocks6 + self.image.blocks6.len() as u32,
            blocks6_len: v6.len() as u32,
        };
        for (class, set) in listed {
            let set = self.set_place(set);
            self.image.peers.push(Peer { class, set });
        }
        for (first, set) in v4 {
            let (first, set) = (first as u32, self.set_place(set));
            self.image.blocks4.push(Block4 { first, set });
        }
        for (first, set) in v6 {
            let block = Block6 {
                hi: (first >> 64) as u64,
                lo: first as u64,
                set: self.set_place(set),
                pad: 0,
            };
            self.image.blocks6.push(block);
        }
        let place = self.base.rows + self.image.rows.len() as u32;
        self.image.rows.push(row);
        Some(place)
    }

    fn set_place(&self, set: u32) -> u32 {
        self.sets.get(set as usize).copied().unwrap_or(NONE)
    }

    fn set(&mut self, number: u32) {
        let mut entries = self.by.ports[number as usize].clone();
        entries.sort_by_key(|it| (lane(it.protocol).unwrap_or(3), it.first));
        let mut set = Set {
            at: [self.base.ports + self.image.ports.len() as u32; 4],
            other: NONE,
            pad: 0,
        };
        for it in entries {
            let counter = self
                .counters
                .place_of(it.rule, self.limits, &mut self.full_rules);
            let place = self.base.ports + self.image.ports.len() as u32;
            self.image.ports.push(Port {
                first: it.first,
                last: it.last,
                order: it.order,
                counter,
                action: action_number(it.action),
            });
            match lane(it.protocol) {
                Some(lane) => set.at[lane + 1..].fill(place + 1),
                None => set.other = place,
            }
        }
        self.sets[number as usize] = self.base.sets + self.image.sets.len() as u32;
        self.image.sets.push(set);
    }

    /// Packs the classes, and says which of them are left to user space.
    fn classes(&mut self, places: &[u32]) -> Vec<u32> {
        let of_subjects = self.tables.subjects.iter().map(|it| it.class);
        let of_addresses = self.tables.addresses.iter().filter_map(|it| it.class);
        let last = of_subjects.chain(of_addresses).max();
        let len = last.map_or(0, |it| it.saturating_add(1));
        let empty = Class {
            row: [NONE; 6],
            ..Class::default()
        };
        let mut left = BTreeSet::new();
        self.image.classes = vec![empty; len.min(self.limits.classes) as usize];
        for it in &self.tables.subjects {
            let place = places.get(it.row as usize).copied().unwrap_or(NONE);
            let Some(class) = self.image.classes.get_mut(it.class as usize) else {
                left.insert(it.class);
                continue;
            };
            class.row[row_place(it.direction, it.layer)] = place;
            if place == NONE {
                class.flags |= ASK;
                left.insert(it.class);
            }
        }
        let beyond = self.tables.addresses.iter().filter_map(|it| it.class);
        left.extend(beyond.filter(|it| *it >= self.limits.classes));
        left.into_iter().collect()
    }

    fn addresses(&mut self, overflow: &mut LanOverflow) {
        let (v4, v6): (Vec<&LanAddress>, Vec<&LanAddress>) = self
            .tables
            .addresses
            .iter()
            .partition(|it| it.addr.is_ipv4());
        let slot = &mut self.image.slot;
        slot.addr4 = self.base.addr4;
        slot.addr6 = self.base.addr6;
        // Both families try the same seeds, and the first that suits both is taken.
        let mut best: Option<(usize, u32, Hashed, Hashed)> = None;
        for seed in 0..SEEDS {
            let hashed4 = hashed(&v4, self.limits.addr4, seed);
            let hashed6 = hashed(&v6, self.limits.addr6, seed);
            let left = hashed4.left.len() + hashed6.left.len();
            if best.as_ref().is_none_or(|it| left < it.0) {
                best = Some((left, seed, hashed4, hashed6));
            }
            if left == 0 {
                break;
            }
        }
        let Some((_, seed, hashed4, hashed6)) = best else {
            return;
        };
        slot.seed = seed;
        slot.addr4_mask = hashed4.cells.len() as u32 - 1;
        slot.addr6_mask = hashed6.cells.len() as u32 - 1;
        for (left, flag) in [
            (&hashed4.left, SLOT_PARTIAL4),
            (&hashed6.left, SLOT_PARTIAL6),
        ] {
            if !left.is_empty() {
                slot.flags |= flag;
            }
            overflow.addresses.extend(left);
        }
        let cells4 = hashed4.cells.iter().map(|it| {
            it.map_or_else(Addr4::default, |it| Addr4 {
                addr: bits_of(it.addr).1 as u32,
                end: end_of(it),
            })
        });
        self.image.addr4 = cells4.collect();
        let cells6 = hashed6.cells.iter().map(|it| {
            it.map_or_else(Addr6::default, |it| {
                let bits = bits_of(it.addr).1;
                Addr6 {
                    hi: (bits >> 64) as u64,
                    lo: bits as u64,
                    end: end_of(it),
                    pad: 0,
                }
            })
        });
        self.image.addr6 = cells6.collect();
    }
}

/// Addresses of one family in their cells.
struct Hashed<'a> {
    cells: Vec<Option<&'a LanAddress>>,
    left: Vec<IpAddr>,
}

fn hashed<'a>(all: &[&'a LanAddress], cells_max: u32, seed: u32) -> Hashed<'a> {
    let wanted = (all.len() * 2).next_power_of_two().max(8);
    let cells = wanted.min(cells_max as usize);
    debug_assert!(cells.is_power_of_two());
    let mut hashed = Hashed {
        cells: vec![None; cells],
        left: Vec::new(),
    };
    for it in all {
        let first = match it.addr {
            IpAddr::V4(v4) => hash4(v4.to_bits(), seed),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                hash6((bits >> 64) as u64, bits as u64, seed)
            }
        };
        let mut probes = (0..PROBES).map(|probe| first.wrapping_add(probe) as usize & (cells - 1));
        match probes.find(|at| hashed.cells[*at].is_none()) {
            Some(at) => hashed.cells[at] = Some(it),
            None => hashed.left.push(it.addr),
        }
    }
    hashed
}

fn end_of(it: &LanAddress) -> End {
    End {
        class: it.class.unwrap_or(NONE),
        pod: it.pod.unwrap_or(NONE),
        home: it.home.unwrap_or(NONE),
        host_of: it.host_of.unwrap_or(NONE),
        flags: END_USED | if it.ask { END_ASK } else { 0 },
    }
}

/// The blocks of one family as the addresses from which on each set holds. `None`: they leave gaps or overlap.
pub(super) fn starts(blocks: &[&LanBlock], is_v4: bool) -> Option<Vec<(u128, u32)>> {
    let mut ranges: Vec<(u128, u128, u32)> = Vec::new();
    for it in blocks.iter().filter(|it| it.addr.is_ipv4() == is_v4) {
        let width: u32 = if is_v4 { 32 } else { 128 };
        let hosts = width.checked_sub(u32::from(it.prefix_len))?;
        let size = 1u128.checked_shl(hosts).map_or(u128::MAX, |it| it - 1);
        let first = bits_of(it.addr).1 & !size;
        ranges.push((first, first | size, it.set));
    }
    ranges.sort_unstable();
    let mut starts: Vec<(u128, u32)> = Vec::new();
    let mut next = Some(0u128);
    for (first, last, set) in ranges {
        if next != Some(first) {
            return None;
        }
        next = last.checked_add(1);
        if starts.last().is_none_or(|it| it.1 != set) {
            starts.push((first, set));
        }
    }
    let end = if is_v4 { Some(1 << 32) } else { None };
    (starts.is_empty() || next == end).then_some(starts)
}
