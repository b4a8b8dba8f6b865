//! What must not matter: the order of objects, the order and names of files, the order of what a policy lists. And
//! a second evaluator, by other hands than the reference of `random.rs`, that agrees with the tables.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;
mod support;

use common::oracle::Oracle;
use patronus_policy::cluster::Cluster;
use patronus_policy::document::Judge;
use patronus_policy::manifest::Loader;
use patronus_policy::model::{Change, Mode};
use patronus_policy::{Compiler, PolicyTable};
use support::dice::Dice;

fn random_cluster(dice: &mut Dice) -> Cluster {
    let mut cluster = Cluster::default();
    for _ in 0..40 {
        cluster.apply(&dice.change());
    }
    cluster
}

/// Several pods on one address are no business of the second evaluator, and a node on a pod's address neither.
fn untangle(cluster: &mut Cluster) {
    let mut taken = std::collections::BTreeSet::new();
    for node in cluster.nodes.values_mut() {
        node.ips.retain(|ip| taken.insert(*ip));
    }
    for pod in cluster.pods.values_mut() {
        pod.ips.retain(|ip| taken.insert(*ip));
    }
}

fn shuffle<T>(list: &mut [T], dice: &mut Dice) {
    for at in (1..list.len()).rev() {
        list.swap(at, dice.below(at as u64 + 1) as usize);
    }
}

#[test]
fn a_second_evaluator_agrees_with_the_tables_on_two_hundred_thousand_probes() {
    let probes = std::env::var("PATRONUS_POLICY_PROBES").map_or(200_000, |it| it.parse().unwrap());
    let mut dice = Dice(11);
    let (mut allowed, mut denied) = (0u64, 0u64);
    while allowed + denied < probes {
        let mut cluster = random_cluster(&mut dice);
        untangle(&mut cluster);
        let table = Compiler::fresh(3, cluster.changes()).table();
        let oracle = Oracle(cluster);
        for _ in 0..500 {
            let conn = dice.connection();
            let (expected, reason) = oracle.decide(&conn);
            let got = table.judge(&conn).allow;
            let told = || table.explain(&conn).to_string();
            assert_eq!(got, expected, "{reason}, but {} in {:#?}", told(), oracle.0);
            if expected { allowed += 1 } else { denied += 1 }
        }
    }
    assert!(allowed > probes / 10 && denied > probes / 10);
}

#[test]
fn the_order_of_objects_never_matters() {
    let mut dice = Dice(12);
    for _ in 0..300 {
        let cluster = random_cluster(&mut dice);
        let mut changes: Vec<Change> = cluster.changes().collect();
        let first = Compiler::fresh(1, changes.clone()).table();
        shuffle(&mut changes, &mut dice);
        let shuffled = Compiler::fresh(2, changes.clone()).table();
        shuffle(&mut changes, &mut dice);
        let mut one_by_one = Compiler::new(3);
        for change in changes {
            one_by_one.apply([change]);
        }
        for _ in 0..200 {
            let conn = dice.connection();
            let told = |table: &PolicyTable| table.explain(&conn).to_string();
            let expected = told(&first);
            assert_eq!(told(&shuffled), expected, "{cluster:#?}");
            assert_eq!(told(&one_by_one.table()), expected, "{cluster:#?}");
        }
    }
}

#[test]
fn the_order_of_policies_lists_never_matters_to_verdicts() {
    let mut dice = Dice(13);
    for _ in 0..300 {
        let cluster = random_cluster(&mut dice);
        let mut other = cluster.clone();
        for policy in other.policies.values_mut() {
            let mut edited = (**policy).clone();
            let rules = edited.ingress.iter_mut().chain(&mut edited.egress);
            for rules in rules {
                shuffle(rules, &mut dice);
                for rule in rules {
                    rule.peers.iter_mut().for_each(|it| shuffle(it, &mut dice));
                    rule.ports.iter_mut().for_each(|it| shuffle(it, &mut dice));
                }
            }
            *policy = edited.into();
        }
        let tables = [&cluster, &other].map(|it| <Compiler as Judge>::fresh(it).table());
        for _ in 0..200 {
            let conn = dice.connection();
            let [a, b] = [&tables[0], &tables[1]].map(|it| it.judge(&conn).allow);
            assert_eq!(a, b, "{conn:?} in {cluster:#?}");
        }
    }
}

/// Objects of several kinds that depend on each other, one manifest each.
const MANIFESTS: &[&str] = &[
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {zone: in}}\n",
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: b, labels: {zone: out}}\n",
    "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.9}]}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p0, namespace: a, labels: {app: x}}\nspec: {nodeName: n, containers: \
     [{name: c, image: i, ports: [{name: web, containerPort: 3}]}]}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p1, namespace: a}\nstatus: {podIPs: [{ip: 10.0.0.2}]}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p2, namespace: b, labels: {app: x}}\nstatus: {podIPs: [{ip: 10.0.0.3}, \
     {ip: 'fd00::1'}]}\n",
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: a}\nspec: \
     {podSelector: {}}\n",
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: a}\nspec: {podSelector: \
     {matchLabels: {app: x}}, ingress: [{from: [{namespaceSelector: {matchLabels: {zone: out}}}, {ipBlock: {cidr: \
     10.0.0.0/30}}], ports: [{port: web}]}]}\n",
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: top}\nspec: {tier: \
     Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{pods: {namespaceSelector: \
     {matchLabels: {zone: out}}, podSelector: {matchLabels: {app: y}}}}]}]}\n",
];

fn load(files: &[(String, String)]) -> Cluster {
    let mut loader = Loader::new();
    for (name, text) in files {
        loader.add(name, text.as_bytes());
    }
    let loaded = loader.finish();
    assert_eq!(loaded.diagnostics, []);
    let mut cluster = Cluster::default();
    for object in loaded.objects {
        cluster.apply(&object.into_change());
    }
    cluster
}

#[test]
fn names_and_order_of_files_and_how_objects_share_them_never_matter() {
    let mut dice = Dice(14);
    let whole = [("all.yaml".to_owned(), MANIFESTS.join("---\n"))];
    let expected = <Compiler as Judge>::fresh(&load(&whole)).table();
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..100 {
        let mut manifests: Vec<&str> = MANIFESTS.to_vec();
        shuffle(&mut manifests, &mut dice);
        let mut files: Vec<(String, String)> = Vec::new();
        while !manifests.is_empty() {
            let rest = manifests.split_off(1 + dice.below(manifests.len() as u64) as usize);
            let name = format!("{}.yaml", dice.roll());
            files.push((name, manifests.join("---\n")));
            manifests = rest;
        }
        let table = <Compiler as Judge>::fresh(&load(&files)).table();
        for _ in 0..300 {
            let conn = dice.connection();
            let verdict = table.judge(&conn).allow;
            assert_eq!(
                verdict,
                expected.judge(&conn).allow,
                "{conn:?} with {files:?}"
            );
            if verdict { allowed += 1 } else { denied += 1 }
        }
    }
    assert!(allowed > 1000 && denied > 1000, "{allowed} {denied}");
    // The dice know policies that are audited, too.
    assert!(
        (0..200).any(|_| matches!(dice.change(), Change::SetPolicy(it) if it.mode == Mode::Audit))
    );
}
