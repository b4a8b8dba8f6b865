//! Policy in whole gateways: who is judged, when, and what becomes of the others' packets.

mod answers;
mod flows;
mod messages;
mod verdicts;

use std::sync::Arc;

use patronus_packet::parse::{ICMP, ICMPV6, SCTP};
use patronus_policy::manifest::{Object, load};
use patronus_policy::{Compiler, PolicyTable};

use super::*;
use crate::{Denial, Event, OpenedBy, Passage, Policy, Refusal, RuleCount, RuleNumber};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Two hosts of each site, with both families; `a` and `b` are the sites' namespaces.
const HOSTS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {site: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: b, labels: {site: b}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: a}, spec: {}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: two, namespace: a}, spec: {}, status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: b}, spec: {}, status: {podIPs: [{ip: 10.1.0.1}, {ip: "fd00:1::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: two, namespace: b}, spec: {}, status: {podIPs: [{ip: 10.1.0.2}, {ip: "fd00:1::2"}]}}
"#;

/// Nobody gets into `b`.
pub(super) const B_SHUT: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
    metadata: {name: shut, namespace: b}, spec: {podSelector: {}, policyTypes: [Ingress]}}";
/// Nobody gets into `a`.
pub(super) const A_SHUT: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
    metadata: {name: shut, namespace: a}, spec: {podSelector: {}, policyTypes: [Ingress]}}";
/// Nobody gets out of `a`.
const A_KEPT_IN: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
    metadata: {name: kept-in, namespace: a}, spec: {podSelector: {}, policyTypes: [Egress]}}";
/// `a` gets into `b` on port 443 of every protocol that has ports.
pub(super) const B_443: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
    metadata: {name: https, namespace: b}, spec: {podSelector: {}, ingress: [{from: \
    [{namespaceSelector: {matchLabels: {site: a}}}], ports: [{port: 443}, {port: 443, protocol: UDP}, \
    {port: 443, protocol: SCTP}]}]}}";
/// `a` gets into `b`, whatever the protocol.
const B_OPEN: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
    metadata: {name: open, namespace: b}, spec: {podSelector: {}, ingress: [{from: \
    [{namespaceSelector: {matchLabels: {site: a}}}]}]}}";

fn in_audit(policy: &str) -> String {
    policy.replacen(
        "metadata: {",
        "metadata: {annotations: {patronus.io/mode: audit}, ",
        1,
    )
}

fn table(policies: &[&str]) -> Arc<PolicyTable> {
    let text = [&[HOSTS], policies].concat().join("\n---\n");
    let loaded = load("test.yaml", text.as_bytes());
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let changes = loaded.objects.into_iter().map(Object::into_change);
    Compiler::fresh(1, changes).table()
}

pub(super) fn policy(policies: &[&str]) -> Policy {
    Policy {
        table: table(policies),
        keep_established: false,
        refusal: Refusal::Drop,
    }
}

/// Two sites with a session; those policies are in force at one of them.
fn pair_with(seed: u64, at: SiteId, policies: &[&str]) -> Net {
    let mut net = pair(seed);
    net.set_policy(at, Some(policy(policies)));
    net
}

/// The number of a rule, or of an isolation, of a policy.
fn rule_number(table: &PolicyTable, name: &str, rule: Option<u32>) -> RuleNumber {
    let found = table
        .rules()
        .find(|(_, entry)| entry.policy.name() == name && entry.rule == rule);
    RuleNumber(found.expect("the policy has that rule").0.number())
}

/// Without the time of the last one, which depends on what the net did before.
fn counts(net: &Net, site: SiteId) -> Vec<RuleCount> {
    let engines = (0..net.site(site).workers()).map(|worker| net.site(site).engine(worker));
    engines
        .flat_map(|engine| engine.rule_counts().iter())
        .map(|it| RuleCount { last_s: 0, ..it })
        .collect()
}

fn denials(net: &mut Net, site: SiteId) -> Vec<Denial> {
    let events = std::mem::take(&mut net.site_mut(site).events);
    let denials = events.into_iter().filter_map(|event| match event {
        Event::Denied(denial) => Some(denial),
        _ => None,
    });
    denials.collect()
}

/// Sends a finished packet from one site to the other; whether it arrives.
fn arrives_as(net: &mut Net, from: SiteId, worker: usize, packet: &[u8]) -> bool {
    let to = if from == A { B } else { A };
    net.take_delivered(to);
    net.send(from, worker, packet);
    net.run_for(ROUND);
    net.take_delivered(to).iter().any(|it| it == packet)
}

fn arrives(net: &mut Net, from: SiteId, packet: &Packet) -> bool {
    arrives_as(net, from, 0, &packet.build())
}

/// A packet of `packet`'s connection the other way.
fn back(packet: &Packet) -> Packet {
    Packet {
        src: packet.dst,
        dst: packet.src,
        ports: (packet.ports.1, packet.ports.0),
        ..packet.clone()
    }
}

fn syn(from: SiteId, to: SiteId, ports: (u16, u16)) -> Packet {
    Packet {
        flags: SYN,
        ports,
        ..Packet::tcp(from, to, b"")
    }
}

/// A datagram of a flow that [`pair`] did not open.
fn udp(from: SiteId, to: SiteId) -> Packet {
    Packet {
        ports: (2000, 443),
        ..Packet::udp(from, to, b"x")
    }
}

/// The answer to a SYN.
fn syn_ack(syn: &Packet) -> Packet {
    Packet {
        flags: SYN | ACK,
        ..back(syn)
    }
}

/// A packet in the middle of the SYN's connection, the same way.
fn middle(syn: &Packet) -> Packet {
    Packet {
        flags: ACK,
        payload: payload(1, 30),
        ..syn.clone()
    }
}

fn icmp(src: IpAddr, dst: IpAddr, body: &[u8]) -> Vec<u8> {
    let protocol = if src.is_ipv4() { ICMP } else { ICMPV6 };
    [&ip_header(src, dst, protocol, 9, body.len())[..], body].concat()
}

fn echo(from: SiteId, to: SiteId, kind: u8, id: u16) -> Vec<u8> {
    let id = id.to_be_bytes();
    let (src, dst) = (host(from, 1), host(to, 1));
    icmp(src, dst, &[kind, 0, 0, 0, id[0], id[1], 0, 1, 7, 7])
}
