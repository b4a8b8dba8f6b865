//! A row with a few classes brought up to date, as when one comes or goes: what it says of all others is copied and
//! not compiled.
//!
//! The result is what [`build`](crate::row_build::build) makes, but for the numbers of port sets: it holds every
//! port set once, and none that nobody has.

use crate::ids::ClassId;
use crate::ports::{Interval, PortSet};
use crate::row::Row;
use crate::row_build::{Columns, hashed};

/// `old` where `columns` holds of `changed` classes, which are sorted; `None` where it says so already.
pub(crate) fn patched(old: &Row, changed: &[ClassId], columns: &Columns) -> Option<Row> {
    let mut sets = Sets::of(old);
    let mut moves: Vec<Move> = Vec::new();
    for class in changed {
        let listed = columns.listed.binary_search_by_key(class, |it| it.0);
        let to = match listed {
            Ok(at) => sets.number_of(columns.listed[at].1, columns),
            Err(_) => old.any_pod,
        };
        let from = old.peer_set(*class);
        if from != to {
            let class = *class;
            moves.push(Move { class, from, to });
        }
    }
    if moves.is_empty() {
        return None;
    }
    let mut row = Row {
        layer: old.layer,
        any: old.any,
        any_pod: old.any_pod,
        peers: moved_peers(old, &moves),
        v4: old.v4.clone(),
        v6: old.v6.clone(),
        named_blocks: old.named_blocks.clone(),
        sets: sets.sets.into(),
        intervals: sets.intervals.into(),
        rules: old.rules.clone(),
        isolation: old.isolation,
        policies: old.policies.clone(),
    };
    if moves.iter().any(|it| !has_set(&row, it.from)) {
        drop_unused_sets(&mut row);
    }
    Some(row)
}

/// A class whose port set is another.
struct Move {
    class: ClassId,
    from: u32,
    to: u32,
}

fn moved_peers(row: &Row, moves: &[Move]) -> Box<[(ClassId, u32)]> {
    let is_listed = |set| set != row.any_pod;
    let went = moves.iter().filter(|it| is_listed(it.from)).count();
    let came = moves.iter().filter(|it| is_listed(it.to));
    let came = came.map(|it| (it.class, it.to));
    let moved = |class| moves.binary_search_by_key(&class, |it| it.class).is_ok();
    let kept = row.listed().filter(|it| !moved(it.0));
    let count = row.listed().count() - went + came.clone().count();
    hashed(count, kept.chain(came))
}

/// A row's port sets, and those that it has not yet.
struct Sets {
    sets: Vec<PortSet>,
    intervals: Vec<Interval>,
}

impl Sets {
    fn of(row: &Row) -> Self {
        Self {
            sets: row.sets.to_vec(),
            intervals: row.intervals.to_vec(),
        }
    }

    /// Under which number the row has a set of the columns; added if it has not.
    fn number_of(&mut self, set: u32, columns: &Columns) -> u32 {
        let set = columns.sets[set as usize];
        let mut known = self.sets.iter();
        let is_like = |it: &PortSet| it.is_like(&self.intervals, &set, &columns.intervals);
        if let Some(at) = known.position(is_like) {
            return at as u32;
        }
        self.sets.push(set.moved_to(self.intervals.len()));
        self.intervals.extend(&columns.intervals[set.span()]);
        (self.sets.len() - 1) as u32
    }
}

fn has_set(row: &Row, set: u32) -> bool {
    row.any == set
        || row.any_pod == set
        || row.v4.iter().any(|it| it.1 == set)
        || row.v6.iter().any(|it| it.1 == set)
        || row.listed().any(|it| it.1 == set)
}

/// Numbers the sets anew, without those that nobody has.
fn drop_unused_sets(row: &mut Row) {
    let listed = row.peers.iter_mut().filter(|it| it.0 != ClassId::NONE);
    let users = listed.map(|it| &mut it.1);
    let users = users.chain([&mut row.any, &mut row.any_pod]);
    let users = users.chain(row.v4.iter_mut().map(|it| &mut it.1));
    let users = users.chain(row.v6.iter_mut().map(|it| &mut it.1));
    let (mut sets, mut intervals) = (Vec::new(), Vec::new());
    let mut numbers: Vec<Option<u32>> = vec![None; row.sets.len()];
    for user in users {
        *user = *numbers[*user as usize].get_or_insert_with(|| {
            let set = row.sets[*user as usize];
            sets.push(set.moved_to(intervals.len()));
            intervals.extend(&row.intervals[set.span()]);
            (sets.len() - 1) as u32
        });
    }
    row.sets = sets.into();
    row.intervals = intervals.into();
}
