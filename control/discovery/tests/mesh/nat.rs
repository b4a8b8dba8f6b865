//! NATs, in the words of RFC 4787.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What a mapping or a filter depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depends {
    /// On nothing but the inner address and port.
    EndpointIndependent,
    /// On the other side's address and port too.
    AddressAndPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatKind {
    pub mapping: Depends,
    pub filtering: Depends,
    pub hairpins: bool,
    pub timeout: Duration,
}

impl NatKind {
    /// "Full cone", "port-restricted cone", "symmetric".
    pub const CONE: Self = Self {
        mapping: Depends::EndpointIndependent,
        filtering: Depends::EndpointIndependent,
        hairpins: true,
        timeout: Duration::from_secs(30),
    };
    pub const RESTRICTED: Self = Self {
        filtering: Depends::AddressAndPort,
        hairpins: false,
        ..Self::CONE
    };
    pub const SYMMETRIC: Self = Self {
        mapping: Depends::AddressAndPort,
        filtering: Depends::AddressAndPort,
        hairpins: false,
        ..Self::CONE
    };
}

pub struct Nat {
    pub public: IpAddr,
    pub kind: NatKind,
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    by_port: BTreeMap<u16, Mapping>,
    next_port: u16,
}

struct Mapping {
    inner: SocketAddr,
    key: (SocketAddr, Option<SocketAddr>),
    used_at: Instant,
    sent_to: BTreeMap<SocketAddr, Instant>,
}

impl Nat {
    pub fn new(public: IpAddr, kind: NatKind) -> Self {
        Self {
            public,
            kind,
            mappings: BTreeMap::new(),
            by_port: BTreeMap::new(),
            next_port: 20_000,
        }
    }

    /// The outer source of a packet that goes out.
    pub fn outbound(&mut self, inner: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        self.expire(now);
        let to_matters = self.kind.mapping == Depends::AddressAndPort;
        let key = (inner, to_matters.then_some(to));
        let port = match self.mappings.get(&key) {
            Some(port) => *port,
            None => {
                self.next_port += 1;
                self.mappings.insert(key, self.next_port);
                let mapping = Mapping {
                    inner,
                    key,
                    used_at: now,
                    sent_to: BTreeMap::new(),
                };
                self.by_port.insert(self.next_port, mapping);
                self.next_port
            }
        };
        if let Some(mapping) = self.by_port.get_mut(&port) {
            mapping.used_at = now;
            mapping.sent_to.insert(to, now);
        }
        SocketAddr::new(self.public, port)
    }

    /// The inner target of a packet that comes in.
    pub fn inbound(&mut self, port: u16, from: SocketAddr, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        let filters = self.kind.filtering == Depends::AddressAndPort;
        let mapping = self.by_port.get(&port)?;
        let is_expected = mapping.sent_to.contains_key(&from);
        (is_expected || !filters).then_some(mapping.inner)
    }

    /// Only what goes out keeps a mapping (RFC 4787, REQ-6).
    fn expire(&mut self, now: Instant) {
        let timeout = self.kind.timeout;
        let mappings = &mut self.mappings;
        self.by_port.retain(|_, mapping| {
            mapping.sent_to.retain(|_, at| now - *at < timeout);
            let lives = now - mapping.used_at < timeout;
            if !lives {
                mappings.remove(&mapping.key);
            }
            lives
        });
    }
}
