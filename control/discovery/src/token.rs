//! Join tokens: what an operator carries to a new site so that it can ask for its certificate, once.

use std::fmt;
use std::net::IpAddr;

use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

use crate::armor::{self, ARMORED_LEN_MAX, ArmorError, Armored};
use crate::envelope::DiscoveryKey;
use crate::ids::{IssuerId, NetworkId, SiteId, TokenId};
use crate::keys::{KEY_LEN, RootPublicKey};
use crate::subject::{Labels, Name, Prefixes, Roles, Subject, decode_name, encode_name};
use crate::time::WallTime;
use crate::wire::{Fault, Malformed, Put, Reader};

/// Most seeds of a token.
pub const SEEDS_MAX: usize = 8;
/// Longest DNS name of a seed in bytes (RFC 1035, 2.3.4).
pub const DNS_NAME_LEN_MAX: usize = 253;

const VERSION: u8 = 1;
const HOST_IS_NAME: u8 = 1;

/// What only the issuer and the token's holder know, wiped from memory when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

/// What a token's site may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Its name; `None` for any.
    pub name: Option<Name>,
    /// Its group, if it has one.
    pub ha_group: Option<Name>,
    /// Roles that it may have.
    pub roles: Roles,
    /// Its prefixes lie in these.
    pub prefixes: Prefixes,
    /// Labels that it may have.
    pub labels: Labels,
}

/// What goes beyond an [`Allowance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Excess {
    /// The name.
    #[error("the token is for a site with another name")]
    Name,
    /// The group.
    #[error("the token does not allow this ha_group")]
    HaGroup,
    /// A role.
    #[error("the token does not allow one of the roles")]
    Role,
    /// A prefix.
    #[error("the token does not allow one of the prefixes")]
    Prefix,
    /// A label.
    #[error("the token does not allow one of the labels")]
    Label,
}

/// A site that a new site can begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its id: what its key must hash to.
    pub pin: SiteId,
    /// Where.
    pub host: SeedHost,
    /// UDP port of its discovery.
    pub port: u16,
}

/// An address or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedHost {
    /// An address.
    Address(IpAddr),
    /// A DNS name, of lower-case letters, digits, hyphens and dots.
    Name(DnsName),
}

/// A DNS name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName(String);

/// A join token. Whoever has it can join once: it is carried like a password.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// The network's root: the only key that the new site believes.
    pub root: RootPublicKey,
    /// The group's key.
    pub discovery_key: DiscoveryKey,
    /// Who will sign; `None` for the root itself.
    pub issuer: Option<IssuerId>,
    /// Which token.
    pub id: TokenId,
    /// That it is had.
    pub secret: TokenSecret,
    /// Until when.
    pub expires_at: WallTime,
    /// For what.
    pub allowance: Allowance,
    /// Where to begin: 1 to [`SEEDS_MAX`].
    pub seeds: Vec<Seed>,
}

/// Why a text is no token to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or not copied well.
    #[error(transparent)]
    Text(#[from] ArmorError),
    /// Copied well, and still no token.
    #[error("the join token was made by another program or version: {0}")]
    Malformed(#[from] Malformed),
    /// Too late.
    #[error("the join token has expired: ask for a new one, and check this machine's clock")]
    Expired,
}

/// A token does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenTooLarge {
    /// None, or too many.
    #[error("a token has 1 to {SEEDS_MAX} seeds, not {0}")]
    Seeds(usize),
    /// Too long.
    #[error(
        "the token would have {0} bytes, {ARMORED_LEN_MAX} is the limit: give fewer or shorter seeds and labels"
    )]
    Length(usize),
}

impl TokenSecret {
    /// A new one.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self(*bytes)
    }

    /// Takes the bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The bytes: handle with care.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for TokenSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(hidden)")
    }
}

impl Allowance {
    /// Whether a site may be like this. Addresses are the issuer's choice.
    ///
    /// # Errors
    /// The first thing that it may not.
    pub fn check(&self, asked: &Subject) -> Result<(), Excess> {
        if self.name.as_ref().is_some_and(|name| *name != asked.name) {
            return Err(Excess::Name);
        }
        if asked.ha_group.is_some() && asked.ha_group != self.ha_group {
            return Err(Excess::HaGroup);
        }
        if !self.roles.contains(asked.roles) {
            return Err(Excess::Role);
        }
        if !asked
            .prefixes
            .as_slice()
            .iter()
            .all(|prefix| self.prefixes.cover(*prefix))
        {
            return Err(Excess::Prefix);
        }
        if !self.labels.contains_all(&asked.labels) {
            return Err(Excess::Label);
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.roles.bits());
        encode_name(self.name.as_ref(), out);
        encode_name(self.ha_group.as_ref(), out);
        self.prefixes.encode(out);
        self.labels.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let roles = Roles::from_bits(reader.u8("roles")?, "roles")?;
        Ok(Self {
            roles,
            name: decode_name(reader, "name")?,
            ha_group: decode_name(reader, "ha_group")?,
            prefixes: Prefixes::decode(reader)?,
            labels: Labels::decode(reader)?,
        })
    }
}

impl DnsName {
    /// Checks the name (RFC 1123, 2.1), with capitals made small.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Self::is_valid(&name).then_some(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_valid(name: &str) -> bool {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        name.len() <= DNS_NAME_LEN_MAX && name.split('.').all(is_label)
    }
}

impl Seed {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put(self.pin.as_bytes());
        out.put_u16(self.port);
        match &self.host {
            SeedHost::Address(addr) => out.put_address(*addr),
            SeedHost::Name(name) => {
                out.put_u8(HOST_IS_NAME);
                out.put_text(name.as_str());
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let pin = SiteId::from_bytes(reader.array("seed's pin")?);
        let port = reader.u16("seed's port")?;
        if port == 0 {
            return Err(Fault::Contradiction.at("seed's port"));
        }
        let is_name = reader.rest().first() == Some(&HOST_IS_NAME);
        let host = if is_name {
            reader.u8("seed")?;
            let text = reader.text("seed")?;
            let name = DnsName::is_valid(text).then(|| DnsName(text.to_owned()));
            SeedHost::Name(name.ok_or(Fault::Text.at("seed"))?)
        } else {
            SeedHost::Address(reader.address("seed")?)
        };
        Ok(Self { pin, host, port })
    }
}

impl JoinToken {
    /// The network: made of the root's key.
    pub fn network(&self) -> NetworkId {
        self.root.id()
    }

    /// One line of text.
    ///
    /// # Errors
    /// A token without seeds, or one that does not fit.
    pub fn to_text(&self) -> Result<Zeroizing<String>, TokenTooLarge> {
        if self.seeds.is_empty() || self.seeds.len() > SEEDS_MAX {
            return Err(TokenTooLarge::Seeds(self.seeds.len()));
        }
        let content = self.encode();
        if content.len() > ARMORED_LEN_MAX {
            return Err(TokenTooLarge::Length(content.len()));
        }
        Ok(armor::encode(Armored::JoinToken, &content))
    }

    /// Reads what [`to_text`](Self::to_text) wrote; white space anywhere is ignored.
    ///
    /// # Errors
    /// A text that is none, was cut or mistyped, or a token that has expired.
    pub fn from_text(text: &str, now: WallTime) -> Result<Self, TokenError> {
        let content = armor::decode(Armored::JoinToken, text)?;
        let token = Self::decode(&content)?;
        if now > token.expires_at {
            return Err(TokenError::Expired);
        }
        Ok(token)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Full capacity at once: growing would leave copies of a secret behind.
        let mut out = Zeroizing::new(Vec::with_capacity(8 * ARMORED_LEN_MAX));
        out.put_u8(VERSION);
        out.put(self.root.as_bytes());
        out.put(self.discovery_key.as_bytes());
        out.put(&self.issuer.map_or([0; 16], |issuer| *issuer.as_bytes()));
        out.put(self.id.as_bytes());
        out.put(self.secret.as_bytes());
        out.put_u64(self.expires_at.0);
        self.allowance.encode(&mut out);
        out.put_count(self.seeds.len());
        self.seeds.iter().for_each(|seed| seed.encode(&mut out));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8("token version")? != VERSION {
            return Err(Fault::Unknown.at("token version"));
        }
        let root: [u8; KEY_LEN] = reader.array("root key")?;
        let root = RootPublicKey::from_bytes(&root).map_err(|_| Fault::Key.at("root key"))?;
        let discovery_key = Zeroizing::new(reader.array("discovery key")?);
        let issuer = reader.array("issuer")?;
        let id = TokenId::from_bytes(reader.array("token id")?);
        let secret = Zeroizing::new(reader.array("token secret")?);
        let expires_at = WallTime(reader.u64("expiry")?);
        let allowance = Allowance::decode(&mut reader)?;
        let count = reader.count(SEEDS_MAX, "seeds")?;
        if count == 0 {
            return Err(Fault::CutOff.at("seeds"));
        }
        let seeds = (0..count)
            .map(|_| Seed::decode(&mut reader))
            .collect::<Result<_, _>>()?;
        reader.finish("token")?;
        Ok(Self {
            root,
            discovery_key: DiscoveryKey::from_bytes(&discovery_key),
            issuer: (issuer != [0; 16]).then(|| IssuerId::from_bytes(issuer)),
            id,
            secret: TokenSecret::from_bytes(&secret),
            expires_at,
            allowance,
            seeds,
        })
    }
}
