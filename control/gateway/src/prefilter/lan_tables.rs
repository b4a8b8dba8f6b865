//! A compiled policy as the LAN program takes it, and the names of what the program left to user space.

use std::collections::BTreeSet;

use patronus_ebpf::lan::{
    LanAction, LanAddress, LanBlock, LanDirection, LanLayer, LanOverflow, LanPeer, LanPeerOf,
    LanPort, LanProtocol, LanRow, LanSubject, LanTables,
};
use patronus_engine::{Policy, Refusal};
use patronus_policy::model::{Action, Connection, Protocol};
use patronus_policy::rows::{PeerOf, Rows};
use patronus_policy::{Direction, Layer, PolicyTable, Who};

/// What the LAN program is to hold while `policy` is in force.
pub fn lan_tables(policy: &Policy) -> LanTables {
    LanTables {
        generation: policy.table.generation(),
        keep_established: policy.keep_established,
        answers_denials: policy.refusal == Refusal::Reject,
        ..tables_of(&policy.table.rows())
    }
}

/// The pods that are judged in user space alone, because the maps have no room for what policies say of them.
pub fn overflow_names(
    table: &PolicyTable,
    tables: &LanTables,
    overflow: &LanOverflow,
) -> Vec<String> {
    let classes: BTreeSet<u32> = overflow.classes.iter().copied().collect();
    let left: BTreeSet<_> = overflow.addresses.iter().copied().collect();
    let concerned = tables.addresses.iter().filter(|it| {
        left.contains(&it.addr) || it.class.is_some_and(|class| classes.contains(&class))
    });
    let names: BTreeSet<String> = concerned
        .map(|it| {
            // An address's own story: explanations know who it is.
            let asked = Connection {
                src: it.addr,
                dst: it.addr,
                protocol: 0,
                dst_port: 0,
            };
            match table.explain(&asked).src.who {
                Who::Pod { id, .. } | Who::HostPod { id, .. } => format!("pod {id}"),
                Who::Node(name) => format!("node {name}"),
                Who::Outside => it.addr.to_string(),
            }
        })
        .collect();
    names.into_iter().collect()
}

fn tables_of(rows: &Rows) -> LanTables {
    LanTables {
        addresses: rows
            .addresses
            .iter()
            .map(|it| LanAddress {
                addr: it.addr,
                class: it.class,
                pod: it.pod,
                home: it.home,
                host_of: it.host_of,
                ask: it.ask,
            })
            .collect(),
        subjects: rows
            .subjects
            .iter()
            .map(|it| LanSubject {
                class: it.class,
                direction: match it.direction {
                    Direction::Ingress => LanDirection::Ingress,
                    Direction::Egress => LanDirection::Egress,
                },
                layer: match it.layer {
                    Layer::Admin => LanLayer::Admin,
                    Layer::Network => LanLayer::Network,
                    Layer::Baseline => LanLayer::Baseline,
                },
                row: it.row,
            })
            .collect(),
        rows: rows
            .rows
            .iter()
            .map(|it| LanRow {
                isolation: it.isolation.map_or(0, |rule| rule.number()),
                ask: it.ask,
            })
            .collect(),
        peers: rows
            .peers
            .iter()
            .map(|it| LanPeer {
                row: it.row,
                peer: match it.peer {
                    PeerOf::Class(class) => LanPeerOf::Class(class),
                    PeerOf::AnyPod => LanPeerOf::AnyPod,
                    PeerOf::Anyone => LanPeerOf::Anyone,
                },
                set: it.set,
            })
            .collect(),
        blocks: rows
            .blocks
            .iter()
            .map(|it| LanBlock {
                row: it.row,
                addr: it.prefix.addr(),
                prefix_len: it.prefix.prefix_len(),
                set: it.set,
            })
            .collect(),
        sets: rows.sets,
        ports: rows
            .ports
            .iter()
            .map(|it| LanPort {
                set: it.set,
                protocol: match it.protocol {
                    Some(Protocol::Tcp) => LanProtocol::Tcp,
                    Some(Protocol::Udp) => LanProtocol::Udp,
                    Some(Protocol::Sctp) => LanProtocol::Sctp,
                    None => LanProtocol::Other,
                },
                first: it.first,
                last: it.last,
                order: it.order,
                action: match it.action {
                    Action::Accept => LanAction::Accept,
                    Action::Deny => LanAction::Deny,
                    Action::Pass => LanAction::Pass,
                },
                rule: it.rule.number(),
            })
            .collect(),
        ..LanTables::default()
    }
}

#[cfg(test)]
#[path = "lan_tables_tests.rs"]
mod tests;
