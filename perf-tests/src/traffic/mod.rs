//! Traffic between hosts of a lab, counted where it arrives. A socket belongs to the namespace it was opened in,
//! so only opening happens there; the threads that use it run anywhere. Every wait is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub mod ambient;
pub mod flood;
pub mod generator;
pub mod initiators;
pub mod numbered;
pub mod pace;
pub mod ping;
pub mod record;
pub mod tcp;
pub mod transfer;
pub mod udp;

pub use ambient::{Ambience, Ambient};
pub use flood::{Flood, Flooded};
pub use generator::{Generator, Mix, Trial};
pub use initiators::Crowd;
pub use numbered::NumberedFlow;
pub use ping::{PingResult, Pinger, reach};
pub use tcp::BulkTcp;
pub use transfer::verified_transfer;
pub use udp::{UdpBlast, UdpResult};

/// Tells threads to end; dropping it tells them too, so that traffic which was given up does not run on.
#[derive(Debug, Default)]
pub(crate) struct Leash(Arc<AtomicBool>);

impl Leash {
    /// What the threads look at.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Tells the threads to end.
    pub(crate) fn pull(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.pull();
    }
}

/// What a thread came to; its panic goes on here.
pub(crate) fn joined<T>(thread: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
