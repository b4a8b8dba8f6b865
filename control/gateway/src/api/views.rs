//! From what the gateway knows to what answers say.

use std::collections::BTreeMap;
use std::time::Duration;

use patronus_api::{
    CauseView, ConnectionView, Counter, DiagnosticView, DirectionView, EndView, ExplainRequest,
    ExplainResponse, MissView, ModeView, ObjectView, PolicyRefView, PolicyResponse, RefusalView,
    RuleRefView, RuleView, SeverityView, StatusResponse, VerdictView,
};
use patronus_engine::Refusal;
use patronus_policy::cluster::Cluster;
use patronus_policy::document::{self, End, Transport};
use patronus_policy::manifest::{Kind, Object, ObjectRef};
use patronus_policy::model::{Connection, Mode, Tier};
use patronus_policy::{
    Direction, DirectionReport, EndReport, Layer, MissKind, PolicyRef, RuleRef, Severity, Who,
};

use super::answers::Refused;
use super::counting::{Moment, Readings};
use super::{ApiState, Live, RuleHits, health};
use crate::policy::{LoadReport, Objects, PolicyInForce};

/// A session older than this carries nothing (WireGuard's `REJECT_AFTER_TIME`).
pub const SESSION_LIFE: Duration = Duration::from_secs(180);

pub fn status(
    state: &ApiState,
    live: &Live,
    readings: &Readings,
    moment: Moment,
) -> StatusResponse {
    let uptime = moment.uptime(live);
    let is_up = |at: Duration| uptime.saturating_sub(at) <= SESSION_LIFE;
    let handshakes = live
        .snapshot
        .peers()
        .map(|spec| spec.stats.last_handshake());
    let peers_up = handshakes.flatten().filter(|at| is_up(*at)).count();
    let mut policy_objects = BTreeMap::new();
    for reference in live.policy.objects.keys() {
        *policy_objects
            .entry(reference.kind.name().to_owned())
            .or_default() += 1;
    }
    StatusResponse {
        site: live.site.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: uptime.as_secs(),
        workers: readings.workers.len(),
        peers: live.snapshot.peers().count(),
        peers_up,
        has_policy: live.policy.has_policy,
        policy_generation: live.policy.table.generation(),
        policy_objects,
        unreachable: state.desk.unreachable(),
        prefilter: None,
        health: Some(health::of(state, live, readings, peers_up)),
    }
}

pub fn policy(live: &Live, counts: &dyn RuleHits) -> PolicyResponse {
    let policy = &live.policy;
    let mut counts = counts.counts();
    let rules = policy.table.rules().map(|(id, entry)| RuleView {
        rule: rule_ref(&entry.to_ref()),
        hits: counts
            .as_mut()
            .map(|all| all.remove(&id.number()).unwrap_or_default().counter),
    });
    let rules: Vec<RuleView> = rules.collect();
    let other_hits = counts.map(|rest| sum(rest.values().map(|it| &it.counter)));
    PolicyResponse {
        has_policy: policy.has_policy,
        generation: policy.table.generation(),
        keep_established: live.keep_established,
        refusal: match live.refusal {
            Refusal::Drop => RefusalView::Drop,
            Refusal::Reject => RefusalView::Reject,
        },
        objects: policy.objects.iter().map(object).collect(),
        diagnostics: diagnostics(&policy.report),
        diagnostics_left_out: policy.report.left_out,
        refused: policy.report.refused.clone(),
        rules,
        other_hits,
    }
}

pub fn sum<'a>(counters: impl Iterator<Item = &'a Counter>) -> Counter {
    counters.fold(Counter::default(), |sum, it| Counter {
        connections: sum.connections + it.connections,
        packets: sum.packets + it.packets,
        audited: sum.audited + it.audited,
    })
}

fn object((reference, object): (&ObjectRef, &Object)) -> ObjectView {
    let (mode, tier, priority) = match object {
        Object::NetworkPolicy(it) => (Some(it.mode), Some("network"), None),
        Object::ClusterNetworkPolicy(it) => {
            let tier = match it.tier {
                Tier::Admin => "admin",
                Tier::Baseline => "baseline",
            };
            (Some(it.mode), Some(tier), Some(it.priority))
        }
        Object::Namespace(..) | Object::Node(..) | Object::Pod(..) => (None, None, None),
    };
    ObjectView {
        kind: reference.kind.name().to_owned(),
        namespace: reference.namespace.as_ref().map(ToString::to_string),
        name: reference.name.to_string(),
        source: object.source().to_string(),
        mode: mode.map(mode_view),
        tier: tier.map(str::to_owned),
        priority,
    }
}

pub fn mode_view(mode: Mode) -> ModeView {
    match mode {
        Mode::Enforce => ModeView::Enforce,
        Mode::Audit => ModeView::Audit,
        Mode::Off => ModeView::Off,
    }
}

pub fn diagnostics(report: &LoadReport) -> Vec<DiagnosticView> {
    let views = report.diagnostics.iter().map(|it| DiagnosticView {
        severity: match it.severity {
            Severity::Error => SeverityView::Error,
            Severity::Warning => SeverityView::Warning,
        },
        file: it.file.to_string(),
        line: it.line,
        object: it.object.clone(),
        field: it.field.clone(),
        message: it.message.clone(),
    });
    views.collect()
}

pub fn explain(
    policy: &PolicyInForce,
    request: &ExplainRequest,
) -> Result<ExplainResponse, Refused> {
    let connection = connection(&policy.objects, request)?;
    let it = policy.table.explain(&connection);
    Ok(ExplainResponse {
        verdict: VerdictView::from_allow(it.verdict.allow),
        connection: ConnectionView {
            src: connection.src,
            dst: connection.dst,
            protocol: connection.protocol,
            port: connection.dst_port,
        },
        src: end(&it.src),
        dst: end(&it.dst),
        egress: direction(&it.egress),
        ingress: direction(&it.ingress),
        audit: it.audit.as_ref().map(rule_ref),
        generation: policy.table.generation(),
        text: it.to_string(),
    })
}

/// What a request means, read by the code that reads the command line's offline questions.
fn connection(objects: &Objects, request: &ExplainRequest) -> Result<Connection, Refused> {
    let transport = transport(request)?;
    let mut named = Cluster::default();
    let mut read = |field: &str, text: &str| -> Result<End, Refused> {
        let fix = "write an address, namespace/pod, namespace/pod@4, namespace/pod@6 or node:NAME";
        let end: End = text
            .parse()
            .map_err(|_| Refused::field(field, "not an end of a connection", fix))?;
        take_named(objects, &end, &mut named);
        // With itself an end always shares a family: what is wrong then is the end.
        let fix = "`patronus policy list` and GET /v1/policy tell what is in force; a pod's addresses are its \
                   status.podIPs";
        document::connection(&named, &end, &end, transport)
            .map_err(|fault| Refused::field(field, fault, fix))?;
        Ok(end)
    };
    let (src, dst) = (read("src", &request.src)?, read("dst", &request.dst)?);
    document::connection(&named, &src, &dst, transport)
        .map_err(|fault| Refused::field("dst", fault, "name addresses of one family"))
}

fn transport(request: &ExplainRequest) -> Result<Transport, Refused> {
    let protocol = protocol_number(&request.protocol).ok_or_else(|| {
        let fix = "write TCP, UDP, SCTP, ICMP, ICMPv6 or a number from 0 to 255";
        Refused::field("protocol", "not a protocol", fix)
    })?;
    let has_ports = matches!(protocol, TCP | UDP | SCTP);
    match (has_ports, request.port) {
        (true, Some(port)) => Ok(Transport::new(protocol, port)),
        (false, None | Some(0)) if request.protocol.eq_ignore_ascii_case("icmp") => {
            Ok(Transport::ICMP)
        }
        (false, None | Some(0)) => Ok(Transport::new(protocol, 0)),
        (true, None) => {
            let error = "missing";
            Err(Refused::field("port", error, "name the destination port"))
        }
        (false, Some(_)) => {
            let error = "the protocol has no ports";
            Err(Refused::field("port", error, "leave it out"))
        }
    }
}

/// Puts what an end names, and the node of a pod, into `named`; the whole cluster would be much to copy.
fn take_named(objects: &Objects, end: &End, named: &mut Cluster) {
    let Some(object) = end.object().and_then(|it| objects.get(&it)) else {
        return;
    };
    if let Object::Pod(_, pod) = object
        && let Some(name) = &pod.node
        && let Some(node) = objects.get(&ObjectRef::cluster_wide(Kind::Node, name))
    {
        named.apply(&node.clone().into_change());
    }
    named.apply(&object.clone().into_change());
}

/// The number of a protocol by its name, in any case, or by its number.
pub fn protocol_number(text: &str) -> Option<u8> {
    let names = [
        ("tcp", TCP),
        ("udp", UDP),
        ("sctp", SCTP),
        ("icmp", 1),
        ("icmpv6", 58),
    ];
    let named = names
        .iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name));
    named
        .map(|(_, number)| *number)
        .or_else(|| text.parse().ok())
}

fn end(report: &EndReport) -> EndView {
    let (kind, name, node) = match &report.who {
        Who::Pod { id, node } => ("pod", Some(id.to_string()), node.as_ref()),
        Who::HostPod { id, node } => ("host-pod", Some(id.to_string()), node.as_ref()),
        Who::Node(name) => ("node", Some(name.to_string()), None),
        Who::Outside => ("outside", None, None),
    };
    EndView {
        addr: report.addr,
        kind: kind.to_owned(),
        name,
        node: node.map(ToString::to_string),
        claims: report.claims.iter().map(ToString::to_string).collect(),
    }
}

fn direction(report: &DirectionReport) -> DirectionView {
    let (allow, cause) = match report {
        DirectionReport::NotAPod => (true, CauseView::NotAPod),
        DirectionReport::OwnAddress => (true, CauseView::OwnAddress),
        DirectionReport::OwnNode => (true, CauseView::OwnNode),
        DirectionReport::NotIsolated => (true, CauseView::NotIsolated),
        DirectionReport::Allowed(_) => (true, CauseView::Rule),
        DirectionReport::Denied(_) => (false, CauseView::Rule),
        DirectionReport::Isolated { .. } => (false, CauseView::Isolated),
        DirectionReport::Contested => (false, CauseView::Contested),
    };
    let mut view = DirectionView {
        verdict: VerdictView::from_allow(allow),
        cause,
        rule: None,
        isolated_by: Vec::new(),
        nearest: None,
        text: report.to_string(),
    };
    match report {
        DirectionReport::Allowed(rule) | DirectionReport::Denied(rule) => {
            view.rule = Some(rule_ref(rule));
        }
        DirectionReport::Isolated { by, nearest } => {
            view.isolated_by = by.iter().map(policy_ref).collect();
            view.nearest = nearest.as_ref().map(|miss| MissView {
                rule: rule_ref(&miss.rule),
                missing: match miss.kind {
                    MissKind::Protocol => "protocol",
                    MissKind::Port => "port",
                    MissKind::Peer => "peer",
                }
                .to_owned(),
            });
        }
        DirectionReport::NotAPod
        | DirectionReport::OwnAddress
        | DirectionReport::OwnNode
        | DirectionReport::NotIsolated
        | DirectionReport::Contested => {}
    }
    view
}

fn policy_ref(policy: &PolicyRef) -> PolicyRefView {
    PolicyRefView {
        name: policy.name.clone(),
        layer: match policy.layer {
            Layer::Admin => "admin",
            Layer::Network => "network",
            Layer::Baseline => "baseline",
        }
        .to_owned(),
        source: policy.source.to_string(),
    }
}

pub fn rule_ref(rule: &RuleRef) -> RuleRefView {
    RuleRefView {
        policy: policy_ref(&rule.policy),
        direction: match rule.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
        .to_owned(),
        number: rule.number,
        name: rule.name.as_ref().map(ToString::to_string),
        source: rule.source.to_string(),
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
