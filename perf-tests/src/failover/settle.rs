//! What happens between two trials: paths come up again, what earlier trials left is forgotten.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use patronus_api::PathCommand;

use super::fault::Fault;
use super::trial::Stage;
use super::twin::Pair;
use super::watch;

impl Stage<'_> {
    /// Waits until everything is up and forgets what earlier trials left; the path in use, and how often a gateway
    /// changed it since the trial before.
    ///
    /// # Errors
    /// What is still amiss after [`SETTLE_MAX`].
    pub(super) fn settle(&mut self, fault: Fault) -> Result<(Pair, u32)> {
        let class = fault.class().0;
        self.settled(fault)?;
        if self.trials == 0 {
            self.await_first_choice(class)?;
            if fault == Fault::Brownout20Bulk {
                self.measure_and_choose(class)?;
            }
        }
        for watch in &self.watches {
            for path in watch.paths()?.paths {
                watch.order(PathCommand::Clear, path.path)?;
            }
        }
        self.stop.sleep(AFTER_CLEAR)?;
        let pair = self.settled(fault)?;
        let mut between = 0;
        for site in 0..2 {
            let switches = watch::switches(&self.news(site)?);
            let of_class = switches.iter().filter(|switch| switch.class == class);
            // Gateways that have just started still choose.
            between += if self.trials > 0 {
                of_class.count() as u32
            } else {
                0
            };
        }
        Ok((pair, between))
    }

    fn settled(&self, fault: Fault) -> Result<Pair> {
        // Beside a bulk flow the queue alone may take a class out of its bounds, which its gateways remember for half a
        // minute; what is measured there does not depend on it.
        let wants_met = !fault.has_bulk();
        let (class, _) = fault.class();
        watch::settled(
            &self.twin,
            &self.watches,
            class,
            wants_met,
            SETTLE_MAX,
            self.stop,
        )
    }

    /// Gateways that have just started may change their choice while delays become known: waits for the end of that.
    fn await_first_choice(&mut self, class: &str) -> Result<()> {
        let mut first_ms = 0;
        for site in 0..2 {
            let first = self.news(site)?.into_iter().rev().find(|event| {
                let decision = event.decision.as_ref();
                let is_first = decision.is_some_and(|it| it.from.is_none() && it.to.is_some());
                is_first && event.class.as_deref() == Some(class)
            });
            first_ms = first.map_or(first_ms, |event| event.unix_ms.max(first_ms));
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let end = Duration::from_millis(first_ms) + FIRST_CHOICE;
        self.stop.sleep(end.saturating_sub(now).min(FIRST_CHOICE))?;
        Ok(())
    }

    /// Has every path's bandwidth measured, so that gateways know which are slow, and puts the class on the one that is
    /// not: pinned there and set free again, it stays of its own will.
    fn measure_and_choose(&mut self, class: &str) -> Result<()> {
        for watch in &self.watches {
            for path in watch.paths()?.paths {
                watch.measure_bandwidth(path.path)?;
                self.stop.sleep(AFTER_TRAIN)?;
            }
        }
        let paths = [self.watches[0].paths()?, self.watches[1].paths()?];
        for paths in &paths {
            let unknown = paths
                .paths
                .iter()
                .filter(|path| path.tx_bandwidth.is_none());
            ensure!(
                unknown.count() == 0,
                "a train over a path did not tell its bandwidth"
            );
        }
        // Only a path that is up can be pinned to.
        self.settled(Fault::Brownout20Bulk)?;
        for site in 0..2 {
            for number in self.numbers_of(site, &[FAST])? {
                self.watches[site].pin(class, number)?;
            }
        }
        self.stop.sleep(AFTER_ORDER)?;
        self.await_fast("go to")?;
        for watch in &self.watches {
            watch.unpin(class)?;
        }
        self.stop.sleep(AFTER_ORDER)?;
        self.await_fast("stay of its own will on")
    }

    /// Waits until the class is on one path, which must be the fast one.
    fn await_fast(&self, what: &str) -> Result<()> {
        let pair = self.settled(Fault::Brownout20Bulk)?;
        ensure!(
            pair == FAST,
            "the class does not {what} the fast path, {FAST}: it is on {pair}"
        );
        Ok(())
    }
}

/// The pair of uplinks that is fast where the others are slow.
pub(super) const FAST: Pair = Pair { one: 0, two: 0 };
/// How long gateways may take until all paths are up and two are within the class's bounds: a violation is remembered for
/// half a minute.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// A gateway may change its first choice for five seconds, while delays become known.
const FIRST_CHOICE: Duration = Duration::from_millis(5500);
const AFTER_CLEAR: Duration = Duration::from_millis(100);
/// Three trains, and their results.
const AFTER_TRAIN: Duration = Duration::from_millis(800);
const AFTER_ORDER: Duration = Duration::from_millis(1500);
