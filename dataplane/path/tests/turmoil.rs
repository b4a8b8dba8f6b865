//! Whatever happens, probers do not panic, do not spin, and find each other again.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::message::Kind;
use patronus_path::{
    Arrival, Hello, PathCounters, PathIndex, PathState, Prober, StateReason, Time,
};
use proptest::prelude::*;
use world::{Link, Site, World, addr, config, ms};

#[derive(Clone, Debug)]
enum Step {
    Cut(usize, u8, bool),
    Loss(usize, u8, f64),
    Delay(usize, u8, u64),
    Mtu(usize, u8, usize),
    Nat(usize, u8, u16),
    Uplink(usize, u8, bool),
    Refused(usize, u8),
    TooBig(usize, u8),
    Roles(usize, u8, u16),
    Restart(usize, u64),
    Sleep(usize, u64),
    Drain(usize, u8, bool),
    Hold(usize, u8, bool),
    Traffic(usize, u8, bool),
    Reconfigure(usize, u8),
    Measure(usize, u8),
    Ping(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (site, path) = (0_usize..2, 0_u8..2);
    let at = (site.clone(), path.clone());
    prop_oneof![
        (at.clone(), any::<bool>()).prop_map(|((s, p), on)| Step::Cut(s, p, on)),
        (at.clone(), 0.0..0.5).prop_map(|((s, p), loss)| Step::Loss(s, p, loss)),
        (at.clone(), 0_u64..300).prop_map(|((s, p), delay)| Step::Delay(s, p, delay)),
        (at.clone(), 500_usize..1600).prop_map(|((s, p), mtu)| Step::Mtu(s, p, mtu)),
        (at.clone(), 40_000_u16..40_004).prop_map(|((s, p), port)| Step::Nat(s, p, port)),
        (at.clone(), any::<bool>()).prop_map(|((s, p), on)| Step::Uplink(s, p, on)),
        at.clone().prop_map(|(s, p)| Step::Refused(s, p)),
        at.clone().prop_map(|(s, p)| Step::TooBig(s, p)),
        (at.clone(), 0_u16..4).prop_map(|((s, p), standby)| Step::Roles(s, p, standby)),
        (site.clone(), any::<u64>()).prop_map(|(s, seed)| Step::Restart(s, seed)),
        (site, 0_u64..4000).prop_map(|(s, slept)| Step::Sleep(s, slept)),
        (at.clone(), any::<bool>()).prop_map(|((s, p), on)| Step::Drain(s, p, on)),
        (at.clone(), any::<bool>()).prop_map(|((s, p), on)| Step::Hold(s, p, on)),
        (at.clone(), any::<bool>()).prop_map(|((s, p), on)| Step::Traffic(s, p, on)),
        at.clone().prop_map(|(s, p)| Step::Reconfigure(s, p)),
        at.clone().prop_map(|(s, p)| Step::Measure(s, p)),
        at.prop_map(|(s, p)| Step::Ping(s, p)),
    ]
}

fn apply(world: &mut World, step: &Step) {
    let now = world.now;
    match *step {
        Step::Cut(site, path, on) => world.link(site, path).is_cut = on,
        Step::Loss(site, path, loss) => world.link(site, path).loss = loss,
        Step::Delay(site, path, delay) => world.link(site, path).delay = ms(delay),
        Step::Mtu(site, path, mtu) => world.link(site, path).mtu = mtu,
        Step::Nat(site, path, port) => world.link(site, path).nat_port = Some(port),
        Step::Uplink(site, path, on) => {
            let fault = on.then_some(StateReason::UplinkDown);
            world.sites[site].prober.set_uplink(path, fault, now);
        }
        Step::Refused(site, path) => world.sites[site].prober.send_refused(PathIndex(path), now),
        Step::TooBig(site, path) => world.sites[site].prober.send_too_big(PathIndex(path), now),
        Step::Roles(site, path, standby) => {
            let mut classes = [0; 2];
            classes[usize::from(path)] = 3;
            world.sites[site].prober.set_roles(&classes, standby, now);
        }
        Step::Restart(site, seed) => world.sites[site] = Site::new(config(site, 2), seed, now),
        Step::Sleep(site, slept) => world.sites[site].asleep_until = now + ms(slept),
        Step::Drain(site, path, on) => {
            world.sites[site]
                .prober
                .set_draining(PathIndex(path), on, now);
        }
        Step::Hold(site, path, on) => world.sites[site].prober.hold_down(PathIndex(path), on, now),
        Step::Traffic(site, path, on) => {
            world.sites[site].traffic = on.then_some((PathIndex(path), ms(5), 1400));
        }
        Step::Reconfigure(site, path) => {
            let mut next = config(site, 2);
            next.paths[usize::from(path)].profile.cost += 1;
            next.inner_mtu = 1400 + u16::from(path) * 20;
            world.sites[site].prober.configure(next, now);
        }
        Step::Measure(site, path) => {
            world.sites[site]
                .prober
                .measure_bandwidth(PathIndex(path), now);
        }
        Step::Ping(site, path) => world.sites[site].prober.ping(PathIndex(path), now),
    }
}

fn heal(world: &mut World) {
    for link in world.links.values_mut() {
        *link = Link::default();
    }
    let now = world.now;
    for site in 0..2 {
        let site = &mut world.sites[site];
        site.asleep_until = now;
        site.traffic = None;
        for path in 0..2 {
            site.prober.set_uplink(path, None, now);
            site.prober.hold_down(PathIndex(path), false, now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn after_any_faults_both_paths_are_up_within_seconds(
        steps in prop::collection::vec((step(), 0_u64..3000), 1..40),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(2, &Link::default(), seed);
        world.run_for(ms(500));
        for (step, pause) in &steps {
            apply(&mut world, step);
            world.run_for(ms(*pause));
        }
        heal(&mut world);
        world.run_for(Duration::from_secs(6));
        let healed = world.now;
        for site in 0..2 {
            for up in 0..2 {
                let arrival = Arrival { uplink: up, remote: addr(1 - site, up), local: None };
                let path = world.sites[site].prober.path_of(&arrival).unwrap();
                prop_assert_eq!(world.sites[site].state(path.0), PathState::Up, "site {} uplink {}", site, up);
            }
        }
        // It stays so, at a pace that can be borne.
        world.run_for(Duration::from_secs(20));
        for site in &world.sites {
            for path in site.prober.paths().filter(|path| site.state(path.0) == PathState::Up) {
                prop_assert_eq!(site.became(path.0, PathState::Down, healed), None);
            }
            let hellos = site.sent_log.iter().filter(|(at, ..)| *at >= healed).count();
            prop_assert!(hellos < 20 * 2 * 30, "{} messages", hellos);
            prop_assert_eq!(site.prober.observations_dropped(), 0);
        }
    }

    #[test]
    fn no_hello_panics_or_blocks(
        hellos in prop::collection::vec((hello(), 0_usize..70_000, 0_u64..1 << 58), 1..30),
    ) {
        let mut now = Time(1_000_000_000);
        let mut prober = Prober::new(config(0, 2), 1, now);
        for (hello, len, skip) in hellos {
            now = Time(now.0.saturating_add(skip >> (skip % 64)));
            let arrival = Arrival { uplink: (len % 3) as u8, remote: addr(1, (len % 2) as u8), local: None };
            let counters = PathCounters { rx_packets: skip, rx_bytes: skip, tx_packets: len as u64, tx_bytes: skip };
            prober.set_counters(PathIndex((len % 17) as u8), counters, now);
            let path = prober.handle_hello(&arrival, &hello, len, now);
            drain(&mut prober, now);
            if let Some(path) = path {
                prober.metrics(path, now);
                prober.send_too_big(path, now);
            }
            prober.handle_timeout(now);
            drain(&mut prober, now);
            let next = prober.poll_timeout();
            prop_assert!(next.is_none_or(|at| at > now), "{:?} at {:?}", next, now);
        }
    }
}

fn drain(prober: &mut Prober, now: Time) {
    let mut count = 0;
    while prober.poll_transmit(now).is_some() {
        count += 1;
        assert!(count < 200, "it never ends");
    }
    while prober.poll_observation().is_some() {}
}

fn hello() -> impl Strategy<Value = Hello> {
    let kinds = [
        Kind::Hello,
        Kind::Hello,
        Kind::Train,
        Kind::MtuProbe,
        Kind::MtuReply,
        Kind::Lane,
    ];
    let small = prop_oneof![0_u32..20, any::<u32>()];
    let words = prop::collection::vec(small, 11);
    (
        prop::sample::select(kinds.to_vec()),
        any::<[bool; 5]>(),
        words,
        any::<[u16; 4]>(),
        any::<[u64; 3]>(),
        1_u8..,
    )
        .prop_map(|(kind, flags, words, halves, longs, multiplier)| Hello {
            kind,
            hears_you: flags[0],
            is_suspect: flags[1],
            is_draining: flags[2],
            wants_answer: flags[3],
            is_metered: flags[4],
            instance: words[0] % 2,
            path: words[1] as u16,
            your_path: words[2] as u16,
            sequence: words[3],
            echo_sequence: words[4],
            echo_hold_us: words[5],
            jitter_us: words[6],
            deviation_us: words[7],
            hellos_received: words[8],
            data_tx_packets: words[9],
            data_rx_packets: words[10],
            train_kbps: words[3],
            argument: words[4],
            desired_interval_ms: halves[0],
            required_interval_ms: halves[1],
            interval_ms: halves[2],
            faults: halves[3],
            sent_at_ns: longs[0],
            echo_sent_at_ns: longs[1],
            data_rx_bytes: longs[2],
            multiplier,
            ..Hello::default()
        })
}
