//! What two sites cannot both have.

use patronus_packet::Prefix;

use crate::machine::events::Clash;
use crate::subject::Subject;

/// The first thing that both have and only one can have: a name, a tunnel address, an overlapping prefix. Sites of one
/// group may have the same prefixes.
pub(super) fn clash(kept: &Subject, other: &Subject) -> Option<Clash> {
    if kept.name == other.name {
        return Some(Clash::Name);
    }
    let addresses = kept.addresses.as_slice();
    let same = |addr: &&std::net::IpAddr| addresses.binary_search(addr).is_ok();
    if let Some(addr) = other.addresses.as_slice().iter().find(same) {
        return Some(Clash::Address(*addr));
    }
    if kept.ha_group.is_some() && kept.ha_group == other.ha_group {
        return None;
    }
    let prefixes = kept.prefixes.as_slice();
    let overlaps_one = |prefix: &&Prefix| prefixes.iter().any(|kept| overlap(kept, prefix));
    let prefix = other.prefixes.as_slice().iter().find(overlaps_one)?;
    Some(Clash::Prefix(*prefix))
}

fn overlap(one: &Prefix, other: &Prefix) -> bool {
    one.contains(other.addr()) || other.contains(one.addr())
}
