//! The daemon's part in the pre-filter: it tells it of configuration, of ports and of interfaces.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use patronus_config::Peer;
use patronus_engine::Snapshot;

use super::Daemon;
use crate::in_force::base_of;
use crate::prefilter::{Wanted, interfaces};

impl Daemon {
    /// At the start and after a reload: lists are read, interfaces found, and the filter attached, or said why not.
    pub(super) async fn configure_prefilter(&mut self) {
        let interfaces = self.interfaces_out().await;
        let wanted = Wanted {
            settings: self.config.prefilter.clone(),
            base: base_of(&self.config_path),
            ports: self.ports.clone(),
            interfaces,
            peers: self.peer_addresses(),
        };
        let prefilter = self.prefilter.clone();
        let work = tokio::task::spawn_blocking(move || prefilter.configure(wanted));
        let is_done = work.await.is_ok();
        let snapshot = self.api_state.live().snapshot.clone();
        self.publish_to_kernel(&snapshot);
        if !is_done {
            tracing::error!(
                "pre-filter: its configuration ended by a panic; what is attached goes on: restart the gateway"
            );
        }
    }

    /// Before the workers get it: what they allow, the kernel allows too then.
    pub(super) fn publish_to_kernel(&self, snapshot: &Snapshot) {
        let interface = self.config.site.interface.as_str();
        self.prefilter.publish(interface, snapshot.policy());
    }

    /// Interfaces or routes may have changed.
    pub(super) async fn look_at_prefilter(&mut self) {
        let interfaces = self.interfaces_out().await;
        let guarded = self.prefilter.look(Some(interfaces));
        self.uplinks.accompany(guarded);
    }

    /// Ports or peers may have changed.
    pub(super) fn readdress_prefilter(&self) {
        self.prefilter
            .readdress(self.ports.clone(), self.peer_addresses());
    }

    /// Configuration went to the workers: which receivers they will hand out is not known for a moment.
    pub(super) fn forget_receivers(&mut self) {
        self.prefilter.know_receivers(None);
        self.published_at = Instant::now();
    }

    /// Once the workers had time to take what was published, what they hand out stays the same until the next time.
    pub(super) fn learn_receivers(&self) {
        if !self.prefilter.checks_receivers() || self.published_at.elapsed() < SETTLED_AFTER {
            return;
        }
        let live = self.api_state.live();
        let indices = live.snapshot.peers().map(|spec| spec.indices());
        // A tunnel that is not made yet gets its index any moment.
        let known = indices.collect::<Option<Vec<_>>>().map(|indices| {
            let mut all = indices.concat();
            all.sort_unstable();
            all
        });
        self.prefilter.know_receivers(known);
    }

    async fn interfaces_out(&mut self) -> Vec<String> {
        let handle = self.uplinks.handle();
        let found = interfaces::wanted(handle, &self.config, self.registry.peers()).await;
        self.uplinks.accompany(found.clone());
        found
    }

    /// Where peers are, as far as configuration and name servers say.
    fn peer_addresses(&self) -> Vec<IpAddr> {
        let endpoints = self.registry.peers().iter().flat_map(Peer::endpoints);
        let addrs = endpoints.filter_map(|(endpoint, _)| self.registry.addr_of(endpoint));
        let mut addrs: Vec<IpAddr> = addrs.map(|addr| addr.ip()).collect();
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    }
}

/// Workers take a configuration between two batches: within milliseconds, unless they are kept from their cores.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
