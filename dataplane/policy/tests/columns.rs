//! A class that comes, goes or changes is brought up to date in the rows that know it, and those are not compiled
//! anew. Every verdict between all ends is as in tables compiled from nothing, and as the reference says.

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use patronus_policy::model::*;
use patronus_policy::{Compiler, PolicyTable};
use support::*;

const NAMESPACES: [&str; 6] = ["n0", "n1", "n2", "n3", "n4", "n5"];
/// Inside blocks, inside their exceptions, and in neither.
const OUTSIDE: [&str; 4] = ["10.9.0.1", "10.9.1.1", "10.9.1.129", "192.0.2.1"];
/// More than are brought up to date one by one.
const MANY: u16 = 80;

/// What a table says of everybody.
type Said = Vec<(Connection, Told)>;

/// A cluster compiled change by change, beside its objects.
struct Twin {
    cluster: Cluster,
    compiler: Compiler,
    /// Tables that a worker may still hold, with what they said when they were new.
    held: Vec<(Arc<PolicyTable>, Said)>,
}

impl Twin {
    fn new() -> Self {
        let mut twin = Self {
            cluster: Cluster::default(),
            compiler: Compiler::new(1),
            held: Vec::new(),
        };
        twin.apply(cluster());
        twin
    }

    /// Applies a burst and compares everything; whether anybody is judged otherwise than before.
    fn apply(&mut self, burst: Vec<Change>) -> bool {
        for change in burst.iter().cloned() {
            self.cluster.apply(change);
        }
        self.compiler.apply(burst);
        let table = self.compiler.table();
        let fresh = Compiler::fresh(2, self.cluster.changes()).table();
        let connections = self.connections();
        let mut says = Vec::with_capacity(connections.len());
        for conn in connections {
            let told_here = told(&table, &conn);
            assert_eq!(told_here, told(&fresh, &conn), "{conn:?}");
            let expected = self.cluster.allows(&conn, false);
            assert_eq!(told_here.0, expected, "{conn:?}");
            says.push((conn, told_here));
        }
        assert_eq!(sizes(&table), sizes(&fresh));
        for (old, said) in &self.held {
            for (conn, said) in said {
                assert_eq!(told(old, conn), *said, "a table changed: {conn:?}");
            }
        }
        let changed = self.held.last().is_none_or(|it| it.1 != says);
        self.held.push((table, says));
        changed
    }

    /// Room for peers in all rows; grows with the classes that rows list.
    fn peers(&self) -> usize {
        self.compiler.table().stats().peers
    }

    /// From everybody to everybody, on every port that rules tell apart. A class of many is tried once.
    fn connections(&self) -> Vec<Connection> {
        let pods = self.cluster.pods.values();
        let pods = pods.filter(|it| !it.id.name.starts_with("many-") || it.id.name.ends_with('7'));
        let mut ends: BTreeSet<IpAddr> = pods.flat_map(|it| it.ips.clone()).collect();
        ends.extend(OUTSIDE.map(ip));
        let mut all = Vec::new();
        for (src, dst) in ends
            .iter()
            .flat_map(|src| ends.iter().map(move |dst| (src, dst)))
        {
            for (protocol, dst_port) in [(6, 80), (6, 8443), (6, 9443), (17, 53), (1, 0)] {
                all.push(Connection {
                    src: *src,
                    dst: *dst,
                    protocol,
                    dst_port,
                });
            }
        }
        all
    }
}

fn pod(namespace: &str, pod: &str, addr: &str, of: &[(&str, &str)], https: u16) -> Change {
    Change::SetPod(Pod {
        id: name(namespace, pod),
        labels: labels(of),
        node: None,
        ips: vec![ip(addr)],
        host_network: false,
        ports: vec![ContainerPort {
            name: Some(text("https")),
            number: https,
            protocol: Protocol::Tcp,
        }],
    })
}

fn without_ports(change: Change) -> Change {
    let Change::SetPod(pod) = change else {
        panic!("a pod")
    };
    let ports = Vec::new();
    Change::SetPod(Pod { ports, ..pod })
}

fn namespace(of: &str, team: &str) -> Change {
    Change::SetNamespace(Namespace {
        name: text(of),
        labels: labels(&[("team", team)]),
    })
}

fn policy(
    namespace: &str,
    of: &str,
    app: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Change {
    Change::SetPolicy(Arc::new(NetworkPolicy {
        id: name(namespace, of),
        source: source(1),
        mode: Mode::Enforce,
        pods: selector(&[("app", app)]),
        ingress,
        egress,
    }))
}

fn rule(peers: Option<Vec<Peer>>, ports: Option<Vec<PortMatch>>) -> Rule {
    Rule {
        source: source(2),
        peers,
        ports,
    }
}

fn own(app: &str) -> Peer {
    Peer::Pods {
        namespaces: None,
        pods: Some(selector(&[("app", app)])),
    }
}

fn team(team: &str, pods: Option<Selector>) -> Peer {
    Peer::Pods {
        namespaces: Some(selector(&[("team", team)])),
        pods,
    }
}

/// Every host of 10.9.0.0/16 but for half of 10.9.1.0/24.
fn block() -> Peer {
    let prefix = |it: &str| it.parse().expect("a prefix");
    Peer::Block {
        cidr: prefix("10.9.0.0/16"),
        except: vec![prefix("10.9.1.0/25")],
    }
}

fn https() -> PortMatch {
    PortMatch::Named {
        protocol: Some(Protocol::Tcp),
        name: text("https"),
    }
}

fn dns() -> PortMatch {
    PortMatch::Any(Protocol::Udp)
}

fn web() -> PortMatch {
    PortMatch::Range {
        protocol: Protocol::Tcp,
        first: 80,
        last: 80,
    }
}

/// Six namespaces of two teams, each with the same pods and policies: selectors of the own namespace and of teams,
/// alone and beside blocks, ports by number, by name on the subject and by name on the peer.
fn cluster() -> Vec<Change> {
    let mut all = Vec::new();
    for (at, of) in NAMESPACES.into_iter().enumerate() {
        all.push(namespace(of, if at % 2 == 0 { "a" } else { "b" }));
        let addr = |host: usize| format!("10.{at}.0.{host}");
        all.push(pod(of, "till", &addr(1), &[("app", "till")], 8443));
        all.push(pod(of, "api", &addr(2), &[("app", "api")], 8443));
        all.push(pod(of, "db", &addr(3), &[("app", "db")], 9443));
        let db_of_b = team("b", Some(selector(&[("app", "db")])));
        let ingress = vec![
            rule(
                Some(vec![own("till"), team("a", None)]),
                Some(vec![https()]),
            ),
            rule(
                Some(vec![db_of_b.clone(), block()]),
                Some(vec![web(), dns()]),
            ),
        ];
        all.push(policy(of, "ingress", "api", Some(ingress), None));
        let egress = vec![
            rule(Some(vec![team("a", None), block()]), Some(vec![https()])),
            rule(Some(vec![db_of_b]), None),
        ];
        all.push(policy(of, "egress", "till", None, Some(egress)));
        let anywhere = vec![rule(None, Some(vec![https()]))];
        all.push(policy(of, "named", "db", None, Some(anywhere)));
    }
    all
}

fn delete(namespace: &str, pod: &str) -> Change {
    Change::DeletePod(name(namespace, pod))
}

#[test]
fn a_new_class_that_many_rows_know_is_judged_as_if_compiled_from_nothing() {
    let mut twin = Twin::new();
    let rows = twin.compiler.table().stats().rows;
    let peers = twin.peers();
    // By the team's selector and by its port's name; by those and a pod's label; by a label and the name.
    twin.apply(vec![pod("n0", "new", "10.0.0.9", &[("tier", "x")], 443)]);
    assert!(twin.peers() >= peers + rows, "every row lists it");
    twin.apply(vec![pod("n3", "new", "10.3.0.9", &[("app", "db")], 443)]);
    twin.apply(vec![pod("n1", "new", "10.1.0.9", &[("app", "till")], 80)]);
}

#[test]
fn a_new_class_that_no_rule_knows_is_judged_as_if_compiled_from_nothing() {
    let mut twin = Twin::new();
    twin.apply(vec![namespace("alone", "c")]);
    let peers = twin.peers();
    let new = without_ports(pod("alone", "new", "10.7.0.9", &[("app", "db")], 443));
    twin.apply(vec![new.clone()]);
    assert_eq!(twin.peers(), peers, "no row lists it");
    twin.apply(vec![delete("alone", "new")]);
    twin.apply(vec![new]);
    assert_eq!(twin.peers(), peers);
}

#[test]
fn a_class_that_vanishes_and_comes_back_leaves_no_trace() {
    let mut twin = Twin::new();
    let before = sizes(&twin.compiler.table());
    for (of, addr) in [("n0", "10.0.0.9"), ("n1", "10.1.0.9"), ("n4", "10.9.1.1")] {
        let new = || pod(of, "new", addr, &[("app", "db")], 8443);
        assert!(twin.apply(vec![new()]));
        assert!(twin.apply(vec![delete(of, "new")]));
        assert_eq!(sizes(&twin.compiler.table()), before);
        assert!(twin.apply(vec![new()]));
        // It goes and comes in one burst.
        assert!(!twin.apply(vec![delete(of, "new"), new()]));
        twin.apply(vec![delete(of, "new")]);
    }
}

#[test]
fn a_class_that_takes_over_the_number_of_another_has_its_own_ports() {
    let mut twin = Twin::new();
    let new = |https| pod("n0", "new", "10.0.0.9", &[("app", "api")], https);
    twin.apply(vec![new(443)]);
    for https in [9443, 80, 8443, 443] {
        assert!(twin.apply(vec![new(https)]));
        // The dead class's number is the next one to be given.
        twin.apply(vec![delete("n0", "new")]);
        twin.apply(vec![pod("n2", "new", "10.2.0.9", &[("app", "db")], https)]);
        twin.apply(vec![delete("n2", "new"), new(https)]);
    }
}

#[test]
fn classes_follow_the_labels_of_their_namespace() {
    let mut twin = Twin::new();
    twin.apply(vec![pod("n0", "new", "10.0.0.9", &[("app", "db")], 443)]);
    for team in ["b", "c", "a"] {
        assert!(twin.apply(vec![namespace("n0", team)]));
        assert!(!twin.apply(vec![namespace("n0", team)]));
    }
    // Both at once, with a class that comes and one that goes.
    assert!(twin.apply(vec![
        namespace("n0", "b"),
        namespace("n1", "a"),
        delete("n0", "new"),
        pod("n1", "new", "10.1.0.9", &[("app", "db")], 80),
    ]));
}

#[test]
fn named_ports_of_a_class_follow_its_pods() {
    let mut twin = Twin::new();
    for https in [80, 443, 9443, 8443] {
        twin.apply(vec![pod("n0", "api", "10.0.0.2", &[("app", "api")], https)]);
        twin.apply(vec![pod("n3", "db", "10.3.0.3", &[("app", "db")], https)]);
    }
    let api = pod("n0", "api", "10.0.0.2", &[("app", "api")], 443);
    let db = pod("n3", "db", "10.3.0.3", &[("app", "db")], 443);
    assert!(twin.apply(vec![without_ports(db)]));
    assert!(twin.apply(vec![without_ports(api)]));
}

#[test]
fn a_class_inside_a_block_or_its_exception_has_the_ports_of_both() {
    let mut twin = Twin::new();
    for addr in ["10.9.0.7", "10.9.1.7", "10.9.1.200"] {
        twin.apply(vec![pod("n1", "new", addr, &[("app", "db")], 443)]);
        twin.apply(vec![pod("n1", "new", addr, &[("tier", "x")], 443)]);
        twin.apply(vec![
            pod("n0", "new", addr, &[("tier", "x")], 80),
            delete("n1", "new"),
        ]);
        twin.apply(vec![delete("n0", "new")]);
    }
}

#[test]
fn more_classes_in_a_burst_than_are_patched_one_by_one_are_judged_alike() {
    let mut twin = Twin::new();
    let before = sizes(&twin.compiler.table());
    let each = |make: &dyn Fn(u16) -> Change| (0..MANY).map(make).collect::<Vec<_>>();
    let many = |at: u16| format!("many-{at}");
    let come = |at| {
        let addr = format!("10.0.9.{at}");
        pod("n0", &many(at), &addr, &[("app", "db")], 8400 + at)
    };
    assert!(twin.apply(each(&come)));
    // One by one as well: the tables do not depend on how they came.
    for at in (7..MANY).step_by(10) {
        assert!(twin.apply(vec![delete("n0", &many(at))]));
    }
    twin.apply(each(&|at| delete("n0", &many(at))));
    assert_eq!(sizes(&twin.compiler.table()), before);
}

#[test]
fn a_namespace_of_many_classes_that_changes_sides_takes_its_new_ports() {
    let mut twin = Twin::new();
    let sides = vec![
        rule(Some(vec![team("x", None)]), Some(vec![web()])),
        rule(Some(vec![team("y", None)]), Some(vec![dns()])),
    ];
    let come = |at| {
        let (many, addr) = (format!("many-{at}"), format!("10.8.0.{at}"));
        pod("side", &many, &addr, &[("app", "db")], 8400 + at)
    };
    let mut burst = vec![
        namespace("side", "x"),
        policy("n1", "sides", "api", Some(sides), None),
    ];
    burst.extend((0..MANY).map(come));
    twin.apply(burst);
    // The rows list as many classes and hold as many port sets as before.
    assert!(twin.apply(vec![namespace("side", "y")]));
    assert!(twin.apply(vec![namespace("side", "x")]));
}

#[test]
fn one_name_for_a_port_of_tcp_here_and_of_udp_there_is_kept_apart() {
    let mut twin = Twin::new();
    let udp = PortMatch::Named {
        protocol: Some(Protocol::Udp),
        name: text("https"),
    };
    let both = vec![rule(Some(vec![team("a", None)]), Some(vec![https(), udp]))];
    twin.apply(vec![policy("n1", "both", "api", None, Some(both))]);
    twin.apply(vec![pod("n0", "new", "10.0.0.9", &[], 80)]);
    let Change::SetPod(mut other) = pod("n2", "new", "10.2.0.9", &[], 80) else {
        panic!("a pod")
    };
    other.ports[0].protocol = Protocol::Udp;
    twin.apply(vec![Change::SetPod(other.clone())]);
    other.ports[0].protocol = Protocol::Tcp;
    assert!(twin.apply(vec![Change::SetPod(other)]));
}
