//! How many packets of a flood the filter drops a second on one core, sender included.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use patronus_ebpf::{Generator, Hook, InitiationLimit, WanConfig, WanFilter};
use serde::Serialize;

use super::flooder::{Datagram, PORT, initiation, junk, open_to_floods};
use crate::Namespace;
use crate::link::{self, End, Setup};
use crate::mesh::Conduct;

/// One kind of flood at one hook.
#[derive(Clone, Debug, Serialize)]
pub struct DropRate {
    /// Where the filter was.
    pub hook: &'static str,
    /// What the flood was.
    pub flood: &'static str,
    /// Frames sent per second, by trial.
    pub sent_pps: Vec<f64>,
    /// Frames dropped per second by the filter, by trial.
    pub dropped_pps: Vec<f64>,
}

/// Every kind of flood at every hook that a veth has.
pub fn drops(trials: usize, conduct: Conduct<'_>) -> Result<Vec<DropRate>> {
    let (sender, receiver) = (Namespace::new("sender")?, Namespace::new("receiver")?);
    let end = |namespace| End {
        namespace,
        name: WIRE,
    };
    link::connect(end(&sender), end(&receiver))?;
    for (namespace, address) in [(&sender, "198.18.0.2/24"), (&receiver, "198.18.0.1/24")] {
        let setup = Setup {
            mtu: None,
            addresses: &[address.parse().context("an address of ours")?],
            routes: &[],
        };
        link::configure(namespace, WIRE, setup)?;
    }
    let datagram = Datagram {
        to_mac: open_to_floods(&receiver, WIRE)?,
        ..Datagram::from(Ipv4Addr::new(198, 19, 0, 1))
    };
    let floods = [("junk", junk(64)), ("initiations", initiation())];
    let mut rates = Vec::new();
    for (flood, payload) in &floods {
        for hook in Hook::ALL {
            let mut rate = DropRate {
                hook: hook.as_str(),
                flood,
                sent_pps: Vec::new(),
                dropped_pps: Vec::new(),
            };
            for _ in 0..trials {
                conduct.stop.check()?;
                let frame = datagram.frame(payload);
                let (sent, dropped) = one(&sender, &receiver, hook, &frame, conduct)?;
                rate.sent_pps.push(sent);
                rate.dropped_pps.push(dropped);
            }
            let best = rate.dropped_pps.iter().copied().fold(0.0, f64::max);
            conduct.progress.line(&format!(
                "{flood} at {hook}: {:.2} million a second dropped at best",
                best * 1e-6
            ));
            rates.push(rate);
        }
    }
    Ok(rates)
}

/// Frames sent and dropped per second, on one core.
fn one(
    sender: &Namespace,
    receiver: &Namespace,
    hook: Hook,
    frame: &[u8],
    conduct: Conduct<'_>,
) -> Result<(f64, f64)> {
    let config = WanConfig {
        ports: vec![PORT],
        limit: Some(InitiationLimit {
            per_second: 1,
            burst: 1,
            ..InitiationLimit::DEFAULT
        }),
        ..WanConfig::default()
    };
    let mut filter = WanFilter::load(&config)?;
    let attached = receiver.run(|| filter.attach(WIRE, hook))?;
    let attached = attached.with_context(|| format!("attaching at {hook}"))?;
    let mut generator = sender.run(|| Generator::open(WIRE, frame))??;
    let window = conduct.window;
    let flood = std::thread::spawn(move || -> Result<(u64, f64)> {
        on_last_core()?;
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < window {
            generator.send(BATCH)?;
            sent += u64::from(BATCH);
        }
        Ok((sent, begun.elapsed().as_secs_f64()))
    });
    let (sent, seconds) = crate::traffic::joined(flood)?;
    let stats = filter.stats()?;
    drop(attached);
    ensure!(
        stats.dropped().packets > 0,
        "not one of {sent} frames was dropped at {hook}: none came to the filter"
    );
    Ok((
        sent as f64 / seconds,
        stats.dropped().packets as f64 / seconds,
    ))
}

/// Keeps the calling thread on the last core that it may use; what its frames cause runs there too.
fn on_last_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rfind(|core| allowed.is_set(*core).unwrap_or(false));
    let mut only = CpuSet::new();
    only.set(last.context("this process may use no core")?)?;
    Ok(sched_setaffinity(this, &only)?)
}

const WIRE: &str = "eth0";
const BATCH: u32 = 16_384;
