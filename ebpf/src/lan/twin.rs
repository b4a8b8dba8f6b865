//! The LAN program in a few lines of Rust: what the tables mean, for tests and for machines that may not load programs.

use std::collections::HashMap;
use std::net::IpAddr;

use super::layout::LanReason;
use super::packet::{self, Heading};
use super::tables::{
    LanAction, LanAddress, LanDirection, LanLayer, LanPeerOf, LanPort, LanProtocol, LanTables,
};

/// What the rows say of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Both directions allow it.
    Allow,
    /// One denies it, and this is the rule; 0 is none.
    Deny(u32),
    /// User space has to be asked.
    Ask,
}

/// The tables, ready to be asked.
#[derive(Debug)]
pub struct Twin<'a> {
    tables: &'a LanTables,
    addresses: HashMap<IpAddr, LanAddress>,
    subjects: HashMap<(u32, LanDirection, LanLayer), u32>,
    peers: HashMap<(u32, LanPeerOf), u32>,
    /// By row and by whether they are IPv4.
    blocks: HashMap<(u32, bool), Vec<Block>>,
    ports: HashMap<(u32, LanProtocol), Vec<LanPort>>,
}

/// A prefix and the port set of its addresses.
#[derive(Debug)]
struct Block {
    mask: u128,
    network: u128,
    set: u32,
}

const LAYERS: [LanLayer; 3] = [LanLayer::Admin, LanLayer::Network, LanLayer::Baseline];

impl<'a> Twin<'a> {
    /// Sorts the tables so that they can be asked.
    pub fn new(tables: &'a LanTables) -> Self {
        let mut blocks: HashMap<_, Vec<Block>> = HashMap::new();
        for it in &tables.blocks {
            let (is_v4, bits) = bits_of(it.addr);
            let width = if is_v4 { 32 } else { 128 };
            let hosts = width - u32::from(it.prefix_len).min(width);
            let mask = u128::MAX.checked_shl(hosts).unwrap_or(0);
            let of_row = blocks.entry((it.row, is_v4)).or_default();
            of_row.push(Block {
                mask,
                network: bits & mask,
                set: it.set,
            });
        }
        let mut ports: HashMap<_, Vec<_>> = HashMap::new();
        for it in &tables.ports {
            ports.entry((it.set, it.protocol)).or_default().push(*it);
        }
        let subjects = tables.subjects.iter();
        Self {
            tables,
            addresses: tables.addresses.iter().map(|it| (it.addr, *it)).collect(),
            subjects: subjects
                .map(|it| ((it.class, it.direction, it.layer), it.row))
                .collect(),
            peers: tables
                .peers
                .iter()
                .map(|it| ((it.row, it.peer), it.set))
                .collect(),
            blocks,
            ports,
        }
    }

    /// What becomes of a packet, and under which rule a denied one counts. Tells of nothing: see [`LanReason::Told`].
    pub fn fate(&self, packet: &[u8]) -> (LanReason, Option<u32>) {
        let heading = match packet::read(packet) {
            Ok(heading) => heading,
            Err(reason) => return (reason, None),
        };
        let rule = match self.says(&heading) {
            Said::Allow => return (LanReason::Allowed, None),
            Said::Ask => return (LanReason::Ask, None),
            Said::Deny(rule) => rule,
        };
        if !heading.is_opening {
            if self.tables.keep_established {
                return (LanReason::Reply, None);
            }
            let answered = Heading {
                src: heading.dst,
                dst: heading.src,
                src_port: heading.dst_port,
                dst_port: heading.src_port,
                ..heading
            };
            match self.says(&answered) {
                Said::Allow => return (LanReason::Reply, None),
                Said::Ask => return (LanReason::Ask, None),
                Said::Deny(_) => {}
            }
        }
        match self.tables.answers_denials {
            true => (LanReason::Told, Some(rule)),
            false => (LanReason::Denied, Some(rule)),
        }
    }

    /// What both directions say of the connection that a packet would open.
    pub fn says(&self, conn: &Heading) -> Said {
        let (src, dst) = (self.end(conn.src), self.end(conn.dst));
        if src.ask || dst.ask {
            return Said::Ask;
        }
        match self.direction(LanDirection::Egress, src, dst, conn) {
            Said::Allow => self.direction(LanDirection::Ingress, dst, src, conn),
            said => said,
        }
    }

    fn end(&self, addr: IpAddr) -> LanAddress {
        let nobody = LanAddress {
            addr,
            class: None,
            pod: None,
            home: None,
            host_of: None,
            ask: false,
        };
        self.addresses.get(&addr).copied().unwrap_or(nobody)
    }

    fn direction(
        &self,
        direction: LanDirection,
        subject: LanAddress,
        peer: LanAddress,
        conn: &Heading,
    ) -> Said {
        let Some(class) = subject.class else {
            return Said::Allow;
        };
        let is_own_node = subject.home.is_some() && subject.home == peer.host_of;
        if subject.pod == peer.pod || subject.addr == peer.addr || is_own_node {
            return Said::Allow;
        }
        for layer in LAYERS {
            let Some(&row) = self.subjects.get(&(class, direction, layer)) else {
                continue;
            };
            let head = self.tables.rows[row as usize];
            if head.ask && peer.class.is_some() {
                return Said::Ask;
            }
            match (self.rule(row, peer, conn), layer) {
                (Some((LanAction::Accept, _)), _) => return Said::Allow,
                (Some((LanAction::Deny, rule)), _) => return Said::Deny(rule),
                (Some((LanAction::Pass, _)) | None, LanLayer::Network) => {
                    return Said::Deny(head.isolation);
                }
                (Some((LanAction::Pass, _)) | None, LanLayer::Admin | LanLayer::Baseline) => {}
            }
        }
        Said::Allow
    }

    /// The first rule of a row that matches.
    fn rule(&self, row: u32, peer: LanAddress, conn: &Heading) -> Option<(LanAction, u32)> {
        let block = self.block(row, peer.addr);
        let of = |peer| self.peers.get(&(row, peer)).copied();
        let by_peer = match peer.class {
            Some(class) => of(LanPeerOf::Class(class)).or(of(LanPeerOf::AnyPod)),
            None if block.is_none() => of(LanPeerOf::Anyone),
            None => None,
        };
        let found = by_peer.into_iter().chain(block);
        let found = found.filter_map(|set| self.port(set, conn));
        let first = found.min_by_key(|it| it.order)?;
        Some((first.action, first.rule))
    }

    fn block(&self, row: u32, addr: IpAddr) -> Option<u32> {
        let (is_v4, bits) = bits_of(addr);
        let blocks = self.blocks.get(&(row, is_v4))?.iter();
        let matching = blocks.filter(|it| bits & it.mask == it.network);
        matching.max_by_key(|it| it.mask).map(|it| it.set)
    }

    fn port(&self, set: u32, conn: &Heading) -> Option<LanPort> {
        let protocol = LanProtocol::of(conn.protocol);
        let mut of_set = self.ports.get(&(set, protocol))?.iter();
        let found = of_set.find(|it| {
            protocol == LanProtocol::Other || (it.first..=it.last).contains(&conn.dst_port)
        });
        found.copied()
    }
}

/// Whether it is IPv4, and its bits.
pub(super) fn bits_of(addr: IpAddr) -> (bool, u128) {
    match addr {
        IpAddr::V4(v4) => (true, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    }
}
