//! What a configuration touches on its machine, without its secrets: for those who look at the machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use patronus_packet::Prefix;

use crate::draft::Draft;
use crate::endpoint::PeerEndpoint;
use crate::model::{InterfaceName, Mtu};
use crate::uplinks::UplinkIo;

/// Interfaces, ports, prefixes and folders of a configuration.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The tunnel interface.
    pub interface: InterfaceName,
    /// Its MTU.
    pub mtu: Mtu,
    /// Whether it gets a route per allowed IP.
    pub has_routes: bool,
    /// UDP port; 0 is any free one.
    pub listen_port: u16,
    /// The uplinks: name, interface where one is named, whether by AF_XDP.
    pub uplinks: Vec<OutlineUplink>,
    /// Where peers are called, as far as configuration names addresses.
    pub endpoints: Vec<SocketAddr>,
    /// What peers own.
    pub allowed_ips: Vec<Prefix>,
    /// The folder for what outlives the gateway, as the operator wrote it.
    pub state_dir: Option<PathBuf>,
    /// Whether the pre-filter is wanted anywhere.
    pub wants_prefilter: bool,
}

/// One uplink.
#[derive(Clone, Debug)]
pub struct OutlineUplink {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: Option<InterfaceName>,
    /// Whether it runs by AF_XDP.
    pub is_af_xdp: bool,
}

impl Outline {
    /// Of a configuration whose key files nobody has read.
    pub fn new(draft: &Draft) -> Self {
        let uplinks = draft.uplinks.iter().map(|uplink| OutlineUplink {
            name: uplink.name.to_string(),
            interface: uplink.interface.clone(),
            is_af_xdp: uplink.io == UplinkIo::AfXdp,
        });
        let endpoints = draft.peers.iter().flat_map(|peer| &peer.endpoints);
        let endpoints = endpoints.filter_map(|it| match &it.value.endpoint {
            PeerEndpoint::Addr(addr) => Some(*addr),
            PeerEndpoint::Name { .. } => None,
        });
        let allowed_ips = draft.peers.iter().flat_map(|peer| &peer.allowed_ips);
        Self {
            interface: draft.site.interface.clone(),
            mtu: draft.site.mtu.value,
            has_routes: draft.site.routes.is_some(),
            listen_port: draft.uplinks.listen_port,
            uplinks: uplinks.collect(),
            endpoints: endpoints.collect(),
            allowed_ips: allowed_ips.map(|it| it.value).collect(),
            state_dir: draft.site.state.dir.clone(),
            wants_prefilter: draft.prefilter.wan != crate::prefilter::WanHook::Off,
        }
    }
}
