//! The pre-filter.
