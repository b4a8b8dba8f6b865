//! Which path a class uses: failures, flaps, preference, commands, dampening, load, protection, the peer.

mod common;

use common::{BULK, DEFAULT, INTERACTIVE, Link, REALTIME, Sim, at, is_voluntary, profile, seconds};
use patronus_path::record::Cause;
use patronus_path::{
    Bandwidth, BandwidthSource, ClassConfig, ClassId, Command, Direction, Observation, PathIndex,
    PathMetrics, PathState, SelectorConfig, StateReason,
};

const P: PathIndex = PathIndex(0);
const Q: PathIndex = PathIndex(1);

/// Two good links; the first one is preferred by its cost.
fn two() -> Sim {
    Sim::new(
        ClassConfig::defaults(),
        vec![Link::new(20.0), Link::new(20.0)],
        1,
    )
}

fn command(sim: &mut Sim, command: Command) {
    sim.see(Observation::Command(command));
}

fn state(sim: &mut Sim, path: PathIndex, state: PathState, reason: StateReason) {
    sim.see(Observation::State(path, state, reason));
}

/// Switches of the default class in 10 minutes in which the preferred path is up and down by turns.
fn switches_with_square_wave(up_s: f64, down_s: f64) -> usize {
    let mut sim = two();
    sim.run(60.0);
    let start = sim.now;
    while sim.now.since(start) < seconds(600.0) {
        sim.set_up(0, true);
        sim.run(up_s);
        sim.set_up(0, false);
        sim.run(down_s);
    }
    sim.switches(DEFAULT, start).len()
}

#[test]
fn a_flapping_path_is_used_less_and_less() {
    for (up_s, down_s, most) in [
        (5.0, 5.0, 1),
        (15.0, 5.0, 3),
        (30.0, 1.0, 5),
        (60.0, 5.0, 7),
        (1.0, 1.0, 1),
    ] {
        let switches = switches_with_square_wave(up_s, down_s);
        assert!(
            (1..=most).contains(&switches),
            "{up_s} s up, {down_s} s down: {switches} switches"
        );
    }
}

#[test]
fn the_first_path_is_taken_at_once_and_a_preferred_one_that_follows_soon_too() {
    let config = SelectorConfig::new(ClassConfig::defaults());
    let mut sim = Sim::bare(config, vec![Link::new(20.0), Link::new(20.0)], 1);
    for (path, cost) in [(P, 0), (Q, 1)] {
        sim.see(Observation::Path(path, profile(path.0, cost)));
    }
    assert_eq!(sim.path(DEFAULT), None);
    sim.set_up(1, true);
    assert_eq!(sim.path(DEFAULT), Some(1));
    sim.run(0.5);
    sim.set_up(0, true);
    assert_eq!(sim.path(DEFAULT), Some(0));
    assert!(sim.decisions.iter().all(|d| d.cause == Cause::First));
}

#[test]
fn a_down_moves_every_flow_at_once_and_the_last_down_leaves_no_path() {
    let mut sim = two();
    sim.run(60.0);
    sim.set_up(0, false);
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!(
        (route.path, route.leaving, route.share),
        (Some(Q), None, 256)
    );
    let decision = sim.decisions.last().expect("one was made");
    assert_eq!(decision.cause, Cause::Forced);
    assert_eq!(
        decision.candidates[1].why_not.as_deref(),
        Some("down: nothing heard")
    );
    sim.set_up(1, false);
    assert_eq!(sim.path(DEFAULT), None);
    assert_eq!(sim.decisions.last().map(|d| d.cause), Some(Cause::NoPath));
    sim.set_up(1, true);
    assert_eq!(sim.path(DEFAULT), Some(1));
}

#[test]
fn a_preferred_path_is_returned_to_after_its_hold_down() {
    let mut sim = two();
    sim.run(60.0);
    sim.set_up(0, false);
    sim.run(5.0);
    sim.set_up(0, true);
    let up = sim.now;
    sim.run(60.0);
    let back = sim.switches(DEFAULT, up);
    assert_eq!(back.len(), 1, "{back:?}");
    assert_eq!((back[0].cause, back[0].to), (Cause::Failback, Some(P)));
    assert_eq!(back[0].at, up + seconds(10.0));
}

#[test]
fn a_class_prefers_its_own_uplinks_over_cheaper_ones() {
    let mut classes = ClassConfig::defaults();
    classes[3].prefer = vec![1];
    let mut sim = Sim::new(classes, vec![Link::new(20.0), Link::new(20.0)], 1);
    sim.run(10.0);
    assert_eq!((sim.path(DEFAULT), sim.path(BULK)), (Some(0), Some(1)));
}

#[test]
fn a_move_is_graceful_and_ends_after_five_seconds() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Drain(P));
    let start = sim.now;
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!(
        (route.path, route.leaving, route.share),
        (Some(Q), Some(P), 64)
    );
    assert_eq!(route.deadline, start + seconds(5.0));
    assert!(route.gap >= seconds(0.005), "{:?}", route.gap);
    for share in [128, 192, 256] {
        sim.run(1.0);
        assert_eq!(sim.selector.routes()[DEFAULT.as_usize()].share, share);
    }
    sim.run(1.9);
    assert_eq!(sim.selector.routes()[DEFAULT.as_usize()].leaving, Some(P));
    sim.run(0.2);
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!(
        (route.path, route.leaving, route.share),
        (Some(Q), None, 256)
    );
}

#[test]
fn a_flow_pauses_longer_where_the_old_path_is_slower() {
    let links = vec![Link::new(120.0), Link::new(20.0)];
    let mut sim = Sim::new(ClassConfig::defaults(), links, 1);
    sim.run(60.0);
    command(&mut sim, Command::Drain(P));
    let gap = sim.selector.routes()[DEFAULT.as_usize()].gap;
    assert!(gap >= seconds(0.050) && gap <= seconds(0.070), "{gap:?}");
}

#[test]
fn a_path_that_dies_while_it_is_left_is_left_at_once() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Drain(P));
    sim.run(1.0);
    sim.set_up(0, false);
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!(
        (route.path, route.leaving, route.share),
        (Some(Q), None, 256)
    );
}

#[test]
fn a_move_stops_while_the_new_path_queues() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Drain(P));
    let start = sim.now;
    sim.links[1].rtt_ms += 40.0;
    sim.run(8.0);
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!(route.leaving, Some(P), "the move goes on");
    assert!(route.share < 256, "{}", route.share);
    sim.run(23.0);
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!(
        route.leaving,
        None,
        "but not for ever, after {:?}",
        sim.now.since(start)
    );
}

#[test]
fn a_drained_path_carries_nothing_until_it_is_undrained() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Drain(P));
    sim.run(120.0);
    assert_eq!(sim.path(DEFAULT), Some(1));
    command(&mut sim, Command::Undrain(P));
    sim.run(60.0);
    assert_eq!(sim.path(DEFAULT), Some(0));
}

#[test]
fn a_draining_path_is_used_when_it_is_the_only_one() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Drain(P));
    sim.run(10.0);
    sim.set_up(1, false);
    assert_eq!(sim.path(DEFAULT), Some(0));
    sim.set_up(1, true);
    assert_eq!(sim.path(DEFAULT), Some(1), "and left again when it is not");
}

#[test]
fn a_path_that_the_peer_drains_is_left_too() {
    let mut sim = two();
    sim.run(60.0);
    state(&mut sim, P, PathState::Up, StateReason::PeerSignalled);
    let route = sim.selector.routes()[DEFAULT.as_usize()];
    assert_eq!((route.path, route.leaving), (Some(Q), Some(P)));
}

#[test]
fn a_pin_holds_through_a_violation_and_ends_by_command() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Pin(Q, Some(REALTIME)));
    assert_eq!((sim.path(REALTIME), sim.path(DEFAULT)), (Some(1), Some(0)));
    sim.links[1].loss = [0.3, 0.3];
    sim.run(30.0);
    assert_eq!(sim.violated(REALTIME), [1]);
    assert_eq!(sim.path(REALTIME), Some(1));
    command(&mut sim, Command::Unpin(None));
    assert_eq!(sim.path(REALTIME), Some(0));
}

#[test]
fn a_pinned_path_is_left_while_it_is_down_and_returned_to() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Pin(Q, None));
    sim.run(10.0);
    sim.set_up(1, false);
    assert_eq!(sim.path(DEFAULT), Some(0));
    sim.run(5.0);
    sim.set_up(1, true);
    sim.run(9.9);
    assert_eq!(sim.path(DEFAULT), Some(0), "its hold-down counts");
    sim.run(0.2);
    assert_eq!(sim.path(DEFAULT), Some(1));
    assert_eq!(sim.decisions.last().map(|d| d.cause), Some(Cause::Pin));
}

#[test]
fn four_downs_suppress_a_path_until_it_was_quiet_for_two_minutes() {
    let mut sim = two();
    sim.run(60.0);
    for _ in 0..4 {
        sim.set_up(0, false);
        sim.run(0.5);
        sim.set_up(0, true);
        sim.run(0.5);
    }
    let (penalty, until) = sim.selector.penalty(P, sim.now).expect("the path is known");
    assert!((3850.0..4000.0).contains(&penalty), "{penalty}");
    let left_s = until
        .expect("it is suppressed")
        .since(sim.now)
        .as_secs_f64();
    // 60 s · log2(3950 / 750)
    assert!((138.0..146.0).contains(&left_s), "{left_s}");
    assert_eq!(
        sim.selector
            .standing(DEFAULT, P, sim.now)
            .map(|(tier, _)| tier),
        Some(3)
    );
    sim.set_up(1, false);
    assert_eq!(sim.path(DEFAULT), Some(0), "it is better than none");
    sim.set_up(1, true);
    assert_eq!(sim.path(DEFAULT), Some(1), "and worse than any other");
    sim.run(left_s + 1.0);
    assert_eq!(
        sim.selector
            .standing(DEFAULT, P, sim.now)
            .map(|(tier, _)| tier),
        Some(0)
    );
}

#[test]
fn clearing_a_path_forgets_penalties_and_hold_downs() {
    let mut sim = two();
    sim.run(60.0);
    for _ in 0..5 {
        sim.set_up(0, false);
        sim.run(0.5);
        sim.set_up(0, true);
        sim.run(0.5);
    }
    assert_eq!(sim.path(DEFAULT), Some(1));
    command(&mut sim, Command::Clear(P));
    assert_eq!(sim.selector.penalty(P, sim.now), Some((0.0, None)));
    sim.run(31.0);
    assert_eq!(sim.path(DEFAULT), Some(0));
}

#[test]
fn packets_of_a_protected_class_are_doubled_while_its_path_is_suspect() {
    let mut classes = ClassConfig::defaults();
    classes[0].protect = true;
    let mut sim = Sim::new(classes, vec![Link::new(20.0), Link::new(20.0)], 1);
    sim.run(60.0);
    let protectors = |sim: &Sim| {
        [REALTIME, DEFAULT].map(|class| sim.selector.routes()[class.as_usize()].protect)
    };
    assert_eq!(protectors(&sim), [None, None]);
    state(&mut sim, P, PathState::Suspect, StateReason::HellosMissed);
    assert_eq!(protectors(&sim), [Some(Q), None]);
    assert_eq!(sim.path(REALTIME), Some(0), "suspicion moves nobody");
    state(&mut sim, P, PathState::Up, StateReason::Heard);
    assert_eq!(protectors(&sim), [None, None]);
    state(&mut sim, P, PathState::Suspect, StateReason::HellosMissed);
    sim.set_up(0, false);
    assert_eq!(
        (sim.path(REALTIME), protectors(&sim)),
        (Some(1), [None, None])
    );
}

/// Two paths of equal preference, the second one much faster.
fn slow_and_fast() -> Sim {
    let config = SelectorConfig::new(ClassConfig::defaults());
    let mut sim = Sim::bare(config, vec![Link::new(20.0), Link::new(20.0)], 1);
    for path in [P, Q] {
        sim.see(Observation::Path(path, profile(path.0, 10)));
    }
    sim.set_up(0, true);
    sim.run(10.0);
    sim.set_up(1, true);
    sim.run(30.0);
    sim.links[0].rtt_ms = 350.0;
    sim
}

#[test]
fn a_path_that_is_better_for_thirty_seconds_is_taken() {
    let mut sim = slow_and_fast();
    sim.run(25.0);
    assert_eq!(sim.path(INTERACTIVE), Some(0));
    sim.run(10.0);
    assert_eq!(sim.path(INTERACTIVE), Some(1));
    let decision = sim.switches(INTERACTIVE, at(0.0))[0];
    assert_eq!(decision.cause, Cause::Better);
    assert!(decision.summary.contains("score"), "{}", decision.summary);
}

#[test]
fn a_better_path_without_room_is_not_taken() {
    let mut sim = slow_and_fast();
    sim.see(Observation::Load(INTERACTIVE, 50e6));
    let mut full = profile(1, 10);
    full.capacity_bps = Some(50e6);
    sim.see(Observation::Path(Q, full));
    sim.run(120.0);
    assert_eq!(sim.path(INTERACTIVE), Some(0));
    let candidates = sim.selector.candidates(INTERACTIVE, sim.now);
    assert_eq!(
        candidates[0].why_not.as_deref(),
        Some("no room: 50.0 Mbit/s for 45.0")
    );
    sim.see(Observation::Load(INTERACTIVE, 40e6));
    sim.run(2.0);
    assert_eq!(sim.path(INTERACTIVE), Some(1));
}

#[test]
fn two_paths_that_slow_down_under_load_are_not_changed_more_than_once_a_minute() {
    let config = SelectorConfig::new(ClassConfig::defaults());
    let mut sim = Sim::bare(config, vec![Link::new(20.0), Link::new(20.0)], 1);
    for path in [P, Q] {
        sim.see(Observation::Path(path, profile(path.0, 10)));
    }
    sim.set_up(0, true);
    sim.set_up(1, true);
    let start = sim.now;
    for _ in 0..1200 {
        sim.run(0.5);
        let in_use = sim.path(INTERACTIVE);
        for (index, link) in sim.links.iter_mut().enumerate() {
            let target_ms = if in_use == Some(index as u8) {
                380.0
            } else {
                20.0
            };
            link.rtt_ms += (target_ms - link.rtt_ms) * 0.2;
        }
    }
    let switches = sim.switches(INTERACTIVE, start);
    let voluntary: Vec<_> = switches.iter().filter(|d| is_voluntary(d)).collect();
    assert!(
        !voluntary.is_empty(),
        "the wish never came true: the test shows nothing"
    );
    for pair in voluntary.windows(2) {
        assert!(pair[1].at.since(pair[0].at) >= seconds(60.0), "{pair:?}");
    }
}

#[test]
fn bulk_stays_on_a_lossy_path_where_the_other_is_slower() {
    for (capacity_bps, path) in [(0.2e6, 0), (50e6, 1)] {
        let mut sim = two();
        sim.run(60.0);
        let mut other = profile(1, 1);
        other.capacity_bps = Some(capacity_bps);
        sim.see(Observation::Path(Q, other));
        sim.links[0].loss = [0.2, 0.0];
        sim.run(20.0);
        assert_eq!(sim.violated(BULK), [0]);
        assert_eq!(sim.path(BULK), Some(path), "{capacity_bps} bit/s");
        assert_eq!(sim.path(REALTIME), Some(1));
    }
}

#[test]
fn data_that_is_lost_while_hellos_pass_moves_realtime() {
    let mut sim = two();
    sim.run(60.0);
    let start = sim.now;
    let mut moved_s = None;
    for _ in 0..60 {
        sim.run(0.05);
        sim.see(Observation::Data(P, Direction::Tx, 100, 100));
        if moved_s.is_none() && sim.path(REALTIME) == Some(1) {
            moved_s = Some(sim.now.since(start).as_secs_f64());
        }
    }
    let moved_s = moved_s.expect("it moves");
    assert!((0.2..3.0).contains(&moved_s), "{moved_s} s");
}

#[test]
fn data_that_another_path_lost_a_while_ago_hides_no_loss() {
    let mut sim = two();
    sim.run(40.0);
    assert_eq!(sim.path(REALTIME), Some(0));
    // As on a path that was left because the peer left it.
    sim.see(Observation::Data(Q, Direction::Tx, 1000, 500));
    sim.run(4.0);
    let start = sim.now;
    for _ in 0..6 {
        sim.run(0.5);
        sim.see(Observation::Data(P, Direction::Tx, 500, 500));
    }
    let switches = sim.switches(REALTIME, start);
    assert_eq!(switches.len(), 1, "{switches:?}");
    assert_eq!(switches[0].cause, Cause::Sla);
}

#[test]
fn one_burst_of_lost_data_moves_nobody() {
    let mut sim = two();
    sim.run(60.0);
    sim.see(Observation::Data(P, Direction::Tx, 10_000, 0));
    sim.run(1.0);
    sim.see(Observation::Data(P, Direction::Tx, 10_000, 10_000));
    sim.run(5.0);
    assert_eq!(sim.path(REALTIME), Some(0));
}

fn follower() -> Sim {
    let mut config = SelectorConfig::new(ClassConfig::defaults());
    config.leads = false;
    Sim::with_config(config, vec![Link::new(20.0), Link::new(20.0)], 1)
}

#[test]
fn a_site_that_follows_uses_what_the_peer_uses() {
    let mut sim = follower();
    sim.run(60.0);
    assert_eq!(
        sim.path(DEFAULT),
        Some(0),
        "it decides while the peer says nothing"
    );
    sim.see(Observation::PeerChoice(DEFAULT, Q));
    assert_eq!(sim.path(DEFAULT), Some(1));
    assert_eq!(sim.decisions.last().map(|d| d.cause), Some(Cause::Peer));
    sim.run(300.0);
    assert_eq!(
        sim.path(DEFAULT),
        Some(1),
        "its own preference does not count"
    );
}

#[test]
fn a_site_that_follows_leaves_a_path_on_which_its_own_way_is_bad() {
    let mut sim = follower();
    sim.see(Observation::PeerChoice(REALTIME, P));
    sim.run(60.0);
    sim.links[0].loss = [0.0, 0.2];
    sim.run(20.0);
    assert_eq!(
        sim.path(REALTIME),
        Some(0),
        "the peer's way is the peer's business"
    );
    sim.links[0].loss = [0.2, 0.0];
    sim.run(20.0);
    assert_eq!(sim.path(REALTIME), Some(1));
    sim.links[0].loss = [0.0, 0.0];
    sim.run(90.0);
    assert_eq!(sim.path(REALTIME), Some(0));
}

#[test]
fn a_site_that_leads_does_not_care_what_the_peer_uses() {
    let mut sim = two();
    sim.run(60.0);
    sim.see(Observation::PeerChoice(DEFAULT, Q));
    sim.run(60.0);
    assert_eq!(sim.path(DEFAULT), Some(0));
}

#[test]
fn new_classes_keep_paths_and_history_by_name() {
    let mut sim = two();
    sim.run(60.0);
    command(&mut sim, Command::Pin(Q, Some(DEFAULT)));
    sim.run(10.0);
    let mut classes = ClassConfig::defaults();
    classes.swap(0, 2);
    classes[3].name = "backup".to_owned();
    let before = sim.decisions.len();
    sim.selector
        .configure(SelectorConfig::new(classes), sim.now);
    assert_eq!(sim.selector.pinned(ClassId(0)), Some(Q));
    assert_eq!(
        [0, 1, 2, 3].map(|n| sim.path(ClassId(n))),
        [Some(1), Some(0), Some(0), Some(0)]
    );
    let news: Vec<_> = std::iter::from_fn(|| sim.selector.poll_decision()).collect();
    assert_eq!(
        news.len(),
        1,
        "only the new class decides; {before} before: {news:?}"
    );
    assert_eq!(news[0].class_name, "backup");
}

#[test]
fn nonsense_from_outside_changes_nothing() {
    let mut sim = two();
    sim.run(60.0);
    let before = sim.selector.clone();
    let far = PathIndex(200);
    let nonsense = [
        Observation::Rtt(far, 1.0),
        Observation::Rtt(P, f64::NAN),
        Observation::Deviation(P, Direction::Rx, f64::INFINITY),
        Observation::Probe(far, Direction::Tx, true),
        Observation::Data(far, Direction::Tx, 1, 2),
        Observation::State(PathIndex(9), PathState::Up, StateReason::Heard),
        Observation::Path(PathIndex(16), profile(0, 0)),
        Observation::Gone(PathIndex(9)),
        Observation::PeerChoice(ClassId(99), P),
        Observation::Load(ClassId(99), 1.0),
        Observation::Load(DEFAULT, f64::NAN),
        Observation::Command(Command::Pin(PathIndex(9), None)),
        Observation::Command(Command::Drain(far)),
        Observation::Command(Command::Clear(far)),
    ];
    for observation in nonsense {
        sim.selector.observe(&observation, sim.now);
    }
    assert_eq!(sim.selector, before);
    let metrics = PathMetrics {
        rtt_fast_ns: Some(f64::NAN),
        tx_bandwidth: Some(Bandwidth {
            bps: f64::NAN,
            source: BandwidthSource::Train,
            age_s: f64::NAN,
        }),
        ..PathMetrics::default()
    };
    sim.see(Observation::Metrics(P, Box::new(metrics)));
    sim.see(Observation::Data(P, Direction::Tx, 1, u32::MAX));
    assert_eq!(sim.selector.standing(ClassId(99), P, sim.now), None);
    assert!(sim.selector.candidates(ClassId(99), sim.now).is_empty());
}

#[test]
fn the_next_best_path_of_every_class_stands_by() {
    let mut sim = two();
    sim.run(10.0);
    assert_eq!(sim.selector.standby(), 0b10);
    command(&mut sim, Command::Pin(Q, Some(REALTIME)));
    assert_eq!(sim.selector.standby(), 0b11);
    sim.set_up(1, false);
    assert_eq!(sim.selector.standby(), 0);
}

#[test]
fn a_lost_carrier_takes_all_paths_of_its_uplink_in_one_move() {
    let config = SelectorConfig::new(ClassConfig::defaults());
    let links = vec![Link::new(20.0), Link::new(20.0), Link::new(20.0)];
    let mut sim = Sim::bare(config, links, 1);
    // Two paths over the first uplink, and one over the second that costs more.
    for (path, uplink, cost) in [(0, 0, 0), (1, 0, 1), (2, 1, 2)] {
        sim.see(Observation::Path(PathIndex(path), profile(uplink, cost)));
        sim.set_up(usize::from(path), true);
    }
    sim.run(60.0);
    assert_eq!(sim.path(DEFAULT), Some(0));
    let before = sim.now;
    state(&mut sim, P, PathState::Down, StateReason::CarrierLost);
    assert_eq!(sim.path(DEFAULT), Some(2));
    state(&mut sim, Q, PathState::Down, StateReason::CarrierLost);
    assert_eq!(sim.switches(DEFAULT, before).len(), 1);
}
