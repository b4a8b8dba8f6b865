//! The operator's Ctrl-C, as a flag that every wait of the lab looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::LabError;

/// Set by SIGINT, SIGTERM or SIGHUP; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that only [`Stop::set`] sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that the process's signals set. The second signal ends the process with code 130 at once; the
    /// gateways then end by themselves, since their standard input does.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::new();
        let flag = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("starting a runtime for signals")?;
        let (mut interrupts, mut terminations, mut hangups) = {
            let _guard = runtime.enter();
            let listen = |kind| signal(kind).context("listening for signals");
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    for round in 0..2 {
                        tokio::select! {
                            _ = interrupts.recv() => {}
                            _ = terminations.recv() => {}
                            _ = hangups.recv() => {}
                        }
                        flag.set();
                        if round == 1 {
                            std::process::exit(130);
                        }
                    }
                });
            })
            .context("starting the thread that waits for signals")?;
        Ok(stop)
    }

    /// Sets the flag.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Passes while the flag is not set.
    ///
    /// # Errors
    /// [`LabError::Interrupted`].
    pub fn check(&self) -> Result<(), LabError> {
        match self.is_set() {
            true => Err(LabError::Interrupted),
            false => Ok(()),
        }
    }

    /// Sleeps, but not through the flag.
    ///
    /// # Errors
    /// [`LabError::Interrupted`].
    pub fn sleep(&self, duration: Duration) -> Result<(), LabError> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_flag_ends_every_wait_with_exit_code_130() {
        let stop = Stop::new();
        stop.sleep(Duration::from_millis(1)).unwrap();
        stop.set();
        let error = stop.sleep(Duration::from_secs(3600)).unwrap_err();
        assert_eq!(crate::exit_code(&error.into()), 130);
    }
}
