//! One trial: numbered packets both ways, a fault among them, and what both ends saw.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use patronus_api::EventView;
use serde::Serialize;

use super::bulk::Bulk;
use super::fault::{Fault, Lasts};
use super::twin::{Pair, Twin};
use super::watch::{self, Switch, Watch, path_of};
use crate::machine::{Machine, Strain};
use crate::traffic::numbered::{NumberedFlow, Shape, now_ns};
use crate::traffic::record::{Record, Span};
use crate::{Gateway, Stop};

/// What one trial showed.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// From site 1 to site 2, and back.
    pub ways: [Way; 2],
    /// The longest time in which no byte of the bulk flow arrived, from the fault on; `None` without one.
    pub bulk_stall_ns: Option<u64>,
    /// From the program's readiness to the first packet in both directions, where a gateway was started again.
    pub after_ready_ns: Option<u64>,
    /// From the fault to the gateway's knowledge of the path's MTU, or to its leaving the path; `None` where it did
    /// neither, or the fault is no matter of size.
    pub size_noticed_ns: Option<u64>,
    /// What the bulk flow carried with nothing pinned and pinned to one path, in bits per second; `None` where that was
    /// not asked.
    pub throughput_bps: Option<[f64; 2]>,
    /// From the fault to its end.
    pub lasted_ns: u64,
    /// What else the machine had to do, from the packets' begin to their end.
    pub strain: Strain,
    /// Which of the labs side by side it ran in.
    pub lane: usize,
    /// Changes of path at both gateways between the trial before and this one: with nothing wrong.
    pub switches_between: u32,
    /// What both gateways said from the packets' begin to the fault's end, with milliseconds since the fault.
    pub timeline: Vec<String>,
    /// The path before, as uplinks of site 1 and site 2.
    pub pair_before: String,
    /// The path of site 1's packets at the fault's end; `None` where it had none.
    pub pair_after: Option<String>,
}

/// What one trial showed in one direction. Switches and starvation are those of the sending end's gateway.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Way {
    /// The longest pause between arrivals from the fault on.
    pub gap_ns: u64,
    /// The part of it for which the sender paused: the measurement's own.
    pub sender_pause_ns: u64,
    /// The longest pause before the fault.
    pub gap_before_ns: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets sent from the fault on that did not arrive.
    pub lost: u64,
    /// Packets sent before it that did not arrive.
    pub lost_before: u64,
    /// Packets that came behind later ones, over the whole trial.
    pub reordered: u64,
    /// Those of them that came behind a later one on the new path: after the longest pause, packets sent before the first
    /// one after it left out.
    pub reordered_after: u64,
    /// Packets that came twice, over the whole trial.
    pub duplicated: u64,
    /// From the fault to the last packet that was lost or too late; 0 where none was.
    pub bad_until_ns: u64,
    /// Whether packets came again before the fault's end.
    pub has_resumed: bool,
    /// Changes of path of the numbered packets' class.
    pub switches: u32,
    /// Those of them that left a path with nothing wrong.
    pub false_switches: u32,
    /// From the fault to the first switch; `None` without one.
    pub first_switch_ns: Option<u64>,
    /// Times that the gateway's prober was late; `None` where the gateway does not say.
    pub starved: Option<u64>,
}

/// Two gateways at work, and what a trial needs beside them.
pub struct Stage<'a> {
    /// The gateways, so that they end before their namespaces go; `None` while one is being started again.
    pub gateways: [Option<Gateway>; 2],
    /// Sites and links.
    pub twin: Twin,
    /// Their views.
    pub watches: [Watch; 2],
    /// Events seen so far, by gateway.
    pub seen: [u64; 2],
    /// What fills the link during a trial, where something does.
    pub bulk: Option<Bulk>,
    /// Payload in bits per second from which on the link counts as full.
    pub full_bps: f64,
    /// Trials that ran on it.
    pub trials: usize,
    /// Its number among those side by side.
    pub lane: usize,
    /// Ctrl-C.
    pub stop: &'a Stop,
}

/// What a fault did while the packets flowed.
#[derive(Clone, Debug, Default)]
pub struct Broken {
    /// Pairs of uplinks that were bad: leaving them is what is wanted.
    pub pairs: Vec<Pair>,
    /// When a gateway that was started again said that it is ready, on the clock of [`now_ns`].
    pub ready_ns: Option<u64>,
    /// See [`Trial::throughput_bps`].
    pub throughput_bps: Option<[f64; 2]>,
}

impl<'a> Stage<'a> {
    /// Two gateways that were just started, between links of that rate.
    pub fn new(twin: Twin, gateways: [Gateway; 2], link_bits_per_s: u64, stop: &'a Stop) -> Self {
        let watches = [Watch::of(&twin, 0), Watch::of(&twin, 1)];
        Self {
            gateways: gateways.map(Some),
            twin,
            watches,
            seen: [0; 2],
            bulk: None,
            full_bps: link_bits_per_s as f64 * FULL_SHARE,
            trials: 0,
            lane: 0,
            stop,
        }
    }
}

impl Stage<'_> {
    /// Runs one trial: `break_it` is told the path in use, `mend_it` undoes what it did.
    ///
    /// # Errors
    /// Gateways that do not settle before, or a step that failed.
    pub fn trial(
        &mut self,
        fault: Fault,
        lasts: Lasts,
        break_it: impl FnOnce(&mut Self, Pair) -> Result<Broken>,
        mend_it: impl FnOnce(&mut Self, Pair) -> Result<()>,
    ) -> Result<Trial> {
        let (pair, switches_between) = self.settle(fault)?;
        self.bulk = match fault.has_bulk() {
            true => Some(Bulk::start(&self.twin)?),
            false => None,
        };
        let flows = self.flows(fault)?;
        let (begun_ns, machine) = (now_ns(), Machine::now());
        self.lead(&flows)?;
        // What the gateways did up to here is not the fault's doing.
        let mut early = Vec::with_capacity(2);
        for site in 0..2 {
            early.push(self.news(site)?);
        }
        let starved = self.starved();
        let fault_ns = now_ns();
        let broken = break_it(self, pair)?;
        let size_noticed_ns = self.endure(fault, lasts, pair, &broken, &flows)?;
        let pair_after = self.pair_in_use(0, fault)?;
        let events = [self.news(0)?, self.news(1)?];
        let starved_after = self.starved();
        let mend_ns = now_ns();
        mend_it(self, pair)?;
        self.stop.sleep(TAIL)?;
        let records = finish(flows)?;
        let strain = machine.strain();
        let bulk_stall_ns = match self.bulk.take() {
            Some(bulk) => Some(bulk.finish(fault_ns, mend_ns)?),
            None => None,
        };

        let spans = Spans {
            before: Span {
                from_ns: begun_ns + SLOW_START_NS,
                to_ns: fault_ns,
            },
            fault: Span {
                from_ns: fault_ns,
                to_ns: mend_ns,
            },
        };
        let class = fault.class().0;
        let mut ways = [Way::default(); 2];
        for (site, way) in ways.iter_mut().enumerate() {
            *way = way_of(&records[site], spans, fault)?;
            let bad = self.numbers_of(site, &broken.pairs)?;
            way.count_switches(&early[site], class, fault_ns, &[]);
            // What came before the fault is no answer to it.
            way.first_switch_ns = None;
            way.count_switches(&events[site], class, fault_ns, &bad);
            way.starved = grown(starved[site], starved_after[site]);
        }
        self.trials += 1;
        Ok(Trial {
            timeline: self.timeline(&early, &events, fault_ns),
            ways,
            bulk_stall_ns,
            after_ready_ns: broken.after_ready_ns(&records, spans.fault),
            size_noticed_ns,
            throughput_bps: broken.throughput_bps,
            lasted_ns: mend_ns - fault_ns,
            strain,
            lane: self.lane,
            switches_between,
            pair_before: pair.to_string(),
            pair_after: pair_after.map(|pair| pair.to_string()),
        })
    }

    /// Packets before the fault, until they arrive both ways and the bulk flow has filled the link.
    fn lead(&self, flows: &[NumberedFlow; 2]) -> Result<()> {
        let begun = Instant::now();
        loop {
            let before = self.bulk.as_ref().map(Bulk::received_bytes);
            let looked = Instant::now();
            self.stop.sleep(LEAD_LOOK)?;
            let is_full = self.bulk.as_ref().zip(before).is_none_or(|(bulk, before)| {
                let bytes = bulk.received_bytes() - before;
                bytes as f64 * 8.0 >= self.full_bps * looked.elapsed().as_secs_f64()
            });
            let do_arrive = flows.iter().all(|flow| flow.received() > 0);
            let is_ready = is_full && do_arrive && begun.elapsed() >= LEAD_MIN;
            if is_ready || begun.elapsed() >= LEAD_MAX {
                return Ok(());
            }
        }
    }

    /// Waits while the fault lasts: for the least time, then until packets arrive both ways, on another path where the
    /// fault must be left; when its size was noticed, if it is a matter of size.
    fn endure(
        &self,
        fault: Fault,
        lasts: Lasts,
        pair: Pair,
        broken: &Broken,
        flows: &[NumberedFlow; 2],
    ) -> Result<Option<u64>> {
        let begun = Instant::now();
        let mut noticed = None;
        let mut well_since = None;
        while begun.elapsed() < lasts.most {
            let arrived_before = flows.each_ref().map(NumberedFlow::received);
            let looked = Instant::now();
            self.stop.sleep(POLL)?;
            if fault == Fault::MtuHole && noticed.is_none() && self.knows_size(pair)? {
                noticed = Some(u64::try_from(begun.elapsed().as_nanos())?);
            }
            let wanted = fault.rate_pps() * looked.elapsed().as_secs_f64() * FLOWS_SHARE;
            let do_arrive = flows
                .iter()
                .zip(arrived_before)
                .all(|(flow, before)| (flow.received() - before) as f64 >= wanted);
            let is_noticed = fault != Fault::MtuHole || noticed.is_some();
            let is_well = do_arrive
                && is_noticed
                && (!fault.must_be_left() || self.has_left(fault, &broken.pairs)?);
            well_since = match well_since {
                _ if !is_well => None,
                None => Some(Instant::now()),
                since => since,
            };
            let is_over = well_since.is_some_and(|since| since.elapsed() >= WELL);
            if is_over && begun.elapsed() >= lasts.least {
                break;
            }
        }
        Ok(noticed)
    }

    /// Whether both gateways send the class over none of these pairs, and nothing of it is still leaving one.
    fn has_left(&self, fault: Fault, pairs: &[Pair]) -> Result<bool> {
        let class = fault.class().0;
        for watch in &self.watches {
            let paths = watch.paths()?;
            let Some(path) = path_of(&paths, class) else {
                return Ok(false);
            };
            let route = paths.routes.iter().find(|route| route.class == class);
            let is_leaving = route.is_some_and(|route| route.leaving.is_some());
            if is_leaving || pairs.contains(&watch.pair_of(&self.twin, path)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the gateway of site 1 knows that a path is narrower than a full packet, or does not use it.
    fn knows_size(&self, pair: Pair) -> Result<bool> {
        let watch = &self.watches[0];
        for path in watch.paths()?.paths {
            if watch.pair_of(&self.twin, &path)? == pair {
                let is_used = path.classes.iter().any(|class| class.is_used);
                return Ok(!is_used || path.mtu.is_some_and(|mtu| mtu < FULL_BYTES));
            }
        }
        Ok(true)
    }

    /// Events of a gateway that were not seen yet.
    ///
    /// # Errors
    /// A gateway that does not answer.
    pub fn news(&mut self, site: usize) -> Result<Vec<EventView>> {
        let (events, next) = self.watches[site].events(self.seen[site])?;
        self.seen[site] = next;
        Ok(events)
    }

    /// The pair that the class's packets from a site take.
    ///
    /// # Errors
    /// A gateway that does not answer.
    pub fn pair_in_use(&self, site: usize, fault: Fault) -> Result<Option<Pair>> {
        let watch = &self.watches[site];
        let paths = watch.paths()?;
        let path = path_of(&paths, fault.class().0);
        path.map(|path| watch.pair_of(&self.twin, path)).transpose()
    }

    /// The numbers that a gateway has for these pairs.
    ///
    /// # Errors
    /// A gateway that does not answer.
    pub fn numbers_of(&self, site: usize, pairs: &[Pair]) -> Result<Vec<u8>> {
        let watch = &self.watches[site];
        let mut numbers = Vec::new();
        for path in watch.paths()?.paths {
            if pairs.contains(&watch.pair_of(&self.twin, &path)?) {
                numbers.push(path.path);
            }
        }
        Ok(numbers)
    }

    /// Numbered packets both ways.
    ///
    /// # Errors
    /// A socket that cannot be opened.
    pub fn flows(&self, fault: Fault) -> Result<[NumberedFlow; 2]> {
        let shape = Shape {
            rate_pps: fault.rate_pps(),
            payload_bytes: fault.payload_bytes(),
            dscp: fault.class().1,
        };
        let [one, two] = &self.twin.sites;
        Ok([
            NumberedFlow::start(&one.host, &two.host, two.host_addr(), shape)?,
            NumberedFlow::start(&two.host, &one.host, one.host_addr(), shape)?,
        ])
    }

    fn timeline(
        &self,
        early: &[Vec<EventView>],
        late: &[Vec<EventView>],
        fault_ns: u64,
    ) -> Vec<String> {
        let sites = self.watches.iter().zip(early.iter().zip(late));
        let lines = sites.flat_map(|(watch, (early, late))| {
            let all = early.iter().chain(late);
            all.map(|event| line_of(watch.label(), event, fault_ns))
        });
        lines.collect()
    }

    fn starved(&self) -> [Option<u64>; 2] {
        // A gateway that is down has nothing to say.
        [0, 1].map(|site: usize| self.watches[site].starved().ok().flatten())
    }
}

impl Broken {
    /// From a gateway's readiness to the first packet in the direction that took longer.
    fn after_ready_ns(&self, records: &[Record], span: Span) -> Option<u64> {
        let ready_ns = self.ready_ns?;
        let resumed = records
            .iter()
            .map(|record| resumed_ns(record, span).unwrap_or(span.to_ns));
        Some(resumed.max()?.saturating_sub(ready_ns))
    }
}

impl Way {
    fn count_switches(&mut self, events: &[EventView], class: &str, fault_ns: u64, bad: &[u8]) {
        let switches = watch::switches(events);
        for switch in switches.iter().filter(|switch| switch.class == class) {
            self.switches += 1;
            self.false_switches += u32::from(!is_wanted(switch, bad));
            let after = switch.at_ns.saturating_sub(fault_ns);
            self.first_switch_ns.get_or_insert(after);
        }
    }
}

fn line_of(gateway: &str, event: &EventView, fault_ns: u64) -> String {
    let after_ms = i128::from(event.unix_ms) - i128::from(fault_ns / 1_000_000);
    let decision = event.decision.as_ref();
    let cause = decision.map_or("", |decision| decision.cause.as_str());
    format!("{after_ms:>6} ms {gateway}: {} {cause}", event.text)
}

/// Whether a switch leaves a path that is bad, or is part of a gateway's first choice after its start.
fn is_wanted(switch: &Switch, bad: &[u8]) -> bool {
    bad.contains(&switch.from) || switch.cause == "first"
}

#[derive(Clone, Copy)]
struct Spans {
    before: Span,
    fault: Span,
}

fn way_of(record: &Record, spans: Spans, fault: Fault) -> Result<Way> {
    let whole = Span {
        from_ns: 0,
        to_ns: u64::MAX,
    };
    let all = record.account(whole);
    let gap = record
        .gap(spans.fault)
        .context("not one numbered packet arrived")?;
    ensure!(
        record.gap(spans.before).is_some(),
        "no numbered packet arrived before the fault"
    );
    ensure!(
        all.sent > 0 && record.account(spans.before).sent > 0,
        "no numbered packet was sent before the fault"
    );
    let bad = record.last_bad_ns(spans.fault, fault.delay_max_ns());
    Ok(Way {
        gap_ns: gap.length_ns,
        sender_pause_ns: gap.sender_pause_ns,
        // The fault's own pause may begin before it is made.
        gap_before_ns: record.pause_within_ns(spans.before),
        sent: all.sent,
        lost: record.account(spans.fault).lost,
        lost_before: record.account(spans.before).lost,
        reordered: all.reordered,
        reordered_after: record.reordered_since(gap.begun_ns + gap.length_ns),
        duplicated: all.duplicated,
        bad_until_ns: bad.map_or(0, |at_ns| at_ns.saturating_sub(spans.fault.from_ns)),
        // Beside a bulk flow a full queue loses packets of its own.
        has_resumed: gap.is_over
            && (fault.has_bulk() || bad.is_none_or(|at_ns| at_ns + CLEAN_NS < spans.fault.to_ns)),
        ..Way::default()
    })
}

/// What a counter grew by; `None` where it was not known at either time.
fn grown(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}

/// When the first packet after the longest gap arrived.
fn resumed_ns(record: &Record, span: Span) -> Option<u64> {
    let gap = record.gap(span)?;
    gap.is_over.then_some(gap.begun_ns + gap.length_ns)
}

/// Ends both flows at the same time.
fn finish(flows: [NumberedFlow; 2]) -> Result<[Record; 2]> {
    let [there, back] = flows;
    std::thread::scope(|scope| {
        let back = scope.spawn(|| back.finish());
        let there = there.finish();
        let back = back
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok([there?, back?])
    })
}

/// Packets before the fault, at the least and at the most.
const LEAD_MIN: Duration = Duration::from_millis(700);
const LEAD_MAX: Duration = Duration::from_millis(2500);
/// Over which the bulk flow's rate is taken.
const LEAD_LOOK: Duration = Duration::from_millis(200);
/// The beginning of it that is not looked at.
const SLOW_START_NS: u64 = 200_000_000;
/// Packets after the fault's end.
const TAIL: Duration = Duration::from_millis(100);
/// Without a bad packet for that long, it is over.
const CLEAN_NS: u64 = 250_000_000;
/// How long traffic must have been well for a fault to end.
const WELL: Duration = Duration::from_millis(500);
/// The share of packets that must arrive for traffic to be well.
const FLOWS_SHARE: f64 = 0.7;
/// An outer packet around a full inner one: 1420 bytes and WireGuard's 60 over IPv4, less its padding.
const FULL_BYTES: u16 = 1400;
const POLL: Duration = Duration::from_millis(100);
/// Payload's share of a link's rate from which on the link counts as full, beside the numbered packets.
const FULL_SHARE: f64 = 0.5;
