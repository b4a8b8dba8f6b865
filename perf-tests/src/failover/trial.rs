//! One trial: numbered packets both ways, a fault among them, and what both ends saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use patronus_api::{EventView, PathCommand};
use serde::Serialize;

use super::fault::Fault;
use super::twin::{Pair, Twin};
use super::watch::{self, Switch, Watch, path_of};
use crate::traffic::numbered::{NumberedFlow, Shape, now_ns};
use crate::traffic::record::{Record, Span};
use crate::traffic::{BulkTcp, joined};
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
    /// Trials that ran on it.
    pub trials: usize,
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
}

impl Stage<'_> {
    /// Runs one trial: `break_it` is told the path in use, `mend_it` undoes what it did.
    ///
    /// # Errors
    /// Gateways that do not settle before, or a step that failed.
    pub fn trial(
        &mut self,
        fault: Fault,
        lasts: Duration,
        break_it: impl FnOnce(&mut Self, Pair) -> Result<Broken>,
        mend_it: impl FnOnce(&mut Self, Pair) -> Result<()>,
    ) -> Result<Trial> {
        let (pair, switches_between) = self.settle()?;
        let bulk = match fault.has_bulk() {
            true => Some(Bulk::start(&self.twin)?),
            false => None,
        };
        let flows = self.flows(fault)?;
        let begun_ns = now_ns();
        self.stop.sleep(LEAD)?;
        // What the gateways did up to here is not the fault's doing.
        let mut early = Vec::with_capacity(2);
        for site in 0..2 {
            early.push(self.news(site)?);
        }
        let starved = self.starved();
        let fault_ns = now_ns();
        let broken = break_it(self, pair)?;
        let size_noticed_ns = self.endure(fault, lasts, pair)?;
        let pair_after = self.pair_in_use(0)?;
        let events = [self.news(0)?, self.news(1)?];
        let starved_after = self.starved();
        let mend_ns = now_ns();
        mend_it(self, pair)?;
        self.stop.sleep(TAIL)?;
        let [there, back] = flows;
        let records = [there.finish()?, back.finish()?];
        let bulk_stall_ns = match bulk {
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
        let mut ways = [Way::default(); 2];
        for (site, way) in ways.iter_mut().enumerate() {
            *way = way_of(&records[site], spans, fault)?;
            let bad = self.numbers_of(site, &broken.pairs)?;
            way.count_switches(&events[site], fault_ns, &bad);
            way.count_switches(&early[site], fault_ns, &[]);
            way.starved = grown(starved[site], starved_after[site]);
        }
        self.trials += 1;
        Ok(Trial {
            timeline: self.timeline(&early, &events, fault_ns),
            ways,
            bulk_stall_ns,
            after_ready_ns: broken.after_ready_ns(&records, spans.fault),
            size_noticed_ns,
            switches_between,
            pair_before: pair.to_string(),
            pair_after: pair_after.map(|pair| pair.to_string()),
        })
    }

    /// Waits until everything is up and forgets what earlier trials left; the path in use, and how often a gateway
    /// changed it since the trial before.
    ///
    /// # Errors
    /// What is still amiss after [`SETTLE_MAX`].
    fn settle(&mut self) -> Result<(Pair, u32)> {
        watch::settled(&self.twin, &self.watches, CLASS, SETTLE_MAX, self.stop)?;
        if self.trials == 0 {
            self.stop.sleep(FIRST_CHOICE)?;
        }
        for watch in &self.watches {
            for path in watch.paths()?.paths {
                watch.order(PathCommand::Clear, path.path)?;
            }
        }
        self.stop.sleep(AFTER_CLEAR)?;
        let pair = watch::settled(&self.twin, &self.watches, CLASS, SETTLE_MAX, self.stop)?;
        let mut between = 0;
        for site in 0..2 {
            let switches = watch::switches(&self.news(site)?);
            let of_class = switches.iter().filter(|switch| switch.class == CLASS);
            // Gateways that have just started still choose.
            between += if self.trials > 0 {
                of_class.count() as u32
            } else {
                0
            };
        }
        Ok((pair, between))
    }

    /// Waits while the fault lasts; when its size was noticed, if it is a matter of size.
    fn endure(&self, fault: Fault, lasts: Duration, pair: Pair) -> Result<Option<u64>> {
        let begun = Instant::now();
        let mut noticed = None;
        while begun.elapsed() < lasts {
            let left = lasts.saturating_sub(begun.elapsed());
            self.stop.sleep(left.min(POLL))?;
            if fault == Fault::MtuHole && noticed.is_none() && self.knows_size(pair)? {
                noticed = Some(u64::try_from(begun.elapsed().as_nanos())?);
            }
        }
        Ok(noticed)
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
    pub fn pair_in_use(&self, site: usize) -> Result<Option<Pair>> {
        let watch = &self.watches[site];
        let paths = watch.paths()?;
        let path = path_of(&paths, CLASS);
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
            payload_bytes: PAYLOAD_BYTES,
            dscp: DSCP_EXPEDITED,
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
    fn count_switches(&mut self, events: &[EventView], fault_ns: u64, bad: &[u8]) {
        for switch in watch::switches(events)
            .iter()
            .filter(|switch| switch.class == CLASS)
        {
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
    let before = record
        .gap(spans.before)
        .context("no numbered packet arrived before the fault")?;
    ensure!(
        all.sent > 0 && record.account(spans.before).sent > 0,
        "no numbered packet was sent before the fault"
    );
    let bad = record.last_bad_ns(spans.fault, fault.delay_max_ns());
    Ok(Way {
        gap_ns: gap.length_ns,
        sender_pause_ns: gap.sender_pause_ns,
        gap_before_ns: before.length_ns,
        sent: all.sent,
        lost: record.account(spans.fault).lost,
        lost_before: record.account(spans.before).lost,
        reordered: all.reordered,
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

/// A bulk TCP flow from site 1 to site 2, watched for stalls.
struct Bulk {
    flow: Arc<BulkTcp>,
    must_end: Arc<AtomicBool>,
    /// (when, bytes so far), a line for each look that saw more.
    watcher: JoinHandle<Result<Vec<(u64, u64)>>>,
}

impl Bulk {
    fn start(twin: &Twin) -> Result<Self> {
        let [one, two] = &twin.sites;
        let flow = Arc::new(BulkTcp::start(&one.host, &two.host, two.host_addr(), 1)?);
        let must_end = Arc::new(AtomicBool::new(false));
        let (seen, end) = (Arc::clone(&flow), Arc::clone(&must_end));
        let watcher = std::thread::Builder::new()
            .name("bulk watcher".to_owned())
            .spawn(move || {
                let mut looks = vec![(now_ns(), 0)];
                while !end.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK);
                    let bytes = seen.received_bytes();
                    if looks.last().is_none_or(|(_, before)| *before < bytes) {
                        looks.push((now_ns(), bytes));
                    }
                }
                Ok(looks)
            })
            .context("starting the bulk flow's watcher")?;
        Ok(Self {
            flow,
            must_end,
            watcher,
        })
    }

    /// The longest stall that touches the span.
    fn finish(self, from_ns: u64, to_ns: u64) -> Result<u64> {
        self.must_end.store(true, Ordering::Relaxed);
        let mut looks = joined(self.watcher)?;
        looks.push((to_ns.max(looks.last().map_or(0, |(at_ns, _)| *at_ns)), 0));
        let flow = Arc::into_inner(self.flow).context("the watcher still holds the flow")?;
        flow.finish().context("the bulk flow did not survive")?;
        let stalls = looks
            .windows(2)
            .filter(|pair| pair[1].0 > from_ns && pair[0].0 < to_ns);
        Ok(stalls.map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0))
    }
}

/// The class of the numbered packets, by their mark.
pub const CLASS: &str = "realtime";
/// Expedited forwarding (RFC 3246).
const DSCP_EXPEDITED: u8 = 46;
/// A voice packet's worth; 100 bytes of IPv4.
const PAYLOAD_BYTES: usize = 72;
/// Packets before the fault: for the bulk flow to fill the link.
const LEAD: Duration = Duration::from_millis(1500);
/// The beginning of it that is not looked at.
const SLOW_START_NS: u64 = 200_000_000;
/// Packets after the fault's end.
const TAIL: Duration = Duration::from_millis(300);
/// Without a bad packet for that long, it is over.
const CLEAN_NS: u64 = 250_000_000;
/// How long gateways may take until all paths are up.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// A gateway may change its first choice for five seconds, while delays become known.
const FIRST_CHOICE: Duration = Duration::from_secs(6);
const AFTER_CLEAR: Duration = Duration::from_millis(100);
/// An outer packet around a full inner one: 1420 bytes and WireGuard's 60 over IPv4, less its padding.
const FULL_BYTES: u16 = 1400;
const POLL: Duration = Duration::from_millis(100);
/// How often the bulk flow's watcher looks.
const LOOK: Duration = Duration::from_millis(5);
