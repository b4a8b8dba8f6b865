//! The connections that are judged: any with any, of which default-deny lets few pass, and a mix as a gateway sees
//! it, half of which pass.

use std::net::{IpAddr, Ipv4Addr};

use patronus_policy::model::Connection;
use patronus_policy::{PolicyTable, scale};

/// A set of connections.
pub struct Set {
    pub name: &'static str,
    pub connections: Vec<Connection>,
}

/// Both sets, of so many connections at most.
pub fn sets(table: &PolicyTable, endpoints: usize, wanted: usize) -> Vec<Set> {
    let mut dice = Dice(1);
    let any = (0..wanted).map(|_| dice.connection(endpoints)).collect();
    vec![
        Set {
            name: "any",
            connections: any,
        },
        Set {
            name: "mix",
            connections: mix(table, endpoints, wanted, &mut dice),
        },
    ]
}

/// Half of them pass: those that do are drawn for as long as it takes, within a bound.
fn mix(table: &PolicyTable, endpoints: usize, wanted: usize, dice: &mut Dice) -> Vec<Connection> {
    let mut left = [wanted / 2, wanted / 2];
    let mut found = Vec::with_capacity(wanted);
    for _ in 0..wanted.saturating_mul(DRAWS_MAX) {
        if left == [0, 0] {
            break;
        }
        let connection = dice.connection(endpoints);
        let at = usize::from(table.judge(&connection).allow);
        if left[at] > 0 {
            left[at] -= 1;
            found.push(connection);
        }
    }
    // Both halves in turn, so that no branch can be foreseen.
    for at in (1..found.len()).rev() {
        found.swap(at, dice.below(at + 1));
    }
    found
}

/// A seeded generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    /// One in ten goes to an address outside, into the blocks that policies name.
    fn connection(&mut self, endpoints: usize) -> Connection {
        let outside = IpAddr::V4(Ipv4Addr::from_bits(
            0xc633_0000 | self.below(1 << 16) as u32,
        ));
        let dst = match self.below(10) {
            0 => outside,
            _ => scale::address(self.below(endpoints)),
        };
        Connection {
            src: scale::address(self.below(endpoints)),
            dst,
            protocol: [6, 6, 6, 17][self.below(4)],
            dst_port: [80, 443, 8080, 8443, 53, 22][self.below(6)],
        }
    }
}

/// How many connections are drawn for each that is wanted.
const DRAWS_MAX: usize = 100;
