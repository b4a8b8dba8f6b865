//! Which interface stands for which uplink: what a socket needs to send a datagram out of the uplink that its endpoint
//! names, and to name the uplink that one came in on. The table is small, fixed in size and changed by control when
//! interfaces come and go; the socket stays.

use patronus_packet::UplinkId;

/// How datagrams leave by an uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Way {
    /// Nothing is sent: its interface does not exist at the moment, or nobody knows the uplink.
    #[default]
    Missing,
    /// As the kernel's routes say; it names no interface.
    Routes,
    /// Out of the interface with this index and no other.
    Interface(u32),
}

impl Way {
    /// The interface index for `IP_PKTINFO` and `IPV6_PKTINFO`: 0 lets the routes choose. `None` where nothing may be
    /// sent.
    pub(crate) fn ifindex(self) -> Option<u32> {
        match self {
            Self::Missing | Self::Interface(0) => None,
            Self::Routes => Some(0),
            Self::Interface(index) => Some(index),
        }
    }
}

/// A set of uplinks, none of them [`UplinkId::ANY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkSet(u16);

impl UplinkSet {
    /// Puts an uplink in; [`UplinkId::ANY`] and numbers that no uplink has change nothing.
    pub fn insert(&mut self, uplink: UplinkId) {
        if usize::from(uplink.0) < UplinkId::COUNT_MAX {
            self.0 |= 1 << uplink.0;
        }
    }

    /// Takes an uplink out.
    pub fn remove(&mut self, uplink: UplinkId) {
        if usize::from(uplink.0) < UplinkId::COUNT_MAX {
            self.0 &= !(1 << uplink.0);
        }
    }

    /// Whether an uplink is in.
    pub fn contains(self, uplink: UplinkId) -> bool {
        usize::from(uplink.0) < UplinkId::COUNT_MAX && self.0 >> uplink.0 & 1 == 1
    }

    /// Whether none is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The uplinks, by number.
    pub fn iter(self) -> impl Iterator<Item = UplinkId> {
        (0..UplinkId::COUNT_MAX as u8)
            .map(UplinkId)
            .filter(move |uplink| self.contains(*uplink))
    }
}

/// The uplinks that a socket serves.
#[derive(Clone, Debug)]
pub(crate) struct UplinkTable {
    /// Of an uplink that nobody told of.
    otherwise: Way,
    ways: [Way; UplinkId::COUNT_MAX],
    /// The uplinks that have an interface, with its index.
    arrivals: Vec<(u32, UplinkId)>,
}

impl Default for UplinkTable {
    /// No uplinks: there is one way out, and whatever is left of others goes by it.
    fn default() -> Self {
        Self {
            otherwise: Way::Routes,
            ways: [Way::Routes; UplinkId::COUNT_MAX],
            arrivals: Vec::new(),
        }
    }
}

impl UplinkTable {
    /// Only numbers below [`UplinkId::COUNT_MAX`] can be served; where two name one interface, what comes in on it came
    /// on the first.
    pub(crate) fn new(uplinks: &[(UplinkId, Way)]) -> Self {
        if uplinks.is_empty() {
            return Self::default();
        }
        let mut table = Self {
            otherwise: Way::Missing,
            ways: [Way::Missing; UplinkId::COUNT_MAX],
            arrivals: Vec::new(),
        };
        for (uplink, way) in uplinks {
            let Some(slot) = table.ways.get_mut(usize::from(uplink.0)) else {
                debug_assert!(false, "no uplink has number {}", uplink.0);
                continue;
            };
            *slot = *way;
            if let Way::Interface(index) = way {
                table.arrivals.push((*index, *uplink));
            }
        }
        table
    }

    /// How to send by `uplink`.
    #[inline]
    pub(crate) fn way(&self, uplink: UplinkId) -> Way {
        match uplink {
            UplinkId::ANY => Way::Routes,
            UplinkId(number) => self
                .ways
                .get(usize::from(number))
                .copied()
                .unwrap_or(self.otherwise),
        }
    }

    /// The uplink of what came in on an interface.
    #[inline]
    pub(crate) fn uplink_of(&self, ifindex: u32) -> UplinkId {
        let found = self.arrivals.iter().find(|(index, _)| *index == ifindex);
        found.map_or(UplinkId::ANY, |(_, uplink)| *uplink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_that_is_not_in_the_table_or_has_no_interface_sends_nothing() {
        let table = UplinkTable::new(&[
            (UplinkId(0), Way::Interface(7)),
            (UplinkId(1), Way::Missing),
            (UplinkId(2), Way::Routes),
            (UplinkId(3), Way::Interface(0)),
        ]);
        let ifindex = |uplink| table.way(uplink).ifindex();
        assert_eq!(ifindex(UplinkId(0)), Some(7));
        assert_eq!(ifindex(UplinkId(1)), None);
        assert_eq!(ifindex(UplinkId(2)), Some(0));
        assert_eq!(ifindex(UplinkId(3)), None);
        assert_eq!(ifindex(UplinkId(4)), None);
        assert_eq!(ifindex(UplinkId(77)), None);
        assert_eq!(ifindex(UplinkId::ANY), Some(0));
    }

    #[test]
    fn where_there_are_no_uplinks_everything_goes_by_the_routes() {
        let table = UplinkTable::new(&[]);
        for uplink in [UplinkId(0), UplinkId(15), UplinkId(77), UplinkId::ANY] {
            assert_eq!(table.way(uplink), Way::Routes);
        }
        assert_eq!(table.uplink_of(7), UplinkId::ANY);
    }

    #[test]
    fn an_interface_names_its_uplink_and_a_foreign_one_none() {
        let table = UplinkTable::new(&[
            (UplinkId(4), Way::Interface(7)),
            (UplinkId(1), Way::Interface(9)),
            (UplinkId(2), Way::Routes),
        ]);
        assert_eq!(table.uplink_of(7), UplinkId(4));
        assert_eq!(table.uplink_of(9), UplinkId(1));
        assert_eq!(table.uplink_of(1), UplinkId::ANY);
        assert_eq!(table.uplink_of(0), UplinkId::ANY);
    }

    #[test]
    fn a_set_holds_uplinks_and_nothing_else() {
        let mut set = UplinkSet::default();
        set.insert(UplinkId::ANY);
        set.insert(UplinkId(16));
        assert!(set.is_empty() && !set.contains(UplinkId::ANY));
        set.insert(UplinkId(15));
        set.insert(UplinkId(0));
        assert_eq!(set.iter().collect::<Vec<_>>(), [UplinkId(0), UplinkId(15)]);
        set.remove(UplinkId(0));
        set.remove(UplinkId::ANY);
        assert!(!set.contains(UplinkId(0)) && set.contains(UplinkId(15)));
        let mut other = UplinkSet::default();
        other.insert(UplinkId(3));
        assert!(set.union(other).contains(UplinkId(3)) && set.union(other).contains(UplinkId(15)));
    }
}
