//! Recent history.
