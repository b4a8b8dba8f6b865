//! What the tests share: frames, privilege, a veth pair in a namespace.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

pub mod frames;
pub mod net;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use patronus_ebpf::{Support, WanFilter, WanReason};

/// Whether programs can be loaded here; says why not, and fails where a skip is not allowed.
pub fn can_load() -> bool {
    match Support::probe().refusal() {
        None => true,
        Some(why) => skip(&why),
    }
}

/// Prints the reason; panics where PATRONUS_REQUIRE_ROOT_TESTS says that nothing may be skipped.
pub fn skip(reason: &str) -> bool {
    assert!(
        std::env::var_os("PATRONUS_REQUIRE_ROOT_TESTS").is_none_or(|value| value != "1"),
        "may not be skipped: {reason}"
    );
    println!("skipped: {reason}");
    false
}

/// Packets that ended for each reason that occurred.
pub fn counted(filter: &WanFilter) -> Vec<(WanReason, u64)> {
    let stats = filter.stats().unwrap();
    assert!(stats.adds_up(), "{stats:?}");
    stats
        .reasons()
        .filter(|(_, counter)| counter.packets > 0)
        .map(|(reason, counter)| (reason, counter.packets))
        .collect()
}

/// A generator of test data (xorshift64*), the same for the same seed.
pub struct Dice(u64);

impl Dice {
    /// Seeded from `PATRONUS_SEED` or the clock; the seed is printed, so that a failure can be had again.
    pub fn new(test: &str) -> Self {
        let seed = match std::env::var("PATRONUS_SEED") {
            Ok(text) => text.parse().expect("PATRONUS_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("{test}: PATRONUS_SEED={seed}");
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Nanoseconds of this thread's CPU time that one call of `work` takes, over `times`.
pub fn counted_cpu(times: u32, mut work: impl FnMut()) -> u64 {
    let now = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let sum = usage.user_time() + usage.system_time();
        std::time::Duration::from_micros(sum.num_microseconds() as u64)
    };
    let start = now();
    for _ in 0..times {
        work();
    }
    ((now() - start) / times).as_nanos() as u64
}
