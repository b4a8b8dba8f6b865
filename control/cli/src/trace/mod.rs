//! `patronus trace`: where traffic to a site or an address goes: which class, which path, and the hops below each path.

mod underlay;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use patronus_api::{
    Client, FlowsQuery, PathView, PathsResponse, PeerPathsView, PeersResponse, PingRequest,
};
use patronus_config::{Config, Outline};
use serde::Serialize;

use crate::gateway::Gateway;
use crate::paths::parse_span;
use crate::print;
use underlay::Hop;

/// The command line of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A site's name or public key, or an address behind one
    target: String,
    /// Only this path: its number or name
    #[arg(long)]
    path: Option<String>,
    /// The most hops
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=64))]
    max_hops: u8,
    /// How long to wait for each hop
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_span)]
    timeout: Duration,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `trace --help`.
pub const HELP: &str = "\
Examples:
  patronus trace branch
  patronus trace 10.2.3.4 --path lte

The overlay is one hop, pinged inside the tunnel. Below it, each hop is found by
a UDP datagram whose TTL ends there, sent by the path's uplink to ports 33434 and
up, as traceroute does; `*` did not answer. Routers may send these another way
than the tunnel's datagrams, and a firewall before the peer may drop them.

Exit codes: 0 a path works, 1 none does, 2 usage, 5 no gateway answers.";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    /// What was asked for.
    target: String,
    /// The peer that owns it.
    peer: String,
    /// The prefix by which it owns the address, where one was asked for.
    prefix: Option<String>,
    /// Where each class goes.
    classes: Vec<ClassAnswer>,
    /// Live flows to the address, by class and path.
    flows: Vec<FlowAnswer>,
    /// The paths.
    paths: Vec<PathAnswer>,
}

#[derive(Debug, Serialize)]
struct ClassAnswer {
    class: String,
    is_default: bool,
    path: Option<u8>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct FlowAnswer {
    class: Option<String>,
    path: Option<u8>,
    flows: usize,
}

#[derive(Debug, Serialize)]
struct PathAnswer {
    id: String,
    name: String,
    state: String,
    /// Round trips inside the tunnel, in ms; `null` for one that did not come back.
    rtts_ms: Vec<Option<f64>>,
    /// The interface that probes left by; `None` where routes choose.
    interface: Option<String>,
    /// What was found below, the nearest first.
    hops: Vec<Hop>,
    /// Whether a hop was the peer's own address.
    is_reached: bool,
    /// Why there are no hops, or no more.
    note: Option<String>,
}

/// Finds the way.
pub fn trace(args: &TraceArgs) -> anyhow::Result<u8> {
    // Probes leave from this machine.
    args.gateway.socket()?;
    let client = args.gateway.connect()?;
    let addr = args.target.parse::<IpAddr>().ok();
    let (peer, prefix) = match addr {
        Some(addr) => owner(&client.peers()?, addr)?,
        None => (args.target.clone(), None),
    };
    let told = client.paths(Some(&peer))?;
    let Some(peer) = told.peers.first() else {
        bail!("no peer `{peer}`: `patronus peers` lists them");
    };
    let outline = client.config_text("running").ok();
    let outline = outline.and_then(|it| Config::parse(&it.text, "running").ok());
    let outline = outline.map(|draft| Outline::new(&draft));
    let mut answer = Answer {
        target: args.target.clone(),
        peer: peer.peer.clone(),
        prefix,
        classes: classes(&told, peer),
        flows: match addr {
            Some(addr) => flows(&client, addr)?,
            None => Vec::new(),
        },
        paths: Vec::new(),
    };
    if !args.json {
        print::text_out(&head(&answer));
    }
    let is_wanted = |path: &&PathView| {
        let wanted = args.path.as_ref();
        wanted.is_none_or(|it| {
            *it == path.path.to_string() || *it == path.name || Some(it) == path.uplink.as_ref()
        })
    };
    for path in peer.paths.iter().filter(is_wanted) {
        let found = follow(&client, path, outline.as_ref(), args)?;
        if !args.json {
            print::text_out(&of_path(&found));
        }
        answer.paths.push(found);
    }
    if answer.paths.is_empty() {
        let name = &peer.peer;
        bail!("{name} has no such path, or none yet: `patronus paths {name}` lists them");
    }
    if args.json {
        print::json(&answer)?;
    }
    let mut rtts = answer.paths.iter().flat_map(|it| &it.rtts_ms);
    Ok(u8::from(!rtts.any(Option::is_some)))
}

/// Whose an address is, by the longest prefix.
fn owner(told: &PeersResponse, addr: IpAddr) -> anyhow::Result<(String, Option<String>)> {
    let owned = told.peers.iter().flat_map(|peer| {
        let prefixes = peer.allowed_ips.iter();
        prefixes.map(move |prefix| (peer, prefix))
    });
    let fits = owned.filter_map(|(peer, prefix)| {
        let (network, length) = prefix.split_once('/')?;
        let (network, length) = (network.parse().ok()?, length.parse::<u8>().ok()?);
        is_within(network, length, addr).then_some((length, peer, prefix))
    });
    let best = fits.max_by_key(|(length, ..)| *length);
    let (_, peer, prefix) = best.ok_or_else(|| {
        anyhow!("no peer owns {addr}: `patronus peers --json` lists what each owns")
    })?;
    Ok((peer.public_key.clone(), Some(prefix.clone())))
}

fn is_within(network: IpAddr, length: u8, addr: IpAddr) -> bool {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let differ = bits(network) ^ bits(addr);
    network.is_ipv4() == addr.is_ipv4() && differ.leading_zeros() >= u32::from(length)
}

fn classes(told: &PathsResponse, peer: &PeerPathsView) -> Vec<ClassAnswer> {
    let routes = peer.routes.iter();
    let is_default = |name: &str| {
        let mut classes = told.classes.iter();
        classes.any(|it| it.is_default && it.name == name)
    };
    routes
        .map(|route| ClassAnswer {
            class: route.class.clone(),
            is_default: is_default(&route.class),
            path: route.path,
        })
        .collect()
}

/// Flows to an address, counted by class and path.
fn flows(client: &Client, addr: IpAddr) -> anyhow::Result<Vec<FlowAnswer>> {
    let query = FlowsQuery {
        filter: Some(format!("dst={addr}")),
        ..FlowsQuery::default()
    };
    let mut sums: Vec<FlowAnswer> = Vec::new();
    for flow in client.flows(&query)?.flows {
        let mut known = sums.iter_mut();
        match known.find(|it| it.class == flow.class && it.path == flow.path) {
            Some(sum) => sum.flows += 1,
            None => sums.push(FlowAnswer {
                class: flow.class,
                path: flow.path,
                flows: 1,
            }),
        }
    }
    Ok(sums)
}

fn follow(
    client: &Client,
    path: &PathView,
    outline: Option<&Outline>,
    args: &TraceArgs,
) -> anyhow::Result<PathAnswer> {
    let request = PingRequest {
        count: Some(PINGS),
        interval_ms: Some(100),
        timeout_ms: Some(1000),
    };
    let rtts_ms = match path.state.is_usable() {
        true => {
            client
                .ping(&path.peer, &path.path.to_string(), &request)?
                .rtts_ms
        }
        false => Vec::new(),
    };
    let uplinks = outline.map_or(&[][..], |it| &it.uplinks);
    let uplink = uplinks
        .iter()
        .find(|it| Some(&it.name) == path.uplink.as_ref());
    let interface = uplink.and_then(|it| it.interface.as_ref());
    let interface = interface.map(|it| it.as_str().to_owned());
    let found = underlay::hops(
        path.remote.ip(),
        interface.as_deref(),
        args.max_hops,
        args.timeout,
    );
    let (hops, failed) = match found {
        Ok(hops) => (hops, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let is_reached = hops.last().is_some_and(|it| it.is_end);
    let note = match failed {
        Some(error) => Some(format!("no hops: {error}")),
        None if is_reached => None,
        None if rtts_ms.iter().any(Option::is_some) => Some(
            "the peer answers inside the tunnel; something before it drops datagrams to other ports".to_owned(),
        ),
        None => Some(format!(
            "nothing answered behind the last hop: from there on {} is lost, filtered or not told",
            path.remote
        )),
    };
    Ok(PathAnswer {
        id: path.id.clone(),
        name: path.name.clone(),
        state: path.state.words().to_owned(),
        rtts_ms,
        interface,
        hops,
        is_reached,
        note,
    })
}

fn head(answer: &Answer) -> String {
    let mut lines = vec![match &answer.prefix {
        Some(prefix) => format!("{} belongs to {} ({prefix})", answer.target, answer.peer),
        None => answer.peer.clone(),
    }];
    let path = |path: Option<u8>| path.map_or("no path".to_owned(), |it| format!("path {it}"));
    let classes = answer.classes.iter().map(|it| {
        let default = if it.is_default { " (the default)" } else { "" };
        format!("{}{default} by {}", it.class, path(it.path))
    });
    lines.push(format!(
        "classes: {}",
        classes.collect::<Vec<_>>().join(", ")
    ));
    for flow in &answer.flows {
        let count = print::count(flow.flows, "live flow", "live flows");
        let class = flow.class.as_deref().unwrap_or("no class");
        lines.push(format!("{count} to it: {class} by {}", path(flow.path)));
    }
    lines.iter().map(|it| print::wrapped(it, 4)).collect()
}

fn of_path(path: &PathAnswer) -> String {
    let by = path.interface.as_deref();
    let by = by.map_or(String::new(), |it| format!(" by {it}"));
    let mut text = print::wrapped(
        &format!("path {} {} {}{by}", path.id, path.name, path.state),
        4,
    );
    let back: Vec<f64> = path.rtts_ms.iter().flatten().copied().collect();
    let line = match back.iter().copied().reduce(f64::min) {
        Some(least) => format!(
            "  tunnel  {least:.1} ms at least, {} of {} came back",
            back.len(),
            path.rtts_ms.len()
        ),
        None if path.rtts_ms.is_empty() => "  tunnel  not asked: the path is not usable".to_owned(),
        None => format!("  tunnel  none of {} came back", path.rtts_ms.len()),
    };
    text += &(line + "\n");
    for hop in &path.hops {
        let addr = hop.addr.map_or("*".to_owned(), |it| it.to_string());
        let rtt = hop
            .rtt_ms
            .map_or(String::new(), |it| format!("{it:>8.1} ms"));
        let what = hop
            .what
            .as_deref()
            .map_or(String::new(), |it| format!("  {it}"));
        text += format!("  {:>4}  {addr:<39}{rtt}{what}", hop.ttl).trim_end();
        text.push('\n');
    }
    if let Some(note) = &path.note {
        text += &print::wrapped(&format!("  {note}"), 4);
    }
    text
}

const PINGS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_told_in_lines_that_fit() {
        let hop = |ttl, addr: Option<&str>, what: Option<&str>| Hop {
            ttl,
            addr: addr.map(|it| it.parse().unwrap()),
            rtt_ms: addr.map(|_| 12.34),
            what: what.map(str::to_owned),
            is_end: false,
        };
        let long = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let path = PathAnswer {
            id: "branch/1".to_owned(),
            name: "fiber>203.0.113.7".to_owned(),
            state: "up".to_owned(),
            rtts_ms: vec![Some(11.0), None, Some(12.0)],
            interface: Some("eth0".to_owned()),
            hops: vec![
                hop(1, Some("192.0.2.1"), None),
                hop(2, None, None),
                hop(3, Some(long), Some("reached")),
            ],
            is_reached: true,
            note: Some("n".to_owned()),
        };
        let text = of_path(&path);
        assert_eq!(
            text,
            "\
path branch/1 fiber>203.0.113.7 up by eth0
  tunnel  11.0 ms at least, 2 of 3 came back
     1  192.0.2.1                                  12.3 ms
     2  *
     3  2001:db8:1234:5678:9abc:def0:1234:5678     12.3 ms  reached
  n
"
        );
        assert!(text.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn an_address_is_in_the_networks_of_its_family_only() {
        let within = |network: &str, length, addr: &str| {
            is_within(network.parse().unwrap(), length, addr.parse().unwrap())
        };
        assert!(within("10.2.0.0", 16, "10.2.3.4"));
        assert!(!within("10.2.0.0", 16, "10.3.3.4"));
        assert!(within("0.0.0.0", 0, "10.3.3.4"));
        assert!(!within("::", 0, "10.3.3.4"));
        assert!(within("fd00::", 8, "fd12::1"));
    }
}
