//! Ports as a NetworkPolicy names them, and the protocols.

use crate::diagnostic::{Path, Report, quote};
use crate::fields::{self, Fields, Nulls, shared};
use crate::model::{PortMatch, Protocol};
use crate::names;
use crate::node::{Node, Value};

/// What a port number may be.
pub(super) const PORTS: std::ops::RangeInclusive<i64> = 1..=65535;

const PROTOCOLS: &[(&str, Protocol)] = &[
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
    ("SCTP", Protocol::Sctp),
];

/// The field `protocol`; TCP where it is absent.
pub(crate) fn protocol(map: &Fields<'_>, path: &Path<'_>, report: &mut Report) -> Option<Protocol> {
    let Some(node) = map.get("protocol") else {
        return Some(Protocol::Tcp);
    };
    let path = path.field("protocol");
    let text = fields::text(node, &path, report)?;
    fields::word(text, PROTOCOLS, node.line, &path, report)
}

/// A port number.
pub(crate) fn port_number(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<u16> {
    let number = fields::number(node, PORTS, path, report)?;
    u16::try_from(number).ok()
}

/// One item of `ports`.
pub(super) fn read(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<PortMatch> {
    let known = ["protocol", "port", "endPort"];
    let map = fields::fields(node, &known, Nulls::Absent, path, report)?;
    let protocol = protocol(&map, path, report);
    let end_path = path.field("endPort");
    let Some(port) = map.get("port") else {
        if let Some(end) = map.get("endPort") {
            let message = "needs a numeric `port` to begin at: add one or remove it";
            report.error(end.line, &end_path, message);
            return None;
        }
        return Some(PortMatch::Any(protocol?));
    };
    let path = path.field("port");
    if let Value::Text(name) = &port.value {
        if let Some(end) = map.get("endPort") {
            let message = "may not stand beside a named `port`: give `port` a number without quotes or remove it";
            report.error(end.line, &end_path, message);
        }
        if let Some(fault) = names::port_name(name) {
            report.error(port.line, &path, format!("`{}` {fault}", quote(name)));
            return None;
        }
        let name = shared(name);
        return Some(PortMatch::Named {
            protocol: Some(protocol?),
            name,
        });
    }
    let first = port_number(port, &path, report);
    let last = match map.get("endPort") {
        Some(end) => port_number(end, &end_path, report),
        None => first,
    };
    let (protocol, first, last) = (protocol?, first?, last?);
    if last < first {
        let message = format!("{last} is below `port` {first}: swap them");
        report.error(map.line_of("endPort"), &end_path, message);
        return None;
    }
    Some(PortMatch::Range {
        protocol,
        first,
        last,
    })
}
