//! What the fuzz targets do; `control/cli/tests/fuzz_corpus.rs` includes the same file.

pub mod targets;
