//! Nebula as a gateway program: its configuration file, and a certificate authority that lives as long as a lab.
//!
//! Speaks to `nebula` and `nebula-cert` only through their documented files and flags
//! (<https://nebula.defined.net/docs/config/>).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use patronus_packet::Prefix;

use crate::program::{GatewayConfig, STATE_DIR, find_on_path};
use crate::{Lab, Site};

/// The cipher of a Nebula network; all its sites use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM, Nebula's default.
    Aes,
    /// ChaCha20-Poly1305, the cipher of WireGuard.
    ChaChaPoly,
}

impl Cipher {
    /// The name of the program with this cipher in tables.
    pub fn program_name(self) -> &'static str {
        match self {
            Self::Aes => "nebula-aes",
            Self::ChaChaPoly => "nebula-chacha",
        }
    }

    fn config_name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::ChaChaPoly => "chachapoly",
        }
    }
}

/// `nebula-cert` beside the `nebula` binary, or on PATH.
pub fn find_cert_tool(binary: &Path) -> Option<PathBuf> {
    let beside = binary.with_file_name("nebula-cert");
    if beside.exists() {
        return Some(beside);
    }
    find_on_path("nebula-cert")
}

/// Makes an authority and one certificate per site, which allows the site's LAN, and puts them among the sites'
/// credentials. Everything is made in the private `/run` of the first gateway, so the authority's key is on no disk.
///
/// # Errors
/// No `nebula-cert`, or what it said when it failed.
pub(crate) fn issue(binary: &Path, lab: &Lab, configs: &mut [GatewayConfig]) -> Result<()> {
    let tool = find_cert_tool(binary).with_context(|| {
        format!(
            "put nebula-cert beside {} or on PATH: it makes the certificates of the lab",
            binary.display()
        )
    })?;
    let Some(workshop) = lab.sites.first() else {
        return Ok(());
    };
    let issued = workshop.gateway.run(|| {
        fs::create_dir_all(WORKSHOP_DIR).with_context(|| format!("making {WORKSHOP_DIR}"))?;
        run(&tool, &["ca", "-name", "patronus-lab", "-duration", "24h"])?;
        let sites = configs.iter().zip(&lab.sites);
        sites
            .map(|(config, site)| certificate(&tool, config, site))
            .collect::<Result<Vec<_>>>()
    })??;
    for (config, credentials) in configs.iter_mut().zip(issued) {
        config.credentials.extend(credentials);
    }
    Ok(())
}

/// Runs in the workshop: one site's authority, certificate and key.
fn certificate(tool: &Path, config: &GatewayConfig, site: &Site) -> Result<Vec<(String, String)>> {
    let name = &config.interface;
    // The spelling that releases before certificates of version 2 understand too.
    let address = format!("{}/{OVERLAY_PREFIX_LEN}", overlay_address(config)?);
    let lans: Vec<String> = site
        .prefixes()
        .iter()
        .filter(|prefix| is_lan(prefix))
        .map(Prefix::to_string)
        .collect();
    let subnets = lans.join(",");
    run(
        tool,
        &["sign", "-name", name, "-ip", &address, "-subnets", &subnets],
    )?;
    let read = |file: &str| {
        let path = Path::new(WORKSHOP_DIR).join(file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    Ok(vec![
        (format!("{name}.ca.crt"), read("ca.crt")?),
        (format!("{name}.crt"), read(&format!("{name}.crt"))?),
        (format!("{name}.pem"), read(&format!("{name}.key"))?),
    ])
}

fn run(tool: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(WORKSHOP_DIR)
        .output()
        .with_context(|| format!("starting {}", tool.display()))?;
    ensure!(
        output.status.success(),
        "{} {} failed: {}{}",
        tool.display(),
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Where the configuration of a site lies.
pub(crate) fn config_path(interface: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{interface}.nebula.yml"))
}

/// The configuration of a site: every other site by its address, its LAN as an unsafe route, nothing filtered.
/// Whatever is not written here stays at Nebula's defaults.
pub(crate) fn config_file(config: &GatewayConfig, cipher: Cipher) -> (PathBuf, String) {
    let name = &config.interface;
    let (mut hosts, mut routes) = (String::new(), String::new());
    for peer in &config.peers {
        // Addresses of the lab's plan: the one IPv4 host prefix is the peer's address in the overlay.
        let overlay = peer.allowed_ips.iter().find(|prefix| is_overlay(prefix));
        let Some(overlay) = overlay.map(Prefix::addr) else {
            continue;
        };
        // Writing to a String cannot fail.
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(hosts, "  \"{overlay}\": [\"{endpoint}\"]");
        }
        let lans = peer.allowed_ips.iter().filter(|prefix| is_lan(prefix));
        for lan in lans {
            let _ = writeln!(routes, "    - route: {lan}\n      via: {overlay}");
        }
    }
    let mut text = format!(
        "pki:\n  ca: {STATE_DIR}/{name}.ca.crt\n  cert: {STATE_DIR}/{name}.crt\n  key: {STATE_DIR}/{name}.pem\n\
         static_host_map:\n{hosts}\
         lighthouse:\n  am_lighthouse: false\n  hosts: []\n\
         cipher: {}\n\
         tun:\n  dev: {name}\n  mtu: {}\n  unsafe_routes:\n{routes}\
         logging:\n  level: error\n  format: text\n\
         firewall:\n  outbound:\n{ANYTHING}  inbound:\n{ANYTHING}\
         listen:\n  host: 0.0.0.0\n  port: {}\n",
        cipher.config_name(),
        config.mtu,
        config.listen_port,
    );
    if let Some(kib) = config.socket_buffer_kib {
        let bytes = u64::from(kib) << 10;
        let _ = writeln!(text, "  read_buffer: {bytes}\n  write_buffer: {bytes}");
    }
    (config_path(name), text)
}

/// The site's own IPv4 address in the tunnel.
fn overlay_address(config: &GatewayConfig) -> Result<std::net::IpAddr> {
    let own = config.addresses.iter().find(|prefix| is_overlay(prefix));
    match own {
        Some(prefix) => Ok(prefix.addr()),
        None => bail!("{} has no IPv4 address in the tunnel", config.interface),
    }
}

fn is_overlay(prefix: &Prefix) -> bool {
    prefix.addr().is_ipv4() && prefix.prefix_len() == 32
}

fn is_lan(prefix: &Prefix) -> bool {
    prefix.addr().is_ipv4() && prefix.prefix_len() < 32
}

/// A firewall rule that everything passes: without `local_cidr` it would hold for the overlay's own addresses only.
const ANYTHING: &str =
    "    - port: any\n      proto: any\n      host: any\n      local_cidr: 0.0.0.0/0\n";
/// Where certificates are made.
const WORKSHOP_DIR: &str = "/run/patronus-lab/authority";
/// The overlay is one network around all sites' addresses.
const OVERLAY_PREFIX_LEN: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::PeerConfig;
    use patronus_tunnel::PrivateKey;

    fn config(socket_buffer_kib: Option<u32>) -> GatewayConfig {
        let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        GatewayConfig {
            interface: "site1".into(),
            private_key: PrivateKey::generate(),
            listen_port: 51820,
            addresses: prefixes(&["10.255.0.1/32", "fd00:255::1/128"]),
            mtu: 1420,
            peers: vec![PeerConfig {
                name: "site2".into(),
                public_key: PrivateKey::generate().public_key(),
                endpoint: Some("198.18.2.2:51820".parse().unwrap()),
                endpoints: Vec::new(),
                allowed_ips: prefixes(&["10.2.0.0/24", "fd00:2::/64", "10.255.0.2/32"]),
                preshared_key: None,
                keepalive_s: None,
            }],
            cores: vec![0],
            socket_buffer_kib,
            credentials: Vec::new(),
            uplinks: Vec::new(),
            appendix: String::new(),
        }
    }

    #[test]
    fn a_site_is_told_its_peer_the_way_behind_it_the_cipher_and_the_common_mtu() {
        let (path, text) = config_file(&config(None), Cipher::Aes);
        assert_eq!(path, config_path("site1"));
        for line in [
            "  \"10.255.0.2\": [\"198.18.2.2:51820\"]",
            "    - route: 10.2.0.0/24",
            "      via: 10.255.0.2",
            "cipher: aes",
            "  mtu: 1420",
            "  port: 51820",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("fd00"), "Nebula gets IPv4 only:\n{text}");
    }

    #[test]
    fn socket_buffers_stay_at_nebulas_defaults_unless_they_are_asked_for() {
        let (_, text) = config_file(&config(None), Cipher::ChaChaPoly);
        assert!(text.contains("cipher: chachapoly") && !text.contains("_buffer"));
        let (_, text) = config_file(&config(Some(4096)), Cipher::ChaChaPoly);
        assert!(text.ends_with("  read_buffer: 4194304\n  write_buffer: 4194304\n"));
    }
}
