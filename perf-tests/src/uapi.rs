//! A client of the WireGuard cross-platform userspace API: `get=1` and `set=1` over a Unix socket
//! (<https://www.wireguard.com/xplatform/>).

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use patronus_packet::Prefix;
use patronus_tunnel::{PresharedKey, PrivateKey, PublicKey};

use crate::Namespace;

/// Where a daemon that owns `interface` listens.
pub fn socket_path(interface: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{interface}.sock"))
}

/// What a device says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The UDP port it receives on.
    pub listen_port: u16,
    /// Its peers, in the order given.
    pub peers: Vec<PeerStatus>,
}

/// What a device says about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer's name on the wire.
    pub public_key: PublicKey,
    /// Where datagrams to it go.
    pub endpoint: Option<SocketAddr>,
    /// The inner prefixes it owns.
    pub allowed_ips: Vec<Prefix>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// Time of its last handshake since the epoch (since the handshake for boringtun, which reports its age);
    /// `None` before the first.
    pub last_handshake: Option<Duration>,
}

/// A `set=1` request, built line by line.
#[derive(Clone, Debug)]
pub struct SetRequest(String);

impl SetRequest {
    /// A request that changes nothing yet.
    #[expect(
        clippy::new_without_default,
        reason = "a request is begun, not defaulted"
    )]
    pub fn new() -> Self {
        Self("set=1\n".to_owned())
    }

    /// Sets the device's key.
    pub fn private_key(self, key: &PrivateKey) -> Self {
        self.line("private_key", &hex(key.as_bytes()))
    }

    /// Sets the device's port; 0 lets it choose.
    pub fn listen_port(self, port: u16) -> Self {
        self.line("listen_port", &port.to_string())
    }

    /// Drops all peers.
    pub fn replace_peers(self) -> Self {
        self.line("replace_peers", "true")
    }

    /// Starts a peer: the lines after it belong to it.
    pub fn peer(self, key: &PublicKey) -> Self {
        self.line("public_key", &hex(key.as_bytes()))
    }

    /// Removes the peer begun last.
    pub fn remove(self) -> Self {
        self.line("remove", "true")
    }

    /// Sets the peer's preshared key.
    pub fn preshared_key(self, key: &PresharedKey) -> Self {
        self.line("preshared_key", &hex(key.as_bytes()))
    }

    /// Sets the peer's endpoint.
    pub fn endpoint(self, endpoint: SocketAddr) -> Self {
        self.line("endpoint", &endpoint.to_string())
    }

    /// Sets the peer's keepalive interval in seconds.
    pub fn keepalive(self, interval_s: u16) -> Self {
        self.line("persistent_keepalive_interval", &interval_s.to_string())
    }

    /// Adds an inner prefix to the peer.
    pub fn allowed_ip(self, prefix: Prefix) -> Self {
        self.line("allowed_ip", &prefix.network().to_string())
    }

    fn line(mut self, key: &str, value: &str) -> Self {
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(value);
        self.0.push('\n');
        self
    }
}

/// Asks a daemon in `namespace` for its device.
///
/// # Errors
/// No socket, no answer within two seconds, an `errno` other than 0, or an answer off the format.
pub fn get(namespace: &Namespace, interface: &str) -> Result<Device> {
    let answer = exchange(namespace, interface, "get=1\n\n")?;
    parse_device(&answer).with_context(|| format!("the UAPI of {interface} answered `get`"))
}

/// Applies a request to a daemon in `namespace`.
///
/// # Errors
/// As for [`get`].
pub fn set(namespace: &Namespace, interface: &str, request: SetRequest) -> Result<()> {
    let answer = exchange(namespace, interface, &format!("{}\n", request.0))?;
    parse_device(&answer)
        .map(drop)
        .with_context(|| format!("the UAPI of {interface} answered `set`"))
}

/// Reads the answer to `get=1` (or the bare `errno=0` of a `set=1`). Keys this client does not need are
/// skipped, as the specification asks of clients.
///
/// # Errors
/// The line that is off, or the daemon's errno.
pub fn parse_device(text: &str) -> Result<Device> {
    let mut device = Device::default();
    let mut errno = None;
    for line in text.lines().take_while(|line| !line.is_empty()) {
        let Some((key, value)) = line.split_once('=') else {
            bail!("`{line}` is not KEY=VALUE");
        };
        let bad = || format!("`{value}` is no value of {key}");
        match key {
            "errno" => errno = Some(value.parse::<i32>().with_context(bad)?),
            "listen_port" => device.listen_port = value.parse().with_context(bad)?,
            "public_key" => device.peers.push(PeerStatus::new(key_of(value)?)),
            _ => {
                if let Some(peer) = device.peers.last_mut() {
                    peer.read_line(key, value).with_context(bad)?;
                }
            }
        }
    }
    match errno {
        Some(0) => Ok(device),
        Some(errno) => bail!(
            "errno={errno}: {}",
            std::io::Error::from_raw_os_error(errno.saturating_abs())
        ),
        None => bail!(
            "no errno line: the answer was cut off after {} bytes",
            text.len()
        ),
    }
}

impl PeerStatus {
    fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            endpoint: None,
            allowed_ips: Vec::new(),
            rx_bytes: 0,
            tx_bytes: 0,
            last_handshake: None,
        }
    }

    fn read_line(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "endpoint" => self.endpoint = Some(value.parse()?),
            "allowed_ip" => self.allowed_ips.push(value.parse()?),
            "rx_bytes" => self.rx_bytes = value.parse()?,
            "tx_bytes" => self.tx_bytes = value.parse()?,
            "last_handshake_time_sec" => self.add_to_handshake(Duration::from_secs(value.parse()?)),
            "last_handshake_time_nsec" => {
                self.add_to_handshake(Duration::from_nanos(value.parse::<u32>()?.into()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Zero stands for "never", and comes in two lines that add up.
    fn add_to_handshake(&mut self, part: Duration) {
        if !part.is_zero() {
            let sum = self.last_handshake.unwrap_or_default().saturating_add(part);
            self.last_handshake = Some(sum);
        }
    }
}

fn exchange(namespace: &Namespace, interface: &str, request: &str) -> Result<String> {
    let path = socket_path(interface);
    let answer = namespace.run(|| -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(request.as_bytes())?;
        read_answer(&mut stream)
    })?;
    answer.with_context(|| {
        let text = request.lines().next().unwrap_or_default();
        format!("{text} on {} in {}", path.display(), namespace.label())
    })
}

/// Reads up to the empty line: daemons may keep the connection open for more requests.
fn read_answer(stream: &mut impl Read) -> std::io::Result<String> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"\n\n") && answer.len() < ANSWER_BYTES_MAX {
        match stream.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    String::from_utf8(answer)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(text: &str) -> Result<PublicKey> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        bail!(
            "a public key of {} characters: 64 hex digits are due",
            text.len()
        );
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte =
            u8::from_str_radix(&text[at..at + 2], 16).context("a public key that is not hex")?;
    }
    Ok(PublicKey::from_bytes(bytes))
}

/// No answer is read beyond this: 10 000 peers fit.
const ANSWER_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let text = format!(
            "private_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a\n\
             listen_port=12912\npublic_key={KEY}\npreshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52\n\
             allowed_ip=192.168.4.4/32\nendpoint=[abcd:23::33%2]:51820\n\
             public_key={KEY}\ntx_bytes=38333\nrx_bytes=2224\nallowed_ip=192.168.4.6/32\nallowed_ip=fd00::/64\n\
             persistent_keepalive_interval=111\nendpoint=182.122.22.19:3233\n\
             last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\nfuture_key=1\nerrno=0\n\n"
        );
        // A zone is not part of a SocketAddr in Rust; without it the example reads whole.
        let device = parse_device(&text.replace("%2", "")).unwrap();
        assert_eq!(device.listen_port, 12912);
        assert_eq!(device.peers.len(), 2);
        let peer = &device.peers[1];
        assert_eq!((peer.tx_bytes, peer.rx_bytes), (38333, 2224));
        assert_eq!(peer.allowed_ips.len(), 2);
        assert_eq!(peer.endpoint, Some("182.122.22.19:3233".parse().unwrap()));
        assert_eq!(peer.last_handshake, Some(Duration::new(1_700_000_000, 5)));
        assert_eq!(device.peers[0].last_handshake, None);
    }

    #[test]
    fn every_malformed_answer_is_an_error_that_names_what_is_wrong() {
        let table: &[(&str, &str)] = &[
            ("", "no errno line"),
            ("listen_port=1\n", "no errno line"),
            ("errno=-22\n\n", "errno=-22"),
            ("errno=x\n\n", "no value of errno"),
            ("errno\n\n", "not KEY=VALUE"),
            ("listen_port=65536\nerrno=0\n\n", "no value of listen_port"),
            ("public_key=zz\nerrno=0\n\n", "2 characters"),
            ("public_key=\u{e9}\nerrno=0\n\n", "characters"),
            (
                "public_key=zz5996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33\nerrno=0\n\n",
                "not hex",
            ),
        ];
        for (text, fragment) in table {
            let error = format!("{:#}", parse_device(text).unwrap_err());
            assert!(error.contains(fragment), "{text:?} gave {error}");
        }
        let text = format!("public_key={KEY}\nallowed_ip=10.0.0.0/33\nerrno=0\n\n");
        assert!(format!("{:#}", parse_device(&text).unwrap_err()).contains("allowed_ip"));
    }

    #[test]
    fn a_request_has_one_line_per_setting_in_the_order_given() {
        let key = PublicKey::from_bytes([0xab; 32]);
        let request = SetRequest::new()
            .listen_port(7)
            .replace_peers()
            .peer(&key)
            .endpoint("[fd00::1]:9".parse().unwrap())
            .allowed_ip("10.1.2.3/16".parse().unwrap());
        let expected = format!(
            "set=1\nlisten_port=7\nreplace_peers=true\npublic_key={}\nendpoint=[fd00::1]:9\nallowed_ip=10.1.0.0/16\n",
            "ab".repeat(32)
        );
        assert_eq!(request.0, expected);
    }

    #[test]
    fn an_answer_ends_at_the_empty_line_even_when_the_connection_stays_open() {
        struct Endless(&'static [u8]);
        impl Read for Endless {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                assert!(!self.0.is_empty(), "read past the empty line");
                let n = self.0.read(&mut buf[..3])?;
                Ok(n)
            }
        }
        assert_eq!(
            read_answer(&mut Endless(b"errno=0\n\n")).unwrap(),
            "errno=0\n\n"
        );
    }
}
