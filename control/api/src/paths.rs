//! What the API says about paths: where they stand, what an operator wants of them, and what became of them.
//!
//! Times of paths are in milliseconds, rates in bits per second, loss in percent. "tx" is from the gateway that is
//! asked to its peer, "rx" from there to it. What was not measured is absent, never zero.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// `GET /v1/paths`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathsQuery {
    /// Only this peer: its name or its public key.
    pub peer: Option<String>,
}

/// The answer to [`PathsQuery`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathsResponse {
    /// The traffic classes, by number.
    pub classes: Vec<ClassView>,
    /// The peers, by name.
    pub peers: Vec<PeerPathsView>,
}

/// A traffic class as configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassView {
    /// Its name.
    pub name: String,
    /// Whether it has what fits no other class.
    pub is_default: bool,
    /// How it scores: `weighted`, `voice` or `throughput`.
    pub scoring: String,
    /// Bounds of the round trip in milliseconds.
    pub latency_ms: Option<BoundsView>,
    /// Bounds of jitter in milliseconds.
    pub jitter_ms: Option<BoundsView>,
    /// Bounds of loss in percent.
    pub loss_pct: Option<BoundsView>,
    /// Whether its packets go twice while their path is suspect.
    pub protect: bool,
    /// Uplinks that come before all others, best first.
    pub prefer: Vec<String>,
    /// Addresses of pods that belong to it by their labels; absent where it asks for none.
    #[serde(default)]
    pub pod_addrs: Option<usize>,
}

/// Up to `soft` nothing is lost; from `hard` on a path is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundsView {
    /// The good value.
    pub soft: f64,
    /// The unbearable value.
    pub hard: f64,
}

/// The paths to one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerPathsView {
    /// Its name, or the start of its key.
    pub peer: String,
    /// Its public key.
    pub public_key: String,
    /// Whether it answers hellos: it is a Patronus site.
    pub is_site: bool,
    /// Times that this gateway was late by more than an interval with its hellos, and gave the peer that much longer;
    /// absent where nobody counts.
    #[serde(default)]
    pub prober_starved: Option<u64>,
    /// Its paths, by number.
    pub paths: Vec<PathView>,
    /// Where each class goes.
    pub routes: Vec<ClassRouteView>,
    /// The prefixes behind it that are asked whether they answer.
    #[serde(default)]
    pub vias: Vec<ViaView>,
}

/// A prefix behind a peer, and whether it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViaView {
    /// The prefix.
    pub prefix: String,
    /// What is known.
    pub state: ViaStateView,
    /// State and reason for people.
    pub text: String,
    /// Seconds since the state changed.
    pub state_age_s: f64,
    /// Seconds since the last answer; absent where none ever came.
    pub answer_age_s: Option<f64>,
    /// The machines that are asked.
    pub probes: Vec<IpAddr>,
    /// From one question to the next.
    pub interval_ms: u64,
    /// Unanswered questions in a row that mean unreachable.
    pub misses: u32,
    /// The peer that has its packets in the meantime; absent where they go to its owner.
    pub detour: Option<String>,
}

/// What is known of a prefix behind a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViaStateView {
    /// It never answered.
    Unknown,
    /// It answers.
    Reachable,
    /// It answered once and does not any more.
    Unreachable,
}

/// Where a class goes, by paths' numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRouteView {
    /// The class.
    pub class: String,
    /// The path of its new flows; absent while there is no usable one.
    pub path: Option<u8>,
    /// The path that it leaves: flows on it stay until they pause.
    pub leaving: Option<u8>,
    /// A second path that has copies of its packets while the first is suspect.
    pub protect: Option<u8>,
    /// The path that an operator pinned it to.
    pub pinned: Option<u8>,
}

/// `GET /v1/paths/{peer}/{path}`, and one of many in [`PathsResponse`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    /// `peer/number`
    pub id: String,
    /// The peer.
    pub peer: String,
    /// Its number.
    pub path: u8,
    /// Its name: the uplink, then the remote end.
    pub name: String,
    /// The uplink's name; absent where the kernel's routes choose.
    pub uplink: Option<String>,
    /// The peer's address there.
    pub remote: SocketAddr,
    /// Our address that the peer uses.
    pub local: Option<IpAddr>,
    /// Its state.
    pub state: PathStateView,
    /// Why, as a word that stays the same.
    pub reason: String,
    /// State and reason for people.
    pub text: String,
    /// Seconds since the state changed.
    pub state_age_s: f64,
    /// Whether an operator drains it.
    pub is_draining: bool,
    /// Whether bytes cost money.
    pub is_metered: bool,
    /// The operator's cost; absent where it has none.
    pub cost: Option<u16>,
    /// Round trip, time constant 0.5 s.
    pub rtt_ms: Option<f64>,
    /// Round trip, time constant 10 s.
    pub rtt_slow_ms: Option<f64>,
    /// Least round trip of the last 60 s.
    pub rtt_min_ms: Option<f64>,
    /// 95th percentile of the last 60 s.
    pub rtt_p95_ms: Option<f64>,
    /// Interarrival jitter towards the peer (RFC 3550).
    pub tx_jitter_ms: Option<f64>,
    /// Interarrival jitter towards us.
    pub rx_jitter_ms: Option<f64>,
    /// What is lost towards the peer.
    pub tx_loss: LossView,
    /// What is lost towards us.
    pub rx_loss: LossView,
    /// Round trip less the least one: queues both ways.
    pub queueing_ms: Option<f64>,
    /// The queue on the way to us.
    pub rx_queueing_ms: Option<f64>,
    /// Capacity towards the peer.
    pub tx_bandwidth: Option<BandwidthView>,
    /// Capacity towards us.
    pub rx_bandwidth: Option<BandwidthView>,
    /// Rate of data sent, over the last second.
    pub tx_bps: f64,
    /// Rate of data received, over the last second.
    pub rx_bps: f64,
    /// Largest outer IP packet that is known to pass, in bytes.
    pub mtu: Option<u16>,
    /// Data packets sent.
    pub tx_packets: u64,
    /// Bytes of UDP payload sent with them.
    pub tx_bytes: u64,
    /// Data packets received.
    pub rx_packets: u64,
    /// Bytes of UDP payload received with them.
    pub rx_bytes: u64,
    /// How each class sees it.
    pub classes: Vec<StandingView>,
}

/// A path's liveness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathStateView {
    /// Nothing is heard.
    Down,
    /// The peer is heard, and does not say yet that it hears us.
    Init,
    /// Both directions work.
    Up,
    /// Up, but the last hellos did not come.
    Suspect,
    /// An operator or the configuration holds it down.
    AdminDown,
}

/// What is lost in one direction, in percent; absent while a window has seen too little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossView {
    /// Hellos, over the last second.
    pub one_s_pct: Option<f64>,
    /// Hellos, over the last 10 s: the one that is scored.
    pub ten_s_pct: Option<f64>,
    /// Hellos, over the last 60 s.
    pub sixty_s_pct: Option<f64>,
    /// Data packets, where enough were sent.
    pub data_pct: Option<f64>,
}

/// A bandwidth figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandwidthView {
    /// Bits of outer IP per second.
    pub bps: f64,
    /// `configured`, `passive` (the most that was delivered while the path was full) or `train` (a probe train).
    pub source: String,
    /// How old it is.
    pub age_s: f64,
}

/// How a class sees a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandingView {
    /// The class.
    pub class: String,
    /// 0 best to 4 unusable.
    pub tier: u8,
    /// The tier in words.
    pub tier_text: String,
    /// 0 to 100.
    pub score: f64,
    /// Whether the class's new flows go there.
    pub is_used: bool,
    /// Whether an operator pinned the class there.
    pub is_pinned: bool,
    /// What each metric is worth to the class.
    pub utilities: UtilitiesView,
    /// Why the class does not use it; absent where it does.
    pub why_not: Option<String>,
}

/// 1 for a good value, 0 for an unbearable one; absent where the class has no bounds or nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UtilitiesView {
    /// Of the round trip.
    pub latency: Option<f64>,
    /// Of jitter, the worse direction.
    pub jitter: Option<f64>,
    /// Of loss, the worse direction.
    pub loss: Option<f64>,
}

/// `POST /v1/paths/{peer}/command`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathCommandRequest {
    /// What is wanted.
    pub command: PathCommand,
    /// The path, by number or name; only `unpin` does without.
    #[serde(default)]
    pub path: Option<String>,
    /// Only this class; for `pin` and `unpin`.
    #[serde(default)]
    pub class: Option<String>,
    /// Say what would be done and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an operator may want of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathCommand {
    /// Classes use this path while it is usable.
    Pin,
    /// Undoes pins.
    Unpin,
    /// Everybody leaves this path gracefully.
    Drain,
    /// Undoes a drain.
    Undrain,
    /// Forgets penalties and hold-downs.
    Clear,
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedResponse {
    /// Whether the order went out; `false` for a dry run.
    pub done: bool,
    /// What was ordered, for people.
    pub text: String,
    /// What the operator may not expect.
    pub warnings: Vec<String>,
}

/// `POST /v1/paths/{peer}/{path}/ping`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// How many; 1 if absent.
    #[serde(default)]
    pub count: Option<u32>,
    /// From one to the next; 1000 if absent.
    #[serde(default)]
    pub interval_ms: Option<u32>,
    /// How long to wait for each; 1000 if absent.
    #[serde(default)]
    pub timeout_ms: Option<u32>,
}

/// The answer to [`PingRequest`]: round trips inside the tunnel, measured by the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingResponse {
    /// `peer/number`
    pub id: String,
    /// The path's name.
    pub name: String,
    /// Each one's round trip; absent for one that did not come back in time.
    pub rtts_ms: Vec<Option<f64>>,
    /// How many were sent.
    pub sent: u32,
    /// How many came back.
    pub received: u32,
    /// Share that did not.
    pub loss_pct: f64,
    /// The least round trip.
    pub rtt_min_ms: Option<f64>,
    /// The average.
    pub rtt_avg_ms: Option<f64>,
    /// The longest.
    pub rtt_max_ms: Option<f64>,
}

/// `GET /v1/paths/{peer}/trace`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// How long to record.
    pub seconds: u32,
}

/// `GET /v1/events`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only those with a larger number.
    pub since: Option<u64>,
    /// Only those of this peer: its name or its public key.
    pub peer: Option<String>,
    /// Only these kinds, separated by commas.
    pub kind: Option<String>,
    /// Only those of the last so many seconds.
    pub max_age_s: Option<u64>,
    /// How long to wait for one if there is none; see [`EVENTS_WAIT_MAX_S`](crate::EVENTS_WAIT_MAX_S).
    pub wait_s: Option<u64>,
}

/// The answer to [`EventsQuery`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsResponse {
    /// The oldest first.
    pub events: Vec<EventView>,
    /// What to send as `since` for those that come after. Less than the `since` of the request where the gateway was
    /// restarted: it numbers from 1 again, and all it knows is in the answer.
    pub next: u64,
    /// Events after `since` that the gateway has forgotten, to make room.
    pub lost: u64,
    /// Events since the start that workers could not tell, because control was too far behind.
    pub dropped: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number; from 1 since the gateway's start.
    pub number: u64,
    /// When, in nanoseconds of the gateway's monotonic clock since its start.
    pub at_ns: u64,
    /// When, in milliseconds since 1970 of the gateway's wall clock.
    pub unix_ms: u64,
    /// What it is about.
    pub kind: EventKind,
    /// How good or bad it is.
    pub grade: GradeView,
    /// The peer.
    pub peer: Option<String>,
    /// The path's number.
    pub path: Option<u8>,
    /// The path's name.
    pub path_name: Option<String>,
    /// The class.
    pub class: Option<String>,
    /// One line for people.
    pub text: String,
    /// The path's state, where `kind` is `state`.
    pub state: Option<PathStateView>,
    /// Why, as a word that stays the same.
    pub reason: Option<String>,
    /// The whole decision, where `kind` is `decision`.
    pub decision: Option<DecisionView>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A class changed its path.
    Decision,
    /// A path changed its state.
    State,
    /// A path is new, or goes to another address.
    Moved,
    /// An uplink works, or does not.
    Uplink,
    /// An operator's order.
    Command,
    /// A handshake completed, or was given up.
    Handshake,
    /// A peer has a new address.
    Endpoint,
    /// Lanes were agreed with a peer.
    Lanes,
    /// A prefix behind a peer answers, or does not.
    Via,
    /// Something about the gateway itself: a reload, a worker, the store of samples.
    Gateway,
}

/// How good or bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradeView {
    /// As it should be.
    Good,
    /// Neither.
    Info,
    /// Worse than it should be.
    Warning,
    /// Something does not work.
    Bad,
}

/// Why a class uses another path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// The path that it left.
    pub from: Option<u8>,
    /// The path that it uses.
    pub to: Option<u8>,
    /// `first`, `forced`, `sla`, `better`, `failback`, `drain`, `pin`, `peer` or `no_path`.
    pub cause: String,
    /// Every path as it stood.
    pub candidates: Vec<CandidateView>,
}

/// A path as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    /// Its number.
    pub path: u8,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: PathStateView,
    /// 0 best to 4 unusable.
    pub tier: u8,
    /// 0 to 100.
    pub score: f64,
    /// Round trip.
    pub rtt_ms: Option<f64>,
    /// The worse direction's jitter.
    pub jitter_ms: Option<f64>,
    /// The worse direction's loss.
    pub loss_pct: Option<f64>,
    /// What each metric was worth.
    pub utilities: UtilitiesView,
    /// Why it was not chosen; absent for the chosen one.
    pub why_not: Option<String>,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Decision,
        Self::State,
        Self::Moved,
        Self::Uplink,
        Self::Command,
        Self::Handshake,
        Self::Endpoint,
        Self::Lanes,
        Self::Via,
        Self::Gateway,
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::State => "state",
            Self::Moved => "moved",
            Self::Uplink => "uplink",
            Self::Command => "command",
            Self::Handshake => "handshake",
            Self::Endpoint => "endpoint",
            Self::Lanes => "lanes",
            Self::Via => "via",
            Self::Gateway => "gateway",
        }
    }
}

impl GradeView {
    /// The sign of a grade, one column wide, in the console and in every table; `None` for nothing known. As ASCII for
    /// serial lines.
    pub fn sign(grade: Option<Self>, is_ascii: bool) -> &'static str {
        let (fine, ascii) = match grade {
            Some(Self::Good) => ("●", "*"),
            Some(Self::Warning) => ("▲", "!"),
            Some(Self::Bad) => ("✖", "x"),
            Some(Self::Info) | None => ("–", "-"),
        };
        if is_ascii { ascii } else { fine }
    }
}

impl PathView {
    /// How well it does: up but not keeping what a class asks is a warning; one that is not wanted, or of which nothing
    /// was heard yet, has no grade.
    pub fn grade(&self) -> Option<GradeView> {
        match self.state {
            PathStateView::Down => Some(GradeView::Bad),
            PathStateView::Init | PathStateView::AdminDown => None,
            PathStateView::Suspect => Some(GradeView::Warning),
            PathStateView::Up if self.is_draining || self.is_unfit() => Some(GradeView::Warning),
            PathStateView::Up => Some(GradeView::Good),
        }
    }

    /// Whether a class uses it outside its bounds.
    pub fn is_unfit(&self) -> bool {
        self.classes
            .iter()
            .any(|class| class.is_used && class.tier > 0)
    }
}

impl PathStateView {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::AdminDown => "admin down",
        }
    }

    /// Whether packets can go there.
    pub fn is_usable(self) -> bool {
        match self {
            Self::Up | Self::Suspect => true,
            Self::Down | Self::Init | Self::AdminDown => false,
        }
    }
}
