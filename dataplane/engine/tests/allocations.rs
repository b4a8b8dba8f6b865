//! The data path allocates nothing once it is warm: counted by a global allocator that counts per thread.

// This is a test, so it may ask what time it is.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patronus_engine::{
    ClassTable, Engine, EngineConfig, Generation, PathsConfig, PeerId, PeerSpec, Policy, Refusal,
    Snapshot,
};
use patronus_packet::vnet::NEEDS_CSUM;
use patronus_packet::{
    Endpoint, FrameBuf, GsoKind, Joining, Prefix, TrainLimits, TunFrame, UdpFrame, UplinkId,
    VnetHeader,
};
use patronus_path::observation::PathProfile;
use patronus_path::prober::UplinkProfile;
use patronus_path::{Cadence, ClassConfig, PathSpec, Scoring};
use patronus_policy::manifest::{Object, load};
use patronus_policy::{Compiler, PolicyTable};
use patronus_tunnel::{Identity, PrivateKey, WallClock, WorkerId};

const PAYLOAD: usize = 13_800;
const GSO_SIZE: u16 = 1380;
const SEGMENTS: u64 = 10;

/// The workers of one gateway; the first owns the only peer.
struct Site {
    engines: Vec<Engine>,
    outer: SocketAddr,
}

/// One pod at each end; only one side may open connections, on one port.
fn policy(refusal: Refusal) -> Policy {
    let text = "
{apiVersion: v1, kind: Namespace, metadata: {name: n}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: n, labels: {app: b}}, spec: {}, status: {podIPs: [{ip: 10.1.0.1}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: n},
 spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 443}]}]}}
";
    let loaded = load("test.yaml", text.as_bytes());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let changes = loaded.objects.into_iter().map(Object::into_change);
    let table: Arc<PolicyTable> = Compiler::fresh(1, changes).table();
    Policy {
        table,
        keep_established: false,
        refusal,
    }
}

fn site(at: u8, identities: &[Arc<Identity>; 2], workers: usize, now: Instant) -> Site {
    let other = 1 - at;
    let outer = |at: u8| SocketAddr::from(([192, 0, 2, at], 51_820));
    let spec = PeerSpec {
        id: PeerId(0),
        public_key: identities[usize::from(other)].public_key(),
        preshared_key: None,
        endpoint: Some(outer(other)),
        endpoint_serial: 0,
        allowed_ips: Prefix::new([10, other, 0, 0].into(), 16)
            .into_iter()
            .collect(),
        keepalive: None,
        worker: WorkerId(0),
        stats: Arc::default(),
        lanes: Vec::new(),
        paths: Vec::new(),
        board: Arc::default(),
    };
    let identity = identities[usize::from(at)].clone();
    let snapshot = Arc::new(Snapshot::new(
        Generation(1),
        identity,
        now,
        1420,
        [Arc::new(spec)],
    ));
    let engine_of = |worker| {
        let config = EngineConfig {
            worker: WorkerId(worker as u8),
            workers,
            flow_slots: 64,
            seed: 1,
            joining: Joining {
                tcp: true,
                udp: true,
            },
            trains: TrainLimits {
                segments: 63,
                bytes: 65_000,
            },
        };
        Engine::new(config, &snapshot, now)
    };
    Site {
        engines: (0..workers).map(engine_of).collect(),
        outer: outer(at),
    }
}

/// A TCP superpacket with an unfinished checksum, as it lies in the TUN's queue.
fn superpacket(from: u8) -> Vec<u8> {
    let mut packet = vec![0; 40 + PAYLOAD];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((40 + PAYLOAD) as u16).to_be_bytes());
    packet[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
    packet[12..20].copy_from_slice(&[10, from, 0, 1, 10, 1 - from, 0, 1]);
    packet[20..24].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    packet[32..34].copy_from_slice(&[0x50, 0x10]);
    packet
}

fn fill(frame: &mut TunFrame, packet: &[u8]) {
    frame.vnet = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GsoKind::TcpV4.to_wire(),
        hdr_len: 40,
        gso_size: GSO_SIZE,
        csum_start: 20,
        csum_offset: 16,
    };
    frame.buf.storage_mut()[..packet.len()].copy_from_slice(packet);
    frame.buf.set_len(packet.len());
}

/// Carries every datagram of the first engine of `from` to the first engine of `to`; returns the packets that `to`
/// writes to its TUN.
fn carry(from: &mut Site, to: &mut Site, wire: &mut [UdpFrame], now: Instant) -> u64 {
    let engine = &mut from.engines[0];
    let mut frames = 0;
    let (mut sent, mut own) = (0, 0);
    for train in engine.udp_out().trains() {
        let frame = &mut wire[frames];
        let bytes = engine.udp_out().bytes(train);
        frame.buf.storage_mut()[..bytes.len()].copy_from_slice(bytes);
        frame.buf.set_len(bytes.len());
        frame.segment_len = if train.packets > 1 {
            train.segment_len
        } else {
            0
        };
        frame.endpoint = match train.endpoint.uplink {
            UplinkId::ANY => from.outer.into(),
            uplink => Endpoint {
                local: Some(train.endpoint.remote.ip()),
                uplink,
                ..Endpoint::from(on_uplink(from.outer, uplink.0))
            },
        };
        *(if train.own { &mut own } else { &mut sent }) += u64::from(train.packets);
        frames += 1;
    }
    engine.udp_sent(sent, own, 0, &[]);
    let engine = &mut to.engines[0];
    assert_eq!(engine.handle_udp(&mut wire[..frames], now), frames);
    let written = engine.tun_out().packets();
    engine.tun_sent(written, 0);
    written
}

/// The address of a site on one of its uplinks.
fn on_uplink(outer: SocketAddr, uplink: u8) -> SocketAddr {
    SocketAddr::new(outer.ip(), outer.port() + u16::from(uplink))
}

/// Gives a site two paths to its peer at `other`, and one class.
fn measure_paths(site: &mut Site, other: SocketAddr, now: Instant) {
    let cadence = Cadence {
        active: Duration::from_millis(50),
        idle: Duration::from_secs(1),
        multiplier: 5,
    };
    let path = |uplink: u8| PathSpec {
        uplink,
        remote: on_uplink(other, uplink),
        profile: PathProfile {
            name: format!("wan{uplink}"),
            uplink,
            remote: None,
            cost: 0,
            capacity_bps: None,
            is_metered: false,
        },
        cadence,
    };
    let uplink = |uplink: u8| UplinkProfile {
        uplink,
        name: format!("wan{uplink}"),
        cost: 0,
        up_bps: None,
        down_bps: None,
        is_metered: false,
        cadence,
    };
    let class = ClassConfig {
        name: "default".to_owned(),
        latency_ms: None,
        jitter_ms: None,
        loss_pct: None,
        scoring: Scoring::Voice,
        protect: false,
        prefer: Vec::new(),
    };
    let old = site.engines[0].snapshot().clone();
    let specs = old.peers().map(|spec| {
        Arc::new(PeerSpec {
            paths: (0..2).map(path).collect(),
            ..PeerSpec::clone(spec)
        })
    });
    let identity = old.identity().clone();
    let new = Snapshot::new(Generation(2), identity, old.epoch(), old.mtu(), specs);
    let new = new.with_paths(PathsConfig {
        uplinks: (0..2).map(uplink).collect(),
        classes: ClassTable {
            configs: vec![class],
            ..ClassTable::default()
        },
    });
    site.engines[0].handle_snapshot(Arc::new(new), now);
}

fn pair(workers: usize) -> ([Site; 2], Vec<UdpFrame>, Instant) {
    let now = Instant::now();
    let identities = [(); 2].map(|()| {
        let unix = Duration::from_secs(1_700_000_000);
        Arc::new(Identity::new(
            PrivateKey::generate(),
            100,
            WallClock { at: now, unix },
        ))
    });
    let mut sites = [
        site(0, &identities, workers, now),
        site(1, &identities, workers, now),
    ];
    let mut wire: Vec<_> = (0..16).map(|_| UdpFrame::default()).collect();
    let [a, b] = &mut sites;
    a.engines[0].handle_timeout(now);
    for _ in 0..2 {
        carry(a, b, &mut wire, now);
        carry(b, a, &mut wire, now);
    }
    (sites, wire, now)
}

#[test]
fn a_warm_data_path_allocates_nothing_in_either_direction() {
    let ([mut a, mut b], mut wire, now) = pair(1);
    let packets = [superpacket(0), superpacket(1)];
    let mut frame = [TunFrame {
        buf: FrameBuf::new(),
        ..TunFrame::default()
    }];
    let mut round = || {
        fill(&mut frame[0], &packets[0]);
        assert_eq!(a.engines[0].handle_tun(&mut frame, now), 1);
        assert_eq!(carry(&mut a, &mut b, &mut wire, now), SEGMENTS);
        fill(&mut frame[0], &packets[1]);
        assert_eq!(b.engines[0].handle_tun(&mut frame, now), 1);
        assert_eq!(carry(&mut b, &mut a, &mut wire, now), SEGMENTS);
    };
    (0..10).for_each(|_| round());
    let info = allocation_counter::measure(|| (0..200).for_each(|_| round()));
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn a_choice_of_paths_allocates_nothing_per_packet() {
    let ([mut a, mut b], _, mut now) = pair(1);
    let mut wire: Vec<_> = (0..64).map(|_| UdpFrame::default()).collect();
    let outers = [a.outer, b.outer];
    measure_paths(&mut a, outers[1], now);
    measure_paths(&mut b, outers[0], now);
    for _ in 0..300 {
        now += Duration::from_millis(10);
        for (from, to) in [(0, 1), (1, 0)] {
            let [from, to] = match (from, to) {
                (0, _) => [&mut a, &mut b],
                _ => [&mut b, &mut a],
            };
            from.engines[0].handle_timeout(now);
            carry(from, to, &mut wire, now);
            while from.engines[0].poll_event().is_some() {}
        }
    }
    let board = |site: &Site| {
        let snapshot = site.engines[0].snapshot().clone();
        snapshot.peer(PeerId(0)).expect("the peer").board.clone()
    };
    assert!(board(&a).has_several() && board(&b).has_several());
    assert!(board(&a).routes()[0].path.is_some());
    let packet = superpacket(0);
    let mut port = 1000u16;
    let mut frame = [TunFrame::default()];
    let mut round = || {
        for is_new in [false, true] {
            fill(&mut frame[0], &packet);
            if is_new {
                port += 1;
                frame[0].buf.data_mut()[20..22].copy_from_slice(&port.to_be_bytes());
            }
            assert_eq!(a.engines[0].handle_tun(&mut frame, now), 1);
            assert_eq!(carry(&mut a, &mut b, &mut wire, now), SEGMENTS);
        }
    };
    (0..10).for_each(|_| round());
    let info = allocation_counter::measure(|| (0..200).for_each(|_| round()));
    assert_eq!(info.count_total, 0, "{info:?}");
    let sent: u64 = board(&a).paths().iter().map(|path| path.tx_packets).sum();
    let received: u64 = board(&b).paths().iter().map(|path| path.rx_packets).sum();
    assert_eq!((sent, received), (420 * SEGMENTS, 420 * SEGMENTS));
}

#[test]
fn policy_allocates_nothing_on_a_hit_on_a_new_flow_and_on_a_denied_packet() {
    for refusal in [Refusal::Drop, Refusal::Reject] {
        let ([mut a, mut b], mut wire, now) = pair(1);
        for site in [&mut a, &mut b] {
            let old = site.engines[0].snapshot().clone();
            let specs = old.peers().cloned();
            let identity = old.identity().clone();
            let new = Snapshot::new(Generation(2), identity, old.epoch(), old.mtu(), specs);
            let new = new.with_policy(Some(policy(refusal)));
            site.engines[0].handle_snapshot(Arc::new(new), now);
        }
        let packet = superpacket(0);
        let mut denied = superpacket(0);
        denied[22..24].copy_from_slice(&[0, 80]);
        let mut port = 1000u16;
        let mut frame = [TunFrame::default()];
        let mut round = || {
            fill(&mut frame[0], &packet);
            assert_eq!(a.engines[0].handle_tun(&mut frame, now), 1);
            assert_eq!(carry(&mut a, &mut b, &mut wire, now), SEGMENTS);
            // A flow of its own each time, more than there is room for.
            port += 1;
            fill(&mut frame[0], &packet);
            frame[0].buf.data_mut()[20..22].copy_from_slice(&port.to_be_bytes());
            assert_eq!(a.engines[0].handle_tun(&mut frame, now), 1);
            assert_eq!(carry(&mut a, &mut b, &mut wire, now), SEGMENTS);
            fill(&mut frame[0], &denied);
            assert_eq!(a.engines[0].handle_tun(&mut frame, now), 1);
            assert!(a.engines[0].udp_out().is_empty());
            let written = a.engines[0].tun_out().packets();
            a.engines[0].tun_sent(written, 0);
            while a.engines[0].poll_event().is_some() {}
        };
        (0..10).for_each(|_| round());
        let info = allocation_counter::measure(|| (0..200).for_each(|_| round()));
        assert_eq!(info.count_total, 0, "{refusal:?}: {info:?}");
        let counters = a.engines[0].counters();
        assert!(counters.is_balanced(), "{counters:?}");
        assert_eq!(counters.refusals > 0, refusal == Refusal::Reject);
    }
}

#[test]
fn a_warm_hand_over_between_workers_allocates_nothing() {
    let ([mut a, mut b], mut wire, now) = pair(2);
    let packet = superpacket(0);
    let mut frame = [TunFrame::default()];
    let mut round = || {
        fill(&mut frame[0], &packet);
        assert_eq!(a.engines[1].handle_tun(&mut frame, now), 1);
        let (to, mut handoff) = a.engines[1]
            .take_handoffs()
            .next()
            .expect("the other worker owns the peer");
        assert!(a.engines[to.as_usize()].handle_handoff(&mut handoff, now));
        a.engines[1].recycle(handoff);
        assert_eq!(carry(&mut a, &mut b, &mut wire, now), SEGMENTS);
    };
    (0..10).for_each(|_| round());
    let info = allocation_counter::measure(|| (0..200).for_each(|_| round()));
    assert_eq!(info.count_total, 0, "{info:?}");
}
