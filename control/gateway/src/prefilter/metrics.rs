//! The pre-filter as a scrape of metrics has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use patronus_api::{PrefilterCountView, PrefilterHookView, PrefilterPolicyView};
use patronus_ebpf::{MapFill, WanFilter, WanStats};

use super::views::wan_counts;
use super::{Inner, Prefilter};
use crate::metrics::{Family, MetricSource};

/// The pre-filter among those who have metrics.
#[derive(Debug)]
pub struct PrefilterMetrics(pub Arc<Prefilter>);

impl MetricSource for PrefilterMetrics {
    fn families(&self) -> Vec<Family> {
        self.0.seen().families()
    }
}

/// What is told, as it stood at one moment.
#[derive(Debug, Default)]
struct Seen {
    is_available: bool,
    hooks: Vec<PrefilterHookView>,
    /// By interface; several that are counted together are named together.
    counts: BTreeMap<String, Vec<PrefilterCountView>>,
    fills: Vec<MapFill>,
    sources: u64,
    policy: Option<PrefilterPolicyView>,
}

impl Prefilter {
    fn seen(&self) -> Seen {
        let inner = self.lock();
        Seen {
            is_available: inner.unavailable.is_none(),
            hooks: inner.all_hooks(Instant::now()),
            counts: inner.counts_by_interface(),
            fills: inner.fills(),
            sources: inner
                .filter
                .as_ref()
                .map_or(0, |filter| filter.source_count() as u64),
            policy: inner.lan.policy(),
        }
    }
}

impl Inner {
    fn counts_by_interface(&self) -> BTreeMap<String, Vec<PrefilterCountView>> {
        let mut by_interface: BTreeMap<String, Vec<PrefilterCountView>> = BTreeMap::new();
        if let Some(filter) = &self.filter {
            for (interfaces, places) in together(&self.places) {
                let mut sum = WanStats::default();
                for place in places {
                    // A kernel that made the map lets it be read.
                    if let Ok(stats) = filter.stats_at(place) {
                        sum.add(&stats);
                    }
                }
                by_interface.insert(interfaces, wan_counts(&sum));
            }
        }
        let lan = self.lan.counts();
        if !lan.is_empty() {
            let interface = self.lan.interface().to_owned();
            by_interface.entry(interface).or_default().extend(lan);
        }
        by_interface
    }

    fn fills(&self) -> Vec<MapFill> {
        let wan = self.filter.iter().flat_map(WanFilter::fills);
        wan.chain(self.lan.fills()).collect()
    }
}

/// The places of each interface. Interfaces that share one cannot be told apart, and are one: `eth0,eth1`.
fn together(places: &BTreeMap<u32, BTreeSet<String>>) -> BTreeMap<String, Vec<u32>> {
    let mut groups: Vec<(BTreeSet<String>, Vec<u32>)> = Vec::new();
    for (place, names) in places {
        let (mut all, mut at) = (names.clone(), vec![*place]);
        groups.retain(|(others, theirs)| {
            let is_apart = all.is_disjoint(others);
            if !is_apart {
                all.extend(others.iter().cloned());
                at.extend(theirs);
            }
            is_apart
        });
        groups.push((all, at));
    }
    let named = groups.into_iter().map(|(names, places)| {
        let names: Vec<String> = names.into_iter().collect();
        (names.join(","), places)
    });
    named.collect()
}

impl Seen {
    fn families(&self) -> Vec<Family> {
        let mut available = Family::gauge(
            "patronus_prefilter_available",
            "Whether programs can be put into this kernel; 1 also where none is wanted.",
        );
        available.count(&[], u64::from(self.is_available));
        let mut attached = Family::gauge(
            "patronus_prefilter_attached",
            "Whether the pre-filter looks at an interface's packets, and at which hook (xdp, xdp-generic, tcx, clsact; \
             none where it is not attached).",
        );
        for hook in &self.hooks {
            let labels = [
                ("interface", hook.interface.as_str()),
                ("side", hook.side.name()),
                ("hook", hook.hook.as_deref().unwrap_or("none")),
            ];
            attached.count(&labels, u64::from(hook.hook.is_some()));
        }
        let mut packets = Family::counter(
            "patronus_prefilter_packets",
            "Frames that the pre-filter judged in the kernel, by verdict (pass, drop) and reason.",
        );
        let mut bytes = Family::counter(
            "patronus_prefilter_bytes",
            "Bytes of the frames that the pre-filter judged.",
        );
        for (interface, counts) in &self.counts {
            for count in counts {
                let labels = [
                    ("interface", interface.as_str()),
                    ("side", count.side.name()),
                    ("verdict", if count.is_drop { "drop" } else { "pass" }),
                    ("reason", count.reason.as_str()),
                ];
                packets.count(&labels, count.packets);
                bytes.count(&labels, count.bytes);
            }
        }
        let mut entries = Family::gauge(
            "patronus_prefilter_map_entries",
            "Entries in use of a table in the kernel.",
        );
        let mut most = Family::gauge(
            "patronus_prefilter_map_entries_max",
            "The most entries that a table in the kernel may have; policy beyond it is judged by the workers alone.",
        );
        for fill in &self.fills {
            entries.count(&[("map", fill.map)], fill.entries);
            most.count(&[("map", fill.map)], fill.entries_max);
        }
        let mut sources = Family::gauge(
            "patronus_prefilter_source_prefixes",
            "Prefixes of the list of sources in force: block lists, bogons and peers.",
        );
        sources.count(&[], self.sources);
        let mut left = Family::gauge(
            "patronus_prefilter_policy_left",
            "Subjects of policy that found no place in the kernel and are the workers' alone.",
        );
        if let Some(policy) = &self.policy {
            left.count(&[], policy.left_to_workers as u64);
        }
        vec![
            available, attached, packets, bytes, entries, most, sources, left,
        ]
    }
}

/// For tests of what is made of all metrics: each of these has a series.
#[cfg(test)]
pub fn sample() -> Vec<Family> {
    use patronus_api::{PrefilterSideView, PrefilterStateView};

    let count = |side, reason: &str, is_drop| PrefilterCountView {
        side,
        reason: reason.to_owned(),
        is_drop,
        packets: 3,
        bytes: 300,
    };
    let hook = |interface: &str, side, hook: Option<&str>| PrefilterHookView {
        interface: interface.to_owned(),
        side,
        state: PrefilterStateView::Attached,
        hook: hook.map(str::to_owned),
        why: None,
        attached_s: None,
    };
    let (wan, lan) = (PrefilterSideView::Wan, PrefilterSideView::Lan);
    let seen = Seen {
        is_available: true,
        hooks: vec![
            hook("eth0", wan, Some("xdp")),
            hook("eth1", wan, None),
            hook("patronus0", lan, Some("tcx")),
        ],
        counts: BTreeMap::from([
            (
                "eth0".to_owned(),
                vec![
                    count(wan, "pass_data", false),
                    count(wan, "drop_type", true),
                ],
            ),
            ("patronus0".to_owned(), vec![count(lan, "denied", true)]),
        ]),
        fills: vec![MapFill {
            map: "wan_receivers",
            entries: 5,
            entries_max: 262_144,
        }],
        sources: 7,
        policy: Some(PrefilterPolicyView {
            generation: 3,
            left_to_workers: 0,
            notes: Vec::new(),
        }),
    };
    seen.families()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{lint, to_text};

    #[test]
    fn the_series_hold_to_the_rules_and_name_interface_verdict_and_reason() {
        let text = to_text(sample()).unwrap();
        assert_eq!(lint::faults(&text), Vec::<String>::new());
        for line in [
            "patronus_prefilter_attached{interface=\"eth0\",side=\"wan\",hook=\"xdp\"} 1",
            "patronus_prefilter_attached{interface=\"eth1\",side=\"wan\",hook=\"none\"} 0",
            "patronus_prefilter_packets_total{interface=\"eth0\",side=\"wan\",verdict=\"drop\",reason=\"drop_type\"} 3",
            "patronus_prefilter_bytes_total{interface=\"patronus0\",side=\"lan\",verdict=\"drop\",reason=\"denied\"} 300",
            "patronus_prefilter_map_entries{map=\"wan_receivers\"} 5",
            "patronus_prefilter_map_entries_max{map=\"wan_receivers\"} 262144",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[test]
    fn one_that_filters_nothing_says_so_and_counts_nothing() {
        let metrics = PrefilterMetrics(Arc::new(Prefilter::new()));
        let text = to_text(metrics.families()).unwrap();
        assert_eq!(lint::faults(&text), Vec::<String>::new());
        assert!(text.contains("patronus_prefilter_available 1"), "{text}");
        assert!(!text.contains("patronus_prefilter_packets_total"), "{text}");
    }

    #[test]
    fn interfaces_that_share_a_place_are_one_and_an_interface_that_came_back_has_two_places() {
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|it| (*it).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let places = BTreeMap::from([
            (1, set(&["eth0"])),
            (2, set(&["eth1", "wwan0"])),
            (9, set(&["eth0"])),
            (12, set(&["wwan0"])),
            (13, set(&["eth2"])),
        ]);
        let told = together(&places);
        let mut told: Vec<(String, Vec<u32>)> = told.into_iter().collect();
        told.iter_mut()
            .for_each(|(_, places)| places.sort_unstable());
        assert_eq!(
            told,
            [
                ("eth0".to_owned(), vec![1, 9]),
                ("eth1,wwan0".to_owned(), vec![2, 12]),
                ("eth2".to_owned(), vec![13]),
            ]
        );
    }
}
