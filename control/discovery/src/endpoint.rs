//! Where a site says that it can be reached: candidates, checked one by one. A bad one is ignored and counted; it never
//! spoils the others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::signing::{Domain, hash};
use crate::wire::{Malformed, Put, Reader, mapped, unmapped};

/// Most endpoints of a message.
pub const ENDPOINTS_MAX: usize = 16;
/// Longest label of an uplink in bytes.
pub const UPLINK_LABEL_LEN_MAX: usize = 16;
/// Least MTU that an endpoint can claim (RFC 791).
pub const MTU_MIN: u16 = 576;

/// Kind, address, port, MTU, cost.
const FIXED_LEN: usize = 22;

/// How an endpoint's address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKind {
    /// An address of an interface on the LAN.
    Lan,
    /// An address of an uplink's interface.
    Uplink,
    /// Configured by the operator: a forwarded port, say.
    Configured,
    /// What a rendezvous saw the site's packets come from.
    Observed,
}

/// What sending there costs the site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CostClass {
    /// Nothing per byte.
    #[default]
    Flat,
    /// Bytes cost money.
    Metered,
    /// For when nothing else is left.
    LastResort,
}

/// Name of the uplink at the site's end: 1 to 16 visible ASCII characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UplinkLabel {
    len: u8,
    bytes: [u8; UPLINK_LABEL_LEN_MAX],
}

/// One candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// How the address is known.
    pub kind: EndpointKind,
    /// The uplink at that end.
    pub uplink: UplinkLabel,
    /// Where to send.
    pub address: SocketAddr,
    /// Largest IP packet there in bytes, where known.
    pub mtu: Option<u16>,
    /// What it costs.
    pub cost: CostClass,
}

/// Why a candidate is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EndpointFault {
    /// A kind or cost class that this version does not know, or an entry of a wrong length.
    #[error("of a kind that is not known")]
    Unknown,
    /// A label with bytes that do not belong there.
    #[error("label that is no text")]
    Label,
    /// Port zero.
    #[error("port 0")]
    Port,
    /// An MTU that no link has.
    #[error("MTU below {MTU_MIN}, or below 1280 with IPv6")]
    Mtu,
    /// 0.0.0.0/8 or ::.
    #[error("unspecified address")]
    Unspecified,
    /// 127.0.0.0/8 or ::1.
    #[error("loopback address")]
    Loopback,
    /// Multicast or broadcast.
    #[error("multicast or broadcast address")]
    Multicast,
    /// 240.0.0.0/4, or an IPv4-mapped address in another form.
    #[error("reserved address")]
    Reserved,
    /// Good on one link only, in a kind that is for others.
    #[error("link-local address outside the LAN")]
    LinkLocal,
    /// One of our own addresses.
    #[error("our own address")]
    Own,
    /// Behind the limit of a list.
    #[error("more than {ENDPOINTS_MAX}")]
    TooMany,
}

/// Endpoints of a message: those that can be tried, and how many were ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoints {
    usable: Vec<Endpoint>,
    ignored: u8,
}

impl Endpoint {
    /// What is wrong with it, if anything, as far as the endpoint itself tells.
    pub fn fault(&self) -> Option<EndpointFault> {
        let mtu_min = match self.address {
            SocketAddr::V4(_) => MTU_MIN,
            SocketAddr::V6(_) => 1280,
        };
        if self.address.port() == 0 {
            return Some(EndpointFault::Port);
        }
        if self.mtu.is_some_and(|mtu| mtu < mtu_min) {
            return Some(EndpointFault::Mtu);
        }
        address_fault(self.address.ip(), self.kind)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(FIXED_LEN + self.uplink.as_str().len());
        out.put_u8(place(&KINDS, &self.kind));
        out.put(&mapped(self.address.ip()));
        out.put_u16(self.address.port());
        out.put_u16(self.mtu.unwrap_or(0));
        out.put_u8(place(&COSTS, &self.cost));
        out.put(self.uplink.as_str().as_bytes());
    }

    fn decode(entry: &[u8]) -> Result<Self, EndpointFault> {
        let Some((fixed, label)) = entry.split_first_chunk::<FIXED_LEN>() else {
            return Err(EndpointFault::Unknown);
        };
        let kind = KINDS.get(usize::from(fixed[0]).wrapping_sub(1));
        let cost = COSTS.get(usize::from(fixed[21]).wrapping_sub(1));
        let (Some(&kind), Some(&cost)) = (kind, cost) else {
            return Err(EndpointFault::Unknown);
        };
        let mut ip = [0; 16];
        ip.copy_from_slice(&fixed[1..17]);
        let mtu = u16::from_le_bytes([fixed[19], fixed[20]]);
        let endpoint = Self {
            kind,
            cost,
            uplink: UplinkLabel::from_bytes(label).ok_or(EndpointFault::Label)?,
            address: SocketAddr::new(unmapped(ip), u16::from_le_bytes([fixed[17], fixed[18]])),
            mtu: (mtu != 0).then_some(mtu),
        };
        match endpoint.fault() {
            Some(fault) => Err(fault),
            None => Ok(endpoint),
        }
    }
}

impl Endpoints {
    /// Keeps what can be tried, the first [`ENDPOINTS_MAX`] of it, and counts the rest.
    pub fn sift(candidates: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut sifted = Self::default();
        for endpoint in candidates {
            sifted.add(match endpoint.fault() {
                Some(fault) => Err(fault),
                None => Ok(endpoint),
            });
        }
        sifted
    }

    /// Those that can be tried.
    pub fn as_slice(&self) -> &[Endpoint] {
        &self.usable
    }

    /// How many were ignored.
    pub fn ignored(&self) -> u8 {
        self.ignored
    }

    /// Without those that `is_own` says are our own addresses: a site that claims one would make us talk to ourselves.
    pub fn without_own(&self, is_own: impl Fn(IpAddr) -> bool) -> Self {
        let mut sifted = Self {
            usable: Vec::with_capacity(self.usable.len()),
            ignored: self.ignored,
        };
        for endpoint in &self.usable {
            sifted.add(if is_own(endpoint.address.ip()) {
                Err(EndpointFault::Own)
            } else {
                Ok(*endpoint)
            });
        }
        sifted
    }

    /// A count, then every endpoint behind its length.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(self.usable.len());
        self.usable.iter().for_each(|endpoint| endpoint.encode(out));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut sifted = Self::default();
        for _ in 0..reader.u8("endpoints")? {
            let len = usize::from(reader.u8("endpoints")?);
            let entry = reader.take(len, "endpoints")?;
            sifted.add(Endpoint::decode(entry));
        }
        Ok(sifted)
    }

    fn add(&mut self, candidate: Result<Endpoint, EndpointFault>) {
        match candidate {
            Ok(endpoint) if self.usable.len() < ENDPOINTS_MAX => self.usable.push(endpoint),
            Ok(_) | Err(_) => self.ignored = self.ignored.saturating_add(1),
        }
    }
}

impl UplinkLabel {
    /// The label of an uplink with this name: the name itself where it is short enough, else its beginning and four
    /// digits of its hash, so that two long names stay apart.
    pub fn of(name: &str) -> Option<Self> {
        if let Some(label) = Self::from_bytes(name.as_bytes()) {
            return Some(label);
        }
        let start = name.get(..UPLINK_LABEL_LEN_MAX - 5)?;
        let digest = hash(Domain::UplinkLabel, name.as_bytes());
        let short = format!("{start}-{:02x}{:02x}", digest[0], digest[1]);
        Self::from_bytes(short.as_bytes())
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.len)];
        // Checked when made: ASCII.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn from_bytes(text: &[u8]) -> Option<Self> {
        let is_valid = (1..=UPLINK_LABEL_LEN_MAX).contains(&text.len())
            && text.iter().all(u8::is_ascii_graphic);
        if !is_valid {
            return None;
        }
        let mut bytes = [0; UPLINK_LABEL_LEN_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self {
            len: text.len() as u8,
            bytes,
        })
    }
}

impl FromStr for UplinkLabel {
    type Err = EndpointFault;

    fn from_str(text: &str) -> Result<Self, EndpointFault> {
        Self::from_bytes(text.as_bytes()).ok_or(EndpointFault::Label)
    }
}

impl fmt::Display for UplinkLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for UplinkLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UplinkLabel({self})")
    }
}

/// Why nobody can be reached at an address in an endpoint of this kind. Private addresses may be right in every kind:
/// an uplink can lead into a provider's private network.
fn address_fault(ip: IpAddr, kind: EndpointKind) -> Option<EndpointFault> {
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let (is_nobody, is_reserved) = match ip {
        IpAddr::V4(v4) => (v4.octets()[0] == 0, v4.octets()[0] >= 240),
        IpAddr::V6(v6) => (v6.is_unspecified(), v6.to_ipv4_mapped().is_some()),
    };
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    match () {
        () if is_nobody => Some(EndpointFault::Unspecified),
        () if ip.is_loopback() => Some(EndpointFault::Loopback),
        () if ip.is_multicast() || is_broadcast => Some(EndpointFault::Multicast),
        () if is_reserved => Some(EndpointFault::Reserved),
        () if is_link_local && kind != EndpointKind::Lan => Some(EndpointFault::LinkLocal),
        () => None,
    }
}

/// The code of a value on the wire: its place in the table, from 1.
fn place<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table
        .iter()
        .position(|known| known == value)
        .map_or(0, |at| at as u8 + 1)
}

const KINDS: [EndpointKind; 4] = [
    EndpointKind::Lan,
    EndpointKind::Uplink,
    EndpointKind::Configured,
    EndpointKind::Observed,
];
const COSTS: [CostClass; 3] = [CostClass::Flat, CostClass::Metered, CostClass::LastResort];
