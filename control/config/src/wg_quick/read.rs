//! The lines of a wg-quick file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use patronus_packet::Prefix;
use patronus_tunnel::{PresharedKey, PrivateKey, PublicKey};

use crate::diagnostic::{Line, Report, quote};
use crate::endpoint::PeerEndpoint;
use crate::keys::{KeyText, KeyTextError};
use crate::suggest::nearest;

/// `[Interface]`
#[derive(Default)]
pub(super) struct Tunnel {
    pub(super) line: Option<Line>,
    pub(super) private_key_line: Option<Line>,
    pub(super) private_key: Option<PrivateKey>,
    pub(super) listen_port: u16,
    pub(super) mark: u32,
    pub(super) addresses: Vec<Prefix>,
    pub(super) mtu: Option<u16>,
    pub(super) table: Table,
}

/// Where `wg-quick` puts routes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Table {
    #[default]
    Auto,
    Off,
    Number(u32),
}

/// `[Peer]`
pub(super) struct ImportedPeer {
    pub(super) line: Line,
    pub(super) public_key_line: Option<Line>,
    pub(super) public_key: Option<PublicKey>,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) endpoint: Option<PeerEndpoint>,
    pub(super) allowed_ips: Vec<Prefix>,
    pub(super) keepalive: u16,
}

impl ImportedPeer {
    fn new(line: Line) -> Self {
        Self {
            line,
            public_key_line: None,
            public_key: None,
            preshared_key: None,
            endpoint: None,
            allowed_ips: Vec::new(),
            keepalive: 0,
        }
    }

    pub(super) fn holds_its_own_endpoint(&self) -> bool {
        let Some(PeerEndpoint::Addr(addr)) = &self.endpoint else {
            return false;
        };
        self.allowed_ips
            .iter()
            .any(|prefix| prefix.contains(addr.ip()))
    }
}

enum Section {
    None,
    Interface,
    Peer,
    /// Unknown and reported: its lines are skipped.
    Unknown,
}

pub(super) fn read(
    text: &str,
    report: &mut Report,
    notes: &mut Vec<String>,
) -> (Tunnel, Vec<ImportedPeer>) {
    let mut tunnel = Tunnel::default();
    let mut peers: Vec<ImportedPeer> = Vec::new();
    let mut section = Section::None;
    let mut seen: HashSet<String> = HashSet::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (at, whole) in text.lines().enumerate() {
        let line = Line::MIN.saturating_add(at);
        let content = whole.split('#').next().unwrap_or("").trim();
        if content.is_empty() {
            continue;
        }
        if content.starts_with('[') {
            section = open_section(content, line, &mut tunnel, &mut peers, report);
            seen.clear();
            continue;
        }
        // The line is never shown: it may hold a secret.
        let Some((key, value)) = content.split_once('=') else {
            report.at(
                line,
                "neither `[Section]` nor `Key = value`: correct or remove the line",
            );
            continue;
        };
        let mut entry = Entry {
            line,
            key: key.trim(),
            value: value.trim(),
            report,
            notes,
        };
        let known = match (&section, peers.last_mut()) {
            (Section::Unknown, _) => continue,
            (Section::Interface, _) => entry.read_interface(&mut tunnel),
            (Section::Peer, Some(peer)) => entry.read_peer(peer),
            (Section::None | Section::Peer, _) => {
                report.at(
                    line,
                    "stands outside every section: put [Interface] or [Peer] above it",
                );
                continue;
            }
        };
        let repeats = !seen.insert(entry.key.to_ascii_lowercase());
        if repeats && known == Known::Once {
            let message = format!(
                "{} stands twice in its section: remove one, or add the missing [Peer]",
                quote(entry.key)
            );
            report.at(line, message);
        }
    }
    if tunnel.private_key_line.is_none() {
        let message = "[Interface] PrivateKey is missing: add one, `patronus genkey` makes it";
        report.push(tunnel.line, message.to_owned());
    }
    let mut keys: HashMap<PublicKey, Line> = HashMap::new();
    let mut seen = HashSet::new();
    tunnel.addresses.retain(|prefix| seen.insert(prefix.addr()));
    for peer in &mut peers {
        peer.allowed_ips.sort_unstable();
        peer.allowed_ips.dedup();
        let Some(line) = peer.public_key_line else {
            let message = "[Peer] PublicKey is missing: add the other side's public key";
            report.at(peer.line, message);
            continue;
        };
        if let Some(first) = peer.public_key.and_then(|key| keys.insert(key, line)) {
            let message = format!("PublicKey: the same key as on line {first}: join the two peers");
            report.at(line, message);
        }
    }
    (tunnel, peers)
}

fn open_section(
    content: &str,
    line: Line,
    tunnel: &mut Tunnel,
    peers: &mut Vec<ImportedPeer>,
    report: &mut Report,
) -> Section {
    match content.to_ascii_lowercase().as_str() {
        "[interface]" => {
            if let Some(first) = tunnel.line.replace(line) {
                report.at(
                    line,
                    format!("[Interface] stands on line {first} too: join the two sections"),
                );
            }
            Section::Interface
        }
        "[peer]" => {
            peers.push(ImportedPeer::new(line));
            Section::Peer
        }
        _ => {
            // What stands there is not shown: a stray bracket may stand before a secret.
            report.at(
                line,
                "unknown section: wg-quick files have [Interface] and [Peer]",
            );
            Section::Unknown
        }
    }
}

/// How a known key counts when it repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Once,
    Adds,
    /// Unknown, ignored or broken, and reported as such.
    Told,
}

/// One `Key = value` line.
struct Entry<'a> {
    line: Line,
    key: &'a str,
    value: &'a str,
    report: &'a mut Report,
    notes: &'a mut Vec<String>,
}

impl Entry<'_> {
    fn read_interface(&mut self, tunnel: &mut Tunnel) -> Known {
        match self.key.to_ascii_lowercase().as_str() {
            "privatekey" => {
                tunnel.private_key_line = Some(self.line);
                tunnel.private_key = self.checked(PrivateKey::from_base64_nonzero);
            }
            "listenport" => tunnel.listen_port = self.checked(decimal).unwrap_or_default(),
            "fwmark" => tunnel.mark = self.checked(mark).unwrap_or_default(),
            "mtu" => tunnel.mtu = self.checked(decimal),
            "table" => tunnel.table = self.checked(table).unwrap_or_default(),
            "address" => {
                tunnel.addresses.extend(self.list::<Prefix>());
                return Known::Adds;
            }
            "dns" => {
                self.ignored(
                    "Patronus leaves name servers alone; set them with resolvectl or in \
                resolv.conf",
                );
                return Known::Told;
            }
            "preup" | "postup" | "predown" | "postdown" => {
                self.ignored(
                    "Patronus runs no commands; put it into a systemd unit if it is still needed",
                );
                return Known::Told;
            }
            "saveconfig" => {
                self.ignored("Patronus never writes its configuration");
                return Known::Told;
            }
            _ => return self.unknown("[Interface]", INTERFACE_KEYS),
        }
        Known::Once
    }

    fn read_peer(&mut self, peer: &mut ImportedPeer) -> Known {
        match self.key.to_ascii_lowercase().as_str() {
            "publickey" => {
                peer.public_key_line = Some(self.line);
                peer.public_key = self.checked(PublicKey::from_base64_nonzero);
            }
            "presharedkey" => peer.preshared_key = self.checked(preshared_key).flatten(),
            "endpoint" => peer.endpoint = self.checked(PeerEndpoint::from_str),
            "persistentkeepalive" => peer.keepalive = self.checked(keepalive).unwrap_or_default(),
            "allowedips" => {
                let prefixes = self.list::<Prefix>();
                peer.allowed_ips
                    .extend(prefixes.iter().map(Prefix::network));
                return Known::Adds;
            }
            _ => return self.unknown("[Peer]", PEER_KEYS),
        }
        Known::Once
    }

    fn checked<T, E: fmt::Display>(
        &mut self,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(self.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.report
                    .at(self.line, format!("{}: {error}", quote(self.key)));
                None
            }
        }
    }

    /// The values of a list that commas part; empty ones do not count, as with `wg`.
    fn list<T: FromStr>(&mut self) -> Vec<T> {
        let mut values = Vec::new();
        for text in self
            .value
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.report.at(
                    self.line,
                    format!(
                        "{}: `{}` is not an IP address or prefix: write it like 10.1.0.0/16 or \
                    2001:db8::/32",
                        quote(self.key),
                        quote(text)
                    ),
                ),
            }
        }
        values
    }

    fn ignored(&mut self, why: &str) {
        self.notes.push(format!(
            "ignored: {} on line {}: {why}",
            quote(self.key),
            self.line
        ));
    }

    fn unknown(&mut self, title: &str, keys: &[&str]) -> Known {
        let fix = match nearest(self.key, keys) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("valid keys are {}", keys.join(", ")),
        };
        let message = format!("unknown key `{}` in {title}: {fix}", quote(self.key));
        self.report.at(self.line, message);
        Known::Told
    }
}

/// Why a value was not understood.
#[derive(Debug, thiserror::Error)]
enum ValueError {
    #[error("`{0}` is not a number from 0 to 65535")]
    Decimal(String),
    #[error("`{0}` is not a mark: write off, or a number up to 0xffffffff")]
    Mark(String),
    #[error(
        "`{0}` is not a table: write auto, off, main or a number (/etc/iproute2/rt_tables lists \
            names)"
    )]
    Table(String),
}

fn decimal(text: &str) -> Result<u16, ValueError> {
    unsigned(text)
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| ValueError::Decimal(quote(text)))
}

fn keepalive(text: &str) -> Result<u16, ValueError> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(0);
    }
    decimal(text)
}

fn mark(text: &str) -> Result<u32, ValueError> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(0);
    }
    unsigned(text).ok_or_else(|| ValueError::Mark(quote(text)))
}

fn table(text: &str) -> Result<Table, ValueError> {
    match text {
        "auto" | "main" | "254" => Ok(Table::Auto),
        "off" => Ok(Table::Off),
        _ => unsigned(text)
            .filter(|number| *number != 0)
            .map(Table::Number)
            .ok_or_else(|| ValueError::Table(quote(text))),
    }
}

/// An all-zero preshared key is none, as `wg` reads it.
fn preshared_key(text: &str) -> Result<Option<PresharedKey>, KeyTextError> {
    match PresharedKey::from_base64_nonzero(text) {
        Ok(key) => Ok(Some(key)),
        Err(KeyTextError::Zero) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A number in decimal or, behind `0x`, in hex.
fn unsigned(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` takes a leading plus, which nobody means.
    let is_number = digits.chars().all(|digit| digit.is_digit(radix));
    is_number
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

const INTERFACE_KEYS: &[&str] = &[
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "Address",
    "DNS",
    "MTU",
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];
const PEER_KEYS: &[&str] = &[
    "PublicKey",
    "PresharedKey",
    "Endpoint",
    "AllowedIPs",
    "PersistentKeepalive",
];
