//! The pre-filter in this gateway.

pub mod lan_tables;
