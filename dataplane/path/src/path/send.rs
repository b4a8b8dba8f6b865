//! What leaves on a path, and when.

use std::time::Duration;

use super::{BURST_SPACING, INTERVAL_LEAST, Path, Shared};
use crate::dice::Dice;
use crate::message::{HELLO_LEN, Hello, Kind};
use crate::metrics::PathState;
use crate::mtu::outer_len;
use crate::outbox::Outbox;
use crate::prober::Transmit;
use crate::time::Time;

/// A peer that never answered is asked at these doubling distances.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Hellos in a row that data may stand in for on a metered path.
const SKIPS_MAX: u8 = 4;
/// Plaintext of a wagon.
const WAGON_LEN: u16 = 1344;

impl Path {
    /// The next message that is due.
    pub(crate) fn poll_transmit(
        &mut self,
        shared: &Shared,
        dice: &mut Dice,
        now: Time,
        outbox: &mut Outbox,
    ) -> Option<Transmit> {
        if self.liveness.has_fault() {
            return None;
        }
        if let Some(len) = self.schedule.mtu_reply.take() {
            let hello = self.message(Kind::MtuReply, len, shared, now);
            return Some(self.transmit(hello, HELLO_LEN));
        }
        let is_burst = self.schedule.burst.is_some_and(|(at, _)| at <= now);
        if (self.schedule.next <= now || is_burst)
            && let Some(hello) = self.hello(is_burst, shared, dice, now)
        {
            self.report(now, outbox);
            return Some(self.transmit(hello, HELLO_LEN));
        }
        if let Some(len) = self.mtu.poll(&self.conditions(now), now) {
            let hello = self.message(Kind::MtuProbe, u32::from(len), shared, now);
            return Some(self.transmit(hello, usize::from(len).max(HELLO_LEN)));
        }
        let len = self.wagon_len(shared);
        let wagon = self.trains.poll(outer_len(len, &self.remote), now)?;
        let hello = self.message(Kind::Train, wagon.to_argument(), shared, now);
        Some(self.transmit(hello, usize::from(len)))
    }

    fn transmit(&self, hello: Hello, len: usize) -> Transmit {
        Transmit {
            path: self.index,
            hello,
            order: None,
            len,
        }
    }

    fn wagon_len(&self, shared: &Shared) -> u16 {
        let passes = self.mtu.known().unwrap_or(shared.inner_mtu);
        WAGON_LEN.min(passes / 16 * 16).max(HELLO_LEN as u16)
    }

    /// The hello that is due, unless data stands in for it; the next one is scheduled.
    fn hello(
        &mut self,
        is_burst: bool,
        shared: &Shared,
        dice: &mut Dice,
        now: Time,
    ) -> Option<Hello> {
        if !is_burst && self.is_spared() {
            self.schedule.skipped += 1;
            self.schedule.next = now + spread(self.schedule.interval, dice);
            return None;
        }
        if let Some((at, left)) = self.schedule.burst.filter(|_| is_burst) {
            self.schedule.burst = (left > 1).then(|| (at.max(now) + BURST_SPACING, left - 1));
        }
        self.schedule.skipped = 0;
        self.schedule.is_news = false;
        self.schedule.data_tx_packets = self.counters.tx_packets;
        let data_tx_packets = self.counters.tx_packets as u32;
        self.estimates.departures.send(data_tx_packets, now);
        let trains = self.estimates.rx_train.result();
        let (train, train_kbps) = trains.unwrap_or((0, 0));
        let mut hello = self.message(Kind::Hello, u32::from(train), shared, now);
        hello.train_kbps = train_kbps;
        hello.wants_answer = std::mem::take(&mut self.schedule.wants_answer)
            || is_burst
            || self.liveness.is_broken();
        let pause = match shared.is_answered {
            true => self.slow_down(),
            false => self.back_off(),
        };
        self.schedule.next = now + spread(pause, dice);
        Some(hello)
    }

    /// Whether data has gone out on a metered path, so that the peer hears us anyway.
    fn is_spared(&self) -> bool {
        self.profile.is_metered
            && self.liveness.state() == PathState::Up
            && self.schedule.slowing.is_none()
            && !self.schedule.is_news
            && self.schedule.skipped < SKIPS_MAX
            && self.counters.tx_packets > self.schedule.data_tx_packets
    }

    /// The pause before the next hello; a longer one only after the peer was told a few times.
    fn slow_down(&mut self) -> Duration {
        if let Some(left) = self.schedule.slowing {
            self.schedule.slowing = left.checked_sub(1);
            if left == 0 {
                self.schedule.interval = self.wanted_interval();
            }
        }
        self.schedule.interval
    }

    fn back_off(&mut self) -> Duration {
        let doublings = self.schedule.unanswered.min(16);
        self.schedule.unanswered = self.schedule.unanswered.saturating_add(1);
        (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX)
    }

    /// Roles, cadences or the peer's wishes changed.
    pub(super) fn pace(&mut self, now: Time) {
        let wanted = self.wanted_interval();
        if wanted > self.schedule.interval {
            // A hello that is lost must not leave the peer waiting for the old rhythm.
            let hellos = self.cadence.multiplier;
            self.schedule.slowing.get_or_insert(hellos);
            return;
        }
        self.schedule.slowing = None;
        if wanted < self.schedule.interval {
            self.schedule.interval = wanted;
            if self.peer.is_some() {
                self.hurry(now);
            }
        }
    }

    /// What both ends want, the faster one, as far as either can take it.
    fn wanted_interval(&self) -> Duration {
        let mut wanted = self.own_interval();
        if let Some(peer) = self.peer.filter(|_| self.liveness.hears()) {
            wanted = wanted.min(peer.desired).max(peer.required);
        }
        wanted.max(self.least_interval())
    }

    fn own_interval(&self) -> Duration {
        match self.is_active() {
            true => self.cadence.active,
            false => self.cadence.idle,
        }
    }

    fn least_interval(&self) -> Duration {
        match self.profile.is_metered {
            true => self.cadence.active,
            false => INTERVAL_LEAST,
        }
    }

    fn announced_interval(&self) -> Duration {
        match self.schedule.slowing {
            Some(_) => self.wanted_interval(),
            None => self.schedule.interval,
        }
    }

    fn message(&self, kind: Kind, argument: u32, shared: &Shared, now: Time) -> Hello {
        let estimates = &self.estimates;
        let echo = self.peer.map(|peer| peer.echo);
        let us = |ns: f64| (ns / 1e3).round() as u32;
        Hello {
            kind,
            hears_you: self.liveness.hears(),
            is_suspect: self.liveness.misses_hellos(),
            is_draining: self.is_draining,
            is_metered: self.profile.is_metered,
            wants_answer: false,
            state: self.liveness.state(),
            reason: self.liveness.reason(),
            instance: self.instance,
            path: u16::from(self.index.0) + 1,
            your_path: self.peer.map_or(0, |peer| peer.path),
            sequence: estimates.departures.sequence(),
            desired_interval_ms: ms(self.own_interval()),
            required_interval_ms: ms(self.least_interval()),
            interval_ms: ms(self.announced_interval()),
            multiplier: self.cadence.multiplier,
            classes: self.classes,
            faults: shared.faults,
            sent_at_ns: now.0,
            echo_sequence: echo.map_or(0, |echo| echo.sequence),
            echo_sent_at_ns: echo.map_or(0, |echo| echo.sent_at_ns),
            echo_hold_us: echo.map_or(0, |echo| {
                u32::try_from(now.since(echo.came).as_micros()).unwrap_or(u32::MAX)
            }),
            jitter_us: estimates.rx_jitter.jitter_ns().map_or(0, us),
            deviation_us: us(estimates.rx_jitter.deviation_ns()),
            hellos_received: estimates.arrivals.came(),
            data_tx_packets: self.counters.tx_packets as u32,
            data_rx_packets: echo.map_or(0, |echo| echo.data_rx_packets),
            data_rx_bytes: echo.map_or(0, |echo| echo.data_rx_bytes),
            train_kbps: 0,
            argument,
        }
    }
}

/// 75 to 100 % of an interval, so that hellos of many paths do not fall together (RFC 5880 section 6.8.7).
fn spread(interval: Duration, dice: &mut Dice) -> Duration {
    interval.mul_f64(0.75 + 0.25 * dice.share())
}

fn ms(interval: Duration) -> u16 {
    u16::try_from(interval.as_millis()).unwrap_or(u16::MAX)
}
