//! One direction of a link: what happens to the packets offered to it.
//!
//! ```text
//! offer -> black hole -> MTU -> loss -> (twice?) -> queue and rate -> delay, jitter, held back -> order -> fate
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Dice, GilbertElliott, Impairment, Loss};

/// One direction of a link.
///
/// Times are counted from a begin that the caller chooses. Offers come in the order of their times; an earlier one is
/// taken as offered at the time of the latest.
#[derive(Clone, Debug)]
pub struct Wire {
    impairment: Impairment,
    counters: WireCounters,
    /// The time of the latest offer.
    now: Duration,
    /// What waits for the rate: when it has left, in picoseconds, and its length. Limited by the queue in bytes.
    queue: VecDeque<(u128, u64)>,
    queued_bytes: u64,
    /// When the last one that keeps order arrives.
    arrival_last: Duration,
    /// Arrivals to come that nothing has overtaken so far, in rising order. Limited by rate times delay of what is
    /// under way.
    underway: VecDeque<Duration>,
    /// Whether the chain of Gilbert and Elliott is in its bad state.
    is_bad: bool,
    dice: WireDice,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives nowhere.
    Dropped(DropReason),
    /// It arrives.
    Once(Delivery),
    /// It and a copy arrive; in no order.
    Twice([Delivery; 2]),
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Duration,
    /// Whether the packet is to be marked "congestion experienced".
    pub mark_ce: bool,
}

/// Why a packet does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Nothing passes.
    Blackhole,
    /// Longer than the MTU, or of a length that does not pass.
    Mtu,
    /// Lost on its own.
    Random,
    /// Lost by the chain of Gilbert and Elliott.
    Burst,
    /// The queue was full.
    Queue,
}

impl DropReason {
    /// All there are, in the order of the counters.
    pub const ALL: [Self; 5] = [
        Self::Blackhole,
        Self::Mtu,
        Self::Random,
        Self::Burst,
        Self::Queue,
    ];

    /// One word, as reports print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Mtu => "mtu",
            Self::Random => "random",
            Self::Burst => "burst",
            Self::Queue => "queue",
        }
    }
}

/// What a wire did: `offered = delivered + Σ lost`. Bytes are those of IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WireCounters {
    /// Packets that came.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Packets that arrive, copies not counted; those on their way included.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets of which a copy arrives too.
    pub duplicated: u64,
    /// Packets that at least one later packet overtakes (RFC 4737's definition).
    pub reordered: u64,
    /// Packets chosen to be marked "congestion experienced"; the mark is for whoever carries them to make, on those that
    /// can have it.
    pub marked: u64,
    lost: [u64; DropReason::ALL.len()],
}

impl Wire {
    /// An unused wire.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            counters: WireCounters::default(),
            now: Duration::ZERO,
            queue: VecDeque::new(),
            queued_bytes: 0,
            arrival_last: Duration::ZERO,
            underway: VecDeque::new(),
            is_bad: false,
            dice: WireDice::new(seed),
        }
    }

    /// Changes what is done to the packets to come. Those on their way keep their fate, and their place where order
    /// is kept: after a delay has dropped, packets wait for the last one of the old delay.
    pub fn set(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    /// What is done to packets.
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// What was done so far.
    pub fn counters(&self) -> &WireCounters {
        &self.counters
    }

    /// Bytes that wait for the rate at the time of the latest offer.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Decides about an IP packet of `len` bytes that is offered at the time `now`.
    pub fn offer(&mut self, len: usize, now: Duration) -> Fate {
        let len = len.min(LEN_MAX) as u64;
        self.now = self.now.max(now);
        self.forget_the_past();
        self.counters.offered += 1;
        self.counters.offered_bytes += len;
        let fate = match self.admit(len) {
            Err(reason) => Fate::Dropped(reason),
            Ok(left) => self.send(len, left),
        };
        match fate {
            Fate::Dropped(reason) => self.counters.lost[reason as usize] += 1,
            Fate::Once(_) | Fate::Twice(_) => {
                self.counters.delivered += 1;
                self.counters.delivered_bytes += len;
            }
        }
        debug_assert!(self.counters.is_balanced());
        fate
    }

    /// Whether the packet passes, and when it has left the queue.
    fn admit(&mut self, len: u64) -> Result<Duration, DropReason> {
        // Every packet makes the same throws, so that another impairment leaves these chances as they are.
        let is_lost = self.throw_loss();
        if self.impairment.blackhole {
            return Err(DropReason::Blackhole);
        }
        let is_too_long = self.impairment.mtu.is_some_and(|mtu| len > u64::from(mtu));
        let is_in_hole = self
            .impairment
            .hole
            .is_some_and(|(from, to)| (u64::from(from)..=u64::from(to)).contains(&len));
        if is_too_long || is_in_hole {
            return Err(DropReason::Mtu);
        }
        if let Some(reason) = is_lost {
            return Err(reason);
        }
        self.enqueue(len).ok_or(DropReason::Queue)
    }

    fn throw_loss(&mut self) -> Option<DropReason> {
        match self.impairment.loss {
            Loss::None => None,
            Loss::Random(chance) => self.dice.loss.chance(chance).then_some(DropReason::Random),
            Loss::GilbertElliott(chain) => self.step_chain(chain).then_some(DropReason::Burst),
        }
    }

    fn step_chain(&mut self, chain: GilbertElliott) -> bool {
        let turn = match self.is_bad {
            true => chain.leave,
            false => chain.enter,
        };
        self.is_bad ^= self.dice.chain.chance(turn);
        self.dice.loss.chance(match self.is_bad {
            true => chain.loss_bad,
            false => chain.loss_good,
        })
    }

    /// When a packet has passed the rate; `None` when it finds no room to wait.
    fn enqueue(&mut self, len: u64) -> Option<Duration> {
        let Some(rate) = self.impairment.rate else {
            return Some(self.now);
        };
        let is_idle = self.queue.is_empty();
        // An idle line takes any packet: it need not wait.
        if !is_idle && self.queued_bytes + len > self.impairment.queue_bytes_at(rate) {
            return None;
        }
        let now = picoseconds(self.now);
        let begin = self.queue.back().map_or(now, |(left, _)| (*left).max(now));
        let left = begin + rate.picoseconds_of(len);
        self.queue.push_back((left, len));
        self.queued_bytes += len;
        Some(duration(left))
    }

    /// A packet that left the queue at `left` is on its way, and perhaps a copy of it.
    fn send(&mut self, len: u64, left: Duration) -> Fate {
        let mark_ce = self.dice.mark.chance(self.impairment.mark_ce);
        self.counters.marked += u64::from(mark_ce);
        let is_doubled = self.dice.duplicate.chance(self.impairment.duplicate);
        let at = self.arrival(left);
        self.count_overtaken(at);
        let first = Delivery { at, mark_ce };
        if !is_doubled {
            return Fate::Once(first);
        }
        // The copy takes its own room in the queue; without room there is no copy.
        let Some(left) = self.enqueue(len) else {
            return Fate::Once(first);
        };
        self.counters.duplicated += 1;
        let at = self.arrival(left);
        Fate::Twice([first, Delivery { at, mark_ce }])
    }

    fn arrival(&mut self, left: Duration) -> Duration {
        let impairment = &self.impairment;
        let took = impairment
            .jitter
            .added_to(impairment.delay, &mut self.dice.jitter);
        let arrival = left.saturating_add(took);
        if self.dice.reorder.chance(impairment.reorder.chance) {
            return arrival.saturating_add(impairment.reorder.extra);
        }
        if !impairment.keep_order {
            return arrival;
        }
        self.arrival_last = self.arrival_last.max(arrival);
        self.arrival_last
    }

    /// Counts those before it that a packet which arrives at `at` overtakes; each is counted once.
    fn count_overtaken(&mut self, at: Duration) {
        while self.underway.back().is_some_and(|other| *other > at) {
            self.underway.pop_back();
            self.counters.reordered += 1;
        }
        self.underway.push_back(at);
    }

    fn forget_the_past(&mut self) {
        let now = picoseconds(self.now);
        while let Some((left, len)) = self.queue.front()
            && *left <= now
        {
            self.queued_bytes -= len;
            self.queue.pop_front();
        }
        while self.underway.front().is_some_and(|at| *at < self.now) {
            self.underway.pop_front();
        }
    }
}

impl Fate {
    /// The arrivals: none, one or two.
    pub fn deliveries(&self) -> &[Delivery] {
        match self {
            Self::Dropped(_) => &[],
            Self::Once(delivery) => std::slice::from_ref(delivery),
            Self::Twice(both) => both,
        }
    }
}

impl WireCounters {
    /// Packets lost for that reason.
    pub fn lost(&self, reason: DropReason) -> u64 {
        self.lost[reason as usize]
    }

    /// Packets lost for any reason.
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Whether every packet is accounted for.
    pub fn is_balanced(&self) -> bool {
        self.offered == self.delivered + self.lost_total()
    }
}

/// Dice for each purpose, so that a change of one impairment leaves the chances of the others alone.
#[derive(Clone, Debug)]
struct WireDice {
    loss: Dice,
    chain: Dice,
    jitter: Dice,
    reorder: Dice,
    duplicate: Dice,
    mark: Dice,
}

impl WireDice {
    fn new(seed: u64) -> Self {
        let dice = |purpose| Dice::for_purpose(seed, purpose);
        Self {
            loss: dice(1),
            chain: dice(2),
            jitter: dice(3),
            reorder: dice(4),
            duplicate: dice(5),
            mark: dice(6),
        }
    }
}

fn picoseconds(time: Duration) -> u128 {
    time.as_nanos() * 1000
}

/// Rounded up: nothing arrives before it has left.
fn duration(picoseconds: u128) -> Duration {
    let nanoseconds = picoseconds.div_ceil(1000);
    match u64::try_from(nanoseconds / 1_000_000_000) {
        Ok(seconds) => Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32),
        Err(_) => Duration::MAX,
    }
}

/// The longest packet that is told from longer ones; no IP packet is (RFC 2675).
const LEN_MAX: usize = u32::MAX as usize;
