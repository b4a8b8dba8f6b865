//! What the gateway says of itself: the status line, and the report at its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use patronus_api::{Counter, PrefilterCountView};
use patronus_engine::{Counters, PeerSpec};
use serde::Serialize;

/// Written as JSON to the file of `--report` when the gateway ends.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Packets by fate, all workers together.
    pub packets: Packets,
    /// Whether every packet is accounted for, per worker and together.
    pub balanced: bool,
    /// The offload level that ran.
    pub offloads: String,
    /// Number of workers.
    pub workers: usize,
    /// Panics that workers survived.
    pub worker_panics: u64,
    /// What policy refused; its packets are among the drops.
    pub denied: Counter,
    /// What became of packets before they came to the gateway, by reason; those that did not occur are left out. They are
    /// no part of the balance.
    pub prefilter: BTreeMap<String, u64>,
}

/// Packets by fate. A superpacket counts its segments. `rx + divided = tx + consumed + staged + sum(drops)`.
#[derive(Debug, Serialize)]
pub struct Packets {
    /// Came in, from the TUN and from the uplinks.
    pub rx: u64,
    /// Came in addition when others were divided for a narrow path.
    pub divided: u64,
    /// Forwarded, to the uplinks and to the TUN.
    pub tx: u64,
    /// Ended here by design: handshakes, cookies, keepalives.
    pub consumed: u64,
    /// Waiting for a handshake.
    pub staged: u64,
    /// Handshakes, cookies and keepalives of our own; not part of the balance.
    pub own_sent: u64,
    /// Packets that one worker gave to another.
    pub handed: u64,
    /// Dropped, by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds the workers' counters up.
    pub fn new(
        workers: &[Counters],
        offloads: String,
        worker_panics: u64,
        denied: Counter,
    ) -> Self {
        let mut sum = Counters::default();
        for counters in workers {
            sum += counters;
        }
        let each = workers.iter().all(Counters::is_balanced);
        Self {
            balanced: each && sum.is_balanced() && sum.handed_in == sum.handed_out,
            packets: Packets {
                rx: sum.rx(),
                divided: sum.divided,
                tx: sum.tx(),
                consumed: sum.consumed,
                staged: sum.staged,
                own_sent: sum.own_sent,
                handed: sum.handed_in,
                drops: sum
                    .drops_by_reason()
                    .map(|(reason, packets)| (reason.name(), packets))
                    .collect(),
            },
            offloads,
            workers: workers.len(),
            worker_panics,
            denied,
            prefilter: BTreeMap::new(),
        }
    }

    /// The report with what the pre-filter counted.
    pub fn with_prefilter(mut self, counts: &[PrefilterCountView]) -> Self {
        let occurred = counts.iter().filter(|count| count.packets > 0);
        let named = occurred.map(|count| {
            let name = format!("{}_{}", count.side.name(), count.reason);
            (name, count.packets)
        });
        self.prefilter = named.collect();
        self
    }
}

/// The file of `--report`, opened at the start: a path that cannot be written is found out then, and the report
/// of an earlier run is not mistaken for this one's.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    file: File,
}

impl ReportFile {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// What the system answers.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)
            .with_context(|| format!("cannot write {}: choose another --report", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes the report.
    ///
    /// # Errors
    /// What the system answers.
    pub fn write(mut self, report: &Report) -> anyhow::Result<()> {
        let written = serde_json::to_writer_pretty(&self.file, report)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.flush());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Rates between two looks at the counters.
#[derive(Debug)]
pub struct StatusLine {
    at: Instant,
    last: Counters,
    /// What the pre-filter had dropped.
    prefiltered: u64,
}

impl StatusLine {
    /// Begins to count.
    pub fn new(now: Instant) -> Self {
        Self {
            at: now,
            last: Counters::default(),
            prefiltered: 0,
        }
    }

    /// What is to be added of the pre-filter: what it dropped since the last call, if anything.
    pub fn prefilter(&mut self, counts: &[PrefilterCountView]) -> String {
        let drops = counts.iter().filter(|count| count.is_drop);
        let all: u64 = drops.map(|count| count.packets).sum();
        let before = std::mem::replace(&mut self.prefiltered, all);
        match all.saturating_sub(before) {
            0 => String::new(),
            new => format!(", pre-filter dropped {new}"),
        }
    }

    /// One line: peers, rates since the last call, and what was dropped since then.
    pub fn next<'a>(
        &mut self,
        counters: Counters,
        peers: impl Iterator<Item = &'a PeerSpec>,
        since_epoch: Duration,
        now: Instant,
    ) -> String {
        let seconds = now
            .saturating_duration_since(self.at)
            .as_secs_f64()
            .max(0.001);
        let (mut up, mut all) = (0, 0);
        for spec in peers {
            all += 1;
            let last = spec.stats.last_handshake();
            up += usize::from(last.is_some_and(|at| since_epoch.saturating_sub(at) < SESSION_LIFE));
        }
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let drops: Vec<String> = counters
            .drops_by_reason()
            .map(|(reason, packets)| {
                (
                    reason,
                    packets - self.last.drops[reason as usize].min(packets),
                )
            })
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| format!("{} {packets}", reason.name()))
            .collect();
        let line = format!(
            "peers {up}/{all} up, out {:.1} Mbit/s {:.0} pkt/s, in {:.1} Mbit/s {:.0} pkt/s, drops {}",
            rate(counters.rx_tun_bytes, self.last.rx_tun_bytes) * 8e-6,
            rate(counters.rx_tun, self.last.rx_tun),
            rate(counters.rx_udp_bytes, self.last.rx_udp_bytes) * 8e-6,
            rate(counters.rx_udp, self.last.rx_udp),
            if drops.is_empty() {
                "none".to_owned()
            } else {
                drops.join(", ")
            },
        );
        (self.at, self.last) = (now, counters);
        line
    }
}

/// A session older than this carries nothing: `REJECT_AFTER_TIME`.
const SESSION_LIFE: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;
    use patronus_api::PrefilterSideView;
    use patronus_engine::DropReason;

    #[test]
    fn a_packet_that_vanished_between_two_workers_shows() {
        let given = Counters {
            rx_tun: 1,
            handed_out: 1,
            ..Counters::default()
        };
        let taken = Counters {
            handed_in: 1,
            tx_udp: 1,
            ..Counters::default()
        };
        assert!(
            Report::new(
                &[given.clone(), taken],
                String::new(),
                0,
                Counter::default()
            )
            .balanced
        );
        assert!(
            !Report::new(
                &[given, Counters::default()],
                String::new(),
                0,
                Counter::default()
            )
            .balanced
        );
    }

    #[test]
    fn a_report_adds_up_where_packets_were_divided_for_a_narrow_path() {
        let mut divider = Counters {
            rx_tun: 10,
            divided: 10,
            tx_udp: 18,
            ..Counters::default()
        };
        divider.drop(DropReason::NoRoute, 2);
        let report = Report::new(&[divider], String::new(), 0, Counter::default());
        let packets = &report.packets;
        let drops: u64 = packets.drops.values().sum();
        assert!(report.balanced);
        assert_eq!(
            packets.rx + packets.divided,
            packets.tx + packets.consumed + packets.staged + drops
        );
    }

    #[test]
    fn the_status_line_counts_from_the_last_one() {
        let start = Instant::now();
        let mut line = StatusLine::new(start);
        let mut counters = Counters {
            rx_tun: 100,
            rx_tun_bytes: 1_000_000,
            ..Counters::default()
        };
        counters.drop(DropReason::NoRoute, 3);
        let at = start + Duration::from_secs(10);
        let first = line.next(counters.clone(), [].iter(), Duration::ZERO, at);
        assert_eq!(
            first,
            "peers 0/0 up, out 0.8 Mbit/s 10 pkt/s, in 0.0 Mbit/s 0 pkt/s, drops no_route 3"
        );
        let count = |packets| PrefilterCountView {
            side: PrefilterSideView::Wan,
            reason: "drop_type".to_owned(),
            is_drop: true,
            packets,
            bytes: 0,
        };
        assert_eq!(line.prefilter(&[count(7)]), ", pre-filter dropped 7");
        assert_eq!(line.prefilter(&[count(7)]), "");
        let second = line.next(
            counters,
            [].iter(),
            Duration::ZERO,
            at + Duration::from_secs(10),
        );
        assert_eq!(
            second,
            "peers 0/0 up, out 0.0 Mbit/s 0 pkt/s, in 0.0 Mbit/s 0 pkt/s, drops none"
        );
    }
}
