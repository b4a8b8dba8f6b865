//! Kinds, lists, metadata, pods, nodes and ClusterNetworkPolicy; and that no text breaks the loader.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use patronus_policy::Severity;
use patronus_policy::document::Document;
use patronus_policy::manifest::{Loaded, Loader, Object, load};
use patronus_policy::model::*;
use proptest::prelude::*;
use proptest::sample::Index;

fn shown(loaded: &Loaded) -> Vec<String> {
    loaded.diagnostics.iter().map(ToString::to_string).collect()
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded
        .objects
        .iter()
        .map(|it| it.reference().to_string())
        .collect()
}

/// One object, with whatever warnings.
fn one(text: &str) -> Object {
    let loaded = load("f", text.as_bytes());
    assert!(!loaded.has_errors(), "{text}\n{:#?}", shown(&loaded));
    assert_eq!(loaded.objects.len(), 1, "{text}\n{:#?}", shown(&loaded));
    loaded.objects[0].clone()
}

/// The only error of a text of which nothing is taken.
fn error(text: &str) -> String {
    let loaded = load("f", text.as_bytes());
    let mut errors = loaded
        .diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Error);
    let error = errors.next().unwrap_or_else(|| panic!("{text} is taken"));
    assert_eq!(errors.next(), None, "{text}");
    assert!(loaded.objects.is_empty() && loaded.has_errors(), "{text}");
    format!("{}: {}", error.field, error.message)
}

fn cluster_policy(spec: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: c}}\nspec: {spec}\n"
    )
}

fn cluster_spec(spec: &str) -> ClusterPolicy {
    match one(&cluster_policy(spec)) {
        Object::ClusterNetworkPolicy(policy) => (*policy).clone(),
        other => panic!("{other:?}"),
    }
}

const NP: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";

#[test]
fn kinds_are_read_ignored_or_refused() {
    let loaded = load("f", b"apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: apps/v1\nkind: Deployment\n---\napiVersion: v1\nkind: ServiceList\n");
    assert_eq!(
        shown(&loaded),
        [
            "f:1: warning: ignored: kind Service of v1 is not read",
            "f:5: warning: ignored: kind Deployment of apps/v1 is not read",
            "f:8: warning: ignored: kind ServiceList of v1 is not read",
        ]
    );
    assert!(!loaded.has_errors() && loaded.objects.is_empty());
    for (text, message) in [
        (
            "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}",
            "apiVersion: extensions/v1beta1 was removed from Kubernetes: write apiVersion: networking.k8s.io/v1",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p}",
            "apiVersion: NetworkPolicy of `projectcalico.org/v3` is not read",
        ),
        (
            "apiVersion: v2\nkind: Pod\nmetadata: {name: p}",
            "apiVersion: Pod of `v2` is not read: write apiVersion: v1",
        ),
        (
            "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy",
            "kind: AdminNetworkPolicy was replaced upstream",
        ),
        (
            "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy",
            "kind: BaselineAdminNetworkPolicy was replaced upstream",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolcy",
            "kind: `NetworkPolcy` is unknown: did you mean NetworkPolicy?",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: networkpolicy",
            "kind: `networkpolicy` is unknown",
        ),
        ("kind: Pod", ": kind or apiVersion is missing"),
        ("apiVersion: v1", ": kind or apiVersion is missing"),
        (
            "apiVersion: 1\nkind: Pod",
            "apiVersion: is a number where a text belongs",
        ),
        ("[1]", ": is a list where a mapping belongs"),
        ("hello", ": is a text where a mapping belongs"),
        (
            "apiVersion: v1\nkind: List\nitems: 7",
            "items: is a number where a list belongs",
        ),
    ] {
        let found = error(text);
        assert!(found.starts_with(message), "{text}: {found}");
    }
}

#[test]
fn lists_of_lists_and_typed_lists_hold_objects() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Namespace, metadata: {{name: a}}}}\n- apiVersion: v1\n  kind: List\n  \
         items:\n  - {{apiVersion: v1, kind: Secret, metadata: {{name: s}}}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\n\
         metadata: {{resourceVersion: '1'}}\nitems:\n- metadata: {{name: one}}\n- metadata: {{name: two, namespace: b}}\n---\n\
         apiVersion: v1\nkind: List\nitems: null\n---\n{NP}metadata: {{name: three}}\n"
    );
    let loaded = load("f", text.as_bytes());
    assert_eq!(
        names(&loaded),
        [
            "Namespace a",
            "NetworkPolicy default/one",
            "NetworkPolicy b/two",
            "NetworkPolicy default/three"
        ]
    );
    assert_eq!(loaded.objects[2].source().to_string(), "f:15");
    assert_eq!(loaded.diagnostics.len(), 1, "the secret");
}

#[test]
fn a_refused_object_leaves_the_others_alone() {
    let text = format!(
        "{NP}metadata: {{name: good}}\n---\n{NP}metadata: {{name: bad}}\nspec: {{ingress: 1}}\n---\n{NP}metadata: {{}}\n---\n{NP}metadata: {{name: also}}\n"
    );
    let loaded = load("f", text.as_bytes());
    assert_eq!(
        names(&loaded),
        ["NetworkPolicy default/good", "NetworkPolicy default/also"]
    );
    let refused: Vec<String> = loaded.refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["NetworkPolicy default/bad"]);
    assert!(
        loaded.unreadable.contains("f"),
        "one of the refused has no name"
    );
}

#[test]
fn the_later_of_two_replaces_the_earlier_with_a_warning() {
    let mut loader = Loader::new();
    loader.add("a", format!("{NP}metadata: {{name: p}}\n").as_bytes());
    loader.add(
        "b",
        format!("{NP}metadata: {{name: p, namespace: default}}\nspec: {{policyTypes: [Egress]}}\n")
            .as_bytes(),
    );
    loader.add(
        "c",
        format!("{NP}metadata: {{name: p}}\nspec: {{ingress: 1}}\n").as_bytes(),
    );
    let loaded = loader.finish();
    let [Object::NetworkPolicy(policy)] = &loaded.objects[..] else {
        panic!()
    };
    assert_eq!(policy.ingress, None);
    assert_eq!(
        shown(&loaded)[0],
        "b:1: warning: NetworkPolicy default/p: replaces the one of the same name at a:1"
    );
    assert!(loaded.refused.is_empty(), "the earlier one is in force");
    assert!(loaded.has_errors());
}

#[test]
fn the_order_of_documents_does_not_matter() {
    let documents = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: 'y'}}\n".to_owned(),
        format!("{NP}metadata: {{name: p}}\n"),
        cluster_policy("{tier: Admin, priority: 1, subject: {namespaces: {}}}"),
    ];
    let sorted = |order: [usize; 3]| {
        let loaded = load(
            "f",
            order
                .map(|at| documents[at].as_str())
                .join("---\n")
                .as_bytes(),
        );
        assert!(!loaded.has_errors());
        let mut names = names(&loaded);
        names.sort();
        names
    };
    assert_eq!(sorted([0, 1, 2]), sorted([2, 1, 0]));
    assert_eq!(sorted([0, 1, 2]), sorted([1, 2, 0]));
}

#[test]
fn metadata_is_checked() {
    let long = "a".repeat(254);
    for (meta, message) in [
        ("{}".to_owned(), "metadata.name: is missing"),
        ("null".to_owned(), "metadata: is missing"),
        (
            "{generateName: p-}".to_owned(),
            "metadata.name: is missing: a file must name",
        ),
        ("{name: ''}".to_owned(), "metadata.name: `` must be"),
        ("{name: P}".to_owned(), "metadata.name: `P` must be"),
        ("{name: a_b}".to_owned(), "metadata.name: `a_b` must be"),
        ("{name: -a}".to_owned(), "metadata.name: `-a` must be"),
        ("{name: a..b}".to_owned(), "metadata.name: `a..b` must be"),
        ("{name: a/b}".to_owned(), "metadata.name: `a/b` must be"),
        (format!("{{name: {long}}}"), "metadata.name: `aaa"),
        (
            "{name: 1}".to_owned(),
            "metadata.name: is a number where a text belongs: put it in quotes",
        ),
        (
            "{name: p, namespace: a.b}".to_owned(),
            "metadata.namespace: `a.b` must be",
        ),
        (
            "{name: p, namespace: A}".to_owned(),
            "metadata.namespace: `A` must be",
        ),
        (
            "{name: p, namespce: shop}".to_owned(),
            "metadata.namespce: is an unknown field: did you mean `namespace`?",
        ),
        (
            "{name: p, labels: {a: b c}}".to_owned(),
            "metadata.labels.a: `b c` is no label value",
        ),
        (
            "{name: p, annotations: {a: 1}}".to_owned(),
            "metadata.annotations.a: is a number",
        ),
        (
            "{name: p, annotations: {patronus.io/mode: on}}".to_owned(),
            "metadata.annotations[patronus.io/mode]: is a truth value",
        ),
        (
            "{name: p, annotations: {patronus.io/mode: Audit}}".to_owned(),
            "metadata.annotations[patronus.io/mode]: `Audit` is unknown: did you mean audit?",
        ),
        (
            "{name: p, annotations: {patronus.io/mode: }}".to_owned(),
            "metadata.annotations[patronus.io/mode]: `` is unknown",
        ),
        (
            "{name: p, annotations: {patronus.io/priority: '5'}}".to_owned(),
            "metadata.annotations[patronus.io/priority]: a NetworkPolicy has no priority",
        ),
        (
            "{name: p, annotations: {patronus.io/mod: off}}".to_owned(),
            "metadata.annotations[patronus.io/mod]: is a truth value",
        ),
        (
            "{name: p, annotations: {patronus.io/mod: 'off'}}".to_owned(),
            "metadata.annotations[patronus.io/mod]: is unknown",
        ),
    ] {
        let found = error(&format!("{NP}metadata: {meta}\n"));
        assert!(found.starts_with(message), "{meta}: {found}");
    }
    for (mode, wanted) in [
        ("enforce", Mode::Enforce),
        ("audit", Mode::Audit),
        ("'off'", Mode::Off),
    ] {
        let text = format!(
            "{NP}metadata: {{name: a.b-1, uid: x, managedFields: [{{}}], creationTimestamp: null, annotations: {{x: 'y', z: null, patronus.io/mode: {mode}}}}}\nstatus: {{any: 1}}\n"
        );
        let Object::NetworkPolicy(policy) = one(&text) else {
            panic!()
        };
        assert_eq!(policy.mode, wanted);
        assert_eq!(load("f", text.as_bytes()).diagnostics, []);
    }
    assert!(
        error(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {patronus.io/mode: audit}}"
        )
        .contains("means nothing on a Pod")
    );
    assert!(
        error("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}").contains("`a.b` must be")
    );
    assert!(
        error(&format!("{NP}metadata: {{name: p}}\nsepc: {{}}"))
            .starts_with("sepc: is an unknown field: did you mean `spec`?")
    );
}

#[test]
fn pods_and_nodes_are_who_is_there() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, labels: {app: web}}\nspec:\n  nodeName: n1\n  hostNetwork: true\n  \
        restartPolicy: Always\n  containers:\n  - name: c\n    image: x\n    ports:\n    - {name: http, containerPort: 80, hostPort: 8}\n    \
        - {containerPort: 53, protocol: UDP}\n  - {name: d}\n  initContainers:\n  - ports: [{name: gone, containerPort: 1}]\n  \
        - restartPolicy: Always\n    ports: [{name: side, containerPort: 2, protocol: SCTP}]\nstatus:\n  phase: Running\n  podIP: 10.0.0.1\n  \
        podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]\n";
    let Object::Pod(_, pod) = one(text) else {
        panic!()
    };
    let port = |name: Option<&str>, number, protocol| ContainerPort {
        name: name.map(Text::from),
        number,
        protocol,
    };
    assert_eq!(
        pod.ports,
        [
            port(Some("http"), 80, Protocol::Tcp),
            port(None, 53, Protocol::Udp),
            port(Some("side"), 2, Protocol::Sctp)
        ]
    );
    assert_eq!(
        pod.ips,
        [
            "10.0.0.1".parse::<std::net::IpAddr>().unwrap(),
            "fd00::1".parse().unwrap()
        ]
    );
    assert_eq!(
        (pod.node.as_deref(), pod.host_network, pod.labels.len()),
        (Some("n1"), true, 1)
    );
    let pod_with =
        |rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n{rest}\n");
    for (rest, ips) in [
        ("", 0),
        ("status: {podIP: 10.0.0.1}", 1),
        ("status: {podIP: ''}", 0),
        ("status: {phase: Failed, podIP: 10.0.0.1}", 0),
    ] {
        let Object::Pod(_, pod) = one(&pod_with(rest)) else {
            panic!()
        };
        assert_eq!(
            (pod.ips.len(), pod.node, pod.host_network),
            (ips, None, false),
            "{rest}"
        );
        assert_eq!(
            load("f", pod_with(rest).as_bytes()).diagnostics.len(),
            1 - usize::from(ips == 1),
            "{rest}"
        );
    }
    for (rest, message) in [
        (
            "status: {podIPs: [{ip: 10.0.0.01}]}",
            "status.podIPs[0].ip: `10.0.0.01`: an octet with leading zeros",
        ),
        ("status: {podIPs: [{}]}", "status.podIPs[0].ip: is missing"),
        (
            "spec: {containers: [{ports: [{containerPort: 0}]}]}",
            "spec.containers[0].ports[0].containerPort: 0 is not",
        ),
        (
            "spec: {containers: [{ports: [{}]}]}",
            "spec.containers[0].ports[0].containerPort: is missing",
        ),
        (
            "spec: {containers: [{ports: [{containerPort: 1, name: UP}]}]}",
            "spec.containers[0].ports[0].name: `UP` is no port name",
        ),
        (
            "spec: {containers: [{ports: [{containerPort: 1, protocol: tcp}]}]}",
            "spec.containers[0].ports[0].protocol: `tcp`",
        ),
        (
            "spec: {hostNetwork: 'yes'}",
            "spec.hostNetwork: is a text where true or false belongs",
        ),
    ] {
        let found = error(&pod_with(rest));
        assert!(found.starts_with(message), "{rest}: {found}");
    }
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus:\n  addresses:\n  - {type: Hostname, address: n1}\n  \
        - {type: InternalIP, address: 192.0.2.1}\n  - {type: ExternalIP, address: 'fd00::1'}\n  - {type: InternalIP, address: 192.0.2.1}\n";
    let Object::Node(_, node) = one(text) else {
        panic!()
    };
    assert_eq!((&*node.name, node.ips.len()), ("n1", 2));
    assert!(error("apiVersion: v1\nkind: Node\nmetadata: {name: n}\nstatus: {addresses: [{type: InternalIP, address: x}]}").contains("`x`: is not an IP address"));
}

#[test]
fn a_cluster_policy_is_read_whole() {
    let policy = cluster_spec(
        "{tier: Baseline, priority: 1000, subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {}}}, \
         ingress: [{name: n, action: Accept, from: [{namespaces: {}}, {pods: {podSelector: {matchLabels: {c: d}}}}], protocols: [{tcp: \
         {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 2}}}}, {destinationNamedPort: web}]}], \
         egress: [{action: Pass, to: [{networks: [10.0.0.0/8, 'fd00::/8']}]}]}",
    );
    assert_eq!(
        (policy.tier, policy.priority, policy.mode),
        (Tier::Baseline, 1000, Mode::Enforce)
    );
    assert_eq!(policy.subject.namespaces.requirements.len(), 1);
    let [rule] = &policy.ingress[..] else {
        panic!()
    };
    assert_eq!(
        (rule.action, rule.name.as_deref(), rule.peers.len()),
        (Action::Accept, Some("n"), 2)
    );
    let range = |protocol, first, last| PortMatch::Range {
        protocol,
        first,
        last,
    };
    assert_eq!(
        rule.ports.as_deref().unwrap(),
        [
            range(Protocol::Tcp, 80, 80),
            range(Protocol::Udp, 1, 2),
            PortMatch::Named {
                protocol: None,
                name: "web".into()
            }
        ]
    );
    assert_eq!(
        policy.egress[0].peers,
        [ClusterPeer::Networks(vec![
            "10.0.0.0/8".parse().unwrap(),
            "fd00::/8".parse().unwrap()
        ])]
    );
    assert_eq!(policy.egress[0].ports, None);
}

#[test]
fn an_unknown_kind_of_peer_fails_closed() {
    for peer in [
        "{nodes: {}}",
        "{domainNames: [example.com]}",
        "{galaxies: {}}",
    ] {
        for (action, wanted) in [
            ("Accept", Action::Accept),
            ("Deny", Action::Deny),
            ("Pass", Action::Deny),
        ] {
            let text = format!(
                "{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, egress: [{{action: {action}, to: [{{namespaces: {{}}}}, {peer}], \
                 protocols: [{{tcp: {{destinationPort: {{number: 1}}}}}}]}}]}}"
            );
            let rule = &cluster_spec(&text).egress[0];
            assert_eq!(
                (rule.action, &rule.peers[..]),
                (wanted, &[ClusterPeer::Unknown][..])
            );
            assert_eq!(
                rule.ports.is_some(),
                wanted == Action::Accept,
                "everything is denied"
            );
            assert_eq!(
                load("f", cluster_policy(&text).as_bytes())
                    .diagnostics
                    .len(),
                2
            );
        }
    }
}

#[test]
fn wrong_cluster_policies_are_refused_by_field() {
    let good = "tier: Admin, priority: 1, subject: {namespaces: {}}";
    let rule = |rule: &str| format!("{{{good}, egress: [{rule}]}}");
    let protocol = |text: &str| {
        rule(&format!(
            "{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{text}]}}"
        ))
    };
    let peer = |text: &str| rule(&format!("{{action: Deny, to: [{text}]}}"));
    let many = |item: &str, count: usize| vec![item; count].join(", ");
    let long = "n".repeat(101);
    for (text, message) in [
        ("null".to_owned(), "spec: is missing"),
        ("{priority: 1, subject: {namespaces: {}}}".to_owned(), "spec.tier: is missing"),
        ("{tier: admin, priority: 1, subject: {namespaces: {}}}".to_owned(), "spec.tier: `admin` is unknown: did you mean Admin?"),
        ("{tier: NetworkPolicy, priority: 1, subject: {namespaces: {}}}".to_owned(), "spec.tier: `NetworkPolicy`"),
        ("{tier: Admin, subject: {namespaces: {}}}".to_owned(), "spec.priority: is missing"),
        ("{tier: Admin, priority: null, subject: {namespaces: {}}}".to_owned(), "spec.priority: is null"),
        ("{tier: Admin, priority: 1001, subject: {namespaces: {}}}".to_owned(), "spec.priority: 1001 is not from 0 to 1000"),
        ("{tier: Admin, priority: -1, subject: {namespaces: {}}}".to_owned(), "spec.priority: -1 is not"),
        ("{tier: Admin, priority: '1', subject: {namespaces: {}}}".to_owned(), "spec.priority: is the text"),
        ("{tier: Admin, priority: 1}".to_owned(), "spec.subject: is missing"),
        ("{tier: Admin, priority: 1, subject: {}}".to_owned(), "spec.subject: has 0 fields"),
        ("{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}".to_owned(), "spec.subject: has 2 fields"),
        ("{tier: Admin, priority: 1, subject: {pods: {}}}".to_owned(), "spec.subject.pods.podSelector: is missing"),
        ("{tier: Admin, priority: 1, subject: {namespaces: null}}".to_owned(), "spec.subject.namespaces: is null"),
        ("{tier: Admin, priority: 1, subject: {namespace: {}}}".to_owned(), "spec.subject.namespace: is an unknown field"),
        (format!("{{{good}, policyTypes: [Ingress]}}"), "spec.policyTypes: is an unknown field"),
        (rule("{to: [{namespaces: {}}]}"), "spec.egress[0].action: is missing"),
        (rule("{action: Allow, to: [{namespaces: {}}]}"), "spec.egress[0].action: `Allow` is unknown: write one of Accept, Deny, Pass"),
        (rule("{action: Deny}"), "spec.egress[0].to: is missing"),
        (rule("{action: Deny, to: []}"), "spec.egress[0].to: needs at least one item"),
        (rule("{action: Deny, from: [{namespaces: {}}], to: [{namespaces: {}}]}"), "spec.egress[0].from: is an unknown field"),
        (rule(&format!("{{name: {long}, action: Deny, to: [{{namespaces: {{}}}}]}}")), "spec.egress[0].name: is longer than 100"),
        (format!("{{{good}, ingress: [{}]}}", many("{action: Deny, from: [{namespaces: {}}]}", 26)), "spec.ingress: has 26 items"),
        (peer(&many("{namespaces: {}}", 26)), "spec.egress[0].to: has 26 items"),
        (peer("{}"), "spec.egress[0].to[0]: has 0 fields"),
        (peer("{namespaces: {}, nodes: {}}"), "spec.egress[0].to[0]: has 2 fields"),
        (peer("{namespaces: null}"), "spec.egress[0].to[0].namespaces: is null"),
        (peer("{namespace: {}}"), "spec.egress[0].to[0].namespace: is an unknown kind of peer: did you mean `namespaces`?"),
        (peer("{pods: {namespaceSelector: {}}}"), "spec.egress[0].to[0].pods.podSelector: is missing"),
        (peer("{networks: []}"), "spec.egress[0].to[0].networks: needs at least one"),
        (peer("{networks: [10.0.0.0]}"), "spec.egress[0].to[0].networks[0]: `10.0.0.0` has no mask"),
        (peer("{networks: [10.0.0.0/8, 10.0.0.0/8]}"), "spec.egress[0].to[0].networks[1]: `10.0.0.0/8` stands there twice"),
        (format!("{{{good}, ingress: [{{action: Deny, from: [{{networks: [10.0.0.0/8]}}]}}]}}"), "spec.ingress[0].from[0].networks: is for egress only"),
        (format!("{{{good}, ingress: [{{action: Deny, from: [{{nodes: {{}}}}]}}]}}"), "spec.ingress[0].from[0].nodes: is for egress only"),
        (rule("{action: Deny, to: [{namespaces: {}}], protocols: []}"), "spec.egress[0].protocols: needs at least one"),
        (rule("{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]}"), "spec.egress[0].protocols: has a destinationNamedPort beside networks"),
        (protocol("{}"), "spec.egress[0].protocols[0]: has 0 fields"),
        (protocol("{icmp: {}}"), "spec.egress[0].protocols[0].icmp: is an unknown field"),
        (protocol("{tcp: {}}"), "spec.egress[0].protocols[0].tcp.destinationPort: is missing"),
        (protocol("{tcp: {destinationPort: {}}}"), "spec.egress[0].protocols[0].tcp.destinationPort: has 0 fields"),
        (protocol("{tcp: {destinationPort: 80}}"), "spec.egress[0].protocols[0].tcp.destinationPort: is a number"),
        (protocol("{tcp: {destinationPort: {number: 0}}}"), "spec.egress[0].protocols[0].tcp.destinationPort.number: 0 is not"),
        (protocol("{udp: {destinationPort: {range: {start: 2, end: 2}}}}"), "spec.egress[0].protocols[0].udp.destinationPort.range: start 2 is not below end 2"),
        (protocol("{udp: {destinationPort: {range: {start: 2}}}}"), "spec.egress[0].protocols[0].udp.destinationPort.range.end: is missing"),
        (protocol("{tcp: {destinationPort: {number: 1}}, udp: {destinationPort: {number: 1}}}"), "spec.egress[0].protocols[0]: has 2 fields"),
        ("{tier: Admin, priority: 1, subject: {namespaces: {matchExpressions: [{key: a, operator: In}]}}}".to_owned(), "spec.subject.namespaces.matchExpressions[0].values: In and NotIn"),
    ] {
        let found = error(&cluster_policy(&text));
        assert!(found.starts_with(message), "{text}: {found}");
    }
}

const MANIFESTS: &[&str] = &[
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  annotations: {patronus.io/mode: audit}\nspec:\n  podSelector:\n    \
     matchLabels: {app: web}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}\n    \
     ports:\n    - {port: 80, endPort: 90, protocol: UDP}\n",
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c}\nspec: {tier: Admin, priority: 1, subject: \
     {namespaces: {}}, egress: [{action: Deny, to: [{networks: ['fd00::/8']}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 2}}}}]}]}\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"p\"}, \"status\": \
     {\"podIPs\": [{\"ip\": \"10.0.0.1\"}]}}]}",
    include_str!("../testdata/sample.json"),
];

fn survive(bytes: &[u8]) {
    let loaded = load("f", bytes);
    for line in shown(&loaded) {
        assert!(line.chars().all(|char| !char.is_control()), "{line:?}");
    }
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(
        loaded
            .diagnostics
            .iter()
            .all(|it| (1..=lines + 1).contains(&(it.line as usize)))
    );
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Error)
        .count();
    assert_eq!(loaded.has_errors(), errors > 0);
    if let Ok(document) = Document::parse("f", bytes) {
        let _ = document.len();
    }
}

#[test]
fn the_corpus_of_the_fuzzer_does_not_break_the_loader() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/policy_manifest"
    );
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    assert!(files.len() >= 10);
    for file in files {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        survive(&bytes);
        survive(&bytes[..bytes.len() / 2]);
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_loader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }

    #[test]
    fn no_yaml_like_text_breaks_the_loader(text in "[a-c0-9:\\-?\\[\\]{},#&*!|>'\"% \t\n~]{0,80}") {
        survive(text.as_bytes());
    }

    #[test]
    fn no_mutated_manifest_breaks_the_loader(
        file in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<u8>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = file.get(MANIFESTS).as_bytes().to_vec();
        for (at, other, kind, byte) in edits {
            let (at, other) = (at.index(bytes.len()), other.index(bytes.len()));
            let (first, last) = (at.min(other), at.max(other));
            match kind % 6 {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.drain(first..last.min(first + 20))),
                3 => bytes.swap(at, other),
                4 => bytes.insert(at, b" :-{}[],'\"\n#&*"[usize::from(byte) % 14]),
                _ => {
                    let copied = bytes[first..last.min(first + 60)].to_vec();
                    bytes.splice(at..at, copied);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        survive(&bytes);
    }
}
