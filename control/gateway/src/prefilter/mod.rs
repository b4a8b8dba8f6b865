//! The pre-filter in this gateway: where it is attached, what it filters by, what it counted.
//!
//! One value, shared by control, which tells it of configuration and of interfaces that come and go, and the local API,
//! which shows it and takes orders. Nothing on the packet path knows of it: a gateway without it does the same work, at
//! a higher price. Attachments are links of the kernel's, so they end with the process, however that ends; a reload swaps
//! what the maps hold and leaves the links alone.

pub mod interfaces;
mod lan;
pub mod lan_tables;
mod lists;
pub mod metrics;
mod orders;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use patronus_config::{PrefilterSettings, WanHook};
use patronus_ebpf::{
    AttachError, Attachment, Hook, InitiationLimit, Prefix, SourceVerdict, Sources, Support,
    WanConfig, WanFilter,
};

pub use lan::DeniedEverywhere;
use lan::Lan;
use lists::BlockLists;
pub use metrics::PrefilterMetrics;

/// The pre-filter. Its calls may take milliseconds, and some tenths of a second with long block lists.
#[derive(Debug)]
pub struct Prefilter {
    inner: Mutex<Inner>,
}

/// What the gateway tells its pre-filter.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `[prefilter]`
    pub settings: PrefilterSettings,
    /// Where relative paths of block lists begin.
    pub base: PathBuf,
    /// The UDP ports that this gateway receives on; others are none of its business.
    pub ports: Vec<u16>,
    /// Interfaces that lead out.
    pub interfaces: Vec<String>,
    /// Addresses of peers: they pass, whatever a list says.
    pub peers: Vec<IpAddr>,
}

#[derive(Debug, Default)]
struct Inner {
    wanted: Wanted,
    /// In the kernel, from the first time that it was wanted.
    filter: Option<WanFilter>,
    /// Why there is none, where one is wanted.
    unavailable: Option<String>,
    guarded: BTreeMap<String, Guarded>,
    lists: BlockLists,
    /// Receiver indices that are somebody's, where that is known.
    receivers: Option<Vec<u32>>,
    /// What the kernel refused of the settings last.
    refused_setting: Option<String>,
    /// Where which interfaces are counted, those included that are gone.
    places: BTreeMap<u32, BTreeSet<String>>,
    lan: Lan,
}

/// An interface that the filter should be on.
#[derive(Debug, Default)]
struct Guarded {
    attachment: Option<Attachment>,
    since: Option<Instant>,
    /// The interface, by index, and the hook that the last attempt was for; a refused one is not tried every second.
    settled_for: Option<(u32, WanHook)>,
    /// Whether that attempt was refused. What was attached before stays then.
    is_refused: bool,
    /// Why it is not attached, or why not to a better hook.
    why: Option<String>,
    /// What an operator ordered since the last reload.
    order: Option<Order>,
    /// Whether its absence was told.
    is_absence_told: bool,
}

/// What an operator wants of an interface, beside the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// To this hook.
    Attach(WanHook),
    /// Nowhere.
    Detach,
}

impl Prefilter {
    /// One that filters nothing.
    pub fn new() -> Self {
        Self {
            inner: Mutex::default(),
        }
    }

    /// Takes configuration, at the start and at each reload: lists are read again, and what operators ordered is
    /// forgotten. Between the old and the new there is no moment without a filter.
    pub fn configure(&self, wanted: Wanted) {
        let mut inner = self.lock();
        let is_off = wanted.settings.wan == WanHook::Off;
        let lists = &wanted.settings.block_lists;
        inner
            .lists
            .read(&wanted.base, if is_off { &[] } else { lists });
        inner.wanted = wanted;
        for guarded in inner.guarded.values_mut() {
            guarded.order = None;
            if guarded.is_refused {
                guarded.settled_for = None;
            }
        }
        inner.load();
        inner.fill();
        inner.reconcile();
    }

    /// Looks which interfaces there are: some may have come, gone, or come back as others of the same name. With
    /// `interfaces`, these lead out by now; one that did before and is still there stays guarded, for routes come back.
    /// Which are guarded.
    pub fn look(&self, interfaces: Option<Vec<String>>) -> Vec<String> {
        let mut inner = self.lock();
        if let Some(mut interfaces) = interfaces {
            let guarded = inner.guarded.iter();
            let kept = guarded.filter(|(name, it)| {
                it.attachment.is_some() && !interfaces.contains(name) && index_of(name).is_some()
            });
            let kept: Vec<String> = kept.map(|(name, _)| name.clone()).collect();
            interfaces.extend(kept);
            inner.wanted.interfaces = interfaces;
        }
        inner.reconcile();
        inner.guarded.keys().cloned().collect()
    }

    /// The gateway receives on other ports from here on, or its peers have other addresses.
    pub fn readdress(&self, ports: Vec<u16>, peers: Vec<IpAddr>) {
        let mut inner = self.lock();
        if (&inner.wanted.ports, &inner.wanted.peers) == (&ports, &peers) {
            return;
        }
        (inner.wanted.ports, inner.wanted.peers) = (ports, peers);
        inner.fill();
    }

    /// Which receiver indices are somebody's, without their low byte; `None` while that is not known.
    pub fn know_receivers(&self, known: Option<Vec<u32>>) {
        let mut inner = self.lock();
        if inner.receivers != known {
            inner.receivers = known;
            inner.fill_receivers();
        }
    }

    /// Whether receivers are to be checked at all.
    pub fn checks_receivers(&self) -> bool {
        let inner = self.lock();
        inner.wanted.settings.known_receivers && inner.filter.is_some()
    }

    /// Takes everything off, at the gateway's end.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.lan.close();
        inner.guarded.clear();
        inner.wanted = Wanted {
            settings: PrefilterSettings {
                wan: WanHook::Off,
                ..PrefilterSettings::default()
            },
            ..Wanted::default()
        };
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked in here left a filter that still filters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Prefilter {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Whether it should be anywhere: by configuration, or by an operator's order.
    fn is_wanted(&self) -> bool {
        let is_ordered = |guarded: &Guarded| matches!(guarded.order, Some(Order::Attach(_)));
        self.wanted.settings.wan != WanHook::Off || self.guarded.values().any(is_ordered)
    }

    /// Puts the programs into the kernel when they are first wanted.
    fn load(&mut self) {
        if self.filter.is_some() || !self.is_wanted() {
            if !self.is_wanted() {
                self.unavailable = None;
            }
            return;
        }
        let loaded = match Support::probe().refusal() {
            Some(why) => Err(why),
            None => WanFilter::load(&self.config()).map_err(|error| error.to_string()),
        };
        match loaded {
            Ok(filter) => (self.filter, self.unavailable) = (Some(filter), None),
            Err(why) => {
                if self.unavailable.as_ref() != Some(&why) {
                    self.tell_unavailable(&why);
                }
                self.unavailable = Some(why);
            }
        }
    }

    /// Once, and louder where the operator asked for a certain hook.
    fn tell_unavailable(&self, why: &str) {
        let text = "no pre-filter; the gateway works, but junk costs more";
        match self.wanted.settings.wan {
            WanHook::Auto => tracing::info!("{text}: {why}"),
            _ => tracing::warn!("{text}: {why}; [prefilter] wan = \"off\" ends this line"),
        }
    }

    /// What the program is told.
    fn config(&self) -> WanConfig {
        let settings = &self.wanted.settings;
        let mut sources = Sources::new();
        if settings.bogons {
            sources.add_bogons();
        }
        sources.extend(self.lists.prefixes(), SourceVerdict::Blocked);
        if !sources.is_empty() {
            let peers = self.wanted.peers.iter();
            let peers = peers.map(|addr| Prefix::around(*addr, u8::MAX));
            sources.extend(peers, SourceVerdict::Allowed);
        }
        let initiations = settings.initiations;
        WanConfig {
            ports: self.wanted.ports.clone(),
            sources,
            known_receivers: self.known_receivers(),
            limit: Some(InitiationLimit {
                per_second: initiations.per_second(),
                burst: initiations.burst(),
                ..InitiationLimit::DEFAULT
            }),
        }
    }

    fn known_receivers(&self) -> Option<Vec<u32>> {
        let known = self.receivers.as_ref();
        known
            .filter(|_| self.wanted.settings.known_receivers)
            .cloned()
    }

    /// Tells the program all of its settings; it works on meanwhile.
    fn fill(&mut self) {
        let config = self.config();
        if let Some(filter) = &mut self.filter {
            let told = filter.tell(&config).map_err(|error| error.to_string());
            self.note_setting(told);
        }
    }

    fn fill_receivers(&mut self) {
        let known = self.known_receivers();
        if let Some(filter) = &mut self.filter {
            let told = filter.set_known_receivers(known.as_deref());
            self.note_setting(told.map_err(|error| error.to_string()));
        }
    }

    /// What the kernel refuses is told once.
    fn note_setting(&mut self, told: Result<(), String>) {
        let refused = told.err();
        if let Some(why) = &refused
            && self.refused_setting.as_ref() != Some(why)
        {
            tracing::error!("pre-filter: {why}; the settings before stay in force");
        }
        self.refused_setting = refused;
    }

    /// Makes attachments what is wanted of the interfaces that there are.
    fn reconcile(&mut self) {
        let Self {
            wanted,
            filter,
            guarded,
            places,
            ..
        } = self;
        let is_wanted = |name: &String, guarded: &Guarded| {
            wanted.interfaces.contains(name) || matches!(guarded.order, Some(Order::Attach(_)))
        };
        guarded.retain(|name, guarded| is_wanted(name, guarded));
        for name in &wanted.interfaces {
            guarded.entry(name.clone()).or_default();
        }
        for (name, guarded) in guarded.iter_mut() {
            match filter {
                Some(filter) => guarded.settle(name, wanted.settings.wan, filter),
                None => {
                    // Why there is no filter is told of the filter as a whole.
                    guarded.is_absence_told = index_of(name).is_none();
                }
            }
            if let Some(attachment) = &guarded.attachment {
                let place = WanFilter::place_of(attachment.index());
                places.entry(place).or_default().insert(name.clone());
            }
        }
    }
}

impl Guarded {
    /// Attaches, moves or takes off, as the interface and what is wanted of it demand.
    fn settle(&mut self, name: &str, configured: WanHook, filter: &mut WanFilter) {
        let hook = self.wants(configured);
        if hook == WanHook::Off {
            self.take_off(name);
            return;
        }
        let Some(index) = self.look(name) else {
            return;
        };
        if self.settled_for == Some((index, hook)) {
            return;
        }
        self.settled_for = Some((index, hook));
        match self.attach(name, hook, filter) {
            Ok(why) => {
                (self.why, self.is_refused) = (why, false);
            }
            Err(why) => {
                let kept = match &self.attachment {
                    Some(old) => format!("; it stays at {}", old.hook()),
                    None => String::new(),
                };
                tracing::warn!(interface = name, "pre-filter not attached: {why}{kept}");
                (self.why, self.is_refused) = (Some(why), true);
            }
        }
    }

    /// The interface's index; where it is gone, or another has its name, the attachment is gone too.
    fn look(&mut self, name: &str) -> Option<u32> {
        let index = index_of(name);
        let is_old = |attachment: &Attachment| Some(attachment.index()) != index;
        if self.attachment.as_ref().is_some_and(is_old) {
            tracing::info!(interface = name, "pre-filter gone with its interface");
            (self.attachment, self.since, self.settled_for) = (None, None, None);
        }
        match index {
            Some(_) => self.is_absence_told = false,
            None if !self.is_absence_told => {
                tracing::info!(
                    interface = name,
                    "pre-filter waits for its interface: it is attached as soon as that appears"
                );
                self.is_absence_told = true;
                (self.why, self.is_refused, self.settled_for) = (None, false, None);
            }
            None => {}
        }
        index
    }

    fn take_off(&mut self, name: &str) {
        if self.attachment.take().is_some() {
            tracing::info!(interface = name, "pre-filter detached");
        }
        *self = Self {
            order: self.order,
            is_absence_told: self.is_absence_told,
            ..Self::default()
        };
    }

    /// Attaches to the first hook that takes it; why it is that one, where the choice was ours.
    fn attach(
        &mut self,
        name: &str,
        hook: WanHook,
        filter: &mut WanFilter,
    ) -> Result<Option<String>, String> {
        let (candidates, mut why) = candidates(name, hook)?;
        let mut refused = String::new();
        for candidate in candidates {
            if self
                .attachment
                .as_ref()
                .is_some_and(|old| old.hook() == candidate)
            {
                return Ok(why);
            }
            match self.replace(name, candidate, filter) {
                Ok(()) => {
                    tracing::info!(interface = name, hook = %candidate, "pre-filter attached");
                    if !refused.is_empty() {
                        why = Some(refused);
                    }
                    return Ok(why);
                }
                Err(error) => {
                    if !refused.is_empty() {
                        refused += "; ";
                    }
                    refused += &error.to_string();
                }
            }
        }
        Err(refused)
    }

    /// The new attachment is there before the old one goes, but for two modes of XDP: the kernel has one at a time.
    fn replace(
        &mut self,
        name: &str,
        hook: Hook,
        filter: &mut WanFilter,
    ) -> Result<(), AttachError> {
        let is_xdp = |hook| matches!(hook, Hook::XdpNative | Hook::XdpGeneric);
        let old = self.attachment.as_ref().map(Attachment::hook);
        let attached = match old {
            Some(old) if is_xdp(old) && is_xdp(hook) => {
                self.attachment = None;
                filter.attach(name, hook).inspect_err(|_| {
                    // Better the hook that works than none.
                    self.attachment = filter.attach(name, old).ok();
                })
            }
            _ => filter.attach(name, hook),
        };
        self.attachment = Some(attached?);
        self.since = Some(Instant::now());
        Ok(())
    }
}

/// The hooks to try, and why the first of them, where the choice is ours.
fn candidates(name: &str, hook: WanHook) -> Result<(Vec<Hook>, Option<String>), String> {
    let only = |hook| Ok((vec![hook], None));
    match hook {
        WanHook::Xdp => only(Hook::XdpNative),
        WanHook::XdpGeneric => only(Hook::XdpGeneric),
        WanHook::Tcx => only(Hook::Tcx),
        WanHook::Clsact => only(Hook::Clsact),
        WanHook::Off => Ok((Vec::new(), None)),
        WanHook::Auto => {
            let choice = Hook::choose(name).map_err(|error| error.to_string())?;
            let support = Support::probe();
            let mut hooks = vec![choice.hook];
            // Another program may have XDP's one place, and a driver may refuse for reasons of its own.
            let others = [Hook::Tcx, Hook::Clsact];
            let others = others.into_iter().filter(|hook| support.has(*hook).is_ok());
            hooks.extend(others.filter(|hook| *hook != choice.hook));
            Ok((hooks, Some(choice.why)))
        }
    }
}

/// The index of the interface of that name in this process's network namespace.
fn index_of(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}
