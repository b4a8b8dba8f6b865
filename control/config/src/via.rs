//! `via` of a `[[peer]]`: whether the networks behind it answer, and what becomes of their packets when they do not.

use std::net::IpAddr;
use std::time::Duration;

use patronus_packet::Prefix;

use crate::check::{integer, prefix, word};
use crate::diagnostic::{Report, quote};
use crate::raw::{Raw, RawVia};

/// A prefix behind a peer, and whom to ask whether it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// One of the peer's allowed IPs.
    pub prefix: Prefix,
    /// Machines in it that answer pings; one that does is enough.
    pub probes: Vec<IpAddr>,
    /// From one question to the next.
    pub interval: Duration,
    /// Unanswered questions, one after the other, that mean unreachable.
    pub misses: u32,
    /// What becomes of packets for a prefix that is unreachable.
    pub unreachable: WhenUnreachable,
}

/// What becomes of packets for a prefix that does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// They are sent as ever: the mark is for people.
    #[default]
    Send,
    /// They go to the peer whose allowed IP covers the prefix next; where there is none, they are sent as ever.
    Detour,
}

impl WhenUnreachable {
    const WORDS: [(&str, Self); 2] = [("send", Self::Send), ("detour", Self::Detour)];
}

pub(crate) fn check_vias(raw: Option<Raw<Vec<Raw<RawVia>>>>, report: &mut Report) -> Vec<Raw<Via>> {
    let mut vias: Vec<Raw<Via>> = Vec::new();
    for raw in raw.map_or_else(Vec::new, |list| list.value) {
        let line = raw.line;
        let Some(value) = check_via(raw, report) else {
            continue;
        };
        if vias.iter().any(|known| known.value.prefix == value.prefix) {
            report.at(
                line,
                format!(
                    "{PLACE} prefix: {} stands there twice: put all probes into one",
                    value.prefix
                ),
            );
            continue;
        }
        if vias.len() == VIAS_MAX {
            report.at(
                line,
                format!("{PLACE}: {VIAS_MAX} prefixes of one peer are the most: remove some"),
            );
            break;
        }
        vias.push(Raw { value, line });
    }
    vias
}

fn check_via(raw: Raw<RawVia>, report: &mut Report) -> Option<Via> {
    let Raw { value: raw, line } = raw;
    let faults = report.count();
    let missing =
        |key: &str, example: &str| format!("{PLACE}: {key} is missing: write {{ {example} }}");
    if raw.prefix.is_none() && !raw.broken.contains(&"prefix") {
        report.at(line, missing("prefix", EXAMPLE));
    }
    if raw.probes.is_none() && !raw.broken.contains(&"probes") {
        report.at(line, missing("probes", EXAMPLE));
    }
    let of = raw
        .prefix
        .and_then(|text| prefix(text, "[[peer]] via prefix", report))
        .map(|prefix| prefix.network());
    // One that is missing was told already.
    let (of, listed) = (of?, raw.probes?);
    let mut probes = Vec::new();
    for text in listed.value {
        let shown = quote(&text.value);
        let fault = match text.value.parse::<IpAddr>() {
            Err(_) => "is no address: write one like 10.2.0.10".to_owned(),
            Ok(addr) if !of.contains(addr) => {
                format!("is not in {of}: ask machines behind the peer")
            }
            Ok(addr) if probes.contains(&addr) => "stands there twice: remove one".to_owned(),
            Ok(addr) => {
                probes.push(addr);
                continue;
            }
        };
        report.at(text.line, format!("{PLACE} probes: `{shown}` {fault}"));
    }
    let interval = raw.interval_ms.as_ref();
    let place = "[[peer]] via interval_ms";
    let interval = integer(interval, place, INTERVAL_MS_MIN..=INTERVAL_MS_MAX, report);
    let misses = integer(
        raw.misses.as_ref(),
        "[[peer]] via misses",
        2..=MISSES_MAX,
        report,
    );
    let unreachable = word(
        raw.unreachable,
        "[[peer]] via unreachable: unknown way",
        &WhenUnreachable::WORDS,
        report,
    );
    if faults == report.count() && !(1..=PROBES_MAX).contains(&probes.len()) {
        report.at(
            line,
            format!(
                "{PLACE} probes: {} addresses: name 1 to {PROBES_MAX} machines that answer pings",
                probes.len()
            ),
        );
    }
    (faults == report.count()).then_some(Via {
        prefix: of,
        probes,
        interval: Duration::from_millis(interval.unwrap_or(INTERVAL_MS).into()),
        misses: misses.unwrap_or(MISSES),
        unreachable: unreachable.unwrap_or_default(),
    })
}

/// Refuses checks of what the peer does not own, and those that this gateway has no address to ask from.
pub(crate) fn refuse_misplaced(
    vias: &[Raw<Via>],
    owned: &[Raw<Prefix>],
    own: &[Prefix],
    report: &mut Report,
) {
    for Raw { value: via, line } in vias {
        let of = via.prefix;
        if !owned.iter().any(|it| it.value == of) {
            report.at(
                *line,
                format!("{PLACE} prefix: {of} is none of the peer's allowed_ips: write it as it stands there"),
            );
        }
        let is_v6 = of.addr().is_ipv6();
        if !own.iter().any(|it| it.addr().is_ipv6() == is_v6) {
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            report.at(
                *line,
                format!(
                    "{PLACE}: {of} is asked from the tunnel's own {family} address, and [site] addresses has none: \
                     add one, and to allowed_ips of this site at the peer"
                ),
            );
        }
    }
}

const PLACE: &str = "[[peer]] via";
const EXAMPLE: &str = "prefix = \"10.2.0.0/16\", probes = [\"10.2.0.10\"]";
/// Prefixes of one peer.
const VIAS_MAX: usize = 16;
/// Machines asked for one prefix.
const PROBES_MAX: usize = 4;
const INTERVAL_MS: u32 = 1000;
const INTERVAL_MS_MIN: u32 = 100;
const INTERVAL_MS_MAX: u32 = 3_600_000;
const MISSES: u32 = 5;
const MISSES_MAX: u32 = 100;
