//! Classes that are chosen by the labels of pods: here by their addresses, as control gives them.

use patronus_path::Command;

use super::*;
use crate::{PathOrder, PodSets};

/// A table like [`classes`] whose realtime class takes these pods, and nothing by DSCP.
fn naming(hosts: &[IpAddr]) -> PathsConfig {
    let mut config = paths_config(2, false);
    let table = &mut config.classes;
    table.rules = vec![ClassRule {
        class: REALTIME,
        pods: true,
        ..ClassRule::default()
    }];
    table.pods = PodSets::new(hosts.iter().map(|addr| (*addr, REALTIME)));
    config
}

fn pin(net: &mut Net, at: SiteId, of: SiteId, class: ClassId, uplink: u8) {
    let path = path_over(net, at, of, uplink);
    let order = PathOrder::Command(peer_id(of), Command::Pin(path, Some(class)));
    let now = net.now();
    net.site_mut(at)
        .engine_mut(0)
        .handle_path_order(&order, now);
}

/// Two sites whose realtime traffic goes over uplink 1 and whose other traffic goes over uplink 0.
fn apart(seed: u64, pods: &[IpAddr]) -> Net {
    let mut net = TWO_BY_TWO.warm(seed);
    for (at, of) in [(A, B), (B, A)] {
        net.set_paths(at, naming(pods));
        pin(&mut net, at, of, REALTIME, 1);
        pin(&mut net, at, of, DEFAULT, 0);
    }
    // Long enough for what flowed before to have moved.
    net.run_for(Duration::from_secs(6));
    for (at, of) in [(A, B), (B, A)] {
        assert_eq!(uplink_of(&net, at, of, REALTIME), 1);
        assert_eq!(uplink_of(&net, at, of, DEFAULT), 0);
    }
    net
}

/// Class and uplink of the last packet of a stream.
#[track_caller]
fn sent_as(net: &Net, stream: &Stream) -> (ClassId, u8) {
    let now_s = net.elapsed().as_secs() as u32;
    let flows = net.site(stream.from).engine(0).flow_table().flows(now_s);
    let mut own = flows.filter(|flow| flow.key.src_port == stream.port);
    let steer = own.next().expect("the flow is known").steer;
    let paths = board(net, stream.from, stream.to);
    let path = paths.iter().find(|it| it.path == steer.path());
    (
        steer.class(),
        path.expect("the path is on the board").endpoint.uplink.0,
    )
}

#[test]
fn a_flow_of_a_named_pod_takes_the_path_of_its_class_whichever_end_it_is() {
    for named in [host(A, 1), host(B, 1)] {
        let mut net = apart(0x1ab0, &[named]);
        let mut streams = Streams::both_ways(DEFAULT_DSCP);
        streams.run(&mut net, ROUND, Duration::from_millis(5));
        streams.rest(&mut net, ROUND);
        for stream in &streams.0 {
            assert_eq!(sent_as(&net, stream), (REALTIME, 1), "{named}");
        }
        streams.assert_whole();
    }
    let mut net = apart(0x1ab1, &[host(A, 2), host(B, 2)]);
    let mut streams = Streams::both_ways(DEFAULT_DSCP);
    streams.run(&mut net, ROUND, Duration::from_millis(5));
    for stream in &streams.0 {
        assert_eq!(sent_as(&net, stream), (DEFAULT, 0));
    }
}

#[test]
fn a_label_that_changes_moves_the_flow_with_its_next_packet() {
    let mut net = apart(0x1ab2, &[]);
    let mut streams = Streams(vec![Stream::new(A, B, DEFAULT_DSCP, 4000)]);
    streams.run(&mut net, ROUND, Duration::from_millis(5));
    assert_eq!(sent_as(&net, &streams.0[0]), (DEFAULT, 0));
    for (pods, expected) in [(vec![host(A, 1)], (REALTIME, 1)), (vec![], (DEFAULT, 0))] {
        net.set_paths(A, naming(&pods));
        streams.0[0].send(&mut net);
        assert_eq!(sent_as(&net, &streams.0[0]), expected);
        streams.rest(&mut net, ROUND);
    }
    streams.assert_whole();
}
