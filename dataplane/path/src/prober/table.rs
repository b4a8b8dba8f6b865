//! The paths of one peer: where they come from, and which one a message belongs to.

use std::net::SocketAddr;

use super::{Arrival, CADENCE_ANY, PathSpec, Prober, UPLINK_ANY, UplinkProfile, index};
use crate::ids::{PATHS_MAX, PathIndex};
use crate::message::{Hello, Kind};
use crate::metrics::StateReason;
use crate::observation::{Observation, PathProfile};
use crate::outbox::Outbox;
use crate::path::{Origin, Path, is_same_end};
use crate::time::Time;

/// The table of paths.
impl Prober {
    pub(super) fn path(&self, path: PathIndex) -> Option<&Path> {
        self.paths.get(path.as_usize())?.as_deref()
    }

    pub(super) fn path_mut(&mut self, path: PathIndex) -> Option<(&mut Path, &mut Outbox)> {
        let path = self.paths.get_mut(path.as_usize())?.as_deref_mut()?;
        Some((path, &mut self.outbox))
    }

    pub(super) fn spec_of(&self, path: &Path) -> Option<&PathSpec> {
        let known = path.configured.unwrap_or(path.remote);
        self.config
            .paths
            .iter()
            .find(|spec| spec.uplink == path.uplink && is_same_end(&spec.remote, &known))
    }

    /// Paths of the configuration that are not there yet, as far as there is room.
    pub(super) fn add_configured(&mut self, now: Time) {
        for number in 0..self.config.paths.len() {
            let spec = &self.config.paths[number];
            let is_there = self.paths.iter().flatten().any(|path| {
                self.spec_of(path)
                    .is_some_and(|known| std::ptr::eq(known, spec))
            });
            if !is_there {
                let origin = self.configured_origin(spec);
                if self.add(origin, now).is_none() && self.make_room() {
                    let origin = self.configured_origin(&self.config.paths[number]);
                    self.add(origin, now);
                }
            }
        }
    }

    /// Gives up a learnt path that is down.
    pub(super) fn make_room(&mut self) -> bool {
        let is_idle = |path: &Path| path.configured.is_none() && !path.liveness().hears();
        let idle = self
            .paths
            .iter()
            .position(|path| path.as_deref().is_some_and(is_idle));
        if let Some(at) = idle {
            self.remove(at);
        }
        idle.is_some()
    }

    pub(super) fn add(&mut self, origin: Origin, now: Time) -> Option<PathIndex> {
        let free = self.paths.iter().position(Option::is_none)?;
        self.made = self.made.wrapping_add(1);
        let origin = Origin {
            instance: (u32::from(self.run) << 16) | u32::from(self.made),
            ..origin
        };
        let path = Path::new(index(free), origin, now);
        let profile = path.profile.clone();
        self.outbox.push(Observation::Path(index(free), profile));
        self.paths[free] = Some(Box::new(path));
        Some(index(free))
    }

    pub(super) fn remove(&mut self, at: usize) {
        if self.paths[at].take().is_some() {
            self.outbox.push(Observation::Gone(index(at)));
        }
    }

    pub(super) fn fault_of(&self, uplink: u8) -> Option<StateReason> {
        let fault = self.faults.iter().find(|(faulty, _)| *faulty == uplink);
        fault.map(|(_, reason)| *reason)
    }

    pub(super) fn uplink(&self, uplink: u8) -> Option<&UplinkProfile> {
        let uplinks = &self.config.uplinks;
        uplinks.iter().find(|known| known.uplink == uplink)
    }

    pub(super) fn configured_origin(&self, spec: &PathSpec) -> Origin {
        Origin {
            instance: 0,
            uplink: spec.uplink,
            remote: spec.remote,
            is_configured: true,
            profile: spec.profile.clone(),
            cadence: spec.cadence,
            rx_capacity_bps: self.uplink(spec.uplink).and_then(|uplink| uplink.down_bps),
            inner_mtu: self.config.inner_mtu,
            fault: self.fault_of(spec.uplink),
        }
    }

    /// A path that the peer opens; `None` where the uplink is not ours. `at` is its place if it has one already.
    pub(super) fn learnt_origin(
        &self,
        uplink: u8,
        remote: SocketAddr,
        at: usize,
    ) -> Option<Origin> {
        let known = self.uplink(uplink);
        if known.is_none() && !(uplink == UPLINK_ANY && self.config.uplinks.is_empty()) {
            return None;
        }
        let uplink_name = known.map_or("any", |known| known.name.as_str());
        let ip = remote.ip().to_canonical();
        let mut name = format!("{uplink_name}-{ip}");
        let is_taken = |path: &Path| path.profile.name == name;
        let mut others = (0..PATHS_MAX).filter(|other| *other != at);
        if others.any(|other| self.paths[other].as_deref().is_some_and(is_taken)) {
            name = format!("{uplink_name}-{}", SocketAddr::new(ip, remote.port()));
        }
        Some(Origin {
            instance: 0,
            uplink,
            remote,
            is_configured: false,
            profile: PathProfile {
                name,
                uplink,
                remote: None,
                cost: known.map_or(0, |known| known.cost),
                capacity_bps: known.and_then(|known| known.up_bps),
                is_metered: known.is_some_and(|known| known.is_metered),
            },
            cadence: known.map_or(CADENCE_ANY, |known| known.cadence),
            rx_capacity_bps: known.and_then(|known| known.down_bps),
            inner_mtu: self.config.inner_mtu,
            fault: self.fault_of(uplink),
        })
    }

    /// The path of a message: by its ends; by the number that the peer learnt, where that path's far end has moved; or
    /// a new one.
    pub(super) fn locate(
        &mut self,
        arrival: &Arrival,
        hello: &Hello,
        now: Time,
    ) -> Option<PathIndex> {
        let by_ends = self.path_of(arrival);
        if hello.kind != Kind::Hello {
            // Only a hello moves or opens a path. A lane has an address of its own where a NAT is on the way.
            let is_lane = hello.kind == Kind::Lane;
            return by_ends.or_else(|| self.named(arrival, hello, |_| is_lane));
        }
        let is_partner = |path: &Path| path.is_answered_by(hello) || path.has_peer(hello);
        let named = self.named(arrival, hello, is_partner);
        let Some(named) = named.or_else(|| self.known_to(arrival, hello)) else {
            let by_ends = by_ends.or_else(|| self.return_home(arrival, hello));
            return by_ends.or_else(|| self.learn(arrival, now));
        };
        if self
            .path(named)
            .is_some_and(|path| path.has_peer(hello) && !path.is_newest(hello))
        {
            // Late, and perhaps from where the peer was before.
            return Some(named);
        }
        match by_ends {
            Some(known) if known == named => {}
            // Two of ours lead to one of the peer's, which answers the named one.
            Some(known) if self.is_configured(known) => {
                if !self.is_configured(named) {
                    self.remove(named.as_usize());
                }
                return Some(known);
            }
            Some(learnt) => {
                self.remove(learnt.as_usize());
                self.follow(named, arrival);
            }
            None => self.follow(named, arrival),
        }
        Some(named)
    }

    /// The path on this uplink that the peer learnt as ours, if it is as wanted.
    pub(super) fn named(
        &self,
        arrival: &Arrival,
        hello: &Hello,
        is_wanted: impl Fn(&Path) -> bool,
    ) -> Option<PathIndex> {
        let at = usize::from(hello.your_path).checked_sub(1)?;
        let path = self.paths.get(at)?.as_deref()?;
        (path.is_on(arrival.uplink) && is_wanted(path)).then(|| index(at))
    }

    /// The path on this uplink that this path of the peer was on, though the peer has not heard us there yet.
    pub(super) fn known_to(&self, arrival: &Arrival, hello: &Hello) -> Option<PathIndex> {
        let is_known = |path: &Path| path.is_on(arrival.uplink) && path.has_peer(hello);
        let mut paths = self.paths.iter();
        let at = paths.position(|path| path.as_deref().is_some_and(is_known));
        at.map(index)
    }

    pub(super) fn is_configured(&self, path: PathIndex) -> bool {
        self.path(path)
            .is_some_and(|path| path.configured.is_some())
    }

    pub(super) fn follow(&mut self, at: PathIndex, arrival: &Arrival) {
        let Some((path, outbox)) = self.path_mut(at) else {
            return;
        };
        path.follow(arrival);
        let profile = path.profile.clone();
        outbox.push(Observation::Path(at, profile));
    }

    /// The path that was configured with these ends and had followed its far end elsewhere.
    pub(super) fn return_home(&mut self, arrival: &Arrival, hello: &Hello) -> Option<PathIndex> {
        let is_home = |path: &Path| path.is_home_of(arrival, hello);
        let mut paths = self.paths.iter();
        let at = paths.position(|path| path.as_deref().is_some_and(is_home))?;
        self.follow(index(at), arrival);
        Some(index(at))
    }

    /// A path that the peer opened.
    pub(super) fn learn(&mut self, arrival: &Arrival, now: Time) -> Option<PathIndex> {
        let origin = self.learnt_origin(arrival.uplink, arrival.remote, PATHS_MAX)?;
        if self.paths.iter().all(Option::is_some) && !self.make_room() {
            return None;
        }
        self.add(origin, now)
    }
}
