//! One packet worker: a pinned thread that moves packets between its TUN queue, its sockets and its engine.
//!
//! A turn reads what waits at every door, in bounded batches, and drains the engine after each. When a turn
//! finds nothing, the worker spins for a moment and then sleeps until a door, a sibling, control or a timer
//! wakes it. Readiness is edge-triggered, so it never sleeps before every door said that nothing waits.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::Cache;
use patronus_engine::{Counters, DropReason, Engine, Handoff, PathOrder};
use patronus_io::{
    Core, Next, Poller, SendFailure, SpinThenSleep, Token, TunFault, TunOffload, TunQueue,
    UplinkSet, Way, pin_current_thread,
};
use patronus_packet::batch::{Joining, TrainLimits, TunBatch, TunWrite, UdpBatch};
use patronus_packet::{Cutter, Padding, TunFrame, UdpFrame, UplinkId, parse};
use patronus_path::StateReason;
use patronus_tunnel::WorkerId;

use crate::exchange::{EventSink, Exchange, Order};
use crate::meter::TurnClock;
use crate::sockets::{Sockets, shorter};

/// Trains read from a socket in one turn: up to a quarter of a megabyte. Short turns, for whoever else
/// talks to this worker waits for the end of one.
const UDP_FRAMES: usize = 4;
/// Frames read from the TUN in one turn, so that packets that come one by one still leave as a train ...
const TUN_FRAMES: usize = 64;
/// ... and the bytes that end the turn: as many as the sockets' frames hold.
const TUN_TURN_BYTES: usize = UDP_FRAMES << 16;
/// Packets taken from siblings in one turn.
const HANDOFFS_PER_TURN: usize = 16;
/// Batches read from a door that is given up; what a flood brings beyond that is lost with it.
const LAST_TURNS_MAX: usize = 256;
/// A TUN queue stays attached this long after the last tunnel here went, so that a peer that comes and goes with
/// reloads costs no packet.
const DETACH_AFTER: Duration = Duration::from_secs(5);
/// The longest sleep; a lost wake-up would cost no more.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Send calls of one drain; more would be a circle.
const SENDS_PER_DRAIN_MAX: usize = 16;
/// Refused endpoints of one batch that the engine learns of at once.
const REFUSALS_MAX: usize = 8;
/// A worker that panics more often than this per second is beyond help.
const PANICS_PER_S_MAX: u32 = 100;

const TUN: Token = Token(0);
/// The first door's to the WAN; the others follow.
const UDP: Token = Token(1);

/// Everything a worker needs to begin.
pub struct WorkerSeed {
    /// Its engine.
    pub engine: Engine,
    /// Its TUN queue.
    pub tun: Box<dyn TunQueue>,
    /// Its sockets.
    pub sockets: Sockets,
    /// What it sleeps on; the exchange has its waker.
    pub poller: Poller,
    /// The core to pin to.
    pub core: Option<Core>,
    /// How long it spins before it sleeps.
    pub spin: Duration,
    /// The interface of each uplink.
    pub uplinks: Arc<[(UplinkId, Way)]>,
    /// What it shares with the others.
    pub exchange: Arc<Exchange>,
    /// Where events go.
    pub events: EventSink,
}

/// A running worker.
struct Worker {
    engine: Engine,
    tun: Box<dyn TunQueue>,
    sockets: Sockets,
    poller: Poller,
    exchange: Arc<Exchange>,
    events: EventSink,
    idle: SpinThenSleep,
    clock: TurnClock,
    truncated_seen: u64,
    tun_errors_logged: u64,
    tun_attached: bool,
    /// Since when there is nothing here that could seal what the TUN queue brings.
    tun_unwanted_since: Option<Instant>,
    /// By token: whether the door may have something to read.
    ready: Vec<bool>,
    /// The interface of each uplink, for sockets that come later.
    uplinks: Arc<[(UplinkId, Way)]>,
    /// Uplinks whose refusal the engine knows of, until control says that they work.
    refused: UplinkSet,
}

/// Starts the worker's thread; it ends with its final counters when the exchange stops.
///
/// # Errors
/// When the thread cannot be made.
pub fn spawn(seed: WorkerSeed) -> io::Result<std::thread::JoinHandle<Counters>> {
    let name = format!("worker-{}", seed.engine.worker().0);
    std::thread::Builder::new()
        .name(name)
        .spawn(move || run(seed))
}

fn run(seed: WorkerSeed) -> Counters {
    let id = seed.engine.worker();
    if let Some(core) = seed.core {
        let pinning = pin_current_thread(core);
        tracing::info!(worker = id.0, "{pinning}");
    }
    let mut worker = Worker {
        engine: seed.engine,
        tun: seed.tun,
        sockets: seed.sockets,
        poller: seed.poller,
        exchange: seed.exchange,
        events: seed.events,
        idle: SpinThenSleep::new(seed.spin),
        clock: TurnClock::new(Instant::now()),
        truncated_seen: 0,
        tun_errors_logged: 0,
        tun_attached: true,
        tun_unwanted_since: None,
        ready: Vec::new(),
        uplinks: seed.uplinks,
        refused: UplinkSet::default(),
    };
    let _end = End(worker.exchange.clone(), id);
    worker.set_uplinks();
    worker.register_doors();
    // Nothing waits in the queue yet.
    worker.set_tun_attached(worker.wants_tun());
    let (mut window, mut panics) = (Instant::now(), 0);
    // A panic costs the batch it happened in; tunnels, flows and counters live on.
    while catch_unwind(AssertUnwindSafe(|| worker.serve())).is_err() {
        worker.engine.recover();
        worker.ready.fill(true);
        worker
            .exchange
            .mailbox(id)
            .panics
            .fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            worker = id.0,
            "the worker panicked, dropped its batch and goes on"
        );
        if window.elapsed() > Duration::from_secs(1) {
            (window, panics) = (Instant::now(), 0);
        }
        panics += 1;
        if panics > PANICS_PER_S_MAX {
            tracing::error!(
                worker = id.0,
                "the worker panics without end and stops; restart the gateway"
            );
            break;
        }
    }
    worker.finish()
}

/// Says that a worker has ended, however it did.
struct End(Arc<Exchange>, WorkerId);

impl Drop for End {
    fn drop(&mut self) {
        self.0.mailbox(self.1).meter.set_ended();
    }
}

/// Buffers for one batch.
fn frames<F: Default>(count: usize) -> Vec<F> {
    std::iter::repeat_with(F::default).take(count).collect()
}

impl Worker {
    fn register_doors(&mut self) {
        let tun = self.poller.register(self.tun.as_fd(), TUN);
        self.report_register("TUN queue", tun);
        self.register_sockets();
    }

    fn register_sockets(&mut self) {
        for (at, fd) in self.sockets.fds().enumerate() {
            let registered = self.poller.register(fd, Token(UDP.0 + at));
            self.report_register("uplink", registered);
        }
        self.ready = vec![true; UDP.0 + self.sockets.count()];
    }

    /// A door that cannot be registered is still read every [`SLEEP_MAX`].
    fn report_register(&self, door: &str, registered: io::Result<()>) {
        if let Err(error) = registered {
            tracing::error!(worker = self.id().0, %error, "cannot watch the {door}: it is read once a second");
        }
    }

    fn id(&self) -> WorkerId {
        self.engine.worker()
    }

    /// Turns until the exchange stops.
    fn serve(&mut self) {
        let exchange = self.exchange.clone();
        let mut snapshot = Cache::new(exchange.snapshot());
        let mailbox = exchange.mailbox(self.id());
        // Here and not in the worker: a panic takes them along, and the next call makes new ones.
        let (mut tun_frames, mut udp_frames) = (frames(TUN_FRAMES), frames(UDP_FRAMES));
        while !exchange.is_stopping() {
            // The one look at the clock for everything in this turn.
            let now = Instant::now();
            self.clock.turn(&mailbox.meter, now);
            self.clock
                .tell_stages(&mailbox.meter, &mut self.engine, now);
            let newest = snapshot.load();
            if newest.generation() != self.engine.snapshot().generation() {
                self.engine.handle_snapshot(newest.clone(), now);
                self.drain();
            }
            mailbox
                .meter
                .set_generation(self.engine.snapshot().generation());
            while let Some(order) = mailbox.take_order() {
                self.obey(order, &mut udp_frames, now);
            }
            while let Some(buffer) = mailbox.take_returned() {
                self.engine.recycle(buffer);
            }
            self.attach_tun(&mut tun_frames, now);
            self.look(Duration::ZERO);
            let mut worked = self.tun_turn(&mut tun_frames, now);
            worked |= self.udp_turn(&mut udp_frames, now);
            worked |= self.handoff_turn(now);
            if self.engine.poll_timeout().is_some_and(|at| at <= now) {
                self.engine.handle_timeout(now);
                self.drain();
                self.clock.worked();
            }
            if worked {
                self.idle.worked();
                self.clock.worked();
                continue;
            }
            match self.idle.idle(now) {
                Next::Spin => std::hint::spin_loop(),
                Next::Sleep => self.sleep(now),
            }
        }
    }

    fn sleep(&mut self, now: Instant) {
        let due = self
            .engine
            .poll_timeout()
            .map(|at| at.saturating_duration_since(now));
        let timeout = due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
        let exchange = self.exchange.clone();
        let mailbox = exchange.mailbox(self.id());
        if !mailbox.may_sleep() {
            return;
        }
        self.clock.sleep(&mailbox.meter, Instant::now());
        if !exchange.is_stopping() && !self.look(timeout) {
            // Nothing came in all that time: look behind every door, in case an edge was missed.
            self.ready.fill(true);
        }
        mailbox.awake();
    }

    /// Learns which doors have something to read, waiting for `timeout` at most; answers whether any has.
    fn look(&mut self, timeout: Duration) -> bool {
        let id = self.id().0;
        match self.poller.wait(Some(timeout)) {
            Ok(events) => {
                let mut any = false;
                for event in events {
                    any = true;
                    if let Some(ready) = self.ready.get_mut(event.token.0) {
                        *ready = true;
                    }
                }
                any
            }
            Err(error) => {
                tracing::error!(worker = id, %error, "cannot wait for packets");
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        }
    }

    /// Takes packets from the TUN only while there are tunnels here to seal them: a worker without peers would
    /// hand every one of them to a sibling. The first worker always takes them, so that somebody drops what
    /// has no route.
    fn attach_tun(&mut self, frames: &mut [TunFrame], now: Instant) {
        if self.wants_tun() {
            self.tun_unwanted_since = None;
            self.set_tun_attached(true);
            return;
        }
        let since = *self.tun_unwanted_since.get_or_insert(now);
        if !self.tun_attached || now.saturating_duration_since(since) < DETACH_AFTER {
            return;
        }
        // What waits in a queue is lost when it is detached.
        for _ in 0..LAST_TURNS_MAX {
            if !self.tun_turn(frames, now) {
                break;
            }
        }
        self.set_tun_attached(false);
    }

    fn wants_tun(&self) -> bool {
        self.engine.wants_tun() || self.id() == WorkerId(0)
    }

    fn set_tun_attached(&mut self, attached: bool) {
        if attached == self.tun_attached {
            return;
        }
        match self.tun.set_attached(attached) {
            Ok(()) => {
                self.tun_attached = attached;
                self.ready[TUN.0] = true;
            }
            Err(error) => {
                let id = self.id().0;
                tracing::warn!(worker = id, %error, attached, "cannot attach or detach the TUN queue");
            }
        }
    }

    fn tun_turn(&mut self, frames: &mut [TunFrame], now: Instant) -> bool {
        if !self.tun_attached || !self.ready[TUN.0] {
            return false;
        }
        let (mut filled, mut bytes) = (0, 0);
        while filled < frames.len() && bytes < TUN_TURN_BYTES {
            match self.tun.recv(&mut frames[filled]) {
                Ok(true) => {
                    bytes += frames[filled].buf.len();
                    filled += 1;
                }
                Ok(false) => {
                    self.ready[TUN.0] = false;
                    break;
                }
                Err(error) => {
                    self.ready[TUN.0] = false;
                    self.tun_read_failed(&error);
                    break;
                }
            }
        }
        let mut rest = &mut frames[..filled];
        while !rest.is_empty() {
            let taken = self.engine.handle_tun(rest, now);
            self.drain();
            debug_assert!(taken > 0, "a drained engine takes a frame");
            rest = &mut rest[taken.max(1)..];
        }
        filled > 0
    }

    fn tun_read_failed(&mut self, error: &io::Error) {
        // The first of a kind is worth a line; a flood of them is not. An interface that is down, or was
        // deleted under us, must neither end the worker nor make it spin.
        if self.tun_errors_logged.is_power_of_two() || self.tun_errors_logged == 0 {
            tracing::warn!(worker = self.id().0, %error, "cannot read from the TUN");
        }
        self.tun_errors_logged += 1;
        if TunFault::of(error) == TunFault::Gone {
            let mailbox = self.exchange.mailbox(self.id());
            mailbox.tun_gone.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn udp_turn(&mut self, frames: &mut [UdpFrame], now: Instant) -> bool {
        let mut worked = false;
        for at in 0..self.sockets.count() {
            if !self.ready[UDP.0 + at] {
                continue;
            }
            let filled = match self.sockets.recv(at, frames) {
                Ok(filled) => filled,
                Err(error) => {
                    tracing::debug!(worker = self.engine.worker().0, %error, "cannot read from the uplink");
                    0
                }
            };
            worked |= filled > 0;
            self.ready[UDP.0 + at] = filled > 0;
            let mut rest = &mut frames[..filled];
            while !rest.is_empty() {
                let taken = self.engine.handle_udp(rest, now);
                self.drain();
                debug_assert!(taken > 0, "a drained engine takes a frame");
                rest = &mut rest[taken.max(1)..];
            }
        }
        self.count_truncated();
        worked
    }

    fn count_truncated(&mut self) {
        let truncated = self.sockets.truncated();
        if truncated > self.truncated_seen {
            self.engine.count_truncated(truncated - self.truncated_seen);
        }
        self.truncated_seen = truncated;
    }

    fn handoff_turn(&mut self, now: Instant) -> bool {
        let exchange = self.exchange.clone();
        let mailbox = exchange.mailbox(self.id());
        let mut worked = false;
        for _ in 0..HANDOFFS_PER_TURN {
            let Some((from, mut handoff)) = mailbox.take() else {
                break;
            };
            worked = true;
            while !self.engine.handle_handoff(&mut handoff, now) {
                self.drain();
            }
            self.drain();
            exchange.give_back(from, handoff);
        }
        worked
    }

    /// Brings the engine's outputs to the kernel, to siblings and to control.
    fn drain(&mut self) {
        self.hand_on();
        // What moves to another uplink goes out at once. Two rounds do: every uplink is told once.
        for _ in 0..SENDS_PER_DRAIN_MAX {
            if self.engine.udp_out().is_empty() {
                break;
            }
            let refused = self.send_datagrams();
            self.tell_refused(refused);
        }
        if !self.engine.tun_out().is_empty() {
            self.write_packets();
        }
        while let Some(event) = self.engine.poll_event() {
            if !self.events.put(event) {
                self.engine.event_lost();
            }
        }
    }

    fn hand_on(&mut self) {
        let (exchange, from) = (&self.exchange, self.engine.worker());
        let mut refused: Vec<Handoff> = Vec::new();
        for (to, handoff) in self.engine.take_handoffs() {
            refused.extend(exchange.hand(from, to, handoff).err());
        }
        for handoff in refused {
            self.engine.handoff_refused(handoff);
        }
    }

    /// Returns the uplinks that could not send at all.
    fn send_datagrams(&mut self) -> UplinkSet {
        let batch = self.engine.udp_out();
        let mut handled = 0;
        let (mut sent, mut own_sent, mut own_failed) = (0, 0, 0);
        let mut failed = [0u64; SendFailure::ALL.len()];
        let mut demoted = false;
        let mut unreachable = UplinkSet::default();
        let mut refused: [_; REFUSALS_MAX] = [None; REFUSALS_MAX];
        let mut refusals = 0;
        self.sockets.begin_batch();
        for at in 0..self.sockets.count() {
            let report = self.sockets.send(at, batch);
            handled += report.sent_packets + report.failed_total();
            sent += report.sent_packets - report.own_sent_packets;
            own_sent += report.own_sent_packets;
            for (at, sum) in failed.iter_mut().enumerate() {
                *sum += report.failed[at] - report.own_failed[at];
                own_failed += report.own_failed[at];
            }
            demoted |= report.gso_demoted;
            unreachable = unreachable.union(report.unreachable);
            for refusal in report.refused.into_iter().flatten() {
                if let Some(slot) = refused.get_mut(refusals) {
                    (*slot, refusals) = (Some(refusal), refusals + 1);
                }
            }
        }
        let mut reasons: [(DropReason, u64); SendFailure::ALL.len()] =
            std::array::from_fn(|at| (reason_of(SendFailure::ALL[at]), failed[at]));
        // Datagrams for which this gateway has no socket.
        let (homeless, homeless_own) = match batch.packets() - handled {
            0 => (0, 0),
            _ => without_socket(batch, &self.sockets),
        };
        reasons[SendFailure::Unreachable as usize].1 += homeless;
        own_failed += homeless_own;
        for refusal in refused.iter().flatten() {
            let reason = reason_of(refusal.failure);
            // Rare enough for a look at the clock.
            let now = Instant::now();
            self.engine
                .handle_send_failure(&refusal.endpoint, reason, now);
        }
        self.engine.udp_sent(sent, own_sent, own_failed, &reasons);
        if demoted {
            tracing::warn!(
                worker = self.id().0,
                "UDP_SEGMENT refused: offload no-udp-gso from here on"
            );
            self.engine.set_trains(TrainLimits::SINGLE);
        }
        unreachable
    }

    /// The engine learns at once of an uplink that cannot send, and control at its next look.
    fn tell_refused(&mut self, refused: UplinkSet) {
        if refused.is_empty() {
            return;
        }
        self.exchange.mailbox(self.id()).put_refused(refused);
        for uplink in refused.iter() {
            if self.refused.contains(uplink) {
                continue;
            }
            self.refused.insert(uplink);
            let order = PathOrder::Uplink(uplink.0, Some(StateReason::Unreachable));
            // Rare enough for a look at the clock.
            self.engine.handle_path_order(&order, Instant::now());
        }
    }

    fn set_uplinks(&mut self) {
        self.sockets.set_uplinks(&self.uplinks);
    }

    fn write_packets(&mut self) {
        let (mut sent, mut refused) = (0, 0);
        let mut demote = false;
        let mtu = self.engine.snapshot().mtu();
        for write in self.engine.tun_out().writes() {
            match self.tun.send(&write) {
                Ok(()) => sent += u64::from(write.packets),
                Err(error) if write.packets > 1 && TunFault::of(&error) == TunFault::Refused => {
                    // A kernel with broken offload refuses what it promised to take (regression in 6.6.44).
                    demote = true;
                    let written = write_one_by_one(self.tun.as_mut(), &write, mtu);
                    sent += written;
                    refused += u64::from(write.packets) - written;
                }
                Err(_) => refused += u64::from(write.packets),
            }
        }
        self.engine.tun_sent(sent, refused);
        if demote {
            tracing::warn!(
                worker = self.id().0,
                "superpacket refused: TUN offload none from here on"
            );
            self.engine.set_joining(Joining::NONE);
        }
    }

    fn obey(&mut self, order: Order, frames: &mut [UdpFrame], now: Instant) {
        match order {
            Order::Sockets(sockets) => {
                // What has arrived on the old ones is not lost with them.
                for _ in 0..LAST_TURNS_MAX {
                    if !self.udp_turn(frames, now) {
                        break;
                    }
                }
                for old in self.sockets.fds() {
                    let _ = self.poller.deregister(old);
                }
                self.count_truncated();
                self.sockets.replace_udp(*sockets);
                self.truncated_seen = self.sockets.truncated();
                self.set_uplinks();
                self.register_sockets();
            }
            Order::Neighbourhood(ifindex, neighbourhood) => {
                self.sockets.set_neighbourhood(ifindex, &neighbourhood);
            }
            Order::Uplinks(uplinks) => {
                self.uplinks = uplinks;
                self.set_uplinks();
            }
            Order::Path(order) => {
                if let PathOrder::Uplink(uplink, None) = order {
                    self.refused.remove(UplinkId(uplink));
                }
                self.engine.handle_path_order(&order, now);
                self.drain();
            }
            Order::MeterStages(span) => {
                let until = (!span.is_zero()).then(|| now + span);
                let exchange = self.exchange.clone();
                let meter = &exchange.mailbox(self.id()).meter;
                self.clock.meter_stages(meter, &mut self.engine, until);
            }
            Order::Mark(mark) => {
                let worker = self.engine.worker();
                for socket in self.sockets.iter_mut() {
                    if let Err(error) = socket.set_mark(mark) {
                        tracing::error!(worker = worker.0, %error, "cannot set the firewall mark");
                    }
                }
            }
        }
    }

    /// Closes the books: what still waits in the inbox or for a handshake is dropped and counted.
    fn finish(mut self) -> Counters {
        self.report_xdp();
        self.drain();
        let now = Instant::now();
        let exchange = self.exchange.clone();
        while let Some((_, mut handoff)) = exchange.mailbox(self.id()).take() {
            while !self.engine.handle_handoff(&mut handoff, now) {
                self.drain();
            }
            self.drain();
        }
        self.engine.shut_down();
        self.engine.counters().clone()
    }
}

impl Worker {
    /// What went by AF_XDP, and what its rings lost.
    fn report_xdp(&self) {
        for socket in self.sockets.xdp() {
            let (counters, drops) = (socket.counters(), socket.drops().unwrap_or_default());
            tracing::info!(
                worker = self.id().0,
                ifindex = socket.ifindex(),
                queue = socket.queue(),
                received = counters.received,
                sent = counters.sent,
                left_to_udp = counters.left,
                foreign = counters.foreign,
                corrupt = counters.corrupt,
                ring_full = drops.ring_full + drops.no_chunk,
                dropped = drops.other,
                "AF_XDP"
            );
        }
    }
}

/// Forwarded and own datagrams for which there is no socket of their family and door.
fn without_socket(batch: &UdpBatch, sockets: &Sockets) -> (u64, u64) {
    let mut count = (0, 0);
    for train in batch.trains() {
        match (sockets.serve(&train.endpoint), train.own) {
            (true, _) => {}
            (false, false) => count.0 += u64::from(train.packets),
            (false, true) => count.1 += u64::from(train.packets),
        }
    }
    count
}

/// Cuts a superpacket that the kernel refused into its packets again. Returns how many were written.
fn write_one_by_one(tun: &mut dyn TunQueue, write: &TunWrite<'_>, mtu: usize) -> u64 {
    let mut frame = TunFrame {
        vnet: write.vnet,
        ..TunFrame::default()
    };
    let mut len = 0;
    for fragment in write.fragments() {
        frame.buf.storage_mut()[len..len + fragment.len()].copy_from_slice(fragment);
        len += fragment.len();
    }
    frame.buf.set_len(len);
    let Ok(info) = parse(frame.buf.data()) else {
        return 0;
    };
    let Ok(mut cutter) = Cutter::new(&mut frame, &info) else {
        return 0;
    };
    let mut single = TunBatch::new(1 << 16, Joining::NONE);
    let mut written = 0;
    while let Some(segment) = cutter.next_segment(Padding { mtu }) {
        let packet = &segment.padded[..segment.packet_len];
        let Ok(info) = parse(packet) else { continue };
        single.clear();
        single.room()[..packet.len()].copy_from_slice(packet);
        single.commit(packet.len(), &info);
        single.finish();
        written += single
            .writes()
            .filter(|write| tun.send(write).is_ok())
            .count() as u64;
    }
    written
}

/// What a TUN with that offload takes joined.
pub fn joining_of(offload: TunOffload) -> Joining {
    Joining {
        tcp: offload.vnet && offload.tso,
        udp: offload.vnet && offload.uso,
    }
}

/// How long a train all of these sockets take.
pub fn trains_of<'a>(sockets: impl Iterator<Item = &'a Sockets>) -> TrainLimits {
    let limits = sockets.filter_map(Sockets::max_train);
    limits.reduce(shorter).unwrap_or(TrainLimits::SINGLE)
}

fn reason_of(failure: SendFailure) -> DropReason {
    match failure {
        SendFailure::NoBuffers => DropReason::SendNoBuffers,
        SendFailure::Unreachable => DropReason::SendUnreachable,
        SendFailure::TooBig => DropReason::SendTooBig,
        SendFailure::Denied => DropReason::SendDenied,
        SendFailure::Other => DropReason::SendOther,
    }
}
