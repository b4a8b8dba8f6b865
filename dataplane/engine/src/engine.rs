//! The engine of one worker: its state, its inputs and its outputs. What happens to a packet in between
//! stands in `pipeline.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patronus_packet::batch::{Joining, TrainLimits, TunBatch, UdpBatch};
use patronus_packet::{Endpoint, FlowKey, TunFrame, UdpFrame, UplinkId};
use patronus_path::{StateReason, Time};
use patronus_policy::{Direction, RuleId};
use patronus_tunnel::WorkerId;
use patronus_tunnel::lanes::{Control, Lane, Negotiation};
use patronus_tunnel::peer::TIMER_INTERVAL;

use crate::counters::{Counters, DropReason, PublishedCounters};
use crate::flow_table::{FlowTable, FlowWriter, OpenedBy, Steer};
use crate::handing;
use crate::lanes::{self, Role};
use crate::path_machine::{self, Deadlines};
use crate::paths::{PathEvent, PathOrder};
use crate::peers::{PeerSet, Slot};
use crate::pipeline::{self, Flight};
use crate::policing::Policing;
use crate::rule_counts::RuleCounts;
use crate::snapshot::{PeerId, PeerSpec, Snapshot};
use crate::stages::{Stage, StageTimes, Stages};
use crate::steering::Clock;

/// Bytes of each output slab: several superpackets, and still at home in a second-level cache.
const SLAB_BYTES: usize = 1 << 20;
/// Events kept for control before they are counted as lost.
const EVENTS_MAX: usize = 1024;
/// Spare buffers kept for handing packets to other workers.
const SPARE_FRAMES_MAX: usize = 64;

/// What an engine is told when it is made.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which worker this is.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: usize,
    /// Flow entries, a power of two.
    pub flow_slots: usize,
    /// Keys the flow hash and the choice of receiver indices.
    pub seed: u64,
    /// What the TUN takes joined.
    pub joining: Joining,
    /// How long a train the uplink sockets take.
    pub trains: TrainLimits,
}

/// A packet that another worker's tunnel has to treat.
#[derive(Debug)]
pub enum Handoff {
    /// From the TUN, for the peer with that number, with its flow's class and path.
    Tun(TunFrame, PeerId, Steer),
    /// From an uplink: data and answers whose index names the other worker.
    Udp(UdpFrame),
    /// From an uplink: an initiation that passed the gate and claims to be from that peer.
    Initiation(UdpFrame, PeerId),
}

impl Handoff {
    /// Packets inside: a superpacket counts its segments, a train its datagrams.
    pub fn packets(&self) -> u64 {
        handing::packets_of(self)
    }
}

/// Something that control wants to know and may miss.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A handshake completed.
    HandshakeCompleted(PeerId),
    /// An authenticated message came from a new address.
    EndpointChanged(PeerId, Endpoint),
    /// Lanes were agreed with a peer: by worker, those beside lane 0. They begin when control says so in the
    /// next snapshot.
    LanesAgreed(PeerId, Vec<(WorkerId, Lane)>),
    /// A handshake was given up after 90 s.
    HandshakeTimeout(PeerId),
    /// Something about a path to a peer.
    Path(PeerId, PathEvent),
    /// Policy refused a connection, or in audit mode would have; at a limited rate.
    Denied(Denial),
}

/// A connection that policy refused, or would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Its ends, from the one that opened it.
    pub key: FlowKey,
    /// The peer at the remote end.
    pub peer: PeerId,
    /// Whether the local end opened it.
    pub opened_by: OpenedBy,
    /// The direction that decided.
    pub direction: Direction,
    /// Under what it is counted.
    pub rule: Option<RuleId>,
    /// Whether it passed all the same, because the policy is in audit mode.
    pub is_audit: bool,
}

/// One worker's packets, tunnels and flows.
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) peers: PeerSet,
    pub(crate) flows: FlowWriter,
    pub(crate) siblings: Vec<Arc<FlowTable>>,
    pub(crate) udp_out: UdpBatch,
    pub(crate) tun_out: TunBatch,
    pub(crate) handoffs: Vec<(WorkerId, Handoff)>,
    pub(crate) counters: Counters,
    /// The inner flow of the datagram before, so that a train costs one look-up.
    pub(crate) flight: Option<Flight>,
    /// Where time goes, while somebody asks.
    pub(crate) stages: Stages,
    /// Peers whose waiting packets did not fit into the last output.
    pub(crate) unflushed: VecDeque<Slot>,
    events: VecDeque<Event>,
    published: Arc<PublishedCounters>,
    /// Peers that want a handshake as soon as there is room to write one.
    pub(crate) connect: VecDeque<Slot>,
    /// Control messages that wait to be sealed on lane 0.
    pub(crate) control_out: VecDeque<(Slot, Control)>,
    /// Whether this worker can seal what its TUN queue brings.
    pub(crate) wants_tun: bool,
    pub(crate) policing: Policing,
    /// Inner MTU of the narrowest path that any peer ever had, in bytes: what room is kept for.
    pub(crate) narrowest_mtu: usize,
    /// Packets of our own in the TUN batch.
    pub(crate) own_tun: u64,
    /// When peers' paths want attention.
    pub(crate) deadlines: Deadlines,
    /// What is wrong with each uplink.
    pub(crate) uplink_faults: [Option<StateReason>; UplinkId::COUNT_MAX],
    /// Where the kernel refused to send to last.
    pub(crate) last_refusal: Option<(Endpoint, Instant)>,
    /// Calls of silent peers in the quarter of a second that began then.
    pub(crate) calls: (Instant, u32),
    /// Zeros, where a hello is written before it is sealed.
    pub(crate) hello_room: Box<[u8]>,
    /// The time of the last batch, and what it is in other units.
    clock: (Instant, Clock),
    timer_cursor: usize,
    next_timer: Instant,
    spare_tun: Vec<TunFrame>,
    spare_udp: Vec<UdpFrame>,
}

impl Engine {
    /// An engine that has no peers until [`handle_snapshot`](Self::handle_snapshot) gives it some.
    pub fn new(config: EngineConfig, snapshot: &Arc<Snapshot>, now: Instant) -> Self {
        assert!(
            config.worker.as_usize() < config.workers,
            "worker out of range"
        );
        let flows = FlowTable::create(config.flow_slots, config.seed);
        let empty = Snapshot::new(
            snapshot.generation(),
            snapshot.identity().clone(),
            snapshot.epoch(),
            snapshot.mtu(),
            [],
        );
        let mut engine = Self {
            peers: PeerSet::new(
                config.worker,
                config.seed ^ u64::from(config.worker.0) << 56,
            ),
            snapshot: Arc::new(empty),
            flows,
            siblings: Vec::new(),
            udp_out: UdpBatch::new(SLAB_BYTES, config.trains),
            tun_out: TunBatch::new(SLAB_BYTES, config.joining),
            handoffs: Vec::new(),
            counters: Counters::default(),
            flight: None,
            stages: Stages::default(),
            unflushed: VecDeque::new(),
            events: VecDeque::new(),
            published: Arc::default(),
            connect: VecDeque::new(),
            control_out: VecDeque::new(),
            wants_tun: false,
            policing: Policing::new(now),
            narrowest_mtu: usize::MAX,
            own_tun: 0,
            deadlines: Deadlines::default(),
            uplink_faults: [None; UplinkId::COUNT_MAX],
            last_refusal: None,
            calls: (now, 0),
            hello_room: vec![0; path_machine::TRANSMIT_MAX].into_boxed_slice(),
            clock: (snapshot.epoch(), Clock::at(Time(0))),
            timer_cursor: 0,
            next_timer: now + TIMER_INTERVAL,
            spare_tun: Vec::new(),
            spare_udp: Vec::new(),
            config,
        };
        engine.handle_snapshot(snapshot.clone(), now);
        engine
    }

    /// Which worker this is.
    pub fn worker(&self) -> WorkerId {
        self.config.worker
    }

    /// The flow table, to read.
    pub fn flow_table(&self) -> &Arc<FlowTable> {
        self.flows.table()
    }

    /// Gives the engine the other workers' flow tables, where it looks for a flow before it calls it new.
    pub fn set_siblings(&mut self, siblings: Vec<Arc<FlowTable>>) {
        self.siblings = siblings;
    }

    /// The counters where other threads can read them.
    pub fn published(&self) -> &Arc<PublishedCounters> {
        &self.published
    }

    /// What policy refused, by rule, where other threads can read it.
    pub fn rule_counts(&self) -> &Arc<RuleCounts> {
        &self.policing.counts
    }

    /// The counters as they stand.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether this worker can seal what its TUN queue brings: it owns a peer's lane 0, or has a lane that
    /// carries. A lane says so within a quarter of a second.
    pub fn wants_tun(&self) -> bool {
        self.wants_tun
    }

    /// Books time on stages from here on by that clock, beginning at nothing; `None` ends it.
    pub fn meter_stages(&mut self, clock: Option<fn() -> u64>) {
        self.stages.set_clock(clock);
    }

    /// Where time went since [`meter_stages`](Self::meter_stages).
    pub fn stage_times(&self) -> Option<StageTimes> {
        self.stages.times()
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Changes what the TUN takes joined, after an offload was switched off.
    pub fn set_joining(&mut self, joining: Joining) {
        self.tun_out.set_joining(joining);
    }

    /// Changes how long a train the uplinks take, after an offload was switched off.
    pub fn set_trains(&mut self, trains: TrainLimits) {
        self.udp_out.set_limits(trains);
    }

    /// Packets from the TUN. Returns how many frames were taken: the rest wants the outputs drained first.
    pub fn handle_tun(&mut self, frames: &mut [TunFrame], now: Instant) -> usize {
        self.stages.begin();
        let taken = take_until_full(frames, |frame| pipeline::outbound(self, frame, now));
        self.counters.rx_tun_frames += taken as u64;
        self.finish();
        taken
    }

    /// Datagrams from an uplink. Returns how many frames were taken: the rest wants the outputs drained first.
    pub fn handle_udp(&mut self, frames: &mut [UdpFrame], now: Instant) -> usize {
        self.stages.begin();
        let taken = take_until_full(frames, |frame| pipeline::inbound(self, frame, now));
        self.counters.rx_udp_frames += taken as u64;
        self.finish();
        self.stages.lap(Stage::Join);
        taken
    }

    /// A packet from another worker. `false`: the outputs want to be drained first, then again.
    pub fn handle_handoff(&mut self, handoff: &mut Handoff, now: Instant) -> bool {
        let taken = pipeline::handed(self, handoff, now);
        self.finish();
        taken
    }

    /// A new configuration. Peers that did not change keep their sessions and their place.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        let identity_changed =
            snapshot.identity().public_key() != self.snapshot.identity().public_key();
        self.snapshot = snapshot.clone();
        self.flight = None;
        self.remove_missing(&snapshot, identity_changed);
        for spec in snapshot.peers() {
            if spec.worker == self.config.worker {
                self.apply(spec, identity_changed, now);
            } else if let Some(lane) = spec.lane_of(self.config.worker) {
                lanes::apply(self, spec, lane, now);
            }
        }
        self.see_what_tun_can_do();
        self.finish();
    }

    /// Something that control says about paths.
    pub fn handle_path_order(&mut self, order: &PathOrder, now: Instant) {
        path_machine::handle_order(self, order, now);
        self.finish();
    }

    /// The kernel refused to send to `endpoint`: to be told before [`udp_sent`](Self::udp_sent), once per batch and
    /// endpoint.
    pub fn handle_send_failure(&mut self, endpoint: &Endpoint, reason: DropReason, now: Instant) {
        match reason {
            DropReason::SendUnreachable => path_machine::send_refused(self, endpoint, false, now),
            DropReason::SendTooBig => path_machine::send_refused(self, endpoint, true, now),
            _ => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next; `None` when nothing is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.connect.is_empty() || !self.unflushed.is_empty() || !self.control_out.is_empty() {
            // In the past for every `now`: there is work that only waited for room.
            return Some(self.next_timer - TIMER_INTERVAL);
        }
        let timer = (!self.peers.is_empty()).then_some(self.next_timer);
        let paths = self.deadlines.next();
        timer.into_iter().chain(paths).min()
    }

    /// Handshakes, keepalives, expiry, and what found no room before.
    pub fn handle_timeout(&mut self, now: Instant) {
        pipeline::flush_waiting(self, now);
        lanes::flush_control(self, now);
        while pipeline::has_room_for_control(self) {
            let Some(slot) = self.connect.pop_front() else {
                break;
            };
            pipeline::initiate(self, slot, now);
        }
        if now >= self.next_timer {
            self.run_peer_timers(now);
        }
        path_machine::run_due(self, now);
        self.finish();
    }

    /// Datagrams to send. Report what became of them with [`udp_sent`](Self::udp_sent).
    pub fn udp_out(&self) -> &UdpBatch {
        &self.udp_out
    }

    /// The datagrams are with the kernel, or lost: `sent` and each reason count datagrams that carry forwarded
    /// packets, `own_sent` and `own_failed` those of our own.
    pub fn udp_sent(
        &mut self,
        sent: u64,
        own_sent: u64,
        own_failed: u64,
        failed: &[(DropReason, u64)],
    ) {
        self.counters.tx_udp += sent;
        self.counters.tx_udp_bytes += self.udp_out.bytes_total() as u64;
        self.counters.tx_udp_trains += self.udp_out.trains().len() as u64;
        self.counters.own_sent += own_sent;
        self.counters.own_failed += own_failed;
        for (reason, packets) in failed {
            self.counters.drop(*reason, *packets);
        }
        self.udp_out.clear();
        self.publish();
    }

    /// Packets for the TUN. Report what became of them with [`tun_sent`](Self::tun_sent).
    pub fn tun_out(&self) -> &TunBatch {
        &self.tun_out
    }

    /// The packets are with the kernel, or refused by it.
    pub fn tun_sent(&mut self, sent: u64, refused: u64) {
        // Which of them were ours is not told. They were nobody's packets, so the balance leaves them out.
        let own = std::mem::take(&mut self.own_tun);
        let own_sent = own.min(sent);
        debug_assert!(own - own_sent <= refused, "packets of our own got lost");
        self.counters.tx_tun += sent - own_sent;
        self.counters.tx_tun_bytes += self.tun_out.bytes_total() as u64;
        self.counters.tx_tun_writes += self.tun_out.writes_len() as u64;
        let refused = refused.saturating_sub(own - own_sent);
        self.counters.drop(DropReason::TunWrite, refused);
        self.tun_out.clear();
        self.publish();
    }

    /// Packets that belong to other workers. One that cannot be delivered comes back by
    /// [`handoff_refused`](Self::handoff_refused).
    pub fn take_handoffs(&mut self) -> impl Iterator<Item = (WorkerId, Handoff)> {
        self.handoffs.drain(..)
    }

    /// The other worker's queue was full: its packets are dropped here.
    pub fn handoff_refused(&mut self, handoff: Handoff) {
        let packets = handoff.packets();
        self.counters.handed_out -= packets;
        self.counters.drop(DropReason::HandoffFull, packets);
        self.recycle(handoff);
        self.publish();
    }

    /// Takes back the buffer of a packet that another worker is done with.
    pub fn recycle(&mut self, handoff: Handoff) {
        match handoff {
            Handoff::Tun(frame, ..) if self.spare_tun.len() < SPARE_FRAMES_MAX => {
                self.spare_tun.push(frame)
            }
            Handoff::Udp(frame) | Handoff::Initiation(frame, _)
                if self.spare_udp.len() < SPARE_FRAMES_MAX =>
            {
                self.spare_udp.push(frame);
            }
            Handoff::Tun(..) | Handoff::Udp(_) | Handoff::Initiation(..) => {}
        }
    }

    /// The next thing to tell control.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Control did not take an event.
    pub fn event_lost(&mut self) {
        self.counters.events_lost += 1;
    }

    /// Counts datagrams that the kernel handed over cut off.
    pub fn count_truncated(&mut self, datagrams: u64) {
        self.counters.rx_udp += datagrams;
        self.counters.drop(DropReason::OuterTruncated, datagrams);
    }

    /// After a panic: closes the books over what was in the engine's hands, so that the balance holds again.
    pub fn recover(&mut self) {
        self.udp_out.clear();
        self.tun_out.clear();
        self.own_tun = 0;
        for (_, handoff) in self.handoffs.drain(..) {
            // They never left: the balance below finds them.
            self.counters.handed_out -= handing::packets_of(&handoff);
        }
        self.flight = None;
        self.unflushed.clear();
        self.counters.staged = self
            .peers
            .iter()
            .map(|(_, peer)| peer.tunnel.staged_len() as u64)
            .sum();
        let c = &self.counters;
        let ended = c.tx() + c.consumed + c.dropped() + c.staged + c.handed_out;
        let lost = (c.rx() + c.handed_in).saturating_sub(ended);
        self.counters.drop(DropReason::WorkerPanic, lost);
        self.publish();
    }

    /// Drops what still waits; the last thing before the worker ends.
    pub fn shut_down(&mut self) {
        let slots: Vec<Slot> = self.peers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.drop_staged(slot, DropReason::Shutdown);
        }
        self.publish();
    }

    /// Seals any plaintext for a peer, as only a peer of another make would.
    #[cfg(test)]
    pub(crate) fn seal_for_test(&mut self, id: PeerId, plaintext: &[u8]) -> Option<Vec<u8>> {
        let slot = self.peers.slot_of(id)?;
        let peer = self.peers.get_mut(slot)?;
        let mut out = vec![0; plaintext.len() + 64];
        let len = peer.tunnel.seal(plaintext, &mut out, self.next_timer)?;
        out.truncate(len);
        Some(out)
    }

    pub(crate) fn event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.counters.events_lost += 1;
        }
    }

    pub(crate) fn spare_tun(&mut self) -> TunFrame {
        self.spare_tun.pop().unwrap_or_default()
    }

    pub(crate) fn spare_udp(&mut self) -> UdpFrame {
        self.spare_udp.pop().unwrap_or_default()
    }

    /// The time since the gateway's start, in all units. A batch has one.
    #[inline]
    pub(crate) fn clock(&mut self, now: Instant) -> Clock {
        if self.clock.0 != now {
            self.clock = (now, Clock::at(Time::from(self.since_epoch(now))));
        }
        self.clock.1
    }

    /// Seconds since the gateway's start: the flow table's clock.
    #[inline]
    pub(crate) fn now_s(&mut self, now: Instant) -> u32 {
        self.clock(now).s
    }

    /// Time since the gateway's start.
    pub(crate) fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.snapshot.epoch())
    }

    fn remove_missing(&mut self, snapshot: &Snapshot, identity_changed: bool) {
        let gone: Vec<Slot> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                // A peer that was removed and added again, both since the last look, may have the same number and key.
                // Its books are new.
                let kept = snapshot.peer(peer.spec.id).filter(|spec| {
                    spec.public_key == peer.spec.public_key
                        && Arc::ptr_eq(&spec.stats, &peer.spec.stats)
                });
                kept.is_none_or(|spec| match &peer.role {
                    Role::Main(_) => spec.worker != self.config.worker,
                    Role::Lane(lane) => {
                        let agreed = spec.lane_of(self.config.worker);
                        identity_changed
                            || agreed.is_none_or(|agreed| agreed.lane != lane.spec.lane)
                    }
                })
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in gone {
            self.drop_staged(slot, DropReason::PeerRemoved);
            if let Some(gone) = self.peers.remove(slot)
                && gone.paths.is_some()
            {
                gone.spec.board.reset();
            }
            self.connect.retain(|other| *other != slot);
            self.control_out.retain(|(other, _)| *other != slot);
            self.unflushed.retain(|other| *other != slot);
        }
    }

    fn apply(&mut self, spec: &Arc<PeerSpec>, identity_changed: bool, now: Instant) {
        let identity = self.snapshot.identity().clone();
        let Some(slot) = self.peers.slot_of(spec.id) else {
            let role = Role::Main(Negotiation::new(identity.public_key(), spec.public_key));
            if let Some(slot) = self.peers.insert(&identity, spec.clone(), role, now)
                && spec.endpoint.is_some()
            {
                self.connect.push_back(slot);
            }
            return;
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let old = std::mem::replace(&mut peer.spec, spec.clone());
        let keys_changed = identity_changed || old.preshared_key != spec.preshared_key;
        if keys_changed {
            // Only a new tunnel forgets a handshake under the old keys, which would hold the next one up.
            peer.role = Role::Main(Negotiation::new(identity.public_key(), spec.public_key));
            self.drop_staged(slot, DropReason::PeerRemoved);
            self.peers.rebuild(&identity, slot, now);
        }
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if old.keepalive != spec.keepalive {
            peer.tunnel.set_keepalive(spec.keepalive);
        }
        let configured = |spec: &PeerSpec| (spec.endpoint, spec.endpoint_serial);
        let moved = configured(&old) != configured(spec) && spec.endpoint.is_some();
        if moved {
            peer.endpoint = spec.endpoint.map(Endpoint::from);
            peer.publish_endpoint();
        }
        path_machine::reconfigure(self, slot, moved, now);
        let Some(peer) = self.peers.get(slot) else {
            return;
        };
        let keepalive_began = old.keepalive.is_none() && spec.keepalive.is_some();
        let wants_session = keys_changed || moved || keepalive_began;
        if wants_session && !peer.tunnel.has_session() && peer.endpoint.is_some() {
            self.connect.push_back(slot);
        }
    }

    fn drop_staged(&mut self, slot: Slot, reason: DropReason) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let mut packets = 0;
        while peer.tunnel.unstage().is_some() {
            packets += 1;
        }
        self.counters.staged -= packets;
        self.counters.drop(reason, packets);
    }

    /// Runs the timers of all peers, as far as the output has room; the rest follows at the next call.
    fn run_peer_timers(&mut self, now: Instant) {
        while self.timer_cursor < self.peers.slots() {
            if !pipeline::has_room_for_control(self) {
                return;
            }
            pipeline::peer_timer(self, Slot(self.timer_cursor), now);
            self.timer_cursor += 1;
        }
        self.timer_cursor = 0;
        self.see_what_tun_can_do();
        self.next_timer = now + TIMER_INTERVAL;
        // Any worker may do it: the gate counts by its own clock.
        self.snapshot.identity().gate().next_second();
        for lane in self.snapshot.lane_identities() {
            lane.gate().next_second();
        }
    }

    fn see_what_tun_can_do(&mut self) {
        self.wants_tun = self.peers.iter().any(|(_, peer)| match peer.role {
            Role::Main(_) => true,
            Role::Lane(_) => peer.tunnel.has_session(),
        });
    }

    /// Closes a batch: ends the open superpackets and makes the counters visible.
    fn finish(&mut self) {
        pipeline::close_flight(self);
        self.tun_out.finish();
        self.publish();
    }

    fn publish(&mut self) {
        self.counters.flows_evicted = self.flows.evicted();
        self.peers.publish();
        self.published.store(&self.counters);
    }
}

/// Number of frames, from the first, that `take` took.
fn take_until_full<F>(frames: &mut [F], mut take: impl FnMut(&mut F) -> bool) -> usize {
    let refused = frames.iter_mut().position(|frame| !take(frame));
    refused.unwrap_or(frames.len())
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("worker", &self.config.worker)
            .field("generation", &self.snapshot.generation())
            .finish_non_exhaustive()
    }
}
