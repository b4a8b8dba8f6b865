//! `patronus explain` without `--config`.

use patronus_api::{
    CauseView, DirectionView, EndView, ExplainRequest, ExplainResponse, MissView, PolicyRefView,
    RuleRefView, VerdictView,
};
use patronus_policy::view;

use super::super::ExplainArgs;
use super::place;

/// The running gateway's explanation, as files would give it.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<view::ExplanationView> {
    let (protocol, port) = (args.transport.protocol(), args.transport.port());
    let request = ExplainRequest {
        src: args.src.to_string(),
        dst: args.dst.to_string(),
        protocol: protocol.map_or("ICMP".to_owned(), |number| number.to_string()),
        port: (port > 0).then_some(port),
    };
    let answer = args.gateway.connect()?.explain(&request)?;
    Ok(explanation(answer))
}

fn explanation(of: ExplainResponse) -> view::ExplanationView {
    view::ExplanationView {
        allow: of.verdict == VerdictView::Allow,
        protocol: of.connection.protocol,
        port: of.connection.port,
        src: end(of.src),
        dst: end(of.dst),
        egress: direction(of.egress),
        ingress: direction(of.ingress),
        audit: of.audit.map(rule),
        text: of.text,
    }
}

fn end(of: EndView) -> view::EndView {
    view::EndView {
        address: of.addr,
        kind: match of.kind.as_str() {
            "host-pod" => "host-network-pod".to_owned(),
            _ => of.kind,
        },
        name: of.name,
        node: of.node,
        claims: of.claims,
    }
}

fn direction(of: DirectionView) -> view::DirectionView {
    view::DirectionView {
        allow: of.verdict == VerdictView::Allow,
        cause: match of.cause {
            CauseView::NotAPod => "not-a-pod",
            CauseView::OwnAddress => "own-address",
            CauseView::OwnNode => "own-node",
            CauseView::NotIsolated => "not-isolated",
            CauseView::Rule => "rule",
            CauseView::Isolated => "isolated",
            CauseView::Contested => "contested",
        }
        .to_owned(),
        rule: of.rule.map(rule),
        isolated_by: of.isolated_by.into_iter().map(policy).collect(),
        nearest: of.nearest.map(|MissView { rule: it, missing }| {
            let rule = rule(it);
            view::MissView { rule, missing }
        }),
    }
}

fn policy(of: PolicyRefView) -> view::PolicyView {
    let (file, line) = place(&of.source);
    view::PolicyView {
        name: of.name,
        tier: of.layer,
        file,
        line,
    }
}

fn rule(of: RuleRefView) -> view::RuleView {
    let (file, line) = place(&of.source);
    view::RuleView {
        policy: policy(of.policy),
        direction: of.direction,
        number: of.number,
        name: of.name,
        file,
        line,
    }
}
