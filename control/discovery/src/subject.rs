//! What a certificate says about a site: name, addresses, prefixes, labels, roles. Every value is checked when made
//! and has one encoding.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use patronus_packet::Prefix;

use crate::wire::{Fault, Malformed, Put, Reader, is_ascending};

/// Longest name in bytes.
pub const NAME_LEN_MAX: usize = 63;
/// Most tunnel addresses of a site.
pub const ADDRESSES_MAX: usize = 8;
/// Most prefixes of a site.
pub const PREFIXES_MAX: usize = 32;
/// Most labels of a site.
pub const LABELS_MAX: usize = 16;
/// Longest key or value of a label in bytes.
pub const LABEL_LEN_MAX: usize = 63;

/// A value that a certificate cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not 1 to 63 of a-z, 0-9 and hyphen.
    #[error("a name has 1 to {NAME_LEN_MAX} of a-z 0-9 -")]
    Name,
    /// Too many tunnel addresses.
    #[error("more than {ADDRESSES_MAX} tunnel addresses")]
    Addresses,
    /// A tunnel address that no host can have.
    #[error("a tunnel address is unspecified, loopback, multicast or broadcast")]
    Address,
    /// Too many prefixes.
    #[error("more than {PREFIXES_MAX} prefixes")]
    Prefixes,
    /// A prefix with host bits.
    #[error("a prefix has host bits: write 10.1.0.0/16, not 10.1.0.1/16")]
    HostBits,
    /// Too many labels.
    #[error("more than {LABELS_MAX} labels")]
    Labels,
    /// Not the key or value of a label, or the same key twice.
    #[error(
        "a label's key has 1 to {LABEL_LEN_MAX}, its value 0 to {LABEL_LEN_MAX} of A-Z a-z 0-9 - _ . (and / in keys), letters or digits at the ends; each key once"
    )]
    Label,
}

/// A site's, or a group's, name: 1 to 63 of `a-z`, `0-9` and hyphen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let is_valid = (1..=NAME_LEN_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_valid {
            return Err(SubjectError::Name);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a site may do for others, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No role.
    pub const NONE: Self = Self(0);
    /// Others may send through it to sites behind it.
    pub const HUB: Self = Self(1);
    /// Others may register with it and find each other through it.
    pub const RENDEZVOUS: Self = Self(2);
    /// It may pass on what two sites that cannot reach each other send.
    pub const RELAY: Self = Self(4);
    /// Every role.
    pub const ALL: Self = Self(7);

    /// These roles and the other ones.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn from_bits(bits: u8, field: &'static str) -> Result<Self, Malformed> {
        if bits & !Self::ALL.0 != 0 {
            return Err(Fault::NotZero.at(field));
        }
        Ok(Self(bits))
    }
}

/// Tunnel addresses, ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// Checks, sorts and deduplicates.
    ///
    /// # Errors
    /// Too many, or one that no host can have.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, SubjectError> {
        let mut all: Vec<IpAddr> = addresses.into_iter().collect();
        if !all.iter().all(|addr| is_host(*addr)) {
            return Err(SubjectError::Address);
        }
        all.sort_unstable();
        all.dedup();
        if all.len() > ADDRESSES_MAX {
            return Err(SubjectError::Addresses);
        }
        Ok(Self(all))
    }

    /// The addresses.
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(self.0.len());
        self.0.iter().for_each(|addr| out.put_address(*addr));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.count(ADDRESSES_MAX, "tunnel addresses")?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let addr = reader.address("tunnel addresses")?;
            if !is_host(addr) {
                return Err(Fault::Address.at("tunnel addresses"));
            }
            all.push(addr);
        }
        if !is_ascending(&all) {
            return Err(Fault::Order.at("tunnel addresses"));
        }
        Ok(Self(all))
    }
}

/// Prefixes without host bits, ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prefixes(Vec<Prefix>);

impl Prefixes {
    /// Checks, sorts and deduplicates.
    ///
    /// # Errors
    /// Too many, or one with host bits.
    pub fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Result<Self, SubjectError> {
        let mut all: Vec<Prefix> = prefixes.into_iter().collect();
        if all.iter().any(|prefix| prefix.network() != *prefix) {
            return Err(SubjectError::HostBits);
        }
        all.sort_unstable();
        all.dedup();
        if all.len() > PREFIXES_MAX {
            return Err(SubjectError::Prefixes);
        }
        Ok(Self(all))
    }

    /// The prefixes.
    pub fn as_slice(&self) -> &[Prefix] {
        &self.0
    }

    /// Whether some prefix holds all of `inner`.
    pub fn cover(&self, inner: Prefix) -> bool {
        self.0
            .iter()
            .any(|outer| outer.prefix_len() <= inner.prefix_len() && outer.contains(inner.addr()))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(self.0.len());
        self.0.iter().for_each(|prefix| out.put_prefix(*prefix));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.count(PREFIXES_MAX, "prefixes")?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(reader.prefix("prefixes")?);
        }
        if !is_ascending(&all) {
            return Err(Fault::Order.at("prefixes"));
        }
        Ok(Self(all))
    }
}

/// Labels as Kubernetes knows them, by ascending key, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// Checks and sorts.
    ///
    /// # Errors
    /// Too many, a key or value that is none, or a key twice.
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, SubjectError> {
        let mut all: Vec<(String, String)> = labels.into_iter().collect();
        all.sort_unstable();
        let are_valid = all.iter().all(|(key, value)| is_label(key, value));
        let are_once = all.windows(2).all(|pair| pair[0].0 != pair[1].0);
        if !are_valid || !are_once {
            return Err(SubjectError::Label);
        }
        if all.len() > LABELS_MAX {
            return Err(SubjectError::Labels);
        }
        Ok(Self(all))
    }

    /// Keys and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether every label of `other` is among these, with the same value.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.0.iter().all(|label| self.0.contains(label))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(self.0.len());
        for (key, value) in &self.0 {
            out.put_text(key);
            out.put_text(value);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.count(LABELS_MAX, "labels")?;
        let mut all: Vec<(String, String)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, value) = (reader.text("labels")?, reader.text("labels")?);
            if !is_label(key, value) {
                return Err(Fault::Text.at("labels"));
            }
            if all.last().is_some_and(|(last, _)| last.as_str() >= key) {
                return Err(Fault::Order.at("labels"));
            }
            all.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(all))
    }
}

/// What is certified about a site, and what a new site asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The site's name.
    pub name: Name,
    /// Sites with the same group may have the same prefixes.
    pub ha_group: Option<Name>,
    /// What it may do for others.
    pub roles: Roles,
    /// Its addresses inside the network. A request may leave the choice to the issuer.
    pub addresses: Addresses,
    /// Prefixes behind it: the only source of routes to it, and of what it may send from.
    pub prefixes: Prefixes,
    /// Labels that policy may select.
    pub labels: Labels,
}

impl Subject {
    /// A site with a name and nothing else.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            ha_group: None,
            roles: Roles::NONE,
            addresses: Addresses::default(),
            prefixes: Prefixes::default(),
            labels: Labels::default(),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.roles.bits());
        out.put_text(self.name.as_str());
        encode_name(self.ha_group.as_ref(), out);
        self.addresses.encode(out);
        self.prefixes.encode(out);
        self.labels.encode(out);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let roles = Roles::from_bits(reader.u8("roles")?, "roles")?;
        let name = decode_name(reader, "name")?.ok_or(Fault::Text.at("name"))?;
        Ok(Self {
            name,
            roles,
            ha_group: decode_name(reader, "ha_group")?,
            addresses: Addresses::decode(reader)?,
            prefixes: Prefixes::decode(reader)?,
            labels: Labels::decode(reader)?,
        })
    }
}

/// A name or, as no bytes, none.
pub(crate) fn encode_name(name: Option<&Name>, out: &mut Vec<u8>) {
    out.put_text(name.map_or("", Name::as_str));
}

pub(crate) fn decode_name(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<Option<Name>, Malformed> {
    match reader.text(field)? {
        "" => Ok(None),
        text => Ok(Some(text.parse().map_err(|_| Fault::Text.at(field))?)),
    }
}

/// Whether a host can have this address, as far as the address itself tells.
fn is_host(addr: IpAddr) -> bool {
    let is_mapped = matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_broadcast = matches!(addr, IpAddr::V4(v4) if v4.is_broadcast());
    let is_nobody = addr.is_unspecified() || addr.is_loopback() || addr.is_multicast();
    !(is_mapped || is_broadcast || is_nobody)
}

fn is_label(key: &str, value: &str) -> bool {
    !key.is_empty() && is_label_text(key, true) && is_label_text(value, false)
}

fn is_label_text(text: &str, may_have_slash: bool) -> bool {
    let is_inner = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.')
            || may_have_slash && byte == b'/'
    };
    let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_LEN_MAX
        && bytes.iter().all(|byte| is_inner(*byte))
        && is_end(bytes.first())
        && is_end(bytes.last())
}
