//! Comparing two sets of objects: no changed verdict escapes, and none is invented.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod support;

use std::collections::BTreeSet;

use patronus_policy::cluster::Cluster;
use patronus_policy::diff::{Matrix, Side, changed_flow, changed_objects};
use patronus_policy::model::{Change, Connection};
use support::dice::Dice;

/// One address of each family for a pod, none twice: the matrix tries a pod's first addresses.
fn untangle(cluster: &mut Cluster) {
    let mut taken = BTreeSet::new();
    let mut first_of_each = |ips: &mut Vec<_>| {
        let mut seen = [false; 2];
        ips.retain(|ip: &std::net::IpAddr| {
            !std::mem::replace(&mut seen[usize::from(ip.is_ipv4())], true) && taken.insert(*ip)
        });
    };
    cluster
        .nodes
        .values_mut()
        .for_each(|it| first_of_each(&mut it.ips));
    cluster
        .pods
        .values_mut()
        .for_each(|it| first_of_each(&mut it.ips));
}

/// A cluster, and the same after a few changes of policies.
fn pair(dice: &mut Dice) -> (Side, Side) {
    let mut old = Cluster::default();
    for _ in 0..40 {
        old.apply(&dice.change());
    }
    untangle(&mut old);
    let mut new = old.clone();
    for _ in 0..6 {
        match dice.change() {
            Change::SetPod(_) | Change::SetNode(_) | Change::DeleteNode(_) => {}
            change => new.apply(&change),
        }
    }
    (Side::new(old), Side::new(new))
}

#[test]
fn no_changed_verdict_escapes_the_matrix_and_none_in_it_is_invented() {
    let mut dice = Dice(21);
    let (mut changed, mut quiet) = (0, 0);
    for _ in 0..150 {
        let (old, new) = pair(&mut dice);
        let matrix = Matrix::compare(&old, &new);
        assert_eq!((matrix.left_out, matrix.ends_left_out), (0, 0));
        for change in &matrix.changes {
            assert_eq!(change.new.verdict.allow, change.allow);
            assert_ne!(change.old.verdict.allow, change.new.verdict.allow);
            assert!(!change.ports.is_empty());
        }
        for _ in 0..400 {
            let conn = dice.connection();
            let Some(flow) = changed_flow(&old, &new, &conn) else {
                quiet += 1;
                continue;
            };
            // No packet has ends of two families, and none that matters has port 0.
            if conn.dst_port == 0 || conn.src.is_ipv4() != conn.dst.is_ipv4() {
                continue;
            }
            changed += 1;
            let allow = flow.new.verdict.allow;
            let is_told = matrix
                .changes
                .iter()
                .any(|it| it.allow == allow && tells(it, &conn));
            assert!(
                is_told,
                "{conn:?}: {} / {}\n{:#?}",
                flow.old, flow.new, matrix.changes
            );
        }
    }
    assert!(changed > 500 && quiet > 500, "{changed} {quiet}");
}

/// Whether a change speaks of the connection's port.
fn tells(change: &patronus_policy::diff::PairChange, conn: &Connection) -> bool {
    change.ports.iter().any(|span| match span.protocol {
        None => !matches!(conn.protocol, 6 | 17 | 132),
        Some(protocol) => {
            let number = [6, 17, 132][protocol as usize];
            number == conn.protocol && (span.first..=span.last).contains(&conn.dst_port)
        }
    })
}

#[test]
fn objects_that_only_moved_are_no_change_and_others_are() {
    let mut dice = Dice(22);
    let mut old = Cluster::default();
    for _ in 0..60 {
        old.apply(&dice.change());
    }
    let mut new = old.clone();
    for policy in new.policies.values_mut() {
        let mut moved = (**policy).clone();
        moved.source.line += 7;
        *policy = moved.into();
    }
    assert_eq!(changed_objects(&old, &new), []);
    let gone = new.policies.pop_first().unwrap().0;
    let told: Vec<String> = changed_objects(&old, &new)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told, [format!("- NetworkPolicy {gone}")]);
    let told: Vec<String> = changed_objects(&new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told, [format!("+ NetworkPolicy {gone}")]);
}
