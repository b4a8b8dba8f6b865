//! Events of paths and peers as lines for the log, at a bounded rate: numbers and names, and addresses at DEBUG only.

use std::time::{Duration, Instant};

use patronus_path::PathState;

use crate::path_events::{Record, What, cause_name, reason_name};
use crate::via::ViaState;

/// Makes lines, and counts what it leaves out.
#[derive(Debug)]
pub struct PathLog {
    /// When the bucket is full again.
    full_at: Instant,
    left_out: u64,
}

impl PathLog {
    /// Nothing told yet.
    pub fn new(now: Instant) -> Self {
        Self {
            full_at: now,
            left_out: 0,
        }
    }

    /// Tells an event.
    pub fn tell(&mut self, record: &Record, now: Instant) {
        let peer = record.about.peer.as_deref();
        let path = record.about.path.as_ref().map(|(path, _)| path.0);
        match &record.what {
            What::HandshakeCompleted => tracing::debug!(peer, "handshake completed"),
            What::HandshakeGivenUp => tracing::warn!(
                peer,
                "no answer to handshakes for 90 s: waiting packets dropped"
            ),
            What::Endpoint(endpoint) => {
                tracing::info!(peer, "peer has a new address");
                tracing::debug!(peer, addr = %endpoint.remote, "the new address");
            }
            What::Lanes(lanes) => tracing::debug!(peer, lanes, "lanes agreed"),
            What::Moved(endpoint, uplink) => {
                tracing::debug!(peer, path, uplink, addr = %endpoint.remote, "path moved");
            }
            // Those who do it tell it: the API with the user, the watch over uplinks with the interface.
            What::Command(..) | What::Uplink(..) | What::Gateway(..) => {}
            What::State(PathState::Suspect | PathState::Init, reason) => {
                tracing::debug!(
                    peer,
                    path,
                    reason = reason_name(*reason),
                    "path in question"
                );
            }
            What::State(state, reason) if self.may_tell(now) => {
                let reason = reason_name(*reason);
                match state {
                    PathState::Down => tracing::warn!(peer, path, reason, "path down"),
                    PathState::Up | PathState::Init | PathState::Suspect => {
                        tracing::info!(peer, path, reason, "path up");
                    }
                    PathState::AdminDown => tracing::info!(peer, path, reason, "path held down"),
                }
            }
            What::Decided(decision) if self.may_tell(now) => {
                let class = decision.class_name.as_str();
                let from = decision.from.map(|it| it.0);
                let cause = cause_name(decision.cause);
                match decision.to {
                    Some(to) => tracing::info!(peer, class, from, to = to.0, cause, "class moved"),
                    None => tracing::warn!(peer, class, from, cause, "class has no path"),
                }
            }
            What::Via(state, text) => {
                match state {
                    ViaState::Reachable => tracing::info!(peer, "a prefix behind it answers"),
                    ViaState::Unknown => tracing::warn!(peer, "a prefix behind it never answered"),
                    ViaState::Unreachable => {
                        tracing::warn!(peer, "a prefix behind it does not answer")
                    }
                }
                tracing::debug!(peer, "{text}");
            }
            What::State(..) | What::Decided(_) => {}
        }
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + INTERVAL;
        if full_at > now + INTERVAL * BURST {
            self.left_out += 1;
            return false;
        }
        self.full_at = full_at;
        match std::mem::take(&mut self.left_out) {
            0 => {}
            more => tracing::warn!(more, "events of paths were left out of the log"),
        }
        true
    }
}

/// Ten lines a second for long, forty at once.
const INTERVAL: Duration = Duration::from_millis(100);
const BURST: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_mesh_makes_forty_lines_and_then_ten_a_second() {
        let start = Instant::now();
        let mut log = PathLog::new(start);
        let told = (0..1000).filter(|_| log.may_tell(start)).count();
        assert_eq!((told, log.left_out), (40, 960));
        assert!(log.may_tell(start + INTERVAL));
        assert_eq!(log.left_out, 0);
        assert!(!log.may_tell(start + INTERVAL));
    }
}
