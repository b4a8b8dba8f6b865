//! `[prefilter]`: what is thrown away in the kernel before it costs anything, and where.

use std::path::PathBuf;

use crate::check::{integer, parsed, path, word};
use crate::diagnostic::Report;
use crate::model::InterfaceName;
use crate::raw::RawPrefilter;

/// `[prefilter]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefilterSettings {
    /// Where the filter of the uplinks is hooked in.
    pub wan: WanHook,
    /// The interfaces that it guards; empty for those that the uplinks use.
    pub interfaces: Vec<InterfaceName>,
    /// Files of prefixes whose packets are dropped, as the operator wrote them: relative to the folder of the
    /// configuration file.
    pub block_lists: Vec<PathBuf>,
    /// Whether sources that nobody on the Internet can have are dropped.
    pub bogons: bool,
    /// How many handshake initiations pass.
    pub initiations: InitiationLimit,
    /// Whether messages to receivers that the gateway has not handed out are dropped.
    pub known_receivers: bool,
    /// Whether policy is enforced in the kernel too.
    pub lan: LanHook,
}

/// Where the filter of the uplinks is hooked in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WanHook {
    /// `auto`: the best that the interface's driver and the kernel have.
    #[default]
    Auto,
    /// `xdp`: in the driver.
    Xdp,
    /// `xdp-generic`: where the kernel takes packets from a driver without XDP.
    XdpGeneric,
    /// `tcx`: at the ingress of traffic control, by link (Linux 6.6).
    Tcx,
    /// `clsact`: the same by a queueing discipline, for older kernels.
    Clsact,
    /// `off`: nowhere.
    Off,
}

impl WanHook {
    /// Every choice with the word for it.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("xdp", Self::Xdp),
        ("xdp-generic", Self::XdpGeneric),
        ("tcx", Self::Tcx),
        ("clsact", Self::Clsact),
        ("off", Self::Off),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Off => "off",
        }
    }
}

/// Whether policy is enforced in the kernel too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LanHook {
    /// `auto`: where there is a policy and the kernel has the hook.
    Auto,
    /// `off`: by the workers alone.
    #[default]
    Off,
}

impl LanHook {
    /// Every choice with the word for it.
    pub const WORDS: [(&'static str, Self); 2] = [("auto", Self::Auto), ("off", Self::Off)];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

/// How many handshake initiations pass from one IPv4 /24 or IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiationLimit {
    per_second: u32,
    burst: u32,
}

impl InitiationLimit {
    /// The most that can be asked for, of either.
    pub const MAX: u32 = 1_000_000;

    /// `None` out of range: from 1 to [`MAX`](Self::MAX) a second, and as many at once.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let range = 1..=Self::MAX;
        (range.contains(&per_second) && range.contains(&burst))
            .then_some(Self { per_second, burst })
    }

    /// For long.
    pub fn per_second(self) -> u32 {
        self.per_second
    }

    /// At once.
    pub fn burst(self) -> u32 {
        self.burst
    }
}

impl Default for InitiationLimit {
    /// 50 a second, 200 at once: a site initiates once in two minutes per lane, and every five seconds while nobody
    /// answers; a thousand sites behind one carrier's NAT are all back 16 s after an outage.
    fn default() -> Self {
        Self {
            per_second: 50,
            burst: 200,
        }
    }
}

/// `tunnel` is the tunnel's own interface, where it is known.
pub(crate) fn check_prefilter(
    raw: RawPrefilter,
    tunnel: Option<&InterfaceName>,
    report: &mut Report,
) -> PrefilterSettings {
    let place = "[prefilter] wan: unknown hook";
    let wan = word(raw.wan, place, &WanHook::WORDS, report);
    let place = "[prefilter] lan: unknown hook";
    let lan = word(raw.lan, place, &LanHook::WORDS, report);
    let mut interfaces: Vec<InterfaceName> = Vec::new();
    for name in raw.interfaces.map_or_else(Vec::new, |list| list.value) {
        let line = name.line;
        let Some(name) = parsed::<InterfaceName>(Some(name), "[prefilter] interfaces", report)
        else {
            continue;
        };
        if interfaces.contains(&name) {
            let message = format!("[prefilter] interfaces: {name} stands there twice: remove one");
            report.at(line, message);
            continue;
        }
        if tunnel == Some(&name) {
            let message = format!(
                "[prefilter] interfaces: {name} is the tunnel's own interface: name those that lead out"
            );
            report.at(line, message);
            continue;
        }
        interfaces.push(name);
    }
    let lists = raw.block_lists.map_or_else(Vec::new, |list| list.value);
    if let Some(extra) = lists.get(BLOCK_LISTS_MAX) {
        let message = format!(
            "[prefilter] block_lists: {} files, and {BLOCK_LISTS_MAX} are the most: join some",
            lists.len()
        );
        report.at(extra.line, message);
    }
    let mut block_lists: Vec<PathBuf> = Vec::new();
    for list in lists {
        let Some(list) = path(Some(list), "[prefilter] block_lists", report) else {
            continue;
        };
        if block_lists.contains(&list.value) {
            let message = "[prefilter] block_lists: a file stands there twice: remove one";
            report.at(list.line, message);
            continue;
        }
        block_lists.push(list.value);
    }
    let mut limit = |raw, place| integer(raw, place, 1..=InitiationLimit::MAX, report);
    let per_second = limit(
        raw.initiations_per_second.as_ref(),
        "[prefilter] initiations_per_second",
    );
    let burst = limit(
        raw.initiations_burst.as_ref(),
        "[prefilter] initiations_burst",
    );
    let usual = InitiationLimit::default();
    let per_second = per_second.unwrap_or(usual.per_second);
    // A burst below the rate would be the limit in its place.
    let burst = burst.unwrap_or(usual.burst.max(per_second));
    PrefilterSettings {
        wan: wan.unwrap_or_default(),
        interfaces,
        block_lists,
        bogons: raw.bogons.is_some_and(|bogons| bogons.value),
        initiations: InitiationLimit::new(per_second, burst).unwrap_or(usual),
        known_receivers: raw.known_receivers.is_some_and(|known| known.value),
        lan: lan.unwrap_or_default(),
    }
}

/// The most block lists.
pub const BLOCK_LISTS_MAX: usize = 64;
