//! Policy in a running gateway as an operator meets it: refused at the start, reloaded, explained over the API.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Conf, PATIENCE, Place, can_run, until};
use nix::sys::signal::Signal;
use patronus_api::{
    CandidateFile, CauseView, ClientError, DiffRequest, ExplainRequest, FlowsQuery, VerdictView,
};

const PODS: &str = "\
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

/// A policy for all of `shop` whose `spec` goes on like this.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  podSelector: {{}}\n  {spec}\n"
    )
}

fn conf() -> Conf {
    Conf::new("patronus0", "10.255.0.1/24")
}

fn till_to_api() -> ExplainRequest {
    ExplainRequest {
        src: "shop/till".to_owned(),
        dst: "shop/api".to_owned(),
        protocol: "TCP".to_owned(),
        port: Some(8443),
    }
}

fn verdict(place: &Place) -> VerdictView {
    let answer = place.ask(|client| client.explain(&till_to_api()));
    answer.unwrap().verdict
}

/// The error of a start that failed.
fn refusal(place: &Place, conf: &Conf) -> String {
    let output = place.failing_start(conf);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!place.has_interface("patronus0") && !place.has_api());
    stderr
}

#[test]
fn a_faulty_policy_keeps_a_gateway_from_starting_and_is_named_with_its_line() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place.manifest("pods.yaml", PODS);
    place.manifest("a.yaml", &policy("closed", "policyTypes: [Inwards]"));
    let stderr = refusal(&place, &conf());
    let wanted = "policies.d/a.yaml:6: NetworkPolicy shop/closed: spec.policyTypes[0]: ";
    assert!(
        stderr.starts_with(&format!("patronus: {wanted}")),
        "{stderr}"
    );
    assert!(stderr.contains("not started"), "{stderr}");

    place.manifest("a.yaml", "kind: {");
    let stderr = refusal(&place, &conf());
    assert!(
        stderr.starts_with("patronus: policies.d/a.yaml:"),
        "{stderr}"
    );
}

#[test]
fn a_folder_that_the_file_names_must_be_there_and_the_default_one_need_not() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    let mut named = conf();
    named.uplink = "[policy]\ndirectory = \"rules\"\n".to_owned();
    let stderr = refusal(&place, &named);
    assert!(
        stderr.contains("rules does not exist: make the folder"),
        "{stderr}"
    );

    let daemon = place.start(&conf());
    let status = place.ask(|client| client.status()).unwrap();
    assert!(!status.has_policy && status.policy_objects.is_empty());
    daemon.stop();
}

#[test]
fn a_reload_takes_what_is_right_and_keeps_the_old_version_of_what_is_wrong() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place.manifest("pods.yaml", PODS);
    place.manifest("a.yaml", &policy("closed", "policyTypes: [Ingress]"));
    let mut daemon = place.start(&conf());
    assert_eq!(verdict(&place), VerdictView::Deny);
    let before = place.ask(|client| client.status()).unwrap();
    assert_eq!((before.site.as_str(), before.workers), ("patronus0", 2));
    assert_eq!(before.policy_objects["Pod"], 2);

    place.manifest("a.yaml", &policy("closed", "policyTypes: [Inwards]"));
    daemon.reload();
    assert_eq!(verdict(&place), VerdictView::Deny);
    let log = daemon.log();
    assert!(
        log.contains("policy: policies.d/a.yaml:6: NetworkPolicy shop/closed"),
        "{log}"
    );
    assert!(
        log.contains("previous version of NetworkPolicy shop/closed stays in force"),
        "{log}"
    );
    let told = place.ask(|client| client.policy()).unwrap();
    assert_eq!(told.refused, ["NetworkPolicy shop/closed"]);
    assert_eq!(
        (told.diagnostics[0].line, told.generation),
        (6, before.policy_generation)
    );

    // The other file's news come in although this one is faulty.
    place.manifest(
        "b.yaml",
        &policy("open", "ingress: [{ports: [{port: 8443}]}]"),
    );
    daemon.reload();
    assert_eq!(verdict(&place), VerdictView::Allow);
    let told = place.ask(|client| client.explain(&till_to_api())).unwrap();
    assert_eq!(told.ingress.cause, CauseView::Rule);
    assert_eq!(
        told.ingress.rule.unwrap().policy.source,
        "policies.d/b.yaml:1"
    );

    std::fs::remove_file(place.path("policies.d/b.yaml")).unwrap();
    daemon.reload();
    assert_eq!(verdict(&place), VerdictView::Deny);

    // A folder that vanishes opens nothing; an empty one does.
    std::fs::rename(place.path("policies.d"), place.path("elsewhere")).unwrap();
    daemon.reload();
    assert_eq!(verdict(&place), VerdictView::Deny);
    assert!(
        daemon.log().contains("the folder is gone"),
        "{}",
        daemon.log()
    );
    std::fs::create_dir(place.path("policies.d")).unwrap();
    daemon.reload();
    let status = place.ask(|client| client.status()).unwrap();
    assert!(status.has_policy && status.policy_objects.is_empty());
    daemon.stop();
}

#[test]
fn the_api_answers_on_a_closed_socket_that_goes_with_its_gateway() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place.manifest("pods.yaml", PODS);
    let absent = place.ask(|client| client.status()).unwrap_err();
    assert!(
        matches!(absent, ClientError::Unreachable { .. }),
        "{absent}"
    );

    let mut killed = place.start(&conf());
    let mode = || {
        let found = std::fs::metadata(Path::new(patronus_api::SOCKET_PATH)).unwrap();
        found.permissions().mode() & 0o7777
    };
    assert_eq!(place.namespace.run(mode).unwrap(), 0o660);
    let flows = place.ask(|client| client.flows(&FlowsQuery::default()));
    assert_eq!(flows.unwrap().total, 0);
    let files = vec![CandidateFile {
        name: "policies.d/pods.yaml".to_owned(),
        text: format!("{PODS}---\n{}", policy("closed", "policyTypes: [Ingress]")),
    }];
    let diff = place.ask(|client| client.diff(&DiffRequest { files }));
    assert_eq!(diff.unwrap().changes, 1);
    assert_eq!(
        verdict(&place),
        VerdictView::Allow,
        "a candidate is not in force"
    );
    killed.signal(Signal::SIGKILL);
    killed.wait_end(PATIENCE);
    until("the interface is gone", || {
        !place.has_interface("patronus0")
    });
    assert!(place.has_api(), "kill -9 gives no time to remove it");

    let second = place.start(&conf());
    assert!(place.ask(|client| client.status()).is_ok());
    second.stop();
    assert!(!place.has_api());
}
