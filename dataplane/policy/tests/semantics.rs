//! The semantics, paragraph by paragraph; each test names the sentence that it holds the tables to.

mod support;

use std::sync::Arc;

use patronus_policy::model::*;
use patronus_policy::{Cause, Compiler, Fault, PolicyTable};
use support::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;

const TILL: &str = "10.1.0.5";
const TILL6: &str = "fd00:1::5";
const API: &str = "10.1.0.9";
const API6: &str = "fd00:1::9";
const PROBE: &str = "10.2.0.7";
const HOST: &str = "192.0.2.1";
const NODE2: &str = "192.0.2.2";
const OUTSIDE: &str = "198.51.100.9";

fn pod(namespace: &str, pod: &str, ips: &[&str]) -> Pod {
    Pod {
        id: name(namespace, pod),
        labels: labels(&[("app", pod)]),
        node: Some(text("gw1")),
        ips: ips.iter().map(|it| ip(it)).collect(),
        host_network: false,
        ports: vec![],
    }
}

fn port(name: &str, number: u16, protocol: Protocol) -> ContainerPort {
    ContainerPort {
        name: Some(text(name)),
        number,
        protocol,
    }
}

fn base() -> Vec<Change> {
    let mut api = pod("shop", "api", &[API, API6]);
    api.ports = vec![port("https", 8443, Protocol::Tcp)];
    let mut agent = pod("ops", "agent", &[HOST]);
    agent.host_network = true;
    let namespace = |name: &str, team: &str| {
        Change::SetNamespace(Namespace {
            name: text(name),
            labels: labels(&[("team", team)]),
        })
    };
    let node = |name: &str, addr: &str| {
        Change::SetNode(Node {
            name: text(name),
            ips: vec![ip(addr)],
        })
    };
    vec![
        namespace("shop", "web"),
        namespace("ops", "ops"),
        node("gw1", HOST),
        node("gw2", NODE2),
        Change::SetPod(pod("shop", "till", &[TILL, TILL6])),
        Change::SetPod(api),
        Change::SetPod(pod("ops", "probe", &[PROBE])),
        Change::SetPod(agent),
    ]
}

fn policy(
    of: &str,
    pods: Selector,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Change {
    let id = name("shop", of);
    let source = source(10);
    Change::SetPolicy(Arc::new(NetworkPolicy {
        id,
        source,
        mode: Mode::Enforce,
        pods,
        ingress,
        egress,
    }))
}

fn audit(change: Change) -> Change {
    let Change::SetPolicy(policy) = change else {
        panic!("a policy")
    };
    Change::SetPolicy(Arc::new(NetworkPolicy {
        mode: Mode::Audit,
        ..(*policy).clone()
    }))
}

fn rule(peers: Option<Vec<Peer>>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        source: source(20),
        peers,
        ports,
    }
}

fn app(app: &str) -> Selector {
    selector(&[("app", app)])
}

fn own(of: &str) -> Peer {
    Peer::Pods {
        namespaces: None,
        pods: Some(app(of)),
    }
}

fn block(cidr: &str, except: &[&str]) -> Peer {
    let prefix = |it: &str| it.parse().expect("a prefix");
    Peer::Block {
        cidr: prefix(cidr),
        except: except.iter().map(|it| prefix(it)).collect(),
    }
}

fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch::Range {
        protocol: Protocol::Tcp,
        first,
        last,
    }
}

fn named(name: &str) -> PortMatch {
    PortMatch::Named {
        protocol: Some(Protocol::Tcp),
        name: text(name),
    }
}

fn table(more: impl IntoIterator<Item = Change>) -> Arc<PolicyTable> {
    let mut changes = base();
    changes.extend(more);
    Compiler::fresh(9, changes).table()
}

fn conn(src: &str, dst: &str, protocol: u8, dst_port: u16) -> Connection {
    Connection {
        src: ip(src),
        dst: ip(dst),
        protocol,
        dst_port,
    }
}

fn allows(table: &PolicyTable, src: &str, dst: &str, protocol: u8, port: u16) -> bool {
    table.judge(&conn(src, dst, protocol, port)).allow
}

fn ingress(rules: Vec<Rule>) -> Arc<PolicyTable> {
    table([policy("p", app("api"), Some(rules), None)])
}

fn cluster(
    tier: Tier,
    priority: u16,
    of: &str,
    ingress: Vec<ClusterRule>,
    egress: Vec<ClusterRule>,
) -> Change {
    Change::SetClusterPolicy(Arc::new(ClusterPolicy {
        name: text(of),
        source: source(30),
        mode: Mode::Enforce,
        tier,
        priority,
        subject: ClusterSubject {
            namespaces: selector(&[("team", "web")]),
            pods: Selector::default(),
        },
        ingress,
        egress,
    }))
}

fn cluster_rule(
    action: Action,
    peers: Vec<ClusterPeer>,
    ports: Option<Vec<PortMatch>>,
) -> ClusterRule {
    ClusterRule {
        name: Some(text("why")),
        source: source(31),
        action,
        peers,
        ports,
    }
}

fn everyone() -> Vec<ClusterPeer> {
    vec![ClusterPeer::Pods {
        namespaces: Selector::default(),
        pods: Selector::default(),
    }]
}

fn networks(cidr: &str) -> Vec<ClusterPeer> {
    vec![ClusterPeer::Networks(vec![cidr.parse().expect("a prefix")])]
}

#[test]
fn a_pod_that_no_policy_selects_is_open_both_ways() {
    let t = table([]);
    assert!(allows(&t, OUTSIDE, API, TCP, 1) && allows(&t, API, OUTSIDE, UDP, 1));
    assert_eq!(t.judge(&conn(OUTSIDE, NODE2, TCP, 1)).cause, Cause::NoPod);
}

#[test]
fn isolation_is_per_direction() {
    let t = table([policy("p", app("api"), Some(vec![]), None)]);
    assert!(!allows(&t, TILL, API, TCP, 80) && allows(&t, API, TILL, TCP, 80));
    let t = table([policy("p", app("api"), None, Some(vec![]))]);
    assert!(allows(&t, TILL, API, TCP, 80) && !allows(&t, API, TILL, TCP, 80));
}

#[test]
fn policies_select_pods_of_their_own_namespace_only() {
    let t = table([policy("p", Selector::default(), Some(vec![]), None)]);
    assert!(!allows(&t, PROBE, TILL, TCP, 80) && allows(&t, TILL, PROBE, TCP, 80));
}

#[test]
fn policies_are_or_ed_in_any_order() {
    let a = policy(
        "a",
        app("api"),
        Some(vec![rule(Some(vec![own("till")]), Some(vec![tcp(80, 80)]))]),
        None,
    );
    let b = policy(
        "b",
        app("api"),
        Some(vec![rule(None, Some(vec![tcp(81, 81)]))]),
        None,
    );
    for order in [[a.clone(), b.clone()], [b, a]] {
        let t = table(order);
        assert!(allows(&t, TILL, API, TCP, 80) && allows(&t, PROBE, API, TCP, 81));
        assert!(!allows(&t, PROBE, API, TCP, 80) && !allows(&t, TILL, API, TCP, 82));
    }
}

#[test]
fn a_connection_needs_both_ends() {
    let open = Some(vec![rule(None, None)]);
    let t = table([
        policy("out", app("till"), None, Some(vec![])),
        policy("in", app("api"), open, None),
    ]);
    assert!(!allows(&t, TILL, API, TCP, 80));
}

#[test]
fn rules_and_peers_do_not_lend_each_other_halves() {
    let t = ingress(vec![
        rule(Some(vec![own("till")]), Some(vec![tcp(80, 80)])),
        rule(
            Some(vec![block("10.2.0.0/16", &[])]),
            Some(vec![tcp(81, 81)]),
        ),
    ]);
    assert!(allows(&t, TILL, API, TCP, 80) && allows(&t, PROBE, API, TCP, 81));
    assert!(!allows(&t, TILL, API, TCP, 81) && !allows(&t, PROBE, API, TCP, 80));
}

#[test]
fn no_peers_is_everyone_and_no_ports_is_every_protocol() {
    let t = ingress(vec![rule(None, None)]);
    assert!(
        allows(&t, OUTSIDE, API, TCP, 80)
            && allows(&t, TILL6, API6, SCTP, 9)
            && allows(&t, TILL, API, ICMP, 0)
    );
}

#[test]
fn other_protocols_follow_rules_for_every_port_only() {
    let t = ingress(vec![rule(None, Some(vec![PortMatch::Any(Protocol::Tcp)]))]);
    assert!(allows(&t, TILL, API, TCP, 65_535) && allows(&t, TILL, API, TCP, 0));
    assert!(!allows(&t, TILL, API, ICMP, 0) && !allows(&t, TILL, API, UDP, 80));
}

#[test]
fn a_rule_for_sctp_isolates_tcp() {
    let t = ingress(vec![rule(None, Some(vec![PortMatch::Any(Protocol::Sctp)]))]);
    assert!(allows(&t, TILL, API, SCTP, 80) && !allows(&t, TILL, API, TCP, 80));
}

#[test]
fn end_port_is_inclusive() {
    let t = ingress(vec![rule(None, Some(vec![tcp(80, 90), tcp(85, 100)]))]);
    for (port, expected) in [
        (79, false),
        (80, true),
        (90, true),
        (100, true),
        (101, false),
    ] {
        assert_eq!(allows(&t, TILL, API, TCP, port), expected, "{port}");
    }
}

#[test]
fn selectors_in_one_peer_are_and_ed_and_never_meet_outside_addresses() {
    let peer = Peer::Pods {
        namespaces: Some(selector(&[("team", "ops")])),
        pods: Some(app("till")),
    };
    assert!(!allows(
        &ingress(vec![rule(Some(vec![peer]), None)]),
        PROBE,
        API,
        TCP,
        80
    ));
    let all = Peer::Pods {
        namespaces: Some(Selector::default()),
        pods: None,
    };
    let t = ingress(vec![rule(Some(vec![all]), None)]);
    assert!(allows(&t, PROBE, API, TCP, 80) && !allows(&t, OUTSIDE, API, TCP, 80));
    assert!(!allows(&t, NODE2, API, TCP, 80));
}

#[test]
fn negative_requirements_match_objects_without_the_key() {
    let not = Requirement::NotIn(text("zone"), [text("a")].into());
    let pods = Some(Selector {
        requirements: [not].into(),
    });
    let t = ingress(vec![rule(
        Some(vec![Peer::Pods {
            namespaces: None,
            pods,
        }]),
        None,
    )]);
    assert!(allows(&t, TILL, API, TCP, 80));
}

#[test]
fn every_namespace_carries_its_name_even_without_a_manifest() {
    let peer = Peer::Pods {
        namespaces: Some(selector(&[(NAMESPACE_NAME_LABEL, "lost")])),
        pods: None,
    };
    let lost = Change::SetPod(pod("lost", "x", &["10.3.0.1"]));
    let mut changes = base();
    changes.extend([
        lost,
        policy(
            "p",
            app("api"),
            Some(vec![rule(Some(vec![peer]), None)]),
            None,
        ),
    ]);
    let compiler = Compiler::fresh(1, changes);
    assert!(allows(&compiler.table(), "10.3.0.1", API, TCP, 80));
    assert_eq!(
        compiler.namespaces_without_manifest().collect::<Vec<_>>(),
        [&text("lost")]
    );
}

#[test]
fn named_ports_are_those_of_the_destination_all_of_them() {
    let t = ingress(vec![rule(None, Some(vec![named("https")]))]);
    assert!(
        allows(&t, OUTSIDE, API, TCP, 8443)
            && !allows(&t, OUTSIDE, API, TCP, 443)
            && !allows(&t, OUTSIDE, API, UDP, 8443)
    );
    let out = policy(
        "p",
        app("till"),
        None,
        Some(vec![rule(None, Some(vec![named("https")]))]),
    );
    let mut probe = pod("ops", "probe", &[PROBE]);
    probe.ports = vec![
        port("https", 1, Protocol::Tcp),
        port("https", 2, Protocol::Tcp),
    ];
    let t = table([out, Change::SetPod(probe)]);
    assert!(allows(&t, TILL, API, TCP, 8443) && !allows(&t, TILL, API, TCP, 1));
    assert!(
        allows(&t, TILL, PROBE, TCP, 1)
            && allows(&t, TILL, PROBE, TCP, 2)
            && !allows(&t, TILL, PROBE, TCP, 8443)
    );
    assert!(!allows(&t, TILL, OUTSIDE, TCP, 8443));
}

#[test]
fn a_named_port_inside_a_block_is_resolved_on_the_pod_there() {
    let peers = Some(vec![block("10.0.0.0/8", &[])]);
    let t = table([policy(
        "p",
        app("till"),
        None,
        Some(vec![rule(peers, Some(vec![named("https")]))]),
    )]);
    assert!(allows(&t, TILL, API, TCP, 8443) && !allows(&t, TILL, "10.9.9.9", TCP, 8443));
}

#[test]
fn except_cuts_its_own_block_only_and_nested_blocks_all_count() {
    let t = ingress(vec![
        rule(
            Some(vec![block("198.51.0.0/16", &["198.51.100.0/24"])]),
            Some(vec![tcp(80, 80)]),
        ),
        rule(
            Some(vec![block("198.51.100.0/28", &[])]),
            Some(vec![tcp(81, 81)]),
        ),
        rule(
            Some(vec![block("198.0.0.0/8", &[])]),
            Some(vec![tcp(82, 82)]),
        ),
    ]);
    for (port, expected) in [(80, false), (81, true), (82, true)] {
        assert_eq!(allows(&t, OUTSIDE, API, TCP, port), expected, "{port}");
    }
    assert!(allows(&t, "198.51.1.1", API, TCP, 80) && allows(&t, "198.51.1.1", API, TCP, 82));
}

#[test]
fn two_spellings_of_a_block_merge_their_ports() {
    let t = ingress(vec![
        rule(
            Some(vec![block("198.51.100.7/24", &[])]),
            Some(vec![tcp(80, 80)]),
        ),
        rule(
            Some(vec![block("198.51.100.0/24", &[])]),
            Some(vec![tcp(81, 81)]),
        ),
    ]);
    assert!(allows(&t, OUTSIDE, API, TCP, 80) && allows(&t, OUTSIDE, API, TCP, 81));
}

#[test]
fn blocks_match_pods_and_families_stand_apart() {
    let t = ingress(vec![rule(Some(vec![block("0.0.0.0/0", &[])]), None)]);
    assert!(allows(&t, PROBE, API, TCP, 80) && !allows(&t, TILL6, API6, TCP, 80));
    let t = ingress(vec![rule(Some(vec![own("till")]), None)]);
    assert!(allows(&t, TILL, API, TCP, 80) && allows(&t, TILL6, API6, TCP, 80));
}

#[test]
fn the_own_node_may_always_come_in_and_be_reached() {
    let t = table([policy("p", Selector::default(), Some(vec![]), Some(vec![]))]);
    assert!(allows(&t, HOST, API, TCP, 80) && allows(&t, API, HOST, TCP, 80));
    assert!(!allows(&t, NODE2, API, TCP, 80) && !allows(&t, API, NODE2, TCP, 80));
    assert_eq!(t.judge(&conn(HOST, API, TCP, 80)).cause, Cause::OwnNode);
}

#[test]
fn host_network_pods_are_addresses_only() {
    let mut agent = pod("shop", "agent2", &[NODE2]);
    agent.host_network = true;
    agent.node = Some(text("gw2"));
    let t = table([
        Change::SetPod(agent.clone()),
        policy(
            "p",
            Selector::default(),
            Some(vec![rule(Some(vec![own("agent2")]), None)]),
            Some(vec![]),
        ),
    ]);
    assert!(!allows(&t, NODE2, API, TCP, 80) && allows(&t, NODE2, OUTSIDE, TCP, 80));
    let t = table([
        Change::SetPod(agent),
        policy(
            "p",
            app("api"),
            Some(vec![rule(Some(vec![block("192.0.2.2/32", &[])]), None)]),
            None,
        ),
    ]);
    assert!(allows(&t, NODE2, API, TCP, 80));
}

#[test]
fn a_pod_always_reaches_itself() {
    let t = table([policy("p", Selector::default(), Some(vec![]), Some(vec![]))]);
    assert!(allows(&t, API, API, TCP, 80) && allows(&t, API6, API6, ICMP, 0));
}

#[test]
fn a_freed_address_is_outside_at_once() {
    let mut changes = base();
    changes.push(policy(
        "p",
        app("api"),
        Some(vec![rule(Some(vec![own("till")]), None)]),
        None,
    ));
    let mut compiler = Compiler::fresh(1, changes);
    assert!(allows(&compiler.table(), TILL, API, TCP, 80));
    compiler.apply([Change::DeletePod(name("shop", "till"))]);
    assert!(!allows(&compiler.table(), TILL, API, TCP, 80));
    compiler.apply([Change::SetPod(pod("shop", "till", &["10.1.0.6"]))]);
    assert!(
        !allows(&compiler.table(), TILL, API, TCP, 80)
            && allows(&compiler.table(), "10.1.0.6", API, TCP, 80)
    );
}

#[test]
fn an_address_that_two_pods_claim_gets_what_both_may() {
    let thief = Change::SetPod(pod("aaa", "thief", &[TILL]));
    let t = table([
        thief,
        policy(
            "p",
            app("api"),
            Some(vec![rule(Some(vec![own("till")]), None)]),
            None,
        ),
    ]);
    assert!(!allows(&t, TILL, API, TCP, 80) && allows(&t, TILL6, API6, TCP, 80));
    assert!(
        t.explain(&conn(TILL, API, TCP, 80))
            .to_string()
            .contains("claimed by aaa/thief, shop/till")
    );
}

#[test]
fn admin_goes_first_then_network_policy_then_baseline() {
    let deny = |tier| {
        cluster(
            tier,
            5,
            "deny",
            vec![cluster_rule(Action::Deny, everyone(), None)],
            vec![],
        )
    };
    let open = || policy("p", app("api"), Some(vec![rule(None, None)]), None);
    let t = table([deny(Tier::Admin), open()]);
    assert!(!allows(&t, PROBE, API, TCP, 80) && allows(&t, OUTSIDE, API, TCP, 80));
    let t = table([deny(Tier::Baseline), open()]);
    assert!(
        allows(&t, PROBE, API, TCP, 80),
        "NetworkPolicy is final for the pods it selects"
    );
    assert!(
        !allows(&t, PROBE, TILL, TCP, 80),
        "others reach the baseline"
    );
}

#[test]
fn lower_priorities_win_then_names_then_rule_order() {
    let one = |priority, of: &str, action| {
        cluster(
            Tier::Admin,
            priority,
            of,
            vec![cluster_rule(action, everyone(), None)],
            vec![],
        )
    };
    let t = table([one(1, "z", Action::Accept), one(2, "a", Action::Deny)]);
    assert!(allows(&t, PROBE, API, TCP, 80));
    let t = table([one(1, "z", Action::Accept), one(1, "a", Action::Deny)]);
    assert!(!allows(&t, PROBE, API, TCP, 80));
}

#[test]
fn pass_leaves_the_tier_and_accept_of_one_side_does_not_open_the_other() {
    let pass = vec![
        cluster_rule(Action::Pass, everyone(), Some(vec![tcp(80, 80)])),
        cluster_rule(Action::Deny, everyone(), None),
    ];
    let t = table([cluster(Tier::Admin, 1, "c", pass, vec![])]);
    assert!(allows(&t, PROBE, API, TCP, 80) && !allows(&t, PROBE, API, TCP, 81));
    let accept = vec![cluster_rule(Action::Accept, everyone(), None)];
    let t = table([
        cluster(Tier::Admin, 1, "c", vec![], accept),
        policy("p", app("api"), Some(vec![]), None),
    ]);
    assert!(!allows(&t, TILL, API, TCP, 80));
}

#[test]
fn an_unknown_peer_fails_closed() {
    let one = |action| {
        cluster(
            Tier::Admin,
            1,
            "c",
            vec![cluster_rule(
                action,
                vec![ClusterPeer::Unknown],
                Some(vec![tcp(1, 1)]),
            )],
            vec![],
        )
    };
    assert!(!allows(&table([one(Action::Pass)]), OUTSIDE, API, TCP, 80));
    let t = table([
        one(Action::Accept),
        policy("p", app("api"), Some(vec![]), None),
    ]);
    assert!(!allows(&t, PROBE, API, TCP, 1));
}

#[test]
fn networks_of_a_tier_match_pods_too() {
    let t = table([cluster(
        Tier::Admin,
        1,
        "c",
        vec![],
        vec![cluster_rule(Action::Deny, networks("10.0.0.0/8"), None)],
    )]);
    assert!(
        !allows(&t, TILL, PROBE, TCP, 80)
            && allows(&t, TILL, OUTSIDE, TCP, 80)
            && allows(&t, TILL6, API6, TCP, 80)
    );
}

#[test]
fn audited_policies_report_and_do_not_enforce() {
    let t = table([audit(policy("p", app("api"), Some(vec![]), None))]);
    let verdict = t.judge(&conn(TILL, API, TCP, 80));
    let rule = verdict
        .audit
        .and_then(|it| it.rule)
        .and_then(|it| t.rule(it));
    assert!(verdict.allow);
    assert_eq!(rule.map(|it| it.policy.name()), Some("shop/p".to_owned()));
    assert_eq!(t.judge(&conn(API, TILL, TCP, 80)).audit, None);
}

#[test]
fn the_generation_moves_only_with_what_can_be_observed() {
    let mut changes = base();
    changes.push(policy(
        "p",
        app("api"),
        Some(vec![rule(Some(vec![own("till")]), None)]),
        None,
    ));
    let mut compiler = Compiler::fresh(1, changes);
    let first = compiler.table().generation();
    let mut till = pod("shop", "till", &[TILL, TILL6]);
    till.labels.insert(text("shard"), text("7"));
    compiler.apply([Change::SetPod(till.clone())]);
    compiler.apply([policy(
        "p",
        app("api"),
        Some(vec![rule(Some(vec![own("till")]), None)]),
        None,
    )]);
    assert_eq!(compiler.table().generation(), first);
    till.labels.insert(text("app"), text("kiosk"));
    compiler.apply([Change::SetPod(till)]);
    assert_eq!(compiler.table().generation(), first + 1);
}

#[test]
fn a_rule_keeps_its_number_over_edits() {
    let p = |port| {
        policy(
            "p",
            app("api"),
            Some(vec![rule(
                Some(vec![own("till")]),
                Some(vec![tcp(port, port)]),
            )]),
            None,
        )
    };
    let mut compiler = Compiler::fresh(1, base());
    compiler.apply([p(80)]);
    let before = compiler.table().judge(&conn(TILL, API, TCP, 80));
    compiler.apply([p(81)]);
    assert_eq!(before, compiler.table().judge(&conn(TILL, API, TCP, 81)));
}

#[test]
fn explanations_name_the_rule_or_the_nearest_miss() {
    let rules = vec![
        rule(Some(vec![own("till")]), Some(vec![named("https")])),
        rule(
            Some(vec![block("198.51.100.0/24", &[])]),
            Some(vec![tcp(80, 80)]),
        ),
    ];
    let t = table([policy("p", app("api"), Some(rules), None)]);
    let told = |src, protocol, port| t.explain(&conn(src, API, protocol, port)).to_string();
    let head = |verdict: &str, src: &str, what: &str, egress: &str| {
        format!("{verdict}: {src} -> shop/api (10.1.0.9), {what}\n  egress: {egress}\n  ingress: ")
    };
    let open = "allowed, no policy isolates the pod";
    let isolated = "denied, isolated by shop/p at policies.yaml:10; nearest is ingress rule ";
    assert_eq!(
        told(TILL, TCP, 8443),
        head("allowed", "shop/till (10.1.0.5)", "TCP/8443", open)
            + "allowed by ingress rule 1 of shop/p at policies.yaml:20"
    );
    assert_eq!(
        told(TILL, TCP, 80),
        head("denied", "shop/till (10.1.0.5)", "TCP/80", open)
            + isolated
            + "1 of shop/p at policies.yaml:20, which allows this peer, but other ports"
    );
    assert_eq!(
        told(TILL, UDP, 8443),
        head("denied", "shop/till (10.1.0.5)", "UDP/8443", open)
            + isolated
            + "1 of shop/p at policies.yaml:20, which allows this peer and port, but another protocol"
    );
    assert_eq!(
        told("203.0.113.1", TCP, 80),
        head(
            "denied",
            "203.0.113.1, an outside address",
            "TCP/80",
            "nothing to enforce, the end is no pod"
        ) + isolated
            + "2 of shop/p at policies.yaml:20, which allows this port, but other peers"
    );
    assert_eq!(
        told(HOST, ICMP, 0),
        head(
            "allowed",
            "ops/agent on its node's network (192.0.2.1)",
            "IP protocol 1",
            "nothing to enforce, the end is no pod"
        ) + "allowed, the other end is the pod's own node"
    );
}

#[test]
fn explanations_name_tiers() {
    let deny = vec![cluster_rule(Action::Deny, everyone(), None)];
    let t = table([cluster(Tier::Admin, 1, "guard", deny, vec![])]);
    let told = t.explain(&conn(PROBE, API, TCP, 80)).ingress.to_string();
    assert_eq!(
        told,
        "denied by ingress rule 1 \"why\" of Admin policy guard at policies.yaml:31"
    );
}

#[test]
fn lint_finds_what_is_not_meant() {
    let open = || Some(vec![rule(None, None)]);
    let mut changes = base();
    changes.extend([
        policy("a-open", app("api"), open(), None),
        policy("b-same", app("api"), open(), None),
        policy("c-nobody", app("nobody"), open(), None),
        policy(
            "d-port",
            app("till"),
            Some(vec![rule(None, Some(vec![named("gone")]))]),
            None,
        ),
        Change::SetPod(pod("lost", "x", &[PROBE])),
        cluster(
            Tier::Admin,
            1,
            "one",
            vec![cluster_rule(Action::Pass, everyone(), None)],
            vec![],
        ),
        cluster(
            Tier::Admin,
            1,
            "two",
            vec![cluster_rule(Action::Pass, everyone(), None)],
            vec![],
        ),
    ]);
    let findings = Compiler::fresh(1, changes).lint();
    let has = |object: &str, fault: Fault| {
        findings
            .iter()
            .any(|it| it.object == object && it.fault == fault)
    };
    use patronus_policy::Direction::Ingress;
    assert!(
        has("shop/a-open", Fault::AllowsEverything(Ingress, 1)),
        "{findings:#?}"
    );
    assert!(!has("shop/a-open", Fault::Shadowed));
    assert!(
        has("shop/b-same", Fault::Shadowed) && has("shop/b-same", Fault::Unreachable(Ingress, 1))
    );
    assert!(has("shop/c-nobody", Fault::SelectsNothing));
    assert!(has(
        "shop/d-port",
        Fault::NoSuchPort(Ingress, 1, text("gone"))
    ));
    assert!(has("two", Fault::EqualPriority(text("one"))));
    assert!(has("lost", Fault::NamespaceWithoutManifest));
    assert!(has(
        PROBE,
        Fault::ClaimedTwice(vec!["lost/x".into(), "ops/probe".into()])
    ));
}
