//! Puts a sample into the history every ten seconds, and finds the folder where it lives.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use patronus_config::Config;
use patronus_engine::Counters;
use patronus_history::{History, SAMPLE_INTERVAL_S, Settings};

use crate::api::{ApiState, Look, Looks, Moment, sample};

/// Where the history is unless the configuration or systemd says otherwise.
const STATE_DIR: &str = "/var/lib/patronus";
const INTERVAL: Duration = Duration::from_secs(SAMPLE_INTERVAL_S);

/// Takes samples.
#[derive(Debug)]
pub struct Recorder {
    looks: Looks,
    before: Option<Counters>,
    next: Instant,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new(now: Instant) -> Self {
        Self {
            looks: Looks::default(),
            before: None,
            next: now,
        }
    }

    /// Takes a sample where one is due. Never waits.
    pub fn tick(&mut self, state: &ApiState) {
        let moment = Moment::now();
        if moment.now < self.next {
            return;
        }
        // Samples stay ten seconds apart, also where one came late.
        self.next = (self.next + INTERVAL).max(moment.now);
        self.looks
            .keep(Look::new(state.facts(), &state.live().snapshot, moment.now));
        let rates = self.looks.rates();
        let (sample, sum) = sample(state, rates.as_ref(), self.before.as_ref(), moment);
        self.before = Some(sum);
        state.history().put(sample);
    }
}

/// The folder for what outlives the gateway.
pub fn state_dir_of(config: &Config, base: &Path) -> PathBuf {
    match &config.site.state.dir {
        Some(dir) => base.join(dir),
        // Set by systemd for a unit with StateDirectory=.
        None => match std::env::var_os("STATE_DIRECTORY") {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(STATE_DIR),
        },
    }
}

/// The history that a configuration wants. One that cannot be had is off, which is said once.
pub fn history_of(config: &Config, base: &Path) -> History {
    if !config.site.state.history {
        return History::off("[site] history = false");
    }
    let dir = state_dir_of(config, base);
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o750);
    match builder.create(&dir) {
        Ok(()) => {
            let file = format!("history-{}.sqlite3", config.site.interface);
            History::start(Settings::day(dir.join(file)))
        }
        Err(error) => {
            let reason = format!(
                "cannot make {}: {error}: set [site] state_dir",
                dir.display()
            );
            tracing::warn!("no history is kept: {reason}");
            History::off(reason)
        }
    }
}
