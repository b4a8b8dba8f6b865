//! The rules in force and what each refused.

use serde::{Deserialize, Serialize};

use crate::types::{Counter, ModeView, RuleRefView};

/// `GET /v1/policy/rules`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RulesResponse {
    /// When this was read, in milliseconds since 1970 of the gateway's wall clock.
    pub unix_ms: u64,
    /// Whether the site has a policy at all.
    pub has_policy: bool,
    /// The generation of the policy in force; 0 where there is none.
    pub generation: u64,
    /// The rules, as their policies have them; the isolation of a policy's direction stands after its rules.
    pub rules: Vec<RuleHitsView>,
    /// Rules beyond [`RULES_LISTED_MAX`](crate::RULES_LISTED_MAX).
    pub left_out: usize,
    /// What was refused under no rule that is listed.
    pub other: Option<Counter>,
}

/// One rule, what it says, and what it did. Workers count what rules refuse and what they would refuse in audit mode;
/// what a rule lets through is not counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleHitsView {
    /// The rule.
    pub rule: RuleRefView,
    /// Whether its policy counts.
    pub mode: ModeView,
    /// `allow`, `deny`, `pass`, or `isolate` for what no rule of the direction allows.
    pub action: String,
    /// Whom the policy selects, in words.
    pub selects: String,
    /// The other ends and the ports, in words.
    pub matches: String,
    /// What it refused; absent where nobody counts.
    pub hits: Option<Counter>,
    /// Seconds since it refused something; absent where it never did.
    pub last_hit_age_s: Option<f64>,
}
