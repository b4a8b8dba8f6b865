//! What the gateway says about tunnels.

use std::net::SocketAddr;
use std::time::Instant;

use crate::endpoint::UplinkLabel;
use crate::ids::{Nonce, SiteId};
use crate::wireguard::WireGuardKey;

/// State of a site's tunnel, as the gateway sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// There is a session that works.
    Up(SessionPath),
    /// There is none, or it carries nothing.
    Down,
}

/// How a session's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPath {
    /// Our uplink, where the gateway knows one.
    pub uplink: Option<UplinkLabel>,
    /// Where the site's packets come from. `None` where they come through a relay.
    pub remote: Option<SocketAddr>,
    /// Through whom they go, if not directly.
    pub relay: Option<SiteId>,
    /// The key of ours that the session was made with.
    pub own_key: WireGuardKey,
}

/// A site's tunnel, and what is tried to get one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    pub path: Option<SessionPath>,
    /// Since when a tunnel is wanted and there is no direct one.
    pub wanted_since: Option<Instant>,
    /// Attempts to open both sides' NATs at once.
    pub attempts: u32,
    pub next_attempt_at: Option<Instant>,
    /// The attempt that goes on, and when to begin to send.
    pub attempt: Option<(Nonce, Instant)>,
    /// Whom to go through as long as there is no direct way.
    pub relay: Option<SiteId>,
    pub relay_since: Option<Instant>,
    pub unreachable_told: bool,
    /// The probe that waits for its answer.
    pub probe: Option<(Nonce, Instant)>,
    pub next_probe_at: Option<Instant>,
    pub next_announcement_at: Option<Instant>,
}

impl Session {
    pub fn is_up(&self) -> bool {
        self.path.is_some()
    }

    pub fn is_direct(&self) -> bool {
        self.path.is_some_and(|path| path.relay.is_none())
    }
}
