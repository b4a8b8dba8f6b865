//! What comes on a path, and what it says.

use std::time::Duration;

use super::{ANSWER_SPACING, Echo, HOLD_MAX, INTERVAL_LEAST, OUTAGE_LOSSES_MAX, Path, Peer};
use crate::liveness::{Rhythm, Said};
use crate::message::{Hello, Kind};
use crate::metrics::PathState;
use crate::mtu::outer_len;
use crate::observation::{Command, Direction, Observation};
use crate::outbox::Outbox;
use crate::prober::Arrival;
use crate::time::Time;
use crate::train::Wagon;

/// A sequence that far behind the newest one is no late hello but a sender that counts anew.
const LAG_MAX: u32 = 1024;

impl Path {
    /// A message came in a plaintext of `len` bytes. Whether it is the newest hello of this path.
    pub(crate) fn receive(
        &mut self,
        arrival: &Arrival,
        hello: &Hello,
        len: usize,
        now: Time,
        outbox: &mut Outbox,
    ) -> bool {
        self.local = arrival.local.or(self.local);
        let is_newest = match hello.kind {
            Kind::Hello => self.receive_hello(hello, now, outbox),
            Kind::Train => {
                let wagon = Wagon::from_argument(hello.argument);
                let bytes = outer_len(u16::try_from(len).unwrap_or(u16::MAX), &self.remote);
                let meter = &mut self.estimates.rx_train;
                meter.add(wagon, usize::from(bytes), now);
                false
            }
            Kind::MtuProbe => {
                self.schedule.mtu_reply = u32::try_from(len).ok();
                false
            }
            Kind::MtuReply => {
                let conditions = self.conditions(now);
                if let Ok(len) = u16::try_from(hello.argument) {
                    self.mtu.pass(len, &conditions, now);
                }
                false
            }
            Kind::Lane => false,
        };
        if self.peer.is_some() {
            self.liveness.hear(now);
        }
        self.settle(now, outbox);
        is_newest
    }

    fn receive_hello(&mut self, hello: &Hello, now: Time, outbox: &mut Outbox) -> bool {
        if self.is_restart(hello) {
            self.restart(now);
        }
        let was_deaf = !self.liveness.hears();
        let is_newest = self.estimates.arrivals.is_newer(hello.sequence);
        let most = match was_deaf {
            true => OUTAGE_LOSSES_MAX,
            false => LAG_MAX,
        };
        let patience = self.patience(self.liveness.rhythm().interval);
        let arrivals = &mut self.estimates.arrivals;
        let fates = arrivals.add(hello.sequence, patience, most, now);
        outbox.fates(self.index, Direction::Rx, fates);
        // One that was overtaken tells of delay too, and most of it where delays vary most (RFC 3550: "in order of
        // arrival").
        self.measure_delay(hello, was_deaf, now, outbox);
        if !is_newest {
            return false;
        }
        // An echo of what a former run of ours sent, or another path, says nothing.
        let echo = (hello.echo_sequence, hello.echo_sent_at_ns);
        let is_echo = self.estimates.departures.has_sent(echo.0, echo.1);
        if is_echo {
            self.measure_echo(hello, most, now, outbox);
        }
        self.measure_rx_data(hello, now, outbox);
        let before = self.peer;
        self.note_peer(hello, is_echo, now);
        self.tell_peer(before, hello, outbox);
        self.liveness.listen(Said {
            hears_us: hello.hears_you && is_echo,
            suspects: hello.is_suspect,
            is_held: hello.state == PathState::AdminDown,
            echo: match is_echo {
                true => hello.echo_sequence,
                false => 0,
            },
            rhythm: Rhythm {
                interval: duration_ms(hello.interval_ms).max(INTERVAL_LEAST),
                multiplier: hello.multiplier,
            },
        });
        let jitter_ns = self.estimates.rx_jitter.jitter_ns().unwrap_or(0.0);
        self.liveness
            .set_slack(Duration::from_nanos((4.0 * jitter_ns) as u64));
        self.pace(now);
        if hello.wants_answer {
            self.answer(now);
        }
        let (number, kbps) = (hello.argument as u8, hello.train_kbps);
        self.trains.hear(number, kbps, now);
        true
    }

    /// Whether the peer counts anew: it restarted, or gave the path another number.
    fn is_restart(&self, hello: &Hello) -> bool {
        self.peer.is_some_and(|peer| {
            let lag = self.estimates.arrivals.lag(hello.sequence);
            let has_forgotten = lag > 0 && peer.heard != 0 && hello.echo_sequence == 0;
            peer.instance != hello.instance
                || peer.path != hello.path
                || lag > LAG_MAX
                || has_forgotten
        })
    }

    fn restart(&mut self, now: Time) {
        self.restarts += 1;
        self.peer = None;
        let estimates = &mut self.estimates;
        estimates.arrivals.restart();
        estimates.departures.restart();
        estimates.rx_jitter.pause();
        estimates.one_way = crate::estimate::OneWay::new();
        estimates.tx_data.restart();
        estimates.rx_data.restart();
        self.liveness.peer_restarted(now);
        self.hurry(now);
        self.schedule.wants_answer = true;
    }

    fn measure_delay(&mut self, hello: &Hello, was_deaf: bool, now: Time, outbox: &mut Outbox) {
        let estimates = &mut self.estimates;
        if was_deaf {
            estimates.rx_jitter.pause();
        }
        estimates.one_way.add(hello.sent_at_ns, now);
        if let Some(ns) = estimates.rx_jitter.add(hello.sent_at_ns, now) {
            outbox.push(Observation::Deviation(self.index, Direction::Rx, ns));
        }
    }

    /// What the peer's echo says about the way there and back.
    fn measure_echo(&mut self, hello: &Hello, most: u32, now: Time, outbox: &mut Outbox) {
        let estimates = &mut self.estimates;
        let patience = self.schedule.interval * 3;
        let patience = estimates
            .round_trip
            .patience()
            .map_or(patience, |rtt| rtt.max(patience));
        let echo = hello.echo_sequence;
        let fates = estimates
            .departures
            .settle(echo, hello.hellos_received, patience, most, now);
        outbox.fates(self.index, Direction::Tx, fates);
        let Some(sent) = estimates.departures.sent(echo).copied() else {
            return;
        };
        if estimates.sampled == echo {
            return;
        }
        estimates.sampled = echo;
        estimates.tx_jitter_ns = Some(f64::from(hello.jitter_us) * 1e3);
        let deviation_ns = f64::from(hello.deviation_us) * 1e3;
        outbox.push(Observation::Deviation(
            self.index,
            Direction::Tx,
            deviation_ns,
        ));
        let hold = Duration::from_micros(u64::from(hello.echo_hold_us));
        if hold <= HOLD_MAX {
            let rtt_ns = now.since(sent.at).saturating_sub(hold).as_nanos() as f64;
            estimates.round_trip.add(rtt_ns, now);
            outbox.push(Observation::Rtt(self.index, rtt_ns));
        }
        let (sent, received) = (sent.data_tx_packets, hello.data_rx_packets);
        if let Some(data) = estimates.tx_data.add(sent, received, now) {
            outbox.push(Observation::Data(
                self.index,
                Direction::Tx,
                data.sent,
                data.lost,
            ));
        }
        if estimates.tx_data.smells_of_hole() {
            self.mtu.suspect(self.profile.is_metered, now);
        }
        self.measure_tx_capacity(hello, now);
    }

    fn measure_tx_capacity(&mut self, hello: &Hello, now: Time) {
        let both = self.estimates.round_trip.queueing_ns(now);
        let towards_us = self.estimates.one_way.queueing_ns();
        let towards_peer = both.zip(towards_us).map(|(both, rx)| both - rx);
        let is_full = self.is_queueing(towards_peer, now);
        let hold_ns = u64::from(hello.echo_hold_us) * 1000;
        let counted_at_ns = hello.sent_at_ns.saturating_sub(hold_ns);
        let tx_passive = &mut self.estimates.tx_passive;
        tx_passive.add(hello.data_rx_bytes, counted_at_ns, is_full, now);
    }

    fn measure_rx_data(&mut self, hello: &Hello, now: Time, outbox: &mut Outbox) {
        let received = self.counters.rx_packets as u32;
        let rx_data = &mut self.estimates.rx_data;
        if let Some(data) = rx_data.add(hello.data_tx_packets, received, now) {
            outbox.push(Observation::Data(
                self.index,
                Direction::Rx,
                data.sent,
                data.lost,
            ));
        }
    }

    fn note_peer(&mut self, hello: &Hello, is_echo: bool, now: Time) {
        self.peer = Some(Peer {
            instance: hello.instance,
            path: hello.path,
            desired: duration_ms(hello.desired_interval_ms).max(INTERVAL_LEAST),
            required: duration_ms(hello.required_interval_ms),
            classes: hello.classes,
            heard: match is_echo {
                true => hello.echo_sequence,
                false => 0,
            },
            echo: Echo {
                sequence: hello.sequence,
                sent_at_ns: hello.sent_at_ns,
                came: now,
                data_rx_packets: self.counters.rx_packets as u32,
                data_rx_bytes: self.counters.rx_bytes,
            },
        });
    }

    /// What the peer decided about the path is the selector's business.
    fn tell_peer(&mut self, before: Option<Peer>, hello: &Hello, outbox: &mut Outbox) {
        let drained = std::mem::replace(&mut self.peer_drains, hello.is_draining);
        if hello.is_draining && !drained {
            outbox.push(Observation::Command(Command::Drain(self.index)));
        } else if drained && !hello.is_draining && !self.is_draining {
            outbox.push(Observation::Command(Command::Undrain(self.index)));
        }
        let newly_used = hello.classes & !before.map_or(0, |peer| peer.classes);
        for class in (0..8).filter(|class| newly_used >> class & 1 == 1) {
            let class = crate::ids::ClassId(class);
            outbox.push(Observation::PeerChoice(class, self.index));
        }
    }

    /// A hello goes back at once, but not more often than every few milliseconds.
    fn answer(&mut self, now: Time) {
        let earliest = self
            .schedule
            .answered
            .map_or(now, |at| (at + ANSWER_SPACING).max(now));
        self.schedule.answered = Some(earliest);
        self.schedule.next = self.schedule.next.min(earliest);
        self.schedule.is_news = true;
    }

    /// What is not heard of for so long is lost.
    fn patience(&self, interval: Duration) -> Duration {
        let round_trip = self.estimates.round_trip.patience();
        (interval * 3).max(round_trip.unwrap_or_default())
    }
}

fn duration_ms(ms: u16) -> Duration {
    Duration::from_millis(u64::from(ms))
}
