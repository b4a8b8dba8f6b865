//! x
pub mod twin;
