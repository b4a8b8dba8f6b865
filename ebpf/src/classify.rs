//! The WAN program's decision in plain Rust: the oracle of its tests, and what explains a verdict to an operator.
//!
//! It reads the same frame in the same order as `bpf/wan.bpf.c` and gives the same reason. Written for clarity: it
//! looks at every datagram of a train, where the program looks only where that can matter.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefixes::{Prefix, SourceVerdict, Sources};
use crate::wan::{Entry, InitiationLimit, WanConfig, WanReason};

/// A frame as a program sees it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// From the first byte of the link header, or of the IP header at [`Entry::TcIp`].
    pub bytes: &'a [u8],
    /// Bytes of each datagram of a train but the last; 0 where there is one datagram. Only traffic control knows.
    pub gso_size: u32,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: WanReason,
    /// Datagrams in the frame that begin a handshake, which the limit counts.
    pub initiations: u32,
}

/// The WAN program's twin.
#[derive(Clone, Debug)]
pub struct WanTwin {
    ports: BTreeSet<u16>,
    sources: Lookup,
    receivers: Option<HashSet<u32>>,
    limit: Option<InitiationLimit>,
    /// When a prefix will be back within its rate, in ns.
    rates: HashMap<Prefix, u64>,
}

impl WanTwin {
    /// The twin of a program with this configuration.
    pub fn new(config: &WanConfig) -> Self {
        Self {
            ports: config.ports.iter().copied().collect(),
            sources: Lookup::new(&config.sources),
            receivers: config
                .known_receivers
                .as_ref()
                .map(|known| known.iter().copied().collect()),
            limit: config.limit,
            rates: HashMap::new(),
        }
    }

    /// Judges a frame that comes `now_ns` on a clock that never goes back. Only the limit of initiations remembers.
    pub fn judge(&mut self, entry: Entry, frame: Frame<'_>, now_ns: u64) -> Verdict {
        let found = read(entry, frame, &self.ports)
            .and_then(|datagram| self.judge_payload(entry, frame, &datagram, now_ns));
        match found {
            Ok(verdict) => verdict,
            Err(reason) => Verdict {
                reason,
                initiations: 0,
            },
        }
    }

    fn judge_payload(
        &mut self,
        entry: Entry,
        frame: Frame<'_>,
        datagram: &Datagram<'_>,
        now_ns: u64,
    ) -> Result<Verdict, WanReason> {
        let payload = datagram.payload;
        let segment = segment_len(entry, frame, payload);
        let mut reasons = if payload.is_empty() {
            vec![WanReason::DropType]
        } else {
            payload
                .chunks(segment)
                .map(|chunk| self.reason_of(chunk))
                .collect()
        };
        if reasons.len() > SEGMENTS_MAX {
            // More than any kernel joins: the program stops looking.
            reasons.truncate(SEGMENTS_MAX);
            reasons.push(WanReason::PassData);
        }
        let initiations = reasons
            .iter()
            .filter(|reason| **reason == WanReason::PassInitiation)
            .count() as u32;
        let first = reasons[0];
        let reason = match first.is_drop() {
            false => first,
            true if reasons.iter().any(|reason| !reason.is_drop()) => WanReason::PassMixed,
            true => return Err(first),
        };
        match self.sources.verdict(datagram.source) {
            Some(SourceVerdict::Blocked) => return Err(WanReason::DropBlocked),
            Some(SourceVerdict::Bogon) => return Err(WanReason::DropBogon),
            Some(SourceVerdict::Allowed) | None => {}
        }
        if initiations > 0 && !self.admit(datagram.source, initiations, now_ns) {
            return Err(WanReason::DropLimited);
        }
        Ok(Verdict {
            reason,
            initiations,
        })
    }

    /// What one datagram is.
    fn reason_of(&self, datagram: &[u8]) -> WanReason {
        let len = datagram.len();
        let (reason, fits, receiver_at) = match kind_of(datagram) {
            Some(1) => (WanReason::PassInitiation, len == INITIATION_LEN, None),
            Some(2) => (WanReason::PassResponse, len == RESPONSE_LEN, Some(8)),
            Some(3) => (WanReason::PassCookie, len == COOKIE_LEN, Some(4)),
            Some(4) => (WanReason::PassData, len >= DATA_LEN_MIN, Some(4)),
            Some(_) | None => return WanReason::DropType,
        };
        if !fits {
            return WanReason::DropLength;
        }
        let receiver = receiver_at.and_then(|at| word(datagram, at));
        match (&self.receivers, receiver) {
            (Some(known), Some(receiver)) if !known.contains(&(receiver >> 8)) => {
                WanReason::DropReceiver
            }
            _ => reason,
        }
    }

    /// Generic cell rate algorithm: whether `initiations` of one source are within the rate, which they use up.
    fn admit(&mut self, source: IpAddr, initiations: u32, now_ns: u64) -> bool {
        let Some(limit) = self.limit else {
            return true;
        };
        let prefix = match source {
            IpAddr::V4(_) => Prefix::around(source, limit.v4_len),
            IpAddr::V6(_) => Prefix::around(source, limit.v6_len),
        };
        let base = self.rates.get(&prefix).copied().unwrap_or(0).max(now_ns);
        if base - now_ns > limit.tolerance_ns() {
            return false;
        }
        let cost = limit.interval_ns() * u64::from(initiations);
        self.rates.insert(prefix, base + cost);
        true
    }
}

/// A UDP datagram, or a train of them, for one of our ports.
struct Datagram<'a> {
    source: IpAddr,
    payload: &'a [u8],
}

/// The headers. Where they lead to no port of ours, the reason.
fn read<'a>(
    entry: Entry,
    frame: Frame<'a>,
    ports: &BTreeSet<u16>,
) -> Result<Datagram<'a>, WanReason> {
    let (protocol, packet) = match entry {
        Entry::TcIp => {
            let version = frame.bytes.first().ok_or(WanReason::PassOther)? >> 4;
            let protocol = match version {
                4 => ETHERTYPE_IPV4,
                6 => ETHERTYPE_IPV6,
                _ => return Err(WanReason::PassOther),
            };
            (protocol, frame.bytes)
        }
        Entry::XdpNative | Entry::XdpGeneric | Entry::Tc => {
            ethernet(frame.bytes).ok_or(WanReason::PassOther)?
        }
    };
    let (source, payload) = match protocol {
        ETHERTYPE_IPV4 => ipv4(packet)?,
        ETHERTYPE_IPV6 => ipv6(packet)?,
        _ => return Err(WanReason::PassOther),
    };
    let header = payload.get(..8).ok_or(WanReason::PassOther)?;
    if !ports.contains(&u16::from_be_bytes([header[2], header[3]])) {
        return Err(WanReason::PassOther);
    }
    let len = match usize::from(u16::from_be_bytes([header[4], header[5]])) {
        // RFC 2675: a length of 0 in IPv6 is that of the payload.
        0 if source.is_ipv6() => payload.len(),
        len => len,
    };
    let payload = payload.get(8..len).ok_or(WanReason::DropMalformed)?;
    Ok(Datagram { source, payload })
}

/// The EtherType behind up to two VLAN tags, and what follows it.
fn ethernet(frame: &[u8]) -> Option<(u16, &[u8])> {
    let mut at = 12;
    for _ in 0..=VLAN_TAGS_MAX {
        let protocol = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        let is_tag = protocol == ETHERTYPE_VLAN || protocol == ETHERTYPE_PROVIDER_VLAN;
        if !is_tag || at == 12 + 4 * VLAN_TAGS_MAX {
            return Some((protocol, &frame[at + 2..]));
        }
        at += 4;
    }
    None
}

/// Source and payload of an IPv4 packet with UDP.
fn ipv4(packet: &[u8]) -> Result<(IpAddr, &[u8]), WanReason> {
    let header = packet.get(..20).ok_or(WanReason::PassOther)?;
    let header_len = usize::from(header[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let payload = packet.get(header_len..total_len);
    let is_udp = header[0] >> 4 == 4 && header_len >= 20 && header[9] == IP_UDP;
    let (Some(payload), true) = (payload, is_udp) else {
        return Err(WanReason::PassOther);
    };
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(WanReason::PassFragment);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    Ok((source.into(), payload))
}

/// Source and payload of an IPv6 packet with UDP and nothing between.
fn ipv6(packet: &[u8]) -> Result<(IpAddr, &[u8]), WanReason> {
    let header = packet.get(..24).ok_or(WanReason::PassOther)?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = packet.get(40..40 + payload_len);
    let (Some(payload), 6) = (payload, header[0] >> 4) else {
        return Err(WanReason::PassOther);
    };
    match header[6] {
        IP_UDP => {}
        IP_FRAGMENT => return Err(WanReason::PassFragment),
        IP_HOP_BY_HOP | IP_ROUTING | IP_DESTINATION | IP_AH | IP_MOBILITY => {
            return Err(WanReason::PassExtension);
        }
        _ => return Err(WanReason::PassOther),
    }
    let mut source = [0; 16];
    source.copy_from_slice(&header[8..24]);
    Ok((Ipv6Addr::from(source).into(), payload))
}

/// Bytes of each datagram but the last.
fn segment_len(entry: Entry, frame: Frame<'_>, payload: &[u8]) -> usize {
    let len = payload.len();
    match entry {
        Entry::XdpNative => len,
        // A train comes unmarked. Messages of fixed length show it by a multiple.
        Entry::XdpGeneric => match kind_of(payload) {
            Some(1) if len.is_multiple_of(INITIATION_LEN) => INITIATION_LEN,
            Some(2) if len.is_multiple_of(RESPONSE_LEN) => RESPONSE_LEN,
            Some(3) if len.is_multiple_of(COOKIE_LEN) => COOKIE_LEN,
            Some(_) | None => len,
        },
        Entry::Tc | Entry::TcIp => match frame.gso_size as usize {
            0 => len,
            size => size.min(len),
        },
    }
}

/// Type and reserved bytes: the four together must be 1 to 4.
fn kind_of(datagram: &[u8]) -> Option<u32> {
    word(datagram, 0)
}

fn word(datagram: &[u8], at: usize) -> Option<u32> {
    let bytes = datagram.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// Longest match by one table for every length that occurs.
#[derive(Clone, Debug)]
struct Lookup {
    /// Longest first.
    lens: Vec<u8>,
    table: HashMap<Prefix, SourceVerdict>,
}

impl Lookup {
    fn new(sources: &Sources) -> Self {
        let table: HashMap<_, _> = sources.entries().iter().copied().collect();
        let lens: BTreeSet<u8> = table.keys().map(|prefix| prefix.bits()).collect();
        Self {
            lens: lens.into_iter().rev().collect(),
            table,
        }
    }

    fn verdict(&self, source: IpAddr) -> Option<SourceVerdict> {
        let bits = if source.is_ipv4() { 32 } else { 128 };
        let fits = self.lens.iter().filter(|len| **len <= bits);
        fits.map(|len| Prefix::around(source, *len))
            .find_map(|prefix| self.table.get(&prefix).copied())
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_PROVIDER_VLAN: u16 = 0x88a8;
const VLAN_TAGS_MAX: usize = 2;
const IP_HOP_BY_HOP: u8 = 0;
const IP_UDP: u8 = 17;
const IP_ROUTING: u8 = 43;
const IP_FRAGMENT: u8 = 44;
const IP_AH: u8 = 51;
const IP_DESTINATION: u8 = 60;
const IP_MOBILITY: u8 = 135;
const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_LEN: usize = 64;
const DATA_LEN_MIN: usize = 32;
/// UDP_GRO joins at most 64, UDP_SEGMENT sends at most 128 datagrams (`UDP_MAX_SEGMENTS`).
const SEGMENTS_MAX: usize = 128;
