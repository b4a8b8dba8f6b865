//! `patronus policy check`.

use std::collections::BTreeMap;

use patronus_policy::manifest::Kind;
use patronus_policy::{Diagnostic, Severity};
use serde::Serialize;

use super::input::Manifests;
use super::{DONE, FAILED, ManifestArgs, print};

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'m> {
    valid: bool,
    files: usize,
    /// Objects taken, by kind.
    objects: BTreeMap<&'static str, usize>,
    errors: usize,
    warnings: usize,
    diagnostics: &'m [Diagnostic],
    /// How many more diagnostics there are.
    left_out: usize,
}

/// Says what is wrong with manifests.
pub fn check(args: &ManifestArgs) -> anyhow::Result<u8> {
    let Manifests { files, loaded } = Manifests::read(&args.paths)?;
    let of = |severity| {
        let all = loaded.diagnostics.iter();
        all.filter(|it| it.severity == severity).count()
    };
    let mut objects = BTreeMap::new();
    for kind in Kind::ALL {
        let of_kind = loaded.objects.iter();
        let of_kind = of_kind.filter(|it| it.reference().kind == kind).count();
        objects.insert(kind.name(), of_kind);
    }
    let answer = Answer {
        valid: !loaded.has_errors(),
        files,
        objects,
        errors: of(Severity::Error),
        warnings: of(Severity::Warning),
        diagnostics: &loaded.diagnostics,
        left_out: loaded.left_out,
    };
    match args.json {
        true => print::json(&answer)?,
        false => print::text_out(&for_people(&answer)),
    }
    Ok(if answer.valid { DONE } else { FAILED })
}

fn for_people(answer: &Answer<'_>) -> String {
    let mut text = String::new();
    for diagnostic in answer.diagnostics {
        text += &print::wrapped(&diagnostic.to_string(), 4);
    }
    if answer.left_out > 0 {
        text += &format!("and {} more\n", answer.left_out);
    }
    let kinds = answer.objects.iter().filter(|(_, number)| **number > 0);
    let kinds: Vec<String> = kinds
        .map(|(kind, number)| format!("{kind} {number}"))
        .collect();
    let objects = match kinds.is_empty() {
        true => "no object".to_owned(),
        false => kinds.join(", "),
    };
    let files = print::count(answer.files, "file", "files");
    text += &print::wrapped(&format!("{files}: {objects}"), 4);
    let errors = print::count(answer.errors, "error", "errors");
    let warnings = print::count(answer.warnings, "warning", "warnings");
    text += &format!("{errors}, {warnings}\n");
    text
}
