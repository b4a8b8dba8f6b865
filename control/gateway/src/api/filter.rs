//! Which flows are meant: terms such as `dst=10.8.0.0/16 port=443`, all of which must hold.

use std::net::IpAddr;

use patronus_api::FlowView;
use patronus_packet::Prefix;

use super::answers::Refused;
use super::views::protocol_number;

/// A checked filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Src(Prefix),
    Dst(Prefix),
    Addr(Prefix),
    Port(u16),
    Protocol(u8),
    Peer(String),
}

impl Filter {
    /// Reads a filter; an empty one lets everything through.
    ///
    /// # Errors
    /// Names the term that makes no sense, and what may stand there.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() > TERMS_MAX {
            let error = format!("more than {TERMS_MAX} terms");
            return Err(Refused::field("filter", error, "ask for less at once"));
        }
        let terms: Result<Vec<Term>, Refused> = words.into_iter().map(term).collect();
        Ok(Self { terms: terms? })
    }

    /// Whether a flow is meant.
    pub fn matches(&self, flow: &FlowView) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Src(prefix) => prefix.contains(flow.src),
            Term::Dst(prefix) => prefix.contains(flow.dst),
            Term::Addr(prefix) => prefix.contains(flow.src) || prefix.contains(flow.dst),
            Term::Port(port) => flow.dst_port == *port,
            Term::Protocol(protocol) => flow.protocol == *protocol,
            Term::Peer(name) => flow.peer.as_ref() == Some(name),
        })
    }
}

fn term(word: &str) -> Result<Term, Refused> {
    let shown: String = word.chars().take(64).flat_map(char::escape_debug).collect();
    let wrong = |fix: &str| Refused::field("filter", format!("`{shown}` is no term"), fix);
    let Some((key, value)) = word.split_once('=') else {
        return Err(wrong(TERMS));
    };
    let prefix = || {
        let addr = value.parse::<IpAddr>().map(Prefix::host).ok();
        addr.or_else(|| value.parse::<Prefix>().ok())
            .ok_or_else(|| wrong("write an address or a prefix, such as 10.8.0.0/16"))
    };
    Ok(match key {
        "src" => Term::Src(prefix()?),
        "dst" => Term::Dst(prefix()?),
        "addr" => Term::Addr(prefix()?),
        "port" => Term::Port(
            value
                .parse()
                .map_err(|_| wrong("write a port, 0 to 65535"))?,
        ),
        "proto" => Term::Protocol(
            protocol_number(value)
                .ok_or_else(|| wrong("write tcp, udp, sctp, icmp or a number"))?,
        ),
        "peer" => Term::Peer(value.to_owned()),
        _ => return Err(wrong(TERMS)),
    })
}

const TERMS: &str =
    "write src=, dst=, addr=, port=, proto= or peer=, such as dst=10.8.0.0/16 port=443";
const TERMS_MAX: usize = 32;
