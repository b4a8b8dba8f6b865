//! Figures at scale: `cargo test --release -p patronus-policy --test scale -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use patronus_policy::model::{Change, Connection, Labels};
use patronus_policy::{Compiler, scale};

const PODS: usize = 100_000;
const POLICIES: usize = 10_000;

fn quantiles(mut all: Vec<Duration>) -> String {
    all.sort();
    format!(
        "p50 {:?} p99 {:?} max {:?}",
        all[all.len() / 2],
        all[all.len() * 99 / 100],
        all[all.len() - 1]
    )
}

#[test]
#[ignore = "measures; run it in release mode on a quiet machine"]
fn ten_thousand_policies_and_a_hundred_thousand_pods() {
    let changes = scale::cluster(POLICIES, PODS, 7);
    let start = Instant::now();
    let mut compiler = Compiler::fresh(1, changes.clone());
    println!("compile: {:?}", start.elapsed());
    println!("{:?}", compiler.table().stats());
    let step = changes.len() / 500;
    for (kind, change) in [
        ("relabel", 0),
        ("new class", 1),
        ("delete and add", 2),
        ("policy", 3),
    ] {
        let mut times = Vec::new();
        for (at, original) in changes.iter().enumerate().step_by(step) {
            let mut burst = vec![original.clone()];
            match (&mut burst[0], change) {
                (Change::SetPod(pod), 0) => {
                    pod.labels
                        .insert("app".into(), format!("app-{}", at % 8).into());
                }
                (Change::SetPod(pod), 1) => {
                    pod.ports[0].number = 9000 + at as u16 % 999;
                    pod.labels = Labels::new();
                }
                (Change::SetPod(pod), 2) => {
                    let id = pod.id.clone();
                    burst.insert(0, Change::DeletePod(id));
                }
                (Change::SetPolicy(policy), 3) => {
                    let mut other = (**policy).clone();
                    other.ingress = other.ingress.is_none().then(Vec::new);
                    *policy = other.into();
                }
                _ => continue,
            }
            let start = Instant::now();
            compiler.apply(burst);
            times.push(start.elapsed());
        }
        let policies = changes.iter().rev().step_by(97).take(100);
        for original in policies.filter(|_| change == 3) {
            let Change::SetPolicy(policy) = original else {
                continue;
            };
            let mut other = (**policy).clone();
            other.egress = other.egress.is_none().then(Vec::new);
            let start = Instant::now();
            compiler.apply([Change::SetPolicy(other.into())]);
            times.push(start.elapsed());
        }
        println!("{kind}: {} of {}", quantiles(times.clone()), times.len());
    }
    let table = compiler.table();
    let mut state = 1u64;
    let mut roll = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    let conns: Vec<Connection> = (0..1_000_000)
        .map(|_| Connection {
            src: scale::address(roll() % PODS),
            dst: scale::address(roll() % PODS),
            protocol: 6,
            dst_port: [80, 443, 8080, 22][roll() % 4],
        })
        .collect();
    let (start, mut allowed) = (Instant::now(), 0);
    for conn in &conns {
        allowed += usize::from(black_box(table.judge(conn)).allow);
    }
    println!(
        "judge: mean {:?}, {allowed} allowed",
        start.elapsed() / conns.len() as u32
    );
    let mut times = Vec::with_capacity(conns.len());
    for conn in &conns {
        let start = Instant::now();
        black_box(table.judge(conn));
        times.push(start.elapsed());
    }
    println!("judge with two clock reads: {}", quantiles(times));
}
