//! What a path did lately: its Downs, and what it lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observation::Direction;
use crate::time::Time;

/// When something bad happened, the last few times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Recent {
    times: [Time; RECENT_MAX],
    len: u8,
}

impl Recent {
    /// Notes one. More than `RECENT_MAX` of them count no more than that many: the hold-down is at its longest by then.
    pub(super) fn push(&mut self, now: Time) {
        self.times.rotate_right(1);
        self.times[0] = now;
        self.len = self.len.saturating_add(1).min(RECENT_MAX as u8);
    }

    /// How many of the last 10 minutes.
    pub(super) fn count(&self, now: Time) -> u32 {
        let times = self.times.iter().take(usize::from(self.len));
        times.filter(|at| now.since(**at) < RECENT_SPAN).count() as u32
    }

    /// When the oldest one that counts will not.
    pub(super) fn next_expiry(&self, now: Time) -> Option<Time> {
        let times = self.times.iter().take(usize::from(self.len));
        let counted = times.filter(|at| now.since(**at) < RECENT_SPAN);
        counted.min().map(|at| *at + RECENT_SPAN)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// How long a path must be well after it was in trouble `times` times in the last 10 minutes.
pub(super) fn hold_down(times: u32) -> Duration {
    match times {
        0 => Duration::ZERO,
        // 10 s · 2^5 is above the longest already.
        _ => (HOLD_DOWN * 2u32.pow((times - 1).min(5))).min(HOLD_DOWN_MAX),
    }
}

/// Packets of one kind in one direction in 10 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bucket {
    probes: u32,
    probes_lost: u32,
    data: u32,
    data_lost: u32,
}

/// Packets of the last minute, in buckets of 10 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LossHistory {
    /// Number of the bucket that is being filled, since time 0.
    at: u64,
    /// Per direction, the bucket of number n in place n mod 6.
    buckets: [[Bucket; BUCKETS]; 2],
}

/// How many packets were lost of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lost {
    pub(super) lost: u32,
    pub(super) of: u32,
}

impl Lost {
    fn share(self) -> f64 {
        if self.of == 0 {
            return 0.0;
        }
        f64::from(self.lost) / f64::from(self.of)
    }

    /// The share that may be lost where chance, within two standard deviations, made it that few.
    fn most(self) -> f64 {
        if self.of == 0 {
            return 1.0;
        }
        let lost = f64::from(self.lost);
        (lost + 1.0 + 2.0 * (lost + 1.0).sqrt()) / f64::from(self.of)
    }
}

impl LossHistory {
    /// Notes packets.
    pub(super) fn add_probe(&mut self, direction: Direction, is_lost: bool, now: Time) {
        let bucket = self.bucket(direction, now);
        bucket.probes = bucket.probes.saturating_add(1);
        bucket.probes_lost = bucket.probes_lost.saturating_add(u32::from(is_lost));
    }

    pub(super) fn add_data(&mut self, direction: Direction, sent: u32, lost: u32, now: Time) {
        let bucket = self.bucket(direction, now);
        bucket.data = bucket.data.saturating_add(sent);
        bucket.data_lost = bucket.data_lost.saturating_add(lost.min(sent));
    }

    /// The share that is lost in one direction, guarded against small numbers: what nothing is known of has lost 1.7 %.
    /// That of the last minute, or of the last 10 to 20 s where even chance explains no more than that much: a path that
    /// lost before and loses no longer is not to speak for a minute. Data speaks while there is some: on a path that was
    /// left, for its loss or because the peer left it, none follows that could speak against what was lost.
    pub(super) fn shared(&self, direction: Direction, is_carrying: bool, now: Time) -> f64 {
        let (probes, _) = self.sum(direction, BUCKETS as u64 - 1, now);
        let (recent, data) = self.sum(direction, 1, now);
        let guarded =
            f64::from(probes.lost.saturating_add(1)) / f64::from(probes.of.saturating_add(PRIOR));
        let guarded = guarded.min(recent.most());
        if data.of < DATA_MIN || !is_carrying {
            return guarded;
        }
        guarded.max(data.share())
    }

    /// Forgets what was before the last 30 to 40 s: the path is well again, and what it lost before says nothing of it.
    pub(super) fn forget_trouble(&mut self, now: Time) {
        let number = number(now);
        for back in HALF_MINUTE + 1..BUCKETS as u64 {
            let Some(old) = number.checked_sub(back) else {
                return;
            };
            if old <= self.at && self.at - old < BUCKETS as u64 {
                let old = (old % BUCKETS as u64) as usize;
                self.buckets[0][old] = Bucket::default();
                self.buckets[1][old] = Bucket::default();
            }
        }
    }

    /// What was lost over the last 30 to 40 s, in percent, in the worse direction; `None` where too little was sent.
    pub(super) fn half_minute_pct(&self, now: Time) -> Option<f64> {
        let known = DIRECTIONS.map(|direction| {
            let (probes, data) = self.sum(direction, HALF_MINUTE, now);
            let probes_pct = (probes.of >= PROBES_MIN).then(|| probes.share() * 100.0);
            let data_pct = (data.of >= DATA_MIN).then(|| data.share() * 100.0);
            [probes_pct, data_pct]
        });
        known.into_iter().flatten().flatten().reduce(f64::max)
    }

    /// Probes of the last 30 to 40 s in one direction.
    pub(super) fn half_minute(&self, direction: Direction, now: Time) -> Lost {
        self.sum(direction, HALF_MINUTE, now).0
    }

    /// Probes and data of the bucket being filled and of `before` buckets before it.
    fn sum(&self, direction: Direction, before: u64, now: Time) -> (Lost, Lost) {
        let number = number(now);
        let mut probes = Lost::default();
        let mut data = Lost::default();
        for back in 0..=before.min(number) {
            // What lies ahead of the last filled one is empty; what lies a minute back is overwritten.
            let wanted = number - back;
            if wanted > self.at || self.at - wanted >= BUCKETS as u64 {
                continue;
            }
            let bucket = &self.buckets[place(direction)][(wanted % BUCKETS as u64) as usize];
            probes.of = probes.of.saturating_add(bucket.probes);
            probes.lost = probes.lost.saturating_add(bucket.probes_lost);
            data.of = data.of.saturating_add(bucket.data);
            data.lost = data.lost.saturating_add(bucket.data_lost);
        }
        (probes, data)
    }

    fn bucket(&mut self, direction: Direction, now: Time) -> &mut Bucket {
        let number = number(now).max(self.at);
        let passed = (number - self.at).min(BUCKETS as u64);
        for ahead in 0..passed {
            let empty = ((number - ahead) % BUCKETS as u64) as usize;
            self.buckets[0][empty] = Bucket::default();
            self.buckets[1][empty] = Bucket::default();
        }
        self.at = number;
        &mut self.buckets[place(direction)][(number % BUCKETS as u64) as usize]
    }
}

/// A direction as an index into a pair.
pub(super) fn place(direction: Direction) -> usize {
    match direction {
        Direction::Tx => 0,
        Direction::Rx => 1,
    }
}

fn number(now: Time) -> u64 {
    now.0 / BUCKET_NS
}

const DIRECTIONS: [Direction; 2] = [Direction::Tx, Direction::Rx];
const RECENT_MAX: usize = 6;
const RECENT_SPAN: Duration = Duration::from_secs(600);
const HOLD_DOWN: Duration = Duration::from_secs(10);
const HOLD_DOWN_MAX: Duration = Duration::from_secs(300);
const BUCKETS: usize = 6;
const BUCKET_NS: u64 = 10_000_000_000;
const HALF_MINUTE: u64 = 3;
const PRIOR: u32 = 60;
const PROBES_MIN: u32 = 10;
const DATA_MIN: u32 = 100;
