//! All documents of the project through the production tables: the incremental ones and fresh ones.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::path::PathBuf;

use common::oracle::Oracle;
use patronus_policy::Compiler;
use patronus_policy::document::{Document, Judge, TestReport};

/// The project's own documents, and the one that the guide shows.
fn documents() -> Vec<(String, Document)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = std::fs::read_dir(root.join("tests/documents")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.push(root.join("testdata/sample.json"));
    files.push(root.join("../../docs/guide/examples/branch/tests.json"));
    files.retain(|file| file.extension().is_some_and(|it| it == "json"));
    files.sort();
    let read = |file: PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let document = Document::parse(&name, &std::fs::read(&file).unwrap()).unwrap();
        (name, document)
    };
    files.into_iter().map(read).collect()
}

fn run_all<J: Judge>() -> TestReport {
    let mut all = TestReport::default();
    for (name, document) in documents() {
        all.merge(document.run::<J>(&name));
    }
    all
}

#[test]
fn every_verdict_of_every_document_holds_on_the_tables() {
    let report = run_all::<Compiler>();
    println!("{report}");
    let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert_eq!(failures, [""; 0]);
    assert!(report.must.passed > 1_000, "{:?}", report.must);
    assert!(report.should.passed > 20, "{:?}", report.should);
}

#[test]
fn the_slow_evaluator_agrees_on_every_document() {
    let (tables, oracle) = (run_all::<Compiler>(), run_all::<Oracle>());
    assert_eq!(tables.must, oracle.must);
    assert_eq!(tables.should, oracle.should);
    assert_eq!(tables.optional, oracle.optional);
}
