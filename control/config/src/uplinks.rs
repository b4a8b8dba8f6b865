//! `[[uplink]]`: the gateway's ways out, and what may stand there.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::check::{integer, parsed, word};
use crate::diagnostic::{Line, Report};
use crate::model::{DEFAULT_LISTEN_PORT, FirewallMark, InterfaceName, Name};
use crate::raw::{Raw, RawUplink};

/// Every `[[uplink]]`, at least one, and what they share: the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplinks {
    /// UDP port of all uplinks; 0 takes any free one.
    pub listen_port: u16,
    /// Mark on every outer packet (`SO_MARK`).
    pub mark: Option<FirewallMark>,
    list: Vec<Uplink>,
}

/// One `[[uplink]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The uplink's name.
    pub name: Name,
    /// The interface to leave by; `None`, which only a lone uplink may be, follows the routes.
    pub interface: Option<InterfaceName>,
    /// What the operator thinks of it: lower is better.
    pub cost: u16,
    /// Capacity outwards.
    pub up: Option<Rate>,
    /// Capacity inwards.
    pub down: Option<Rate>,
    /// Whether its bytes cost money.
    pub is_metered: bool,
    /// How often paths over it are probed.
    pub probing: Probing,
    /// How its packets get between the interface and the workers.
    pub io: UplinkIo,
}

/// How packets get between an uplink's interface and the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UplinkIo {
    /// `udp`: by UDP sockets, through the kernel's stack, with its offloads.
    #[default]
    Udp,
    /// `af-xdp`: by AF_XDP where that is possible, and by UDP sockets where not.
    AfXdp,
}

impl UplinkIo {
    /// Every kind with the word for it.
    pub const WORDS: [(&'static str, Self); 2] = [("udp", Self::Udp), ("af-xdp", Self::AfXdp)];
}

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    bps: u64,
}

impl Rate {
    /// The least, in Mbit/s.
    pub const MIN_MBIT: f64 = 0.01;
    /// The most, in Mbit/s.
    pub const MAX_MBIT: f64 = 1_000_000.0;

    /// `None` out of range.
    pub fn from_mbit(mbit: f64) -> Option<Self> {
        (Self::MIN_MBIT..=Self::MAX_MBIT)
            .contains(&mbit)
            .then_some(Self {
                bps: (mbit * 1e6).round() as u64,
            })
    }

    /// In bits per second.
    pub fn bps(self) -> f64 {
        self.bps as f64
    }
}

/// How often a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Between probes while the path carries traffic.
    pub active: Duration,
    /// Between probes while it carries none; no shorter than `active`.
    pub idle: Duration,
    /// Probes that may be missing before the path counts as down; 2 or more.
    pub multiplier: u8,
}

impl Probing {
    /// 50 ms where bytes are free and 200 ms where they cost, 1 s without traffic, down after five.
    pub fn new(is_metered: bool) -> Self {
        let active_ms = if is_metered { 200 } else { 50 };
        Self {
            active: Duration::from_millis(active_ms),
            idle: Duration::from_millis(PROBE_IDLE_MS),
            multiplier: PROBE_MULTIPLIER,
        }
    }
}

impl Default for Uplink {
    /// The uplink of a file that names none: `wan`, by the routes.
    fn default() -> Self {
        Self {
            name: Name::wan(),
            interface: None,
            cost: COST,
            up: None,
            down: None,
            is_metered: false,
            probing: Probing::new(false),
            io: UplinkIo::Udp,
        }
    }
}

impl Default for Uplinks {
    /// One that follows the routes, on port 51820.
    fn default() -> Self {
        Self {
            listen_port: DEFAULT_LISTEN_PORT,
            mark: None,
            list: vec![Uplink::default()],
        }
    }
}

impl Uplinks {
    /// Most uplinks of one gateway.
    pub const COUNT_MAX: usize = 16;

    /// The uplinks, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Uplink> {
        self.list.iter()
    }

    /// How many there are, never 0.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The uplink, where there is only one.
    pub fn lone(&self) -> Option<&Uplink> {
        match self.list.as_slice() {
            [lone] => Some(lone),
            _ => None,
        }
    }
}

/// The uplinks, with the line of each that the file has.
#[derive(Clone, Debug)]
pub(crate) struct DraftUplinks {
    pub(crate) uplinks: Uplinks,
    pub(crate) lines: Vec<Line>,
}

impl DraftUplinks {
    /// Refuses the tunnel's own interface as a way out.
    pub(crate) fn refuse_tunnel(&self, tunnel: &InterfaceName, report: &mut Report) {
        for (uplink, line) in self.uplinks.list.iter().zip(&self.lines) {
            if uplink.interface.as_ref() == Some(tunnel) {
                report.at(
                    *line,
                    format!(
                        "[[uplink]] interface: {tunnel} is the tunnel's own interface: name the one that leads out"
                    ),
                );
            }
        }
    }
}

pub(crate) fn check_uplinks(raw: Vec<RawUplink>, report: &mut Report) -> DraftUplinks {
    let several = raw.len() > 1;
    if let Some(extra) = raw.get(Uplinks::COUNT_MAX) {
        report.at(
            extra.line,
            format!(
                "[[uplink]]: {} uplinks, and {} are the most: remove some",
                raw.len(),
                Uplinks::COUNT_MAX
            ),
        );
    }
    let (mut ports, mut marks) = (Shared::new("listen_port"), Shared::new("mark"));
    let (mut list, mut lines) = (Vec::new(), Vec::new());
    for uplink in raw {
        lines.push(uplink.line);
        let line = uplink.listen_port.as_ref().map(|port| port.line);
        let place = "[[uplink]] listen_port";
        let port = integer(uplink.listen_port.as_ref(), place, 0..=u16::MAX, report);
        ports.take(port, line, report);
        let line = uplink.mark.as_ref().map(|mark| mark.line);
        let mark = integer(
            uplink.mark.as_ref(),
            "[[uplink]] mark",
            0..=u32::MAX,
            report,
        );
        marks.take(mark, line, report);
        list.push(check_uplink(uplink, several, report));
    }
    refuse_repeats(&list, &lines, report);
    if list.is_empty() {
        list.push(Uplink::default());
    }
    let uplinks = Uplinks {
        listen_port: ports.value.unwrap_or(DEFAULT_LISTEN_PORT),
        mark: marks.value.and_then(NonZeroU32::new).map(FirewallMark::new),
        list,
    };
    DraftUplinks { uplinks, lines }
}

fn check_uplink(mut raw: RawUplink, several: bool, report: &mut Report) -> Uplink {
    let missing = |key: &str, value: &Option<Raw<String>>| {
        several && value.is_none() && !raw.broken.contains(&key)
    };
    for (key, value, example) in [
        ("name", &raw.name, "fiber"),
        ("interface", &raw.interface, "eth0"),
    ] {
        if missing(key, value) {
            report.at(
                raw.line,
                format!(
                    "[[uplink]] {key} is missing: with several uplinks each needs one: add {key} = \"{example}\""
                ),
            );
        }
    }
    let is_metered = raw.metered.as_ref().is_some_and(|metered| metered.value);
    let defaults = Uplink {
        is_metered,
        probing: Probing::new(is_metered),
        ..Uplink::default()
    };
    let cost = integer(raw.cost.as_ref(), "[[uplink]] cost", 0..=u16::MAX, report);
    let io_line = raw.io.as_ref().map(|io| io.line);
    let io = word(
        raw.io.take(),
        "[[uplink]] io: unknown kind",
        &UplinkIo::WORDS,
        report,
    )
    .unwrap_or_default();
    if let (UplinkIo::AfXdp, None, Some(line)) = (io, &raw.interface, io_line)
        && !raw.broken.contains(&"interface")
    {
        report.at(
            line,
            "[[uplink]] io: af-xdp takes the queues of one interface: add interface = \"eth0\""
                .to_owned(),
        );
    }
    Uplink {
        probing: check_probing(&raw, defaults.probing, report),
        up: rate(raw.up_mbit, "[[uplink]] up_mbit", report),
        down: rate(raw.down_mbit, "[[uplink]] down_mbit", report),
        name: parsed(raw.name, "[[uplink]] name", report).unwrap_or(defaults.name),
        interface: parsed(raw.interface, "[[uplink]] interface", report),
        cost: cost.unwrap_or(defaults.cost),
        is_metered,
        io,
    }
}

fn check_probing(raw: &RawUplink, defaults: Probing, report: &mut Report) -> Probing {
    let mut millis = |value: &Option<Raw<i64>>, place, range| {
        integer(value.as_ref(), place, range, report).map(Duration::from_millis)
    };
    let active = millis(&raw.probe_ms, "[[uplink]] probe_ms", PROBE_MS);
    let idle = millis(&raw.probe_idle_ms, "[[uplink]] probe_idle_ms", PROBE_MS);
    let active = active.unwrap_or(defaults.active);
    if let (Some(idle), Some(raw)) = (idle, &raw.probe_idle_ms)
        && idle < active
    {
        report.at(
            raw.line,
            format!(
                "[[uplink]] probe_idle_ms: {} is shorter than the {} ms of probe_ms: write {1} or more",
                idle.as_millis(),
                active.as_millis()
            ),
        );
    }
    let multiplier = integer(
        raw.probe_multiplier.as_ref(),
        "[[uplink]] probe_multiplier",
        2..=100,
        report,
    );
    Probing {
        active,
        idle: idle.unwrap_or(defaults.idle.max(active)),
        multiplier: multiplier.unwrap_or(defaults.multiplier),
    }
}

/// A rate in Mbit/s.
pub(crate) fn rate(raw: Option<Raw<f64>>, place: &str, report: &mut Report) -> Option<Rate> {
    let raw = raw?;
    let rate = Rate::from_mbit(raw.value);
    if rate.is_none() {
        report.at(
            raw.line,
            format!(
                "{place}: {} is out of range: write Mbit/s from {} to {}",
                raw.value,
                Rate::MIN_MBIT,
                Rate::MAX_MBIT
            ),
        );
    }
    rate
}

fn refuse_repeats(list: &[Uplink], lines: &[Line], report: &mut Report) {
    let mut names: HashMap<&Name, Line> = HashMap::new();
    let mut interfaces: HashMap<&InterfaceName, Line> = HashMap::new();
    for (uplink, line) in list.iter().zip(lines) {
        if let Some(other) = names.insert(&uplink.name, *line) {
            report.at(
                *line,
                format!(
                    "[[uplink]] name: `{}` is the name of the uplink of line {other} too: rename one",
                    uplink.name
                ),
            );
        }
        if let Some(interface) = &uplink.interface
            && let Some(other) = interfaces.insert(interface, *line)
        {
            report.at(
                *line,
                format!(
                    "[[uplink]] interface: {interface} is the interface of the uplink of line {other} too: \
                     an interface is one uplink"
                ),
            );
        }
    }
}

/// A value that belongs to all uplinks: it may stand at one of them, or at several if it is the same.
struct Shared<T> {
    key: &'static str,
    value: Option<T>,
    line: Option<Line>,
}

impl<T: Copy + PartialEq + std::fmt::Display> Shared<T> {
    fn new(key: &'static str) -> Self {
        Self {
            key,
            value: None,
            line: None,
        }
    }

    fn take(&mut self, value: Option<T>, line: Option<Line>, report: &mut Report) {
        let (Some(value), Some(line)) = (value, line) else {
            return;
        };
        match (self.value, self.line) {
            (Some(known), Some(at)) if known != value => report.at(
                line,
                format!(
                    "[[uplink]] {0}: {value} here and {known} in line {at}: all uplinks share the sockets; \
                     write {0} once",
                    self.key
                ),
            ),
            (Some(_), _) => {}
            (None, _) => (self.value, self.line) = (Some(value), Some(line)),
        }
    }
}

const COST: u16 = 10;
const PROBE_IDLE_MS: u64 = 1000;
const PROBE_MULTIPLIER: u8 = 5;
/// Below 20 ms a probe measures schedulers more than paths; beyond a minute it measures nothing.
const PROBE_MS: std::ops::RangeInclusive<u64> = 20..=60_000;
