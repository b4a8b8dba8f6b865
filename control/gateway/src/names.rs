//! The addresses behind peers' host names.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::registry::{NamedEndpoint, Registry};

/// Asks for names one after the other and takes the answers.
pub async fn resolve(registry: &mut Registry, names: Vec<NamedEndpoint>) {
    for (host, port) in names {
        match lookup(&host, port).await {
            Some(addr) => {
                registry.set_resolved((host, port), addr);
            }
            None => tracing::warn!(
                host = host.as_str(),
                "cannot resolve the peer's endpoint; will try again"
            ),
        }
    }
}

/// Asks for a name and hands the answer on; nothing where there is none.
pub async fn resolve_later(
    name: NamedEndpoint,
    resolved: mpsc::Sender<(NamedEndpoint, SocketAddr)>,
) {
    if let Some(addr) = lookup(&name.0, name.1).await {
        // Control has ended when nobody listens.
        let _ = resolved.send((name, addr)).await;
    }
}

async fn lookup(host: &patronus_config::HostName, port: u16) -> Option<SocketAddr> {
    let asked = tokio::net::lookup_host((host.as_str(), port));
    let answer = tokio::time::timeout(LOOKUP_PATIENCE, asked).await.ok()?;
    answer.ok()?.next()
}

const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);
