//! Recorded flows: JSON objects with `src`, `dst`, `protocol` and `port`, one per line or as one array.

use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use patronus_policy::cluster::Cluster;
use patronus_policy::document::{End, Transport, connection};
use patronus_policy::model::Connection;
use serde::Deserialize;

use super::input;

/// A flow as the file writes it. More fields, as a flow table prints them, are passed over.
#[derive(Deserialize)]
struct Recorded {
    src: String,
    dst: String,
    protocol: Protocol,
    #[serde(default)]
    port: u16,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Protocol {
    Number(u8),
    Name(String),
}

/// Reads a file of flows; pods are meant as `cluster` knows them.
pub fn read(path: &Path, cluster: &Cluster) -> anyhow::Result<Vec<Connection>> {
    let bytes = input::read(path, BYTES_MAX)?;
    ensure!(
        bytes.len() <= BYTES_MAX,
        "{}: more than {} MiB of flows: split the file",
        path.display(),
        BYTES_MAX >> 20
    );
    let text = std::str::from_utf8(&bytes)
        .with_context(|| format!("{}: not valid UTF-8", path.display()))?;
    let mut flows = Vec::new();
    let mut add = |at: String, recorded: Recorded| {
        ensure!(
            flows.len() < FLOWS_MAX,
            "{}: more than {FLOWS_MAX} flows: split the file",
            path.display()
        );
        let flow = resolve(&recorded, cluster);
        flows.push(flow.map_err(|fault| anyhow!("{}: {at}: {fault}", path.display()))?);
        anyhow::Ok(())
    };
    if text.trim_start().starts_with('[') {
        let all: Vec<Recorded> = serde_json::from_str(text)
            .with_context(|| format!("{}: no array of flows", path.display()))?;
        for (at, recorded) in all.into_iter().enumerate() {
            add(format!("[{at}]"), recorded)?;
        }
    } else {
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let recorded = serde_json::from_str(line)
                .with_context(|| format!("{}:{}: no flow", path.display(), at + 1))?;
            add(format!("line {}", at + 1), recorded)?;
        }
    }
    if flows.is_empty() {
        bail!("{}: no flow in it", path.display());
    }
    Ok(flows)
}

fn resolve(recorded: &Recorded, cluster: &Cluster) -> Result<Connection, String> {
    let (src, dst): (End, End) = (recorded.src.parse()?, recorded.dst.parse()?);
    let transport = match &recorded.protocol {
        Protocol::Number(number) => Transport::new(*number, recorded.port),
        Protocol::Name(name) if recorded.port == 0 => name.parse()?,
        Protocol::Name(name) => format!("{name}/{}", recorded.port).parse()?,
    };
    connection(cluster, &src, &dst, transport)
}

const BYTES_MAX: usize = 256 << 20;
const FLOWS_MAX: usize = 1_000_000;
