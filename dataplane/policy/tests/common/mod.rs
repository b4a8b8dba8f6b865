//! What several test files share.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

pub mod oracle;
