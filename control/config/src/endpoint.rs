//! Where a peer is reached: an address, or a name for the gateway to resolve.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use crate::diagnostic::quote;

/// A peer's outer address and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerEndpoint {
    /// A literal address.
    Addr(SocketAddr),
    /// A DNS name; this crate never resolves it.
    Name {
        /// The name.
        host: HostName,
        /// UDP port, never 0.
        port: u16,
    },
}

/// One of a peer's addresses, and what the operator thinks of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CostedEndpoint {
    /// The address.
    pub endpoint: PeerEndpoint,
    /// Added to the cost of the uplink; lower is better.
    pub cost: u16,
}

/// A DNS host name in the syntax of RFC 1123, section 2.1, with `_` allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No colon, or nothing behind it.
    #[error("`{0}` has no port: write HOST:PORT, such as 203.0.113.7:51820")]
    PortMissing(String),
    /// The port is no number from 1 to 65535.
    #[error("`{0}` is not a port: write a number from 1 to 65535")]
    Port(String),
    /// An IPv6 address without brackets: the port cannot be told from the address.
    #[error("`{0}` is an IPv6 address without brackets: write [2001:db8::7]:51820")]
    Brackets(String),
    /// The text between brackets is no IPv6 address.
    #[error("`{0}` is not an IPv6 address: write [2001:db8::7]:51820, a zone as its number")]
    V6(String),
    /// Neither an IPv4 address nor a host name.
    #[error("`{0}` is neither an IP address nor a host name")]
    Host(String),
    /// An address that no single machine has.
    #[error("{0} is not the address of a machine: write the peer's unicast address")]
    NotUnicast(IpAddr),
}

impl FromStr for PeerEndpoint {
    type Err = EndpointError;

    /// Reads `IPV4:PORT`, `[IPV6]:PORT`, `[IPV6%ZONE]:PORT` with a numeric zone, or `NAME:PORT`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(EndpointError::Brackets(quote(text)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(EndpointError::PortMissing(quote(text)));
        };
        // `u16::from_str` takes a leading plus, which nobody means.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse() {
            Ok(number) if number != 0 && digits => number,
            Ok(_) | Err(_) if port.is_empty() || port.ends_with(']') => {
                return Err(EndpointError::PortMissing(quote(text)));
            }
            Ok(_) | Err(_) => return Err(EndpointError::Port(quote(port))),
        };
        if let Some(inner) = host.strip_prefix('[') {
            let v6: Option<SocketAddrV6> = inner
                .ends_with(']')
                .then(|| format!("{host}:{port}").parse().ok())
                .flatten();
            let v6 = v6.ok_or_else(|| EndpointError::V6(quote(host)))?;
            return unicast(SocketAddr::V6(v6));
        }
        if host.contains(':') {
            return Err(EndpointError::Brackets(quote(text)));
        }
        if let Ok(addr) = host.parse::<IpAddr>() {
            return unicast(SocketAddr::new(addr, port));
        }
        let host = host.parse()?;
        Ok(Self::Name { host, port })
    }
}

impl fmt::Display for PeerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{}:{port}", host.0),
        }
    }
}

impl FromStr for HostName {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LABEL_LEN_MAX).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        // A name whose last label is a number is a mistyped IPv4 address (RFC 3696, section 2).
        let numeric = bare
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if bare.len() > HOST_LEN_MAX || numeric || !bare.split('.').all(is_label) {
            return Err(EndpointError::Host(quote(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl HostName {
    /// The name as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn unicast(addr: SocketAddr) -> Result<PeerEndpoint, EndpointError> {
    let ip = addr.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(EndpointError::NotUnicast(ip));
    }
    Ok(PeerEndpoint::Addr(addr))
}

const LABEL_LEN_MAX: usize = 63;
const HOST_LEN_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> EndpointError {
        text.parse::<PeerEndpoint>().unwrap_err()
    }

    #[test]
    fn addresses_and_names_read_back_as_written() {
        for text in [
            "203.0.113.7:51820",
            "[2001:db8::7]:1",
            "[fe80::1%3]:51820",
            "hub1.example.net:65535",
            "hub1.example.net.:51820",
            "gateway:51820",
            "_wg.3com.example:51820",
        ] {
            assert_eq!(text.parse::<PeerEndpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_mistake_has_its_own_message() {
        assert!(matches!(
            error("203.0.113.7"),
            EndpointError::PortMissing(_)
        ));
        assert!(matches!(
            error("203.0.113.7:"),
            EndpointError::PortMissing(_)
        ));
        assert!(matches!(
            error("[2001:db8::7]"),
            EndpointError::PortMissing(_)
        ));
        assert!(matches!(error("203.0.113.7:0"), EndpointError::Port(_)));
        assert!(matches!(error("203.0.113.7:+1"), EndpointError::Port(_)));
        assert!(matches!(error("203.0.113.7:65536"), EndpointError::Port(_)));
        assert!(matches!(error("2001:db8::7"), EndpointError::Brackets(_)));
        assert!(matches!(
            error("2001:db8:0:0:0:0:0:7:51820"),
            EndpointError::Brackets(_)
        ));
        assert!(matches!(error("[2001:db8::7:51820"), EndpointError::V6(_)));
        assert!(matches!(
            error("[fe80::1%eth0]:51820"),
            EndpointError::V6(_)
        ));
        assert!(matches!(error("[10.0.0.1]:51820"), EndpointError::V6(_)));
        assert!(matches!(error("203.0.113:51820"), EndpointError::Host(_)));
        assert!(matches!(
            error("203.0.113.700:51820"),
            EndpointError::Host(_)
        ));
        assert!(matches!(error(":51820"), EndpointError::Host(_)));
        assert!(matches!(error("a..b:51820"), EndpointError::Host(_)));
        assert!(matches!(error("-a:51820"), EndpointError::Host(_)));
        assert!(matches!(
            error("0.0.0.0:51820"),
            EndpointError::NotUnicast(_)
        ));
        assert!(matches!(
            error("[ff02::1]:51820"),
            EndpointError::NotUnicast(_)
        ));
    }
}
