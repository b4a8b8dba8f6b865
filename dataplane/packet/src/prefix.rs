//! An IP prefix: what routes, allowed IPs and interface addresses are made of.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and a prefix length. The host bits are kept: `10.0.0.1/24` is an interface address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is no IP address.
    #[error("`{0}` is not an IP address: write it like 10.1.0.0/16 or 2001:db8::/32")]
    Address(String),
    /// The part behind the slash is no number, or too large for the address family.
    #[error("prefix length `{len}` is not a number from 0 to {max}")]
    Length {
        /// What stood behind the slash.
        len: String,
        /// The largest length of the address family.
        max: u8,
    },
}

impl Prefix {
    /// A prefix of `len` bits; `None` where the family has fewer.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        (len <= max_len(addr)).then_some(Self { addr, len })
    }

    /// The prefix that holds `addr` alone.
    pub fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: max_len(addr),
        }
    }

    /// The address with its host bits.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether this is a default route of its family.
    pub fn is_default(&self) -> bool {
        self.len == 0
    }

    /// The same prefix with all host bits zero.
    pub fn network(&self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(
                v4.to_bits() & mask(u128::from(u32::MAX), 32, self.len) as u32,
            )),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(
                v6.to_bits() & mask(u128::MAX, 128, self.len),
            )),
        };
        Self {
            addr,
            len: self.len,
        }
    }

    /// Whether `addr` lies inside; an address of the other family never does.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
            && Self {
                addr,
                len: self.len,
            }
            .network()
            .addr
                == self.network().addr
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `ADDR/LEN`; a bare address is its host prefix, as `wg` reads it.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| PrefixError::Address(addr.to_owned()))?;
        let max = max_len(addr);
        let Some(len) = len else {
            return Ok(Self::host(addr));
        };
        let number = len.parse().ok().filter(|number| *number <= max);
        // `u8::from_str` takes a leading plus, which nobody means.
        match number.filter(|_| len.bytes().all(|byte| byte.is_ascii_digit())) {
            Some(number) => Ok(Self { addr, len: number }),
            None => Err(PrefixError::Length {
                len: len.to_owned(),
                max,
            }),
        }
    }
}

fn max_len(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// The upper `len` bits of a family's `all` ones.
fn mask(all: u128, bits: u8, len: u8) -> u128 {
    match bits - len {
        128 => 0,
        host => all & (all << host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_kept_until_the_network_is_asked_for() {
        assert_eq!(prefix("10.1.2.3/16").to_string(), "10.1.2.3/16");
        assert_eq!(prefix("10.1.2.3/16").network(), prefix("10.1.0.0/16"));
        assert_eq!(prefix("fd00::1/0").network(), prefix("::/0"));
        assert_eq!(prefix("255.255.255.255/0").network(), prefix("0.0.0.0/0"));
        assert_eq!(
            prefix("fd00:1:2:3::4/64").network(),
            prefix("fd00:1:2:3::/64")
        );
    }

    #[test]
    fn a_bare_address_is_its_host_prefix() {
        assert_eq!(prefix("10.0.0.1").prefix_len(), 32);
        assert_eq!(prefix("fd00::1").prefix_len(), 128);
    }

    #[test]
    fn families_do_not_contain_each_other() {
        assert!(!prefix("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(prefix("10.0.0.0/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!prefix("10.0.0.0/8").contains("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "x",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
