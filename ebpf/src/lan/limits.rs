//! How much of a policy the maps hold.

use std::collections::BTreeSet;

use super::image::rules_of;
use super::layout::{Addr4, Addr6, Block4, Block6, Class, Counter, Peer, Port, Row, Set};
use super::tables::{LanPeerOf, LanTables};
use crate::fill::MapFill;

/// Entries of each map, for one policy: there are twice as many, because the next one is written beside the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanLimits {
    /// Cells for IPv4 addresses, a power of two; half of them are used at most where there is room.
    pub addr4: u32,
    /// The same for IPv6.
    pub addr6: u32,
    /// Classes of pods.
    pub classes: u32,
    /// Rows.
    pub rows: u32,
    /// Peers of all rows.
    pub peers: u32,
    /// IPv4 blocks of all rows, after they were cut into pieces that do not overlap.
    pub blocks4: u32,
    /// The same for IPv6.
    pub blocks6: u32,
    /// Port sets.
    pub sets: u32,
    /// Intervals of all port sets.
    pub ports: u32,
    /// Counters of rules; there is one set of them per CPU, and none for the next policy.
    pub counters: u32,
}

impl LanLimits {
    /// What a small policy is given.
    pub const MIN: Self = Self {
        addr4: 1 << 10,
        addr6: 1 << 10,
        classes: 1 << 8,
        rows: 1 << 8,
        peers: 1 << 10,
        blocks4: 1 << 10,
        blocks6: 1 << 10,
        sets: 1 << 10,
        ports: 1 << 11,
        counters: 1 << 9,
    };
    /// What the largest policy is given: 500,000 addresses of each family, a million rows' worth of peers. What is
    /// beyond it is judged in user space.
    pub const MAX: Self = Self {
        addr4: 1 << 20,
        addr6: 1 << 20,
        classes: 1 << 18,
        rows: 1 << 17,
        peers: 1 << 22,
        blocks4: 1 << 20,
        blocks6: 1 << 20,
        sets: 1 << 20,
        ports: 1 << 21,
        counters: 1 << 16,
    };

    /// Enough for these tables and for some growth, between [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    pub fn for_tables(tables: &LanTables) -> Self {
        Self::needed(tables)
            .map2(&Self::MIN, |need, min| {
                // Half as much again, and round.
                (need + need / 2).max(min).next_power_of_two()
            })
            .map2(&Self::MAX, u32::min)
    }

    /// What these tables need.
    pub(super) fn needed(tables: &LanTables) -> Self {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX / 4).min(u32::MAX / 4);
        let v4 = tables
            .addresses
            .iter()
            .filter(|it| it.addr.is_ipv4())
            .count();
        let v6 = tables.addresses.len() - v4;
        let cells = |len: usize| count((len * 2).next_power_of_two());
        let of_subjects = tables.subjects.iter().map(|it| it.class);
        let of_addresses = tables.addresses.iter().filter_map(|it| it.class);
        let classes = of_subjects
            .chain(of_addresses)
            .max()
            .map_or(0, |it| it as usize + 1);
        let listed = tables.peers.iter();
        let listed = listed
            .filter(|it| matches!(it.peer, LanPeerOf::Class(_)))
            .count();
        let blocks4 = tables.blocks.iter().filter(|it| it.addr.is_ipv4()).count();
        let rules: BTreeSet<u32> = rules_of(tables).collect();
        Self {
            addr4: cells(v4),
            addr6: cells(v6),
            classes: count(classes),
            rows: count(tables.rows.len()),
            peers: count(listed),
            blocks4: count(blocks4),
            blocks6: count(tables.blocks.len() - blocks4),
            sets: tables.sets.min(u32::MAX / 4),
            ports: count(tables.ports.len()),
            counters: count(rules.len() + 1),
        }
    }

    /// Whether every limit is at least that of `need`.
    pub(super) fn holds(&self, need: &Self) -> bool {
        self.map2(need, u32::max) == *self
    }

    /// Bytes of all maps in both slots, counters left out, of which there are as many as CPUs.
    pub fn bytes(&self) -> u64 {
        let one = |count: u32, size: usize| u64::from(count) * size.next_multiple_of(8) as u64;
        2 * (one(self.addr4, size_of::<Addr4>())
            + one(self.addr6, size_of::<Addr6>())
            + one(self.classes, size_of::<Class>())
            + one(self.rows, size_of::<Row>())
            + one(self.peers, size_of::<Peer>())
            + one(self.blocks4, size_of::<Block4>())
            + one(self.blocks6, size_of::<Block6>())
            + one(self.sets, size_of::<Set>())
            + one(self.ports, size_of::<Port>()))
    }

    /// How full tables are that need this and may have `most`.
    pub(super) fn fills(&self, most: &Self) -> Vec<MapFill> {
        let of = |map, entries: u32, entries_max: u32| MapFill {
            map,
            entries: u64::from(entries.min(entries_max)),
            entries_max: u64::from(entries_max),
        };
        vec![
            of("lan_addresses4", self.addr4, most.addr4),
            of("lan_addresses6", self.addr6, most.addr6),
            of("lan_classes", self.classes, most.classes),
            of("lan_rows", self.rows, most.rows),
            of("lan_peers", self.peers, most.peers),
            of("lan_blocks4", self.blocks4, most.blocks4),
            of("lan_blocks6", self.blocks6, most.blocks6),
            of("lan_sets", self.sets, most.sets),
            of("lan_ports", self.ports, most.ports),
            of("lan_counters", self.counters, most.counters),
        ]
    }

    /// Bytes of the counters on each CPU.
    pub fn counter_bytes(&self) -> u64 {
        u64::from(self.counters) * size_of::<Counter>() as u64
    }

    pub(super) fn map2(&self, other: &Self, f: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            addr4: f(self.addr4, other.addr4),
            addr6: f(self.addr6, other.addr6),
            classes: f(self.classes, other.classes),
            rows: f(self.rows, other.rows),
            peers: f(self.peers, other.peers),
            blocks4: f(self.blocks4, other.blocks4),
            blocks6: f(self.blocks6, other.blocks6),
            sets: f(self.sets, other.sets),
            ports: f(self.ports, other.ports),
            counters: f(self.counters, other.counters),
        }
    }
}
