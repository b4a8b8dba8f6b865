//! Random tables so small that everything collides with everything, and packets for them.
#![allow(dead_code)]

use std::net::IpAddr;
use std::time::Duration;

use patronus_ebpf::Support;
use patronus_ebpf::lan::{
    LanAction, LanAddress, LanBlock, LanDirection, LanLayer, LanOptions, LanPeer, LanPeerOf,
    LanPort, LanProtocol, LanRow, LanSubject, LanTables,
};

/// Nothing is told, so that every denial is a drop.
pub fn options() -> LanOptions {
    LanOptions {
        tell_interval: Duration::ZERO,
        ..LanOptions::default()
    }
}

/// Whether programs can be loaded here; says so where not, and fails where that is not allowed.
pub fn privileged() -> bool {
    let Some(why) = Support::probe().refusal() else {
        return true;
    };
    assert!(
        std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS").is_none_or(|it| it != "1"),
        "this test must not be skipped here: {why}"
    );
    println!("skipped: {why}");
    false
}

/// `PATRONUS_LAN_SEED`, or the test's own.
pub fn seed(default: u64) -> u64 {
    std::env::var("PATRONUS_LAN_SEED").map_or(default, |it| it.parse().expect("a number"))
}

/// A seeded generator (splitmix64).
pub struct Dice(pub u64);

const CLASSES: u64 = 6;
const RULES: u64 = 9;
const LAYERS: [LanLayer; 3] = [LanLayer::Admin, LanLayer::Network, LanLayer::Baseline];
const DIRECTIONS: [LanDirection; 2] = [LanDirection::Ingress, LanDirection::Egress];
const PORTED: [LanProtocol; 3] = [LanProtocol::Tcp, LanProtocol::Udp, LanProtocol::Sctp];

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn addr_of(&mut self, is_v4: bool) -> IpAddr {
        match is_v4 {
            true => IpAddr::V4((0x0a00_0000 | self.below(12) as u32).into()),
            false => IpAddr::V6((0xfd00_u128 << 112 | u128::from(self.below(8)) << 62).into()),
        }
    }

    fn port(&mut self) -> u16 {
        self.pick(&[0, 1, 2, 3, 80, 443, 65_535])
    }

    /// A packet, half of them openers, some of them not quite packets.
    pub fn packet(&mut self) -> Vec<u8> {
        let is_v4 = !self.one_in(3);
        let (src, dst) = (self.addr_of(is_v4), self.addr_of(is_v4));
        let protocol = self.pick(&[6, 6, 6, 6, 17, 17, 132, 1, 58, 47]);
        let (from, to) = (self.port(), self.port());
        let mut transport = match protocol {
            6 => {
                let flags = self.pick(&[2, 2, 2, 0x12, 0x10, 0x18, 0x04, 0x00, 0xc2, 0xff]);
                let words = self.pick(&[5, 5, 5, 5, 6, 4, 15]);
                tcp(from, to, words, flags)
            }
            17 => udp(from, to),
            132 => sctp(from, to, self.pick(&[1, 1, 0, 2, 255])),
            1 => icmp(self.pick(&[8, 8, 0, 3, 4, 5, 11, 12, 13, 255])),
            58 => icmp(self.pick(&[128, 128, 129, 1, 2, 3, 4, 0, 100, 137, 135, 255])),
            _ => vec![0; 4],
        };
        if self.one_in(8) {
            let len = self.below(transport.len() as u64 + 1) as usize;
            transport.truncate(len);
        } else if self.one_in(3) {
            transport.extend(vec![0xab; self.below(40) as usize]);
        }
        let mut packet = match is_v4 {
            true => {
                let words = self.pick(&[0, 0, 0, 0, 1, 10]);
                let fragment = self.pick(&[0, 0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0001, 0x1fff]);
                ipv4(src, dst, protocol, words, fragment, &transport)
            }
            false => {
                let next = if self.one_in(6) {
                    self.pick(&[0, 43, 44, 51, 60, 59])
                } else {
                    protocol
                };
                ipv6(src, dst, next, &transport)
            }
        };
        self.spoil(&mut packet);
        packet
    }

    /// Seldom: a length, a version or any other byte that lies; padding; a packet cut off.
    fn spoil(&mut self, packet: &mut Vec<u8>) {
        match self.below(24) {
            0 => packet[0] = self.roll() as u8,
            1 => {
                let at = if packet[0] >> 4 == 4 { 2 } else { 4 };
                packet[at..at + 2].copy_from_slice(&(self.roll() as u16).to_be_bytes());
            }
            2 => {
                let len = 1 + self.below(packet.len() as u64) as usize;
                packet.truncate(len);
            }
            3 => {
                let at = self.below(packet.len() as u64) as usize;
                packet[at] ^= 1 << self.below(8);
            }
            4 => packet.extend(vec![0; self.below(60) as usize]),
            5 => {
                let at = if packet[0] >> 4 == 4 { 3 } else { 5 };
                packet[at] = packet[at].wrapping_add(self.pick(&[1, 255]));
            }
            _ => {}
        }
    }
}

fn tcp(from: u16, to: u16, words: u8, flags: u8) -> Vec<u8> {
    let mut header = ports(from, to);
    header.extend([0; 8]);
    header.extend([words << 4, flags, 1, 0, 0, 0, 0, 0]);
    header
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    let mut header = ports(from, to);
    header.extend([0, 8, 0, 0]);
    header
}

fn sctp(from: u16, to: u16, chunk: u8) -> Vec<u8> {
    let mut header = ports(from, to);
    header.extend([0; 8]);
    header.extend([chunk, 0, 0, 4]);
    header
}

fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 7, 0, 1]
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

/// An IPv4 packet with so many words of options.
pub fn ipv4(
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    words: u8,
    fragment: u16,
    transport: &[u8],
) -> Vec<u8> {
    let header_len = 20 + usize::from(words) * 4;
    let mut packet = vec![0x45 + words, 0];
    packet.extend(((header_len + transport.len()) as u16).to_be_bytes());
    packet.extend([0, 7]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    for addr in [src, dst] {
        if let IpAddr::V4(addr) = addr {
            packet.extend(addr.octets());
        }
    }
    packet.resize(header_len, 1);
    packet.extend(transport);
    packet
}

/// An IPv6 packet whose payload is `transport`, whatever it is called.
pub fn ipv6(src: IpAddr, dst: IpAddr, next: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((transport.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    for addr in [src, dst] {
        if let IpAddr::V6(addr) = addr {
            packet.extend(addr.octets());
        }
    }
    packet.extend(transport);
    packet
}

/// Random tables; every fifth keeps flows, every eleventh answers.
pub fn tables(dice: &mut Dice, at: u64) -> LanTables {
    let mut tables = LanTables {
        generation: at,
        keep_established: at % 5 == 4,
        answers_denials: at % 11 == 10,
        ..LanTables::default()
    };
    for is_v4 in [true, false] {
        for host in 0..if is_v4 { 12 } else { 8 } {
            if dice.one_in(4) {
                continue;
            }
            let addr = match is_v4 {
                true => IpAddr::V4((0x0a00_0000 | host as u32).into()),
                false => IpAddr::V6((0xfd00_u128 << 112 | (host as u128) << 62).into()),
            };
            let is_pod = !dice.one_in(5);
            let maybe = |dice: &mut Dice, n| (!dice.one_in(3)).then(|| dice.below(n) as u32);
            tables.addresses.push(LanAddress {
                addr,
                class: is_pod.then(|| dice.below(CLASSES) as u32),
                pod: is_pod.then(|| dice.below(10) as u32),
                home: maybe(dice, 3).filter(|_| is_pod),
                host_of: maybe(dice, 3).filter(|_| !is_pod),
                ask: dice.one_in(15),
            });
        }
    }
    for class in 0..CLASSES as u32 {
        for direction in DIRECTIONS {
            for layer in LAYERS {
                if dice.one_in(if layer == LanLayer::Network { 3 } else { 2 }) {
                    continue;
                }
                let row = match tables.rows.len() {
                    rows if rows > 0 && dice.one_in(3) => dice.below(rows as u64) as u32,
                    _ => add_row(dice, &mut tables),
                };
                tables.subjects.push(LanSubject {
                    class,
                    direction,
                    layer,
                    row,
                });
            }
        }
    }
    tables
}

fn add_row(dice: &mut Dice, tables: &mut LanTables) -> u32 {
    let row = tables.rows.len() as u32;
    tables.rows.push(LanRow {
        isolation: dice.below(RULES) as u32,
        ask: dice.one_in(12),
    });
    let first = tables.sets;
    let sets = 1 + dice.below(4) as u32;
    tables.sets += sets;
    for set in first..first + sets {
        add_ports(dice, tables, set);
    }
    let set = |dice: &mut Dice| first + dice.below(u64::from(sets)) as u32;
    let mut peers = vec![LanPeerOf::Anyone, LanPeerOf::AnyPod];
    peers.extend(
        (0..CLASSES as u32)
            .filter(|_| dice.one_in(3))
            .map(LanPeerOf::Class),
    );
    for peer in peers {
        let set = set(dice);
        tables.peers.push(LanPeer { row, peer, set });
    }
    for width in [32u8, 128] {
        if dice.one_in(2) {
            continue;
        }
        // A random partition: halves of halves, towards the addresses in use.
        let (mut bits, mut len) = (0u128, 0u8);
        let aim = match width {
            32 => 0x0a00_0000 | u128::from(dice.below(12)),
            _ => 0xfd00_u128 << 112 | u128::from(dice.below(8)) << 62,
        };
        let depth = if width == 32 {
            26 + dice.below(7)
        } else {
            62 + dice.below(7)
        };
        let mut add = |dice: &mut Dice, bits: u128, prefix_len| {
            let addr = match width {
                32 => IpAddr::V4((bits as u32).into()),
                _ => IpAddr::V6(bits.into()),
            };
            let set = set(dice);
            tables.blocks.push(LanBlock {
                row,
                addr,
                prefix_len,
                set,
            });
        };
        while u64::from(len) < depth {
            len += 1;
            let half = 1u128 << (width - len);
            let (near, far) = match aim & half {
                0 => (bits, bits | half),
                _ => (bits | half, bits),
            };
            add(dice, far, len);
            bits = near;
        }
        add(dice, bits, len);
    }
    row
}

fn add_ports(dice: &mut Dice, tables: &mut LanTables, set: u32) {
    for protocol in PORTED {
        let mut at = 0u32;
        while at <= 65_535 && !dice.one_in(3) {
            let first = at + dice.pick(&[0, 0, 1, 2, 79]);
            let last = first + dice.pick(&[0, 1, 2, 70_000]);
            if first > 65_535 {
                break;
            }
            push_port(
                dice,
                tables,
                set,
                protocol,
                (first as u16, last.min(65_535) as u16),
            );
            at = last + 1;
        }
    }
    if dice.one_in(2) {
        push_port(dice, tables, set, LanProtocol::Other, (0, 65_535));
    }
}

fn push_port(
    dice: &mut Dice,
    tables: &mut LanTables,
    set: u32,
    protocol: LanProtocol,
    (first, last): (u16, u16),
) {
    tables.ports.push(LanPort {
        set,
        protocol,
        first,
        last,
        // Two look-ups never find two rules of one place.
        order: (tables.ports.len() as u32) << 1 | dice.below(2) as u32,
        action: dice.pick(&[LanAction::Accept, LanAction::Deny, LanAction::Pass]),
        rule: dice.below(RULES) as u32,
    });
}

/// Makes tables so large that the maps have to grow, without a change in meaning.
pub fn bloat(tables: &mut LanTables, size: u32) {
    let set = tables.sets;
    tables.sets += 1;
    for port in 0..3_000 * size {
        tables.ports.push(LanPort {
            set,
            protocol: PORTED[port as usize % 3],
            first: (port / 3) as u16,
            last: (port / 3) as u16,
            order: port,
            action: LanAction::Accept,
            rule: 0,
        });
    }
}

const SRC: u32 = 0x0a00_0001;
const DST: u32 = 0x0a00_0002;

/// One pod that nobody may reach.
pub fn shut() -> LanTables {
    LanTables {
        generation: 1,
        addresses: vec![address(DST, 0, 0)],
        subjects: vec![LanSubject {
            class: 0,
            direction: LanDirection::Ingress,
            layer: LanLayer::Network,
            row: 0,
        }],
        rows: vec![LanRow {
            isolation: 5,
            ask: false,
        }],
        ..LanTables::default()
    }
}

/// A SYN for it.
pub fn syn() -> Vec<u8> {
    let (src, dst) = (IpAddr::V4(SRC.into()), IpAddr::V4(DST.into()));
    ipv4(src, dst, 6, 0, 0, &tcp(40_000, 443, 5, 2))
}

fn address(addr: u32, class: u32, pod: u32) -> LanAddress {
    LanAddress {
        addr: IpAddr::V4(addr.into()),
        class: Some(class),
        pod: Some(pod),
        home: None,
        host_of: None,
        ask: false,
    }
}

/// Two policies that deny the SYN for the same reason in other numbers: who has the classes of the one and the rows of
/// the other allows it.
pub fn mixed(turned: bool) -> LanTables {
    let (a, b) = if turned { (1, 0) } else { (0, 1) };
    let port = |set, action| LanPort {
        set,
        protocol: LanProtocol::Tcp,
        first: 0,
        last: u16::MAX,
        order: 0,
        action,
        rule: 3,
    };
    let peer = |row, peer, set| LanPeer { row, peer, set };
    LanTables {
        generation: 8,
        addresses: vec![address(SRC, a, 1), address(DST, b, 2)],
        subjects: [a, b]
            .into_iter()
            .map(|class| LanSubject {
                class,
                direction: LanDirection::Ingress,
                layer: LanLayer::Network,
                row: class,
            })
            .collect(),
        rows: vec![LanRow::default(); 2],
        // The row of the destination's class denies the source's class and allows every other.
        peers: vec![
            peer(b, LanPeerOf::Class(a), a),
            peer(b, LanPeerOf::AnyPod, b),
            peer(b, LanPeerOf::Anyone, b),
            peer(a, LanPeerOf::AnyPod, b),
            peer(a, LanPeerOf::Anyone, b),
        ],
        sets: 2,
        ports: vec![port(a, LanAction::Deny), port(b, LanAction::Accept)],
        ..LanTables::default()
    }
}
