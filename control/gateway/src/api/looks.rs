//! Looks at the counters, a second apart, for rates; and how full flow tables are, counted at most once a second.
//!
//! Control looks once a second whether anybody asks or not, which costs some hundred loads. Nobody writes what workers
//! write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use patronus_api::{FlowTableView, RatesView};
use patronus_engine::{Counters, FlowTable, PeerId, Snapshot};

use crate::facts::{WorkerFacts, WorkerReading};

/// One look at everything that has a rate.
#[derive(Debug)]
pub struct Look {
    at: Instant,
    workers: Vec<(Counters, Duration, Duration)>,
    peers: HashMap<PeerId, (u64, u64)>,
}

impl Look {
    /// Looks.
    pub fn new(facts: &dyn WorkerFacts, snapshot: &Snapshot, now: Instant) -> Self {
        let of_worker = |it: WorkerReading| (it.counters, it.time.busy, it.time.looking);
        let peers = snapshot.peers();
        Self {
            at: now,
            workers: facts.read().into_iter().map(of_worker).collect(),
            peers: peers
                .map(|spec| (spec.id, (spec.rx_bytes(), spec.tx_bytes())))
                .collect(),
        }
    }
}

/// The last two looks.
#[derive(Debug, Default)]
pub struct Looks(Mutex<LastTwo>);

#[derive(Debug, Default)]
struct LastTwo {
    older: Option<Arc<Look>>,
    newer: Option<Arc<Look>>,
}

impl Looks {
    /// Keeps a look; the one before the last is forgotten.
    pub fn keep(&self, look: Look) {
        let mut looks = lock(&self.0);
        looks.older = looks.newer.take();
        looks.newer = Some(Arc::new(look));
    }

    /// Rates between the last two.
    pub fn rates(&self) -> Option<Rates> {
        let looks = lock(&self.0);
        let (older, newer) = (looks.older.clone()?, looks.newer.clone()?);
        let window = newer.at.saturating_duration_since(older.at);
        (!window.is_zero()).then_some(Rates {
            older,
            newer,
            window,
        })
    }
}

/// Rates between two looks.
#[derive(Debug)]
pub struct Rates {
    older: Arc<Look>,
    newer: Arc<Look>,
    window: Duration,
}

impl Rates {
    /// Those of one worker.
    pub fn of_worker(&self, worker: usize) -> Option<RatesView> {
        let (new, old) = (
            self.newer.workers.get(worker)?,
            self.older.workers.get(worker)?,
        );
        let seconds = self.window.as_secs_f64();
        let per_s = |new: u64, old: u64| round(new.saturating_sub(old) as f64 / seconds);
        let bits = |new: u64, old: u64| round(new.saturating_sub(old) as f64 * 8.0 / seconds);
        let share = |new: Duration, old: Duration| {
            let share = new.saturating_sub(old).as_secs_f64() / seconds;
            // A turn is booked at its end, which may lie in the next window.
            round(share.min(1.0) * 100.0)
        };
        let (n, o) = (&new.0, &old.0);
        Some(RatesView {
            window_s: round(seconds),
            busy_pct: share(new.1, old.1),
            spinning_pct: share(new.2, old.2),
            rx_tun_pps: per_s(n.rx_tun, o.rx_tun),
            rx_tun_bps: bits(n.rx_tun_bytes, o.rx_tun_bytes),
            tx_tun_pps: per_s(n.tx_tun, o.tx_tun),
            tx_tun_bps: bits(n.tx_tun_bytes, o.tx_tun_bytes),
            rx_udp_pps: per_s(n.rx_udp, o.rx_udp),
            rx_udp_bps: bits(n.rx_udp_bytes, o.rx_udp_bytes),
            tx_udp_pps: per_s(n.tx_udp, o.tx_udp),
            tx_udp_bps: bits(n.tx_udp_bytes, o.tx_udp_bytes),
            drops_pps: per_s(n.dropped(), o.dropped()),
            flows_opened_per_s: per_s(n.flows_opened, o.flows_opened),
        })
    }

    /// Those of all workers together: sums, and of shares the mean.
    pub fn total(&self) -> RatesView {
        let each = (0..self.newer.workers.len()).filter_map(|at| self.of_worker(at));
        let each: Vec<RatesView> = each.collect();
        let sum = |of: fn(&RatesView) -> f64| round(each.iter().map(of).sum());
        let mean = |of: fn(&RatesView) -> f64| {
            round(each.iter().map(of).sum::<f64>() / each.len().max(1) as f64)
        };
        RatesView {
            window_s: round(self.window.as_secs_f64()),
            busy_pct: mean(|it| it.busy_pct),
            spinning_pct: mean(|it| it.spinning_pct),
            rx_tun_pps: sum(|it| it.rx_tun_pps),
            rx_tun_bps: sum(|it| it.rx_tun_bps),
            tx_tun_pps: sum(|it| it.tx_tun_pps),
            tx_tun_bps: sum(|it| it.tx_tun_bps),
            rx_udp_pps: sum(|it| it.rx_udp_pps),
            rx_udp_bps: sum(|it| it.rx_udp_bps),
            tx_udp_pps: sum(|it| it.tx_udp_pps),
            tx_udp_bps: sum(|it| it.tx_udp_bps),
            drops_pps: sum(|it| it.drops_pps),
            flows_opened_per_s: sum(|it| it.flows_opened_per_s),
        }
    }

    /// Bits per second received from a peer and sent to it.
    pub fn of_peer(&self, id: PeerId) -> Option<(f64, f64)> {
        let (new, old) = (self.newer.peers.get(&id)?, self.older.peers.get(&id)?);
        let seconds = self.window.as_secs_f64();
        // A peer that was removed and made again begins anew.
        let bits = |new: u64, old: u64| round(new.saturating_sub(old) as f64 * 8.0 / seconds);
        Some((bits(new.0, old.0), bits(new.1, old.1)))
    }
}

/// How full the flow tables were, by worker, and when that was counted.
#[derive(Debug, Default)]
pub struct FlowGauge(Mutex<Option<(Instant, Vec<FlowTableView>)>>);

impl FlowGauge {
    /// How full they are. Who comes while another one counts waits for it.
    pub fn read(
        &self,
        tables: &[Arc<FlowTable>],
        epoch: Instant,
        now: Instant,
    ) -> Vec<FlowTableView> {
        let mut last = lock(&self.0);
        if let Some((at, counted)) = &*last
            && now.saturating_duration_since(*at) < GAUGE_INTERVAL
        {
            return counted.clone();
        }
        let now_s = now.saturating_duration_since(epoch).as_secs() as u32;
        let counted = tables.iter().map(|table| FlowTableView {
            used: table.flows(now_s).count(),
            capacity: table.capacity(),
        });
        let counted: Vec<FlowTableView> = counted.collect();
        *last = Some((now, counted.clone()));
        counted
    }
}

/// To three digits behind the point.
pub fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What a panic left behind is as good as before: every change here is whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, packets: u64, busy_ms: u64) -> Look {
        let counters = Counters {
            rx_tun: packets,
            rx_tun_bytes: packets * 1000,
            ..Counters::default()
        };
        let idle = Counters::default();
        Look {
            at,
            workers: vec![
                (counters, Duration::from_millis(busy_ms), Duration::ZERO),
                (idle, Duration::ZERO, Duration::from_millis(busy_ms)),
            ],
            peers: HashMap::from([(PeerId(3), (packets, 2 * packets))]),
        }
    }

    #[test]
    fn rates_are_differences_over_the_time_between_two_looks() {
        let start = Instant::now();
        let looks = Looks::default();
        looks.keep(look(start, 1000, 100));
        assert!(looks.rates().is_none());
        looks.keep(look(start + Duration::from_secs(2), 5000, 1100));
        let rates = looks.rates().unwrap();
        let first = rates.of_worker(0).unwrap();
        assert_eq!((first.rx_tun_pps, first.rx_tun_bps), (2000.0, 16e6));
        assert_eq!((first.busy_pct, first.window_s), (50.0, 2.0));
        let total = rates.total();
        assert_eq!(
            (total.rx_tun_pps, total.busy_pct, total.spinning_pct),
            (2000.0, 25.0, 25.0)
        );
        assert_eq!(rates.of_peer(PeerId(3)), Some((16_000.0, 32_000.0)));
        assert_eq!(rates.of_peer(PeerId(4)), None);
        assert_eq!(rates.of_worker(2), None);
    }

    #[test]
    fn a_counter_that_begins_anew_has_no_rate_below_zero() {
        let start = Instant::now();
        let looks = Looks::default();
        looks.keep(look(start, 1000, 100));
        looks.keep(look(start + Duration::from_secs(1), 10, 10));
        let rates = looks.rates().unwrap();
        assert_eq!(rates.of_worker(0).unwrap().rx_tun_pps, 0.0);
        assert_eq!(rates.of_peer(PeerId(3)), Some((0.0, 0.0)));
    }
}
