//! Random steps of everything at once. Whatever happens: the books balance (the simulator checks after every step),
//! nothing panics, a packet is delivered at most once and only where it was sent to, and no plaintext is on the wire.

use std::collections::HashMap;
use std::time::Instant;

use patronus_packet::Joining;
use patronus_tunnel::WorkerId;

use super::*;
use crate::sim::{Captured, Link, Steering, peer_id, udp_frame};

const SITES: usize = 3;
const WORKERS: usize = 2;
const STEPS: usize = 300;
const NONSENSE_HOST: u8 = 77;
const NONSENSE_PORT: u16 = 7777;

struct Walk {
    net: Net,
    /// Packets by where they were sent and what they are, and how often they arrived.
    sent: HashMap<(SiteId, Vec<u8>), usize>,
    delivered: usize,
    numbers: u32,
    /// What an attacker recorded.
    tape: Vec<Captured>,
}

#[test]
fn a_random_walk_keeps_all_promises() {
    let mut delivered = 0;
    for seed in 0..24 {
        let options = SiteOptions {
            workers: WORKERS,
            // Half of the worlds join nothing; where gates open again with time, a quarter is always under load.
            joining: if seed % 2 == 0 {
                SiteOptions::default().joining
            } else {
                Joining::NONE
            },
            handshakes_per_s: if cfg!(feature = "mock-clock") && seed % 4 == 3 {
                2
            } else {
                u64::MAX
            },
            ..SiteOptions::default()
        };
        let mut walk = Walk {
            net: Net::mesh(0xabc0 + seed, SITES, options),
            sent: HashMap::new(),
            delivered: 0,
            numbers: 0,
            tape: Vec::new(),
        };
        for _ in 0..STEPS {
            walk.step();
            walk.check();
        }
        walk.heal();
        delivered += walk.delivered;
    }
    assert!(
        delivered > 24 * STEPS,
        "a walk on which {delivered} packets arrive tests little"
    );
}

impl Walk {
    fn any_site(&mut self) -> SiteId {
        SiteId(self.net.dice().below(SITES))
    }

    fn two_sites(&mut self) -> (SiteId, SiteId) {
        let from = self.any_site();
        let to = SiteId((from.0 + 1 + self.net.dice().below(SITES - 1)) % SITES);
        (from, to)
    }

    fn step(&mut self) {
        match self.net.dice().below(20) {
            0..=8 => self.send(),
            9 | 10 => self.inject(),
            11 => self.inject_train(),
            12 => self.reconfigure(),
            13 => self.change_link(),
            14 => self.roam(),
            15 => self.send_nonsense(),
            _ => {
                let millis = self.net.dice().below(20_000);
                self.net.run_for(Duration::from_millis(millis as u64));
            }
        }
    }

    fn send(&mut self) {
        let (from, to) = self.two_sites();
        let worker = self.net.dice().below(WORKERS);
        self.numbers += 1;
        let len = [0, 1, 100, 1300, 5000, 40_000][self.net.dice().below(6)];
        let bytes = [
            MARKER.to_vec(),
            self.numbers.to_be_bytes().to_vec(),
            self.net.dice().bytes(len),
        ]
        .concat();
        let mut packet = match self.net.dice().below(2) {
            0 => Packet::udp(from, to, &bytes),
            _ => Packet::tcp(from, to, &bytes),
        };
        packet.seq = self.numbers << 16;
        packet.ports.0 = 1000 + self.net.dice().below(5) as u16;
        if self.net.dice().chance(0.5) {
            packet = packet.over_v6();
        }
        let size = [700, 1000, 1380][self.net.dice().below(3)];
        if bytes.len() > usize::from(size) {
            for segment in packet.segments(size) {
                self.sent.insert((to, without_id(segment)), 0);
            }
            self.net.send_frame(from, worker, packet.superpacket(size));
        } else {
            self.sent.insert((to, without_id(packet.build())), 0);
            self.net.send(from, worker, &packet.build());
        }
    }

    /// A recorded datagram, as it was, changed, or from elsewhere; or noise.
    fn inject(&mut self) {
        let to = self.any_site();
        let noise_len = self.net.dice().below(200);
        let mut bytes = match self.tape.len() {
            0 => self.net.dice().bytes(noise_len),
            len => self.tape[self.net.dice().below(len)].bytes.clone(),
        };
        if !bytes.is_empty() && self.net.dice().chance(0.6) {
            let at = self.net.dice().below(bytes.len());
            bytes[at] ^= 1 << self.net.dice().below(8);
        }
        let from = SocketAddr::from((
            [203, 0, 113, self.net.dice().below(9) as u8],
            1 + to.0 as u16,
        ));
        self.net.inject(from, to, &bytes);
    }

    fn inject_train(&mut self) {
        let (to, worker) = (self.any_site(), self.net.dice().below(WORKERS));
        if self.tape.is_empty() {
            return;
        }
        let first = self.net.dice().below(self.tape.len());
        let len = self.tape[first].bytes.len();
        let same = self
            .tape
            .iter()
            .skip(first)
            .filter(|datagram| datagram.bytes.len() == len);
        let train: Vec<_> = same
            .take(60_000 / len.max(1))
            .take(40)
            .map(|datagram| datagram.bytes.clone())
            .collect();
        let from = self.tape[first].from;
        self.net
            .inject_frame(to, worker, udp_frame(from, None, &train));
    }

    fn send_nonsense(&mut self) {
        let (from, to) = self.two_sites();
        let worker = self.net.dice().below(WORKERS);
        let packet = Packet {
            src: host(from, NONSENSE_HOST),
            ports: (NONSENSE_PORT, 443),
            ..Packet::tcp(from, to, &[7; 300])
        };
        let mut frame = packet.superpacket(100);
        let mut header = frame.vnet.to_bytes();
        let bytes = self.net.dice().next_u64().to_le_bytes();
        header[bytes[0] as usize % 10] = bytes[1];
        frame.vnet = VnetHeader::from_bytes(&header);
        let len = frame.buf.len();
        frame.buf.data_mut()[usize::from(bytes[2]) % len] = bytes[3];
        self.net.send_frame(from, worker, frame);
    }

    fn reconfigure(&mut self) {
        let (at, of) = self.two_sites();
        let (peer, roll) = (peer_id(of), self.net.dice().below(9));
        let worker = WorkerId(self.net.dice().below(WORKERS) as u8);
        match roll {
            0 => self.net.edit_peer(at, peer, |spec| {
                spec.keepalive = Some(Duration::from_secs(10))
            }),
            1 => self.net.edit_peer(at, peer, |spec| spec.worker = worker),
            2 => self
                .net
                .edit_peer(at, peer, |spec| spec.endpoint_serial += 1),
            3 => {
                let spec = self.net.site(at).spec(peer).clone();
                self.net.edit(at, |specs| {
                    specs.remove(&peer);
                });
                self.net.add_peer(at, spec);
            }
            4 => self.net.set_mtu(at, 1300 + 10 * usize::from(worker.0)),
            5 => self.net.site_mut(at).steering = Steering::Fixed(worker),
            6 => self.net.set_policy(at, None),
            7 | 8 => {
                let rules = [policy::B_SHUT, policy::B_443][usize::from(worker.0) % 2];
                let mut enforced = policy::policy(&[rules, policy::A_SHUT]);
                enforced.keep_established = self.net.dice().chance(0.3);
                self.net.set_policy(at, Some(enforced));
            }
            _ => self.net.edit(at, |_| {}),
        }
    }

    fn change_link(&mut self) {
        self.net.link = Link {
            delay: Duration::from_millis(self.net.dice().below(50) as u64),
            jitter: Duration::from_millis(self.net.dice().below(50) as u64),
            loss: [0.0, 0.0, 0.1, 0.5][self.net.dice().below(4)],
            duplicate: [0.0, 0.3][self.net.dice().below(2)],
            ..Link::default()
        };
    }

    fn roam(&mut self) {
        let site = self.any_site();
        let port = 1024 + self.net.dice().below(60_000) as u16;
        self.net.move_site(
            site,
            SocketAddr::from(([192, 0, 2, site.0 as u8 + 1], port)),
        );
    }

    fn check(&mut self) {
        for datagram in self.net.take_captured() {
            let leak = datagram
                .bytes
                .windows(MARKER.len())
                .any(|window| window == MARKER);
            assert!(!leak, "plaintext on the wire");
            if self.tape.len() < 500 {
                self.tape.push(datagram);
            } else {
                let at = self.net.dice().below(500);
                self.tape[at] = datagram;
            }
        }
        for site in (0..SITES).map(SiteId) {
            for packet in self.net.take_delivered(site) {
                if is_nonsense(&packet) {
                    continue;
                }
                let key = (site, without_id(packet));
                let Some(times) = self.sent.get_mut(&key) else {
                    panic!(
                        "delivered to {site:?}, but never sent there: {:?}",
                        &key.1[..40.min(key.1.len())]
                    );
                };
                *times += 1;
                assert_eq!(*times, 1, "delivered twice");
                self.delivered += 1;
            }
        }
    }

    /// With sound links and the right addresses everybody reaches everybody again.
    fn heal(&mut self) {
        self.net.link = Link::default();
        let outers: Vec<_> = (0..SITES)
            .map(|site| self.net.site(SiteId(site)).outer())
            .collect();
        for at in (0..SITES).map(SiteId) {
            self.net.set_policy(at, None);
            self.net.edit(at, |specs| {
                for spec in specs.values_mut() {
                    spec.endpoint = Some(outers[spec.id.0 as usize]);
                    spec.endpoint_serial += 1;
                }
            });
        }
        // Sessions that only one side has are given up 15 s after they were used, tried anew every 5 s.
        let until: Instant = self.net.now() + Duration::from_secs(300);
        while self.net.now() < until {
            for (from, to) in pairs() {
                let filler = Packet {
                    src: host(from, NONSENSE_HOST),
                    ..Packet::udp(from, to, &[7; 60])
                };
                self.net.send(from, 0, &filler.build());
            }
            self.net.run_for(Duration::from_secs(1));
        }
        self.check();
        for (from, to) in pairs() {
            let packet = Packet::udp(from, to, &payload(0, 30)).build();
            self.net.send(from, 0, &packet);
            self.net.run_for(ROUND);
            assert!(
                self.net.take_delivered(to) == [packet],
                "{from:?} to {to:?}"
            );
        }
    }
}

fn pairs() -> impl Iterator<Item = (SiteId, SiteId)> {
    let all = (0..SITES).flat_map(|from| (0..SITES).map(move |to| (SiteId(from), SiteId(to))));
    all.filter(|(from, to)| from != to)
}

/// A byte of it was changed, but that may have done no harm, and one of its two marks is left.
fn is_nonsense(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
        && (packet[15] == NONSENSE_HOST || packet[20..22] == NONSENSE_PORT.to_be_bytes())
}

/// Joining renumbers IPv4 packets with DF, where the identification means nothing (RFC 6864).
fn without_id(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}
