//! From the right shape to values that make sense, section by section: ranges and formats. Reports
//! every fault it can find and goes on; `draft` has the rules that span sections.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use patronus_packet::Prefix;
use patronus_packet::prefix::PrefixError;
use patronus_tunnel::PublicKey;

use crate::diagnostic::{Report, quote};
use crate::draft::{DraftPeer, DraftSite};
use crate::endpoint::{CostedEndpoint, PeerEndpoint};
use crate::keys::{KeyText, looks_like_key};
use crate::model::{
    CipherCode, CoreList, Dataplane, FlowSlots, Keepalive, Mtu, OffloadLimit, Pinning, PolicyDir,
    PolicySettings, RefusalMode, RouteTable, SocketBuffer, SpinTime, StateSettings, WorkerCount,
};
use crate::raw::{Raw, RawDataplane, RawEndpoint, RawPeer, RawPolicy, RawSite, RawTable};
use crate::suggest::nearest;
use crate::via::check_vias;

pub(crate) fn check_site(raw: RawSite, report: &mut Report) -> Option<DraftSite> {
    let missing =
        |key: &str, value: &Option<Raw<String>>| value.is_none() && !raw.broken.contains(&key);
    if missing("name", &raw.name) {
        report.at(raw.line, "[site] name is missing: add name = \"hq\"");
    }
    if missing("private_key_file", &raw.private_key_file) {
        report.at(
            raw.line,
            "[site] private_key_file is missing: make a key with \
             `(umask 077; patronus genkey > /etc/patronus/site.key)` \
             and add private_key_file = \"/etc/patronus/site.key\"",
        );
    }
    let name = parsed(raw.name, "[site] name", report);
    let private_key_file = path(raw.private_key_file, "[site] private_key_file", report);
    let mut addresses = Vec::new();
    let mut seen = HashSet::new();
    for address in raw.addresses.map_or_else(Vec::new, |list| list.value) {
        addresses.extend(check_address(address, &mut seen, report));
    }
    let interface = parsed(raw.interface, "[site] interface", report).unwrap_or_default();
    let mtu_line = raw.mtu.as_ref().map_or(raw.line, |mtu| mtu.line);
    let mtu =
        integer(raw.mtu.as_ref(), "[site] mtu", Mtu::MIN..=u16::MAX, report).and_then(Mtu::new);
    let routes = check_routes(raw.routes, raw.table, report);
    let state = StateSettings {
        dir: path(raw.state_dir, "[site] state_dir", report).map(|it| it.value),
        history: raw.history.is_none_or(|it| it.value),
    };
    Some(DraftSite {
        name: name?,
        private_key_file: private_key_file?,
        addresses,
        interface,
        mtu: Raw {
            value: mtu.unwrap_or_default(),
            line: mtu_line,
        },
        routes,
        state,
    })
}

fn check_address(
    raw: Raw<String>,
    seen: &mut HashSet<IpAddr>,
    report: &mut Report,
) -> Option<Prefix> {
    let line = raw.line;
    let prefix: Prefix = prefix(raw, "[site] addresses", report)?;
    let addr = prefix.addr();
    if addr.is_unspecified() || addr.is_multicast() {
        report.at(
            line,
            format!(
                "[site] addresses: {prefix} is no address that an interface can \
                 have: use a unicast address"
            ),
        );
        return None;
    }
    if !seen.insert(addr) {
        report.at(
            line,
            format!("[site] addresses: {addr} stands there twice: remove one"),
        );
        return None;
    }
    Some(prefix)
}

fn check_routes(
    routes: Option<Raw<bool>>,
    table: Option<RawTable>,
    report: &mut Report,
) -> Option<RouteTable> {
    let installs = routes.as_ref().is_none_or(|routes| routes.value);
    let (line, table) = match table {
        None => return installs.then_some(RouteTable::MAIN),
        Some(RawTable::Word(word)) if word.value == "main" => (word.line, Some(RouteTable::MAIN)),
        Some(RawTable::Word(word)) => {
            let shown = quote(&word.value);
            report.at(
                word.line,
                format!(
                    "[site] table: `{shown}` is not a table: write \"main\" or a number from \
                1 to 4294967295 (/etc/iproute2/rt_tables lists names)"
                ),
            );
            (word.line, None)
        }
        Some(RawTable::Number(number)) => {
            let line = number.line;
            let number = integer(Some(&number), "[site] table", 1..=u32::MAX, report);
            (line, number.and_then(NonZeroU32::new).map(RouteTable::new))
        }
    };
    if !installs {
        report.at(
            line,
            "[site] table: means nothing with routes = false: remove one of the two",
        );
    }
    table.filter(|_| installs)
}

pub(crate) fn check_dataplane(raw: RawDataplane, report: &mut Report) -> Dataplane {
    let workers = integer(
        raw.workers.as_ref(),
        "[dataplane] workers",
        1..=u8::MAX,
        report,
    )
    .and_then(NonZeroU8::new)
    .map(WorkerCount::new);
    let flow_slots = raw.flow_slots.and_then(|slots| {
        let checked = u32::try_from(slots.value).ok().and_then(FlowSlots::new);
        if checked.is_none() {
            report.at(slots.line, format!(
                "[dataplane] flow_slots: {} is not a power of two from {} to {}: write flow_slots \
                = {}",
                slots.value, FlowSlots::MIN, FlowSlots::MAX, nearest_slots(slots.value)
            ));
        }
        checked
    });
    let offload = word(
        raw.offload,
        "[dataplane] offload: unknown level",
        &OffloadLimit::WORDS,
        report,
    );
    let cipher = word(
        raw.cipher,
        "[dataplane] cipher: unknown code",
        &CipherCode::WORDS,
        report,
    );
    let spin = integer(
        raw.spin_us.as_ref(),
        "[dataplane] spin_us",
        0..=SpinTime::MAX_US,
        report,
    )
    .and_then(SpinTime::from_micros);
    let socket_buffer = integer(
        raw.socket_buffer_kib.as_ref(),
        "[dataplane] socket_buffer_kib",
        SocketBuffer::MIN_KIB..=SocketBuffer::MAX_KIB,
        report,
    );
    Dataplane {
        workers,
        pinning: check_pinning(raw.pin, raw.cpus, report),
        flow_slots: flow_slots.unwrap_or_default(),
        offload: offload.unwrap_or_default(),
        lanes: raw.lanes.is_none_or(|lanes| lanes.value),
        cipher: cipher.unwrap_or_default(),
        spin: spin.unwrap_or_default(),
        socket_buffer: socket_buffer
            .and_then(SocketBuffer::from_kib)
            .unwrap_or_default(),
    }
}

/// The meaning of one of a few words.
pub(crate) fn word<T: Copy>(
    raw: Option<Raw<String>>,
    fault: &str,
    words: &[(&str, T)],
    report: &mut Report,
) -> Option<T> {
    let raw = raw?;
    let found = words.iter().find(|(name, _)| *name == raw.value);
    if found.is_none() {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let fix = match nearest(&raw.value, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}", names.join(", ")),
        };
        report.at(raw.line, format!("{fault} `{}`: {fix}", quote(&raw.value)));
    }
    found.map(|(_, meant)| *meant)
}

pub(crate) fn check_policy(raw: RawPolicy, report: &mut Report) -> PolicySettings {
    let directory = path(raw.directory, "[policy] directory", report);
    let refusal = word(
        raw.refusal,
        "[policy] refusal: unknown way",
        &RefusalMode::WORDS,
        report,
    );
    PolicySettings {
        directory: directory.map_or_else(PolicyDir::default, |named| PolicyDir {
            path: named.value,
            is_required: true,
        }),
        keep_established: raw.keep_established.is_some_and(|keep| keep.value),
        refusal: refusal.unwrap_or_default(),
    }
}

fn nearest_slots(asked: i64) -> u32 {
    let asked = asked.clamp(FlowSlots::MIN.into(), FlowSlots::MAX.into());
    u32::try_from(asked).map_or(FlowSlots::MAX, u32::next_power_of_two)
}

fn check_pinning(
    pin: Option<Raw<bool>>,
    cpus: Option<Raw<Vec<Raw<i64>>>>,
    report: &mut Report,
) -> Pinning {
    let pins = pin.is_none_or(|pin| pin.value);
    let Some(cpus) = cpus else {
        return if pins {
            Pinning::AllowedCores
        } else {
            Pinning::Off
        };
    };
    if !pins {
        report.at(
            cpus.line,
            "[dataplane] cpus: names cores, but pin = false pins none: remove one of the two",
        );
    }
    let mut cores = Vec::new();
    let mut complete = true;
    for cpu in cpus.value {
        match integer(Some(&cpu), "[dataplane] cpus", 0..=CORE_MAX, report) {
            Some(core) => cores.push(core),
            None => complete = false,
        }
    }
    match CoreList::new(cores) {
        Some(list) if complete && pins => Pinning::Cores(list),
        Some(_) => Pinning::Off,
        None => {
            if complete {
                report.at(
                    cpus.line,
                    "[dataplane] cpus: empty, or names a core twice: list each core once, \
                     such as cpus = [0, 1], or \
                     remove the key to use every allowed core",
                );
            }
            Pinning::Off
        }
    }
}

pub(crate) fn check_peer(raw: RawPeer, report: &mut Report) -> Option<DraftPeer> {
    if raw.public_key.is_none() && !raw.broken.contains(&"public_key") {
        report.at(
            raw.line,
            "[[peer]] public_key is missing: run `patronus pubkey` on the other site's key and \
            add public_key = \"...\"",
        );
    }
    let name = parsed(raw.name, "[[peer]] name", report);
    let public_key = raw.public_key.and_then(|text| {
        // The text is never shown: people paste the private key here.
        match PublicKey::from_base64_nonzero(&text.value) {
            Ok(value) => Some(Raw {
                value,
                line: text.line,
            }),
            Err(error) => {
                report.at(
                    text.line,
                    format!(
                        "[[peer]] public_key: {error}: paste what `patronus \
                pubkey` prints on the other site"
                    ),
                );
                None
            }
        }
    });
    let endpoints = check_endpoints(raw.endpoint, raw.endpoints, report);
    let mut allowed_ips = Vec::new();
    for text in raw.allowed_ips.map_or_else(Vec::new, |list| list.value) {
        let line = text.line;
        let prefix = prefix(text, "[[peer]] allowed_ips", report);
        allowed_ips.extend(prefix.map(|prefix| Raw {
            value: prefix.network(),
            line,
        }));
    }
    let keepalive = integer(
        raw.keepalive.as_ref(),
        "[[peer]] keepalive",
        0..=u16::MAX,
        report,
    );
    let preshared_key_file = path(
        raw.preshared_key_file,
        "[[peer]] preshared_key_file",
        report,
    );
    Some(DraftPeer {
        name,
        public_key: public_key?,
        endpoints,
        allowed_ips,
        keepalive: keepalive.and_then(NonZeroU16::new).map(Keepalive::new),
        preshared_key_file,
        via: check_vias(raw.via, report),
    })
}

/// `endpoint`, then `endpoints`: the first is where the peer is called.
fn check_endpoints(
    first: Option<Raw<String>>,
    further: Option<Raw<Vec<Raw<RawEndpoint>>>>,
    report: &mut Report,
) -> Vec<Raw<CostedEndpoint>> {
    let first = first.map(|text| ("[[peer]] endpoint", text, None));
    let further = further.map_or_else(Vec::new, |list| list.value);
    let further = further.into_iter().filter_map(|raw| {
        let address = raw.value.address?;
        Some(("[[peer]] endpoints", address, raw.value.cost))
    });
    let mut endpoints: Vec<Raw<CostedEndpoint>> = Vec::new();
    for (place, text, cost) in first.into_iter().chain(further) {
        let line = text.line;
        let cost = integer(
            cost.as_ref(),
            "[[peer]] endpoints cost",
            0..=u16::MAX,
            report,
        );
        let Some(endpoint) = parsed::<PeerEndpoint>(Some(text), place, report) else {
            continue;
        };
        if endpoints
            .iter()
            .any(|known| known.value.endpoint == endpoint)
        {
            report.at(
                line,
                format!("{place}: {endpoint} stands there twice: remove one"),
            );
            continue;
        }
        let value = CostedEndpoint {
            endpoint,
            cost: cost.unwrap_or(0),
        };
        endpoints.push(Raw { value, line });
    }
    endpoints
}

/// Reads a value that has a format of its own.
pub(crate) fn parsed<T>(raw: Option<Raw<String>>, place: &str, report: &mut Report) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    let raw = raw?;
    match raw.value.parse() {
        Ok(value) => Some(value),
        Err(_) if looks_like_key(&raw.value) => {
            report.at(
                raw.line,
                format!(
                    "{place}: this is a WireGuard key: if it was a private \
            key, replace it, since it was written to a file that others may read"
                ),
            );
            None
        }
        Err(error) => {
            report.at(raw.line, format!("{place}: {error}"));
            None
        }
    }
}

pub(crate) fn prefix(raw: Raw<String>, place: &str, report: &mut Report) -> Option<Prefix> {
    let shown = quote(&raw.value);
    let fault = match raw.value.parse() {
        Ok(prefix) => return Some(prefix),
        Err(PrefixError::Address(_)) => {
            "is not an IP address or prefix: write it like 10.1.0.0/16 or 2001:db8::/32".to_owned()
        }
        Err(PrefixError::Length { max, .. }) => {
            format!("has a bad prefix length: write a number from 0 to {max} behind the slash")
        }
    };
    report.at(raw.line, format!("{place}: `{shown}` {fault}"));
    None
}

pub(crate) fn path(
    raw: Option<Raw<String>>,
    place: &str,
    report: &mut Report,
) -> Option<Raw<PathBuf>> {
    let Raw { value, line } = raw?;
    if looks_like_key(&value) {
        report.at(
            line,
            format!(
                "{place}: this is a key, not the path of a file that holds one: put it in a file \
             of its own, `chmod 600` it, and write its path here"
            ),
        );
        return None;
    }
    if value.is_empty() || value.contains('\0') {
        report.at(
            line,
            format!("{place}: `{}` is not the path of a file", quote(&value)),
        );
        return None;
    }
    Some(Raw {
        value: PathBuf::from(value),
        line,
    })
}

pub(crate) fn integer<T>(
    raw: Option<&Raw<i64>>,
    place: &str,
    range: RangeInclusive<T>,
    report: &mut Report,
) -> Option<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    let raw = raw?;
    let checked = T::try_from(raw.value)
        .ok()
        .filter(|number| range.contains(number));
    if checked.is_none() {
        let (least, most) = (range.start(), range.end());
        report.at(
            raw.line,
            format!(
                "{place}: {} is out of range: write a number from {least} to {most}",
                raw.value
            ),
        );
    }
    checked
}

const CORE_MAX: u16 = 4095;
