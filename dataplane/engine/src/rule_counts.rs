//! What policy refused, by rule: one table per worker, of fixed size, with one writer and any number of readers.
//!
//! Rule numbers are never given to another rule, so a cell that belongs to one does so for good, and a reader needs
//! no lock. Rules beyond the table's size share one cell with what has no rule.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::flow_table::RuleNumber;

/// Rules with a cell of their own.
pub const RULES_MAX: usize = 4096;
/// Cells tried for one rule.
const PROBES_MAX: usize = 16;

/// What one rule, or one isolation, refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Which; [`RuleNumber::NONE`] is what has no rule, and rules that found no cell.
    pub rule: RuleNumber,
    /// Connections denied. ICMP errors and later fragments count one by one.
    pub connections: u64,
    /// Packets dropped.
    pub packets: u64,
    /// Connections whose verdict it would have turned, had it not been in audit mode.
    pub audited: u64,
    /// When it did any of that last, in seconds since the gateway's start.
    pub last_s: u32,
}

/// What is added to a rule's count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Added {
    pub connections: u64,
    pub packets: u64,
    pub audited: u64,
}

/// The shared half, to read.
#[derive(Debug)]
pub struct RuleCounts {
    /// The last one is for everything that has none.
    cells: Box<[Cell]>,
}

#[derive(Debug, Default)]
struct Cell {
    rule: AtomicU64,
    connections: AtomicU64,
    packets: AtomicU64,
    audited: AtomicU64,
    last_s: AtomicU32,
}

impl Default for RuleCounts {
    fn default() -> Self {
        let cells = (0..=RULES_MAX).map(|_| Cell::default());
        Self {
            cells: cells.collect(),
        }
    }
}

impl RuleCounts {
    /// What was counted since the worker started, rule by rule; each number is right by itself.
    pub fn iter(&self) -> impl Iterator<Item = RuleCount> {
        let counts = self.cells.iter().map(|cell| RuleCount {
            rule: RuleNumber(cell.rule.load(Ordering::Relaxed) as u32),
            connections: cell.connections.load(Ordering::Relaxed),
            packets: cell.packets.load(Ordering::Relaxed),
            audited: cell.audited.load(Ordering::Relaxed),
            last_s: cell.last_s.load(Ordering::Relaxed),
        });
        counts.filter(|it| it.connections | it.packets | it.audited != 0)
    }

    /// The rule's cell, taken for it where it has none yet. Only the worker may call this.
    pub(crate) fn cell_of(&self, rule: RuleNumber) -> usize {
        if rule == RuleNumber::NONE {
            return RULES_MAX;
        }
        // Fibonacci hashing: neighbouring numbers, which are the common case, spread evenly.
        let first = (rule.0.wrapping_mul(0x9e37_79b9) >> 20) as usize;
        for probe in 0..PROBES_MAX {
            let at = (first + probe) % RULES_MAX;
            match self.cells[at].rule.load(Ordering::Relaxed) {
                0 => {
                    self.cells[at].rule.store(rule.0.into(), Ordering::Relaxed);
                    return at;
                }
                taken if taken == u64::from(rule.0) => return at,
                _ => {}
            }
        }
        RULES_MAX
    }

    pub(crate) fn add(&self, cell: usize, added: Added, now_s: u32) {
        let cell = &self.cells[cell];
        let Added {
            connections,
            packets,
            audited,
        } = added;
        // A load and a store, not an addition: there is one writer.
        let add = |to: &AtomicU64, value: u64| {
            if value > 0 {
                to.store(to.load(Ordering::Relaxed) + value, Ordering::Relaxed);
            }
        };
        add(&cell.connections, connections);
        add(&cell.packets, packets);
        add(&cell.audited, audited);
        cell.last_s.store(now_s, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_counts_for_itself_until_the_table_is_full_and_nothing_is_lost_then() {
        let counts = RuleCounts::default();
        let mut shared = 0;
        for number in 1..=2 * RULES_MAX as u32 {
            for _ in 0..2 {
                let cell = counts.cell_of(RuleNumber(number));
                shared += u64::from(cell == RULES_MAX);
                let added = Added {
                    connections: 1,
                    packets: u64::from(number),
                    audited: 0,
                };
                counts.add(cell, added, number);
            }
        }
        let all: Vec<_> = counts.iter().collect();
        let sum: u64 = all.iter().map(|it| it.packets).sum();
        assert_eq!(sum, (1..=2 * RULES_MAX as u64).sum::<u64>() * 2);
        assert!(all.len() > RULES_MAX * 9 / 10, "{} cells in use", all.len());
        for count in all.iter().filter(|it| it.rule != RuleNumber::NONE) {
            assert_eq!(
                (count.connections, count.packets, count.last_s),
                (2, u64::from(count.rule.0) * 2, count.rule.0)
            );
        }
        let other = all.iter().find(|it| it.rule == RuleNumber::NONE);
        assert_eq!(other.map(|it| it.connections), Some(shared));
    }

    #[test]
    fn a_few_thousand_rules_have_cells_of_their_own() {
        let counts = RuleCounts::default();
        assert!((1..=3000).all(|rule| counts.cell_of(RuleNumber(rule)) < RULES_MAX));
    }
}
