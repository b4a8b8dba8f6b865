//! The committed corpora of the fuzz targets, replayed on stable: what a fuzzer found once stays found.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn every_committed_input_of_every_target_is_harmless() {
    let mut failed = Vec::new();
    for (name, target) in targets::TARGETS {
        let folder = std::fs::read_dir(corpora().join(name)).unwrap();
        let files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
        assert!(
            files.len() >= 10,
            "the corpus of {name} has {} files",
            files.len()
        );
        for file in &files {
            let input = std::fs::read(file).unwrap();
            // Damaged in simple ways, too: cut off, and with a bit flipped.
            let half = &input[..input.len() / 2];
            let mut flipped = input.clone();
            if let Some(byte) = flipped.get_mut(input.len() / 3) {
                *byte ^= 0x10;
            }
            for bytes in [&input[..], half, &flipped] {
                if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
                    failed.push((name, file.display().to_string(), bytes.len()));
                }
            }
        }
        println!("{name}: {} inputs", files.len());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_corpus_has_its_target_and_every_target_its_program() {
    let mut folders: Vec<String> = std::fs::read_dir(corpora())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
    for name in names {
        let program = corpora().join("../bins").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(program).unwrap();
        assert!(
            text.contains(&format!("targets::{name}(data)")),
            "{name}: {text}"
        );
    }
}
