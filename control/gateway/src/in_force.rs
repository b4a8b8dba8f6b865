//! What is in force: policy as workers judge by it, routes as the kernel gets them, and the moment as the local API tells
//! it, made from the configuration, the manifests and the registry. Called by the daemon at the start and after each reload.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patronus_config::{Config, Peer, PeerEndpoint, RESERVED_TABLES, RefusalMode};
use patronus_engine::{PodSets, Policy, Refusal, Snapshot};
use patronus_packet::Prefix;

use crate::api::Live;
use crate::labels;
use crate::policy::{self, LoadReport, PolicyInForce, PolicyRefused, PolicyStore};
use crate::registry::Registry;
use crate::via::ViaPlan;

/// The policy to start with.
pub async fn load_policy(
    config: &Config,
    config_path: &Path,
    seed: u64,
) -> anyhow::Result<PolicyStore> {
    let mut store = PolicyStore::new(seed);
    let base = base_of(config_path);
    if let Some(loaded) = policy::read_folder(&base, &config.policy.directory)? {
        store.apply(loaded);
    }
    let report = &store.in_force().report;
    if report.has_errors() {
        return Err(PolicyRefused(LoadReport::clone(report)).into());
    }
    Ok(store)
}

/// Where relative paths of the configuration begin.
pub fn base_of(config_path: &Path) -> PathBuf {
    config_path.parent().unwrap_or(Path::new("")).to_owned()
}

/// What workers judge by; nothing where the site has no policy.
pub fn policy_of(config: &Config, in_force: &PolicyInForce) -> Option<Policy> {
    in_force.has_policy.then(|| Policy {
        table: in_force.table.clone(),
        keep_established: config.policy.keep_established,
        refusal: refusal_of(config),
    })
}

/// The pods that classes name by labels. Says in the log which class names none.
pub fn pods_of(config: &Config, in_force: &PolicyInForce) -> PodSets {
    let pods = labels::pod_sets(&config.classes, &in_force.objects);
    for line in labels::warnings(&config.classes, in_force, &pods) {
        tracing::warn!("{line}");
    }
    pods
}

fn refusal_of(config: &Config) -> Refusal {
    match config.policy.refusal {
        RefusalMode::Drop => Refusal::Drop,
        RefusalMode::Reject => Refusal::Reject,
    }
}

/// What the local API tells of this moment.
pub fn live(
    config: &Config,
    registry: &Registry,
    snapshot: Arc<Snapshot>,
    policy: Arc<PolicyInForce>,
) -> Live {
    let named = registry.peers().iter().filter_map(|peer| {
        let id = registry.spec(&peer.public_key)?.id;
        let name = match &peer.name {
            Some(name) => name.as_str().to_owned(),
            None => format!("{:?}", peer.public_key),
        };
        Some((id, name))
    });
    Live {
        site: config.site.name.as_str().to_owned(),
        peer_names: named.collect(),
        snapshot,
        policy,
        keep_established: config.policy.keep_established,
        refusal: refusal_of(config),
        via: via_plan(config, registry),
    }
}

/// The checks of prefixes that their peers own: `wg set` may have taken some away.
fn via_plan(config: &Config, registry: &Registry) -> ViaPlan {
    let checks = registry.peers().iter().flat_map(|peer| {
        let owned = peer.via.iter();
        let owned = owned.filter(|via| peer.allowed_ips.contains(&via.prefix));
        owned.map(|via| (peer.public_key, via.clone()))
    });
    ViaPlan {
        checks: checks.collect(),
        own_addrs: config.site.addresses.iter().map(|it| it.addr()).collect(),
    }
}

/// One route per allowed IP, where the site wants them. The configuration file refuses a route that would
/// swallow the tunnel's own datagrams; `wg set` may ask for one, and gets the owner without the route.
pub fn wanted_routes(config: &Config, peers: &[Peer]) -> Vec<(u32, Prefix)> {
    let Some(table) = config.site.routes.map(|table| table.number()) else {
        return Vec::new();
    };
    let carries_uplinks = RESERVED_TABLES.contains(&table);
    let endpoints: Vec<IpAddr> = peers
        .iter()
        .flat_map(Peer::endpoints)
        .filter_map(|(endpoint, _)| match endpoint {
            PeerEndpoint::Addr(addr) => Some(addr.ip()),
            PeerEndpoint::Name { .. } => None,
        })
        .collect();
    let loops = |prefix: &Prefix| {
        carries_uplinks
            && (prefix.is_default() || endpoints.iter().any(|addr| prefix.contains(*addr)))
    };
    let mut routes = Vec::new();
    for prefix in peers.iter().flat_map(|peer| &peer.allowed_ips) {
        if loops(prefix) {
            tracing::warn!(%prefix, table, "no route: the tunnel's own datagrams would go into the tunnel");
        } else {
            routes.push((table, *prefix));
        }
    }
    routes
}
