//! A new configuration touches only what changed.

use patronus_packet::{Door, Endpoint, UplinkId};
use patronus_tunnel::{PresharedKey, PrivateKey, WorkerId};

use super::*;
use crate::sim::{peer_id, prefixes_of};
use crate::{Event, Generation};

const C: SiteId = SiteId(2);

fn handshakes(net: &mut Net, act: impl FnOnce(&mut Net)) -> usize {
    net.take_captured();
    act(net);
    net.run_for(ROUND);
    count_type(net, 1)
}

#[test]
fn editing_one_peer_leaves_the_sessions_of_the_others_alone() {
    let mut net = Net::mesh(0xa1, 3, SiteOptions::default());
    net.run_for(ROUND);
    let began = handshakes(&mut net, |net| {
        net.edit_peer(A, peer_id(C), |spec| spec.allowed_ips.clear());
        net.edit(A, |specs| {
            specs.remove(&peer_id(C));
        });
        net.edit(A, |_| {});
        assert_works(net);
    });
    assert_eq!(began, 0);
}

#[test]
fn keepalive_allowed_ips_and_mtu_change_without_a_handshake() {
    let mut net = pair(0xa2);
    let began = handshakes(&mut net, |net| {
        net.edit_peer(A, peer_id(B), |spec| {
            spec.keepalive = Some(Duration::from_secs(25))
        });
        net.edit_peer(A, peer_id(B), |spec| spec.keepalive = None);
        net.edit_peer(A, peer_id(B), |spec| {
            spec.allowed_ips.push("10.77.0.0/16".parse().unwrap())
        });
        net.set_mtu(A, 1300);
        assert_works(net);
    });
    assert_eq!(began, 0);
}

#[test]
fn a_reload_under_traffic_loses_nothing() {
    let mut net = pair(0xa3);
    let mut sent = Vec::new();
    for number in 0..200u32 {
        let packet = Packet {
            id: number as u16,
            ..Packet::udp(A, B, &payload(number, 100))
        }
        .build();
        net.send(A, 0, &packet);
        sent.push(packet);
        net.edit(A, |_| {});
        net.edit_peer(B, peer_id(A), |spec| {
            spec.keepalive = Some(Duration::from_secs(u64::from(number) + 1))
        });
    }
    net.settle();
    assert!(net.take_delivered(B) == sent);
    assert_eq!(count_type(&net, 1), 0);
}

#[test]
fn allowed_ips_that_move_take_effect_on_the_next_packet_of_an_existing_flow() {
    let mut net = Net::mesh(0xa4, 3, SiteOptions::default());
    net.run_for(ROUND);
    let packet = Packet::udp(A, B, &payload(1, 30)).build();
    net.send(A, 0, &packet);
    net.run_for(ROUND);
    assert_eq!(net.take_delivered(B).len(), 1);

    // B's prefixes go to C.
    net.edit(A, |specs| {
        specs.get_mut(&peer_id(B)).unwrap().allowed_ips.clear();
        specs
            .get_mut(&peer_id(C))
            .unwrap()
            .allowed_ips
            .extend(prefixes_of(B));
    });
    let to_c = net.site(C).outer();
    net.take_captured();
    net.send(A, 0, &packet);
    assert_eq!(
        net.captured
            .iter()
            .map(|datagram| datagram.to)
            .collect::<Vec<_>>(),
        [to_c]
    );

    // And to nobody.
    net.edit_peer(A, peer_id(C), |spec| spec.allowed_ips.clear());
    let drops = drops_during(&mut net, A, |net| net.send(A, 0, &packet));
    assert_eq!(drops, [(DropReason::NoRoute, 1)]);
}

#[test]
fn allowed_ips_that_are_taken_away_stop_the_next_packet_on_the_way_in() {
    let mut net = pair(0xa5);
    let packet = Packet::udp(B, A, &payload(1, 30)).build();
    net.send(B, 0, &packet);
    net.run_for(ROUND);
    net.take_delivered(A);
    net.edit_peer(A, peer_id(B), |spec| {
        spec.allowed_ips = vec!["10.1.0.99/32".parse().unwrap()]
    });
    let drops = drops_during(&mut net, A, |net| {
        net.send(B, 0, &packet);
        net.run_for(ROUND);
    });
    assert_eq!(drops, [(DropReason::InnerSource, 1)]);
    assert!(net.take_delivered(A).is_empty());
}

#[test]
fn packets_that_wait_for_a_peer_that_is_removed_are_dropped_with_the_reason() {
    let mut net = Net::mesh(0xa6, 2, SiteOptions::default());
    for number in 0..3 {
        net.send(A, 0, &Packet::udp(A, B, &payload(number, 1)).build());
    }
    let drops = drops_during(&mut net, A, |net| {
        net.edit(A, |specs| {
            specs.remove(&peer_id(B));
        });
        net.send(A, 0, &Packet::udp(A, B, &payload(9, 1)).build());
    });
    assert_eq!(
        drops,
        [(DropReason::NoRoute, 1), (DropReason::PeerRemoved, 3)]
    );
    assert_eq!(net.site(A).counters().staged, 0);
    // What is on the wire finds nobody and breaks nothing.
    net.run_for(ROUND);
}

#[test]
fn a_removed_peer_comes_back_with_a_handshake() {
    let mut net = pair(0xa7);
    let spec = net.site(A).spec(peer_id(B)).clone();
    net.edit(A, |specs| {
        specs.remove(&spec.id);
    });
    assert!(net.site(A).engine(0).snapshot().peer(spec.id).is_none());
    // Initiations of one instant carry one timestamp, and the second of two is a replay.
    net.run_for(Duration::from_millis(30));
    let began = handshakes(&mut net, |net| {
        net.edit(A, |specs| {
            specs.insert(spec.id, spec);
        });
    });
    assert_eq!(began, 1);
    assert_works(&mut net);
}

#[test]
fn a_new_preshared_key_shakes_hands_anew_and_both_must_have_it() {
    let mut net = pair(0xa8);
    net.run_for(Duration::from_millis(30));
    let key = PresharedKey::generate();
    net.edit_peer(A, peer_id(B), |spec| spec.preshared_key = Some(key.clone()));
    net.run_for(ROUND);
    assert!(count_type(&net, 1) >= 1);
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 1)).build());
    net.run_for(ROUND);
    assert!(
        net.take_delivered(B).is_empty(),
        "one side alone has the key"
    );
    assert_eq!(net.site(A).counters().staged, 1);

    net.run_for(Duration::from_millis(30));
    net.edit_peer(B, peer_id(A), |spec| spec.preshared_key = Some(key));
    net.run_for(ROUND);
    assert_eq!(net.take_delivered(B).len(), 1, "what waited arrives");
    assert_works(&mut net);
}

#[test]
fn a_new_preshared_key_keeps_the_address_that_was_learned() {
    let mut net = pair(0xa9);
    net.edit_peer(A, peer_id(B), |spec| spec.endpoint = None);
    let moved = SocketAddr::from(([198, 51, 100, 77], 4000));
    net.move_site(B, moved);
    net.send(B, 0, &Packet::udp(B, A, &payload(1, 1)).build());
    net.run_for(Duration::from_millis(50));
    let key = PresharedKey::generate();
    net.edit_peer(B, peer_id(A), |spec| spec.preshared_key = Some(key.clone()));
    net.edit_peer(A, peer_id(B), |spec| spec.preshared_key = Some(key));
    assert_eq!(
        net.site(A).spec(peer_id(B)).stats.endpoint(),
        Some(learned(moved))
    );
    net.run_for(Duration::from_millis(50));
    assert_works(&mut net);
}

fn learned(remote: SocketAddr) -> Endpoint {
    Endpoint {
        remote,
        local: Some([192, 0, 2, 1].into()),
        door: Door::Listen,
        uplink: UplinkId(0),
    }
}

#[test]
fn a_new_private_key_ends_the_sessions_and_shakes_hands_under_the_new_name() {
    let mut net = pair(0xaa);
    let key = PrivateKey::generate();
    let name = key.public_key();
    net.run_for(Duration::from_millis(30));
    net.set_identity(A, key);
    net.run_for(ROUND);
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 1)).build());
    net.run_for(ROUND);
    assert!(
        net.take_delivered(B).is_empty(),
        "B does not know the new name"
    );
    net.edit_peer(B, peer_id(A), |spec| spec.public_key = name);
    net.run_for(ROUND);
    assert_eq!(net.take_delivered(B).len(), 1, "what waited arrives");
    assert_works(&mut net);
}

#[test]
fn a_new_private_key_does_not_wait_for_a_handshake_under_the_old_one() {
    let mut net = Net::new(0xab);
    net.add_site(SiteOptions::default());
    let mut stock = Stock::join(&mut net, A);
    net.edit_peer(A, STOCK, |spec| spec.endpoint = Some(stock.addr));
    net.run_for(ROUND);
    assert_eq!(
        net.take_outside(stock.addr).len(),
        1,
        "an initiation that nobody answers"
    );
    let key = PrivateKey::generate();
    let again = PrivateKey::from_bytes(*key.as_bytes());
    net.set_identity(A, key);
    net.run_for(ROUND);
    let initiations = net.take_outside(stock.addr);
    assert_eq!(initiations.len(), 1, "an initiation under the new name");
    // A peer that knows the new name takes it.
    stock.tunn = Tunn::new(
        x25519::StaticSecret::from([9; 32]),
        x25519::PublicKey::from(*again.public_key().as_bytes()),
        None,
        None,
        1,
        None,
    );
    net.edit_peer(A, STOCK, |spec| {
        spec.public_key = PrivateKey::from_bytes([9; 32]).public_key()
    });
    stock.pump(&mut net);
    stock.assert_works(&mut net);
}

#[test]
fn packets_that_wait_when_the_private_key_changes_are_dropped_with_the_reason() {
    let mut net = Net::mesh(0xac, 2, SiteOptions::default());
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 1)).build());
    let drops = drops_during(&mut net, A, |net| {
        net.set_identity(A, PrivateKey::generate())
    });
    assert_eq!(drops, [(DropReason::PeerRemoved, 1)]);
    assert_eq!(net.site(A).counters().staged, 0);
}

#[test]
fn a_new_public_key_makes_a_new_peer_of_the_same_number() {
    let mut net = pair(0xad);
    let key = PrivateKey::generate();
    let name = key.public_key();
    net.run_for(Duration::from_millis(30));
    net.edit_peer(A, peer_id(B), |spec| spec.public_key = name);
    net.set_identity(B, key);
    net.run_for(ROUND);
    assert_works(&mut net);
}

#[test]
fn a_configured_endpoint_undoes_roaming_only_when_it_is_set_anew() {
    let mut net = pair(0xae);
    let configured = net.site(B).outer();
    let moved = SocketAddr::from(([198, 51, 100, 77], 4000));
    net.move_site(B, moved);
    net.send(B, 0, &Packet::udp(B, A, &payload(1, 1)).build());
    net.run_for(ROUND);
    let endpoint = |net: &Net| {
        net.site(A)
            .spec(peer_id(B))
            .stats
            .endpoint()
            .map(|endpoint| endpoint.remote)
    };
    assert_eq!(endpoint(&net), Some(moved));
    net.edit_peer(A, peer_id(B), |spec| {
        spec.keepalive = Some(Duration::from_secs(30))
    });
    assert_eq!(endpoint(&net), Some(moved), "an unrelated change");
    net.edit_peer(A, peer_id(B), |spec| spec.endpoint_serial += 1);
    assert_eq!(endpoint(&net), Some(configured));
    net.take_captured();
    net.send(A, 0, &Packet::udp(A, B, &payload(2, 1)).build());
    assert_eq!(
        net.captured
            .iter()
            .map(|datagram| datagram.to)
            .collect::<Vec<_>>(),
        [configured]
    );
}

#[test]
fn an_endpoint_taken_out_of_the_configuration_is_kept() {
    let mut net = pair(0xaf);
    net.edit_peer(A, peer_id(B), |spec| spec.endpoint = None);
    assert_works(&mut net);
}

#[test]
fn a_peer_that_moves_to_another_worker_shakes_hands_there() {
    let mut net = pair_of(
        0xb0,
        SiteOptions {
            workers: 2,
            ..SiteOptions::default()
        },
    );
    net.run_for(Duration::from_millis(30));
    net.edit_peer(A, peer_id(B), |spec| spec.worker = WorkerId(1));
    net.run_for(ROUND);
    assert_works(&mut net);
    assert_eq!(net.site(A).engine(1).counters().handshakes, 1);
}

#[test]
fn a_storm_of_reloads_leaves_the_last_configuration_and_the_session() {
    let mut net = pair(0xb1);
    for round in 0..2000u64 {
        net.edit_peer(A, peer_id(B), |spec| {
            spec.keepalive = (round % 2 == 0).then_some(Duration::from_secs(60))
        });
    }
    assert!(net.site(A).engine(0).snapshot().generation() >= Generation(2000));
    assert_works(&mut net);
    assert_eq!(count_type(&net, 1), 0);
}

#[test]
fn adding_and_removing_a_peer_without_end_leaks_no_index() {
    let mut net = pair(0xb2);
    let mut spec = net.spec_of(B);
    spec.endpoint = None;
    spec.allowed_ips.clear();
    for number in 10..2010 {
        let mut spec = spec.clone();
        (spec.id, spec.public_key) = (
            PeerId(10),
            PrivateKey::from_bytes([number as u8; 32]).public_key(),
        );
        net.edit(A, |specs| {
            specs.insert(spec.id, spec);
        });
        net.edit(A, |specs| {
            specs.remove(&PeerId(10));
        });
    }
    assert_works(&mut net);
}

#[test]
fn what_waits_at_the_end_is_counted_as_shutdown() {
    let mut net = Net::mesh(0xb3, 2, SiteOptions::default());
    for number in 0..5 {
        net.send(A, 0, &Packet::udp(A, B, &payload(number, 1)).build());
    }
    let drops = drops_during(&mut net, A, |net| net.site_mut(A).engine_mut(0).shut_down());
    assert_eq!(drops, [(DropReason::Shutdown, 5)]);
    assert!(net.site(A).counters().is_balanced());
}

#[test]
fn a_panic_closes_the_books_and_the_engine_goes_on() {
    let mut net = pair(0xb4);
    // Into the engine and not out of it: what a worker holds when it panics.
    let packet = Packet::udp(A, B, &payload(1, 1)).build();
    let now = net.now();
    let frame = TunFrame {
        buf: FrameBuf::from_data(&packet),
        ..TunFrame::default()
    };
    let mut frames = [frame];
    let engine = net.site_mut(A).engine_mut(0);
    engine.handle_tun(&mut frames, now);
    assert!(!engine.counters().is_balanced());
    engine.recover();
    assert!(engine.counters().is_balanced());
    assert_eq!(engine.counters().drops[DropReason::WorkerPanic as usize], 1);
    assert_works(&mut net);
}

#[test]
fn events_tell_of_handshakes_and_new_addresses() {
    let mut net = pair(0xb5);
    assert!(
        net.site(A)
            .events
            .contains(&Event::HandshakeCompleted(peer_id(B)))
    );
    net.site_mut(A).events.clear();
    let moved = SocketAddr::from(([198, 51, 100, 77], 4000));
    net.move_site(B, moved);
    for number in 0..3 {
        net.send(B, 0, &Packet::udp(B, A, &payload(number, 1)).build());
        net.run_for(ROUND);
    }
    assert_eq!(
        net.site(A).events,
        [Event::EndpointChanged(peer_id(B), learned(moved))]
    );
}

#[test]
fn a_daemon_that_was_killed_is_back_after_one_handshake() {
    let mut net = pair(0xb6);
    net.run_for(Duration::from_millis(30));
    net.restart(B);
    let before = net.site(A).counters().handshakes;
    net.run_for(ROUND);
    assert_works(&mut net);
    assert_eq!(net.site(A).counters().handshakes, before + 1);
}

#[test]
fn what_is_sent_to_a_daemon_that_forgot_the_session_is_counted_there() {
    let mut net = pair(0xb7);
    net.edit_peer(B, peer_id(A), |spec| spec.endpoint = None);
    net.restart(B);
    net.send(A, 0, &Packet::udp(A, B, &payload(1, 1)).build());
    let drops = drops_during(&mut net, B, |net| net.run_for(ROUND));
    assert_eq!(drops, [(DropReason::UnknownIndex, 1)]);
}

#[test]
fn a_peer_removed_and_added_again_between_two_looks_is_forgotten() {
    let mut net = pair(0xb7);
    let before = net.site(A).spec(peer_id(B)).stats.last_handshake();
    // One snapshot: the worker never sees the one in between, and number and key are the same.
    let again = net.spec_of(B);
    let began = handshakes(&mut net, |net| {
        net.edit(A, |specs| {
            specs.insert(again.id, again);
        });
        assert_works(net);
    });
    assert!(began >= 1);
    let after = net.site(A).spec(peer_id(B)).stats.last_handshake();
    assert!(before.is_some() && after > before, "{before:?}, {after:?}");
}
