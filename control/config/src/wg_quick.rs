//! Imports `wg-quick` files: what carries over becomes our TOML, secrets become files of their own, and
//! what does not carry over is told.
//!
//! Follows `src/wg-quick/linux.bash` and `src/config.c` of wireguard-tools: keys and section names of
//! either case, `#` starts a comment anywhere, `Address` and `AllowedIPs` add up over lines.

mod read;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use patronus_packet::Prefix;
use zeroize::Zeroizing;

use self::read::{ImportedPeer, Table, Tunnel, read};
use crate::diagnostic::{ConfigErrors, Line, Report, quote};
use crate::draft::RESERVED_TABLES;
use crate::keys::KeyText;
use crate::load::SecretError;
use crate::model::{Config, InterfaceName};

/// What an import yields. Nothing is written: the caller does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The configuration file; [`Config::parse`] takes it as it is.
    pub toml: String,
    /// The key files that it names, relative to its own folder; to be written with mode 0600.
    pub secrets: Vec<ImportedSecret>,
    /// What was left out or changed, and what to do about it; one line each.
    pub notes: Vec<String>,
}

/// A key file to write.
#[derive(Clone, PartialEq, Eq)]
pub struct ImportedSecret {
    /// Its path in the folder of the configuration file.
    pub file: PathBuf,
    /// The key in base64 with a newline.
    pub contents: Zeroizing<String>,
}

impl fmt::Debug for ImportedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImportedSecret({}, hidden)", self.file.display())
    }
}

/// Imports the text of a wg-quick file. `origin` is the file's name for messages; `name` is its stem
/// (`wg0`), from which the site, the interface and the key files take their names.
pub fn import(text: &str, origin: &str, name: &str) -> Result<Imported, ConfigErrors> {
    let mut report = Report::new(origin);
    let mut notes = Vec::new();
    let (mut tunnel, mut peers) = read(text, &mut report, &mut notes);
    let (Some(private_key), true) = (tunnel.private_key.take(), report.is_empty()) else {
        return Err(report.into_errors());
    };
    settle_ownership(&mut peers, &mut notes);
    let site_name = site_name(name);
    let interface: InterfaceName = name.parse().unwrap_or_else(|_| {
        let interface = InterfaceName::default();
        notes.push(format!(
            "the interface is called {interface}, since `{}` cannot be its name",
            quote(name)
        ));
        interface
    });
    avoid_loops(&mut tunnel, &peers, &interface, &mut notes);
    let mut secrets = vec![ImportedSecret::new(
        format!("{site_name}.key"),
        &private_key,
    )];
    let mut toml = format!(
        "# Imported from {} by `patronus import wg-quick`.\n",
        quote(origin)
    );
    write_site(&mut toml, &site_name, &interface, &tunnel);
    for (number, peer) in (1..).zip(&peers) {
        let secret = peer
            .preshared_key
            .as_ref()
            .map(|key| ImportedSecret::new(format!("{site_name}-peer{number}.psk"), key));
        write_peer(&mut toml, peer, secret.as_ref());
        secrets.extend(secret);
    }
    prove(&toml, &secrets, origin)?;
    Ok(Imported {
        toml,
        secrets,
        notes,
    })
}

/// Loads the imported text as the gateway will. A rule of ours that wg-quick does not have shows here.
fn prove(toml: &str, secrets: &[ImportedSecret], origin: &str) -> Result<(), ConfigErrors> {
    let read = |file: &Path| {
        let secret = secrets.iter().find(|secret| secret.file == file);
        secret
            .map(|secret| secret.contents.clone())
            .ok_or_else(|| SecretError::Missing(file.to_owned()))
    };
    let Err(errors) = Config::parse(toml, "the import").and_then(|draft| draft.resolve(read))
    else {
        return Ok(());
    };
    let mut report = Report::new(origin);
    for diagnostic in errors.diagnostics() {
        report.push(
            None,
            format!("cannot be carried over: {}", diagnostic.message),
        );
    }
    Err(report.into_errors())
}

impl ImportedSecret {
    fn new(file: String, key: &impl KeyText) -> Self {
        let text = key.to_base64();
        // Full capacity at once: growing would leave copies of the secret behind.
        let mut contents = Zeroizing::new(String::with_capacity(text.as_ref().len() + 1));
        contents.push_str(text.as_ref());
        contents.push('\n');
        Self {
            file: PathBuf::from(file),
            contents,
        }
    }
}

/// Where two peers list the same allowed IP, WireGuard gives it to the later one; ours are exclusive.
fn settle_ownership(peers: &mut [ImportedPeer], notes: &mut Vec<String>) {
    let mut owners: HashMap<Prefix, usize> = HashMap::new();
    for (at, peer) in peers.iter().enumerate() {
        owners.extend(peer.allowed_ips.iter().map(|prefix| (*prefix, at)));
    }
    let lines: Vec<Line> = peers.iter().map(|peer| peer.line).collect();
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.allowed_ips.retain(|prefix| {
            let owner = owners.get(prefix).copied().unwrap_or(at);
            if owner != at {
                notes.push(format!(
                    "allowed IP {prefix} of the peer on line {} went to the peer on line {}, as \
                    with wg-quick",
                    peer.line, lines[owner]
                ));
            }
            owner == at
        });
    }
}

/// wg-quick hides a tunnel's own packets from its default route by policy routing. Ours takes no such
/// route: routes are left to the operator, who is told the commands.
fn avoid_loops(
    tunnel: &mut Tunnel,
    peers: &[ImportedPeer],
    interface: &InterfaceName,
    notes: &mut Vec<String>,
) {
    let reads_table = match tunnel.table {
        Table::Auto => true,
        Table::Off => false,
        Table::Number(number) => RESERVED_TABLES.contains(&number),
    };
    let defaults: Vec<&Prefix> = peers
        .iter()
        .flat_map(|peer| &peer.allowed_ips)
        .filter(|prefix| prefix.is_default())
        .collect();
    let loops = peers.iter().any(ImportedPeer::holds_its_own_endpoint);
    if !reads_table || (defaults.is_empty() && !loops) {
        return;
    }
    tunnel.table = Table::Off;
    if defaults.is_empty() {
        notes.push(
            "routes = false: a peer's endpoint lies inside its own allowed IPs, so that their routes \
             would lead the tunnel's own packets into the tunnel; add the \
             routes yourself, past the endpoint"
                .to_owned(),
        );
        return;
    }
    if tunnel.mark == 0 {
        tunnel.mark = POLICY_TABLE;
    }
    notes.push(format!(
        "routes = false, and no allowed IP gets a route: a default route would swallow the \
         tunnel's own packets, which carry the mark {}; once `patronus run` is up, add the routes by \
         policy routing as wg-quick does:",
        tunnel.mark
    ));
    for default in defaults {
        let family = if default.addr().is_ipv4() { "-4" } else { "-6" };
        notes.push(format!(
            "  ip {family} route add default dev {interface} table {POLICY_TABLE} \
             && ip {family} rule add not fwmark {} \
             table {POLICY_TABLE} && ip {family} rule add table main suppress_prefixlength 0",
            tunnel.mark
        ));
        if default.addr().is_ipv4() {
            notes.push("  sysctl -w net.ipv4.conf.all.src_valid_mark=1".to_owned());
        }
    }
    let others = peers
        .iter()
        .flat_map(|peer| &peer.allowed_ips)
        .filter(|prefix| !prefix.is_default());
    notes.extend(others.map(|prefix| format!("  ip route add {prefix} dev {interface}")));
}

fn site_name(name: &str) -> String {
    let folded: String = name
        .chars()
        .take(SITE_NAME_LEN_MAX)
        .map(|letter| letter.to_ascii_lowercase())
        .map(|letter| {
            if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    if folded.is_empty() {
        "site".to_owned()
    } else {
        folded
    }
}

fn write_site(toml: &mut String, site_name: &str, interface: &InterfaceName, tunnel: &Tunnel) {
    let mut site = Lines::new(toml, "[site]");
    site.string("name", site_name);
    site.string("private_key_file", &format!("{site_name}.key"));
    site.list("addresses", &tunnel.addresses);
    site.string("interface", interface.as_str());
    if let Some(mtu) = tunnel.mtu {
        site.plain("mtu", mtu);
    }
    match tunnel.table {
        Table::Auto => {}
        Table::Off => site.plain("routes", false),
        Table::Number(number) => site.plain("table", number),
    }
    let mut uplink = Lines::new(toml, "[[uplink]]");
    uplink.string("name", "wan");
    uplink.plain("listen_port", tunnel.listen_port);
    if tunnel.mark != 0 {
        uplink.plain("mark", tunnel.mark);
    }
}

fn write_peer(toml: &mut String, peer: &ImportedPeer, secret: Option<&ImportedSecret>) {
    let mut table = Lines::new(toml, "[[peer]]");
    if let Some(public_key) = &peer.public_key {
        table.string("public_key", &public_key.to_base64());
    }
    if let Some(endpoint) = &peer.endpoint {
        table.string("endpoint", &endpoint.to_string());
    }
    table.list("allowed_ips", &peer.allowed_ips);
    if peer.keepalive != 0 {
        table.plain("keepalive", peer.keepalive);
    }
    if let Some(secret) = secret {
        table.string("preshared_key_file", &secret.file.to_string_lossy());
    }
}

/// Writes the lines of one section.
struct Lines<'t> {
    toml: &'t mut String,
}

impl<'t> Lines<'t> {
    fn new(toml: &'t mut String, title: &str) -> Self {
        let mut lines = Self { toml };
        lines.push(format_args!("\n{title}\n"));
        lines
    }

    fn plain(&mut self, key: &str, value: impl fmt::Display) {
        self.push(format_args!("{key} = {value}\n"));
    }

    fn string(&mut self, key: &str, value: &str) {
        let value = toml::Value::from(value);
        self.push(format_args!("{key} = {value}\n"));
    }

    fn list(&mut self, key: &str, values: &[Prefix]) {
        let texts: Vec<toml::Value> = values
            .iter()
            .map(|value| value.to_string().into())
            .collect();
        let list = toml::Value::Array(texts);
        self.push(format_args!("{key} = {list}\n"));
    }

    fn push(&mut self, text: fmt::Arguments<'_>) {
        self.toml.write_fmt(text).expect("a String takes any text");
    }
}

const SITE_NAME_LEN_MAX: usize = 63;
/// wg-quick's first choice of table and mark for a default route.
const POLICY_TABLE: u32 = 51820;
