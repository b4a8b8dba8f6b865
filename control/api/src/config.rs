//! Configurations that were applied: their list, their texts, and orders about them.

use serde::{Deserialize, Serialize};

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigCommand {
    /// Take a text, or the configuration file as it stands on disk.
    Apply,
    /// Keep what waits for its confirmation.
    Confirm,
    /// Go back: to an entry of the history, to what was before, or from what waits for its confirmation.
    Rollback,
}

/// `POST /v1/config/command`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigCommandRequest {
    /// What to do.
    pub command: ConfigCommand,
    /// With `apply`: the new text; the configuration file on disk if absent. Relative paths in it start at that file's
    /// folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// With `text`: what to call it in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// With `rollback`: the entry; the configuration before the one in force if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// With `apply` and `rollback`: return to what is in force in so many seconds, unless confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_s: Option<u32>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigCommandResponse {
    /// Whether it was done; false for a dry run.
    pub done: bool,
    /// In one line.
    pub text: String,
    /// The entry of the history that is in force then, where there is one.
    pub number: Option<u64>,
    /// The keys that change.
    pub changes: Vec<ConfigChangeView>,
    /// What takes effect at the next start only.
    pub at_next_start: Vec<String>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// What waits for its confirmation then.
    pub pending: Option<ConfigPendingView>,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChangeView {
    /// Such as `site.mtu` or `peer.branch.allowed_ips`.
    pub key: String,
    /// As TOML, where it was there.
    pub old: Option<String>,
    /// As TOML, where it is there.
    pub new: Option<String>,
}

/// A configuration that waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPendingView {
    /// Its entry.
    pub number: u64,
    /// The entry that comes back where nobody confirms.
    pub previous: u64,
    /// Seconds that are left.
    pub left_s: u64,
    /// When they are over, in milliseconds since 1970 by the clock at the time of the order.
    pub deadline_unix_ms: u64,
}

/// How a configuration came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigOrigin {
    /// The file, at a start.
    Start,
    /// The file, by SIGHUP.
    Reload,
    /// `apply`
    Apply,
    /// `rollback`
    Rollback,
}

impl ConfigOrigin {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Apply => "apply",
            Self::Rollback => "rollback",
        }
    }
}

/// What became of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigFate {
    /// It was, or is, in force.
    Kept,
    /// It waits for its confirmation.
    Pending,
    /// Nobody confirmed it, or somebody took it back.
    Reverted,
    /// It could not be applied.
    Failed,
}

impl ConfigFate {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Pending => "pending",
            Self::Reverted => "reverted",
            Self::Failed => "failed",
        }
    }
}

/// One applied configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEntryView {
    /// From 1; a number is never used twice.
    pub number: u64,
    /// When it came, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How it came.
    pub origin: ConfigOrigin,
    /// Who ordered it: the user's number, where the system tells it.
    pub uid: Option<u32>,
    /// What it was called: a file's name, or an entry.
    pub source: String,
    /// The entry that was in force before.
    pub previous: Option<u64>,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its text in hex, as `sha256sum` prints it.
    pub sha256: String,
    /// What became of it.
    pub fate: ConfigFate,
}

/// How the configuration file on disk and the running configuration stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigFileState {
    /// The same text.
    Same,
    /// It was not touched since the last order, and another text runs: the running one is taken at the next start too.
    Superseded,
    /// It was edited since: it is taken at the next start, or when it is applied.
    Edited,
    /// It cannot be read.
    Unreadable,
}

/// `GET /v1/config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigResponse {
    /// The configuration file.
    pub file: String,
    /// How it stands to what runs.
    pub file_state: ConfigFileState,
    /// The entry in force; `None` where no history is kept.
    pub running: Option<u64>,
    /// What of it takes effect at the next start only.
    pub at_next_start: Vec<String>,
    /// What waits for its confirmation.
    pub pending: Option<ConfigPendingView>,
    /// The folder of the history.
    pub dir: String,
    /// Why nothing can be recorded, where that is so.
    pub problem: Option<String>,
    /// The entries that are kept, the newest first.
    pub entries: Vec<ConfigEntryView>,
}

/// `GET /v1/config/{entry}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigTextResponse {
    /// The entry; `None` for a running one that is not recorded, and for the file.
    pub number: Option<u64>,
    /// Its text, which names secrets by path only.
    pub text: String,
}
