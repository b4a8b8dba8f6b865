//! Denials as lines for the log: who could not reach whom, and which policy says so.

use std::fmt::Write;
use std::time::{Duration, Instant};

use patronus_engine::Denial;
use patronus_policy::model::Connection;
use patronus_policy::{DirectionReport, EndReport, Explanation, PolicyTable, Who};

/// Makes lines at a bounded rate, and counts what it leaves out.
#[derive(Debug)]
pub struct DenialLog {
    /// When the bucket is full again.
    full_at: Instant,
    left_out: u64,
}

impl DenialLog {
    /// Nothing told yet.
    pub fn new(now: Instant) -> Self {
        Self {
            full_at: now,
            left_out: 0,
        }
    }

    /// The line for a denial; `None` where there are too many of them. It names pods and nodes and never an address.
    pub fn line(&mut self, table: &PolicyTable, denial: &Denial, now: Instant) -> Option<String> {
        let full_at = self.full_at.max(now) + INTERVAL;
        if full_at > now + INTERVAL * BURST {
            self.left_out += 1;
            return None;
        }
        self.full_at = full_at;
        let mut line = sentence(table, denial);
        match std::mem::take(&mut self.left_out) {
            0 => {}
            // Writing to a string cannot fail.
            more => drop(write!(line, "; {more} more denials since the last line")),
        }
        Some(line)
    }
}

/// The connection that was denied: the key runs from the end that opened it.
pub fn connection_of(denial: &Denial) -> Connection {
    let key = denial.key;
    Connection {
        src: key.src,
        dst: key.dst,
        protocol: key.protocol,
        dst_port: key.dst_port,
    }
}

/// `shop/till -> shop/api TCP/8443 denied: ingress isolated by shop/api (policies.d/x.yaml:12)`
fn sentence(table: &PolicyTable, denial: &Denial) -> String {
    let explanation = table.explain(&connection_of(denial));
    let conn = &explanation.connection;
    let to = match conn.protocol {
        6 => format!("TCP/{}", conn.dst_port),
        17 => format!("UDP/{}", conn.dst_port),
        132 => format!("SCTP/{}", conn.dst_port),
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("IP protocol {other}"),
    };
    let verb = match denial.is_audit {
        true => "would be denied",
        false => "denied",
    };
    format!(
        "{} -> {} {to} {verb}: {}",
        name(&explanation.src),
        name(&explanation.dst),
        reason(table, denial, &explanation)
    )
}

fn name(end: &EndReport) -> String {
    match &end.who {
        Who::Pod { id, .. } | Who::HostPod { id, .. } => id.to_string(),
        Who::Node(name) => format!("node {name}"),
        Who::Outside => "an outside address".to_owned(),
    }
}

fn reason(table: &PolicyTable, denial: &Denial, explanation: &Explanation) -> String {
    let of_direction = |word: &str, report: &DirectionReport| match report {
        DirectionReport::Denied(rule) => Some(format!(
            "{word} rule {} of {} ({})",
            rule.number, rule.policy, rule.source
        )),
        DirectionReport::Isolated { by, .. } => {
            let policies: Vec<String> = by
                .iter()
                .take(POLICIES_MAX)
                .map(|policy| format!("{policy} ({})", policy.source))
                .collect();
            let more = by.len().saturating_sub(POLICIES_MAX);
            let rest = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Some(format!("{word} isolated by {}{rest}", policies.join(", ")))
        }
        DirectionReport::Contested => Some("too many pods claim an address".to_owned()),
        DirectionReport::NotAPod
        | DirectionReport::OwnAddress
        | DirectionReport::OwnNode
        | DirectionReport::NotIsolated
        | DirectionReport::Allowed(_) => None,
    };
    let enforced = of_direction("egress", &explanation.egress)
        .or_else(|| of_direction("ingress", &explanation.ingress));
    let counted = || {
        let rule = table.rule(denial.rule?)?.to_ref();
        Some(rule.to_string())
    };
    match denial.is_audit {
        true => explanation.audit.as_ref().map(ToString::to_string),
        false => enforced,
    }
    .or_else(counted)
    .unwrap_or_else(|| "by a policy that has changed since".to_owned())
}

/// Ten lines a second for long, forty at once.
const INTERVAL: Duration = Duration::from_millis(100);
const BURST: u32 = 40;
/// Isolating policies that a line names.
const POLICIES_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_engine::{OpenedBy, PeerId};
    use patronus_packet::FlowKey;
    use patronus_policy::{Compiler, Direction, manifest};

    const MANIFESTS: &str = "\
kind: Pod
apiVersion: v1
metadata: {name: api, namespace: shop}
status: {podIPs: [{ip: 10.1.0.9}]}
---
kind: Pod
apiVersion: v1
metadata: {name: till, namespace: shop}
status: {podIPs: [{ip: 10.1.0.7}]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: api, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

    fn table() -> std::sync::Arc<PolicyTable> {
        let loaded = manifest::load("policies.d/x.yaml", MANIFESTS.as_bytes());
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let changes = loaded.objects.into_iter().map(|it| it.into_change());
        Compiler::fresh(7, changes).table()
    }

    fn denial(src: &str, dst: &str) -> Denial {
        Denial {
            key: FlowKey {
                src: src.parse().unwrap(),
                dst: dst.parse().unwrap(),
                src_port: 40000,
                dst_port: 8443,
                protocol: 6,
            },
            peer: PeerId(0),
            opened_by: OpenedBy::Local,
            direction: Direction::Ingress,
            rule: None,
            is_audit: false,
        }
    }

    #[test]
    fn a_line_names_both_ends_and_the_policy_with_its_place() {
        let mut log = DenialLog::new(Instant::now());
        let line = log.line(&table(), &denial("10.1.0.7", "10.1.0.9"), Instant::now());
        assert_eq!(
            line.as_deref(),
            Some(
                "shop/till -> shop/api TCP/8443 denied: ingress isolated by shop/api (policies.d/x.yaml:11)"
            )
        );
    }

    #[test]
    fn a_line_tells_no_address() {
        let mut log = DenialLog::new(Instant::now());
        let line = log.line(&table(), &denial("192.0.2.1", "10.1.0.9"), Instant::now());
        assert!(line.unwrap().starts_with("an outside address -> shop/api"));
    }

    #[test]
    fn a_denial_whose_policy_has_gone_says_so() {
        let mut log = DenialLog::new(Instant::now());
        let line = log.line(&table(), &denial("192.0.2.1", "192.0.2.2"), Instant::now());
        assert!(
            line.unwrap()
                .ends_with("by a policy that has changed since")
        );
    }

    #[test]
    fn a_flood_makes_forty_lines_and_then_ten_a_second_that_count_the_rest() {
        let start = Instant::now();
        let (table, denial) = (table(), denial("10.1.0.7", "10.1.0.9"));
        let mut log = DenialLog::new(start);
        let lines = (0..1000)
            .filter_map(|_| log.line(&table, &denial, start))
            .count();
        assert_eq!(lines, 40);
        let later = log.line(&table, &denial, start + INTERVAL).unwrap();
        assert!(
            later.ends_with("; 960 more denials since the last line"),
            "{later}"
        );
    }
}
