//! Lanes on several paths.

use super::*;

const WITH_LANES: World = World {
    workers: 2,
    lanes: true,
    ..TWO_BY_TWO
};

/// Sends numbered packets into the queue of the worker that has a lane, in both directions; which of them came.
fn send(net: &mut Net, count: u32) -> [usize; 2] {
    for site in [A, B] {
        net.take_delivered(site);
    }
    for number in 0..count {
        for (from, to) in [(A, B), (B, A)] {
            net.send(
                from,
                1,
                &Packet::udp(from, to, &payload(number, 60)).build(),
            );
        }
        net.run_for(Duration::from_millis(5));
    }
    net.run_for(Duration::from_millis(100));
    [B, A].map(|site| net.take_delivered(site).len())
}

#[test]
fn a_lane_has_an_end_on_every_path_and_follows_lane_0() {
    let mut net = WITH_LANES.warm(0x1a00);
    net.run_for(Duration::from_secs(3));
    let handed = |net: &Net| [A, B].map(|site| net.site(site).counters().handed_out);
    let before = handed(&net);
    net.take_captured();
    assert_eq!(send(&mut net, 100), [100, 100]);
    assert_eq!(handed(&net), before, "the lanes carry by themselves");
    let active = uplink_of(&net, A, B, DEFAULT);
    set_path(&mut net, active, dead());
    net.run_for(Duration::from_millis(500));
    let before = handed(&net);
    assert_eq!(send(&mut net, 100), [100, 100]);
    assert_eq!(
        handed(&net),
        before,
        "each lane knew its end on the other path"
    );
    let counted = board(&net, A, B)
        .into_iter()
        .find(|it| it.endpoint.uplink.0 == 1 - active);
    assert!(
        counted.unwrap().tx_packets >= 100,
        "lanes' packets are counted on the path"
    );
}

#[test]
fn a_lane_without_an_end_on_the_path_hands_packets_to_lane_0() {
    let mut net = WITH_LANES.warm(0x1a01);
    net.run_for(Duration::from_secs(3));
    // The side that follows learns its ends from the other side's lane, so a world that drops those hellos keeps it
    // from learning the new end of a path that moves.
    let follower = match net.site(A).identity().public_key() < net.site(B).identity().public_key() {
        true => B,
        false => A,
    };
    let leader = if follower == A { B } else { A };
    let active = uplink_of(&net, A, B, DEFAULT);
    let other = 1 - active;
    for (site, peer) in [(A, B), (B, A)] {
        net.edit_peer(site, peer_id(peer), |spec| {
            spec.paths.retain(|path| path.uplink == active);
        });
    }
    net.run_for(Duration::from_secs(3));
    assert!(board(&net, follower, leader).len() <= 2);
    // With one path the lane goes where lane 0 is heard, as ever.
    let before = net.site(follower).counters().handed_out;
    assert_eq!(send(&mut net, 50), [50, 50]);
    assert_eq!(net.site(follower).counters().handed_out, before);
    // The second path comes back: until the lane knows its end there, packets are handed on and none is lost.
    for (site, peer) in [(A, B), (B, A)] {
        let remote = net.site(peer).outer_on(other);
        net.edit_peer(site, peer_id(peer), |spec| {
            spec.paths.push(path_spec(other, remote))
        });
    }
    assert_eq!(send(&mut net, 300), [300, 300]);
    let before = net.site(follower).counters().handed_out;
    net.run_for(Duration::from_secs(2));
    assert_eq!(send(&mut net, 50), [50, 50]);
    assert_eq!(net.site(follower).counters().handed_out, before);
}

#[test]
fn packets_of_a_worker_without_a_lane_take_the_path_of_their_class() {
    let world = World {
        lanes: false,
        ..WITH_LANES
    };
    let mut net = world.warm(0x1a02);
    let active = uplink_of(&net, A, B, DEFAULT);
    let sent = |net: &Net, uplink: u8| {
        let known = board(net, A, B)
            .into_iter()
            .find(|it| it.endpoint.uplink.0 == uplink);
        known.map_or(0, |it| it.tx_packets)
    };
    let before = [sent(&net, active), sent(&net, 1 - active)];
    assert_eq!(send(&mut net, 100), [100, 100]);
    net.run_for(Duration::from_millis(300));
    let after = [sent(&net, active), sent(&net, 1 - active)];
    assert_eq!([after[0] - before[0], after[1] - before[1]], [100, 0]);
    set_path(&mut net, active, dead());
    net.run_for(Duration::from_millis(500));
    assert_eq!(send(&mut net, 100), [100, 100]);
    net.run_for(Duration::from_millis(300));
    assert_eq!(sent(&net, 1 - active) - after[1], 100);
}
