//! From uplinks, addresses and classes as configured to what workers are told about paths.

use std::net::SocketAddr;

use patronus_config::{Class, Classes, Name, Ports, Uplink};
use patronus_engine::{ClassRule, ClassTable, PathsConfig, PortRange};
use patronus_packet::UplinkId;
use patronus_path::observation::PathProfile;
use patronus_path::prober::UplinkProfile;
use patronus_path::{Cadence, ClassConfig, ClassId, PATHS_MAX, PathSpec};

/// The uplinks with their numbers, and the classes.
#[derive(Clone, Debug, Default)]
pub struct PathPlan {
    uplinks: Vec<PlannedUplink>,
    classes: ClassTable,
}

/// An uplink as paths over it see it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedUplink {
    /// Its number; [`UplinkId::ANY`] for a lone one, which has nothing to be told from.
    pub id: UplinkId,
    /// As configured.
    pub uplink: Uplink,
    /// Which families it has or may yet have addresses of.
    pub carries: Carries,
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Carries {
    /// Both, as far as anybody knows.
    pub const ALL: Self = Self { v4: true, v6: true };

    fn reaches(self, remote: SocketAddr) -> bool {
        if remote.is_ipv6() { self.v6 } else { self.v4 }
    }
}

impl PathPlan {
    /// The plan of a gateway with these uplinks and classes.
    pub fn new(uplinks: Vec<PlannedUplink>, classes: &Classes) -> Self {
        let classes = class_table(&uplinks, classes);
        Self { uplinks, classes }
    }

    /// What all workers are told.
    pub fn config(&self) -> PathsConfig {
        PathsConfig {
            uplinks: self.uplinks.iter().map(profile).collect(),
            classes: self.classes.clone(),
        }
    }

    /// The paths to a peer with these addresses and their costs: every uplink to every address that it can reach, at
    /// most [`PATHS_MAX`].
    pub fn specs(&self, remotes: &[(SocketAddr, u16)]) -> Vec<PathSpec> {
        let pairs = self.uplinks.iter().flat_map(|uplink| {
            let reached = remotes.iter().filter(|(to, _)| uplink.carries.reaches(*to));
            reached.map(move |(to, cost)| (uplink, *to, *cost))
        });
        let specs = pairs.map(|(planned, remote, cost)| PathSpec {
            uplink: planned.id.0,
            remote,
            profile: PathProfile {
                name: path_name(&planned.uplink.name, remote, remotes),
                uplink: planned.id.0,
                remote: None,
                cost: planned.uplink.cost.saturating_add(cost),
                capacity_bps: planned.uplink.up.map(|rate| rate.bps()),
                is_metered: planned.uplink.is_metered,
            },
            cadence: cadence(&planned.uplink),
        });
        specs.take(PATHS_MAX).collect()
    }
}

/// The uplink's name, and the peer's address where it has several.
fn path_name(uplink: &Name, remote: SocketAddr, remotes: &[(SocketAddr, u16)]) -> String {
    let of_host = |ip| remotes.iter().filter(move |(to, _)| to.ip() == ip).count();
    match (remotes.len(), of_host(remote.ip())) {
        (0 | 1, _) => uplink.to_string(),
        (_, 0 | 1) => format!("{uplink}>{}", remote.ip()),
        (_, _) => format!("{uplink}>{remote}"),
    }
}

fn profile(planned: &PlannedUplink) -> UplinkProfile {
    let uplink = &planned.uplink;
    UplinkProfile {
        uplink: planned.id.0,
        name: uplink.name.to_string(),
        cost: uplink.cost,
        up_bps: uplink.up.map(|rate| rate.bps()),
        down_bps: uplink.down.map(|rate| rate.bps()),
        is_metered: uplink.is_metered,
        cadence: cadence(uplink),
    }
}

fn cadence(uplink: &Uplink) -> Cadence {
    Cadence {
        active: uplink.probing.active,
        idle: uplink.probing.idle,
        multiplier: uplink.probing.multiplier,
    }
}

fn class_table(uplinks: &[PlannedUplink], classes: &Classes) -> ClassTable {
    let number_of = |name: &Name| {
        let found = uplinks.iter().find(|planned| planned.uplink.name == *name);
        found.map(|planned| planned.id.0)
    };
    let configs = classes.iter().map(|class| ClassConfig {
        name: class.name.to_string(),
        latency_ms: class.latency_ms,
        jitter_ms: class.jitter_ms,
        loss_pct: class.loss_pct,
        scoring: class.scoring,
        protect: class.protect,
        prefer: class.prefer.iter().filter_map(number_of).collect(),
    });
    ClassTable {
        configs: configs.collect(),
        rules: classes
            .by_order()
            .flat_map(|(at, class)| class_rules(ClassId(at as u8), class))
            .collect(),
        default: ClassId(classes.default_class() as u8),
    }
}

/// What belongs to a class by its DSCP, and what does by its port: two rules, since the conditions of one all hold.
/// Its ends restrict both, and are a rule by themselves where there is nothing else.
fn class_rules(id: ClassId, class: &Class) -> Vec<ClassRule> {
    let ends = ClassRule {
        class: id,
        local: class.local.clone(),
        remote: class.remote.clone(),
        ..ClassRule::default()
    };
    let mut rules = Vec::new();
    if class.dscp != 0 {
        rules.push(ClassRule {
            dscp: class.dscp,
            ..ends.clone()
        });
    }
    if !class.ports.is_empty() {
        rules.push(ClassRule {
            ports: class.ports.iter().map(port_range).collect(),
            ..ends.clone()
        });
    }
    let has_ends = !(class.local.is_empty() && class.remote.is_empty());
    if rules.is_empty() && has_ends {
        rules.push(ends);
    }
    rules
}

fn port_range(ports: &Ports) -> PortRange {
    PortRange {
        protocol: ports.protocol,
        first: ports.first,
        last: ports.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_config::Config;
    use patronus_engine::OpenedBy;
    use patronus_packet::FlowKey;

    const SITE: &str = "[site]\nname = \"hq\"\nprivate_key_file = \"key\"\n";
    const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";

    fn config(text: &str) -> Config {
        let draft = Config::parse(&format!("{SITE}{text}"), "test").unwrap();
        draft.resolve(|_| Ok(KEY.to_owned().into())).unwrap()
    }

    fn plan(text: &str, carries: &[Carries]) -> PathPlan {
        let config = config(text);
        let uplinks = config.uplinks.iter().zip(carries).enumerate();
        let planned = uplinks.map(|(at, (uplink, carries))| PlannedUplink {
            id: UplinkId(at as u8),
            uplink: uplink.clone(),
            carries: *carries,
        });
        PathPlan::new(planned.collect(), &config.classes)
    }

    const TWO: &str = "[[uplink]]\nname = \"fiber\"\ninterface = \"eth0\"\nup_mbit = 500\n\
                       [[uplink]]\nname = \"lte\"\ninterface = \"wwan0\"\ncost = 100\nmetered = true\n";

    fn names(plan: &PathPlan, remotes: &[&str]) -> Vec<(String, u16)> {
        let remotes: Vec<(SocketAddr, u16)> = remotes
            .iter()
            .zip([0, 5, 7])
            .map(|(remote, cost)| (remote.parse().unwrap(), cost))
            .collect();
        let specs = plan.specs(&remotes).into_iter();
        specs
            .map(|spec| (spec.profile.name, spec.profile.cost))
            .collect()
    }

    #[test]
    fn every_uplink_to_every_address_that_it_can_reach_is_a_path() {
        let only_v4 = Carries {
            v4: true,
            v6: false,
        };
        let plan = plan(TWO, &[Carries::ALL, only_v4]);
        let named = |list: &[(&str, u16)]| -> Vec<(String, u16)> {
            list.iter()
                .map(|(name, cost)| ((*name).to_owned(), *cost))
                .collect()
        };
        assert_eq!(
            names(&plan, &["192.0.2.1:1"]),
            named(&[("fiber", 10), ("lte", 100)])
        );
        assert_eq!(
            names(&plan, &["192.0.2.1:1", "[2001:db8::1]:1"]),
            named(&[
                ("fiber>192.0.2.1", 10),
                ("fiber>2001:db8::1", 15),
                ("lte>192.0.2.1", 100)
            ])
        );
        assert_eq!(
            names(&plan, &["192.0.2.1:1", "192.0.2.1:2"])[1],
            ("fiber>192.0.2.1:2".to_owned(), 15)
        );
        assert_eq!(names(&plan, &[]), []);
        let specs = plan.specs(&[("192.0.2.1:1".parse().unwrap(), 0)]);
        assert_eq!(specs[0].profile.capacity_bps, Some(500e6));
        assert_eq!(
            specs
                .iter()
                .map(|spec| spec.cadence.active.as_millis())
                .collect::<Vec<_>>(),
            [50, 200]
        );
        assert!(specs[1].profile.is_metered);
    }

    #[test]
    fn a_flow_belongs_to_a_class_by_dscp_or_port_and_its_ends_and_the_operators_own_come_first() {
        let text = format!(
            "{TWO}[class.realtime]\nports = [\"udp/16384-32767\"]\nprefer = [\"lte\"]\n\
             [class.backup]\nremote = [\"10.9.0.0/16\"]\n[class.bulk]\ndefault = true\n"
        );
        let plan = plan(&text, &[Carries::ALL; 2]);
        let table = plan.config().classes;
        let class_of = |dst: &str, protocol, port, dscp| {
            let key = FlowKey {
                src: "10.1.0.1".parse().unwrap(),
                dst: dst.parse().unwrap(),
                protocol,
                src_port: 40_000,
                dst_port: port,
            };
            let id = table.classify(&key, OpenedBy::Local, dscp);
            table.configs[id.as_usize()].name.clone()
        };
        assert_eq!(class_of("10.2.0.1", 17, 20_000, 0), "realtime");
        assert_eq!(class_of("10.2.0.1", 6, 20_000, 46), "realtime");
        assert_eq!(class_of("10.2.0.1", 6, 22, 0), "interactive");
        assert_eq!(class_of("10.9.0.1", 6, 22, 46), "backup");
        assert_eq!(class_of("10.2.0.1", 6, 443, 0), "bulk");
        assert_eq!(table.configs[0].prefer, [1]);
    }
}
