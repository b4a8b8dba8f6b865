//! Threads that take all cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

/// As many threads that compute as there are cores, at the usual priority. Dropping it ends them.
#[derive(Debug)]
pub struct Burners {
    must_end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    /// Starts them.
    ///
    /// # Errors
    /// The system's refusal to start a thread.
    pub fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().context("counting cores")?;
        let mut burners = Self {
            must_end: Arc::new(AtomicBool::new(false)),
            threads: Vec::with_capacity(cores.get()),
        };
        for _ in 0..cores.get() {
            let must_end = Arc::clone(&burners.must_end);
            let thread = std::thread::Builder::new()
                .name("burner".to_owned())
                .spawn(move || {
                    while !must_end.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
                .context("starting a thread that burns")?;
            burners.threads.push(thread);
        }
        Ok(burners)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.must_end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}
