//! The numbers that two probers find, against what the links between them did.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod world;

use std::time::Duration;

use patronus_path::{
    BandwidthSource, Direction, Observation, PathIndex, PathMetrics, PathState, Time,
};
use world::{Link, World, ms};

const PATH: PathIndex = PathIndex(0);

fn metrics(world: &World, site: usize) -> PathMetrics {
    world.sites[site].prober.metrics(PATH, world.now).unwrap()
}

#[test]
fn the_round_trip_is_right_within_a_fifth_of_a_millisecond_and_one_percent() {
    for (seed, there_us, back_us) in [(1, 150, 150), (2, 4_000, 11_000), (3, 90_000, 210_000)] {
        let mut world = World::new(1, &Link::default(), seed);
        world.link(0, 0).delay = Duration::from_micros(there_us);
        world.link(1, 0).delay = Duration::from_micros(back_us);
        world.run_for(Duration::from_secs(2));
        world.activate(&[1]);
        world.run_for(Duration::from_secs(60));
        let truth = (there_us + back_us) as f64 * 1e3;
        for site in 0..2 {
            let metrics = metrics(&world, site);
            for measured in [metrics.rtt_fast_ns, metrics.rtt_slow_ns, metrics.rtt_min_ns] {
                let off = (measured.unwrap() - truth).abs();
                assert!(off <= 0.2e6 + truth * 0.01, "{off} of {truth}, seed {seed}");
            }
            // In buckets of 6 %.
            let p95 = metrics.rtt_p95_ns.unwrap();
            assert!((p95 / truth - 1.0).abs() < 0.07, "{p95} of {truth}");
            assert!(metrics.queueing_ns.unwrap() < 0.2e6);
        }
    }
}

#[test]
fn the_95th_percentile_follows_the_spread_of_round_trips() {
    let link = Link {
        jitter: ms(20),
        ..Link::default()
    };
    let mut world = World::settled(1, &link, 4);
    world.run_for(Duration::from_secs(120));
    let mut samples: Vec<f64> = world.sites[0]
        .log
        .iter()
        .rev()
        .filter_map(|(at, seen)| {
            let is_recent = world.now.since(*at) < Duration::from_secs(55);
            match seen {
                Observation::Rtt(_, ns) if is_recent => Some(*ns),
                _ => None,
            }
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    let truth = samples[samples.len() * 95 / 100];
    let p95 = metrics(&world, 0).rtt_p95_ns.unwrap();
    assert!((p95 / truth - 1.0).abs() < 0.05, "{p95} for {truth}");
}

#[test]
fn loss_is_right_within_a_fifth_of_a_point_and_in_its_direction() {
    for (seed, there, back) in [
        (5, 0.01, 0.0),
        (6, 0.05, 0.01),
        (7, 0.0, 0.2),
        (8, 0.2, 0.2),
    ] {
        let mut world = World::new(1, &Link::default(), seed);
        world.run_for(Duration::from_secs(2));
        world.activate(&[1]);
        world.run_for(Duration::from_secs(70));
        for site in 0..2 {
            let link = world.link(site, 0);
            link.loss = [there, back][site];
            (link.hellos, link.hellos_lost) = (0, 0);
        }
        world.run_for(Duration::from_millis(60_200));
        let truth: Vec<f64> = (0..2)
            .map(|site| {
                let link = world.link(site, 0);
                link.hellos_lost as f64 / link.hellos as f64
            })
            .collect();
        for site in 0..2 {
            let metrics = metrics(&world, site);
            let (tx, rx) = (
                metrics.tx_loss.sixty_s.unwrap(),
                metrics.rx_loss.sixty_s.unwrap(),
            );
            assert!(
                (tx - truth[site]).abs() <= 0.002,
                "tx {tx} for {truth:?}, seed {seed}"
            );
            assert!(
                (rx - truth[1 - site]).abs() <= 0.002,
                "rx {rx} for {truth:?}, seed {seed}"
            );
            let ten = metrics.tx_loss.ten_s.unwrap();
            assert!((ten - truth[site]).abs() <= 0.1, "{ten} for {truth:?}");
        }
    }
}

#[test]
fn every_hello_is_told_once() {
    let link = Link {
        loss: 0.1,
        jitter: ms(15),
        ..Link::default()
    };
    let mut world = World::settled(1, &link, 9);
    let begin = world.now;
    for site in 0..2 {
        world.link(site, 0).hellos = 0;
        world.link(site, 0).hellos_lost = 0;
    }
    world.run_for(Duration::from_secs(100));
    for site in 0..2 {
        let tx_sent = world.link(site, 0).hellos;
        let rx_sent = world.link(1 - site, 0).hellos;
        let rx_lost = world.link(1 - site, 0).hellos_lost;
        let (tx_lost, tx_all) = world.sites[site].probes(0, Direction::Tx, begin);
        let (lost, all) = world.sites[site].probes(0, Direction::Rx, begin);
        assert!(all.abs_diff(rx_sent) <= 5, "{all} of {rx_sent}");
        assert!(lost.abs_diff(rx_lost) <= 4, "{lost} of {rx_lost}");
        assert!(tx_all.abs_diff(tx_sent) <= 10, "{tx_all} of {tx_sent}");
        assert!(tx_lost.abs_diff(world.link(site, 0).hellos_lost) <= 6);
    }
}

#[test]
fn jitter_is_right_within_ten_percent_in_each_direction() {
    let mut world = World::new(1, &Link::default(), 10);
    world.link(0, 0).jitter = ms(6);
    world.link(1, 0).jitter = ms(24);
    world.run_for(Duration::from_secs(2));
    world.activate(&[1]);
    // The difference of two even spreads of w is w/3 in the mean; RFC 3550 follows it with noise, so many are averaged.
    let (mut tx, mut rx, mut count) = (0.0, 0.0, 0.0);
    for _ in 0..600 {
        world.run_for(ms(500));
        let metrics = metrics(&world, 0);
        if count >= 20.0 {
            tx += metrics.tx_jitter_ns.unwrap();
            rx += metrics.rx_jitter_ns.unwrap();
        }
        count += 1.0;
    }
    count -= 20.0;
    assert!((tx / count / 2e6 - 1.0).abs() < 0.1, "{}", tx / count);
    assert!((rx / count / 8e6 - 1.0).abs() < 0.1, "{}", rx / count);
    let steps = |direction| {
        let steps = world.sites[0]
            .log
            .iter()
            .filter_map(|(_, seen)| match seen {
                Observation::Deviation(_, way, ns) if *way == direction => Some(*ns),
                _ => None,
            });
        let steps: Vec<f64> = steps.collect();
        steps.iter().sum::<f64>() / steps.len() as f64
    };
    assert!((steps(Direction::Tx) / 2e6 - 1.0).abs() < 0.1);
    assert!((steps(Direction::Rx) / 8e6 - 1.0).abs() < 0.1);
}

#[test]
fn data_loss_is_right_and_seen_where_hellos_pass() {
    for (seed, loss) in [(11, 0.01), (12, 0.05), (13, 0.2)] {
        let mut world = World::settled(1, &Link::default(), seed);
        world.sites[0].traffic = Some((PATH, ms(1), 1000));
        world.run_for(Duration::from_secs(5));
        world.link(0, 0).loss = loss;
        // What is told lags behind by a window.
        world.run_for(Duration::from_secs(3));
        let begin = world.now;
        (world.link(0, 0).data, world.link(0, 0).data_lost) = (0, 0);
        world.run_for(Duration::from_secs(60));
        let truth = world.link(0, 0).data_lost as f64 / world.link(0, 0).data as f64;
        for (site, direction) in [(0, Direction::Tx), (1, Direction::Rx)] {
            let data = world.sites[site].log.iter().filter(|(at, _)| *at > begin);
            let (sent, lost) = data.fold((0, 0), |(sent, lost), (_, seen)| match seen {
                Observation::Data(_, way, more, missing) if *way == direction => {
                    (sent + more, lost + missing)
                }
                _ => (sent, lost),
            });
            let share = f64::from(lost) / f64::from(sent);
            assert!(
                sent > 50_000 && (share - truth).abs() <= 0.003,
                "{share} for {truth}"
            );
        }
        let shown = metrics(&world, 0).tx_data_loss.unwrap();
        assert!((shown - loss).abs() < 0.05, "{shown}");
        assert_eq!(metrics(&world, 0).rx_data_loss, None, "nothing came");
    }
}

#[test]
fn lost_data_is_seen_within_two_seconds_though_hellos_pass() {
    let mut world = World::settled(1, &Link::default(), 14);
    world.sites[0].traffic = Some((PATH, ms(2), 200));
    world.run_for(Duration::from_secs(3));
    world.link(0, 0).loses_data = true;
    let took = world.run_till(Duration::from_secs(5), |world| {
        metrics(world, 0)
            .tx_data_loss
            .is_some_and(|loss| loss > 0.9)
    });
    assert!(took.unwrap() <= ms(2000), "{took:?}");
    assert_eq!(world.sites[0].state(0), PathState::Up);
}

#[test]
fn a_full_path_shows_its_capacity_and_an_idle_one_shows_none() {
    for (seed, bps, sender) in [(15, 5e6, 0), (16, 20e6, 0), (17, 50e6, 1)] {
        let mut world = World::settled(1, &Link::default(), seed);
        world.link(sender, 0).rate = Some((bps, ms(60)));
        // First half the rate, so that there is no queue, then more than fits.
        let distance = Duration::from_secs_f64(1200.0 * 8.0 / bps);
        world.sites[sender].traffic = Some((PATH, distance * 2, 1200));
        world.run_for(Duration::from_secs(10));
        let is_passive = |bandwidth: Option<patronus_path::Bandwidth>| {
            bandwidth.filter(|known| known.source == BandwidthSource::Passive)
        };
        assert_eq!(is_passive(metrics(&world, sender).tx_bandwidth), None);
        assert_eq!(is_passive(metrics(&world, 1 - sender).rx_bandwidth), None);
        world.sites[sender].traffic = Some((PATH, distance.mul_f64(0.8), 1200));
        world.run_for(Duration::from_secs(5));
        let tx = is_passive(metrics(&world, sender).tx_bandwidth).unwrap();
        let rx = is_passive(metrics(&world, 1 - sender).rx_bandwidth).unwrap();
        for measured in [tx.bps, rx.bps] {
            assert!((measured / bps - 1.0).abs() < 0.15, "{measured} for {bps}");
        }
        assert!(metrics(&world, sender).queueing_ns.unwrap() > 20e6);
        let (tx_bps, rx_bps) = (
            metrics(&world, sender).tx_bps,
            metrics(&world, 1 - sender).rx_bps,
        );
        assert!((tx_bps / (bps / 0.8) - 1.0).abs() < 0.1, "{tx_bps}");
        assert!((rx_bps / bps - 1.0).abs() < 0.1, "{rx_bps}");
    }
}

#[test]
fn a_train_shows_the_capacity_of_an_idle_path() {
    for (seed, bps, sender) in [(18, 1e6, 0), (19, 20e6, 1), (20, 300e6, 0)] {
        let mut world = World::settled(1, &Link::default(), seed);
        world.link(sender, 0).rate = Some((bps, ms(500)));
        let now = world.now;
        world.sites[sender].prober.measure_bandwidth(PATH, now);
        world.run_for(Duration::from_secs(8));
        let bandwidth = metrics(&world, sender).tx_bandwidth.unwrap();
        assert_eq!(bandwidth.source, BandwidthSource::Train);
        assert!(
            (bandwidth.bps / bps - 1.0).abs() < 0.1,
            "{} for {bps}",
            bandwidth.bps
        );
        for site in &world.sites {
            assert_eq!(
                site.became(0, PathState::Suspect, now),
                None,
                "filled for too long"
            );
        }
        let wagons = world.sites[sender].sent[&1];
        assert!(wagons <= 8 + 3 * 32, "{wagons}");
    }
}

#[test]
fn trains_never_run_on_metered_paths_and_only_within_budget_elsewhere() {
    let run = |is_metered: bool| {
        let mut configs = [world::config(0, 1), world::config(1, 1)];
        for config in &mut configs {
            config.paths[0].profile.is_metered = is_metered;
            config.paths[0].profile.capacity_bps = None;
        }
        let [a, b] = configs;
        let link = Link {
            rate: Some((50e6, ms(100))),
            ..Link::default()
        };
        let mut world = World::with(a, b, 1, &link, 21);
        world.run_for(Duration::from_secs(1));
        world.activate(&[1]);
        for _ in 0..10 {
            world.run_for(Duration::from_secs(10));
            world.cut(0, true);
            world.run_for(Duration::from_secs(6));
            world.cut(0, false);
        }
        let now = world.now;
        if is_metered {
            world.sites[0].prober.measure_bandwidth(PATH, now);
            world.run_for(Duration::from_secs(10));
        }
        world.sites[0].sent.get(&1).copied().unwrap_or(0)
    };
    assert_eq!(run(true), 0);
    assert_eq!(run(false), 8 + 3 * 32, "once, not after every fault");
}

#[test]
fn metered_paths_send_fewer_hellos_while_data_goes_out() {
    let mut configs = [world::config(0, 1), world::config(1, 1)];
    for config in &mut configs {
        config.paths[0].profile.is_metered = true;
        config.paths[0].cadence.active = ms(200);
    }
    let [a, b] = configs;
    let mut world = World::with(a, b, 1, &Link::default(), 22);
    world.run_for(Duration::from_secs(1));
    world.activate(&[1]);
    world.run_for(Duration::from_secs(10));
    let before = world.sites[0].sent[&0];
    world.run_for(Duration::from_secs(60));
    let without = world.sites[0].sent[&0] - before;
    assert!((300..=410).contains(&without), "{without}");
    world.sites[0].traffic = Some((PATH, ms(20), 500));
    let (before, begin) = (world.sites[0].sent[&0], world.now);
    world.run_for(Duration::from_secs(60));
    let with = world.sites[0].sent[&0] - before;
    assert!(with * 4 <= without, "{with} and {without}");
    for site in &world.sites {
        assert_eq!(site.became(0, PathState::Suspect, begin), None);
    }
    // Detection is as fast as without, but for the time until the counter is read.
    world.cut(0, true);
    let took = world.run_till(ms(2000), |world| world.sites[1].state(0) == PathState::Down);
    assert!(took.unwrap() <= ms(1210), "{took:?}");
}

#[test]
fn numbers_are_told_four_times_a_second_and_a_ping_at_once() {
    let mut world = World::settled(1, &Link::default(), 23);
    let begin = world.now;
    world.run_for(Duration::from_secs(10));
    let told = world.sites[0]
        .log
        .iter()
        .filter(|(at, seen)| *at >= begin && matches!(seen, Observation::Metrics(..)));
    let told = told.count();
    assert!((33..=41).contains(&told), "{told}");
    let now = world.now;
    world.sites[0].prober.ping(PATH, now);
    world.run_for(ms(11));
    let is_pong = |(at, seen): &(Time, Observation)| {
        *at > now + ms(9) && matches!(seen, Observation::Rtt(..))
    };
    assert!(world.sites[0].log.iter().any(is_pong));
}

#[test]
fn many_peers_cost_few_calls() {
    // 500 peers with two paths each, 50 of them active, are 1000 machines of which 50 run at 50 ms.
    let calls_per_second = |is_active: bool| {
        let mut world = World::new(2, &Link::default(), 24);
        world.keeps_log = false;
        world.run_for(Duration::from_secs(5));
        if is_active {
            world.activate(&[1]);
        }
        world.run_for(Duration::from_secs(20));
        let before = world.sites[0].calls;
        world.run_for(Duration::from_secs(60));
        (world.sites[0].calls - before) as f64 / 60.0
    };
    let (active, idle) = (calls_per_second(true), calls_per_second(false));
    let all = 50.0 * active + 450.0 * idle;
    println!("{active} calls a second per active peer, {idle} per idle one, {all} in all");
    assert!(active < 60.0 && idle < 8.0 && all < 6_000.0);
}
