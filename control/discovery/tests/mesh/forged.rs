//! Forged, replayed, cut and changed messages, many of them: none changes what is believed, and no table grows past its
//! limit. `PATRONUS_MESH_FORGED` says how many, `PATRONUS_MESH_SEED` which.

use std::time::Duration;

use patronus_discovery::machine::{Arrival, Door, SOURCES_MAX, UNVERIFIED_MAX};
use patronus_discovery::{Keyring, MessageKind, SiteKey};
use rand_core::RngCore;

use crate::network::TestRng;
use crate::pair::{Bench, Other, arrival, kinds};
use crate::world::seed_from_environment;

/// All that was ever said, as somebody with the group's key reads it.
struct Corpus {
    datagrams: Vec<Vec<u8>>,
    bodies: Vec<(MessageKind, Vec<u8>)>,
}

impl Corpus {
    fn add(&mut self, bench: &Bench, datagram: &[u8]) {
        let mut copy = datagram.to_vec();
        let keyring = Keyring::new(bench.network.key.clone());
        let opened = keyring.open(&mut copy).unwrap();
        self.bodies.push((opened.kind, opened.body.to_vec()));
        self.datagrams.push(datagram.to_vec());
    }
}

/// Records a whole acquaintance, and more.
fn record(bench: &mut Bench, others: &mut [Other]) -> Corpus {
    let mut corpus = Corpus {
        datagrams: Vec::new(),
        bodies: Vec::new(),
    };
    for other in others.iter_mut() {
        let mut to_bench = vec![other.announcement_at(bench.now)];
        while let Some(datagram) = to_bench.pop() {
            corpus.add(bench, &datagram);
            for transmit in bench.receive(other.host, &datagram) {
                corpus.add(bench, &transmit.datagram);
                to_bench.extend(other.answer(&transmit.datagram, bench.now));
            }
        }
        assert!(bench.is_peer(other.id()));
        for _ in 0..10 {
            bench.pass(Duration::from_secs(15));
            let said = other.announcement_at(bench.now);
            corpus.add(bench, &said);
        }
        let said = other.announcement_at(bench.now);
        bench.receive(other.host, &said);
    }
    // Every kind, and lists and queries that nobody asked for.
    let stranger = SiteKey::generate(&mut bench.network.rng);
    for part in bench.network.revoke(1, &[stranger.id()], bench.now.wall) {
        let message = patronus_discovery::Message::RevocationPart(part.clone());
        let datagram = message.seal(&bench.network.key, &mut bench.network.rng);
        corpus.add(bench, &datagram);
        bench.machine.revoke(part, bench.now).unwrap();
    }
    let query = patronus_discovery::Message::RevocationQuery(bench.machine.revocations().query());
    let datagram = query.seal(&bench.network.key, &mut bench.network.rng);
    corpus.add(bench, &datagram);
    let id = bench.network.id();
    let mut rng = TestRng(77);
    let probe = patronus_discovery::message::Probe {
        network: id,
        nonce: patronus_discovery::Nonce::random(&mut rng),
    };
    let datagram = patronus_discovery::Message::Probe(probe).seal(&bench.network.key, &mut rng);
    corpus.add(bench, &datagram);
    others[0].machine.shut_down(bench.now);
    while let Some(transmit) = others[0].machine.poll_transmit() {
        // Its goodbye is the one true message that the forger must not have.
        assert_eq!(kinds(&[transmit]), [MessageKind::Goodbye]);
    }
    bench.drain();
    corpus
}

/// One forgery.
fn forge(corpus: &Corpus, bench: &mut Bench, rng: &mut TestRng) -> Vec<u8> {
    let at = rng.below(corpus.datagrams.len() as u64) as usize;
    match rng.below(6) {
        // As it was.
        0 => corpus.datagrams[at].clone(),
        // Cut, or with something behind.
        1 => {
            let mut datagram = corpus.datagrams[at].clone();
            let len = rng.below(datagram.len() as u64 + 8) as usize;
            datagram.resize(len, 0xaa);
            datagram
        }
        // Changed on the way.
        2 => {
            let mut datagram = corpus.datagrams[at].clone();
            flip(&mut datagram, rng);
            datagram
        }
        // Changed by somebody with the group's key.
        3 => {
            let (kind, mut body) = corpus.bodies[at].clone();
            flip(&mut body, rng);
            bench.network.key.seal(kind, &body, rng)
        }
        // Under another kind.
        4 => {
            let (_, body) = &corpus.bodies[at];
            let kind = MessageKind::ALL[rng.below(MessageKind::ALL.len() as u64) as usize];
            bench.network.key.seal(kind, body, rng)
        }
        // Noise of the right length.
        _ => {
            let (kind, body) = &corpus.bodies[at];
            let mut noise = vec![0; body.len()];
            rng.fill_bytes(&mut noise);
            bench.network.key.seal(*kind, &noise, rng)
        }
    }
}

fn flip(bytes: &mut [u8], rng: &mut TestRng) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
    }
}

#[test]
fn nothing_forged_changes_what_is_believed() {
    let count: u64 =
        std::env::var("PATRONUS_MESH_FORGED").map_or(20_000, |it| it.parse().expect("a number"));
    let seed = seed_from_environment("PATRONUS_MESH_SEED", 1);
    let mut bench = Bench::new(seed);
    let mut others: Vec<Other> = (2..6)
        .map(|host| Other::new(&mut bench, &format!("site-{host}"), host))
        .collect();
    let corpus = record(&mut bench, &mut others);
    let mut rng = TestRng(seed);
    let believed = |bench: &Bench| {
        let peers: Vec<_> = bench
            .machine
            .peers()
            .map(|peer| {
                (
                    peer.site,
                    peer.keys,
                    peer.endpoints,
                    peer.prefixes,
                    peer.is_draining,
                )
            })
            .collect();
        (
            peers,
            bench.machine.revocations().state(),
            bench.machine.own_keys(),
        )
    };
    let before = believed(&bench);
    assert_eq!(before.0.len(), 4);
    for at in 0..count {
        bench.pass(Duration::from_millis(7));
        let datagram = forge(&corpus, &mut bench, &mut rng);
        // From new sources, too: what the buckets would stop must not be what saves us.
        let mut arrival = arrival(9);
        let source = std::net::Ipv4Addr::from(0xc0a8_0000 + (rng.next_u32() & 0xffff));
        arrival.source.set_ip(source.into());
        if rng.chance(0.2) {
            arrival = Arrival {
                door: if rng.chance(0.5) {
                    Door::Wan
                } else {
                    Door::Tunnel(others[1].id())
                },
                ..arrival
            };
        }
        let sent = bench.arrive(arrival, &datagram);
        assert!(sent.len() <= 1, "{at}: {:?}", kinds(&sent));
        let (unverified, verified, sources) = bench.machine.table_len();
        assert!(unverified <= UNVERIFIED_MAX && sources <= SOURCES_MAX && verified == 4);
        while bench.machine.poll_join().is_some() {}
        if at % 1000 == 0 {
            assert_eq!(believed(&bench), before, "message {at}");
        }
        if bench
            .machine
            .poll_timeout()
            .is_some_and(|due| due <= bench.now.instant)
        {
            bench.machine.handle_timeout(bench.now);
            bench.drain();
            bench.events.clear();
        }
    }
    assert_eq!(believed(&bench), before);
    let counters = bench.counters();
    println!("{count} forgeries: {counters:?}");
    assert_eq!(
        counters.received,
        counters.accepted + counters.dropped_all()
    );
}
