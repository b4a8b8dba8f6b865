//! What prober and selector are told when they begin: configuration in their terms, and the ends of paths in both.

use std::time::Duration;

use patronus_packet::{Endpoint, UplinkId};
use patronus_path::observation::PathProfile;
use patronus_path::prober::UplinkProfile;
use patronus_path::{
    Arrival, Cadence, PathCounters, PathSpec, ProberConfig, SelectorConfig, StateReason,
};

use patronus_tunnel::message::DATA_OVERHEAD;
use patronus_tunnel::peer::RETRY_AFTER;

use crate::lane_paths;
use crate::lanes::Role;
use crate::narrow::INNER_MTU_MIN;
use crate::peers::OwnedPeer;
use crate::snapshot::{PeerSpec, Snapshot};

/// Initiations to one address after another keep this distance.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Outer headers of a datagram, IP and UDP, in bytes.
const HEADERS_V4: u64 = 28;
const HEADERS_V6: u64 = 48;

/// Whether paths are measured at all: there has to be a class to choose for.
pub(crate) fn is_on(snapshot: &Snapshot) -> bool {
    !snapshot.paths().classes.configs.is_empty()
}

/// With the outer headers, which the capacity of a path has to carry as well.
pub(crate) fn outer_bytes(counters: PathCounters, end: &Endpoint) -> PathCounters {
    let headers = match end.remote.is_ipv4() {
        true => HEADERS_V4,
        false => HEADERS_V6,
    };
    PathCounters {
        tx_bytes: counters.tx_bytes + counters.tx_packets * headers,
        rx_bytes: counters.rx_bytes + counters.rx_packets * headers,
        ..counters
    }
}

/// Largest inner packet of a path whose outer packets take `outer` bytes.
pub(crate) fn inner_mtu(outer: u16, end: &Endpoint) -> u16 {
    let headers = match end.remote.is_ipv4() {
        true => HEADERS_V4,
        false => HEADERS_V6,
    };
    let room = outer.saturating_sub(headers as u16 + DATA_OVERHEAD as u16);
    room.max(INNER_MTU_MIN as u16)
}

/// How a datagram came, in the prober's terms. What came over an uplink that is none of the configured ones came as the
/// routes would have it.
pub(crate) fn arrival(snapshot: &Snapshot, endpoint: &Endpoint) -> Arrival {
    let uplinks = &snapshot.paths().uplinks;
    let is_known = uplinks.iter().any(|it| it.uplink == endpoint.uplink.0);
    Arrival {
        uplink: if is_known {
            endpoint.uplink
        } else {
            UplinkId::ANY
        }
        .0,
        remote: endpoint.remote,
        local: endpoint.local,
    }
}

pub(crate) fn endpoint_from(end: Arrival) -> Endpoint {
    Endpoint {
        local: end.local,
        uplink: UplinkId(end.uplink),
        ..Endpoint::from(end.remote)
    }
}

pub(crate) fn selector_config(snapshot: &Snapshot, spec: &PeerSpec) -> SelectorConfig {
    SelectorConfig {
        // As with lanes, the smaller key leads.
        leads: snapshot.identity().public_key() < spec.public_key,
        classes: snapshot.paths().classes.configs.clone(),
    }
}

/// The peer's paths, or the one path to where it was last heard.
pub(crate) fn prober_config(
    snapshot: &Snapshot,
    spec: &PeerSpec,
    heard_at: Option<Endpoint>,
    has_several: bool,
) -> ProberConfig {
    let mut uplinks = snapshot.paths().uplinks.clone();
    if uplinks.is_empty() {
        uplinks.push(any_uplink(has_several));
    }
    let mut paths = spec.paths.clone();
    if let (true, Some(endpoint)) = (paths.is_empty(), heard_at) {
        paths.push(sole_path(snapshot, &endpoint, has_several));
    }
    ProberConfig {
        paths,
        uplinks,
        inner_mtu: u16::try_from(snapshot.mtu()).unwrap_or(u16::MAX),
    }
}

/// The profile of the path that a peer without configured ones has.
fn sole_path(snapshot: &Snapshot, endpoint: &Endpoint, has_several: bool) -> PathSpec {
    let arrival = arrival(snapshot, endpoint);
    let uplinks = snapshot.paths().uplinks.iter();
    let uplink = uplinks.clone().find(|it| it.uplink == arrival.uplink);
    let any = any_uplink(has_several);
    let uplink = uplink.unwrap_or(&any);
    PathSpec {
        uplink: uplink.uplink,
        remote: endpoint.remote,
        profile: PathProfile {
            name: format!("{}-{}", uplink.name, endpoint.remote),
            uplink: uplink.uplink,
            remote: None,
            cost: uplink.cost,
            capacity_bps: uplink.up_bps,
            is_metered: uplink.is_metered,
        },
        cadence: uplink.cadence,
    }
}

/// What goes as the routes would have it.
fn any_uplink(has_several: bool) -> UplinkProfile {
    UplinkProfile {
        uplink: UplinkId::ANY.0,
        name: "any".to_owned(),
        cost: 0,
        up_bps: None,
        down_bps: None,
        is_metered: false,
        cadence: cadence(has_several),
    }
}

/// A path without an alternative is measured, but nobody has to be quick about it.
fn cadence(has_several: bool) -> Cadence {
    Cadence {
        active: Duration::from_millis(if has_several { 50 } else { 250 }),
        idle: Duration::from_secs(1),
        multiplier: 5,
    }
}

/// Where the next initiation goes: first to where the peer is thought to be, then round all its ends, each time another
/// one, leaving out uplinks that do not work. So a peer of any make with several addresses is found again.
pub(crate) fn initiation_end(
    peer: &mut OwnedPeer,
    faults: &[Option<StateReason>; UplinkId::COUNT_MAX],
) -> Option<Endpoint> {
    if matches!(peer.role, Role::Lane(_)) {
        return lane_paths::end_for_attempt(peer, peer.attempts).or(peer.endpoint);
    }
    let configured = peer.spec.paths.iter().map(|path| Endpoint {
        uplink: UplinkId(path.uplink),
        ..Endpoint::from(path.remote)
    });
    let known = peer.paths.as_ref().map(|paths| paths.ends());
    let known = known.into_iter().flatten().flatten();
    let mut ends: Vec<Endpoint> = Vec::new();
    for end in known.chain(configured) {
        let is_same = |it: &Endpoint| (it.remote, it.uplink) == (end.remote, end.uplink);
        let fault = faults.get(usize::from(end.uplink.0));
        if fault.is_none_or(Option::is_none) && !ends.iter().any(is_same) {
            ends.push(end);
        }
    }
    if let Some(first) = peer.endpoint {
        // As the routes would have it, it may be any of those to that address.
        let is_first = |it: &Endpoint| {
            let is_any = [it.uplink, first.uplink].contains(&UplinkId::ANY);
            it.remote == first.remote && (it.uplink == first.uplink || is_any)
        };
        let fault = faults.get(usize::from(first.uplink.0));
        match ends.iter().position(is_first) {
            Some(at) => ends.rotate_left(at),
            None if fault.is_none_or(Option::is_none) => ends.insert(0, first),
            None => {}
        }
    }
    // Once round in the time that WireGuard waits for one answer.
    let retry_after = RETRY_AFTER / ends.len().max(1) as u32;
    peer.tunnel
        .set_retry_after(retry_after.max(RETRY_AFTER_MIN));
    let at = (peer.attempts as usize).checked_rem(ends.len());
    at.and_then(|at| ends.get(at).copied()).or(peer.endpoint)
}
