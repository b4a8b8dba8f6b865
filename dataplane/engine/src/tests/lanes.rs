//! Lanes between two sites: agreed in band, used by every worker, given up where they do not carry.

use patronus_tunnel::message::DATA_OVERHEAD;

use super::*;
use crate::sim::Captured;

fn options(workers: usize, lanes: bool) -> SiteOptions {
    SiteOptions {
        workers,
        lanes,
        ..SiteOptions::default()
    }
}

fn two_sites(a: SiteOptions, b: SiteOptions) -> Net {
    let mut net = Net::new(7);
    let (a, b) = (net.add_site(a), net.add_site(b));
    net.connect(a, b);
    // A handshake, the negotiation (it begins with the timer, every 250 ms), the lanes' handshakes.
    net.run_for(Duration::from_secs(3));
    net
}

/// Sends a packet into the TUN queue of a worker and returns the data messages that it became.
fn send(net: &mut Net, from: SiteId, to: SiteId, worker: usize, text: &[u8]) -> Vec<Captured> {
    net.take_captured();
    net.take_delivered(to);
    let packet = Packet::udp(from, to, text).build();
    net.send(from, worker, &packet);
    let sent: Vec<Captured> = net.take_captured();
    net.settle();
    assert_eq!(net.take_delivered(to), [packet], "worker {worker}");
    sent.into_iter()
        .filter(|datagram| datagram.bytes.len() > DATA_OVERHEAD)
        .collect()
}

#[test]
fn every_worker_sends_on_a_lane_of_its_own_and_hands_nothing_on() {
    let mut net = two_sites(options(3, true), options(3, true));
    for (from, to) in [(A, B), (B, A)] {
        let before = net.site(from).counters().handed_out;
        let mut ports = Vec::new();
        for worker in 0..3 {
            let sent = send(&mut net, from, to, worker, b"lane");
            assert_eq!(sent.len(), 1);
            let index = u32::from_le_bytes(sent[0].bytes[4..8].try_into().unwrap());
            ports.push((sent[0].from.port(), sent[0].to.port()));
            // The receiver's index names the worker that takes the lane over there.
            assert_eq!((index >> 8) as u8 as usize, worker);
        }
        ports.dedup();
        assert_eq!(
            ports.len(),
            3,
            "each lane is an outer flow of its own: {ports:?}"
        );
        assert_eq!(net.site(from).counters().handed_out, before);
        assert_eq!(
            net.site(to).counters().handed_out,
            net.site(to).counters().handed_in
        );
    }
}

#[test]
fn sites_with_different_numbers_of_workers_pair_as_many_as_both_have() {
    let mut net = two_sites(options(4, true), options(2, true));
    for (from, to, workers, lanes) in [(A, B, 4, 2), (B, A, 2, 2)] {
        for worker in 0..workers {
            let before = net.site(from).counters().handed_out;
            send(&mut net, from, to, worker, b"pairing");
            let handed = net.site(from).counters().handed_out - before;
            assert_eq!(handed, u64::from(worker >= lanes), "worker {worker}");
        }
    }
}

#[test]
fn a_peer_without_lanes_keeps_its_one_session_and_is_left_alone() {
    for (a, b) in [
        (options(2, true), options(1, true)),
        (options(2, true), options(2, false)),
    ] {
        let mut net = two_sites(a, b);
        for worker in 0..2 {
            let before = net.site(A).counters().handed_out;
            send(&mut net, A, B, worker, b"one session");
            assert_eq!(net.site(A).counters().handed_out - before, worker as u64);
        }
        net.take_captured();
        net.run_for(Duration::from_secs(60));
        let spoken = net.take_captured();
        let offers = spoken
            .iter()
            .filter(|datagram| datagram.bytes.len() > DATA_OVERHEAD);
        assert_eq!(offers.count(), 0, "offers go on without end");
    }
}

#[test]
fn a_stock_peer_drops_the_offer_and_carries_on() {
    let mut net = Net::new(3);
    let a = net.add_site(options(2, true));
    let key = PrivateKey::generate();
    let addr: SocketAddr = "198.51.100.9:51820".parse().unwrap();
    let spec = PeerSpec {
        public_key: key.public_key(),
        endpoint: Some(addr),
        ..net.spec_of(SiteId(0))
    };
    let ours = net.site(a).identity().public_key();
    let mut stock = Tunn::new(
        x25519::StaticSecret::from(*key.as_bytes()),
        x25519::PublicKey::from(*ours.as_bytes()),
        None,
        None,
        1,
        None,
    );
    net.add_peer(
        a,
        PeerSpec {
            allowed_ips: crate::sim::prefixes_of(SiteId(5)),
            ..spec
        },
    );
    let mut out = vec![0; 2048];
    let mut offers = 0;
    for _ in 0..40 {
        net.run_for(Duration::from_millis(250));
        for datagram in net.take_outside(addr) {
            match stock.decapsulate(None, &datagram, &mut out) {
                TunnResult::WriteToNetwork(answer) => {
                    let answer = answer.to_vec();
                    net.inject(addr, a, &answer);
                }
                TunnResult::Err(_) => offers += 1,
                _ => {}
            }
        }
    }
    assert_eq!(
        offers,
        patronus_tunnel::lanes::OFFERS_MAX,
        "a stock peer refuses what is no IP packet"
    );
    let packet = Packet {
        dst: IpAddr::from([10, 5, 0, 1]),
        ..Packet::udp(A, B, b"still here")
    }
    .build();
    net.send(a, 1, &packet);
    let sealed = net.take_outside(addr).pop().or_else(|| {
        net.settle();
        net.take_outside(addr).pop()
    });
    let opened = stock.decapsulate(None, &sealed.unwrap(), &mut out);
    assert!(matches!(opened, TunnResult::WriteToTunnelV4(inner, _) if inner == packet));
}

#[test]
fn a_site_that_restarts_gets_its_lanes_again() {
    for restarted in [A, B] {
        let mut net = two_sites(options(2, true), options(2, true));
        net.edit_peer(
            restarted,
            crate::sim::peer_id(SiteId(1 - restarted.0)),
            |spec| spec.lanes.clear(),
        );
        net.restart(restarted);
        net.run_for(Duration::from_secs(5));
        for (from, to) in [(A, B), (B, A)] {
            let before = net.site(from).counters().handed_out;
            send(&mut net, from, to, 1, b"again");
            assert_eq!(
                net.site(from).counters().handed_out,
                before,
                "{restarted:?} restarted"
            );
        }
    }
}

#[test]
fn control_messages_survive_loss() {
    for seed in 0..20 {
        let mut net = Net::new(seed);
        net.link.loss = 0.3;
        let (a, b) = (
            net.add_site(options(2, true)),
            net.add_site(options(2, true)),
        );
        net.connect(a, b);
        net.run_for(Duration::from_secs(30));
        net.link.loss = 0.0;
        // Whatever was agreed by now, packets arrive.
        net.run_for(Duration::from_secs(3));
        let packet = Packet::udp(A, B, b"whatever").build();
        net.take_delivered(b);
        for worker in 0..2 {
            net.send(a, worker, &packet);
            net.settle();
        }
        let arrived = net.take_delivered(b).len();
        assert_eq!(arrived, 2, "seed {seed}");
    }
}

#[test]
fn garbage_behind_the_magic_is_counted_and_changes_nothing() {
    let mut net = two_sites(options(2, true), options(2, true));
    let offer = patronus_tunnel::lanes::Control::is_control;
    assert!(offer(&[0, b'P', b'a', b't']));
    // A site whose messages are of another version: the peer's own tunnel seals what we make up.
    let mut plaintext = [0u8; 64];
    plaintext[..6].copy_from_slice(&[0, b'P', b'a', b't', 9, 9]);
    let datagram = net
        .site_mut(A)
        .engine_mut(0)
        .seal_for_test(crate::sim::peer_id(B), &plaintext)
        .unwrap();
    let from = net.site(A).outer();
    let before = net.site(B).counters();
    net.inject(from, B, &datagram);
    let after = net.site(B).counters();
    let reason = DropReason::ControlMalformed as usize;
    assert_eq!(after.drops[reason], before.drops[reason] + 1);
    send(&mut net, A, B, 1, b"still");
}

#[test]
fn lanes_come_back_after_an_idle_hour() {
    let mut net = two_sites(options(2, true), options(2, true));
    net.run_for(Duration::from_secs(3600));
    for round in 0..2 {
        // The first packet finds no session and waits for a handshake of lane 0.
        let packet = Packet::udp(A, B, b"good morning").build();
        net.take_delivered(B);
        net.send(A, 0, &packet);
        net.run_for(Duration::from_secs(3));
        assert_eq!(net.take_delivered(B), [packet], "round {round}");
        for (from, to) in [(A, B), (B, A)] {
            let before = net.site(from).counters().handed_out;
            send(&mut net, from, to, 1, b"on its lane");
            assert_eq!(
                net.site(from).counters().handed_out,
                before,
                "round {round}"
            );
        }
        net.run_for(Duration::from_secs(1000));
    }
}
