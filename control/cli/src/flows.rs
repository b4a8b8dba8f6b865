//! `patronus flows`: the live flows of the running gateway.

use clap::Args;
use patronus_api::{
    FLOWS_MAX, FlowSort, FlowView, FlowsQuery, FlowsResponse, RuleRefView, VerdictView,
};

use crate::gateway::Gateway;
use crate::paths::words::{age, bytes};
use crate::print;

/// The command line of `flows`.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Terms, all of which must hold: src=, dst=, addr= (address or prefix), port=, proto=, peer=
    #[arg(value_name = "TERM")]
    filter: Vec<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=FLOWS_MAX as i64))]
    limit: u32,
    /// Which come first
    #[arg(long, value_name = "ORDER", default_value = "bytes",
          value_parser = clap::builder::PossibleValuesParser::new(FlowSort::ALL.map(FlowSort::name)))]
    sort: String,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// Lists the flows.
pub fn list(args: &FlowsArgs) -> anyhow::Result<u8> {
    let query = FlowsQuery {
        limit: Some(args.limit as usize),
        filter: (!args.filter.is_empty()).then(|| args.filter.join(" ")),
        sort: FlowSort::ALL.into_iter().find(|it| it.name() == args.sort),
        ..FlowsQuery::default()
    };
    let told = args.gateway.connect()?.flows(&query)?;
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told)),
    }
    Ok(0)
}

fn for_people(told: &FlowsResponse) -> String {
    let mut text: String = told.flows.iter().map(of_flow).collect();
    let all = print::count(told.total, "flow", "flows");
    let shown = told.flows.len();
    text += &match (told.matched == told.total, shown == told.matched) {
        (true, true) => format!("{all}\n"),
        (true, false) => format!("{shown} of {all}\n"),
        (false, true) => format!("{shown} of {all} match\n"),
        (false, false) => format!("{shown} of {} that match, of {all}\n", told.matched),
    };
    text
}

fn of_flow(flow: &FlowView) -> String {
    let protocol = match flow.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol-{other}"),
    };
    let end = |addr, port| match port {
        0 => format!("{addr}"),
        port => std::net::SocketAddr::new(addr, port).to_string(),
    };
    let ends = format!(
        "{protocol} {} > {}",
        end(flow.src, flow.src_port),
        end(flow.dst, flow.dst_port)
    );
    let mut parts = vec![match (&flow.peer, flow.path) {
        (Some(peer), Some(path)) => format!("{peer} path {path}"),
        (Some(peer), None) => peer.clone(),
        (None, _) => "a peer that is gone".to_owned(),
    }];
    parts.extend(flow.class.clone());
    if flow.verdict == Some(VerdictView::Deny) {
        parts.push(match &flow.rule {
            Some(rule) => format!("denied by {} of {}", rule_word(rule), rule.policy.name),
            None => "denied".to_owned(),
        });
    }
    let noun = if flow.packets == 1 {
        "packet"
    } else {
        "packets"
    };
    parts.push(format!("{} in {} {noun}", bytes(flow.bytes), flow.packets));
    parts.push(format!("idle {}", age(flow.idle_s as f64)));
    parts.push(format!("worker {}", flow.worker));
    print::wrapped(&ends, 6) + &print::wrapped(&format!("    {}", parts.join(", ")), 6)
}

fn rule_word(rule: &RuleRefView) -> String {
    match rule.number {
        0 => format!("{} isolation", rule.direction),
        number => format!("{} rule {number}", rule.direction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(src: &str, dst: &str) -> FlowView {
        FlowView {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: 6,
            src_port: 50312,
            dst_port: 443,
            opened_by: "local".to_owned(),
            peer: Some("branch".to_owned()),
            class: Some("bulk".to_owned()),
            path: Some(1),
            worker: 0,
            packets: 1234,
            bytes: 1_234_567,
            idle_s: 3,
            verdict: None,
            rule: None,
        }
    }

    #[test]
    fn a_flow_is_told_by_its_ends_and_by_what_carries_it_in_lines_that_fit() {
        let mut plain = flow("10.1.4.22", "10.8.3.9");
        (plain.class, plain.path, plain.packets) = (None, None, 1);
        let long = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let told = FlowsResponse {
            flows: vec![flow("10.1.4.22", "10.8.3.9"), plain, flow(long, long)],
            matched: 3,
            total: 9,
        };
        assert_eq!(
            for_people(&told),
            "\
tcp 10.1.4.22:50312 > 10.8.3.9:443
    branch path 1, bulk, 1.23 MB in 1234 packets, idle 3 s, worker 0
tcp 10.1.4.22:50312 > 10.8.3.9:443
    branch, 1.23 MB in 1 packet, idle 3 s, worker 0
tcp [2001:db8:1234:5678:9abc:def0:1234:5678]:50312 >
      [2001:db8:1234:5678:9abc:def0:1234:5678]:443
    branch path 1, bulk, 1.23 MB in 1234 packets, idle 3 s, worker 0
3 of 9 flows match
"
        );
    }
}
