//! What `wg` asks of a running gateway, and changes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use patronus_config::{Keepalive, Peer, PeerEndpoint};

use super::Daemon;
use crate::startup::StartError;
use crate::uapi::{Device, PeerChange, PeerState, Request, SetRequest, errno};
use crate::uapi_server::errno_text;

impl Daemon {
    /// Answers one request of the control socket.
    pub(super) async fn answer(&mut self, request: Request) -> zeroize::Zeroizing<String> {
        match request {
            Request::Get => self.device_text(),
            Request::Set(set) => match self.set(*set).await {
                Ok(()) => errno_text(errno::OK),
                Err(error) => {
                    tracing::warn!("control request failed: {error:#}");
                    let in_use = matches!(
                        error.downcast_ref::<StartError>(),
                        Some(StartError::Udp(patronus_io::UdpError::InUse { .. }))
                    );
                    errno_text(if in_use {
                        errno::ADDRESS_IN_USE
                    } else {
                        errno::IO
                    })
                }
            },
        }
    }

    /// What `wg set` wants.
    async fn set(&mut self, set: SetRequest) -> anyhow::Result<()> {
        let mark = set
            .fwmark
            .map_or(self.mark, |mark| (mark != 0).then_some(mark));
        match set.listen_port.filter(|port| *port != self.port) {
            Some(port) => {
                let uplinks = self.bind(&self.config, port, mark)?;
                self.move_sockets(uplinks);
                self.mark = mark;
            }
            None if mark != self.mark => self.set_mark(mark),
            None => {}
        }
        if let Some(key) = set.private_key {
            self.registry.set_private_key(key);
        }
        if set.replace_peers {
            // Peers that are named again right here are unchanged to the workers.
            let named = |peer: &&Peer| {
                set.peers
                    .iter()
                    .any(|change| change.public_key == peer.public_key)
            };
            let kept: Vec<Peer> = self
                .registry
                .peers()
                .iter()
                .filter(named)
                .cloned()
                .map(emptied)
                .collect();
            self.registry
                .set_peers(patronus_config::PeerSet::from_peers(kept));
        }
        for change in set.peers {
            self.change_peer(change);
        }
        self.publish();
        self.update_routes().await
    }

    fn change_peer(&mut self, change: PeerChange) {
        let key = change.public_key;
        let known = self.registry.peers().by_key(&key).cloned();
        let is_self = key == self.registry.identity().public_key();
        if change.remove || is_self || (change.update_only && known.is_none()) {
            if change.remove {
                self.registry.remove_peer(&key);
            }
            return;
        }
        let mut peer = known.unwrap_or_else(|| Peer::new(key));
        if let Some(preshared) = change.preshared_key {
            peer.preshared_key = preshared;
        }
        if let Some(endpoint) = change.endpoint {
            peer.endpoint = Some(PeerEndpoint::Addr(endpoint));
            self.registry.reset_endpoint(&key);
        }
        if let Some(keepalive) = change.keepalive {
            peer.keepalive = keepalive;
        }
        if change.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        peer.allowed_ips.extend(change.allowed_ips);
        self.registry.set_peer(peer);
    }

    fn device_text(&self) -> zeroize::Zeroizing<String> {
        let unix_epoch_offset = self.unix_time_of_epoch();
        let peers = self.registry.peers().iter().map(|peer| {
            let spec = self.registry.spec(&peer.public_key);
            let stats = spec.map(|spec| &spec.stats);
            PeerState {
                public_key: peer.public_key,
                preshared_key: peer.preshared_key.as_ref(),
                endpoint: stats
                    .and_then(|stats| stats.endpoint())
                    .map(|endpoint| endpoint.remote),
                last_handshake: stats
                    .and_then(|stats| stats.last_handshake())
                    .map(|at| unix_epoch_offset + at),
                tx_bytes: spec.map_or(0, |spec| spec.tx_bytes()),
                rx_bytes: spec.map_or(0, |spec| spec.rx_bytes()),
                keepalive: peer.keepalive,
                allowed_ips: &peer.allowed_ips,
            }
        });
        let device = Device {
            private_key: self.registry.identity().private_key(),
            listen_port: self.port,
            fwmark: self.mark.unwrap_or(0),
            peers: peers.collect(),
        };
        device.to_text()
    }

    /// The gateway's epoch as time since 1970, by today's clock.
    fn unix_time_of_epoch(&self) -> Duration {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        now.saturating_sub(self.registry.epoch().elapsed())
    }
}

fn emptied(mut peer: Peer) -> Peer {
    peer.allowed_ips.clear();
    peer.keepalive = None::<Keepalive>;
    peer.preshared_key = None;
    peer
}
