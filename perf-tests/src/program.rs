//! The gateway programs a lab can run, and what each is told: a configuration file for Patronus and Nebula, a
//! command line for the WireGuard daemons that are configured over UAPI.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use patronus_packet::Prefix;
use patronus_tunnel::{PresharedKey, PrivateKey, PublicKey};

use crate::{Family, nebula};

/// A program that makes a tunnel interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This project: `patronus run`.
    Patronus {
        /// Path of the binary.
        binary: PathBuf,
    },
    /// Cloudflare's `boringtun-cli`.
    BoringtunCli {
        /// Path of the binary.
        binary: PathBuf,
    },
    /// Mullvad's fork of boringtun, `gotatun`.
    Gotatun {
        /// Path of the binary.
        binary: PathBuf,
    },
    /// WireGuard's own userspace implementation in Go.
    WireguardGo {
        /// Path of the binary.
        binary: PathBuf,
    },
    /// Slack's `nebula`: a mesh with a protocol and certificates of its own.
    Nebula {
        /// Path of the binary; `nebula-cert` lies beside it or on PATH.
        binary: PathBuf,
        /// The cipher of all its sites.
        cipher: nebula::Cipher,
    },
}

/// A gateway's configuration, the same for every program.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Name of the tunnel interface, at most 15 bytes.
    pub interface: String,
    /// The site's key.
    pub private_key: PrivateKey,
    /// The UDP port it receives on.
    pub listen_port: u16,
    /// Addresses of the tunnel interface.
    pub addresses: Vec<Prefix>,
    /// MTU of the tunnel interface in bytes.
    pub mtu: u32,
    /// The sites it speaks to.
    pub peers: Vec<PeerConfig>,
    /// Its uplinks, for a program that takes more than one; empty where the routes decide.
    pub uplinks: Vec<UplinkConfig>,
    /// The cores of its workers in order, for a program that takes such a list; empty for its default.
    pub cores: Vec<usize>,
    /// Send and receive buffer of its UDP sockets in KiB, for a program that takes one; `None` for its default.
    pub socket_buffer_kib: Option<u32>,
    /// Files it finds in [`STATE_DIR`] beside those made from this configuration: name and content.
    pub credentials: Vec<(String, String)>,
    /// What is added to the configuration file of Patronus as it is, such as `[class.NAME]` tables.
    pub appendix: String,
}

/// One of several uplinks.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// Unique label.
    pub name: String,
    /// The interface it is bound to.
    pub interface: String,
}

/// One peer of a gateway.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Unique label.
    pub name: String,
    /// The peer's key.
    pub public_key: PublicKey,
    /// Where it can be reached; `None` for a peer that must begin.
    pub endpoint: Option<SocketAddr>,
    /// All its addresses, for a program that takes more than one; empty where `endpoint` says all.
    pub endpoints: Vec<SocketAddr>,
    /// The inner prefixes behind it, routed to the tunnel interface.
    pub allowed_ips: Vec<Prefix>,
    /// The symmetric key shared with it.
    pub preshared_key: Option<PresharedKey>,
    /// Keepalive interval in seconds.
    pub keepalive_s: Option<u16>,
}

/// The first executable called `name` on PATH.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok())
}

/// Files a program reads at start: path and content; all hold secrets or name them.
pub(crate) type Files = Vec<(PathBuf, String)>;

impl Program {
    /// The name in tables and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Patronus { .. } => "patronus",
            Self::BoringtunCli { .. } => "boringtun",
            Self::Gotatun { .. } => "gotatun",
            Self::WireguardGo { .. } => "wireguard-go",
            Self::Nebula { cipher, .. } => cipher.program_name(),
        }
    }

    /// Where the binary is.
    pub fn binary(&self) -> &Path {
        match self {
            Self::Patronus { binary }
            | Self::BoringtunCli { binary }
            | Self::Gotatun { binary }
            | Self::WireguardGo { binary }
            | Self::Nebula { binary, .. } => binary,
        }
    }

    /// Whether its socket buffers can be set, see [`GatewayConfig::socket_buffer_kib`].
    pub fn takes_socket_buffer(&self) -> bool {
        match self {
            Self::Patronus { .. } | Self::Nebula { .. } => true,
            Self::BoringtunCli { .. } | Self::Gotatun { .. } | Self::WireguardGo { .. } => false,
        }
    }

    /// The inner families it carries in a lab. Nebula carries IPv6 with certificates that its older releases do
    /// not know, so it gets none.
    pub fn families(&self) -> &'static [Family] {
        match self {
            Self::Nebula { .. } => &[Family::V4],
            Self::Patronus { .. }
            | Self::BoringtunCli { .. }
            | Self::Gotatun { .. }
            | Self::WireguardGo { .. } => &[Family::V4, Family::V6],
        }
    }

    /// Whether it is configured, and answers, over a UAPI socket.
    pub(crate) fn control(&self) -> Control {
        match self {
            Self::Patronus { .. } => Control::FileAndUapi,
            Self::BoringtunCli { .. } | Self::Gotatun { .. } | Self::WireguardGo { .. } => {
                Control::Uapi
            }
            Self::Nebula { .. } => Control::File,
        }
    }

    /// Whether it is ours: it ends when its standard input does, and leaves a report.
    pub(crate) fn is_patronus(&self) -> bool {
        matches!(self, Self::Patronus { .. })
    }

    /// What the program says its version is; `None` where it does not say.
    pub fn version(&self) -> Option<String> {
        let mut command = Command::new(self.binary());
        let argument = match self {
            Self::Nebula { .. } => "-version",
            Self::Patronus { .. }
            | Self::BoringtunCli { .. }
            | Self::Gotatun { .. }
            | Self::WireguardGo { .. } => "--version",
        };
        let output = command.arg(argument).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// The command that runs it in the foreground on `interface`.
    pub(crate) fn command(&self, interface: &str) -> Command {
        match self {
            Self::Patronus { binary } => {
                let mut command = Command::new(binary);
                command
                    .arg("run")
                    .arg("--config")
                    .arg(config_path(interface));
                command.arg("--uapi-dir").arg("/run/wireguard");
                command.arg("--report").arg(report_path(interface));
                command.arg("--exit-with-stdin");
                command
            }
            Self::BoringtunCli { binary } | Self::Gotatun { binary } => {
                let mut command = on_a_leash(binary);
                command.args(["--foreground", "--disable-drop-privileges", interface]);
                command.env("WG_LOG_LEVEL", "error");
                command
            }
            Self::WireguardGo { binary } => {
                let mut command = on_a_leash(binary);
                command.args(["-f", interface]);
                command.env("LOG_LEVEL", "error");
                command
            }
            Self::Nebula { binary, .. } => {
                let mut command = on_a_leash(binary);
                command.arg("-config").arg(nebula::config_path(interface));
                command
            }
        }
    }

    /// The files that have to exist before [`Self::command`] runs.
    pub(crate) fn files(&self, config: &GatewayConfig) -> Files {
        let mut files = match self {
            Self::Patronus { .. } => patronus_files(config),
            Self::BoringtunCli { .. } | Self::Gotatun { .. } | Self::WireguardGo { .. } => {
                Vec::new()
            }
            Self::Nebula { cipher, .. } => vec![nebula::config_file(config, *cipher)],
        };
        let credentials = config.credentials.iter();
        files.extend(
            credentials.map(|(name, text)| (Path::new(STATE_DIR).join(name), text.clone())),
        );
        files
    }
}

/// How a program is told what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// By a file alone: it has no UAPI socket.
    File,
    /// By a file, and it answers on a UAPI socket.
    FileAndUapi,
    /// Over its UAPI socket alone; addresses, MTU and routes are set from outside.
    Uapi,
}

/// Directory for all files of a gateway: in its namespace's private `/run`, so on no disk.
pub const STATE_DIR: &str = "/run/patronus-lab";

fn config_path(interface: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{interface}.toml"))
}

/// Where Patronus writes its counters at exit.
pub(crate) fn report_path(interface: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{interface}.report.json"))
}

/// Where a gateway's messages go.
pub(crate) fn log_path(interface: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{interface}.log"))
}

/// A shell that starts the program, prints its process id and kills it when standard input ends: a daemon
/// that knows nothing of us dies with us, even by `kill -9`.
fn on_a_leash(binary: &Path) -> Command {
    let script = r#""$0" "$@" </dev/null >&2 & pid=$!; echo $pid; read -r _; kill -9 $pid 2>/dev/null; wait"#;
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(binary);
    command
}

fn patronus_files(config: &GatewayConfig) -> Files {
    let dir = Path::new(STATE_DIR);
    let key_path = dir.join(format!("{}.key", config.interface));
    let mut files = vec![(key_path.clone(), base64_line(config.private_key.as_bytes()))];
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "[site]\nname = \"{}\"\nprivate_key_file = \"{}\"\ninterface = \"{}\"\nmtu = {}\naddresses = {}\n\
         state_dir = \"{STATE_DIR}\"",
        config.interface,
        key_path.display(),
        config.interface,
        config.mtu,
        toml_list(&config.addresses),
    );
    text += &uplinks(config);
    if !config.cores.is_empty() || config.socket_buffer_kib.is_some() {
        let _ = writeln!(text, "\n[dataplane]");
    }
    if !config.cores.is_empty() {
        let _ = writeln!(text, "cpus = {:?}", config.cores);
    }
    if let Some(kib) = config.socket_buffer_kib {
        let _ = writeln!(text, "socket_buffer_kib = {kib}");
    }
    for peer in &config.peers {
        let _ = writeln!(
            text,
            "\n[[peer]]\nname = \"{}\"\npublic_key = \"{}\"\nallowed_ips = {}",
            peer.name,
            STANDARD.encode(peer.public_key.as_bytes()),
            toml_list(&peer.allowed_ips),
        );
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(text, "endpoint = \"{endpoint}\"");
        }
        if !peer.endpoints.is_empty() {
            let _ = writeln!(text, "endpoints = {}", toml_list(&peer.endpoints));
        }
        if let Some(interval_s) = peer.keepalive_s {
            let _ = writeln!(text, "keepalive = {interval_s}");
        }
        if let Some(key) = &peer.preshared_key {
            let path = dir.join(format!("{}-{}.psk", config.interface, peer.name));
            let _ = writeln!(text, "preshared_key_file = \"{}\"", path.display());
            files.push((path, base64_line(key.as_bytes())));
        }
    }
    if !config.appendix.is_empty() {
        let _ = writeln!(text, "\n{}", config.appendix);
    }
    files.push((config_path(&config.interface), text));
    files
}

fn uplinks(config: &GatewayConfig) -> String {
    let port = config.listen_port;
    let uplinks = config.uplinks.iter().map(|uplink| {
        format!(
            "\n[[uplink]]\nname = \"{}\"\ninterface = \"{}\"\nlisten_port = {port}\n",
            uplink.name, uplink.interface
        )
    });
    match config.uplinks.is_empty() {
        true => format!("\n[[uplink]]\nname = \"wan\"\nlisten_port = {port}\n"),
        false => uplinks.collect(),
    }
}

fn toml_list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| format!("\"{}\"", item.to_string()))
        .collect();
    format!("[{}]", items.join(", "))
}

fn base64_line(key: &[u8]) -> String {
    format!("{}\n", STANDARD.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GatewayConfig {
        GatewayConfig {
            interface: "site1".into(),
            private_key: PrivateKey::generate(),
            listen_port: 51820,
            addresses: vec!["10.255.0.1/32".parse().unwrap()],
            mtu: 1420,
            cores: vec![1, 0],
            socket_buffer_kib: Some(4096),
            credentials: Vec::new(),
            uplinks: Vec::new(),
            appendix: String::new(),
            peers: vec![PeerConfig {
                name: "site2".into(),
                public_key: PrivateKey::generate().public_key(),
                endpoint: Some("[fd18::2]:51820".parse().unwrap()),
                endpoints: Vec::new(),
                allowed_ips: vec![
                    "10.2.0.0/24".parse().unwrap(),
                    "fd00:2::/64".parse().unwrap(),
                ],
                preshared_key: Some(PresharedKey::generate()),
                keepalive_s: Some(25),
            }],
        }
    }

    #[test]
    fn patronus_gets_its_secrets_by_path_and_never_in_the_configuration() {
        let config = config();
        let key = config.private_key.clone();
        let psk = config.peers[0].preshared_key.clone().unwrap();
        let files = patronus_files(&config);

        let (path, toml) = files.last().unwrap();
        assert_eq!(path, &config_path("site1"));
        assert!(!toml.contains(&STANDARD.encode(key.as_bytes())));
        assert!(!toml.contains(&STANDARD.encode(psk.as_bytes())));
        for line in [
            "private_key_file = \"/run/patronus-lab/site1.key\"",
            "preshared_key_file = \"/run/patronus-lab/site1-site2.psk\"",
            "allowed_ips = [\"10.2.0.0/24\", \"fd00:2::/64\"]",
            "endpoint = \"[fd18::2]:51820\"",
            "keepalive = 25",
            "listen_port = 51820",
            "[dataplane]",
            "cpus = [1, 0]",
            "socket_buffer_kib = 4096",
        ] {
            assert!(
                toml.lines().any(|have| have == line),
                "{line} is missing in\n{toml}"
            );
        }
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn several_uplinks_and_endpoints_and_the_appendix_are_written() {
        let text = uplinks(&GatewayConfig {
            uplinks: ["wan0", "wan1"]
                .map(|interface| UplinkConfig {
                    name: format!("by-{interface}"),
                    interface: interface.to_owned(),
                })
                .to_vec(),
            ..config()
        });
        assert_eq!(text.matches("[[uplink]]").count(), 2);
        assert!(
            text.contains("name = \"by-wan1\"\ninterface = \"wan1\"\n"),
            "{text}"
        );
        let mut config = config();
        config.peers[0].endpoints = vec!["198.18.20.2:1".parse().unwrap(); 2];
        config.appendix = "[class.realtime]\nprotect = true".to_owned();
        let files = patronus_files(&config);
        let (_, toml) = files.last().unwrap();
        assert!(
            toml.contains("endpoints = [\"198.18.20.2:1\", \"198.18.20.2:1\"]\n"),
            "{toml}"
        );
        assert!(
            toml.ends_with("[class.realtime]\nprotect = true\n"),
            "{toml}"
        );
    }
}
