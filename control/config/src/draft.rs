//! A configuration that makes sense but whose secrets are still in their files, and the rules that span
//! several values of a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use patronus_packet::Prefix;
use patronus_path::PATHS_MAX;
use patronus_tunnel::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::api::check_api;
use crate::check::{check_dataplane, check_peer, check_policy, check_site};
use crate::classes::{Classes, check_classes};
use crate::diagnostic::{ConfigErrors, Report, quote};
use crate::endpoint::{CostedEndpoint, PeerEndpoint};
use crate::keys::KeyText;
use crate::load::SecretError;
use crate::model::{
    ApiSettings, Config, Dataplane, InterfaceName, Keepalive, Mtu, Name, PolicySettings,
    RouteTable, Site, StateSettings,
};
use crate::peers::{Peer, PeerSet};
use crate::prefilter::{PrefilterSettings, check_prefilter};
use crate::raw::{self, Raw};
use crate::uplinks::{DraftUplinks, Uplinks, check_uplinks};
use crate::via::{Via, refuse_misplaced};

/// A configuration that makes sense, with its secrets still in their files.
#[derive(Clone, Debug)]
pub struct Draft {
    origin: String,
    pub(crate) site: DraftSite,
    dataplane: Dataplane,
    pub(crate) uplinks: Uplinks,
    pub(crate) peers: Vec<DraftPeer>,
    classes: Classes,
    policy: PolicySettings,
    pub(crate) prefilter: PrefilterSettings,
    api: ApiSettings,
}

#[derive(Clone, Debug)]
pub(crate) struct DraftSite {
    pub(crate) name: Name,
    pub(crate) private_key_file: Raw<PathBuf>,
    pub(crate) addresses: Vec<Prefix>,
    pub(crate) interface: InterfaceName,
    pub(crate) mtu: Raw<Mtu>,
    pub(crate) routes: Option<RouteTable>,
    pub(crate) state: StateSettings,
}

#[derive(Clone, Debug)]
pub(crate) struct DraftPeer {
    pub(crate) name: Option<Name>,
    pub(crate) public_key: Raw<PublicKey>,
    /// The first is where the peer is called.
    pub(crate) endpoints: Vec<Raw<CostedEndpoint>>,
    pub(crate) allowed_ips: Vec<Raw<Prefix>>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) preshared_key_file: Option<Raw<PathBuf>>,
    pub(crate) via: Vec<Raw<Via>>,
}

impl Config {
    /// Checks everything that can be checked without the key files. `origin` is the file's name for
    /// messages. Pure: reads nothing, resolves nothing.
    pub fn parse(text: &str, origin: &str) -> Result<Draft, ConfigErrors> {
        let mut report = Report::new(origin);
        let raw = raw::read(text, &mut report);
        if raw.site.is_none() && report.is_empty() {
            let message = "[site] is missing: add [site] with name and private_key_file";
            report.push(None, message.to_owned());
        }
        let site = raw.site.and_then(|site| check_site(site, &mut report));
        let dataplane = raw.dataplane.map_or_else(Dataplane::default, |dataplane| {
            check_dataplane(dataplane, &mut report)
        });
        let drafted = check_uplinks(raw.uplinks, &mut report);
        let classes = check_classes(raw.classes, &drafted.uplinks, &mut report);
        let peers: Vec<DraftPeer> = raw
            .peers
            .into_iter()
            .filter_map(|peer| check_peer(peer, &mut report))
            .collect();
        let policy = raw.policy.map_or_else(PolicySettings::default, |policy| {
            check_policy(policy, &mut report)
        });
        let prefilter = raw
            .prefilter
            .map_or_else(PrefilterSettings::default, |prefilter| {
                let tunnel = site.as_ref().map(|site| &site.interface);
                check_prefilter(prefilter, tunnel, &mut report)
            });
        let api = raw.api.map(|api| check_api(api, &mut report));
        refuse_repeats(&peers, &mut report);
        refuse_many_paths(&peers, &drafted, &mut report);
        if let Some(site) = &site {
            drafted.refuse_tunnel(&site.interface, &mut report);
            refuse_loops(site, &peers, &mut report);
            refuse_small_mtu(site, &peers, &mut report);
            for peer in &peers {
                refuse_misplaced(&peer.via, &peer.allowed_ips, &site.addresses, &mut report);
            }
        }
        match site {
            Some(site) if report.is_empty() => Ok(Draft {
                origin: origin.to_owned(),
                site,
                dataplane,
                uplinks: drafted.uplinks,
                peers,
                classes,
                policy,
                prefilter,
                api: api.unwrap_or_default(),
            }),
            Some(_) | None => Err(report.into_errors()),
        }
    }
}

impl Draft {
    /// The files that [`resolve`](Self::resolve) will ask for, as the operator wrote them.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let of_peers = self
            .peers
            .iter()
            .filter_map(|peer| peer.preshared_key_file.as_ref());
        std::iter::once(&self.site.private_key_file)
            .chain(of_peers)
            .map(|file| file.value.as_path())
    }

    /// Puts the secrets in place. `read` returns the text of a key file, as
    /// [`read_secret`](crate::load::read_secret) does. A relative path is handed on as written.
    pub fn resolve(
        self,
        mut read: impl FnMut(&Path) -> Result<Zeroizing<String>, SecretError>,
    ) -> Result<Config, ConfigErrors> {
        let mut report = Report::new(&self.origin);
        let site_file = &self.site.private_key_file;
        let private_key: Option<PrivateKey> = secret(
            site_file,
            "[site] private_key_file",
            "genkey",
            &mut read,
            &mut report,
        );
        let own_key = private_key.as_ref().map(PrivateKey::public_key);
        let mut peers = Vec::with_capacity(self.peers.len());
        for peer in self.peers {
            if own_key == Some(peer.public_key.value) {
                report.at(peer.public_key.line, OWN_KEY);
            }
            let preshared_key: Option<PresharedKey> =
                peer.preshared_key_file.as_ref().and_then(|file| {
                    secret(
                        file,
                        "[[peer]] preshared_key_file",
                        "genpsk",
                        &mut read,
                        &mut report,
                    )
                });
            let mut endpoints = peer.endpoints.into_iter().map(|endpoint| endpoint.value);
            let first = endpoints.next();
            peers.push(Peer {
                name: peer.name,
                public_key: peer.public_key.value,
                endpoint_cost: first.as_ref().map_or(0, |first| first.cost),
                endpoint: first.map(|first| first.endpoint),
                further_endpoints: endpoints.collect(),
                allowed_ips: peer
                    .allowed_ips
                    .into_iter()
                    .map(|prefix| prefix.value)
                    .collect(),
                keepalive: peer.keepalive,
                preshared_key,
                via: peer.via.into_iter().map(|via| via.value).collect(),
            });
        }
        match private_key {
            Some(private_key) if report.is_empty() => Ok(Config {
                site: Site {
                    name: self.site.name,
                    private_key,
                    addresses: self.site.addresses,
                    interface: self.site.interface,
                    mtu: self.site.mtu.value,
                    routes: self.site.routes,
                    state: self.site.state,
                },
                dataplane: self.dataplane,
                uplinks: self.uplinks,
                peers: PeerSet::from_peers(peers),
                classes: self.classes,
                policy: self.policy,
                prefilter: self.prefilter,
                api: self.api,
            }),
            Some(_) | None => Err(report.into_errors()),
        }
    }
}

fn secret<K: KeyText>(
    file: &Raw<PathBuf>,
    place: &str,
    verb: &str,
    read: &mut impl FnMut(&Path) -> Result<Zeroizing<String>, SecretError>,
    report: &mut Report,
) -> Option<K> {
    let text = match read(&file.value) {
        Ok(text) => text,
        Err(error) => {
            report.at(file.line, format!("{place}: {}", error.describe(verb)));
            return None;
        }
    };
    match K::from_base64_nonzero(text.trim()) {
        Ok(key) => Some(key),
        Err(error) => {
            let path = quote(&file.value.to_string_lossy());
            report.at(
                file.line,
                format!(
                    "{place}: {path} does not hold a key: {error}: make one with `patronus \
                {verb} > {path}`"
                ),
            );
            None
        }
    }
}

/// How messages call a peer: its name, or where it stands.
fn peer_title(peer: &DraftPeer) -> String {
    match &peer.name {
        Some(name) => format!("peer `{name}`"),
        None => format!("the peer of line {}", peer.public_key.line),
    }
}

fn refuse_repeats(peers: &[DraftPeer], report: &mut Report) {
    let mut keys: HashMap<PublicKey, &DraftPeer> = HashMap::new();
    let mut names: HashMap<&Name, &DraftPeer> = HashMap::new();
    let mut owners: HashMap<Prefix, (usize, &DraftPeer)> = HashMap::new();
    for (at, peer) in peers.iter().enumerate() {
        let line = peer.public_key.line;
        if let Some(other) = keys.insert(peer.public_key.value, peer) {
            report.at(
                line,
                format!(
                    "[[peer]] public_key: the same key as line {}: a key is one peer; join the two \
                sections",
                    other.public_key.line
                ),
            );
        }
        if let Some(name) = &peer.name
            && let Some(other) = names.insert(name, peer)
        {
            report.at(
                line,
                format!(
                    "[[peer]] name: `{name}` is the name of the peer of line {} too: rename one",
                    other.public_key.line
                ),
            );
        }
        for prefix in &peer.allowed_ips {
            if let Some((owner, other)) = owners.insert(prefix.value, (at, peer))
                && owner != at
            {
                report.at(
                    prefix.line,
                    format!(
                        "[[peer]] allowed_ips: {} belongs to {} and to {}: packets can go to one \
                    only; remove it from the other",
                        prefix.value,
                        peer_title(other),
                        peer_title(peer)
                    ),
                );
            }
        }
    }
}

/// Every uplink to every address is a path, and a peer has so many at most.
fn refuse_many_paths(peers: &[DraftPeer], drafted: &DraftUplinks, report: &mut Report) {
    let uplinks = drafted.uplinks.count();
    for peer in peers {
        let endpoints = peer.endpoints.len();
        // A lone address over uplinks that are too many is their fault, and told there.
        if endpoints > 1 && uplinks * endpoints > PATHS_MAX {
            report.at(
                peer.endpoints[0].line,
                format!(
                    "[[peer]] endpoints: {uplinks} uplinks × {endpoints} addresses are {} paths, and {PATHS_MAX} are \
                     the most: remove addresses of {}",
                    uplinks * endpoints,
                    peer_title(peer)
                ),
            );
        }
    }
}

/// Refuses routes that would lead the tunnel's own packets back into the tunnel. In a table of its own
/// nothing reads them but the operator's rules, so that policy routing stays possible.
fn refuse_loops(site: &DraftSite, peers: &[DraftPeer], report: &mut Report) {
    if !site
        .routes
        .is_some_and(|table| RESERVED_TABLES.contains(&table.number()))
    {
        return;
    }
    for peer in peers {
        for prefix in peer
            .allowed_ips
            .iter()
            .filter(|prefix| prefix.value.is_default())
        {
            report.at(prefix.line, format!(
                "[[peer]] allowed_ips: a route for {} would swallow the tunnel's own packets: set \
                 routes = false in [site] and add the route yourself with policy routing, or give it \
                 a table of its own (table = 51820)",
                prefix.value
            ));
        }
        for endpoint in &peer.endpoints {
            let PeerEndpoint::Addr(addr) = &endpoint.value.endpoint else {
                continue;
            };
            let looping = peer
                .allowed_ips
                .iter()
                .find(|prefix| !prefix.value.is_default() && prefix.value.contains(addr.ip()));
            if let Some(prefix) = looping {
                report.at(endpoint.line, format!(
                    "[[peer]] endpoint: {} lies inside the peer's own allowed IP {}, a routing loop: \
                     narrow the allowed IP, or set routes = false in [site] and route yourself",
                    addr.ip(), prefix.value
                ));
            }
        }
    }
}

fn refuse_small_mtu(site: &DraftSite, peers: &[DraftPeer], report: &mut Report) {
    if site.mtu.value.carries_v6() {
        return;
    }
    let v6_address = site.addresses.iter().find(|prefix| prefix.addr().is_ipv6());
    let mut allowed_ips = peers.iter().flat_map(|peer| &peer.allowed_ips);
    let v6_allowed = allowed_ips.find(|prefix| prefix.value.addr().is_ipv6());
    let Some(v6) = v6_address.or(v6_allowed.map(|prefix| &prefix.value)) else {
        return;
    };
    report.at(
        site.mtu.line,
        format!(
            "[site] mtu: {} is too small for IPv6, which {v6} needs: write mtu = {} or more, or \
             remove the IPv6 prefixes",
            site.mtu.value.bytes(),
            Mtu::MIN_V6
        ),
    );
}

/// The tables that every packet consults without any rule of the operator's: default, main, local.
pub const RESERVED_TABLES: [u32; 3] = [253, 254, 255];

const OWN_KEY: &str = "[[peer]] public_key: this is the site's own key: write the other site's, \
                       as `patronus pubkey` prints it there";
