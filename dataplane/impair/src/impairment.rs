//! What a direction of a link does to packets, as types that cannot hold nonsense.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::Dice;

/// What one direction of a link does to packets. The default does nothing: every packet arrives once, in order, at
/// the instant it was sent.
///
/// A packet passes these in turn: the black hole, the MTU, loss, the queue and the rate, then the delay with its
/// jitter. What is lost takes no room in the queue and none of the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Time every packet takes.
    pub delay: Duration,
    /// What is added to it at random.
    pub jitter: Jitter,
    /// Packets never overtake each other, as in a path without parallel ways: one that would is held back until the
    /// one before arrives. Those that [`reorder`](Self::reorder) picks are left out of this.
    pub keep_order: bool,
    /// What is lost at random.
    pub loss: Loss,
    /// What is held back so that later packets overtake it.
    pub reorder: Reorder,
    /// Chance of arriving twice.
    pub duplicate: Probability,
    /// What passes at most, counted in bytes of IP packets; unlimited where absent.
    pub rate: Option<RateBps>,
    /// Bytes of IP packets that may wait for the rate, the one under way included; a packet that does not fit is
    /// dropped. Where absent, 100 ms worth of the rate, at least [`QUEUE_BYTES_MIN`]. Without a rate nothing waits.
    pub queue_bytes: Option<u64>,
    /// The longest IP packet in bytes that passes; longer ones vanish without an ICMP message.
    pub mtu: Option<u16>,
    /// IP packets of these lengths in bytes, both ends included, vanish as well: a middlebox that takes some of the data
    /// and lets small and large probes pass.
    pub hole: Option<(u16, u16)>,
    /// Nothing passes.
    pub blackhole: bool,
    /// Chance that a packet is marked "congestion experienced" (RFC 3168).
    pub mark_ce: Probability,
}

/// Time added to the delay at random, for each packet on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Jitter {
    /// The size; what it means depends on the shape.
    pub amount: Duration,
    /// The distribution.
    pub shape: JitterShape,
}

/// The distribution of jitter of the size `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum JitterShape {
    /// Evenly from 0 to `a`: mean a/2, standard deviation a/√12.
    #[default]
    Uniform,
    /// Normal with mean 0 and standard deviation `a`, cut at ±3 a; a delay that would be negative is 0.
    Normal,
    /// Exponential with mean and standard deviation `a`, cut at 10 a: a long tail, as queues of others make it.
    Exponential,
}

/// What is lost at random.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Loss {
    /// Nothing.
    #[default]
    None,
    /// Each packet on its own with this chance.
    Random(Probability),
    /// Bursts.
    GilbertElliott(GilbertElliott),
}

/// Losses that come in bursts: a chain with a good and a bad state that makes one step per packet, before the packet
/// is lost with the chance of the state it is in (Gilbert 1960, Elliott 1963).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// Chance to go from good to bad.
    pub enter: Probability,
    /// Chance to go from bad to good.
    pub leave: Probability,
    /// Chance of loss in the good state.
    pub loss_good: Probability,
    /// Chance of loss in the bad state.
    pub loss_bad: Probability,
}

/// Packets that are held back.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Reorder {
    /// Chance of being held back.
    pub chance: Probability,
    /// For how long, on top of delay and jitter.
    pub extra: Duration,
}

/// A chance: from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Default)]
pub struct Probability(f64);

/// A rate in bits per second, more than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateBps(NonZeroU64);

impl Default for Impairment {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Jitter::default(),
            keep_order: true,
            loss: Loss::None,
            reorder: Reorder::default(),
            duplicate: Probability::NEVER,
            rate: None,
            queue_bytes: None,
            mtu: None,
            hole: None,
            blackhole: false,
            mark_ce: Probability::NEVER,
        }
    }
}

impl Impairment {
    /// What may wait for `rate`, in bytes.
    pub fn queue_bytes_at(&self, rate: RateBps) -> u64 {
        let tenth_of_a_second = rate.as_bits_per_second() / 80;
        self.queue_bytes
            .unwrap_or(tenth_of_a_second.max(QUEUE_BYTES_MIN))
    }
}

impl Jitter {
    /// Delay and jitter of one packet.
    pub(crate) fn added_to(self, delay: Duration, dice: &mut Dice) -> Duration {
        if self.amount.is_zero() {
            return delay;
        }
        let amount = self.amount.min(TIME_MAX).as_secs_f64();
        let added = match self.shape {
            JitterShape::Uniform => dice.fraction() * amount,
            JitterShape::Normal => dice.normal().clamp(-NORMAL_CUT, NORMAL_CUT) * amount,
            JitterShape::Exponential => dice.exponential().min(EXPONENTIAL_CUT) * amount,
        };
        match added < 0.0 {
            true => delay.saturating_sub(Duration::from_secs_f64(-added)),
            false => delay.saturating_add(Duration::from_secs_f64(added)),
        }
    }
}

impl GilbertElliott {
    /// Bursts in which everything is lost, nothing outside: of `mean_loss` in all and of `mean_burst_packets` (1 or
    /// more) on average. `None` where no chain is like that: such bursts would have to follow each other closer than
    /// one packet.
    pub fn bursts(mean_loss: Probability, mean_burst_packets: f64) -> Option<Self> {
        let leave = 1.0 / mean_burst_packets;
        let loss = mean_loss.as_fraction();
        Some(Self {
            enter: Probability::new(leave * loss / (1.0 - loss))?,
            leave: Probability::new(leave)?,
            loss_good: Probability::NEVER,
            loss_bad: Probability::ALWAYS,
        })
    }

    /// The share of packets that is lost in the long run; the chain begins in the good state.
    pub fn mean_loss(&self) -> f64 {
        let (enter, leave) = (self.enter.as_fraction(), self.leave.as_fraction());
        match enter + leave > 0.0 {
            true => {
                let bad = enter / (enter + leave);
                bad * self.loss_bad.as_fraction() + (1.0 - bad) * self.loss_good.as_fraction()
            }
            false => self.loss_good.as_fraction(),
        }
    }

    /// How many packets a stay in the bad state lasts on average; infinite where it is never left.
    pub fn mean_burst_packets(&self) -> f64 {
        1.0 / self.leave.as_fraction()
    }
}

impl Probability {
    /// 0.
    pub const NEVER: Self = Self(0.0);
    /// 1.
    pub const ALWAYS: Self = Self(1.0);

    /// `None` outside 0 to 1.
    pub fn new(fraction: f64) -> Option<Self> {
        (0.0..=1.0).contains(&fraction).then_some(Self(fraction))
    }

    /// `None` outside 0 to 100.
    pub fn from_percent(percent: f64) -> Option<Self> {
        Self::new(percent / 100.0)
    }

    /// From 0 to 1.
    pub fn as_fraction(self) -> f64 {
        self.0
    }
}

impl RateBps {
    /// `None` for 0.
    pub fn new(bits_per_second: u64) -> Option<Self> {
        NonZeroU64::new(bits_per_second).map(Self)
    }

    /// Bits per second.
    pub fn as_bits_per_second(self) -> u64 {
        self.0.get()
    }

    /// How long `bytes` take, in picoseconds: in nanoseconds the rounding would show at 10 Gbit/s.
    pub(crate) fn picoseconds_of(self, bytes: u64) -> u128 {
        u128::from(bytes) * 8 * PICOSECONDS_PER_SECOND / u128::from(self.0.get())
    }
}

/// The least queue where none is given: twenty packets of 1500 bytes.
pub const QUEUE_BYTES_MIN: u64 = 30_000;
/// The longest delay or jitter that a file may ask for.
pub const TIME_MAX: Duration = Duration::from_secs(60);
const NORMAL_CUT: f64 = 3.0;
const EXPONENTIAL_CUT: f64 = 10.0;
const PICOSECONDS_PER_SECOND: u128 = 1_000_000_000_000;
