//! When we announce ourselves on the LANs.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::machine::arrival::{Destination, GROUP_V4, GROUP_V6, InterfaceId, PORT};
use crate::machine::clock::Now;
use crate::machine::config::LanInterface;
use crate::machine::dice::Dice;
use crate::message::{Message, MessageKind};

/// Announcements at the start, close to each other.
const QUICK_ROUNDS: u32 = 3;
const FIRST_MAX: Duration = Duration::from_millis(150);
const QUICK: Duration = Duration::from_millis(700);
const SLOW_MIN: Duration = Duration::from_secs(10);
const SLOW_MAX: Duration = Duration::from_secs(30);

/// The LANs, each with its own beat.
#[derive(Default)]
pub(super) struct Lans {
    beats: BTreeMap<InterfaceId, Beat>,
}

struct Beat {
    lan: LanInterface,
    round: u32,
    next_at: Instant,
}

impl Lans {
    /// Begins on new interfaces, ends on those that are gone.
    pub fn set(&mut self, lans: &[LanInterface], dice: &mut Dice, now: Instant) {
        self.beats
            .retain(|id, _| lans.iter().any(|lan| lan.id == *id));
        for lan in lans {
            let known = self.beats.get_mut(&lan.id);
            match known {
                Some(beat) if beat.lan == *lan => {}
                Some(_) | None => {
                    let first = Duration::from_millis(dice.below(FIRST_MAX.as_millis() as u64));
                    let beat = Beat {
                        lan: *lan,
                        round: 0,
                        next_at: now + first,
                    };
                    self.beats.insert(lan.id, beat);
                }
            }
        }
    }

    pub fn contains(&self, id: InterfaceId) -> bool {
        self.beats.contains_key(&id)
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.beats.values().map(|beat| beat.next_at).min()
    }

    /// Something changed: say it soon, and again.
    pub fn hurry(&mut self, dice: &mut Dice, now: Instant) {
        for beat in self.beats.values_mut() {
            let soon = now + Duration::from_millis(dice.below(FIRST_MAX.as_millis() as u64));
            beat.round = beat.round.min(QUICK_ROUNDS - 1);
            beat.next_at = beat.next_at.min(soon);
        }
    }

    /// Whether everybody on this LAN is told at once anyway. Who came since the last time has not heard that.
    pub fn is_fresh(&self, id: InterfaceId, now: Instant) -> bool {
        let beat = self.beats.get(&id);
        beat.is_some_and(|beat| beat.next_at <= now + QUICK)
    }

    fn groups(&self) -> Vec<Destination> {
        self.beats
            .values()
            .flat_map(|beat| groups(&beat.lan))
            .collect()
    }

    /// Where it is time, and whether the certificate should come along.
    fn due(&mut self, dice: &mut Dice, now: Instant) -> Vec<(LanInterface, bool)> {
        let mut due = Vec::new();
        for beat in self.beats.values_mut().filter(|beat| beat.next_at <= now) {
            due.push((beat.lan, beat.round < QUICK_ROUNDS));
            beat.round = beat.round.saturating_add(1);
            beat.next_at = now + dice.about(interval(beat.round));
        }
        due
    }
}

impl Machine {
    pub(super) fn announce_on_lans(&mut self, now: Now) {
        let due = self.lans.due(&mut self.dice, now.instant);
        if due.is_empty() || self.is_self_revoked() {
            return;
        }
        let announcement = Message::Announce(self.own_announcement(now)).to_body();
        for (lan, with_certificate) in due {
            for group in groups(&lan) {
                if with_certificate {
                    let certificate = self.own.certificate.certificate().as_bytes().to_vec();
                    self.send_body(MessageKind::CertificateAnswer, &certificate, group);
                }
                self.send_body(MessageKind::Announce, &announcement, group);
            }
        }
    }

    /// Says something on all LANs at once.
    pub(super) fn send_on_lans(&mut self, message: &Message) {
        let body = message.to_body();
        for group in self.lans.groups() {
            self.send_body(message.kind(), &body, group);
        }
    }
}

/// Time to the announcement with this number.
fn interval(round: u32) -> Duration {
    if round < QUICK_ROUNDS {
        return QUICK;
    }
    let growth = 1.5_f64.powi((round - QUICK_ROUNDS).min(8) as i32);
    SLOW_MIN.mul_f64(growth).min(SLOW_MAX)
}

fn groups(lan: &LanInterface) -> Vec<Destination> {
    let to = |group: IpAddr| Destination::Multicast {
        lan: lan.id,
        group: SocketAddr::new(group, PORT),
    };
    let v4 = lan.has_v4.then(|| to(GROUP_V4.into()));
    let v6 = lan.has_v6.then(|| to(GROUP_V6.into()));
    v4.into_iter().chain(v6).collect()
}
