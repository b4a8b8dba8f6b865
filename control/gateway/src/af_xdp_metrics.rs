//! The uplinks by AF_XDP as a scrape of metrics has them.

use std::sync::{Arc, Mutex, PoisonError};

use patronus_ebpf::XskCounts;
use patronus_io::{XdpDropMeter, XdpDrops};

use crate::metrics::{Family, MetricSource};

/// What is known of the uplinks by AF_XDP; clones share it.
#[derive(Clone, Debug, Default)]
pub struct XdpMetrics(Arc<Mutex<Vec<Told>>>);

/// One uplink.
#[derive(Debug)]
struct Told {
    uplink: String,
    /// Of the program, at control's last look at it.
    counts: XskCounts,
    meters: Vec<XdpDropMeter>,
}

impl XdpMetrics {
    /// A further uplink, and what tells of its queues.
    pub fn add(&self, uplink: &str, meters: Vec<XdpDropMeter>) {
        self.with(|told| {
            told.push(Told {
                uplink: uplink.to_owned(),
                counts: XskCounts::default(),
                meters,
            });
        });
    }

    /// What the program of an uplink did so far; uplinks have numbers in the order in which they were added.
    pub fn count(&self, uplink: usize, counts: XskCounts) {
        self.with(|told| {
            if let Some(told) = told.get_mut(uplink) {
                told.counts = counts;
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Told>) -> T) -> T {
        // Counts are whole whoever panicked.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MetricSource for XdpMetrics {
    fn families(&self) -> Vec<Family> {
        let mut frames = Family::counter(
            "patronus_af_xdp_frames",
            "Frames at an uplink that runs by AF_XDP: given to a socket (redirected), left to the kernel (passed), or left \
             to it because their queue has no socket (no_socket).",
        );
        let mut dropped = Family::counter(
            "patronus_af_xdp_dropped_frames",
            "Frames that the kernel dropped before they reached a socket of AF_XDP, by queue and reason.",
        );
        self.with(|told| {
            for uplink in told.iter() {
                let counts = &uplink.counts;
                for (way, count) in [
                    ("redirected", counts.redirected),
                    ("passed", counts.passed),
                    ("no_socket", counts.no_socket),
                ] {
                    frames.count(&[("uplink", &uplink.uplink), ("way", way)], count);
                }
                for meter in &uplink.meters {
                    if let Ok(drops) = meter.drops() {
                        add_drops(&mut dropped, &uplink.uplink, meter.queue(), drops);
                    }
                }
            }
        });
        vec![frames, dropped]
    }
}

fn add_drops(family: &mut Family, uplink: &str, queue: u32, drops: XdpDrops) {
    let queue = queue.to_string();
    for (reason, count) in [
        ("ring_full", drops.ring_full),
        ("no_chunk", drops.no_chunk),
        ("other", drops.other),
    ] {
        let labels = [("uplink", uplink), ("queue", &queue), ("reason", reason)];
        family.count(&labels, count);
    }
}

/// For tests of what is made of all metrics: each of these has a series.
#[cfg(test)]
pub fn sample() -> Vec<Family> {
    let metrics = XdpMetrics::default();
    metrics.add("fiber", Vec::new());
    metrics.count(
        0,
        XskCounts {
            redirected: 9,
            ..XskCounts::default()
        },
    );
    let mut families = metrics.families();
    let drops = XdpDrops {
        ring_full: 1,
        no_chunk: 2,
        other: 3,
    };
    add_drops(&mut families[1], "fiber", 0, drops);
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{lint, to_text};

    #[test]
    fn the_series_hold_to_the_rules_and_without_such_an_uplink_there_are_none() {
        let text = to_text(sample()).unwrap();
        assert_eq!(lint::faults(&text), Vec::<String>::new());
        for line in [
            "patronus_af_xdp_frames_total{uplink=\"fiber\",way=\"redirected\"} 9",
            "patronus_af_xdp_dropped_frames_total{uplink=\"fiber\",queue=\"0\",reason=\"no_chunk\"} 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let none = to_text(XdpMetrics::default().families()).unwrap();
        assert_eq!(none, "# EOF\n");
    }
}
