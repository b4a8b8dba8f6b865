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
