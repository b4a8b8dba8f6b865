//! Ends and ports as people write them on a command line, and the connection that they mean in a cluster.

use std::net::IpAddr;
use std::str::FromStr;

use crate::cluster::Cluster;
use crate::diagnostic::quote;
use crate::document::run::Asked;
use crate::document::{End, EndPlace, ProbeKind, Transport, parse};
use crate::manifest::{Kind, ObjectRef};
use crate::model::Connection;

/// The first packet of a connection between two ends. As in documents, a pod or a node is meant with its first
/// address, and with one of the other end's family where it has several.
///
/// # Errors
/// An end that the cluster does not have, or two that share no family.
pub fn connection(
    cluster: &Cluster,
    src: &End,
    dst: &End,
    transport: Transport,
) -> Result<Connection, String> {
    let asked = Asked {
        list: "",
        at: 0,
        src,
        dst,
        transport,
        kind: ProbeKind::New,
        because: "",
    };
    asked.connection(cluster)
}

impl FromStr for End {
    type Err = String;

    /// As in documents; an address needs no `ip:` before it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self {
                place: EndPlace::Address(addr),
                family: None,
            });
        }
        parse::parse_end(text).ok_or_else(|| {
            format!(
                "`{}` is no end: write an address, namespace/pod, namespace/pod@4, namespace/pod@6, node:NAME or \
                 node:NAME@6",
                quote(text)
            )
        })
    }
}

impl End {
    /// The object that it names, where it is no address.
    pub fn object(&self) -> Option<ObjectRef> {
        match &self.place {
            EndPlace::Pod(id) => Some(ObjectRef::namespaced(Kind::Pod, id)),
            EndPlace::Node(name) => Some(ObjectRef::cluster_wide(Kind::Node, name)),
            EndPlace::Address(_) => None,
        }
    }
}

impl Transport {
    /// ICMP of whichever family the ends have.
    pub const ICMP: Self = Self {
        number: None,
        port: 0,
    };

    /// The protocol's number; `None` is [`Self::ICMP`].
    pub fn protocol(&self) -> Option<u8> {
        self.number
    }

    /// The destination port; 0 for protocols without ports.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A protocol by number with a port, which counts for TCP, UDP and SCTP only.
    pub fn new(protocol: u8, port: u16) -> Self {
        Self {
            number: Some(protocol),
            port,
        }
    }
}

impl FromStr for Transport {
    type Err = String;

    /// `tcp/443`, `udp/53`, `sctp/3868` in any case; `icmp`; any other protocol by its number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, port) = match text.split_once('/') {
            Some((protocol, port)) => (protocol, Some(port)),
            None => (text, None),
        };
        let number = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Some(6),
            "udp" => Some(17),
            "sctp" => Some(132),
            "icmp" => None,
            other => Some(other.parse::<u8>().map_err(|_| no_protocol(text))?),
        };
        let has_ports = matches!(number, Some(6 | 17 | 132));
        let port = match (has_ports, port) {
            (true, Some(port)) => port.parse::<u16>().ok().filter(|it| *it > 0),
            (true, None) => {
                return Err(format!(
                    "`{}` lacks a port: write {}/443",
                    quote(text),
                    quote(protocol)
                ));
            }
            (false, None) => Some(0),
            (false, Some(_)) => {
                return Err(format!(
                    "protocol {} has no ports: write it without `/…`",
                    quote(protocol)
                ));
            }
        };
        let port = port.ok_or_else(|| {
            format!(
                "`{}` has no port: write a number from 1 to 65535 behind the `/`",
                quote(text)
            )
        })?;
        Ok(Self { number, port })
    }
}

fn no_protocol(text: &str) -> String {
    format!(
        "`{}` is no protocol: write tcp/PORT, udp/PORT, sctp/PORT, icmp, or a number from 0 to 255",
        quote(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Transport>();
        assert_eq!(read("TCP/443"), Ok(Transport::new(6, 443)));
        assert_eq!(read("udp/53"), Ok(Transport::new(17, 53)));
        assert_eq!(read("132/1"), Ok(Transport::new(132, 1)));
        assert_eq!(read("47"), Ok(Transport::new(47, 0)));
        assert_eq!(
            read("icmp"),
            Ok(Transport {
                number: None,
                port: 0
            })
        );
        for bad in [
            "",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/http",
            "icmp/8",
            "256",
            "xyz/1",
            "/1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ends_are_read_with_and_without_their_prefix() {
        let read = |text: &str| text.parse::<End>();
        assert_eq!(read("10.0.0.1"), read("ip:10.0.0.1"));
        assert_eq!(read("fd00::1"), read("ip:fd00::1"));
        assert_eq!(
            read("a/b@6").map(|it| it.to_string()),
            Ok("a/b@6".to_owned())
        );
        assert!(read("node:gw").is_ok());
        for bad in ["", "shop", "10.0.0", "a/b@5", "ip:x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
