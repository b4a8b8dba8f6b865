//! Policy test documents, run against the slow evaluator.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::oracle::Oracle;
use patronus_policy::cluster::Cluster;
use patronus_policy::document::{Document, Judge, Scope, Tally, TestReport};
use patronus_policy::model::{Change, Connection};

fn run_as<J: Judge>(text: &str) -> TestReport {
    let document = Document::parse("t.json", text.as_bytes()).unwrap();
    document.run::<J>("t.json")
}

fn run(text: &str) -> TestReport {
    run_as::<Oracle>(text)
}

/// A document with one case on one small cluster.
fn case(steps: &str) -> String {
    format!(
        r#"{{"format": 1, "clusters": {{"c": {{
            "namespaces": {{"a": {{"labels": {{"x": "1"}}}}, "b": {{}}}},
            "nodes": {{"n1": {{"ips": ["192.0.2.1", "fd00:2::1"]}}}},
            "pods": [
              {{"namespace": "a", "name": "p", "labels": {{"app": "p"}}, "node": "n1", "ips": ["10.0.0.1", "fd00::1"],
                "ports": [{{"name": "web", "containerPort": 80}}]}},
              {{"namespace": "b", "name": "q", "labels": {{"app": "q"}}, "node": "n1", "ips": ["10.0.0.2"]}},
              {{"namespace": "b", "name": "v6", "labels": {{}}, "ips": ["fd00::9"]}},
              {{"namespace": "b", "name": "host", "labels": {{}}, "node": "n1", "hostNetwork": true}}
            ]}}}},
          "cases": [{{"id": "one", "group": "g", "title": "t", "cluster": "c", "steps": {steps}}}]}}"#
    )
}

const DENY_A: &str = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "a"}, "spec": {"podSelector": {}}}"#;

fn failures(report: &TestReport) -> Vec<String> {
    report.failures.iter().map(ToString::to_string).collect()
}

#[test]
fn the_sample_passes() {
    let report = run(include_str!("../testdata/sample.json"));
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(
        report.must,
        Tally {
            passed: 10,
            failed: 0
        }
    );
    assert_eq!(
        report.should,
        Tally {
            passed: 1,
            failed: 0
        }
    );
    assert!(report.has_passed());
}

#[test]
fn levels_of_a_table_are_counted_apart_and_question_marks_not_at_all() {
    let steps = format!(
        r#"[{{"policies": [{DENY_A}], "tables": [{{"protocol": "TCP", "port": 80, "src": ["b/q", "ip:198.51.100.1"],
            "dst": ["a/p", "b/q", "a/p"], "rows": {{"b/q": ".,?", "ip:198.51.100.1": "Xx?"}}}}]}}]"#
    );
    let report = run(&case(&steps));
    assert_eq!(
        report.must,
        Tally {
            passed: 1,
            failed: 1
        }
    );
    assert_eq!(
        report.should,
        Tally {
            passed: 1,
            failed: 1
        }
    );
    assert!(!report.has_passed());
    assert_eq!(
        failures(&report),
        [
            "t.json: must FAIL one steps[0] tables[0] b/q -> a/p TCP/80: expected allow, got deny: \
             Ingress isolated by a/deny",
            "t.json: should FAIL one steps[0] tables[0] ip:198.51.100.1 -> b/q TCP/80: expected deny, got allow: \
             Ingress: not isolated",
        ]
    );
    assert!(
        report
            .to_string()
            .ends_with("\nmust: 1 passed, 1 failed\nshould: 1 passed, 1 failed")
    );
}

#[test]
fn replies_follow_their_connection_and_unsolicited_ones_are_new_flows() {
    let steps = format!(
        r#"[{{"policies": [{DENY_A}], "probes": [
            {{"src": "a/p", "dst": "b/q", "protocol": "UDP", "port": 53, "kind": "reply", "expect": "allow", "level": "must"}},
            {{"src": "a/p", "dst": "b/q", "protocol": "UDP", "port": 53, "sport": 4000, "kind": "unsolicited-reply",
              "expect": "deny", "level": "must", "because": "it has no state"}},
            {{"src": "b/q", "dst": "a/p", "protocol": "UDP", "port": 53, "kind": "reply", "expect": "deny", "level": "must"}}
        ]}}]"#
    );
    let report = run(&case(&steps));
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(report.must.passed, 3);
}

#[test]
fn every_op_changes_what_it_says() {
    let probe = |expect: &str| {
        format!(
            r#""probes": [{{"src": "b/q", "dst": "a/p", "protocol": "TCP", "port": 80, "expect": "{expect}", "level": "must"}}]"#
        )
    };
    let (allow, deny) = (probe("allow"), probe("deny"));
    let steps = format!(
        r#"[
        {{"policies": [{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {{"name": "in", "namespace": "a"}},
            "spec": {{"podSelector": {{"matchLabels": {{"app": "p"}}}}, "ingress": [{{"from": [
              {{"namespaceSelector": {{"matchLabels": {{"ok": "yes"}}}}}}]}}]}}}}], {deny}}},
        {{"ops": [{{"op": "set_namespace_labels", "namespace": "b", "labels": {{"ok": "yes"}}}}], {allow}}},
        {{"ops": [{{"op": "set_namespace_labels", "namespace": "b", "labels": {{}}}}], {deny}}},
        {{"ops": [{{"op": "set_pod_labels", "namespace": "a", "name": "p", "labels": {{"app": "other"}}}}], {allow}}},
        {{"ops": [{{"op": "set_pod_labels", "namespace": "a", "name": "p", "labels": {{"app": "p"}}}}], {deny}}},
        {{"ops": [{{"op": "delete_policy", "namespace": "a", "name": "in"}}], {allow}}},
        {{"policies": [{DENY_A}], {deny}}},
        {{"ops": [{{"op": "delete_pod", "namespace": "a", "name": "p"}},
                  {{"op": "add_pod", "pod": {{"namespace": "a", "name": "p", "labels": {{}}, "ips": ["10.0.0.7"]}}}}], {deny}}},
        {{"ops": [{{"op": "set_pod_ips", "namespace": "a", "name": "p", "ips": ["10.0.0.8"]}}],
          "tables": [{{"protocol": "TCP", "port": 1, "src": ["b/q"], "dst": ["ip:10.0.0.7", "ip:10.0.0.8"], "rows": {{"b/q": ".X"}}}}]}},
        {{"ops": [{{"op": "delete_namespace", "namespace": "a"}}],
          "tables": [{{"protocol": "TCP", "port": 1, "src": ["b/q"], "dst": ["ip:10.0.0.8"], "rows": {{"b/q": "."}}}}]}},
        {{"ops": [{{"op": "add_namespace", "namespace": "a", "labels": {{"ok": "yes"}}}},
                  {{"op": "add_pod", "pod": {{"namespace": "a", "name": "p", "labels": {{}}, "ips": ["10.0.0.8"]}}}}], {allow}}},
        {{"policies": [{{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {{"name": "d"}},
            "spec": {{"tier": "Admin", "priority": 5, "subject": {{"namespaces": {{"matchLabels": {{"ok": "yes"}}}}}},
              "ingress": [{{"action": "Deny", "from": [{{"namespaces": {{}}}}]}}]}}}}], {deny}}},
        {{"ops": [{{"op": "delete_policy", "name": "d", "kind": "ClusterNetworkPolicy"}}], {allow}}}
    ]"#
    );
    let report = run(&case(&steps));
    assert_eq!(failures(&report), [""; 0]);
    assert_eq!(report.must.passed, 14);
}

#[test]
fn texts_hold_several_documents_and_lists() {
    let text = "apiVersion: v1\\nkind: List\\nitems:\\n- apiVersion: networking.k8s.io/v1\\n  kind: NetworkPolicy\\n  \
        metadata: {name: x, namespace: a}\\n---\\napiVersion: networking.k8s.io/v1\\nkind: NetworkPolicy\\nmetadata: \
        {name: y, namespace: b}\\nspec:\\n  policyTypes: [Egress]\\n";
    let steps = format!(
        r#"[{{"policies_yaml": ["{text}"], "tables": [{{"protocol": "TCP", "port": 80,
            "src": ["ip:198.51.100.1", "b/q"], "dst": ["a/p", "b/q"], "rows": {{"ip:198.51.100.1": "X.", "b/q": "X."}}}}]}}]"#
    );
    let report = run(&case(&steps));
    assert_eq!(failures(&report), [""; 0]);
}

#[test]
fn a_refused_policy_fails_its_case_and_leaves_the_previous_version_in_force() {
    let refused = DENY_A.replace(
        r#""podSelector": {}"#,
        r#""podSelector": {}, "priority": 1"#,
    );
    let steps = format!(
        r#"[{{"policies": [{DENY_A}]}}, {{"policies": [{refused}], "probes": [
            {{"src": "b/q", "dst": "a/p", "protocol": "TCP", "port": 80, "expect": "deny", "level": "must"}}]}}]"#
    );
    let report = run(&case(&steps));
    assert_eq!(
        report.must,
        Tally {
            passed: 1,
            failed: 1
        }
    );
    let shown = failures(&report).remove(0);
    assert!(
        shown.contains("steps[1] policies: expected a valid policy, got an error"),
        "{shown}"
    );
    assert!(
        shown.contains("spec.priority") && shown.contains("ClusterNetworkPolicy"),
        "{shown}"
    );
}

#[test]
fn ends_take_a_family_and_a_missing_one_is_a_clear_error() {
    let steps = r#"[{"probes": [
        {"src": "a/p@6", "dst": "b/v6", "protocol": "TCP", "port": 1, "expect": "allow", "level": "must"},
        {"src": "a/p", "dst": "b/v6", "protocol": "TCP", "port": 1, "expect": "allow", "level": "must"},
        {"src": "node:n1@6", "dst": "a/p@6", "protocol": "TCP", "port": 1, "expect": "allow", "level": "must"},
        {"src": "b/host", "dst": "a/p", "protocol": "ICMP", "expect": "allow", "level": "must"},
        {"src": "b/nobody", "dst": "a/p", "protocol": "TCP", "port": 1, "expect": "deny", "level": "must"},
        {"src": "b/q@6", "dst": "a/p", "protocol": "TCP", "port": 1, "expect": "deny", "level": "should"},
        {"src": "node:n2", "dst": "a/p", "protocol": "TCP", "port": 1, "expect": "deny", "level": "must"},
        {"src": "b/q", "dst": "b/v6", "protocol": "TCP", "port": 1, "expect": "deny", "level": "must"}
    ]}]"#;
    let report = run(&case(steps));
    let shown = failures(&report);
    let reasons = [
        "there is no pod b/nobody",
        "b/q@6 has no address",
        "there is no node n2",
        "10.0.0.2 and fd00::9 are not of the same family",
    ];
    assert_eq!(shown.len(), reasons.len(), "{shown:#?}");
    for (shown, reason) in shown.iter().zip(reasons) {
        assert!(
            shown.ends_with(&format!("got an error: {reason}")),
            "{shown}"
        );
    }
    assert_eq!(
        (report.must.passed, report.must.failed, report.should.failed),
        (4, 3, 1)
    );
}

#[test]
fn what_an_op_names_must_be_there() {
    for (op, reason) in [
        (
            r#"{"op": "delete_pod", "namespace": "a", "name": "z"}"#,
            "there is no pod a/z",
        ),
        (
            r#"{"op": "set_pod_labels", "namespace": "z", "name": "p", "labels": {}}"#,
            "there is no pod z/p",
        ),
        (
            r#"{"op": "set_pod_ips", "namespace": "z", "name": "p", "ips": []}"#,
            "there is no pod z/p",
        ),
        (
            r#"{"op": "delete_policy", "namespace": "a", "name": "z"}"#,
            "there is no NetworkPolicy a/z",
        ),
        (
            r#"{"op": "delete_policy", "kind": "ClusterNetworkPolicy", "name": "z"}"#,
            "there is no ClusterNetworkPolicy z",
        ),
        (
            r#"{"op": "delete_namespace", "namespace": "z"}"#,
            "there is no namespace z",
        ),
        (
            r#"{"op": "set_namespace_labels", "namespace": "z", "labels": {}}"#,
            "there is no namespace z",
        ),
    ] {
        let report = run(&case(&format!(r#"[{{"ops": [{op}]}}]"#)));
        let shown = failures(&report);
        assert!(
            shown.len() == 1 && shown[0].ends_with(reason),
            "{op}: {shown:?}"
        );
        assert_eq!(report.must.failed, 1);
    }
}

#[test]
fn a_faulty_case_fails_alone_and_says_where() {
    for (steps, place) in [
        (
            r#"[{"ops": [{"op": "set_pod_lables"}]}]"#,
            "cases[0].steps[0].ops[0].op: `set_pod_lables` is unknown: did you mean set_pod_labels?",
        ),
        (
            r#"[{"ops": [{"op": "add_pod", "pod": {"name": "x", "ips": ["10.0.0.300"]}}]}]"#,
            "cases[0].steps[0].ops[0].pod.ips[0]: ",
        ),
        (
            r#"[{"probess": []}]"#,
            "cases[0].steps[0].probess: is an unknown field: did you mean `probes`?",
        ),
        (
            r#"[{"probes": [{"src": "a/p", "protocol": "TCP", "port": 1, "expect": "allow"}]}]"#,
            "cases[0].steps[0].probes[0].dst: is missing",
        ),
        (
            r#"[{"probes": [{"src": "a", "dst": "a/p", "protocol": "TCP", "port": 1, "expect": "allow", "level": "must"}]}]"#,
            "probes[0].src: `a` is no end",
        ),
        (
            r#"[{"probes": [{"src": "a/p", "dst": "a/p", "protocol": "TCP", "port": 1, "kind": "unsolicited-reply", "expect": "allow", "level": "must"}]}]"#,
            "probes[0].sport: is missing",
        ),
        (
            r#"[{"probes": [{"src": "a/p", "dst": "a/p", "protocol": "TCP", "port": 65536, "expect": "allow", "level": "must"}]}]"#,
            "probes[0].port: 65536 is not from 0 to 65535",
        ),
        (
            r#"[{"probes": [{"src": "a/p", "dst": "a/p", "protocol": "tpc", "port": 1, "expect": "allow", "level": "must"}]}]"#,
            "probes[0].protocol: `tpc` is unknown",
        ),
        (
            r#"[{"tables": [{"protocol": "TCP", "port": 1, "src": ["a/p"], "dst": ["b/q"], "rows": {"a/p": ".."}}]}]"#,
            "rows[a/p]: has 2 cells for 1 destinations",
        ),
        (
            r#"[{"tables": [{"protocol": "TCP", "port": 1, "src": ["a/p"], "dst": ["b/q"], "rows": {"a/p": "-"}}]}]"#,
            "rows[a/p]: `-` is none of",
        ),
        (
            r#"[{"tables": [{"protocol": "TCP", "port": 1, "src": ["a/p"], "dst": ["b/q"], "rows": {}}]}]"#,
            "rows[a/p]: is missing",
        ),
        (
            r#"[{"tables": [{"protocol": "TCP", "port": 1, "src": [], "dst": ["b/q"], "rows": {"a/p": "."}}]}]"#,
            "rows[a/p]: is no source",
        ),
    ] {
        let text = case(steps).replace(
            r#""cases": ["#,
            r#""cases": [{"id": "good", "cluster": "c", "steps": []}, "#,
        );
        let text = text.replace("cases[0]", "cases[1]");
        let report = run(&text);
        let shown = failures(&report);
        let place = place.replace("cases[0]", "cases[1]");
        assert!(
            shown.len() == 1 && shown[0].contains(&place),
            "{steps}\n{shown:#?}"
        );
        assert!(
            shown[0].starts_with("t.json: must FAIL one: expected a case that can be read"),
            "{shown:?}"
        );
    }
}

#[test]
fn an_optional_case_fails_without_consequence() {
    let steps = r#"[{"probes": [{"src": "b/q", "dst": "a/p", "protocol": "TCP", "port": 1, "expect": "deny", "level": "must"}]}]"#;
    let text = case(steps).replace(r#""id": "one","#, r#""id": "one", "optional": true,"#);
    let report = run(&text);
    assert!(report.has_passed());
    assert_eq!(
        report.optional,
        Tally {
            passed: 0,
            failed: 1
        }
    );
}

#[test]
fn validations_compare_validity() {
    let text = format!(
        r#"{{"format": 1, "validation": [
            {{"id": "v1", "title": "a good one", "expect": "valid", "policy": {DENY_A}}},
            {{"id": "v2", "title": "called bad", "expect": "invalid", "policy": {DENY_A}}},
            {{"id": "v3", "title": "of a kind we do not read", "expect": "invalid", "policy": {{"apiVersion": "v1", "kind": "Service"}}}},
            {{"id": "v4", "title": "called good", "expect": "valid", "policy": {{"kind": "NetworkPolicy"}}}}]}}"#
    );
    let report = run(&text);
    assert_eq!(
        report.must,
        Tally {
            passed: 2,
            failed: 2
        }
    );
    let shown = failures(&report);
    assert_eq!(
        shown[0],
        "t.json: must FAIL v2 validation: expected invalid, got valid"
    );
    assert!(
        shown[1].contains("expected valid, got invalid: t.json:7: kind or apiVersion is missing"),
        "{shown:?}"
    );
}

/// Forgets every change once it is built.
struct Stale(Oracle);

impl Judge for Stale {
    fn fresh(cluster: &Cluster) -> Self {
        Self(Oracle::fresh(cluster))
    }
    fn apply(&mut self, _: &Change) {}
    fn judge(&self, connection: &Connection) -> bool {
        self.0.judge(connection)
    }
    fn reason(&self, connection: &Connection) -> String {
        self.0.reason(connection)
    }
}

#[test]
fn an_engine_that_is_right_only_when_fresh_is_caught() {
    let steps = format!(
        r#"[{{"policies": [{DENY_A}], "probes": [
            {{"src": "b/q", "dst": "a/p", "protocol": "TCP", "port": 80, "expect": "deny", "level": "must"}}]}}]"#
    );
    let report = run_as::<Stale>(&case(&steps));
    assert_eq!(
        report.must,
        Tally {
            passed: 0,
            failed: 1
        }
    );
    assert_eq!(report.failures[0].scope, Scope::Incremental);
    assert!(failures(&report)[0].contains("got allow on the incrementally updated engine"));
}

#[test]
fn a_text_that_is_no_document_is_refused_with_its_line() {
    for (text, message) in [
        ("", "t.json:1: holds 0 documents where one belongs"),
        ("{}", "t.json:1: format: is missing"),
        (
            "{\n\"format\": 2}",
            "t.json:2: format: 2 is not from 1 to 1",
        ),
        (
            "{\"format\": 1, \"cases\": 7}",
            "t.json:1: cases: is a number where a list belongs",
        ),
        (
            "{\"format\": 1,\n \"clusters\": {\"c\": {\"pods\": [{}]}}}",
            "t.json:2: clusters.c.pods[0].name: is missing",
        ),
        (
            "{\"format\": 1,\n \"format\": 1}",
            "t.json:2: `format` stands there twice, first in line 1: remove one of them",
        ),
        ("[1", "t.json:1: not valid JSON"),
    ] {
        let errors = Document::parse("t.json", text.as_bytes()).unwrap_err();
        assert!(
            errors[0].to_string().starts_with(message),
            "{text}: {}",
            errors[0]
        );
    }
    assert!(Document::parse("t.json", &[0xff, 0xfe, 0]).is_err());
}

#[test]
fn failures_are_data() {
    let report = run(&case(
        r#"[{"probes": [{"src": "b/q", "dst": "a/p", "protocol": "TCP", "port": 1, "expect": "deny", "level": "must"}]}]"#,
    ));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["must"]["failed"], 1);
    assert_eq!(json["failures"][0]["probe"], "probes[0] b/q -> a/p TCP/1");
    assert_eq!(json["failures"][0]["scope"], "both");
}
