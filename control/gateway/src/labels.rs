//! Which pods belong to which class: label selectors of classes over the manifests in force.
//!
//! Called by the daemon at the start and after each reload, of manifests or of classes. Matching is done here, once; a
//! worker only looks addresses up. A pod on its node's network has its node's address and is named by no selector, as
//! with policies.

use std::collections::BTreeMap;

use patronus_config::Classes;
use patronus_engine::PodSets;
use patronus_path::ClassId;
use patronus_policy::manifest::Object;
use patronus_policy::model::{Labels, NAMESPACE_NAME_LABEL, Text};

use crate::policy::{Objects, PolicyInForce};

/// The pods that classes name.
pub fn pod_sets(classes: &Classes, objects: &Objects) -> PodSets {
    let asking = classes.iter().enumerate();
    let asking: Vec<_> = asking.filter(|(_, class)| !class.pods.is_empty()).collect();
    if asking.is_empty() {
        return PodSets::default();
    }
    let namespaces = namespaces(objects);
    let mut members = Vec::new();
    for object in objects.values() {
        let Object::Pod(_, pod) = object else {
            continue;
        };
        if pod.host_network {
            continue;
        }
        let unlisted;
        let namespace = match namespaces.get(&pod.id.namespace) {
            Some(labels) => labels,
            None => {
                unlisted = named(&pod.id.namespace, Labels::new());
                &unlisted
            }
        };
        for (at, class) in &asking {
            if class.pods.matches(&pod.labels, namespace) {
                let class = ClassId(*at as u8);
                members.extend(pod.ips.iter().map(|addr| (*addr, class)));
            }
        }
    }
    PodSets::new(members)
}

/// What an operator has to know about classes that ask for labels, one line each.
pub fn warnings(classes: &Classes, in_force: &PolicyInForce, pods: &PodSets) -> Vec<String> {
    let asking = classes.iter().enumerate();
    let asking = asking.filter(|(_, class)| !class.pods.is_empty());
    let idle = asking.filter(|(at, _)| pods.count(ClassId(*at as u8)) == 0);
    let why = match in_force.has_policy {
        true => "no pod of the manifests in force has such labels and an address of its own",
        false => {
            "there are no manifests: put those of the pods into the folder of [policy] directory"
        }
    };
    let lines = idle.map(|(_, class)| {
        format!(
            "[class.{}] labels: nothing belongs to it by labels: {why}",
            class.name
        )
    });
    lines.collect()
}

/// The labels of each namespace that has a manifest.
fn namespaces(objects: &Objects) -> BTreeMap<Text, Labels> {
    let all = objects.values().filter_map(|object| match object {
        Object::Namespace(_, it) => Some((it.name.clone(), named(&it.name, it.labels.clone()))),
        Object::Pod(..)
        | Object::Node(..)
        | Object::NetworkPolicy(_)
        | Object::ClusterNetworkPolicy(_) => None,
    });
    all.collect()
}

/// With the label that every namespace carries.
fn named(name: &Text, mut labels: Labels) -> Labels {
    labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use patronus_config::Config;
    use patronus_engine::{ClassTable, OpenedBy};
    use patronus_packet::FlowKey;
    use patronus_policy::manifest::load;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::paths::PathPlan;

    const SITE: &str = "[site]\nname = \"hq\"\nprivate_key_file = \"key\"\n";
    const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";

    fn classes(text: &str) -> Classes {
        let draft = Config::parse(&format!("{SITE}{text}"), "test").unwrap();
        draft
            .resolve(|_| Ok(KEY.to_owned().into()))
            .unwrap()
            .classes
    }

    fn objects(text: &str) -> Objects {
        let loaded = load("test.yaml", text.as_bytes());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let objects = loaded.objects.into_iter();
        objects.map(|it| (it.reference(), it)).collect()
    }

    /// The table as workers get it.
    fn table(classes: &Classes, objects: &Objects) -> ClassTable {
        let mut table = PathPlan::new(Vec::new(), classes).config().classes;
        table.pods = pod_sets(classes, objects);
        table
    }

    fn class_of(table: &ClassTable, src: &str, dst: &str, (port, dscp): (u16, u8)) -> String {
        let key = FlowKey {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: 6,
            src_port: 40_000,
            dst_port: port,
        };
        let id = table.classify(&key, OpenedBy::Local, dscp);
        table.configs[id.as_usize()].name.clone()
    }

    const PODS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: sales, labels: {team: front}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: phone, namespace: sales, labels: {app: voip}}, spec: {}, status: {podIPs: [{ip: 10.1.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: phone, namespace: plant, labels: {app: voip, floor: "2"}}, spec: {}, status: {podIPs: [{ip: 10.2.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: mail, namespace: plant, labels: {app: mail}}, spec: {}, status: {podIPs: [{ip: 10.2.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: plant, labels: {app: voip}}, spec: {hostNetwork: true}, status: {podIPs: [{ip: 10.2.0.254}]}}
"#;

    #[test]
    fn a_pod_at_either_end_brings_a_flow_into_the_class_that_names_it() {
        let classes = classes(
            "[class.voip]\nlabels = [\"app=voip,!floor\", \"floor in (1, 2)\"]\n\
             [class.front]\nnamespaces = \"team=front\"\n\
             [class.realtime]\nlabels = [\"app=mail\"]\nremote = [\"10.2.0.0/16\"]\n",
        );
        let table = table(&classes, &objects(PODS));
        let plain = (443, 0);
        for (src, dst, port_and_dscp, class) in [
            ("10.1.0.1", "10.9.0.9", plain, "voip"),
            ("10.9.0.9", "10.1.0.1", plain, "voip"),
            ("fd00::1", "fd00:9::9", plain, "voip"),
            ("10.9.0.9", "10.2.0.1", plain, "voip"),
            // A class of the operator's own is asked before the usual ones, whatever the packet says.
            ("10.1.0.1", "10.9.0.9", (22, 46), "voip"),
            // By labels beside DSCP and ports, not only where those fit; its ends restrict all of them.
            ("10.9.0.9", "10.2.0.2", plain, "realtime"),
            ("10.2.0.2", "10.9.0.9", plain, "default"),
            ("10.2.0.2", "10.9.0.9", (22, 0), "interactive"),
            // On its node's network a pod is an address like any other.
            ("10.9.0.9", "10.2.0.254", plain, "default"),
            ("10.9.0.9", "10.9.0.8", plain, "default"),
        ] {
            assert_eq!(
                class_of(&table, src, dst, port_and_dscp),
                class,
                "{src} {dst}"
            );
        }
        // Two classes name the first pod: the one that stands first has it.
        let front = ClassId(5);
        assert!(table.pods.has(front, "10.1.0.1".parse().unwrap()));
        assert_eq!(
            (table.pods.count(ClassId(4)), table.pods.count(front)),
            (3, 2)
        );
    }

    #[test]
    fn a_namespace_without_a_manifest_goes_by_its_name() {
        let named = "kubernetes.io/metadata.name=plant";
        let classes = classes(&format!(
            "[class.plant]\nnamespaces = \"{named}\"\nlabels = [\"app\"]\n"
        ));
        let table = table(&classes, &objects(PODS));
        assert_eq!(class_of(&table, "10.2.0.2", "10.9.0.9", (443, 0)), "plant");
        assert_eq!(
            class_of(&table, "10.1.0.1", "10.9.0.9", (443, 0)),
            "default"
        );
    }

    #[test]
    fn a_class_whose_labels_nobody_has_is_told() {
        let classes =
            classes("[class.a]\nlabels = [\"app=voip\"]\n[class.b]\nlabels = [\"app=fax\"]\n");
        let mut store = crate::policy::PolicyStore::new(1);
        let told = |store: &crate::policy::PolicyStore| {
            let in_force = store.in_force();
            warnings(&classes, in_force, &pod_sets(&classes, &in_force.objects))
        };
        let before = told(&store);
        assert_eq!(before.len(), 2);
        assert!(
            before[0].starts_with("[class.a] labels: nothing belongs"),
            "{before:?}"
        );
        assert!(before[0].contains("there are no manifests"), "{before:?}");
        store.apply(load("test.yaml", PODS.as_bytes()));
        let after = told(&store);
        assert_eq!(after.len(), 1);
        assert!(after[0].starts_with("[class.b] labels"), "{after:?}");
    }

    /// A pod of the random test: its namespace, labels and addresses, all by number.
    type Drawn = (u8, Vec<(u8, u8)>, Vec<u8>, bool);

    fn addr(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn pod_text(name: usize, (namespace, labels, addrs, host_network): &Drawn) -> String {
        let labels: BTreeMap<u8, u8> = labels.iter().copied().collect();
        let labels = labels
            .iter()
            .map(|(key, value)| format!("k{key}: v{value}"));
        let addrs: BTreeSet<u8> = addrs.iter().copied().collect();
        let ips = addrs
            .iter()
            .take(1)
            .map(|it| format!("{{ip: {}}}", addr(*it)));
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{name}, namespace: n{namespace}, labels: {{{}}}}}, \
             spec: {{hostNetwork: {host_network}}}, status: {{podIPs: [{}]}}}}\n",
            labels.collect::<Vec<_>>().join(", "),
            ips.collect::<Vec<_>>().join(", "),
        )
    }

    /// One requirement: `k0=v1`, `k0!=v1`, `k0` or `!k0`.
    type Wanted = (u8, u8, u8);

    fn requirement((key, value, form): &Wanted) -> String {
        match form {
            0 => format!("k{key}=v{value}"),
            1 => format!("k{key}!=v{value}"),
            2 => format!("k{key}"),
            _ => format!("!k{key}"),
        }
    }

    fn holds((key, value, form): &Wanted, labels: &BTreeMap<u8, u8>) -> bool {
        let own = labels.get(key);
        match form {
            0 => own == Some(value),
            1 => own != Some(value),
            2 => own.is_some(),
            _ => own.is_none(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Every pair of addresses has the class that one finds who reads pods and classes one by one.
        #[test]
        fn classes_by_labels_agree_with_one_who_reads_everything(
            pods in vec((0u8..3, vec((0u8..3, 0u8..3), 0..3), vec(0u8..6, 1..2), prop::bool::weighted(0.1)), 0..6),
            asked in vec((vec(vec((0u8..3, 0u8..3, 0u8..4), 1..3), 0..3), prop::option::of(0u8..3)), 1..4),
        ) {
            let mut text = String::new();
            for (at, (selectors, namespace)) in asked.iter().enumerate() {
                let list: Vec<String> = selectors
                    .iter()
                    .map(|all| all.iter().map(requirement).collect::<Vec<_>>().join(","))
                    .collect();
                text += &format!("[class.c{at}]\nlabels = {list:?}\n");
                if let Some(namespace) = namespace {
                    text += &format!("namespaces = \"kubernetes.io/metadata.name=n{namespace}\"\n");
                }
            }
            let documents = pods.iter().enumerate().map(|(at, pod)| pod_text(at, pod));
            let documents: Vec<String> = documents.collect();
            let table = table(&classes(&text), &objects(&documents.join("---\n")));
            for (src, dst) in (0..6).flat_map(|src| (0..6).map(move |dst| (src, dst))) {
                let names = |(selectors, namespace): &(Vec<Vec<Wanted>>, Option<u8>)| {
                    pods.iter().any(|(home, labels, addrs, host_network)| {
                        let labels: BTreeMap<u8, u8> = labels.iter().copied().collect();
                        let is_end = addrs.contains(&src) || addrs.contains(&dst);
                        let by_labels = selectors.is_empty()
                            || selectors.iter().any(|all| all.iter().all(|it| holds(it, &labels)));
                        let by_home = namespace.is_none_or(|it| it == *home);
                        let asks = !selectors.is_empty() || namespace.is_some();
                        !host_network && is_end && asks && by_labels && by_home
                    })
                };
                let expected = match asked.iter().position(names) {
                    Some(at) => format!("c{at}"),
                    None => "default".to_owned(),
                };
                let found = class_of(&table, &addr(src).to_string(), &addr(dst).to_string(), (443, 0));
                prop_assert_eq!(found, expected, "{} {} of\n{}{:?}", src, dst, text, documents);
            }
        }
    }
}
