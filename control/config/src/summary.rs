//! What a configuration sets up, for `patronus config check`.

use std::fmt;

use crate::keys::KeyText;
use crate::model::Config;

/// The gist of a configuration; its `Display` has no secrets, and fits 80 columns where names do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The file.
    pub origin: String,
    /// The site's name.
    pub site: String,
    /// The site's public key in base64, to hand to other sites.
    pub public_key: String,
    /// The tunnel interface.
    pub interface: String,
    /// Number of uplinks.
    pub uplinks: usize,
    /// UDP port; 0 is any free one.
    pub listen_port: u16,
    /// Number of peers.
    pub peers: usize,
    /// Number of allowed IPs of all peers.
    pub allowed_ips: usize,
    /// Number of classes that the operator made or changed.
    pub classes: usize,
    /// Number of the table that gets a route per allowed IP, if any does.
    pub route_table: Option<u32>,
}

impl Summary {
    /// Sums `config` up.
    pub fn new(origin: &str, config: &Config) -> Self {
        Self {
            origin: origin.to_owned(),
            site: config.site.name.to_string(),
            public_key: config.site.private_key.public_key().to_base64(),
            interface: config.site.interface.to_string(),
            uplinks: config.uplinks.count(),
            listen_port: config.uplinks.listen_port,
            peers: config.peers.len(),
            allowed_ips: config.peers.iter().map(|peer| peer.allowed_ips.len()).sum(),
            classes: config.classes.own_count(),
            route_table: config.site.routes.map(|table| table.number()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: ok", self.origin)?;
        write!(f, "  site {}, interface {}, ", self.site, self.interface)?;
        match self.listen_port {
            0 => f.write_str("any free port")?,
            port => write!(f, "port {port}")?,
        }
        if self.uplinks > 1 {
            write!(f, ", {} uplinks", self.uplinks)?;
        }
        match self.classes {
            0 => {}
            1 => f.write_str(", 1 class")?,
            count => write!(f, ", {count} classes")?,
        }
        writeln!(f, "\n  public key {}", self.public_key)?;
        let peers = counted(self.peers, "peer");
        let allowed = counted(self.allowed_ips, "allowed IP");
        write!(f, "  {peers}, {allowed}, ")?;
        match self.route_table {
            Some(254) => f.write_str("routes in main"),
            Some(table) => write!(f, "routes in table {table}"),
            None => f.write_str("no routes"),
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
