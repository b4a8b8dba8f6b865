//! The store, fed with texts.

use super::*;
use patronus_policy::model::Connection;

const PODS: &str = "\
kind: Namespace
apiVersion: v1
metadata: {name: shop, labels: {zone: trusted}}
---
kind: Pod
apiVersion: v1
metadata: {name: api, namespace: shop}
status: {podIPs: [{ip: 10.1.0.9}]}
---
kind: Pod
apiVersion: v1
metadata: {name: till, namespace: shop}
status: {podIPs: [{ip: 10.1.0.7}]}
";
const CLOSED: &str = "\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";
const BROKEN: &str = "\
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Inwards]}
";

fn texts(files: &[(&str, &str)]) -> Loaded {
    let file = |(name, text): &(&str, &str)| ManifestFile {
        name: (*name).to_owned(),
        contents: Ok(text.as_bytes().to_vec()),
    };
    load(files.iter().map(file).collect())
}

fn is_allowed(store: &PolicyStore) -> bool {
    let conn = Connection {
        src: "10.1.0.7".parse().unwrap(),
        dst: "10.1.0.9".parse().unwrap(),
        protocol: 6,
        dst_port: 8443,
    };
    store.in_force().table.judge(&conn).allow
}

fn closed_store() -> PolicyStore {
    let mut store = PolicyStore::new(7);
    store.apply(texts(&[("a.yaml", PODS), ("b.yaml", CLOSED)]));
    assert!(!is_allowed(&store));
    store
}

#[test]
fn a_store_without_a_policy_lets_everything_pass() {
    let store = PolicyStore::new(7);
    assert!(is_allowed(&store) && !store.in_force().has_policy);
}

#[test]
fn the_same_files_again_change_nothing() {
    let mut store = closed_store();
    let table = store.in_force().table.clone();
    assert_eq!(
        store.apply(texts(&[("a.yaml", PODS), ("b.yaml", CLOSED)])),
        0
    );
    assert!(Arc::ptr_eq(&table, &store.in_force().table));
}

#[test]
fn a_refused_object_keeps_its_previous_version_and_the_others_are_taken() {
    let mut store = closed_store();
    let open = CLOSED.replace("name: closed", "name: open").replace(
        "policyTypes: [Ingress]",
        "ingress: [{ports: [{port: 8443}]}]",
    );
    store.apply(texts(&[
        ("a.yaml", PODS),
        ("b.yaml", BROKEN),
        ("c.yaml", &open),
    ]));
    let in_force = store.in_force();
    assert_eq!(in_force.report.refused, ["NetworkPolicy shop/closed"]);
    assert!(in_force.report.has_errors());
    assert_eq!(in_force.objects.len(), 5, "{:?}", in_force.objects.keys());
    assert!(is_allowed(&store), "the policy of c.yaml opens it");

    // The file that opened it goes: what is left is the kept version.
    store.apply(texts(&[("a.yaml", PODS), ("b.yaml", BROKEN)]));
    assert!(!is_allowed(&store));
}

#[test]
fn a_file_that_is_no_text_keeps_all_that_came_from_it() {
    let mut store = closed_store();
    store.apply(texts(&[("a.yaml", PODS), ("b.yaml", "{")]));
    assert!(!is_allowed(&store));
    assert_eq!(store.in_force().report.refused, ["b.yaml"]);
    let unread = ManifestFile {
        name: "b.yaml".to_owned(),
        contents: Err("cannot read: no".to_owned()),
    };
    let mut loaded = texts(&[("a.yaml", PODS)]);
    let lost = load(vec![unread]);
    loaded.unreadable.extend(lost.unreadable);
    store.apply(loaded);
    assert!(!is_allowed(&store));
}

#[test]
fn a_file_that_is_gone_takes_its_objects_along() {
    let mut store = closed_store();
    assert_eq!(store.apply(texts(&[("a.yaml", PODS)])), 1);
    assert!(is_allowed(&store));
    store.apply(texts(&[]));
    assert!(store.in_force().objects.is_empty());
}

#[test]
fn a_namespace_whose_manifest_goes_keeps_its_pods_and_policies() {
    let mut store = closed_store();
    let (_, pods) = PODS.split_once("---\n").unwrap();
    store.apply(texts(&[("a.yaml", pods), ("b.yaml", CLOSED)]));
    assert!(!is_allowed(&store));
    assert_eq!(store.in_force().objects.len(), 3);
    let fresh = texts(&[("a.yaml", pods), ("b.yaml", CLOSED)]);
    let (fresh, changes) = candidate(&PolicyStore::new(7).in_force, fresh, 7);
    assert_eq!(changes, 3);
    assert_eq!(fresh.objects, store.in_force().objects);
}

#[test]
fn a_folder_that_cannot_be_read_leaves_everything_in_force() {
    let mut store = closed_store();
    store.keep(file_fault("policies.d", "gone".to_owned()));
    assert!(!is_allowed(&store));
    assert_eq!(store.in_force().report.refused, ["policies.d"]);
}

#[test]
fn a_candidate_is_judged_and_never_in_force() {
    let store = closed_store();
    let loaded = texts(&[("a.yaml", PODS)]);
    let (open, changes) = candidate(store.in_force(), loaded, 9);
    assert_eq!(changes, 1);
    assert_eq!(open.objects.len(), 3);
    assert!(!is_allowed(&store));
}

#[test]
fn a_refusal_names_file_line_and_field() {
    let mut store = PolicyStore::new(7);
    store.apply(texts(&[("policies.d/b.yaml", BROKEN)]));
    let report = LoadReport::clone(&store.in_force().report);
    let text = PolicyRefused(report).to_string();
    assert!(
        text.starts_with("policies.d/b.yaml:4: NetworkPolicy shop/closed: spec.policyTypes[0]: "),
        "{text}"
    );
}
