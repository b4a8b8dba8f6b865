//! Pods and nodes: who is there, and at which addresses. What they have beyond that is not looked at.

use std::net::IpAddr;

use crate::diagnostic::{Path, Report, quote};
use crate::fields::{self, Fields, shared};
use crate::manifest::cidr;
use crate::manifest::meta::Meta;
use crate::manifest::ports::{port_number, protocol};
use crate::model::{ContainerPort, Node, Pod};
use crate::names;
use crate::node::{self, Value};

pub(super) fn node(object: &Fields<'_>, meta: Option<Meta>, report: &mut Report) -> Option<Node> {
    let root = Path::Root;
    let path = root.field("status");
    let status = object
        .get("status")
        .and_then(|node| fields::map(node, &path, report));
    let list_path = path.field("addresses");
    let mut ips: Vec<IpAddr> = Vec::new();
    let addresses = status.map_or(&[][..], |it| it.list("addresses", &path, report));
    for (at, node) in addresses.iter().enumerate() {
        let path = list_path.index(at);
        let Some(map) = fields::map(node, &path, report) else {
            continue;
        };
        let kind = map.text("type", &path, report);
        if matches!(kind, Some("InternalIP" | "ExternalIP")) {
            push_address(
                map.get("address"),
                map.line,
                &path.field("address"),
                &mut ips,
                report,
            );
        }
    }
    if ips.is_empty() {
        let message =
            "has no InternalIP or ExternalIP: traffic from this node is an outside address's";
        report.warn(object.line, &list_path, message);
    }
    Some(Node {
        name: meta?.name,
        ips,
    })
}

pub(super) fn pod(object: &Fields<'_>, meta: Option<Meta>, report: &mut Report) -> Option<Pod> {
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object
        .get("spec")
        .and_then(|node| fields::map(node, &path, report));
    let mut pod_ports = Vec::new();
    let mut host_network = false;
    let mut node = None;
    if let Some(spec) = spec {
        host_network = spec.flag("hostNetwork", &path, report);
        node = spec
            .text("nodeName", &path, report)
            .filter(|name| !name.is_empty());
        for list in ["containers", "initContainers"] {
            containers(&spec, list, &path, &mut pod_ports, report);
        }
    }
    let ips = pod_addresses(object, report);
    let meta = meta?;
    Some(Pod {
        id: meta.id(),
        labels: meta.labels,
        node: node.map(shared),
        ips,
        host_network,
        ports: pod_ports,
    })
}

fn containers(
    spec: &Fields<'_>,
    list: &str,
    path: &Path<'_>,
    ports: &mut Vec<ContainerPort>,
    report: &mut Report,
) {
    let list_path = path.field(list);
    for (at, node) in spec.list(list, path, report).iter().enumerate() {
        let path = list_path.index(at);
        let Some(container) = fields::map(node, &path, report) else {
            continue;
        };
        // An init container has gone before the pod serves, unless it is restarted for ever: a sidecar.
        let is_sidecar = container.text("restartPolicy", &path, report) == Some("Always");
        if list == "initContainers" && !is_sidecar {
            continue;
        }
        let ports_path = path.field("ports");
        for (at, node) in container.list("ports", &path, report).iter().enumerate() {
            ports.extend(container_port(node, &ports_path.index(at), report));
        }
    }
}

pub(crate) fn container_port(
    node: &node::Node,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<ContainerPort> {
    let map = fields::map(node, path, report)?;
    let number_path = path.field("containerPort");
    let number = match map.get("containerPort") {
        Some(node) => port_number(node, &number_path, report),
        None => {
            report.error(map.line, &number_path, "is missing: give the port a number");
            None
        }
    };
    let name_path = path.field("name");
    // An empty name is none.
    let name = map
        .text("name", path, report)
        .filter(|name| !name.is_empty());
    if let Some(name) = name
        && let Some(fault) = names::port_name(name)
    {
        report.error(
            map.line_of("name"),
            &name_path,
            format!("`{}` {fault}", quote(name)),
        );
    }
    let protocol = protocol(&map, path, report);
    Some(ContainerPort {
        name: name.map(shared),
        number: number?,
        protocol: protocol?,
    })
}

fn pod_addresses(object: &Fields<'_>, report: &mut Report) -> Vec<IpAddr> {
    let root = Path::Root;
    let path = root.field("status");
    let status = object
        .get("status")
        .and_then(|node| fields::map(node, &path, report));
    let mut ips: Vec<IpAddr> = Vec::new();
    if let Some(status) = status {
        let list_path = path.field("podIPs");
        for (at, node) in status.list("podIPs", &path, report).iter().enumerate() {
            let path = list_path.index(at);
            if let Some(map) = fields::map(node, &path, report) {
                push_address(map.get("ip"), map.line, &path.field("ip"), &mut ips, report);
            }
        }
        let one_path = path.field("podIP");
        if status
            .get("podIP")
            .is_some_and(|node| node.value != Value::Text("".into()))
        {
            push_address(
                status.get("podIP"),
                status.line,
                &one_path,
                &mut ips,
                report,
            );
        }
        let phase = status.text("phase", &path, report);
        if let Some(phase @ ("Succeeded" | "Failed")) = phase {
            if !ips.is_empty() {
                let message = format!(
                    "is {phase}: the pod has ended and its addresses may be another's already"
                );
                report.warn(status.line_of("phase"), &path.field("phase"), message);
            }
            return Vec::new();
        }
    }
    if ips.is_empty() {
        let message = "has no addresses in podIPs: no policy can apply to this pod";
        report.warn(object.line, &path, message);
    }
    ips
}

fn push_address(
    node: Option<&node::Node>,
    line: u32,
    path: &Path<'_>,
    ips: &mut Vec<IpAddr>,
    report: &mut Report,
) {
    let Some(node) = node else {
        report.error(line, path, "is missing: write an IP address");
        return;
    };
    let Some(text) = fields::text(node, path, report) else {
        return;
    };
    if ips.len() == ADDRESSES_MAX {
        report.error(
            node.line,
            path,
            format!("is one of more than {ADDRESSES_MAX} addresses"),
        );
        return;
    }
    match cidr::address(text) {
        Ok(addr) if ips.contains(&addr) => {}
        Ok(addr) => ips.push(addr),
        Err(message) => report.error(node.line, path, format!("`{}`: {message}", quote(text))),
    }
}

/// Addresses of one pod or node.
const ADDRESSES_MAX: usize = 256;
