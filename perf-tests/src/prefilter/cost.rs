//! Nanoseconds that the filter takes of one packet, by `BPF_PROG_TEST_RUN`: no network takes part.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use patronus_ebpf::{
    Entry, Frame, InitiationLimit, Prefix, SourceVerdict, Sources, WanConfig, WanFilter,
};
use serde::Serialize;

use super::flooder::{Datagram, PORT, initiation, junk};
use crate::mesh::Conduct;

/// One class of packets through one program.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// `xdp` or `tc`.
    pub program: &'static str,
    /// What the packets are.
    pub class: &'static str,
    /// Whether they are dropped.
    pub is_dropped: bool,
    /// Nanoseconds per packet, by trial.
    pub ns: Vec<f64>,
}

/// A class of packets, and what the filter is told.
struct Class {
    name: &'static str,
    frame: Vec<u8>,
    config: WanConfig,
    is_dropped: bool,
}

/// Every class through both programs, trials in turn, so that a busy moment hits all of them.
pub fn costs(trials: usize, repeat: u32, conduct: Conduct<'_>) -> Result<Vec<Cost>> {
    let classes = classes();
    let mut costs: Vec<Cost> = Vec::new();
    for _ in 0..trials {
        let mut at = 0;
        for class in &classes {
            let mut filter = WanFilter::load(&class.config)?;
            for (entry, program) in [(Entry::XdpNative, "xdp"), (Entry::Tc, "tc")] {
                conduct.stop.check()?;
                let frame = Frame {
                    bytes: &class.frame,
                    gso_size: 0,
                };
                // What a rate of one lets through comes first.
                filter.trial(entry, frame, 16)?;
                let trial = filter.trial(entry, frame, repeat)?;
                ensure!(
                    trial.dropped == class.is_dropped,
                    "the program {program} judges {} otherwise than it should",
                    class.name
                );
                if costs.len() == at {
                    costs.push(Cost {
                        program,
                        class: class.name,
                        is_dropped: class.is_dropped,
                        ns: Vec::new(),
                    });
                }
                costs[at].ns.push(trial.duration.as_nanos() as f64);
                at += 1;
            }
        }
    }
    for cost in &costs {
        let mut ns = cost.ns.clone();
        ns.sort_by(f64::total_cmp);
        conduct.progress.line(&format!(
            "{:<4} {:<22} {:>5.0} ns",
            cost.program,
            cost.class,
            ns[ns.len() / 2]
        ));
    }
    Ok(costs)
}

fn classes() -> Vec<Class> {
    let plain = || WanConfig {
        ports: vec![PORT],
        ..WanConfig::default()
    };
    let class = |name, payload: Vec<u8>, is_dropped| Class {
        name,
        frame: Datagram::from(STRANGER).frame(&payload),
        config: plain(),
        is_dropped,
    };
    let mut other_port = class("other port", data(1400), false);
    other_port.config.ports = vec![PORT + 1];
    let mut bogon = class("bogon", data(64), true);
    bogon.frame = Datagram::from(Ipv4Addr::new(10, 1, 2, 3)).frame(&data(64));
    bogon.config.sources.add_bogons();
    let mut limited = class("initiation, limited", initiation(), true);
    limited.config.limit = Some(InitiationLimit {
        per_second: 1,
        burst: 1,
        ..InitiationLimit::DEFAULT
    });
    let mut listed = class("data, 50,000 prefixes", data(1400), false);
    listed.config.sources = many_sources();
    vec![
        class("data, 1400 B", data(1400), false),
        class("data, 64 B", data(64), false),
        other_port,
        class("junk", junk(64), true),
        bogon,
        limited,
        listed,
    ]
}

/// A data message of that many bytes.
fn data(bytes: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; bytes];
    payload[..4].copy_from_slice(&[4, 0, 0, 0]);
    payload
}

/// Prefixes of 16 to 28 bits, none of which has the stranger in it.
fn many_sources() -> Sources {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let prefixes = std::iter::from_fn(|| {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let addr = IpAddr::V4(Ipv4Addr::from_bits((state >> 32) as u32));
        Some(Prefix::around(addr, 16 + (state % 13) as u8))
    });
    let others = prefixes.filter(|prefix| !prefix.contains(STRANGER.into()));
    let mut sources = Sources::new();
    sources.extend(others.take(PREFIXES), SourceVerdict::Blocked);
    sources
}

const PREFIXES: usize = 50_000;
/// Of the benchmarking range (RFC 2544).
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 19, 1, 2);
