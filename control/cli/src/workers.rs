//! `patronus workers`: whether a core is the limit, and where its time goes.

use std::time::Duration;

use clap::Args;
use patronus_api::{METER_MAX_S, WorkerView, WorkersResponse};

use crate::gateway::Gateway;
use crate::print;

/// The command line of `workers`.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    /// Meter the stages of the pipeline for that many seconds first, at the cost of some throughput
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=i64::from(METER_MAX_S - METER_SPARE_S)))]
    stages: Option<u32>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `workers --help`.
pub const HELP: &str = "\
BUSY is the share of the last second that went into work, SPIN the share spent
looking for work without sleeping. TUN is the site's side, packets per second in
and out; BATCH is packets per read of the tunnel interface. BOX is what waits
from other workers. A worker near 100 % busy is the limit.";

/// Tells of the workers.
pub fn list(args: &WorkersArgs) -> anyhow::Result<u8> {
    let client = args.gateway.connect()?;
    let told = match args.stages {
        None => client.workers()?,
        Some(seconds) => {
            client.meter_stages(seconds + METER_SPARE_S)?;
            std::thread::sleep(Duration::from_secs(seconds.into()));
            let told = client.workers()?;
            client.meter_stages(0)?;
            told
        }
    };
    match args.json {
        true => print::json(&told)?,
        false => print::text_out(&for_people(&told)),
    }
    Ok(0)
}

fn for_people(told: &WorkersResponse) -> String {
    let mut text = HEADER.to_owned();
    for worker in &told.workers {
        text += &row(worker);
    }
    for worker in &told.workers {
        text += &stages(worker);
    }
    for worker in told.workers.iter().filter(|it| !it.is_running) {
        text += &format!(
            "worker {} has stopped: restart the gateway\n",
            worker.worker
        );
    }
    let generation = told.generation;
    text + &print::wrapped(
        &format!(
            "configuration {} on {} of {} workers, offload {}, cipher {}",
            generation.published, generation.applied, generation.workers, told.offload, told.cipher
        ),
        4,
    )
}

fn row(worker: &WorkerView) -> String {
    let rates = worker.rates.unwrap_or_default();
    let counts = &worker.counts;
    let batch = counts.rx_tun_packets as f64 / counts.rx_tun_frames.max(1) as f64;
    let core = worker.core.map_or("any".to_owned(), |it| it.to_string());
    format!(
        "{:>6} {core:>4} {:>6.1} {:>6.1} {:>9.0} {:>9.0} {batch:>5.1} {:>7.0} {:>8} {:>4} {:>6}\n",
        worker.worker,
        rates.busy_pct,
        rates.spinning_pct,
        rates.rx_tun_pps,
        rates.tx_tun_pps,
        rates.drops_pps,
        worker.flows.used,
        worker.mailbox.waiting,
        worker.panics,
    )
}

/// Where time went, where that was metered and something came through.
fn stages(worker: &WorkerView) -> String {
    let Some(metered) = &worker.stages else {
        return String::new();
    };
    let each = metered.stages.iter().filter_map(|it| {
        let ns = it.ns_per_packet?;
        Some(format!("{} {ns:.0}", it.stage))
    });
    let each: Vec<String> = each.collect();
    let line = match each.is_empty() {
        true => format!(
            "worker {}: no packet came while stages were metered",
            worker.worker
        ),
        false => format!(
            "worker {}: ns per packet by stage, of {}: {}",
            worker.worker,
            print::count(metered.packets as usize, "packet", "packets"),
            each.join(", ")
        ),
    };
    print::wrapped(&line, 4)
}

/// The metering goes on this much longer, so that it has not ended when it is read.
const METER_SPARE_S: u32 = 10;
const HEADER: &str =
    "WORKER CORE BUSY % SPIN %    TUN IN   TUN OUT BATCH DROPS/S    FLOWS  BOX PANICS\n";

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::{
        CountsView, FlowTableView, GenerationView, MailboxView, RatesView, StageView, StagesView,
    };

    #[test]
    fn a_worker_is_told_in_one_line_that_fits_and_its_stages_below() {
        let stage = |name: &str, ns: f64| StageView {
            stage: name.to_owned(),
            spent_ns: 1,
            laps: 1,
            ns_per_packet: Some(ns),
        };
        let worker = WorkerView {
            worker: 1,
            core: Some(3),
            is_running: true,
            panics: 0,
            generation: 7,
            busy_s: 1.0,
            spinning_s: 1.0,
            asleep_s: 1.0,
            turns: 9,
            rates: Some(RatesView {
                busy_pct: 71.25,
                spinning_pct: 2.0,
                rx_tun_pps: 1_142_110.0,
                tx_tun_pps: 161_402.4,
                drops_pps: 11.0,
                ..RatesView::default()
            }),
            counts: CountsView {
                rx_tun_packets: 410,
                rx_tun_frames: 10,
                ..CountsView::default()
            },
            mailbox: MailboxView {
                waiting: 3,
                capacity: 256,
            },
            flows: FlowTableView {
                used: 61_204,
                capacity: 65_536,
            },
            stages: Some(StagesView {
                packets: 1000,
                stages: vec![stage("parse", 40.2), stage("seal", 1480.0)],
            }),
        };
        let told = WorkersResponse {
            unix_ms: 0,
            uptime_s: 9.0,
            generation: GenerationView {
                published: 7,
                applied: 1,
                workers: 1,
            },
            offload: "full".to_owned(),
            cipher: "own".to_owned(),
            workers: vec![worker],
        };
        let text = for_people(&told);
        assert_eq!(
            text,
            "\
WORKER CORE BUSY % SPIN %    TUN IN   TUN OUT BATCH DROPS/S    FLOWS  BOX PANICS
     1    3   71.2    2.0   1142110    161402  41.0      11    61204    3      0
worker 1: ns per packet by stage, of 1000 packets: parse 40, seal 1480
configuration 7 on 1 of 1 workers, offload full, cipher own
"
        );
        assert!(text.lines().all(|it| it.len() <= 80));
    }
}
