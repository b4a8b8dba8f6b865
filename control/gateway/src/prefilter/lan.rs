//! Policy in the kernel: the twin of the workers' tables, at the door of the tunnel's interface.
//!
//! It drops only what the workers would drop, so whatever goes wrong here costs speed and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use patronus_api::{
    PrefilterCountView, PrefilterHookView, PrefilterPolicyView, PrefilterSideView,
    PrefilterStateView,
};
use patronus_config::LanHook;
use patronus_ebpf::lan::{LanFilter, LanOptions, LanReason, LanStats};
use patronus_ebpf::{MapFill, Support};
use patronus_engine::{Policy, Refusal};

use super::lan_tables::{lan_tables, overflow_names};
use super::{Inner, Prefilter};
use crate::api::{Hits, RuleHits, WorkerCounts};

/// Policy in the kernel, and what is known of it.
#[derive(Debug, Default)]
pub struct Lan {
    /// The tunnel's interface.
    interface: String,
    is_wanted: bool,
    filter: Option<LanFilter>,
    since: Option<Instant>,
    /// Why it is not at work, where it should be.
    why: Option<String>,
    /// What was published last.
    edition: Option<Edition>,
    /// Subjects that found no place.
    left: Vec<String>,
}

/// What two policies differ by, as far as the kernel sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edition {
    generation: u64,
    keep_established: bool,
    refusal: Refusal,
}

impl Prefilter {
    /// Puts a policy in force in the kernel; to be called before the workers get it. Without one, or where none is
    /// wanted there, the kernel passes everything.
    pub fn publish(&self, interface: &str, policy: Option<&Policy>) {
        let mut inner = self.lock();
        let is_wanted = inner.wanted.settings.lan == LanHook::Auto;
        inner.lan.publish(interface, policy.filter(|_| is_wanted));
    }

    /// Packets that the kernel denied, by rule; 0 is what has no rule.
    pub fn denied(&self) -> BTreeMap<u32, u64> {
        let inner = self.lock();
        let stats = inner.lan.stats();
        let rules = stats.into_iter().flat_map(|stats| stats.rules);
        rules
            .map(|(rule, traffic)| (rule, traffic.packets))
            .collect()
    }
}

/// What rules refused, in the workers and in the kernel together.
#[derive(Debug)]
pub struct DeniedEverywhere {
    /// The workers' part.
    pub workers: WorkerCounts,
    /// The kernel's: packets alone. Of denied connections it lets the workers tell.
    pub prefilter: Arc<Prefilter>,
}

impl RuleHits for DeniedEverywhere {
    fn counts(&self) -> Option<BTreeMap<u32, Hits>> {
        let mut sums = self.workers.counts()?;
        for (rule, packets) in self.prefilter.denied() {
            sums.entry(rule).or_default().counter.packets += packets;
        }
        Some(sums)
    }
}

impl Lan {
    fn publish(&mut self, interface: &str, policy: Option<&Policy>) {
        interface.clone_into(&mut self.interface);
        self.is_wanted = policy.is_some();
        let Some(policy) = policy else {
            if self.filter.take().is_some() {
                tracing::info!("policy in the kernel: off");
            }
            *self = Self {
                interface: std::mem::take(&mut self.interface),
                ..Self::default()
            };
            return;
        };
        let edition = Edition {
            generation: policy.table.generation(),
            keep_established: policy.keep_established,
            refusal: policy.refusal,
        };
        if self.edition == Some(edition) {
            return;
        }
        self.edition = Some(edition);
        let published = self.load().and_then(|filter| {
            let tables = lan_tables(policy);
            match filter.publish(&tables) {
                Ok(overflow) => Ok(overflow_names(&policy.table, &tables, &overflow)),
                Err(error) => {
                    // What the policy before denied may be allowed by this one.
                    filter.suspend();
                    Err(error.to_string())
                }
            }
        });
        match published {
            Ok(left) => {
                if !left.is_empty() && left != self.left {
                    tracing::warn!(
                        "policy in the kernel: no room for {}; the workers alone judge them",
                        shown(&left)
                    );
                }
                (self.left, self.why) = (left, None);
            }
            Err(why) => {
                if self.why.as_ref() != Some(&why) {
                    tracing::warn!("policy in the kernel: {why}; the workers alone enforce it");
                }
                self.why = Some(why);
            }
        }
    }

    /// The program at its place.
    fn load(&mut self) -> Result<&mut LanFilter, String> {
        if self.filter.is_none() {
            if let Some(why) = Support::probe().refusal() {
                return Err(why);
            }
            let loaded = LanFilter::load(LanOptions::default());
            let mut filter = loaded.map_err(|error| error.to_string())?;
            let hook = LanFilter::choose_hook();
            let attached = filter.attach(&self.interface, hook);
            attached.map_err(|error| error.to_string())?;
            tracing::info!(interface = self.interface, %hook, "policy in the kernel: attached");
            self.since = Some(Instant::now());
            self.filter = Some(filter);
        }
        self.filter.as_mut().ok_or_else(String::new)
    }

    fn stats(&self) -> Option<LanStats> {
        // A kernel that made the maps lets them be read.
        self.filter.as_ref()?.stats().ok()
    }

    /// What became of packets.
    pub(super) fn counts(&self) -> Vec<PrefilterCountView> {
        let stats = self.stats();
        let reasons = stats.iter().flat_map(|stats| &stats.reasons);
        reasons
            .map(|(reason, traffic)| PrefilterCountView {
                side: PrefilterSideView::Lan,
                reason: reason.name().to_owned(),
                is_drop: *reason == LanReason::Denied,
                packets: traffic.packets,
                bytes: traffic.bytes,
            })
            .collect()
    }

    /// The tunnel's interface.
    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// How full its tables are.
    pub(super) fn fills(&self) -> Vec<MapFill> {
        self.filter.iter().flat_map(LanFilter::fills).collect()
    }

    /// Where it is; `None` where nobody wants it.
    pub(super) fn hook(&self, now: Instant) -> Option<PrefilterHookView> {
        if !self.is_wanted {
            return None;
        }
        let attachment = self.filter.as_ref().and_then(LanFilter::attachment);
        let since = self.since.filter(|_| attachment.is_some());
        Some(PrefilterHookView {
            interface: self.interface.clone(),
            side: PrefilterSideView::Lan,
            state: match attachment {
                Some(_) => PrefilterStateView::Attached,
                None => PrefilterStateView::Refused,
            },
            hook: attachment.map(|it| it.hook().as_str().to_owned()),
            why: self.why.clone(),
            attached_s: since.map(|since| now.saturating_duration_since(since).as_secs()),
        })
    }

    /// What it holds.
    pub(super) fn policy(&self) -> Option<PrefilterPolicyView> {
        let generation = self.filter.as_ref()?.generation()?;
        let left = &self.left;
        let notes = match left.is_empty() {
            true => Vec::new(),
            false => vec![format!("no room for {}", shown(left))],
        };
        Some(PrefilterPolicyView {
            generation,
            left_to_workers: left.len(),
            notes,
        })
    }

    /// Takes it off, at the gateway's end.
    pub(super) fn close(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.detach();
        }
    }
}

impl Inner {
    /// The hooks of both sides.
    pub(super) fn all_hooks(&self, now: Instant) -> Vec<PrefilterHookView> {
        let mut hooks = self.hooks(now);
        hooks.extend(self.lan.hook(now));
        hooks
    }
}

/// The first of many names.
fn shown(names: &[String]) -> String {
    let first = names
        .iter()
        .take(NAMES_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

const NAMES_MAX: usize = 5;
