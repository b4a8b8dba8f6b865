//! Judges by the exported rows alone, as the eBPF twin would.

use std::collections::HashMap;
use std::net::IpAddr;

use patronus_policy::model::{Action, Connection, Protocol};
use patronus_policy::rows::{Address, PeerOf, Rows};
use patronus_policy::{Direction, Layer};

/// The rows in maps, as a kernel would have them.
pub struct Plain<'a> {
    rows: &'a Rows,
    addresses: HashMap<IpAddr, Address>,
    subjects: HashMap<(u32, Direction, Layer), u32>,
    peers: HashMap<(u32, PeerOf), u32>,
}

impl<'a> Plain<'a> {
    pub fn new(rows: &'a Rows) -> Self {
        Self {
            rows,
            addresses: rows.addresses.iter().map(|it| (it.addr, *it)).collect(),
            subjects: rows
                .subjects
                .iter()
                .map(|it| ((it.class, it.direction, it.layer), it.row))
                .collect(),
            peers: rows
                .peers
                .iter()
                .map(|it| ((it.row, it.peer), it.set))
                .collect(),
        }
    }

    /// `None` asks user space.
    pub fn allows(&self, conn: &Connection) -> Option<bool> {
        let end = |addr| {
            let nobody = Address {
                addr,
                class: None,
                pod: None,
                home: None,
                host_of: None,
                ask: false,
            };
            self.addresses.get(&addr).copied().unwrap_or(nobody)
        };
        let (src, dst) = (end(conn.src), end(conn.dst));
        if src.ask || dst.ask {
            return None;
        }
        let egress = self.direction(Direction::Egress, src, dst, conn)?;
        let ingress = self.direction(Direction::Ingress, dst, src, conn)?;
        Some(egress && ingress)
    }

    fn direction(
        &self,
        way: Direction,
        subject: Address,
        peer: Address,
        conn: &Connection,
    ) -> Option<bool> {
        let Some(class) = subject.class else {
            return Some(true);
        };
        let own_node = subject.home.is_some() && subject.home == peer.host_of;
        if subject.addr == peer.addr || subject.pod == peer.pod || own_node {
            return Some(true);
        }
        for layer in [Layer::Admin, Layer::Network, Layer::Baseline] {
            let Some(&row) = self.subjects.get(&(class, way, layer)) else {
                continue;
            };
            if self.rows.rows[row as usize].ask {
                return None;
            }
            let block = self.block(row, peer.addr);
            let by_peer = match peer.class {
                Some(class) => {
                    let listed = self.peers.get(&(row, PeerOf::Class(class)));
                    Some(*listed.unwrap_or(&self.peers[&(row, PeerOf::AnyPod)]))
                }
                None => block.is_none().then(|| self.peers[&(row, PeerOf::Anyone)]),
            };
            let found = [by_peer, block]
                .into_iter()
                .flatten()
                .filter_map(|set| self.ports(set, conn))
                .min_by_key(|it| it.0);
            match (found, layer) {
                (Some((_, Action::Accept)), _) => return Some(true),
                (Some((_, Action::Deny)), _) | (_, Layer::Network) => return Some(false),
                _ => {}
            }
        }
        Some(true)
    }

    fn block(&self, row: u32, addr: IpAddr) -> Option<u32> {
        let of_row = self
            .rows
            .blocks
            .iter()
            .filter(|it| it.row == row && it.prefix.contains(addr));
        of_row
            .max_by_key(|it| it.prefix.prefix_len())
            .map(|it| it.set)
    }

    fn ports(&self, set: u32, conn: &Connection) -> Option<(u32, Action)> {
        let protocol = match conn.protocol {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        };
        let mut of_set = self
            .rows
            .ports
            .iter()
            .filter(|it| it.set == set && it.protocol == protocol);
        let entry =
            of_set.find(|it| protocol.is_none() || (it.first..=it.last).contains(&conn.dst_port));
        entry.map(|it| (it.order, it.action))
    }
}
