//! NetworkPolicy as a file says it, against what the API server makes of it: defaults, and what it refuses.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::sync::Arc;

use patronus_policy::Severity;
use patronus_policy::manifest::{Loaded, Object, load};
use patronus_policy::model::*;

/// A policy in namespace `shop` with that spec, in flow style or as an indented block.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn shown(loaded: &Loaded) -> Vec<String> {
    loaded.diagnostics.iter().map(ToString::to_string).collect()
}

fn taken(text: &str) -> Arc<NetworkPolicy> {
    let loaded = load("f.yaml", text.as_bytes());
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{text}\n{:#?}", shown(&loaded));
    match &loaded.objects[..] {
        [Object::NetworkPolicy(policy)] => policy.clone(),
        other => panic!("{text}\n{other:?}"),
    }
}

fn spec(text: &str) -> Arc<NetworkPolicy> {
    taken(&policy(text))
}

/// The errors of a spec, without what is the same everywhere.
fn errors(text: &str) -> Vec<String> {
    let loaded = load("f.yaml", policy(text).as_bytes());
    assert!(loaded.objects.is_empty(), "{text} is taken");
    assert!(loaded.has_errors() && loaded.refused.len() == 1, "{text}");
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Error);
    errors
        .map(|it| format!("{}: {}", it.field, it.message))
        .collect()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load("f.yaml", policy(text).as_bytes());
    loaded
        .diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Warning)
        .map(|it| format!("{}: {}", it.field, it.message))
        .collect()
}

fn ingress(policy: &NetworkPolicy) -> &[Rule] {
    policy.ingress.as_deref().unwrap()
}

#[test]
fn policy_types_default_as_the_api_server_has_it() {
    for (text, ingress, egress) in [
        ("{}", true, false),
        ("{podSelector: {}}", true, false),
        ("{policyTypes: []}", true, false),
        ("{policyTypes: null}", true, false),
        ("{egress: []}", true, false),
        ("{egress: null}", true, false),
        ("{egress: [{}]}", true, true),
        ("{policyTypes: [], egress: [{}]}", true, true),
        ("{ingress: [], egress: [{}]}", true, true),
        ("{policyTypes: [Ingress], egress: [{}]}", true, false),
        ("{policyTypes: [Egress]}", false, true),
        ("{policyTypes: [Egress], ingress: [{}]}", false, true),
        ("{policyTypes: [Egress, Ingress]}", true, true),
        ("{policyTypes: [Ingress, Ingress]}", true, false),
        ("{policyTypes: [Egress, Egress]}", false, true),
    ] {
        let policy = spec(text);
        assert_eq!(
            (policy.ingress.is_some(), policy.egress.is_some()),
            (ingress, egress),
            "{text}"
        );
    }
    assert_eq!(
        warnings("{policyTypes: [Ingress], egress: [{}]}"),
        ["spec.egress: means nothing, since policyTypes does not name this direction"]
    );
}

#[test]
fn an_absent_spec_isolates_every_pod_of_the_namespace_for_ingress() {
    for tail in ["", "spec:\n", "spec: null\n", "spec: {}\n"] {
        let policy = taken(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\n{tail}"
        ));
        assert_eq!(policy.id.to_string(), "default/p");
        assert_eq!(policy.pods, Selector::default());
        assert_eq!(
            (policy.ingress.as_deref(), policy.egress.as_deref()),
            (Some(&[][..]), None)
        );
        assert_eq!(
            (policy.mode, policy.source.to_string()),
            (Mode::Enforce, "f.yaml:1".to_owned())
        );
    }
}

#[test]
fn absent_null_and_empty_mean_the_same_in_rules() {
    for text in ["{ingress: []}", "{ingress: null}", "{ingress: }", "{}"] {
        assert_eq!(ingress(&spec(text)), [], "{text}");
    }
    for rule in [
        "{}",
        "{from: }",
        "{from: null, ports: null}",
        "{from: [], ports: []}",
        "null",
    ] {
        let policy = spec(&format!("{{ingress: [{rule}]}}"));
        let [rule] = ingress(&policy) else { panic!() };
        assert_eq!((&rule.peers, &rule.ports), (&None, &None));
    }
    assert_eq!(
        warnings("{ingress: [null]}"),
        ["spec.ingress[0]: is null, which allows everything: write {}"]
    );
}

#[test]
fn ports_default_and_are_checked() {
    let port = |text: &str| {
        let policy = spec(&format!("{{ingress: [{{ports: [{text}]}}]}}"));
        ingress(&policy)[0].ports.clone().unwrap().remove(0)
    };
    let range = |protocol, first, last| PortMatch::Range {
        protocol,
        first,
        last,
    };
    let named = |protocol, name: &str| PortMatch::Named {
        protocol: Some(protocol),
        name: name.into(),
    };
    for (text, wanted) in [
        ("{}", PortMatch::Any(Protocol::Tcp)),
        ("null", PortMatch::Any(Protocol::Tcp)),
        (
            "{protocol: null, port: null, endPort: null}",
            PortMatch::Any(Protocol::Tcp),
        ),
        ("{protocol: UDP}", PortMatch::Any(Protocol::Udp)),
        ("{protocol: SCTP}", PortMatch::Any(Protocol::Sctp)),
        ("{port: 80}", range(Protocol::Tcp, 80, 80)),
        ("{port: 1}", range(Protocol::Tcp, 1, 1)),
        ("{port: 65535}", range(Protocol::Tcp, 65535, 65535)),
        ("{port: 0x50}", range(Protocol::Tcp, 80, 80)),
        ("{port: 80.0}", range(Protocol::Tcp, 80, 80)),
        ("{protocol: UDP, port: 53}", range(Protocol::Udp, 53, 53)),
        (
            "{port: 32000, endPort: 32768}",
            range(Protocol::Tcp, 32000, 32768),
        ),
        ("{port: 80, endPort: 80}", range(Protocol::Tcp, 80, 80)),
        ("{port: http}", named(Protocol::Tcp, "http")),
        ("{port: y}", named(Protocol::Tcp, "y")),
        ("{port: 8a}", named(Protocol::Tcp, "8a")),
        ("{port: a-1, protocol: SCTP}", named(Protocol::Sctp, "a-1")),
        (
            "{port: abcdefghijklmno}",
            named(Protocol::Tcp, "abcdefghijklmno"),
        ),
    ] {
        assert_eq!(port(text), wanted, "{text}");
    }
}

#[test]
fn wrong_ports_are_refused_by_field() {
    for (text, message) in [
        (
            "{protocol: tcp}",
            "protocol: `tcp` is unknown: did you mean TCP?",
        ),
        (
            "{protocol: \"\"}",
            "protocol: `` is unknown: write one of TCP, UDP, SCTP",
        ),
        ("{protocol: ICMP}", "protocol: `ICMP` is unknown"),
        (
            "{protocol: 6}",
            "protocol: is a number where a text belongs",
        ),
        ("{port: 0}", "port: 0 is not from 1 to 65535"),
        ("{port: -1}", "port: -1 is not from 1 to 65535"),
        ("{port: 65536}", "port: 65536 is not"),
        ("{port: 80.5}", "port: 80.5 is no whole number"),
        (
            "{port: 99999999999999999999}",
            "port: 100000000000000000000 is no whole number",
        ),
        ("{port: true}", "port: is a truth value where a number"),
        ("{port: [80]}", "port: is a list where a number"),
        ("{port: \"80\"}", "port: `80` is no port name"),
        ("{port: \"\"}", "port: `` is no port name"),
        ("{port: HTTP}", "port: `HTTP` is no port name"),
        ("{port: a--b}", "port: `a--b` is no port name"),
        ("{port: -a}", "port: `-a` is no port name"),
        ("{port: a-}", "port: `a-` is no port name"),
        ("{port: a_b}", "port: `a_b` is no port name"),
        (
            "{port: abcdefghijklmnop}",
            "port: `abcdefghijklmnop` is no port name",
        ),
        ("{endPort: 80}", "endPort: needs a numeric `port`"),
        (
            "{port: null, endPort: 80}",
            "endPort: needs a numeric `port`",
        ),
        (
            "{port: http, endPort: 80}",
            "endPort: may not stand beside a named `port`",
        ),
        ("{port: 80, endPort: 79}", "endPort: 79 is below `port` 80"),
        ("{port: 80, endPort: 0}", "endPort: 0 is not from 1"),
        ("{port: 80, endPort: 65536}", "endPort: 65536 is not from 1"),
        (
            "{port: 80, endPort: \"90\"}",
            "endPort: is the text \"90\" where a number belongs: remove the quotes",
        ),
        (
            "{port: 80, endPort: x}",
            "endPort: is a text where a number",
        ),
        (
            "{prot: 80}",
            "prot: is an unknown field: did you mean `port`?",
        ),
        (
            "{port: 80, endport: 90}",
            "endport: is an unknown field: did you mean `endPort`?",
        ),
        ("80", ": is a number where a mapping belongs"),
    ] {
        for (direction, list) in [("ingress", "ingress: [{}, "), ("egress", "egress: [{}, ")] {
            let found = errors(&format!("{{{list}{{ports: [{{}}, {text}]}}]}}"));
            let message = match message.strip_prefix(": ") {
                Some(rest) => format!("spec.{direction}[1].ports[1]: {rest}"),
                None => format!("spec.{direction}[1].ports[1].{message}"),
            };
            assert!(
                found.len() == 1 && found[0].starts_with(&message),
                "{text}: {found:#?}\n{message}"
            );
        }
    }
    let json = r#"{"ingress": [{"ports": [{"port": 80.0}]}]}"#;
    let text = format!(
        r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {{"name": "p"}}, "spec": {json}}}"#
    );
    assert!(
        load("f.json", text.as_bytes()).has_errors(),
        "the API server wants whole numbers in JSON"
    );
}

#[test]
fn peers_say_what_they_select() {
    let peer = |text: &str| {
        let policy = spec(&format!("{{ingress: [{{from: [{text}]}}]}}"));
        ingress(&policy)[0].peers.clone().unwrap().remove(0)
    };
    let all = Some(Selector::default());
    for (text, namespaces, pods) in [
        ("{podSelector: {}}", None, all.clone()),
        ("{podSelector: {matchLabels: null}}", None, all.clone()),
        ("{namespaceSelector: {}}", all.clone(), None),
        (
            "{namespaceSelector: {}, podSelector: {}}",
            all.clone(),
            all.clone(),
        ),
        (
            "{namespaceSelector: {}, podSelector: null}",
            all.clone(),
            None,
        ),
    ] {
        assert_eq!(peer(text), Peer::Pods { namespaces, pods }, "{text}");
    }
    let block = |cidr: &str, except: &[&str]| Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|it| it.parse().unwrap()).collect(),
    };
    for (text, wanted) in [
        ("{cidr: 10.0.0.0/8}", block("10.0.0.0/8", &[])),
        ("{cidr: 0.0.0.0/0}", block("0.0.0.0/0", &[])),
        ("{cidr: '::/0'}", block("::/0", &[])),
        ("{cidr: 10.0.0.1/32}", block("10.0.0.1/32", &[])),
        (
            "{cidr: 'fd00::/8', except: ['fd00:1::/32']}",
            block("fd00::/8", &["fd00:1::/32"]),
        ),
        (
            "{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.1/32]}",
            block("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.1/32"]),
        ),
        ("{cidr: 10.0.0.0/8, except: null}", block("10.0.0.0/8", &[])),
        ("{cidr: 10.0.0.0/8, except: []}", block("10.0.0.0/8", &[])),
        (
            "{cidr: 10.1.2.3/8, except: [10.9.9.9/16]}",
            block("10.0.0.0/8", &["10.9.0.0/16"]),
        ),
        ("{cidr: '2001:DB8::/32'}", block("2001:db8::/32", &[])),
    ] {
        assert_eq!(peer(&format!("{{ipBlock: {text}}}")), wanted, "{text}");
    }
    assert_eq!(
        warnings("{ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]}"),
        [
            "spec.ingress[0].from[0].ipBlock.cidr: `10.1.2.3/8` has host bits set and is read as 10.0.0.0/8: write 10.0.0.0/8"
        ]
    );
}

#[test]
fn wrong_peers_are_refused_by_field() {
    for (text, message) in [
        ("{}", ": says no peer"),
        ("null", ": says no peer"),
        ("{podSelector: null}", ": says no peer"),
        ("{ipBlock: null}", ": says no peer"),
        (
            "{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}",
            ": has ipBlock beside a selector",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}",
            ": has ipBlock beside a selector",
        ),
        (
            "{podSelecter: {}, namespaceSelector: {}}",
            ".podSelecter: is an unknown field: did you mean `podSelector`?",
        ),
        ("{ipBlock: {}}", ".ipBlock.cidr: is missing"),
        (
            "{ipBlock: {cidr: ''}}",
            ".ipBlock.cidr: `` is no address block",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0}}",
            ".ipBlock.cidr: `10.0.0.0` has no mask: write 10.0.0.0/32",
        ),
        (
            "{ipBlock: {cidr: 'fd00::1'}}",
            ".ipBlock.cidr: `fd00::1` has no mask: write fd00::1/128",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/33}}",
            ".ipBlock.cidr: `10.0.0.0/33`: the length",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/-1}}",
            ".ipBlock.cidr: `10.0.0.0/-1`: the length",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/+8}}",
            ".ipBlock.cidr: `10.0.0.0/+8`: the length",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/08}}",
            ".ipBlock.cidr: `10.0.0.0/08`: the length",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/}}",
            ".ipBlock.cidr: `10.0.0.0/`: the length",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8/8}}",
            ".ipBlock.cidr: `10.0.0.0/8/8`: the length",
        ),
        (
            "{ipBlock: {cidr: '::/129'}}",
            ".ipBlock.cidr: `::/129`: the length",
        ),
        (
            "{ipBlock: {cidr: 10.0.0/8}}",
            ".ipBlock.cidr: `10.0.0/8`: is not an IP address",
        ),
        (
            "{ipBlock: {cidr: 010.0.0.0/8}}",
            ".ipBlock.cidr: `010.0.0.0/8`: an octet with leading zeros",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.256/8}}",
            ".ipBlock.cidr: `10.0.0.256/8`: is not an IP address",
        ),
        (
            "{ipBlock: {cidr: ' 10.0.0.0/8'}}",
            ".ipBlock.cidr: ` 10.0.0.0/8`: is not an IP address",
        ),
        (
            "{ipBlock: {cidr: 'fe80::1%eth0/64'}}",
            ".ipBlock.cidr: `fe80::1%eth0/64`: is not an IP address",
        ),
        (
            "{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}",
            ".ipBlock.cidr: `::ffff:10.0.0.0/104`: an IPv4 address in IPv6 form",
        ),
        (
            "{ipBlock: {cidr: 10}}",
            ".ipBlock.cidr: is a number where a text belongs",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}",
            ".ipBlock.except[0]: 10.0.0.0/8 is no part of 10.0.0.0/8",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/7]}}",
            ".ipBlock.except[0]: 10.0.0.0/7 is no part",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9, 11.0.0.0/16]}}",
            ".ipBlock.except[1]: 11.0.0.0/16 is no part",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/16']}}",
            ".ipBlock.except[0]: fd00::/16 is no part",
        ),
        (
            "{ipBlock: {cidr: 0.0.0.0/0, except: ['::1/128']}}",
            ".ipBlock.except[0]: ::1/128 is no part",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1]}}",
            ".ipBlock.except[0]: `10.0.0.1` has no mask",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [null]}}",
            ".ipBlock.except[0]: is null",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: 10.0.0.1/32}}",
            ".ipBlock.except: is a text where a list belongs",
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, exept: []}}",
            ".ipBlock.exept: is an unknown field: did you mean `except`?",
        ),
        ("[]", ": is a list where a mapping belongs"),
    ] {
        for (direction, list) in [("ingress", "from"), ("egress", "to")] {
            let found = errors(&format!("{{{direction}: [{{{list}: [{text}]}}]}}"));
            let message = format!("spec.{direction}[0].{list}[0]{message}");
            assert!(
                found.len() == 1 && found[0].starts_with(&message),
                "{text}: {found:#?}\n{message}"
            );
        }
    }
}

#[test]
fn selectors_become_sets_of_requirements() {
    let selector = |text: &str| spec(&format!("{{podSelector: {text}}}")).pods.clone();
    let values = |values: &[&str]| values.iter().map(|it| Text::from(*it)).collect();
    let wanted = [
        Requirement::In("a".into(), values(&["1"])),
        Requirement::In("b".into(), values(&["x", "y"])),
        Requirement::NotIn("x.io/c".into(), values(&[""])),
        Requirement::Exists("d".into()),
        Requirement::DoesNotExist("e".into()),
    ];
    let text = "{matchLabels: {a: '1'}, matchExpressions: [{key: b, operator: In, values: [y, x, x]}, \
        {key: x.io/c, operator: NotIn, values: ['']}, {key: d, operator: Exists}, {key: d, operator: Exists, values: []}, \
        {key: e, operator: DoesNotExist, values: null}]}";
    assert_eq!(selector(text).requirements, wanted.into_iter().collect());
    for text in [
        "{}",
        "null",
        "{matchLabels: {}, matchExpressions: []}",
        "{matchLabels: null, matchExpressions: null}",
    ] {
        assert_eq!(selector(text), Selector::default(), "{text}");
    }
    assert_eq!(
        selector("{matchLabels: {a: null}}"),
        selector("{matchLabels: {a: ''}}")
    );
    let long = "a".repeat(63);
    selector(&format!(
        "{{matchLabels: {{{long}: {long}, A.b_c-d: E.f_g-h}}}}"
    ));
}

#[test]
fn wrong_selectors_are_refused_by_field() {
    let long = "a".repeat(64);
    let long_prefix = "a".repeat(254);
    for (text, message) in [
        (
            "{matchLabels: {a: 1}}".to_owned(),
            ".matchLabels.a: is a number where a text belongs: put it in quotes",
        ),
        (
            "{matchLabels: {a: yes}}".to_owned(),
            ".matchLabels.a: is a truth value where a text",
        ),
        (
            "{matchLabels: {a: [b]}}".to_owned(),
            ".matchLabels.a: is a list",
        ),
        (
            "{matchLabels: [a]}".to_owned(),
            ".matchLabels: is a list where a mapping belongs",
        ),
        (
            "{matchLabels: {-a: b}}".to_owned(),
            ".matchLabels.-a: `-a` is no label key",
        ),
        (
            "{matchLabels: {'': b}}".to_owned(),
            ".matchLabels.: `` is no label key",
        ),
        (
            "{matchLabels: {/a: b}}".to_owned(),
            ".matchLabels[/a]: `/a` is no label key",
        ),
        (
            "{matchLabels: {a/: b}}".to_owned(),
            ".matchLabels[a/]: `a/` is no label key",
        ),
        (
            "{matchLabels: {a/b/c: d}}".to_owned(),
            ".matchLabels[a/b/c]: ",
        ),
        (
            "{matchLabels: {X.io/b: d}}".to_owned(),
            ".matchLabels[X.io/b]: ",
        ),
        (
            "{matchLabels: {a: b!}}".to_owned(),
            ".matchLabels.a: `b!` is no label value",
        ),
        (
            "{matchLabels: {a: -b}}".to_owned(),
            ".matchLabels.a: `-b` is no label value",
        ),
        (format!("{{matchLabels: {{{long}: b}}}}"), ".matchLabels"),
        (
            format!("{{matchLabels: {{{long_prefix}/a: b}}}}"),
            ".matchLabels",
        ),
        (
            format!("{{matchLabels: {{a: {long}}}}}"),
            ".matchLabels.a: ",
        ),
        (
            "{matchExpressions: [{key: a, operator: In}]}".to_owned(),
            ".matchExpressions[0].values: In and NotIn need",
        ),
        (
            "{matchExpressions: [{key: a, operator: In, values: []}]}".to_owned(),
            ".matchExpressions[0].values: In and",
        ),
        (
            "{matchExpressions: [{key: a, operator: NotIn, values: null}]}".to_owned(),
            ".matchExpressions[0].values: In and",
        ),
        (
            "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}".to_owned(),
            ".matchExpressions[0].values: Exists and",
        ),
        (
            "{matchExpressions: [{key: a, operator: DoesNotExist, values: [b]}]}".to_owned(),
            ".matchExpressions[0].values: Exists",
        ),
        (
            "{matchExpressions: [{key: a, operator: in, values: [b]}]}".to_owned(),
            ".matchExpressions[0].operator: `in` is unknown: did you mean In?",
        ),
        (
            "{matchExpressions: [{key: a, operator: Gt, values: ['1']}]}".to_owned(),
            ".matchExpressions[0].operator: `Gt`",
        ),
        (
            "{matchExpressions: [{key: a}]}".to_owned(),
            ".matchExpressions[0].operator: is missing",
        ),
        (
            "{matchExpressions: [{operator: Exists}]}".to_owned(),
            ".matchExpressions[0].key: is missing",
        ),
        (
            "{matchExpressions: [{key: '', operator: Exists}]}".to_owned(),
            ".matchExpressions[0].key: `` is no label key",
        ),
        (
            "{matchExpressions: [{key: a, operator: In, values: [b, c d]}]}".to_owned(),
            ".matchExpressions[0].values[1]: `c d`",
        ),
        (
            "{matchExpressions: [{key: a, operator: In, values: [1]}]}".to_owned(),
            ".matchExpressions[0].values[0]: is a number",
        ),
        (
            "{matchExpressions: {key: a}}".to_owned(),
            ".matchExpressions: is a mapping where a list",
        ),
        (
            "{matchLabel: {a: b}}".to_owned(),
            ".matchLabel: is an unknown field: did you mean `matchLabels`?",
        ),
        (
            "{app: web}".to_owned(),
            ".app: is an unknown field: remove it (known here: matchLabels, matchExpressions)",
        ),
        ("web".to_owned(), ": is a text where a mapping"),
    ] {
        let places = [
            (format!("{{podSelector: {text}}}"), "spec.podSelector"),
            (
                format!("{{egress: [{{to: [{{podSelector: {text}}}]}}]}}"),
                "spec.egress[0].to[0].podSelector",
            ),
            (
                format!("{{ingress: [{{from: [{{namespaceSelector: {text}}}]}}]}}"),
                "spec.ingress[0].from[0].namespaceSelector",
            ),
        ];
        for (spec, place) in places {
            let found = errors(&spec);
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("{place}{message}")),
                "{text}: {found:#?}"
            );
        }
    }
}

#[test]
fn wrong_specs_are_refused_by_field() {
    for (text, message) in [
        (
            "{policyTypes: [Ingress, Egress, Ingress]}",
            "spec.policyTypes: has more than two entries",
        ),
        (
            "{policyTypes: [ingress]}",
            "spec.policyTypes[0]: `ingress` is unknown: did you mean Ingress?",
        ),
        (
            "{policyTypes: [Ingress, Both]}",
            "spec.policyTypes[1]: `Both` is unknown",
        ),
        ("{policyTypes: [null]}", "spec.policyTypes[0]: is null"),
        (
            "{policyTypes: Ingress}",
            "spec.policyTypes: is a text where a list belongs",
        ),
        (
            "{priority: 5}",
            "spec.priority: a NetworkPolicy has no priority",
        ),
        (
            "{tier: Admin}",
            "spec.tier: a NetworkPolicy has no priority",
        ),
        (
            "{ingres: []}",
            "spec.ingres: is an unknown field: did you mean `ingress`?",
        ),
        (
            "{podselector: {}}",
            "spec.podselector: is an unknown field: did you mean `podSelector`?",
        ),
        (
            "{types: [Ingress]}",
            "spec.types: is an unknown field: remove it",
        ),
        (
            "{ingress: {}}",
            "spec.ingress: is a mapping where a list belongs",
        ),
        (
            "{ingress: [[]]}",
            "spec.ingress[0]: is a list where a mapping",
        ),
        (
            "{ingress: [{to: []}]}",
            "spec.ingress[0].to: is an unknown field",
        ),
        (
            "{egress: [{from: []}]}",
            "spec.egress[0].from: is an unknown field",
        ),
        (
            "{ingress: [{port: 80}]}",
            "spec.ingress[0].port: is an unknown field: did you mean `ports`?",
        ),
        (
            "{ingress: [{from: {podSelector: {}}}]}",
            "spec.ingress[0].from: is a mapping where a list",
        ),
        (
            "{policyTypes: [Egress], ingress: [{from: [{}]}]}",
            "spec.ingress[0].from[0]: says no peer",
        ),
        ("[]", "spec: is a list where a mapping belongs"),
    ] {
        let found = errors(text);
        assert!(
            found.len() == 1 && found[0].starts_with(message),
            "{text}: {found:#?}"
        );
    }
    let unknown: String = (0..100).map(|at| format!("k{at}: 1, ")).collect();
    assert_eq!(errors(&format!("{{{unknown}}}")).len(), 65);
}

#[test]
fn every_fault_of_a_policy_is_told_with_its_line() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec:\n  \
        ingress:\n  - ports:\n    - port: 80\n    - port: 90\n      endPort: 80\n  - from:\n    - {}\n";
    let loaded = load("policies.d/a.yaml", text.as_bytes());
    assert_eq!(
        shown(&loaded),
        [
            "policies.d/a.yaml:11: NetworkPolicy shop/p: spec.ingress[0].ports[1].endPort: 80 is below `port` 90: swap them",
            "policies.d/a.yaml:13: NetworkPolicy shop/p: spec.ingress[1].from[0]: says no peer: name podSelector, \
             namespaceSelector or ipBlock; {} selects everything of its kind",
        ]
    );
}

#[test]
fn rules_know_their_lines() {
    let policy = spec(
        "\n  ingress:\n  - {}\n  -\n    ports: [{port: 1}]\n  egress:\n  - to:\n    - podSelector: {}",
    );
    let lines = |rules: &Option<Vec<Rule>>| {
        rules
            .as_ref()
            .unwrap()
            .iter()
            .map(|rule| rule.source.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&policy.ingress), ["f.yaml:6", "f.yaml:8"]);
    assert_eq!(lines(&policy.egress), ["f.yaml:10"]);
}
