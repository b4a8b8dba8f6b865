//! What is thrown away in the kernel, where, and orders about it.

use serde::{Deserialize, Serialize};

/// `GET /v1/prefilter`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefilterResponse {
    /// What is configured for the uplinks: `auto`, `xdp`, `xdp-generic`, `tcx`, `clsact` or `off`.
    pub wan: String,
    /// What is configured for policy in the kernel: `auto` or `off`.
    pub lan: String,
    /// Why this gateway has no pre-filter at all; absent where it has one, or none is wanted.
    pub unavailable: Option<String>,
    /// The interfaces that it guards or should guard.
    pub hooks: Vec<PrefilterHookView>,
    /// Whether sources that nobody on the Internet can have are dropped.
    pub bogons: bool,
    /// Whether messages to receivers that the gateway has not handed out are dropped.
    pub known_receivers: bool,
    /// Handshake initiations that pass from one IPv4 /24 or IPv6 /64 for long.
    pub initiations_per_second: u32,
    /// As many at once.
    pub initiations_burst: u32,
    /// The files of blocked prefixes.
    pub block_lists: Vec<BlockListView>,
    /// What became of packets since the gateway's start, by side and reason.
    pub counts: Vec<PrefilterCountView>,
    /// What policy in the kernel holds; absent where it is not attached.
    pub policy: Option<PrefilterPolicyView>,
}

/// One interface with the filter on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefilterHookView {
    /// The interface.
    pub interface: String,
    /// What it leads to.
    pub side: PrefilterSideView,
    /// How it stands there.
    pub state: PrefilterStateView,
    /// Where it is hooked in: `xdp`, `xdp-generic`, `tcx` or `clsact`; absent where it is not.
    pub hook: Option<String>,
    /// Why it is not attached, or why not to a better hook.
    pub why: Option<String>,
    /// Seconds since it was attached.
    pub attached_s: Option<u64>,
}

/// What an interface leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefilterSideView {
    /// The Internet.
    Wan,
    /// The site.
    Lan,
}

/// How the filter stands on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefilterStateView {
    /// It looks at every packet.
    Attached,
    /// There is no such interface.
    Absent,
    /// The kernel refused it.
    Refused,
    /// An operator took it off; a reload or a restart puts it back.
    Detached,
    /// Nobody wants it there.
    Off,
}

/// A file of blocked prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockListView {
    /// The file, as configured.
    pub file: String,
    /// IPv4 prefixes of it in force.
    pub prefixes_v4: usize,
    /// IPv6 prefixes of it in force.
    pub prefixes_v6: usize,
    /// Why the last load refused the file; what was in force before stays so.
    pub refused: Option<String>,
}

/// What became of packets for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefilterCountView {
    /// Where.
    pub side: PrefilterSideView,
    /// Why.
    pub reason: String,
    /// Whether such packets are dropped; the others go on.
    pub is_drop: bool,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Policy in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefilterPolicyView {
    /// The generation of policy that the kernel enforces.
    pub generation: u64,
    /// Subjects that the kernel leaves to the workers, since their policy does not fit its tables.
    pub left_to_workers: usize,
    /// What is to be said about them.
    pub notes: Vec<String>,
}

/// `POST /v1/prefilter/command`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefilterCommandRequest {
    /// What to do.
    pub command: PrefilterCommand,
    /// Only on this interface; else on all that are guarded.
    #[serde(default)]
    pub interface: Option<String>,
    /// To this hook of the uplinks' side; else to the one that is configured. Only for `attach`.
    #[serde(default)]
    pub hook: Option<String>,
    /// Say what would be done and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefilterCommand {
    /// Hook the filter in, or move it to another hook.
    Attach,
    /// Take it off until the next reload or restart.
    Detach,
}

/// The filter in one line, for `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefilterSummary {
    /// Whether it is attached wherever it is wanted.
    pub is_complete: bool,
    /// For people: where it is, or why it is not.
    pub text: String,
    /// Packets that it dropped since the gateway's start.
    pub dropped: u64,
}

impl PrefilterSideView {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Lan => "lan",
        }
    }
}

impl PrefilterStateView {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Absent => "no such interface",
            Self::Refused => "refused",
            Self::Detached => "detached",
            Self::Off => "off",
        }
    }

    /// Whether what is wanted is not the case.
    pub fn is_fault(self) -> bool {
        match self {
            Self::Absent | Self::Refused => true,
            Self::Attached | Self::Detached | Self::Off => false,
        }
    }
}
