//! What policy costs the packets of flows that are known: the same engine with policy and without, trial by trial.

use std::sync::Arc;

use anyhow::Result;
use patronus_engine::{Policy, Refusal};
use patronus_packet::Prefix;
use patronus_policy::Compiler;
use patronus_policy::model::{
    Change, Mode, NetworkPolicy, ObjectName, Peer, Pod, Rule, Selector, Source,
};

use super::cases::Case;
use super::{Bench, Conduct, Direction};
use crate::report::{Check, Column, Figure, Row};
use crate::traffic::HUB_HOST;

/// The most that policy may cost a known flow, as a multiple of the time without.
pub const KNOWN_FLOW_TARGET: f64 = 1.05;

/// Whether a case is measured with policy too: where a packet is large, with one flow and one peer.
pub(super) fn is_measured(case: &Case) -> bool {
    case.flows == 1 && case.peers == 1 && case.shape.inner_len() > 1300
}

/// A row per direction.
pub(super) fn measure(case: &Case, conduct: Conduct) -> Result<Vec<Row>> {
    let mut bench = Bench::new(case, conduct.batch)?;
    let policy = policy();
    let mut rows = Vec::new();
    for direction in Direction::ALL {
        let (mut off, mut on) = (Vec::new(), Vec::new());
        for _ in 0..conduct.trials {
            for (policy, ns) in [(None, &mut off), (Some(policy.clone()), &mut on)] {
                bench.world.enforce(policy);
                bench.world.pass_time()?;
                ns.push(bench.trial(direction, conduct.trial)?.engine_ns());
            }
        }
        bench.world.check_books()?;
        let ratio = on.iter().zip(&off).map(|(on, off)| on / off).collect();
        rows.push(
            Row::default()
                .label("frame", case.shape.to_string())
                .label("inner_bytes", case.shape.inner_len() as u64)
                .label("direction", direction.name())
                .label("part", "policy")
                .figure("without_policy_ns", Figure::new("ns", off))
                .figure("with_policy_ns", Figure::new("ns", on))
                .figure("policy_ratio", Figure::new("", ratio)),
        );
    }
    Ok(rows)
}

/// The ratios at 1420 bytes.
pub(super) fn checks(rows: &[Row]) -> Vec<Check> {
    let check = |row: &Row| {
        let ratio = row.figures.get("policy_ratio")?.median;
        let frame = row.labels.get("frame")?.as_str()?;
        let direction = row.labels.get("direction")?.as_str()?;
        let name = format!("policy_{direction}_{frame}_ratio");
        Some(Check::at_most(name, ratio, KNOWN_FLOW_TARGET))
    };
    let plain = rows
        .iter()
        .filter(|row| row.is(&[("inner_bytes", 1420.into())]));
    plain.filter_map(check).collect()
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::label("frame", "frame"),
        Column::label("way", "direction"),
        Column::median("off ns/pkt", "without_policy_ns", 1.0, 0),
        Column::median("on ns/pkt", "with_policy_ns", 1.0, 0),
        Column::median("on/off", "policy_ratio", 1.0, 3),
        Column::spread("±", "policy_ratio"),
    ]
}

/// The hub's host is a pod, isolated both ways, and may talk to every IPv4 address by rule.
fn policy() -> Policy {
    let id = ObjectName {
        namespace: "bench".into(),
        name: "host".into(),
    };
    let source = Source {
        file: "bench".into(),
        line: 0,
    };
    let everywhere = Peer::Block {
        cidr: Prefix::new([0, 0, 0, 0].into(), 0).expect("an IPv4 prefix may have length 0"),
        except: Vec::new(),
    };
    let rules = vec![Rule {
        source: source.clone(),
        peers: Some(vec![everywhere]),
        ports: None,
    }];
    let pod = Pod {
        id: id.clone(),
        labels: Default::default(),
        node: None,
        ips: vec![HUB_HOST.into()],
        host_network: false,
        ports: Vec::new(),
    };
    let rule = NetworkPolicy {
        id,
        source,
        mode: Mode::Enforce,
        pods: Selector::default(),
        ingress: Some(rules.clone()),
        egress: Some(rules),
    };
    let changes = [Change::SetPod(pod), Change::SetPolicy(Arc::new(rule))];
    Policy {
        table: Compiler::fresh(SEED, changes).table(),
        keep_established: false,
        refusal: Refusal::Drop,
    }
}

const SEED: u64 = 7;

#[cfg(test)]
mod tests {
    use patronus_policy::Cause;
    use patronus_policy::model::Connection;

    use super::*;

    #[test]
    fn the_traffic_passes_by_a_rule_and_not_for_want_of_one() {
        let table = policy().table;
        let far = [10, 0, 0, 9].into();
        for (src, dst) in [(far, HUB_HOST.into()), (HUB_HOST.into(), far)] {
            let verdict = table.judge(&Connection {
                src,
                dst,
                protocol: 6,
                dst_port: 5201,
            });
            assert!(verdict.allow && verdict.cause == Cause::Rule, "{verdict:?}");
        }
    }
}
