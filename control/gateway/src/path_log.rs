//! What happens to paths, in the log: every change of state and every decision, as long as they are few.

use std::time::{Duration, Instant};

use patronus_engine::PathEvent;

/// Writes lines about paths, at most [`LINES_PER_S_MAX`] in a second.
#[derive(Debug)]
pub struct PathLog {
    window: Instant,
    lines: u32,
    held_back: u64,
}

impl PathLog {
    /// An empty log.
    pub fn new(now: Instant) -> Self {
        Self {
            window: now,
            lines: 0,
            held_back: 0,
        }
    }

    /// Writes what is worth a line.
    pub fn take(&mut self, peer: &str, event: &PathEvent, now: Instant) {
        match event {
            PathEvent::Decided(decision) if self.may_write(now) => {
                tracing::info!(
                    peer,
                    class = decision.class_name,
                    cause = ?decision.cause,
                    "{}",
                    decision.summary
                );
            }
            PathEvent::State(path, state, reason) if self.may_write(now) => {
                tracing::info!(peer, path = path.0, ?state, ?reason, "path");
            }
            PathEvent::Moved(path, endpoint) if self.may_write(now) => {
                tracing::info!(
                    peer,
                    path = path.0,
                    uplink = endpoint.uplink.0,
                    "path has a new address"
                );
                tracing::debug!(peer, path = path.0, addr = %endpoint.remote, "the new address");
            }
            PathEvent::Decided(_) | PathEvent::State(..) | PathEvent::Moved(..) => {}
            // Somebody asked for these and gets them elsewhere.
            PathEvent::Pong(..) | PathEvent::Trace(_) => {}
        }
    }

    fn may_write(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.window) >= Duration::from_secs(1) {
            if self.held_back > 0 {
                tracing::info!(lines = self.held_back, "lines about paths were left out");
            }
            (self.window, self.lines, self.held_back) = (now, 0, 0);
        }
        let may = self.lines < LINES_PER_S_MAX;
        match may {
            true => self.lines += 1,
            false => self.held_back += 1,
        }
        may
    }
}

/// A fault of one uplink moves every peer on it; the first lines say what happened.
const LINES_PER_S_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_second_begins_anew() {
        let start = Instant::now();
        let mut log = PathLog::new(start);
        let written = |log: &mut PathLog, at| (0..100).filter(|_| log.may_write(at)).count();
        assert_eq!(written(&mut log, start), LINES_PER_S_MAX as usize);
        assert_eq!(log.held_back, 80);
        let later = start + Duration::from_secs(1);
        assert_eq!(written(&mut log, later), LINES_PER_S_MAX as usize);
    }
}
