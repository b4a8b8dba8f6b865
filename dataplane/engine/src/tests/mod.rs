//! Tests of whole gateways in the simulator, by topic. Helpers that more than one topic needs stand here.

mod corpus;
mod exchange;
mod hostile_data;
mod hostile_handshake;
mod hostile_outer;
mod hostile_tun;
mod hours;
mod lanes;
mod paths;
mod policy;
mod random_walk;
mod reload;
mod roaming;
mod routing;
mod staging;
mod uplinks;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use patronus_packet::checksum;
use patronus_packet::vnet::NEEDS_CSUM;
use patronus_packet::{FrameBuf, GsoKind, Prefix, TunFrame, VnetHeader};
use patronus_tunnel::{PrivateKey, PublicKey};

use crate::sim::{Net, OUTER_PORT, SiteId, SiteOptions};
use crate::{Counters, DropReason, PeerId, PeerSpec};

const A: SiteId = SiteId(0);
const B: SiteId = SiteId(1);
const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Longer than any handshake on the default link.
const ROUND: Duration = Duration::from_millis(20);
/// Stands in every payload, so that it can be looked for on the wire.
const MARKER: &[u8] = b"plaintext-marker";

/// A packet as a person would describe it.
#[derive(Clone, Debug)]
struct Packet {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    id: u16,
    seq: u32,
    flags: u8,
    payload: Vec<u8>,
}

impl Packet {
    /// From a host of one site to a host of another, over UDP.
    fn udp(from: SiteId, to: SiteId, payload: &[u8]) -> Self {
        Self {
            src: host(from, 1),
            dst: host(to, 1),
            protocol: UDP,
            ports: (40_000, 443),
            id: 7,
            seq: 1000,
            flags: ACK,
            payload: payload.to_vec(),
        }
    }

    fn tcp(from: SiteId, to: SiteId, payload: &[u8]) -> Self {
        Self {
            protocol: TCP,
            ..Self::udp(from, to, payload)
        }
    }

    /// The same between IPv6 hosts.
    fn over_v6(mut self) -> Self {
        let v6 = |addr: IpAddr| match addr {
            IpAddr::V4(v4) => {
                let [_, site, _, host] = v4.octets();
                IpAddr::from([0xfd00, u16::from(site), 0, 0, 0, 0, 0, u16::from(host)])
            }
            IpAddr::V6(_) => addr,
        };
        (self.src, self.dst) = (v6(self.src), v6(self.dst));
        self
    }

    fn transport_offset(&self) -> usize {
        if self.src.is_ipv4() { 20 } else { 40 }
    }

    fn header_len(&self) -> usize {
        self.transport_offset() + if self.protocol == TCP { 20 } else { 8 }
    }

    /// The finished packet.
    fn build(&self) -> Vec<u8> {
        let mut packet = self.build_without_checksum();
        let at = self.transport_offset();
        let pseudo = self.pseudo_header(packet.len() - at);
        let sum = pseudo.plus(checksum::sum(&packet[at..])).finish();
        self.put_checksum(&mut packet, if sum == 0 { 0xffff } else { sum });
        packet
    }

    /// A superpacket whose segments carry `size` bytes of payload, as the kernel leaves it to the reader.
    fn superpacket(&self, size: u16) -> TunFrame {
        let mut packet = self.build_without_checksum();
        let at = self.transport_offset();
        let partial = self.pseudo_header(packet.len() - at).fold();
        self.put_checksum(&mut packet, partial);
        let kind = match (self.protocol, self.src) {
            (TCP, IpAddr::V4(_)) => GsoKind::TcpV4,
            (TCP, IpAddr::V6(_)) => GsoKind::TcpV6,
            _ => GsoKind::UdpL4,
        };
        TunFrame {
            vnet: VnetHeader {
                flags: NEEDS_CSUM,
                gso_type: kind.to_wire(),
                hdr_len: self.header_len() as u16,
                gso_size: size,
                csum_start: at as u16,
                csum_offset: if self.protocol == TCP { 16 } else { 6 },
            },
            buf: FrameBuf::from_data(&packet),
        }
    }

    /// What the kernel would send in place of that superpacket, each packet built anew.
    fn segments(&self, size: u16) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(usize::from(size));
        let chunks = self.payload.chunks(usize::from(size)).enumerate();
        chunks
            .map(|(at, payload)| {
                let is_last = at + 1 == count;
                Self {
                    payload: payload.to_vec(),
                    id: self.id.wrapping_add(at as u16),
                    seq: self.seq.wrapping_add((at * usize::from(size)) as u32),
                    flags: if is_last {
                        self.flags
                    } else {
                        self.flags & !PSH
                    },
                    ..self.clone()
                }
                .build()
            })
            .collect()
    }

    fn pseudo_header(&self, len: usize) -> checksum::Sum {
        checksum::pseudo_header(self.src, self.dst, self.protocol, len as u16)
    }

    fn put_checksum(&self, packet: &mut [u8], sum: u16) {
        let at = self.transport_offset() + if self.protocol == TCP { 16 } else { 6 };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn build_without_checksum(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.ports.0.to_be_bytes());
        transport.extend(self.ports.1.to_be_bytes());
        if self.protocol == TCP {
            transport.extend(self.seq.to_be_bytes());
            transport.extend(2000u32.to_be_bytes());
            transport.extend([0x50, self.flags, 2, 0, 0, 0, 0, 0]);
        } else {
            transport.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            transport.extend([0, 0]);
        }
        transport.extend(&self.payload);
        [
            ip_header(self.src, self.dst, self.protocol, self.id, transport.len()),
            transport,
        ]
        .concat()
    }
}

fn ip_header(src: IpAddr, dst: IpAddr, protocol: u8, id: u16, payload_len: usize) -> Vec<u8> {
    let mut header = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            header.extend([0x45, 0]);
            header.extend(((20 + payload_len) as u16).to_be_bytes());
            header.extend(id.to_be_bytes());
            header.extend([0x40, 0, 64, protocol, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = checksum::sum(&header).finish();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            header.extend([0x60, 0, 0, 0]);
            header.extend((payload_len as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(src.octets());
            header.extend(dst.octets());
        }
        _ => panic!("one packet, one family"),
    }
    header
}

fn host(site: SiteId, number: u8) -> IpAddr {
    IpAddr::from([10, site.0 as u8, 0, number])
}

/// The marker and `len` bytes that name `number`.
fn payload(number: u32, len: usize) -> Vec<u8> {
    let filler = (0..len).map(|at| (at as u32).wrapping_mul(167).wrapping_add(number) as u8);
    MARKER
        .iter()
        .copied()
        .chain(number.to_be_bytes())
        .chain(filler)
        .collect()
}

/// Two sites with a session in both directions.
fn pair(seed: u64) -> Net {
    pair_of(seed, SiteOptions::default())
}

fn pair_of(seed: u64, options: SiteOptions) -> Net {
    let mut net = Net::mesh(seed, 2, options);
    net.run_for(ROUND);
    assert_works(&mut net);
    net.take_captured();
    net
}

/// A packet in each direction arrives, as it was.
#[track_caller]
fn assert_works(net: &mut Net) {
    for (from, to) in [(A, B), (B, A)] {
        net.take_delivered(to);
        let packet = Packet::udp(from, to, &payload(0xffff, 20)).build();
        net.send(from, 0, &packet);
        net.run_for(ROUND);
        assert_eq!(net.take_delivered(to), [packet], "{from:?} to {to:?}");
    }
}

/// The reasons for which site `at` drops packets while `act` runs, and how many.
#[track_caller]
fn drops_during(net: &mut Net, at: SiteId, act: impl FnOnce(&mut Net)) -> Vec<(DropReason, u64)> {
    let before = net.site(at).counters();
    act(net);
    drops_since(&before, &net.site(at).counters())
}

fn drops_since(before: &Counters, after: &Counters) -> Vec<(DropReason, u64)> {
    let all = DropReason::ALL.iter().enumerate();
    all.map(|(at, reason)| (*reason, after.drops[at] - before.drops[at]))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// Messages of a type on the wire: 1 initiation, 2 response, 3 cookie, 4 data.
fn count_type(net: &Net, kind: u8) -> usize {
    net.captured
        .iter()
        .filter(|datagram| datagram.bytes[0] == kind)
        .count()
}

/// A peer that is no gateway of ours: boringtun alone, at an address of its own.
struct Stock {
    tunn: Tunn,
    public_key: PublicKey,
    addr: SocketAddr,
    site: SiteId,
    /// Inner packets it received.
    inbox: Vec<Vec<u8>>,
    /// Handshake messages and data it received, as they came.
    received: Vec<Vec<u8>>,
}

const STOCK: PeerId = PeerId(100);

impl Stock {
    /// Makes a peer and configures it at `site` as number 100, the owner of 10.100.0.0/16 and `fd00:64::/32`.
    fn join(net: &mut Net, site: SiteId) -> Self {
        let stock = Self::stranger(net, site);
        let spec = stock.spec(net);
        net.add_peer(site, spec);
        stock
    }

    /// A peer that nobody configured.
    fn stranger(net: &Net, site: SiteId) -> Self {
        let key = PrivateKey::generate();
        let ours = *net.site(site).identity().public_key().as_bytes();
        Self {
            tunn: Tunn::new(
                x25519::StaticSecret::from(*key.as_bytes()),
                x25519::PublicKey::from(ours),
                None,
                None,
                0x00ab_cdef,
                None,
            ),
            public_key: key.public_key(),
            addr: SocketAddr::from(([198, 51, 100, 1], OUTER_PORT)),
            site,
            inbox: Vec::new(),
            received: Vec::new(),
        }
    }

    /// What a site has to know of it; without an endpoint, so that it begins.
    fn spec(&self, net: &Net) -> PeerSpec {
        let prefixes =
            ["10.100.0.0/16", "fd00:64::/32"].map(|text| text.parse::<Prefix>().unwrap());
        PeerSpec {
            id: STOCK,
            public_key: self.public_key,
            endpoint: None,
            allowed_ips: prefixes.to_vec(),
            ..net.spec_of(self.site)
        }
    }

    /// An initiation, whatever the state of the handshake.
    fn initiation(&mut self) -> Vec<u8> {
        let mut out = vec![0; 256];
        match self.tunn.format_handshake_initiation(&mut out, true) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            other => panic!("no initiation: {other:?}"),
        }
    }

    /// Shakes hands and confirms the session.
    fn connect(&mut self, net: &mut Net) {
        let initiation = self.initiation();
        net.inject(self.addr, self.site, &initiation);
        self.pump(net);
        assert!(
            self.tunn.time_since_last_handshake().is_some(),
            "no session"
        );
    }

    /// Seals anything at all.
    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plaintext.len() + 256];
        match self.tunn.encapsulate(plaintext, &mut out) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            other => panic!("not sealed: {other:?}"),
        }
    }

    fn send(&mut self, net: &mut Net, plaintext: &[u8]) {
        let datagram = self.seal(plaintext);
        net.inject(self.addr, self.site, &datagram);
    }

    /// Exchanges datagrams with the site until both are silent.
    fn pump(&mut self, net: &mut Net) {
        loop {
            net.run_for(ROUND);
            let datagrams = net.take_outside(self.addr);
            if datagrams.is_empty() {
                return;
            }
            for datagram in datagrams {
                for answer in self.open(net, &datagram) {
                    net.inject(self.addr, self.site, &answer);
                }
                self.received.push(datagram);
            }
        }
    }

    /// Gives a datagram to boringtun and returns its answers.
    fn open(&mut self, net: &Net, datagram: &[u8]) -> Vec<Vec<u8>> {
        let from = net.site(self.site).outer().ip();
        let mut out = vec![0; 70_000];
        let mut answers = Vec::new();
        let mut input = datagram;
        loop {
            match self.tunn.decapsulate(Some(from), input, &mut out) {
                TunnResult::WriteToNetwork(answer) => answers.push(answer.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    self.inbox.push(packet.to_vec());
                    return answers;
                }
                TunnResult::Done | TunnResult::Err(_) => return answers,
            }
            input = &[];
        }
    }

    /// A UDP packet from this peer's network to the site's.
    fn packet(&self, number: u32) -> Vec<u8> {
        Packet::udp(SiteId(100), self.site, &payload(number, 40)).build()
    }

    /// A packet in each direction arrives.
    #[track_caller]
    fn assert_works(&mut self, net: &mut Net) {
        let there = self.packet(0xfffe);
        net.take_delivered(self.site);
        self.send(net, &there);
        assert_eq!(net.take_delivered(self.site), [there]);
        let back = Packet::udp(self.site, SiteId(100), &payload(0xfffd, 20)).build();
        self.inbox.clear();
        net.send(self.site, 0, &back);
        self.pump(net);
        assert_eq!(self.inbox, [back]);
    }
}

/// How often each packet is in a list.
fn tally(packets: &[Vec<u8>]) -> BTreeMap<&[u8], usize> {
    let mut counts = BTreeMap::new();
    for packet in packets {
        *counts.entry(packet.as_slice()).or_default() += 1;
    }
    counts
}
