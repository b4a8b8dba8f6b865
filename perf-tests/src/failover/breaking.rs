//! What is done to a lab for each fault, and undone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use patronus_api::PathCommand;
use patronus_impair::{Impairment, Jitter, JitterShape, Loss, Probability};

use super::fault::{Fault, Lasts};
use super::trial::{Broken, Stage, Trial};
use super::twin::{Pair, UPLINKS};
use super::{Bench, all_pairs, classes};
use crate::Gateway;
use crate::traffic::numbered::now_ns;

impl Bench<'_> {
    /// One trial of a fault.
    ///
    /// # Errors
    /// See [`Stage::trial`].
    pub fn trial(&self, stage: &mut Stage<'_>, fault: Fault) -> Result<Trial> {
        let lasts = fault.lasts();
        let nothing = |_: &mut Stage<'_>, _| Ok(());
        match fault {
            Fault::Blackhole | Fault::BlackholeBusy | Fault::Protect => {
                stage.trial(fault, lasts, cut(true), mend(true))
            }
            Fault::OneWay => stage.trial(fault, lasts, cut(false), mend(false)),
            Fault::Carrier => stage.trial(fault, lasts, pull_cable, |stage, pair| {
                stage.twin.set_carrier(pair.one, true)
            }),
            Fault::Address => stage.trial(fault, lasts, end_lease, |stage, pair| {
                stage.twin.set_address(pair.one, true)
            }),
            Fault::Brownout20
            | Fault::Brownout20Bulk
            | Fault::LatencyStep
            | Fault::Jitter60
            | Fault::MtuHole
            | Fault::SizeDrop => self.impaired(stage, fault, lasts),
            Fault::Bufferbloat => {
                let load = |stage: &mut Stage<'_>, pair| self.fill(stage, fault, pair);
                stage.trial(fault, lasts, load, nothing)
            }
            Fault::SquareWave(up_s, down_s) => {
                let up_down = [up_s, down_s].map(|s| Duration::from_secs(s.into()));
                let wave = |stage: &mut Stage<'_>, pair| self.wave(stage, pair, up_down);
                stage.trial(fault, lasts, wave, nothing)
            }
            Fault::Busy => {
                let wait = |stage: &mut Stage<'_>, _| {
                    stage.stop.sleep(self.wave)?;
                    Ok(Broken::default())
                };
                stage.trial(fault, lasts, wait, nothing)
            }
            Fault::Drain => stage.trial(fault, lasts, drain, undrain),
            Fault::PeerRestart => {
                let restart = |stage: &mut Stage<'_>, _| self.restart(stage, fault);
                stage.trial(fault, lasts, restart, nothing)
            }
        }
    }

    /// What only the emulator does.
    fn impaired(&self, stage: &mut Stage<'_>, fault: Fault, lasts: Lasts) -> Result<Trial> {
        let spoil = |stage: &mut Stage<'_>, pair| {
            let impairment = spoilt(fault, self.healthy(fault, pair)?)?;
            stage.twin.impair(pair, impairment)?;
            Ok(Broken::pairs(match fault {
                // There the class is to stay.
                Fault::Brownout20Bulk => Vec::new(),
                _ => vec![pair],
            }))
        };
        let heal = |stage: &mut Stage<'_>, pair| {
            let healthy = self.healthy(fault, pair)?;
            stage.twin.impair(pair, healthy)
        };
        stage.trial(fault, lasts, spoil, heal)
    }

    /// Lets the bulk flow fill the path that the gateways choose, and the one that they are pinned to, and takes its rate
    /// on both; every second trial the other way round.
    fn fill(&self, stage: &mut Stage<'_>, fault: Fault, pair: Pair) -> Result<Broken> {
        let length = self.wave.min(FILL_MAX);
        let (class, _) = fault.class();
        let mut rates = [0.0; 2];
        for turn in 0..2 {
            let is_pinned = (turn + stage.trials) % 2 == 1;
            if is_pinned {
                for site in 0..2 {
                    for number in stage.numbers_of(site, &[pair])? {
                        stage.watches[site].pin(class, number)?;
                    }
                }
                // The move, and what TCP makes of it.
                stage.stop.sleep(AFTER_PIN)?;
            }
            let bulk = stage.bulk.as_ref().context("no bulk flow")?;
            let (before, begun) = (bulk.received_bytes(), Instant::now());
            stage.stop.sleep(length)?;
            let bits = (bulk.received_bytes() - before) as f64 * 8.0;
            rates[usize::from(is_pinned)] = bits / begun.elapsed().as_secs_f64();
            if is_pinned {
                for watch in &stage.watches {
                    watch.unpin(class)?;
                }
            }
        }
        Ok(Broken {
            throughput_bps: Some(rates),
            ..Broken::pairs(all_pairs())
        })
    }

    /// Cuts and mends the path over and over; every pair counts as bad, for the number of all switches is what is
    /// bounded.
    fn wave(&self, stage: &mut Stage<'_>, pair: Pair, up_down: [Duration; 2]) -> Result<Broken> {
        let end = Instant::now() + self.wave;
        loop {
            for (is_up, length) in [(false, up_down[1]), (true, up_down[0])] {
                match is_up {
                    false => stage.twin.cut(pair, true)?,
                    true => stage.twin.mend(pair, true)?,
                }
                let left = end.saturating_duration_since(Instant::now());
                stage.stop.sleep(length.min(left))?;
                if left <= length {
                    if !is_up {
                        stage.twin.mend(pair, true)?;
                    }
                    return Ok(Broken::pairs(all_pairs()));
                }
            }
        }
    }

    /// Kills the gateway of site 2 and starts it again at once.
    fn restart(&self, stage: &mut Stage<'_>, fault: Fault) -> Result<Broken> {
        let gateway = stage.gateways[1]
            .take()
            .context("the gateway of site 2 is not running")?;
        gateway.kill()?;
        let site = &stage.twin.sites[1];
        let config = stage.twin.config(site, classes(fault));
        stage.gateways[1] = Some(Gateway::start(&site.gateway, &self.program, &config)?);
        Ok(Broken {
            ready_ns: Some(now_ns()),
            ..Broken::pairs(all_pairs())
        })
    }
}

impl Broken {
    fn pairs(pairs: Vec<Pair>) -> Self {
        Self {
            pairs,
            ..Self::default()
        }
    }
}

/// What a fault makes of a healthy path.
fn spoilt(fault: Fault, healthy: Impairment) -> Result<Impairment> {
    Ok(match fault {
        Fault::Brownout20 | Fault::Brownout20Bulk => Impairment {
            loss: Loss::Random(Probability::new(0.2).context("20 % is a chance")?),
            ..healthy
        },
        Fault::LatencyStep => Impairment {
            delay: healthy.delay + LATENCY_STEP,
            ..healthy
        },
        // Between two packets delayed at random from 0 to a, the difference is a/3 on average: RFC 3550's jitter. With
        // their order kept, packets of 1 ms apart would all wait for the slowest of them and have none.
        Fault::Jitter60 => Impairment {
            jitter: Jitter {
                amount: JITTER * 3,
                shape: JitterShape::Uniform,
            },
            keep_order: false,
            ..healthy
        },
        Fault::MtuHole => Impairment {
            mtu: Some(HOLE_MTU),
            ..healthy
        },
        Fault::SizeDrop => Impairment {
            hole: Some(DATA_BYTES),
            ..healthy
        },
        other => bail!("{other} is nothing that an emulator does"),
    })
}

fn cut(both: bool) -> impl FnOnce(&mut Stage<'_>, Pair) -> Result<Broken> {
    move |stage, pair| {
        stage.twin.cut(pair, both)?;
        Ok(Broken::pairs(vec![pair]))
    }
}

fn mend(both: bool) -> impl FnOnce(&mut Stage<'_>, Pair) -> Result<()> {
    move |stage, pair| stage.twin.mend(pair, both)
}

fn pull_cable(stage: &mut Stage<'_>, pair: Pair) -> Result<Broken> {
    stage.twin.set_carrier(pair.one, false)?;
    Ok(Broken::pairs(over_uplink(pair.one)))
}

fn end_lease(stage: &mut Stage<'_>, pair: Pair) -> Result<Broken> {
    stage.twin.set_address(pair.one, false)?;
    Ok(Broken::pairs(over_uplink(pair.one)))
}

/// All pairs with that uplink of site 1.
fn over_uplink(one: u8) -> Vec<Pair> {
    UPLINKS.map(|two| Pair { one, two }).to_vec()
}

fn drain(stage: &mut Stage<'_>, pair: Pair) -> Result<Broken> {
    let number = number_of(stage, pair)?;
    stage.watches[0].order(PathCommand::Drain, number)?;
    Ok(Broken::pairs(vec![pair]))
}

fn undrain(stage: &mut Stage<'_>, pair: Pair) -> Result<()> {
    let number = number_of(stage, pair)?;
    stage.watches[0].order(PathCommand::Undrain, number)
}

/// What the gateway of site 1 calls the path over a pair of uplinks.
fn number_of(stage: &Stage<'_>, pair: Pair) -> Result<u8> {
    match stage.numbers_of(0, &[pair])?[..] {
        [number] => Ok(number),
        ref other => bail!(
            "{} has {} paths over {pair}",
            stage.watches[0].label(),
            other.len()
        ),
    }
}

/// One way.
const LATENCY_STEP: Duration = Duration::from_millis(300);
const JITTER: Duration = Duration::from_millis(60);
const HOLE_MTU: u16 = 1300;
/// Around the numbered packets of that fault, 988 bytes; hellos have 172, and probes of the MTU 1200 and more.
const DATA_BYTES: (u16, u16) = (900, 1100);
/// Each half of a trial under load.
const FILL_MAX: Duration = Duration::from_secs(60);
const AFTER_PIN: Duration = Duration::from_secs(2);
