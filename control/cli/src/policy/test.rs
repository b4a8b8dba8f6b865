//! `patronus policy test`.

use patronus_policy::document::{Document, TestReport};
use patronus_policy::{Compiler, Diagnostic};
use serde::Serialize;

use super::{DONE, FAILED, TestArgs, input, print};

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'r> {
    passed: bool,
    files: usize,
    cases: usize,
    #[serde(flatten)]
    report: &'r TestReport,
    /// Documents that could not be read.
    faults: &'r [Diagnostic],
}

/// Runs documents on the production tables.
pub fn test(args: &TestArgs) -> anyhow::Result<u8> {
    let mut report = TestReport::default();
    let (mut cases, mut faults) = (0, Vec::new());
    for file in &args.files {
        let name = file.display().to_string();
        match Document::parse(&name, &input::read(file, DOCUMENT_BYTES_MAX)?) {
            Ok(document) => {
                cases += document.len();
                report.merge(document.run::<Compiler>(&name));
            }
            Err(found) => faults.extend(found),
        }
    }
    // A document that tests nothing must not look like one that passed.
    let passed = report.has_passed() && faults.is_empty() && cases > 0;
    if args.json {
        print::json(&Answer {
            passed,
            files: args.files.len(),
            cases,
            report: &report,
            faults: &faults,
        })?;
    } else {
        let mut text = String::new();
        for fault in &faults {
            text += &format!("{fault}\n");
        }
        text += &format!("{report}\n");
        print::text_out(&text);
    }
    if cases == 0 && faults.is_empty() {
        eprintln!("patronus: no case and no validation in any document: nothing was tested");
    }
    Ok(if passed { DONE } else { FAILED })
}

/// As much as a document may have.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;
