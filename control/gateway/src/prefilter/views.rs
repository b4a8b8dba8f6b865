//! The pre-filter as answers, reports and the status line tell it.

use std::time::Instant;

use patronus_api::{
    PrefilterCountView, PrefilterHookView, PrefilterResponse, PrefilterSideView,
    PrefilterStateView, PrefilterSummary,
};
use patronus_config::WanHook;
use patronus_ebpf::WanStats;

use super::{Guarded, Inner, Order, Prefilter};

impl Prefilter {
    /// Everything, for the local API.
    pub fn view(&self, now: Instant) -> PrefilterResponse {
        let inner = self.lock();
        let settings = &inner.wanted.settings;
        PrefilterResponse {
            wan: settings.wan.word().to_owned(),
            lan: settings.lan.word().to_owned(),
            unavailable: inner.unavailable.clone(),
            hooks: inner.all_hooks(now),
            bogons: settings.bogons,
            known_receivers: settings.known_receivers,
            initiations_per_second: settings.initiations.per_second(),
            initiations_burst: settings.initiations.burst(),
            block_lists: inner.lists.views(),
            counts: inner.counts(),
            policy: inner.lan.policy(),
        }
    }

    /// The one line of `patronus status`.
    pub fn summary(&self) -> PrefilterSummary {
        let inner = self.lock();
        let hooks = inner.all_hooks(Instant::now());
        let counts = inner.counts();
        let drops = counts.iter().filter(|count| count.is_drop);
        let dropped = drops.map(|count| count.packets).sum();
        PrefilterSummary {
            is_complete: inner.unavailable.is_none() && !hooks.iter().any(|it| it.state.is_fault()),
            text: inner.text(&hooks),
            dropped,
        }
    }

    /// What became of packets, by reason; nothing where it never was in the kernel.
    pub fn counts(&self) -> Vec<PrefilterCountView> {
        self.lock().counts()
    }
}

impl Inner {
    fn stats(&self) -> Option<WanStats> {
        // A kernel that made the map lets it be read.
        self.filter.as_ref()?.stats().ok()
    }

    pub(super) fn hooks(&self, now: Instant) -> Vec<PrefilterHookView> {
        let hooks = self.guarded.iter();
        hooks
            .map(|(name, guarded)| {
                guarded.view(name, self.wanted.settings.wan, self.filter.is_some(), now)
            })
            .collect()
    }

    fn counts(&self) -> Vec<PrefilterCountView> {
        let stats = self.stats();
        let wan = stats.iter().flat_map(wan_counts);
        wan.chain(self.lan.counts()).collect()
    }

    /// `tcx on eth0, wwan0`, `off`, `not available: …`
    fn text(&self, hooks: &[PrefilterHookView]) -> String {
        if let Some(why) = &self.unavailable {
            return format!("not available: {why}");
        }
        if hooks.is_empty() {
            return match self.wanted.settings.wan {
                WanHook::Off => "off".to_owned(),
                _ => "waits for an interface that leads out".to_owned(),
            };
        }
        let words = hooks.iter().map(|hook| match (&hook.hook, hook.state) {
            (Some(at), _) => format!("{at} on {}", hook.interface),
            (None, state) => format!("{} on {}", state.words(), hook.interface),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// What became of packets on the uplinks' side, by reason.
pub(super) fn wan_counts(stats: &WanStats) -> Vec<PrefilterCountView> {
    let reasons = stats.reasons();
    let counts = reasons.map(|(reason, count)| PrefilterCountView {
        side: PrefilterSideView::Wan,
        reason: reason.as_str().to_owned(),
        is_drop: reason.is_drop(),
        packets: count.packets,
        bytes: count.bytes,
    });
    counts.collect()
}

impl Guarded {
    fn view(
        &self,
        name: &str,
        configured: WanHook,
        is_loaded: bool,
        now: Instant,
    ) -> PrefilterHookView {
        let is_detached = self.order == Some(Order::Detach);
        let state = match (&self.attachment, self.wants(configured)) {
            (Some(_), _) => PrefilterStateView::Attached,
            (None, WanHook::Off) if is_detached => PrefilterStateView::Detached,
            (None, WanHook::Off) => PrefilterStateView::Off,
            (None, _) if self.is_absence_told => PrefilterStateView::Absent,
            (None, _) if is_loaded => PrefilterStateView::Refused,
            // Why is told of the filter as a whole.
            (None, _) => PrefilterStateView::Off,
        };
        let since = self.since.filter(|_| self.attachment.is_some());
        PrefilterHookView {
            interface: name.to_owned(),
            side: PrefilterSideView::Wan,
            state,
            hook: self
                .attachment
                .as_ref()
                .map(|it| it.hook().as_str().to_owned()),
            why: self.why.clone(),
            attached_s: since.map(|since| now.saturating_duration_since(since).as_secs()),
        }
    }
}
