//! One measured path: when it sends, what it makes of what comes.
//!
//! Owns the estimators, the liveness and the searches of one path. Does not know the other paths; what concerns them
//! comes in as [`Shared`].

mod receive;
mod report;
mod send;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::estimate::{
    Arrivals, DataLoss, Departures, Jitter, OneWay, Passive, RateMeter, RoundTrip, TrainMeter,
};
use crate::ids::PathIndex;
use crate::liveness::{Liveness, Rhythm};
use crate::message::Hello;
use crate::metrics::{PathState, StateReason};
use crate::mtu::{Conditions, MtuSearch};
use crate::observation::{Direction, Observation, PathProfile};
use crate::outbox::Outbox;
use crate::prober::{Arrival, Cadence, PathCounters, UPLINK_ANY};
use crate::time::Time;
use crate::train::Trains;

/// Whatever anybody wants, hellos are at least so far apart, answers and bursts aside.
const INTERVAL_LEAST: Duration = Duration::from_millis(10);
/// Between two answers.
const ANSWER_SPACING: Duration = Duration::from_millis(5);
/// Hellos of a burst on a suspect path, and their distance.
const BURST: u8 = 3;
const BURST_SPACING: Duration = Duration::from_millis(10);
/// Missing hellos of a path that was down: as many as it took to see that, no more.
const OUTAGE_LOSSES_MAX: u32 = 10;
/// A learnt path that was down for so long is gone.
const LEARNT_KEEP: Duration = Duration::from_secs(600);
/// Echoes that lay longer are no measure: clocks drift.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// What paths to one peer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The peer has answered a hello.
    pub(crate) is_answered: bool,
    /// The peer's paths that are broken at our end.
    pub(crate) faults: u16,
    pub(crate) inner_mtu: u16,
}

/// One path.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    index: PathIndex,
    /// Names this run and this path: all numbers begin anew with another one.
    instance: u32,
    pub(crate) uplink: u8,
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    /// As configured; `None` for a learnt one.
    pub(crate) configured: Option<SocketAddr>,
    pub(crate) profile: PathProfile,
    cadence: Cadence,
    rx_capacity_bps: Option<f64>,
    moves: u32,
    restarts: u32,

    classes: u8,
    is_standby: bool,
    /// Nothing is carried: nobody waits for a quick answer.
    is_quiet: bool,
    is_draining: bool,

    peer: Option<Peer>,
    /// The peer drains the path, as far as the selector was told.
    peer_drains: bool,
    liveness: Liveness,
    schedule: Schedule,
    mtu: MtuSearch,
    trains: Trains,
    estimates: Estimates,
    counters: PathCounters,
    metrics_at: Time,
}

/// What the peer said of itself, on this path.
#[derive(Clone, Copy, Debug)]
struct Peer {
    instance: u32,
    /// Its number of the path, plus one.
    path: u16,
    desired: Duration,
    required: Duration,
    classes: u8,
    /// The newest of our hellos that it heard; zero for none.
    heard: u32,
    echo: Echo,
}

/// The newest hello of the peer.
#[derive(Clone, Copy, Debug)]
struct Echo {
    sequence: u32,
    sent_at_ns: u64,
    came: Time,
    data_rx_packets: u32,
    data_rx_bytes: u64,
}

/// When the next messages leave.
#[derive(Clone, Debug)]
struct Schedule {
    /// Between hellos at present.
    interval: Duration,
    /// A slower one, and how many hellos are left to announce it.
    slowing: Option<u8>,
    next: Time,
    /// The next hello says something new: data cannot stand in for it.
    is_news: bool,
    /// The next hello asks for one back.
    wants_answer: bool,
    answered: Option<Time>,
    burst: Option<(Time, u8)>,
    mtu_reply: Option<u32>,
    /// Hellos that data stood in for.
    skipped: u8,
    data_tx_packets: u64,
    /// Hellos without any answer.
    unanswered: u32,
}

#[derive(Clone, Debug)]
struct Estimates {
    arrivals: Arrivals,
    departures: Departures,
    round_trip: RoundTrip,
    one_way: OneWay,
    rx_jitter: Jitter,
    tx_jitter_ns: Option<f64>,
    tx_data: DataLoss,
    rx_data: DataLoss,
    tx_rate: RateMeter,
    rx_rate: RateMeter,
    tx_passive: Passive,
    rx_passive: Passive,
    rx_train: TrainMeter,
    /// The echo that gave the last round trip.
    sampled: u32,
}

impl Estimates {
    fn new() -> Self {
        Self {
            arrivals: Arrivals::new(),
            departures: Departures::new(),
            round_trip: RoundTrip::new(),
            one_way: OneWay::new(),
            rx_jitter: Jitter::default(),
            tx_jitter_ns: None,
            tx_data: DataLoss::default(),
            rx_data: DataLoss::default(),
            tx_rate: RateMeter::default(),
            rx_rate: RateMeter::default(),
            tx_passive: Passive::default(),
            rx_passive: Passive::default(),
            rx_train: TrainMeter::default(),
            sampled: 0,
        }
    }
}

/// How a path begins.
pub(crate) struct Origin {
    pub(crate) instance: u32,
    pub(crate) uplink: u8,
    pub(crate) remote: SocketAddr,
    pub(crate) is_configured: bool,
    pub(crate) profile: PathProfile,
    pub(crate) cadence: Cadence,
    pub(crate) rx_capacity_bps: Option<f64>,
    pub(crate) inner_mtu: u16,
    pub(crate) fault: Option<StateReason>,
}

impl Path {
    pub(crate) fn new(index: PathIndex, origin: Origin, now: Time) -> Self {
        let cadence = checked(origin.cadence);
        let rhythm = Rhythm {
            interval: cadence.idle,
            multiplier: cadence.multiplier,
        };
        let mut path = Self {
            index,
            instance: origin.instance,
            uplink: origin.uplink,
            remote: origin.remote,
            local: None,
            configured: origin.is_configured.then_some(origin.remote),
            profile: with_remote(origin.profile, &origin.remote),
            cadence,
            rx_capacity_bps: origin.rx_capacity_bps,
            moves: 0,
            restarts: 0,
            classes: 0,
            is_standby: false,
            is_quiet: false,
            is_draining: false,
            peer: None,
            peer_drains: false,
            liveness: Liveness::new(rhythm, now),
            schedule: Schedule {
                interval: cadence.idle,
                slowing: None,
                next: now,
                is_news: false,
                wants_answer: false,
                answered: None,
                burst: None,
                mtu_reply: None,
                skipped: 0,
                data_tx_packets: 0,
                unanswered: 0,
            },
            mtu: MtuSearch::new(origin.inner_mtu),
            trains: Trains::new(),
            estimates: Estimates::new(),
            counters: PathCounters::default(),
            metrics_at: now,
        };
        if origin.fault.is_some() {
            path.liveness.set_fault(origin.fault, 1);
            path.liveness.settle(now);
        }
        path
    }

    /// Takes what the configuration says; whether operators see a difference.
    pub(crate) fn reconfigure(&mut self, origin: Origin, now: Time) -> bool {
        if origin.is_configured {
            self.configured = Some(origin.remote);
        }
        self.cadence = checked(origin.cadence);
        self.rx_capacity_bps = origin.rx_capacity_bps;
        self.mtu.set_full(origin.inner_mtu);
        self.pace(now);
        let profile = with_remote(origin.profile, &self.remote);
        let is_changed = self.profile != profile;
        self.profile = profile;
        is_changed
    }

    pub(crate) fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    pub(crate) fn mtu_holes(&self) -> u32 {
        self.mtu.holes()
    }

    /// The peer's number of this path, as a bit.
    pub(crate) fn peer_bit(&self) -> u16 {
        match self.peer_path() {
            path @ 1..=16 => 1 << (path - 1),
            _ => 0,
        }
    }

    /// The peer's number of this path, plus one; zero until learnt.
    pub(crate) fn peer_path(&self) -> u16 {
        self.peer.map_or(0, |peer| peer.path)
    }

    /// Whether a hello is of the same run and path of the peer as those that came here.
    pub(crate) fn has_peer(&self, hello: &Hello) -> bool {
        self.peer
            .is_some_and(|peer| peer.instance == hello.instance && peer.path == hello.path)
    }

    /// Whether what comes on that uplink may belong to this path.
    pub(crate) fn is_on(&self, uplink: u8) -> bool {
        self.uplink == uplink || self.uplink == UPLINK_ANY
    }

    /// Whether a hello comes from the configured address of this path, whose far end had moved and is silent there, or
    /// began anew.
    pub(crate) fn is_home_of(&self, arrival: &Arrival, hello: &Hello) -> bool {
        let home = self.configured.as_ref();
        let is_home = home.is_some_and(|home| is_same_end(home, &arrival.remote));
        let is_same_run = |peer: Peer| peer.instance >> 16 == hello.instance >> 16;
        is_home
            && self.is_on(arrival.uplink)
            && !(self.liveness.hears() && self.peer.is_some_and(is_same_run))
    }

    /// Where this path would go if it began anew, if that is elsewhere.
    pub(crate) fn lost_home(&self) -> Option<Arrival> {
        let home = self.configured?;
        let is_lost = !self.liveness.hears() && !is_same_end(&home, &self.remote);
        is_lost.then_some(Arrival {
            uplink: self.uplink,
            remote: home,
            local: None,
        })
    }

    /// Whether a hello is newer than all that came here.
    pub(crate) fn is_newest(&self, hello: &Hello) -> bool {
        self.estimates.arrivals.is_newer(hello.sequence)
    }

    /// Whether the peer has heard a hello of this very path, and says so for the first time or with a newer hello.
    pub(crate) fn is_answered_by(&self, hello: &Hello) -> bool {
        let sent = self.estimates.departures.sent(hello.echo_sequence);
        let is_news = match self.peer {
            Some(peer) if peer.instance == hello.instance => {
                self.estimates.arrivals.is_newer(hello.sequence)
            }
            Some(_) | None => true,
        };
        is_news && sent.is_some_and(|sent| sent.at.0 == hello.echo_sent_at_ns)
    }

    /// Whether that message is of a second path of the peer to the same ends: one of them is enough, and it is the one on
    /// which the peer hears us.
    pub(crate) fn is_another_path(&self, hello: &Hello, now: Time) -> bool {
        let patience = self.liveness.rhythm().interval * 3;
        self.peer.is_some_and(|peer| {
            let is_newer_echo = hello.echo_sequence.wrapping_sub(peer.heard) as i32 > 0;
            peer.instance >> 16 == hello.instance >> 16
                && peer.path != hello.path
                && now.since(peer.echo.came) <= patience
                && !(is_newer_echo && self.is_answered_by(hello))
        })
    }

    /// The peer's end of the path is elsewhere: a NAT on the way forgot it, or the peer moved.
    pub(crate) fn follow(&mut self, arrival: &Arrival) {
        self.remote = arrival.remote;
        self.profile.remote = Some(self.remote.ip().to_canonical());
        self.moves += 1;
    }

    /// A learnt path that nobody uses any more.
    pub(crate) fn is_stale(&self, now: Time) -> bool {
        self.configured.is_none()
            && !matches!(
                self.liveness.state(),
                PathState::Up | PathState::Suspect | PathState::Init
            )
            && now.since(self.liveness.since()) >= LEARNT_KEEP
    }

    pub(crate) fn set_roles(&mut self, classes: u8, is_standby: bool, now: Time) {
        if (self.classes, self.is_standby) == (classes, is_standby) {
            return;
        }
        let is_news = self.classes != classes;
        (self.classes, self.is_standby) = (classes, is_standby);
        self.pace(now);
        self.mtu.hasten(&self.conditions(now), now);
        if is_news && self.liveness.hears() {
            // So that both ends agree on who uses what.
            self.hurry(now);
        }
    }

    pub(crate) fn set_quiet(&mut self, is_quiet: bool, now: Time) {
        if self.is_quiet != is_quiet {
            self.is_quiet = is_quiet;
            self.pace(now);
            self.mtu.hasten(&self.conditions(now), now);
        }
    }

    pub(crate) fn set_draining(&mut self, is_draining: bool, now: Time) {
        self.is_draining = is_draining;
        self.hurry(now);
    }

    pub(crate) fn hold(&mut self, is_held: bool, now: Time, outbox: &mut Outbox) {
        self.liveness.hold(is_held);
        self.settle(now, outbox);
    }

    pub(crate) fn set_fault(&mut self, fault: Option<StateReason>, now: Time, outbox: &mut Outbox) {
        let next = self.estimates.departures.sequence().wrapping_add(1);
        self.liveness.set_fault(fault, next.max(1));
        self.hurry(now);
        self.settle(now, outbox);
    }

    pub(crate) fn refuse(&mut self, now: Time, outbox: &mut Outbox) {
        let next = self.estimates.departures.sequence().wrapping_add(1);
        self.liveness.refuse(next.max(1));
        self.settle(now, outbox);
    }

    pub(crate) fn set_peer_is_broken(&mut self, is_broken: bool, now: Time, outbox: &mut Outbox) {
        self.liveness.set_peer_is_broken(is_broken);
        self.settle(now, outbox);
    }

    pub(crate) fn refuse_as_too_big(&mut self, now: Time) {
        self.mtu.refuse(&self.conditions(now), now);
    }

    pub(crate) fn measure_bandwidth(&mut self, now: Time) {
        if !self.profile.is_metered && self.liveness.state() == PathState::Up {
            self.trains.begin(now);
        }
    }

    pub(crate) fn ping(&mut self, now: Time) {
        self.hurry(now);
        self.schedule.wants_answer = true;
    }

    /// A session began: who did not answer may answer from here on.
    pub(crate) fn session_began(&mut self, is_silent: bool, now: Time) {
        self.schedule.unanswered = match is_silent {
            true => 2,
            false => 0,
        };
        self.hurry(now);
    }

    pub(crate) fn set_counters(&mut self, counters: PathCounters, now: Time, outbox: &mut Outbox) {
        let before = std::mem::replace(&mut self.counters, counters);
        let estimates = &mut self.estimates;
        estimates.tx_rate.add(counters.tx_bytes, now);
        estimates.rx_rate.add(counters.rx_bytes, now);
        let sent = counters.tx_bytes.saturating_sub(before.tx_bytes);
        self.trains.earn(sent);
        let is_full = self.is_queueing(self.estimates.one_way.queueing_ns(), now);
        let rx_passive = &mut self.estimates.rx_passive;
        rx_passive.add(counters.rx_bytes, now.0, is_full, now);
        // Of a stock peer only its data is heard: that is no path that works both ways.
        if counters.rx_packets > before.rx_packets && self.peer.is_some() {
            self.liveness.hear(now);
            self.settle(now, outbox);
        }
    }

    /// The next hello leaves at once.
    pub(crate) fn hurry(&mut self, now: Time) {
        self.schedule.next = now;
        self.schedule.is_news = true;
    }

    /// This side was late by that much.
    pub(crate) fn extend(&mut self, overrun: Duration, now: Time) -> bool {
        let is_late = overrun > self.liveness.rhythm().interval && self.liveness.hears();
        if is_late {
            self.liveness.extend(overrun, now);
        }
        is_late
    }

    /// What was due first of what a late host delays.
    pub(crate) fn vital_deadline(&self) -> Option<Time> {
        let next = (!self.liveness.has_fault()).then_some(self.schedule.next);
        let vital = [self.liveness.deadline(), next];
        vital.into_iter().flatten().min()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let burst = self.schedule.burst.map(|(at, _)| at);
        let is_sending = !self.liveness.has_fault();
        let stale = self.configured.is_none() && !self.liveness.hears();
        let others = [
            burst.filter(|_| is_sending),
            self.estimates.arrivals.next_expiry(),
            self.mtu.deadline().filter(|_| is_sending),
            self.trains.deadline().filter(|_| is_sending),
            stale.then_some(self.liveness.since() + LEARNT_KEEP),
            self.vital_deadline(),
        ];
        others.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time, outbox: &mut Outbox) {
        let fates = self.estimates.arrivals.expire(now);
        outbox.fates(self.index, Direction::Rx, fates);
        let (missed, heard) = (self.liveness.misses_hellos(), self.liveness.hears());
        self.liveness.expire(now);
        if self.liveness.misses_hellos() && !missed {
            self.schedule.burst = Some((now, BURST));
        }
        if heard && !self.liveness.hears() {
            // What the peer wishes does not count any more.
            self.pace(now);
        }
        self.settle(now, outbox);
    }

    /// Tells a change of state, to the selector and to the peer.
    fn settle(&mut self, now: Time, outbox: &mut Outbox) {
        let Some((state, reason)) = self.liveness.settle(now) else {
            return;
        };
        outbox.push(Observation::State(self.index, state, reason));
        self.hurry(now);
        match state {
            PathState::Up => {
                self.schedule.burst = None;
                if self.profile.capacity_bps.is_none() && !self.profile.is_metered {
                    self.trains.schedule(now);
                }
            }
            PathState::Init => self.schedule.wants_answer = true,
            PathState::Suspect => {}
            PathState::Down | PathState::AdminDown => {
                self.schedule.burst = None;
                self.trains.stop();
                self.estimates.rx_jitter.pause();
            }
        }
        self.pace(now);
    }

    fn is_active(&self) -> bool {
        !self.is_quiet && (self.classes != 0 || self.is_standby)
    }

    fn is_up(&self) -> bool {
        self.liveness.state() == PathState::Up
    }

    /// Whether such a queue means that the path is full.
    fn is_queueing(&self, queueing_ns: Option<f64>, now: Time) -> bool {
        let least = self.estimates.round_trip.least_ns(now);
        match (queueing_ns, least) {
            (Some(queueing), Some(least)) => queueing > (0.5 * least).max(10e6),
            _ => false,
        }
    }

    fn conditions(&self, now: Time) -> Conditions {
        let patience = self.estimates.round_trip.patience();
        let patience = patience.unwrap_or(Duration::from_millis(500)) + Duration::from_millis(10);
        let share = |windows: &crate::estimate::Windows| windows.shares(now).ten_s.unwrap_or(0.0);
        let passing = (1.0 - share(&self.estimates.arrivals.windows))
            * (1.0 - share(&self.estimates.departures.windows));
        // As many as are lost by chance once in a million.
        let tries = match 1.0 - passing {
            lost if lost <= 0.01 => 3,
            lost if lost < 0.9 => ((1e-6_f64).ln() / lost.ln()).ceil() as u8,
            _ => 20,
        };
        Conditions {
            is_up: self.is_up(),
            is_active: self.is_active(),
            is_metered: self.profile.is_metered,
            patience,
            tries: tries.clamp(3, 20),
        }
    }
}

/// Address and port; not a flow label, which IPv6 may change.
pub(crate) fn is_same_end(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

/// A profile that says where the path leads.
fn with_remote(profile: PathProfile, remote: &SocketAddr) -> PathProfile {
    PathProfile {
        remote: Some(remote.ip().to_canonical()),
        ..profile
    }
}

/// A cadence that can be kept.
fn checked(cadence: Cadence) -> Cadence {
    let longest = Duration::from_secs(60);
    Cadence {
        active: cadence.active.clamp(INTERVAL_LEAST, longest),
        idle: cadence.idle.clamp(INTERVAL_LEAST, longest),
        multiplier: cadence.multiplier.max(1),
    }
}
