//! The two machines of `patronus-path` at work: the prober and the selector of one peer, run by the worker that owns the
//! peer's first session, inside its timers and its inbound messages.
//!
//! ```text
//! hello, timer, order -> Prober -> observations -> Selector -> routes -> Outlets (this worker), PathBoard (all others)
//!                            \--> hellos, sealed on lane 0, to the end of the path that they measure
//! ```
//!
//! When hellos are sent (decision 6): to a peer with which there is a session, that had traffic within [`IDLE_AFTER`] and
//! that answers. What does not answer is asked for [`ASKING`] after a handshake. An idle peer is woken by traffic, or by
//! a hello of the other side, which it answers as long as they come.

mod outcome;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use patronus_packet::Endpoint;
use patronus_path::message::{HELLO_LEN, Kind, ORDER_LEN, Order};
use patronus_path::trace::Line;
use patronus_path::{
    Arrival, CLASSES_MAX, ClassId, Command, Hello, Observation, PATHS_MAX, PathIndex, PathState,
    Prober, ProberConfig, Selector, SelectorConfig, StateReason, Time,
};
use patronus_tunnel::message::DATA_OVERHEAD;
use patronus_tunnel::peer::CONTROL_ROOM;

use crate::engine::{Engine, Event};
use crate::lanes::Role;
use crate::path_board::{PathBoard, Standing, Ways};
use crate::path_setup::{
    arrival, endpoint_from, inner_mtu, is_on, outer_bytes, prober_config, selector_config,
};
use crate::paths::{PathEvent, PathOrder};
use crate::peers::{OwnedPeer, Slot};
use crate::pipeline;
use crate::snapshot::PeerId;
use crate::steering::Outlets;
use outcome::{
    count, observe_loads, packets_on_all_lanes, publish_change, refresh, republish, settle,
};

/// A peer without traffic for this long is idle: no hellos.
const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);
/// An idle peer answers hellos until none has come for this long.
const GRACE: Duration = Duration::from_secs(10);
/// Who falls asleep is deaf to hellos for this long: longer than [`GRACE`], so that two idle sites do not keep each
/// other awake.
const DEAF: Duration = Duration::from_secs(30);
/// How long a peer that never answered is asked after its first handshake, and after each later one.
const ASKING: Duration = Duration::from_secs(5);
const ASKING_AGAIN: Duration = Duration::from_millis(1500);
/// How long a peer that answers is asked on after the last hello heard from it, and after a handshake.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often a site that fell silent is called: so that all are back within 5 s of a black start, and less often after a
/// day.
const CALL_EVERY: Duration = Duration::from_secs(4);
const CALL_OFTEN: Duration = Duration::from_secs(24 * 3600);
const CALL_SELDOM: Duration = Duration::from_secs(60);
/// Most calls of a worker in a quarter of a second: 40 a second.
const CALLS_MAX: u32 = 10;
const CALLS_SPAN: Duration = Duration::from_millis(250);
/// Largest plaintext of a message of the prober's, in bytes.
pub(crate) const TRANSMIT_MAX: usize = 9_216;
/// The same refusal again, for every batch that is sent, says nothing new.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(100);
/// CS6, network control (RFC 4594 section 3.1), for hellos: their loss is the path's, not that of a queue at home.
pub(crate) const HELLO_TOS: u8 = 0xc0;
/// Standing of paths without traffic is published this often, otherwise with every timer.
const REFRESH_IDLE: Duration = Duration::from_secs(1);
/// Traffic this long ago makes a peer quiet: its paths are probed at the idle cadence, its standing is published less
/// often.
const QUIET_AFTER: Duration = Duration::from_secs(60);
/// A path that goes now to this address and now to that one says so this often.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);
const TRACE_VERSION: u32 = 1;

/// What becomes of the paths to one peer.
pub(crate) struct PeerPaths {
    prober: Prober,
    selector: Selector,
    prober_config: ProberConfig,
    selector_config: SelectorConfig,
    /// Where a peer without configured paths was when measuring began.
    sole: Option<Endpoint>,
    /// When the machines want to run, and the earliest entry of this peer in [`Deadlines`].
    wanted: Option<Instant>,
    entered: Option<Instant>,
    /// Whether the machines run.
    is_awake: bool,
    slept_at: Option<Time>,
    /// A site that answered and ceased to: since when it is silent, and when it is called again.
    lost: Option<(Time, Time)>,
    traffic_at: Time,
    /// Data packets on all lanes when they were last looked at.
    packets: u64,
    grace_until: Time,
    asking_until: Time,
    heard_at: Option<Time>,
    /// By path: the peer's number of it, plus one; zero until it is known.
    peer_numbers: [u16; PATHS_MAX],
    roles: ([u8; PATHS_MAX], u16),
    /// Whether something was seen that may change the roles.
    are_roles_old: bool,
    /// By bit: paths that somebody pings.
    pinged: u16,
    is_traced: bool,
    loads: [u64; CLASSES_MAX],
    loaded: u8,
    loads_at: Time,
    refreshed_at: Time,
    moves: Moves,
}

/// Where each path went when an event last told of it, and when that was.
#[derive(Default)]
struct Moves {
    told: [Option<Endpoint>; PATHS_MAX],
    at: [Option<Time>; PATHS_MAX],
}

/// When which peer's machines want to run. Entries that came too early are entered anew, so each peer has hardly more
/// than one, and an idle peer none.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BinaryHeap<Reverse<(Instant, usize)>>);

impl Deadlines {
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    fn enter(&mut self, at: Instant, slot: Slot) {
        self.0.push(Reverse((at, slot.0)));
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Instant, Slot)> {
        if self.next()? > now {
            return None;
        }
        let Reverse((at, slot)) = self.0.pop()?;
        Some((at, Slot(slot)))
    }
}

impl PeerPaths {
    fn new(engine: &Engine, peer: &OwnedPeer, time: Time) -> Box<Self> {
        let prober_config = prober_config(&engine.snapshot, &peer.spec, peer.endpoint, false);
        let selector_config = selector_config(&engine.snapshot, &peer.spec);
        let seed = engine.config.seed ^ u64::from(peer.spec.id.0) << 32 ^ time.0;
        let mut prober = Prober::new(prober_config.clone(), seed, time);
        for (uplink, fault) in engine.uplink_faults.iter().enumerate() {
            if let Some(fault) = fault {
                prober.set_uplink(uplink as u8, Some(*fault), time);
            }
        }
        Box::new(Self {
            selector: Selector::new(selector_config.clone(), time),
            prober,
            prober_config,
            selector_config,
            sole: peer.endpoint,
            wanted: None,
            entered: None,
            is_awake: false,
            slept_at: None,
            lost: None,
            traffic_at: time,
            packets: 0,
            grace_until: Time(0),
            asking_until: Time(0),
            heard_at: None,
            peer_numbers: [0; PATHS_MAX],
            roles: Default::default(),
            are_roles_old: true,
            pinged: 0,
            is_traced: false,
            loads: [0; CLASSES_MAX],
            loaded: 0,
            loads_at: time,
            refreshed_at: Time(0),
            moves: Moves::default(),
        })
    }

    /// Whether hellos may be sent, given a session.
    fn may_ask(&self, time: Time) -> bool {
        let is_talking = self
            .heard_at
            .is_some_and(|heard| time.since(heard) < SILENCE_MAX);
        !self.is_idle(time) && (is_talking || time < self.asking_until)
    }

    fn is_idle(&self, time: Time) -> bool {
        time.since(self.traffic_at) >= IDLE_AFTER && time >= self.grace_until
    }

    fn is_deaf(&self, time: Time) -> bool {
        self.slept_at.is_some_and(|slept| time.since(slept) < DEAF)
    }

    /// The path that a datagram came on.
    pub(crate) fn path_of(&self, arrival: &Arrival) -> Option<PathIndex> {
        self.prober.path_of(arrival)
    }

    /// Every end that the peer may be reached at.
    pub(crate) fn ends(&self) -> [Option<Endpoint>; PATHS_MAX] {
        std::array::from_fn(|at| self.prober.ends(PathIndex(at as u8)).map(endpoint_from))
    }

    /// The instant of the machines' next deadline.
    fn next(&self, epoch: Instant) -> Option<Instant> {
        let next = [self.prober.poll_timeout(), self.selector.poll_timeout()];
        let next = next.into_iter().flatten().min()?;
        Some(epoch + Duration::from_nanos(next.0))
    }
}

/// Takes a peer's machines out of the engine for the time of one call, so that both can be changed.
fn with<R>(
    engine: &mut Engine,
    slot: Slot,
    call: impl FnOnce(&mut Engine, &mut PeerPaths) -> R,
) -> Option<R> {
    let mut paths = engine.peers.get_mut(slot)?.paths.take()?;
    let result = call(engine, &mut paths);
    if let Some(peer) = engine.peers.get_mut(slot) {
        peer.paths = Some(paths);
    }
    Some(result)
}

/// Gives a peer its machines, where there are classes to choose for and it has none yet.
fn begin(engine: &mut Engine, slot: Slot, now: Instant) {
    let time = engine.clock(now).time;
    let is_measured = is_on(&engine.snapshot);
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    if !is_measured || peer.paths.is_some() || !matches!(peer.role, Role::Main(_)) {
        return;
    }
    peer.spec.board.reset();
    let paths = PeerPaths::new(engine, peer, time);
    let outlets = Outlets::following(&peer.spec.board, engine.config.worker);
    if let Some(peer) = engine.peers.get_mut(slot) {
        peer.paths = Some(paths);
        peer.outlets = Some(outlets);
    }
    with(engine, slot, |engine, paths| {
        paths.packets = packets_on_all_lanes(engine, slot);
        drive_later(engine, slot, paths, now);
    });
}

/// A handshake of lane 0 completed.
pub(crate) fn on_handshake(engine: &mut Engine, slot: Slot, now: Instant) {
    begin(engine, slot, now);
    let time = engine.clock(now).time;
    let endpoint = engine.peers.get(slot).and_then(|peer| peer.endpoint);
    with(engine, slot, |engine, paths| {
        if paths.sole.is_none() {
            paths.sole = endpoint;
            configure(engine, slot, paths, time);
        }
        let asking = match (paths.heard_at, paths.asking_until) {
            (Some(_), _) => SILENCE_MAX,
            (None, Time(0)) => ASKING,
            (None, _) => ASKING_AGAIN,
        };
        paths.asking_until = paths.asking_until.max(time + asking);
        if paths.lost.take().is_some() {
            // It is back: see that its paths are, too, whether there is traffic or not; then fall asleep without it.
            let awake = (IDLE_AFTER - GRACE).as_nanos() as u64;
            paths.traffic_at = paths.traffic_at.max(Time(time.0.saturating_sub(awake)));
        }
        paths.prober.session_began(time);
        wake(engine, slot, paths, now);
        drive(engine, slot, paths, now);
    });
}

/// A hello came in on lane 0, authenticated.
pub(crate) fn on_hello(
    engine: &mut Engine,
    slot: Slot,
    endpoint: &Endpoint,
    (hello, order): (&Hello, Option<Order>),
    len: usize,
    now: Instant,
) {
    begin(engine, slot, now);
    let time = engine.clock(now).time;
    let arrival = arrival(&engine.snapshot, endpoint);
    with(engine, slot, |engine, paths| {
        if time.since(paths.traffic_at) >= IDLE_AFTER {
            // Who is awake by traffic alone is not kept awake by hellos, nor who just fell asleep.
            let is_in_grace = time < paths.grace_until;
            if !is_in_grace && (paths.is_awake || paths.is_deaf(time)) {
                return;
            }
            paths.grace_until = time + GRACE;
        }
        paths.heard_at = Some(time);
        wake(engine, slot, paths, now);
        if let Some(path) = paths.prober.path_of(&arrival) {
            count(engine, slot, paths, path, time);
        }
        let path = paths.prober.handle_hello(&arrival, hello, len, time);
        if let (Some(order), Some(_), Kind::Hello) = (order, path, hello.kind) {
            paths.prober.handle_order(hello, &order);
        }
        let known = path.and_then(|path| paths.peer_numbers.get_mut(path.as_usize()));
        if let Some(number) = known
            && *number != hello.path
        {
            *number = hello.path;
            refresh(engine, slot, paths, time);
            publish_change(engine, slot);
        }
        drive(engine, slot, paths, now);
    });
}

/// What a peer's timer does, every quarter of a second: notices traffic, publishes.
pub(crate) fn on_timer(engine: &mut Engine, slot: Slot, now: Instant) {
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    if peer.paths.is_none() {
        return;
    }
    let time = engine.clock(now).time;
    with(engine, slot, |engine, paths| {
        let packets = packets_on_all_lanes(engine, slot);
        if packets != paths.packets {
            paths.packets = packets;
            paths.traffic_at = time;
        }
        if !paths.is_awake {
            wake(engine, slot, paths, now);
        }
        if !paths.is_awake {
            call_again(engine, slot, paths, now);
            return;
        }
        observe_loads(engine, slot, paths, time);
        let is_quiet = time.since(paths.traffic_at) > QUIET_AFTER;
        paths.prober.set_quiet(is_quiet, time);
        if !is_quiet || time.since(paths.refreshed_at) >= REFRESH_IDLE {
            refresh(engine, slot, paths, time);
        }
        drive(engine, slot, paths, now);
    });
}

/// Runs the machines whose time has come, as far as the output has room; the rest follows at the next call.
pub(crate) fn run_due(engine: &mut Engine, now: Instant) {
    while has_room(engine) {
        let Some((at, slot)) = engine.deadlines.pop_due(now) else {
            return;
        };
        with(engine, slot, |engine, paths| {
            if paths.entered == Some(at) {
                paths.entered = None;
            }
            match paths.wanted {
                Some(wanted) if wanted <= now => run(engine, slot, paths, now),
                Some(_) | None => schedule(engine, slot, paths, now),
            }
        });
    }
}

/// Something that control says.
pub(crate) fn handle_order(engine: &mut Engine, order: &PathOrder, now: Instant) {
    let time = engine.clock(now).time;
    let id = match order {
        PathOrder::Uplink(uplink, fault) => {
            set_uplink(engine, *uplink, *fault, now);
            return;
        }
        PathOrder::Command(id, _)
        | PathOrder::Ping(id, _)
        | PathOrder::MeasureBandwidth(id, _)
        | PathOrder::Trace(id, _) => *id,
    };
    let Some(slot) = engine.peers.slot_of(id) else {
        return;
    };
    begin(engine, slot, now);
    with(engine, slot, |engine, paths| {
        match order {
            PathOrder::Uplink(..) => {}
            PathOrder::Command(_, command) => obey(engine, id, paths, *command, time),
            PathOrder::Ping(_, path) | PathOrder::MeasureBandwidth(_, path) => {
                if path.as_usize() >= PATHS_MAX {
                    return;
                }
                paths.grace_until = time + GRACE;
                paths.asking_until = paths.asking_until.max(time + GRACE);
                wake(engine, slot, paths, now);
                match order {
                    PathOrder::Ping(..) => {
                        paths.pinged |= 1 << path.0;
                        paths.prober.ping(*path, time);
                    }
                    _ => paths.prober.measure_bandwidth(*path, time),
                }
            }
            PathOrder::Trace(_, is_traced) => {
                trace_from_here(engine, slot, paths, *is_traced, time)
            }
        }
        drive_later(engine, slot, paths, now);
    });
}

/// The kernel refused to send to `endpoint`.
pub(crate) fn send_refused(
    engine: &mut Engine,
    endpoint: &Endpoint,
    is_too_big: bool,
    now: Instant,
) {
    let last = engine.last_refusal.replace((*endpoint, now));
    if let Some((refused, at)) = last
        && refused == *endpoint
        && now.saturating_duration_since(at) < REFUSAL_INTERVAL
    {
        engine.last_refusal = last;
        return;
    }
    let time = engine.clock(now).time;
    let arrival = arrival(&engine.snapshot, endpoint);
    for slot in (0..engine.peers.slots()).map(Slot) {
        with(engine, slot, |engine, paths| {
            let Some(path) = paths.prober.path_of(&arrival) else {
                return;
            };
            match is_too_big {
                true => paths.prober.send_too_big(path, time),
                false => paths.prober.send_refused(path, time),
            }
            drive_later(engine, slot, paths, now);
        });
    }
}

/// A new configuration: paths that stay keep what is known of them. `moved`: configuration says anew where the peer is.
pub(crate) fn reconfigure(engine: &mut Engine, slot: Slot, moved: bool, now: Instant) {
    let time = engine.clock(now).time;
    if !is_on(&engine.snapshot) {
        if let Some(peer) = engine.peers.get_mut(slot)
            && peer.paths.take().is_some()
        {
            peer.outlets = None;
            peer.spec.board.reset();
        }
        return;
    }
    let has_session = |peer: &OwnedPeer| peer.tunnel.has_session();
    if engine.peers.get(slot).is_some_and(has_session) {
        begin(engine, slot, now);
        // A session that began before paths were measured.
        with(engine, slot, |_, paths| {
            if paths.asking_until == Time(0) {
                paths.asking_until = time + ASKING;
                paths.is_awake = true;
                paths.prober.session_began(time);
            }
        });
    }
    let endpoint = engine.peers.get(slot).and_then(|peer| peer.endpoint);
    with(engine, slot, |engine, paths| {
        if moved {
            paths.sole = endpoint;
        }
        configure(engine, slot, paths, time);
        let Some(peer) = engine.peers.get(slot) else {
            return;
        };
        let classes = selector_config(&engine.snapshot, &peer.spec);
        if classes != paths.selector_config {
            paths.selector_config = classes.clone();
            trace(engine, slot, paths, || {
                Line::Configured(time, classes.clone())
            });
            paths.selector.configure(classes, time);
        }
        republish(engine, slot, paths, time);
        drive_later(engine, slot, paths, now);
    });
}

fn configure(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, time: Time) {
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    let has_several = peer.outlets.as_ref().is_some_and(|it| it.has_several);
    let config = prober_config(&engine.snapshot, &peer.spec, paths.sole, has_several);
    if config != paths.prober_config {
        paths.prober_config = config.clone();
        paths.prober.configure(config, time);
    }
}

fn set_uplink(engine: &mut Engine, uplink: u8, fault: Option<StateReason>, now: Instant) {
    let time = engine.clock(now).time;
    if let Some(known) = engine.uplink_faults.get_mut(usize::from(uplink)) {
        *known = fault;
    }
    for slot in (0..engine.peers.slots()).map(Slot) {
        with(engine, slot, |engine, paths| {
            paths.prober.set_uplink(uplink, fault, time);
            drive_later(engine, slot, paths, now);
        });
    }
}

fn obey(engine: &mut Engine, id: PeerId, paths: &mut PeerPaths, command: Command, time: Time) {
    match command {
        Command::Pin(path, _)
        | Command::Drain(path)
        | Command::Undrain(path)
        | Command::Clear(path)
            if path.as_usize() >= PATHS_MAX =>
        {
            return;
        }
        Command::Drain(path) => paths.prober.set_draining(path, true, time),
        Command::Undrain(path) => paths.prober.set_draining(path, false, time),
        Command::Pin(..) | Command::Unpin(_) | Command::Clear(_) => {}
    }
    see(engine, id, paths, Observation::Command(command), time);
    paths.refreshed_at = Time(0);
}

/// Lets the machines run where they may. They find out by themselves how long they did not.
fn wake(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    let time = engine.clock(now).time;
    let can_seal = engine
        .peers
        .get(slot)
        .is_some_and(|it| it.tunnel.can_seal(now));
    let heard = paths.heard_at;
    if paths.is_awake || !can_seal {
        return;
    }
    if paths.slept_at.is_some() && !paths.is_idle(time) && heard.is_some() {
        // It slept because it was idle: whether the peer still answers is to be seen.
        paths.asking_until = paths.asking_until.max(time + SILENCE_MAX);
    }
    if !paths.may_ask(time) {
        return;
    }
    paths.is_awake = true;
    paths.slept_at = None;
    run(engine, slot, paths, now);
}

fn sleep(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, time: Time) {
    paths.is_awake = false;
    if paths.is_idle(time) {
        paths.slept_at = Some(time);
    } else if paths.prober.is_answered() {
        paths.lost = Some((time, time + CALL_EVERY));
    }
    refresh(engine, slot, paths, time);
}

/// Looks whether a site that fell silent is there again. WireGuard gives up after 90 s, until there is something to send;
/// but a site that was cut off should be back by itself, and be seen to be.
fn call_again(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    let time = engine.clock(now).time;
    let Some((since, at)) = paths.lost.filter(|(_, at)| *at <= time) else {
        return;
    };
    let (begun, count) = engine.calls;
    let is_new = now.saturating_duration_since(begun) >= CALLS_SPAN;
    let (begun, count) = if is_new { (now, 0) } else { (begun, count) };
    engine.calls = (begun, count);
    if count >= CALLS_MAX || !pipeline::call(engine, slot, now) {
        return;
    }
    engine.calls.1 += 1;
    let every = match time.since(since) < CALL_OFTEN {
        true => CALL_EVERY,
        false => CALL_SELDOM,
    };
    // 75 to 100 %, as hellos: peers that were lost together are not called together for ever.
    let word = (engine.config.seed ^ at.0 ^ slot.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let share = (word >> 40) as f64 / (1_u64 << 24) as f64;
    paths.lost = Some((since, time + every.mul_f64(0.75 + 0.25 * share)));
}

/// Time passed for a peer's machines.
fn run(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    let time = engine.clock(now).time;
    let Some(peer) = engine.peers.get(slot) else {
        return;
    };
    let can_seal = peer.tunnel.can_seal(now);
    if paths.is_awake && !(can_seal && paths.may_ask(time)) {
        sleep(engine, slot, paths, time);
    }
    if !paths.is_awake {
        return;
    }
    for path in (0..PATHS_MAX).map(|at| PathIndex(at as u8)) {
        count(engine, slot, paths, path, time);
    }
    paths.prober.handle_timeout(time);
    if paths.selector.poll_timeout().is_some_and(|at| at <= time) {
        trace(engine, slot, paths, || Line::Timeout(time));
        paths.selector.handle_timeout(time);
        paths.are_roles_old = true;
    }
    drive(engine, slot, paths, now);
}

/// Takes observations and decisions out of the machines, and follows the routes.
fn absorb(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    let time = engine.clock(now).time;
    let Some(id) = engine.peers.get(slot).map(|peer| peer.spec.id) else {
        return;
    };
    let mut is_new = false;
    // The roles that follow from observations may lead to further ones.
    loop {
        let mut saw = false;
        while let Some(observation) = paths.prober.poll_observation() {
            is_new |= matches!(observation, Observation::State(..) | Observation::Path(..));
            see(engine, id, paths, observation, time);
            saw = true;
        }
        while let Some(decision) = paths.selector.poll_decision() {
            engine.event(Event::Path(id, PathEvent::Decided(decision.into())));
        }
        let told = settle(engine, slot, paths, time);
        if !saw && !told {
            break;
        }
    }
    if is_new {
        refresh(engine, slot, paths, time);
    }
}

/// [`absorb`], for calls whose output is not looked at: what there is to send is sent with the next timeout.
fn drive_later(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    absorb(engine, slot, paths, now);
    schedule(engine, slot, paths, now);
    if paths.is_awake && paths.entered.is_none_or(|entered| now < entered) {
        paths.entered = Some(now);
        engine.deadlines.enter(now, slot);
    }
    if paths.is_awake {
        paths.wanted = Some(now);
    }
}

/// [`absorb`], and sends.
fn drive(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    absorb(engine, slot, paths, now);
    transmit(engine, slot, paths, now);
    schedule(engine, slot, paths, now);
}

fn see(
    engine: &mut Engine,
    id: PeerId,
    paths: &mut PeerPaths,
    observation: Observation,
    time: Time,
) {
    match &observation {
        Observation::State(path, state, reason) => {
            engine.event(Event::Path(id, PathEvent::State(*path, *state, *reason)));
        }
        Observation::Gone(path) => {
            if let Some(number) = paths.peer_numbers.get_mut(path.as_usize()) {
                *number = 0;
            }
        }
        Observation::Rtt(path, ns) if paths.pinged >> (path.0 & 15) & 1 != 0 => {
            paths.pinged &= !(1 << (path.0 & 15));
            engine.event(Event::Path(id, PathEvent::Pong(*path, *ns as u64)));
        }
        Observation::Path(..)
        | Observation::Rtt(..)
        | Observation::Probe(..)
        | Observation::Deviation(..)
        | Observation::Data(..)
        | Observation::Metrics(..)
        | Observation::PeerChoice(..)
        | Observation::PeerOrder(..)
        | Observation::Load(..)
        | Observation::Command(_) => {}
    }
    paths.are_roles_old |= !matches!(
        observation,
        Observation::Rtt(..)
            | Observation::Probe(..)
            | Observation::Deviation(..)
            | Observation::Data(..)
    );
    paths.selector.observe(&observation, time);
    if paths.is_traced {
        let line = Line::Seen(time, observation);
        engine.event(Event::Path(id, PathEvent::Trace(line.into())));
    }
}

/// Seals and sends what the prober has to say, as far as there is room.
fn transmit(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    let time = engine.clock(now).time;
    while has_room(engine) {
        let Some(transmit) = paths.prober.poll_transmit(time) else {
            return;
        };
        let Some(end) = paths.prober.ends(transmit.path).map(endpoint_from) else {
            continue;
        };
        let Some(peer) = engine.peers.get_mut(slot) else {
            return;
        };
        if !paths.is_awake {
            // Without a session, or to an idle peer, nothing is said.
            continue;
        }
        let len = transmit.len.clamp(HELLO_LEN, TRANSMIT_MAX);
        let plaintext = &mut engine.hello_room[..len];
        transmit.hello.write(plaintext);
        let behind = &mut plaintext[HELLO_LEN..];
        match transmit.order.filter(|_| behind.len() >= ORDER_LEN) {
            Some(order) => order.write(behind),
            None => behind.fill(0),
        }
        let room = engine.udp_out.room();
        let sealed = match paths.prober.is_answered() {
            true => peer.tunnel.seal(plaintext, room, now),
            false => peer.tunnel.seal_unanswered(plaintext, room, now),
        };
        if let Some(len) = sealed {
            // A train measures what data gets.
            let tos = match transmit.hello.kind {
                Kind::Train => 0,
                Kind::Hello | Kind::MtuProbe | Kind::MtuReply | Kind::Lane => HELLO_TOS,
            };
            engine.udp_out.commit_own_classed(len, &end, tos);
            engine.counters.hellos_sent += 1;
            engine.peers.count(slot, 0, len as u64);
        }
    }
    // The output is full: the rest at once when it is drained.
    paths.wanted = Some(now);
}

/// Enters the machines' next deadline, where they run.
fn schedule(engine: &mut Engine, slot: Slot, paths: &mut PeerPaths, now: Instant) {
    let is_full = !has_room(engine);
    paths.wanted = match paths.is_awake {
        false => None,
        true if is_full => Some(now),
        true => paths.next(engine.snapshot.epoch()),
    };
    let Some(wanted) = paths.wanted else {
        return;
    };
    if paths.entered.is_none_or(|entered| wanted < entered) {
        paths.entered = Some(wanted);
        engine.deadlines.enter(wanted, slot);
    }
}

/// Whether a hello fits beside an answer to every handshake message that a received frame can still hold.
fn has_room(engine: &Engine) -> bool {
    let answers = patronus_packet::frame::FRAME_DATA_MAX / CONTROL_ROOM + 2;
    let bytes = TRANSMIT_MAX + DATA_OVERHEAD + answers * CONTROL_ROOM;
    engine.udp_out.has_room(answers + 1, bytes)
}

fn trace_from_here(
    engine: &mut Engine,
    slot: Slot,
    paths: &mut PeerPaths,
    is_traced: bool,
    time: Time,
) {
    let begins = is_traced && !paths.is_traced;
    paths.is_traced = is_traced;
    if !begins {
        return;
    }
    let peer = engine.peers.get(slot).map(|peer| peer.spec.id.0);
    let selector = Box::new(paths.selector.clone());
    trace(engine, slot, paths, || Line::Begin {
        version: TRACE_VERSION,
        peer: peer.map_or_else(String::new, |id| id.to_string()),
        at: time,
        selector,
    });
}

fn trace(engine: &mut Engine, slot: Slot, paths: &PeerPaths, line: impl FnOnce() -> Line) {
    if !paths.is_traced {
        return;
    }
    if let Some(peer) = engine.peers.get(slot) {
        let id = peer.spec.id;
        engine.event(Event::Path(id, PathEvent::Trace(line().into())));
    }
}

impl std::fmt::Debug for PeerPaths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerPaths")
            .field("is_awake", &self.is_awake)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
