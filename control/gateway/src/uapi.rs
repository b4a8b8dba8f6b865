//! The WireGuard cross-platform userspace protocol (`wireguard.com/xplatform`): text in, text out.
//!
//! Knows the format only; the daemon knows what to do with it. A request is read whole and checked before
//! anything changes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use patronus_config::{Keepalive, KeyText};
use patronus_packet::Prefix;
use patronus_tunnel::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// A request may be this long, in bytes: about ten thousand peers.
pub const REQUEST_MAX: usize = 4 << 20;

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `get=1`
    Get,
    /// `set=1`
    Set(Box<SetRequest>),
}

/// What a `set` wants changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SetRequest {
    /// Our new key pair.
    pub private_key: Option<PrivateKey>,
    /// Our new UDP port.
    pub listen_port: Option<u16>,
    /// The new firewall mark; `Some(0)` removes it.
    pub fwmark: Option<u32>,
    /// Whether peers that are not named disappear.
    pub replace_peers: bool,
    /// Peers to change, in order.
    pub peers: Vec<PeerChange>,
}

/// What a `set` wants changed in one peer.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerChange {
    /// Which peer.
    pub public_key: PublicKey,
    /// Remove it.
    pub remove: bool,
    /// Do nothing where it does not exist.
    pub update_only: bool,
    /// The new preshared key; `Some(None)` removes it.
    pub preshared_key: Option<Option<PresharedKey>>,
    /// The new address.
    pub endpoint: Option<SocketAddr>,
    /// The new keepalive; `Some(None)` switches it off.
    pub keepalive: Option<Option<Keepalive>>,
    /// Whether the allowed IPs it has disappear.
    pub replace_allowed_ips: bool,
    /// Allowed IPs to add.
    pub allowed_ips: Vec<Prefix>,
}

/// Why a request is refused: the line, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct UapiError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// What `get` tells about the interface.
#[derive(Debug)]
pub struct Device<'a> {
    /// Our key.
    pub private_key: &'a PrivateKey,
    /// Our UDP port.
    pub listen_port: u16,
    /// The firewall mark; 0 is none.
    pub fwmark: u32,
    /// The peers.
    pub peers: Vec<PeerState<'a>>,
}

/// What `get` tells about one peer.
#[derive(Debug)]
pub struct PeerState<'a> {
    /// Its key.
    pub public_key: PublicKey,
    /// The key mixed into its handshakes.
    pub preshared_key: Option<&'a PresharedKey>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake completed, since the Unix epoch.
    pub last_handshake: Option<Duration>,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Its persistent keepalive.
    pub keepalive: Option<Keepalive>,
    /// What it owns.
    pub allowed_ips: &'a [Prefix],
}

/// `errno` values that the protocol answers with: negative, as wireguard-go writes and `wg` reads them.
pub mod errno {
    /// Done.
    pub const OK: i32 = 0;
    /// The request is wrong: `EINVAL`.
    pub const INVALID: i32 = -22;
    /// The port is taken: `EADDRINUSE`.
    pub const ADDRESS_IN_USE: i32 = -98;
    /// Anything that went wrong while doing it: `EIO`.
    pub const IO: i32 = -5;
}

impl Request {
    /// Reads a request, up to but without its empty last line.
    ///
    /// # Errors
    /// The first line that is not as the protocol wants it.
    pub fn parse(text: &str) -> Result<Self, UapiError> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        match lines.next() {
            Some((_, "get=1")) => match lines.next() {
                None | Some((_, "")) => Ok(Self::Get),
                Some((line, _)) => Err(error(line, "get=1 takes no further lines")),
            },
            Some((_, "set=1")) => parse_set(lines).map(|set| Self::Set(Box::new(set))),
            Some((line, _)) => Err(error(line, "a request begins with get=1 or set=1")),
            None => Err(error(1, "the request is empty")),
        }
    }
}

fn parse_set<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<SetRequest, UapiError> {
    let mut set = SetRequest::default();
    for (line, text) in lines {
        if text.is_empty() {
            break;
        }
        let Some((key, value)) = text.split_once('=') else {
            return Err(error(line, "not KEY=VALUE"));
        };
        let done = match set.peers.last_mut() {
            _ if key == "public_key" => {
                set.peers.push(PeerChange::new(hex(line, value)?));
                true
            }
            None => interface_key(&mut set, line, key, value)?,
            Some(peer) => peer_key(peer, line, key, value)?,
        };
        if !done {
            return Err(error(
                line,
                &format!("unknown key `{}`", key.escape_debug()),
            ));
        }
    }
    Ok(set)
}

fn interface_key(
    set: &mut SetRequest,
    line: usize,
    key: &str,
    value: &str,
) -> Result<bool, UapiError> {
    match key {
        "private_key" => set.private_key = Some(hex(line, value)?),
        "listen_port" => set.listen_port = Some(number(line, value)?),
        "fwmark" => set.fwmark = Some(number(line, value)?),
        "replace_peers" => set.replace_peers = flag(line, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn peer_key(peer: &mut PeerChange, line: usize, key: &str, value: &str) -> Result<bool, UapiError> {
    match key {
        "remove" => peer.remove = flag(line, value)?,
        "update_only" => peer.update_only = flag(line, value)?,
        "preshared_key" => {
            let preshared: PresharedKey = hex(line, value)?;
            peer.preshared_key = Some((*preshared.as_bytes() != [0; 32]).then_some(preshared));
        }
        "endpoint" => {
            let endpoint: SocketAddr = value
                .parse()
                .map_err(|_| error(line, "not ADDRESS:PORT; names are the client's to resolve"))?;
            if endpoint.port() == 0 {
                return Err(error(line, "an endpoint has a port from 1 to 65535"));
            }
            peer.endpoint = Some(endpoint);
        }
        "persistent_keepalive_interval" => {
            peer.keepalive = Some(NonZeroU16::new(number(line, value)?).map(Keepalive::new));
        }
        "replace_allowed_ips" => peer.replace_allowed_ips = flag(line, value)?,
        "allowed_ip" => {
            let prefix: Prefix = value
                .parse()
                .map_err(|why| error(line, &format!("{why}")))?;
            peer.allowed_ips.push(prefix.network());
        }
        "protocol_version" if value == "1" => {}
        "protocol_version" => return Err(error(line, "only protocol_version=1 exists")),
        _ => return Ok(false),
    }
    Ok(true)
}

impl PeerChange {
    fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

impl Device<'_> {
    /// The answer to `get=1`, with its closing empty line. It holds secrets.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(256 + self.peers.len() * 512));
        self.write(&mut text).expect("a String takes everything");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "private_key={}", *self.private_key.to_hex())?;
        writeln!(text, "listen_port={}", self.listen_port)?;
        if self.fwmark != 0 {
            writeln!(text, "fwmark={}", self.fwmark)?;
        }
        for peer in &self.peers {
            writeln!(text, "public_key={}", peer.public_key.to_hex())?;
            if let Some(key) = peer.preshared_key {
                writeln!(text, "preshared_key={}", *key.to_hex())?;
            }
            if let Some(endpoint) = peer.endpoint {
                writeln!(text, "endpoint={endpoint}")?;
            }
            let at = peer.last_handshake.unwrap_or_default();
            writeln!(text, "last_handshake_time_sec={}", at.as_secs())?;
            writeln!(text, "last_handshake_time_nsec={}", at.subsec_nanos())?;
            writeln!(text, "tx_bytes={}", peer.tx_bytes)?;
            writeln!(text, "rx_bytes={}", peer.rx_bytes)?;
            let keepalive = peer.keepalive.map_or(0, Keepalive::seconds);
            writeln!(text, "persistent_keepalive_interval={keepalive}")?;
            for prefix in peer.allowed_ips {
                writeln!(text, "allowed_ip={prefix}")?;
            }
            writeln!(text, "protocol_version=1")?;
        }
        writeln!(text, "errno=0\n")
    }
}

fn hex<K: KeyText>(line: usize, value: &str) -> Result<K, UapiError> {
    K::from_hex(value).map_err(|why| error(line, &format!("the key is {why}")))
}

fn number<N: std::str::FromStr>(line: usize, value: &str) -> Result<N, UapiError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|_| digits);
    number.ok_or_else(|| error(line, "not a number of the right size"))
}

fn flag(line: usize, value: &str) -> Result<bool, UapiError> {
    match value {
        "true" => Ok(true),
        _ => Err(error(line, "the only value of a flag is true")),
    }
}

/// What the client wrote may be quoted in `what`, and ends up in a log that somebody reads in a terminal.
fn error(line: usize, what: &str) -> UapiError {
    let mut printable = String::with_capacity(what.len());
    for char in what.chars() {
        match char.is_control() {
            true => printable.extend(char.escape_default()),
            false => printable.push(char),
        }
    }
    UapiError {
        line,
        what: printable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "58d3ec2a2b5c3e5d1f3e3f1d0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b";

    fn set(text: &str) -> Result<SetRequest, UapiError> {
        match Request::parse(text)? {
            Request::Set(set) => Ok(*set),
            Request::Get => panic!("parsed as get"),
        }
    }

    #[test]
    fn what_wg_setconf_sends_is_understood() {
        let text = format!(
            "set=1\nprivate_key={KEY}\nlisten_port=51820\nfwmark=0\nreplace_peers=true\npublic_key={KEY}\n\
             preshared_key={KEY}\nendpoint=[2001:db8::1]:51820\npersistent_keepalive_interval=25\n\
             replace_allowed_ips=true\nallowed_ip=10.0.0.1/8\nallowed_ip=fd00::/8\npublic_key={KEY}\nremove=true\n\n"
        );
        let set = set(&text).unwrap();
        assert_eq!(
            (set.listen_port, set.fwmark, set.replace_peers),
            (Some(51820), Some(0), true)
        );
        let [first, second] = &set.peers[..] else {
            panic!("{set:?}")
        };
        assert_eq!(first.endpoint, Some("[2001:db8::1]:51820".parse().unwrap()));
        assert_eq!(first.allowed_ips[0].to_string(), "10.0.0.0/8");
        assert!(first.replace_allowed_ips && !first.remove && second.remove);
        assert_eq!(first.keepalive.flatten().map(Keepalive::seconds), Some(25));
    }

    #[test]
    fn an_all_zero_preshared_key_removes_it() {
        let text = format!(
            "set=1\npublic_key={KEY}\npreshared_key={}\n",
            "0".repeat(64)
        );
        assert_eq!(set(&text).unwrap().peers[0].preshared_key, Some(None));
    }

    #[test]
    fn every_wrong_line_is_named() {
        let public = format!("public_key={KEY}");
        let cases = [
            ("", 1, "empty"),
            ("put=1", 1, "get=1 or set=1"),
            ("get=1\nx=1", 2, "no further"),
            ("set=1\nlisten_port", 2, "KEY=VALUE"),
            ("set=1\nlisten_port=65536", 2, "number"),
            ("set=1\nlisten_port=+1", 2, "number"),
            ("set=1\nfwmark=-1", 2, "number"),
            ("set=1\nreplace_peers=yes", 2, "true"),
            ("set=1\nprivate_key=00", 2, "key"),
            ("set=1\nendpoint=1.2.3.4:5", 2, "unknown key"),
            ("set=1\nallowed_ip=10.0.0.0/8", 2, "unknown key"),
            (
                &format!("set=1\n{public}\nendpoint=host:1"),
                3,
                "ADDRESS:PORT",
            ),
            (&format!("set=1\n{public}\nendpoint=192.0.2.1:0"), 3, "port"),
            (
                &format!("set=1\n{public}\nallowed_ip=10.0.0.0/33"),
                3,
                "prefix length",
            ),
            (
                &format!("set=1\n{public}\nprotocol_version=2"),
                3,
                "protocol_version=1",
            ),
            (&format!("set=1\n{public}\nlisten_port=1"), 3, "unknown key"),
        ];
        for (text, line, fragment) in cases {
            let error = Request::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.what.contains(fragment), "{text}: {error}");
        }
    }

    #[test]
    fn get_tells_what_wg_show_reads() {
        let private = PrivateKey::from_bytes([8; 32]);
        let prefix = ["10.2.0.0/16".parse().unwrap()];
        let device = Device {
            private_key: &private,
            listen_port: 7,
            fwmark: 0,
            peers: vec![PeerState {
                public_key: PublicKey::from_bytes([1; 32]),
                preshared_key: None,
                endpoint: Some("192.0.2.1:9".parse().unwrap()),
                last_handshake: Some(Duration::new(5, 6)),
                tx_bytes: 10,
                rx_bytes: 11,
                keepalive: None,
                allowed_ips: &prefix,
            }],
        };
        let text = device.to_text();
        for line in [
            "listen_port=7",
            "endpoint=192.0.2.1:9",
            "last_handshake_time_sec=5",
            "last_handshake_time_nsec=6",
            "tx_bytes=10",
            "rx_bytes=11",
            "persistent_keepalive_interval=0",
            "allowed_ip=10.2.0.0/16",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line} in {}",
                *text
            );
        }
        assert!(text.ends_with("\nerrno=0\n\n"));
    }

    #[test]
    fn control_characters_of_a_client_stay_out_of_the_log() {
        let text = format!("set=1\npublic_key={KEY}\nallowed_ip=\u{1b}[2J/8\n");
        let error = Request::parse(&text).unwrap_err().to_string();
        assert!(error.contains("\\u{1b}[2J"), "{error}");
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(get=1|set=1)?\n?([a-z_]{1,20}=[0-9a-f:./\\[\\]]{0,70}\n){0,8}") {
            let _ = Request::parse(&text);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
