//! The numbers of a path as others see them.

use std::time::Duration;

use super::Path;
use crate::metrics::{Bandwidth, BandwidthSource, PathMetrics};
use crate::mtu::outer_len;
use crate::observation::Observation;
use crate::outbox::Outbox;
use crate::time::Time;

/// Between two reports.
const REPORT_ACTIVE: Duration = Duration::from_millis(250);
const REPORT_IDLE: Duration = Duration::from_secs(1);
/// A measured capacity beats the configured one for so long.
const CAPACITY_FRESH: Duration = Duration::from_secs(600);

impl Path {
    /// Largest outer IP packet that passes.
    pub(crate) fn mtu(&self) -> Option<u16> {
        let len = self.mtu.known()?;
        Some(outer_len(len, &self.remote))
    }

    /// Tells the selector the numbers, if it is time again.
    pub(super) fn report(&mut self, now: Time, outbox: &mut Outbox) {
        if now < self.metrics_at || self.peer.is_none() {
            return;
        }
        self.metrics_at = now
            + match self.is_active() {
                true => REPORT_ACTIVE,
                false => REPORT_IDLE,
            };
        let metrics = Box::new(self.metrics(now));
        outbox.push(Observation::Metrics(self.index, metrics));
    }

    pub(crate) fn metrics(&self, now: Time) -> PathMetrics {
        let estimates = &self.estimates;
        let round_trip = &estimates.round_trip;
        let train = self.trains.best();
        let tx_train = train.map(|(kbps, at)| (f64::from(kbps) * 1e3, at));
        let tx_passive = estimates.tx_passive.best();
        PathMetrics {
            rtt_fast_ns: round_trip.fast_ns(),
            rtt_slow_ns: round_trip.slow_ns(),
            rtt_min_ns: round_trip.least_ns(now),
            rtt_p95_ns: round_trip.p95_ns(now),
            tx_jitter_ns: estimates.tx_jitter_ns,
            rx_jitter_ns: estimates.rx_jitter.jitter_ns(),
            tx_loss: estimates.departures.windows.shares(now),
            rx_loss: estimates.arrivals.windows.shares(now),
            tx_data_loss: estimates.tx_data.share(now),
            rx_data_loss: estimates.rx_data.share(now),
            rx_queueing_ns: estimates.one_way.queueing_ns(),
            queueing_ns: round_trip.queueing_ns(now),
            tx_bandwidth: bandwidth(self.profile.capacity_bps, tx_passive, tx_train, now),
            rx_bandwidth: bandwidth(self.rx_capacity_bps, estimates.rx_passive.best(), None, now),
            tx_bps: estimates.tx_rate.bps(now),
            rx_bps: estimates.rx_rate.bps(now),
            mtu: self.mtu(),
        }
    }
}

/// The figure that counts: the newest measurement while it is fresh, but never more than is configured; else what is
/// configured; else an old measurement.
fn bandwidth(
    configured_bps: Option<f64>,
    passive: Option<(f64, Time)>,
    train: Option<(f64, Time)>,
    now: Time,
) -> Option<Bandwidth> {
    let measured = [
        passive.map(|best| (BandwidthSource::Passive, best)),
        train.map(|best| (BandwidthSource::Train, best)),
    ];
    let measured = measured
        .into_iter()
        .flatten()
        .max_by_key(|(_, (_, at))| *at);
    let measured = measured.map(|(source, (bps, at))| Bandwidth {
        bps,
        source,
        age_s: now.since(at).as_secs_f64(),
    });
    let Some(configured_bps) = configured_bps else {
        return measured;
    };
    let is_tighter = |measured: &Bandwidth| {
        measured.age_s < CAPACITY_FRESH.as_secs_f64() && measured.bps < configured_bps
    };
    measured.filter(is_tighter).or(Some(Bandwidth {
        bps: configured_bps,
        source: BandwidthSource::Configured,
        age_s: 0.0,
    }))
}
