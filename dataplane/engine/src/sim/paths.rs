//! The ways between uplinks: each direction of each pair of uplinks is a [`Wire`] of its own.

use std::net::SocketAddr;
use std::time::Duration;

use patronus_impair::{Fate, Heading, Impairment, Jitter, JitterShape, Loss, Probability};
use patronus_impair::{Schedule, Wire, WireCounters};
use patronus_packet::{Door, Endpoint};
use patronus_path::StateReason;

use super::wire::{Captured, Delivery, Link};
use super::{Net, SiteId};
use crate::PathOrder;

/// An uplink of a site, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uplink(pub SiteId, pub u8);

/// Where a datagram leaves, and which uplink it goes to, where it is anyone's.
pub(super) type Way = (Uplink, Option<Uplink>);

/// A schedule at work.
pub(super) struct Followed {
    schedule: Schedule,
    /// The ends of each link by name, and what is done to it in both headings by itself.
    links: Vec<(String, Uplink, Uplink, [Impairment; 2])>,
    next: Option<Duration>,
}

impl Link {
    /// The same as an impairment; `filter` stays with the simulator.
    pub fn impairment(&self) -> Impairment {
        let chance = |fraction: f64| Probability::new(fraction.clamp(0.0, 1.0));
        let [loss, duplicate] = [self.loss, self.duplicate].map(chance);
        Impairment {
            delay: self.delay,
            jitter: Jitter {
                amount: self.jitter,
                shape: JitterShape::Uniform,
            },
            keep_order: false,
            loss: Loss::Random(loss.expect("a loss is no NaN")),
            duplicate: duplicate.expect("a chance is no NaN"),
            ..Impairment::default()
        }
    }
}

impl Net {
    /// Sets what is done to datagrams from one uplink to another, in this direction alone. It goes before
    /// [`link`](Self::link) and [`set_link`](Self::set_link), of which the filter alone stays in force.
    pub fn set_path(&mut self, from: Uplink, to: Uplink, impairment: Impairment) {
        self.paths.insert((from, Some(to)), impairment);
    }

    /// [`set_path`](Self::set_path) in both directions.
    pub fn set_path_both(&mut self, a: Uplink, b: Uplink, impairment: Impairment) {
        self.set_path(a, b, impairment);
        self.set_path(b, a, impairment);
    }

    /// What happened so far to datagrams from one uplink to another.
    pub fn path_counters(&self, from: Uplink, to: Uplink) -> WireCounters {
        let wire = self.wires.get(&(from, Some(to)));
        wire.map_or_else(WireCounters::default, |wire| *wire.counters())
    }

    /// Has a schedule change the paths between uplinks from here on: its times are counted from the begin of the world,
    /// its changes start from what [`set_path`](Self::set_path) says of each link, or from no impairment at all. Each
    /// link has its name in the schedule and its ends a and b.
    pub fn follow(&mut self, schedule: Schedule, links: &[(&str, Uplink, Uplink)]) {
        let base = |from, to| self.paths.get(&(from, Some(to))).copied();
        let links = links.iter().map(|(name, a, b)| {
            let both = [base(*a, *b), base(*b, *a)].map(Option::unwrap_or_default);
            ((*name).to_owned(), *a, *b, both)
        });
        self.followed = Some(Followed {
            links: links.collect(),
            schedule,
            next: None,
        });
        self.apply_schedule();
    }

    /// When the schedule changes something next.
    pub(super) fn schedule_due(&self) -> Option<std::time::Instant> {
        let next = self.followed.as_ref()?.next?;
        Some(self.epoch + next)
    }

    pub(super) fn apply_schedule(&mut self) {
        let now = self.elapsed();
        let Some(followed) = &mut self.followed else {
            return;
        };
        for (name, a, b, bases) in &followed.links {
            for (heading, base) in Heading::BOTH.into_iter().zip(bases) {
                let (from, to) = match heading {
                    Heading::AToB => (a, b),
                    Heading::BToA => (b, a),
                };
                let impairment = followed.schedule.impairment_at(now, name, heading, *base);
                self.paths.insert((*from, Some(*to)), impairment);
            }
        }
        followed.next = followed.schedule.change_after(now);
    }

    /// The carrier of an uplink goes or comes back: nothing leaves or arrives there meanwhile, and every worker is told,
    /// as control does. For a fault that nobody is told of there is [`set_path`](Self::set_path).
    pub fn set_uplink(&mut self, site: SiteId, uplink: u8, up: bool) {
        self.sites[site.0].carriers[usize::from(uplink)] = up;
        let order = PathOrder::Uplink(uplink, (!up).then_some(StateReason::CarrierLost));
        for worker in 0..self.sites[site.0].engines.len() {
            self.sites[site.0].engines[worker].handle_path_order(&order, self.now);
            self.drain(site, worker);
        }
    }

    /// Gives an uplink of a site another outer address. What is on its way to the old one is lost.
    pub fn move_uplink(&mut self, site: SiteId, uplink: u8, outer: SocketAddr) {
        self.sites[site.0].outers[usize::from(uplink)] = outer;
    }

    /// Which uplink an address belongs to.
    pub(super) fn uplink_at(&self, addr: SocketAddr) -> Option<Uplink> {
        self.sites.iter().enumerate().find_map(|(id, site)| {
            let (uplink, _) = site.door_at(addr)?;
            Some(Uplink(SiteId(id), uplink))
        })
    }

    /// A worker's datagram leaves the site.
    pub(super) fn transmit(
        &mut self,
        site: SiteId,
        worker: usize,
        endpoint: Endpoint,
        tos: u8,
        bytes: Vec<u8>,
    ) {
        let uplink = self.sites[site.0].uplink_of(&endpoint);
        let from = match endpoint.door {
            Door::Listen => self.sites[site.0].outers[usize::from(uplink)],
            Door::Lane => self.sites[site.0].lane_addr_on(uplink, worker),
        };
        let to = endpoint.remote;
        let way = (Uplink(site, uplink), self.uplink_at(to));
        let fate = self.fate_of(way, to, &bytes);
        let deliveries = fate.as_ref().map_or(&[][..], Fate::deliveries);
        self.captured.push(Captured {
            at: self.now,
            from,
            to,
            tos,
            bytes: bytes.clone(),
            copies: deliveries.len(),
        });
        for delivery in deliveries {
            self.sequence += 1;
            self.wire.push(Delivery {
                at: self.epoch + delivery.at,
                sequence: self.sequence,
                from,
                to,
                tos: if delivery.mark_ce { marked(tos) } else { tos },
                bytes: bytes.clone(),
            });
        }
    }

    /// `None` where it never comes to a wire.
    fn fate_of(&mut self, way: Way, to: SocketAddr, bytes: &[u8]) -> Option<Fate> {
        let (Uplink(site, uplink), target) = way;
        let between = target.and_then(|Uplink(target, _)| self.links.get(&(site, target)));
        let link = *between.unwrap_or(&self.link);
        if !self.sites[site.0].carriers[usize::from(uplink)] || !(link.filter)(bytes) {
            return None;
        }
        let impairment = match self.paths.get(&way) {
            Some(impairment) => *impairment,
            None => link.impairment(),
        };
        let now = self.now - self.epoch;
        let seed = self.seed;
        let wire = self
            .wires
            .entry(way)
            .or_insert_with(|| Wire::new(impairment, seed_of(seed, way)));
        wire.set(impairment);
        let headers = if to.is_ipv4() { 28 } else { 48 };
        Some(wire.offer(headers + bytes.len(), now))
    }
}

/// What a router makes of a traffic class when it meets congestion: only what can be marked is (RFC 3168).
fn marked(tos: u8) -> u8 {
    match tos & 0b11 {
        0 => tos,
        _ => tos | 0b11,
    }
}

/// Each way has chances of its own, whatever else happens.
fn seed_of(seed: u64, (from, to): Way) -> u64 {
    let place = |Uplink(site, uplink): Uplink| (site.0 as u64) << 8 | u64::from(uplink);
    let to = to.map_or(u64::from(u32::MAX), place);
    patronus_impair::Dice::for_purpose(seed, place(from) << 32 | to).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SiteOptions;

    fn tos_on_the_wire(tos: u8, mark_ce: Probability) -> u8 {
        let mut net = Net::mesh(0x705, 2, SiteOptions::default());
        net.wire.clear();
        let [a, b] = [Uplink(SiteId(0), 0), Uplink(SiteId(1), 0)];
        let impairment = Impairment {
            mark_ce,
            ..Impairment::default()
        };
        net.set_path(a, b, impairment);
        let endpoint = Endpoint::from(net.site(SiteId(1)).outer());
        net.transmit(SiteId(0), 0, endpoint, tos, vec![0; 64]);
        net.wire.peek().expect("it is on its way").tos
    }

    #[test]
    fn the_traffic_class_crosses_the_wire() {
        assert_eq!(tos_on_the_wire(0xb8, Probability::NEVER), 0xb8);
        assert_eq!(tos_on_the_wire(0x02, Probability::NEVER), 0x02);
    }

    #[test]
    fn congestion_marks_what_can_be_marked() {
        assert_eq!(
            tos_on_the_wire(0xb8 | 0b10, Probability::ALWAYS),
            0xb8 | 0b11
        );
        assert_eq!(tos_on_the_wire(0b01, Probability::ALWAYS), 0b11);
        assert_eq!(
            tos_on_the_wire(0xb8, Probability::ALWAYS),
            0xb8,
            "not ECN-capable"
        );
    }
}
